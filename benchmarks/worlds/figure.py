"""Detector F1 against seconds and against MCC, a point per solver, way to code and seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Okabe and Ito's colours, told apart with every common colour blindness.
LOOKS = {
    "shoal": ("#D55E00", "o"),
    "matryoshka": ("#0072B2", "s"),
    "batchtopk": ("#56B4E9", "^"),
    "topk": ("#009E73", "v"),
    "sklearn": ("#CC79A7", "D"),
    "spams": ("#000000", "P"),
    "random": ("#777777", "x"),
}
PANELS = (("seconds", "CPU seconds"), ("mcc", "MCC"))


def draw_figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the encoder's codes of every solver, or what other codes it has."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9.4, 3.8), sharey=True, layout="constrained")
    for axes, (name, words) in zip(panels, PANELS, strict=True):
        for solver in dict.fromkeys(row["solver"] for row in rows):
            mine = [row for row in rows if row["solver"] == solver]
            ways = {row["codes"] for row in mine}
            if "encoder" in ways:
                mine = [row for row in mine if row["codes"] == "encoder"]
            colour, mark = LOOKS.get(solver, ("#777777", "*"))
            x = [max(row[name], 0.1) if name == "seconds" else row[name] for row in mine]
            axes.scatter(x, [row["f1"] for row in mine], c=colour, marker=mark, label=solver, s=44)
        if name == "seconds":
            axes.set_xscale("log")
        axes.set_xlabel(words)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("F1 of atoms as detectors")
    panels[0].set_ylim(0, 1.03)
    panels[1].legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)

"""Draw what `python -m benchmarks.real --json FILE` wrote.

    python -m benchmarks.real_figure benchmarks/results/real.json docs/real.png

A point per method, data set and seed: what its encoder explains of held-out rows, against CPU
seconds and against active units per row; rings are orthogonal matching pursuit on the same atoms.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

# Okabe and Ito's colours, told apart with every common colour blindness.
COLOURS = {
    "shoal default": "#D55E00",
    "shoal joint": "#000000",
    "shoal topk": "#E69F00",
    "shoal batchtopk": "#CC79A7",
    "shoal jumprelu": "#009E73",
    "torch topk": "#0072B2",
    "saelens topk": "#56B4E9",
}
MARKS = {"activations": "o", "digits": "s", "patches": "^"}


def draw_figure(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axes, (key, words) in zip(
        panels, (("cpu", "CPU seconds"), ("l0", "active units per row")), strict=True
    ):
        for row in rows:
            colour = COLOURS.get(row["method"])
            if colour is None or "worse_rate" in row or key not in row:
                continue
            mark = MARKS.get(row["data"], "D")
            axes.scatter(row[key], row["encoder"], c=colour, marker=mark, s=46, zorder=3)
            if key == "l0" and "omp" in row:
                axes.scatter(
                    row["k"], row["omp"], ec=colour, fc="none", marker=mark, s=46, zorder=2
                )
        axes.set_xscale("log")
        ticks = [4, 6, 10, 20, 40] if key == "cpu" else [8, 10, 16, 32]
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
        axes.set_xlabel(words)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("explained variance, held out")
    looks = [Line2D([], [], ls="", marker="o", c=c, label=name) for name, c in COLOURS.items()]
    looks += [Line2D([], [], ls="", marker=m, c="#555555", label=n) for n, m in MARKS.items()]
    looks.append(
        Line2D([], [], ls="", marker="o", mfc="none", c="#555555", label="omp, same atoms")
    )
    panels[1].legend(handles=looks, frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("json", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    draw_figure(json.loads(given.json.read_text()), given.picture)

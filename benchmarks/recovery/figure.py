"""Recovery against CPU seconds, a line a solver and a panel a workload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Okabe and Ito's colours, told apart with every common colour blindness; line styles besides.
LOOKS = {
    "shoal": ("#D55E00", "-"),
    "spams-lasso": ("#0072B2", "-"),
    "spams-omp": ("#56B4E9", "--"),
    "sklearn-mbdl": ("#009E73", "-"),
    "topk-adam": ("#CC79A7", "-."),
    "dictlearn-minibatch": ("#000000", ":"),
    "sklearn-kmeans": ("#0072B2", "--"),
    "sklearn-minibatchkmeans": ("#56B4E9", "-"),
    "sklearn-gaussianmixture": ("#009E73", "--"),
}
OTHER = ("#777777", "-")
PANELS = ("a", "b", "d")


def _median(curves: list[NDArray], times: NDArray) -> NDArray:
    """The median over seeds of step functions of time; a run that ended keeps its last value."""
    values = []
    for curve in curves:
        place = np.searchsorted(curve[:, 0], times, side="right") - 1
        values.append(np.where(place < 0, 0.0, curve[np.maximum(place, 0), 1]))
    return np.median(values, axis=0)


def draw_figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw workloads a, b and d where the rows have them, else all that they have."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    present = list(dict.fromkeys(row["workload"] for row in rows))
    shown = [name for name in PANELS if name in present] or present
    if not shown:
        return
    figure, axes = plt.subplots(
        1, len(shown), figsize=(4.2 * len(shown), 4.0), sharey=True, squeeze=False
    )
    drawn: dict[str, Any] = {}
    for axis, name in zip(axes[0], shown, strict=True):
        mine = [row for row in rows if row["workload"] == name and len(row["curve"])]
        for solver in dict.fromkeys(row["solver"] for row in mine):
            color, style = LOOKS.get(solver, OTHER)
            width = 2.4 if solver == "shoal" else 1.6
            curves = [np.asarray(row["curve"]) for row in mine if row["solver"] == solver]
            for curve in curves:
                axis.plot(*curve.T, color=color, lw=0.6, alpha=0.3)
            times = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
            middle = 100 * _median(curves, times)
            for line in axis.lines[-len(curves) :]:
                line.set_ydata(100 * np.asarray(line.get_ydata()))
            (drawn[solver],) = axis.plot(
                times, middle, style, color=color, lw=width, label=solver, zorder=3
            )
            got = np.flatnonzero(middle >= 95)
            if len(got):
                axis.plot(times[got[0]], middle[got[0]], "o", color=color, ms=6, zorder=4)
        axis.axhline(95, color="#999999", lw=0.8, ls=(0, (4, 4)), zorder=0)
        axis.set(xscale="log", xlabel="CPU seconds, one thread", title=f"workload {name}")
        axis.set_ylim(-2, 103)
        axis.grid(axis="both", color="#eeeeee", zorder=0)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("true atoms at |cosine| ≥ .95 (%)")
    figure.set_layout_engine("constrained")
    columns = 2 * len(shown)  # of about half a panel
    figure.legend(
        drawn.values(), drawn.keys(), loc="outside lower center", ncols=columns, frameon=False
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)

"""What a run has to show, drawn on axes: curves and histograms, with a pen.

:mod:`shoal.report.figures` makes SVGs of these for a page, :mod:`shoal.plot` pictures of one's own.
Each returns what it shows in one sentence, for those who can't see it.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.report.drawing import Pen
from shoal.report.run import number
from shoal.report.words import compact, count, percent, plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "RECORDS",
    "activation_shares",
    "active_counts",
    "coherences",
    "explained_curves",
    "loss_curve",
    "reliabilities",
    "sorted_cosines",
    "supported",
]

RECORDS = 800  # of a learning curve: more than the pixels it is drawn on


def _series(
    history: Sequence[dict[str, Any]], key: str, steps: list[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = [(s, number(r.get(key))) for s, r in zip(steps, history, strict=True)]
    known = [(s, v) for s, v in pairs if v is not None]
    table = np.array(known, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _steps(history: Sequence[dict[str, Any]]) -> tuple[list[float], str]:
    """The x axis: the steps, or the records' places where steps are unknown or start anew."""
    places = [float(i) for i in range(len(history))]
    steps = [number(r.get("step")) for r in history]
    known = [s for s in steps if s is not None]
    if len(known) < len(steps) or any(b < a for a, b in pairwise(known)):
        return places, "record"
    return known, "record" if known == places else "step"


def _phases(history: Sequence[dict[str, Any]]) -> list[tuple[str, int, int]]:
    """The phases in order: name, and the places of the first and the last record."""
    out: list[tuple[str, int, int]] = []
    for i, record in enumerate(history):
        phase = str(record.get("phase") or "descent")
        if out and out[-1][0] == phase:
            out[-1] = (phase, out[-1][1], i)
        else:
            out.append((phase, i, i))
    return out


def _thin(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `RECORDS` records a phase, evenly."""
    kept = []
    for _, first, last in _phases(history):
        kept += np.linspace(first, last, min(last - first + 1, RECORDS)).astype(int).tolist()
    return [history[i] for i in kept]


def loss_curve(axes: Axes, history: Sequence[dict[str, Any]], pen: Pen) -> str | None:
    """Loss against steps; None, and nothing drawn, where none is recorded."""
    history = _thin(history)
    steps, unit = _steps(history)
    x, loss = _series(history, "loss", steps)
    if not len(x):
        return None
    if loss.min() > 0 and loss.max() > 10 * loss.min():
        axes.set_yscale("log")
    _curve(axes, x, loss, pen.accent)
    _shade(axes, steps, _phases(history), pen)
    axes.set_xlabel(unit)
    axes.set_ylabel("loss")
    return f"Loss against steps, from {compact(loss[0])} to {compact(loss[-1])}."


def explained_curves(axes: Axes, history: Sequence[dict[str, Any]], pen: Pen) -> str | None:
    """Explained variance against steps, and what was recovered where that is recorded."""
    history = _thin(history)
    steps, unit = _steps(history)
    x, explained = _series(history, "explained_variance", steps)
    found = [{**r, "recovered": _recovered(r.get("recovered"))} for r in history]
    x2, recovered = _series(found, "recovered", steps)
    if not len(x) and not len(x2):
        return None
    if len(x):
        _curve(axes, x, explained, pen.accent)
    if len(x2):
        _curve(axes, x2, recovered, pen.second)
    _shade(axes, steps, _phases(history), pen)
    values = np.concatenate([explained, recovered])
    # A little below 0 is noise of the start; far below, the axis goes to -100 %.
    low = float(values.min())
    bottom = 0.0 if low > -0.05 else max(-1.0, math.floor(5 * low) / 5)
    axes.set_yticks(np.linspace(bottom, 1, 6))
    axes.set_ylim(bottom - 0.02 * (1 - bottom), 1.14)  # room for a word above 100 %
    axes.yaxis.set_major_formatter(lambda v, _: f"{round(100 * v)} %".replace("-", "\u2212"))
    axes.set_xlabel(unit)
    if len(x) and len(x2):
        names = ("explained variance", "true atoms recovered")
        axes.legend(
            axes.get_lines(),
            names,
            loc="lower left",
            bbox_to_anchor=(-0.02, 0.98),  # above the axes, where no curve can be
            ncols=2,
            frameon=False,
        )
    else:
        axes.set_ylabel("explained variance" if len(x) else "true atoms recovered")
    what = "Explained variance" if len(x) else "Recovered atoms"
    last = explained[-1] if len(x) else recovered[-1]
    return f"{what} against steps, {percent(last)} at the end."


def _recovered(value: Any) -> float | None:
    """One number a record: as it is, or at .95 where several thresholds were scored."""
    if isinstance(value, dict):
        value = value.get("0.95", next(iter(value.values()), None))
    return number(value)


def _curve(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], colour: str) -> None:
    """One line, with a point at its end."""
    (line,) = axes.plot(x, y, color=colour)
    line.set_zorder(3)
    axes.scatter(x[-1:], y[-1:], s=22, color=colour, zorder=4, linewidths=0, clip_on=False)
    axes.margins(x=0.015)


def _shade(axes: Axes, steps: list[float], phases: list[tuple[str, int, int]], pen: Pen) -> None:
    """Bands behind the phases after the first, the later the darker, with their names."""
    letter = (max(steps) - min(steps)) / 60  # arbitrary: about what one takes
    free = math.inf  # where the name to the right begins
    for order, (name, first, last) in reversed(list(enumerate(phases))[1:]):
        left, right = steps[max(first - 1, 0)], steps[last]
        if right > left:
            axes.axvspan(
                left, right, color=pen.soft, alpha=min(0.15 * order, 0.6), linewidth=0, zorder=0
            )
        size = len(name) * letter
        inside = right - left > size + letter
        # In the middle of the band, or left of it where it is narrow, and of the next name.
        end = min((left + right + size) / 2 if inside else left - letter, free)
        free = end - size - letter
        axes.annotate(
            name,
            (end, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, -3),
            textcoords="offset points",
            ha="right",
            va="top",
            color=pen.muted,
        )


def activation_shares(axes: Axes, share: ArrayLike, pen: Pen) -> str:
    """On what share of the samples the atoms are active: a histogram on a log axis.

    Dead atoms (share 0), which have no place on it, stand as a bar of their own at the left.
    """
    share = np.asarray(share, dtype=float)
    alive = np.log10(share[share > 0])
    dead = int((share <= 0).sum())
    low = math.floor(alive.min()) if len(alive) else -3
    low = min(max(low, -8), -1)
    # Eight bins a decade: a factor of a third, wider than the noise of a rare atom.
    edges = np.linspace(low, 0, 8 * -low + 1)
    heights, _ = np.histogram(np.clip(alive, low, 0), edges)
    shown = heights > 0
    width = edges[1] - edges[0]
    axes.bar(edges[:-1][shown], heights[shown], 0.9 * width, align="edge", color=pen.accent)
    ticks = [float(t) for t in range(low, 1)]
    labels = [f"{100 * 10**t:g} %" for t in ticks]
    if dead:
        place = low - 2.5 * width
        axes.bar([place], [dead], 0.9 * width, color=pen.second)
        axes.annotate(
            count(dead),
            (place, dead),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=pen.second,
        )
        ticks.insert(0, place)
        labels.insert(0, "dead")
    if len(alive):
        middle = float(np.median(alive))
        axes.axvline(middle, color=pen.ink, linewidth=1, linestyle=(0, (2, 2)))
        _label_line(axes, middle, f"median {percent(10**middle)}", pen)
    axes.margins(x=0.015, y=0.16)
    axes.set_xticks(ticks, labels)  # last: it widens the view to hold every tick
    _whole_counts(axes)
    axes.set_xlabel("share of the samples on which an atom is active")
    axes.set_ylabel("atoms")
    text = "Histogram of the activation fraction of the atoms"
    if len(alive):
        text += f": median {percent(10 ** float(np.median(alive)))}"
    return f"{text}, {plural(dead, 'dead atom')}."


def _label_line(axes: Axes, x: float, text: str, pen: Pen) -> None:
    """A word at the top of a vertical line, on the side where there is room."""
    left, right = axes.get_xlim()
    leftwards = x > left + 0.6 * (right - left)
    axes.annotate(
        text,
        (x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if leftwards else 4, 0),
        textcoords="offset points",
        ha="right" if leftwards else "left",
        va="top",
        color=pen.ink,
    )


def _whole_counts(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(lambda v, _: count(v))


def active_counts(axes: Axes, counts: ArrayLike, pen: Pen) -> str:
    """How many atoms are active a sample: samples with 0, 1, 2, ... of them."""
    samples = np.asarray(counts, dtype=float)
    total = samples.sum()
    used = np.flatnonzero(samples)
    first, last = (int(used[0]), int(used[-1])) if len(used) else (0, len(samples) - 1)
    mean = float(samples @ np.arange(len(samples)) / total) if total else 0.0
    step = max(1, math.ceil((last - first + 1) / 100))  # bars no thinner than 3 pixels
    starts = np.arange(first, last + 1, step)
    share = np.add.reduceat(samples[first : last + 1], starts - first) / (total or 1)
    middles = starts + (step - 1) / 2
    axes.bar(middles, share, 0.86 * step, color=pen.accent)
    # A lone bar across the whole axis says nothing: keep a few neighbours in sight.
    room = max(0, 9 - (last - first)) / 2
    axes.set_xlim(max(first - room, 0) - 0.7 * step, last + room + 0.7 * step)
    if total:
        axes.axvline(mean, color=pen.ink, linewidth=1, linestyle=(0, (2, 2)))
        _label_line(axes, mean, f"mean {compact(mean)}", pen)
    axes.margins(y=0.16)
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.3g} %")
    axes.set_xlabel("active atoms a sample" + (f" (bars of {step})" if step > 1 else ""))
    axes.set_ylabel("samples")
    return f"Histogram of active atoms a sample: mean {compact(mean)}, {first} to {last}."


def coherences(axes: Axes, counts: ArrayLike, edges: ArrayLike, pen: Pen) -> str:
    """How alike the atoms are: pairs by their \\|cosine\\|, in bins with `edges`."""
    pairs, bounds = np.asarray(counts, dtype=float), np.asarray(edges, dtype=float)
    shown = pairs > 0
    axes.bar(
        bounds[:-1][shown],
        pairs[shown],
        0.86 * np.diff(bounds)[shown],
        align="edge",
        color=pen.accent,
    )
    if pairs.max(initial=0) > 100:
        axes.set_yscale("log")
        axes.set_ylim(0.6, pairs.max() * 2)
        axes.yaxis.set_major_formatter(lambda v, _: count(v))
    else:
        _whole_counts(axes)
    axes.set_xlim(-0.012, 1.012)
    axes.set_xlabel("|cosine| of two atoms")
    axes.set_ylabel("pairs")
    largest = float(bounds[1:][shown].max()) if shown.any() else 0.0
    return f"Histogram of the |cosine| of pairs of atoms; all are below {largest:.2g}."


def sorted_cosines(axes: Axes, cosines: ArrayLike, pen: Pen) -> str:
    """The \\|cosine\\| of each true atom with its match, worst to best, and the usual bars."""
    values = np.sort(np.abs(np.asarray(cosines, dtype=float)))
    bottom = max(0.0, min(0.88, math.floor(20 * float(values.min()) - 0.5) / 20))
    ranks = np.arange(1, len(values) + 1)
    axes.grid(visible=False)
    for bar in (0.95, 0.99):
        axes.axhline(bar, color=pen.line, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.fill_between(ranks, bottom, values, color=pen.soft, alpha=0.35, linewidth=0)
    dots = len(values) <= 300
    axes.plot(ranks, values, color=pen.accent, marker="o" if dots else "", markersize=2.8)
    top = 1 + 0.03 * (1 - bottom)
    axes.set_ylim(bottom, top)
    axes.margins(x=0.015)
    crowded = bottom < 0.4  # .95, .99 and 1 would print over one another
    axes.set_yticks([*np.linspace(bottom, 0.9, 3).round(2), 0.95, *([] if crowded else [0.99])])
    axes.yaxis.set_major_formatter(lambda v, _: f"{v:.2f}".rstrip("0").rstrip("."))
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.set_xlabel("true atoms, worst match to best")
    axes.set_ylabel("|cosine| with its match")
    parts = [f"{int((values >= c).sum())} at or above {c}" for c in (0.9, 0.95, 0.99)]
    return f"Sorted |cosine| of {plural(len(values), 'matched atom')}: {', '.join(parts)}."


def reliabilities(axes: Axes, bins: Sequence[Mapping[str, float]], pen: Pen) -> str | None:
    """The chance that a rule gives against the share that is right, with 95 % intervals."""
    if not bins:
        return None
    said, right, number = (
        np.array([each[name] for each in bins], dtype=float) for name in ("said", "true", "atoms")
    )
    # Wilson 1927: of few atoms it is wide, and never beyond 0 and 1.
    z = 1.96
    middle = (right + z**2 / (2 * number)) / (1 + z**2 / number)
    half = np.sqrt(right * (1 - right) / number + z**2 / (4 * number**2))
    half *= z / (1 + z**2 / number)
    axes.plot([0, 1], [0, 1], color=pen.line, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.vlines(said, middle - half, middle + half, color=pen.soft, linewidth=2)
    axes.plot(said, right, color=pen.accent, marker="o", markersize=4, linewidth=1)
    for x, y, count_ in zip(said, right, number, strict=True):
        axes.annotate(
            count(int(count_)), (x, y), xytext=(4, -9), textcoords="offset points",
            color=pen.muted, fontsize=7,
        )  # fmt: skip
    axes.set_xlim(-0.02, 1.06)
    axes.set_ylim(-0.04, 1.06)
    axes.set_xlabel("chance that the rule gives")
    axes.set_ylabel("share that is right")
    pairs = ", ".join(f"{x:.2f}: {y:.2f}" for x, y in zip(said, right, strict=True))
    return f"Chance that the rule gives, and the share that is right: {pairs}."


def supported(axes: Axes, curve: Mapping[str, Any], what: str, pen: Pen) -> str | None:
    """How much of features left out is predicted, against a number of atoms."""
    sizes, explained, sd = (
        np.asarray(curve.get(name, ()), dtype=float) for name in ("sizes", "explained", "sd")
    )
    if not len(sizes) or not len(sizes) == len(explained) == len(sd):
        return None
    axes.axhline(0, color=pen.line, linewidth=0.8)
    axes.fill_between(sizes, explained - sd, explained + sd, color=pen.soft, alpha=0.5, linewidth=0)
    axes.plot(sizes, explained, color=pen.accent, marker="o", markersize=3)
    chosen = curve.get("chosen")
    if chosen is not None:
        axes.axvline(chosen, color=pen.ink, linewidth=1, linestyle=(0, (2, 2)))
        _label_line(axes, chosen, f"supported: {count(chosen)}", pen)
    axes.margins(x=0.03, y=0.16)
    axes.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.3g} %")
    axes.set_xlabel(what)
    axes.set_ylabel("of features left out")
    best = float(explained.max())
    text = f"Predicted of features left out by {what}: at most {percent(max(best, 0.0))}"
    return text + ("." if chosen is None else f"; {count(chosen)} are supported.")

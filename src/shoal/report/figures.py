"""Figures of a run: pictures of the atoms as pixels, curves and histograms as inline SVG.

How they are drawn is said in :mod:`shoal.report.drawing`. matplotlib loads inside the
functions only.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.report.drawing import PAGE, as_svg, new_axes, plain_settings
from shoal.report.run import number
from shoal.report.words import compact, count, percent, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "activation_histogram",
    "atoms_image",
    "coherence_histogram",
    "heat_map",
    "l0_histogram",
    "learning_curves",
    "recovery_figure",
    "sprite",
    "stems",
]

GAP = 2  # pixels between tiles: a hairline that still parts two dark edges
TILE = 60  # a tile's side in pixels, about: 12 x 12 features become 5 pixels each
WIDEST = 2400  # pixels; above it, pixels a feature are given up rather than atoms
INK, MUTED, LINE, ACCENT, SECOND, SOFT = PAGE
ROWS, BINS = 512, 1024  # of the heat map: more can't be told apart on a screen
RECORDS = 800  # of a learning curve: more than the pixels it is drawn on

# --------------------------------------------------------------------------- pictures


def atoms_image(
    dictionary: ArrayLike,
    feature_shape: Sequence[int] | None,
    *,
    order: ArrayLike | None = None,
    columns: int | None = None,
) -> NDArray[np.uint8]:
    """The dictionary as one picture.

    Where the features are pixels, every atom is one tile of a grid, scaled to its own
    largest magnitude and symmetric about mid-grey (128 is 0, black and white are minus and
    plus that magnitude), every feature repeated to a square of equal pixels. Where they are
    not, the picture is a heat map with one row an atom, and a colour bar.

    Parameters
    ----------
    dictionary : array-like of shape (n_components, n_features)
        Atoms as rows.
    feature_shape : (h, w), (h, w, 3) or None
        The picture that one atom is; None where it is none.
    order : array-like of int, optional
        The atoms to draw, first to last; all as stored by default.
    columns : int, optional
        Tiles in a row; by default the grid is about square. The heat map has none.

    Returns
    -------
    ndarray of shape (height, width) or (height, width, 3), uint8
        Grey for atoms of one channel, RGB otherwise.

    Examples
    --------
    >>> atoms_image(np.eye(4), (2, 2)).shape
    (122, 122)
    """
    atoms = np.asarray(dictionary, dtype=np.float32)
    picked = np.arange(len(atoms)) if order is None else np.asarray(order)
    if feature_shape is None:
        return _heat_map_figure(atoms[picked], len(atoms))
    pictures = _grey(atoms[picked]).reshape(len(picked), *feature_shape)
    h, w = feature_shape[:2]
    columns = columns or _near_square(len(pictures), h, w)
    zoom = max(1, round(TILE / max(h, w)))
    zoom = max(1, min(zoom, (WIDEST // columns - GAP) // w))
    return _grid(pictures.repeat(zoom, axis=1).repeat(zoom, axis=2), columns, GAP, 255)


def sprite(
    dictionary: ArrayLike, feature_shape: Sequence[int], *, columns: int
) -> NDArray[np.uint8]:
    """All atoms as one sheet at one pixel a feature, for CSS to cut tiles from.

    A tile takes ``h + 2`` by ``w + 2`` pixels: its edge is repeated once all around, so
    that a browser that rounds a tile's border shows its own edge, not its neighbour's.
    """
    atoms = np.asarray(dictionary, dtype=np.float32)
    pictures = _grey(atoms).reshape(len(atoms), *feature_shape)
    around = ((0, 0), (1, 1), (1, 1), (0, 0))[: pictures.ndim]
    return _grid(np.pad(pictures, around, mode="edge"), columns, 0, 128)


def _grey(atoms: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Values in [-largest, largest] of each row as 1..255, 0 as 128."""
    largest = np.abs(atoms).max(axis=1, keepdims=True)
    largest[largest == 0] = 1
    return (128 + np.rint(127 * (atoms / largest))).astype(np.uint8)


def _near_square(m: int, h: int, w: int) -> int:
    return max(1, min(m, math.ceil(math.sqrt(m * h / w))))


def _grid(pictures: NDArray[np.uint8], columns: int, gap: int, ground: int) -> NDArray[np.uint8]:
    m, h, w = pictures.shape[:3]
    rows = math.ceil(m / columns)
    shape = (rows * (h + gap) - gap, columns * (w + gap) - gap, *pictures.shape[3:])
    image = np.full(shape, ground, dtype=np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        image[top : top + h, left : left + w] = picture
    return image


def _strongest(atoms: NDArray[np.float32], bins: int) -> NDArray[np.float32]:
    """At most `bins` columns: of each run of features, the value of largest magnitude."""
    n = atoms.shape[1]
    if n <= bins:
        return atoms
    starts = np.linspace(0, n, bins, endpoint=False).astype(int)
    high = np.maximum.reduceat(atoms, starts, axis=1)
    low = np.minimum.reduceat(atoms, starts, axis=1)
    return np.where(high >= -low, high, low)


def heat_map(atoms: ArrayLike) -> tuple[NDArray[np.uint8], float]:
    """A matrix of atoms as an RGBA picture for a page of any ground, and its scale.

    The hue is the sign (blue above 0, orange below) and the opacity the magnitude, so that
    0 is whatever is behind it. One pixel a value; wider matrices keep the strongest value
    of each run of features.

    Returns
    -------
    image : ndarray of shape (n_atoms, min(n_features, 1024), 4), uint8
    largest : float
        The magnitude that is drawn opaque.
    """
    values = _strongest(np.asarray(atoms, dtype=np.float32), BINS)
    largest = float(np.abs(values).max())
    image = np.empty((*values.shape, 4), dtype=np.uint8)
    image[..., :3] = np.where(values[..., None] >= 0, (43, 143, 179), (221, 113, 70))
    image[..., 3] = np.rint(255 * np.abs(values) / (largest or 1))
    return image, largest


def stems(atom: ArrayLike, *, bins: int = 240) -> tuple[str, int]:
    """One atom as the ``d`` of an SVG path of bars, in a box of -1..1 by ``0..width``.

    Returns
    -------
    path : str
        A vertical line a feature, from 0 to its share of the atom's largest magnitude.
    width : int
        How many bars there are: the features, or `bins` where there are more.
    """
    values = _strongest(np.asarray(atom, dtype=np.float32)[None], bins)[0]
    values = values / (np.abs(values).max() or 1)
    heights = np.rint(-100 * values).astype(int)  # whole hundredths: half the bytes
    return "".join(f"M{i}.5 0V{v}" for i, v in enumerate(heights) if v), len(values)


# --------------------------------------------------------------------------- SVG


def _series(
    history: Sequence[dict[str, Any]], key: str, steps: list[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pairs = [(s, number(r.get(key))) for s, r in zip(steps, history, strict=True)]
    known = [(s, v) for s, v in pairs if v is not None]
    table = np.array(known, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _steps(history: Sequence[dict[str, Any]]) -> list[float]:
    """The x axis: the steps, or the records' places where steps are unknown or start anew."""
    steps = [number(r.get("step")) for r in history]
    known = [s for s in steps if s is not None]
    if len(known) < len(steps) or any(b < a for a, b in pairwise(known)):
        return [float(i) for i in range(len(history))]
    return known


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


def learning_curves(history: Sequence[dict[str, Any]]) -> dict[str, str]:
    """How the run went: loss and explained variance against steps.

    The phases after the first, refinement and polish, are shaded and named.

    Parameters
    ----------
    history : sequence of dict
        The records of ``history.jsonl``; any key may be absent or None. Of more than 800
        records a phase, 800 are drawn, evenly spaced.

    Returns
    -------
    dict of str
        Inline SVGs under ``"loss"`` and ``"explained_variance"``; one without numbers is
        left out. Recovered fractions, where recorded, are drawn with the latter.
    """
    history = _thin(history)
    steps = _steps(history)
    by_step = all(number(r.get("step")) is not None for r in history) and steps != list(
        map(float, range(len(history)))
    )
    out = {}
    with plain_settings():
        x, loss = _series(history, "loss", steps)
        if len(x):
            figure, axes = new_axes()
            if loss.min() > 0 and loss.max() > 10 * loss.min():
                axes.set_yscale("log")
            _curve(axes, x, loss, ACCENT, steps, history)
            axes.set_xlabel("step" if by_step else "record")
            axes.set_ylabel("loss")
            ends = f"from {compact(loss[0])} to {compact(loss[-1])}"
            out["loss"] = as_svg(figure, "loss", f"Loss against steps, {ends}.")

        x, explained = _series(history, "explained_variance", steps)
        found = [{**r, "recovered": _recovered(r.get("recovered"))} for r in history]
        x2, recovered = _series(found, "recovered", steps)
        if len(x) or len(x2):
            figure, axes = new_axes()
            if len(x):
                _curve(axes, x, explained, ACCENT, steps, history)
            if len(x2):
                _curve(axes, x2, recovered, SECOND, steps, history, shade=not len(x))
            values = np.concatenate([explained, recovered])
            # A little below 0 is noise of the start; far below, the axis goes to -100 %.
            low = float(values.min())
            bottom = 0.0 if low > -0.05 else max(-1.0, math.floor(5 * low) / 5)
            axes.set_yticks(np.linspace(bottom, 1, 6))
            axes.set_ylim(bottom - 0.02 * (1 - bottom), 1.14)  # room for a word above 100 %
            axes.yaxis.set_major_formatter(
                lambda v, _: f"{round(100 * v)} %".replace("-", "\u2212")
            )
            axes.set_xlabel("step" if by_step else "record")
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
            text = f"{what} against steps, {percent(last)} at the end."
            out["explained_variance"] = as_svg(figure, "explained", text)
    return out


def _recovered(value: Any) -> float | None:
    """One number a record: as it is, or at .95 where several thresholds were scored."""
    if isinstance(value, dict):
        value = value.get("0.95", next(iter(value.values()), None))
    return number(value)


def _curve(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    colour: str,
    steps: list[float],
    history: Sequence[dict[str, Any]],
    *,
    shade: bool = True,
) -> None:
    """One line, with a point at its end, and the phases after the first shaded behind it."""
    (line,) = axes.plot(x, y, color=colour)
    line.set_zorder(3)
    axes.scatter(x[-1:], y[-1:], s=22, color=colour, zorder=4, linewidths=0, clip_on=False)
    axes.margins(x=0.015)
    if shade and axes.get_lines()[0] is line:
        _shade(axes, steps, _phases(history))


def _shade(axes: Axes, steps: list[float], phases: list[tuple[str, int, int]]) -> None:
    """Bands behind the phases after the first, the later the darker, with their names."""
    letter = (max(steps) - min(steps)) / 60  # arbitrary: about what one takes
    free = math.inf  # where the name to the right begins
    for order, (name, first, last) in reversed(list(enumerate(phases))[1:]):
        left, right = steps[max(first - 1, 0)], steps[last]
        if right > left:
            axes.axvspan(
                left, right, color=SOFT, alpha=min(0.15 * order, 0.6), linewidth=0, zorder=0
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
            color=MUTED,
        )


def activation_histogram(atom_activation: ArrayLike) -> str:
    """On what share of the samples the atoms are active: a histogram on a log axis.

    Dead atoms (share 0), which have no place on it, stand as a bar of their own at the left.

    Parameters
    ----------
    atom_activation : array-like of shape (n_components,)
        Fraction of the samples on which each atom is active.

    Returns
    -------
    str
        Inline SVG.
    """
    share = np.asarray(atom_activation, dtype=float)
    alive = np.log10(share[share > 0])
    dead = int((share <= 0).sum())
    with plain_settings():
        figure, axes = new_axes()
        low = math.floor(alive.min()) if len(alive) else -3
        low = min(max(low, -8), -1)
        # Eight bins a decade: a factor of a third, wider than the noise of a rare atom.
        edges = np.linspace(low, 0, 8 * -low + 1)
        heights, _ = np.histogram(np.clip(alive, low, 0), edges)
        shown = heights > 0
        width = edges[1] - edges[0]
        axes.bar(edges[:-1][shown], heights[shown], 0.9 * width, align="edge", color=ACCENT)
        ticks = [float(t) for t in range(low, 1)]
        labels = [f"{100 * 10**t:g} %" for t in ticks]
        if dead:
            place = low - 2.5 * width
            axes.bar([place], [dead], 0.9 * width, color=SECOND)
            axes.annotate(
                count(dead),
                (place, dead),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                color=SECOND,
            )
            ticks.insert(0, place)
            labels.insert(0, "dead")
        if len(alive):
            middle = float(np.median(alive))
            axes.axvline(middle, color=INK, linewidth=1, linestyle=(0, (2, 2)))
            _label_line(axes, middle, f"median {percent(10**middle)}")
        axes.margins(x=0.015, y=0.16)
        axes.set_xticks(ticks, labels)  # last: it widens the view to hold every tick
        _whole_counts(axes)
        axes.set_xlabel("share of the samples on which an atom is active")
        axes.set_ylabel("atoms")
        text = "Histogram of the activation fraction of the atoms"
        if len(alive):
            text += f": median {percent(10 ** float(np.median(alive)))}"
        return as_svg(figure, "activation", f"{text}, {plural(dead, 'dead atom')}.")


def _label_line(axes: Axes, x: float, text: str) -> None:
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
        color=INK,
    )


def _whole_counts(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(lambda v, _: count(v))


def l0_histogram(counts: ArrayLike) -> str:
    """How many atoms are active a sample.

    Parameters
    ----------
    counts : array-like of shape (n_active_max + 1,)
        Number of samples with 0, 1, 2, ... active atoms.

    Returns
    -------
    str
        Inline SVG.
    """
    samples = np.asarray(counts, dtype=float)
    total = samples.sum()
    used = np.flatnonzero(samples)
    first, last = (int(used[0]), int(used[-1])) if len(used) else (0, len(samples) - 1)
    mean = float(samples @ np.arange(len(samples)) / total) if total else 0.0
    with plain_settings():
        figure, axes = new_axes()
        step = max(1, math.ceil((last - first + 1) / 100))  # bars no thinner than 3 pixels
        starts = np.arange(first, last + 1, step)
        share = np.add.reduceat(samples[first : last + 1], starts - first) / (total or 1)
        middles = starts + (step - 1) / 2
        axes.bar(middles, share, 0.86 * step, color=ACCENT)
        # A lone bar across the whole axis says nothing: keep a few neighbours in sight.
        room = max(0, 9 - (last - first)) / 2
        axes.set_xlim(max(first - room, 0) - 0.7 * step, last + room + 0.7 * step)
        if total:
            axes.axvline(mean, color=INK, linewidth=1, linestyle=(0, (2, 2)))
            _label_line(axes, mean, f"mean {compact(mean)}")
        axes.margins(y=0.16)
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.3g} %")
        axes.set_xlabel("active atoms a sample" + (f" (bars of {step})" if step > 1 else ""))
        axes.set_ylabel("samples")
        text = f"Histogram of active atoms a sample: mean {compact(mean)}, {first} to {last}."
        return as_svg(figure, "l0", text)


def coherence_histogram(counts: ArrayLike, edges: ArrayLike) -> str:
    """How alike the atoms are: the |cosine| of their pairs, on a log count.

    Parameters
    ----------
    counts : array-like of shape (n_bins,)
        Pairs of atoms in each bin.
    edges : array-like of shape (n_bins + 1,)
        The bins' edges within 0..1.

    Returns
    -------
    str
        Inline SVG.
    """
    pairs, bounds = np.asarray(counts, dtype=float), np.asarray(edges, dtype=float)
    with plain_settings():
        figure, axes = new_axes()
        shown = pairs > 0
        axes.bar(
            bounds[:-1][shown],
            pairs[shown],
            0.86 * np.diff(bounds)[shown],
            align="edge",
            color=ACCENT,
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
        text = f"Histogram of the |cosine| of pairs of atoms; all are below {largest:.2g}."
        return as_svg(figure, "coherence", text)


def recovery_figure(cosines: ArrayLike) -> str:
    """The |cosine| of each true atom with its match, worst to best, and the usual bars.

    Parameters
    ----------
    cosines : array-like of shape (n_components,)
        Cosine of each matched pair.

    Returns
    -------
    str
        Inline SVG.
    """
    values = np.sort(np.abs(np.asarray(cosines, dtype=float)))
    with plain_settings():
        figure, axes = new_axes()
        bottom = max(0.0, min(0.88, math.floor(20 * float(values.min()) - 0.5) / 20))
        ranks = np.arange(1, len(values) + 1)
        axes.grid(visible=False)
        for bar in (0.95, 0.99):
            axes.axhline(bar, color=LINE, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.fill_between(ranks, bottom, values, color=SOFT, alpha=0.35, linewidth=0)
        dots = len(values) <= 300
        axes.plot(ranks, values, color=ACCENT, marker="o" if dots else "", markersize=2.8)
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
        text = f"Sorted |cosine| of {plural(len(values), 'matched atom')}: {', '.join(parts)}."
        return as_svg(figure, "recovery", text)


def _heat_map_figure(atoms: NDArray[np.float32], total: int) -> NDArray[np.uint8]:
    """Rows of atoms in a diverging map on white, with a colour bar, as RGB pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    m, n = atoms.shape
    drawn = min(m, ROWS)
    values = _strongest(atoms[:drawn], BINS)
    largest = float(np.abs(values).max()) or 1.0
    with plain_settings():
        height = min(12.0, max(2.6, 1.2 + 0.07 * drawn))
        figure = Figure(figsize=(9, height), dpi=150, layout="constrained", facecolor="white")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.spines[:].set_visible(False)
        image = axes.imshow(
            values,
            cmap="RdBu",
            vmin=-largest,
            vmax=largest,
            aspect="auto",
            interpolation="nearest",
            extent=(0, n, drawn, 0),
        )
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.set_xlabel("feature")
        if n > BINS:
            axes.set_xlabel(f"feature (the strongest of each {math.ceil(n / BINS)} or so)")
        axes.set_ylabel("atom, in the order drawn")
        if drawn < total:
            axes.set_title(f"The first {count(drawn)} of {count(total)} atoms", fontsize=10)
        bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01, aspect=30)
        bar.outline.set_visible(False)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

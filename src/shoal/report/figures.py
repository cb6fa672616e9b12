"""Figures of a run: pictures of the atoms as pixels, curves and histograms as inline SVG.

How they are drawn is said in :mod:`shoal.report.drawing`. matplotlib loads inside the
functions only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.report import plots
from shoal.report.drawing import PAGE, as_svg, new_axes, plain_settings
from shoal.report.words import count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "activation_histogram",
    "atoms_image",
    "coherence_histogram",
    "heat_map",
    "l0_histogram",
    "learning_curves",
    "recovery_figure",
    "reliability_figure",
    "sprite",
    "stems",
    "supported_figure",
]

GAP = 2  # pixels between tiles: a hairline that still parts two dark edges
TILE = 60  # a tile's side in pixels, about: 12 x 12 features become 5 pixels each
WIDEST = 2400  # pixels; above it, pixels a feature are given up rather than atoms
ROWS, BINS = 512, 1024  # of the heat map: more can't be told apart on a screen

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


def _svg(name: str, draw: Callable[..., str | None], *shown: Any) -> str | None:
    """What `draw` shows of it as an inline SVG; None where it shows nothing."""
    with plain_settings():
        figure, axes = new_axes()
        text = draw(axes, *shown, PAGE)
        return None if text is None else as_svg(figure, name, text)


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
    curves = {
        "loss": _svg("loss", plots.loss_curve, history),
        "explained_variance": _svg("explained", plots.explained_curves, history),
    }
    return {name: svg for name, svg in curves.items() if svg is not None}


def activation_histogram(atom_activation: ArrayLike) -> str:
    """Inline SVG of the shares (n_components,) of the samples on which atoms are active."""
    return _svg("activation", plots.activation_shares, atom_activation) or ""


def l0_histogram(counts: ArrayLike) -> str:
    """Inline SVG of how many samples (n_active_max + 1,) have 0, 1, 2, ... active atoms."""
    return _svg("l0", plots.active_counts, counts) or ""


def coherence_histogram(counts: ArrayLike, edges: ArrayLike) -> str:
    """Inline SVG of how many pairs (n_bins,) have a \\|cosine\\| between edges (n_bins + 1,)."""
    return _svg("coherence", plots.coherences, counts, edges) or ""


def recovery_figure(cosines: ArrayLike) -> str:
    """Inline SVG of the cosines (n_components,) of matched pairs, worst to best."""
    return _svg("recovery", plots.sorted_cosines, cosines) or ""


def reliability_figure(bins: Sequence[Mapping[str, float]]) -> str | None:
    """Inline SVG of a calibration: what a rule ``said`` and how much was ``true``, by bins."""
    return _svg("reliability", plots.reliabilities, bins)


def supported_figure(name: str, curve: Mapping[str, Any], what: str) -> str | None:
    """Inline SVG of what is predicted against a number of atoms, and how many are supported."""
    return _svg(name, plots.supported, curve, what)


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

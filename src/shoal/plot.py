"""Pictures of a model, on axes of your own or new ones.

>>> import numpy as np
>>> axes = atoms(np.eye(16), feature_shape=(4, 4))
>>> axes.get_title()
''

Every function takes what it shows and ``ax=``, draws with matplotlib, and returns the axes, so that
titles, sizes and files are yours: ``shoal.plot.atoms(model).figure.savefig("atoms.png")``. The
report of a run is drawn by the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.diagnosis import atom_activation
from shoal.diagnosis.matching import match
from shoal.report import figures, page, plots
from shoal.report.drawing import HUES, PRINT, plain_settings
from shoal.vocabulary import ArgumentError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

__all__ = ["activity", "atoms", "elbow", "history", "likeness", "recovered", "stability"]


def atoms(
    model: Any,
    feature_shape: Sequence[int] | None = None,
    *,
    order: ArrayLike | None = None,
    columns: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the atoms: tiles where features are pixels, else a heat map with one row per atom.

    Parameters
    ----------
    model : estimator or array-like of shape (n_components, n_features)
        A fitted model, or atoms as rows.
    feature_shape : (h, w) or (h, w, 3), optional
        The picture that one atom is; by default that of the data that the model was fitted to,
        where it is known, and a square for an array whose features are a square of at least 16.
    order : array-like of int, optional
        The atoms to draw, first to last; all as stored by default.
    columns : int, optional
        Tiles in a row; by default the grid is about square.
    ax : matplotlib.axes.Axes, optional
        New ones by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ArgumentError
        The atoms or their shape won't do.

    Examples
    --------
    >>> atoms(np.eye(9), (3, 3), columns=3).get_images()[0].get_array().ndim
    2
    """
    dictionary = _atoms("model", model)
    shape = feature_shape or getattr(model, "feature_shape_", None)
    if feature_shape is not None:
        _check_shape(feature_shape, dictionary.shape[1])
    elif shape is None:
        side = round(dictionary.shape[1] ** 0.5)
        shape = (side, side) if side >= 4 and side * side == dictionary.shape[1] else None
    axes = _axes(ax)
    picture = figures.atoms_image(dictionary, shape, order=order, columns=columns)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    return axes


def history(model: Any, *, show: str = "explained_variance", ax: Axes | None = None) -> Axes:
    """Draw how the fit went, its phases shaded and named.

    Parameters
    ----------
    model : estimator or sequence of dict
        A fitted model, or the records of its ``history_`` or of a run's ``history.jsonl``.
    show : {"explained_variance", "loss"}
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> records = [{"step": s, "loss": 1 / s, "explained_variance": 1 - 1 / s} for s in (1, 2, 3)]
    >>> history(records, show="loss").get_ylabel()
    'loss'
    """
    draws = {"explained_variance": plots.explained_curves, "loss": plots.loss_curve}
    if show not in draws:
        raise ArgumentError("show", repr(show), f"one of {', '.join(draws)}")
    records = getattr(model, "history_", model)
    if not isinstance(records, Sequence) or not all(isinstance(each, dict) for each in records):
        raise ArgumentError("model", type(model).__name__, "a fitted model, or records of one")
    if not records:
        raise ArgumentError("model", "no records", "at least one")
    return _drawn(draws[show], records, ax=ax)


def activity(model: Any, data: Any = None, *, show: str = "atoms", ax: Axes | None = None) -> Axes:
    """Draw how often atoms are active, or how many are active per sample.

    Parameters
    ----------
    model : estimator or codes of shape (n_samples, n_components)
        A fitted model with `data` to code, or codes, dense or of scipy.sparse.
    data : array-like of shape (n_samples, n_features), optional
        Coded by ``model.transform``.
    show : {"atoms", "samples"}
        The share of the samples on which each atom is active; or active atoms per sample.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> activity(np.eye(8)).get_ylabel()
    'atoms'
    """
    if show not in ("atoms", "samples"):
        raise ArgumentError("show", repr(show), "one of atoms, samples")
    if hasattr(model, "transform"):
        if data is None:
            raise ArgumentError("data", "None", "rows for the model to code, or codes for `model`")
        codes = model.transform(data)
    else:
        codes = model
    if show == "atoms":
        return _drawn(plots.activation_shares, atom_activation(codes), ax=ax)
    on = codes != 0
    counts = np.asarray(on.sum(axis=1)).ravel().astype(int)
    return _drawn(plots.active_counts, np.bincount(counts), ax=ax)


def stability(models: Sequence[Any], *, ax: Axes | None = None) -> Axes:
    """Draw how well fits with other seeds, or on other halves of the data, find the same atoms.

    One curve per pair: the \\|cosine\\| of matched atoms, worst to best. Agreement isn't truth:
    fits can agree on mixtures of the same atoms.

    Parameters
    ----------
    models : sequence of estimators or of arrays (n_components, n_features)
        At least two.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> len(stability([np.eye(8), np.eye(8)[::-1]]).get_lines())
    1
    """
    if len(models) < 2:
        raise ArgumentError("models", f"{len(models)} of them", "at least two")
    found = [_atoms(f"models[{i}]", each) for i, each in enumerate(models)]

    def draw(axes: Axes, pairs: list[NDArray[Any]], pen: Any) -> str:
        for values, hue in zip(pairs, HUES * (1 + len(pairs) // len(HUES)), strict=False):
            axes.plot(np.linspace(0, 100, len(values)), values, color=hue)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("matched atoms, worst to best, in per cent")
        axes.set_ylabel("|cosine| between fits")
        return ""

    pairs = [np.sort(np.abs(match(one, two).cosines)) for one, two in combinations(found, 2)]
    return _drawn(draw, pairs, ax=ax)


def elbow(
    shares: Mapping[int, float], *, chosen: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw what 1, 2, 4, ... active atoms explain, to choose a number of them.

    Parameters
    ----------
    shares : mapping of int to float
        Explained variance by number of active atoms.
    chosen : int, optional
        A number to mark.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> elbow({1: 0.4, 2: 0.6, 4: 0.65}, chosen=2).get_xlabel()
    'active atoms per sample'
    """
    if not shares:
        raise ArgumentError("shares", "none", "at least one number of active atoms")

    def draw(axes: Axes, points: list[tuple[int, float]], pen: Any) -> str:
        x, y = [k for k, _ in points], [share for _, share in points]
        axes.set_xscale("log", base=2)
        axes.plot(x, y, color=pen.accent, marker="o", markersize=4)
        axes.set_xticks(x, [str(k) for k in x])
        axes.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.3g} %")
        if chosen is not None:
            axes.axvline(chosen, color=pen.second, linewidth=1, linestyle=(0, (2, 2)))
        axes.set_xlabel("active atoms per sample")
        axes.set_ylabel("explained variance")
        return ""

    return _drawn(draw, sorted(shares.items()), ax=ax)


def likeness(model: Any, *, ax: Axes | None = None) -> Axes:
    """Draw how alike the atoms are: a histogram of the \\|cosine\\| of their pairs.

    Parameters
    ----------
    model : estimator or array-like of shape (n_components, n_features)
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> likeness(np.eye(8)).get_ylabel()
    'pairs'
    """
    dictionary = _atoms("model", model)
    if len(dictionary) < 2:
        raise ArgumentError("model", "one atom", "at least two, to have a pair")
    alike = page.likeness(dictionary, np.arange(len(dictionary)))
    return _drawn(plots.coherences, alike.counts, page.EDGES, ax=ax)


def recovered(model: Any, truth: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw the \\|cosine\\| of each true atom with its match, worst to best.

    Parameters
    ----------
    model : estimator or array-like of shape (n_components, n_features)
    truth : array-like of shape (n_true, n_features)
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> recovered(np.eye(8), np.eye(8)).get_xlabel()
    'true atoms, worst match to best'
    """
    cosines = match(_atoms("model", model), np.asarray(truth)).cosines
    return _drawn(plots.sorted_cosines, cosines, ax=ax)


def _drawn(draw: Callable[..., str | None], *shown: Any, ax: Axes | None) -> Axes:
    with plain_settings(PRINT):
        axes = _axes(ax)
        draw(axes, *shown, PRINT)
        if ax is None:
            axes.grid(axis="y")
            axes.set_axisbelow(True)
    return axes


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.figure(layout="constrained").add_subplot()


def _atoms(argument: str, model: Any) -> NDArray[Any]:
    """Atoms as rows (n_components, n_features), of a model or as they are."""
    found = np.asarray(getattr(model, "components_", model))
    if found.ndim != 2 or not found.size or not np.issubdtype(found.dtype, np.number):
        what = f"shape {found.shape}" if found.dtype != object else type(model).__name__
        raise ArgumentError(argument, what, "a fitted model, or atoms as rows")
    return found


def _check_shape(shape: Sequence[int], n_features: int) -> None:
    sizes = tuple(shape)
    if len(sizes) not in (2, 3) or int(np.prod(sizes)) != n_features:
        raise ArgumentError(
            "feature_shape", str(sizes), f"(h, w) or (h, w, 3) of {n_features} features"
        )

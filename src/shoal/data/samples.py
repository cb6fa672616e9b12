"""Real data by name: what ships with a dependency, and what the internet has.

A new sample is one function that returns a `Sample`, and one line in `SAMPLES`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from shoal.data.images import (
    count_places,
    draw_positions,
    extract_patches,
    grey,
    pixels_of,
    reduce,
)
from shoal.vocabulary import (
    ArgumentError,
    ShoalError,
    SourceError,
    check_count,
    check_number,
)

__all__ = ["PREFIXES", "SAMPLES", "Sample", "digits", "load_named", "patches"]


class Sample(NamedTuple):
    """Rows by name, and the shape to draw one as an image."""

    data: NDArray  # (N, n)
    feature_shape: tuple[int, ...] | None


_SIDE, _COUNT = 16, 36_000  # of `patches`, where nothing else is asked for


def patches(
    size: int | None = None,
    n_patches: int | None = None,
    random_state: int = 0,
    shrink: int = 2,
    contrast: float = 0.3,
) -> Sample:
    """Grey patches of scikit-learn's two photographs (china.jpg, flower.jpg; 427 x 640).

    Parameters
    ----------
    size : int
        Side of a patch in pixels; 16 by default, or less where `shrink` leaves less.
    n_patches : int
        How many, at distinct positions; 36 000 by default, or as many as there are.
    random_state : int or numpy.random.Generator
        Seed of the positions.
    shrink : int
        The photographs are first reduced by this factor, by the mean of square blocks: at
        2, the grid of JPEG's own 8 x 8 blocks and the sensor's noise are gone.
    contrast : float
        Share of the patches tried, those of largest standard deviation, that is kept: most
        of these photographs is sky and blurred background, which holds no structure. At 1
        every patch is taken.

    Returns
    -------
    Sample
        `data` of shape (n_patches, size * size), float32 in [0, 1]; mean not removed.

    Raises
    ------
    ArgumentError
        If the patch doesn't fit, or there are fewer places than patches to try.

    Warns
    -----
    UserWarning
        If a default is more than there is, and what is taken instead.

    Examples
    --------
    >>> sample = patches(size=8, n_patches=100)
    >>> sample.data.shape, sample.feature_shape
    ((100, 64), (8, 8))
    """
    from sklearn.datasets import load_sample_images

    contrast = check_number("contrast", contrast, low=0.0, high=1.0, open_low=True)
    side = _SIDE if size is None else check_count("patch_size", size)
    wanted = _COUNT if n_patches is None else check_count("n_patches", n_patches)
    images = [reduce(grey(image), shrink) for image in load_sample_images().images]
    shapes = [image.shape for image in images]
    notes = []
    if size is None and (largest := min(map(min, shapes))) < _SIDE:
        side = largest
        notes.append(f"patches of {side} x {side} pixels, all that shrink={shrink} leaves room for")
    tried = math.ceil(wanted / contrast)
    total = count_places(shapes, side)
    if n_patches is None and 0 < total < tried:
        tried = total
        wanted = max(1, math.floor(total * contrast))
        notes.append(f"{wanted} patches, all that there are; the default is {_COUNT}")
    rng = np.random.default_rng(random_state)
    try:
        places = draw_positions(shapes, tried, side, rng)
    except ArgumentError as error:
        if error.argument != "n_patches" or tried == wanted:
            raise
        found = f"{wanted}, the share contrast={contrast:g} of {tried} tried"
        raise ArgumentError("n_patches", found, f"to try {error.needed}") from None
    for note in notes:
        warnings.warn(f"sample:patches: {note}", stacklevel=2)
    data = np.empty((tried, side * side), dtype=np.float32)
    for i, image in enumerate(images):
        here = places.image == i
        at = np.column_stack([places.row[here], places.column[here]])
        data[here] = extract_patches(image, side, at)
    if tried > wanted:
        flattest_first = np.argsort(data.std(axis=1), kind="stable")
        data = data[np.sort(flattest_first[tried - wanted :])]
    return Sample(data, (side, side))


def digits() -> Sample:
    """Scikit-learn's 1797 handwritten digits of 8 x 8 pixels, divided by 16.

    Returns
    -------
    Sample
        `data` of shape (1797, 64), float32 in [0, 1].

    Examples
    --------
    >>> digits().data.shape
    (1797, 64)
    """
    from sklearn.datasets import load_digits

    return Sample((load_digits().data / 16).astype(np.float32), (8, 8))


SAMPLES: dict[str, Callable[..., Sample]] = {"patches": patches, "digits": digits}

# Data sets of OpenML that hold images; the rest have no shape to draw.
_OPENML_SHAPES = {"mnist_784": (28, 28), "Fashion-MNIST": (28, 28), "Kuzushiji-MNIST": (28, 28)}


def _openml(name: str, version: int | str = "active") -> Sample:
    """The numeric matrix of OpenML's data set `name`, raw values."""
    from sklearn.datasets import fetch_openml

    # scikit-learn's own default wants pandas; its slower parser doesn't.
    parser = "pandas" if importlib.util.find_spec("pandas") else "liac-arff"
    bunch = fetch_openml(name, version=version, as_frame=False, parser=parser)
    return Sample(np.asarray(bunch.data), _OPENML_SHAPES.get(name))


def _hugging_face(name: str, split: str = "train", column: str | None = None) -> Sample:
    """One column of a Hugging Face data set: its images in grey, or its vectors."""
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise SourceError(
            "source",
            f"'hf:{name}', but the package datasets isn't installed",
            "pip install datasets",
        ) from error
    table = datasets.load_dataset(name, split=split)
    names = list(table.column_names)
    if column is None:
        # "image" and "data" are the usual names; a lone column needs none.
        usual = [word for word in ("data", "image", "img") if word in names]
        column = usual[0] if usual else names[0] if len(names) == 1 else None
    if column not in names:
        raise ArgumentError("key", repr(column), f"one of the columns {', '.join(names)}")
    rows = [_row(value) for value in table[column]]
    shapes = {row.shape for row in rows}
    if len(shapes) != 1:
        found = f"rows of shape {', '.join(map(str, sorted(shapes)[:3]))}" if rows else "no rows"
        raise SourceError("source", f"'hf:{name}' with {found}", "rows of one shape")
    shape = shapes.pop()
    return Sample(np.stack(rows).reshape(len(rows), -1), shape if len(shape) == 2 else None)


def _row(value: Any) -> NDArray:
    """A value of a Hugging Face column: an image as grey levels, anything else as an array."""
    if hasattr(value, "convert"):
        return grey(pixels_of(value))
    return np.asarray(value)


def _sample(name: str, **options: Any) -> Sample:
    return SAMPLES[name](**options)


PREFIXES: dict[str, Callable[..., Sample]] = {
    "sample": _sample,
    "openml": _openml,
    "hf": _hugging_face,
}


def load_named(spec: str, **options: Any) -> Sample:
    """Load data by a name such as ``sample:patches?size=16`` or ``openml:mnist_784``.

    Parameters
    ----------
    spec : str
        ``prefix:name``, then optionally ``?option=value&option=value``.
    **options
        The same options as keywords; they win over those in `spec`.

    Returns
    -------
    Sample

    Raises
    ------
    SourceError
        If the name isn't known, or the data can't be fetched.
    ArgumentError
        If an option isn't one of the loader's.

    Examples
    --------
    >>> load_named("sample:patches?size=16&n_patches=50").data.shape
    (50, 256)
    """
    prefix, _, rest = spec.partition(":")
    name, _, query = rest.partition("?")
    load = PREFIXES[prefix]
    if prefix == "sample" and name not in SAMPLES:
        known = ", ".join(f"sample:{known}" for known in SAMPLES)
        raise SourceError("source", repr(spec), f"one of {known}")
    if not name:
        raise SourceError("source", repr(spec), f"a name after '{prefix}:'")
    written = {
        word: int(value) if value.isdecimal() else value
        for word, value in parse_qsl(query, keep_blank_values=True)
    }
    options = {**written, **options}
    signature = inspect.signature(SAMPLES[name] if prefix == "sample" else load)
    allowed = [word for word in signature.parameters if word != "name"]
    for word in options:
        if word not in allowed:
            needed = f"one of {', '.join(allowed)}" if allowed else "no option"
            raise ArgumentError("source", f"option {word!r} for {prefix}:{name}", needed)
    try:
        return load(name, **options)
    except (ShoalError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceError(
            "source", f"{spec!r}, which can't be loaded ({reason})", "a data set within reach"
        ) from error

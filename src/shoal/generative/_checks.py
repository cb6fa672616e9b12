"""What the modules of this room check alike: seeds and dictionaries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shoal.vocabulary import ArgumentError, check_count, check_number

__all__ = ["Array", "as_generator", "check_dictionary", "check_dtype", "check_probabilities"]

Array = NDArray[Any]


def as_generator(random_state: Any) -> np.random.Generator:
    """A generator from None (fresh entropy), an int (a seed) or a Generator (used as it is)."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    if random_state is None:
        return np.random.default_rng()
    try:
        seed = check_count("random_state", random_state, low=0)
    except ArgumentError as error:
        needed = "None, an integer >= 0 or a numpy.random.Generator"
        raise ArgumentError("random_state", error.found, needed) from None
    return np.random.default_rng(seed)


def check_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """float32 or float64, or an `ArgumentError`."""
    needed = "float32 or float64"
    try:
        kind = np.dtype(dtype)
    except TypeError:
        raise ArgumentError("dtype", repr(dtype), needed) from None
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ArgumentError("dtype", str(kind), needed)
    return kind


def check_dictionary(dictionary: Any, *, tolerance: float | None = None) -> Array:
    """A C-ordered copy of `dictionary` (m, n) with finite unit rows, float32 or float64.

    float32 stays float32, other real types become float64. `tolerance` is how far from 1 a row's
    norm may be; without it 1e-4 for float32 and 1e-6 otherwise.
    """
    needed = "a 2-d array of atoms as rows, shape (m, n), of finite real numbers"
    try:
        rows = np.asarray(dictionary)
    except (TypeError, ValueError, RuntimeError):  # ragged lists, tensors with a gradient
        raise ArgumentError("dictionary", f"a {type(dictionary).__name__}", needed) from None
    if rows.dtype.kind not in "fiu":
        raise ArgumentError("dictionary", f"{type(dictionary).__name__} of {rows.dtype}", needed)
    if rows.ndim != 2 or rows.size == 0:
        raise ArgumentError("dictionary", f"shape {rows.shape}", needed)
    dtype = np.float32 if rows.dtype == np.float32 else np.float64
    rows = np.array(rows, dtype=dtype, order="C")
    n_bad = int(np.count_nonzero(~np.isfinite(rows)))
    if n_bad:
        raise ArgumentError("dictionary", f"{n_bad} NaN or infinite entries", needed)
    if tolerance is None:
        tolerance = 1e-4 if dtype == np.float32 else 1e-6
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    worst = int(np.argmax(np.abs(norms - 1.0)))
    if abs(norms[worst] - 1.0) > tolerance:
        raise ArgumentError(
            "dictionary",
            f"norm {norms[worst]:.6g} in row {worst}",
            f"unit rows (within {tolerance:g}): divide each row by its norm"
            " (atoms are rows: transpose if they are columns)",
        )
    return rows


def check_probabilities(argument: str, values: Any, count: int) -> Array:
    """`values` as `count` probabilities that sum to 1 (exactly, after rounding is taken out)."""
    needed = f"{count} finite numbers >= 0 that sum to 1"
    try:
        weights = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ArgumentError(argument, f"a {type(values).__name__}", needed) from None
    if weights.shape != (count,):
        raise ArgumentError(argument, f"shape {weights.shape}", needed)
    for index in np.flatnonzero(~(weights >= 0) | np.isinf(weights))[:1]:
        raise ArgumentError(argument, f"{weights[index]:g} at index {index}", needed)
    total = check_number(argument, weights.sum())
    if abs(total - 1.0) > 1e-6:  # float32 weights that were normalised come within 1e-7 or so
        raise ArgumentError(argument, f"a sum of {total:.9g}", needed)
    return weights / total

"""What the diagnoses accept, and how it becomes finite float64 NumPy.

A NumPy array, anything `numpy.asarray` understands, a torch tensor (on any device), and for
codes a `scipy.sparse` matrix or array. Torch and SciPy are recognised by what they can do, so
neither is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.vocabulary import ArgumentError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BLOCK_ENTRIES = 1 << 20  # arbitrary; 8 MiB of float64, so a few temporaries stay near the cache


def as_matrix(argument: str, value: Any) -> Floats:
    """`value` as a non-empty, finite, real float64 matrix, or an `ArgumentError`."""
    return as_finite(argument, check_matrix(argument, value))


def check_matrix(argument: str, value: Any) -> Any:
    """`value` as a non-empty 2-d NumPy array or CSR, its numbers not yet looked at."""
    matrix = value.tocsr() if hasattr(value, "tocsr") else _to_numpy(argument, value)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ArgumentError(argument, f"shape {tuple(matrix.shape)}", "a non-empty 2-d array")
    if matrix.dtype.kind not in "fiub":
        raise ArgumentError(argument, f"dtype {matrix.dtype}", "real numbers")
    return matrix


def as_finite(argument: str, matrix: Any) -> Floats:
    """A matrix that passed `check_matrix`, dense and float64, once every number is finite."""
    dense = matrix.toarray() if hasattr(matrix, "toarray") else matrix
    dense = np.asarray(dense, dtype=np.float64)
    if not np.isfinite(dense).all():
        raise ArgumentError(argument, "NaN or infinity", "finite numbers")
    return dense


def row_blocks(n_samples: int, n_columns: int) -> Iterator[slice]:
    """Slices that cover the samples in order, each of about `BLOCK_ENTRIES` entries."""
    rows = max(1, BLOCK_ENTRIES // n_columns)
    for start in range(0, n_samples, rows):
        yield slice(start, min(start + rows, n_samples))


def check_same(argument: str, what: str, found: int, needed: int, other: str) -> None:
    """Raise an `ArgumentError` unless two arrays agree in one of their sizes."""
    if found != needed:
        raise ArgumentError(argument, f"{found} {what}", f"{needed}, as many as {other} has")


def unit_rows(matrix: Floats) -> Floats:
    """The rows scaled to length 1; a zero row stays zero."""
    # Scaling by the largest entry first keeps very long and very short rows from over- or
    # underflowing when they are squared.
    largest = np.abs(matrix).max(axis=1, keepdims=True)
    scaled = matrix / np.where(largest > 0, largest, 1.0)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.asarray(scaled / np.where(lengths > 0, lengths, 1.0))


def finite_or_none(number: float) -> float | None:
    """`number` for JSON, which has no NaN."""
    return float(number) if np.isfinite(number) else None


def _to_numpy(argument: str, value: Any) -> NDArray[Any]:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # NumPy has no bfloat16; float32 holds every one of its values.
        value = (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
    try:
        return np.asarray(value)
    except ValueError:
        raise ArgumentError(argument, "rows of unequal length", "a 2-d array") from None

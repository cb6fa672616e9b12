"""Where the atoms start. Every initialiser gives unit rows (m, n) from a NumPy generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shoal.vocabulary import ArgumentError, check_choice

__all__ = [
    "INITIALIZERS",
    "check_init",
    "from_array",
    "from_data_rows",
    "from_random",
    "initialize",
]


def _unit_rows(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows scaled to length 1; rows of length 0 become random directions."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    empty = length[:, 0] == 0
    if empty.any():
        rows = np.where(empty[:, None], rng.standard_normal(rows.shape), rows)
        length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / length


def from_data_rows(sample: np.ndarray, n_components: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct rows of `sample` (N, n), normalised. With N < m the rest is random."""
    chosen = rng.permutation(sample.shape[0])[:n_components]
    rows = sample[chosen]
    if len(rows) < n_components:
        more = rng.standard_normal((n_components - len(rows), sample.shape[1]))
        rows = np.concatenate([rows, more])
    return _unit_rows(rows, rng)


def from_random(sample: np.ndarray, n_components: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian directions; of `sample` only the number of features is used."""
    return _unit_rows(rng.standard_normal((n_components, sample.shape[1])), rng)


def from_array(array: np.ndarray, n_components: int, n_features: int) -> np.ndarray:
    """A warm start: rows of `array` (m, n), normalised. The caller's array is not changed."""
    try:
        rows = np.array(array, dtype=np.float64)  # a copy, whatever the order and type
    except (TypeError, ValueError):
        found = f"a {type(array).__name__} that is no array of numbers"
        raise ArgumentError("init", found, "'data', 'random' or an array of atoms") from None
    if rows.shape != (n_components, n_features):
        needed = f"shape (n_components, n_features) = ({n_components}, {n_features})"
        raise ArgumentError("init", f"an array of shape {rows.shape}", needed)
    if not np.isfinite(rows).all():
        raise ArgumentError("init", "NaN or infinite values", "finite atoms")
    if not rows.any(axis=1).all():
        raise ArgumentError("init", "an atom of length 0", "atoms that have a direction")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


INITIALIZERS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "data": from_data_rows,
    "random": from_random,
}


def check_init(init: str | np.ndarray, n_components: int, n_features: int) -> None:
    """Refuse an `init` that :func:`initialize` could not use, before there is any data."""
    if isinstance(init, str):
        check_choice("init", init, INITIALIZERS)
    else:
        from_array(init, n_components, n_features)


def initialize(
    init: str | np.ndarray, sample: np.ndarray, n_components: int, rng: np.random.Generator
) -> np.ndarray:
    """Unit atoms (m, n) from `init`: ``"data"``, ``"random"`` or an array (m, n).

    `sample` (N, n) holds data rows for those that start from data.
    """
    if not isinstance(init, str):
        return from_array(init, n_components, sample.shape[1])
    check_init(init, n_components, sample.shape[1])
    return INITIALIZERS[init](sample, n_components, rng)

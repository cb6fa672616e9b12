"""Where the atoms start. Every initialiser gives unit rows (m, n) from a NumPy generator."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log

import numpy as np
import torch
from scipy.linalg import eigh

from shoal.data import moments
from shoal.data.preprocessing import principal
from shoal.training.constraints import unit_atoms
from shoal.vocabulary import ArgumentError, Parameters, check_choice

__all__ = [
    "INITIALIZERS",
    "atoms_given",
    "check_init",
    "from_array",
    "from_data_rows",
    "from_pairs",
    "from_principal",
    "from_random",
    "from_residuals",
    "initialize",
    "normalized_start",
    "rows_wanted",
]


# Rows that moments are taken from. Arbitrary; at n = 64 and 256 the fourth-order moments of
# `from_pairs` then show nearly every atom, and its time no longer grows with the sample.
_MOMENT_ROWS = 20_000


def _unit_rows(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows scaled to length 1; rows of length 0 become random directions."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    empty = length[:, 0] == 0
    if empty.any():
        rows = np.where(empty[:, None], rng.standard_normal(rows.shape), rows)
        length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: np.ndarray = rows / length
    return unit


def from_data_rows(sample: np.ndarray, n_components: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct rows of `sample` (N, n), normalised. With N < m the rest is random."""
    chosen = rng.permutation(sample.shape[0])[:n_components]
    rows = sample[chosen]
    if len(rows) < n_components:
        more = rng.standard_normal((n_components - len(rows), sample.shape[1]))
        rows = np.concatenate([rows, more])
    return _unit_rows(rows, rng)


def _some_rows(sample: np.ndarray, at_most: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of at most that many rows of `sample`, distinct, in random order."""
    return rng.permutation(sample.shape[0])[:at_most]


def _small_scale(rows: np.ndarray) -> np.ndarray:
    """A float32 copy with entries up to 1: powers of it stay in range, and products are fast."""
    largest = np.abs(rows).max(initial=0.0)
    return np.asarray(rows / largest if largest else rows, dtype=np.float32)


def _toward_skewness(directions: np.ndarray, centred: np.ndarray) -> np.ndarray:
    """`directions` (d, n), each with the sign that skews the rows' projections upwards.

    The non-negative codes of rare units are skewed so; with signed codes any sign will do.
    """
    third = ((centred @ directions.T) ** 3).sum(axis=0)  # (d,)
    signed: np.ndarray = np.where(third < 0, -1.0, 1.0)[:, None] * directions
    return signed


def from_random(sample: np.ndarray, n_components: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian directions; of `sample` only the number of features is used."""
    return _unit_rows(rng.standard_normal((n_components, sample.shape[1])), rng)


def from_residuals(sample: np.ndarray, n_components: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of `sample` (N, n) one by one, each far from the directions of those before.

    A row y is drawn with probability proportional to what the best single atom leaves of it,
    |y|^2 - max_j <d_j, y>^2: the D^2 sampling of k-means++ (Arthur & Vassilvitskii 2007),
    with their greedy variant, of several rows drawn the one that leaves least. Signs are
    free: y and -y are one direction, since a signed code needs one atom for both, and that
    codes are non-negative the initialiser isn't told. Only max(4 m, 1024) rows are looked at.
    Where no row leaves anything any more, the rest is random.
    """
    # Arbitrary: enough to meet the rare clusters of a small m, few enough for a fast pick.
    index = _some_rows(sample, max(4 * n_components, 1024), rng)
    rows = _small_scale(sample[index])  # (P, n)
    squared = np.einsum("ij,ij->i", rows, rows)  # (P,)
    # Arbitrary; above the rounding of the residual of a row that an atom covers.
    floor = 100 * np.finfo(rows.dtype).eps * squared
    explained = np.zeros_like(squared)  # max_j <d_j, y>^2
    residual = squared.copy()
    # 2 + log m is Arthur & Vassilvitskii's. In a mixture whose noise is half of its rows' power,
    # few draws fall on the last uncovered cluster: where m is small, more of them are cheap.
    # Of few rows not most, or every seed would start alike.
    n_candidates = max(2 + int(log(n_components)), min(1024 // n_components, len(rows) // 8))
    chosen: list[int] = []
    while len(chosen) < n_components and residual.any():
        upto = residual.cumsum(dtype=np.float64)
        # The first sum above the draw belongs to a row with a residual.
        draws = rng.random(n_candidates if chosen else 1) * upto[-1]  # the start stays random
        drawn = np.searchsorted(upto, draws, side="right")
        directions = rows[drawn] / np.sqrt(squared[drawn, None])
        explains = directions @ rows.T  # (candidates, P)
        np.maximum(np.square(explains, out=explains), explained, out=explains)
        best = explains.sum(axis=1).argmax()
        chosen.append(drawn[best])
        explained = explains[best]
        residual = squared - explained
        residual[residual <= floor] = 0.0
        residual[drawn[best]] = 0.0
    more = rng.standard_normal((n_components - len(chosen), sample.shape[1]))
    return _unit_rows(np.concatenate([sample[index[chosen]], more]), rng)


def from_principal(sample: np.ndarray, n_components: int, rng: np.random.Generator) -> np.ndarray:
    """The leading principal directions of `sample` (N, n), largest variance first.

    Of the centred data, which is what PCA means everywhere else: uncentred, the first
    direction of non-negative codes is their mean, near no atom. There are at most
    min(n, N - 1) of them; the other atoms are rows of the data, as none of the variance is
    left to orthogonalise them to. At most 20000 rows are looked at.
    """
    rows = sample[_some_rows(sample, _MOMENT_ROWS, rng)]
    n = sample.shape[1]
    wanted = min(n_components, n)
    # Arbitrary; above the rounding of the eigenvalues that are 0.
    rounding = 10 * n * np.finfo(sample.dtype).eps
    if n > max(len(rows), 256):  # their covariance would be larger than they are
        mean, variances, found_directions = principal([rows])
        few = min(wanted, found_directions.shape[1])
        real = variances[:few] > rounding * variances.sum()
        directions = found_directions.T[:few][real]
    else:
        found = moments([rows])
        mean = found.mean
        values, vectors = eigh(found.scatter, subset_by_index=[n - wanted, n - 1])
        directions = vectors.T[values > rounding * np.trace(found.scatter)][::-1]
    directions = _toward_skewness(directions, rows - mean)
    rest = from_data_rows(sample, n_components - len(directions), rng)
    return _unit_rows(np.concatenate([directions, rest]), rng)


def _pair_directions(
    rows: np.ndarray,
    covariance: Callable[[np.ndarray], np.ndarray],
    u: np.ndarray,
    v: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Top directions (B, n) of the reweighted covariances of pairs `u`, `v` (B, n).

    Also their gaps (B,), 1 - |second eigenvalue / first|; 0 where there is no direction.
    """
    weights = (rows @ u.T) * (rows @ v.T)  # (P, B)
    u_cov, v_cov = covariance(u), covariance(v)  # (B, n)
    uv = np.einsum("bn,bn->b", u_cov, v)[:, None, None]

    def multiply(z: np.ndarray) -> np.ndarray:
        """All M_b z_b at once, for two vectors each: (B, 2, n)."""
        projected = (rows @ z.reshape(-1, z.shape[2]).T).reshape(len(rows), -1, 2)
        projected *= weights[:, :, None]
        full = (projected.reshape(len(rows), -1).T @ rows).reshape(z.shape) / len(rows)
        gaussian = uv * covariance(z)
        gaussian += (z @ v_cov[:, :, None]) * u_cov[:, None, :]
        gaussian += (z @ u_cov[:, :, None]) * v_cov[:, None, :]
        beyond: np.ndarray = full - gaussian
        return beyond

    def orthonormal(z: np.ndarray) -> np.ndarray:
        return np.linalg.qr(z.transpose(0, 2, 1))[0].transpose(0, 2, 1)

    # Near the shared atom from the first: it has the same sign in u and in +-v.
    same = np.where(np.einsum("bn,bn->b", u, v) < 0, -1, 1)[:, None].astype(rows.dtype)
    moved = np.stack([u + same * v, rng.standard_normal(u.shape, dtype=np.float32)], axis=1)
    for _ in range(3):  # subspace iteration; arbitrary, a fourth round found no more atoms
        z = orthonormal(moved)
        moved = multiply(z)
    inner = z @ moved.transpose(0, 2, 1)  # (B, 2, 2): M within the two vectors
    values, vectors = np.linalg.eigh((inner + inner.transpose(0, 2, 1)) / 2)
    first = np.abs(values).argmax(axis=1)[:, None]
    top = np.take_along_axis(vectors, first[:, None], axis=2)  # (B, 2, 1)
    direction = (top.transpose(0, 2, 1) @ moved)[:, 0]  # (B, n)
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    size = np.abs(values)
    clear = size.max(axis=1) > np.finfo(rows.dtype).tiny
    gap = 1 - size.min(axis=1) / np.where(clear, size.max(axis=1), 1)
    return direction / np.where(length > 0, length, 1), np.where(clear, gap, 0)


def _covariance(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """What multiplies by the covariance (n, n) of centred rows, by way of the smaller side."""
    if rows.shape[1] > max(len(rows), 256):
        return lambda z: (z @ rows.T) @ rows / np.float32(len(rows))
    matrix = rows.T @ rows / len(rows)
    return lambda z: z @ matrix


def from_pairs(sample: np.ndarray, n_components: int, rng: np.random.Generator) -> np.ndarray:
    """Atoms that pairs of rows of `sample` (N, n) share; rows of the data where too few are found.

    Arora, Ge, Ma, Moitra 2015, Simple, efficient, and neural algorithms for sparse coding,
    Algorithm 3: where u and v share one atom, M = 1/N sum <u, y> <v, y> y y^T has it as its
    top eigenvector, and no other large eigenvalue. Unlike theirs:

    - v is, of 64 random rows, the one with the largest |<u, v>|, for most random pairs share
      nothing;
    - the rows are centred, and what M would be for Gaussian rows of the same covariance C,
      (u^T C v) C + C (u v^T + v u^T) C, is subtracted, so that M is the cumulant
      sum_i kurtosis_i <A_i, u> <A_i, v> A_i A_i^T of independent codes, without the bulk that
      hides the atom unless n is large;
    - their thresholds k/m and k/(m log m) depend on constants that aren't known. Here 6 m
      pairs are ranked by the gap 1 - |second eigenvalue / first|, which must be above 1/2, and
      taken in that order unless within |cosine| .7 of one that was taken;
    - u, v and the moments come from the same rows, at most 20000.

    Not found are atoms without kurtosis, as a cluster that holds about a fifth of the rows.
    Fourth moments want many rows: with n = m = 128 and 3 active units, 20000 rows show 99 % of
    the atoms. The work is 6 m pairs times 36 n operations a row: on one thread .6 s for m=128,
    n=64 and 15 s for m=1024, n=256.
    """
    n = sample.shape[1]
    if n == 1:
        return from_data_rows(sample, n_components, rng)
    rows = _small_scale(sample[_some_rows(sample, _MOMENT_ROWS, rng)])  # (P, n)
    rows = _small_scale(rows - rows.mean(axis=0, dtype=np.float64))
    covariance = _covariance(rows)
    candidates, gaps = [], []
    # Arbitrary: 64 pairs at once keep memory low and products large; of 64 rows the nearest to
    # u mostly shares an atom with it; 6 m pairs meet nearly every atom.
    for _ in range(ceil(6 * n_components / 64)):
        first = rng.integers(len(rows), size=64)
        others = rng.integers(len(rows), size=(64, 64))
        inner = np.abs(rows[others] @ rows[first][:, :, None])[:, :, 0]  # (B, 64)
        inner[others == first[:, None]] = -1.0  # a row is no partner of itself
        second = others[np.arange(64), inner.argmax(axis=1)]
        direction, gap = _pair_directions(rows, covariance, rows[first], rows[second], rng)
        candidates.append(direction[gap > 0.5])
        gaps.append(gap[gap > 0.5])
    ranked = np.concatenate(candidates)[np.argsort(-np.concatenate(gaps), kind="stable")]
    taken, count = np.zeros((n_components, n)), 0
    for direction in ranked:
        if count == n_components:
            break
        if np.abs(taken[:count] @ direction).max(initial=0.0) < 0.7:
            taken[count] = direction
            count += 1
    directions = _toward_skewness(taken[:count], rows)
    rest = from_data_rows(sample, n_components - count, rng)
    return _unit_rows(np.concatenate([directions, rest]), rng)


def from_array(array: np.ndarray, n_components: int, n_features: int) -> np.ndarray:
    """A warm start: rows of `array` (m, n), normalised. The caller's array is not changed."""
    try:
        rows = np.array(array, dtype=np.float64)  # a copy, whatever the order and type
    except (TypeError, ValueError):
        found = f"a {type(array).__name__} that is no array of numbers"
        needed = ", ".join(map(repr, INITIALIZERS)) + " or an array of atoms"
        raise ArgumentError("init", found, needed) from None
    if rows.shape != (n_components, n_features):
        needed = f"shape (n_components, n_features) = ({n_components}, {n_features})"
        raise ArgumentError("init", f"an array of shape {rows.shape}", needed)
    if not np.isfinite(rows).all():
        raise ArgumentError("init", "NaN or infinite values", "finite atoms")
    if not rows.any(axis=1).all():
        raise ArgumentError("init", "an atom of length 0", "atoms that have a direction")
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def atoms_given(init: str | np.ndarray) -> int | None:
    """How many atoms `init` has, where it is an array of rows; None for a name, or no such array.

    >>> atoms_given(np.eye(3)), atoms_given("data")
    (3, None)
    """
    try:
        shape = () if isinstance(init, str) else np.shape(init)
    except ValueError:  # lists of several lengths
        return None
    return shape[0] or None if len(shape) == 2 else None


INITIALIZERS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "data": from_data_rows,
    "random": from_random,
    "residual": from_residuals,
    "pca": from_principal,
    "pairwise": from_pairs,
}


def check_init(init: str | np.ndarray, n_components: int, n_features: int) -> None:
    """Refuse an `init` that :func:`initialize` could not use, before there is any data.

    Examples
    --------
    >>> from shoal.training import check_init
    >>> check_init("random", 4, 8)
    >>> check_init("nowhere", 4, 8)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    shoal.vocabulary.ArgumentError: init: found 'nowhere'; needed one of 'data', 'random', ...
    """
    if isinstance(init, str):
        check_choice("init", init, INITIALIZERS)
    else:
        from_array(init, n_components, n_features)


def rows_wanted(init: str | np.ndarray, n_components: int) -> int:
    """How many rows of the data a start makes use of, at most."""
    moments_of = isinstance(init, str) and init in ("pca", "pairwise")
    return max(10 * n_components, _MOMENT_ROWS if moments_of else 0)


def initialize(
    init: str | np.ndarray, sample: np.ndarray, n_components: int, rng: np.random.Generator
) -> np.ndarray:
    """Unit atoms (m, n) from `init`: a name of :data:`INITIALIZERS` or an array (m, n).

    `sample` (N, n) holds data rows for those that start from data.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.training import initialize
    >>> rng = np.random.default_rng(0)
    >>> atoms = initialize("data", rng.normal(size=(50, 8)), 4, rng)
    >>> atoms.shape, bool(np.allclose(np.linalg.norm(atoms, axis=1), 1))
    ((4, 8), True)
    """
    if not isinstance(init, str):
        return from_array(init, n_components, sample.shape[1])
    check_init(init, n_components, sample.shape[1])
    return INITIALIZERS[init](sample, n_components, rng)


def normalized_start(m: int, n: int, rng: np.random.Generator, *, unit: bool = True) -> Parameters:
    """Weights from normalised initialisation, Glorot and Bengio 2010, and bias 0; float32.

    Uniform within sqrt(6 / (n + m)); brought to length 1 where `unit` says so.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.training import normalized_start
    >>> start = normalized_start(4, 8, np.random.default_rng(0))
    >>> tuple(start.dictionary.shape), start.bias.tolist()
    ((4, 8), [0.0, 0.0, 0.0, 0.0])
    """
    bound = np.sqrt(6.0 / (n + m))
    rows = torch.from_numpy(rng.uniform(-bound, bound, size=(m, n)).astype(np.float32))
    return Parameters(unit_atoms(rows) if unit else rows, torch.zeros(m))

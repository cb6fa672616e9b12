"""Dictionaries to plant: random, low-coherence, and perturbed at a chosen distance.

Atoms are rows, ``(m, n)``, of unit norm. The coherence of Nguyen et al. (2018), Definition 1, is
the largest inner product of two different atoms, and it decides how dense a code may be before
recovery fails; so these constructions range from what chance gives to the least that is possible
(:func:`welch_bound`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy.fft import dct
from scipy.linalg import eigh, hadamard, helmert, null_space

from shoal.generative._checks import Array, as_generator, check_dictionary, check_dtype
from shoal.vocabulary import ArgumentError, check_count, check_number

__all__ = [
    "coherence",
    "equiangular",
    "equiangular_sizes",
    "incoherence",
    "low_coherence",
    "orthonormal_union",
    "perturb",
    "random_dictionary",
    "welch_bound",
]


# --- measures -----------------------------------------------------------------------------


def coherence(dictionary: Any) -> float:
    """The largest ``|<A_i, A_j>|`` over two different atoms.

    Parameters
    ----------
    dictionary : array_like of shape (n_atoms, n_features)
        Atoms as rows, of unit norm within 1e-4 (they are not normalised here: Definition 1
        presumes unit atoms, and a silent normalisation would hide a slip).

    Returns
    -------
    float
        In [0, 1] up to rounding; 0.0 for a single atom.

    Raises
    ------
    ArgumentError
        If `dictionary` is not a finite 2-d array with unit rows.

    Notes
    -----
    Nguyen et al. (2018), Definition 1: a dictionary is mu-incoherent if this number is at most
    mu / sqrt(n); see :func:`incoherence`.

    Examples
    --------
    >>> float(round(coherence([[1.0, 0.0], [0.6, 0.8]]), 6))
    0.6
    """
    return _coherence(check_dictionary(dictionary, tolerance=1e-4).astype(np.float64))


def _coherence(rows: Array) -> float:
    largest = 0.0
    for start in range(0, len(rows), 1024):  # arbitrary; the Gram matrix never whole in memory
        block = np.abs(rows[start : start + 1024] @ rows.T)
        own = np.arange(len(block))
        block[own, start + own] = 0.0
        largest = max(largest, float(block.max()))
    return largest


def incoherence(dictionary: Any) -> float:
    """The mu of Definition 1: ``sqrt(n_features) * coherence(dictionary)``.

    Parameters
    ----------
    dictionary : array_like of shape (n_atoms, n_features)
        Atoms as rows, of unit norm within 1e-4.

    Returns
    -------
    float
        The smallest mu for which the dictionary is mu-incoherent.

    Raises
    ------
    ArgumentError
        If `dictionary` is not a finite 2-d array with unit rows.

    Notes
    -----
    Nguyen et al. (2018), Definition 1.

    Examples
    --------
    >>> float(round(incoherence(orthonormal_union(32, 16)), 6))
    1.0
    """
    rows = check_dictionary(dictionary, tolerance=1e-4).astype(np.float64)
    return float(np.sqrt(rows.shape[1]) * _coherence(rows))


def welch_bound(n_atoms: int, n_features: int) -> float:
    """The least coherence that `n_atoms` unit vectors in `n_features` dimensions can have.

    Parameters
    ----------
    n_atoms, n_features : int
        m and n, at least 1.

    Returns
    -------
    float
        sqrt((m - n) / (n (m - 1))), and 0.0 where m <= n. It is attained only by equiangular
        tight frames (:func:`equiangular`), which exist for few sizes.

    Raises
    ------
    ArgumentError
        If a size is not an integer of at least 1.

    Notes
    -----
    Welch (1974), Lower bounds on the maximum cross correlation of signals.

    Examples
    --------
    >>> round(welch_bound(6, 3), 6)  # the six diagonals of the icosahedron: 1 / sqrt(5)
    0.447214
    """
    m, n = _check_sizes(n_atoms, n_features)
    return 0.0 if m <= n else float(np.sqrt((m - n) / (n * (m - 1))))


def _check_sizes(n_atoms: Any, n_features: Any) -> tuple[int, int]:
    return check_count("n_atoms", n_atoms), check_count("n_features", n_features)


def _unit(rows: Array, dtype: DTypeLike = np.float64) -> Array:
    """Rows divided by their norms in float64, then cast."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


# --- constructions ------------------------------------------------------------------------


def random_dictionary(
    n_atoms: int, n_features: int, random_state: Any = None, *, dtype: DTypeLike = np.float64
) -> Array:
    """Independent atoms, uniform on the sphere: Gaussian rows, normalised.

    Parameters
    ----------
    n_atoms, n_features : int
        m and n, at least 1.
    random_state : None, int or numpy.random.Generator
        The seed; the same one gives the same bits.
    dtype : float64 (default) or float32
        Of the result; a float32 dictionary is the float64 one, rounded.

    Returns
    -------
    ndarray of shape (n_atoms, n_features)
        Unit rows. The coherence is about sqrt(4 log(m) / n) when that is well below 1.

    Raises
    ------
    ArgumentError
        If a size is below 1, or the seed or type can't be used.

    Notes
    -----
    The dictionaries of Rangamani et al. (2017), section 6.

    Examples
    --------
    >>> random_dictionary(128, 64, random_state=0).shape
    (128, 64)
    """
    m, n = _check_sizes(n_atoms, n_features)
    kind = check_dtype(dtype)
    return _unit(as_generator(random_state).standard_normal((m, n)), kind)


def _random_basis(n: int, rng: np.random.Generator) -> Array:
    """An orthonormal basis, uniform over all of them (Haar): QR with the signs of R taken out."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return np.asarray(q * np.sign(np.diag(r)))


def orthonormal_union(
    n_atoms: int, n_features: int, random_state: Any = None, *, dtype: DTypeLike = np.float64
) -> Array:
    """The first rows of a union of orthonormal bases.

    The first basis is the identity. The second is a Hadamard matrix where n is a power of two
    (all inner products with the first are 1 / sqrt(n), so mu = 1 in Definition 1) and the
    discrete cosine basis otherwise (at most sqrt(2 / n)). Further ones are random.

    Parameters
    ----------
    n_atoms, n_features : int
        m and n, at least 1; m need not be a multiple of n.
    random_state : None, int or numpy.random.Generator
        Used from the third basis on.
    dtype : float64 (default) or float32
        Of the result.

    Returns
    -------
    ndarray of shape (n_atoms, n_features)
        Unit rows.

    Raises
    ------
    ArgumentError
        If a size is below 1, or the seed or type can't be used.

    Examples
    --------
    >>> coherence(orthonormal_union(32, 16))
    0.25
    """
    m, n = _check_sizes(n_atoms, n_features)
    kind = check_dtype(dtype)
    rng = as_generator(random_state)
    bases = [np.eye(n)]
    if m > n:
        power_of_two = n & (n - 1) == 0
        second = hadamard(n) / np.sqrt(n) if power_of_two else dct(np.eye(n), axis=0, norm="ortho")
        bases.append(np.asarray(second, dtype=np.float64))
    while len(bases) * n < m:
        bases.append(_random_basis(n, rng))
    return _unit(np.concatenate(bases)[:m], kind)


def low_coherence(
    n_atoms: int,
    n_features: int,
    random_state: Any = None,
    n_iterations: int = 100,
    target: float | None = None,
    *,
    dtype: DTypeLike = np.float64,
) -> Array:
    """A dictionary of low coherence for any size, by alternating projection.

    From a random dictionary: clip the off-diagonal entries of the Gram matrix at `target`, go to
    the nearest matrix of rank n, normalise, and repeat. The best dictionary seen is kept, so the
    result is never worse than the random start.

    Parameters
    ----------
    n_atoms, n_features : int
        m and n, at least 1. For m <= n the answer is known: random orthonormal rows.
    random_state : None, int or numpy.random.Generator
        The seed of the start.
    n_iterations : int
        At most so many rounds, each one eigendecomposition of an (m, m) matrix.
    target : float, optional
        Where to clip, in [0, 1]; by default 1.2 times the Welch bound. The iteration ends when
        it is met, so ask for the bound itself where it can be attained.
    dtype : float64 (default) or float32
        Of the result.

    Returns
    -------
    ndarray of shape (n_atoms, n_features)
        Unit rows.

    Raises
    ------
    ArgumentError
        If a size is below 1, `n_iterations` below 0, `target` outside [0, 1], or the seed or
        type can't be used.

    Notes
    -----
    Tropp, Dhillon, Heath and Strohmer (2005), Designing structured tight frames via an alternating
    projection method, section IV. They stop at a fixed point; keeping the best is ours, since the
    coherence does not fall monotonically.

    Examples
    --------
    >>> better = low_coherence(32, 16, random_state=0)
    >>> coherence(better) < coherence(random_dictionary(32, 16, random_state=0))
    True
    """
    m, n = _check_sizes(n_atoms, n_features)
    n_iterations = check_count("n_iterations", n_iterations, low=0)
    if target is None:
        # Measured at (32, 16), (128, 64), (256, 64) and (200, 150) with 100 rounds: 1.2 ends lower
        # than 1.0 (which asks for what does not exist), 1.1 and 1.4.
        clip = min(1.0, 1.2 * welch_bound(m, n))
    else:
        clip = check_number("target", target, low=0.0, high=1.0)
    kind = check_dtype(dtype)
    rng = as_generator(random_state)
    if m <= n:
        return _unit(_random_basis(n, rng)[:m], kind)
    rows = _unit(rng.standard_normal((m, n)))
    best, least = rows, _coherence(rows)
    for _ in range(n_iterations):
        if least <= clip + 1e-9:  # arbitrary; well above rounding, far below any use
            break
        gram = np.clip(rows @ rows.T, -clip, clip)
        np.fill_diagonal(gram, 1.0)
        values, vectors = eigh(gram, subset_by_index=(m - n, m - 1))  # ascending
        # Clipping leaves the trace at m, but the n largest eigenvalues may in principle include
        # negative ones; the nearest positive semidefinite matrix has 0 there.
        moved = vectors * np.sqrt(np.maximum(values, 0.0))  # (m, n)
        norms = np.linalg.norm(moved, axis=1, keepdims=True)
        rows = np.where(norms > 1e-12, moved / np.maximum(norms, 1e-12), rows)
        now = _coherence(rows)
        if now < least:
            best, least = rows, now
    return _unit(best, kind)


# --- equiangular tight frames -------------------------------------------------------------


def _factor(number: int) -> tuple[int, int]:
    """(p, r) if `number` is the prime power p**r, else (0, 0)."""
    for p in range(2, int(number**0.5) + 1):
        if number % p == 0:
            r = 0
            while number % p == 0:
                number, r = number // p, r + 1
            return (p, r) if number == 1 else (0, 0)
    return (number, 1) if number > 1 else (0, 0)


def _has_field(q: int) -> bool:
    """Whether `_residues` knows the field of q elements: q = p or p**2, p an odd prime."""
    p, r = _factor(q)
    return p > 2 and r in (1, 2)


def _residues(q: int) -> Array:
    """chi(x - y) for x, y in the field of q elements, shape (q, q): 1 squares, -1 others, 0."""
    p, r = _factor(q)
    legendre = -np.ones(p, dtype=np.int64)
    legendre[np.arange(p) ** 2 % p] = 1
    legendre[0] = 0
    if r == 1:
        return np.asarray(legendre[np.subtract.outer(np.arange(p), np.arange(p)) % p])
    # The field of p**2 elements is a + b sqrt(d), d a non-square modulo p; an element is a square
    # there exactly if its norm a^2 - d b^2 is a square modulo p.
    first, second = np.divmod(np.arange(q), p)
    a = np.subtract.outer(first, first) % p
    b = np.subtract.outer(second, second) % p
    d = int(np.argmin(legendre))
    return np.asarray(legendre[(a * a - d * b * b) % p])


def _conference(n: int) -> Array:
    """2 n atoms in n dimensions, 2 n - 1 = q in {p, p**2}, q = 1 mod 4 (Paley 1933)."""
    q = 2 * n - 1
    conference = np.ones((q + 1, q + 1))
    conference[1:, 1:] = _residues(q)
    conference[0, 0] = 0.0
    gram = np.eye(q + 1) + conference / np.sqrt(q)  # symmetric since -1 is a square
    _, vectors = eigh(gram, subset_by_index=(n, 2 * n - 1))  # eigenvalues 0 and 2, n times each
    return np.asarray(vectors)


def _has_hadamard(order: int) -> bool:
    if order in (1, 2) or order & (order - 1) == 0:
        return True
    return order % 4 == 0 and _has_field(order - 1)


def _hadamard(order: int) -> Array:
    """A Hadamard matrix: Sylvester's, or Paley's first for order - 1 in {p, p**2}, 3 mod 4."""
    if order & (order - 1) == 0:
        return np.asarray(hadamard(order), dtype=np.float64)
    skew = np.ones((order, order))
    skew[1:, 1:] = _residues(order - 1)
    skew[1:, 0] = -1.0
    skew[0, 0] = 0.0
    return skew + np.eye(order)


def _steiner(v: int, blocks: Sequence[tuple[int, ...]]) -> Array:
    """v (r + 1) atoms in len(blocks) dimensions from a (2, k, v) Steiner system.

    Each point of the system lies in r blocks and gives r + 1 atoms, supported on those blocks
    with the signs of a Hadamard matrix of order r + 1 less its first column. Fickus, Mixon and
    Tremain (2012), Steiner equiangular tight frames, Theorem 1.
    """
    through: list[list[int]] = [[] for _ in range(v)]
    for index, block in enumerate(blocks):
        for point in block:
            through[point].append(index)
    r = len(through[0])
    signs = _hadamard(r + 1)[:, 1:]
    frame = np.zeros((v * (r + 1), len(blocks)))
    for point in range(v):
        frame[point * (r + 1) : (point + 1) * (r + 1), through[point]] = signs
    return frame


def _pairs(v: int) -> Array:
    return _steiner(v, [(a, b) for a in range(v) for b in range(a + 1, v)])


def _triples(v: int) -> Array:
    """The lines of the binary projective space: {a, b, a xor b}."""
    points = range(1, v + 1)
    lines = [(a - 1, b - 1, (a ^ b) - 1) for a in points for b in range(a + 1, v + 1) if a ^ b > b]
    return _steiner(v, lines)


def _complement(frame: Array) -> Array:
    """The Naimark complement: an equiangular tight frame of m atoms in m - n dimensions."""
    return np.asarray(null_space(frame.T))


def _constructions(max_atoms: int) -> dict[tuple[int, int], Callable[[], Array]]:
    """(m, n) -> a function that gives rows up to scale, for m > n + 1 >= 3, m <= max_atoms."""
    known: dict[tuple[int, int], Callable[[], Array]] = {}
    for n in range(3, max_atoms // 2 + 1):
        if n % 2 == 1 and _has_field(2 * n - 1):  # 2 n - 1 = 1 mod 4 where n is odd
            known[2 * n, n] = lambda n=n: _conference(n)  # type: ignore[misc]
    steiner: dict[tuple[int, int], Callable[[], Array]] = {}
    for v in range(4, int(max_atoms**0.5) + 1):
        if _has_hadamard(v):
            steiner[v * v, v * (v - 1) // 2] = lambda v=v: _pairs(v)  # type: ignore[misc]
    d = 2
    while (2 ** (d + 1) - 1) * 2**d <= max_atoms:
        v = 2 ** (d + 1) - 1
        steiner[v * 2**d, v * (v - 1) // 6] = lambda v=v: _triples(v)  # type: ignore[misc]
        d += 1
    for (m, n), build in steiner.items():
        known[m, n] = build
        known[m, m - n] = lambda build=build: _complement(build())  # type: ignore[misc]
    return known


def equiangular_sizes(max_atoms: int) -> list[tuple[int, int]]:
    """The sizes (n_atoms, n_features) that :func:`equiangular` can build, besides the two families.

    The two families are m <= n (orthonormal rows) and m = n + 1 (the simplex), for every n.

    Parameters
    ----------
    max_atoms : int
        The largest m to list.

    Returns
    -------
    list of (int, int)
        Pairs (m, n), sorted.

    Raises
    ------
    ArgumentError
        If `max_atoms` is not an integer of at least 1.

    Examples
    --------
    >>> equiangular_sizes(28)
    [(6, 3), (10, 5), (14, 7), (16, 6), (16, 10), (18, 9), (26, 13), (28, 7), (28, 21)]
    """
    return sorted(_constructions(check_count("max_atoms", max_atoms)))


def equiangular(n_atoms: int, n_features: int, *, dtype: DTypeLike = np.float64) -> Array:
    """An equiangular tight frame: the coherence is the Welch bound, and every pair attains it.

    Parameters
    ----------
    n_atoms, n_features : int
        m and n. Such frames exist for few sizes, and fewer are known; built here are

        * m <= n: orthonormal rows;
        * m = n + 1: the simplex;
        * m = 2 n with 2 n - 1 = p or p**2, p prime, and n odd: Paley's conference matrices;
        * m = v**2, n = v (v - 1) / 2 with a Hadamard matrix of order v: Steiner frames of pairs,
          for example (16, 6), (64, 28), (144, 66);
        * m = v (v + 1) / 2, n = v (v - 1) / 6 with v = 2**d - 1: Steiner frames of triples, for
          example (28, 7), (120, 35);
        * (m, m - n) for each (m, n) of the last two.

        :func:`equiangular_sizes` lists them.
    dtype : float64 (default) or float32
        Of the result.

    Returns
    -------
    ndarray of shape (n_atoms, n_features)
        Unit rows; for m >= n the frame is tight, A^T A = (m / n) I.

    Raises
    ------
    ArgumentError
        If no construction here gives this size; the message names near ones.

    Notes
    -----
    Paley (1933) and Strohmer and Heath (2003) for conference matrices; Fickus, Mixon and Tremain
    (2012) for Steiner systems; the complement is Naimark's.

    Examples
    --------
    >>> frame = equiangular(28, 7)
    >>> bool(np.isclose(coherence(frame), 1 / 3))
    True
    """
    m, n = _check_sizes(n_atoms, n_features)
    kind = check_dtype(dtype)
    if m <= n:
        return np.eye(m, n, dtype=kind)
    if m == n + 1:
        return _unit(helmert(m).T, kind)
    known = _constructions(2 * m)
    if (m, n) not in known:
        raise ArgumentError("n_atoms, n_features", f"({m}, {n})", _near(m, n, list(known)))
    return _unit(known[m, n](), kind)


def _near(m: int, n: int, sizes: list[tuple[int, int]]) -> str:
    near = sorted(sizes, key=lambda size: (abs(size[0] - m) + abs(size[1] - n), size))[:3]
    options = ", ".join(str(size) for size in [(n + 1, n), *near])
    return f"a size with a known frame, near it {options}; or low_coherence, for any size"


# --- perturbation -------------------------------------------------------------------------


def _sine(rows: Array, units: Array) -> Array:
    """The sine of the angle between each of `rows` and its unit row: shape (m,)."""
    tangent = rows - np.sum(rows * units, axis=1, keepdims=True) * units
    return np.linalg.norm(tangent, axis=1) / np.linalg.norm(rows, axis=1)


def perturb(
    dictionary: Any, distance: Any, random_state: Any = None, renormalize: bool = True
) -> Array:
    """Each atom moved in a random direction by exactly `distance`.

    Parameters
    ----------
    dictionary : array_like of shape (n_atoms, n_features)
        Atoms as rows; unit rows (within 1e-4) where `renormalize`.
    distance : float or array_like of shape (n_atoms,)
        The Euclidean distance between each row and its image: delta in the delta-closeness of
        Nguyen et al. (2018), Definition 2. At least 0, and at most 2 where `renormalize`.
    random_state : None, int or numpy.random.Generator
        The seed of the directions.
    renormalize : bool
        True: rows turn along the sphere (by the angle 2 asin(distance / 2), towards a uniform
        tangent direction), so they keep their norm and the distance is still exact. False: a
        uniform direction of that length is added.

    Returns
    -------
    ndarray of shape (n_atoms, n_features)
        In the type of `dictionary` (float32 stays, others become float64); the input is untouched.

    Raises
    ------
    ArgumentError
        If `dictionary` or `distance` can't be used; in one dimension with `renormalize`, where
        only distances 0 and 2 exist.

    Notes
    -----
    Rangamani et al. (2017), section 6, evaluate the gradient at such points.

    Examples
    --------
    >>> truth = random_dictionary(8, 5, random_state=0)
    >>> moved = perturb(truth, 0.3, random_state=1)
    >>> np.linalg.norm(moved - truth, axis=1).round(12).tolist()
    [0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    """
    given = check_dictionary(dictionary, tolerance=1e-4 if renormalize else np.inf)
    rng = as_generator(random_state)
    m, n = given.shape
    length = _check_distances(distance, m, 2.0 if renormalize else np.inf)  # (m, 1)
    rows = given.astype(np.float64)
    direction = rng.standard_normal((m, n))
    if not renormalize:
        moved = rows + length * _unit(direction)
        return moved.astype(given.dtype)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    units = rows / norms
    if n == 1:
        if not np.isin(length, (0.0, 2.0)).all():
            needed = "0 or 2, the only distances between unit atoms in one dimension"
            raise ArgumentError("distance", f"{length.max():g}", needed)
        direction = np.zeros((m, 1))
    else:
        # The seed that made the atoms draws them again: a direction along its atom has no
        # tangent part but rounding. Arbitrary: a millionth is far above that.
        while (along := _sine(direction, units) < 1e-6).any():
            direction[along] = rng.standard_normal((int(along.sum()), n))
        for _ in range(2):  # once is not enough for orthogonality to the last digits
            direction -= np.sum(direction * units, axis=1, keepdims=True) * units
            direction = _unit(direction)
    # Written as a displacement, so that small distances are as exact as large ones:
    # with s = sin(angle / 2), |2 s (cos(angle / 2) t - s u)| = 2 s.
    sine = np.minimum(length / (2.0 * norms), 1.0)
    moved = rows + 2.0 * norms * sine * (np.sqrt(1.0 - sine**2) * direction - sine * units)
    return moved.astype(given.dtype)


def _check_distances(distance: Any, m: int, high: float) -> Array:
    """One distance a row, (m, 1)."""
    needed = f"one number or {m} (one a row), finite, >= 0"
    needed += f" and <= {high:g}" if np.isfinite(high) else ""
    try:
        lengths = np.array(distance, dtype=np.float64)
    except (TypeError, ValueError):
        raise ArgumentError("distance", repr(distance), needed) from None
    if lengths.shape not in ((), (m,)):
        raise ArgumentError("distance", f"shape {lengths.shape}", needed)
    bad = ~(np.isfinite(lengths) & (lengths >= 0.0) & (lengths <= high))
    if bad.any():
        raise ArgumentError("distance", f"{lengths[bad].flat[0]:g}", needed)
    return np.broadcast_to(lengths, (m,))[:, None]

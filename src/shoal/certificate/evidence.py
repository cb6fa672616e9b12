"""The evidence: a number per atom and question, from what is coded already. Pure functions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtr, ndtri

from shoal.certificate.refits import Coded
from shoal.diagnosis._arrays import unit_rows
from shoal.diagnosis.matching import match

__all__ = [
    "Null",
    "benjamini_hochberg",
    "crowding",
    "jaccard",
    "locally_best",
    "matched",
    "pull",
    "share",
    "split",
    "together",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Arbitrary: fewer rows say nothing of two directions; more only take time.
_FEWEST, _MOST = 8, 500


class Null(NamedTuple):
    """What surrogates give for a number that is compared with theirs, on the scale of `of`."""

    quantile: float
    """The 99 % quantile."""
    middle: float
    spread: float

    @classmethod
    def of(cls, values: Floats) -> Null:
        """Of the values of a surrogate's atoms."""
        spread = max(float(values.std()), _upper_spread(values), 1e-3)
        return cls(float(np.quantile(values, 0.99)), float(np.median(values)), spread)

    def p(self, values: Floats) -> Floats:
        """The chance of as much or more, by a normal law: m atoms can't show less than 1 / m."""
        return np.asarray(ndtr(-(values - self.middle) / self.spread))


def _upper_spread(values: Floats) -> float:
    """The standard deviation that a normal law with the upper quantiles would have."""
    middle = np.median(values)
    return float((np.quantile(values, 0.99) - middle) / ndtri(0.99))


def matched(atoms: Floats, others: Floats, *, signed: bool) -> tuple[Integers, Floats]:
    """For each atom its partner among the others, one to one, or -1, and their cosine >= 0."""
    found = match(others, atoms, signs="free" if signed else "fixed")
    return found.permutation, np.maximum(np.abs(found.cosines) if signed else found.cosines, 0.0)


def jaccard(one: Any, other: Any, partner: Integers) -> Floats:
    """Rows on which an atom and its partner both fire / rows on which either does, (m,)."""
    first = (one != 0).astype(np.float64).tocsc()
    second = (other != 0).astype(np.float64).tocsc()[:, np.maximum(partner, 0)]
    both = np.asarray(first.multiply(second).sum(axis=0)).ravel()
    either = np.diff(first.indptr) + np.asarray(second.sum(axis=0)).ravel() - both
    return np.where(partner < 0, 0.0, both / np.maximum(either, 1.0))


def share(rows: Coded) -> tuple[Floats, Floats, Integers]:
    """What held-out rows lose without an atom, and on how many of them it fires.

    Returns
    -------
    total : ndarray of shape (m,)
        sum(|r + x d|^2 - |r|^2) over all rows, r being the rest: of all that is there.
    part : ndarray of shape (m,)
        The same on the rows that use it / their sum of |r + x d|^2: what it explains of what is
        there for it to explain. 0 where it never fires.
    uses : ndarray of shape (m,), int
    """
    codes, rest = rows.codes, rows.rest
    square = np.asarray((codes * codes).sum(axis=0)).ravel()
    cross = np.einsum("mn,mn->m", codes.T @ rest, rows.atoms)
    gain = square + 2.0 * cross
    left = (codes != 0).astype(np.float64).T @ np.einsum("ij,ij->i", rest, rest)
    whole = gain + left
    part = np.divide(gain, whole, out=np.zeros_like(gain), where=whole > 0)
    return gain, np.clip(part, 0.0, 1.0), np.diff(codes.indptr).astype(np.int64)


def crowding(atoms: Floats) -> tuple[Floats, Floats]:
    r"""How close an atom is to others, and whether these share more than it, (m,) each.

    Sums of a parent and its children share the parent, and are closer to each other than chance
    has it; so is the parent itself, but its neighbours without it have nothing in common.

    Returns
    -------
    close : ndarray of shape (m,)
        Mean of an atom's three largest \|cosines\| with others / that of random atoms with
        the same median \|cosine\|.
    kin : ndarray of shape (m,)
        The largest \|cosine\| among these three once the atom's direction is taken out of them /
        the same of random ones.
    """
    m = len(atoms)
    few = min(3, m - 1)
    cosines = np.abs(atoms @ atoms.T)
    np.fill_diagonal(cosines, 0.0)
    near = np.argsort(cosines, axis=1)[:, -few:]
    top = np.take_along_axis(cosines, near, axis=1).mean(axis=1)
    # The standard deviation of a normal law with this median of magnitudes. Families are few among
    # all pairs and don't move it, as they do the mean square where most atoms are of families.
    others = cosines[np.triu_indices(m, 1)]
    spread = max(float(np.median(others) / ndtri(0.75)), 0.1 / np.sqrt(atoms.shape[1]))
    usual = spread * ndtri(1.0 - (np.arange(few) + 0.5) / (2.0 * m)).mean()
    kin = np.zeros(m)
    for atom, others in enumerate(near):
        left = unit_rows(_beside(atoms[others], atoms[atom]))
        kin[atom] = np.abs(left @ left.T - np.eye(few)).max()
    return np.asarray(top / usual), kin / (spread * ndtri(1.0 - 0.25 / 3))


def split(rows: Coded, rng: np.random.Generator) -> Floats:
    """How much of a second direction there is in the rows that use an atom, (m,).

    The parts r + x d of these rows have d as their first direction. Measured is the largest
    variance of what they have beside it, less what as many other rows have in proportion to
    theirs, / the variance along d: 0 for an atom of its own. The larger of two: on all rows that
    use it, and without those on which the atom that fires with it most often does too.
    """
    codes, rest = rows.codes, rows.rest
    firing = (codes != 0).astype(np.float64)
    together = (firing.T @ firing).toarray()
    np.fill_diagonal(together, 0.0)
    friend = together.argmax(axis=1)
    found = np.zeros(len(rows.atoms))
    for atom, direction in enumerate(rows.atoms):
        start, end = codes.indptr[atom : atom + 2]
        using, values = codes.indices[start:end], codes.data[start:end]
        without = _column(codes, friend[atom])
        alone = ~np.isin(using, without)
        for kept in (np.ones(len(using), bool), alone):
            found[atom] = max(found[atom], _second(rest, using, kept, values, direction, rng))
    return found


def _column(codes: Any, atom: int) -> Integers:
    return np.asarray(codes.indices[codes.indptr[atom] : codes.indptr[atom + 1]])


def _second(
    rest: Floats,
    used: Integers,
    kept: NDArray[np.bool_],
    values: Floats,
    direction: Floats,
    rng: np.random.Generator,
) -> float:
    using, values = used[kept], values[kept]
    if len(using) < _FEWEST:
        return 0.0
    using, values = using[:_MOST], values[:_MOST]
    here = _beside(rest[using], direction)
    others = np.setdiff1d(np.arange(len(rest)), used, assume_unique=True)
    if len(others) < _FEWEST:
        return 0.0
    few = min(len(others), len(using))
    there = _beside(rest[rng.choice(others, few, replace=False)], direction)
    scale = float(np.square(here).sum()) / max(float(np.square(there).sum()), 1e-300)
    extra = _largest(here) - scale * _largest(there)
    return max(0.0, extra / max(float(np.square(values).sum()), 1e-300))


def _beside(rows: Floats, direction: Floats) -> Floats:
    return np.asarray(rows - np.outer(rows @ direction, direction))


def _largest(rows: Floats, rounds: int = 15) -> float:
    """The square of the largest singular value, by power iteration from the longest row."""
    vector = rows[np.einsum("ij,ij->i", rows, rows).argmax()]
    value = 0.0
    for _ in range(rounds):
        length = float(np.linalg.norm(vector))
        if length == 0.0:
            return 0.0
        vector = vector / length
        along = rows @ vector
        value = float(along @ along)
        vector = along @ rows
    return value


def pull(rows: Coded) -> Floats:
    r"""Whether held-out rows would turn an atom, (m,).

    The gradient of the squared error, sum_i x_i r_i beside the atom, as a square over what it
    would be were the rests r_i independent of each other and of mean 0: about 1 at a local
    minimum, where noise alone is left, and larger where another direction is better.
    """
    codes, rest, atoms = rows.codes, rows.rest, rows.atoms
    turning = codes.T @ rest  # (m, n)
    turning -= np.einsum("mn,mn->m", turning, atoms)[:, None] * atoms
    square = codes * codes
    whole = square.T @ np.einsum("ij,ij->i", rest, rest)
    for atom in range(len(atoms)):
        start, end = codes.indptr[atom : atom + 2]
        along = rest[codes.indices[start:end]] @ atoms[atom]
        whole[atom] -= float(square.data[start:end] @ along**2)
    found = np.einsum("mn,mn->m", turning, turning)
    return np.divide(found, whole, out=np.full(len(atoms), np.nan), where=whole > 0)


def locally_best(rows: Coded, rounds: int = 200) -> Floats:
    r"""Whether the l1 norm of the codes has a local minimum at these atoms, (m,): below 1 it has.

    Gribonval and Schnass 2010, for bases: with x_k the codes of atom k, s_k their signs, m_k the
    cosines of the other atoms with it, X the codes of the others and X' these on the rows on which
    k does not fire, it has where for each k some d with \|d\|_inf < 1 has
    X' d = X s_k - \|x_k\|_1 m_k. Given is \|d\|_inf of the shortest such d, so that a number below
    1 is enough and one above it says little. NaN where there is none, as where some atom fires
    with this one only, or where it never fires. Dictionaries with more atoms than features
    have minima of other kinds besides; of these it says that no *such* change lowers the norm.
    """
    codes, atoms = rows.codes, rows.atoms
    m = len(atoms)
    by_row = sparse.csr_array(codes)
    transposed = sparse.csr_array(codes.T)
    squares = np.asarray((codes * codes).sum(axis=0)).ravel()
    found = np.full(m, np.nan)
    for k in range(m):
        start, end = codes.indptr[k : k + 2]
        on, values = codes.indices[start:end], codes.data[start:end]
        if not len(on):
            continue
        here = by_row[on]
        wanted = here.T @ np.sign(values) - np.abs(values).sum() * (atoms @ atoms[k])
        off = squares - np.asarray((here * here).sum(axis=0)).ravel()
        wanted[squares == 0] = 0.0  # never fires: it has no codes
        wanted[k] = 0.0
        size = float(np.linalg.norm(wanted))
        silent = off <= 1e-12 * np.maximum(squares, 1e-300)
        if np.abs(wanted[silent]).max(initial=0.0) > 1e-9 * max(size, 1e-300):
            continue
        free = np.ones(codes.shape[0])
        free[on] = 0.0
        solution = _solved(
            lambda z, free=free: transposed @ (free * (by_row @ z)), wanted, off, rounds
        )
        if solution is not None:
            found[k] = float(np.abs(free * (by_row @ solution)).max())
    return found


def _solved(apply: Any, wanted: Floats, diagonal: Floats, rounds: int) -> Floats | None:
    """z with apply(z) = wanted by conjugate gradients; None where these don't get there."""
    scale = np.where(diagonal > 0, 1.0 / np.where(diagonal > 0, diagonal, 1.0), 0.0)
    z, left = np.zeros_like(wanted), wanted.copy()
    goal = 1e-6 * float(np.linalg.norm(wanted))
    step = scale * left
    square = float(left @ step)
    for _ in range(rounds):
        if np.linalg.norm(left) <= goal:
            return z
        moved = apply(step)
        along = float(step @ moved)
        if along <= 0.0:
            return None
        z += square / along * step
        left -= square / along * moved
        before, square = square, float(left @ (scale * left))
        step = scale * left + square / before * step
    return None


def together(rows: Coded, most: int = 2000) -> tuple[Floats, Floats]:
    """The extreme singular values of the atoms that fire together with each, (m,) twice.

    The smallest and the largest over the rows that use it, of the first `most`: where the smallest
    is near 0, some codes with this atom can hardly be told from others. NaN where it never fires.
    """
    codes = sparse.csr_array(rows.codes[:most])
    sizes = np.diff(codes.indptr)
    low, high = np.full(len(rows.atoms), np.inf), np.full(len(rows.atoms), -np.inf)
    for size in np.unique(sizes[sizes > 0]):
        starts = codes.indptr[:-1][sizes == size]
        block = max(1, 2**22 // int(size * max(size, rows.atoms.shape[1])))
        for first in range(0, len(starts), block):
            units = codes.indices[starts[first : first + block, None] + np.arange(size)]
            some = rows.atoms[units]  # (B, size, n)
            values = np.linalg.eigvalsh(some @ some.transpose(0, 2, 1))
            ends = np.sqrt(np.maximum(values[:, [0, -1]], 0.0))
            np.minimum.at(low, units, ends[:, :1])
            np.maximum.at(high, units, ends[:, 1:])
    seen = np.isfinite(low)
    return np.where(seen, low, np.nan), np.where(seen, high, np.nan)


def benjamini_hochberg(p: Floats, q: float) -> NDArray[np.bool_]:
    """Which of the hypotheses with these p-values are rejected at a false-discovery rate `q`.

    Benjamini and Hochberg 1995: all up to the largest i with p_(i) <= q i / m.

    >>> benjamini_hochberg(np.array([0.001, 0.5, 0.02, 0.9]), 0.05).tolist()
    [True, False, True, False]
    """
    order = np.argsort(p, kind="stable")
    under = np.flatnonzero(p[order] <= q * np.arange(1, len(p) + 1) / len(p))
    rejected = np.zeros(len(p), dtype=bool)
    if len(under):
        rejected[order[: under[-1] + 1]] = True
    return rejected

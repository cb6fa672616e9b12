"""The evidence: a number per atom and question, from what is coded already. Pure functions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from shoal.certificate.refits import Coded
from shoal.diagnosis._arrays import unit_rows
from shoal.diagnosis.matching import match

__all__ = ["Null", "benjamini_hochberg", "crowding", "jaccard", "matched", "share", "split"]

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

"""Supports that are correlated: units that fire where normals of low rank are large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from shoal.generative._checks import Array, as_generator
from shoal.generative.forests import Forest
from shoal.generative.laws import _indices, _pad
from shoal.vocabulary import ArgumentError, check_count, check_number

__all__ = ["CopulaSupports", "zipf"]

FREQUENT = 0.05  # arbitrary; above it a unit is drawn by itself: a bound would save nothing


def zipf(n_units: int, exponent: float = 0.5, *, high: float = 0.4, low: float = 5e-4) -> Array:
    """Frequencies that fall like i^-exponent, scaled affinely to run from `high` to `low`.

    Parameters
    ----------
    n_units : int
        F, at least 1.
    exponent : float
        Above 0.
    high, low : float
        Of the first and of the last unit, 0 < low <= high <= 1.

    Returns
    -------
    ndarray of shape (F,)

    Raises
    ------
    ArgumentError
        If a number can't be used.

    Examples
    --------
    >>> zipf(3, 1.0, high=0.8, low=0.2).round(3).tolist()
    [0.8, 0.35, 0.2]
    """
    count = check_count("n_units", n_units)
    power = check_number("exponent", exponent, low=0.0, open_low=True)
    top = check_number("high", high, low=0.0, high=1.0, open_low=True)
    bottom = check_number("low", low, low=0.0, high=top, open_low=True)
    law = np.arange(1, count + 1, dtype=np.float64) ** -power
    if count == 1:
        return np.array([top])
    return bottom + (top - bottom) * (law - law[-1]) / (law[0] - law[-1])


@dataclass(frozen=True, eq=False)
class CopulaSupports:
    """Units that fire where g_i > Phi^-1(1 - p_i), g = F eps + sqrt(1 - |F_i|^2) eta.

    Parameters
    ----------
    frequency : array_like of shape (m,)
        p, how often each unit fires, in [0, 1] and not 0 for all.
    factor : array_like of shape (m, rank), optional
        F: rows shorter than 1. The correlation of g_i and g_j is <F_i, F_j>. Without it units are
        independent.

    Raises
    ------
    ArgumentError
        If the arrays can't be used, or don't fit each other.

    Notes
    -----
    A Gaussian copula with Bernoulli margins: frequencies are exactly p whatever the factor. The
    law of SynthSAEBench, arXiv 2602.14687, section 3. p_ij and p_ijl are normal orthant
    probabilities, here by Plackett's identity (1954), dP / d rho_ij = the density of the pair at
    its thresholds times the chance of the rest given them, integrated from independence on.

    Examples
    --------
    >>> law = CopulaSupports([0.5, 0.5], [[0.8], [0.8]])
    >>> round(float(law.p2(2)[0, 1]), 4)  # 1/4 + arcsin(.64) / 2 pi
    0.3605
    """

    frequency: Array
    factor: Array | None = None

    def __post_init__(self) -> None:
        """Check the arrays."""
        needed = "probabilities in [0, 1], one a unit, not all 0"
        try:
            chances = np.array(self.frequency, dtype=np.float64)
        except (TypeError, ValueError):
            raise ArgumentError("frequency", f"a {type(self.frequency).__name__}", needed) from None
        if chances.ndim != 1 or chances.size == 0:
            raise ArgumentError("frequency", f"shape {chances.shape}", needed)
        outside = ~((chances >= 0.0) & (chances <= 1.0))
        if outside.any():
            raise ArgumentError("frequency", f"{chances[outside][0]:g}", needed)
        if not chances.any():
            raise ArgumentError("frequency", "0 everywhere", needed)
        needed = f"({len(chances)}, rank) finite numbers, rows shorter than 1"
        try:
            given = np.zeros((len(chances), 0)) if self.factor is None else self.factor
            rows = np.array(given, dtype=np.float64)
        except (TypeError, ValueError):
            raise ArgumentError("factor", f"a {type(self.factor).__name__}", needed) from None
        if rows.ndim != 2 or len(rows) != len(chances):
            raise ArgumentError("factor", f"shape {rows.shape}", needed)
        lengths = np.sqrt(np.einsum("ir,ir->i", rows, rows))
        bad = ~(lengths < 1.0)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ArgumentError("factor", f"length {lengths[row]:.4g} in row {row}", needed)
        object.__setattr__(self, "frequency", chances)
        object.__setattr__(self, "factor", rows)

    @classmethod
    def random(
        cls, frequency: Any, rank: int = 25, scale: float = 0.1, random_state: Any = None
    ) -> CopulaSupports:
        """With a factor of independent normals times `scale`; rows longer than .995 are shortened.

        Parameters
        ----------
        frequency : array_like of shape (m,)
            As for the class.
        rank : int
            Columns of the factor, at least 1.
        scale : float
            At least 0: the correlation of two units has a standard deviation of scale^2 sqrt(rank).
        random_state : None, int or numpy.random.Generator
            The seed.

        Raises
        ------
        ArgumentError
            If an argument can't be used.
        """
        count = len(cls(frequency).frequency)
        size = check_count("rank", rank)
        rows = as_generator(random_state).standard_normal((count, size))
        rows *= check_number("scale", scale, low=0.0)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        longest = np.sqrt(0.99)  # the published generator leaves each unit 1 % of its own
        rows *= np.where(lengths > longest, longest / np.maximum(lengths, longest), 1.0)
        return cls(frequency, rows)

    @property
    def _factor(self) -> Array:
        assert self.factor is not None
        return self.factor

    @property
    def own(self) -> Array:
        """sqrt(1 - |F_i|^2), the part of each normal that it shares with no other, (m,)."""
        return np.sqrt(1.0 - np.einsum("ir,ir->i", self._factor, self._factor))

    @property
    def thresholds(self) -> Array:
        """Phi^-1(1 - p), (m,); infinite where p is 0 or 1."""
        return -ndtri(self.frequency)

    def given(self, factors: Array) -> Array:
        """The chances of all units given the factors (B, rank) of some rows: (B, m)."""
        return ndtr((factors @ self._factor.T - self.thresholds) / self.own)

    def check(self, n_atoms: int) -> None:
        """Raise `ArgumentError` unless there are `n_atoms` frequencies."""
        if len(self.frequency) != n_atoms:
            raise ArgumentError("frequency", f"{len(self.frequency)} of them", f"{n_atoms}")

    def max_size(self, n_atoms: int) -> int:
        """How many units can be active at all."""
        return int(np.count_nonzero(self.frequency))

    def draw(self, rng: np.random.Generator, n_samples: int, n_atoms: int) -> Array:
        """Supports, (n_samples, width) int64: ascending indices, then -1."""
        units, starts = walk(self, None, None, rng, n_samples)
        return _pad(np.repeat(np.arange(n_samples), np.diff(starts)), units, n_samples)

    def draw_directly(self, rng: np.random.Generator, n_samples: int) -> Array:
        """Whether units fire, (n_samples, m) boolean, with a normal for each: the law as stated.

        What `draw` does in time in proportion to what fires; this is for comparison with it.
        """
        shared = rng.standard_normal((n_samples, self._factor.shape[1])) @ self._factor.T
        own = rng.standard_normal((n_samples, len(self.frequency))) * self.own
        return np.asarray(shared + own > self.thresholds)

    def p1(self, n_atoms: int) -> Array:
        """P[i in S], (m,)."""
        return self.frequency.copy()

    def p2(self, n_atoms: int) -> Array:
        """P[i, j in S], (m, m); the diagonal is P[i in S]."""
        i, j = np.triu_indices(n_atoms, 1)
        pairs = np.diag(self.frequency)
        pairs[i, j] = pairs[j, i] = self._pair(i, j)
        return pairs

    def p3(self, n_atoms: int, i: Any, j: Any, l: Any) -> Array:  # noqa: E741
        """P[i, j, l in S] for indices that broadcast together; they may coincide."""
        i, j, l = _indices(n_atoms, i, j, l)  # noqa: E741
        a, b, c = np.sort(np.stack([i, j, l]), axis=0)
        chances = np.where(a == c, self.frequency[a], self._pair(a, np.where(a == b, c, b)))
        distinct = (a != b) & (b != c)
        if distinct.any():
            chances[distinct] = self._triple(a[distinct], b[distinct], c[distinct])
        return np.asarray(chances)

    def _correlation(self, i: Array, j: Array) -> Array:
        return np.einsum("...r,...r->...", self._factor[i], self._factor[j])

    def _pair(self, i: Array, j: Array) -> Array:
        p, t, rho = self.frequency, self._finite, self._correlation(i, j)
        total = p[i] * p[j]
        for node, weight in _NODES:
            total = total + weight * rho * _density(t[i], t[j], node * rho)
        return np.clip(total, 0.0, np.minimum(p[i], p[j]))

    def _triple(self, i: Array, j: Array, l: Array) -> Array:  # noqa: E741
        p, t = self.frequency, self._finite
        total = p[i] * p[j] * p[l]
        for node, weight in _NODES:
            for a, b, c in ((i, j, l), (i, l, j), (j, l, i)):
                ab, ac, bc = (node * self._correlation(*pair) for pair in ((a, b), (a, c), (b, c)))
                left = 1.0 - ab**2
                mean = ((ac - ab * bc) * t[a] + (bc - ab * ac) * t[b]) / left
                spread = np.sqrt(1.0 - (ac**2 - 2 * ab * ac * bc + bc**2) / left)
                rest = ndtr((mean - t[c]) / spread)
                total = total + weight * self._correlation(a, b) * _density(t[a], t[b], ab) * rest
        return np.clip(total, 0.0, np.minimum(np.minimum(p[i], p[j]), p[l]))

    @property
    def _finite(self) -> Array:
        """Thresholds at which a density is 0 rather than not a number."""
        return np.clip(self.thresholds, -40.0, 40.0)


def _density(x: Array, y: Array, rho: Array) -> Array:
    """Of two standard normals of correlation rho."""
    left = 1.0 - rho**2
    return np.exp(-(x**2 - 2 * rho * x * y + y**2) / (2 * left)) / (2 * np.pi * np.sqrt(left))


def _gauss(count: int) -> list[tuple[float, float]]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return list(zip((nodes + 1) / 2, weights / 2, strict=True))


_NODES = _gauss(32)


def realised(law: CopulaSupports, forest: Forest | None, alive: Array, n_points: int) -> Array:
    """How often each unit is active once the forest has had its say, (m,).

    Given the factors all is independent: exact there, level by level, and averaged over Sobol
    points of the factors.
    """
    if forest is None or not (forest.parent >= 0).any():
        return law.frequency * alive
    from scipy.stats import qmc

    rank = law._factor.shape[1]
    if rank == 0:
        return _given_forest(law.frequency[None] * alive, forest)[0]
    sobol = qmc.Sobol(rank, seed=np.random.default_rng(0))
    points = ndtri(np.clip(sobol.random(n_points), 1e-12, 1 - 1e-12))
    total = np.zeros(len(alive))
    for start in range(0, n_points, 256):
        block = points[start : start + 256]
        total += _given_forest(law.given(block) * alive, forest).sum(axis=0)
    exact = law.frequency * alive
    return np.where(forest.parent < 0, exact, total / n_points)


def _given_forest(fires: Array, forest: Forest) -> Array:
    """Chances of being active (B, m) from chances of firing (B, m), all independent."""
    chances = fires.copy()
    for parents, family in forest.families():  # (P,), (P, size)
        size = family.shape[1]
        own = fires[:, family]
        if forest.exclusive and size > 1:
            # E[1 / (1 + others)] is the integral of the product of 1 - a_j + a_j t: a polynomial.
            win = np.zeros_like(own)
            for node, weight in _gauss((size + 1) // 2):
                terms = 1.0 - own * (1.0 - node)  # never 0: nodes are inside
                win += weight * terms.prod(axis=2, keepdims=True) / terms
            own = own * win
        chances[:, family] = chances[:, parents, None] * own
    return chances


def walk(
    law: CopulaSupports,
    forest: Forest | None,
    alive: Array | None,
    rng: np.random.Generator,
    n_samples: int,
) -> tuple[Array, Array]:
    """Supports of a copula through a forest, drawn sparsely: units and where each row begins."""
    from shoal.generative._walk import BLOCK, draw_supports

    m = len(law.frequency)
    if forest is None:
        forest = Forest((-1,) * m)
    tables = forest._tables
    weights = (law._factor / law.own[:, None]).astype(np.float32)
    levels = (law.thresholds / law.own).astype(np.float32)
    tops = np.flatnonzero(tables.depth == 0)
    tops = tops[np.argsort(-law.frequency[tops], kind="stable")]  # alike in a block
    filler = np.full(-len(tops) % BLOCK, -1, dtype=np.int64)
    units = np.concatenate([tops, filler]).reshape(-1, BLOCK)
    there = units >= 0
    block_weights = np.where(there[..., None], weights[units], np.float32(0.0)).transpose(0, 2, 1)
    block_levels = np.where(there, levels[units], np.float32(np.inf))
    direct = law.frequency[units[:, 0]] > FREQUENT
    return draw_supports(
        rng.integers(2**64, size=1, dtype=np.uint64),
        rng.standard_normal((n_samples, weights.shape[1]), dtype=np.float32),
        units,
        np.ascontiguousarray(block_weights),
        block_levels,
        direct,
        weights,
        levels,
        np.ones(m) if alive is None else alive,
        tables.first_child,
        tables.children,
        tables.exclusive,
    )

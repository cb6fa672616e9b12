"""Supports whose size varies within bounds, of units that are not equally likely."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from shoal.generative._checks import Array
from shoal.generative.laws import BernoulliSupport, _indices
from shoal.vocabulary import ArgumentError, check_count

__all__ = ["SizedSupport"]


@dataclass(frozen=True)
class SizedSupport:
    """A size uniform on low, ..., high; given it, a support with chance in proportion to its odds.

    Parameters
    ----------
    odds : sequence of float of shape (m,)
        w, at least 0: a support S has a chance in proportion to the product of its w. Stored as a
        tuple.
    low, high : int
        The bounds of the size, 0 <= low <= high <= the number of units with w > 0.

    Raises
    ------
    ArgumentError
        If a number can't be used; in a model, if there is another number of odds than of atoms.

    Notes
    -----
    Conditional Bernoulli sampling (Chen, Dempster and Liu 1994): independent units, given how many
    are active. A draw takes independent ones until the number is right. Probabilities come from
    the generating function of the size on the unit circle, which is exact.

    Examples
    --------
    >>> law = SizedSupport([1.0, 1.0, 1.0, 1.0], 1, 3)
    >>> law.p1(4).round(6).tolist(), law.max_size(4)
    ([0.5, 0.5, 0.5, 0.5], 3)
    """

    odds: tuple[float, ...]
    low: int
    high: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        needed = "finite numbers >= 0, one a unit, not all 0"
        try:
            weights = np.array(self.odds, dtype=np.float64)
        except (TypeError, ValueError):
            raise ArgumentError("odds", f"a {type(self.odds).__name__}", needed) from None
        if weights.ndim != 1 or weights.size == 0:
            raise ArgumentError("odds", f"shape {weights.shape}", needed)
        outside = ~((weights >= 0.0) & np.isfinite(weights))
        if outside.any():
            raise ArgumentError("odds", f"{weights[outside][0]:g}", needed)
        possible = int(np.count_nonzero(weights))
        if not possible:
            raise ArgumentError("odds", "0 everywhere", needed)
        high = check_count("high", self.high, high=possible)
        object.__setattr__(self, "low", check_count("low", self.low, low=0, high=high))
        object.__setattr__(self, "high", high)
        object.__setattr__(self, "odds", tuple(weights.tolist()))

    def check(self, n_atoms: int) -> None:
        """Raise `ArgumentError` unless there are `n_atoms` odds."""
        if len(self.odds) != n_atoms:
            raise ArgumentError("odds", f"{len(self.odds)} of them", f"{n_atoms}: one an atom")

    def max_size(self, n_atoms: int) -> int:
        """Always `high`."""
        return self.high

    @cached_property
    def _tilted(self) -> dict[int, Array]:
        """For each size above 0, chances of independent units whose mean number it is, (m,)."""
        logs = np.log(
            self.odds, out=np.full(len(self.odds), -np.inf), where=np.array(self.odds) > 0
        )
        made = {}
        for size in range(max(self.low, 1), self.high + 1):
            below, above = -logs.max() - 50.0, 50.0 - logs[np.isfinite(logs)].min()
            for _ in range(100):  # halvings: to the last bit
                middle = (below + above) / 2
                chances = 1.0 / (1.0 + np.exp(np.minimum(-(logs + middle), 700.0)))
                below, above = (middle, above) if chances.sum() < size else (below, middle)
            made[size] = np.where(np.isfinite(logs), chances, 0.0)
        return made

    def draw(self, rng: np.random.Generator, n_samples: int, n_atoms: int) -> Array:
        """Supports, (n_samples, high) int64: ascending indices, then -1."""
        sizes = rng.integers(self.low, self.high + 1, size=n_samples)
        supports = np.full((n_samples, self.high), -1, dtype=np.int64)
        for size, chances in self._tilted.items():
            rows = np.flatnonzero(sizes == size)
            law = BernoulliSupport(tuple(chances.tolist()))
            while len(rows):  # about one in sqrt(2 pi size) has the right number
                tried = law.draw(rng, 2 * len(rows) + 16, n_atoms)
                right = tried[(tried >= 0).sum(axis=1) == size][: len(rows), :size]
                supports[rows[: len(right)], :size] = right
                rows = rows[len(right) :]
        return supports

    def p1(self, n_atoms: int) -> Array:
        """P[i in S], (m,)."""
        total = np.zeros(n_atoms)
        for weight, ratios in self._nodes():
            total += np.real(weight @ ratios)
        return np.clip(total, 0.0, 1.0)

    def p2(self, n_atoms: int) -> Array:
        """P[i, j in S], (m, m); the diagonal is P[i in S]."""
        total = np.zeros((n_atoms, n_atoms))
        for weight, ratios in self._nodes():
            total += np.real((ratios.T * weight) @ ratios)
        np.fill_diagonal(total, self.p1(n_atoms))
        return np.clip(total, 0.0, 1.0)

    def p3(self, n_atoms: int, i: Any, j: Any, l: Any) -> Array:  # noqa: E741
        """P[i, j, l in S] for indices that broadcast together; they may coincide."""
        i, j, l = _indices(n_atoms, i, j, l)  # noqa: E741
        total = np.zeros(i.shape)
        for weight, ratios in self._nodes():
            part = ratios[:, i]
            part = part * np.where(j == i, 1.0, ratios[:, j])
            part = part * np.where((l == i) | (l == j), 1.0, ratios[:, l])
            total += np.real(np.tensordot(weight, part, axes=1))
        return np.clip(total, 0.0, 1.0)

    def _nodes(self) -> Any:
        """Weights (K,) and p_i z / (1 - p_i + p_i z) (K, m) at K points z of the unit circle.

        The sum of weight times a product of ratios over a set of units is the chance that all of
        them are in the support. No point is -1, at which a ratio may have a pole.
        """
        count = len(self.odds) + 2 + len(self.odds) % 2
        share = 1.0 / (self.high - self.low + 1)
        for size, p in self._tilted.items():
            blocks = []
            for start in range(0, count, 256):
                places = np.arange(start, min(start + 256, count))
                z = np.exp(1j * np.pi * (2 * places + 1) / count)[:, None]
                whole = 1.0 - p + p * z
                weight = np.prod(whole, axis=1) * z[:, 0] ** -size
                blocks.append((weight, p * z / whole))
            chance = sum(float(np.real(weight).sum()) for weight, _ in blocks)
            for weight, ratios in blocks:
                yield weight * (share / chance), ratios

"""The laws of a code: which units are active, and with what values.

Together they state assumptions A1 to A3 of Nguyen et al. (2018), section 2.2, with exact moments.

* A **support law** draws the active units and knows p_i, p_ij and p_ijl (A1). A draw is an integer
  array ``(N, width)``: each row the indices of the active units, ascending, and -1 after the last
  where a row has fewer than ``width``.
* A **values law** draws the non-zeros, independent of each other and of the support (A2), and
  knows kappa1 = E[x | active], kappa2 = E[x^2 | active] and the bounds a1 <= |x| <= a2 (A3).

All laws are immutable values. An active unit is never exactly 0, so support and code agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtri_exp

from shoal.generative._checks import Array, as_generator, check_probabilities
from shoal.vocabulary import ArgumentError, check_count, check_number

__all__ = [
    "BernoulliSupport",
    "Constant",
    "Custom",
    "DiscreteSupport",
    "Gaussian",
    "Rademacher",
    "SupportLaw",
    "Uniform",
    "UniformSupport",
    "ValuesLaw",
]

Size = int | tuple[int, ...]


@runtime_checkable
class ValuesLaw(Protocol):
    """What a law of the non-zeros offers; any object that has these will do."""

    @property
    def kappa1(self) -> float:
        """E[x | active]."""

    @property
    def kappa2(self) -> float:
        """E[x^2 | active]."""

    @property
    def a1(self) -> float:
        """The least |x| of an active unit."""

    @property
    def a2(self) -> float:
        """The largest |x| of an active unit; may be inf."""

    @property
    def signed(self) -> bool:
        """Whether x can be negative."""

    def draw(self, rng: np.random.Generator, size: Size) -> Array:
        """Independent draws, float64, of that shape; none of them 0."""


@runtime_checkable
class SupportLaw(Protocol):
    """What a law of the support offers; any object that has these will do."""

    def check(self, n_atoms: int) -> None:
        """Raise `ArgumentError` if the law does not fit `n_atoms` units."""

    def max_size(self, n_atoms: int) -> int:
        """The largest possible support: k in A1."""

    def draw(self, rng: np.random.Generator, n_samples: int, n_atoms: int) -> Array:
        """Supports, (n_samples, width) int64: ascending indices, then -1."""

    def p1(self, n_atoms: int) -> Array:
        """P[i in S], (m,)."""

    def p2(self, n_atoms: int) -> Array:
        """P[i, j in S], (m, m); the diagonal is P[i in S]."""

    def p3(self, n_atoms: int, i: Any, j: Any, l: Any) -> Array:  # noqa: E741
        """P[i, j, l in S] for indices that broadcast together; they may coincide."""


# --- values -------------------------------------------------------------------------------


def _signs(rng: np.random.Generator, size: Size) -> Array:
    return 2.0 * rng.integers(0, 2, size=size) - 1.0


@dataclass(frozen=True)
class Uniform:
    """Magnitude uniform on (low, high], with a fair random sign if `signed`.

    Parameters
    ----------
    low, high : float
        0 <= low <= high, high > 0. They are a1 and a2 of A3, Nguyen et al. (2018).
    signed : bool
        Whether each value gets a fair random sign, so that kappa1 = 0.

    Raises
    ------
    ArgumentError
        If the bounds are not finite or out of order.

    Examples
    --------
    >>> law = Uniform(1.0, 2.0)
    >>> law.kappa1, round(law.kappa2, 4)
    (1.5, 2.3333)
    """

    low: float
    high: float
    signed: bool = False

    def __post_init__(self) -> None:
        """Check the bounds."""
        low = check_number("low", self.low, low=0.0)
        high = check_number("high", self.high, low=0.0, open_low=True)
        if low > high:
            raise ArgumentError("low", f"{low:g} above high = {high:g}", "low <= high")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def kappa1(self) -> float:
        """E[x | active]: 0 if signed, else the middle."""
        return 0.0 if self.signed else (self.low + self.high) / 2

    @property
    def kappa2(self) -> float:
        """E[x^2 | active] = (low^2 + low high + high^2) / 3."""
        return (self.low**2 + self.low * self.high + self.high**2) / 3

    @property
    def a1(self) -> float:
        """The least magnitude: `low`."""
        return self.low

    @property
    def a2(self) -> float:
        """The largest magnitude: `high`."""
        return self.high

    def draw(self, rng: np.random.Generator, size: Size) -> Array:
        """Independent draws of that shape."""
        # 1 - random() lies in (0, 1], so that low = 0 never gives an active unit of value 0; the
        # minimum undoes a rounding up.
        values = np.minimum(self.low + (self.high - self.low) * (1.0 - rng.random(size)), self.high)
        return values * _signs(rng, size) if self.signed else values


@dataclass(frozen=True)
class Rademacher:
    """+1 or -1, each with probability 1/2.

    Standardised as Nguyen et al. (2018) want it for sparse coding: kappa1 = 0, kappa2 = 1.

    Examples
    --------
    >>> law = Rademacher()
    >>> law.kappa1, law.kappa2, law.a1, law.a2
    (0.0, 1.0, 1.0, 1.0)
    """

    kappa1: float = field(default=0.0, init=False)
    kappa2: float = field(default=1.0, init=False)
    a1: float = field(default=1.0, init=False)
    a2: float = field(default=1.0, init=False)
    signed: bool = field(default=True, init=False)

    def draw(self, rng: np.random.Generator, size: Size) -> Array:
        """Independent draws of that shape."""
        return _signs(rng, size)


@dataclass(frozen=True)
class Constant:
    """Always the same value, as in the mixture of Gaussians.

    Parameters
    ----------
    value : float
        Finite and not 0.

    Raises
    ------
    ArgumentError
        If `value` is 0 or not finite.

    Examples
    --------
    >>> Constant(2.0).draw(np.random.default_rng(0), 3).tolist()
    [2.0, 2.0, 2.0]
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        """Check the value."""
        value = check_number("value", self.value)
        if value == 0.0:
            raise ArgumentError("value", "0", "another number: an active unit is not 0")
        object.__setattr__(self, "value", value)

    @property
    def kappa1(self) -> float:
        """E[x | active] = value."""
        return self.value

    @property
    def kappa2(self) -> float:
        """E[x^2 | active] = value^2."""
        return self.value**2

    @property
    def a1(self) -> float:
        """The magnitude."""
        return abs(self.value)

    @property
    def a2(self) -> float:
        """The magnitude."""
        return abs(self.value)

    @property
    def signed(self) -> bool:
        """Whether the value is negative."""
        return self.value < 0

    def draw(self, rng: np.random.Generator, size: Size) -> Array:
        """An array of that shape, full of the value; `rng` is not touched."""
        return np.full(size, self.value)


@dataclass(frozen=True)
class Gaussian:
    """A standard normal kept away from 0: conditioned on |x| >= cutoff.

    Parameters
    ----------
    cutoff : float
        At least 0; 0 is the normal itself.
    standardize : bool
        Divide by sqrt(kappa2), so that kappa2 = 1, the convention of Nguyen et al. (2018) for
        sparse coding; a1 is then cutoff / sqrt(kappa2) < 1.
    signed : bool
        False takes the magnitude.

    Raises
    ------
    ArgumentError
        If `cutoff` is negative or not finite.

    Notes
    -----
    With the hazard h = phi(c) / Q(c) of the normal, the magnitude has mean h and mean square
    1 + c h; draws invert the tail on the log scale, so every cutoff is exact and none is slow.

    Examples
    --------
    >>> law = Gaussian(1.0, standardize=True)
    >>> law.kappa1, law.kappa2, round(law.a1, 4)
    (0.0, 1.0, 0.6293)
    """

    cutoff: float
    standardize: bool = False
    signed: bool = True

    def __post_init__(self) -> None:
        """Check the cutoff."""
        object.__setattr__(self, "cutoff", check_number("cutoff", self.cutoff, low=0.0))

    @property
    def _hazard(self) -> float:
        # erfcx keeps phi / Q exact where both underflow.
        return float(np.sqrt(2 / np.pi) / erfcx(self.cutoff / np.sqrt(2)))

    @property
    def _scale(self) -> float:
        return float(np.sqrt(1 + self.cutoff * self._hazard)) if self.standardize else 1.0

    @property
    def kappa1(self) -> float:
        """E[x | active]: 0 if signed, else the hazard over the scale."""
        return 0.0 if self.signed else self._hazard / self._scale

    @property
    def kappa2(self) -> float:
        """E[x^2 | active] = 1 + c h, or 1 if standardised."""
        return 1.0 if self.standardize else 1 + self.cutoff * self._hazard

    @property
    def a1(self) -> float:
        """The least magnitude."""
        return self.cutoff / self._scale

    @property
    def a2(self) -> float:
        """Inf."""
        return float("inf")

    def draw(self, rng: np.random.Generator, size: Size) -> Array:
        """Independent draws of that shape."""
        # P(|x| > t given |x| >= c) = Q(t) / Q(c): invert at a uniform in (0, 1].
        uniform = 1.0 - rng.random(size)
        tail = -ndtri_exp(np.log(uniform) + log_ndtr(-self.cutoff))
        # The floor takes rounding out at the cutoff, and keeps an active unit off 0.
        values = np.maximum(tail, max(self.cutoff, 2.0**-53)) / self._scale
        return values * _signs(rng, size) if self.signed else values


@dataclass(frozen=True)
class Custom:
    """Any law of the non-zeros, with its moments as stated.

    Parameters
    ----------
    sampler : callable
        ``sampler(rng, size)`` gives independent float draws of shape `size`.
    kappa1, kappa2 : float
        E[x | active] and E[x^2 | active]. **They are believed**: every closed form of the model
        uses them. :meth:`check` tests them on draws.
    a1, a2 : float
        Bounds of |x|; `a2` may be inf. Checked on each draw.
    signed : bool
        Whether x can be negative. Checked on each draw.

    Raises
    ------
    ArgumentError
        If the numbers contradict each other; from `draw`, if the sampler breaks its word.

    Examples
    --------
    >>> law = Custom(lambda rng, size: 1 + rng.exponential(size=size), 2.0, 5.0, 1.0, float("inf"))
    >>> law.check()
    """

    sampler: Callable[[np.random.Generator, Any], Any]
    kappa1: float
    kappa2: float
    a1: float
    a2: float
    signed: bool = True

    def __post_init__(self) -> None:
        """Check that the numbers agree with each other."""
        if not callable(self.sampler):
            raise ArgumentError("sampler", repr(self.sampler), "a callable sampler(rng, size)")
        a1 = check_number("a1", self.a1, low=0.0)
        a2 = float("inf") if self.a2 == float("inf") else check_number("a2", self.a2, low=a1)
        kappa1 = check_number("kappa1", self.kappa1)
        kappa2 = check_number("kappa2", self.kappa2, low=0.0, open_low=True)
        slack = 1e-9 * kappa2  # arbitrary; stated moments may be rounded
        if not a1**2 - slack <= kappa2 <= a2**2 + slack:
            needed = f"a number from a1^2 = {a1**2:g} to a2^2 = {a2**2:g}"
            raise ArgumentError("kappa2", f"{kappa2:g}", needed)
        if kappa1**2 > kappa2 + slack or (kappa1 < 0 and not self.signed):
            needed = f"a number with kappa1^2 <= kappa2 = {kappa2:g}, and >= 0 unless signed"
            raise ArgumentError("kappa1", f"{kappa1:g}", needed)
        for name, value in (("a1", a1), ("a2", a2), ("kappa1", kappa1), ("kappa2", kappa2)):
            object.__setattr__(self, name, value)

    def draw(self, rng: np.random.Generator, size: Size) -> Array:
        """Independent draws of that shape, checked against the stated bounds."""
        values = np.asarray(self.sampler(rng, size), dtype=np.float64)
        shape = (size,) if isinstance(size, int) else tuple(size)
        if values.shape != shape:
            raise ArgumentError("sampler", f"draws of shape {values.shape}", f"shape {shape}")
        magnitudes = np.abs(values)
        inside = (magnitudes >= self.a1 * (1 - 1e-12)) & (magnitudes <= self.a2 * (1 + 1e-12))
        bad = ~inside | (values == 0.0) | ~np.isfinite(values)
        if not self.signed:
            bad |= values < 0.0
        if bad.any():
            signs = "of either sign" if self.signed else "and not negative"
            needed = f"non-zero values with {self.a1:g} <= |x| <= {self.a2:g}, {signs}"
            raise ArgumentError("sampler", f"a draw of {values[bad][0]:g}", needed)
        return values

    def check(
        self, n_samples: int = 100_000, random_state: Any = 0, threshold: float = 6.0
    ) -> None:
        """Test the stated moments on draws.

        Parameters
        ----------
        n_samples : int
            How many draws, at least 2.
        random_state : None, int or numpy.random.Generator
            The seed.
        threshold : float
            How many standard errors the means of x and x^2 may be off.

        Raises
        ------
        ArgumentError
            Naming the moment that the draws contradict.
        """
        n_samples = check_count("n_samples", n_samples, low=2)
        values = self.draw(as_generator(random_state), n_samples)
        stated = (("kappa1", self.kappa1, values), ("kappa2", self.kappa2, values**2))
        for name, moment, draws in stated:
            error = float(draws.std() / np.sqrt(n_samples)) + 1e-9 * max(1.0, abs(moment))
            if abs(draws.mean() - moment) > threshold * error:
                found = f"{moment:g}, while {n_samples} draws give {draws.mean():g} +- {error:.2g}"
                raise ArgumentError(name, found, "the moment of the sampler's law")


# --- supports -----------------------------------------------------------------------------


def _indices(n_atoms: int, *indices: Any) -> list[Array]:
    """Index arrays, checked and broadcast together."""
    checked = []
    for name, index in zip("ijl", indices, strict=True):
        needed = f"integers from 0 to {n_atoms - 1}"
        try:
            array = np.asarray(index)
        except (TypeError, ValueError):
            raise ArgumentError(name, f"a {type(index).__name__}", needed) from None
        if array.dtype.kind not in "iu":
            raise ArgumentError(name, f"{array.dtype} values", needed)
        outside = (array < 0) | (array >= n_atoms)
        if outside.any():
            raise ArgumentError(name, str(array[outside].flat[0]), needed)
        checked.append(array)
    try:
        return list(np.broadcast_arrays(*checked))
    except ValueError:
        shapes = ", ".join(str(array.shape) for array in checked)
        raise ArgumentError("i, j, l", f"shapes {shapes}", "shapes that broadcast") from None


def _pad(rows: Array, atoms: Array, n_samples: int) -> Array:
    """Active (row, atom) pairs in row-major order -> (n_samples, width), -1 after the last."""
    sizes = np.bincount(rows, minlength=n_samples)
    slots = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    supports = np.full((n_samples, max(1, int(sizes.max()))), -1, dtype=np.int64)
    supports[rows, slots] = atoms
    return supports


@dataclass(frozen=True)
class UniformSupport:
    """Every support of size k, with equal probability.

    Parameters
    ----------
    k : int
        At least 1, at most the number of atoms.

    Raises
    ------
    ArgumentError
        If `k` is not an integer of at least 1; in a model, if it exceeds the number of atoms.

    Notes
    -----
    The special case that Rangamani et al. (2017), section 2, name and sample from in section 6.
    P[d given units in S] = prod_{t < d} (k - t) / (m - t).

    Examples
    --------
    >>> law = UniformSupport(2)
    >>> law.p1(4).tolist(), round(float(law.p3(4, 0, 1, 0)), 4)
    ([0.5, 0.5, 0.5, 0.5], 0.1667)
    """

    k: int

    def __post_init__(self) -> None:
        """Check the size."""
        object.__setattr__(self, "k", check_count("k", self.k))

    def check(self, n_atoms: int) -> None:
        """Raise `ArgumentError` if k exceeds `n_atoms`."""
        check_count("k", self.k, high=n_atoms)

    def max_size(self, n_atoms: int) -> int:
        """Always k."""
        return self.k

    def draw(self, rng: np.random.Generator, n_samples: int, n_atoms: int) -> Array:
        """Supports, (n_samples, k) int64, ascending."""
        # Floyd's sampling without replacement (Bentley and Floyd 1987), all samples at once: the
        # s-th draw is uniform on 0..m-k+s, and one that is taken already becomes m-k+s itself.
        first = n_atoms - self.k
        draws = rng.integers(0, np.arange(first + 1, n_atoms + 1), size=(n_samples, self.k))
        chunk = max(1, 2**22 // n_atoms)  # arbitrary; 4 MiB of membership flags, used again
        member = np.zeros((min(chunk, n_samples), n_atoms), dtype=bool)
        for start in range(0, n_samples, chunk):
            block = draws[start : start + chunk]  # a view: the draws become the supports
            rows = np.arange(len(block))
            for s in range(self.k):
                taken = member[rows, block[:, s]]
                block[taken, s] = first + s
                member[rows, block[:, s]] = True
            member[rows[:, None], block] = False
        draws.sort(axis=1)
        return draws

    def _chances(self, n_atoms: int) -> Array:
        """P[d given units in S], d = 0..3."""
        t = np.arange(3)
        ratios = np.maximum(self.k - t, 0) / np.maximum(n_atoms - t, 1)
        return np.concatenate([[1.0], np.cumprod(ratios)])

    def p1(self, n_atoms: int) -> Array:
        """P[i in S] = k / m, (m,)."""
        return np.full(n_atoms, self._chances(n_atoms)[1])

    def p2(self, n_atoms: int) -> Array:
        """P[i, j in S], (m, m); the diagonal is P[i in S]."""
        chances = self._chances(n_atoms)
        pairs = np.full((n_atoms, n_atoms), chances[2])
        np.fill_diagonal(pairs, chances[1])
        return pairs

    def p3(self, n_atoms: int, i: Any, j: Any, l: Any) -> Array:  # noqa: E741
        """P[i, j, l in S] for indices that broadcast together; they may coincide."""
        i, j, l = _indices(n_atoms, i, j, l)  # noqa: E741
        n_distinct = 1 + (j != i).astype(int) + ((l != i) & (l != j)).astype(int)
        return np.asarray(self._chances(n_atoms)[n_distinct])


@dataclass(frozen=True)
class BernoulliSupport:
    """Each unit active by itself, independently of the others.

    Parameters
    ----------
    p : float or sequence of float of shape (m,)
        The probability of each unit, in [0, 1] and not all 0. Stored as a float or a tuple.

    Raises
    ------
    ArgumentError
        If `p` is not a probability; in a model, if it has another length than the dictionary.

    Notes
    -----
    The size of the support varies, so A1 of Nguyen et al. (2018) holds with k = m only, though the
    size concentrates around sum p_i.

    Examples
    --------
    >>> law = BernoulliSupport([0.5, 0.1])
    >>> law.p2(2).tolist()
    [[0.5, 0.05], [0.05, 0.1]]
    """

    p: float | tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the probabilities."""
        needed = "a probability in [0, 1], or one an atom, not all 0"
        try:
            chances = np.array(self.p, dtype=np.float64)
        except (TypeError, ValueError):
            raise ArgumentError("p", repr(self.p), needed) from None
        if chances.ndim > 1 or chances.size == 0:
            raise ArgumentError("p", f"shape {chances.shape}", needed)
        outside = ~((chances >= 0.0) & (chances <= 1.0))
        if outside.any():
            raise ArgumentError("p", f"{chances[outside].flat[0]:g}", needed)
        if not chances.any():
            raise ArgumentError("p", "0 everywhere", needed)
        object.__setattr__(self, "p", tuple(chances.tolist()) if chances.ndim else float(chances))

    def check(self, n_atoms: int) -> None:
        """Raise `ArgumentError` unless `p` is one number or `n_atoms` of them."""
        if isinstance(self.p, tuple) and len(self.p) != n_atoms:
            needed = f"one, or {n_atoms}: one an atom"
            raise ArgumentError("p", f"{len(self.p)} probabilities", needed)

    def max_size(self, n_atoms: int) -> int:
        """How many units can be active at all."""
        return int(np.count_nonzero(self.p1(n_atoms)))

    def draw(self, rng: np.random.Generator, n_samples: int, n_atoms: int) -> Array:
        """Supports, (n_samples, width) int64, width the largest size drawn (at least 1)."""
        # Only what is active costs anything: walk all N m cells by geometric gaps at the largest
        # probability, then thin to each unit's own.
        p = self.p1(n_atoms)
        top, total = float(p.max()), n_samples * n_atoms
        walked, last = [], -1
        while last < total:
            expected = (total - last) * top
            gaps = rng.geometric(top, size=int(expected + 4 * np.sqrt(expected)) + 16)
            # A gap beyond the end is as good as any other; capped so that the sum can't overflow.
            walked.append(last + np.cumsum(np.minimum(gaps, total + 1)))
            last = int(walked[-1][-1])
        cells = np.concatenate(walked)
        rows, atoms = np.divmod(cells[cells < total], n_atoms)
        kept = rng.random(len(atoms)) * top < p[atoms]
        return _pad(rows[kept], atoms[kept], n_samples)

    def p1(self, n_atoms: int) -> Array:
        """P[i in S], (m,)."""
        return np.broadcast_to(np.asarray(self.p), (n_atoms,)).copy()

    def p2(self, n_atoms: int) -> Array:
        """P[i, j in S] = p_i p_j, (m, m); the diagonal is P[i in S]."""
        p = self.p1(n_atoms)
        pairs = np.outer(p, p)
        np.fill_diagonal(pairs, p)
        return pairs

    def p3(self, n_atoms: int, i: Any, j: Any, l: Any) -> Array:  # noqa: E741
        """P[i, j, l in S] for indices that broadcast together; they may coincide."""
        i, j, l = _indices(n_atoms, i, j, l)  # noqa: E741
        p = self.p1(n_atoms)
        return np.asarray(
            p[i] * np.where(j == i, 1.0, p[j]) * np.where((l == i) | (l == j), 1.0, p[l])
        )


@dataclass(frozen=True)
class DiscreteSupport:
    """Any discrete law over a given list of supports.

    Parameters
    ----------
    supports : sequence of sequences of int
        The possible supports, each the distinct indices of its active units; sizes may differ and
        one may be empty. Stored as tuples.
    probabilities : sequence of float, optional
        One a support, summing to 1; uniform by default.

    Raises
    ------
    ArgumentError
        If the supports are not lists of distinct indices >= 0, or the probabilities don't fit; in
        a model, if an index exceeds the number of atoms.

    Notes
    -----
    The law D_S over a set of supports in Rangamani et al. (2017), section 2. They ask that
    P[i in S] and P[i, j in S] be the same for all units; here that is the user's choice.

    Examples
    --------
    >>> law = DiscreteSupport([(0, 1), (2,)], [0.25, 0.75])
    >>> law.p1(3).tolist()
    [0.25, 0.25, 0.75]
    """

    supports: tuple[tuple[int, ...], ...]
    probabilities: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check the supports and their probabilities."""
        needed = "a list of supports, each a list of distinct unit indices >= 0, not all empty"
        try:
            listed: list[Sequence[Any]] = [list(support) for support in self.supports]
        except TypeError:
            raise ArgumentError("supports", repr(self.supports), needed) from None
        stored = []
        for support in listed:
            units = tuple(sorted(check_count("supports", unit, low=0) for unit in support))
            if len(set(units)) < len(units):
                raise ArgumentError("supports", f"{units} with a repeated unit", needed)
            stored.append(units)
        if not any(stored):
            raise ArgumentError("supports", f"{len(stored)} empty ones", needed)
        object.__setattr__(self, "supports", tuple(stored))
        if self.probabilities is not None:
            chances = check_probabilities("probabilities", self.probabilities, len(stored))
            object.__setattr__(self, "probabilities", tuple(chances.tolist()))

    def check(self, n_atoms: int) -> None:
        """Raise `ArgumentError` if an index exceeds what `n_atoms` units have."""
        largest = max(unit for support in self.supports for unit in support)
        if largest >= n_atoms:
            raise ArgumentError("supports", f"unit {largest}", f"indices from 0 to {n_atoms - 1}")

    def max_size(self, n_atoms: int) -> int:
        """The size of the largest support listed."""
        return max(len(support) for support in self.supports)

    @property
    def _chances(self) -> Array:
        if self.probabilities is None:
            return np.full(len(self.supports), 1.0 / len(self.supports))
        return np.array(self.probabilities)

    def _member(self, n_atoms: int) -> Array:
        """Whether unit i is in support s, (n_supports, m)."""
        member = np.zeros((len(self.supports), n_atoms), dtype=bool)
        for row, support in zip(member, self.supports, strict=True):
            row[list(support)] = True
        return member

    def draw(self, rng: np.random.Generator, n_samples: int, n_atoms: int) -> Array:
        """Supports, (n_samples, max_size) int64: ascending indices, then -1."""
        table = np.full((len(self.supports), self.max_size(n_atoms)), -1, dtype=np.int64)
        for row, support in zip(table, self.supports, strict=True):
            row[: len(support)] = support
        picked = rng.choice(len(table), size=n_samples, p=self._chances)
        return np.asarray(table[picked])

    def p1(self, n_atoms: int) -> Array:
        """P[i in S], (m,)."""
        return np.asarray(self._chances @ self._member(n_atoms))

    def p2(self, n_atoms: int) -> Array:
        """P[i, j in S], (m, m); the diagonal is P[i in S]."""
        member = self._member(n_atoms).astype(np.float64)
        return np.asarray((member * self._chances[:, None]).T @ member)

    def p3(self, n_atoms: int, i: Any, j: Any, l: Any) -> Array:  # noqa: E741
        """P[i, j, l in S] for indices that broadcast together; they may coincide.

        The work is the number of supports times that of index triples.
        """
        i, j, l = _indices(n_atoms, i, j, l)  # noqa: E741
        member = self._member(n_atoms)
        together = (member[:, i] & member[:, j] & member[:, l]).astype(np.float64)
        return np.asarray(np.tensordot(self._chances, together, axes=1))

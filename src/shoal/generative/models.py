"""Worlds with a known truth: the sparse linear model y = A^T x + noise and its special cases.

One class does the work, :class:`GenerativeModel`: a dictionary, a law of the support, a law of the
non-zeros and a noise level are the whole of the model in Nguyen et al. (2018), section 2.2,
eq. (3) and A1-A4. The four named models differ in their laws alone. Each draws samples and knows
its own moments in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from shoal.generative._checks import Array, as_generator, check_dictionary, check_probabilities
from shoal.generative.dictionaries import coherence, welch_bound
from shoal.generative.laws import (
    BernoulliSupport,
    Constant,
    DiscreteSupport,
    SupportLaw,
    Uniform,
    UniformSupport,
    ValuesLaw,
)
from shoal.vocabulary import ArgumentError, check_choice, check_count, check_number

__all__ = [
    "GenerativeModel",
    "IndependentComponents",
    "MixtureOfGaussians",
    "NonnegativeSparseCoding",
    "Rounding",
    "Sample",
    "SparseCoding",
    "sparsity_from_power",
]


class Sample(NamedTuple):
    """What a model drew, and the truth behind it.

    Examples
    --------
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> world = SparseCoding(random_dictionary(8, 16, random_state=0), sparsity=2)
    >>> drawn = world.sample(5, 0)
    >>> drawn.data.shape, drawn.codes.shape, drawn.supports.shape
    ((5, 16), (5, 8), (5, 2))
    """

    data: Array
    """(N, n): the observations, in the type of the dictionary."""
    codes: Array
    """(N, m): the codes, dense, in the type of the dictionary."""
    supports: Array
    """(N, width), int64: the indices of the active units, ascending; where supports vary in size,
    -1 after the last. The width is k where the size is fixed, and else the largest size possible
    (listed supports) or drawn (independent units)."""


Rounding = Literal["ceil", "floor", "nearest"]
"""How m^p, which is seldom whole, becomes a number of active units."""

_ROUNDINGS: dict[Rounding, Callable[[float], float]] = {
    "ceil": math.ceil,
    "floor": math.floor,
    "nearest": round,
}


def sparsity_from_power(n_atoms: int, power: float, *, rounding: Rounding = "ceil") -> int:
    """The support size k = m^p of Rangamani et al. (2017), section 2, as an integer.

    Parameters
    ----------
    n_atoms : int
        m (their h), at least 1.
    power : float
        p, in [0, 1].
    rounding : {"ceil", "floor", "nearest"}
        What m^p becomes where it isn't whole. "floor" is the paper's "at most h^p non-zero
        elements". What is whole but for rounding errors stays so: 1024^0.4 is
        16.000000000000004 in floating point and gives 16 either way.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ArgumentError
        If `n_atoms` is below 1, `power` outside [0, 1], or `rounding` another word.

    Examples
    --------
    >>> [sparsity_from_power(m, 0.1) for m in (256, 1024, 4096)]
    [2, 2, 3]
    >>> [sparsity_from_power(m, 0.1, rounding="floor") for m in (256, 1024, 4096)]
    [1, 2, 2]
    """
    m = check_count("n_atoms", n_atoms)
    whole = _ROUNDINGS[check_choice("rounding", rounding, _ROUNDINGS)]
    size = m ** check_number("power", power, low=0.0, high=1.0)
    nearest = round(size)
    # arbitrary; far above the rounding of a power, far below any fraction that was meant
    return int(nearest if abs(size - nearest) <= 1e-9 * size else whole(size))


# --- the sampler --------------------------------------------------------------------------


def _draw(model: GenerativeModel, n_samples: int, rng: np.random.Generator) -> Sample:
    dictionary = model.dictionary
    dtype = dictionary.dtype
    m, n = dictionary.shape
    supports = model.support.draw(rng, n_samples, m)  # (N, width), -1 where short
    used = supports >= 0
    sizes = used.sum(axis=1)
    units = supports[used]  # row-major
    values = model.values.draw(rng, len(units)).astype(dtype)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    # A sparse product costs N k n instead of N m n, and each row comes out the same whatever
    # batch it is in, which dense BLAS does not promise.
    sparse = csr_array((values, units, starts), shape=(n_samples, m))
    data = np.asarray(sparse @ dictionary)  # (N, n)
    if model.noise > 0.0:
        noise = rng.standard_normal((n_samples, n), dtype=dtype.type)
        noise *= dtype.type(model.noise)
        data += noise
    return Sample(data, sparse.toarray(), supports)


# --- the model ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class GenerativeModel:
    """The sparse linear model: y = sum over active units of x_i A_i, plus Gaussian noise.

    Parameters
    ----------
    dictionary : array_like of shape (n_atoms, n_features)
        The truth, atoms as rows of unit norm (within 1e-6, or 1e-4 in float32). It is copied;
        float32 stays float32 and makes float32 samples, other types become float64.
    support : SupportLaw
        Which units are active (A1): `UniformSupport`, `BernoulliSupport`, `DiscreteSupport` or
        any object with their methods.
    values : ValuesLaw
        The non-zeros (A2, A3): `Uniform`, `Rademacher`, `Constant`, `Gaussian`, `Custom` or any
        object with their attributes.
    noise : float
        The standard deviation of the noise in each coordinate (A4), at least 0.

    Raises
    ------
    ArgumentError
        If an argument can't be used, or the laws don't fit the dictionary.

    Notes
    -----
    Nguyen et al. (2018), section 2.2, eq. (3), A1-A4. Unit atoms are their convention for all the
    models, since it takes out the ambiguity of scale.

    Examples
    --------
    >>> from shoal.generative import Rademacher, UniformSupport, random_dictionary
    >>> atoms = random_dictionary(16, 8, random_state=0)
    >>> world = GenerativeModel(atoms, UniformSupport(2), Rademacher(), noise=0.1)
    >>> world
    GenerativeModel(m=16, n=8, k=2, noise=0.1)
    >>> sample = world.sample(100, random_state=1)
    >>> sample.data.shape, sample.codes.shape, sample.supports.shape
    ((100, 8), (100, 16), (100, 2))
    """

    dictionary: Array
    support: SupportLaw
    values: ValuesLaw
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Check the parts, and that they fit each other."""
        # The copy stays writable: torch warns at read-only arrays.
        dictionary = check_dictionary(self.dictionary)
        if not isinstance(self.support, SupportLaw):
            needed = "a support law, such as UniformSupport(3)"
            raise ArgumentError("support", repr(self.support), needed)
        if isinstance(self.values, type) or not isinstance(self.values, ValuesLaw):
            raise ArgumentError("values", repr(self.values), "a law, such as Uniform(1.0, 2.0)")
        self.support.check(len(dictionary))
        object.__setattr__(self, "dictionary", dictionary)
        object.__setattr__(self, "noise", check_number("noise", self.noise, low=0.0))

    def __repr__(self) -> str:
        """The name and the sizes."""
        sizes = f"m={self.n_atoms}, n={self.n_features}, k={self.k}, noise={self.noise:g}"
        return f"{type(self).__name__}({sizes})"

    # --- sizes ---

    @property
    def n_atoms(self) -> int:
        """The number of atoms, m."""
        return int(self.dictionary.shape[0])

    @property
    def n_features(self) -> int:
        """The number of features, n."""
        return int(self.dictionary.shape[1])

    @property
    def k(self) -> int:
        """The largest size a support can have (A1); see `expected_k`."""
        return self.support.max_size(self.n_atoms)

    @property
    def expected_k(self) -> float:
        """The expected size of the support, sum p_i."""
        return float(self.p.sum())

    # --- moments of the code ---

    @property
    def kappa1(self) -> float:
        """E[x_i | i active] (A2)."""
        return self.values.kappa1

    @property
    def kappa2(self) -> float:
        """E[x_i^2 | i active] (A2)."""
        return self.values.kappa2

    @property
    def a1(self) -> float:
        """The least magnitude of an active unit (A3)."""
        return self.values.a1

    @property
    def a2(self) -> float:
        """The largest magnitude of an active unit (A3); may be inf."""
        return self.values.a2

    @property
    def p(self) -> Array:
        """P[i in S], (m,) (A1)."""
        return self.support.p1(self.n_atoms)

    @property
    def p_ij(self) -> Array:
        """P[i, j in S], (m, m) (A1); the diagonal is `p`."""
        return self.support.p2(self.n_atoms)

    def p_ijl(self, i: Any, j: Any, l: Any) -> Array:  # noqa: E741
        """P[i, j, l in S] (A1) for index arrays that broadcast together.

        Indices may coincide: p_ijl(i, j, j) is p_ij, and p_ijl(i, i, i) is p_i.

        Parameters
        ----------
        i, j, l : int or array_like of int
            From 0 to m - 1.

        Returns
        -------
        ndarray
            In the shape that the indices broadcast to.

        Raises
        ------
        ArgumentError
            If an index is out of range or the shapes don't broadcast.
        """
        return self.support.p3(self.n_atoms, i, j, l)

    def code_mean(self) -> Array:
        """E[x] = kappa1 p, (m,)."""
        return self.kappa1 * self.p

    def code_second_moment(self) -> Array:
        """E[x x^T], (m, m): kappa1^2 p_ij off the diagonal, kappa2 p_i on it."""
        moment = self.kappa1**2 * self.p_ij
        np.fill_diagonal(moment, self.kappa2 * self.p)
        return moment

    # --- moments of the data ---

    def mean(self) -> Array:
        """E[y], (n,), float64."""
        return self.code_mean() @ self.dictionary.astype(np.float64)

    def second_moment(self) -> Array:
        """E[y y^T] = A^T E[x x^T] A + noise^2 I, (n, n), float64, A the dictionary (m, n)."""
        rows = self.dictionary.astype(np.float64)
        moment = rows.T @ self.code_second_moment() @ rows
        return (moment + moment.T) / 2 + self.noise**2 * np.eye(self.n_features)

    def covariance(self) -> Array:
        """E[y y^T] - E[y] E[y]^T, (n, n), float64."""
        mean = self.mean()
        return self.second_moment() - np.outer(mean, mean)

    @property
    def snr(self) -> float:
        """The ratio of powers E|signal|^2 / E|noise|^2 (not in dB); inf without noise."""
        if self.noise == 0.0:
            return float("inf")
        rows = self.dictionary.astype(np.float64)
        signal = float(np.sum(self.code_second_moment() * (rows @ rows.T)))
        return signal / (self.n_features * self.noise**2)

    # --- draws ---

    def sample(self, n_samples: int, random_state: Any = None) -> Sample:
        """Independent draws.

        Parameters
        ----------
        n_samples : int
            N, at least 1.
        random_state : None, int or numpy.random.Generator
            The seed; the same one gives the same bits. A generator moves on.

        Returns
        -------
        Sample
            `data` (N, n), `codes` (N, m) and `supports` (N, width). The codes are dense: for
            large N m, use `stream`.

        Raises
        ------
        ArgumentError
            If `n_samples` is below 1 or the seed can't be used.
        """
        return _draw(self, check_count("n_samples", n_samples), as_generator(random_state))

    def stream(
        self, batch_size: int, random_state: Any = None, n_batches: int | None = None
    ) -> Iterator[Sample]:
        """Independent batches, one at a time; never more than one in memory.

        Parameters
        ----------
        batch_size : int
            Samples a batch, at least 1.
        random_state : None, int or numpy.random.Generator
            The seed of the whole stream: the batches are those of repeated `sample` calls with
            one generator.
        n_batches : int, optional
            How many batches, at least 0; without end if None.

        Returns
        -------
        iterator of Sample
            Arguments are checked here, before the first batch is asked for.

        Raises
        ------
        ArgumentError
            If an argument can't be used.
        """
        size = check_count("batch_size", batch_size)
        left = None if n_batches is None else check_count("n_batches", n_batches, low=0)
        return self._batches(size, as_generator(random_state), left)

    def _batches(self, size: int, rng: np.random.Generator, left: int | None) -> Iterator[Sample]:
        while left is None or left > 0:
            yield _draw(self, size, rng)
            left = None if left is None else left - 1

    def describe(self) -> dict[str, Any]:
        """The model in plain numbers, fit for JSON.

        Returns
        -------
        dict
            Names, sizes, moments and coherence. What is infinite is None, as JSON has no infinity;
            `p` is the pair of its least and largest value.
        """
        p = self.p
        largest = coherence(self.dictionary)
        return {
            "model": type(self).__name__,
            "n_atoms": self.n_atoms,
            "n_features": self.n_features,
            "k": self.k,
            "expected_k": self.expected_k,
            "support": type(self.support).__name__,
            "values": type(self.values).__name__,
            "kappa1": self.kappa1,
            "kappa2": self.kappa2,
            "a1": self.a1,
            "a2": self.a2 if np.isfinite(self.a2) else None,
            "p": [float(p.min()), float(p.max())],
            "noise": self.noise,
            "snr": self.snr if self.noise > 0.0 else None,
            "coherence": largest,
            "incoherence": float(np.sqrt(self.n_features)) * largest,
            "welch_bound": welch_bound(self.n_atoms, self.n_features),
            "dtype": str(self.dictionary.dtype),
        }


# --- how the named models read their arguments ---------------------------------------------


def _one_of(**options: Any) -> str:
    """The name of the one option that is not None."""
    given = [name for name, value in options.items() if value is not None]
    if len(given) != 1:
        names = ", ".join(options)
        raise ArgumentError(names, " and ".join(given) or "none of them", "exactly one of them")
    return given[0]


def _choose_support(n_atoms: int, sparsity: Any, power: Any, support: Any) -> SupportLaw:
    chosen = _one_of(sparsity=sparsity, power=power, support=support)
    if chosen == "support":
        return support
    if chosen == "power":
        return UniformSupport(sparsity_from_power(n_atoms, power))
    return UniformSupport(check_count("sparsity", sparsity, high=n_atoms))


def _choose_values(values: Any, low: Any, high: Any, *, signed: bool) -> ValuesLaw:
    if low is None and high is None:
        return Uniform(1.0, 2.0, signed) if values is None else values
    if values is not None:
        raise ArgumentError("values", "values and low or high", "values alone, or low and high")
    if low is None or high is None:
        missing = "low" if low is None else "high"
        raise ArgumentError(missing, "None", "a number: low and high go together")
    return Uniform(low, high, signed)


class MixtureOfGaussians(GenerativeModel):
    """A mixture of spherical Gaussians: one atom at a time is the mean.

    Parameters
    ----------
    dictionary : array_like of shape (n_atoms, n_features)
        The means, as rows of unit norm.
    weights : array_like of shape (n_atoms,), optional
        The probability of each component, at least 0 and summing to 1; uniform by default.
    noise : float
        The standard deviation of each component in each coordinate, at least 0.

    Raises
    ------
    ArgumentError
        If an argument can't be used.

    Notes
    -----
    Nguyen et al. (2018), section 2.2: k = 1 and the one non-zero is 1, so kappa1 = kappa2 = a1 =
    a2 = 1.

    Examples
    --------
    >>> from shoal.generative import random_dictionary
    >>> world = MixtureOfGaussians(random_dictionary(10, 784, random_state=0), noise=0.02)
    >>> world.sample(5, random_state=1).codes.sum(axis=1).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, dictionary: Any, *, weights: Any = None, noise: float = 0.0) -> None:
        """Read the arguments as laws."""
        rows = check_dictionary(dictionary)
        support: SupportLaw = UniformSupport(1)
        if weights is not None:
            chances = check_probabilities("weights", weights, len(rows))
            singles = tuple((unit,) for unit in range(len(rows)))
            support = DiscreteSupport(singles, tuple(chances.tolist()))
        super().__init__(rows, support, Constant(1.0), noise)


class SparseCoding(GenerativeModel):
    """Sparse coding: a few atoms at a time, with coefficients of either sign.

    Parameters
    ----------
    dictionary : array_like of shape (n_atoms, n_features)
        Atoms as rows of unit norm.
    sparsity : int, optional
        k, the size of each support, uniform over all of that size; from 1 to m.
    power : float, optional
        Instead of `sparsity`: k = m^power, see :func:`sparsity_from_power`.
    values : ValuesLaw, optional
        The law of the non-zeros; ``Uniform(1.0, 2.0, signed=True)`` by default. A law with
        kappa1 != 0 is accepted, though it leaves the assumptions below.
    low, high : float, optional
        Short for ``values=Uniform(low, high, signed=True)``.
    support : SupportLaw, optional
        Instead of `sparsity`: any law of the support.
    noise : float
        The standard deviation of the noise in each coordinate, at least 0.

    Raises
    ------
    ArgumentError
        If an argument can't be used, unless exactly one of `sparsity`, `power` and `support` is
        given, or if `values` meets `low` or `high`.

    Notes
    -----
    Nguyen et al. (2018), section 2.2. They also standardise to kappa1 = 0 and kappa2 = 1: take
    ``values=Rademacher()`` or ``values=Gaussian(cutoff, standardize=True)``.

    Examples
    --------
    >>> from shoal.generative import random_dictionary
    >>> atoms = random_dictionary(128, 64, random_state=0)
    >>> world = SparseCoding(atoms, sparsity=3, low=1.0, high=2.0)
    >>> sample = world.sample(1000, random_state=1)
    >>> bool(np.allclose(sample.data, sample.codes @ atoms))
    True
    """

    def __init__(
        self,
        dictionary: Any,
        sparsity: int | None = None,
        *,
        power: float | None = None,
        values: ValuesLaw | None = None,
        low: float | None = None,
        high: float | None = None,
        support: SupportLaw | None = None,
        noise: float = 0.0,
    ) -> None:
        """Read the arguments as laws."""
        rows = check_dictionary(dictionary)
        law = _choose_support(len(rows), sparsity, power, support)
        super().__init__(rows, law, _choose_values(values, low, high, signed=True), noise)


class NonnegativeSparseCoding(GenerativeModel):
    """Nonnegative sparse coding: a few atoms at a time, with positive coefficients.

    Parameters
    ----------
    dictionary : array_like of shape (n_atoms, n_features)
        Atoms as rows of unit norm.
    sparsity : int, optional
        k, the size of each support, uniform over all of that size; from 1 to m.
    power : float, optional
        Instead of `sparsity`: k = m^power, see :func:`sparsity_from_power`.
    values : ValuesLaw, optional
        The law of the non-zeros, never negative; ``Uniform(1.0, 2.0)`` by default.
    low, high : float, optional
        Short for ``values=Uniform(low, high)``.
    support : SupportLaw, optional
        Instead of `sparsity`: any law of the support.
    noise : float
        The standard deviation of the noise in each coordinate, at least 0.

    Raises
    ------
    ArgumentError
        If an argument can't be used, if `values` can be negative, unless exactly one of
        `sparsity`, `power` and `support` is given, or if `values` meets `low` or `high`.

    Notes
    -----
    Rangamani et al. (2017), section 2 (their a, b, m_1 and m_2 are a1, a2, kappa1 and kappa2), and
    Nguyen et al. (2018), section 2.2.

    Examples
    --------
    >>> from shoal.generative import random_dictionary
    >>> atoms = random_dictionary(256, 50, random_state=0)
    >>> world = NonnegativeSparseCoding(atoms, power=0.2, low=1.0, high=10.0)
    >>> world.k, world.kappa1, world.kappa2
    (4, 5.5, 37.0)
    """

    def __init__(
        self,
        dictionary: Any,
        sparsity: int | None = None,
        *,
        power: float | None = None,
        values: ValuesLaw | None = None,
        low: float | None = None,
        high: float | None = None,
        support: SupportLaw | None = None,
        noise: float = 0.0,
    ) -> None:
        """Read the arguments as laws."""
        rows = check_dictionary(dictionary)
        law = _choose_support(len(rows), sparsity, power, support)
        chosen = _choose_values(values, low, high, signed=False)
        if getattr(chosen, "signed", False):
            raise ArgumentError("values", repr(chosen), "a law that is never negative")
        super().__init__(rows, law, chosen, noise)


class IndependentComponents(GenerativeModel):
    """Independent components: each unit is active by itself, so the whole code is independent.

    Parameters
    ----------
    dictionary : array_like of shape (n_atoms, n_features)
        Atoms as rows of unit norm.
    probability : float or array_like of shape (n_atoms,), optional
        The probability that a unit is active, in [0, 1] and not 0 for all.
    sparsity : float, optional
        Instead of `probability`: the expected number of active units, in (0, m].
    values : ValuesLaw, optional
        The law of the non-zeros; ``Uniform(1.0, 2.0, signed=True)`` by default.
    low, high : float, optional
        Short for ``values=Uniform(low, high, signed=True)``.
    noise : float
        The standard deviation of the noise in each coordinate, at least 0.

    Raises
    ------
    ArgumentError
        If an argument can't be used, unless exactly one of `probability` and `sparsity` is given,
        or if `values` meets `low` or `high`.

    Notes
    -----
    Nguyen et al. (2018), section 2.2, name ICA among the models of eq. (3) and do not spell it
    out; independence makes p_ij = p_i p_j. The size of the support varies: `k` is m (or as many
    units as have a positive probability), `expected_k` is what was asked for, and short rows of
    `supports` end in -1.

    Examples
    --------
    >>> from shoal.generative import random_dictionary
    >>> world = IndependentComponents(random_dictionary(16, 8, random_state=0), sparsity=2)
    >>> world.expected_k, world.sample(100, random_state=1).codes.shape
    (2.0, (100, 16))
    """

    def __init__(
        self,
        dictionary: Any,
        *,
        probability: Any = None,
        sparsity: float | None = None,
        values: ValuesLaw | None = None,
        low: float | None = None,
        high: float | None = None,
        noise: float = 0.0,
    ) -> None:
        """Read the arguments as laws."""
        rows = check_dictionary(dictionary)
        if _one_of(probability=probability, sparsity=sparsity) == "sparsity":
            high_size = float(len(rows))
            size = check_number("sparsity", sparsity, low=0.0, high=high_size, open_low=True)
            probability = size / len(rows)
        try:
            law = BernoulliSupport(probability)
            law.check(len(rows))
        except ArgumentError as error:
            raise ArgumentError("probability", error.found, error.needed) from None
        super().__init__(rows, law, _choose_values(values, low, high, signed=True), noise)

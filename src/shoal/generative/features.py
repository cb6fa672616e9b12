"""Worlds as they are: features that are unequal, related, many, and not alone in the data.

y = b + sum over active units of x_i A_i + noise, where the supports may follow any law, a forest
may stand above them, each unit may have magnitudes of its own, there is an offset, a share of the
rows is something else altogether and a share of the entries is missing. Each part is a value, may
be left out, and goes with each other. Codes are sparse from beginning to end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtr

from shoal.generative._checks import Array, as_generator, check_dictionary
from shoal.generative.copula import CopulaSupports, realised, walk
from shoal.generative.dictionaries import coherence
from shoal.generative.forests import Forest
from shoal.generative.laws import SupportLaw, Uniform, ValuesLaw
from shoal.vocabulary import ArgumentError, check_count, check_number

__all__ = [
    "FeatureSample",
    "HierarchicalSparseCoding",
    "Outliers",
    "RectifiedGaussian",
    "SparseFeatures",
]

CHUNK = 8192  # arbitrary; rows drawn from one generator: what makes threads' bits the same


class FeatureSample(NamedTuple):
    """What a world drew, and the truth behind it."""

    data: Array
    """(N, n): the observations, in the type of the dictionary; missing entries are NaN."""
    codes: Any
    """(N, F): the codes as `scipy.sparse.csr_array`, in the type of the dictionary; a row that is
    an outlier has none."""
    outliers: Array
    """(N,), boolean: which rows are outliers."""


@dataclass(frozen=True, eq=False)
class RectifiedGaussian:
    """Magnitudes max(0, mu_i + s_i xi), xi a standard normal, with a law for each unit.

    A unit whose value comes out as 0 isn't active.

    Parameters
    ----------
    mean : float or array_like of shape (m,)
        mu, above 0.
    deviation : float or array_like of shape (m,)
        s, at least 0.

    Raises
    ------
    ArgumentError
        If a number can't be used.

    Notes
    -----
    SynthSAEBench, arXiv 2602.14687, section 3.

    Examples
    --------
    >>> law = RectifiedGaussian([5.0, 4.0], 0.5)
    >>> law.means(2).tolist()
    [5.0, 4.0]
    """

    mean: Array
    deviation: Array

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (("mean", "> 0"), ("deviation", ">= 0")):
            needed = f"finite numbers {least}: one, or one a unit"
            try:
                values = np.array(getattr(self, name), dtype=np.float64)
            except (TypeError, ValueError):
                raise ArgumentError(
                    name, f"a {type(getattr(self, name)).__name__}", needed
                ) from None
            if values.ndim > 1 or values.size == 0:
                raise ArgumentError(name, f"shape {values.shape}", needed)
            fine = (values > 0 if name == "mean" else values >= 0) & np.isfinite(values)
            if not fine.all():
                raise ArgumentError(name, f"{values[~fine].flat[0]:g}", needed)
            object.__setattr__(self, name, values)

    def check(self, n_atoms: int) -> None:
        """Raise `ArgumentError` unless each is one number or `n_atoms` of them."""
        for name in ("mean", "deviation"):
            shape = getattr(self, name).shape
            if shape not in ((), (n_atoms,)):
                raise ArgumentError(name, f"shape {shape}", f"one number, or {n_atoms}: one a unit")

    def means(self, n_atoms: int) -> Array:
        """mu, (m,): what a forest takes a parent's value relative to."""
        return np.broadcast_to(self.mean, (n_atoms,)).copy()

    def alive(self, n_atoms: int) -> Array:
        """The chance that a value isn't 0, Phi(mu / s), (m,)."""
        mean, spread = np.broadcast_to(self.mean, n_atoms), np.broadcast_to(self.deviation, n_atoms)
        ratio = np.divide(mean, spread, out=np.full(n_atoms, np.inf), where=spread > 0)
        return np.asarray(ndtr(ratio))

    def draw_units(self, rng: np.random.Generator, units: Array) -> Array:
        """A value above 0 for each of these units: the law given that it isn't 0."""
        mean = self.mean[units] if self.mean.ndim else self.mean
        spread = self.deviation[units] if self.deviation.ndim else self.deviation
        mean, spread = (np.broadcast_to(each, units.shape) for each in (mean, spread))
        values = mean + spread * rng.standard_normal(len(units))
        again = np.flatnonzero(values <= 0.0)
        while len(again):
            values[again] = mean[again] + spread[again] * rng.standard_normal(len(again))
            again = again[values[again] <= 0.0]
        return np.asarray(values)


@dataclass(frozen=True)
class Outliers:
    """Rows that no atom explains: heavy-tailed in every coordinate, in place of a share of rows.

    Parameters
    ----------
    share : float
        The chance that a row is one, in [0, 1).
    degrees : float
        Of freedom, of the Student t law of each coordinate: above 0; below 2 it has no variance.
    scale : float
        What the t variable is multiplied by, above 0.

    Raises
    ------
    ArgumentError
        If a number can't be used.

    Examples
    --------
    >>> Outliers(0.05, degrees=1.5).share
    0.05
    """

    share: float
    degrees: float = 2.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        share = check_number("share", self.share, low=0.0)
        if share >= 1.0:
            raise ArgumentError("share", f"{share:g}", "a number from 0 to less than 1")
        object.__setattr__(self, "share", share)
        for name in ("degrees", "scale"):
            number = check_number(name, getattr(self, name), low=0.0, open_low=True)
            object.__setattr__(self, name, number)

    def draw(self, rng: np.random.Generator, n_samples: int, n_features: int) -> Array:
        """Rows, (n_samples, n_features)."""
        return self.scale * rng.standard_t(self.degrees, (n_samples, n_features))


class _Plain:
    """A law of values that is the same for all units, as one by unit."""

    def __init__(self, law: ValuesLaw) -> None:
        self.law = law

    def check(self, n_atoms: int) -> None:
        """Nothing to fit."""

    def means(self, n_atoms: int) -> Array:
        return np.full(n_atoms, self.law.kappa1)

    def alive(self, n_atoms: int) -> Array:
        return np.ones(n_atoms)

    def draw_units(self, rng: np.random.Generator, units: Array) -> Array:
        return self.law.draw(rng, len(units))


@dataclass(frozen=True, eq=False, repr=False)
class SparseFeatures:
    """Any of the laws of this room together: supports, a forest, magnitudes, an offset, and faults.

    Parameters
    ----------
    dictionary : array_like of shape (F, n)
        The truth, atoms as rows of unit norm; float32 stays float32 and makes float32 samples.
    support : SupportLaw
        Which units fire: :class:`CopulaSupports`, :class:`BernoulliSupport` or any other.
    values : RectifiedGaussian or ValuesLaw
        The values of those that fire.
    forest : Forest, optional
        Which units are silent without which others.
    offset : array_like of shape (n,), optional
        Added to every row that isn't an outlier.
    noise : float
        The standard deviation of Gaussian noise in each coordinate.
    outliers : Outliers, optional
        Rows that are something else.
    missing : float
        The chance that an entry of the data is NaN, each by itself, in [0, 1).

    Raises
    ------
    ArgumentError
        If an argument can't be used, or two don't fit each other.

    Examples
    --------
    >>> from shoal.generative import BernoulliSupport, Uniform, random_dictionary
    >>> atoms = random_dictionary(16, 8, random_state=0)
    >>> world = SparseFeatures(atoms, BernoulliSupport(0.2), Uniform(1.0, 2.0), missing=0.1)
    >>> sample = world.sample(1000, random_state=1)
    >>> sample.data.shape, sample.codes.shape, bool(np.isnan(sample.data).any())
    ((1000, 8), (1000, 16), True)
    """

    dictionary: Array
    support: SupportLaw
    values: Any
    forest: Forest | None = None
    offset: Array | None = None
    noise: float = 0.0
    outliers: Outliers | None = None
    missing: float = 0.0

    def __post_init__(self) -> None:
        """Check the parts, and that they fit each other."""
        rows = check_dictionary(self.dictionary)
        m = len(rows)
        if not isinstance(self.support, SupportLaw):
            needed = "a support law, such as CopulaSupports(frequency)"
            raise ArgumentError("support", repr(self.support), needed)
        self.support.check(m)
        by_unit = self.values if hasattr(self.values, "draw_units") else None
        if by_unit is None:
            if isinstance(self.values, type) or not isinstance(self.values, ValuesLaw):
                needed = "a law, such as Uniform(1.0, 2.0) or RectifiedGaussian(5.0, 0.5)"
                raise ArgumentError("values", repr(self.values), needed)
            by_unit = _Plain(self.values)
        by_unit.check(m)
        if self.forest is not None:
            if not isinstance(self.forest, Forest):
                raise ArgumentError("forest", repr(self.forest), "a Forest, or None")
            if len(self.forest) != m:
                raise ArgumentError("forest", f"{len(self.forest)} units", f"{m}: one an atom")
            if self.forest.scaled and not (by_unit.means(m) > 0).all():
                needed = "a law with a mean above 0, which values are scaled by, or scaled=False"
                raise ArgumentError("values", repr(self.values), needed)
        if self.outliers is not None and not isinstance(self.outliers, Outliers):
            raise ArgumentError("outliers", repr(self.outliers), "Outliers(share), or None")
        missing = check_number("missing", self.missing, low=0.0)
        if missing >= 1.0:
            raise ArgumentError("missing", f"{missing:g}", "a number from 0 to less than 1")
        object.__setattr__(self, "dictionary", rows)
        object.__setattr__(self, "offset", _offset(self.offset, rows))
        object.__setattr__(self, "noise", check_number("noise", self.noise, low=0.0))
        object.__setattr__(self, "missing", missing)
        object.__setattr__(self, "_by_unit", by_unit)

    def __repr__(self) -> str:
        """The name and the sizes."""
        sizes = f"F={self.n_atoms}, n={self.n_features}, support={type(self.support).__name__}"
        return f"{type(self).__name__}({sizes})"

    @property
    def n_atoms(self) -> int:
        """The number of features, F."""
        return int(self.dictionary.shape[0])

    @property
    def n_features(self) -> int:
        """The dimension of the data, n."""
        return int(self.dictionary.shape[1])

    @cached_property
    def frequency(self) -> Array:
        """How often each unit is active in a row that isn't an outlier, (F,).

        Exact without a forest, and for supports that are independent; else the children's are
        averages over points of the copula's factors (below half a percent off). For a law of the
        support that is neither, with a forest, averaged over 100 000 draws.
        """
        alive = self._alive
        if isinstance(self.support, CopulaSupports):
            points = 1 << 14 if self.n_atoms * (1 << 14) <= 1 << 26 else 1 << 12
            return realised(self.support, self.forest, alive, points)
        if self.forest is None:
            return self.support.p1(self.n_atoms) * alive
        units, _ = self._draw_supports(np.random.default_rng(0), 100_000)
        return np.bincount(units, minlength=self.n_atoms) / 100_000

    @property
    def expected_k(self) -> float:
        """The expected number of active units of a row that isn't an outlier."""
        return float(self.frequency.sum())

    @property
    def _alive(self) -> Array:
        return np.asarray(self._by_unit.alive(self.n_atoms))  # type: ignore[attr-defined]

    def sample(
        self, n_samples: int, random_state: Any = None, *, device: Any = None
    ) -> FeatureSample:
        """Independent draws.

        Parameters
        ----------
        n_samples : int
            N, at least 1.
        random_state : None, int or numpy.random.Generator
            The seed; the same one gives the same bits on any number of threads. A generator moves
            on.
        device : str or torch.device, optional
            Where torch draws instead, for a copula and magnitudes of rectified normals: `data` is
            then a float32 tensor there, and the bits are others. Codes are CSR as ever.

        Returns
        -------
        FeatureSample
            `data` (N, n), `codes` (N, F) as CSR, and which rows are `outliers`.

        Raises
        ------
        ArgumentError
            If `n_samples` is below 1 or the seed can't be used.
        """
        count = check_count("n_samples", n_samples)
        rng = as_generator(random_state)
        return self._sample(count, rng) if device is None else self._sample_on(count, rng, device)

    def stream(
        self, batch_size: int, random_state: Any = None, n_batches: int | None = None
    ) -> Iterator[FeatureSample]:
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

        Raises
        ------
        ArgumentError
            If an argument can't be used.
        """
        size = check_count("batch_size", batch_size)
        left = None if n_batches is None else check_count("n_batches", n_batches, low=0)
        return self._batches(size, as_generator(random_state), left)

    def _batches(
        self, size: int, rng: np.random.Generator, left: int | None
    ) -> Iterator[FeatureSample]:
        while left is None or left > 0:
            yield self._sample(size, rng)
            left = None if left is None else left - 1

    def _sample(self, n_samples: int, rng: np.random.Generator) -> FeatureSample:
        starts = range(0, n_samples, CHUNK)
        seeds = rng.integers(2**63, size=(len(starts), 4))
        data = np.empty((n_samples, self.n_features), self.dictionary.dtype)
        outlying = np.zeros(n_samples, dtype=bool)

        def fill(number: int) -> Any:
            rows = slice(starts[number], min(starts[number] + CHUNK, n_samples))
            own = np.random.default_rng(seeds[number])
            return self._fill(own, data[rows], outlying[rows])

        parts = [fill(0)]  # the first one compiles
        if len(starts) > 1:
            with ThreadPoolExecutor(_threads()) as pool:
                parts += pool.map(fill, range(1, len(starts)))
        values, units, sizes = (np.concatenate(each) for each in zip(*parts, strict=True))
        ends = np.concatenate([[0], np.cumsum(sizes)])
        kind = np.int32 if ends[-1] < 2**31 else np.int64
        shape = (n_samples, self.n_atoms)
        codes = csr_array((values, units.astype(kind, copy=False), ends.astype(kind)), shape=shape)
        return FeatureSample(data, codes, outlying)

    def _sample_on(self, n_samples: int, rng: np.random.Generator, device: Any) -> FeatureSample:
        import torch

        from shoal.generative.on_device import sample_on

        seed = int(rng.integers(2**63))
        data, codes = sample_on(self, n_samples, device, seed)
        draw: Any = {"generator": torch.Generator(device).manual_seed(seed ^ 1), "device": device}
        if self.offset is not None:
            data += torch.from_numpy(self.offset.astype(np.float32)).to(device)
        if self.noise > 0.0:
            data.add_(torch.randn(data.shape, **draw), alpha=self.noise)
        outlying = np.zeros(n_samples, dtype=bool)
        if self.outliers is not None:
            outlying = rng.random(n_samples) < self.outliers.share
            rows = self.outliers.draw(rng, int(outlying.sum()), self.n_features)
            data[torch.from_numpy(outlying).to(device)] = torch.from_numpy(rows).to(data)
            codes.data[np.repeat(outlying, np.diff(codes.indptr))] = 0
            codes.eliminate_zeros()
        if self.missing > 0.0:
            data[torch.rand(data.shape, **draw) < self.missing] = float("nan")
        return FeatureSample(data, codes, outlying)

    def _fill(self, rng: np.random.Generator, data: Array, outlying: Array) -> tuple[Any, ...]:
        """Draw the rows of `data`; the values, units and sizes of their codes."""
        units, starts = self._draw_supports(rng, len(data))
        values = self._draw_values(rng, units, starts)
        if self.outliers is not None:
            outlying[:] = rng.random(len(data)) < self.outliers.share
            sizes = np.diff(starts)
            kept = ~np.repeat(outlying, sizes)
            units, values = units[kept], values[kept]
            starts = np.concatenate([[0], np.cumsum(np.where(outlying, 0, sizes))])
        values = values.astype(self.dictionary.dtype)
        codes = csr_array((values, units, starts), shape=(len(data), self.n_atoms))
        data[:] = codes @ self.dictionary
        if self.offset is not None:
            data += self.offset
        if self.noise > 0.0:
            noise = rng.standard_normal(data.shape, dtype=data.dtype.type)
            data += noise * data.dtype.type(self.noise)
        if self.outliers is not None and outlying.any():
            data[outlying] = self.outliers.draw(rng, int(outlying.sum()), data.shape[1])
        if self.missing > 0.0:
            data[rng.random(data.shape, dtype=np.float32) < self.missing] = np.nan
        return values, units, np.diff(starts)

    def _draw_supports(self, rng: np.random.Generator, n_samples: int) -> tuple[Array, Array]:
        """Active units, one row after the other, and where each row begins."""
        alive = self._alive
        if isinstance(self.support, CopulaSupports):
            return walk(self.support, self.forest, alive, rng, n_samples)
        supports = self.support.draw(rng, n_samples, self.n_atoms)
        used = supports >= 0
        if (alive < 1.0).any():
            used &= rng.random(supports.shape) < alive[supports]
        return _through_forest(rng, self.forest, supports[used], used.sum(axis=1))

    def _draw_values(self, rng: np.random.Generator, units: Array, starts: Array) -> Array:
        values = np.asarray(self._by_unit.draw_units(rng, units))  # type: ignore[attr-defined]
        if self.forest is not None and self.forest.scaled:
            from shoal.generative._walk import scale_by_parents

            forest, means = self.forest, self._by_unit.means(self.n_atoms)  # type: ignore[attr-defined]
            scale_by_parents(values, units, starts, forest.depth, forest.parent, means)
        return values

    def describe(self) -> dict[str, Any]:
        """The world in plain numbers, fit for JSON."""
        frequency = self.frequency
        return {
            "model": type(self).__name__,
            "n_atoms": self.n_atoms,
            "n_features": self.n_features,
            "expected_k": self.expected_k,
            "frequency": [float(frequency.min()), float(frequency.max())],
            "support": type(self.support).__name__,
            "values": type(self.values).__name__,
            "children": 0 if self.forest is None else int(np.sum(self.forest.parent >= 0)),
            "offset": 0.0 if self.offset is None else float(np.linalg.norm(self.offset)),
            "noise": self.noise,
            "outliers": 0.0 if self.outliers is None else self.outliers.share,
            "missing": self.missing,
            "coherence": coherence(self.dictionary),
            "dtype": str(self.dictionary.dtype),
        }


class HierarchicalSparseCoding(SparseFeatures):
    """Non-negative sparse coding with families: a child is active only where its parent is.

    Parameters
    ----------
    dictionary : array_like of shape (F, n)
        Atoms as rows of unit norm.
    frequency : array_like of shape (F,)
        How often each unit is to be active; see :func:`zipf`.
    forest : Forest
        Which unit is below which, whether siblings exclude each other, and whether values are
        scaled by the parent's or passed as they are.
    compensate : bool
        Whether units fire by themselves more often, so that the forest leaves about `frequency`
        (:meth:`Forest.compensated`); else `frequency` is how often they fire before it.
    factor : array_like of shape (F, rank), optional
        Correlation; see :class:`CopulaSupports`.
    values : RectifiedGaussian or ValuesLaw, optional
        ``Uniform(1.0, 2.0)`` by default.
    offset, noise, outliers, missing
        As for :class:`SparseFeatures`.

    Raises
    ------
    ArgumentError
        If an argument can't be used, two don't fit each other, or, with `compensate`, a child is
        more frequent than its parent.

    Examples
    --------
    >>> from shoal.generative import random_dictionary
    >>> forest = Forest.regular(8, roots=2, children=2, depth=1)
    >>> atoms = random_dictionary(8, 6, random_state=0)
    >>> world = HierarchicalSparseCoding(atoms, [0.4] * 2 + [0.1] * 6, forest)
    >>> codes = world.sample(1000, random_state=0).codes.toarray()
    >>> bool((codes[codes[:, 2] > 0, 0] > 0).all())  # unit 2 is a child of unit 0
    True
    """

    def __init__(
        self,
        dictionary: Any,
        frequency: Any,
        forest: Forest,
        *,
        compensate: bool = True,
        factor: Any = None,
        values: Any = None,
        offset: Any = None,
        noise: float = 0.0,
        outliers: Outliers | None = None,
        missing: float = 0.0,
    ) -> None:
        """Read the arguments as laws."""
        if not isinstance(forest, Forest):
            raise ArgumentError("forest", repr(forest), "a Forest")
        wanted = CopulaSupports(frequency, factor)
        if len(wanted.frequency) != len(forest):
            needed = f"{len(forest)}: one a unit of the forest"
            raise ArgumentError("frequency", f"{len(wanted.frequency)} of them", needed)
        fires = forest.compensated(wanted.frequency) if compensate else wanted.frequency
        law = Uniform(1.0, 2.0) if values is None else values
        supports = CopulaSupports(fires, wanted.factor)
        super().__init__(dictionary, supports, law, forest, offset, noise, outliers, missing)


# --- helpers ------------------------------------------------------------------------------


def _through_forest(
    rng: np.random.Generator, forest: Forest | None, units: Array, sizes: Array
) -> tuple[Array, Array]:
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    units = units.astype(np.int32)
    if forest is None:
        return units, starts
    from shoal.generative._walk import exclude

    tables = forest._tables
    state = rng.integers(2**64, size=1, dtype=np.uint64)
    kept = exclude(state, units, starts, tables.depth, forest.parent, tables.exclusive)
    ends = np.concatenate([[0], np.cumsum(kept)])
    return units[kept], ends[starts]


def _offset(offset: Any, rows: Array) -> Array | None:
    if offset is None:
        return None
    needed = f"{rows.shape[1]} finite numbers: one a feature"
    try:
        given = np.array(offset, dtype=rows.dtype)
    except (TypeError, ValueError):
        raise ArgumentError("offset", f"a {type(offset).__name__}", needed) from None
    if given.shape != (rows.shape[1],):
        raise ArgumentError("offset", f"shape {given.shape}", needed)
    if not np.isfinite(given).all():
        raise ArgumentError("offset", "NaN or infinity", needed)
    return given


def _threads() -> int:
    """As many as there are processors, or as the environment says of all numerical threads."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdigit() and int(told) > 0:
        return int(told)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1

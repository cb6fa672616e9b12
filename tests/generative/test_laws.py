"""Laws of the code: stated moments against quadrature, enumeration and draws."""

from __future__ import annotations

import dataclasses
import pickle
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from scipy import integrate, stats

from shoal.generative import (
    BernoulliSupport,
    Constant,
    Custom,
    DiscreteSupport,
    Gaussian,
    Rademacher,
    SupportLaw,
    Uniform,
    UniformSupport,
    ValuesLaw,
)
from shoal.vocabulary import ArgumentError

INF = float("inf")


def two_points(rng, size):
    return np.where(rng.random(size) < 0.25, 1.0, 3.0)


VALUES = [
    Uniform(1.0, 2.0),
    Uniform(0.0, 3.0, signed=True),
    Uniform(2.0, 2.0),
    Rademacher(),
    Constant(),
    Constant(-0.5),
    Gaussian(0.0),
    Gaussian(1.5, signed=False),
    Gaussian(0.7, standardize=True),
    Gaussian(50.0, standardize=True, signed=False),
    Custom(two_points, 2.5, 7.0, 1.0, 3.0, signed=False),
]
SUPPORTS = [
    (UniformSupport(1), 1),
    (UniformSupport(1), 4),
    (UniformSupport(2), 5),
    (UniformSupport(5), 5),
    (BernoulliSupport(0.3), 4),
    (BernoulliSupport(1.0), 3),
    (BernoulliSupport([0.9, 0.0, 0.2, 1.0]), 4),
    (DiscreteSupport([(0, 1), (2,), (), (3, 1, 0)], [0.1, 0.2, 0.3, 0.4]), 5),
    (DiscreteSupport([[0, 1], [1, 2], [2, 0]]), 3),
]


# --- values ---


@pytest.mark.parametrize("law", VALUES, ids=lambda law: f"{type(law).__name__}")
def test_values_follow_their_statement(law):
    assert isinstance(law, ValuesLaw)
    n = 200_000
    values = law.draw(np.random.default_rng(0), (n // 2, 2))
    assert values.shape == (n // 2, 2)
    assert values.dtype == np.float64
    assert np.all(values != 0)
    values = values.ravel()
    magnitudes = np.abs(values)
    assert law.a1 * (1 - 1e-12) <= magnitudes.min()
    assert magnitudes.max() <= law.a2
    assert bool((values < 0).any()) == law.signed
    for draws, moment in ((values, law.kappa1), (values**2, law.kappa2)):
        assert abs(draws.mean() - moment) <= 5 * draws.std() / np.sqrt(n) + 1e-12
    # neighbours are uncorrelated (A2)
    if values.std() > 0:
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 5 / np.sqrt(n)
    again = law.draw(np.random.default_rng(0), (n // 2, 2))
    np.testing.assert_array_equal(values, again.ravel())


@pytest.mark.parametrize("cutoff", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("standardize", [False, True])
def test_gaussian_moments_by_quadrature(cutoff, standardize):
    mass = integrate.quad(stats.norm.pdf, cutoff, 40)[0]
    first = integrate.quad(lambda x: x * stats.norm.pdf(x), cutoff, 40)[0] / mass
    second = integrate.quad(lambda x: x**2 * stats.norm.pdf(x), cutoff, 40)[0] / mass
    scale = np.sqrt(second) if standardize else 1.0
    law = Gaussian(cutoff, standardize, signed=False)
    assert law.kappa1 == pytest.approx(first / scale, rel=1e-7)
    assert law.kappa2 == pytest.approx(second / scale**2, rel=1e-7)
    assert law.a1 == pytest.approx(cutoff / scale, rel=1e-7)
    assert law.a2 == INF
    assert Gaussian(cutoff, standardize).kappa1 == 0.0


def test_gaussian_draws_by_kolmogorov_smirnov():
    draws = Gaussian(1.0).draw(np.random.default_rng(1), 50_000)

    def cdf(x):
        tail = stats.norm.sf(np.maximum(np.abs(x), 1.0)) / stats.norm.sf(1.0) / 2
        return np.where(x < 0, tail, 1 - tail)

    assert stats.kstest(draws, cdf).pvalue > 1e-4


def test_gaussian_far_tail():
    # Where Q(c) underflows, |x| - c is close to exponential with rate c.
    law = Gaussian(100.0, signed=False)
    excess = (law.draw(np.random.default_rng(0), 50_000) - 100.0) * 100.0
    assert np.isfinite(excess).all()
    assert stats.kstest(excess, stats.expon.cdf).pvalue > 1e-4
    assert law.kappa1 == pytest.approx(100.01, abs=1e-4)


def test_uniform_draws_by_kolmogorov_smirnov():
    draws = Uniform(1.0, 3.0).draw(np.random.default_rng(2), 50_000)
    assert stats.kstest(draws, stats.uniform(1, 2).cdf).pvalue > 1e-4


def test_nguyen_standardisation():
    for law in (Rademacher(), Gaussian(0.8, standardize=True)):
        assert law.kappa1 == 0.0
        assert law.kappa2 == 1.0
        assert 0 < law.a1 <= 1


def test_custom_is_checked_on_draws():
    rng = np.random.default_rng(0)
    cases = [
        (lambda rng, size: np.full(size, 4.0), {}),
        (lambda rng, size: np.full(size, 0.5), {}),
        (lambda rng, size: np.full(size, -2.0), {"signed": False}),
        (lambda rng, size: np.full(size, np.nan), {}),
        (lambda rng, size: np.zeros(size), {"a1": 0.0}),
        (lambda rng, size: np.ones(3), {}),
    ]
    for sampler, change in cases:
        law = Custom(**{"sampler": sampler, "kappa1": 2, "kappa2": 5, "a1": 1, "a2": 3} | change)
        with pytest.raises(ArgumentError, match="sampler"):
            law.draw(rng, 10)


def test_custom_moments_can_be_tested():
    right = Custom(two_points, 2.5, 7.0, 1.0, 3.0)
    right.check()
    Custom(lambda rng, size: np.full(size, 2.0), 2.0, 4.0, 2.0, 2.0).check(10)
    with pytest.raises(ArgumentError, match="kappa1"):
        dataclasses.replace(right, kappa1=2.45).check()
    with pytest.raises(ArgumentError, match="kappa2"):
        dataclasses.replace(right, kappa2=7.1).check()


# --- supports ---


def enumerate_supports(law, m):
    """Every support with its probability, from the definition of the law."""
    if isinstance(law, UniformSupport):
        subsets = list(combinations(range(m), law.k))
        return {subset: 1 / len(subsets) for subset in subsets}
    if isinstance(law, DiscreteSupport):
        chances = law.probabilities or [1 / len(law.supports)] * len(law.supports)
        return {
            tuple(sorted(support)): chance
            for support, chance in zip(law.supports, chances, strict=True)
        }
    p = np.broadcast_to(law.p, m)
    table = {}
    for bits in product([False, True], repeat=m):
        chance = float(np.prod(np.where(bits, p, 1 - p)))
        if chance > 0:
            table[tuple(np.flatnonzero(bits).tolist())] = chance
    return table


@pytest.mark.parametrize(("law", "m"), SUPPORTS, ids=repr)
def test_support_moments_by_enumeration(law, m):
    assert isinstance(law, SupportLaw)
    law.check(m)
    table = enumerate_supports(law, m)
    assert sum(table.values()) == pytest.approx(1)
    single, double, triple = np.zeros(m), np.zeros((m, m)), np.zeros((m, m, m))
    for support, chance in table.items():
        inside = np.isin(np.arange(m), support).astype(float)
        single += chance * inside
        double += chance * np.einsum("i,j->ij", inside, inside)
        triple += chance * np.einsum("i,j,l->ijl", inside, inside, inside)
    np.testing.assert_allclose(law.p1(m), single, atol=1e-15)
    np.testing.assert_allclose(law.p2(m), double, atol=1e-15)
    i, j, l = np.ogrid[:m, :m, :m]  # noqa: E741
    np.testing.assert_allclose(law.p3(m, i, j, l), triple, atol=1e-15)
    assert law.p3(m, 0, m - 1, 0) == pytest.approx(triple[0, m - 1, 0])
    assert law.max_size(m) == max(map(len, table))


@pytest.mark.parametrize(("law", "m"), SUPPORTS, ids=repr)
def test_support_draws_follow_the_law(law, m):
    n = 20_000
    supports = law.draw(np.random.default_rng(5), n, m)
    assert supports.shape[0] == n
    assert supports.dtype == np.int64
    seen = Counter()
    for row in supports.tolist():
        units = [unit for unit in row if unit >= 0]
        assert row == units + [-1] * (len(row) - len(units))
        assert units == sorted(set(units))
        seen[tuple(units)] += 1
    table = enumerate_supports(law, m)
    assert set(seen) <= set(table)
    observed = np.array([seen[support] for support in table])
    expected = n * np.array(list(table.values()))
    if len(table) > 1:
        assert stats.chisquare(observed, expected * n / expected.sum()).pvalue > 1e-4
    np.testing.assert_array_equal(supports, law.draw(np.random.default_rng(5), n, m))


def test_uniform_support_across_chunks_and_sizes():
    # 2^21 atoms leave two samples a chunk.
    for n, m, k in [(5, 2**21, 3), (3000, 2000, 8), (7, 50, 50), (40, 50, 49)]:
        supports = UniformSupport(k).draw(np.random.default_rng(0), n, m)
        assert supports.shape == (n, k)
        assert np.all(np.diff(supports, axis=1) > 0)
        assert supports.min() >= 0
        assert supports.max() < m
    counts = np.bincount(supports.ravel(), minlength=m)
    assert counts.sum() == 40 * 49


def test_uniform_support_frequencies_in_large():
    n, m, k = 20_000, 1024, 8
    counts = np.bincount(UniformSupport(k).draw(np.random.default_rng(0), n, m).ravel())
    z = (counts - n * k / m) / np.sqrt(n * k / m * (1 - k / m))
    assert len(counts) == m
    assert np.abs(z).max() < 6


def test_bernoulli_support_can_be_empty():
    supports = BernoulliSupport(1e-12).draw(np.random.default_rng(0), 50, 4)
    np.testing.assert_array_equal(supports, np.full((50, 1), -1))


def test_bernoulli_support_rows_are_independent():
    # The walk crosses rows; consecutive samples must not know of each other.
    n, m, p = 40_000, 3, 0.4
    supports = BernoulliSupport(p).draw(np.random.default_rng(0), n, m)
    last = (supports == m - 1).any(axis=1)
    first = (supports == 0).any(axis=1)
    together = np.mean(last[:-1] & first[1:])
    assert abs(together - p**2) < 5 * np.sqrt(p**2 * (1 - p**2) / n)


def test_probabilities_are_normalised_exactly():
    law = DiscreteSupport([(0,), (1,), (2,)], np.full(3, 1 / 3 + 1e-7))
    assert law.p1(3).sum() == pytest.approx(1, abs=1e-15)


# --- values of laws ---


def test_laws_are_immutable_values():
    assert Uniform(1, 2) == Uniform(1.0, 2.0)
    assert hash(BernoulliSupport(np.array([0.1, 0.2]))) == hash(BernoulliSupport([0.1, 0.2]))
    assert DiscreteSupport([[1, 0]]) == DiscreteSupport(((0, 1),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Uniform(1, 2).low = 0.5
    for law in (*VALUES, *[law for law, _ in SUPPORTS]):
        assert pickle.loads(pickle.dumps(law)) == law


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("low", lambda: Uniform(-1, 2)),
        ("low", lambda: Uniform(3, 2)),
        ("low", lambda: Uniform(float("nan"), 2)),
        ("high", lambda: Uniform(0, 0)),
        ("high", lambda: Uniform(1, INF)),
        ("value", lambda: Constant(0)),
        ("value", lambda: Constant("one")),
        ("cutoff", lambda: Gaussian(-0.1)),
        ("cutoff", lambda: Gaussian(INF)),
        ("sampler", lambda: Custom(3, 1, 1, 1, 1)),
        ("a1", lambda: Custom(two_points, 1, 1, -1, 1)),
        ("a2", lambda: Custom(two_points, 1, 1, 1, 0.5)),
        ("a2", lambda: Custom(two_points, 1, 1, 1, float("nan"))),
        ("kappa2", lambda: Custom(two_points, 2, 10, 1, 3)),
        ("kappa2", lambda: Custom(two_points, 0, 0.5, 1, 3)),
        ("kappa1", lambda: Custom(two_points, 2.5, 5, 1, 3)),
        ("kappa1", lambda: Custom(two_points, -2, 5, 1, 3, signed=False)),
        ("n_samples", lambda: Custom(two_points, 2.5, 7, 1, 3).check(1)),
        ("k", lambda: UniformSupport(0)),
        ("k", lambda: UniformSupport(1.5)),
        ("k", lambda: UniformSupport(4).check(3)),
        ("p", lambda: BernoulliSupport(1.1)),
        ("p", lambda: BernoulliSupport([0.5, -0.1])),
        ("p", lambda: BernoulliSupport([0.0, 0.0])),
        ("p", lambda: BernoulliSupport(float("nan"))),
        ("p", lambda: BernoulliSupport([])),
        ("p", lambda: BernoulliSupport("often")),
        ("p", lambda: BernoulliSupport([0.5, 0.5]).check(3)),
        ("supports", lambda: DiscreteSupport(3)),
        ("supports", lambda: DiscreteSupport([])),
        ("supports", lambda: DiscreteSupport([()])),
        ("supports", lambda: DiscreteSupport([(0, 0)])),
        ("supports", lambda: DiscreteSupport([(-1,)])),
        ("supports", lambda: DiscreteSupport([(0.5,)])),
        ("supports", lambda: DiscreteSupport([(0, 3)]).check(3)),
        ("probabilities", lambda: DiscreteSupport([(0,), (1,)], [0.5, 0.6])),
        ("probabilities", lambda: DiscreteSupport([(0,), (1,)], [1.5, -0.5])),
        ("probabilities", lambda: DiscreteSupport([(0,), (1,)], [1.0])),
        ("probabilities", lambda: DiscreteSupport([(0,), (1,)], [np.nan, 1.0])),
        ("probabilities", lambda: DiscreteSupport([(0,), (1,)], "ab")),
        ("i", lambda: UniformSupport(2).p3(4, -1, 0, 1)),
        ("j", lambda: UniformSupport(2).p3(4, 0, [0, 4], 1)),
        ("l", lambda: BernoulliSupport(0.5).p3(4, 0, 1, 0.5)),
        ("i, j, l", lambda: DiscreteSupport([(0,)]).p3(4, [0, 1], [0, 1, 2], 0)),
    ],
)
def test_errors_name_the_argument(argument, call):
    with pytest.raises(ArgumentError) as caught:
        call()
    assert caught.value.argument == argument
    assert "\n" not in str(caught.value)

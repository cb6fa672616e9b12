"""Models: closed-form moments against enumeration and draws, streams, types and errors."""

from __future__ import annotations

import json
import pickle
from itertools import islice, product

import numpy as np
import pytest

from shoal.generative import (
    BernoulliSupport,
    Constant,
    Custom,
    DiscreteSupport,
    Gaussian,
    GenerativeModel,
    IndependentComponents,
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    Rademacher,
    SparseCoding,
    Uniform,
    UniformSupport,
    coherence,
    random_dictionary,
    sparsity_from_power,
)
from shoal.vocabulary import ArgumentError, active

ATOMS = random_dictionary(5, 3, random_state=0)
POINTS = {1.0: 0.25, -3.0: 0.75}  # a law with two values: kappa1 = -2, kappa2 = 7


def two_points(rng, size):
    return np.where(rng.random(size) < 0.25, 1.0, -3.0)


LISTED = DiscreteSupport([(0, 1), (2,), (), (4, 1, 0)], [0.1, 0.2, 0.3, 0.4])
TWO_POINTS = Custom(two_points, -2.0, 7.0, 1.0, 3.0)
WORLDS = {
    "mixture": MixtureOfGaussians(ATOMS, noise=0.1),
    "weighted": MixtureOfGaussians(ATOMS, weights=[0.1, 0.2, 0.3, 0.4, 0.0], noise=0.2),
    "sparse": SparseCoding(ATOMS, 2, noise=0.1),
    "rademacher": SparseCoding(ATOMS, 3, values=Rademacher()),
    "gaussian": SparseCoding(ATOMS, 2, values=Gaussian(0.5, standardize=True)),
    "nonnegative": NonnegativeSparseCoding(ATOMS, 2, low=1.0, high=3.0, noise=0.3),
    "full": NonnegativeSparseCoding(ATOMS, 5),
    "listed": SparseCoding(ATOMS, support=LISTED, values=TWO_POINTS, noise=0.1),
    "independent": IndependentComponents(ATOMS, sparsity=1.5, noise=0.1),
    "unequal": IndependentComponents(
        ATOMS, probability=[0.1, 0.9, 0.5, 1.0, 0.0], values=TWO_POINTS
    ),
    "generic": GenerativeModel(ATOMS, UniformSupport(2), Constant(-1.0), 0.05),
}
worlds = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS.keys())


# --- samples ---


@worlds
def test_sample_is_the_model(world):
    sample = world.sample(500, random_state=1)
    n_atoms, n_features = ATOMS.shape
    assert sample.data.shape == (500, n_features)
    assert sample.codes.shape == (500, n_atoms)
    assert sample.data.dtype == sample.codes.dtype == np.float64
    # the support is where the code is not 0
    inside = np.zeros((500, n_atoms + 1), dtype=bool)
    np.put_along_axis(inside, np.where(sample.supports < 0, n_atoms, sample.supports), True, axis=1)
    np.testing.assert_array_equal(inside[:, :-1], active(sample.codes))
    magnitudes = np.abs(sample.codes[active(sample.codes)])
    assert world.a1 * (1 - 1e-12) <= magnitudes.min()
    assert magnitudes.max() <= world.a2
    assert active(sample.codes).sum(axis=1).max() <= world.k
    residual = sample.data - sample.codes @ ATOMS
    if world.noise == 0:
        np.testing.assert_allclose(residual, 0, atol=1e-13)
    else:
        assert residual.std() == pytest.approx(world.noise, rel=5 / np.sqrt(2 * residual.size))


@worlds
def test_same_seed_same_bits(world):
    first, second = world.sample(50, random_state=7), world.sample(50, random_state=7)
    third = world.sample(50, random_state=np.random.default_rng(7))
    for left, right, generator in zip(first, second, third, strict=True):
        np.testing.assert_array_equal(left, right)
        np.testing.assert_array_equal(left, generator)
    assert not np.array_equal(first.codes, world.sample(50, random_state=8).codes)


@worlds
def test_stream_is_repeated_samples(world):
    rng = np.random.default_rng(3)
    batches = list(world.stream(20, random_state=3, n_batches=4))
    assert len(batches) == 4
    for batch in batches:
        for streamed, sampled in zip(batch, world.sample(20, rng), strict=True):
            np.testing.assert_array_equal(streamed, sampled)
    assert not np.array_equal(batches[0].data, batches[1].data)
    endless = world.stream(20, random_state=3)
    for batch, again in zip(batches, islice(endless, 4), strict=True):
        np.testing.assert_array_equal(batch.data, again.data)
    assert next(endless).data.shape == (20, 3)


def test_stream_checks_before_the_first_batch():
    world = WORLDS["sparse"]
    for argument, call in [
        ("batch_size", lambda: world.stream(0)),
        ("n_batches", lambda: world.stream(5, n_batches=-1)),
        ("random_state", lambda: world.stream(5, random_state="x")),
        ("n_samples", lambda: world.sample(0)),
        ("n_samples", lambda: world.sample(2.5)),
    ]:
        with pytest.raises(ArgumentError) as caught:
            call()
        assert caught.value.argument == argument
    assert list(world.stream(5, n_batches=0)) == []


def test_float32():
    atoms = random_dictionary(40, 20, random_state=0, dtype=np.float32)
    world = SparseCoding(atoms, 3, noise=0.1)
    sample = world.sample(4000, random_state=1)
    assert sample.data.dtype == sample.codes.dtype == world.dictionary.dtype == np.float32
    assert world.mean().dtype == world.second_moment().dtype == np.float64
    residual = sample.data - sample.codes @ atoms
    assert residual.std() == pytest.approx(0.1, rel=0.02)
    assert world.describe()["dtype"] == "float32"
    double = SparseCoding(atoms.astype(np.float64), 3, noise=0.1)
    same = double.sample(4000, random_state=1)
    np.testing.assert_array_equal(sample.supports, same.supports)
    np.testing.assert_allclose(sample.codes, same.codes, rtol=1e-6)


def test_dictionary_is_copied():
    atoms = np.asfortranarray(ATOMS.copy())
    world = MixtureOfGaussians(atoms)
    atoms[:] = 0
    np.testing.assert_array_equal(world.dictionary, ATOMS)
    np.testing.assert_array_equal(MixtureOfGaussians(ATOMS.tolist()).dictionary, ATOMS)
    assert MixtureOfGaussians(np.eye(3, dtype=int)).dictionary.dtype == np.float64


def test_empty_supports_give_pure_noise():
    world = IndependentComponents(ATOMS, probability=1e-12, noise=1.0)
    sample = world.sample(10, random_state=0)
    assert not sample.codes.any()
    assert (sample.supports == -1).all()
    assert sample.data.all()


# --- moments ---


def supports_of(world):
    """Every support of a small world with its probability."""
    m = world.n_atoms
    table = []
    for bits in product([False, True], repeat=m):
        inside = np.array(bits)
        law = world.support
        if isinstance(law, UniformSupport):
            size = inside.sum()
            n_same = sum(sum(other) == law.k for other in product([0, 1], repeat=m))
            chance = (size == law.k) / n_same
        elif isinstance(law, BernoulliSupport):
            p = np.broadcast_to(law.p, m)
            chance = np.prod(np.where(inside, p, 1 - p))
        else:
            units = tuple(np.flatnonzero(inside).tolist())
            chance = dict(zip(law.supports, law.probabilities, strict=True)).get(units, 0.0)
        table.append((np.flatnonzero(inside), float(chance)))
    return table


@pytest.mark.parametrize(
    "support",
    [UniformSupport(1), UniformSupport(3), BernoulliSupport([0.1, 0.9, 0.5, 1.0, 0.3]), LISTED],
    ids=repr,
)
def test_moments_by_exhaustive_enumeration(support):
    world = GenerativeModel(ATOMS, support, TWO_POINTS, noise=0.3)
    m, n = ATOMS.shape
    total, mean, second = 0.0, np.zeros(n), np.zeros((n, n))
    code_mean, code_second = np.zeros(m), np.zeros((m, m))
    for units, chance in supports_of(world):
        for values in product(POINTS, repeat=len(units)):
            weight = chance * np.prod([POINTS[value] for value in values])
            code = np.zeros(m)
            code[units] = values
            y = code @ ATOMS
            total += weight
            code_mean += weight * code
            code_second += weight * np.outer(code, code)
            mean += weight * y
            second += weight * np.outer(y, y)
    assert total == pytest.approx(1)
    np.testing.assert_allclose(world.code_mean(), code_mean, atol=1e-12)
    np.testing.assert_allclose(world.code_second_moment(), code_second, atol=1e-12)
    np.testing.assert_allclose(world.mean(), mean, atol=1e-12)
    np.testing.assert_allclose(world.second_moment(), second + 0.09 * np.eye(n), atol=1e-12)
    covariance = second - np.outer(mean, mean) + 0.09 * np.eye(n)
    np.testing.assert_allclose(world.covariance(), covariance, atol=1e-12)
    assert world.snr == pytest.approx(np.trace(second) / (n * 0.09))


@worlds
def test_moments_by_draws(world):
    n_samples = 100_000
    sample = world.sample(n_samples, random_state=11)
    y, x = sample.data, sample.codes

    def check(draws, expected):
        error = draws.std(axis=0) / np.sqrt(n_samples)
        assert np.all(np.abs(draws.mean(axis=0) - expected) <= 5 * error + 1e-12)

    check(y, world.mean())
    check(np.einsum("ia,ib->iab", y, y), world.second_moment())
    check(x, world.code_mean())
    inside = active(x).astype(float)
    check(inside, world.p)
    check(np.einsum("ia,ib->iab", inside, inside), world.p_ij)
    check(inside[:, 0] * inside[:, 1] * inside[:, 3], world.p_ijl(0, 1, 3))
    check(inside.sum(axis=1), world.expected_k)
    values = x[active(x)]
    for draws, moment in ((values, world.kappa1), (values**2, world.kappa2)):
        assert abs(draws.mean() - moment) <= 5 * draws.std() / np.sqrt(len(draws)) + 1e-12
    scatter = np.cov(y.T)
    assert np.abs(scatter - world.covariance()).max() < 0.05 * np.abs(scatter).max() + 0.02


@worlds
def test_moments_agree_with_each_other(world):
    i, j, l = np.ogrid[:5, :5, :5]  # noqa: E741
    triple = world.p_ijl(i, j, l)
    np.testing.assert_allclose(np.einsum("iii->i", triple), world.p)
    np.testing.assert_allclose(np.einsum("ijj->ij", triple), world.p_ij)
    np.testing.assert_array_equal(np.diag(world.p_ij), world.p)
    assert np.linalg.eigvalsh(world.covariance()).min() > world.noise**2 - 1e-12
    if world.noise:
        power = np.trace(world.second_moment()) / (world.n_features * world.noise**2)
        assert world.snr == pytest.approx(power - 1)
    else:
        assert world.snr == float("inf")


def test_the_four_models_are_what_the_papers_say():
    mixture = WORLDS["mixture"]
    assert (mixture.kappa1, mixture.kappa2, mixture.a1, mixture.a2) == (1, 1, 1, 1)
    assert mixture.k == 1
    np.testing.assert_allclose(mixture.p, 1 / 5)
    np.testing.assert_allclose(WORLDS["weighted"].p, [0.1, 0.2, 0.3, 0.4, 0.0], atol=1e-15)
    default = SparseCoding(ATOMS, 2)
    assert default.values == Uniform(1.0, 2.0, signed=True)
    assert default.kappa1 == 0
    assert NonnegativeSparseCoding(ATOMS, 2).values == Uniform(1.0, 2.0)
    independent = WORLDS["independent"]
    assert independent.expected_k == pytest.approx(1.5)
    assert independent.k == 5
    assert WORLDS["unequal"].k == 4
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(independent.p_ij[off], 0.3**2)
    # independent codes are uncorrelated
    unequal = WORLDS["unequal"]
    centred = unequal.code_second_moment() - np.outer(unequal.code_mean(), unequal.code_mean())
    np.testing.assert_allclose(centred[off], 0, atol=1e-14)


def test_sparsity_from_power():
    # Which powers come out a little above depends on the C library; these do in glibc.
    assert sparsity_from_power(1024, 0.4) == 16  # 16.000000000000004
    assert sparsity_from_power(1024, 0.9) == 512  # 512.0000000000001
    assert sparsity_from_power(3125, 0.2) == 5  # 5.000000000000001
    assert sparsity_from_power(1024, 0.1) == 2
    assert sparsity_from_power(1000, 1 / 3) == 10  # 9.999999999999998
    assert sparsity_from_power(256, 0.05) == 2  # 1.32
    assert sparsity_from_power(2048, 0.3) == 10  # 9.85
    assert sparsity_from_power(4096, 0.5) == 64
    assert sparsity_from_power(7, 0) == 1
    assert sparsity_from_power(7, 1) == 7
    assert NonnegativeSparseCoding(random_dictionary(64, 8, 0), power=0.5).k == 8


@worlds
def test_describe_is_json(world):
    described = world.describe()
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert described["model"] == type(world).__name__
    assert described["k"] == world.k
    assert described["coherence"] == coherence(ATOMS)
    assert described["p"] == [world.p.min(), world.p.max()]
    assert (described["snr"] is None) == (world.noise == 0)
    assert (described["a2"] is None) == np.isinf(world.a2)


def test_worlds_pickle_and_print():
    world = WORLDS["sparse"]
    again = pickle.loads(pickle.dumps(world))
    assert repr(again) == repr(world) == "SparseCoding(m=5, n=3, k=2, noise=0.1)"
    np.testing.assert_array_equal(again.sample(5, 0).data, world.sample(5, 0).data)
    with pytest.raises(AttributeError):
        world.noise = 3.0


# --- errors ---

LINE = np.array([1.0, 0.0])
NAN = np.array([[1.0, np.nan]])


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        *[
            ("dictionary", lambda build=build, bad=bad: build(bad))
            for build in (
                MixtureOfGaussians,
                lambda atoms: SparseCoding(atoms, 1),
                lambda atoms: NonnegativeSparseCoding(atoms, 1),
                lambda atoms: IndependentComponents(atoms, sparsity=1),
                lambda atoms: GenerativeModel(atoms, UniformSupport(1), Rademacher()),
            )
            for bad in (
                LINE,
                NAN,
                np.full((2, 2), np.inf),
                np.zeros((0, 2)),
                1.00001 * np.eye(2),
                None,
            )
        ],
        ("sparsity", lambda: SparseCoding(ATOMS, 6)),
        ("sparsity", lambda: SparseCoding(ATOMS, 0)),
        ("sparsity", lambda: NonnegativeSparseCoding(ATOMS, 1.5)),
        ("sparsity", lambda: IndependentComponents(ATOMS, sparsity=5.5)),
        ("sparsity", lambda: IndependentComponents(ATOMS, sparsity=0)),
        ("power", lambda: SparseCoding(ATOMS, power=1.1)),
        ("power", lambda: SparseCoding(ATOMS, power=-0.1)),
        ("sparsity, power, support", lambda: SparseCoding(ATOMS)),
        ("sparsity, power, support", lambda: SparseCoding(ATOMS, 2, power=0.5)),
        ("sparsity, power, support", lambda: NonnegativeSparseCoding(ATOMS, 2, support=LISTED)),
        ("probability, sparsity", lambda: IndependentComponents(ATOMS)),
        ("probability, sparsity", lambda: IndependentComponents(ATOMS, probability=1, sparsity=1)),
        ("probability", lambda: IndependentComponents(ATOMS, probability=1.5)),
        ("probability", lambda: IndependentComponents(ATOMS, probability=[0.5, 0.5])),
        ("support", lambda: SparseCoding(ATOMS, support=3)),
        ("supports", lambda: SparseCoding(ATOMS, support=DiscreteSupport([(7,)]))),
        ("k", lambda: SparseCoding(ATOMS, support=UniformSupport(9))),
        ("values", lambda: SparseCoding(ATOMS, 2, values=3.0)),
        ("values", lambda: SparseCoding(ATOMS, 2, values=Rademacher)),
        ("values", lambda: SparseCoding(ATOMS, 2, values=Rademacher(), low=1.0)),
        ("values", lambda: NonnegativeSparseCoding(ATOMS, 2, values=Rademacher())),
        ("values", lambda: NonnegativeSparseCoding(ATOMS, 2, values=Constant(-1))),
        ("values", lambda: NonnegativeSparseCoding(ATOMS, 2, values=TWO_POINTS)),
        ("low", lambda: SparseCoding(ATOMS, 2, low=2.0, high=1.0)),
        ("low", lambda: NonnegativeSparseCoding(ATOMS, 2, low=-1.0, high=1.0)),
        ("low", lambda: SparseCoding(ATOMS, 2, high=1.0)),
        ("high", lambda: SparseCoding(ATOMS, 2, low=1.0)),
        ("high", lambda: SparseCoding(ATOMS, 2, low=1.0, high=float("inf"))),
        ("noise", lambda: MixtureOfGaussians(ATOMS, noise=-0.1)),
        ("noise", lambda: SparseCoding(ATOMS, 2, noise=float("nan"))),
        ("noise", lambda: IndependentComponents(ATOMS, sparsity=2, noise="loud")),
        ("weights", lambda: MixtureOfGaussians(ATOMS, weights=[0.5, 0.5])),
        ("weights", lambda: MixtureOfGaussians(ATOMS, weights=[0.3] * 5)),
        ("weights", lambda: MixtureOfGaussians(ATOMS, weights=[-1, 2, 0, 0, 0])),
        ("weights", lambda: MixtureOfGaussians(ATOMS, weights=[np.nan, 1, 0, 0, 0])),
        ("weights", lambda: MixtureOfGaussians(ATOMS, weights=[np.inf, 0, 0, 0, 0])),
        ("n_atoms", lambda: sparsity_from_power(0, 0.5)),
        ("i", lambda: WORLDS["sparse"].p_ijl(5, 0, 0)),
    ],
)
def test_errors_name_the_argument(argument, call):
    with pytest.raises(ArgumentError) as caught:
        call()
    assert caught.value.argument == argument
    assert "\n" not in str(caught.value)


def test_unit_tolerance_depends_on_the_type():
    slightly = 1.00001 * np.eye(2)
    MixtureOfGaussians(slightly.astype(np.float32))
    with pytest.raises(ArgumentError, match=r"norm 1\.00001 in row 0"):
        MixtureOfGaussians(slightly)

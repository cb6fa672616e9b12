import numpy as np
import pytest
from sklearn.decomposition import PCA

from shoal.generative import (
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    Rademacher,
    SparseCoding,
    random_dictionary,
)
from shoal.training import initialize
from shoal.training.initialization import INITIALIZERS, rows_wanted
from shoal.vocabulary import ArgumentError


def rng(seed=0):
    return np.random.default_rng(seed)


NAMES = list(INITIALIZERS)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def sample(n_samples=30, n=6, dtype=np.float64):
    return rng(1).standard_normal((n_samples, n)).astype(dtype)


@pytest.mark.parametrize("init", NAMES)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_samples", [1, 7, 8, 30])
def test_unit_rows_and_the_same_seed_the_same_bits(init, n_samples, dtype, order):
    data = np.asarray(sample(n_samples, dtype=dtype), order=order)
    before = data.copy()
    found = initialize(init, data, 8, rng(2))
    assert found.shape == (8, 6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(found, initialize(init, data, 8, rng(2)))
    assert (found != initialize(init, data, 8, rng(3))).any()
    np.testing.assert_array_equal(data, before)


def test_from_data_takes_different_rows():
    data = sample(8)
    found = initialize("data", data, 8, rng(2))
    cosines = found @ (data / np.linalg.norm(data, axis=1, keepdims=True)).T
    hits = np.isclose(cosines, 1.0)
    assert (hits.sum(axis=0) == 1).all()  # each row of the data once
    assert (hits.sum(axis=1) == 1).all()
    fewer = initialize("data", data[:3], 8, rng(2))
    cosines = fewer @ (data[:3] / np.linalg.norm(data[:3], axis=1, keepdims=True)).T
    assert np.isclose(cosines, 1.0).sum() == 3  # and the other five are random


@pytest.mark.parametrize("init", NAMES)
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e15])  # what the estimator lets through
@pytest.mark.parametrize("kind", ["zeros", "constant", "half zeros", "one feature", "one row"])
def test_poor_data_still_give_directions(init, kind, scale):
    data = {
        "zeros": np.zeros((20, 6)),
        "constant": np.full((20, 6), 0.1),
        "half zeros": sample(20) * (np.arange(20) % 2)[:, None],
        "one feature": sample(20, n=1),
        "one row": sample(1),
    }[kind]
    found = initialize(init, (data * scale).astype(np.float32), 8, rng(2))
    assert found.shape == (8, data.shape[1])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("init", NAMES)
def test_the_unit_of_the_data_is_no_matter(init):
    data = sample(500)
    start = initialize(init, data, 8, rng(2))
    scaled = initialize(init, data * 2.0**-30, 8, rng(2))
    np.testing.assert_allclose(scaled, start, atol=1e-12)


def test_rows_of_zeros_become_directions():
    data = sample(8)
    data[::2] = 0.0
    found = initialize("data", data, 8, rng(2))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-14)
    assert np.linalg.matrix_rank(found) == 6


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("weights", [None, [0.18] * 5 + [0.02] * 5])
def test_from_residuals_meets_every_cluster_first(seed, weights):
    means = random_dictionary(10, 784, random_state=seed)
    world = MixtureOfGaussians(means, noise=0.02, weights=weights)
    data = world.sample(1500, random_state=seed).data
    cosines = initialize("residual", data, 10, rng(100 + seed)) @ means.T
    assert (cosines.max(axis=0) > 0.7).all()  # a row and its mean are at .87


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_from_residuals_takes_a_direction_once(dtype):
    directions = unit(sample(12, n=20))
    lengths = rng(3).uniform(0.1, 10.0, 600) * rng(4).choice([-1, 1], 600)
    data = (np.tile(directions, (50, 1)) * lengths[:, None]).astype(dtype)
    found = initialize("residual", data, 12, rng(5))
    hits = np.abs(found @ directions.T) > 1 - 1e-5
    assert (hits.sum(axis=0) == 1).all()  # twelve directions in as many atoms
    more = initialize("residual", data, 16, rng(5))
    hits = np.abs(more @ directions.T) > 1 - 1e-5
    assert (hits.sum(axis=0) == 1).all()  # and the other four are random


@pytest.mark.parametrize("n_samples", [300, 5])
def test_from_principal_leads_with_scikit_learns_components(n_samples):
    data = sample(n_samples) * 2.0 ** np.arange(6) + 100.0  # far from centred
    n_real = min(6, n_samples - 1)
    found = initialize("pca", data, 8, rng(2))
    expected = PCA(svd_solver="full").fit(data).components_[:n_real]
    signs = np.sign((found[:n_real] * expected).sum(axis=1))
    np.testing.assert_allclose(signs[:, None] * found[:n_real], expected, atol=1e-9)
    rest = np.isclose(found[n_real:] @ unit(data).T, 1.0, atol=1e-14).sum(axis=1)
    assert (rest >= 1).all()  # rows of the data
    fewer = initialize("pca", data, 3, rng(2))
    np.testing.assert_allclose(fewer, found[:3], atol=1e-12)


def test_from_pairs_falls_back_to_rows():
    data = np.tile(sample(1), (50, 1))  # centred, nothing is left
    np.testing.assert_allclose(initialize("pairwise", data, 4, rng(2)), unit(data[:4]), atol=1e-15)


def share_found(found, truth, *, signed=False):
    cosines = found @ truth.T
    return ((cosines if signed else np.abs(cosines)).max(axis=0) > 0.9).mean()


@pytest.mark.parametrize("seed", range(3))
def test_from_pairs_finds_atoms(seed):
    world = SparseCoding(random_dictionary(64, 64, random_state=seed), sparsity=2, low=1, high=2)
    data = world.sample(4000, random_state=seed).data
    assert share_found(initialize("pairwise", data, 64, rng(9 + seed)), world.dictionary) > 0.9
    assert share_found(initialize("data", data, 64, rng(9 + seed)), world.dictionary) < 0.1


def test_from_pairs_needs_no_high_dimension():
    # Without the Gaussian part taken off, about half of the atoms.
    world = SparseCoding(random_dictionary(128, 64, random_state=0), sparsity=3, low=1, high=2)
    data = world.sample(10_000, random_state=0).data
    assert share_found(initialize("pairwise", data, 128, rng(9)), world.dictionary) > 0.85


def test_from_pairs_gives_non_negative_codes_their_sign():
    atoms = random_dictionary(64, 64, random_state=0)
    world = NonnegativeSparseCoding(atoms, sparsity=3, low=1, high=2)
    data = world.sample(5000, random_state=0).data
    found = initialize("pairwise", data, 64, rng(9))
    assert share_found(found, atoms, signed=True) > 0.85


def test_from_pairs_takes_an_atom_once_and_fills_with_rows():
    atoms = np.eye(12, 20)
    data = SparseCoding(atoms, sparsity=2, low=1, high=2).sample(3000, random_state=0).data
    found = initialize("pairwise", data, 20, rng(9))
    assert ((np.abs(found @ atoms.T) > 0.9).sum(axis=0) == 1).all()
    assert np.isclose(found @ unit(data).T, 1.0, atol=1e-14).any(axis=1).sum() == 8


def test_from_pairs_takes_no_direction_without_a_gap():
    # Most pairs share two or three atoms; the middle of three is at .58 to each of them.
    atoms = np.eye(20, 30)
    data = SparseCoding(atoms, sparsity=3, values=Rademacher()).sample(6000, random_state=0).data
    found = initialize("pairwise", data, 28, rng(9))
    is_row = np.isclose(found @ unit(data).T, 1.0, atol=1e-14).any(axis=1)
    cosines = np.abs(found[~is_row] @ atoms.T).max(axis=1)
    assert len(cosines) > 8
    assert (cosines > 0.65).all()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_a_warm_start_is_a_copy(order, dtype):
    given = np.array([[3, 4, 0], [0, 0, -2]], dtype=dtype, order=order)
    before = given.copy()
    found = initialize(given, sample(n=3), 2, rng())
    np.testing.assert_allclose(found, [[0.6, 0.8, 0.0], [0.0, 0.0, -1.0]])
    np.testing.assert_array_equal(given, before)
    assert not np.shares_memory(found, given)
    already = np.asarray(np.eye(2, 3), order=order)
    assert not np.shares_memory(initialize(already, sample(n=3), 2, rng()), already)


@pytest.mark.parametrize(
    "init",
    [
        "svd",
        np.ones((3, 6)),
        np.ones((4, 5)),
        np.ones((6, 4)),
        np.ones(24),
        np.zeros((4, 6)),
        np.eye(4, 6) * [[1], [1], [0], [1]],
        np.full((4, 6), np.nan),
        np.full((4, 6), np.inf),
    ],
)
def test_errors_name_init(init):
    with pytest.raises(ArgumentError, match=r"^init: ") as error:
        initialize(init, sample(), 4, rng())
    assert error.value.argument == "init"


@pytest.mark.parametrize(("init", "rows"), [("data", 640), ("pairwise", 20_000), ("pca", 20_000)])
def test_moments_are_taken_from_more_rows(init, rows):
    assert rows_wanted(init, 64) == rows
    assert rows_wanted(np.eye(4), 64) == 640
    assert rows_wanted(init, 5000) == 50_000

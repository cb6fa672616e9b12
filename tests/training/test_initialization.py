import numpy as np
import pytest

from shoal.training import initialize
from shoal.vocabulary import ArgumentError


def rng(seed=0):
    return np.random.default_rng(seed)


def sample(n_samples=30, n=6, dtype=np.float64):
    return rng(1).standard_normal((n_samples, n)).astype(dtype)


@pytest.mark.parametrize("init", ["data", "random"])
@pytest.mark.parametrize("n_samples", [1, 7, 8, 30])
def test_unit_rows_and_the_same_seed_the_same_bits(init, n_samples):
    data = sample(n_samples)
    before = data.copy()
    found = initialize(init, data, 8, rng(2))
    assert found.shape == (8, 6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-14)
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


def test_rows_of_zeros_become_directions():
    data = sample(8)
    data[::2] = 0.0
    found = initialize("data", data, 8, rng(2))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-14)
    assert np.linalg.matrix_rank(found) == 6


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
        "pca",
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

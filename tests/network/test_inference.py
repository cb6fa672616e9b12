import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import orthogonal_mp

from shoal.generative import NonnegativeSparseCoding, SparseCoding, orthonormal_union
from shoal.network.activations import HardThreshold, ReLU, Sigmoid, TopK
from shoal.network.inference import (
    SparseCodes,
    fast_encode,
    fast_sparse_encode,
    least_squares,
    orthogonal_matching_pursuit,
    sparse_codes,
)
from shoal.vocabulary import Parameters, active


def unit_rows(seed, m, n, dtype=torch.float64):
    rows = np.random.default_rng(seed).standard_normal((m, n))
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)).to(dtype)


def gaussian(seed, *shape, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def no_unit_twice(codes):
    ordered = codes.indices.sort(dim=1).values
    return bool((ordered[:, 1:] > ordered[:, :-1]).all())


# --- sparse codes ----------------------------------------------------------------------------


def test_sparse_codes_there_and_back():
    codes = torch.tensor([[0.0, -3.0, 0.0, 1.0], [0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    for k in (2, 3, 4, 9):
        found = sparse_codes(codes, k)
        assert found.indices.shape == found.values.shape == (3, min(k, 4))
        assert no_unit_twice(found)
        assert torch.equal(found.dense(4), codes)
        dictionary = unit_rows(0, 4, 3, torch.float32)
        torch.testing.assert_close(found.reconstruct(dictionary), codes @ dictionary)


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.4, 1.0])
def test_sparse_codes_are_as_wide_as_the_fullest_row(fraction):
    rng = np.random.default_rng(0)
    codes = gaussian(1, 30, 11) * torch.from_numpy(rng.random((30, 11)) < fraction)
    before = codes.clone()
    found = sparse_codes(codes)
    most = int(active(codes).sum(dim=1).max())
    assert found.indices.shape == found.values.shape == (30, max(1, most))
    assert found.indices.dtype == torch.int64
    assert torch.equal(found.dense(11), codes)
    assert torch.equal(codes, before)
    for row in range(30):  # units ascend, ahead of the padding
        units = codes[row].nonzero()[:, 0]
        assert torch.equal(found.indices[row, : len(units)], units)
        assert not active(found.values[row, len(units) :]).any()


def test_sparse_codes_keep_what_is_not_finite():
    codes = torch.tensor([[torch.nan, 0.0, 0.0], [0.0, -torch.inf, 1.0], [0.0, 0.0, 2.0]])
    found = sparse_codes(codes)
    assert torch.equal(found.dense(3).nan_to_num(7.0), codes.nan_to_num(7.0))
    assert active(found.values).sum() == 4


@pytest.mark.parametrize("activation", [TopK(3), ReLU(), HardThreshold(0.9), Sigmoid()], ids=repr)
def test_sparse_encoding_is_the_encoding(activation):
    parameters = Parameters(unit_rows(2, 12, 8), gaussian(3, 12))
    data = gaussian(4, 20, 8)
    found = fast_sparse_encode(parameters, data, activation)
    torch.testing.assert_close(found.dense(12), fast_encode(parameters, data, activation))


def assert_canonical(codes):
    assert isinstance(codes, sparse.csr_array)
    assert codes.indices.dtype == codes.indptr.dtype == np.int32
    assert active(codes.data).all()
    # Asked of a new array: the flags are kept once they are known.
    again = sparse.csr_array((codes.data, codes.indices, codes.indptr), codes.shape)
    assert again.has_canonical_format


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_csr_by_hand(dtype):
    # Units out of order; zeros at any place, at units that are listed too; an empty row.
    units = torch.tensor([[4, 0, 2], [3, 3, 0], [1, 1, 1], [0, 2, 4]])
    values = torch.tensor([[1.0, -2, 3], [0, 5, 0], [0, 0, -0.0], [7, 8, 9]], dtype=dtype)
    codes = SparseCodes(units, values).to_csr(6)
    assert_canonical(codes)
    assert codes.shape == (4, 6)
    assert codes.dtype == values.numpy().dtype
    assert codes.indptr.tolist() == [0, 3, 4, 4, 7]
    assert codes.indices.tolist() == [0, 2, 4, 3, 0, 2, 4]
    assert codes.data.tolist() == [-2, 3, 1, 5, 7, 8, 9]


@pytest.mark.parametrize("k", [1, 4, 30])
def test_csr_of_a_pursuit_is_its_dense_codes(k):
    found = orthogonal_matching_pursuit(unit_rows(5, 30, 12), gaussian(6, 40, 12), k)
    units, values = found.indices.clone(), found.values.clone()
    codes = found.to_csr(30)
    assert_canonical(codes)
    np.testing.assert_array_equal(codes.toarray(), found.dense(30))
    assert torch.equal(found.indices, units)
    assert torch.equal(found.values, values)


def test_csr_of_nothing_active():
    codes = sparse_codes(torch.zeros(3, 5)).to_csr(5)
    assert_canonical(codes)
    assert codes.shape == (3, 5)
    assert codes.nnz == 0


# --- orthogonal matching pursuit -------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 4), signed=st.booleans())
def test_pursuit_recovers_planted_codes_exactly(seed, k, signed):
    # Coherence 1/8: Tropp's condition k < (1 + 1/mu) / 2 = 4.5 guarantees it.
    dictionary = orthonormal_union(128, 64)
    model = SparseCoding if signed else NonnegativeSparseCoding
    sample = model(dictionary, k, low=1.0, high=2.0).sample(50, random_state=seed)
    found = orthogonal_matching_pursuit(
        torch.from_numpy(dictionary), torch.from_numpy(sample.data), k, signed=signed
    )
    assert torch.equal(found.indices.sort(dim=1).values, torch.from_numpy(sample.supports))
    np.testing.assert_allclose(found.dense(128), sample.codes, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_pursuit_leaves_a_residual_orthogonal_to_its_atoms(k):
    dictionary, data = unit_rows(1, 30, 12), gaussian(2, 40, 12)
    found = orthogonal_matching_pursuit(dictionary, data, k)
    residual = data - found.reconstruct(dictionary)
    inside = torch.einsum("bkn,bn->bk", dictionary[found.indices], residual)
    assert inside.abs().max() < 1e-12
    assert no_unit_twice(found)
    assert active(found.values).all()


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_pursuit_equals_scikit_learn(k):
    dictionary, data = unit_rows(3, 40, 16), gaussian(4, 60, 16)
    expected = orthogonal_mp(dictionary.numpy().T, data.numpy().T, n_nonzero_coefs=k).T
    found = orthogonal_matching_pursuit(dictionary, data, k)
    np.testing.assert_allclose(found.dense(40), expected, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pursuit_of_as_many_atoms_as_features_explains_everything(dtype):
    dictionary, data = unit_rows(5, 20, 6, dtype), gaussian(6, 15, 6, dtype=dtype)
    for k in (6, 7, 50):
        found = orthogonal_matching_pursuit(dictionary, data, k)
        assert found.indices.shape == (15, 6)
        assert found.values.dtype == dtype
        residual = data - found.reconstruct(dictionary)
        assert residual.abs().max() < 1e4 * torch.finfo(dtype).eps


def test_pursuit_of_more_atoms_than_there_are():
    dictionary, data = unit_rows(7, 3, 6), gaussian(8, 15, 6)
    found = orthogonal_matching_pursuit(dictionary, data, 5)
    expected = np.linalg.lstsq(dictionary.numpy().T, data.numpy().T)[0].T
    np.testing.assert_allclose(found.dense(3), expected, atol=1e-12)
    one = orthogonal_matching_pursuit(dictionary[:1], data[:1], 1)
    np.testing.assert_allclose(one.values, data[:1] @ dictionary[:1].T)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_explained_by_fewer_atoms_have_zeros(dtype, signed):
    dictionary = unit_rows(9, 64, 32, dtype)
    rng = np.random.default_rng(10)
    sizes = torch.from_numpy(rng.integers(0, 3, 300))
    units = torch.from_numpy(rng.permuted(np.tile(np.arange(64), (300, 1)), axis=1)[:, :2].copy())
    values = torch.from_numpy(rng.uniform(1, 2, (300, 2))).to(dtype)
    values *= torch.arange(2) < sizes[:, None]
    planted = SparseCodes(units, values)
    data = planted.reconstruct(dictionary)
    found = orthogonal_matching_pursuit(dictionary, data, 6, signed=signed)
    assert no_unit_twice(found)
    assert found.values.isfinite().all()
    # Greed may err on the first atom, and then needs more; a single atom is always found.
    right = sizes < 2
    assert torch.equal(active(found.values).sum(dim=1)[right], sizes[right])
    error = (found.dense(64) - planted.dense(64))[right]
    assert error.abs().max() < 100 * torch.finfo(dtype).eps


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_pursuit_is_free_of_scale(scale):
    dictionary, data = unit_rows(11, 20, 10), gaussian(12, 15, 10)
    found = orthogonal_matching_pursuit(dictionary, scale * data, 4)
    expected = orthogonal_matching_pursuit(dictionary, data, 4)
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.values, scale * expected.values, rtol=1e-9, atol=0)


@pytest.mark.parametrize("signed", [True, False])
def test_repeated_atoms_and_atoms_of_zeros_change_nothing(signed):
    dictionary, data = unit_rows(13, 12, 8), gaussian(14, 30, 8)
    odd = torch.cat([dictionary, dictionary, torch.zeros(3, 8, dtype=torch.float64)])
    for k in (3, 8, 27):
        found = orthogonal_matching_pursuit(odd, data, k, signed=signed)
        expected = orthogonal_matching_pursuit(dictionary, data, k, signed=signed)
        assert found.values.isfinite().all()
        assert no_unit_twice(found)
        torch.testing.assert_close(
            found.reconstruct(odd), expected.reconstruct(dictionary), rtol=1e-9, atol=1e-9
        )


def test_a_row_of_zeros_has_no_active_unit():
    data = torch.zeros(4, 8, dtype=torch.float64)
    found = orthogonal_matching_pursuit(unit_rows(15, 12, 8), data, 3)
    assert not active(found.values).any()
    assert no_unit_twice(found)


def test_nonnegative_pursuit_never_takes_an_atom_that_points_away():
    eye = torch.eye(4, dtype=torch.float64)
    data = torch.tensor([[-1.0, -2, -3, -4], [-5, 2, 1, -1]], dtype=torch.float64)
    found = orthogonal_matching_pursuit(eye, data, 3, signed=False)
    assert found.dense(4).tolist() == [[0, 0, 0, 0], [0, 2, 1, 0]]
    # An oblique atom, negatively correlated, would have distorted the first one's coefficient.
    oblique = torch.tensor([[1.0, 0.0], [-0.6, 0.8]], dtype=torch.float64)
    data = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    found = orthogonal_matching_pursuit(oblique, data, 2, signed=False)
    torch.testing.assert_close(found.dense(2), torch.tensor([[1.0, 0.0]]).double())


def test_nonnegative_pursuit_gives_no_negative_code():
    found = orthogonal_matching_pursuit(unit_rows(16, 30, 8), gaussian(17, 100, 8), 5, signed=False)
    assert (found.values >= 0).all()
    assert active(found.values).sum() > 100


@pytest.mark.parametrize("signed", [True, False])
def test_pursuit_leaves_its_inputs_alone(signed):
    dictionary, data = unit_rows(18, 12, 8), gaussian(19, 8, 30).T
    before = dictionary.clone(), data.clone()
    found = orthogonal_matching_pursuit(dictionary, data, 3, signed=signed)
    assert torch.equal(dictionary, before[0])
    assert torch.equal(data, before[1])
    again = orthogonal_matching_pursuit(dictionary, data.contiguous(), 3, signed=signed)
    assert torch.equal(found.indices, again.indices)


# --- least squares ---------------------------------------------------------------------------


def random_support(seed, n_samples, m, k, dtype=torch.float64):
    """Supports of varying size: some of the values are 0, in any column."""
    rng = np.random.default_rng(seed)
    units = rng.permuted(np.tile(np.arange(m), (n_samples, 1)), axis=1)[:, :k].copy()
    values = rng.standard_normal((n_samples, k)) * (rng.random((n_samples, k)) < 0.7)
    return SparseCodes(torch.from_numpy(units), torch.from_numpy(values).to(dtype))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_least_squares_equals_numpy_on_the_support(dtype, signed):
    dictionary, data = unit_rows(20, 30, 16, dtype), gaussian(21, 50, 16, dtype=dtype)
    support = random_support(22, 50, 30, 4, dtype)
    before = support.values.clone()
    found = least_squares(dictionary, data, support, signed=signed)
    assert found.values.dtype == dtype
    assert torch.equal(found.indices, support.indices)
    assert torch.equal(support.values, before)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for row in range(50):
        on = active(support.values[row])
        atoms = dictionary[support.indices[row][on]].double().numpy()
        expected = np.linalg.lstsq(atoms.T, data[row].double().numpy())[0]
        if not signed:
            expected = np.maximum(expected, 0.0)
        np.testing.assert_allclose(found.values[row][on], expected, atol=tolerance)
        assert (found.values[row][~on] == 0).all()


def test_least_squares_removes_the_bias_of_the_tied_code():
    dictionary = unit_rows(23, 30, 16)
    support = random_support(24, 50, 30, 4)
    data = support.reconstruct(dictionary)
    tied = SparseCodes(support.indices, (data @ dictionary.T).gather(1, support.indices))
    tied = tied._replace(values=torch.where(active(support.values), tied.values, 0.0))
    assert (tied.values - support.values).abs().max() > 0.1
    found = least_squares(dictionary, data, tied)
    torch.testing.assert_close(found.values, support.values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_least_squares_on_dependent_atoms(dtype):
    atom, other = unit_rows(25, 2, 8, dtype)
    dictionary = torch.stack([atom, atom, other, torch.zeros_like(atom)])
    data = (2.0 * atom + 3.0 * other)[None]
    support = SparseCodes(torch.tensor([[0, 1, 2, 3]]), torch.ones(1, 4, dtype=dtype))
    found = least_squares(dictionary, data, support)
    assert found.values.isfinite().all()
    tolerance = 1000 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.reconstruct(dictionary), data, rtol=0, atol=tolerance)
    assert found.values[0, 3] == 0
    assert found.values.abs().max() < 10

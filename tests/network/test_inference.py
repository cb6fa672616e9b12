import numpy as np
import pytest
import torch
from scipy import sparse

from made import gaussian, no_unit_twice, unit_rows
from shoal.network.activations import HardThreshold, ReLU, Sigmoid, TopK
from shoal.network.inference import (
    IterativeHardThresholding,
    OrthogonalMatchingPursuit,
    SparseCodes,
    SubspacePursuit,
    fast_encode,
    fast_sparse_encode,
    sparse_codes,
)
from shoal.vocabulary import Parameters, active

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


@pytest.mark.parametrize(
    "encoder",
    [
        TopK(3),
        ReLU(),
        HardThreshold(0.9),
        Sigmoid(),
        SubspacePursuit(3),
        OrthogonalMatchingPursuit(3, signed=False),
        IterativeHardThresholding(3),
    ],
    ids=repr,
)
def test_sparse_encoding_is_the_encoding(encoder):
    parameters = Parameters(unit_rows(2, 12, 8), gaussian(3, 12))
    data = gaussian(4, 20, 8)
    found = fast_sparse_encode(parameters, data, encoder)
    torch.testing.assert_close(found.dense(12), fast_encode(parameters, data, encoder))


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
    found = OrthogonalMatchingPursuit(k)(unit_rows(5, 30, 12), gaussian(6, 40, 12))
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

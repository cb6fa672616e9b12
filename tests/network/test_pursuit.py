from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp

from made import gaussian, no_unit_twice, unit_rows
from shoal.generative import NonnegativeSparseCoding, SparseCoding, orthonormal_union
from shoal.network import TopK
from shoal.network.codes import SparseCodes, sparse_codes
from shoal.network.inference import fast_sparse_encode
from shoal.network.pursuit import (
    IterativeHardThresholding,
    OrthogonalMatchingPursuit,
    Pursuit,
    SubspacePursuit,
    least_squares,
)
from shoal.training.constraints import unit_atoms
from shoal.vocabulary import ArgumentError, Parameters, active

PURSUITS = [SubspacePursuit, OrthogonalMatchingPursuit, IterativeHardThresholding]

every_pursuit = pytest.mark.parametrize("pursuit", PURSUITS, ids=lambda kind: kind.__name__)
every_sign = pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
seeds = st.integers(0, 2**32 - 1)


def losses(dictionary, data, codes):
    """|y - x D|^2 of each row."""
    return (data - codes.dense(len(dictionary)) @ dictionary).square().sum(dim=1)


def check_form(codes, pursuit, dictionary, data):
    """What any pursuit's codes must be."""
    assert codes.indices.shape == codes.values.shape
    assert codes.indices.shape == (len(data), min(pursuit.k, *dictionary.shape))
    assert codes.values.dtype == data.dtype
    assert codes.values.isfinite().all()
    dense = codes.dense(len(dictionary))
    # A unit with a value is listed once: none are added up.
    assert torch.equal(active(dense).sum(dim=1), active(codes.values).sum(dim=1))
    if not pursuit.signed:
        assert (codes.values >= 0).all()


def planted(seed, k, n_samples, m=128, n=64, signed=True, dtype=torch.float64):
    """A dictionary, data, codes (B, m)."""
    dictionary = unit_rows(seed, m, n, dtype)
    model = SparseCoding if signed else NonnegativeSparseCoding
    sample = model(dictionary.double().numpy(), k, low=0.5, high=1.5).sample(
        n_samples, random_state=seed
    )
    data, codes = (torch.from_numpy(part).to(dtype) for part in (sample.data, sample.codes))
    return dictionary, data, codes


# --- all pursuits ----------------------------------------------------------------------------


@every_pursuit
@every_sign
@every_dtype
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(30, 16, 1), (30, 16, 5), (30, 16, 29), (30, 16, 99), (9, 16, 9), (9, 16, 12), (1, 4, 3),
     (5, 1, 2), (1, 1, 1), (2, 3, 1)],
)  # fmt: skip
def test_any_sizes(pursuit, signed, dtype, m, n, k):
    dictionary, chosen = unit_rows(0, m, n, dtype), pursuit(k, signed)
    for n_samples in (0, 1, 40):
        data = gaussian(1, n_samples, n, dtype=dtype)
        codes = chosen(dictionary, data)
        check_form(codes, chosen, dictionary, data)
        # None of them makes it worse than nothing at all; but a clip may.
        if signed or pursuit is not OrthogonalMatchingPursuit:
            worst = data.square().sum(dim=1) * (1 + 1e-5)
            assert (losses(dictionary, data, codes) <= worst).all()


@every_pursuit
@every_sign
def test_one_atom_is_projected_on(pursuit, signed):
    dictionary, data = unit_rows(2, 1, 6), gaussian(3, 20, 6)
    expected = data @ dictionary.T
    if not signed:
        expected = expected.clamp_min(0)
    codes = pursuit(1, signed)(dictionary, data)
    torch.testing.assert_close(codes.dense(1), expected, rtol=0, atol=1e-12)


@every_pursuit
@every_sign
@pytest.mark.parametrize("k", [1, 3, 8])
def test_orthogonal_atoms_are_told_from_the_product(pursuit, signed, k):
    rows = torch.linalg.qr(gaussian(4, 12, 12)).Q[:8]
    data = gaussian(5, 50, 12)
    expected = TopK(k, signed=signed)(data @ rows.T).codes
    codes = pursuit(k, signed)(rows, data)
    torch.testing.assert_close(codes.dense(8), expected, rtol=0, atol=1e-12)


@every_pursuit
@every_sign
@every_dtype
def test_a_row_of_zeros_has_no_active_unit(pursuit, signed, dtype):
    dictionary, data = unit_rows(15, 12, 8, dtype), gaussian(16, 5, 8, dtype=dtype)
    data[[0, 3]] = 0
    codes = pursuit(3, signed)(dictionary, data)
    assert (active(codes.values).sum(dim=1) > 0).tolist() == [False, True, True, False, True]
    assert not active(pursuit(3, signed)(dictionary, 0 * data).values).any()
    assert no_unit_twice(codes)


@every_pursuit
@every_sign
@every_dtype
@pytest.mark.parametrize("scale", [1e-10, 1e-3, 1e10])
def test_codes_scale_with_the_data(pursuit, signed, dtype, scale):
    dictionary, data = unit_rows(11, 30, 16, dtype), gaussian(12, 50, 16, dtype=dtype)
    chosen = pursuit(4, signed)
    codes, scaled = chosen(dictionary, data).dense(30), chosen(dictionary, scale * data).dense(30)
    # Hard thresholding ends where rounding says, and is sooner or later there.
    loose = 5e-3 if pursuit is IterativeHardThresholding else 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(scaled / scale, codes, rtol=0, atol=10 * loose)
    assert torch.equal(chosen(dictionary, 2.0**30 * data).dense(30), 2.0**30 * codes)


@every_pursuit
@every_sign
def test_inputs_are_left_alone_whatever_their_layout(pursuit, signed):
    dictionary, data = unit_rows(18, 12, 8), gaussian(19, 8, 30).T
    before = dictionary.clone(), data.clone()
    codes = pursuit(3, signed)(dictionary, data)
    assert torch.equal(dictionary, before[0])
    assert torch.equal(data, before[1])
    again = pursuit(3, signed)(dictionary.T.contiguous().T, data.contiguous())
    torch.testing.assert_close(again.dense(12), codes.dense(12))


@every_pursuit
@every_sign
def test_a_row_is_coded_alike_in_any_company(pursuit, signed):
    dictionary, data = unit_rows(20, 40, 16), gaussian(21, 30, 16)
    data[::7] *= 1e6
    data[3] = 0
    together = pursuit(4, signed)(dictionary, data).dense(40)
    alone = torch.cat([pursuit(4, signed)(dictionary, row[None]).dense(40) for row in data])
    size = torch.linalg.vector_norm(data, dim=1, keepdim=True).clamp_min(1)
    torch.testing.assert_close(alone / size, together / size, rtol=0, atol=1e-10)


@every_pursuit
@every_sign
@every_dtype
def test_atoms_twice_and_atoms_of_zeros(pursuit, signed, dtype):
    dictionary, data = unit_rows(13, 12, 24, dtype), gaussian(14, 30, 24, dtype=dtype)
    odd = torch.cat([dictionary, dictionary, dictionary.new_zeros(3, 24)])
    for k in (1, 3, 8, 27):
        chosen = pursuit(k, signed)
        codes = chosen(odd, data)
        check_form(codes, chosen, odd, data)
        assert not active(codes.dense(27)[:, 24:]).any()
        assert (losses(odd, data, codes) <= data.square().sum(dim=1) * (1 + 1e-5)).all()


@every_pursuit
@every_sign
def test_what_is_not_a_number_stays_in_its_row(pursuit, signed):
    dictionary, data = unit_rows(22, 30, 16), gaussian(23, 6, 16)
    clean = pursuit(3, signed)(dictionary, data).dense(30)
    data[1, 2], data[4] = torch.nan, torch.inf
    codes = pursuit(3, signed)(dictionary, data).dense(30)
    rows = [0, 2, 3, 5]
    torch.testing.assert_close(codes[rows], clean[rows], rtol=0, atol=1e-12)


@every_pursuit
@settings(max_examples=15, deadline=None)
@given(seed=seeds, signed=st.booleans(), k=st.integers(1, 3))
def test_few_atoms_far_apart_are_found(pursuit, seed, signed, k):
    # Coherence 1/8; the true code is a fixed point of each, and greed can't err: k < 4.5.
    dictionary = orthonormal_union(128, 64)
    model = SparseCoding if signed else NonnegativeSparseCoding
    sample = model(dictionary, k, low=1.0, high=1.5).sample(30, random_state=seed)
    data = torch.from_numpy(sample.data)
    codes = pursuit(k, signed)(torch.from_numpy(dictionary), data)
    assert torch.equal(active(codes.dense(128)), torch.from_numpy(sample.codes != 0))
    loose = 5e-3 if pursuit is IterativeHardThresholding else 1e-12
    np.testing.assert_allclose(codes.dense(128), sample.codes, atol=loose)


def best_losses(dictionary, data, k, signed):
    """The least loss of any k atoms, by trying all."""
    found = []
    for support in combinations(range(len(dictionary)), k):
        atoms = dictionary[list(support)].numpy().T
        if signed:
            residual = np.linalg.lstsq(atoms, data.numpy().T)[1]
        else:
            residual = [nnls(atoms, row)[1] ** 2 for row in data.numpy()]
        found.append(residual)
    return torch.from_numpy(np.min(found, axis=0))


@pytest.mark.parametrize(
    ("pursuit", "often"),
    [(SubspacePursuit, 0.6), (OrthogonalMatchingPursuit, 0.6), (IterativeHardThresholding, 0.5)],
)
@every_sign
@pytest.mark.parametrize("k", [1, 2, 3])
def test_no_better_than_all_supports_tried_and_mostly_as_good(pursuit, often, signed, k):
    dictionary, data = unit_rows(24, 8, 16), gaussian(25, 40, 16)
    best = best_losses(dictionary, data, k, signed)
    found = losses(dictionary, data, pursuit(k, signed)(dictionary, data))
    assert (found >= best - 1e-10).all()
    near = found <= best + 1e-3 * data.square().sum(dim=1)
    assert near.double().mean() > often, near.double().mean()


# --- values ----------------------------------------------------------------------------------


def test_pursuits_are_values():
    assert SubspacePursuit(3) == SubspacePursuit(k=3, signed=True, max_iterations=10)
    assert SubspacePursuit(3) != OrthogonalMatchingPursuit(3)
    assert len({IterativeHardThresholding(3), IterativeHardThresholding(3)}) == 1
    assert repr(IterativeHardThresholding(2)).startswith("IterativeHardThresholding(k=2, signed=")
    assert all(issubclass(pursuit, Pursuit) for pursuit in PURSUITS)
    with pytest.raises(AttributeError):
        SubspacePursuit(3).k = 4
    with pytest.raises(NotImplementedError):
        Pursuit(3)(torch.eye(3), torch.eye(3))


@every_pursuit
@pytest.mark.parametrize("k", [0, -1, 2.0, 2.5, True, None, "3", torch.tensor([1, 2])])
def test_k_is_checked(pursuit, k):
    with pytest.raises(ArgumentError, match=r"\bk\b"):
        pursuit(k)


@pytest.mark.parametrize(
    ("pursuit", "lowest"), [(SubspacePursuit, 0), (IterativeHardThresholding, 1)]
)
def test_max_iterations_is_checked(pursuit, lowest):
    pursuit(2, max_iterations=lowest)
    for wrong in (lowest - 1, 1.5, True, None, "1"):
        with pytest.raises(ArgumentError, match="max_iterations"):
            pursuit(2, max_iterations=wrong)


@pytest.mark.parametrize("tolerance", [-1e-9, np.nan, np.inf, None, "small"])
def test_tolerance_is_checked(tolerance):
    IterativeHardThresholding(2, tolerance=0)
    with pytest.raises(ArgumentError, match="tolerance"):
        IterativeHardThresholding(2, tolerance=tolerance)


# --- subspace pursuit ------------------------------------------------------------------------


def exact(codes, true):
    """The share of rows whose support is the planted one."""
    return (active(codes) == active(true)).all(dim=1).double().mean().item()


@every_dtype
@every_sign
def test_subspace_pursuit_finds_supports_where_the_product_does_not(dtype, signed):
    dictionary, data, true = planted(0, 8, 1000, signed=signed, dtype=dtype)
    largest = TopK(8, signed=signed)(data @ dictionary.T).codes
    assert exact(largest, true) < 0.1
    codes = SubspacePursuit(8, signed)(dictionary, data).dense(128)
    assert exact(codes, true) >= 0.99
    right = (active(codes) == active(true)).all(dim=1)
    error = (codes - true)[right].abs().max()
    assert error < 1000 * torch.finfo(dtype).eps


def test_subspace_pursuit_finds_more_supports_than_matching_pursuit():
    dictionary, data, true = planted(0, 12, 1000, signed=True, dtype=torch.float32)
    assert dictionary.shape == (128, 64)
    share = {
        pursuit: exact(pursuit(12)(dictionary, data).dense(128), true)
        for pursuit in (SubspacePursuit, OrthogonalMatchingPursuit)
    }
    assert share[SubspacePursuit] > 0.98
    assert share[OrthogonalMatchingPursuit] < 0.85


def start(dictionary, data, k, signed):
    """Least squares on the k-largest support."""
    largest = sparse_codes(TopK(k, signed=signed)(data @ dictionary.T).codes, k)
    return least_squares(dictionary, data, largest, signed=signed)


@settings(max_examples=20, deadline=None)
@given(
    seed=seeds,
    m=st.integers(2, 24),
    n=st.integers(8, 16),
    k=st.integers(1, 4),
    signed=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_subspace_pursuit_fits_and_never_loses_to_its_start(seed, m, n, k, signed, dtype):
    dictionary, data = unit_rows(seed, m, n, dtype), gaussian(seed + 1, 30, n, dtype=dtype)
    gram = (dictionary @ dictionary.T - torch.eye(m, dtype=dtype)).abs()
    assume(gram.max() < 0.95)
    pursuit = SubspacePursuit(k, signed)
    codes = pursuit(dictionary, data)
    check_form(codes, pursuit, dictionary, data)
    residual = data - codes.reconstruct(dictionary)
    inside = torch.einsum("bkn,bn->bk", dictionary[codes.indices], residual)
    loose = 1e-4 if dtype == torch.float32 else 1e-12
    assert (inside.abs() * active(codes.values)).max() < loose * data.abs().max()
    square = data.square().sum(dim=1)
    before = losses(dictionary, data, start(dictionary, data, k, signed))
    assert (losses(dictionary, data, codes) <= before + loose * square).all()


@every_sign
def test_subspace_pursuit_without_iterations_is_least_squares_on_the_largest(signed):
    dictionary, data = unit_rows(30, 40, 16), gaussian(31, 60, 16)
    codes = SubspacePursuit(4, signed, max_iterations=0)(dictionary, data)
    support = active(TopK(4, signed=signed)(data @ dictionary.T).codes)
    found = active(codes.dense(40))
    assert not (found & ~support).any()
    if signed:
        assert torch.equal(found, support)
        expected = start(dictionary, data, 4, signed)
        torch.testing.assert_close(codes.dense(40), expected.dense(40), rtol=0, atol=1e-12)
    else:
        assert (found.sum(dim=1) < support.sum(dim=1)).any()


@every_dtype
@every_sign
def test_more_iterations_never_increase_the_loss(dtype, signed):
    dictionary, data = unit_rows(32, 60, 20, dtype), gaussian(33, 200, 20, dtype=dtype)
    found = [
        losses(dictionary, data, SubspacePursuit(4, signed, iterations)(dictionary, data))
        for iterations in (0, 1, 2, 3, 5, 10, 30)
    ]
    slack = 10 * torch.finfo(dtype).eps * data.square().sum(dim=1)
    assert all((after <= before + slack).all() for before, after in pairwise(found))
    assert (found[1] < 0.999 * found[0]).double().mean() > 0.5
    assert (found[2] < 0.999 * found[1]).any()
    torch.testing.assert_close(found[-2], found[-1])


def test_unsigned_subspace_pursuit_leaves_out_what_points_away():
    # The tied code of both is positive, the fit of the second is negative.
    oblique = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    data = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    codes = SubspacePursuit(2, signed=False)(oblique, data)
    torch.testing.assert_close(codes.dense(2), torch.tensor([[1.0, 0.0]]).double())
    away = SubspacePursuit(2, signed=False)(oblique, torch.tensor([[-1.0, -1.0]]).double())
    assert not active(away.values).any()


def test_ties_go_to_the_lowest_index():
    eye = torch.eye(6, dtype=torch.float64)
    data = torch.tensor([[1.0, -1, 1, 1, -1, 1], [0, 2, 1, 0, 1, 1]], dtype=torch.float64)
    for pursuit in (SubspacePursuit, IterativeHardThresholding):
        codes = pursuit(3)(eye, data).dense(6).round(decimals=9)
        assert codes.tolist() == [[1, -1, 1, 0, 0, 0], [0, 2, 1, 0, 1, 0]]
        codes = pursuit(2, signed=False)(eye, data).dense(6).round(decimals=9)
        assert codes.tolist() == [[1, 0, 1, 0, 0, 0], [0, 2, 1, 0, 0, 0]]


# --- hard thresholding -----------------------------------------------------------------------


@every_dtype
@every_sign
def test_thresholding_never_increases_the_loss(dtype, signed):
    dictionary, data = unit_rows(34, 60, 20, dtype), gaussian(35, 60, 20, dtype=dtype)
    found = [data.square().sum(dim=1)]
    for iterations in (1, 2, 3, 5, 10, 50):
        pursuit = IterativeHardThresholding(4, signed, iterations, tolerance=0.0)
        codes = pursuit(dictionary, data)
        check_form(codes, pursuit, dictionary, data)
        found.append(losses(dictionary, data, codes))
    slack = 10 * torch.finfo(dtype).eps * found[0]
    assert all((after <= before + slack).all() for before, after in pairwise(found))
    assert (found[2] < 0.999 * found[1]).double().mean() > 0.5


@every_sign
def test_thresholding_ends_at_a_fit(signed):
    dictionary, data = unit_rows(36, 30, 20), gaussian(37, 50, 20)
    codes = IterativeHardThresholding(3, signed, 5000, tolerance=0.0)(dictionary, data)
    fit = least_squares(dictionary, data, codes)
    torch.testing.assert_close(codes.values, fit.values, rtol=0, atol=1e-6)


def test_thresholding_ends_sooner_where_more_is_tolerated():
    dictionary, data = unit_rows(36, 30, 20), gaussian(37, 50, 20)
    errors = []
    for tolerance in (0.5, 1e-2, 1e-3, 1e-6):
        codes = IterativeHardThresholding(3, tolerance=tolerance, max_iterations=3000)(
            dictionary, data
        )
        fit = least_squares(dictionary, data, codes)
        errors.append((codes.values - fit.values).abs().mean().item())
    assert all(after < before / 2 for before, after in pairwise(errors)), errors


@every_sign
def test_thresholding_finds_planted_supports(signed):
    dictionary, data, true = planted(1, 4, 500, signed=signed)
    codes = IterativeHardThresholding(4, signed)(dictionary, data).dense(128)
    assert exact(codes, true) > 0.97


# --- orthogonal matching pursuit -------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 4), signed=st.booleans())
def test_matching_pursuit_recovers_planted_codes_exactly(seed, k, signed):
    # Coherence 1/8: Tropp's condition k < (1 + 1/mu) / 2 = 4.5 guarantees it.
    dictionary = orthonormal_union(128, 64)
    model = SparseCoding if signed else NonnegativeSparseCoding
    sample = model(dictionary, k, low=1.0, high=2.0).sample(50, random_state=seed)
    found = OrthogonalMatchingPursuit(k, signed=signed)(
        torch.from_numpy(dictionary), torch.from_numpy(sample.data)
    )
    assert torch.equal(found.indices.sort(dim=1).values, torch.from_numpy(sample.supports))
    np.testing.assert_allclose(found.dense(128), sample.codes, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_matching_pursuit_leaves_a_residual_orthogonal_to_its_atoms(k):
    dictionary, data = unit_rows(1, 30, 12), gaussian(2, 40, 12)
    found = OrthogonalMatchingPursuit(k)(dictionary, data)
    residual = data - found.reconstruct(dictionary)
    inside = torch.einsum("bkn,bn->bk", dictionary[found.indices], residual)
    assert inside.abs().max() < 1e-12
    assert no_unit_twice(found)
    assert active(found.values).all()


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_matching_pursuit_equals_scikit_learn(k):
    dictionary, data = unit_rows(3, 40, 16), gaussian(4, 60, 16)
    expected = orthogonal_mp(dictionary.numpy().T, data.numpy().T, n_nonzero_coefs=k).T
    found = OrthogonalMatchingPursuit(k)(dictionary, data)
    np.testing.assert_allclose(found.dense(40), expected, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matching_pursuit_of_as_many_atoms_as_features_explains_everything(dtype):
    dictionary, data = unit_rows(5, 20, 6, dtype), gaussian(6, 15, 6, dtype=dtype)
    for k in (6, 7, 50):
        found = OrthogonalMatchingPursuit(k)(dictionary, data)
        assert found.indices.shape == (15, 6)
        assert found.values.dtype == dtype
        residual = data - found.reconstruct(dictionary)
        assert residual.abs().max() < 1e4 * torch.finfo(dtype).eps


def test_matching_pursuit_of_more_atoms_than_there_are():
    dictionary, data = unit_rows(7, 3, 6), gaussian(8, 15, 6)
    found = OrthogonalMatchingPursuit(5)(dictionary, data)
    expected = np.linalg.lstsq(dictionary.numpy().T, data.numpy().T)[0].T
    np.testing.assert_allclose(found.dense(3), expected, atol=1e-12)
    one = OrthogonalMatchingPursuit(1)(dictionary[:1], data[:1])
    np.testing.assert_allclose(one.values, data[:1] @ dictionary[:1].T)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matching_pursuit_of_rows_explained_by_fewer_atoms_have_zeros(dtype, signed):
    dictionary = unit_rows(9, 64, 32, dtype)
    rng = np.random.default_rng(10)
    sizes = torch.from_numpy(rng.integers(0, 3, 300))
    units = torch.from_numpy(rng.permuted(np.tile(np.arange(64), (300, 1)), axis=1)[:, :2].copy())
    values = torch.from_numpy(rng.uniform(1, 2, (300, 2))).to(dtype)
    values *= torch.arange(2) < sizes[:, None]
    planted = SparseCodes(units, values)
    data = planted.reconstruct(dictionary)
    found = OrthogonalMatchingPursuit(6, signed=signed)(dictionary, data)
    assert no_unit_twice(found)
    assert found.values.isfinite().all()
    # Greed may err on the first atom, and then needs more; a single atom is always found.
    right = sizes < 2
    assert torch.equal(active(found.values).sum(dim=1)[right], sizes[right])
    error = (found.dense(64) - planted.dense(64))[right]
    assert error.abs().max() < 100 * torch.finfo(dtype).eps


@pytest.mark.parametrize("signed", [True, False])
def test_matching_pursuit_repeated_atoms_and_atoms_of_zeros_change_nothing(signed):
    dictionary, data = unit_rows(13, 12, 8), gaussian(14, 30, 8)
    odd = torch.cat([dictionary, dictionary, torch.zeros(3, 8, dtype=torch.float64)])
    for k in (3, 8, 27):
        found = OrthogonalMatchingPursuit(k, signed=signed)(odd, data)
        expected = OrthogonalMatchingPursuit(k, signed=signed)(dictionary, data)
        assert found.values.isfinite().all()
        assert no_unit_twice(found)
        torch.testing.assert_close(
            found.reconstruct(odd), expected.reconstruct(dictionary), rtol=1e-9, atol=1e-9
        )


def test_nonnegative_matching_pursuit_never_takes_an_atom_that_points_away():
    eye = torch.eye(4, dtype=torch.float64)
    data = torch.tensor([[-1.0, -2, -3, -4], [-5, 2, 1, -1]], dtype=torch.float64)
    found = OrthogonalMatchingPursuit(3, signed=False)(eye, data)
    assert found.dense(4).tolist() == [[0, 0, 0, 0], [0, 2, 1, 0]]
    # An oblique atom, negatively correlated, would have distorted the first one's coefficient.
    oblique = torch.tensor([[1.0, 0.0], [-0.6, 0.8]], dtype=torch.float64)
    data = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    found = OrthogonalMatchingPursuit(2, signed=False)(oblique, data)
    torch.testing.assert_close(found.dense(2), torch.tensor([[1.0, 0.0]]).double())


def test_nonnegative_matching_pursuit_gives_no_negative_code():
    found = OrthogonalMatchingPursuit(5, signed=False)(unit_rows(16, 30, 8), gaussian(17, 100, 8))
    assert (found.values >= 0).all()
    assert active(found.values).sum() > 100


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
        while not signed and (expected < 0).any():  # without those below 0, until none is
            kept = expected > 0
            expected = np.zeros_like(expected)
            expected[kept] = np.linalg.lstsq(atoms[kept].T, data[row].double().numpy())[0]
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


# --- dependent atoms --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("apart", [1e-1, 1e-2, 1e-3, 1e-5, 1e-7, 0.0])
@pytest.mark.parametrize("signed", [True, False])
def test_no_code_is_larger_than_what_it_rebuilds_by_far(dtype, apart, signed):
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((3, 8))[rng.integers(0, 3, 20)]
    atoms = unit_atoms(torch.from_numpy(atoms + apart * rng.standard_normal((20, 8))).to(dtype))
    data = torch.from_numpy(rng.standard_normal((12, 8))).to(dtype)
    parameters = Parameters(atoms, torch.zeros(20, dtype=dtype))
    for k in (3, 8, 20):  # below n, n, and all of them
        for kind in (SubspacePursuit, OrthogonalMatchingPursuit, IterativeHardThresholding):
            pursuit = kind(k, signed)
            for codes in (pursuit(atoms, data), fast_sparse_encode(parameters, data, pursuit)):
                rebuilt = codes.reconstruct(atoms)
                size = torch.linalg.vector_norm(rebuilt, dim=1)
                assert bool((codes.values.abs().amax(dim=1) <= 8.1 * size + 1e-6).all())
                left = torch.linalg.vector_norm(data - rebuilt, dim=1)
                assert bool((left <= 1.001 * torch.linalg.vector_norm(data, dim=1)).all())
                assert signed or bool((codes.values >= 0).all())
        support = fast_sparse_encode(parameters, data, SubspacePursuit(k, signed))
        codes = least_squares(atoms, data, support, signed=signed)
        size = torch.linalg.vector_norm(codes.reconstruct(atoms), dim=1)
        assert bool((codes.values.abs().amax(dim=1) <= 8.1 * size + 1e-6).all())

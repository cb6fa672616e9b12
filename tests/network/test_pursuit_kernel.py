"""The pursuits in numba: their parts against NumPy, and all of them against the reference.

Two implementations round differently, and where a choice is close to a tie either is right:
supports are asked to agree in nearly all rows in float32, and in every row in float64.
"""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.network.activations import Activated
from shoal.network.codes import SparseCodes
from shoal.network.inference import fast_least_squares
from shoal.network.kernels import choose, compiling, cpu, pursuits, reference, repeated, use
from shoal.network.pursuit import (
    IterativeHardThresholding,
    OrthogonalMatchingPursuit,
    SubspacePursuit,
    dependence,
    least_squares,
)
from shoal.vocabulary import Parameters, active

F32, F64 = torch.float32, torch.float64
PARTS = ("dictionary", "bias", "losses", "counts", "energy")
PURSUITS = [SubspacePursuit, OrthogonalMatchingPursuit, IterativeHardThresholding]

every_pursuit = pytest.mark.parametrize("pursuit", PURSUITS, ids=lambda kind: kind.__name__)
every_sign = pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
every_dtype = pytest.mark.parametrize("dtype", [F32, F64], ids=str)
every_real = pytest.mark.parametrize("real", [np.float32, np.float64])
seeds = st.integers(0, 2**32 - 1)


def unit_rows(seed, m, n, dtype=F64):
    rows = np.random.default_rng([seed, m, n]).standard_normal((m, n))
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)).to(dtype)


def gaussian(seed, *shape, dtype=F64):
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape)).to(dtype)


def tied(dictionary):
    """Parameters with a bias that no pursuit may see."""
    return Parameters(dictionary, torch.linspace(-3, 3, len(dictionary)).to(dictionary.dtype))


def epsilon(dtype):
    return torch.finfo(dtype).eps


def losses(dictionary, data, dense):
    return (data - dense @ dictionary).double().square().sum(dim=1)


def check_form(codes, pursuit, dictionary, data):
    """Units ascending, zeros to the right and at unit 0, at most k, none negative if unsigned."""
    indices, values = codes.indices, codes.values
    assert indices.dtype == torch.int64
    assert values.dtype == data.dtype
    k = min(pursuit.k, *dictionary.shape)
    assert indices.shape == values.shape
    assert indices.shape[1] == (k if len(data) else indices.shape[1])
    on = active(values)
    counts = on.sum(dim=1, keepdim=True)
    assert torch.equal(on, torch.arange(values.shape[1]) < counts)
    assert (indices[~on] == 0).all()
    assert (indices.diff(dim=1) > 0)[on[:, 1:]].all()
    assert ((indices >= 0) & (indices < len(dictionary))).all()
    if not pursuit.signed:
        assert not (values < 0).any()


def check(pursuit, dictionary, data, *, strays=None, supports=True):
    """The cpu kernel's codes, dense, which are to be the reference's but in a few `strays`."""
    parameters, dtype = tied(dictionary), data.dtype
    strays = (0.01 if dtype == F32 else 0.0) if strays is None else strays
    codes = cpu.sparse_encode(parameters, data, pursuit)
    check_form(codes, pursuit, dictionary, data)
    found = codes.dense(len(dictionary))
    assert torch.equal(found, cpu.encode(parameters, data, pursuit))
    expected = reference.encode(parameters, data, pursuit)
    # Hard thresholding ends where a step is small, and rounding may make that one step more.
    slow = isinstance(pursuit, IterativeHardThresholding)
    size = torch.linalg.vector_norm(data.double(), dim=1)
    off = losses(dictionary, data, found) - losses(dictionary, data, expected)
    bar = 4e-6 if slow else 100 * epsilon(dtype)
    allowed = strays * len(data)
    assert (off.abs() > bar * size**2).sum() <= allowed
    if supports:
        same = (active(found) == active(expected)).all(dim=1)
        assert (~same).sum() <= allowed
        error = (found - expected)[same].abs().double()
        bar = 1e-2 if slow else 3e3 * epsilon(dtype)
        assert (error <= bar * size[same, None]).all()
    return found


# --- the parts -------------------------------------------------------------------------------

# They are compiled with what calls them: here by themselves.
_largest, _left, _fit_signs = (
    compiling.apart(part.py_func)
    for part in (pursuits._largest, pursuits._left, pursuits._fit_signs)
)


def largest(a, i, m, k, signed):
    units, keys = np.full(k + 2, -7), np.full(k + 2, -7.0, a.dtype)
    count = _largest(a, i, m, k, signed, units, keys)
    assert (units[k:] == -7).all(), "beyond its list"
    assert (keys[k:] == -7).all()
    return units[:count].tolist(), keys[:count].tolist()


def expected_largest(a, k, signed):
    value = np.abs(a) if signed else a
    order = [j for j in np.argsort(-value, kind="stable") if value[j] > 0][:k]
    return order, value[order].tolist()


@every_real
@settings(max_examples=150, deadline=None)
@given(
    seed=seeds,
    m=st.integers(1, 70),
    k=st.integers(1, 24),
    levels=st.sampled_from([1, 2, 5, 1000]),
    signed=st.booleans(),
    offset=st.integers(0, 5),
)
def test_the_largest_ties_to_the_lowest_index(real, seed, m, k, levels, signed, offset):
    rng = np.random.default_rng(seed)
    a = rng.integers(-levels, levels + 1, offset + m + 3).astype(real)
    a[:offset], a[offset + m :] = 5000, 5000  # not its own
    expected = expected_largest(a[offset : offset + m], k, signed)
    assert largest(a, offset, m, k, signed) == expected


@every_real
@pytest.mark.parametrize("m", [1, 15, 16, 17, 31, 32, 33, 48])
def test_the_largest_wherever_it_is(real, m):
    for place in range(m):
        a = np.full(m, 0.25, real)
        a[place] = -2
        rest = [j for j in range(m) if j != place]
        assert largest(a, 0, m, 3, True)[0] == [place, *rest][:3]
        assert largest(a, 0, m, 3, False)[0] == rest[:3]
        a[place] = 2
        assert largest(a, 0, m, 3, False)[0] == [place, *rest][:3]


@every_real
@pytest.mark.parametrize("m", [256, 263, 271, 300])
@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_the_largest_of_many(real, m, levels):
    rng = np.random.default_rng([m, levels])
    for k in (1, 2, 8, 16, 17):
        for signed in (True, False):
            a = rng.integers(-levels, levels + 1, m).astype(real)
            assert largest(a, 0, m, k, signed) == expected_largest(a, k, signed)
            few = np.where(rng.random(m) < 0.02, a, -np.abs(a) if not signed else 0 * a)
            assert largest(few, 0, m, k, signed) == expected_largest(few, k, signed)
            few[rng.integers(0, m, 20)] = np.nan
            known = np.where(np.isnan(few), real(0), few)
            assert largest(few, 0, m, k, signed) == expected_largest(known, k, signed)


@every_real
def test_the_largest_of_what_is_not_a_number(real):
    a = np.tile(np.array([np.nan, 1, np.inf, -np.inf, 0, -0.0, 2], real), 5)
    units, keys = largest(a, 0, 35, 8, False)
    assert units == [2, 9, 16, 23, 30, 6, 13, 20]
    assert keys == [np.inf] * 5 + [2] * 3
    assert largest(np.full(40, np.nan, real), 0, 40, 3, True) == ([], [])
    assert largest(np.zeros(40, real), 0, 40, 3, True) == ([], [])


@every_real
@pytest.mark.parametrize("m", [1, 5, 16, 20, 37])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_is_left_to_correlate_with(real, m, count):
    rng = np.random.default_rng([m, count])
    gram, z = rng.normal(size=(m, m)).astype(real), rng.normal(size=2 * m + 3).astype(real)
    units, codes = rng.integers(0, m, 4), rng.normal(size=4).astype(real)
    rest = np.full(m + 2, -7, real)
    _left(z, m + 3, gram.reshape(-1), m, units, codes, count, rest)
    expected = z[m + 3 :] - codes[:count] @ gram[units[:count]]
    np.testing.assert_allclose(rest[:m], expected, rtol=0, atol=20 * np.finfo(real).eps)
    assert (rest[m:] == -7).all()


def fitted(dictionary, data, units, signed=True):
    """The codes of one row on `units`, what they explain, the units that are left."""
    real = data.dtype
    gram, z = (dictionary @ dictionary.T).reshape(-1), np.append(real.type(9), dictionary @ data)
    units, count = np.array([*units, -7]), len(units)
    factor, codes = np.full((count, count), np.nan, real), np.full(count, np.nan, real)
    dependent = real.type(1e-5 if real == np.float32 else 1e-10)
    count, explained = _fit_signs(
        z, 1, gram, len(dictionary), units, count, factor, codes, signed, dependent
    )
    return codes[:count], explained, units[:count].tolist()


@every_real
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_fit_is_least_squares(real, count):
    dictionary, data = unit_rows(0, 20, 12).numpy().astype(real), gaussian(0, 12).numpy()
    data = data.astype(real)
    units = np.random.default_rng(count).permutation(20)[:count].tolist()
    codes, explained, left = fitted(dictionary, data, units)
    assert left == units
    atoms = dictionary[units].astype(float)
    expected = np.linalg.lstsq(atoms.T, data.astype(float))[0]
    tolerance = 1000 * np.finfo(real).eps
    np.testing.assert_allclose(codes, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(explained, ((expected @ atoms) ** 2).sum(), atol=tolerance)


@every_real
def test_fit_gives_dependent_atoms_nothing(real):
    first, second, third = unit_rows(1, 3, 6).numpy()
    between = (first + second) / np.linalg.norm(first + second)
    dictionary = np.stack([first, second, between, -first, 0 * first, third]).astype(real)
    data = (2 * first + 3 * second - third).astype(real)
    tolerance = 1000 * np.finfo(real).eps
    codes, explained, left = fitted(dictionary, data, [0, 3, 1, 2, 4, 5])
    np.testing.assert_allclose(codes, [2, 0, 3, 0, 0, -1], rtol=0, atol=tolerance)
    assert codes[[1, 3, 4]].tolist() == [0, 0, 0]
    np.testing.assert_allclose(explained, (data**2).sum(), rtol=tolerance)
    codes, explained, left = fitted(dictionary, data, [4, 0, 0])
    assert codes[[0, 2]].tolist() == [0, 0]
    # Unsigned, they are not listed either, nor is what comes out negative.
    codes, explained, left = fitted(dictionary, data, [0, 3, 1, 2, 4, 5], signed=False)
    assert left == [0, 1]
    expected = np.linalg.lstsq(dictionary[:2].T, data)[0]
    np.testing.assert_allclose(codes, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(explained, ((expected @ dictionary[:2]) ** 2).sum(), rtol=1e-4)


@every_real
def test_fit_of_nothing_but_negative_codes_is_empty(real):
    eye = np.eye(5, dtype=real)
    codes, explained, left = fitted(eye, -np.ones(5, real), [3, 1, 4], signed=False)
    assert left == []
    assert explained == 0
    # One after the other: what is left out makes another negative.
    codes, explained, left = fitted(eye, np.array([0, 0, -1, 1, -1], real), [2, 3, 4], signed=False)
    assert left == [3]
    assert codes.tolist() == [1]
    assert explained == 1


# --- codes -----------------------------------------------------------------------------------


@every_pursuit
@every_sign
@every_dtype
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(128, 64, 8), (300, 64, 5), (30, 64, 20), (33, 20, 3), (30, 31, 4), (16, 12, 2), (17, 12, 5),
     (15, 40, 15), (9, 40, 20), (1, 4, 2), (2, 2, 1), (40, 1, 3), (1, 1, 1)],
)  # fmt: skip
def test_codes_are_the_references(pursuit, signed, dtype, m, n, k):
    dictionary, data = unit_rows(2, m, n, dtype), gaussian(3, 150, n, dtype=dtype)
    # With one feature all atoms are alike, and which it is that explains all says nothing.
    check(pursuit(k, signed), dictionary, data, supports=n > 1)


@every_pursuit
@every_sign
@pytest.mark.parametrize("n_samples", [0, 1, 2, 255, 256, 257, 600])
def test_batches_of_any_size(pursuit, signed, n_samples):
    dictionary, data = unit_rows(4, 37, 24), gaussian(5, n_samples, 24)
    chosen = pursuit(3, signed)
    if n_samples:
        check(chosen, dictionary, data)
    codes = cpu.sparse_encode(tied(dictionary), data, chosen)
    assert codes.indices.shape[0] == codes.values.shape[0] == n_samples
    assert cpu.encode(tied(dictionary), data, chosen).shape == (n_samples, 37)
    sums = cpu.step(tied(dictionary), data, chosen)
    assert sums.losses.shape == (n_samples,)


@every_pursuit
@every_sign
@settings(max_examples=25, deadline=None)
@given(
    seed=seeds,
    m=st.integers(1, 50),
    n=st.integers(8, 40),
    k=st.integers(1, 6),
    dtype=st.sampled_from([F32, F64]),
)
def test_loss_is_the_references(pursuit, signed, seed, m, n, k, dtype):
    # Atoms may happen to be close to each other, so that a row is a stray now and then.
    k = min(k, n // 3)
    dictionary, data = unit_rows(seed, m, n, dtype), gaussian(seed + 1, 40, n, dtype=dtype)
    check(pursuit(k, signed), dictionary, data, strays=0.05)


@every_dtype
@every_sign
@pytest.mark.parametrize("iterations", [0, 1, 2, 30])
def test_iterations_of_subspace_pursuit_are_the_references(dtype, signed, iterations):
    dictionary, data = unit_rows(6, 80, 40, dtype), gaussian(7, 300, 40, dtype=dtype)
    check(SubspacePursuit(6, signed, iterations), dictionary, data)


@every_dtype
@every_sign
@pytest.mark.parametrize(("iterations", "tolerance"), [(1, 1e-3), (3, 1e-3), (500, 0.3)])
def test_iterations_of_thresholding_are_the_references(dtype, signed, iterations, tolerance):
    dictionary, data = unit_rows(6, 80, 40, dtype), gaussian(7, 300, 40, dtype=dtype)
    chosen = IterativeHardThresholding(6, signed, iterations, tolerance)
    found = check(chosen, dictionary, data, strays=0.01)
    expected = reference.encode(tied(dictionary), data, chosen)
    near = (found - expected).abs().amax(dim=1) < 1e5 * epsilon(dtype)
    assert near.double().mean() >= 0.99  # ended after as many steps


@every_dtype
def test_thresholding_without_tolerance_ends_at_a_fit(dtype):
    dictionary, data = unit_rows(8, 60, 40, dtype), gaussian(9, 100, 40, dtype=dtype)
    chosen = IterativeHardThresholding(4, True, 1000, 0.0)
    codes = cpu.sparse_encode(tied(dictionary), data, chosen)
    residual = data - codes.reconstruct(dictionary)
    inside = torch.einsum("bkn,bn->bk", dictionary[codes.indices], residual)
    assert inside.abs().max() < (5e-3 if dtype == F32 else 1e-6)


@every_pursuit
@every_dtype
def test_ties_are_settled_as_in_the_reference(pursuit, dtype):
    eye = torch.eye(40, dtype=dtype)
    rng = np.random.default_rng(10)
    data = torch.from_numpy(rng.integers(-2, 3, (200, 40))).to(dtype)
    for k in (1, 4, 17):
        for signed in (True, False):
            found = cpu.encode(tied(eye), data, pursuit(k, signed))
            expected = torch.zeros_like(data)
            for row, codes in zip(data.numpy(), expected, strict=True):
                units = expected_largest(row, k, signed)[0]
                codes[units] = torch.from_numpy(row[units])
            bar = 1e-2 if pursuit is IterativeHardThresholding else 10 * epsilon(dtype)
            assert torch.equal(active(found), active(expected))
            assert (found - expected).abs().max() <= bar


@every_pursuit
@every_sign
@every_dtype
def test_any_layout(pursuit, signed, dtype):
    dictionary, data = unit_rows(11, 40, 18, dtype), gaussian(12, 70, 18, dtype=dtype)
    chosen = pursuit(4, signed)
    expected = cpu.sparse_encode(tied(dictionary), data, chosen)
    sums = cpu.step(tied(dictionary), data, chosen)
    columns = dictionary.T.contiguous().T
    spaced = torch.zeros(140, 36, dtype=dtype)[::2, ::2].copy_(data)
    for atoms in (dictionary, columns):
        for rows in (data, data.T.contiguous().T, spaced):
            before = atoms.clone(), rows.clone()
            codes = cpu.sparse_encode(tied(atoms), rows, chosen)
            assert all(map(torch.equal, codes, expected))
            assert all(map(torch.equal, cpu.step(tied(atoms), rows, chosen)[:5], sums[:5]))
            assert torch.equal(atoms, before[0])
            assert torch.equal(rows, before[1])


@every_pursuit
@every_sign
@every_dtype
def test_rows_of_zeros(pursuit, signed, dtype):
    dictionary, data = unit_rows(13, 40, 18, dtype), gaussian(14, 30, 18, dtype=dtype)
    data[::3] = 0
    found = check(pursuit(4, signed), dictionary, data)
    assert torch.equal(active(found).any(dim=1), active(data).any(dim=1))
    sums = cpu.step(tied(dictionary), 0 * data, pursuit(4, signed))
    assert not any(active(getattr(sums, name)).any() for name in PARTS)


@every_pursuit
@every_sign
@every_dtype
def test_atoms_twice_opposite_and_of_zeros(pursuit, signed, dtype):
    dictionary, data = unit_rows(15, 20, 48, dtype), gaussian(16, 150, 48, dtype=dtype)
    odd = torch.cat([dictionary, 0 * dictionary[:3], dictionary, dictionary[:5]])
    both = torch.cat([dictionary, -dictionary])
    for k in (1, 4, 8):
        for atoms in (odd, both):
            # Which of two twins it is may be settled by rounding.
            found = check(pursuit(k, signed), atoms, data, supports=False)
            assert found.abs().max() < 20
            if atoms is odd:
                assert not active(found[:, 20:23]).any()


@every_pursuit
@every_sign
@every_dtype
def test_rows_that_fewer_atoms_explain(pursuit, signed, dtype):
    dictionary = unit_rows(17, 40, 64, dtype)
    rng = np.random.default_rng(18)
    codes = torch.zeros(100, 40, dtype=dtype)
    for row in range(100):
        codes[row, rng.permutation(40)[: row % 3]] = 1.5
    data = codes @ dictionary
    found = check(pursuit(6, signed), dictionary, data, supports=False)
    bar = 2e-2 if pursuit is IterativeHardThresholding else 1000 * epsilon(dtype)
    assert (found - codes).abs().max() < bar
    if pursuit is OrthogonalMatchingPursuit:
        assert torch.equal(active(found), active(codes))


@every_pursuit
@every_sign
@every_dtype
@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_codes_scale_with_the_data(pursuit, signed, dtype, scale):
    dictionary, data = unit_rows(19, 40, 20, dtype), gaussian(20, 100, 20, dtype=dtype)
    chosen = pursuit(4, signed)
    codes = cpu.sparse_encode(tied(dictionary), data, chosen)
    scaled = cpu.sparse_encode(tied(dictionary), scale * data, chosen)
    assert torch.equal(scaled.indices, codes.indices)
    assert torch.equal(scaled.values, scale * codes.values)


@every_pursuit
@every_sign
@every_dtype
def test_what_is_not_a_number_stays_in_its_row(pursuit, signed, dtype):
    dictionary, data = unit_rows(21, 40, 20, dtype), gaussian(22, 40, 20, dtype=dtype)
    chosen = pursuit(4, signed)
    clean = cpu.encode(tied(dictionary), data, chosen)
    odd = [1, 17, 30]
    data[1, 3], data[17], data[30, 5] = torch.nan, torch.inf, -torch.inf
    found = cpu.encode(tied(dictionary), data, chosen)
    rows = [row for row in range(40) if row not in odd]
    assert torch.equal(found[rows], clean[rows])
    sums = cpu.step(tied(dictionary), data, chosen)
    assert torch.equal(sums.losses.isfinite(), data.isfinite().all(dim=1))
    broken = dictionary.clone()
    broken[5, 0], broken[6] = torch.nan, torch.inf
    cpu.step(tied(broken), gaussian(22, 40, 20, dtype=dtype), chosen)


@every_pursuit
def test_a_row_does_not_depend_on_how_the_batch_is_cut(pursuit, monkeypatch):
    dictionary, data = unit_rows(23, 60, 24), gaussian(24, 100, 24)
    chosen = pursuit(5)
    whole = cpu.encode(tied(dictionary), data, chosen)
    sums = cpu.step(tied(dictionary), data, chosen)
    for rows in (1, 7, 64):
        monkeypatch.setattr(cpu, "_PURSUIT_ROWS", rows)
        # The product's rounding may depend on its size, nothing else does.
        torch.testing.assert_close(cpu.encode(tied(dictionary), data, chosen), whole)
        assert_sums(cpu.step(tied(dictionary), data, chosen), sums, F64)


@pytest.mark.parametrize("signed", [True, False])
def test_a_row_of_which_enough_is_explained_is_done(signed):
    # Iterations that can't gain what would count are left out: codes are those of all of them.
    dictionary = unit_rows(31, 80, 40, F32)
    rng = np.random.default_rng(31)
    codes = np.zeros((400, 80), np.float32)
    for row in codes:
        row[rng.choice(80, 4, replace=False)] = [*rng.uniform(1, 2, 3), rng.uniform(0, 0.2)]
    data = torch.from_numpy(codes) @ dictionary
    data += torch.linspace(0, 0.02, 400)[:, None] * gaussian(32, 400, 40, dtype=F32)
    pursuer = cpu.Pursuer(tied(dictionary), SubspacePursuit(4, signed))
    given = cpu.flat(data @ dictionary.T), pursuer.gram, 80, 4, signed
    found = []
    for rows in (data, torch.full_like(data, 1e9)):  # such rows are never done
        out = np.zeros((400, 4), int), np.zeros((400, 4), np.float32), np.zeros(400, int)
        dependent = np.float32(dependence(F32))
        pursuits.subspace_pursuit(cpu.flat(rows), 40, *given, 10, dependent, 1, *out)
        found.append(out)
    assert all(map(np.array_equal, *found))


def run_kernel(pursuit, signed, dtype, parts):
    """The kernel's own codes from given scores, in as many `parts`."""
    dictionary, data = unit_rows(25, 45, 24, dtype), gaussian(26, 90, 24, dtype=dtype)
    chosen = cpu.Pursuer(tied(dictionary), pursuit(4, signed))
    scores = cpu.flat(data @ dictionary.T)
    first = scores, chosen.gram, 45, 4, signed
    out = np.zeros((90, 6), int), np.zeros((90, 6), scores.dtype), np.zeros(90, int)
    real = scores.dtype.type
    if pursuit is SubspacePursuit:
        rows = cpu.flat(data), data.shape[1]
        pursuits.subspace_pursuit(*rows, *first, 10, real(1e-6), parts, *out)
    elif pursuit is OrthogonalMatchingPursuit:
        squares = cpu.flat(data.square().sum(dim=1))
        pursuits.matching_pursuit(*first, real(1e-6), squares, real(0), parts, *out)
    else:
        pursuits.hard_thresholding(*first, 100, real(1e-3), parts, *out)
    return out


@every_pursuit
@every_sign
@every_dtype
def test_parts_change_no_bit(pursuit, signed, dtype):
    indices, values, counts = run_kernel(pursuit, signed, dtype, 1)
    used = np.arange(6) < counts[:, None]
    assert (counts > 0).all()
    assert (counts <= 4).all()
    assert (values[used] != 0).all()
    assert not indices[:, 4:].any(), "beyond k"
    for parts in (2, 3, 7, 90, 200):
        again = run_kernel(pursuit, signed, dtype, parts)
        assert np.array_equal(again[2], counts)
        assert np.array_equal(again[0][used], indices[used])
        assert np.array_equal(again[1][used], values[used])


def test_python_threads_at_once():
    dictionary, data = unit_rows(27, 60, 24), gaussian(28, 300, 24)
    chosen = [pursuit(4) for pursuit in PURSUITS]
    expected = [cpu.encode(tied(dictionary), data, pursuit) for pursuit in chosen]
    wrong = []

    def work(which):
        found = [cpu.encode(tied(dictionary), data, chosen[which]) for _ in range(5)]
        wrong.extend(which for codes in found if not torch.equal(codes, expected[which]))

    threads = [threading.Thread(target=work, args=(which % 3,)) for which in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_gradients_are_not_followed():
    parameters = tied(unit_rows(29, 20, 12)).map(lambda part: part.requires_grad_())
    data = gaussian(30, 10, 12).requires_grad_()
    for pursuit in PURSUITS:
        assert not cpu.encode(parameters, data, pursuit(3)).requires_grad
        assert not cpu.step(parameters, data, pursuit(3)).dictionary.requires_grad


def test_precisions_do_not_mix():
    with pytest.raises(RuntimeError, match="float32"):
        cpu.encode(tied(unit_rows(31, 20, 12)), gaussian(32, 10, 12, dtype=F32), SubspacePursuit(3))


@every_pursuit
def test_a_subclass_is_the_references(pursuit):
    class Doubled(pursuit):
        def __call__(self, dictionary, data):
            codes = super().__call__(dictionary, data)
            return codes._replace(values=2 * codes.values)

    dictionary, data = unit_rows(33, 40, 20), gaussian(34, 300, 20)
    mine = Doubled(3)
    expected = reference.encode(tied(dictionary), data, mine)
    torch.testing.assert_close(cpu.encode(tied(dictionary), data, mine), expected)
    found = cpu.sparse_encode(tied(dictionary), data, mine).dense(40)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, cpu.encode(tied(dictionary), data, pursuit(3)))
    sums = cpu.step(tied(dictionary), data, mine)
    assert_sums(sums, reference.step(tied(dictionary), data, mine), F64)
    assert not active(sums.bias).any()


# --- sums ------------------------------------------------------------------------------------


def dense_sums(parameters, data, codes):
    """The formulas, term by term."""
    dense = codes.dense(len(parameters.bias)).double()
    residual = data.double() - dense @ parameters.dictionary.double()
    return reference.StepSums(
        losses=residual.square().sum(dim=1) / 2,
        dictionary=-dense.T @ residual,
        bias=torch.zeros(len(parameters.bias), dtype=F64),
        counts=(dense != 0).sum(dim=0),
        energy=dense.square().sum(dim=0),
        n_samples=len(data),
    )


def assert_sums(found, expected, dtype, loose=1.0):
    assert found.n_samples == expected.n_samples
    for name in PARTS:
        part, want = getattr(found, name), getattr(expected, name).double()
        assert part.dtype == dtype, name
        size = max([1.0, *want.abs().reshape(-1).tolist()])
        bar = loose * 100 * epsilon(dtype) * size
        torch.testing.assert_close(part.double(), want, rtol=0, atol=bar, msg=name)


def scattered(seed, n_samples, m, width, dtype, on=0.6):
    """Codes with zeros anywhere, also at units that are listed twice; units in any order."""
    rng = np.random.default_rng(seed)
    indices = rng.permuted(np.tile(np.arange(m), (n_samples, 1)), axis=1)[:, :width].copy()
    values = rng.standard_normal((n_samples, width)) * (rng.random((n_samples, width)) < on)
    if width > 1:
        clash = values[:, 0] == 0
        indices[clash, 0] = indices[clash, 1]
    return SparseCodes(torch.from_numpy(indices), torch.from_numpy(values).to(dtype))


every_kernel = pytest.mark.parametrize("kernel", [reference, cpu], ids=["dense", "cpu"])


@every_kernel
@every_dtype
@pytest.mark.parametrize("on", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("n_samples", "m", "n", "width"),
    [(0, 5, 4, 2), (1, 1, 1, 1), (40, 17, 9, 5), (40, 33, 70, 33), (700, 20, 8, 3)],
)
def test_sums_of_given_codes(kernel, dtype, on, n_samples, m, n, width):
    parameters = tied(unit_rows(35, m, n, dtype))
    data = gaussian(36, n_samples, n, dtype=dtype)
    codes = scattered(37, n_samples, m, width, dtype, on)
    before = codes.indices.clone(), codes.values.clone()
    sums = kernel.coded_step(parameters, data, codes)
    assert_sums(sums, dense_sums(parameters, data, codes), dtype)
    assert all(map(torch.equal, before, codes))
    assert not active(sums.bias).any()


@every_kernel
def test_sums_of_more_samples_than_a_tile(kernel, monkeypatch):
    monkeypatch.setattr(cpu, "tile_rows", lambda m, n: 64)
    monkeypatch.setattr(reference, "_TILE", 64)
    parameters, data = tied(unit_rows(38, 20, 9)), gaussian(39, 200, 18)[:, ::2]
    codes = scattered(40, 200, 20, 4, F64)
    assert_sums(
        kernel.coded_step(parameters, data, codes), dense_sums(parameters, data, codes), F64
    )


@every_kernel
def test_gradient_of_given_codes_by_differences(kernel):
    dictionary, data = unit_rows(41, 7, 5), gaussian(42, 12, 5)
    codes = scattered(43, 12, 7, 3, F64)

    def loss(change):
        parameters = tied(dictionary + change)
        return kernel.coded_step(parameters, data, codes).losses.sum().item()

    gradient = kernel.coded_step(tied(dictionary), data, codes).dictionary
    for i in range(7):
        for j in range(5):
            change = torch.zeros_like(dictionary)
            change[i, j] = 1e-4
            slope = (loss(change) - loss(-change)) / 2e-4
            assert abs(slope - gradient[i, j]) < 1e-8


@every_kernel
@every_pursuit
@every_sign
@every_dtype
def test_step_is_that_of_its_codes(kernel, pursuit, signed, dtype):
    parameters = tied(unit_rows(44, 40, 24, dtype))
    data, chosen = gaussian(45, 300, 24, dtype=dtype), pursuit(4, signed)
    sums = kernel.step(parameters, data, chosen)
    codes = kernel.sparse_encode(parameters, data, chosen)
    assert_sums(sums, kernel.coded_step(parameters, data, codes), dtype)
    assert_sums(sums, dense_sums(parameters, data, codes), dtype)


@every_pursuit
@every_sign
def test_step_is_the_references(pursuit, signed):
    parameters, data = tied(unit_rows(46, 40, 24)), gaussian(47, 400, 24)
    chosen = pursuit(4, signed)
    loose = 1e9 if pursuit is IterativeHardThresholding else 100
    expected = reference.step(parameters, data, chosen)
    assert_sums(cpu.step(parameters, data, chosen), expected, F64, loose)
    again = repeated(data, chosen)
    assert_sums(again(parameters), expected, F64, loose)
    moved = tied(unit_rows(48, 40, 24))
    assert_sums(again(moved), reference.step(moved, data, chosen), F64, loose)


@pytest.mark.parametrize("signed", [True, False])
def test_step_of_a_fit_is_the_gradient_of_the_least_loss(signed):
    """The codes' own change adds nothing: the loss is at its least in them."""
    dictionary, data, chosen = unit_rows(49, 12, 8), gaussian(50, 30, 8), SubspacePursuit(2, signed)
    gradient = cpu.step(tied(dictionary), data, chosen).dictionary
    change = gaussian(51, 12, 8)

    def loss(size):
        return cpu.step(tied(dictionary + size * change), data, chosen).losses.sum().item()

    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert abs(slope - (gradient * change).sum().item()) < 1e-5


def test_ties_of_activations_keep_their_part_of_the_encoder():
    """Only pursuits lose it."""
    parameters, data = tied(unit_rows(52, 20, 12)), gaussian(53, 50, 12)

    def line(z):
        return Activated(z, torch.ones_like(z))

    found = cpu.step(parameters, data, line)
    assert active(found.bias).any()


@every_pursuit
def test_the_chosen_kernel_is_asked(pursuit, monkeypatch):
    parameters, data = tied(unit_rows(56, 20, 12)), gaussian(57, 10, 12)
    assert choose(data) is cpu
    called = []
    monkeypatch.setattr(cpu, "Pursuer", lambda *_: called.append(1) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        repeated(data, pursuit(2))(parameters)
    with use("reference"):
        repeated(data, pursuit(2))(parameters)
    assert called == [1]


# --- least squares on a support, and an error per row ----------------------------------------


@every_sign
@every_dtype
@pytest.mark.parametrize(
    ("m", "n", "k", "n_samples"), [(30, 16, 4, 50), (200, 64, 20, 40), (40, 64, 6, 1), (9, 5, 3, 0)]
)
def test_least_squares_is_the_references(signed, dtype, m, n, k, n_samples):
    dictionary, data = unit_rows(40, m, n, dtype), gaussian(41, n_samples, n, dtype=dtype)
    rng = np.random.default_rng(42)
    units = rng.permuted(np.tile(np.arange(m), (n_samples, 1)), axis=1)[:, :k].copy()
    values = rng.standard_normal(units.shape) * (rng.random(units.shape) < 0.7)
    support = SparseCodes(torch.from_numpy(units), torch.from_numpy(values).to(dtype))
    expected = least_squares(dictionary, data, support, signed=signed)
    found = fast_least_squares(dictionary, data, support, signed=signed)
    assert torch.equal(found.indices, support.indices)
    assert found.values.dtype == dtype
    bar = 1e-10 if dtype == F64 else 2e-4
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=bar)
    assert torch.equal(active(found.values), active(expected.values))
    if not signed:
        assert (found.values >= 0).all()


@every_dtype
def test_least_squares_of_dependent_atoms_rebuilds_the_same(dtype):
    first, second = unit_rows(43, 2, 8, dtype)
    dictionary = torch.stack([first, first, second, -first])
    data = (2.0 * first + 3.0 * second)[None].contiguous()
    support = SparseCodes(torch.tensor([[0, 1, 2, 3]]), torch.ones(1, 4, dtype=dtype))
    found = fast_least_squares(dictionary, data, support)
    bar = 1000 * epsilon(dtype)
    torch.testing.assert_close(found.reconstruct(dictionary), data, rtol=0, atol=bar)
    assert found.values.abs().max() < 4


@every_sign
@every_dtype
@pytest.mark.parametrize("tolerance", [0.02, 0.3, 1.0])
def test_matching_pursuit_up_to_an_error_is_the_references(signed, dtype, tolerance):
    dictionary, data = unit_rows(44, 60, 24, dtype), gaussian(45, 100, 24, dtype=dtype)
    pursuit = OrthogonalMatchingPursuit(24, signed, tolerance)
    expected = pursuit(dictionary, data).dense(60)
    with use("auto"):
        found = cpu.encode(tied(dictionary), data, pursuit)
    same = (active(found) == active(expected)).all(dim=1)
    assert same.double().mean() > (0.95 if dtype == F32 else 0.999)
    torch.testing.assert_close(found[same], expected[same], rtol=1e-3, atol=1e-3)
    if signed:
        left = losses(dictionary, data, found) / data.double().square().sum(dim=1)
        assert left.max() <= tolerance + 1e-5
        # One atom less leaves more: the last one taken was needed.
        fewer = active(found).sum(dim=1)
        for row in range(20):
            if fewer[row] > 1:
                short = OrthogonalMatchingPursuit(int(fewer[row]) - 1)(dictionary, data[row][None])
                rest = losses(dictionary, data[row][None], short.dense(60))
                assert rest / data[row].double().square().sum() > tolerance - 1e-5

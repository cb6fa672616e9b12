"""Gates that a batch shares, and thresholds for each unit: the kernel against the reference."""

import pytest
import torch
from tests.made import gaussian, unit_rows

from shoal.network import kernels
from shoal.network.activations import BatchTopK, JumpReLU
from shoal.network.kernels import cpu, reference
from shoal.vocabulary import Parameters

DTYPES = [torch.float32, torch.float64]


def made(dtype, m=90, n=40, *, encoder=True, offset=True, threshold=False):
    atoms = unit_rows(0, m, n, dtype)
    own = 0.6 * atoms + 0.05 * gaussian(2, m, n, dtype=dtype) if encoder else None
    return Parameters(
        atoms,
        0.1 * gaussian(1, m, dtype=dtype),
        own,
        0.8 + 0.3 * gaussian(4, m, dtype=dtype) if threshold else None,
        gaussian(3, n, dtype=dtype) if offset else None,
    )


def agree(one, other, dtype):
    close = {"rtol": 1e-4, "atol": 1e-3} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    for name, mine, theirs in zip(one._fields, one, other, strict=True):
        assert (mine is None) == (theirs is None), name
        if mine is not None and name != "n_samples":
            torch.testing.assert_close(
                mine, theirs, msg=lambda text, n=name: f"{n}: {text}", **close
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [3, 300, 1500])
@pytest.mark.parametrize("k", [1, 6])
def test_codes_that_rows_share_are_the_reference_s(dtype, rows, k):
    parameters, data = made(dtype), gaussian(7, rows, 40, dtype=dtype)
    data[::3] *= 4  # some rows have most of the codes
    activation = BatchTopK(k)
    assert kernels.choose(data, parameters, activation) is cpu
    codes = reference.encode(parameters, data, activation)
    found = cpu.encode(parameters, data, activation)
    assert torch.equal(found != 0, codes != 0)
    assert int((found != 0).sum()) == k * rows
    agree(
        cpu.step(parameters, data, activation), reference.step(parameters, data, activation), dtype
    )


def test_ties_go_to_the_first_rows():
    parameters = Parameters(torch.eye(40), torch.zeros(40))
    data = torch.ones(200, 40)
    found = cpu.encode(parameters, data, BatchTopK(2))
    assert torch.equal(found, reference.encode(parameters, data, BatchTopK(2)))
    assert bool(found[:10].all())
    assert not bool(found[10:].any())


def test_where_fewer_are_above_zero_all_of_them_are_codes():
    parameters = Parameters(torch.eye(40), torch.zeros(40))
    data = -torch.ones(300, 40)
    data[5, 7] = 1.0
    found = cpu.encode(parameters, data, BatchTopK(2))
    assert int((found != 0).sum()) == 1
    assert found[5, 7] == 1


@pytest.mark.parametrize("k", [30, 90, 200])
def test_where_many_are_active_the_reference_codes(k):
    parameters, data = made(torch.float64), gaussian(7, 50, 40, dtype=torch.float64)
    expected = reference.step(parameters, data, BatchTopK(k))
    agree(cpu.step(parameters, data, BatchTopK(k)), expected, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("encoder", "offset"), [(True, True), (False, False), (True, False)])
@pytest.mark.parametrize("window", [0.01, 0.6, 2.5])
def test_thresholds_of_units_are_the_reference_s(dtype, encoder, offset, window):
    parameters = made(dtype, encoder=encoder, offset=offset, threshold=True)
    parameters.threshold[3] = -0.2  # as low as 0
    parameters = parameters._replace(threshold=2 * parameters.threshold)
    data, activation = gaussian(7, 700, 40, dtype=dtype), JumpReLU(window=window)
    if dtype == torch.float32:  # no score so near to where the slope jumps
        data = data.double().to(dtype)
    assert kernels.choose(data, parameters, activation) is cpu
    codes = reference.encode(parameters, data, activation)
    torch.testing.assert_close(
        cpu.encode(parameters, data, activation), codes, atol=1e-5, rtol=1e-5
    )
    agree(
        cpu.step(parameters, data, activation), reference.step(parameters, data, activation), dtype
    )


def test_low_thresholds_are_left_to_the_reference():
    parameters = made(torch.float64, threshold=True)
    parameters.threshold.fill_(0.0)
    data = gaussian(7, 100, 40, dtype=torch.float64)
    expected = reference.step(parameters, data, JumpReLU(window=0.3))
    agree(cpu.step(parameters, data, JumpReLU(window=0.3)), expected, torch.float64)
    assert expected.near is not None


def test_on_the_way_from_sparse_to_dense_tiles_the_sums_stay_the_reference_s():
    parameters = made(torch.float64, threshold=True)
    data = gaussian(7, 9000, 40, dtype=torch.float64)
    data[:5000] *= 0.1
    data[5000:] *= 5
    activation = JumpReLU(window=0.3)
    expected = reference.step(parameters, data, activation)
    agree(cpu.step(parameters, data, activation), expected, torch.float64)

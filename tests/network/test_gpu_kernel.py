"""The sparse kernel for GPUs before the float64 reference: every decision, every sum.

Its torch operators run here on any machine, its Triton kernels in Triton's interpreter where
Triton is installed, and both on the device where there is one.
"""

import contextlib
import importlib.util
import math
import os
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from shoal.network import HardThreshold, ReLU, Sigmoid, Softplus, TopK, encode, loss
from shoal.network.kernels import gpu, reference
from shoal.vocabulary import Parameters, active

BF16, F32, F64 = torch.bfloat16, torch.float32, torch.float64
# What the encoder product is tried in, for float32 data. The first is what a GPU does.
ROUTES = [(BF16, F32, F64), (BF16, F64), (F32, F64), (F64,)]
GATES = [
    ReLU(),
    HardThreshold(0.0),
    HardThreshold(0.7),
    HardThreshold(0.7, signed=False),
    HardThreshold(1e9),  # nobody is active
    HardThreshold(1e300),  # nor here; no float32
    TopK(1),
    TopK(3),
    TopK(3, signed=False),
    TopK(1000),  # everybody is
]
SHAPES = [(9, 7, 5), (1, 6, 4), (7, 1, 4), (6, 5, 1), (1, 1, 1), (33, 90, 16)]  # B m n

every_gate = pytest.mark.parametrize("activation", GATES, ids=str)
every_route = pytest.mark.parametrize(
    "route", ROUTES, ids=lambda route: "-".join(str(each)[6:] for each in route)
)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
triton_here = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


@pytest.fixture
def take(monkeypatch):
    """A function that fixes the route, and by default the sparse way at any activity."""

    def fix(route, dense=1.0):
        monkeypatch.setattr(gpu, "DENSE", dense)
        monkeypatch.setattr(gpu, "_precisions", lambda data: route if data.dtype == F32 else (F64,))

    return fix


def problem(shape, seed=0, dtype=F32, device="cpu"):
    """Parameters and data with no structure."""
    n_samples, m, n = shape
    generator = torch.Generator().manual_seed(seed)
    dictionary, data, bias = (
        torch.randn(size, generator=generator, dtype=F64).to(device, dtype)
        for size in ((m, n), (n_samples, n), (m,))
    )
    return Parameters(dictionary, 0.3 * bias), data


def wide(parameters):
    return parameters.map(lambda part: part.double())


def supports(parameters, data, activation):
    """Support (B, m) by the kernel and by float64 arithmetic."""
    found = gpu.sparse_encode(parameters, data, activation)
    expected = active(encode(wide(parameters), data.double(), activation))
    return active(found.dense(len(parameters.bias))), expected


def same_support(parameters, data, activation):
    found, expected = supports(parameters, data, activation)
    assert torch.equal(found, expected)


def agrees(parameters, data, activation):
    """All that the kernel gives equals the float64 reference and autograd, within rounding."""
    exact, y = wide(parameters), data.double()
    leaves = exact.map(lambda part: part.clone().requires_grad_())
    gradient = torch.autograd.grad(loss(leaves, y, activation), leaves[:2])
    expected = reference.step(exact, y, activation)
    eps = torch.finfo(data.dtype).eps

    def close(one, judge):
        assert one.dtype == data.dtype
        assert one.device == data.device
        assert one.shape == judge.shape
        scale = float(judge.abs().max()) if judge.numel() else 0.0
        torch.testing.assert_close(one.double(), judge, rtol=0, atol=200 * eps * scale)

    sums = gpu.step(parameters, data, activation)
    for name in ("dictionary", "bias", "losses", "counts", "energy"):
        close(getattr(sums, name), getattr(expected, name))
    close(sums.dictionary, gradient[0] * len(data))
    close(sums.bias, gradient[1] * len(data))
    assert torch.equal(sums.counts.double(), expected.counts)
    assert sums.n_samples == len(data)

    codes = encode(exact, y, activation)
    close(gpu.encode(parameters, data, activation), codes)
    found = gpu.sparse_encode(parameters, data, activation)
    on = active(found.values)
    assert found.values.shape[1] == max(1, int(active(codes).sum(dim=1).max()))
    close(found.dense(codes.shape[1]), codes)
    assert torch.equal(on.sum(dim=1), active(codes).sum(dim=1))
    # Active units first and ascending, then nothing, at unit 0.
    assert (on[:, 1:] <= on[:, :-1]).all()
    assert (found.indices.diff(dim=1)[on[:, 1:]] > 0).all()
    assert (found.indices[~on] == 0).all()


# --- agreement -------------------------------------------------------------------------------


@every_route
@every_gate
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees(take, route, activation, shape):
    take(route)
    agrees(*problem(shape), activation)


@every_gate
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_in_float64(take, activation, shape):
    take((F64,))
    agrees(*problem(shape, dtype=F64), activation)


@pytest.mark.parametrize("dense", [0.0, 1 / 8, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.12, 0.13, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_agrees_at_every_activity(take, dense, share, dtype):
    take(ROUTES[0], dense)
    parameters, data = problem((24, 200, 12), dtype=dtype)
    z = data.double() @ parameters.dictionary.double().T + parameters.bias.double()
    height = z.abs().flatten().sort(descending=True).values
    at = int(share * (len(height) - 1))
    threshold = 0.0 if share == 1 else float(height[at : at + 2].mean())
    agrees(parameters, data, HardThreshold(threshold))
    agrees(parameters, data, TopK(max(1, int(share * 200))))


@pytest.mark.parametrize("shape", [(3, 1100, 5), (5, 40, 300), (70, 9, 1)])
@every_route
def test_agrees_beyond_one_block(take, route, shape):
    take(route)
    for activation in (HardThreshold(3.0), TopK(4), TopK(2, signed=False)):
        agrees(*problem(shape), activation)


@pytest.mark.parametrize("tile", [1, 2**12, 2**15])
@every_gate
@every_route
def test_the_cut_into_tiles_changes_no_decision(take, monkeypatch, tile, route, activation):
    take(route, dense=1 / 4)
    parameters, data = problem((21, 60, 7), seed=1)
    whole = gpu.step(parameters, data, activation)
    codes = gpu.encode(parameters, data, activation)
    monkeypatch.setattr(gpu, "TILE_BYTES", tile)
    monkeypatch.setattr(gpu, "GATHER_BYTES", 64)
    found = gpu.step(parameters, data, activation)
    for one, other in zip(found[:5], whole[:5], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
    assert torch.equal(active(gpu.encode(parameters, data, activation)), active(codes))
    agrees(parameters, data, activation)


class Sizes(TorchDispatchMode):
    """Notes the bytes of the largest tensor made."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(each, torch.Tensor):
                self.largest = max(self.largest, each.numel() * each.element_size())
        return made


@every_route
@pytest.mark.parametrize("activation", [TopK(3), HardThreshold(9.0), ReLU()], ids=str)
def test_memory_does_not_grow_with_the_batch(take, monkeypatch, route, activation):
    take(route, dense=1 / 8)
    monkeypatch.setattr(gpu, "TILE_BYTES", 2**18)
    monkeypatch.setattr(gpu, "GATHER_BYTES", 2**16)
    parameters, data = problem((2000, 100, 8), seed=2)
    with Sizes() as sizes:
        gpu.step(parameters, data, activation)
    assert sizes.largest <= 2**18  # of 800 000 bytes that scores of the batch would take
    if not isinstance(activation, ReLU):
        with Sizes() as sizes:
            gpu.sparse_encode(parameters, data, activation)
        assert sizes.largest <= 2**18


# --- the bound -------------------------------------------------------------------------------


def halfway(shape):
    """Numbers a hair below the middle of two bfloat16s: all errors are as large as can be."""
    return torch.full(shape, 1 + 2.0**-8 - 2.0**-20)


BOUND_CASES = {
    "plain": lambda g: (torch.randn(40, 33, generator=g), torch.randn(30, 33, generator=g)),
    "aligned": lambda g: (halfway((5, 64)), halfway((4, 64))),
    "data alone": lambda g: (halfway((5, 64)), torch.ones(4, 64)),
    "atoms alone": lambda g: (torch.ones(5, 64), halfway((4, 64))),
    "offset": lambda g: (1e3 + torch.randn(20, 33, generator=g), torch.randn(9, 33, generator=g)),
    "tiny": lambda g: tuple(1e-22 * torch.randn(9, 33, generator=g) for _ in "ab"),
    "below normal": lambda g: (
        1e-39 * torch.randn(9, 33, generator=g),
        torch.randn(9, 33, generator=g),
    ),
    "huge": lambda g: tuple(1e17 * torch.randn(9, 33, generator=g) for _ in "ab"),
    "all lengths": lambda g: (
        10.0 ** torch.arange(-30, 15)[:, None] * torch.randn(45, 33, generator=g),
        10.0 ** torch.arange(-20, 15)[:, None] * torch.randn(35, 33, generator=g),
    ),
    "zero": lambda g: (torch.zeros(3, 5), torch.randn(4, 5, generator=g)),
    "one feature": lambda g: (torch.randn(50, 1, generator=g), torch.randn(50, 1, generator=g)),
}


@pytest.mark.parametrize("bias", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [BF16, F32])
@pytest.mark.parametrize("case", BOUND_CASES)
def test_the_bound_holds(case, dtype, bias):
    generator = torch.Generator().manual_seed(3)
    data, dictionary = BOUND_CASES[case](generator)
    parameters = Parameters(dictionary, bias * torch.randn(len(dictionary), generator=generator))
    product = gpu._Product(parameters, dtype)
    scores, slack = product(data)
    exact = data.double() @ dictionary.double().T + parameters.bias.double()
    z = (scores.float() + parameters.bias).double()
    bound = product.share * scores.double().abs() + slack.double()[:, None]
    assert slack.isfinite().all()
    assert ((z - exact).abs() <= bound).all()
    if case == "aligned" and dtype == BF16 and bias == 0:
        made = (exact - 64).abs().min()  # rounding takes nearly 2^-8 of each factor
        assert made > 0.9 * slack.max()  # the bound is hardly more than what happens


def test_the_bound_is_of_use():
    parameters, data = problem((50, 60, 256), seed=4)
    lengths = data.norm(dim=1) * parameters.dictionary.norm(dim=1).max()
    assert (gpu._Product(parameters, BF16)(data)[1] < 2.0**-8 * lengths).all()
    assert (gpu._Product(parameters, F32)(data)[1] < 2.0**-13 * lengths).all()


def test_what_might_overflow_has_no_bound():
    parameters, data = problem((4, 5, 6), seed=5)
    data[0], data[1, 2], data[2, 3] = 1e38, torch.inf, torch.nan
    for dtype in (BF16, F32):
        assert gpu._Product(parameters, dtype)(data)[1].isinf().tolist() == [1, 1, 1, 0]
    for part in parameters[:2]:
        spoilt = part.clone()
        spoilt[0] = torch.nan
        other = Parameters(*(spoilt if part is each else each for each in parameters))
        assert gpu._Product(other, BF16)(data)[1].isinf().all()


# --- decisions -------------------------------------------------------------------------------


def whole_numbers(seed=6, shape=(40, 120, 12), size=999):
    """Data of more digits than bfloat16 has, products that float64 has exactly, many ties."""
    generator = torch.Generator().manual_seed(seed)
    n_samples, m, n = shape
    dictionary = torch.randint(-1, 2, (m, n), generator=generator).float()
    data = torch.randint(-size, size + 1, (n_samples, n), generator=generator).float()
    bias = torch.randint(-2, 3, (m,), generator=generator).float()
    return Parameters(dictionary, bias), data


@every_route
@pytest.mark.parametrize("size", [1, 3, 999])
def test_ties_go_to_the_lowest_index(take, route, size):
    take(route)
    parameters, data = whole_numbers(size=size)
    for k in (1, 2, 5, 40):
        for signed in (True, False):
            same_support(parameters, data, TopK(k, signed))


@every_route
def test_ties_among_equal_atoms_go_to_the_lowest_index(take, route):
    take(route)
    parameters, data = problem((30, 40, 9), seed=7)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(8)) % 40
    copies = Parameters(parameters.dictionary[order], parameters.bias[order])
    for activation in (TopK(1), TopK(4), TopK(5, signed=False)):
        found, _ = supports(copies, data, activation)
        # Equal atoms: of each kind the first ones are taken.
        for kind in range(40):
            among = found[:, order == kind].int()
            assert (among.diff(dim=1) <= 0).all()
        z = data.double() @ wide(copies).dictionary.T + copies.bias.double()
        height = z.abs() if activation.signed else z
        lowest = height.masked_fill(~found, torch.inf).amin(dim=1)
        highest = height.masked_fill(found, -torch.inf).amax(dim=1)
        assert (lowest >= highest - 1e-12).all()
        assert (found.sum(dim=1) == activation.k).all()


@every_route
def test_a_unit_at_the_threshold_is_inactive(take, route):
    take(route)
    parameters, data = whole_numbers(size=99)
    z = data @ parameters.dictionary.T + parameters.bias
    for threshold in (0.0, 1.0, 57.0):
        assert (z == threshold).any()
        for signed in (True, False):
            same_support(parameters, data, HardThreshold(threshold, signed))


@every_route
@pytest.mark.parametrize("threshold", [0.7, 0.1, 1 / 3, 1e-3])
def test_a_threshold_between_two_float32s(take, route, threshold):
    take(route)
    near = torch.tensor([threshold])
    around = [torch.nextafter(near, torch.tensor(end)) for end in (math.inf, -math.inf)]
    data = torch.cat([near, *around])[:, None] * torch.tensor([[1.0, 0.0, -1.0]])
    eye = Parameters(torch.eye(3), torch.zeros(3))
    found, expected = supports(eye, data, HardThreshold(threshold))
    assert torch.equal(found, expected)
    assert 2 <= int(found.sum()) <= 4  # 0.7 rounds down, 0.1 up


@every_route
@every_gate
def test_rows_and_atoms_of_zeros(take, route, activation):
    take(route)
    parameters, data = problem((8, 90, 6), seed=9)
    data[::2] = 0
    agrees(parameters, data, activation)
    parameters.dictionary[::3] = 0
    agrees(parameters, data, activation)
    parameters.bias.zero_()
    agrees(parameters, data, activation)
    agrees(Parameters(torch.zeros(90, 6), parameters.bias), data, activation)
    agrees(parameters, torch.zeros(3, 6), activation)


@pytest.mark.parametrize("exponent", [-44, -39, -30, -20, -10, 10, 17])
@every_route
def test_decisions_at_every_scale(take, route, exponent):
    take(route)
    parameters, data = problem((12, 150, 8), seed=10)
    data = data * 10.0**exponent
    no_bias = Parameters(parameters.dictionary, torch.zeros(150))
    for activation in (TopK(3), TopK(2, signed=False), HardThreshold(10.0**exponent)):
        found, expected = supports(no_bias, data, activation)
        if exponent > -39:
            assert torch.equal(found, expected)
        else:  # a code may be too small for float32: then its unit is not active
            assert (found <= expected).all()
            codes = encode(wide(no_bias), data.double(), activation)
            assert not (expected & ~found & (codes.abs() > 1e-45)).any()


@every_route
def test_the_bound_is_needed_in_full(take, route):
    # Rounding to bfloat16 lifts unit 0 and lowers unit 1, each by all that the bound allows.
    take(route)
    more, less = 1 + 2.0**-8 + 2.0**-20, 1 + 2.0**-8 - 2.0**-20
    half = torch.ones(32)
    dictionary = torch.stack(
        [torch.cat([more * half, -less * half]), torch.cat([less * half, -more * half])]
    )
    data = torch.ones(1, 64)
    for bias, winner in ((2.0**-12, 1), (2.0**-14, 0)):  # the products differ by 2^-13
        parameters = Parameters(dictionary, torch.tensor([0.5, 0.5 + bias]))
        for signed in (True, False):
            found = gpu.sparse_encode(parameters, data, TopK(1, signed))
            assert found.indices.tolist() == [[winner]]
    for threshold in (0.5, 0.5001, 0.5002):
        for signed in (True, False):
            same_support(parameters, data, HardThreshold(threshold, signed))
    below = Parameters(dictionary, torch.tensor([-1.0, 0.5 + 2.0**-12]))
    assert gpu.encode(below, data, HardThreshold(0.5))[0].tolist()[1] > 0.5


def test_products_beyond_float32(take):
    take(ROUTES[0])
    parameters, data = problem((6, 90, 8), seed=11)
    large = Parameters(1e10 * parameters.dictionary, parameters.bias)
    same_support(large, 1e27 * data, TopK(3))
    same_support(large, 1e27 * data, HardThreshold(1e37))
    same_support(large, 1e30 * data, TopK(3))  # codes are infinite, and only the three


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_row_does_not_touch_the_others(take, bad):
    take(ROUTES[0])
    parameters, data = problem((9, 80, 6), seed=12)
    spoilt = data.clone()
    spoilt[4, 2] = bad
    good = [row for row in range(9) if row != 4]
    for activation in (TopK(3), HardThreshold(1.0)):
        found = gpu.encode(parameters, spoilt, activation)[good]
        assert torch.equal(found, gpu.encode(parameters, data, activation)[good])
        losses = gpu.step(parameters, spoilt, activation).losses[good]
        assert torch.equal(losses, gpu.step(parameters, data, activation).losses[good])


def offset_problem():
    """Atoms that don't see the mean of the data, which is all that a coarse product sees."""
    generator = torch.Generator().manual_seed(13)
    parameters, data = problem((15, 400, 16), seed=13)
    sixteenths = torch.randint(-32, 33, (400, 16), generator=generator).float() / 16
    sixteenths[:, 0] -= sixteenths.sum(dim=1)
    return Parameters(sixteenths, parameters.bias), data


@pytest.mark.parametrize("offset", [0.0, 1.0, 30.0, 1e3, 1e5])
@pytest.mark.parametrize("route", ROUTES[:3])
def test_decisions_that_a_coarse_product_cannot_make(take, monkeypatch, route, offset):
    take(route)
    parameters, data = offset_problem()
    data = data + offset
    tried = []
    call = gpu._Product.__call__
    exact = gpu._Encoder._exact
    monkeypatch.setattr(
        gpu._Product, "__call__", lambda self, y: tried.append(self.dtype) or call(self, y)
    )
    monkeypatch.setattr(gpu._Encoder, "_exact", lambda self, y: tried.append(F64) or exact(self, y))
    for activation in (TopK(3), TopK(3, signed=False)):
        tried.clear()
        same_support(parameters, data, activation)
        if offset == 1e5:
            assert set(tried) == set(route)  # all of them were needed
        if offset == 0:
            assert F64 not in tried
    monkeypatch.setattr(gpu, "DENSE", 1 / 8)
    for threshold in (6.0, 8.0):
        same_support(parameters, data, HardThreshold(threshold))


def test_rows_that_need_more_are_put_in_their_places(take):
    take(ROUTES[0])
    parameters, data = offset_problem()
    data[::4] += 1e5
    data[1::4] += 30
    for activation in (TopK(3), TopK(2, signed=False)):
        agrees(parameters, data, activation)


# --- which way is taken ----------------------------------------------------------------------


def refuse(*arguments):
    raise AssertionError("the dense way was taken")


def test_few_active_units_take_the_sparse_way(monkeypatch):
    parameters, data = problem((6, 64, 9), seed=14)
    expected = [reference.step(parameters, data, each) for each in (TopK(8), HardThreshold(6.0))]
    for name in ("step", "encode", "sparse_encode"):
        monkeypatch.setattr(reference, name, refuse)
    for activation, sums in zip((TopK(8), HardThreshold(6.0)), expected, strict=True):
        found = gpu.step(parameters, data, activation)
        torch.testing.assert_close(found.dictionary, sums.dictionary, rtol=1e-4, atol=1e-3)
        gpu.encode(parameters, data, activation)
        gpu.sparse_encode(parameters, data, activation)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("activation", [TopK(9), ReLU(), HardThreshold(0.1)], ids=str)
def test_many_active_units_take_the_dense_way(monkeypatch, activation, dtype):
    monkeypatch.setattr(gpu, "_add_step_", refuse)
    agrees_with = problem((6, 64, 9), seed=15, dtype=dtype)
    agrees(*agrees_with, activation)


@pytest.mark.parametrize("activation", [Sigmoid(), Softplus()], ids=str)
def test_other_activations_are_the_reference_s(activation):
    parameters, data = problem((6, 5, 4), seed=16)
    for name in ("step", "encode", "sparse_encode"):
        found = getattr(gpu, name)(parameters, data, activation)
        expected = getattr(reference, name)(parameters, data, activation)
        pairs = [(found, expected)] if name == "encode" else zip(found, expected, strict=True)
        for one, other in pairs:
            if one is None and other is None:  # a part that is not there
                continue
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_an_empty_batch():
    parameters, data = problem((1, 64, 4), seed=17)
    sums = gpu.step(parameters, data[:0], TopK(2))
    assert not any(part.any() for part in sums[:5])
    assert sums.losses.shape == (0,)
    assert gpu.encode(parameters, data[:0], TopK(2)).shape == (0, 64)
    assert gpu.sparse_encode(parameters, data[:0], TopK(2)).values.shape == (0, 1)


def test_layout_does_not_matter_inputs_stay_and_no_graph_is_kept(take):
    take(ROUTES[0])
    parameters, data = problem((12, 40, 6), seed=18)
    odd = Parameters(
        parameters.dictionary.T.contiguous().T.requires_grad_(),
        torch.stack([parameters.bias] * 2, dim=1)[:, 0],
    )
    view = data.T.contiguous().T
    before = [part.clone() for part in (*odd[:2], view)]
    for activation in (TopK(3), HardThreshold(2.0)):
        found = gpu.step(odd, view, activation)
        expected = gpu.step(parameters, data, activation)
        assert not found.dictionary.requires_grad
        for one, other in zip(found[:5], expected[:5], strict=True):
            assert torch.equal(one, other)
        assert torch.equal(
            gpu.encode(odd, view, activation), gpu.encode(parameters, data, activation)
        )
    assert all(map(torch.equal, (*odd[:2], view), before))


# --- torch's settings ------------------------------------------------------------------------


def test_the_settings_of_sums_are_put_back():
    settings = torch.backends.cuda.matmul
    name = "allow_bf16_reduced_precision_reduction"

    def state():
        return [getattr(settings, each, None) for each in (name, name + "_split_k")]

    before = state()
    try:
        for value in (True, False, *([(False, False)] if before[1] is not None else [])):
            setattr(settings, name, value)
            there = state()
            with gpu._float32_sums():
                assert state()[0] is False
            assert state() == there
        with contextlib.suppress(KeyError), gpu._float32_sums():
            raise KeyError
        assert state() == there
    finally:
        setattr(settings, name, before[0])


def test_a_float32_product_of_fewer_digits_is_not_relied_on():
    data = torch.zeros(1, 1)
    assert gpu._precisions(data) == (F32, F64)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert gpu._precisions(data) == (F64,)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert gpu._precisions(data.double()) == (F64,)


@pytest.mark.parametrize("number", [0.0, 0.5, 0.7, 0.1, 1e-50, 1e-40, 1e30, 1e39, 1e300])
def test_the_float32_below(number):
    found = gpu._float32_below(number)
    assert found <= number
    assert torch.tensor(found, dtype=F32).item() == found
    above = torch.nextafter(torch.tensor(found), torch.tensor(math.inf)).item()
    assert above > number


# --- Triton ----------------------------------------------------------------------------------

if gpu._INTERPRETED and gpu.triton is not None:
    # The tests above would do as well here, but take minutes: the interpreter is slow.

    @pytest.mark.parametrize("route", ROUTES[:1])
    @pytest.mark.parametrize("shape", [(3, 7, 5), (1, 1, 1), (3, 70, 16)])
    @every_gate
    def test_interpreted_agrees(take, route, activation, shape):
        assert gpu._by_triton(torch.zeros(1))
        take(route)
        agrees(*problem(shape, seed=19), activation)

    @every_gate
    def test_interpreted_agrees_in_float64(take, activation):
        take((F64,))
        agrees(*problem((3, 7, 5), seed=20, dtype=F64), activation)

    @pytest.mark.parametrize("shape", [(2, 1100, 5), (5, 40, 300)])
    def test_interpreted_agrees_beyond_one_block(take, shape):
        take(ROUTES[0])
        for activation in (HardThreshold(3.0), TopK(4), TopK(2, signed=False)):
            agrees(*problem(shape, seed=21), activation)

    @pytest.mark.parametrize("route", ROUTES[:2])
    def test_interpreted_decisions(take, route):
        take(route)
        parameters, data = whole_numbers(seed=22, shape=(8, 120, 12))
        for activation in (TopK(2), TopK(5, signed=False), HardThreshold(57.0), ReLU()):
            same_support(parameters, data, activation)
        data[::2] = 0
        parameters.bias.zero_()
        for activation in (TopK(2), TopK(5, signed=False), ReLU()):
            same_support(parameters, data, activation)
        parameters, data = offset_problem()
        data[::4] += 1e5
        data[1::4] += 30
        agrees(parameters, data, TopK(3))

    @pytest.mark.parametrize("dtype", [BF16, F32])
    @pytest.mark.parametrize("signed", [True, False])
    def test_interpreted_kernels_equal_torch_operators(dtype, signed):
        parameters, data = problem((6, 150, 40), seed=23)
        product = gpu._Product(parameters, dtype)
        scores, slack = product(data)
        slack[2] = torch.inf
        selection = scores, parameters.bias
        for group in (1, 4, 64, 256):
            found = gpu._group_maxima(*selection, product.share, signed, group)
            judge = gpu._group_maxima_by_torch(*selection, product.share, signed, group)
            assert torch.equal(found, judge)
        for level, floor, room in ((-1.0, 0.0, 150), (5.0, 9.0, 40), (9.0, 0.0, 30), (9e9, 0.0, 1)):
            levels = torch.full((6,), level)
            more = *selection, levels, slack, product.share, signed, floor, room
            for one, other in zip(gpu._mark(*more), gpu._mark_by_torch(*more), strict=True):
                assert torch.equal(one, other)

else:

    @triton_here
    def test_triton_in_its_interpreter():
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-k", "interpreted", __file__],
            env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
        assert " passed" in run.stdout
        assert "skipped" not in run.stdout

    POINTERS = {
        "_dots_kernel": [("left right dots", "F"), ("row unit", "i64")],
        "_residuals_kernel": [("data dictionary value residual", "F"), ("unit starts", "i64")],
        "_atoms_kernel": [
            ("data residual value back dictionary bias energy", "F"),
            ("row starts", "i64"),
        ],
        "_group_maxima_kernel": [("bias maxima", "fp32"), ("scores", "S")],
        "_mark_kernel": [
            ("bias level slack", "fp32"),
            ("scores", "S"),
            ("slots counts sure", "i32"),
        ],
    }
    BLOCKS = {"PAIRS": 8, "FEATURES": 256, "GROUP": 64, "GROUPS": 32, "SIGNED": True, "ATOMS": 1024}

    @triton_here
    @pytest.mark.parametrize("name", POINTERS)
    @pytest.mark.parametrize(("numbers", "scores"), [("fp32", "bf16"), ("fp64", "fp32")])
    def test_triton_compiles_for_a_device(name, numbers, scores, monkeypatch, tmp_path):
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        kernel = getattr(gpu, name)
        types = dict.fromkeys(kernel.arg_names, "i32")
        types |= dict.fromkeys(("share", "floor"), "fp32")
        for group, kind in POINTERS[name]:
            kind = {"F": numbers, "S": scores}.get(kind, kind)
            types |= dict.fromkeys(group.split(), "*" + kind)
        blocks = {key: value for key, value in BLOCKS.items() if key in kernel.arg_names}
        types |= dict.fromkeys(blocks, "constexpr")
        source = ASTSource(
            fn=kernel,
            signature={argument: types[argument] for argument in kernel.arg_names},
            constexprs=blocks,
        )
        target = GPUTarget("cuda", 90, 32)
        made = gpu.triton.compile(source, target=target, options=dict(gpu._OPTIONS))
        assert len(made.asm["cubin"]) > 1000
        assert ".ftz" not in made.asm["ptx"]  # numbers below 2^-126 are kept


# --- on the device ---------------------------------------------------------------------------


@pytest.fixture(params=["triton", "torch operators"])
def on_device(request, monkeypatch):
    if request.param == "torch operators":
        monkeypatch.setattr(gpu, "triton", None)
    elif gpu.triton is None:
        pytest.skip("Triton is not installed")


@cuda
@every_gate
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("shape", [*SHAPES, (300, 2000, 100)])
def test_on_a_device_agrees(on_device, activation, dtype, shape):
    agrees(*problem(shape, seed=24, dtype=dtype, device="cuda"), activation)


@cuda
def test_on_a_device_decisions(on_device):
    parameters, data = whole_numbers(seed=25, shape=(500, 3000, 12))
    parameters, data = parameters.map(lambda part: part.cuda()), data.cuda()
    for activation in (TopK(2), TopK(50), TopK(5, signed=False), HardThreshold(2000.0)):
        same_support(parameters, data, activation)
    parameters, data = offset_problem()
    data[::4] += 1e5
    data[1::4] += 30
    agrees(parameters.map(lambda part: part.cuda()), data.cuda(), TopK(3))


@cuda
@pytest.mark.parametrize("case", BOUND_CASES)
def test_on_a_device_the_bound_holds(case):
    data, dictionary = BOUND_CASES[case](torch.Generator().manual_seed(26))
    data, dictionary = data.cuda(), dictionary.cuda()
    for dtype in (BF16, F32):
        product = gpu._Product(Parameters(dictionary, torch.zeros_like(dictionary[:, 0])), dtype)
        scores, slack = product(data)
        error = (scores.double() - data.double() @ dictionary.double().T).abs()
        assert (error <= product.share * scores.double().abs() + slack.double()[:, None]).all()


@cuda
@triton_here
def test_on_a_device_the_same_bits_every_time():
    parameters, data = problem((2000, 3000, 200), seed=27, device="cuda")
    first = gpu.step(parameters, data, TopK(20))
    for _ in range(3):
        again = gpu.step(parameters, data, TopK(20))
        assert all(map(torch.equal, first[:5], again[:5]))


@cuda
def test_on_a_device_memory_does_not_grow_with_the_batch(on_device, monkeypatch):
    monkeypatch.setattr(gpu, "TILE_BYTES", 2**24)
    monkeypatch.setattr(gpu, "GATHER_BYTES", 2**22)
    peaks = []
    for n_samples in (4000, 40000):
        parameters, data = problem((n_samples, 1000, 64), seed=28, device="cuda")
        gpu.step(parameters, data, TopK(10))  # what libraries keep is taken before
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        gpu.step(parameters, data, TopK(10))
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < peaks[0] + 2**20

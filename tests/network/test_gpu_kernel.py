"""The kernel for GPUs before the float64 reference: every decision, every sum.

Its Triton kernels run in Triton's interpreter, in a process of its own, on any machine where Triton
is installed; on the device where there is one; and are compiled for one where there is none.
"""

import contextlib
import gc
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from shoal.network import HardThreshold, ReLU, Sigmoid, Softplus, TopK, encode, kernels, loss
from shoal.network.inference import (
    IterativeHardThresholding,
    OrthogonalMatchingPursuit,
    SubspacePursuit,
    ThresholdPursuit,
)
from shoal.network.kernels import reference
from shoal.network.pursuit import Look
from shoal.vocabulary import Parameters, active

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)  # `benchmarks` is run from the root and isn't installed

triton = pytest.importorskip("triton")
gpu, compiled, recorded = (
    pytest.importorskip(f"shoal.network.kernels.{name}")
    for name in ("gpu", "gpu_compiled", "recorded")
)

benchmark = pytest.importorskip("benchmarks.gpu")
launches, Launches = benchmark.launches, benchmark.Launches

BF16, F16, F32, F64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
# The interpreter is NumPy, which warns of what is no number.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# What the encoder product is made in. The first is what a GPU does.
ROUTES = [BF16, F32, F64]
# The interpreter takes some 10 ms for a program: there a few cases stand for all.
DEVICE = "cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda"
FEW = DEVICE == "cpu" and not os.environ.get("SHOAL_ALL_CASES")
GATES = [
    ReLU(),
    TopK(1),
    TopK(3, signed=False),
    HardThreshold(0.7),
    TopK(1000),  # everybody is active
    HardThreshold(1e300),  # nobody is; no float32
    *([] if FEW else [HardThreshold(0.0), HardThreshold(0.7, signed=False), TopK(3)]),
]
SHAPES = [(2, 7, 5), (1, 1, 1), (2, 70, 16)]  # B m n
SHAPES += [] if FEW else [(1, 6, 4), (7, 1, 4), (6, 5, 1), (33, 90, 16)]

every_gate = pytest.mark.parametrize("activation", GATES, ids=str)
every_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: str(route)[6:])
one_route = pytest.mark.parametrize("route", ROUTES[:1] if FEW else ROUTES, ids=str)
cuda = pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
runs = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="neither interpreter nor GPU")


def make_quick():
    """Let Triton's interpreter prepare its language once a launch, not at every function's call."""
    from triton.runtime import interpreter

    prepare, execute, done = interpreter._patch_lang, interpreter.GridExecutor.__call__, set()

    def prepare_once(function):
        languages = (triton.language, triton.language.core)
        key = [any(value is each for value in function.__globals__.values()) for each in languages]
        if tuple(key) in done:
            return interpreter._LangPatchScope()
        done.add(tuple(key))
        return prepare(function)

    def execute_once(*arguments, **options):
        done.clear()
        return execute(*arguments, **options)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = prepare_once, execute_once


if INTERPRETED:
    gc.set_threshold(100_000, 50, 50)  # it makes many small things
    with contextlib.suppress(AttributeError):  # of another version
        make_quick()


@pytest.fixture
def take(monkeypatch):
    """A function that fixes the coarse type, and by default the sparse way at any activity."""
    if DEVICE == "cpu" and not INTERPRETED:
        pytest.skip("neither interpreter nor GPU")

    def fix(route, dense=1.0):
        monkeypatch.setattr(gpu, "DENSE", dense)
        monkeypatch.setattr(gpu, "_precision", lambda data: route)

    return fix


def problem(shape, seed=0, dtype=F32):
    """Parameters and data with no structure."""
    n_samples, m, n = shape
    generator = torch.Generator().manual_seed(seed)
    dictionary, data, bias = (
        torch.randn(size, generator=generator, dtype=F64).to(DEVICE, dtype)
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


def agrees(parameters, data, activation, rounding=200):
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
        torch.testing.assert_close(one.double(), judge, rtol=0, atol=rounding * eps * scale)

    sums = gpu.step(parameters, data, activation)
    for name in ("dictionary", "bias", "losses", "counts", "energy"):
        close(getattr(sums, name), getattr(expected, name))
    close(sums.dictionary, gradient[0] * len(data))
    close(sums.bias, gradient[1] * len(data))
    assert torch.equal(sums.counts.double(), expected.counts)
    assert sums.n_samples == len(data)

    codes = encode(exact, y, activation)
    if not FEW or codes.shape[1] < 20:
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


@one_route
@every_gate
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees(take, route, activation, shape):
    take(route)
    agrees(*problem(shape), activation)


@pytest.mark.parametrize("route", [F32, F64])
def test_agrees_by_other_products(take, route):
    take(route)
    for activation in (TopK(3), ReLU()):
        agrees(*problem((2, 40, 6)), activation)


@every_gate
def test_agrees_in_float64(take, activation):
    for route in (BF16,) if FEW else (BF16, F64):
        take(route)
        agrees(*problem((2, 9, 5), dtype=F64), activation)


@pytest.mark.parametrize("dense", [1 / 8] if FEW else [0.0, 1 / 8, 1.0])
@pytest.mark.parametrize(
    "share", [0.1, 0.5] if FEW else [0.0, 0.01, 0.1, 0.12, 0.13, 0.5, 0.9, 1.0]
)
def test_agrees_at_every_activity(take, dense, share):
    take(BF16, dense)
    parameters, data = problem((2, 40, 12))
    z = data.double() @ parameters.dictionary.double().T + parameters.bias.double()
    height = z.abs().flatten().sort(descending=True).values
    at = int(share * (len(height) - 1))
    threshold = 0.0 if share == 1 else float(height[at : at + 2].mean())
    agrees(parameters, data, HardThreshold(threshold))
    agrees(parameters, data, TopK(max(1, int(share * 40))))


@pytest.mark.parametrize("shape", [(1, 1030, 3), (1, 16, 300), (9, 9, 1)])
def test_agrees_beyond_one_block(take, shape):
    take(BF16)
    for activation in (HardThreshold(9.0), TopK(4)):
        agrees(*problem(shape), activation)


@pytest.mark.parametrize("size", [0] if FEW else [0, 1 << 14])
def test_atoms_on_chip_or_read_again_give_the_same(take, monkeypatch, size):
    take(BF16)
    monkeypatch.setattr(compiled, "ON_CHIP", size)
    agrees(*problem((2, 40, 300), seed=1), TopK(11))


@pytest.mark.parametrize("tile", [1] if FEW else [1, 2**11])
@pytest.mark.parametrize(
    "activation", [TopK(3), TopK(2, signed=False), HardThreshold(6.0)], ids=str
)
def test_the_cut_into_tiles_changes_no_decision(take, monkeypatch, tile, activation):
    take(BF16, dense=1 / 4)
    parameters, data = problem((4, 32, 7), seed=1)
    whole = gpu.step(parameters, data, activation)
    codes = gpu.encode(parameters, data, activation)
    monkeypatch.setattr(gpu, "TILE_BYTES", tile)
    found = gpu.step(parameters, data, activation)
    if activation.gate.k:
        assert torch.equal(found.losses, whole.losses)
    assert torch.equal(found.counts, whole.counts)
    for one, other in zip(found[:5], whole[:5], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
    assert torch.equal(gpu.encode(parameters, data, activation), codes)


class Sizes(TorchDispatchMode):
    """Notes the bytes of the largest tensor made."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(each, torch.Tensor):
                self.largest = max(self.largest, each.numel() * each.element_size())
        return made


@pytest.mark.parametrize(
    "activation", [TopK(3), ReLU()] if FEW else [TopK(3), HardThreshold(9.0), ReLU()], ids=str
)
def test_memory_does_not_grow_with_the_batch(take, monkeypatch, activation):
    take(BF16, dense=1 / 8)
    monkeypatch.setattr(gpu, "TILE_BYTES", 2**13)
    monkeypatch.setattr(recorded, "KEPT", 0)
    parameters, data = problem((22, 100, 8), seed=2)
    monkeypatch.setattr(compiled, "SETTLE_BYTES", 2**12)
    with Sizes() as sizes:
        gpu.step(parameters, data, activation)
    assert sizes.largest <= 2**13  # of 8 800 bytes that scores of the batch would take
    if not isinstance(activation, ReLU):
        with Sizes() as sizes:
            gpu.sparse_encode(parameters, data, activation)
        assert sizes.largest <= 2**13


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


@runs
@pytest.mark.parametrize("bias", [0.0, 1e6])
@pytest.mark.parametrize("dtype", [BF16, F32])
@pytest.mark.parametrize("case", BOUND_CASES)
def test_the_bound_holds(case, dtype, bias):
    generator = torch.Generator().manual_seed(3)
    data, dictionary = (part.to(DEVICE) for part in BOUND_CASES[case](generator))
    parameters = Parameters(
        dictionary, bias * torch.randn(len(dictionary), generator=generator).to(DEVICE)
    )
    product = gpu._Product(parameters, dtype)
    scores, slack, short = product(data)
    exact = data.double() @ dictionary.double().T + parameters.bias.double()
    z = (scores.float() + parameters.bias).double()
    bound = product.share * scores.double().abs() + slack.double()[:, None]
    assert slack.isfinite().all()
    assert ((z - exact).abs() <= bound).all()
    # Chains of float32 sums, rounded or not in between, added in float64.
    size = compiled.chunk(data.shape[1])
    chains = torch.zeros(len(data), len(dictionary), size, device=DEVICE)
    for first in range(0, data.shape[1], size):
        parts = (part[:, first : first + size] for part in (data, dictionary))
        more = torch.einsum("bn,mn->bmn", *parts)
        chains[:, :, : more.shape[2]] += more
    off = (chains.double().sum(dim=2) - data.double() @ dictionary.double().T).abs()
    assert (off <= short.double()[:, None]).all()
    if case == "aligned" and dtype == BF16 and bias == 0:
        made = (exact - 64).abs().min()  # rounding takes nearly 2^-8 of each factor
        assert made > 0.9 * slack.max()  # the bound is hardly more than what happens


@runs
def test_the_bound_is_of_use():
    parameters, data = problem((20, 30, 256), seed=4)
    lengths = data.norm(dim=1) * parameters.dictionary.norm(dim=1).max()
    digits = 7 if INTERPRETED else 8  # the interpreter cuts off what doesn't fit
    assert (gpu._Product(parameters, BF16)(data)[1] < 2.0**-digits * lengths).all()
    assert (gpu._Product(parameters, F32)(data)[1] < 2.0**-13 * lengths).all()
    assert (gpu._Product(parameters, BF16)(data)[2] < 2.0**-21 * lengths).all()


@runs
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


def whole_numbers(seed=6, shape=(3, 100, 12), size=999):
    """Data of more digits than bfloat16 has, products that float64 has exactly, many ties."""
    generator = torch.Generator().manual_seed(seed)
    n_samples, m, n = shape
    dictionary = torch.randint(-1, 2, (m, n), generator=generator).float()
    data = torch.randint(-size, size + 1, (n_samples, n), generator=generator).float()
    bias = torch.randint(-2, 3, (m,), generator=generator).float()
    return Parameters(dictionary.to(DEVICE), bias.to(DEVICE)), data.to(DEVICE)


@one_route
@pytest.mark.parametrize("size", [1, 999])
def test_ties_go_to_the_lowest_index(take, route, size):
    take(route)
    parameters, data = whole_numbers(size=size)
    for k, signed in ((1, True), (2, False), (40, True)):
        same_support(parameters, data, TopK(k, signed))


@one_route
def test_ties_among_equal_atoms_go_to_the_lowest_index(take, route):
    take(route)
    parameters, data = problem((3, 40, 9), seed=7)
    order = (torch.randperm(120, generator=torch.Generator().manual_seed(8)) % 40).to(DEVICE)
    copies = Parameters(parameters.dictionary[order], parameters.bias[order])
    for activation in (TopK(1), TopK(5, signed=False)):
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


@one_route
def test_a_unit_at_the_threshold_is_inactive(take, route):
    take(route)
    parameters, data = whole_numbers(size=20)
    z = data @ parameters.dictionary.T + parameters.bias
    for threshold in (0.0, 1.0, 7.0):
        assert (z == threshold).any()
        for signed in (True, False):
            same_support(parameters, data, HardThreshold(threshold, signed))


@one_route
@pytest.mark.parametrize("threshold", [0.7, 0.1, 1 / 3, 1e-3])
def test_a_threshold_between_two_float32s(take, route, threshold):
    take(route)
    near = torch.tensor([threshold])
    around = [torch.nextafter(near, torch.tensor(end)) for end in (math.inf, -math.inf)]
    data = torch.cat([near, *around])[:, None] * torch.tensor([[1.0, 0.0, -1.0]])
    data = data.to(DEVICE)
    eye = Parameters(torch.eye(3), torch.zeros(3)).map(lambda part: part.to(DEVICE))
    found, expected = supports(eye, data, HardThreshold(threshold))
    assert torch.equal(found, expected)
    assert 2 <= int(found.sum()) <= 4  # 0.7 rounds down, 0.1 up


@one_route
@pytest.mark.parametrize("activation", [ReLU(), TopK(3, signed=False), TopK(30)], ids=str)
def test_rows_and_atoms_of_zeros(take, route, activation):
    take(route)
    parameters, data = problem((2, 32, 6), seed=9)
    data[::2] = 0
    agrees(parameters, data, activation)
    parameters.dictionary[::3] = 0
    agrees(parameters, data, activation)
    parameters.bias.zero_()
    agrees(parameters, data, activation)
    agrees(Parameters(torch.zeros_like(parameters.dictionary), parameters.bias), data, activation)


@pytest.mark.parametrize("exponent", [-44, -30, 17] if FEW else [-44, -39, -30, -20, -10, 10, 17])
@one_route
def test_decisions_at_every_scale(take, route, exponent):
    take(route)
    parameters, data = problem((4, 60, 8), seed=10)
    data = data * 10.0**exponent
    no_bias = Parameters(parameters.dictionary, torch.zeros_like(parameters.bias))
    for activation in (TopK(3), TopK(2, signed=False), HardThreshold(10.0**exponent)):
        found, expected = supports(no_bias, data, activation)
        if exponent > -39:
            assert torch.equal(found, expected)
        else:  # a code may be too small for float32: then its unit is not active
            assert (found <= expected).all()
            codes = encode(wide(no_bias), data.double(), activation)
            assert not (expected & ~found & (codes.abs() > 1e-45)).any()


def test_a_unit_is_not_active_where_its_code_is_too_small_for_float32(take):
    take(BF16)
    parameters, data = problem((2, 40, 8), seed=10)
    small = Parameters(1e-20 * parameters.dictionary, torch.zeros_like(parameters.bias))
    assert not gpu.step(small, 1e-30 * data, TopK(3)).counts.any()


@every_route
def test_the_bound_is_needed_in_full(take, route):
    # Rounding to bfloat16 lifts unit 0 and lowers unit 1, each by all that the bound allows.
    take(route)
    more, less = 1 + 2.0**-8 + 2.0**-20, 1 + 2.0**-8 - 2.0**-20
    half = torch.ones(32)
    dictionary = torch.stack(
        [torch.cat([more * half, -less * half]), torch.cat([less * half, -more * half])]
    )
    dictionary, data = dictionary.to(DEVICE), torch.ones(1, 64, device=DEVICE)
    for bias, winner in ((2.0**-12, 1), (2.0**-14, 0)):  # the products differ by 2^-13
        parameters = Parameters(dictionary, torch.tensor([0.5, 0.5 + bias], device=DEVICE))
        for signed in (True, False):
            found = gpu.sparse_encode(parameters, data, TopK(1, signed))
            assert found.indices.tolist() == [[winner]]
    for threshold in (0.5, 0.5001, 0.5002):
        for signed in (True, False):
            same_support(parameters, data, HardThreshold(threshold, signed))
    below = Parameters(dictionary, torch.tensor([-1.0, 0.5 + 2.0**-12], device=DEVICE))
    assert gpu.encode(below, data, HardThreshold(0.5))[0].tolist()[1] > 0.5


def test_products_beyond_float32(take):
    take(BF16)
    parameters, data = problem((3, 90, 8), seed=11)
    large = Parameters(1e10 * parameters.dictionary, parameters.bias)
    same_support(large, 1e27 * data, TopK(3))
    same_support(large, 1e27 * data, HardThreshold(1e37))
    same_support(large, 1e30 * data, TopK(3))  # codes are infinite, and only the three


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_row_does_not_touch_the_others(take, bad):
    take(BF16)
    parameters, data = problem((3, 50, 6), seed=12)
    spoilt = data.clone()
    spoilt[1, 2] = bad
    good = [row for row in range(3) if row != 1]
    for activation in (TopK(3), HardThreshold(1.0)):
        found = gpu.encode(parameters, spoilt, activation)[good]
        assert torch.equal(found, gpu.encode(parameters, data, activation)[good])
        losses = gpu.step(parameters, spoilt, activation).losses[good]
        assert torch.equal(losses, gpu.step(parameters, data, activation).losses[good])


def offset_problem():
    """Atoms that don't see the mean of the data, which is all that a coarse product sees."""
    generator = torch.Generator().manual_seed(13)
    parameters, data = problem((5, 112, 16), seed=13)
    sixteenths = torch.randint(-32, 33, (112, 16), generator=generator).float() / 16
    sixteenths[:, 0] -= sixteenths.sum(dim=1)
    return Parameters(sixteenths.to(DEVICE), parameters.bias), data


@one_route
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_decisions_that_a_coarse_product_cannot_make(take, monkeypatch, route, offset):
    take(route)
    parameters, data = offset_problem()
    data = data + offset
    found = []
    mark = compiled.mark

    def look(*arguments):
        listed = mark(*arguments)
        found.append(int((listed.counts > listed.units.shape[1]).sum()))
        return listed

    monkeypatch.setattr(compiled, "mark", look)
    for activation in (TopK(3), TopK(3, signed=False)):
        same_support(parameters, data, activation)
    if route == BF16:  # rows without room for their candidates are settled, if they must be
        assert (sum(found) > 0) == (offset > 1)
    monkeypatch.setattr(gpu, "DENSE", 1 / 8)
    same_support(parameters, data, HardThreshold(8.0))


def test_rows_that_need_more_are_put_in_their_places(take):
    take(BF16)
    parameters, data = offset_problem()
    data[::4] += 1e5
    data[1::4] += 30
    for activation in (TopK(3), TopK(2, signed=False)):
        agrees(parameters, data, activation, rounding=1000)  # sums of products of 1e10


class NoRoom(gpu._Encoder):
    """Room for one candidate more than there are codes."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.room = min(self.room, (self.k or 2) + 1)


@pytest.mark.parametrize("activation", [TopK(1), TopK(4), TopK(4, signed=False)], ids=str)
def test_rows_without_room_have_the_same_codes(take, monkeypatch, activation):
    take(BF16)
    parameters, data = whole_numbers(shape=(4, 50, 12), size=9)
    parameters.dictionary[10:20] = parameters.dictionary[30:40]  # twins
    expected = gpu.sparse_encode(parameters, data, activation)
    monkeypatch.setattr(gpu, "_Encoder", NoRoom)
    found = gpu.sparse_encode(parameters, data, activation)
    assert all(map(torch.equal, found, expected))
    agrees(*problem((3, 40, 6), seed=30), activation)


def test_a_threshold_that_too_many_units_pass_is_left_to_the_reference(take, monkeypatch):
    take(BF16)
    monkeypatch.setattr(gpu, "_Encoder", NoRoom)
    agrees(*problem((3, 40, 6), seed=31), HardThreshold(0.5))


@pytest.mark.parametrize("signed", [True, False])
def test_what_chains_of_float32_sums_leave_open_is_decided_by_float64(take, signed):
    take(BF16)
    # Twins that differ in the last place of one number: float32 sums can't tell which is larger.
    parameters, data = problem((4, 6, 300), seed=32)
    atoms = parameters.dictionary
    twins = atoms.clone()
    twins[:, 7] = torch.nextafter(twins[:, 7], torch.full_like(twins[:, 7], math.inf))
    both = Parameters(torch.cat([atoms, twins]), parameters.bias.repeat(2))
    for k in (1, 3):
        same_support(both, data, TopK(k, signed))
    z = (data.double() @ wide(both).dictionary.T + both.bias.double()).abs()
    gap = float(z.flatten().sort().values[20])
    for threshold in (gap * (1 + 1e-12), gap * (1 - 1e-12)):
        same_support(both, data, HardThreshold(threshold, signed))


@pytest.mark.parametrize("activation", [TopK(4), ReLU()], ids=str)
def test_what_is_no_number_is_seen(take, activation):
    take(BF16, dense=1 / 8)
    parameters, data = problem((5, 64, 6), seed=33)
    data[2, 3] = torch.nan
    losses = gpu.step(parameters, data, activation).losses
    assert losses.isnan().tolist() == [False, False, True, False, False]
    if isinstance(activation, ReLU):  # nor does a dictionary that is lost look like a good one
        parameters.dictionary[5, 0] = torch.nan
        assert gpu.step(parameters, data[:2], activation).losses.isnan().all()


# --- half precision --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "activation"), [(BF16, TopK(3)), (F16, HardThreshold(1.5))], ids=str
)
def test_halves_are_treated_as_the_float32_numbers_that_they_are(take, dtype, activation):
    take(BF16)
    parameters, data = problem((2, 30, 9), seed=34)
    half = data.to(dtype)
    for weights in (parameters, parameters.map(lambda part: part.to(dtype))):
        as_floats = weights.map(torch.Tensor.float)
        expected = gpu.step(as_floats, half.float(), activation)
        found = gpu.step(weights, half, activation)
        for one, other in zip(found[:5], expected[:5], strict=True):
            assert one.dtype == F32
            assert torch.equal(one, other)
        assert torch.equal(
            gpu.encode(weights, half, activation),
            gpu.encode(as_floats, half.float(), activation),
        )


def test_halves_go_to_the_kernel(take):
    take(BF16)
    parameters, data = problem((3, 40, 9), seed=35)
    found = gpu.step(parameters, data.half(), Softplus())  # by the reference
    assert torch.equal(
        found.losses, reference.step(parameters, data.half().float(), Softplus()).losses
    )
    if DEVICE == "cuda":
        assert kernels.choose(data.bfloat16(), parameters, TopK(3)) is gpu
        assert kernels.choose(data.half(), parameters, TopK(3)) is gpu


# --- pursuits --------------------------------------------------------------------------------


def planted(k, n_samples=3, shape=(50, 24), seed=50):
    """Unit atoms, and rows of k of them with some noise."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=1)
    units = torch.stack(
        [torch.randperm(len(atoms), generator=generator)[:k] for _ in range(n_samples)]
    )
    values = 0.3 + torch.rand(units.shape, generator=generator)
    noise = 0.02 * torch.randn(n_samples, shape[1], generator=generator)
    data = torch.einsum("bk,bkn->bn", values, atoms[units]) + noise
    return Parameters(atoms.to(DEVICE), torch.zeros(len(atoms), device=DEVICE)), data.to(DEVICE)


PURSUITS = [
    SubspacePursuit(3),
    OrthogonalMatchingPursuit(5, signed=False, tolerance=0.05),
    ThresholdPursuit(4, signed=False, shrinkage=0.2),
    IterativeHardThresholding(2),
]
if not FEW:
    PURSUITS += [
        SubspacePursuit(3, signed=False),
        OrthogonalMatchingPursuit(3),
        ThresholdPursuit(4),
    ]


@pytest.mark.parametrize("pursuit", PURSUITS, ids=str)
def test_pursuits_are_the_dense_ones(take, pursuit):
    take(BF16, dense=1 / 8)
    parameters, data = planted(3)
    parameters = parameters._replace(offset=torch.ones_like(data[0]))
    data = data + 1
    data[1] = 1  # nothing to explain
    if isinstance(pursuit, ThresholdPursuit):
        bars = 0.2 + 0.2 * torch.arange(len(parameters.bias), device=DEVICE) / len(parameters.bias)
        parameters = parameters._replace(threshold=bars)
    found = gpu.sparse_encode(parameters, data, pursuit)
    expected = reference.sparse_encode(parameters, data, pursuit)
    assert torch.equal(active(found.values), active(expected.values))
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-5)
    sums = gpu.step(parameters, data, pursuit)
    judge = reference.step(parameters, data, pursuit)
    for name in ("dictionary", "bias", "losses", "counts", "energy", "offset"):
        torch.testing.assert_close(getattr(sums, name), getattr(judge, name), rtol=1e-4, atol=1e-4)


def test_what_is_taken_is_not_found_again(take):
    take(BF16, dense=1 / 8)
    parameters, data = planted(3, n_samples=2)
    look, dense = gpu._Look(parameters.dictionary), Look(parameters.dictionary)
    first = look(data, 2, True)
    second = look(data, 6, True, without=first)
    assert torch.equal(first.dense(50) != 0, dense(data, 2, True).dense(50) != 0)
    assert not (active(first.dense(50)) & active(second.dense(50))).any()
    assert active(second.values).sum(dim=1).tolist() == [4, 4]
    bars = torch.linspace(0, 0.5, 50, device=DEVICE)
    none = first.indices[:, :0]
    for signed in (True, False):
        for less in (None, bars):
            value, unit = look.best(data, signed, none, less)
            judge, expected = dense.best(data, signed, none, less)
            torch.testing.assert_close(value, judge)
            assert torch.equal(unit, expected)
            assert not look.best(data, signed, unit[:, None], less)[0].any()


def test_a_pursuit_makes_no_matrix_of_atoms_by_atoms_nor_dense_scores(take):
    take(BF16, dense=1 / 8)
    parameters, data = planted(2, n_samples=3, shape=(300, 4))
    expected = reference.sparse_encode(parameters, data, SubspacePursuit(2))
    with Sizes() as sizes:
        found = gpu.sparse_encode(parameters, data, SubspacePursuit(2))
    assert sizes.largest <= 300 * 4 * 8  # the dictionary's
    assert torch.equal(found.indices, expected.indices)


def test_a_pursuit_looks_only_at_rows_that_get_better(take, monkeypatch):
    take(BF16, dense=1 / 8)
    looks = []
    look = gpu._Look.__call__
    monkeypatch.setattr(
        gpu._Look,
        "__call__",
        lambda self, rows, *more: looks.append(len(rows)) or look(self, rows, *more),
    )
    gpu.sparse_encode(*planted(3, n_samples=6, seed=51), SubspacePursuit(3))
    assert looks[0] == looks[1] == 6
    assert looks == sorted(looks, reverse=True)
    assert looks[-1] < 6


# --- nobody waits ----------------------------------------------------------------------------


def test_what_waits_is_noticed():
    mask = torch.tensor([True, False])
    for wait in (
        lambda: mask.nonzero(),
        lambda: int(mask.sum()),
        lambda: mask[mask],
        lambda: bool(mask[0]),
        lambda: mask.to("meta"),
        lambda: mask.tolist(),
    ):
        with Launches() as seen:
            wait()
        assert sum(seen.waits.values()) == 1


@pytest.mark.parametrize("activation", [TopK(3), TopK(3, signed=False)], ids=str)
def test_no_step_waits_for_the_device(take, monkeypatch, activation):
    take(BF16)
    monkeypatch.setattr(gpu, "TILE_BYTES", 2**12)
    parameters, data = offset_problem()
    data[::3] += 1e5  # no room for the candidates of some
    data[-1] = torch.nan
    seen = launches(parameters, data, activation)
    assert not seen.waits
    assert seen.found["mm"] > 1


def test_a_threshold_asks_once_a_tile_how_many_are_active(take, monkeypatch):
    take(BF16)
    monkeypatch.setattr(gpu, "TILE_BYTES", 2**12)
    seen = launches(*problem((3, 70, 6), seed=37), HardThreshold(5.0))
    assert sum(seen.waits.values()) == seen.found["mm"] > 1


def test_the_launches_of_a_step(take):
    take(BF16)
    found = launches(*problem((3, 40, 8), seed=36), TopK(3)).found
    # Rounding of atoms and of data, marking, settling, rows, atoms.
    assert found["Triton"] == 6
    assert found["mm"] == found["sort"] == found["searchsorted"] == 1
    assert sum(found.values()) <= 17, found


class Stub:
    """Stands for a CUDA graph where there is no device: a replay calls again."""

    recorded = 0

    def __init__(self, function, inputs):
        Stub.recorded += 1
        self.function, self.inputs = function, tuple(each.clone() for each in inputs)
        self.results = function(*self.inputs)

    def __call__(self, inputs):
        for place, each in zip(self.inputs, inputs, strict=True):
            place.copy_(each)
        for place, each in zip(self.results, self.function(*self.inputs), strict=True):
            place.copy_(each)
        return tuple(each.clone() for each in self.results)


@pytest.fixture
def stub(monkeypatch):
    """Graphs without a device."""
    monkeypatch.setattr(Stub, "recorded", 0)
    monkeypatch.setattr(recorded, "_Graph", Stub)
    monkeypatch.setattr(recorded, "_place", lambda device: 0)
    recorded.forget()
    yield Stub
    recorded.forget()


def test_a_shape_that_comes_again_is_recorded_once(stub):
    def double(part):
        return (2 * part,)

    results = []
    for number in range(5):
        data = torch.full((3,), float(number))
        results.append(recorded.call("kind", double, (data,))[0])
        assert stub.recorded == (number > 0)
    assert [float(each[0]) for each in results] == [0, 2, 4, 6, 8]  # nobody writes there again
    recorded.call("other kind", double, (data,))
    recorded.call("kind", double, (data[:2],))
    assert stub.recorded == 1


def test_few_graphs_are_kept_and_forgotten(stub, monkeypatch):
    for size in (1, 2, 3, 3, 2, 1):
        recorded.call("kind", lambda part: (part + 1,), (torch.zeros(size),))
    assert len(recorded._graphs) == recorded.KEPT
    recorded.forget()
    assert not recorded._graphs
    monkeypatch.setattr(recorded, "INPUT_BYTES", 8)
    for _ in range(3):
        recorded.call("kind", lambda part: (part + 1,), (torch.zeros(3),))
    assert not recorded._graphs  # too large for a copy


def test_what_cannot_be_recorded_is_called(stub, monkeypatch):
    tries = []

    def refuse(function, inputs):
        tries.append(0)
        raise RuntimeError("no memory")

    monkeypatch.setattr(recorded, "_Graph", refuse)
    for _ in range(4):
        assert recorded.call("kind", lambda part: (part + 1,), (torch.zeros(1),))[0] == 1
    assert len(tries) == 1


def test_a_recorded_step_is_the_step(take, stub, monkeypatch):
    take(BF16)
    monkeypatch.setattr(gpu, "_records", lambda data: True)
    for seed in (40, 41, 42):
        parameters, data = problem((1, 24, 8), seed=seed)
        found = gpu.step(parameters, data, TopK(3))
        monkeypatch.setattr(recorded, "KEPT", 0)
        expected = gpu.step(parameters, data, TopK(3))
        monkeypatch.setattr(recorded, "KEPT", 2)
        assert all(map(torch.equal, found[:5], expected[:5]))
    assert stub.recorded == 1


# --- which way is taken ----------------------------------------------------------------------


def refuse(*arguments, **options):
    raise AssertionError("the dense way was taken")


@runs
def test_few_active_units_take_the_sparse_way(monkeypatch):
    parameters, data = problem((3, 64, 9), seed=14)
    expected = [reference.step(parameters, data, each) for each in (TopK(8), HardThreshold(6.0))]
    for name in ("step", "encode", "sparse_encode"):
        monkeypatch.setattr(reference, name, refuse)
    for activation, sums in zip((TopK(8), HardThreshold(6.0)), expected, strict=True):
        found = gpu.step(parameters, data, activation)
        torch.testing.assert_close(found.dictionary, sums.dictionary, rtol=1e-4, atol=1e-3)
        gpu.encode(parameters, data, activation)
        gpu.sparse_encode(parameters, data, activation)


@runs
@pytest.mark.parametrize("activation", [TopK(9), ReLU(), HardThreshold(0.1)], ids=str)
def test_many_active_units_take_the_dense_way(monkeypatch, activation):
    monkeypatch.setattr(compiled, "rows", refuse)
    agrees(*problem((3, 64, 9), seed=15), activation)


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


@runs
def test_an_empty_batch():
    parameters, data = problem((1, 64, 4), seed=17)
    sums = gpu.step(parameters, data[:0], TopK(2))
    assert not any(part.any() for part in sums[:5])
    assert sums.losses.shape == (0,)
    assert gpu.encode(parameters, data[:0], TopK(2)).shape == (0, 64)
    assert gpu.sparse_encode(parameters, data[:0], TopK(2)).values.shape == (0, 1)


def test_layout_does_not_matter_inputs_stay_and_no_graph_is_kept(take):
    take(BF16)
    parameters, data = problem((4, 40, 6), seed=18)
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
    assert gpu._precision(data) == F32
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert gpu._precision(data) == F64
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("number", [0.0, 0.5, 0.7, 0.1, 1e-50, 1e-40, 1e30, 1e39, 1e300])
def test_the_float32_below(number):
    found = gpu._float32_below(number)
    assert found <= number
    assert torch.tensor(found, dtype=F32).item() == found
    above = torch.nextafter(torch.tensor(found), torch.tensor(math.inf)).item()
    assert above > number


# --- Triton ----------------------------------------------------------------------------------


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_triton_in_its_interpreter():
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
    assert " passed" in run.stdout
    assert "neither" not in run.stdout
    assert "not in Triton's interpreter" not in run.stdout


POINTERS = {
    "F": "dictionary bias values back residual losses energy",
    "Y": "data exact",
    "S": "scores coarse",
    "fp32": "slack level short",
    "fp64": "heights work threshold limits",
    "i32": "units slots sure counts",
    "i64": "order starts",
}
SCALARS = dict.fromkeys(("share", "floor", "summing", "chain", "tiny"), "fp32")
# Triton takes a 1 for a constant.
ONES = dict.fromkeys(("k", "m", "n_samples", "room", "width", "stride"), 1)
# At 768 features, 24576 atoms and k = 32.
KERNELS = {
    "_round_kernel": [{"SAMPLES": True, "out": "*fp32"}, {"SAMPLES": False, "out": "*fp64"}],
    "_mark_kernel": [
        {"BEST": True, "COLUMNS": 4096, "warps": 16},
        {"BEST": False, "COLUMNS": 1024},
    ],
    "_settle_kernel": [{"BEST": True}, {"BEST": False}, {"BEST": True, **ONES}],
    "_rows_kernel": [
        {"BEST": True, "STEP": True, "ON_CHIP": False, "ATOMS": 8, "WHOLE": 256},
        {"BEST": True, "STEP": True, "ON_CHIP": True, "ATOMS": 16, "WHOLE": 1024, "warps": 8},
        {"BEST": False, "STEP": False, "ON_CHIP": False, "ATOMS": 8, "WHOLE": 256},
        {"BEST": True, "STEP": True, "ON_CHIP": False, "ATOMS": 8, "WHOLE": 256, **ONES},
    ],
    "_atoms_kernel": [{"counts": "*F"}],
}
BLOCKS = {"SIGNED": True, "PAIRS": 8, "FEATURES": 256, "UNROLL": 3, "COLUMNS": 1024, "SLOTS": 256}
BLOCKS |= {"ROWS": 1, "WIDE": False}


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    ("numbers", "read", "scores"),
    [("fp32", "bf16", "bf16"), ("fp64", "fp64", "fp32")],
)
def test_triton_compiles_for_a_device(name, numbers, read, scores, monkeypatch, tmp_path):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(compiled, name)
    kinds = {"F": numbers, "Y": read, "S": scores}
    for choice in KERNELS[name] if numbers == "fp32" else KERNELS[name][:1]:
        types = dict.fromkeys(kernel.arg_names, "i32") | SCALARS
        for kind, arguments in POINTERS.items():
            types |= dict.fromkeys(arguments.split(), "*" + kinds.get(kind, kind))
        blocks = BLOCKS | {"WIDE": numbers == "fp64"}
        for key, value in choice.items():
            if isinstance(value, str):
                types[key] = value.replace("F", numbers)
            else:
                blocks[key] = value
        blocks = {key: value for key, value in blocks.items() if key in kernel.arg_names}
        types |= dict.fromkeys(blocks, "constexpr")
        source = ASTSource(
            fn=kernel,
            signature={argument: types[argument] for argument in kernel.arg_names},
            constexprs=blocks,
        )
        options = {"num_warps": choice.get("warps", 4), **compiled.OPTIONS}
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        assert len(made.asm["cubin"]) > 1000
        assert ".ftz" not in made.asm["ptx"]  # numbers below 2^-126 are kept
        assert ".atom" not in made.asm["ptx"]  # nor does an order depend on who comes first
        assert made.metadata.shared <= 227 * 1024


# --- on the device ---------------------------------------------------------------------------


@cuda
@every_gate
@pytest.mark.parametrize("dtype", [F32, F64])
def test_on_a_device_agrees(activation, dtype):
    agrees(*problem((300, 2000, 100), seed=24, dtype=dtype), activation)


@cuda
def test_on_a_device_decisions():
    parameters, data = whole_numbers(seed=25, shape=(500, 3000, 12))
    for activation in (TopK(2), TopK(50), TopK(5, signed=False), HardThreshold(2000.0)):
        same_support(parameters, data, activation)
    parameters, data = offset_problem()
    data[::4] += 1e5
    data[1::4] += 30
    agrees(parameters, data, TopK(3), rounding=1000)


@cuda
@pytest.mark.parametrize("activation", [TopK(20), TopK(20, signed=False)], ids=str)
def test_on_a_device_the_same_bits_every_time_recorded_or_not(activation):
    parameters, data = problem((2000, 3000, 200), seed=27)
    recorded.forget()
    first = gpu.step(parameters, data, activation)
    for _ in range(3):
        again = gpu.step(parameters, data, activation)
        assert all(map(torch.equal, first[:5], again[:5]))
    assert any(isinstance(each, recorded._Graph) for each in recorded._graphs.values())
    other = gpu.step(parameters, data.flip(0), activation)  # by the graph, on other data
    assert torch.equal(other.losses.flip(0), first.losses)
    recorded.forget()


@cuda
def test_on_a_device_nobody_waits():
    parameters, data = problem((2000, 3000, 200), seed=28)
    gpu.step(parameters, data, TopK(20))  # compiles
    recorded.forget()
    torch.cuda.set_sync_debug_mode("error")
    try:
        gpu.step(parameters, data, TopK(20))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@cuda
def test_on_a_device_memory_does_not_grow_with_the_batch(monkeypatch):
    monkeypatch.setattr(gpu, "TILE_BYTES", 2**24)
    monkeypatch.setattr(recorded, "KEPT", 0)
    peaks = []
    for n_samples in (4000, 40000):
        parameters, data = problem((n_samples, 1000, 64), seed=28)
        gpu.step(parameters, data, TopK(10))  # what libraries keep is taken before
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        gpu.step(parameters, data, TopK(10))
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < peaks[0] + 2**20

"""The CPU kernel before adversaries: its decisions, its error bound, its sums, its manners.

A decision is judged on pre-activations in extended precision. It may differ from theirs only
where the arithmetic that the kernel promises can't tell: float64 where a row was screened and
resolved, the data's own precision elsewhere.
"""

import logging
import os
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.network import HardThreshold, ReLU, Sigmoid, TopK, loss
from shoal.network.activations import gate_of
from shoal.network.kernels import choose, compiled, compiling, cpu, reference, use
from shoal.vocabulary import ArgumentError, Parameters

BF16, F32, F64 = torch.bfloat16, torch.float32, torch.float64
DTYPES = [F32, F64]
SCREENS = [None, BF16, F32]
SIZES = [1, 2, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129]

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_screen = pytest.mark.parametrize("screen", SCREENS, ids=str)


class Sparse:
    """The sparse kernel made to run whatever the density; which rows it couldn't resolve."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(cpu, "DENSE", np.inf)
        self.calls = []
        chosen = cpu.Encoder._chosen

        def spy(encoder, tile, screen):
            codes = chosen(encoder, tile, screen)
            self.calls.append((screen, codes.counts.copy()))
            return codes

        monkeypatch.setattr(cpu.Encoder, "_chosen", spy)

    def sparse_encode(self, parameters, data, activation, screen):
        """The codes, and per row whether float64 sums made the decision."""
        self.calls.clear()
        codes = cpu.sparse_encode(parameters, data, activation, screen=screen)
        asked, counts = self.calls[0]
        assert len(counts) == len(data), "one tile, or the spy is blind"
        wide = np.full(len(data), data.dtype == F64)
        return codes, wide if asked is None else wide | (counts >= 0)


@pytest.fixture
def sparse(monkeypatch):
    return Sparse(monkeypatch)


def tensors(dtype, *arrays):
    found = [
        torch.from_numpy(np.ascontiguousarray(array, np.float64)).to(dtype) for array in arrays
    ]
    return Parameters(*found[:2]), found[2]


class Judge:
    """Pre-activations in extended precision, and what rounding does to them."""

    def __init__(self, parameters, data):
        y, w, b = (x.numpy().astype(np.longdouble) for x in (data, *parameters[:2]))
        self.dtype = data.numpy().dtype
        self.n = y.shape[1]
        self.z = y @ w.T + b  # (B, m)
        self.size = np.abs(y) @ np.abs(w).T + np.abs(b)  # sum of |y_i w_i|, and |b|

    def rounding(self, wide):
        """What z may be off by, summed in any order, in float64 where `wide` (B,)."""
        unit = np.where(wide, 2.0**-53, np.finfo(self.dtype).eps / 2)[:, None]
        # Products may underflow; those of two float32 can't in float64.
        least = np.finfo(self.dtype).tiny if self.dtype == np.float64 else 2.0**-126
        lost = np.where(wide[:, None] & (self.dtype == np.float32), 0.0, least)
        extended = np.finfo(np.longdouble).eps
        return (self.n + 2) * ((unit + extended) * self.size + lost)

    def expected(self, activation):
        with np.errstate(over="ignore", under="ignore"):
            codes = activation(torch.from_numpy(self.z.astype(np.float64))).codes.numpy()
            return (codes != 0) & (self.z.astype(self.dtype) != 0)

    def wrong(self, activation, support, wide, exact=False):
        """The (row, unit) pairs that no rounding explains."""
        gate = gate_of(activation)
        off = np.zeros_like(self.z) if exact else self.rounding(wide)
        value = np.abs(self.z) if gate.signed else self.z
        expected = self.expected(activation)
        found = []
        for i, j in np.argwhere(support != expected):
            near = abs(value[i, j] - gate.threshold) <= off[i, j]
            if gate.k is not None:
                # What was taken instead of it, or in whose place it was taken.
                others = support[i] & ~expected[i] if expected[i, j] else expected[i] & ~support[i]
                gaps = np.abs(value[i, others] - value[i, j]) - off[i, others] - off[i, j]
                near = near or (len(gaps) > 0 and gaps.max() <= 0)
            if exact or not near:
                found.append((i, j))
        return found

    def check(self, sparse, parameters, data, activation, screen, exact=False):
        codes, wide = sparse.sparse_encode(parameters, data, activation, screen)
        indices, values = codes.indices.numpy(), codes.values.numpy()
        m = self.z.shape[1]
        listed = values != 0
        counts = listed.sum(axis=1)
        assert (listed == (np.arange(listed.shape[1]) < counts[:, None])).all(), "zeros come last"
        assert (indices[~listed] == 0).all()
        ascending = np.diff(indices, axis=1) > 0
        assert (ascending | ~listed[:, 1:]).all(), "a unit is listed once, in order"
        support = np.zeros((len(data), m), bool)
        rows = np.repeat(np.arange(len(data)), counts)
        support[rows, indices[listed]] = True
        assert self.wrong(activation, support, wide, exact) == []
        z = self.z[rows, indices[listed]]
        unit = np.finfo(self.dtype).eps
        off = self.rounding(wide)[rows, indices[listed]] + unit * np.abs(z)
        assert (np.abs(values[listed] - z) <= off + np.finfo(self.dtype).smallest_subnormal).all()
        return wide


def activations(judge):
    m = judge.z.shape[1]
    high = float(np.quantile(np.abs(judge.z).astype(np.float64), 0.95))
    return [
        ReLU(),
        HardThreshold(0.0),
        HardThreshold(0.1),  # no float32 number
        HardThreshold(high),
        HardThreshold(high, signed=False),
        TopK(1),
        TopK(1, signed=False),
        TopK(3),
        TopK(3, signed=False),
        TopK(20, signed=False),
        TopK(max(1, m - 1)),
        TopK(m),
        TopK(m + 3, signed=False),
    ]


# --- decisions: sets made to break them ------------------------------------------------------

CASES = {}


def case(make):
    CASES[make.__name__] = make
    return make


@case
def gaussian(rng, tiny):
    return rng.normal(size=(129, 65)), 0.3 * rng.normal(size=129), rng.normal(size=(24, 65))


@case
def one_bf16_step_apart(rng, tiny):
    # 129 values of z within 6 steps of bfloat16, exact in float32, shuffled.
    signs = rng.choice([-1.0, 1.0], 64)
    w = signs * (1 + rng.permutation(129)[:, None] * 2.0**-12)
    return w, np.zeros(129), signs * 2.0 ** rng.integers(-3, 4, (24, 1))


@case
def rounded_at_worst(rng, tiny):
    # Just off a tie of bfloat16, to either side, so that errors add up instead of cancelling.
    off = rng.choice([-1.0, 1.0], (130, 1)) * 2.0**-20
    w = np.full((130, 257), 1 + 2.0**-8) + off
    y = np.full((24, 257), 1 + 2.0**-8) + rng.choice([-1.0, 1.0], (24, 1)) * 2.0**-20
    w[2:] *= 2.0 ** -rng.integers(0, 9, (128, 1))
    return w, np.zeros(130), y


@case
def common_offset(rng, tiny):
    # Atoms don't see it, but its rounding they do.
    w = rng.normal(size=(129, 64))
    return w - w.mean(axis=1)[:, None], np.zeros(129), 1e5 + rng.normal(size=(24, 64))


@case
def rows_of_any_norm(rng, tiny):
    scale = 10.0 ** rng.permutation(np.linspace(-30, 30, 24))[:, None]
    w = rng.normal(size=(129, 40)) * 10.0 ** rng.uniform(-30, 5, (129, 1))
    return w, np.zeros(129), scale * rng.normal(size=(24, 40))


@case
def atoms_of_any_norm(rng, tiny):
    scale = 10.0 ** rng.permutation(np.linspace(-30, 30, 129))[:, None]
    b = rng.choice([0.0, 1e-20, 1.0, 1e20], 129)
    y = rng.normal(size=(24, 40)) * 10.0 ** rng.uniform(-30, 5, (24, 1))
    return scale * rng.normal(size=(129, 40)), b, y


@case
def nearly_overflowing(rng, tiny):
    # |y| |w| is around 2^120, beyond which nothing is screened.
    scale = 2.0 ** rng.uniform(53, 59, (24, 1))
    return 2.0**58 * rng.normal(size=(129, 40)), np.zeros(129), scale * rng.normal(size=(24, 40))


@case
def subnormal(rng, tiny):
    w, y = rng.normal(size=(129, 40)), rng.normal(size=(24, 40))
    y[:8] *= tiny / 8
    y[8:16, ::3] *= tiny / 8
    w[:40] *= tiny / 8
    w[40:80, ::2] *= tiny / 8
    w[80:100] /= tiny * 2.0**10
    return w, rng.choice([0.0, tiny / 4, -0.1], 129), y


@case
def squares_underflow(rng, tiny):
    # Norms are lost in float32, products aren't.
    y = 2.0**-76 * (1 + 2.0**-8 - 2.0**-20) * np.ones((24, 64))
    w = 2.0**40 * (1 + 2.0**-8 - 2.0**-20 * rng.integers(-1, 2, (129, 1))) * np.ones((129, 64))
    w[5:] *= 2.0 ** -np.arange(124)[:, None]
    return w, np.zeros(129), y


@case
def zeros(rng, tiny):
    w, y = rng.normal(size=(129, 40)), rng.normal(size=(24, 40))
    w[::3], y[::4] = 0, 0
    return w, rng.choice([0.0, -0.0, 0.1, -0.1], 129), y


@case
def nothing_but_zeros(rng, tiny):
    return np.zeros((65, 33)), np.zeros(65), np.zeros((24, 33))


@case
def bias_above_all(rng, tiny):
    return rng.normal(size=(129, 40)), 1e6 * rng.normal(size=129), rng.normal(size=(24, 40))


@case
def bias_one_for_all(rng, tiny):
    return rng.normal(size=(129, 40)), np.full(129, 1e5), rng.normal(size=(24, 40))


@case
def bias_cancels(rng, tiny):
    w, y = rng.normal(size=(129, 40)), rng.normal(size=(1, 40))
    b = -(w @ y[0]) * (1 + 1e-7 * rng.normal(size=129))
    return w, b, y * (1 + 1e-7 * rng.normal(size=(24, 1)))


@case
def few_above_zero(rng, tiny):
    b = np.where(rng.random(129) < 0.03, 1.0, -30.0)
    y = rng.normal(size=(24, 40))
    y[:4] *= 1e-3
    return rng.normal(size=(129, 40)), b, y


@case
def atoms_all_alike(rng, tiny):
    # So close that float32 can't tell them apart, float64 can.
    w = rng.normal(size=(1, 40)) * (1 + 2.0**-22 * rng.permutation(200)[:, None])
    return w, np.zeros(200), rng.normal(size=(24, 40))


def arrays(name, dtype):
    seed = list(CASES).index(name)
    return CASES[name](np.random.default_rng(seed), float(torch.finfo(dtype).tiny))


@pytest.mark.parametrize("name", CASES)
@every_dtype
@every_screen
def test_decisions_are_those_of_extended_precision(sparse, name, dtype, screen):
    parameters, data = tensors(dtype, *arrays(name, dtype))
    judge = Judge(parameters, data)
    for activation in activations(judge):
        judge.check(sparse, parameters, data, activation, screen)


@pytest.mark.parametrize(("m", "n"), [*zip(SIZES, SIZES[::-1], strict=True), (64, 1), (129, 129)])
@every_dtype
@every_screen
def test_decisions_at_odd_sizes(sparse, m, n, dtype, screen):
    rng = np.random.default_rng([m, n])
    for n_samples in (1, 5):
        parameters, data = tensors(
            dtype,
            rng.normal(size=(m, n)),
            0.1 * rng.normal(size=m),
            rng.normal(size=(n_samples, n)),
        )
        judge = Judge(parameters, data)
        for activation in activations(judge):
            judge.check(sparse, parameters, data, activation, screen)


INTEGERS = {
    # All that is added up is exact, so ties are ties and thresholds are met.
    "small": lambda rng: (
        rng.integers(-2, 3, (200, 48)), rng.integers(-1, 2, 200), rng.integers(-2, 3, (30, 48))
    ),
    "duplicates": lambda rng: (
        rng.integers(-3, 4, (7, 40))[rng.integers(0, 7, 150)], np.zeros(150),
        rng.integers(-3, 4, (30, 40)),
    ),
    "opposites": lambda rng: (
        rng.integers(-3, 4, (1, 40)) * rng.choice([-1, 1], (150, 1)), np.zeros(150),
        rng.integers(-3, 4, (30, 40)),
    ),
    "rows of one number": lambda rng: (np.ones((129, 33)), np.zeros(129), np.full((30, 33), 2.0)),
    "mostly zeros": lambda rng: (
        rng.integers(-2, 3, (200, 48)) * (rng.random((200, 1)) < 0.1),
        -rng.integers(0, 2, 200),
        rng.integers(-2, 3, (30, 48)),
    ),
    # Candidates are few, so that the screened path decides a tie: 9 equal winners of 300.
    "winners tie": lambda rng: (
        np.where(rng.random((300, 1)) < 0.03, 1, 0.25) * rng.choice([-1, 1], 48), np.zeros(300),
        rng.choice([-1, 1], (30, 48)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INTEGERS)
@every_dtype
@every_screen
def test_ties_and_thresholds_of_exact_sums(sparse, name, dtype, screen):
    parameters, data = tensors(dtype, *INTEGERS[name](np.random.default_rng(len(name))))
    judge = Judge(parameters, data)
    m = len(parameters.bias)
    levels = np.unique(np.abs(judge.z).astype(np.float64))
    thresholds = levels[[0, len(levels) // 2, -len(levels) // 8, -1]]
    gates = [HardThreshold(float(t), signed) for t in thresholds for signed in (True, False)]
    gates += [TopK(k, signed) for k in (1, 2, 5, 16, 17, 40, m - 1, m) for signed in (True, False)]
    for activation in [ReLU(), *gates]:
        judge.check(sparse, parameters, data, activation, screen, exact=True)


@every_dtype
@pytest.mark.parametrize("screen", [BF16, F32], ids=str)
@pytest.mark.parametrize("n", [33, 47, 64, 100])
def test_equal_atoms_are_taken_from_the_lowest(sparse, n, dtype, screen):
    # Real numbers: each copy has to be summed in the same order, wherever it stands.
    rng = np.random.default_rng(n)
    for _ in range(4):
        w = rng.normal(size=(256, n))
        copies = np.sort(rng.permutation(256)[:9])
        w[copies] = 4 * rng.normal(size=n)
        parameters, data = tensors(dtype, w, np.zeros(256), rng.normal(size=(100, n)))
        for k in (3, 8, 12, 30):
            codes, wide = sparse.sparse_encode(parameters, data, TopK(k), screen)
            support = (codes.dense(256) != 0).numpy()[wide][:, copies]
            assert len(support) > 50
            assert (np.diff(support.astype(int), axis=1) <= 0).all()


@every_dtype
@every_screen
def test_the_threshold_itself_is_not_active(sparse, dtype, screen):
    # 0.1 of the data's precision, which float32 rounds up: above 0.1 as float64 has it.
    tenth = float(torch.tensor(0.1, dtype=dtype))
    for threshold in (0.1, tenth, np.nextafter(tenth, 0), np.nextafter(tenth, 1)):
        up = float(
            torch.nextafter(torch.tensor(tenth, dtype=dtype), torch.tensor(1.0, dtype=dtype))
        )
        w = np.zeros((64, 40))
        w[:5, 0] = [tenth, -tenth, up, 2 * tenth, 0.05]
        parameters, data = tensors(dtype, w, np.zeros(64), np.eye(1, 40))
        judge = Judge(parameters, data)
        for signed in (True, False):
            gate = HardThreshold(float(threshold), signed)
            judge.check(sparse, parameters, data, gate, screen, exact=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_screening_decides_what_it_can_and_leaves_the_rest(sparse, dtype):
    def resolved(name, activation):
        parameters, data = tensors(dtype, *arrays(name, dtype))
        sparse.sparse_encode(parameters, data, activation, BF16)
        asked, counts = sparse.calls[0]
        assert asked == BF16
        left = int((counts < 0).sum())
        redone = [len(counts) for screen, counts in sparse.calls if screen is None]
        assert redone == ([left] if left else [])
        return 1 - left / len(counts)

    # A test on what was never screened, or was never left, would show nothing.
    assert resolved("gaussian", TopK(3)) == 1
    assert resolved("gaussian", HardThreshold(20.0)) == 1
    assert resolved("few_above_zero", ReLU()) == 1
    assert resolved("rounded_at_worst", TopK(40)) > 0.9
    assert resolved("common_offset", TopK(3)) == 0
    assert resolved("bias_one_for_all", HardThreshold(0.1)) == 0  # all are active
    assert 0.2 < resolved("nearly_overflowing", TopK(3)) < 0.8


def test_screening_stops_where_it_does_not_pay(sparse, monkeypatch):
    monkeypatch.setattr(cpu, "tile_rows", lambda m, n: 8)
    parameters, data = tensors(F32, *arrays("common_offset", F32))
    cpu.sparse_encode(parameters, data, TopK(3), screen=BF16)
    assert [screen for screen, _ in sparse.calls] == [BF16, None, None, None]
    sparse.calls.clear()
    parameters, data = tensors(F32, *arrays("gaussian", F32))
    cpu.sparse_encode(parameters, data, TopK(3), screen=BF16)
    assert [screen for screen, _ in sparse.calls] == [BF16] * 3


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 150), st.integers(1, 90)),
    dtype=st.sampled_from(DTYPES),
    screen=st.sampled_from(SCREENS),
    kinds=st.tuples(*[st.sampled_from(["normal", "steps", "integers", "offset", "wild"])] * 2),
    bias=st.sampled_from([0.0, 1e-3, 1.0, 1e4]),
    k=st.one_of(st.none(), st.integers(1, 40)),
    signed=st.booleans(),
    quantile=st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
)
def test_decisions_at_random(seed, shape, dtype, screen, kinds, bias, k, signed, quantile):
    rng = np.random.default_rng(seed)
    n_samples, m, n = shape

    def draw(kind, rows):
        size = (rows, n)
        return {
            "normal": lambda: rng.normal(size=size),
            "steps": lambda: 1 + 2.0**-9 * rng.integers(-4, 5, size),
            "integers": lambda: rng.integers(-2, 3, size).astype(float),
            "offset": lambda: 1e3 + rng.normal(size=size),
            "wild": lambda: rng.normal(size=size) * 10.0 ** rng.uniform(-9, 9, (rows, 1)),
        }[kind]()

    w, y = draw(kinds[0], m), draw(kinds[1], n_samples)
    parameters, data = tensors(dtype, w, bias * rng.normal(size=m), y)
    judge = Judge(parameters, data)
    level = float(np.quantile(np.abs(judge.z).astype(np.float64), quantile))
    activation = TopK(k, signed) if k else HardThreshold(level, signed)
    with pytest.MonkeyPatch.context() as patch:
        judge.check(Sparse(patch), parameters, data, activation, screen)


# --- decisions: cases that fail if a term of the bound is missing ----------------------------


def one_unit(value_of, size, m=64):
    """m atoms that are 0, but for unit 3."""
    w = np.zeros((m, size))
    w[3] = value_of
    return w


@pytest.mark.parametrize("parts", ["data", "atoms", "both"])
@every_dtype
@pytest.mark.parametrize("screen", [BF16, F32], ids=str)
def test_the_worst_rounding_of_operands_is_in_the_bound(sparse, parts, dtype, screen):
    # 1 + 2^-8 - 2^-20 is 1 in bfloat16; likewise 1 + 2^-24 - 2^-40 in float32.
    if dtype == screen:
        pytest.skip("nothing is rounded")
    low = 1 + (2.0**-8 - 2.0**-20 if screen == BF16 else 2.0**-24 - 2.0**-40)
    # The 257 that is left as a score is 256 in bfloat16.
    w = one_unit(low if parts != "data" else 1.0, 257)
    y = np.full((2, 257), low if parts != "atoms" else 1.0)
    parameters, data = tensors(dtype, w, np.zeros(64), y)
    judge = Judge(parameters, data)
    z = float(judge.z[0, 3])
    for signed in (True, False):
        gate = HardThreshold(z - 1e-9 * z, signed)
        wide = judge.check(sparse, parameters, data, gate, screen)
        assert wide.all()
        assert judge.expected(gate)[:, 3].all()


@every_dtype
def test_a_small_positive_value_that_screens_as_negative_is_found(sparse, dtype):
    w, b = one_unit(1 + 2.0**-8 - 2.0**-20, 257), np.full(64, -1e3)
    y = np.full((2, 257), 1 + 2.0**-8 - 2.0**-20)
    b[3] = -(w[3] @ y[0]) * (1 - 2.0**-18)
    parameters, data = tensors(dtype, w, b, y)
    judge = Judge(parameters, data)
    for activation in (TopK(5, signed=False), ReLU()):
        assert judge.expected(activation)[:, 3].all()
        assert judge.check(sparse, parameters, data, activation, BF16).all()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("decoys", [0, 8])
@every_dtype
def test_the_worst_rounding_of_two_rivals_is_in_the_bound(sparse, dtype, decoys, sign):
    # Unit 3 is rounded up throughout, unit 70 down, which is yet the larger by a little.
    h = 257
    w, y = np.zeros((200, 2 * h)), np.zeros((3, 2 * h))
    y[:, :h], y[:, h:] = 1 + 2.0**-8 + 2.0**-20, 1 + 2.0**-8 - 2.0**-20
    w[3, :h], w[70, h:] = 1 + 2.0**-8 + 2.0**-20, 1 + 2.0**-8 - 2.0**-20
    w[3, 0] = 1.0
    w[100 : 100 + decoys] = 0.985 * w[3]  # more that stay open, in a second pass as well
    w *= sign
    parameters, data = tensors(dtype, w, np.zeros(200), y)
    judge = Judge(parameters, data)
    for activation in [TopK(1)] + [TopK(1, signed=False)] * (sign > 0):
        assert judge.expected(activation)[:, 70].all()
        wide = judge.check(sparse, parameters, data, activation, BF16)
        assert wide.all()


@pytest.mark.parametrize("decoys", [0, 8])
@every_dtype
def test_the_rounding_of_scores_is_in_the_bound(sparse, dtype, decoys):
    # Operands are exact. Unit 3 has 257.125, stored as 258; unit 70 has 1027.5, stored as 1024,
    # and a bias that leaves it 257.25, the largest.
    w, b = np.zeros((200, 257)), np.zeros(200)
    w[3], w[70], w[100 : 100 + decoys] = 1.0, 4.0, 1.0
    w[3, 5], w[70, 5], w[100 : 100 + decoys, 5] = 1.125, 3.5, 0.5
    b[70] = -770.25
    parameters, data = tensors(dtype, w, b, np.ones((3, 257)))
    judge = Judge(parameters, data)
    for activation in (TopK(1), TopK(1, signed=False)):
        assert judge.expected(activation)[:, 70].all()
        assert judge.check(sparse, parameters, data, activation, BF16, exact=True).all()


def test_the_rounding_of_sums_is_in_the_bound(sparse):
    # Operands are exact and cancel: 2^26 + 510 - 2^26, of which float32 may keep nothing.
    n = 512
    w, y = one_unit(1.0, n), np.ones((2, n))
    w[3, 0], w[3, -1], y[:, 0], y[:, -1] = 2.0**13, -(2.0**13), 2.0**13, 2.0**13
    b = np.full(64, -1e5)
    b[3] = 0
    for dtype in DTYPES:
        parameters, data = tensors(dtype, w, b, y)
        judge = Judge(parameters, data)
        gate = HardThreshold(400.0, signed=False)
        assert judge.expected(gate)[:, 3].all()
        for screen in (BF16, F32):
            assert judge.check(sparse, parameters, data, gate, screen, exact=True).all()


def test_the_rounding_of_the_bias_is_in_the_bound(sparse):
    # Steps of float32 are 1/8 there: b and the sum are rounded down, the threshold up.
    base = 2.0**20
    w, b, y = np.zeros((64, 40)), np.zeros(64), np.eye(1, 40)
    w[3, 0], b[3], b[5] = 0.05, base + 0.06, base + 0.0626
    parameters, data = tensors(F64, w, b, y)
    judge = Judge(parameters, data)
    for screen in (BF16, F32):
        for activation in (HardThreshold(base + 0.1), TopK(1), TopK(1, signed=False)):
            assert judge.expected(activation)[0].nonzero()[0].tolist() == [3]
            assert judge.check(sparse, parameters, data, activation, screen).all()


def test_norms_whose_squares_underflow_are_in_the_bound(sparse):
    low = 1 + 2.0**-8 - 2.0**-20
    for tiny, huge in ((2.0**-76, 2.0**40), (2.0**40, 2.0**-76)):
        w = one_unit(huge * low, 64)
        parameters, data = tensors(F32, w, np.zeros(64), np.full((2, 64), tiny * low))
        judge = Judge(parameters, data)
        gate = HardThreshold(float(judge.z[0, 3]) * (1 - 1e-9))
        assert judge.expected(gate)[:, 3].all()
        # All may be lost of so small a row, so it may be left unresolved; not be wrong.
        judge.check(sparse, parameters, data, gate, BF16)


def test_a_code_that_is_zero_in_its_precision_is_not_active(sparse):
    # z is 4e-46, which float64 has and float32 has not.
    w = one_unit(1e-24, 40)
    b = np.full(64, -1.0)
    b[3] = 0
    parameters, data = tensors(F32, w, b, np.full((3, 40), 1e-23))
    for gate in (ReLU(), HardThreshold(0.0, signed=False), TopK(2, signed=False)):
        for screen in SCREENS:
            sums = cpu.step(parameters, data, gate, screen=screen)
            codes = sparse.sparse_encode(parameters, data, gate, screen)[0]
            assert (codes.values == 0).all()
            assert sums.counts.sum() == 0


# --- the error bound -------------------------------------------------------------------------


def bound(y, w, low_y, low_w, score):
    """e + slack |s| without a bias, as the docstring of `compiled` has it, in float64."""

    def norm(x):
        return np.sqrt(np.square(x.astype(np.longdouble)).sum(axis=1))

    n, u = y.shape[1], 2.0**-24
    size, error, near = (norm(x)[:, None] for x in (y, y - low_y, low_y))
    off, low = (norm(x)[None] for x in (w - low_w, low_w))
    e = error * low + size * off + (2 * n + 8) * u * near * low
    return e + n * 2.0**-124 * (1 + near + low) + 2.0**-8 * np.abs(score)


@pytest.mark.parametrize("shape", [(1, 200, 64), (200, 1, 64), (1, 1, 4096), (150, 129, 33),
                                   (64, 64, 257), (20, 15, 5000), (3, 17, 20000)])  # fmt: skip
@pytest.mark.parametrize("kind", ["normal", "positive", "worst", "wide", "cancels"])
def test_the_error_of_a_screened_score_is_within_its_bound(shape, kind):
    n_samples, m, n = shape
    rng = np.random.default_rng(shape)

    def draw(rows):
        size = (rows, n)
        if kind == "normal":
            return rng.normal(size=size)
        if kind == "positive":
            return 1 + rng.random(size)
        if kind == "worst":  # just off a tie, the same way throughout a row
            return 2.0 ** rng.integers(-2, 3, size) * (1 + 2.0**-8 - 2.0**-20 * np.ones(size))
        if kind == "wide":
            return rng.normal(size=size) * 10.0 ** rng.uniform(-6, 6, size)
        return np.concatenate([np.full((rows, n // 2), 1e4), rng.normal(size=size)], axis=1)[:, :n]

    y, w = draw(n_samples).astype(np.float32), draw(m).astype(np.float32)
    if kind == "cancels":
        w[:, : n // 4] *= -1
    rounded = [torch.from_numpy(x).to(BF16) for x in (y, w)]
    score = (rounded[0] @ rounded[1].T).double().numpy()
    y, w, low_y, low_w = (
        x.astype(np.float64) for x in (y, w, *(r.float().numpy() for r in rounded))
    )
    ratio = np.abs(score - y @ w.T) / bound(y, w, low_y, low_w, score)
    assert ratio.max() < 1
    if kind in ("positive", "worst"):
        assert np.median(ratio) > 1 / 20  # signs agree, and so the bound is near
    elif kind == "normal" and n <= 300:
        assert np.median(ratio) > 1 / 200


def test_the_kernel_has_norms_no_smaller_than_they_are():
    for name in ("gaussian", "squares_underflow", "rows_of_any_norm"):
        for dtype in DTYPES:
            w = tensors(dtype, *arrays(name, dtype))[0].dictionary
            for screen in (BF16, F32):
                low = w.to(screen)
                found = np.empty((1, 2))
                compiled.largest_norms(cpu.flat(w), cpu.flat(low), *w.shape, 1, found)
                wide = w.numpy().astype(np.longdouble)
                for norm, of in zip(found[0], (wide, wide - low.double().numpy()), strict=True):
                    true = np.sqrt(np.square(of).sum(axis=1)).max()
                    assert norm * (1 + 1e-5) >= true
                    assert norm <= true * (1 + 1e-5) + 1e-16


# --- steps -----------------------------------------------------------------------------------


def judged_sums(parameters, data, activation):
    """Autograd and the definition, in float64."""
    wide = parameters.map(lambda part: part.detach().double().requires_grad_())
    y = data.detach().double()
    gradient = torch.autograd.grad(loss(wide, y, activation) * len(y), wide[:2])
    with torch.no_grad():
        codes = reference.encode(wide, y, activation)
        losses = 0.5 * (y - codes @ wide.dictionary).square().sum(dim=1)
    counts = (codes != 0).sum(dim=0).double()
    return [*gradient, losses, counts, codes.square().sum(dim=0)]


def check_sums(found, judged, dtype, factor=1.0):
    tolerance = factor * (2e-6 if dtype == F32 else 1e-13)
    for name, judge in zip(found._fields, judged, strict=False):
        sums, judge = getattr(found, name), judge.double()
        assert sums.dtype == dtype
        assert not sums.requires_grad
        scale = float(judge.abs().max()) if name != "counts" else 0.0
        torch.testing.assert_close(sums.double(), judge, rtol=0, atol=tolerance * scale)


def uneven(fraction, m=129, n=37, n_samples=300):
    """Rows of very different size, and a threshold in a gap of |z| that leaves `fraction`."""
    rng = np.random.default_rng(int(1000 * fraction))
    y = rng.normal(size=(n_samples, n)) * np.exp(1.5 * rng.normal(size=(n_samples, 1)))
    y = y.astype(np.float32).astype(np.float64)
    w = rng.normal(size=(m, n)).astype(np.float32).astype(np.float64)
    b = (0.1 * rng.normal(size=m)).astype(np.float32).astype(np.float64)
    z = np.sort(np.abs(y @ w.T + b), axis=None)[::-1]
    at = round(fraction * z.size)
    if at == 0:
        return w, b, y, 2 * z[0]
    if at == z.size:
        return w, b, y, 0.0
    first, last = max(0, at - 20), min(z.size - 1, at + 20)
    gap = first + int(np.argmax(z[first:last] / z[first + 1 : last + 1]))
    return w, b, y, float((z[gap] + z[gap + 1]) / 2)


FRACTIONS = [0, 1e-3, 0.01, 0.05, 0.1, 0.12, 0.13, 0.3, 1]


@pytest.mark.parametrize("fraction", FRACTIONS)
@every_dtype
@pytest.mark.parametrize("forced", [True, False])
def test_every_sum_of_a_step(monkeypatch, fraction, dtype, forced):
    if forced:
        monkeypatch.setattr(cpu, "DENSE", np.inf)
    monkeypatch.setattr(cpu, "tile_rows", lambda m, n: 110)
    w, b, y, threshold = uneven(fraction)
    parameters, data = tensors(dtype, w, b, y)
    gates = [HardThreshold(threshold), HardThreshold(threshold, signed=False)]
    for gate in [*gates, TopK(max(1, round(fraction * len(b))))]:
        judged = judged_sums(parameters, data, gate)
        if gate is gates[0]:
            active = float(judged[3].sum()) / (len(y) * len(b))
            assert active == pytest.approx(fraction, abs=1e-3)
        for screen in SCREENS:
            sums = cpu.step(parameters, data, gate, screen=screen)
            assert sums.n_samples == len(y)
            check_sums(sums, judged, dtype)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 63, 64, 65, 127, 128, 129])
@every_dtype
def test_every_sum_at_odd_sizes(sparse, n, dtype):
    for m in (1, 17, 64):
        rng = np.random.default_rng([n, m])
        parameters, data = tensors(
            dtype, rng.normal(size=(m, n)), 0.1 * rng.normal(size=m), rng.normal(size=(40, n))
        )
        for gate in (TopK(min(3, m)), ReLU()):
            judged = judged_sums(parameters, data, gate)
            check_sums(cpu.step(parameters, data, gate, screen=None), judged, dtype)


def in_both_ways(monkeypatch, parameters, data, activation):
    """The sums of a step in one call, whose it must be, and in several."""
    monkeypatch.setattr(cpu, "_SMALL_UNITS", 1)
    one = cpu._small_step(parameters, data, activation)
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "_small_step", lambda *_: None)
        return one, cpu.step(parameters, data, activation)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bias", [0.0, 0.5])
@pytest.mark.parametrize("rows", [4, 5, 7, 64])
@pytest.mark.parametrize(("m", "n", "k"), [(8, 32, 1), (17, 33, 2), (64, 48, 8), (130, 65, 5)])
def test_a_small_step_has_the_bits_of_any_other(monkeypatch, m, n, k, rows, bias, signed):
    rng = np.random.default_rng([m, rows])
    # Sums that no rounding tells apart from those in float64, so that every way must agree.
    w, y = (rng.integers(-9, 10, size).astype(float) for size in ((m, n), (rows, n)))
    y[rows // 2] = 0
    w[m // 2] = w[1]
    parameters, data = tensors(F32, w, bias * rng.integers(-3, 4, m).astype(float), y)
    one, several = in_both_ways(monkeypatch, parameters, data, TopK(k, signed=signed))
    assert all(map(torch.equal, one[:5], several[:5]))
    judged = judged_sums(parameters, data, TopK(k, signed=signed))
    check_sums(one, judged, F32)


@pytest.mark.skipif(cpu.screening(F32, 64) is None, reason="nothing is screened")
def test_a_small_step_decides_as_screening_does(monkeypatch):
    resolved = 0
    for seed, name in enumerate(CASES):
        w, b, y = CASES[name](np.random.default_rng(seed), float(torch.finfo(F32).tiny))
        parameters, data = tensors(F32, w, b, y)
        wide = torch.zeros(len(data), 32 - min(32, data.shape[1]))
        data = torch.cat([data, wide], dim=1)
        wide = torch.zeros(len(b), data.shape[1] - parameters.dictionary.shape[1])
        parameters = Parameters(torch.cat([parameters.dictionary, wide], dim=1), parameters.bias)
        for activation in (TopK(2), TopK(2, signed=False)):
            one, several = in_both_ways(monkeypatch, parameters, data, activation)
            screen = cpu.screening(F32, data.shape[1])
            encoder = cpu.Encoder(parameters, gate_of(activation), screen, 2)
            if one is not None and encoder._chosen(data, screen).counts.min() >= 0:
                resolved += 1
                assert all(map(torch.equal, one[:5], several[:5])), name
    assert resolved > 4


def test_a_small_step_leaves_what_it_can_not_resolve():
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(64, 40)), np.zeros(64), rng.normal(size=(50, 40))
    parameters, data = tensors(F32, *arrays)
    assert cpu._small_step(parameters, data, TopK(4)) is not None
    for activation in (TopK(9), HardThreshold(1.0), ReLU()):
        assert cpu._small_step(parameters, data, activation) is None
    assert cpu._small_step(parameters, data[:3], TopK(4)) is None
    for value in (np.nan, np.inf, 3e38, 1e37):
        data[3, 5] = value
        assert cpu._small_step(parameters, data, TopK(4)) is None
        cpu.step(parameters, data, TopK(4))


@every_dtype
def test_a_row_with_far_more_active_units_than_the_probed_ones(sparse, dtype):
    # Rows that tell the density are evenly spread; the busy ones are between them.
    rng = np.random.default_rng(3)
    y = 1e-3 * rng.normal(size=(200, 40))
    y[[1, 77, 199]] = 10 * rng.normal(size=(3, 40))
    parameters, data = tensors(dtype, rng.normal(size=(150, 40)), np.zeros(150), y)
    gate = HardThreshold(1.0)
    judge = Judge(parameters, data)
    assert judge.expected(gate).sum(axis=1).max() > 100
    for screen in SCREENS:
        judge.check(sparse, parameters, data, gate, screen)
        check_sums(
            cpu.step(parameters, data, gate, screen=screen),
            judged_sums(parameters, data, gate), dtype,
        )  # fmt: skip


LAYOUTS = {
    "C": lambda x: x,
    "F": lambda x: x.mT.contiguous().mT if x.ndim == 2 else x,
    "strided": lambda x: torch.stack([x, -x], dim=-1).flatten(-2)[..., ::2],
    "offset": lambda x: torch.cat([x.new_full((1,), 9.0), x.reshape(-1)])[1:].view(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@every_dtype
@every_screen
def test_layouts_and_gradients_of_inputs_leave_no_trace(layout, dtype, screen):
    rng = np.random.default_rng(5)
    parameters, data = tensors(
        dtype, rng.normal(size=(70, 33)), 0.1 * rng.normal(size=70), rng.normal(size=(50, 33))
    )
    change = LAYOUTS[layout]
    inputs = [change(part) for part in (*parameters[:2], data)]
    plain = [part.clone(memory_format=torch.contiguous_format) for part in inputs]
    leaves = [part.detach().requires_grad_() for part in inputs]
    for gate in (TopK(4), HardThreshold(9.0)):
        expected = cpu.step(Parameters(*plain[:2]), plain[2], gate, screen=screen)
        check_sums(expected, judged_sums(Parameters(*plain[:2]), plain[2], gate), dtype)
        found = cpu.step(Parameters(*leaves[:2]), leaves[2], gate, screen=screen)
        codes = cpu.encode(Parameters(*leaves[:2]), leaves[2], gate, screen=screen)
        listed = cpu.sparse_encode(Parameters(*leaves[:2]), leaves[2], gate, screen=screen)
        assert not any(x.requires_grad for x in (*found[:5], codes, listed.values))
        # Not the same bits: what a product rounds may depend on where its operands lie.
        check_sums(found, expected[:5], dtype)
        again = cpu.encode(Parameters(*plain[:2]), plain[2], gate, screen=screen)
        torch.testing.assert_close(codes, again)
    assert all(map(torch.equal, inputs, plain))


@every_dtype
@every_screen
def test_results_own_their_memory(dtype, screen):
    parameters, data = tensors(dtype, *arrays("gaussian", dtype))
    results = []
    for activation in (TopK(3), TopK(3), HardThreshold(16.0), TopK(100), Sigmoid()):
        results += cpu.step(parameters, data, activation, screen=screen)[:5]
        results += cpu.sparse_encode(parameters, data, activation, screen=screen)
        results.append(cpu.encode(parameters, data, activation, screen=screen))
    before = [result.clone() for result in results]
    spans = sorted(
        (r.data_ptr(), r.numel() * r.element_size()) for r in [*results, *parameters[:2], data]
    )
    assert all(at + size <= then for (at, size), (then, _) in pairwise(spans))
    for part in (*parameters[:2], data):
        part.fill_(7.0)
    cpu.step(parameters, data, TopK(3), screen=screen)
    assert all(map(torch.equal, results, before))


def test_no_samples():
    parameters, data = tensors(F32, *arrays("gaussian", F32))
    for activation in (TopK(3), ReLU(), Sigmoid()):
        sums = cpu.step(parameters, data[:0], activation)
        assert sums.losses.shape == (0,)
        assert not any(sums.dictionary.any() for sums in [sums])
        assert cpu.encode(parameters, data[:0], activation).shape == (0, 129)
        assert len(cpu.sparse_encode(parameters, data[:0], activation).values) == 0


# --- once found wrong -----------------------------------------------------------------------------


@every_screen
def test_sums_that_overflow_show(screen):
    # A diverged atom has to be seen in the loss, as it is with the reference.
    rng = np.random.default_rng(0)
    w = rng.normal(size=(64, 40))
    w[5] = 1e30
    parameters, data = tensors(F32, w, np.zeros(64), np.full((3, 40), 1e10))
    for gate in (HardThreshold(1e38), HardThreshold(1e32, signed=False), TopK(2), TopK(1)):
        expected = reference.step(parameters, data, gate)
        found = cpu.step(parameters, data, gate, screen=screen)
        assert not expected.losses.isfinite().any()
        assert not found.losses.isfinite().any()
        assert found.counts[5] == 3


def test_a_bias_near_the_end_of_float32(sparse):
    w, b, y = np.zeros((64, 32)), np.zeros(64), np.full((1, 32), 0.0)
    y[0, 0] = -1e18
    w[0, 0], w[1, 0] = 1e18, -1e18
    b[0], b[1] = 3.4029e38, 3.39e38  # the first is infinite in float32
    parameters, data = tensors(F64, w, b, y)
    judge = Judge(parameters, data)
    for screen in SCREENS:
        judge.check(sparse, parameters, data, TopK(1), screen)


@pytest.mark.parametrize(
    "activation",
    [TopK(2), TopK(60), Sigmoid()],
    ids=str,
)
def test_parameters_that_require_a_gradient(activation):
    parameters, data = tensors(F32, *arrays("gaussian", F32))
    leaves = parameters.map(lambda part: part.requires_grad_())
    assert not any(part.requires_grad for part in cpu.step(leaves, data, activation)[:5])
    assert not cpu.encode(leaves, data, activation).requires_grad
    assert not cpu.sparse_encode(leaves, data, activation).values.requires_grad


def test_sums_over_many_rows_keep_their_digits():
    # Added one by one in float32, a hundred thousand equal numbers are off by a thousandth.
    rng = np.random.default_rng(1)
    y = np.repeat(0.1 + 0.01 * rng.normal(size=(1, 32)), 150_000, axis=0)
    w = 0.001 * rng.normal(size=(8, 32))
    w[3] += 0.17
    parameters, data = tensors(F32, w, np.zeros(8), y)
    judged = judged_sums(parameters, data, TopK(1))
    check_sums(cpu.step(parameters, data, TopK(1)), judged, F32, factor=10)


def test_the_default_device_is_not_that_of_the_data():
    parameters, data = tensors(F32, *arrays("gaussian", F32))
    with torch.device("meta"):
        for activation in (TopK(3), Sigmoid()):
            assert cpu.step(parameters, data, activation).losses.device.type == "cpu"
            assert cpu.encode(parameters, data, activation).device.type == "cpu"
            assert cpu.sparse_encode(parameters, data, activation).values.device.type == "cpu"


@pytest.mark.parametrize(
    ("dtype", "screen"), [(F64, None), (F64, BF16), (F64, F32), (F32, None), (F32, BF16)]
)
def test_autocast_does_not_reach_the_product(sparse, dtype, screen):
    w, b, y = arrays("gaussian", dtype)
    y = np.concatenate([y + 0.1 * shift for shift in range(10)])
    parameters, data = tensors(dtype, w, b, y)
    judge = Judge(parameters, data)
    with torch.autocast("cpu", dtype=BF16):
        for activation in activations(judge):
            judge.check(sparse, parameters, data, activation, screen)


@every_screen
def test_precisions_are_not_mixed(screen):
    parameters, data = tensors(F32, *arrays("gaussian", F32))
    for kernel in (reference.sparse_encode, cpu.sparse_encode, reference.step, cpu.step):
        options = {} if kernel.__module__ == reference.__name__ else {"screen": screen}
        with pytest.raises(RuntimeError):
            kernel(parameters, data.double(), TopK(3), **options)


def test_where_no_thread_is_to_be_had_the_caller_does_it_all(monkeypatch):
    class Full:
        def submit(self, *_):
            raise RuntimeError("can't start new thread")

    parameters, data = tensors(F64, *arrays("gaussian", F64))
    expected = cpu.step(parameters, data, TopK(3))
    monkeypatch.setattr(cpu, "n_parts", lambda: 3)
    monkeypatch.setattr(compiling, "_team", Full())
    found = cpu.step(parameters, data, TopK(3))
    assert all(map(torch.equal, found[:5], expected[:5]))


def test_a_failure_in_a_thread_reaches_the_caller():
    def fail(*arguments):
        if arguments[-1] == place:
            raise KeyError(place)
        done.append(arguments[-1])

    for place in (0, 2):
        done = []
        with pytest.raises(KeyError):
            compiling._together(fail, ("given",), 3)
        assert sorted(done) == [part for part in range(3) if part != place]


# --- the same again --------------------------------------------------------------------------


@every_dtype
@every_screen
def test_the_same_bits_again(dtype, screen):
    rng = np.random.default_rng(8)
    parameters, data = tensors(
        dtype, rng.normal(size=(129, 65)), np.zeros(129), rng.normal(size=(700, 65))
    )
    for activation in (TopK(5), HardThreshold(18.0)):
        one, two = (cpu.step(parameters, data, activation, screen=screen) for _ in range(2))
        assert all(map(torch.equal, one[:5], two[:5]))


def test_rows_do_not_depend_on_those_before_them(sparse):
    # A guess from earlier rows may cost time, and nothing else.
    rng = np.random.default_rng(9)
    for m, k in ((129, 1), (129, 5), (70, 1), (20, 1), (300, 20)):
        w = 0.2 * rng.normal(size=(m, 64)) + rng.normal(size=64) / 8
        y = rng.normal(size=(100, 64)) * np.exp(rng.normal(size=(100, 1)))
        parameters, data = tensors(F32, w, 0.1 * rng.normal(size=m), y)
        for activation in (TopK(k), TopK(k, signed=False)):
            forth, wide = sparse.sparse_encode(parameters, data, activation, BF16)
            back, wide_back = sparse.sparse_encode(parameters, data.flip(0), activation, BF16)
            assert (wide == wide_back[::-1]).all()
            rows = torch.from_numpy(wide)
            for one, two in zip(forth, back, strict=True):
                assert torch.equal(one[rows], two.flip(0)[rows])


def test_python_threads_at_once():
    rng = np.random.default_rng(10)
    problems = [
        tensors(F32, rng.normal(size=(100, 40)), np.zeros(100), rng.normal(size=(400, 40)))
        for _ in range(4)
    ]
    expected = [cpu.step(*problem, TopK(4)) for problem in problems]
    agreed = [0] * len(problems)

    def work(i):
        for _ in range(10):
            found = cpu.step(*problems[i], TopK(4))
            agreed[i] += all(map(torch.equal, found[:5], expected[i][:5]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(problems))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert agreed == [10] * len(problems)


# --- processes -------------------------------------------------------------------------------


def run(script, **environment):
    """The output of a fresh Python on `script`, warnings being errors."""
    source = str(Path(cpu.__file__).parents[3])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    ended = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", script],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


THREADS = """
import {first}, {second}
import torch
torch.set_num_threads({threads})
from shoal.network import TopK, HardThreshold
from shoal.network.kernels import cpu, choose
from shoal.network.pursuit import *
from shoal.vocabulary import Parameters
g = torch.Generator().manual_seed(0)
data = torch.randn(3000, 64, generator=g)
parameters = Parameters(torch.randn(200, 64, generator=g), torch.zeros(200))
assert choose(data) is cpu
cpu.step(parameters, data, TopK(5))
assert torch.get_num_threads() == {threads}, torch.get_num_threads()
assert cpu.n_parts() == {threads}
for dtype in (torch.float32, torch.float64):
    for screen in (None, torch.bfloat16):
        for activation in (TopK(5), TopK(1, signed=False), HardThreshold(22.0)):
            both = parameters.map(lambda part: part.to(dtype)), data.to(dtype)
            many = [cpu.step(*both, activation, screen=screen) for _ in range(2)]
            mine = torch.get_num_threads()
            torch.set_num_threads(3 - mine)
            assert cpu.n_parts() == 3 - mine
            few = cpu.step(*both, activation, screen=screen)
            torch.set_num_threads(mine)
            assert all(map(torch.equal, many[0][:5], many[1][:5])), "again"
            if screen is not None or dtype == torch.float64:
                name = str((dtype, screen, activation))
                assert all(map(torch.equal, many[0][:5], few[:5])), name
    # Products are exact, so that what is left to differ are the pursuits.
    signs = torch.randn(200, 64, generator=g, dtype=dtype).sign()
    parameters, data = Parameters(signs / 8, torch.zeros(200, dtype=dtype)), data.round().to(dtype)
    for kind in (SubspacePursuit, OrthogonalMatchingPursuit, IterativeHardThresholding):
        mine = torch.get_num_threads()
        many = cpu.step(parameters, data, kind(5))
        torch.set_num_threads(3 - mine)
        few = cpu.step(parameters, data, kind(5))
        torch.set_num_threads(mine)
        assert all(map(torch.equal, many[:5], few[:5])), kind
"""


@pytest.mark.timeout(600)  # with nothing kept, all kernels are compiled twice, for two precisions
@pytest.mark.parametrize(
    ("first", "second", "threads"), [("numba", "torch", 2), ("torch", "numba", 1)]
)
def test_threads(first, second, threads):
    script = THREADS.format(first=first, second=second, threads=threads)
    run(script, NUMBA_NUM_THREADS="2", OMP_NUM_THREADS="2")


FIRST = """
import sys, threading
import torch
torch.set_num_threads(2)
from shoal.network import TopK
from shoal.network.kernels import choose
from shoal.vocabulary import Parameters
data = torch.randn(1000, 64)
parameters = Parameters(torch.randn(100, 64), torch.zeros(100))
sys.setswitchinterval(1e-6)
barrier, found = threading.Barrier(8), []
def work():
    barrier.wait()
    for _ in range(3):
        found.append(choose(data).step(parameters, data, TopK(5)).losses.sum().item())
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 24 and len(set(found)) == 1, found
"""


def test_first_calls_at_once():
    run(FIRST, NUMBA_NUM_THREADS="2", OMP_NUM_THREADS="2")


ABSENT = """
import logging, sys
for name in {blocked}:
    sys.modules[name] = None
said = []
class Handler(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger("shoal").addHandler(Handler())
import numpy as np, torch
from shoal import DictionaryAutoencoder
from shoal.network.kernels import choose, reference, repeated
from shoal.network import TopK
data = torch.randn(40, 8)
assert choose(data) is reference and choose(data.double()) is reference
repeated(data, TopK(2))
x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
codes = DictionaryAutoencoder(12, 2, random_state=0).fit_transform(x)
assert codes.shape == (60, 12), codes.shape
assert len(said) == 1, said
assert "numba" in said[0] or "llvmlite" in said[0], said
"""


def test_without_numba():
    run(ABSENT.format(blocked=["numba"]))


MEMORY = """
import torch
from shoal.network import HardThreshold, Softplus, TopK
from shoal.network.kernels import cpu
from shoal.vocabulary import Parameters

def memory(name):
    with open("/proc/self/status") as status:
        line, = (line for line in status if line.startswith(name))
    return int(line.split()[1]) / 1024

m, n = 512, 32
parameters = Parameters(torch.randn(m, n), torch.zeros(m))
for activation in (TopK(8), HardThreshold(14.0), TopK(200)):
    for screen in (None, torch.bfloat16):
        extra = []
        for rows in (2000, 20_000, 80_000):
            data = torch.randn(rows, n)
            with open("/proc/self/clear_refs", "w") as control:
                control.write("5")  # the peak is now
            before = memory("VmRSS")
            sums = cpu.step(parameters, data, activation, screen=screen)
            extra.append(memory("VmHWM") - before)
            del sums
        print(activation, screen, *(round(x, 1) for x in extra))
        assert extra[2] < 80_000 * m * 2 / 2**20, extra  # one (B, m) of bfloat16
        assert extra[2] - max(extra[:2]) < 64, extra  # what malloc keeps comes and goes
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells peaks")
def test_memory_does_not_grow_with_the_batch():
    run(MEMORY)


def test_no_operation_makes_an_array_of_all_scores(monkeypatch):
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest[0] = max(largest[0], out.numel())
            return out

    monkeypatch.setattr(cpu, "tile_rows", lambda m, n: 64)
    rng = np.random.default_rng(11)
    parameters, data = tensors(
        F32, rng.normal(size=(512, 32)), np.zeros(512), rng.normal(size=(1000, 32))
    )
    for activation in (TopK(8), HardThreshold(18.0), TopK(200), Sigmoid()):
        for screen in (None, BF16):
            largest[0] = 0
            with Watch():
                cpu.step(parameters, data, activation, screen=screen)
            assert 64 * 512 <= largest[0] < 1000 * 64


# --- the choice ------------------------------------------------------------------------------


def test_the_choice_and_its_context(caplog):
    with caplog.at_level(logging.WARNING, logger="shoal"):
        data = torch.zeros(2, 3)
        assert choose(data) is cpu
        with use("reference"):
            assert choose(data) is reference
            with use("auto"):
                assert choose(data) is cpu
                with use("reference"):
                    assert choose(data) is reference
                assert choose(data) is cpu
            assert choose(data) is reference
        assert choose(data) is cpu
        for dtype in (torch.float16, torch.bfloat16):
            assert choose(data.to(dtype)) is reference
    assert caplog.records == []


def test_the_context_ends_with_an_error():
    data = torch.zeros(2, 3)
    with pytest.raises(KeyError), use("reference"):
        raise KeyError
    assert choose(data) is cpu
    for name in ("cpu", "", None, 1, "Reference"):
        with pytest.raises(ArgumentError, match="backend"), use(name):
            pass
        assert choose(data) is cpu

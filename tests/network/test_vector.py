"""Vectors of 16 numbers in compiled functions, each operation before NumPy's."""

import ctypes
import mmap
import os
import sys
import warnings

import numpy as np
import pytest
import torch

numba = pytest.importorskip("numba")

from numba import njit  # noqa: E402

from shoal.network.kernels.vector import (  # noqa: E402
    LANES,
    absolute,
    add,
    at_least,
    count_bits,
    entry,
    first_bit,
    lane_of,
    load,
    load_part,
    maximum,
    multiply_add,
    select,
    splat,
    store,
    store_part,
    total,
)

FLOATS = [np.float32, np.float64]
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 1.5, -1.5])


# Never cached: numba would not notice that an intrinsic has changed.


@njit
def copy(like, array, at, out, to):
    """A whole vector."""
    store(out, to, load(like, array, at))


@njit
def copy_part(like, array, at, read, out, to, written):
    """`read` entries, of which `written` are stored; and an entry as a number."""
    store_part(out, to, load_part(like, array, at, read), written)
    return entry(like, array, at)


@njit
def calculate(a, b, c, x, flag, out):
    """Every operation on the vectors a, b and c, a row of `out` each; bits and a sum."""
    u, v, w = load(a, a, 0), load(a, b, 0), load(a, c, 0)
    store(out[0], 0, add(u, v))
    store(out[1], 0, multiply_add(u, v, w))
    store(out[2], 0, absolute(u))
    store(out[3], 0, maximum(u, v))
    store(out[4], 0, select(flag, u, v))
    store(out[5], 0, splat(a, x))
    return at_least(u, v), total(u)


@njit
def reversed_lanes(a, out):
    """The numbers of a vector, from the last lane to the first."""
    for lane in range(LANES):
        out[LANES - 1 - lane] = lane_of(load(a, a, 0), lane)


@njit
def tell(bits):
    """The index of the first bit, and how many are set."""
    return first_bit(bits), count_bits(bits)


def numbers(dtype, size=64, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == np.uint16:
        return (
            torch.from_numpy(rng.normal(size=size)).bfloat16().view(torch.int16).numpy().view(dtype)
        )
    return rng.normal(size=size).astype(dtype)


def as_read(like, array):
    """What reading an array in the precision of `like` gives, by NumPy."""
    if array.dtype == np.uint16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32 if like == np.uint16 else like)


READ = [
    (np.float32, np.float32),
    (np.float64, np.float64),
    (np.float64, np.float32),
    (np.float32, np.uint16),
    (np.float64, np.uint16),
    (np.uint16, np.uint16),
]
every_reading = pytest.mark.parametrize(("like", "dtype"), READ)


@every_reading
def test_whole_vectors(like, dtype):
    array = numbers(dtype)
    expected = as_read(like, array)
    for at, to in ((0, 0), (1, 3), (17, 5), (64 - LANES, 40 - LANES)):
        out = np.full(40, 9.0, expected.dtype)
        copy(np.zeros(1, like), array, at, out, to)
        guarded = np.full(40, 9.0, expected.dtype)
        guarded[to : to + LANES] = expected[at : at + LANES]
        np.testing.assert_array_equal(out, guarded)


@every_reading
@pytest.mark.parametrize("at", [0, 7])
def test_parts_of_vectors(like, dtype, at):
    array = numbers(dtype)
    expected = as_read(like, array)
    like = np.zeros(1, like)
    for read in range(LANES + 1):
        for written in (0, 1, read, LANES):
            out = np.full(3 * LANES, 9.0, expected.dtype)
            one = copy_part(like, array, at, read, out, LANES, written)
            guarded = np.full(3 * LANES, 9.0, expected.dtype)
            lanes = np.zeros(LANES)
            lanes[:read] = expected[at : at + read]
            guarded[LANES : LANES + written] = lanes[:written]
            np.testing.assert_array_equal(out, guarded)
            assert one == expected[at]


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_lanes_of_a_vector(dtype):
    array, out = numbers(dtype, LANES), np.zeros(LANES, dtype)
    reversed_lanes(array, out)
    np.testing.assert_array_equal(out, array[::-1])


def test_bfloat16_is_what_torch_makes_of_it():
    every = np.arange(2**16, dtype=np.uint16)
    floats = torch.from_numpy(every.view(np.int16)).view(torch.bfloat16).float().numpy()
    out = np.zeros(2**16, np.float32)
    for at in range(0, 2**16, LANES):
        copy(every, every, at, out, at)
    np.testing.assert_array_equal(out, floats)
    with np.errstate(invalid="ignore"):
        wide = out.astype(np.float64)
    found = np.zeros(LANES)
    for at in (0x3F80, 0x7F78, 0xFF78, 0, 0x8000):  # ordinary, infinite and NaN, subnormal
        copy(found, every, at, found, 0)
        np.testing.assert_array_equal(found, wide[at : at + LANES])


@pytest.mark.skipif(sys.platform != "linux", reason="protects memory as Linux does")
@every_reading
def test_nothing_beyond_a_part_is_read(like, dtype):
    # The part ends where memory does: a child that reads or writes on doesn't return.
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    array = np.frombuffer(memory, dtype, count=page // np.dtype(dtype).itemsize)
    array[:] = numbers(dtype, size=array.size)
    like = np.zeros(1, like)
    out = np.zeros(LANES, as_read(like.dtype.type, array).dtype)
    copy_part(like, array, 0, LANES, out, 0, LANES)  # compiled before the fork
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and forks; none is used
        child = os.fork()
    if child == 0:
        failed = libc.mprotect(array.ctypes.data + page, page, 0)
        right = not failed
        for n in range(1, LANES + 1):
            copy_part(like, array, array.size - n, n, out, 0, n)
            right &= np.array_equal(out[:n], as_read(like.dtype.type, array)[-n:])
            if array.dtype == out.dtype:
                copy_part(like, out, 0, n, array, array.size - n, n)
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0


def special(dtype, seed):
    """16 numbers, of which half are zeros, infinities, NaN or subnormal."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(LANES) < 0.5, rng.choice(SPECIAL, LANES), rng.normal(size=LANES))
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_arithmetic(dtype):
    out = np.zeros((6, LANES), dtype)
    lanes = np.arange(LANES, dtype=np.uint64)
    for seed in range(200):
        a, b, c = (special(dtype, [seed, part]) for part in range(3))
        if seed % 4 == 0:
            b[::2] = a[::2]
        bits, _ = calculate(a, b, c, 0.1, seed % 2 == 0, out)
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(out[0], a + b)
            np.testing.assert_array_equal(out[2], np.abs(a))
            np.testing.assert_array_equal(out[3], np.where(a > b, a, b))  # b where one is NaN
            np.testing.assert_array_equal(out[4], a if seed % 2 == 0 else b)
            assert bits == np.sum((a >= b).astype(np.uint64) << lanes)
        assert not np.signbit(out[2][~np.isnan(a)]).any()
        np.testing.assert_array_equal(out[5], np.full(LANES, 0.1).astype(dtype))


def test_multiply_add_rounds_once():
    rng = np.random.default_rng(1)
    out = np.zeros((6, LANES), np.float32)
    a, b = rng.normal(size=(2, LANES)).astype(np.float32)
    c = -(a * b)  # what is left is the rounding of the product
    calculate(a, b, c, 0.0, True, out)
    exact = a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)
    np.testing.assert_array_equal(out[1], exact.astype(np.float32))
    assert np.any(out[1] != 0)

    out = np.zeros((6, LANES))
    a = 1 + 2.0**-30 * rng.integers(-100, 100, LANES)
    b = 1 + 2.0**-30 * rng.integers(-100, 100, LANES)
    calculate(a, b, -np.ones(LANES), 0.0, True, out)
    # (1 + p)(1 + q) - 1 in whole multiples of 2^-60
    p, q = (np.round((x - 1) * 2.0**30).astype(object) for x in (a, b))
    exact = [float(i * 2**30 + j * 2**30 + i * j) * 2.0**-60 for i, j in zip(p, q, strict=True)]
    np.testing.assert_array_equal(out[1], exact)


@pytest.mark.parametrize("dtype", FLOATS)
def test_totals(dtype):
    out = np.zeros((6, LANES), dtype)
    rng = np.random.default_rng(2)
    for _ in range(20):
        a = rng.integers(-1000, 1000, LANES).astype(dtype)
        assert calculate(a, a, a, 0.0, True, out)[1] == a.sum()
        a = rng.normal(size=LANES).astype(dtype)
        found = calculate(a, a, a, 0.0, True, out)[1]
        size = np.abs(a.astype(np.longdouble)).sum()
        assert abs(found - a.astype(np.longdouble).sum()) <= LANES * np.finfo(dtype).eps * size
    a[3] = np.nan
    assert np.isnan(calculate(a, a, a, 0.0, True, out)[1])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("x", [1, 0.1, -0.0, 1e-300, np.inf, np.nan, np.float32(0.1)])
def test_splat_rounds(dtype, x):
    out = np.zeros((6, LANES), dtype)
    a = np.zeros(LANES, dtype)
    calculate(a, a, a, x, True, out)
    with np.errstate(under="ignore"):
        expected = np.full(LANES, np.float64(x)).astype(dtype)
    np.testing.assert_array_equal(out[5], expected)
    np.testing.assert_array_equal(np.signbit(out[5]), np.signbit(expected))


def test_bits():
    rng = np.random.default_rng(3)
    cases = [0, 1, 2, 2**63, 2**64 - 1, 0xFFFF, 0xFFFF0000, *(2**i for i in range(64))]
    cases += [int(x) for x in rng.integers(0, 2**64, 100, np.uint64)]
    for bits in cases:
        first, count = tell(np.uint64(bits))
        assert count == bits.bit_count()
        assert first == (64 if bits == 0 else (bits & -bits).bit_length() - 1)

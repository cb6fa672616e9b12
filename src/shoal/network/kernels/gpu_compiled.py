"""The Triton kernels of a step, one program a row but for the last: see :mod:`.gpu`.

    round_rows      a row in the coarse type, and how far its products may be off
    mark            of a row's coarse scores, the units that may be active
    settle          the same by float64 sums, for rows with more of them than there is room for
    rows            codes of those, the residual, the loss, e = <r, D_i>
    atoms           the sums of each atom, over its pairs

No kernel adds to memory that another program writes, so that bits are the same every run. Sizes
that depend on the data are read on the device, and no one waits for them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["atoms", "mark", "round_rows", "rows", "settle"]

# A product and a sum in one rounding: never farther from the exact number. Recent versions ask.
OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}

# Units whose products with a row are taken at once, features of a chunk, and chunks whose loads are
# under way at once: at 768 features 24 kB in a program of 128 threads. Computed, not timed.
PAIRS, FEATURES, UNROLL = 8, 256, 4
# Numbers of the atoms of a row that are kept in registers, of the 65536 that a multiprocessor has,
# where two programs are to run at once. Of more atoms the rows are read twice. Not timed.
ON_CHIP = 1 << 14
# Work space of `settle`.
SETTLE_BYTES = 1 << 26


def chunk(n_features: int) -> int:
    """Features that are multiplied at once: chains of sums are n / chunk long."""
    return int(min(FEATURES, triton.next_power_of_2(n_features)))


def _chunks(n_features: int) -> dict[str, int]:
    size = chunk(n_features)
    return {"PAIRS": PAIRS, "FEATURES": size, "UNROLL": min(UNROLL, -(-n_features // size))}


def _warps(elements: int) -> int:
    """Warps for a vector of so many elements, 8 a thread."""
    return int(min(16, max(4, elements // 256)))


# --- parts -----------------------------------------------------------------------------------


@triton.jit
def _dots(  # type: ignore[no-untyped-def]
    left,
    right,
    unit,
    there,
    n,
    PAIRS: tl.constexpr,
    FEATURES: tl.constexpr,
    UNROLL: tl.constexpr,
    WIDE: tl.constexpr,
):
    """<left, right_unit> (PAIRS,) in float64: the sum of FEATURES chains, float32 unless WIDE.

    The order depends only on n: equal rows give equal bits.
    """
    total = tl.zeros((PAIRS, FEATURES), dtype=tl.float64 if WIDE else tl.float32)
    row = right + unit.to(tl.int64) * n
    for first in tl.range(0, n, FEATURES, loop_unroll_factor=UNROLL):
        at = first + tl.arange(0, FEATURES)
        inside = there[:, None] & (at < n)[None, :]
        y = tl.load(left + at, mask=at < n, other=0.0).to(total.dtype)
        w = tl.load(row[:, None] + at[None, :], mask=inside, other=0.0).to(total.dtype)
        total += y[None, :] * w
    return tl.sum(total.to(tl.float64), axis=1)


@triton.jit
def _key(number):  # type: ignore[no-untyped-def]
    """Integers in the order of the float64 `number`s; one that is none comes first."""
    number = tl.where(number == number, number, float("-inf"))
    bits = number.to(tl.int64, bitcast=True)
    return bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)


@triton.jit
def _middle(low, high):  # type: ignore[no-untyped-def]
    return (low >> 1) + (high >> 1) + (low & high & 1)


@triton.jit
def _kth(keys, k):  # type: ignore[no-untyped-def]
    """A number that k of the keys reach; more only where the k-th largest has equals.

    By bisection, on at least k keys.
    """
    least = tl.min(keys, axis=0)
    high = tl.max(keys, axis=0) + 1
    # Not from what stands for no entry, which is far below the others.
    low = tl.min(tl.where(keys > least, keys, high - 1), axis=0)
    count = tl.sum((keys >= low).to(tl.int32), axis=0)
    if count < k:
        low = least
        count = tl.sum((keys >= low).to(tl.int32), axis=0)
    while (count != k) & (low + 1 < high):
        middle = _middle(low, high)
        reached = tl.sum((keys >= middle).to(tl.int32), axis=0)
        if reached >= k:
            low = middle
            count = reached
        else:
            high = middle
    return low


@triton.jit
def _largest(keys, k):  # type: ignore[no-untyped-def]
    """Which of the keys are the k largest, ties to the first, and the least key of these."""
    low = _kth(keys, k)
    above = keys > low
    equal = keys == low
    room = k - tl.sum(above.to(tl.int32), axis=0)
    return above | (equal & (tl.cumsum(equal.to(tl.int32), axis=0) <= room)), low


# --- rounding --------------------------------------------------------------------------------


def round_rows(
    exact: Tensor,
    coarse: Tensor,
    out: Tensor,
    bias: Tensor | None = None,
    limits: Tensor | None = None,
    summing: float = 0.0,
    chain: float = 0.0,
    tiny: float = 0.0,
) -> None:
    """Write rows (R, n) in a coarse type, and what it costs them.

    With the `bias` of each row, `out` (4, R) becomes in float64 the lengths of the rows, of the
    rounded ones, of the differences, and the size of the bias. With `limits` (4,), the most of
    these that atoms have, `out` (2, R) becomes in float32 the slack of a sample's scores, and how
    far its products by :func:`_dots` may be off.
    """
    n_rows, n_features = exact.shape
    features = min(1024, triton.next_power_of_2(n_features))
    at_once = max(1, 1024 // features)
    _round_kernel[(triton.cdiv(n_rows, at_once),)](
        exact, coarse, out if bias is None else bias, out if limits is None else limits, out,
        n_features, n_rows, summing, chain, tiny,
        SAMPLES=bias is None, ROWS=at_once, FEATURES=features, **OPTIONS,
    )  # fmt: skip


@triton.jit
def _round_kernel(  # type: ignore[no-untyped-def]
    exact,
    coarse,
    bias,
    limits,
    out,
    n,
    n_rows,
    summing,
    chain,
    tiny,
    SAMPLES: tl.constexpr,
    ROWS: tl.constexpr,
    FEATURES: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    here = row < n_rows
    total = tl.zeros((ROWS, FEATURES), dtype=tl.float64)
    left = tl.zeros((ROWS, FEATURES), dtype=tl.float64)
    lost = tl.zeros((ROWS, FEATURES), dtype=tl.float64)
    for first in range(0, n, FEATURES):
        at = first + tl.arange(0, FEATURES)
        inside = here[:, None] & (at < n)[None, :]
        where = row[:, None] * n + at[None, :]
        number = tl.load(exact + where, mask=inside, other=0.0)
        near = number.to(coarse.dtype.element_ty)
        tl.store(coarse + where, near, mask=inside)
        whole = number.to(tl.float64)
        rounded = near.to(tl.float64)
        total += whole * whole
        left += rounded * rounded
        lost += (whole - rounded) * (whole - rounded)
    length = tl.sqrt(tl.sum(total, axis=1))
    rounded = tl.sqrt(tl.sum(left, axis=1))
    error = tl.sqrt(tl.sum(lost, axis=1))
    if SAMPLES:
        longest = tl.load(limits)
        widest = tl.load(limits + 1)
        worst = tl.load(limits + 2)
        most = tl.load(limits + 3)
        below = tiny * (1 + length + longest)
        slack = error * widest + length * worst + summing * rounded * widest + below
        slack += 2.384185791015625e-07 * (length * longest + most)  # 2^-22
        short = chain * length * longest + below
        largest = tl.maximum(tl.maximum(length, longest), tl.maximum(length * longest, most))
        # At most 2^120, and False where one is no number.
        safe = (largest <= 1.329227995784916e36) & (slack == slack)
        none = length * longest == 0
        # 1 + 2^-20: more than float32 can take away.
        slack = tl.where(none, 0.0, slack * 1.00000095367431640625)
        short = tl.where(none, 0.0, short * 1.00000095367431640625)
        tl.store(out + row, tl.where(safe, slack, float("inf")).to(tl.float32), mask=here)
        tl.store(out + n_rows + row, tl.where(safe, short, float("inf")).to(tl.float32), mask=here)
    else:
        size = tl.abs(tl.load(bias + row, mask=here, other=0.0).to(tl.float64))
        tl.store(out + row, length, mask=here)
        tl.store(out + n_rows + row, rounded, mask=here)
        tl.store(out + 2 * n_rows + row, error, mask=here)
        tl.store(out + 3 * n_rows + row, size, mask=here)


# --- which units may be active ---------------------------------------------------------------


class Marked(NamedTuple):
    """What a coarse product can't rule out."""

    units: Tensor  # (T, room) ascending in a row
    counts: Tensor  # (T,) how many; more than `room` where there is none for them, or no bound
    level: Tensor  # (T,) what they reach
    sure: Tensor  # (T,) how many are above the threshold for certain, for thresholds alone


def mark(
    scores: Tensor,
    bias: Tensor,
    slack: Tensor,
    share: float,
    k: int,
    signed: bool,
    floor: float,
    room: int,
) -> Marked:
    """The candidates of each row of scores (T, m). k = 0 is for thresholds alone.

    The height of a unit, \\|z\\| or z, is within share \\|s\\| + slack of what it seems. Columns
    are taken in groups. The k-th largest of the groups' largest lower bounds is a lower bound
    of the k-th largest height, since k groups have a unit that high; with many more groups
    than k it is hardly below the k-th largest itself, and far cheaper.
    """
    n_samples, n_atoms = scores.shape
    units = torch.empty(n_samples, room, dtype=torch.int32, device=scores.device)
    counts, sure = torch.empty(2, n_samples, dtype=torch.int32, device=scores.device)
    level = torch.empty(n_samples, device=scores.device)
    # A row is cut into so many groups: at least 8 k, and 4096 for few programs at once, so that
    # the rows under way stay in the second cache until they are read again.
    columns = triton.next_power_of_2(min(n_atoms, max(4096, 8 * k)))
    _mark_kernel[(n_samples,)](
        scores, bias, slack, units, counts, level, sure, share, floor, n_atoms, room, k,
        BEST=k > 0, SIGNED=signed, COLUMNS=columns, num_warps=_warps(columns), **OPTIONS,
    )  # fmt: skip
    return Marked(units, counts, level, sure)


@triton.jit
def _mark_kernel(  # type: ignore[no-untyped-def]
    scores,
    bias,
    slack,
    units,
    counts,
    level,
    sure,
    share,
    floor,
    m,
    room,
    k,
    BEST: tl.constexpr,
    SIGNED: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64)
    scores += sample * m
    common = tl.load(slack + sample)
    lowest = tl.full((), float("-inf"), tl.float32)
    column = tl.arange(0, COLUMNS)
    if BEST:
        # Column j of every chunk is one group: the largest lower bound of each.
        best = tl.full((COLUMNS,), float("-inf"), tl.float32)
        for first in range(0, m, COLUMNS):
            at = first + column
            s = tl.load(scores + at, mask=at < m, other=0.0).to(tl.float32)
            height = s + tl.load(bias + at, mask=at < m, other=0.0).to(tl.float32)
            if SIGNED:
                height = tl.abs(height)
            low = height - share * tl.abs(s)
            best = tl.where((low > best) & (at < m), low, best)
        if tl.sum((best > float("-inf")).to(tl.int32), axis=0) >= k:
            keys = _key(best.to(tl.float64))
            reached = tl.where(keys >= _kth(keys, k), best, float("inf"))
            lowest = tl.min(reached, axis=0) - common
    found = tl.zeros((), dtype=tl.int32)
    certain = tl.zeros((), dtype=tl.int32)
    for first in range(0, m, COLUMNS):
        at = first + column
        s = tl.load(scores + at, mask=at < m, other=0.0).to(tl.float32)
        height = s + tl.load(bias + at, mask=at < m, other=0.0).to(tl.float32)
        if SIGNED:
            height = tl.abs(height)
        doubt = share * tl.abs(s) + common
        upper = height + doubt
        candidate = ((upper >= lowest) & (upper > floor) & (at < m)).to(tl.int32)
        more = tl.sum(candidate, axis=0)
        if more > 0:
            slot = found + tl.cumsum(candidate, axis=0) - 1
            tl.store(units + sample * room + slot, at, mask=(candidate > 0) & (slot < room))
        found += more
        if not BEST:
            certain += tl.sum(((height - doubt > floor) & (at < m)).to(tl.int32), axis=0)
    # Where there is no bound, all are candidates.
    tl.store(counts + sample, tl.where(common < float("inf"), found, 0x7FFFFFFF))
    tl.store(level + sample, tl.where(common < float("inf"), lowest, float("-inf")))
    tl.store(sure + sample, certain)


# --- rows with too many candidates -----------------------------------------------------------


def settle(
    data: Tensor,
    dictionary: Tensor,
    bias: Tensor,
    scores: Tensor,
    slack: Tensor,
    share: float,
    threshold: Tensor,
    k: int,
    signed: bool,
    listed: Marked,
) -> None:
    """Replace the lists of rows that have no room for their candidates by what is active.

    By float64 sums. Counts stay above the room only where so many are above the threshold.
    """
    (n_samples, n_features), (n_atoms, room) = data.shape, (len(bias), listed.units.shape[1])
    programs = max(1, min(n_samples, SETTLE_BYTES // (8 * n_atoms)))
    work = torch.empty(programs, n_atoms, dtype=torch.float64, device=data.device)
    columns = min(1024, triton.next_power_of_2(n_atoms))
    _settle_kernel[(programs,)](
        data, dictionary, bias, scores, slack, listed.level, threshold, listed.units, listed.counts,
        work,
        share, n_samples, n_features, n_atoms, room, k,
        BEST=k > 0, SIGNED=signed, **_chunks(n_features), COLUMNS=columns, **OPTIONS,
    )  # fmt: skip


@triton.jit
def _settle_kernel(  # type: ignore[no-untyped-def]
    data,
    dictionary,
    bias,
    scores,
    slack,
    level,
    threshold,
    units,
    counts,
    work,
    share,
    n_samples,
    n,
    m,
    room,
    k,
    BEST: tl.constexpr,
    SIGNED: tl.constexpr,
    PAIRS: tl.constexpr,
    FEATURES: tl.constexpr,
    UNROLL: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    heights = work + program * m
    floor = tl.load(threshold)
    column = tl.arange(0, COLUMNS)
    for sample in range(program, n_samples, tl.num_programs(0)):
        if tl.load(counts + sample) > room:
            lowest = tl.load(level + sample)
            common = tl.load(slack + sample)
            for first in range(0, m, PAIRS):
                unit = first + tl.arange(0, PAIRS)
                there = unit < m
                b = tl.load(bias + unit, mask=there, other=0.0)
                s = tl.load(scores + sample * m + unit, mask=there, other=0.0).to(tl.float32)
                upper = s + b.to(tl.float32)
                if SIGNED:
                    upper = tl.abs(upper)
                upper += share * tl.abs(s) + common
                there = there & ((upper >= lowest) | (upper != upper))
                z = tl.full((PAIRS,), float("-inf"), tl.float64)
                if tl.max(there.to(tl.int32), axis=0) > 0:
                    z = _dots(
                        data + sample * n, dictionary, unit, there, n, PAIRS, FEATURES, UNROLL, True
                    )
                    z += b.to(tl.float64)
                    if SIGNED:
                        z = tl.abs(z)
                    z = tl.where(there, z, float("-inf"))
                tl.store(heights + unit, z, mask=unit < m)
            tl.debug_barrier()
            # The k-th largest, as in `_kth` and `_largest`, of a list in memory.
            low = _key(tl.full((), float("-inf"), tl.float64))
            left = tl.zeros((), dtype=tl.int32) + k
            if BEST:
                high = _key(tl.full((), float("inf"), tl.float64)) + 1
                reached = tl.zeros((), dtype=tl.int32) + m
                while (reached != k) & (low + 1 < high):
                    middle = _middle(low, high)
                    total = tl.zeros((), dtype=tl.int32)
                    for first in range(0, m, COLUMNS):
                        at = first + column
                        height = tl.load(heights + at, mask=at < m, other=float("-inf"))
                        on = (_key(height) >= middle) & (at < m)
                        total += tl.sum(on.to(tl.int32), axis=0)
                    if total >= k:
                        low = middle
                        reached = total
                    else:
                        high = middle
                for first in range(0, m, COLUMNS):
                    at = first + column
                    height = tl.load(heights + at, mask=at < m, other=float("-inf"))
                    left -= tl.sum(((_key(height) > low) & (at < m)).to(tl.int32), axis=0)
            found = tl.zeros((), dtype=tl.int32)
            for first in range(0, m, COLUMNS):
                at = first + column
                height = tl.load(heights + at, mask=at < m, other=float("-inf"))
                keep = height > floor
                if BEST:
                    key = _key(height)
                    equal = ((key == low) & (at < m)).to(tl.int32)
                    keep = keep & ((key > low) | ((equal > 0) & (tl.cumsum(equal, axis=0) <= left)))
                    left -= tl.sum(equal, axis=0)
                elif not SIGNED:
                    # What is no number is not to get lost: it passes, and asks for dense.
                    keep = keep | (height != height)
                on = (keep & (at < m)).to(tl.int32)
                slot = found + tl.cumsum(on, axis=0) - 1
                tl.store(units + sample * room + slot, at, mask=(on > 0) & (slot < room))
                found += tl.sum(on, axis=0)
            tl.debug_barrier()
            tl.store(counts + sample, found)


# --- codes, residuals, errors ----------------------------------------------------------------


def rows(
    data: Tensor,
    dictionary: Tensor,
    bias: Tensor,
    short: Tensor,
    threshold: Tensor,
    k: int,
    signed: bool,
    listed: Marked,
    width: int,
    losses: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes of each row, by its candidates: units, values, (T, width) each; and what follows.

    Units ascend, and are m where there are no more. With room for the `losses` (T,) these are
    written, and e = <r, D_i> (T, width) and the residual (T, n) are made.
    """
    slots, counts = listed.units, listed.counts
    n_samples, n_features = data.shape
    n_atoms, kind = len(bias), dictionary.dtype
    room = slots.shape[1] if k else width
    heights = torch.empty(n_samples, room, dtype=torch.float64, device=data.device)
    units = torch.empty(n_samples, width, dtype=torch.int32, device=data.device)
    values = torch.empty(n_samples, width, dtype=kind, device=data.device)
    there = losses is not None
    back = torch.empty_like(values) if there else values
    residual = torch.empty(n_samples, n_features, dtype=kind, device=data.device) if there else data
    slot_block = triton.next_power_of_2(room)
    atom_block = triton.next_power_of_2(width)
    whole = triton.next_power_of_2(n_features)
    size = atom_block * whole * (2 if kind == torch.float64 else 1)
    on_chip = there and size <= ON_CHIP
    warps = max(_warps(2 * slot_block), _warps(size // 8) if on_chip else 4)
    _rows_kernel[(n_samples,)](
        data, dictionary, bias, short, threshold, slots, counts, heights, units, values, back,
        residual, losses if there else values,
        n_features, n_atoms, slots.shape[1], room, width, k,
        BEST=k > 0, SIGNED=signed, WIDE=kind == torch.float64, STEP=there, ON_CHIP=on_chip,
        **_chunks(n_features), SLOTS=slot_block,
        ATOMS=atom_block if on_chip else PAIRS, WHOLE=whole if on_chip else chunk(n_features),
        num_warps=warps, **OPTIONS,
    )  # fmt: skip
    return units, values, back, residual


@triton.jit
def _heights(  # type: ignore[no-untyped-def]
    data,
    dictionary,
    bias,
    slots,
    heights,
    count,
    n,
    PAIRS: tl.constexpr,
    FEATURES: tl.constexpr,
    UNROLL: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write z of the `count` units in `slots` of one row, in float64."""
    for first in range(0, count, PAIRS):
        slot = first + tl.arange(0, PAIRS)
        there = slot < count
        unit = tl.load(slots + slot, mask=there, other=0)
        z = _dots(data, dictionary, unit, there, n, PAIRS, FEATURES, UNROLL, WIDE)
        z += tl.load(bias + unit, mask=there, other=0.0).to(tl.float64)
        tl.store(heights + slot, z, mask=there)
    tl.debug_barrier()


@triton.jit
def _rows_kernel(  # type: ignore[no-untyped-def]
    data,
    dictionary,
    bias,
    short,
    threshold,
    slots,
    counts,
    heights,
    units,
    values,
    back,
    residual,
    losses,
    n,
    m,
    stride,
    room,
    width,
    k,
    BEST: tl.constexpr,
    SIGNED: tl.constexpr,
    WIDE: tl.constexpr,
    STEP: tl.constexpr,
    ON_CHIP: tl.constexpr,
    PAIRS: tl.constexpr,
    FEATURES: tl.constexpr,
    UNROLL: tl.constexpr,
    SLOTS: tl.constexpr,
    ATOMS: tl.constexpr,
    WHOLE: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64)
    data += sample * n
    slots += sample * stride
    heights += sample * room
    units += sample * width
    values += sample * width
    count = tl.minimum(tl.load(counts + sample), room)
    floor = tl.load(threshold)
    _heights(data, dictionary, bias, slots, heights, count, n, PAIRS, FEATURES, UNROLL, WIDE)
    slot = tl.arange(0, SLOTS)
    there = slot < count
    z = tl.load(heights + slot, mask=there, other=float("-inf"))
    if not WIDE:
        # z is within `off` of what float64 sums give. Where that leaves a decision open, or may
        # be more than 2^-14 of the largest code, as in rows that are far from 0 on one side, they
        # are made: for the whole row, so that its codes are of one kind.
        off = tl.load(short + sample).to(tl.float64)
        height = tl.where(there, tl.abs(z) if SIGNED else z, float("-inf"))
        open_ = tl.sum((there & (tl.abs(height - floor) <= off)).to(tl.int32), axis=0) > 0
        open_ = open_ | (off > 6.103515625e-05 * tl.max(height, axis=0))  # 2^-14
        if BEST:  # noqa: SIM102 - known when it is compiled
            if count > k:
                keys = _key(height)
                last = tl.min(tl.where(keys >= _kth(keys, k), height, float("inf")), axis=0)
                near = there & (height + off >= last - off)
                open_ = open_ | (tl.sum(near.to(tl.int32), axis=0) > k)
        if open_:
            tl.debug_barrier()
            _heights(
                data, dictionary, bias, slots, heights, count, n, PAIRS, FEATURES, UNROLL, True
            )
            z = tl.load(heights + slot, mask=there, other=float("-inf"))
    height = tl.where(there, tl.abs(z) if SIGNED else z, float("-inf"))
    value = z.to(values.dtype.element_ty)
    keep = there & (height > floor)
    if BEST:
        if count > k:
            best, _ = _largest(_key(height), k)
            keep = keep & best
    elif not SIGNED:
        keep = keep | (there & (height != height))
    keep = keep & (value != 0)
    unit = tl.load(slots + slot, mask=there, other=0)
    place = tl.cumsum(keep.to(tl.int32), axis=0) - 1
    kept = tl.sum(keep.to(tl.int32), axis=0)
    tl.store(units + place, unit, mask=keep)
    tl.store(values + place, value, mask=keep)
    rest = (slot >= kept) & (slot < width)
    tl.store(units + slot, m + slot * 0, mask=rest)
    tl.store(values + slot, (slot * 0).to(value.dtype), mask=rest)
    if STEP:
        tl.debug_barrier()
        residual += sample * n
        back += sample * width
        at = tl.arange(0, WHOLE)
        pair = tl.arange(0, ATOMS)
        if ON_CHIP:
            here = pair < kept
            x = tl.load(values + pair, mask=here, other=0.0)
            atom = tl.load(units + pair, mask=here, other=0).to(tl.int64) * n
            inside = here[:, None] & (at < n)[None, :]
            w = tl.load(dictionary + atom[:, None] + at[None, :], mask=inside, other=0.0)
            y = tl.load(data + at, mask=at < n, other=0.0).to(w.dtype)
            r = y - tl.sum(x[:, None] * w, axis=0)
            tl.store(residual + at, r, mask=at < n)
            tl.store(losses + sample, 0.5 * tl.sum(r * r, axis=0))
            tl.store(back + pair, tl.sum(r[None, :] * w, axis=1), mask=here)
        else:
            squares = tl.zeros((WHOLE,), dtype=losses.dtype.element_ty)
            for first in range(0, n, WHOLE):
                total = tl.zeros((ATOMS, WHOLE), dtype=losses.dtype.element_ty)
                column = first + at
                for start in range(0, kept, ATOMS):
                    here = start + pair < kept
                    x = tl.load(values + start + pair, mask=here, other=0.0)
                    atom = tl.load(units + start + pair, mask=here, other=0).to(tl.int64) * n
                    inside = here[:, None] & (column < n)[None, :]
                    w = tl.load(
                        dictionary + atom[:, None] + column[None, :], mask=inside, other=0.0
                    )
                    total += x[:, None] * w
                y = tl.load(data + column, mask=column < n, other=0.0).to(total.dtype)
                r = y - tl.sum(total, axis=0)
                squares += r * r
                tl.store(residual + column, r, mask=column < n)
            tl.store(losses + sample, 0.5 * tl.sum(squares, axis=0))
            tl.debug_barrier()
            for start in range(0, kept, PAIRS):
                here = start + tl.arange(0, PAIRS)
                atom = tl.load(units + here, mask=here < kept, other=0)
                e = _dots(residual, dictionary, atom, here < kept, n, PAIRS, FEATURES, UNROLL, WIDE)
                tl.store(back + here, e.to(back.dtype.element_ty), mask=here < kept)


# --- the sums of each atom -------------------------------------------------------------------


def atoms(
    data: Tensor,
    units: Tensor,
    values: Tensor,
    back: Tensor,
    residual: Tensor,
    dictionary: Tensor,
    bias: Tensor,
    counts: Tensor,
    energy: Tensor,
) -> None:
    """Add a tile's pairs to the sums of atoms: the gradients (m, n) and (m,), counts and energy.

    The pairs of an atom come by ascending row.
    """
    n_atoms, n_features = dictionary.shape
    key = torch.int16 if n_atoms < 2**15 else torch.int32  # fewer digits to sort by
    ascending, order = torch.sort(units.flatten().to(key), stable=True)
    ends = torch.arange(n_atoms + 1, dtype=key, device=data.device)
    starts = torch.searchsorted(ascending, ends)
    width = min(256, triton.next_power_of_2(n_features))
    _atoms_kernel[(n_atoms, triton.cdiv(n_features, width))](
        data, residual, order, starts, values, back, dictionary, bias, counts, energy,
        n_features, units.shape[1], PAIRS=8, FEATURES=width, **OPTIONS,
    )  # fmt: skip


@triton.jit
def _atoms_kernel(  # type: ignore[no-untyped-def]
    data,
    residual,
    order,
    starts,
    values,
    back,
    dictionary,
    bias,
    counts,
    energy,
    n,
    width,
    PAIRS: tl.constexpr,
    FEATURES: tl.constexpr,
):  # one program: FEATURES features of one atom's gradient; no other writes there
    atom = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    inside = at < n
    start = tl.load(starts + atom)
    end = tl.load(starts + atom + 1)
    if start < end:
        total = tl.zeros((PAIRS, FEATURES), dtype=dictionary.dtype.element_ty)
        errors = tl.zeros((PAIRS,), dtype=dictionary.dtype.element_ty)
        squares = tl.zeros((PAIRS,), dtype=dictionary.dtype.element_ty)
        for first in range(start, end, PAIRS):
            there = first + tl.arange(0, PAIRS) < end
            pair = tl.load(order + first + tl.arange(0, PAIRS), mask=there, other=0)
            x = tl.load(values + pair, mask=there, other=0.0)
            e = tl.load(back + pair, mask=there, other=0.0)
            sample = (pair // width) * n
            both = there[:, None] & inside[None, :]
            where = sample[:, None] + at[None, :]
            r = tl.load(residual + where, mask=both, other=0.0)
            y = tl.load(data + where, mask=both, other=0.0).to(total.dtype)
            total += x[:, None] * r + e[:, None] * y
            errors += e
            squares += x * x
        here = dictionary + atom * n + at
        before = tl.load(here, mask=inside, other=0.0)
        tl.store(here, before - tl.sum(total, axis=0), mask=inside)
        if tl.program_id(1) == 0:
            count = (end - start).to(counts.dtype.element_ty)
            tl.store(bias + atom, tl.load(bias + atom) - tl.sum(errors, axis=0))
            tl.store(counts + atom, tl.load(counts + atom) + count)
            tl.store(energy + atom, tl.load(energy + atom) + tl.sum(squares, axis=0))

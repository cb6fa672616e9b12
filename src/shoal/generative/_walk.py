"""Supports drawn sparsely, in numba: what costs time is what fires, and a sum over blocks.

Given the few factors of a row, the units of a Gaussian copula are independent, and unit i fires
with chance Phi(x_i), x_i = (f_i . eps - t_i) / sqrt(1 - |f_i|^2). Most of these chances are tiny.
So units are walked by a Poisson process: unit i is a candidate if a process of intensity L_i has a
point, where L_i >= -log(1 - Phi(x_i)) is cheap to compute, and a candidate is kept with chance
Phi(x_i) / (1 - exp(-L_i)). Each unit then fires with exactly its chance, independently of the
others, and the distance to the next point is one exponential draw for however many units it skips.
Units below a parent are looked at only where it is active.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

__all__ = ["BLOCK", "draw_supports", "exclude", "scale_by_parents"]

BLOCK = 64  # units a block; arbitrary: a few vector registers, short enough to search

# Rows for which a block's weights are read at a time, since those come from far; written out below.
TOGETHER = 4

# -log(1 - Phi(x)) <= 0.7 exp(-x^2 / 2) for x <= 0: equal to log 2 = 0.693 at 0, and the ratio
# falls to the left. 2^y is bounded from above by the straight line between whole powers.
HEIGHT = 0.7
SLOPE = -0.5 / math.log(2.0)
ROOT_HALF = math.sqrt(0.5)

# Not kept on disk: what a file of a dying process would cost is more than these seconds.
compiled = njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nnan", "nsz"})


@compiled
def _chance(x: float) -> float:
    return 0.5 * math.erfc(-x * ROOT_HALF)


@compiled
def _uniform(state: Any) -> float:
    """In [0, 1), by SplitMix64 (Steele, Lea and Flood 2014): it compiles in no time."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * 2.0**-53


@compiled
def _exponential(state: Any) -> float:
    return -math.log(1.0 - _uniform(state))


@compiled
def draw_supports(
    state: Any,  # (1,) uint64, of the random numbers
    factors: Any,  # (N, rank) float32, of the rows
    units: Any,  # (n_blocks, BLOCK): the units without a parent; -1 where there is none
    weights: Any,  # (n_blocks, rank, BLOCK) float32: f_i / sqrt(1 - |f_i|^2) of those
    levels: Any,  # (n_blocks, BLOCK) float32: t_i / sqrt(1 - |f_i|^2) of those
    direct: Any,  # (n_blocks,): whether to draw each unit of the block by itself
    unit_weights: Any,  # (F, rank) float32, of all units
    unit_levels: Any,  # (F,) float32
    alive: Any,  # (F,) chance that a value that was drawn is not 0
    first_child: Any,  # (F + 1,) where the children of a unit begin in `children`
    children: Any,
    exclusive: Any,  # (F,): whether at most one child of this unit survives
) -> Any:
    """Units of each row, ascending, one row after the other, and where each row begins."""
    n_rows, n_blocks, rank = len(factors), weights.shape[0], weights.shape[1]
    starts = np.zeros(n_rows + 1, np.int64)
    found = np.empty(max(1024, 16 * n_rows), np.int32)
    rows = np.empty((TOGETHER, len(alive)), np.int32)
    sizes = np.empty(TOGETHER, np.int64)
    xs = np.empty((TOGETHER, BLOCK), np.float32)
    bits = np.empty(BLOCK, np.int32)
    bound = bits.view(np.float32)
    n_found = 0
    distance: Any = _exponential(state)
    for first in range(0, n_rows, TOGETHER):
        together = min(TOGETHER, n_rows - first)
        sizes[:] = 0
        for b in range(n_blocks):
            for q in range(TOGETHER):
                for j in range(BLOCK):
                    xs[q, j] = -levels[b, j]
            for a in range(rank):
                e0 = factors[first, a]
                e1 = factors[min(first + 1, n_rows - 1), a]
                e2 = factors[min(first + 2, n_rows - 1), a]
                e3 = factors[min(first + 3, n_rows - 1), a]
                for j in range(BLOCK):
                    w = weights[b, a, j]
                    xs[0, j] += e0 * w
                    xs[1, j] += e1 * w
                    xs[2, j] += e2 * w
                    xs[3, j] += e3 * w
            for q in range(together):
                x, row, size = xs[q], rows[q], sizes[q]
                highest: Any = np.float32(-1.0)
                if not direct[b]:
                    for j in range(BLOCK):
                        highest = max(highest, x[j])
                if direct[b] or highest > 0:
                    for j in range(BLOCK):
                        unit = units[b, j]
                        if unit >= 0 and _uniform(state) < _chance(x[j]) * alive[unit]:
                            row[size] = unit
                            size += 1
                    sizes[q] = size
                    continue
                for j in range(BLOCK):
                    power = max(x[j] * x[j] * np.float32(SLOPE), np.float32(-126.0))
                    bits[j] = np.int32((power + np.float32(127.0)) * np.float32(8388608.0))
                total = np.float32(0.0)
                for j in range(BLOCK):
                    total += bound[j]
                total *= np.float32(HEIGHT)
                if total < distance:
                    distance -= total
                    continue
                for j in range(BLOCK):
                    intensity = HEIGHT * bound[j]
                    if intensity < distance:
                        distance -= intensity
                        continue
                    distance = _exponential(state)
                    unit = units[b, j]
                    if unit >= 0:
                        candidate = -math.expm1(-intensity)
                        if _uniform(state) * candidate < _chance(x[j]) * alive[unit]:
                            row[size] = unit
                            size += 1
                sizes[q] = size
        for q in range(together):
            r, row, size, eps = first + q, rows[q], sizes[q], factors[first + q]
            done = 0
            while done < size:  # the row grows while it is walked: children come after parents
                parent = row[done]
                done += 1
                passed = 0
                for c in range(first_child[parent], first_child[parent + 1]):
                    child = children[c]
                    level = -unit_levels[child]
                    for a in range(rank):
                        level += eps[a] * unit_weights[child, a]
                    if _uniform(state) < _chance(level) * alive[child]:
                        passed += 1
                        if not exclusive[parent] or passed == 1:
                            row[size] = child
                            size += 1
                        elif _uniform(state) * passed < 1.0:  # each of those that passed, alike
                            row[size - 1] = child
            if n_found + size > len(found):
                longer = np.empty(2 * len(found) + size, np.int32)
                longer[:n_found] = found[:n_found]
                found = longer
            for i in range(size):  # insertion: rows are short
                unit = row[i]
                place = n_found + i
                while place > n_found and found[place - 1] > unit:
                    found[place] = found[place - 1]
                    place -= 1
                found[place] = unit
            n_found += size
            starts[r + 1] = n_found
    return found[:n_found].copy(), starts


@compiled
def exclude(
    state: Any,
    units: Any,
    starts: Any,
    depth: Any,  # (F,) 0 for a unit without a parent
    parent: Any,  # (F,) -1 for those
    exclusive: Any,  # (F,): whether at most one child of this unit survives
) -> Any:
    """Which entries a forest leaves, as booleans: given rows of any law of the support."""
    kept = np.zeros(len(units), np.bool_)
    on = np.full(len(depth), -1, np.int64)  # the row in which a unit is active
    passed = np.zeros(len(depth), np.int64)
    winner = np.empty(len(depth), np.int64)
    deepest = depth.max()
    for r in range(len(starts) - 1):
        for level in range(deepest + 1):
            for i in range(starts[r], starts[r + 1]):
                unit = units[i]
                above = parent[unit]
                if depth[unit] != level or (above >= 0 and on[above] != r):
                    continue
                if above >= 0 and exclusive[above]:
                    passed[above] += 1
                    if passed[above] == 1:
                        winner[above] = i
                    elif _uniform(state) * passed[above] < 1.0:
                        kept[winner[above]] = False
                        on[units[winner[above]]] = -1
                        winner[above] = i
                    else:
                        continue
                kept[i] = True
                on[unit] = r
            for i in range(starts[r], starts[r + 1]):
                if depth[units[i]] == level and level > 0:
                    passed[parent[units[i]]] = 0
    return kept


@compiled
def scale_by_parents(
    values: Any, units: Any, starts: Any, depth: Any, parent: Any, means: Any
) -> None:
    """Multiply each value by (its parent's value / its parent's mean), from the roots down."""
    at = np.zeros(len(depth), np.float64)
    deepest = depth.max()
    for r in range(len(starts) - 1):
        for level in range(deepest + 1):
            for i in range(starts[r], starts[r + 1]):
                unit = units[i]
                if depth[unit] == level:
                    if level > 0:
                        values[i] *= at[parent[unit]] / means[parent[unit]]
                    at[unit] = values[i]

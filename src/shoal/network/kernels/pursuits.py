"""Pursuits in numba: the best few atoms of each row, from one product and the atoms' Gram matrix.

Given the scores z = D y of a row and G = D D^T, what an atom correlates with after some atoms
S have been fitted with coefficients c is z - G_S c: a pursuit needs the data no more. A look
at all m atoms then costs |S| m multiplications instead of n m.

All arrays are flat and C-ordered; the scores are exact, the product in the data's own precision.
"""

from __future__ import annotations

import numpy as np

from shoal.network.kernels.compiling import inline, shared, within
from shoal.network.kernels.vector import (
    LANES,
    absolute,
    at_least,
    count_bits,
    first_bit,
    lane_of,
    load,
    maximum,
    multiply_add,
    select,
    splat,
    store,
    total,
)

__all__ = [
    "hard_thresholding",
    "least_squares",
    "matching_pursuit",
    "subspace_pursuit",
    "threshold_pursuit",
]


# Arbitrary: units from which on a pass for a bound is worth it.
_MANY = 256


@inline
def _part(size, parts, index):
    """Where part `index` of range(size) begins, cut into `parts`."""
    return size * index // parts


@inline
def _insert(unit, value, units, keys, count, k):
    """`unit` into a descending list of at most k, behind its equals; the new length."""
    at = min(count, k - 1)
    while at > 0 and keys[at - 1] < value:
        keys[at], units[at] = keys[at - 1], units[at - 1]
        at -= 1
    keys[at], units[at] = value, unit
    return min(count + 1, k)


@inline
def _reached(a, i, full, k, signed):
    """A number that k of a[i : i + full] reach, and few more: the k-th largest of LANES maxima."""
    none = splat(a, -np.inf)
    best, more = none, none
    for t in range(0, full - LANES, 2 * LANES):
        v, w = load(a, a, i + t), load(a, a, i + t + LANES)
        best = maximum(select(signed, absolute(v), v), best)
        more = maximum(select(signed, absolute(w), w), more)
    best = maximum(more, best)
    level = -np.inf
    for lane in range(LANES):
        x = lane_of(best, lane)
        level = max(level, x if count_bits(at_least(best, splat(a, x))) >= k else -np.inf)
    return level


@within
def _largest(a, i, m, k, signed, units, keys):
    """The units of the k largest values of a[i : i + m] above 0, descending; how many.

    The value is the magnitude where `signed`. Ties go to the lowest index.
    """
    count, low, start = 0, a.dtype.type(0), a.dtype.type(0)
    full = m - m % LANES
    if m >= _MANY and k <= LANES:  # else most of the first ones go into the list, for a while
        start = max(start, a.dtype.type(_reached(a, i, full, k, signed)))
    bar = splat(a, start)
    for t in range(0, full, LANES):
        v = load(a, a, i + t)
        bits = at_least(select(signed, absolute(v), v), bar)
        while bits:
            j = t + first_bit(bits)
            bits &= bits - np.uint64(1)
            x = abs(a[i + j]) if signed else a[i + j]
            if x > low and x >= start:
                count = _insert(j, x, units, keys, count, k)
                if count == k:
                    low = keys[k - 1]
                    bar = splat(a, low)
    for j in range(full, m):
        x = abs(a[i + j]) if signed else a[i + j]
        if x > low and x >= start:
            count = _insert(j, x, units, keys, count, k)
            if count == k:
                low = keys[k - 1]
    return count


@within
def _left(z, i, gram, m, units, codes, count, rest):
    """rest[:m] = z[i : i + m] - G_S c, what is left to correlate with."""
    full = m - m % LANES
    for t in range(0, full, LANES):
        v = load(rest, z, i + t)
        for q in range(count):
            v = multiply_add(splat(rest, -codes[q]), load(rest, gram, units[q] * m + t), v)
        store(rest, t, v)
    for j in range(full, m):
        v = z[i + j]
        for q in range(count):
            v -= codes[q] * gram[units[q] * m + j]
        rest[j] = v


@within
def _fit(z, i, gram, m, units, count, factor, codes, dependent):
    """Least squares on `units`: codes c with G_SS c = z_S; what it explains, c . z_S.

    By Cholesky's factor, row by row of its transpose. An atom whose distance from the span of
    those before it is below sqrt(`dependent`) gets the code 0.
    """
    dtype = codes.dtype
    for q in range(count):
        row = units[q] * m
        for s in range(q, count):
            factor[q, s] = gram[row + units[s]]
        for u in range(q):
            f = factor[u, q]
            for s in range(q, count):
                factor[q, s] -= f * factor[u, s]
        d = factor[q, q]
        if d > dependent:
            scale = dtype.type(1) / np.sqrt(d)
            for s in range(q, count):
                factor[q, s] *= scale
        else:
            for s in range(q, count):
                factor[q, s] = dtype.type(0)
    explained = dtype.type(0)
    for q in range(count):
        v = z[i + units[q]]
        for u in range(q):
            v -= factor[u, q] * codes[u]
        d = factor[q, q]
        codes[q] = v / d if d > 0 else dtype.type(0)
        explained += codes[q] * codes[q]
    for q in range(count - 1, -1, -1):
        v = codes[q]
        for s in range(q + 1, count):
            v -= factor[q, s] * codes[s]
        d = factor[q, q]
        codes[q] = v / d if d > 0 else dtype.type(0)
    return explained


@within
def _shrink(units, count, factor, codes, threshold, shrinkage, change):
    """Codes less G_SS^-1 (shrinkage threshold sign(c)), 0 where the sign would change.

    `factor` is that of :func:`_fit` on the same units.
    """
    for q in range(count):
        v = threshold[units[q]] * shrinkage
        if codes[q] < 0:
            v = -v
        for u in range(q):
            v -= factor[u, q] * change[u]
        d = factor[q, q]
        change[q] = v / d if d > 0 else v * 0
    for q in range(count - 1, -1, -1):
        v = change[q]
        for s in range(q + 1, count):
            v -= factor[q, s] * change[s]
        d = factor[q, q]
        change[q] = v / d if d > 0 else v * 0
    for q in range(count):
        left = codes[q] - change[q]
        codes[q] = left if left * codes[q] > 0 else left * 0


@within
def _fit_signs(z, i, gram, m, units, count, factor, codes, signed, dependent):
    """:func:`_fit`; unless `signed` without the atoms whose code is negative, until none is."""
    explained = _fit(z, i, gram, m, units, count, factor, codes, dependent)
    while not signed:
        kept = 0
        for q in range(count):
            if codes[q] > 0:
                units[kept] = units[q]
                kept += 1
        if kept == count:
            break
        count = kept
        explained = _fit(z, i, gram, m, units, count, factor, codes, dependent)
    return count, explained


@within
def _within(z, i, gram, m, units, count, factor, codes, signed, dependent, explained):
    """Codes none of which is larger than 8 times what they rebuild; how many there are.

    Such codes cancel one another. What counts as dependent is raised until there are none.
    """
    while dependent < 1:
        largest = codes.dtype.type(0)
        for q in range(count):
            largest = max(largest, abs(codes[q]))
        if largest * largest <= 64 * explained:
            break
        dependent = dependent * codes.dtype.type(10)
        if dependent > 0.5:
            dependent = codes.dtype.type(1)
        limit = min(dependent, codes.dtype.type(0.5))
        count, explained = _fit_signs(z, i, gram, m, units, count, factor, codes, signed, limit)
        kept = 0  # without those that were left out, whose code is 0
        for q in range(count):
            if codes[q] != 0:
                units[kept], codes[kept] = units[q], codes[q]
                kept += 1
        count = kept
    return count


@inline
def _write(units, codes, count, indices, values):
    """A row of codes, its units ascending and without zeros; how many are left."""
    kept = 0
    for q in range(count):
        x, j = codes[q], units[q]
        if x != 0:
            at = kept
            while at > 0 and indices[at - 1] > j:
                indices[at], values[at] = indices[at - 1], values[at - 1]
                at -= 1
            indices[at], values[at] = j, x
            kept += 1
    return kept


@inline
def _dot(a, i, b, j, n):
    """The product of a[i : i + n] and b[j : j + n]."""
    full = n - n % LANES
    v = splat(a, 0.0)
    for t in range(0, full, LANES):
        v = multiply_add(load(a, a, i + t), load(a, b, j + t), v)
    found = total(v)
    for t in range(full, n):
        found += a[i + t] * b[j + t]
    return found


@shared
def subspace_pursuit(
    y, n, z, gram, m, k, signed, iterations, dependent, parts, indices, values, counts, part
):
    """Dai and Milenkovic 2009, Algorithm 1, from the k-largest code of the scores z (T m).

    A row of y (T n) is done once so little of it is left that no gain would count. Codes go to the
    first entries of the rows of `indices` and `values` (T, capacity >= k), with units ascending,
    and their number to `counts` (T,).
    """
    dtype = z.dtype
    rest = np.empty(m, dtype)
    keys = np.empty(k, dtype)
    factor = np.empty((2 * k, 2 * k), dtype)
    codes, trial = np.empty(2 * k, dtype), np.empty(2 * k, dtype)
    units, more = np.empty(2 * k, np.int64), np.empty(k, np.int64)
    both, best = np.empty(2 * k, np.int64), np.empty(k, np.int64)
    for i in range(_part(len(counts), parts, part), _part(len(counts), parts, part + 1)):
        at = i * m
        count = _largest(z, at, m, k, signed, units, keys)
        count, explained = _fit_signs(
            z, at, gram, m, units, count, factor, codes, signed, dependent
        )
        enough = _dot(y, i * n, y, i * n, n) / (1 + 32 * dependent)
        for _ in range(iterations):
            if explained >= enough:
                break
            _left(z, at, gram, m, units, codes, count, rest)
            for q in range(count):
                rest[units[q]] = 0
                both[q] = units[q]
            added = _largest(rest, 0, m, k, signed, more, keys)
            for q in range(added):
                both[count + q] = more[q]
            together = count + added
            _fit(z, at, gram, m, both, together, factor, trial, dependent)
            kept = 0
            for q in range(together):
                x = abs(trial[q]) if signed else trial[q]
                if x > 0 and (kept < k or x > keys[k - 1]):
                    kept = _insert(both[q], x, best, keys, kept, k)
            kept, gain = _fit_signs(z, at, gram, m, best, kept, factor, trial, signed, dependent)
            # Rounding can make equals look better: it must be more than that.
            if not gain > explained * (1 + 64 * dependent):
                break
            count, explained = kept, gain
            for q in range(count):
                units[q], codes[q] = best[q], trial[q]
        count = _within(z, at, gram, m, units, count, factor, codes, signed, dependent, explained)
        counts[i] = _write(units, codes, count, indices[i], values[i])


@shared
def least_squares(data, atoms, n, gram, m, indices, values, signed, dependent, parts, out, part):
    """Coefficients `out` (T, k) of data (T n) on the units `indices` whose `values` are not 0.

    With few rows `gram` is empty, and products are made where they are needed. Unless `signed`
    units that come out negative are left out, one solution after the other, until none does.
    """
    k = indices.shape[1]
    dtype = data.dtype
    z, codes = np.empty(k, dtype), np.empty(k, dtype)
    local, factor = np.empty(k * k, dtype), np.empty((k, k), dtype)
    units, places = np.empty(k, np.int64), np.empty(k, np.int64)
    for i in range(_part(len(indices), parts, part), _part(len(indices), parts, part + 1)):
        count = 0
        for q in range(k):
            out[i, q] = 0
            if values[i, q] != 0:
                x = _dot(data, i * n, atoms, indices[i, q] * n, n)
                # In descending order: of atoms that depend on each other the first one counts.
                at, size = count, abs(x) if signed else x
                while at > 0 and (abs(z[at - 1]) if signed else z[at - 1]) < size:
                    z[at], places[at] = z[at - 1], places[at - 1]
                    at -= 1
                z[at], places[at], units[count] = x, q, count
                count += 1
        for q in range(count):
            j = indices[i, places[q]]
            for s in range(q, count):
                other = indices[i, places[s]]
                g = gram[j * m + other] if len(gram) else _dot(atoms, j * n, atoms, other * n, n)
                local[q * count + s] = g
                local[s * count + q] = g
        width = count
        count, explained = _fit_signs(
            z, 0, local, width, units, count, factor, codes, signed, dependent
        )
        count = _within(
            z, 0, local, width, units, count, factor, codes, signed, dependent, explained
        )
        for q in range(count):
            out[i, places[units[q]]] = codes[q]


@shared
def matching_pursuit(
    z, gram, m, k, signed, dependent, squares, left_over, parts, indices, values, counts, part
):
    """Orthogonal matching pursuit with at most k atoms, from the scores z (T m).

    Each atom taken is made orthogonal to those before; `span` holds what these directions
    correlate with. A row of square `squares` (T,) is done once a share `left_over` of it is left,
    if that is above 0. Arguments as in :func:`subspace_pursuit`.
    """
    dtype = z.dtype
    rest = np.empty(m, dtype)
    key = np.empty(1, dtype)
    span = np.empty(k * m, dtype)
    factor, codes = np.empty((k, k), dtype), np.empty(k, dtype)
    units, unit = np.empty(k, np.int64), np.empty(1, np.int64)
    full = m - m % LANES
    for i in range(_part(len(counts), parts, part), _part(len(counts), parts, part + 1)):
        at = i * m
        count = 0
        for j in range(m):
            rest[j] = z[at + j]
        stop = dtype.type(0)
        square_left = squares[i]
        while count < k:
            if left_over > 0 and square_left <= left_over * squares[i]:
                break
            if not _largest(rest, 0, m, 1, signed, unit, key):
                break
            if count == 0:
                stop = key[0] * dependent
            j = unit[0]
            square = gram[j * m + j]
            for u in range(count):
                factor[u, count] = span[u * m + j]
                square -= factor[u, count] * factor[u, count]
            if key[0] <= stop or square <= dependent:
                break
            length = np.sqrt(square)
            factor[count, count] = length
            gain = rest[j] / length
            inverse = dtype.type(1) / length
            for t in range(0, full, LANES):
                v = load(rest, gram, j * m + t)
                for u in range(count):
                    f = splat(rest, -factor[u, count])
                    v = multiply_add(f, load(rest, span, u * m + t), v)
                v = multiply_add(v, splat(rest, inverse), splat(rest, 0.0))
                store(span, count * m + t, v)
                store(rest, t, multiply_add(v, splat(rest, -gain), load(rest, rest, t)))
            for t in range(full, m):
                v = gram[j * m + t]
                for u in range(count):
                    v -= factor[u, count] * span[u * m + t]
                span[count * m + t] = v * inverse
                rest[t] -= gain * span[count * m + t]
            units[count], codes[count] = j, gain
            square_left -= gain * gain
            count += 1
            for u in range(count):
                rest[units[u]] = 0
        explained = dtype.type(0)
        for q in range(count):
            explained += codes[q] * codes[q]
        negative = False
        for q in range(count - 1, -1, -1):
            for s in range(q + 1, count):
                codes[q] -= factor[q, s] * codes[s]
            codes[q] /= factor[q, q]
            negative |= codes[q] < 0
        if negative and not signed:
            count, explained = _fit_signs(
                z, at, gram, m, units, count, factor, codes, signed, dependent
            )
        count = _within(z, at, gram, m, units, count, factor, codes, signed, dependent, explained)
        counts[i] = _write(units, codes, count, indices[i], values[i])


@shared
def hard_thresholding(
    z, gram, m, k, signed, iterations, tolerance, parts, indices, values, counts, part
):
    """Normalised iterative hard thresholding, Blumensath and Davies 2010, from the scores z (T m).

    The step is the one that is best on the present support; halved while a new support makes the
    loss larger. Ends where a step changes the codes by less than `tolerance` of themselves.
    Arguments as in :func:`subspace_pursuit`.
    """
    dtype = z.dtype
    rest, trial = np.empty(m, dtype), np.empty(m, dtype)
    keys = np.empty(k, dtype)
    codes, new = np.empty(k, dtype), np.empty(k, dtype)
    units, best = np.empty(k, np.int64), np.empty(k, np.int64)
    for i in range(_part(len(counts), parts, part), _part(len(counts), parts, part + 1)):
        at = i * m
        count = _largest(z, at, m, k, signed, units, keys)
        for q in range(count):
            codes[q] = 0
        loss = dtype.type(0)  # without 1/2 |y|^2
        for _ in range(iterations):
            _left(z, at, gram, m, units, codes, count, rest)
            square, curve = dtype.type(0), dtype.type(0)
            for q in range(count):
                g = rest[units[q]]
                square += g * g
                for s in range(count):
                    curve += g * rest[units[s]] * gram[units[q] * m + units[s]]
            step = square / curve if curve > 0 else dtype.type(1)
            moved = False
            for _ in range(20):
                for j in range(m):
                    trial[j] = step * rest[j]
                for q in range(count):
                    trial[units[q]] += codes[q]
                kept = _largest(trial, 0, m, k, signed, best, keys)
                after = dtype.type(0)
                for q in range(kept):
                    new[q] = trial[best[q]]
                for q in range(kept):
                    row = best[q] * m
                    half = dtype.type(0)
                    for s in range(kept):
                        half += new[s] * gram[row + best[s]]
                    after += new[q] * (half / 2 - z[at + best[q]])
                if after < loss:
                    moved = True
                    break
                step /= 2
            if not moved:
                break
            change, size = dtype.type(0), dtype.type(0)
            for q in range(kept):  # trial becomes what changed
                trial[best[q]] = 0
            for q in range(count):
                trial[units[q]] = -codes[q]
            for q in range(kept):
                x = trial[best[q]] + new[q]
                change += x * x
                size += new[q] * new[q]
                trial[best[q]] = 0
            for q in range(count):  # of those that are left out
                x = trial[units[q]]
                change += x * x
            count, loss = kept, after
            for q in range(count):
                units[q], codes[q] = best[q], new[q]
            if change <= tolerance * tolerance * size:
                break
        counts[i] = _write(units, codes, count, indices[i], values[i])


@within
def _most_above(a, m, half, floor, signed):
    """The unit whose value in a[:m] exceeds half[:m] by most, and by `floor`; -1 for none."""
    best, unit = floor, -1
    for j in range(m):
        x = (abs(a[j]) if signed else a[j]) - half[j]
        if x > best:
            best, unit = x, j
    return unit


@shared
def threshold_pursuit(
    z, gram, m, k, signed, threshold, shrinkage, dependent, parts, indices, values, counts, part
):
    """As many atoms as are worth their `threshold` (m,), from the scores z (T m): greedily more.

    Then without the one whose code is the least share of its threshold, while that is below 1.
    See :class:`shoal.network.pursuit.ThresholdPursuit`; arguments as in :func:`subspace_pursuit`.
    """
    dtype = z.dtype
    half = threshold * dtype.type(0.5)
    rest = np.empty(m, dtype)
    factor = np.empty((k, k), dtype)
    codes, units, change = np.empty(k, dtype), np.empty(k, np.int64), np.empty(k, dtype)
    for i in range(_part(len(counts), parts, part), _part(len(counts), parts, part + 1)):
        at = i * m
        count, floor = 0, dtype.type(0)
        for j in range(m):
            rest[j] = z[at + j]
            floor = max(floor, abs(rest[j]))
        floor *= dependent  # below it is rounding
        while count < k:
            for q in range(count):
                rest[units[q]] = 0
            unit = _most_above(rest, m, half, floor, signed)
            if unit < 0:
                break
            units[count] = unit
            count += 1
            _fit(z, at, gram, m, units, count, factor, codes, dependent)
            _left(z, at, gram, m, units, codes, count, rest)
        while count:
            worst, least = -1, dtype.type(1)
            for q in range(count):
                x = abs(codes[q]) if signed else codes[q]
                bar = threshold[units[q]]
                if x < least * bar or x <= 0:
                    worst, least = q, x / bar if bar > 0 else dtype.type(0)
            if worst < 0:
                break
            count -= 1
            for q in range(worst, count):
                units[q] = units[q + 1]
            _fit(z, at, gram, m, units, count, factor, codes, dependent)
        if shrinkage > 0:
            _shrink(units, count, factor, codes, threshold, shrinkage, change)
        counts[i] = _write(units, codes, count, indices[i], values[i])

"""The sparse part of the CPU kernel, in numba: which units are active, and what follows.

All arrays are flat and C-ordered. A row of scores is what a matrix product left, one number a
unit, without the bias; it is exact (the data's own precision) or *screened*: the product of
rounded operands, from which :func:`choose` decides what it can and recomputes the rest.

The error of a screened score
-----------------------------
Let y~ and w~ be the rounded operands (bfloat16 or float32), u = 2^-24, and s the score read.
By Cauchy-Schwarz, with the rounding errors as they are and not as they might be,

    |<y~, w~> - <y, w>| <= |y~ - y| |w~| + |y| |w~ - w|.

Products of two bfloat16 are exact in float32; of two float32 they are rounded once. Summed in
float32, in any order, n of them are off by at most n u / (1 - n u) |y~| |w~|, which is less than
2 n u |y~| |w~| for n <= 2^22; the factor of two leaves room for units that round otherwise.
A unit that takes subnormal numbers for zeros, on the way in or out, adds at most
2^-124 n (1 + |y~| + |w~|). A sum rounded to bfloat16 when stored is off by another 2^-8 |s|:
half a unit in the last of 8 places. Adding the bias b and comparing, in float32, round three
times, b itself perhaps once: 8 u (|y~| |w~| + |b|) covers it. So with

    e = |y~ - y| |w~| + |y| |w~ - w| + 2 n u |y~| |w~| + 8 u (|y~| |w~| + |b|)
        + 2^-124 n (1 + |y~| + |w~|)

and v(z) = |z| for a signed gate, z for another, the value of the exact z lies in

    [lower - e, upper + e],    lower, upper = v(s + b) -+ 2^-8 |s|.

Norms are those of atoms at their largest. They are sums of squares in the data's precision:
1 + 4 n u covers what they round, and n 2^-63 added to each covers squares that underflow. A
row with |y~| |w~| + |b| above 2^120, where float32 could overflow, is left *unresolved*.

Decisions
---------
*Threshold t*: a unit with upper + e < t can't be active.
*k largest*: let L be the k-th largest of the lower ends: k units have values of at least L - e,
so one with upper + e < L - e isn't among the k largest.
All other units are candidates. Their z is computed from the data in float64, and it decides;
so the support of a row is that of float64 arithmetic. An unresolved row, and all where nothing
is screened, are decided by a product in the data's own precision.

Nothing is sorted to find L. A guess that the row's norm suggests makes one pass over the
scores keep a few more than k; their k-th largest lower end proves the guess right or is the
bound for a second pass. How good the guesses are changes the time, never the result.
"""

from __future__ import annotations

import numpy as np

from shoal.network.kernels.compiling import apart, inline, shared, within
from shoal.network.kernels.vector import (
    LANES,
    absolute,
    add,
    at_least,
    count_bits,
    entry,
    first_bit,
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

__all__ = ["PADDING", "accumulate", "choose", "choose_again", "largest_norms", "small_step"]

BLOCK = 4 * LANES

PADDING = BLOCK
"""Room beyond their contents that lists of units need: blocks are written whole."""

# Squares below the smallest normal float32, 2^-126, may be lost from a norm: so much an entry.
_LOST = 2.0**-63

# Samples of an atom that are summed before they are added to the total: one by one, digits of
# float32 would be lost over many.
_SUMMED = 256


# --- rows of matrices -------------------------------------------------------------------------


@inline
def _part(size, parts, index):
    """Where part `index` of range(size) begins, cut into `parts`."""
    return size * index // parts


@inline
def _projections(like, a, i, b, rows, count, n, out):
    """out[q] = <a[i : i + n], row rows[q] of b>, summed in the precision of `like`."""
    zero = splat(like, 0.0)
    full = n - n % LANES
    left = n - full
    q = 0
    while q + 4 <= count:  # four at once: four reads of memory are under way
        j0, j1, j2, j3 = rows[q] * n, rows[q + 1] * n, rows[q + 2] * n, rows[q + 3] * n
        s0, s1, s2, s3 = zero, zero, zero, zero
        for t in range(0, full, LANES):
            v = load(like, a, i + t)
            s0 = multiply_add(v, load(like, b, j0 + t), s0)
            s1 = multiply_add(v, load(like, b, j1 + t), s1)
            s2 = multiply_add(v, load(like, b, j2 + t), s2)
            s3 = multiply_add(v, load(like, b, j3 + t), s3)
        if left:
            v = load_part(like, a, i + full, left)
            s0 = multiply_add(v, load_part(like, b, j0 + full, left), s0)
            s1 = multiply_add(v, load_part(like, b, j1 + full, left), s1)
            s2 = multiply_add(v, load_part(like, b, j2 + full, left), s2)
            s3 = multiply_add(v, load_part(like, b, j3 + full, left), s3)
        out[q], out[q + 1], out[q + 2], out[q + 3] = total(s0), total(s1), total(s2), total(s3)
        q += 4
    while q < count:
        j0 = rows[q] * n
        s0 = zero
        for t in range(0, full, LANES):
            s0 = multiply_add(load(like, a, i + t), load(like, b, j0 + t), s0)
        if left:
            v = load_part(like, a, i + full, left)
            s0 = multiply_add(v, load_part(like, b, j0 + full, left), s0)
        out[q] = total(s0)
        q += 1


@inline
def _norms(a, low, i, n):
    """|a| and |a - low| of a row, in a's precision: see `_LOST` for what that loses."""
    whole, rest, minus = splat(a, 0.0), splat(a, 0.0), splat(a, -1.0)
    full = n - n % LANES
    for t in range(0, full, LANES):
        v = load(a, a, i + t)
        d = multiply_add(minus, load(a, low, i + t), v)
        whole = multiply_add(v, v, whole)
        rest = multiply_add(d, d, rest)
    if full < n:
        v = load_part(a, a, i + full, n - full)
        d = multiply_add(minus, load_part(a, low, i + full, n - full), v)
        whole = multiply_add(v, v, whole)
        rest = multiply_add(d, d, rest)
    return np.sqrt(np.float64(total(whole))), np.sqrt(np.float64(total(rest)))


@shared
def largest_norms(a, low, m, n, parts, found, part):
    """The largest |a| and |a - low| of m rows, into `found` (parts, 2): take their max."""
    whole, rest = 0.0, 0.0
    for j in range(_part(m, parts, part), _part(m, parts, part + 1)):
        size, error = _norms(a, low, j * n, n)
        whole, rest = max(whole, size), max(rest, error)
    found[part, 0], found[part, 1] = whole + n * _LOST, rest + n * _LOST


# --- which units are active -------------------------------------------------------------------


@within
def _kth_largest(a, n, k):
    """The k-th largest of a[:n], n >= k; reorders a and writes over PADDING entries beyond."""
    if n <= BLOCK:
        # By counting, for each, how many are at least as large: no branch to mispredict.
        end = (n + LANES - 1) // LANES * LANES
        for q in range(n, end):
            a[q] = -np.inf
        best = -np.inf
        for q in range(n):
            x, count = a[q], 0
            for t in range(0, end, LANES):
                count += count_bits(at_least(load(a, a, t), splat(a, x)))
            if count >= k:
                best = max(best, x)
        return best
    first, last, wanted = 0, n - 1, k - 1  # Hoare's selection
    while first < last:
        pivot = a[(first + last) // 2]
        i, j = first, last
        while i <= j:
            while a[i] > pivot:
                i += 1
            while a[j] < pivot:
                j -= 1
            if i <= j:
                a[i], a[j] = a[j], a[i]
                i += 1
                j -= 1
        if wanted <= j:
            last = j
        elif wanted >= i:
            first = i
        else:
            break
    return np.float64(a[wanted])


@inline
def _values(low, at, bias, j, signed):
    """v(s + b) and |s| of the LANES units from j on."""
    s = load(low, low, at + j)
    z = add(s, load(low, bias, j))
    return select(signed, absolute(z), z), absolute(s)


@inline
def _raised(v, s, slack, exact):
    """v + slack |s|, without a product that is NaN where an exact score is infinite."""
    return select(exact, v, multiply_add(s, slack, v))


@inline
def _value(low, at, bias, j, signed):
    """v(s + b) and |s| of unit j."""
    s = entry(low, low, at + j)
    z = s + bias[j]
    return abs(z) if signed else z, abs(s)


@within
def _floor(low, at, bias, m, slack, k, signed, best):
    """A number that k lower ends of the row reach: k-th largest of the maxima of k sets."""
    minus, none, exact = splat(low, -slack), splat(low, -np.inf), slack == 0
    sets, blocks = len(best) // BLOCK - 1, m // BLOCK  # the last block of best is padding
    for g in range(sets):
        a, b, c, d = none, none, none, none
        for j in range(g * BLOCK, blocks * BLOCK, sets * BLOCK):
            v, s = _values(low, at, bias, j, signed)
            a = maximum(_raised(v, s, minus, exact), a)
            v, s = _values(low, at, bias, j + LANES, signed)
            b = maximum(_raised(v, s, minus, exact), b)
            v, s = _values(low, at, bias, j + 2 * LANES, signed)
            c = maximum(_raised(v, s, minus, exact), c)
            v, s = _values(low, at, bias, j + 3 * LANES, signed)
            d = maximum(_raised(v, s, minus, exact), d)
        store(best, g * BLOCK, a)
        store(best, g * BLOCK + LANES, b)
        store(best, g * BLOCK + 2 * LANES, c)
        store(best, g * BLOCK + 3 * LANES, d)
    return _kth_largest(best, sets * BLOCK, k)


@inline
def _list_bits(mask, j, units, count):
    """Append j + the index of each set bit to units[:count]; the new count."""
    found = count_bits(mask)
    for q in range(4):  # most often all: no branch to mispredict
        units[count + q] = j + first_bit(mask)
        mask &= mask - np.uint64(1)
    for q in range(4, found):
        units[count + q] = j + first_bit(mask)
        mask &= mask - np.uint64(1)
    return count + found


@inline
def _collect(low, at, bias, m, slack, signed, bar, units):
    """The units whose upper end reaches `bar`, ascending, into `units`; how many."""
    plus, least, exact = splat(low, slack), splat(low, bar), slack == 0
    count = 0
    full = m - m % BLOCK
    for j in range(0, full, BLOCK):
        v, s = _values(low, at, bias, j, signed)
        mask = at_least(_raised(v, s, plus, exact), least)
        v, s = _values(low, at, bias, j + LANES, signed)
        mask |= at_least(_raised(v, s, plus, exact), least) << np.uint64(LANES)
        v, s = _values(low, at, bias, j + 2 * LANES, signed)
        mask |= at_least(_raised(v, s, plus, exact), least) << np.uint64(2 * LANES)
        v, s = _values(low, at, bias, j + 3 * LANES, signed)
        mask |= at_least(_raised(v, s, plus, exact), least) << np.uint64(3 * LANES)
        count = _list_bits(mask, j, units, count)
    for j in range(full, m, LANES):
        left = min(LANES, m - j)
        s = load_part(low, low, at + j, left)
        z = add(s, load_part(low, bias, j, left))
        v = select(signed, absolute(z), z)
        mask = at_least(_raised(v, absolute(s), plus, exact), least)
        mask &= (np.uint64(1) << np.uint64(left)) - np.uint64(1)
        count = _list_bits(mask, j, units, count)
    return count


@inline
def _candidates(
    low, at, bias, m, slack, e, size, k, threshold, signed, guess, best, units, scores
):  # fmt: skip
    """The units that may be active, ascending; how many, and the next guess.

    `guess` is the expected k-th largest value over `size`, 0 where there is none.
    """
    # Without a sign most gates pass only positive values.
    least = -np.inf if signed or threshold < 0 else -e
    reached, tries = guess * size, 0
    while True:
        if k == 0:
            reached = threshold + e
        elif (tries == 0 and not guess > 0) or tries == 3:
            reached, tries = _floor(low, at, bias, m, slack, k, signed, best), 4
        bar = max(reached - 2 * e, least)
        count = _collect(low, at, bias, m, slack, signed, bar, units)
        if k == 0:
            return count, guess
        if count < k:
            if tries >= 4 or bar == least:
                return count, guess  # there are no more that matter
            reached *= 0.8
            tries += 1
            continue
        proven = 0
        for q in range(count):
            v, s = _value(low, at, bias, units[q], signed)
            scores[q] = v if slack == 0 else v - slack * s
            proven += scores[q] >= reached
        if proven >= k and count <= k + max(2, k // 4):
            break  # a few candidates too many cost less than to find them
        kth = _kth_largest(scores, count, k)
        if proven < k:  # k reach kth, so that it takes the place of the guess
            reached, tries = kth, max(tries, 5)
            continue
        bar = kth - 2 * e
        kept = 0
        for q in range(count):
            j = units[q]
            v, s = _value(low, at, bias, j, signed)
            units[kept] = j
            kept += (v if slack == 0 else v + slack * s) >= bar
        count = kept
        break
    # Arbitrary: where about one guess in twenty is too high, few passes are wasted.
    if not guess > 0 or tries == 4:
        guess = 0.95 * reached / size
    else:
        guess *= 0.95 if tries else 1.0026
    return count, guess if guess < np.inf else 0.0


@inline
def _active(units, exact, count, k, threshold, signed, wide, like):
    """Keep the active ones of candidates with z `exact`; how many, and the k-th largest value.

    Ties at the k-th place go to the lowest unit. `like` has the precision of the codes.
    """
    for q in range(count):
        wide[q] = abs(exact[q]) if signed else exact[q]
    kth, kept = -np.inf, 0
    if k > 0 and count <= LANES:
        # Each against all: no branch to mispredict. The rank of a unit among equals is its place.
        for q in range(count, LANES):
            wide[q] = -np.inf
        values = load(wide, wide, 0)
        kth = np.inf
        for q in range(count):
            v, z = wide[q], exact[q]
            mine = splat(wide, v)
            above, below = at_least(values, mine), at_least(mine, values)
            earlier = (np.uint64(1) << np.uint64(q)) - np.uint64(1)
            rank = count_bits(above & ~below) + count_bits(above & below & earlier)
            # In the codes' precision it may be 0, which no active unit is.
            passes = (rank < k) & (v > threshold) & (like.dtype.type(z) != 0)
            units[kept], exact[kept] = units[q], z
            kept += passes
            kth = v if passes and v < kth else kth
        return kept, kth if kept == k else -np.inf
    ties = 0
    if 0 < k < count:
        kth, ties = _kth_largest(wide, count, k), k
        for q in range(count):
            ties -= (abs(exact[q]) if signed else exact[q]) > kth
    for q in range(count):
        z = exact[q]
        v = abs(z) if signed else z
        level = v == kth
        passes = (v > threshold) & (like.dtype.type(z) != 0)
        passes &= (v > kth) | (level & (ties > 0))
        ties -= level
        units[kept], exact[kept] = units[q], z
        kept += passes
    return kept, kth


@inline
def _write(units, exact, count, indices, values):
    """A row of codes, as many as there is room for."""
    for q in range(min(count, len(indices))):
        indices[q], values[q] = units[q], exact[q]


@shared
def choose(
    low, lbias, slack, ylow, atoms, y, w, bias, n, m,
    k, threshold, signed, screened, limit, parts, indices, values, counts, part,
):  # fmt: skip
    """The active units of each row and their exact values.

    Parameters
    ----------
    low : array of T m
        Scores; `lbias` (m,) is the bias in their precision, `slack` the 2^-8 of scores that
        were rounded to bfloat16, else 0.
    ylow, atoms
        Where `screened`: the rounded rows (T n,), and max |w|, max |w - w~|, max |b|.
    y, w, bias : arrays of T n, m n and m
        Rows, atoms and bias in the data's precision.
    k, threshold, signed
        The gate; k is 0 where all values above the threshold pass.
    limit : int
        A row with more candidates is unresolved.
    indices, values : arrays of shape (T, capacity)
        Out: the first entries of each row; what comes after them stays as it was.
    counts : array of T
        Out: active units, or -1 for a row that is unresolved. A count above the capacity
        says that not all are listed.
    """
    rows = len(counts)
    like = values[0]
    units = np.empty(m + PADDING, np.int64)
    scores = np.empty(m + PADDING, lbias.dtype)
    exact = np.empty(m + PADDING, np.float64)
    wide = np.empty(m + PADDING, np.float64)
    best = np.empty((max(1, (2 * k + BLOCK - 1) // BLOCK) + 1) * BLOCK, lbias.dtype)
    guess = 0.0
    for i in range(_part(rows, parts, part), _part(rows, parts, part + 1)):
        at = i * m
        e, size = 0.0, 1.0
        if screened or k > 0:
            size, error = _norms(y, ylow, i * n, n)
        if screened:
            size, error = size + n * _LOST, error + n * _LOST
            near, atom = size + error, atoms[0] + atoms[1]
            if not near * atom + atoms[2] <= 2.0**120:
                counts[i] = -1
                continue
            e = error * atom + size * atoms[1] + n * 2.0**-23 * near * atom
            e += 2.0**-21 * (near * atom + atoms[2]) + n * 2.0**-124 * (1 + near + atom)
            e *= 1 + n * 2.0**-22 + 2.0**-20  # its own rounding, and that of norms
        count, guess = _candidates(
            low, at, lbias, m, slack, e, size, k, threshold, signed, guess, best, units, scores
        )
        if count > limit:
            counts[i] = -1
            continue
        if screened:
            _projections(exact, y, i * n, w, units, count, n, exact)
            for q in range(count):
                exact[q] += bias[units[q]]
        else:
            for q in range(count):
                exact[q] = entry(low, low, at + units[q]) + lbias[units[q]]
        kept, _ = _active(units, exact, count, k, threshold, signed, wide, like)
        counts[i] = kept
        _write(units, exact, kept, indices[i], values[i])


@shared
def choose_again(
    y, w, bias, n, k, threshold, signed, parts, listed, lengths, bounds, steps, fresh,
    indices, values, counts, part,
):  # fmt: skip
    """The active units of rows seen before, from a list of units and a bound on all others.

    Parameters
    ----------
    listed, lengths : arrays of shape (T, capacity) and (T,)
        Units of each row, ascending, of which the exact z is taken.
    bounds : array of T
        No other unit's value exceeded it; it is moved by `steps`.
    steps : array of T
        How much a z of the row can have changed since: |y| max |dw| + max |db|.
    fresh : bool
        The lists were made for these atoms, ties and all; every row is decided.
    indices, values, counts
        Out, as in :func:`choose`; -1 for a row that can't be decided so.
    """
    rows, capacity = listed.shape
    like = values[0]
    units = np.empty(capacity + PADDING, np.int64)
    exact = np.empty(capacity + PADDING, np.float64)
    wide = np.empty(capacity + PADDING, np.float64)
    for i in range(_part(rows, parts, part), _part(rows, parts, part + 1)):
        bounds[i] += steps[i]
        count = lengths[i]
        for q in range(count):
            units[q] = listed[i, q]
        _projections(exact, y, i * n, w, units, count, n, exact)
        for q in range(count):
            exact[q] += bias[units[q]]
        kept, kth = _active(units, exact, count, k, threshold, signed, wide, like)
        # Another unit could be active: at a tie with the k-th it might come first.
        decided = fresh or bounds[i] <= threshold or bounds[i] < kth
        counts[i] = kept if decided else -1
        _write(units, exact, kept, indices[i], values[i])


# --- what follows from the active units -------------------------------------------------------


@inline
def _residual(y, i, w, n, units, codes, count, r):
    """r = y - x D of one row, into r[i : i + n]; its squared norm."""
    loss = splat(y, 0.0)
    full = n - n % BLOCK
    for t in range(0, full, BLOCK):
        a, b = load(y, y, i + t), load(y, y, i + t + LANES)
        c, d = load(y, y, i + t + 2 * LANES), load(y, y, i + t + 3 * LANES)
        for q in range(count):
            x, j = splat(y, -codes[q]), units[q] * n + t
            a = multiply_add(x, load(y, w, j), a)
            b = multiply_add(x, load(y, w, j + LANES), b)
            c = multiply_add(x, load(y, w, j + 2 * LANES), c)
            d = multiply_add(x, load(y, w, j + 3 * LANES), d)
        store(r, i + t, a)
        store(r, i + t + LANES, b)
        store(r, i + t + 2 * LANES, c)
        store(r, i + t + 3 * LANES, d)
        loss = multiply_add(a, a, multiply_add(b, b, multiply_add(c, c, multiply_add(d, d, loss))))
    for t in range(full, n, LANES):
        left = min(LANES, n - t)
        a = load_part(y, y, i + t, left)
        for q in range(count):
            atom = load_part(y, w, units[q] * n + t, left)
            a = multiply_add(splat(y, -codes[q]), atom, a)
        store_part(r, i + t, a, left)
        loss = multiply_add(a, a, loss)
    return total(loss)


@inline
def _strip_gradient(g, at, first, last, rows, codes, back, r, y, n, t):
    """g[at : at + BLOCK] -= sum over the atom's samples of x r + e y, features t to t + BLOCK."""
    zero = splat(g, 0.0)
    a, b, c, d = zero, zero, zero, zero
    for s in range(first, last):
        i = rows[s] * n + t
        x, e = splat(g, -codes[s]), splat(g, -back[s])
        a = multiply_add(x, load(g, r, i), multiply_add(e, load(g, y, i), a))
        i += LANES
        b = multiply_add(x, load(g, r, i), multiply_add(e, load(g, y, i), b))
        i += LANES
        c = multiply_add(x, load(g, r, i), multiply_add(e, load(g, y, i), c))
        i += LANES
        d = multiply_add(x, load(g, r, i), multiply_add(e, load(g, y, i), d))
    store(g, at, add(load(g, g, at), a))
    store(g, at + LANES, add(load(g, g, at + LANES), b))
    store(g, at + 2 * LANES, add(load(g, g, at + 2 * LANES), c))
    store(g, at + 3 * LANES, add(load(g, g, at + 3 * LANES), d))


@inline
def _rest_gradient(g, at, first, last, rows, codes, back, r, y, n, t, left):
    """The same for `left` features from t on, at most LANES."""
    a = splat(g, 0.0)
    for s in range(first, last):
        i = rows[s] * n + t
        x, e = splat(g, -codes[s]), splat(g, -back[s])
        a = multiply_add(e, load_part(g, y, i, left), a)
        a = multiply_add(x, load_part(g, r, i, left), a)
    store_part(g, at, add(load_part(g, g, at, left), a), left)


@apart
def offsets(starts, first):
    """Where each unit's codes begin, into `first` (m + 1,), in the order of units.

    `starts` (parts, m) counts the codes that a part has of a unit; it becomes where they begin.
    """
    parts, m = starts.shape
    size = 0
    for j in range(m):
        first[j] = size
        for p in range(parts):
            count = starts[p, j]
            starts[p, j] = size
            size += count
    first[m] = size


@shared
def by_unit(indices, values, counts, back, parts, starts, sample, codes, slopes, part):
    """The codes of rows in the order of their units: a counting sort, stable."""
    for i in range(_part(len(counts), parts, part), _part(len(counts), parts, part + 1)):
        for q in range(counts[i]):
            j = indices[i, q]
            s = starts[part, j]
            starts[part, j] = s + 1
            sample[s], codes[s], slopes[s] = i, values[i, q], back[i, q]


@inline
def _first_unit(first, m, parts, index):
    """Where part `index` of the units begins, cut so that each has as many codes."""
    wanted = _part(first[m], parts, index)
    low, high = 0, m
    while low < high:
        middle = (low + high) // 2
        if first[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if index < parts else m


@within
def _unit_sums(mine, until, first, codes, slopes, bias_gradient, active, energy):
    """Add what units `mine` to `until` have of the bias' gradient, of counts and of energy."""
    dtype = codes.dtype
    for j in range(mine, until):
        for begin in range(first[j], first[j + 1], _SUMMED):
            slope, squares = dtype.type(0), dtype.type(0)
            for s in range(begin, min(begin + _SUMMED, first[j + 1])):
                slope -= slopes[s]
                squares += codes[s] * codes[s]
            bias_gradient[j] += slope
            energy[j] += squares
        active[j] += first[j + 1] - first[j]


@shared
def residuals(
    y, target, w, n, indices, values, counts, tied, parts, losses, r, back, starts, part,
):  # fmt: skip
    """What is left of the rows `target` (T n) by their codes, and of the losses.

    Parameters
    ----------
    tied : bool
        Whether the projections e = <r, D_i> are wanted, into `back` (T, capacity); else it is 0.
    r : array of T n
        Out: what is left.
    starts : array of shape (parts, m)
        Out: how often each unit is active in the rows of a part.
    """
    for j in range(starts.shape[1]):
        starts[part, j] = 0
    for i in range(_part(len(counts), parts, part), _part(len(counts), parts, part + 1)):
        count = counts[i]
        losses[i] = _residual(target, i * n, w, n, indices[i], values[i], count, r) / 2
        if tied:
            _projections(y, r, i * n, w, indices[i], count, n, back[i])
        for q in range(count):
            starts[part, indices[i, q]] += 1
            if not tied:
                back[i, q] = 0


@shared
def unit_sums(
    y, n, m, r, first, sample, codes, slopes, parts,
    gradient, bias_gradient, active, energy, part,
):  # fmt: skip
    """Add what the samples of each unit contribute to its sums, in the order of the rows."""
    mine, end = _first_unit(first, m, parts, part), _first_unit(first, m, parts, part + 1)
    _unit_sums(mine, end, first, codes, slopes, bias_gradient, active, energy)
    # By strips of features: that of all rows stays in the cache while the atoms pass.
    full = n - n % BLOCK
    for t in range(0, full, BLOCK):
        for j in range(mine, end):
            for begin in range(first[j], first[j + 1], _SUMMED):
                _strip_gradient(
                    gradient, j * n + t, begin, min(begin + _SUMMED, first[j + 1]),
                    sample, codes, slopes, r, y, n, t,
                )  # fmt: skip
    for t in range(full, n, LANES):
        for j in range(mine, end):
            for begin in range(first[j], first[j + 1], _SUMMED):
                _rest_gradient(
                    gradient, j * n + t, begin, min(begin + _SUMMED, first[j + 1]),
                    sample, codes, slopes, r, y, n, t, min(LANES, n - t),
                )  # fmt: skip


_residuals, _by_unit, _sums = residuals.one, by_unit.one, unit_sums.one


@apart
def accumulate_alone(
    y, w, n, m, indices, values, counts, tied, losses, gradient, bias_gradient, active, energy
):  # fmt: skip
    """:func:`accumulate` by one thread, in one call."""
    rows, capacity = indices.shape
    dtype = values.dtype
    r, back = np.empty(rows * n, dtype), np.empty((rows, capacity), dtype)
    starts, first = np.empty((1, m), np.int64), np.empty(m + 1, np.int64)
    _residuals(y, y, w, n, indices, values, counts, tied, 1, losses, r, back, starts, 0)
    offsets(starts, first)
    size = first[m]
    sample, codes, slopes = np.empty(size, np.int64), np.empty(size, dtype), np.empty(size, dtype)
    _by_unit(indices, values, counts, back, 1, starts, sample, codes, slopes, 0)
    _sums(
        y, n, m, r, first, sample, codes, slopes, 1, gradient, bias_gradient, active, energy, 0
    )  # fmt: skip


@inline
def _store_block(out, at, a, b, c, d, room):
    """Four vectors in a row, or so many of their numbers as there is room for."""
    if room >= BLOCK:
        store(out, at, a)
        store(out, at + LANES, b)
        store(out, at + 2 * LANES, c)
        store(out, at + 3 * LANES, d)
    else:
        store_part(out, at, a, min(LANES, room))
        store_part(out, at + LANES, b, min(LANES, max(0, room - LANES)))
        store_part(out, at + 2 * LANES, c, min(LANES, max(0, room - 2 * LANES)))
        store_part(out, at + 3 * LANES, d, min(LANES, max(0, room - 3 * LANES)))


@within
def _products(y, rows, n, w, m, out):
    """All <y, w> of rows y (T n), T >= 4, and w (m n), into `out` (T m): four rows at once."""
    zero = splat(y, 0.0)
    width = (m + BLOCK - 1) // BLOCK * BLOCK
    columns = np.empty(n * width, y.dtype)
    for t in range(n):
        for j in range(m):
            columns[t * width + j] = w[j * n + t]
        for j in range(m, width):
            columns[t * width + j] = 0
    for begin in range(0, rows, 4):
        i = min(begin, rows - 4)  # some of the last ones twice
        y0, y1, y2, y3 = i * n, i * n + n, i * n + 2 * n, i * n + 3 * n
        for j in range(0, width, BLOCK):
            a0, a1, a2, a3 = zero, zero, zero, zero
            b0, b1, b2, b3 = zero, zero, zero, zero
            c0, c1, c2, c3 = zero, zero, zero, zero
            d0, d1, d2, d3 = zero, zero, zero, zero
            for t in range(n):
                p = t * width + j
                w0, w1 = load(y, columns, p), load(y, columns, p + LANES)
                w2, w3 = load(y, columns, p + 2 * LANES), load(y, columns, p + 3 * LANES)
                x = splat(y, y[y0 + t])
                a0, a1 = multiply_add(x, w0, a0), multiply_add(x, w1, a1)
                a2, a3 = multiply_add(x, w2, a2), multiply_add(x, w3, a3)
                x = splat(y, y[y1 + t])
                b0, b1 = multiply_add(x, w0, b0), multiply_add(x, w1, b1)
                b2, b3 = multiply_add(x, w2, b2), multiply_add(x, w3, b3)
                x = splat(y, y[y2 + t])
                c0, c1 = multiply_add(x, w0, c0), multiply_add(x, w1, c1)
                c2, c3 = multiply_add(x, w2, c2), multiply_add(x, w3, c3)
                x = splat(y, y[y3 + t])
                d0, d1 = multiply_add(x, w0, d0), multiply_add(x, w1, d1)
                d2, d3 = multiply_add(x, w2, d2), multiply_add(x, w3, d3)
            _store_block(out, i * m + j, a0, a1, a2, a3, m - j)
            _store_block(out, i * m + m + j, b0, b1, b2, b3, m - j)
            _store_block(out, i * m + 2 * m + j, c0, c1, c2, c3, m - j)
            _store_block(out, i * m + 3 * m + j, d0, d1, d2, d3, m - j)


@inline
def _length(a, i, n):
    """|a| of a row and room for what is lost of it: see :func:`_norms`."""
    square = splat(a, 0.0)
    full = n - n % LANES
    for t in range(0, full, LANES):
        v = load(a, a, i + t)
        square = multiply_add(v, v, square)
    if full < n:
        v = load_part(a, a, i + full, n - full)
        square = multiply_add(v, v, square)
    return np.sqrt(np.float64(total(square))) + n * _LOST


@within
def _choose_few(y, w, bias, rows, n, m, k, threshold, signed, indices, values, counts):
    """What :func:`choose` finds for k <= LANES, screened by a product in the rows' precision.

    The k-th largest maximum of LANES sets of units is a bound on the k-th largest score, so near
    that no guess is worth more. False where a row is left unresolved.
    """
    scores, bars = np.empty(rows * m, y.dtype), np.empty(rows, np.float64)
    _products(y, rows, n, w, m, scores)
    atom, offset = 0.0, 0.0
    for j in range(m):
        atom, offset = max(atom, _length(w, j * n, n)), max(offset, abs(bias[j]))
    # Loops without branches to mispredict: a processor is at several rows at once.
    best = np.empty(LANES, y.dtype)
    for i in range(rows):
        size = _length(y, i * n, n)
        near = size * atom + offset
        e = n * 2.0**-23 * size * atom + 2.0**-21 * near + n * 2.0**-124 * (1 + size + atom)
        e *= 1 + n * 2.0**-22 + 2.0**-20
        highest = splat(y, -np.inf)
        for j in range(0, m - m % LANES, LANES):
            v, _ = _values(scores, i * m, bias, j, signed)
            highest = maximum(v, highest)
        store(best, 0, highest)
        reached = -np.inf
        for q in range(LANES):
            above = count_bits(at_least(highest, splat(best, best[q])))
            reached = max(reached, np.float64(best[q]) if above >= k else -np.inf)
        least = -np.inf if signed or threshold < 0 else -e
        bars[i] = max(reached - 2 * e, least) if near <= 2.0**120 else np.nan
    units, zero, like = np.empty(m + PADDING, np.int64), y.dtype.type(0), values[0]
    listed, found = np.empty((rows, LANES), np.int64), np.empty((rows, LANES), np.float64)
    exact, wide = np.empty(m + PADDING, np.float64), np.empty(m + PADDING, np.float64)
    for i in range(rows):
        if np.isnan(bars[i]):
            return False
        count = _collect(scores, i * m, bias, m, zero, signed, bars[i], units)
        counts[i] = count
        if count <= LANES:
            for q in range(LANES):
                listed[i, q] = units[q]
            for q in range(count, (count + 3) // 4 * 4):
                listed[i, q] = 0
            continue
        _projections(exact, y, i * n, w, units, count, n, exact)
        for q in range(count):
            exact[q] += bias[units[q]]
        kept, _ = _active(units, exact, count, k, threshold, signed, wide, like)
        counts[i] = -kept - 1
        _write(units, exact, kept, indices[i], values[i])
    for i in range(rows):  # four at once, some of them for nothing
        if counts[i] >= 0:
            whole = (counts[i] + 3) // 4 * 4
            _projections(exact, y, i * n, w, listed[i], whole, n, found[i])
    for i in range(rows):
        count = counts[i]
        if count < 0:
            counts[i] = -count - 1
            continue
        for q in range(count):
            found[i, q] += bias[listed[i, q]]
        if count > k:
            kept, _ = _active(listed[i], found[i], count, k, threshold, signed, wide, like)
            counts[i] = kept
            _write(listed[i], found[i], kept, indices[i], values[i])
            continue
        kept = 0
        for q in range(count):  # they are the k largest
            z = found[i, q]
            code = like.dtype.type(z)
            indices[i, kept], values[i, kept] = listed[i, q], code
            kept += ((abs(z) if signed else z) > threshold) & (code != 0)
        counts[i] = kept
    return True


@apart
def small_step(
    y, w, bias, n, m, k, threshold, signed, losses, gradient, bias_gradient, active, energy
):  # fmt: skip
    """A whole step on rows y (T n), T >= 4, in one call: product, choice and sums.

    What comes out doesn't differ from that of other ways, as the product only screens. Sums are
    written, not added to; False where a row is left unresolved, and they are none.
    """
    rows = len(losses)
    dtype = y.dtype
    indices, values = np.empty((rows, k), np.int64), np.empty((rows, k), dtype)
    counts, counted = np.empty(rows, np.int64), np.empty(m, np.int64)
    if not _choose_few(y, w, bias, rows, n, m, k, threshold, signed, indices, values, counts):
        return False
    for j in range(m):
        bias_gradient[j], energy[j], counted[j] = 0, 0, 0
    for j in range(m * n):
        gradient[j] = 0
    accumulate_alone(
        y, w, n, m, indices, values, counts, True, losses, gradient, bias_gradient, counted, energy
    )  # fmt: skip
    for j in range(m):
        active[j] = counted[j]
    return True


def ordered(indices, values, counts, back, parts, starts):
    """The codes of rows in the order of their units: where each begins, samples, codes, slopes."""
    first = np.empty(starts.shape[1] + 1, np.int64)
    offsets(starts, first)
    size, dtype = first[-1], values.dtype
    sample, codes, slopes = np.empty(size, np.int64), np.empty(size, dtype), np.empty(size, dtype)
    by_unit(indices, values, counts, back, parts, starts, sample, codes, slopes)
    return first, sample, codes, slopes


def accumulate(
    y, w, n, m, indices, values, counts, tied, parts,
    losses, gradient, bias_gradient, active, energy,
):  # fmt: skip
    """Add what the rows y (T n) with these codes contribute to the sums of a step.

    Where the codes are not `tied`, they don't depend on the atoms: of the gradient the
    decoder's part is left, and e is 0.

    First by rows: residuals, losses, projections. Then by atoms: the codes are brought in the
    order of their units (a counting sort, stable), each thread takes atoms of its own, and
    adds up their samples in the order of the rows. So no two threads write to one place, and
    the sums don't depend on how many threads there are.
    """
    given = y, w, n, m, indices, values, counts, tied
    out = losses, gradient, bias_gradient, active, energy
    if parts == 1:
        accumulate_alone(*given, *out)
        return
    r, back = np.empty(len(counts) * n, values.dtype), np.empty(indices.shape, values.dtype)
    starts = np.empty((parts, m), np.int64)
    residuals(y, y, w, n, indices, values, counts, tied, parts, losses, r, back, starts)
    listed = ordered(indices, values, counts, back, parts, starts)
    unit_sums(y, n, m, r, *listed, parts, *out[1:])

"""The step of an autoencoder whose encoder is not its dictionary, in numba, and Adam in one pass.

With k of m units active the gradients are as sparse as the codes: of the encoder's row j

    dL/dE_j = -sum_i <r_i, D_j> y_i    over the samples i on which unit j is active,

and of the dictionary's -sum_i x_ij r_i. All arrays are flat and C-ordered.
"""

from __future__ import annotations

import numpy as np

from shoal.network.kernels.compiled import (
    _SUMMED,
    BLOCK,
    _first_unit,
    _part,
    _projections,
    _residual,
    _unit_sums,
    ordered,
    residuals,
)
from shoal.network.kernels.compiling import inline, shared
from shoal.network.kernels.pursuits import _largest, _left, _write
from shoal.network.kernels.vector import (
    LANES,
    add,
    load,
    load_part,
    multiply_add,
    splat,
    store,
    store_part,
)

__all__ = ["above", "accumulate", "adam", "corrected", "near", "nested"]


@inline
def _strip(g, at, first, last, rows, factors, source, n, t):
    """Four vectors of a unit's gradient: minus the samples' factor times their row of `source`."""
    zero = splat(g, 0.0)
    a, b, c, d = zero, zero, zero, zero
    for s in range(first, last):
        i = rows[s] * n + t
        x = splat(g, -factors[s])
        a = multiply_add(x, load(g, source, i), a)
        b = multiply_add(x, load(g, source, i + LANES), b)
        c = multiply_add(x, load(g, source, i + 2 * LANES), c)
        d = multiply_add(x, load(g, source, i + 3 * LANES), d)
    store(g, at, add(load(g, g, at), a))
    store(g, at + LANES, add(load(g, g, at + LANES), b))
    store(g, at + 2 * LANES, add(load(g, g, at + 2 * LANES), c))
    store(g, at + 3 * LANES, add(load(g, g, at + 3 * LANES), d))


@inline
def _rest(g, at, first, last, rows, factors, source, n, t, left):
    """The same for `left` features from t on, at most LANES."""
    a = splat(g, 0.0)
    for s in range(first, last):
        a = multiply_add(splat(g, -factors[s]), load_part(g, source, rows[s] * n + t, left), a)
    store_part(g, at, add(load_part(g, g, at, left), a), left)


@inline
def _gradient(g, mine, end, first, rows, factors, source, n):
    """Add to the gradients of the units mine to end, by strips that stay in the cache."""
    full = n - n % BLOCK
    for t in range(0, full, BLOCK):
        for j in range(mine, end):
            for begin in range(first[j], first[j + 1], _SUMMED):
                last = min(begin + _SUMMED, first[j + 1])
                _strip(g, j * n + t, begin, last, rows, factors, source, n, t)
    for t in range(full, n, LANES):
        left = min(LANES, n - t)
        for j in range(mine, end):
            for begin in range(first[j], first[j + 1], _SUMMED):
                last = min(begin + _SUMMED, first[j + 1])
                _rest(g, j * n + t, begin, last, rows, factors, source, n, t, left)


@shared
def _unit_gradients(
    y, r, n, m, first, sample, left, codes, slopes, encoded, decoded, parts,
    encoder_gradient, dictionary_gradient, bias_gradient, active, energy, part,
):  # fmt: skip
    """Add what the samples of each unit contribute to its sums, in the order of the rows.

    Of the encoder's gradient from row `sample` of y, of the dictionary's from row `left` of r.
    """
    mine, end = _first_unit(first, m, parts, part), _first_unit(first, m, parts, part + 1)
    _unit_sums(mine, end, first, codes, slopes, bias_gradient, active, energy)
    if encoded:
        _gradient(encoder_gradient, mine, end, first, sample, slopes, y, n)
    if decoded:
        _gradient(dictionary_gradient, mine, end, first, left, codes, r, n)


def accumulate(
    y, target, w, n, m, indices, values, counts, encoded, decoded, parts,
    losses, encoder_gradient, dictionary_gradient, bias_gradient, active, energy,
):  # fmt: skip
    """Add what rows with these codes contribute to the sums of a step.

    Parameters
    ----------
    y, target : arrays of T n
        What was encoded, and what is to be rebuilt of it by the dictionary `w` (m n).
    indices, values, counts
        Codes, as `compiled.choose` leaves them.
    encoded, decoded : bool
        Whether the gradients by the encoder, and by the dictionary, are wanted.
    losses : array of T
        Out. To the other sums is added; as in `compiled.accumulate` they don't depend on `parts`.
    """
    r, back = np.empty(len(counts) * n, values.dtype), np.empty(indices.shape, values.dtype)
    starts = np.empty((parts, m), np.int64)
    residuals(y, target, w, n, indices, values, counts, True, parts, losses, r, back, starts)
    first, sample, codes, slopes = ordered(indices, values, counts, back, parts, starts)
    _unit_gradients(
        y, r, n, m, first, sample, sample, codes, slopes, encoded, decoded, parts,
        encoder_gradient, dictionary_gradient, bias_gradient, active, energy,
    )  # fmt: skip


@shared
def _nested_residuals(
    y, target, w, n, indices, values, counts, group, felt, parts, losses, back, starts, part
):  # fmt: skip
    """By rows: see :func:`nested`. Out as of `compiled.residuals`."""
    groups = felt.shape[1]
    dtype = values.dtype
    share = dtype.type(1) / dtype.type(groups)
    left = felt.reshape(-1)
    r = np.empty(n, dtype)
    for j in range(starts.shape[1]):
        starts[part, j] = 0
    for i in range(_part(len(counts), parts, part), _part(len(counts), parts, part + 1)):
        count = counts[i]
        for t in range(n):
            r[t] = target[i * n + t]
        q = 0
        for g in range(groups):
            while q < count and group[indices[i, q]] == g:
                x, j = values[i, q], indices[i, q] * n
                for t in range(n):
                    r[t] -= x * w[j + t]
                q += 1
            at = (i * groups + g) * n
            for t in range(n):
                left[at + t] = r[t]
        loss = dtype.type(0)
        for t in range(n):
            loss += r[t] * r[t]
        losses[i] = loss / 2
        for g in range(groups - 2, -1, -1):
            at = (i * groups + g) * n
            for t in range(n):
                left[at + t] += left[at + n + t]
        for t in range(i * groups * n, (i + 1) * groups * n):
            left[t] *= share
        begin = 0
        while begin < count:
            g, end = group[indices[i, begin]], begin
            while end < count and group[indices[i, end]] == g:
                end += 1
            at = (i * groups + g) * n
            mine, out = indices[i, begin:end], back[i, begin:end]
            _projections(y, left, at, w, mine, end - begin, n, out)
            begin = end
        for q in range(count):
            starts[part, indices[i, q]] += 1


def nested(
    y, target, w, n, m, indices, values, counts, group, felt, parts,
    losses, encoder_gradient, dictionary_gradient, bias_gradient, active, energy,
):  # fmt: skip
    """:func:`accumulate` for the mean of the losses by the first atoms, for several numbers.

    Parameters
    ----------
    group : array of m
        Of which prefix on a unit belongs to them, from 0, ascending; the last one has them all.
    felt : array of shape (T, groups, n)
        Out: the sums of what is left by all prefixes that have a unit of the group, over their
        number: what such a unit is to explain.
    losses : array of T
        Out: by all atoms.
    """
    back, starts = np.zeros(indices.shape, values.dtype), np.empty((parts, m), np.int64)
    _nested_residuals(
        y, target, w, n, indices, values, counts, group, felt, parts, losses, back, starts
    )  # fmt: skip
    first, sample, codes, slopes = ordered(indices, values, counts, back, parts, starts)
    deep = sample * felt.shape[1] + np.repeat(group, np.diff(first))
    _unit_gradients(
        y, felt.reshape(-1), n, m, first, sample, deep, codes, slopes, True, True, parts,
        encoder_gradient, dictionary_gradient, bias_gradient, active, energy,
    )  # fmt: skip


@shared
def above(indices, values, counts, level, ties, parts, part):
    """Codes above `level`, and so many of each row at it as `ties` (T,) says, in place."""
    for i in range(_part(len(counts), parts, part), _part(len(counts), parts, part + 1)):
        kept, left = 0, ties[i]
        for q in range(counts[i]):
            x = values[i, q]
            if x > level or (x == level and left > 0):
                if x == level:
                    left -= 1
                indices[i, kept], values[i, kept] = indices[i, q], x
                kept += 1
        counts[i] = kept


@shared
def near(
    y, target, w, n, m, indices, values, counts, threshold, window, parts,
    kept_indices, kept_values, kept_counts, slopes, crowd, part,
):  # fmt: skip
    """Codes above a threshold for each unit, and what those near it say of the threshold.

    Parameters
    ----------
    y, target, w, n, m
        As for :func:`accumulate`.
    indices, values, counts
        Scores z above theta - window / 2, and above `threshold`, where that is more.
    threshold, window
        theta (m,), and how wide around it scores count.
    kept_indices, kept_values, kept_counts
        Out: codes, those scores that are above max(theta, 0).
    slopes, crowd : arrays of shape (parts, m)
        Out: sums over scores near the threshold of <r, D_j>, and their number.
    """
    capacity = indices.shape[1]
    dtype = values.dtype
    zero = dtype.type(0)
    r = np.empty(n, dtype)
    row = np.empty(n, dtype)
    back = np.empty(capacity, dtype)
    close = np.empty(capacity, np.int64)
    for j in range(m):
        slopes[part, j] = zero
        crowd[part, j] = zero
    for i in range(_part(len(counts), parts, part), _part(len(counts), parts, part + 1)):
        kept, found = 0, 0
        for q in range(counts[i]):
            j, x = indices[i, q], values[i, q]
            if x > max(threshold[j], zero):
                kept_indices[i, kept], kept_values[i, kept] = j, x
                kept += 1
            if abs(x - threshold[j]) < window / 2:
                close[found] = j
                found += 1
        kept_counts[i] = kept
        if found:
            for t in range(n):
                row[t] = target[i * n + t]
            _residual(row, 0, w, n, kept_indices[i], kept_values[i], kept, r)
            _projections(y, r, 0, w, close, found, n, back)
            for q in range(found):
                slopes[part, close[q]] += back[q]
                crowd[part, close[q]] += dtype.type(1)


@shared
def adam(
    weights, slope, mean, square, keep, keep_square, rate, shrink, epsilon, scale, parts, part
):
    """One step of Adam on flat arrays, in place: moments, root and update in a single pass.

    `slope` times `scale` is the gradient, `rate` the step over the first moment's correction, and
    `shrink` 1 over that of the second.
    """
    dtype = weights.dtype
    keep, keep_square = dtype.type(keep), dtype.type(keep_square)
    rest, rest_square = dtype.type(1) - keep, dtype.type(1) - keep_square
    rate, shrink = dtype.type(rate), dtype.type(shrink)
    epsilon, scale = dtype.type(epsilon), dtype.type(scale)
    for j in range(_part(len(weights), parts, part), _part(len(weights), parts, part + 1)):
        g = slope[j] * scale
        first = keep * mean[j] + rest * g
        second = keep_square * square[j] + rest_square * g * g
        mean[j] = first
        square[j] = second
        weights[j] -= rate * first / (np.sqrt(second * shrink) + epsilon)


@shared
def corrected(z, bias, gram, m, k, signed, n_steps, step, parts, indices, values, counts, part):
    """Codes of rows with scores z = E y (T m), the k largest of z + b corrected `n_steps` times.

    x <- the k largest of x + step (z - x M) with M = D E^T, `gram` (m m): a row of it for each
    active unit in place of a product with the residual. Out as in `pursuits.subspace_pursuit`.
    """
    dtype = z.dtype
    step = dtype.type(step)
    rest, keys = np.empty(m, dtype), np.empty(k, dtype)
    codes, units = np.empty(k, dtype), np.empty(k, np.int64)
    for i in range(_part(len(counts), parts, part), _part(len(counts), parts, part + 1)):
        at = i * m
        for j in range(m):
            rest[j] = z[at + j] + bias[j]
        count = _largest(rest, 0, m, k, signed, units, keys)
        for q in range(count):
            codes[q] = rest[units[q]]
        for _ in range(n_steps):
            _left(z, at, gram, m, units, codes, count, rest)
            for j in range(m):
                rest[j] *= step
            for q in range(count):
                rest[units[q]] += codes[q]
            count = _largest(rest, 0, m, k, signed, units, keys)
            for q in range(count):
                codes[q] = rest[units[q]]
        counts[i] = _write(units, codes, count, indices[i], values[i])

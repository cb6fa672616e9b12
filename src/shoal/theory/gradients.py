"""Expected gradients of the loss in closed form, wherever codes have the true support.

All are expectations of eq. (5) of Nguyen et al. 2018, the gradient with 1[x_i != 0] in place of
the slope,

    g_i = -E[1[x_i != 0] ((W_i.y + b_i) I + y W_i^T)(y - Wx)]

**given support consistency**: x_i != 0 exactly where i is in S, the support of the true code. Atoms
are rows; W is aligned with the truth A (:func:`shoal.theory.worlds.aligned`); lambda_i is
<W_i, A_i>. Where the paper's print and the expectation differ, `printed=True` gives the former.

Given a support all of eq. (5) is quadratic in y, so its expectation needs two moments of y alone,
and these are combinations of the atoms in S with coefficients that the Gram tables W W^T and W A^T
hold: :func:`enumerated_gradient` is exact and costs k^2 a support.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shoal.generative import (
    BernoulliSupport,
    DiscreteSupport,
    GenerativeModel,
    UniformSupport,
)
from shoal.vocabulary import ArgumentError, active

__all__ = [
    "MAX_SUPPORTS",
    "alike_chances",
    "alpha_beta",
    "bias_gradient",
    "can_enumerate",
    "enumerated_gradient",
    "exact_gradient",
    "leading_gradient",
    "mixture_gradient",
    "moment_gradient",
    "oracle_gradient",
    "remainder",
    "signed_gradient",
    "triple_sums",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_SUPPORTS = 20_000  # arbitrary; a second's work
BLOCK_ENTRIES = 1 << 20  # arbitrary; 8 MiB of float64 a temporary


# --- arguments ----------------------------------------------------------------------------


def _read(world: GenerativeModel, weights: Any, bias: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """A (m, n), W (m, n) and b (m,), float64."""
    atoms = world.dictionary.astype(np.float64)
    rows = np.asarray(weights, dtype=np.float64)
    if rows.shape != atoms.shape:
        raise ArgumentError("weights", f"shape {rows.shape}", f"{atoms.shape}, as the world's")
    return atoms, rows, _biases(bias, len(rows))


def _biases(bias: ArrayLike, m: int) -> Floats:
    values = np.asarray(bias, dtype=np.float64)
    if values.shape not in ((), (m,)):
        raise ArgumentError("bias", f"shape {values.shape}", f"one number or {m}, one a unit")
    return np.broadcast_to(values, (m,))


# --- any world: supports one by one -------------------------------------------------------


def can_enumerate(world: GenerativeModel) -> bool:
    """Whether the world's supports are listed, or uniform and at most `MAX_SUPPORTS`."""
    law = world.support
    if isinstance(law, DiscreteSupport):
        return True
    return isinstance(law, UniformSupport) and math.comb(world.n_atoms, law.k) <= MAX_SUPPORTS


def _enumerate(world: GenerativeModel) -> tuple[Integers, Floats]:
    """All supports (T, k), -1 after the last unit, and their probabilities (T,)."""
    law, m = world.support, world.n_atoms
    if not can_enumerate(world):
        needed = f"at most {MAX_SUPPORTS} uniform supports or listed ones; else give `supports`"
        raise ArgumentError("world", f"{type(law).__name__} of {m} units", needed)
    if isinstance(law, DiscreteSupport):
        table = np.full((len(law.supports), max(1, law.max_size(m))), -1, dtype=np.int64)
        for row, support in zip(table, law.supports, strict=True):
            row[: len(support)] = support
        chances = law.probabilities or np.full(len(table), 1.0 / len(table))
        return table, np.asarray(chances, dtype=np.float64)
    table = np.array(list(combinations(range(m), world.k)), dtype=np.int64)
    return table, np.full(len(table), 1.0 / len(table))


def enumerated_gradient(
    world: GenerativeModel,
    weights: Any,
    bias: ArrayLike = 0.0,
    supports: Any = None,
    probabilities: Any = None,
) -> Floats:
    """g_i of eq. (5), exact over values and noise, summed over supports one by one.

    With M = E[y y^T|S], m = E[y|S], P = sum over S of W_j W_j^T and v = sum over S of b_j W_j,

        g_i = -sum over S with i in S of Pr(S) [2 M W_i - P M W_i - M P W_i
              - v <m, W_i> - m <v, W_i> + b_i (I - P) m - b_i v]

    Parameters
    ----------
    world : GenerativeModel
        The truth; kappa1, kappa2 and the noise are read from it.
    weights : array_like of shape (m, n)
        W, aligned; rows of any length.
    bias : float or array_like of shape (m,)
        b.
    supports : array_like of int, shape (T, k), optional
        Supports to sum over, -1 after the last unit: a sample's `supports` make an estimate
        with no variance from values and noise. Without it, all supports of the world.
    probabilities : array_like of shape (T,), optional
        That of each of `supports`; 1/T by default.

    Returns
    -------
    ndarray of shape (m, n)

    Raises
    ------
    ArgumentError
        If shapes don't fit, or all supports are asked for and are too many to enumerate.

    References
    ----------
    Nguyen, Wong, Hegde 2018, eq. (5), under Theorem 3.

    Examples
    --------
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> world = SparseCoding(random_dictionary(6, 4, random_state=0), sparsity=2)
    >>> enumerated_gradient(world, world.dictionary).shape
    (6, 4)
    """
    atoms, rows, b = _read(world, weights, bias)
    if supports is None:
        table, chances = _enumerate(world)
    else:
        table = np.asarray(supports, dtype=np.int64)
        if table.ndim != 2 or 0 in table.shape or table.max() >= len(rows):
            needed = f"a table (T, k) of units below {len(rows)}, -1 where short"
            raise ArgumentError("supports", f"shape {table.shape}", needed)
        even = np.full(len(table), 1.0 / len(table))
        chances = even if probabilities is None else np.asarray(probabilities, dtype=np.float64)
        if chances.shape != (len(table),):
            raise ArgumentError("probabilities", f"shape {chances.shape}", f"({len(table)},)")
    k1, k2, noise = world.kappa1, world.kappa2, world.noise**2
    m, k = len(rows), table.shape[1]
    gram, cross = rows @ rows.T, rows @ atoms.T  # (m, m): <W_i, W_j>, <W_i, A_j>
    on_rows, on_atoms = np.zeros(m * m), np.zeros(m * m)  # g = on_rows W + on_atoms A
    size = max(1, BLOCK_ENTRIES // k**2)
    for start in range(0, len(table), size):
        units, weight = table[start : start + size], chances[start : start + size]
        e = (units >= 0).astype(np.float64)  # (T, k)
        pair = e[:, :, None] * e[:, None, :]  # (T, k, k)
        i, j = units[:, :, None], units[:, None, :]
        g, h = gram[i, j] * pair, cross[i, j] * pair
        bs = b[units] * e
        code = k1**2 * pair + (k2 - k1**2) * np.eye(k) * e[:, :, None]  # E[x x^T | S]
        ch = code @ h.transpose(0, 2, 1)  # M W_i = A_S^T ch[:, i] + noise W_i
        mean = k1 * h.sum(axis=2)  # <m, W_i>
        shift = (g @ bs[:, :, None])[:, :, 0]  # <v, W_i>
        # [t, j, i]: what atom j of the support contributes to g_i
        to_atoms = ch @ g - 2 * ch + k1 * e[:, :, None] * (shift - bs)[:, None, :]
        to_rows = h @ ch + 2 * noise * (g - np.eye(k) * e[:, :, None])
        to_rows += bs[:, :, None] * (mean + bs)[:, None, :] + mean[:, :, None] * bs[:, None, :]
        to = (j * m + i)[pair > 0]
        share = np.broadcast_to(weight[:, None, None], pair.shape)[pair > 0]
        on_rows += np.bincount(to, to_rows[pair > 0] * share, minlength=m * m)
        on_atoms += np.bincount(to, to_atoms[pair > 0] * share, minlength=m * m)
    return on_rows.reshape(m, m) @ rows + on_atoms.reshape(m, m) @ atoms


# --- exchangeable supports: by moments ----------------------------------------------------


def alike_chances(world: GenerativeModel) -> tuple[float, ...] | None:
    """P[r given units in S], r = 1..4, where it is the same for all units; None elsewhere.

    >>> from shoal.generative import SparseCoding
    >>> [round(each, 4) for each in alike_chances(SparseCoding(np.eye(5), 2))]
    [0.4, 0.1, 0.0, 0.0]
    """
    law, m = world.support, world.n_atoms
    if isinstance(law, UniformSupport):
        ratios = [max(law.k - t, 0) / max(m - t, 1) for t in range(4)]
        return tuple(np.cumprod(ratios).tolist())
    if isinstance(law, BernoulliSupport) and len(set(np.atleast_1d(law.p).tolist())) == 1:
        return tuple(float(world.p[0]) ** r for r in range(1, 5))
    return None


def _partitions(letters: str) -> list[tuple[str, ...]]:
    """All set partitions of letters, each block in their order."""
    if not letters:
        return [()]
    first, rest = letters[0], _partitions(letters[1:])
    found = []
    for blocks in rest:
        found.append((first, *blocks))
        for at, block in enumerate(blocks):
            found.append((*blocks[:at], first + block, *blocks[at + 1 :]))
    return found


def _expected(chances: tuple[float, ...], letters: str, terms: str, *tables: Floats) -> Floats:
    """E of d_a d_b ... for `letters` = "ab...", times tables, summed as np.einsum's `terms` say.

    With d_a the indicator of a in S, E[d_a d_b ...] is the chance of as many units as there are
    different ones among a, b, ... That is a sum over partitions of the letters, each term with the
    indices of a block equal and the blocks free: Moebius inversion gives the weights.
    """
    source, out = terms.split("->")
    total = np.zeros((len(tables[0]),) * len(out))
    for blocks in _partitions(letters):
        weight = _moebius([len(block) for block in blocks], chances)
        if weight == 0:
            continue
        rename = {letter: block[0] for block in blocks for letter in block}
        inputs = "".join(rename.get(each, each) for each in source)
        kept = "".join(dict.fromkeys(rename[each] for each in out))
        found = weight * np.einsum(f"{inputs}->{kept}", *tables, optimize=True)
        if len(kept) < len(out):
            total[np.diag_indices(len(found))] += found
        else:
            total += found
    return total


def _moebius(sizes: list[int], chances: tuple[float, ...]) -> float:
    """The weight of a partition with blocks of these sizes."""
    weights = np.array([1.0])  # over how many different units
    for size in sizes:
        weights = np.convolve(weights, _SPLITS[size])
    return float(sum(w * chances[r - 1] for r, w in enumerate(weights) if r > 0))


# By size s and number r of parts: (-1)^(r-1) (r-1)! times the ways to split s letters into r.
_SPLITS = {
    1: np.array([0.0, 1.0]),
    2: np.array([0.0, 1.0, -1.0]),
    3: np.array([0.0, 1.0, -3.0, 2.0]),
    4: np.array([0.0, 1.0, -7.0, 12.0, -6.0]),
}


def moment_gradient(world: GenerativeModel, weights: Any, bias: ArrayLike = 0.0) -> Floats:
    """g_i of eq. (5), exact, for supports whose law is the same for all units.

    :func:`enumerated_gradient`'s sum needs of the supports only how probable it is that one to
    four given units are in S together. Where that depends on their number alone (uniform supports
    of size k, independent units of one frequency) it is a handful of products of (m, m) tables,
    whatever k is: O(m^3).

    Parameters
    ----------
    world : GenerativeModel
        Its supports are uniform, or independent with one probability.
    weights : array_like of shape (m, n)
        W, aligned; rows of any length.
    bias : float or array_like of shape (m,)
        b.

    Returns
    -------
    ndarray of shape (m, n)

    Raises
    ------
    ArgumentError
        If shapes don't fit, or the law is another.

    References
    ----------
    Nguyen, Wong, Hegde 2018, eq. (5), under Theorem 3.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, random_dictionary
    >>> world = NonnegativeSparseCoding(random_dictionary(8, 6, random_state=0), 3)
    >>> by_supports = enumerated_gradient(world, 2 * world.dictionary, -0.1)
    >>> bool(np.allclose(moment_gradient(world, 2 * world.dictionary, -0.1), by_supports))
    True
    """
    atoms, rows, b = _read(world, weights, bias)
    chances = alike_chances(world)
    if chances is None:
        found = f"{type(world.support).__name__} of {len(rows)} units"
        raise ArgumentError("world", found, "uniform supports, or independent ones all alike")
    k1, k2, noise = world.kappa1, world.kappa2, world.noise**2
    g, h = rows @ rows.T, rows @ atoms.T  # (m, m): <W_i, W_j>, <W_i, A_j>
    spread, mean = k2 - k1**2, k1**2  # E[x x^T | S] = spread on the diagonal, and mean everywhere

    def expected(letters: str, terms: str, *tables: Floats) -> Floats:
        return _expected(chances, letters, terms, *tables)

    # [i, j]: what A_j, or W_l, contributes to g_i; the letters are those of the docstring's sums.
    on_atoms = -2 * spread * expected("ij", "ij->ij", h)
    on_atoms += spread * expected("ijl", "lj,il->ij", h, g)
    on_rows = spread * expected("ijl", "lj,ij->il", h, h)
    if mean:
        ones = np.ones(len(rows))
        on_atoms -= 2 * mean * expected("ijl", "il,j->ij", h, ones)
        on_atoms += mean * expected("ijlq", "lq,il,j->ij", h, g, ones)
        on_rows += mean * expected("ijlq", "lj,iq->il", h, h)
        if b.any():
            on_atoms += k1 * expected("ijl", "il,l,j->ij", g, b, ones)
            on_atoms -= k1 * expected("ij", "i,j->ij", b, ones)
            on_rows += k1 * expected("ijl", "l,ij->il", b, h)
            on_rows += k1 * expected("ijl", "i,lj->il", b, h)
    on_rows += 2 * noise * (expected("il", "il->il", g) - chances[0] * np.eye(len(rows)))
    if b.any():
        on_rows += expected("il", "i,l->il", b, b)
    return on_rows @ rows + on_atoms @ atoms


def exact_gradient(
    world: GenerativeModel, weights: Any, bias: ArrayLike = 0.0
) -> tuple[Floats, str] | None:
    """g_i of eq. (5) without sampling, by the cheapest way there is, and that way's name.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    weights : array_like of shape (m, n)
        W, aligned; unit rows where codes have mean 0.
    bias : float or array_like of shape (m,)
        b.

    Returns
    -------
    (ndarray of shape (m, n), str), or None
        None where it takes more supports than can be listed: units of unlike frequencies whose
        codes have a mean.
    """
    if alike_chances(world) is not None:
        return moment_gradient(world, weights, bias), "moments of the supports"
    if can_enumerate(world):
        return enumerated_gradient(world, weights, bias), "all supports"
    if world.kappa1 == 0 and not np.any(bias):
        return signed_gradient(world, weights), "eq. (15), complete"
    return None


# --- closed forms -------------------------------------------------------------------------


def bias_gradient(
    world: GenerativeModel, weights: Any, bias: ArrayLike = 0.0, *, printed: bool = False
) -> Floats:
    """(g_b)_i of section 4 for mixtures: +p_i b_i; the print has -p_i b_i.

    With one unit a support and |W_i| = 1, (g_b)_i = -E[1_i W_i.(y - W_i (W_i.y + b_i))] is
    -E[1_i (W_i.y - W_i.y - b_i)] = p_i b_i. Descent on it brings the bias to 0, which the update
    b <- b/2 imitates; along the print's it would grow.

    Parameters
    ----------
    world : GenerativeModel
        A mixture: k = 1.
    weights : array_like of shape (m, n)
        W, aligned, unit rows.
    bias : float or array_like of shape (m,)
        b.
    printed : bool
        Whether to give the print.

    Returns
    -------
    ndarray of shape (m,)

    Raises
    ------
    ArgumentError
        If supports have more than one unit, or shapes don't fit.

    References
    ----------
    Nguyen, Wong, Hegde 2018, section 4, after Lemma 1.

    Examples
    --------
    >>> from shoal.generative import MixtureOfGaussians
    >>> bias_gradient(MixtureOfGaussians(np.eye(4)), np.eye(4), -0.2).tolist()
    [-0.05, -0.05, -0.05, -0.05]
    """
    _, _, b = _read(world, weights, bias)
    if world.k != 1:
        raise ArgumentError("world", f"k = {world.k}", "one unit a support")
    return (-1.0 if printed else 1.0) * world.p * b


def leading_gradient(
    world: GenerativeModel, weights: Any, bias: ArrayLike = 0.0, *, printed: bool = False
) -> Floats:
    """Eq. (16) without v: -kappa2 p_i l_i A_i + p_i (kappa2 l_i^2 + 2 kappa1 b_i l_i + b_i^2) W_i.

    Exact for supports of one unit; what more units add is v.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    weights : array_like of shape (m, n)
        W, aligned, unit rows.
    bias : float or array_like of shape (m,)
        b.
    printed : bool
        Whether to keep the p_i that the print has in 2 kappa1 p_i b_i l_i, inside a bracket that
        p_i multiplies already. With one unit a support the expectation has none.

    Returns
    -------
    ndarray of shape (m, n)

    Raises
    ------
    ArgumentError
        If shapes don't fit.

    References
    ----------
    Nguyen, Wong, Hegde 2018, eq. (16), section B.3.
    """
    atoms, rows, b = _read(world, weights, bias)
    p, along = world.p, np.sum(rows * atoms, axis=1)  # (m,): p_i and lambda_i
    spurious = p if printed else 1.0
    bracket = world.kappa2 * along**2 + 2 * world.kappa1 * spurious * b * along + b**2
    return (p * bracket)[:, None] * rows - (world.kappa2 * p * along)[:, None] * atoms


def mixture_gradient(world: GenerativeModel, weights: Any, bias: ArrayLike = 0.0) -> Floats:
    """Eq. (9) without gamma: -p_i l_i A_i + p_i (l_i + b_i)^2 W_i, exact for mixtures.

    The noise drops out, since W_i is of unit length.

    Parameters
    ----------
    world : GenerativeModel
        A mixture: k = 1 and every non-zero is 1.
    weights : array_like of shape (m, n)
        W, aligned, unit rows.
    bias : float or array_like of shape (m,)
        b.

    Returns
    -------
    ndarray of shape (m, n)

    Raises
    ------
    ArgumentError
        If the world is no mixture, or shapes don't fit.

    References
    ----------
    Nguyen, Wong, Hegde 2018, eq. (9), section B.1.

    Examples
    --------
    >>> from shoal.generative import MixtureOfGaussians
    >>> world = MixtureOfGaussians(np.eye(2))
    >>> mixture_gradient(world, [[0.6, 0.8], [0.0, 1.0]]).round(3).tolist()
    [[-0.192, 0.144], [0.0, 0.0]]
    """
    if world.k != 1 or world.kappa1 != 1 or world.kappa2 != 1:
        found = f"k = {world.k}, kappa1 = {world.kappa1:g}, kappa2 = {world.kappa2:g}"
        raise ArgumentError("world", found, "a mixture: k = kappa1 = kappa2 = 1")
    return leading_gradient(world, weights, bias)


def signed_gradient(world: GenerativeModel, weights: Any, *, printed: bool = False) -> Floats:
    """Eq. (15) for codes of mean 0 and no bias: as printed, or with the terms it drops.

    Complete, with T_jl = p_ijl (p_ij where two of them coincide, p_i where all do), it is

        g_i = -kappa2 sum_j A_j (2 p_ij <W_i, A_j> - sum_l T_jl <W_l, A_j> <W_i, W_l>)
              +kappa2 sum_l W_l sum_j T_jl <W_l, A_j> <W_i, A_j>
              +2 noise^2 sum_{l != i} p_il <W_i, W_l> W_l

    In print only j = i is left: section B.2 says that E[x_j x_l 1_i|S] is 0 unless j = l = i,
    but it is kappa2 for every j = l in S.

    Parameters
    ----------
    world : GenerativeModel
        Codes with kappa1 = 0. The paper sets kappa2 = 1; both forms are scaled by it.
    weights : array_like of shape (m, n)
        W, aligned, unit rows.
    printed : bool
        Whether to give the print, which leaves out the noise as well.

    Returns
    -------
    ndarray of shape (m, n)

    Raises
    ------
    ArgumentError
        If kappa1 is not 0, or shapes don't fit.

    References
    ----------
    Nguyen, Wong, Hegde 2018, eq. (15), section B.2.
    """
    atoms, rows, _ = _read(world, weights, 0.0)
    if world.kappa1 != 0:
        raise ArgumentError("world", f"kappa1 = {world.kappa1:g}", "codes of mean 0")
    k2, noise, p, p_ij = world.kappa2, world.noise**2, world.p, world.p_ij
    gram, cross = rows @ rows.T, rows @ atoms.T  # <W_i, W_j>, <W_i, A_j>
    if printed:
        along = np.diag(cross)
        pairs = p_ij * cross.T  # [i, j]: p_ij <A_i, W_j>
        np.fill_diagonal(pairs, 0.0)
        on_atoms = (pairs * gram).sum(axis=1) - p * along
        on_rows = along[:, None] * pairs + np.diag(p * along**2)
        return k2 * (on_rows @ rows + on_atoms[:, None] * atoms)
    on_rows = 2 * noise * (p_ij * gram - np.diag(p))
    on_atoms = -2 * k2 * p_ij * cross
    for i, triples in _triples(world):
        among = triples * cross  # [l, j]: p_ijl <W_l, A_j>
        on_rows[i] += k2 * (among @ cross[i])
        on_atoms[i] += k2 * (gram[i] @ among)
    return on_rows @ rows + on_atoms @ atoms


def _triples(world: GenerativeModel) -> Iterator[tuple[int, Floats]]:
    """(i, p_ijl as a table (m, m) over j and l) for each unit i that is ever active."""
    law, m = world.support, world.n_atoms
    every = np.arange(m)
    if isinstance(law, DiscreteSupport):
        # p_ijl of a listed law takes memory for every support and pair; this, for those with i.
        table, chances = _enumerate(world)
        member = np.zeros((len(table), m + 1))
        np.put_along_axis(member, table, 1.0, axis=1)
        member = member[:, :m]  # -1, the padding, was the last column
    for i in np.flatnonzero(world.p > 0).tolist():
        if isinstance(law, DiscreteSupport):
            has = member[:, i] > 0
            yield i, (member[has].T * chances[has]) @ member[has]
        else:
            yield i, world.p_ijl(i, every[:, None], every[None, :])


def triple_sums(world: GenerativeModel, weights: Any) -> tuple[Floats, Floats]:
    """The two sums over p_ijl of section B.3, j, l and i all different.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    weights : array_like of shape (m, n)
        W, aligned.

    Returns
    -------
    squares : ndarray of shape (m,)
        sum p_ijl <W_i, A_j> <W_i, A_l>, in alpha_i.
    mixed : ndarray of shape (m,)
        sum p_ijl <W_i, W_j> <W_j, A_l>, in beta_i; the print omits it and Claim 4 bounds it.
    """
    atoms, rows, _ = _read(world, weights, 0.0)
    gram, cross = rows @ rows.T, rows @ atoms.T
    alike = alike_chances(world)
    if alike is not None:  # the same sums, with one p_ijl for all
        own = np.diag(cross)
        away = cross - np.diag(own)
        squares = away.sum(axis=1) ** 2 - (away**2).sum(axis=1)
        apart = gram - np.diag(np.diag(gram))
        mixed = apart @ away.sum(axis=1) - (apart * away.T).sum(axis=1)
        return alike[2] * squares, alike[2] * mixed
    squares, mixed = np.zeros(len(rows)), np.zeros(len(rows))
    for i, triples in _triples(world):
        apart = np.array(triples)
        np.fill_diagonal(apart, 0.0)
        apart[i] = apart[:, i] = 0.0
        squares[i] = cross[i] @ apart @ cross[i]
        mixed[i] = gram[i] @ (apart * cross).sum(axis=1)
    return squares, mixed


def alpha_beta(
    world: GenerativeModel, weights: Any, bias: ArrayLike = 0.0, *, printed: bool = False
) -> tuple[Floats, Floats]:
    """alpha and beta of g_i = alpha_i W_i - beta_i A_i + e_i.

    alpha_i = E[1_i (W_i.y + b_i)^2]: noise^2 p_i more than printed where there is noise, which e_i
    then takes back. And

        beta_i = E[1_i (E(x_i W_i.y|S) - sum over j in S\\i of
                        <W_i, W_j> (E(x_i W_j.y|S) + b_j kappa1))]

    with E(x_i W_j.y|S) = kappa2 <W_j, A_i> + kappa1^2 sum over l in S\\i of <W_j, A_l>.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    weights : array_like of shape (m, n)
        W, aligned, unit rows.
    bias : float or array_like of shape (m,)
        b.
    printed : bool
        Whether to give the print: no noise in alpha; beta with b_i where b_j belongs, and without
        -kappa1^2 sum_{j != l != i} p_ijl <W_i, W_j> <W_j, A_l>, which the proof of Claim 4 bounds.

    Returns
    -------
    alpha, beta : ndarray of shape (m,)

    Raises
    ------
    ArgumentError
        If shapes don't fit.

    References
    ----------
    Nguyen, Wong, Hegde 2018, section B.3, before Claim 3; Rangamani et al. 2017, Lemma 5.2.
    """
    atoms, rows, b = _read(world, weights, bias)
    k1, k2, p = world.kappa1, world.kappa2, world.p
    gram, cross = rows @ rows.T, rows @ atoms.T
    along = np.diag(cross)
    others = np.array(world.p_ij)  # p_ij, 0 for j = i
    np.fill_diagonal(others, 0.0)
    squares, mixed = triple_sums(world, rows)
    reach = (others * cross).sum(axis=1)  # sum p_ij <W_i, A_j>
    alpha = k2 * (p * along**2 + (others * cross**2).sum(axis=1))
    alpha += k1**2 * (2 * along * reach + squares)
    alpha += 2 * k1 * b * (p * along + reach) + p * b**2
    own = others * gram  # p_ij <W_i, W_j>
    beta = k2 * (p * along - (own * cross.T).sum(axis=1)) + k1**2 * (reach - own @ along)
    if printed:
        return alpha, beta - k1 * b * own.sum(axis=1)
    return alpha + world.noise**2 * p, beta - k1**2 * mixed - k1 * own @ b


def remainder(
    world: GenerativeModel, weights: Any, bias: ArrayLike, gradient: Any, *, printed: bool = False
) -> Floats:
    """e_i = g_i - alpha_i W_i + beta_i A_i of a gradient (m, n): section B.3.

    Parameters
    ----------
    world, weights, bias, printed
        As for :func:`alpha_beta`.
    gradient : array_like of shape (m, n)
        g.

    Returns
    -------
    ndarray of shape (m, n)
    """
    atoms, rows, _ = _read(world, weights, bias)
    alpha, beta = alpha_beta(world, rows, bias, printed=printed)
    return np.asarray(gradient) - alpha[:, None] * rows + beta[:, None] * atoms


# --- a sample, with its true supports -----------------------------------------------------


def oracle_gradient(weights: Any, bias: ArrayLike, data: Any, true_codes: Any) -> Floats:
    """Eq. (5) on a sample, its units active where the true code is, whatever they would do.

    Parameters
    ----------
    weights : array_like of shape (m, n)
        W, aligned; rows of any length.
    bias : float or array_like of shape (m,)
        b.
    data : array_like of shape (N, n)
        y.
    true_codes : array_like of shape (N, m)
        x*; only where it is 0 matters.

    Returns
    -------
    ndarray of shape (m, n)
        The mean over the sample.

    Raises
    ------
    ArgumentError
        If shapes don't fit.

    References
    ----------
    Nguyen, Wong, Hegde 2018, eq. (5), given Theorem 3; Rangamani et al. 2017, Lemma 5.1, the proxy.

    Examples
    --------
    >>> oracle_gradient(np.eye(2), -0.5, [[2.0, 1.0]], [[2.0, 0.0]]).tolist()
    [[-1.75, -2.0], [0.0, 0.0]]
    """
    rows, samples = np.asarray(weights, dtype=np.float64), np.asarray(data)
    codes = np.asarray(true_codes)
    b = _biases(bias, len(rows))
    if samples.ndim != 2 or samples.shape[1] != rows.shape[1]:
        raise ArgumentError("data", f"shape {samples.shape}", f"(N, {rows.shape[1]})")
    if codes.shape != (len(samples), len(rows)):
        raise ArgumentError("true_codes", f"shape {codes.shape}", f"{len(samples), len(rows)}")
    total = np.zeros_like(rows)
    size = max(1, BLOCK_ENTRIES // max(rows.shape))
    for start in range(0, len(samples), size):
        y = samples[start : start + size].astype(np.float64)  # (B, n)
        on = active(codes[start : start + size])  # (B, m)
        z = np.where(on, y @ rows.T + b, 0.0)
        residual = y - z @ rows
        total -= z.T @ residual + np.where(on, residual @ rows.T, 0.0).T @ y
    return total / len(samples)

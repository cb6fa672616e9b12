"""Which atom of an estimate stands for which true atom.

A dictionary is recoverable only up to the order of its atoms and, when codes take both
signs, up to the sign of each: the operator pi of Nguyen et al. 2018, before Definition 2.
Everything here looks at directions only: cosines, so the lengths of the rows do not matter.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.diagnosis._arrays import Floats, Integers, as_matrix, check_same, unit_rows
from shoal.vocabulary import check_choice

__all__ = ["Matching", "Signs", "align", "bottleneck_match", "match"]

Signs = Literal["free", "fixed"]


class Matching(NamedTuple):
    """An assignment of the estimate's atoms to the true ones: the operator pi.

    Attributes
    ----------
    permutation : ndarray of shape (m_true,), int64
        The index of the estimate's atom that stands for each true atom; -1 where the
        estimate, having fewer atoms than the truth, has none left.
    signs : ndarray of shape (m_true,), int64
        +1 or -1: the factor that turns the estimate's atom towards the true one. All +1
        when signs are fixed, and where nothing is assigned.
    cosines : ndarray of shape (m_true,)
        The cosine of each pair *before* the sign is applied, in [-1, 1]; 0 where nothing is
        assigned or either row is zero.

    Examples
    --------
    >>> from shoal.diagnosis import match
    >>> found = match([[0.0, 2.0], [-1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
    >>> found.permutation.tolist(), found.signs.tolist(), found.cosines.tolist()
    ([1, 0], [-1, 1], [-1.0, 1.0])
    """

    permutation: Integers
    signs: Integers
    cosines: Floats


def match(estimate: Any, truth: Any, *, signs: Signs = "free") -> Matching:
    """Assign an estimate's atoms to the true atoms so that the sum of cosines is largest.

    No atom of the estimate serves two true atoms. On unit rows |u - v|^2 = 2 - 2 cos, so
    this is also the operator pi that makes the Frobenius distance |pi(W) - A| least.

    Parameters
    ----------
    estimate : array of shape (m_estimate, n)
        The dictionary found, atoms as rows, of any length. It may have more atoms than the
        truth (the rest go unused) or fewer. A zero row has cosine 0 with everything.
    truth : array of shape (m_true, n)
        The dictionary looked for.
    signs : {"free", "fixed"}
        "free" compares |cosine| (codes of both signs: sparse coding); "fixed" compares the
        cosine itself (codes that are never negative).

    Returns
    -------
    Matching
        `permutation`, `signs` and `cosines`, in the order of the true atoms.

    Raises
    ------
    ArgumentError
        If an array is not 2-d, is empty or is not finite, or if they differ in n.

    See Also
    --------
    bottleneck_match : the assignment whose worst pair is best.

    Examples
    --------
    >>> from shoal.diagnosis import match
    >>> found = match([[0.0, -2.0], [3.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
    >>> found.permutation.tolist(), found.signs.tolist(), found.cosines.tolist()
    ([1, 0], [1, -1], [1.0, -1.0])
    """
    cosines = cosine_table(*check_dictionaries(estimate, truth))
    return assign_sum(cosines, check_choice("signs", signs, ("free", "fixed")))


def bottleneck_match(estimate: Any, truth: Any, *, signs: Signs = "free") -> Matching:
    """Assign an estimate's atoms to the true atoms so that the worst pair is best.

    Definition 2 of Nguyen et al. 2018 calls W delta-close to A when *some* pi brings every
    row within delta: the least such delta is reached here. :func:`match` reaches the same
    wherever every atom is recovered; away from the truth it may trade one bad pair for a
    better sum.

    Parameters, returns and errors are those of :func:`match`.

    Examples
    --------
    The largest sum keeps the exact pair and leaves a bad one; the best worst pair gives up
    the exact one.

    >>> from shoal.diagnosis import bottleneck_match, match
    >>> truth = [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]]
    >>> estimate = [[1.0, 0.0, 0.0], [0.6, 0.0, 0.8]]
    >>> match(estimate, truth).cosines.round(2).tolist()
    [1.0, 0.36]
    >>> bottleneck_match(estimate, truth).cosines.round(2).tolist()
    [0.6, 0.6]
    """
    cosines = cosine_table(*check_dictionaries(estimate, truth))
    return assign_bottleneck(cosines, check_choice("signs", signs, ("free", "fixed")))


def align(estimate: Any, truth: Any, *, signs: Signs = "free") -> Floats:
    """The estimate's atoms in the order and with the signs of the true ones: pi(W).

    Parameters
    ----------
    estimate : array of shape (m_estimate, n)
        The dictionary found.
    truth : array of shape (m_true, n)
        The dictionary looked for.
    signs : {"free", "fixed"}
        See :func:`match`.

    Returns
    -------
    ndarray of shape (m_true, n), float64
        Row i is the estimate's atom for true atom i, at its own length; zero where the
        estimate has no atom left. Atoms of the estimate that stand for none are left out.

    Raises
    ------
    ArgumentError
        As :func:`match`.

    Examples
    --------
    >>> from shoal.diagnosis import align
    >>> align([[0.0, -2.0], [3.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]).tolist()
    [[3.0, 0.0], [0.0, 2.0]]
    """
    rows = check_dictionaries(estimate, truth)
    kind = check_choice("signs", signs, ("free", "fixed"))
    return apply_matching(rows[0], assign_sum(cosine_table(*rows), kind))


def check_dictionaries(estimate: Any, truth: Any) -> tuple[Floats, Floats]:
    """Both as matrices over the same features."""
    found, true = as_matrix("estimate", estimate), as_matrix("truth", truth)
    check_same("estimate", "features", found.shape[1], true.shape[1], "truth")
    return found, true


def cosine_table(estimate: Floats, truth: Floats) -> Floats:
    """Cosines of every true atom with every atom of the estimate, (m_true, m_estimate)."""
    return np.clip(unit_rows(truth) @ unit_rows(estimate).T, -1.0, 1.0)


def apply_matching(rows: Floats, matching: Matching) -> Floats:
    """pi applied to an estimate's rows, (m_true, n); a true atom without a partner gets 0."""
    aligned = rows[matching.permutation] * matching.signs[:, None] + 0.0  # + 0.0: no -0.0
    aligned[matching.permutation < 0] = 0.0
    return np.asarray(aligned)


def assign_sum(cosines: Floats, signs: Signs) -> Matching:
    """The assignment with the largest sum, from a table of cosines (m_true, m_estimate)."""
    from scipy.optimize import linear_sum_assignment

    true, found = linear_sum_assignment(_similarity(cosines, signs), maximize=True)
    permutation = np.full(len(cosines), -1, dtype=np.int64)
    permutation[true] = found
    return _matching(cosines, permutation, signs)


def assign_bottleneck(cosines: Floats, signs: Signs, start: Matching | None = None) -> Matching:
    """The assignment whose worst pair is best, from a table of cosines (m_true, m_estimate).

    `start` is the assignment of the largest sum, where the caller has it already.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    start = assign_sum(cosines, signs) if start is None else start
    similarity = _similarity(cosines, signs)
    # True atoms without a partner are paired with stand-ins of cosine 0 to all.
    n_true, n_found = similarity.shape
    similarity = np.pad(similarity, ((0, 0), (0, max(0, n_true - n_found))))
    # The worst pair of any assignment lies between that of the largest sum and the best a
    # row (when square: or a column) could have to itself. Once every atom is recovered the
    # two bounds meet, and there is nothing to search.
    padded = np.where(start.permutation < 0, n_found, start.permutation)
    low = similarity[np.arange(n_true), padded].min()
    high = similarity.max(axis=1).min()
    if n_true >= n_found:
        high = min(high, similarity.max(axis=0).min())
    if low >= high:
        return start
    levels = np.unique(similarity[(similarity >= low) & (similarity <= high)])
    best, first, last = padded, 0, len(levels) - 1
    while first < last:
        middle = (first + last + 1) // 2
        pairs = maximum_bipartite_matching(
            csr_array(similarity >= levels[middle]), perm_type="column"
        )
        if (pairs >= 0).all():
            best, first = pairs, middle
        else:
            last = middle - 1
    permutation = np.where(best < n_found, best, -1).astype(np.int64)
    return _matching(cosines, permutation, signs)


def _similarity(cosines: Floats, signs: Signs) -> Floats:
    return np.abs(cosines) if signs == "free" else cosines


def _matching(cosines: Floats, permutation: Integers, signs: Signs) -> Matching:
    paired = np.where(permutation < 0, 0.0, cosines[np.arange(len(cosines)), permutation])
    flips: NDArray[np.int64] = np.ones(len(cosines), dtype=np.int64)
    if signs == "free":
        flips[paired < 0] = -1
    return Matching(permutation, flips, paired)

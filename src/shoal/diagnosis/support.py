"""Whether codes fire where the true codes do, once atoms are matched.

A unit is active where its code is not 0 (`shoal.vocabulary.active`). The codes are read in
blocks of rows, so no array of their size is made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from shoal.diagnosis._arrays import (
    Integers,
    as_finite,
    check_matrix,
    check_same,
    row_blocks,
)
from shoal.diagnosis.matching import Matching
from shoal.diagnosis.scores import Recovery
from shoal.vocabulary import ArgumentError, active

__all__ = ["SupportRecovery", "support_recovery"]


@dataclass(frozen=True)
class SupportRecovery:
    """How far the supports agree; made by :func:`support_recovery`.

    Counts are over all entries of all samples (micro-averages). A unit of the code that
    stands for no true atom can only be wrong: where it fires, it counts as a false active
    unit, and its sample's support is not exact.

    Attributes
    ----------
    n_samples : int
        Samples compared.
    exact : float
        Fraction of samples whose active units are exactly those of the true code.
    signed_exact : float
        Fraction of samples where sgn(x) = sgn(x*) in every entry: the event of Nguyen et al.
        2018, Theorem 3 (i). Never above `exact`.
    precision : float
        Of the active entries of the code, the fraction active in the true code; 1 when none
        is active.
    recall : float
        Of the active entries of the true code, the fraction active in the code; 1 when none
        is active.
    f1 : float
        2 TP / (2 TP + FP + FN), the harmonic mean of the two; 1 when nothing is active in
        either.

    Examples
    --------
    >>> from shoal.diagnosis import support_recovery
    >>> found = support_recovery([[1.0, 0.0], [0.5, 2.0]], [[1.0, 0.0], [0.0, 2.0]])
    >>> found.n_samples, found.exact, found.recall
    (2, 0.5, 1.0)
    """

    n_samples: int
    exact: float
    signed_exact: float
    precision: float
    recall: float
    f1: float

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain numbers for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"Support exactly right on {self.exact:.1%} of {self.n_samples} samples, signs too on "
            f"{self.signed_exact:.1%}; over all entries precision {self.precision:.3f}, recall "
            f"{self.recall:.3f}, F1 {self.f1:.3f}."
        )


def support_recovery(
    codes: Any, true_codes: Any, matching: Matching | Recovery | None = None
) -> SupportRecovery:
    """Compare the supports and signs of codes with those of the true codes.

    Parameters
    ----------
    codes : array or scipy.sparse of shape (n_samples, m_estimate)
        The codes found.
    true_codes : array or scipy.sparse of shape (n_samples, m_true)
        The codes that made the data.
    matching : Matching or Recovery, optional
        Which unit stands for which true atom, and with which sign: what
        :func:`~shoal.diagnosis.match` or :func:`~shoal.diagnosis.recovery` returned for the
        two dictionaries. Without it the units are taken to be in order already.

    Returns
    -------
    SupportRecovery

    Raises
    ------
    ArgumentError
        If an array is not 2-d, is empty or is not finite; if the numbers of samples differ;
        if the units do not fit `matching`, or differ in number without one.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Theorem 3 (code consistency).

    Examples
    --------
    The units are in the opposite order, and the second one has the opposite sign.

    >>> import numpy as np
    >>> from shoal.diagnosis import match, support_recovery
    >>> matching = match([[0.0, -1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
    >>> true_codes = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    >>> codes = np.array([[0.0, 0.9], [-1.8, 0.0], [0.1, 2.5]])
    >>> score = support_recovery(codes, true_codes, matching)
    >>> round(score.exact, 3), round(score.precision, 3), score.recall
    (0.667, 0.75, 1.0)
    """
    found, true = check_matrix("codes", codes), check_matrix("true_codes", true_codes)
    check_same("codes", "samples", found.shape[0], true.shape[0], "true_codes")
    units, signs, spare = _units(found.shape[1], true.shape[1], matching)

    n_samples = int(true.shape[0])
    exact = signed_exact = hits = n_active = n_true = 0
    for rows in row_blocks(n_samples, max(found.shape[1], true.shape[1])):
        block = np.sign(as_finite("codes", found[rows]))  # (B, m_estimate)
        goal = np.sign(as_finite("true_codes", true[rows]))  # (B, m_true)
        n_active += int(active(block).sum())
        strays = active(block[:, spare]).any(axis=1)  # (B,)
        block = block[:, units] * signs  # (B, m_true); the sign 0 blanks what has no unit
        on, meant = active(block), active(goal)
        n_true += int(meant.sum())
        hits += int((on & meant).sum())
        exact += int(((on == meant).all(axis=1) & ~strays).sum())
        signed_exact += int(((block == goal).all(axis=1) & ~strays).sum())
    return SupportRecovery(
        n_samples=n_samples,
        exact=exact / n_samples,
        signed_exact=signed_exact / n_samples,
        precision=hits / n_active if n_active else 1.0,
        recall=hits / n_true if n_true else 1.0,
        f1=2 * hits / (n_active + n_true) if n_active + n_true else 1.0,
    )


def _units(
    n_found: int, n_true: int, matching: Matching | Recovery | None
) -> tuple[Integers, Integers, Integers]:
    """The unit for each true atom, its sign (0: it has none), and the units left over."""
    if matching is None:
        check_same("codes", "units", n_found, n_true, "true_codes (no matching was given)")
        return np.arange(n_true), np.ones(n_true, dtype=np.int64), np.arange(0)
    permutation = np.asarray(matching.permutation)
    check_same("matching", "true atoms", len(permutation), n_true, "true_codes")
    if permutation.max() >= n_found:
        raise ArgumentError(
            "matching", f"unit {permutation.max()}", f"units of codes, which has {n_found}"
        )
    signs = np.where(permutation < 0, 0, matching.signs)
    spare = np.setdiff1d(np.arange(n_found), permutation)
    return permutation, signs, spare

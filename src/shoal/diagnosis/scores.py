"""How near an estimated dictionary is to the true one, up to order and sign.

Distances follow Definition 2 of Nguyen et al. 2018; `rec@c` and the mean correlation
coefficient (MCC) are the words of the dictionary-learning and the sparse-autoencoder
literature. All of them compare directions: **both dictionaries are brought to unit rows
first** (the paper asks unit atoms of the truth, which leaves the scale to the codes).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from shoal.diagnosis._arrays import Floats, Integers, finite_or_none, unit_rows
from shoal.diagnosis.matching import (
    Matching,
    Signs,
    apply_matching,
    assign_bottleneck,
    assign_sum,
    check_dictionaries,
    cosine_table,
)
from shoal.vocabulary import check_choice, check_count, check_number

__all__ = ["Recovery", "chance_level", "recovery"]


@dataclass(frozen=True, eq=False, repr=False)
class Recovery:
    """The scores of one estimate W against the truth A; made by :func:`recovery`.

    Every array is in the order of the true atoms. A true atom that the estimate has no atom
    for (W has fewer atoms), or only a zero row, is **missing**: it counts as paired with a
    unit atom orthogonal to everything, so its cosine is 0 and its distance sqrt(2), and
    every score charges it alike. (A zero row of the truth is treated the same.)

    Attributes
    ----------
    permutation : ndarray of shape (m_true,), int64
        The estimate's atom for each true atom, -1 for none (:class:`Matching`).
    signs : ndarray of shape (m_true,), int64
        +1 or -1, applied to that atom.
    cosines : ndarray of shape (m_true,)
        Cosine after the sign is applied: the absolute one when signs are free.
    cosines_signed : ndarray of shape (m_true,)
        Cosine before the sign is applied.
    distances : ndarray of shape (m_true,)
        |pi(W)_i - A_i| on unit rows, in [0, 2]; sqrt(2 - 2 cosine).
    frobenius : float
        |pi(W) - A|_F on unit rows: the root of the sum of squared distances.
    xi : float
        |pi(W) - A| / |A|, spectral norms on unit rows; infinite if the truth is all zero.
    delta : float
        The least delta for which W is delta-close to A (Definition 2), over *all* pi. It
        equals `max_distance` once every atom is recovered, and may be less away from the
        truth, where the pi of the largest sum is not the one of the best worst pair.
    n_estimate, n_features : int
        The estimate's number of atoms, and n.
    sign_rule : {"free", "fixed"}
        What was asked for.

    Examples
    --------
    >>> from shoal.diagnosis import recovery
    >>> score = recovery([[0.0, 1.0], [0.6, 0.8]], [[1.0, 0.0], [0.0, 1.0]])
    >>> score.permutation.tolist(), score.cosines.tolist()
    ([1, 0], [0.6, 1.0])
    >>> score.recovered(0.9), score.missing(0.9).tolist()
    (0.5, [0])
    """

    permutation: Integers
    signs: Integers
    cosines: Floats
    cosines_signed: Floats
    distances: Floats
    frobenius: float
    xi: float
    delta: float
    n_estimate: int
    n_features: int
    sign_rule: Signs

    @property
    def mean_distance(self) -> float:
        """The mean of `distances`."""
        return float(self.distances.mean())

    @property
    def max_distance(self) -> float:
        """The largest of `distances`."""
        return float(self.distances.max())

    @property
    def mcc(self) -> float:
        """Mean |cosine| of the pairs; random atoms reach `mcc_chance`, not 0."""
        return float(np.abs(self.cosines_signed).mean())

    @property
    def mcc_signed(self) -> float:
        """Mean cosine before signs are applied: a flipped atom counts against."""
        return float(self.cosines_signed.mean())

    @property
    def mcc_chance(self) -> float:
        """The `mcc` of random dictionaries of these shapes: :func:`chance_level`."""
        return chance_level(
            self.n_estimate, len(self.cosines), self.n_features, signs=self.sign_rule
        )

    @property
    def mcc_corrected(self) -> float:
        """(mcc - chance) / (1 - chance): 0 for random atoms, 1 for the truth.

        NaN with one feature, where any two atoms have |cosine| 1.
        """
        chance = self.mcc_chance
        return (self.mcc - chance) / (1.0 - chance) if chance < 1.0 else float("nan")

    def recovered(self, cosine: float) -> float:
        """rec@c: the fraction of true atoms whose cosine is at least `cosine`."""
        return 1.0 - len(self.missing(cosine)) / len(self.cosines)

    def missing(self, cosine: float) -> Integers:
        """The indices of the true atoms whose cosine is below `cosine`."""
        low = check_number("cosine", cosine, low=-1.0, high=1.0)
        return np.flatnonzero(self.cosines < low)

    def is_close(self, delta: float) -> bool:
        """Whether W is delta-close to A: some pi brings every row within `delta`."""
        return self.delta <= check_number("delta", delta, low=0.0)

    def is_near(self, delta: float, xi: float) -> bool:
        """Whether W is (delta, xi)-near to A, shown by the pi of this matching.

        Definition 2: every row within `delta`, and |pi(W) - A| <= xi |A| for the same pi.
        True is a proof. False says that this pi does not show it; once every atom is
        recovered no other pi could.
        """
        rows_close = self.max_distance <= check_number("delta", delta, low=0.0)
        return rows_close and self.xi <= check_number("xi", xi, low=0.0)

    def to_dict(self, *, atoms: bool = False) -> dict[str, Any]:
        """The scores as plain numbers for JSON; with `atoms`, also those of every atom."""
        scores: dict[str, Any] = {
            "n_atoms_true": len(self.cosines),
            "n_atoms_estimate": self.n_estimate,
            "n_features": self.n_features,
            "sign_rule": self.sign_rule,
            "recovered_at_0.9": self.recovered(0.9),
            "recovered_at_0.95": self.recovered(0.95),
            "recovered_at_0.99": self.recovered(0.99),
            "mean_distance": self.mean_distance,
            "max_distance": self.max_distance,
            "frobenius": self.frobenius,
            "delta": self.delta,
            "xi": finite_or_none(self.xi),
            "mcc": self.mcc,
            "mcc_signed": self.mcc_signed,
            "mcc_chance": self.mcc_chance,
            "mcc_corrected": finite_or_none(self.mcc_corrected),
        }
        if atoms:
            scores |= {
                "permutation": self.permutation.tolist(),
                "signs": self.signs.tolist(),
                "cosines": self.cosines.tolist(),
                "distances": self.distances.tolist(),
            }
        return scores

    def __str__(self) -> str:
        m = len(self.cosines)
        found = m - len(self.missing(0.95))
        return (
            f"{found} of {m} true atoms recovered at cosine .95 or better "
            f"({self.recovered(0.9):.1%} at .9, {self.recovered(0.99):.1%} at .99), from "
            f"{self.n_estimate} atoms with signs {self.sign_rule}. Row distance "
            f"{self.mean_distance:.3g} on average and {self.max_distance:.3g} at most, so W is "
            f"{self.delta:.3g}-close; "
            f"|W - A| / |A| = {self.xi:.3g}. MCC {self.mcc:.3f}, signed {self.mcc_signed:.3f}, "
            f"corrected for chance ({self.mcc_chance:.3f}) {self.mcc_corrected:.3f}."
        )

    def __repr__(self) -> str:
        return (
            f"Recovery(m_true={len(self.cosines)}, m_estimate={self.n_estimate}, "
            f"mean_distance={self.mean_distance:.4g}, delta={self.delta:.4g}, mcc={self.mcc:.4g})"
        )


def recovery(estimate: Any, truth: Any, *, signs: Signs = "free") -> Recovery:
    """Score an estimated dictionary against the true one, up to order and sign.

    Parameters
    ----------
    estimate : array of shape (m_estimate, n)
        The dictionary found, W. Rows of any length: they are brought to unit length.
    truth : array of shape (m_true, n)
        The dictionary looked for, A; also brought to unit rows.
    signs : {"free", "fixed"}
        "free" where an atom and its negative are the same (sparse coding); "fixed" where
        they are not (mixtures of Gaussians, non-negative sparse coding).

    Returns
    -------
    Recovery

    Raises
    ------
    ArgumentError
        If an array is not 2-d, is empty or is not finite, or if they differ in n.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Definition 2 (delta-closeness, (delta, xi)-nearness).

    Examples
    --------
    >>> from shoal.diagnosis import recovery
    >>> score = recovery([[0.0, -1.0], [4.0, 3.0]], [[1.0, 0.0], [0.0, 1.0]])
    >>> score.cosines.tolist(), score.signs.tolist()
    ([0.8, 1.0], [1, -1])
    >>> score.recovered(0.9), score.missing(0.9).tolist()
    (0.5, [0])
    >>> round(score.delta, 4), score.is_close(0.7)
    (0.6325, True)
    """
    rule = check_choice("signs", signs, ("free", "fixed"))
    rows, true = check_dictionaries(estimate, truth)
    rows, true = unit_rows(rows), unit_rows(true)
    cosines = cosine_table(rows, true)
    matching = assign_sum(cosines, rule)
    bottleneck = assign_bottleneck(cosines, rule, start=matching)

    difference = _difference(rows, true, matching)
    distances = _row_lengths(*difference)
    delta = distances.max()
    if bottleneck is not matching:
        # The minimum guards against a tie broken by rounding: both are values of a valid pi.
        delta = min(delta, _row_lengths(*_difference(rows, true, bottleneck)).max())
    size = np.linalg.norm(true, 2)
    return Recovery(
        permutation=matching.permutation,
        signs=matching.signs,
        cosines=np.asarray(matching.cosines * matching.signs + 0.0),  # + 0.0: no -0.0
        cosines_signed=matching.cosines,
        distances=distances,
        frobenius=float(np.linalg.norm(distances)),
        xi=_spectral_norm(*difference) / float(size) if size > 0 else float("inf"),
        delta=float(delta),
        n_estimate=len(rows),
        n_features=rows.shape[1],
        sign_rule=rule,
    )


def chance_level(n_estimate: int, n_true: int, n_features: int, *, signs: Signs = "free") -> float:
    """The mean matched |cosine| of two unrelated random dictionaries: the zero of the MCC.

    The best assignment of random atoms is well above 0: .29 for 64 atoms of 64 features,
    .18 for 256 of 256, .36 for 256 of 64.

    Parameters
    ----------
    n_estimate, n_true, n_features : int
        The shapes of the two dictionaries, at least 1.
    signs : {"free", "fixed"}
        As in :func:`match`.

    Returns
    -------
    float
        A mean over a few Gaussian draws with a fixed seed, computed once for each shape;
        its standard error is below .01.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or `signs` is unknown.

    Examples
    --------
    >>> from shoal.diagnosis import chance_level
    >>> round(chance_level(64, 64, 64), 1)
    0.3
    """
    return _chance_level(
        check_count("n_estimate", n_estimate),
        check_count("n_true", n_true),
        check_count("n_features", n_features),
        check_choice("signs", signs, ("free", "fixed")),
    )


@lru_cache(maxsize=256)
def _chance_level(n_estimate: int, n_true: int, n_features: int, signs: Signs) -> float:
    rng = np.random.default_rng(0)
    # The mean over m_true pairs already averages, so the draws fall as the atoms grow: one
    # draw of 1024 atoms is known to a few thousandths, as are 1024 draws of one.
    draws = max(1, 2048 // n_true)
    total = 0.0
    for _ in range(draws):
        estimate = rng.standard_normal((n_estimate, n_features))
        truth = rng.standard_normal((n_true, n_features))
        matching = assign_sum(cosine_table(estimate, truth), signs)
        total += float(np.abs(matching.cosines).mean())
    return total / draws


def _difference(rows: Floats, truth: Floats, matching: Matching) -> tuple[Floats, Integers]:
    """pi(W) - A on unit rows (m, n), and for each row how many of its two atoms are absent.

    An absent (zero) atom stands as a unit atom orthogonal to everything, along an axis of its
    own: row i of the difference has, besides its n entries, `absent[i]` entries of length 1
    that no other row shares. They are counted rather than written out.
    """
    aligned = apply_matching(rows, matching)
    absent = sum((~side.any(axis=1)).astype(np.int64) for side in (aligned, truth))
    return aligned - truth, np.asarray(absent)


def _row_lengths(difference: Floats, absent: Integers) -> Floats:
    return np.hypot(np.linalg.norm(difference, axis=1), np.sqrt(absent))


def _spectral_norm(difference: Floats, absent: Integers) -> float:
    """The spectral norm of the difference with the axes of its absent atoms.

    Its Gram matrix is D D^T + diag(absent), (m, m). Rows of the same count c are rotated
    together without changing c I, so a QR leaves at most n of each of the three counts.
    """
    counts = np.unique(absent)
    factors = [np.linalg.qr(difference[absent == count], mode="r") for count in counts]
    stacked = np.vstack(factors)  # (K, n), K <= 3 n
    axes = np.repeat(counts, [len(factor) for factor in factors])  # (K,)
    gram = stacked @ stacked.T + np.diag(axes)
    return float(np.sqrt(max(0.0, np.linalg.eigvalsh(gram)[-1])))

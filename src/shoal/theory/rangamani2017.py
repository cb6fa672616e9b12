"""Rangamani et al. 2017, "Sparse coding and autoencoders": its statements, asked of a world.

Theorem 3.1 says that a layer of ReLUs finds the support of a non-negative code; Lemmas 5.1 and
5.2 and Theorem 3.2 say that the gradient of the squared loss is then small near the truth.

What the paper fixes is a hypothesis here: the bias is Theorem 3.1's own, and of any other nothing
is promised but what :func:`proof41` proves of it.

Words: their h, n and k = h^p are the world's atoms, features and largest support; m1, m2, a and b
are the first two moments and the bounds of a non-zero; mu / sqrt(n) = h^-xi is the coherence of
the truth. Their eps is *subtracted* before the ReLU. Here **`bias` is what is added, -eps, as
everywhere in shoal**, and what is called epsilon is theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from shoal.generative import (
    GenerativeModel,
    NonnegativeSparseCoding,
    Rounding,
    coherence,
    orthonormal_union,
    perturb,
    sparsity_from_power,
)
from shoal.generative._checks import as_generator
from shoal.network import ReLU, loss_and_gradient, sample_gradient
from shoal.theory.assertion import (
    Assertion,
    Check,
    at_least,
    at_most,
    between,
    share_error,
    true,
)
from shoal.theory.gradients import oracle_gradient
from shoal.theory.worlds import aligned, distances, is_signed
from shoal.vocabulary import ArgumentError, Parameters, active, check_count, check_number

__all__ = [
    "Expansion",
    "Exponents",
    "SupportBounds",
    "adverse_exponent",
    "alpha_beta",
    "chernoff_bound",
    "equations34",
    "expansion",
    "exponents",
    "failure_probability",
    "gradient_norms",
    "lemma51",
    "lemma52",
    "literal_epsilon",
    "oracle_gradient",
    "orthogonal_minimum",
    "proof41",
    "remark31",
    "separation",
    "support_bounds",
    "theorem31",
    "theorem32",
    "theorem32_worlds",
    "union_bound",
]

Floats = NDArray[np.float64]
Row = dict[str, Any]

_ENTRIES = 1 << 22  # arbitrary; 32 MiB of float64, the most that one block of samples takes

_ROUNDING = 1e-12  # of what is added up: some thousands of float64's roundings

# --- what Theorem 3.1 speaks of, as numbers --------------------------------------------------


class Exponents(NamedTuple):
    """The exponents of h that the statements compare, at this finite h."""

    p: float
    """k = h^p."""
    xi: float
    """mu / sqrt(n) = h^-xi; inf where the atoms are orthogonal."""
    nu2: float
    """The largest nu^2 that delta and xi leave room for; none is left where it is <= 0."""


def literal_epsilon(world: GenerativeModel, delta: float) -> float:
    """The bias of Theorem 3.1 as written: eps = 2 m1 k (delta + mu / sqrt(n)).

    Parameters
    ----------
    world : GenerativeModel
        The truth, with codes that are never negative.
    delta : float
        The distance of each atom to the true one, at least 0.

    Returns
    -------
    float
        eps >= 0, the number that is subtracted: a `bias` in shoal is its negative.

    Raises
    ------
    ArgumentError
        If codes of the world may be negative, or `delta` is no number >= 0.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> world = NonnegativeSparseCoding(orthonormal_union(32, 16), 2, low=1.0, high=2.0)
    >>> round(literal_epsilon(world, 0.05), 6)  # 2 * 1.5 * 2 * (0.05 + 0.25)
    1.8
    """
    return _epsilon(*_asked(world, delta))


def separation(world: GenerativeModel, delta: float) -> float:
    """a (1 - delta) over (b + 2 m1) (delta + mu / sqrt(n)) k.

    At 1 or more the proof's condition holds: an active unit stays above the bias of
    :func:`literal_epsilon` whatever the others do. Rangamani et al. 2017, Proof 4.1, the line
    that begins "For Q_i - eps >= 0, we need". inf where nothing overlaps.

    Parameters and errors are those of :func:`literal_epsilon`.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> world = NonnegativeSparseCoding(orthonormal_union(32, 16), 1, low=1.0, high=1.0)
    >>> round(separation(world, 0.0), 6)  # 1 / (3 * 0.25 * 1)
    1.333333
    """
    return _separation(*_asked(world, delta))


def exponents(world: GenerativeModel, delta: float) -> Exponents:
    """p, xi and the room for nu^2 at this h.

    Theorem 3.1 asks for *some* nu > 0 with delta = O(h^-(p + nu^2)) and p + nu^2 < xi. O(.) is
    an upper bound, so a smaller delta needs no larger nu, and the largest that fits is the
    minimum of what delta and what xi allow: min(-log_h delta, xi) - p.

    Parameters and errors are those of :func:`literal_epsilon`. All are NaN where h = 1.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> world = NonnegativeSparseCoding(orthonormal_union(512, 256), 2, low=1.0, high=1.2)
    >>> [round(each, 4) for each in exponents(world, 0.005)]
    [0.1111, 0.4444, 0.3333]
    """
    return _exponents(*_asked(world, delta))


def adverse_exponent(world: GenerativeModel) -> float:
    """h^p m1^2 / (b - a)^2, with h^p read as k: the larger, the likelier the support is found.

    The remark after Theorem 3.1; :func:`failure_probability` is exp(-2 times this). inf where
    a = b.

    Raises
    ------
    ArgumentError
        If codes of the world may be negative.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> world = NonnegativeSparseCoding(orthonormal_union(32, 16), 2, low=1.0, high=10.0)
    >>> round(adverse_exponent(world), 4)  # 2 * 5.5^2 / 81
    0.7469
    """
    _check_nonnegative(world)
    width = world.a2 - world.a1
    return float(world.k * (world.kappa1 / width) ** 2) if width else math.inf


def failure_probability(world: GenerativeModel) -> float:
    """exp(-2 k m1^2 / (b - a)^2), with h^p read as k; 0 where a = b.

    The proof says it of *one* unit outside the support. It holds of all of them at once:
    :func:`chernoff_bound` has the reason.

    Raises
    ------
    ArgumentError
        If codes of the world may be negative.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> world = NonnegativeSparseCoding(orthonormal_union(32, 16), 2, low=1.0, high=10.0)
    >>> round(failure_probability(world), 4)  # exp(-2 * 2 * 5.5^2 / 81)
    0.2245
    """
    return math.exp(-2.0 * adverse_exponent(world))


def chernoff_bound(world: GenerativeModel, delta: float, epsilon: float) -> float:
    """How likely any unit outside the support answers, at most, under a bias -epsilon.

    With s = delta + mu / sqrt(n), the last line of Proof 4.1 before the bias is put in:

        exp(-2 (eps - k m1 s)^2 / (k s^2 (b - a)^2))

    and 1 where eps <= k m1 s. With :func:`literal_epsilon` it is :func:`failure_probability`.

    The proof speaks of one unit i. **No union bound is needed for all**: by eq. (3) each Z_i is at
    most s sum_(j in S) x_j, one and the same sum for all i, and that sum is what the proof's next
    lines bound. :func:`union_bound` is what adding up would give.

    Parameters
    ----------
    world : GenerativeModel
        The truth, with codes that are never negative.
    delta : float
        The distance of each atom to the true one, at least 0.
    epsilon : float
        What is subtracted before the ReLU.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ArgumentError
        If codes of the world may be negative, or a number can't be used.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> world = NonnegativeSparseCoding(orthonormal_union(32, 16), 2, low=1.0, high=10.0)
    >>> round(chernoff_bound(world, 0.05, literal_epsilon(world, 0.05)), 4)
    0.2245
    >>> round(chernoff_bound(world, 0.05, 4.0), 4), chernoff_bound(world, 0.05, 3.0)
    (0.935, 1.0)
    """
    asked, delta, largest = _asked(world, delta)
    return _chernoff(asked, delta + largest, check_number("epsilon", epsilon))


class SupportBounds(NamedTuple):
    """What Hoeffding's inequality says of the support that ReLU(W y - eps) finds."""

    false_alarm: float
    """Most that the probability of an answer of any unit outside the support can be."""
    miss: float
    """Most that the probability of silence of one unit in the support can be."""
    exact: float
    """Least that the probability of the exact support can be: 1 - false_alarm - E|S| miss."""
    union: float
    """Most that it can fail by, were all h - E|S| silent units added up."""


def support_bounds(world: GenerativeModel, delta: float, epsilon: Any) -> SupportBounds:
    """What can be said of the support at any bias: the two halves of Proof 4.1 for one's own eps.

    Outside the support :func:`chernoff_bound`, and 0 where eps >= k b s: not even the largest
    values add up to that. Inside, a unit is above (1 - delta) x_i - s sum_(j != i) x_j: it answers
    with certainty where (1 - delta) a - (k - 1) b s > eps, and else, by Hoeffding's inequality, is
    silent with probability at most

        exp(-2 (M - eps)^2 / (((1 - delta)^2 + (k - 1) s^2) (b - a)^2)),
        M = (1 - delta) m1 - (k - 1) m1 s

    The second half is ours; the paper only asks for the certainty.

    Parameters
    ----------
    world : GenerativeModel
        The truth, with codes that are never negative, and no noise.
    delta : float
        The distance of each atom to the true one, at least 0.
    epsilon : float or array_like of shape (m,)
        What is subtracted; where units differ, the least and the largest decide.

    Returns
    -------
    SupportBounds

    Raises
    ------
    ArgumentError
        As :func:`chernoff_bound`.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> world = NonnegativeSparseCoding(orthonormal_union(512, 256), 4, low=1.0, high=1.2)
    >>> support_bounds(world, 0.0, 0.4)
    SupportBounds(false_alarm=0.0, miss=0.0, exact=1.0, union=0.0)
    >>> support_bounds(world, 0.0, 0.0).false_alarm
    1.0
    """
    world, delta, largest = _asked(world, delta)
    eps = -_bias(np.negative(np.asarray(epsilon, dtype=np.float64)), world.n_atoms)
    return _bounds(world, delta, largest, float(eps.min()), float(eps.max()))


def union_bound(world: GenerativeModel, delta: float, epsilon: float) -> float:
    """(h - E|S|) times :func:`chernoff_bound`, at most 1: what adding up all silent units gives.

    Neither the theorem nor its proof has it, and neither needs it; see :func:`chernoff_bound`,
    whose parameters and errors these are.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> world = NonnegativeSparseCoding(orthonormal_union(512, 256), 4, low=1.0, high=2.0)
    >>> at = literal_epsilon(world, 0.0)
    >>> round(union_bound(world, 0.0, at) / chernoff_bound(world, 0.0, at), 6)  # h - k
    508.0
    """
    bound = chernoff_bound(world, delta, epsilon)
    return min(1.0, (world.n_atoms - world.expected_k) * bound)


def _chernoff(world: GenerativeModel, s: float, eps: float) -> float:
    above = eps - world.k * world.kappa1 * s
    if above <= 0 or math.isinf(world.a2):
        return 1.0
    return _hoeffding(above, math.sqrt(world.k) * s * (world.a2 - world.a1))


def _hoeffding(above: float, width: float) -> float:
    """exp(-2 above^2 / width^2), `above` > 0."""
    return math.exp(-2.0 * (above / width) ** 2) if width else 0.0


def _bounds(
    world: GenerativeModel, delta: float, largest: float, low: float, high: float
) -> SupportBounds:
    """At biases from -high to -low."""
    k, a, b, m1, s = world.k, world.a1, world.a2, world.kappa1, delta + largest
    if math.isinf(b):
        return SupportBounds(1.0, 1.0, 0.0, 1.0)
    alarm = 0.0 if low >= k * b * s else _chernoff(world, s, low)
    miss = 0.0
    if not (1.0 - delta) * a - (k - 1) * b * s > high:
        above = (1.0 - delta) * m1 - (k - 1) * m1 * s - high
        spread = math.hypot(1.0 - delta, math.sqrt(k - 1) * s) * (b - a)
        miss = _hoeffding(above, spread) if above > 0 else 1.0
    missed = world.expected_k * miss
    union = min(1.0, (world.n_atoms - world.expected_k) * alarm + missed)
    return SupportBounds(alarm, miss, max(0.0, 1.0 - alarm - missed), union)


def _asked(world: GenerativeModel, delta: float) -> tuple[GenerativeModel, float, float]:
    """World, delta and coherence, checked."""
    _check_nonnegative(world)
    return world, check_number("delta", delta, low=0.0), coherence(world.dictionary)


def _check_nonnegative(world: GenerativeModel) -> None:
    if is_signed(world):
        needed = "a world whose codes are never negative: the theorem's ReLU silences others"
        raise ArgumentError("world", f"{world!r} with signed codes", needed)


def _epsilon(world: GenerativeModel, delta: float, largest: float) -> float:
    return float(2.0 * world.kappa1 * world.k * (delta + largest))


def _separation(world: GenerativeModel, delta: float, largest: float) -> float:
    cost = (world.a2 + 2.0 * world.kappa1) * (delta + largest) * world.k
    return float(world.a1 * (1.0 - delta) / cost) if cost else math.inf


def _exponents(world: GenerativeModel, delta: float, largest: float) -> Exponents:
    if world.n_atoms == 1:
        return Exponents(math.nan, math.nan, math.nan)
    p = math.log(world.k, world.n_atoms)
    xi, room = (-math.log(each, world.n_atoms) if each else math.inf for each in (largest, delta))
    return Exponents(p, xi, min(room, xi) - p)


# --- where a statement is asked --------------------------------------------------------------


class _Place(NamedTuple):
    """A world and a point near its truth."""

    world: GenerativeModel
    weights: Floats  # (m, n), in the order of the true atoms
    bias: Floats  # (m,)
    delta: float  # the largest |W_i - A_i|
    largest: float  # the coherence of the truth

    @property
    def epsilon(self) -> float:
        """The bias of Theorem 3.1."""
        return _epsilon(self.world, self.delta, self.largest)

    @property
    def rounding(self) -> float:
        """What float64 makes of sums of k overlaps that are 0."""
        world = self.world
        size = world.a2 if math.isfinite(world.a2) else math.sqrt(world.kappa2)
        return _ROUNDING * world.k * size


def _place(world: GenerativeModel, dictionary: Any, bias: Any) -> _Place:
    _check_nonnegative(world)
    truth = world.dictionary if dictionary is None else dictionary
    return _place_in_order(world, aligned(world, truth, unit=False), bias)


def _place_in_order(world: GenerativeModel, weights: Floats, bias: Any) -> _Place:
    delta = float(distances(world, weights).max())
    largest = coherence(world.dictionary)
    place = _Place(world, weights, np.zeros(len(weights)), delta, largest)
    # Where nothing overlaps eps is 0, and an overlap of 1e-17 must not be an answer.
    added = -place.epsilon - place.rounding if bias is None else bias
    return place._replace(bias=_bias(added, len(weights)))


def _bias(bias: Any, n_atoms: int) -> Floats:
    """One number a unit, (m,)."""
    needed = f"a finite number, or {n_atoms} of them: one a unit"
    try:
        numbers = np.array(bias, dtype=np.float64)
    except (TypeError, ValueError):
        raise ArgumentError("bias", repr(bias), needed) from None
    if numbers.shape not in ((), (n_atoms,)) or not np.isfinite(numbers).all():
        raise ArgumentError("bias", f"shape {numbers.shape} or a number not finite", needed)
    return np.array(np.broadcast_to(numbers, (n_atoms,)))


def _sample(world: GenerativeModel, n_samples: int, random_state: Any) -> tuple[Floats, Any]:
    """Data (N, n), float64, and where its true codes are active (N, m)."""
    sample = world.sample(n_samples, random_state)
    data = sample.data.astype(np.float64)
    if sample.data.dtype != np.float64 and not world.noise:  # its rounding is no part of the world
        data = sample.codes.astype(np.float64) @ world.dictionary.astype(np.float64)
    return data, active(sample.codes)


def _blocks(n_rows: int, entries_a_row: int) -> Iterator[slice]:
    step = max(1, _ENTRIES // max(1, entries_a_row))
    return (slice(start, start + step) for start in range(0, n_rows, step))


def _responses(weights: Floats, bias: Floats, data: Floats) -> NDArray[np.bool_]:
    """Which units ReLU(W y + b) leaves active, (N, m)."""
    on = np.empty((len(data), len(weights)), dtype=bool)
    for rows in _blocks(len(data), len(weights)):
        on[rows] = data[rows] @ weights.T + bias > 0
    return on


def _gradient(weights: Floats, bias: Floats, data: Floats) -> Floats:
    """The mean gradient of the ReLU autoencoder with respect to W, (m, n)."""
    parameters = Parameters(torch.from_numpy(weights), torch.from_numpy(bias))
    gradient = sample_gradient(parameters, torch.from_numpy(data), ReLU())
    return np.asarray(gradient.dictionary.numpy())


def _model_hypotheses(world: GenerativeModel) -> tuple[Check, ...]:
    """What section 2 asks of a world, its law of supports apart."""
    lengths = np.linalg.norm(world.dictionary.astype(np.float64), axis=1)
    return (
        at_most("true atoms have length 1: largest deviation", abs(lengths - 1.0).max(), 1e-4),
        true(
            "non-zeros lie in [a, b] with 0 < a and b finite", 0 < world.a1 <= world.a2 < math.inf
        ),
        at_most("there is no noise: its standard deviation", world.noise, 0.0),
    )


def _recovery_hypotheses(place: _Place) -> tuple[Check, ...]:
    """What Theorem 3.1 and section 2 ask for."""
    world, delta, largest = place.world, place.delta, place.largest
    _, _, nu2 = _exponents(world, delta, largest)
    room = "some nu > 0 has delta <= h^-(p + nu^2) and p + nu^2 < xi: room for nu^2"
    return (
        *_model_hypotheses(world),
        _bias_hypothesis(place),
        _above(room, nu2, 0.0, "O(.) read as <="),
        at_least(
            "a = Omega(b h^-(nu^2)), at the largest nu^2",
            world.a1,
            world.a2 * world.n_atoms**-nu2,
            "constant 1",
        ),
        at_least(
            "separation: a (1 - delta) / ((b + 2 m1) (delta + mu / sqrt n) k)",
            _separation(world, delta, largest),
            1.0,
            "what the proof uses",
        ),
    )


def _bias_hypothesis(place: _Place) -> Check:
    """Whether the bias is Theorem 3.1's own."""
    off = float(abs(-place.bias - place.epsilon).max())
    size = max(place.epsilon, place.rounding)
    relative = off / size if size and math.isfinite(size) else math.nan
    claim = "the bias is the theorem's, -2 m1 k (delta + mu / sqrt n): largest relative difference"
    # Far above the rounding of a formula, and of what is allowed for it; below any choice.
    return at_most(claim, relative if off > 2 * place.rounding else 0.0, 1e-6)


def _criticality_hypotheses(place: _Place) -> tuple[Check, ...]:
    """What Lemma 5.2 and Theorem 3.2 ask for besides."""
    p, xi, nu2 = _exponents(place.world, place.delta, place.largest)
    return (
        _above("p < min(1/2, nu^2): that minimum", min(0.5, nu2), p, "p"),
        _above("xi > 2 p: xi", xi, 2 * p, "2 p"),
        true("P[i in S] is the same for all units, P[i, j in S] for all pairs", _even(place.world)),
    )


def _above(claim: str, value: float, bound: float, note: str) -> Check:
    """`value` > `bound`, strictly. A NaN never holds."""
    return Check(claim, float(value), f"> {bound:.4g} ({note})", bool(value > bound))


def _below(claim: str, value: float, bound: float, note: str) -> Check:
    """`value` < `bound`, strictly. A NaN never holds."""
    return Check(claim, float(value), f"< {bound:.4g} ({note})", bool(value < bound))


def _even(world: GenerativeModel) -> bool:
    """Whether q1 and q2 of section 2 exist; pairs, an (m, m) table, only where units pass."""
    units = world.p
    if not np.allclose(units, units[0], rtol=1e-9, atol=0.0):
        return False
    pairs = world.p_ij[~np.eye(world.n_atoms, dtype=bool)]
    return bool(np.allclose(pairs, pairs[:1], rtol=1e-9, atol=0.0))


def _numbers(place: _Place) -> Row:
    """What all reports tell of the place."""
    p, xi, nu2 = _exponents(place.world, place.delta, place.largest)
    return {
        "h": place.world.n_atoms,
        "n": place.world.n_features,
        "k": place.world.k,
        "p": p,
        "xi": xi,
        "nu2": nu2,
        "delta": place.delta,
        "coherence": place.largest,
        "epsilon": -float(place.bias.mean()),
        "literal_epsilon": place.epsilon,
        "separation": _separation(place.world, place.delta, place.largest),
    }


# --- Theorem 3.1: the support ----------------------------------------------------------------


def theorem31(
    world: GenerativeModel,
    dictionary: Any = None,
    *,
    bias: Any = None,
    n_samples: int = 2000,
    random_state: Any = 0,
) -> Assertion:
    """Theorem 3.1: ReLU(W y - eps) is active just where the code is.

    Parameters
    ----------
    world : GenerativeModel
        The truth, with codes that are never negative.
    dictionary : array_like of shape (m, n), optional
        W, atoms as rows of any length, in any order; the truth itself by default.
    bias : float or array_like of shape (m,), optional
        What is added before the ReLU; minus :func:`literal_epsilon` by default.
    n_samples : int
        Samples on which supports are compared.
    random_state : None, int or numpy.random.Generator
        Their seed.

    Returns
    -------
    Assertion
        Measured is the share of samples whose support is found exactly. In its numbers are also
        the share of (sample, unit) pairs that are right, of active units that are missed, and of
        samples that no unit answers.

    Raises
    ------
    ArgumentError
        If codes of the world may be negative, or W or the bias don't fit it.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> world = NonnegativeSparseCoding(orthonormal_union(512, 256), 4, low=1.0, high=1.2)
    >>> theorem31(world, n_samples=100).verdict
    'confirmed'
    """
    place = _place(world, dictionary, bias)
    found = _Found.of(place, check_count("n_samples", n_samples), random_state)
    promised = 1.0 - failure_probability(world)
    hypotheses = _recovery_hypotheses(place)
    notes = ["h^p is read as k. The error is that of a share of so many samples."]
    own = _own_bounds(place)
    if not _bias_hypothesis(place).holds:
        notes.append(
            "The theorem fixes its bias, and promises nothing at this one. Its proof's steps do:"
            f" the exact support with probability >= {own.exact:.6g} (`proof41`)."
        )
    elif 2.0 * world.kappa1 >= world.a2:
        notes.append(
            "2 m1 >= b, as for every uniform law: the bias exceeds all that k overlaps can add"
            " up to, so units outside the support are silent with certainty."
        )
    return Assertion(
        name="Theorem 3.1",
        source="Rangamani et al. 2017, Theorem 3.1",
        hypotheses=hypotheses,
        promise=f"units are active just where codes are, with probability >= {promised:.6g}",
        measurements=(found.check(promised),),
        numbers={
            **_numbers(place),
            "failure": 1.0 - promised,
            "failure_added_up": min(1.0, (world.n_atoms - world.expected_k) * (1.0 - promised)),
            "adverse_exponent": adverse_exponent(world),
            **found.numbers(),
            **{f"own_{name}": value for name, value in own._asdict().items()},
            "two_m1_over_b": float(2.0 * world.kappa1 / world.a2),
        },
        notes=tuple(notes),
        remarks=(
            "The proof bounds one silent unit and the theorem speaks of all. No union bound is"
            " needed: by eq. (3) every Z_i is at most (delta + mu / sqrt n) sum_(j in S) x_j, the"
            " same sum for all i, and that sum is what the proof's next lines bound.",
        ),
    )


class _Found(NamedTuple):
    """Which units answer, and which should."""

    on: NDArray[np.bool_]  # (N, m)
    true_on: NDArray[np.bool_]  # (N, m)

    @classmethod
    def of(cls, place: _Place, n_samples: int, random_state: Any) -> _Found:
        data, true_on = _sample(place.world, n_samples, random_state)
        return cls(_responses(place.weights, place.bias, data), true_on)

    @property
    def exact(self) -> float:
        return float((self.on == self.true_on).all(axis=1).mean())

    def check(self, promised: float) -> Check:
        """The share of exact supports against what is promised."""
        n_samples = len(self.on)
        return at_least(
            f"share of {n_samples} samples whose support is exact",
            self.exact,
            promised,
            error=share_error(self.exact, n_samples),
        )

    def numbers(self) -> Row:
        missed = float((self.true_on & ~self.on).sum() / max(1, self.true_on.sum()))
        return {
            "exact_share": self.exact,
            "units_right": float((self.on == self.true_on).mean()),
            "missed_share": missed,
            "false_alarm_share": float((self.on & ~self.true_on).any(axis=1).mean()),
            "silent_share": _silent_share(self.on),
        }


def _own_bounds(place: _Place) -> SupportBounds:
    low, high = float(-place.bias.max()), float(-place.bias.min())
    return _bounds(place.world, place.delta, place.largest, low, high)


def proof41(
    world: GenerativeModel,
    dictionary: Any = None,
    *,
    bias: Any = None,
    n_samples: int = 2000,
    random_state: Any = 0,
) -> Assertion:
    """Proof 4.1 at a bias of one's own: the support is exact as often as Hoeffding says.

    Theorem 3.1 fixes its bias; the steps of its proof hold at any, see :func:`support_bounds`.
    Where they give nothing, nothing is measured.

    Parameters and errors are those of :func:`theorem31`.

    Returns
    -------
    Assertion

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> world = NonnegativeSparseCoding(orthonormal_union(512, 256), 4, low=1.0, high=1.2)
    >>> proof41(world, bias=-0.4, n_samples=100).verdict
    'confirmed'
    >>> proof41(world, bias=0.0, n_samples=100).verdict
    'open'
    """
    place = _place(world, dictionary, bias)
    found = _Found.of(place, check_count("n_samples", n_samples), random_state)
    own = _own_bounds(place)
    return Assertion(
        name="Proof 4.1",
        source="Rangamani et al. 2017, Proof 4.1, at this bias",
        hypotheses=(
            *_model_hypotheses(world),
            _above("Hoeffding's inequality says something: that probability", own.exact, 0.0, "0"),
        ),
        promise=f"units are active just where codes are, with probability >= {own.exact:.6g}",
        measurements=(found.check(own.exact),) if own.exact > 0 else (),
        numbers={
            **_numbers(place),
            **found.numbers(),
            **{f"own_{name}": value for name, value in own._asdict().items()},
        },
        notes=(
            "Outside the support the proof's last line but one, with this eps in it; inside, the"
            " same inequality for the least of x_i less its neighbours' overlaps, which is ours.",
        ),
    )


def equations34(world: GenerativeModel, dictionary: Any = None) -> Assertion:
    """Eq. (3) and (4): overlaps of W with the truth, by the distance and the coherence.

    |<W_i, A_j>| <= delta + mu / sqrt(n) for i != j, and 1 - delta <= <W_i, A_i> <= 1 + delta.

    Parameters
    ----------
    world : GenerativeModel
        The truth, with codes that are never negative.
    dictionary : array_like of shape (m, n), optional
        W, in any order; the truth itself by default.

    Returns
    -------
    Assertion

    Raises
    ------
    ArgumentError
        If codes of the world may be negative, or W doesn't fit it.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> world = NonnegativeSparseCoding(orthonormal_union(32, 16), 2, low=1.0, high=1.2)
    >>> equations34(world, perturb(world.dictionary, 0.1, random_state=0)).verdict
    'confirmed'
    """
    place = _place(world, dictionary, None)
    overlaps = place.weights @ world.dictionary.astype(np.float64).T
    own = overlaps.diagonal().copy()
    np.fill_diagonal(overlaps, 0.0)
    delta, rounding = place.delta, 1e-6  # of unit lengths in float32
    low, high = 1.0 - delta - rounding, 1.0 + delta + rounding
    bound = delta + place.largest
    return Assertion(
        name="Eq. (3), (4)",
        source="Rangamani et al. 2017, eq. (3) and (4)",
        hypotheses=_model_hypotheses(world)[:1],
        promise=f"|<W_i, A_j>| <= {bound:.4g} for i != j, and <W_i, A_i> is 1 +- {delta:.4g}",
        measurements=(
            at_most("largest |<W_i, A_j>|, i != j", abs(overlaps).max(), bound + rounding),
            between("least <W_i, A_i>", own.min(), low, high),
            between("largest <W_i, A_i>", own.max(), low, high),
        ),
        numbers={"delta": delta, "coherence": place.largest},
    )


def remark31(
    worlds: Sequence[GenerativeModel], *, n_samples: int = 2000, random_state: Any = 0
) -> Assertion:
    """The remark after Theorem 3.1: the support is found in the limit, if h^p m1^2/(b-a)^2 grows.

    Parameters
    ----------
    worlds : sequence of GenerativeModel
        At least two, their numbers of atoms growing, with codes that are never negative. W is the
        truth of each, the bias the theorem's.
    n_samples : int
        At each h.
    random_state : None, int or numpy.random.Generator
        The seed.

    Returns
    -------
    Assertion
        The numbers hold the curve: h, the exponent, the failure it promises, and the share of
        samples whose support is wrong.

    Raises
    ------
    ArgumentError
        As :func:`theorem32`.

    Examples
    --------
    >>> worlds = theorem32_worlds((32, 128), power=0.2, high=1.2)
    >>> found = remark31(worlds, n_samples=100)
    >>> [round(row["exponent"], 1) for row in found.numbers["curve"]]
    [60.5, 90.8]
    """
    _check_growing(worlds)
    rng = as_generator(random_state)
    rows: list[Row] = []
    measurements = []
    for world in worlds:
        place = _place(world, None, None)
        found = _Found.of(place, check_count("n_samples", n_samples), rng)
        exponent, failure = adverse_exponent(world), failure_probability(world)
        wrong = 1.0 - found.exact
        rows.append(
            {"h": world.n_atoms, "exponent": exponent, "failure": failure, "wrong_share": wrong}
        )
        claim = f"h = {world.n_atoms}: share of {n_samples} samples whose support is wrong"
        measurements.append(
            at_most(claim, wrong, failure, error=share_error(found.exact, len(found.on)))
        )
    places = [_place(world, None, None) for world in worlds]
    asked = [_recovery_hypotheses(place) for place in places]
    sizes = [world.n_atoms for world in worlds]
    exponents = [row["exponent"] for row in rows]
    grows = all(b > a or math.isinf(a) for a, b in pairwise(exponents))
    return Assertion(
        name="Theorem 3.1, remark",
        source="Rangamani et al. 2017, remark after Theorem 3.1",
        hypotheses=(
            *(_over(sizes, each) for each in zip(*asked, strict=True)),
            true("h^p m1^2 / (b - a)^2 grows from each h to the next", grows),
        ),
        promise="the probability of a wrong support falls: at most exp(-2 h^p m1^2 / (b - a)^2)",
        measurements=tuple(measurements),
        numbers={"curve": rows},
    )


def _silent_share(on: NDArray[np.bool_]) -> float:
    return float((~on.any(axis=1)).mean())


# --- the remark below eq. (2): orthogonal atoms ----------------------------------------------


def orthogonal_minimum(
    world: GenerativeModel, *, n_samples: int = 2000, random_state: Any = 0
) -> Assertion:
    """The remark below eq. (2): with square, orthogonal A* the loss is least at W = A*^T.

    There W y = x >= 0, so that ReLU(W y) = x and y_hat = A* x = y: the loss is 0, and less it
    can't be. The bias is 0, which is Theorem 3.1's own where delta = mu = 0. Codes need not be
    sparse.

    Parameters
    ----------
    world : GenerativeModel
        The truth, with codes that are never negative.
    n_samples : int
        Samples on which the loss is measured.
    random_state : None, int or numpy.random.Generator
        Their seed.

    Returns
    -------
    Assertion
        Measured are the loss at W = A* and its gradient, over what they are at W = 0: the mean of
        |y|^2 / 2.

    Raises
    ------
    ArgumentError
        If codes of the world may be negative.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> square = NonnegativeSparseCoding(np.eye(8), 8, low=1.0, high=2.0)
    >>> orthogonal_minimum(square, n_samples=50).verdict
    'confirmed'
    >>> union = NonnegativeSparseCoding(orthonormal_union(32, 16), 2, low=1.0, high=2.0)
    >>> orthogonal_minimum(union, n_samples=50).verdict
    'not promised'
    """
    _check_nonnegative(world)
    rows = world.dictionary.astype(np.float64)
    data, _ = _sample(world, check_count("n_samples", n_samples), random_state)
    parameters = Parameters(torch.from_numpy(rows), torch.zeros(len(rows)).double())
    loss, gradient = loss_and_gradient(parameters, torch.from_numpy(data), ReLU())
    size = float((data**2).sum(axis=1).mean()) / 2.0
    off = float(abs(rows @ rows.T - np.eye(len(rows))).max())
    allowed = max(1e-12, 1e3 * min(off, 1e-4) ** 2)  # of atoms in float32, their squared rounding
    slope = float(torch.linalg.vector_norm(gradient.dictionary, dim=1).max())
    return Assertion(
        name="Remark below eq. (2)",
        source="Rangamani et al. 2017, remark below eq. (2)",
        hypotheses=(
            true("A* is square: m = n", world.n_atoms == world.n_features),
            at_most("A* is orthogonal: largest entry of |A A^T - I|", off, 1e-4),
            at_most("there is no noise: its standard deviation", world.noise, 0.0),
        ),
        promise="the loss at W = A*^T is 0, its least value",
        measurements=(
            at_most("loss at the truth over the mean of |y|^2 / 2", float(loss) / size, allowed),
            at_most("largest gradient of a column over that", slope / size, math.sqrt(allowed)),
        ),
        numbers={"loss": float(loss), "half_mean_square": size, "gradient": slope},
        notes=("The bias is 0; the paper gives none here.",),
    )


# --- Lemma 5.1: the proxy of the gradient, `oracle_gradient` ---------------------------------


def lemma51(
    world: GenerativeModel,
    dictionary: Any = None,
    *,
    bias: Any = None,
    n_samples: int = 2000,
    random_state: Any = 0,
) -> Assertion:
    """Lemma 5.1: the proxy is near the gradient, within poly(h) exp(-k m1^2 / (2 (b - a)^2)).

    The proxy has 1[i in supp(x*)] in place of Th(.), see
    :func:`shoal.theory.gradients.oracle_gradient`: the gradient itself where supports are found.
    Both are means over the same samples, so that they differ by wrong supports alone. The
    polynomial isn't stated. One that does is twice the most that a column of either can be on one
    sample, by the norms of W and y (`polynomial` in the numbers): the columns differ on samples
    with a wrong support alone, and these are rarer than the exponential. The least degree in h
    that would do with a constant of 1 is in the numbers as well.

    Parameters and errors are those of :func:`theorem31`.

    Returns
    -------
    Assertion

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> world = NonnegativeSparseCoding(orthonormal_union(512, 256), 4, low=1.0, high=1.2)
    >>> lemma51(world, n_samples=100).numbers["exact_share"]
    1.0
    """
    place = _place(world, dictionary, bias)
    data, true_on = _sample(world, n_samples, random_state)
    gradient = _gradient(place.weights, place.bias, data)
    proxy = oracle_gradient(place.weights, place.bias, data, true_on)
    apart = float(np.linalg.norm(proxy - gradient, axis=1).max())
    norm = float(np.linalg.norm(gradient, axis=1).max())
    tail = math.exp(-0.5 * adverse_exponent(world))
    polynomial = _polynomial(place)
    # Two orders of summation: their terms are of the size m2, whatever is left of the sum.
    rounding = 1e-12 * world.kappa2
    on = _responses(place.weights, place.bias, data)
    exact = float((on == true_on).all(axis=1).mean())
    return Assertion(
        name="Lemma 5.1",
        source="Rangamani et al. 2017, Lemma 5.1",
        hypotheses=(
            *_recovery_hypotheses(place),
            true("b is at most a polynomial in h: finite", world.a2 < math.inf),
        ),
        promise=f"columns of gradient and proxy differ by at most poly(h) * {tail:.4g}",
        measurements=(
            at_most(
                "largest difference of two columns",
                apart,
                polynomial * tail + rounding,
                f"poly(h) = {polynomial:.3g}",
                error=polynomial * share_error(exact, len(data)) if apart > rounding else 0.0,
            ),
        ),
        numbers={
            **_numbers(place),
            "difference": apart,
            "gradient_norm": norm,
            "relative_difference": apart / norm if norm else (0.0 if apart == 0 else math.inf),
            "tail": tail,
            "polynomial": polynomial,
            "degree_needed": _degree(apart - rounding, tail, world.n_atoms),
            "exact_share": exact,
            "silent_share": _silent_share(on),
        },
        notes=(
            "The polynomial in h isn't stated. Read as twice the largest column that W and y"
            " allow on one sample; degree_needed is the least degree that would do, constant 1.",
        ),
        remarks=(
            "The columns differ on samples with a wrong support alone, so that exp(-2 h^p m1^2 /"
            " (b - a)^2), the fourth power of what is printed, would do as well.",
        ),
    )


def _polynomial(place: _Place) -> float:
    """Twice the most that |r_i (y - y_hat) + <W_i, y - y_hat> y| is, of either gradient.

    |y| <= Y = b min(k, sqrt(k) |A|), |r| <= |W| Y + sqrt(k) eps for biases that aren't positive.
    """
    world, k = place.world, place.world.k
    norm = float(np.linalg.norm(place.weights, 2))
    length = float(np.linalg.norm(place.weights, axis=1).max())
    truth = float(np.linalg.norm(world.dictionary.astype(np.float64), 2))
    y = world.a2 * min(k, math.sqrt(k) * truth)
    eps = float(abs(place.bias).max())
    left = y + norm * (norm * y + math.sqrt(k) * eps)
    return 2.0 * left * (2.0 * length * y + eps)


def _degree(value: float, bound: float, h: int) -> float:
    """The least d >= 0 with value <= h^d bound."""
    if value <= bound:
        return 0.0
    return math.log(value / bound, h) if bound > 0 and h > 1 else math.inf


# --- Lemma 5.2: the proxy taken apart --------------------------------------------------------


class Expansion(NamedTuple):
    """The proxy's expectation as alpha_i W_i - beta_i A_i + e_i; NaN for units never drawn."""

    alpha: Floats  # (m,)
    beta: Floats  # (m,)
    rest: Floats  # (m, n), e_i
    draws: NDArray[np.int64]  # (m,), how many of the supports hold the unit


def expansion(world: GenerativeModel, weights: Any, bias: Any, supports: Any) -> Expansion:
    """alpha, beta and e of Lemma 5.2: exact over values, averaged over the given supports.

    For a support S of size k let G = W_S A_S^T and K = W_S W_S^T, (k, k) both, C = E[x x^T] =
    m1^2 1 1^T + (m2 - m1^2) I, b the bias on S and s = m1 G 1. The proxy on S, expectation over
    the values taken, is V W_S - U A_S with

        V = G C G^T + s b^T + b s^T + b b^T
        U = 2 G C - K G C + m1 (b - K b) 1^T

    so alpha_i = P[i in S] E[V_ii | i in S] and beta_i = P[i in S] E[U_ii | i in S]; what lies off
    the diagonals is e_i. The paper at hand states the lemma without formulas; these are ours.

    Parameters
    ----------
    world : GenerativeModel
        The truth; its moments and P[i in S] are used, not its law of supports.
    weights : array_like of shape (m, n)
        W, in the order of the true atoms.
    bias : float or array_like of shape (m,)
        b = -eps, added.
    supports : array_like of int of shape (N, width)
        Draws of the law of supports, or all of its supports where they are equally likely; each
        the units it holds, then -1.

    Returns
    -------
    Expansion

    Raises
    ------
    ArgumentError
        If shapes or units don't fit the world.
    """
    truth = world.dictionary.astype(np.float64)
    rows, table = np.asarray(weights, dtype=np.float64), np.asarray(supports)
    m = len(truth)
    if rows.shape != truth.shape:
        raise ArgumentError("weights", f"shape {rows.shape}", f"{truth.shape}, as the world's")
    if table.ndim != 2 or table.dtype.kind not in "iu" or (table >= m).any():
        needed = f"an (N, width) table of units below {m}, -1 after the last"
        raise ArgumentError("supports", f"shape {table.shape} of {table.dtype}", needed)
    added = _bias(bias, m)
    before_w, before_a = sparse.csr_array((m, m)), sparse.csr_array((m, m))
    for block in _blocks(len(table), table.shape[1] * (rows.shape[1] + 4 * table.shape[1])):
        used = table[block] >= 0  # (B, k)
        units = np.where(used, table[block], 0)
        v, u = _before(world, rows[units], truth[units], added[units], used)
        pairs = used[:, :, None] & used[:, None, :]  # (B, k, k)
        i = np.broadcast_to(units[:, :, None], pairs.shape)[pairs]
        j = np.broadcast_to(units[:, None, :], pairs.shape)[pairs]
        before_w += sparse.csr_array((v[pairs], (i, j)), shape=(m, m))
        before_a += sparse.csr_array((u[pairs], (i, j)), shape=(m, m))
    draws = np.bincount(table[table >= 0], minlength=m)
    share = np.divide(world.p, draws, out=np.full(m, np.nan), where=draws > 0)
    alpha, beta = before_w.diagonal(), before_a.diagonal()
    proxy = before_w @ rows - before_a @ truth
    rest = proxy - alpha[:, None] * rows + beta[:, None] * truth
    return Expansion(share * alpha, share * beta, share[:, None] * rest, draws)


def _before(
    world: GenerativeModel, w: Floats, a: Floats, bias: Floats, used: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """V and U (B, k, k) of :func:`expansion` from the rows (B, k, n) of supports."""
    m1, m2 = world.kappa1, world.kappa2
    w, a, b = w * used[:, :, None], a * used[:, :, None], (bias * used)[:, :, None]
    cross, gram = w @ a.swapaxes(1, 2), w @ w.swapaxes(1, 2)  # G, K
    sums = cross.sum(axis=2, keepdims=True)
    moved = (m2 - m1**2) * cross + m1**2 * sums  # G C
    outer = m1 * sums @ b.swapaxes(1, 2)
    v = moved @ cross.swapaxes(1, 2) + outer + outer.swapaxes(1, 2) + b @ b.swapaxes(1, 2)
    u = 2.0 * moved - gram @ moved + m1 * (b - gram @ b)
    return v, u


def alpha_beta(
    world: GenerativeModel, weights: Any, bias: Any, supports: Any
) -> tuple[Floats, Floats]:
    """alpha (m,) and beta (m,) of Lemma 5.2; see :func:`expansion`.

    Examples
    --------
    Orthonormal atoms at the truth, without a bias: both are q1 m2, and nothing is left.

    >>> from shoal.generative import NonnegativeSparseCoding
    >>> world = NonnegativeSparseCoding(np.eye(3), 2, low=1.0, high=1.0)
    >>> alpha, beta = alpha_beta(world, np.eye(3), 0.0, [[0, 1], [0, 2], [1, 2]])
    >>> alpha.round(6).tolist(), beta.round(6).tolist()
    ([0.666667, 0.666667, 0.666667], [0.666667, 0.666667, 0.666667])
    """
    found = expansion(world, weights, bias, supports)
    return found.alpha, found.beta


def lemma52(
    world: GenerativeModel,
    dictionary: Any = None,
    *,
    bias: Any = None,
    n_samples: int = 2000,
    random_state: Any = 0,
) -> Assertion:
    """Lemma 5.2: the proxy is alpha_i W_i - beta_i A_i + e_i, with these orders of magnitude.

    beta_i = Theta(q1 m2) is read as what eq. (3) and (4) make of it here: beta_i / (q1 m2) is 1
    within a width that delta, the coherence and k give, and that goes to 0 where the hypotheses
    hold along growing h. That alpha - beta and e are o(q1 max(m1^2, m2)), with q1 = h^(p - 1),
    says how they fall along growing h, which one world can't tell: its ratios are in the numbers
    (:func:`theorem32` asks a sequence).

    Parameters and errors are those of :func:`theorem31`; `n_samples` counts supports.

    Returns
    -------
    Assertion

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union
    >>> world = NonnegativeSparseCoding(orthonormal_union(512, 256), 2, low=1.0, high=1.2)
    >>> lemma52(world).verdict
    'confirmed'
    """
    place = _place(world, dictionary, bias)
    rng, n_samples = as_generator(random_state), check_count("n_samples", n_samples, low=2)
    supports = world.support.draw(rng, n_samples, world.n_atoms)
    found = expansion(world, place.weights, place.bias, supports)
    seen = (found.draws > 0) & (world.p > 0)
    q1 = world.p[seen]
    scale = max(world.kappa1**2, world.kappa2)
    alpha, beta = (each[seen] / (q1 * world.kappa2) for each in (found.alpha, found.beta))
    apart = np.abs(found.alpha - found.beta)[seen] / (q1 * scale)
    largest_rest = np.linalg.norm(found.rest[seen], axis=1) / (q1 * scale)
    rest = _rest(place, supports) / scale
    width = _beta_width(place)
    low, high, note = 1.0 - width, 1.0 + width, "1 within what eq. (3) and (4) allow"
    return Assertion(
        name="Lemma 5.2",
        source="Rangamani et al. 2017, Lemma 5.2",
        hypotheses=(*_recovery_hypotheses(place), *_criticality_hypotheses(place)),
        promise="the proxy gradient is alpha_i W_i - beta_i A_i + e_i: alpha_i and beta_i"
        " Theta(q1 m2), their difference and e_i of lower order",
        measurements=(
            between("least beta_i / (q1 m2)", _extreme(np.min, beta), low, high, note),
            between("largest beta_i / (q1 m2)", _extreme(np.max, beta), low, high, note),
        ),
        numbers={
            **_numbers(place),
            "q1": float(world.p.mean()),
            "units_drawn": int(seen.sum()),
            "least_draws": int(found.draws.min()),
            "alpha": [_extreme(each, alpha) for each in (np.min, np.mean, np.max)],
            "beta": [_extreme(each, beta) for each in (np.min, np.mean, np.max)],
            "alpha_minus_beta": _extreme(np.max, apart),
            "e": rest,
            "e_largest": _extreme(np.max, largest_rest),
        },
        notes=(
            "alpha and beta (least, mean, largest) are over q1 m2; alpha_minus_beta (the largest)"
            " and e are over q1 max(m1^2, m2), and should fall as h grows.",
            "Expectations are exact over values and averaged over drawn supports. e is the root"
            " mean square over units, without the scatter of that average; e_largest has it, and"
            " is the larger the fewer draws a unit has.",
        ),
    )


def _beta_width(place: _Place) -> float:
    """How far from 1 beta_i / (q1 m2) can be on any support, by eq. (3) and (4).

    Of U_ii in :func:`expansion`:
    |G_ij| <= s, |G_ii - 1| <= delta, |K_ij| <= t = mu / sqrt(n) + 2 delta + delta^2 off the
    diagonal, |K_ii - 1| <= d = 2 delta + delta^2 on it.
    """
    world, delta = place.world, place.delta
    s, others = delta + place.largest, world.k - 1
    d = 2.0 * delta + delta**2
    t = place.largest + d
    c = world.kappa1**2 / world.kappa2
    on = delta + c * others * s  # |(G C)_ii / m2 - 1|
    off = s + c * (1.0 + delta + max(0, others - 1) * s)  # |(G C)_ji| / m2
    biased = world.kappa1 * place.epsilon / world.kappa2 * (d + others * t)
    # Unit atoms of float32 are so to 1e-4 at the worst.
    return 3.0 * on + d * (1.0 + on) + others * t * off + biased + 1e-3


def _rest(place: _Place, supports: NDArray[np.int64]) -> float:
    """Root mean square of |e_i| / q1, from two halves of the supports as in :func:`_norms`."""
    half = len(supports) // 2
    first, second = (
        expansion(place.world, place.weights, place.bias, part)
        for part in (supports[:half], supports[half:])
    )
    both = (first.draws > 0) & (second.draws > 0)
    if not both.any():
        return math.nan
    q1 = place.world.p[both][:, None]
    return _root_mean_product(first.rest[both] / q1, second.rest[both] / q1)


def _root_mean_product(first: Floats, second: Floats) -> float:
    """Root mean square norm of the rows of E[first] = E[second], the two independent (m, n).

    The norm of a mean over few samples is mostly their scatter. That of two independent ones is
    gone from the mean of their product.
    """
    return math.sqrt(max(0.0, float((first * second).sum(axis=1).mean())))


def _extreme(of: Callable[[Floats], Any], values: Floats) -> float:
    return float(of(values)) if len(values) else math.nan


# --- Theorem 3.2: criticality ----------------------------------------------------------------


def gradient_norms(
    world: GenerativeModel,
    dictionary: Any,
    bias: Any,
    *,
    n_samples: int = 2000,
    random_state: Any = 0,
) -> Row:
    """Norms of the columns of the sample gradient at a point, beside what they are held against.

    Parameters
    ----------
    world : GenerativeModel
        The truth, with codes that are never negative.
    dictionary : array_like of shape (m, n) or None
        W; None for the truth itself.
    bias : float, array_like of shape (m,) or None
        What is added before the ReLU; None for minus :func:`literal_epsilon`.
    n_samples : int
        At least 2.
    random_state : None, int or numpy.random.Generator
        The seed of the samples.

    Returns
    -------
    dict
        `norm` and `norm_spread` (mean and standard deviation over the columns, as in Table 1),
        `over_m2` (that mean over m2 k / h), `expected_norm` (root mean square over the columns of
        the *expected* gradient, without the scatter of samples), `ratio` (that over
        max(m1^2, m2) k / h, as in Theorem 3.2), `ratio_error` (what so few samples can take it off
        by) and `silent_share` (of samples that no unit answers).

    Raises
    ------
    ArgumentError
        As :func:`theorem31`.
    """
    return _norms(_place(world, dictionary, bias), n_samples, random_state)


def _norms(place: _Place, n_samples: int, random_state: Any) -> Row:
    world = place.world
    n_samples = check_count("n_samples", n_samples, low=2)
    data, _ = _sample(world, n_samples, random_state)
    half = n_samples // 2
    first = _gradient(place.weights, place.bias, data[:half])
    second = _gradient(place.weights, place.bias, data[half:])
    share = half / n_samples
    norms = np.linalg.norm(share * first + (1.0 - share) * second, axis=1)
    expected = _root_mean_product(first, second)
    # The root mean square scatter of the whole mean: more than so few samples take the norm off.
    error = math.sqrt(float(((first - second) ** 2).sum(axis=1).mean())) / 2.0
    q1 = world.k / world.n_atoms
    return {
        "norm": float(norms.mean()),
        "norm_spread": float(norms.std()),
        "over_m2": float(norms.mean() / (world.kappa2 * q1)),
        "expected_norm": expected,
        "ratio": expected / (max(world.kappa1**2, world.kappa2) * q1),
        "ratio_error": error / (max(world.kappa1**2, world.kappa2) * q1),
        "silent_share": _silent_share(_responses(place.weights, place.bias, data)),
    }


def theorem32(
    worlds: Sequence[GenerativeModel],
    *,
    delta: float | Callable[[GenerativeModel], float] | None = None,
    epsilon: float | Callable[[GenerativeModel], float] | None = None,
    n_samples: int = 2000,
    random_state: Any = 0,
) -> Assertion:
    """Theorem 3.2: near the truth the gradient is o(max(m1^2, m2) h^(p - 1)).

    o(.) speaks of growing h, so a sequence of worlds is asked: the norm of the expected
    gradient's columns over max(m1^2, m2) k / h must fall from the first to the last. A
    gradient that is 0 because no unit answers says nothing about the truth, so some unit must
    answer at every h.

    Parameters
    ----------
    worlds : sequence of GenerativeModel
        At least two, their numbers of atoms growing.
    delta : float, callable or None
        The distance of each atom to the true one, or a function of the world that gives it;
        1 / (2 h^(2 p)) by default, as in section 6.
    epsilon : float, callable or None
        eps, which is subtracted, or a function of the world that gives it;
        :func:`literal_epsilon` by default.
    n_samples : int
        At each h, at least 2.
    random_state : None, int or numpy.random.Generator
        The seed of directions and samples.

    Returns
    -------
    Assertion
        Each hypothesis is told once: for the first world where it fails, else for the last.
        The numbers hold the whole sweep, one row a world.

    Raises
    ------
    ArgumentError
        If there are fewer than two worlds, they don't grow, or one may have negative codes.
    """
    _check_growing(worlds)
    rng = as_generator(random_state)
    rows: list[Row] = []
    asked: list[tuple[Check, ...]] = []
    for world in worlds:
        distance = _given("delta", delta, world, 0.5 * float(world.k) ** -2)  # h^p = k
        moved = perturb(world.dictionary.astype(np.float64), distance, rng, renormalize=False)
        bias = None if epsilon is None else -_given("epsilon", epsilon, world, 0.0)
        place = _place_in_order(world, moved, bias)
        checks = (*_recovery_hypotheses(place), *_criticality_hypotheses(place))
        met = all(check.holds for check in checks)
        rows.append({**_numbers(place), **_norms(place, n_samples, rng), "hypotheses_hold": met})
        asked.append(checks)
    sizes = [world.n_atoms for world in worlds]
    widths = [(world.a2 - world.a1) / world.kappa1 for world in (worlds[0], worlds[-1])]
    ratios = [row["ratio"] for row in rows]
    reach = [row["k"] * (row["delta"] + row["coherence"]) for row in (rows[0], rows[-1])]
    silent = max(row["silent_share"] for row in rows)
    return Assertion(
        name="Theorem 3.2",
        source="Rangamani et al. 2017, Theorem 3.2",
        hypotheses=(
            *(_over(sizes, each) for each in zip(*asked, strict=True)),
            at_most(
                "exp(h^p m1^2 / (2 (b - a)^2)) is superpolynomial: (b - a) / m1 at the last h",
                widths[1],
                widths[0] * (1 + 1e-9),
                "what it is at the first: O(1)",
            ),
            _below(
                "o(.) can be seen along these h: k (delta + mu / sqrt n), which its terms are made"
                " of, at the last h",
                reach[1],
                reach[0],
                "at the first",
            ),
        ),
        promise="the gradient's columns are o(max(m1^2, m2) h^(p - 1)): over that, their norm"
        " falls as h grows",
        measurements=(
            Check(
                f"norm over max(m1^2, m2) k / h at h = {sizes[-1]}",
                ratios[-1],
                f"< {ratios[0]:.4g} (at h = {sizes[0]})",
                bool(ratios[-1] < ratios[0]),
                math.hypot(rows[0]["ratio_error"], rows[-1]["ratio_error"]),
                ratios[0] - ratios[-1],
                reading=True,  # of o(.): no finite sequence refutes it
            ),
            Check(
                "some unit answers at every h: largest share of silent samples",
                silent,
                "< 1",
                bool(silent < 1),
                reading=True,  # the paper doesn't ask for it
            ),
        ),
        numbers={"sweep": rows, "fall": ratios[-1] / ratios[0] if ratios[0] else math.nan},
        notes=(
            "The norm is the root mean square over the columns of the expected gradient; the"
            " theorem speaks of each column. One point at each h stands for the ball.",
        ),
    )


def _check_growing(worlds: Sequence[GenerativeModel]) -> None:
    if len(worlds) < 2 or any(b.n_atoms <= a.n_atoms for a, b in pairwise(worlds)):
        found = f"worlds of {', '.join(str(world.n_atoms) for world in worlds) or 'none'} atoms"
        raise ArgumentError("worlds", found, "at least two, their numbers of atoms growing")
    for world in worlds:
        _check_nonnegative(world)


def theorem32_worlds(
    sizes: Sequence[int],
    *,
    power: float = 0.1,
    low: float = 1.0,
    high: float = 1.2,
    rounding: Rounding = "ceil",
) -> list[GenerativeModel]:
    """A sequence of worlds that come to meet the hypotheses of Theorem 3.2.

    Unions of the identity and a Hadamard or random orthonormal basis in h / 2 dimensions, so that
    the coherence falls like h^(-1/2); uniform supports of h^power; values uniform on [low, high].

    Parameters
    ----------
    sizes : sequence of int
        Each h, even.
    power : float
        p, in [0, 1].
    low, high : float
        a and b.
    rounding : {"ceil", "floor", "nearest"}
        Of h^p; see :func:`shoal.generative.sparsity_from_power`.

    Returns
    -------
    list of GenerativeModel

    Raises
    ------
    ArgumentError
        If a size or another number can't be used.

    Examples
    --------
    >>> theorem32(theorem32_worlds((128, 512), power=0.05), delta=0.005).verdict
    'confirmed'
    """
    return [
        NonnegativeSparseCoding(
            orthonormal_union(h, max(1, check_count("sizes", h) // 2), random_state=0),
            sparsity_from_power(h, power, rounding=rounding),
            low=low,
            high=high,
        )
        for h in sizes
    ]


def _given(name: str, value: Any, world: GenerativeModel, default: float) -> float:
    if value is None:
        return default
    return check_number(name, value(world) if callable(value) else value, low=0.0)


def _over(sizes: Sequence[int], checks: Sequence[Check]) -> Check:
    """One check for all worlds: the first that fails, else the last."""
    failing = [index for index, check in enumerate(checks) if not check.holds]
    index = failing[0] if failing else len(checks) - 1
    check = checks[index]
    return Check(f"h = {sizes[index]}: {check.claim}", check.value, check.needed, check.holds)

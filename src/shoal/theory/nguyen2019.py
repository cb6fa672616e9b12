"""Nguyen, Wong, Hegde (2018; AISTATS 2019): definitions, theorems, claims and lemmas in numbers.

Each function takes a world whose truth is known and, where W matters, a dictionary, which is
brought into the order and signs of the true atoms first. Each returns an
:class:`~shoal.theory.assertion.Assertion`. Orders of magnitude leave constants open: in hypotheses
they are read as 1, and in what an O(.) promises as at most `CONSTANT`; the constant that would have
been needed stands beside it.

The paper writes delta for any bound on the distances |W_i - A_i|; here it is the largest of them.
Where its print and its proofs disagree, the form that the proof gives is measured, and the other's
number stands in `numbers` with a note.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from shoal.diagnosis import recovery
from shoal.generative import Constant, GenerativeModel, Sample
from shoal.network import approximate_gradient, loss, sample_gradient
from shoal.network.activations import Activation, HardThreshold, ReLU, gate_of
from shoal.network.objective import StepSums
from shoal.theory import gradients
from shoal.theory.assertion import (
    Assertion,
    Check,
    at_least,
    at_most,
    between,
    share_error,
    true,
)
from shoal.theory.worlds import WorldFacts, aligned, distances, is_mixture, is_signed
from shoal.training.constraints import UnitLength
from shoal.training.recipes import certified_step, mean_curvature
from shoal.training.rules import FixedStep
from shoal.training.schedules import Constant as Always
from shoal.training.schedules import Halving
from shoal.vocabulary import (
    ArgumentError,
    Parameters,
    active,
    check_choice,
    check_count,
    check_number,
)

__all__ = [
    "CONSTANT",
    "Consistency",
    "best_step",
    "bias_conflict",
    "bias_gradient",
    "bias_interval",
    "claim1",
    "claim2",
    "claim3",
    "claim4",
    "consistency",
    "damp",
    "definition1",
    "definition2",
    "equation4",
    "expected_gradient",
    "lemma1",
    "lemma1_interval",
    "lemma2",
    "lemma3",
    "lemma4",
    "lemma5",
    "plateau",
    "proved_interval",
    "remainder",
    "step_size",
    "theorem3",
    "theorem4",
    "updated",
]

Floats = NDArray[np.float64]

SOURCE = "Nguyen, Wong, Hegde 2018"
CONSTANT = 32.0  # our reading of O(1): some twice what Gaussian dictionaries need of Lemma 2
HIGH_PROBABILITY = 0.99  # our reading of "with high probability", as a share of samples
ROUNDING = 1e-9  # arbitrary; far above what float64 does to these sums, relative to p_i
BATCH_ENTRIES = 1 << 21  # arbitrary; 16 MiB of float64 a temporary
N_BLOCKS = 8  # arbitrary; enough for a standard error within a third or so

CONSTANT_NOTE = f"O(1) is read as at most {CONSTANT:g}; the paper names no constant."
PROBABILITY_NOTE = f"'With high probability' is read as a share of {HIGH_PROBABILITY:g} of samples."


# --- definitions --------------------------------------------------------------------------


def definition1(world: GenerativeModel) -> Assertion:
    """Unit atoms, mu-incoherence, and the norm bound |A| <= O(sqrt(m/n)) asked for with it.

    Parameters
    ----------
    world : GenerativeModel
        The truth.

    Returns
    -------
    Assertion
        Its hypotheses are the conditions; nothing is left to measure.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Definition 1, section 2.2.

    Examples
    --------
    >>> from shoal.generative import SparseCoding
    >>> definition1(SparseCoding(np.eye(4), 2)).numbers["mu"]
    0.0
    """
    facts = WorldFacts.of(world)
    bound = 2 * max(1.0, facts.spectral_bound)
    lengths = np.linalg.norm(world.dictionary.astype(np.float64), axis=1)
    return Assertion(
        "Definition 1",
        f"{SOURCE}, Definition 1, section 2.2",
        (
            at_most("| |A_i| - 1 |", float(np.abs(lengths - 1).max()), 1e-4),
            at_most("|A|, the spectral norm", facts.spectral_norm, bound, "2 max(1, sqrt(m/n))"),
        ),
        f"|<A_i, A_j>| <= mu / sqrt(n), with mu = {facts.mu:.4g}",
        numbers={
            "mu": facts.mu,
            "coherence": facts.coherence,
            "spectral_norm": facts.spectral_norm,
            "sqrt(m/n)": facts.spectral_bound,
            "constant": facts.spectral_norm / max(1.0, facts.spectral_bound),
        },
        notes=(
            "The constant of the norm bound is read as 2: unit atoms never have less than"
            " max(1, sqrt(m/n)), tight frames have just that, and Gaussian ones up to"
            " sqrt(m/n) + 1.",
        ),
    )


def definition2(
    world: GenerativeModel, dictionary: Any, delta: float | None = None, xi: float = 2.0
) -> Assertion:
    """Whether W is delta-close and (delta, xi)-near to A.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    dictionary : array_like of shape (m, n)
        W, in any order.
    delta : float, optional
        The distance allowed; 1 / log n, Theorem 3's order, by default.
    xi : float
        What |W - A| / |A| may be.

    Returns
    -------
    Assertion
        Its hypotheses are the conditions; nothing is left to measure.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Definition 2.

    Examples
    --------
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> from shoal.theory.nguyen2019 import definition2
    >>> world = SparseCoding(random_dictionary(8, 16, random_state=0), sparsity=2)
    >>> definition2(world, world.dictionary).verdict
    'promised'
    """
    facts = WorldFacts.of(world)
    allowed = _log_bound(facts) if delta is None else check_number("delta", delta, low=0.0)
    aligned(world, dictionary)
    score = recovery(dictionary, world.dictionary, signs=_signs(world))
    return Assertion(
        "Definition 2",
        f"{SOURCE}, Definition 2",
        (
            at_most("delta = max |W_i - A_i|", score.max_distance, allowed),
            at_most("xi = |W - A| / |A|, spectral", score.xi, xi),
        ),
        f"W is ({allowed:.4g}, {xi:g})-near to A",
        numbers={
            "delta": score.delta,
            "max_distance": score.max_distance,
            "mean_distance": score.mean_distance,
            "xi": score.xi,
            "frobenius": score.frobenius,
        },
    )


def _signs(world: GenerativeModel) -> Literal["free", "fixed"]:
    return "free" if is_signed(world) else "fixed"


def _log_bound(facts: WorldFacts) -> float:
    """1 / log n; below n = 3 the logarithm bounds nothing."""
    return 1 / math.log(max(facts.n_features, 3))


# --- section 3: codes ---------------------------------------------------------------------


class Consistency(NamedTuple):
    """How often a code has the signs, and the support, of the true code.

    Attributes
    ----------
    n_samples : int
        N.
    signs, supports : float
        Share of samples where sgn(x) = sgn(x*), or supp(x) = supp(x*), in every entry.
    sign_entries, support_entries : float
        Share of single entries where they agree.
    atoms : ndarray of shape (m,)
        For each unit, the share of samples where its support agrees.
    """

    n_samples: int
    signs: float
    supports: float
    sign_entries: float
    support_entries: float
    atoms: Floats


def consistency(
    world: GenerativeModel,
    dictionary: Any,
    activation: Activation,
    bias: ArrayLike = 0.0,
    n_samples: int = 10_000,
    random_state: Any = 0,
) -> Consistency:
    """Encode fresh samples, and compare signs and supports with the truth's.

    Parameters
    ----------
    world : GenerativeModel
        Where samples come from.
    dictionary : array_like of shape (m, n)
        W; aligned first.
    activation : Activation
        sigma.
    bias : float or array_like of shape (m,)
        b.
    n_samples : int
        N.
    random_state : None, int or numpy.random.Generator
        The seed.

    Returns
    -------
    Consistency

    References
    ----------
    Nguyen, Wong, Hegde 2018, Theorem 3.

    Examples
    --------
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> from shoal.network.activations import HardThreshold
    >>> from shoal.theory.nguyen2019 import consistency
    >>> world = SparseCoding(random_dictionary(8, 64, random_state=0), sparsity=1)
    >>> sigma = HardThreshold(0.5, signed=True)
    >>> agreed = consistency(world, world.dictionary, sigma, n_samples=500)
    >>> agreed.signs > 0.9
    True
    """
    parameters = _parameters(aligned(world, dictionary), bias)
    left = check_count("n_samples", n_samples)
    batch = min(left, max(1, BATCH_ENTRIES // world.n_atoms))
    counts = np.zeros(4)
    atoms = np.zeros(world.n_atoms)
    for sample in world.stream(batch, random_state):
        size = min(batch, left)
        z = _tensor(sample.data[:size]) @ parameters.dictionary.T + parameters.bias
        found, truth = np.sign(activation(z).codes.numpy()), np.sign(sample.codes[:size])
        same = found == truth
        alike = active(found) == active(truth)
        counts += same.all(axis=1).sum(), alike.all(axis=1).sum(), same.sum(), alike.sum()
        atoms += alike.sum(axis=0)
        left -= size
        if left == 0:
            break
    entries = n_samples * world.n_atoms
    shares = counts / (n_samples, n_samples, entries, entries)
    signs, supports, sign_entries, support_entries = shares.tolist()
    return Consistency(n_samples, signs, supports, sign_entries, support_entries, atoms / n_samples)


def bias_interval(world: GenerativeModel, delta: float) -> tuple[float, float]:
    """Where Theorem 3 (ii) wants every bias: [-(1-delta) a1 + a2 delta sqrt k, -2 a2 delta sqrt k].

    Parameters
    ----------
    world : GenerativeModel
        Gives a1, a2 and k.
    delta : float
        How close W is.

    Returns
    -------
    low, high : float
        The interval is empty where low > high: for a1 = a2 that is 1 - delta < 3 delta sqrt k.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Theorem 3 (ii).

    Examples
    --------
    >>> from shoal.generative import MixtureOfGaussians
    >>> [round(end, 3) for end in bias_interval(MixtureOfGaussians(np.eye(3)), 0.1)]
    [-0.8, -0.2]
    """
    d = check_number("delta", delta, low=0.0)
    spread = world.a2 * d * math.sqrt(world.k) if d > 0 else 0.0  # not inf * 0
    return -(1 - d) * world.a1 + spread, -2 * spread + 0.0  # + 0.0: no -0.0


def proved_interval(world: GenerativeModel, delta: float) -> tuple[float, float]:
    """Biases for which the lines of Theorem 3 (ii)'s proof hold, and its print too.

    They are lambda a1 - a2 sqrt(mu^2 k^2/n + k delta^2) - noise log n + b > 0 on the support, and
    a2 sqrt(mu^2 k^2/n + k delta^2) + noise log n + b <= 0 off it, with mu k/sqrt n <= delta. The
    last step of the proof sets the latter's sum equal to 2 a2 delta sqrt k, which it is only below
    if noise log n <= (2 - sqrt 2) a2 delta sqrt k.

    Parameters
    ----------
    world : GenerativeModel
        Gives a1, a2, k, n and the noise.
    delta : float
        How close W is.

    Returns
    -------
    low, high : float
        Within :func:`bias_interval`; empty where low > high.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Appendix A.2.

    Examples
    --------
    >>> from shoal.generative import MixtureOfGaussians
    >>> world = MixtureOfGaussians(np.eye(3), noise=0.1)
    >>> [round(end, 3) for end in proved_interval(world, 0.1)]
    [-0.744, -0.251]
    """
    low, high = bias_interval(world, delta)
    noise = world.noise * math.log(max(world.n_features, 3))
    reach = (world.a2 * delta * math.sqrt(2 * world.k) if delta > 0 else 0.0) + noise
    return max(low, -(1 - delta**2 / 2) * world.a1 + reach), min(high, -reach) + 0.0


Case3 = Literal["i", "ii", "iii"]


def theorem3(
    world: GenerativeModel,
    dictionary: Any,
    *,
    case: Case3 | None = None,
    bias: ArrayLike | None = None,
    n_samples: int = 10_000,
    random_state: Any = 0,
) -> Assertion:
    """Code consistency: signs or supports of the code are those of the true code.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    dictionary : array_like of shape (m, n)
        W; aligned first.
    case : {"i", "ii", "iii"}, optional
        (i) codes of either sign, hard threshold at a1/2; (ii) non-negative codes, ReLU;
        (iii) non-negative codes, hard threshold at a1/2. By default (i) or (iii), as the codes are.
    bias : float or array_like of shape (m,), optional
        0 by default in (i) and (iii). In (ii) the middle of the theorem's interval; where that is
        empty its upper end, but no lower than -a1/2.
    n_samples : int
        Samples to measure on.
    random_state : None, int or numpy.random.Generator
        Their seed.

    Returns
    -------
    Assertion

    Raises
    ------
    ArgumentError
        If an argument can't be used.

    Notes
    -----
    In (ii) and (iii) the theorem asks for mu <= delta sqrt(n) / k, which a *better* W fails: at
    delta = 0 nothing but orthogonal atoms would do. But a W that is delta-close is so for every
    larger delta, so that condition only sets the least delta to be used in all the others:
    max(max |W_i - A_i|, k mu / sqrt(n)).

    References
    ----------
    Nguyen, Wong, Hegde 2018, Theorem 3, Appendix A.

    Examples
    --------
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> from shoal.theory.nguyen2019 import theorem3
    >>> world = SparseCoding(random_dictionary(8, 16, random_state=0), sparsity=2)
    >>> theorem3(world, world.dictionary).verdict
    'not promised'
    """
    chosen = check_choice("case", case or ("i" if is_signed(world) else "iii"), ("i", "ii", "iii"))
    weights = aligned(world, dictionary)
    facts = WorldFacts.of(world)
    distance = float(distances(world, weights).max())
    hypotheses, delta = _conditions3(world, facts, distance, chosen)
    low, high = proved_interval(world, delta)
    notes = [PROBABILITY_NOTE]
    errata = []
    activation: Activation = ReLU() if chosen == "ii" else HardThreshold(facts.a1 / 2)
    b = np.zeros(1) if bias is None else np.atleast_1d(np.asarray(bias, dtype=np.float64))
    if chosen != "i":
        notes.append(
            f"delta is max(largest distance {distance:.4g}, k mu / sqrt n ="
            f" {facts.k * facts.coherence:.4g}): the least for which mu's condition can hold."
        )
    if chosen != "ii":
        hypotheses.append(at_most("|b|", float(np.abs(b).max()), 0.0))
    else:
        if bias is None and low <= high:
            b = np.array([(low + high) / 2])
            notes.append("The bias is the middle of the interval.")
        elif bias is None:
            b = np.array([max(high, -facts.a1 / 2)])
            notes.append("No bias is allowed: the greater of the upper end and -a1/2 was taken.")
        hypotheses += [
            at_most("lower end of the interval of biases", low, high, "its upper end"),
            between("least bias", float(b.min()), low, high),
            between("largest bias", float(b.max()), low, high),
        ]
        errata.append(
            "The proof ends in b <= -a2 sqrt(mu^2 k^2/n + k delta^2) - noise log n, which it sets"
            " equal to -2 a2 delta sqrt k; that is so only for noise log n <= (2 - sqrt 2) a2 delta"
            " sqrt k. The interval here is the narrower of both."
        )
    b = np.broadcast_to(b, facts.n_atoms) if len(b) == 1 else b
    found = consistency(world, weights, activation, b, n_samples, random_state)
    share = found.signs if chosen == "i" else found.supports
    needed, failure = _high_probability(facts)
    # What other atoms in general position and the noise add to z_i.
    companions = max(facts.expected_k - 1, 0.0)
    cross = math.sqrt(companions * facts.kappa2 / facts.n_features + facts.noise**2)
    margin = float(-b.max()) if chosen == "ii" else facts.a1 / 2
    what = "sgn(x) = sgn(x*)" if chosen == "i" else "supp(x) = supp(x*)"
    return Assertion(
        f"Theorem 3 ({chosen})",
        f"{SOURCE}, Theorem 3 ({chosen})",
        tuple(hypotheses),
        f"{what} with high probability",
        (
            at_least(
                f"share of samples with {what}", share, needed, error=share_error(share, n_samples)
            ),
        ),
        numbers=_plain(
            {
                "delta": delta,
                "distance": distance,
                "share": share,
                "sign_share": found.signs,
                "support_share": found.supports,
                "sign_entries": found.sign_entries,
                "support_entries": found.support_entries,
                "worst_unit": float(found.atoms.min()),
                "n_samples": n_samples,
                "noise_failure": failure,
                "bias_interval": list(bias_interval(world, delta)),
                "proved_interval": [low, high],
                "bias": [float(b.min()), float(b.max())],
                "interference": cross,
                "margin_ratio": margin / cross if cross > 0 else math.inf,
            }
        ),
        notes=tuple(notes),
        remarks=(
            "With atoms in general position what decides is margin_ratio, the threshold over"
            " sqrt((k-1) kappa2 / n + noise^2): at m = 1024 and |x| = 1 a share of .99 needs"
            " some 5.5.",
        ),
        errata=tuple(errata),
    )


def _high_probability(facts: WorldFacts) -> tuple[float, float]:
    """The share read as "with high probability", and what the noise alone may spoil of it.

    Claim 2's union bound m P[|N(0, 1)| > log n] is n^-omega(1), and yet large at small n.
    """
    log_n = math.log(max(facts.n_features, 3))
    failure = facts.n_atoms * math.erfc(log_n / math.sqrt(2)) if facts.noise > 0 else 0.0
    return max(min(HIGH_PROBABILITY, 1 - failure), 0.0), min(failure, 1.0)


def _conditions3(
    world: GenerativeModel, facts: WorldFacts, distance: float, case: str
) -> tuple[list[Check], float]:
    """Theorem 3's conditions but those on the bias, and the delta they are read at."""
    n, k = facts.n_features, facts.k
    delta = distance if case == "i" else max(distance, k * facts.coherence)
    log_n = math.log(max(n, 3))
    conditions = [
        at_most("delta", delta, _log_bound(facts), "1 / log n"),
        at_most("noise", facts.noise, 1 / math.sqrt(n), "1 / sqrt n"),
    ]
    if case == "i":
        conditions += [
            at_most("|kappa1|", abs(facts.kappa1), 0.0, "codes of mean 0"),
            at_most("mu", facts.mu, math.sqrt(n) / log_n**2, "sqrt n / log^2 n"),
            at_most("k", k, n / log_n, "n / log n"),
        ]
    else:
        mu_bound = delta * math.sqrt(n) / k + ROUNDING
        conditions += [
            true("codes are non-negative", not is_signed(world)),
            at_most("mu", facts.mu, mu_bound, "delta sqrt n / k"),
        ]
        conditions.append(at_most("k", k, 1 / delta**2 if delta > 0 else math.inf, "1 / delta^2"))
    noise = facts.noise * log_n
    if case == "i" and noise > 0:
        conditions.append(at_most("noise log n", noise, facts.a1 / 4, "a1/4, as in the proof"))
    if case == "iii":  # of which k = O(1/delta^2) and noise = O(1/sqrt n) leave the constants open
        reach = math.hypot(k * facts.coherence, distance * math.sqrt(k))
        claim = "a2 sqrt(mu^2 k^2/n + k delta^2) + noise log n"
        room = facts.a1 * (1 - distance**2) / 2
        spread = facts.a2 * reach if reach > 0 else 0.0  # not inf * 0
        conditions.append(at_most(claim, spread + noise, room, "a1/2 (1 - delta^2): the proof's"))
    return conditions, delta


def _plain(value: Any) -> Any:
    """Numbers for JSON, which has neither NaN nor infinity: None stands for these."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- appendix A: claims -------------------------------------------------------------------


def claim1(world: GenerativeModel, dictionary: Any) -> Assertion:
    """Three bounds on <W_i, A_j> for W delta-close to A.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    dictionary : array_like of shape (m, n)
        W; aligned first.

    Returns
    -------
    Assertion
        The third bound is the proof's, 2 mu^2 k/n + 2 |A|^2 delta^2, with no constant left open;
        the sum over S is the largest there is, over the k largest entries.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Claim 1, Appendix A.

    Examples
    --------
    >>> from shoal.generative import SparseCoding, perturb, random_dictionary
    >>> world = SparseCoding(random_dictionary(16, 8, random_state=0), 2)
    >>> claim1(world, perturb(world.dictionary, 0.2, random_state=1)).verdict
    'confirmed'
    """
    weights = aligned(world, dictionary)
    facts = WorldFacts.of(world)
    delta = float(distances(world, weights).max())
    atoms = world.dictionary.astype(np.float64)
    cross = weights @ atoms.T
    own = np.diag(cross).copy()
    np.fill_diagonal(cross, 0.0)
    squares = np.sort(cross**2, axis=1)[:, ::-1][:, : facts.k].sum(axis=1)
    bound = 2 * facts.coherence**2 * facts.k + 2 * (facts.spectral_norm * delta) ** 2
    lengths = np.abs(np.linalg.norm(weights, axis=1) - 1)
    return Assertion(
        "Claim 1",
        f"{SOURCE}, Claim 1, Appendix A",
        (
            at_most("| |W_i| - 1 |", float(lengths.max()), 1e-4),
            at_most("|A|", facts.spectral_norm, 2 * max(1.0, facts.spectral_bound)),
        ),
        "<W_i, A_i> >= 1 - delta^2/2, |<W_i, A_j>| <= mu/sqrt n + delta, and their squares over a"
        " support sum to O(mu^2 k/n + delta^2)",
        (
            at_least("least <W_i, A_i>", float(own.min()), 1 - delta**2 / 2 - 1e-4),
            at_most(
                "largest |<W_i, A_j>|", float(np.abs(cross).max()), facts.coherence + delta + 1e-4
            ),
            at_most(
                "largest sum of squares", float(squares.max()), bound + ROUNDING, "the proof's"
            ),
        ),
        numbers={
            "delta": delta,
            "mu": facts.mu,
            "bounds": [1 - delta**2 / 2, facts.coherence + delta, bound],
        },
        notes=("1e-4 is granted for rows that are of unit length in single precision.",),
    )


def claim2(
    world: GenerativeModel, dictionary: Any, n_samples: int = 10_000, random_state: Any = 0
) -> Assertion:
    """The noise's part of z: max_i |<W_i, eta>| <= noise log n with high probability.

    Parameters
    ----------
    world : GenerativeModel
        Gives n and the noise.
    dictionary : array_like of shape (m, n)
        W, unit rows; aligned first.
    n_samples : int
        Draws of the noise.
    random_state : None, int or numpy.random.Generator
        Their seed.

    Returns
    -------
    Assertion
        "With high probability" is read as 1 less the union bound, and at most .99.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Claim 2, Appendix A.

    Examples
    --------
    >>> from shoal.generative import MixtureOfGaussians
    >>> found = claim2(MixtureOfGaussians(np.eye(10, 400), noise=0.05), np.eye(10, 400), 1000)
    >>> found.verdict, f"{found.numbers['union_bound']:.0e}"
    ('confirmed', '2e-08')
    """
    weights = aligned(world, dictionary)
    facts = WorldFacts.of(world)
    left = check_count("n_samples", n_samples)
    bound = facts.noise * math.log(max(facts.n_features, 3))
    needed, failure = _high_probability(facts)
    rng = np.random.default_rng(random_state)
    kept = 0
    batch = max(1, BATCH_ENTRIES // max(weights.shape))
    for start in range(0, left, batch):
        size = min(batch, left - start)
        noise = facts.noise * rng.standard_normal((size, facts.n_features))
        kept += int((np.abs(noise @ weights.T).max(axis=1) <= bound).sum())
    share = kept / n_samples
    lengths = np.abs(np.linalg.norm(weights, axis=1) - 1)
    return Assertion(
        "Claim 2",
        f"{SOURCE}, Claim 2, Appendix A",
        (at_most("| |W_i| - 1 |", float(lengths.max()), 1e-4),),
        "max_i |<W_i, eta>| <= noise log n with high probability",
        (at_least("share of draws", share, needed, error=share_error(share, n_samples)),),
        numbers={"share": share, "bound": bound, "union_bound": failure},
        notes=(PROBABILITY_NOTE, "The union bound m P[|N(0, 1)| > log n] says little at small n."),
    )


# --- section 4: gradients -----------------------------------------------------------------


def _tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64))


def _parameters(weights: Floats, bias: ArrayLike) -> Parameters:
    values = np.asarray(bias, dtype=np.float64)
    if values.shape not in ((), (len(weights),)):
        needed = f"one number or {len(weights)}, one a unit"
        raise ArgumentError("bias", f"shape {values.shape}", needed)
    return Parameters(_tensor(weights), _tensor(np.broadcast_to(values, len(weights))))


def equation4(
    world: GenerativeModel,
    dictionary: Any,
    activation: Activation,
    bias: ArrayLike = 0.0,
    n_samples: int = 1000,
    random_state: Any = 0,
) -> Assertion:
    """Eq. (4) by hand, its proxy with 1[x_i != 0], and automatic differentiation: one gradient.

    Parameters
    ----------
    world : GenerativeModel
        Where samples come from.
    dictionary : array_like of shape (m, n)
        W; aligned first.
    activation : Activation
        sigma.
    bias : float or array_like of shape (m,)
        b.
    n_samples : int
        N.
    random_state : None, int or numpy.random.Generator
        The seed.

    Returns
    -------
    Assertion
        Differences are relative to the largest entry of the gradient, or, where that is nearly 0,
        to 1e-4 of its terms.

    References
    ----------
    Nguyen, Wong, Hegde 2018, eq. (4), and the proxy before eq. (5).
    """
    weights = aligned(world, dictionary)
    parameters = _parameters(weights, bias)
    data = _tensor(world.sample(n_samples, random_state).data)
    by_hand = sample_gradient(parameters, data, activation).dictionary
    proxy = approximate_gradient(parameters, data, activation).dictionary
    free = parameters.dictionary.clone().requires_grad_()
    (automatic,) = torch.autograd.grad(
        loss(parameters._replace(dictionary=free), data, activation), free
    )
    # At the truth the gradient may be 0 and all that is left rounding, of its terms' own size.
    least = 1e-4 * world.kappa2 * float(world.p.max())  # arbitrary; far above rounding
    size = max(float(by_hand.abs().max()), least)
    to_automatic = float((by_hand - automatic).abs().max()) / size
    to_proxy = float((by_hand - proxy).abs().max()) / size
    gate = gate_of(activation)
    z = data @ parameters.dictionary.T + parameters.bias
    numbers: dict[str, Any] = {"automatic": to_automatic, "proxy": to_proxy, "size": size}
    if gate is not None and gate.k is None:
        values = z.abs() if gate.signed else z
        numbers["nearest_kink"] = float((values - gate.threshold).abs().min())
    return Assertion(
        "Equation (4)",
        f"{SOURCE}, eq. (4) and the proxy before eq. (5)",
        (true("sigma passes z or 0", gate is not None, "so that its slope is 1[x != 0]"),),
        "eq. (4) is the gradient of the loss wherever it exists, and the proxy is eq. (4)",
        (
            at_most("difference from automatic differentiation", to_automatic, 1e-10),
            at_most("difference from the proxy", to_proxy, 1e-10),
        ),
        numbers=numbers,
        notes=(
            "A hard threshold makes the loss jump where a unit wakes: no gradient sees that, and"
            " finite differences across it differ.",
        ),
    )


def _exact(world: GenerativeModel, weights: Floats, bias: ArrayLike) -> tuple[Floats, str]:
    """The expected gradient, and how it was come by."""
    found = gradients.exact_gradient(world, weights, bias)
    if found is not None:
        return found
    supports = world.support.draw(np.random.default_rng(0), 20_000, world.n_atoms)
    return (
        gradients.enumerated_gradient(world, weights, bias, supports),
        f"{len(supports)} drawn supports",
    )


def _closed(
    world: GenerativeModel, weights: Floats, bias: ArrayLike, printed: bool
) -> tuple[str, Floats, bool]:
    """The paper's closed form for this world: its name, its value, whether it is to be exact."""
    if world.k == 1 and world.kappa1 == world.kappa2 == 1:
        return "(9)", gradients.mixture_gradient(world, weights, bias), True
    if world.kappa1 == 0:
        if np.any(bias):
            raise ArgumentError("bias", "another than 0", "0: section B.2 has none for these codes")
        return "(15)", gradients.signed_gradient(world, weights, printed=printed), True
    leading = gradients.leading_gradient(world, weights, bias, printed=printed)
    return "(16)", leading, world.k == 1


def expected_gradient(
    world: GenerativeModel,
    dictionary: Any,
    *,
    bias: ArrayLike = 0.0,
    activation: Activation | None = None,
    n_samples: int = 20_000,
    random_state: Any = 0,
    printed: bool = False,
) -> Assertion:
    """Eq. (9), (15) or (16), as the world is, against the gradient on a sample.

    Parameters
    ----------
    world : GenerativeModel
        The truth. Mixtures take eq. (9), codes of mean 0 eq. (15), all others eq. (16).
    dictionary : array_like of shape (m, n)
        W; aligned first.
    bias : float or array_like of shape (m,)
        b.
    activation : Activation, optional
        Hard threshold at a1/2 by default, or ReLU where there is a bias.
    n_samples : int
        N, at least 80.
    random_state : None, int or numpy.random.Generator
        The seed.
    printed : bool
        Whether to hold the sample against the formula as printed.

    Returns
    -------
    Assertion
        `numbers` has the relative errors |g - g_hat|_F / |g|_F against the sample's gradient
        ("error"), and against that with the true supports ("oracle_error").

    Notes
    -----
    The paper's g is a closed form plus gamma, what samples of another support add. On a sample
    gamma is known: the gradient less that with the true supports. Without it the closed form is to
    be within 4 standard errors; the standard error, of the norm, comes from 8 blocks of the sample.

    References
    ----------
    Nguyen, Wong, Hegde 2018, eq. (9), (15), (16).
    """
    weights = aligned(world, dictionary)
    parameters = _parameters(weights, bias)
    if activation is None:
        activation = ReLU() if np.any(bias) else HardThreshold(world.a1 / 2)
    check_count("n_samples", n_samples, low=10 * N_BLOCKS)
    name, closed, is_exact = _closed(world, weights, bias, printed)
    sample = world.sample(n_samples, random_state)
    sampled, oracle, right = [], [], []
    for rows in np.array_split(np.arange(n_samples), N_BLOCKS):
        data = sample.data[rows]
        codes, truth = _encode(parameters, data, activation), sample.codes[rows]
        sampled.append(sample_gradient(parameters, _tensor(data), activation).dictionary.numpy())
        oracle.append(gradients.oracle_gradient(weights, bias, data, truth))
        right.append((active(codes) == active(truth)).all(axis=1).mean())
    found, with_truth = np.mean(sampled, axis=0), np.mean(oracle, axis=0)
    error = float(np.sqrt(np.var(oracle, axis=0, ddof=1).sum() / N_BLOCKS))
    exact, means = _exact(world, weights, bias)
    if means.endswith("drawn supports"):
        # On the sample's own supports nothing but values and noise is left to differ.
        exact = gradients.enumerated_gradient(world, weights, bias, sample.supports)
        means = "the sample's supports"
    target = closed if is_exact else exact
    # At the truth of a mixture the gradient is 0: errors are then absolute.
    size = float(np.linalg.norm(target)) or 1.0
    tolerance = 4 * error + ROUNDING * world.kappa2 * float(np.linalg.norm(world.p))
    gamma = float(np.linalg.norm(found - with_truth))
    off = float(np.linalg.norm(target - with_truth))
    measurements = [
        at_most(f"|g - g_hat + gamma|_F, {'eq. ' + name if is_exact else means}", off, tolerance)
    ]
    facts = WorldFacts.of(world)
    p, k, m = world.p, facts.expected_k, facts.n_atoms
    numbers: dict[str, Any] = {
        "equation": name,
        "printed": printed,
        "error": float(np.linalg.norm(closed - found)) / size,
        "oracle_error": float(np.linalg.norm(closed - with_truth)) / size,
        "standard_error": error / size,
        "size": size,
        "gamma": gamma / size,
        "consistent": float(np.mean(right)),
    }
    notes = ["The gradient is exact given the true supports; gamma is what other supports add."]
    if name == "(16)":
        spread = max(facts.kappa1**2, facts.kappa2) * p * k / math.sqrt(m)
        v = np.linalg.norm(exact - closed, axis=1)
        constant = _largest(v, spread)
        measurements.append(
            at_most("constant needed in v", constant, CONSTANT, "our O(1)", reading=True)
        )
        alpha, beta = gradients.alpha_beta(world, weights, bias, printed=printed)
        e = gradients.remainder(world, weights, bias, exact, printed=printed)
        along = np.sum(weights * world.dictionary, axis=1)
        numbers |= {
            "v": _largest(v, facts.kappa2 * p),
            "v_constant": constant,
            "alpha": _largest(alpha, facts.kappa2 * p * along**2),
            "beta": _largest(beta, facts.kappa2 * p * along),
            "e": _largest(np.linalg.norm(e, axis=1), facts.kappa2 * p),
        }
        notes.append(
            "v is measured against max(kappa1^2, kappa2) p_i k / sqrt m: the print drops the p_i"
            " that Claims 3 and 4 have. alpha, beta and e are relative to their leading terms."
        )
    if printed:
        notes.append("The formula is the paper's print, misprints included.")
    return Assertion(
        "Expected gradient",
        f"{SOURCE}, eq. {name}",
        (
            at_least("share of samples with the true support", numbers["consistent"], 0.99),
            at_most(
                "| |W_i| - 1 |", float(np.abs(np.linalg.norm(weights, axis=1) - 1).max()), 1e-4
            ),
        ),
        f"eq. {name} is the expected gradient, up to gamma"
        + ("" if is_exact else " and v = O(max(kappa1^2, kappa2) k / sqrt m)"),
        tuple(measurements),
        numbers=numbers,
        notes=tuple(notes),
    )


def _encode(parameters: Parameters, data: Any, activation: Activation) -> Floats:
    z = _tensor(data) @ parameters.dictionary.T + parameters.bias
    return np.asarray(activation(z).codes.numpy())


def _largest(values: Floats, scale: Floats | float) -> float:
    """max |values| / scale over units that are ever active (scale > 0)."""
    scales = np.broadcast_to(scale, values.shape)
    used = scales > 0
    return float((np.abs(values[used]) / scales[used]).max()) if used.any() else 0.0


# --- section B.3: orders of magnitude -----------------------------------------------------


def claim3(world: GenerativeModel, dictionary: Any, bias: ArrayLike = 0.0) -> Assertion:
    """The orders of the terms of alpha_i beside its leading one.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    dictionary : array_like of shape (m, n)
        W; aligned first.
    bias : float or array_like of shape (m,)
        b.

    Returns
    -------
    Assertion
        Each measurement is the constant needed in one O(.), the largest over units; our reading is
        that `CONSTANT` will do.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Claim 3.

    Examples
    --------
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> from shoal.theory.nguyen2019 import claim3
    >>> world = SparseCoding(random_dictionary(8, 16, random_state=0), sparsity=2)
    >>> claim3(world, world.dictionary).verdict
    'confirmed'
    """
    terms = _Terms(world, dictionary)
    measured = {
        "second term, O(p_i k / m)": _largest(terms.square, terms.p * terms.k / terms.m),
        "third and sixth, O(p_i k / sqrt m)": _largest(terms.reach, terms.wide),
        "fourth, O(p_i k^2 / m)": _largest(terms.squares, terms.p * terms.k**2 / terms.m),
    }
    alpha, _ = gradients.alpha_beta(world, terms.weights, bias)
    return _orders("Claim 3", "alpha_i", terms, measured, {"alpha": _moments(alpha, terms.p)}, ())


def claim4(world: GenerativeModel, dictionary: Any, bias: ArrayLike = 0.0) -> Assertion:
    """The orders of the terms of beta_i beside its leading one.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    dictionary : array_like of shape (m, n)
        W; aligned first.
    bias : float or array_like of shape (m,)
        b.

    Returns
    -------
    Assertion
        As for :func:`claim3`.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Claim 4.

    Examples
    --------
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> from shoal.theory.nguyen2019 import claim4
    >>> world = SparseCoding(random_dictionary(8, 16, random_state=0), sparsity=2)
    >>> claim4(world, world.dictionary).verdict
    'confirmed'
    """
    terms = _Terms(world, dictionary)
    b = _parameters(terms.weights, bias).bias.numpy()
    own = terms.pairs * terms.gram
    measured = {
        "second term, O(p_i k / m)": _largest(
            (own * terms.cross.T).sum(axis=1), terms.p * terms.k / terms.m
        ),
        "third, O(p_i k / sqrt m)": _largest(terms.reach, terms.wide),
        "fourth, O(p_i k / sqrt m)": _largest(own @ np.diag(terms.cross), terms.wide),
        "fifth, O(p_i k^2 / m)": _largest(terms.mixed, terms.p * terms.k**2 / terms.m),
        "last, O(p_i k / sqrt m) max |b|": _largest(own @ b, terms.wide * np.abs(b).max()),
    }
    _, beta = gradients.alpha_beta(world, terms.weights, bias)
    _, printed = gradients.alpha_beta(world, terms.weights, bias, printed=True)
    return _orders(
        "Claim 4",
        "beta_i",
        terms,
        measured,
        {"beta": _moments(beta, terms.p), "beta_printed": _moments(printed, terms.p)},
        (
            "The list of beta's terms omits the fifth, which the claim bounds, and has b_i in the"
            " last where the sum runs over b_j.",
        ),
    )


def remainder(world: GenerativeModel, dictionary: Any, bias: ArrayLike = 0.0) -> Assertion:
    """The order of e_i = g_i - alpha_i W_i + beta_i A_i: O(max(kappa1^2, kappa2^2) p_i k / m)?

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    dictionary : array_like of shape (m, n)
        W; aligned first.
    bias : float or array_like of shape (m,)
        b.

    Returns
    -------
    Assertion
        Measured is the constant needed, the largest over units.

    Notes
    -----
    Section B.3 takes the order from Rangamani et al. 2017. For (delta, 2)-near W it is not enough:
    e_i has the terms E[1_i x_j x_l <W_i, A_l>] A_j and their like, of which

        kappa1^2 l_i sum_{j != i} p_ij (W_j - A_j)

    is left where atoms move alike. Nearness bounds |sum_j (W_j - A_j)| by sqrt m |W - A| <=
    2 sqrt m |A|, so that |e_i| may be of the order p_i k / sqrt m (`leading` in `numbers` is the
    largest norm of that sum, over p_i k/m). Lemma 4 survives: its error term is the square of
    p_i k / sqrt m over p_i. :func:`shoal.theory.sizes.remainder` shows the growth.

    References
    ----------
    Nguyen, Wong, Hegde 2018, section B.3, before Claim 3.

    Examples
    --------
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> from shoal.theory.nguyen2019 import remainder
    >>> world = SparseCoding(random_dictionary(8, 16, random_state=0), sparsity=2)
    >>> remainder(world, world.dictionary).verdict
    'holds beyond its hypotheses'
    """
    weights = aligned(world, dictionary)
    facts = WorldFacts.of(world)
    exact, means = _exact(world, weights, bias)
    e = gradients.remainder(world, weights, bias, exact)
    unit = world.p * facts.expected_k / facts.n_atoms
    scale = max(facts.kappa1**2, facts.kappa2**2) * unit
    pairs = np.array(world.p_ij)
    np.fill_diagonal(pairs, 0.0)
    away = weights - world.dictionary
    along = np.sum(weights * world.dictionary, axis=1)
    leading = np.linalg.norm(facts.kappa1**2 * along[:, None] * (pairs @ away), axis=1)
    found = np.linalg.norm(e, axis=1)
    xi = float(np.linalg.norm(away, 2)) / facts.spectral_norm
    return Assertion(
        "Remainder e_i",
        f"{SOURCE}, section B.3",
        (
            true("codes have a mean", facts.kappa1 != 0, "else section B.2 is about them"),
            at_most("noise", facts.noise, 0.0, "section B.3 ignores it"),
            at_most("xi = |W - A| / |A|", xi, 2.0),
            at_most("|A|", facts.spectral_norm, 2 * max(1.0, facts.spectral_bound)),
        ),
        "|e_i| = O(max(kappa1^2, kappa2^2) p_i k / m)",
        (at_most("constant needed", _largest(found, scale), CONSTANT, reading=True),),
        numbers={
            "constant": _largest(found, scale),
            "over_p_k_m": _largest(found, unit),
            "over_p_k_sqrt_m": _largest(found, unit * math.sqrt(facts.n_atoms)),
            "leading": _largest(leading, unit),
            "gradient": means,
        },
        notes=(CONSTANT_NOTE,),
        errata=(
            "The order, quoted from Rangamani et al. 2017, is not so for (delta, 2)-near W, where"
            " |e_i| may be of the order p_i k / sqrt m (shoal.theory.sizes.remainder).",
        ),
    )


class _Terms:
    """What Claims 3 and 4 speak of: Gram tables, and sums over the other units, each (m,)."""

    def __init__(self, world: GenerativeModel, dictionary: Any) -> None:
        self.weights = aligned(world, dictionary)
        atoms = world.dictionary.astype(np.float64)
        self.facts = WorldFacts.of(world)
        self.m, self.k, self.p = len(atoms), self.facts.expected_k, world.p
        self.gram, self.cross = self.weights @ self.weights.T, self.weights @ atoms.T
        self.pairs = np.array(world.p_ij)
        np.fill_diagonal(self.pairs, 0.0)
        self.square = (self.pairs * self.cross**2).sum(axis=1)
        self.reach = (self.pairs * self.cross).sum(axis=1)
        self.squares, self.mixed = gradients.triple_sums(world, self.weights)
        self.wide = self.p * self.k / math.sqrt(self.m)


def _moments(values: Floats, p: Floats) -> list[float]:
    """Least and largest of values / p_i, over units ever active."""
    used = p > 0
    return [float((values[used] / p[used]).min()), float((values[used] / p[used]).max())]


def _orders(
    name: str,
    what: str,
    terms: _Terms,
    measured: dict[str, float],
    numbers: dict[str, Any],
    errata: tuple[str, ...],
) -> Assertion:
    facts = terms.facts
    return Assertion(
        name,
        f"{SOURCE}, {name}",
        (
            at_most("|A|", facts.spectral_norm, 2 * max(1.0, facts.spectral_bound)),
            at_most("m / n", facts.n_atoms / facts.n_features, CONSTANT, "m = O(n)"),
            at_most("k", terms.k, math.sqrt(facts.n_features), "O(sqrt n), implicitly required"),
        ),
        f"the orders of the terms of {what}",
        tuple(
            at_most(f"constant of the {term}", value, CONSTANT, reading=True)
            for term, value in measured.items()
        ),
        numbers={**measured, **numbers},
        notes=(CONSTANT_NOTE, f"The numbers of {what} are its least and largest over p_i."),
        errata=errata,
    )


# --- descent lemmas -----------------------------------------------------------------------


class _Descent:
    """What the descent lemmas share, unit by unit over those ever active: each (m',)."""

    def __init__(
        self, world: GenerativeModel, dictionary: Any, bias: ArrayLike, gradient: Any
    ) -> None:
        weights = aligned(world, dictionary)
        exact, self.means = _exact(world, weights, bias)
        given = exact if gradient is None else np.asarray(gradient, dtype=np.float64)
        if given.shape != weights.shape:
            raise ArgumentError("gradient", f"shape {given.shape}", f"{weights.shape}")
        used = world.p > 0
        self.weights = weights
        self.facts = WorldFacts.of(world)
        self.near = definition2(world, weights, delta=2.0).numbers
        self.p = world.p[used]
        away = (weights - world.dictionary)[used]
        self.r2 = np.sum(away**2, axis=1)  # |W_i - A_i|^2
        self.delta = float(np.sqrt(self.r2.max()))
        self.along = np.sum(weights * world.dictionary, axis=1)[used]  # lambda_i
        self.b = _parameters(weights, bias).bias.numpy()[used]
        self.left = 2 * np.sum(given[used] * away, axis=1)  # 2 <g_i, W_i - A_i>
        self.g2 = np.sum(given[used] ** 2, axis=1)
        self.gamma2 = np.sum((given - exact)[used] ** 2, axis=1)

    def lack(self, share: Floats, scale: float = 1.0) -> Floats:
        """RHS - LHS for share_i |W_i - A_i|^2 + |g_i|^2 / (scale p_i lambda_i)."""
        return share * self.r2 + self.g2 / (scale * self.p * self.along) - self.left

    @property
    def hypotheses(self) -> tuple[Check, ...]:
        return (
            at_most("delta", self.delta, _log_bound(self.facts), "1 / log n"),
            at_least("least lambda_i", float(self.along.min()), 0.0, "division by it"),
        )


_FARTHEST = 1.4  # below sqrt 2, where lambda is 0


def lemma1_interval(world: GenerativeModel, delta: float) -> tuple[float, float]:
    """Biases around 0 that meet Lemma 1's condition, and Lemma 4's, where |W_i - A_i| = delta.

    |kappa2 l^2 + 2 kappa1 b l + b^2 - kappa2 l| <= 2 kappa2 (1 - l) with l = 1 - delta^2/2; the
    print's p_i in the second term is a slip. For small delta it is about -delta^2 kappa2/4 kappa1
    to 3 delta^2 kappa2/4 kappa1.

    Parameters
    ----------
    world : GenerativeModel
        Gives kappa1 and kappa2.
    delta : float
        Up to 1.4, where atoms are nearly at a right angle.

    Returns
    -------
    low, high : float

    References
    ----------
    Nguyen, Wong, Hegde 2018, Lemmas 1 and 4.

    Examples
    --------
    >>> from shoal.generative import MixtureOfGaussians
    >>> [round(end, 5) for end in lemma1_interval(MixtureOfGaussians(np.eye(3)), 0.1)]
    [-0.00253, 0.0075]
    """
    d = check_number("delta", delta, low=0.0, high=_FARTHEST)
    k1, k2, along = world.kappa1, world.kappa2, 1 - d**2 / 2
    centre = k1 * along
    middle, room = centre**2 + k2 * along * (1 - along), k2 * d**2
    high = math.sqrt(middle + room) - centre
    inner = middle - room
    return (math.sqrt(inner) - centre if inner >= 0 else -2 * centre - high), high


def bias_conflict(world: GenerativeModel, dictionary: Any) -> Assertion:
    """Section 4's "b_i <= -2 |W_i - A_i| satisfies the condition in Lemma 1": it does not.

    Parameters
    ----------
    world : GenerativeModel
        Non-negative codes.
    dictionary : array_like of shape (m, n)
        W, for its distance; aligned first.

    Returns
    -------
    Assertion
        Measured is how far the least bias of Lemma 1 is from the greatest of Theorem 3 (ii).

    Notes
    -----
    With r = |W_i - A_i|, l = 1 - r^2/2 and one unit a support, Lemma 1 asks for (b + l)^2 >=
    l - r^2 = 1 - 3 r^2/2 and so for b >= sqrt(1 - 3 r^2/2) - 1 + r^2/2 >= -r^2, since
    sqrt(1 - x) >= 1 - x. Theorem 3 (ii) has b <= -2 r, and r^2 < 2 r for all r < 2.

    Theorem 4 (i.2) holds in spite of it: what such a bias adds to the step is along W_i, where
    normalisation takes it away (`numbers`: |W_i - A_i| after a step of c = 1, before and after).

    References
    ----------
    Nguyen, Wong, Hegde 2018, section 4, end; Theorem 3 (ii), Lemmas 1 and 4.

    Examples
    --------
    >>> from shoal.generative import MixtureOfGaussians, perturb
    >>> world = MixtureOfGaussians(np.eye(10, 20))
    >>> bias_conflict(world, perturb(world.dictionary, 0.1, random_state=0)).verdict
    'contradicted'
    """
    weights = aligned(world, dictionary)
    r = float(distances(world, weights)[world.p > 0].max())
    low, high = bias_interval(world, r)
    least, most = lemma1_interval(world, r) if r <= _FARTHEST else (-math.inf, math.inf)
    b = (low + high) / 2
    rise, length, normalised = _one_relu_step(world, r, b)
    return Assertion(
        "Section 4, biases",
        f"{SOURCE}, section 4, end; Theorem 3 (ii) and Lemma 1",
        (
            true("codes are non-negative", not is_signed(world)),
            at_least("|W_i - A_i|", r, ROUNDING, "else all conditions are b = 0"),
            at_most("lower end of Theorem 3 (ii)'s biases", low, high, "its upper end"),
        ),
        "b_i <= -2 a2 |W_i - A_i| sqrt k satisfies the condition of Lemma 1 (and of Lemma 4)",
        (at_most("least bias of the lemma", least, high, "the theorem's greatest"),),
        numbers=_plain(
            {
                "distance": r,
                "theorem3": [low, high],
                "lemma": [least, most],
                "bias": b,
                "step_raw": rise,
                "step_length": length,
                "step_normalised": normalised,
            }
        ),
        remarks=(
            "Theorem 4 (i.2) holds in spite of it: the surplus is along W_i, and normalisation"
            " takes it away (step_raw, step_normalised: |W_i - A_i| after a step).",
        ),
        errata=(
            "No bias meets both: Lemma 1 has b >= sqrt(1 - 3 r^2/2) - 1 + r^2/2 >= -r^2, Theorem 3"
            " (ii) has b <= -2 r, r = |W_i - A_i|.",
        ),
    )


def _one_relu_step(world: GenerativeModel, r: float, b: float) -> tuple[float, float, float]:
    """|W~ - A|, |W~| and |W~/|W~| - A| after a step of c = 1, eq. (16), in the plane of W and A."""
    along = 1 - r**2 / 2
    atom, row = np.array([1.0, 0.0]), np.array([along, math.sqrt(max(1 - along**2, 0.0))])
    k1, k2 = world.kappa1, world.kappa2
    bracket = (k2 * along**2 + 2 * k1 * b * along + b**2) / (k2 * along)
    moved = row - bracket * row + atom
    length = float(np.linalg.norm(moved))
    normalised = float(np.linalg.norm(moved / length - atom))
    return float(np.linalg.norm(moved - atom)), length, normalised


def bias_gradient(
    world: GenerativeModel,
    dictionary: Any,
    bias: ArrayLike = -0.1,
    n_samples: int = 10_000,
    random_state: Any = 0,
) -> Assertion:
    """Section 4's expected gradient of the bias: p_i b_i, and not the print's -p_i b_i.

    Parameters
    ----------
    world : GenerativeModel
        One active unit a sample.
    dictionary : array_like of shape (m, n)
        W; aligned first.
    bias : float or array_like of shape (m,)
        b.
    n_samples : int
        Samples, with their true supports.
    random_state : None, int or numpy.random.Generator
        Their seed.

    Returns
    -------
    Assertion
        Measured is |g - g_hat| over |g|, in `numbers` with the print's sign too.

    References
    ----------
    Nguyen, Wong, Hegde 2018, section 4, after Lemma 1.

    Examples
    --------
    >>> from shoal.generative import MixtureOfGaussians
    >>> found = bias_gradient(MixtureOfGaussians(np.eye(4), noise=0.1), np.eye(4), n_samples=4000)
    >>> found.verdict, round(found.numbers["printed"])
    ('confirmed', 2)
    """
    weights = aligned(world, dictionary)
    b = _parameters(weights, bias).bias.numpy()
    right = gradients.bias_gradient(world, weights, b)
    sample = world.sample(check_count("n_samples", n_samples, low=2), random_state)
    on = active(sample.codes)
    reach = np.asarray(sample.data, dtype=np.float64) @ weights.T  # W_i.y
    lengths = np.sum(weights**2, axis=1)
    each = np.where(on, lengths * (reach + b) - reach, 0.0)  # -W_i.(y - W_i (W_i.y + b_i))
    found = each.mean(axis=0)
    size = float(np.linalg.norm(right)) or 1.0
    error = float(np.sqrt(np.var(each, axis=0, ddof=1).sum() / n_samples))
    tolerance = 4 * error + ROUNDING
    off = float(np.linalg.norm(right - found))
    return Assertion(
        "Bias gradient",
        f"{SOURCE}, section 4, after Lemma 1",
        (true("one unit a support", world.k == 1),),
        "(g_b)_i = p_i b_i: descent brings a bias to 0",
        (at_most("|g - g_hat| / |g|", off / size, tolerance / size, "4 standard errors"),),
        numbers={
            "error": off / size,
            "printed": float(np.linalg.norm(-right - found)) / size,
            "standard_error": error / size,
        },
        errata=(
            "The print has -p_i b_i: (g_b)_i = -E[1_i (W_i.y - |W_i|^2 (W_i.y + b_i))] is"
            " +p_i b_i at |W_i| = 1. Along the print's sign a bias would grow, and b <- b/2 not"
            " follow.",
        ),
    )


def lemma1(
    world: GenerativeModel, dictionary: Any, bias: ArrayLike = 0.0, gradient: Any = None
) -> Assertion:
    """Descent for mixtures: 2<g, W-A> >= p(l - 2 delta^2)|W-A|^2 + |g|^2/(p l) - 2|gamma|^2/(p l).

    Parameters
    ----------
    world : GenerativeModel
        A mixture.
    dictionary : array_like of shape (m, n)
        W; aligned first.
    bias : float or array_like of shape (m,)
        b.
    gradient : array_like of shape (m, n), optional
        g; gamma is what it has beyond eq. (9). Without it, g is eq. (9) and gamma 0.

    Returns
    -------
    Assertion
        Measured is the least of LHS - RHS over units, in units of p_i.

    Notes
    -----
    The proof ends in p(l - 2 delta^2 / l), since |v|^2 is divided by p l. Without gamma the print
    holds too wherever l >= 1/2, that is delta <= 1.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Lemma 1.
    """
    gradients.mixture_gradient(world, world.dictionary)  # refuses what is no mixture
    d = _Descent(world, dictionary, bias, gradient)
    condition = np.abs((d.b + d.along) ** 2 - d.along) - 2 * (1 - d.along)
    last = 2 * d.gamma2 / (d.p * d.along)
    printed = float(((last - d.lack(d.p * (d.along - 2 * d.delta**2))) / d.p).min())
    proved = float(((last - d.lack(d.p * (d.along - 2 * d.delta**2 / d.along))) / d.p).min())
    return Assertion(
        "Lemma 1",
        f"{SOURCE}, Lemma 1",
        (
            *d.hypotheses,
            at_most("|(b_i + l_i)^2 - l_i| - 2 (1 - l_i)", float(condition.max()), ROUNDING),
        ),
        "2<g_i, W_i - A_i> >= p_i (l_i - 2 delta^2) |W_i - A_i|^2 + |g_i|^2 / (p_i l_i)"
        " - 2 |gamma_i|^2 / (p_i l_i)",
        (at_least("least of (LHS - RHS) / p_i", printed, -ROUNDING),),
        numbers={
            "slack": printed,
            "slack_proved": proved,
            "delta": d.delta,
            "gamma": float(np.sqrt(d.gamma2.max())),
        },
        errata=(
            "The proof gives l_i - 2 delta^2 / l_i (slack_proved); the print, l_i - 2 delta^2, can"
            " fail for delta > 1, or for a gamma as large as |v|.",
        ),
    )


def lemma2(
    world: GenerativeModel, dictionary: Any, bias: ArrayLike = 0.0, gradient: Any = None
) -> Assertion:
    """Descent for codes of mean 0: 2<g, W-A> >= p l |W-A|^2 + |g|^2/(p l) - O(p k^2/(n^2 l)).

    Parameters
    ----------
    world : GenerativeModel
        Codes with kappa1 = 0. The paper sets kappa2 = 1; here p_i stands for kappa2 p_i.
    dictionary : array_like of shape (m, n)
        W; aligned first.
    bias : float or array_like of shape (m,)
        b, 0 in the paper.
    gradient : array_like of shape (m, n), optional
        g; the expected gradient by default.

    Returns
    -------
    Assertion
        Measured is what the inequality lacks, over the error term that the proof gives: at most 1.

    Notes
    -----
    No constant is left open. With v_i = g_i - kappa2 p_i l_i (W_i - A_i) the left hand side is
    p_i l_i |W-A|^2 + (|g_i|^2 - |v_i|^2) / (p_i l_i), and v_i = p_i l_i (l_i - 1) W_i + the rest of
    eq. (15). The first has length p_i l_i |W-A|^2 / 2; the rest, complete (the print drops
    some of its terms, of the same order), at most, by the proof's own steps,

        B_i = q (4 |A|^2 + 2 |W|^2 + 2 |A||W| + 2 noise^2 |W|^2) + 2 t |A||W| (|A||W| + 1),

    q the largest p_ij, t the largest p_ijl. Hence the error term 2 kappa2 B_i^2 / (p_i l_i), of
    the order p_i k^2 / (n^2 l_i) where |A|, |W| = O(sqrt(m/n)).

    The statement drops the factor 1 - delta^2/2 of |W-A|^2 that its proof ends in. It matters: the
    term p_i l_i (l_i - 1) W_i of the gradient takes p_i l_i |W-A|^4 / 4, which is no O(k^2/n^2) at
    delta of the order 1 / log n.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Lemma 2.

    Examples
    --------
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> from shoal.theory.nguyen2019 import lemma2
    >>> world = SparseCoding(random_dictionary(8, 16, random_state=0), sparsity=2)
    >>> lemma2(world, world.dictionary).verdict
    'holds beyond its hypotheses'
    """
    d = _Descent(world, dictionary, bias, gradient)
    k, n, k2 = d.facts.expected_k, d.facts.n_features, d.facts.kappa2
    scale = k2 * d.p * k**2 / (n**2 * d.along)
    rest = _signed_rest(world, d.weights)[world.p > 0]
    error = 2 * k2 * rest**2 / (d.p * d.along)
    lack = d.lack(k2 * d.p * d.along * (1 - d.delta**2 / 2), k2)
    tolerance = ROUNDING * k2 * d.p  # what float64 does to the sums
    over = _largest(np.maximum(lack - tolerance, 0.0), np.maximum(error, np.finfo(float).tiny))
    proved = _needed(lack, scale)
    printed = _needed(d.lack(k2 * d.p * d.along, k2), scale)
    strange = _largest(np.sqrt(d.gamma2), k2 * d.p * k / n)
    return Assertion(
        "Lemma 2",
        f"{SOURCE}, Lemma 2",
        (
            *d.hypotheses,
            at_most("xi = |W - A| / |A|", d.near["xi"], 2.0),
            at_least("m / n", d.facts.n_atoms / n, 1.0, "overcomplete"),
            at_most("|kappa1|", abs(d.facts.kappa1), 0.0),
            at_most("|b|", float(np.abs(d.b).max()), 0.0),
            at_most("|gamma_i| over p_i k / n", strange, ROUNDING, "negligible"),
        ),
        "2<g_i, W_i - A_i> >= p_i l_i (1 - delta^2 / 2) |W_i - A_i|^2 + |g_i|^2 / (p_i l_i)"
        " - O(p_i k^2 / (n^2 l_i))",
        (at_most("what it lacks over the proof's error term", over, 1.0),),
        numbers=_plain(
            {
                "constant": proved,
                "constant_of_the_proof": _largest(error, scale),
                "constant_printed": printed,
                "delta": d.delta,
                "xi": d.near["xi"],
                "gradient": d.means,
            }
        ),
        notes=("The error term is the proof's, with every constant: none is left open.",),
        errata=(
            "The statement lacks the factor 1 - delta^2 / 2, which its proof ends in: without it"
            " the constant (constant_printed) grows as delta^4 n^2 / 4 k^2.",
        ),
    )


def _signed_rest(world: GenerativeModel, weights: Floats) -> Floats:
    """B_i / kappa2 of :func:`lemma2`'s notes, (m,)."""
    a, w = float(np.linalg.norm(world.dictionary, 2)), float(np.linalg.norm(weights, 2))
    pairs = np.array(world.p_ij)
    np.fill_diagonal(pairs, 0.0)
    q = pairs.max(axis=1)
    noise = world.noise**2 / world.kappa2
    alike = gradients.alike_chances(world)
    if alike is not None:
        triple, off = np.full(len(q), alike[2]), a * w + 1  # of t (W A^T less its diagonal)
    else:  # p_ijl <= p_ij, and the Frobenius norm bounds an entrywise product
        triple, off = q, a * math.sqrt(len(q))
    return np.asarray(
        q * (4 * a**2 + 2 * w**2 + 2 * a * w + 2 * noise * w**2) + 2 * triple * a * w * off
    )


def lemma3(world: GenerativeModel, dictionary: Any, *, step: float | None = None) -> Assertion:
    """A step keeps W near: |W^{s+1} - A| <= 2 |A| where |W^s - A| <= 2 |A| was.

    Parameters
    ----------
    world : GenerativeModel
        Codes of mean 0.
    dictionary : array_like of shape (m, n)
        W^s; aligned first.
    step : float, optional
        c of :func:`step_size`; :func:`best_step` by default.

    Returns
    -------
    Assertion
        W^{s+1} is made with the expected gradient, given the true supports.

    Raises
    ------
    ArgumentError
        If codes have a mean: case (iii) projects instead (:class:`~shoal.training.Nearness`).

    Notes
    -----
    The paper points to Lemmas 24 and 32 of Arora et al. 2015, which are about another update.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Lemma 3, section B.2.

    Examples
    --------
    >>> from shoal.generative import SparseCoding, perturb
    >>> world = SparseCoding(np.eye(16), 2)
    >>> lemma3(world, perturb(world.dictionary, 0.1, random_state=0)).verdict
    'confirmed'
    """
    weights = aligned(world, dictionary)
    zeta = step_size(world, weights, best_step(world) if step is None else step)
    atoms = world.dictionary.astype(np.float64)
    exact = gradients.signed_gradient(world, weights)  # refuses codes with a mean
    moved = updated(weights, exact, zeta)
    facts = WorldFacts.of(world)
    farthest = float(distances(world, weights)[world.p > 0].max())
    conditions, _ = _conditions3(world, facts, farthest, "i")
    along = np.sum(weights * atoms, axis=1)
    pace = (zeta * facts.kappa2 * world.p * along)[world.p > 0]
    before, after = (
        float(np.linalg.norm(rows - atoms, 2)) / facts.spectral_norm for rows in (weights, moved)
    )
    return Assertion(
        "Lemma 3",
        f"{SOURCE}, Lemma 3",
        (
            *conditions,
            at_most("|W - A| / |A| before", before, 2.0),
            at_most("|A|", facts.spectral_norm, 2 * max(1.0, facts.spectral_bound)),
            at_most("|1 - c|, an atom's own error", float(np.abs(1 - pace).max()), 0.5, _OURS),
        ),
        "|W - A| <= 2 |A| after the step",
        (at_most("|W - A| / |A| after", after, 2.0),),
        numbers={"before": before, "after": after, "zeta": zeta},
        remarks=("Its proof is a reference to lemmas about another update.",),
    )


def lemma4(
    world: GenerativeModel, dictionary: Any, bias: ArrayLike = 0.0, gradient: Any = None
) -> Assertion:
    """Descent for non-negative codes, up to O(max(1, kappa2/kappa1^2) k^2 / (p_i m)).

    Parameters
    ----------
    world : GenerativeModel
        Codes with kappa1 != 0.
    dictionary : array_like of shape (m, n)
        W; aligned first.
    bias : float or array_like of shape (m,)
        b.
    gradient : array_like of shape (m, n), optional
        g; by default that of :func:`~shoal.theory.gradients.enumerated_gradient`, over all
        supports or 20000 drawn ones.

    Returns
    -------
    Assertion
        Measured is the constant needed with the error term that Claims 3 and 4 give,
        kappa2 p_i k^2 / (m l_i).

    Notes
    -----
    As printed, the error term lacks the square of the p_i in v, and with it says little: at
    p = k/m it is O(k), where all other terms are O(k/m). kappa1^2 <= kappa2 always, so that
    max(kappa1^2, kappa2) is kappa2. The condition on the bias has a p_i too many, as eq. (16) has.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Lemma 4.
    """
    if world.kappa1 == 0:
        raise ArgumentError("world", "kappa1 = 0", "codes with a mean; lemma2 is for these")
    d = _Descent(world, dictionary, bias, gradient)
    k1, k2, k, m = d.facts.kappa1, d.facts.kappa2, d.facts.expected_k, d.facts.n_atoms
    allowed = 2 * k2 * (1 - d.along)
    rest = k2 * d.along**2 + d.b**2 - k2 * d.along
    condition = float((np.abs(rest + 2 * k1 * d.b * d.along) - allowed).max())
    printed_condition = float((np.abs(rest + 2 * k1 * d.p * d.b * d.along) - allowed).max())
    lack = d.lack(k2 * d.p * (d.along - 2 * d.delta**2), k2)
    constant = _needed(lack, k2 * d.p * k**2 / (m * d.along))
    printed = _needed(lack, max(1.0, k2 / k1**2) * k**2 / (d.p * m))
    return Assertion(
        "Lemma 4",
        f"{SOURCE}, Lemma 4",
        (
            *d.hypotheses,
            at_most(
                "|k2 l^2 + 2 k1 b l + b^2 - k2 l| - 2 k2 (1 - l)", condition, ROUNDING, "any unit"
            ),
        ),
        "2<g_i, W_i - A_i> >= kappa2 p_i (l_i - 2 delta^2) |W_i - A_i|^2"
        " + |g_i|^2 / (kappa2 p_i l_i) - O(kappa2 p_i k^2 / (m l_i))",
        (at_most("constant needed", constant, CONSTANT, reading=True),),
        numbers={
            "constant": constant,
            "constant_printed": printed,
            "bias_condition": condition,
            "bias_condition_printed": printed_condition,
            "delta": d.delta,
            "gradient": d.means,
        },
        notes=(CONSTANT_NOTE, "The error term is what Claims 3 and 4 give."),
        errata=(
            "The print's error term has p_i in the denominator, some 1/p_i^2 larger"
            " (constant_printed): the v of eq. (16) lost the p_i of Claims 3 and 4.",
        ),
    )


def _needed(lack: Floats, scale: Floats) -> float:
    """The least C >= 0 with lack <= C scale in every unit."""
    return _largest(np.maximum(lack, 0.0), scale)


def lemma5(
    world: GenerativeModel,
    before: Any,
    after: Any = None,
    tau: float = 0.75,
    *,
    delta: float | None = None,
) -> Assertion:
    """Normalisation after a step keeps W close: |W^{s+1}_i - A_i| <= (1 + o(1)) delta_s.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    before : array_like of shape (m, n)
        The step's result W~ before its rows are brought to length 1; in the order of the truth.
    after : array_like of shape (m, n), optional
        W^{s+1}, after; by default `before` with unit rows.
    tau : float
        The contraction: |W~_i - A_i| <= (1 - tau) |W^s_i - A_i|, in (0, 1).
    delta : float, optional
        delta_s >= |W^s_i - A_i|. Without it the least one that fits, max |W~_i - A_i| / (1 - tau),
        which makes the first hypothesis say nothing: give it wherever W^s is known.

    Returns
    -------
    Assertion

    Notes
    -----
    In print the lemma asks for tau <= (1 - delta)/(2 - delta), but its last line,
    2(1 - tau)/(1 + (1 - tau) delta) <= 1, is tau >= (1 - delta)/(2 - delta), and Theorem 4 uses
    tau in (3/4, 1). The line before it multiplies by w = |W~_i| where it must divide, and then
    takes an upper bound for w; with the lower bound 1 - (1 - tau) delta the proof needs
    tau >= (1 + delta)/(2 + delta).

    Neither is needed: a point at distance r < 1 from the unit vector A_i is seen from 0 under an
    angle of sine at most r to it, so that |W^{s+1}_i - A_i|^2 <= 2 - 2 sqrt(1 - r^2) <= 2 r^2: any
    tau >= 1 - 1/sqrt(2) = .293 will do, the hypothesis here.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Lemma 5, section B.4.
    """
    atoms = world.dictionary.astype(np.float64)
    rows = np.asarray(before, dtype=np.float64)
    if rows.shape != atoms.shape:
        raise ArgumentError("before", f"shape {rows.shape}", f"{atoms.shape}, as the world's")
    if not 0 < check_number("tau", tau) < 1:
        raise ArgumentError("tau", f"{tau:g}", "a number between 0 and 1")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if after is None and not (lengths > 0).all():
        raise ArgumentError("before", "a row of length 0", "rows with a direction")
    unit = rows / lengths if after is None else np.asarray(after, dtype=np.float64)
    if unit.shape != atoms.shape:
        raise ArgumentError("after", f"shape {unit.shape}", f"{atoms.shape}, as the world's")
    r = np.linalg.norm(rows - atoms, axis=1)
    moved = np.linalg.norm(unit - atoms, axis=1)
    fitted = delta is None
    d = float(r.max()) / (1 - tau) if delta is None else check_number("delta", delta, low=0.0)
    sharp = np.sqrt(2 - 2 * np.sqrt(np.maximum(1 - r**2, 0.0)))
    return Assertion(
        "Lemma 5",
        f"{SOURCE}, Lemma 5, section B.4",
        (
            at_most("|W~_i - A_i|", float(r.max()), (1 - tau) * d + ROUNDING, "(1 - tau) delta"),
            at_least("tau", tau, 1 - math.sqrt(0.5), "1 - 1/sqrt 2: an elementary bound"),
        ),
        f"|W_i - A_i| <= delta = {d:.4g} after normalisation",
        (
            at_most("largest |W_i - A_i|", float(moved.max()), d + ROUNDING),
            at_most(
                "excess over sqrt(2 - 2 sqrt(1 - r^2))",
                float((moved - sharp)[r < 1].max(initial=-math.inf)),
                1e-7,  # near r = 0 the root halves the digits
            ),
        ),
        numbers=_plain(
            {
                "delta": d,
                "before": float(r.max()),
                "after": float(moved.max()),
                "tau": tau,
                "tau_limit": (1 - d) / (2 - d) if d < 2 else -math.inf,
                "tau_printed_holds": bool(d < 2 and tau <= (1 - d) / (2 - d)),
                "tau_last_line_holds": bool(d >= 2 or tau >= (1 - d) / (2 - d)),
            }
        ),
        notes=(
            "o(1) is read as 0.",
            *(("delta is fitted to W~: the first hypothesis says nothing.",) if fitted else ()),
        ),
        errata=(
            "The print wants tau <= tau_limit = (1 - delta)/(2 - delta); the last line of its proof"
            " wants >=, and Theorem 4 takes tau in (3/4, 1). The line before multiplies by |W~_i|"
            " where it must divide. The lemma holds all the same, by the elementary bound.",
        ),
    )


# --- Theorem 4: the steps -----------------------------------------------------------------


def step_size(world: GenerativeModel, dictionary: Any = None, step: float = 1.0) -> float:
    """zeta = step * max_i 1 / (kappa2 p_i lambda_i): Theta(m) for mixtures, Theta(m/k) else.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    dictionary : array_like of shape (m, n), optional
        W, for lambda_i = <W_i, A_i>; without it they are 1.
    step : float
        c, the step in units where one brings a signed code's atom home; above 0.

    Returns
    -------
    float

    Raises
    ------
    ArgumentError
        If a lambda_i is not above 0, or a unit is never active.

    References
    ----------
    Nguyen, Wong, Hegde 2018, after Lemma 1 (kappa2 = 1).

    Examples
    --------
    >>> from shoal.generative import MixtureOfGaussians
    >>> step_size(MixtureOfGaussians(np.eye(10)))
    10.0
    """
    check_number("step", step, low=0.0, open_low=True)
    return step * certified_step(world, None if dictionary is None else aligned(world, dictionary))


def updated(dictionary: Floats, gradient: Floats, step: float) -> Floats:
    """W <- normalize(W - zeta g): an update of the training loop, by a gradient of one's own.

    The rule is :class:`shoal.training.FixedStep`, under :class:`shoal.training.UnitLength`; an
    expected gradient stands in it for a batch's.

    Parameters
    ----------
    dictionary, gradient : ndarray of shape (m, n)
        W and g.
    step : float
        zeta.

    Returns
    -------
    ndarray of shape (m, n)

    References
    ----------
    Nguyen, Wong, Hegde 2018, Theorem 4.

    Examples
    --------
    >>> updated(np.eye(2), np.array([[0.0, -0.75], [0.0, 0.0]]), 1.0).tolist()
    [[0.8, 0.6], [0.0, 1.0]]
    """
    parameters = _parameters(dictionary, 0.0)
    sums = StepSums.zeros(parameters, 1)._replace(dictionary=_tensor(gradient))
    moved, _ = FixedStep(Always(step)).update(parameters, sums, None, 0, UnitLength())
    found: Floats = moved.dictionary.numpy()
    return found


def damp(world: GenerativeModel, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient (m, n) with the top mode of E[x x^T] made as steep as the second.

    G - (1 - e2/e1) u (u^T G), with u the leading eigenvector (m,) and e1 >= e2 the two largest
    eigenvalues: Newton's step for that mode and the plain one for all others. It makes a step of
    c = 1 stable for non-negative codes; the paper has nothing like it.

    Parameters
    ----------
    world : GenerativeModel
        The truth, for E[x x^T].
    gradient : Tensor of shape (m, n)
        G, float64.

    Returns
    -------
    Tensor of shape (m, n)
    """
    u, share = _top_mode(world)
    return _damped(gradient, u, share)


def _top_mode(world: GenerativeModel) -> tuple[torch.Tensor, float]:
    """u (m,) and 1 - e2/e1."""
    values, vectors = np.linalg.eigh(world.code_second_moment())
    second = float(values[-2]) if len(values) > 1 else float(values[-1])
    return _tensor(vectors[:, -1]), 1 - second / float(values[-1])


def _damped(gradient: torch.Tensor, u: torch.Tensor, share: float) -> torch.Tensor:
    return gradient - share * torch.outer(u, u @ gradient)


def plateau(
    world: GenerativeModel,
    *,
    step: float = 1.0,
    n_samples: int | None = None,
    fresh: bool = False,
) -> float:
    """|W - A|_F^2 where descent comes to rest, to the leading order; NaN where it isn't known.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    step : float
        c of :func:`step_size`.
    n_samples : int, optional
        N; infinitely many by default.
    fresh : bool
        Whether every step sees N other samples.

    Returns
    -------
    float
        * Mixtures: sum_i n noise^2 / (N p_i), that of the maximum-likelihood means, on fixed
          data; with fresh samples each unit's share times c_i / (2 - c_i), c_i = zeta p_i.
        * Codes of mean 0, N infinite: at W = A the expected gradient is not 0, and W moves to
          W_i - A_i = -2 (1 + noise^2/kappa2) sum_j (p_ij/p_i) <A_i, A_j> A_j, less its part along
          A_i. That is 0 on a tight frame with even supports, and 4 (k-1)^2 / n on average
          over Gaussian atoms.
        * NaN otherwise.

    Notes
    -----
    Not in the paper: its floors are O(m n^-K), O(m k^2/n^2) and O(k^3/m).

    Examples
    --------
    >>> from shoal.generative import MixtureOfGaussians
    >>> round(plateau(MixtureOfGaussians(np.eye(10), noise=0.1), n_samples=1000), 6)
    0.01
    """
    p = world.p
    if not (p > 0).all():
        return math.nan
    if world.k == 1 and isinstance(world.values, Constant):
        if n_samples is None:
            return 0.0
        variance = world.noise**2 / (world.kappa2 * check_count("n_samples", n_samples) * p)
        share = np.ones_like(p)
        if fresh:
            c = check_number("step", step, low=0.0, open_low=True) * p / p.min()
            share = np.where(c < 2, c / np.maximum(2 - c, 1e-300), np.nan)
        return float(world.n_features * (share * variance).sum())
    if world.kappa1 != 0:
        return math.nan
    atoms = world.dictionary.astype(np.float64)
    pairs = world.p_ij / p[:, None]
    np.fill_diagonal(pairs, 0.0)
    drift = 2 * (1 + world.noise**2 / world.kappa2) * (pairs * (atoms @ atoms.T)) @ atoms
    drift -= np.sum(drift * atoms, axis=1, keepdims=True) * atoms
    return float((drift**2).sum())


Case4 = Literal["i.1", "i.2", "ii", "iii.1", "iii.2"]
Means = Literal["expected", "sample"]


def best_step(world: GenerativeModel) -> float:
    """The c of :func:`step_size` whose slowest mode is fastest: 2 / (1 + L p_max / p_min).

    With it errors of the least frequent atom contract by 1 - c and the steepest mode by c L - 1,
    alike. Theorem 4 leaves the step open, zeta = Theta(m/k); tau > 3/4 wants both at most 1/2.

    Parameters
    ----------
    world : GenerativeModel
        The truth; L is its :func:`~shoal.training.mean_curvature`.

    Returns
    -------
    float

    Examples
    --------
    >>> from shoal.generative import MixtureOfGaussians
    >>> best_step(MixtureOfGaussians(np.eye(10)))
    1.0
    """
    used = world.p[world.p > 0]
    return 2 / (1 + mean_curvature(world) * float(used.max() / used.min()))


def theorem4(
    world: GenerativeModel,
    dictionary: Any,
    *,
    case: Case4 | None = None,
    step: float | None = None,
    n_steps: int = 30,
    n_samples: int = 20_000,
    means: Means | None = None,
    fresh: bool = False,
    initial_bias: float | None = None,
    floor: float = 0.0,
    damping: bool = False,
    random_state: Any = 0,
) -> Assertion:
    """Descent: W <- normalize(W - zeta g) brings |W - A|_F^2 to a quarter, down to a floor.

    Parameters
    ----------
    world : GenerativeModel
        The truth.
    dictionary : array_like of shape (m, n)
        W at the start; aligned first.
    case : {"i.1", "i.2", "ii", "iii.1", "iii.2"}, optional
        Mixtures (i), codes of mean 0 (ii), non-negative codes (iii); hard threshold at a1/2 with
        no bias (.1, and (ii)), or ReLU whose bias halves every step (.2). By default what fits the
        world, with the threshold.
    step : float, optional
        c: zeta is `step_size(world, dictionary, step)`, and stays. The theorem leaves it open; by
        default :func:`best_step`, or 1 with damping.
    n_steps : int
        Steps to take.
    n_samples : int
        Samples: for what units of another support add to the expected gradient, or for all of it.
    means : {"expected", "sample"}, optional
        The gradient: "expected" is exact given the true supports, plus what samples of another
        support add (gamma); "sample" is that of the samples. By default "expected" wherever there
        is an exact one (:func:`~shoal.theory.gradients.exact_gradient`).
    fresh : bool
        Whether each step draws its own samples.
    initial_bias : float, optional
        Where the ReLU's bias starts, at most 0; -a1/2 by default (the paper: -2/log n).
    floor : float
        Where the halving stops, from `initial_bias` to 0; 0 in the theorem.
    damping : bool
        Whether steps are damped (:func:`damp`).
    random_state : None, int or numpy.random.Generator
        The seed.

    Returns
    -------
    Assertion
        `numbers["distances"]` holds D_s = |W - A|_F^2 from the start on.

    Raises
    ------
    ArgumentError
        If an argument can't be used, or the expected gradient is asked for where there is none.

    Notes
    -----
    The theorem has some tau in (3/4, 1), so that a fall to a quarter is what it promises: measured
    is the constant C needed for D_{s+1} <= D_s / 4 + C floor, at the first step and at all whose W
    is as near as the theorem wants. The floor is m k^2/n^2 in (ii), k^3/m in (iii), and m n^-K in
    (i), K read as 4. It leaves C open: no one world can contradict it.

    Samples in place of infinitely many have a floor of their own, zeta^2 |Var g|_1 / N, which is
    m^2 n sigma^2 / N for mixtures. It is granted beside the paper's, what it may do to D is the
    measurement's sampling error, and where it exceeds D / 4 the samples are no infinity.

    Not in the paper: every mode is to contract by 1/2 at least, |1 - zeta kappa2 p_i lambda_i| and,
    for non-negative codes, |1 - c L|; otherwise not even the linear part of the step does what is
    promised. Both can hold for L <= 3 only: see :func:`shoal.theory.sizes.theorem4`.

    References
    ----------
    Nguyen, Wong, Hegde 2018, Theorem 4.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, perturb
    >>> world = NonnegativeSparseCoding(np.eye(64), 2)
    >>> theorem4(world, perturb(world.dictionary, 0.1, random_state=0), n_steps=5).verdict
    'confirmed'
    """
    family, relu, chosen = _case4(world, case)
    check_count("n_steps", n_steps)
    check_count("n_samples", n_samples)
    if means is not None:
        check_choice("means", means, ("expected", "sample"))
    weights = aligned(world, dictionary)
    facts = WorldFacts.of(world)
    m, n, k = facts.n_atoms, facts.n_features, facts.expected_k
    c = (1.0 if damping else best_step(world)) if step is None else step
    zeta = step_size(world, weights, c)
    start = -facts.a1 / 2 if initial_bias is None else initial_bias
    schedule = Halving(start, floor=floor) if relu else None
    activation: Activation = ReLU() if relu else HardThreshold(facts.a1 / 2)
    steps = list(
        _descend(
            world, weights, zeta, activation, schedule, n_steps, n_samples, means, fresh, damping,
            random_state,
        )
    )  # fmt: skip
    exact = steps[0].exact

    used = world.p > 0
    distance = float(distances(world, weights)[used].max())
    conditions, delta = _conditions3(
        world, facts, distance, "i" if family == "ii" else "ii" if relu else "iii"
    )
    xi = definition2(world, weights).numbers["xi"]
    along = np.sum(weights * world.dictionary, axis=1)
    pace = (zeta * facts.kappa2 * world.p * along)[used]  # c, unit by unit
    first_bias = start if relu else 0.0
    factors = _own_factors(facts, pace, first_bias)
    bend = mean_curvature(world)
    hypotheses = [
        *([true("a mixture", is_mixture(world))] if family == "i" else []),
        *conditions,
        at_most("xi = |W - A| / |A|", xi, 2.0),
        at_least(
            "share of samples with the true support",
            steps[0].share,
            HIGH_PROBABILITY,
            error=0.0 if steps[0].certain else share_error(steps[0].share, n_samples),
        ),
        at_most("|1 - c|, an atom's own error", float(np.abs(factors).max()), 0.5, _OURS),
    ]
    if schedule is not None:
        # However near W comes, delta can't be less than k mu / sqrt n: the bias must stay there.
        resting = max(facts.k * facts.coherence, math.ulp(0.0))
        low, high = proved_interval(world, delta)
        hypotheses += [
            between("first bias", start, low, high, "Theorem 3 (ii), as proved"),
            at_most(
                "last bias", schedule(n_steps - 1), proved_interval(world, resting)[1],
                "Theorem 3 (ii) at the end",
            ),
        ]  # fmt: skip
    if family == "iii" and bend > 1:
        steepest = float(pace.max()) * (1.0 if damping else bend)
        hypotheses.append(at_most("|1 - c L|, the mean mode", abs(1 - steepest), 0.5, _OURS))

    floor_name, scale, bound = {
        "i": ("m n^-K", m * float(n) ** -4, 1.0),
        "ii": ("m k^2 / n^2", m * k**2 / n**2, CONSTANT),
        "iii": ("k^3 / m", k**3 / m, 1.0),
    }[family]
    if not exact:
        room = max(steps[0].distance / 4, bound * scale)
        claim = "what samples add, for infinitely many"
        hypotheses.append(at_most(claim, steps[0].floor, room, "|W - A|_F^2 / 4, or the floor"))
    judged = [
        at
        for at in range(n_steps)
        if at == 0 or _as_near(world, facts, steps[at], family, schedule(at) if schedule else None)
    ]
    checks = [_fall(steps[at], scale) for at in judged]
    worst = max(checks, key=lambda found: found[0])
    d = [each.distance for each in steps]
    resting_at = max(4 / 3 * bound * scale + steps[-2].floor, d[0])
    rest = plateau(world, step=c, n_samples=None if exact else n_samples, fresh=fresh)
    notes = [f"The constant is read as at most {bound:g}; the paper names none."]
    if exact:
        notes.append(
            "The gradient is the expected one, exact given the true supports"
            + (
                ", which units have for certain."
                if all(each.certain for each in steps[:-1])
                else f"; what other supports add is that of {n_samples} samples."
            )
        )
    else:
        notes.append(
            f"{n_samples} samples, {'fresh' if fresh else 'the same'} at every step, stand for"
            " infinitely many: their floor, zeta^2 |Var g|_1 / N, is granted beside the paper's."
        )
    if family == "i":
        notes.append("K is read as 4; the paper has any.")
    remarks, errata = [], []
    if family == "ii":
        errata.append(
            "The column bound of section B.2, O(p_i k^2 / (n^2 l_i)), has lost its zeta: with it"
            " that is k^2 / n^2 a column, and m k^2 / n^2 in all, as stated."
        )
    if family == "iii":
        errata.append(
            "k^3 / m is the sum over columns of Lemma 4's p_i k^2 / m, without the zeta that the"
            " step brings: with it, it is k^2 in all."
        )
        remarks.append(
            "With the floor k^2 one step is no more than nearness allows: |W - A|_F^2 <= 4 m."
        )
        if bend > 3:
            errata.append(
                f"L = {bend:.3g} > 3: no c has |1 - c| and |1 - c L| at most 1/2, so that no"
                " zeta = Theta(m/k) contracts both by 4 (shoal.theory.sizes)."
            )
    if damping:
        notes.append("Steps are damped along the mean of the codes, which the paper does not do.")
    if relu:
        remarks.append(
            "With b near 0 every unit that noise or interference wakes fires; without a floor"
            " the halving destroys W in the end."
        )
    return Assertion(
        f"Theorem 4 ({chosen})",
        f"{SOURCE}, Theorem 4 ({chosen})",
        tuple(hypotheses),
        f"|W - A|_F^2 <= 1/4 of what it was + O({floor_name}), step by step",
        (
            at_most(
                "constant needed, first step", checks[0][0], bound, error=checks[0][1], reading=True
            ),
            at_most(
                "constant needed, all steps", worst[0], bound, error=worst[1], reading=True
            ),
            at_most(
                "|W - A|_F^2 at the end", d[-1], resting_at + ROUNDING, "the start's, or the floor",
                error=steps[-2].error, reading=True,
            ),
        ),
        numbers=_plain(
            {
                "distances": d,
                "contraction": d[1] / d[0] if d[0] > 0 else math.nan,
                "gradient": steps[0].means,
                "step": c,
                "zeta": zeta,
                "pace": [float(pace.min()), float(pace.max())],
                "delta": distance,
                "xi": xi,
                "consistent": [each.share for each in steps[:-1]],
                "certain": all(each.certain for each in steps[:-1]),
                "judged": len(judged),
                "curvature": bend,
                "floor_scale": scale,
                "sampling_floor": steps[0].floor,
                "plateau": rest,
            }
        ),
        notes=tuple(notes),
        remarks=tuple(remarks),
        errata=tuple(errata),
    )  # fmt: skip


_OURS = "not in the paper: 1 - tau < 1/4"


def _case4(world: GenerativeModel, case: str | None) -> tuple[str, bool, str]:
    """The part of the theorem, whether with the ReLU, and its name."""
    kind = "i" if is_mixture(world) else "ii" if world.kappa1 == 0 or is_signed(world) else "iii"
    default = kind if kind == "ii" else f"{kind}.1"
    chosen = check_choice("case", case or default, ("i.1", "i.2", "ii", "iii.1", "iii.2"))
    return chosen.split(".")[0], chosen.endswith(".2"), chosen


def _own_factors(facts: WorldFacts, pace: Floats, bias: float) -> Floats:
    """What a step multiplies an atom's own small error by, normalised: (1 - c q) / (1 - c q + c).

    From eq. (16): A_i with c and W_i with c q, q = 1 + 2 kappa1 b/kappa2 + b^2/kappa2 near A.
    Without a bias that is 1 - c.
    """
    q = 1 + 2 * facts.kappa1 * bias / facts.kappa2 + bias**2 / facts.kappa2
    return np.asarray((1 - pace * q) / (1 - pace * q + pace))


def _fall(step: _Step, scale: float) -> tuple[float, float]:
    """C in D' = D / 4 + the sampling floor + C scale, at least 0, and its sampling error."""
    tolerance = ROUNDING * step.distance + 1e-14  # arbitrary; what float64 does to D
    lack = max(step.after - step.distance / 4 - step.floor - tolerance, 0.0)
    return lack / scale, step.error / scale


def _as_near(
    world: GenerativeModel, facts: WorldFacts, step: _Step, family: str, bias: float | None
) -> bool:
    """Whether W before a step is what the theorem speaks of."""
    near = step.farthest <= _log_bound(facts) and step.share >= HIGH_PROBABILITY
    near = near and step.distance <= (2 * facts.spectral_norm) ** 2  # |.| <= |.|_F
    if bias is None or not near:
        return near
    delta = step.farthest if family == "ii" else max(step.farthest, facts.k * facts.coherence)
    low, high = bias_interval(world, delta)
    return low <= bias <= high


class _Step(NamedTuple):
    """W before a step, and what the step does."""

    distance: float  # |W - A|_F^2
    after: float  # and after the step
    farthest: float  # max |W_i - A_i|
    share: float  # of samples with the true support
    certain: bool  # whether every sample has it
    exact: bool
    means: str
    floor: float  # what the samples' variance adds to |W - A|_F^2
    error: float  # how far it may take `after`


def _descend(
    world: GenerativeModel,
    weights: Floats,
    zeta: float,
    activation: Activation,
    schedule: Halving | None,
    n_steps: int,
    n_samples: int,
    means: str | None,
    fresh: bool,
    damping: bool,
    random_state: Any,
) -> Iterator[_Step]:
    """Step by step, and W where it ends."""
    truth = world.dictionary.astype(np.float64)
    w = np.array(weights)
    mode = _top_mode(world) if damping else None
    batches = world.stream(n_samples, random_state)
    sample: Sample | None = None
    distance = float(((w - truth) ** 2).sum())
    for s in range(n_steps):
        b = schedule(s) if schedule else 0.0
        certain = _surely_consistent(world, w, activation, b)
        exact = gradients.exact_gradient(world, w, b) if means != "sample" else None
        if means == "expected" and exact is None:
            needed = "units alike, listed supports or codes of mean 0; else 'sample'"
            raise ArgumentError("means", "'expected' in a world without a closed form", needed)
        share, spread2, name = 1.0, 0.0, "sample"
        if exact is None or not certain:
            sample = next(batches) if sample is None or fresh else sample
        if exact is not None:
            g, name = exact
            if sample is not None and not certain:
                gamma, spread2, share = _gamma(world, w, b, sample, activation)
                g = g + gamma
            floor = 0.0
        else:
            assert sample is not None  # drawn above
            g, spread2, share = _sampled(w, b, sample, activation)
            floor = zeta**2 * spread2
        farthest = float(np.linalg.norm(w - truth, axis=1)[world.p > 0].max())
        w = updated(w, _damped(_tensor(g), *mode).numpy() if mode else g, zeta)
        after = float(((w - truth) ** 2).sum())
        error = 2 * zeta * math.sqrt(after * spread2) + zeta**2 * spread2
        yield _Step(
            distance, after, farthest, share, certain, exact is not None, name, floor, error
        )
        distance = after
    yield _Step(distance, math.nan, math.nan, math.nan, False, False, "", 0.0, 0.0)


def _surely_consistent(
    world: GenerativeModel, weights: Floats, activation: Activation, bias: float
) -> bool:
    """Whether no sample at all can wake another support: without noise, by the triangle inequality.

    |z_i - <W_i, A_i> x_i - b| is at most a2 times the sum of the k largest |<W_i, A_j>|.
    """
    if world.noise > 0 or not math.isfinite(world.a2):
        return False
    threshold = 0.0 if isinstance(activation, ReLU) else world.a1 / 2
    cross = np.abs(weights @ world.dictionary.astype(np.float64).T)
    own = np.sum(weights * world.dictionary, axis=1)
    np.fill_diagonal(cross, 0.0)
    most = min(world.k, len(cross) - 1)
    top = np.sort(cross, axis=1)[:, ::-1][:, :most]
    outside = world.a2 * top.sum(axis=1)
    inside = world.a2 * top[:, : world.k - 1].sum(axis=1)
    silent = outside + bias <= threshold
    awake = own * world.a1 - inside + bias > threshold
    return bool((silent & awake)[world.p > 0].all())


def _gamma(
    world: GenerativeModel, weights: Floats, bias: float, sample: Sample, activation: Activation
) -> tuple[Floats, float, float]:
    """What samples of another support add to the gradient (m, n), its variance, their share.

    One more such sample is counted than there are, of the size that codes have: where none was
    drawn, some may be left.
    """
    parameters = _parameters(weights, bias)
    found = active(_encode(parameters, sample.data, activation))
    right = (found == active(sample.codes)).all(axis=1)
    n_samples, wrong = len(right), ~right
    typical = 2 * (world.expected_k * world.kappa2 + world.n_features * world.noise**2)
    gamma = np.zeros_like(weights)
    squares = typical**2
    if wrong.any():
        data, codes = sample.data[wrong], sample.codes[wrong]
        count = len(data) / n_samples
        as_is = sample_gradient(parameters, _tensor(data), activation).dictionary.numpy()
        gamma = count * (as_is - gradients.oracle_gradient(weights, bias, data, codes))
        squares += _squares(parameters, data, codes, activation)
    return gamma, squares / n_samples**2, float(right.mean())


def _squares(parameters: Parameters, data: Any, codes: Any, activation: Activation) -> float:
    """The sum over samples of |g - g with the true supports|_F^2, by blocks of a few."""
    weights, bias = parameters.dictionary.numpy(), parameters.bias.numpy()
    sums = []
    for rows in np.array_split(np.arange(len(data)), min(len(data), 4 * N_BLOCKS)):
        as_is = sample_gradient(parameters, _tensor(data[rows]), activation).dictionary.numpy()
        off = as_is - gradients.oracle_gradient(weights, bias, data[rows], codes[rows])
        sums.append(len(rows) * off)
    # Their number is as random as they are: that is what the mean's square stands for.
    found = np.array(sums)
    number = float((found.sum(axis=0) ** 2).sum()) / len(data)
    return number + (
        float(np.var(found, axis=0, ddof=1).sum() * len(found)) if len(found) > 1 else 0.0
    )


def _sampled(
    weights: Floats, bias: float, sample: Sample, activation: Activation
) -> tuple[Floats, float, float]:
    """The samples' gradient (m, n), the variance of all its entries, share of right supports."""
    parameters = _parameters(weights, bias)
    n_blocks = min(N_BLOCKS, len(sample.data))
    found = []
    for rows in np.array_split(np.arange(len(sample.data)), n_blocks):
        data = _tensor(sample.data[rows])
        found.append(sample_gradient(parameters, data, activation).dictionary.numpy())
    codes = _encode(parameters, sample.data, activation)
    share = float((active(codes) == active(sample.codes)).all(axis=1).mean())
    spread2 = math.inf if n_blocks < 2 else float(np.var(found, axis=0, ddof=1).sum() / n_blocks)
    return np.mean(found, axis=0), spread2, share

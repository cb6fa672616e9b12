"""Rangamani et al. 2017, "Sparse coding and autoencoders": its statements, asked of a world.

Theorem 3.1 says that a layer of ReLUs finds the support of a non-negative code; Lemmas 5.1 and
5.2 and Theorem 3.2 say that the gradient of the squared loss is then small near the truth.

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

from shoal.generative import GenerativeModel, coherence, perturb
from shoal.generative._checks import as_generator
from shoal.network import ReLU, sample_gradient
from shoal.theory.assertion import Assertion, Check, at_least, at_most, between, true
from shoal.theory.gradients import oracle_gradient
from shoal.theory.worlds import aligned, distances, is_signed
from shoal.vocabulary import ArgumentError, Parameters, active, check_count, check_number

__all__ = [
    "Expansion",
    "Exponents",
    "alpha_beta",
    "expansion",
    "exponents",
    "failure_probability",
    "gradient_norms",
    "lemma51",
    "lemma52",
    "literal_epsilon",
    "oracle_gradient",
    "separation",
    "theorem31",
    "theorem32",
]

Floats = NDArray[np.float64]
Row = dict[str, Any]

_ENTRIES = 1 << 22  # arbitrary; 32 MiB of float64, the most that one block of samples takes

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


def failure_probability(world: GenerativeModel) -> float:
    """exp(-2 k m1^2 / (b - a)^2), with h^p read as k; 0 where a = b.

    The proof gives it for *one* unit outside the support; the theorem speaks of all units
    without a union bound, which would give h times that (in the numbers of
    :func:`theorem31`).

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
    _check_nonnegative(world)
    return _tail(world, 2.0)


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


def _tail(world: GenerativeModel, factor: float) -> float:
    """exp(-factor k m1^2 / (b - a)^2)."""
    width = world.a2 - world.a1
    return math.exp(-factor * world.k * (world.kappa1 / width) ** 2) if width else 0.0


# --- where a statement is asked --------------------------------------------------------------


class _Place(NamedTuple):
    """A world and a point near its truth."""

    world: GenerativeModel
    weights: Floats  # (m, n), in the order of the true atoms
    bias: Floats  # (m,)
    delta: float  # the largest |W_i - A_i|
    largest: float  # the coherence of the truth


def _place(world: GenerativeModel, dictionary: Any, bias: Any) -> _Place:
    _check_nonnegative(world)
    truth = world.dictionary if dictionary is None else dictionary
    return _place_in_order(world, aligned(world, truth, unit=False), bias)


def _place_in_order(world: GenerativeModel, weights: Floats, bias: Any) -> _Place:
    delta = float(distances(world, weights).max())
    largest = coherence(world.dictionary)
    added = -_epsilon(world, delta, largest) if bias is None else bias
    return _Place(world, weights, _bias(added, len(weights)), delta, largest)


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
    return sample.data.astype(np.float64), active(sample.codes)


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


def _recovery_hypotheses(place: _Place) -> tuple[Check, ...]:
    """What Theorem 3.1 and section 2 ask for."""
    world, delta, largest = place.world, place.delta, place.largest
    _, _, nu2 = _exponents(world, delta, largest)
    lengths = np.linalg.norm(world.dictionary.astype(np.float64), axis=1)
    room = "some nu > 0 has delta <= h^-(p + nu^2) and p + nu^2 < xi: room for nu^2"
    return (
        at_most("true atoms have length 1: largest deviation", abs(lengths - 1.0).max(), 1e-4),
        true(
            "non-zeros lie in [a, b] with 0 < a and b finite", 0 < world.a1 <= world.a2 < math.inf
        ),
        at_most("there is no noise: its standard deviation", world.noise, 0.0),
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
        "literal_epsilon": _epsilon(place.world, place.delta, place.largest),
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
    n_samples = check_count("n_samples", n_samples)
    data, true_on = _sample(world, n_samples, random_state)
    on = _responses(place.weights, place.bias, data)
    failure = failure_probability(world)
    promised = 1.0 - failure
    slack = 3.0 * math.sqrt(failure * promised / n_samples)
    notes = [
        "The probability is the proof's for one unit; the theorem speaks of all units without a"
        " union bound, which would give failure_any in the numbers.",
    ]
    if bias is None and 2.0 * world.kappa1 >= world.a2:
        notes.append(
            "2 m1 >= b, as for every uniform law: the bias exceeds all that k overlaps can add"
            " up to, so units outside the support are silent with certainty."
        )
    return Assertion(
        name="Theorem 3.1",
        source="Rangamani et al. 2017, Theorem 3.1",
        hypotheses=_recovery_hypotheses(place),
        promise=f"units are active just where codes are, with probability >= {promised:.6g}",
        measurements=(
            at_least(
                f"share of {n_samples} samples whose support is exact",
                (on == true_on).all(axis=1).mean(),
                promised - slack,
                "3 standard errors below the promise",
            ),
        ),
        numbers={
            **_numbers(place),
            "failure": failure,
            "failure_any": min(1.0, world.n_atoms * failure),
            "units_right": float((on == true_on).mean()),
            "missed_share": float((true_on & ~on).sum() / max(1, true_on.sum())),
            "silent_share": _silent_share(on),
            "two_m1_over_b": float(2.0 * world.kappa1 / world.a2),
        },
        notes=tuple(notes),
    )


def _silent_share(on: NDArray[np.bool_]) -> float:
    return float((~on.any(axis=1)).mean())


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
    polynomial isn't stated: it is read as 1, and its least degree in h is in the numbers.

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
    tail = _tail(world, 0.5)
    # Two orders of summation: their terms are of the size m2, whatever is left of the sum.
    rounding = 1e-12 * world.kappa2
    on = _responses(place.weights, place.bias, data)
    return Assertion(
        name="Lemma 5.1",
        source="Rangamani et al. 2017, Lemma 5.1",
        hypotheses=(
            *_recovery_hypotheses(place),
            true("b is at most a polynomial in h: finite", world.a2 < math.inf),
        ),
        promise=f"columns of gradient and proxy differ by at most poly(h) * {tail:.4g}",
        measurements=(
            at_most("largest difference of two columns", apart, tail + rounding, "poly(h) = 1"),
        ),
        numbers={
            **_numbers(place),
            "difference": apart,
            "gradient_norm": norm,
            "relative_difference": apart / norm if norm else (0.0 if apart == 0 else math.inf),
            "tail": tail,
            "degree_needed": _degree(apart - rounding, tail, world.n_atoms),
            "exact_share": float((on == true_on).all(axis=1).mean()),
            "silent_share": _silent_share(on),
        },
        notes=("The polynomial in h isn't stated; degree_needed is the least that would do.",),
    )


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

    beta_i = Theta(q1 m2) is read as a factor of at most 2 either way. That alpha - beta and e
    are o(q1 max(m1^2, m2)), with q1 = h^(p - 1), says how they fall along growing h, which one
    world can't tell: its ratios are in the numbers (:func:`theorem32` asks a sequence).

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
    note = "Theta(1) read as a factor of 2"
    return Assertion(
        name="Lemma 5.2",
        source="Rangamani et al. 2017, Lemma 5.2",
        hypotheses=(*_recovery_hypotheses(place), *_criticality_hypotheses(place)),
        promise="the proxy gradient is alpha_i W_i - beta_i A_i + e_i: alpha_i and beta_i"
        " Theta(q1 m2), their difference and e_i of lower order",
        measurements=(
            between("least beta_i / (q1 m2)", _extreme(np.min, beta), 0.5, 2.0, note),
            between("largest beta_i / (q1 m2)", _extreme(np.max, beta), 0.5, 2.0, note),
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
        max(m1^2, m2) k / h, as in Theorem 3.2) and `silent_share` (of samples that no unit
        answers).

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
    q1 = world.k / world.n_atoms
    return {
        "norm": float(norms.mean()),
        "norm_spread": float(norms.std()),
        "over_m2": float(norms.mean() / (world.kappa2 * q1)),
        "expected_norm": expected,
        "ratio": expected / (max(world.kappa1**2, world.kappa2) * q1),
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
    if len(worlds) < 2 or any(b.n_atoms <= a.n_atoms for a, b in pairwise(worlds)):
        found = f"worlds of {', '.join(str(world.n_atoms) for world in worlds) or 'none'} atoms"
        raise ArgumentError("worlds", found, "at least two, their numbers of atoms growing")
    rng = as_generator(random_state)
    rows: list[Row] = []
    asked: list[tuple[Check, ...]] = []
    for world in worlds:
        _check_nonnegative(world)
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
        ),
        promise="the gradient's columns are o(max(m1^2, m2) h^(p - 1)): over that, their norm"
        " falls as h grows",
        measurements=(
            Check(
                f"norm over max(m1^2, m2) k / h at h = {sizes[-1]}",
                ratios[-1],
                f"< {ratios[0]:.4g} (at h = {sizes[0]})",
                bool(ratios[-1] < ratios[0]),
            ),
            Check(
                "some unit answers at every h: largest share of silent samples",
                silent,
                "< 1",
                bool(silent < 1),
            ),
        ),
        numbers={"sweep": rows, "fall": ratios[-1] / ratios[0] if ratios[0] else math.nan},
        notes=(
            "The norm is the root mean square over the columns of the expected gradient; the"
            " theorem speaks of each column. One point at each h stands for the ball.",
        ),
    )


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

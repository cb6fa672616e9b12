"""Arpit et al. 2016, "Why Regularized Auto-Encoders Learn Sparse Representation?", in numbers.

Lemma 1 bounds the bias gradient of the plain objective; Theorem 1 says that a penalty whose bias
gradient is above that bound lowers every unit's mean pre-activation; Corollaries 1 and 2 name
penalties that have one, Theorem 2 makes a sparse code of it, and Remarks 1 and 2 and Theorem 3
say which form the penalties of known autoencoders have.

There is no world here, only data: **every expectation is the mean over the data given**, in
float64. Words: a_j = <W_j, x> + b_j is the pre-activation, h_j = s(a_j) the code, r = x - h W the
residual (less b_d, where a decoder bias is given as a third parameter), J_AE = E |r|^2, without
1/2, as in :mod:`shoal.network.penalties`.

Activations and penalties are told apart by what they do, not by their class: one's own are
treated as those of the library.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoal.generative._checks import as_generator
from shoal.network.activations import (
    Activated,
    Maxout,
    ReLU,
    Sigmoid,
    SmoothActivation,
    Softplus,
    Tanh,
)
from shoal.network.autoencoder import preactivation
from shoal.network.penalties import (
    L1,
    Contractive,
    Decoded,
    KLSparse,
    Marginalized,
    NoPenalty,
    Penalty,
    SecondOrderDenoising,
)
from shoal.theory.assertion import TELLING, Assertion, Check, at_least, at_most, true
from shoal.vocabulary import ArgumentError, Parameters, check_count, check_number

__all__ = [
    "Properties",
    "activation_threshold",
    "assumption1",
    "bias_gradient",
    "corollaries",
    "corollary1",
    "corollary2",
    "equation3",
    "form",
    "lemma1",
    "properties",
    "remark1",
    "remark2",
    "theorem1",
    "theorem2",
    "theorem3",
    "threshold_strength",
    "trajectory",
]

Floats = NDArray[np.float64]
Row = dict[str, Any]

_SOURCE = "Arpit et al. 2016"
_ROUNDING = 1e-9  # of ratios that are at most 1 in exact arithmetic
_BEYOND = 1e12  # of lambda R beside the loss: what asks for more is what rounding leaves of 0


# --- a point: parameters and data --------------------------------------------------------------


class _Point(NamedTuple):
    """Parameters and data in float64, and one pass through the network."""

    parameters: Parameters | Decoded
    data: Tensor  # (N, n)
    z: Tensor  # (N, m)
    activated: Activated  # (N, m) each
    residual: Tensor  # (N, n)

    @property
    def lengths(self) -> Floats:
        """|W_j|, (m,)."""
        return torch.linalg.vector_norm(self.parameters.dictionary, dim=1).numpy()

    @property
    def sigma(self) -> float:
        """sigma_r: the root mean square of all entries of the residual."""
        return float(self.residual.square().mean().sqrt())

    @property
    def bound(self) -> Floats:
        """2 sigma_r sqrt(n) |W_j|, (m,): Lemma 1."""
        return 2.0 * self.sigma * self.data.shape[1] ** 0.5 * self.lengths

    @property
    def encoder(self) -> Parameters:
        """Without a decoder's bias."""
        return Parameters(self.parameters.dictionary, self.parameters.bias)

    @property
    def _pulls(self) -> Tensor:
        """Each sample's part of dJ_AE/db, (N, m)."""
        correlation = self.residual @ self.parameters.dictionary.T  # (N, m)
        return -2.0 * (self.activated.slope * correlation)

    @property
    def plain(self) -> Floats:
        """dJ_AE/db (m,): eq. (15), whose right side lacks a minus."""
        return self._pulls.mean(dim=0).numpy()

    @property
    def plain_weights(self) -> Floats:
        """dJ_AE/dW (m, n)."""
        whole = self._pulls.T @ self.data - 2.0 * self.activated.codes.T @ self.residual
        return (whole / len(self.data)).numpy()

    @property
    def plain_error(self) -> Floats:
        """The standard error of `plain` (m,), the data taken for a sample."""
        return (self._pulls.std(dim=0) / len(self.data) ** 0.5).numpy()

    def residual_of(self, codes: Tensor) -> Tensor:
        """x less what `codes` (N, m) decode to, (N, n)."""
        left = self.data - codes @ self.parameters.dictionary
        return left - self.parameters.decoder_bias if isinstance(self.parameters, Decoded) else left


def _float64(argument: str, values: Any, needed: str) -> Tensor:
    try:
        if not isinstance(values, Tensor):  # torch takes no negative strides, warns of read-only
            values = torch.from_numpy(np.require(values, np.float64, ["C", "W"]))
        tensor = values.detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(argument, f"a {type(values).__name__}", needed) from None
    if not bool(torch.isfinite(tensor).all()):
        raise ArgumentError(argument, "NaN or infinite entries", needed)
    return tensor


def _point(parameters: Any, data: Any, activation: SmoothActivation) -> _Point:
    """Check shapes and make one pass."""
    try:
        dictionary, bias, *rest = parameters
        (decoder,) = rest or [None]
    except (TypeError, ValueError):
        needed = "Parameters, or dictionary (m, n), bias (m,) and, if there is one, b_d (n,)"
        raise ArgumentError("parameters", f"a {type(parameters).__name__}", needed) from None
    atoms = _float64("dictionary", dictionary, "atoms as rows, shape (m, n), finite")
    if atoms.ndim != 2 or atoms.numel() == 0:
        raise ArgumentError("dictionary", f"shape {tuple(atoms.shape)}", "shape (m, n)")
    m, n = atoms.shape
    added = _float64("bias", bias, f"shape ({m},), finite")
    if added.shape != (m,):
        raise ArgumentError("bias", f"shape {tuple(added.shape)}", f"shape ({m},), one a unit")
    samples = _float64("data", data, f"samples as rows, shape (N, {n}), finite")
    if samples.ndim != 2 or len(samples) < 2 or samples.shape[1] != n:
        needed = f"shape (N, {n}) with N >= 2, as many features as the atoms have"
        raise ArgumentError("data", f"shape {tuple(samples.shape)}", needed)
    encoder = Parameters(atoms, added)
    z = preactivation(encoder, samples)
    activated = activation(z)
    if decoder is None:
        return _Point(encoder, samples, z, activated, samples - activated.codes @ atoms)
    shift = _float64("decoder_bias", decoder, f"shape ({n},), finite")
    if shift.shape != (n,):
        raise ArgumentError("decoder_bias", f"shape {tuple(shift.shape)}", f"shape ({n},)")
    residual = samples - activated.codes @ atoms - shift
    return _Point(Decoded(*encoder, shift), samples, z, activated, residual)


def _quantiles(values: Floats) -> list[float]:
    """Least, quartiles and largest; an infinite one where it falls on one."""
    return np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0], method="lower").tolist()


def _ratio(above: Floats, below: Floats) -> Floats:
    """above / below of numbers >= 0, with 0 / 0 = 0 and the rest over 0 infinite."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.divide(above, below, out=np.zeros_like(above), where=above > 0)


# --- what an activation is like ----------------------------------------------------------------


class Properties(NamedTuple):
    """What the paper asks of an activation, section 2.1.2, probed on a grid of [-40, 40]."""

    non_decreasing: bool
    slope_in_unit_interval: bool
    """Lemma 1: s' in [0, 1]."""
    convex: bool
    """No second difference is negative."""
    saturates: bool
    """s(-1e9) is 0 within 1e-6."""
    non_negative: bool
    """No code is below 0, so that E |h| is E h."""
    twice_differentiable: bool
    """The slope moves only as the second derivative says: there is no kink. Theorem 3."""


_GRID = torch.linspace(-40.0, 40.0, 8001, dtype=torch.float64)  # a point at 0, spacing .01


def _pieces(activation: SmoothActivation) -> int:
    """How many units act together; 1 but for maxout."""
    return int(getattr(activation, "pieces", 1))


def _probe(activation: SmoothActivation, z: Tensor) -> Activated:
    """Value and slope of a unit at z (G,); a maxout unit gets the same z in all of its pieces."""
    pieces = _pieces(activation)
    found = activation(z[:, None].expand(-1, pieces))
    return Activated(found.codes.sum(dim=1), found.slope.sum(dim=1))


def _without_kink(activation: SmoothActivation) -> bool:
    """Whether the slope's change over each step of the grid is the integral of the bend."""
    pieces = _pieces(activation)
    z = torch.zeros(len(_GRID), pieces, dtype=torch.float64)
    z[:, 0] = _GRID  # against the other pieces at 0: where the winner changes is a kink
    found = activation(z)
    slope, bend = found.slope[:, 0], activation.bend(found)[:, 0]
    step = float(_GRID[1] - _GRID[0])
    change = slope.diff() - 0.5 * step * (bend[1:] + bend[:-1])
    return float(change.abs().max()) < 1e-4  # the trapezoid's own error is about 1e-7 here


def properties(activation: SmoothActivation) -> Properties:
    """What `activation` is like, by its values, slopes and bends alone: one's own is as good.

    A maxout unit is probed with the same input in all of its pieces, and for kinks with one piece
    against the others at 0.

    Examples
    --------
    >>> properties(Softplus()).convex, properties(Sigmoid()).convex
    (True, False)
    >>> properties(Tanh()).saturates, properties(ReLU()).twice_differentiable
    (False, False)
    """
    value, slope = _probe(activation, _GRID)
    steps = value.diff()
    slack = 1e-9  # of values up to 40 and their differences
    span = float(_GRID[1] - _GRID[0])
    return Properties(
        non_decreasing=bool((steps >= -slack).all()),
        slope_in_unit_interval=bool(
            ((slope >= 0.0) & (slope <= 1.0)).all()
            and ((steps >= -slack) & (steps <= span + slack)).all()
        ),
        convex=bool((steps.diff() >= -slack).all()),
        saturates=abs(float(_probe(activation, torch.tensor([-1e9]).double()).codes)) < 1e-6,
        non_negative=bool((value >= 0.0).all()),
        twice_differentiable=_without_kink(activation),
    )


def activation_threshold(activation: SmoothActivation) -> float:
    """a_min: the largest pre-activation with s(a) <= delta_min. Appendix, proof of Theorem 2.

    By bisection to 1e-16, or the last bit, within [-1000, 1000]; -inf or inf where s is above
    delta_min, or not, on all of it. 0 for ReLU, log(d / (1 - d)) for sigmoid, log(exp(d) - 1) for
    softplus, with d = delta_min. The paper's "delta_min = max s(a_min)" is a misprint for that.

    Examples
    --------
    >>> activation_threshold(ReLU())
    0.0
    >>> round(activation_threshold(Sigmoid()), 6)  # log(.1 / .9)
    -2.197225
    """

    def off(a: float) -> bool:
        value = _probe(activation, torch.tensor([a], dtype=torch.float64)).codes
        return float(value) <= activation.delta_min

    low, high = -1000.0, 1000.0
    if not off(low):
        return -np.inf
    if off(high):
        return np.inf
    while low < (middle := 0.5 * (low + high)) < high and high - low > 1e-16:
        low, high = (middle, high) if off(middle) else (low, middle)
    return low


# --- Assumption 1 and Lemma 1 ------------------------------------------------------------------


def _moments(data: Tensor) -> tuple[Floats, Floats]:
    """Mean (n,), and covariance minus the identity (n, n)."""
    mean = data.mean(dim=0)
    centred = data - mean
    return mean.numpy(), (centred.T @ centred / len(data)).numpy() - np.eye(data.shape[1])


def _whiteness(data: Tensor, tolerance: float) -> tuple[Check, Check]:
    mean, apart = _moments(data)
    return (
        at_most("E x = 0: |mean|", float(np.linalg.norm(mean)), tolerance),
        at_most(
            "E x x^T = I: spectral norm of covariance - I",
            float(np.linalg.norm(apart, 2)),
            tolerance,
        ),
    )


def _residual_facts(residual: Tensor) -> dict[str, float]:
    """What Assumption 1 says of the residual, feature by feature."""
    r = residual.numpy()
    mean, spread = r.mean(axis=0), r.std(axis=0)
    root = float(np.sqrt(np.square(r).mean()))
    seen = spread > 1e-12 * root  # a feature without residual has no shape
    centred = (r - mean)[:, seen] / spread[seen]
    together = centred.T @ centred / len(r)
    np.fill_diagonal(together, 0.0)
    kurtosis = np.power(centred, 4).mean(axis=0)
    return {
        "sigma_r": root,
        "mean": float(np.abs(mean).max() / root) if root else 0.0,
        "least_std": float(spread.min()),
        "mean_std": float(spread.mean()),
        "largest_std": float(spread.max()),
        "std_spread": float((spread.max() - spread.min()) / root) if root else 0.0,
        "kurtosis_mean": float(kurtosis.mean()) if seen.any() else np.nan,
        "kurtosis_apart": float(np.abs(kurtosis - 3.0).max()) if seen.any() else np.nan,
        "correlation": float(np.abs(together).max()) if seen.any() else 0.0,
    }


def _assumed(point: _Point, facts: dict[str, float], tolerance: float) -> tuple[Check, ...]:
    return (
        *_whiteness(point.data, tolerance),
        at_most("residual: largest |mean| of a feature / sigma_r", facts["mean"], tolerance),
        at_most(
            "residual: (largest - least) standard deviation of a feature / sigma_r",
            facts["std_spread"],
            tolerance,
        ),
        at_most("residual: largest correlation", facts["correlation"], tolerance),
        at_most(
            "residual: largest |kurtosis - 3| of a feature",
            facts["kurtosis_apart"],
            10.0 * tolerance,
        ),
    )


def assumption1(
    parameters: Any, data: Any, activation: SmoothActivation, *, tolerance: float = 0.1
) -> Assertion:
    """Assumption 1: white data, and a residual of i.i.d. Gaussian entries with mean 0.

    Parameters
    ----------
    parameters : Parameters or (dictionary, bias)
        W (m, n) and b (m,).
    data : array_like of shape (N, n)
        The samples, at least 2.
    activation : SmoothActivation
        s.
    tolerance : float
        How far each may be off: |mean|, the spectral norm of covariance - I, the residual's
        means and the range of its standard deviations beside sigma_r, the largest correlation of
        two of its features; ten times that for its kurtosis beside 3.

    Returns
    -------
    Assertion
        What is assumed stands among the measurements; "confirmed" where all of it holds, else "not
        promised", as nothing that rests on it is. sigma_r, everywhere in this module, is the
        root mean square of all entries of the residual.

    Raises
    ------
    ArgumentError
        If shapes don't fit or entries aren't finite.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> data = rng.normal(size=(4000, 3))
    >>> assumption1((np.zeros((2, 3)), np.zeros(2)), data, ReLU()).verdict  # r = x
    'confirmed'
    """
    point = _point(parameters, data, activation)
    tolerance = check_number("tolerance", tolerance, low=0.0)
    facts = _residual_facts(point.residual)
    mean, apart = _moments(point.data)
    measurements = _assumed(point, facts, tolerance)
    met = all(check.holds for check in measurements)
    return Assertion(
        name="Assumption 1",
        source=f"{_SOURCE}, Assumption 1",
        # An assumption is no claim about all data: data that don't meet it contradict nothing.
        hypotheses=(true("the data and the residual are as assumed", met),),
        promise="data have mean 0 and covariance I, the entries of the residual are i.i.d."
        f" Gaussian with mean 0: sigma_r = {facts['sigma_r']:.4g}",
        measurements=measurements,
        numbers={
            **facts,
            "mean_entry": float(np.abs(mean).max()),
            "covariance_entry": float(np.abs(apart).max()),
            "tolerance": tolerance,
        },
        notes=("Independence is asked by correlations, the Gaussian by its kurtosis alone.",),
    )


def lemma1(
    parameters: Any, data: Any, activation: SmoothActivation, *, tolerance: float = 0.1
) -> Assertion:
    """Lemma 1: |dJ_AE/db_j| <= 2 sigma_r sqrt(n) |W_j|, in the appendix with its proof.

    With sigma_r the root mean square residual this needs only s' in [0, 1], whatever the data and
    the residual. dJ_AE/db_j = -2 E[s'(a_j) <r, W_j>], so by Cauchy-Schwarz in R^n, s' <= 1 and
    Jensen

        |dJ_AE/db_j| <= 2 E[|r|] |W_j| <= 2 sqrt(E |r|^2) |W_j| = 2 sigma_r sqrt(n) |W_j|,

    as n sigma_r^2 = E |r|^2: identical distribution or independence of the entries is not used,
    nor is their mean, nor that x is white. Equality: s' = 1 and r the same multiple of W_j
    everywhere.

    Parameters and errors are those of :func:`assumption1`; `tolerance` is for mean and covariance.

    Examples
    --------
    One feature, x = 2 always, h = x - 1: r = 1 and the bound is reached.

    >>> found = lemma1(([[1.0]], [-1.0]), [[2.0], [2.0]], ReLU())
    >>> found.measurements[0].value, found.verdict
    (1.0, 'holds beyond its hypotheses')
    """
    point = _point(parameters, data, activation)
    tolerance = check_number("tolerance", tolerance, low=0.0)
    gradient, bound = point.plain, point.bound
    share = _ratio(np.abs(gradient), bound)
    return Assertion(
        name="Lemma 1",
        source=f"{_SOURCE}, Lemma 1",
        hypotheses=(
            *_whiteness(point.data, tolerance),
            true("s' in [0, 1]", properties(activation).slope_in_unit_interval),
        ),
        promise=f"|dJ_AE/db_j| <= 2 sigma_r sqrt(n) |W_j|, at most {bound.max():.4g} here",
        measurements=(
            at_most(
                "largest |dJ_AE/db_j| / (2 sigma_r sqrt(n) |W_j|)",
                float(share.max()),
                1.0 + _ROUNDING,
                "1, and rounding",
            ),
        ),
        numbers={
            "sigma_r": point.sigma,
            "bound": _quantiles(bound),
            "gradient": _quantiles(gradient),
            "share_of_bound": _quantiles(share),
            **{f"residual_{key}": value for key, value in _residual_facts(point.residual).items()},
        },
        remarks=(
            "With sigma_r as root mean square residual the bound needs neither white data nor an"
            " i.i.d. residual, only s' in [0, 1].",
        ),
        errata=("Eq. (15) lacks a minus before 2 E[s' <r, W_j>]; the bound is symmetric.",),
    )


def equation3(
    parameters: Any, data: Any, activation: SmoothActivation, *, tolerance: float = 1e-6
) -> Assertion:
    """Eq. (3): without an encoding bias E a_j = <W_j, E x> = 0, whatever W is.

    So that "in order for hidden units to exhibit sparse behaviour, encoding bias needs to be a part
    of AE optimization", as far as E[a_j] is how they do. That E[a_j] is 0 limits how sparse a unit
    can be by Cantelli's inequality alone: Pr(a_j > d) <= |W_j|^2 / (|W_j|^2 + d^2), which is 1 at
    d = 0. A ReLU unit without a bias may be active on as few samples as its data are skewed.

    Parameters and errors are those of :func:`assumption1`; `tolerance` is for the mean of the data.

    Examples
    --------
    >>> found = equation3(([[1.0]], [0.0]), [[-1.0], [1.0]], ReLU())
    >>> found.verdict, found.numbers["activation_fraction"]
    ('confirmed', 0.5)
    >>> equation3(([[1.0]], [-0.5]), [[-1.0], [1.0]], ReLU()).verdict
    'not promised'
    """
    point = _point(parameters, data, activation)
    tolerance = check_number("tolerance", tolerance, low=0.0)
    mean = point.z.mean(dim=0).numpy()
    share = (point.activated.codes > activation.delta_min).double().mean(dim=0).numpy()
    return Assertion(
        name="Equation (3)",
        source=f"{_SOURCE}, eq. (3) and what follows it",
        hypotheses=(
            _whiteness(point.data, tolerance)[0],
            at_most("no bias: largest |b_j|", float(point.encoder.bias.abs().max()), 0.0),
        ),
        promise="E a_j = 0 for every unit, at every iteration",
        measurements=(
            at_most(
                "largest |E a_j| / |W_j|",
                float(_ratio(np.abs(mean), point.lengths).max()),
                tolerance + _ROUNDING,
            ),
        ),
        numbers={
            "mean": _quantiles(mean),
            "activation_fraction": float(share.mean()),
            "activation_fractions": _quantiles(share),
        },
        remarks=(
            "E a_j = 0 bounds no activation fraction at a threshold of 0: skewed data make a ReLU"
            " unit without a bias as sparse as they are skewed.",
        ),
    )


# --- Theorem 1 ---------------------------------------------------------------------------------

# Arbitrary; so large that what J_AE leaves of rounding in a difference is far below R's own, and
# a power of 2, so that nothing is lost with it.
_STRENGTH = 2.0**40


def _of_strength(penalty: Penalty, strength: float) -> Penalty:
    try:
        if dataclasses.is_dataclass(penalty):
            return dataclasses.replace(penalty, strength=strength)
        other: Any = copy.copy(penalty)
        _ = other.strength  # it has one already
        other.strength = strength
    except ArgumentError:  # a strength that has an end, as the probability of masking noise
        needed = "a penalty without noise, that is linear in its strength"
        raise ArgumentError("penalty", repr(penalty), needed) from None
    except (TypeError, AttributeError):
        needed = "a penalty with a `strength` that can be set, as those of shoal.network.penalties"
        raise ArgumentError("penalty", repr(penalty), needed) from None
    found: Penalty = other
    return found


class _Push(NamedTuple):
    """R at strength 1, on all of the data as one batch, and its gradient."""

    value: float
    dictionary: Floats  # (m, n)
    bias: Floats  # (m,)


def _push(point: _Point, activation: SmoothActivation, penalty: Penalty) -> _Push:
    """What a penalty does, as the difference that its strength makes: it is linear in it."""
    generator = torch.Generator()
    before = generator.get_state()
    parameters, weights = point.parameters, point.parameters.dictionary
    strong = _of_strength(penalty, _STRENGTH)(parameters, point.data, activation, generator)
    if not torch.equal(before, generator.get_state()):
        needed = "a penalty without noise, such as SecondOrderDenoising for Denoising"
        raise ArgumentError("penalty", repr(penalty), needed)
    rest = NoPenalty()(parameters, point.data, activation)
    return _Push(
        float(strong.penalty) / _STRENGTH,
        ((strong.gradient(weights) - rest.gradient(weights)) / _STRENGTH).numpy(),
        ((strong.bias - rest.bias) / _STRENGTH).numpy(),
    )


def _bias_gradient(point: _Point, activation: SmoothActivation, penalty: Penalty) -> Floats:
    return _push(point, activation, penalty).bias


def bias_gradient(
    parameters: Any, data: Any, activation: SmoothActivation, penalty: Penalty
) -> Floats:
    """dR/db, the penalty's bias gradient at strength 1, on all of the data as one batch.

    Parameters
    ----------
    parameters, data, activation
        As for :func:`assumption1`.
    penalty : Penalty
        Without noise, and linear in its strength; what its strength is does not matter. It may be
        one's own: with a `strength` that can be set, or a dataclass with such a field.

    Returns
    -------
    ndarray of shape (m,)

    Raises
    ------
    ArgumentError
        As :func:`assumption1`, and if the penalty draws noise or has no strength.

    Examples
    --------
    The slope of softplus at 0 is 1/2, its second derivative 1/4: 2 s' s'' |W|^2.

    >>> bias_gradient(([[1.0]], [0.0]), [[0.0], [0.0]], Softplus(), Contractive(1.0)).tolist()
    [0.25]
    """
    return _bias_gradient(_point(parameters, data, activation), activation, penalty)


def _least_strengths(point: _Point, push: Floats) -> Floats:
    """Each unit's own threshold (m,): the bound over dR/db_j, inf where that is not above 0."""
    return np.where(push > 0, _ratio(point.bound, np.where(push > 0, push, 1.0)), np.inf)


def threshold_strength(
    parameters: Any, data: Any, activation: SmoothActivation, penalty: Penalty
) -> float:
    """The strength above which Theorem 1 promises that every unit's mean pre-activation falls.

    The largest over units of 2 sigma_r sqrt(n) |W_j| / (dR/db_j); inf where dR/db_j <= 0 for some
    unit. Parameters and errors are those of :func:`bias_gradient`.

    Examples
    --------
    >>> threshold_strength(([[1.0]], [-1.0]), [[2.0], [2.0]], ReLU(), L1(1.0))
    2.0
    """
    point = _point(parameters, data, activation)
    return float(_least_strengths(point, _bias_gradient(point, activation, penalty)).max())


def theorem1(
    parameters: Any,
    data: Any,
    activation: SmoothActivation,
    penalty: Penalty,
    step: float = 1e-3,
    *,
    tolerance: float = 1e-6,
) -> Assertion:
    """Theorem 1: where lambda dR/db_j is above Lemma 1's bound, a step lowers E[a_j].

    One plain step W - step dJ/dW, b - step dJ/db on all of the data. Where E x = 0 exactly,
    E[a_j] changes by -step dJ/db_j whatever the step, eq. (5): the theorem is not one of small
    steps. Where a mean is left, step <dJ/dW_j, E x> goes off as well.

    Parameters
    ----------
    parameters, data, activation
        As for :func:`assumption1`.
    penalty : Penalty
        Without noise, at the strength that is asked about. See :func:`threshold_strength`.
    step : float
        eta, above 0.
    tolerance : float
        For |mean| and the spectral norm of covariance - I: **small, as the data must be whitened
        for the promise**, and the same for what is promised of the variance.

    Returns
    -------
    Assertion
        Its numbers have, over the units (least, quartiles, largest), the strength that each one
        needs, and the change of E[a_j].

    Raises
    ------
    ArgumentError
        As :func:`bias_gradient`, and if `step` is not above 0.

    Examples
    --------
    >>> data, place = [[-1.0], [1.0]], ([[1.0]], [0.5])
    >>> strength = threshold_strength(place, data, Softplus(), Contractive(1.0))
    >>> theorem1(place, data, Softplus(), Contractive(1.01 * strength)).verdict
    'confirmed'
    """
    point = _point(parameters, data, activation)
    step = check_number("step", step, low=0.0, open_low=True)
    tolerance = check_number("tolerance", tolerance, low=0.0)
    push = _bias_gradient(point, activation, penalty)
    need = _least_strengths(point, push)
    strength = float(penalty.strength)
    lifted = strength * push
    margin = np.where(lifted > 0, _ratio(lifted, point.bound), 0.0)
    after, change = _stepped(point, activation, penalty, step)
    variance, length = _variance(after, point.data), after.dictionary.square().sum(dim=1).numpy()
    off = _ratio(np.abs(variance - length), length)
    falls = float((change < 0).mean())
    return Assertion(
        name="Theorem 1",
        source=f"{_SOURCE}, Theorem 1",
        hypotheses=(
            *_whiteness(point.data, tolerance),
            true("s' in [0, 1]", properties(activation).slope_in_unit_interval),
            Check(
                "least lambda dR/db_j / (2 sigma_r sqrt(n) |W_j|)",
                float(margin.min()),
                "> 1",
                bool(margin.min() > 1.0),
            ),
        ),
        promise="one step along the negative gradient lowers E[a_j] of every unit, and"
        " Var[a_j] = |W_j|^2 after it",
        measurements=(
            at_least("share of units whose E[a_j] falls", falls, 1.0),
            at_most(
                "largest |Var[a_j] / |W_j|^2 - 1| after the step",
                float(off.max()),
                tolerance + _ROUNDING,
            ),
        ),
        numbers={
            "strength": strength,
            "threshold": float(need.max()),
            "least_strength": _quantiles(need),
            "units_without_push": int((push <= 0).sum()),
            "units_above_their_own": float((strength > need).mean()),
            "change": _quantiles(change),
            "share_that_falls": falls,
            "share_that_rises": float((change > 0).mean()),
            "penalty_gradient": _quantiles(lifted),
            "plain_gradient": _quantiles(point.plain),
            "sigma_r": point.sigma,
            "step": step,
        },
        remarks=(
            "Sufficient, not necessary: the plain gradient of most units is far from Lemma 1's"
            " bound, and they fall at a much smaller strength. Units that never switch off and"
            " whose residual is constant reach it.",
            "E x = 0 must hold exactly: a step of the weights moves E[a_j] by <dJ/dW_j, E x>.",
        ),
        errata=("The proof's last step has epsilon where sigma_r is meant.",),
    )


def _stepped(
    point: _Point, activation: SmoothActivation, penalty: Penalty, step: float
) -> tuple[Parameters, Floats]:
    """The parameters after one plain step, and the change of E[a_j] (m,) on the data."""
    before = point.parameters
    terms = penalty(before, point.data, activation)
    down_w, down_b = -step * terms.gradient(before.dictionary), -step * terms.bias
    change = down_w @ point.data.mean(dim=0) + down_b
    return Parameters(before.dictionary + down_w, before.bias + down_b), change.numpy()


def _variance(parameters: Parameters, data: Tensor) -> Floats:
    """Var[a_j] (m,) on the data."""
    return preactivation(parameters, data).var(dim=0, correction=0).numpy()


# --- Corollaries 1 and 2 -----------------------------------------------------------------------

_FORMS = {1: "R = sum_j f(E h_j)", 2: "R = E sum_j s'(a_j)^q |W_j|^p"}
_MOST = 6  # the largest q and p that are looked for; the paper's are 2, and 2 or 4


class Form(NamedTuple):
    """What R is like, by its values and gradients."""

    corollary: int | None
    """1: R = sum_j f(E h_j). 2: R = E sum_j s'^q |W_j|^p. None: neither."""
    q: int | None = None
    """None where any would do: all slopes are 0 or 1."""
    p: int | None = None


def form(n_features: int, activation: SmoothActivation, penalty: Penalty) -> Form:
    """Which corollary's form a penalty has with this activation, library's or one's own.

    Told by what it does at random places: R of the second form is a multiple of E sum_j s'^q
    |W_j|^p, with q and p up to 6. R of the first is a sum over the units, the same whatever their
    order, and depends on W and b through the mean codes alone: dR/dW_j = f'(E h_j) E[s'_j x] with
    dR/db_j = f'(E h_j) E[s'_j]. f may be any; whether it increases is asked where units are.

    Parameters
    ----------
    n_features : int
        n.
    activation : SmoothActivation
    penalty : Penalty
        Without noise, and linear in its strength.

    Returns
    -------
    Form

    Raises
    ------
    ArgumentError
        If the penalty draws noise or has no strength.

    Examples
    --------
    >>> form(3, Softplus(), Contractive(1.0)), form(3, Sigmoid(), KLSparse(1.0)).corollary
    (Form(corollary=2, q=2, p=2), 1)
    >>> form(3, Tanh(), L1(1.0)).corollary  # E |h| is E h of codes that are never negative alone
    """
    check_count("n_features", n_features)
    rng = np.random.default_rng(0)
    # Some on, some off, some between; atoms of several lengths.
    points = [_drawn(rng, n_features, activation, scale) for scale in (0.3, 1.0, 2.0, 1.0)]
    pushes = [_push(point, activation, penalty) for point in points]
    values = np.array([push.value for push in pushes])
    for q, p in np.ndindex(_MOST, _MOST + 1):
        sums = np.array([_of_slopes(point, q + 1, p) for point in points])
        multiple = values @ sums / (sums @ sums)
        if multiple > 0 and np.allclose(values, multiple * sums, rtol=1e-8, atol=0.0):
            return Form(2, None if _hard(points) else q + 1, p)
    acts = any(push.bias.any() for push in pushes)
    by_means = acts and all(map(_through_the_means, points, pushes))
    return Form(1 if by_means and _is_a_sum(points, activation, penalty, values) else None)


def _drawn(rng: np.random.Generator, n: int, activation: SmoothActivation, length: float) -> _Point:
    m = 6 * _pieces(activation)
    weights = rng.normal(size=(m, n))
    weights *= length * rng.uniform(0.5, 1.5, (m, 1)) / np.linalg.norm(weights, axis=1)[:, None]
    return _point((weights, rng.uniform(-1.5, 0.5, m)), rng.normal(size=(40, n)), activation)


def _hard(points: list[_Point]) -> bool:
    """Whether all slopes are 0 or 1."""
    slopes = [point.activated.slope for point in points]
    return all(bool(((slope == 0) | (slope == 1)).all()) for slope in slopes)


def _of_slopes(point: _Point, q: int, p: int) -> float:
    """E sum_j s'^q |W_j|^p."""
    return float(point.activated.slope.pow(q).mean(dim=0).numpy() @ point.lengths**p)


def _through_the_means(point: _Point, push: _Push) -> bool:
    """Whether dR/dW_j is to E[s'_j x] as dR/db_j is to E[s'_j], for every unit."""
    slope = point.activated.slope
    own = slope.mean(dim=0).numpy()[:, None]  # (m, 1)
    along = (slope.T @ point.data / len(point.data)).numpy()  # (m, n)
    left, right = push.dictionary * own, push.bias[:, None] * along
    size = np.abs(push.bias).max() * np.abs(along).max() + np.abs(push.dictionary * own).max()
    return bool((np.abs(left - right) <= 1e-8 * size).all())


def _is_a_sum(
    points: list[_Point], activation: SmoothActivation, penalty: Penalty, values: Floats
) -> bool:
    """Whether R of all units is R of those before the middle and R of those after it."""
    pieces = _pieces(activation)
    for point, value in zip(points, values, strict=True):
        m = len(point.parameters.bias)
        middle = m // pieces // 2 * pieces
        order = torch.arange(m).reshape(-1, pieces).flip(0).reshape(-1)
        parts = [
            _push(_of_units(point, units, activation), activation, penalty).value
            for units in (slice(0, middle), slice(middle, m), order)
        ]
        if not np.allclose([parts[0] + parts[1], parts[2]], value, rtol=1e-8, atol=1e-12):
            return False
    return True


def _of_units(point: _Point, units: Any, activation: SmoothActivation) -> _Point:
    return _point(tuple(part[units] for part in point.encoder), point.data, activation)


def _slopes_of_f(point: _Point, push: _Push) -> Floats:
    """f'(E h_j) (m,) of R = sum_j f(E h_j); NaN of units whose mean code does not move."""
    own = point.activated.slope.mean(dim=0).numpy()
    return np.where(own != 0, push.bias / np.where(own != 0, own, 1.0), np.nan)


def _where_f_is_flat(
    point: _Point, slopes: Floats, activation: SmoothActivation, penalty: Penalty
) -> int:
    """Units at which f does not increase: it falls, or a larger bias leaves R as it is."""
    falls = slopes < 0
    flat = np.zeros_like(falls)
    for unit in np.flatnonzero(slopes == 0)[:_FLAT_UNITS]:  # f' = 0: a flat piece, or u^3 at 0
        values = []
        for moved in (-1e-3, 1e-3):
            bias = point.encoder.bias.clone()
            bias[unit] += moved
            there = _point((point.encoder.dictionary, bias), point.data, activation)
            values.append(_push(there, activation, penalty).value)
        flat[unit] = values[1] <= values[0]
    return int((falls | flat).sum())


_FLAT_UNITS = 64  # arbitrary: two passes over the data for each


def _asks(corollary: int, found: Properties) -> tuple[Check, ...]:
    """What a corollary asks of the activation."""
    convex = (true("s is convex", found.convex),) if corollary == 2 else ()
    return (
        true("s is non-decreasing", found.non_decreasing),
        true("s' in [0, 1]", found.slope_in_unit_interval),
        *convex,
    )


class _Motions(NamedTuple):
    """How E[a_j] moves under one step of descent, for each unit, and which lambda would do.

    It changes by -eta (plain + lambda push): eq. (5).
    """

    plain: Floats  # (m,)
    push: Floats  # (m,)
    rising: NDArray[np.bool_]  # (m,) it rises whatever lambda is
    surely: NDArray[np.bool_]  # (m,) and no sampling error is the reason
    low: float  # no E[a_j] rises for a lambda from here
    high: float  # to here; there is none where low > high, or high is 0

    @property
    def exists(self) -> bool:
        """Whether one lambda > 0 does for all units."""
        return not self.rising.any() and math.isfinite(self.low) and 0 < self.high >= self.low


def _motions(point: _Point, push: _Push, centred: bool) -> _Motions:
    """Where E x is 0, of the bias alone; else of the weights along E x as well."""
    moved, pushed = point.plain, push.bias
    if not centred:
        mean = point.data.mean(dim=0).numpy()
        moved = moved + point.plain_weights @ mean
        pushed = pushed + push.dictionary @ mean
    slack = _ROUNDING * (point.bound + np.abs(moved - point.plain))
    need = np.where(moved < -slack, -moved, 0.0)
    loss = float(point.residual.square().sum()) / len(point.data)
    # What rounding leaves of a bend that is 0 is no push: with such a lambda the loss is nothing.
    most = _BEYOND * loss / abs(push.value) if push.value else np.inf
    up = (pushed > 0) & (need <= most * pushed)
    down, rising = pushed < 0, (need > 0) & ~up
    low = float(_ratio(need[up], pushed[up]).max(initial=0.0))
    high = float((np.maximum(moved[down], 0.0) / -pushed[down]).min(initial=np.inf))
    surely = rising & (moved < -TELLING * point.plain_error)
    return _Motions(moved, pushed, rising, surely, low, high)


def _corollary(
    number: int,
    parameters: Any,
    data: Any,
    activation: SmoothActivation,
    penalty: Penalty,
    tolerance: float,
) -> Assertion:
    point = _point(parameters, data, activation)
    tolerance = check_number("tolerance", tolerance, low=0.0)
    push, found = _push(point, activation, penalty), properties(activation)
    shape = form(point.data.shape[1], activation, penalty)
    white = _whiteness(point.data, tolerance)
    motions = _motions(point, push, white[0].holds)
    needs = [*white, *_asks(number, found)]
    needs.append(true(_FORMS[number], shape.corollary == number, _said(penalty, shape)))
    if number == 1:
        slopes = _slopes_of_f(point, push)
        flat = _where_f_is_flat(point, slopes, activation, penalty)
        needs.append(at_most("units at whose E h_j f does not increase", flat, 0))
    need = _least_strengths(point, push.bias)
    rising, unsure = motions.rising, motions.rising.any() and not motions.surely.any()
    error = math.inf if unsure else 0.0  # more samples may take each of these units away
    between = f"lambda from {motions.low:.4g} to {motions.high:.4g}" if motions.exists else ""
    return Assertion(
        name=f"Corollary {number}",
        source=f"{_SOURCE}, Corollary {number}",
        hypotheses=tuple(needs),
        promise="with some lambda > 0 a step along the negative gradient raises no E[a_j]",
        measurements=(
            at_least(
                "least dR/db_j, the proof's step",
                float(push.bias.min()),
                -abs(push.value) / _BEYOND,
                "0, and rounding",
            ),
            at_most("units whose E[a_j] rises whatever lambda is", rising.sum(), 0, error=error),
            at_least(
                "one lambda does for all units", float(motions.exists), 1.0, between, error=error
            ),
        ),
        numbers={
            "penalty_gradient": _quantiles(push.bias),
            "plain_gradient": _quantiles(point.plain),
            "threshold": float(need.max()),
            "least_strength": _quantiles(need),
            "units_at_zero": int((push.bias == 0).sum()),
            "units_that_rise_whatever_lambda": int(rising.sum()),
            "units_that_surely_do": int(motions.surely.sum()),
            "rising_units": np.flatnonzero(rising).tolist(),
            "lambda": [motions.low, motions.high] if motions.exists else None,
            "form": shape._asdict(),
            "saturates": found.saturates,
        },
        notes=(
            "One iteration: E[a_j] changes by -eta (dJ_AE/db_j + lambda dR/db_j), eq. (5), and by"
            " what the weights do along E x where that is not 0. The data given are the"
            " distribution: a derivative that no sample sees is 0.",
            "A unit counts against the corollary where dJ_AE/db_j is below 0 by more than"
            f" {TELLING:g} standard errors.",
        ),
        errata=(_NO_LAMBDA[number],),
    )


_NO_LAMBDA = {
    1: "The proof shows dR/db_j >= 0; that there is a lambda needs more. dR/db_j = f'(E h_j)"
    " E[s'_j] is 0 only with dJ_AE/db_j where f' > 0; where f' = 0, as of u^3 at 0, E[a_j] may rise"
    " whatever lambda is.",
    2: "The proof shows dR/db_j >= 0; that there is a lambda needs dR/db_j > 0 wherever"
    " dJ_AE/db_j < 0. Where s'' is 0 at all samples, as of ReLU but for its kink, or of any s that"
    " is linear there, dR/db_j = 0 and E[a_j] may rise whatever lambda is. Of ReLU on data with a"
    " density at its kink the Dirac of footnote 1 does push; automatic differentiation does not"
    " see it: Contractive(kink=...) estimates it.",
}


def _said(penalty: Penalty, shape: Form) -> str:
    if shape.corollary != 2:
        return repr(penalty)
    q = "any q" if shape.q is None else f"q = {shape.q}"
    return f"{penalty!r}, {q}, p = {shape.p}"


def corollary1(
    parameters: Any,
    data: Any,
    activation: SmoothActivation,
    penalty: Penalty,
    *,
    tolerance: float = 1e-6,
) -> Assertion:
    """Corollary 1: for non-decreasing s and R = sum_j f(E h_j) some lambda raises no E[a_j].

    Of that form are MeanActivation; KLSparse with rho = 0, eq. (13), up to where its mean code is
    held (there f does not increase); L1 for activations that are never negative; and whichever of
    one's own :func:`form` finds to be. Measured are both what the proof shows, dR/db_j >= 0, and
    what the corollary says: unit by unit, whether some lambda lowers E[a_j] or leaves it.

    Parameters and errors are those of :func:`bias_gradient`; `tolerance` is for |mean| and the
    spectral norm of covariance - I.

    Examples
    --------
    >>> corollary1(([[1.0]], [0.0]), [[-1.0], [1.0]], Sigmoid(), KLSparse(1.0)).verdict
    'confirmed'
    """
    return _corollary(1, parameters, data, activation, penalty, tolerance)


def corollary2(
    parameters: Any,
    data: Any,
    activation: SmoothActivation,
    penalty: Penalty,
    *,
    tolerance: float = 1e-6,
) -> Assertion:
    """Corollary 2: for non-decreasing convex s and R = E sum_j s'_j^q |W_j|^p some lambda does.

    Of that form are SlopePenalty, Contractive (q = 2, p = 2), Marginalized (p = 4), Remarks 1 and
    2, and whichever of one's own :func:`form` finds to be. Measured is what
    :func:`corollary1` measures. **As printed it is false**: s'' may be 0 wherever there are
    data. Of ReLU, of which the paper says that it applies, no lambda holds down a unit whose
    dJ_AE/db_j is below 0.

    Parameters and errors are those of :func:`corollary1`.

    Examples
    --------
    >>> at = ([[1.0]], [1.0]), [[-1.0], [1.0]]
    >>> [corollary2(*at, each, Contractive(1.0)).verdict for each in (Softplus(), Sigmoid())]
    ['confirmed', 'not promised']
    """
    return _corollary(2, parameters, data, activation, penalty, tolerance)


def corollaries(
    random_state: Any = 0,
    *,
    activations: Iterable[SmoothActivation] = (),
    penalties: Mapping[str, Penalty] | None = None,
) -> list[Row]:
    """Section 2 as a table: which activation with which penalty is promised to make sparse codes.

    Parameters
    ----------
    random_state : None, int or numpy.random.Generator
        The seed of the draw: 8 units of length .7 with biases from -1.5 to .25, so that
        E[h] < 1 as eq. (13) asks, on 2000 whitened samples of 6 features.
    activations : iterable of SmoothActivation
        Of one's own, beside the library's five.
    penalties : mapping from str to Penalty, optional
        Of one's own, beside the library's five; without noise.

    Returns
    -------
    list of dict
        One row for each activation and penalty: `corollary`, whose :func:`form` the penalty has
        (None: neither, or an f that falls at one of the units; for "dae" the first of the
        second-order terms of eq. (7)); the activation's :class:`Properties`; `applies`, whether it
        has what that corollary asks; `promised`, whether it saturates at 0 as well;
        `least_bias_gradient` on the draw, for "dae" of that first term and `whole_form` of all
        three; `rises`, how many of the 8 units rise whatever the strength; `predicted`, whether
        sparsity is promised and the least bias gradient above 0, which section 3.1 asks beside.

    Raises
    ------
    ArgumentError
        As :func:`bias_gradient`, of the penalties given.

    Examples
    --------
    >>> table = {(row["activation"], row["penalty"]): row for row in corollaries()}
    >>> [table[each, "cae"]["predicted"] for each in ("Softplus", "ReLU", "Sigmoid")]
    [True, False, False]
    """
    rng = as_generator(random_state)
    weights = rng.normal(size=(8, 6))
    weights *= 0.7 / np.linalg.norm(weights, axis=1, keepdims=True)
    data = rng.normal(size=(2000, 6))
    data -= data.mean(axis=0)
    data = data @ np.linalg.inv(np.linalg.cholesky(data.T @ data / len(data))).T
    place = (weights, np.linspace(-1.5, 0.25, 8))
    known: list[SmoothActivation] = [ReLU(), Softplus(), Sigmoid(), Tanh(), Maxout()]
    named: dict[str, Penalty] = {
        "dae": Marginalized(1.0),
        "cae": Contractive(1.0),
        "mdae": Marginalized(1.0),
        "sae": KLSparse(1.0),
        "l1": L1(1.0),
    }
    named |= penalties or {}
    return [
        _entry(place, data, activation, name, penalty)
        for activation in [*known, *activations]
        for name, penalty in named.items()
    ]


def _entry(
    place: tuple[Floats, Floats],
    data: Floats,
    activation: SmoothActivation,
    name: str,
    penalty: Penalty,
) -> Row:
    point, found = _point(place, data, activation), properties(activation)
    push = _push(point, activation, penalty)
    corollary = form(data.shape[1], activation, penalty).corollary
    if corollary == 1 and bool((_slopes_of_f(point, push) < 0).any()):
        corollary = None
    least = float(push.bias.min())
    applies = corollary is not None and all(check.holds for check in _asks(corollary, found))
    promised = applies and found.saturates
    row = {
        "activation": type(activation).__name__,
        "penalty": name,
        "corollary": corollary,
        **found._asdict(),
        "applies": applies,
        "promised": promised,
        "least_bias_gradient": least,
        "rises": int(_motions(point, push, centred=True).rising.sum()),
        "predicted": promised and least > 0,
    }
    if name == "dae":
        whole = _bias_gradient(point, activation, SecondOrderDenoising(1.0))
        row["whole_form"] = float(whole.min())
    return row


# --- Theorem 2 ---------------------------------------------------------------------------------


def _chebyshev(mean: Floats, variance: Floats, a_min: float) -> Floats:
    """Eq. (22): the bound where E[a_j] < a_min, NaN elsewhere."""
    gap = a_min - mean
    below = gap > 0
    return np.where(below, 1.0 - variance / np.square(np.where(below, gap, 1.0)), np.nan)


def theorem2(
    parameters: Any,
    data: Any,
    activation: SmoothActivation,
    penalty: Penalty | None = None,
    *,
    step: float = 1e-3,
) -> Assertion:
    """Theorem 2: a lower bound of Pr(h_j <= delta_min), by Chebyshev, eq. (22).

    1 - Var[a_j] / (a_min - E[a_j])^2 for units with E[a_j] < a_min (:func:`activation_threshold`),
    no promise for others. With Var[a_j] measured on the data it holds of any data; with |W_j|^2 in
    its place, as in the paper, of white data. The theorem goes on: for some strengths and
    iterations the bound never falls. One step can't tell that; with a penalty given the numbers
    say for how many units it rises.

    Parameters
    ----------
    parameters, data, activation
        As for :func:`assumption1`.
    penalty : Penalty, optional
        Without noise: one step with it is taken, and the bound asked again.
    step : float
        eta of that step, above 0.

    Returns
    -------
    Assertion
        Nothing is measured where no unit's mean pre-activation is below a_min.

    Raises
    ------
    ArgumentError
        As :func:`theorem1`.

    Examples
    --------
    >>> found = theorem2(([[1.0]], [-2.0]), [[-1.0], [1.0]], ReLU())
    >>> found.numbers["bound"][0], found.numbers["probability"][0], found.verdict
    (0.75, 1.0, 'confirmed')
    """
    point, found = _point(parameters, data, activation), properties(activation)
    step = check_number("step", step, low=0.0, open_low=True)
    a_min = activation_threshold(activation)
    mean, variance = point.z.mean(dim=0).numpy(), _variance(point.encoder, point.data)
    bound = _chebyshev(mean, variance, a_min)
    assumed = _chebyshev(mean, np.square(point.lengths), a_min)
    share = (point.activated.codes <= activation.delta_min).double().mean(dim=0).numpy()
    told = np.isfinite(bound)
    gap = (a_min - mean)[told]
    cantelli = 1.0 - variance[told] / (variance[told] + np.square(gap))
    numbers: Row = {
        "a_min": a_min,
        "delta_min": float(activation.delta_min),
        "units_below": int(told.sum()),
        "vacuous_share": float((bound[told] <= 0).mean()) if told.any() else np.nan,
        "saturates": found.saturates,
    }
    measurements: tuple[Check, ...] = ()
    if told.any():
        measurements = (
            at_least(
                "least Pr(h_j <= delta_min) - bound",
                float((share - bound)[told].min()),
                -_ROUNDING,
                "0, and rounding",
            ),
        )
        numbers |= {
            "bound": _quantiles(bound[told]),
            "cantelli": _quantiles(cantelli),
            "probability": _quantiles(share[told]),
            "bound_of_lengths": _quantiles(assumed[told]),
            "bound_of_lengths_slack": float((share - assumed)[told].min()),
            "variance_over_length": _quantiles(
                _ratio(variance[told], np.square(point.lengths[told]))
            ),
        }
    if penalty is not None:
        _bias_gradient(point, activation, penalty)  # it refuses noise
        after, _ = _stepped(point, activation, penalty, step)
        centre = preactivation(after, point.data).mean(dim=0).numpy()
        later = _chebyshev(centre, _variance(after, point.data), a_min)
        numbers["bound_rises_share"] = (
            float((later >= bound)[told].mean()) if told.any() else np.nan
        )
    return Assertion(
        name="Theorem 2",
        source=f"{_SOURCE}, Theorem 2",
        hypotheses=(
            true("s is non-decreasing", found.non_decreasing),
            true("s' in [0, 1]", found.slope_in_unit_interval),
            at_least(
                f"units with E[a_j] < a_min = {a_min:.4g}",
                float(told.sum()),
                1.0,
                "the theorem's t >= T_min",
            ),
        ),
        promise="Pr(h_j <= delta_min) >= 1 - Var[a_j] / (a_min - E[a_j])^2",
        measurements=measurements,
        numbers=numbers,
        notes=(
            "Var[a_j] is measured on the data; bound_of_lengths has |W_j|^2, which it is for"
            " white data alone.",
        ),
        remarks=(
            "Cantelli's one-sided bound, 1 - Var / (Var + gap^2), is higher and never below 0.",
        ),
        errata=(
            'The proof defines a_min by "delta_min = max s(a_min)"; the largest a with s(a) <='
            " delta_min is meant.",
        ),
    )


def trajectory(points: Iterable[Any], data: Any, activation: SmoothActivation) -> Assertion:
    """Theorems 1 and 2 along a training: where E[a_j] falls, and where eq. (22)'s bound rises.

    Theorem 2 says that for some strengths there are T_min and T_max between which the bound of eq.
    (22) never falls. For each unit T_min and T_max are here the ends of the longest such stretch,
    from the first iteration on at which E[a_j] < a_min.

    Parameters
    ----------
    points : iterable of Parameters or (dictionary, bias)
        The parameters, iteration by iteration or epoch by epoch, at least 2: such as
        ``[epoch.parameters for epoch in model.iter_fit(X)]``.
    data, activation
        As for :func:`assumption1`; `data` as the network sees them, preprocessed.

    Returns
    -------
    Assertion
        Its numbers have `t_min` and `t_max`, an entry a unit (None where E[a_j] is never below
        a_min), `falls`, the share of units whose E[a_j] falls at each step, and `mean` and
        `bound`, quartiles over the units at each point.

    Raises
    ------
    ArgumentError
        As :func:`assumption1`, and if there are fewer than 2 points.

    Examples
    --------
    >>> points = [([[1.0]], [bias]) for bias in (0.5, -1.5, -2.0, -3.0, -2.5)]
    >>> found = trajectory(points, [[-1.0], [1.0]], ReLU()).numbers
    >>> found["t_min"], found["t_max"], found["falls"]
    ([1], [3], [1.0, 1.0, 1.0, 0.0])
    """
    a_min, found = activation_threshold(activation), properties(activation)
    means, bounds = [], []
    for each in points:
        point = _point(each, data, activation)
        means.append(point.z.mean(dim=0).numpy())
        bounds.append(_chebyshev(means[-1], _variance(point.encoder, point.data), a_min))
    if len(means) < 2:
        raise ArgumentError("points", f"{len(means)}", "the parameters of 2 iterations or more")
    mean, bound = np.stack(means), np.stack(bounds)  # (T, m)
    stretches = [_longest_rise(each) for each in bound.T]
    told = [each for each in stretches if each is not None]
    share = float(np.mean([last > first for first, last in told])) if told else np.nan
    return Assertion(
        name="Theorem 2, along a training",
        source=f"{_SOURCE}, Theorems 1 and 2",
        hypotheses=(
            true("s is non-decreasing", found.non_decreasing),
            true("s' in [0, 1]", found.slope_in_unit_interval),
            true("the strength is in the theorem's S", False, "which nobody knows"),
        ),
        promise="from some T_min to some T_max the lower bound of Pr(h_j <= delta_min) never falls",
        measurements=(
            at_least("share of units, E[a_j] once below a_min, whose bound ever rises", share, 1.0),
        )
        if told
        else (),
        numbers={
            "a_min": a_min,
            "t_min": [None if each is None else each[0] for each in stretches],
            "t_max": [None if each is None else each[1] for each in stretches],
            "falls": (np.diff(mean, axis=0) < 0).mean(axis=1).tolist(),
            "mean": [_quantiles(each) for each in mean],
            "bound": [
                _quantiles(each[np.isfinite(each)]) if np.isfinite(each).any() else None
                for each in bound
            ],
        },
    )


def _longest_rise(bound: Floats) -> tuple[int, int] | None:
    """First and last place of the longest stretch (T,) that never falls; None if all are NaN."""
    best: tuple[int, int] | None = None
    first = 0
    for place, value in enumerate(bound):
        if place == 0 or not value >= bound[place - 1] - _ROUNDING:
            first = place
        if np.isfinite(value) and (best is None or place - first > best[1] - best[0]):
            best = (first, place)
    return best


# --- Remarks 1 and 2 ---------------------------------------------------------------------------


def _jacobian(point: _Point, activation: SmoothActivation, sample: Tensor) -> Tensor:
    """dh/dx (m, n) at one sample (n,), by automatic differentiation."""

    def code(x: Tensor) -> Tensor:
        return activation(preactivation(point.encoder, x[None]))[0][0]

    return torch.autograd.functional.jacobian(code, sample)


def _explicit(
    name: str,
    promise: str,
    values: list[tuple[float, float]],
    notes: tuple[str, ...] = (),
) -> Assertion:
    """An identity sample by sample: `values` hold both of its sides."""
    left, right = np.array(values).T
    apart = _ratio(np.abs(left - right), np.abs(right))
    return Assertion(
        name=name,
        source=f"{_SOURCE}, {name}",
        hypotheses=(),
        promise=promise,
        measurements=(at_most("largest relative difference", float(apart.max()), 1e-10),),
        numbers={
            "explicit": float(left.mean()),
            "closed_form": float(right.mean()),
            "samples": len(left),
        },
        notes=notes,
    )


def remark1(
    parameters: Any, data: Any, activation: SmoothActivation, *, n_samples: int = 8
) -> Assertion:
    """Remark 1: |dh/dx|_F^2 = sum_j s'_j^2 |W_j|^2, eq. (8) and (9), on the first samples.

    The Jacobian is made by automatic differentiation, the closed form by :class:`Contractive`.

    Parameters and errors are those of :func:`assumption1`; `n_samples` counts samples.

    Examples
    --------
    >>> remark1(([[1.0, 2.0]], [0.5]), [[0.3, 0.1], [-1.0, 2.0]], Sigmoid()).verdict
    'confirmed'
    """
    point = _point(parameters, data, activation)
    count = check_count("n_samples", n_samples)
    values = []
    for sample in point.data[:count]:
        jacobian = _jacobian(point, activation, sample)
        closed = Contractive(1.0)(point.parameters, sample[None], activation).penalty
        values.append((float(jacobian.square().sum()), float(closed)))
    return _explicit("Remark 1", "|dh/dx|_F^2 = sum_j s'_j^2 |W_j|^2", values)


def remark2(
    parameters: Any, data: Any, activation: SmoothActivation, *, n_samples: int = 8
) -> Assertion:
    """Remark 2: 1/2 sum_i sum_j d2l/dh_j^2 (dh_j/dx_i)^2 = sum_j s'_j^2 |W_j|^4, eq. (10), (11).

    Both derivatives are made by automatic differentiation, the closed form by
    :class:`Marginalized`.

    Parameters and errors are those of :func:`remark1`.

    Examples
    --------
    >>> remark2(([[1.0, 2.0]], [0.5]), [[0.3, 0.1], [-1.0, 2.0]], Sigmoid()).verdict
    'confirmed'
    """
    point = _point(parameters, data, activation)
    count = check_count("n_samples", n_samples)
    values = []
    for sample, codes in zip(point.data[:count], point.activated.codes[:count], strict=True):

        def loss(h: Tensor, x: Tensor = sample) -> Tensor:
            return (x - h @ point.parameters.dictionary).square().sum()

        curvature = torch.autograd.functional.hessian(loss, codes).diagonal()  # (m,)
        jacobian = _jacobian(point, activation, sample)
        explicit = 0.5 * (curvature[:, None] * jacobian.square()).sum()
        closed = Marginalized(1.0)(point.parameters, sample[None], activation).penalty
        values.append((float(explicit), float(closed)))
    promise = "1/2 sum_ij d2l/dh_j^2 (dh_j/dx_i)^2 = sum_j s'_j^2 |W_j|^4"
    return _explicit("Remark 2", promise, values, ("The appendix calls it Remark 3.",))


# --- Theorem 3 ---------------------------------------------------------------------------------


def _second_order(point: _Point, activation: SmoothActivation) -> tuple[float, float, float]:
    """The three terms of eq. (7), without sigma^2."""
    weights, slope = point.parameters.dictionary, point.activated.slope
    gram = (weights @ weights.T).square()  # (m, m) <W_j, W_k>^2
    size = len(point.data)
    own = float((slope.square() @ gram.diagonal()).sum()) / size
    both = float(((slope @ gram) * slope).sum()) / size
    pull = activation.bend(point.activated) * weights.square().sum(dim=1)  # (N, m)
    return own, both - own, -float(((point.residual @ weights.T) * pull).sum()) / size


def _at_the_kink(point: _Point, variance: float) -> float:
    """What ReLU's kink adds to the third term at this sigma^2, which is in it.

    -2 E sum_j <r, W_j> (E s(a_j + u) - s(a_j)), u of standard deviation w = sigma |W_j|. That mean
    is w (phi(t) - |t| Phi(-|t|)) with t = a_j / w, which over a sums to w^2 / 2: as sigma goes to 0
    it is half the Dirac of footnote 1.
    """
    weights = point.parameters.dictionary
    w = variance**0.5 * torch.linalg.vector_norm(weights, dim=1)  # (m,)
    t = point.z.abs() / w.clamp(min=torch.finfo(torch.float64).tiny)  # (N, m)
    density = torch.exp(-0.5 * t.square()) / (2.0 * torch.pi) ** 0.5
    tail = t.clamp(max=40.0) * torch.special.ndtr(-t)  # inf * 0 else
    lifted = w * (density - tail)
    return -2.0 * float(((point.residual @ weights.T) * lifted).sum()) / len(point.data)


def theorem3(
    parameters: Any,
    data: Any,
    activation: SmoothActivation,
    variance: float,
    n_draws: int = 200,
    random_state: Any = 0,
) -> Assertion:
    """Theorem 3: J_DAE = J_AE + sigma^2 times the three terms of eq. (7) + o(sigma^2).

    What noise adds, J_DAE - J_AE, by drawing, each noise with both signs so that what is odd in it
    cancels, against what eq. (7) adds. ReLU has no second derivative: automatic differentiation
    sees 0, and the Dirac at its kink is missing from the third term. `kink` in the numbers is what
    it adds (NaN for maxout), and `relative_error_with_kink` what is left with it. It may be larger
    than all of eq. (7), so that noise lowers the loss.

    Parameters
    ----------
    parameters, data, activation
        As for :func:`assumption1`.
    variance : float
        sigma^2 of the noise in each feature, above 0.
    n_draws : int
        Pairs of noises a sample, at least 2.
    random_state : None, int or numpy.random.Generator
        The seed of the noise.

    Returns
    -------
    Assertion
        o(sigma^2) is read as 1 % of what is added, beside three standard errors of the drawing.

    Raises
    ------
    ArgumentError
        As :func:`assumption1`, and if `variance` or `n_draws` are out of range.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> place, data = (rng.normal(size=(4, 3)), np.zeros(4)), rng.normal(size=(100, 3))
    >>> theorem3(place, data, Sigmoid(), 0.05**2).verdict
    'confirmed'
    """
    point = _point(parameters, data, activation)
    variance = check_number("variance", variance, low=0.0, open_low=True)
    n_draws = check_count("n_draws", n_draws, low=2)
    pairs, single = _added_by_noise(point, activation, variance, n_draws, random_state)
    terms = tuple(variance * term for term in _second_order(point, activation))
    formula = sum(terms)
    drawn, spread = float(pairs.mean()), float(pairs.std(ddof=1)) / n_draws**0.5
    error = abs(drawn - formula) / abs(formula) if formula else np.inf
    sampling = spread / abs(formula) if formula else np.inf
    smooth = properties(activation).twice_differentiable
    kink = 0.0 if smooth else np.nan
    if isinstance(activation, ReLU):
        kink = _at_the_kink(point, variance)
    whole = formula + kink
    loss = float(point.residual.square().sum()) / len(point.data)
    return Assertion(
        name="Theorem 3",
        source=f"{_SOURCE}, Theorem 3",
        hypotheses=(true("s is twice differentiable", smooth),),
        promise=f"J_DAE - J_AE = {formula:.4g} + o(sigma^2) at sigma = {variance**0.5:.4g}",
        measurements=(
            at_most(
                "|drawn - formula| / |formula| of what the noise adds",
                error,
                0.01 + 3.0 * sampling,
                "o(sigma^2) read as 1 %, and three standard errors",
            ),
        ),
        numbers={
            "plain": loss,
            "drawn": drawn,
            "standard_error": spread,
            "drawn_without_pairs": float(single.mean()),
            "standard_error_without_pairs": float(single.std(ddof=1)) / n_draws**0.5,
            "formula": formula,
            "terms": terms,
            "relative_error": error,
            "relative_error_of_loss": abs(drawn - formula) / (loss + drawn),
            "kink": kink,
            "relative_error_with_kink": abs(drawn - whole) / abs(whole) if whole else np.inf,
        },
        notes=(
            "The terms are those of eq. (7) in order, sigma^2 in them: s'_j^2 |W_j|^4, the pairs"
            " s'_j s'_k <W_j, W_k>^2, and the one with s''.",
            "b_d is 0 in the decoder of section 2, and here where none is given.",
        ),
        errata=(
            "Eq. (30) has the sum over features on its right alone, and lacks the 2 of dl/dh that"
            " the 1/2 of eq. (28) cancels.",
        ),
    )


def _added_by_noise(
    point: _Point,
    activation: SmoothActivation,
    variance: float,
    n_draws: int,
    random_state: Any,
) -> tuple[Floats, Floats]:
    """Loss with noise minus the loss without, one number a draw (n_draws,): of pairs, and alone."""
    generator = torch.Generator().manual_seed(int(as_generator(random_state).integers(2**62)))
    rest = point.residual.square().sum()

    def added(noise: Tensor) -> float:
        codes = activation(preactivation(point.encoder, point.data + noise)).codes
        return float(point.residual_of(codes).square().sum() - rest) / len(point.data)

    alone, mirrored = np.empty(n_draws), np.empty(n_draws)
    for index in range(n_draws):
        noise = torch.randn(point.data.shape, dtype=torch.float64, generator=generator)
        noise *= variance**0.5
        alone[index], mirrored[index] = added(noise), added(-noise)
    return 0.5 * (alone + mirrored), alone

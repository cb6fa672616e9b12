"""Regularised objectives of the tied autoencoder, with their gradients by hand.

    J = E |x - h W|^2 + lambda R(W, b),   h = s(z), z = x W^T + b

with samples x as rows (B, n) and W the dictionary (m, n). As in Arpit et al. 2016 the loss is
|.|^2, without the 1/2 that the rest of the library has, **summed over features and averaged over
samples**. A penalty is a value; called on a batch, it gives the loss, lambda R and the gradient
of J in a form that a training step can use without ever making the gradient itself:

    dJ/dW = left^T right + radial W + dense,   dJ/db = bias

`left` (K, m) and `right` (K, n) are what the samples contribute, `radial` (m,) what goes along each
atom, and `dense` (m, n) is there for two penalties alone. Where the decoder has a bias,
y = h W + c, `offset` (n,) is its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from shoal.network import autoencoder
from shoal.network.activations import Activated, ReLU, SmoothActivation, learns_threshold
from shoal.parts import named, register, stands_for
from shoal.vocabulary import ArgumentError, Parameters, check_choice, check_count, check_number

__all__ = [
    "L1",
    "LARGEST_MEAN",
    "MEAN_FUNCTIONS",
    "NOISES",
    "PENALTIES",
    "Contractive",
    "Denoising",
    "FirstOrderDenoising",
    "HigherOrderContractive",
    "KLSparse",
    "Marginalized",
    "MeanActivation",
    "NoPenalty",
    "Pass",
    "Penalty",
    "SecondOrderDenoising",
    "SlopePenalty",
    "Terms",
    "backward",
    "forward",
    "penalty_named",
]


class Terms(NamedTuple):
    """An objective on a batch, and its gradient in parts."""

    loss: Tensor  # () mean |x - y|^2, of the corrupted input where there is one
    penalty: Tensor  # () lambda R
    left: Tensor  # (K, m)
    right: Tensor  # (K, n)
    radial: Tensor  # (m,)
    bias: Tensor  # (m,)
    dense: Tensor | None = None  # (m, n)
    offset: Tensor | None = None  # (n,) where the decoder has a bias
    encoder: Tensor | None = None  # (m, n) where the encoder is not the dictionary
    threshold: Tensor | None = None  # (m,) where thresholds are learned

    def gradient(self, dictionary: Tensor) -> Tensor:
        """dJ/dW (m, n)."""
        whole = self.left.T @ self.right + self.radial[:, None] * dictionary
        return whole if self.dense is None else whole + self.dense

    def across(self, dictionary: Tensor) -> Tensor:
        """dJ/dW (m, n) without `radial` W, which is along the atoms."""
        gradient = self.left.T @ self.right
        if self.dense is not None:
            gradient += self.dense
        return gradient

    def slopes(self) -> tuple[Tensor | None, ...]:
        """dJ by bias, encoder, threshold and offset; None where there is none."""
        return self.bias, self.encoder, self.threshold, self.offset

    def pull_(
        self, velocity: Tensor, dictionary: Tensor, keep: float, rate: float, decay: float
    ) -> None:
        """velocity <- keep velocity - rate (dJ/dW + decay W), in place."""
        # The product goes straight into the velocity: the gradient itself is never made.
        velocity.addmm_(self.left.T, self.right, beta=keep, alpha=-rate)
        if self.dense is not None:
            velocity.sub_(self.dense, alpha=rate)
        radial = self.radial + decay
        if bool(radial.any()):
            velocity.addcmul_(radial[:, None], dictionary, value=-rate)


class Penalty(Protocol):
    """A regularised objective: what :class:`Terms` says of a batch (B, n)."""

    @property
    def strength(self) -> float: ...  # noqa: D102

    def __call__(  # noqa: D102
        self,
        parameters: Parameters,
        data: Tensor,
        activation: SmoothActivation,
        generator: torch.Generator | None = None,
    ) -> Terms: ...


class Pass(NamedTuple):
    """One pass through the network, input (B, n) to residual against a target (B, n)."""

    z: Tensor  # (B, m)
    activated: Activated  # codes and slope, (B, m) each
    residual: Tensor  # (B, n) target - codes W
    by_threshold: Tensor | None = None  # (B, m) dh/dtheta, of an activation that learns thresholds

    @property
    def codes(self) -> Tensor:
        """h (B, m)."""
        return self.activated.codes

    @property
    def slope(self) -> Tensor:
        """dh/dz (B, m)."""
        return self.activated.slope


def forward(
    parameters: Parameters,
    data: Tensor,
    activation: SmoothActivation,
    target: Tensor | None = None,
) -> Pass:
    """What the network makes of `data` (B, n): the first half of most penalties."""
    z = autoencoder.preactivation(parameters, data)
    activated = autoencoder.activate(parameters, z, activation)
    aim = data if target is None else target
    if parameters.offset is not None:
        aim = aim - parameters.offset
    residual = torch.addmm(aim, activated.codes, parameters.dictionary, alpha=-1.0)
    by_threshold = None
    if parameters.threshold is not None and learns_threshold(activation):
        by_threshold = activation.by_threshold(z, parameters.threshold)  # type: ignore[attr-defined]
    return Pass(z, activated, residual, by_threshold)


def backward(
    parameters: Parameters,
    data: Tensor,
    passed: Pass,
    penalty: Tensor | float = 0.0,
    *,
    to_codes: Tensor | None = None,
    to_z: Tensor | None = None,
    radial: Tensor | None = None,
) -> Terms:
    """The terms of mean |residual|^2 plus a penalty that is known by its derivatives.

    `to_codes` and `to_z` (B, m) are d(lambda R)/dh and, for what depends on z otherwise, d/dz.
    """
    size = len(data)
    # Nguyen et al. 2018, eq. (4) for a loss without 1/2: -2/B (x r + ...), one product for both.
    pull = passed.residual * (-2.0 / size)  # (B, n) d(loss)/dy
    back = pull @ parameters.dictionary.T  # (B, m)
    if to_codes is not None:
        back += to_codes
    threshold = encoder = None
    if parameters.threshold is not None:
        zero = torch.zeros_like(parameters.threshold)
        by_threshold = passed.by_threshold
        threshold = zero if by_threshold is None else (back * by_threshold).sum(dim=0)
    back.mul_(passed.slope)
    if to_z is not None:
        back += to_z
    if parameters.encoder is None:
        left, right = torch.cat([passed.codes, back]), torch.cat([pull, data])
    else:
        _refuse_untied(radial is not None)
        left, right, encoder = passed.codes, pull, back.T @ data
    zero = parameters.bias.new_zeros(len(parameters.bias))
    return Terms(
        loss=torch.linalg.vector_norm(passed.residual).square() / size,
        penalty=torch.as_tensor(penalty, dtype=data.dtype, device=data.device),
        left=left,
        right=right,
        radial=zero if radial is None else radial,
        bias=back.sum(dim=0),
        offset=pull.sum(dim=0) if parameters.offset is not None else None,
        encoder=encoder,
        threshold=threshold,
    )


def _refuse_untied(looks_at_weights: bool) -> None:
    if looks_at_weights:
        found = "one of the weights, with an encoder of its own"
        raise ArgumentError("penalty", found, "tied weights, or a penalty of the codes alone")


def _with_samples(terms: Terms, left: Tensor, right: Tensor, offset: Tensor) -> Terms:
    """`terms` with more rows of left^T right, and more of a decoder's gradient."""
    _refuse_untied(terms.encoder is not None)
    return terms._replace(
        left=torch.cat([terms.left, left]),
        right=torch.cat([terms.right, right]),
        offset=None if terms.offset is None else terms.offset + offset,
    )


def _noise(data: Tensor, variance: float, generator: torch.Generator | None) -> Tensor:
    noise = torch.randn(data.shape, dtype=data.dtype, device=data.device, generator=generator)
    return noise if variance == 1.0 else noise.mul_(variance**0.5)


def _squared_lengths(parameters: Parameters) -> Tensor:
    return torch.linalg.vector_norm(parameters.dictionary, dim=1).square()  # (m,)


# --- none ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoPenalty:
    """The plain autoencoder: Arpit et al. 2016, eq. (1).

    Examples
    --------
    >>> import torch
    >>> from shoal.network.activations import ReLU
    >>> from shoal.network.penalties import NoPenalty
    >>> from shoal.vocabulary import Parameters
    >>> parameters = Parameters(torch.eye(2), torch.zeros(2))
    >>> rows = torch.tensor([[1.0, 2.0]])
    >>> terms = NoPenalty()(parameters, rows, ReLU(), None)
    >>> round(float(terms.penalty), 3)
    0.0
    """

    strength: float = 0.0

    def __call__(  # noqa: D102
        self,
        parameters: Parameters,
        data: Tensor,
        activation: SmoothActivation,
        generator: torch.Generator | None = None,
    ) -> Terms:
        return backward(parameters, data, forward(parameters, data, activation))


# --- noise --------------------------------------------------------------------------------


NOISES = ("gaussian", "masking")
"""What a denoising autoencoder does to its input."""


def _variances(argument: str, values: Any) -> tuple[float, ...] | None:
    """One number >= 0 a feature, as a tuple, from any sequence or array."""
    if values is None:
        return None
    needed = "a number >= 0 for each feature, not all 0, or None"
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ArgumentError(argument, repr(values), needed)
    found = tuple(check_number(argument, each, low=0.0) for each in values)
    if not any(found):
        raise ArgumentError(argument, f"{len(found)} numbers, none above 0", needed)
    return found


def _of_features(variances: tuple[float, ...], data: Tensor) -> Tensor:
    """`variances` (n,) beside `data` (B, n)."""
    if len(variances) != data.shape[1]:
        found = f"{len(variances)} numbers for {data.shape[1]} features"
        raise ArgumentError("variances", found, "one a feature")
    return torch.tensor(variances, dtype=data.dtype, device=data.device)


@dataclass(frozen=True)
class Denoising:
    """The denoising autoencoder: |x - f(x~)|^2, x~ corrupted. Arpit et al. 2016, eq. (6).

    Parameters
    ----------
    strength : float
        Of Gaussian noise the variance in each feature; of masking noise the probability, at most
        1, with which each feature of a sample is set to 0 (Vincent et al. 2008; dropout of the
        input, without rescaling).
    draws : int
        Noises a sample and step; their mean is taken.
    antithetic : bool
        Whether each Gaussian noise is used with both signs, so that what is odd in it cancels
        exactly: the first-order term of section 3.1.1.
    noise : {"gaussian", "masking"}
        What corrupts.
    variances : sequence of float, optional
        Of Gaussian noise, that of each feature, times `strength`. By default 1.
    """

    strength: float
    draws: int = 1
    antithetic: bool = False
    noise: str = "gaussian"
    variances: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_choice("noise", self.noise, NOISES)
        masking = self.noise == "masking"
        check_number("strength", self.strength, low=0.0, high=1.0 if masking else None)
        check_count("draws", self.draws)
        object.__setattr__(self, "variances", _variances("variances", self.variances))
        for name in ("antithetic", "variances"):
            if masking and getattr(self, name):
                found = f"{getattr(self, name)!r} with noise='masking'"
                raise ArgumentError(name, found, "noise='gaussian' with it")

    def __call__(  # noqa: D102
        self,
        parameters: Parameters,
        data: Tensor,
        activation: SmoothActivation,
        generator: torch.Generator | None = None,
    ) -> Terms:
        inputs = list(self._corrupted(data, generator)) if self.strength else []
        if len(inputs) <= 1:
            corrupted, target = (inputs or [data])[0], data
        else:
            corrupted, target = torch.cat(inputs), data.repeat(len(inputs), 1)
        passed = forward(parameters, corrupted, activation, target)
        return backward(parameters, corrupted, passed)

    def _corrupted(self, data: Tensor, generator: torch.Generator | None) -> Iterator[Tensor]:
        """`data` with each noise."""
        deviation = self.strength**0.5
        variances = None if self.variances is None else _of_features(tuple(self.variances), data)
        for _ in range(self.draws):
            if self.noise == "masking":
                drawn = torch.rand(
                    data.shape, dtype=data.dtype, device=data.device, generator=generator
                )
                yield torch.where(drawn < self.strength, 0.0, data)
                continue
            noise = _noise(data, 1.0, generator)
            if variances is not None:
                noise.mul_(variances.sqrt())
            yield torch.add(data, noise, alpha=deviation)
            if self.antithetic:
                yield torch.add(data, noise, alpha=-deviation)


@dataclass(frozen=True)
class FirstOrderDenoising:
    """eDAE: the first-order Taylor expansion of the denoising objective, noise and all.

    |x - f(x)|^2 + e . grad, with the gradient of the loss in its corrupted input, at x. Its mean
    over the noise is the plain objective. Arpit et al. 2016, section 3.1.1.

    Parameters
    ----------
    strength : float
        The variance of the noise.
    draws : int
        Noises a sample and step; their mean is taken.
    """

    strength: float
    draws: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_number("strength", self.strength, low=0.0)
        check_count("draws", self.draws)

    def __call__(  # noqa: D102
        self,
        parameters: Parameters,
        data: Tensor,
        activation: SmoothActivation,
        generator: torch.Generator | None = None,
    ) -> Terms:
        weights, size = parameters.dictionary, len(data)
        passed = forward(parameters, data, activation)
        noise = torch.zeros_like(data)  # the term is linear in it
        for _ in range(self.draws):
            noise += _noise(data, self.strength, generator) / self.draws
        along = noise @ weights.T  # (B, m) u = e . W_j
        correlation = passed.residual @ weights.T  # (B, m) <r, W_j>
        q = passed.slope * along  # (B, m): the term is -2 sum_j q_j <r, W_j>
        g = q @ weights  # (B, n)
        value = -2.0 / size * (q * correlation).sum()
        scale = 2.0 / size
        to_z = -scale * activation.bend(passed.activated) * along * correlation
        terms = backward(
            parameters, data, passed, value, to_codes=scale * (g @ weights.T), to_z=to_z
        )
        # By way of r = x - h W and of g = q W, and of u = e W^T within q.
        left = torch.cat([scale * passed.codes, -scale * q, -scale * correlation * passed.slope])
        right = torch.cat([g, passed.residual, noise])
        return _with_samples(terms, left, right, scale * g.sum(dim=0))


@dataclass(frozen=True)
class SecondOrderDenoising:
    """The second-order Taylor form of the denoising objective: Arpit et al. 2016, Theorem 3.

    strength * E[sum_jk s'_j s'_k <W_j, W_k>^2 - sum_j <r, W_j> s''_j |W_j|^2]: eq. (7), all three
    terms, j = k in the first. For ReLU s'' is 0, as automatic differentiation has it.

    Examples
    --------
    >>> import torch
    >>> from shoal.network.activations import Sigmoid
    >>> from shoal.network.penalties import SecondOrderDenoising
    >>> from shoal.vocabulary import Parameters
    >>> parameters = Parameters(torch.eye(2), torch.zeros(2))
    >>> rows = torch.tensor([[1.0, 2.0]])
    >>> terms = SecondOrderDenoising(0.5)(parameters, rows, Sigmoid(), None)
    >>> round(float(terms.penalty), 3)
    0.082
    """

    strength: float

    def __post_init__(self) -> None:
        """Check the number."""
        check_number("strength", self.strength, low=0.0)

    def __call__(  # noqa: D102
        self,
        parameters: Parameters,
        data: Tensor,
        activation: SmoothActivation,
        generator: torch.Generator | None = None,
    ) -> Terms:
        weights, scale = parameters.dictionary, self.strength / len(data)
        passed = forward(parameters, data, activation)
        bend, jerk = activation.bend(passed.activated), activation.jerk(passed.activated)
        gram = weights @ weights.T  # (m, m)
        through = passed.slope @ gram.square()  # (B, m)
        lengths = _squared_lengths(parameters)
        correlation = passed.residual @ weights.T  # (B, m)
        pull = bend * lengths  # (B, m)
        value = scale * ((passed.slope * through).sum() - (correlation * pull).sum())
        g = pull @ weights  # (B, n): the last term is -<r, g>
        to_z = scale * (2.0 * bend * through - correlation * jerk * lengths)
        terms = backward(
            parameters,
            data,
            passed,
            value,
            to_codes=scale * (g @ weights.T),
            to_z=to_z,
            radial=-2.0 * scale * (correlation * bend).sum(dim=0),
        )
        left = torch.cat([scale * passed.codes, -scale * pull])
        right = torch.cat([g, passed.residual])
        dense = 4.0 * scale * (gram * (passed.slope.T @ passed.slope)) @ weights
        return _with_samples(terms, left, right, scale * g.sum(dim=0))._replace(dense=dense)


# --- contraction --------------------------------------------------------------------------


class _Contraction:
    """strength * E sum_j s'_j^q |W_j|^p: Arpit et al. 2016, Corollary 2."""

    strength: float
    kink: float

    def _powers(self) -> tuple[int, int]:
        """q and p."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_number("strength", self.strength, low=0.0)
        check_number("kink", self.kink, low=0.0)

    def __call__(
        self,
        parameters: Parameters,
        data: Tensor,
        activation: SmoothActivation,
        generator: torch.Generator | None = None,
    ) -> Terms:
        kink, scale = self.kink, self.strength / len(data)
        q, p = self._powers()
        passed = forward(parameters, data, activation)
        slope = passed.slope
        lengths, derivative = _powers_of(_squared_lengths(parameters), p)
        power = torch.ones_like(slope) if q == 1 else slope if q == 2 else slope.pow(q - 1)
        energy = (power * slope).sum(dim=0)  # (m,)
        to_z = activation.bend(passed.activated).mul_(power).mul_(float(q) * scale * lengths)
        if kink > 0.0:
            if not isinstance(activation, ReLU):
                raise ArgumentError("kink", f"{kink:g} with {activation!r}", "ReLU, which has one")
            # d/dz of 1[z > 0] is a Dirac; over a window of half-width `kink` its mean.
            to_z = to_z + (scale / (2.0 * kink)) * (passed.z.abs() < kink) * lengths
        return backward(
            parameters,
            data,
            passed,
            scale * (energy * lengths).sum(),
            to_z=to_z,
            radial=2.0 * scale * energy * derivative,
        )


def _powers_of(squares: Tensor, p: int) -> tuple[Tensor, Tensor | float]:
    """|W|^p of |W|^2 and its derivative in that, (m,); an atom of length 0 has no direction."""
    if p == 2:
        return squares, 1.0
    if p == 4:
        return squares.square(), 2.0 * squares
    if p == 0:
        return torch.ones_like(squares), 0.0
    half = 0.5 * p
    return squares.pow(half), torch.where(squares > 0, half * squares.pow(half - 1.0), 0.0)


@dataclass(frozen=True)
class SlopePenalty(_Contraction):
    """strength * E sum_j s'_j^q |W_j|^p: all of Corollary 2 of Arpit et al. 2016.

    (2, 2) is :class:`Contractive`, (2, 4) :class:`Marginalized`.

    Parameters
    ----------
    strength : float
        lambda.
    q : int
        Of the slope, at least 1.
    p : int
        Of the atoms' length, at least 0.
    kink : float
        As for :class:`Contractive`.

    Examples
    --------
    >>> import torch
    >>> from shoal.network.activations import Sigmoid
    >>> from shoal.network.penalties import SlopePenalty
    >>> from shoal.vocabulary import Parameters
    >>> parameters = Parameters(torch.eye(2), torch.zeros(2))
    >>> rows = torch.tensor([[1.0, 2.0]])
    >>> terms = SlopePenalty(0.5, q=1)(parameters, rows, Sigmoid(), None)
    >>> round(float(terms.penalty), 3)
    0.151
    """

    strength: float
    q: int = 2
    p: int = 2
    kink: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        super().__post_init__()
        check_count("q", self.q)
        check_count("p", self.p, low=0)

    def _powers(self) -> tuple[int, int]:
        return self.q, self.p


@dataclass(frozen=True)
class Contractive(_Contraction):
    """The contractive autoencoder: strength * E |dh/dx|_F^2. Arpit et al. 2016, eq. (8), (9).

    Parameters
    ----------
    strength : float
        lambda.
    kink : float
        For ReLU, half the width of the window over which the Dirac of its second derivative is
        averaged; 0 leaves it out, as automatic differentiation does. .05 to .2 for standardised
        data. The population objective has it: it is what makes the ReLU denoising autoencoder
        sparse.

    Examples
    --------
    >>> import torch
    >>> from shoal.network.activations import Sigmoid
    >>> from shoal.network.penalties import Contractive
    >>> from shoal.vocabulary import Parameters
    >>> parameters = Parameters(torch.eye(2), torch.zeros(2))
    >>> rows = torch.tensor([[1.0, 2.0]])
    >>> terms = Contractive(0.5)(parameters, rows, Sigmoid(), None)
    >>> round(float(terms.penalty), 3)
    0.025
    """

    strength: float
    kink: float = 0.0

    def _powers(self) -> tuple[int, int]:
        return 2, 2


@dataclass(frozen=True)
class Marginalized(_Contraction):
    """The marginalised denoising autoencoder: Arpit et al. 2016, eq. (10), (11), Remark 2.

    strength * E sum_j s'_j^2 |W_j|^4, which is :class:`Contractive` at unit length; with a variance
    for each feature strength * E sum_j s'_j^2 |W_j|^2 sum_i variances_i W_ji^2, eq. (10).

    Parameters
    ----------
    strength, kink : float
        As for :class:`Contractive`.
    variances : sequence of float, optional
        sigma_i^2 of each feature, times `strength`. By default 1. Without `kink`.

    Examples
    --------
    >>> import torch
    >>> from shoal.network.activations import Sigmoid
    >>> from shoal.network.penalties import Marginalized
    >>> from shoal.vocabulary import Parameters
    >>> parameters = Parameters(torch.eye(2), torch.zeros(2))
    >>> rows = torch.tensor([[1.0, 2.0]])
    >>> terms = Marginalized(0.5)(parameters, rows, Sigmoid(), None)
    >>> round(float(terms.penalty), 3)
    0.025
    """

    strength: float
    kink: float = 0.0
    variances: Sequence[float] | None = None

    def _powers(self) -> tuple[int, int]:
        return 2, 4

    def __post_init__(self) -> None:
        """Check the numbers."""
        super().__post_init__()
        object.__setattr__(self, "variances", _variances("variances", self.variances))
        if self.kink and self.variances is not None:
            raise ArgumentError("kink", f"{self.kink:g} with variances", "one of the two")

    def __call__(  # noqa: D102
        self,
        parameters: Parameters,
        data: Tensor,
        activation: SmoothActivation,
        generator: torch.Generator | None = None,
    ) -> Terms:
        if self.variances is None:
            return super().__call__(parameters, data, activation, generator)
        scale, weights = self.strength / len(data), parameters.dictionary
        variances = _of_features(tuple(self.variances), data)
        passed = forward(parameters, data, activation)
        squares = _squared_lengths(parameters)
        spread = weights.square() @ variances  # (m,) sum_i variances_i W_ji^2
        energy = scale * passed.slope.square().sum(dim=0)  # (m,)
        bend = activation.bend(passed.activated)
        terms = backward(
            parameters,
            data,
            passed,
            (energy * squares * spread).sum(),
            to_z=2.0 * scale * passed.slope * bend * squares * spread,
            radial=2.0 * energy * spread,
        )
        return terms._replace(dense=(2.0 * energy * squares)[:, None] * (weights * variances))


@dataclass(frozen=True)
class HigherOrderContractive:
    """CAE+H: the contractive penalty, and strength * gamma * E |J(x) - J(x + e)|_F^2.

    The stochastic form of Rifai et al. 2011a, with the Jacobian J = dh/dx.

    Parameters
    ----------
    strength : float
        lambda.
    gamma : float
        The second penalty's weight beside the first.
    noise : float
        The variance of e.
    draws : int
        Noises a sample and step.
    """

    strength: float
    gamma: float = 1.0
    noise: float = 0.01
    draws: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_number("strength", self.strength, low=0.0)
        check_number("gamma", self.gamma, low=0.0)
        check_number("noise", self.noise, low=0.0, open_low=True)
        check_count("draws", self.draws)

    def __call__(  # noqa: D102
        self,
        parameters: Parameters,
        data: Tensor,
        activation: SmoothActivation,
        generator: torch.Generator | None = None,
    ) -> Terms:
        weights = parameters.dictionary
        first = self.strength / len(data)
        second = first * self.gamma / self.draws
        passed = forward(parameters, data, activation)
        lengths, bend = _squared_lengths(parameters), activation.bend(passed.activated)
        energy = first * passed.slope.square().sum(dim=0)  # (m,)
        to_z = (2.0 * first) * passed.slope * bend * lengths
        lefts, rights, bias = [], [], torch.zeros_like(parameters.bias)
        for _ in range(self.draws):
            noisy = data + _noise(data, self.noise, generator)
            z = torch.addmm(parameters.bias, noisy, weights.T)
            moved = autoencoder.activate(parameters, z, activation)
            apart = passed.slope - moved.slope  # (B, m)
            energy = energy + second * apart.square().sum(dim=0)
            to_z = to_z + (2.0 * second) * apart * bend * lengths
            back = (-2.0 * second) * apart * activation.bend(moved) * lengths
            lefts.append(back)
            rights.append(noisy)
            bias += back.sum(dim=0)
        value = (energy * lengths).sum()
        terms = backward(parameters, data, passed, value, to_z=to_z, radial=2.0 * energy)
        return terms._replace(
            left=torch.cat([terms.left, *lefts]),
            right=torch.cat([terms.right, *rights]),
            bias=terms.bias + bias,
        )


# --- codes --------------------------------------------------------------------------------

LARGEST_MEAN = 0.99
"""A mean activation at or above it has left where eq. (12) and (13) are defined: the penalty is
held there, and its gradient is 0. Unheld, ReLU codes make the objective infinite within dozens of
steps."""
_SMALLEST_MEAN = 1e-6  # of a target rho > 0: the logarithm of a dead unit


@dataclass(frozen=True)
class KLSparse:
    """The sparse autoencoder: the mean activation of each unit drawn to rho.

    strength * sum_j (rho log(rho/rho_j) + (1-rho) log((1-rho)/(1-rho_j))), rho_j the mean of h_j
    over the batch: Arpit et al. 2016, eq. (12); -strength * sum_j log(1 - rho_j) for rho = 0, eq.
    (13). Both are for codes between 0 and 1. **A unit whose mean code is .99 or more has no
    penalty**, and with rho > 0 none whose mean is 1e-6 or less: :meth:`held`.

    Parameters
    ----------
    strength : float
        lambda.
    rho : float
        The target, from 0 to .99.

    Examples
    --------
    >>> import torch
    >>> from shoal.network.activations import Sigmoid
    >>> from shoal.network.penalties import KLSparse
    >>> from shoal.vocabulary import Parameters
    >>> parameters = Parameters(torch.eye(2), torch.zeros(2))
    >>> rows = torch.tensor([[1.0, 2.0]])
    >>> terms = KLSparse(0.5)(parameters, rows, Sigmoid(), None)
    >>> round(float(terms.penalty), 3)
    1.72
    """

    strength: float
    rho: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_number("strength", self.strength, low=0.0)
        check_number("rho", self.rho, low=0.0, high=LARGEST_MEAN)

    def held(self, mean: Tensor) -> Tensor:
        """Of mean codes (m,), which are so large that the penalty does nothing (m,).

        >>> KLSparse(1.0).held(torch.tensor([0.5, 0.99])).tolist()
        [False, True]
        """
        return mean >= LARGEST_MEAN

    def __call__(  # noqa: D102
        self,
        parameters: Parameters,
        data: Tensor,
        activation: SmoothActivation,
        generator: torch.Generator | None = None,
    ) -> Terms:
        passed = forward(parameters, data, activation)
        mean = passed.codes.mean(dim=0)  # (m,)
        least = _SMALLEST_MEAN if self.rho > 0 else -torch.inf
        inside = (mean > least) & (mean < LARGEST_MEAN)
        held = mean.clamp(least, LARGEST_MEAN)
        rho = self.rho
        value = -(1 - rho) * torch.log1p(-held)
        slope = (1 - rho) / (1 - held)
        if rho > 0:
            constant = rho * math.log(rho) + (1 - rho) * math.log1p(-rho)
            value = value - rho * held.log() + constant
            slope = slope - rho / held
        to_codes = (self.strength / len(data)) * torch.where(inside, slope, 0.0)
        return backward(
            parameters,
            data,
            passed,
            self.strength * value.sum(),
            to_codes=to_codes.expand_as(passed.codes),
        )


@dataclass(frozen=True)
class L1:
    """strength * E sum_j |h_j|: the penalty of sparse coding, Arpit et al. 2016, eq. (2).

    Examples
    --------
    >>> import torch
    >>> from shoal.network.activations import ReLU
    >>> from shoal.network.penalties import L1
    >>> from shoal.vocabulary import Parameters
    >>> parameters = Parameters(torch.eye(2), torch.zeros(2))
    >>> rows = torch.tensor([[1.0, 2.0]])
    >>> terms = L1(0.5)(parameters, rows, ReLU(), None)
    >>> round(float(terms.penalty), 3)
    1.5
    """

    strength: float

    def __post_init__(self) -> None:
        """Check the number."""
        check_number("strength", self.strength, low=0.0)

    def __call__(  # noqa: D102
        self,
        parameters: Parameters,
        data: Tensor,
        activation: SmoothActivation,
        generator: torch.Generator | None = None,
    ) -> Terms:
        passed = forward(parameters, data, activation)
        scale = self.strength / len(data)
        return backward(
            parameters,
            data,
            passed,
            scale * passed.codes.abs().sum(),
            to_codes=scale * passed.codes.sign(),
        )


class _MeanFunction(NamedTuple):
    """An increasing f of a mean code, and where it is defined."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    least: float = -math.inf  # at and beyond these the mean is held: no gradient
    most: float = math.inf


# Arbitrary: a unit that never fires has a mean of 0, where the slope of a root is infinite.
_SMALLEST_ROOT = 1e-6

MEAN_FUNCTIONS: dict[str, _MeanFunction] = {
    "identity": _MeanFunction(lambda u: u, torch.ones_like),
    "square": _MeanFunction(torch.square, lambda u: 2.0 * u),
    "sqrt": _MeanFunction(torch.sqrt, lambda u: 0.5 * u.rsqrt(), least=_SMALLEST_ROOT),
    "log": _MeanFunction(torch.log1p, lambda u: 1.0 / (1.0 + u), least=-LARGEST_MEAN),
    "exp": _MeanFunction(torch.expm1, torch.exp),
    "kl": _MeanFunction(lambda u: -torch.log1p(-u), lambda u: 1.0 / (1.0 - u), most=LARGEST_MEAN),
}
"""f by name: u, u^2, sqrt u, log(1 + u), exp(u) - 1, and -log(1 - u), which is eq. (13)."""


@dataclass(frozen=True)
class MeanActivation:
    """strength * sum_j f(E h_j), the mean over the batch: all of Corollary 1 of Arpit et al. 2016.

    Parameters
    ----------
    strength : float
        lambda.
    f : str or callable
        "identity" (:class:`L1` for codes that are never negative), "square" (increasing on means
        that are not negative), "sqrt", "log" (log(1 + u)), "exp" (exp(u) - 1) or "kl" (-log(1 - u),
        :class:`KLSparse` with target 0). Or a function of your own, from a tensor of means (m,) to
        one of values (m,), entry by entry, in torch: its derivative is automatic
        differentiation's. No file can hold one: to fit a model, wrap it as a penalty of your
        own that is registered, see :mod:`shoal.parts`.

    Raises
    ------
    ArgumentError
        At a name that there isn't, and at a function that doesn't map (m,) to (m,).

    Examples
    --------
    >>> from shoal.network.activations import ReLU
    >>> at = Parameters(torch.eye(2), torch.zeros(2)), torch.tensor([[2.0, 4.0], [0.0, 4.0]])
    >>> MeanActivation(1.0, "square")(*at, ReLU()).penalty.item()  # means 1 and 4
    17.0
    >>> MeanActivation(1.0, lambda u: u**3)(*at, ReLU()).penalty.item()
    65.0
    """

    strength: float
    f: str | Callable[[Tensor], Tensor] = "identity"

    def __post_init__(self) -> None:
        """Check the number, and try the function."""
        check_number("strength", self.strength, low=0.0)
        if callable(self.f):
            self._own(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
        elif not isinstance(self.f, str) or self.f not in MEAN_FUNCTIONS:
            needed = f"one of {', '.join(MEAN_FUNCTIONS)}, or an increasing function in torch"
            raise ArgumentError("f", repr(self.f), needed)

    def held(self, mean: Tensor) -> Tensor:
        """As :meth:`KLSparse.held`."""
        most = math.inf if callable(self.f) else MEAN_FUNCTIONS[self.f].most
        return mean >= most

    def _own(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Value and derivative of a function of one's own at means (m,)."""
        assert callable(self.f)
        needed = "a function in torch from means (m,) to values (m,), entry by entry"
        with torch.enable_grad():
            point = mean.detach().clone().requires_grad_()
            try:
                value = self.f(point)
                shape = tuple(value.shape)
                (slope,) = torch.autograd.grad(value.sum(), point)
            except Exception as error:  # whatever a function of somebody else's raises
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise ArgumentError("f", f"a function that failed ({reason})", needed) from error
        if shape != tuple(mean.shape):
            raise ArgumentError("f", f"a function from {tuple(mean.shape)} to {shape}", needed)
        return value.detach(), slope

    def __call__(  # noqa: D102
        self,
        parameters: Parameters,
        data: Tensor,
        activation: SmoothActivation,
        generator: torch.Generator | None = None,
    ) -> Terms:
        passed = forward(parameters, data, activation)
        mean = passed.codes.mean(dim=0)  # (m,)
        if callable(self.f):
            value, slope = self._own(mean)
        else:
            f = MEAN_FUNCTIONS[self.f]
            held = mean.clamp(f.least, f.most)
            value = f.value(held)
            slope = torch.where((mean > f.least) & (mean < f.most), f.slope(held), 0.0)
        return backward(
            parameters,
            data,
            passed,
            self.strength * value.sum(),
            to_codes=((self.strength / len(data)) * slope).expand_as(passed.codes),
        )


for _name, _kind in {
    "none": NoPenalty,
    "dae": Denoising,
    "cae": Contractive,
    "mdae": Marginalized,
    "sae": KLSparse,
    "edae": FirstOrderDenoising,
    "taylor-dae": SecondOrderDenoising,
    "cae+h": HigherOrderContractive,
    "l1": L1,
    "mean": MeanActivation,
    "slope": SlopePenalty,
}.items():
    register("penalty", _name)(_kind)

stands_for("penalty", Penalty)

PENALTIES = named("penalty")
"""From a name to a penalty, whose first argument is its strength."""


def penalty_named(name: str, strength: float, **options: Any) -> Penalty:
    """The penalty of that name; its other settings as `options` say, or as they are by default.

    Raises
    ------
    ArgumentError
        That names what there isn't: the penalty, or one of its settings.

    Examples
    --------
    >>> penalty_named("cae", 0.25)
    Contractive(strength=0.25, kink=0.0)
    >>> penalty_named("slope", 0.25, q=1, p=0)
    SlopePenalty(strength=0.25, q=1, p=0, kink=0.0)
    """
    check_choice("penalty", name, PENALTIES)
    kind = PENALTIES[name]
    known = [each.name for each in fields(kind) if each.name != "strength"]
    for option in options:
        if option not in known:
            needed = f"one of {', '.join(known)}" if known else "none: it has no other settings"
            raise ArgumentError("penalty_options", f"{option!r} for {name!r}", needed)
    made: Penalty = kind(check_number("strength", strength, low=0.0), **options)
    return made

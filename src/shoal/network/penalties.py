"""Regularised objectives of the tied autoencoder, with their gradients by hand.

    J = E |x - h W|^2 + lambda R(W, b),   h = s(z), z = x W^T + b

with samples x as rows (B, n) and W the dictionary (m, n). As in Arpit et al. 2016 the loss is
|.|^2, without the 1/2 that the rest of the library has, **summed over features and averaged over
samples**. A penalty is a value; called on a batch, it gives the loss, lambda R and the gradient
of J in a form that a training step can use without ever making the gradient itself:

    dJ/dW = left^T right + radial W + dense,   dJ/db = bias

`left` (K, m) and `right` (K, n) are what the samples contribute, `radial` (m,) what goes along each
atom, and `dense` (m, n) is there for one penalty alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from shoal.network import autoencoder
from shoal.network.activations import Activated, ReLU, SmoothActivation
from shoal.parts import named, register
from shoal.vocabulary import ArgumentError, Parameters, check_choice, check_count, check_number

__all__ = [
    "L1",
    "PENALTIES",
    "Contractive",
    "Denoising",
    "FirstOrderDenoising",
    "HigherOrderContractive",
    "KLSparse",
    "Marginalized",
    "NoPenalty",
    "Penalty",
    "SecondOrderDenoising",
    "Terms",
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
        return self.bias, None, None, None

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


class _Pass(NamedTuple):
    """One pass through the network, input (B, n) to residual against a target (B, n)."""

    z: Tensor  # (B, m)
    activated: Activated  # codes and slope, (B, m) each
    residual: Tensor  # (B, n) target - codes W

    @property
    def codes(self) -> Tensor:
        return self.activated.codes

    @property
    def slope(self) -> Tensor:
        return self.activated.slope


def _forward(
    parameters: Parameters, data: Tensor, activation: SmoothActivation, target: Tensor | None = None
) -> _Pass:
    z = autoencoder.preactivation(parameters, data)
    activated = activation(z)
    aim = data if target is None else target
    residual = torch.addmm(aim, activated.codes, parameters.dictionary, alpha=-1.0)
    return _Pass(z, activated, residual)


def _backward(
    parameters: Parameters,
    data: Tensor,
    passed: _Pass,
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
    back.mul_(passed.slope)
    if to_z is not None:
        back += to_z
    left = torch.cat([passed.codes, back])
    right = torch.cat([pull, data])
    zero = parameters.bias.new_zeros(len(parameters.bias))
    return Terms(
        loss=torch.linalg.vector_norm(passed.residual).square() / size,
        penalty=torch.as_tensor(penalty, dtype=data.dtype, device=data.device),
        left=left,
        right=right,
        radial=zero if radial is None else radial,
        bias=back.sum(dim=0),
    )


def _noise(data: Tensor, variance: float, generator: torch.Generator | None) -> Tensor:
    noise = torch.randn(data.shape, dtype=data.dtype, device=data.device, generator=generator)
    return noise if variance == 1.0 else noise.mul_(variance**0.5)


def _squared_lengths(parameters: Parameters) -> Tensor:
    return torch.linalg.vector_norm(parameters.dictionary, dim=1).square()  # (m,)


# --- none ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoPenalty:
    """The plain autoencoder: Arpit et al. 2016, eq. (1)."""

    strength: float = 0.0

    def __call__(  # noqa: D102
        self,
        parameters: Parameters,
        data: Tensor,
        activation: SmoothActivation,
        generator: torch.Generator | None = None,
    ) -> Terms:
        return _backward(parameters, data, _forward(parameters, data, activation))


# --- noise --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Denoising:
    """The denoising autoencoder: |x - f(x + e)|^2, e Gaussian. Arpit et al. 2016, eq. (6).

    Parameters
    ----------
    strength : float
        The variance of the noise in each feature.
    draws : int
        Noises a sample and step; their mean is taken.
    antithetic : bool
        Whether each noise is used with both signs, so that what is odd in it cancels exactly:
        the first-order term of section 3.1.1.
    """

    strength: float
    draws: int = 1
    antithetic: bool = False

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
        deviation = self.strength**0.5
        steps = (deviation, -deviation) if self.antithetic else (deviation,)
        noises = (_noise(data, 1.0, generator) for _ in range(self.draws if deviation else 0))
        inputs = [torch.add(data, noise, alpha=step) for noise in noises for step in steps]
        if len(inputs) <= 1:
            corrupted, target = (inputs or [data])[0], data
        else:
            corrupted, target = torch.cat(inputs), data.repeat(len(inputs), 1)
        passed = _forward(parameters, corrupted, activation, target)
        return _backward(parameters, corrupted, passed)


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
        passed = _forward(parameters, data, activation)
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
        terms = _backward(
            parameters, data, passed, value, to_codes=scale * (g @ weights.T), to_z=to_z
        )
        # By way of r = x - h W and of g = q W, and of u = e W^T within q.
        left = torch.cat([scale * passed.codes, -scale * q, -scale * correlation * passed.slope])
        right = torch.cat([g, passed.residual, noise])
        return terms._replace(
            left=torch.cat([terms.left, left]), right=torch.cat([terms.right, right])
        )


@dataclass(frozen=True)
class SecondOrderDenoising:
    """The second-order Taylor form of the denoising objective: Arpit et al. 2016, Theorem 3.

    strength * E[sum_jk s'_j s'_k <W_j, W_k>^2 - sum_j <r, W_j> s''_j |W_j|^2]: eq. (7), all three
    terms, j = k in the first. For ReLU s'' is 0, as automatic differentiation has it.
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
        passed = _forward(parameters, data, activation)
        bend, jerk = activation.bend(passed.activated), activation.jerk(passed.activated)
        gram = weights @ weights.T  # (m, m)
        through = passed.slope @ gram.square()  # (B, m)
        lengths = _squared_lengths(parameters)
        correlation = passed.residual @ weights.T  # (B, m)
        pull = bend * lengths  # (B, m)
        value = scale * ((passed.slope * through).sum() - (correlation * pull).sum())
        g = pull @ weights  # (B, n): the last term is -<r, g>
        to_z = scale * (2.0 * bend * through - correlation * jerk * lengths)
        terms = _backward(
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
        return terms._replace(
            left=torch.cat([terms.left, left]), right=torch.cat([terms.right, right]), dense=dense
        )


# --- contraction --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Contraction:
    """strength * E sum_j s'_j^2 |W_j|^power, power 2 or 4."""

    strength: float
    kink: float = 0.0

    power: ClassVar[int]

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
        passed = _forward(parameters, data, activation)
        squares = _squared_lengths(parameters)
        lengths = squares if self.power == 2 else squares.square()
        energy = (passed.slope * passed.slope).sum(dim=0)  # (m,)
        to_z = activation.bend(passed.activated).mul_(passed.slope).mul_(2.0 * scale * lengths)
        if kink > 0.0:
            if not isinstance(activation, ReLU):
                raise ArgumentError("kink", f"{kink:g} with {activation!r}", "ReLU, which has one")
            # d/dz of 1[z > 0] is a Dirac; over a window of half-width `kink` its mean.
            to_z = to_z + (scale / (2.0 * kink)) * (passed.z.abs() < kink) * lengths
        derivative = 1.0 if self.power == 2 else 2.0 * squares  # d |W|^power / d |W|^2
        return _backward(
            parameters,
            data,
            passed,
            scale * (energy * lengths).sum(),
            to_z=to_z,
            radial=2.0 * scale * energy * derivative,
        )


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
    """

    power: ClassVar[int] = 2


@dataclass(frozen=True)
class Marginalized(_Contraction):
    """The marginalised denoising autoencoder: Arpit et al. 2016, eq. (10), (11), Remark 2.

    strength * E sum_j s'_j^2 |W_j|^4, which is :class:`Contractive` at unit length. Parameters are
    its.
    """

    power: ClassVar[int] = 4


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
        passed = _forward(parameters, data, activation)
        lengths, bend = _squared_lengths(parameters), activation.bend(passed.activated)
        energy = first * passed.slope.square().sum(dim=0)  # (m,)
        to_z = (2.0 * first) * passed.slope * bend * lengths
        lefts, rights, bias = [], [], torch.zeros_like(parameters.bias)
        for _ in range(self.draws):
            noisy = data + _noise(data, self.noise, generator)
            z = torch.addmm(parameters.bias, noisy, weights.T)
            moved = activation(z)
            apart = passed.slope - moved.slope  # (B, m)
            energy = energy + second * apart.square().sum(dim=0)
            to_z = to_z + (2.0 * second) * apart * bend * lengths
            back = (-2.0 * second) * apart * activation.bend(moved) * lengths
            lefts.append(back)
            rights.append(noisy)
            bias += back.sum(dim=0)
        value = (energy * lengths).sum()
        terms = _backward(parameters, data, passed, value, to_z=to_z, radial=2.0 * energy)
        return terms._replace(
            left=torch.cat([terms.left, *lefts]),
            right=torch.cat([terms.right, *rights]),
            bias=terms.bias + bias,
        )


# --- codes --------------------------------------------------------------------------------

# A mean activation at or above it has left where eq. (12) and (13) are defined: there the
# gradient is 0. Unclamped, ReLU codes make the objective infinite within dozens of steps.
_LARGEST_MEAN = 0.99
_SMALLEST_MEAN = 1e-6  # of a target rho > 0: the logarithm of a dead unit


@dataclass(frozen=True)
class KLSparse:
    """The sparse autoencoder: the mean activation of each unit drawn to rho.

    strength * sum_j (rho log(rho/rho_j) + (1-rho) log((1-rho)/(1-rho_j))), rho_j the mean of h_j
    over the batch: Arpit et al. 2016, eq. (12); -strength * sum_j log(1 - rho_j) for rho = 0, eq.
    (13).

    Parameters
    ----------
    strength : float
        lambda.
    rho : float
        The target, in [0, 1).
    """

    strength: float
    rho: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_number("strength", self.strength, low=0.0)
        check_number("rho", self.rho, low=0.0, high=_LARGEST_MEAN)

    def __call__(  # noqa: D102
        self,
        parameters: Parameters,
        data: Tensor,
        activation: SmoothActivation,
        generator: torch.Generator | None = None,
    ) -> Terms:
        passed = _forward(parameters, data, activation)
        mean = passed.codes.mean(dim=0)  # (m,)
        least = _SMALLEST_MEAN if self.rho > 0 else -torch.inf
        inside = (mean > least) & (mean < _LARGEST_MEAN)
        held = mean.clamp(least, _LARGEST_MEAN)
        rho = self.rho
        value = -(1 - rho) * torch.log1p(-held)
        slope = (1 - rho) / (1 - held)
        if rho > 0:
            constant = rho * math.log(rho) + (1 - rho) * math.log1p(-rho)
            value = value - rho * held.log() + constant
            slope = slope - rho / held
        to_codes = (self.strength / len(data)) * torch.where(inside, slope, 0.0)
        return _backward(
            parameters,
            data,
            passed,
            self.strength * value.sum(),
            to_codes=to_codes.expand_as(passed.codes),
        )


@dataclass(frozen=True)
class L1:
    """strength * E sum_j |h_j|: the penalty of sparse coding, Arpit et al. 2016, eq. (2)."""

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
        passed = _forward(parameters, data, activation)
        scale = self.strength / len(data)
        return _backward(
            parameters,
            data,
            passed,
            scale * passed.codes.abs().sum(),
            to_codes=scale * passed.codes.sign(),
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
}.items():
    register("penalty", _name)(_kind)

PENALTIES = named("penalty")
"""From a name to a penalty, whose first argument is its strength."""


def penalty_named(name: str, strength: float) -> Penalty:
    """The penalty of that name, its other settings as they are by default.

    >>> penalty_named("cae", 0.25)
    Contractive(strength=0.25, kink=0.0)
    """
    check_choice("penalty", name, PENALTIES)
    made: Penalty = PENALTIES[name](check_number("strength", strength, low=0.0))
    return made

"""Rules: how parameters move, given the sums of a batch.

A rule is a value with two functions,

    init(parameters)                                   -> parameters, memory
    update(parameters, sums, memory, step, constrain)  -> parameters, memory

where `memory` is all that the rule carries from step to step (None, velocities, moments), `step`
counts from 0 in each stage of a plan, and `constrain(moved, before)` keeps atoms in their set.
Gradients come in the parts that an objective has them in: see :mod:`shoal.network.objective`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from shoal.network.objective import StepSums, Sums
from shoal.parts import register, stands_for
from shoal.training.schedules import Constant, Schedule
from shoal.vocabulary import ArgumentError, Parameters, check_number

__all__ = ["Adam", "FixedStep", "Momentum", "NormalizedStep", "Rule"]

Constrain = Callable[..., Tensor]
"""From moved atoms (m, n) and, where a rule kept them, those before, to atoms in their set."""


class Rule(Protocol):
    """How parameters move."""

    def init(self, parameters: Parameters) -> tuple[Parameters, Any]:
        """What the first update moves, and the memory to begin with."""

    def update(
        self, parameters: Parameters, sums: Sums, memory: Any, step: int, constrain: Constrain
    ) -> tuple[Parameters, Any]:
        """One update."""

    def rate(self, step: int) -> float | None:
        """The learning rate of a step, for the record."""


class _AgainstTheGradient:
    """W <- normalize(W - zeta g), Nguyen et al. 2018, Theorem 4; new tensors every time.

    The bias isn't moved here: it follows its schedule.
    """

    schedule: Schedule
    follows_gradient: ClassVar[bool] = False  # of all that is learned; this one of the dictionary

    def init(self, parameters: Parameters) -> tuple[Parameters, None]:
        return parameters, None

    def change(self, step: int, sums: StepSums) -> Tensor:
        raise NotImplementedError

    def update(
        self,
        parameters: Parameters,
        sums: Sums,
        memory: Any,
        step: int,
        constrain: Constrain,
    ) -> tuple[Parameters, Any]:
        if not isinstance(sums, StepSums):
            found = f"{type(self).__name__} with a penalty"
            raise ArgumentError("rule", found, "Momentum or Adam, which follow its gradient")
        moved = parameters.dictionary - self.change(step, sums)
        return parameters._replace(dictionary=constrain(moved, parameters.dictionary)), None

    def rate(self, step: int) -> float:
        return self.schedule(step)


@register("rule")
@dataclass(frozen=True)
class NormalizedStep(_AgainstTheGradient):
    """Step size zeta_i = c / mean(x_i^2), unit by unit, with c from a schedule.

    mean(x_i^2) estimates p_i kappa2, so that c is the step in units of the theory's
    1 / (p_i kappa2): Nguyen et al. 2018, Theorem 4, takes zeta of that order. One step
    contracts the squared distance by about (1 - c)^2; c > 1.5 oscillates. For
    non-negative codes the mean direction is steeper by L = 1 + (k-1) kappa1^2 / kappa2
    and c L < 2 is needed, unless `shared`.

    Parameters
    ----------
    schedule : Schedule
        c, step by step.
    shared : bool
        Whether what all atoms have in common moves by some 1/L of that: Newton's step for
        X^T X = diag(s) + h h^T / B, which is what independent codes X (B, m) with sums of
        squares s and sums h have; and for h its bound, sqrt(count * s). For non-negative codes.
    """

    schedule: Schedule
    shared: bool = False

    def change(self, step: int, sums: StepSums) -> Tensor:
        """What is taken from the atoms (m, n), given the sums of a batch."""
        tiny = torch.finfo(sums.energy.dtype).tiny
        inverse = torch.where(sums.energy > 0, 1 / sums.energy.clamp_min(tiny), 0.0)  # (m,)
        c = self.schedule(step)
        moved = sums.dictionary * (c * inverse)[:, None]
        if self.shared:
            heights = torch.sqrt(sums.counts * inverse)  # h / s
            common = heights @ sums.dictionary / (sums.n_samples + sums.counts.sum())  # (n,)
            moved.addr_(heights, common, alpha=-c)
        return moved


@register("rule")
@dataclass(frozen=True)
class FixedStep(_AgainstTheGradient):
    """One step size zeta for all units, from a schedule."""

    schedule: Schedule

    def change(self, step: int, sums: StepSums) -> Tensor:
        """What is taken from the atoms (m, n), given the sums of a batch."""
        return sums.dictionary * (self.schedule(step) / sums.n_samples)


@register("rule")
@dataclass(frozen=True)
class Momentum:
    """v <- momentum v - learning_rate g, W <- W + v, in place.

    The protocol of Arpit et al. 2016, section 3, where the length of the atoms is brought back to
    1 after each step.

    Parameters
    ----------
    learning_rate : float
        Above 0; for a loss that is summed over features. The paper's range is .001 to .005.
    momentum : float
        In [0, 1).
    tangent : bool
        Whether the part of the gradient along each atom is left out, for atoms of length 1. What
        a penalty does along the atoms then has no effect at all, not even by rounding.
    weight_decay : float
        Its gradient is weight_decay W.
    bias : bool
        Whether the encoder's bias moves; else it stays as it is at the start. Without one
        E a_j = 0 of centred data, whatever is trained: Arpit et al. 2016, eq. (3).
    """

    learning_rate: float = 0.001
    momentum: float = 0.9
    tangent: bool = False
    weight_decay: float = 0.0
    bias: bool = True

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_number("learning_rate", self.learning_rate, low=0.0, open_low=True)
        if check_number("momentum", self.momentum, low=0.0, high=1.0) == 1.0:
            raise ArgumentError("momentum", "1", "a number below 1: at 1 no step is forgotten")
        check_number("weight_decay", self.weight_decay, low=0.0)

    def init(self, parameters: Parameters) -> tuple[Parameters, Parameters]:  # noqa: D102
        return parameters.map(torch.clone), parameters.map(torch.zeros_like)

    def update(  # noqa: D102
        self,
        parameters: Parameters,
        sums: Sums,
        memory: Parameters,
        step: int,
        constrain: Constrain,
    ) -> tuple[Parameters, Parameters]:
        rate, keep = self.learning_rate, self.momentum
        slopes = sums.slopes() if self.bias else (None, *sums.slopes()[1:])
        for part, speed, slope in zip(parameters[1:], memory[1:], slopes, strict=True):
            if part is not None and speed is not None and slope is not None:
                speed.mul_(keep).add_(slope, alpha=-rate)
                part += speed
        weights, velocity = parameters.dictionary, memory.dictionary
        if self.tangent:
            gradient = sums.across(weights)
            along = (gradient * weights).sum(dim=1, keepdim=True)
            velocity.mul_(keep).sub_(gradient - along * weights, alpha=rate)
        else:
            sums.pull_(velocity, weights, keep, rate, self.weight_decay)
        weights += velocity
        return parameters._replace(dictionary=constrain(weights)), memory

    def rate(self, step: int) -> float:  # noqa: D102
        return self.learning_rate


@register("rule")
@dataclass(frozen=True)
class Adam:
    """Adam, Kingma and Ba 2015, in place, with a schedule for its learning rate.

    Parameters
    ----------
    schedule : Schedule
        The learning rate, step by step.
    beta1, beta2 : float
        In [0, 1): how much of the means of the gradient and of its square is kept.
    epsilon : float
        Above 0, added to the root of the latter.
    tangent : bool
        Whether the part of the gradient along each atom is left out, for atoms of length 1.
    relative: bool
        Whether the learning rate is in units of 1/sqrt(n), the root mean square of the entries of
        an atom of length 1, so that it is the same angle for any number n of features.
    """

    schedule: Schedule = Constant(0.001)
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    tangent: bool = False
    relative: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("beta1", "beta2"):
            if check_number(name, getattr(self, name), low=0.0, high=1.0) == 1.0:
                raise ArgumentError(name, "1", "a number below 1")
        check_number("epsilon", self.epsilon, low=0.0, open_low=True)

    def init(  # noqa: D102
        self, parameters: Parameters
    ) -> tuple[Parameters, tuple[Parameters, Parameters]]:
        moments = parameters.map(torch.zeros_like), parameters.map(torch.zeros_like)
        return parameters.map(torch.clone), moments

    def update(  # noqa: D102
        self,
        parameters: Parameters,
        sums: Sums,
        memory: tuple[Parameters, Parameters],
        step: int,
        constrain: Constrain,
    ) -> tuple[Parameters, tuple[Parameters, Parameters]]:
        weights = parameters.dictionary
        gradient = sums.across(weights) if self.tangent else sums.gradient(weights)
        if self.tangent:
            along = (gradient * weights).sum(dim=1, keepdim=True)
            gradient = gradient - along * weights
        slopes = (gradient, *sums.slopes())
        one, two = 1 - self.beta1 ** (step + 1), 1 - self.beta2 ** (step + 1)
        rate = self.schedule(step)
        if self.relative:
            rate /= weights.shape[1] ** 0.5
        for part, slope, mean, square in zip(parameters, slopes, *memory, strict=True):
            if part is None or slope is None or mean is None or square is None:
                continue
            mean.lerp_(slope, 1 - self.beta1)
            square.mul_(self.beta2).addcmul_(slope, slope, value=1 - self.beta2)
            root = torch.sqrt(square / two).add_(self.epsilon)
            part.addcdiv_(mean, root, value=-rate / one)
        return parameters._replace(dictionary=constrain(weights)), memory

    def rate(self, step: int) -> float:  # noqa: D102
        return self.schedule(step)


stands_for("rule", Rule)

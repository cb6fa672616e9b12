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
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from shoal.network.objective import StepSums, Sums
from shoal.parts import register, stands_for
from shoal.training.constraints import largest_coherence, pushed_apart, usual_coherence
from shoal.training.schedules import Constant, Schedule
from shoal.training.shards import over_all
from shoal.vocabulary import ArgumentError, Parameters, check_number

__all__ = ["Adam", "FixedStep", "IncoherentStep", "Momentum", "NormalizedStep", "Rule"]

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

    Examples
    --------
    >>> from shoal.training import NormalizedStep
    >>> from shoal.training.schedules import Constant
    >>> NormalizedStep(Constant(0.5))
    NormalizedStep(schedule=Constant(value=0.5), shared=False)
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
            common = over_all(heights @ sums.dictionary)  # (n,)
            common = common / (sums.n_samples + over_all(sums.counts.sum()))
            moved.addr_(heights, common, alpha=-c)
        return moved


@register("rule")
@dataclass(frozen=True)
class FixedStep(_AgainstTheGradient):
    """One step size zeta for all units, from a schedule.

    Examples
    --------
    >>> from shoal.training import FixedStep
    >>> from shoal.training.schedules import Constant
    >>> FixedStep(Constant(0.5))
    FixedStep(schedule=Constant(value=0.5))
    """

    schedule: Schedule

    def change(self, step: int, sums: StepSums) -> Tensor:
        """What is taken from the atoms (m, n), given the sums of a batch."""
        return sums.dictionary * (self.schedule(step) / sums.n_samples)


@register("memory")
class Means(NamedTuple):
    """Running means over the rows that were seen, and what they came to."""

    energy: Tensor  # (m,) of x_i^2
    frequency: Tensor  # (m,) of how often unit i is active
    noise: Tensor  # () of what is left, squared, a feature
    nested: bool | None = None  # whether atoms share parts once they may; not known yet
    before: Parameters | None = None  # as they were before that was tried


@register("rule")
@dataclass(frozen=True)
class IncoherentStep:
    """Atoms, thresholds and offset, for codes that take as many atoms as each row needs.

    The step of an atom is in units of 1 / mean(x_i^2), over many batches, so that rare atoms move
    as far as frequent ones in the end: Nguyen et al. 2018, Theorem 4. Then atoms are pushed apart
    (:func:`shoal.training.constraints.pushed_apart`), to a coherence that falls from the largest
    one of random atoms to :func:`usual_coherence`. At `release` they are let go, back to most of
    the former. If after `trial` steps most are held even there, which random atoms are not, then
    they share parts, as sums of a parent and a child do: what was before is taken up again, and
    atoms stay apart. Else the push was only to make all atoms differ, and the data have the last
    word, but for a weak one.

    The offset follows what is left on average. A coefficient of atom i must be worth

        theta_i = most rms_i, and in the end noises sigma where that is less, but least rms_i

    with rms_i that of its own coefficients and sigma^2 what is left unexplained, a feature: both
    from the data, free of scale.

    Parameters
    ----------
    schedule : Schedule
        The step of the atoms.
    release, trial : int
        As above, in steps.
    both : bool
        Whether of pairs with a negative cosine both atoms give way, for non-negative codes: to a
        third of the usual coherence until the release, then to all of it.
    noises, least, most : float
        As above.
    free, weak : float
        The coherence that is let be after the release, as a share of the largest one of random
        atoms, and the strength of the push then.
    offset : float
        The step of the offset.
    """

    schedule: Schedule
    release: int
    trial: int
    both: bool = False
    noises: float = 8.0
    least: float = 0.3
    most: float = 0.5
    free: float = 0.75
    weak: float = 0.1
    offset: float = 0.1

    follows_gradient: ClassVar[bool] = True
    any_unit: ClassVar[bool] = True

    def init(self, parameters: Parameters) -> tuple[Parameters, Means | None]:  # noqa: D102
        return parameters, None

    def update(  # noqa: D102
        self,
        parameters: Parameters,
        sums: Sums,
        memory: Means | None,
        step: int,
        constrain: Constrain,
    ) -> tuple[Parameters, Means]:
        if not isinstance(sums, StepSums):
            found = f"{type(self).__name__} with a penalty"
            raise ArgumentError("rule", found, "Momentum or Adam, which follow its gradient")
        atoms, count = parameters.dictionary, sums.n_samples
        m, n = atoms.shape
        now = Means(sums.energy / count, sums.counts / count, 2 * sums.losses.mean() / n)
        means = now if memory is None else _mixed(memory, now, max(0.02, 1 / (step + 1)))
        largest, usual = largest_coherence(m, n), usual_coherence(m, n)
        if step == self.release:
            means = means._replace(before=parameters)
        if step == self.release + self.trial and means.before is not None:
            nested = _held(atoms, self.free * largest)
            if nested:
                parameters, atoms = means.before, means.before.dictionary
            means = means._replace(nested=nested, before=None)
        floor = (1e-3 * means.energy.mean()).clamp_min(torch.finfo(atoms.dtype).tiny)
        rate = self.schedule(step) / (count * means.energy.maximum(floor))
        moved = atoms - rate[:, None] * sums.dictionary
        mu, opposite, strength = self.free * largest, None, self.weak
        if step < self.release or means.nested:
            share = min(1.0, step / max(1, self.release))
            mu, strength = largest + (usual - largest) * share, 0.5
            if self.both:
                opposite = usual if step >= self.release else usual / 3
        moved = pushed_apart(moved, means.frequency, mu, opposite=opposite, strength=strength)
        rms = torch.sqrt(means.energy / means.frequency)
        bar = self.noises * torch.sqrt(means.noise)
        worth = self.most * rms
        if step >= self.release + self.trial:
            worth = bar.clamp(self.least * rms, worth)
        worth = torch.where(means.frequency > 0, worth, bar)
        offset = parameters.offset
        if offset is not None and sums.offset is not None:
            offset = offset - self.offset / count * sums.offset
        return parameters._replace(
            dictionary=constrain(moved, atoms), threshold=worth, offset=offset
        ), means

    def rate(self, step: int) -> float:  # noqa: D102
        return self.schedule(step)


def _mixed(before: Means, now: Means, share: float) -> Means:
    """The running means with those of one more batch."""
    return before._replace(
        energy=before.energy.lerp(now.energy, share),
        frequency=before.frequency.lerp(now.frequency, share),
        noise=before.noise.lerp(now.noise, share),
    )


def _held(atoms: Tensor, coherence: float) -> bool:
    """Whether more than half of the atoms are as coherent with another as `coherence` lets."""
    cosines = (atoms @ atoms.T).fill_diagonal_(0.0)
    # Of random atoms a few reach their own bound; before all are found, up to a third.
    return float((cosines.amax(dim=1) > 0.95 * coherence).double().mean()) > 0.5


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

    Examples
    --------
    >>> from shoal.training import Momentum
    >>> Momentum(learning_rate=0.002)
    Momentum(learning_rate=0.002, momentum=0.9, tangent=False, weight_decay=0.0, bias=True)
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


def check_kept(**shares: float) -> None:
    """Refuse what isn't in [0, 1): how much of a running mean is kept at each step."""
    for name, share in shares.items():
        if check_number(name, share, low=0.0, high=1.0) == 1.0:
            raise ArgumentError(name, "1", "a number below 1")


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
    relative : bool
        Whether the learning rate is in units of 1/sqrt(n), the root mean square of the entries of
        an atom of length 1, so that it is the same angle for any number n of features.

    Examples
    --------
    >>> from shoal.training import Adam
    >>> from shoal.training.schedules import Constant
    >>> Adam(Constant(0.01), beta1=0.5).beta1
    0.5
    """

    schedule: Schedule = Constant(0.001)
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    tangent: bool = False
    relative: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_kept(beta1=self.beta1, beta2=self.beta2)
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
            # An outlier beyond all range moves nothing.
            gradient = (gradient - along * weights).nan_to_num(0.0, 0.0, 0.0)
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

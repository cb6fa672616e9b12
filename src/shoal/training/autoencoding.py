"""Sparse autoencoders, trained end to end: where they begin, and how all that they learn moves.

    x = gate(E (y - c) + b),    y_hat = x D + c

with weights E and D of their own, a bias, an offset c that is taken off and added again, and, for
some gates, a threshold for each unit: Gao et al. 2024, Scaling and evaluating sparse autoencoders;
Bussmann et al. 2024, BatchTopK; Rajamanoharan et al. 2024, Jumping Ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoal.network.activations import Activation, learns_threshold
from shoal.network.adam import adam_
from shoal.network.objective import StepSums, Sums
from shoal.parts import register
from shoal.training.rules import Constrain, check_kept
from shoal.training.schedules import Constant, Schedule
from shoal.training.shards import of_all, over_all
from shoal.vocabulary import ArgumentError, Parameters, check_number

__all__ = ["AutoencoderAdam", "about_mean", "renewed"]

# Of the scale that codes have under the atoms themselves: where the encoder begins. The tied code
# is too large where atoms interfere; measured on activations, from .3 to 1 ends nearly the same.
_GAIN = 0.5
# Arbitrary: scores from which the first thresholds are taken.
_SCORES = 2**22


@register("rule")
@dataclass(frozen=True)
class AutoencoderAdam:
    """Adam, Kingma and Ba 2015, on encoder, bias, atoms and offset, in one pass over each.

    Its gradient is that of a network whose encoder sees rows less the offset: parameters hold
    b - E c for its bias, so that the weights don't have to learn what all rows have in common.
    Atoms move along the part of their gradient that doesn't change their length.

    Parameters
    ----------
    schedule : Schedule
        The step: of weights in units of 1/sqrt(n), of a bias and a threshold in the unit in which
        features have a mean square of about 1, to which data are brought.
    beta1, beta2 : float
        In [0, 1): how much of the means of the gradient and of its square is kept.
    active : float or None
        Active units per row to which thresholds are drawn, by Rajamanoharan et al. 2024's penalty
        for a given number, strength n / 2 (L0 / active - 1)^2, straight through the jump.
    strength : float
        Of that.

    Examples
    --------
    >>> import shoal
    >>> from shoal.training import recipe_named
    >>> recipe_named("topk", "nonnegative", 64, 4, 10_000).rule.rate(0)
    0.08
    """

    schedule: Schedule = Constant(0.08)
    beta1: float = 0.9
    beta2: float = 0.999
    active: float | None = None
    strength: float = 1.0

    follows_gradient: ClassVar[bool] = True
    any_unit: ClassVar[bool] = True
    about_one: ClassVar[bool] = True  # the unit in which features have a mean square of about 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_kept(beta1=self.beta1, beta2=self.beta2)
        if self.active is not None:
            check_number("active", self.active, low=0.0, open_low=True)
        check_number("strength", self.strength, low=0.0)

    def init(  # noqa: D102
        self, parameters: Parameters
    ) -> tuple[Parameters, tuple[Parameters, Parameters]]:
        moments = parameters.map(torch.zeros_like), parameters.map(torch.zeros_like)
        return parameters.map(lambda part: part.clone().contiguous()), moments

    def update(  # noqa: D102
        self,
        parameters: Parameters,
        sums: Sums,
        memory: tuple[Parameters, Parameters],
        step: int,
        constrain: Constrain,
    ) -> tuple[Parameters, tuple[Parameters, Parameters]]:
        if not isinstance(sums, StepSums):
            found = f"{type(self).__name__} with a penalty"
            raise ArgumentError("rule", found, "Momentum or Adam, which follow its gradient")
        encoder, offset, threshold = parameters.encoder, parameters.offset, parameters.threshold
        if encoder is None or offset is None or sums.encoder is None or sums.offset is None:
            found = f"{type(self).__name__} with tied weights or without an offset"
            raise ArgumentError("rule", found, "a recipe with untied=True and offset=True")
        atoms, n = parameters.dictionary, parameters.dictionary.shape[1]
        rate, scale = self.schedule(step), 1 / sums.n_samples
        bias = parameters.bias + encoder @ offset
        pulls = [
            sums.dictionary - (sums.dictionary * atoms).sum(dim=1, keepdim=True) * atoms,
            sums.bias,
            torch.addr(sums.encoder, sums.bias, offset, alpha=-1),
            self._by_threshold(sums, threshold, n),
            sums.offset - over_all(sums.bias @ encoder),
        ]
        short = rate / n**0.5
        lengths = (short, rate, short, rate, short)
        moved = Parameters(atoms, bias, encoder, threshold, offset)
        for part, slope, mean, square, length in zip(moved, pulls, *memory, lengths, strict=True):
            if part is None or slope is None or mean is None or square is None:
                continue
            # An outlier beyond all range moves nothing.
            slope = slope.nan_to_num(0.0, 0.0, 0.0).contiguous()
            adam_(part, slope, (mean, square), step, length, scale=scale,
                  beta1=self.beta1, beta2=self.beta2)  # fmt: skip
        moved = moved._replace(dictionary=constrain(atoms), bias=bias - encoder @ offset)
        return moved, memory

    def _by_threshold(self, sums: StepSums, threshold: Tensor | None, n: int) -> Tensor | None:
        """The gradient by the thresholds, with that of the penalty."""
        if threshold is None or sums.threshold is None:
            return None
        if self.active is None or sums.near is None:
            return sums.threshold
        excess = float(sums.counts.sum()) / (sums.n_samples * self.active) - 1
        pull = self.strength * n * min(excess, 10.0) / self.active
        return sums.threshold - pull * sums.near

    def rate(self, step: int) -> float:  # noqa: D102
        return self.schedule(step)

    def endless(self) -> Self:
        """For data that come piece by piece: with the step that it begins with."""
        return replace(self, schedule=Constant(self.schedule(0)))

    def forget(
        self, memory: tuple[Parameters, Parameters], rows: Tensor
    ) -> tuple[Parameters, Parameters]:
        """The moments without those of the units `rows`, Boolean (m,), which begin anew."""
        for moments in memory:
            for name in ("dictionary", "bias", "encoder", "threshold"):
                part = getattr(moments, name)
                if part is not None:
                    part[rows] = 0.0
        return memory


def about_mean(
    parameters: Parameters, rows: NDArray[Any], activation: Activation, k: int
) -> Parameters:
    """Parameters whose atoms lead away from the mean of `rows` (N, n), with what else they need.

    The encoder is a gain times the atoms, and thresholds, where there are some, lie where k units
    of a row are active.
    """
    atoms, bias = parameters.dictionary, parameters.bias
    offset = torch.from_numpy(rows.mean(axis=0, dtype=np.float64)).to(bias)
    encoder = _GAIN * atoms
    parameters = parameters._replace(encoder=encoder, bias=-(encoder @ offset), offset=offset)
    if learns_threshold(activation):
        few = torch.from_numpy(rows[: max(1, _SCORES // len(atoms))]).to(bias)
        scores = ((few - offset) @ encoder.T).flatten()
        most = min(k * len(few), scores.numel())
        level = scores.topk(most).values[-1].clamp_min(0.0)
        parameters = parameters._replace(threshold=level.expand_as(bias).clone())
    return parameters


def renewed(parameters: Parameters, before: Tensor) -> tuple[Parameters, Tensor]:
    """Parameters with an encoder for the atoms that aren't those of `before` (m, n) any more.

    It is the new atom times the usual gain, and what else a unit has is as it usually is. The
    second is Boolean (m,): which units these are.
    """
    atoms, own = parameters.dictionary, parameters.encoder
    assert own is not None
    new = (atoms != before).any(dim=1)
    every = of_all(new)
    if not bool(every.any()) or bool(every.all()):
        return parameters, new
    gain = of_all((own * before).sum(dim=1))[~every].median().clamp_min(0.0)
    encoder = torch.where(new[:, None], gain * atoms, own)
    bias, threshold = parameters.bias, parameters.threshold
    if parameters.offset is not None:  # of an encoder that sees rows less the offset
        usual = of_all(bias + own @ parameters.offset)[~every].median()
        bias = torch.where(new, usual - encoder @ parameters.offset, bias)
    else:
        bias = torch.where(new, of_all(bias)[~every].median(), bias)
    if threshold is not None:
        threshold = torch.where(new, of_all(threshold)[~every].median(), threshold)
    return parameters._replace(encoder=encoder, bias=bias, threshold=threshold), new

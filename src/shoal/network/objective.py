"""Objectives on a batch: what a training step needs, in the parts that it comes in.

Without a penalty the objective is the reconstruction loss under an encoder's codes, and a kernel
sums it (:class:`StepSums`); with one it is what the penalty makes of it
(:class:`shoal.network.penalties.Terms`). Both are :class:`Sums`, all that a rule asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from shoal.network import kernels
from shoal.network.activations import Activation
from shoal.network.kernels import StepSums
from shoal.network.penalties import Penalty, Terms
from shoal.network.pursuit import Pursuit
from shoal.vocabulary import Parameters

__all__ = ["Evaluate", "StepSums", "Sums", "on_batch", "on_the_same_batch"]


class Sums(Protocol):
    """The gradient of a mean objective J over a batch, in whatever parts it comes."""

    def gradient(self, dictionary: Tensor) -> Tensor:
        """dJ/dD (m, n)."""

    def across(self, dictionary: Tensor) -> Tensor:
        """dJ/dD (m, n) but for a multiple of each atom."""

    def slopes(self) -> tuple[Tensor | None, ...]:
        """dJ by bias, encoder, threshold and offset; None where it does not depend on one."""

    def pull_(
        self, velocity: Tensor, dictionary: Tensor, keep: float, rate: float, decay: float
    ) -> None:
        """velocity <- keep velocity - rate (dJ/dD + decay D), in place."""


Evaluate = Callable[
    [Activation | Pursuit, Penalty | None, Parameters, torch.Generator | None], StepSums | Terms
]
"""From an encoder, a penalty or None, parameters and a source of noise to the sums of a batch."""


def on_batch(data: Tensor) -> Evaluate:
    """The sums of the batch `data` (B, n)."""
    return partial(_evaluate, data, lambda encoder: partial(_step, data, encoder))


def on_the_same_batch(data: Tensor) -> Evaluate:
    """As :func:`on_batch`, for data that come again and again: kernels remember decisions."""
    remembering: dict[Activation | Pursuit, Callable[[Parameters], StepSums]] = {}

    def step_of(encoder: Activation | Pursuit) -> Callable[[Parameters], StepSums]:
        if encoder not in remembering:
            remembering[encoder] = kernels.repeated(data, encoder)
        return remembering[encoder]

    return partial(_evaluate, data, step_of)


def _step(data: Tensor, encoder: Activation | Pursuit, parameters: Parameters) -> StepSums:
    kernel = kernels.choose(data, parameters, encoder)
    sums: StepSums = kernel.step(parameters, data=data, activation=encoder)
    return sums


def _evaluate(
    data: Tensor,
    step_of: Callable[[Activation | Pursuit], Callable[[Parameters], StepSums]],
    encoder: Activation | Pursuit,
    penalty: Penalty | None,
    parameters: Parameters,
    generator: torch.Generator | None,
) -> StepSums | Terms:
    if penalty is None:
        return step_of(encoder)(parameters)
    return penalty(parameters, data, encoder, generator)  # type: ignore[arg-type]

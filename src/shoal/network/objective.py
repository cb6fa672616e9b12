"""Objectives on a batch: what a training step needs, in the parts that it comes in.

Without a penalty the objective is the reconstruction loss under an encoder's codes, and a kernel
sums it (:class:`StepSums`); with one it is what the penalty makes of it
(:class:`shoal.network.penalties.Terms`). Both are :class:`Sums`, all that a rule asks for. Every
step's sums, those of the polish included, go through :func:`reduced`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from shoal.network import kernels
from shoal.network.activations import Activation
from shoal.network.codes import SparseCodes
from shoal.network.kernels import StepSums
from shoal.network.penalties import Penalty, Terms
from shoal.network.prefixes import Prefixes
from shoal.network.pursuit import Pursuit
from shoal.vocabulary import Parameters

__all__ = [
    "Evaluate",
    "StepSums",
    "Sums",
    "Terms",
    "on_batch",
    "on_codes",
    "on_encoder",
    "on_part",
    "on_the_same_batch",
    "reduced",
]


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
    [Activation | Pursuit, Penalty | Prefixes | None, Parameters, torch.Generator | None],
    StepSums | Terms,
]
"""From an encoder, a penalty or None, parameters and a source of noise to the sums of a batch."""


S = TypeVar("S", StepSums, Terms)


def reduced(sums: S) -> S:
    """The sums of all rows of a step, from those of the rows at hand: here the same.

    The one place for an all-reduce, where several processes share a step's rows.
    """
    return sums


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
    penalty: Penalty | Prefixes | None,
    parameters: Parameters,
    generator: torch.Generator | None,
) -> StepSums | Terms:
    if penalty is None:
        return reduced(step_of(encoder)(parameters))
    if isinstance(penalty, Prefixes):
        return reduced(penalty(parameters, data, encoder, generator))
    return reduced(penalty(parameters, data, encoder, generator))  # type: ignore[arg-type]


def on_encoder(
    parameters: Parameters, data: Tensor, encoder: Activation, *, held: bool = True
) -> StepSums:
    """The sums of the batch `data` (B, n) for an encoder with weights of its own.

    The dictionary being `held`, its gradient isn't asked for, and may be left 0.
    """
    kernel = kernels.choose(data, parameters, encoder)
    step = getattr(kernel, "encoder_step", kernel.step) if held else kernel.step
    sums: StepSums = step(parameters, data, encoder)
    return reduced(sums)


def on_part(parameters: Parameters, data: Tensor, target: Tensor, codes: SparseCodes) -> StepSums:
    """The sums of the batch `data` (B, n) for some units, others of which rebuild the rest.

    `codes` are those of the units at hand, as an activation with a gate gives them, and `target`
    (B, n) what these are to rebuild, an offset taken off.
    """
    kernel = kernels.choose(data)
    step = getattr(kernel, "targeted_step", kernels.reference.targeted_step)
    sums: StepSums = step(parameters, data, target, codes)
    return reduced(sums)


def on_codes(parameters: Parameters, data: Tensor, codes: SparseCodes) -> StepSums:
    """The sums of the batch `data` (B, n) under given codes, as a pursuit finds them."""
    sums: StepSums = kernels.choose(data, parameters).coded_step(parameters, data, codes)
    return reduced(sums)

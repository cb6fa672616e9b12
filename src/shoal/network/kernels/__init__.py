"""Kernels: the training step and the encoder, behind one chooser.

A kernel is a module with three functions,

    step(parameters, data, activation) -> StepSums
    encode(parameters, data, activation) -> codes (B, m)
    sparse_encode(parameters, data, activation) -> SparseCodes

and every kernel must agree with `reference`, which is the definition of correct. Only the
network's own modules and the loop's step call them, always through :func:`choose`.
"""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from shoal.network.kernels import reference
from shoal.network.kernels.reference import StepSums

__all__ = ["StepSums", "choose"]


def choose(data: Tensor) -> ModuleType:
    """The kernel for a batch like `data`: today always the dense torch reference."""
    return reference

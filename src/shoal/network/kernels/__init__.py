"""Kernels: the training step and the encoder, behind one chooser.

A kernel is a module with four functions,

    step(parameters, data, activation) -> StepSums
    encode(parameters, data, activation) -> codes (B, m)
    sparse_encode(parameters, data, activation) -> SparseCodes
    coded_step(parameters, data, codes) -> StepSums

where a pursuit may stand for the activation,
and every kernel must agree with `reference`, which is the definition of correct. Only the
network's own modules and the loop's step call them, always through :func:`choose`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from shoal.network.activations import Activation, BatchTopK, JumpReLU, gate_of, is_rowwise
from shoal.network.kernels import reference
from shoal.network.kernels.reference import StepSums
from shoal.network.pursuit import Pursuit
from shoal.processes import importing
from shoal.vocabulary import Parameters, check_choice

__all__ = ["BACKENDS", "StepSums", "choose", "repeated", "use"]

BACKENDS = ("auto", "reference")

_log = logging.getLogger("shoal")
_backend: ContextVar[str] = ContextVar("backend", default="auto")


@cache
def _sparse(device: str) -> ModuleType:
    """The sparse kernel for a device, or the reference where there is none."""
    name = {"cpu": "cpu", "cuda": "gpu"}.get(device)
    if name is None:
        return reference
    try:
        with importing:
            return import_module(f"shoal.network.kernels.{name}")
    # numba: absent, or without a place to cache; a library that can't be loaded is an OSError.
    except (ImportError, RuntimeError, OSError) as error:
        _log.warning("no sparse kernel for %s, so the dense one is used: %s", device, error)
        return reference


@contextmanager
def use(backend: str) -> Iterator[None]:
    """Within it, :func:`choose` gives this backend: "auto", or "reference" to compare with it."""
    token = _backend.set(check_choice("backend", backend, BACKENDS))
    try:
        yield
    finally:
        _backend.reset(token)


def choose(
    data: Tensor,
    parameters: Parameters | None = None,
    encoder: Activation | Pursuit | None = None,
) -> ModuleType:
    """The kernel for a batch like `data`: the sparse one of its device where there is one.

    The reference for what the sparse ones don't know of: parameters that are not tied, and an
    `encoder` whose codes of a row depend on the others.
    """
    if _backend.get() == "reference":
        return reference
    on_cpu = data.device.type == "cpu"
    if not is_rowwise(encoder) and not (on_cpu and type(encoder) is BatchTopK):
        return reference
    # A pursuit asks for no encoder, and the kernels for it know of thresholds and an offset.
    known = isinstance(encoder, Pursuit) and (on_cpu or data.is_cuda)
    jumps = type(encoder) is JumpReLU and not encoder.signed
    known |= on_cpu and (jumps or type(encoder) is BatchTopK)
    if parameters is not None and not (known or parameters.tied):
        known = data.device.type == "cpu" and parameters.threshold is None
        if not known or gate_of(encoder) is None:
            return reference
    halves = (torch.bfloat16, torch.float16) if data.is_cuda else ()
    if data.dtype not in (torch.float32, torch.float64, *halves):
        return reference
    return _sparse(data.device.type)


def repeated(data: Tensor, activation: Activation | Pursuit) -> Callable[[Parameters], StepSums]:
    """The step on one batch (N, n) that comes again and again, from parameters to sums.

    The CPU kernel remembers decisions that can't have changed: see
    :class:`shoal.network.kernels.lazy.LazySteps`.
    """
    kernel = choose(data, encoder=activation)
    remembers = kernel is not reference and data.device.type == "cpu"

    if not remembers or isinstance(activation, Pursuit):
        return lambda parameters: choose(data, parameters, activation).step(
            parameters, data, activation
        )
    with importing:
        from shoal.network.kernels.lazy import LazySteps
    return LazySteps(data, activation)

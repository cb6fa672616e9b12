"""CUDA graphs of steps: what a step launches is recorded once a shape, and replayed as one.

A graph reads and writes at the places that it was recorded with. So inputs are copied into places
of its own, and its results out of them: bits are those of a plain call.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Literal

import torch
from torch import Tensor

__all__ = ["call", "forget"]

# Graphs that are kept, each with the working memory of a step: those of a fit's batches and of
# its last, smaller batch.
KEPT = 2
# Inputs of which a graph holds a copy; what is larger keeps the device busy without one.
INPUT_BYTES = 2**30

_log = logging.getLogger("shoal")
_turn = threading.Lock()
# By kind and shapes, the latest last. None is for what was seen once, False for what is refused.
_graphs: OrderedDict[Hashable, _Graph | Literal[False] | None] = OrderedDict()


class _Graph:
    """Recorded launches, their inputs and their results."""

    def __init__(
        self, function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]
    ) -> None:
        self.inputs = tuple(each.clone() for each in inputs)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may go on with what can't be recorded.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.results = function(*self.inputs)

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for place, each in zip(self.inputs, inputs, strict=True):
            place.copy_(each)
        self.graph.replay()
        return tuple(each.clone() for each in self.results)


def call(
    kind: Hashable, function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """``function(*inputs)``, which does the same launches for all inputs of one kind and shape.

    The first call of a kind is plain, since it compiles; the second one is recorded.
    """
    size = sum(each.numel() * each.element_size() for each in inputs)
    place = _place(inputs[0].device)
    if size > INPUT_BYTES or KEPT < 1 or place is None:
        return function(*inputs)
    key = (kind, place, *((each.shape, each.dtype) for each in inputs))
    with _turn:
        seen = key in _graphs
        graph = _graphs.pop(key, None)
        if seen and graph is None:
            graph = _recorded(function, inputs)
        _graphs[key] = graph
        while len(_graphs) > KEPT:
            _graphs.popitem(last=False)
        if graph:
            return graph(inputs)
    return function(*inputs)


def _place(device: torch.device) -> Hashable:
    """The device and stream that a graph belongs to; None within another recording."""
    if torch.cuda.is_current_stream_capturing():
        return None
    return device, torch.cuda.current_stream(device).cuda_stream


def _recorded(
    function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]
) -> _Graph | Literal[False]:
    try:
        return _Graph(function, inputs)
    except RuntimeError as error:  # of memory, or of a library that can't be recorded
        _log.info("a step is not recorded: %s", (str(error).splitlines() or [""])[0])
        return False


def forget() -> None:
    """Give the memory of all graphs back."""
    with _turn:
        _graphs.clear()

"""Learning curves: a consumer of the loop's steps that keeps plain numbers."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from shoal.vocabulary import Parameters, Step, check_count

__all__ = ["History", "Recorded", "Span"]

_NO_PARAMETERS = Parameters(torch.empty(0), torch.empty(0))


@dataclass(frozen=True)
class Span:
    """Steps in a row, summed up."""

    n_steps: int
    loss: Tensor  # read as numbers at the end only: a device would be waited for
    variance: Tensor
    fraction: Tensor
    replaced: int
    last: Step
    seconds: float

    def __add__(self, after: Span) -> Span:
        return Span(
            self.n_steps + after.n_steps,
            self.loss + after.loss,
            self.variance + after.variance,
            self.fraction + after.fraction,
            self.replaced + after.replaced,
            after.last,
            after.seconds,
        )

    def record(self) -> dict[str, Any]:
        """The means over its steps, as plain numbers."""
        loss, variance = float(self.loss) / self.n_steps, float(self.variance) / self.n_steps
        defined = variance > 0 and math.isfinite(loss) and math.isfinite(variance)
        return {
            "step": self.last.number,
            "phase": self.last.phase,
            "progress": self.last.progress,
            "loss": loss if math.isfinite(loss) else None,
            "explained_variance": 1 - loss / variance if defined else None,
            "learning_rate": self.last.learning_rate,
            "activation_fraction": float(self.fraction) / self.n_steps,
            "replaced": self.replaced,
            "seconds": self.seconds,
        }


class Recorded(NamedTuple):
    """All that moves in a :class:`History`, as a value that another may go on from."""

    seconds: float
    done: tuple[Span, ...]
    spans: tuple[Span, ...]
    stride: int
    pending: tuple[Step, ...]
    phase: str | None


class History:
    """Steps gathered into records of plain numbers, at most `most` a phase of any length.

    A record averages the steps since the one before it: ``step``, ``phase``, ``progress``,
    ``loss``, ``explained_variance`` (of the codes of that phase), ``learning_rate``,
    ``activation_fraction``, ``replaced`` and ``seconds`` since the start.

    Nobody knows beforehand where a phase ends that has a stopping rule. At first every step is
    a record; each time there are `most`, two and two become one, and from then on a record takes
    twice as many steps as before. A phase of many steps so has from half of `most` to `most`
    records, evenly spaced.
    """

    def __init__(self, most: int = 200) -> None:
        self._most = 2 * (check_count("most", most, low=2) // 2)
        self._start = time.perf_counter()
        self._done: list[Span] = []  # of phases gone by
        self._spans: list[Span] = []  # of this phase, each of `_stride` steps
        self._stride = 1
        self._pending: list[Step] = []
        self._phase: str | None = None

    def recorded(self) -> Recorded:
        """What :meth:`resumed` goes on from."""
        return Recorded(
            time.perf_counter() - self._start,
            tuple(self._done),
            tuple(self._spans),
            self._stride,
            tuple(self._pending),
            self._phase,
        )

    def resumed(self, at: Recorded) -> Self:
        """Go on from there."""
        self._start = time.perf_counter() - at.seconds
        self._done, self._spans = list(at.done), list(at.spans)
        self._stride, self._pending, self._phase = at.stride, list(at.pending), at.phase
        return self

    def add(self, step: Step) -> None:
        """Take in one step."""
        if step.phase != self._phase:
            self._end_phase()
            self._phase = step.phase
        self._pending.append(step._replace(parameters=_NO_PARAMETERS))  # not kept alive
        if len(self._pending) < self._stride:
            return
        if len(self._spans) == self._most:
            pairs = zip(self._spans[::2], self._spans[1::2], strict=True)
            self._spans = [one + other for one, other in pairs]
            self._stride *= 2
        else:
            self._spans.append(self._pop())

    def close(self) -> list[dict[str, Any]]:
        """The records, the last steps included."""
        self._end_phase()
        return [span.record() for span in self._done]

    def _end_phase(self) -> None:
        if self._pending and len(self._spans) == self._most:
            self._spans[-1] += self._pop()
        elif self._pending:
            self._spans.append(self._pop())
        self._done += self._spans
        self._spans, self._stride = [], 1

    def _pop(self) -> Span:
        """The pending steps in one."""
        steps, self._pending = self._pending, []
        return Span(
            len(steps),
            _sum([step.loss for step in steps]),
            _sum([step.variance for step in steps]),
            _sum([step.activation_fraction for step in steps]),
            sum(step.replaced for step in steps),
            steps[-1],
            time.perf_counter() - self._start,
        )


def _sum(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).sum()

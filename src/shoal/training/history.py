"""Learning curves: a consumer of the loop's steps that keeps plain numbers."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from shoal.vocabulary import Parameters, Step

__all__ = ["History"]

_NO_PARAMETERS = Parameters(torch.empty(0), torch.empty(0))


class History:
    """Steps gathered into records of plain numbers, a few hundred for a fit of any length.

    A record averages the steps since the one before it: ``step``, ``phase``, ``progress``,
    ``loss``, ``explained_variance`` (of the codes of that phase), ``learning_rate``,
    ``activation_fraction``, ``replaced`` and ``seconds`` since the start.
    """

    def __init__(self, most: int = 200) -> None:
        self.records: list[dict[str, Any]] = []
        self._most, self._start = most, time.perf_counter()
        self._pending: list[Step] = []

    def add(self, step: Step) -> None:
        """Take in one step."""
        if self._pending and self._pending[-1].phase != step.phase:
            self._flush()
        self._pending.append(step._replace(parameters=_NO_PARAMETERS))  # not kept alive
        due = step.progress * self._most >= self._due(step.phase) + 1
        if due or step.phase == "polish" or step.progress >= 1:
            self._flush()

    def close(self) -> list[dict[str, Any]]:
        """The records, the last steps included."""
        self._flush()
        return self.records

    def _due(self, phase: str) -> float:
        last = self.records[-1] if self.records else None
        return last["progress"] * self._most if last and last["phase"] == phase else 0.0

    def _flush(self) -> None:
        if not self._pending:
            return
        steps, self._pending = self._pending, []
        loss = float(torch.stack([step.loss for step in steps]).mean())
        variance = float(torch.stack([step.variance for step in steps]).mean())
        fraction = torch.stack([step.activation_fraction for step in steps]).mean()
        defined = variance > 0 and math.isfinite(loss) and math.isfinite(variance)
        self.records.append(
            {
                "step": steps[-1].number,
                "phase": steps[-1].phase,
                "progress": steps[-1].progress,
                "loss": loss if math.isfinite(loss) else None,
                "explained_variance": 1 - loss / variance if defined else None,
                "learning_rate": steps[-1].learning_rate,
                "activation_fraction": float(fraction),
                "replaced": sum(step.replaced for step in steps),
                "seconds": time.perf_counter() - self._start,
            }
        )

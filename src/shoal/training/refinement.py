"""Refinement: descent goes on with codes that a pursuit infers, and its plateau is gone.

The tied code x = D y makes descent stop near the truth, at a distance that grows with k: it is
biased, and its support is wrong where atoms interfere. With a pursuit in the encoder's place
the same update, normalised unit by unit, has the truth itself for a fixed point, and data
without noise contract to it step by step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from shoal.network.objective import StepSums
from shoal.network.pursuit import Pursuit
from shoal.parts import register
from shoal.training.rules import Rule
from shoal.vocabulary import check_count, check_number

__all__ = ["Refinement", "Settled", "nearly_all_within"]

_LOOK = 2  # steps between two looks at what is left unexplained


@register("part")
@dataclass(frozen=True)
class Refinement:
    """How descent goes on after the encoder's own codes have done their part.

    Parameters
    ----------
    pursuit : Pursuit
        What infers the codes.
    rule : Rule
        Of these updates, counted from the first of them.
    n_steps : int
        Updates at most.
    window : int
        Steps that are looked at together; later a quarter of the steps so far.
    moved : float
        It ends when the median atom moved by less, as a distance between unit atoms, and the
        loss fell by less than a twentieth;
    patience : int
        when over so many windows in a row, of more than twice the first length, the loss fell
        by less than a hundredth, however far atoms still move: on data that have no dictionary
        in them they never rest;
    explained : float
        or when of all samples but a few at most this share of the square is left. What then
        remains takes a polish a few rounds.
    """

    pursuit: Pursuit
    rule: Rule
    n_steps: int
    window: int = 20
    moved: float = 0.1
    patience: int = 4
    explained: float = 1e-9

    def __post_init__(self) -> None:
        for name in ("n_steps", "window", "patience"):
            check_count(name, getattr(self, name))
        for name in ("moved", "explained"):
            check_number(name, getattr(self, name), low=0.0)


def nearly_all_within(losses: Tensor, squares: Tensor, k: int, n_components: int) -> bool:
    """Whether 2 `losses` (B,) is at most `squares` (B,) in all samples but a few.

    A few is less than a quarter of the samples that one atom more would explain.
    """
    few = k / (4 * n_components) * len(losses)
    return int((2 * losses > squares).sum()) < few


class Settled(NamedTuple):
    """What is seen of a refinement that has not settled yet."""

    losses: tuple[Tensor, ...] = ()  # of the window, step by step
    total: int = 0  # steps
    flat: int = 0  # windows in a row without a fall
    before: Tensor | None = None  # (m, n) the atoms as the window began

    def add(
        self,
        refinement: Refinement,
        sums: StepSums,
        data: Tensor,
        dictionary: Tensor,
        replaced: int,
    ) -> tuple[Settled, bool]:
        """With one more step, which led to `dictionary` (m, n); whether it may be the last."""
        total = self.total + 1
        if replaced:
            return Settled(total=total, flat=self.flat), False
        losses = (*self.losses, sums.losses.mean())
        before = dictionary if self.before is None else self.before
        seen = Settled(losses, total, self.flat, before)
        if len(losses) % _LOOK == 0:
            squares = refinement.explained * data.square().sum(dim=1)
            if nearly_all_within(sums.losses, squares, refinement.pursuit.k, len(dictionary)):
                return seen, True
        window = len(losses)
        if window < max(refinement.window, total // 4):
            return seen, False
        half = window // 2
        first, last = (float(torch.stack(part).mean()) for part in (losses[:half], losses[half:]))
        in_use = dictionary.any(dim=1)
        distance = torch.linalg.vector_norm((dictionary - before)[in_use], dim=1).median()
        # Short windows say little: many fits have a plateau early on, before atoms find places.
        long = window > 2 * refinement.window
        flat = self.flat + 1 if long and last > 0.99 * first else 0
        settled = last > 0.95 * first and float(distance) < refinement.moved
        return Settled(total=total, flat=flat), settled or flat >= refinement.patience

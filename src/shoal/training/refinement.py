"""Refinement: descent goes on with codes that a pursuit infers, and its plateau is gone.

The tied code x = D y makes descent stop near the truth, at a distance that grows with k: it is
biased, and its support is wrong where atoms interfere. With a pursuit in the encoder's place
the same update, normalised unit by unit, has the truth itself for a fixed point, and data
without noise contract to it step by step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from shoal.network.objective import StepSums
from shoal.network.pursuit import Pursuit
from shoal.parts import register
from shoal.training.ranks import Batch
from shoal.training.rules import Rule
from shoal.vocabulary import check_count, check_number

__all__ = ["Finish", "Refinement", "Settled", "nearly_all_within", "uneven"]

_LOOK = 2  # steps between two looks at what is left unexplained

# When a refinement is in vain: while the loss is flat over some steps, half of the rows have more
# than a share of the square left, and rows differ by far more than noise or a wrong dictionary
# makes them. Measured: planted worlds on their plateau have an unevenness of 1 to 1.5, with noise
# of any size; images, digits and activations of a transformer one of 2.5 to 13.
_RECENT = 20
_LEFT = 0.02
_EARLY, _UNEVEN, _RATHER_UNEVEN = 100, 3.0, 1.6
_LONG = 12_000  # steps after which evenness doesn't matter


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
    wait : int or None
        Or, from so many steps on, when it is in vain: the loss is flat, most samples are far from
        explained, and what is left of them differs by more than noise could make it, or more
        steps went by than a dictionary of that size needs. None is never.
    """

    pursuit: Pursuit
    rule: Rule
    n_steps: int
    window: int = 20
    moved: float = 0.1
    patience: int = 4
    explained: float = 1e-9
    wait: int | None = None

    def __post_init__(self) -> None:
        for name in ("n_steps", "window", "patience"):
            check_count(name, getattr(self, name))
        if self.wait is not None:
            check_count("wait", self.wait)
        for name in ("moved", "explained"):
            check_number(name, getattr(self, name), low=0.0)


@register("part")
@dataclass(frozen=True)
class Finish:
    """How descent ends where the refinement could not explain the data: in a number of steps.

    Parameters
    ----------
    rule : Rule
        Of these updates, counted from the first of them.
    n_steps : int
        Updates.
    batch_size : int or None
        Samples per update; None for as many as before.
    pursuit : Pursuit or None
        What infers the codes; None for that of the refinement.
    """

    rule: Rule
    n_steps: int
    batch_size: int | None = None
    pursuit: Pursuit | None = None

    def __post_init__(self) -> None:
        check_count("n_steps", self.n_steps)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)


def nearly_all_within(losses: Tensor, squares: Tensor, k: int, n_components: int) -> bool:
    """Whether 2 `losses` (B,) is at most `squares` (B,) in all samples but a few.

    A few is less than a quarter of the samples that one atom more would explain.
    """
    few = k / (4 * n_components) * len(losses)
    return int((2 * losses > squares).sum()) < few


def _unevenness(losses: Tensor, freedom: int) -> float:
    """The interquartile range of `losses` (B,) over their median, 1 for those of white noise.

    Noise leaves in all rows the same, up to a chi-squared of as many degrees of freedom as there
    are features more than active units. So does a dictionary that is still wrong of rows that are
    made alike; while rows of photographs or of words differ by far more.
    """
    low, middle, high = torch.quantile(losses, losses.new_tensor([0.25, 0.5, 0.75])).tolist()
    usual = 1.349 * (2 / max(freedom, 1)) ** 0.5
    return (high - low) / (usual * middle) if middle > 0 else 0.0


def uneven(left: Tensor, data: Tensor, k: int) -> bool:
    """Whether the squares `left` (B,) of rows (B, n) by `k` atoms are much, and not as noise is."""
    much = float(left.median()) > _LEFT * float(data.square().sum(dim=1).mean())
    return much and _unevenness(left, data.shape[1] - k) >= _RATHER_UNEVEN


def _usual_steps(k: int, n_components: int, n_features: int) -> float:
    """Some three times the steps after which rows of that many active units are explained.

    Where they are made of a random dictionary, without noise. Measured with n = 64, m = 128 and
    k = 5 to 15: it grows as the exponential of k log(m) / n, from 30 steps to 1000.
    """
    crowding = k * math.log(max(n_components, 2)) / n_features
    return max(60.0, 12 * math.exp(min(5 * crowding, 20.0)))


class Settled(NamedTuple):
    """What is seen of a refinement that has not settled yet."""

    losses: tuple[Tensor, ...] = ()  # of the window, step by step
    total: int = 0  # steps
    flat: int = 0  # windows in a row without a fall
    before: Tensor | None = None  # (m, n) the atoms as the window began
    recent: tuple[Tensor, ...] = ()  # losses of the last steps
    in_vain: bool = False  # whether it ended without an explanation of the data

    def add(
        self,
        refinement: Refinement,
        sums: StepSums,
        batch: Batch,
        dictionary: Tensor,
        replaced: int,
    ) -> tuple[Settled, bool]:
        """With one more step, which led to `dictionary` (m, n); whether it may be the last."""
        loss = sums.losses.mean()
        recent = (*self.recent, loss)[-_RECENT:] if refinement.wait is not None else ()
        seen, rests = self._replace(recent=recent)._add(
            refinement, sums, loss, batch, dictionary, replaced
        )
        if refinement.wait is None or seen.total < min(refinement.wait, _RECENT):
            return seen, rests
        if rests or (seen.total >= refinement.wait and _is_flat(recent)):
            k, (m, n) = refinement.pursuit.k, dictionary.shape
            squares = batch.squares()
            seen = seen._replace(in_vain=_in_vain(sums.losses, squares, seen.total, k, m, n))
        return seen, rests or seen.in_vain

    def _add(
        self,
        refinement: Refinement,
        sums: StepSums,
        loss: Tensor,
        batch: Batch,
        dictionary: Tensor,
        replaced: int,
    ) -> tuple[Settled, bool]:
        total = self.total + 1
        if replaced:
            return Settled(total=total, flat=self.flat, recent=self.recent), False
        losses = (*self.losses, loss)
        before = dictionary if self.before is None else self.before
        seen = self._replace(losses=losses, total=total, before=before)
        if len(losses) % _LOOK == 0:
            squares = refinement.explained * batch.squares()
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
        ended = settled or flat >= refinement.patience
        return Settled(total=total, flat=flat, recent=self.recent), ended


def _is_flat(losses: tuple[Tensor, ...]) -> bool:
    half = len(losses) // 2
    first, last = (float(torch.stack(part).mean()) for part in (losses[:half], losses[half:]))
    return last > 0.95 * first


def _in_vain(losses: Tensor, squares: Tensor, total: int, k: int, m: int, n: int) -> bool:
    """Whether after `total` steps losses (B,) are those of rows that no dictionary explains."""
    unexplained = 2 * float(losses.median()) > _LEFT * float(squares.mean())
    if not unexplained or total >= _LONG:
        return unexplained
    unevenness = _unevenness(losses, n - k)
    # Later unevenness says less: some rows are explained then and others not yet.
    early = total <= _EARLY and unevenness >= _UNEVEN
    return early or (total >= _usual_steps(k, m, n) and unevenness >= _RATHER_UNEVEN)

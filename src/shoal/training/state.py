"""The state of a training: all that moves, as one value that goes in and comes out.

A loop that is stopped after any step goes on from a copy of its state with the same bits: in the
same process or another, a minute or a year later. What does not move (data, plan) is not in it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from shoal.network.objective import StepSums
from shoal.training.adaptation import Adapted
from shoal.training.refinement import Settled
from shoal.training.revival import Activity
from shoal.vocabulary import Parameters

__all__ = [
    "First",
    "Looked",
    "Place",
    "Polished",
    "Searched",
    "Smoothed",
    "State",
    "bits_of",
    "generator_at",
]

_KINDS = (
    np.random.PCG64,
    np.random.PCG64DXSM,
    np.random.MT19937,
    np.random.Philox,
    np.random.SFC64,
)
# By name: a state may be read from a file, which must not say what is called.
_GENERATORS = {kind.__name__: kind for kind in _KINDS}

Bits = Mapping[str, Any]
"""The state of a NumPy bit generator, as plain values."""


def bits_of(rng: np.random.Generator) -> Bits:
    """Where `rng` stands; `rng` moving on does not change it."""
    return copy.deepcopy(rng.bit_generator.state)


def generator_at(bits: Bits) -> np.random.Generator:
    """A new generator that stands at `bits`.

    >>> rng = np.random.default_rng(0)
    >>> generator_at(bits_of(rng)).integers(100) == rng.integers(100)
    np.True_
    """
    kind = _GENERATORS[bits["bit_generator"]]
    generator = np.random.Generator(kind(0))
    generator.bit_generator.state = bits
    return generator


class Place(NamedTuple):
    """The place in the data: how far a pass is, and how its order comes about again."""

    before: Bits  # the shuffling generator as this pass began
    after: Bits  # and after it drew the order: where the next pass begins
    batch: int = 0  # batches of this pass that are done

    @classmethod
    def at(cls, rng: np.random.Generator) -> Place:
        """Before a first pass."""
        bits = bits_of(rng)
        return cls(bits, bits)

    def next_pass(self) -> Place:
        """Before the pass after this one."""
        return Place(self.after, self.after)


class Smoothed(NamedTuple):
    """Sums over about a whole batch of the latest rows, where they come few at a time."""

    counts: Tensor  # (m,)
    energy: Tensor  # (m,)
    n_samples: float

    @classmethod
    def none(cls, like: Tensor) -> Smoothed:
        """Of units (m,) that have done nothing yet."""
        return cls(torch.zeros_like(like), torch.zeros_like(like), 0.0)

    def add(self, counts: Tensor, energy: Tensor, n_samples: int, share: float) -> Smoothed:
        """With those of a batch, which is such a share of a whole one."""
        kept = 1.0 - share
        return Smoothed(
            self.counts * kept + counts,
            self.energy * kept + energy,
            self.n_samples * kept + n_samples,
        )

    def told_of(self, sums: StepSums) -> StepSums:
        """The sums of a batch, each unit's counts and squares what they usually are.

        A unit that is active on one row of the batch takes its step size from many.
        """
        usual = sums.n_samples / self.n_samples
        return sums._replace(counts=self.counts * usual, energy=self.energy * usual)

    def in_unit(self, exponent: int) -> Smoothed:
        """Of data times 2^exponent."""
        return self._replace(energy=torch.ldexp(self.energy, torch.tensor(2 * exponent)))


class Searched(NamedTuple):
    """What the search for a number of non-zeros has come to."""

    first: Bits  # the generator before it drew the rows that are looked at
    following: Bits  # where the generator of the descent stands, which follows
    k: int  # that is tried now
    tried: tuple[int, ...]  # it included


class Polished(NamedTuple):
    """What a polish knows beside the best parameters."""

    dictionary: Tensor  # (m, n) that the next round codes with
    lowest: float  # mean logarithm of the losses under the best, on the rows at hand
    lowest_mean: float  # logarithm of the least mean loss on them
    stalled: int  # rounds without a gain
    asked: int  # rows that were asked for, for the rows at hand
    before: Bits  # the generator before they were drawn


class First(NamedTuple):
    """What a fit came to that gave atoms up, while it is made again with all of them."""

    parameters: Parameters
    before_polish: Tensor | None
    n_steps: int
    activity: Activity | None


class Looked(NamedTuple):
    """What rows look like by the dictionary of a fit, while the fit goes on with them as such."""

    parameters: Parameters  # of that fit, in whose place entries are that are missing
    share: float  # rows of whose square it leaves more are left out; 1 for none
    bound: float  # and rows that are longer
    strange: float  # the share of the rows that these are
    number: int  # how often rows were looked at
    first: First  # what that fit came to


class State(NamedTuple):
    """All that moves in a training.

    Tensors in it may be moved in place by the next step, where a rule says so: to keep a state,
    copy it (``copy.deepcopy``).
    """

    parameters: Parameters
    place: Place
    number: int = 0  # updates so far; of a polish, rounds
    atoms: int | None = None  # in all, where this holds a shard of them; None for all
    begun: tuple[int, ...] = (0,)  # the numbers at which stages of the plan began, so far
    rows: int = 0  # of an update that is not whole yet, where batches weigh by their rows
    replaced: int = 0  # atoms replaced or split at the last step
    rule: Any = None  # what the rule of the stage remembers
    activity: Activity | None = None
    adapted: Adapted | None = None
    smoothed: Smoothed | None = None  # where batches weigh by their rows
    settled: Settled | None = None
    center: Tensor | None = None  # (m, n) where the descent began, for a nearness
    noise: Tensor | None = None  # of the generator that penalties draw from
    k: int | None = None  # active units per sample, once that is known
    n_steps: int = 0  # updates of the descent, once a polish has begun
    before_polish: Tensor | None = None  # (m, n) the atoms that descent left
    searched: Searched | None = None  # while a search is under way
    polished: Polished | None = None  # once a polish has begun
    first: First | None = None  # while a fit is made again, with no atom given up
    looked: Looked | None = None  # while a fit goes on with rows as its first part saw them
    finished: bool = False  # nothing is left to do
    said: tuple[str, ...] = ()  # warnings on the way here; who goes on from here says them again

    @property
    def stage(self) -> int:
        """Which entry of the plan the next update belongs to; its length once all are done."""
        return len(self.begun) - 1

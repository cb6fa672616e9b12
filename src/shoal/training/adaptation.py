"""Bias adaptation: each unit's bias follows how often the unit fires, not a clock.

Chen, Sheen, Xiong, Wang, Yang 2025, Taming Polysemanticity in LLMs (arXiv:2506.14002), group
bias adaptation. The bias gets no gradient. From time to time it is lowered where a unit fired
more often than its group's target, and raised where it was silent; the weights descend as
ever. A unit settles on a feature where it fires about as often as the feature occurs.

Three things differ from the paper, where data are of length 1 and the activation is a
JumpReLU. A step of the bias is in units of the root mean square of the unit's active codes, not of
its largest pre-activation: a step's sums have it, and no single sample moves it. The bias
is bounded by -1 there; here a step in units of the codes is what can't silence a unit,
whatever the scale of the data. And the paper's output scales are left at 1.

It is for encoders that fire where z = y D^T + b is large, ReLU above all: a lower bias is then a
higher threshold. A signed code has two thresholds, and one bias can't raise both; on
signed data a ReLU network of 2m units has an atom and its negative as two features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from shoal.parts import register
from shoal.vocabulary import ArgumentError, check_count, check_number

__all__ = ["Adapted", "BiasAdaptation"]


class Adapted(NamedTuple):
    """What units did since the last adaptation."""

    counts: Tensor  # (m,)
    energy: Tensor  # (m,)
    n_samples: int = 0
    steps: float = 0

    @classmethod
    def none(cls, like: Tensor) -> Adapted:
        """Of units (m,) that have done nothing yet."""
        return cls(torch.zeros_like(like), torch.zeros_like(like))


@register("part")
@dataclass(frozen=True)
class BiasAdaptation:
    """Target firing frequencies, and how fast the bias moves towards them.

    Parameters
    ----------
    targets : tuple of float
        Share of the samples that a unit may fire on, one a group; the groups are equal and
        contiguous shares of the units. Over features that occur equally often one is
        enough; the paper has ten or more, from .5 down by a constant factor.
    every : int
        Steps that firings are counted over, between two adaptations; 50 in the paper.
    rate : float
        Share of its codes' root mean square that a unit's bias moves by; .01 in the paper.
    silent : float
        The bias is raised where a unit fired at most this share of its target: with 0, as in
        the paper, where it never did.

    Examples
    --------
    >>> one = BiasAdaptation((0.25,), rate=0.5)
    >>> counts, energy = torch.tensor([4.0, 0.0, 1.0]), torch.tensor([16.0, 0.0, 4.0])
    >>> one.adapt(torch.tensor([0.0, -2.0, -1.0]), counts, energy, 8).tolist()
    [-1.0, -1.0, -1.0]
    """

    targets: tuple[float, ...]
    every: int = 50
    rate: float = 0.01
    silent: float = 0.0

    def __post_init__(self) -> None:
        try:
            targets = tuple(self.targets)  # a list, where it was read from a file
        except TypeError:
            needed = "frequencies, one a group"
            raise ArgumentError("targets", repr(self.targets), needed) from None
        if not targets:
            raise ArgumentError("targets", "no frequency", "one or more")
        for target in targets:
            check_number("targets", target, low=0.0, high=1.0, open_low=True)
        object.__setattr__(self, "targets", tuple(map(float, targets)))
        check_count("every", self.every)
        check_number("rate", self.rate, low=0.0, high=1.0, open_low=True)
        check_number("silent", self.silent, low=0.0, high=1.0)

    def groups(self, n_components: int) -> Tensor:
        """The group (m,) of each unit, from 0."""
        if n_components < len(self.targets):
            found = f"{len(self.targets)} groups of {n_components} units"
            raise ArgumentError("targets", found, "no more groups than units")
        return torch.arange(n_components) * len(self.targets) // n_components

    def adapt(self, bias: Tensor, counts: Tensor, energy: Tensor, n_samples: int) -> Tensor:
        """The next bias (m,): Chen et al. 2025, Algorithm 1, one adaptation.

            b <- b - rate r          where the unit fired on more than its target's share
            b <- min(b + rate R, 0)  where it was silent

        with r the root mean square of its active codes and R the mean of r over those units
        of its group that fired (of all units, where none did).

        Parameters
        ----------
        bias, counts, energy : Tensor of shape (m,)
            The bias, how many samples each unit fired on, and the sum of its squared codes.
        n_samples : int
            Samples that were counted.
        """
        group = self.groups(len(bias)).to(bias.device)
        target = bias.new_tensor(self.targets)[group]
        fired = counts > 0
        scale = (energy / counts.clamp_min(1)).sqrt()  # r, 0 where silent
        sums, users = (bias.new_zeros(len(self.targets)) for _ in range(2))
        for index in range(len(self.targets)):  # not index_add_: on CUDA not reproducible
            mine = fired & (group == index)
            sums[index], users[index] = scale[mine].sum(), mine.sum()
        overall = sums.sum() / users.sum().clamp_min(1)
        mean = torch.where(users > 0, sums / users.clamp_min(1), overall)[group]  # R
        frequency = counts / n_samples
        lower = frequency > target
        higher = ~lower & (frequency <= self.silent * target)
        moved = torch.where(lower, bias - self.rate * scale, bias)
        # A bias that started above 0 stays there.
        raised = torch.minimum(bias + self.rate * mean, bias.clamp_min(0.0))
        return torch.where(higher, raised, moved)

    def add(
        self,
        adapted: Adapted,
        bias: Tensor,
        counts: Tensor,
        energy: Tensor,
        n_samples: int,
        share: float = 1,
    ) -> tuple[Tensor, Adapted]:
        """The bias (m,) after one more step with these counts and energy (m,), and the tally.

        `share` is less than 1 for a batch that is not a whole one.
        """
        adapted = Adapted(
            adapted.counts + counts,
            adapted.energy + energy,
            adapted.n_samples + n_samples,
            adapted.steps + share,
        )
        if adapted.steps < self.every:
            return bias, adapted
        moved = self.adapt(bias, adapted.counts, adapted.energy, adapted.n_samples)
        return moved, Adapted.none(bias)

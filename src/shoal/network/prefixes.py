"""Prefixes of a dictionary that are to do by themselves: what Matryoshka autoencoders minimise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shoal.network import kernels
from shoal.network.activations import Activation, learns_threshold
from shoal.network.kernels import StepSums
from shoal.network.pursuit import Pursuit
from shoal.parts import register
from shoal.vocabulary import ArgumentError, Parameters, check_count

__all__ = ["Prefixes"]


@register("part")
@dataclass(frozen=True)
class Prefixes:
    """The mean of the reconstruction losses by the first atoms, for several numbers of them.

        J = 1/P sum_p 1/2 |y - sum_{i < m_p} x_i D_i - c|^2

    Each with the same codes x: Bussmann et al. 2025, Learning Multi-Level Features with Matryoshka
    Sparse Autoencoders (arXiv:2503.17547), there the sum. On active units alone a prefix more costs
    no more than a residual a row.

    Parameters
    ----------
    sizes : tuple of int
        How many atoms, ascending; all of them are added where they are not among these.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from shoal.training import recipe_named
    >>> recipe = recipe_named("topk", "nonnegative", 64, 4, 10_000)
    >>> replace(recipe, prefixes=Prefixes((8, 24))).prefixes.sizes
    (8, 24)
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = tuple(self.sizes)
        for size in sizes:
            check_count("sizes", size)
        if not sizes or list(sizes) != sorted(set(sizes)):
            raise ArgumentError("sizes", repr(self.sizes), "numbers of atoms, ascending")
        object.__setattr__(self, "sizes", tuple(int(size) for size in sizes))

    def within(self, m: int) -> tuple[int, ...]:
        """The sizes for `m` atoms, which are the last one."""
        if self.sizes[-1] > m:
            raise ArgumentError("sizes", f"{self.sizes[-1]} of {m} atoms", f"numbers up to {m}")
        return self.sizes if self.sizes[-1] == m else (*self.sizes, m)

    def __call__(
        self,
        parameters: Parameters,
        data: Tensor,
        encoder: Activation | Pursuit,
        generator: torch.Generator | None = None,
    ) -> StepSums:
        """The sums of the batch `data` (B, n); losses are those by all atoms."""
        if isinstance(encoder, Pursuit) or learns_threshold(encoder):
            found = f"prefixes with {type(encoder).__name__}"
            raise ArgumentError("prefixes", found, "the k largest codes of a row or of a batch")
        kernel = kernels.choose(data, parameters, encoder)
        step = getattr(kernel, "prefix_step", kernels.reference.prefix_step)
        sums: StepSums = step(parameters, data, encoder, self.within(len(parameters.bias)))
        return sums

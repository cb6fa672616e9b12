"""An activation of one's own: the soft threshold of ISTA, for codes of either sign."""

from dataclasses import dataclass

import torch
from torch import Tensor

from shoal.network.activations import Activated
from shoal.parts import register


@register("activation", "soft-threshold")
@dataclass(frozen=True)
class SoftThreshold:
    """Shrink every pre-activation by `by`, and leave 0 of those that are smaller."""

    by: float = 0.1

    def __call__(self, z: Tensor) -> Activated:
        """The codes (B, m), and their derivative by z (B, m)."""
        codes = torch.sign(z) * (z.abs() - self.by).clamp_min(0.0)
        return Activated(codes, (codes != 0).to(z.dtype))

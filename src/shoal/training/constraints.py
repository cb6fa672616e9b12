"""Constraints on the atoms: the one place where they are normalised, after every update."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["unit_atoms"]


def unit_atoms(dictionary: Tensor, fallback: Tensor | None = None) -> Tensor:
    """Rows of `dictionary` (m, n) scaled to Euclidean length 1.

    ``normalize`` of Nguyen et al. 2018, section 4. A row with no direction (length 0 or
    not finite) is taken from `fallback` (m, n) of unit rows, or left at 0 without one.
    """
    length = torch.linalg.vector_norm(dictionary, dim=1, keepdim=True)  # (m, 1)
    shortest, longest = torch.aminmax(length)
    if float(shortest) > 0 and float(longest) < torch.inf:  # not so where there is a NaN
        return dictionary / length
    sound = torch.isfinite(length) & (length > 0)
    unit = dictionary / torch.where(sound, length, torch.ones_like(length))
    other = torch.zeros_like(dictionary) if fallback is None else fallback
    return torch.where(sound, unit, other)

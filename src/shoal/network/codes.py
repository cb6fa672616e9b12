"""Sparse codes: indices and values of the active units, row by row."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shoal.vocabulary import active

__all__ = ["SparseCodes", "sparse_codes"]


class SparseCodes(NamedTuple):
    """Codes of at most k non-zeros a sample. An active unit is listed once a row."""

    indices: Tensor  # (B, k) the units; where the value is 0 the index means nothing
    values: Tensor  # (B, k)

    def dense(self, n_components: int) -> Tensor:
        """The codes as (B, m)."""
        codes = self.values.new_zeros(self.values.shape[0], n_components)
        # Adding: a row may be padded with zeros at a unit that it also lists.
        return codes.scatter_add_(1, self.indices, self.values)

    def reconstruct(self, dictionary: Tensor) -> Tensor:
        """y_hat = x D: shape (B, n)."""
        return torch.einsum("bk,bkn->bn", self.values, dictionary[self.indices])


def sparse_codes(codes: Tensor, k: int | None = None) -> SparseCodes:
    """Dense codes (B, m) as indices and values (B, k), units in ascending order.

    Rows of more than `k` non-zeros keep the largest. By default k is the most that any
    row has, at least 1.
    """
    if k is None:
        k = max(1, int(active(codes).sum(dim=1).max()))
    indices = codes.abs().topk(min(k, codes.shape[1]), dim=1).indices.sort(dim=1).values
    return SparseCodes(indices, codes.gather(1, indices))

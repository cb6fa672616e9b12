"""Sparse codes: indices and values of the active units, row by row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
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

    def to_csr(self, n_components: int) -> sparse.csr_array:
        """The codes as scipy.sparse of shape (B, m): units ascend, no zero is stored."""
        values = self.values.cpu().numpy()
        on = active(values)  # (B, k)
        ends = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(on.sum(axis=1), out=ends[1:])
        largest = max(n_components, int(ends[-1]))
        index = np.int32 if largest <= np.iinfo(np.int32).max else np.int64
        units = self.indices.cpu().numpy()[on].astype(index, copy=False)
        parts = (values[on], units, ends.astype(index, copy=False))
        codes = sparse.csr_array(parts, shape=(len(values), n_components))
        codes.sort_indices()  # matching pursuit lists units as it took them
        return codes

    def reconstruct(self, dictionary: Tensor) -> Tensor:
        """y_hat = x D: shape (B, n)."""
        return torch.einsum("bk,bkn->bn", self.values, dictionary[self.indices])


def sparse_codes(codes: Tensor, k: int | None = None) -> SparseCodes:
    """Dense codes (B, m) as indices and values (B, k), units in ascending order.

    Rows of more than `k` non-zeros keep the largest. By default k is the most that any
    row has, at least 1.

    Examples
    --------
    >>> import torch
    >>> from shoal.network.inference import sparse_codes
    >>> sparse_codes(torch.tensor([[0.0, 2.0, 0.0]]))
    SparseCodes(indices=tensor([[1]]), values=tensor([[2.]]))
    """
    if k is not None:
        indices = codes.abs().topk(min(k, codes.shape[1]), dim=1).indices.sort(dim=1).values
        return SparseCodes(indices, codes.gather(1, indices))
    rows, units = active(codes).nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(codes))  # (B,)
    k = max(1, int(counts.max()))
    filled = torch.arange(k, device=codes.device) < counts[:, None]  # (B, k), from the left
    indices = rows.new_zeros(len(codes), k).masked_scatter_(filled, units)
    return SparseCodes(indices, torch.where(filled, codes.gather(1, indices), 0.0))

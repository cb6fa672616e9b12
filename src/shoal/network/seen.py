"""Codes of rows whose entries are not all there: least squares on those that are seen.

A pursuit needs whole rows. What is missing stands for what the model makes of the row, and both
are found in turn, as expectation and maximisation are (Dempster, Laird and Rubin 1977): a support
by the row as it is filled, then least squares on it by the entries that are seen, and what these
codes put in the gaps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shoal.network import kernels
from shoal.network.activations import Activation
from shoal.network.codes import SparseCodes
from shoal.network.pursuit import Pursuit
from shoal.vocabulary import Parameters, active

__all__ = ["filled", "seen_least_squares"]

# Arbitrary: turns at most, and by how much of a row's size its gaps still move when they are over.
_TURNS, _STILL = 8, 1e-4
# Arbitrary: numbers of a block of rows, all atoms of their supports being looked at at once.
_BLOCK = 2**23


def filled(
    parameters: Parameters, data: Tensor, encoder: Activation | Pursuit, *, signed: bool = True
) -> Tensor:
    """`data` (B, n) with what the model makes of each row in the place of missing entries (NaN).

    Parameters
    ----------
    parameters : Parameters
        Atoms (m, n) of length 1.
    data : Tensor of shape (B, n)
        It stays as it is.
    encoder : Activation or Pursuit
        What infers codes.
    signed : bool
        Whether codes may be negative.

    Returns
    -------
    Tensor of shape (B, n)
    """
    gaps = data.isnan()
    whole = torch.where(gaps, 0.0 if parameters.offset is None else parameters.offset, data)
    going = torch.nonzero(gaps.any(dim=1)).squeeze(1)
    for _ in range(_TURNS):
        if not len(going):
            break
        rows, missing = whole[going], gaps[going]
        support = _codes(parameters, rows, encoder)
        codes = seen_least_squares(parameters, data[going], support, signed=signed)
        made = torch.where(missing, _rebuilt(parameters, codes), rows)
        whole[going] = made
        moved = torch.linalg.vector_norm(made - rows, dim=1)
        going = going[moved > _STILL * torch.linalg.vector_norm(made, dim=1)]
    return whole


def _codes(parameters: Parameters, rows: Tensor, encoder: Activation | Pursuit) -> SparseCodes:
    kernel = kernels.choose(rows, parameters, encoder)
    codes: SparseCodes = kernel.sparse_encode(parameters, rows, encoder)
    return codes


def _rebuilt(parameters: Parameters, codes: SparseCodes) -> Tensor:
    rebuilt = codes.reconstruct(parameters.dictionary)
    return rebuilt if parameters.offset is None else rebuilt + parameters.offset


def seen_least_squares(
    parameters: Parameters, data: Tensor, support: SparseCodes, *, signed: bool = True
) -> SparseCodes:
    """The least-squares coefficients of the entries of `data` (B, n) that are not NaN.

    On the active units of `support`; with ``signed=False`` units that come out negative are left
    out, until none does. Where atoms of a support can't be told apart by the entries that are
    seen, they share their coefficient through a ridge.
    """
    k, n = support.indices.shape[1], data.shape[1]
    size = max(1, _BLOCK // max(k * n, 1))
    solved = [
        _solved(parameters, data[at : at + size], support.indices[at : at + size],
                support.values[at : at + size], signed)
        for at in range(0, len(data), size)
    ]  # fmt: skip
    values = torch.cat(solved) if solved else support.values
    return SparseCodes(support.indices, values)


def _solved(
    parameters: Parameters, data: Tensor, indices: Tensor, values: Tensor, signed: bool
) -> Tensor:
    if parameters.offset is not None:
        data = data - parameters.offset
    seen = ~data.isnan()
    rows = torch.where(seen, data, 0.0)
    on = active(values)  # (B, k)
    atoms = parameters.dictionary[indices] * seen[:, None]  # (B, k, n)
    gram, scores = atoms @ atoms.mT, torch.einsum("bkn,bn->bk", atoms, rows)
    # Arbitrary: far above rounding, and with no weight where atoms can be told apart.
    ridge = 64 * torch.finfo(data.dtype).eps
    while True:
        both = on[:, :, None] & on[:, None, :]
        # Inactive units get an equation of their own, 1 * c = 0.
        system = torch.where(both, gram, 0.0)
        system = system + torch.diag_embed(torch.where(on, ridge, 1.0).to(data.dtype))
        found = torch.linalg.solve(system, torch.where(on, scores, 0.0))
        if signed or not bool((found < 0).any()):
            return found * on
        on = on & (found > 0)

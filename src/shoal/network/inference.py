"""Codes for use: the encoder's own by a fast kernel, and better ones for more than a product.

The code of a tied autoencoder, x = D y on its support, is biased: it is the correlation
with each active atom, not the least-squares coefficient. :func:`least_squares` removes
that bias on a given support, and :func:`orthogonal_matching_pursuit` finds a better
support, one atom at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shoal.network import kernels
from shoal.network.activations import Activation
from shoal.network.codes import SparseCodes, sparse_codes
from shoal.vocabulary import Parameters, active

__all__ = [
    "SparseCodes",
    "fast_encode",
    "fast_sparse_encode",
    "least_squares",
    "orthogonal_matching_pursuit",
    "sparse_codes",
]


def fast_encode(parameters: Parameters, data: Tensor, activation: Activation) -> Tensor:
    """:func:`shoal.network.encode` by the chosen kernel: not for autograd to look through."""
    codes: Tensor = kernels.choose(data).encode(parameters, data, activation)
    return codes


def fast_sparse_encode(parameters: Parameters, data: Tensor, activation: Activation) -> SparseCodes:
    """The codes of :func:`fast_encode` as indices and values, without the zeros."""
    codes: SparseCodes = kernels.choose(data).sparse_encode(parameters, data, activation)
    return codes


def least_squares(
    dictionary: Tensor, data: Tensor, support: SparseCodes, *, signed: bool = True
) -> SparseCodes:
    """The least-squares coefficients of data (B, n) on the active units of `support`.

    With ``signed=False`` negative coefficients are set to 0 (one clip, not a
    non-negative least-squares solve). Atoms of a support that are linearly dependent
    share their coefficient through a ridge at rounding level.
    """
    on = active(support.values)  # (B, k)
    atoms = dictionary[support.indices] * on.unsqueeze(-1)  # (B, k, n)
    gram = atoms @ atoms.mT  # (B, k, k)
    # Inactive units get an equation of their own, 1 * c = 0.
    ridge = 8 * torch.finfo(data.dtype).eps
    gram = gram + torch.diag_embed(torch.where(on, ridge, 1.0).to(data.dtype))
    values = torch.linalg.solve(gram, torch.einsum("bkn,bn->bk", atoms, data))
    if not signed:
        values = values.clamp_min(0)
    return SparseCodes(support.indices, values)


def orthogonal_matching_pursuit(
    dictionary: Tensor, data: Tensor, k: int, *, signed: bool = True
) -> SparseCodes:
    """Orthogonal matching pursuit with k atoms for data (B, n), all rows at once.

    Each of the k rounds adds to every row the atom that correlates most with its residual
    (in absolute value, or with ``signed=False`` in value), then projects the residual off
    the span of the atoms taken so far. With ``signed=False`` coefficients that come out
    negative are set to 0. A row stops early where no atom is left to gain from: the largest
    correlation is at rounding level (or with ``signed=False`` not positive). Ties go to
    either atom.

    Parameters
    ----------
    dictionary : Tensor of shape (m, n)
        Unit atoms.
    data : Tensor of shape (B, n)
    k : int
        Atoms a row, at most min(m, n) are taken.
    signed : bool
        Whether coefficients may be negative.

    Returns
    -------
    SparseCodes
        With min(k, m, n) columns. Rows that are explained exactly by fewer atoms have
        zeros among their values.
    """
    n_samples, n_features = data.shape
    k = min(k, dictionary.shape[0], n_features)
    basis = data.new_zeros(n_samples, k, n_features)  # orthonormal, spans the atoms taken
    upper = data.new_zeros(n_samples, k, k)  # atoms taken = upper^T basis
    target = data.new_zeros(n_samples, k)  # coordinates of the data in the basis
    indices = torch.zeros(n_samples, k, dtype=torch.long, device=data.device)
    residual = data.clone()
    # Arbitrary: an atom nearer than this to the span of those taken adds only noise.
    dependent = torch.finfo(data.dtype).eps ** 0.5
    # Arbitrary: a few times what rounding leaves of data that is explained exactly.
    rounding = 32 * torch.finfo(data.dtype).eps * torch.linalg.vector_norm(data, dim=1)
    for taken in range(k):
        score = residual @ dictionary.T  # (B, m)
        if signed:
            score.abs_()
        if taken:
            score.scatter_(1, indices[:, :taken], -torch.inf)
        best, index = score.max(dim=1)
        indices[:, taken] = index
        atom = dictionary[index]  # (B, n)
        inside = torch.einsum("bkn,bn->bk", basis[:, :taken], atom)
        direction = atom - torch.einsum("bk,bkn->bn", inside, basis[:, :taken])
        length = torch.linalg.vector_norm(direction, dim=1)
        useful = (length > dependent) & (best > rounding)
        direction = torch.where(
            useful[:, None], direction / length.clamp_min(dependent)[:, None], 0.0
        )
        upper[:, :taken, taken] = torch.where(useful[:, None], inside, 0.0)
        upper[:, taken, taken] = torch.where(useful, length, 1.0)
        basis[:, taken] = direction
        target[:, taken] = torch.einsum("bn,bn->b", direction, residual)
        residual = residual - target[:, taken, None] * direction
    values = torch.linalg.solve_triangular(upper, target.unsqueeze(-1), upper=True).squeeze(-1)
    if not signed:
        values = values.clamp_min(0)
    return SparseCodes(indices, values)

"""Codes for use: the encoder's own by a fast kernel, and better ones for more than a product.

The code of a tied autoencoder, x = D y on its support, is biased: it is the correlation
with each active atom, not the least-squares coefficient. :func:`least_squares` removes
that bias on a given support, and a pursuit finds a better support.
"""

from __future__ import annotations

from torch import Tensor

from shoal.network import kernels
from shoal.network.activations import Activation, TopK
from shoal.network.codes import SparseCodes, sparse_codes
from shoal.network.pursuit import (
    IterativeHardThresholding,
    OrthogonalMatchingPursuit,
    Pursuit,
    SubspacePursuit,
    ThresholdPursuit,
    least_squares,
)
from shoal.vocabulary import Parameters

__all__ = [
    "IterativeHardThresholding",
    "OrthogonalMatchingPursuit",
    "Pursuit",
    "SparseCodes",
    "SubspacePursuit",
    "ThresholdPursuit",
    "corrected_codes",
    "fast_encode",
    "fast_least_squares",
    "fast_sparse_encode",
    "least_squares",
    "sparse_codes",
]


def fast_encode(parameters: Parameters, data: Tensor, activation: Activation | Pursuit) -> Tensor:
    """:func:`shoal.network.encode`, or a pursuit's codes, by a kernel: opaque to autograd.

    Examples
    --------
    >>> import torch
    >>> from shoal.vocabulary import Parameters
    >>> from shoal.network.inference import OrthogonalMatchingPursuit, fast_encode
    >>> parameters = Parameters(torch.eye(2), torch.zeros(2))
    >>> fast_encode(parameters, torch.tensor([[3.0, 0.5]]), OrthogonalMatchingPursuit(1))
    tensor([[3., 0.]])
    """
    codes: Tensor = kernels.choose(data, parameters, activation).encode(
        parameters, data, activation
    )
    return codes


def fast_sparse_encode(
    parameters: Parameters, data: Tensor, activation: Activation | Pursuit
) -> SparseCodes:
    """The codes of :func:`fast_encode` as indices and values, without the zeros."""
    kernel = kernels.choose(data, parameters, activation)
    codes: SparseCodes = kernel.sparse_encode(parameters, data, activation)
    return codes


def corrected_codes(
    parameters: Parameters, data: Tensor, activation: TopK, n_steps: int, step: float
) -> SparseCodes:
    """The encoder's codes of data (B, n), corrected by what they leave unexplained.

        x_0 = gate(E y + b),    x_{t + 1} = gate(x_t + step E (y - x_t D))

    with the same weights and no bias: an encoder that is unrolled, in the manner of Gregor and
    LeCun 2010, Learning Fast Approximations of Sparse Coding. On the CPU a correction costs k m
    multiplications a row, by the products D E^T, in place of another m n.

    Parameters
    ----------
    parameters : Parameters
        Without an offset.
    data : Tensor of shape (B, n)
    activation : TopK
    n_steps : int
        Corrections.
    step : float
        Above 0; small enough that a correction doesn't overshoot.

    Returns
    -------
    SparseCodes

    Examples
    --------
    >>> import torch
    >>> from shoal.network.activations import TopK
    >>> atoms = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> tied, data = Parameters(atoms, torch.zeros(2)), torch.tensor([[2.0, 1.0]])
    >>> corrected_codes(tied, data, TopK(2), 0, 1.0).values
    tensor([[2., 2.]])
    >>> corrected_codes(tied, data, TopK(2), 40, 1.0).values.round(decimals=3)
    tensor([[1.2500, 1.2500]])
    """
    kernel = kernels.choose(data)
    codes: SparseCodes = kernel.corrected_encode(parameters, data, activation, n_steps, step)
    return codes


def fast_least_squares(
    dictionary: Tensor, data: Tensor, support: SparseCodes, *, signed: bool = True
) -> SparseCodes:
    """:func:`least_squares` by a kernel, where there is one.

    Atoms of a support that depend on each other do not share a coefficient: the first ones have
    it, and the others 0.
    """
    solve = getattr(kernels.choose(data), "least_squares", least_squares)
    codes: SparseCodes = solve(dictionary, data, support, signed=signed)
    return codes

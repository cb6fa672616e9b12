"""Codes for use: the encoder's own by a fast kernel, and better ones for more than a product.

The code of a tied autoencoder, x = D y on its support, is biased: it is the correlation
with each active atom, not the least-squares coefficient. :func:`least_squares` removes
that bias on a given support, and a pursuit finds a better support.
"""

from __future__ import annotations

from torch import Tensor

from shoal.network import kernels
from shoal.network.activations import Activation
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
    "fast_encode",
    "fast_least_squares",
    "fast_sparse_encode",
    "least_squares",
    "sparse_codes",
]


def fast_encode(parameters: Parameters, data: Tensor, activation: Activation | Pursuit) -> Tensor:
    """:func:`shoal.network.encode`, or a pursuit's codes, by a kernel: opaque to autograd."""
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

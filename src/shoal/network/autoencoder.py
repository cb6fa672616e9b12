"""The weight-tied autoencoder as pure functions of its parameters and a batch.

    code            x     = sigma(y D^T + b)       (B, m)
    reconstruction  y_hat = x D                    (B, n)
    loss            1/2 |y - y_hat|^2, averaged over the batch

Rangamani et al. 2017, section 2; Nguyen et al. 2018, eq. (2). Plain dense torch, and
differentiable by torch's autograd: the definition that kernels are held against.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shoal.network.activations import Activation
from shoal.vocabulary import Parameters

__all__ = ["encode", "loss", "preactivation", "reconstruct", "variance"]


def preactivation(parameters: Parameters, data: Tensor) -> Tensor:
    """z = y D^T + b for data (B, n): shape (B, m)."""
    return torch.addmm(parameters.bias, data, parameters.dictionary.T)  # (B, m)


def encode(parameters: Parameters, data: Tensor, activation: Activation) -> Tensor:
    """The code x = sigma(y D^T + b) of data (B, n): shape (B, m)."""
    return activation(preactivation(parameters, data)).codes


def reconstruct(parameters: Parameters, codes: Tensor) -> Tensor:
    """y_hat = x D from codes (B, m): shape (B, n)."""
    return codes @ parameters.dictionary  # (B, n)


def loss(parameters: Parameters, data: Tensor, activation: Activation) -> Tensor:
    """1/2 |y - y_hat|^2 summed over features and averaged over the batch: a scalar.

    >>> from shoal.network.activations import ReLU
    >>> eye = Parameters(torch.eye(2), torch.zeros(2))
    >>> loss(eye, torch.tensor([[3.0, -4.0]]), ReLU()).item()
    8.0
    """
    residual = data - reconstruct(parameters, encode(parameters, data, activation))
    return 0.5 * residual.square().sum(dim=1).mean()


def variance(data: Tensor) -> Tensor:
    """1/2 mean |y - mean(y)|^2 of data (N, n): the loss of the best constant, a scalar.

    >>> variance(torch.tensor([[0.0], [0.0], [2.0], [2.0]])).item()
    0.5
    """
    # Ten times faster than torch.var over the rows.
    centred = data - data.mean(dim=0)
    return 0.5 * torch.linalg.vector_norm(centred).square() / data.shape[0]

"""The gradient of the reconstruction loss, written by hand.

With z = y D^T + b, x = sigma(z), the residual r = y - x D and its correlation with the
atoms e = r D^T, the gradient of 1/2 |r|^2 for one sample is

    dL/dD_i = -( x_i r + sigma'(z_i) e_i y )
    dL/db_i = -  sigma'(z_i) e_i

which is Nguyen et al. 2018, eq. (4), for the activations that paper treats, where
sigma'(z) z = sigma(z). It costs one encoder product plus work on the active units only,
if a kernel makes use of their sparsity; the sums come from `shoal.network.kernels`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shoal.network import autoencoder, kernels
from shoal.network.activations import Activation
from shoal.vocabulary import Parameters, active

__all__ = ["Gradient", "approximate_gradient", "loss_and_gradient", "sample_gradient"]


class Gradient(NamedTuple):
    """The gradient of the mean loss over a batch."""

    dictionary: Tensor  # (m, n)
    bias: Tensor  # (m,)


def sample_gradient(parameters: Parameters, data: Tensor, activation: Activation) -> Gradient:
    """Gradient of :func:`shoal.network.loss` at data (B, n), exact wherever it exists.

    Source: Nguyen et al. 2018, eq. (4), averaged over the batch.

    Examples
    --------
    >>> import torch
    >>> from shoal.vocabulary import Parameters
    >>> from shoal.network import sample_gradient
    >>> from shoal.network.activations import ReLU
    >>> parameters = Parameters(torch.eye(2), torch.tensor([0.0, -1.0]))
    >>> sample_gradient(parameters, torch.tensor([[3.0, 2.0]]), ReLU()).bias
    tensor([ 0., -1.])
    """
    return loss_and_gradient(parameters, data, activation)[1]


def loss_and_gradient(
    parameters: Parameters, data: Tensor, activation: Activation
) -> tuple[Tensor, Gradient]:
    """:func:`shoal.network.loss` at data (B, n) and its gradient, for the price of the latter.

    Examples
    --------
    >>> import torch
    >>> from shoal.vocabulary import Parameters
    >>> from shoal.network import loss_and_gradient
    >>> from shoal.network.activations import ReLU
    >>> parameters = Parameters(torch.eye(2), torch.tensor([0.0, -1.0]))
    >>> loss, gradient = loss_and_gradient(parameters, torch.tensor([[3.0, 2.0]]), ReLU())
    >>> loss, gradient.bias
    (tensor(0.5000), tensor([ 0., -1.]))
    """
    sums = kernels.choose(data, parameters, activation).step(parameters, data, activation)
    gradient = Gradient(sums.dictionary / sums.n_samples, sums.bias / sums.n_samples)
    return sums.losses.mean(), gradient


def approximate_gradient(parameters: Parameters, data: Tensor, activation: Activation) -> Gradient:
    """The proxy of Nguyen et al. 2018, before eq. (5): sigma' replaced by 1[x_i != 0].

    For ReLU, hard threshold and k-largest it equals :func:`sample_gradient` almost
    everywhere; for smooth activations it differs. Dense; for theory, not for training.

    Examples
    --------
    >>> import torch
    >>> from shoal.vocabulary import Parameters
    >>> from shoal.network import approximate_gradient, sample_gradient
    >>> from shoal.network.activations import ReLU
    >>> parameters = Parameters(torch.eye(2), torch.tensor([0.0, -1.0]))
    >>> rows = torch.tensor([[3.0, 2.0]])
    >>> gradient = approximate_gradient(parameters, rows, ReLU())
    >>> bool((gradient.bias == sample_gradient(parameters, rows, ReLU()).bias).all())
    True
    """
    z = autoencoder.preactivation(parameters, data)  # (B, m)
    codes = activation(z).codes
    on = active(codes).to(z.dtype)
    residual = data - autoencoder.reconstruct(parameters, codes)  # (B, n)
    correlation = residual @ parameters.dictionary.T  # (B, m)
    n_samples = data.shape[0]
    dictionary = -((on * z).T @ residual + (on * correlation).T @ data) / n_samples
    return Gradient(dictionary, -torch.sum(on * correlation, dim=0) / n_samples)

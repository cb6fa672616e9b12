"""The dense torch kernel: five products, any device, any activation. Correct by definition."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from shoal.network import autoencoder
from shoal.network.activations import Activation
from shoal.network.codes import SparseCodes, sparse_codes
from shoal.vocabulary import Parameters, active

__all__ = ["StepSums", "encode", "sparse_encode", "step"]

encode = autoencoder.encode

# Arbitrary: rows of a batch that are worked through at once.
_TILE = 8192


class StepSums(NamedTuple):
    """Sums over a batch: what an update needs, ready to be added over batches and ranks."""

    dictionary: Tensor  # (m, n) gradient of the summed loss
    bias: Tensor  # (m,) gradient of the summed loss
    losses: Tensor  # (B,) 1/2 |y - y_hat|^2, sample by sample
    counts: Tensor  # (m,) samples on which the unit is active
    energy: Tensor  # (m,) sum of x_i^2
    n_samples: int


def _add(total: StepSums, part: StepSums) -> StepSums:
    return StepSums(
        dictionary=total.dictionary + part.dictionary,
        bias=total.bias + part.bias,
        losses=torch.cat([total.losses, part.losses]),
        counts=total.counts + part.counts,
        energy=total.energy + part.energy,
        n_samples=total.n_samples + part.n_samples,
    )


def step(parameters: Parameters, data: Tensor, activation: Activation) -> StepSums:
    """Loss, gradient and activity of a batch (B, n), summed over its samples."""
    # In tiles: sums add, so that memory beyond the result doesn't grow with the batch.
    return reduce(_add, (_step(parameters, tile, activation) for tile in data.split(_TILE)))


def _step(parameters: Parameters, data: Tensor, activation: Activation) -> StepSums:
    codes, slope = activation(autoencoder.preactivation(parameters, data))  # (B, m) each
    residual = data - autoencoder.reconstruct(parameters, codes)  # (B, n)
    back = slope * (residual @ parameters.dictionary.T)  # (B, m) sigma'(z) <r, D_i>
    return StepSums(
        dictionary=-(codes.T @ residual + back.T @ data),  # Nguyen et al. 2018, eq. (4)
        bias=-back.sum(dim=0),
        losses=0.5 * residual.square().sum(dim=1),
        counts=active(codes).sum(dim=0).to(data.dtype),
        energy=codes.square().sum(dim=0),
        n_samples=data.shape[0],
    )


def sparse_encode(parameters: Parameters, data: Tensor, activation: Activation) -> SparseCodes:
    """The codes of a batch (B, n) without their zeros, units in ascending order."""
    return sparse_codes(encode(parameters, data, activation))

"""The autoencoder as pure functions: encode, reconstruct, loss and the hand-written gradient."""

from shoal.network.activations import HardThreshold, ReLU, Sigmoid, Softplus, TopK
from shoal.network.autoencoder import encode, loss, preactivation, reconstruct
from shoal.network.gradients import (
    Gradient,
    approximate_gradient,
    loss_and_gradient,
    sample_gradient,
)
from shoal.network.inference import fast_encode
from shoal.network.prefixes import Prefixes

__all__ = [
    "Gradient",
    "HardThreshold",
    "Prefixes",
    "ReLU",
    "Sigmoid",
    "Softplus",
    "TopK",
    "approximate_gradient",
    "encode",
    "fast_encode",
    "loss",
    "loss_and_gradient",
    "preactivation",
    "reconstruct",
    "sample_gradient",
]

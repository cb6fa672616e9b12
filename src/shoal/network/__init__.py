"""The autoencoder as pure functions: encode, reconstruct, loss and the hand-written gradient."""

from shoal.network.activations import HardThreshold, ReLU, Sigmoid, Softplus, TopK
from shoal.network.autoencoder import encode, loss, preactivation, reconstruct
from shoal.network.gradients import Gradient, approximate_gradient, fast_encode, sample_gradient

__all__ = [
    "Gradient",
    "HardThreshold",
    "ReLU",
    "Sigmoid",
    "Softplus",
    "TopK",
    "approximate_gradient",
    "encode",
    "fast_encode",
    "loss",
    "preactivation",
    "reconstruct",
    "sample_gradient",
]

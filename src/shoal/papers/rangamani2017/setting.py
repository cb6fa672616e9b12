"""Section 6 of Rangamani et al. 2017: its data, its points near the truth, its bias.

The paper does not state the bias of its experiments. Theorem 3.1's own silences every unit there
where h^p is rounded up, and all but a few where it is rounded down; the reading that comes closest
to Table 1 was found afterwards, by search.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from shoal import network
from shoal.generative import (
    GenerativeModel,
    NonnegativeSparseCoding,
    coherence,
    random_dictionary,
    sparsity_from_power,
)
from shoal.generative.models import Rounding
from shoal.network.activations import ReLU
from shoal.theory.rangamani2017 import literal_epsilon
from shoal.vocabulary import Parameters

__all__ = [
    "BIASES",
    "DECLARED_CONSTANT",
    "Bias",
    "bias_at_truth",
    "column_norms",
    "generator",
    "loss_and_gradient",
    "mean_cosine",
    "radius",
    "world",
]

Bias = Callable[[GenerativeModel, float], float]
"""From a world and a distance to eps, the negative of the bias."""

DECLARED_CONSTANT = 15.0
"""Between the mean column norm and the first number of Table 1: unexplained, and declared."""


def generator(seed: int, h: int, p: float) -> np.random.Generator:
    """The random numbers of one cell: the same whichever other cells are run."""
    return np.random.default_rng([seed, h, round(1000 * p)])


def world(
    h: int, p: float, n: int, rng: np.random.Generator, rounding: Rounding = "ceil"
) -> GenerativeModel:
    """A Gaussian dictionary of h atoms, supports of h^p of them, values U[1, 10].

    Supports have "at most" h^p units in section 2 and "h^p" in section 6: `rounding` says which.
    """
    truth = random_dictionary(h, n, rng, dtype=np.float32)
    k = sparsity_from_power(h, p, rounding=rounding)
    return NonnegativeSparseCoding(truth, k, low=1.0, high=10.0)


def radius(h: int, p: float) -> float:
    """delta / 2 = 1 / (2 h^(2p)): how far from the truth the gradient is taken."""
    return float(0.5 * h ** (-2.0 * p))


def matching(model: GenerativeModel, distance: float) -> float:
    """The coherence divided by sqrt(n) once more: the shape of Table 1."""
    root = float(np.sqrt(model.n_features))
    return 2 * model.kappa1 * model.k * (distance + coherence(model.dictionary) / root)


BIASES: dict[str, Bias] = {"literal": literal_epsilon, "matching": matching}


def column_norms(gradient: NDArray[np.floating]) -> NDArray[np.float64]:
    """|dL/dW_i| of each unit (m,)."""
    return np.linalg.norm(gradient.astype(np.float64), axis=1)


def bias_at_truth(model: GenerativeModel) -> float:
    """eps = 2 m1 k coherence / sqrt(n): the reading of Table 1 at distance 0, for Figure 1."""
    return matching(model, 0.0)


def mean_cosine(weights: torch.Tensor, atoms: torch.Tensor) -> float:
    """The mean of cos(W_i, A_i); 0 for a unit that is 0."""
    lengths = weights.norm(dim=1) * atoms.norm(dim=1)
    inner = (weights * atoms).sum(dim=1)
    return float(torch.where(lengths > 0, inner / lengths, 0.0).mean())


def loss_and_gradient(
    weights: torch.Tensor, bias: torch.Tensor, data: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """Mean loss of the ReLU autoencoder over the data, and its gradient in W (m, n)."""
    loss, gradient = network.loss_and_gradient(Parameters(weights, bias), data, ReLU())
    return float(loss), gradient.dictionary

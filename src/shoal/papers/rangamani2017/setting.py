"""Section 6 of Rangamani et al. 2017: its data, its points near the truth, its bias.

The paper does not state the bias of its experiments. Theorem 3.1's own silences every unit
there; the reading that comes closest to Table 1 was found afterwards, by search.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from shoal.generative import (
    GenerativeModel,
    NonnegativeSparseCoding,
    coherence,
    random_dictionary,
    sparsity_from_power,
)

__all__ = ["BIASES", "DECLARED_CONSTANT", "Bias", "radius", "world"]

Bias = Callable[[GenerativeModel, float], float]
"""From a world and a distance to eps, the negative of the bias."""

DECLARED_CONSTANT = 15.0
"""Between the mean column norm and the first number of Table 1: unexplained, and declared."""


def world(h: int, p: float, n: int, rng: np.random.Generator) -> GenerativeModel:
    """A Gaussian dictionary of h atoms, supports of h^p of them, values U[1, 10]."""
    truth = random_dictionary(h, n, rng, dtype=np.float32)
    return NonnegativeSparseCoding(truth, sparsity_from_power(h, p), low=1.0, high=10.0)


def radius(h: int, p: float) -> float:
    """delta / 2 = 1 / (2 h^(2p)): how far from the truth the gradient is taken."""
    return float(0.5 * h ** (-2.0 * p))


def literal(model: GenerativeModel, distance: float) -> float:
    """Theorem 3.1: eps = 2 m1 k (delta + mu / sqrt(n))."""
    return 2 * model.kappa1 * model.k * (distance + coherence(model.dictionary))


def matching(model: GenerativeModel, distance: float) -> float:
    """The coherence divided by sqrt(n) once more: the shape of Table 1."""
    root = float(np.sqrt(model.n_features))
    return 2 * model.kappa1 * model.k * (distance + coherence(model.dictionary) / root)


BIASES: dict[str, Bias] = {"literal": literal, "matching": matching}


def column_norms(gradient: NDArray[np.floating]) -> NDArray[np.float64]:
    """|dL/dW_i| of each unit (m,)."""
    return np.linalg.norm(gradient.astype(np.float64), axis=1)

"""Every theorem that is about a kind of world, asked of one: what ``shoal check`` prints."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shoal.generative import GenerativeModel
from shoal.network.activations import HardThreshold
from shoal.network.gradients import sample_gradient
from shoal.theory import nguyen2019, rangamani2017
from shoal.theory.assertion import Assertion
from shoal.theory.gradients import exact_gradient
from shoal.theory.worlds import aligned, distances, is_mixture, is_signed
from shoal.vocabulary import Parameters, check_count

__all__ = ["examine"]


def examine(
    world: GenerativeModel, dictionary: Any, *, n_samples: int = 5000, random_state: int = 0
) -> list[Assertion]:
    """What the papers ask, promise and deliver for a world and weights W.

    Parameters
    ----------
    world : GenerativeModel
        The truth, or what stands for it (:func:`shoal.theory.world_from_codes`).
    dictionary : array_like of shape (m, n)
        W, unit rows, in any order.
    n_samples : int
        Samples that measurements are taken on, at least 80.
    random_state : int
        The seed.

    Returns
    -------
    list of Assertion
        In the order of the papers: definitions, codes, gradients, descent.

    Raises
    ------
    ArgumentError
        If W isn't of the world's shape, or its rows are not of unit length.

    Examples
    --------
    >>> from shoal.generative import NonnegativeSparseCoding, orthonormal_union, perturb
    >>> world = NonnegativeSparseCoding(orthonormal_union(128, 64), 2, low=1.0, high=1.1)
    >>> found = examine(world, perturb(world.dictionary, 0.005, random_state=0), n_samples=200)
    >>> [each.verdict for each in found if each.name == "Theorem 3.1"]
    ['confirmed']
    """
    check_count("n_samples", n_samples, low=80)
    draws: dict[str, Any] = {"n_samples": n_samples, "random_state": random_state}
    found = [nguyen2019.definition1(world), nguyen2019.definition2(world, dictionary)]
    found.append(nguyen2019.claim1(world, dictionary))
    if world.noise > 0:
        found.append(nguyen2019.claim2(world, dictionary, **draws))
    if is_signed(world):
        found.append(nguyen2019.theorem3(world, dictionary, case="i", **draws))
    else:
        found.append(rangamani2017.theorem31(world, dictionary, **draws))
        found.append(nguyen2019.theorem3(world, dictionary, case="ii", **draws))
        found.append(nguyen2019.theorem3(world, dictionary, case="iii", **draws))
        found.append(nguyen2019.bias_conflict(world, dictionary))
        found.append(rangamani2017.lemma51(world, dictionary, **draws))
        found.append(rangamani2017.lemma52(world, dictionary, **draws))
    if is_signed(world) and world.kappa1 != 0:
        return found  # the gradients in closed form are for codes of mean 0, or never negative
    threshold = HardThreshold(world.a1 / 2)
    found.append(nguyen2019.equation4(world, dictionary, threshold, **draws))
    found.append(nguyen2019.expected_gradient(world, dictionary, **draws))
    if is_mixture(world):
        found.append(nguyen2019.bias_gradient(world, dictionary, -world.a1 / 2, **draws))
        found.append(nguyen2019.lemma1(world, dictionary))
    elif is_signed(world):
        found.append(nguyen2019.lemma2(world, dictionary))
        found.append(nguyen2019.lemma3(world, dictionary))
    else:
        found.append(nguyen2019.claim3(world, dictionary))
        found.append(nguyen2019.claim4(world, dictionary))
        found.append(nguyen2019.remainder(world, dictionary))
        found.append(nguyen2019.lemma4(world, dictionary))
    weights, moved = _one_step(world, dictionary, threshold, **draws)
    delta = float(distances(world, weights).max())
    # Theorem 4's tau > 3/4 is about squares: of the distance itself half is left.
    found.append(nguyen2019.lemma5(world, moved, tau=0.5, delta=delta))
    found.append(nguyen2019.theorem4(world, dictionary, **draws))
    return found


def _one_step(
    world: GenerativeModel,
    dictionary: Any,
    activation: HardThreshold,
    n_samples: int,
    random_state: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """W, and W - zeta g before normalisation, each (m, n): by the expected gradient if there is."""
    weights = aligned(world, dictionary)
    exact = exact_gradient(world, weights)
    if exact is None:
        data = torch.from_numpy(world.sample(n_samples, random_state).data.astype(np.float64))
        parameters = Parameters(torch.from_numpy(weights), torch.zeros(len(weights)).double())
        gradient = sample_gradient(parameters, data, activation).dictionary.numpy()
    else:
        gradient, _ = exact
    zeta = nguyen2019.step_size(world, weights, nguyen2019.best_step(world))
    return weights, weights - zeta * gradient

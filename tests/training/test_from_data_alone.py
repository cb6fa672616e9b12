"""The default recipe finds the truth from data alone, with nothing known but m, k and the model."""

import numpy as np
import pytest
import torch

from made import rounds_of, steps_of
from shoal.data import open_source
from shoal.diagnosis import recovery
from shoal.generative import (
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    SparseCoding,
    random_dictionary,
)
from shoal.training import initialize, recipe_named
from shoal.vocabulary import Parameters


def estimate(data, model, n_components, k, seed):
    """Initialise, polish: what the estimators do, without their checks."""
    recipe = recipe_named("default", model, n_components, k, len(data))
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(initialize("data", data, n_components, rng))
    parameters = Parameters(rows, torch.zeros(n_components, dtype=rows.dtype))
    for step in steps_of(parameters, open_source(data), recipe, rng):
        parameters = step.parameters
    for step in rounds_of(parameters, lambda n: torch.from_numpy(data[:n]), recipe.polish):
        parameters = step.parameters
    return parameters.dictionary


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("model", ["sparse", "nonnegative"])
def test_sparse_codes(model, seed, dtype):
    world = SparseCoding if model == "sparse" else NonnegativeSparseCoding
    truth = random_dictionary(64, 32, random_state=seed)
    data = world(truth, 3).sample(5000, random_state=10 + seed).data.astype(dtype)
    found = estimate(data, model, 64, 3, seed=20 + seed)
    score = recovery(found, truth, signs="free" if model == "sparse" else "fixed")
    assert score.recovered(0.99) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_a_mixture(seed):
    truth = random_dictionary(8, 50, random_state=seed)
    data = MixtureOfGaussians(truth, noise=0.05).sample(4000, random_state=10 + seed).data
    found = estimate(data, "mixture", 8, 1, seed=20 + seed)
    score = recovery(found, truth, signs="fixed")
    assert score.recovered(0.99) == 1.0
    # sigma sqrt(n / N_i) per mean is what the maximum of the likelihood reaches.
    assert score.mean_distance < 1.3 * 0.05 * np.sqrt(50 / (4000 / 8))

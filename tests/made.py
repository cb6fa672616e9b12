"""What several tests are made of: random rows, and a recipe of a few steps."""

import numpy as np
import torch

from shoal.network import TopK
from shoal.network.inference import SubspacePursuit
from shoal.training import Constant, NormalizedStep, Polish, Recipe, Revival

# A few steps and a round: for all that doesn't ask whether the dictionary is any good.
SHORT = Recipe(
    TopK(2),
    NormalizedStep(Constant(0.3)),
    12,
    64,
    revival=Revival(5),
    polish=Polish(SubspacePursuit(2)),
)


def unit_rows(seed, m, n, dtype=torch.float64):
    rows = np.random.default_rng(seed).standard_normal((m, n))
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)).to(dtype)


def gaussian(seed, *shape, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def no_unit_twice(codes):
    ordered = codes.indices.sort(dim=1).values
    return bool((ordered[:, 1:] > ordered[:, :-1]).all())

"""What several tests are made of: random rows, and a recipe of a few steps."""

import numpy as np
import torch

from shoal.network import TopK
from shoal.network.inference import SubspacePursuit
from shoal.training import (
    Constant,
    NormalizedStep,
    Polish,
    Recipe,
    Revival,
    UnitLength,
    begin,
    descend,
    fit,
    step_of,
)
from shoal.training.polish import begin_polish
from shoal.training.polish import polish as polish_rounds
from shoal.training.state import Place

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


def steps_of(parameters, source, recipe, rng, *, start=0, passes=None, endless=False, **before):
    """The records of a descent by `recipe`."""
    plan = recipe.plan(endless=endless)
    state = begin(parameters, plan, rng, number=start, **before)
    for state, sums in descend(state, source, plan, passes=passes):
        yield step_of(plan, state, sums)


def rounds_of(parameters, draw, settings):
    """The records of a polish, on rows that `draw` gives for a number."""
    state = begin_polish(parameters, settings, Place.at(np.random.default_rng(0)))
    for state, sums in polish_rounds(state, lambda n, rng: draw(n), settings):
        progress = 1.0 if state.finished else state.number / settings.max_rounds
        yield fit._record(state, sums, "polish", progress, None)


def update(parameters, sums, rule, step):
    """One step of a rule without memory, and unit atoms."""
    return rule.update(parameters, sums, None, step, UnitLength())[0]

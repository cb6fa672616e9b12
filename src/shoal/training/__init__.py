"""Training: where atoms start, how they move, and when they are done."""

from shoal.training.adaptation import BiasAdaptation
from shoal.training.constraints import Nearness, nearness_projection
from shoal.training.descent import descend, update
from shoal.training.history import History
from shoal.training.initialization import check_init, initialize, rows_wanted
from shoal.training.polish import Polish, polish
from shoal.training.recipes import (
    MODELS,
    RECIPES,
    Recipe,
    certified_step,
    mean_curvature,
    nguyen2019,
    recipe_named,
)
from shoal.training.refinement import Refinement
from shoal.training.revival import Activity, Revival
from shoal.training.schedules import (
    Constant,
    ExponentialDecay,
    FixedStep,
    Halving,
    InverseDecay,
    NormalizedStep,
)
from shoal.training.sparsity import find_sparsity

__all__ = [
    "MODELS",
    "RECIPES",
    "Activity",
    "BiasAdaptation",
    "Constant",
    "ExponentialDecay",
    "FixedStep",
    "Halving",
    "History",
    "InverseDecay",
    "Nearness",
    "NormalizedStep",
    "Polish",
    "Recipe",
    "Refinement",
    "Revival",
    "certified_step",
    "check_init",
    "descend",
    "find_sparsity",
    "initialize",
    "mean_curvature",
    "nearness_projection",
    "nguyen2019",
    "polish",
    "recipe_named",
    "rows_wanted",
    "update",
]

"""Training: where atoms start, how they move, and when they are done."""

from shoal.training.adaptation import BiasAdaptation
from shoal.training.descent import descend, update
from shoal.training.history import History
from shoal.training.initialization import check_init, initialize, rows_wanted
from shoal.training.polish import Polish, polish
from shoal.training.recipes import MODELS, RECIPES, Recipe, nguyen2019, recipe_named
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
    "NormalizedStep",
    "Polish",
    "Recipe",
    "Refinement",
    "Revival",
    "check_init",
    "descend",
    "find_sparsity",
    "initialize",
    "nguyen2019",
    "polish",
    "recipe_named",
    "rows_wanted",
    "update",
]

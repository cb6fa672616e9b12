"""Recipes: encoder, rule, constraint, schedules and polish, combined under a name."""

from shoal.training.recipes.arpit2016 import WEIGHT_LENGTHS, MomentumSettings, arpit2016
from shoal.training.recipes.chen2025 import bias_adaptation
from shoal.training.recipes.default import default
from shoal.training.recipes.named import RECIPES, recipe_named
from shoal.training.recipes.nguyen2019 import certified_step, mean_curvature, nguyen2019
from shoal.training.recipes.recipe import MODELS, Recipe

__all__ = [
    "MODELS",
    "RECIPES",
    "WEIGHT_LENGTHS",
    "MomentumSettings",
    "Recipe",
    "arpit2016",
    "bias_adaptation",
    "certified_step",
    "default",
    "mean_curvature",
    "nguyen2019",
    "recipe_named",
]

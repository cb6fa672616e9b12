"""Recipes: encoder, rule, constraint, schedules and polish, combined under a name."""

from shoal.training.recipes.chen2025 import bias_adaptation
from shoal.training.recipes.from_data import default
from shoal.training.recipes.momentum import WEIGHT_LENGTHS, MomentumSettings, arpit2016
from shoal.training.recipes.named import RECIPES, recipe_named
from shoal.training.recipes.recipe import MODELS, Recipe
from shoal.training.recipes.theorem4 import certified_step, mean_curvature, nguyen2019

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

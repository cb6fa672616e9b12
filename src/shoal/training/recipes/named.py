"""Recipes by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shoal.parts import named, register
from shoal.training.recipes.autoencoders import batch_topk, jump_relu, matryoshka, topk
from shoal.training.recipes.chen2025 import bias_adaptation
from shoal.training.recipes.from_data import default, incoherent
from shoal.training.recipes.recipe import MODELS, Recipe
from shoal.training.recipes.theorem4 import nguyen2019
from shoal.vocabulary import ArgumentError, check_choice

__all__ = ["RECIPES", "recipe_named"]

RECIPES: Mapping[str, Callable[[str, int, int, int | None], Recipe]] = named("recipe")
"""From a name to a function of (model, n_components, k, n_samples); one of your own is registered
by ``@shoal.parts.register("recipe", NAME)``."""

register("recipe", "default")(default)
register("recipe", "incoherent")(incoherent)
register("recipe", "bias-adaptation")(bias_adaptation)
register("recipe", "topk")(topk)
register("recipe", "batchtopk")(batch_topk)
register("recipe", "jumprelu")(jump_relu)
register("recipe", "matryoshka")(matryoshka)


def _register(model: str, activation: str, *, stable: bool = False) -> None:
    def build(asked: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
        if asked != model:
            raise ArgumentError("model", repr(asked), f"{model!r}, which this recipe is about")
        floor = -0.2 if stable and activation == "relu" else 0.0
        damping = stable and model == "nonnegative"
        return nguyen2019(model, activation, floor=floor, damping=damping, k=k)

    register("recipe", f"nguyen2019-{model}-{activation}" + "-stable" * stable)(build)


_register("sparse", "threshold")
for _model in ("nonnegative", "mixture"):
    for _activation in ("threshold", "relu"):
        _register(_model, _activation)
        if (_model, _activation) != ("mixture", "threshold"):
            _register(_model, _activation, stable=True)


def recipe_named(name: str, model: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
    """The recipe of that name for a problem of this size.

    >>> recipe_named("default", "sparse", 128, 3, 20_000).batch_size
    256
    """
    check_choice("recipe", name, RECIPES)
    check_choice("model", model, MODELS)
    made = RECIPES[name](model, n_components, k, n_samples)
    if not isinstance(made, Recipe):
        found = f"{name!r}, which makes {type(made).__name__}"
        raise ArgumentError("recipe", found, "one that makes a shoal.training.Recipe")
    return made

"""Training: where atoms start, how they move, and when they are done."""

from shoal.training.adaptation import BiasAdaptation
from shoal.training.autoencoding import AutoencoderAdam
from shoal.training.constraints import (
    Free,
    MaxNorm,
    Nearness,
    NonnegativeUnitLength,
    UnitLength,
    nearness_projection,
)
from shoal.training.descent import Plan, Stage, begin, descend
from shoal.training.fit import prepare, pruned, run, step_of, steps
from shoal.training.history import History
from shoal.training.initialization import check_init, initialize, normalized_start
from shoal.training.passes import Epoch, Usage, epochs, usage
from shoal.training.polish import Polish
from shoal.training.recipes import (
    MODELS,
    RECIPES,
    WEIGHT_LENGTHS,
    MomentumSettings,
    Recipe,
    arpit2016,
    certified_step,
    mean_curvature,
    nguyen2019,
    recipe_named,
)
from shoal.training.refinement import Finish, Refinement
from shoal.training.revival import Activity, Revival
from shoal.training.rules import Adam, FixedStep, Momentum, NormalizedStep
from shoal.training.schedules import Constant, DecayAtLast, ExponentialDecay, Halving, InverseDecay
from shoal.training.state import Place, State

__all__ = [
    "MODELS",
    "RECIPES",
    "WEIGHT_LENGTHS",
    "Activity",
    "Adam",
    "AutoencoderAdam",
    "BiasAdaptation",
    "Constant",
    "DecayAtLast",
    "Epoch",
    "ExponentialDecay",
    "Finish",
    "FixedStep",
    "Free",
    "Halving",
    "History",
    "InverseDecay",
    "MaxNorm",
    "Momentum",
    "MomentumSettings",
    "Nearness",
    "NonnegativeUnitLength",
    "NormalizedStep",
    "Place",
    "Plan",
    "Polish",
    "Recipe",
    "Refinement",
    "Revival",
    "Stage",
    "State",
    "UnitLength",
    "Usage",
    "arpit2016",
    "begin",
    "certified_step",
    "check_init",
    "descend",
    "epochs",
    "initialize",
    "mean_curvature",
    "nearness_projection",
    "nguyen2019",
    "normalized_start",
    "prepare",
    "pruned",
    "recipe_named",
    "run",
    "step_of",
    "steps",
    "usage",
]

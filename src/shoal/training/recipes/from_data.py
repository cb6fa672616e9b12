"""The recipe that recovers from data alone."""

from __future__ import annotations

from shoal.network.activations import TopK
from shoal.network.inference import SubspacePursuit
from shoal.training.polish import Polish
from shoal.training.recipes.recipe import Recipe
from shoal.training.refinement import Refinement
from shoal.training.revival import Revival
from shoal.training.rules import NormalizedStep
from shoal.training.schedules import Constant, InverseDecay
from shoal.vocabulary import check_count

__all__ = ["default"]


def default(model: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
    """The recipe that recovers from data alone: k-largest encoder, minibatches, polish.

    Parameters
    ----------
    model : str
        One of `MODELS`.
    n_components, k : int
        Atoms m, and active units a sample.
    n_samples : int or None
        Rows of the data; None for a stream.
    """
    check_count("k", k, high=n_components)
    signed, shared = model == "sparse", model == "nonnegative"
    # More iterations find few better codes on a dictionary that is still wrong.
    hasty = SubspacePursuit(k, signed, max_iterations=1)
    # Some eight active samples an atom and batch: what the step sizes below were tried at.
    batch = min(max(256, 1 << int(8 * n_components / k).bit_length() - 1), 4096)
    if n_samples is not None:
        batch = min(batch, n_samples)
    return Recipe(
        activation=TopK(k, signed=signed),
        rule=NormalizedStep(Constant(0.4), shared),
        n_steps=4,
        batch_size=batch,
        revival=Revival(),
        refinement=Refinement(hasty, NormalizedStep(InverseDecay(0.5, 200), shared), 20_000),
        polish=Polish(SubspacePursuit(k, signed)),
    )

"""The recipe of group bias adaptation, Chen et al. 2025."""

from __future__ import annotations

from shoal.network.activations import ReLU
from shoal.training.adaptation import BiasAdaptation
from shoal.training.recipes.from_data import default
from shoal.training.recipes.recipe import Recipe
from shoal.training.rules import NormalizedStep
from shoal.training.schedules import ExponentialDecay
from shoal.vocabulary import ArgumentError

__all__ = ["bias_adaptation"]


def bias_adaptation(model: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
    """ReLU units whose biases keep each at a target firing frequency, and nothing after it.

    After Chen et al. 2025 (see :class:`BiasAdaptation`). It needs neither k at run time nor
    a start near the truth, but a target: thrice the share k/m of the samples that a feature
    is in. With just k/m a unit must be silent on half of its samples, so blurred are the
    classes while atoms are rough. Parameters are those of :func:`default`; for signed codes
    take model="nonnegative" and twice the units, an atom and its negative.
    """
    if model == "sparse":
        needed = "'nonnegative' with twice the units: one bias can't raise both thresholds"
        raise ArgumentError("model", "'sparse' with a bias that adapts", needed)
    # Twice the samples of the default: nothing else averages the noise of a constant step out.
    batch = 2 * (default(model, n_components, k, n_samples).batch_size or 1)
    return Recipe(
        activation=ReLU(),
        # The first steps are small: at bias 0 half of the units fire, and atoms would collapse.
        rule=NormalizedStep(ExponentialDecay(0.00025, 0.025, 50)),
        n_steps=800,
        batch_size=batch if n_samples is None else min(batch, n_samples),
        bias=BiasAdaptation((min(3 * k / n_components, 0.5),), every=1, rate=0.02, silent=0.5),
    )

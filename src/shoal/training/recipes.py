"""Recipes: activation, step size, bias schedule and polish, combined under a name.

`default` is the one that recovers from data alone. The others are what Nguyen et al.
2018, Theorem 4, proves something about, as they stand there: full batch, hard threshold
or ReLU, constant step. They need a start near the truth, and recover nothing from data
at practical sizes, where the cross-talk between atoms swamps the threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from shoal.network.activations import (
    Activation,
    HardThreshold,
    ReLU,
    Sigmoid,
    Softplus,
    TopK,
)
from shoal.network.inference import (
    IterativeHardThresholding,
    OrthogonalMatchingPursuit,
    SubspacePursuit,
)
from shoal.training.adaptation import BiasAdaptation
from shoal.training.polish import Polish
from shoal.training.refinement import Refinement
from shoal.training.revival import Revival
from shoal.training.schedules import (
    Constant,
    ExponentialDecay,
    FixedStep,
    Halving,
    InverseDecay,
    NormalizedStep,
    Schedule,
    StepSize,
)
from shoal.vocabulary import ArgumentError, check_choice, check_count, check_number

__all__ = [
    "MODELS",
    "RECIPES",
    "Recipe",
    "bias_adaptation",
    "default",
    "describe",
    "nguyen2019",
    "recipe_named",
    "restore",
]

MODELS = ("sparse", "nonnegative", "mixture")
"""Signed sparse codes; non-negative sparse codes; one active unit a sample."""


@dataclass(frozen=True)
class Recipe:
    """All that descent and polish need to know beside the data and the start.

    Parameters
    ----------
    activation : Activation
        The encoder's.
    step_size : StepSize
        `NormalizedStep` or `FixedStep`, with a schedule.
    n_steps : int
        Updates of the descent.
    batch_size : int or None
        Samples an update; None is the full batch.
    bias : Schedule, BiasAdaptation or None
        The bias of all units, step by step; or each unit's by how often it fires; None leaves
        it at its start, 0.
    revival : Revival or None
        Replacement of dead and duplicate atoms.
    refinement : Refinement or None
        Descent that goes on with better codes.
    polish : Polish or None
        What follows the descent.
    """

    activation: Activation
    step_size: StepSize
    n_steps: int
    batch_size: int | None = None
    bias: Schedule | BiasAdaptation | None = None
    revival: Revival | None = None
    refinement: Refinement | None = None
    polish: Polish | None = None

    def __post_init__(self) -> None:
        check_count("n_steps", self.n_steps)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)


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
        step_size=NormalizedStep(Constant(0.4), shared),
        n_steps=4,
        batch_size=batch,
        revival=Revival(),
        refinement=Refinement(hasty, NormalizedStep(InverseDecay(0.5, 200), shared), 20_000),
        polish=Polish(SubspacePursuit(k, signed)),
    )


def nguyen2019(
    model: str,
    activation: str,
    *,
    a1: float = 1.0,
    step: float = 1.0,
    n_steps: int = 50,
    initial_bias: float | None = None,
    floor: float = 0.0,
) -> Recipe:
    """What Theorem 4 of Nguyen et al. 2018 certifies near the truth.

    Parameters
    ----------
    model : str
        One of `MODELS`.
    activation : {"threshold", "relu"}
        Hard threshold at a1 / 2 with no bias, (i.1), (ii), (iii.1); or ReLU whose
        negative bias halves every step, (i.2), (iii.2), not for signed codes.
    a1 : float
        The least magnitude of a non-zero coefficient (Assumption A3).
    step : float
        The step size in units of 1 / mean(x_i^2), which estimates the theorem's
        1 / (p_i kappa2) = Theta(m / k). For non-negative codes the mean direction is
        steeper by L = 1 + (k-1) kappa1^2 / kappa2 and step * L < 2 is needed.
    n_steps : int
        Full-batch updates.
    initial_bias : float, optional
        Where the ReLU's bias starts, at most 0; -a1 / 2 by default.
    floor : float
        Where the halving stops, 0 in the theorem. On finite data a floor of about
        -0.2 a1 keeps off-support units silent, and the weights from being destroyed.
    """
    check_choice("model", model, MODELS)
    check_choice("activation", activation, ("threshold", "relu"))
    check_number("a1", a1, low=0.0, open_low=True)
    check_number("step", step, low=0.0, open_low=True)
    if initial_bias is not None:
        check_number("initial_bias", initial_bias, high=0.0)
    bias: Schedule | None = None
    chosen: Activation = HardThreshold(a1 / 2, signed=model == "sparse")
    if activation == "relu":
        if model == "sparse":
            needed = "'threshold': Theorem 4 has no ReLU for signed codes"
            raise ArgumentError("activation", "'relu' with model='sparse'", needed)
        chosen = ReLU()
        bias = Halving(-a1 / 2 if initial_bias is None else initial_bias, floor=floor)
    return Recipe(chosen, NormalizedStep(Constant(step)), n_steps, bias=bias)


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
        step_size=NormalizedStep(ExponentialDecay(0.00025, 0.025, 50)),
        n_steps=800,
        batch_size=batch if n_samples is None else min(batch, n_samples),
        bias=BiasAdaptation((min(3 * k / n_components, 0.5),), every=1, rate=0.02, silent=0.5),
    )


RECIPES: dict[str, Callable[[str, int, int, int | None], Recipe]] = {
    "default": default,
    "bias-adaptation": bias_adaptation,
}
"""From a name to a function of (model, n_components, k, n_samples)."""


def _register(model: str, activation: str) -> None:
    def build(asked: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
        if asked != model:
            raise ArgumentError("model", repr(asked), f"{model!r}, which this recipe is about")
        return nguyen2019(model, activation)

    RECIPES[f"nguyen2019-{model}-{activation}"] = build


_register("sparse", "threshold")
for _model in ("nonnegative", "mixture"):
    for _activation in ("threshold", "relu"):
        _register(_model, _activation)


def recipe_named(name: str, model: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
    """The recipe of that name for a problem of this size.

    >>> recipe_named("default", "sparse", 128, 3, 20_000).batch_size
    256
    """
    check_choice("recipe", name, RECIPES)
    check_choice("model", model, MODELS)
    return RECIPES[name](model, n_components, k, n_samples)


_PARTS: dict[str, type] = {
    part.__name__: part
    for part in (
        Recipe,
        ReLU,
        HardThreshold,
        TopK,
        Sigmoid,
        Softplus,
        NormalizedStep,
        FixedStep,
        Constant,
        ExponentialDecay,
        InverseDecay,
        Halving,
        BiasAdaptation,
        Revival,
        Refinement,
        OrthogonalMatchingPursuit,
        SubspacePursuit,
        IterativeHardThresholding,
        Polish,
    )
}


def describe(part: Any) -> Any:
    """A recipe (or a part of one) as plain values for JSON; :func:`restore` undoes it.

    Raises
    ------
    ArgumentError
        At a part of your own making, which a file can't hold.

    Examples
    --------
    >>> describe(TopK(3))
    {'kind': 'TopK', 'k': 3, 'signed': True}
    >>> restore(describe(TopK(3)))
    TopK(k=3, signed=True)
    """
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    if isinstance(part, tuple):
        return [describe(each) for each in part]
    name = type(part).__name__
    if _PARTS.get(name) is not type(part):
        raise ArgumentError("recipe", f"a part of type {name}", "parts from shoal to write it down")
    values = {field.name: describe(getattr(part, field.name)) for field in fields(_PARTS[name])}
    return {"kind": name, **values}


def restore(description: Any) -> Any:
    """What :func:`describe` described."""
    if isinstance(description, list):
        return tuple(map(restore, description))
    if not isinstance(description, dict):
        return description
    values = {name: restore(value) for name, value in description.items() if name != "kind"}
    kind = check_choice("recipe", description.get("kind"), _PARTS)
    return _PARTS[kind](**values)

"""Recipes: activation, step size, bias schedule and polish, combined under a name.

`default` is the one that recovers from data alone. The others are what Nguyen et al.
2018, Theorem 4, proves something about, as they stand there: full batch, hard threshold
or ReLU, constant step. They need a start near the truth, and recover nothing from data
at practical sizes, where the cross-talk between atoms swamps the threshold. Where they are known to
leave even that basin they warn, and those whose names end in ``-stable`` have the remedy: a floor
under the bias, Newton's step for the mean of non-negative codes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_type_hints

import numpy as np

from shoal.generative import GenerativeModel
from shoal.network.activations import (
    ACTIVATIONS,
    Activation,
    HardThreshold,
    Maxout,
    ReLU,
    Sigmoid,
    SmoothActivation,
    Softplus,
    Tanh,
    TopK,
)
from shoal.network.inference import (
    IterativeHardThresholding,
    OrthogonalMatchingPursuit,
    SubspacePursuit,
)
from shoal.network.penalties import PENALTIES, Penalty
from shoal.network.pursuit import Pursuit
from shoal.training.adaptation import BiasAdaptation
from shoal.training.constraints import Nearness
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
from shoal.vocabulary import ArgumentError, check_choice, check_count, check_number, fits

__all__ = [
    "MODELS",
    "RECIPES",
    "Recipe",
    "bias_adaptation",
    "certified_step",
    "default",
    "describe",
    "mean_curvature",
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
    nearness : Nearness or None
        A constraint on the steps of the descent.
    """

    activation: Activation
    step_size: StepSize
    n_steps: int
    batch_size: int | None = None
    bias: Schedule | BiasAdaptation | None = None
    revival: Revival | None = None
    refinement: Refinement | None = None
    polish: Polish | None = None
    nearness: Nearness | None = None

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
    a1: float | None = None,
    step: float = 1.0,
    n_steps: int = 50,
    initial_bias: float | None = None,
    floor: float = 0.0,
    damping: bool = False,
    nearness: float | None = None,
    k: int | None = None,
    world: GenerativeModel | None = None,
    start: Any = None,
) -> Recipe:
    """What Theorem 4 of Nguyen et al. 2018 certifies near the truth.

    Parameters
    ----------
    model : str
        One of `MODELS`.
    activation : {"threshold", "relu"}
        Hard threshold at a1 / 2 with no bias, (i.1), (ii), (iii.1); or ReLU whose
        negative bias halves every step, (i.2), (iii.2), not for signed codes.
    a1 : float, optional
        The least magnitude of a non-zero coefficient (Assumption A3); by default the
        world's, or 1.
    step : float
        The step size in units of the theorem's 1 / (p_i kappa2) = Theta(m / k).
    n_steps : int
        Full-batch updates.
    initial_bias : float, optional
        Where the ReLU's bias starts, at most 0; -a1 / 2 by default.
    floor : float
        Where the halving stops, 0 in the theorem. On finite data a floor of about
        -0.2 a1 keeps off-support units silent, and the weights from being destroyed.
    damping : bool
        Whether what all atoms have in common is moved by Newton's step. For non-negative codes
        the loss is steeper there by L, see :func:`mean_curvature`.
    nearness : float, optional
        A radius delta: after each step the atoms are brought back to within it of where they
        started, and the dictionary to at most twice the spectral norm (section B.3).
    k : int, optional
        Active units a sample, for the warning below; the world knows its own.
    world : GenerativeModel, optional
        Where the data come from. With it the step size is the theorem's own, one zeta for all
        atoms (:func:`certified_step`); without it each atom's 1 / mean(x_i^2), which estimates
        that from the batch. With `damping` it is the latter in either case.
    start : array_like of shape (m, n), optional
        The start, for lambda_i in the world's step; the truth itself without it.

    Warns
    -----
    UserWarning
        Where the recipe is known to leave its basin: the ReLU's bias comes near 0, or
        non-negative codes have step * L >= 2. It says what would do.
    """
    check_choice("model", model, MODELS)
    check_choice("activation", activation, ("threshold", "relu"))
    check_number("step", step, low=0.0, open_low=True)
    least = check_number(
        "a1", (world.a1 if world is not None else 1.0) if a1 is None else a1, low=0.0, open_low=True
    )
    if initial_bias is not None:
        check_number("initial_bias", initial_bias, high=0.0)
    bias: Schedule | None = None
    chosen: Activation = HardThreshold(least / 2, signed=model == "sparse")
    if activation == "relu":
        if model == "sparse":
            needed = "'threshold': Theorem 4 has no ReLU for signed codes"
            raise ArgumentError("activation", "'relu' with model='sparse'", needed)
        chosen = ReLU()
        bias = Halving(-least / 2 if initial_bias is None else initial_bias, floor=floor)
        _warn_of_vanishing_bias(bias, least, n_steps)
    if model == "nonnegative" and not damping:
        _warn_of_steep_mean(step, k, world)
    size: StepSize = NormalizedStep(Constant(step), shared=damping)
    if world is not None and not damping:
        size = FixedStep(Constant(step * certified_step(world, start)))
    near = None if nearness is None else Nearness(nearness)
    return Recipe(chosen, size, n_steps, bias=bias, nearness=near)


def certified_step(world: GenerativeModel, start: Any = None) -> float:
    """zeta = max_i 1 / (kappa2 p_i lambda_i): Theta(m) for mixtures, Theta(m/k) else.

    Parameters
    ----------
    world : GenerativeModel
        It knows p_i and kappa2.
    start : array_like of shape (m, n), optional
        W, in the order of the world's atoms: lambda_i = <W_i, A_i>. Without it they are 1.

    Returns
    -------
    float
        Over units that are ever active.

    Raises
    ------
    ArgumentError
        If an atom of the start is a right angle or more from its true one.

    References
    ----------
    Nguyen, Wong, Hegde 2018, after Lemma 1 (kappa2 = 1).

    Examples
    --------
    >>> from shoal.generative import MixtureOfGaussians
    >>> certified_step(MixtureOfGaussians(np.eye(10)))
    10.0
    """
    along = np.ones(world.n_atoms)
    if start is not None:
        rows = np.asarray(start, dtype=np.float64)
        if rows.shape != world.dictionary.shape:
            raise ArgumentError("start", f"shape {rows.shape}", f"{world.dictionary.shape}")
        along = np.einsum("mn,mn->m", rows, world.dictionary.astype(np.float64))
    used = world.p > 0
    if not (along[used] > 0).all():
        found = f"<W_i, A_i> = {along[used].min():.3g}"
        raise ArgumentError("start", found, "atoms within a right angle of the true ones")
    return float(1 / (world.kappa2 * (world.p * along)[used].min()))


def mean_curvature(world: GenerativeModel) -> float:
    """L = 1 + (k-1) kappa1^2 / kappa2: how much steeper the loss is along the mean of the codes.

    Given the codes the loss is quadratic in W with Hessian E[x x^T]. Where all units are alike it
    has, up to the order 1/m, the eigenvalue p kappa2 L along 1 and about p kappa2 on the rest. A
    step of c / (p kappa2) multiplies the error along 1 by 1 - c L: it is stable for c L < 2. That
    codes move with W adds a share of about k^2 / (4 m).

    Theorem 4 (iii) of Nguyen et al. 2018 has no such condition. Its fall of the squared distance to
    a quarter wants |1 - c| and |1 - c L| of at most 1/2, which some c meets for L <= 3 only.

    Parameters
    ----------
    world : GenerativeModel
        The truth; k - 1 is the mean number of an active unit's companions,
        E[|S| (|S| - 1)] / E[|S|], so that sizes may vary.

    Returns
    -------
    float
        1 for codes of mean 0.

    Examples
    --------
    >>> from shoal.generative import Constant, NonnegativeSparseCoding
    >>> round(mean_curvature(NonnegativeSparseCoding(np.eye(8), 5, values=Constant(1.0))), 9)
    5.0
    """
    p = world.p
    companions = float(world.p_ij.sum() - p.sum()) / float(p.sum())
    return float(1 + companions * world.kappa1**2 / world.kappa2)


# Below it off-support units fired and the weights were destroyed; see `nguyen2019`, floor.
_LEAST_BIAS = 0.15


def _warn_of_vanishing_bias(bias: Halving, a1: float, n_steps: int) -> None:
    last = bias(n_steps - 1)
    if last > -_LEAST_BIAS * a1:
        warnings.warn(
            f"the ReLU's bias comes within {abs(last):.2g} of 0 in {n_steps} steps: on finite data "
            "off-support units fire then, and the atoms leave the basin; floor="
            f"{-0.2 * a1:.2g}, or a recipe whose name ends in -stable, keeps them",
            stacklevel=3,
        )


def _warn_of_steep_mean(step: float, k: int | None, world: GenerativeModel | None) -> None:
    if world is None and k is None:
        return
    # Without a world the most that it can be: kappa1^2 <= kappa2.
    curvature = mean_curvature(world) if world is not None else float(k or 1)
    if step * curvature >= 2:
        most = "" if world is not None else "up to "
        warnings.warn(
            f"for non-negative codes the mean direction is {most}L = {curvature:.3g} times as "
            f"steep and step * L = {step * curvature:.3g} is not below 2, where descent leaves the "
            f"basin; damping=True, a recipe whose name ends in -stable, or a step below "
            f"{2 / curvature:.2g} keeps it",
            stacklevel=3,
        )


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


def _register(model: str, activation: str, *, stable: bool = False) -> None:
    def build(asked: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
        if asked != model:
            raise ArgumentError("model", repr(asked), f"{model!r}, which this recipe is about")
        floor = -0.2 if stable and activation == "relu" else 0.0
        damping = stable and model == "nonnegative"
        return nguyen2019(model, activation, floor=floor, damping=damping, k=k)

    RECIPES[f"nguyen2019-{model}-{activation}" + "-stable" * stable] = build


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
    return RECIPES[name](model, n_components, k, n_samples)


# What a description may name, by what it stands for in a recipe.
_FAMILIES: dict[Any, tuple[type, ...]] = {
    Activation: (ReLU, HardThreshold, TopK, Sigmoid, Softplus, Tanh, Maxout),
    SmoothActivation: tuple(type(each) for each in ACTIVATIONS.values()),
    Penalty: tuple(PENALTIES.values()),
    StepSize: (NormalizedStep, FixedStep),
    Schedule: (Constant, ExponentialDecay, InverseDecay, Halving),
    Pursuit: (OrthogonalMatchingPursuit, SubspacePursuit, IterativeHardThresholding),
}
_PARTS: dict[str, type] = {
    part.__name__: part
    for part in (
        Recipe,
        *(part for family in _FAMILIES.values() for part in family),
        BiasAdaptation,
        Revival,
        Refinement,
        Polish,
        Nearness,
    )
}


@cache
def _hints(part: type) -> dict[str, Any]:
    return get_type_hints(part)


def describe(part: Any, argument: str = "recipe") -> Any:
    """A recipe (or a part of one) as plain values for JSON; :func:`restore` undoes it.

    Parameters
    ----------
    part : Recipe, activation, penalty, ...
        Parts within parts, numbers, words.
    argument : str
        What an error calls it.

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
        return [describe(each, argument) for each in part]
    name = type(part).__name__
    if _PARTS.get(name) is not type(part):
        raise ArgumentError(argument, f"a part of type {name}", "parts from shoal to write it down")
    values = {
        field.name: describe(getattr(part, field.name), argument) for field in fields(_PARTS[name])
    }
    return {"kind": name, **values}


def restore(description: Any, family: Any = None) -> Any:
    """What :func:`describe` described.

    Parameters
    ----------
    description : plain values
    family : type, optional
        What it must turn out to be: a part's class, or one of `Activation`, `Penalty`, ...

    Raises
    ------
    ArgumentError
        That names the part, or the value in it, that is none or is of another type.
    """
    found = _restored(description)
    if family is not None and not fits(found, family, _FAMILIES):
        raise ArgumentError("recipe", repr(found), f"the description of a {family.__name__}")
    return found


def _restored(description: Any) -> Any:
    if isinstance(description, list):
        return tuple(map(_restored, description))
    if not isinstance(description, dict):
        return description
    kind = check_choice("recipe", description.get("kind"), _PARTS)
    part, hints = _PARTS[kind], _hints(_PARTS[kind])
    values = {name: _restored(value) for name, value in description.items() if name != "kind"}
    known = [field.name for field in fields(part)]
    for name, value in values.items():
        if name not in known:
            raise ArgumentError(kind, f"a value {name!r}", f"one of {', '.join(known) or 'none'}")
        if not fits(value, hints[name], _FAMILIES):
            needed = getattr(hints[name], "__name__", str(hints[name]))
            raise ArgumentError(f"{kind}.{name}", repr(value), f"a value of type {needed}")
    return part(**values)

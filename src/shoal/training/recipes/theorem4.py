"""What Nguyen et al. 2018, Theorem 4, proves something about, as it stands there.

Full batch, hard threshold or ReLU, constant step. These recipes need a start near the truth, and
recover nothing from data at practical sizes, where the cross-talk between atoms swamps the
threshold. Where they are known to leave even that basin they warn, and those whose names end in
``-stable`` have the remedy: a floor under the bias, Newton's step for the mean of non-negative
codes.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from shoal.generative import GenerativeModel
from shoal.network.activations import Activation, HardThreshold, ReLU
from shoal.training.constraints import Constraint, Nearness, UnitLength
from shoal.training.recipes.recipe import MODELS, Recipe
from shoal.training.rules import FixedStep, NormalizedStep, Rule
from shoal.training.schedules import Constant, Halving, Schedule
from shoal.vocabulary import ArgumentError, check_choice, check_number

__all__ = ["certified_step", "mean_curvature", "nguyen2019"]


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

    Examples
    --------
    >>> from shoal.training import nguyen2019
    >>> recipe = nguyen2019("sparse", "threshold", a1=1.0)
    >>> recipe.activation, recipe.n_steps
    (HardThreshold(threshold=0.5, signed=True), 50)
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
    size: Rule = NormalizedStep(Constant(step), shared=damping)
    if world is not None and not damping:
        size = FixedStep(Constant(step * certified_step(world, start)))
    near: Constraint = UnitLength() if nearness is None else Nearness(nearness)
    return Recipe(chosen, size, n_steps, bias=bias, constraint=near)


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

    Theorem 4 (iii) of Nguyen et al. 2018 has no such condition, and its tau > 3/4 means c > 3/4:
    with L near k, both hold for k <= 2 only.

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

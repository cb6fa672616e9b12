"""The loop: data -> encode -> reconstruct -> gradient -> update, as a generator of steps.

Full batch, minibatch and stream are the same loop: a source hands out batches, a kernel sums
over each, and one update follows. Consumers of the generator measure, save, draw a
progress bar or stop early; the loop knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count, repeat

import numpy as np
import torch
from torch import Tensor

from shoal.data import Source
from shoal.network import kernels
from shoal.network.activations import Activation
from shoal.network.autoencoder import variance
from shoal.network.kernels import StepSums
from shoal.network.pursuit import Pursuit
from shoal.training.adaptation import Adapting, BiasAdaptation
from shoal.training.constraints import nearness_projection, unit_atoms
from shoal.training.recipes import Recipe
from shoal.training.refinement import Settling
from shoal.training.revival import Activity, revive
from shoal.training.schedules import StepSize
from shoal.vocabulary import ArgumentError, Parameters, Step

__all__ = ["descend", "update"]

Sums = Callable[[Parameters], StepSums]


def update(
    parameters: Parameters,
    sums: StepSums,
    step_size: StepSize,
    step: int,
    near: Callable[[Tensor], Tensor] | None = None,
) -> Parameters:
    """One step against the gradient, then what keeps atoms `near`, then unit atoms.

    W <- normalize(W - zeta g), Nguyen et al. 2018, Theorem 4. The bias isn't moved here:
    it follows its schedule.
    """
    moved = parameters.dictionary - step_size.change(step, sums)
    if near is not None:
        moved = near(moved)
    return parameters._replace(dictionary=unit_atoms(moved, fallback=parameters.dictionary))


def _batches(
    source: Source, batch_size: int, rng: np.random.Generator, passes: int | None
) -> Iterator[np.ndarray]:
    """Batches of `passes` passes, or without end; a source that can be read once gives one.

    A last batch of less than half the size is left out: few samples make a noisy step.
    """
    if source.once:
        passes = 1
    for _ in count() if passes is None else range(passes):
        for number, batch in enumerate(source.batches(batch_size, rng=rng)):
            if number == 0 or 2 * len(batch) >= batch_size:
                yield batch


def _work(
    source: Source, recipe: Recipe, like: Tensor, rng: np.random.Generator, passes: int | None
) -> Iterator[tuple[Tensor, Callable[[Activation | Pursuit], Sums]]]:
    """Batches, and what gives their sums for an encoder; a full batch is read once and stays."""
    if recipe.batch_size is None:
        assert source.n_samples is not None, "checked by descend"
        (batch,) = source.batches(source.n_samples)
        data = torch.from_numpy(batch).to(like)
        work = data, cache(partial(kernels.repeated, data))
        yield from repeat(work) if passes is None else repeat(work, passes)
    else:
        for batch in _batches(source, recipe.batch_size, rng, passes):
            data = torch.from_numpy(batch).to(like)
            yield data, partial(_sums, data)


def _sums(data: Tensor, encoder: Activation | Pursuit) -> Sums:
    return partial(kernels.choose(data).step, data=data, activation=encoder)


def descend(
    parameters: Parameters,
    source: Source,
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    start: int = 0,
    passes: int | None = None,
    activity: Activity | None = None,
) -> Iterator[Step]:
    """Gradient descent by `recipe`, from `parameters`, on the batches of `source`.

    Parameters
    ----------
    parameters : Parameters
        The start, (m, n) and (m,), with unit atoms; it stays as it is.
    source : Source
        Where batches come from; shuffled by `rng` if it can be.
    recipe : Recipe
        What a step is and how many there are.
    rng : numpy.random.Generator
        The only randomness: the same state gives the same steps, bit for bit.
    start : int
        The step number to begin at, for schedules. Steps from `recipe.n_steps` on are those
        of the refinement, if there is one.
    passes : int, optional
        End after so many passes over the source, if that comes first.
    activity : Activity, optional
        Counts to go on from, moved in place: what a descent in pieces carries along.

    Yields
    ------
    Step
        After every update.
    """
    if recipe.batch_size is None and source.n_samples is None:
        raise ArgumentError("batch_size", "None (full batch) on a stream", "a number of rows")
    dictionary = parameters.dictionary
    n_components = dictionary.shape[0]
    if activity is None:
        activity = Activity(parameters.bias)
    if isinstance(recipe.bias, BiasAdaptation) and activity.adapting is None:
        activity.adapting = Adapting(recipe.bias, parameters.bias)
    work = _work(source, recipe, dictionary, rng, passes)
    near = None
    if recipe.nearness is not None:
        delta, spectral = recipe.nearness.delta, recipe.nearness.spectral
        near = partial(nearness_projection, center=dictionary, delta=delta, spectral=spectral)
    refinement, first = recipe.refinement, recipe.n_steps
    encoder: Activation | Pursuit = recipe.activation
    step_size = recipe.step_size
    phase, begin, end, settling = "descent", 0, first, None
    stop = first + (refinement.n_steps if refinement is not None else 0)
    for index, (data, sums_by) in zip(range(start, stop), work, strict=False):
        if refinement is not None and index >= first and phase == "descent":
            encoder, step_size = refinement.pursuit, refinement.step_size
            phase, begin, end = "refinement", first, stop
            settling = Settling(refinement, n_components)
        if recipe.bias is not None and not isinstance(recipe.bias, BiasAdaptation):
            parameters = parameters._replace(
                bias=torch.full_like(parameters.bias, recipe.bias(index))
            )
        sums = sums_by(encoder)(parameters)
        parameters = update(parameters, sums, step_size, index - begin, near)
        if activity.adapting is not None and phase == "descent":
            moved = activity.adapting.add(parameters.bias, sums.counts, sums.energy, sums.n_samples)
            parameters = parameters._replace(bias=moved)
        activity.add_(sums.counts)
        replaced = 0
        revival, last = recipe.revival, index + 1 == stop
        # Not at the very end: a new atom needs steps to become one.
        if revival is not None and activity.due(revival.every) and not last:
            usage = activity.look_()
            dead = activity.dead(revival.idle)
            dictionary, replaced = revive(
                parameters, usage, dead, activity.tries, data, sums.losses, encoder, revival
            )
            parameters = parameters._replace(dictionary=dictionary)
        if settling is not None and passes is None:
            last = settling.add(sums, data, parameters.dictionary, replaced) or last
        yield Step(
            number=index + 1,
            phase=phase,
            progress=1.0 if last else (index + 1 - begin) / (end - begin),
            parameters=parameters,
            loss=sums.losses.mean(),
            variance=variance(data),
            learning_rate=step_size.schedule(index - begin),
            activation_fraction=sums.counts.sum() / (sums.n_samples * n_components),
            replaced=replaced,
        )
        if last:
            return

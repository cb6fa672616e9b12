"""The loop: data -> encode -> reconstruct -> gradient -> update, as a generator of steps.

Full batch, minibatch and stream are the same loop: a source hands out batches, a kernel sums
over each, and one update follows. Consumers of the generator measure, save, draw a
progress bar or stop early; the loop knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, repeat

import numpy as np
import torch
from torch import Tensor

from shoal.data import Source
from shoal.network import kernels
from shoal.network.kernels import StepSums
from shoal.training.constraints import unit_atoms
from shoal.training.recipes import Recipe
from shoal.training.revival import Activity, revive
from shoal.training.schedules import StepSize
from shoal.vocabulary import ArgumentError, Parameters, Step

__all__ = ["descend", "update"]


def update(parameters: Parameters, sums: StepSums, step_size: StepSize, step: int) -> Parameters:
    """One step against the gradient, then unit atoms.

    W <- normalize(W - zeta g), Nguyen et al. 2018, Theorem 4. The bias isn't moved here:
    it follows its schedule.
    """
    rates = step_size.rates(step, sums.energy, sums.n_samples)  # (m,)
    moved = parameters.dictionary - rates[:, None] * (sums.dictionary / sums.n_samples)
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
) -> Iterator[tuple[Tensor, Callable[[Parameters], StepSums]]]:
    """Batches, and what gives their sums; a full batch is read once and stays."""
    if recipe.batch_size is None:
        assert source.n_samples is not None, "checked by descend"
        (batch,) = source.batches(source.n_samples)
        data = torch.from_numpy(batch).to(like)
        step = kernels.repeated(data, recipe.activation)
        yield from repeat((data, step)) if passes is None else repeat((data, step), passes)
    else:
        for batch in _batches(source, recipe.batch_size, rng, passes):
            data = torch.from_numpy(batch).to(like)
            kernel = kernels.choose(data)
            yield data, partial(kernel.step, data=data, activation=recipe.activation)


def _variance(data: Tensor) -> Tensor:
    """1/2 mean |y - mean(y)|^2 of data (N, n)."""
    # Ten times faster than torch.var over the rows.
    centred = data - data.mean(dim=0)
    return 0.5 * torch.linalg.vector_norm(centred).square() / data.shape[0]


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
        The step number to begin at, for schedules; `recipe.n_steps` is where it ends.
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
        activity = Activity(torch.zeros_like(parameters.bias))
    work = _work(source, recipe, dictionary, rng, passes)
    for index, (data, step) in zip(range(start, recipe.n_steps), work, strict=False):
        if recipe.bias is not None:
            parameters = parameters._replace(
                bias=torch.full_like(parameters.bias, recipe.bias(index))
            )
        sums = step(parameters)
        parameters = update(parameters, sums, recipe.step_size, index)
        activity.add_(sums.counts)
        replaced = 0
        revival, last = recipe.revival, index + 1 == recipe.n_steps
        # Not at the very end: a new atom needs steps to become one.
        if revival is not None and activity.steps >= revival.every and not last:
            dictionary, replaced = revive(
                parameters, activity.counts, data, sums.losses, recipe.activation, revival
            )
            parameters = parameters._replace(dictionary=dictionary)
            activity.reset_()
        yield Step(
            number=index + 1,
            phase="descent",
            progress=(index + 1) / recipe.n_steps,
            parameters=parameters,
            loss=sums.losses.mean(),
            variance=_variance(data),
            learning_rate=recipe.step_size.schedule(index),
            activation_fraction=sums.counts.sum() / (sums.n_samples * n_components),
            replaced=replaced,
        )

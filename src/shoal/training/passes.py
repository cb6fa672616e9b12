"""Epochs: a consumer of the loop that looks once a pass over the data.

What Arpit et al. 2016 measure, eq. (14): how many units are active, and how many never are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shoal.data import Source, open_source
from shoal.network import autoencoder
from shoal.network.activations import Activation
from shoal.network.penalties import Penalty, Terms
from shoal.training.descent import descend
from shoal.training.recipes import Recipe
from shoal.training.state import State
from shoal.vocabulary import ArgumentError, Parameters

__all__ = ["Epoch", "Tally", "Usage", "epochs", "held_units", "passing", "usage"]

# Arbitrary: rows, evenly spaced, that an epoch's activation is measured on.
_MEASURED = 10_000


class Usage(NamedTuple):
    """How much units are used: Arpit et al. 2016, eq. (14)."""

    activation_fraction: float  # share of (sample, unit) pairs with a code above delta_min
    dead_fraction: float  # share of the units that are above it on no sample


class Tally(NamedTuple):
    """The sums of an epoch that is under way."""

    loss: Tensor
    penalty: Tensor


class Epoch(NamedTuple):
    """What training yields after every pass over the data."""

    number: int  # from 1
    steps: int  # updates so far
    parameters: Parameters
    loss: float  # mean |x - y|^2 of the epoch's batches, each before its update
    penalty: float  # mean lambda R of the same
    usage: Usage  # of the parameters, on at most 10 000 samples


def usage(parameters: Parameters, source: Source, activation: Activation) -> Usage:
    """Activation fraction and dead units over all samples of `source`.

    Examples
    --------
    >>> import torch
    >>> from shoal import open_source
    >>> from shoal.network.activations import ReLU
    >>> from shoal.training import usage
    >>> from shoal.vocabulary import Parameters
    >>> parameters = Parameters(torch.eye(2), torch.tensor([0.0, -9.0]))
    >>> usage(parameters, open_source([[1.0, 2.0]]), ReLU())
    Usage(activation_fraction=0.5, dead_fraction=0.5)
    """
    counts = torch.zeros(len(parameters.bias), dtype=torch.float64)
    least, total = getattr(activation, "delta_min", 0.0), 0
    for batch in source.batches(1024):
        codes = autoencoder.encode(
            parameters, torch.from_numpy(batch).to(parameters.bias), activation
        )
        counts += (codes > least).sum(dim=0).cpu()
        total += len(batch)
    share = float(counts.sum()) / (total * len(counts))
    return Usage(share, float((counts == 0).double().mean()))


def held_units(
    parameters: Parameters, source: Source, activation: Activation, penalty: Penalty | None
) -> int:
    """How many units' mean codes over `source` are so large that `penalty` does nothing to them.

    By its `held`, where it has one: :meth:`shoal.network.penalties.KLSparse.held`.
    """
    held = getattr(penalty, "held", None)
    if penalty is None or held is None or penalty.strength == 0:
        return 0
    total, size = torch.zeros(len(parameters.bias), dtype=torch.float64), 0
    for batch in source.batches(1024):
        data = torch.from_numpy(batch).to(parameters.bias)
        total += autoencoder.encode(parameters, data, activation).double().sum(dim=0).cpu()
        size += len(batch)
    return int(held(total / size).sum())


def epochs(state: State, source: Source, recipe: Recipe) -> Iterator[Epoch]:
    """Descent by `recipe`, whose objective has a penalty, an epoch at a time.

    Parameters
    ----------
    state : State
        From :func:`shoal.training.begin`; or one between two epochs.
    source : Source
        That can be read again.
    recipe : Recipe
        As :func:`shoal.training.arpit2016` makes it.

    Yields
    ------
    Epoch
        After every pass.

    Raises
    ------
    ArgumentError
        Where the source is a stream, or once the objective is not finite: which epoch, and what
        would do.
    """
    for _, _, epoch in passing(state, source, recipe):
        if epoch is not None:
            yield epoch


def passing(
    state: State, source: Source, recipe: Recipe, tally: Tally | None = None
) -> Iterator[tuple[State, Tally, Epoch | None]]:
    """:func:`epochs` step by step, which may be left after any of them and gone on with.

    Parameters
    ----------
    state, source, recipe
        As for :func:`epochs`; the state may be one in the middle of an epoch.
    tally : Tally, optional
        That came with such a state.

    Yields
    ------
    State, Tally, Epoch or None
        After every step; an epoch at its end.
    """
    if source.once or source.n_samples is None:
        raise ArgumentError("source", "a stream", "data that can be read once for every epoch")
    assert recipe.batch_size is not None
    per_epoch = -(-source.n_samples // recipe.batch_size)
    sample = _sample(source)
    none = state.parameters.bias.new_zeros(())
    tally = Tally(none, none) if tally is None else tally
    for state, sums in descend(state, source, recipe.plan()):
        assert isinstance(sums, Terms)
        tally = Tally(tally.loss.clone().add_(sums.loss), tally.penalty.clone().add_(sums.penalty))
        if state.number % per_epoch:
            yield state, tally, None
            continue
        number = state.number // per_epoch
        means = float(tally.loss) / per_epoch, float(tally.penalty) / per_epoch
        parameters = state.parameters
        if not np.isfinite(sum(means)) or not bool(torch.isfinite(parameters.dictionary).all()):
            rate = recipe.rule.rate(state.number - 1)
            found = f"{rate:g}, with which epoch {number} diverged"
            needed = "a smaller one, weight_length='unit', or standardised data"
            raise ArgumentError("learning_rate", found, needed)
        now = parameters.map(torch.clone)  # the rule moves them in place
        epoch = Epoch(number, state.number, now, *means, usage(now, sample, recipe.activation))
        tally = Tally(none, none)
        yield state, tally, epoch


def _sample(source: Source) -> Source:
    """At most `_MEASURED` rows, evenly spaced."""
    assert source.n_samples is not None
    if source.n_samples <= _MEASURED:
        return source
    index = np.linspace(0, source.n_samples - 1, _MEASURED).round().astype(np.intp)
    return open_source(source.rows(index))

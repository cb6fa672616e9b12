"""Minibatch gradient descent with momentum for regularised autoencoders.

The protocol of Arpit et al. 2016, section 3: batches of 50, momentum .9, 50 epochs, weights from
normalised initialisation, their length brought back to 1 after each step. The gradient of a
batch goes from its parts (:class:`shoal.network.penalties.Terms`) straight into the velocity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shoal.data import Source
from shoal.network import autoencoder
from shoal.network.activations import SmoothActivation
from shoal.network.penalties import Decoded, Penalty, Terms
from shoal.training.constraints import unit_atoms
from shoal.vocabulary import ArgumentError, Parameters, check_choice, check_count, check_number

__all__ = [
    "WEIGHT_LENGTHS",
    "Epoch",
    "Momentum",
    "Usage",
    "held_units",
    "normalized_start",
    "train",
    "usage",
]

WEIGHT_LENGTHS = ("unit", "max-norm", "free")
"""Every atom of length 1; of length at most 1; of any length."""

# Arbitrary: rows, evenly spaced, that an epoch's activation is measured on.
_MEASURED = 10_000


@dataclass(frozen=True)
class Momentum:
    """Steps v <- momentum v - learning_rate g, W <- W + v, and what keeps the atoms' length.

    Parameters
    ----------
    learning_rate : float
        Above 0; for a loss that is summed over features. The paper's range is .001 to .005.
    momentum : float
        In [0, 1).
    batch_size : int
        Samples a step.
    n_epochs : int
        Passes over the data.
    weight_length : {"unit", "max-norm", "free"}
        Atoms are brought to length 1 after each step, or to at most 1, or left.
    tangent : bool
        With "unit", whether the part of the gradient along each atom is left out. What a penalty
        does along the atoms then has no effect at all, not even by rounding.
    weight_decay : float
        Its gradient is weight_decay W.
    encoder_bias : bool
        Whether b_e is trained; else it stays as it is at the start, 0. Without one E a_j = 0 of
        centred data, whatever is trained: Arpit et al. 2016, eq. (3).
    decoder_bias : bool
        Whether there is a b_d, y = h W + b_d, as in eq. (7); it starts at 0.
    """

    learning_rate: float = 0.001
    momentum: float = 0.9
    batch_size: int = 50
    n_epochs: int = 50
    weight_length: str = "unit"
    tangent: bool = False
    weight_decay: float = 0.0
    encoder_bias: bool = True
    decoder_bias: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_number("learning_rate", self.learning_rate, low=0.0, open_low=True)
        if check_number("momentum", self.momentum, low=0.0, high=1.0) == 1.0:
            raise ArgumentError("momentum", "1", "a number below 1: at 1 no step is forgotten")
        check_count("batch_size", self.batch_size)
        check_count("n_epochs", self.n_epochs)
        check_choice("weight_length", self.weight_length, WEIGHT_LENGTHS)
        check_number("weight_decay", self.weight_decay, low=0.0)
        for name in ("encoder_bias", "decoder_bias"):
            check_choice(name, getattr(self, name), (True, False))
        if self.tangent and self.weight_length != "unit":
            found = f"True with weight_length={self.weight_length!r}"
            raise ArgumentError("tangent", found, "weight_length='unit', which has a tangent")


class Usage(NamedTuple):
    """How much units are used: Arpit et al. 2016, eq. (14)."""

    activation_fraction: float  # share of (sample, unit) pairs with a code above delta_min
    dead_fraction: float  # share of the units that are above it on no sample


class Epoch(NamedTuple):
    """What training yields after every pass over the data."""

    number: int  # from 1
    steps: int  # updates so far
    parameters: Parameters | Decoded  # the second where there is a decoder bias
    loss: float  # mean |x - y|^2 of the epoch's batches, each before its update
    penalty: float  # mean lambda R of the same
    usage: Usage  # of the parameters, on at most 10 000 samples


def normalized_start(m: int, n: int, rng: np.random.Generator, weight_length: str) -> Parameters:
    """Weights from normalised initialisation, Glorot and Bengio 2010, and bias 0; float32.

    Uniform within sqrt(6 / (n + m)); brought to length 1 where that is what training keeps.
    """
    check_choice("weight_length", weight_length, WEIGHT_LENGTHS)
    bound = np.sqrt(6.0 / (n + m))
    rows = torch.from_numpy(rng.uniform(-bound, bound, size=(m, n)).astype(np.float32))
    return Parameters(unit_atoms(rows) if weight_length == "unit" else rows, torch.zeros(m))


def usage(parameters: Parameters | Decoded, source: Source, activation: SmoothActivation) -> Usage:
    """Activation fraction and dead units over all samples of `source`."""
    counts = torch.zeros(len(parameters.bias), dtype=torch.float64)
    total = 0
    for batch in source.batches(1024):
        codes = autoencoder.encode(
            Parameters(parameters.dictionary, parameters.bias),
            torch.from_numpy(batch).to(parameters.bias),
            activation,
        )
        counts += (codes > activation.delta_min).sum(dim=0).cpu()
        total += len(batch)
    share = float(counts.sum()) / (total * len(counts))
    return Usage(share, float((counts == 0).double().mean()))


def held_units(
    parameters: Parameters | Decoded,
    source: Source,
    activation: SmoothActivation,
    penalty: Penalty,
) -> int:
    """How many units' mean codes over `source` are so large that `penalty` does nothing to them.

    By its `held`, where it has one: :meth:`shoal.network.penalties.KLSparse.held`.
    """
    held = getattr(penalty, "held", None)
    if held is None or penalty.strength == 0:
        return 0
    total, size = torch.zeros(len(parameters.bias), dtype=torch.float64), 0
    encoder = Parameters(parameters.dictionary, parameters.bias)
    for batch in source.batches(1024):
        data = torch.from_numpy(batch).to(parameters.bias)
        total += autoencoder.encode(encoder, data, activation).double().sum(dim=0).cpu()
        size += len(batch)
    return int(held(total / size).sum())


def train(
    parameters: Parameters,
    source: Source,
    activation: SmoothActivation,
    penalty: Penalty,
    settings: Momentum,
    rng: np.random.Generator,
) -> Iterator[Epoch]:
    """Descent from `parameters` on shuffled batches of `source`, an epoch at a time.

    Parameters
    ----------
    parameters : Parameters
        The start, (m, n) and (m,); it stays as it is.
    source : Source
        That can be read again.
    activation, penalty : SmoothActivation, Penalty
        The encoder, and the objective.
    settings : Momentum
        What a step is, and how many there are.
    rng : numpy.random.Generator
        The only randomness: the same state gives the same steps, bit for bit.

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
    if source.once or source.n_samples is None:
        raise ArgumentError("source", "a stream", "data that can be read once for every epoch")
    weights, bias = (part.clone() for part in parameters)
    decoder = bias.new_zeros(weights.shape[1]) if settings.decoder_bias else None
    generator = torch.Generator(device=bias.device)
    generator.manual_seed(int(rng.integers(2**62)))
    velocity, speed = torch.zeros_like(weights), torch.zeros_like(bias)
    drift = None if decoder is None else torch.zeros_like(decoder)
    sample = _sample(source)
    steps = 0
    for epoch in range(1, settings.n_epochs + 1):
        loss = bias.new_zeros(())
        extra = bias.new_zeros(())
        batches = 0
        for batch in source.batches(settings.batch_size, rng=rng):
            data = torch.from_numpy(batch).to(weights)
            terms = penalty(_whole(weights, bias, decoder), data, activation, generator)
            _move_(weights, bias, velocity, speed, terms, settings)
            if decoder is not None and drift is not None:
                if terms.decoder is None:
                    needed = "one that gives `Terms.decoder` where it is called with a `Decoded`"
                    raise ArgumentError("penalty", f"{penalty!r} with a decoder bias", needed)
                drift.mul_(settings.momentum).add_(terms.decoder, alpha=-settings.learning_rate)
                decoder += drift
            loss += terms.loss
            extra += terms.penalty
            batches += 1
        steps += batches
        mean_loss, mean_extra = float(loss) / batches, float(extra) / batches
        if not np.isfinite(mean_loss + mean_extra) or not bool(torch.isfinite(weights).all()):
            found = f"{settings.learning_rate:g}, with which epoch {epoch} diverged"
            needed = "a smaller one, weight_length='unit', or standardised data"
            raise ArgumentError("learning_rate", found, needed)
        kept = None if decoder is None else decoder.clone()
        now = _whole(weights.clone(), bias.clone(), kept)
        yield Epoch(epoch, steps, now, mean_loss, mean_extra, usage(now, sample, activation))


def _whole(weights: Tensor, bias: Tensor, decoder: Tensor | None) -> Parameters | Decoded:
    return Parameters(weights, bias) if decoder is None else Decoded(weights, bias, decoder)


def _sample(source: Source) -> Source:
    """At most `_MEASURED` rows, evenly spaced."""
    from shoal.data import open_source

    assert source.n_samples is not None
    if source.n_samples <= _MEASURED:
        return source
    index = np.linspace(0, source.n_samples - 1, _MEASURED).round().astype(np.intp)
    return open_source(source.rows(index))


def _move_(
    weights: Tensor,
    bias: Tensor,
    velocity: Tensor,
    speed: Tensor,
    terms: Terms,
    settings: Momentum,
) -> None:
    """One step, in place."""
    rate, keep = settings.learning_rate, settings.momentum
    if settings.encoder_bias:
        speed.mul_(keep).add_(terms.bias, alpha=-rate)
        bias += speed
    if settings.tangent:
        gradient = terms.left.T @ terms.right
        if terms.dense is not None:
            gradient += terms.dense
        along = (gradient * weights).sum(dim=1, keepdim=True)
        velocity.mul_(keep).sub_(gradient - along * weights, alpha=rate)
    else:
        velocity.addmm_(terms.left.T, terms.right, beta=keep, alpha=-rate)
        if terms.dense is not None:
            velocity.sub_(terms.dense, alpha=rate)
        radial = terms.radial + settings.weight_decay
        if bool(radial.any()):
            velocity.addcmul_(radial[:, None], weights, value=-rate)
    weights += velocity
    if settings.weight_length != "free":
        length = torch.linalg.vector_norm(weights, dim=1, keepdim=True)
        if settings.weight_length == "max-norm":
            length.clamp_(min=1.0)
        weights.div_(length.clamp_(min=torch.finfo(weights.dtype).tiny))

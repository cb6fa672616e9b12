"""The dense torch kernel: five products, any device, any encoder. Correct by definition.

An encoder is an activation, or a pursuit in its place; pursuits know no bias.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shoal.network import autoencoder
from shoal.network.activations import Activation, TopK, is_rowwise, learns_threshold
from shoal.network.codes import SparseCodes, sparse_codes
from shoal.network.pursuit import Pursuit
from shoal.vocabulary import Parameters, active

__all__ = [
    "StepSums",
    "adam_",
    "coded_step",
    "corrected_encode",
    "encode",
    "prefix_step",
    "sparse_encode",
    "step",
    "targeted_step",
]

# Arbitrary: rows of a batch that are worked through at once.
_TILE = 8192

OTHERS = Parameters._fields[2:]
"""The parts that a tied autoencoder does without."""


class StepSums(NamedTuple):
    """Sums over a batch: what an update needs, ready to be added over batches and ranks."""

    dictionary: Tensor  # (m, n) gradient of the summed loss
    bias: Tensor  # (m,) gradient of the summed loss
    losses: Tensor  # (B,) 1/2 |y - y_hat|^2, sample by sample
    counts: Tensor  # (m,) samples on which the unit is active
    energy: Tensor  # (m,) sum of x_i^2
    n_samples: int
    encoder: Tensor | None = None  # (m, n) gradients by the parts that are there
    threshold: Tensor | None = None  # (m,)
    offset: Tensor | None = None  # (n,)
    near: Tensor | None = None  # (m,) how many scores are near the threshold, over the window
    variance: Tensor | None = None  # () 1/2 |y - mean|^2, averaged, where the loop has looked

    @classmethod
    def zeros(cls, parameters: Parameters, n_samples: int) -> StepSums:
        """Sums over nothing yet, with room for the losses of `n_samples`."""
        dictionary, bias = parameters.dictionary, parameters.bias
        return cls(
            dictionary=torch.zeros_like(dictionary),
            bias=torch.zeros_like(bias),
            losses=bias.new_empty(n_samples),
            counts=torch.zeros_like(bias),
            energy=torch.zeros_like(bias),
            n_samples=n_samples,
            **{
                name: None if part is None else torch.zeros_like(part)
                for name, part in zip(OTHERS, parameters[2:], strict=True)
            },
            near=None if parameters.threshold is None else torch.zeros_like(bias),
        )

    def add_(self, where: slice, part: StepSums) -> None:
        """Add the sums over the samples `where`."""
        for name in ("dictionary", "bias", "counts", "energy", *OTHERS, "near"):
            whole, more = getattr(self, name), getattr(part, name)
            if whole is not None and more is not None:
                whole.add_(more)
        self.losses[where] = part.losses

    # What a rule asks for: see shoal.network.objective.

    def gradient(self, dictionary: Tensor) -> Tensor:
        """The gradient (m, n) of the mean loss."""
        return self.dictionary / self.n_samples

    def across(self, dictionary: Tensor) -> Tensor:
        """The same."""
        return self.dictionary / self.n_samples

    def slopes(self) -> tuple[Tensor | None, ...]:
        """The gradients by bias, encoder, threshold and offset; None of what isn't there."""
        parts = (self.bias, self.encoder, self.threshold, self.offset)
        return tuple(None if part is None else part / self.n_samples for part in parts)

    def pull_(
        self, velocity: Tensor, dictionary: Tensor, keep: float, rate: float, decay: float
    ) -> None:
        """velocity <- keep velocity - rate (gradient + decay D), in place."""
        velocity.mul_(keep).sub_(self.dictionary, alpha=rate / self.n_samples)
        if decay:
            velocity.sub_(dictionary, alpha=rate * decay)


class _Coded(NamedTuple):
    """Codes, and what they change by, all (B, m)."""

    codes: Tensor
    slope: Tensor  # dx/dz
    by_threshold: Tensor | None = None  # dx/dtheta
    near: Tensor | None = None  # 1 / window near the threshold, else 0


def _activated(parameters: Parameters, data: Tensor, activation: Activation | Pursuit) -> _Coded:
    """Codes and slopes (B, m).

    A pursuit's slope is 0: its codes solve for the data, and the residual has no part along
    the atoms they use, so that the gradient has none that goes through the encoder.
    """
    if not isinstance(activation, Pursuit):
        z = autoencoder.preactivation(parameters, data)
        by_threshold = near = None
        if parameters.threshold is not None and learns_threshold(activation):
            by_threshold = activation.by_threshold(z, parameters.threshold)  # type: ignore[attr-defined]
            counted = getattr(activation, "near", None)
            near = None if counted is None else counted(z, parameters.threshold)
        return _Coded(*autoencoder.activate(parameters, z, activation), by_threshold, near)
    if parameters.offset is not None:
        data = data - parameters.offset
    if learns_threshold(activation):
        found = activation(parameters.dictionary, data, parameters.threshold)  # type: ignore[call-arg]
    else:
        found = activation(parameters.dictionary, data)
    codes = found.dense(len(parameters.bias))
    return _Coded(codes, torch.zeros_like(codes))


def encode(parameters: Parameters, data: Tensor, activation: Activation | Pursuit) -> Tensor:
    """The codes (B, m) of a batch (B, n)."""
    return _activated(parameters, data, activation).codes


def step(parameters: Parameters, data: Tensor, activation: Activation | Pursuit) -> StepSums:
    """Loss, gradient and activity of a batch (B, n), summed over its samples."""
    # In tiles: sums add, so that memory beyond the result doesn't grow with the batch. But not
    # where a row's codes depend on the others.
    if len(data) <= _TILE or not is_rowwise(activation):
        return _step(parameters, data, activation)
    sums = StepSums.zeros(parameters, len(data))
    for start in range(0, len(data), _TILE):
        where = slice(start, start + _TILE)
        sums.add_(where, _step(parameters, data[where], activation))
    return sums


def coded_step(parameters: Parameters, data: Tensor, codes: SparseCodes) -> StepSums:
    """The sums of :func:`step` for codes that are given, and don't depend on the atoms."""
    sums = StepSums.zeros(parameters, len(data))
    for start in range(0, len(data), _TILE):
        where = slice(start, start + _TILE)
        part = SparseCodes(*(each[where] for each in codes)).dense(len(parameters.bias))
        sums.add_(where, _sums(parameters, data[where], _Coded(part, torch.zeros_like(part))))
    return sums


def targeted_step(
    parameters: Parameters, data: Tensor, target: Tensor, codes: SparseCodes
) -> StepSums:
    """The sums of :func:`step` for the `codes` of `data`, where other units rebuild the rest of it.

    `target` (B, n) is what is left to these, an offset taken off. Codes are z itself where they
    aren't 0, as those of a :class:`Gate` are.
    """
    sums = StepSums.zeros(parameters, len(data))
    for start in range(0, len(data), _TILE):
        where = slice(start, start + _TILE)
        part = SparseCodes(*(each[where] for each in codes)).dense(len(parameters.bias))
        coded = _Coded(part, active(part).to(part.dtype))
        sums.add_(where, _sums(parameters, data[where], coded, target[where]))
    return sums


def _step(parameters: Parameters, data: Tensor, activation: Activation | Pursuit) -> StepSums:
    return _sums(parameters, data, _activated(parameters, data, activation))


def prefix_step(
    parameters: Parameters, data: Tensor, activation: Activation, sizes: tuple[int, ...]
) -> StepSums:
    """The sums of the mean of the losses by the first atoms, so many as `sizes` says.

    Losses are those by all atoms, which is the last of the sizes.
    """
    activated = _activated(parameters, data, activation)
    codes, slope = activated.codes, activated.slope
    sums = _sums(parameters, data, activated)
    atoms, starts = parameters.dictionary, (0, *sizes[:-1])
    left, rest = [], data if parameters.offset is None else data - parameters.offset
    for start, end in zip(starts, sizes, strict=True):
        rest = rest - codes[:, start:end] @ atoms[start:end]
        left.append(rest)
    pull, direct, felt = torch.zeros_like(codes), torch.zeros_like(atoms), torch.zeros_like(data)
    for start, end, mine in reversed(list(zip(starts, sizes, left, strict=True))):
        felt = felt + mine / len(sizes)  # by the units from `start` to `end`
        pull[:, start:end] = felt @ atoms[start:end].T
        direct[start:end] = codes[:, start:end].T @ felt
    back = slope * pull
    through = back.T @ data
    tied = parameters.encoder is None
    return sums._replace(
        dictionary=-(direct + through) if tied else -direct,
        bias=-back.sum(dim=0),
        encoder=None if tied else -through,
        offset=None if parameters.offset is None else -felt.sum(dim=0),
    )


def _sums(
    parameters: Parameters, data: Tensor, activated: _Coded, target: Tensor | None = None
) -> StepSums:
    codes, slope, by_threshold, near = activated  # (B, m) each
    if target is None:
        residual = data - autoencoder.reconstruct(parameters, codes)  # (B, n)
    else:
        residual = target - codes @ parameters.dictionary
    pull = residual @ parameters.dictionary.T  # (B, m) <r, D_i>
    back = slope * pull  # (B, m) sigma'(z) <r, D_i>
    through = back.T @ data  # (m, n) what goes through the encoder
    tied = parameters.encoder is None
    threshold = None
    if parameters.threshold is not None:
        moved = torch.zeros_like(pull) if by_threshold is None else pull * by_threshold
        threshold = -moved.sum(dim=0)
    return StepSums(
        # Nguyen et al. 2018, eq. (4)
        dictionary=-(codes.T @ residual + through) if tied else -(codes.T @ residual),
        bias=-back.sum(dim=0),
        losses=0.5 * residual.square().sum(dim=1),
        counts=active(codes).sum(dim=0).to(data.dtype),
        energy=codes.square().sum(dim=0),
        n_samples=data.shape[0],
        encoder=None if tied else -through,
        threshold=threshold,
        offset=None if parameters.offset is None else -residual.sum(dim=0),
        near=None if near is None else near.sum(dim=0),
    )


def sparse_encode(
    parameters: Parameters, data: Tensor, activation: Activation | Pursuit
) -> SparseCodes:
    """The codes of a batch (B, n) without their zeros, units in ascending order."""
    return sparse_codes(encode(parameters, data, activation))


def adam_(
    part: Tensor,
    slope: Tensor,
    memory: tuple[Tensor, Tensor],
    keep: tuple[float, float],
    rate: float,
    correction: float,
    epsilon: float,
    scale: float,
) -> None:
    """One step of Adam in place; `correction` is that of the mean of squares."""
    mean, square = memory
    gradient = slope * scale
    mean.lerp_(gradient, 1 - keep[0])
    square.mul_(keep[1]).addcmul_(gradient, gradient, value=1 - keep[1])
    part.addcdiv_(mean, torch.sqrt(square / correction).add_(epsilon), value=-rate)


def corrected_encode(
    parameters: Parameters, data: Tensor, activation: TopK, n_steps: int, step: float
) -> SparseCodes:
    """The k-largest codes of a batch (B, n), corrected `n_steps` times."""
    weights = parameters.dictionary if parameters.encoder is None else parameters.encoder
    codes = encode(parameters, data, activation)
    for _ in range(n_steps):
        left = data - codes @ parameters.dictionary
        codes = activation(codes + step * (left @ weights.T)).codes
    return sparse_codes(codes)

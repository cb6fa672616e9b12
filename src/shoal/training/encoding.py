"""An encoder of its own for a dictionary that is held, where codes are the k largest.

The tied code x = D y is biased: where atoms interfere, as on all data that no dictionary explains
exactly, it explains less than the mean does. What it needs is other weights and a bias for each
unit, x = gate(E y + b), fitted on the network's own reconstruction:

* where a pursuit explains the data, in closed form: E_i = g_i (D C^-1)_i, with the second moments
  C of the data, takes off the cross-talk that is linear, and g_i is the least-squares gain of unit
  i on the pursuit's support;
* elsewhere by Adam, all of it on active units but one product per step.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shoal.data import Source
from shoal.network.activations import TopK
from shoal.network.adam import adam_
from shoal.network.autoencoder import variance
from shoal.network.codes import SparseCodes
from shoal.network.inference import (
    OrthogonalMatchingPursuit,
    corrected_codes,
    fast_sparse_encode,
)
from shoal.network.objective import StepSums, on_encoder
from shoal.parts import register
from shoal.training.constraints import Constraint, UnitLength, unit_atoms
from shoal.vocabulary import Parameters, Step, check_choice, check_count, check_number

__all__ = ["ENCODERS", "Encoded", "EncoderFit", "encoded", "followed", "trainable"]

ENCODERS = ("auto", "tied", "tied-gain", "untied")
"""The atoms themselves; with a gain and a bias for each unit; weights of its own, and a bias."""

# Arbitrary: rows that are looked at in closed form, and that say how good an encoder is.
_LEAST, _MOST, _JUDGED = 1024, 32_768, 256
# Arbitrary: of features so many that these would fill memory, no more values, but a few rows.
_VALUES, _FEW = 2**25, 64

# Of the rows that the fit has coded, those that the closed form may code: a few hundredths of its
# time. Second moments are taken of so many times as many.
_SHARE, _MORE = 1 / 8, 4

# Of the fit's multiplications, those that second moments of the data may cost; or so many.
_WORK, _LITTLE = 1 / 4, 2**22

# Where the closed form explains so much less than the pursuit, steps are tried as well, on such a
# share of the rows that the fit has coded.
_FAR, _STEPPED = 0.25, 16

# Of the mean square of a feature, added to each: measured, from .003 to .1 makes no difference.
_RIDGE = 0.03

# Rows for each direction of the data, from which on weights of its own are better than gains.
# Measured: on whitened patches, with as many directions as features, they are even at 8; digits
# and activations, with few directions of many features, were never below.
_ROWS_EACH = 8

# Weights of their own are to explain so much of what gains leave. On digits and activations, with 8
# to 32 active units, they do .15 or more; on whitened patches .04 to .07, and on photographs that
# they were not fitted to they explain less. That is asked of trials on so many rows.
_WORTH, _TRIED = 0.1, 60 * 512

# Adam's step, for weights in units of 1/sqrt(n) and a bias in units of the data's deviation; the
# same on digits, patches and activations. Smaller steps need more of them.
_RATE = 0.08
_BATCH, _FEWEST = 2048, 60
# Of corrections, the steps that are tried; 1 where rows are made of the atoms, less elsewhere.
_CORRECTIONS = (1.0, 0.85, 0.7, 0.5, 0.35, 0.2)
# Rows with more than this times the middle row's length would drown all others: they move nothing.
_OUTLYING = 1e3


@register("part")
@dataclass(frozen=True)
class EncoderFit:
    """How an encoder is fitted once the dictionary has been learned, which it leaves as it is.

    Parameters
    ----------
    weights : {"auto", "tied", "tied-gain", "untied"}
        The atoms themselves, x = gate(D y); with a gain and a bias for each unit; weights of its
        own and a bias. "auto" is the last one, but for few rows.
    passes : int
        Over the data, where it is trained by steps.
    n_steps : int
        Such steps at most.
    n_unrolled : int
        Corrections of the codes by what they leave unexplained, with the same weights:
        :func:`shoal.network.inference.corrected_codes`. Where they don't help there are none.
    step : float
        Of a correction; found with the weights.
    joint : bool
        Whether the steps move the atoms as well, end to end: a k-sparse autoencoder that begins
        as the dictionary that was found.
    """

    weights: str = "auto"
    passes: int = 15
    n_steps: int = 240
    n_unrolled: int = 0
    step: float = 1.0
    joint: bool = False

    def __post_init__(self) -> None:
        check_choice("weights", self.weights, ENCODERS)
        check_count("passes", self.passes)
        check_count("n_steps", self.n_steps)
        check_choice("joint", self.joint, (False, True))
        check_count("n_unrolled", self.n_unrolled, low=0)
        check_number("step", self.step, low=0.0, open_low=True)


class Encoded(NamedTuple):
    """An encoder for a dictionary."""

    parameters: Parameters
    kind: str  # what "auto" came to
    explained: float  # of some rows, by the encoder's codes
    pursued: float  # of the same, by a pursuit with as many atoms
    judged: int  # rows
    n_unrolled: int = 0  # corrections of its codes
    step: float = 1.0  # of each

    def settled(self, settings: EncoderFit) -> EncoderFit:
        """The settings with what was found."""
        return replace(settings, weights=self.kind, n_unrolled=self.n_unrolled, step=self.step)


def trainable(activation: object) -> bool:
    """Whether an encoder can be fitted for this activation: the k largest."""
    return type(activation) is TopK  # a subclass may do anything


class _Judge:
    """Rows on which encoders are compared with each other and with a pursuit."""

    def __init__(self, data: Tensor, activation: TopK) -> None:
        self._data, self._activation = data, activation
        self._square = float((data - data.mean(dim=0)).double().square().sum())
        whole = float(data.double().square().sum())
        if self._square < 1e-6 * whole:  # rows that are all the same but for rounding
            self._square = whole

    def explained(self, parameters: Parameters, codes: SparseCodes | None = None) -> float:
        """The share of the square about the mean that the codes explain, the encoder's own."""
        if codes is None:
            codes = fast_sparse_encode(parameters, self._data, self._activation)
        left = self._data - codes.reconstruct(parameters.dictionary)
        rest = float(left.double().square().sum())
        return 1 - rest / self._square if self._square > 0 else float(rest == 0)

    def better(self, best: Encoded, found: Parameters, kind: str, *, auto: bool) -> Encoded:
        """Of the best one up to now and another the one that explains more.

        Where a kind was asked for, rather than "auto", the first of it is better than tied weights.
        """
        score = self.explained(found)
        first = not auto and best.kind == "tied"
        if not math.isfinite(score) or not (first or score > best.explained):
            return best
        return best._replace(parameters=found, kind=kind, explained=score)

    def corrected(self, best: Encoded, parameters: Parameters, n_unrolled: int) -> Encoded:
        """`best`, whose weights here are `parameters`, with so many corrections if they help."""
        found = best
        for step in _CORRECTIONS if n_unrolled else ():
            codes = corrected_codes(parameters, self._data, self._activation, n_unrolled, step)
            score = self.explained(parameters, codes)
            if score > found.explained:
                found = best._replace(explained=score, n_unrolled=n_unrolled, step=step)
        return found


def encoded(
    parameters: Parameters,
    source: Source,
    activation: TopK,
    settings: EncoderFit,
    rng: np.random.Generator,
    *,
    rows_coded: int,
    explained: bool,
    constraint: Constraint = UnitLength(),
) -> Generator[Step, None, Encoded]:
    """The parameters with an encoder for their dictionary, step by step where there are steps.

    Parameters
    ----------
    parameters : Parameters
        Tied; they stay as they are.
    source : Source
        Data of n features that can be read again.
    activation : TopK
    settings : EncoderFit
    rng : numpy.random.Generator
        The only randomness.
    rows_coded : int
        What the fit of the dictionary has coded; the closed form costs a small share of it.
    explained : bool
        Whether a pursuit explains the data: then there are no steps, unless atoms are to move.
    constraint : Constraint
        What keeps atoms in their set, where they move.
    """
    dictionary = parameters.dictionary
    m, n = dictionary.shape
    room = max(_FEW, _VALUES // n)
    wanted = min(int(max(_SHARE * rows_coded, _LEAST)) if explained else _LEAST, _MOST, room)
    rows = source.draw(min(_MORE * wanted, room) if explained else wanted, rng, strict=False)
    exponent = _exponent(rows)
    narrow = parameters.map(Tensor.float)
    data = _rows(rows, exponent, narrow)
    pursuit = OrthogonalMatchingPursuit(activation.k, activation.signed)
    coded = data[:wanted]
    codes = fast_sparse_encode(narrow, coded, pursuit)
    judged = len(coded)  # all, where they are few or others are trained on
    if explained and judged >= _JUDGED:
        judged = min(_JUDGED, judged // 4)
    fitted = judged if judged < len(coded) else 0  # on the rows from here on
    judge = _Judge(data[:judged], activation)
    pursued = judge.explained(narrow, SparseCodes(*(part[:judged] for part in codes)))
    tied = Encoded(parameters, "tied", judge.explained(narrow), pursued, judged)
    if settings.weights == "tied" or not np.isfinite(pursued):
        return judge.corrected(tied, narrow, settings.n_unrolled)
    auto, best = settings.weights == "auto", tied
    if explained:
        rest = SparseCodes(*(part[fitted:] for part in codes))
        kinds = ["untied", "tied-gain"] if auto else [settings.weights]
        dear = n * (n + len(data)) > max(_WORK * rows_coded * m, _LITTLE)
        for kind in kinds:
            if best is not tied or (dear and kind == "untied"):
                continue  # gains alone are hardly ever better
            best = judge.better(best, _closed(narrow, data[fitted:], rest, kind), kind, auto=auto)
    missing = best is tied and not auto
    if not explained or settings.joint or missing or pursued - best.explained > _FAR:
        start = best.parameters
        if best is tied:
            start = narrow._replace(encoder=_scaled(narrow, data, activation))
        kind = settings.weights
        if auto:
            kind = _worth_it(start, source, activation, exponent, judge, data)
        most = max(rows_coded // _STEPPED, _FEWEST * 256) if explained else None
        mean = data.mean(dim=0)
        trainer = Trainer(start, kind, mean, constraint if settings.joint else None)
        batches = _batches(source, exponent, narrow, rng, settings, most)
        yield from _stepped(trainer, activation, batches, parameters, exponent)
        if settings.joint:  # it was asked for, whatever it comes to
            codes = fast_sparse_encode(trainer.parameters, data[:judged], pursuit)
            pursued = judge.explained(trainer.parameters, codes)
            best = tied._replace(kind="tied", explained=-math.inf, pursued=pursued)
        best = judge.better(best, trainer.parameters, kind, auto=auto)
    if best.kind == "tied":
        return judge.corrected(tied, narrow, settings.n_unrolled)
    best = judge.corrected(best, best.parameters, settings.n_unrolled)
    return best._replace(parameters=_restored(best.parameters, parameters, exponent))


def _restored(found: Parameters, like: Parameters, exponent: int) -> Parameters:
    """The encoder that was `found`, in unit and precision of the dictionary `like`."""
    assert found.encoder is not None
    dictionary = like.dictionary
    if not torch.equal(found.dictionary, dictionary.to(found.dictionary)):  # atoms have moved
        dictionary = unit_atoms(found.dictionary.to(dictionary))
    bias = torch.ldexp(found.bias.double(), torch.tensor(-exponent))
    return like._replace(
        dictionary=dictionary, encoder=found.encoder.to(dictionary), bias=bias.to(like.bias)
    )


def _exponent(rows: np.ndarray) -> int:
    """The power of 2 that brings the middle row to a mean square entry of about 1."""
    squares = np.square(rows[:_JUDGED], dtype=np.float64).mean(axis=1)
    squares = squares[squares > 0]
    return 0 if len(squares) == 0 else -round(math.log2(float(np.median(squares))) / 2)


def _rows(rows: np.ndarray, exponent: int, like: Parameters) -> Tensor:
    """Rows (B, n) in that unit, without those that drown all others."""
    data = torch.from_numpy(np.ldexp(rows, exponent)).to(like.bias)
    outlying = ~(torch.linalg.vector_norm(data, dim=1) <= _OUTLYING * data.shape[1] ** 0.5)
    if bool(outlying.any()):
        data[outlying] = 0.0
    return data


def _directions(data: Tensor) -> float:
    """How many directions rows (B, n) vary in: (tr C)^2 / tr(C^2), C their second moments."""
    count = len(data)
    if count < 2:
        return float(data.shape[1])
    products = (data @ data.T).double()
    squares = products.diagonal()
    # Without those of a row with itself, which few rows have too many of.
    both = float(products.square().sum() - squares.square().sum()) / (count * (count - 1))
    return float(squares.mean() ** 2) / both if both > 0 else float(data.shape[1])


# --------------------------------------------------------------------------- in closed form


def _closed(parameters: Parameters, data: Tensor, codes: SparseCodes, kind: str) -> Parameters:
    """Weights with each unit's least-squares gain on the support of `codes`, of the first rows."""
    dictionary = parameters.dictionary
    weights = dictionary
    if kind == "untied":
        moments = data.T @ data / max(1, len(data))
        level = moments.diagonal().mean().clamp_min(torch.finfo(data.dtype).tiny)
        moments.diagonal().add_(_RIDGE * level)
        weights = torch.linalg.solve(moments / level, dictionary.T).T.contiguous()
    wanted = codes.values
    scores = (data[: len(wanted)] @ weights.T).gather(1, codes.indices)
    scores = torch.where(wanted != 0, scores, 0.0)
    square, both = torch.zeros_like(parameters.bias), torch.zeros_like(parameters.bias)
    units = codes.indices.flatten()
    square.index_add_(0, units, scores.square().flatten())
    both.index_add_(0, units, (scores * wanted).flatten())
    gain = both / square.clamp_min(torch.finfo(data.dtype).tiny)
    known = (square > 0) & (gain > 0)
    usual = gain[known].median() if bool(known.any()) else gain.new_tensor(1.0)
    gain = torch.where(known, gain, usual)
    return parameters._replace(encoder=gain[:, None] * weights)


# --------------------------------------------------------------------------- by steps


def _scaled(parameters: Parameters, data: Tensor, activation: TopK) -> Tensor:
    """The atoms times the one gain under which their codes explain most."""
    dictionary = parameters.dictionary
    rebuilt = fast_sparse_encode(parameters, data, activation).reconstruct(dictionary)
    square = float(rebuilt.double().square().sum())
    gain = float((rebuilt * data).double().sum()) / square if square > 0 else 1.0
    return min(max(gain, 0.1), 1.0) * dictionary  # arbitrary bounds: gates need some scale


def _batches(
    source: Source,
    exponent: int,
    like: Parameters,
    rng: np.random.Generator,
    settings: EncoderFit,
    most: int | None,
) -> Iterator[tuple[Tensor, int, int]]:
    """Batches (B, n), each with its number, from 0, and how many there are.

    They have `most` rows in all, if that is a number.
    """
    count = source.n_samples or _MOST
    size = min(_BATCH, 1 << max(8, (count // 8).bit_length() - 1), count)
    size = min(size, max(_FEW, _VALUES // len(like.dictionary[0])))
    n_steps = min(max(-(-settings.passes * count // size), _FEWEST), settings.n_steps)
    if most is not None:
        size = min(size, max(256, most // _FEWEST), count)
        n_steps = min(n_steps, max(1, most // size))
    done = 0
    while True:
        for number, batch in enumerate(source.batches(size, rng=rng)):
            if number and 2 * len(batch) < size:  # few samples make a noisy step
                continue
            yield _rows(batch, exponent, like), done, n_steps
            done += 1
            if done == n_steps:
                return


def _worth_it(
    start: Parameters,
    source: Source,
    activation: TopK,
    exponent: int,
    judge: _Judge,
    data: Tensor,
) -> str:
    """Whether weights of its own are worth their number, or gains do: the kind, by short trials."""
    if (source.n_samples or len(data)) < _ROWS_EACH * _directions(data):
        return "tied-gain"
    most = EncoderFit(passes=_LEAST, n_steps=_FEWEST)
    scores = {}
    for kind in ("tied-gain", "untied"):
        trainer = Trainer(start, kind, data.mean(dim=0))
        rng = np.random.default_rng(0)  # the same rows for both
        for rows, number, n_steps in _batches(source, exponent, start, rng, most, _TRIED):
            trainer.step(rows, activation, number, _rate(number, n_steps))
        scores[kind] = judge.explained(trainer.parameters)
    gained, left = scores["untied"] - scores["tied-gain"], 1 - scores["tied-gain"]
    return "untied" if gained > _WORTH * left else "tied-gain"


def _rate(number: int, n_steps: int) -> float:
    """Adam's step; the last half of them are ever smaller."""
    return _RATE * min(1.0, 2 * (1 - number / n_steps))


def _stepped(
    trainer: Trainer,
    activation: TopK,
    batches: Iterator[tuple[Tensor, int, int]],
    parameters: Parameters,
    exponent: int,
) -> Iterator[Step]:
    """A step for each batch, the last half of them ever smaller."""
    unit = torch.tensor(-2 * exponent)
    for data, number, n_steps in batches:
        rate = _rate(number, n_steps)
        sums = trainer.step(data, activation, number, rate)
        yield Step(
            number=number + 1,
            phase="encoder",
            progress=(number + 1) / n_steps,
            parameters=_restored(trainer.parameters, parameters, exponent),
            loss=torch.ldexp(sums.losses.mean().double(), unit),
            variance=torch.ldexp(variance(data).double(), unit),
            learning_rate=rate,
            activation_fraction=sums.counts.sum() / (sums.n_samples * len(sums.counts)),
            replaced=0,
        )


class Trainer:
    """Adam on an encoder (m, n) and its bias, or on a gain for each unit in place of the former.

    The gradient is that of the reconstruction loss through the active units: of row j
    -sum_i <r_i, D_j> (y_i - mean) over the samples i on which unit j is active: what all rows have
    in common is left to the bias. With a constraint atoms move as well, along the part of their
    gradient that doesn't change their length.
    """

    def __init__(
        self, parameters: Parameters, kind: str, mean: Tensor, constraint: Constraint | None = None
    ) -> None:
        self._constraint, self._mean = constraint, mean
        if constraint is not None:
            parameters = parameters._replace(dictionary=parameters.dictionary.clone())
        encoder = parameters.encoder
        assert encoder is not None
        self._gain, encoder = None, encoder.clone()
        if kind == "tied-gain":
            self._gain = (encoder * parameters.dictionary).sum(dim=1)
            encoder = self._gain[:, None] * parameters.dictionary
        # As of rows without their mean, which the decoder gives back: z = E (y - mean) + b.
        bias = parameters.bias + encoder @ mean
        self._now = parameters._replace(encoder=encoder, bias=bias, offset=-mean)
        moving = encoder if self._gain is None else self._gain
        self._memory = [
            (torch.zeros_like(part), torch.zeros_like(part))
            for part in (moving, parameters.bias, parameters.dictionary)
        ]

    @property
    def parameters(self) -> Parameters:
        """For rows as they are."""
        encoder = self._now.encoder
        assert encoder is not None
        return self._now._replace(bias=self._now.bias - encoder @ self._mean, offset=None)

    def step(self, data: Tensor, activation: TopK, number: int, rate: float) -> StepSums:
        """One step on a batch (B, n); the sums that it was made from."""
        now = self._now
        sums = on_encoder(now, data - self._mean, activation, held=self._constraint is None)
        assert sums.encoder is not None
        assert now.encoder is not None
        scale = 1 / len(data)
        if self._gain is None:
            weights, slope, length = now.encoder, sums.encoder, rate / data.shape[1] ** 0.5
        else:
            slope = (sums.encoder * now.dictionary).sum(dim=1)
            weights, length = self._gain, rate / 2
        adam_(weights, slope, self._memory[0], number, length, scale=scale)
        adam_(now.bias, sums.bias, self._memory[1], number, rate, scale=scale)
        if self._constraint is not None:
            now = self._moved(now, sums, number, rate, self._constraint)
        if self._gain is not None:
            now = now._replace(encoder=self._gain[:, None] * now.dictionary)
        self._now = now
        return sums

    def _moved(
        self, now: Parameters, sums: StepSums, number: int, rate: float, constraint: Constraint
    ) -> Parameters:
        """With atoms one step on."""
        atoms, slope = now.dictionary, sums.dictionary
        if self._gain is not None and sums.encoder is not None:
            slope = slope + self._gain[:, None] * sums.encoder
        slope = slope - (slope * atoms).sum(dim=1, keepdim=True) * atoms
        length = rate / atoms.shape[1] ** 0.5
        adam_(atoms, slope, self._memory[2], number, length, scale=1 / sums.n_samples)
        return now._replace(dictionary=constraint(atoms))


# --------------------------------------------------------------------------- after more data


def followed(before: Parameters, dictionary: Tensor) -> Parameters:
    """The encoder of `before` for atoms that have moved on to `dictionary` (m, n).

    Its rows move as much as their atoms do; of an atom that is another one by now nothing is left
    but the gain.
    """
    encoder, old = before.encoder, before.dictionary
    assert encoder is not None
    gain = (encoder * old).sum(dim=1, keepdim=True)
    near = (dictionary * old).sum(dim=1, keepdim=True) > 0.5
    moved = torch.where(near, encoder - gain * old, 0.0) + gain * dictionary
    return before._replace(dictionary=dictionary, encoder=moved)

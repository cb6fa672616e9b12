"""How many non-zeros: the number k of active units a sample, estimated from data alone.

A dictionary learnt with a k that is too small still has most of the atoms; with one too large
it has not. And on most of the atoms the right k stands out: each further atom of a pursuit
explains a larger share of what was left, up to the last one that is there, and then hardly
more than chance. So the search learns with few active units first, and with more until an
elbow is seen at the very number that was learnt with.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from shoal.data import Source
from shoal.network.inference import (
    OrthogonalMatchingPursuit,
    SubspacePursuit,
    fast_sparse_encode,
)
from shoal.network.objective import StepSums
from shoal.network.penalties import Terms
from shoal.training.descent import Plan, begin, descend
from shoal.training.recipes.from_data import default
from shoal.training.refinement import uneven
from shoal.training.state import Place, Searched, State, bits_of, generator_at
from shoal.vocabulary import Parameters

__all__ = [
    "VARYING",
    "begin_search",
    "by_gain",
    "curve",
    "elbow",
    "find_sparsity",
    "stands_out",
    "unexplained",
    "varies",
]

_ROWS = 1000  # that are looked at
_EXACT = 1e-6  # a share of the square that is rounding after a short descent in float32
# An elbow: the last atom explains more than so many times what the best of m random atoms would,
# and from it to the next the share of what was left falls by such a factor, and that times the
# usual one. Where there are several it is where the share falls most.
_CHANCE, _FALL = 1.5, 1.6
# Steps of a trial, and for each active unit. Measured: with k = 12 of 128 it takes 300.
_STEPS, _STEPS_EACH = 50, 30
_NOISY = 1e-2  # a share of the square that is more than rounding and atoms not quite there
_MOST = 32  # active units that are tried where no elbow is seen

VARYING = 0
"""In the place of a number of active units: each row takes as many as it needs."""


def _left_by(dictionary: Tensor, data: Tensor, k: int, *, signed: bool) -> Tensor:
    """The squares (B,) that `k` atoms leave of the rows of `data`, by subspace pursuit."""
    parameters = Parameters(dictionary, torch.zeros_like(dictionary[:, 0]))
    codes = fast_sparse_encode(parameters, data, SubspacePursuit(k, signed))
    return (data - codes.reconstruct(dictionary)).square().sum(dim=1)


def _median_share(left: Tensor, squares: Tensor) -> float:
    some = squares > 0
    return float((left[some] / squares[some]).median()) if some.any() else 0.0


def unexplained(dictionary: Tensor, data: Tensor, k: int, *, signed: bool) -> float:
    """The median share of a row's square that `k` atoms leave, by subspace pursuit."""
    left = _left_by(dictionary, data, k, signed=signed)
    return _median_share(left, data.square().sum(dim=1))


def varies(left: Tensor, k: int, squares: Tensor, *, elbow: bool = True) -> bool:
    """Whether rows have different numbers of active units.

    Parameters
    ----------
    left : Tensor of shape (J, B)
        Squares that 1, 2, ..., J >= k atoms leave of each row.
    k : int
        Where the elbow is, or the last number that was tried.
    squares : Tensor of shape (B,)
        Those of the rows.
    elbow : bool
        Whether there is one at `k`.

    Returns
    -------
    bool
        A row has as many as bring it to twice what `k` leave of the median row. True where a
        quarter of the rows have fewer and a quarter more than `k`, or half of them have half of
        it at most; where much is left, also if the upper quarter of the rows have twice as much
        left as the lower; without an elbow, where the middle half differ by half of `k`.
    """
    last = left[k - 1].double()
    low, high = (float(torch.quantile(last, q)) for q in (0.25, 0.75))
    # What noise leaves is much the same in all rows.
    if elbow and high > 2 * low and last.median() > _NOISY * squares.median():
        return True
    floor = (2 * left[k - 1].median()).maximum(_EXACT * squares.median())
    there = left <= floor
    counts = torch.where(there.any(dim=0), there.to(torch.uint8).argmax(dim=0) + 1, len(left) + 1)
    low, middle, high = (float(torch.quantile(counts.double(), q)) for q in (0.25, 0.5, 0.75))
    if not elbow:
        return high - low > k / 2
    if k == 1:
        return high > 1
    return low < k < high or middle <= k / 2


def elbow(left: Sequence[float], n_components: int, n_features: int) -> int | None:
    """The number of atoms after which a further one explains little, or None.

    Parameters
    ----------
    left : sequence of float
        Shares that 0, 1, 2, ... atoms leave unexplained; the first is 1.
    n_components, n_features : int
        Of the dictionary, for what chance explains: the best of m random directions takes some
        2 log(m) / n of a square.

    Examples
    --------
    >>> elbow([1.0, 0.6, 0.3, 0.02, 0.018, 0.016], 128, 64)
    3
    >>> elbow([1.0, 0.8, 0.64, 0.51, 0.41], 128, 64) is None
    True
    """
    shares = []  # of what was left, that one atom more explains
    for before, after in pairwise(left):
        shares.append(1 - after / before)
        if after < _EXACT:
            return len(shares)
    if len(shares) < 2:
        return None
    now, following = np.array(shares[:-1]), np.array(shares[1:])
    falls = now / following.clip(1e-9)
    chance = 2 * np.log(n_components) / n_features
    possible = (now > _CHANCE * chance) & (falls >= _FALL * max(1.0, float(np.median(falls))))
    if not possible.any():
        return None
    return 1 + int(np.where(possible, now - following, -np.inf).argmax())


# Arbitrary: numbers of active units that a curve is drawn for. Twice as many are worth it where
# they explain so much of the square more, or such a share of what is left.
_CURVE, _WORTH, _OF_THE_REST = (1, 2, 4, 8, 16, 32, 64), 0.03, 0.15
_NEXT_TO_NOTHING = 0.005


def curve(dictionary: Tensor, data: Tensor, *, signed: bool) -> dict[int, float]:
    """The share of the square of `data` (B, n) that 1, 2, 4, ..., 64 of the atoms explain.

    By orthogonal matching pursuit, and no more of them than half the features or the atoms.

    Examples
    --------
    >>> found = curve(torch.eye(4), torch.tensor([[3.0, 1.0, 0.0, 0.0]]), signed=True)
    >>> {k: round(share, 3) for k, share in found.items()}
    {1: 0.9, 2: 1.0}
    """
    parameters = Parameters(dictionary, torch.zeros_like(dictionary[:, 0]))
    square = float(data.double().square().sum())
    shares: dict[int, float] = {}
    for k in _CURVE:
        if shares and 2 * k > min(dictionary.shape):
            break
        codes = fast_sparse_encode(parameters, data, OrthogonalMatchingPursuit(k, signed))
        left = float((data - codes.reconstruct(dictionary)).double().square().sum())
        shares[k] = 1 - left / square if square else 0.0
    return shares


def by_gain(shares: dict[int, float], most: int) -> int:
    """The first number of active units, up to `most`, of which twice as many explain little more.

    >>> by_gain({1: 0.4, 2: 0.5, 4: 0.58, 8: 0.59}, 32), by_gain({1: 0.4, 2: 0.5, 4: 0.58}, 2)
    (4, 2)
    """
    last = 1
    for (k, now), (_, then) in pairwise(shares.items()):
        if k > most:
            break
        last = k
        if then - now < max(_NEXT_TO_NOTHING, min(_WORTH, _OF_THE_REST * (1 - now))):
            return k
    else:
        last = max((k for k in shares if k <= most), default=1)
    return last


def stands_out(dictionary: Tensor, data: Tensor, k: int, *, signed: bool) -> bool:
    """Whether what `k` atoms leave of rows (B, n) is nothing, or the same for all as noise is."""
    left = _left_by(dictionary, data, k, signed=signed)
    return not uneven(left, data, k)


def begin_search(start: Parameters, rng: np.random.Generator) -> State:
    """The state at the start of a search, from the atoms that every trial starts with."""
    # A child leaves `rng` as it is: the fit is the one that the number itself would give.
    child = rng.spawn(1)[0]
    searched = Searched(bits_of(child), bits_of(rng), 1, ())
    return State(start, Place.at(child), searched=searched)


def trial(model: str, m: int, k: int, n_samples: int | None) -> Plan:
    """The short descent that learns with `k` active units."""
    recipe = default(model, m, k, n_samples)
    assert recipe.refinement is not None
    refinement = replace(recipe.refinement, n_steps=_STEPS + _STEPS_EACH * k, wait=None)
    return replace(recipe, refinement=refinement, finish=None, polish=None).plan()


def find_sparsity(
    state: State, start: Parameters, source: Source, model: str
) -> Generator[tuple[State, StepSums | Terms], None, int | None]:
    """Learn with 1, 2, 3, 4, 6, ... active units from `start`, until an elbow is seen.

    Parameters
    ----------
    state : State
        From :func:`begin_search`, or a copy of one that this gave.
    start : Parameters
        The start of each trial, (m, n) and (m,), with unit atoms.
    source : Source
        Rows that can be read many times.
    model : str
        One of `shoal.training.MODELS`.

    Yields
    ------
    State, StepSums
        Of the trials.

    Returns
    -------
    int or None
        k; `VARYING` where rows have different numbers; None where none stands out.
    """
    m, n = start.dictionary.shape
    searched = state.searched
    assert searched is not None
    rng = generator_at(searched.first)
    rows = torch.from_numpy(source.draw(_ROWS, rng, strict=False)).to(start.dictionary)
    squares = rows.square().sum(dim=1)
    most, signed = max(1, min(_MOST, m // 2, n // 4)), model == "sparse"
    k, tried, place = searched.k, searched.tried, Place.at(rng)
    while True:
        plan = trial(model, m, k, source.n_samples)
        if k not in tried:
            tried = (*tried, k)
            state = begin(start, plan, generator_at(place.after))
            state = state._replace(searched=searched._replace(k=k, tried=tried))
        for state, sums in descend(state, source, plan):
            yield state, sums
        learnt, place, left = state.parameters, state.place, [1.0]
        losses: list[Tensor] = []
        while len(left) < min(2 * k + 8, n) and left[-1] >= _EXACT:
            losses.append(_left_by(learnt.dictionary, rows, len(left), signed=signed))
            left.append(_median_share(losses[-1], squares))
        found = elbow(left, m, n)
        if found is not None and found > most:  # so many of m atoms rebuild anything
            found = None
        if found is None and k == most:
            last = min(k, len(losses))
            return VARYING if varies(torch.stack(losses), last, squares, elbow=False) else None
        k = min(k + max(1, k // 2), most) if found is None else found
        if k in tried:
            return VARYING if k <= len(losses) and varies(torch.stack(losses), k, squares) else k

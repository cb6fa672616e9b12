"""The polish: unbiased codes of many samples at once, and the dictionary solved for them.

It alternates

    codes       a pursuit on the dictionary
    dictionary  least squares, D = (X^T X)^-1 X^T Y (method of optimal directions, Engan et
                al. 1999), without the samples whose codes are plainly wrong
    repair      atoms that explain next to nothing split those that stand for two

on few samples first, and on more of them each time that has nothing more to give. It keeps the
best dictionary seen, and never gives back a worse one than it was given, by the mean logarithm of
the samples' losses: of data without noise most samples are explained exactly in the end, and
a mean would see the few only whose codes are wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shoal.network import objective
from shoal.network.autoencoder import variance
from shoal.network.inference import Pursuit, SparseCodes
from shoal.network.objective import StepSums
from shoal.parts import register
from shoal.training.constraints import (
    Constraint,
    NonnegativeUnitLength,
    UnitLength,
    unit_atoms,
)
from shoal.training.ranks import current
from shoal.training.refinement import nearly_all_within
from shoal.training.revival import split
from shoal.training.state import Place, Polished, State, generator_at
from shoal.vocabulary import ArgumentError, Parameters, check_count, check_number

__all__ = ["Draw", "Polish", "begin_polish", "polish"]

# Arbitrary: a sample is left out of the solution where its loss is so many times the median,
# unless that is so with more than this share of the samples of one of its atoms.
_OUTLYING = 8.0
_FAILING = 0.2


@register("part")
@dataclass(frozen=True)
class Polish:
    """How the polish infers codes and when it stops.

    Parameters
    ----------
    pursuit : Pursuit
        What infers the codes.
    max_rounds : int
        Upper bound on the alternations.
    tolerance, patience
        It takes more samples, and with all of them stops, after `patience` rounds in a row that
        lower neither the mean logarithm of the losses by `tolerance` nor that of their mean. A
        split atom is given as many more.
    explained : float
        It also stops where of all samples but a few at most this share of the square is left.
    first_users : int
        Samples that an atom is active in, on average, in the first rounds; they have four
        samples an atom at least.
    max_samples : int
        Rows at most.
    constraint : Constraint
        What keeps atoms in their set: of length 1, or without an entry below 0 as well.

    Examples
    --------
    >>> from shoal.network.inference import OrthogonalMatchingPursuit
    >>> from shoal.training import Polish
    >>> Polish(OrthogonalMatchingPursuit(2), max_rounds=10).max_rounds
    10
    """

    pursuit: Pursuit
    max_rounds: int = 50
    tolerance: float = 0.01
    patience: int = 1
    explained: float = 1e-12
    first_users: int = 24
    max_samples: int = 50_000
    constraint: Constraint = UnitLength()

    def __post_init__(self) -> None:
        if not isinstance(self.pursuit, Pursuit):
            raise ArgumentError("pursuit", repr(self.pursuit), "a pursuit")
        for name in ("max_rounds", "patience", "first_users", "max_samples"):
            check_count(name, getattr(self, name))
        for name in ("tolerance", "explained"):
            check_number(name, getattr(self, name), low=0.0, high=1.0)


def _plainly_wrong(codes: SparseCodes, losses: Tensor, m: int) -> Tensor:
    """Boolean (B,): rows to leave out, since their loss is out of all proportion.

    But not those of an atom of which many users are such rows: there the atom is wrong.
    """
    outlying = losses > _OUTLYING * losses.median()
    if bool(outlying.any()):
        listed = codes.to_csr(m)
        listed.data[:] = 1.0
        wrong = outlying.double().cpu().numpy()
        users, failing = listed.sum(axis=0), wrong @ listed
        kept = torch.from_numpy(listed @ (failing > _FAILING * users).astype(float) > 0)
        outlying &= ~kept.to(outlying.device)
    return outlying


def _solve(
    parameters: Parameters,
    rows: Tensor,
    codes: SparseCodes,
    sums: StepSums,
    *,
    nonnegative: bool = False,
) -> Tensor:
    """Unit atoms of least squares, without the rows whose codes are plainly wrong.

    D + (X^T X)^-1 X^T (Y - X D) is (X^T X)^-1 X^T Y, with less rounding. An atom without a code
    stays as it was. `sums` are those of the rows (B, n) with their codes.
    """
    dictionary = parameters.dictionary
    m = len(dictionary)
    wrong = _plainly_wrong(codes, sums.losses, m)
    if bool(wrong.any()):
        codes = SparseCodes(codes.indices, torch.where(wrong[:, None], 0.0, codes.values))
        sums = objective.on_codes(parameters, rows, codes)
    if dictionary.device.type == "cpu":
        listed = codes.to_csr(m)
        gram = torch.from_numpy((listed.T @ listed).toarray()).double()  # (m, m)
    else:
        dense = codes.dense(m)
        gram = (dense.T @ dense).double()
    if nonnegative:
        return _solve_above_zero(dictionary, gram, sums.dictionary.double())
    energy = gram.diagonal()
    used = energy > 0
    # Arbitrary: far below any real curvature, enough to keep unused atoms solvable.
    ridge = torch.where(used, 1e-10 * energy.mean(), 1.0)
    factor, failed = torch.linalg.cholesky_ex(gram + torch.diag(ridge))
    if int(failed):  # samples that are too few, or explained by one atom in several places
        ridge = ridge + 1e-4 * energy.mean()
        factor = torch.linalg.cholesky(gram + torch.diag(ridge))
    change = torch.cholesky_solve(-sums.dictionary.double(), factor).to(dictionary.dtype)
    return unit_atoms(dictionary + torch.where(used[:, None], change, 0.0), fallback=dictionary)


# Arbitrary: passes over all atoms; each goes on where the last one stopped, as rounds do.
_SWEEPS = 10


def _solve_above_zero(dictionary: Tensor, gram: Tensor, gradient: Tensor) -> Tensor:
    """Unit atoms (m, n) of least squares with no entry below 0, atom by atom.

    Each is the best one for the others as they are, which has a closed form: Mairal et al. 2010,
    Online Learning for Matrix Factorization and Sparse Coding, Algorithm 2. `gram` (m, m) is of
    the codes, `gradient` (m, n) that of the loss.
    """
    atoms, gradient = dictionary.double().clone(), gradient.clone()
    used = torch.nonzero(gram.diagonal() > 0).squeeze(1).tolist()
    for _ in range(_SWEEPS):
        for i in used:
            moved = (atoms[i] - gradient[i] / gram[i, i]).clamp_min_(0.0)
            gradient.addr_(gram[:, i], moved - atoms[i])
            atoms[i] = moved
    return unit_atoms(atoms.to(dictionary.dtype), fallback=dictionary)


Draw = Callable[[int, np.random.Generator], Tensor]
"""From a number, and what draws, to as many random rows of the data (number, n), or all."""


def begin_polish(
    parameters: Parameters, settings: Polish, place: Place, before: State | None = None
) -> State:
    """The state at the start of a polish of `parameters`, whose atoms have length 1.

    Rows are drawn by the generator that stands at ``place.after``; `before` is the state at the
    end of the descent, if there was one.
    """
    m = len(parameters.dictionary)
    asked = m * max(4, -(-settings.first_users // settings.pursuit.k))
    polished = Polished(parameters.dictionary, torch.inf, torch.inf, 0, asked, place.after)
    if before is None:
        return State(parameters, place, polished=polished)
    return before._replace(
        parameters=parameters,
        place=place,
        number=0,
        n_steps=before.number,
        before_polish=before.parameters.dictionary,
        polished=polished,
        finished=False,
    )


def polish(state: State, draw: Draw, settings: Polish) -> Iterator[tuple[State, StepSums]]:
    """Alternate codes and dictionary, round by round.

    Parameters
    ----------
    state : State
        From :func:`begin_polish`, or a copy of one that this gave; it stays as it is.
    draw : callable
        From a number and a generator to as many random rows of the data, (number, n), or to all
        there are; the same generator gives the same rows.
    settings : Polish
        How codes are inferred and when it ends.

    Yields
    ------
    State
        With the best parameters so far.
    StepSums
        Of this round's codes.
    """
    if state.finished or state.polished is None:
        return
    rng = generator_at(state.polished.before)
    rows = draw(state.polished.asked, rng)
    state = state._replace(place=Place.at(rng))
    while not state.finished:
        state, sums, following = _round(state, rows, draw, settings)
        yield state, sums
        rows = following


def _round(
    state: State, rows: Tensor, draw: Draw, settings: Polish
) -> tuple[State, StepSums, Tensor]:
    """One round on `rows`: the state in, the state and the rows of the next round out."""
    at, pursuit, number = state.polished, settings.pursuit, state.number + 1
    assert at is not None
    m = len(at.dictionary)
    now = state.parameters._replace(dictionary=at.dictionary)
    codes = current().codes(now, rows, pursuit)
    sums = objective.on_codes(now, rows, codes)
    sums = sums._replace(variance=variance(rows))
    losses, energy = sums.losses, rows.square().sum(dim=1)
    # Arbitrary: ten times the rounding of a row.
    least = 100 * torch.finfo(rows.dtype).eps ** 2 * energy + torch.finfo(rows.dtype).tiny
    value = float((losses + least).log().double().mean())
    # Where a split atom is on its way, the mean falls long before most samples gain by it.
    mean = float((losses + least).double().mean().log())
    gain = max(at.lowest - value, at.lowest_mean - mean)
    stalled = 0 if gain > settings.tolerance else at.stalled + 1
    exact = nearly_all_within(losses, settings.explained * energy + least, pursuit.k, m)
    best, lowest = (now, value) if value < at.lowest or exact else (state.parameters, at.lowest)
    at = at._replace(lowest=lowest, lowest_mean=min(mean, at.lowest_mean), stalled=stalled)
    replaced, last = 0, exact or number == settings.max_rounds
    if not last and stalled >= settings.patience:
        rng, asked = generator_at(state.place.after), 4 * len(rows)
        following = draw(asked, rng)
        last, rows = len(following) <= len(rows), following
        at = Polished(best.dictionary, torch.inf, torch.inf, 0, asked, state.place.after)
        state = state._replace(place=Place.at(rng))
    elif not last:
        constraint = settings.constraint
        nonnegative = isinstance(constraint, NonnegativeUnitLength)
        solved = _solve(now, rows, codes, sums, nonnegative=nonnegative)
        dictionary, replaced = split(solved, rows, codes, losses, sums.energy)
        if replaced and not isinstance(constraint, UnitLength):
            dictionary = constraint(dictionary, solved)
        at = at._replace(dictionary=dictionary, stalled=-settings.patience if replaced else stalled)
    state = state._replace(
        parameters=best, number=number, replaced=replaced, polished=at, finished=last
    )
    return state, sums, rows

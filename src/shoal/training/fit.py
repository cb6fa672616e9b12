"""A fit: start -> search -> descend -> polish -> prune, as pure functions on a source and a state.

    problem, state = prepare(source, ...)            what stays, and all that moves
    for state, sums in run(problem, state): ...      may be left after any step,
    for state, sums in run(problem, copied): ...     and gone on with, to the same bits
    parameters = pruned(state.parameters)

Estimators validate, call these and keep the result; so do the papers' experiments.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoal.data import Source, open_source
from shoal.network import autoencoder
from shoal.network.activations import Activation, is_rowwise
from shoal.network.inference import Pursuit, ThresholdPursuit
from shoal.network.objective import StepSums, Terms
from shoal.training import giving_up, units
from shoal.training.autoencoding import AutoencoderAdam, about_mean
from shoal.training.constraints import NonnegativeUnitLength
from shoal.training.descent import Plan, begin, descend
from shoal.training.encoders import fitted_encoder
from shoal.training.encoding import Encoded, encoded, trainable
from shoal.training.initialization import initialize, rows_wanted
from shoal.training.polish import begin_polish, polish
from shoal.training.recipes import Recipe
from shoal.training.revival import Activity
from shoal.training.second_look import as_looked_at, differs, filled_with, strange
from shoal.training.sparsity import (
    VARYING,
    begin_search,
    by_gain,
    curve,
    find_sparsity,
    stands_out,
    trial,
)
from shoal.training.state import First, Looked, State, generator_at
from shoal.vocabulary import Parameters, Step

__all__ = [
    "Fitted",
    "Problem",
    "closed",
    "encoding",
    "narrowed",
    "outcome",
    "prepare",
    "pruned",
    "run",
    "step_of",
    "steps",
    "tenth",
    "told",
]

# Rows of a stream that the search for a number of non-zeros keeps, to read them many times.
SEARCHED = 50_000

# Arbitrary: rows by which what more active units explain is said.
_CURVE_ROWS = 1_000
# Arbitrary: active units that are chosen where no number stands out.
_MOST = 32

# Arbitrary: the memory of the rows that a polish is made on, where they are sparse at home.
_POLISHED_BYTES = 48 * 2**20

# Arbitrary: batches of so many rows, and so many of them, that a threshold is the mean over.
_RESTED, _MOST_BATCHES = 256, 64


# Arbitrary: steps at most of a refinement once rows are left out; most take less than 100.
_AGAIN = 2_000


def tenth(m: int) -> int:
    """The number of active units of m where none is given."""
    return max(1, round(m / 10))


def rested(parameters: Parameters, source: Source, activation: Activation) -> Parameters:
    """With the thresholds that stand for a batch-wise activation once training is over.

    The mean over batches of the least code that was kept: Bussmann et al. 2024. For one whose
    codes of a row depend on that row alone, the parameters as they are.
    """
    if is_rowwise(activation):
        return parameters
    least = []
    for batch in islice(source.batches(_RESTED), _MOST_BATCHES):
        data = torch.from_numpy(batch).to(parameters.bias)
        codes = autoencoder.encode(parameters, data, activation)
        if bool(codes.any()):
            least.append(codes[codes > 0].min())
    level = torch.stack(least).mean() if least else parameters.bias.new_zeros(())
    # What is kept lies above its threshold.
    return parameters._replace(threshold=torch.full_like(parameters.bias, float(level)))


def closed(
    parameters: Parameters, source: Source, recipe: Recipe, k: int
) -> tuple[Parameters, Recipe, int]:
    """What stands for the network once training is over: thresholds at rest, a fitted encoder.

    Where rows take as many active units as they need, `k` becomes their mean.
    """
    if not isinstance(recipe.pursuit, ThresholdPursuit):
        return rested(parameters, source, recipe.activation), recipe, k
    tied = recipe.encoder is not None and recipe.encoder.weights != "untied"
    parameters, pursuit, active = fitted_encoder(parameters, source, recipe.pursuit, tied=tied)
    return parameters, replace(recipe, pursuit=pursuit), k or max(1, round(active))


def encoding(
    problem: Problem, state: State, found: Fitted, parameters: Parameters, source: Source
) -> Generator[Step, None, Encoded | None]:
    """The steps by which the recipe's encoder is fitted to the dictionary that was `found`.

    Parameters
    ----------
    problem, state, found
        Of the fit, at its end.
    parameters : Parameters
        What it came to, in the unit of the problem.
    source : Source
        That can be read again.
    """
    recipe = problem.recipe(state)
    fixed = recipe.untied or recipe.offset or recipe.bias is not None
    if recipe.encoder is None or recipe.pursuit is not None or fixed:
        return None
    if not trainable(recipe.activation):
        return None
    coded = found.n_steps * (recipe.batch_size or source.n_samples or 1)
    if state.polished is not None:
        coded += state.number * state.polished.asked
    done = yield from encoded(
        parameters,
        source,
        recipe.activation,  # type: ignore[arg-type]  # the k largest
        recipe.encoder,
        generator_at(state.place.after),
        rows_coded=coded,
        explained=not _is_finishing(state, recipe),
        constraint=recipe.constraint,
    )
    return done


def pruned(parameters: Parameters) -> Parameters:
    """Without the atoms that training gave up."""
    kept = parameters.dictionary.any(dim=1)
    return parameters.units(kept) if kept.any() else parameters


def narrowed(parameters: Parameters, sample: NDArray[Any]) -> Parameters:
    """In float32, unless `sample` has values whose squares leave its range.

    Until the polish more digits than float32 has would say nothing.
    """
    if np.abs(sample).max() >= 1e15:
        return parameters
    return parameters.map(Tensor.float)


@dataclass(frozen=True)
class Problem:
    """What does not move in a fit.

    Parameters
    ----------
    source : Source
        Preprocessed data.
    kept : Source
        Rows of it that can be read again, for the search and the polish.
    start : Parameters
        Where the atoms start, (m, n) and (m,), in the data's own precision.
    narrow : Parameters
        The same in the precision of search and descent.
    recipe_of : callable
        From the number k of active units to the recipe.
    model : str
        One of `shoal.training.MODELS`.
    init : str or ndarray of shape (m, n)
        Where atoms start.
    exponent : int
        The unit that `source` and `kept` are in: 2^-exponent of the data's own.
    offset : float
        The share of the square of the data that their mean has: what all rows have in common.
    warm : bool
        Whether the start is one that was asked for, atom by atom.
    unfilled : Source or None
        `source` with NaN where entries are missing, which in `source` and `kept` are filled.
    """

    source: Source
    kept: Source
    start: Parameters
    narrow: Parameters
    recipe_of: Callable[[int], Recipe]
    model: str
    init: str | NDArray[Any] = "data"
    exponent: int = 0
    offset: float = 0.0
    warm: bool = False
    unfilled: Source | None = None
    _plans: dict[tuple[Any, ...], Plan] = field(default_factory=dict, repr=False)

    def plan(self, state: State) -> Plan:
        """The plan of the descent that `state` is in: of a trial, while it is searching."""
        searching = state.k is None and state.searched is not None
        left_out = state.looked is not None and state.looked.share < 1.0
        k = state.searched.k if searching and state.searched is not None else state.k
        assert k is not None
        again = state.first is not None
        if (searching, again, left_out, k) not in self._plans:
            m = len(self.start.dictionary)
            made = (
                trial(self.model, m, k, self.kept.n_samples)
                if searching
                else self.recipe(state).plan()
            )
            self._plans[searching, again, left_out, k] = made
        return self._plans[searching, again, left_out, k]

    def recipe(self, state: State) -> Recipe:
        """What `state` is trained by: once it is made again, no atom is replaced or given up."""
        assert state.k is not None
        found = self.recipe_of(state.k)
        if state.looked is not None and state.looked.share < 1.0 and found.refinement is not None:
            # Most rows are explained, and what is left is not for ever in vain.
            refinement = replace(found.refinement, wait=None, n_steps=_AGAIN)
            found = replace(found, refinement=refinement, finish=None)
        return found if state.first is None else replace(found, revival=None)

    def step(self, state: State, sums: StepSums | Terms) -> Step:
        """The record of the step that led to `state`, in the unit of the data."""
        return units.told_in(self._step(state, sums), self.exponent)

    def _step(self, state: State, sums: StepSums | Terms) -> Step:
        if state.polished is None:
            step = step_of(self.plan(state), state, sums)
            return step if state.k is not None else step._replace(phase="search")
        polish = self.recipe(state).polish
        assert polish is not None
        progress = 1.0 if state.finished else state.number / polish.max_rounds
        return _record(state, sums, "polish", progress, None)

    def as_seen(self, state: State) -> Problem:
        """The problem with rows as `state` sees them: see :mod:`shoal.training.second_look`."""
        looked = state.looked
        if looked is None:
            return self
        pursuit = _coder(self.recipe(state))
        assert isinstance(pursuit, Pursuit)
        if self.unfilled is not None:
            seen = as_looked_at(self.unfilled, looked, pursuit)
            return replace(self, source=seen, kept=seen)
        source, kept = (as_looked_at(each, looked, pursuit) for each in (self.source, self.kept))
        return replace(self, source=source, kept=kept)

    def draw(self, n: int, rng: np.random.Generator, *, most: int) -> Tensor:
        """At most `n` random rows to polish on, and at most `most`."""
        rows = self.kept.draw(min(n, most), rng, strict=False)
        return torch.from_numpy(rows).to(self.start.bias.device)


def drawn(
    source: Source, init: str | NDArray[Any], m: int, again: int, rng: np.random.Generator
) -> tuple[NDArray[Any], Source]:
    """Rows to start from, and a source of at least `again` rows that can be read again.

    Of a stream no more rows are read ahead, and kept, than these.
    """
    rows = rows_wanted(init, m)
    if source.n_samples is not None:
        return source.draw(rows, rng, strict=False), source
    sample = source.draw(max(rows, again), rng, strict=False)
    return sample, open_source(sample)


def prepare(
    source: Source,
    init: str | NDArray[Any],
    m: int,
    k: int | None,
    recipe_of: Callable[[int], Recipe],
    model: str,
    rng: np.random.Generator,
    *,
    device: torch.device | str = "cpu",
    usual: NDArray[Any] | None = None,
) -> tuple[Problem, State]:
    """A fit that may begin, and the state that it begins with.

    Parameters
    ----------
    source : Source
        Preprocessed data of n features.
    init : str or ndarray of shape (m, n)
        Where atoms start: see :func:`shoal.training.initialize`.
    m : int
        Atoms.
    k : int or None
        Active units per sample; None for a number to be estimated.
    recipe_of, model
        As for :class:`Problem`.
    rng : numpy.random.Generator
        The only randomness.
    device : torch.device or str
        Where parameters lie.
    usual : ndarray of shape (n,), optional
        What missing entries (NaN) are filled with first. The source is one whose rows are counted.

    Raises
    ------
    ArgumentError
        Where the data leave the range of what can be squared.
    """
    recipe_of = cache(recipe_of)  # recipes may warn, once
    unfilled = None
    if usual is not None:
        unfilled, source = source, filled_with(source, usual)
    settings = recipe_of(k or 1).polish
    again = max(0 if settings is None else settings.max_samples, SEARCHED if k is None else 0)
    sample, kept = drawn(source, init, m, again, rng)
    exponent = units.exponent(sample, recipe_of(k or 1))
    sample = np.ldexp(sample, exponent)
    source, kept = units.changed(source, exponent), units.changed(kept, exponent)
    start = _allowed(started(init, sample, m, device, rng), recipe_of(k or 1))
    narrow = narrowed(start, sample)
    problem = Problem(
        source,
        kept,
        start,
        narrow,
        recipe_of,
        model,
        init,
        exponent,
        _offset_of(sample),
        warm=not isinstance(init, str),
        unfilled=None if unfilled is None else units.changed(unfilled, exponent),
    )
    if k is None:
        return problem, begin_search(narrow, rng)
    return problem, _begun(problem, k, rng)


def _offset_of(sample: NDArray[Any]) -> float:
    """The share of the square of rows (N, n) that their mean has, chance taken off."""
    count, rows = len(sample), sample.astype(np.float64)
    square = float((rows**2).sum()) / count
    if count < 2 or square == 0:
        return 0.0
    found = float((rows.mean(axis=0) ** 2).sum()) / square
    if 1 - found < 1e-9:  # rows that are all the same hide nothing
        return 0.0
    return max(0.0, (found - 1 / count) / (1 - 1 / count))


def started(
    init: str | NDArray[Any],
    sample: NDArray[Any],
    m: int,
    device: torch.device | str,
    rng: np.random.Generator,
) -> Parameters:
    """The parameters at the start, in the precision of `sample` (N, n)."""
    atoms = initialize(init, sample, m, rng).astype(sample.dtype)
    dictionary = torch.from_numpy(np.ascontiguousarray(atoms)).to(device)
    return Parameters(dictionary, torch.zeros(m, dtype=dictionary.dtype, device=device))


def _allowed(parameters: Parameters, recipe: Recipe) -> Parameters:
    """A start in the set that atoms are kept in, where that is smaller than all directions."""
    if not isinstance(recipe.constraint, NonnegativeUnitLength):
        return parameters
    return parameters._replace(dictionary=recipe.constraint(parameters.dictionary))


def _search(
    state: State, start: Parameters, source: Source, model: str
) -> Generator[tuple[State, StepSums | Terms], None, tuple[int, tuple[str, ...]]]:
    """The number of active units, and what there is to say of it."""
    trials = find_sparsity(state, start, source, model)
    while True:
        try:
            state, sums = next(trials)
        except StopIteration as end:
            k = end.value
            break
        yield state, sums
    if k == VARYING:
        return VARYING, ()
    dictionary, signed = state.parameters.dictionary, model == "sparse"
    rows = source.draw(_CURVE_ROWS, generator_at(state.place.after), strict=False)
    data = torch.from_numpy(rows).to(dictionary)
    if k is not None and stands_out(dictionary, data, k, signed=signed):
        return k, ()
    shares = curve(dictionary, data, signed=signed)
    table = ", ".join(f"{count}: {share:.0%}" for count, share in shares.items())
    said = "n_nonzero_coefs='auto': no number of non-zeros stands out in X; "
    if k is None:
        k = tenth(len(dictionary))
        said += f"{k} is used, a tenth of n_components"
    else:
        # The first atom explains most of a row where all rows are alike, and says nothing of how
        # many there are.
        k = by_gain(shares, min(_MOST, max(4, tenth(len(dictionary)))))
        more = k != by_gain(shares, max(shares))
        why = "a tenth of n_components or less" if more else "twice as many explain little more"
        said += f"{k} is used: {why}"
    said += f" (explained by so many of the atoms of a short fit: {table})"
    return k, (said,)


def searched(start: Parameters, source: Source, model: str, rng: np.random.Generator) -> int:
    """The number of active units, by trials from `start` on a source that can be read again."""
    trials = _search(begin_search(start, rng), start, source, model)
    while True:
        try:
            next(trials)
        except StopIteration as end:
            k, said = end.value
            _say(said)
            return int(k)


def _say(texts: tuple[str, ...]) -> None:
    for text in texts:
        warnings.warn(text, stacklevel=3)


def _about_mean(problem: Problem, rng: np.random.Generator) -> Parameters:
    """A start for codes by thresholds with an offset: atoms lead away from the mean.

    Not the offset: non-negative codes have a mean of their own. Thresholds are half of what they
    are where half of the standard deviation is noise: see `IncoherentStep`.
    """
    m = len(problem.start.bias)
    rows = problem.kept.draw(rows_wanted(problem.init, m), rng, strict=False)
    centred = rows - rows.mean(axis=0)
    started_ = started(problem.init, centred, m, problem.start.bias.device, rng)
    threshold = torch.full_like(started_.bias, 4 * float(centred.std()))
    return narrowed(started_._replace(threshold=threshold), rows)


def _autoencoder(problem: Problem, recipe: Recipe, k: int, rng: np.random.Generator) -> Parameters:
    """A start for an autoencoder that is trained end to end, in the precision of the descent."""
    m = len(problem.start.bias)
    rows = problem.kept.draw(rows_wanted(problem.init, m), rng, strict=False)
    centred = rows if problem.warm else rows - rows.mean(axis=0)
    start = _allowed(started(problem.init, centred, m, problem.start.bias.device, rng), recipe)
    return about_mean(narrowed(start, rows), rows, recipe.activation, k)


def _begun(problem: Problem, k: int, rng: np.random.Generator) -> State:
    """The state at the start of the descent, k being known."""
    recipe = problem.recipe_of(k)
    parameters = problem.start if recipe.polish is None else problem.narrow
    if isinstance(recipe.pursuit, ThresholdPursuit):
        parameters = _about_mean(problem, rng)
    if isinstance(recipe.rule, AutoencoderAdam):
        parameters = _autoencoder(problem, recipe, k, rng)
    return begin(parameters, recipe.plan(), rng)._replace(k=k)


def run(problem: Problem, state: State) -> Iterator[tuple[State, StepSums | Terms]]:
    """The steps of a fit, from `state` on to its end.

    Yields
    ------
    State, Sums
        After every step of a trial, of the descent and of the polish.

    Warns
    -----
    UserWarning
        Where the number of active units is to be estimated and none stands out.
    """
    if state.k is None:
        k, said = yield from _search(state, problem.narrow, problem.kept, problem.model)
        assert state.searched is not None
        state = _begun(problem, k, generator_at(state.searched.following))._replace(said=said)
    _say(state.said)
    assert state.k is not None
    for state, sums in _trained(problem.as_seen(state), state):
        yield state, sums
    while (looked := _looked(problem, state)) is not None:
        state = looked
        for state, sums in _trained(problem.as_seen(state), state):
            yield state, sums
    seen = problem.as_seen(state)
    if state.first is None and _loses(seen, state):
        for state, sums in _trained(seen, _again(seen, state)):
            yield state, sums
    _say(told(state))


def _came_to(state: State) -> First:
    n_steps = state.number if state.polished is None else state.n_steps
    return First(state.parameters, state.before_polish, n_steps, state.activity)


def _looked(problem: Problem, state: State) -> State | None:
    """The state at the start of what follows a second look at the rows; None without need."""
    recipe, before = problem.recipe(state), state.looked
    pursuit = _coder(recipe)
    if not isinstance(pursuit, Pursuit) or not state.parameters.tied or state.first is not None:
        return None
    found = (1.0, math.inf, 0.0)
    if recipe.pursuit is None and problem.recipe_of(state.k or 1).finish is not None:
        found = strange(pruned(state.parameters), _looked_at(problem, state), pursuit)
    seen = Looked(state.parameters, *found, 1, _came_to(state))
    if before is not None:
        seen = seen._replace(number=before.number + 1)
    if not differs(seen, before, gaps=problem.unfilled is not None):
        return None
    start = state.parameters
    if recipe.polish is not None:
        start = start.map(lambda part: part.to(problem.narrow.bias.dtype))
    # From the refinement on: the dictionary is near what it is to be.
    number = 0 if recipe.refinement is None else recipe.n_steps
    begun = begin(start, recipe.plan(), generator_at(state.place.after), number=number)
    return begun._replace(looked=seen, k=state.k, said=state.said)


def told(state: State) -> tuple[str, ...]:
    """What there is to say of the rows, at the end of a fit."""
    looked = state.looked
    if looked is None or looked.share == 1.0:
        return ()
    text = (
        f"{looked.strange:.1%} of the rows are nothing like the others: atoms leave more than "
        f"{looked.share:.0%} of their square, or they are far longer; they are left out of the fit"
    )
    return (text,)


def _trained(problem: Problem, state: State) -> Iterator[tuple[State, StepSums | Terms]]:
    """The steps of descent and polish."""
    recipe = problem.recipe(state)
    precision = problem.start.bias.dtype
    if state.polished is None:
        for state, sums in descend(state, problem.source, recipe.plan()):
            ends = _is_finishing(state, recipe) or isinstance(recipe.rule, AutoencoderAdam)
            if state.finished and ends:
                state = state._replace(parameters=state.parameters.map(lambda p: p.to(precision)))
            yield state, sums
    if recipe.polish is None or _is_finishing(state, recipe):
        return
    if state.polished is None:
        wide = state.parameters.map(lambda part: part.to(precision))
        state = begin_polish(wide, recipe.polish, state.place, state)
    # Of long sparse rows, as many as memory lets, if these are some for each atom.
    most = recipe.polish.max_samples
    room = problem.kept.rows_at_once(most, _POLISHED_BYTES)
    most = min(max(room, 10 * len(problem.start.bias)), most)
    yield from polish(state, partial(problem.draw, most=most), recipe.polish)


def _looked_at(problem: Problem, state: State) -> Tensor:
    """Random rows by which fits are compared, in the precision of the parameters."""
    rows = problem.kept.draw(giving_up.ROWS, generator_at(state.place.after), strict=False)
    return torch.from_numpy(rows).to(state.parameters.dictionary)


def _coder(recipe: Recipe) -> Activation | Pursuit:
    for last in (recipe.polish, recipe.refinement):
        if last is not None:
            return last.pursuit
    return recipe.activation if recipe.pursuit is None else recipe.pursuit


def _loses(problem: Problem, state: State) -> bool:
    """Whether atoms were given up, and something may be lost by it."""
    kept = state.parameters.dictionary.any(dim=1)
    if bool(kept.all()) or problem.recipe(state).pursuit is not None:
        return False
    fewer = pruned(state.parameters)
    coder = _coder(problem.recipe(state))
    left = giving_up.left_by(fewer, _looked_at(problem, state), coder)
    return giving_up.stands_out(left, len(fewer.bias))


def _again(problem: Problem, state: State) -> State:
    """The fit anew, with no atom given up: from rows far from one another, or a warm start."""
    first = _came_to(state)
    anew = State(state.parameters, state.place, first=first, k=state.k)
    recipe = problem.recipe(anew)
    start, rng = problem.start, generator_at(state.place.after)
    if not problem.warm:
        m = len(start.bias)
        sample = problem.kept.draw(rows_wanted("residual", m), rng, strict=False)
        start = _allowed(started("residual", sample, m, start.bias.device, rng), recipe)
    if recipe.polish is not None:
        start = start.map(lambda part: part.to(problem.narrow.bias.dtype))
    begun = begin(start, recipe.plan(), rng)
    return begun._replace(first=first, looked=state.looked, k=state.k, said=state.said)


class Fitted(NamedTuple):
    """What a fit comes to."""

    parameters: Parameters  # with atoms of 0 where they are given up
    before_polish: Tensor | None
    n_steps: int
    activity: Activity | None
    cost: float | None  # share of the data's square that giving atoms up cost, where measured


def outcome(problem: Problem, state: State) -> Fitted:
    """What :func:`run` came to at its last `state`; of two fits, or a warm start, the best one."""
    problem = problem.as_seen(state)
    found, recipe = _better(problem, state), problem.recipe(state)
    coder = _coder(recipe)
    # A recipe of a paper ends where the paper's dynamics do.
    if not (problem.warm and isinstance(coder, Pursuit) and found.parameters.tied):
        return found
    rows = _looked_at(problem, state)
    start = problem.start.map(lambda part: part.to(rows))
    began, ended = (
        giving_up.left_by(each, rows, coder) for each in (start, pruned(found.parameters))
    )
    if ended.share <= began.share + giving_up.EXACT:
        return found
    return found._replace(parameters=start, cost=None)


def _better(problem: Problem, state: State) -> Fitted:
    """Of the fit and the one that gave atoms up, the better one."""
    n_steps = state.number if state.polished is None else state.n_steps
    now = Fitted(state.parameters, state.before_polish, n_steps, state.activity, None)
    if state.first is None:
        return now
    rows, coder = _looked_at(problem, state), _coder(problem.recipe(state))
    first = pruned(state.first.parameters)
    one, two = (giving_up.left_by(each, rows, coder) for each in (first, now.parameters))
    if not two.explains_more_than(one, len(now.parameters.bias)):
        return Fitted(*state.first, max(0.0, one.share - two.share))
    parameters, cost = giving_up.without_loss(now.parameters, rows, coder)
    return now._replace(parameters=parameters, cost=cost)


def _is_finishing(state: State, recipe: Recipe) -> bool:
    """Whether a finish is under way or done; what a polish would add is not worth its time."""
    begun = state.begun[2:3]  # after the descent and the refinement
    return recipe.finish is not None and bool(begun) and state.number > begun[0]


def steps(problem: Problem, state: State) -> Iterator[Step]:
    """:func:`run` as records."""
    for state, sums in run(problem, state):
        yield problem.step(state, sums)


def step_of(plan: Plan, state: State, sums: StepSums | Terms) -> Step:
    """The record of the update that led to `state`, by `plan`."""
    number = state.number
    # An update that ended its stage belongs to it still; after it some stages can be left out.
    ended = state.begun.count(number)
    made = state.stage - ended
    stage, since = plan.stages[made], number - state.begun[made]
    progress = 1.0 if ended else since / stage.n_steps
    return _record(state, sums, stage.phase, progress, stage.rule.rate(since - 1))


def _record(
    state: State, sums: StepSums | Terms, phase: str, progress: float, learning_rate: float | None
) -> Step:
    assert isinstance(sums, StepSums)
    assert sums.variance is not None
    return Step(
        number=state.number,
        phase=phase,
        progress=progress,
        parameters=state.parameters,
        loss=sums.losses.mean(),
        variance=sums.variance,
        learning_rate=learning_rate,
        activation_fraction=sums.counts.sum() / (sums.n_samples * len(sums.counts)),
        replaced=state.replaced,
    )

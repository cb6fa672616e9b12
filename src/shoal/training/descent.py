"""The loop: data -> encode -> reconstruct -> gradient -> update, with a state that goes in and out.

Full batch, minibatch and stream, dictionary learning and regularised autoencoders are the same
loop: a source hands out batches, an objective sums over each, a rule moves the parameters. A plan
says which objective and rule, stage by stage. Consumers of the generator measure, save, draw a
progress bar or stop early; the loop knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from shoal.data import Source
from shoal.data.access import ALL
from shoal.data.ahead import read_ahead
from shoal.network import objective
from shoal.network.activations import Activation, TopK, is_rowwise, learns_threshold
from shoal.network.objective import StepSums
from shoal.network.penalties import Penalty, Terms
from shoal.network.prefixes import Prefixes
from shoal.network.pursuit import Pursuit
from shoal.training.adaptation import Adapted, BiasAdaptation
from shoal.training.autoencoding import AutoencoderAdam, renewed
from shoal.training.constraints import (
    Constraint,
    Free,
    MaxNorm,
    Nearness,
    NonnegativeUnitLength,
    UnitLength,
)
from shoal.training.ranks import Batch, current
from shoal.training.refinement import Refinement, Settled
from shoal.training.revival import Activity, Revival, revive
from shoal.training.rules import Adam, FixedStep, Momentum, NormalizedStep, Rule
from shoal.training.schedules import Schedule
from shoal.training.shards import Shard, at_hand, cut, joined, of_all, on_shard
from shoal.training.state import Place, Smoothed, State, generator_at
from shoal.vocabulary import ArgumentError, Parameters

__all__ = ["Plan", "Stage", "begin", "descend", "shares_atoms", "with_all_atoms"]

# What moves each atom by itself, or by what these add up over all: by exact type.
_RULES = (NormalizedStep, FixedStep, Momentum, Adam, AutoencoderAdam)
_CONSTRAINTS = (UnitLength, NonnegativeUnitLength, MaxNorm, Free)


@dataclass(frozen=True)
class Stage:
    """What the steps of one stretch of a descent have in common.

    Parameters
    ----------
    phase : str
        Its name, for the record.
    encoder : Activation or Pursuit
        What codes.
    rule : Rule
        How parameters move.
    n_steps : int
        Updates at most.
    penalty : Penalty or Prefixes, optional
        What the objective has beside the reconstruction loss.
    constraint : Constraint
        What keeps atoms in their set.
    bias : Schedule, BiasAdaptation or None
        What moves the bias, where the rule does not.
    revival : Revival or None
        Replacement of dead and duplicate atoms.
    settling : Refinement or None
        The stage ends once this has settled.
    batch_size : int or None
        Samples per update, where the plan's own number does not suit the stage.
    only_unexplained : bool
        The stage is left out where the one before ended for another reason than that it can't
        explain the data.
    """

    phase: str
    encoder: Activation | Pursuit
    rule: Rule
    n_steps: int
    penalty: Penalty | Prefixes | None = None
    constraint: Constraint = UnitLength()
    bias: Schedule | BiasAdaptation | None = None
    revival: Revival | None = None
    settling: Refinement | None = None
    batch_size: int | None = None
    only_unexplained: bool = False


class Plan(NamedTuple):
    """A descent, stage by stage; values that are known before it begins."""

    stages: tuple[Stage, ...]
    batch_size: int | None  # samples per update; None is the full batch
    short: bool = False  # whether a last batch of less than half the size makes an update
    untied: bool = False  # whether the encoder is not the dictionary
    offset: bool = False  # whether the decoder has an offset
    piecewise: bool = False  # whether data come piece by piece: a batch weighs by its rows

    def begun(self, number: int) -> tuple[int, ...]:
        """The numbers at which stages begin, up to that of the update after `number`."""
        found = [0]
        for stage in self.stages:
            if number < found[-1] + stage.n_steps:
                break
            found.append(found[-1] + stage.n_steps)
        return tuple(found)

    def size(self, stage: int) -> int | None:
        """Samples per update in a stage; after the last one that of the last."""
        own = self.stages[min(stage, len(self.stages) - 1)].batch_size
        return self.batch_size if own is None else own

    def of_one_size(self) -> Plan:
        """The plan with the same number of samples per update from the first to the last."""
        return self._replace(stages=tuple(replace(each, batch_size=None) for each in self.stages))


def begin(
    parameters: Parameters,
    plan: Plan,
    rng: np.random.Generator,
    *,
    number: int = 0,
    activity: Activity | None = None,
    adapted: Adapted | None = None,
    rows: int = 0,
    smoothed: Smoothed | None = None,
    rule: Any = None,
) -> State:
    """The state at the start of a descent from `parameters`, whose atoms have length 1.

    Parameters
    ----------
    parameters : Parameters
        They stay as they are.
    plan : Plan
        Of the descent.
    rng : numpy.random.Generator
        The only randomness: the same state gives the same steps, bit for bit.
    number : int
        Updates that were made before, for schedules and for the stage to begin in.
    activity, adapted, rows, smoothed, rule : optional
        Of a descent that this one goes on from: what a state holds under these names.
    """
    parameters = equipped(parameters, plan)
    noise = None
    if any(stage.penalty is not None for stage in plan.stages):
        generator = torch.Generator(device=parameters.bias.device)
        noise = generator.manual_seed(int(rng.integers(2**62))).get_state()
    near = any(isinstance(stage.constraint, Nearness) for stage in plan.stages)
    state = State(
        parameters,
        Place.at(rng),
        number=number,
        activity=Activity.none(parameters.bias) if activity is None else activity,
        adapted=adapted,
        rows=rows,
        smoothed=smoothed,
        center=parameters.dictionary if near else None,
        noise=noise,
    )
    if plan.piecewise and smoothed is None:
        state = state._replace(smoothed=Smoothed.none(parameters.bias))
    state = _entered(state, plan, plan.begun(number))
    return state if rule is None else state._replace(rule=rule)


def equipped(parameters: Parameters, plan: Plan) -> Parameters:
    """The parameters with all that the plan learns: the start of what isn't there yet."""
    learning = [stage.encoder for stage in plan.stages if learns_threshold(stage.encoder)]
    if learning and parameters.threshold is None:
        start = float(getattr(learning[0], "start", 0.0))
        parameters = parameters._replace(threshold=torch.full_like(parameters.bias, start))
    if plan.untied and parameters.encoder is None:
        parameters = parameters._replace(encoder=parameters.dictionary.clone())
    if plan.offset and parameters.offset is None:
        parameters = parameters._replace(offset=torch.zeros_like(parameters.dictionary[0]))
    return parameters


def _entered(state: State, plan: Plan, begun: tuple[int, ...]) -> State:
    """The state at the start of a stage, or after the last."""
    state = with_all_atoms(state._replace(begun=begun, settled=None, rule=None))
    if state.stage == len(plan.stages):
        return state._replace(finished=True)
    stage, state = plan.stages[state.stage], _with_a_shard(state, plan)
    parameters, memory = stage.rule.init(state.parameters)
    if isinstance(stage.bias, BiasAdaptation) and state.adapted is None:
        stage.bias.groups(len(parameters.bias))  # refuses more groups than units
        state = state._replace(adapted=Adapted.none(parameters.bias))
    if stage.settling is not None:
        state = state._replace(settled=Settled())
    return state._replace(parameters=parameters, rule=memory)


def shares_atoms(stage: Stage, plan: Plan) -> bool:
    """Whether processes can hold a shard of the atoms each in such a stage.

    Codes are the k largest, and an atom moves by its own gradient.
    """
    revival = stage.revival
    return (
        type(stage.encoder) is TopK
        and type(stage.rule) in _RULES
        and type(stage.constraint) in _CONSTRAINTS
        and stage.penalty is None
        and stage.settling is None
        and not isinstance(stage.bias, BiasAdaptation)
        and (revival is None or revival.combined is None)
        and not plan.piecewise
    )


def _shard(state: State) -> Shard | None:
    """The atoms that the state holds, where these aren't all."""
    atoms = current().atoms
    if state.atoms is None or atoms is None:
        return None
    return Shard(atoms, state.atoms)


def _with_a_shard(state: State, plan: Plan) -> State:
    """The state with this process's atoms, where its stage lets them be shared."""
    atoms = current().atoms
    if atoms is None or state.atoms is not None or state.finished:
        return state
    if state.stage == len(plan.stages) or not shares_atoms(plan.stages[state.stage], plan):
        return state
    shard = Shard(atoms, len(state.parameters.bias))
    return _over_units(state, lambda value: cut(value, shard))._replace(atoms=shard.m)


def with_all_atoms(state: State) -> State:
    """The state with all atoms: those of the other processes are gathered; all must call it."""
    shard = _shard(state)
    if shard is None:
        return state
    return _over_units(state, lambda value: joined(value, shard))._replace(atoms=None)


def _over_units(state: State, change: Callable[[Any], Any]) -> State:
    """The state with what a stage that shares atoms moves of them changed."""
    return state._replace(
        parameters=change(state.parameters),
        rule=change(state.rule),
        activity=change(state.activity),
    )


def _batches(
    source: Source, plan: Plan, place: Place, passes: int | None, part: tuple[int, int]
) -> Generator[tuple[np.ndarray, int, Place], None, None]:
    """Batches from `place` on, of each one part, all its rows' number, and the place after it.

    Of `passes` passes or without end; a source that can be read once gives one pass.
    """
    size = plan.batch_size
    assert size is not None
    if source.once:
        passes = 1
    for _ in repeat(None) if passes is None else repeat(None, passes):
        rng = generator_at(place.before)
        flow = source.shares(size, rng=rng, part=part, first=place.batch)
        place = Place(place.before, rng.bit_generator.state, place.batch)
        for number, (batch, count) in enumerate(flow, place.batch):
            # Few samples make a noisy step.
            if number == 0 or plan.short or plan.piecewise or 2 * count >= size:
                yield batch, count, place._replace(batch=number + 1)
        place = place.next_pass()


def _work(
    source: Source, plan: Plan, state: State, passes: int | None
) -> Generator[tuple[Batch, Place], None, None]:
    """Batches, each with the place after it; a full batch is read once and stays."""
    like, size, ranks = state.parameters.dictionary, plan.size(state.stage), current()
    prepared = objective.on_the_same_batch if size is None else objective.on_batch
    if (shard := _shard(state)) is not None and ranks.rows is not None:
        ranks, prepared = ranks.rows, partial(on_shard, shard)
    # Sums over rows add up. What looks at a whole batch is computed by every process.
    shared = all(each.penalty is None and is_rowwise(each.encoder) for each in plan.stages)
    part = ranks.part if shared else ALL
    if size is None:
        if source.n_samples is None:
            raise ArgumentError("batch_size", "None (full batch) on a stream", "a number of rows")
        ((rows, count),) = source.shares(source.n_samples, part=part)
        batch = ranks.batch(
            torch.from_numpy(rows).to(like), count, shared=shared, prepared=prepared
        )
        work = batch, state.place
        yield from repeat(work) if passes is None else repeat(work, passes)
    else:
        plan = plan._replace(batch_size=size)
        flow = _batches(source, plan, state.place, passes, part)
        if source.waits and passes is None:
            flow = read_ahead(flow, lambda last: _batches(source, plan, last[2], None, part))
        with closing(flow):
            for rows, count, place in flow:
                data = torch.from_numpy(rows).to(like)
                yield ranks.batch(data, count, shared=shared, prepared=prepared), place


def descend(
    state: State, source: Source, plan: Plan, *, passes: int | None = None
) -> Iterator[tuple[State, StepSums | Terms]]:
    """Descent by `plan` on the batches of `source`, from `state` on.

    Parameters
    ----------
    state : State
        From :func:`begin`, or a copy of one that this gave.
    source : Source
        Where batches come from; shuffled if it can be. To go on with the same bits it must be
        one that can be read again.
    plan : Plan
        The same for all steps.
    passes : int, optional
        End after so many passes over the source, if that comes first.

    Yields
    ------
    State
        After every update.
    StepSums or Terms
        What the update was made from: the objective before it, and its gradient. Where processes
        share atoms, both are of those at hand, but for `counts`.

    Raises
    ------
    ArgumentError
        Where a full batch is asked of a stream.
    """
    if source.once:  # a new number of samples per update would begin a new pass
        plan = plan.of_one_size()
    generator = None
    if state.noise is not None:
        generator = torch.Generator(device=state.parameters.bias.device)
        generator.set_state(state.noise)
    state = _with_a_shard(state, plan)
    going = not state.finished
    while going:
        size, atoms, going = plan.size(state.stage), state.atoms, False
        with closing(_work(source, plan, state, passes)) as work:
            for batch, place in work:
                with at_hand(_shard(state)):
                    state, sums = _advance(state._replace(place=place), plan, batch, generator)
                yield state, sums
                if state.finished:
                    return
                if plan.size(state.stage) != size or state.atoms != atoms:
                    going = True
                    break


def _advance(
    state: State, plan: Plan, batch: Batch, generator: torch.Generator | None
) -> tuple[State, StepSums | Terms]:
    """One update: the state in, the state out."""
    stage, parameters, index = plan.stages[state.stage], state.parameters, state.number
    rows, share = 0, 1.0  # of an update that this batch does not make whole, and is of one
    if plan.piecewise and plan.batch_size is not None:
        rows, share = state.rows + len(batch), len(batch) / plan.batch_size
    if stage.bias is not None and not isinstance(stage.bias, BiasAdaptation):
        parameters = parameters._replace(bias=torch.full_like(parameters.bias, stage.bias(index)))
    sums = batch.evaluate(stage.encoder, stage.penalty, parameters, generator)
    constrain = partial(stage.constraint, center=state.center)
    since = index - state.begun[-1]
    smoothed, usual = state.smoothed, sums
    if smoothed is not None and isinstance(sums, StepSums):
        smoothed = smoothed.add(sums.counts, sums.energy, sums.n_samples, share)
        usual = smoothed.told_of(sums)
    if share == 1.0:
        parameters, memory = stage.rule.update(parameters, sums, state.rule, since, constrain)
    else:
        parameters, memory = _partly(
            stage.rule, parameters, usual, state.rule, since, constrain, share
        )
    activity, adapted, settled, replaced = state.activity, state.adapted, state.settled, 0
    done = index + 1
    if plan.piecewise and plan.batch_size is not None:
        done, rows = index + rows // plan.batch_size, rows % plan.batch_size
    last, unexplained = done > index and since + 1 == stage.n_steps, True
    if isinstance(sums, StepSums):
        sums = sums._replace(variance=batch.variance())
        if isinstance(stage.bias, BiasAdaptation) and adapted is not None:
            moved, adapted = stage.bias.add(
                adapted, parameters.bias, sums.counts, sums.energy, sums.n_samples, share
            )
            parameters = parameters._replace(bias=moved)
        assert activity is not None
        activity = activity.add(sums.counts, share)
        # Not at the very end: a new atom needs steps to become one.
        final = last and state.stage + 1 == len(plan.stages)
        if stage.revival is not None and activity.due(stage.revival.every) and not final:
            usage, activity = activity.counts, activity.look()
            dead = activity.dead(stage.revival.idle)
            dictionary, tries, replaced = revive(
                parameters, usage, dead, activity.tries, batch, sums.losses, stage.encoder,
                stage.revival, distinct=plan.piecewise,
            )  # fmt: skip
            before = parameters.dictionary
            parameters = parameters._replace(dictionary=dictionary)
            if replaced and parameters.encoder is not None:
                parameters, new = renewed(parameters, before)
                if (forget := getattr(stage.rule, "forget", None)) is not None:
                    memory = forget(memory, new)
            activity = activity._replace(tries=tries)
        if stage.settling is not None and settled is not None:
            settled, rests = settled.add(
                stage.settling, sums, batch, parameters.dictionary, replaced
            )
            unexplained = last or settled.in_vain
            last = last or rests
    state = state._replace(
        parameters=parameters,
        number=done,
        rows=rows,
        rule=memory,
        activity=activity,
        adapted=adapted,
        smoothed=smoothed,
        settled=settled,
        replaced=replaced,
        noise=None if generator is None else generator.get_state(),
    )
    if isinstance(sums, StepSums):  # for the record, of all units
        sums = sums._replace(counts=of_all(sums.counts))
    if last:
        state = _following(state, plan, unexplained)
    return state, sums


def _partly(
    rule: Rule,
    parameters: Parameters,
    sums: StepSums | Terms,
    memory: Any,
    step: int,
    constrain: Callable[..., Tensor],
    share: float,
) -> tuple[Parameters, Any]:
    """Such a share of an update: of a batch that is not a whole one."""
    before = parameters.map(torch.clone)  # rules may move them in place
    moved, memory = rule.update(parameters, sums, memory, step, constrain)
    others = {
        name: torch.lerp(old, new, share)
        for name, old, new in zip(Parameters._fields, before, moved, strict=True)
        if old is not None and new is not None
    }
    others["dictionary"] = constrain(others["dictionary"], before.dictionary)
    return moved._replace(**others), memory


def _following(state: State, plan: Plan, unexplained: bool) -> State:
    """The state at the start of the stage that follows, if need be in a new pass."""
    begun = (*state.begun, state.number)
    while len(begun) <= len(plan.stages):
        if unexplained or not plan.stages[len(begun) - 1].only_unexplained:
            break
        begun = (*begun, state.number)
    if plan.size(len(begun) - 1) != plan.size(state.stage):
        state = state._replace(place=state.place.next_pass())
    return _entered(state, plan, begun)

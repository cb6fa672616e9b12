"""Many trainings that differ in their penalty alone: sparsity against its strength.

Every run has the same start, the same batches and, where there is noise, the same noise, so that
what differs along a curve is the penalty. What would be the same run twice is run once.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from shoal.data import Source, open_source
from shoal.network.activations import ACTIVATIONS, SmoothActivation
from shoal.network.penalties import PENALTIES, Penalty
from shoal.processes import given, workers
from shoal.training.descent import begin
from shoal.training.passes import epochs, held_units
from shoal.training.recipes import MomentumSettings, arpit2016
from shoal.vocabulary import ArgumentError, Parameters, check_choice, check_count, check_number

__all__ = ["Point", "Record", "Trace", "canonical", "grid", "sweep"]


@dataclass(frozen=True)
class Point:
    """One place of a sweep.

    Parameters
    ----------
    penalty : str
        One of `shoal.network.penalties.PENALTIES`.
    activation : str
        One of `shoal.network.activations.ACTIVATIONS`.
    strength : float
        The penalty's first argument, at least 0.
    options : tuple of (str, value)
        Its other arguments, such as ``(("draws", 8),)``.

    Raises
    ------
    ArgumentError
        That names what is wrong.

    Examples
    --------
    >>> Point("cae", "relu", 0.25, (("kink", 0.1),)).objective()
    Contractive(strength=0.25, kink=0.1)
    """

    penalty: str
    activation: str
    strength: float
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Check all of it, by making what it stands for."""
        check_choice("penalty", self.penalty, PENALTIES)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_number("strength", self.strength, low=0.0)
        self.objective()

    def objective(self) -> Penalty:
        """The penalty that it stands for."""
        kind = PENALTIES[self.penalty]
        known = [each.name for each in fields(kind) if each.name != "strength"]
        for name, _ in self.options:
            if name not in known:
                needed = f"one of {', '.join(known)}" if known else "none"
                raise ArgumentError("options", f"{name!r} for {self.penalty}", needed)
        made: Penalty = kind(self.strength, **dict(self.options))
        return made

    def encoder(self) -> SmoothActivation:
        """The activation that it stands for."""
        made: SmoothActivation = ACTIVATIONS[self.activation]()
        return made


class Trace(NamedTuple):
    """What an epoch leaves behind: :class:`shoal.training.Epoch` in plain numbers."""

    number: int
    steps: int
    loss: float
    penalty: float
    activation_fraction: float
    dead_fraction: float


class Record(NamedTuple):
    """What a run at a point came to; the last epoch's numbers, and all epochs'."""

    point: Point
    seed: int
    activation_fraction: float  # Arpit et al. 2016, eq. (14)
    dead_fraction: float
    loss: float  # mean |x - y|^2 of the last epoch, of the corrupted input where there is one
    epochs: tuple[Trace, ...]
    seconds: float  # of the run, which several points may share
    parameters: Parameters | None = None
    saturated_units: int = 0  # whose mean code is beyond where the penalty acts


def grid(
    penalties: Sequence[str], activations: Sequence[str], strengths: Sequence[float]
) -> list[Point]:
    """Every combination, as points.

    >>> len(grid(["dae", "cae"], ["relu"], [0.0, 0.25, 1.0]))
    6
    """
    return [Point(*each) for each in product(penalties, activations, strengths)]


def canonical(point: Point, settings: MomentumSettings) -> Point:
    """The point whose run is this point's run too.

    Strength 0 is no penalty, whichever it is. Contractive and marginalised denoising have one
    objective at unit length (Arpit et al. 2016, Remark 2), but not one gradient: their parts along
    the atoms differ, and so do the steps, unless `settings.tangent` leaves those parts out.

    >>> canonical(Point("dae", "relu", 0.0), MomentumSettings())
    Point(penalty='none', activation='relu', strength=0.0, options=())
    """
    if point.penalty == "none" or point.strength == 0.0:
        return Point("none", point.activation, 0.0)
    even = all(name != "variances" for name, _ in point.options)
    if point.penalty == "mdae" and even and settings.weight_length == "unit" and settings.tangent:
        return Point("cae", point.activation, point.strength, point.options)
    return point


def sweep(
    source: Any,
    points: Iterable[Point],
    settings: MomentumSettings,
    n_components: int,
    *,
    seed: int | Sequence[int] = 0,
    n_jobs: int = 1,
    done: Iterable[Record] = (),
    keep_parameters: bool = False,
) -> Generator[Record, None, None]:
    """Train at every point; records come as their runs finish.

    Parameters
    ----------
    source : Source, or what `shoal.data.open_source` opens
        Samples (N, n), which must fit in memory.
    points : iterable of Point
        Those that are equal by :func:`canonical` share one run.
    settings : MomentumSettings
        The same for all.
    n_components : int
        m.
    seed : int, or sequence of int
        With several, every point is run from each. A run depends on its seed alone, not on
        `n_jobs` nor on which other points there are.
    n_jobs : int
        Processes, one thread each; 1 is this process. With more, a script must keep its own work
        under ``if __name__ == "__main__"``, as all new processes read it.
    done : iterable of Record
        What an earlier sweep yielded with the same data and settings: not run again, nor yielded.
        A run that another point shared is not run again either.
    keep_parameters : bool
        Whether records hold the trained parameters.

    Returns
    -------
    generator of Record
        When it is closed or interrupted, its processes end at once.

    Raises
    ------
    ArgumentError
        Where an argument is wrong, or a run diverges.

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(size=(100, 5))
    >>> points = grid(["dae", "cae"], ["relu"], [0.0, 1.0])
    >>> records = list(sweep(rows, points, MomentumSettings(n_epochs=2), 4))
    >>> len(records), len({each.activation_fraction for each in records[:2]})
    (4, 1)
    """
    opened = open_source(source)
    if opened.once or opened.n_samples is None:
        raise ArgumentError("source", "a stream", "data that can be read once for every epoch")
    check_count("n_components", n_components)
    check_count("n_jobs", n_jobs)
    seeds = [seed] if isinstance(seed, (int, np.integer)) else seed
    seeds = [check_count("seed", each, low=0) for each in seeds]
    earlier = list(done)
    finished = {(each.point, each.seed) for each in earlier}
    known = {(canonical(each.point, settings), each.seed): each for each in earlier}
    ready: list[Record] = []
    sharing: dict[tuple[Point, int], list[Point]] = {}
    for number, point in product(seeds, dict.fromkeys(points)):
        run = (canonical(point, settings), number)
        if (point, number) in finished:
            continue
        if run in known:
            ready.append(known[run]._replace(point=point))
        else:
            sharing.setdefault(run, []).append(point)
    fixed = _Fixed(_rows(opened), settings, n_components, keep_parameters)
    runs = _here(fixed, list(sharing)) if n_jobs == 1 else _beside(fixed, list(sharing), n_jobs)
    return _shared(ready, runs, sharing)


Records = Generator[Record, None, None]


def _shared(
    ready: list[Record], runs: Records, sharing: dict[tuple[Point, int], list[Point]]
) -> Records:
    """Every run's record for every point that shares it."""
    try:
        yield from ready
        for record in runs:
            for point in sharing[record.point, record.seed]:
                yield record._replace(point=point)
    finally:
        runs.close()


class _Fixed(NamedTuple):
    """What all runs of a sweep have in common."""

    data: NDArray[Any]
    settings: MomentumSettings
    n_components: int
    keep_parameters: bool


def _rows(source: Source) -> NDArray[Any]:
    assert source.n_samples is not None
    return np.asarray(source.rows(np.arange(source.n_samples)), dtype=np.float32)


def _train(fixed: _Fixed, point: Point, seed: int) -> Record:
    """One run. Its parameters are arrays, which go from process to process by value."""
    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    settings, source = fixed.settings, open_source(fixed.data)
    parameters = settings.start(fixed.n_components, fixed.data.shape[1], rng)
    recipe = arpit2016(point.encoder(), point.objective(), len(fixed.data), settings)
    traces = []
    for epoch in epochs(begin(parameters, recipe.plan(), rng), source, recipe):
        traces.append(Trace(epoch.number, epoch.steps, epoch.loss, epoch.penalty, *epoch.usage))
    last = traces[-1]
    kept: Any = None
    if fixed.keep_parameters:
        kept = tuple(part.numpy() for part in epoch.parameters[:2])
    seconds = time.perf_counter() - start
    fractions = (last.activation_fraction, last.dead_fraction)
    held = held_units(epoch.parameters, source, point.encoder(), point.objective())
    return Record(point, seed, *fractions, last.loss, tuple(traces), seconds, kept, held)


def _whole(record: Record) -> Record:
    if record.parameters is None:
        return record
    weights, bias = (torch.as_tensor(part) for part in record.parameters)
    return record._replace(parameters=Parameters(weights, bias))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums by several threads end in other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _here(fixed: _Fixed, runs: list[tuple[Point, int]]) -> Records:
    for point, seed in runs:
        with _one_thread():
            record = _train(fixed, point, seed)
        yield _whole(record)


def _beside(fixed: _Fixed, runs: list[tuple[Point, int]], n_jobs: int) -> Records:
    if not runs:
        return
    with workers(min(n_jobs, len(runs)), fixed) as executor:
        for future in as_completed([executor.submit(_train_there, *each) for each in runs]):
            yield _whole(future.result())


def _train_there(point: Point, seed: int) -> Record:
    return _train(given(), point, seed)

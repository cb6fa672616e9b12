"""A sweep as one call: sparsity against a penalty's strength, kept, resumed and drawn.

What is finished is kept beside the result under a hidden name, a line a run, so that an
interrupted sweep goes on where it was; the result itself appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shoal.claims import plain
from shoal.data import Preprocessing, Source, open_source
from shoal.experiments.experiment import FORMAT, Progress, Table, versions
from shoal.experiments.page import check_result_folder, claim_result, write_result
from shoal.files import Claim, write_bytes
from shoal.report.drawing import HUES, panels
from shoal.sweeps.points import Point, Record, Trace, grid, sweep
from shoal.training.recipes import MomentumSettings
from shoal.vocabulary import ArgumentError, WriteError, check_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shoal.report.drawing import Pen

__all__ = ["run_sweep", "strengths_of"]


def strengths_of(text: str) -> list[float]:
    """Strengths from ``FIRST:LAST:COUNT``, evenly spaced, or from a list separated by commas.

    >>> strengths_of("0:1:5"), strengths_of("0,0.25")
    ([0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 0.25])
    """
    needed = "FIRST:LAST:COUNT, such as 0:1:12, or numbers separated by commas"
    try:
        if ":" not in text:
            return [float(each) for each in text.split(",")]
        first, last, number = text.split(":")
        return [float(each) for each in np.linspace(float(first), float(last), int(number))]
    except ValueError:
        raise ArgumentError("strength", repr(text), needed) from None


_CAPTION = (
    "The share of (sample, unit) pairs that are active, against the penalty's strength; "
    "dotted: the share of units that are active on no sample."
)


class _Drawing(NamedTuple):
    """What draws the picture of a page; a sweep is no experiment of a paper."""

    plot: Callable[[dict[str, Any], Pen], Figure]


@dataclass(frozen=True)
class _Plan:
    """All that a result depends on, as plain values."""

    source: str
    n_samples: int
    n_features: int
    feature_names: list[str] | None
    preprocessing: dict[str, Any]
    n_components: int
    penalties: list[str]
    activations: list[str]
    strengths: list[float]
    momentum: dict[str, Any]
    n_seeds: int
    seed: int


def run_sweep(
    source: Any,
    folder: str | os.PathLike[str],
    *,
    penalties: Sequence[str] = ("dae", "cae", "mdae", "sae"),
    activations: Sequence[str] = ("relu",),
    strengths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    n_components: int | None = None,
    preprocessing: Preprocessing | None = None,
    settings: MomentumSettings | None = None,
    n_seeds: int = 1,
    seed: int = 0,
    n_jobs: int = 2,
    overwrite: bool = False,
) -> Generator[Progress, None, dict[str, Any]]:
    """Train at every combination and write the result to `folder`.

    Parameters
    ----------
    source : whatever `shoal.open_source` takes
        That fits in memory.
    folder : path
        It gets ``result.json``, ``figure.png`` and ``index.html``.
    penalties, activations : sequence of str
        Names from `shoal.network.penalties.PENALTIES` and `shoal.network.activations.ACTIVATIONS`.
    strengths : sequence of float
        At least 0. What is equal is run once: strength 0 of all penalties; "cae" and "mdae" at
        unit length with `settings.tangent`.
    n_components : int, optional
        Units; by default as many as there are features.
    preprocessing : Preprocessing, optional
        ``Preprocessing("scale")`` by default.
    settings : MomentumSettings, optional
        The descent, the same for all.
    n_seeds, seed : int
        Runs at each point, and the first one's seed.
    n_jobs : int
        Processes, of one thread each.
    overwrite : bool
        Whether an earlier result may be replaced.

    Yields
    ------
    Progress
        After every run. The generator returns what ``result.json`` holds.

    Raises
    ------
    ArgumentError, RunError
        Before any work where an argument can't be used or the folder is taken; later where a run
        diverges. What was finished is kept, and the same call goes on from there.
    """
    check_result_folder(folder, overwrite=overwrite)
    points = grid(penalties, activations, strengths)
    if not points:
        raise ArgumentError("penalty", "no combination", "at least one of each")
    check_count("n_seeds", n_seeds)
    spec, descent = preprocessing or Preprocessing("scale"), settings or MomentumSettings()
    opened = open_source(source)
    if opened.n_samples is None:
        raise ArgumentError("source", "a stream", "data that can be read once for every epoch")
    m = check_count("n_components", opened.n_features if n_components is None else n_components)
    plan = _Plan(
        str(opened.name), opened.n_samples, opened.n_features,
        None if opened.feature_names is None else list(opened.feature_names),
        spec.as_dict(), m, list(penalties), list(activations),
        [float(each) for each in strengths], asdict(descent), n_seeds, seed,
    )  # fmt: skip
    held = claim_result(folder, overwrite=overwrite)
    return _run(opened, held, points, plan, spec, descent, n_jobs)


def _run(
    source: Source,
    held: Claim,
    points: list[Point],
    plan: _Plan,
    spec: Preprocessing,
    descent: MomentumSettings,
    n_jobs: int,
) -> Generator[Progress, None, dict[str, Any]]:
    with held:
        start = time.perf_counter()
        kept = _Kept(held.path, plan)
        records = kept.read()
        prepared = spec.fit(source).through(source)
        seeds = list(range(plan.seed, plan.seed + plan.n_seeds))
        total = len(dict.fromkeys(points)) * len(seeds)
        yield Progress(len(records) / total, f"{len(records)} of {total} there already")
        for record in sweep(
            prepared, points, descent, plan.n_components, seed=seeds, n_jobs=n_jobs, done=records
        ):
            records.append(record)
            kept.add(record)
            note = f"{record.point.penalty}, {record.point.activation}, {record.point.strength:g}"
            yield Progress(len(records) / total, note)
        result = _result(plan, records, time.perf_counter() - start)
        write_result(held, _Drawing(_plot), result)
        kept.drop()
        return result


class _Kept:
    """Finished runs in a hidden file beside the result: the plan, then one record per line."""

    def __init__(self, path: Path, plan: _Plan) -> None:
        self.file = path.with_name(f".{path.name}.unfinished.jsonl")
        self.plan = json.loads(json.dumps(plain(asdict(plan))))

    def read(self) -> list[Record]:
        """Those of the same plan; a file of another plan is begun anew."""
        records: list[Record] = []
        try:
            plan, *lines = self.file.read_text(encoding="utf-8").splitlines()
            if json.loads(plan) == self.plan:
                for line in lines:  # one by one: what stands before the damage is kept
                    records.append(_record(json.loads(line)))  # noqa: PERF401
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass  # none, or damaged: what is lost is run again
        kept = [self.plan, *map(_line, records)]
        write_bytes(self.file, "".join(json.dumps(each) + "\n" for each in kept).encode())
        return records

    def add(self, record: Record) -> None:
        try:
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(json.dumps(_line(record)) + "\n")
        except OSError as error:
            raise WriteError(
                f"{self.file}: can't be written ({error.strerror}); needed room for results"
            ) from error

    def drop(self) -> None:
        with suppress(OSError):  # the result is there: no reason to say that it failed
            self.file.unlink(missing_ok=True)


def _line(record: Record) -> dict[str, Any]:
    values = record._asdict()
    values.pop("parameters")
    values["point"] = asdict(record.point)
    values["epochs"] = [each._asdict() for each in record.epochs]
    return dict(plain(values))


def _record(values: dict[str, Any]) -> Record:
    point = {**values["point"], "options": tuple(map(tuple, values["point"]["options"]))}
    epochs = tuple(Trace(**each) for each in values["epochs"])
    return Record(**{**values, "point": Point(**point), "epochs": epochs})


def _result(plan: _Plan, records: list[Record], seconds: float) -> dict[str, Any]:
    curves: list[dict[str, Any]] = []
    rows: list[tuple[Any, ...]] = []
    for activation in plan.activations:
        for penalty in plan.penalties:
            points = []
            for strength in plan.strengths:
                here = [
                    each
                    for each in records
                    if (each.point.penalty, each.point.activation, each.point.strength)
                    == (penalty, activation, strength)
                ]
                names = ("activation_fraction", "dead_fraction", "loss")
                means = {name: float(np.mean([getattr(e, name) for e in here])) for name in names}
                points.append({"strength": strength, **means})
                rows.append((activation, penalty, strength, *means.values()))
            curves.append({"activation": activation, "penalty": penalty, "points": points})
    head = ("activation", "penalty", "strength", "activation fraction", "dead units", "loss")
    table = Table(
        "Every point",
        head,
        tuple(rows),
        "Means over seeds. Loss: of the last epoch's batches, corrupted where noise is added.",
    )
    ordered = sorted(records, key=lambda each: (each.seed, repr(each.point)))
    result = {
        "format": FORMAT,
        "format_version": 1,
        "experiment": "sweep",
        "title": f"Sparsity against penalty strength: {plan.source}",
        "source": "",
        "about": (
            f"{plan.n_components} tied units on {plan.n_samples} samples of {plan.n_features} "
            "features, trained at every strength from the same start and on the same batches."
        ),
        "caption": _CAPTION,
        "scale": "",
        "command": _command(plan),
        "configuration": {**asdict(plan), **plan.momentum, "momentum": plan.momentum["momentum"]},
        "seeds": list(range(plan.seed, plan.seed + plan.n_seeds)),
        "versions": versions(),
        "seconds": round(seconds, 2),
        "numbers": {"curves": curves, "records": [_line(each) for each in ordered]},
        "paper": {},
        "verdicts": [],
        "departures": [],
        "tables": [asdict(table)],
        "notes": _without_penalty(plan, ordered),
    }
    return dict(json.loads(json.dumps(plain(result), allow_nan=False)))


def _without_penalty(plan: _Plan, records: list[Record]) -> list[str]:
    """Where units had no penalty, as their mean codes are beyond where it acts."""
    most: dict[Point, int] = {}
    for each in records:
        if each.saturated_units:
            most[each.point] = max(most.get(each.point, 0), each.saturated_units)
    return [
        f"{point.penalty}, {point.activation}, strength {point.strength:g}: {units} of "
        f"{plan.n_components} units had no penalty, their mean code is .99 or more."
        for point, units in most.items()
    ]


def _command(plan: _Plan) -> str:
    words = ["shoal", "sweep", plan.source, "--penalty", ",".join(plan.penalties)]
    words += ["--activation", ",".join(plan.activations)]
    words += ["--strength", ",".join(f"{each:g}" for each in plan.strengths)]
    return shlex.join([*words, "-m", str(plan.n_components)])


def _plot(result: dict[str, Any], pen: Pen) -> Figure:
    """Activation fraction and dead units against the strength, a column an activation."""
    curves = result["numbers"]["curves"]
    activations = list(dict.fromkeys(each["activation"] for each in curves))
    penalties = list(dict.fromkeys(each["penalty"] for each in curves))
    figure, every = panels(len(activations))
    for axes, activation in zip(every, activations, strict=False):
        for hue, penalty in zip(HUES * 2, penalties, strict=False):
            (points,) = (
                each["points"]
                for each in curves
                if (each["activation"], each["penalty"]) == (activation, penalty)
            )
            x = [each["strength"] for each in points]
            y = [each["activation_fraction"] for each in points]
            axes.plot(x, y, color=hue, marker="o", markersize=3.5, label=penalty)
            dead = [each["dead_fraction"] for each in points]
            axes.plot(x, dead, color=hue, linestyle=(0, (1, 2)), linewidth=1.2)
        axes.set_ylim(-0.03, 1.03)
        axes.set_title(activation, fontsize=10)
        axes.set_xlabel("strength")
    every[0].set_ylabel("activation fraction (dotted: dead units)")
    every[0].legend(frameon=False, fontsize=9, loc="upper right")
    return figure

"""What an experiment is: settings, a run, a picture; and the file that it leaves behind.

One module holds one experiment, of ours or of yours. It is registered by name, see
:func:`shoal.experiments.register`, run by
:func:`perform`, and everything that pictures and pages show of it is in its ``result.json``.
"""

from __future__ import annotations

import json
import math
import platform
import shlex
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from shoal.claims import Check, plain
from shoal.vocabulary import ArgumentError, __version__, check_choice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shoal.report.drawing import Pen

__all__ = [
    "SCALES",
    "TOO_FEW",
    "TOO_SMALL",
    "Drawn",
    "Experiment",
    "Outcome",
    "Progress",
    "Table",
    "configure",
    "configure_all",
    "judges",
    "perform",
    "verdict",
    "versions",
]

SCALES = ("smoke", "reduced", "full")
"""Seconds, which only shows that it runs; minutes on two cores; the paper's own sizes."""

TOO_SMALL = "too small to tell"
"""The verdict on a claim that doesn't hold at the scale of seconds, which can't judge."""

TOO_FEW = "too few samples to tell"
"""That on one which doesn't hold, but for a sampling error: :attr:`Check.sure`."""

FORMAT = "shoal-experiment"


class Progress(NamedTuple):
    """What an experiment yields as it goes on."""

    share: float  # of the work that is done, from 0 to 1
    note: str


@dataclass(frozen=True)
class Table:
    """Rows of words and numbers for the page."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Attributes
    ----------
    numbers : dict
        Everything measured, as plain values; what the picture is drawn from.
    verdicts : sequence of Check
        Each claim of the experiment against its number.
    paper : dict
        The paper's own numbers, where it gives any.
    departures : sequence of str
        Words of those verdicts that state where the paper's claim or formula does *not* hold as it
        stands; the page says so of each whose check holds, at a scale that can judge.
    tables : sequence of Table
        What the page shows as tables.
    notes : sequence of str
        What a reader must know, paragraph by paragraph.
    """

    numbers: Mapping[str, Any]
    verdicts: tuple[Check, ...]
    paper: Mapping[str, Any] = field(default_factory=dict)
    departures: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


Run = Generator[Progress, None, Outcome]


class Drawn(Protocol):
    """What a page shows a result of: it draws the picture from the result alone."""

    @property
    def plot(self) -> Callable[[dict[str, Any], Pen], Figure]:
        """From the result, as it is in the file, and a pen to a figure."""
        ...


@dataclass(frozen=True)
class Experiment:
    """A table or figure that can be run again.

    Parameters
    ----------
    name : str
        As in ``shoal reproduce NAME``.
    title : str
        One line.
    source : str
        Paper and place; empty for what is ours.
    about : str
        What it shows, in a paragraph; for the page.
    settings : type
        A frozen dataclass of plain values with defaults: those of the full scale.
    scales : mapping from "smoke" and "reduced" to what they set otherwise
        The full scale is the defaults.
    run : callable
        From settings to a generator that yields :class:`Progress` and returns an
        :class:`Outcome`.
    plot : callable
        From the result, as it is in the file, and a pen to a figure.
    caption : str
        What the figure shows.
    """

    name: str
    title: str
    source: str
    about: str
    settings: type[Any]
    scales: Mapping[str, Mapping[str, Any]]
    run: Callable[[Any], Run]
    plot: Callable[[dict[str, Any], Pen], Figure]
    caption: str

    @property
    def made_by(self) -> Callable[[Any], Run]:
        """A function that tells whose experiment this is: see :func:`shoal.parts.register`."""
        return self.run


# --- settings -------------------------------------------------------------------------------


def configure(experiment: Experiment, scale: str = "reduced", changes: Any = ()) -> Any:
    """The settings of a scale, with `changes` put in.

    Parameters
    ----------
    experiment : Experiment
    scale : str
        One of `SCALES`.
    changes : mapping, or iterable of "name=value"
        Words are read as the setting's own type; lists are separated by commas.

    Raises
    ------
    ArgumentError
        That names the setting, and what there is.
    """
    (settings,) = configure_all([experiment], scale, changes)
    return settings


def configure_all(
    experiments: Sequence[Experiment], scale: str = "reduced", changes: Any = ()
) -> list[Any]:
    """The settings of several experiments; each takes those changes that it has a setting for.

    Parameters are those of :func:`configure`; a change that none has a setting for is refused.
    """
    check_choice("scale", scale, SCALES)
    pairs = dict(changes) if isinstance(changes, Mapping) else dict(map(_pair, changes))
    usual = [each.settings(**each.scales.get(scale, {})) for each in experiments]
    known = dict.fromkeys(field.name for settings in usual for field in fields(settings))
    for name in pairs:
        if name not in known:
            names = ", ".join(each.name for each in experiments)
            raise ArgumentError("set", repr(name), f"one of {', '.join(known)} for {names}")
    return [
        replace(
            settings,
            **{
                name: _read(name, value, getattr(settings, name))
                for name, value in pairs.items()
                if hasattr(settings, name)
            },
        )
        for settings in usual
    ]


def _pair(change: str) -> tuple[str, str]:
    name, equals, value = change.partition("=")
    if not equals:
        raise ArgumentError("set", repr(change), "NAME=VALUE, such as n=128")
    return name.strip(), value.strip()


def _read(name: str, value: Any, like: Any) -> Any:
    """`value` as what `like` is."""
    kind = type(like)
    if isinstance(like, tuple):
        parts = value.split(",") if isinstance(value, str) else value
        parts = parts if isinstance(parts, (list, tuple)) else [parts]
        if not parts:
            raise ArgumentError(f"set {name}", "nothing", "one value or more, separated by commas")
        return tuple(_read(name, part, like[0]) for part in parts)
    reader, needed = _READERS[kind]
    try:
        return reader(value.strip() if isinstance(value, str) else value)
    except (TypeError, ValueError, KeyError, OverflowError):
        raise ArgumentError(f"set {name}", repr(value), needed) from None


def _integer(value: Any) -> int:
    try:
        return int(str(value))
    except ValueError:  # 1e4 is an integer to whoever types it
        if not float(value).is_integer():
            raise
        return int(float(value))


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


_READERS: dict[type, tuple[Callable[[Any], Any], str]] = {
    bool: (lambda value: {"true": True, "false": False}[str(value).lower()], "true or false"),
    int: (_integer, "an integer"),
    float: (_finite, "a finite number"),
    str: (str, "a word"),
}


# --- runs -----------------------------------------------------------------------------------


def judges(scale: str) -> bool:
    """Whether the sizes of a scale can speak against a claim."""
    return scale != "smoke"


def verdict(check: Check, scale: str) -> str:
    """What is said of a check: "holds", "does not hold", `TOO_SMALL` or `TOO_FEW`.

    >>> from shoal.claims import at_most
    >>> [verdict(at_most("share", 0.2, 0.1), scale) for scale in SCALES]
    ['too small to tell', 'does not hold', 'does not hold']
    >>> verdict(at_most("share", 0.2, 0.1, error=0.1), "full")
    'too few samples to tell'
    """
    if check.holds:
        return "holds"
    if not judges(scale):
        return TOO_SMALL
    return "does not hold" if check.sure else TOO_FEW


def perform(
    experiment: Experiment, settings: Any, scale: str
) -> Generator[Progress, None, dict[str, Any]]:
    """Run it; what is returned is what ``result.json`` holds."""
    start = time.perf_counter()
    outcome = yield from experiment.run(settings)
    result = {
        "format": FORMAT,
        "format_version": 1,
        "experiment": experiment.name,
        "title": experiment.title,
        "source": experiment.source,
        "about": experiment.about,
        "caption": experiment.caption,
        "scale": scale,
        "judges": judges(scale),
        "command": _command(experiment, settings, scale),
        "configuration": asdict(settings),
        "seeds": _seeds(settings),
        "versions": versions(),
        "seconds": round(time.perf_counter() - start, 2),
        "numbers": outcome.numbers,
        "paper": outcome.paper,
        "verdicts": [
            {**check.to_dict(), "verdict": verdict(check, scale)} for check in outcome.verdicts
        ],
        "departures": [
            check.claim
            for check in outcome.verdicts
            if judges(scale)
            and check.holds
            and any(words in check.claim for words in outcome.departures)
        ],
        "tables": [asdict(table) for table in outcome.tables],
        "notes": list(outcome.notes),
    }
    # By way of the text: pictures must find what a reader of the file finds.
    return dict(json.loads(json.dumps(plain(result), allow_nan=False)))


def _command(experiment: Experiment, settings: Any, scale: str) -> str:
    """What a person would type to run it again."""
    usual, words = asdict(configure(experiment, scale)), []
    for name, value in asdict(settings).items():
        if value != usual[name]:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += ["--set", f"{name}={text}"]
    return shlex.join(["shoal", "reproduce", experiment.name, "--scale", scale, *words])


def _seeds(settings: Any) -> list[int]:
    seed = getattr(settings, "seed", 0)
    return list(range(seed, seed + getattr(settings, "n_seeds", 1)))


def versions() -> dict[str, str]:
    """Of shoal and of what its numbers depend on."""
    found = {"shoal": __version__, "python": platform.python_version()}
    for package in ("numpy", "scipy", "torch", "numba", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

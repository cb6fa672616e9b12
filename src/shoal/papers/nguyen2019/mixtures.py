"""What both figures run: a mixture of Gaussians, a ReLU autoencoder, a bias that halves.

The protocol is recalled, not quoted: see `RECALLED`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from shoal.data import open_source
from shoal.diagnosis import recovery
from shoal.experiments import Progress, Table
from shoal.generative import MixtureOfGaussians, perturb, random_dictionary
from shoal.network.activations import ReLU
from shoal.network.objective import StepSums
from shoal.report.drawing import HUES, panels
from shoal.training import Recipe, begin, descend, initialize
from shoal.training.rules import FixedStep
from shoal.training.schedules import Constant, Halving
from shoal.vocabulary import Parameters, check_count, check_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from shoal.report.drawing import Pen

__all__ = [
    "RECALLED",
    "SCALES",
    "STARTS",
    "Curve",
    "Settings",
    "counts",
    "descent",
    "draw",
    "group",
    "legend",
    "likelihood_floor",
    "recipe",
    "runs",
    "start_atoms",
    "summary",
]

RECALLED = (
    "The experiments section of the AISTATS paper could not be obtained, and the arXiv text has "
    "none. The protocol is recalled, not quoted: m = 10 means in n = 784 dimensions, A_i ~ N(0, "
    "I/n), N = 10000 samples, a ReLU autoencoder, three starts (delta = .5 from the truth in each "
    "column, the leading principal directions, random), a bias from -2.5 delta that halves each "
    "step, zeta = m, 50 steps with unit columns after each, sigma = .01, .02, .03.",
    "Ours: the means are brought to exactly unit norm, which N(0, I/n) gives them up to a few "
    "per cent, the first start is exactly delta away on the unit sphere, and atoms are rows. The "
    "clamp, a bias that stops at -3 (sigma + 1/sqrt n), is ours, too.",
    "The loss of a step is that before its update, under the bias of that step: at b = -1.25 "
    "every unit is silent, and the first loss is half the power of the data.",
)

STARTS = ("near", "pca", "random")
"""At distance delta from the truth; the leading principal directions; random directions."""

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"n_samples": 2000, "sigma": (0.01,), "n_seeds": 1},
    "reduced": {"n_samples": 5000, "n_seeds": 2},
}
"""Of both figures."""

_FOUND = 0.95  # the cosine from which on a mean counts as found


@dataclass(frozen=True)
class Settings:
    """The protocol's sizes, for eight data sets."""

    n: int = 784
    m: int = 10
    n_samples: int = 10_000
    sigma: tuple[float, ...] = (0.01, 0.02, 0.03)
    delta: float = 0.5
    n_steps: int = 50
    n_seeds: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("n", self.n, low=2)
        check_count("n_samples", self.n_samples, low=2)
        check_number("delta", self.delta, low=0.0, high=2.0, open_low=True)
        for name in ("m", "n_steps", "n_seeds"):
            check_count(name, getattr(self, name))
        check_count("seed", self.seed, low=0)
        for sigma in self.sigma:
            check_number("sigma", sigma, low=0.0, open_low=True)


class Curve(NamedTuple):
    """One descent."""

    sigma: float
    start: str
    clamped: bool  # whether the bias stops above 0 in magnitude
    seed: int
    losses: list[float]  # (T,) before each update
    distances: list[float]  # (T + 1,) |W - A|_F after matching, the start's first
    found: int  # means with cosine .95 at the end


def likelihood_floor(m: int, n: int, sigma: float, n_samples: int) -> float:
    """m sigma sqrt(n / N): how far the maximum-likelihood means are from the truth.

    |.|_F of m means, each of N/m samples with an error of sigma^2 m / N in every coordinate.
    """
    return float(m * sigma * np.sqrt(n / n_samples))


def recipe(settings: Settings, sigma: float, *, clamped: bool) -> Recipe:
    """ReLU, zeta = m, full batch, b = -2.5 delta halving each step, to 0 or to the clamp."""
    initial = -2.5 * settings.delta
    # Three standard deviations of what a unit gets from another mean, and from the noise.
    floor = max(initial, -3 * (sigma + settings.n**-0.5)) if clamped else 0.0
    step = FixedStep(Constant(float(settings.m)))
    return Recipe(ReLU(), step, settings.n_steps, bias=Halving(initial, floor=floor))


def start_atoms(
    start: str, settings: Settings, truth: NDArray, data: NDArray, rng: np.random.Generator
) -> NDArray:
    """Unit atoms (m, n) of one of `STARTS`."""
    if start == "near":
        return perturb(truth, settings.delta, rng)
    return initialize(start, data, settings.m, rng).astype(truth.dtype)


def descent(
    settings: Settings,
    sigma: float,
    start: str,
    seed: int,
    clamped: bool,
    planted: tuple[NDArray, NDArray],
) -> Curve:
    """One descent through the library's own loop, on the truth and the data `planted`."""
    truth, data = planted
    rng = np.random.default_rng([seed, STARTS.index(start)])
    atoms = start_atoms(start, settings, truth, data, rng)
    score = recovery(atoms, truth, signs="fixed")
    losses, distances = [], [score.frobenius]
    parameters = Parameters(torch.from_numpy(atoms), torch.zeros(settings.m))
    plan = recipe(settings, sigma, clamped=clamped).plan()
    for state, sums in descend(begin(parameters, plan, rng), open_source(data), plan):
        score = recovery(state.parameters.dictionary.numpy(), truth, signs="fixed")
        assert isinstance(sums, StepSums)
        losses.append(float(sums.losses.mean()))
        distances.append(score.frobenius)
    found = settings.m - len(score.missing(_FOUND))
    return Curve(sigma, start, clamped, seed, losses, distances, found)


def runs(settings: Settings) -> Generator[Progress, None, list[Curve]]:
    """Every noise, seed and start, without and with the clamp on the same data."""
    seeds = range(settings.seed, settings.seed + settings.n_seeds)
    worlds = list(product(settings.sigma, seeds))
    curves = []
    for index, (sigma, seed) in enumerate(worlds):
        yield Progress(index / len(worlds), f"sigma = {sigma:g}, seed {seed}")
        rng = np.random.default_rng([seed, round(1e6 * sigma)])
        truth = random_dictionary(settings.m, settings.n, rng, dtype=np.float32)
        data = MixtureOfGaussians(truth, noise=sigma).sample(settings.n_samples, rng).data
        curves += [
            descent(settings, sigma, start, seed, clamped, (truth, data))
            for start, clamped in product(STARTS, (False, True))
        ]
    yield Progress(1.0, "done")
    return curves


def summary(curves: Sequence[Curve], what: str) -> list[dict[str, Any]]:
    """Median, least and largest over seeds of ``losses`` or ``distances``, group by group."""
    groups: dict[tuple[float, str, bool], list[list[float]]] = {}
    for each in curves:
        place = each.sigma, each.start, each.clamped
        groups.setdefault(place, []).append(getattr(each, what))
    return [
        {
            "sigma": sigma,
            "start": start,
            "clamped": clamped,
            "median": np.median(alike, axis=0),
            "low": np.min(alike, axis=0),
            "high": np.max(alike, axis=0),
        }
        for (sigma, start, clamped), alike in groups.items()
    ]


def group(curves: Sequence[Curve], *, clamped: bool, start: str | None = None) -> list[Curve]:
    """Those with or without the clamp, from one start or from all."""
    return [each for each in curves if each.clamped == clamped and start in (None, each.start)]


def counts(curves: Sequence[Curve], m: int) -> Table:
    """How many descents found every mean."""
    rows = []
    for clamped, sigma in product((False, True), dict.fromkeys(each.sigma for each in curves)):
        alike = [each for each in curves if each.sigma == sigma]
        by_start = [
            [each.found == m for each in group(alike, clamped=clamped, start=start)]
            for start in STARTS
        ]
        stop = "-3 (sigma + 1/sqrt n)" if clamped else "0"
        every = [found for each in by_start for found in each]
        said = (f"{sum(found)} of {len(found)}" for found in (*by_start, every))
        rows.append((stop, sigma, *said))
    head = ("bias halves to", "sigma", *(f"start {start}" for start in STARTS), "all")
    note = f"A mean counts as found from cosine {_FOUND:g} on."
    return Table(f"Descents that end with all {m} means", head, tuple(rows), note)


def draw(result: dict[str, Any], pen: Pen, label: str, first: int) -> tuple[Figure, list[Axes]]:
    """A panel for each noise: medians over seeds, shaded from least to largest.

    `first` is the number of the first step in the curves.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    groups = result["numbers"]["curves"]
    noises = list(dict.fromkeys(each["sigma"] for each in groups))
    figure, axes = panels(len(noises), height=3.9)
    for each in groups:
        place = axes[noises.index(each["sigma"])]
        hue = HUES[STARTS.index(each["start"])]
        steps = range(first, first + len(each["median"]))
        style, name = ("-", f"start {each['start']}") if each["clamped"] else ((0, (2, 1.5)), None)
        place.plot(steps, each["median"], color=hue, linestyle=style, label=name)
        place.fill_between(steps, each["low"], each["high"], color=hue, alpha=0.12, linewidth=0)
    for place, sigma in zip(axes, noises, strict=True):
        place.set_title(f"σ = {sigma:g}", fontsize=10.5)
        place.set_xlabel("step")
        place.set_yscale("log")
        place.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        place.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        place.yaxis.set_minor_locator(NullLocator())
    axes[0].set_ylabel(label)
    axes[0].plot([], [], color=pen.muted, linestyle=(0, (2, 1.5)), label="bias to 0")
    return figure, axes


def legend(figure: Figure, axes: Axes) -> None:
    """One for all panels, below them, where it covers no curve."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9
    )

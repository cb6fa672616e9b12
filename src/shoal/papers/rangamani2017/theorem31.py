"""Theorem 3.1 where it can hold: recovery of supports against its separation condition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.claims import Check, at_least, at_most
from shoal.experiments import Experiment, Outcome, Progress, Run, Table
from shoal.generative import (
    NonnegativeSparseCoding,
    orthonormal_union,
    perturb,
    random_dictionary,
)
from shoal.report.drawing import HUES, panels
from shoal.theory import rangamani2017 as theory
from shoal.vocabulary import check_count, check_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shoal.report.drawing import Pen


@dataclass(frozen=True)
class Settings:
    """Worlds of small coherence: the theorem asks for more than section 6's have."""

    # h = 2 n: the identity and a Hadamard basis (a cosine basis where n is no power of two).
    n: tuple[int, ...] = (256, 1024)
    k: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    ratio: tuple[float, ...] = (1.2, 2.0, 5.0)  # b / a, with a = 1
    delta: tuple[float, ...] = (0.005, 0.02, 0.1)
    # A random dictionary needs n in the thousands; 0 leaves it out. It is asked at the first
    # ratio and delta only: its inner products alone take seconds.
    gaussian_n: int = 4096
    gaussian_h: int = 5000
    n_samples: int = 1000
    n_seeds: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_samples", "n_seeds", "gaussian_h"):
            check_count(name, getattr(self, name))
        check_count("gaussian_n", self.gaussian_n, low=0)
        for n in self.n:
            check_count("n", n)
        for k in self.k:
            check_count("k", k)
        check_count("the least k", min(self.k), high=2 * min(self.n))  # larger ones are left out
        for ratio in self.ratio:
            check_number("ratio", ratio, low=1.0)
        for delta in self.delta:
            check_number("delta", delta, low=0.0, high=1.0)


class Place(NamedTuple):
    """One dictionary and the points of the sweep at it."""

    kind: str
    dictionary: NDArray[np.floating]
    grid: list[tuple[int, float, float]]  # k, b / a, delta


def places(settings: Settings, seed: int) -> Iterator[Place]:
    """Every dictionary, made when it is its turn."""
    for n in settings.n:
        kind = "identity and Hadamard" if n & (n - 1) == 0 else "identity and cosines"
        sizes = [k for k in settings.k if k <= 2 * n]
        grid = list(product(sizes, settings.ratio, settings.delta))
        yield Place(f"{kind}, n = {n}", orthonormal_union(2 * n, n, dtype=np.float32), grid)
    if settings.gaussian_n:
        n, h = settings.gaussian_n, settings.gaussian_h
        grid = [(k, settings.ratio[0], settings.delta[0]) for k in settings.k if k <= h]
        dictionary = random_dictionary(h, n, seed, dtype=np.float32)
        yield Place(f"Gaussian, n = {n}, h = {h}", dictionary, grid)


def point(place: Place, at: tuple[int, float, float], n_samples: int, seed: int) -> dict[str, Any]:
    """The theorem asked at one k, b / a and delta."""
    k, ratio, delta = at
    world = NonnegativeSparseCoding(place.dictionary, k, low=1.0, high=ratio)
    rng = np.random.default_rng([seed, k, round(1000 * ratio), round(1000 * delta)])
    moved = perturb(place.dictionary, delta, rng, renormalize=False)
    found = theory.theorem31(world, moved, n_samples=n_samples, random_state=rng)
    return {
        "kind": place.kind,
        "k": k,
        "ratio": ratio,
        "delta": delta,
        "seed": seed,
        "condition": found.numbers["separation"],
        "share": found.measurements[0].value,
        "missed": found.numbers["missed_share"],
        "false": _false_share(found.numbers, world.n_atoms, k),
        "promised": 1.0 - found.numbers["failure"],
        "verdict": found.verdict,
    }


def _false_share(numbers: dict[str, Any], h: int, k: int) -> float:
    """Of the units outside the support, how many answer."""
    wrong = (1.0 - numbers["units_right"]) * h
    # What is left after the missed ones; rounding may leave less than nothing.
    return max(0.0, wrong - numbers["missed_share"] * k) / max(1, h - k)


def run(settings: Settings) -> Run:
    """Every dictionary at every point."""
    points = []
    seeds = range(settings.seed, settings.seed + settings.n_seeds)
    sizes = [*settings.n, *([settings.gaussian_n] if settings.gaussian_n else [])]
    for turn, seed in enumerate(seeds):
        for index, place in enumerate(places(settings, seed)):
            done = (turn + sum(sizes[:index]) / sum(sizes)) / settings.n_seeds
            span = sizes[index] / sum(sizes) / settings.n_seeds
            for step, at in enumerate(place.grid):
                yield Progress(done + span * step / len(place.grid), place.kind)
                points.append(point(place, at, settings.n_samples, seed))
    yield Progress(1.0, "done")
    return Outcome(
        numbers={"points": points},
        verdicts=tuple(_verdicts(points)),
        tables=(_table(points),),
        notes=NOTES,
    )


def _verdicts(points: list[dict[str, Any]]) -> list[Check]:
    within = [each["share"] for each in points if each["condition"] >= 1]
    beyond = [each for each in points if each["condition"] < 1]
    answered = max(each["false"] for each in points)
    checks = [at_most("units outside the support answer: largest share", answered, 1e-9)]
    if within:
        claim = f"condition >= 1: least share of exact supports in {len(within)} runs"
        checks.append(at_least(claim, min(within), 1.0))
    failed = [each["condition"] for each in beyond if each["share"] < 1]
    exact = [each["condition"] for each in beyond if each["share"] == 1]
    if failed:
        claim = f"the largest condition among {len(failed)} runs that miss a unit"
        checks.append(at_most(claim, max(failed), 0.9))
    if exact:
        claim = f"no need of it: the least condition among {len(exact)} runs below 1 that are exact"
        checks.append(at_most(claim, min(exact), 0.8))
    far = [each["share"] for each in beyond if each["condition"] <= 0.2]
    if far:
        checks.append(at_most("condition <= .2: largest share of exact supports", max(far), 0.5))
    return checks


def _table(points: list[dict[str, Any]]) -> Table:
    bands = ((1.0, np.inf), (0.8, 1.0), (0.6, 0.8), (0.4, 0.6), (0.2, 0.4), (0.0, 0.2))
    rows = []
    for kind in dict.fromkeys(each["kind"] for each in points):
        for low, high in bands:
            inside = [e for e in points if e["kind"] == kind and low <= e["condition"] < high]
            if inside:
                shares = [each["share"] for each in inside]
                exact = sum(share == 1 for share in shares)
                words = f"{low:g} and more" if high == np.inf else f"{low:g} to {high:g}"
                rows.append((kind, words, len(inside), exact, float(np.mean(shares)), min(shares)))
    head = ("dictionary", "condition", "runs", "all exact", "mean share", "least share")
    return Table("Share of samples whose support is found exactly", head, tuple(rows))


NOTES = (
    "The condition is a (1 - delta) / ((b + 2 m1) k (delta + mu / sqrt n)) >= 1: what the proof "
    "needs for active units. At section 6's sizes it is about .001 to .02, and nothing is "
    "recovered; here are dictionaries and codes for which it can be met.",
    "For uniform values 2 m1 = a + b > b, so that the bias exceeds the most that k overlaps can "
    "add up to: units outside the support are silent with certainty, and every failure is an "
    "active unit that is missed.",
)


def plot(result: dict[str, Any], pen: Pen) -> Figure:
    """Shares of exact supports and of missed units against the condition."""
    figure, (left, right) = panels(2)
    points = result["numbers"]["points"]
    kinds = dict.fromkeys(each["kind"] for each in points)
    for place, kind in enumerate(kinds):
        some = [each for each in points if each["kind"] == kind]
        x = [each["condition"] for each in some]
        look: dict[str, Any] = {
            "color": HUES[place % len(HUES)],
            "marker": "os^Dv"[place % 5],
            "s": 22,
            "alpha": 0.75,
            "linewidths": 0,
        }
        left.scatter(x, [each["share"] for each in some], label=kind, **look)
        right.scatter(x, [each["missed"] for each in some], **look)
    for axes in (left, right):
        axes.axvline(1.0, color=pen.ink, linewidth=0.9, linestyle=(0, (4, 2)))
        axes.set_xscale("log")
        axes.set_xlabel("a (1 - delta) / ((b + 2 m1) k (delta + mu / sqrt n))")
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    left.set_ylabel("share of exact supports")
    right.set_ylabel("share of active units missed")
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(4, len(kinds)),
        frameon=False,
        fontsize=9.5,
    )
    return figure


EXPERIMENT = Experiment(
    name="rangamani2017/theorem31",
    title="Theorem 3.1: supports are exact wherever its separation condition holds",
    source="Rangamani et al. 2017, Theorem 3.1 and its proof",
    about=(
        "Dictionaries of small coherence, codes of k values in [a, b], weights delta away from the "
        "truth and the theorem's own bias: supports are compared sample by sample, and the share "
        "that is exact is set against the condition that the proof needs."
    ),
    settings=Settings,
    scales={
        "smoke": {
            "n": (32, 64),
            "k": (1, 2, 4),
            "delta": (0.005,),
            "gaussian_n": 0,
            "n_samples": 100,
        },
        "reduced": {"n": (256, 512), "gaussian_n": 0},
    },
    run=run,
    plot=plot,
    caption=(
        "A point is one k, b/a and delta. Left of the dashed line the condition fails. Left: the "
        "share of samples whose support is exact; right: the share of active units that are missed."
    ),
)

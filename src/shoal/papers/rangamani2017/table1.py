"""Table 1: the mean gradient norm at points near the truth, against h^(p-1)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.claims import Check, at_least, at_most, between
from shoal.experiments import Experiment, Outcome, Progress, Run, Table
from shoal.generative import perturb
from shoal.generative.models import Rounding
from shoal.papers.rangamani2017 import setting
from shoal.report.drawing import HUES, panels
from shoal.vocabulary import check_choice, check_count, check_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shoal.report.drawing import Pen

PAPER = {
    256: (0.0126, 0.0095, 0.0284, 0.0464, 0.0343),
    512: (0.0054, 0.0071, 0.0104, 0.0214, 0.0028),
    1024: (0.0026, 0.0079, 0.0078, 0.0099, 0.0),
    2048: (0.0025, 0.0031, 0.0032, 0.0036, 0.0),
    4096: (0.0013, 0.0026, 0.0020, 0.0008, 0.0),
}
PAPER_P = (0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Settings:
    """Section 6's sizes."""

    n: int = 50
    n_samples: int = 5000
    h: tuple[int, ...] = tuple(PAPER)
    p: tuple[float, ...] = PAPER_P
    # 200 points, as in the paper, but around several dictionaries: norms differ by 1 % over the
    # points and by a multiple over the dictionaries where most units are silent.
    n_points: int = 25
    n_seeds: int = 8
    seed: int = 0
    rounding: Rounding = "ceil"  # of h^p: floor is section 2's "at most"

    def __post_init__(self) -> None:
        check_choice("rounding", self.rounding, ("ceil", "floor", "nearest"))
        for name in ("n", "n_samples", "n_points", "n_seeds"):
            check_count(name, getattr(self, name))
        for h, p in product(self.h, self.p):
            check_count("h", h)
            check_number("p", p, low=0.0, high=1.0)


def cell(h: int, p: float, settings: Settings, seed: int) -> dict[str, dict[str, float]]:
    """One dictionary, under each reading of the bias."""
    rng = setting.generator(seed, h, p)
    model = setting.world(h, p, settings.n, rng, settings.rounding)
    data = torch.from_numpy(model.sample(settings.n_samples, rng).data)
    distance = setting.radius(h, p)
    found: dict[str, dict[str, float]] = {}
    for name, bias in setting.BIASES.items():
        eps = bias(model, distance)
        norms: list[float] = []
        # Where (nearly) every unit is silent, a few points are as good as two hundred.
        for _ in range(min(settings.n_points, 3) if name == "literal" else settings.n_points):
            weights = torch.from_numpy(perturb(model.dictionary, distance, rng, renormalize=False))
            _, gradient = setting.loss_and_gradient(weights, torch.full((h,), -eps), data)
            norms.append(float(setting.column_norms(gradient.numpy()).mean()))
        found[name] = {
            "eps": eps,
            "norm": float(np.mean(norms)),
            "spread": float(np.std(norms) / np.mean(norms)) if np.mean(norms) > 0 else 0.0,
            "k": model.k,
        }
    return found


def run(settings: Settings) -> Run:
    """Every cell, for every dictionary."""
    cells = []
    places = list(product(settings.h, settings.p))
    work = np.cumsum([0, *(h for h, _ in places)])
    m2 = 37.0  # E[x^2] of U[1, 10]
    for index, (h, p) in enumerate(places):
        yield Progress(work[index] / work[-1], f"h = {h}, p = {p:g}")
        seeds = range(settings.seed, settings.seed + settings.n_seeds)
        found = [cell(h, p, settings, seed) for seed in seeds]
        record: dict[str, Any] = {
            "h": h,
            "p": p,
            "k": found[0]["literal"]["k"],
            "order": h ** (p - 1),
        }
        for name in setting.BIASES:
            norms = [each[name]["norm"] for each in found]
            record[name] = {
                "eps": float(np.mean([each[name]["eps"] for each in found])),
                "norm": float(np.mean(norms)),
                "norms": norms,
                "spread_over_points": max(each[name]["spread"] for each in found),
            }
        norm, norms = record["matching"]["norm"], record["matching"]["norms"]
        record["scaled"] = norm / setting.DECLARED_CONSTANT
        record["ratio"] = norm / (m2 * record["order"])
        known = PAPER.get(h) if p in PAPER_P and settings.n == 50 else None
        record["range"] = [each / setting.DECLARED_CONSTANT for each in (min(norms), max(norms))]
        record["paper"] = known[PAPER_P.index(p)] if known else None
        cells.append(record)
    yield Progress(1.0, "done")
    return Outcome(
        numbers={"cells": cells, "declared_constant": setting.DECLARED_CONSTANT, "m2": m2},
        verdicts=tuple(_verdicts(cells, settings.rounding)),
        departures=("literal bias silences every unit", "the printed norms rise"),
        paper={"h": list(PAPER), "p": list(PAPER_P), "norm": list(PAPER.values())},
        tables=(_table(cells, settings), _literal_table(cells, settings)),
        notes=NOTES,
    )


def printed_rises() -> list[tuple[float, int, int]]:
    """Where the printed norms grow with h, against the table's caption: p, one h and the next."""
    return [
        (p, before, after)
        for column, p in enumerate(PAPER_P)
        for before, after in pairwise(PAPER)
        if PAPER[after][column] > PAPER[before][column]
    ]


def _literal_verdicts(cells: list[dict[str, Any]], rounding: Rounding) -> list[Check]:
    """What the theorem's own bias gives, without any constant."""
    if rounding == "ceil":
        silent = max(each["literal"]["norm"] for each in cells)
        claim = (
            "the theorem's literal bias silences every unit where h^p is rounded up: largest norm"
        )
        return [at_most(claim, silent, 0.0)]
    large = [each["literal"]["norm"] for each in cells if each["p"] >= 0.2]
    checks = []
    if large:
        claim = (
            "the theorem's literal bias silences every unit for p >= .2 however h^p is rounded: "
            "largest norm"
        )
        checks.append(at_most(claim, max(large), 0.0))
    known = [each for each in cells if each["paper"] and each["p"] == PAPER_P[0] and each["k"] == 1]
    if known:
        factors = [_factor(each["literal"]["norm"], each["paper"]) for each in known]
        claim = (
            "p = .05, k = 1: the literal bias gives the paper's numbers without any constant: "
            "worst factor between the two"
        )
        checks.append(at_most(claim, max(factors), 3.0))
    return checks


def _factor(ours: float, theirs: float) -> float:
    return max(ours / theirs, theirs / ours) if ours > 0 else float("inf")


def _verdicts(cells: list[dict[str, Any]], rounding: Rounding = "ceil") -> list[Check]:
    checks = _literal_verdicts(cells, rounding)
    rises: list[float] = []
    doubled: list[float] = []
    for p in dict.fromkeys(each["p"] for each in cells):
        for before, after in _pairs([each for each in cells if each["p"] == p]):
            if before["matching"]["norm"] > 0:
                # From one active unit to two: a step of the rounding, not of h.
                jumps = (before["k"], after["k"]) == (1, 2)
                ratio = after["matching"]["norm"] / before["matching"]["norm"]
                (doubled if jumps else rises).append(ratio)
    if rises:
        claim = "the norm does not rise with h, for each p: largest ratio of one h to the last"
        # Rounded down, p = .1 is even from h = 2048 to 4096, but for how dictionaries differ.
        checks.append(at_most(claim, max(rises), 1.0 if rounding == "ceil" else 1.1))
    if doubled:
        claim = "but where k goes from 1 to 2, as the rounding has it: least ratio there"
        checks.append(at_least(claim, min(doubled), 1.0))
    ratios = [each["ratio"] for each in cells if each["p"] <= 0.3]
    if ratios:
        claim = "p <= .3: norm / (m2 h^(p-1)), the {} of the cells"
        checks.append(between(claim.format("least"), min(ratios), 0.15, 1.6))
        checks.append(between(claim.format("largest"), max(ratios), 0.15, 1.6))
    late = [each["scaled"] for each in cells if each["p"] == 0.5 and each["h"] >= 1024]
    if late:
        claim = "p = .5, h >= 1024: largest norm after the declared constant"
        checks.append(at_most(claim, max(late), 0.005))
    known = [each for each in cells if each["paper"]]
    if known:
        printed = printed_rises()
        claim = (
            "the printed norms rise with h, against their caption: p = .1, .0071 to .0079: times"
        )
        checks.append(between(claim, len(printed), 1, 1))
    if known and rounding == "ceil":
        claim = (
            "after the declared constant, the worst factor between a non-zero cell of the paper, "
            "one dictionary, and the range over ours"
        )
        checks.append(at_most(claim, max(_beyond(each) for each in known), 3.0))
        close = sum(0.5 <= each["scaled"] / each["paper"] <= 2 for each in known)
        claim = f"of {len(known)} such cells, those whose mean is within a factor 2"
        checks.append(at_least(claim, close, 18 * len(known) / 22))
    return checks


def _beyond(each: dict[str, Any]) -> float:
    """How many times above or below all of ours the paper's number is."""
    low, high = each["range"]
    above = each["paper"] / high if high > 0 else np.inf
    return float(max(above, low / each["paper"], 1.0))


def _pairs(column: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    ordered = sorted(column, key=lambda each: each["h"])
    return list(pairwise(ordered))


def _table(cells: list[dict[str, Any]], settings: Settings) -> Table:
    by_place = {(each["h"], each["p"]): each for each in cells}

    def say(h: int, p: float) -> str:
        each = by_place[h, p]
        ours = f"{each['scaled']:.4f}"
        return ours if each["paper"] is None else f"{ours} ({each['paper']:.4f})"

    rows = tuple((h, *(say(h, p) for p in settings.p)) for h in settings.h)
    head = ("h", *(f"p = {p:g}" for p in settings.p))
    note = (
        f"Mean column norm of the gradient, divided by {setting.DECLARED_CONSTANT:g}, over "
        f"{settings.n_seeds} dictionaries; the paper's number, of one dictionary, in brackets."
    )
    return Table("Gradient norm, ours (the paper's)", head, rows, note)


def _literal_table(cells: list[dict[str, Any]], settings: Settings) -> Table:
    by_place = {(each["h"], each["p"]): each for each in cells}

    def say(h: int, p: float) -> str:
        each = by_place[h, p]
        norms = each["literal"]["norms"]
        shown = f"{min(norms):.4f} to {max(norms):.4f}" if max(norms) > 0 else "0"
        return f"{shown} (k = {each['k']})"

    rows = tuple((h, *(say(h, p) for p in settings.p)) for h in settings.h)
    head = ("h", *(f"p = {p:g}" for p in settings.p))
    note = (
        "Mean column norm with eps = 2 m1 k (delta/2 + coherence), least to largest of "
        f"{settings.n_seeds} dictionaries, divided by nothing. h^p is rounded: {settings.rounding}."
    )
    return Table("With the theorem's own bias", head, rows, note)


NOTES = (
    "The paper does not state the bias of these experiments. With Theorem 3.1's own, "
    "2 m1 k (delta + mu/sqrt n), and k = h^p rounded up, no unit answers and the gradient is "
    "exactly 0: the separation condition would need non-zeros of at least 44 where they start at "
    "1. Rounded down, as 'at most h^p non-zero elements' has it (--set rounding=floor), k is 1 "
    "for p = .05, and for p = .1 up to h = 512: there a few units answer, and the column of "
    "p = .05 is the paper's within a factor of 2 or 3 without any constant. For p >= .2 the "
    "gradient is 0 under every rounding, so that bias alone can't have made the table.",
    "The reading that keeps the table's shape, eps = 2 m1 k (delta/2 + coherence/sqrt n), divides "
    "the coherence by sqrt n once more, and the first number of each cell is about a fifteenth of "
    "the mean column norm. Both were found by search, after the fact, and are declared rather than "
    "explained.",
    "Dictionaries differ: where most units are silent, the norm follows how far the largest of "
    "h^2/2 inner products happens to be out. At h = 512, p = .5 they range over a factor 20 and "
    "more, so that the paper's one number is compared with the range; the table shows the mean.",
    "The caption says that the norm falls with h for any fixed p. The printed column of p = .1 has "
    "one exception, .0071 at h = 512 and .0079 at 1024. With h^p rounded down that is where k goes "
    "from 1 to 2, and the norm doubles there in these runs as well; nothing of the kind happens "
    "with h^p rounded up.",
)


def plot(result: dict[str, Any], pen: Pen) -> Figure:
    """Norms beside the paper's, and their ratio to m2 h^(p-1)."""
    figure, (left, right) = panels(2)
    cells = result["numbers"]["cells"]
    right.axhspan(0.15, 1.6, color=pen.soft, alpha=0.25, linewidth=0)
    for hue, p in zip(HUES * 2, dict.fromkeys(each["p"] for each in cells), strict=False):
        column = [each for each in cells if each["p"] == p]
        shown = [each for each in column if each["scaled"] > 0]
        h = [each["h"] for each in shown]
        left.plot(
            h, [each["scaled"] for each in shown], color=hue, marker="o", ms=4, label=f"{p:g}"
        )
        known = [each for each in column if each["paper"]]
        left.plot(
            [each["h"] for each in known],
            [each["paper"] for each in known],
            color=hue,
            linestyle=(0, (1, 2)),
            marker="s",
            markersize=5,
            markerfacecolor="none",
        )
        right.plot(h, [each["ratio"] for each in shown], color=hue, marker="o", ms=4)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("h, units")
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    left.set_ylabel(f"mean gradient norm / {result['numbers']['declared_constant']:g}")
    right.set_ylabel("norm / (m2 h^(p-1))")
    left.legend(title="p", frameon=False, fontsize=9, title_fontsize=9, ncols=2)
    return figure


EXPERIMENT = Experiment(
    name="rangamani2017/table1",
    title="Table 1: the gradient norm near the truth falls with h",
    source="Rangamani et al. 2017, Table 1",
    about=(
        "At 200 points columnwise delta/2 = 1/(2 h^(2p)) away from the true dictionary, the mean "
        "norm of a unit's gradient is compared with h^(p-1), the order of Theorem 3.2. Bias "
        "candidates stand side by side: the theorem's own, and the one that matches the table."
    ),
    settings=Settings,
    scales={
        "smoke": {"n_samples": 300, "h": (64, 128), "p": (0.1, 0.3), "n_points": 2, "n_seeds": 1},
        "reduced": {"n_points": 2},
    },
    run=run,
    plot=plot,
    caption=(
        "Left: the mean gradient norm after the declared constant (lines, dots) beside the "
        "paper's numbers (dotted, squares); cells that are 0 have no place on a log axis. Right: "
        "its ratio to m2 h^(p-1), with the band from .15 to 1.6."
    ),
)

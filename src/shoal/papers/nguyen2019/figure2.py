"""Figure 2: how far the means are from the truth, step by step, and what bias 0 does to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.claims import Check, at_least, between
from shoal.experiments import Experiment, Outcome, Run
from shoal.papers.nguyen2019 import mixtures
from shoal.papers.nguyen2019.mixtures import Curve, Settings, likelihood_floor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shoal.report.drawing import Pen


def run(settings: Settings) -> Run:
    """Every descent of the protocol."""
    curves = yield from mixtures.runs(settings)
    floors = {
        sigma: likelihood_floor(settings.m, settings.n, sigma, settings.n_samples)
        for sigma in settings.sigma
    }
    return Outcome(
        numbers={
            "curves": mixtures.summary(curves, "distances"),
            "floors": [{"sigma": sigma, "floor": value} for sigma, value in floors.items()],
            "descents": [
                {
                    "sigma": each.sigma,
                    "start": each.start,
                    "clamped": each.clamped,
                    "seed": each.seed,
                    "found": each.found,
                    "end_over_floor": each.distances[-1] / floors[each.sigma],
                    "best_over_floor": min(each.distances) / floors[each.sigma],
                    "best_step": int(np.argmin(each.distances)),
                }
                for each in curves
            ],
        },
        verdicts=tuple(verdicts(curves, floors, settings.m)),
        departures=("it is spoiled later",),
        tables=(mixtures.counts(curves, settings.m),),
        notes=(*mixtures.RECALLED, *NOTES),
    )


def verdicts(curves: list[Curve], floors: dict[float, float], m: int) -> list[Check]:
    """The clamp against the maximum-likelihood floor; bias 0 against its own best step."""
    done = [each for each in mixtures.group(curves, clamped=True) if each.found == m]
    ratios = [each.distances[-1] / floors[each.sigma] for each in done] or [np.nan]
    free = mixtures.group(curves, clamped=False, start="near")
    best = [min(each.distances) for each in free]
    spoiled = [each.distances[-1] / least for each, least in zip(free, best, strict=True)]
    others = [each for each in mixtures.group(curves, clamped=False) if each.start != "near"]
    claim = f"clamp, {{}} of the {len(done)} runs with all means: last F / (m sigma sqrt(n/N))"
    return [
        between(claim.format("least"), min(ratios), 0.9, 1.1),
        between(claim.format("largest"), max(ratios), 0.9, 1.1),
        between(
            "bias to 0, start near: best F / (m sigma sqrt(n/N)), median over runs",
            float(np.median([b / floors[each.sigma] for b, each in zip(best, free, strict=True)])),
            0.9,
            1.5,
        ),
        between(
            "bias to 0, start near: the step of the best F, median over runs",
            float(np.median([np.argmin(each.distances) for each in free])),
            4,
            6,
        ),
        at_least(
            "bias to 0, start near: last F over best F, median over runs: it is spoiled later",
            float(np.median(spoiled)),
            2.0,
        ),
        at_least(
            "bias to 0, other starts: least F of any step over m sigma sqrt(n/N), median over runs",
            float(np.median([min(each.distances) / floors[each.sigma] for each in others])),
            2.0,
            "the floor isn't reached",
        ),
    ]


NOTES = (
    "F = |W - A|_F after the best matching of atoms to means, signs fixed. The floor is what the "
    "maximum-likelihood means, averages over each cluster's samples, are off by.",
    "Theorem 4 has infinitely many samples and says nothing of when to stop. On finite data "
    "halving to 0 is best after some five steps; then units fire on samples of other means, too, "
    "and their atoms swing about the truth at a multiple of the floor. The clamp keeps those "
    "units silent and the means at the floor, but also keeps a random start from learning.",
    "To halve to 0 first and clamp afterwards would suggest itself; that isn't done here.",
)


def plot(result: dict[str, Any], pen: Pen) -> Figure:
    """F by step, and the floor."""
    figure, axes = mixtures.draw(result, pen, "|W − A|, Frobenius", 0)
    for place, each in zip(axes, result["numbers"]["floors"], strict=True):
        place.axhline(each["floor"], color=pen.ink, linewidth=1, linestyle=(0, (1, 2)))
    axes[0].plot([], [], color=pen.ink, linewidth=1, linestyle=(0, (1, 2)), label="m σ √(n/N)")
    mixtures.legend(figure, axes[0])
    return figure


EXPERIMENT = Experiment(
    name="nguyen2019/figure2",
    title="Distance to the means: at the statistical floor, until the bias reaches 0",
    source="Nguyen et al. 2019 (AISTATS), experiments; protocol recalled, not quoted",
    about=(
        "The same descents as in Figure 1, measured by their distance to the true means after "
        "matching. Beside them stands what no method that knows the clusters could beat on "
        "average, m sigma sqrt(n/N)."
    ),
    settings=Settings,
    scales=mixtures.SCALES,
    run=run,
    plot=plot,
    caption=(
        "Frobenius distance after each step for starts near the truth, from principal directions "
        "and at random: medians over data sets, shaded from least to largest. Lines: the bias "
        "stops at -3 (sigma + 1/sqrt n). Dashed: it halves to 0. Dotted: m sigma sqrt(n/N)."
    ),
)

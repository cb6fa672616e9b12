"""Figure 1: learning curves of the mixture, from three starts and at three noises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.claims import Check, at_least, at_most
from shoal.experiments import Experiment, Outcome, Run
from shoal.papers.nguyen2019 import mixtures
from shoal.papers.nguyen2019.mixtures import Curve, Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shoal.report.drawing import Pen


def run(settings: Settings) -> Run:
    """Every descent of the protocol."""
    curves = yield from mixtures.runs(settings)
    return Outcome(
        numbers={
            "curves": mixtures.summary(curves, "losses"),
            "descents": [
                {
                    "sigma": each.sigma,
                    "start": each.start,
                    "clamped": each.clamped,
                    "seed": each.seed,
                    "found": each.found,
                    "unrest": unrest(each.losses),
                    "left": left(each, settings.n),
                }
                for each in curves
            ],
        },
        verdicts=tuple(verdicts(curves, settings.m, settings.n)),
        tables=(mixtures.counts(curves, settings.m),),
        notes=(*mixtures.RECALLED, *NOTES),
    )


def unrest(losses: list[float]) -> float:
    """The range of the last ten losses over the last one."""
    late = losses[-10:]
    return float((max(late) - min(late)) / late[-1]) if late[-1] > 0 else np.inf


def left(curve: Curve, n: int) -> float:
    """The last loss above the noise's n sigma^2 / 2, as a share of the means' 1/2."""
    return 2 * curve.losses[-1] - n * curve.sigma**2


def verdicts(curves: list[Curve], m: int, n: int) -> list[Check]:
    """The protocol as it is recalled first, then with the clamp."""
    free = mixtures.group(curves, clamped=False)
    near = mixtures.group(curves, clamped=True, start="near")
    pca = mixtures.group(curves, clamped=True, start="pca")
    random = mixtures.group(curves, clamped=True, start="random")
    last = {(each.sigma, each.seed): each.losses[-1] for each in near}
    pairs = [each for each in free if each.start == "near"]
    lower = [each.losses[-1] < last[each.sigma, each.seed] for each in pairs]

    def share(group: list[Curve]) -> float:
        return float(np.mean([each.found == m for each in group]))

    return [
        at_most(
            "bias to 0: what the last loss leaves of the means' power, median over the runs of "
            "the worst start",
            max(
                float(np.median([left(each, n) for each in free if each.start == start]))
                for start in mixtures.STARTS
            ),
            0.05,
        ),
        at_most(
            "bias to 0: range of the last ten losses over the last one, median over runs",
            float(np.median([unrest(each.losses) for each in free])),
            0.1,
        ),
        at_least(f"bias to 0: share of {len(free)} runs that find all {m} means", share(free), 0.7),
        at_least(f"clamp, start near: share of {len(near)} runs that do", share(near), 1.0),
        at_most(
            "clamp, start near: range of the last ten losses over the last one, worst run",
            max(unrest(each.losses) for each in near),
            0.01,
        ),
        at_least(f"clamp, start pca: share of {len(pca)} runs that do", share(pca), 0.4),
        at_most(
            "clamp, start random: share of the means found, since units stay silent",
            float(np.mean([each.found / m for each in random])),
            0.1,
        ),
        at_least(
            "start near: share of runs whose last loss is lower without the clamp",
            float(np.mean(lower)),
            0.7,
            "though the means are farther off: Figure 2",
        ),
    ]


NOTES = (
    "The bias does two things here. A random start needs it near 0: its atoms have cosines of "
    "about 1/sqrt n with the means, and units that the clamp keeps silent never learn. But at 0 "
    "a unit fires on half of the samples of the other means, and that spoils its own, though "
    "the loss hardly shows it: it is mostly lower than with the clamp, which costs b^2 / 2.",
    "Losses that settle to a few per cent, rather than to a limit, are what halving to 0 gives: "
    "units go on trading noise. Some starts find the last mean only after dozens of steps.",
)


def plot(result: dict[str, Any], pen: Pen) -> Figure:
    """Loss by step."""
    figure, axes = mixtures.draw(result, pen, "loss ½|y − ŷ|²", 1)
    mixtures.legend(figure, axes[0])
    return figure


EXPERIMENT = Experiment(
    name="nguyen2019/figure1",
    title="Learning curves of a mixture: with a bias that halves to 0, from every start",
    source="Nguyen et al. 2019 (AISTATS), experiments; protocol recalled, not quoted",
    about=(
        "Ten Gaussian means in 784 dimensions, a tied ReLU autoencoder, three starts and three "
        "noises. The bias halves at every step, to 0 as in the protocol that is recalled here, "
        "or to a clamp, which is ours. Theorem 4 (i.2) halves to 0 with infinitely many samples."
    ),
    settings=Settings,
    scales=mixtures.SCALES,
    run=run,
    plot=plot,
    caption=(
        "Loss before each step for starts near the truth, from principal directions and at "
        "random: medians over data sets, shaded from least to largest. Lines: the bias stops at "
        "-3 (sigma + 1/sqrt n). Dashed: it halves to 0."
    ),
)

"""Figure 5: sigmoid with atoms of any length."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shoal.claims import Check, at_least
from shoal.experiments import Experiment, Outcome, Run
from shoal.papers.arpit2016 import setting
from shoal.papers.arpit2016.setting import Cell, Plan, ladder
from shoal.vocabulary import check_number

PENALTIES = ("dae", "cae", "mdae", "sae")


@dataclass(frozen=True)
class Settings(setting.Settings):
    """Section 3's protocol, at the high end of its rates, as for Figure 4, and at a slower one."""

    learning_rate: float = 0.005
    slow_rate: float = 0.002

    def __post_init__(self) -> None:
        """Check them."""
        super().__post_init__()
        check_number("slow_rate", self.slow_rate, low=0.0, open_low=True)


def run(settings: Settings) -> Run:
    """Four penalties at every strength, with atoms of any length."""
    known = yield from setting.load_all(settings)
    curves = {name: ladder(name, settings.strengths, "sigmoid") for name in PENALTIES}
    free = settings.momentum(weight_length="free")
    plans = [
        Plan("main", [each for curve in curves.values() for each in curve], free),
        Plan(
            "slow",
            [*curves["cae"], *curves["mdae"]],
            replace(free, learning_rate=settings.slow_rate),
        ),
    ]
    cells = yield from setting.measure(settings, plans, known)
    words = f"“slow”: at a rate of {settings.slow_rate:g}."
    return Outcome(
        numbers={"cells": cells, "changes": setting.changes(cells)},
        verdicts=tuple(_verdicts(cells)),
        tables=(*setting.tables(cells, words), setting.trend_table(cells)),
        notes=(*setting.data_notes(known, settings), *NOTES),
    )


def _verdicts(cells: list[Cell]) -> list[Check]:
    """Whether a trend differs between data sets, or turns within one."""
    checks = []
    for plan in dict.fromkeys(each["plan"] for each in cells):
        unlike = 0
        for name in ("CAE", "mDAE"):
            curves = setting.changes(setting.named(cells, label=name, plan=plan))
            trends = [each["trend"] for each in curves]
            unlike += len(set(trends)) > 1 or "turns" in trends
        claim = "CAE and mDAE: how many have trends that differ between data sets, or that turn"
        claim += "" if plan == "main" else f", at the {plan} rate"
        checks.append(at_least(claim, unlike, 1, "declared: which way is not foretold"))
    return checks


NOTES = (
    "The paper calls the trends of CAE and mDAE here unpredictable, and different on its two data "
    "sets; which way they go it does not state. What is judged is whether their trends differ in a "
    "word or turn. The slow rate was added after the fact, when with 64 units both fell on both "
    "data sets at the high rate that Figure 4 needs. With 200 units mDAE does not: whether the "
    "claim holds depends on the number of units and on the rate, within the paper's range.",
    setting.TREND,
)

EXPERIMENT = Experiment(
    name="arpit2016/figure5",
    title="Figure 5: with sigmoid and free lengths, whether CAE and mDAE can be foretold",
    source="Arpit et al. 2016, Figure 5",
    about=(
        "As Figure 4, but the atoms may have any length: the trends of the contractive and the "
        "marginalised denoising autoencoder are said to differ between data sets."
    ),
    settings=Settings,
    scales={
        "smoke": {
            "data": ("digits", "patches"), "n_samples": 500, "n_components": 24,
            "strengths": (0.0, 1.0), "n_epochs": 40, "n_jobs": 1,
        },
        "reduced": {
            "data": ("mnist", "patches"), "n_samples": 2500, "shrink": 2, "n_components": 200,
            "strengths": (0.0, 0.25, 1.0), "n_epochs": 200, "n_seeds": 3,
        },
    },
    run=run,
    plot=setting.plot,
    caption=(
        "Activation fraction, codes above .1 (solid), and dead units (dashed) against the strength "
        "of the penalty, sigmoid, atoms of any length; left digits, right natural patches."
    ),
)  # fmt: skip

"""Figure 4: sigmoid, and softplus, with atoms of length 1."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.claims import Check
from shoal.experiments import Experiment, Outcome, Run
from shoal.papers.arpit2016 import setting
from shoal.papers.arpit2016.setting import Cell, Plan, ladder
from shoal.vocabulary import check_number

PENALTIES = {"sigmoid": ("dae", "cae", "mdae", "sae"), "softplus": ("dae", "cae", "sae")}


@dataclass(frozen=True)
class Settings(setting.Settings):
    """Section 3's protocol: sigmoid at the high end of its rates, softplus at the low end."""

    # The slope of a sigmoid is at most 1/4: at .001 it needs many times the steps.
    learning_rate: float = 0.005
    # At .005 the unpenalised softplus network collapses.
    softplus_rate: float = 0.001

    def __post_init__(self) -> None:
        """Check them."""
        super().__post_init__()
        check_number("softplus_rate", self.softplus_rate, low=0.0, open_low=True)


def run(settings: Settings) -> Run:
    """Every penalty at every strength, for both activations."""
    known = yield from setting.load_all(settings)
    rates = {"sigmoid": settings.learning_rate, "softplus": settings.softplus_rate}
    plans = [
        Plan(
            "main",
            [each for name in names for each in ladder(name, settings.strengths, activation)],
            settings.momentum(learning_rate=rates[activation]),
        )
        for activation, names in PENALTIES.items()
    ]
    cells = yield from setting.measure(settings, plans, known)
    return Outcome(
        numbers={"cells": cells},
        verdicts=tuple(_verdicts(cells)),
        tables=setting.tables(cells),
        notes=(
            *setting.data_notes(known, settings),
            f"Softplus is trained at a rate of {settings.softplus_rate:g}.",
            *NOTES,
        ),
    )


def _verdicts(cells: list[Cell]) -> list[Check]:
    checks = []
    for data in dict.fromkeys(each["data"] for each in cells):
        for activation in dict.fromkeys(each["activation"] for each in cells):
            here = setting.named(cells, data=data, activation=activation)
            for name in dict.fromkeys(each["label"] for each in here):
                checks += setting.falling(here, f"{data}, {activation}, {name}", label=name)
    return checks


NOTES = (
    "With sigmoid the activation fraction moves slowly: of the order of 10 000 steps are needed "
    "before the contractive penalties can be told from none. The paper doesn't show softplus, "
    "and says that its trends are similar.",
    setting.TREND,
)

EXPERIMENT = Experiment(
    name="arpit2016/figure4",
    title="Figure 4: with sigmoid all four penalties make sparse",
    source="Arpit et al. 2016, Figure 4",
    about=(
        "The average activation fraction of a sigmoid autoencoder with atoms of length 1 falls "
        "with the strength of every penalty, as each of them has a positive bias gradient; so "
        "does that of a softplus autoencoder."
    ),
    settings=Settings,
    scales={
        "smoke": {
            "data": ("digits", "patches"), "n_samples": 500, "n_components": 24,
            "strengths": (0.0, 1.0), "n_epochs": 25, "n_jobs": 1,
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
        "of the penalty, atoms of length 1, for sigmoid and softplus on digits and on natural "
        "patches."
    ),
)  # fmt: skip

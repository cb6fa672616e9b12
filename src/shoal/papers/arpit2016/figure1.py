"""Figure 1: ReLU with atoms of length 1."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.claims import Check, at_least, at_most
from shoal.experiments import Experiment, Outcome, Run
from shoal.papers.arpit2016 import setting
from shoal.papers.arpit2016.setting import Cell, Plan, ladder
from shoal.vocabulary import check_number

# Bounds on the activation fraction at strength 1 over that at 0.
_FALLS_TO = {"DAE": 0.15, "SAE": 0.25}
PENALTIES = ("dae", "cae", "mdae", "sae")


@dataclass(frozen=True)
class Settings(setting.Settings):
    """Section 3's protocol, and a rate at which CAE and mDAE part."""

    fast_rate: float = 0.003

    def __post_init__(self) -> None:
        """Check them."""
        super().__post_init__()
        check_number("fast_rate", self.fast_rate, low=0.0, open_low=True)


def run(settings: Settings) -> Run:
    """Four penalties at every strength; the two contractive ones with tangent steps as well."""
    known = yield from setting.load_all(settings)
    points = [each for name in PENALTIES for each in ladder(name, settings.strengths)]
    outer = [each for each in settings.strengths if each in (0.0, 1.0)]
    contractive = [each for name in ("cae", "mdae") for each in ladder(name, outer)]
    plans = [
        Plan("main", points, settings.momentum()),
        Plan("tangent", contractive, settings.momentum(tangent=True)),
        Plan("fast", contractive, settings.momentum(learning_rate=settings.fast_rate)),
    ]
    cells = yield from setting.measure(settings, plans, known)
    words = f"“tangent”: tangent steps; “fast”: at a rate of {settings.fast_rate:g}."
    return Outcome(
        numbers={"cells": cells},
        verdicts=tuple(_verdicts(cells)),
        departures=("does not stay",),
        tables=setting.tables(cells, words),
        notes=(*setting.data_notes(known, settings), *NOTES),
    )


def _verdicts(cells: list[Cell]) -> list[Check]:
    checks: list[Check] = []
    fast: dict[tuple[str, str], float] = {}
    for data in dict.fromkeys(each["data"] for each in cells):
        main = setting.named(cells, data=data, plan="main")
        for name in ("CAE", "mDAE"):
            if outer := setting.ends(main, label=name):
                claim = f"{data}, {name}: relative change of the activation fraction from 0 to 1"
                change = abs(outer[1] - outer[0]) / outer[0] if outer[0] > 0 else float("nan")
                error = setting.relative_error(main, label=name)
                checks.append(at_most(claim, change, 0.15, error=error))
            if outer := setting.ends(cells, data=data, plan="tangent", label=name):
                claim = f"{data}, {name} with tangent steps: absolute change from 0 to 1"
                checks.append(at_most(claim, abs(outer[1] - outer[0]), 1e-4))
            if outer := setting.ends(cells, data=data, plan="fast", label=name):
                fast[data, name] = abs(outer[1] - outer[0]) / outer[0]
        for name, bound in _FALLS_TO.items():
            checks += setting.falling(main, f"{data}, {name}", label=name)
            if outer := setting.ends(main, label=name):
                claim = f"{data}, {name}: the activation fraction at 1 over that at 0"
                ratio = outer[1] / outer[0] if outer[0] > 0 else float("nan")
                error = setting.relative_error(main, label=name)
                checks.append(at_most(claim, ratio, bound, error=error))
        checks += _dead(data, setting.named(main, label="DAE"))
    if fast:
        claim = "at the fast rate {}, {} does not stay: the largest relative change from 0 to 1"
        most = max(fast, key=lambda place: fast[place])
        checks.append(at_least(claim.format(*most), fast[most], 0.15))
    return checks


def _dead(data: str, curve: list[Cell]) -> list[Check]:
    """Dead units of the denoising autoencoder, above and below an activation fraction of .05."""
    checks = []
    # .06 rather than .05: the paper says "around".
    above = [each["dead_fraction"] for each in curve if each["activation_fraction"] >= 0.06]
    under = [each["dead_fraction"] for each in curve if each["activation_fraction"] < 0.05]
    if above:
        claim = f"{data}, DAE: most dead units where the activation fraction is .06 or more"
        checks.append(at_most(claim, max(above), 0.02))
    if above and under:
        claim = f"{data}, DAE: most dead units where it is below .05, less those above .06"
        checks.append(at_least(claim, max(under) - max(above), 0.02))
    return checks


NOTES = (
    "CAE and mDAE have one objective at unit length, but not one gradient: their parts along the "
    "atoms differ by a factor 2. Atoms that are brought back to length 1 after each step turn by "
    "another amount where the penalty pulls along them. With tangent steps, which leave that part "
    "out, a ReLU network trains as if there were no penalty at all: Theorem 1's case of no bias "
    "gradient, exactly. With tangent steps CAE and mDAE are one run.",
    "What the pull along the atoms does grows with the rate and with the number of steps: “fast” "
    "is a rate within the paper's range. All else is at its low end.",
    setting.TREND,
    "A unit is dead where it is silent on every sample: of fewer samples more would be.",
)

EXPERIMENT = Experiment(
    name="arpit2016/figure1",
    title="Figure 1: with ReLU, DAE and SAE become sparse, CAE and mDAE do not",
    source="Arpit et al. 2016, Figure 1",
    about=(
        "The average activation fraction of a ReLU autoencoder with atoms of length 1, against the "
        "strength of its penalty: denoising and sparse autoencoders fall, contractive and "
        "marginalised denoising ones, whose bias gradient is 0 for ReLU, stay."
    ),
    settings=Settings,
    scales={
        "smoke": {
            "data": ("digits", "patches"), "n_samples": 500, "n_components": 24,
            "strengths": (0.0, 1.0), "n_epochs": 30, "learning_rate": 0.005,
            "fast_rate": 0.01, "n_jobs": 1,
        },
        "reduced": {
            "data": ("mnist", "patches"), "n_samples": 3000, "shrink": 2, "n_components": 200,
            "strengths": setting.JUDGED, "n_epochs": 20, "n_seeds": 3,
        },
    },
    run=run,
    plot=setting.plot,
    caption=(
        "Activation fraction (solid) and dead units (dashed) against the strength of the penalty, "
        "ReLU, atoms of length 1; left digits, right natural patches."
    ),
)  # fmt: skip

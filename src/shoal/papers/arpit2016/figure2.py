"""Figure 2: ReLU with atoms of any length."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.claims import Check, at_least
from shoal.experiments import Experiment, Outcome, Run
from shoal.papers.arpit2016 import setting
from shoal.papers.arpit2016.setting import Cell, Plan, ladder

PENALTIES = ("dae", "cae", "mdae", "sae")


@dataclass(frozen=True)
class Settings(setting.Settings):
    """Section 3's protocol, at a rate in the midst of its range."""

    # Free atoms have to grow first: at .001 what is seen is how fast they do.
    learning_rate: float = 0.003


def run(settings: Settings) -> Run:
    """Four penalties at every strength, with atoms of any length."""
    known = yield from setting.load_all(settings)
    points = [each for name in PENALTIES for each in ladder(name, settings.strengths)]
    plans = [Plan("main", points, settings.momentum(weight_length="free"))]
    cells = yield from setting.measure(settings, plans, known)
    return Outcome(
        numbers={"cells": cells, "changes": setting.changes(cells)},
        verdicts=tuple(_verdicts(cells)),
        tables=(*setting.tables(cells), setting.trend_table(cells)),
        notes=(*setting.data_notes(known, settings), *NOTES),
    )


def _verdicts(cells: list[Cell]) -> list[Check]:
    checks = []
    both = [
        name
        for name in ("CAE", "mDAE")
        if {"rises", "falls"}
        <= {each["trend"] for each in setting.changes(setting.named(cells, label=name))}
    ]
    if len({each["data"] for each in cells}) > 1:
        claim = "CAE and mDAE: how many rise on one data set and fall on another, from 0 to 1"
        checks.append(at_least(claim, len(both), 1))
    denoising = [each["activation_fraction"] for each in cells if each["label"] == "DAE"]
    claim = "DAE: the least activation fraction at any strength, on any data set"
    checks.append(at_least(claim, min(denoising), 0.1))
    return checks


NOTES = (
    "How long training goes on decides much here. Early on, CAE and mDAE rise on both data sets, "
    "as shorter atoms follow their bias; later the unpenalised network rises too, on digits past "
    "the penalised ones. The denoising autoencoder still falls as training ends.",
    setting.TREND,
)

EXPERIMENT = Experiment(
    name="arpit2016/figure2",
    title="Figure 2: with ReLU and free lengths, CAE and mDAE cannot be foretold",
    source="Arpit et al. 2016, Figure 2",
    about=(
        "As Figure 1, but the atoms may have any length: then the strength acts on the length, the "
        "length on the bias gradient, and the trend of the contractive and the marginalised "
        "denoising autoencoder differs between data sets."
    ),
    settings=Settings,
    scales={
        "smoke": {
            "data": ("digits", "patches"), "n_samples": 500, "n_components": 24,
            "strengths": (0.0, 1.0), "n_epochs": 60, "learning_rate": 0.005, "n_jobs": 1,
        },
        "reduced": {
            "data": ("mnist", "patches"), "n_samples": 3000, "shrink": 2, "n_components": 200,
            "strengths": setting.JUDGED, "n_epochs": 40, "n_seeds": 3,
        },
    },
    run=run,
    plot=setting.plot,
    caption=(
        "Activation fraction (solid) and dead units (dashed) against the strength of the penalty, "
        "ReLU, atoms of any length; left digits, right natural patches."
    ),
)  # fmt: skip

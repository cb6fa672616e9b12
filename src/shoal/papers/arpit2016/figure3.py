"""Figure 3: whether the first-order term is what makes the ReLU denoising autoencoder sparse."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.claims import Check, at_least, at_most
from shoal.experiments import Experiment, Outcome, Run
from shoal.papers.arpit2016 import setting
from shoal.papers.arpit2016.setting import Cell, Plan, ladder
from shoal.vocabulary import check_count, check_number


@dataclass(frozen=True)
class Settings(setting.Settings):
    """Section 3's protocol; noises a sample and step, and the half-width of the kink's window."""

    draws: int = 8
    kink: float = 0.1

    def __post_init__(self) -> None:
        """Check them."""
        super().__post_init__()
        check_count("draws", self.draws, low=2)
        check_number("kink", self.kink, low=0.0, open_low=True)


def run(settings: Settings) -> Run:
    """Denoising, its first-order term alone, and contraction with and without the kink."""
    known = yield from setting.load_all(settings)
    strengths = settings.strengths
    points = [
        *ladder("none", [each for each in strengths if each == 0.0]),
        *ladder("dae", strengths),
        *ladder("dae", strengths, antithetic=True),
        *ladder("edae", strengths),
        *ladder("edae", strengths, draws=settings.draws),
        *ladder("cae", strengths),
        *ladder("cae", strengths, kink=settings.kink),
    ]
    plans = [Plan("main", points, settings.momentum())]
    cells = yield from setting.measure(settings, plans, known)
    return Outcome(
        numbers={"cells": cells},
        verdicts=tuple(_verdicts(cells, settings)),
        departures=(
            "stays as sparse without the first-order term",
            "brings little of DAE's fall",
            "is mostly gone",
        ),
        tables=setting.tables(cells),
        notes=(*setting.data_notes(known, settings), *NOTES),
    )


def _verdicts(cells: list[Cell], settings: Settings) -> list[Check]:
    checks = []
    many, kinked = f"eDAE, draws {settings.draws}", f"CAE, kink {settings.kink:g}"
    for data in dict.fromkeys(each["data"] for each in cells):
        here = setting.named(cells, data=data)
        checks += _antithetic(data, here)
        at = {
            name: setting.fraction(here, 1.0, label=name)
            for name in ("DAE", "eDAE", many, "CAE", kinked)
        }
        plain = setting.fraction(here, 0.0, label="AE")
        if plain is None or None in at.values():
            continue
        fall = {name: (plain - float(value or 0.0)) for name, value in at.items()}
        claim = f"{data}: eDAE's activation fraction at 1 over that at 0"
        checks.append(setting.below(claim, 1 - fall["eDAE"] / plain, 1.0))
        claim = f"{data}: eDAE brings little of DAE's fall from 0 to 1: its share"
        checks.append(at_most(claim, _share(fall["eDAE"], fall["DAE"]), 0.5))
        claim = (
            f"{data}: with {settings.draws} draws a step eDAE's effect is mostly gone: its share"
        )
        checks.append(at_most(claim, _share(fall[many], fall["eDAE"]), 0.5))
        claim = f"{data}: CAE with the kink's term brings DAE's fall from 0 to 1: its share"
        checks.append(at_least(claim, _share(fall[kinked], fall["DAE"]), 0.8))
        claim = f"{data}: CAE without it does not: its share"
        checks.append(at_most(claim, _share(fall["CAE"], fall["DAE"]), 0.05))
    return checks


def _antithetic(data: str, here: list[Cell]) -> list[Check]:
    """Noise with both signs, in which all that is odd cancels, against fresh noise."""
    apart = []
    for cell in setting.named(here, label="DAE"):
        other = setting.fraction(here, cell["strength"], label="DAE, antithetic")
        if cell["strength"] > 0 and other is not None:
            apart.append(abs(other / cell["activation_fraction"] - 1))
    if not apart:
        return []
    claim = f"{data}: DAE stays as sparse without the first-order term: largest relative difference"
    return [at_most(claim, max(apart), 0.15)]


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


NOTES = (
    "Section 3.1.1 supposes that the first-order term of the expansion, which is 0 in the mean but "
    "not in a batch, makes the ReLU denoising autoencoder sparse, and tests it with eDAE, which "
    "has that term alone. eDAE does become sparser, but not as sparse, and less so with more "
    "noises a step: what acts is the variance of its gradient. Where each noise is used with both "
    "signs the first-order term cancels exactly, and the denoising autoencoder is as sparse as "
    "before.",
    "What automatic differentiation leaves out is the kink. The mean penalty of a ReLU unit has a "
    "bias gradient of strength times the density of its pre-activation at 0, times |W|^2: the "
    "slope is a step, and its derivative a Dirac, which is 0 wherever it is looked at. With that "
    "term put in, as a mean over a window, the contractive autoencoder becomes sparse as the "
    "denoising one does.",
)

EXPERIMENT = Experiment(
    name="arpit2016/figure3",
    title="Figure 3: it is the kink, not the first-order term, that makes the ReLU DAE sparse",
    source="Arpit et al. 2016, Figure 3 and section 3.1.1",
    about=(
        "The paper finds that the first-order term of the denoising objective alone (eDAE) lowers "
        "the activation fraction of a ReLU network, and takes it for the reason of the denoising "
        "autoencoder's sparsity. Here the term is taken away, averaged over more noises, and set "
        "beside the bias gradient of the ReLU's kink."
    ),
    settings=Settings,
    scales={
        "smoke": {
            "data": ("digits", "patches"), "n_samples": 500, "n_components": 24,
            "strengths": (0.0, 1.0), "n_epochs": 40, "learning_rate": 0.005, "n_jobs": 1,
        },
        "reduced": {
            "data": ("mnist", "patches"), "n_samples": 3000, "shrink": 2, "n_components": 200,
            "strengths": setting.JUDGED, "n_epochs": 20, "n_seeds": 2,
        },
    },
    run=run,
    plot=setting.plot,
    caption=(
        "Activation fraction (solid) and dead units (dashed) against the strength, ReLU, atoms of "
        "length 1; left digits, right natural patches. “antithetic”: each noise with both signs; "
        "“draws”: noises a sample and step; “kink”: half-width of the window for its term."
    ),
)  # fmt: skip

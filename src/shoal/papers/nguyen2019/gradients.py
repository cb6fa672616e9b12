"""Expected gradients in closed form, as printed and as corrected, against sampled ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.claims import Check, at_least, at_most, between
from shoal.experiments import Experiment, Outcome, Progress, Run, Table
from shoal.generative import (
    GenerativeModel,
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    Rademacher,
    SparseCoding,
    perturb,
    random_dictionary,
)
from shoal.report.drawing import HUES, panels
from shoal.theory.nguyen2019 import expected_gradient
from shoal.vocabulary import check_count, check_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shoal.report.drawing import Pen


@dataclass(frozen=True)
class Settings:
    """Three worlds, and samples of growing size."""

    n: int = 128
    m: int = 128  # of sparse coding
    m_mixture: int = 10
    k: int = 5
    delta: float = 0.3
    bias: float = -0.25  # of the ReLU, for mixtures and non-negative codes
    noise: float = 0.02  # of the mixture
    n_samples: tuple[int, ...] = (1000, 4000, 16_000, 64_000, 256_000)
    n_seeds: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n", "m", "m_mixture", "n_seeds"):
            check_count(name, getattr(self, name))
        check_count("k", self.k, high=self.m)
        for size in self.n_samples:
            check_count("n_samples", size, low=80)
        check_number("delta", self.delta, low=0.0, high=1.4)
        check_number("bias", self.bias, high=0.0)
        check_number("noise", self.noise, low=0.0)


def worlds(settings: Settings) -> dict[str, tuple[GenerativeModel, float]]:
    """The world and the bias of each equation."""
    few = random_dictionary(settings.m_mixture, settings.n, settings.seed)
    many = random_dictionary(settings.m, settings.n, settings.seed)
    return {
        "(9)": (MixtureOfGaussians(few, noise=settings.noise), settings.bias),
        "(15)": (SparseCoding(many, settings.k, values=Rademacher()), 0.0),
        # One unit at a time: there eq. (16) is exact, and its misprint all that is wrong.
        "(16)": (NonnegativeSparseCoding(few, 1, low=1.0, high=2.0), settings.bias),
    }


def run(settings: Settings) -> Run:
    """Each equation, printed and corrected, on samples of each size."""
    curves = []
    places = worlds(settings)
    total = len(places) * sum(settings.n_samples) * settings.n_seeds
    done = 0
    for name, (world, bias) in places.items():
        weights = perturb(world.dictionary, settings.delta, settings.seed + 1)
        for size in settings.n_samples:
            found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
            for seed in range(settings.seed, settings.seed + settings.n_seeds):
                yield Progress(done / total, f"eq. {name}, N = {size}")
                for printed, records in found.items():
                    if printed and name == "(9)":
                        continue  # the print is right
                    assertion = expected_gradient(
                        world,
                        weights,
                        bias=bias,
                        n_samples=size,
                        random_state=seed,
                        printed=printed,
                    )
                    records.append(assertion.numbers)
                done += size
            curves.append(_record(name, size, found))
    yield Progress(1.0, "done")
    return Outcome(
        numbers={"curves": curves},
        verdicts=tuple(_verdicts(curves)),
        departures=("error as printed over error as corrected",),
        tables=(_table(curves),),
        notes=NOTES,
    )


def _record(name: str, size: int, found: dict[bool, list[dict[str, Any]]]) -> dict[str, Any]:
    # The true supports take gamma out: it is what a sample of other supports adds.
    means = {
        printed: float(np.mean([each["oracle_error"] for each in records])) if records else None
        for printed, records in found.items()
    }
    right = found[False]
    return {
        "equation": name,
        "n_samples": size,
        "error": means[False],
        "error_printed": means[True],
        "error_with_gamma": float(np.mean([each["error"] for each in right])),
        "consistent": float(np.mean([each["consistent"] for each in right])),
    }


def _verdicts(curves: list[dict[str, Any]]) -> list[Check]:
    checks = []
    for name in dict.fromkeys(each["equation"] for each in curves):
        curve = [each for each in curves if each["equation"] == name]
        if len(curve) > 1:
            slope = np.polyfit(
                np.log([each["n_samples"] for each in curve]),
                np.log([each["error"] for each in curve]),
                1,
            )[0]
            claim = f"eq. {name}, corrected where needed: slope of log error over log N"
            checks.append(between(claim, slope, -0.6, -0.4))
        last = curve[-1]
        if name == "(9)":
            for each in curve:
                if each["n_samples"] == 64_000:
                    claim = "eq. (9): relative error at N = 64000"
                    checks.append(at_most(claim, each["error"], 0.04))
        else:
            claim = f"eq. {name}: error as printed over error as corrected, at the largest N"
            checks.append(at_least(claim, last["error_printed"] / last["error"], 3.0))
    return checks


def _table(curves: list[dict[str, Any]]) -> Table:
    rows = tuple(
        (
            f"{each['equation']}, N = {each['n_samples']}",
            each["error"],
            each["error_printed"],
            each["error_with_gamma"],
            each["consistent"],
        )
        for each in curves
    )
    head = ("equation", "error, corrected", "error, printed", "with gamma", "consistent samples")
    note = (
        "|g - g_hat|_F / |g|_F, the mean over draws, with the units that are truly active; “with "
        "gamma”: with those that the encoder finds. “–”: the print is right."
    )
    return Table("Relative errors", head, rows, note)


NOTES = (
    "Eq. (15), signed codes: section B.2 says that E[x_j x_l 1_i | S] is 0 unless i = j = l. It is "
    "kappa2 for every j = l in S, and the terms j = l != i are missing from the print.",
    "Eq. (16), non-negative codes: the print has 2 kappa1 p_i b_i lambda_i inside a bracket that "
    "p_i multiplies already; the second p_i is spurious. It is shown for one active unit a sample, "
    "where nothing is left to the remainder v.",
    "beta_i before Claim 4 lacks the triple sum that the proof of Claim 4 bounds, and has b_i "
    "where b_j belongs: tests hold the corrected form against an exact enumeration.",
)


def plot(result: dict[str, Any], pen: Pen) -> Figure:
    """Error against N."""
    figure, (axes,) = panels(1)
    curves = result["numbers"]["curves"]
    for hue, name in zip(HUES, dict.fromkeys(each["equation"] for each in curves), strict=False):
        curve = [each for each in curves if each["equation"] == name]
        sizes = [each["n_samples"] for each in curve]
        errors = [each["error"] for each in curve]
        axes.plot(sizes, errors, color=hue, marker="o", markersize=4, label=f"eq. {name}")
        if curve[0]["error_printed"] is not None:
            printed = [each["error_printed"] for each in curve]
            axes.plot(
                sizes, printed, color=hue, linestyle=(0, (1, 2)), marker="s", markersize=4,
                markerfacecolor="none", label=f"eq. {name}, as printed",
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("samples N")
    axes.set_ylabel("relative error of the gradient")
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


EXPERIMENT = Experiment(
    name="nguyen2019/gradients",
    title="Expected gradients in closed form, printed and corrected",
    source="Nguyen et al. 2018, eq. (9), (15), (16)",
    about=(
        "The paper's expected gradients against the mean gradient of a sample: a right formula's "
        "error falls as the square root of N, a wrong one's stops falling. Two of the three are "
        "misprinted; the corrected ones agree."
    ),
    settings=Settings,
    scales={
        "smoke": {"n": 32, "m": 32, "k": 4, "n_samples": (500, 8000), "n_seeds": 6},
        "reduced": {"n_samples": (1000, 4000, 16_000, 64_000), "n_seeds": 4},
    },
    run=run,
    plot=plot,
    caption=(
        "Relative error of the expected gradient against the sampled one. Solid: as corrected; "
        "dotted: as printed, where that differs."
    ),
)

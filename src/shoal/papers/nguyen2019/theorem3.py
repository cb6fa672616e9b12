"""Theorem 3: when the code has the true signs, or the true support."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.claims import Check, at_least, at_most
from shoal.experiments import Experiment, Outcome, Progress, Run, Table
from shoal.generative import (
    Constant,
    GenerativeModel,
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    Rademacher,
    SparseCoding,
    coherence,
    orthonormal_union,
    perturb,
    random_dictionary,
)
from shoal.network.activations import Activation, HardThreshold, ReLU
from shoal.report.drawing import HUES, panels
from shoal.theory import sizes
from shoal.theory.nguyen2019 import bias_interval, consistency, lemma1_interval
from shoal.vocabulary import check_count, check_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shoal.report.drawing import Pen

# Arbitrary: the grid on which the bias interval is looked at.
_FINE = np.round(np.linspace(0.0, 0.3, 61), 4)


@dataclass(frozen=True)
class Settings:
    """Sizes n with m = ratio n, non-zeros of magnitude 1."""

    n: tuple[int, ...] = (64, 128, 256, 512)
    ratio: float = 2.0
    k: tuple[int, ...] = (1, 2, 3, 5, 8)
    delta: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    n_mixture: tuple[int, ...] = (64, 256, 784)
    m_mixture: int = 10
    n_hadamard: int = 8192  # the least power of two for which mu = 1 is allowed
    n_samples: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        for n in (*self.n, *self.n_mixture):
            check_count("n", n)
        for n, k in product(self.n, self.k):
            check_count("k", k, high=round(self.ratio * n))
        for delta in self.delta:
            check_number("delta", delta, low=0.0, high=2.0)
        check_count("n_samples", self.n_samples)


def run(settings: Settings) -> Run:
    """Every size, support size and distance, in each case of the theorem."""
    cells: list[dict[str, Any]] = []
    work = [(kind, n, k) for n in settings.n for k in settings.k for kind in ("gaussian", "union")]
    total = sum(n * n for _, n, _ in work)
    done = 0
    for kind, n, k in work:
        yield Progress(0.9 * done / total, f"n = {n}, k = {k}")
        cells += _sparse(kind, n, k, settings)
        done += n * n
    for n in settings.n_mixture:
        yield Progress(0.95, f"mixture, n = {n}")
        cells += _mixture(n, settings)
    intervals = _intervals(settings)
    yield Progress(0.97, f"[I | Hadamard], n = {settings.n_hadamard}")
    crowds = _crowds(settings)
    yield Progress(1.0, "done")
    return Outcome(
        numbers={"cells": cells, "intervals": intervals, "crowds": crowds},
        verdicts=(*_verdicts(cells, intervals), *_verdicts_of_crowds(crowds)),
        departures=("the bias interval is empty", "no bias meets Lemma 1 too", "k = n / log n"),
        tables=(_table(cells, settings), _interval_table(intervals), _crowd_table(crowds)),
        notes=NOTES,
    )


def _sparse(kind: str, n: int, k: int, settings: Settings) -> list[dict[str, Any]]:
    m = round(settings.ratio * n)
    if kind == "gaussian":
        truth = random_dictionary(m, n, settings.seed)
    elif m <= 2 * n:
        truth = orthonormal_union(m, n, settings.seed)  # mu = 1 where n is a power of two
    else:
        return []
    signed = SparseCoding(truth, k, values=Rademacher())
    positive = NonnegativeSparseCoding(truth, k, values=Constant(1.0))
    # The constant bias -a1/2 in (ii), which no interval holds for long. Its support is that of the
    # threshold a1/2 by definition, so that this is (iii) as well.
    cases: list[tuple[str, GenerativeModel, Activation, float]] = [
        ("i", signed, HardThreshold(0.5), 0.0),
        ("ii, iii", positive, ReLU(), -0.5),
    ]
    if kind == "union":
        cases = cases[:1]
    share = float(np.sqrt((k - 1) / n))
    found = []
    for (case, world, activation, bias), delta in product(cases, settings.delta):
        weights = perturb(truth, delta, settings.seed + 1)
        each = consistency(world, weights, activation, bias, settings.n_samples, settings.seed + 2)
        found.append(
            {
                "case": case,
                "atoms": kind,
                "n": n,
                "m": m,
                "k": k,
                "delta": delta,
                "mu": float(np.sqrt(n)) * coherence(truth),
                "share": each.signs,
                "entries": each.sign_entries,
                "interference": share,
                "ratio": 0.5 / share if share > 0 else float("inf"),
            }
        )
    return found


def _mixture(n: int, settings: Settings) -> list[dict[str, Any]]:
    noise = float(1 / np.sqrt(n))
    truth = random_dictionary(settings.m_mixture, n, settings.seed)
    world = MixtureOfGaussians(truth, noise=noise)
    found = []
    for delta in settings.delta:
        weights = perturb(truth, delta, settings.seed + 1)
        each = consistency(
            world, weights, HardThreshold(0.5), 0.0, settings.n_samples, settings.seed + 2
        )
        found.append(
            {
                "case": "mixture",
                "atoms": "gaussian",
                "n": n,
                "m": settings.m_mixture,
                "k": 1,
                "delta": delta,
                "mu": float(np.sqrt(n)) * coherence(truth),
                "share": each.signs,
                "entries": each.sign_entries,
                "interference": noise,
                "ratio": 0.5 / noise,
            }
        )
    return found


def _intervals(settings: Settings) -> list[dict[str, Any]]:
    """The interval of (ii) for a1 = a2 = 1, and the delta from which it is empty."""
    n = max(settings.n)
    found = []
    for k in settings.k:
        truth = random_dictionary(max(k, 2), n, settings.seed)  # only k, a1 and a2 matter
        world = NonnegativeSparseCoding(truth, k, values=Constant(1.0))
        low, high = np.array([bias_interval(world, float(delta)) for delta in _FINE]).T
        empty = _FINE[low > high]
        found.append(
            {
                "k": k,
                "delta": _FINE.tolist(),
                "low": low.tolist(),
                "high": high.tolist(),
                "empty_from": float(empty[0]) if len(empty) else None,
                # How far the least bias of Lemmas 1 and 4 is above the greatest of (ii).
                "gap_to_lemma1": min(
                    lemma1_interval(world, float(delta))[0] - end
                    for delta, start, end in zip(_FINE, low, high, strict=True)
                    if delta > 0 and start <= end
                ),
            }
        )
    return found


def _crowds(settings: Settings) -> list[dict[str, Any]]:
    """Theorem 3 (i) at W = A = [I | Hadamard], up to the k that it allows."""
    n = settings.n_hadamard
    most = n / np.log(n)
    found = []
    for share in (0.125, 0.25, 0.5, 1.0):
        k = max(1, int(share * most))
        n_samples = min(settings.n_samples, 200)
        each = sizes.theorem3(n, k, n_samples, settings.seed)
        found.append({"n": n, "k": k, "of_n_log_n": share, "verdict": each.verdict, **each.numbers})
    return found


def _verdicts_of_crowds(crowds: list[dict[str, Any]]) -> list[Check]:
    if crowds[0]["n"] < 8192:
        return []  # there the theorem does not allow mu = 1
    few, most = crowds[0], crowds[-1]
    claim = f"(i) [I | Hadamard], n = {few['n']}, W = A, k = {{}}: share with all signs right"
    return [
        at_least(claim.format(few["k"]), few["share"], 0.99),
        at_most(claim.format(most["k"]) + ", k = n / log n", most["share"], 0.01),
    ]


def _crowd_table(crowds: list[dict[str, Any]]) -> Table:
    rows = tuple(
        (each["k"], each["of_n_log_n"], each["share"], each["wrong_units"], each["predicted"])
        for each in crowds
    )
    head = ("k", "of n / log n", "all signs right", "wrong units a sample", "normal law")
    note = f"W = A = [I | Hadamard], n = {crowds[0]['n']}, mu = 1, codes of +-1, threshold 1/2."
    return Table("How many active units Theorem 3 (i) can bear", head, rows, note)


def _verdicts(cells: list[dict[str, Any]], intervals: list[dict[str, Any]]) -> list[Check]:
    checks = []
    gaussian = [each for each in cells if each["atoms"] == "gaussian"]
    signed = [each for each in gaussian if each["case"] == "i"]
    near = [each for each in signed if each["delta"] <= 0.5]
    stated = [each for each in near if (each["n"], each["k"]) == (512, 5)]
    if stated:
        least = min(each["share"] for each in stated)
        claim = "(i) n = 512, m = 1024, k = 5, delta <= .5: least share of samples with all signs"
        checks.append(at_least(claim, least, 0.99))
    mixtures = [each for each in gaussian if each["case"] == "mixture"]
    wide = [each["share"] for each in mixtures if each["n"] >= 256 and each["delta"] <= 0.7]
    if wide:
        claim = "mixtures, n >= 256, noise 1/sqrt n, delta <= .7: least share of samples right"
        checks.append(at_least(claim, min(wide), 0.9995, "1.000"))
    clear = [each["share"] for each in near if each["ratio"] >= 7]
    if clear:
        claim = "(i) threshold over interference >= 7, delta <= .5: least share"
        checks.append(at_least(claim, min(clear), 0.99))
    loud = [each["share"] for each in near if each["ratio"] < 5.5]
    if loud:
        claim = "(i) threshold over interference < 5.5: largest share, short of .99 (declared)"
        checks.append(at_most(claim, max(loud), 0.99))
    constant = [
        each["share"]
        for each in gaussian
        if each["case"] == "ii, iii"
        and each["n"] >= 256
        and each["k"] <= 3
        and each["delta"] <= 0.5
    ]
    if constant:
        claim = "(ii, iii) the constant bias -1/2, n >= 256, k <= 3, delta <= .5: least share"
        checks.append(at_least(claim, min(constant), 0.98))
    for each in intervals:
        if each["k"] in (3, 5) and each["empty_from"] is not None:
            claim = f"(ii) k = {each['k']}: the delta from which the bias interval is empty"
            checks.append(at_most(claim, each["empty_from"], 0.18))
    if intervals:
        claim = "(ii) no bias meets Lemma 1 too: least distance of the intervals, delta > 0"
        gaps = [each["gap_to_lemma1"] for each in intervals]
        checks.append(at_least(claim, min(gaps), 1e-9))
    return checks


def _table(cells: list[dict[str, Any]], settings: Settings) -> Table:
    deltas = settings.delta
    rows = []
    keys = dict.fromkeys((each["case"], each["atoms"], each["n"], each["k"]) for each in cells)
    for case, atoms, n, k in keys:
        shares = {
            each["delta"]: each["share"]
            for each in cells
            if (each["case"], each["atoms"], each["n"], each["k"]) == (case, atoms, n, k)
        }
        label = f"{case}, n = {n}, k = {k}" + (", [I | Hadamard]" if atoms == "union" else "")
        rows.append((label, *(f"{shares[delta]:.3f}" for delta in deltas)))
    head = ("case", *(f"delta = {delta:g}" for delta in deltas))
    return Table(
        "Share of samples whose code has the true signs in every entry", head, tuple(rows),
        "(ii) with the constant bias -1/2 has the support of (iii), the threshold 1/2.",
    )  # fmt: skip


def _interval_table(intervals: list[dict[str, Any]]) -> Table:
    rows = tuple((each["k"], each["empty_from"]) for each in intervals)
    head = ("k", "empty from delta =")
    note = (
        "[-(1-delta) a1 + a2 delta sqrt k, -2 a2 delta sqrt k] with a1 = a2 = 1; a wider range of "
        "non-zeros empties it sooner. “–”: not within delta <= .3."
    )
    return Table("Where Theorem 3 (ii) leaves room for a bias", head, rows, note)


NOTES = (
    "The distance hardly matters in random directions: W_i leans away from A_i, but towards no "
    "other atom. What matters is the interference of the other active units, of standard "
    "deviation sqrt((k-1)/n) for non-zeros of magnitude 1, beside the threshold 1/2.",
    "At n = 64, m = 128, k = 3, sizes at which dictionary learning is often tried, one sample in "
    "ten or so is right: the theorem's n is large.",
    "The bias interval of (ii) is a sufficient condition and empties early; a constant bias of "
    "-a1/2 serves at distances where the interval has nothing to offer.",
    "No bias meets both Theorem 3 (ii), b <= -2 delta, and Lemma 1, b >= -delta^2: section 4 says "
    "that all of the former do.",
    "k <= n / log n does not do in (i): a silent unit is beyond 1/2 with a probability of about "
    "exp(-n / 4k), so that the number of wrong units a sample grows as n^(3/4) there. "
    "k = o(n / log n) is needed.",
)


def plot(result: dict[str, Any], pen: Pen) -> Figure:
    """Share against distance, against interference, and the bias interval."""
    figure, (left, middle, right) = panels(3)
    cells = result["numbers"]["cells"]
    signed = [each for each in cells if each["case"] == "i" and each["atoms"] == "gaussian"]
    k = max((each["k"] for each in signed if each["k"] <= 5), default=1)
    hues = dict(zip(dict.fromkeys(each["n"] for each in cells), HUES * 2, strict=False))
    for n in dict.fromkeys(each["n"] for each in signed):
        row = [each for each in signed if (each["n"], each["k"]) == (n, k)]
        x, y = [each["delta"] for each in row], [each["share"] for each in row]
        left.plot(x, y, color=hues[n], marker="o", markersize=4, label=f"n = {n}")
    for n in dict.fromkeys(each["n"] for each in cells if each["case"] == "mixture"):
        row = [each for each in cells if each["case"] == "mixture" and each["n"] == n]
        x, y = [each["delta"] for each in row], [each["share"] for each in row]
        name = None if any(each["n"] == n for each in signed) else f"n = {n}"
        style = (0, (1, 2))
        left.plot(x, y, color=hues[n], linestyle=style, marker="s", markersize=3.5, label=name)
    left.set_xlabel(f"distance delta (solid: k = {k}; dotted: mixtures)")
    left.set_ylabel("share of samples with all signs right")
    left.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(0, 0.45))
    near = [each for each in signed if each["delta"] <= 0.5 and each["ratio"] != "inf"]
    for n in dict.fromkeys(each["n"] for each in near):
        row = [each for each in near if each["n"] == n]
        x, y = [each["ratio"] for each in row], [each["share"] for each in row]
        middle.scatter(x, y, s=16, color=hues[n], linewidths=0)
    middle.axvline(5.5, color=pen.line, linewidth=0.9, linestyle=(0, (4, 3)))
    middle.set_xscale("log")
    middle.set_xticks([1, 2, 5.5, 10], ["1", "2", "5.5", "10"])
    middle.minorticks_off()
    middle.set_xlabel("threshold over interference, all k, delta <= .5")
    for hue, each in zip(HUES, result["numbers"]["intervals"], strict=False):
        delta, low, high = (np.array(each[name]) for name in ("delta", "low", "high"))
        some = low <= high
        right.fill_between(delta[some], low[some], high[some], color=hue, alpha=0.25, linewidth=0)
        right.plot(delta[some], low[some], color=hue, label=f"k = {each['k']}")
        right.plot(delta[some], high[some], color=hue)
    right.set_xlabel("distance delta")
    right.set_ylabel("bias that (ii) admits")
    right.legend(frameon=False, fontsize=8.5, loc="lower right")
    return figure


EXPERIMENT = Experiment(
    name="nguyen2019/theorem3",
    title="Theorem 3: the code's signs are the true ones",
    source="Nguyen et al. 2018, Theorem 3",
    about=(
        "How often the encoder's code has exactly the true signs (i) or the true support (ii, "
        "iii), against the distance delta of W, the number k of active units and the coherence; "
        "and how much room (ii) leaves for the ReLU's bias."
    ),
    settings=Settings,
    scales={
        "smoke": {
            "n": (64, 128), "k": (1, 3), "delta": (0.0, 0.5), "n_mixture": (64,), "n_samples": 300,
            "n_hadamard": 1024,
        },
        "reduced": {"n_samples": 2000},
    },
    run=run,
    plot=plot,
    caption=(
        "Left: the share of samples with all signs right against the distance. Middle: the same "
        "against threshold over interference, .5 / sqrt((k-1)/n); dashed: 5.5. Right: the interval "
        "of biases that Theorem 3 (ii) admits, until it closes."
    ),
)  # fmt: skip

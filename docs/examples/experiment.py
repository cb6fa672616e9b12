"""An experiment of one's own: how often random atoms match by chance."""

from dataclasses import dataclass

from shoal.claims import at_most
from shoal.diagnosis import recovery
from shoal.generative import random_dictionary
from shoal.papers import Experiment, Outcome, Progress, Table, register
from shoal.report.drawing import panels


@dataclass(frozen=True)
class Settings:
    """Of the full scale; `--set NAME=VALUE` changes each."""

    n: tuple[int, ...] = (32, 128, 512)
    seed: int = 0


def run(settings):
    """Yield how far it is, and return what was found."""
    found = []
    for i, n in enumerate(settings.n):
        one, other = (random_dictionary(n, n, random_state=settings.seed + j) for j in range(2))
        found.append(recovery(one, other).mcc)
        yield Progress((i + 1) / len(settings.n), f"n = {n}")
    rows = tuple(zip(settings.n, found, strict=True))
    verdict = at_most("mean matched cosine of random atoms", found[-1], 0.5)
    return Outcome({"rows": rows}, (verdict,), tables=(Table("Chance", ("n", "cosine"), rows),))


def plot(result, pen):
    """From the file alone."""
    figure, (axes,) = panels(1)
    axes.plot(*zip(*result["numbers"]["rows"], strict=True), color=pen.accent, marker="o")
    return figure


EXPERIMENT = register(Experiment("own/chance", "Random atoms match at", "", "Chance.", Settings,
    {"smoke": {"n": (8, 32)}, "reduced": {}}, run, plot, "Mean cosine by n."))  # fmt: skip

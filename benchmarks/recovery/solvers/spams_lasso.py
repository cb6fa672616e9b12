"""SPAMS with an l1 penalty (mode 2, LARS)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from benchmarks.recovery.datasets import Problem
from benchmarks.recovery.solvers._spams import online

REQUIRES = ("spams",)

# lambda, batch size and minibatches a call by workload, the best c95 of a search on seeds 0 to 2
# (for e the best recovery at .99).
# A call of one minibatch forgets old statistics sooner than a longer one, which made it faster.
# On b a lambda of .3 takes 1.6 times as long and then has every atom at .99 too.
SETTINGS = {"a": (0.5, 256, 1), "b": (0.4, 256, 1), "d": (0.5, 512, 4), "e": (0.1, 512, 10)}


def settings(problem: Problem) -> dict[str, Any]:
    chosen = SETTINGS.get(problem.workload.partition("-")[0], SETTINGS["a"])
    return dict(zip(("lambda1", "batch_size", "piece"), chosen, strict=True)) | {"mode": 2}


def unsuited(problem: Problem) -> str | None:
    return "made for several active units a sample" if problem.model == "mixture" else None


def run(data: NDArray, problem: Problem, seed: int) -> Iterator[NDArray]:
    return online(data, problem, seed, **settings(problem))

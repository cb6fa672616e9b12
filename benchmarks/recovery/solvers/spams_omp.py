"""SPAMS with k atoms a sample (mode 3, orthogonal matching pursuit)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from benchmarks.recovery.datasets import Problem
from benchmarks.recovery.solvers._spams import online

REQUIRES = ("spams",)

# Batch size by workload, with one minibatch a call: see spams_lasso.
SETTINGS = {"a": 128, "b": 512, "d": 1024, "e": 256}


def settings(problem: Problem) -> dict[str, Any]:
    size = SETTINGS.get(problem.workload.partition("-")[0], SETTINGS["a"])
    return {"lambda1": float(problem.k), "batch_size": size, "piece": 1, "mode": 3}


def unsuited(problem: Problem) -> str | None:
    return "made for several active units a sample" if problem.model == "mixture" else None


def run(data: NDArray, problem: Problem, seed: int) -> Iterator[NDArray]:
    return online(data, problem, seed, **settings(problem))

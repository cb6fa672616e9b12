"""scikit-learn's MiniBatchDictionaryLearning by partial_fit over shuffled minibatches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.recovery.datasets import Problem

REQUIRES = ("sklearn.decomposition",)

# alpha and batch size by workload, the best c95 of a small search on seeds 0 to 2; coordinate
# descent beat LARS. Small batches cost calls, large ones are slow to move.
SETTINGS = {"a": (0.5, 64), "b": (0.5, 128), "d": (0.5, 256), "e": (0.2, 64)}


def settings(problem: Problem) -> dict[str, Any]:
    alpha, size = SETTINGS.get(problem.workload.partition("-")[0], SETTINGS["a"])
    return {"alpha": alpha, "batch_size": size, "fit_algorithm": "cd"}


def unsuited(problem: Problem) -> str | None:
    return "made for several active units a sample" if problem.model == "mixture" else None


def run(data: NDArray, problem: Problem, seed: int) -> Iterator[NDArray]:
    from sklearn.decomposition import MiniBatchDictionaryLearning

    rng = np.random.default_rng(seed)
    chosen = settings(problem)
    size = chosen["batch_size"]
    start = data[rng.choice(len(data), problem.n_atoms, replace=False)]
    start /= np.linalg.norm(start, axis=1, keepdims=True)
    estimator = MiniBatchDictionaryLearning(
        problem.n_atoms,
        positive_code=problem.model == "nonnegative",
        dict_init=start,
        random_state=seed,
        **chosen,
    )
    yield start
    while True:
        order = rng.permutation(len(data))
        for first in range(0, len(data) - size + 1, size):
            estimator.partial_fit(data[order[first : first + size]])
            yield estimator.components_

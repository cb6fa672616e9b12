"""scikit-learn's MiniBatchKMeans by partial_fit over shuffled rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.recovery.datasets import Problem

REQUIRES = ("sklearn.cluster",)
INIT_ROWS = 2_000  # of k-means++; its own partial_fit would use the first batch alone


def settings(problem: Problem) -> dict[str, Any]:
    return {"batch_size": 256}


def unsuited(problem: Problem) -> str | None:
    return None if problem.model == "mixture" else "clusters only, one active unit a sample"


def run(data: NDArray, problem: Problem, seed: int) -> Iterator[NDArray]:
    from sklearn.cluster import MiniBatchKMeans, kmeans_plusplus

    rng = np.random.default_rng(seed)
    chosen = settings(problem)
    size = chosen["batch_size"]
    yield data[: problem.n_atoms]
    centres, _ = kmeans_plusplus(data[:INIT_ROWS], problem.n_atoms, random_state=seed)
    yield centres
    estimator = MiniBatchKMeans(
        problem.n_atoms, init=centres, n_init=1, random_state=seed, **chosen
    )
    while True:
        order = rng.permutation(len(data))
        for first in range(0, len(data) - size + 1, size):
            estimator.partial_fit(data[order[first : first + size]])
            yield estimator.cluster_centers_

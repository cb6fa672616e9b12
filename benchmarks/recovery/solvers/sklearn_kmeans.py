"""scikit-learn's KMeans: Lloyd from k-means++, an iteration a call."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from benchmarks.recovery.datasets import Problem

REQUIRES = ("sklearn.cluster",)


def settings(problem: Problem) -> dict[str, Any]:
    return {"init": "k-means++", "n_init": 1, "algorithm": "lloyd", "tol": 0.0}


def unsuited(problem: Problem) -> str | None:
    return None if problem.model == "mixture" else "clusters only, one active unit a sample"


def run(data: NDArray, problem: Problem, seed: int) -> Iterator[NDArray]:
    from sklearn.cluster import KMeans, kmeans_plusplus
    from sklearn.exceptions import ConvergenceWarning

    yield data[: problem.n_atoms]
    centres, _ = kmeans_plusplus(data, problem.n_atoms, random_state=seed)
    yield centres
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimator = KMeans(problem.n_atoms, init=centres, n_init=1, max_iter=1, tol=0.0)
            found = estimator.fit(data).cluster_centers_
        yield found
        if (found == centres).all():
            return
        centres = found

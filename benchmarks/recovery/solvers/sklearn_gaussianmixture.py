"""scikit-learn's GaussianMixture with spherical covariances: EM, an iteration a call."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from benchmarks.recovery.datasets import Problem

REQUIRES = ("sklearn.mixture",)


def settings(problem: Problem) -> dict[str, Any]:
    return {"covariance_type": "spherical", "init_params": "k-means++"}


def unsuited(problem: Problem) -> str | None:
    return None if problem.model == "mixture" else "mixtures only, one active unit a sample"


def run(data: NDArray, problem: Problem, seed: int) -> Iterator[NDArray]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    estimator = GaussianMixture(
        problem.n_atoms, **settings(problem), max_iter=1, warm_start=True, random_state=seed
    )
    yield data[: problem.n_atoms]
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimator.fit(data)
        yield estimator.means_

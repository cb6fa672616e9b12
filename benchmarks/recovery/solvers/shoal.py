"""shoal itself, with its default recipe: c95 from `iter_fit`, the rest from a plain `fit`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import shoal
from benchmarks.recovery.datasets import Problem


def _estimator(problem: Problem, seed: int) -> shoal.DictionaryAutoencoder:
    return shoal.DictionaryAutoencoder(
        problem.n_atoms, problem.k, model=problem.model, random_state=seed
    )


def settings(problem: Problem) -> dict[str, Any]:
    return {"model": problem.model, "recipe": "default", "version": shoal.__version__}


def warm_up(problem: Problem, data: NDArray) -> None:
    """A fit of the same sizes and dtype on noise: compiles the kernels."""
    rows = min(len(data), max(2_000, 4 * problem.n_atoms))
    noise = np.random.default_rng(0).standard_normal((rows, problem.n_features))
    _estimator(problem, 0).fit(noise.astype(data.dtype))


def run(data: NDArray, problem: Problem, seed: int) -> Iterator[Any]:
    steps = _estimator(problem, seed).iter_fit(data)
    yield data[: problem.n_atoms]  # arguments are checked; nothing is learnt
    for step in steps:
        yield step.parameters.dictionary


def fit(data: NDArray, problem: Problem, seed: int) -> NDArray:
    return _estimator(problem, seed).fit(data).components_

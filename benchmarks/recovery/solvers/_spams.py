"""SPAMS' online dictionary learning (Mairal et al. 2010), called in short pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.recovery.datasets import Problem


def online(
    data: NDArray, problem: Problem, seed: int, *, batch_size: int, piece: int, **options: Any
) -> Iterator[NDArray]:
    """Dictionaries of `trainDL`, `piece` minibatches a call.

    A call of SPAMS draws its minibatches in an order that is the same at each call, so every call
    gets columns of its own, the next ones of the data (which is in random order). The statistics
    A and B go on from call to call. It starts from random rows of the data.
    """
    import spams

    rng = np.random.default_rng(seed)
    columns = np.asfortranarray(data.T)
    start = data[rng.choice(len(data), problem.n_atoms, replace=False)]
    start = start / np.linalg.norm(start, axis=1, keepdims=True)
    dictionary = np.asfortranarray(start.T.astype(data.dtype))
    state, size, position = None, min(len(data), batch_size * piece), 0
    common = {
        "batchsize": batch_size,
        "numThreads": 1,
        "posAlpha": problem.model == "nonnegative",
        "verbose": False,
        "return_model": True,
        **options,
    }
    yield dictionary.T
    while True:
        if position + size > len(data):
            position = int(rng.integers(len(data) % size + 1))
        part = columns[:, position : position + size]  # contiguous: no copy
        position += size
        dictionary, state = spams.trainDL(part, D=dictionary, model=state, iter=piece, **common)
        yield dictionary.T

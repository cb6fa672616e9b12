"""A Matryoshka BatchTopK sparse autoencoder (Bussmann et al. 2025), told the mean of k."""

from __future__ import annotations

from benchmarks.worlds.peers import Fitted, Task
from benchmarks.worlds.peers._autoencoder import nested, train


def fit(task: Task) -> Fitted:
    return train(task, by_batch=True, prefixes=nested(task.width))

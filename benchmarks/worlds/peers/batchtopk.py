"""A BatchTopK sparse autoencoder (Bussmann et al. 2024), told the mean of k."""

from __future__ import annotations

from benchmarks.worlds.peers import Fitted, Task
from benchmarks.worlds.peers._autoencoder import train


def fit(task: Task) -> Fitted:
    return train(task, by_batch=True, prefixes=[task.width])

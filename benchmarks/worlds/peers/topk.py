"""A TopK sparse autoencoder (Gao et al. 2024), told k."""

from __future__ import annotations

from benchmarks.worlds.peers import Fitted, Task
from benchmarks.worlds.peers._autoencoder import train


def fit(task: Task) -> Fitted:
    return train(task, by_batch=False, prefixes=[task.width])

"""No method at all: atoms at random, and the k largest products with them as codes."""

from __future__ import annotations

import numpy as np

from benchmarks.worlds.peers import Fitted, Task, largest


def fit(task: Task) -> Fitted:
    rng = np.random.default_rng(task.seed)
    atoms = rng.standard_normal((task.width, task.data.shape[1])).astype(np.float32)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    mean = task.data.mean(axis=0)
    return Fitted(
        atoms, mean, {"encoder": lambda new: largest((new - mean) @ atoms.T, task.k)}, rows_seen=0
    )

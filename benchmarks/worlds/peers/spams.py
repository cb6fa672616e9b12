"""SPAMS' online dictionary learning (Mairal et al. 2010), non-negative codes by lasso."""

from __future__ import annotations

import numpy as np

from benchmarks.worlds.peers import Fitted, Task

REQUIRES = ("spams",)
STRENGTH = 1.0  # suits magnitudes of 4 to 5 and a residual of half of one a direction
BATCH = 512
STEPS = 1000


def fit(task: Task) -> Fitted:
    import spams
    from scipy.sparse import csr_array

    mean = task.data.mean(axis=0)
    columns = np.asfortranarray((task.data - mean).T, dtype=np.float64)
    rng = np.random.default_rng(task.seed)
    start = columns[:, rng.choice(columns.shape[1], task.width, replace=False)]
    start = np.asfortranarray(start / np.linalg.norm(start, axis=0))
    steps = task.steps or STEPS
    dictionary = spams.trainDL(
        columns,
        D=start,
        lambda1=STRENGTH,
        posAlpha=True,
        batchsize=BATCH,
        iter=steps,
        numThreads=1,
        verbose=False,
    )

    def lasso(new: np.ndarray) -> csr_array:
        rows = np.asfortranarray((new - mean).T, dtype=np.float64)
        found = spams.lasso(rows, D=dictionary, lambda1=STRENGTH, pos=True, numThreads=1)
        return csr_array(found.T)

    return Fitted(
        dictionary.T,
        mean,
        {"lasso": lasso},
        rows_seen=steps * BATCH,
        settings={"lambda1": STRENGTH, "steps": steps, "batch": BATCH},
    )

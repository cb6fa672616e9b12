"""scikit-learn's MiniBatchDictionaryLearning (Mairal et al. 2010), non-negative codes by lasso."""

from __future__ import annotations

import warnings

import numpy as np

from benchmarks.worlds.peers import Fitted, Task

REQUIRES = ("sklearn",)
ALPHA = 1.0  # suits magnitudes of 4 to 5 and a residual of half of one a direction
BATCH = 512
STEPS = 400


def fit(task: Task) -> Fitted:
    from scipy.sparse import csr_array
    from sklearn.decomposition import MiniBatchDictionaryLearning, SparseCoder
    from sklearn.exceptions import ConvergenceWarning

    def code(new: np.ndarray) -> csr_array:
        with warnings.catch_warnings():  # single precision ends at a gap of 1e-5, not of 1e-6
            warnings.simplefilter("ignore", ConvergenceWarning)
            return csr_array(coder.transform(new - mean))

    mean = task.data.mean(axis=0)
    steps = task.steps or STEPS
    rng = np.random.default_rng(task.seed)
    start = task.data[rng.choice(len(task.data), task.width, replace=False)] - mean
    start /= np.linalg.norm(start, axis=1, keepdims=True)
    model = MiniBatchDictionaryLearning(
        task.width,
        alpha=ALPHA,
        fit_algorithm="cd",
        transform_max_iter=100,
        positive_code=True,
        batch_size=BATCH,
        dict_init=start,
        random_state=task.seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(steps):
            model.partial_fit(task.data[rng.integers(len(task.data), size=BATCH)] - mean)
    atoms = model.components_
    coder = SparseCoder(
        atoms,
        transform_algorithm="lasso_cd",
        transform_alpha=ALPHA,
        positive_code=True,
        transform_max_iter=100,
    )
    return Fitted(
        atoms,
        mean,
        {"lasso": code},
        rows_seen=steps * BATCH,
        settings={"alpha": ALPHA, "steps": steps, "batch": BATCH},
    )

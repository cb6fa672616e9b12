"""This library, told the number of atoms alone."""

from __future__ import annotations

from benchmarks.worlds.peers import Fitted, Task


def fit(task: Task) -> Fitted:
    import numpy as np

    import shoal

    model = shoal.DictionaryAutoencoder(
        task.width,
        "auto",
        model="nonnegative",
        random_state=task.seed,
        device=task.device,
        sparse_output=True,
    ).fit(task.data)
    offset = getattr(model, "offset_", None)
    seen = getattr(model, "n_rows_seen_", None)
    return Fitted(
        np.asarray(model.components_),
        np.zeros(task.data.shape[1]) if offset is None else np.asarray(offset),
        {
            "encoder": model.transform,
            "pursuit": lambda new: model.transform(new, method="pursuit"),
        },
        rows_seen=seen,
    )

"""What saving a state costs: ``python -m benchmarks.checkpoints``.

The seconds that a save takes (of the processor, and of the clock with the disk), its size, and the
share of 30 s, the usual time between two; and what a step pays for asking whether it is time.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shoal
from shoal.training.checkpoints import Keeper

SIZES = ((64, 256), (256, 4096), (1024, 16384))


class _Enough(Exception):
    """The steps that were wanted have been taken."""


def measured(model: Any, data: Any, steps: int) -> tuple[list[tuple[float, float]], int, float]:
    """Seconds of each save, on the processor and the clock; bytes; seconds that a step asks for."""
    saves: list[tuple[float, float]] = []
    asked = [0.0, 0]
    save, step = Keeper.save, Keeper.step

    def timed_save(keeper: Keeper, moving: Any) -> None:
        busy, start = time.process_time(), time.perf_counter()
        save(keeper, moving)
        saves.append((time.process_time() - busy, time.perf_counter() - start))

    def timed_step(keeper: Keeper, moving: Any) -> None:
        start, before = time.perf_counter(), len(saves)
        step(keeper, moving)
        if len(saves) == before:
            asked[0] += time.perf_counter() - start
            asked[1] += 1
        if keeper.steps >= steps:
            raise _Enough

    Keeper.save, Keeper.step = timed_save, timed_step  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            with suppress(_Enough):
                model.fit(data, checkpoint=folder, checkpoint_every=max(2, steps // 10))
            last = Path(folder, max(os.listdir(folder)))
            size = sum(file.stat().st_size for file in last.iterdir())
    finally:
        Keeper.save, Keeper.step = save, step  # type: ignore[method-assign]
    return saves, size, asked[0] / max(1, asked[1])


def main() -> int:
    """Both estimators in three sizes, on one thread."""
    torch.set_num_threads(1)
    print(
        "estimator      n      m  processor (s)  clock (s)   MB   share of 30 s  a step asks (us)"
    )
    for n, m in SIZES:
        data = np.random.default_rng(0).normal(size=(m + 2000, n)).astype(np.float32)
        steps = 400 if m < 1000 else 20
        for name, model in (
            ("dictionary", shoal.DictionaryAutoencoder(m, 4, random_state=0)),
            ("regularized", shoal.RegularizedAutoencoder(m, random_state=0, batch_size=64)),
        ):
            saves, size, asks = measured(model, data, steps)
            busy, clock = (statistics.median(each) for each in zip(*saves, strict=True))
            print(
                f"{name:<12}{n:>5}{m:>7}{busy:>15.4f}{clock:>11.4f}{size / 1e6:>5.0f}"
                f"{busy / 30:>15.2%}{1e6 * asks:>18.1f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Data larger than memory: how much of it a fit takes, and what reading costs.

    python -m benchmarks.streaming                    # 1 GB, some minutes
    python -m benchmarks.streaming --gigabytes 20     # that much room on the disk
    python -m benchmarks.streaming --gigabytes 4.5 --reads   # batches only: runs against rows

A planted world is written to a `.npy`, batch by batch. Then a process fits it from where it lies,
and another one as an array in memory (up to ``--in-memory`` gigabytes). Every 20 ms the parent
reads `/proc/PID/status`: RssAnon is what the process has taken for itself, RssFile pages of files
that the system keeps as long as nobody else needs the room (those of the memory map), and VmHWM the
peak of both. The steps' time is by the clock from the first step to the last; recovery against the
planted dictionary.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np


def _world(n: int, m: int, k: int) -> Any:
    from shoal.generative import SparseCoding, random_dictionary

    atoms = random_dictionary(m, n, random_state=3).astype(np.float32)
    return SparseCoding(atoms, k, noise=0.02)


def _fit(path: str, sizes: tuple[int, int, int], *, in_memory: bool) -> dict[str, Any]:
    """What a process does: the time of its steps, and what they came to."""
    import torch

    import shoal

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    begun = time.perf_counter()
    data = np.load(path) if in_memory else path
    model = shoal.DictionaryAutoencoder(sizes[1], sizes[2], random_state=0)
    times, phases = [], []
    for step in model.iter_fit(data):
        times.append(time.perf_counter())
        phases.append(step.phase)
    # Without the first step, which waits for what is looked at before it.
    steps = [b - a for a, b, phase in zip(times, times[1:], phases[1:], strict=False)
             if phase in ("descent", "refinement", "finish")]  # fmt: skip
    found = shoal.recovery(model.components_, _world(*sizes).dictionary)
    return {
        "seconds": time.perf_counter() - begun,
        "step": float(np.median(steps)),
        "steps": model.n_steps_,
        "mcc": float(found.mcc),
        "recovered": float(found.recovered(0.95)),
    }


def _reads(path: Path, batches: int = 300) -> None:
    """The time of batches in two orders, with the file in the system's cache and without."""
    from shoal.data import open_source, order

    def one(cached: bool) -> float:
        with open(path, "rb") as file:
            if not cached:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while cached and file.read(2**24):
                pass
        begun = time.perf_counter()
        flow = open_source(path).batches(8192, rng=np.random.default_rng(1))
        count = sum(1 for _ in islice(flow, batches if cached else batches // 3))
        return (time.perf_counter() - begun) / count

    large = order.LARGE
    print("order   cached   ms a batch of 8192 rows")
    for cached in (False, True, True):
        for name, order.LARGE in (("runs", large), ("rows", 2**62)):
            print(f"{name:7} {cached!s:6} {1e3 * one(cached):10.2f}", flush=True)
    order.LARGE = large


def _watched(words: list[str]) -> dict[str, Any]:
    """What a process prints, and its peaks of memory in MB."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.streaming", *words],
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    peaks = dict.fromkeys(("RssAnon", "RssFile", "VmHWM"), 0.0)
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        for line in lines:
            name, _, value = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], int(value.split()[0]) / 1024)
        time.sleep(0.02)
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(process.returncode)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found | peaks


def main() -> None:
    """Write, fit twice, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--in-memory", type=float, default=8.0)
    parser.add_argument("--sizes", type=int, nargs=3, default=(64, 128, 3), metavar=("n", "m", "k"))
    parser.add_argument("--reads", action="store_true", help="time of batches, not of fits")
    parser.add_argument("--folder", type=Path, help="where the file is to be; it is removed")
    parser.add_argument("--fit", choices=("file", "memory"), help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.fit:
        print(json.dumps(_fit(asked.path, tuple(asked.sizes), in_memory=asked.fit == "memory")))
        return
    from shoal.generative import write_planted

    n = asked.sizes[0]
    rows = int(asked.gigabytes * 1e9 / (4 * n))
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        path = Path(folder, "planted.npy")
        start = time.perf_counter()
        with open(path, "wb") as file:
            write_planted(file, _world(*asked.sizes), rows, 0, suffix=".npy")
        seconds = time.perf_counter() - start
        print(f"{rows} rows of {n} float32, {path.stat().st_size / 1e9:.2f} GB: {seconds:.0f} s")
        if asked.reads:
            os.sync()
            _reads(path)
            return
        kinds = ["file", *(["memory"] if asked.gigabytes <= asked.in_memory else [])]
        sizes = ["--sizes", *map(str, asked.sizes)]
        print("from    RssAnon MB  RssFile MB  VmHWM MB   all s  step ms  steps     mcc  rec@.95")
        for kind in kinds:
            it = _watched(["--fit", kind, "--path", str(path), *sizes])
            print(
                f"{kind:7} {it['RssAnon']:10.0f} {it['RssFile']:11.0f} {it['VmHWM']:9.0f} "
                f"{it['seconds']:7.1f} {1e3 * it['step']:8.2f} {it['steps']:6} {it['mcc']:7.4f} "
                f"{it['recovered']:8.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

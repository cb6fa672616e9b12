"""What a step costs, by its sizes and by the number of processes that share it.

    python -m benchmarks.scaling             # each size alone, then 1 and 2 processes
    python -m benchmarks.scaling --predict   # the formula of docs/scaling.md, for given GPUs

A step of minibatch descent with the k largest codes, by each process on one thread, on random rows
in float32. The first steps are left out (kernels load). By the clock, the median, and the least: on
a machine with other work the least is what says something of the code. `cpu` is the least of the
processor's time of the first process, `sums` the time from its own sums to those of all, and
`bytes` what a process hands to one all-reduce.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np

BASE = (256, 4096, 32, 4096)
SIZES = (
    BASE,
    *((256, 4096, 32, rows) for rows in (1024, 16384)),
    *((n, 4096, 32, 4096) for n in (64, 1024)),
    *((256, m, 32, 4096) for m in (1024, 16384)),
    *((256, 4096, k, 4096) for k in (8, 128)),
)


class Asked(NamedTuple):
    """A measurement: sizes, processes, and how sums are added up."""

    n: int
    m: int
    k: int
    rows: int
    processes: int = 1
    reproducible: bool = False


def measured(asked: Asked, steps: int) -> dict[str, float]:
    """Seconds of a step in this process, which may share it with others."""
    import torch

    from shoal.data import open_source
    from shoal.generative import random_dictionary
    from shoal.network import TopK
    from shoal.training import Constant, NormalizedStep, Plan, Stage, begin, descend, ranks
    from shoal.vocabulary import Parameters

    n, m, k, rows = asked[:4]
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    source = open_source(rng.standard_normal((2 * rows, n), dtype=np.float32))
    atoms = torch.from_numpy(random_dictionary(m, n, random_state=0)).float()
    stage = Stage("descent", TopK(k), NormalizedStep(Constant(0.5)), n_steps=10**6)
    plan = Plan((stage,), rows)
    clock: list[float] = []
    busy: list[float] = []
    sums: list[float] = []
    added = ranks.Ranks.added

    def timed(self: Any, parts: Any) -> Any:
        start = time.perf_counter()
        try:
            return added(self, parts)
        finally:
            sums.append(time.perf_counter() - start)

    ranks.Ranks.added = timed  # type: ignore[method-assign]
    with ranks.together(reproducible=asked.reproducible):
        state = begin(Parameters(atoms, torch.zeros(m)), plan, rng)
        flow, last, used = descend(state, source, plan), 0.0, 0.0
        for number, _ in enumerate(flow):
            now, of_cpu = time.perf_counter(), time.process_time()
            if number > 2:
                clock.append(now - last)
                busy.append(of_cpu - used)
            last, used = now, of_cpu
            if number == steps + 2:
                break
    return {
        "median": statistics.median(clock),
        "least": min(clock),
        "cpu": min(busy),
        "sums": statistics.median(sums[3:]) if sums else 0.0,
    }


def _bytes(asked: Asked) -> int:
    """What goes into one all-reduce: gradient, bias, counts, energy, losses, squares, moments."""
    blocks = 8 if asked.reproducible else asked.processes
    if asked.processes == 1:
        return 0
    return 4 * (asked.m * asked.n + 3 * asked.m + 2 * asked.rows + blocks * (asked.n + 2))


def _together(asked: Asked, steps: int) -> dict[str, float]:
    """The same by several processes; what the first has measured."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "benchmarks.scaling", "--one", json.dumps(asked), str(steps)]
        running = [
            subprocess.Popen([*words, str(rank), folder], stdout=subprocess.PIPE, text=True)
            for rank in range(asked.processes)
        ]
        said = [each.communicate()[0] for each in running]
    found: dict[str, float] = json.loads(said[0].splitlines()[-1])
    return found


def _one(asked: Asked, steps: int, rank: int, folder: str) -> None:
    import torch.distributed as dist

    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=asked.processes,
        timeout=timedelta(seconds=60),
    )
    found = measured(asked, steps)
    dist.barrier()
    if rank == 0:
        print(json.dumps(found))
    dist.destroy_process_group()


class Machine(NamedTuple):
    """What the prediction assumes of a GPU and what joins them."""

    flops: float = 400e12  # of the encoder product in bfloat16: 40 % of an H100's peak
    memory: float = 2.0e12  # bytes a second that are reached, of 3.35e12
    within: float = 300e9  # bytes a second each way, of a GPU in its machine of 8 (NVLink)
    across: float = 45e9  # and of a network card (400 Gbit/s)
    cards: int = 8  # of a machine; rings use all of them
    latency: float = 30e-6  # seconds of an all-reduce, and so much a doubling of the processes


H100 = Machine()
ONE_CARD = Machine(across=11e9, cards=1)  # 100 Gbit/s


def predicted(n: int, m: int, k: int, rows: int, gpus: int, on: Machine = H100) -> dict[str, float]:
    """Seconds of a step of `rows` on each of `gpus`, and its efficiency: see docs/scaling.md.

    >>> found = predicted(4096, 131072, 64, 16384, 8)
    >>> 0.5 < found["efficiency"] < 1
    True
    """
    product = 2 * rows * m * n / on.flops
    # Scores are written and read in bfloat16; then k atoms of each row are read three times
    # (residual, projections, gradient) in float32.
    after = (4 * rows * m + 12 * rows * k * n) / on.memory
    # Gradient zeroed, added to, handed over, atoms moved, made of length 1: some ten passes.
    update = 40 * m * n / on.memory
    size, sums = 4 * m * n, 0.0
    if gpus > 1:
        wire = min(on.within, on.cards * on.across) if gpus > 8 else on.within
        doublings = int(np.ceil(np.log2(gpus)))
        sums = 2 * (gpus - 1) / gpus * size / wire + on.latency * (1 + doublings)
    alone = product + after + update
    return {
        "seconds": alone + sums,
        "sums": sums,
        "rows": gpus * rows / (alone + sums),
        "efficiency": alone / (alone + sums),
    }


def _predict() -> None:
    print("rows a GPU   GPUs   step ms   of it sums   million rows a second   efficiency")
    for name, machine in (("8 cards of 400 Gbit/s", H100), ("1 card of 100 Gbit/s", ONE_CARD)):
        print(f"{name} in each machine")
        for rows in (4096, 16384, 65536):
            for gpus in (1, 8, 64, 512):
                it = predicted(4096, 131072, 64, rows, gpus, machine)
                print(
                    f"{rows:10} {gpus:6} {1e3 * it['seconds']:9.1f} {1e3 * it['sums']:12.1f} "
                    f"{it['rows'] / 1e6:23.2f} {it['efficiency']:12.0%}"
                )


def main() -> None:
    """Measure, or predict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3, help="of 1 and 2 processes in turns")
    parser.add_argument("--only-processes", action="store_true")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        what, steps, rank, folder = asked.one
        _one(Asked(*json.loads(what)), int(steps), int(rank), folder)
        return
    if asked.predict:
        _predict()
        return
    print("   n      m    k  rows  processes        median ms  least ms   cpu ms  sums ms  rows/s")

    def told(one: Asked, it: dict[str, float]) -> None:
        kind = "reproducible" if one.reproducible else ""
        print(
            f"{one.n:4} {one.m:6} {one.k:4} {one.rows:5} {one.processes:2} {kind:13} "
            f"{1e3 * it['median']:11.1f} {1e3 * it['least']:9.1f} {1e3 * it['cpu']:8.1f} "
            f"{1e3 * it['sums']:8.1f} {one.rows / it['median']:9.0f}  bytes {_bytes(one)}",
            flush=True,
        )

    if not asked.only_processes:
        for sizes in SIZES:
            told(one := Asked(*sizes), measured(one, asked.steps))
    for _ in range(asked.rounds):
        for processes, reproducible in ((1, False), (2, False), (1, True), (2, True)):
            one = Asked(*BASE, processes, reproducible)
            told(one, _together(one, asked.steps))


if __name__ == "__main__":
    main()

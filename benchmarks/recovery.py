"""Recovery of planted dictionaries from data alone, with the default recipe.

    python -m benchmarks.recovery [--seeds 0:5] [--only sparse,mixture] [--json FILE]

A row a workload and seed: the share of true atoms at |cosine| >= .95 and >= .99, the mean
row distance after matching, and the process-CPU and wall seconds of the fit, with as many
threads as torch is given (OMP_NUM_THREADS). Medians and the worst seed come last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shoal
from shoal.generative import (
    GenerativeModel,
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    SparseCoding,
    random_dictionary,
)


def sparse(seed: int, noise: float = 0.0) -> GenerativeModel:
    atoms = random_dictionary(128, 64, random_state=seed)
    return SparseCoding(atoms, sparsity=3, low=1.0, high=2.0, noise=noise)


def nonnegative(seed: int, noise: float = 0.0) -> GenerativeModel:
    atoms = random_dictionary(256, 100, random_state=seed)
    return NonnegativeSparseCoding(atoms, sparsity=5, low=1.0, high=2.0, noise=noise)


def mixture(seed: int) -> GenerativeModel:
    return MixtureOfGaussians(random_dictionary(10, 784, random_state=seed), noise=0.02)


# name -> world of a seed, samples, the estimator's model
WORKLOADS: dict[str, tuple[Callable[[int], GenerativeModel], int, str]] = {
    "sparse": (sparse, 20_000, "sparse"),
    "sparse-noisy": (lambda seed: sparse(seed, 0.05), 20_000, "sparse"),
    "nonnegative": (nonnegative, 50_000, "nonnegative"),
    "nonnegative-noisy": (lambda seed: nonnegative(seed, 0.05), 50_000, "nonnegative"),
    "mixture": (mixture, 10_000, "mixture"),
}


def measure(name: str, seed: int) -> dict[str, Any]:
    make, n_samples, model = WORKLOADS[name]
    world = make(seed)
    planted = world.sample(n_samples, random_state=seed + 1)
    estimator = shoal.DictionaryAutoencoder(world.n_atoms, world.k, model=model, random_state=seed)
    wall, cpu = time.perf_counter(), time.process_time()
    estimator.fit(planted.data)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = shoal.recovery(estimator.components_, world.dictionary)
    return {
        "workload": name,
        "seed": seed,
        "recovered_at_0.95": found.recovered(0.95),
        "recovered_at_0.99": found.recovered(0.99),
        "mean_distance": found.mean_distance,
        "cpu_seconds": cpu,
        "wall_seconds": wall,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0:5", help="FIRST:LAST, the last one left out")
    parser.add_argument("--only", default=",".join(WORKLOADS), help="names, comma separated")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    arguments = parser.parse_args()
    first, last = map(int, arguments.seeds.split(":"))
    rows = []
    head = ("workload", "seed", "@.95", "@.99", "distance", "cpu s", "s")
    print("{:<18} {:>6} {:>7} {:>7} {:>9} {:>6} {:>6}".format(*head))

    for name in arguments.only.split(","):
        mine = [measure(name, seed) for seed in range(first, last)]
        keys = list(mine[0])[2:]
        middle = {key: statistics.median(row[key] for row in mine) for key in keys}
        worst = {
            key: (min if key.startswith("recovered") else max)(row[key] for row in mine)
            for key in keys
        }
        summary = [{"seed": "median", **middle}, {"seed": "worst", **worst}]
        for row in [*mine, *summary]:
            values = [row[key] for key in keys]
            line = "{:<18} {:>6} {:7.2%} {:7.2%} {:9.1e} {:6.1f} {:6.1f}"
            print(line.format(name, row["seed"], *values), flush=True)
        rows += mine
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Unequal frequencies without families: which share of the atoms is found.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.worlds.zipf [--seeds 2] \
        [--json FILE]

128 atoms of 64 features, from 1 to 8 active of them per row, frequencies over nearly three decades
(odds from 1 to 1/800), 100 000 rows. shoal is given the number of atoms alone.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from shoal.generative import Gaussian, SizedSupport, SparseFeatures, Uniform, random_dictionary

M, N, ROWS = 128, 64, 100_000
VALUES = {
    "Gaussian": (Gaussian(1.0), "sparse"),
    "of magnitude 1 to 2, both signs": (Uniform(1.0, 2.0, signed=True), "sparse"),
    "of magnitude 1 to 2, positive": (Uniform(1.0, 2.0), "nonnegative"),
}


def rows(seeds: int, n_samples: int = ROWS) -> Iterator[dict[str, Any]]:
    odds = np.arange(1, M + 1) ** -(np.log(800) / np.log(M))
    for seed in range(seeds):
        for name, (values, model) in VALUES.items():
            atoms = random_dictionary(M, N, random_state=seed)
            world = SparseFeatures(atoms, SizedSupport(tuple(odds), 1, 8), values=values)
            data = world.sample(n_samples, random_state=1000 + seed).data
            start = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                found = shoal.DictionaryAutoencoder(M, "auto", model=model, random_state=seed)
                found.fit(data)
            seconds = time.process_time() - start
            best = np.abs(found.components_ @ atoms.T).max(axis=0)
            yield {
                "coefficients": name,
                "seed": seed,
                "most frequent": float(world.frequency[0]),
                "at .99": float((best >= 0.99).mean()),
                "at .95": float((best >= 0.95).mean()),
                "seconds": seconds,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--samples", type=int, default=ROWS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = []
    for row in rows(given.seeds, given.samples):
        found.append(row)
        print(*(f"{k} {v:.3g}" if isinstance(v, float) else v for k, v in row.items()), flush=True)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

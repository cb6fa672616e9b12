"""What isn't known: the number of non-zeros estimated, the number of atoms over-stated, one pass.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 \
        python -m benchmarks.unknown [--workload a,b,d] [--seeds 3] [--part auto,oracle]

* **auto**: `n_nonzero_coefs="auto"`; the number found, beside the true one.
* **atoms**: a quarter more atoms than there are, and twice as many; how many are left.
* **stream**: `partial_fit` on twenty pieces, each row seen once, beside `fit` on the same rows.
* **oracle**: for data with noise, least squares for codes and dictionary in turn, on the supports
  that a pursuit finds on the true dictionary: what the best fit could reach.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

import shoal
from benchmarks.recovery.datasets import Problem, World, draw, names
from shoal.network.inference import SubspacePursuit, least_squares

Fitted = tuple[str, NDArray]  # what it is, and its atoms (m, n)


def _estimator(problem: Problem, seed: int, m: int, k: int | str) -> shoal.DictionaryAutoencoder:
    return shoal.DictionaryAutoencoder(m, k, model=problem.model, random_state=seed)


def auto(world: World, seed: int) -> Iterator[Fitted]:
    problem = world.problem
    model = _estimator(problem, seed, problem.n_atoms, "auto").fit(world.data)
    yield f"k = {model.n_nonzero_coefs_} of {problem.k}", model.components_


def atoms(world: World, seed: int) -> Iterator[Fitted]:
    problem = world.problem
    for factor in (1.25, 2.0):
        asked = int(factor * problem.n_atoms)
        model = _estimator(problem, seed, asked, problem.k).fit(world.data)
        yield f"{asked} atoms asked for, {len(model.components_)} left", model.components_


def stream(world: World, seed: int) -> Iterator[Fitted]:
    problem = world.problem
    model = _estimator(problem, seed, problem.n_atoms, problem.k).fit(world.data)
    yield "fit", model.components_
    model = _estimator(problem, seed, problem.n_atoms, problem.k)
    for piece in np.array_split(world.data, 20):
        model.partial_fit(piece)
    yield "partial_fit, 20 pieces", model.components_


def oracle(world: World, seed: int) -> Iterator[Fitted]:
    problem = world.problem
    data, dictionary = torch.from_numpy(world.data), torch.from_numpy(world.truth)
    support = SubspacePursuit(problem.k, problem.model == "sparse")(dictionary, data)
    for _ in range(20):
        codes = least_squares(dictionary, data, support).dense(problem.n_atoms)
        dictionary = torch.linalg.solve(codes.T @ codes, codes.T @ data)
        dictionary = torch.nn.functional.normalize(dictionary)
    yield "least squares on the true supports", dictionary.numpy()


PARTS: dict[str, Callable[[World, int], Iterator[Fitted]]] = {
    "auto": auto,
    "atoms": atoms,
    "stream": stream,
    "oracle": oracle,
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workload", default="a,b,a-noise,b-noise,d")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--part", default="auto,atoms,stream")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # of atoms left out
    for name in names([given.workload]):
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            world = draw(name, seed)
            for part in given.part.split(","):
                begun = time.process_time()
                for what, learnt in PARTS[part](world, seed):
                    seconds = time.process_time() - begun
                    found = shoal.recovery(learnt, world.truth, signs=world.problem.signs)
                    print(
                        f"{name:8} seed {seed:<3} {part:7} {what:36} @.99 "
                        f"{found.recovered(0.99):7.2%}  distance {found.mean_distance:.1e}  "
                        f"{seconds:6.2f} s",
                        flush=True,
                    )
                    begun = time.process_time()


if __name__ == "__main__":
    main()

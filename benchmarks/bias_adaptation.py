"""Bias adaptation against the k-largest encoder on world a: what the encoders alone reach.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 \
        python -m benchmarks.bias_adaptation [--seeds 3] [--grid] [--data signed]

World a (64 features, 128 atoms, 3 active, 20000 samples) as it is, with signed codes, and with
non-negative ones, the law that group bias adaptation is for (Chen et al. 2025). On signed data its
network has 256 ReLU units, an atom and its negative as two features; a k-largest encoder of that
form stands beside it. Both descend the same number of steps on the same batches, with
neither revival, refinement nor polish. `--grid` tries targets, step sizes, rates and k.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import shoal
from benchmarks.recovery.datasets import nonnegative, signed
from shoal.network import TopK
from shoal.training import (
    BiasAdaptation,
    Constant,
    ExponentialDecay,
    NormalizedStep,
    Recipe,
    recipe_named,
)

SHAPE = 64, 128, 3  # n, m, k
N_SAMPLES = 20_000
SHARE = SHAPE[2] / SHAPE[1]  # of the samples that an atom is in
WORLDS = {"non-negative": nonnegative(*SHAPE), "signed": signed(*SHAPE)}


class Entry(NamedTuple):
    """A network of `units`, and how it is trained."""

    name: str
    units: int
    model: str
    recipe: Recipe


class Result(NamedTuple):
    """What one fit reached."""

    recovered_95: float
    recovered_99: float
    distance: float
    frequency: float  # the mean unit's, on all data
    dead: float  # share of the units that never fire
    seconds: float


def draw(world: str, seed: int) -> tuple[NDArray, NDArray]:
    """Data (N, n) and the true dictionary (m, n)."""
    planted = WORLDS[world](seed)
    return planted.sample(N_SAMPLES, random_state=seed + 1).data, planted.dictionary


def steps(c: float) -> NormalizedStep:
    return NormalizedStep(ExponentialDecay(c / 100, c, 50))


def named(world: str) -> Iterator[Entry]:
    """Entries of the table; all but the last two of the same steps and batches."""
    _, m, k = SHAPE
    model = "sparse" if world == "signed" else "nonnegative"
    units = 2 * m if world == "signed" else m
    adapting = recipe_named("bias-adaptation", "nonnegative", units, k, N_SAMPLES)
    assert isinstance(adapting.bias, BiasAdaptation)
    share = k / units
    yield Entry("bias adaptation", units, "nonnegative", adapting)
    for word, bias in {
        "target = share": replace(adapting.bias, targets=(share,)),
        "only the dead raised": replace(adapting.bias, silent=0.0),
        "six groups, .5 to .016": replace(
            adapting.bias, targets=tuple(0.5**i for i in range(1, 7))
        ),
        "every 50, rate .01": BiasAdaptation((3 * share,)),
    }.items():
        yield Entry(f"  {word}", units, "nonnegative", replace(adapting, bias=bias))
    largest = replace(adapting, bias=None, activation=TopK(k, signed=model == "sparse"))
    yield Entry("k-largest", m, model, largest)
    for c in (0.1, 0.4):
        tried = replace(largest, rule=NormalizedStep(Constant(c)))
        yield Entry(f"  step {c:g}", m, model, tried)
    for wrong in (k - 1, 2 * k, 3 * k):
        activation = TopK(wrong, signed=model == "sparse")
        yield Entry(f"  k = {wrong}", m, model, replace(largest, activation=activation))
    if world == "signed":
        apart = replace(largest, activation=TopK(k, signed=False))
        yield Entry("  256 non-negative", units, "nonnegative", apart)
    default = recipe_named("default", model, m, k, N_SAMPLES)
    yield Entry("default", m, model, default)


def grid(world: str) -> Iterator[Entry]:
    """What was tried to choose the recipe."""
    _, m, k = SHAPE
    units = 2 * m if world == "signed" else m
    plan = recipe_named("bias-adaptation", "nonnegative", units, k, N_SAMPLES)
    for c in (0.0125, 0.025, 0.05, 0.1):
        for target in (1.0, 2.0, 3.0, 4.0, 6.0):
            for silent in (0.0, 0.5, 0.9):
                bias = BiasAdaptation((target * k / units,), 1, 0.02, silent)
                tried = replace(plan, rule=steps(c), bias=bias)
                name = f"step {c:g} target {target:g} silent {silent:g}"
                yield Entry(name, units, "nonnegative", tried)
    for every, rate in ((1, 0.005), (1, 0.1), (5, 0.02), (5, 0.1), (20, 0.1), (50, 0.3)):
        bias = BiasAdaptation((3 * k / units,), every, rate, 0.5)
        tried = replace(plan, bias=bias)
        yield Entry(f"every {every} rate {rate:g}", units, "nonnegative", tried)


def measure(entry: Entry, world: str, seed: int) -> Result:
    data, truth = draw(world, seed)
    model = shoal.DictionaryAutoencoder(
        entry.units, SHAPE[2], model=entry.model, recipe=entry.recipe, random_state=seed
    )
    begun = time.process_time()
    model.fit(data)
    seconds = time.process_time() - begun
    signs = "free" if world == "signed" else "fixed"
    found = shoal.recovery(model.components_, truth, signs=signs)
    fired = (model.transform(data) != 0).mean(axis=0)  # (units,)
    return Result(
        found.recovered(0.95),
        found.recovered(0.99),
        found.mean_distance,
        float(fired.mean()),
        float((fired == 0).mean()),
        seconds,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--data", choices=WORLDS, action="append", help="by default all")
    parser.add_argument("--grid", action="store_true", help="try settings of bias adaptation")
    given = parser.parse_args(arguments)
    for world in given.data or WORLDS:
        print(f"\n{world}, mean of {given.seeds} seeds; an atom is in {SHARE:.2%} of the samples")
        print(f"{'':32} units    @.95    @.99  distance   fires   dead  CPU s")
        for entry in grid(world) if given.grid else named(world):
            seeds = range(given.first_seed, given.first_seed + given.seeds)
            rows = np.array([measure(entry, world, seed) for seed in seeds])
            mean = Result(*rows.mean(axis=0).tolist())
            print(
                f"{entry.name:32} {entry.units:5} {mean.recovered_95:7.2%} "
                f"{mean.recovered_99:7.2%} {mean.distance:9.3f} {mean.frequency:7.2%} "
                f"{mean.dead:6.1%} {mean.seconds:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

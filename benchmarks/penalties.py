"""What a step of a regularised autoencoder costs, in the products that it can't do without.

    python -m benchmarks.penalties [--n 784] [--m 1000] [--batch 50] [--repeats 30]

float32, with as many threads as torch is given. The five products of a step are z = x W^T,
y = h W, e = r W^T and two of the gradient, r^T h and x^T e, into memory that is there already.
Steps are whole: penalty, velocity, unit length. The eager ones are the same by automatic
differentiation and `torch.optim.SGD`. Contestants take turns, in random order and a few steps at
a time, in one process. A turn counts as the median of its steps; numbers are medians over the
turns, ratios medians of ratios within a turn. `quiet` is the ratio of the shortest steps to the
shortest five products: what is left where other processes take turns on the same cores. The last
column is what 50 000 samples would take, without reading them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shoal.network.activations import ReLU, Sigmoid, SmoothActivation
from shoal.network.penalties import Contractive, Denoising, Penalty
from shoal.training import Momentum, UnitLength, normalized_start
from shoal.vocabulary import Parameters

# Arbitrary: long enough that what the contestant before left in the caches doesn't matter.
STEPS = 20
N_SAMPLES = 50_000
RATE = 1e-4
NOISE, STRENGTH = 0.1, 0.25


class Times(NamedTuple):
    """Milliseconds a step."""

    turns: list[float]
    best: float


def products(start: Parameters, data: Tensor) -> Callable[[Tensor], object]:
    weights = start.dictionary.clone()
    size, m, n = len(data), *weights.shape
    z, y, e = torch.empty(size, m), torch.empty(size, n), torch.empty(size, m)
    gradient = torch.empty(m, n)

    def step(x: Tensor) -> None:
        torch.mm(x, weights.T, out=z)
        torch.mm(z, weights, out=y)
        torch.mm(y, weights.T, out=e)
        torch.mm(z.T, y, out=gradient)
        torch.mm(e.T, x, out=gradient)

    return step


def by_hand(
    start: Parameters, penalty: Penalty, activation: SmoothActivation
) -> Callable[[Tensor], object]:
    rule, generator = Momentum(RATE), torch.Generator().manual_seed(0)
    parameters, memory = rule.init(start)  # moved in place

    def step(x: Tensor) -> None:
        terms = penalty(parameters, x, activation, generator)
        rule.update(parameters, terms, memory, 0, UnitLength())

    return step


def eager(
    start: Parameters, objective: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Callable[[Tensor], object]:
    weights, bias = (part.clone().requires_grad_() for part in start[:2])
    optimizer = torch.optim.SGD([weights, bias], lr=RATE, momentum=0.9)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        objective(x, weights, bias).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            weights.div_(torch.linalg.vector_norm(weights, dim=1, keepdim=True))

    return step


def denoising(x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    noisy = x + NOISE**0.5 * torch.randn_like(x)
    codes = torch.relu(torch.addmm(bias, noisy, weights.T))
    return (x - codes @ weights).square().sum() / len(x)


def contractive(x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    codes = torch.sigmoid(torch.addmm(bias, x, weights.T))
    slope = codes * (1 - codes)
    penalty = (slope.square() * weights.square().sum(dim=1)).sum()
    return ((x - codes @ weights).square().sum() + STRENGTH * penalty) / len(x)


def turns(
    contestants: dict[str, Callable[[Tensor], object]], data: Tensor, batch: int, repeats: int
) -> dict[str, Times]:
    """The first turn isn't counted."""
    times: dict[str, list[list[float]]] = {name: [] for name in contestants}
    order, rng = list(contestants), random.Random(0)
    for _ in range(repeats + 1):
        rng.shuffle(order)
        for name in order:
            times[name].append([timed(contestants[name], x) for x in data.split(batch)])
    return {
        name: Times([statistics.median(turn) for turn in taken[1:]], min(map(min, taken[1:])))
        for name, taken in times.items()
    }


def timed(step: Callable[[Tensor], object], x: Tensor) -> float:
    start = time.perf_counter()
    step(x)
    return 1e3 * (time.perf_counter() - start)


def ratio(above: Times, below: Times) -> float:
    return statistics.median(a / b for a, b in zip(above.turns, below.turns, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--n", type=int, default=784)
    parser.add_argument("--m", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=30)
    given = parser.parse_args()
    start = normalized_start(given.m, given.n, np.random.default_rng(0), "unit")
    data = torch.randn(STEPS * given.batch, given.n, generator=torch.Generator().manual_seed(1))
    steps = {
        "ReLU, denoising": by_hand(start, Denoising(NOISE), ReLU()),
        "sigmoid, contractive": by_hand(start, Contractive(STRENGTH), Sigmoid()),
        "ReLU, denoising, eager": eager(start, denoising),
        "sigmoid, contractive, eager": eager(start, contractive),
    }
    found = turns(
        {"five products": products(start, data[: given.batch]), **steps},
        data,
        given.batch,
        given.repeats,
    )
    print(
        f"n={given.n} m={given.m} batch={given.batch}, float32, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {given.repeats} turns of {STEPS} steps"
    )
    head = "a step of", "ms", "/ products", "quiet", "eager / it", "epoch of 50000, s"
    print("{:28}{:>8}{:>12}{:>8}{:>12}{:>19}".format(*head))
    bound = found["five products"]
    for name, times in found.items():
        step = statistics.median(times.turns)
        epoch = 1e-3 * step * N_SAMPLES / given.batch
        slower = found.get(f"{name}, eager")
        against = f"{ratio(slower, times):.2f}" if slower else ""
        print(
            f"{name:28}{step:8.2f}{ratio(times, bound):12.2f}{times.best / bound.best:8.2f}"
            f"{against:>12}{epoch:19.1f}"
        )


if __name__ == "__main__":
    main()

"""What a training step and an encoding cost, in encoder products.

    python -m benchmarks.kernels [--only small,wide] [--activation k-largest] [--rounds 9]
                                 [--sections step,dense,small,lazy,memory,first,fit] [--json FILE]

Planted data and a dictionary half-way to the truth, float32, with as many threads as torch is
given. Contestants take turns in one process; numbers are medians. `--json` writes the sections
`step` (sparse codes) and `dense` (30-100 % of the units active) as a list of

    {"shape": [B, n, m, k], "activation", "what": "step"|"transform", "backend",
     "ms", "encoder_ms", "autograd_ms"}

with `encoder_ms` the float32 torch product of that shape into memory that is there already, and
`autograd_ms` the dense step by automatic differentiation: loss, gradient and activity counts.
Backends: `cpu` as the chooser has it, `cpu-unscreened` with a float32 product, and `reference`,
the hand-written dense step.

The other sections print: `small`, steps of few rows in milliseconds; `lazy`, products an iteration
on a full batch that comes again; `memory` of a step, by the number of rows (Linux); `first`,
seconds of a process's first fit with nothing compiled, with the kernels that a package brings
(where there are any: run `src/shoal/network/kernels/ahead.py`) and with all kept by the fit
before; `fit`, workload d (n=256, m=1024, k=8, N=200000, float32) with the kernels and with the
reference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import shoal
from shoal.generative import NonnegativeSparseCoding, SparseCoding, perturb, random_dictionary
from shoal.network import HardThreshold, ReLU, Sigmoid, TopK, preactivation
from shoal.network.activations import Activation
from shoal.network.kernels import choose, compiling, cpu, reference, use
from shoal.network.kernels.lazy import LazySteps
from shoal.training import ExponentialDecay, NormalizedStep, UnitLength
from shoal.vocabulary import Parameters, active

SHAPES = {
    "small": (4096, 64, 256, 4),
    "square": (4096, 256, 1024, 8),
    "wide": (4096, 256, 4096, 16),
    "large": (2048, 768, 6144, 32),
    "narrow": (8192, 100, 1000, 5),
}
BACKENDS: dict[str, Any] = {
    "cpu": cpu,
    "cpu-unscreened": SimpleNamespace(
        step=lambda *given: cpu.step(*given, screen=None),
        sparse_encode=lambda *given: cpu.sparse_encode(*given, screen=None),
    ),
    "reference": reference,
}


def world(
    shape: tuple[int, int, int, int], signed: bool, distance: float = 0.3
) -> tuple[Parameters, Tensor]:
    """A dictionary at some distance from the truth, and data."""
    n_samples, n, m, k = shape
    truth = random_dictionary(m, n, random_state=0)
    model = SparseCoding if signed else NonnegativeSparseCoding
    data = model(truth, sparsity=k, low=1.0, high=2.0).sample(n_samples, random_state=1).data
    near = perturb(truth, distance, random_state=2)
    tensors = (torch.from_numpy(array).float() for array in (near, data))
    dictionary, rows = tensors
    return Parameters(dictionary, torch.zeros(m)), rows


def quantile(values: Tensor, fraction: float) -> float:
    """The value that `fraction` of the entries exceed."""
    flat = values.flatten()
    return float(flat.kthvalue(max(1, int((1 - fraction) * flat.numel()))).values)


def cases(shape: tuple[int, int, int, int]) -> dict[str, tuple[Parameters, Tensor, Activation]]:
    """Name -> parameters, data, activation, with k of m units active."""
    *_, m, k = shape
    found: dict[str, tuple[Parameters, Tensor, Activation]] = {}
    for word, signed in (("signed", True), ("non-negative", False)):
        parameters, data = world(shape, signed)
        z = preactivation(parameters, data[:512])
        level = quantile(z.abs() if signed else z, k / m)
        found[f"k-largest, {word}"] = parameters, data, TopK(k, signed=signed)
        found[f"hard threshold, {word}"] = parameters, data, HardThreshold(level, signed=signed)
        if not signed:
            shifted = parameters._replace(bias=torch.full((m,), -level))
            found["ReLU, non-negative"] = shifted, data, ReLU()
    return found


def dense_cases(
    shape: tuple[int, int, int, int],
) -> dict[str, tuple[Parameters, Tensor, Activation]]:
    """Name -> parameters, data, activation, with 30-100 % of the units active."""
    parameters, data = world(shape, signed=False, distance=1.3)
    z = preactivation(parameters, data[:512])
    found: dict[str, tuple[Parameters, Tensor, Activation]] = {
        "sigmoid": (parameters, data, Sigmoid())
    }
    for share in (0.3, 0.6):
        bias = torch.full_like(parameters.bias, -quantile(z, share))
        found[f"ReLU, {share:.0%} active"] = parameters._replace(bias=bias), data, ReLU()
    return found


def autograd(parameters: Parameters, data: Tensor, activation: Activation) -> None:
    leaves = parameters.map(lambda part: part.detach().clone().requires_grad_())
    codes = activation(preactivation(leaves, data)).codes
    value = 0.5 * (data - codes @ leaves.dictionary).square().sum(dim=1).mean()
    torch.autograd.grad(value, leaves)
    active(codes).sum(dim=0)


def alternate(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, in turns of random order; the first round isn't counted."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    order, rng = list(contestants), random.Random(0)
    for _ in range(rounds + 1):
        rng.shuffle(order)  # or one would always find the caches as another left them
        for name in order:
            start = time.perf_counter()
            contestants[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def compare(
    shape: tuple[int, int, int, int],
    activation_name: str,
    case: tuple[Parameters, Tensor, Activation],
    rounds: int,
    whats: tuple[str, ...] = ("step", "transform"),
) -> list[dict[str, Any]]:
    parameters, data, activation = case
    product = torch.empty(len(data), parameters.dictionary.shape[0])
    contestants: dict[str, Callable[[], Any]] = {
        "encoder": lambda: torch.mm(data, parameters.dictionary.T, out=product),
        "autograd": lambda: autograd(parameters, data, activation),
    }
    for backend, kernel in BACKENDS.items():
        if "step" in whats:
            contestants[f"step {backend}"] = lambda kernel=kernel: kernel.step(
                parameters, data, activation
            )
        if "transform" in whats:
            contestants[f"transform {backend}"] = lambda kernel=kernel: kernel.sparse_encode(
                parameters, data, activation
            )
    found = alternate(contestants, rounds)
    rows = []
    for name in contestants:
        what, _, backend = name.partition(" ")
        if backend:
            rows.append(
                {
                    "shape": list(shape),
                    "activation": activation_name,
                    "what": what,
                    "backend": backend,
                    "ms": found[name],
                    "encoder_ms": found["encoder"],
                    "autograd_ms": found["autograd"],
                }
            )
            print(
                f"{shape!s:24} {activation_name:28} {what:9} {backend:14} {found[name]:9.2f} ms = "
                f"{found[name] / found['encoder']:6.2f} products, autograd / this "
                f"{found['autograd'] / found[name]:6.1f}",
                flush=True,
            )
    return rows


def small() -> None:
    """Steps in one compiled call against the same in several; least of many, as they are short."""
    for shape in (
        (256, 32, 48, 2), (256, 64, 128, 3), (256, 64, 256, 4), (256, 100, 256, 5),
        (512, 64, 256, 4), (1024, 64, 128, 3),
    ):  # fmt: skip
        parameters, data = world(shape, signed=True)
        activation = TopK(shape[-1])
        product = torch.empty(len(data), shape[2])
        times: dict[str, list[float]] = {"one": [], "several": [], "product": []}
        whole = cpu._small_step
        for _ in range(200):
            for name, taken in times.items():
                cpu._small_step = whole if name == "one" else lambda *_: None
                start = time.perf_counter()
                if name == "product":
                    torch.mm(data, parameters.dictionary.T, out=product)
                else:
                    cpu.step(parameters, data, activation)
                taken.append(1e3 * (time.perf_counter() - start))
        cpu._small_step = whole
        one, several, alone = (min(taken) for taken in times.values())
        print(
            f"small step {shape}: in one call {one:.3f} ms, in several {several:.3f} ms, the "
            f"product alone {alone:.3f} ms",
            flush=True,
        )


def lazy() -> None:
    """Full-batch descent with a decaying step; what its iterations cost."""
    for n, m, k, n_samples in ((64, 256, 4, 20_000), (256, 1024, 8, 40_000)):
        shape = (n_samples, n, m, k)
        parameters, data = world(shape, signed=True, distance=0.5)
        activation = TopK(k)
        steps = LazySteps(data, activation)
        rule = NormalizedStep(ExponentialDecay(0.5, 0.02, 40))
        encoded, products, ratios = [], [], []
        for index in range(60):
            start = time.perf_counter()
            sums = steps(parameters)
            middle = time.perf_counter()
            cpu.step(parameters, data, activation)
            ratios.append((middle - start) / (time.perf_counter() - middle))
            encoded.append(steps.encoded / n_samples)
            products.append(steps.encoded / n_samples + steps.products / (n_samples * m))
            parameters, _ = rule.update(parameters, sums, None, index, UnitLength())
        print(
            f"full batch {shape}: products an iteration, first half "
            f"{statistics.mean(products[:30]):.2f}, last half {statistics.mean(products[30:]):.3f} "
            f"(rows encoded anew {statistics.mean(encoded[30:]):.4f}); time of an iteration of "
            f"the last half {statistics.median(ratios[30:]):.2f} of a step that encodes all",
            flush=True,
        )


def child(code: str, **environment: str) -> str:
    """What a fresh process prints that runs `code`."""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


_MEMORY = """
import torch
from shoal.network import TopK
from shoal.network.kernels import cpu
from shoal.vocabulary import Parameters

def kib(name):
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith(name)).split()[1])

rows, n, m = {rows}, 64, 1024
data = torch.randn(rows, n)
parameters = Parameters(torch.nn.functional.normalize(torch.randn(m, n)), torch.zeros(m))
cpu.step(parameters, data[:100], TopK(8))
with open("/proc/self/clear_refs", "w") as control:
    control.write("5")  # the peak is now
before = kib("VmRSS")
cpu.step(parameters, data, TopK(8))
print(kib("VmHWM") - before)
"""


def memory() -> None:
    for rows in (10_000, 40_000, 160_000):
        more = int(child(_MEMORY.format(rows=rows))) / 1024
        print(
            f"memory of a step, n=64 m=1024 k=8, {rows} rows: peak {more:.1f} MiB beyond the "
            f"data (one (B, m) array: {rows * 4096 / 2**20:.0f})",
            flush=True,
        )


_FIRST = """
import sys, time
from pathlib import Path
import numpy as np
import torch
if {nothing}:
    from shoal.network.kernels import compiling
    compiling.DELIVERED = Path("nowhere")
from shoal import DictionaryAutoencoder
from shoal.generative import SparseCoding, random_dictionary
truth = random_dictionary(128, 64, random_state=0)
data = SparseCoding(truth, sparsity=3, low=1.0, high=2.0).sample(20000, random_state=1).data
wall, cpu = time.perf_counter(), time.process_time()
model = DictionaryAutoencoder(128, 3, random_state=0)
times = []
for step in model.iter_fit(data.astype({dtype!r})):
    times += [time.perf_counter() - wall, time.process_time() - cpu] if not times else []
print(*times, time.perf_counter() - wall, time.process_time() - cpu)
"""


def first() -> None:
    """The first fit of world a: with nothing, with what the package brought, with all kept."""
    brought = compiling.DELIVERED.is_dir()
    for dtype in ("float32", "float64"):
        with tempfile.TemporaryDirectory() as folder:
            cases = {"nothing kept or delivered": True, "all kept": True}
            if brought:
                cases = {"nothing kept, kernels delivered": False, **cases}
            for word, nothing in cases.items():
                if word != "all kept":
                    folder = tempfile.mkdtemp(dir=folder)
                code = _FIRST.format(nothing=nothing, dtype=dtype)
                step, step_cpu, all_, all_cpu = map(
                    float, child(code, NUMBA_CACHE_DIR=folder).split()
                )
                print(
                    f"first fit of {dtype}, {word}: first step after {step:.1f} s (CPU "
                    f"{step_cpu:.1f}), the whole fit {all_:.1f} s (CPU {all_cpu:.1f})",
                    flush=True,
                )


def fit() -> None:
    """The whole fit of workload d, with the kernels and with the reference."""
    truth = random_dictionary(1024, 256, random_state=0)
    planted = SparseCoding(truth, sparsity=8, low=1.0, high=2.0).sample(200_000, random_state=1)
    data = planted.data.astype("float32")
    seconds = {}
    for backend in ("auto", "reference"):
        model = shoal.DictionaryAutoencoder(1024, 8, random_state=0)
        with use(backend):
            start = time.perf_counter()
            phases: dict[str, float] = {}
            for step in model.iter_fit(data):
                phases[step.phase] = time.perf_counter() - start
        found = shoal.recovery(model.components_, truth).recovered(0.99)
        seconds[backend] = time.perf_counter() - start
        descent = phases["descent"]
        print(
            f"fit n=256 m=1024 k=8 N=200000, {backend}: descent {descent:.1f} s, polish "
            f"{phases['polish'] - descent:.1f} s, recovered at .99 {found:.3f}",
            flush=True,
        )


SECTIONS = {"small": small, "lazy": lazy, "memory": memory, "first": first, "fit": fit}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=",".join(SHAPES), help="of " + ", ".join(SHAPES))
    parser.add_argument("--activation", default="", help="a part of an activation's name")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sections", default="step,dense,small,lazy,memory,first")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sections = given.sections.split(",")
    shapes = given.only.split(",")
    unknown = {*sections} - {"step", "dense", *SECTIONS} | {*shapes} - {*SHAPES}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    kernel = choose(torch.zeros(1, 1)).__name__.rpartition(".")[2]
    print(
        f"shoal {shoal.__version__}, torch {torch.__version__}, {torch.get_num_threads()} "
        f"threads, kernel {kernel}, screening of float32 in "
        f"{cpu.screening(torch.float32, 256)}, of float64 in {cpu.screening(torch.float64, 256)}"
    )
    rows = []
    for name in shapes:
        shape = SHAPES[name]
        if "step" in sections:
            for activation, case in cases(shape).items():
                if given.activation in activation:
                    rows += compare(shape, activation, case, given.rounds)
        if "dense" in sections and name in ("small", "square"):
            for activation, case in dense_cases(shape).items():
                if given.activation in activation:
                    rows += compare(shape, activation, case, given.rounds, ("step",))
    for name, section in SECTIONS.items():
        if name in sections:
            section()
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

"""The sparse GPU kernel against its ceiling, the encoder product, and against autograd.

    python -m benchmarks.gpu [--json FILE] [--smoke]

For each size: the time of a training step with k-largest codes; of the encoder product y D^T
alone in bfloat16, TF32 and float32; and of the dense step by autograd in TF32 and float32, in
chunks of rows where its arrays don't fit. The ceiling of a step is the bfloat16 product: the
fraction of it is that product's time over the step's. Times are medians of synchronised calls.
The data is planted: k atoms a sample and noise, the dictionary near the true one.

Without a CUDA device it says so and leaves with status 2. `--smoke` runs tiny sizes on
whatever there is, to try the code: its times mean nothing and are labelled so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from shoal.network import TopK
from shoal.network.autoencoder import encode, reconstruct
from shoal.network.kernels import gpu, gpu_compiled
from shoal.vocabulary import Parameters, __version__

SIZES = [(65536, 768, 24576, 32), (65536, 1024, 65536, 64)]  # samples, features, atoms, k
SMOKE = [(256, 24, 640, 4), (100, 16, 128, 2)]
ROWS = 8192  # of one call of the product alone; arbitrary, large enough to fill a device


def planted(size: tuple[int, int, int, int], device: str) -> tuple[Parameters, Tensor]:
    """A dictionary (m, n) near the true one, and data (B, n) of k atoms a sample."""
    n_samples, n_features, n_atoms, k = size
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    truth = torch.nn.functional.normalize(normal(n_atoms, n_features), dim=1)
    data = 0.1 * normal(n_samples, n_features) / n_features**0.5
    for _ in range(k):
        unit = torch.randint(n_atoms, (n_samples,), generator=generator, device=device)
        data += normal(n_samples, 1) * truth[unit]
    noise = normal(n_atoms, n_features) / n_features**0.5
    dictionary = torch.nn.functional.normalize(truth + 0.3 * noise, dim=1)
    return Parameters(dictionary, torch.zeros(n_atoms, device=device)), data


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], device: str, repeats: int = 7) -> dict[str, float]:
    for _ in range(2):
        call()
    taken = []
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        taken.append(time.perf_counter() - start)
    return {"median": statistics.median(taken), "least": min(taken), "most": max(taken)}


def peak_bytes(call: Callable[[], object], device: str) -> int | None:
    """The most memory that a call holds at once besides what there was, if that can be told."""
    if device != "cuda":
        return None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return int(torch.cuda.max_memory_allocated() - before)


def product(parameters: Parameters, data: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    dictionary, data = parameters.dictionary.to(dtype), data.to(dtype)
    scores = data.new_empty(min(ROWS, len(data)), len(dictionary))

    def call() -> None:
        for rows in data.split(ROWS):
            torch.mm(rows, dictionary.T, out=scores[: len(rows)])

    return call


def autograd_rows(n_samples: int, n_atoms: int, device: str) -> int:
    """Rows a chunk for which a dense step by autograd, about 12 arrays (rows, m), fits."""
    if device != "cuda":
        return n_samples
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    fit = (free - torch.cuda.memory_allocated()) // (2 * 12 * 4 * n_atoms)
    return max(1, min(n_samples, int(fit)))


def autograd_step(
    parameters: Parameters, data: Tensor, activation: TopK, rows: int
) -> Callable[[], tuple[Tensor, Tensor]]:
    leaves = parameters.map(lambda part: part.clone().requires_grad_())

    def call() -> tuple[Tensor, Tensor]:
        for part in leaves:
            part.grad = None
        for chunk in data.split(rows):
            residual = chunk - reconstruct(leaves, encode(leaves, chunk, activation))
            (0.5 * residual.square().sum()).backward()
        assert leaves.dictionary.grad is not None
        assert leaves.bias.grad is not None
        return leaves.dictionary.grad, leaves.bias.grad

    return call


# Operators that only look at memory, or take some.
IDLE = (
    "view", "slice", "select", "t", "transpose", "split", "expand", "unsqueeze", "squeeze", "empty",
    "empty_like", "new_empty", "detach", "alias", "_unsafe_view", "permute", "reshape", "flatten",
    "unbind", "empty_strided", "lift_fresh", "promote_types",
)  # fmt: skip
# Operators that the host waits for. A mask as an index asks for its number of entries, too.
WAITING = (
    "nonzero", "_local_scalar_dense", "item", "masked_select", "masked_scatter", "unique",
    "_unique2", "bincount", "repeat_interleave", "is_nonzero", "equal",
)  # fmt: skip


class Launches(TorchDispatchMode):
    """Counts what is launched, by its name, and what the host would wait for; kernels apart."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self._launching = False

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        indices = args[1] if name.startswith("index") and isinstance(args[1], list) else ()
        masks = any(each is not None and each.dtype == torch.bool for each in indices)
        between = name in ("_to_copy", "copy_") and len(_devices(args, kwargs)) > 1
        if name in WAITING or masks or between:
            self.waits[name] += 1
        elif name not in IDLE:
            self.found[name] += 1
        return function(*args, **(kwargs or {}))

    def __enter__(self) -> Any:
        self._undo = ExitStack()
        # In Triton's interpreter a launch is many operators: they don't count.
        for kernel in [each for each in vars(gpu_compiled).values() if hasattr(each, "arg_names")]:
            self._undo.callback(delattr, kernel, "run")
            kernel.run = partial(self._run, kernel.run)
        # These tell no mode of it.
        for name in ("tolist", "numpy", "cpu"):
            change = mock.patch.object(Tensor, name, self._noticed(name, getattr(Tensor, name)))
            self._undo.enter_context(change)
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        self._undo.close()
        super().__exit__(*raised)

    def _noticed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._launching:
                self.waits[name] += 1
            return method(*args, **kwargs)

        return call

    def _run(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.found["Triton"] += 1
        self._launching = True
        with _disable_current_modes():
            found = run(*args, **kwargs)
        self._launching = False
        return found


def _devices(args: Any, kwargs: Any) -> set[torch.device]:
    found = {each.device for each in args if isinstance(each, Tensor)}
    wanted = (kwargs or {}).get("device")
    return found if wanted is None else found | {torch.device(wanted)}


def launches(parameters: Parameters, data: Tensor, activation: TopK) -> Launches:
    """What a step launches, and how often the host waits for it."""
    with Launches() as seen:
        gpu.step(parameters, data, activation)
    return seen


def measure(size: tuple[int, int, int, int], device: str) -> dict[str, Any]:
    n_samples, n_features, n_atoms, k = size
    activation = TopK(k)
    parameters, data = planted(size, device)
    rows = autograd_rows(n_samples, n_atoms, device)

    def step() -> Any:
        return gpu.step(parameters, data, activation)

    row: dict[str, Any] = {
        "samples": n_samples,
        "features": n_features,
        "atoms": n_atoms,
        "k": k,
        "autograd_chunks": -(-n_samples // rows),
    }
    times: dict[str, dict[str, float]] = {}
    times["step"] = seconds(step, device)
    row["step_peak_bytes"] = peak_bytes(step, device)
    times["product_bf16"] = seconds(product(parameters, data, torch.bfloat16), device)
    before = torch.get_float32_matmul_precision()
    try:
        for name, setting in (("tf32", "high"), ("float32", "highest")):
            torch.set_float32_matmul_precision(setting)
            times[f"product_{name}"] = seconds(product(parameters, data, torch.float32), device)
            dense = autograd_step(parameters, data, activation, rows)
            times[f"autograd_{name}"] = seconds(dense, device, repeats=3)
        row["autograd_peak_bytes"] = peak_bytes(dense, device)
        # Of the float32 step: where float32 rounding decides a unit, a row may differ.
        gradient = dense()[0]
        difference = (step().dictionary - gradient).norm() / gradient.norm()
    finally:
        torch.set_float32_matmul_precision(before)
    row["seconds"] = times
    row["gradient_difference_to_autograd"] = float(difference)
    row["product_bf16_tflops"] = (
        2e-12 * n_samples * n_features * n_atoms / times["product_bf16"]["median"]
    )
    row["fraction_of_ceiling"] = times["product_bf16"]["median"] / times["step"]["median"]
    return row


def report(row: dict[str, Any]) -> None:
    chunks = row["autograd_chunks"]
    print(f"{row['samples']} x {row['features']} -> {row['atoms']} atoms, k = {row['k']}")
    for name, taken in row["seconds"].items():
        note = f" in {chunks} chunks" if name.startswith("autograd") and chunks > 1 else ""
        print(
            f"  {name:18} {1e3 * taken['median']:10.3f} ms"
            f"  ({1e3 * taken['least']:.3f} - {1e3 * taken['most']:.3f}){note}"
        )
    print(f"  fraction of the bfloat16 product: {row['fraction_of_ceiling']:.3f}")
    if row["step_peak_bytes"] is not None:
        print(
            f"  peak memory: step {row['step_peak_bytes'] / 2**30:.2f} GiB,"
            f" autograd {row['autograd_peak_bytes'] / 2**30:.2f} GiB"
        )
    print(f"  gradient, difference to autograd: {row['gradient_difference_to_autograd']:.1e}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write all to this file")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to try the code")
    arguments = parser.parse_args()
    has_device = torch.cuda.is_available()
    if not has_device and not arguments.smoke:
        print("benchmarks.gpu: no CUDA device", file=sys.stderr)
        return 2
    device = "cuda" if has_device else "cpu"
    triton = None if gpu.triton is None else importlib.metadata.version("triton")
    found: dict[str, Any] = {
        "kind": "smoke: no result" if arguments.smoke else "measurement",
        "device": torch.cuda.get_device_name() if has_device else platform.machine() + " (cpu)",
        "versions": {
            "shoal": __version__,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "triton": triton,
            "python": platform.python_version(),
        },
        "rows": [],
    }
    print(found["kind"], "|", found["device"], "|", found["versions"])
    for size in SMOKE if arguments.smoke else SIZES:
        found["rows"].append(measure(size, device))
        report(found["rows"][-1])
        if has_device:
            torch.cuda.empty_cache()
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

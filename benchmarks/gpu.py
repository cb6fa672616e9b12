"""The GPU step against its ceiling, the encoder product, and against what others do.

    python -m benchmarks.gpu [--json benchmarks/results/gpu.json] [--only step,update,...]
    python -m benchmarks.gpu --smoke      # tiny sizes on whatever there is: times mean nothing
    TRITON_INTERPRET=1 python -m benchmarks.gpu --launches      # what a step launches; no GPU

Sections, some eight minutes on an H100 in all:

    step        loss, gradient and activity of a batch, k-largest signed and non-negative: recorded
                in a CUDA graph, launched one by one, and on bfloat16 data; the encoder alone; the
                product y D^T alone in bfloat16, TF32 and float32; peers where they are installed
    update      a step and the update of the dictionary, against a dense TopK autoencoder with Adam
    refinement  a step with a subspace pursuit's codes, against one with the encoder's own
    chip        the step by how many atoms of a row are kept in registers

Rows of the result are {"what", "by", "in", "shape": [B, n, m, k], "signed", "ms", "least", "most"},
milliseconds of a synchronised call, medians of several; `in` is the type of the products, or "" for
what a kernel chooses. Rows of "launches" and "waits" have a number instead, of "bytes" the most
memory that a step holds besides parameters and data. Data are planted: k atoms a sample and
noise, the dictionary near the true one. Without a CUDA device it says so, and leaves with status 2.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from shoal.network import TopK
from shoal.network.inference import SubspacePursuit
from shoal.network.kernels import gpu, gpu_compiled, recorded
from shoal.training import NormalizedStep, UnitLength
from shoal.training.schedules import Constant
from shoal.vocabulary import Parameters, __version__

Shape = tuple[int, int, int, int]  # samples, features, atoms, k
STEPS = [
    (8192, 768, 24576, 32),
    (65536, 768, 24576, 32),
    (32768, 1024, 65536, 64),
    (16384, 256, 4096, 16),
    (16384, 64, 1024, 8),
]
UPDATES = [(4096, 768, 4096, 25), (8192, 768, 24576, 32)]
REFINEMENTS = [(8192, 768, 8192, 16)]
CHIPS = [(65536, 768, 24576, 32), (16384, 256, 4096, 16)]
SMOKE = [(4, 24, 640, 4)]
ROWS = 8192  # of one call of the product alone; arbitrary, large enough to fill a device


def planted(shape: Shape, device: str) -> tuple[Parameters, Tensor]:
    """A dictionary (m, n) near the true one, and data (B, n) of k atoms a sample."""
    n_samples, n_features, n_atoms, k = shape
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device)

    truth = torch.nn.functional.normalize(normal(n_atoms, n_features), dim=1)
    data = 0.1 * normal(n_samples, n_features) / n_features**0.5
    for _ in range(k):
        unit = torch.randint(n_atoms, (n_samples,), generator=generator, device=device)
        data += (0.5 + normal(n_samples, 1).abs()) * truth[unit]
    noise = normal(n_atoms, n_features) / n_features**0.5
    dictionary = torch.nn.functional.normalize(truth + 0.3 * noise, dim=1)
    return Parameters(dictionary, torch.zeros(n_atoms, device=device)), data


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def milliseconds(call: Callable[[], object], repeats: int = 9) -> dict[str, float]:
    for _ in range(3):  # compiles, records
        call()
    taken = []
    for _ in range(repeats):
        synchronise()
        start = time.perf_counter()
        call()
        synchronise()
        taken.append(1e3 * (time.perf_counter() - start))
    return {"ms": statistics.median(taken), "least": min(taken), "most": max(taken)}


@contextmanager
def products_in(setting: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


# --- counting --------------------------------------------------------------------------------

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


# --- what is measured ------------------------------------------------------------------------


class Results:
    """Rows of the result, printed as they come."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, what: str, shape: Shape, numbers: dict[str, Any], **more: Any) -> None:
        row = {"what": what, "by": "shoal", "in": "", "shape": list(shape), "signed": None}
        row |= more | numbers
        self.rows.append(row)
        shown = ", ".join(f"{k} {v:.4g}" for k, v in numbers.items() if v is not None)
        print(
            f"{shape}  {what:12} {row['by']:20} {row['in']:9} {row['signed']!s:6} {shown}",
            flush=True,
        )

    def timed(self, what: str, shape: Shape, call: Callable[[], object], **more: Any) -> None:
        """Time a call; what can't be called says why."""
        try:
            self.add(what, shape, milliseconds(call), **more)
        except Exception as error:  # a peer's own, or no memory: the others go on
            reason = (str(error).splitlines() or [""])[0][:200]
            print(f"{shape}  {what} {more}: {type(error).__name__}: {reason}", flush=True)
            self.rows.append({"what": what, "shape": list(shape), "failed": reason, **more})


def product(parameters: Parameters, data: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    dictionary, data = parameters.dictionary.to(dtype), data.to(dtype)
    scores = data.new_empty(min(ROWS, len(data)), len(dictionary))

    def call() -> None:
        for rows in data.split(ROWS):
            torch.mm(rows, dictionary.T, out=scores[: len(rows)])

    return call


def waits(call: Callable[[], object]) -> int:
    """How often the host waits, as CUDA tells."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in seen)


def steps(results: Results, shape: Shape, device: str) -> None:
    parameters, data = planted(shape, device)
    for name, setting, dtype in (
        ("bfloat16", "highest", torch.bfloat16),
        ("tf32", "high", torch.float32),
        ("float32", "highest", torch.float32),
    ):
        with products_in(setting):
            call = product(parameters, data, dtype)
            results.timed("product", shape, call, by="torch", **{"in": name})
    half = data.bfloat16()
    for signed in (True, False):
        activation = TopK(shape[3], signed)
        step = partial(gpu.step, parameters, data, activation)
        results.timed("step", shape, step, signed=signed)
        recorded.forget()
        with mock.patch.object(recorded, "KEPT", 0):
            results.timed("step launched", shape, step, signed=signed)
            found = launches(parameters, data, activation)
            results.add("launches", shape, {"number": sum(found.found.values())}, signed=signed)
            if device == "cuda":
                results.add("waits", shape, {"number": waits(step)}, signed=signed)
                results.add("bytes", shape, {"number": peak(step)}, signed=signed)
        on_half = partial(gpu.step, parameters, half, activation)
        results.timed("step, halves", shape, on_half, signed=signed)
        recorded.forget()
        encode = partial(gpu.sparse_encode, parameters, data, activation)
        results.timed("encode", shape, encode, signed=signed)
    for kind in ("bfloat16", "float32"):
        for name, make in PEERS.items():
            results.timed(
                "step", shape, partial(_called, make, shape, data, kind), by=name, **{"in": kind}
            )
            _made.clear()


def peak(call: Callable[[], object]) -> int:
    """The most memory that a call holds at once besides what there was."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return int(torch.cuda.max_memory_allocated() - before)


_made: dict[Any, Callable[[], object]] = {}


def _called(make: Callable[..., Callable[[], object]], *arguments: Any) -> object:
    """A peer's step: the peer is made at the first call."""
    if make not in _made:
        _made[make] = make(*arguments)
    return _made[make]()


def sparsify_step(shape: Shape, data: Tensor, kind: str) -> Callable[[], object]:
    from sparsify import SparseCoder, SparseCoderConfig  # type: ignore[import-not-found]

    _, n_features, n_atoms, k = shape
    coder = SparseCoder(
        n_features,
        SparseCoderConfig(num_latents=n_atoms, k=k),
        device=data.device,
        dtype=torch.float32,
    )
    rows = min(ROWS, len(data))

    def call() -> None:
        coder.zero_grad(set_to_none=True)
        with torch.autocast(data.device.type, torch.bfloat16, enabled=kind == "bfloat16"):
            for part in data.split(rows):
                coder(part).fvu.backward()

    return call


def sae_lens_step(shape: Shape, data: Tensor, kind: str) -> Callable[[], object]:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig  # type: ignore[import-not-found]
    from sae_lens.saes.sae import TrainStepInput  # type: ignore[import-not-found]

    _, n_features, n_atoms, k = shape
    config = TopKTrainingSAEConfig(d_in=n_features, d_sae=n_atoms, k=k, device=str(data.device))
    sae = TopKTrainingSAE(config)

    def call() -> None:
        sae.zero_grad(set_to_none=True)
        with torch.autocast(data.device.type, torch.bfloat16, enabled=kind == "bfloat16"):
            for part in data.split(min(ROWS, len(data))):
                given = TrainStepInput(
                    sae_in=part, coefficients={}, dead_neuron_mask=None, n_training_steps=0
                )
                sae.training_forward_pass(given).loss.backward()

    return call


PEERS = {"sparsify": sparsify_step, "sae-lens": sae_lens_step}


def dense_with_adam(parameters: Parameters, data: Tensor, k: int) -> Callable[[], None]:
    """A tied TopK autoencoder as it is usually written, and fused Adam."""
    weights = parameters.dictionary.clone().requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=1e-4, fused=data.is_cuda)

    def call() -> None:
        optimiser.zero_grad(set_to_none=True)
        z = data @ weights.T
        value, unit = z.topk(k, dim=1)
        codes = torch.zeros_like(z).scatter(1, unit, value)
        (codes @ weights - data).square().sum(dim=1).mean().backward()
        optimiser.step()

    return call


def updates(results: Results, shape: Shape, device: str) -> None:
    parameters, data = planted(shape, device)
    for signed in (True, False):
        rule, activation, constrain = (
            NormalizedStep(Constant(0.3)),
            TopK(shape[3], signed),
            UnitLength(),
        )

        def step() -> None:
            sums = gpu.step(parameters, data, activation)  # noqa: B023 - called at once
            rule.update(parameters, sums, None, 0, constrain)  # noqa: B023

        results.timed("update", shape, step, signed=signed)
        recorded.forget()
    for name, setting in (("tf32", "high"), ("bfloat16", "high")):
        with (
            products_in(setting),
            torch.autocast(device, torch.bfloat16, enabled=name == "bfloat16"),
        ):
            call = dense_with_adam(parameters, data, shape[3])
            results.timed("update", shape, call, by="dense TopK + Adam", **{"in": name})


def refinements(results: Results, shape: Shape, device: str) -> None:
    parameters, data = planted(shape, device)
    for signed in (True, False):
        for encoder in (TopK(shape[3], signed), SubspacePursuit(shape[3], signed)):
            what = "step" if isinstance(encoder, TopK) else "refinement"
            results.timed(what, shape, partial(gpu.step, parameters, data, encoder), signed=signed)
            recorded.forget()


def chips(results: Results, shape: Shape, device: str) -> None:
    parameters, data = planted(shape, device)
    for size in (0, 2**13, 2**14, 2**15, 2**16):
        with mock.patch.object(gpu_compiled, "ON_CHIP", size):
            step = partial(gpu.step, parameters, data, TopK(shape[3]))
            results.timed("step", shape, step, signed=True, on_chip=size)
            recorded.forget()


SECTIONS: dict[str, tuple[Callable[[Results, Shape, str], None], list[Shape]]] = {
    "step": (steps, STEPS),
    "update": (updates, UPDATES),
    "refinement": (refinements, REFINEMENTS),
    "chip": (chips, CHIPS),
}


def ratios(rows: list[dict[str, Any]]) -> None:
    """What the numbers say of the aims."""
    against: dict[str, dict[str, Any]] = {
        "step": {"what": "product", "by": "torch", "in": "bfloat16"},
        "update": {"what": "update", "by": "dense TopK + Adam", "in": "tf32"},
        "refinement": {"what": "step", "by": "shoal"},
    }
    for row in rows:
        if row["what"] not in against or row.get("by") != "shoal" or "on_chip" in row:
            continue
        wanted = {"shape": row["shape"], **against[row["what"]]}
        if row["what"] == "refinement":
            wanted["signed"] = row["signed"]
        fits = [
            each
            for each in rows
            if "ms" in each and all(each.get(key) == value for key, value in wanted.items())
        ]
        if fits and "ms" in row:
            ratio = row["ms"] / fits[0]["ms"]
            print(f"{row['shape']} signed {row['signed']}: {row['what']} {ratio:.2f} of {wanted}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write all to this file")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to try the code")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--launches", action="store_true", help="what a step launches, no times")
    arguments = parser.parse_args()
    if arguments.launches:
        return show_launches()
    has_device = torch.cuda.is_available()
    if not has_device and not arguments.smoke:
        print("benchmarks.gpu: no CUDA device", file=sys.stderr)
        return 2
    device = "cuda" if has_device else "cpu"
    found: dict[str, Any] = {
        "kind": "smoke: no result" if arguments.smoke else "measurement",
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if has_device else platform.machine() + " (cpu)",
        "versions": {
            "shoal": __version__,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "triton": importlib.metadata.version("triton"),
            "python": platform.python_version(),
        },
    }
    print(found)
    results = Results()
    for name in arguments.only.split(","):
        section, shapes = SECTIONS[name]
        for shape in SMOKE if arguments.smoke else shapes:
            section(results, shape, device)
            if has_device:
                torch.cuda.empty_cache()
            if arguments.json:  # what there is so far
                text = json.dumps(found | {"rows": results.rows}, indent=1)
                arguments.json.write_text(text + "\n")
    ratios(results.rows)
    return 0


def show_launches() -> int:
    """The launches of a step of one tile, and of each further tile."""
    parameters, data = planted((6, 16, 640, 4), "cuda" if torch.cuda.is_available() else "cpu")
    counts = []
    for size in (gpu.TILE_BYTES, 1):
        with mock.patch.object(gpu, "TILE_BYTES", size), mock.patch.object(recorded, "KEPT", 0):
            seen = launches(parameters, data, TopK(4))
        counts.append(seen.found)
        print(f"host waits: {sum(seen.waits.values())}")
    whole, apart = counts
    tile = Counter({name: (apart[name] - whole[name]) / (len(data) - 1) for name in apart})
    print(f"a step of one tile: {sum(whole.values())}: {dict(whole)}")
    print(f"each further tile: {sum(tile.values()):g}: { {k: v for k, v in tile.items() if v} }")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Coverage-guided fuzzing of readers, checkpoints, run folders and the command line.

    pip install atheris
    python -m tests.attacks.fuzz --inputs 100000 --seed 1
    python -m tests.attacks.fuzz --inputs 5000 --only .npy

Each target has a process of its own, in which libFuzzer makes inputs from those that reached new
code. What counts is a one-line error of shoal's own, or a result: anything else is kept in
`--keep`, with how it ended. A hang is an input of more than 20 s, a run on the memory one of more
than 1 GB.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__:
    from .mutate import KINDS, read
else:
    from attacks.mutate import KINDS, read

TARGETS = [*KINDS, "checkpoint", "run", "command", "commands"]
_SECONDS, _MEGABYTES = 20, 1024
_MODULES = ["shoal.data", "shoal.training.checkpoints", "shoal.cli", "shoal.vocabulary",
            "shoal.run_folder", "shoal.runs", "shoal.files"]  # fmt: skip

Tried = Callable[[bytes], str]
"""From an input to how it ended; what isn't to be is raised."""


def _one_line(error: BaseException) -> str:
    said = str(error)
    if "\n" in said or len(said) > 2000:
        raise AssertionError(f"not one line: {said[:300]!r}") from error
    return "refused"


def _reader(kind: str, folder: Path) -> tuple[list[bytes], Tried]:
    """Files of a kind: of a folder the first byte says which one is replaced."""
    from shoal.vocabulary import ShoalError

    path = KINDS[kind](folder)
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    raw = [file.read_bytes() for file in files]
    seeds = [bytes([number]) + content for number, content in enumerate(raw)]

    def tried(data: bytes) -> str:
        number = data[0] % len(files) if data else 0
        files[number].write_bytes(data[1:])
        try:
            read(path)
        except ShoalError as error:
            return _one_line(error)
        finally:
            files[number].write_bytes(raw[number])
        return "read"

    return seeds, tried


def _checkpoint(folder: Path) -> tuple[list[bytes], Tried]:
    """What `state.json` says of the values, as if its check sum were right."""
    import atheris
    import numpy as np
    import torch

    import shoal
    from shoal.training.checkpoints import _read, packed, unpacked

    rows = np.random.default_rng(0).normal(size=(60, 5))
    seeds: list[Any] = []
    tensors: dict[str, Any] = {}
    for model in (
        shoal.DictionaryAutoencoder(6, 2, random_state=0),
        shoal.DictionaryAutoencoder(6, 2, recipe="topk", random_state=0),
        shoal.RegularizedAutoencoder(6, "dae", 0.1, n_epochs=1, random_state=0),
    ):
        kept = folder / f"kept{len(seeds)}"
        for number, _ in enumerate(model.iter_fit(rows, checkpoint=kept, checkpoint_every=1)):
            if number == 1:
                break
        plain, found = _read(sorted(each for each in kept.iterdir() if each.name.isdigit())[-1])
        seeds.append(plain["moving"])
        tensors |= found

    def tried(data: bytes) -> str:
        drawn = atheris.FuzzedDataProvider(data)
        plain = copy.deepcopy(drawn.PickValueInList(seeds))
        for _ in range(drawn.ConsumeIntInRange(1, 3)):
            _change(plain, drawn)
        try:
            values = unpacked(plain, tensors, torch.device("cpu"))
        except ValueError as error:
            str(error).encode("utf-8", "backslashreplace")
            return "refused"
        packed(values)  # what is taken for values can be kept again
        return "read"

    return [os.urandom(64) for _ in range(8)], tried


_ODD: list[Any] = [
    None, True, 0, 1, -1, 2**31, 2**63, 10**400, 0.5, math.nan, "", "x", "\ud800", [], [[]], {},
    {"tuple": []}, {"map": {}}, {"float": "0x1p0"}, {"float": "x"}, {"array": {}},
    {"record": "State", "fields": {}}, {"record": "Popen", "fields": {}}, [1] * 50,
]  # fmt: skip


def _change(plain: Any, drawn: Any) -> None:
    """One value somewhere in it becomes another, goes, or takes the place of one beside it."""
    here = plain
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return
        key = drawn.PickValueInList(keys)
        inner = here[key]
        deeper = isinstance(inner, (dict, list)) and len(inner) > 0
        if deeper and drawn.ConsumeProbability() < 0.85:
            here = inner
            continue
        how = drawn.ConsumeIntInRange(0, 4)
        if how == 0 and isinstance(here, dict):
            del here[key]
        elif how == 1:
            here[key] = copy.deepcopy(here[drawn.PickValueInList(keys)])
        elif how == 2 and isinstance(inner, str):
            here[key] = drawn.ConsumeUnicode(20)
        elif how == 3 and isinstance(inner, int):
            here[key] = drawn.ConsumeInt(9)
        else:
            here[key] = copy.deepcopy(drawn.PickValueInList(_ODD))
        return


_VALUES = [
    "", "0", "-1", "1", "2", "3", "8", "1e9", "99999999999999999999", "nan", "inf", "-inf", "0.5",
    "auto", "topk", "default", "incoherent", "matryoshka", "jumprelu", "nguyen2019", "arpit2016",
    "none", "whiten", "scale", "center", "x.npy", "y.csv", "missing.npy", ".", "/", "run", "cpu",
    "cuda", "cuda:7", "mps", "dae", "cae", "l1", "relu", "sigmoid", "30s", "1h", "-5s", "10%",
    "rho=0.1", "rho=", "=1", "rho=[", "nonnegative", "mixture", "activations", "ignore", "sample:",
    "sample:patches", "\x1b[2J", "\udc80", "é" * 50, "a" * 5000, "../..", "--", "-",
]  # fmt: skip


def _command(folder: Path) -> tuple[list[bytes], Tried]:
    """`shoal fit` with words drawn from its options and odd values, up to its first step."""
    import atheris
    import numpy as np
    import typer.main
    from typer.testing import CliRunner

    from shoal.cli import app
    from shoal.estimators.dictionary import DictionaryAutoencoder
    from shoal.estimators.regularized import RegularizedAutoencoder
    from shoal.vocabulary import RunError

    os.chdir(folder)
    np.save("x.npy", np.random.default_rng(0).normal(size=(40, 5)))
    np.savetxt("y.csv", np.random.default_rng(0).normal(size=(20, 3)), delimiter=",")
    command: Any = typer.main.get_command(app)
    options = [name for each in command.commands["fit"].params for name in each.opts]
    options = [each for each in options if each.startswith("-")]

    def begun(*_: Any, **__: Any) -> Any:
        raise RunError("begun")

    for model, name in ((DictionaryAutoencoder, "_fit_steps"),
                        (RegularizedAutoencoder, "_fit_epochs")):  # fmt: skip
        setattr(model, name, begun)
    runner = CliRunner()

    def tried(data: bytes) -> str:
        drawn = atheris.FuzzedDataProvider(data)
        words = ["fit", drawn.PickValueInList(["x.npy", "y.csv", "x.npy", ""]), "-o", "run"]
        return _ended(runner, app, words + _words(drawn, options, 6))

    return [bytes(range(64)), b"\0" * 64, os.urandom(64)], tried


# What they are used with. Those that learn at length, or open a browser, are left out.
_COMMANDS = {
    "transform": ["run", "x.npy", "-o", "codes.npz"],
    "export": ["run", "-o", "exported"],
    "info": ["run"],
    "report": ["run", "x.npy"],
    "compare": ["run", "run"],
    "score": ["run", "x.npy"],
    "generate": ["-n", "5", "-m", "6", "-k", "2", "-N", "20", "-o", "world.npz"],
}


def _commands(folder: Path) -> tuple[list[bytes], Tried]:
    """Other commands, to their end: what they need, or odd values in its place, and options."""
    import atheris
    import numpy as np
    import typer.main
    from typer.testing import CliRunner

    import shoal
    from shoal.cli import app

    os.chdir(folder)
    rows = np.random.default_rng(0).normal(size=(40, 5))
    np.save("x.npy", rows)
    shoal.save_run(shoal.DictionaryAutoencoder(6, 2, random_state=0).fit(rows), "run", rows)
    command: Any = typer.main.get_command(app)
    options = {
        name: ["--help"]
        + [opt for each in command.commands[name].params for opt in each.opts if opt[0] == "-"]
        for name in _COMMANDS
    }
    runner, names = CliRunner(), list(_COMMANDS)

    def tried(data: bytes) -> str:
        drawn = atheris.FuzzedDataProvider(data)
        name = drawn.PickValueInList(names)
        words = list(_COMMANDS[name])
        if drawn.ConsumeProbability() < 0.3:
            words[drawn.ConsumeIntInRange(0, len(words) - 1)] = drawn.PickValueInList(_VALUES)
        return _ended(runner, app, [name, *words, *_words(drawn, options[name], 3)])

    return [bytes(range(64)), b"\0" * 64, os.urandom(64)], tried


def _words(drawn: Any, options: list[str], most: int) -> list[str]:
    """Options and odd values, at most so many."""
    words = []
    for _ in range(drawn.ConsumeIntInRange(0, most)):
        if drawn.ConsumeProbability() < 0.9:
            words.append(drawn.PickValueInList(options))
        kind = drawn.ConsumeIntInRange(0, 9)
        if kind < 7:
            words.append(drawn.PickValueInList(_VALUES))
        elif kind == 7:
            words.append(drawn.ConsumeUnicode(12))
    return words


def _ended(runner: Any, app: Any, words: list[str]) -> str:
    """How a command ends; an error that isn't one line is raised."""
    result = runner.invoke(app, words)
    error = result.exception
    if error is not None and not isinstance(error, SystemExit):
        raise error
    if result.exit_code == 0:
        return "help" if "--help" in words else "ended"
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    if len(errors) != 1 or "Traceback" in result.stderr:
        raise AssertionError(f"{words}: {result.stderr[:1000]!r}")
    return "begun" if errors[0] == "error: begun" else "refused"


def _run(folder: Path) -> tuple[list[bytes], Tried]:
    """A run's configuration with values changed, or one of its files replaced by any bytes."""
    import atheris
    import numpy as np

    import shoal
    from shoal.report import read_run

    rows = np.random.default_rng(0).normal(size=(40, 5))
    kept: list[tuple[Path, dict[str, bytes]]] = []
    for number, model in enumerate((
        shoal.DictionaryAutoencoder(6, 2, preprocessing="whiten", random_state=0),
        shoal.RegularizedAutoencoder(6, "cae", n_epochs=1, random_state=0),
    )):  # fmt: skip
        path = shoal.save_run(model.fit(rows), folder / f"run{number}", rows)
        kept.append((path, {each.name: each.read_bytes() for each in sorted(path.iterdir())}))
    small = [name for name in kept[0][1] if name.endswith((".json", ".safetensors", ".jsonl"))]

    def tried(data: bytes) -> str:
        drawn = atheris.FuzzedDataProvider(data)
        path, files = kept[drawn.ConsumeIntInRange(0, 1)]
        name = drawn.PickValueInList(small)
        if drawn.ConsumeBool() or name not in files:
            name = "config.json"
            config = json.loads(files[name])
            for _ in range(drawn.ConsumeIntInRange(1, 3)):
                _change(config, drawn)
            content = json.dumps(config).encode()
        else:
            content = bytearray(files[name])
            at = drawn.ConsumeIntInRange(0, len(content))
            content[at : at + drawn.ConsumeIntInRange(0, 20)] = drawn.ConsumeBytes(40)
        (path / name).write_bytes(content)
        try:
            shoal.load_run(path).transform(rows)
            read_run(path)
        except shoal.RunError as error:
            return _one_line(error)
        finally:
            (path / name).write_bytes(files[name])
        return "read"

    return [os.urandom(64) for _ in range(8)], tried


def _child(target: str, count: int, seed: int, keep: Path) -> None:
    """Try inputs in this process, and print how they ended after each thousand."""
    import atheris

    with atheris.instrument_imports(include=_MODULES, enable_loader_override=False):
        import shoal.cli
        import shoal.data
        import shoal.training.checkpoints  # noqa: F401

        for each in ("npy", "npz", "zarr", "parquet", "safetensors", "delimited", "images"):
            __import__(f"shoal.data.readers.{each}")
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="shoal-fuzz-"))
    own = {"checkpoint": _checkpoint, "run": _run, "command": _command, "commands": _commands}
    seeds, tried = own[target](folder) if target in own else _reader(target, folder)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(seeds):
        (corpus / str(number)).write_bytes(content)
    ends, said = Counter[str](), set[str]()

    def one(data: bytes) -> None:
        try:
            ends[tried(data)] += 1
        except Exception as error:
            ends["tracebacks"] += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            name = f"{type(error).__name__} {Path(where.filename).name}:{where.lineno}"
            if name not in said:
                said.add(name)
                keep.mkdir(parents=True, exist_ok=True)
                place = keep / f"{target.strip('.').replace(' ', '-')}-{len(said)}"
                place.write_bytes(data)
                place.with_name(place.name + ".txt").write_text(
                    traceback.format_exc(), "utf-8", "backslashreplace"
                )
        total = sum(ends.values())
        if total % 1000 == 0 or total == count:
            print("ends", json.dumps(ends), file=sys.__stdout__, flush=True)

    longest = max(4096, 2 * max(map(len, seeds)))
    words = [f"-runs={count}", f"-seed={seed}", f"-timeout={_SECONDS}", f"-max_len={longest}",
             f"-rss_limit_mb={_MEGABYTES}", f"-malloc_limit_mb={_MEGABYTES}", "-verbosity=0",
             f"-artifact_prefix={keep}/"]  # fmt: skip
    atheris.Setup([sys.argv[0], *words, str(corpus)], one)
    atheris.Fuzz()


def fuzzed(target: str, count: int, seed: int, keep: Path) -> Counter[str]:
    """How the inputs of a target ended, those that ended its process included."""
    keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        env = {**os.environ, "TMPDIR": folder, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        words = ["--target", target, "--inputs", str(count), "--seed", str(seed)]
        done = subprocess.run(
            [sys.executable, "-m", "attacks.fuzz", *words, "--keep", str(keep.resolve())],
            capture_output=True, text=True, errors="replace", env=env,
        )  # fmt: skip
    told = [line[5:] for line in done.stdout.splitlines() if line.startswith("ends ")]
    ends = Counter[str](json.loads(told[-1]) if told else {})
    for word, name in (("timeout", "hangs"), ("out-of-memory", "memory"), ("deadly", "deaths")):
        ends[name] += f"libFuzzer: {word}" in done.stderr
    if not told or done.returncode not in (0, 70, 77):
        ends[f"exit {done.returncode}"] += 1
        (keep / f"{target.strip('.')}.log").write_text(done.stderr[-20_000:])
    return +ends


def main() -> None:
    """Try all targets, or one, and print how the inputs ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"))
    parser.add_argument("--only", choices=TARGETS)
    parser.add_argument("--target", choices=TARGETS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.target:
        _child(asked.target, asked.inputs, asked.seed, asked.keep)
        return
    targets = [asked.only] if asked.only else TARGETS
    total = Counter[str]()
    for target in targets:
        ends = fuzzed(target, max(1, asked.inputs // len(targets)), asked.seed, asked.keep)
        print(f"{target}: {dict(ends)}", flush=True)
        total += ends
    print(f"in all {sum(total.values())}: {dict(total)}")


if __name__ == "__main__":
    main()

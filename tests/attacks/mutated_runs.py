"""Run folders with one thing changed in them: bytes, JSON values, arrays, whole files."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

__all__ = ["KINDS", "judged", "mutate"]

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 99, 2**31, 2**63, 10**400, 0.5, -0.5, 1e308, math.nan, math.inf,
    "", "x", "cpu", "none", "\ud800", "x" * 10_000, "\x1b[2J", [], [[]], [1], ["a"], {}, {"a": 1},
    {"kind": "TopK", "k": 99, "signed": True}, {"kind": "ReLU"}, {"kind": "L1", "strength": -1},
]  # fmt: skip


def flip(file: Path, draw: random.Random) -> None:
    """One bit."""
    data = bytearray(file.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    file.write_bytes(data)


def noise(file: Path, draw: random.Random) -> None:
    """A few bytes in a row."""
    data = bytearray(file.read_bytes())
    start = draw.randrange(len(data))
    data[start : start + 8] = draw.randbytes(len(data[start : start + 8]))
    file.write_bytes(data)


def cut(file: Path, draw: random.Random) -> None:
    """Shorter than it was."""
    os.truncate(file, draw.randrange(file.stat().st_size))


def longer(file: Path, draw: random.Random) -> None:
    """With something behind."""
    file.write_bytes(file.read_bytes() + draw.choice([b"\0", b"{}\n", b"x" * 1000]))


def delete(file: Path, draw: random.Random) -> None:
    """Not there."""
    file.unlink()


def instead(file: Path, draw: random.Random) -> None:
    """No file."""
    file.unlink()
    draw.choice([os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])(file)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to every value in nested JSON."""
    found = [here] if here else []
    items: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = enumerate(value[:3])
    for key, item in items:
        found += places(item, (*here, key))
    return found


def json_value(file: Path, draw: random.Random) -> None:
    """Another value at one place of the configuration, or none."""
    path = file.with_name("config.json")
    config = json.loads(path.read_text())
    *way, last = draw.choice(places(config))
    inner = config
    for key in way:
        inner = inner[key]
    if draw.random() < 0.2:
        del inner[last]
    else:
        inner[last] = draw.choice(ODD)
    path.write_text(json.dumps(config))


def json_text(file: Path, draw: random.Random) -> None:
    """A key twice, or something that is deep or long."""
    path = file.with_name("config.json")
    odd = ["[" * 100_000 + "]" * 100_000, "9" * 5000, '{"a": 1, "a": 2}', "NaN", '"\\ud800"']
    text = path.read_text().replace("{", f'{{"{draw.choice("xyz")}": {draw.choice(odd)}, ', 1)
    path.write_text(text)


def array(file: Path, draw: random.Random) -> None:
    """Another array under one of the names, or none."""
    path = file.with_name("dictionary.safetensors")
    arrays = load_file(path)
    name = draw.choice(list(arrays))
    old = arrays[name]
    odd: list[Callable[[], Any]] = [
        lambda: old * 1.5,
        lambda: -old,
        lambda: np.zeros_like(old),
        lambda: np.full(old.shape, np.nan),
        lambda: np.full(old.shape, np.inf),
        lambda: old.astype(np.float32),
        lambda: old.astype(np.int64),
        lambda: old.astype(np.float16),
        lambda: old[:-1],
        lambda: old[None],
        lambda: np.zeros((0, 3)),
        lambda: None,
    ]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        new = draw.choice(odd)()
    arrays[name] = new
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items() if v is not None}, path)


KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    "a bit": flip,
    "some bytes": noise,
    "cut": cut,
    "longer": longer,
    "deleted": delete,
    "no file": instead,
    "a JSON value": json_value,
    "JSON text": json_text,
    "an array": array,
    "of another run": lambda file, draw: None,  # in `mutate`
}


def mutate(folder: Path, other: Path, kind: str, draw: random.Random) -> str:
    """Change one thing in `folder`; says which file."""
    file = folder / draw.choice(sorted(each.name for each in other.iterdir()))
    if kind == "of another run":
        file.write_bytes((other / file.name).read_bytes())
    else:
        KINDS[kind](file, draw)
    return file.name


def judged(use: Callable[[], Any], expected: Any, clean: type[Exception], most: int) -> str:
    """What came of using it: "refused", "the same", "OTHER" or "RAW"."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = use()
    except clean as error:
        sound = "\n" not in str(error) and len(str(error)) <= most
        return "refused" if sound else "LONG"
    except Exception:
        traceback.print_exc()
        return "RAW"
    return "the same" if expected is None or np.array_equal(found, expected) else "OTHER"


# --------------------------------------------------------------------------- shoal


def runs(root: Path) -> list[tuple[str, Path, Path, Any, Any]]:
    """By name: a run, one to swap files with, rows and their codes; of both kinds and formats."""
    import shoal

    rows = np.random.default_rng(0).normal(size=(60, 6))

    def made(name: str, model: Any) -> Path:
        return shoal.save_run(model.fit(rows), root / name, rows)

    sparse = [
        made(f"sparse{seed}", shoal.DictionaryAutoencoder(8, 2, random_state=seed, **named))
        for seed, named in enumerate([{"preprocessing": "whiten"}, {}])
    ]
    smooth = [
        made(f"smooth{seed}", shoal.RegularizedAutoencoder(7, "cae", n_epochs=2, random_state=seed))
        for seed in (0, 1)
    ]
    found = []
    for name, pair in (("dictionary", sparse), ("regularized", smooth)):
        found.append((name, *pair, rows, shoal.load_run(pair[0]).transform(rows)))
    old = Path(__file__).parents[1] / "old_runs"
    for name, (_, other) in (("dictionary", sparse), ("regularized", smooth)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one has names for its features
            codes = shoal.load_run(old / name).transform(rows)
        found.append((f"{name}, format 1", old / name, other, rows, codes))
    return found


def main(count: int = 2000, seed: int = 0, page_every: int = 10) -> int:
    """Mutate, load and transform, read and (each `page_every`-th) draw; a table."""
    import shoal
    from shoal import run_folder
    from shoal.cli.runs import summary
    from shoal.report import read_run, report_bytes

    root, draw = Path(tempfile.mkdtemp()), random.Random(seed)
    table: dict[tuple[str, str], Counter[str]] = {}
    unnoticed = 0
    given = runs(root)
    for number in range(count):
        name, good, other, rows, codes = given[number % len(given)]
        kind = draw.choice(list(KINDS))
        folder = root / "spoilt"
        shutil.copytree(good, folder)
        before = {each.name: each.read_bytes() for each in folder.iterdir()}
        if kind in ("a JSON value", "JSON text", "an array"):
            mutate(folder, good, kind, draw)
        else:
            mutate(folder, other if kind == "of another run" else good, kind, draw)
        most = 300 + 2 * len(str(folder))
        counts = table.setdefault((name, kind), Counter())

        def used(folder: Path = folder, rows: Any = rows) -> Any:
            return shoal.load_run(folder).transform(rows)

        def drawn(folder: Path = folder, number: int = number) -> None:
            run = read_run(folder)
            if number % page_every == 0:
                report_bytes(run)

        counts[judged(used, codes, shoal.RunError, most)] += 1
        counts["page " + judged(drawn, None, shoal.RunError, most)] += 1
        if number % page_every == 0:
            with open(os.devnull, "w") as null:
                stdout, sys.stdout = sys.stdout, null
                try:
                    counts["info " + judged(
                        lambda folder=folder: summary(folder), None, shoal.RunError, most
                    )] += 1  # fmt: skip
                finally:
                    sys.stdout = stdout
        changed = any(
            not (folder / each).is_file() or (folder / each).is_symlink()
            or (folder / each).read_bytes() != data
            for each, data in before.items()
        )  # fmt: skip
        if changed and "format 1" not in name:
            states = run_folder.verify(folder)
            unnoticed += all(each.sound for each in states)
        shutil.rmtree(folder)
    shutil.rmtree(root)
    total: Counter[str] = Counter()
    for (name, kind), counts in sorted(table.items()):
        print(f"{name:<24} {kind:<16} {dict(sorted(counts.items()))}")
        for outcome, times in counts.items():
            total[f"{'format 1' if 'format 1' in name else 'format 2'}: {outcome}"] += times
    print(dict(sorted(total.items())))
    print(f"of format 2, not noticed by `verify`: {unnoticed}")
    bad = ("RAW", "LONG")
    return int(any(key.endswith(bad) or key == "format 2: OTHER" for key in total) or unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

"""Damaged files through every reader: what comes of them.

    python -m tests.attacks.mutate 10000 --seed 1

Each file of :data:`KINDS` is written once, damaged in a random way, opened, checked and read
twice, in order and at random. The work is done in a child process, so that a death, a hang
or a run on the memory is seen and counted. To point it at another library, replace `read`.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import resource
import select
import shutil
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

N, F = 48, 8
ROWS = np.random.default_rng(0).normal(size=(N, F)).astype(np.float32)
SECONDS = 30  # for one file; a healthy one takes a hundredth
FIRST = 60  # more, for the first file: its imports
SPARE = 64 * 2**20  # what a reader may take beyond four times the file

OUTCOMES = ["refused", "same", "other values", "rows", "raw", "hang", "memory", "died"]

# --- what is damaged ------------------------------------------------------------------------


def _npy(folder: Path) -> Path:
    np.save(folder / "a.npy", ROWS)
    return folder / "a.npy"


def _npz(folder: Path) -> Path:
    np.savez(folder / "a.npz", data=ROWS, dictionary=ROWS[:5], codes=ROWS[:, :5])
    return folder / "a.npz"


def _npz_deflated(folder: Path) -> Path:
    np.savez_compressed(folder / "c.npz", data=ROWS, dictionary=ROWS[:5], codes=ROWS[:, :5])
    return folder / "c.npz"


def _safetensors(folder: Path) -> Path:
    from safetensors.numpy import save_file

    save_file({"data": ROWS, "dictionary": ROWS[:5].copy()}, folder / "a.safetensors")
    return folder / "a.safetensors"


def _npz_sparse(folder: Path) -> Path:
    from scipy import sparse

    sparse.save_npz(folder / "s.npz", sparse.csr_array(np.where(ROWS > 1, ROWS, 0)))
    return folder / "s.npz"


def _csv(folder: Path) -> Path:
    np.savetxt(folder / "a.csv", ROWS, delimiter=",", header=",".join("abcdefgh"), comments="")
    return folder / "a.csv"


def _csv_packed(folder: Path) -> Path:
    np.savetxt(folder / "a.csv.gz", ROWS, delimiter=",")
    return folder / "a.csv.gz"


def _parquet(**options: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({f"f{i}": ROWS[:, i] for i in range(F)})
        pq.write_table(table, folder / "a.parquet", row_group_size=16, **options)
        return folder / "a.parquet"

    return write


def _parquet_lists(fixed: bool) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if fixed:
            column = pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), F)
        else:
            column = pa.array(list(ROWS), pa.list_(pa.float32()))
        pq.write_table(pa.table({"v": column}), folder / "l.parquet", row_group_size=16)
        return folder / "l.parquet"

    return write


def _zarr(version: int, **options: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import zarr

        array = zarr.create_array(
            folder / "a.zarr", shape=ROWS.shape, dtype="f4", zarr_format=version, **options
        )
        array[:] = ROWS
        return folder / "a.zarr"

    return write


def _zarr_group(version: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import zarr

        group = zarr.open_group(folder / "g.zarr", mode="w", zarr_format=version)
        group.create_array("data", data=ROWS, chunks=(16, F))
        group.create_array("dictionary", data=ROWS[:5])
        return folder / "g.zarr"

    return write


def _picture(ending: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        from PIL import Image

        pixels = np.random.default_rng(1).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"a.{ending}")
        return folder / f"a.{ending}"

    return write


KINDS: dict[str, Callable[[Path], Path]] = {
    ".npy": _npy,
    ".npz stored": _npz,
    ".npz deflated": _npz_deflated,
    ".npz sparse": _npz_sparse,
    ".csv": _csv,
    ".csv.gz": _csv_packed,
    ".safetensors": _safetensors,
    ".parquet columns": _parquet(),
    ".parquet with page checksums": _parquet(write_page_checksum=True, compression="zstd"),
    ".parquet lists": _parquet_lists(False),
    ".parquet fixed lists": _parquet_lists(True),
    ".zarr 3": _zarr(3, chunks=(16, 4)),
    ".zarr 3 in shards": _zarr(3, chunks=(16, 4), shards=(32, 8)),
    ".zarr 2": _zarr(2, chunks=(16, 4)),
    ".zarr 3 group": _zarr_group(3),
    ".zarr 2 group": _zarr_group(2),
    ".png": _picture("png"),
    ".jpg": _picture("jpg"),
}

# --- how ------------------------------------------------------------------------------------


def damage(path: Path, rng: random.Random) -> str:
    """Change one file at `path`, or in the folder there; say how."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    file = rng.choice(files)
    raw = bytearray(file.read_bytes())
    how = rng.choice(
        ["bit", "bit", "byte", "bytes", "digit", "cut", "insert", "remove", "repeat", "zeros"]
        + (["delete", "link", "swap"] if path.is_dir() else [])
    )
    at = rng.randrange(len(raw)) if raw else 0
    width = rng.choice([1, 2, 4, 8, 64])
    if how == "bit" and raw:
        raw[at] ^= 1 << rng.randrange(8)
    elif how == "byte" and raw:
        raw[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    elif how == "bytes":
        raw[at : at + width] = rng.randbytes(width)
    elif how == "digit":  # where text says a number
        digits = [i for i, each in enumerate(raw) if 48 <= each < 58]
        if digits:
            raw[rng.choice(digits)] = rng.choice(b"0123456789-.e")
    elif how == "cut":
        del raw[at:]
    elif how == "insert":
        raw[at:at] = rng.randbytes(width)
    elif how == "remove":
        del raw[at : at + width]
    elif how == "repeat":
        raw[at:at] = raw[at : at + width]
    elif how == "zeros":
        raw[at : at + width] = bytes(len(raw[at : at + width]))
    elif how == "delete":
        file.unlink()
    elif how == "link":
        file.unlink()
        file.symlink_to("/dev/zero")
    elif how == "swap":
        raw = bytearray(rng.choice(files).read_bytes())
    if how not in ("delete", "link"):
        file.write_bytes(raw)
    return f"{how} at {at} of {file.name}"


# --- what a reader makes of it ----------------------------------------------------------------


def read(path: Path) -> tuple[int, np.ndarray]:
    """The number of rows that the file is said to have, and its rows."""
    from shoal.data import open_source, validate

    options = {"patch_size": 8, "n_patches": 100} if path.suffix in (".png", ".jpg") else {}
    source = open_source(path, **options)
    validate(source)
    number = source.n_samples
    assert number is not None
    shuffled = sum(map(len, source.batches(7, rng=np.random.default_rng(0))))
    rows = source.rows(np.arange(number))
    return (number if shuffled == number else -1), rows


def refusals() -> tuple[type[BaseException], ...]:
    """The errors that count as a clean refusal, if they are one line."""
    from shoal.vocabulary import ShoalError

    return (ShoalError,)


def _peak() -> int:
    """Of this process, since the last call."""
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    Path("/proc/self/clear_refs").write_text("5")
    return peak


def outcome(path: Path, expected: np.ndarray) -> tuple[str, str]:
    """What became of one file: one of `OUTCOMES`, and the message."""
    size = sum(each.lstat().st_size for each in [path, *path.rglob("*")])
    _peak()
    before = _peak()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            number, rows = read(path)
        if number != len(expected) or len(rows) != number:
            result = "rows", f"{number} rows, {rows.shape}"
        else:
            same = np.array_equal(rows, expected)
            result = ("same" if same else "other values"), ""
    except refusals() as error:
        text = str(error)
        result = ("refused" if "\n" not in text and len(text) < 2500 else "raw"), text
    except Exception as error:
        result = "raw", f"{type(error).__name__}: {error}"
    if _peak() - before > 4 * size + SPARE:
        return "memory", f"{result[0]}: {result[1]}"
    return result


def _work(jobs: list[tuple[str, int]], folder: Path, out: int) -> None:
    """In a child: the outcome of each job, a line each."""
    faulthandler.disable()  # a death is told by the parent
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + 6 * 2**30, resource.RLIM_INFINITY))
    made: dict[str, tuple[Path, np.ndarray]] = {}
    for kind, seed in jobs:
        if kind not in made:
            (home := folder / f"{kind} as it was").mkdir(exist_ok=True)
            path = KINDS[kind](home)
            made[kind] = path, read(path)[1]
            outcome(path, made[kind][1])  # what is imported late isn't the damage's
        path, expected = made[kind]
        there = folder / "damaged" / path.name
        shutil.rmtree(there.parent, ignore_errors=True)
        there.parent.mkdir()
        (shutil.copytree if path.is_dir() else shutil.copy)(path, there)
        how = damage(there, random.Random(f"{kind} {seed}"))
        os.write(out, json.dumps([kind, seed, *outcome(there, expected), how]).encode() + b"\n")


def run(jobs: list[tuple[str, int]], folder: Path) -> Iterator[list]:
    """The outcome of each job: kind, seed, outcome, message, damage."""
    while jobs:
        here = Path(tempfile.mkdtemp(dir=folder))
        source, out = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(source)
                _work(jobs, here, out)
                status = 0
            finally:
                os._exit(status)
        os.close(out)
        end = ""
        with os.fdopen(source, "rb", 0) as lines:
            held, since = b"", time.monotonic()
            while True:
                limit = SECONDS + FIRST * (not end)
                if not select.select([lines], [], [], max(0, since + limit - time.monotonic()))[0]:
                    end = "hang"
                    os.kill(child, signal.SIGKILL)
                    break
                if not (new := lines.read(65536)):
                    break
                held, since, end = held + new, time.monotonic(), " "
                *whole, held = held.split(b"\n")
                for line in whole:
                    jobs = jobs[1:]
                    yield json.loads(line)
        _, status = os.waitpid(child, 0)
        shutil.rmtree(here, ignore_errors=True)
        if jobs and (status != 0 or end == "hang"):
            kind, seed = jobs[0]
            yield [kind, seed, "hang" if end == "hang" else "died", f"status {status}", ""]
            jobs = jobs[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="damaged files, shared out among the kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    parser.add_argument("--show", default="rows,raw,hang,memory,died", help="outcomes to list")
    given = parser.parse_args()
    kinds = given.kind or list(KINDS)
    per_kind = -(-given.count // len(kinds))
    jobs = [(kind, given.seed * 10**6 + i) for kind in kinds for i in range(per_kind)]
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for kind, seed, result, message, how in run(jobs, Path(folder)):
            counts[kind, result] += 1
            if result in given.show.split(","):
                print(f"{kind} {seed} {result}: {how}: {message[:300]}", flush=True)
    print("| kind | " + " | ".join(OUTCOMES) + " |")
    print("|---|" + "---|" * len(OUTCOMES))
    for kind in kinds:
        print(f"| {kind} | " + " | ".join(str(counts[kind, word]) for word in OUTCOMES) + " |")
    total = [sum(counts[kind, word] for kind in kinds) for word in OUTCOMES]
    print("| all | " + " | ".join(map(str, total)) + " |")


if __name__ == "__main__":
    main()

"""A file system of which each call fails once.

>>> import tempfile
>>> root = Path(tempfile.mkdtemp())
>>> def careless():
...     with open(root / "a", "wb") as file:
...         file.write(b"x")
>>> [f"{name}: {type(error).__name__}" for name, error in every_failure(root, careless)]
['open: OSError', 'write: OSError', 'close: OSError', 'none: NoneType']

The last run is the one in which nothing failed.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

__all__ = ["ERRORS", "Faults", "every_failure"]

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EINTR)

# By name, those whose first argument is a path or an open descriptor.
_CALLS = ("mkdir", "rename", "replace", "link", "unlink", "rmdir", "write", "fsync")


class Faults:
    """Counts the calls that touch anything under `root`, and has one of them fail.

    Parameters
    ----------
    root : Path
        Everything else works as ever.
    number : int
        Which call fails, from 0.
    error : int
        The number of the error.
    more : sequence of (module, name)
        Functions of the library's own that change the file system, path first.
    """

    def __init__(self, root: Path, number: int, error: int, more: Any = ()) -> None:
        self.root, self.number, self.error, self.more = os.path.realpath(root), number, error, more
        self.count, self.failed = 0, "none"
        self.open: set[int] = set()
        self.real = {name: getattr(os, name) for name in (*_CALLS, "open", "close")}

    @contextmanager
    def at_work(self) -> Iterator[Faults]:
        """The layer is there while the block runs."""
        patches = [mock.patch.object(os, name, self._call(name)) for name in _CALLS]
        patches += [
            mock.patch.object(os, "open", self._open),
            mock.patch.object(os, "close", self._close),
            mock.patch.object(io, "open", self._io_open),
            mock.patch.object(builtins, "open", self._io_open),
        ]
        for module, name in self.more:
            real = getattr(module, name)
            patches.append(mock.patch.object(module, name, self._wrapped(name, real)))
        if fcntl is not None:
            flock = self._wrapped("flock", fcntl.flock)
            patches.append(mock.patch.object(fcntl, "flock", flock))
        for patch in patches:
            patch.start()
        try:
            yield self
        finally:
            for patch in reversed(patches):
                patch.stop()

    def _ours(self, what: Any, folder: int | None = None) -> bool:
        if isinstance(what, int):
            return what in self.open
        if folder is not None:
            return folder in self.open
        try:
            path = os.path.abspath(os.fsdecode(what))
        except TypeError:
            return False
        parent = os.path.realpath(os.path.dirname(path))
        return os.path.join(parent, os.path.basename(path)).startswith(self.root + os.sep)

    def _step(self, name: str) -> None:
        here = self.count == self.number
        self.count += 1
        if here:
            self.failed = name
            raise OSError(self.error, os.strerror(self.error))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(what: Any, *more: Any, **named: Any) -> Any:
            folder = named.get("dir_fd") or named.get("src_dir_fd")
            if self._ours(what, folder):
                self._step(name)
            return real(what, *more, **named)

        return call

    def _call(self, name: str) -> Callable[..., Any]:
        return self._wrapped(name, self.real[name])

    def _open(self, path: Any, *more: Any, **named: Any) -> int:
        ours = self._ours(path, named.get("dir_fd"))
        if ours:
            self._step("open")
        descriptor: int = self.real["open"](path, *more, **named)
        if ours:
            self.open.add(descriptor)
        return descriptor

    def _close(self, descriptor: int) -> None:
        ours = descriptor in self.open
        self.open.discard(descriptor)
        self.real["close"](descriptor)  # as a real one: it is closed, and then it says so
        if ours:
            self._step("close")

    def _io_open(self, file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        if isinstance(file, int) or not self._ours(file):
            return _REAL_OPEN(file, mode, *more, **named)
        self._step("open")
        if not set(mode) & set("wax+"):
            return _REAL_OPEN(file, mode, *more, **named)
        raw = _Raw(self, file, mode.replace("b", "").replace("t", ""))
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8")


_REAL_OPEN = io.open


class _Raw(io.FileIO):
    def __init__(self, faults: Faults, file: Any, mode: str) -> None:
        self.faults = faults
        super().__init__(file, mode)
        faults.open.add(self.fileno())

    def write(self, data: Any) -> int | None:
        self.faults._step("write")
        return super().write(data)

    def close(self) -> None:
        if self.closed:
            return
        self.faults.open.discard(self.fileno())
        super().close()
        self.faults._step("close")


def every_failure(
    root: Path,
    operation: Callable[[], Any],
    error: int = errno.ENOSPC,
    *,
    before: Callable[[], Any] = lambda: None,
    more: Any = (),
) -> Iterator[tuple[str, BaseException | None]]:
    """Run `operation` with its first call failing, its second, until none does.

    Yields after each run the name of the call that failed and what the operation raised.
    """
    for number in range(10_000):
        before()
        faults, raised = Faults(root, number, error, more), None
        with faults.at_work():
            try:
                operation()
            except Exception as found:
                raised = found
        yield faults.failed, raised
        if faults.failed == "none":
            return


# --------------------------------------------------------------------------- shoal


def contents(folder: Path) -> dict[str, Any]:
    """All that is under a folder, by name; hidden things too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not path.name.endswith(".unfinished.jsonl")  # a sweep's, kept on purpose
    }


def outcomes(
    name: str,
    make: Callable[[Path], Any],
    root: Path,
    error: int,
    old: Callable[[Path], Any] | None = None,
) -> Counter[str]:
    """What came of every failure of an operation that makes `root / name`; a fault is raised.

    Where there was something old, either it or the new result is there, whole.
    """
    import shoal.files
    from shoal.vocabulary import RunError

    place, counts = root / name, Counter[str]()

    def fresh() -> None:
        for each in root.iterdir():
            shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
        if old is not None:
            old(place)

    fresh()
    before = contents(root)
    make(place)
    after = contents(root)
    assert set(after) >= {name}
    more = [(shoal.files, "_rename")]
    for call, raised in every_failure(root, lambda: make(place), error, before=fresh, more=more):
        hidden = [Path(each) for each in contents(root) if Path(each).name.startswith(".")]
        for each in hidden:  # a failure in the tidying up: the next command there does it
            beside = root / each.with_name("next")
            shoal.files.write_bytes(beside, b"")
            beside.unlink()
        found = contents(root)
        new = whole(found, after)
        assert new or found == before, (name, call, raised, sorted(found))
        if raised is not None:
            assert isinstance(raised, RunError), (name, call, repr(raised))
            assert "\n" not in str(raised), raised
            assert ".partial" not in str(raised), raised
        else:
            assert new, (name, call)
        counts[f"{call}: {'new' if new else 'old'}{' and tidied up later' if hidden else ''}"] += 1
    return counts


TIMED = ("config.json", "result.json")
"""Files that say when they were made, or how long it took."""


def whole(found: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the same files are there, with the same bytes but for the time."""
    if set(found) != set(after):
        return False
    return all(
        data.endswith(b"}\n") if name.endswith(TIMED) and data else data == after[name]
        for name, data in found.items()
    )


def operations(scratch: Path) -> dict[str, tuple[str, Callable[[Path], Any], Any]]:
    """By what they are: the name they make, how, and what is there before (None: nothing)."""
    import numpy as np
    from scipy import sparse

    import shoal
    from shoal import runs
    from shoal.files import whole_file, whole_folder, write_bytes
    from shoal.papers import find, reproduce, write_result
    from shoal.report import write_atoms, write_report
    from shoal.sweeps import run_sweep
    from shoal.training import MomentumSettings

    rows = np.random.default_rng(0).normal(size=(60, 4))
    model = shoal.DictionaryAutoencoder(5, 2, random_state=0).fit(rows)
    other = shoal.DictionaryAutoencoder(5, 2, random_state=1).fit(rows)
    # What isn't writing is done once.
    evaluated = runs.evaluated(model, shoal.open_source(rows))
    run = shoal.save_run(model, scratch / "run", rows)
    older = shoal.save_run(other, scratch / "older", rows)
    pictures = {name: (run / name).read_bytes() for name in ("atoms.png", "report.html")}
    experiment = find("rangamani2017/table1")
    result = reproduce("rangamani2017/table1", "smoke", h=64, n_samples=100)

    def quick(work: Callable[[], Any]) -> Any:
        page, picture = pictures["report.html"], pictures["atoms.png"]
        with (
            mock.patch.object(runs, "evaluated", return_value=evaluated),
            mock.patch.object(runs, "atoms_bytes", return_value=picture),
            mock.patch.object(runs, "report_bytes", return_value=page),
            mock.patch("shoal.report.page.atoms_bytes", return_value=picture),
            mock.patch("shoal.report.page.report_bytes", return_value=page),
            mock.patch("shoal.experiments.page.as_png", return_value=picture),
            mock.patch("shoal.experiments.page._render", return_value="<html></html>\n"),
        ):
            return work()

    def save(place: Path, **named: Any) -> None:
        quick(lambda: shoal.save_run(model, place, rows, **named))

    def fill(place: Path, text: str = "new", **named: Any) -> None:
        with whole_folder(place, **named) as partial:
            (partial / "a").write_text(text)
            (partial / "b").write_text(text)

    def codes(place: Path) -> None:  # as `transform` writes them
        with whole_file(place, overwrite=False) as temporary, open(temporary, "wb") as file:
            sparse.save_npz(file, sparse.eye(5, format="csr"))

    def data(place: Path) -> None:  # as `generate` does
        with whole_file(place, overwrite=False) as temporary, open(temporary, "wb") as file:
            np.savez(file, data=rows)

    def swept(place: Path) -> None:
        steps = run_sweep(
            rows,
            place,
            penalties=["dae"],
            strengths=[0.1],
            settings=MomentumSettings(n_epochs=1),
            n_jobs=1,
        )
        quick(lambda: list(steps))

    def report(place: Path) -> None:
        quick(lambda: (write_atoms(place), write_report(place)))

    return {
        "write_bytes": ("a", lambda place: write_bytes(place, b"new"), None),
        "write_bytes over an old one": (
            "a",
            lambda place: write_bytes(place, b"new"),
            lambda place: place.write_bytes(b"old"),
        ),
        "whole_folder": ("a", fill, None),
        "whole_folder over an old one": (
            "a",
            lambda place: fill(place, overwrite=True),
            lambda place: fill(place, "old"),
        ),
        "save_run": ("run", save, None),
        "save_run over an old one": (
            "run",
            lambda place: save(place, overwrite=True),
            lambda place: shutil.copytree(older, place),
        ),
        "codes of transform": ("codes.npz", codes, None),
        "data of generate": ("data.npz", data, None),
        "result of reproduce": (
            "table",
            lambda place: quick(lambda: write_result(place, experiment, result)),
            None,
        ),
        "result of sweep": ("sweep", swept, None),
        "report": ("run", report, lambda place: shutil.copytree(run, place)),
    }


def main() -> int:
    """Every operation under every error; a table."""
    scratch, root = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
    for name, (place, make, old) in operations(scratch).items():
        total: Counter[str] = Counter()
        for error in ERRORS:
            total += outcomes(place, make, root, error, old)
        held = Counter(key.split(": ")[1] for key in total.elements())
        print(f"{name:<32} {sum(total.values()):>5} failures; {dict(held)}")
    shutil.rmtree(scratch)
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a reader is, the table of all readers, and what they share.

A reader is one module of this package, or a user's own, which calls :func:`register` once: it is a
part like any other, of the kind "reader" in :mod:`shoal.parts`.
Nothing here reads a whole data set, except `.npz` (a zip has no rows to seek) and images
(only their patches are kept).
"""

from __future__ import annotations

import importlib
import math
import os
import stat
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal import parts
from shoal.data.access import RowSource, Source, Truth, float_dtype
from shoal.vocabulary import ArgumentError, ShoalError, SourceError

# What the caller added to a spec, by name; what was left out isn't there, except
# `random_state`, which always is.
Options = Mapping[str, Any]

# Rows read at a time from inside a Parquet row group or a run of small Zarr chunks.
# Arbitrary: a few MB at a thousand features.
PIECE_ROWS = 1024

TRUTH_KEYS = ("dictionary", "codes")
_MAGIC = {b"\x93NUMPY": "a .npy file", b"PK\x03\x04": "a zip or .npz file", b"PAR1": "Parquet"}


@dataclass(frozen=True)
class Reader:
    """One kind of data, and how it becomes a `Source`.

    Parameters
    ----------
    name : str
        What it reads, for messages: "a Zarr array". No two readers have the same.
    suffixes : tuple of str
        The endings of its files, in lower case, with their dot; none for a reader of
        objects in memory alone.
    options : tuple of str
        The options it takes; any other that is given is refused.
    open : callable, optional
        From a path (of a regular file, or of a folder that `folder` recognised) and the
        options to a `Source`.
    folder : callable, optional
        From a folder's path to whether it is one of this kind. None: a file, no folder.
    holds : callable, optional
        From an object to whether it is an open one of this kind.
    open_object : callable, optional
        From such an object and the options to a `Source`.
    rank : int
        Readers of lower rank are asked first, and listed first.
    """

    name: str
    suffixes: tuple[str, ...]
    options: tuple[str, ...]
    open: Callable[[Path, Options], Source] | None = None
    folder: Callable[[Path], bool] | None = None
    holds: Callable[[Any], bool] | None = None
    open_object: Callable[[Any, Options], Source] | None = None
    rank: int = 0

    @property
    def made_by(self) -> Callable[..., Source] | None:
        """A function that tells whose reader this is: see :func:`shoal.parts.register`."""
        return self.open or self.open_object


def register(reader: Reader) -> Reader:
    """Add a reader to those that `open_source` asks; a lower rank takes over an ending.

    Returns
    -------
    Reader
        The same.

    Raises
    ------
    ArgumentError
        Where another has its name.
    """
    return parts.register("reader", reader.name)(reader)


def readers() -> list[Reader]:
    """All readers, in the order in which they are asked."""
    return sorted(parts.named("reader").values(), key=lambda reader: reader.rank)


@contextmanager
def reading(name: str, needed: str, argument: str = "source") -> Iterator[None]:
    """Turn whatever a library raises into a `SourceError` of one line."""
    try:
        yield
    except ShoalError:
        raise
    except MemoryError as error:
        raise no_memory(name) from error
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise SourceError(argument, f"{name}, which can't be read ({reason})", needed) from error


def require(module: str, name: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SourceError(
            "source",
            f"{name}, but {module.partition('.')[0]} isn't installed",
            f'pip install "shoal[{extra}]"',
        ) from error


_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


def check_regular(mode: int, name: str) -> None:
    """Refuse, by its mode, what isn't a regular file: to read a FIFO may never end."""
    if not stat.S_ISREG(mode):
        kind = next((word for test, word in _KINDS if test(mode)), "no regular file")
        raise SourceError("source", f"{name}, which is {kind}", "a regular file")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to be read; of anything else nothing is read, nor waited for."""
    with reading(path.name, "a file that can be read"):
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            check_regular(path.stat().st_mode, path.name)  # a socket, a folder on some systems
            raise
        try:
            check_regular(os.fstat(descriptor).st_mode, path.name)
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise


class Stamp(NamedTuple):
    """What tells that a file was written to since: checked at each reading."""

    size: int
    modified: int

    @classmethod
    def of(cls, file: BinaryIO | int | Path) -> Stamp:
        state = os.stat(file if isinstance(file, (int, Path)) else file.fileno())
        return cls(state.st_size, state.st_mtime_ns)

    def check(self, file: BinaryIO | int | Path, name: str) -> None:
        """Refuse a file that isn't as it was: rows of a part that is cut off are lost."""
        state = os.stat(file if isinstance(file, (int, Path)) else file.fileno())
        if (state.st_size, state.st_mtime_ns) != self:
            now = Stamp(state.st_size, state.st_mtime_ns)
            cut = f", and cut from {self.size} to {now.size} bytes" if now.size < self.size else ""
            raise SourceError(
                "source",
                f"{name}, which was written to after it was opened{cut}",
                "a file that stays as it is while it is read",
            )


class Mapped:
    """The rows of a matrix in a file: any of them, without the others being read.

    Rows side by side are read by the system's `read`; single ones come from a memory map,
    since a call for each would take longer than a step of training. Touching the map
    beyond the end of a file that was cut meanwhile ends the process, so each call first
    looks whether the file is as it was.

    Parameters
    ----------
    file : file
        Open; may be closed afterwards.
    start : int
        Where its numbers begin, in bytes.
    by_columns : bool
        Whether a column's numbers lie side by side, not a row's.

    Attributes
    ----------
    fresh : bool
        Whether a slice gives a new array, not a view of the map.
    """

    def __init__(
        self,
        file: BinaryIO,
        dtype: np.dtype,
        shape: tuple[int, int],
        start: int,
        name: str,
        *,
        by_columns: bool = False,
    ) -> None:
        self._name, self._start, self._stamp = name, start, Stamp.of(file)
        self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        if start + math.prod(shape) * dtype.itemsize > self._stamp.size:
            raise SourceError("source", f"{name} cut off at {self._stamp.size} bytes", "all of it")
        order: Literal["C", "F"] = "F" if by_columns else "C"
        mapped = np.memmap(file, dtype, mode="r", offset=start, shape=shape, order=order)
        self.view = np.asarray(mapped)  # without the subclass, which is slower
        self.fresh = not by_columns and hasattr(os, "preadv")

    def __call__(self, index: Any) -> NDArray:
        self._stamp.check(self._file, self._name)
        if self.fresh and isinstance(index, slice):
            with reading(self._name, "a file that can be read"):
                return self._run(*index.indices(len(self.view))[:2])
        return self.view[index]

    def soon(self, first: int, stop: int) -> None:
        """Have the system read some rows while other work goes on."""
        if self.fresh and hasattr(os, "posix_fadvise"):
            width = self.view.shape[1] * self.view.itemsize
            where = self._start + first * width, (stop - first) * width
            with suppress(OSError):  # it is only advice
                os.posix_fadvise(self._file, *where, os.POSIX_FADV_WILLNEED)

    def _run(self, first: int, stop: int) -> NDArray:
        rows = np.empty((max(0, stop - first), self.view.shape[1]), self.view.dtype)
        left = as_bytes(rows)
        at = self._start + first * self.view.shape[1] * rows.itemsize
        while left.nbytes:
            count = os.preadv(self._file, [left], at)
            if count == 0:
                self._stamp.check(self._file, self._name)
                raise OSError(f"the file ends at byte {at}")
            left, at = left[count:], at + count
        return rows


def as_bytes(array: NDArray) -> memoryview:
    """The memory of a C-ordered array, to read into."""
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def no_memory(name: str) -> SourceError:
    """The error for data that doesn't fit."""
    return SourceError("source", f"{name}, which needs more memory than there is", "smaller data")


def check_magic(path: Path, magic: bytes, kind: str) -> None:
    """Refuse an empty file, and one whose first bytes are another format's."""
    with open_regular(path) as file:
        check_start(file, path.name, magic, kind)


def check_start(file: BinaryIO, name: str, magic: bytes, kind: str) -> None:
    """As `check_magic`, of a file that is open."""
    with reading(name, "a file that can be read"):
        file.seek(0)
        # A file of /proc has no length, and reading it may wait for ever.
        head = file.read(8) if os.fstat(file.fileno()).st_size else b""
        file.seek(0)
    if not head:
        raise SourceError("source", f"{name}, which is empty (0 bytes)", f"a {kind} file")
    if not head.startswith(magic):
        other = next((word for start, word in _MAGIC.items() if head.startswith(start)), None)
        found = f"{name}, which is {other}" if other else f"{name}, which starts {head!r}"
        raise SourceError("source", found, f"a {kind} file, or the ending that fits")


def check_matrix(shape: tuple[int, ...], name: str, argument: str = "source") -> tuple[int, int]:
    if len(shape) != 2:
        raise SourceError(
            argument,
            f"{name} of shape {tuple(shape)}",
            "a 2-d array (n_samples, n_features): reshape it first",
        )
    return int(shape[0]), int(shape[1])


def as_rows(
    shape: tuple[int, ...], name: str, argument: str = "source"
) -> tuple[tuple[int, int], tuple[int, ...] | None]:
    """Samples and features of an array, and the shape of a sample that has more than one axis."""
    if len(shape) <= 2:
        return check_matrix(shape, name, argument), None
    return (int(shape[0]), math.prod(map(int, shape[1:]))), tuple(map(int, shape[1:]))


def array_source(
    array: NDArray, name: str, *, argument: str = "source", held: bool = True, **named: Any
) -> RowSource:
    """A source over an array as it is; `held` says that it lies in memory.

    Of an array of more than two axes the others are one row, whose shape is kept.
    """
    view = np.asarray(array)  # without np.memmap's subclass
    shape, of_a_row = as_rows(view.shape, name, argument)
    named["feature_shape"] = named.get("feature_shape") or of_a_row
    fetch: Callable[[Any], NDArray] = view.__getitem__
    flat = view
    if of_a_row is not None:
        n_features = shape[1]
        flat = view.view()
        try:  # of any order that has no flat view, a batch at a time is copied
            flat.shape = shape
        except AttributeError:
            flat, held = view, False

            def fetch(index: Any) -> NDArray:
                rows: NDArray = view[index]
                return rows.reshape(len(rows), n_features)

        else:
            fetch = flat.__getitem__
    return RowSource(
        fetch,
        shape,
        view.dtype,
        array=flat if held else None,
        name=name,
        argument=argument,
        **named,
    )


# --- several arrays in one file -----------------------------------------------------------


def choose_key(shapes: Mapping[str, tuple[int, ...]], key: str | None, name: str) -> str:
    """`key`, or "data", or the only array, or the only 2-d one besides the truth."""
    listed = ", ".join(shapes) or "nothing"
    if key is not None:
        if key not in shapes:
            raise ArgumentError("key", repr(key), f"one of the arrays in {name}: {listed}")
        return key
    if "data" in shapes:
        return "data"
    others = [word for word in shapes if word not in TRUTH_KEYS]
    matrices = [word for word in others if len(shapes[word]) == 2]
    tensors = [word for word in others if len(shapes[word]) > 2]
    for candidates in (list(shapes), others, matrices or tensors):
        if len(candidates) == 1:
            return candidates[0]
    raise SourceError(
        "source", f"{name} that holds {listed}", "an array named data, or key= one of them"
    )


def truth_beside(
    get: Callable[[str], NDArray],
    shapes: Mapping[str, tuple[int, ...]],
    chosen: str,
    name: str,
) -> Truth | None:
    """The dictionary and codes beside the data, refused where their shapes don't fit it."""
    if "dictionary" not in shapes or chosen in TRUTH_KEYS or len(shapes[chosen]) < 2:
        return None
    (n_samples, n_features), _ = as_rows(shapes[chosen], name)
    shape = shapes["dictionary"]
    if len(shape) != 2 or shape[1] != n_features:
        raise SourceError(
            "source",
            f"dictionary of shape {tuple(shape)} in {name}",
            f"(n_atoms, {n_features}), the features of {chosen}",
        )
    expected = (n_samples, shape[0])
    if "codes" in shapes and tuple(shapes["codes"]) != expected:
        raise SourceError(
            "source",
            f"codes of shape {tuple(shapes['codes'])} in {name}",
            f"{expected}: the samples of {chosen}, the atoms of dictionary",
        )
    arrays = [get(word) for word in TRUTH_KEYS if word in shapes]
    for word, array in zip(TRUTH_KEYS, arrays, strict=False):
        float_dtype(array.dtype, "source", f"{word} in {name}")
        if not np.isfinite(array).all():
            raise SourceError("source", f"{word} in {name} with NaN or infinity", "finite numbers")
    return Truth(arrays[0], arrays[1] if len(arrays) > 1 else None)

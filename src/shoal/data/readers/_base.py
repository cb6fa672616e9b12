"""What a reader is, the table of all readers, and what they share.

A reader is one module of this package, or a user's own, which calls :func:`register` once.
Nothing here reads a whole data set, except `.npz` (a zip has no rows to seek) and images
(only their patches are kept).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        What it reads, for messages: "a Zarr array".
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


_registered: list[Reader] = []


def register(reader: Reader) -> Reader:
    """Add a reader to those that `open_source` asks; a lower rank takes over an ending.

    Returns
    -------
    Reader
        The same.
    """
    _registered.append(reader)
    return reader


def readers() -> list[Reader]:
    """All readers, in the order in which they are asked."""
    return sorted(_registered, key=lambda reader: reader.rank)


@contextmanager
def reading(name: str, needed: str, argument: str = "source") -> Iterator[None]:
    """Turn whatever a library raises into a `SourceError` of one line."""
    try:
        yield
    except (ShoalError, MemoryError):
        raise
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


def check_magic(path: Path, magic: bytes, kind: str) -> None:
    """Refuse an empty file, and one whose first bytes are another format's."""
    with reading(path.name, "a file that can be read"), path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise SourceError("source", f"{path.name}, which is empty (0 bytes)", f"a {kind} file")
    if not head.startswith(magic):
        other = next((word for start, word in _MAGIC.items() if head.startswith(start)), None)
        found = f"{path.name}, which is {other}" if other else f"{path.name}, which starts {head!r}"
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

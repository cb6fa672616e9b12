"""MATLAB's `.mat`: versions 5 to 7 into memory; from 7.3 on they are HDF5.

Numeric arrays, dense or sparse, are all that is read of a file. The format is The MathWorks'
*MAT-File Format*; it is read here since a damaged file ends the process in SciPy's reader.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import Source, float_dtype
from shoal.data.readers._base import (
    Options,
    Reader,
    array_source,
    choose_key,
    open_regular,
    reading,
    register,
)
from shoal.data.readers._limits import check_room
from shoal.data.readers.hdf5 import dense_source, found_arrays, opened
from shoal.data.readers.sparse import sparse_source
from shoal.vocabulary import SourceError

_NEEDED = "a complete .mat file with a numeric array"

# How numbers are stored, and what classes of arrays they are in the end.
_STORED = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_CLASSES = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
_SPARSE, _MATRIX, _COMPRESSED = 5, 14, 15
_COMPLEX = 0x0800

# Arbitrary: of an array that is packed, as much as its name and shape take; and arrays of a file.
_HEAD, _MOST = 4096, 1000


@dataclass(frozen=True)
class _Array:
    """An array of a file, by its head."""

    start: int  # of its element, in bytes
    size: int
    packed: bool
    order: str  # of bytes: "<" or ">"
    kind: int
    complex: bool
    shape: tuple[int, ...]
    name: str
    body: int  # where its numbers begin within the element


def _open(path: Path, options: Options) -> Source:
    with open_regular(path) as file:
        head = file.read(128)
        if not head:
            raise SourceError("source", f"{path.name}, which is empty (0 bytes)", "a .mat file")
        if head.startswith(b"MATLAB 7.3"):
            return _newer(path, options)
        with reading(path.name, _NEEDED):
            arrays = {each.name: each for each in _arrays(file, head)}
            numeric = {
                word: each.shape
                for word, each in arrays.items()
                if each.kind in (_SPARSE, *_CLASSES) and not each.complex
            }
        chosen = choose_key(numeric, options.get("key"), path.name)
        with reading(path.name, _NEEDED):
            array = _values(file, arrays[chosen], f"{chosen} in {path.name}")
    shape = options.get("feature_shape")
    if hasattr(array, "tocsr"):
        return sparse_source(array, path.name, argument="source", feature_shape=shape)
    float_dtype(array.dtype, "source", f"{chosen} in {path.name}")
    return array_source(array, path.name, feature_shape=shape)


def _arrays(file: BinaryIO, head: bytes) -> Iterator[_Array]:
    """The arrays of a file, by their heads."""
    order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
    if len(head) < 128 or order is None or head[124:126] not in (b"\x00\x01", b"\x01\x00"):
        raise ValueError("no header of version 5 to 7: save it anew, with -v7")
    end, at = file.seek(0, 2), 128
    for _ in range(_MOST):
        if at == end:
            return
        file.seek(at)
        kind, size = struct.unpack(f"{order}II", _exactly(file, 8))
        if at + 8 + size > end:
            raise ValueError(f"it ends within an array, at byte {end}")
        packed = kind == _COMPRESSED
        part = file.read(min(size, _HEAD))
        if packed:
            part = zlib.decompressobj().decompress(part, _HEAD)
            kind, _ = struct.unpack_from(f"{order}II", part)
            part = part[8:]
        if kind == _MATRIX:
            yield _headed(part, order, at + 8, size, packed=packed)
        at += 8 + size
    raise ValueError(f"more than {_MOST} arrays")


def _headed(part: bytes, order: str, start: int, size: int, *, packed: bool) -> _Array:
    _, flags, at = _element(part, 0, order)
    (word,) = struct.unpack_from(f"{order}I", flags)
    _, sides, at = _element(part, at, order)
    _, name, at = _element(part, at, order)
    shape = tuple(struct.unpack(f"{order}{len(sides) // 4}i", sides[: len(sides) // 4 * 4]))
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"an array of shape {shape}")
    text = name.decode("ascii", "replace")
    return _Array(start, size, packed, order, word & 0xFF, bool(word & _COMPLEX), shape, text, at)


def _element(data: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """An element's type and bytes, and where the next one begins."""
    first, size = struct.unpack_from(f"{order}II", data, at)
    if first >> 16:  # a small one: size and bytes within eight
        return first & 0xFFFF, data[at + 4 : at + 4 + min(first >> 16, 4)], at + 8
    if at + 8 + size > len(data):
        raise ValueError("it ends within a part of an array")
    return first, data[at + 8 : at + 8 + size], at + 8 + size + -size % 8


def _values(file: BinaryIO, array: _Array, name: str) -> Any:
    file.seek(array.start)
    if array.packed:
        # Numbers may be stored in a smaller type than their class, never in a larger one.
        entries = math.prod(array.shape) if array.kind != _SPARSE else array.size * 1032
        most = min(16 * entries, array.size * 1032) + 2**16
        check_room(name, most, array.size)
        body = zlib.decompressobj().decompress(_exactly(file, array.size), most)[8:]
    else:
        body = _exactly(file, array.size)
    at = array.body
    if array.kind == _SPARSE:
        from scipy import sparse

        parts = []
        for _ in range(3):
            stored, part, at = _element(body, at, array.order)
            parts.append(_numbers(stored, part, array.order))
        rows, starts, values = parts
        if len(starts) != array.shape[1] + 1 or len(rows) < len(values):
            raise ValueError("a sparse array whose parts don't fit")
        listed = (values, rows[: len(values)].astype(np.int64), starts.astype(np.int64))
        return sparse.csc_array(listed, shape=array.shape)
    stored, part, _ = _element(body, at, array.order)
    numbers = _numbers(stored, part, array.order)
    if len(numbers) != math.prod(array.shape):
        raise ValueError(f"{len(numbers)} numbers for an array of shape {array.shape}")
    return numbers.astype(_CLASSES[array.kind]).reshape(array.shape, order="F")


def _numbers(stored: int, part: bytes, order: str) -> NDArray[Any]:
    if stored not in _STORED:
        raise ValueError(f"numbers of type {stored}")
    dtype = np.dtype(order + _STORED[stored])
    return np.frombuffer(part[: len(part) // dtype.itemsize * dtype.itemsize], dtype)


def _exactly(file: BinaryIO, size: int) -> bytes:
    found = file.read(size)
    if len(found) < size:
        raise EOFError("it ends early")
    return found


def _newer(path: Path, options: Options) -> Source:
    """Version 7.3: HDF5, with all axes the other way round."""
    with opened(path) as file:
        arrays, _ = found_arrays(file, path.name)
        shapes = {word: array.shape[::-1] for word, array in arrays.items()}
    shapes = {word: shape for word, shape in shapes.items() if not word.startswith("#")}
    chosen = choose_key(shapes, options.get("key"), path.name)
    if len(shapes[chosen]) != 2:
        found = f"{chosen} of shape {shapes[chosen]} in {path.name}"
        raise SourceError("source", found, "a 2-d array (n_samples, n_features)")
    shape = options.get("feature_shape")
    return dense_source(path, chosen, by_columns=True, feature_shape=shape)


READER = register(Reader("a MATLAB file", (".mat",), ("key", "feature_shape"), open=_open))

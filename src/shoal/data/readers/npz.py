"""`.npz`: read into memory, since a zip has no rows to seek."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import Source, float_dtype
from shoal.data.readers._base import (
    Options,
    Reader,
    array_source,
    as_bytes,
    as_rows,
    check_start,
    choose_key,
    open_regular,
    reading,
    register,
    truth_beside,
)
from shoal.data.readers._limits import check_room
from shoal.data.readers.npy import check_length, npy_header
from shoal.data.readers.sparse import from_arrays, holds_sparse
from shoal.vocabulary import SourceError

_NEEDED = "a complete .npz file of numeric arrays"

# NumPy writes no others, and the others of a zip unpack to any number of bytes.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What deflate gives at most: 258 bytes for 2 bits.
_DEFLATE_RATIO = 1032

_BLOCK = 2**20

_TEXT_BYTES = 64


# Of the zip's list of members; `zipfile` reads it whole. Some ten thousand arrays.
_DIRECTORY_BYTES = 2**20


def _check_directory(file: BinaryIO) -> None:
    """Refuse a list of members that would take more memory than the file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 22 - 2**16 - 76))  # the end record with the longest comment
    end = file.read()
    file.seek(0)
    # The length in the plain record, and in that of large files, wherever they may be.
    for mark, at, width in ((b"PK\x05\x06", 12, 4), (b"PK\x06\x06", 40, 8)):
        found = end.rfind(mark)
        length = int.from_bytes(end[found + at : found + at + width], "little")
        if found >= 0 and _DIRECTORY_BYTES < length != 2**32 - 1:
            raise ValueError(f"a list of members of {length} bytes; at most {_DIRECTORY_BYTES}")


class Archive:
    """The arrays of an `.npz`, judged by their headers; none is read before it is asked for."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        with reading(name, _NEEDED):
            _check_directory(file)
            self._zip = zipfile.ZipFile(file)
        self._members: dict[str, zipfile.ZipInfo] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for member in self._zip.infolist():
            word = member.filename.removesuffix(".npy")
            if word in self._members:
                raise SourceError("source", f"{name} with two arrays named {word}", "one")
            self._members[word] = member
            self._check(member, word)
            with reading(name, _NEEDED), self._zip.open(member) as opened:
                self.shapes[word], _, _ = npy_header(opened)

    def _check(self, member: zipfile.ZipInfo, word: str) -> None:
        packed, unpacked = member.compress_size, member.file_size
        if member.compress_type not in _METHODS:
            raise SourceError(
                "source",
                f"{word} in {self.name} packed by method {member.compress_type}",
                "stored or deflated, as numpy.savez and savez_compressed write it",
            )
        stored = member.compress_type == zipfile.ZIP_STORED
        if unpacked != packed if stored else unpacked > _DEFLATE_RATIO * (packed + 1):
            raise SourceError(
                "source",
                f"{word} in {self.name}, which declares {unpacked} bytes in {packed}",
                "the complete file",
            )

    def text(self, word: str) -> str:
        """The text in `word`: an array without axes, short."""
        array = self._read(word, "SU")
        text = array.item() if array.ndim == 0 and array.nbytes <= _TEXT_BYTES else ""
        return text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)

    @property
    def packed(self) -> int:
        """Bytes of all arrays in the file."""
        return sum(member.compress_size for member in self._members.values())

    def __getitem__(self, word: str) -> NDArray:
        """The array `word`, read whole."""
        return self._read(word)

    def _read(self, word: str, kinds: str = "") -> NDArray:
        """An array of real numbers, or of one of some other kinds of NumPy's."""
        member, name = self._members[word], f"{word} in {self.name}"
        with reading(self.name, _NEEDED), self._zip.open(member) as file:
            shape, by_columns, dtype = npy_header(file)
            if dtype.kind not in kinds:
                float_dtype(dtype, "source", name)
            check_length(name, file.tell(), shape, dtype, member.file_size)
            check_room(name, member.file_size, member.compress_size)
            values = np.empty(math.prod(shape), dtype)
            left = as_bytes(values)
            while left.nbytes:
                block = file.read(min(left.nbytes, _BLOCK))
                if not block:
                    raise EOFError(f"{word} ends {left.nbytes} bytes early")
                left[: len(block)] = block
                left = left[len(block) :]
            file.read(1)  # the end, where the checksum is compared
        return values.reshape(shape, order="F" if by_columns else "C")


def _open(path: Path, options: Options) -> Source:
    with open_regular(path) as file:
        check_start(file, path.name, b"PK", ".npz")
        archive = Archive(file, path.name)
        if options.get("key") is None and holds_sparse(archive.shapes):
            return from_arrays(archive, path.name, feature_shape=options.get("feature_shape"))
        chosen = choose_key(archive.shapes, options.get("key"), path.name)
        as_rows(archive.shapes[chosen], f"{chosen} in {path.name}")
        truth = truth_beside(archive.__getitem__, archive.shapes, chosen, path.name)
        array = archive[chosen]
    return array_source(array, path.name, truth=truth, feature_shape=options.get("feature_shape"))


READER = register(Reader("a .npz file", (".npz",), ("key", "feature_shape"), open=_open))

"""`.npy`: memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from shoal.data.access import Source, float_dtype
from shoal.data.readers._base import (
    Options,
    Reader,
    array_source,
    as_rows,
    check_magic,
    reading,
    register,
)
from shoal.vocabulary import SourceError


def npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type at the start of a .npy file; `file` is left where its numbers begin."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_2_0
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    shape, _, dtype = read(file)
    return shape, dtype


def _open(path: Path, options: Options) -> Source:
    check_magic(path, b"\x93NUMPY", ".npy")
    needed = "a complete .npy file of a numeric array"
    with reading(path.name, needed), path.open("rb") as file:
        stored, dtype = npy_header(file)
        start = file.tell()
    float_dtype(dtype, "source", path.name)  # before mapping, which can't hold objects
    shape, _ = as_rows(stored, path.name)
    expected = start + shape[0] * shape[1] * dtype.itemsize
    if (size := path.stat().st_size) < expected:
        raise SourceError(
            "source", f"{path.name} cut off at {size} of {expected} bytes", "the complete file"
        )
    if 0 in shape:  # an empty file can't be mapped; let the source refuse it by its shape
        return array_source(np.empty(shape, dtype), path.name)
    with reading(path.name, needed):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array_source(array, path.name, held=False, feature_shape=options.get("feature_shape"))


READER = register(Reader("a .npy file", (".npy",), ("feature_shape",), open=_open))

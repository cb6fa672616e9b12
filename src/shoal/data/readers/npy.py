"""`.npy`: read where it lies."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from shoal.data.access import RowSource, Source, float_dtype
from shoal.data.columns import selected
from shoal.data.readers._base import (
    Mapped,
    Options,
    Reader,
    array_source,
    as_rows,
    check_start,
    open_regular,
    reading,
    register,
)
from shoal.vocabulary import SourceError

_HEADER_BYTES = 10_000  # NumPy's own limit


def npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether by columns, and type; `file` is left where its numbers begin."""
    version = np.lib.format.read_magic(file)
    first, read = 4, np.lib.format.read_array_header_2_0
    if version == (1, 0):
        first, read = 2, np.lib.format.read_array_header_1_0
    # NumPy would read a header of any length, up to 4 GiB out of a zip, and then judge it.
    raw = file.read(first)
    if (length := int.from_bytes(raw, "little")) > _HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes; at most {_HEADER_BYTES}")
    shape, by_columns, dtype = read(io.BytesIO(raw + file.read(length)))
    if any(side < 0 for side in shape):
        raise ValueError(f"a negative side in the shape {shape}")
    return shape, by_columns, dtype


def check_length(name: str, start: int, shape: tuple[int, ...], dtype: np.dtype, size: int) -> None:
    """Refuse a header that declares another number of bytes than there are."""
    expected = start + math.prod(shape) * dtype.itemsize
    if size < expected:
        raise SourceError(
            "source", f"{name} cut off at {size} of {expected} bytes", "the complete file"
        )
    if size > expected:
        raise SourceError(
            "source",
            f"{name} of {size} bytes, whose header declares {expected}",
            "one array, as numpy.save writes it",
        )


def _open(path: Path, options: Options) -> Source:
    with open_regular(path) as file:
        check_start(file, path.name, b"\x93NUMPY", ".npy")
        with reading(path.name, "a complete .npy file of a numeric array"):
            stored, by_columns, dtype = npy_header(file)
            start, size = file.tell(), os.fstat(file.fileno()).st_size
        float_dtype(dtype, "source", path.name)  # before mapping, which can't hold objects
        shape, of_a_row = as_rows(stored, path.name)
        check_length(path.name, start, shape, dtype, size)
        if 0 in shape:  # an empty file can't be mapped; let the source refuse it by its shape
            return array_source(np.empty(shape, dtype), path.name)
        with reading(path.name, "a file that can be mapped"):
            rows = Mapped(file, dtype, shape, start, path.name, by_columns=by_columns)
    shape_of_a_row = options.get("feature_shape") or of_a_row
    source = RowSource(
        rows,
        shape,
        dtype,
        fresh=rows.fresh,
        soon=rows.soon,
        name=path.name,
        feature_shape=shape_of_a_row,
    )
    if not by_columns or of_a_row is None:
        return source
    # Axes by columns: the features of a row lie in the order of their last axis first.
    places = np.arange(shape[1]).reshape(of_a_row, order="F").ravel()
    return selected(source, places.tolist(), shape_of_a_row)


READER = register(Reader("a .npy file", (".npy",), ("feature_shape",), open=_open))

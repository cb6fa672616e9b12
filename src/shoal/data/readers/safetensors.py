"""`.safetensors`: read where it lies."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import RowSource, Source
from shoal.data.readers._base import (
    Mapped,
    Options,
    Reader,
    array_source,
    as_rows,
    check_matrix,
    check_start,
    choose_key,
    open_regular,
    reading,
    register,
    truth_beside,
)
from shoal.data.readers._limits import check_room
from shoal.vocabulary import SourceError

# safetensors' names of types; bfloat16 is read as bits, see _widen. The float8 types have
# no NumPy counterpart and are refused.
_SAFETENSORS_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


def _widen(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 is the upper half of float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


# Some ten thousand tensors. The format itself allows 100 MB, which take 1 GB to parse.
_HEADER_BYTES = 2**21


def _header(file: BinaryIO, path: Path) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors begin."""
    needed = "a complete .safetensors file"
    with reading(path.name, needed):
        length, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
        if length > min(_HEADER_BYTES, size - 8):
            raise ValueError(
                f"a header of {length} bytes in a file of {size}; at most {_HEADER_BYTES}"
            )
        raw = file.read(length)
        safe_open = importlib.import_module("safetensors").safe_open
        with safe_open(path, framework="np"):  # judges the header and the length
            pass
        header = json.loads(raw)
    header.pop("__metadata__", None)
    return header, 8 + length


def _open(path: Path, options: Options) -> Source:
    with open_regular(path) as file:
        check_start(file, path.name, b"", ".safetensors")
        header, begin = _header(file, path)

        def mapped(word: str, shape: tuple[int, int]) -> Mapped:
            """The tensor `word` as rows. The library's slices can't index them at random."""
            entry = header[word]
            if entry["dtype"] not in _SAFETENSORS_TYPES:
                raise SourceError(
                    "source", f"{word} of dtype {entry['dtype']} in {path.name}", "real numbers"
                )
            dtype = np.dtype(_SAFETENSORS_TYPES[entry["dtype"]])
            with reading(path.name, "a complete .safetensors file"):
                return Mapped(file, dtype, shape, begin + entry["data_offsets"][0], path.name)

        def whole(word: str) -> NDArray:
            shape = check_matrix(shapes[word], f"{word} in {path.name}")
            low, high = header[word]["data_offsets"]
            check_room(f"{word} in {path.name}", 2 * (high - low))
            array: NDArray = np.empty(shape)
            if 0 not in shape:
                array = mapped(word, shape)(slice(None))
            return _widen(array) if header[word]["dtype"] == "BF16" else array

        shapes = {word: tuple(entry["shape"]) for word, entry in header.items()}
        chosen = choose_key(shapes, options.get("key"), path.name)
        shape, of_a_row = as_rows(shapes[chosen], f"{chosen} in {path.name}")
        truth = truth_beside(whole, shapes, chosen, path.name)
        if 0 in shape:  # nothing to map; let the source refuse it by its shape
            return array_source(np.empty(shape), path.name)
        rows = mapped(chosen, shape)
    bits = header[chosen]["dtype"] == "BF16"
    return RowSource(
        (lambda index: _widen(rows(index))) if bits else rows,
        shape,
        np.float32 if bits else rows.view.dtype,
        fresh=rows.fresh or bits,
        soon=rows.soon,
        name=path.name,
        truth=truth,
        feature_shape=options.get("feature_shape") or of_a_row,
    )


READER = register(
    Reader("a .safetensors file", (".safetensors",), ("key", "feature_shape"), open=_open)
)

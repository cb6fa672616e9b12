"""`.safetensors`: memory-mapped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import RowSource, Source
from shoal.data.readers._base import (
    Options,
    Reader,
    as_rows,
    check_magic,
    choose_key,
    reading,
    register,
    truth_beside,
)
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


def _open(path: Path, options: Options) -> Source:
    from safetensors import safe_open

    check_magic(path, b"", ".safetensors")
    with reading(path.name, "a complete .safetensors file"):
        # safe_open judges the header and the length. Its slices can't index rows at
        # random, so the file is mapped: its layout is 8 bytes of length, a JSON header,
        # then the tensors at the offsets that the header gives.
        with safe_open(path, framework="np"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    header.pop("__metadata__", None)

    def mapped(word: str) -> NDArray:
        entry = header[word]
        if entry["dtype"] not in _SAFETENSORS_TYPES:
            raise SourceError(
                "source", f"{word} of dtype {entry['dtype']} in {path.name}", "real numbers"
            )
        dtype = np.dtype(_SAFETENSORS_TYPES[entry["dtype"]])
        if 0 in entry["shape"]:
            return np.empty(entry["shape"], dtype)
        start = 8 + length + entry["data_offsets"][0]
        return np.memmap(path, dtype, mode="r", offset=start, shape=tuple(entry["shape"]))

    def whole(word: str) -> NDArray:
        array = np.array(mapped(word))
        return _widen(array) if header[word]["dtype"] == "BF16" else array

    shapes = {word: tuple(entry["shape"]) for word, entry in header.items()}
    chosen = choose_key(shapes, options.get("key"), path.name)
    shape, of_a_row = as_rows(shapes[chosen], f"{chosen} in {path.name}")
    truth = truth_beside(whole, shapes, chosen, path.name)
    view = np.asarray(mapped(chosen)).reshape(shape)  # in C order: a view
    bits = header[chosen]["dtype"] == "BF16"
    return RowSource(
        (lambda index: _widen(view[index])) if bits else view.__getitem__,
        shape,
        np.float32 if bits else view.dtype,
        name=path.name,
        truth=truth,
        feature_shape=options.get("feature_shape") or of_a_row,
    )


READER = register(
    Reader("a .safetensors file", (".safetensors",), ("key", "feature_shape"), open=_open)
)

"""`.parquet`: all numeric columns, or one list column, read by row groups."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import ChunkSource, Source, float_dtype
from shoal.data.readers._base import (
    PIECE_ROWS,
    Options,
    Reader,
    check_magic,
    register,
    require,
)
from shoal.data.readers._parquet_pages import Checked
from shoal.vocabulary import ArgumentError, SourceError


def _open(path: Path, options: Options) -> Source:
    parquet = require("pyarrow.parquet", path.name, "parquet")
    types = importlib.import_module("pyarrow").types
    check_magic(path, b"PAR1", ".parquet")
    checked = Checked(path, parquet)
    schema, lengths = checked.schema, checked.lengths

    def numeric(kind: Any) -> bool:
        return bool(
            types.is_integer(kind)
            or types.is_floating(kind)
            or types.is_boolean(kind)
            or types.is_decimal(kind)
        )

    def listed(kind: Any) -> bool:
        a_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        return bool(a_list and numeric(kind.value_type))

    def stored(kind: Any) -> Any:
        if types.is_decimal(kind):
            return np.dtype(np.float64)
        return np.dtype(bool) if types.is_boolean(kind) else np.dtype(kind.to_pandas_dtype())

    kinds = {field.name: field.type for field in schema}
    key = options.get("key")
    if key is not None and key not in kinds:
        raise ArgumentError(
            "key",
            repr(key),
            f"one of the columns in {path.name}: {', '.join(kinds)}",
        )
    names = list(kinds) if key is None else [key]
    numbers = [word for word in names if numeric(kinds[word])]
    lists = [word for word in names if listed(kinds[word])]
    if len(lists) > 1 or (lists and numbers):
        raise SourceError(
            "source",
            f"{path.name} with {len(numbers)} numeric and {len(lists)} list columns",
            f"key= one of {', '.join([*lists, *numbers])}",
        )
    if not lists and not numbers:
        raise SourceError(
            "source",
            f"{path.name} with columns {', '.join(names) or 'none'}",
            "numeric columns, or one list column of numbers",
        )
    columns = lists or numbers

    def pieces(group: int) -> Iterator[NDArray]:
        with checked.group(int(group)) as opened:
            flow = opened.iter_batches(PIECE_ROWS, row_groups=[int(group)], columns=columns)
            for record in flow:
                yield unlist(record) if lists else side_by_side(record)

    def side_by_side(record: Any) -> NDArray:
        out = np.empty((record.num_rows, len(columns)), dtype=dtype)
        for i, word in enumerate(columns):
            out[:, i] = _numbers(record.column(word), dtype)
        return out

    def unlist(record: Any) -> NDArray:
        column = record.column(columns[0])
        # Rows of another length (and null rows, which have none) would shift all others.
        sizes = np.asarray(column.value_lengths().fill_null(-1))
        wrong = np.flatnonzero(sizes != width)
        if wrong.size:
            found = "no list" if sizes[wrong[0]] < 0 else f"{sizes[wrong[0]]} values"
            raise SourceError(
                "source",
                f"{found} in a row of {columns[0]} in {path.name}",
                f"{width} values in each row, as in its first",
            )
        return _numbers(column.flatten(), dtype).reshape(record.num_rows, width or 0)

    if lists:
        kind = kinds[lists[0]]
        dtype = float_dtype(stored(kind.value_type), "source", path.name)
        width = kind.list_size if types.is_fixed_size_list(kind) else None
        if width is None and any(lengths):
            filled = next(i for i, length in enumerate(lengths) if length)
            with checked.group(filled) as file:
                first = next(file.iter_batches(1, row_groups=[filled], columns=columns)).column(0)
                width = first.value_lengths()[0].as_py() or 0
    else:
        dtype = np.result_type(
            *(float_dtype(stored(kinds[word]), "source", path.name) for word in numbers)
        )
        width = len(numbers)
    return ChunkSource(
        pieces,
        lengths,
        width or 0,
        dtype,
        name=path.name,
        feature_shape=options.get("feature_shape"),
    )


def _numbers(column: Any, dtype: np.dtype) -> NDArray:
    """An Arrow array as floats; null becomes NaN, which `validate` then names."""
    import pyarrow

    kind = pyarrow.float32() if dtype == np.float32 else pyarrow.float64()
    # Not "safe": a 64-bit integer beyond 2**53 is rounded, as NumPy rounds it.
    return column.cast(kind, safe=False).to_numpy(zero_copy_only=False)


READER = register(Reader("a Parquet file", (".parquet",), ("key", "feature_shape"), open=_open))

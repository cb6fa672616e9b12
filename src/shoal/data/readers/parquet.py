"""`.parquet`: all numeric columns, or one list column, read by row groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import ChunkSource, Source
from shoal.data.columns import choose
from shoal.data.readers._arrow import common_dtype, list_width, numbers, table_columns, unlisted
from shoal.data.readers._base import (
    PIECE_ROWS,
    Options,
    Reader,
    check_magic,
    register,
    require,
)
from shoal.data.readers._parquet_pages import Checked


def _open(path: Path, options: Options) -> Source:
    parquet = require("pyarrow.parquet", path.name, "parquet")
    check_magic(path, b"PAR1", ".parquet")
    checked = Checked(path, parquet)
    schema, lengths = checked.schema, checked.lengths
    choice = choose(table_columns(schema), options, path.name)
    fields = [schema.field(i) for i in choice.positions]
    columns = [field.name for field in fields]
    dtype = common_dtype(schema, choice, path.name)

    def pieces(group: int) -> Iterator[NDArray]:
        with checked.group(int(group)) as opened:
            flow = opened.iter_batches(PIECE_ROWS, row_groups=[int(group)], columns=columns)
            for record in flow:
                if choice.a_list:
                    what = f"{columns[0]} in {path.name}"
                    yield unlisted(record.column(columns[0]), width, dtype, what)
                else:
                    yield side_by_side(record)

    def side_by_side(record: Any) -> NDArray:
        out = np.empty((record.num_rows, len(columns)), dtype=dtype)
        for i, word in enumerate(columns):
            out[:, i] = numbers(record.column(word), dtype)
        return out

    width = len(columns)
    if choice.a_list:
        known = list_width(fields[0].type)
        width = known or 0
        if known is None and any(lengths):
            filled = next(i for i, length in enumerate(lengths) if length)
            with checked.group(filled) as file:
                first = next(file.iter_batches(1, row_groups=[filled], columns=columns)).column(0)
                width = first.value_lengths()[0].as_py() or 0
    source = ChunkSource(
        pieces,
        lengths,
        width,
        dtype,
        name=path.name,
        feature_shape=options.get("feature_shape"),
        feature_names=choice.names,
        left_out=choice.left_out,
    )
    source.notes = choice.notes(path.name)
    return source


READER = register(
    Reader(
        "a Parquet file",
        (".parquet",),
        ("key", "columns", "drop", "feature_shape"),
        open=_open,
    )
)

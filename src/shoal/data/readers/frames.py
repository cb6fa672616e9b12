"""Data frames in memory: pandas, polars, PyArrow's tables, and what gives Arrow's stream."""

from __future__ import annotations

import sys
from collections.abc import Callable
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import Source, float_dtype
from shoal.data.columns import LIST, NUMBER, Choice, Column, choose
from shoal.data.readers import _arrow
from shoal.data.readers._base import Options, Reader, array_source, reading, register, require
from shoal.data.readers.sparse import sparse_source
from shoal.vocabulary import SourceError

_NAME = "frame"


class _Frame(NamedTuple):
    """How frames of one library are told, and how they are read."""

    holds: Callable[[Any], bool]
    columns: Callable[[Any], list[Column]]
    rows: Callable[[Any, Choice], Any]  # the chosen columns as an array, or a sparse one


def _of(module: str, *names: str) -> Callable[[Any], bool]:
    """Whether a value is of a class of a library; the library isn't imported to find out."""

    def holds(value: Any) -> bool:
        loaded = sys.modules.get(module)
        classes = tuple(getattr(loaded, name) for name in names) if loaded is not None else ()
        return isinstance(value, classes)

    return holds


def _side_by_side(columns: list[NDArray], n_rows: int) -> NDArray:
    dtype = np.result_type(*(float_dtype(column.dtype, "data", _NAME) for column in columns))
    out = np.empty((n_rows, len(columns)), dtype=dtype)
    for i, column in enumerate(columns):
        out[:, i] = column
    return out


# --- pandas -------------------------------------------------------------------------------


def _pandas_columns(frame: Any) -> list[Column]:
    return [Column(name, _pandas_kind(frame.iloc[:, i])) for i, name in enumerate(frame.columns)]


def _pandas_kind(series: Any) -> str:
    import pandas
    from pandas.api import types

    dtype = series.dtype
    if isinstance(dtype, pandas.SparseDtype):
        dtype = np.dtype(dtype.subtype)
    if isinstance(dtype, pandas.CategoricalDtype):
        numeric = types.is_numeric_dtype(dtype.categories.dtype)
        return NUMBER if numeric else "categories"
    if isinstance(dtype, np.dtype) and dtype.kind == "c":
        return "complex numbers"
    if types.is_numeric_dtype(dtype) or types.is_bool_dtype(dtype):
        return NUMBER
    if types.is_datetime64_any_dtype(dtype) or dtype.kind in "Mm":
        return "dates"
    if dtype.kind != "O":
        return "text" if types.is_string_dtype(dtype) else str(dtype)
    found = types.infer_dtype(series, skipna=True)
    if found in ("integer", "floating", "mixed-integer-float", "boolean", "decimal"):
        return NUMBER
    if found.startswith("mixed") and all(
        isinstance(value, (Real, Decimal)) or pandas.isna(value) for value in series.to_numpy()
    ):
        return NUMBER
    words = {"string": "text", "empty": "nothing", "datetime": "dates", "date": "dates"}
    return words.get(found, "objects")


def _pandas_rows(frame: Any, choice: Choice) -> Any:
    import pandas

    every = choice.positions == list(range(frame.shape[1]))
    chosen = frame if every else frame.iloc[:, choice.positions]
    dtypes = list(dict.fromkeys(chosen.dtypes))
    if len(dtypes) == 1 and isinstance(dtypes[0], np.dtype) and dtypes[0].kind != "O":
        return chosen.to_numpy()  # of one type: pandas may give a view
    plain = all(
        isinstance(dtype, pandas.SparseDtype) and dtype.fill_value in (0, False) for dtype in dtypes
    )
    if plain:
        return chosen.sparse.to_coo()
    return _side_by_side(
        [_pandas_numbers(chosen.iloc[:, i]) for i in range(chosen.shape[1])], len(chosen)
    )


def _pandas_numbers(series: Any) -> NDArray:
    import pandas

    dtype = series.dtype
    if isinstance(dtype, pandas.CategoricalDtype):
        dtype = dtype.categories.dtype
        codes = series.cat.codes.to_numpy()
        values = np.append(_pandas_numbers(series.cat.categories.to_series()), np.nan)
        return np.asarray(values[codes])  # the code of what is missing is -1
    if isinstance(dtype, pandas.SparseDtype):
        return np.asarray(series.sparse.to_dense())
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return np.asarray(series.to_numpy())
    wide = getattr(dtype, "numpy_dtype", np.dtype(np.float64))
    wide = wide if wide.kind in "biuf" else np.dtype(np.float64)
    target = float_dtype(wide, "data", _NAME)
    return np.asarray(series.to_numpy(dtype=target, na_value=np.nan))


# --- polars -------------------------------------------------------------------------------


def _polars_columns(frame: Any) -> list[Column]:
    return [Column(name, _polars_kind(dtype)) for name, dtype in frame.schema.items()]


def _polars_kind(dtype: Any) -> str:
    import polars

    if dtype.is_numeric() or dtype == polars.Boolean:
        return NUMBER
    if isinstance(dtype, (polars.List, polars.Array)):
        inner = dtype.inner
        return LIST if inner.is_numeric() or inner == polars.Boolean else "lists"
    if dtype in (polars.Categorical, polars.Enum):
        return "categories"
    if dtype == polars.String:
        return "text"
    if dtype.is_temporal():
        return "dates"
    return "nothing" if dtype == polars.Null else "structures" if dtype.is_nested() else str(dtype)


def _polars_rows(frame: Any, choice: Choice) -> NDArray:
    series = [frame.to_series(i) for i in choice.positions]
    if choice.a_list:
        name = f"column {series[0].name!r} of {_NAME}"
        lengths = (
            {len(row) if row is not None else None for row in series[0]} if len(series[0]) else {0}
        )
        if len(lengths) > 1 or None in lengths:
            raise SourceError("data", f"rows of several lengths in {name}", "rows of one length")
        return np.asarray(series[0].to_list())
    return _side_by_side([_polars_numbers(each) for each in series], frame.height)


def _polars_numbers(series: Any) -> NDArray:
    import polars

    kept = (polars.Float32, polars.Boolean, polars.Int8, polars.Int16, polars.UInt8, polars.UInt16)
    if series.dtype not in kept and str(series.dtype) != "Float16":
        series = series.cast(polars.Float64)
    return np.asarray(series.to_numpy())


# --- Arrow --------------------------------------------------------------------------------


def _arrow_columns(table: Any) -> list[Column]:
    return _arrow.table_columns(table.schema)


def _arrow_rows(table: Any, choice: Choice) -> NDArray:
    dtype = _arrow.common_dtype(table.schema, choice, _NAME)
    columns = [table.column(i) for i in choice.positions]
    if hasattr(columns[0], "combine_chunks"):
        columns = [_joined(column) for column in columns]
    if choice.a_list:
        what = f"column {table.schema.names[choice.positions[0]]!r} of {_NAME}"
        width = _arrow.list_width(columns[0].type)
        if width is None:
            width = (columns[0].value_lengths()[0].as_py() or 0) if len(columns[0]) else 0
        return _arrow.unlisted(columns[0], width, dtype, what)
    return _side_by_side([_arrow.numbers(column, dtype) for column in columns], table.num_rows)


def _joined(column: Any) -> Any:
    import pyarrow

    joined = column.combine_chunks()  # an array, of dictionaries a chunked one
    if isinstance(joined, pyarrow.ChunkedArray):
        joined = joined.chunk(0) if joined.num_chunks == 1 else pyarrow.concat_arrays(joined.chunks)
    return joined


_FRAMES = (
    _Frame(_of("pandas", "DataFrame"), _pandas_columns, _pandas_rows),
    _Frame(_of("polars", "DataFrame"), _polars_columns, _polars_rows),
    _Frame(_of("pyarrow", "Table", "RecordBatch"), _arrow_columns, _arrow_rows),
)


def is_frame(value: Any) -> bool:
    """Whether `value` is a table of named columns."""
    known = any(frame.holds(value) for frame in _FRAMES)
    # Arrow's stream is how other libraries (cuDF, DuckDB, Ibis) hand over a table; a column
    # alone, such as a series of polars, gives one as well and has a `dtype`.
    return known or (
        hasattr(value, "__arrow_c_stream__") and hasattr(value, "columns") and not _lazy(value)
    )


def _lazy(value: Any) -> bool:
    return _of("polars", "LazyFrame")(value)


def _open_frame(value: Any, options: Options) -> Source:
    frame = next((frame for frame in _FRAMES if frame.holds(value)), None)
    with reading(f"a {type(value).__name__}", "a table of numbers", "data"):
        if frame is None:
            value = require("pyarrow", f"a {type(value).__name__}", "parquet").table(value)
            frame = _FRAMES[-1]
        choice = choose(frame.columns(value), options, _NAME)
        rows = frame.rows(value, choice)
        words: dict[str, Any] = {
            "argument": "data",
            "feature_shape": options.get("feature_shape"),
            "feature_names": choice.names,
            "left_out": choice.left_out,
        }
        if hasattr(rows, "tocsr"):
            source: Source = sparse_source(rows, _NAME, **words)
        else:
            source = array_source(rows, _NAME, **words)
    source.notes = choice.notes(_NAME)
    return source


READER = register(
    Reader(
        "a data frame",
        (),
        ("key", "columns", "drop", "feature_shape"),
        holds=is_frame,
        open_object=_open_frame,
    )
)

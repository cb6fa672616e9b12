"""What columns of Arrow tables are, and their numbers: for Parquet and for tables in memory."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import float_dtype
from shoal.data.columns import LIST, NUMBER, Choice, Column
from shoal.vocabulary import SourceError


def table_columns(schema: Any) -> list[Column]:
    """The columns of an Arrow schema, pandas' index among them by the name of its kind."""
    index = _pandas_index(schema.metadata)
    return [
        Column(field.name, "pandas' index" if field.name in index else kind_of(field.type))
        for field in schema
    ]


def _pandas_index(metadata: Mapping[bytes, bytes] | None) -> set[str]:
    """The columns that pandas, as it says itself, wrote for its index."""
    try:
        written = json.loads((metadata or {})[b"pandas"])["index_columns"]
        return {each for each in written if isinstance(each, str)}  # a range is no column
    except (KeyError, ValueError, TypeError, RecursionError):
        return set()


def kind_of(kind: Any) -> str:
    """What a column of an Arrow type holds, in the words of :mod:`shoal.data.columns`."""
    types = importlib.import_module("pyarrow").types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return kind_of(kind.value_type)  # a way of storing it
    if hasattr(kind, "storage_type"):  # an extension type, such as a tensor of fixed shape
        return kind_of(kind.storage_type)
    if _is_number(kind):
        return NUMBER
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return LIST if _is_number(kind.value_type) else "lists"
    words = {
        "text": (types.is_string, types.is_large_string, types.is_string_view),
        "dates": (types.is_temporal,),
        "nothing": (types.is_null,),
        "structures": (types.is_nested,),
    }
    return next((word for word, tests in words.items() if any(t(kind) for t in tests)), str(kind))


def _is_number(kind: Any) -> bool:
    types = importlib.import_module("pyarrow").types
    tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    return any(test(kind) for test in tests)


def stored(kind: Any) -> np.dtype:
    """NumPy's type for the numbers of an Arrow type."""
    types = importlib.import_module("pyarrow").types
    kind = _plain(kind)
    if types.is_decimal(kind):
        return np.dtype(np.float64)
    return np.dtype(bool) if types.is_boolean(kind) else np.dtype(kind.to_pandas_dtype())


def _plain(kind: Any) -> Any:
    """The type of the values, however they are stored."""
    while hasattr(kind, "value_type") or hasattr(kind, "storage_type"):
        kind = kind.value_type if hasattr(kind, "value_type") else kind.storage_type
    return kind


def common_dtype(schema: Any, choice: Choice, name: str) -> np.dtype:
    """The float type that holds all chosen columns."""
    types = [schema.field(i).type for i in choice.positions]
    return np.result_type(*(float_dtype(stored(kind), "source", name) for kind in types))


def numbers(column: Any, dtype: np.dtype) -> NDArray:
    """An Arrow array as floats; null becomes NaN, which `validate` then names."""
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    elif types.is_run_end_encoded(column.type):
        column = pyarrow.compute.run_end_decode(column)
    kind = pyarrow.float32() if dtype == np.float32 else pyarrow.float64()
    # Not "safe": a 64-bit integer beyond 2**53 is rounded, as NumPy rounds it.
    return column.cast(kind, safe=False).to_numpy(zero_copy_only=False)


def list_width(kind: Any) -> int | None:
    """The length of the lists of a type that says it, else None."""
    types = importlib.import_module("pyarrow").types
    kind = getattr(kind, "storage_type", kind)
    return int(kind.list_size) if types.is_fixed_size_list(kind) else None


def unlisted(column: Any, width: int, dtype: np.dtype, what: str) -> NDArray:
    """A column of lists as rows; `what` names it."""
    column = getattr(column, "storage", column)
    # Rows of another length (and null rows, which have none) would shift all others.
    lengths = np.asarray(column.value_lengths().fill_null(-1))
    wrong = np.flatnonzero(lengths != width)
    if wrong.size:
        found = "no list" if lengths[wrong[0]] < 0 else f"{lengths[wrong[0]]} values"
        raise SourceError(
            "source",
            f"{found} in a row of {what}",
            f"{width} values in each row, as in its first",
        )
    return numbers(column.flatten(), dtype).reshape(len(column), width)

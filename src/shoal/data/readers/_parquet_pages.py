"""What a Parquet file's footer declares, compared with the headers of its pages.

The footer may declare rows that aren't there, and a page of a few bytes may unpack to any
size: the library believes both. The headers of the pages say how many values each holds and
what it unpacks to, so they are walked before a row group is read, at a few microseconds
each. Written after the format's own definition
(https://github.com/apache/parquet-format, `PageHeader` in Thrift's compact protocol).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from shoal.data.readers._base import PIECE_ROWS, Stamp, open_regular, reading
from shoal.data.readers._limits import check_room

NEEDED = "a complete Parquet file"

# Bytes of one page's header, most of them statistics. Arbitrary.
_HEADER_BYTES = 2**20


class Checked:
    """A Parquet file, its row groups checked as each is read for the first time.

    Parameters
    ----------
    path : Path
        A regular file.
    parquet : module
        `pyarrow.parquet`.

    Attributes
    ----------
    schema : pyarrow.Schema
        Of its columns.
    lengths : list of int
        Rows of each row group.
    """

    def __init__(self, path: Path, parquet: Any) -> None:
        self._path, self._parquet, self._good = path, parquet, set[int]()
        with reading(path.name, NEEDED), open_regular(path) as file:
            self._stamp = Stamp.of(file)
        with reading(path.name, NEEDED), parquet.ParquetFile(path) as opened:
            self.schema, self._metadata = opened.schema_arrow, opened.metadata
            groups = range(self._metadata.num_row_groups)
            self.lengths = [self._metadata.row_group(i).num_rows for i in groups]
            if sum(self.lengths) != self._metadata.num_rows or min(self.lengths, default=0) < 0:
                raise ValueError(
                    f"row groups of {sum(self.lengths)} rows, {self._metadata.num_rows} declared"
                )

    @contextmanager
    def group(self, number: int) -> Iterator[Any]:
        """The open file, when the pages of row group `number` were found to be as declared."""
        name = self._path.name
        with reading(name, NEEDED):
            with open_regular(self._path) as file:
                self._stamp.check(file, name)
                if number not in self._good:
                    check_group(file, self._metadata, number, name)
                    self._good.add(number)
            # No map: a file that is cut while mapped ends the process. Pages, not whole
            # columns, are read ahead.
            with self._parquet.ParquetFile(
                self._path,
                pre_buffer=False,
                memory_map=False,
                buffer_size=2**18,
                page_checksum_verification=True,
            ) as opened:
                yield opened


def check_group(file: BinaryIO, metadata: Any, number: int, name: str) -> None:
    """Refuse a row group whose pages hold other values than declared, or unpack to too much."""
    group, unpacked, packed = metadata.row_group(number), 0, 0
    for i in range(group.num_columns):
        column = group.column(i)
        if column.physical_type == "BYTE_ARRAY":
            continue  # text, which isn't read
        flat = metadata.schema.column(i).max_repetition_level == 0
        if flat and column.num_values != group.num_rows:
            raise ValueError(
                f"{column.num_values} of {group.num_rows} rows in {column.path_in_schema}, "
                f"row group {number}"
            )
        most = _check_column(file, column)
        values = column.num_values
        if group.num_rows and values % group.num_rows == 0:
            values = values // group.num_rows * min(group.num_rows, PIECE_ROWS)
        unpacked += most + (0 if flat else 8 * values)
        packed += column.total_compressed_size
    check_room(f"a piece of row group {number} of {name}", unpacked, packed)


def _check_column(file: BinaryIO, column: Any) -> int:
    """The bytes of its largest page and dictionary, unpacked, when its values are all there."""
    size = os.fstat(file.fileno()).st_size
    starts = [column.data_page_offset]
    if column.has_dictionary_page and column.dictionary_page_offset:
        starts.append(column.dictionary_page_offset)
    at, values, largest, dictionary = min(starts), 0, 0, 0
    while values < column.num_values:
        header, length = _page_header(file, at, size)
        kind, unpacked, packed = header.get(1), header.get(2, -1), header.get(3, -1)
        at += length + packed
        if packed < 0 or unpacked < 0 or at > size:
            raise ValueError(f"a page of {packed} bytes that reaches byte {at} of {size}")
        page = header.get(8) if kind == 3 else header.get(5)
        if kind in (0, 3):
            number = page.get(1, 0) if isinstance(page, dict) else 0
            if number <= 0 and packed == 0:
                raise ValueError("a page without values")
            values += max(0, number)
            largest = max(largest, unpacked)
        else:
            dictionary = max(dictionary, unpacked)
    if values != column.num_values:
        raise ValueError(
            f"pages of {values} values in {column.path_in_schema}, {column.num_values} declared"
        )
    return largest + dictionary


def _page_header(file: BinaryIO, at: int, size: int) -> tuple[dict[int, Any], int]:
    if not 0 < at < size:
        raise ValueError(f"a page at byte {at} of {size}")
    length = 256
    while True:
        file.seek(at)
        raw = file.read(length)
        try:
            return _struct(raw, 0, 0)
        except IndexError:
            if length > _HEADER_BYTES or len(raw) < length:
                raise ValueError(f"no page at byte {at}") from None
            length *= 8


# --- Thrift's compact protocol ----------------------------------------------------------------


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 70:
            raise ValueError("no number")


def _struct(raw: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """The fields of a structure by number, and where it ends; IndexError where `raw` does."""
    if depth > 8:
        raise ValueError("structures within structures")
    fields: dict[int, Any] = {}
    number = 0
    while (head := raw[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _varint(raw, at)
            number = number >> 1 ^ -(number & 1)
        fields[number], at = _value(raw, at, head & 15, depth)
    return fields, at + 1


def _value(raw: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # a truth value is in the field's own type
        return kind == 1, at
    if kind == 3:
        return raw[at], at + 1
    if kind in (4, 5, 6):  # whole numbers, zigzag
        value, at = _varint(raw, at)
        return value >> 1 ^ -(value & 1), at
    if kind == 7:
        return None, at + 8
    if kind == 8:  # bytes: lower and upper bounds, skipped
        length, at = _varint(raw, at)
        if length > _HEADER_BYTES:
            raise ValueError(f"{length} bytes of statistics")
        raw[at + length : at + length + 1][0]  # IndexError where they aren't there
        return None, at + length
    if kind == 12:
        return _struct(raw, at, depth + 1)
    raise ValueError(f"a field of type {kind}")

"""What a Parquet file's footer declares, compared with the headers of its pages.

The footer may declare rows that aren't there, and a page of a few bytes may unpack to any
size: the library believes both. The headers of the pages say how many values each holds and
what it unpacks to, so they are walked before a row group is read, at some microseconds
each. The footer is read here too, since the library ends the process at some that are
damaged. Written after the format's own definition
(https://github.com/apache/parquet-format, in Thrift's compact protocol).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from shoal.data.readers._base import PIECE_ROWS, Stamp, open_regular, reading
from shoal.data.readers._limits import check_room

NEEDED = "a complete Parquet file"

# Bytes of one page's header, most of them statistics, and of a footer. Arbitrary.
_HEADER_BYTES = 2**20
_FOOTER_BYTES = 2**26

_TEXT = 6  # the physical type BYTE_ARRAY


class Column(NamedTuple):
    """What the footer says of a column's part in a row group."""

    text: bool
    flat: bool  # one value per row
    values: int
    start: int
    packed: int


class Group(NamedTuple):
    """What the footer says of a row group."""

    rows: int
    columns: list[Column]


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
            self._groups = _footer(file)
        self.lengths = [group.rows for group in self._groups]
        with reading(path.name, NEEDED), parquet.ParquetFile(path) as opened:
            self.schema, declared = opened.schema_arrow, opened.metadata.num_rows
            if sum(self.lengths) != declared:
                raise ValueError(f"row groups of {sum(self.lengths)} rows, {declared} declared")

    @contextmanager
    def group(self, number: int) -> Iterator[Any]:
        """The open file, when the pages of row group `number` were found to be as declared."""
        name = self._path.name
        with reading(name, NEEDED):
            with open_regular(self._path) as file:
                self._stamp.check(file, name)
                if number not in self._good:
                    check_group(file, self._groups[number], number, name)
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


def check_group(file: BinaryIO, group: Group, number: int, name: str) -> None:
    """Refuse a row group whose pages hold other values than declared, or unpack to too much."""
    unpacked = packed = 0
    for place, column in enumerate(group.columns):
        if column.text:  # isn't read
            continue
        if column.flat and column.values != group.rows:
            raise ValueError(
                f"{column.values} of {group.rows} rows in column {place}, row group {number}"
            )
        most = _check_column(file, column)
        values = column.values
        if group.rows and values % group.rows == 0:
            values = values // group.rows * min(group.rows, PIECE_ROWS)
        unpacked += most + (0 if column.flat else 8 * values)
        packed += column.packed
    check_room(f"a piece of row group {number} of {name}", unpacked, packed)


def _check_column(file: BinaryIO, column: Column) -> int:
    """The bytes of its largest page and dictionary, unpacked, when its values are all there."""
    size, at = os.fstat(file.fileno()).st_size, column.start
    values = largest = dictionary = 0
    while values < column.values:
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
    if values != column.values:
        raise ValueError(f"pages of {values} values where {column.values} are declared")
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


def _footer(file: BinaryIO) -> list[Group]:
    """The row groups: in its last 8 bytes the file says how long its footer is."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > min(size - 12, _FOOTER_BYTES):
        raise ValueError(f"its last bytes are {tail!r}")
    file.seek(size - 8 - length)
    raw = file.read(length)
    flat: list[bool] = []
    groups: list[Group] = []
    try:
        for number, kind, at in _fields(raw, 0):
            if number == 2:
                flat = _leaves(list(_items(raw, at, kind)))
            if number == 4:
                groups = [_group(item, flat) for item in _items(raw, at, kind)]
    except (IndexError, AttributeError, TypeError):
        raise ValueError("a footer that is cut off, or none") from None
    return groups


def _leaves(elements: list[Any]) -> list[bool]:
    """Of each column, whether it holds one value per row; the schema is a tree, depth first."""
    flat: list[bool] = []
    open_nodes = [(1, True)]  # (children that are to come, whether nothing above is repeated)
    for element in elements:
        while open_nodes and open_nodes[-1][0] == 0:
            open_nodes.pop()
        left, plain = open_nodes.pop()
        open_nodes.append((left - 1, plain))
        plain = plain and element.get(3) != 2
        if children := element.get(5):
            open_nodes.append((children, plain))
        else:
            flat.append(plain)
    return flat


def _group(item: dict[int, Any], flat: list[bool]) -> Group:
    columns = []
    for chunk, plain in zip(item[1], flat, strict=True):
        if 1 in chunk:
            raise ValueError("columns in another file")
        about = chunk[3]
        start = min(about[9], about.get(11) or about[9])
        columns.append(Column(about[1] == _TEXT, plain, about[5], start, about[7]))
    if item[3] < 0 or any(column.packed < 0 or column.values < 0 for column in columns):
        raise ValueError("a negative number of rows")
    return Group(item[3], columns)


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


def _fields(raw: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Of each field of a structure: its number, its type and where it begins."""
    number = 0
    while (head := raw[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _varint(raw, at)
            number = number >> 1 ^ -(number & 1)
        yield number, head & 15, at
        at = _value(raw, at, head & 15, 0)[1]


def _items(raw: bytes, at: int, kind: int) -> Iterator[Any]:
    """The items of a list, one at a time."""
    if kind != 9:
        raise ValueError("no list")
    head, at = raw[at], at + 1
    count = head >> 4
    if count == 15:
        count, at = _varint(raw, at)
    for _ in range(count):
        item, at = _item(raw, at, head & 15, 1)
        yield item


def _item(raw: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # a truth value of its own is one byte
        return raw[at] == 1, at + 1
    return _value(raw, at, kind, depth)


def _struct(raw: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """The fields of a structure by number, and where it ends; IndexError where `raw` does."""
    if depth > 12:
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
    if kind == 8:  # names and bounds, not needed
        length, at = _varint(raw, at)
        if at + length > len(raw):
            raise IndexError
        return None, at + length
    if kind in (9, 10):
        head, at = raw[at], at + 1
        count = head >> 4
        if count == 15:
            count, at = _varint(raw, at)
        if count > len(raw) - at:  # an item takes a byte at least
            raise IndexError
        items = []
        for _ in range(count):
            item, at = _item(raw, at, head & 15, depth + 1)
            items.append(item)
        return items, at
    if kind == 12:
        return _struct(raw, at, depth + 1)
    raise ValueError(f"a field of type {kind}")

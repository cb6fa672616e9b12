"""`.csv`, `.tsv` and their kin: numbers as text, read once.

Text has no rows to seek, so a file is read once, when it is opened, a block of rows at a time,
into memory, or where that gets large into a temporary file that is mapped and has no name. From
then on it is as a `.npy` file: the same numbers give the same bits.

Nothing is guessed about a number: a decimal comma, a separator of thousands or a word among
numbers is an error that names its line. What is missing is NaN, which `validate` names.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import Source
from shoal.data.columns import NUMBER, Column, choose, clipped
from shoal.data.readers._base import (
    Options,
    Reader,
    array_source,
    check_magic,
    open_regular,
    reading,
    register,
)
from shoal.vocabulary import ArgumentError, SourceError

# Limits, so that no file takes more memory than its rows do. All arbitrary.
_LINE = 8 * 2**20  # characters: a hundred thousand columns fit
_COLUMNS = 2**18
_HEAD_LINES, _HEAD_SIZE = 1000, 2**20  # lines, characters that columns are judged by
_CELL_LINES = 20
_CELLS = 2**17  # that are text at a time
_HELD_BYTES = 64 * 2**20  # of numbers, before they go to a file
# Text rarely gets a hundred times smaller; a bomb gets a thousand times.
_UNPACKED, _RATIO = 2**30, 100

_NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " "}
_MISSING = {"", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "null", "none"}
_WORDS = {"true": 1.0, "false": 0.0} | dict.fromkeys(_MISSING, np.nan)
_QUOTED = re.compile('"[^"]*"')
_GROUPED = re.compile(
    r"[+-]?(\d{1,3}([,'’ \u00a0\u202f]\d{3})+([.,]\d+)?|\d{1,3}(\.\d{3})+,\d+|\d{1,3}(\.\d{3}){2,}"
    r"|\d*,\d+([eE][+-]?\d+)?)"
)


class _Layout(NamedTuple):
    """How the lines of a file are a table."""

    delimiter: str | None  # None: any white space
    header: bool
    columns: list[Column]
    notes: tuple[str, ...]


class _Lines:
    """The lines of a text file that hold something, counted, each of limited length."""

    def __init__(self, file: io.TextIOBase, name: str) -> None:
        self.file, self.name = file, name
        self.number = 0  # of the line given last

    def __iter__(self) -> Iterator[str]:
        while line := self.file.readline(_LINE + 1):
            self.number += 1
            if len(line) > _LINE:
                found = f"line {self.number} of {self.name} of more than {_LINE} characters"
                raise SourceError("source", found, "a table of shorter lines, or a .npy file")
            if line.strip() and not line.startswith("#"):
                yield line


def _open(path: Path, options: Options) -> Source:
    name = path.name
    needed = "a table of numbers as UTF-8 text"
    check_magic(path, b"\x1f\x8b" if path.suffix == ".gz" else b"", path.suffix)
    _refuse_binary(path)
    with reading(name, needed):
        with _lines(path) as lines:
            head = _first(lines)
            comments = _comment_before(path) if head else ""
        layout = _layout(head, comments, options, name)
        choice = choose(layout.columns, options, name)
        with _lines(path) as lines:
            array, held = _numbers(lines, layout, choice.positions, name)
    source = array_source(
        array,
        name,
        held=held,
        feature_shape=options.get("feature_shape"),
        feature_names=choice.names,
        left_out=choice.left_out,
    )
    source.notes = (*layout.notes, *choice.notes(name))
    return source


def _refuse_binary(path: Path) -> None:
    with reading(path.name, "a file that can be read"), open_regular(path) as file:
        start = file.read(512)
    packed = path.suffix == ".gz" or start[:2] in (b"\xff\xfe", b"\xfe\xff")  # or UTF-16
    if not packed and (start[:4] in (b"PK\x03\x04", b"PAR1") or b"\0" in start):
        found = f"{path.name}, which starts {start[:8]!r}"
        raise SourceError("source", found, "a table as text, or the ending that fits")


class _lines:
    """A file as `_Lines`, closed at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Lines:
        raw: Any = open_regular(self.path)
        if self.path.suffix == ".gz":
            raw = _Gzip(raw, self.path)
        start = raw.read(2)
        raw.seek(0)
        encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        self.text = io.TextIOWrapper(raw, encoding=encoding)
        return _Lines(self.text, self.path.name)

    def __exit__(self, *error: object) -> None:
        self.text.close()


class _Gzip(gzip.GzipFile):
    """A `.gz` file that gives up on what unpacks to far more than text does."""

    def __init__(self, raw: Any, path: Path) -> None:
        super().__init__(fileobj=raw)
        self.raw, self.path = raw, path
        self.most = max(_UNPACKED, _RATIO * path.stat().st_size)

    def read1(self, size: int = -1) -> bytes:
        if self.tell() > self.most:
            found = f"{self.path.name} that unpacks to more than {self.most} bytes"
            raise SourceError("source", found, "the file unpacked")
        return super().read1(size)

    def close(self) -> None:
        super().close()
        self.raw.close()


def _first(lines: _Lines) -> list[str]:
    """The first lines, at least two and then as many as the limits let."""
    head: list[str] = []
    size = 0
    for line in lines:
        head.append(line)
        size += len(line)
        if len(head) >= 2 and (len(head) >= _HEAD_LINES or size >= _HEAD_SIZE):
            break
    return head


def _comment_before(path: Path) -> str:
    """The last comment before the first row, where `numpy.savetxt` writes its header."""
    last = ""
    with _lines(path) as lines:
        while (line := lines.file.readline(_LINE)) and (line.startswith("#") or not line.strip()):
            last = line.lstrip("#").strip() or last
    return last


# --- what the columns are -------------------------------------------------------------------


def _layout(head: list[str], comment: str, options: Options, name: str) -> _Layout:
    if not head:
        raise SourceError("source", f"{name} without rows", "a table of numbers")
    delimiter = _delimiter(head, options)
    mark = "," if delimiter is None else delimiter
    if max(line.count(mark) for line in head) >= _COLUMNS:
        found = f"more than {_COLUMNS} columns in {name}"
        raise SourceError("source", found, "fewer, or a .npy file")
    rows = list(_split(head, delimiter))
    if any(cell.count("\n") > _CELL_LINES for row in rows for cell in row):
        found = f"a cell of more than {_CELL_LINES} lines in {name}"
        raise SourceError("source", found, "each quote closed in its line")
    given = options.get("header")
    if given is not None and not isinstance(given, bool):
        raise ArgumentError("header", repr(given), "True or False")
    header, note = _header(rows) if given is None else (given, "")
    names: list[Any] = []
    if header:
        names, rows = [cell.strip() for cell in rows[0]], rows[1:]
        if not rows:
            found = f"{name} with a header and 0 rows"
            raise SourceError("source", found, "rows of numbers (header=False: it is one)")
    width = Counter(map(len, rows)).most_common(1)[0][0]
    if not header and comment and given is None:
        words = next(iter(_split([comment], delimiter)), [])
        if len(words) == width and all(_number(word) is None for word in words):
            names = [word.strip() for word in words]
    if names and len(names) == width - 1:
        # A delimiter ends each row; or, as R has it, the column of row names has none itself.
        ended = all(not row[-1].strip() for row in rows if len(row) == width)
        names = [*names, ""] if ended else ["", *names]
    if names and len(names) != width:
        line = "its header" if header else "the comment before its rows"
        raise SourceError("source", f"{len(names)} names in {line} of {name}", f"{width}")
    kinds = [_kind([row[i] for row in rows if len(row) == width]) for i in range(width)]
    if names and kinds[0] == NUMBER and _is_index(names[0], [row[0] for row in rows]):
        kinds[0] = "an index"
    columns = [Column(names[i] if names else i, kinds[i]) for i in range(width)]
    notes = (f"{name}: {note}",) if note else ()
    return _Layout(delimiter, header, columns, notes)


def _delimiter(head: list[str], options: Options) -> str | None:
    """What parts the cells: as given, or what parts nearly all lines into as many."""
    given = options.get("delimiter")
    if given is not None:
        given = _NAMED.get(given, given) if isinstance(given, str) else given
        wrong = not isinstance(given, str) or len(given) != 1 or given.isalnum()
        if wrong or given in "\"'.+-\r\n":
            needed = "one character that is in no number, or 'tab'"
            raise ArgumentError("delimiter", repr(given), needed)
        return None if given == " " else given
    lines = [_QUOTED.sub("x", line) for line in head[:100]]
    for mark in "\t;|":  # never in a number; a comma may be, as some write them
        times, often = Counter(line.count(mark) for line in lines).most_common(1)[0]
        if times > 0 and often >= 0.8 * len(lines):
            return mark
    if sum("," in line for line in lines) >= 0.8 * len(lines):
        return ","
    spaced = sum(len(line.split()) > 1 for line in lines) >= 0.8 * len(lines)
    return None if spaced else ","


def _split(lines: Iterable[str], delimiter: str | None) -> Iterator[list[str]]:
    if delimiter is None:
        lines = (" ".join(line.split()) for line in lines)
        delimiter = " "
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True)


def _number(cell: str) -> float | None:
    """A cell as a number, what is missing as NaN; None where it is neither."""
    text = cell.strip()
    known = _WORDS.get(text.casefold())
    if known is not None:
        return known
    try:
        return None if "_" in text else float(text)  # Python reads 1_000, as its own source
    except ValueError:
        return None


def _header(rows: list[list[str]]) -> tuple[bool, str]:
    """Whether the first row names the columns, and what to say of it."""
    first, rest = rows[0], rows[1:]
    values = [_number(cell) for cell in first]
    if not rest:
        return all(value is None for value in values), ""
    shift = len(rest[0]) - len(first)  # R writes no name for its row names
    if shift not in (0, 1):
        shift = 0
    words = [i for i, value in enumerate(values) if value is None and not _grouped(first[i])]
    below = [[row[i + shift] for row in rest if len(row) > i + shift] for i in range(len(first))]
    if any(_kind(below[i]) == NUMBER for i in words):
        return True, ""
    # pandas' own: no name for the index, and columns without names are counted.
    corner = not first[0].strip() and all(cell.strip() for cell in below[0])
    if corner and len(first) > 1:
        return True, ""
    counted = [cell.strip() for cell in first] == [str(i) for i in range(len(first))]
    fractions = any("." in cell or "e" in cell.lower() for row in rest for cell in row)
    if counted and len(first) > 1 and (fractions or len(first) >= 8):
        return True, "its first row, 0, 1, ..., is taken for names (header=False: it is data)"
    if words and len(words) < len(first):
        return False, "its first row is taken for data (header=True: it is names)"
    return bool(words), ""


def _grouped(cell: str) -> bool:
    return _GROUPED.fullmatch(cell.strip()) is not None


def _kind(cells: Sequence[str]) -> str:
    """What a column holds, by its first cells; a word among numbers is found when it is read."""
    values = [_number(cell) for cell in cells]
    numbers = any(value is not None and value == value for value in values)
    words = [cell for cell, value in zip(cells, values, strict=True) if value is None]
    if numbers or (words and all(map(_grouped, words))):
        return NUMBER
    return "text" if words else "nothing"


def _is_index(name: str, cells: Sequence[str]) -> bool:
    """Whether a first column of numbers is what pandas and R write for their index."""
    return name == "" or (name == "Unnamed: 0" and all(cell.strip().isdecimal() for cell in cells))


# --- the numbers ------------------------------------------------------------------------------


def _numbers(
    lines: _Lines, layout: _Layout, chosen: Sequence[int], name: str
) -> tuple[NDArray[np.float64], bool]:
    """The chosen columns of all rows, and whether they are in memory."""
    parts: list[NDArray[np.float64]] = []
    count, file = 0, None
    try:
        for block in _blocks(lines, layout, chosen, name):
            count += len(block)
            if file is None:
                parts.append(block)
                if sum(part.nbytes for part in parts) > _HELD_BYTES:
                    file = tempfile.TemporaryFile(prefix="shoal-")  # noqa: SIM115
                    for part in parts:
                        part.tofile(file)
                    parts = []
            else:
                block.tofile(file)
        if file is None:
            return np.concatenate(parts), True
        file.flush()
        mapped = np.memmap(file, np.float64, mode="r+", shape=(count, len(chosen)))
        return mapped, False
    finally:
        if file is not None:
            file.close()  # the map keeps it


def _blocks(
    lines: _Lines, layout: _Layout, chosen: Sequence[int], name: str
) -> Iterator[NDArray[np.float64]]:
    width = len(layout.columns)
    rows = _split(lines, layout.delimiter)
    if layout.header:
        next(rows)
    pick = itemgetter(*chosen)
    size = max(1, _CELLS // width)
    while True:
        block: list[list[str]] = []
        numbers: list[int] = []  # of the lines
        try:
            for row in islice(rows, size):
                if len(row) != width:
                    raise SourceError(
                        "source",
                        f"{len(row)} cells in line {lines.number} of {name}",
                        f"{width}, as in its other lines",
                    )
                block.append(row)
                numbers.append(lines.number)
        except csv.Error as error:
            found = f"line {lines.number} of {name}, which can't be read ({error})"
            raise SourceError("source", found, "cells that are short") from error
        if not block:
            return
        if len(chosen) == 1:
            cells = [row[chosen[0]] for row in block]
        else:
            cells = [cell for row in block for cell in pick(row)]
        try:
            if "_" in "".join(cells):
                raise ValueError
            flat = np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:
            flat = _with_care(block, numbers, layout, chosen, name)
        yield flat.reshape(len(block), len(chosen))


def _with_care(
    block: list[list[str]],
    numbers: list[int],
    layout: _Layout,
    chosen: Sequence[int],
    name: str,
) -> NDArray[np.float64]:
    """The numbers of a block that has something else among them."""
    out = np.empty((len(block), len(chosen)))
    for i, (row, line) in enumerate(zip(block, numbers, strict=True)):
        for j, column in enumerate(chosen):
            value = _number(row[column])
            if value is None:
                cell = row[column].strip()
                called = clipped([layout.columns[column].name])
                found = f"{cell[:40]!r} in line {line}, column {called} of {name}"
                needed = "a number, or drop= for that column"
                if _grouped(cell):
                    needed = "a number with a decimal point, and without separators of thousands"
                raise SourceError("source", found, needed)
            out[i, j] = value
    return out.ravel()


READER = register(
    Reader(
        "a table as text",
        (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz"),
        ("key", "columns", "drop", "feature_shape", "delimiter", "header"),
        open=_open,
    )
)

"""Zarr arrays and groups, on disk and open ones, read by chunks.

Zarr sees no file of a folder itself: it is given descriptions that were judged, and chunks
whose size was (see `_zarr_format`), so nothing in a folder can run code, name another place
or take more memory than its description says.
"""

from __future__ import annotations

import json
import math
import os
import warnings
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import ChunkSource, Source, float_dtype
from shoal.data.readers._base import (
    PIECE_ROWS,
    TRUTH_KEYS,
    Options,
    Reader,
    as_rows,
    check_regular,
    choose_key,
    open_regular,
    reading,
    register,
    require,
    truth_beside,
)
from shoal.data.readers._limits import check_room
from shoal.data.readers._zarr_format import (
    METADATA_BYTES,
    NEEDED,
    Layout,
    check_chunk,
    judge,
    most_bytes,
)
from shoal.vocabulary import ArgumentError, SourceError, check_choice

_MARKS = ("zarr.json", ".zarray", ".zgroup")

# Pieces of one array. Arbitrary; a list of so many lengths takes a second and 400 MB.
_MOST_PIECES = 10**7

Fetch = Callable[[str], Awaitable[bytes | None]]


def _is_folder(path: Path) -> bool:
    return path.suffix.lower() == ".zarr" or any((path / mark).exists() for mark in _MARKS)


# --- folders ----------------------------------------------------------------------------------


def _inside(path: Path, root: Path, name: str) -> Path:
    """`path`, refused where it is a link that leads out of `root`."""
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        raise SourceError(
            "source",
            f"{path.name} in {name}, a link to another place",
            "its files themselves: copy the folder with cp -L",
        )
    return path


def _description(folder: Path, root: Path, name: str) -> tuple[bool, bytes] | None:
    """Whether a folder is an array, and its description; None where it is neither."""
    for mark in _MARKS:
        path = _inside(folder / mark, root, name)
        if not path.exists():
            continue
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > METADATA_BYTES:
                found = f"{mark} of {size} bytes in {name}"
                raise SourceError("source", found, f"at most {METADATA_BYTES} bytes")
            raw = file.read(size)
        with reading(name, NEEDED):
            described = json.loads(raw)
            if not isinstance(described, dict):
                raise ValueError(f"{mark} is no JSON object")
        group = mark == ".zgroup" or described.get("node_type") == "group"
        return not group, raw
    return None


def _sizes(folder: Path, root: Path, layout: Layout, name: str) -> dict[str, int]:
    """The chunks that are there, and their sizes in bytes; each a regular file of the array."""
    sizes: dict[str, int] = {}
    most, waiting = most_bytes(layout.packing, layout.chunks), [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                path = _inside(Path(entry.path), root, name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                    continue
                state = path.stat()
                check_regular(state.st_mode, f"{entry.name} in {name}")
                key = path.relative_to(folder).as_posix()
                place = layout.parse(key)
                if place is None:
                    continue
                if any(at >= n for at, n in zip(place, layout.grid, strict=True)):
                    raise SourceError(
                        "source",
                        f"{name} of shape {layout.shape} with a chunk {key}, which lies outside",
                        "the shape that was written",
                    )
                if state.st_size > most:
                    raise SourceError(
                        "source",
                        f"the chunk {key} of {name} with {state.st_size} bytes",
                        f"at most {most}, for {layout.chunks} numbers of {layout.dtype}",
                    )
                sizes[key] = state.st_size
    return sizes


def _missing(key: str, name: str) -> SourceError:
    return SourceError(
        "source",
        f"{name} without its chunk {key}: lost, or left out as it holds the fill value alone",
        "all chunks (Zarr writes those too with write_empty_chunks=True), or missing='fill' to "
        "read the fill value",
    )


class _Stored:
    """An array in a folder, judged; nothing of it has been read but its description."""

    def __init__(self, folder: Path, root: Path, raw: bytes, name: str) -> None:
        self.folder, self.root, self.name = folder, root, name
        self.layout = judge(raw, name)

    def rows(self, missing: bool) -> _Rows:
        with reading(self.name, NEEDED):
            sizes = _sizes(self.folder, self.root, self.layout, self.name)
        if not missing and len(sizes) < math.prod(self.layout.grid):
            lost = next(
                key for key in self.layout.keys(0, self.layout.shape[0]) if key not in sizes
            )
            raise _missing(lost, self.name)
        most = most_bytes(self.layout.packing, self.layout.chunks)

        async def fetch(key: str) -> bytes | None:
            if key not in sizes:
                return None
            with open_regular(self.folder / key) as file:
                return file.read(most + 1)

        return _Rows(self.layout, fetch, self.name, missing, sizes)


# --- what Zarr reads ------------------------------------------------------------------------


@cache
def _store_type() -> type:
    """A store that gives one description and judged chunks. Made when Zarr is there."""
    from zarr.abc.store import Store

    class Judged(Store):
        supports_writes = False
        supports_deletes = False
        supports_listing = False
        supports_partial_writes = False  # asked for by Zarr 3.0

        def __init__(self, documents: Mapping[str, bytes], fetch: Fetch) -> None:
            super().__init__(read_only=True)
            self._documents, self._fetch = documents, fetch
            self._is_open = True

        def __eq__(self, other: object) -> bool:
            return self is other

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            raw = self._documents.get(key)
            if raw is None and not key.endswith(("zarr.json", ".zarray", ".zattrs", ".zgroup")):
                raw = await self._fetch(key)
            if raw is None:
                return None
            return prototype.buffer.from_bytes(raw[_range(byte_range, len(raw))])

        async def get_partial_values(self, prototype: Any, key_ranges: Any) -> list[Any]:
            return [await self.get(key, prototype, part) for key, part in key_ranges]

        async def exists(self, key: str) -> bool:
            return key in self._documents

        async def set(self, key: str, value: Any) -> None:
            raise NotImplementedError

        async def set_partial_values(self, key_start_values: Any) -> None:
            raise NotImplementedError

        async def delete(self, key: str) -> None:
            raise NotImplementedError

        async def list(self) -> AsyncIterator[str]:
            for key in self._documents:
                yield key

        async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
            for key in self._documents:
                yield key

        async def list_dir(self, prefix: str) -> AsyncIterator[str]:
            for key in self._documents:
                yield key

    return Judged


def _range(part: Any, size: int) -> slice:
    if part is None:
        return slice(None)
    if hasattr(part, "suffix"):
        return slice(max(0, size - part.suffix), size)
    if hasattr(part, "offset"):
        return slice(part.offset, size)
    return slice(part.start, part.end)


class _Rows:
    """The numbers of a judged array, as rows."""

    def __init__(
        self,
        layout: Layout,
        fetch: Fetch,
        name: str,
        missing: bool,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.layout, self._fetch, self._name = layout, fetch, name
        self._missing, self._sizes = missing, sizes
        document = "zarr.json" if layout.described["zarr_format"] == 3 else ".zarray"
        store = _store_type()({document: json.dumps(layout.described).encode()}, self._judged)
        zarr = require("zarr", name, "zarr")
        with reading(name, NEEDED), warnings.catch_warnings():
            # That some codecs are numcodecs' own, not in the specification of version 3.
            warnings.simplefilter("ignore")
            self._array = zarr.open_array(
                store=store, mode="r", zarr_format=layout.described["zarr_format"]
            )

    async def _judged(self, key: str) -> bytes | None:
        raw = await self._fetch(key)
        if raw is None:
            if self._missing:
                return None
            raise _missing(key, self._name)
        try:
            layout, place = self.layout, self.layout.parse(key) or ()
            first = [at * side for at, side in zip(place, layout.chunks, strict=True)]
            inside = tuple(side - at for side, at in zip(layout.shape, first, strict=True))
            check_chunk(raw, layout.packing, layout.chunks, inside, self._missing)
        except (ValueError, EOFError, OSError, ArithmeticError, zlib.error) as error:
            raise ValueError(f"the chunk {key}: {error}") from error
        return raw

    def __call__(self, first: int, stop: int) -> NDArray:
        """Rows `first` to `stop`; whole chunks."""
        layout = self.layout
        n_samples, *sides = layout.shape
        number = stop - first
        packed = None
        if self._sizes is not None:
            packed = sum(self._sizes.get(key, 2**20) for key in layout.keys(first, stop))
        check_room(
            f"{number} rows of {self._name}",
            number * math.prod(layout.padded[1:]) * layout.dtype.itemsize,
            packed,
        )
        with reading(self._name, "a complete Zarr array"):
            block = np.asarray(self._array[first:stop])
        rows = min(stop, n_samples) - first
        if block.shape != (min(stop, layout.padded[0]) - first, *layout.padded[1:]):
            found = f"{self._name}, which gave {block.shape} numbers from row {first} on"
            raise SourceError("source", found, f"{number} rows")
        beyond = [block[rows:]]
        for axis, side in enumerate(sides, 1):
            beyond.append(block[:rows][(slice(None),) * axis + (slice(side, None),)])
        self._check_beyond(*beyond)
        inside = block[(slice(rows), *map(slice, sides))]
        return inside.reshape(rows, math.prod(sides))

    def _check_beyond(self, *parts: NDArray) -> None:
        """Numbers beyond the shape, in its last chunks: the shape was another once."""
        fill = self.layout.fill
        if fill is None or all(self._empty(part, fill) for part in parts):
            return
        raise SourceError(
            "source",
            f"{self._name} of shape {self.layout.shape}, whose chunks hold numbers beyond it",
            "the shape that was written; what was made smaller has to be written anew",
        )

    def _empty(self, part: NDArray, fill: float) -> bool:
        if np.isnan(fill):
            return bool((np.isnan(part) | (part == 0)).all())
        return bool(((part == np.asarray(fill).astype(part.dtype)) | (part == 0)).all())

    def whole(self) -> NDArray:
        return self(0, self.layout.padded[0])

    def source(self, name: str, **named: Any) -> Source:
        """Read in runs of whole chunks."""
        (n_samples, n_features), of_a_row = as_rows(self.layout.shape, name)
        named["feature_shape"] = named.get("feature_shape") or of_a_row
        chunk = self.layout.chunks[0]
        run = chunk * max(1, PIECE_ROWS // chunk)
        if n_samples > run * _MOST_PIECES:
            found = f"{name} of {n_samples} rows in chunks of {chunk}"
            raise SourceError("source", found, f"larger chunks: at most {_MOST_PIECES} pieces")
        starts = range(0, n_samples, run)

        def piece(i: int) -> Iterator[NDArray]:
            yield self(starts[i], starts[i] + run)

        lengths = [min(run, n_samples - at) for at in starts]
        return ChunkSource(piece, lengths, n_features, self.layout.dtype, name=name, **named)


# --- the reader -----------------------------------------------------------------------------


def _fills(options: Options) -> bool:
    return check_choice("missing", options.get("missing", "refuse"), ["refuse", "fill"]) == "fill"


def _open(path: Path, options: Options) -> Source:
    require("zarr", path.name, "zarr")
    name, root, missing = path.name, path.resolve(), _fills(options)
    with reading(name, "a folder with a Zarr array, or a group of arrays"):
        if not path.is_dir():
            raise NotADirectoryError("it is a file")
        described = _description(path, root, name)
        if described is None:
            raise FileNotFoundError(f"no {', '.join(_MARKS)} in it")
    is_array, raw = described
    key, feature_shape = options.get("key"), options.get("feature_shape")
    if is_array:
        if key is not None:
            raise ArgumentError("key", repr(key), f"to be left out: {name} is one array")
        stored = _Stored(path, root, raw, name)
        as_rows(stored.layout.shape, name)
        return _checked(stored, missing, name, feature_shape=feature_shape)
    arrays, groups = {}, []
    with reading(name, "a Zarr group of arrays"):
        for entry in sorted(os.listdir(path)):
            part = _inside(path / entry, root, name)
            if entry.startswith(".") or not part.is_dir():
                continue
            described = _description(part, root, f"{entry} in {name}")
            if described is None:  # lost: another array would be taken for the data
                raise FileNotFoundError(f"no {', '.join(_MARKS)} in its folder {entry}")
            is_array, raw = described
            if is_array:  # all are judged, those too that nobody will read
                arrays[entry] = _Stored(part, root, raw, f"{entry} in {name}")
            else:
                groups.append(entry)
    shapes = {word: stored.layout.shape for word, stored in arrays.items()}
    chosen = choose_key(shapes, key, name)
    if key is None and chosen in TRUTH_KEYS and groups:
        found = f"{name} that holds {chosen}, and groups {', '.join(groups)}"
        raise SourceError("source", found, f"an array named data, or key={chosen!r}")
    as_rows(shapes[chosen], f"{chosen} in {name}")
    truth = truth_beside(lambda word: arrays[word].rows(missing).whole(), shapes, chosen, name)
    return _checked(arrays[chosen], missing, name, truth=truth, feature_shape=feature_shape)


def _checked(stored: _Stored, missing: bool, name: str, **named: Any) -> Source:
    float_dtype(stored.layout.dtype, "source", name)
    if 0 in stored.layout.shape:  # nothing to read; let the source refuse it by its shape
        (_, n_features), _ = as_rows(stored.layout.shape, name)
        return ChunkSource(lambda i: iter(()), [0], n_features, "f4", name=name)
    return stored.rows(missing).source(name, **named)


def _is_open(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "zarr" and hasattr(value, "chunks")


def _open_object(value: Any, options: Options) -> Source:
    from zarr.core.buffer import default_buffer_prototype

    prototype = default_buffer_prototype()
    as_rows(value.shape, "array")
    with reading("array", NEEDED):
        documents = value.metadata.to_buffer_dict(prototype)
        document = next(word for word in ("zarr.json", ".zarray") if word in documents)
        raw = documents[document].to_bytes()
    layout, place = judge(raw, "array"), value.store_path
    prefix = f"{place.path}/" if place.path else ""
    most = most_bytes(layout.packing, layout.chunks)

    async def fetch(key: str) -> bytes | None:
        chunk = await place.store.get(f"{prefix}{key}", prototype)
        if chunk is None:
            return None
        if len(chunk) > most:
            raise ValueError(f"the chunk {key} with {len(chunk)} bytes; at most {most}")
        return bytes(chunk.to_bytes())

    rows = _Rows(layout, fetch, "array", _fills(options))
    return rows.source("array", argument="data", feature_shape=options.get("feature_shape"))


READER = register(
    Reader(
        "a Zarr array or group",
        (".zarr",),
        ("key", "feature_shape", "missing"),
        open=_open,
        folder=_is_folder,
        holds=_is_open,
        open_object=_open_object,
    )
)

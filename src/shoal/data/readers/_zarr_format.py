"""What a Zarr array's own description says, judged before Zarr sees it.

To construct a codec from a file's words may already run code, and to decode a chunk may run
more (`pickle`) or take any memory. So the description is read here as plain JSON, only a
short list of codecs is let through, and each chunk's packed size is compared with what the
description says that it unpacks to. Written after the specifications of Zarr, versions 2
and 3 (https://zarr-specs.readthedocs.io).
"""

from __future__ import annotations

import bz2
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from shoal.data.readers._base import reading
from shoal.vocabulary import SourceError, printable

# Of a description, with its attributes. Arbitrary.
METADATA_BYTES = 2**22

NEEDED = "a Zarr array of plain numbers"

_NUMBERS = re.compile(r"[<>|]?[biuf](1|2|4|8|16)")  # NumPy's names of types, as version 2 writes
_NAMED = {
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)),
}

# --- codecs ---------------------------------------------------------------------------------

# Each codec's own words; values are numbers, or one of the words that `_plain` knows.
_PACKERS = {
    "blosc": {"cname", "clevel", "shuffle", "blocksize", "typesize"},
    "zstd": {"level", "checksum"},
    "gzip": {"level"},
    "zlib": {"level"},
    "bz2": {"level"},
    "lz4": {"acceleration"},
}
_CHECKSUMS = {
    "crc32": {"location"},
    "crc32c": {"location"},
    "adler32": {"location"},
    "fletcher32": set[str](),
}
_ORDERS = {"shuffle": {"elementsize"}}
_NUMERIC = {
    "delta": {"dtype", "astype"},
    "fixedscaleoffset": {"dtype", "astype", "scale", "offset"},
    "quantize": {"dtype", "astype", "digits"},
    "bitround": {"keepbits"},
    "astype": {"encode_dtype", "decode_dtype"},
}
_CODECS: dict[str, set[str]] = {**_PACKERS, **_CHECKSUMS, **_ORDERS, **_NUMERIC}
_WORDS = {
    "blosclz", "lz4", "lz4hc", "zlib", "zstd",
    "shuffle", "noshuffle", "bitshuffle", "autoshuffle", "start", "end",
}  # fmt: skip


class Shard(NamedTuple):
    """A file that holds several chunks, with an index of where they lie."""

    chunks: tuple[int, ...]
    at_end: bool
    little: bool
    checked: bool  # a crc32c follows the index
    inner: Packing


class Packing(NamedTuple):
    """How the numbers of one chunk became bytes."""

    itemsize: int  # of a number as it is packed
    before: int  # bytes of the checksums inside the packer
    packer: str | None
    after: int  # bytes of those around it
    front: int  # how many of the latter lie in front
    changed: bool  # numbers were changed first, so that a fill value may come back as another
    shard: Shard | None = None


class Layout(NamedTuple):
    """An array's description, judged."""

    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]  # of one file
    packing: Packing
    key: Callable[[tuple[int, ...]], str]
    parse: Callable[[str], tuple[int, ...] | None]
    fill: float | None  # None: not known, or not found again behind the codecs
    described: dict[str, Any]  # for Zarr, with a shape of whole chunks

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks along each axis."""
        return tuple(-(-side // chunk) for side, chunk in zip(self.shape, self.chunks, strict=True))

    @property
    def padded(self) -> tuple[int, ...]:
        """The shape of whole chunks."""
        return tuple(n * chunk for n, chunk in zip(self.grid, self.chunks, strict=True))

    def keys(self, first: int, stop: int) -> Iterator[str]:
        """The names of the chunks that hold rows `first` to `stop`."""
        # Not by itertools.product, which first lists the ranges: a shape may be any number.
        beside = math.prod(self.grid[1:])
        first, stop = first // self.chunks[0], -(-stop // self.chunks[0])
        for number in range(first * beside, stop * beside):
            place: list[int] = []
            for side in reversed(self.grid[1:]):
                number, at = divmod(number, side)
                place.insert(0, at)
            yield self.key((number, *place))


def judge(raw: bytes, name: str) -> Layout:
    """The layout that a `zarr.json` or `.zarray` describes; `name` says of what.

    Raises
    ------
    SourceError
        If it isn't of plain numbers, or packed by a codec outside the list.
    """
    with reading(name, NEEDED):
        described = json.loads(raw)
        if not isinstance(described, dict):
            raise ValueError("its description is no JSON object")
        version = described.get("zarr_format")
        if version == 2:
            return _judge_2(described, name)
        if version == 3:
            return _judge_3(described, name)
    raise SourceError("source", f"{name} of Zarr format {version!r}", "format 2 or 3")


def refuse(name: str, found: str) -> SourceError:
    """The error for what could run code, or that nothing here can judge."""
    listed = ", ".join(_CODECS)
    needed = f"plain numbers, packed by {listed} or sharding: open one good array by its own path"
    return SourceError("source", f"{name} with {printable(found, 100)}", needed)


def _sides(value: Any, name: str, low: int) -> tuple[int, ...]:
    good = isinstance(value, list) and all(type(side) is int and side >= low for side in value)
    if not good or len(value) > 32 or any(side >= 2**62 for side in value):
        raise refuse(name, f"the shape {value!r}")
    return tuple(value)


def _number_type(value: Any, name: str, named: bool = False) -> np.dtype:
    good = isinstance(value, str) and (_NUMBERS.fullmatch(value) or value in _NAMED)
    if named:
        good = isinstance(value, str) and value in _NAMED
    if not good:
        raise refuse(name, f"numbers of type {value!r}")
    return np.dtype(value)


def _fill(value: Any, name: str) -> float | None:
    words = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}
    if isinstance(value, str) and value in words:
        return float(words[value])
    if isinstance(value, str) and re.fullmatch(r"0x[0-9a-fA-F]{1,32}", value):
        return None  # the bits of a NaN
    if value is None or isinstance(value, (bool, int, float)):
        return None if value is None else float(value)
    raise refuse(name, f"the fill value {value!r}")


def _chunks(value: Any, shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    chunks = _sides(value, name, 1)
    if len(chunks) != len(shape):
        raise refuse(name, f"chunks {chunks} of a shape {shape}")
    return chunks


def _words(codec: str, given: Any, name: str) -> dict[str, Any]:
    """A codec's own options, each of a name and kind that is known."""
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise refuse(name, f"{codec} of {given!r}")
    for word, value in given.items():
        if word not in _CODECS[codec]:
            raise refuse(name, f"{word!r} for {codec}")
        if word in ("dtype", "astype", "encode_dtype", "decode_dtype"):
            if value is not None:
                _number_type(value, f"{name}, whose {codec}")
        elif not (value is None or isinstance(value, (bool, int, float)) or value in _WORDS):
            raise refuse(name, f"{word}={value!r} for {codec}")
    return given


class _Chain:
    """The codecs so far, in the order in which they packed."""

    def __init__(self, itemsize: int, name: str) -> None:
        self.itemsize, self.name = itemsize, name
        self.packer: str | None = None
        self.before, self.after, self.front = 0, 0, 0
        self.changed = False

    def add(self, codec: Any, given: Any) -> None:
        if not isinstance(codec, str) or codec not in _CODECS:
            raise refuse(self.name, f"the codec {codec!r}")
        words = _words(codec, given, self.name)
        if codec in _NUMERIC:
            if self.packer or self.before:
                raise refuse(self.name, f"{codec} behind a packer")
            self.changed = True
            kind = words.get("encode_dtype", words.get("astype", words.get("dtype")))
            self.itemsize = self.itemsize if kind is None else np.dtype(kind).itemsize
        elif codec in _PACKERS:
            if self.packer:  # what lies between two isn't known, so it could be of any size
                raise refuse(self.name, f"two packers, {self.packer} and {codec}")
            self.packer = codec
        elif codec in _CHECKSUMS and self.packer is None:
            self.before += 4
        elif codec in _CHECKSUMS:
            self.after += 4
            ends = "start" if codec in ("crc32", "adler32") else "end"
            self.front += 4 * (words.get("location", ends) == "start")

    def packing(self, shard: Shard | None = None) -> Packing:
        changed = self.changed or (shard is not None and shard.inner.changed)
        return Packing(
            self.itemsize, self.before, self.packer, self.after, self.front, changed, shard
        )


# --- version 2 --------------------------------------------------------------------------------


def _judge_2(described: dict[str, Any], name: str) -> Layout:
    shape = _sides(described.get("shape"), name, 0)
    chunks = _chunks(described.get("chunks"), shape, name)
    dtype = _number_type(described.get("dtype"), name)
    if described.get("order") not in ("C", "F"):
        raise refuse(name, f"the order {described.get('order')!r}")
    separator = described.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise refuse(name, f"the separator {separator!r}")
    filters, compressor = described.get("filters"), described.get("compressor")
    if not (filters is None or isinstance(filters, list)):
        raise refuse(name, f"the filters {filters!r}")
    chain = _Chain(dtype.itemsize, name)
    for entry in [*(filters or []), *([] if compressor is None else [compressor])]:
        if not isinstance(entry, dict):
            raise refuse(name, f"the codec {entry!r}")
        chain.add(entry.get("id"), {word: entry[word] for word in entry if word != "id"})
    fill = _fill(described.get("fill_value"), name)
    kept = ("zarr_format", "shape", "chunks", "dtype", "order", "filters", "compressor")
    clean = {word: described.get(word) for word in kept}
    clean |= {"fill_value": described.get("fill_value"), "dimension_separator": separator}
    layout = _layout(shape, dtype, chunks, chain.packing(), "", separator, fill, clean)
    return layout._replace(described=clean | {"shape": list(layout.padded)})


def _layout(
    shape: tuple[int, ...],
    dtype: np.dtype,
    chunks: tuple[int, ...],
    packing: Packing,
    prefix: str,
    separator: str,
    fill: float | None,
    described: dict[str, Any],
) -> Layout:
    one = r"(0|[1-9][0-9]*)"
    pattern = re.compile(re.escape(prefix) + re.escape(separator).join([one] * len(shape)))

    def key(place: tuple[int, ...]) -> str:
        return prefix + separator.join(map(str, place))

    def parse(text: str) -> tuple[int, ...] | None:
        found = pattern.fullmatch(text)
        return None if found is None else tuple(map(int, found.groups()))

    fill = None if packing.changed else fill
    return Layout(shape, dtype, chunks, packing, key, parse, fill, described)


# --- version 3 --------------------------------------------------------------------------------


def _named(entry: Any, name: str) -> tuple[str, dict[str, Any]]:
    """A part of version 3: a name and its configuration."""
    if isinstance(entry, str):
        return entry, {}
    if not isinstance(entry, dict) or set(entry) - {"name", "configuration", "must_understand"}:
        raise refuse(name, f"the part {entry!r}")
    word, given = entry.get("name"), entry.get("configuration") or {}
    if not isinstance(word, str) or not isinstance(given, dict):
        raise refuse(name, f"the part {entry!r}")
    return word, given


def _judge_3(described: dict[str, Any], name: str) -> Layout:
    shape = _sides(described.get("shape"), name, 0)
    dtype = _number_type(described.get("data_type"), name, named=True)
    grid, given = _named(described.get("chunk_grid"), name)
    if described.get("node_type") != "array" or grid != "regular":
        raise refuse(name, f"the chunk grid {grid!r}")
    chunks = _chunks(given.get("chunk_shape"), shape, name)
    encoding, given = _named(described.get("chunk_key_encoding"), name)
    separator = given.get("separator", "." if encoding == "v2" else "/")
    if encoding not in ("default", "v2") or separator not in (".", "/"):
        raise refuse(name, f"the chunk keys {encoding!r}, {separator!r}")
    if described.get("storage_transformers"):
        raise refuse(name, "storage transformers")
    packing = _packing_3(described.get("codecs"), dtype, chunks, name)
    fill = _fill(described.get("fill_value"), name)
    kept = ("zarr_format", "node_type", "data_type", "chunk_grid", "chunk_key_encoding", "codecs")
    clean = {word: described[word] for word in kept}
    clean |= {"fill_value": described.get("fill_value"), "attributes": {}}
    prefix = f"c{separator}" if encoding == "default" else ""
    layout = _layout(shape, dtype, chunks, packing, prefix, separator, fill, clean)
    return layout._replace(described=clean | {"shape": list(layout.padded)})


def _packing_3(
    codecs: Any, dtype: np.dtype, chunks: tuple[int, ...], name: str, depth: int = 0
) -> Packing:
    if not isinstance(codecs, list) or depth > 4:
        raise refuse(name, f"the codecs {codecs!r}")
    chain, flat, shard = _Chain(dtype.itemsize, name), False, None
    for entry in codecs:
        codec, given = _named(entry, name)
        if codec == "transpose" and not flat:
            if sorted(_sides(given.get("order"), name, 0)) != list(range(len(chunks))):
                raise refuse(name, f"transpose of {given!r}")
        elif codec in ("bytes", "endian") and not flat:
            if set(given) - {"endian"} or given.get("endian") not in (None, "little", "big"):
                raise refuse(name, f"bytes of {given!r}")
            flat = True
        elif codec == "sharding_indexed" and not flat:
            shard, flat = _shard(given, dtype, chunks, name, depth), True
        else:
            word = codec.removeprefix("numcodecs.")
            if (word in _NUMERIC) == flat:
                raise refuse(name, f"the codec {codec!r} in that place")
            chain.add(word, given)
    if not flat or (shard and (chain.packer or chain.before or chain.itemsize != dtype.itemsize)):
        raise refuse(name, f"the codecs {codecs!r}")
    return chain.packing(shard)


def _shard(
    given: dict[str, Any], dtype: np.dtype, chunks: tuple[int, ...], name: str, depth: int
) -> Shard:
    inner = _chunks(given.get("chunk_shape"), chunks, name)
    if any(outer % side for outer, side in zip(chunks, inner, strict=True)):
        raise refuse(name, f"chunks {inner} in shards {chunks}")
    known = {"chunk_shape", "codecs", "index_codecs", "index_location"}
    location = given.get("index_location", "end")
    if set(given) - known or location not in ("start", "end"):
        raise refuse(name, f"sharding of {given!r}")
    index = [_named(entry, name) for entry in given.get("index_codecs") or []]
    words = [word for word, _ in index]
    endian = index[0][1].get("endian", "little") if index else None
    plain = words in (["bytes"], ["bytes", "crc32c"]) and endian in ("little", "big")
    if not plain or set(index[0][1]) - {"endian"} or any(more for _, more in index[1:]):
        raise refuse(name, f"the codecs {words!r} of its shards' index")
    packing = _packing_3(given.get("codecs"), dtype, inner, name, depth + 1)
    return Shard(inner, location == "end", endian == "little", len(words) == 2, packing)


# --- chunks -----------------------------------------------------------------------------------


def most_bytes(packing: Packing, chunks: tuple[int, ...]) -> int:
    """What a chunk's file may hold at most: no packer doubles its input."""
    size = math.prod(chunks) * packing.itemsize + packing.before + packing.after
    if packing.shard is not None:
        number = math.prod(a // b for a, b in zip(chunks, packing.shard.chunks, strict=True))
        return size + number * (16 + most_bytes(packing.shard.inner, packing.shard.chunks))
    return size if packing.packer is None else 2 * size + 2**16


def check_chunk(
    raw: bytes | memoryview,
    packing: Packing,
    chunks: tuple[int, ...],
    inside: tuple[int, ...],
    missing: bool,
) -> None:
    """Refuse (by ValueError) a chunk that unpacks to more, or less, than it should.

    `inside` is what lies in the array's shape, from the chunk's first number on. `missing`
    says that a chunk left out of a shard stands for the fill value.
    """
    view = memoryview(raw)
    if packing.after:
        view = view[packing.front : len(view) - (packing.after - packing.front)]
    if packing.shard is not None:
        _check_shard(view, packing.shard, chunks, inside, missing)
        return
    size = math.prod(chunks) * packing.itemsize + packing.before
    found = len(view) if packing.packer is None else _SIZES[packing.packer](view, size)
    if found != size:
        raise ValueError(f"unpacks to {found} bytes where {size} are declared")


def _check_shard(
    view: memoryview,
    shard: Shard,
    outer: tuple[int, ...],
    inside: tuple[int, ...],
    missing: bool,
) -> None:
    grid = [a // b for a, b in zip(outer, shard.chunks, strict=True)]
    number, tail = math.prod(grid), 4 * shard.checked
    length = 16 * number + tail
    if len(view) < length:
        raise ValueError(f"a shard of {len(view)} bytes whose index takes {length}")
    table = view[len(view) - length :] if shard.at_end else view[:length]
    kind = "<u8" if shard.little else ">u8"
    index = np.frombuffer(table[: 16 * number], kind).reshape(number, 2)
    spent = length
    for place, (offset, size) in zip(product(*map(range, grid)), index.tolist(), strict=True):
        first = [at * side for at, side in zip(place, shard.chunks, strict=True)]
        left = tuple(all_ - at for all_, at in zip(inside, first, strict=True))
        if offset == size == 2**64 - 1:
            if not missing and min(left) > 0:  # beyond the shape there need be none
                raise ValueError(f"the chunk {place} of the shard isn't there")
            continue
        spent += size
        if offset + size > len(view) or spent > len(view):
            raise ValueError(f"the chunk {place} of the shard lies outside of it")
        check_chunk(view[offset : offset + size], shard.inner, shard.chunks, left, missing)


def _blosc_size(view: memoryview, size: int) -> int:
    """Blosc's header: four bytes, then the unpacked, the block's and the packed size."""
    if len(view) < 16:
        raise ValueError("a blosc chunk without its header")
    unpacked, block, packed = (int.from_bytes(view[at : at + 4], "little") for at in (4, 8, 12))
    if packed != len(view) or block > max(unpacked, 2**16):
        raise ValueError(f"a blosc chunk of {len(view)} bytes that says {packed}")
    return unpacked


def _lz4_size(view: memoryview, size: int) -> int:
    return int.from_bytes(view[:4], "little")


def _zstd_size(view: memoryview, size: int) -> int:
    """The sum over frames of their stated size; where not stated, what their blocks can give."""
    at = total = 0
    stated = True
    while at < len(view):
        magic = int.from_bytes(view[at : at + 4], "little")
        if magic >> 4 == 0x184D2A5:  # a frame to be skipped
            at += 8 + int.from_bytes(view[at + 4 : at + 8], "little")
            continue
        if magic != 0xFD2FB528 or at + 6 > len(view):
            raise ValueError("a zstd chunk that is none")
        flags = view[at + 4]
        single, kind = flags >> 5 & 1, flags >> 6
        at += 5 + (0 if single else 1) + (0, 1, 2, 4)[flags & 3]
        width = (single, 2, 4, 8)[kind]
        content = int.from_bytes(view[at : at + width], "little") + (256 if width == 2 else 0)
        at += width
        blocks, last = 0, False
        while not last:
            if at + 3 > len(view):
                raise ValueError("a zstd chunk that is cut off")
            head = int.from_bytes(view[at : at + 3], "little")
            last, block, length = bool(head & 1), head >> 1 & 3, head >> 3
            at += 3 + (1 if block == 1 else length)
            blocks += 2**17 if block == 2 else length
            if blocks > 2 * size + 2**24:
                raise ValueError("a zstd chunk that unpacks to far more than is declared")
        at += 4 * (flags >> 2 & 1)
        stated = stated and width > 0
        total += content if width else 0
    # Without a stated size the library's own count decides; it is bounded by the blocks.
    return total if stated else size


def _inflated(make: Callable[[], Any]) -> Callable[[memoryview, int], int]:
    """Count what a packer without a stated size gives, a piece at a time."""

    def count(view: memoryview, size: int) -> int:
        total, left = 0, bytes(view)
        while left:
            unpacker = make()
            while not unpacker.eof:
                piece = unpacker.decompress(left, 2**18)
                total += len(piece)
                left = getattr(unpacker, "unconsumed_tail", b"")
                if total > size:
                    raise ValueError(f"unpacks to more than the {size} bytes declared")
                if not piece and not left and not unpacker.eof:
                    raise ValueError("ends early")
            left = unpacker.unused_data
        return total

    return count


_SIZES: Mapping[str, Callable[[memoryview, int], int]] = {
    "blosc": _blosc_size,
    "lz4": _lz4_size,
    "zstd": _zstd_size,
    "gzip": _inflated(lambda: zlib.decompressobj(31)),
    "zlib": _inflated(zlib.decompressobj),
    "bz2": _inflated(bz2.BZ2Decompressor),
}

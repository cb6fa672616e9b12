"""TIFF files whose pixels are written plainly, read without a decoder's defaults.

Pillow turns 16-bit colour into 8 bits, has no mode for doubles, and no notion of an ImageJ
stack; and a decoder must hold a page whole. What needs no decoder is read here: grey and
RGB pages of whole numbers and floats, of either byte order, in strips or tiles, stored as
they are or deflated. Tags by TIFF 6.0 (1992); BigTIFF by its Adobe and libtiff note.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.vocabulary import SourceError

__all__ = ["Tiff", "TiffPage"]

# Bytes of one value of each type of a tag: BYTE, ASCII, SHORT, LONG, RATIONAL, ...
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
          16: 8, 17: 8, 18: 8}  # fmt: skip
_WHOLE = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_FILL, _DESCRIPTION, _OFFSETS, _ORIENTATION, _SAMPLES = 266, 270, 273, 274, 277
_ROWS, _COUNTS = 278, 279
_PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 284, 317, 322, 323, 324
_TILE_COUNTS, _EXTRA, _FORMAT = 325, 338, 339

_KEPT = (_DESCRIPTION, _OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS)

_STORED, _DEFLATED = (1,), (8, 32946)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_COLOURS = {_RGB: 3, 5: 4, 6: 3, 8: 3}  # 5: CMYK, 6: YCbCr, 8: L*a*b*; 1 of others
_KINDS = {1: "u", 2: "i", 3: "f"}  # of SampleFormat
_TYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")


class _Tag(NamedTuple):
    kind: int
    length: int
    value: bytes  # itself, or where it lies


@dataclass(frozen=True, slots=True)
class TiffPage:
    """One picture of a TIFF file, by its tags."""

    number: int  # of its directory in the file, from 0
    height: int
    width: int
    samples: int  # numbers a pixel
    bits: tuple[int, ...]  # of each of them
    kinds: tuple[str, ...]  # u, i or f; ? for another
    compression: int
    photometric: int
    planar: bool  # a plane for each sample, rather than all samples of a pixel together
    predictor: int
    reversed_bits: bool
    orientation: int  # in which corner, and which way, the rows begin; 1: as one reads
    subfile: int  # bit 0: a smaller copy of another page; bit 2: a mask
    extra: tuple[int, ...]  # what the samples beyond the colour are: 1, 2: alpha
    chunk: tuple[int, int]  # rows and columns of a strip or tile
    tiled: bool
    shift: int = 0  # bytes that its pixels lie behind what its tags say: pages of ImageJ
    tags: dict[int, _Tag] = field(default_factory=dict, repr=False, compare=False)

    @property
    def type(self) -> str | None:
        """NumPy's name of the type of all samples; None where it has none, or they differ."""
        if len(set(self.bits)) != 1 or len(set(self.kinds)) != 1:
            return None
        name = f"{self.kinds[0]}{self.bits[0] // 8}"
        return name if name in _TYPES and self.bits[0] % 8 == 0 else None

    @property
    def colours(self) -> int:
        """Samples of a pixel that are its colour."""
        return _COLOURS.get(self.photometric, 1)

    @property
    def plain(self) -> bool:
        """Whether `Tiff.rows` can read it."""
        return (
            self.type is not None
            and self.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
            and self.samples >= self.colours
            and (self.stored or self.deflated)
            and not self.reversed_bits
        )

    @property
    def stored(self) -> bool:
        """Whether nothing is packed."""
        return self.compression in _STORED

    @property
    def deflated(self) -> bool:
        """Whether it is packed in a way that `Tiff.rows` can unpack."""
        by_2 = self.predictor == 2 and self.type is not None and self.type[0] != "f"
        return self.compression in _DEFLATED and (self.predictor == 1 or by_2)

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels, unpacked."""
        return self.height * ((self.width * sum(self.bits[: self.samples]) + 7) // 8)

    @property
    def channels_left_out(self) -> int:
        """Samples that are neither colour nor alpha."""
        return max(self.samples - self.colours, 0) - sum(kind in (1, 2) for kind in self.extra)


class Tiff:
    """An open TIFF file.

    Parameters
    ----------
    file : binary file
        Open, at any place.
    name : str
        For messages.

    Raises
    ------
    SourceError
        If it doesn't start as a TIFF file does.
    """

    def __init__(self, file: Any, name: str) -> None:
        self._file, self.name = file, name
        self.size = os.fstat(file.fileno()).st_size
        head = self._bytes(0, min(16, self.size))
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = self._number(head[2:4]) if self.order else 0
        if version not in (42, 43) or len(head) < (8 if version == 42 else 16):
            raise SourceError("source", f"{name}, which isn't TIFF", "a TIFF file")
        self.big = version == 43
        self._first = self._number(head[8:16] if self.big else head[4:8])
        self._held: dict[int, NDArray] = {}
        self._held_of: TiffPage | None = None

    def _number(self, raw: bytes) -> int:
        return int.from_bytes(raw, "little" if self.order == "<" else "big")

    def _bytes(self, at: int, count: int) -> bytes:
        self._file.seek(at)
        raw: bytes = self._file.read(count)
        if len(raw) < count:
            raise SourceError("source", f"{self.name} cut off", "the complete file")
        return raw

    # --- the directory of pages -----------------------------------------------------------

    def pages(self) -> Iterator[TiffPage]:
        """The pages in order. A chain of pages that leads back into itself ends there."""
        seen: set[int] = set()
        at, number = self._first, 0
        while at and at not in seen:
            seen.add(at)
            tags, at = self._directory(at)
            page = self._page(number, tags)
            yield page
            if number == 0 and at == 0:
                yield from self._behind(page)
            number += 1

    def _directory(self, at: int) -> tuple[dict[int, _Tag], int]:
        head, entry, place = (8, 20, 8) if self.big else (2, 12, 4)
        if not 0 < at <= self.size - head:
            raise SourceError(
                "source", f"{self.name}, whose pages lie beyond its end", "the complete file"
            )
        count = self._number(self._bytes(at, head))
        # No writer comes near 4096 tags; a table of millions would be a trap.
        if count > 4096 or count * entry + place > self.size - at - head:
            raise SourceError("source", f"{self.name}, whose list of tags is cut off", "all of it")
        raw = self._bytes(at + head, count * entry + place)
        order, wide = self.order, "u8" if self.big else "u4"
        fields = np.dtype([("tag", f"{order}u2"), ("kind", f"{order}u2"),
                           ("count", order + wide), ("value", f"V{place}")])  # fmt: skip
        table = np.frombuffer(raw, fields, count)
        known = table[table["tag"] <= _FORMAT]
        tags = {
            int(tag): _Tag(int(kind), int(number), bytes(value))
            for tag, kind, number, value in known.tolist()
        }
        return tags, self._number(raw[count * entry :])

    def _values(self, tags: dict[int, _Tag], tag: int, most: int) -> NDArray | None:
        """The whole numbers of a tag, `most` at most; None where it isn't there."""
        if tag not in tags:
            return None
        kind, count, value = tags[tag]
        if kind not in _WHOLE or count == 0:
            raise SourceError("source", f"{self.name} with tag {tag} of type {kind}", "numbers")
        # What lies in the tag itself is judged by the whole count, not by `most`.
        inside = count * _SIZES[kind] <= len(value)
        count = min(count, most)
        raw = value if inside else self._bytes(self._number(value), count * _SIZES[kind])
        return np.frombuffer(raw, self.order + _WHOLE[kind], count)

    def _page(self, number: int, tags: dict[int, _Tag]) -> TiffPage:
        def one(tag: int, default: int) -> int:
            values = self._values(tags, tag, 1)
            return default if values is None else int(values[0])

        def several(tag: int, default: int, count: int) -> tuple[int, ...]:
            values = self._values(tags, tag, count)
            found = [default] if values is None else values.tolist()
            return tuple((found + found[-1:] * count)[:count])  # one number stands for all

        height, width, samples = one(_HEIGHT, 0), one(_WIDTH, 0), one(_SAMPLES, 1)
        if min(height, width, samples) < 1:
            found = f"{self.name} with a page of {height} x {width} pixels"
            raise SourceError("source", found, "at least one pixel")
        few = min(samples, 64)  # more are no picture, but a cube of spectra; one type for all
        tiled = _TILE_WIDTH in tags
        chunk = (min(one(_ROWS, height), height), width)
        if tiled:
            chunk = (one(_TILE_HEIGHT, 0), one(_TILE_WIDTH, 0))
        if min(chunk) < 1 or max(chunk) > 2**31:
            raise SourceError("source", f"{self.name} with strips of {chunk} pixels", "others")
        extra = self._values(tags, _EXTRA, few)
        return TiffPage(
            number,
            height,
            width,
            samples,
            bits=several(_BITS, 1, few),
            kinds=tuple(_KINDS.get(kind, "?") for kind in several(_FORMAT, 1, few)),
            compression=one(_COMPRESSION, 1),
            photometric=one(_PHOTOMETRIC, _BLACK_IS_ZERO),
            planar=one(_PLANAR, 1) == 2 and samples > 1,
            predictor=one(_PREDICTOR, 1),
            reversed_bits=one(_FILL, 1) == 2,
            orientation=one(_ORIENTATION, 1),
            subfile=one(_SUBFILE, 0),
            extra=() if extra is None else tuple(extra.tolist()),
            chunk=chunk,
            tiled=tiled,
            tags={tag: tags[tag] for tag in _KEPT if tag in tags},
        )  # fmt: skip

    def _behind(self, page: TiffPage) -> Iterator[TiffPage]:
        """The further pages of a stack of ImageJ: it writes one directory where the file is
        large, says how many pages there are, and puts their pixels behind those of the first.
        """
        text = page.tags.get(_DESCRIPTION)
        if text is None or text.kind != 2 or not page.stored or page.tiled:
            return
        if not 4 < text.length < 2**20:
            return
        words = self._bytes(self._number(text.value), text.length)
        found = re.match(rb"ImageJ=.*?^images=(\d{1,9})$", words, re.DOTALL | re.MULTILINE)
        if found is None or int(found[1]) < 2:
            return
        offsets = self._values(page.tags, _OFFSETS, 2**24)
        counts = self._values(page.tags, _COUNTS, 2**24)
        if offsets is None or counts is None or len(offsets) != len(counts):
            return
        if np.any(offsets[:-1].astype(np.int64) + counts[:-1] != offsets[1:]):
            return
        for number in range(1, int(found[1])):
            shift = number * page.nbytes
            if int(offsets[0]) + shift + page.nbytes > self.size:
                raise SourceError(
                    "source",
                    f"{self.name} with {number} of the {int(found[1])} pages that it declares",
                    "the complete file",
                )
            yield replace(page, shift=shift)

    # --- pixels ---------------------------------------------------------------------------

    def rows(self, page: TiffPage, top: int, bottom: int) -> NDArray:
        """Pixels of some rows of a plain page.

        Returns
        -------
        ndarray of shape (bottom - top, width) or (bottom - top, width, 3)
            Of the page's own type; 0 is black.
        """
        assert page.plain
        if page is not self._held_of:
            self._held, self._held_of = {}, page
            self._where = self._lay_out(page)
        high, wide = page.chunk
        across, down = -(-page.width // wide), -(-page.height // high)
        planes = range(page.colours) if page.planar else range(1)
        depth = 1 if page.planar else page.samples
        out = np.empty((bottom - top, page.width, page.colours), page.type)
        used: dict[int, NDArray] = {}
        for j in range(top // high, -(-bottom // high)):
            first, last = max(top, j * high), min(bottom, (j + 1) * high)
            for i in range(across):
                columns = slice(i * wide, min((i + 1) * wide, page.width))
                for plane in planes:
                    number = (plane * down + j) * across + i
                    pixels = self._chunk(page, number, j * high, first, last, depth, used)
                    pixels = pixels[:, : columns.stop - columns.start]
                    target = out[first - top : last - top, columns]
                    if page.planar:
                        target[..., plane] = pixels[..., 0]
                    else:
                        target[...] = pixels[..., : page.colours]
        self._held = used  # the next rows begin where these end
        if page.photometric == _WHITE_IS_ZERO and out.dtype.kind == "u":
            np.subtract(np.iinfo(out.dtype).max, out, out=out)
        return out if page.colours == 3 else out[..., 0]

    def _lay_out(self, page: TiffPage) -> tuple[NDArray, NDArray]:
        """Offset and length of every strip or tile."""
        high, wide = page.chunk
        number = -(-page.width // wide) * -(-page.height // high)
        number *= page.samples if page.planar else 1
        pair = (_TILE_OFFSETS, _TILE_COUNTS) if page.tiled else (_OFFSETS, _COUNTS)
        found = f"{self.name}, which declares more pixels than it holds"
        lost = SourceError("source", found, "the complete file")
        if number > self.size:
            raise lost
        offsets, lengths = (self._values(page.tags, tag, number) for tag in pair)
        if offsets is None or len(offsets) != number:
            raise lost
        if lengths is None and page.stored:
            lengths = np.full(number, self.size)
        if lengths is None or len(lengths) != number:
            raise lost
        return offsets, lengths

    def _chunk(
        self,
        page: TiffPage,
        number: int,
        start: int,
        first: int,
        last: int,
        depth: int,
        used: dict[int, NDArray],
    ) -> NDArray:
        """Rows of one strip or tile whose first row is `start`: (rows, columns, depth)."""
        high, wide = page.chunk
        dtype = np.dtype(self.order + str(page.type))
        line = wide * depth * dtype.itemsize
        at, length = int(self._where[0][number]) + page.shift, int(self._where[1][number])
        if page.stored:
            raw = self._bytes(at + (first - start) * line, (last - first) * line)
            return np.frombuffer(raw, dtype).reshape(last - first, wide, depth)
        pixels = self._held.get(number)
        if pixels is None:
            rows = high if page.tiled else min(high, page.height - start)
            unpacker = zlib.decompressobj()
            plain = unpacker.decompress(self._bytes(at, min(length, self.size)), rows * line)
            if len(plain) < rows * line:
                raise SourceError("source", f"{self.name} cut off", "the complete file")
            pixels = np.frombuffer(plain, dtype).reshape(rows, wide, depth)
            if page.predictor == 2:  # each pixel less the one before it, modulo 2**bits
                native = np.dtype(page.type)
                pixels = np.cumsum(pixels, axis=1, dtype=native)
        used[number] = pixels
        return pixels[first - start : last - start]

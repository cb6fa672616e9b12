"""Picture files as pages of grey levels: what a header says first, pixels afterwards.

A file is opened by the format that its ending names and by no other: Pillow knows some
forty, of which one (EPS) starts a program. Its header is judged before anything is decoded.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.data.images import grey, pixels_of
from shoal.data.readers._base import open_regular, reading
from shoal.data.readers._tiff import Tiff, TiffPage
from shoal.vocabulary import SourceError, printable

__all__ = ["MOST_PIXELS", "PICTURES", "Page", "Rows", "levels", "survey"]

# Pillow's formats by ending. MPO is a JPEG file with further pictures behind the first.
PICTURES: dict[str, tuple[str, ...]] = {
    ".png": ("PNG",),
    ".jpg": ("JPEG", "MPO"),
    ".jpeg": ("JPEG", "MPO"),
    ".tif": ("TIFF",),
    ".tiff": ("TIFF",),
    ".bmp": ("BMP",),
    ".gif": ("GIF",),
    ".webp": ("WEBP",),
    ".pgm": ("PPM",),
    ".ppm": ("PPM",),
}

# Pixels of a picture that must be decoded whole: half a GB at Pillow's 4 bytes a pixel.
# Arbitrary; more than any camera's, and less than Pillow's own limit of 179 million.
MOST_PIXELS = 2**27

# What a file may unpack to: this much, or so many times its own size. Photographs are
# packed 2 to 50 times, pages of text some hundred times; deflate can't pack more than 1032.
_FREE_BYTES, _MOST_PACKED = 2**26, 500

# Pages of a file that are looked at; and those where the last can't be had without all
# before it: animations, and TIFF pages for which Pillow follows the chain anew.
_MOST_PAGES, _MOST_FRAMES = 2**16, 10_000

# Pixels of an animation; several of its frames are held at once, in colour.
_MOST_MOVING = 2**23  # 4K video

# Bytes beside the pixels of a TIFF file that are not worth a word: names, profiles, previews.
_SPARE_BYTES = 2**16

# Scans of a JPEG file, each of which passes over all its pixels; cameras write 1 to 10.
_MOST_SCANS = 500

_BYTES = {"1": 1, "L": 1, "P": 1, "LA": 2, "I;16": 2, "RGB": 3}  # of a pixel; 4 of others

_STARTS = {
    b"\x89PNG": "PNG", b"\xff\xd8": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF",
    b"MM\0+": "TIFF", b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP", b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript", b"%PDF": "PDF", b"8BPS": "Photoshop's PSD",
    b"\xd0\xcf\x11\xe0": "an OLE file", b"icns": "ICNS", b"\xd7\xcd\xc6\x9a": "WMF",
    b"\0\0\1\0": "ICO", b"PK\3\4": "a zip file", b"<svg": "SVG", b"<?xml": "XML",
    b"<html": "HTML", b"<!DOC": "HTML", b"\0\5\x16\7": "macOS's notes on another file",
}  # fmt: skip

# What puts a page back that was turned by its tag of orientation.
_BACK = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
    7: "TRANSVERSE", 8: "ROTATE_270",
}  # fmt: skip

Rows = Callable[[int, int], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Page:
    """One picture in a file."""

    number: int  # from 0
    height: int
    width: int
    nbytes: int  # of its pixels unpacked; 0 where nothing is packed
    tiff: TiffPage | None = None  # what its tags say, in a TIFF file


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


# --- the header ---------------------------------------------------------------------------


def survey(path: Path) -> tuple[list[Page], list[str]]:
    """The pages of a file by its header, and what of it is left out, in words.

    Raises
    ------
    SourceError
        If it isn't a regular file, not of the format that its ending names, broken, or too
        large to decode.
    """
    name = printable(path.name)
    with _opened(path) as file:
        if path.suffix.lower() in (".tif", ".tiff"):
            pages, left_out = _survey_tiff(file, name)
        else:
            pages, left_out = _survey_other(file, path.suffix.lower(), name)
        size = os.fstat(file.fileno()).st_size
    pages, more = _affordable(pages, size, name)
    return pages, left_out + more


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, if it is regular and starts as its ending says; errors in one line."""
    name = printable(path.name)
    kind = PICTURES[path.suffix.lower()][0]
    with reading(name, f"a complete {kind} file"), open_regular(path) as file:
        head = file.read(16)
        other = next((word for start, word in _STARTS.items() if head.startswith(start)), None)
        if not head:
            raise SourceError("source", f"{name}, which is empty (0 bytes)", f"a {kind} file")
        if other is not None and other.upper() != kind:
            needed = f"a {kind} file, or the ending that fits"
            raise SourceError("source", f"{name}, which is {other}", needed)
        yield file


def _image(file: Any, ending: str, name: str) -> Any:
    """A Pillow image of the format of the ending; nothing is decoded."""
    module = importlib.import_module("PIL.Image")
    formats = PICTURES[ending]
    with warnings.catch_warnings():  # on size, which is judged here; on metadata, which isn't used
        warnings.simplefilter("ignore")
        try:
            image = module.open(file, formats=formats)
        except module.DecompressionBombError as error:
            raise _too_large(name) from error
        except module.UnidentifiedImageError as error:
            found = f"{name}, which can't be read (it isn't a whole {formats[0]} file)"
            needed = f"a {formats[0]} file, or the ending that fits"
            raise SourceError("source", found, needed) from error
    return image


def _too_large(name: str, height: int = 0, width: int = 0) -> SourceError:
    pixels = f"{height} x {width}" if height else "too many"
    return SourceError(
        "source",
        f"{name} of {pixels} pixels, which are not decoded",
        f"at most {MOST_PIXELS}: cut it to tiles, or save it as uncompressed TIFF or .npy",
    )


def _survey_other(file: Any, ending: str, name: str) -> tuple[list[Page], list[str]]:
    if ending == ".webp":
        _check_webp(file, name)
    if ending in (".jpg", ".jpeg"):
        _check_scans(file, name)
    file.seek(0)
    image = _image(file, ending, name)
    left_out = []
    width, height = image.size
    if height * width > MOST_PIXELS:
        raise _too_large(name, height, width)
    if ending in (".jpg", ".jpeg"):
        frames = 1
        if image.format == "MPO":
            left_out.append(f"{name}: the pictures behind the first (MPO)")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames = int(getattr(image, "n_frames", 1))
    depth = _depth(image)
    if depth is not None and (frames > 1 or ending in (".pgm", ".ppm")):
        left_out.append(f"{name}: the lower 8 of {depth} bits")
    if frames > 1 and height * width > _MOST_MOVING:
        left_out.append(f"{name}: pages 2 to {frames}, of more than {_MOST_MOVING} pixels each")
        frames = 1
    if frames > _MOST_FRAMES:
        left_out.append(f"{name}: pages {_MOST_FRAMES + 1} to {frames}")
    packed = 0 if ending in (".pgm", ".ppm") else height * width * _BYTES.get(image.mode, 4)
    pages = [Page(number, height, width, packed) for number in range(min(frames, _MOST_FRAMES))]
    return pages, left_out


def _check_webp(file: Any, name: str) -> None:
    """Refuse a large canvas before Pillow does: it makes room for three of them on opening."""
    file.seek(12)
    head = file.read(18)
    if head[:4] == b"VP8X" and len(head) == 18:
        width = 1 + int.from_bytes(head[12:15], "little")
        height = 1 + int.from_bytes(head[15:18], "little")
        if height * width > MOST_PIXELS:
            raise _too_large(name, height, width)


def _check_scans(file: Any, name: str) -> None:
    file.seek(0)
    scans, last = 0, b""
    while piece := file.read(2**20):
        scans += (last + piece).count(b"\xff\xda")
        last = piece[-1:]
    if scans > _MOST_SCANS:
        found = f"{name} of {scans} scans"
        raise SourceError("source", found, f"at most {_MOST_SCANS}: more is no photograph")


def _survey_tiff(file: Any, name: str) -> tuple[list[Page], list[str]]:
    tiff = Tiff(file, name)
    pages: list[Page] = []
    left_out: list[str] = []
    copies = channels = chained = 0
    for number, page in enumerate(tiff.pages()):
        chained += not page.plain
        if number == _MOST_PAGES or chained > _MOST_FRAMES:
            left_out.append(f"{name}: all pages behind {number}")
            break
        if page.subfile & 5:
            copies += 1
            continue
        if page.stored and page.nbytes > tiff.size:
            found = f"{name}, which declares {page.nbytes} bytes of pixels and has {tiff.size}"
            raise SourceError("source", found, "the complete file")
        if not (page.plain and page.stored) and page.height * page.width > MOST_PIXELS:
            raise _too_large(name, page.height, page.width)
        channels = max(channels, page.channels_left_out)
        packed = 0 if page.stored else page.nbytes
        pages.append(Page(page.number, page.height, page.width, packed, page))
    if copies:
        left_out.append(f"{name}: {_plural(copies, 'smaller copy or mask')}")
    used = sum(page.tiff.nbytes for page in pages if page.tiff is not None)
    if not copies and all(page.nbytes == 0 for page in pages):
        # Stacks of other programs with one directory for all, volumes, further directories.
        spare = tiff.size - used
        if pages and spare > max(_SPARE_BYTES, pages[0].height * pages[0].width):
            left_out.append(f"{name}: {spare} bytes that are in no page")
    if not pages or (first := pages[0].tiff) is None:
        raise SourceError("source", f"{name} without a page", "at least one")
    if channels:
        kept = "the first" if first.colours == 1 else "red, green and blue"
        left_out.append(f"{name}: {_plural(channels, 'channel')} beside {kept}")
    if not first.plain:  # Pillow is to open it: whether it can is known here already
        try:
            image = _image(file, ".tif", name)
        except SourceError as error:
            bits = "+".join(f"{kind}{n}" for kind, n in zip(first.kinds, first.bits, strict=True))
            found = f"{name} with pixels of {bits[:40]} bits, packed by method {first.compression}"
            raise SourceError("source", found, "TIFF that isn't packed, or deflated") from error
        lost = first.planar or _halves(image) is None
        if (depth := _depth(image)) is not None and lost:
            left_out.append(f"{name}: the lower 8 of {depth} bits")
    return pages, left_out


def _affordable(pages: list[Page], size: int, name: str) -> tuple[list[Page], list[str]]:
    """The pages that `size` bytes may unpack to; a picture packed like no other is a trap."""
    budget = max(_FREE_BYTES, _MOST_PACKED * size)
    spent = 0
    for i, page in enumerate(pages):
        spent += page.nbytes
        if spent > budget and i == 0:
            raise SourceError(
                "source",
                f"{name} of {page.height} x {page.width} pixels in {size} bytes",
                f"a picture packed less than {_MOST_PACKED} times",
            )
        if spent > budget:
            return pages[:i], [f"{name}: pages {i + 1} to {len(pages)}, packed too well to be true"]
    return pages, []


# --- pixels -------------------------------------------------------------------------------


def levels(path: Path, pages: Sequence[Page]) -> Iterator[tuple[Page, Rows]]:
    """Each page, in order, with a reader of its rows as grey levels, valid until the next."""
    ending = path.suffix.lower()
    name = printable(path.name)
    with _opened(path) as file:
        tiff = Tiff(file, name) if ending in (".tif", ".tiff") else None
        image = None
        for page in pages:
            if tiff is not None and page.tiff is not None and page.tiff.plain:
                yield page, _plain_rows(tiff, page.tiff)
                continue
            if image is None:
                file.seek(0)
                image = _image(file, ending, name)
            yield page, _decoded_rows(image, page, file, ending, name)


def _plain_rows(tiff: Tiff, page: TiffPage) -> Rows:
    return lambda top, bottom: grey(tiff.rows(page, top, bottom))


def _decoded_rows(image: Any, page: Page, file: Any, ending: str, name: str) -> Rows:
    """Rows of a page that Pillow decodes as a whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.seek(page.number)
        if ending in (".pgm", ".ppm") and (direct := _binary_ppm(image, file, name)) is not None:
            return direct
        halves = _halves(image)
        planar = page.tiff is not None and page.tiff.planar
        if halves is None or planar or (page.tiff is None and getattr(image, "n_frames", 1) > 1):
            image = _loaded(image, page, name)
            return lambda top, bottom: _graded(pixels_of(_band(image, top, bottom)), page.tiff)
        image = _loaded(image, page, name)
        if halves == "RGBA":  # one sample's two bytes, and its alpha's, each as a colour
            raw = _again(file, ending, name, page, "RGBA")
            return lambda top, bottom: grey(_joined(raw, raw, top, bottom)[..., 0])
        low = _again(file, ending, name, page, halves)
        return lambda top, bottom: grey(_joined(image, low, top, bottom))


def _loaded(image: Any, page: Page, name: str) -> Any:
    """The image decoded, its pixels where the file has them.

    Of TIFF alone, Pillow turns a page as its tag of orientation says; that is undone, so
    that a page is the same however it is packed.
    """
    turn = 1 if page.tiff is None else page.tiff.orientation
    size = page.width, page.height
    changed = SourceError("source", f"{name}, whose page {page.number + 1} changes its size", "one")
    if image.size not in (size, size[::-1] if 5 <= turn <= 8 else size):
        raise changed
    image.load()
    if turn in _BACK:
        image = image.transpose(importlib.import_module("PIL.Image").Transpose[_BACK[turn]])
    if image.size != size:
        raise changed
    return image


def _band(image: Any, top: int, bottom: int) -> Any:
    if (top, bottom) == (0, image.height):
        return image
    return image.crop((0, top, image.width, bottom))


def _depth(image: Any) -> int | None:
    """Bits a sample, where Pillow would keep the upper 8 of them only."""
    if image.mode not in ("RGB", "RGBA", "CMYK"):
        return None
    words = image.format == "PPM" and image.tile[0][0] == "ppm_plain"
    if words and image.tile[0][3][1] > 255:  # Netpbm with its numbers written out
        return 16
    return 16 if ";16" in _raw_mode(image) else None


def _raw_mode(image: Any) -> str:
    """How the file lays out a pixel, in Pillow's words."""
    with suppress(IndexError, AttributeError, TypeError):
        arguments = image.tile[0][3]
        return str(arguments if isinstance(arguments, str) else arguments[0])
    return ""


def _halves(image: Any) -> str | None:
    """The layout by which Pillow gives the lower bytes of 16-bit colours; None for others.

    Pillow keeps the upper byte of each 16-bit sample. Read as if the bytes were in the
    other order, the same file gives the lower ones.
    """
    raw = _raw_mode(image)
    kind, _, order = raw.partition(";16")
    if kind == "LA" and order == "B":
        return "RGBA"
    if kind not in ("RGB", "RGBA", "RGBX") or image.mode not in ("RGB", "RGBA"):
        return None
    other = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}.get(order)
    return None if other is None else f"{kind};16{other}"


def _again(file: Any, ending: str, name: str, page: Page, raw_mode: str) -> Any:
    """The page decoded once more, its pixels laid out as `raw_mode`."""
    file.seek(0)
    image = _image(file, ending, name)
    image.seek(page.number)
    make = type(image.tile[0])  # a plain tuple in older versions of Pillow
    image.tile = [
        (tuple if make is tuple else make._make)(
            (
                tile[0],
                tile[1],
                tile[2],
                raw_mode if isinstance(tile[3], str) else (raw_mode, *tile[3][1:]),
            )
        )
        for tile in image.tile
    ]
    return _loaded(image, page, name)


def _joined(high: Any, low: Any, top: int, bottom: int) -> NDArray[np.uint16]:
    """16-bit pixels of their upper and lower bytes."""
    upper, lower = (np.asarray(_band(image, top, bottom)) for image in (high, low))
    if high is low:
        return (upper[..., :1].astype(np.uint16) << 8) | upper[..., 1:2]
    return (upper[..., :3].astype(np.uint16) << 8) | lower[..., :3]


def _graded(pixels: NDArray, page: TiffPage | None) -> NDArray[np.float32]:
    """Grey levels of decoded pixels, after what a TIFF file's tags say and Pillow leaves."""
    if page is None or pixels.ndim == 3:
        return grey(pixels)
    bits, kind = page.bits[0], page.kinds[0]
    if pixels.dtype == np.uint8 and (bits, kind) == (8, "i"):
        pixels = pixels.view(np.int8)
    if pixels.dtype == np.int32 and (bits, kind) == (32, "u"):
        pixels = pixels.view(np.uint32)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        white = 2**bits - 1
        if page.photometric == 0:
            pixels = white - pixels
        if bits < 16:
            return (pixels / float(white)).astype(np.float32)
    return grey(pixels)


def _binary_ppm(image: Any, file: Any, name: str) -> Rows | None:
    """Rows of a .pgm or .ppm file whose white isn't 255: Pillow rounds them to 8 bits."""
    decoder, _, start, arguments = image.tile[0]
    if decoder == "ppm":
        kind, white = arguments
    elif decoder == "raw" and _raw_mode(image) == "I;16B":
        kind, white = "L", 65535
    else:
        return None
    dtype, colours = np.dtype(">u2" if white > 255 else "u1"), 3 if kind == "RGB" else 1
    line = image.width * colours * dtype.itemsize
    width = image.width

    def rows(top: int, bottom: int) -> NDArray[np.float32]:
        file.seek(start + top * line)
        raw = file.read((bottom - top) * line)
        if len(raw) < (bottom - top) * line:
            raise SourceError("source", f"{name} cut off", "the complete file")
        pixels = np.frombuffer(raw, dtype).reshape(bottom - top, width, colours)
        if white == 65535:
            return grey(pixels if colours == 3 else pixels[..., 0])
        level = pixels / float(white)
        return grey(level if colours == 3 else level[..., 0])

    return rows

"""Picture files written by hand, as no library would write them, or only one."""

import struct
import zlib

import numpy as np

_KINDS = {"u": 1, "i": 2, "f": 3}


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, colour, lines, *, before=b""):
    """A PNG file whose image data unpacks to `lines`."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + before
        + png_chunk(b"IDAT", zlib.compress(lines, 9))
        + png_chunk(b"IEND", b"")
    )


def png16(pixels):
    """16-bit pixels (height, width, channels) as PNG, every line filtered by its upper one."""
    height, width, channels = pixels.shape
    raw = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.diff(raw, axis=0, prepend=np.zeros_like(raw[:1]))
    lines = np.column_stack([np.full(height, 2, np.uint8), filtered]).tobytes()
    return png(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], lines)


def tiff(
    pages,
    *,
    order="<",
    big=False,
    pack=None,
    photometric=None,
    planar=False,
    tile=None,
    rows=7,
    more=None,
    description=None,
    one_directory=False,
    loop=False,
):
    """A TIFF file of pages, each of shape (height, width) or (height, width, samples).

    `more` adds or replaces tags, (type, numbers) each; `pack` is "deflate" or "predict".
    """
    codes = {1: "B", 2: "B", 3: "H", 4: "I", 16: "Q"}
    body = bytearray(
        struct.pack(f"{order}2sHHHQ", b"II", 43, 8, 0, 0)
        if big
        else struct.pack(f"{order}2sHI", b"II", 42, 0)
    )
    body[:2] = b"II" if order == "<" else b"MM"
    link = 8 if big else 4
    place, pointer = (8, "Q") if big else (4, "I")

    def put(raw):
        body.extend(b"\0" * (len(body) % 2))
        body.extend(raw)
        return len(body) - len(raw)

    starts = []
    if one_directory:  # the pixels of all pages in one piece, before the only directory
        behind = [put(page.astype(page.dtype.newbyteorder(order)).tobytes()) for page in pages]
        assert len(body) - behind[0] == sum(page.nbytes for page in pages)
        pages, rows = pages[:1], len(pages[0])
    for number, page in enumerate(pages):
        page = page if page.ndim == 3 else page[..., None]
        height, width, samples = page.shape
        bits, kind = page.dtype.itemsize * 8, _KINDS[page.dtype.kind]
        planes = [page[..., i : i + 1] for i in range(samples)] if planar else [page]
        high, wide = tile or (rows, width)
        offsets, lengths = [], []
        for plane in planes:
            for top in range(0, height, high):
                for left in range(0, width, wide):
                    part = plane[top : top + high, left : left + wide]
                    if tile:
                        spare = (0, high - part.shape[0]), (0, wide - part.shape[1]), (0, 0)
                        part = np.pad(part, spare)
                    if pack == "predict":
                        part = np.diff(part, axis=1, prepend=np.zeros_like(part[:, :1]))
                    raw = part.astype(part.dtype.newbyteorder(order)).tobytes()
                    raw = raw if pack is None else zlib.compress(raw)
                    offsets.append(behind[0] if one_directory else put(raw))
                    lengths.append(len(raw))
        colours = 4 if photometric == 5 else 3 if samples >= 3 else 1
        tags = {
            256: (4, [width]),
            257: (4, [height]),
            258: (3, [bits] * samples),
            259: (3, [1 if pack is None else 8]),
            262: (3, [(2 if colours == 3 else 1) if photometric is None else photometric]),
            277: (3, [samples]),
            284: (3, [2 if planar else 1]),
            339: (3, [kind] * samples),
        }
        if pack == "predict":
            tags[317] = (3, [2])
        if samples > colours:
            tags[338] = (3, [0] * (samples - colours))
        wide_kind = 16 if big else 4
        if tile:
            tags |= {322: (4, [tile[1]]), 323: (4, [tile[0]])}
            tags |= {324: (wide_kind, offsets), 325: (wide_kind, lengths)}
        else:
            tags |= {273: (wide_kind, offsets), 278: (4, [rows]), 279: (wide_kind, lengths)}
        if description is not None and number == 0:
            tags[270] = (2, list(description.encode() + b"\0"))
        tags |= more or {}
        entries = b""
        for tag, (form, values) in sorted(tags.items()):
            raw = struct.pack(f"{order}{len(values)}{codes[form]}", *values)
            if len(raw) > place:
                raw = struct.pack(order + pointer, put(raw))
            entries += struct.pack(f"{order}HH{pointer}", tag, form, len(values))
            entries += raw.ljust(place, b"\0")
        at = put(struct.pack(order + ("Q" if big else "H"), len(tags)) + entries + b"\0" * place)
        struct.pack_into(order + pointer, body, link, at)
        starts.append(at)
        link = len(body) - place
    if loop:
        struct.pack_into(order + pointer, body, link, starts[0])
    return bytes(body)

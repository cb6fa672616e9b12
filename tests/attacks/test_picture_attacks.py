"""Pictures that would start a program, take the machine's memory, or never end.

They are opened in a process that measures its memory and its time, or in one for which a
program lies in wait under the name of an interpreter of PostScript.
"""

import io
import json
import os
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from attacks.mutate_pictures import run
from picture_files import png, png_chunk, tiff
from shoal.data import open_source
from shoal.vocabulary import SourceError

MB = 2**20
GREY = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm")

# --- other formats under the ending of a picture --------------------------------------------


def _written(kind):
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, kind)
    return stream.getvalue()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
CONTENTS = {
    "eps": EPS,
    "eps after a mark": b"\x04" + EPS,
    "dos eps": b"\xc5\xd0\xd3\xc6" + struct.pack("<IIIIIIH", 30, len(EPS), *[0] * 4, 65535) + EPS,
    "pdf": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n",
    "wmf": b"\xd7\xcd\xc6\x9a\0\0" + bytes(40),
    "emf": b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(60),
    "ole": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000),
    "psd": b"8BPS\0\1" + bytes(100),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "text": b"hello\n",
    **{kind.lower(): _written(kind) for kind in ("ICO", "ICNS", "TGA", "PCX", "SGI")},
}  # fmt: skip


def test_only_the_format_of_the_ending_is_opened(tmp_path):
    """Every content but the right one is refused in one line, and no program is started."""
    programs = tmp_path / "bin"
    programs.mkdir()
    ran = tmp_path / "ran"
    for name in ("gs", "gswin32c", "gswin64c", "djpeg", "xv", "convert"):
        (programs / name).write_text(f'#!/bin/sh\necho "$0 $@" >> {ran}\n')
        (programs / name).chmod(0o755)
    files = []
    own = {kind: _written(kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")}
    rightful = {"JPEG": (".jpg", ".jpeg"), "TIFF": (".tif", ".tiff"), "PPM": (".pgm", ".ppm")}
    for ending in ENDINGS:
        for kind, raw in {**CONTENTS, **own}.items():
            if ending not in rightful.get(kind, (f".{kind.lower()}",)):
                files.append(tmp_path / f"{kind.replace(' ', '-')}-in{ending}")
                files[-1].write_bytes(raw)
    code = """
import json, sys
import shoal.data
from shoal.vocabulary import SourceError
for path in json.load(sys.stdin):
    try:
        shoal.data.open_source(path, patch_size=8, n_patches=4)
        print(path, "was opened")
    except SourceError as error:
        if "\\n" in str(error):
            print(path, "more than one line:", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(list(map(str, files))),
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == ""
    assert not ran.exists()


# --- small files, large memory ----------------------------------------------------------------


def zeros_png(side):
    """A black square: one packed piece of zeros, again and again."""
    lines = bytes(3 * side + 1) * 100
    packer = zlib.compressobj(9, wbits=-15)
    piece = packer.compress(lines) + packer.flush(zlib.Z_FULL_FLUSH)
    end, check = packer.flush(), 1
    for _ in range(side // 100):
        check = zlib.adler32(lines, check)
    body = b"\x78\xda" + piece * (side // 100) + end + struct.pack(">I", check)
    whole = png(side, side, 8, 2, b"")
    return whole[: whole.index(b"IDAT") - 4] + png_chunk(b"IDAT", body) + whole[-12:]


def header_png(width, height):
    return png(width, height, 8, 2, b"\0" * 100)


def text_bomb():
    text = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(900_000), 9))
    return png(40, 50, 8, 0, bytes(41 * 50), before=text * 2000)


def profile_bomb():
    profile = png_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(20 * MB), 9))
    return png(40, 50, 8, 0, bytes(41 * 50), before=profile)


def many_frames_png(declared):
    before = png_chunk(b"acTL", struct.pack(">II", declared, 0))
    return png(40, 50, 8, 0, bytes(41 * 50), before=before)


def gif(width, height, frames):
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return head + frame * frames + b";"


def jpeg(width, height, scans=1):
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "JPEG", progressive=scans > 1)
    raw = bytearray(stream.getvalue())
    at = raw.index(b"\xff\xc2" if scans > 1 else b"\xff\xc0")
    raw[at + 5 : at + 9] = struct.pack(">HH", height, width)
    last = raw.rindex(b"\xff\xda")
    return bytes(raw[:last] + raw[last:-2] * scans + raw[-2:])


def webp(width, height):
    vp8x = b"VP8X" + struct.pack("<II", 10, 0x02)
    vp8x += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + vp8x + b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def lying_tiff(**more):
    names = {"width": 256, "height": 257, "samples": 277, "offset": 273, "rows": 278, "length": 279}
    return tiff([GREY], rows=40, more={names[k]: (4, [v]) for k, v in more.items()})


def deflated_tiff(width, height):
    bomb = zlib.compress(bytes(width * height), 9)
    more = {256: (4, [width]), 257: (4, [height]), 278: (4, [height]), 279: (4, [len(bomb)])}
    raw = tiff([GREY], rows=40, pack="deflate", more=more | {273: (4, [0])})
    start = len(raw)
    more |= {273: (4, [start])}
    raw = tiff([GREY], rows=40, pack="deflate", more=more)
    return raw + bomb


def same_strip_tiff():
    more = {257: (4, [100_000]), 273: (4, [8] * 1000), 279: (4, [5000] * 1000), 278: (4, [100])}
    return tiff([GREY], rows=40, more=more)


def long_tag_tiff():
    raw = bytearray(tiff([GREY], rows=40, more={273: (4, [8, 8, 8]), 279: (4, [8, 8, 8])}))
    for tag in (258, 273, 279, 339):
        at = raw.rindex(struct.pack("<H", tag))
        raw[at + 4 : at + 8] = struct.pack("<I", 2**31)
    return bytes(raw)


def tags_tiff():
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 65535) + bytes(12 * 65535) + bytes(4)


def size_bmp(side):
    sizes = struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, side, side, 1, 24, *[0] * 6)
    return b"BM" + sizes


def bare_pages_tiff(number):
    """Pages of four tags, all of the same pixels."""
    tags = struct.pack(
        "<HHIIHHIIHHIIHHII", 256, 4, 1, 50, 257, 4, 1, 40, 273, 4, 1, 8, 279, 4, 1, 99
    )
    body = bytearray(b"II*\0\x08\0\0\0")
    for i in range(number):
        after = len(body) + 2 + len(tags) + 4
        body += struct.pack("<H", 4) + tags + struct.pack("<I", after if i < number - 1 else 0)
    return bytes(body)


BOMBS = {
    "13000 x 13000.png": lambda: zeros_png(13_000),
    "6000 x 6000.png": lambda: zeros_png(6_000),
    "header.png": lambda: header_png(60_000, 60_000),
    "header of 120 million.png": lambda: header_png(12_000, 10_000),
    "text.png": text_bomb,
    "profile.png": profile_bomb,
    "frames.png": lambda: many_frames_png(2**31 - 1),
    "no frames.png": lambda: many_frames_png(0),
    "canvas.gif": lambda: gif(65_535, 65_535, 1),
    "canvas of 100 million.gif": lambda: gif(10_000, 10_000, 1),
    "canvas and frames.gif": lambda: gif(8_000, 8_000, 12_000),
    "frames.gif": lambda: gif(100, 100, 12_000),
    "header.jpg": lambda: jpeg(65_500, 65_500),
    "header of 120 million.jpg": lambda: jpeg(12_000, 10_000),
    "scans.jpg": lambda: jpeg(8_000, 8_000, 3000),
    "canvas.webp": lambda: webp(2**24, 2**8),
    "canvas of 16383.webp": lambda: webp(16_383, 16_383),
    "width.tif": lambda: lying_tiff(width=10**9),
    "size.tif": lambda: lying_tiff(width=10**5, height=10**5),
    "everything.tif": lambda: lying_tiff(width=2**32 - 1, height=2**32 - 1, samples=65535),
    "samples.tif": lambda: lying_tiff(samples=60_000),
    "offset.tif": lambda: lying_tiff(offset=2**31),
    "rows.tif": lambda: lying_tiff(rows=2**32 - 1, height=2**20),
    "no rows.tif": lambda: lying_tiff(rows=0),
    "deflated.tif": lambda: deflated_tiff(8_000, 10_000),
    "same strip.tif": same_strip_tiff,
    "long tags.tif": long_tag_tiff,
    "tags.tif": tags_tiff,
    "pages.tif": lambda: bare_pages_tiff(11_000),
    "size.bmp": lambda: size_bmp(2**30),
    "size of 100 million.bmp": lambda: size_bmp(10_000),
    "size.ppm": lambda: b"P6 99999999 99999999 255\n" + bytes(100),
    "size of 100 million.ppm": lambda: b"P6 10000 10000 255\n" + bytes(100),
    "words of 100 million.ppm": lambda: b"P3 10000 10000 255\n" + b"9 " * 100,
    "digits.pgm": lambda: b"P5 " + b"9" * 10_000 + b" 1 255\n",
    "wide.pgm": lambda: b"P5 11000 11000 65535\n" + bytes(100),
}
OPENED = ("no frames.png", "canvas and frames.gif", "frames.gif", "pages.tif")  # what they hold


OPEN_ALL = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
from PIL import Image
import numpy, shoal.data
from shoal.vocabulary import SourceError
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024
def opened(path, patches):
    try:
        return repr(shoal.data.open_source(path, patch_size=8, n_patches=patches))
    except SourceError as error:
        return "refused: " + str(error)
small, patches, *paths = json.load(sys.stdin)
opened(small, 4)
found = {}
for path in paths:
    open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
    before, start = peak(), time.perf_counter()
    word = opened(path, patches)
    found[path] = peak() - before, time.perf_counter() - start, word
print(json.dumps(found))
"""


def open_all(folder, files, patches=100):
    """By name of each file: MB that opening it took, seconds, and what came of it."""
    (folder / "small.tif").write_bytes(tiff([GREY]))
    paths = []
    for name, raw in files.items():
        paths.append(str(folder / name))
        (folder / name).write_bytes(raw)
    done = subprocess.run(
        [sys.executable, "-c", OPEN_ALL],
        input=json.dumps([str(folder / "small.tif"), patches, *paths]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    return {name: found[path] for name, path in zip(files, paths, strict=True)}


linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc")


@linux
def test_a_small_file_takes_little_memory(tmp_path):
    """At most 64 MB and four times its own size, whatever its header declares."""
    files = {name: make() for name, make in BOMBS.items()}
    for name, (taken, seconds, word) in open_all(tmp_path, files).items():
        assert taken < 64 + 4 * len(files[name]) / MB, (name, taken, word)
        assert seconds < 10, (name, seconds, word)
        assert name in OPENED or word.startswith("refused: source: found "), (name, word)
        assert "\n" not in word


@linux
def test_a_large_photograph_takes_few_bytes_a_pixel(tmp_path):
    """Decoded colours take 3 bytes a pixel; opening takes less than twice that, and what the
    patches and a band of grey take.
    """
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1500, 3000, 3), dtype=np.uint8)
    files = {}
    for kind, options in {"png": {"compress_level": 1}, "jpeg": {}, "tiff": {}}.items():
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind, **options)
        files[f"a.{kind}"] = stream.getvalue()
    for name, (taken, _, word) in open_all(tmp_path, files, 20_000).items():
        assert word == f"<Source {name}: 20000 x 64 float32>"
        assert taken < 32 + 2 * pixels.nbytes / MB, (name, taken)


def test_a_chain_of_pages_that_leads_back_ends(tmp_path):
    pages = [np.full((9, 9), i, np.uint8) for i in range(5)]
    (tmp_path / "a.tif").write_bytes(tiff(pages, loop=True))
    source = open_source(tmp_path / "a.tif", patch_size=9, n_patches=5)
    assert sorted(np.round(source.array[:, 0] * 255)) == [0, 1, 2, 3, 4]


def test_a_pipe_does_not_hang(tmp_path):
    for name in ("a.png", "b.tif"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(SourceError, match=rf"{name}, which is a FIFO"):
            open_source(tmp_path / name)
    (tmp_path / "c.png").symlink_to("/dev/zero")
    with pytest.raises(SourceError, match="without a picture that can be read"):
        open_source(tmp_path)


@linux
def test_damaged_pictures_are_read_or_refused_in_one_line(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counts, faults = run(500, 1, tmp_path)
    assert faults == []
    assert counts.total() == 500
    assert sum(n for (_, outcome), n in counts.items() if outcome == "one line") > 250

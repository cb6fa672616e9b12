"""Thousands of damaged pictures: what opening them does.

    python tests/attacks/mutate_pictures.py [NUMBER] [SEED]

Each is a small picture of a random format with some bytes changed, runs of bytes lost, doubled
or exchanged, or numbers of its header replaced. Anything but a picture or one line of
`SourceError` or `ArgumentError` is a fault, and so are ten seconds, or 64 MB and four times
the file beside what the process held before.
"""

import io
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from picture_files import png16, tiff
from shoal.data import open_source
from shoal.vocabulary import ShoalError

EXTREMES = [0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1]


def sources():
    """Sound pictures, by a name with the ending."""
    rng = np.random.default_rng(0)
    level = (rng.integers(0, 60, (40, 50)) + np.arange(50) * 3).astype(np.uint8)
    colour = np.stack([level, level[::-1], level[:, ::-1]], axis=-1)
    deep = level.astype(np.uint16) * 257

    def saved(pixels, kind, **options):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind, **options)
        return stream.getvalue()

    more = {"save_all": True, "append_images": [Image.fromarray(colour[::-1])] * 3}
    whole = {
        "grey.png": saved(level, "PNG"),
        "rgb.png": saved(colour, "PNG"),
        "deep.png": png16(np.stack([deep] * 3, axis=-1)),
        "moving.png": saved(colour, "PNG", **more),
        "grey.jpg": saved(level, "JPEG"),
        "rgb.jpg": saved(colour, "JPEG"),
        "progressive.jpg": saved(colour, "JPEG", progressive=True),
        "stack.tif": tiff([deep] * 4),
        "big.tif": tiff([deep] * 2, order=">", big=True, pack="predict"),
        "tiles.tif": tiff([colour], tile=(16, 16), planar=True),
        "float.tif": tiff([level.astype(np.float64)], pack="deflate"),
        "lzw.tif": saved(colour, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": saved(colour, "TIFF", compression="jpeg"),
        "fax.tif": saved(level > 100, "TIFF", compression="group4"),
        "moving.gif": saved(colour, "GIF", **more),
        "grey.gif": saved(level, "GIF"),
        "rgb.webp": saved(colour, "WEBP"),
        "moving.webp": saved(colour, "WEBP", lossless=True, **more),
        "rgb.bmp": saved(colour, "BMP"),
        "grey.bmp": saved(level, "BMP"),
        "rgb.ppm": saved(colour, "PPM"),
        "deep.pgm": b"P5 50 40 4095\n" + (deep >> 4).astype(">u2").tobytes(),
        "words.ppm": b"P3 50 40 255\n" + b" ".join(b"%d" % n for n in colour.ravel().tolist()),
    }
    return whole


def damaged(raw, rng):
    """`raw` with some damage, more of it near the start, where headers are."""
    body = bytearray(raw)

    def place():
        return int(len(body) * rng.random() ** rng.choice([1, 4]))

    for _ in range(rng.integers(1, 5)):
        if not body:
            break
        at, kind = min(place(), len(body) - 1), rng.integers(0, 7)
        run = int(rng.integers(1, 64))
        if kind == 0:
            body[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            body[at] = int(rng.integers(0, 256))
        elif kind == 2:
            del body[at:]
        elif kind == 3:
            del body[at : at + run]
        elif kind == 4:
            body[at:at] = body[at : at + run] * int(rng.integers(1, 50))
        else:
            size, order = int(rng.choice([2, 4, 8])), str(rng.choice(["little", "big"]))
            number = int(rng.choice(EXTREMES)) % 256**size
            body[at : at + size] = number.to_bytes(size, order)
    return bytes(body)


def peak():
    """The largest memory that the process held, in MB."""
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1]) / 1024


def run(number, seed, folder):
    """How often each outcome came, and the faults."""
    rng = np.random.default_rng(seed)
    whole = sources()
    names = list(whole)
    counts = Counter()
    faults = []
    path = folder / "x"
    for name, raw in whole.items():  # all decoders, before memory is measured
        (folder / name).write_bytes(raw)
        expected = open_source(folder / name, patch_size=4, n_patches=50).array
        whole[name] = raw, expected
    for i in range(number):
        name = names[i % len(names)]
        sound, expected = whole[name]
        raw = damaged(sound, rng)
        path = folder / f"x{name[name.index('.') :]}"
        path.write_bytes(raw)
        if sys.platform == "linux":
            Path("/proc/self/clear_refs").write_text("5")
        before, start = (peak() if sys.platform == "linux" else 0), time.perf_counter()
        try:
            found = open_source(path, patch_size=4, n_patches=50).array
            same = found.shape == expected.shape and np.array_equal(found, expected, equal_nan=True)
            outcome = "same" if same else "other values"
        except ShoalError as error:
            outcome = "one line" if "\n" not in str(error) else "several lines"
        except Exception as error:
            outcome = f"raw {type(error).__name__}"
        seconds = time.perf_counter() - start
        taken = peak() - before if sys.platform == "linux" else 0
        if seconds > 10:
            outcome = "hang"
        elif taken > 64 + 4 * len(raw) / 2**20:
            outcome = "memory"
        counts[name.partition(".")[2], outcome] += 1
        if outcome not in ("same", "other values", "one line"):
            kept = folder / f"fault{i}-{name}"
            kept.write_bytes(raw)
            faults.append(f"{kept.name}: {outcome}, {taken:.0f} MB, {seconds:.1f} s")
    return counts, faults


if __name__ == "__main__":
    number, seed = (int(word) for word in (sys.argv[1:] + ["3000", "0"][len(sys.argv) - 1 :])[:2])
    warnings.simplefilter("ignore")
    with TemporaryDirectory() as folder:
        counts, faults = run(number, seed, Path(folder))
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind:6} {outcome:14} {count}")
    print(*faults, f"{len(faults)} faults", sep="\n")
    sys.exit(bool(faults))

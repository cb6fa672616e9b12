"""Images, and folders of them: cut into grey patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import Source
from shoal.data.images import N_PATCHES, PATCH_SIZE, draw_positions, extract_patches, grey
from shoal.data.readers._base import Options, Reader, array_source, reading, register, require
from shoal.vocabulary import SourceError, check_count

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm")


def _is_folder(path: Path) -> bool:
    return any(file.suffix.lower() in IMAGES for file in path.rglob("*"))


def _open(path: Path, options: Options) -> Source:
    image_module = require("PIL.Image", path.name, "images")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES)
    size = check_count("patch_size", options.get("patch_size", PATCH_SIZE))
    count = options.get("n_patches", N_PATCHES)

    def shape(file: Path) -> tuple[int, int]:
        with reading(file.name, "an image"), image_module.open(file) as image:
            width, height = image.size  # the header alone: pixels aren't decoded
        if min(width, height) < size:
            raise SourceError(
                "source",
                f"image {file.name} of {height} x {width} pixels",
                f"at least {size} x {size}, the patch size",
            )
        return height, width

    def pixels(file: Path) -> NDArray:
        with reading(file.name, "a complete image"), image_module.open(file) as image:
            plain = image if image.mode in ("1", "L", "I;16", "I", "F") else image.convert("RGB")
            return grey(np.asarray(plain))

    shapes = [shape(file) for file in files]
    places = draw_positions(shapes, count, size, _generator(options["random_state"]))
    data = np.empty((len(places.image), size * size), dtype=np.float32)
    for i in np.unique(places.image):  # one image in memory at a time
        here = places.image == i
        at = np.column_stack([places.row[here], places.column[here]])
        data[here] = extract_patches(pixels(files[i]), size, at)
    return array_source(data, path.name, feature_shape=(size, size))


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.Generator):
        return random_state
    return np.random.default_rng(check_count("random_state", random_state, low=0))


READER = register(
    Reader(
        "an image",
        IMAGES,
        ("patch_size", "n_patches"),
        open=_open,
        folder=_is_folder,
        rank=1,  # after the others, since a folder of them may hold pictures too
    )
)

"""`.npz`: read into memory, since a zip has no rows to seek."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shoal.data.access import Source
from shoal.data.readers._base import (
    Options,
    Reader,
    array_source,
    as_rows,
    check_magic,
    choose_key,
    reading,
    register,
    truth_beside,
)
from shoal.data.readers.npy import npy_header
from shoal.data.readers.sparse import from_arrays, holds_sparse


def _open(path: Path, options: Options) -> Source:
    check_magic(path, b"PK", ".npz")
    # An open file, since NumPy leaves its own open when the zip turns out broken.
    with (
        reading(path.name, "a complete .npz file of numeric arrays"),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as archive,
    ):
        shapes = {}
        for word in archive.files:
            with archive.zip.open(f"{word}.npy") as member:
                shapes[word], _ = npy_header(member)
        if options.get("key") is None and holds_sparse(shapes):
            arrays = {word: archive[word] for word in archive.files}
            named = {"feature_shape": options.get("feature_shape")}
            return from_arrays(arrays, path.name, **named)
        chosen = choose_key(shapes, options.get("key"), path.name)
        as_rows(shapes[chosen], f"{chosen} in {path.name}")
        truth = truth_beside(archive.__getitem__, shapes, chosen, path.name)
        array = archive[chosen]
    return array_source(array, path.name, truth=truth, feature_shape=options.get("feature_shape"))


READER = register(Reader("a .npz file", (".npz",), ("key", "feature_shape"), open=_open))

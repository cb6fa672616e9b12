"""MATLAB's `.mat`: up to version 7 by SciPy, into memory; from 7.3 on they are HDF5."""

from __future__ import annotations

from pathlib import Path

from shoal.data.access import Source, float_dtype
from shoal.data.readers._base import (
    Options,
    Reader,
    array_source,
    choose_key,
    open_regular,
    reading,
    register,
)
from shoal.data.readers._limits import check_room
from shoal.data.readers.hdf5 import _file, _found, dense_source
from shoal.data.readers.sparse import sparse_source
from shoal.vocabulary import SourceError

_WHOLE = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_NUMERIC = ("double", "single", "logical", "sparse", *_WHOLE)


def _open(path: Path, options: Options) -> Source:
    with open_regular(path) as file:
        head = file.read(128)
        size = file.seek(0, 2)
    if not head:
        raise SourceError("source", f"{path.name}, which is empty (0 bytes)", "a .mat file")
    if b"MATLAB 7.3" in head:
        return _newer(path, options)
    from scipy.io import loadmat, whosmat

    with reading(path.name, "a .mat file of numeric arrays"):
        listed = {word: shape for word, shape, kind in whosmat(path) if kind in _NUMERIC}
        chosen = choose_key(listed, options.get("key"), path.name)
        entries = 1
        for side in listed[chosen]:
            entries *= int(side)
        check_room(f"{chosen} in {path.name}", 8 * entries, size)
        array = loadmat(path, variable_names=[chosen], chars_as_strings=False)[chosen]
    shape = options.get("feature_shape")
    if hasattr(array, "tocsr"):
        return sparse_source(array, path.name, argument="source", feature_shape=shape)
    float_dtype(array.dtype, "source", f"{chosen} in {path.name}")
    return array_source(array, path.name, feature_shape=shape)


def _newer(path: Path, options: Options) -> Source:
    """Version 7.3: HDF5, with all axes the other way round."""
    with _file(path) as file:
        arrays, _ = _found(file, path.name)
        shapes = {word: array.shape[::-1] for word, array in arrays.items()}
    shapes = {word: shape for word, shape in shapes.items() if not word.startswith("#")}
    chosen = choose_key(shapes, options.get("key"), path.name)
    if len(shapes[chosen]) != 2:
        found = f"{chosen} of shape {shapes[chosen]} in {path.name}"
        raise SourceError("source", found, "a 2-d array (n_samples, n_features)")
    shape = options.get("feature_shape")
    return dense_source(path, chosen, by_columns=True, feature_shape=shape)


READER = register(Reader("a MATLAB file", (".mat",), ("key", "feature_shape"), open=_open))

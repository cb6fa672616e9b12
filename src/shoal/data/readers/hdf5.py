"""HDF5: arrays in `.h5` and `.hdf5`, AnnData's `.h5ad`, MATLAB's `.mat` from version 7.3 on.

Dense arrays are read in runs of rows where they lie; a sparse one of AnnData is read into memory
as CSR and never made dense as a whole. Nothing outside of the file is read: what its arrays keep
in other files is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import ChunkSource, Source, float_dtype
from shoal.data.readers._base import (
    PIECE_ROWS,
    Options,
    Reader,
    Stamp,
    as_rows,
    check_magic,
    choose_key,
    open_regular,
    reading,
    register,
    require,
    truth_beside,
)
from shoal.data.readers._limits import check_room
from shoal.data.readers.sparse import sparse_source
from shoal.vocabulary import ArgumentError, SourceError

_MAGIC = b"\x89HDF\r\n\x1a\n"

# Arbitrary: one chunk is unpacked at a time, and a list of arrays is to be read by a person.
_CHUNK_BYTES, _MOST_ARRAYS = 2**28, 1000

# Where AnnData keeps a matrix of samples by features.
_LAYERS = ("X", "raw/X")


def _open(path: Path, options: Options) -> Source:
    check_magic(path, _MAGIC, "an HDF5")
    with opened(path) as file:
        arrays, groups = found_arrays(file, path.name)
        if groups.get("X") or "X" in arrays:
            return _annotated(path, arrays, groups, options)
        shapes = {word: array.shape for word, array in arrays.items() if array.ndim >= 2}
        chosen = choose_key(shapes, options.get("key"), path.name)
        truth = truth_beside(
            lambda word: _whole(arrays[word], f"{word} in {path.name}"), shapes, chosen, path.name
        )
    return dense_source(path, chosen, truth=truth, feature_shape=options.get("feature_shape"))


def opened(path: Path) -> Any:
    """The file, to be read; no lock is asked for, which read-only disks refuse."""
    h5py = require("h5py", path.name, "hdf5")
    with reading(path.name, "a complete HDF5 file"):
        return h5py.File(path, "r", locking=False)


def found_arrays(file: Any, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Numeric arrays by name, and groups that are sparse arrays; no link is followed."""
    import h5py

    arrays: dict[str, Any] = {}
    groups: dict[str, Any] = {}

    def visit(word: str | bytes, item: Any) -> None:
        if isinstance(word, bytes):  # a name that is no text, which nobody could ask for
            return
        if len(arrays) + len(groups) > _MOST_ARRAYS:
            raise ValueError(f"more than {_MOST_ARRAYS} arrays")
        if isinstance(item, h5py.Dataset):
            if item.dtype.kind in "fiub" and item.ndim:
                arrays[word] = item
        elif {"data", "indices", "indptr"} <= set(item):
            groups[word] = item

    with reading(name, "a complete HDF5 file"):
        file.visititems(visit)
    for word in groups:  # of which the parts are no data
        arrays = {each: a for each, a in arrays.items() if not each.startswith(f"{word}/")}
    return arrays, groups


def _check_here(array: Any, name: str) -> None:
    """Refuse an array whose numbers lie in another file, or in chunks that fill memory."""
    with reading(name, "an array of this file"):
        if array.is_virtual or array.external:
            raise SourceError("source", f"{name}, whose numbers lie in other files", "its own")
        chunk = int(np.prod(array.chunks or (1,))) * array.dtype.itemsize
    if chunk > _CHUNK_BYTES:
        found = f"{name} in chunks of {chunk} bytes"
        raise SourceError("source", found, f"at most {_CHUNK_BYTES}")


def _whole(array: Any, name: str) -> NDArray:
    _check_here(array, name)
    float_dtype(array.dtype, "source", name)
    size = array.size * array.dtype.itemsize
    check_room(name, size, array.id.get_storage_size())
    with reading(name, "a complete HDF5 file"):
        values: NDArray = array[()]
    return values


def dense_source(path: Path, word: str, *, by_columns: bool = False, **named: Any) -> Source:
    """The array `word` of a file, read in runs of rows; `by_columns`, as MATLAB writes them."""
    with open_regular(path) as plain:
        stamp = Stamp.of(plain)
    name = f"{word} in {path.name}"
    with opened(path) as file:
        array = file[word]
        _check_here(array, name)
        shape = array.shape[::-1] if by_columns else array.shape
        (n_samples, n_features), of_a_row = as_rows(shape, name)
        dtype, chunks = float_dtype(array.dtype, "source", name), array.chunks
    along = (chunks[-1] if by_columns else chunks[0]) if chunks else PIECE_ROWS
    run = along * max(1, PIECE_ROWS // along)
    starts = range(0, n_samples, run)

    def piece(i: int) -> Iterator[NDArray]:
        stamp.check(path, path.name)
        first, last = starts[i], min(starts[i] + run, n_samples)
        with opened(path) as file, reading(name, "a complete HDF5 file"):
            array = file[word]
            rows = array[..., first:last].T if by_columns else array[first:last]
            yield np.ascontiguousarray(rows.reshape(last - first, n_features))

    named["feature_shape"] = named.get("feature_shape") or of_a_row
    lengths = [min(run, n_samples - at) for at in starts] or [0]
    return ChunkSource(piece, lengths, n_features, dtype, name=path.name, **named)


def _annotated(
    path: Path, arrays: dict[str, Any], groups: dict[str, Any], options: Options
) -> Source:
    """A matrix of an `.h5ad`: `X`, or ``key="layers/counts"``."""
    every = [w for w in (*arrays, *groups) if w in _LAYERS or w.startswith(("layers/", "obsm/"))]
    chosen = options.get("key") or "X"
    if chosen not in every and f"layers/{chosen}" in every:
        chosen = f"layers/{chosen}"
    if chosen not in every:
        listed = ", ".join(every)
        raise ArgumentError("key", repr(chosen), f"one of the arrays in {path.name}: {listed}")
    name, shape = f"{chosen} in {path.name}", options.get("feature_shape")
    if chosen in arrays:
        return dense_source(path, chosen, feature_shape=shape)
    return _sparse(groups[chosen], path.name, name, feature_shape=shape)


def _sparse(group: Any, file_name: str, name: str, **named: Any) -> Source:
    from scipy import sparse

    with reading(name, "a sparse array as AnnData writes it"):
        form = group.attrs.get("encoding-type", "csr_matrix")
        form = form.decode() if isinstance(form, bytes) else str(form)
        sides = tuple(int(side) for side in group.attrs["shape"])
        parts = [_whole(group[word], f"{word} of {name}") for word in ("data", "indices", "indptr")]
        if form.partition("_")[0] not in ("csr", "csc") or len(sides) != 2:
            raise ValueError(f"{form} of shape {sides}")
        make = sparse.csc_array if form.startswith("csc") else sparse.csr_array
        if len(parts[2]) != sides[int(form.startswith("csc"))] + 1:
            raise ValueError("indptr doesn't fit its shape")
        matrix = make(tuple(parts), shape=sides)
    return sparse_source(matrix, file_name, argument="source", **named)


READER = register(
    Reader("an HDF5 file", (".h5", ".hdf5", ".h5ad"), ("key", "feature_shape"), open=_open)
)

"""Zarr arrays and groups, on disk and open ones, read by chunks."""

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
    as_rows,
    choose_key,
    reading,
    register,
    require,
    truth_beside,
)
from shoal.vocabulary import ArgumentError

_MARKS = ("zarr.json", ".zarray", ".zgroup")


def _is_folder(path: Path) -> bool:
    return path.suffix == ".zarr" or any((path / mark).exists() for mark in _MARKS)


def _open(path: Path, options: Options) -> Source:
    zarr = require("zarr", path.name, "zarr")
    with reading(path.name, "a Zarr array, or a group of arrays"):
        node = zarr.open(path, mode="r")
    if not hasattr(node, "array_keys"):
        if options.get("key") is not None:
            raise ArgumentError(
                "key", repr(options.get("key")), f"to be left out: {path.name} is one array"
            )
        return _array(node, path.name, feature_shape=options.get("feature_shape"))
    with reading(path.name, "a Zarr group of arrays"):
        shapes = {word: tuple(node[word].shape) for word in node.array_keys()}
        chosen = choose_key(shapes, options.get("key"), path.name)
        truth = truth_beside(lambda word: np.asarray(node[word][...]), shapes, chosen, path.name)
        array = node[chosen]
    return _array(array, path.name, truth=truth, feature_shape=options.get("feature_shape"))


def _array(array: Any, name: str, **named: Any) -> Source:
    """A source over an open Zarr array, read in runs of whole chunks."""
    (n_samples, n_features), of_a_row = as_rows(array.shape, name)
    named["feature_shape"] = named.get("feature_shape") or of_a_row
    float_dtype(array.dtype, "source", name)
    chunk = int((getattr(array, "shards", None) or array.chunks)[0])
    run = chunk * max(1, PIECE_ROWS // chunk)
    starts = range(0, n_samples, run)

    def piece(i: int) -> Iterator[NDArray]:
        at = starts[i]
        with reading(name, "a complete Zarr array"):
            rows = np.asarray(array[at : at + run])
        yield rows.reshape(len(rows), n_features)

    lengths = [min(run, n_samples - at) for at in starts]
    return ChunkSource(piece, lengths, n_features, array.dtype, name=name, **named)


def _is_open(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "zarr" and hasattr(value, "chunks")


def _open_object(value: Any, options: Options) -> Source:
    return _array(value, "array", argument="data", feature_shape=options.get("feature_shape"))


READER = register(
    Reader(
        "a Zarr array or group",
        (".zarr",),
        ("key", "feature_shape"),
        open=_open,
        folder=_is_folder,
        holds=_is_open,
        open_object=_open_object,
    )
)

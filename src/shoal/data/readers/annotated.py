"""AnnData in memory: `X`, or a layer by its key. Files of it are HDF5."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from shoal.data.access import Source
from shoal.data.readers._base import Options, Reader, array_source, register
from shoal.data.readers.sparse import sparse_source
from shoal.vocabulary import ArgumentError, SourceError


def _is_annotated(value: Any) -> bool:
    loaded = sys.modules.get("anndata")
    return loaded is not None and isinstance(value, loaded.AnnData)


def _open_annotated(value: Any, options: Options) -> Source:
    key = options.get("key")
    if key is not None and key not in value.layers:
        listed = ", ".join(map(str, value.layers)) or "none"
        raise ArgumentError("key", repr(key), f"a layer of the AnnData, of: {listed}")
    matrix = value.X if key is None else value.layers[key]
    if matrix is None:
        raise SourceError("data", "an AnnData without X", "key= one of its layers")
    names = [str(each) for each in value.var_names]
    shape = options.get("feature_shape")
    if hasattr(matrix, "tocsr"):
        return sparse_source(matrix, "AnnData", feature_names=names, feature_shape=shape)
    return array_source(
        np.asarray(matrix), "AnnData", argument="data", feature_names=names, feature_shape=shape
    )


READER = register(
    Reader(
        "an AnnData object",
        (),
        ("key", "feature_shape"),
        holds=_is_annotated,
        open_object=_open_annotated,
    )
)

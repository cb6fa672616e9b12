"""Fingerprints: whether a data set is the one that work was begun on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from shoal.data.access import RowSource, Source

__all__ = ["fingerprint"]

# Arbitrary: data of so many bytes are looked at as a whole, which takes a tenth of a second; of
# others so many rows, evenly spaced (each may ask for another chunk of a file).
_WHOLE = 2**26
_ROWS, _CHUNKED_ROWS = 1024, 32
_STREAMED_ROWS = 256


def fingerprint(source: Source) -> dict[str, Any]:
    """What tells a data set from another, as plain values; cheap for any size.

    Parameters
    ----------
    source : Source
        Of a stream the next rows are looked at, and kept for its next pass.

    Returns
    -------
    dict
        Shape, type and a digest: of all values where they are few; else of evenly spaced rows (of a
        stream, of the first), with sizes and times of the file or folder behind it.

    Examples
    --------
    >>> from shoal.data import open_source
    >>> one, other = np.zeros((3, 2)), np.zeros((3, 2))
    >>> other[1, 1] = 1e-300
    >>> fingerprint(open_source(one)) == fingerprint(open_source(one.copy()))
    True
    >>> fingerprint(open_source(one)) == fingerprint(open_source(other))
    False
    """
    digest = hashlib.sha256()
    found: dict[str, Any] = {
        "n_samples": source.n_samples,
        "n_features": source.n_features,
        "dtype": str(source.dtype),
    }
    if source.n_samples is None:
        rows = source.draw(_STREAMED_ROWS, np.random.default_rng(0), strict=False)
        digest.update(rows.tobytes())
    elif source.n_samples * source.n_features * source.dtype.itemsize <= _WHOLE:
        for batch in source.batches(source.rows_at_once(4096)):
            digest.update(batch.tobytes())
        return {**found, "values": digest.hexdigest()}
    else:
        behind = source
        while hasattr(behind, "source"):
            behind = behind.source
        most = _ROWS if isinstance(behind, RowSource) else _CHUNKED_ROWS
        most = min(source.n_samples, source.rows_at_once(most))
        index = np.linspace(0, source.n_samples - 1, most).round().astype(np.intp)
        digest.update(source.rows(index).tobytes())
    if (path := source.path or _mapped(source.array)) is not None:
        found["file"] = _stamps(path)
    return {**found, "rows": digest.hexdigest()}


def _mapped(array: Any) -> Path | None:
    """The file of a memory map that an array is a view of."""
    while array is not None:
        if isinstance(array, np.memmap) and array.filename is not None:
            return Path(array.filename)
        array = getattr(array, "base", None)
    return None


def _stamps(path: Path) -> str:
    """A digest of the names, sizes and times of a file, or of all files in a folder."""
    digest = hashlib.sha256()

    def add(name: str, file: str) -> None:
        try:
            seen = os.stat(file)
        except OSError:
            return
        digest.update(f"{name}\0{seen.st_size}\0{seen.st_mtime_ns}\n".encode(errors="replace"))

    if not path.is_dir():
        add("", str(path))
    for folder, inner, files in os.walk(path):
        inner.sort()
        for name in sorted(files):
            file = os.path.join(folder, name)
            add(os.path.relpath(file, path), file)
    return digest.hexdigest()

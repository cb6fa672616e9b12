"""The kinds of data that can be opened, one module a kind.

A new format is one new module here which registers its :class:`Reader`; a user's own is the
same call from outside:

>>> from pathlib import Path
>>> import numpy as np
>>> from shoal.data import open_source
>>> from shoal.data.readers import Reader, array_source, register
>>> def open_text(path, options):
...     return array_source(np.loadtxt(path, ndmin=2), path.name)
>>> _ = register(Reader("a table in a .dat file", (".dat",), (), open=open_text))
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import stat
from pathlib import Path
from typing import Any

from shoal.data.access import Source
from shoal.data.readers._base import (
    Options,
    Reader,
    array_source,
    as_rows,
    check_regular,
    no_memory,
    readers,
    reading,
    register,
)
from shoal.vocabulary import ArgumentError, SourceError

__all__ = [
    "Options",
    "Reader",
    "array_source",
    "as_rows",
    "endings",
    "open_object",
    "open_path",
    "reader_of",
    "readers",
    "reading",
    "refuse_options",
    "register",
]

# A path loses the second slash: `Path("s3://a")` is "s3:/a". One letter is a drive.
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.:-]+:/")

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    if not _module.name.rpartition(".")[2].startswith("_"):
        importlib.import_module(_module.name)


def endings() -> str:
    """All endings that can be opened, separated by spaces."""
    return " ".join(dict.fromkeys(ending for reader in readers() for ending in reader.suffixes))


def refuse_options(options: Options, takes: tuple[str, ...], name: str) -> None:
    """Refuse an option that `name` would ignore."""
    for word, value in options.items():
        if value is not None and word not in (*takes, "random_state"):
            raise ArgumentError(word, repr(value), f"to be left out: {name} has no use for it")


def open_path(path: Path, options: Options) -> Source:
    """The source in a file or folder, by its ending."""
    try:
        path = path.expanduser()
        path = path if path.name else path.resolve()  # "." has no name
        mode = path.stat().st_mode
    except FileNotFoundError:
        if _URL.match(str(path)):
            raise SourceError(
                "source", f"the URL {str(path)!r}", "a file on this machine: fetch it first"
            ) from None
        raise SourceError("source", f"no file at {str(path)!r}", "a path that exists") from None
    except (OSError, ValueError, RuntimeError) as error:  # too long, NUL, no home, a loop
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SourceError("source", f"{str(path)!r} ({reason})", "a path that exists") from error
    if not stat.S_ISDIR(mode):
        check_regular(mode, path.name)
    reader = _reader(path)
    refuse_options(options, reader.options, path.name)
    assert reader.open is not None  # `_reader` asks only those that open paths
    try:
        source = reader.open(path, options)
    except MemoryError as error:
        raise no_memory(path.name) from error
    source.path = path
    return source


def _reader(path: Path) -> Reader:
    asked = [reader for reader in readers() if reader.open is not None]
    ending = path.suffix.lower()
    name = path.name.lower()
    by_ending = next((reader for reader in asked if name.endswith(reader.suffixes)), None)
    if path.is_dir():
        for reader in asked:
            if reader.folder is not None and reader.folder(path):
                return reader
        if by_ending is not None and by_ending.folder is None:
            found = f"{path.name}, which is a folder"
            raise SourceError("source", found, f"{by_ending.name}, or a folder of another name")
        images = " ".join(asked[-1].suffixes)
        raise SourceError("source", f"a folder without images, {path.name!r}", f"images ({images})")
    if by_ending is None:
        raise SourceError("source", f"the ending {ending!r} of {path.name}", f"one of {endings()}")
    return by_ending


def open_object(value: Any, options: Options) -> Source | None:
    """The source over an open object of a kind that a reader knows; None for any other."""
    reader = reader_of(value)
    if reader is None or reader.open_object is None:
        return None
    refuse_options(options, reader.options, f"a {type(value).__name__}")
    return reader.open_object(value, options)


def reader_of(value: Any) -> Reader | None:
    """The reader that a file (by its ending) or an open object has, if any."""
    if isinstance(value, (str, Path)):
        name = Path(value).name.lower()
        return next((each for each in readers() if name.endswith(each.suffixes)), None)
    return next((each for each in readers() if each.holds is not None and each.holds(value)), None)

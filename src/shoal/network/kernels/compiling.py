"""How the CPU kernels are compiled by numba, and kept on disk for the next process.

numba's own cache trusts its files: one that was cut short, by a power failure or a full disk, ends
every later call in an exception, and a flipped bit is run as it is. Here a file holds a checksum,
its name says all that it was made from, and whatever is wrong with it costs a compilation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache, update_wrapper
from hashlib import sha256
from inspect import signature
from pathlib import Path
from types import FunctionType
from typing import Any

import llvmlite
import numba
from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile

__all__ = ["apart", "inline", "on_threads", "shared"]

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("NUMBA_DISABLE_JIT is set, and vectors exist in compiled code only")

_log = logging.getLogger("shoal")
# What has been said already: once a process.
_said: set[str] = set()


def _say_once(subject: str, level: int, text: str, *values: Any) -> None:
    if subject not in _said:
        _said.add(subject)
        _log.log(level, text, *values)


@cache
def _made_from() -> str:
    """What all compiled functions depend on: a function's own file isn't all that it calls."""
    whole = sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for name in ("compiled", "compiling", "pursuits", "untied", "vector"):
        whole.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return whole.hexdigest()[:12]


class _File(IndexDataCacheFile):
    """numba's files, which end with a checksum: what is behind its data numba doesn't look at."""

    def _dump(self, data: Any) -> bytes:
        content: bytes = super()._dump(data)
        return content + sha256(content).digest()


class _Cache(FunctionCache):
    """A file for each function and types of its arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._file = _File(self.cache_path, self._impl.filename_base, None)

    def _path(self, types: Any, codegen: Any) -> Path:
        key = sha256(repr(self._index_key(types, codegen)).encode()).hexdigest()[:16]
        name = f"{self._impl.filename_base}.{_made_from()}.{key}.nbc"
        return Path(self.cache_path) / name

    def load_overload(self, types: Any, target: Any) -> Any:
        target.refresh()
        found = None
        if self._enabled:
            path = self._path(types, target.codegen())
            try:
                found = self._read(path, target)
            except Exception as error:
                _remove(path)
                text = "%s: not a compiled kernel (%s); it and others like it are compiled anew"
                _say_once("damaged", logging.WARNING, text, path, error)
        if found is None:
            _say_once("compiling", logging.INFO, "compiling kernels for this machine, once")
        return found

    def _read(self, path: Path, target: Any) -> Any:
        if not path.exists():
            return None
        if not path.is_file():  # a pipe would be waited for
            raise OSError("not a regular file")
        content = path.read_bytes()
        if sha256(content[:-32]).digest() != content[-32:]:
            raise ValueError("damaged")
        return self._impl.rebuild(target, self._file._load_data(path.name))

    def save_overload(self, types: Any, compiled: Any) -> None:
        if not self._enabled or not self._impl.check_cachable(compiled):
            return
        path = self._path(types, compiled.codegen)
        try:
            self._impl.locator.ensure_cache_path()
            self._file._save_data(path.name, self._impl.reduce(compiled))
            for old in path.parent.glob(f"{self._impl.filename_base}.*.nbc"):
                if not old.name.startswith(path.name.rsplit(".", 2)[0]):
                    _remove(old)
        except Exception as error:
            text = "compiled kernels can't be kept, so that each process compiles its own: %s"
            _say_once("unkept", logging.WARNING, text, error)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def _kept(function: Callable[..., Any], **options: Any) -> Any:
    compiled = njit(nogil=True, error_model="numpy", **options)(function)
    compiled._cache = _Cache(function)  # what njit(cache=True) does, with numba's own
    return compiled


def inline(function: Callable[..., Any]) -> Any:
    """Compiled into each function that calls it."""
    return _kept(function, forceinline=True)


def apart(function: Callable[..., Any]) -> Any:
    """Compiled once, and called."""
    return _kept(function)


def on_threads(function: Callable[..., Any]) -> Any:
    """Compiled with its ``prange`` on numba's threads."""
    return _kept(function, parallel=True)


class shared:
    """A function whose ``prange`` is over as many parts as its argument `parts` says.

    It is compiled twice: for numba's threads, and for one part to run where it is called. That one
    starts no threads, needs no turn, and serves where threads can't be had. Both give the same
    bits, as the function cuts its work up itself.
    """

    def __init__(self, function: Any) -> None:
        update_wrapper(self, function)
        self._parts = list(signature(function).parameters).index("parts")
        self._together = on_threads(function)
        # Under another name, which is what tells their files apart.
        alone = FunctionType(function.__code__, function.__globals__, function.__name__ + "_alone")
        alone.__qualname__ = alone.__name__
        self._alone = apart(alone)

    def __call__(self, *arguments: Any) -> Any:
        """`function` of these arguments, by position."""
        one = arguments[self._parts] == 1
        return (self._alone if one else self._together)(*arguments)

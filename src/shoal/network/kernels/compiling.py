"""How the CPU kernels are compiled by numba, and kept on disk for the next process.

numba's own cache trusts its files: one that was cut short, by a power failure or a full disk, ends
every later call in an exception, and a flipped bit is run as it is. Here a file holds a checksum,
its name says all that it was made from, and whatever is wrong with it costs a compilation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, update_wrapper
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite.binding import parse_bitcode
from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering
from numba.core.types import unliteral

__all__ = ["apart", "inline", "shared", "within"]

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("NUMBA_DISABLE_JIT is set, and vectors exist in compiled code only")

DELIVERED = Path(__file__).with_name("delivered")
"""Where a package has what was compiled when it was built."""

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

    def read(self, path: Path) -> Any:
        """What a file holds; None where there is none."""
        if not path.exists():
            return None
        if not path.is_file():  # a pipe would be waited for
            raise OSError("not a regular file")
        content = path.read_bytes()
        if sha256(content[:-32]).digest() != content[-32:]:
            raise ValueError("damaged")
        return self._load_data(str(path))


class _Cache(FunctionCache):
    """A file for each function and types of its arguments, and what came with the package.

    The package, where it was built with :mod:`shoal.network.kernels.ahead`, brings the functions as
    LLVM has optimised them; what a processor asks for is left to do, and is done in a second.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._file = _File(self.cache_path, self._impl.filename_base, None)

    def _file_name(self, types: Any, codegen: Any, *, delivered: bool = False) -> str:
        types, machine, code = self._index_key(types, codegen)
        machine = machine[0] if delivered else machine
        key = sha256(repr((types, machine, code)).encode()).hexdigest()[:16]
        return f"{self._impl.filename_base}.{_made_from()}.{key}.nbc"

    def _path(self, types: Any, codegen: Any) -> Path:
        return Path(self.cache_path) / self._file_name(types, codegen)

    def load_overload(self, types: Any, target: Any) -> Any:
        target.refresh()
        found, codegen = None, target.codegen()
        if self._enabled:
            path = self._path(types, codegen)
            found = self._read(path, lambda: self._file.read(path), target)
            if found is None:
                _say_once("compiling", logging.INFO, "compiling kernels for this machine, once")
                path = DELIVERED / self._file_name(types, codegen, delivered=True)
                found = self._read(path, lambda: self._finished(path, types, codegen), target)
        return found

    def _read(self, path: Path, read: Callable[[], Any], target: Any) -> Any:
        try:
            data = read()
            return None if data is None else self._impl.rebuild(target, data)
        except Exception as error:
            _remove(path)
            text = "%s: not a compiled kernel (%s); it and others like it are compiled anew"
            _say_once("damaged", logging.WARNING, text, path, error)
            return None

    def _finished(self, path: Path, types: Any, codegen: Any) -> Any:
        """What was delivered, compiled for this processor and kept; None where nothing was."""
        if (data := self._file.read(path)) is None:
            return None
        (name, _, bitcode), *rest = data
        code = codegen._tm.emit_object(parse_bitcode(bitcode))
        data = ((name, "object", (code, bitcode)), *rest)
        self._keep(self._path(types, codegen), lambda: data)
        return data

    def save_overload(self, types: Any, compiled: Any) -> None:
        if self._enabled and self._impl.check_cachable(compiled):
            path = self._path(types, compiled.codegen)
            self._keep(path, lambda: self._impl.reduce(compiled))

    def _keep(self, path: Path, reduced: Callable[[], Any]) -> None:
        try:
            self._impl.locator.ensure_cache_path()
            self._file._save_data(path.name, reduced())
            for old in path.parent.glob(f"{self._impl.filename_base}.*.nbc"):
                if not old.name.startswith(path.name.rsplit(".", 2)[0]):
                    _remove(old)
        except Exception as error:
            text = "compiled kernels can't be kept, so that each process compiles its own: %s"
            _say_once("unkept", logging.WARNING, text, error)

    def deliver(self, types: Any, compiled: Any, folder: Path) -> None:
        """Write what a package brings of a function, which was compiled by this process."""
        name = self._file_name(types, compiled.codegen, delivered=True)
        data = self._impl.reduce(compiled)
        module = compiled.library._get_module_for_linking()
        (library, *_), *rest = data
        data = ((library, "bitcode", module.as_bitcode()), *rest)
        (folder / name).write_bytes(self._file._dump(data))


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


class _Part(JITCodeLibrary):
    """The code of a function that others are made of: it is optimised with them, and never run."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(NativeLowering):
    _name = "part_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _Part(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        state.flags.no_compile = True
        super().run_pass(state)
        # numba knows functions by something built in that can be called: here it raises.
        nothing: dict[Any, Any] = {}
        key = nothing.__getitem__
        state.cr = state.cr._replace(cfunc=key)
        state.targetctx.insert_user_function(key, state.cr.fndesc, [state.library])
        return True


class _PartCompiler(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.passes = [
            (_PartLowering if each is NativeLowering else each, why)
            for each, why in pipeline.passes
        ]
        pipeline.finalize()
        return [pipeline]


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    compiled = njit(nogil=True, error_model="numpy", **options)(function)
    template = compiled.get_call_template

    def get_call_template(types: Any, names: Any) -> Any:
        # Not once more for an argument that is a constant.
        return template(tuple(map(unliteral, types)), names)

    compiled.get_call_template = get_call_template
    return compiled


def inline(function: Callable[..., Any]) -> Any:
    """Compiled into each function that calls it, and for these only."""
    return _compiled(function, pipeline_class=_PartCompiler, forceinline=True)


def within(function: Callable[..., Any]) -> Any:
    """Compiled together with the functions that call it, and for these only."""
    return _compiled(function, pipeline_class=_PartCompiler)


def apart(function: Callable[..., Any]) -> Any:
    """Compiled by itself, kept on disk, and called."""
    compiled = _compiled(function)
    compiled._cache = _Cache(function)  # what njit(cache=True) does, with numba's own
    return compiled


_team: ThreadPoolExecutor | None = None


def _together(function: Callable[..., None], arguments: tuple[Any, ...], parts: int) -> None:
    """`function` of these arguments and each part's number, by as many threads."""
    global _team
    rest = list(range(1, parts))
    ended = []
    try:
        if _team is None:  # it starts no more threads than are at work at once
            _team = ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS, "shoal")  # type: ignore[attr-defined]
        while rest:
            ended.append(_team.submit(function, *arguments, rest[-1]))
            rest.pop()
    except RuntimeError:  # no thread is to be had, or the interpreter is about to end
        pass
    try:
        for part in (0, *rest):
            function(*arguments, part)
    finally:
        for each in ended:  # they write to what the caller has
            each.exception()
    for each in ended:
        each.result()


class shared:
    """A function that does one of `parts` parts of its work: the last argument says which.

    Called without that one it does them all, each by a thread of its own; where there is one, that
    is the caller's. It gives the same bits for any number: parts are rows or atoms of their own.
    """

    def __init__(self, function: Any) -> None:
        update_wrapper(self, function)
        self._parts = list(signature(function).parameters).index("parts")
        self.one = apart(function)

    def __call__(self, *arguments: Any) -> None:
        """`function` of these arguments, by position."""
        parts = arguments[self._parts]
        if parts == 1:
            self.one(*arguments, 0)
        else:
            _together(self.one, arguments, parts)

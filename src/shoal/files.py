"""Files that are there whole or not at all.

What is written goes to a temporary neighbour first and gets its final name in one step.
Any failure on the way, a full disk or an interrupt included, removes the neighbour and
leaves what stood under the final name as it was.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal.vocabulary import RunError

__all__ = ["check_free", "check_replaceable", "whole_file", "whole_folder", "write_bytes"]


def _neighbour(path: Path) -> Path:
    # The process id keeps two writers apart; mkstemp would not keep the umask.
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _failure(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{path}: can't be written ({error.strerror or error}); needed a place with room "
        "that can be written to"
    )


def check_free(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """`path`, if a result may be put there; asked before any work starts.

    Raises
    ------
    RunError
        Where something is there already and `overwrite` is false, or the parent folder
        can't be made or written to.
    """
    path = Path(path)
    if path.name in ("", ".."):  # ".", "/" and the like can't be moved aside
        raise RunError(f"{path}: is no name for a result; needed one, such as {path / 'run'}")
    if os.path.lexists(path) and not overwrite:
        raise RunError(f"{path}: exists already; needed a new name, or --force to replace it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _failure(path, error) from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise RunError(f"{path}: its folder can't be written to; needed one that can")
    return path


def check_replaceable(path: str | os.PathLike[str], names: Collection[str]) -> None:
    """Refuse to replace a folder that holds anything but the files in `names`.

    Raises
    ------
    RunError
        That names what else is there, or that `path` is a file.
    """
    path = Path(path)
    if not path.is_dir():
        if os.path.lexists(path):
            raise RunError(f"{path}: is a file; needed a folder to replace, or a new name")
        return
    others = sorted(each.name for each in path.iterdir() if each.name not in names)
    if others:
        raise RunError(
            f"{path}: holds more than a run ({others[0]}); needed a run folder, or a new name"
        )


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to; it becomes `path` when the block ends well.

    Raises
    ------
    RunError
        Where writing fails for a reason of the file system's.
    """
    path = Path(path)
    temporary = _neighbour(path)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _failure(path, error) from error
    finally:
        _remove(temporary)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """`data` in `path`, all or nothing."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


@contextmanager
def whole_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder to fill; it becomes `path` when the block ends well.

    With `overwrite` it takes the place of what was there, which is removed last.

    Raises
    ------
    RunError
        Where something is there and `overwrite` is false, or writing fails for a reason of
        the file system's.
    """
    path = check_free(path, overwrite=overwrite)
    temporary = _neighbour(path)
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        _remove(temporary)
        temporary.mkdir()
        yield temporary
        try:
            if os.path.lexists(path):
                os.replace(path, old)
            os.replace(temporary, path)
        except BaseException:
            if os.path.lexists(old) and not os.path.lexists(path):
                os.replace(old, path)
            raise
    except OSError as error:
        raise _failure(path, error) from error
    finally:
        _remove(temporary)
        if os.path.lexists(path):
            _remove(old)

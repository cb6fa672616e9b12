"""Files that are there whole or not at all, whoever else writes and whenever it ends.

What is written goes to a hidden neighbour first and gets its final name in one rename, after
its bytes are on the disk. A name is claimed, by a lock that ends with the process, before work
starts: of two writers the second hears of the first at once. A result takes a free name or none,
or changes places with what was there; at no moment is the name empty or half of one and half
of the other. Any failure on the way, a full disk or an interrupt included, leaves what stood
under the name as it was. What a killed process leaves beside it is removed by the next one that
writes into the same folder.

=================================  ==========================================================
beside ``NAME``                    what
=================================  ==========================================================
``.NAME.shoal.lock``               held by who has claimed the name
``.NAME.TOKEN.shoal.partial``      what is being written, or what has just been replaced
``.NAME.TOKEN.shoal.old``          what is being replaced, where two names can't change places
=================================  ==========================================================

Linux has the two renames that this asks for, on its usual file systems. Elsewhere a free name is
looked for and then taken, and an old result steps aside before the new one comes: a kill
between the two leaves it aside, and the next writer of that name puts it back. Where there are
no locks (Windows, some network file systems) two writers don't hear of each other, and nothing
that a killed one left is removed. The first four letters of TOKEN stand for the computer: what
another one has written to a shared folder is left alone for a day, since not every such
folder carries locks from one to the other.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import string
import sys
import time
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

from shoal.vocabulary import RunError, WriteError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "Claim",
    "check_free",
    "check_replaceable",
    "claim",
    "is_left_over",
    "whole_file",
    "whole_folder",
    "write_bytes",
]

_DAY = 86_400.0  # seconds for which another computer's leftovers may still be in use
_LONGEST = 200  # bytes of a name; what is hidden adds 30, and file systems end at 255
_LEFT = re.compile(
    r"\.(?P<stem>.+?)(?:\.(?P<host>[a-z]{4})[a-z]{8})?\.shoal\.(?P<kind>lock|partial|old)"
)
_HASHED = re.compile("~[0-9a-f]{16}$")  # the end of a name that was too long
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
_NO_SUCH_RENAME = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


# --------------------------------------------------------------------------- names


@cache
def _host() -> str:
    """Four letters that stand for this computer."""
    digest = hashlib.sha256(socket.gethostname().encode()).digest()
    return "".join(string.ascii_lowercase[byte % 26] for byte in digest[:4])


def _stem(path: Path) -> str:
    raw = os.fsencode(path.name)
    if len(raw) <= _LONGEST:
        return path.name
    return f"{path.name[:32]}~{hashlib.sha256(raw).hexdigest()[:16]}"


def _neighbour(path: Path, kind: str) -> Path:
    # Letters, so that it is no number of a process; mkstemp would not keep the umask.
    token = _host() + "".join(secrets.choice(string.ascii_lowercase) for _ in range(8))
    return path.with_name(f".{_stem(path)}.{token}.shoal.{kind}")


def _lock_name(path: Path) -> Path:
    return path.with_name(f".{_stem(path)}.shoal.lock")


def is_left_over(name: str) -> bool:
    """Whether a file of that name is one that this module hides beside a result."""
    return _LEFT.fullmatch(name) is not None


# --------------------------------------------------------------------------- locks


class _Busy(Exception):
    """Another holds the lock; the text says who."""


def _lock(file: Path) -> int | None:
    """An open descriptor that holds the lock `file`; None where there are no locks."""
    if fcntl is None:
        return None
    while True:
        descriptor = _open_lock(file)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(descriptor, file):
                return descriptor
        except BlockingIOError:
            who = _holder(descriptor)
            os.close(descriptor)
            raise _Busy(who) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            with suppress(OSError):
                os.unlink(file)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has removed it in the meantime: once more


def _open_lock(file: Path) -> int:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:  # another user's, who may be gone: to be read is enough
        return os.open(file, os.O_RDONLY | flags)


def _is(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    words = _lock_text(descriptor).split()
    return f"process {words[1]} on {words[2]}" if len(words) == 3 else "another process"


def _lock_text(descriptor: int) -> str:
    try:
        return os.pread(descriptor, 300, 0).decode("ascii", "replace")
    except OSError:
        return ""


def _sign(descriptor: int) -> None:
    """Say in the lock who holds it; for messages, and for other computers."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        host = re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII) or "-"
        os.pwrite(descriptor, f"{_host()} {os.getpid()} {host}\n".encode(), 0)


def _release(file: Path, descriptor: int, process: int) -> None:
    if os.getpid() != process:  # a fork's copy: the lock is its parent's
        return
    try:
        # While it is held: whoever opened it before sees that it is gone, and tries again.
        with suppress(OSError):
            os.unlink(file)
    finally:
        with suppress(OSError):
            os.close(descriptor)


class Claim(os.PathLike[str]):
    """A name that this process alone writes to, until the block ends or the process does.

    It stands for the path: what writes a result takes it in the path's place, and then doesn't
    claim the name again. Made by :func:`claim`.

    Attributes
    ----------
    path : Path
    overwrite : bool
        Whether what is there may be replaced.
    names : collection of str or None
        All that a folder to be replaced may hold; None for anything.
    """

    def __init__(
        self, path: Path, overwrite: bool, names: Collection[str] | None, descriptor: int | None
    ) -> None:
        self.path, self.overwrite, self.names = path, overwrite, names
        self._end: Any = None
        if descriptor is not None:
            # Where nobody ends it, as of a generator that is dropped, its collection does.
            file = Path(os.path.abspath(_lock_name(path)))
            self._end = weakref.finalize(self, _release, file, descriptor, os.getpid())

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let others claim the name."""
        if self._end is not None:
            self._end()


def claim(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    names: Collection[str] | None = None,
) -> Claim:
    """Claim `path` for a result; asked before any work starts, and held until it is written.

    Parameters
    ----------
    path : path
        Its folder is made where there is none.
    overwrite : bool
        Whether what is there may be replaced.
    names : collection of str, optional
        What a folder to be replaced may hold: with anything else in it it is left alone.

    Returns
    -------
    Claim
        For a ``with`` block, and to be given to what writes.

    Raises
    ------
    RunError
        Where something is there already and `overwrite` is false, another process has claimed
        the name, or the parent folder can't be made or written to.

    Examples
    --------
    >>> import tempfile
    >>> run = Path(tempfile.mkdtemp()) / "run"
    >>> with claim(run) as held, whole_folder(held) as partial:
    ...     _ = (partial / "result").write_text("42")
    >>> (run / "result").read_text()
    '42'
    """
    path = check_free(path, overwrite=overwrite)
    try:
        descriptor = _lock(_lock_name(path))
    except _Busy as busy:
        raise RunError(
            f"{path}: {busy} is writing it; needed a new name, or to wait until that is done"
        ) from None
    except OSError as error:
        raise RunError(_failure(path, error)) from error
    held = Claim(path, overwrite, names, descriptor)
    try:
        if descriptor is not None:
            _sign(descriptor)
            _clear(path)
            _remove_abandoned(path.parent, _stem(path))
        check_free(path, overwrite=overwrite)  # who held it until now may have written it
        if overwrite and names is not None:
            check_replaceable(path, names)
    except BaseException:
        held.release()
        raise
    return held


# --------------------------------------------------------------------------- what killed ones left


def _clear(path: Path) -> None:
    """Tidy up beside `path`, whose lock is held: whoever left anything there is gone."""
    for entry, match in _hidden(path.parent):
        if match["stem"] != _stem(path):
            continue
        if match["kind"] == "old":  # killed between two renames
            if _HASHED.search(path.name):
                continue  # the name was longer: its next writer knows it
            with suppress(OSError):
                if not os.path.lexists(path):
                    os.rename(entry, path)
                else:
                    _remove(entry)
        elif match["kind"] == "partial" and _may_go(entry, match["host"]):
            _remove(entry)


def _remove_abandoned(folder: Path, but: str) -> None:
    """Remove what ended processes have left in `folder` under other names than `but`."""
    for stem in {match["stem"] for _, match in _hidden(folder)} - {but}:
        file = folder / f".{stem}.shoal.lock"
        try:
            descriptor = _lock(file)
        except (_Busy, OSError):
            continue  # at work, or not ours
        if descriptor is None:
            return
        try:
            host = _lock_text(descriptor).split()[:1]
            _clear(folder / stem)
        finally:
            if not host or _may_go(file, host[0]):
                _release(file, descriptor, os.getpid())
            else:
                os.close(descriptor)


def _hidden(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = ((folder / name, _LEFT.fullmatch(name)) for name in names if name.startswith("."))
    return [(entry, match) for entry, match in found if match is not None]


def _may_go(entry: Path, host: str | None) -> bool:
    """Whether its writer is surely gone, given that its lock is free here."""
    if host == _host():
        return True
    try:
        return time.time() - os.lstat(entry).st_mtime > _DAY
    except OSError:
        return False


def _remove(path: Path) -> None:
    """As far as it goes: what stays is left to the next writer."""
    with suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


# --------------------------------------------------------------------------- asked before work


def _failure(path: Path, error: OSError) -> str:
    return (
        f"{path}: can't be written ({error.strerror or error}); needed a place with room "
        "that can be written to"
    )


def _taken(path: Path) -> str:
    return f"{path}: exists already; needed a new name, or overwrite=True to replace it"


def check_free(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """`path`, if a result may be put there; :func:`claim` asks, and sees to it that it stays so.

    Raises
    ------
    RunError
        Where something is there already and `overwrite` is false, or the parent folder
        can't be made or written to.
    """
    path = Path(path)
    if path.name in ("", ".."):  # ".", "/" and the like can't be moved aside
        raise RunError(f"{path}: is no name for a result; needed one, such as {path / 'run'}")
    try:
        if os.path.lexists(path) and not overwrite:
            raise RunError(_taken(path))
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(_failure(path, error)) from error
    except ValueError as error:  # a NUL character
        raise RunError(f"{str(path)!r}: is no name for a file ({error}); needed one") from None
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
    others = sorted(
        each.name
        for each in path.iterdir()
        if each.name not in names and not is_left_over(each.name)
    )
    if others:
        raise RunError(
            f"{path}: holds more than a run ({others[0]}); needed a run folder, or a new name"
        )


# --------------------------------------------------------------------------- writing


@contextmanager
def whole_file(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """A temporary path to write to; it becomes `path` when the block ends well.

    Parameters
    ----------
    path : path or Claim
    overwrite : bool
        Whether a file that is there may be replaced; a claim says so itself.

    Raises
    ------
    RunError
        Where the name is taken or claimed by another process.
    WriteError
        Where writing fails for a reason of the file system's.
    """
    with _neighbour_of(path, overwrite=overwrite) as (held, temporary):
        yield temporary
        _sync(temporary)
        if held.overwrite:
            os.replace(temporary, held.path)
        else:
            _take(temporary, held.path)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """`data` in `path`, all or nothing."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


@contextmanager
def whole_folder(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    names: Collection[str] | None = None,
) -> Iterator[Path]:
    """A temporary folder to fill; it becomes `path` when the block ends well.

    Parameters
    ----------
    path : path or Claim
    overwrite : bool
        Whether it may take the place of what is there, which is removed last; a claim says so
        itself.
    names : collection of str, optional
        As of :func:`claim`.

    Raises
    ------
    RunError
        Where the name is taken or claimed by another process.
    WriteError
        Where writing fails for a reason of the file system's.
    """
    with _neighbour_of(path, overwrite=overwrite, names=names) as (held, temporary):
        os.mkdir(temporary)
        yield temporary
        for folder, _, files in os.walk(temporary, topdown=False):
            for name in files:
                _sync(Path(folder, name))
            _sync(Path(folder))
        if held.overwrite:
            _change_places(temporary, held)
        else:
            _take(temporary, held.path)


@contextmanager
def _neighbour_of(path: str | os.PathLike[str], **asked: Any) -> Iterator[tuple[Claim, Path]]:
    """The claim on `path` and a hidden neighbour; failures in one line, and what then stays."""
    held = path if isinstance(path, Claim) else claim(path, **asked)
    temporary = _neighbour(held.path, "partial")
    try:
        yield held, temporary
        _sync(held.path.parent)  # the name itself
    except FileExistsError as error:
        if os.path.lexists(held.path) and not held.overwrite:
            raise RunError(_taken(held.path)) from error
        raise WriteError(_failure(held.path, error)) from error
    except OSError as error:
        raise WriteError(_failure(held.path, error)) from error
    finally:
        _remove(temporary)
        if held is not path:
            held.release()


def _sync(path: Path) -> None:
    """Have the bytes of a file, or the names in a folder, on the disk."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return  # can't be opened there
    # Windows syncs only what is open for writing.
    descriptor = os.open(path, os.O_RDONLY if folder or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems know no sync of a folder.
        if not folder or error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


# --------------------------------------------------------------------------- renames

_NOREPLACE, _EXCHANGE = 1, 2  # of linux/fs.h
_AT_FDCWD = -100


@cache
def _renameat2() -> Any:
    try:
        return ctypes.CDLL(None, use_errno=True).renameat2 if sys.platform == "linux" else None
    except (OSError, AttributeError):  # glibc before 2.28
        return None


def _rename(source: Path, target: Path, flag: int) -> bool:
    """Rename in the way that `flag` says; False where that can't be done here."""
    function = _renameat2()
    if function is None:
        return False
    names = os.fsencode(source), os.fsencode(target)
    if function(_AT_FDCWD, names[0], _AT_FDCWD, names[1], flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_SUCH_RENAME:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


def _take(temporary: Path, path: Path) -> None:
    """Give `temporary` the name `path`; FileExistsError where it is taken."""
    if _rename(temporary, path, _NOREPLACE):
        return
    if temporary.is_dir():
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.rename(temporary, path)  # fails at a file, and at a folder that isn't empty
        return
    try:
        os.link(temporary, path)  # fails where there is anything
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.rename(temporary, path)


def _change_places(temporary: Path, held: Claim) -> None:
    """Have `temporary` under the name; what was there is hidden, to be removed."""
    path = held.path
    if not os.path.lexists(path):
        with suppress(FileExistsError):  # come in the meantime
            return _take(temporary, path)
    if held.names is not None:
        check_replaceable(path, held.names)  # once more: it was asked before the work
    if _rename(temporary, path, _EXCHANGE):
        return None
    aside = _neighbour(path, "old")
    try:
        os.rename(path, aside)
        os.rename(temporary, path)
    except BaseException:
        if os.path.lexists(aside) and not os.path.lexists(path):
            os.rename(aside, path)
        raise
    finally:
        if os.path.lexists(path):
            _remove(aside)
    return None

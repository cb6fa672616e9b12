"""What a run folder's files are, how they are written down and how they are read.

=========================  =====================================================
file                       what
=========================  =====================================================
``config.json``            what was run, on what, and how far it can be trusted
``dictionary.safetensors`` dictionary, bias, preprocessing, per-atom statistics
``history.jsonl``          learning curves, one record per line
``report.html``            the page
``atoms.png``              the atoms as one picture
=========================  =====================================================

Format 2 notices damage. ``config.json`` names the run (``run_id``), says size and SHA-256 of the
tensors and of the history (``files``), and ends with its own ``checksum``: the SHA-256 of its
bytes with zeros in that place. The tensors carry the same name in their metadata. The page and the
picture are made of these three and may be made again, so each carries the name and its own check:
a last line with the SHA-256 of all above it, and the check sums of the PNG format.
Format 1 had none of it and is still read.

Only regular files are read, each no longer than its limit, all from one opened folder: where the
run is replaced in the meantime its reading begins anew.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from shoal.files import Claim, check_free, check_replaceable, claim
from shoal.vocabulary import RunError, printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "RUN_FILES",
    "Contents",
    "FileState",
    "check_folder",
    "check_run_folder",
    "claim_run",
    "page_with_checksum",
    "read_folder",
    "sealed",
    "verify",
]

_Found = TypeVar("_Found")

FORMAT = "shoal-run"
FORMAT_VERSION = 2
RUN_FILES = (
    "config.json",
    "dictionary.safetensors",
    "history.jsonl",
    "report.html",
    "atoms.png",
)
SUMMED = ("dictionary.safetensors", "history.jsonl")
"""The files whose check sums are in the configuration."""

_DEEPEST = 64  # levels of JSON; a recipe has 5
_LARGEST = 2**63  # of whole numbers: what counts and seeds fit into
# Bytes, arbitrary: a configuration of 100 000 atoms has some 10 MB.
_LIMITS = {"config.json": 2**28, "history.jsonl": 2**30, "report.html": 2**30, "atoms.png": 2**30}
_MOST_TENSORS = 2**36  # where the configuration doesn't say what to expect
_ZEROS = "0" * 64
_PAGE_END = re.compile(rb"<!-- shoal run ([0-9a-f]{32}) sha256 ([0-9a-f]{64}) -->\n\Z")


@dataclass(frozen=True)
class Contents:
    """A run folder's files, read and checked against each other.

    Attributes
    ----------
    path : Path
        The folder.
    config : dict
        ``config.json``, with every non-finite number replaced by None.
    tensors : dict of str to ndarray
        All of ``dictionary.safetensors``; ``dictionary`` is one of them, a matrix.
    history : list of dict
        The records of ``history.jsonl``, oldest first; empty where it wasn't asked for.
    """

    path: Path
    config: dict[str, Any]
    tensors: dict[str, NDArray[Any]]
    history: list[dict[str, Any]]


class FileState(NamedTuple):
    """What :func:`verify` says of a file."""

    name: str
    size: int | None  # bytes; None where it can't be read
    sound: bool | None  # None where nothing is known to compare it with
    found: str


# --------------------------------------------------------------------------- folders


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """`folder` as a path, or a `RunError` where it is no folder."""
    path = Path(folder)
    try:
        sound = path.is_dir()
        found = "a file" if path.exists() else "nothing"
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r}: {error}; needed a run folder") from None
    if not sound:
        raise RunError(f"{path}: found {found}; needed a run folder, as `shoal fit` writes it")
    return path


def check_run_folder(folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Whether a run may be written to `folder`; with `overwrite` it may replace a run only.

    Raises
    ------
    RunError
        Where something is in the way.
    """
    check_free(folder, overwrite=overwrite)
    if overwrite:
        check_replaceable(folder, RUN_FILES)


def claim_run(folder: str | os.PathLike[str], *, overwrite: bool = False) -> Claim:
    """:func:`shoal.files.claim` for a run, which may replace a run only."""
    return claim(folder, overwrite=overwrite, names=RUN_FILES)


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """A descriptor of the folder, or None where folders can't be opened."""
    if os.open not in os.supports_dir_fd:
        yield None
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _consistently(path: Path, read: Callable[[Path, int | None], _Found]) -> _Found:
    """What `read` finds in the folder; anew where the folder was replaced under its hands."""
    patience = time.monotonic() + 10.0  # arbitrary; each try that fails has seen one replacement
    while True:
        check_folder(path) if time.monotonic() > patience else _wait_for(path)
        try:
            with _opened(path) as folder:
                try:
                    return read(path, folder)
                except RunError:
                    if time.monotonic() > patience or _same(path, folder):
                        raise
        except (FileNotFoundError, NotADirectoryError):  # gone between two lines
            if time.monotonic() > patience:
                raise RunError(f"{path}: found nothing; needed a run folder") from None
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"{path}: {reason}; needed a folder that can be read") from None


def _wait_for(path: Path) -> None:
    """Where a writer is between two renames, it has the name in a moment."""
    hidden = path.with_name(f".{path.name}.shoal.lock") if path.name not in ("", "..") else None
    for _ in range(20):
        if hidden is None or os.path.lexists(path) or not os.path.lexists(hidden):
            break
        time.sleep(0.01)
    check_folder(path)


def _same(path: Path, folder: int | None) -> bool:
    if folder is None:
        return True
    try:
        return os.path.samestat(os.stat(path), os.fstat(folder))
    except OSError:
        return False


def _read(path: Path, folder: int | None, most: int | None = None) -> bytes:
    """The bytes of a regular file of at most `most` bytes."""
    most = _LIMITS[path.name] if most is None else most
    # Non-blocking: a named pipe would wait for someone to write into it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_BINARY", 0)
    try:
        name = str(path) if folder is None else path.name
        descriptor = os.open(name, flags, dir_fd=folder)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise RunError(f"{path}: is no regular file; needed one")
            if found.st_size > most:
                raise RunError(f"{path}: has {found.st_size} bytes; needed at most {most}")
            parts, left = [], found.st_size + 1  # one more: what grows is as wrong as what is cut
            while left > 0 and (part := os.read(descriptor, min(left, 2**24))):
                parts.append(part)
                left -= len(part)
            return b"".join(parts)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise RunError(
            f"{path}: missing; needed a folder that `shoal fit` has finished writing"
        ) from None
    except OSError as error:
        reason = "is no regular file" if error.errno == errno.ENXIO else error.strerror
        raise RunError(f"{path}: {reason}; needed a readable file") from None


# --------------------------------------------------------------------------- JSON


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise RunError(f"{path}: not UTF-8 text; needed a readable file of UTF-8 text") from None


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands there twice")
    return values


def _parsed(text: str) -> Any:
    """What JSON `text` says; ValueError where it is none, or none that a run has."""
    try:
        return _plain(json.loads(text, object_pairs_hook=_no_key_twice), _DEEPEST)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _plain(value: Any, depth: int) -> Any:
    """`value` with NaN and infinities, which JSON doesn't have but Python reads, as None."""
    if depth < 0:
        raise ValueError("nested too deeply")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError("a whole number beyond 2**63")
    if isinstance(value, str):  # half a surrogate pair could be neither shown nor written again
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_plain(key, depth): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, depth - 1) for item in value]
    return value


def _config(path: Path, data: bytes) -> dict[str, Any]:
    """The configuration in ``config.json``, checked against its own check sum."""
    text = _text(path, data)
    try:
        config = _parsed(text)
    except ValueError as error:
        reason = printable(str(error))
        raise RunError(f"{path}: not JSON ({reason}); needed the configuration of a run") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise RunError(
            f'{path}: found format {printable(repr(found))}; needed "format": "{FORMAT}"'
        )
    version = config.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise RunError(
            f"{path}: found format_version {printable(repr(version))}; needed 1 to "
            f"{FORMAT_VERSION} (a newer run needs a newer shoal)"
        )
    if version > 1:
        _check_seal(path, data, config)
    elif {"checksum", "run_id", "files"} & set(config):
        raise RunError(f"{path}: found check sums with format_version 1; needed it as written")
    return config


# --------------------------------------------------------------------------- check sums


def sealed(config: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """The bytes of ``config.json``: `config`, the check sums of `files`, and its own.

    Parameters
    ----------
    config : mapping
        Plain values; ``run_id`` is one of them.
    files : mapping of str to bytes
        The other files' contents by name: all of `SUMMED`.
    """
    sums = {
        name: {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
        for name in SUMMED
    }
    whole = {**config, "files": sums, "checksum": _ZEROS}
    text = json.dumps(whole, indent=2, allow_nan=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return digest.join(text.rsplit(_ZEROS, 1)).encode()


def _check_seal(path: Path, data: bytes, config: dict[str, Any]) -> None:
    """Refuse a configuration that isn't as it was written."""
    digest = config.get("checksum")
    needed = "the file as it was written"
    if not isinstance(digest, str) or len(digest) != 64:
        raise RunError(f"{path}: found no checksum; needed {needed}")
    before, _, after = data.rpartition(digest.encode())
    if hashlib.sha256(before + _ZEROS.encode() + after).hexdigest() != digest:
        raise RunError(f"{path}: does not match its checksum (changed or damaged); needed {needed}")
    files, name = config.get("files"), config.get("run_id")
    if not isinstance(name, str) or not re.fullmatch("[0-9a-f]{32}", name):
        raise RunError(f"{path}: found no run_id; needed {needed}")
    if not isinstance(files, dict) or not all(_is_sum(files.get(name)) for name in SUMMED):
        raise RunError(f"{path}: found no check sums of {', '.join(SUMMED)}; needed {needed}")


def _is_sum(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and type(value.get("bytes")) is int
        and isinstance(value.get("sha256"), str)
    )


def _check_sum(path: Path, data: bytes, config: dict[str, Any]) -> None:
    """Refuse a file that isn't the one that the configuration was written with."""
    expected = config.get("files", {}).get(path.name)
    if expected is None:  # format 1
        return
    if len(data) != expected["bytes"] or hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise RunError(
            f"{path}: does not match its checksum in config.json (changed, damaged, or of "
            "another run); needed the file as it was written"
        )


# --------------------------------------------------------------------------- reading


def read_folder(folder: str | os.PathLike[str], *, history: bool = False) -> Contents:
    """Read the files that a model, and with `history` a page, is made of.

    Parameters
    ----------
    folder : path
    history : bool
        Whether to read ``history.jsonl``, too.

    Returns
    -------
    Contents
        All of one run, also where it is replaced by another in the meantime.

    Raises
    ------
    RunError
        Where the folder or a file is missing, no regular file, too long, damaged, or doesn't
        match its check sum; the text names the file and what would do.
    """

    def read(path: Path, opened: int | None) -> Contents:
        config = _config(path / "config.json", _read(path / "config.json", opened))
        file = path / "dictionary.safetensors"
        data = _read(file, opened, _most_bytes(config))
        _check_sum(file, data, config)
        tensors = _tensors(file, data, config)
        records: list[dict[str, Any]] = []
        if history:
            file = path / "history.jsonl"
            data = _read(file, opened)
            _check_sum(file, data, config)
            records = _records(file, data)
        return Contents(path, config, tensors, records)

    return _consistently(Path(folder), read)


def _most_bytes(config: dict[str, Any]) -> int:
    """How long the tensors' file may be, by what the configuration says of them."""
    if "files" in config:
        return int(config["files"]["dictionary.safetensors"]["bytes"])
    model, source = config.get("model"), config.get("source")
    m = model.get("n_components") if isinstance(model, dict) else None
    n = source.get("n_features") if isinstance(source, dict) else None
    if type(m) is not int or type(n) is not int or m < 1 or n < 1:
        return _MOST_TENSORS
    # Atoms, eigenvectors, and some vectors of either length, in float64; and a header.
    return min(8 * (m * n + n * n + 16 * (m + n)) + 2**20, _MOST_TENSORS)


def _tensors(path: Path, data: bytes, config: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """All arrays of ``dictionary.safetensors``."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    needed = "needed one with `dictionary` in float32 or float64"
    try:
        tensors = load(data)
        name = _name_in(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RunError(f"{path}: not a safetensors file that NumPy can hold; {needed}") from None
    if name != config.get("run_id"):
        raise RunError(f"{path}: of another run than config.json; needed the files of one run")
    dictionary = tensors.get("dictionary")
    if dictionary is None or dictionary.ndim != 2 or 0 in dictionary.shape:
        found = "none" if dictionary is None else f"shape {dictionary.shape}"
        raise RunError(f"{path}: `dictionary`: found {found}; needed atoms as rows, (m, n)")
    if dictionary.dtype.kind not in "fiu":
        raise RunError(f"{path}: `dictionary`: found {dictionary.dtype}; {needed}")
    return tensors


def _name_in(data: bytes) -> str | None:
    """The run's name in the metadata of safetensors that have been found sound."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    name = header.get("__metadata__", {}).get("run_id")
    return name if isinstance(name, str) else None


def _records(path: Path, data: bytes) -> list[dict[str, Any]]:
    """The records of ``history.jsonl``."""
    lines = _text(path, data).split("\n")
    records = []
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _parsed(line)
        except ValueError:
            # The last line without its newline is a run cut short in the middle of a write:
            # everything before it is still worth a report.
            if i == len(lines):
                break
            record = None
        if not isinstance(record, dict):
            raise RunError(f"{path}: line {i} is no JSON object; needed one object per line")
        records.append(record)
    return records


# --------------------------------------------------------------------------- verification


def page_with_checksum(page: str, config: Mapping[str, Any]) -> bytes:
    """The bytes of ``report.html``: the page, and a last line to check it by.

    A run of format 1 has no name, and its page no such line.
    """
    data, name = page.encode(), config.get("run_id")
    if name is None:
        return data
    digest = hashlib.sha256(data).hexdigest()
    return data + f"<!-- shoal run {name} sha256 {digest} -->\n".encode()


def verify(folder: str | os.PathLike[str]) -> list[FileState]:
    """Check every file of a run, those that are made of the others included.

    Parameters
    ----------
    folder : path

    Returns
    -------
    list of FileState
        One per name of `RUN_FILES`, and one per other file that is there. Of the latter, and of a
        run of format 1, nothing is known: ``sound`` is None.

    Raises
    ------
    RunError
        Where there is no folder.
    """
    return _consistently(check_folder(folder), _verified)


def _verified(path: Path, opened: int | None) -> list[FileState]:
    states: list[FileState] = []
    config: dict[str, Any] = {}
    for name in RUN_FILES:
        data = None
        try:
            most = None if name in _LIMITS else _most_bytes(config)
            data = _read(path / name, opened, most)
            if name == "config.json":
                config = _config(path / name, data)
            _CHECKS.get(name, _check_sum)(path / name, data, config)
        except RunError as error:
            if states and states[0].sound is False:
                found = "config.json, which says what it must be, is damaged"
                states.append(FileState(name, None if data is None else len(data), None, found))
                continue
            found = str(error).removeprefix(f"{path / name}: ")
            states.append(FileState(name, None if data is None else len(data), False, found))
        else:
            known = "run_id" in config
            found = "as it was written" if known else "readable; format 1 has no check sums"
            states.append(FileState(name, len(data), True if known else None, found))
    others = sorted(set(os.listdir(path if opened is None else opened)) - set(RUN_FILES))
    return states + [FileState(name, None, None, "not of the run") for name in others]


def _check_config(path: Path, data: bytes, config: dict[str, Any]) -> None:
    pass  # `_config` has


def _check_tensors(path: Path, data: bytes, config: dict[str, Any]) -> None:
    _check_sum(path, data, config)
    _tensors(path, data, config)


def _check_history(path: Path, data: bytes, config: dict[str, Any]) -> None:
    _check_sum(path, data, config)
    _records(path, data)


def _check_page(path: Path, data: bytes, config: dict[str, Any]) -> None:
    if "run_id" not in config:
        return
    needed = "`shoal report RUN`, which writes it again"
    found = _PAGE_END.search(data)
    if found is None or hashlib.sha256(data[: found.start()]).hexdigest() != found[2].decode():
        raise RunError(f"{path}: does not match its own checksum; needed {needed}")
    if found[1].decode() != config["run_id"]:
        raise RunError(f"{path}: of another run than config.json; needed {needed}")


def _check_picture(path: Path, data: bytes, config: dict[str, Any]) -> None:
    if "run_id" not in config:
        return
    needed = "`shoal report RUN`, which writes it again"
    try:
        chunks = dict(_png_chunks(data))
    except (ValueError, struct.error):
        raise RunError(f"{path}: a damaged picture; needed {needed}") from None
    if chunks.get(b"tEXt") != b"shoal run\0" + config["run_id"].encode():
        raise RunError(f"{path}: of another run than config.json; needed {needed}")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each chunk of a PNG; ValueError where a check sum is another."""
    place, kind = 8, b""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("no PNG")
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        content = data[place + 8 : place + 8 + length]
        (expected,) = struct.unpack_from(">I", data, place + 8 + length)
        if zlib.crc32(kind + content) != expected:
            raise ValueError("a check sum")
        yield kind, content
        place += 12 + length
    if kind != b"IEND":
        raise ValueError("cut short")


_CHECKS = {
    "config.json": _check_config,
    "dictionary.safetensors": _check_tensors,
    "history.jsonl": _check_history,
    "report.html": _check_page,
    "atoms.png": _check_picture,
}

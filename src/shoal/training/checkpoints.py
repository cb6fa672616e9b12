"""Checkpoints: what moves in a fit, on the disk, to go on from with the same bits.

A checkpoint is a folder with two files, named by the number of steps so far:

======================  =====================================================================
``state.json``          which fit it is of, how the values hang together, and check sums
``state.safetensors``   the tensors among them
======================  =====================================================================

It is written under a hidden name, synced, and renamed (:mod:`shoal.files`); the last two stay. A
process that is killed at any moment leaves the last one whole. What is in it are plain values and
records (NamedTuples and dataclasses) of classes that are listed here, or that a rule's author has
registered as ``"memory"`` (:mod:`shoal.parts`): nothing that a file could have run.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from shoal import signals
from shoal.data import open_source
from shoal.files import Claim, claim, is_left_over, whole_folder
from shoal.parts import describe, memories
from shoal.training.descent import Plan, begin, descend
from shoal.training.history import Recorded
from shoal.training.passes import Tally
from shoal.training.ranks import Ranks, current
from shoal.training.state import State
from shoal.vocabulary import (
    ArgumentError,
    Parameters,
    RunError,
    __version__,
    check_count,
    check_number,
    fits,
    printable,
    warn,
)

__all__ = [
    "EVERY",
    "NONE",
    "TRIED",
    "Every",
    "Keeper",
    "check_keepable",
    "keep",
    "kept_steps",
    "packed",
    "told",
    "unpacked",
]

_Each = TypeVar("_Each")

EVERY = "30s"
"""How often a state is saved where nothing else is said."""

_PATIENCE = 20.0
"""Seconds that a step may take once a signal has come. Arbitrary; SIGTERM often leaves 30."""

_SHARE = 0.02
"""Of the time, that saving may take: states that are too large for that are saved less often."""

Moving = Mapping[str, Any]
"""What moves in a fit, by name: a State, and what its consumers remember."""

_FORMAT, _VERSION = "shoal-checkpoint", 1
_JSON, _TENSORS = "state.json", "state.safetensors"
_NAME = re.compile("[0-9]{12}")
_KEPT = 2
_ZEROS = "0" * 64
_MOST_JSON = 2**28  # bytes, arbitrary: some hundred kB is usual
_DEEPEST = 64  # records within records; a state has 5

_FLOATS = {
    str(kind)[6:]: kind for kind in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
}

TRIED = 64
"""Rows on which a step of each stage is tried, arbitrary: see :func:`check_keepable`."""


def _records_in(hint: Any) -> Iterator[type]:
    """The records that a value of a type may be, or have in it."""
    if isinstance(hint, type) and (is_dataclass(hint) or hasattr(hint, "_fields")):
        yield hint
        for each in get_type_hints(hint, localns={"Tensor": Tensor}).values():
            yield from _records_in(each)
    for each in get_args(hint):
        yield from _records_in(each)


# By name: what a state is made of, and what its consumers remember. A rule's memory may be a
# Parameters; others are registered.
_RECORDS: dict[str, type] = {
    kind.__name__: kind for each in (State, Recorded, Tally) for kind in _records_in(each)
}


# --------------------------------------------------------------------------- how often


class Every(NamedTuple):
    """When a state is saved: after so many steps, or so many seconds."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, text: Any) -> Every:
        """From a number of steps, or a time such as "30s", "5m", "2h".

        >>> Every.of("5m"), Every.of(100)
        (Every(steps=None, seconds=300.0), Every(steps=100, seconds=None))
        """
        needed = "a number of steps, or a time such as '30s', '5m' or '2h'"
        if isinstance(text, str):
            number, unit = text.strip()[:-1], text.strip()[-1:]
            scale = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(unit)
            try:
                if scale is None:
                    return cls(steps=check_count("checkpoint_every", int(text)))
                seconds = scale * float(number)
                return cls(seconds=check_number("checkpoint_every", seconds, low=0.0))
            except ValueError:  # an ArgumentError is one
                raise ArgumentError("checkpoint_every", repr(text), needed) from None
        try:
            return cls(steps=check_count("checkpoint_every", text))
        except ArgumentError as error:
            raise ArgumentError("checkpoint_every", error.found, needed) from None


# --------------------------------------------------------------------------- values to files


class _Packing:
    """Values as plain ones for JSON, and the tensors among them."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._known: dict[tuple[Any, ...], str] = {}
        self._alive: list[Tensor] = []  # an address says which one it is only as long as it lives

    def plain(self, value: Any, where: str = "") -> Any:
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray):
            return {"array": self._tensor(torch.from_numpy(np.ascontiguousarray(value)))}
        if isinstance(value, Integral):
            return int(value)
        if isinstance(value, Real):
            return {"float": float(value).hex()}
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                raise _not_kept(value, where)
            return {"map": {key: self.plain(item, where) for key, item in value.items()}}
        if type(value) is list:
            return [self.plain(item, where) for item in value]
        if type(value) is tuple:
            return {"tuple": [self.plain(item, where) for item in value]}
        name = type(value).__name__
        if _record(name) is not type(value):
            raise _not_kept(value, where)
        parts = {
            field: self.plain(getattr(value, field), f" in {name}.{field}")
            for field in _fields(type(value))
        }
        return {"record": name, "fields": parts}

    def _tensor(self, tensor: Tensor) -> dict[str, Any]:
        """Its name, and where and how it lies: another order of its numbers gives other bits."""
        if tensor.layout is not torch.strided:
            raise ArgumentError("rule", f"a tensor of {tensor.layout}", "a dense one to be kept")
        tensor = tensor.detach()
        where = "cpu" if tensor.device.type == "cpu" else "device"
        if tensor.dim() == 0 and tensor.is_floating_point():  # those of a history are many
            kind = str(tensor.dtype).removeprefix("torch.")
            return {"number": float(tensor).hex(), "dtype": kind, "on": where}
        strides = _dense(tensor.shape, tensor.stride())
        key = (tensor.device, tensor.dtype, tensor.data_ptr(), tensor.shape, tensor.stride())
        name = self._known.get(key)
        if name is None:
            name = self._known[key] = f"t{len(self.tensors)}"
            self._alive.append(tensor)
            self.tensors[name] = tensor.cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name, "stride": strides, "on": where}


def _dense(shape: Any, strides: Any) -> list[int] | None:
    """Strides of numbers that lie side by side in some order; None for their usual order."""
    expected = 1
    for stride, side in sorted(zip(strides, shape, strict=True)):
        if side != 1:
            if stride != expected:
                return None
            expected *= side
    return [int(stride) for stride in strides]


def _not_kept(value: Any, where: str) -> ArgumentError:
    kind = type(value)
    found = f"a value of type {kind.__name__}{where}, which no checkpoint can hold"
    needed = "tensors, numbers, words, or a NamedTuple of them under shoal.parts.register('memory')"
    return ArgumentError("rule", found, needed)


def _record(name: str) -> type | None:
    return _RECORDS.get(name) or memories().get(name)


def _fields(kind: type) -> tuple[str, ...]:
    if is_dataclass(kind):
        return tuple(field.name for field in fields(kind))
    return tuple(getattr(kind, "_fields", ()))


class _Unpacking:
    """The values again, their tensors on a device; ValueError where they can't have been packed."""

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        self._tensors, self._device = tensors, device
        self._made: dict[tuple[Any, ...], Tensor] = {}

    def value(self, plain: Any, depth: int = _DEEPEST) -> Any:
        if depth < 0:
            raise ValueError("nested too deeply")
        if isinstance(plain, list):
            return [self.value(item, depth - 1) for item in plain]
        if not isinstance(plain, dict):
            return plain
        match plain:
            case {"tensor": str(name), "stride": strides, "on": str(where)}:
                return self._tensor(name, strides, where)
            case {"number": str(digits), "dtype": str(kind), "on": str(where)}:
                number = torch.tensor(float.fromhex(digits), dtype=_FLOATS[kind])
                return number.to(self._place(where))
            case {"array": held}:
                return self.value(held, depth - 1).numpy()
            case {"float": str(digits)}:
                return float.fromhex(digits)
            case {"map": dict(items)}:
                return {key: self.value(item, depth - 1) for key, item in items.items()}
            case {"tuple": list(items)}:
                return tuple(self.value(item, depth - 1) for item in items)
            case {"record": str(name), "fields": dict(parts)}:
                return self._record(name, parts, depth)
        raise ValueError(f"a value with {', '.join(map(str, plain))}")

    def _record(self, name: str, parts: dict[str, Any], depth: int) -> Any:
        kind = _record(name)
        if kind is None:
            raise ValueError(f"a record {name}, which is not registered")
        if set(parts) != set(_fields(kind)):
            raise ValueError(f"a record {name} with other fields")
        values = {field: self.value(part, depth - 1) for field, part in parts.items()}
        try:
            hints = get_type_hints(kind, localns={"Tensor": Tensor})
        except NameError:  # of a user's own
            hints = {}
        for field, value in values.items():
            hint = hints.get(field, Any)
            finite = value if type(value) is not float or math.isfinite(value) else 0.0
            if hint is not Any and not fits(finite, hint):
                raise ValueError(f"{name}.{field} is a {type(value).__name__}")
        return kind(**values)

    def _place(self, where: str) -> torch.device:
        return torch.device("cpu") if where == "cpu" else self._device

    def _tensor(self, name: str, strides: Any, where: str) -> Tensor:
        key = (name, None if strides is None else tuple(strides), where)
        if key not in self._made:
            held = self._tensors[name]
            if strides is not None:
                if _dense(held.shape, strides) is None:
                    raise ValueError(f"strides {strides}")
                lying = torch.empty_strided(held.shape, strides, dtype=held.dtype)
                held = lying.copy_(held)
            self._made[key] = held.to(self._place(where))
        return self._made[key]


def packed(moving: Any) -> tuple[Any, dict[str, Tensor]]:
    """Values of known classes as plain ones for JSON, and the tensors among them by name.

    Raises
    ------
    ArgumentError
        At a value that is of no class that is known.
    """
    packing = _Packing()
    plain = packing.plain(moving)
    return plain, packing.tensors


def unpacked(plain: Any, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    """What :func:`packed` was given, with the tensors that weren't on the CPU on `device`.

    Raises
    ------
    ValueError
        Where that can't have been packed.
    """
    try:
        return _Unpacking(tensors, device).value(plain)
    except (KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def told(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """An estimator's arguments as plain values, to be compared with those of another call."""
    return {name: _told(value, name) for name, value in arguments.items()}


def _told(value: Any, name: str) -> Any:
    if isinstance(value, (np.ndarray, Tensor)):
        array = np.ascontiguousarray(np.asarray(value))
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        return f"{array.dtype} {array.shape} {digest}"
    if isinstance(value, Mapping):
        return {str(key): _told(item, name) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_told(item, name) for item in value]
    try:
        return json.loads(json.dumps(describe(value, name)))
    except ArgumentError:  # a Preprocessing, a device; both say what they are
        return str(value)


# --------------------------------------------------------------------------- files


def _write(held: Path, plain: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """A checkpoint under the name `held`, whole or not at all."""
    data = safetensors.torch.save(tensors)
    sums = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps({**plain, "tensors": sums, "checksum": _ZEROS}, allow_nan=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    with whole_folder(held, overwrite=True) as partial:
        (partial / _TENSORS).write_bytes(data)
        (partial / _JSON).write_text(digest.join(text.rsplit(_ZEROS, 1)), encoding="utf-8")


def _bytes(path: Path, most: int) -> bytes:
    """Of a regular file; ValueError for any other, and for one that is too long."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
        try:
            seen = os.fstat(descriptor)
            if not stat.S_ISREG(seen.st_mode):
                raise ValueError(f"{path.name} is no regular file")
            if seen.st_size > most:
                raise ValueError(f"{path.name} has {seen.st_size} bytes; it had at most {most}")
            parts = []
            while part := os.read(descriptor, 2**24):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ValueError(f"{path.name}: {error.strerror or error}") from None


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The plain values and the tensors of a checkpoint; ValueError where it is damaged."""
    data = _bytes(folder / _JSON, _MOST_JSON)
    try:
        plain = json.loads(data)
    except RecursionError:
        raise ValueError(f"{_JSON} is nested too deeply") from None
    except ValueError:
        raise ValueError(f"{_JSON} is no JSON") from None
    if not isinstance(plain, dict) or plain.get("format") != _FORMAT:
        raise ValueError(f"{_JSON} is not of a checkpoint")
    if plain.get("format_version") != _VERSION:
        raise RunError(
            f"{folder}: found format_version {printable(repr(plain.get('format_version')))}; "
            f"needed {_VERSION}, which this shoal writes"
        )
    digest, sums = plain.get("checksum"), plain.get("tensors")
    if not isinstance(digest, str) or len(digest) != 64 or not isinstance(sums, dict):
        raise ValueError(f"{_JSON} has no check sums")
    before, _, after = data.rpartition(digest.encode())
    if hashlib.sha256(before + _ZEROS.encode() + after).hexdigest() != digest:
        raise ValueError(f"{_JSON} does not match its checksum")
    size = sums.get("bytes")
    if type(size) is not int or size < 0:
        raise ValueError(f"{_JSON} has no check sums")
    data = _bytes(folder / _TENSORS, size)
    if len(data) != size or hashlib.sha256(data).hexdigest() != sums.get("sha256"):
        raise ValueError(f"{_TENSORS} does not match its checksum")
    try:
        return plain, safetensors.torch.load(data)
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{_TENSORS}: {error}") from None


def _all_names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unusable(folder, error) from None


def _unusable(folder: Path, error: OSError) -> RunError:
    reason = error.strerror or error
    return RunError(f"{folder}: {reason}; needed a folder for checkpoints, or a new name")


def _names(folder: Path) -> list[str]:
    """The checkpoints in a folder, oldest first."""
    return [name for name in _all_names(folder) if _NAME.fullmatch(name)]


def kept_steps(folder: str | os.PathLike[str]) -> int | None:
    """The number of steps after which the last checkpoint in `folder` was saved; None for none."""
    names = _names(Path(folder))
    return int(names[-1]) if names else None


# --------------------------------------------------------------------------- which fit


def _versions() -> dict[str, str]:
    return {"shoal": __version__, "torch": str(torch.__version__), "numpy": np.__version__}


def _check_same(path: Path, found: Any, now: dict[str, Any]) -> None:
    """Refuse a checkpoint of another version, other data or other arguments, by what differs."""
    if not isinstance(found, dict):
        raise ValueError(f"{_JSON} does not say which fit it is of")
    for kind, words in (
        ("versions", "versions"),
        ("data", "data set"),
        ("arguments", "arguments"),
    ):
        one, other = found.get(kind), now[kind]
        if one == other:
            continue
        one = one if isinstance(one, dict) else {}
        names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        said = ", ".join(f"{name} {_short(one.get(name))}" for name in names[:3])
        needed = ", ".join(f"{name} {_short(other.get(name))}" for name in names[:3])
        raise RunError(
            f"{path}: was begun with other {words} ({said}) than this call's ({needed}); needed "
            "the same, or another folder to start anew"
        )


def _short(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return printable(text if len(text) < 60 else f"{text[:28]}..{text[-12:]}")


# --------------------------------------------------------------------------- saving in a fit


class Keeper:
    """Saves what moves in a fit, and knows what a killed one has left. Made by :func:`keep`.

    Attributes
    ----------
    folder : Path
    seed : int
        Of the fit that was begun.
    steps : int
        So far, those before a resumption included.
    saved : int or None
        After how many steps the last state was saved.
    """

    def __init__(self, held: Claim | None, every: Every, fit: dict[str, Any], seed: int) -> None:
        self.folder = Path() if held is None else held.path
        self.seed, self.steps = seed, 0
        self._ranks = current()
        self.saved: int | None = None
        self._held, self._every, self._fit = held, every, fit
        self._good: list[str] = []
        self._found: tuple[Any, dict[str, Tensor]] | None = None
        self._last, self._cost = time.monotonic(), 0.0  # of the last save
        self._steps_then = 0

    def found(self, like: Parameters, **kinds: type) -> dict[str, Any] | None:
        """What moved in the fit that was begun, by name; None at a beginning.

        Parameters
        ----------
        like : Parameters
            Of the shapes that are to be, on the device for the tensors.
        **kinds
            What there must be, and of which class.
        """
        if self._found is None:
            return None
        (plain, tensors), self._found = self._found, None
        try:
            values = unpacked(plain, tensors, like.bias.device)
            if not isinstance(values, dict):
                raise ValueError("no values by name")
            for name, kind in {"state": State, **kinds}.items():
                if not isinstance(values.get(name), kind):
                    raise ValueError(f"no {name}")
            atoms = values["state"].parameters.dictionary
            if atoms.shape != like.dictionary.shape:
                raise ValueError(f"atoms of shape {tuple(atoms.shape)}")
        except ValueError as error:
            reason = printable(str(error), 200)
            raise RunError(
                f"{self.folder}: can't be gone on from ({reason}); needed a checkpoint as it was "
                "written"
            ) from None
        return values

    @contextmanager
    def watching(self, moving: Callable[[], Moving]) -> Iterator[None]:
        """For the loop of a generator: saves at its end, and where it is left at a step."""
        try:
            yield
        except GeneratorExit:  # dropped by who asked for steps, between two of them
            if self.saved != self.steps:
                self.save(moving())
            raise
        if self.saved != self.steps:
            self.save(moving())

    def step(self, moving: Callable[[], Moving]) -> None:
        """After a step: save where it is time to, or where a signal has come, which then ends it.

        Raises
        ------
        Interrupted
            For a signal, with the place of the state in its text.
        WriteError
            Where nothing can be written; what was saved before stays.
        """
        self.steps += 1
        come = signals.noted()
        if self._every.steps is not None:
            due = self.steps - self._steps_then >= self._every.steps
        else:
            assert self._every.seconds is not None
            waits = max(self._every.seconds, self._cost / _SHARE)
            due = time.monotonic() - self._last >= waits
        if self._ranks.size > 1:  # a signal may reach one of them, or each at another step
            flag = self._ranks.largest(2 * come + (due and self._ranks.rank == 0))
            come, due = flag >= 2, flag > 0
        if due or come:
            self.save(moving())
            self._ranks.wait()
        if come:
            raise signals.Interrupted(
                f"the state after {self.steps} steps is kept in {self.folder}; the same call goes "
                "on from there"
            )

    def save(self, moving: Moving) -> None:
        """Save, and remove all but the last two that are good."""
        start = time.monotonic()
        plain_moving, tensors = packed(moving)
        plain = {
            "format": _FORMAT,
            "format_version": _VERSION,
            "fit": self._fit,
            "seed": self.seed,
            "steps": self.steps,
            "threads": torch.get_num_threads(),
            "processes": _processes(self._ranks),
            "moving": plain_moving,
        }
        name = f"{self.steps:012d}"
        _write(self.folder / name, plain, tensors)
        self._good = [*(each for each in self._good if each != name), name][-_KEPT:]
        for other in set(_names(self.folder)) - set(self._good):
            with suppress(OSError):  # the next save tries again
                rmtree(self.folder / other, ignore_errors=True)
        self.saved, self._steps_then, self._last = self.steps, self.steps, time.monotonic()
        self._cost = self._last - start

    def _sent(self) -> bytes:
        """What the other processes of a fit are to know: see `_received`."""
        plain, tensors = (None, {}) if self._found is None else self._found
        head = {"seed": self.seed, "steps": self.steps, "saved": self.saved, "moving": plain}
        text = json.dumps(head).encode()
        return len(text).to_bytes(8, "little") + text + safetensors.torch.save(tensors)

    def over(self, steps: Generator[_Each, None, None]) -> Generator[_Each, None, None]:
        """`steps`, of which a signal awaits the end of one; then others may use the folder."""
        try:
            with signals.patience(_PATIENCE):
                yield from steps
        finally:
            self.close()

    def close(self) -> None:
        """Let others use the folder."""
        if self._held is not None:
            self._held.release()


def _processes(ranks: Ranks) -> str:
    """What the bits depend on, of the processes that share a fit."""
    if ranks.rows is not None and ranks.atoms is not None:
        return f"{ranks.rows.size}x{ranks.atoms.size}"
    return "reproducible" if ranks.reproducible else str(ranks.size)


class _Following(Keeper):
    """Of a process that shares a fit whose state the first one saves."""

    def save(self, moving: Moving) -> None:
        self.saved, self._steps_then, self._last = self.steps, self.steps, time.monotonic()


class _Nothing(Keeper):
    """Of a fit that saves nothing."""

    def __init__(self) -> None:
        super().__init__(None, Every(seconds=0.0), {}, 0)

    @contextmanager
    def watching(self, moving: Callable[[], Moving]) -> Iterator[None]:
        yield

    def step(self, moving: Callable[[], Moving]) -> None:
        pass

    def over(self, steps: Generator[_Each, None, None]) -> Generator[_Each, None, None]:
        return steps


NONE = _Nothing()


def keep(
    folder: str | os.PathLike[str],
    every: Any,
    arguments: Mapping[str, Any],
    data: Mapping[str, Any],
    seed: int,
) -> Keeper:
    """Claim a folder for the checkpoints of a fit, and read the last good one in it.

    Parameters
    ----------
    folder : path
        Made where there is none.
    every : int or str
        As :meth:`Every.of` takes it.
    arguments : mapping
        Of the estimator, as :func:`told` makes them.
    data : mapping
        The fingerprint of the data.
    seed : int
        Of the fit, if it begins here; one that was begun has its own.

    Raises
    ------
    RunError
        Where the folder holds something else, no checkpoint in it can be read, or they are of
        another version, other data or other arguments, with what differs; or where another process
        is using it.
    ArgumentError
        Where `every` is neither a number of steps nor a time.

    Warns
    -----
    UserWarning
        Of a damaged checkpoint, in whose place the one before it is used; of another number of
        threads.
    """
    when = Every.of(every)
    fit = json.loads(
        json.dumps({"versions": _versions(), "data": dict(data), "arguments": dict(arguments)})
    )
    path, ranks = Path(folder), current()
    if ranks.size == 1:
        return _kept_here(path, when, fit, seed)
    made: list[Keeper] = []

    def first() -> bytes:
        made.append(_kept_here(path, when, fit, seed))
        return made[0]._sent()

    sent = ranks.of_first(first)
    return made[0] if made else _received(sent, path, when, fit)


def _kept_here(path: Path, when: Every, fit: dict[str, Any], seed: int) -> Keeper:
    """As :func:`keep` says, in the process that saves."""
    _all_names(path)  # refuses a file
    held = claim(path, overwrite=True)
    try:
        keeper = Keeper(held, when, fit, seed)
        _look(keeper, fit)
        path.mkdir(exist_ok=True)
    except OSError as error:
        held.release()
        raise _unusable(path, error) from None
    except BaseException:
        held.release()
        raise
    return keeper


def _received(sent: bytes, path: Path, when: Every, fit: dict[str, Any]) -> Keeper:
    """The keeper of a process that saves nothing, from what the first one has sent."""
    size = int.from_bytes(sent[:8], "little")
    head = json.loads(sent[8 : 8 + size])
    keeper = _Following(None, when, fit, head["seed"])
    keeper.folder, keeper.steps, keeper.saved = path, head["steps"], head["saved"]
    keeper._steps_then = keeper.steps
    if head["moving"] is not None:
        keeper._found = head["moving"], safetensors.torch.load(sent[8 + size :])
    return keeper


def _look(keeper: Keeper, fit: dict[str, Any]) -> None:
    """Have the keeper go on from the last good checkpoint, if there is one."""
    path = keeper.folder
    names = _names(path)
    others = [name for name in _all_names(path) if not is_left_over(name)]
    if others and not names:
        raise RunError(
            f"{path}: holds no checkpoint ({printable(others[0])}); needed an empty folder, or a "
            "new name"
        )
    damaged: list[str] = []
    for name in reversed(names):
        try:
            plain, tensors = _read(path / name)
            _check_same(path, plain.get("fit"), fit)
            steps, seed = plain.get("steps"), plain.get("seed")
            if type(steps) is not int or type(seed) is not int or not 0 <= seed < 2**63:
                raise ValueError(f"{_JSON} has no number of steps, or no seed")
        except ValueError as error:
            if isinstance(error, (RunError, ArgumentError)):
                raise
            damaged.append(f"{path / name} is damaged ({printable(str(error), 200)})")
            continue
        keeper.seed, keeper.steps, keeper.saved = seed, steps, steps
        keeper._steps_then = steps
        keeper._good = names[max(0, names.index(name) - 1) : names.index(name) + 1]
        keeper._found = plain.get("moving"), tensors
        for text in damaged:
            warn(f"{text}; the fit goes on from the one before it, after {steps} steps")
        if (threads := plain.get("threads")) != torch.get_num_threads():
            warn(
                f"{path}: was begun with {threads} threads, and this process has "
                f"{torch.get_num_threads()}: the bits may be others"
            )
        now = _processes(keeper._ranks)
        if (before := plain.get("processes", "1")) != now:
            warn(
                f"{path}: was begun by processes: {printable(str(before))}, and these are {now}: "
                "the bits may be others"
            )
        return
    if damaged:
        raise RunError(f"{damaged[0]}, and none before it is whole; needed one, or a new folder")


def check_keepable(plan: Plan, parameters: Parameters, rows: Tensor) -> None:
    """Refuse a rule whose memory no checkpoint can hold, by a step of every stage on some rows.

    Raises
    ------
    ArgumentError
        That says what is to be registered.
    """
    for stage in plan.stages:
        one = replace(stage, n_steps=2, settling=None, revival=None)
        short = plan._replace(stages=(one,), batch_size=len(rows))
        source = open_source(rows)
        state, _ = next(descend(begin(parameters, short, np.random.default_rng(0)), source, short))
        packed(state)

"""How much memory a file may ask for, and what it may claim to hold.

Everything that is read whole (the arrays of an `.npz`, a Zarr chunk, a Parquet page, the
truth beside the data) is judged here by its header, before memory is asked for.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from shoal.vocabulary import ArgumentError, SourceError

VARIABLE = "SHOAL_READ_LIMIT"

# Half: what is read is often copied once, to another type or order.
SHARE = 0.5

# A file of a few MB that unpacks to more than this, and by more than this factor, is taken
# for one made to fill the memory. Arbitrary: codes of 3 in 512 pack to a hundredth.
FREE_BYTES = 256 * 2**20
MOST_RATIO = 200

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def check_room(name: str, unpacked: int, packed: int | None = None) -> None:
    """Refuse what needs more memory than a reader may take.

    Parameters
    ----------
    name : str
        Of what is to be read.
    unpacked : int
        Its bytes in memory.
    packed : int, optional
        Its bytes in the file, where it is compressed.

    Raises
    ------
    SourceError
        If `unpacked` is more than half of the memory that is free now, or more than 256 MiB
        and 200 times `packed`. The environment variable SHOAL_READ_LIMIT (bytes, or as in
        8G) is a limit in place of both.
    """
    stated = _stated()
    most = int(SHARE * available_memory()) if stated is None else stated
    if unpacked > most:
        raise SourceError(
            "source",
            f"{name} of {_size(unpacked)}",
            f"at most {_size(most)} to be read at once ({VARIABLE} sets another limit)",
        )
    bomb = packed is not None and unpacked > max(FREE_BYTES, MOST_RATIO * packed)
    if stated is None and bomb:
        raise SourceError(
            "source",
            f"{name} of {_size(packed or 0)} that unpacks to {_size(unpacked)}",
            f"at most {MOST_RATIO} times as much (to trust it: {VARIABLE}={_size(unpacked, True)})",
        )


def _stated() -> int | None:
    text = os.environ.get(VARIABLE, "").strip().upper().removesuffix("B").removesuffix("I")
    if not text:
        return None
    number, unit = (text[:-1], text[-1]) if text[-1] in _UNITS else (text, "")
    try:
        limit = float(number) * _UNITS[unit]
        return int(limit)
    except (ValueError, OverflowError):
        raise ArgumentError(VARIABLE, repr(text), "bytes, or a number with K, M, G or T") from None


def _size(count: int, whole: bool = False) -> str:
    for unit, factor in reversed(_UNITS.items()):
        if count >= factor > 1:
            return f"{-(-count // factor)}{unit}" if whole else f"{count / factor:.3g} {unit}iB"
    return str(count) if whole else f"{count} bytes"


def available_memory() -> int:
    """Bytes that this process can still get, as far as the system says; else 2 GiB."""
    rooms = [_free(), *_group(), _address_space()]
    known = [room for room in rooms if room is not None]
    return max(0, min(known)) if known else 2 * 2**30


def _free() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:  # not Linux: half of what is built in
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return None


def _group() -> list[int]:
    """What a container's limit leaves (control groups, both versions)."""
    root = Path("/sys/fs/cgroup")
    rooms = []
    for most, used, statistics, cached in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        try:
            room = int((root / most).read_text()) - int((root / used).read_text())
            for line in (root / statistics).read_text().splitlines():
                if line.startswith(f"{cached} "):
                    room += int(line.split()[1])  # counted as used, but given back on demand
            rooms.append(room)
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return rooms


def _address_space() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return None
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None
    return most - used

"""Processes: what a fork takes from one, its threads, though not the wish to use them; and workers.

A forked child has the thread that forked and no other, whatever its parent had. The pools that
PyTorch and numba share their work out to are gone, and both would wait for them for ever, or end
the process. So in such a child one thread does all. Its results are those of any number of
threads wherever the parent's are.

This module is the first that ``import shoal`` loads, as what comes after a fork has to be arranged
before it. It imports nothing that is heavy.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

__all__ = ["forked", "given", "importing", "workers"]

importing = threading.RLock()
"""Held by who imports a module on first use: a child that is forked meanwhile would wait for
the rest of the import, which nobody in it goes on with."""

_forked = False


def forked() -> bool:
    """Whether this process came of a fork of one that may have started threads."""
    return _forked


def _lose_threads() -> None:
    global _forked
    # Without either of them no thread of theirs was started.
    if "torch" not in sys.modules and "numba" not in sys.modules:
        return
    _forked = True
    # A fork may come while another thread imports torch.
    if set_threads := getattr(sys.modules.get("torch"), "set_num_threads", None):
        set_threads(1)


def _started_by_fork() -> bool:
    """Whether :mod:`multiprocessing` forked this process, for where shoal is first imported in it.

    A fork by :func:`os.fork` leaves no trace.
    """
    process = multiprocessing.current_process()
    method = getattr(process, "_start_method", None) or multiprocessing.get_start_method(True)
    return multiprocessing.parent_process() is not None and method == "fork"


if hasattr(os, "register_at_fork"):
    if _started_by_fork():
        _lose_threads()
    os.register_at_fork(
        before=importing.acquire,
        after_in_parent=importing.release,
        after_in_child=importing.release,
    )
    os.register_at_fork(after_in_child=_lose_threads)


_given: Any = None


def given() -> Any:
    """In a process of :func:`workers`, what was given to all of them."""
    return _given


@contextmanager
def workers(count: int, value: Any) -> Iterator[ProcessPoolExecutor]:
    """So many processes of one thread each, which end at once where the block is left by an error.

    They are spawned, not forked: a fork of a process whose threads are at work can hang. `value`,
    which can be pickled, is sent to each of them once, for :func:`given`.
    """
    from concurrent.futures import ProcessPoolExecutor

    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(count, spawn, initializer=_begin, initargs=(value,))
    try:
        yield executor
    except BaseException:  # an interruption, or a generator is closed: nobody waits for the rest
        # `terminate_workers` is public from Python 3.14 on.
        for process in list((executor._processes or {}).values()):
            process.terminate()
        # Waits for the executor's own thread, which sees them end: two that wait for one process
        # get in each other's way.
        executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()


def _begin(value: Any) -> None:
    global _given
    # An interruption reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    _given = value

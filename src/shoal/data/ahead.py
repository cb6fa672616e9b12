"""Reading ahead: the next batch is on its way while the last one is worked with.

A thread reads in the order of the batches, and one at a time, so that what comes is the same as
without it; it is at most two batches ahead, and ends with whoever asks for them. It costs a tenth
of a step of 4 ms, so that it begins only where reading is seen to take time: not for a file that
lies in the system's cache.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from contextvars import copy_context
from queue import Empty, Full, Queue
from typing import Any, TypeVar

__all__ = ["read_ahead"]

_Each = TypeVar("_Each")

# Seconds after which the thread looks whether anybody still waits for it. Arbitrary.
_LOOK = 0.1

# Arbitrary: batches over which reading and work are compared, and the share of the latter from
# which on a thread reads.
_COMPARED, _MUCH = 8, 0.25


class _Over:
    """The end of the batches, or the error that ended them."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def read_ahead(
    batches: Generator[_Each, None, None],
    following: Callable[[_Each], Generator[_Each, None, None]],
) -> Generator[_Each, None, None]:
    """The same batches, read by a thread where that takes long: one waits while the next is read.

    Parameters
    ----------
    batches : generator
        Of what is read.
    following : callable
        From a batch to what comes after it: for a process that is forked on the way, which has no
        such thread.

    Yields
    ------
    object
        Each of `batches`; an error among them is raised at its place.
    """
    last = yield from _until_slow(batches)
    if last is None:
        return
    waiting: Queue[Any] = Queue(maxsize=1)
    left, owner = threading.Event(), os.getpid()

    def put(item: Any) -> bool:
        while not left.is_set():
            try:
                waiting.put(item, timeout=_LOOK)
            except Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
        except BaseException as error:
            put(_Over(error))
        else:
            put(_Over())

    # What numpy is to do about overflow is of the context, not of the process.
    thread = threading.Thread(target=copy_context().run, args=(read,), daemon=True)
    thread.name = "shoal-reading"
    thread.start()
    try:
        while os.getpid() == owner:
            item = waiting.get()
            if isinstance(item, _Over):
                if item.error is not None:
                    raise item.error
                return
            last = item
            yield item
    finally:
        if os.getpid() == owner:
            left.set()
            with suppress(Empty):  # what waits for room sees it at once
                waiting.get_nowait()
            thread.join()
    with closing(following(last)) as rest:
        yield from rest


def _until_slow(batches: Generator[_Each, None, None]) -> Generator[_Each, None, _Each | None]:
    """Batches while reading them takes little of the time; the last one, None at the end of all."""
    times: deque[tuple[float, float]] = deque(maxlen=_COMPARED)
    begun = time.perf_counter()
    for batch in batches:
        read = time.perf_counter()
        yield batch
        done = time.perf_counter()
        times.append((read - begun, done - read))
        begun = done
        # The median: a first batch waits for the order of them all.
        if len(times) == _COMPARED:
            reading, working = (sorted(each)[_COMPARED // 2] for each in zip(*times, strict=True))
            if reading > _MUCH * working:
                return batch
    return None

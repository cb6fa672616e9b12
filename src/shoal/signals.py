"""How the command line ends at SIGINT and SIGTERM.

A signal's handler runs wherever Python is. What it raises within a callback (of a weak reference,
a ``__del__``, a foreign function) is printed as ignored and dropped, and the work goes on. So
within a loop of steps the first signal is only noted, and :func:`check` raises between two steps;
where a step takes longer than a second, and everywhere outside of such a loop, the handler raises
itself, and again where that was dropped. A second signal raises at once.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["Interrupted", "check", "install", "landed", "noted", "noticed", "patience", "stoppable"]

_Each = TypeVar("_Each")
_PATIENCE = 1.0  # seconds, arbitrary: how long a person waits before pressing the keys again
_AGAIN = 0.05  # seconds after a raise was dropped


class Interrupted(KeyboardInterrupt):
    """Raised for a signal; its text says what is left behind, where there is anything to say."""


class _Noted:
    number: int | None = None  # of the first signal
    loops = 0  # of steps that are at work
    patience: float | None = None  # other than the usual one


def install() -> None:
    """Handle both signals in this way, in the process of a command."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _raise)
        sys.unraisablehook = _look_at_dropped


def _handle(number: int, frame: Any) -> None:
    first, _Noted.number = _Noted.number is None, _Noted.number or number
    if first and _Noted.loops and _alarm(_Noted.patience or _PATIENCE):
        return
    _raise(number, frame)


def _raise(number: int, frame: Any) -> None:
    if _Noted.number is not None:  # the alarm of one that has landed says nothing
        raise Interrupted


def _alarm(seconds: float) -> bool:
    if not hasattr(signal, "setitimer"):
        return False
    signal.setitimer(signal.ITIMER_REAL, seconds)
    return True


def _look_at_dropped(dropped: Any) -> None:
    if isinstance(dropped.exc_value, Interrupted):
        _alarm(_AGAIN)
    else:
        sys.__unraisablehook__(dropped)


def check() -> None:
    """Raise where a signal has come; called between two steps."""
    if _Noted.number is not None:
        _alarm(0)
        raise Interrupted


def noted() -> bool:
    """Whether a signal has come; for steps that save what they have done before they end."""
    return _Noted.number is not None


@contextmanager
def noticed() -> Iterator[None]:
    """Note signals within the block, outside of a command; only in the main thread."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    # A program's own handlers are left alone, and what it ignores, as `nohup` makes it do.
    numbers = [number for number, each in usual.items() if signal.getsignal(number) == each]
    main = threading.current_thread() is threading.main_thread()
    if not main or not numbers:
        yield
        return
    before = [signal.signal(number, _handle) for number in numbers]
    alarm = signal.signal(signal.SIGALRM, _raise) if hasattr(signal, "SIGALRM") else None
    try:
        yield
    finally:
        if _Noted.number is not None:
            _alarm(0)
        _Noted.number = None
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        if alarm is not None:
            signal.signal(signal.SIGALRM, alarm)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Let a step take so long, instead of a second, once a signal has come."""
    before, _Noted.patience = _Noted.patience, seconds
    try:
        yield
    finally:
        _Noted.patience = before


def stoppable(steps: Iterable[_Each]) -> Iterator[_Each]:
    """`steps`, between which a signal ends the work."""
    _Noted.loops += 1
    try:
        for step in steps:
            check()
            yield step
            check()
    finally:
        _Noted.loops -= 1
    check()


def landed() -> int:
    """The exit code for the signal that has ended the work: 128 and its number."""
    number = _Noted.number or signal.SIGINT  # in a test nobody handles it
    if _Noted.number is not None:
        _alarm(0)
    _Noted.number = None
    return 128 + number

"""What reaches the terminal: every line and table that the command line prints goes through here.

File names, column names and the strings of a file may hold control characters, which can clear a
screen, set its title or turn text around. They are shown as escapes, and never sent.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import typer

__all__ = [
    "bar",
    "ended",
    "error",
    "leave_to_another",
    "line",
    "note",
    "number",
    "printable",
    "record",
    "table",
    "tell_once",
    "yes",
]

_LONGEST = 1000  # characters of an error: what it quotes may be of any length


class _Voice:
    silent = False  # of a process that shares the work of another one
    first: Callable[[], bool] = staticmethod(lambda: True)  # whether none has said how it ended


def leave_to_another() -> None:
    """Have all but the first to end badly say nothing: another process speaks for all."""
    _Voice.silent = True
    _Voice.first = staticmethod(lambda: False)


def tell_once(first: Callable[[], bool]) -> None:
    """Have a bad end said where `first` says so, which one of several processes does."""
    _Voice.first = staticmethod(first)


def ended(text: object) -> None:
    """That the work was interrupted."""
    if _Voice.first():
        typer.echo(printable(str(text)), err=True)


def printable(text: str) -> str:
    r"""`text` on one line, with all that isn't printed written as an escape.

    >>> printable("a\x1b[2Jb\n\u202e")
    'a\\x1b[2Jb\\n\\u202e'
    """
    return "".join(
        each if each.isprintable() or each == "\u00a0" else each.encode("unicode_escape").decode()
        for each in text
    )


def line(text: object = "") -> None:
    """A line of a result."""
    if _Voice.silent:
        return
    typer.echo(printable(str(text)))


def note(text: object) -> None:
    """A line beside the result."""
    if _Voice.silent:
        return
    typer.echo(printable(str(text)), err=True)


def error(text: object) -> None:
    """What was wrong, in one line."""
    if not _Voice.first():
        return
    said = " ".join(str(text).splitlines())
    if len(said) > _LONGEST:
        said = f"{said[: _LONGEST // 2]}…{said[-_LONGEST // 2 :]}"
    typer.echo(f"error: {printable(said)}", err=True)


def flush() -> None:
    """Let go of what is written, where somebody still reads it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


def record(values: Any) -> None:
    """Plain values as JSON, which has escapes of its own."""
    text = json.dumps(values, indent=2, allow_nan=False)
    typer.echo(text.replace("\x7f", "\\u007f"))  # the one that json.dumps lets pass


def table(title: str, head: list[str], rows: list[list[str]]) -> None:
    """A table; its first column is words, the others are numbers."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    made = Table(title=escape(printable(title)), title_justify="left")
    for number, name in enumerate(head):
        made.add_column(escape(printable(name)), justify="left" if number == 0 else "right")
    for row in rows:
        made.add_row(*(escape(printable(cell)) for cell in row))  # an interval is not markup
    Console().print(made)


def number(value: Any) -> str:
    """A cell of a table; "-" where there is nothing."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def yes(holds: bool) -> str:
    """What a table says of a claim."""
    return "yes" if holds else "NO"


@contextmanager
def bar(*columns: str, quiet: bool) -> Iterator[Any]:
    """A progress bar on the error stream."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    bars = Progress(
        TextColumn("{task.description:>10}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        *(TextColumn(column, markup=False) for column in columns),
        console=Console(stderr=True),
        disable=quiet or _Voice.silent,
    )
    with bars as progress, nullcontext() if quiet else _logged(progress.console):
        yield progress


@contextmanager
def _logged(console: Any) -> Iterator[None]:
    """Prints what shoal logs above a bar: that kernels are compiled, once, takes its time."""
    log = logging.getLogger("shoal")
    before, handler = log.level, _Lines(console)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)


class _Lines(logging.Handler):
    def __init__(self, console: Any) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(
            printable(record.getMessage()), markup=False, highlight=False, soft_wrap=True
        )

"""The application: what all commands have in common, and how their errors are said."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from shoal import signals
from shoal.cli import screen
from shoal.vocabulary import ArgumentError, LostError, ShoalError, WriteError, __version__

__all__ = ["app", "launched", "main", "show_note"]


# The base of all that is wrong with how a command was called; typer doesn't export it.
_UsageError: Any = typer.BadParameter.__base__


def show_note(message: Warning | str, *rest: Any, **more: Any) -> None:
    """A warning without the line of code that a library's user would want."""
    screen.note(f"note: {message}")


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Turns the errors a person can mend into one line and an exit code."""
    try:
        yield
    except ShoalError as error:
        # What a caller in Python would write is an option here.
        screen.error(str(error).replace("overwrite=True", "--force"))
        raise typer.Exit(1 if isinstance(error, (WriteError, LostError)) else 2) from None
    except _UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "shoal"
        text = " ".join(error.format_message().split())
        screen.error(f"{text} ({where} --help says more)")
        raise typer.Exit(2) from None
    except KeyboardInterrupt as stop:
        screen.ended(f"interrupted: {str(stop) or 'no unfinished result was left behind'}")
        raise typer.Exit(signals.landed()) from None
    except MemoryError as error:
        screen.error(f"out of memory ({error}); needed a smaller problem")
        raise typer.Exit(1) from None


class _Group(TyperGroup):
    """Has all errors said in one line, those in reading the command included."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        with _in_one_line():
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: Any) -> Any:
        with _in_one_line(), warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = show_note
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    help="""Recover the dictionary behind a data set with a shallow weight-tied autoencoder.

    Start here:

        shoal fit sample:patches -m 256 -k 2 --preprocess whiten -o runs/patches

    A SOURCE is a file (.npy, .npz, .safetensors, .parquet, .csv, .tsv, .zarr, .h5, .h5ad,
    .mat, .wav, .edf, .fif), a folder of images, or a named sample (sample:patches, sample:digits).
    A RUN is the folder that `fit` writes.

    Exit codes: 0 done; 1 failed at work (a full disk, no memory); 2 refused (bad input, a name that
    is taken); 130 interrupted; 143 terminated.""",
)


@app.callback(invoke_without_command=True)
def _top(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE",
            help="A module to import first, whose parts register themselves; may be repeated. It "
            "is looked for in the current folder too.",
        ),
    ] = None,
) -> None:
    _refuse_several(ctx.invoked_subcommand)
    for name in plugin or ():
        _import_plugin(name)
    if version:
        screen.line(f"shoal {__version__}")
        raise typer.Exit


def _import_plugin(name: str) -> None:
    """Import a module of the user's, from where they are if need be."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever somebody's module raises
        reason = f"{type(error).__name__}: {error}"
        found = f"{name}, which can't be imported ({reason})"
        raise ArgumentError("plugin", found, "a module") from error


def _refuse_several(command: str | None) -> None:
    """Refuse several processes for what one of them does alone."""
    _, size = launched()
    if size > 1 and command not in (None, "fit"):
        found = f"{size} processes for {command}"
        raise ArgumentError("torchrun", found, "one process: fit alone is shared")


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Which of how many processes this is, as torchrun and its like say by the environment."""
    words = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    given = [environment.get(word, "") for word in words]
    if not all(given) or not (given[0].isdecimal() and given[1].isdecimal()):
        return 0, 1
    return int(given[0]), int(given[1])


def main() -> None:
    """The `shoal` command."""
    signals.install()
    if launched()[0] > 0:
        screen.leave_to_another()
    try:
        app()
    except SystemExit as end:
        if launched()[1] > 1 or "TORCHELASTIC_RUN_ID" in os.environ:
            _leave(end.code)
        raise


def _leave(code: Any) -> NoReturn:
    """End one of several processes as it stands, without taking the interpreter apart.

    A thread of gloo may still hold a tensor; where it lets go of it while Python ends, the process
    is aborted, and torchrun then ends all others before they have written.
    """
    if isinstance(code, str):
        screen.error(code)
    screen.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))

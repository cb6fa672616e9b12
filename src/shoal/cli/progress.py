"""Bars for what takes long, and what is kept of it when it ends badly."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal import signals
from shoal.cli import screen
from shoal.files import Claim
from shoal.signals import stoppable
from shoal.vocabulary import ArgumentError, RunError, ShoalError, WriteError

if TYPE_CHECKING:
    from shoal.data import Source
    from shoal.training.passes import Epoch
    from shoal.vocabulary import Step

__all__ = [
    "checkpoints_of",
    "counted",
    "follow",
    "follow_epochs",
    "going_on",
    "kept",
    "resumable",
    "to_the_end",
]


_COUNTED = ("descent", "finish", "encoder")  # phases whose number of steps is known beforehand


def follow(steps: Iterator[Step], *, quiet: bool) -> None:
    """Run a fit to its end under a progress bar a phase.

    Descent, finish and encoder have a number of steps; the other phases end when they have nothing
    more to give, and until then their bars only say that they are at work.
    """
    with screen.bar("{task.fields[note]}", quiet=quiet) as progress:
        phase, task, shown, first = "", None, 0.0, 0
        step = None

        def show(step: Step, **end: Any) -> None:
            number = step.number - first
            note = f"{'round' if step.phase == 'polish' else 'step'} {number}"
            variance = float(step.variance)
            if variance > 0:
                note += f", explained {1 - float(step.loss) / variance:.1%}"
            progress.update(task, note=note, **end)

        for following in stoppable(steps):
            if quiet:
                continue
            if following.phase != phase:
                if step is not None:
                    show(step, total=1.0, completed=1.0)
                phase, first = following.phase, following.number - 1
                total = 1.0 if phase in _COUNTED else None
                task = progress.add_task(phase, total=total, note="")
                shown = 0.0
            step = following
            now = time.perf_counter()
            # Reading the loss waits for the device: not at every step.
            if now - shown >= 0.2:
                shown = now
                show(step, completed=step.progress if phase in _COUNTED else 0.0)
        if step is not None:
            show(step, total=1.0, completed=1.0)


def follow_epochs(epochs: Iterator[Epoch], n_epochs: int, *, quiet: bool) -> None:
    """Run a fit of epochs to its end under a progress bar."""
    with screen.bar("{task.fields[note]}", quiet=quiet) as progress:
        task = progress.add_task("epochs", total=n_epochs, note="")
        for epoch in stoppable(epochs):
            note = f"loss {epoch.loss:.4g}, active {epoch.usage.activation_fraction:.1%}"
            progress.update(task, completed=epoch.number, note=note)


def counted(blocks: Iterable[Any], source: Source, *, quiet: bool) -> Iterator[Any]:
    """`blocks` of codes of a source, under a progress bar."""
    with screen.bar(quiet=quiet) as progress:
        task = progress.add_task("encode", total=source.n_samples)
        for block in stoppable(blocks):
            yield block
            progress.advance(task, block.shape[0])


def to_the_end(steps: Any, name: str, *, quiet: bool) -> dict[str, Any]:
    """What a generator of progress returns."""
    result: dict[str, Any] = {}

    def going() -> Iterator[Any]:
        result.update((yield from steps))

    with closing(steps), screen.bar("{task.fields[note]}", quiet=quiet) as progress:
        task = progress.add_task(name, total=1.0, note="")
        for step in stoppable(going()):
            progress.update(task, completed=step.share, note=step.note)
    return result


@contextmanager
def going_on() -> Iterator[None]:
    """Has an interruption say that what is finished is kept."""
    try:
        yield
    except KeyboardInterrupt:
        raise signals.Interrupted(
            "what is finished is kept; the same command goes on from there"
        ) from None


def checkpoints_of(run: Path) -> Path:
    """Where the fit that makes `run` saves its state."""
    if not run.name:  # "", "." and "/"
        raise ArgumentError("output", f"'{run}'", "a folder to make, such as runs/one")
    return run.with_name(f"{run.name}.checkpoints")


@contextmanager
def resumable(run: Path, saved: dict[str, Any]) -> Iterator[None]:
    """Has an interruption say how to go on, where a fit is `saved` on its way to `run`."""
    try:
        yield
    except KeyboardInterrupt:
        if not saved:
            raise
        from shoal.training.checkpoints import kept_steps

        folder, steps = checkpoints_of(run), kept_steps(checkpoints_of(run))
        state = "no state was saved yet" if steps is None else f"the state after {steps} steps"
        raise signals.Interrupted(
            f"{state}{'' if steps is None else f' is kept in {folder}'}; the same command with "
            "--resume goes on from there"
        ) from None


def kept(write: Callable[[Any], Path], held: Claim) -> Path:
    """What `write` makes of the place; where it can't be written there, it is kept elsewhere.

    What took hours must not be lost to a full disk: it goes to a new folder among the temporary
    files, and the error says so.
    """
    try:
        return write(held)
    except RunError as failed:
        try:
            spare = Path(tempfile.mkdtemp(prefix="shoal-"))
        except OSError:
            raise failed from None
        written = None
        try:
            written = write(spare / held.path.name)
        except (ShoalError, OSError):
            raise failed from None
        finally:
            if written is None:
                shutil.rmtree(spare, ignore_errors=True)
        raise WriteError(f"{failed}; what was to be there is kept as {written}") from None

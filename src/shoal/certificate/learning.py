"""Models that are learnt again: here or in processes, and kept until the certificate is made.

What each comes to depends on its rows and its seed alone: not on the number of processes, nor on
whether it is learnt now or was kept. So a certificate has the same bits however it is made.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from shoal.certificate.refits import Coded, coded, learning
from shoal.diagnosis._arrays import unit_rows
from shoal.estimators import TiedAutoencoder
from shoal.files import Claim, claim, write_bytes
from shoal.processes import given, workers
from shoal.vocabulary import RunError, WriteError

__all__ = ["Kept", "Learnt", "Task", "learn_all"]

Floats = NDArray[np.float64]
Recipe = Callable[[int], TiedAutoencoder]

# Arbitrary: seconds between two looks at processes, rows that further atoms are looked for in, and
# rounds of looking.
_LOOK, _ROWS, _ROUNDS = 0.2, 4000, 10


class Task(NamedTuple):
    """A model that is to be learnt."""

    what: str
    rows: Floats  # (N, n), prepared
    held: Floats  # (H, n), which it is then asked to code
    seed: int
    signed: bool
    more: bool  # whether atoms are looked for beside its own


class Learnt(NamedTuple):
    """What a task came to."""

    coded: Coded
    extra: Floats
    """(e, n): atoms of what the model leaves of its rows; none where they weren't asked for."""


def _lying(coded: Coded, extra: Floats) -> Learnt:
    """All numbers in their usual order: sums over another one end in other bits."""
    codes = sparse.csc_array(coded.codes)
    codes.sort_indices()
    arrays = (np.ascontiguousarray(each, np.float64) for each in (coded.atoms, coded.rest, extra))
    atoms, rest, extra = arrays
    return Learnt(Coded(atoms, codes, rest), extra)


def _following(recipe: Recipe, task: Task) -> Generator[None, None, Learnt]:
    """Learn one: yields between steps. One thread, as sums by several end in other bits."""
    model = recipe(task.seed)
    steps = learning(model, task.rows)
    before = torch.get_num_threads()
    try:
        while True:
            torch.set_num_threads(1)
            try:
                next(steps)
            except StopIteration:
                break
            torch.set_num_threads(before)
            yield
        found = coded(model, task.held)
        extra = np.zeros((0, task.rows.shape[1]))
        if task.more:
            some = task.rows[:_ROWS]
            extra = left_over(coded(model, some).rest, len(found.atoms), task.signed, task.seed)
        return _lying(found, extra)
    finally:
        torch.set_num_threads(before)


def left_over(rest: Floats, m: int, signed: bool, seed: int) -> Floats:
    """Half as many atoms again as `m`, of what `m` atoms leave of rows (N, n).

    Spherical k-means: each row is of one atom, which is the first direction of its rows. Where
    the data hold more than `m` atoms, rows that have one of those missing have it left.
    """
    lengths = np.einsum("ij,ij->i", rest, rest)
    rows = rest[lengths > 0]
    if not len(rows):
        return np.zeros((0, rest.shape[1]))
    rng = np.random.default_rng(seed)
    chances = lengths[lengths > 0] / lengths.sum()
    few = min(max(1, m // 2), len(rows))
    atoms = unit_rows(rows[rng.choice(len(rows), few, replace=False, p=chances)])
    for _ in range(_ROUNDS):
        along = rows @ atoms.T  # (N, few)
        nearest = (np.abs(along) if signed else along).argmax(axis=1)
        values = along[np.arange(len(rows)), nearest]
        one = sparse.csr_array((values, (nearest, np.arange(len(rows)))), (few, len(rows)))
        moved = one @ rows
        kept = np.linalg.norm(moved, axis=1) > 0
        atoms[kept] = unit_rows(moved[kept])
    return atoms


# --------------------------------------------------------------------------- here and elsewhere


def learn_all(
    recipe: Recipe, tasks: list[Task], n_jobs: int | None, kept: Kept | None
) -> Generator[tuple[float, str], None, list[Learnt]]:
    """Learn all of them: yields how many are done and what is at work; in the order of the tasks.

    `n_jobs` processes; with None one is learnt here, and where that takes long the others by as
    many as there are cores.
    """
    found: dict[int, Learnt] = {}
    for place in range(len(tasks)):
        if kept is not None and (known := kept.load(place)) is not None:
            found[place] = known
    left = [place for place in range(len(tasks)) if place not in found]

    def finished(place: int, learnt: Learnt) -> None:
        found[place] = learnt
        if kept is not None:
            kept.save(place, learnt)

    began = time.monotonic()
    while left and (n_jobs == 1 or (n_jobs is None and not _long(began))):
        place = left.pop(0)
        yield len(found) / len(tasks), tasks[place].what
        steps = _following(recipe, tasks[place])
        while True:
            try:
                next(steps)
            except StopIteration as end:
                finished(place, end.value)
                break
            yield len(found) / len(tasks), tasks[place].what
    if left:
        jobs = n_jobs or cores()
        yield from _beside(recipe, tasks, left, jobs, finished, found)
    return [found[place] for place in range(len(tasks))]


def _long(began: float) -> bool:
    """Whether so much time went by that processes, which take seconds to start, are worth it."""
    return cores() > 1 and time.monotonic() - began > 6.0  # arbitrary


def cores() -> int:
    """Those that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _beside(
    recipe: Recipe,
    tasks: list[Task],
    left: list[int],
    n_jobs: int,
    finished: Callable[[int, Learnt], None],
    found: Mapping[int, Learnt],
) -> Generator[tuple[float, str], None, None]:
    waiting: dict[Future[Learnt], int] = {}
    todo = list(left)
    with workers(min(n_jobs, len(left)), recipe) as executor:
        while todo or waiting:
            # Not all at once: what waits for its turn would be copied to the queue by then.
            while todo and len(waiting) < n_jobs:
                place = todo.pop(0)
                waiting[executor.submit(_there, tasks[place])] = place
            yield len(found) / len(tasks), tasks[min(waiting.values())].what
            for future in wait(waiting, _LOOK, FIRST_COMPLETED).done:
                finished(waiting.pop(future), future.result())


def _there(task: Task) -> Learnt:
    steps = _following(given(), task)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


# --------------------------------------------------------------------------- kept


class Kept:
    """A folder with what is learnt already, for the same call to go on from.

    ======================  ================================================================
    ``plan.json``           which data, model and call it is of
    ``0.safetensors``, ...  what is learnt; each is written whole
    ``0.json``, ...         its check sum; one that differs is learnt again
    ======================  ================================================================
    """

    def __init__(self, held: Claim) -> None:
        self._held = held

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], plan: Mapping[str, Any], *, overwrite: bool
    ) -> Self:
        """The folder, claimed; refused where it is of another plan."""
        held = claim(folder, overwrite=True)
        path = held.path
        try:
            there = path.exists() and any(path.iterdir())
            if there and (other := _differs(path, plan)) is not None:
                if not overwrite or not (path / "plan.json").is_file():
                    needed = "another folder, or the same call to go on from there"
                    if (path / "plan.json").is_file():
                        needed += "; or overwrite=True to begin anew"
                    raise RunError(f"{path}: holds {other}; needed {needed}")
                rmtree(path)
            path.mkdir(exist_ok=True)
            write_bytes(path / "plan.json", json.dumps(plan, indent=1).encode())
        except OSError as error:
            held.release()
            raise RunError(
                f"{path}: can't be used ({error.strerror}); needed a folder that can be written to"
            ) from None
        except BaseException:
            held.release()
            raise
        return cls(held)

    def load(self, place: int) -> Learnt | None:
        """What was learnt; None where it wasn't, or not all of it is there."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            data = (self._held.path / f"{place}.safetensors").read_bytes()
            stored = json.loads((self._held.path / f"{place}.json").read_text("utf-8"))
            if stored["sha256"] != hashlib.sha256(data).hexdigest():
                return None
            parts = load(data)
            codes = sparse.csc_array(
                (parts["values"], parts["indices"], parts["starts"]), shape=tuple(stored["shape"])
            )
            return _lying(Coded(parts["atoms"], codes, parts["rest"]), parts["extra"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def save(self, place: int, learnt: Learnt) -> None:
        """Keep it: the numbers first, so that a check sum speaks of what is there."""
        from safetensors.numpy import save

        codes = learnt.coded.codes
        parts = {
            "atoms": learnt.coded.atoms, "rest": learnt.coded.rest, "extra": learnt.extra,
            "values": codes.data, "indices": codes.indices, "starts": codes.indptr,
        }  # fmt: skip
        data = save(parts)
        said = {"sha256": hashlib.sha256(data).hexdigest(), "shape": list(codes.shape)}
        write_bytes(self._held.path / f"{place}.safetensors", data)
        write_bytes(self._held.path / f"{place}.json", json.dumps(said).encode())

    def end(self) -> None:
        """The certificate is made: nothing of it is needed any more."""
        try:
            rmtree(self._held.path)
        except OSError as error:
            raise WriteError(f"{self._held.path}: can't be removed ({error.strerror})") from None

    def release(self) -> None:
        """Let others go on from it."""
        self._held.release()


def _differs(path: Path, plan: Mapping[str, Any]) -> str | None:
    """What a folder holds that is of another plan, in words; None where it is of this one."""
    try:
        stored = json.loads((path / "plan.json").read_text("utf-8"))
        names = [name for name in plan if stored.get(name) != plan[name]]
    except (OSError, ValueError, AttributeError):
        return "something else than refits of a certificate"
    if not names:
        return None
    return "refits of " + " and ".join(f"another {name}" for name in names)

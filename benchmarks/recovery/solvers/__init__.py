"""The methods, one file each.

A solver's file has

    run(data, problem, seed)    a generator of dictionaries (m, n); see `objective`
    REQUIRES                    the modules it needs; empty by default
    settings(problem)           a dict of its settings on a problem, for the record
    unsuited(problem)           why it is left out of a problem, or None
    warm_up(problem, data)      compile what `run` will call, on other data
    fit(data, problem, seed)    its own whole fit, where it has a stopping rule

All but `run` are optional. The solver's name is the file's, with dashes. Files that start with
an underscore are shared by several.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Iterator
from typing import Any

from numpy.typing import NDArray

from benchmarks.recovery.datasets import Problem


class Solver:
    """A file of this folder, with defaults for what it leaves out."""

    def __init__(self, module: Any, name: str | None = None) -> None:
        """Wrap a module, or anything that has its `run`."""
        self.module = module
        self.name = name or module.__name__.rpartition(".")[2].replace("_", "-")
        self.run: Callable[[NDArray, Problem, int], Iterator[NDArray]] = module.run
        self.fit: Callable[[NDArray, Problem, int], NDArray] | None = getattr(module, "fit", None)
        self._warm: set[Problem] = set()

    def load(self) -> None:
        """Import what it needs; raises what that raises."""
        for name in getattr(self.module, "REQUIRES", ()):
            importlib.import_module(name)

    def settings(self, problem: Problem) -> dict[str, Any]:
        return getattr(self.module, "settings", lambda _: {})(problem)

    def unsuited(self, problem: Problem) -> str | None:
        return getattr(self.module, "unsuited", lambda _: None)(problem)

    def warm_up(self, problem: Problem, data: NDArray) -> float:
        """CPU seconds of its warm-up, once a problem; 0 afterwards."""
        warm_up = getattr(self.module, "warm_up", None)
        if warm_up is None or problem in self._warm:
            return 0.0
        self._warm.add(problem)
        start = time.process_time()
        warm_up(problem, data)
        return time.process_time() - start


def solvers() -> dict[str, Solver]:
    """Every solver by name, shoal first."""
    files = [found.name for found in pkgutil.iter_modules(__path__) if found.name[0] != "_"]
    files.sort(key=lambda name: (name != "shoal", name))
    found = [Solver(importlib.import_module(f"{__name__}.{name}")) for name in files]
    return {solver.name: solver for solver in found}

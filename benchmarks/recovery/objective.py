"""The clock: CPU seconds from data to 95 % of the true atoms, and what a whole fit recovers.

**c95** (`cpu_to_95`) is process-CPU time from data to the first dictionary seen of which at
least 95 % of the true atoms are matched, one to one, at cosine .95: up to sign for signed
codes, with the sign for non-negative codes and mixtures.

A solver's `run(data, problem, seed)` is a generator. Its first yield ends its set-up (checks,
copies into its own layout, warm-up), which is reported apart; every later one gives its present
dictionary (m, n) after a small piece of work. The clock runs only inside the generator, so that
looking costs the solver nothing, and dictionaries are looked at once the clock has grown by 3 %,
so that looking doesn't keep its caches cold.

**When a run ends.** Where the generator ends, or at the workload's budget; or, but not before
three times its c95 and a tenth of the budget, once every true atom is matched at .99, or half are
found and nothing has risen during the last two thirds of its clock. What a run recovers is what
its last dictionary has. shoal ends by itself and gets no budget: its recoveries and `fit_cpu` are
those of a second, unwatched `fit` with its own stopping rule and polish.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import shoal
from benchmarks.recovery.datasets import Problem, World
from benchmarks.recovery.solvers import Solver

TARGET = 0.95  # of the true atoms
COSINE = 0.95
GROWTH = 1.03  # of the clock between two looks


class Judge:
    """How much of the truth a dictionary has, and the seconds at which it was seen."""

    def __init__(self, truth: NDArray, signs: str) -> None:
        """Take the truth to unit rows once."""
        self.truth, self.signs = truth, signs
        self._unit = np.asarray(truth / np.linalg.norm(truth, axis=1, keepdims=True), "float32")

    def __call__(self, dictionary: Any) -> tuple[float, float]:
        """Shares of the true atoms at .95 and .99: assigned where they could reach the target.

        Below the target they are the shares with any atom that near: an upper bound.
        """
        found = np.asarray(dictionary)
        if not np.isfinite(found).all():
            return 0.0, 0.0
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        rows = (found / np.maximum(norms, np.finfo(found.dtype).tiny)).astype("float32")
        cosines = self._unit @ rows.T  # (m_true, m)
        best = (np.abs(cosines) if self.signs == "free" else cosines).max(axis=1)
        if np.mean(best >= COSINE - 1e-5) < TARGET:  # 1e-5: of float32
            return float(np.mean(best >= COSINE)), float(np.mean(best >= 0.99))
        score = self.score(found)
        return score.recovered(COSINE), score.recovered(0.99)

    def score(self, dictionary: Any) -> shoal.Recovery:
        return shoal.recovery(np.asarray(dictionary, "float64"), self.truth, signs=self.signs)


def _advance(run: Iterator[Any]) -> tuple[Any, float]:
    start = time.process_time()
    dictionary = next(run, None)
    return dictionary, time.process_time() - start


def follow(run: Iterator[Any], judge: Judge, budget: float | None) -> dict[str, Any]:
    """Drive a solver's generator to its end or its budget (None: to its end)."""
    last, setup = _advance(run)
    clock, next_look, risen = 0.0, 0.0, 0.0
    to_95, best, curve = None, (0.0, 0.0), []
    while True:
        dictionary, seconds = _advance(run)
        clock += seconds
        if dictionary is None:  # the work after the last yield counts too
            break
        last = dictionary
        over = budget is not None and clock >= budget
        if clock < next_look and not over:
            continue
        next_look = GROWTH * clock
        seen = judge(dictionary)
        curve.append([round(clock, 5), round(seen[0], 4)])
        if seen[0] > best[0] or seen[1] > best[1]:
            best, risen = (max(best[0], seen[0]), max(best[1], seen[1])), clock
        if to_95 is None and seen[0] >= TARGET:
            to_95 = clock
        if over:
            break
        if budget is not None and clock >= max(budget / 10, 3 * (to_95 or 0.0)):
            complete = to_95 is not None and seen[1] == 1.0
            if complete or (best[0] > 0.5 and clock >= 3 * risen):
                break
    run.close()  # type: ignore[attr-defined]
    return {
        "cpu_to_95": to_95,
        "fit_cpu": clock,
        "setup_cpu": setup,
        "curve": curve,
        "dictionary": np.asarray(last).copy(),
    }


def measure(solver: Solver, world: World, seed: int) -> dict[str, Any]:
    """One row: a solver on a world."""
    problem = world.problem
    judge = Judge(world.truth, problem.signs)
    warm = solver.warm_up(problem, world.data)
    budget = None if solver.fit is not None else problem.budget
    found = follow(solver.run(world.data, problem, seed), judge, budget)
    dictionary = found.pop("dictionary")
    if solver.fit is not None:
        start = time.process_time()
        dictionary = solver.fit(world.data, problem, seed)
        found["fit_cpu"] = time.process_time() - start
    score = judge.score(dictionary)
    return {
        "workload": problem.workload,
        "solver": solver.name,
        "seed": seed,
        "recovered_95": score.recovered(COSINE),
        "recovered_99": score.recovered(0.99),
        "mean_distance": score.mean_distance,
        **found,
        "compile_cpu": warm,
        "settings": solver.settings(problem),
    }


def reason(solver: Solver, problem: Problem) -> str | None:
    """Why a solver is left out of a workload, in one line; None where it isn't."""
    try:
        solver.load()
    except Exception as error:
        return f"can't be imported: {type(error).__name__}: {str(error).splitlines()[0]}"
    return solver.unsuited(problem)

"""Recovery of planted dictionaries: shoal and its peers on one clock.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 \
        python -m benchmarks.recovery [--workload a,b] [--seeds 3] [--solver shoal,spams-lasso] \
        [--json FILE] [--figure FILE]
    python -m benchmarks.recovery --show FILE      # the table of a file that --json wrote

What the numbers mean and when a run ends is said in `benchmarks/recovery/objective.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.recovery.datasets import GROUPS, WORKLOADS, draw, names
from benchmarks.recovery.objective import measure, reason
from benchmarks.recovery.solvers import Solver, solvers
from benchmarks.recovery.table import table

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def rows(
    workloads: list[str], chosen: list[Solver], seeds: int | None, first: int
) -> Iterator[dict[str, Any]]:
    """Run everything, seed by seed so that solvers meet the same state of the machine."""
    for name in workloads:
        workload = WORKLOADS[name]
        counts = {
            solver.name: seeds or (workload.seeds if solver.fit is None else workload.own_seeds)
            for solver in chosen
        }
        said: set[str] = set()
        for seed in range(first, first + max(counts.values())):
            world = draw(name, seed)
            for solver in chosen:
                if solver.name in said or seed >= first + counts[solver.name]:
                    continue
                if why := reason(solver, world.problem):
                    said.add(solver.name)
                    print(f"{name}: {solver.name} left out: {why}", flush=True)
                    continue
                row = measure(solver, world, seed)
                reached = row["cpu_to_95"]
                word = "     -" if reached is None else f"{reached:6.3f}"
                print(
                    f"{name:8} seed {seed:<4} {solver.name:24} c95 {word} s  fit "
                    f"{row['fit_cpu']:7.2f} s  @.95 {row['recovered_95']:7.2%}  "
                    f"@.99 {row['recovered_99']:7.2%}",
                    flush=True,
                )
                yield row


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = solvers()
    parser.add_argument(
        "--workload",
        action="append",
        help=f"names, comma separated: {', '.join([*GROUPS, *WORKLOADS])}; by default 'default'",
    )
    parser.add_argument("--seeds", type=int, help="how many; by default each workload's own")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--solver", action="append", help=f"of {', '.join(known)}; by default all")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--figure", type=Path, help="draw recovery against CPU seconds")
    parser.add_argument("--show", type=Path, help="print the table of such a file; run nothing")
    given = parser.parse_args(arguments)
    if given.show:
        print(table(json.loads(given.show.read_text())))
        return
    try:
        workloads = names(given.workload or ["default"])
    except ValueError as error:
        parser.error(str(error))
    words = [word for text in given.solver or known for word in text.split(",") if word]
    if unknown := [word for word in words if word not in known]:
        parser.error(f"no solver {', '.join(unknown)}; there are {', '.join(known)}")
    if not all(os.environ.get(name) == "1" for name in THREADS):
        print(f"not on one thread: set {'=1 '.join(THREADS)}=1 to compare", file=sys.stderr)

    found = []
    chosen = [known[word] for word in dict.fromkeys(words)]
    for row in rows(workloads, chosen, given.seeds, given.first_seed):
        found.append(row)
        if given.json:  # after every run: a long benchmark may be stopped
            given.json.write_text(json.dumps(found) + "\n")
    print("\n" + table(found))
    if given.figure:
        from benchmarks.recovery.figure import draw_figure

        draw_figure(found, given.figure)


if __name__ == "__main__":
    main()

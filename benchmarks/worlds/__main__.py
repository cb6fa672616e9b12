"""Recovery in worlds as they are: SynthSAEBench's law, shoal and its peers.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 \
        python -m benchmarks.worlds [--size 1k] [--solver shoal,batchtopk,matryoshka] [--seeds 2] \
        [--device cuda] [--json FILE]
    python -m benchmarks.worlds --show FILE ... [--figure FILE]   # of files that --json wrote

Every method gets the rows and the number of atoms W; peers are told the true mean number of active
features as well. All is measured on rows that no fit saw, for each way that a method has to code
them. A random dictionary is always there to compare with; at the size that was published so are
the published numbers. A world's seed and a fit's are the same number. Seconds are the process's
CPU seconds on all threads, or on a GPU those of the clock; generation_seconds in the file, those
of the clock for the world and its rows.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks.worlds.peers import Fitted, Task, load, names
from benchmarks.worlds.published import PUBLISHED
from shoal.diagnosis import detection
from shoal.generative import SYNTH_SIZES, FeatureSample, HierarchicalSparseCoding, synth_sae_bench

COLUMNS = {
    "f1": "F1",
    "uniqueness": "unique",
    "mcc": "MCC",
    "explained_variance": "EV",
    "l0": "L0",
    "f1_features": "F1/feat",
    "f1_rare_atoms": "F1/rare",
    "absorption": "absorb",
    "shrinkage": "shrink",
    "seconds": "seconds",
}


def measure(
    fitted: Fitted, world: HierarchicalSparseCoding, test: FeatureSample
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The numbers of each way to code, on rows that the fit didn't see."""
    assert world.forest is not None
    spread = float(np.square(test.data - test.data.mean(axis=0)).sum())
    for way, encode in fitted.codes.items():
        codes = encode(test.data)
        left = test.data - (codes @ fitted.atoms + fitted.offset)
        scores = detection(
            codes,
            test.codes,
            fitted.atoms,
            world.dictionary,
            parents=world.forest.parent,
            offset=fitted.offset,
            data=test.data,
        )
        explained = 1.0 - float(np.square(left).sum()) / spread
        yield way, {**scores.to_dict(), "explained_variance": explained}


def rows(
    size: str,
    solvers: Iterable[str],
    seeds: Iterable[int],
    *,
    device: str = "cpu",
    n_samples: int | None = None,
    n_test: int = 20_000,
    width: int | None = None,
    steps: int | None = None,
) -> Iterator[dict[str, Any]]:
    """One row per seed, solver and way to code."""
    sizes = SYNTH_SIZES[size]
    width = width or sizes.width
    for seed in seeds:
        start = time.perf_counter()
        world = synth_sae_bench(size, random_state=seed)  # type: ignore[arg-type]
        data = drawn(world, n_samples or sizes.n_samples, 1000 + seed, device)
        made = time.perf_counter() - start
        test = world.sample(n_test, random_state=2000 + seed)
        k = max(1, int(np.sort(world.frequency)[::-1][:width].sum()))
        for name in solvers:
            task = Task(data, width, k, seed, device, steps)
            seconds, fitted = timed(load(name).fit, task)
            for way, scores in measure(fitted, world, test):
                yield {
                    "size": size,
                    "solver": name,
                    "codes": way,
                    "seed": seed,
                    "width": width,
                    "n_samples": len(data),
                    "rows_seen": fitted.rows_seen,
                    "device": device,
                    "seconds": seconds,
                    "generation_seconds": made,
                    "settings": fitted.settings,
                    **scores,
                }


def drawn(world: HierarchicalSparseCoding, n_samples: int, seed: int, device: str) -> Any:
    if device == "cpu":
        return world.sample(n_samples, random_state=seed).data
    return world.sample(n_samples, random_state=seed, device=device).data.cpu().numpy()


def timed(fit: Any, task: Task) -> tuple[float, Fitted]:
    if task.device == "cpu":
        start = time.process_time()
        fitted = fit(task)
        return time.process_time() - start, fitted
    import torch

    torch.cuda.synchronize()
    start = time.perf_counter()
    fitted = fit(task)
    torch.cuda.synchronize()
    return time.perf_counter() - start, fitted


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds, for each solver and way to code."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault((row["solver"], row["codes"]), []).append(row)
    lines = []
    for (solver, way), group in groups.items():
        line: dict[str, Any] = {"solver": solver, "codes": way, "seeds": len(group)}
        line["rows_seen"] = group[0]["rows_seen"]
        for name in COLUMNS:
            values = [row[name] for row in group if row[name] is not None]
            line[name] = fmean(values) if values else None
            line[f"{name}_sd"] = stdev(values) if len(values) > 1 else None
        lines.append(line)
    return lines


def table(found: list[dict[str, Any]]) -> str:
    """The summary as lines to read; with the published numbers where sizes are the published."""
    lines = [f"{'':34}" + "".join(f"{each:>14}" for each in COLUMNS.values()) + f"{'rows':>12}"]
    for each in summary(found):
        cells = [_cell(each[name], each[f"{name}_sd"]) for name in COLUMNS]
        seen = "-" if each["rows_seen"] is None else str(each["rows_seen"])
        name = f"{each['solver']}, {each['codes']} ({each['seeds']})"
        lines.append(f"{name:34}" + "".join(f"{cell:>14}" for cell in cells) + f"{seen:>12}")
    if found and found[0]["size"] == "16k" and found[0]["width"] == SYNTH_SIZES["16k"].width:
        lines.append("published, 200 million rows:")
        for each in PUBLISHED:
            cells = [_cell(each.get(name), None) for name in COLUMNS]
            lines.append(f"{each['solver']:34}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: float | None, spread: float | None) -> str:
    if value is None:
        return "-"
    text = f"{value:.1f}" if abs(value) >= 20 else f"{value:.3f}"
    return text if spread is None else f"{text} {spread:.3f}"


def finished(found: list[dict[str, Any]], picture: Path | None) -> None:
    print(table(found))
    if picture is not None:
        from benchmarks.worlds.figure import draw_figure

        draw_figure(found, picture)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.worlds", description=(__doc__ or "").partition("\n")[0]
    )
    known = names()
    parser.add_argument("--size", choices=list(SYNTH_SIZES), default="1k")
    parser.add_argument("--solver", default="shoal", help=f"of {', '.join(known)}, by commas")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--width", type=int, help="W; by default the size's own")
    parser.add_argument("--samples", type=int, help="rows to fit; by default the size's own")
    parser.add_argument("--test-samples", type=int, default=20_000)
    parser.add_argument("--steps", type=int, help="minibatches of the peers that have them")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--figure", type=Path, help="draw F1 against seconds and MCC")
    parser.add_argument(
        "--show", type=Path, nargs="+", help="the table, or the figure, of such files; run nothing"
    )
    given = parser.parse_args(arguments)
    if given.show:
        held = [row for path in given.show for row in json.loads(path.read_text())["rows"]]
        finished(held, given.figure)
        return
    for name in ("seeds", "width", "samples", "test_samples", "steps"):
        if (number := getattr(given, name)) is not None and number < 1:
            parser.error(f"--{name.replace('_', '-')}: found {number}; needed at least 1")
    solvers = list(dict.fromkeys([*given.solver.replace(",", " ").split(), "random"]))
    ready = []
    for name in solvers:
        try:
            load(name)
        except LookupError as error:
            if name not in known:
                parser.error(str(error))
            print(f"left out: {error}", flush=True)
        else:
            ready.append(name)
    found = []
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    for row in rows(
        given.size,
        ready,
        seeds,
        device=given.device,
        n_samples=given.samples,
        n_test=given.test_samples,
        width=given.width,
        steps=given.steps,
    ):
        found.append(row)
        print(
            f"{row['size']} seed {row['seed']} {row['solver']:10} {row['codes']:8} "
            f"F1 {row['f1']:.3f}  unique {row['uniqueness']:.3f}  MCC {row['mcc']:.3f}  "
            f"EV {row['explained_variance']:.3f}  {row['seconds']:.1f} s",
            flush=True,
        )
        if given.json:
            record = {"rows": found, "summary": summary(found)}
            if given.size == "16k":
                record["published"] = PUBLISHED
            given.json.write_text(json.dumps(record, indent=1) + "\n")
    finished(found, given.figure)


if __name__ == "__main__":
    main()

"""The clock and the rows of the recovery benchmark, with solvers that need no time."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)  # `benchmarks` is run from the root and isn't installed

from benchmarks.recovery import __main__ as cli  # noqa: E402
from benchmarks.recovery import datasets, objective, table  # noqa: E402
from benchmarks.recovery.figure import draw_figure  # noqa: E402
from benchmarks.recovery.solvers import Solver, solvers  # noqa: E402


class Clock:
    """A clock that only `burn` moves."""

    now = 0.0

    def burn(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(objective, "time", SimpleNamespace(process_time=lambda: clock.now))
    return clock


@pytest.fixture
def tiny(monkeypatch):
    """A workload "tiny" small enough for a test, that no user sees."""
    workload = datasets.Workload(datasets.signed(16, 20, 2), "sparse", 1_500, budget=0.5, seeds=1)
    monkeypatch.setitem(datasets.WORKLOADS, "tiny", workload)
    return datasets.draw("tiny", 0)


def oracle(truth, clock, at=3, work=0.01):
    """A solver that knows the truth and gives it, in another order and sign, at its step `at`."""

    def run(data, problem, seed):
        yield data[: problem.n_atoms]
        for step in range(1, at + 3):
            clock.burn(work)
            yield -truth[::-1] if step >= at else data[: problem.n_atoms]

    return Solver(SimpleNamespace(run=run), "oracle")


def test_the_clock_runs_in_the_solver_alone(tiny, clock):
    looks = []

    def judge(dictionary):
        looks.append(dictionary)
        clock.burn(0.2)
        return 0.0, 0.0

    solver = oracle(tiny.truth, clock, at=2)
    found = objective.follow(solver.run(tiny.data, tiny.problem, 0), judge, None)
    assert len(looks) == 4
    assert found["fit_cpu"] == pytest.approx(0.04)
    assert found["cpu_to_95"] is None


def test_looks_grow_apart_with_the_clock(tiny, clock):
    looks = []

    def judge(dictionary):
        looks.append(dictionary)
        return 0.0, 0.0

    solver = oracle(tiny.truth, clock, at=500)
    objective.follow(solver.run(tiny.data, tiny.problem, 0), judge, None)
    assert 50 < len(looks) < 200  # of 502 steps; growth of 3 % from step 33 on: 33 + 93


def test_setup_is_apart(tiny, clock):
    def run(data, problem, seed):
        clock.burn(0.05)
        yield data[: problem.n_atoms]
        clock.burn(0.01)
        yield tiny.truth

    found = objective.measure(Solver(SimpleNamespace(run=run), "slow-start"), tiny, 0)
    assert found["setup_cpu"] == pytest.approx(0.05)
    assert found["cpu_to_95"] == pytest.approx(0.01)


def test_cpu_to_95_is_the_first_dictionary_that_passes(tiny, clock):
    row = objective.measure(oracle(tiny.truth, clock, at=3), tiny, 0)
    assert row["cpu_to_95"] == pytest.approx(0.03)
    assert row["recovered_95"] == row["recovered_99"] == 1.0
    assert row["mean_distance"] < 1e-6


def test_one_atom_does_not_count_for_two(tiny):
    twice = tiny.truth.copy()
    twice[:2] = twice[2:4]  # 18 of 20 are there: .9 < .95
    assert objective.Judge(tiny.truth, "free")(twice)[0] == pytest.approx(0.9)


def test_a_fixed_sign_counts(tiny):
    assert objective.Judge(tiny.truth, "free")(-tiny.truth)[0] == 1.0
    assert objective.Judge(tiny.truth, "fixed")(-tiny.truth)[0] == 0.0


def test_not_finite_is_nothing(tiny):
    assert objective.Judge(tiny.truth, "free")(tiny.truth * np.nan) == (0.0, 0.0)


def test_a_run_that_never_ends_meets_its_budget(tiny, clock):
    def run(data, problem, seed):
        while True:
            clock.burn(0.01)
            yield data[: problem.n_atoms]

    row = objective.measure(Solver(SimpleNamespace(run=run), "idle"), tiny, 0)
    assert row["cpu_to_95"] is None
    assert row["fit_cpu"] == pytest.approx(0.5, abs=0.011)


def test_a_missing_peer_says_why(tiny, monkeypatch, capsys):
    missing = SimpleNamespace(run=None, REQUIRES=("no_such_module",))
    found = list(cli.rows(["tiny"], [Solver(missing, "ghost")], 2, 0))
    assert found == []
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1
    assert "ghost left out: can't be imported" in told[0]
    assert "no_such_module" in told[0]


def test_clusterers_are_left_out_of_sparse_codes(tiny):
    known = solvers()
    assert objective.reason(known["sklearn-kmeans"], tiny.problem)
    assert objective.reason(known["shoal"], tiny.problem) is None
    assert next(iter(known)) == "shoal"


def test_rows_of_the_command_line(tiny, tmp_path, capsys):
    path = tmp_path / "rows.json"
    # fmt: off
    cli.main(["--workload", "tiny", "--seeds", "1", "--first-seed", "3",
              "--solver", "shoal,sklearn-mbdl", "--json", str(path)])
    # fmt: on
    rows = json.loads(path.read_text())
    assert [(row["workload"], row["solver"], row["seed"]) for row in rows] == [
        ("tiny", "shoal", 3),
        ("tiny", "sklearn-mbdl", 3),
    ]
    for row in rows:
        assert {"cpu_to_95", "recovered_95", "recovered_99", "mean_distance", "fit_cpu"} <= {*row}
        assert row["cpu_to_95"] is None or row["cpu_to_95"] >= 0
        assert all(len(point) == 2 for point in row["curve"])
    assert "x shoal" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--workload", "zz"], ["--solver", "zz"]])
def test_unknown_names_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert "zz" in capsys.readouterr().err


def test_groups_are_written_out_once():
    assert datasets.names(["a,c", "c-0.01"]) == ["a", "c-0.01", "c-0.02", "c-0.03"]
    assert len(datasets.names(["k"])) == 18


def test_workload_e_is_at_20_decibels():
    assert datasets.WORKLOADS["e"].make(0).snr == pytest.approx(100)


def row(solver, seconds, fit=1.0, seed=0):
    return {
        "workload": "w", "solver": solver, "seed": seed, "cpu_to_95": seconds, "fit_cpu": fit,
        "setup_cpu": 0.0, "recovered_95": 1.0, "recovered_99": 0.5, "mean_distance": 0.1,
        "curve": [[0.1, 0.2], [0.5, 1.0]],
    }  # fmt: skip


def test_a_seed_that_never_got_there_is_the_slowest():
    ours = [row("shoal", 0.5, fit=2.0, seed=seed) for seed in range(3)]
    theirs = [row("peer", seconds) for seconds in (1.0, None, 3.0)]
    _, peer = table.summary(ours + theirs)
    assert (peer["cpu_to_95"], peer["reached"]) == (3.0, 2)
    assert peer["ratio"] == 6.0
    assert peer["shoal_fit_over_c95"] == pytest.approx(2 / 3)
    assert table.summary([row("peer", 1.0), row("peer", None), row("peer", None)])[0][
        "cpu_to_95"
    ] is None  # fmt: skip


def test_the_figure_is_drawn(tmp_path):
    draw_figure([row("shoal", 0.5), row("peer", None)], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000

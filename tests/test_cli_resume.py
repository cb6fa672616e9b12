"""`shoal fit --checkpoint-every ... --resume`: interrupted, and gone on with."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from commands import done, refused, shoal_
from shoal import signals
from shoal.generative import SparseCoding, random_dictionary
from shoal.training import checkpoints

DICTIONARY = ["fit", "x.npy", "-m", 20, "-k", 2, "-q"]
REGULARIZED = ["fit", "x.npy", "-m", 20, "--penalty", "cae", "--epochs", 3, "-q"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with data."""
    monkeypatch.chdir(tmp_path)
    world = SparseCoding(random_dictionary(20, 12, random_state=0), 2, noise=0.05)
    np.save("x.npy", world.sample(500, random_state=1).data)
    return tmp_path


def interrupted(*words: object, number: int = signal.SIGTERM, after: int = 9) -> str:
    """What it says when a signal comes within a step."""

    def step(keeper, moving, step=checkpoints.Keeper.step):  # type: ignore[no-untyped-def]
        if keeper.steps + 1 == after:
            os.kill(os.getpid(), number)
        step(keeper, moving)

    with pytest.MonkeyPatch.context() as patch, signals.noticed():
        patch.setattr(checkpoints.Keeper, "step", step)
        result = shoal_(*words)
    assert result.exit_code == 128 + number, result.output
    return str(result.stderr)


@pytest.mark.parametrize(
    ("words", "number"),
    [(DICTIONARY, signal.SIGINT), (REGULARIZED, signal.SIGTERM)],
    ids=["dictionary", "regularized"],
)
def test_a_signal_saves_and_the_same_command_goes_on(
    words: list[object], number: signal.Signals, here: Path
) -> None:
    said = interrupted(*words, "-o", "run", "--checkpoint-every", "1h", number=number)
    assert said == (
        "interrupted: the state after 9 steps is kept in run.checkpoints; the same command with "
        "--resume goes on from there\n"
    )
    assert sorted(os.listdir(here)) == ["run.checkpoints", "x.npy"]
    done(*words, "-o", "run", "--resume")
    assert sorted(os.listdir(here)) == ["run", "x.npy"]
    done(*words, "-o", "whole")
    for name in ("dictionary.safetensors", "history.jsonl"):
        one, other = (Path(run, name).read_bytes() for run in ("run", "whole"))
        if name == "history.jsonl":
            one, other = map(without_seconds, (one, other))
        assert one == other


def without_seconds(history: bytes) -> list[dict[str, object]]:
    records = [json.loads(line) for line in history.splitlines()]
    return [{key: value for key, value in each.items() if key != "seconds"} for each in records]


def test_what_another_fit_has_left_is_not_passed_over(here: Path) -> None:
    interrupted(*DICTIONARY, "-o", "run", "--checkpoint-every", 2)
    line = refused(*DICTIONARY, "-o", "run")
    assert "run.checkpoints: holds the state after 9 steps of a fit" in line
    assert "needed --resume to go on from it, or --force to begin anew" in line
    other = [each if each != 20 else 21 for each in DICTIONARY]
    line = refused(*other, "-o", "run", "--resume")
    assert "begun with other arguments (n_components 20) than this call's (n_components 21)" in line
    np.save("x.npy", np.load("x.npy") * 2)
    assert "begun with other data set" in refused(*DICTIONARY, "-o", "run", "--resume")
    done(*DICTIONARY, "-o", "run", "--force")
    assert sorted(os.listdir(here)) == ["run", "x.npy"]


def test_a_kill_before_the_state_is_removed_is_mended(here: Path) -> None:
    interrupted(*DICTIONARY, "-o", "run", "--checkpoint-every", 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shoal.cli.fitting.shutil.rmtree", lambda *_, **__: None)
        done(*DICTIONARY, "-o", "run", "--resume")
    assert sorted(os.listdir(here)) == ["run", "run.checkpoints", "x.npy"]
    before = Path("run/dictionary.safetensors").read_bytes()
    done(*DICTIONARY, "-o", "run", "--resume")
    assert sorted(os.listdir(here)) == ["run", "x.npy"]
    assert Path("run/dictionary.safetensors").read_bytes() == before
    assert "exists already" in refused(*DICTIONARY, "-o", "run", "--resume")


def test_before_anything_is_saved_resume_begins(here: Path) -> None:
    result = done(*REGULARIZED[:-1], "-o", "run", "--resume")
    assert result.stderr.startswith("begins: nothing is saved in run.checkpoints yet\n")
    assert sorted(os.listdir(here)) == ["run", "x.npy"]


def test_a_damaged_state_is_said_and_the_one_before_it_used(here: Path) -> None:
    interrupted(*DICTIONARY, "-o", "run", "--checkpoint-every", 2)
    (here / "run.checkpoints" / f"{9:012d}" / "state.safetensors").write_bytes(b"")
    result = done(*DICTIONARY, "-o", "run", "--resume")
    assert "note: run.checkpoints/000000000009 is damaged" in result.stderr
    assert "after 8 steps" in result.stderr


def test_a_stream_and_a_bad_time_are_refused(here: Path) -> None:
    line = refused(*DICTIONARY, "-o", "run", "--checkpoint-every", "soon")
    assert "checkpoint_every: found 'soon'; needed a number of steps, or a time" in line
    assert sorted(os.listdir(here)) == ["x.npy"]


@pytest.mark.parametrize("place", ["", ".", "/"])
@pytest.mark.parametrize("words", [["--resume"], ["--checkpoint-every", "5"], ["--force"], []])
def test_a_place_without_a_name_is_refused_in_one_line(place, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.eye(6))
    result = shoal_("fit", "x.npy", "-o", place, *words)
    assert isinstance(result.exception, SystemExit), result.exception
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert (tmp_path / "x.npy").exists()

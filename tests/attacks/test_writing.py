"""Small versions of the attacks on writing; `python -m tests.attacks.NAME` runs large ones."""

import errno
import random
import shutil
import time
import warnings
from pathlib import Path

import pytest

import shoal
from attacks import faults, kills, mutated_runs, writers
from shoal import run_folder
from shoal.report import read_run


@pytest.fixture(scope="module")
def operations(tmp_path_factory):
    return faults.operations(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return writers.two_runs(tmp_path_factory.mktemp("runs"))


OPERATIONS = [
    "write_bytes", "write_bytes over an old one", "whole_folder", "whole_folder over an old one",
    "save_run", "save_run over an old one", "codes of transform", "data of generate",
    "result of reproduce", "result of sweep", "report",
]  # fmt: skip


def test_every_operation_is_tried(operations):
    assert list(operations) == OPERATIONS


@pytest.mark.parametrize("name", OPERATIONS)
def test_whichever_call_fails_the_old_or_the_new_is_there_whole(name, operations, tmp_path):
    place, make, old = operations[name]
    few = "write_bytes" in name or "whole" in name
    for error in faults.ERRORS if few else [errno.EIO]:
        counts = faults.outcomes(place, make, tmp_path, error, old)
        called = {key.split(":")[0] for key in counts}
        assert {"open", "write", "fsync", "flock", "close", "none"} <= called
        assert counts["none: new"] == 1


def test_the_layer_finds_what_is_written_without_care(tmp_path):
    def careless(place: Path) -> None:
        with open(place, "wb") as file:
            file.write(b"new")

    with pytest.raises(AssertionError, match=r"'a', '(open|write)'"):
        faults.outcomes("a", careless, tmp_path, errno.EIO, lambda path: path.write_bytes(b"old"))


def test_of_two_writers_one_writes_and_the_other_is_told():
    found = writers.two_writers(10, writers.write, writers.read)
    assert found["one, and it is there"] == 10
    assert found["lost"] == found["left over"] == found["raw error"] == 0


def test_writers_that_ask_first_and_lock_nothing_lose_a_result():
    def write(path, text):
        if path.exists():
            return False
        time.sleep(0.1)  # long enough for the other to ask, too
        path.mkdir(exist_ok=True)
        for name in ("a", "b"):
            (path / name).write_text(text)
        return True

    assert writers.two_writers(3, write, writers.read)["lost"] > 0


def test_a_load_while_a_run_is_replaced_gets_one_of_the_two(given):
    found = writers.loads(60, given)
    assert set(found) <= {"run 0", "run 1"}, found


@pytest.mark.parametrize("plain", [False, True])
def test_a_kill_leaves_a_whole_run_and_nothing_for_long(plain, given):
    found = kills.killed_runs(12, plain, given)
    assert found["whole"] == 12, found
    assert found["left over"] == 0


def test_no_mutated_run_gives_other_codes_or_a_raw_error(tmp_path):
    given, draw = mutated_runs.runs(tmp_path), random.Random(1)
    for number in range(8 * len(mutated_runs.KINDS)):
        name, good, other, rows, codes = given[number % len(given)]
        kind = list(mutated_runs.KINDS)[number // 8]
        folder = Path(shutil.copytree(good, tmp_path / "spoilt"))
        named = mutated_runs.mutate(folder, other if "run" in kind else good, kind, draw)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = [
                mutated_runs.judged(use, expected, shoal.RunError, 300 + 2 * len(str(folder)))
                for use, expected in (
                    (lambda at=folder, rows=rows: shoal.load_run(at).transform(rows), codes),
                    (lambda at=folder: read_run(at), None),
                )
            ]
        allowed = {"refused", "the same"} | ({"OTHER"} if "format 1" in name else set())
        assert set(found) <= allowed, (name, kind, named)
        same = all(
            (folder / each.name).is_file()
            and not (folder / each.name).is_symlink()
            and (folder / each.name).read_bytes() == each.read_bytes()
            for each in good.iterdir()
        )
        if "format 1" not in name:
            assert same == all(each.sound for each in run_folder.verify(folder))
        shutil.rmtree(folder)

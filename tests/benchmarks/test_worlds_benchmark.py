"""The benchmark of worlds as they are, at a size that takes no time."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)  # `benchmarks` is run from the root and isn't installed

from benchmarks.worlds import __main__ as cli  # noqa: E402
from benchmarks.worlds.peers import Fitted, Task, largest, load, names  # noqa: E402

from shoal.generative import synth_sae_bench  # noqa: E402

SMALL = ["--samples", "1500", "--test-samples", "500", "--width", "32", "--steps", "5"]


def test_every_file_of_the_peers_is_a_solver():
    assert names() == ["batchtopk", "matryoshka", "random", "shoal", "sklearn", "spams", "topk"]
    for name in names():
        if name == "spams" and not find_spec("spams"):
            with pytest.raises(LookupError, match="isn't installed"):
                load(name)
        else:
            assert callable(load(name).fit)


def test_a_run_writes_all_numbers_and_a_random_dictionary(tmp_path, capsys):
    path = tmp_path / "numbers.json"
    solvers = "topk,matryoshka"
    cli.main(["--solver", solvers, "--seeds", "2", *SMALL, "--json", str(path)])
    record = json.loads(path.read_text())
    assert len(record["rows"]) == 6
    for row in record["rows"]:
        assert {"f1", "mcc", "uniqueness", "absorption", "seconds", "rows_seen"} <= set(row)
        assert row["width"] == 32
    chance = next(each for each in record["summary"] if each["solver"] == "random")
    assert chance["mcc"] < 0.2
    assert chance["f1"] < 0.2
    assert chance["f1_sd"] is not None
    assert "published" not in record
    cli.main(["--show", str(path)])
    assert capsys.readouterr().out.count("random, encoder (2)") == 2


def test_true_atoms_with_true_codes_have_the_best_scores():
    world = synth_sae_bench("1k", random_state=0)
    test = world.sample(3000, random_state=1)
    fitted = Fitted(world.dictionary, world.offset, {"truth": lambda _: test.codes}, None)
    ((way, scores),) = cli.measure(fitted, world, test)
    fired = scores["dead"]
    assert way == "truth"
    assert scores["f1"] == pytest.approx(1 - fired / 1024)
    assert scores["f1_features"] == 1.0
    assert scores["mcc"] == pytest.approx(1.0)
    assert scores["uniqueness"] == 1.0
    assert scores["absorption"] == 0.0
    assert scores["shrinkage"] == pytest.approx(1.0, abs=1e-4)
    assert scores["explained_variance"] == pytest.approx(1.0, abs=1e-6)


def test_published_numbers_stand_beside_the_full_size_alone():
    row = dict.fromkeys(cli.COLUMNS, 0.5) | {
        "solver": "shoal",
        "codes": "encoder",
        "size": "16k",
        "width": 4096,
        "rows_seen": None,
    }
    assert "Matryoshka" in cli.table([row])
    assert "Matryoshka" not in cli.table([row | {"size": "1k", "width": 256}])
    assert "Matryoshka" not in cli.table([row | {"width": 100}])


def test_the_largest_positive_products_are_kept():
    codes = largest(np.array([[1.0, 3.0, -2.0, 2.0], [-1.0, -2.0, -3.0, 0.5]]), 2)
    assert codes.toarray().tolist() == [[0.0, 3.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.5]]


def test_shoal_is_told_the_number_of_atoms_alone(monkeypatch):
    import shoal

    told = {}

    class Model:
        components_ = np.eye(4)
        offset_ = np.ones(4)

        def __init__(self, *words, **named):
            told.update(named, words=words)

        def fit(self, data):
            return self

        def transform(self, data, method="encoder"):
            return method

    monkeypatch.setattr(shoal, "DictionaryAutoencoder", Model)
    fitted = load("shoal").fit(Task(np.zeros((5, 4), np.float32), 4, 2, 7))
    assert told["words"] == (4, "auto")
    assert (told["model"], told["random_state"]) == ("nonnegative", 7)
    assert {way: code(None) for way, code in fitted.codes.items()} == {
        "encoder": "encoder",
        "pursuit": "pursuit",
    }
    assert fitted.offset.tolist() == [1.0] * 4


@pytest.mark.parametrize(
    "words", [["--solver", "nobody"], ["--size", "2k"], ["--seeds", "0"], ["--width", "-1"]]
)
def test_what_makes_no_sense_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, *(SMALL if "--width" not in words else [])])
    assert stop.value.code == 2
    assert "error" in capsys.readouterr().err

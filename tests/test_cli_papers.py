"""shoal check and shoal reproduce, as a person types them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from commands import done, refused, shoal_
from shoal import papers

EASY = (
    "check nonnegative -n 64 -m 128 -k 2 --high 1.1 --delta 0.005 --samples 200 "
    "--atoms-from orthonormal-union"
)
SMALL = ("--scale", "smoke", "--set", "h=64", "--set", "p=0.3", "--set", "n_samples=100")


def assertions(*words):
    record = json.loads(done(*words, "--json").stdout)
    return record["world"], {each["source"]: each for each in record["assertions"]}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    words = ["generate", "sparse", "-n", "16", "-m", "24", "-k", "2", "--samples", "2000"]
    done(*words, "-o", folder / "planted.npz")
    done("fit", folder / "planted.npz", "-m", 24, "-k", 2, "-o", folder / "run")
    with np.load(folder / "planted.npz") as file:
        np.save(folder / "plain.npy", file["data"])
        codes = {name: file[name] for name in ("data", "dictionary", "codes")}
    np.savez(folder / "codes.npz", **codes)
    return folder


# ------------------------------------------------------------------ check


def test_check_says_what_is_needed_promised_and_measured():
    text = done(*EASY.split(), COLUMNS="200").stdout
    for words in ("Theorem 3.1: confirmed", "promises units are active", "separation", "[a, b]"):
        assert words in text, words
    world, found = assertions(*EASY.split())
    assert world["mu"] == pytest.approx(1.0)
    assert world["k"] == 2
    theorem = found["Rangamani et al. 2017, Theorem 3.1"]
    assert theorem["applies"] is theorem["holds"] is True
    keys = {"claim", "value", "needed", "holds", "error", "reading"}
    assert all(set(check) == keys for check in theorem["hypotheses"] + theorem["measurements"])
    assert len(found) >= 12


def test_check_asks_what_the_kind_of_world_is_for():
    _, signed = assertions(
        *["check", "sparse", "-n", "32", "-m", "32", "-k", "2", "--samples", "100"]
    )
    assert not any("Rangamani" in source for source in signed)
    assert any("Lemma 2" in source for source in signed)
    _, mixture = assertions(
        *["check", "mixture", "-n", "32", "-m", "5", "--noise", "0.02", "--samples", "100"]
    )
    assert any("Lemma 1" in source for source in mixture)


def test_check_of_a_run_on_the_world_it_came_from(planted):
    world, found = assertions(
        "check", planted / "planted.npz", "--dictionary", planted / "run", "--samples", 200
    )
    assert world["truth"] is True
    assert (world["kappa1"], world["a1"], world["a2"]) == (0.0, 1.0, 2.0)
    near = found["Nguyen, Wong, Hegde 2018, Definition 2"]
    assert near["hypotheses"][0]["value"] < 1e-4, "the fit is exact"


def test_check_of_codes_without_laws_takes_their_moments(planted):
    world, _ = assertions("check", planted / "codes.npz", "--samples", 100)
    assert world["truth"] is True
    assert world["kappa2"] == pytest.approx(7 / 3, rel=0.05)
    assert world["noise"] == 0


def test_check_without_a_truth_says_so(planted):
    words = ("check", planted / "plain.npy", "--dictionary", planted / "run", "--samples", 100)
    assert "isn't known" in done(*words).stdout
    world, found = assertions(*words)
    assert world["truth"] is False
    assert world["k"] == 2
    assert found["Nguyen, Wong, Hegde 2018, Definition 2"]["hypotheses"][0]["value"] < 1e-6


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("check nowhere.npz", "error: source: found no file"),
        ("check sparse --delta -1", "error: distance: found -1"),
        ("check sparse --delta 3", "error: distance: found 3"),
        ("check sparse -k 200", "error: sparsity: found 200"),
        ("check sparse --samples 10", "error: n_samples: found 10"),
        ("check sparse --dictionary nowhere", "error: nowhere"),
        ("check mixture -k 2", "error: sparsity: found 2"),
    ],
)
def test_what_check_refuses(words, text):
    assert refused(*words.split()).startswith(text)


def test_check_refuses_a_source_that_nobody_knows_the_truth_of(planted):
    assert "--dictionary RUN" in refused("check", planted / "plain.npy")
    other = refused("check", "sparse", "--dictionary", planted / "run")
    assert other.startswith("error: dictionary: found shape (24, 16)")


# ------------------------------------------------------------------ reproduce


def test_reproduce_writes_a_result_a_picture_and_a_page(tmp_path):
    out = tmp_path / "out"
    text = done("reproduce", "rangamani2017/table1", *SMALL, "-o", out).stdout
    assert "literal bias silences" in text
    assert sorted(each.name for each in out.iterdir()) == [
        "figure.png",
        "index.html",
        "result.json",
    ]
    result = json.loads((out / "result.json").read_text())
    assert result["experiment"] == "rangamani2017/table1"
    assert result["configuration"]["h"] == [64]
    assert result["configuration"]["n_samples"] == 100
    assert result["scale"] == "smoke"
    assert result["verdicts"]
    for verdict in result["verdicts"]:
        assert set(verdict) == {"claim", "value", "needed", "holds", "error", "reading", "verdict"}
    assert "exists already" in refused("reproduce", "rangamani2017/table1", *SMALL, "-o", out)
    done("reproduce", "rangamani2017/table1", *SMALL, "-o", out, "--force", "-q")


def test_the_scale_of_seconds_says_no_to_nothing(tmp_path):
    words = ("reproduce", "arpit2016/figure5", "--scale", "smoke", "--set", "n_epochs=1")
    less = ("--set", "n_samples=60", "--set", "data=digits", "--set", "n_components=3")
    text = done(*words, *less, "-o", tmp_path / "out", COLUMNS="200").stdout
    assert "too small to tell" in text
    assert "NO" not in text
    assert "only shows that it runs" in text
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert not all(each["holds"] for each in result["verdicts"])


def test_a_group_goes_on_where_it_was(tmp_path, monkeypatch):
    ran = []
    real = papers.perform

    def perform(experiment, settings, scale):
        ran.append(experiment.name)
        return real(experiment, settings, scale)

    monkeypatch.setattr(papers, "perform", perform)
    tiny = {
        "rangamani2017/table1": {"h": (64,), "p": (0.3,), "n_samples": 100, "n_points": 1},
        "nguyen2019/theorem3": {"n": (64,), "k": (3,), "delta": (0.1,), "n_samples": 100},
    }
    find = papers.find
    monkeypatch.setattr("shoal.experiments.registry.names", lambda: tuple(tiny))
    monkeypatch.setattr(
        papers, "find", lambda name: replace(find(name), scales={"smoke": tiny[name]})
    )
    out = tmp_path / "out"
    words = ("reproduce", "all", "--scale", "smoke", "-o", out)
    done(*words)
    assert ran == ["rangamani2017/table1", "nguyen2019/theorem3"]
    page = (out / "index.html").read_text()
    assert all(f'id="{name}"' in page for name in ("rangamani2017-table1", "nguyen2019-theorem3"))
    (out / "nguyen2019" / "theorem3" / "result.json").unlink()
    for each in (out / "nguyen2019" / "theorem3").iterdir():
        each.unlink()
    (out / "nguyen2019" / "theorem3").rmdir()
    again = done(*words)
    assert ran[2:] == ["nguyen2019/theorem3"]
    assert "rangamani2017/table1: there already" in again.stderr
    done(*words, "--force")
    assert len(ran) == 5
    # Another configuration stands in the way of the second: said before the first is run.
    line = refused(*words, "--set", "delta=0.2")
    assert "theorem3: exists already" in line
    assert len(ran) == 5


def test_an_interrupt_leaves_what_is_whole(tmp_path, monkeypatch):
    def perform(experiment, settings, scale):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(papers, "perform", perform)
    out = tmp_path / "out"
    result = shoal_("reproduce", "rangamani2017/table1", *SMALL, "-o", out)
    assert result.exit_code == 130
    assert list(tmp_path.iterdir()) == []


def test_the_list():
    text = done("reproduce", "--list").stdout
    assert all(name in text for name in papers.names())
    settings = done("reproduce", "rangamani2017/table1", "--list", "--scale", "full").stdout
    assert "--set n_samples=5000" in settings


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("reproduce", "error: NAME: found nothing"),
        ("reproduce table1 -o x", "error: name: found 'table1'; needed one of all, rangamani2017"),
        ("reproduce rangamani2017/table1", "error: output: found nothing"),
        ("reproduce rangamani2017/table1 -o x --set h", "error: set: found 'h'"),
        ("reproduce rangamani2017/table1 -o x --set q=1", "error: set: found 'q'"),
        ("reproduce rangamani2017/table1 -o x --set n=0", "error: n: found 0"),
        ("reproduce rangamani2017/table1 -o x --scale tiny", "error: Invalid value"),
    ],
)
def test_what_reproduce_refuses(words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(*words.split()).startswith(text)
    assert not Path("x").exists()

"""Experiments in general: settings, what is written, and what stays when a run fails."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from shoal import papers
from shoal.claims import at_most, plain
from shoal.experiments import Experiment, Outcome, Progress, Table
from shoal.report.drawing import panels
from shoal.vocabulary import ArgumentError, RunError


@dataclass(frozen=True)
class Settings:
    n: int = 50
    p: float = 0.5
    sizes: tuple[int, ...] = (1, 2)
    shares: tuple[float, ...] = (0.5,)
    exact: bool = False
    law: str = "uniform"
    n_seeds: int = 2
    seed: int = 3

    def __post_init__(self):
        if self.n < 1:
            raise ArgumentError("n", str(self.n), "at least 1")


def run(settings):
    yield Progress(0.5, "half")
    return Outcome(
        numbers={"curve": np.arange(3.0), "nothing": float("nan"), "most": float("inf")},
        verdicts=(
            at_most("n is small", settings.n, 60),
            at_most("never", float("nan"), 1),
            at_most("n is tiny", settings.n, 4),
            at_most("n is about tiny", settings.n, 4, error=settings.n),
        ),
        departures=("is small", "never"),
        tables=(Table("A table", ("a", "b"), ((1, 0.25), (2, None))),),
        notes=("Less <than> all.",),
    )


def plot(result, pen):
    figure, (axes,) = panels(1)
    axes.plot(result["numbers"]["curve"], color=pen.accent)
    return figure


TOY = Experiment(
    name="toy/one", title="A toy", source="", about="Nothing & all.", settings=Settings,
    scales={"smoke": {"n": 5}, "reduced": {"n": 10}}, run=run, plot=plot, caption="A line.",
)  # fmt: skip


def result_of(settings, scale="full"):
    def whole():
        returned.append((yield from papers.perform(TOY, settings, scale)))

    returned = []
    assert [step.share for step in whole()] == [0.5]
    return returned[0]


def test_scales_and_changes():
    assert papers.configure(TOY, "smoke").n == 5
    assert papers.configure(TOY).n == 10
    assert papers.configure(TOY, "full") == Settings()
    words = ["n=1e2", "p = 0.25", "sizes=3,4,5", "shares=1", "exact=true", "law=normal"]
    found = papers.configure(TOY, "full", words)
    assert found == Settings(100, 0.25, (3, 4, 5), (1.0,), True, "normal")
    assert [type(each) for each in found.shares] == [float]
    assert papers.configure(TOY, "full", {"n": 7, "sizes": [9]}) == Settings(n=7, sizes=(9,))
    assert papers.configure(TOY, "full", [f"seed={2**60 + 1}"]).seed == 2**60 + 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("n", r"^set: found 'n'; needed NAME=VALUE"),
        ("m=3", r"^set: found 'm'; needed one of n, p, .* for toy/one"),
        ("n=2.5", r"^set n: found '2.5'; needed an integer"),
        ("n=many", r"^set n: found 'many'; needed an integer"),
        ("n=inf", r"^set n: found 'inf'; needed an integer"),
        ("p=nan", r"^set p: found 'nan'; needed a finite number"),
        ("sizes=1,x", r"^set sizes: found 'x'; needed an integer"),
        ("sizes=", r"^set sizes: found ''; needed an integer"),
        ("exact=perhaps", r"^set exact: found 'perhaps'; needed true or false"),
        ("n=0", r"^n: found 0"),
    ],
)
def test_changes_that_are_refused(change, text):
    with pytest.raises(ArgumentError, match=text):
        papers.configure(TOY, "full", [change])
    with pytest.raises(ArgumentError, match=r"^scale: found 'huge'"):
        papers.configure(TOY, "huge")


def test_a_group_shares_what_it_has_settings_for():
    @dataclass(frozen=True)
    class Other:
        n: tuple[int, ...] = (1,)
        q: float = 0.0

    other = replace(TOY, name="toy/two", settings=Other, scales={})
    assert papers.configure_all([TOY, other], "full", ["n=7", "q=1"]) == [
        Settings(n=7),
        Other((7,), 1.0),
    ]
    with pytest.raises(ArgumentError, match=r"one of n, p, .*, q for toy/one, toy/two"):
        papers.configure_all([TOY, other], "full", ["z=1"])


def test_a_result_holds_all_that_is_known_of_a_run():
    result = result_of(Settings(p=0.25, sizes=(4,)), "full")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["configuration"]["sizes"] == [4]
    assert result["seeds"] == [3, 4]
    assert result["command"] == "shoal reproduce toy/one --scale full --set p=0.25 --set sizes=4"
    assert {"shoal", "python", "numpy", "torch"} <= set(result["versions"])
    assert result["numbers"] == {"curve": [0, 1, 2], "nothing": None, "most": "inf"}
    assert result["departures"] == ["n is small"]
    held, not_held, *_ = result["verdicts"]
    assert held == {
        "claim": "n is small", "value": 50.0, "needed": "<= 60", "holds": True, "error": 0.0,
        "reading": False, "verdict": "holds",
    }  # fmt: skip
    assert not_held["holds"] is False
    assert not_held["value"] is None
    assert result["judges"] is True


def test_a_size_that_takes_seconds_speaks_against_nobody():
    def said(scale):
        return [each["verdict"] for each in result_of(Settings(), scale)["verdicts"]]

    few = "too few samples to tell"
    assert said("full") == said("reduced") == ["holds", few, "does not hold", few]
    assert said("smoke") == ["holds", *["too small to tell"] * 3]
    smoke = result_of(Settings(), "smoke")
    assert smoke["judges"] is False
    # That a paper is wrong isn't said of such sizes either.
    assert smoke["departures"] == []


def test_a_page_says_what_could_not_be_told(tmp_path):
    whole = papers.write_result(tmp_path / "full", TOY, result_of(Settings()))
    page = (whole / "index.html").read_text().replace("\u00a0", " ")
    assert page.count("✕ no") == 1
    assert "1 of 4 checks holds, 2 can't be told from so little." in page.replace("&#39;", "'")
    assert "The scale smoke" not in page
    small = papers.write_result(tmp_path / "smoke", TOY, result_of(Settings(), "smoke"))
    page = (small / "index.html").read_text()
    assert "✕ no" not in page
    assert page.count(">too small to tell<") == 3
    assert "The scale smoke only shows that it runs: its sizes can't judge." in page


def test_a_result_from_before_there_were_such_verdicts_is_shown(tmp_path):
    for scale, mark in (("full", "✕ no"), ("smoke", ">too small to tell<")):
        result = result_of(Settings(), scale)
        del result["judges"]
        for check in result["verdicts"]:
            del check["verdict"]
        folder = papers.write_result(tmp_path / scale, TOY, result)
        assert (folder / "index.html").read_text().count(mark) == 3


def test_plain():
    assert plain({1: (np.float32(0.5), np.arange(2)), "x": -np.inf}) == {
        "1": [0.5, [0, 1]],
        "x": "-inf",
    }


def test_what_is_written(tmp_path):
    result = result_of(Settings())
    folder = papers.write_result(tmp_path / "deep" / "toy", TOY, result)
    assert sorted(each.name for each in folder.iterdir()) == [
        "figure.png",
        "index.html",
        "result.json",
    ]
    assert papers.read_result(folder) == result
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "index.html").read_text().replace("\u00a0", " ")
    assert "1 of 4 checks holds" in page
    assert "Where the paper does not hold as it stands" in page
    assert "Less &lt;than&gt; all." in page
    assert "Nothing &amp; all." in page
    assert page.count("✕ no") == 1
    assert "<svg" in page
    assert "://" not in page.replace("http://www.w3.org", "")
    with pytest.raises(RunError, match="exists already"):
        papers.write_result(folder, TOY, result)
    papers.write_result(folder, TOY, {**result, "title": "Again"}, overwrite=True)
    assert papers.read_result(folder)["title"] == "Again"
    (folder / "mine.txt").write_text("x")
    with pytest.raises(RunError, match=r"mine\.txt"):
        papers.check_result_folder(folder, overwrite=True)


def test_a_picture_that_fails_leaves_nothing(tmp_path):
    def broken(result, pen):
        raise KeyError("curve")

    with pytest.raises(KeyError):
        papers.write_result(tmp_path / "toy", replace(TOY, plot=broken), result_of(Settings()))
    assert list(tmp_path.iterdir()) == []


def test_a_result_is_kept_only_if_it_would_be_the_same(tmp_path):
    result = result_of(Settings())
    folder = tmp_path / "toy"
    assert papers.read_if_same(folder, TOY, Settings()) is None
    papers.write_result(folder, TOY, result)
    assert papers.read_if_same(folder, TOY, Settings()) == result
    assert papers.read_if_same(folder, TOY, Settings(n=51)) is None
    older = {**result, "versions": {**result["versions"], "numpy": "1.0"}}
    papers.write_result(folder, TOY, older, overwrite=True)
    assert papers.read_if_same(folder, TOY, Settings()) is None


@pytest.mark.parametrize("text", ["", "[]", '{"format": "x"}', '{"format": "shoal-experiment"}'])
def test_a_damaged_result_is_named(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(RunError, match=r"result\.json: "):
        papers.read_result(tmp_path)


def test_names():
    assert papers.find("rangamani2017/table1").name == "rangamani2017/table1"
    with pytest.raises(ArgumentError, match="rangamani2017/table1"):
        papers.find("rangamani2017")
    groups = "one of all, rangamani2017, nguyen2019, arpit2016, beyond"
    with pytest.raises(ArgumentError, match=groups):
        papers.select("arpit")

"""Two runs side by side, and a run's page."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import shoal
from shoal.cli import app


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((6, 10)).astype(np.float32)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    data = np.zeros((300, 6), np.float32)
    data[np.arange(300), rng.integers(0, 6, 300)] = rng.uniform(1, 2, 300)
    data = data @ atoms
    other = rng.standard_normal((300, 10)).astype(np.float32)
    every = (("one", 6, data), ("two", 4, data), ("narrow", 3, data[:, :5]), ("other", 6, other))
    for name, m, part in every:
        model = shoal.DictionaryAutoencoder(m, 1, random_state=0).fit(part)
        shoal.save_run(model, folder / name, part)
    return folder


def test_what_two_runs_share_and_what_one_has_alone(runs):
    both = json.loads(run("compare", runs / "one", runs / "two", "--json").stdout)
    assert both["same"] + len(both["only_in_first"]) == 6
    assert both["same"] + len(both["only_in_second"]) == 4
    turned = json.loads(run("compare", runs / "two", runs / "one", "--json").stdout)
    assert turned["only_in_first"] == both["only_in_second"]
    assert turned["only_in_second"] == both["only_in_first"]


def test_atoms_that_are_matched_but_not_alike_are_each_runs_own(runs):
    one, other = (shoal.load_run(runs / name).components_ for name in ("one", "other"))
    cosines = np.abs(shoal.recovery(other, one).cosines)
    assert cosines.min() < 0.9
    for least in (0.9, float(np.median(cosines))):
        found = run("compare", runs / "one", runs / "other", "--cosine", least, "--json")
        assert json.loads(found.stdout)["same"] == (cosines >= least).sum()


def test_a_run_agrees_with_itself(runs):
    result = json.loads(run("compare", runs / "one", runs / "one", "--json").stdout)
    assert (result["same"], result["only_in_first"]) == (6, [])
    assert result["mean_cosine"] == pytest.approx(1)
    assert "matched at 0.9" in run("compare", runs / "one", runs / "one").stdout


def test_runs_of_other_features_are_refused_in_one_line(runs):
    result = run("compare", runs / "one", runs / "narrow")
    assert result.exit_code == 2
    assert "5 features; needed 10" in result.stderr


def test_a_page_is_said_where_no_browser_is(runs, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    (runs / "one" / "report.html").unlink()
    assert "report.html" in run("explore", runs / "one").stdout
    assert (runs / "one" / "report.html").is_file()


def test_a_browser_is_asked_where_there_is_one(runs, monkeypatch):
    asked = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", lambda address: not asked.append(address))
    result = run("explore", runs / "two")
    assert asked[0].startswith("file://")
    assert "no browser" not in result.stdout


def test_what_is_no_run_is_refused(tmp_path):
    assert run("explore", tmp_path).exit_code == 2
    assert run("compare", tmp_path, tmp_path).exit_code == 2

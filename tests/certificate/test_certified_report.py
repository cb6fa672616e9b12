"""Verdicts in the report of a run."""

import html
import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

import shoal
from shoal.cli import app
from shoal.generative import SparseCoding, random_dictionary
from shoal.report import write_report
from shoal.run_folder import verify


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    world = SparseCoding(random_dictionary(24, 16, random_state=0), sparsity=2, noise=0.05)
    data = world.sample(2000, random_state=1).data
    np.save(folder / "data.npy", data)
    model = shoal.DictionaryAutoencoder(24, 2, random_state=0).fit(data)
    shoal.save_run(model, folder / "run", data)
    return folder


def test_the_report_has_the_verdict_of_each_atom(run):
    given = ["certify", run / "run", run / "data.npy", "--budget", 4, "--report", "--json"]
    result = CliRunner().invoke(app, list(map(str, given)))
    found = json.loads(result.stdout)
    page = (run / "run" / "report.html").read_text()
    rows = re.findall(r'<tr data-i="(\d+)".*?<td>(\w+)</td></tr>', page)
    assert len(rows) == 24
    assert all(found["verdicts"][int(atom)] == verdict for atom, verdict in rows)
    drawn = re.findall(r'<button[^>]* data-i="(\d+)"[^>]* data-v="(\w+)"', page)
    assert sorted(drawn, key=lambda each: int(each[0])) == sorted(rows, key=lambda e: int(e[0]))
    offered = re.findall(r"<option>(\w+)</option>", page)
    assert set(offered) == set(found["verdicts"])
    assert found["summary"].splitlines()[0] in page
    assert all(state.sound is not False for state in verify(run / "run"))
    words = html.unescape(page)
    for name in ("atoms", "active"):
        assert found["whole"][name]["reason"] in words
    for each in found["whole"]["hypotheses"]:
        assert each["claim"] in words
    value = found["whole"]["explained"]["rows"]["value"]
    assert f"{100 * value:.1f} %" in words
    for each in found["calibration"]["reliability"]:
        assert f"{each['said']:.2f}: {each['true']:.2f}" in words
    assert "called noise there" in words


def test_without_a_certificate_nothing_is_said_of_trust(run):
    page = write_report(run / "run").read_text()
    assert "How far to trust them" not in page


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"whole": None, "calibration": 3},
        {"whole": {"atoms": {"sizes": [1], "explained": []}, "explained": 2, "hypotheses": [{}]}},
        {"calibration": {"reliability": [{"said": "x"}], "noise": {}}},
    ],
)
def test_what_a_certificate_lacks_is_left_out_of_the_page(run, more):
    page = write_report(run / "run", certificate={"verdicts": ["doubtful"] * 24, **more})
    text = page.read_text()
    assert "How far to trust them" in text
    assert "What theorems ask" not in text


def test_a_certificate_of_other_atoms_is_refused_and_the_page_stays(run):
    before = (run / "run" / "report.html").read_bytes()
    for verdicts in (["certified"] * 3, ["fine"] * 24, None):
        with pytest.raises(shoal.ArgumentError, match="certificate"):
            write_report(run / "run", certificate={"verdicts": verdicts})
    assert (run / "run" / "report.html").read_bytes() == before

"""What holds for every experiment, at the scale that takes seconds."""

import json

import pytest

from shoal import papers
from shoal.experiments import TOO_SMALL
from shoal.report.drawing import PAGE, PRINT, as_png, as_svg, plain_settings


@pytest.mark.parametrize("name", papers.names())
def test_it_is_registered_whole(name):
    experiment = papers.find(name)
    assert experiment.name == name
    assert set(experiment.scales) == {"smoke", "reduced"}
    for scale in papers.SCALES:
        papers.configure(experiment, scale)
        # Another seed is one setting away, and the first of those that a run counts up from.
        other = papers.configure(experiment, scale, ["seed=100"])
        assert type(other.seed) is int
        assert other.seed == 100
    for text in (experiment.title, experiment.about, experiment.caption):
        assert text


@pytest.mark.parametrize("name", papers.names())
def test_it_runs_judges_and_draws_from_its_file(name):
    experiment, shares, returned = papers.find(name), [], []

    def whole():
        settings = papers.configure(experiment, "smoke")
        returned.append((yield from papers.perform(experiment, settings, "smoke")))

    shares = [step.share for step in whole()]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    result = json.loads(json.dumps(returned[0], allow_nan=False))
    assert result == returned[0]
    claims = [check["claim"] for check in result["verdicts"]]
    assert claims
    assert len(set(claims)) == len(claims)
    keys = {"claim", "value", "needed", "holds", "error", "reading", "verdict"}
    assert all(set(check) == keys for check in result["verdicts"])
    # Such sizes say neither that a claim is wrong, nor where a paper is.
    assert {check["verdict"] for check in result["verdicts"]} <= {"holds", TOO_SMALL}
    assert result["judges"] is False
    assert result["departures"] == []
    assert result["tables"]
    for table in result["tables"]:
        assert {len(row) for row in table["rows"]} == {len(table["head"])}
    for pen in (PAGE, PRINT):
        with plain_settings(pen):
            figure = experiment.plot(result, pen)
            assert all(axes.has_data() for axes in figure.axes)
            assert as_png(figure).startswith(b"\x89PNG")
            assert "<svg" in as_svg(figure, "figure", "a figure")

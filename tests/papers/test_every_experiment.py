"""What holds for every experiment, at the scale that takes seconds."""

import json

import pytest

from shoal import papers
from shoal.report.drawing import PAGE, PRINT, as_png, as_svg, plain_settings


@pytest.mark.parametrize("name", papers.names())
def test_it_is_registered_whole(name):
    experiment = papers.find(name)
    assert experiment.name == name
    assert set(experiment.scales) == {"smoke", "reduced"}
    for scale in papers.SCALES:
        papers.configure(experiment, scale)
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
    assert all(set(check) == {"claim", "value", "needed", "holds"} for check in result["verdicts"])
    assert result["tables"]
    for table in result["tables"]:
        assert {len(row) for row in table["rows"]} == {len(table["head"])}
    for pen in (PAGE, PRINT):
        with plain_settings(pen):
            figure = experiment.plot(result, pen)
            assert all(axes.has_data() for axes in figure.axes)
            assert as_png(figure).startswith(b"\x89PNG")
            assert "<svg" in as_svg(figure, "figure", "a figure")

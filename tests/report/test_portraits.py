"""What a report says of each atom: counted here once more, atom by atom."""

import json

import numpy as np
import pytest

import shoal
from shoal.estimators.evaluation import evaluated
from shoal.estimators.portraits import BINS, Portraits
from shoal.report import write_report


@pytest.fixture(scope="module")
def fitted():
    data = np.random.default_rng(0).normal(size=(300, 9)).astype("float32")
    data[:, 0] += 3 * (np.arange(300) % 3 == 0)
    return shoal.DictionaryAutoencoder(12, 3, random_state=0, encoder="tied").fit(data), data


def portraits(fitted):
    model, data = fitted
    found = evaluated(model, shoal.open_source(data)).portraits
    return found, model.transform(data), model, data


def test_what_is_lost_without_an_atom_is_what_a_zeroed_code_loses(fitted):
    found, codes, model, data = portraits(fitted)
    total = np.square(data - data.mean(axis=0)).sum()

    def explained(codes):
        return 1 - np.square(data - codes @ model.components_).sum() / total

    for each in found["atoms"]:
        without = codes.copy()
        without[:, each["atom"]] = 0
        assert each["lost"] == pytest.approx(explained(codes) - explained(without), abs=1e-4)


def test_its_strongest_rows_its_histogram_and_what_fires_with_it(fitted):
    found, codes, _, _ = portraits(fitted)
    assert found["n_samples"] == 300
    on = codes != 0
    for each in found["atoms"]:
        own = codes[:, each["atom"]]
        best = np.argsort(-np.abs(own), kind="stable")[:8]
        assert [row for row, _ in each["top"]] == best.tolist()
        assert len(each["histogram"]) == BINS
        assert sum(each["histogram"]) == np.count_nonzero(own)
        strengths = [abs(code) for _, code in each["quantiles"]]
        assert strengths == sorted(strengths, reverse=True)
        for other, share in each["together"]:
            assert other != each["atom"]
            both = (on[:, other] & on[:, each["atom"]]).sum()
            assert share == pytest.approx(both / on[:, each["atom"]].sum(), rel=1e-3)


def test_of_rows_with_gaps_or_a_dictionary_beyond_memory_nothing_is_told():
    told = Portraits(np.eye(3), np.arange(2))
    told.update(np.array([[1.0, np.nan, 0.0]]), np.eye(3)[:1], np.zeros((1, 3)))
    assert told.result() is None
    huge = np.broadcast_to(np.float32(0), (2**16, 2**12))
    assert Portraits(huge, np.arange(1)).result() is None


def test_the_page_has_them_and_leaves_out_what_is_not_as_it_should_be(fitted, tmp_path):
    model, data = fitted
    folder = shoal.save_run(model, tmp_path / "run", data)
    page = write_report(folder).read_text(encoding="utf-8")
    told = json.loads(page.partition('id="portraits">')[2].partition("</script>")[0])
    assert {"histogram", "range", "lost", "together", "top", "quantiles"} == set(told["0"])
    assert told["0"]["lost"].endswith("%")
    assert "portraits" not in page.partition("How it was made")[2].partition("<footer>")[0]

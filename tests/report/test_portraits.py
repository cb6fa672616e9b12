"""What a report says of each atom: counted here once more, atom by atom."""

import base64
import io
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest

import shoal
from shoal.estimators import portraits as portraits_module
from shoal.estimators.evaluation import evaluated
from shoal.estimators.portraits import BINS, Portraits
from shoal.report import page, read_run, write_report


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
    written = write_report(folder).read_text(encoding="utf-8")
    told = json.loads(written.partition('id="portraits">')[2].partition("</script>")[0])
    assert {"histogram", "range", "lost", "together", "top", "quantiles"} == set(told["0"])
    assert told["0"]["lost"].endswith("%")
    assert "portraits" not in written.partition("How it was made")[2].partition("<footer>")[0]


def _shown(page):
    from PIL import Image

    told = json.loads(page.partition('id="shots">')[2].partition("</script>")[0])
    url = page.rpartition(".shot {")[2].partition("base64,")[2].partition(")")[0]
    return told, np.asarray(Image.open(io.BytesIO(base64.b64decode(url))))


@pytest.fixture
def pictures(tmp_path):
    data = np.random.default_rng(0).normal(size=(300, 4, 6))
    source = shoal.open_source(data)
    model = shoal.DictionaryAutoencoder(10, 2, random_state=0).fit(data.reshape(300, 24))
    return data, shoal.save_run(model, tmp_path / "run", source)


def test_rows_that_are_pictures_are_drawn(pictures):
    data, folder = pictures
    told, sheet = _shown(write_report(folder).read_text(encoding="utf-8"))
    place = len(told["numbers"]) // 2
    row = data[told["numbers"][place]]
    up, left = divmod(place, told["columns"])
    drawn = sheet[4 * up : 4 * up + 4, 6 * left : 6 * left + 6]
    expected = 255 * (row - row.min()) / (row.max() - row.min())
    np.testing.assert_allclose(drawn, expected, atol=1)
    top = json.loads((folder / "config.json").read_text())["portraits"]["atoms"][0]["top"]
    assert told["numbers"][:8] == [number for number, _ in top]


@pytest.mark.parametrize(
    "change",
    [
        {"numbers": [1, "2"]},
        {"numbers": []},
        {"numbers": [1] * 10**6},
        {"shape": [4, 7]},
        {"shape": "x"},
        {"levels": "!"},
        {"levels": base64.b64encode(zlib.compress(bytes(10**8))).decode()},
        {"levels": base64.b64encode(b"x").decode()},
    ],
)
def test_rows_that_are_not_as_they_should_be_are_left_out(pictures, change):
    _, folder = pictures
    config = json.loads((folder / "config.json").read_text())
    config["portraits"]["rows"] |= change
    run = replace(read_run(folder), config=config)
    assert page._shots(run) is None


def test_no_more_rows_are_drawn_than_fit(monkeypatch):
    monkeypatch.setattr(portraits_module, "_MOST_LEVELS", 50)
    told = {"atoms": [{"top": [[7, 1.0], [2, 0.5]], "quantiles": [[5, 0.7]]}]}
    rows, index = np.zeros((3, 24)), np.array([2, 5, 7])
    found = portraits_module.pictured(told, rows, index, (4, 6))
    assert found["numbers"] == [7, 2]
    assert zlib.decompress(base64.b64decode(found["levels"])) == bytes(48)

"""Pictures of the loss around a dictionary: what they show, and that any record can be drawn."""

import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from shoal.report.landscape import (
    landscape_page,
    landscape_png,
    landscape_svgs,
    landscape_words,
)


def record(**changes):
    t = np.linspace(-1, 1, 5).tolist()
    usual = {
        "loss": 0.1, "gradient": 0.01, "zero": 2.0, "silent": 0.25, "n_samples": 50,
        "n_atoms": 8, "n_features": 4, "activation": "ReLU", "bias": "-0.3",
        "lines": [
            {"name": "random", "t": t, "loss": [4, 1, 0.1, 1, 4], "swapped": None,
             "gradient": [1, 0.5, 0.01, 0.5, 1]},
            {"name": "swap", "t": t, "loss": [1, 0.4, 0.1, 0.4, 0.1], "swapped": 1.0,
             "gradient": [1, 1, 0.01, 1, 1]},
        ],
        "plane": {"names": ["random", "swap"], "s": t, "t": t, "swapped": 1.0,
                  "loss": (0.1 + np.add.outer(np.square(t), np.square(t))).tolist()},
    }  # fmt: skip
    return usual | changes


def test_the_words_name_activation_bias_and_size():
    words = landscape_words(record()).replace("\N{NO-BREAK SPACE}", " ")
    for each in ("8 atoms", "4 features", "50 samples", "ReLU, bias -0.3", "5.0 %", "25 %"):
        assert each in words
    assert "wake no unit" not in landscape_words(record(silent=0.0))


def test_the_svgs_are_xml_and_mark_what_is_where():
    found = landscape_svgs(record())
    assert list(found) == ["loss", "gradient", "plane"]
    for svg in found.values():
        root = ElementTree.fromstring(svg)
        assert root.get("aria-label")
        assert len([each for each in root.iter("circle") if each.get("fill") == "none"]) == 1
        for place in map(float, re.findall(r'c[xy]="([\d.-]+)"', svg)):
            assert -1 <= place <= 421
    # 1 is W = 0; losses are over it: 2 of the record is 1 here.
    assert ">W = 0<" in found["loss"]
    assert found["plane"].count("<rect") == 21, "but for the corners, above the loss of W = 0"
    assert landscape_svgs(record(plane=None, lines=[])) == {}


def test_what_is_above_the_loss_of_zeros_has_no_shade():
    high = record()
    high["plane"]["loss"][0][1] = 2.5
    high["plane"]["loss"][2][2] = None
    assert landscape_svgs(high)["plane"].count("<rect") == 19


@pytest.mark.parametrize(
    "odd",
    [
        record(silent=1.0, loss=2.0, gradient=0.0,
               lines=[{"name": "random", "t": [-1, 0, 1], "loss": [2.0] * 3, "gradient": [0.0] * 3,
                       "swapped": None}]),
        record(lines=[{"name": "<own> & more", "t": [0, 1], "loss": [0.1, None],
                       "gradient": [None, None], "swapped": None}]),
        record(plane={"names": ["a", "b"], "s": [0, 1], "t": [0, 1], "swapped": None,
                      "loss": [[1.0, 1.0], [1.0, 1.0]]}),
        record(zero=0.0, loss=0.0),
        record(plane=None),
        record(lines=[]),
    ],
    ids=["silent", "own", "flat", "nothing", "no plane", "no lines"],
)  # fmt: skip
def test_odd_records_are_drawn(odd):
    for svg in landscape_svgs(odd).values():
        ElementTree.fromstring(svg)
    page = landscape_page(odd, "A <title>")
    assert "A &lt;title&gt;" in page
    assert "http" not in page
    image = Image.open(io.BytesIO(landscape_png(odd, "title")))
    assert image.width > 1000

"""The benchmark on real data, on rows small enough for a test."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

from benchmarks import real  # noqa: E402
from shoal.generative import SparseCoding, random_dictionary  # noqa: E402


def rows():
    world = SparseCoding(random_dictionary(24, 16, random_state=0), sparsity=2, noise=0.05)
    data = world.sample(1200, random_state=1).data.astype("float32")
    return real.Rows(data[:1000], data[1000:], 24, (2,), "sparse")


def test_every_method_is_measured_on_rows_that_nobody_learned_from(monkeypatch, tmp_path):
    monkeypatch.setattr(real, "DATA", {"tiny": rows})
    real.main(["--data", "tiny", "--seeds", "2", "--json", str(tmp_path / "rows.json")])
    found = json.loads((tmp_path / "rows.json").read_text())
    kept = [each for each in found if "worse_rate" not in each]
    assert [each["method"] for each in kept].count("shoal default") == 2
    assert [each["method"] for each in kept].count("shoal topk") == 2
    assert [each["method"] for each in kept].count("torch topk") == 2
    ours = [each for each in kept if each["method"] == "shoal default"]
    for each in ours:
        assert each["encoder"] <= each["unrolled"] + 0.05
        assert each["encoder"] < each["omp"] <= 1
        assert each["l0"] <= 2
    assert 0 < ours[1]["agree"] <= 1


def test_what_is_explained_is_told_from_the_mean():
    data = np.array([[1.0, 2.0], [3.0, 2.0]])
    assert real.explained(data, data) == 1.0
    assert real.explained(data, np.broadcast_to(data.mean(axis=0), data.shape)) == 0.0
    assert real.explained(data, np.zeros_like(data)) == pytest.approx(1 - 18 / 2)


def test_atoms_agree_up_to_order_and_where_codes_are_signed_up_to_sign():
    atoms = np.eye(4)
    assert real.agreement(atoms, -atoms[::-1], signed=True) == 1.0
    assert real.agreement(atoms, -atoms[::-1], signed=False) == 0.0

"""Atoms as detectors: against a plain reference, and cases that are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csc_array, csr_array

import shoal
from shoal.diagnosis import detection
from shoal.vocabulary import ArgumentError


def plainly(codes, truth, atoms, dictionary):
    """The definitions as they are written, one atom after the other, dense."""
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (atoms, dictionary)]
    cosines = np.abs(unit[0] @ unit[1].T)
    best = cosines.argmax(axis=1)
    scores = []
    for atom, feature in enumerate(best):
        on, meant = codes[:, atom] != 0, truth[:, feature] != 0
        both = (on & meant).sum()
        precision = both / on.sum() if on.any() else 0.0
        recall = both / meant.sum() if meant.any() else 0.0
        whole = precision + recall
        f1 = 2 * precision * recall / whole if whole else 0.0
        scores.append((f1, precision, recall, (on == meant).mean()))
    pairs = linear_sum_assignment(-cosines)
    made, there = codes @ atoms, truth @ dictionary
    lengths = np.linalg.norm(there, axis=1)
    kept = lengths > 1e-6
    return {
        **dict(
            zip(("f1", "precision", "recall", "accuracy"), np.mean(scores, axis=0), strict=True)
        ),
        "uniqueness": len(set(best.tolist())) / len(atoms),
        "mcc": cosines[pairs].mean(),
        "shrinkage": (np.linalg.norm(made, axis=1)[kept] / lengths[kept]).mean(),
        "l0": (codes != 0).sum(axis=1).mean(),
        "true_l0": (truth != 0).sum(axis=1).mean(),
        "dead": (codes == 0).all(axis=0).sum(),
    }


def case(seed=0, n_samples=500, width=30, n_features=50, n=20, signed=False):
    """Codes and atoms that resemble the truth, some of them dead, doubled or at random."""
    rng = np.random.default_rng(seed)
    dictionary = rng.standard_normal((n_features, n))
    truth = rng.random((n_samples, n_features)) * (rng.random((n_samples, n_features)) < 0.1)
    truth[0] = 0.0
    order = rng.integers(0, n_features, width)
    atoms = dictionary[order] + 0.5 * rng.standard_normal((width, n))
    codes = truth[:, order] * (rng.random((n_samples, width)) < 0.8)
    codes += rng.random(codes.shape) * (rng.random(codes.shape) < 0.02)
    codes[:, 3] = 0.0
    if signed:
        codes *= rng.choice([-1, 1], codes.shape)
    return codes, truth, atoms, dictionary


@pytest.mark.parametrize("width", [1, 30, 80])
@pytest.mark.parametrize("signed", [True, False])
def test_the_scores_are_those_of_the_definitions(width, signed):
    arrays = case(width=max(width, 4), signed=signed)
    arrays = (arrays[0][:, :width], arrays[1], arrays[2][:width], arrays[3])
    found = detection(*arrays).to_dict()
    for name, value in plainly(*arrays).items():
        assert abs(found[name] - value) < 1e-12, name


@pytest.mark.parametrize("kind", [csr_array, csc_array, coo_array, torch.from_numpy, np.asarray])
def test_any_kind_of_array_gives_the_same_scores(kind):
    codes, truth, atoms, dictionary = case()
    goal = detection(codes, truth, atoms, dictionary)
    assert detection(kind(codes), kind(truth), atoms, dictionary).to_dict() == goal.to_dict()


def test_sparse_tensors_and_stored_zeros_are_read():
    codes, truth, atoms, dictionary = case()
    goal = detection(codes, truth, atoms, dictionary).to_dict()
    tensor = torch.from_numpy(codes).to_sparse()
    assert detection(tensor, truth, atoms, dictionary).to_dict() == goal
    stored = csr_array(codes + 1.0)
    stored.data -= 1.0
    before = stored.nnz
    assert detection(stored, truth, atoms, dictionary).to_dict() == pytest.approx(goal)
    assert stored.nnz == before


def test_codes_are_never_made_dense(monkeypatch):
    def refuse(self, *_, **__):
        raise AssertionError("dense")

    codes, truth, atoms, dictionary = case()
    sparse = csr_array(codes), csr_array(truth)
    for name in ("toarray", "todense"):
        monkeypatch.setattr(csr_array, name, refuse)
        monkeypatch.setattr(csc_array, name, refuse)
    detection(*sparse, atoms, dictionary, parents=np.full(50, -1))


def test_features_without_an_atom_count_as_missed():
    truth = np.eye(4)[[0, 0, 0, 0, 1, 1, 1, 2, 2, 3]]
    score = detection(truth[:, :3], truth, np.eye(4)[:3], np.eye(4))
    assert score.f1 == 1.0
    assert score.f1_features == 0.75
    assert score.f1_rare == 0.0
    assert score.f1_rare_atoms == 1.0
    assert score.feature_f1.tolist() == [1.0, 1.0, 1.0, 0.0]


def test_copies_of_one_feature_are_seen_by_uniqueness():
    truth = np.eye(2)[[0, 0, 1]]
    score = detection(truth[:, [0, 0]], truth, np.eye(2)[[0, 0]], np.eye(2))
    assert (score.f1, score.uniqueness, score.mcc, score.f1_features) == (1.0, 0.5, 0.5, 0.5)


def test_absorption_is_the_share_that_only_a_child_carries():
    parents = [-1, 0, 0, 1]  # 0 is above 1 and 2; 1 is above 3
    truth = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1], [1, 0, 1, 0]], dtype=float)
    exact = detection(truth, truth, np.eye(4), np.eye(4), parents=parents)
    assert exact.absorption == 0.0
    codes = truth.copy()
    codes[1:3, 0] = 0.0  # two of four firings of 0 are carried by what is below it
    codes[2, 1] = 0.0  # one of two firings of 1 is carried by 3
    score = detection(codes, truth, np.eye(4), np.eye(4), parents=parents)
    assert score.absorption == 0.5
    codes[1, 1] = 0.0  # nobody carries this one: missed, not absorbed
    score = detection(codes, truth, np.eye(4), np.eye(4), parents=parents)
    assert score.absorption == (0.25 + 0.5) / 2
    assert detection(codes, truth, np.eye(4), np.eye(4)).absorption is None


def test_shrinkage_takes_offsets_and_data():
    truth = np.array([[1.0, 0.0], [0.0, 2.0]])
    half = detection(truth / 2, truth, np.eye(2), np.eye(2))
    assert half.shrinkage == 0.5
    data = truth + np.ones(2)
    same = detection(truth, truth, np.eye(2), np.eye(2), offset=[1.0, 1.0], data=data)
    assert same.shrinkage == 1.0
    same = detection(truth, truth, np.eye(2), np.eye(2), offset=[1.0, 1.0], true_offset=[1.0, 1.0])
    assert same.shrinkage == 1.0


def test_it_is_at_the_door_and_reads_as_a_line():
    score = shoal.detection(*case())
    assert isinstance(score, shoal.Detection)
    assert "\n" not in str(score)
    assert set(score.to_dict()) >= {"f1", "mcc", "uniqueness", "absorption", "shrinkage"}


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({0: np.zeros((499, 30))}, "codes"),
        ({0: np.full((500, 30), np.nan)}, "codes"),
        ({0: np.zeros((500, 29))}, "atoms"),
        ({0: csr_array(np.full((500, 30), np.inf))}, "codes"),
        ({1: np.zeros((500, 49))}, "dictionary"),
        ({2: np.zeros((30, 19))}, "atoms"),
        ({"parents": [0, 1]}, "parents"),
        ({"parents": np.full(50, 50)}, "parents"),
        ({"parents": np.arange(50)}, "parents"),
        ({"offset": np.zeros(3)}, "offset"),
        ({"data": np.zeros((500, 3))}, "data"),
    ],
)
def test_what_does_not_fit_is_refused(change, argument):
    arrays = list(case())
    named = {key: value for key, value in change.items() if isinstance(key, str)}
    for place in set(change) - set(named):
        arrays[place] = change[place]
    with pytest.raises(ArgumentError) as error:
        detection(*arrays, **named)
    assert error.value.argument == argument

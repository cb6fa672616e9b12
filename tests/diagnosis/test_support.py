import json

import numpy as np
import pytest
import torch
from scipy import sparse

from shoal.diagnosis import Matching, _arrays, match, recovery, support_recovery
from shoal.vocabulary import ArgumentError


def sparse_codes(seed, n_samples, m, fraction=0.3):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_samples, m)) * (rng.random((n_samples, m)) < fraction)


def test_by_hand():
    true = np.array([[1.0, 0, 0], [0, -1, 0], [1, 1, 0], [0, 0, 0]])
    codes = np.array([[0.5, 0, 0], [0, 2, 0], [1, 0, 1], [0, 0, 0]])
    score = support_recovery(codes, true)
    # Active in both: 3 (one of the wrong sign). Code: 4 active; truth: 4 active.
    assert score.n_samples == 4
    assert score.exact == 3 / 4
    assert score.signed_exact == 2 / 4
    assert score.precision == 3 / 4
    assert score.recall == 3 / 4
    assert score.f1 == 3 / 4


def test_precision_and_recall_are_not_swapped():
    score = support_recovery([[1.0, 1.0, 1.0, 0.0]], [[1.0, 0.0, 0.0, 0.0]])
    assert (score.precision, score.recall, score.f1) == (1 / 3, 1.0, 0.5)
    score = support_recovery([[1.0, 0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0, 0.0]])
    assert (score.precision, score.recall, score.f1) == (1.0, 1 / 3, 0.5)


@pytest.mark.parametrize("score_of", [match, recovery])
def test_the_matching_is_undone(score_of):
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((8, 10))
    order, flips = rng.permutation(8), rng.choice([-1.0, 1.0], 8)
    true_codes = sparse_codes(1, 50, 8)
    estimate, codes = (truth * flips[:, None])[order], (true_codes * flips)[:, order]
    score = support_recovery(codes, true_codes, score_of(estimate, truth))
    assert (score.exact, score.signed_exact, score.f1) == (1.0, 1.0, 1.0)
    unmatched = support_recovery(codes, true_codes)
    assert unmatched.f1 < 0.9
    unsigned = match(estimate, truth)._replace(signs=np.ones(8, dtype=np.int64))
    score = support_recovery(codes, true_codes, unsigned)
    assert score.exact == 1.0
    assert score.signed_exact < 1.0


def test_spare_units_can_only_be_wrong():
    matching = match(np.vstack([np.eye(2), [[1.0, 1.0]]]), np.eye(2))
    true = np.array([[1.0, 0.0], [0.0, 1.0]])
    codes = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 5.0]])
    score = support_recovery(codes, true, matching)
    assert (score.exact, score.signed_exact) == (0.5, 0.5)
    assert score.precision == 2 / 3
    assert score.recall == 1.0


def test_true_atoms_without_a_unit_are_never_found():
    matching = match([[0.0, 1.0]], np.eye(2))
    score = support_recovery([[1.0], [1.0]], [[1.0, 1.0], [0.0, 1.0]], matching)
    assert score.exact == 0.5
    assert score.precision == 1.0
    assert score.recall == 2 / 3


def test_nothing_active():
    zero, one = np.zeros((2, 2)), np.eye(2)
    assert support_recovery(zero, zero).to_dict() == {
        "n_samples": 2,
        "exact": 1.0,
        "signed_exact": 1.0,
        "precision": 1.0,
        "recall": 1.0,
        "f1": 1.0,
    }
    silent = support_recovery(zero, one)
    assert (silent.exact, silent.precision, silent.recall, silent.f1) == (0.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "convert",
    [sparse.csr_array, sparse.coo_array, sparse.csc_matrix, torch.tensor, np.asfortranarray],
)
def test_other_arrays_give_the_same(convert):
    codes, true = sparse_codes(0, 40, 6), sparse_codes(1, 40, 6)
    expected = support_recovery(codes, true)
    assert support_recovery(convert(codes), convert(true)) == expected
    assert support_recovery(convert(codes), true) == expected
    assert 0 < expected.f1 < 1


def test_blocks_give_the_same(monkeypatch):
    codes, true = sparse_codes(0, 41, 6, 0.1), sparse_codes(1, 41, 6, 0.1)
    whole = support_recovery(codes, true)
    monkeypatch.setattr(_arrays, "BLOCK_ENTRIES", 24)
    assert support_recovery(codes, true) == whole
    assert 0 < whole.exact < 1


def test_agrees_with_scikit_learn():
    from sklearn.metrics import precision_recall_fscore_support

    codes, true = sparse_codes(0, 100, 12), sparse_codes(1, 100, 12)
    expected = precision_recall_fscore_support(true != 0, codes != 0, average="micro")
    score = support_recovery(codes, true)
    np.testing.assert_allclose([score.precision, score.recall, score.f1], expected[:3])


def test_is_json_and_prints():
    score = support_recovery(np.eye(3), np.eye(3))
    assert json.loads(json.dumps(score.to_dict()))["f1"] == 1.0
    assert "3 samples" in str(score)


@pytest.mark.parametrize(
    ("codes", "true", "matching", "argument"),
    [
        (np.ones((3, 2)), np.ones((4, 2)), None, "codes"),
        (np.ones((3, 2)), np.ones((3, 4)), None, "codes"),
        (np.ones(3), np.ones((3, 1)), None, "codes"),
        (np.ones((3, 2)), np.full((3, 2), np.nan), None, "true_codes"),
        (sparse.csr_array([[np.nan, 1.0]]), np.ones((1, 2)), None, "codes"),
        (np.ones((0, 2)), np.ones((0, 2)), None, "codes"),
        (np.ones((3, 2)), np.ones((3, 2)), match(np.eye(3), np.eye(3)), "matching"),
        (
            np.ones((3, 2)),
            np.ones((3, 2)),
            Matching(np.array([0, 5]), np.ones(2), np.ones(2)),
            "matching",
        ),
    ],
)
def test_bad_arguments_are_named(codes, true, matching, argument):
    with pytest.raises(ArgumentError) as error:
        support_recovery(codes, true, matching)
    assert error.value.argument == argument

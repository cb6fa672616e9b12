import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.diagnosis import align, bottleneck_match, chance_level, recovery
from shoal.vocabulary import ArgumentError

SCORES = [
    "frobenius",
    "xi",
    "delta",
    "mean_distance",
    "max_distance",
    "mcc",
    "mcc_chance",
    "mcc_corrected",
]


def gaussian(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_by_hand():
    # Angles of 0 and 0.2 radians to the atoms of the plane; the second one is flipped.
    angle = 0.2
    truth = np.eye(2)
    estimate = np.array([[np.sin(angle), -np.cos(angle)], [2.0, 0.0]])
    score = recovery(estimate, truth)
    chord = 2 * np.sin(angle / 2)
    np.testing.assert_allclose(score.cosines, [1.0, np.cos(angle)])
    np.testing.assert_allclose(score.cosines_signed, [1.0, -np.cos(angle)])
    np.testing.assert_allclose(score.distances, [0.0, chord], atol=1e-15)
    assert score.permutation.tolist() == [1, 0]
    assert score.signs.tolist() == [1, -1]
    assert score.mean_distance == pytest.approx(chord / 2)
    assert score.max_distance == score.delta == pytest.approx(chord)
    assert score.frobenius == pytest.approx(chord)
    assert score.xi == pytest.approx(chord)  # |A| = 1, and the difference has rank 1
    assert score.recovered(0.98) == 1.0
    assert score.recovered(0.99) == 0.5
    assert score.missing(0.99).tolist() == [1]
    assert score.is_close(0.2)
    assert not score.is_close(0.19)
    assert score.is_near(0.2, 0.2)
    assert not score.is_near(0.2, 0.19)
    assert not score.is_near(0.19, 0.2)
    assert score.mcc == pytest.approx((1 + np.cos(angle)) / 2)
    assert score.mcc_signed == pytest.approx((1 - np.cos(angle)) / 2)


def test_lengths_of_the_rows_do_not_matter():
    estimate, truth = gaussian(0, 6, 4), gaussian(1, 6, 4)
    lengths = np.arange(1.0, 7.0)[:, None]
    before, after = recovery(estimate, truth), recovery(estimate * lengths, truth / lengths)
    np.testing.assert_allclose(after.distances, before.distances)
    assert after.xi == pytest.approx(before.xi)


def test_norms_are_those_of_the_aligned_unit_rows():
    estimate, truth = gaussian(0, 9, 5), gaussian(1, 7, 5)
    score = recovery(estimate, truth)
    difference = unit(align(estimate, truth)) - unit(truth)
    np.testing.assert_allclose(score.distances, np.linalg.norm(difference, axis=1))
    np.testing.assert_allclose(score.distances, np.sqrt(2 - 2 * score.cosines))
    assert score.frobenius == pytest.approx(np.linalg.norm(difference))
    assert score.xi == pytest.approx(np.linalg.norm(difference, 2) / np.linalg.norm(unit(truth), 2))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n_found=st.integers(1, 9),
    n_true=st.integers(1, 9),
    rule=st.sampled_from(["free", "fixed"]),
)
def test_order_and_sign_of_the_truth_leave_the_scores_alone(seed, n_found, n_true, rule):
    rng = np.random.default_rng(seed)
    # Six features, so that ties (exact in one feature) don't make two assignments equal.
    estimate, truth = rng.standard_normal((n_found, 6)), rng.standard_normal((n_true, 6))
    order = rng.permutation(n_true)
    flips = rng.choice([-1.0, 1.0], n_true) if rule == "free" else np.ones(n_true)
    before = recovery(estimate, truth, signs=rule)
    after = recovery(estimate, (truth * flips[:, None])[order], signs=rule)
    for name in SCORES:
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-9)
    np.testing.assert_allclose(after.distances, before.distances[order], rtol=1e-9)
    np.testing.assert_allclose(after.cosines, before.cosines[order], rtol=1e-9)
    for cosine in (0.3, 0.9):
        assert after.recovered(cosine) == before.recovered(cosine)
    if rule == "fixed":
        assert after.mcc_signed == pytest.approx(before.mcc_signed, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("rule", ["free", "fixed"])
def test_order_of_the_estimate_leaves_the_scores_alone(rule):
    estimate, truth = gaussian(0, 12, 5), gaussian(1, 10, 5)
    before = recovery(estimate, truth, signs=rule)
    after = recovery(estimate[::-1], truth, signs=rule)
    np.testing.assert_allclose(after.distances, before.distances)
    assert (11 - after.permutation).tolist() == before.permutation.tolist()


def test_flipped_atoms_count_against_the_signed_mcc_only():
    truth = gaussian(0, 8, 6)
    flips = np.array([1, 1, 1, 1, 1, 1, -1, -1])[:, None]
    score = recovery(truth * flips, truth)
    assert score.mcc == pytest.approx(1.0)
    assert score.mcc_corrected == pytest.approx(1.0)
    assert score.mcc_signed == pytest.approx(0.5)
    assert score.max_distance < 1e-12
    opposed = recovery(-np.eye(3), np.eye(3), signs="fixed")
    assert opposed.recovered(0.9) == 0.0
    assert opposed.mcc_signed <= 0.0


def test_missing_atoms_count_as_orthogonal_ones():
    truth = unit(gaussian(0, 7, 4))
    score = recovery(truth[[5, 2]], truth)
    lost = [0, 1, 3, 4, 6]
    assert score.missing(0.5).tolist() == lost
    assert score.permutation[lost].tolist() == [-1] * 5
    assert score.cosines[lost].tolist() == [0.0] * 5
    np.testing.assert_allclose(score.distances[lost], np.sqrt(2))
    assert score.recovered(0.99) == pytest.approx(2 / 7)
    assert score.delta == pytest.approx(np.sqrt(2))
    assert score.frobenius == pytest.approx(np.sqrt(10))
    # The definition written out: five new dimensions, one a missing atom.
    full = np.zeros((7, 9))
    full[lost, :4] = -truth[lost]
    full[lost, 4 + np.arange(5)] = 1.0
    assert score.xi == pytest.approx(np.linalg.norm(full, 2) / np.linalg.norm(truth, 2))


def test_a_zero_row_is_a_missing_atom():
    truth = unit(gaussian(0, 5, 6))
    dead = truth.copy()
    dead[3] = 0.0
    score, fewer = recovery(dead, truth), recovery(np.delete(truth, 3, axis=0), truth)
    np.testing.assert_allclose(score.distances, fewer.distances, atol=1e-12)
    assert score.distances[3] == pytest.approx(np.sqrt(2))
    assert score.xi == pytest.approx(fewer.xi)
    nothing = recovery(np.zeros((2, 3)), np.zeros((2, 3)))
    np.testing.assert_allclose(nothing.distances, np.sqrt(2))
    assert json.loads(json.dumps(nothing.to_dict(), allow_nan=False))["xi"] is None


def test_delta_is_over_every_pi_and_not_that_of_the_largest_sum():
    truth = [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]]
    estimate = [[1.0, 0.0, 0.0], [0.6, 0.0, 0.8]]
    score = recovery(estimate, truth)
    assert score.max_distance == pytest.approx(np.sqrt(2 - 2 * 0.36))
    assert score.delta == pytest.approx(np.sqrt(2 - 2 * 0.6))
    assert score.is_close(0.9)
    assert not score.is_near(0.9, 10.0)
    assert score.is_near(1.14, 10.0)


@pytest.mark.parametrize("rule", ["free", "fixed"])
@pytest.mark.parametrize("shape", [(40, 40), (60, 40), (30, 40)])
def test_delta_is_the_worst_pair_of_the_bottleneck(rule, shape):
    estimate, truth = gaussian(0, shape[0], 10), gaussian(1, shape[1], 10)
    score = recovery(estimate, truth, signs=rule)
    worst = bottleneck_match(estimate, truth, signs=rule)
    assert score.delta == pytest.approx(np.sqrt(2 - 2 * (worst.cosines * worst.signs).min()))
    assert score.delta <= score.max_distance


@pytest.mark.parametrize(
    ("n_estimate", "n_true", "n_features", "level"),
    [(64, 64, 64, 0.29), (256, 256, 64, 0.35), (256, 256, 256, 0.18)],
)
def test_chance_levels(n_estimate, n_true, n_features, level):
    assert chance_level(n_estimate, n_true, n_features) == pytest.approx(level, abs=0.012)


def test_chance_is_that_of_the_same_shapes_and_is_taken_off():
    scores = [
        recovery(gaussian(2 * i, 24, 16), gaussian(2 * i + 1, 32, 16)).mcc_corrected
        for i in range(40)
    ]
    assert np.mean(scores) == pytest.approx(0.0, abs=0.01)
    score = recovery(gaussian(0, 24, 16), gaussian(1, 32, 16))
    assert score.mcc_chance == chance_level(24, 32, 16)
    assert score.mcc_corrected == pytest.approx(
        (score.mcc - score.mcc_chance) / (1 - score.mcc_chance)
    )


def test_chance_with_one_feature_leaves_nothing_to_score():
    score = recovery([[2.0]], [[-1.0]])
    assert score.mcc_chance == 1.0
    assert np.isnan(score.mcc_corrected)
    assert score.to_dict()["mcc_corrected"] is None


def test_to_dict_is_json_and_str_is_one_paragraph():
    score = recovery(gaussian(0, 6, 4), gaussian(1, 8, 4))
    short = json.loads(json.dumps(score.to_dict(), allow_nan=False))
    assert short["recovered_at_0.9"] == score.recovered(0.9)
    assert short["mean_distance"] == score.mean_distance
    assert "cosines" not in short
    full = json.loads(json.dumps(score.to_dict(atoms=True), allow_nan=False))
    assert full["cosines"] == score.cosines.tolist()
    assert full["permutation"] == score.permutation.tolist()
    text = str(score)
    assert "\n" not in text
    assert f"of {8} true atoms" in text
    assert "6 atoms" in text


def test_is_frozen():
    score = recovery(np.eye(2), np.eye(2))
    with pytest.raises(AttributeError):
        score.delta = 0.0


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda s: s.recovered(1.5), "cosine"),
        (lambda s: s.missing(float("nan")), "cosine"),
        (lambda s: s.is_close(-1.0), "delta"),
        (lambda s: s.is_near(0.1, -1.0), "xi"),
        (lambda s: recovery(np.eye(2), np.eye(3)), "estimate"),
        (lambda s: recovery(np.eye(2), [[np.nan, 1.0]]), "truth"),
        (lambda s: recovery(np.eye(2), np.eye(2), signs="none"), "signs"),
        (lambda s: chance_level(0, 2, 2), "n_estimate"),
        (lambda s: chance_level(2, 2.5, 2), "n_true"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ArgumentError) as error:
        call(recovery(np.eye(2), np.eye(2)))
    assert error.value.argument == argument

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.csgraph import maximum_bipartite_matching

from shoal.diagnosis import align, bottleneck_match, match
from shoal.vocabulary import ArgumentError

SIZES = st.integers(1, 5)  # all 5! assignments are listed
SEEDS = st.integers(0, 2**32 - 1)
RULES = st.sampled_from(["free", "fixed"])


def gaussian(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def cosines_of(estimate, truth):
    rows = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (truth, estimate)]
    return rows[0] @ rows[1].T


def assignments(n_true, n_found):
    """Every assignment, -1 for a true atom that goes without."""
    slots = [*range(n_found), *([-1] * max(0, n_true - n_found))]
    return itertools.permutations(slots, n_true)


def test_a_permuted_flipped_scaled_truth_is_undone():
    truth = gaussian(0, 9, 5)
    order = np.random.default_rng(1).permutation(9)
    signs = np.where(np.arange(9) % 2 == 0, 1, -1)
    estimate = (3.0 * signs[:, None] * truth)[order]
    found = match(estimate, truth)
    assert order[found.permutation].tolist() == list(range(9))
    assert found.signs.tolist() == signs.tolist()
    np.testing.assert_allclose(found.cosines, signs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(align(estimate, truth), 3.0 * truth)


def test_assignment_beats_greedy():
    # Greedy takes the pair of .8 first, and what is left has cosine 0; crossed, .75 + .6.
    truth = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    estimate = np.array([[0.8, 0.6, 0.0], [0.75, 0.0, np.sqrt(1 - 0.75**2)]])
    found = match(estimate, truth)
    assert found.permutation.tolist() == [1, 0]
    np.testing.assert_allclose(found.cosines, [0.75, 0.6])


def test_fixed_signs_refuse_an_opposite_atom():
    truth = np.eye(2)
    estimate = np.array([[-1.0, 0.0], [0.6, 0.8]])
    assert match(estimate, truth, signs="free").permutation.tolist() == [0, 1]
    found = match(estimate, truth, signs="fixed")
    assert found.permutation.tolist() == [1, 0]
    assert found.signs.tolist() == [1, 1]
    np.testing.assert_allclose(found.cosines, [0.6, 0.0], atol=1e-15)


def test_spare_atoms_go_unused_and_missing_ones_are_marked():
    truth = np.eye(3)
    more = match(np.vstack([np.ones((2, 3)), -truth]), truth)
    assert more.permutation.tolist() == [2, 3, 4]
    fewer = match([[0.0, 0.0, -5.0]], truth)
    assert fewer.permutation.tolist() == [-1, -1, 0]
    assert fewer.signs.tolist() == [1, 1, -1]
    assert fewer.cosines.tolist() == [0.0, 0.0, -1.0]
    assert align([[0.0, 0.0, -5.0]], truth).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 5]]


def test_zero_rows_have_cosine_zero():
    found = match([[0.0, 0.0], [0.0, 2.0]], np.eye(2))
    assert found.permutation.tolist() == [0, 1]
    assert found.cosines.tolist() == [0.0, 1.0]


def test_lengths_near_the_ends_of_float64_do_not_matter():
    truth = gaussian(3, 4, 6)
    scales = np.array([1e-300, 1e-160, 1e160, 1e300])[:, None]
    np.testing.assert_allclose(match(truth * scales, truth).cosines, 1.0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(n_found=SIZES, n_true=SIZES, seed=SEEDS, rule=RULES)
def test_sum_and_bottleneck_are_the_best_of_all(n_found, n_true, seed, rule):
    estimate, truth = gaussian(seed, n_found, 3), gaussian(seed + 1, n_true, 3)
    table = cosines_of(estimate, truth)
    table = np.abs(table) if rule == "free" else table

    def values(permutation):
        return [table[i, j] if j >= 0 else 0.0 for i, j in enumerate(permutation)]

    everything = [values(p) for p in assignments(n_true, n_found)]
    summed = match(estimate, truth, signs=rule)
    worst = bottleneck_match(estimate, truth, signs=rule)
    for found in (summed, worst):
        used = found.permutation[found.permutation >= 0]
        assert len(set(used)) == len(used) == min(n_found, n_true)
        np.testing.assert_allclose(
            found.cosines * found.signs, values(found.permutation), atol=1e-12
        )
    assert sum(values(summed.permutation)) == pytest.approx(max(map(sum, everything)), abs=1e-12)
    assert min(values(worst.permutation)) == pytest.approx(max(map(min, everything)), abs=1e-12)


def test_a_spare_atom_far_from_all_does_not_stop_the_bottleneck():
    truth = [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]]
    estimate = [[1.0, 0.0, 0.0], [0.6, 0.0, 0.8], [0.0, 0.0, 1.0]]
    np.testing.assert_allclose(bottleneck_match(estimate, truth).cosines, [0.6, 0.6])


@pytest.mark.parametrize("seed", range(12))
def test_no_assignment_is_above_the_bottleneck(seed):
    estimate, truth = gaussian(seed, 16, 4), gaussian(seed + 100, 14, 4)
    found = bottleneck_match(estimate, truth)
    above = np.abs(cosines_of(estimate, truth)) > np.abs(found.cosines).min() + 1e-12
    pairs = maximum_bipartite_matching(sparse.csr_array(above), perm_type="column")
    assert (pairs < 0).any()


@pytest.mark.parametrize("convert", [torch.tensor, np.asfortranarray, sparse.csr_array])
def test_other_arrays_give_the_same_and_are_left_alone(convert):
    estimate, truth = gaussian(0, 4, 3), gaussian(1, 5, 3)
    given_estimate = convert(estimate.copy())
    expected = match(estimate, truth)
    found = match(given_estimate, convert(truth.copy()))
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-13)
    dense = given_estimate.toarray() if sparse.issparse(given_estimate) else given_estimate
    np.testing.assert_array_equal(np.asarray(dense), estimate)


def test_bfloat16_with_gradient():
    weights = torch.eye(3, dtype=torch.bfloat16, requires_grad=True)
    assert match(weights, np.eye(3)).cosines.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("function", [match, bottleneck_match, align])
@pytest.mark.parametrize(
    ("estimate", "truth", "argument"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "estimate"),
        (np.ones(3), np.ones((2, 3)), "estimate"),
        (np.ones((2, 3)), np.ones(3), "truth"),
        (np.ones((0, 3)), np.ones((2, 3)), "estimate"),
        (np.ones((2, 3)), np.ones((2, 0)), "truth"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), "estimate"),
        (np.ones((2, 3)), np.full((2, 3), np.inf), "truth"),
        (np.ones((2, 3)) * 1j, np.ones((2, 3)), "estimate"),
        ([[1.0], [1.0, 2.0]], np.ones((2, 3)), "estimate"),
        ([["a", "b"]], np.ones((2, 2)), "estimate"),
    ],
)
def test_what_cannot_be_matched_is_named(function, estimate, truth, argument):
    with pytest.raises(ArgumentError) as error:
        function(estimate, truth)
    assert error.value.argument == argument


def test_unknown_sign_rule():
    with pytest.raises(ArgumentError, match="signs"):
        match(np.eye(2), np.eye(2), signs="both")

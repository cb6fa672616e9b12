"""The statistics of a certificate, each against what it says it is."""

import numpy as np
import pytest
from scipy import sparse, stats

from shoal.certificate.evidence import (
    Null,
    benjamini_hochberg,
    crowding,
    jaccard,
    matched,
    share,
    split,
)
from shoal.certificate.refits import Coded, shuffled, surrogate
from shoal.certificate.rule import fitted
from shoal.generative import SparseCoding, random_dictionary, spread_apart


def coded(atoms, codes, rest):
    return Coded(atoms, sparse.csc_array(codes), rest)


def test_discoveries_are_those_of_benjamini_and_hochberg():
    rng = np.random.default_rng(0)
    for few in (0, 3, 30):
        p = rng.random(60)
        p[:few] *= 0.002
        adjusted = stats.false_discovery_control(p)
        assert np.array_equal(benjamini_hochberg(p, 0.05), adjusted <= 0.05)


def test_firing_sets_are_compared_row_by_row():
    one = sparse.csc_array([[1.0, 0.0], [2.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
    other = sparse.csc_array([[0.0, 3.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert jaccard(one, other, np.array([1, 0])).tolist() == [0.5, 0.0]
    assert jaccard(one, other, np.array([-1, 1])).tolist() == [0.0, 1 / 3]


def test_the_loss_without_an_atom_is_what_taking_it_out_costs():
    rng = np.random.default_rng(1)
    atoms = random_dictionary(6, 5, random_state=2)
    codes = rng.standard_normal((40, 6)) * (rng.random((40, 6)) < 0.4)
    data = codes @ atoms + 0.3 * rng.standard_normal((40, 5))
    total, part, uses = share(coded(atoms, codes, data - codes @ atoms))
    for j in range(6):
        without = codes.copy()
        without[:, j] = 0.0
        before, after = (np.square(data - each @ atoms).sum(axis=1) for each in (codes, without))
        assert total[j] == pytest.approx((after - before).sum())
        on = codes[:, j] != 0
        assert part[j] == pytest.approx(np.clip(1 - before[on].sum() / after[on].sum(), 0, 1))
        assert uses[j] == on.sum()


def test_rows_that_split_into_two_directions_are_seen():
    """An atom that stands for a + b, where a and b are worth different amounts in each row."""
    rng = np.random.default_rng(3)
    n, rows = 30, 600
    a, b, own = np.eye(n)[:3]
    half = rng.random(rows) < 0.5
    first, second, alone = (rng.uniform(0.5, 2.0, rows) for _ in range(3))
    data = np.where(
        half[:, None], np.outer(first, a) + np.outer(second, b), np.outer(alone, own)
    ) + 0.05 * rng.standard_normal((rows, n))
    atoms = np.stack([(a + b) / np.sqrt(2), own])
    codes = data @ atoms.T * np.stack([half, ~half], axis=1)
    found = split(coded(atoms, codes, data - codes @ atoms), rng)
    assert found[0] > 0.05
    assert found[1] < 0.005


def test_sums_that_share_a_part_are_crowded_and_their_neighbours_are_kin():
    atoms = spread_apart(60, 40, random_state=0)
    sums = atoms.copy()
    for child in (1, 2, 3):
        sums[child] = (atoms[0] + atoms[child]) / np.linalg.norm(atoms[0] + atoms[child])
    close, kin = crowding(sums)
    assert close[1:4].min() > 1.3 * np.quantile(close[4:], 0.95)
    # The parent is as close to them, but without it they have nothing in common.
    assert close[0] > 1.3
    assert kin[0] < kin[1:4].min()
    usual, usual_kin = crowding(atoms)
    assert 0.7 < np.median(usual) < 1.3
    assert 0.4 < np.median(usual_kin) < 2.0


def test_sums_are_crowded_even_where_most_atoms_are_sums():
    atoms = spread_apart(30, 40, random_state=0)
    sums = atoms.copy()
    for child in range(6, 24):
        sums[child] = atoms[child] + atoms[(child - 6) // 3]
    sums /= np.linalg.norm(sums, axis=1, keepdims=True)
    close, _ = crowding(sums)
    assert np.median(close[6:24]) > 1.5
    assert np.median(close[24:]) < 1.1


def test_a_pair_is_one_to_one_and_signs_count_only_where_codes_have_them():
    atoms = random_dictionary(5, 8, random_state=0)
    partner, cosine = matched(atoms, -atoms[::-1], signed=True)
    assert partner.tolist() == [4, 3, 2, 1, 0]
    assert cosine == pytest.approx(np.ones(5))
    assert matched(atoms, -atoms[::-1], signed=False)[1].max() < 0.9
    assert (matched(atoms, atoms[:2], signed=True)[0] == -1).sum() == 3


def test_the_chance_in_a_null_is_that_of_a_normal_law_or_larger():
    values = np.random.default_rng(4).standard_normal(4000)
    null = Null.of(values)
    at = np.array([0.0, 2.0, 4.0])
    assert null.p(at) == pytest.approx(stats.norm.sf(at), rel=0.5, abs=1e-5)
    assert null.quantile == pytest.approx(stats.norm.isf(0.01), abs=0.15)


def test_surrogates_have_the_moments_alone():
    data = SparseCoding(random_dictionary(12, 8, random_state=0), 2).sample(20_000, 1).data + 3.0
    rng = np.random.default_rng(5)
    gaussian, mixed = surrogate(data, rng), shuffled(data, rng)
    assert np.cov(gaussian.T) == pytest.approx(np.cov(data.T), abs=0.02)
    assert gaussian.mean(axis=0) == pytest.approx(data.mean(axis=0), abs=0.03)
    assert np.abs(stats.kurtosis(gaussian)).max() < 0.2 < np.abs(stats.kurtosis(data)).max()
    assert np.array_equal(np.sort(mixed, axis=0), np.sort(data, axis=0))
    off = np.corrcoef(mixed.T) - np.eye(8)
    assert np.abs(off).max() < 0.04


def test_a_fitted_rule_finds_weights_and_none_is_negative():
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((4000, 3)) * [1.0, 5.0, 1.0]
    margin = 2.0 * rows[:, 0] - 0.4 * rows[:, 1] + 0.5
    labels = rng.random(4000) < 1 / (1 + np.exp(-margin))
    weights, intercept = fitted(rows, labels, np.ones(4000))
    assert weights[1] == 0.0
    assert weights[0] > 0.5
    weights, intercept = fitted(rows * [1.0, -1.0, 1.0], labels, np.ones(4000))
    assert weights == pytest.approx([2.0, 0.4, 0.0], abs=0.25)
    assert intercept == pytest.approx(0.5, abs=0.2)

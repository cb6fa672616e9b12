"""Data piece by piece: however small the pieces are, what was learnt is kept and gets better."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import shoal
from shoal.generative import SparseCoding, random_dictionary
from shoal.network.activations import BatchTopK
from shoal.training import recipe_named
from shoal.training.adaptation import Adapted, BiasAdaptation
from shoal.training.rules import Adam, FixedStep, Momentum
from shoal.training.schedules import Constant

TRUTH = random_dictionary(24, 16, random_state=0)
DATA = (
    SparseCoding(TRUTH, sparsity=2, low=1.0, high=2.0, noise=0.05).sample(6000, random_state=1).data
)


def new(**changes):
    given = {"n_components": 24, "n_nonzero_coefs": 2, "random_state": 0}
    return shoal.DictionaryAutoencoder(**(given | changes))


@pytest.fixture(scope="module")
def fitted():
    return new().fit(DATA[:4000])


def again(fitted):
    """A copy of the fitted model that goes on."""
    return copy.deepcopy(fitted)


PIECES = {
    "of 10 rows": lambda rows: np.split(rows, 100),
    "of 1 row": lambda rows: np.split(rows[:300], 300),
    "of uneven sizes": lambda rows: np.split(rows, np.cumsum([1, 300, 2, 40, 5, 1, 257, 3, 100])),
}


@pytest.fixture(scope="module")
def larger():
    """A fit of a world of 48 atoms, three of them a row, and what it has not seen."""
    world = SparseCoding(random_dictionary(48, 32, random_state=0), sparsity=3, noise=0.05)
    data = world.sample(9000, random_state=1).data
    fit = new(n_components=48, n_nonzero_coefs=3).fit(data[:8000])
    return world.dictionary, fit, data[8000:]


@pytest.mark.parametrize("how", PIECES)
def test_small_pieces_after_a_fit_keep_every_atom(larger, how):
    truth, fitted, data = larger
    model = again(fitted)
    for piece in PIECES[how](data):
        model.partial_fit(piece)
    assert shoal.recovery(fitted.components_, truth).recovered(0.98) == 1.0
    assert shoal.recovery(model.components_, truth).recovered(0.98) == 1.0


@pytest.mark.parametrize("how", PIECES)
def test_small_pieces_improve_rough_atoms(how):
    rng = np.random.default_rng(2)
    rough = TRUTH + 0.08 * rng.standard_normal(TRUTH.shape)
    model = new(init=rough).partial_fit(DATA[:240])
    before = shoal.recovery(model.components_, TRUTH).mean_distance
    for piece in PIECES[how](DATA[1000:2000]) * 3:
        model.partial_fit(piece)
    after = shoal.recovery(model.components_, TRUTH)
    assert after.mean_distance < 0.8 * before
    assert after.recovered(0.95) == 1.0


@pytest.mark.parametrize("row", [DATA[0], np.zeros(16), np.ones(16)], ids=["data", "0", "1"])
def test_a_constant_stretch_leaves_the_other_atoms(fitted, row):
    model = again(fitted)
    for _ in range(100):
        model.partial_fit(np.tile(row, (40, 1)))
    near = (np.abs(model.components_ @ TRUTH.T) > 0.99).any(axis=0)
    assert near.sum() >= 24 - 2 - 2  # those it uses may turn, and one may come to it


def test_a_step_is_a_batch_however_it_is_cut():
    whole, cut = new(), new()
    start = DATA[:512]
    for model in (whole, cut):
        model.partial_fit(start)
    size = whole.recipe_.batch_size
    whole.partial_fit(DATA[512 : 512 + size])
    for piece in np.split(DATA[512 : 512 + size], 16):
        cut.partial_fit(piece)
    assert whole.n_steps_ == cut.n_steps_ == 512 // size + 1
    away = np.linalg.norm(whole.components_ - cut.components_, axis=1)
    moved = np.linalg.norm(whole.components_ - new().partial_fit(start).components_, axis=1)
    assert np.median(away) < 0.5 * np.median(moved)


@pytest.mark.parametrize("sizes", [[1] * 240, [10] * 24, [100, 20, 119, 1], [239, 1]], ids=len)
def test_a_first_small_piece_fixes_nothing(sizes):
    model = new(preprocessing="scale")
    for piece in np.split(DATA[:240], np.cumsum(sizes)[:-1]):
        model.partial_fit(piece)
    together = new(preprocessing="scale").partial_fit(DATA[:240])
    assert model.components_.tobytes() == together.components_.tobytes()
    for name, array in together.preprocessing_.arrays.items():
        np.testing.assert_array_equal(model.preprocessing_.arrays[name], array)
    model.partial_fit(DATA[240:500])
    assert model.components_.tobytes() == together.partial_fit(DATA[240:500]).components_.tobytes()


def test_the_number_of_atoms_waits_too():
    model = shoal.DictionaryAutoencoder(random_state=0).partial_fit(DATA[:3])
    assert len(model.components_) == 3
    for piece in np.split(DATA[3:303], 30):
        model.partial_fit(piece)
    assert len(model.components_) == 16  # the number of features


def test_whitening_waits_for_more_rows_than_features():
    model = new(n_components=2, n_nonzero_coefs=1, preprocessing="whiten")
    for piece in np.split(DATA[:40], 20):
        model.partial_fit(piece)
    assert model.preprocessing_.arrays["gain"].max() < 20  # no direction is without variance


@pytest.mark.parametrize("rule", [Adam(Constant(0.01)), Momentum(0.01), FixedStep(Constant(1.0))])
def test_every_rule_weighs_a_batch_by_its_rows(fitted, rule):
    recipe = replace(recipe_named("default", "sparse", 24, 2, None), rule=rule, refinement=None)
    size = recipe.batch_size
    one, few = (new(recipe=recipe, init=fitted.components_) for _ in range(2))
    for model in (one, few):
        model.partial_fit(DATA[:240])
    before = one.components_.copy()
    one.partial_fit(DATA[240 : 240 + size])
    few.partial_fit(DATA[240:250])
    moved = [np.linalg.norm(model.components_ - before) for model in (one, few)]
    assert 0 < moved[1] < 0.4 * moved[0]


def test_an_adaptation_counts_rows():
    rule = BiasAdaptation((0.25,), every=1, rate=0.5)
    bias, tally = torch.zeros(2), Adapted.none(torch.zeros(2))
    for _ in range(3):
        bias, tally = rule.add(tally, bias, torch.tensor([2.0, 0]), torch.ones(2), 2, 0.25)
        assert not bias.any()
    bias, tally = rule.add(tally, bias, torch.tensor([2.0, 0]), torch.ones(2), 2, 0.25)
    assert bias[0] < 0
    assert tally.n_samples == 0


def test_one_row_does_not_set_the_threshold_of_a_batchwise_activation():
    recipe = replace(
        recipe_named("default", "sparse", 24, 2, None),
        activation=BatchTopK(2), refinement=None, polish=None, n_steps=40,
    )  # fmt: skip
    model = new(recipe=recipe).partial_fit(DATA[:2000])
    before = model.thresholds_.copy()
    model.partial_fit(30 * DATA[2000:2001])
    assert np.abs(model.thresholds_ - before).max() < 0.5 * before.max()


def test_pieces_in_a_small_unit_are_the_same():
    one, two = new(), new()
    for piece in np.split(DATA[:1000], 100):
        one.partial_fit(piece)
        two.partial_fit(np.ldexp(piece, -43))
    assert one.components_.tobytes() == two.components_.tobytes()

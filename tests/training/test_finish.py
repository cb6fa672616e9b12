"""The end of a fit on data that no dictionary explains, and that others never come to it."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from shoal import DictionaryAutoencoder
from shoal.data import open_source
from shoal.generative import SparseCoding, random_dictionary
from shoal.training import prepare, recipe_named, run
from shoal.training.recipes.from_data import finish
from shoal.training.refinement import _unevenness, _usual_steps


@cache
def photographs(n_samples=2000):
    rows = open_source("sample:patches").draw(n_samples, np.random.default_rng(0))
    return np.ascontiguousarray(rows - rows.mean(axis=0), dtype=np.float32)


def planted(k, noise=0.0, m=48, n=32, n_samples=4000):
    world = SparseCoding(random_dictionary(m, n, random_state=3), k, low=1.0, high=2.0, noise=noise)
    return world.sample(n_samples, random_state=4).data


def phases(model, data):
    return [(step.phase, step.progress) for step in model.iter_fit(data)]


def test_photographs_end_in_a_known_number_of_steps():
    data = photographs()
    model = DictionaryAutoencoder(64, 4, random_state=0)
    seen = phases(model, data)
    finishing = [progress for phase, progress in seen if phase == "finish"]
    assert len(finishing) == finish(64, 4, len(data), signed=True).n_steps == 240
    np.testing.assert_allclose(finishing, np.arange(1, 241) / 240)
    refining = [phase for phase, _ in seen].count("refinement")
    assert 40 <= refining <= 100
    assert [each for each in seen if each[0] != "encoder"][-1] == ("finish", 1.0)
    np.testing.assert_allclose(np.linalg.norm(model.components_, axis=1), 1, atol=1e-5)


def test_it_explains_more_than_the_refinement_did():
    data = photographs(3000)
    model = DictionaryAutoencoder(64, 4, random_state=0)
    ratios = {"refinement": [], "finish": []}
    for step in model.iter_fit(data):
        if step.phase in ratios:
            ratios[step.phase].append(float(step.loss / step.variance))
    assert np.mean(ratios["finish"][-10:]) < 0.97 * np.mean(ratios["refinement"][-10:])


@pytest.mark.parametrize(("k", "noise"), [(1, 0.0), (3, 0.0), (3, 0.1), (3, 0.3), (5, 0.05)])
def test_a_planted_world_never_comes_to_it(k, noise):
    model = DictionaryAutoencoder(48, k, random_state=0)
    assert "finish" not in {phase for phase, _ in phases(model, planted(k, noise))}


def test_data_in_double_precision_keep_theirs():
    model = DictionaryAutoencoder(32, 3, random_state=0).fit(photographs().astype(float))
    assert "finish" in {each["phase"] for each in model.history_}
    assert model.components_.dtype == np.float64


def test_another_unit_has_the_same_bits():
    data = photographs(1000)
    one, other = (
        DictionaryAutoencoder(32, 3, random_state=0).fit(each).components_
        for each in (data, data * np.float32(2.0**-6))
    )
    assert one.tobytes() == other.tobytes()


def test_a_fit_that_is_left_in_it_goes_on_with_the_same_bits():
    data = open_source(photographs(1000))
    usual = recipe_named("default", "sparse", 32, 3, 1000)
    assert usual.finish is not None
    recipe = replace(usual, finish=replace(usual.finish, n_steps=12, batch_size=700))
    rng = np.random.default_rng(0)
    problem, state = prepare(data, "data", 32, 3, lambda k: recipe, "sparse", rng)
    kept = []
    for state, _ in run(problem, state):
        # As the finish begins, with batches of another size; and in the middle of it.
        if len(state.begun) == 3 and state.number - state.begun[-1] in (0, 5):
            kept.append(copy.deepcopy(state))
    assert len(kept) == 2
    for again in kept:
        for again, _ in run(problem, again):  # noqa: B007
            pass
        assert torch.equal(again.parameters.dictionary, state.parameters.dictionary)


def test_a_stream_that_can_be_read_once_is_fitted_to_its_end():
    data = photographs(4000)
    parts = iter(np.array_split(data, 9))
    model = DictionaryAutoencoder(32, 3, random_state=0).fit(parts)
    assert np.isfinite(model.components_).all()


def test_noise_is_even_and_photographs_are_not():
    rng = np.random.default_rng(0)
    noise = torch.from_numpy((rng.standard_normal((4000, 60)) ** 2).sum(axis=1))
    assert 0.9 < _unevenness(noise, 60) < 1.1
    assert _unevenness(noise * torch.from_numpy(rng.uniform(0.2, 2, 4000)), 60) > 3
    assert _unevenness(torch.zeros(4), 60) == 0


def test_crowded_rows_are_given_more_steps():
    assert _usual_steps(3, 128, 64) == 60
    # Measured, without noise: k = 12 takes 300 steps, k = 15 takes 900.
    assert _usual_steps(12, 128, 64) > 900
    assert _usual_steps(15, 128, 64) > 2700


def test_the_batch_suits_many_atoms():
    # The Gram matrix costs m^2 n, the product B m n.
    assert recipe_named("default", "sparse", 1536, 32, 60_000).batch_size == 1024
    assert recipe_named("default", "sparse", 128, 3, 20_000).batch_size == 256


def test_many_active_units_are_found_by_one_product():
    few, many = (recipe_named("default", "nonnegative", 1536, k, 60_000) for k in (16, 32))
    for recipe, iterations in ((few, 1), (many, 0)):
        assert recipe.finish is not None
        assert recipe.refinement is not None
        assert recipe.refinement.pursuit.max_iterations == 1
        (last,) = (stage for stage in recipe.plan().stages if stage.phase == "finish")
        assert last.encoder.max_iterations == iterations
        assert last.encoder.k == recipe.refinement.pursuit.k

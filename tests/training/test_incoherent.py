"""Rows with different numbers of active units: thresholds, an incoherent dictionary, an offset."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import shoal
from shoal.data import open_source
from shoal.generative import (
    NonnegativeSparseCoding,
    SparseCoding,
    random_dictionary,
    synth_sae_bench,
)
from shoal.network import kernels
from shoal.network.activations import JumpReLU, TopK
from shoal.network.inference import SubspacePursuit, ThresholdPursuit, fast_sparse_encode
from shoal.network.objective import on_batch
from shoal.training.constraints import pushed_apart, unit_atoms
from shoal.training.encoders import fitted_encoder
from shoal.training.fit import searched, started
from shoal.training.recipes import Recipe
from shoal.training.rules import IncoherentStep
from shoal.training.schedules import Constant
from shoal.training.sparsity import VARYING
from shoal.vocabulary import ArgumentError, Parameters


def problem(m=24, n=16, rows=200, *, signed=True, dtype=torch.float64, seed=0):
    rng = np.random.default_rng(seed)
    atoms = unit_atoms(torch.from_numpy(rng.standard_normal((m, n)))).to(dtype)
    data = torch.from_numpy(rng.standard_normal((rows, n))).to(dtype)
    threshold = torch.from_numpy(rng.uniform(0.3, 0.9, m)).to(dtype)
    offset = torch.from_numpy(rng.standard_normal(n)).to(dtype)
    bias = torch.zeros(m, dtype=dtype)
    return Parameters(atoms, bias, threshold=threshold, offset=offset), data


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("signed", [True, False])
def test_the_kernel_codes_as_the_reference_does(signed, dtype):
    parameters, data = problem(signed=signed, dtype=dtype)
    pursuit = ThresholdPursuit(8, signed)
    fast = fast_sparse_encode(parameters, data, pursuit).dense(24)
    with kernels.use("reference"):
        slow = fast_sparse_encode(parameters, data, pursuit).dense(24)
    assert torch.equal(fast != 0, slow != 0)
    assert torch.allclose(fast, slow, atol=1e-4 if dtype == torch.float32 else 1e-10)


def test_every_coefficient_is_worth_its_threshold_and_solves_least_squares():
    parameters, data = problem()
    codes = fast_sparse_encode(parameters, data, ThresholdPursuit(8)).dense(24)
    on = codes != 0
    assert 1 < on.sum(dim=1).double().mean() < 8
    assert bool((codes.abs() >= parameters.threshold)[on].all())
    residual = data - parameters.offset - codes @ parameters.dictionary
    assert float(((residual @ parameters.dictionary.T) * on).abs().max()) < 1e-9


@pytest.mark.parametrize("signed", [True, False])
def test_codes_drawn_towards_zero_are_the_lasso_s_on_their_support(signed):
    parameters, data = problem(signed=signed)
    full = fast_sparse_encode(parameters, data, ThresholdPursuit(8, signed)).dense(24)
    pursuit = ThresholdPursuit(8, signed, shrinkage=0.3)
    codes = fast_sparse_encode(parameters, data, pursuit).dense(24)
    with kernels.use("reference"):
        slow = fast_sparse_encode(parameters, data, pursuit).dense(24)
    assert torch.allclose(codes, slow, atol=1e-10)
    whole = ((codes != 0) == (full != 0)).all(dim=1)  # no sign would have changed
    assert float(whole.double().mean()) > 0.5
    residual = data - parameters.offset - codes @ parameters.dictionary
    slope = residual @ parameters.dictionary.T - 0.3 * parameters.threshold * codes.sign()
    assert float((slope * (codes != 0))[whole].abs().max()) < 1e-9


def test_the_sums_of_a_step_are_the_reference_s_offset_included():
    parameters, data = problem()
    found = on_batch(data)(ThresholdPursuit(8), None, parameters, None)
    with kernels.use("reference"):
        wanted = on_batch(data)(ThresholdPursuit(8), None, parameters, None)
    for name in ("dictionary", "losses", "counts", "energy", "offset"):
        assert torch.allclose(getattr(found, name), getattr(wanted, name), atol=1e-9), name


def test_a_pursuit_of_one_s_own_meets_the_offset_once():
    class Own(ThresholdPursuit):
        pass

    parameters, data = problem()
    found = on_batch(data)(Own(8), None, parameters, None)
    wanted = on_batch(data)(ThresholdPursuit(8), None, parameters, None)
    assert torch.allclose(found.losses, wanted.losses, atol=1e-9)
    assert torch.allclose(found.offset, wanted.offset, atol=1e-9)


def test_of_a_coherent_pair_the_rarer_atom_gives_way():
    atoms = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    moved = pushed_apart(atoms, torch.tensor([0.1, 0.5]), 0.2, strength=0.5)
    assert torch.equal(moved[1], atoms[1])
    assert torch.allclose(moved[0], atoms[0] - 0.5 * 0.4 * atoms[1])


def test_of_an_opposite_pair_both_give_way_where_codes_are_not_negative():
    atoms = torch.tensor([[1.0, 0.0], [-0.6, 0.8]])
    moved = pushed_apart(atoms, torch.tensor([0.1, 0.5]), 0.2, opposite=0.1)
    assert torch.allclose(moved[0], atoms[0] + 0.25 * 0.5 * atoms[1])
    assert torch.allclose(moved[1], atoms[1] + 0.25 * 0.5 * atoms[0])


def test_no_atom_moves_farther_than_it_may():
    atoms = unit_atoms(torch.ones(50, 3) + 0.01 * torch.randn(50, 3))
    moved = pushed_apart(atoms, torch.rand(50), 0.0, farthest=0.3)
    assert float(torch.linalg.vector_norm(moved - atoms, dim=1).max()) <= 0.3 + 1e-6


def test_thresholds_follow_the_scale_of_the_data():
    parameters, data = problem()
    rule = IncoherentStep(Constant(0.3), release=5, trial=2)
    pursuit = ThresholdPursuit(8)

    def after(scale):
        state = parameters._replace(
            threshold=parameters.threshold * scale, offset=parameters.offset * scale
        )
        memory = None
        for step in range(10):
            sums = on_batch(data * scale)(pursuit, None, state, None)
            state, memory = rule.update(state, sums, memory, step, lambda a, _: unit_atoms(a))
        return state

    one, thousand = after(1.0), after(1024.0)
    assert torch.allclose(one.dictionary, thousand.dictionary, atol=1e-12)
    assert torch.allclose(1024 * one.threshold, thousand.threshold)
    assert torch.allclose(1024 * one.offset, thousand.offset)


@pytest.mark.parametrize("signed", [True, False])
def test_the_fitted_encoder_codes_much_as_the_pursuit_does(signed):
    rng = np.random.default_rng(0)
    atoms = random_dictionary(32, 64, random_state=0)
    codes = (rng.random((4000, 32)) < 0.06) * rng.uniform(2, 3, (4000, 32))
    if signed:
        codes *= rng.choice([-1, 1], codes.shape)
    offset = rng.standard_normal(64)
    data = codes @ atoms + offset
    parameters = Parameters(
        torch.from_numpy(atoms),
        torch.zeros(32, dtype=torch.float64),
        threshold=torch.full((32,), 1.0, dtype=torch.float64),
        offset=torch.from_numpy(offset),
    )
    fitted, pursuit, active = fitted_encoder(
        parameters, open_source(data), ThresholdPursuit(16, signed)
    )
    z = torch.from_numpy(data) @ fitted.encoder.T + fitted.bias
    value = z.abs() if signed else z
    on = (value > fitted.threshold).numpy()
    assert ((on == (codes != 0)).mean(axis=0) > 0.999).all()
    assert active == pytest.approx((codes != 0).sum(axis=1).mean(), rel=0.01)
    assert 0 < pursuit.share <= 1


def sizes(data, m, model):
    rng = np.random.default_rng(0)
    source = open_source(np.ascontiguousarray(data, dtype=np.float32))
    start = started("data", source.draw(m, rng, strict=False), m, "cpu", rng)
    return searched(start, source, model, rng)


def test_the_search_tells_a_number_that_varies_from_one_that_does_not():
    atoms = random_dictionary(64, 32, random_state=0)
    rng = np.random.default_rng(0)
    same = SparseCoding(atoms, sparsity=3).sample(8000, random_state=1).data
    noisy = same + 0.2 * same.std() * rng.standard_normal(same.shape)
    assert sizes(same, 64, "sparse") == 3
    assert sizes(noisy, 64, "sparse") == 3
    varying = (rng.random((8000, 64)) < 3 / 64) * rng.standard_normal((8000, 64))
    assert sizes(varying @ atoms, 64, "sparse") == VARYING


@pytest.fixture(scope="module")
def nested():
    world = synth_sae_bench("1k", random_state=3)
    return world, world.sample(12_000, random_state=4), world.sample(2000, random_state=5)


@pytest.fixture(scope="module")
def fitted(nested):
    model = shoal.DictionaryAutoencoder(64, "auto", model="nonnegative", random_state=0)
    return model.fit(nested[1].data.astype(np.float32))


def test_families_are_found_as_features_with_an_encoder_that_explains(nested, fitted):
    world, _, test = nested
    assert fitted.recipe_.pursuit is not None
    assert fitted.components_.shape == (64, 512)
    data = test.data.astype(np.float32)
    for method in ("encoder", "pursuit"):
        found = shoal.detection(
            fitted.transform(data, method=method), test.codes, fitted.components_, world.dictionary
        )
        assert found.f1 > 0.85, method
        assert found.uniqueness > 0.95
    assert fitted.score(data) > 0.4


def test_such_a_model_is_saved_and_loaded_whole(nested, fitted, tmp_path):
    shoal.save_run(fitted, tmp_path / "run", nested[1].data[:1000].astype(np.float32))
    again = shoal.load_run(tmp_path / "run")
    data = nested[2].data[:500].astype(np.float32)
    for method in ("encoder", "pursuit"):
        wanted = fitted.transform(data, method=method)
        assert np.array_equal(again.transform(data, method=method), wanted)
    assert np.array_equal(again.offset_, fitted.offset_)


def test_pieces_are_refused_where_codes_are_by_thresholds(nested, fitted):
    with pytest.raises(ArgumentError, match="fit, or a recipe"):
        fitted.partial_fit(nested[1].data[:100])
    model = shoal.DictionaryAutoencoder(16, recipe="incoherent")
    with pytest.raises(ArgumentError, match="fit, or a recipe"):
        model.partial_fit(nested[1].data[:100])


def test_a_world_without_families_keeps_its_atoms():
    atoms = random_dictionary(48, 32, random_state=0)
    rng = np.random.default_rng(0)
    codes = (rng.random((20_000, 48)) < 2.5 / 48) * rng.standard_normal((20_000, 48))
    model = shoal.DictionaryAutoencoder(48, recipe="incoherent", random_state=0)
    model.fit((codes @ atoms).astype(np.float32))
    assert shoal.recovery(model.components_, atoms).recovered(0.99) >= 0.95


def test_a_number_stays_the_most_a_row_takes():
    world = NonnegativeSparseCoding(random_dictionary(32, 32, random_state=0), sparsity=4)
    data = world.sample(3000, random_state=0).data
    model = shoal.DictionaryAutoencoder(
        32, 2, model="nonnegative", recipe="incoherent", random_state=0
    ).fit(data)
    assert (model.transform(data, method="pursuit") != 0).sum(axis=1).max() <= 2


def test_a_recipe_has_thresholds_for_a_pursuit_by_them():
    rule = IncoherentStep(Constant(0.3), release=5, trial=2)
    with pytest.raises(ArgumentError, match="such as JumpReLU"):
        Recipe(TopK(2), rule, 10, 64, pursuit=ThresholdPursuit(4))
    with pytest.raises(ArgumentError, match="a ThresholdPursuit or None"):
        Recipe(JumpReLU(), rule, 10, 64, pursuit=SubspacePursuit(4))


def test_a_fit_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.standard_normal((600, 12)).astype(np.float32)
    rule = IncoherentStep(Constant(0.3), release=20, trial=10)
    recipe = Recipe(JumpReLU(signed=True), rule, 40, 64, offset=True, pursuit=ThresholdPursuit(6))

    def model():
        return shoal.DictionaryAutoencoder(16, recipe=recipe, random_state=0)

    whole = model().fit(data)
    steps = model().iter_fit(data, checkpoint=tmp_path / "saved", checkpoint_every=5)
    for _ in range(26):  # between the release and what it comes to
        next(steps)
    steps.close()
    again = model().fit(data, checkpoint=tmp_path / "saved")
    for name in ("components_", "encoder_", "bias_", "thresholds_", "offset_"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))

"""Sparse autoencoders trained end to end: topk, batchtopk, jumprelu and prefixes."""

import copy
import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from tests.made import gaussian, unit_rows
from tests.sae_folders import saelens

import shoal
from shoal import DictionaryAutoencoder
from shoal.generative import NonnegativeSparseCoding, random_dictionary
from shoal.network import autoencoder
from shoal.network.activations import BatchTopK, JumpReLU, TopK
from shoal.network.kernels import cpu, reference
from shoal.network.objective import on_batch
from shoal.network.prefixes import Prefixes
from shoal.training import Constant, DecayAtLast, recipe_named
from shoal.training.autoencoding import AutoencoderAdam, about_mean, renewed
from shoal.training.recipes import Recipe
from shoal.vocabulary import ArgumentError, Parameters

NAMES = ("topk", "batchtopk", "jumprelu", "matryoshka")
PARTS = ("components_", "encoder_", "bias_", "offset_", "thresholds_")


@cache
def world(n_samples=3000, m=32, n=20, k=3):
    """Rows about a mean, and others."""
    atoms = random_dictionary(m, n, random_state=0)
    law = NonnegativeSparseCoding(atoms, k, low=1.0, high=2.0, noise=0.02)
    mean = np.random.default_rng(5).standard_normal(n)
    return [
        (law.sample(count, random_state=seed).data + mean).astype(np.float32)
        for count, seed in ((n_samples, 1), (1000, 2))
    ]


@cache
def fitted(name, m=32, k=3, **settings):
    return trained(short(name, 300), world()[0], m, k, **settings)


def trained(name, data, m=32, k=3, model="nonnegative", **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        made = DictionaryAutoencoder(m, k, model=model, recipe=name, random_state=0, **settings)
        return made.fit(data)


def short(name, n_steps=60, m=32, k=3):
    """A recipe of few steps, for what doesn't depend on their number."""
    usual = recipe_named(name, "nonnegative", m, k, 600)
    rule = replace(usual.rule, schedule=DecayAtLast(0.08, n_steps))
    return replace(usual, n_steps=n_steps, rule=rule)


# --------------------------------------------------------------------------- what is learned


@pytest.mark.parametrize("name", NAMES)
def test_its_codes_explain_rows_that_it_has_not_seen(name):
    model, rows = fitted(name), world()[1]
    assert model.score(rows) > (0.85 if name in ("topk", "batchtopk") else 0.75)
    active = (model.transform(rows) != 0).sum(axis=1)
    if name == "topk":
        assert active.max() <= 3
    assert 2.5 < active.mean() < 3.5
    np.testing.assert_allclose(np.linalg.norm(model.components_, axis=1), 1, atol=1e-5)
    assert len(model.components_) == 32
    assert model.components_.dtype == np.float32


@pytest.mark.parametrize("name", ["topk", "batchtopk"])
def test_what_all_rows_have_in_common_costs_nothing(name):
    data, rows = world()
    far = np.float32(30) * np.ones(20, np.float32)
    assert trained(short(name, 300), data + far).score(rows + far) > 0.93 * fitted(name).score(rows)


@pytest.mark.parametrize("exponent", [-40, -3, 30])
@pytest.mark.parametrize("name", ["topk", "jumprelu"])
def test_another_unit_has_the_same_bits(name, exponent):
    data = world()[0][:600]
    one, other = trained(short(name), data), trained(short(name), np.ldexp(data, exponent))
    for part in ("components_", "encoder_"):
        assert getattr(one, part).tobytes() == getattr(other, part).tobytes()
    np.testing.assert_array_equal(np.ldexp(one.offset_, exponent), other.offset_)
    if name == "jumprelu":
        np.testing.assert_array_equal(np.ldexp(one.thresholds_, exponent), other.thresholds_)


def test_signed_codes_are_those_of_largest_magnitude():
    data, rows = world()
    model = trained("topk", data, model="sparse")
    codes = model.transform(rows)
    assert (codes < 0).any()
    assert (codes != 0).sum(axis=1).max() <= 3
    assert model.recipe_.activation == TopK(3, signed=True)


@pytest.mark.parametrize("name", ["batchtopk", "jumprelu", "matryoshka"])
@pytest.mark.parametrize("model", ["sparse", "mixture"])
def test_gates_that_are_one_sided_refuse_signed_codes(name, model):
    with pytest.raises(ArgumentError, match=r"^model: .*'nonnegative'"):
        DictionaryAutoencoder(8, 1, model=model, recipe=name).fit(world()[0])


@pytest.mark.parametrize("name", NAMES)
def test_double_precision_comes_back(name):
    model = trained(short(name), world()[0][:500].astype(np.float64))
    assert model.components_.dtype == np.float64
    assert model.transform(world()[1].astype(np.float64)).dtype == np.float64


def test_thresholds_are_drawn_to_the_number_that_was_asked_for():
    few, many = (trained(short("jumprelu", 300, k=k), world()[0], k=k) for k in (2, 5))
    means = [(each.transform(world()[1]) != 0).sum(axis=1).mean() for each in (few, many)]
    np.testing.assert_allclose(means, (2, 5), rtol=0.15)


def test_units_that_died_are_put_to_use():
    data = world()[0]
    usual = recipe_named("topk", "nonnegative", 64, 3, len(data))
    assert usual.revival is not None
    dead = []
    for recipe in (usual, replace(usual, revival=None)):
        model = trained(recipe, data, m=64, init="random")
        dead.append((model.transform(data) == 0).all(axis=0).mean())
    assert dead[0] < 0.5 * dead[1]


def test_the_same_fit_has_the_same_bits():
    one, other = (trained(short("batchtopk"), world()[0][:400]) for _ in range(2))
    for part in PARTS:
        assert getattr(one, part).tobytes() == getattr(other, part).tobytes()


# --------------------------------------------------------------------------- how it moves


def made(m=30, n=24, dtype=torch.float64):
    atoms = unit_rows(0, m, n, dtype)
    return Parameters(
        atoms,
        0.1 * gaussian(1, m, dtype=dtype),
        0.5 * atoms + 0.05 * gaussian(2, m, n, dtype=dtype),
        offset=gaussian(3, n, dtype=dtype),
    )


def test_the_first_step_goes_down_the_gradient_of_the_network_that_takes_the_offset_off():
    start, data = made(), gaussian(7, 200, 24, dtype=torch.float64)
    activation, rule = TopK(4, signed=False), AutoencoderAdam(Constant(1e-7))
    leaves = [
        part.clone().requires_grad_()
        for part in (start.dictionary, start.bias + start.encoder @ start.offset,
                     start.encoder, start.offset)
    ]  # fmt: skip
    atoms, bias, encoder, offset = leaves
    codes = activation((data - offset) @ encoder.T + bias).codes
    (0.5 * (data - codes @ atoms - offset).square().sum(dim=1).mean()).backward()
    sums = on_batch(data)(activation, None, start, None)
    now, memory = rule.init(start)
    moved, memory = rule.update(now, sums, memory, 0, lambda new, before=None: new)
    pulls = memory[0].map(lambda mean: mean / (1 - rule.beta1))  # Adam's first mean is of these
    across = atoms.grad - (atoms.grad * start.dictionary).sum(1, keepdim=True) * start.dictionary
    for found, wanted in zip(
        (pulls.dictionary, pulls.bias, pulls.encoder, pulls.offset),
        (across, bias.grad, encoder.grad, offset.grad),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    assert moved.encoder is not None
    assert moved.offset is not None
    np.testing.assert_allclose(  # in the parameters' own form the bias carries -E c
        moved.bias + moved.encoder @ moved.offset,
        bias.detach(), atol=2e-7,
    )  # fmt: skip


def test_it_starts_about_the_mean_with_thresholds_where_so_many_are_active():
    rows = world()[0]
    atoms = unit_rows(0, 32, 20, torch.float32)
    start = about_mean(Parameters(atoms, torch.zeros(32)), rows, JumpReLU(), 3)
    np.testing.assert_allclose(start.offset, rows.mean(axis=0), atol=1e-5)
    codes = autoencoder.encode(start, torch.from_numpy(rows), JumpReLU())
    assert float((codes != 0).sum(dim=1).double().mean()) == pytest.approx(3, rel=0.01)
    shifted = about_mean(Parameters(atoms, torch.zeros(32)), rows + 5, TopK(3, signed=False), 3)
    one, other = (
        autoencoder.encode(shifted, torch.from_numpy(each), TopK(3, signed=False)).sum()
        for each in (rows + 5, rows)
    )
    assert one != other
    assert shifted.threshold is None


def test_a_unit_with_a_new_atom_has_an_encoder_for_it():
    start = made()
    atoms = start.dictionary.clone()
    atoms[4] = unit_rows(9, 1, 24, torch.float64)[0]
    found, new = renewed(start._replace(dictionary=atoms), start.dictionary)
    assert new.nonzero().flatten().tolist() == [4]
    assert found.encoder is not None
    assert start.encoder is not None
    cosine = torch.cosine_similarity(found.encoder[4], atoms[4], dim=0)
    assert float(cosine) == pytest.approx(1)
    assert torch.equal(found.encoder[5], start.encoder[5])
    assert torch.equal(found.bias[5], start.bias[5])
    assert found.bias[4] != start.bias[4]


def test_moments_of_such_a_unit_are_forgotten():
    rule = AutoencoderAdam()
    moments = tuple(made().map(torch.ones_like) for _ in range(2))
    new = torch.arange(30) == 4
    for each in rule.forget(moments, new):
        assert not bool(each.encoder[4].any())
        assert not bool(each.dictionary[4].any())
        assert bool(each.encoder[5].all())
        assert bool(each.offset.all())


@pytest.mark.parametrize("settings", [{"beta1": 1.0}, {"active": 0}, {"strength": -1.0}])
def test_a_rule_checks_its_numbers(settings):
    with pytest.raises(ArgumentError, match=f"^{next(iter(settings))}"):
        AutoencoderAdam(**settings)


@pytest.mark.parametrize("parts", [{}, {"untied": True}, {"offset": True}])
def test_a_recipe_without_what_the_rule_moves_is_refused(parts):
    with pytest.raises(ArgumentError, match="untied=True and offset=True"):
        Recipe(TopK(2, signed=False), AutoencoderAdam(), 5, 64, **parts)


# --------------------------------------------------------------------------- prefixes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", [TopK(4), TopK(4, signed=False), BatchTopK(4)])
@pytest.mark.parametrize("offset", [True, False])
def test_the_kernel_s_prefixes_are_the_reference_s(dtype, activation, offset):
    parameters = made(90, 37, dtype)
    if not offset:
        parameters = parameters._replace(offset=None)
    data, sizes = gaussian(7, 700, 37, dtype=dtype), (5, 6, 40, 90)
    found = cpu.prefix_step(parameters, data, activation, sizes)
    wanted = reference.prefix_step(parameters, data, activation, sizes)
    close = {"rtol": 1e-4, "atol": 2e-3} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    for name in ("dictionary", "bias", "encoder", "offset", "losses", "counts", "energy"):
        mine, theirs = getattr(found, name), getattr(wanted, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, msg=name, **close)


def test_the_gradient_is_autograd_s():
    start, data, sizes = made(), gaussian(7, 60, 24, dtype=torch.float64), (3, 10, 30)
    leaves = Parameters(*(None if p is None else p.clone().requires_grad_() for p in start))
    codes = autoencoder.encode(leaves, data, TopK(4))
    total = sum(
        0.5 * (data - codes[:, :size] @ leaves.dictionary[:size] - leaves.offset).square().sum()
        for size in sizes
    )
    (total / len(sizes)).backward()
    sums = Prefixes(sizes[:-1])(start, data, TopK(4))
    for name in ("dictionary", "bias", "encoder", "offset"):
        torch.testing.assert_close(getattr(sums, name), getattr(leaves, name).grad, msg=name)
    whole = on_batch(data)(TopK(4), None, start, None)
    torch.testing.assert_close(sums.losses, whole.losses)


def test_one_prefix_of_all_atoms_is_the_usual_loss():
    start, data = made(), gaussian(7, 60, 24, dtype=torch.float64)
    one = Prefixes((30,))(start, data, TopK(4))
    other = on_batch(data)(TopK(4), None, start, None)
    for name in ("dictionary", "bias", "encoder", "offset"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), msg=name)


def test_the_first_atoms_do_by_themselves():
    rows = world()[1]

    def left(model, first=8):
        codes = model.transform(rows)[:, :first]
        rest = rows - codes @ model.components_[:first] - model.offset_
        return np.square(rest).sum() / np.square(rows - rows.mean(axis=0)).sum()

    assert left(fitted("matryoshka")) < 0.9 * left(fitted("batchtopk"))


@pytest.mark.parametrize("sizes", [(), (4, 2), (3, 3), (0, 2)])
def test_sizes_are_checked(sizes):
    with pytest.raises(ArgumentError, match=r"^sizes"):
        Prefixes(sizes)


def test_more_atoms_than_there_are_and_thresholds_are_refused():
    data = gaussian(7, 60, 24, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="up to 30"):
        Prefixes((31,))(made(), data, TopK(4))
    with pytest.raises(ArgumentError, match="JumpReLU"):
        Prefixes((3,))(made(), data, JumpReLU())


# --------------------------------------------------------------------------- what comes after


@pytest.mark.parametrize("name", NAMES)
def test_it_is_saved_loaded_and_exported(name, tmp_path):
    model, rows = fitted(name), world()[1]
    wanted = model.transform(rows)
    shoal.save_run(model, tmp_path / "run", world()[0])
    again = shoal.load_run(tmp_path / "run")
    assert again.recipe_ == model.recipe_
    assert np.array_equal(again.transform(rows), wanted)
    folder = shoal.export(model, tmp_path / "sae", to="saelens")
    there = shoal.open_sae(folder)
    codes, rebuilt = saelens(folder, rows)
    for found in (codes, there.transform(rows)):
        assert np.array_equal(found != 0, wanted != 0)
        np.testing.assert_allclose(found, wanted, atol=2e-5)
    np.testing.assert_allclose(rebuilt, model.inverse_transform(wanted), atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_that_is_left_goes_on_with_the_same_bits(name, tmp_path):
    def model():
        recipe = short(name, m=16, k=2)
        return DictionaryAutoencoder(16, 2, model="nonnegative", recipe=recipe, random_state=0)

    data = world()[0][:300]
    whole = model().fit(data)
    steps = model().iter_fit(data, checkpoint=tmp_path / "saved", checkpoint_every=7)
    for step in steps:
        if step.number == 40:
            break
    steps.close()
    again = model().fit(data, checkpoint=tmp_path / "saved")
    for part in PARTS:
        mine, theirs = getattr(again, part), getattr(whole, part)
        assert (mine is None) == (theirs is None)
        assert mine is None or mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_data_may_come_piece_by_piece(name):
    data, rows = world()
    recipe = replace(recipe_named(name, "nonnegative", 32, 3, None), batch_size=128)
    model = DictionaryAutoencoder(32, 3, model="nonnegative", recipe=recipe, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(7):
            for piece in np.array_split(data, 5):
                model.partial_fit(piece)
    before = copy.deepcopy(model.components_)
    assert model.score(rows) > 0.5
    model.partial_fit(data[:100])
    assert (model.components_ != before).any()

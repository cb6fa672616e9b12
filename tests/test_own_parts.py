"""Parts of a user's own, in a file of their own, decorated once: fitted, saved, loaded, used."""

import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import shoal
from shoal.network.activations import ACTIVATIONS, Activated, JumpReLU, k_largest
from shoal.network.penalties import PENALTIES, NoPenalty
from shoal.parts import _forget, describe, named, register, restore
from shoal.training import Adam, Constant, Recipe
from shoal.vocabulary import ArgumentError


@pytest.fixture
def own():
    @register("activation", "own-soft")
    @dataclass(frozen=True)
    class OwnSoft:
        by: float = 0.1

        def __call__(self, z):
            on = z > self.by
            return Activated(torch.where(on, z - self.by, 0.0), on.to(z.dtype))

    @register("activation", "own-batch")
    @dataclass(frozen=True)
    class OwnBatch:
        k: int = 3
        rowwise = False
        at_rest = JumpReLU()

        def __call__(self, z):
            kept = k_largest(z.reshape(1, -1), self.k * len(z)).reshape(z.shape) & (z > 0)
            return Activated(torch.where(kept, z, 0.0), kept.to(z.dtype))

    @register("activation", "own-jump")
    @dataclass(frozen=True)
    class OwnJump:
        start = 0.2
        learns = True

        def __call__(self, z, threshold):
            on = z > threshold
            return Activated(torch.where(on, z, 0.0), on.to(z.dtype))

        def by_threshold(self, z, threshold):
            return -threshold * ((z - threshold).abs() < 0.05) / 0.1

    @register("penalty", "own-square")
    @dataclass(frozen=True)
    class OwnSquare:
        strength: float = 0.1

        def __call__(self, parameters, data, activation, generator=None):
            plain = NoPenalty()(parameters, data, activation, generator)
            return plain._replace(bias=plain.bias + self.strength * parameters.bias)

    @register("schedule", "own-steps")
    @dataclass(frozen=True)
    class OwnSteps:
        value: float = 0.01

        def __call__(self, step):
            return self.value / (1 + step // 10)

    yield OwnSteps
    for kind, name in (
        ("activation", "own-soft"),
        ("activation", "own-batch"),
        ("activation", "own-jump"),
        ("penalty", "own-square"),
        ("schedule", "own-steps"),
    ):
        _forget(kind, name)


DATA = np.random.default_rng(0).standard_normal((300, 12)) + 1.0


def saved_and_loaded(model, folder):
    shoal.save_run(model, folder, DATA)
    loaded = shoal.load_run(folder)
    codes = model.transform(DATA)
    np.testing.assert_array_equal(loaded.transform(DATA), codes)
    # A row's codes don't depend on its company.
    alone = np.vstack([model.transform(DATA[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(alone, codes[:6], atol=1e-12)
    assert 0 < np.count_nonzero(codes) < codes.size
    return loaded


@pytest.mark.parametrize("activation", ["own-soft", "own-batch", "own-jump"])
@pytest.mark.parametrize("penalty", ["own-square", "l1", "dae", "sae"])
def test_in_a_regularised_autoencoder(own, tmp_path, activation, penalty):
    assert activation in ACTIVATIONS
    model = shoal.RegularizedAutoencoder(
        16, penalty, 0.1, activation=activation, n_epochs=3, learning_rate=0.01, random_state=0
    ).fit(DATA)
    saved_and_loaded(model, tmp_path / "run")
    assert (model.thresholds_ is None) == (activation == "own-soft")


@pytest.mark.parametrize("activation", ["own-soft", "own-batch", "own-jump"])
def test_in_a_recipe_with_an_encoder_of_its_own(own, tmp_path, activation):
    kind = ACTIVATIONS[activation]
    recipe = Recipe(kind(), Adam(own(0.02), tangent=True), 60, 64, untied=True, offset=True)
    model = shoal.DictionaryAutoencoder(16, 3, recipe=recipe, random_state=0).fit(DATA)
    loaded = saved_and_loaded(model, tmp_path / "run")
    np.testing.assert_array_equal(loaded.encoder_, model.encoder_)
    assert np.abs(model.encoder_ - model.components_).max() > 1e-3
    assert np.abs(model.offset_).max() > 1e-3
    rebuilt = model.inverse_transform(model.transform(DATA))
    codes = model.transform(DATA)
    np.testing.assert_allclose(rebuilt, codes @ model.components_ + model.offset_, atol=1e-9)


def test_a_file_that_names_a_part_nobody_registered_is_refused(own, tmp_path):
    model = shoal.RegularizedAutoencoder(
        16, "l1", 0.1, activation="own-soft", n_epochs=1, random_state=0
    ).fit(DATA)
    shoal.save_run(model, tmp_path / "run", DATA)
    description = describe(model.activation_)
    part = _forget("activation", "own-soft")
    try:
        with pytest.raises(shoal.vocabulary.RunError, match="--plugin"):
            shoal.load_run(tmp_path / "run")
        with pytest.raises(ArgumentError, match=r"kind 'OwnSoft'.*--plugin"):
            restore(description)
    finally:
        register("activation", "own-soft")(part)


def test_two_parts_of_one_name_are_refused(own):
    with pytest.raises(ArgumentError, match=r"^name: found 'relu'"):
        register("activation", "relu")(object())

    with pytest.raises(ArgumentError, match=r"name of the class: found 'Constant'"):

        @register("schedule")
        @dataclass(frozen=True)
        class Constant:
            value: float


def test_views_follow_what_is_registered(own):
    assert "own-steps" in named("schedule")
    assert "own-square" in PENALTIES
    with pytest.raises(TypeError):
        named("schedule")["other"] = Constant


def test_what_learns_more_than_the_dictionary_needs_a_rule_that_moves_it():
    from shoal.training import NormalizedStep

    for more in ({"untied": True}, {"offset": True}, {"activation": JumpReLU()}):
        given = {"activation": ACTIVATIONS["relu"]()} | more
        with pytest.raises(ArgumentError, match=r"^rule: .*Momentum or Adam"):
            Recipe(rule=NormalizedStep(Constant(0.1)), n_steps=5, **given)


PLUGIN = """
from dataclasses import dataclass
import torch
from shoal.network.activations import Activated
from shoal.parts import register

@register("activation", "cubic")
@dataclass(frozen=True)
class Cubic:
    def __call__(self, z):
        on = z > 0
        return Activated(torch.where(on, z**3, 0.0), torch.where(on, 3 * z**2, 0.0))
"""


def test_on_the_command_line(tmp_path):
    (tmp_path / "plug.py").write_text(textwrap.dedent(PLUGIN))
    np.save(tmp_path / "data.npy", 0.3 * DATA)
    words = [sys.executable, "-m", "shoal", "--plugin", "plug"]
    fit = [*words, "fit", "data.npy", "-m", "16", "--penalty", "l1", "--strength", ".01"]
    fit += ["--activation", "cubic", "--epochs", "2", "-o", "run", "-q"]
    for command in (fit, [*words, "transform", "run", "data.npy", "-o", "codes.npz"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "codes.npz").exists()
    without = [sys.executable, "-m", "shoal", "info", "run"]
    done = subprocess.run(without, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_numbers_of_numpy_are_stored_as_plain_ones():
    from shoal.network import TopK

    given = Recipe(TopK(np.int64(3)), Adam(Constant(np.float32(0.5))), np.int32(5), np.uint8(64))
    described = json.loads(json.dumps(describe(given)))
    assert restore(described) == given
    assert described["n_steps"] == 5
    assert described["rule"]["schedule"]["value"] == 0.5

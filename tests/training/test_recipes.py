import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.network import HardThreshold, ReLU, TopK
from shoal.training import (
    MODELS,
    RECIPES,
    Constant,
    Halving,
    NormalizedStep,
    Polish,
    Recipe,
    nguyen2019,
    recipe_named,
)
from shoal.training.recipes import describe, restore
from shoal.vocabulary import ArgumentError


def test_the_names():
    assert MODELS == ("sparse", "nonnegative", "mixture")
    assert list(RECIPES) == [
        "default",
        "nguyen2019-sparse-threshold",
        "nguyen2019-nonnegative-threshold",
        "nguyen2019-nonnegative-relu",
        "nguyen2019-mixture-threshold",
        "nguyen2019-mixture-relu",
    ]


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("model", MODELS)
def test_a_recipe_is_for_its_model(name, model):
    if name == "default" or model in name:
        assert isinstance(recipe_named(name, model, 20, 2, 1000), Recipe)
    else:
        with pytest.raises(ArgumentError, match=r"^model: .*which this recipe is about"):
            recipe_named(name, model, 20, 2, 1000)


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("model", MODELS)
def test_a_recipe_written_down_and_read_again(name, model):
    if name == "default" or model in name:
        for n_samples in (1000, None):
            recipe = recipe_named(name, model, 20, 2, n_samples)
            assert restore(json.loads(json.dumps(describe(recipe)))) == recipe


def test_unknown_words_are_named():
    with pytest.raises(ArgumentError, match=r"^recipe: found 'nguyen2019-sparse-relu'") as error:
        recipe_named("nguyen2019-sparse-relu", "sparse", 20, 2, 1000)
    assert "'default'" in str(error.value)
    for name in RECIPES:
        with pytest.raises(ArgumentError, match=r"^model: found 'spares'"):
            recipe_named(name, "spares", 20, 2, 1000)
    with pytest.raises(ArgumentError, match=r"^model: "):
        nguyen2019("spares", "threshold")
    with pytest.raises(ArgumentError, match=r"^activation: found 'tanh'"):
        nguyen2019("mixture", "tanh")
    with pytest.raises(ArgumentError, match=r"^a1: "):
        nguyen2019("mixture", "relu", a1=0.0)
    with pytest.raises(ArgumentError, match=r"^floor: "):
        nguyen2019("mixture", "relu", floor=0.1)


def test_relu_is_not_for_signed_codes():
    with pytest.raises(ArgumentError, match=r"^activation: .*no ReLU for signed codes"):
        nguyen2019("sparse", "relu")


def test_the_theorems_recipes():
    found = nguyen2019("sparse", "threshold", a1=3.0, step=0.7, n_steps=9)
    assert found == Recipe(HardThreshold(1.5), NormalizedStep(Constant(0.7)), 9)
    assert found.batch_size is found.bias is found.revival is found.polish is None
    for model in ("nonnegative", "mixture"):
        assert nguyen2019(model, "threshold").activation == HardThreshold(0.5, signed=False)
        found = nguyen2019(model, "relu", a1=3.0, floor=-0.6)
        assert found.activation == ReLU()
        assert found.bias == Halving(-1.5, floor=-0.6)
        begun = nguyen2019(model, "relu", initial_bias=-4.0)
        assert begun.bias == Halving(-4.0)


@given(
    m=st.integers(1, 5000), share=st.floats(0, 1), n_samples=st.integers(1, 10**7), data=st.data()
)
def test_the_default_is_bounded_by_the_data(m, share, n_samples, data):
    k = max(1, round(share * m))
    model = data.draw(st.sampled_from(MODELS))
    found = recipe_named("default", model, m, k, n_samples)
    assert 1 <= found.batch_size <= min(4096, n_samples)
    if n_samples >= 4096:
        assert found.batch_size >= min(4096, max(32, 8 * m / k - 1))  # rounded
        assert found.batch_size.bit_count() == 1
    assert 400 <= found.n_steps <= 6000
    assert found.n_steps <= max(400, 6 * n_samples / found.batch_size)
    assert found.step_size.schedule(0) == 0.5
    assert found.step_size.schedule(found.n_steps) == pytest.approx(0.03)
    assert found.activation == TopK(k, signed=model == "sparse")
    assert found.polish == Polish(k, signed=model == "sparse")
    assert found.revival is not None
    assert found.bias is None


def test_the_default_on_a_stream_decays_early_and_has_an_end():
    found = recipe_named("default", "sparse", 128, 3, None)
    assert found.batch_size == 512
    assert found.step_size.schedule.n_steps == 400
    assert found.n_steps == 6000


@pytest.mark.parametrize(
    ("changes", "name"), [({"n_steps": 0}, "n_steps"), ({"batch_size": 0}, "batch_size")]
)
def test_a_recipe_names_what_is_wrong(changes, name):
    good = {"activation": ReLU(), "step_size": NormalizedStep(Constant(1.0)), "n_steps": 5}
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        Recipe(**(good | changes))

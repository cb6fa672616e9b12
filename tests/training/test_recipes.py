import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.network import HardThreshold, ReLU, TopK
from shoal.network.inference import SubspacePursuit
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
        "bias-adaptation",
        "nguyen2019-sparse-threshold",
        "nguyen2019-nonnegative-threshold",
        "nguyen2019-nonnegative-relu",
        "nguyen2019-mixture-threshold",
        "nguyen2019-mixture-relu",
    ]


def recipe_is_for(name, model):
    if name == "bias-adaptation":
        return model != "sparse"
    return name == "default" or model in name


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("model", MODELS)
def test_a_recipe_is_for_its_model(name, model):
    if recipe_is_for(name, model):
        assert isinstance(recipe_named(name, model, 20, 2, 1000), Recipe)
    else:
        with pytest.raises(
            ArgumentError, match=r"^model: .*(which this recipe is about|twice the units)"
        ):
            recipe_named(name, model, 20, 2, 1000)


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("model", MODELS)
def test_a_recipe_written_down_and_read_again(name, model):
    if recipe_is_for(name, model):
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
        assert max(256, 4 * m / k) <= found.batch_size or found.batch_size == 4096
        assert found.batch_size <= max(256, 8 * m / k)
        assert found.batch_size.bit_count() == 1
    assert found.activation == TopK(k, signed=model == "sparse")
    assert found.polish == Polish(SubspacePursuit(k, signed=model == "sparse"))
    assert found.refinement.pursuit == replace(found.polish.pursuit, max_iterations=1)
    assert found.refinement.step_size.schedule(0) == 0.5
    assert found.revival is not None
    assert found.bias is None


def test_the_default_is_the_same_for_a_stream():
    stream = recipe_named("default", "sparse", 128, 3, None)
    assert stream == recipe_named("default", "sparse", 128, 3, 20_000)
    assert stream.batch_size == 256


@pytest.mark.parametrize(
    ("changes", "name"), [({"n_steps": 0}, "n_steps"), ({"batch_size": 0}, "batch_size")]
)
def test_a_recipe_names_what_is_wrong(changes, name):
    good = {"activation": ReLU(), "step_size": NormalizedStep(Constant(1.0)), "n_steps": 5}
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        Recipe(**(good | changes))

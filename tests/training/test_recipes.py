import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from made import steps_of
from shoal.data import open_source
from shoal.generative import (
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    perturb,
    random_dictionary,
)
from shoal.network import HardThreshold, ReLU, TopK
from shoal.network.inference import SubspacePursuit
from shoal.parts import describe, restore
from shoal.training import (
    MODELS,
    RECIPES,
    Constant,
    FixedStep,
    Halving,
    NormalizedStep,
    Polish,
    Recipe,
    certified_step,
    mean_curvature,
    nguyen2019,
    recipe_named,
)
from shoal.vocabulary import ArgumentError, Parameters


def test_the_names():
    assert MODELS == ("sparse", "nonnegative", "mixture")
    assert list(RECIPES) == [
        "default",
        "incoherent",
        "bias-adaptation",
        "topk",
        "batchtopk",
        "jumprelu",
        "matryoshka",
        "nguyen2019-sparse-threshold",
        "nguyen2019-nonnegative-threshold",
        "nguyen2019-nonnegative-threshold-stable",
        "nguyen2019-nonnegative-relu",
        "nguyen2019-nonnegative-relu-stable",
        "nguyen2019-mixture-threshold",
        "nguyen2019-mixture-relu",
        "nguyen2019-mixture-relu-stable",
    ]


def recipe_is_for(name, model):
    if name == "bias-adaptation":
        return model != "sparse"
    if name in ("batchtopk", "jumprelu", "matryoshka"):
        return model == "nonnegative"
    return name in ("default", "incoherent", "topk") or model in name


unstable = pytest.mark.filterwarnings("ignore:.*leave.* the basin")


@unstable
@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("model", MODELS)
def test_a_recipe_is_for_its_model(name, model):
    if recipe_is_for(name, model):
        assert isinstance(recipe_named(name, model, 20, 2, 1000), Recipe)
    else:
        with pytest.raises(
            ArgumentError,
            match=r"^model: .*(which this recipe is about|twice the units|as its codes are)",
        ):
            recipe_named(name, model, 20, 2, 1000)


@unstable
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


@unstable
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


UNSTABLE = {
    "nguyen2019-nonnegative-threshold": r"step \* L = 3 is not below 2",
    "nguyen2019-nonnegative-relu": r"within \S* of 0",
    "nguyen2019-mixture-relu": r"within \S* of 0",
}


@pytest.mark.parametrize("name", [name for name in RECIPES if "nguyen" in name])
def test_recipes_that_leave_the_basin_say_so_and_the_stable_ones_need_not(name):
    model = name.split("-")[1]
    k = 1 if model == "mixture" else 3
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        recipe_named(name, model, 20, k, 1000)
    texts = [str(each.message) for each in noted]
    if name in UNSTABLE:
        assert any(re.search(UNSTABLE[name], text) for text in texts)
        assert all("-stable" in text for text in texts)
    else:
        assert texts == []


def test_a_bias_that_stops_in_time_needs_no_floor():
    # -1/2, -1/4: the last is far from 0.
    nguyen2019("mixture", "relu", n_steps=2)
    with pytest.warns(UserWarning, match="floor=-0.4"):
        nguyen2019("mixture", "relu", n_steps=4, a1=2.0)


def world_of(k=3, m=12, n=8, **law):
    return NonnegativeSparseCoding(random_dictionary(m, n, random_state=0), k, **law)


def test_a_step_is_too_large_for_the_worlds_own_curvature():
    world = world_of(k=3, low=1.0, high=2.0)  # kappa1 = 3/2, kappa2 = 7/3
    assert mean_curvature(world) == pytest.approx(1 + 2 * (9 / 4) / (7 / 3))
    nguyen2019("nonnegative", "threshold", world=world, step=0.68)  # 2 / L = .683
    with pytest.warns(UserWarning, match="L = 2.93"):
        nguyen2019("nonnegative", "threshold", world=world, step=0.69)
    nguyen2019("nonnegative", "threshold", world=world, step=0.69, damping=True)


def test_the_certified_step_is_the_worlds():
    world = world_of(k=3, low=1.0, high=2.0)
    assert certified_step(world) == pytest.approx(12 / 3 / (7 / 3))
    start = perturb(world.dictionary, 0.5, random_state=0)
    cosine = 1 - 0.5**2 / 2
    assert certified_step(world, start) == pytest.approx(12 / 3 / (7 / 3) / cosine)
    recipe = nguyen2019("nonnegative", "threshold", world=world, start=start, step=0.5)
    assert recipe.rule == FixedStep(Constant(0.5 * certified_step(world, start)))
    assert recipe.activation == HardThreshold(0.5, signed=False)
    doubled = nguyen2019("nonnegative", "threshold", world=world_of(low=2.0, high=4.0), step=0.5)
    assert doubled.activation == HardThreshold(1.0, signed=False)
    rare = MixtureOfGaussians(world.dictionary, weights=[0.01, *[0.09] * 11])
    assert certified_step(rare) == pytest.approx(100)
    with pytest.raises(ArgumentError, match=r"^start: found <W_i, A_i> = -"):
        certified_step(world, -start)
    with pytest.raises(ArgumentError, match=r"^start: found shape"):
        certified_step(world, start[:3])


def test_nearness_holds_the_descent():
    world = world_of(k=2, m=16, n=16, low=1.0, high=2.0)
    data = world.sample(500, random_state=1).data
    start = torch.from_numpy(perturb(world.dictionary, 0.4, random_state=2))
    begin = Parameters(start, torch.zeros(16, dtype=start.dtype))

    def farthest(nearness):
        recipe = nguyen2019("nonnegative", "threshold", damping=True, n_steps=5, nearness=nearness)
        steps = steps_of(begin, open_source(data), recipe, np.random.default_rng(0))
        return max(float((step.parameters.dictionary - start).norm(dim=1).max()) for step in steps)

    assert farthest(None) > 0.2
    assert 0.04 < farthest(0.05) <= 0.05 + 0.05**3


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
        assert found.batch_size <= max(256, 8 * m / k, m)
        assert found.batch_size > m / 2 or found.batch_size == 4096
        assert found.batch_size.bit_count() == 1
    assert found.activation == TopK(k, signed=model == "sparse")
    assert found.polish == Polish(SubspacePursuit(k, signed=model == "sparse"))
    assert found.refinement.pursuit == replace(found.polish.pursuit, max_iterations=1)
    assert found.refinement.rule.schedule(0) == 0.5
    assert found.revival is not None
    assert found.bias is None


def test_the_default_is_the_same_for_a_stream():
    stream = recipe_named("default", "sparse", 128, 3, None)
    known = recipe_named("default", "sparse", 128, 3, 20_000)
    assert replace(stream, finish=None) == replace(known, finish=None)
    assert stream.batch_size == 256


@pytest.mark.parametrize(
    ("changes", "name"), [({"n_steps": 0}, "n_steps"), ({"batch_size": 0}, "batch_size")]
)
def test_a_recipe_names_what_is_wrong(changes, name):
    good = {"activation": ReLU(), "rule": NormalizedStep(Constant(1.0)), "n_steps": 5}
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        Recipe(**(good | changes))

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import shoal
from made import steps_of
from shoal.data import open_source
from shoal.generative import NonnegativeSparseCoding, random_dictionary
from shoal.network import ReLU, TopK, encode
from shoal.network.inference import SubspacePursuit
from shoal.parts import describe, restore
from shoal.training import (
    BiasAdaptation,
    Constant,
    NormalizedStep,
    Recipe,
    Revival,
    begin,
    descend,
    recipe_named,
)
from shoal.training.adaptation import Adapted
from shoal.training.refinement import Refinement
from shoal.vocabulary import ArgumentError, Parameters


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def planted(n_samples=4000, m=20, n=16, k=2):
    world = NonnegativeSparseCoding(random_dictionary(m, n, random_state=0), k, low=1.0, high=2.0)
    return world.sample(n_samples, random_state=1).data, world.dictionary


def beginning(rows):
    dictionary = torch.from_numpy(np.array(rows))
    return Parameters(dictionary, torch.zeros(len(dictionary), dtype=dictionary.dtype))


def plan(bias, n_steps=200, c=1e-9, **changes):
    return Recipe(ReLU(), NormalizedStep(Constant(c)), n_steps, 256, bias=bias, **changes)


def run(parameters, data, recipe, **named):
    return list(steps_of(parameters, open_source(data), recipe, np.random.default_rng(0), **named))


def frequencies(parameters, data):
    return (encode(parameters, torch.from_numpy(data), ReLU()) != 0).double().mean(dim=0)


# --- one adaptation --------------------------------------------------------------------------


def test_by_hand():
    settings = BiasAdaptation((0.2,), rate=0.1)
    # Of 10 samples: above the target, on it, below, and twice silent.
    bias, counts = numbers(-1, -1, -1, -1, -0.1), numbers(4, 2, 1, 0, 0)
    energy = numbers(36, 8, 1, 0, 0)  # roots of mean squares 3, 2, 1: their mean is 2
    before = bias.clone()
    found = settings.adapt(bias, counts, energy, 10)
    torch.testing.assert_close(found, numbers(-1.3, -1, -1, -0.8, 0))
    assert torch.equal(bias, before)


def test_below_a_share_of_its_target_the_bias_is_raised():
    counts, energy = numbers(10, 8, 5, 4), numbers(10, 8, 5, 4)  # of 100; each code is 1
    settings = BiasAdaptation((0.1,), rate=0.25, silent=0.5)
    found = settings.adapt(numbers(-2, -2, -2, -2), counts, energy, 100)
    assert found.tolist() == [-2, -2, -1.75, -1.75]


def test_each_group_has_its_target_and_its_mean():
    settings = BiasAdaptation((0.5, 0.1), rate=0.5)
    counts, energy = numbers(4, 6, 0, 4, 0, 1), numbers(4, 24, 0, 64, 0, 16)
    found = settings.adapt(numbers(*[-3.0] * 6), counts, energy, 10)
    # Codes of 1 and 2 in the first group, of 4 and 4 in the second.
    torch.testing.assert_close(found, numbers(-3, -4, -2.25, -5, -1, -3))
    # Without a code in its group, a unit takes the mean of all.
    counts, energy = numbers(4, 4, 4, 0, 0, 0), numbers(4, 4, 4, 0, 0, 0)
    found = settings.adapt(numbers(*[-3.0] * 6), counts, energy, 10)
    assert found.tolist() == [-3, -3, -3, -2.5, -2.5, -2.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_nothing_fires_there_is_no_scale(dtype):
    zeros = torch.zeros(3, dtype=dtype)
    found = BiasAdaptation((0.1,)).adapt(zeros - 1, zeros, zeros, 10)
    assert found.tolist() == [-1, -1, -1]
    assert found.dtype == dtype


def test_one_step_cannot_silence_a_unit_at_any_scale_of_the_data():
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-3, 1.0, 1e3):
        codes = scale * torch.rand((50, 4), generator=generator, dtype=torch.float64)
        bias = BiasAdaptation((0.01,), rate=0.99).adapt(
            torch.zeros(4, dtype=torch.float64), numbers(50, 50, 50, 50), codes.square().sum(0), 50
        )
        assert ((codes + bias) > 0).any(dim=0).all()


@pytest.mark.parametrize(("m", "shares"), [(6, [2, 2, 2]), (7, [3, 2, 2]), (3, [1, 1, 1])])
def test_groups_are_contiguous_and_even(m, shares):
    found = BiasAdaptation((0.5, 0.2, 0.1)).groups(m)
    assert found.bincount().tolist() == shares
    assert (found.diff() >= 0).all()


# --- in the descent --------------------------------------------------------------------------


def test_counts_are_taken_over_the_last_steps():
    settings, bias = BiasAdaptation((0.5,), every=3, rate=0.1), numbers(0.0)
    adapted, found = Adapted.none(bias), []
    for count in (10, 10, 0, 0, 0, 10):
        bias, adapted = settings.add(adapted, bias, numbers(count), numbers(4.0 * count), 10)
        found.append(bias.item())
    # First 20 of 30, with codes of 2; then 10 of 30.
    assert found == pytest.approx([0, 0, -0.2, -0.2, -0.2, -0.2])


@pytest.mark.parametrize("targets", [(0.3,), (0.4, 0.05)])
def test_frequencies_approach_their_targets(targets):
    data, truth = planted()
    settings = BiasAdaptation(targets, every=2, rate=0.05, silent=0.9)
    last = run(beginning(truth), data, plan(settings))[-1].parameters
    found = frequencies(last, data)
    wanted = numbers(*targets)[settings.groups(20)]
    assert float((found / wanted - 1).abs().max()) < 0.3
    assert float((found / wanted - 1).abs().mean()) < 0.12
    assert (frequencies(beginning(truth), data) > 0.45).any()


def test_a_silent_unit_wakes():
    data, truth = planted()
    asleep = beginning(truth)
    asleep.bias[3] = -8.0
    assert frequencies(asleep, data)[3] == 0
    settings = BiasAdaptation((0.1,), every=1, rate=0.1, silent=0.5)
    adapted = run(asleep, data, plan(settings))[-1].parameters
    assert frequencies(adapted, data)[3] > 0.02


def test_a_revival_and_an_adaptation_count_apart():
    data, truth = planted()
    settings = BiasAdaptation((0.1,), every=7, rate=0.05)
    without = run(beginning(truth), data, plan(settings, 60, c=0.05))
    revived = run(beginning(truth), data, plan(settings, 60, c=0.05, revival=Revival(every=5)))
    moves = [
        [
            not torch.equal(one.parameters.bias, other.parameters.bias)
            for one, other in pairwise(steps)
        ]
        for steps in (without, revived)
    ]
    assert moves[0] == moves[1] == [(index + 2) % 7 == 0 for index in range(59)]


def test_a_descent_in_pieces_carries_the_counts():
    data, truth = planted()
    settings = plan(BiasAdaptation((0.1,), every=10, rate=0.1), 64)
    descent, source = settings.plan(), open_source(data[:1024])
    state = begin(beginning(truth), descent, np.random.default_rng(0))
    for _ in range(4):  # 4 steps each
        *_, (state, _) = descend(state, source, descent, passes=1)
        counts = {"activity": state.activity, "adapted": state.adapted}
        rng = np.random.default_rng(0)
        state = begin(state.parameters, descent, rng, number=state.number, **counts)
    assert state.number == 16
    assert (state.parameters.bias < 0).all()


def test_a_refinement_leaves_the_bias():
    data, truth = planted()
    more = Refinement(SubspacePursuit(2, signed=False), NormalizedStep(Constant(0.1)), 20)
    settings = BiasAdaptation((0.1,), every=1, rate=0.1)
    steps = run(beginning(truth), data, plan(settings, 10, refinement=more))
    assert len(steps) > 10
    assert torch.equal(steps[9].parameters.bias, steps[-1].parameters.bias)
    assert (steps[-1].parameters.bias < 0).all()


def test_the_recipe_recovers_from_data_what_it_should():
    data, truth = planted(8000, 32, 24)
    model = shoal.DictionaryAutoencoder(
        32, 2, model="nonnegative", recipe="bias-adaptation", random_state=0
    ).fit(data)
    assert shoal.recovery(model.components_, truth, signs="fixed").recovered(0.95) > 0.9
    assert (model.bias_ < 0).all()
    assert {record["phase"] for record in model.history_} == {"descent"}


# --- what is refused, and files --------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"targets": ()}, "targets"),
        ({"targets": 0.1}, "targets"),
        ({"targets": (0.1, 0.0)}, "targets"),
        ({"targets": (1.1,)}, "targets"),
        ({"targets": (math.nan,)}, "targets"),
        ({"every": 0}, "every"),
        ({"rate": 0.0}, "rate"),
        ({"rate": 1.5}, "rate"),
        ({"silent": -0.1}, "silent"),
        ({"silent": 2.0}, "silent"),
    ],
)
def test_what_is_wrong_is_named(arguments, name):
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        BiasAdaptation(**({"targets": (0.1,)} | arguments))


def test_more_groups_than_units():
    with pytest.raises(ArgumentError, match=r"^targets: found 3 groups of 2 units"):
        BiasAdaptation((0.5, 0.2, 0.1)).groups(2)


def test_written_down_and_read_again():
    settings = BiasAdaptation((0.5, 0.05), every=3, rate=0.1, silent=0.5)
    recipe = Recipe(TopK(2), NormalizedStep(Constant(0.1)), 5, bias=settings)
    again = restore(json.loads(json.dumps(describe(recipe))))
    assert again == recipe
    assert hash(again) == hash(recipe)
    assert BiasAdaptation([0.5, 0.05], 3, 0.1, 0.5) == settings


def test_signed_codes_are_refused_by_the_recipe():
    with pytest.raises(ArgumentError, match=r"^model: .*twice the units"):
        recipe_named("bias-adaptation", "sparse", 20, 2, 1000)
    for model in ("nonnegative", "mixture"):
        found = recipe_named("bias-adaptation", model, 4, 2, 1000)
        assert found.bias.targets == (0.5,)
        assert found.revival is found.refinement is found.polish is None

import math
from itertools import pairwise

import pytest
import torch

from shoal.training import Constant, ExponentialDecay, FixedStep, Halving, NormalizedStep
from shoal.vocabulary import ArgumentError


def test_a_constant_is_constant():
    assert [Constant(0.3)(step) for step in (0, 1, 10**6)] == [0.3] * 3


def test_decay_goes_from_initial_to_final_by_a_constant_factor():
    decay = ExponentialDecay(0.5, 0.03, 40)
    values = [decay(step) for step in range(60)]
    assert values[0] == 0.5
    assert values[40:] == [pytest.approx(0.03)] * 20
    ratios = [after / before for before, after in pairwise(values[:41])]
    assert ratios == [pytest.approx((0.03 / 0.5) ** (1 / 40))] * 40


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0, 1, 5), "initial"),
        ((1, 0, 5), "final"),
        ((math.inf, 1, 5), "initial"),
        ((1, 1, 0), "n_"),
    ],
)
def test_decay_names_what_is_wrong(arguments, name):
    with pytest.raises(ArgumentError, match=f"^{name}"):
        ExponentialDecay(*arguments)


def test_halving():
    assert [Halving(-1.0)(step) for step in range(4)] == [-1.0, -0.5, -0.25, -0.125]
    assert [Halving(-1.0, every=2)(step) for step in range(5)] == [-1.0, -1.0, -0.5, -0.5, -0.25]
    assert [Halving(-1.0, floor=-0.4)(step) for step in range(4)] == [-1.0, -0.5, -0.4, -0.4]
    assert [Halving(-1.0, floor=-1.0)(step) for step in range(2)] == [-1.0, -1.0]
    assert Halving(0.0)(3) == 0.0
    assert Halving(-1.0)(5000) == 0.0  # underflow, not an error


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"initial": 0.1}, "initial"),
        ({"initial": -1.0, "floor": 0.1}, "floor"),
        ({"initial": -1.0, "floor": -1.1}, "floor"),
        ({"initial": -1.0, "floor": math.nan}, "floor"),
        ({"initial": -1.0, "every": 0}, "every"),
    ],
)
def test_halving_names_what_is_wrong(arguments, name):
    with pytest.raises(ArgumentError, match=f"^{name}"):
        Halving(**arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rates(dtype):
    energy = torch.tensor([8.0, 2.0, 0.0], dtype=dtype)  # summed over 4 samples
    found = NormalizedStep(ExponentialDecay(1.0, 0.25, 2)).rates(1, energy, 4)
    assert found.tolist() == [0.25, 1.0, 0.0]  # c = 1/2 over means 2, 1/2, 0; a silent unit stays
    assert found.dtype == dtype
    fixed = FixedStep(Halving(-1.0)).rates(1, energy, 4)
    assert fixed.tolist() == [-0.5] * 3
    assert fixed.dtype == dtype

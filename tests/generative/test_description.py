"""Worlds written down and made again."""

import json

import numpy as np
import pytest

from shoal.generative import (
    BernoulliSupport,
    Constant,
    Custom,
    DiscreteSupport,
    Gaussian,
    GenerativeModel,
    Rademacher,
    Uniform,
    UniformSupport,
    laws_of,
    random_dictionary,
    world_of,
)
from shoal.vocabulary import ArgumentError

ATOMS = random_dictionary(5, 3, random_state=0)
SUPPORTS = [
    UniformSupport(2),
    BernoulliSupport(0.25),
    BernoulliSupport([0.1, 0.2, 0.3, 0.4, 0.0]),
    DiscreteSupport([(0, 1), (2,), ()], [0.5, 0.25, 0.25]),
    DiscreteSupport([(0, 1), (4,)]),
]
VALUES = [Uniform(1.0, 2.0, signed=True), Rademacher(), Constant(-2.0), Gaussian(0.5, True, False)]


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("values", VALUES)
def test_a_world_made_again_draws_the_same(support, values):
    world = GenerativeModel(ATOMS, support, values, noise=0.1)
    again = world_of(ATOMS, json.loads(json.dumps(laws_of(world))))
    assert again.noise == 0.1
    for one, other in zip(world.sample(50, 1), again.sample(50, 1), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(world.p_ij, again.p_ij)
    assert (again.kappa1, again.kappa2) == (world.kappa1, world.kappa2)


def test_a_law_of_ones_own_is_refused():
    own = Custom(lambda rng, size: np.ones(size), 1.0, 1.0, 1.0, 1.0)
    with pytest.raises(ArgumentError, match=r"^values: found Custom"):
        laws_of(GenerativeModel(ATOMS, UniformSupport(1), own))


@pytest.mark.parametrize(
    "change",
    [
        {"support": {"kind": "Other"}},
        {"support": {"kind": "UniformSupport", "k": 0}},
        {"support": {"kind": "UniformSupport", "size": 1}},
        {"values": None},
        {"values": {}},
    ],
)
def test_a_damaged_description_is_named(change):
    laws = laws_of(GenerativeModel(ATOMS, UniformSupport(1), Rademacher())) | change
    with pytest.raises(ArgumentError, match=r"^laws: "):
        world_of(ATOMS, laws)
    with pytest.raises(ArgumentError, match=r"^laws: "):
        world_of(ATOMS, {})
    with pytest.raises(ArgumentError, match=r"^k: "):
        world_of(
            ATOMS,
            laws
            | {
                "support": {"kind": "UniformSupport", "k": 9},
                "values": laws_of(GenerativeModel(ATOMS, UniformSupport(1), Rademacher()))[
                    "values"
                ],
            },
        )

"""Worlds by name: what is typed of a law becomes that law, or one line of what is wrong."""

import json
from itertools import combinations

import numpy as np
import pytest

from shoal.generative import (
    BernoulliSupport,
    Constant,
    DiscreteSupport,
    Gaussian,
    IndependentComponents,
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    Rademacher,
    SparseCoding,
    Uniform,
    UniformSupport,
    block_support,
    laws_of,
    named_world,
    random_dictionary,
    read_supports,
    read_weights,
    world_of,
)
from shoal.vocabulary import ArgumentError

ATOMS = random_dictionary(12, 8, random_state=0)


def test_without_laws_of_its_own_a_world_is_what_its_class_makes():
    for name, kind in (("sparse", SparseCoding), ("nonnegative", NonnegativeSparseCoding)):
        made, plain = named_world(name, ATOMS), kind(ATOMS, 3)
        assert type(made) is kind
        assert (made.support, made.values) == (plain.support, plain.values)
        assert (made.sample(20, 0).data == plain.sample(20, 0).data).all()
    made, plain = named_world("independent", ATOMS), IndependentComponents(ATOMS, sparsity=3)
    assert (made.sample(20, 0).data == plain.sample(20, 0).data).all()
    made, plain = named_world("mixture", ATOMS, noise=0.1), MixtureOfGaussians(ATOMS, noise=0.1)
    assert (made.sample(20, 0).data == plain.sample(20, 0).data).all()


@pytest.mark.parametrize(
    ("name", "options", "support", "values"),
    [
        ("sparse", {"power": 0.5}, UniformSupport(4), Uniform(1.0, 2.0, True)),
        ("sparse", {"power": 0.5, "rounding": "floor"}, UniformSupport(3), Uniform(1, 2, True)),
        ("sparse", {"values": "rademacher"}, UniformSupport(3), Rademacher()),
        ("sparse", {"values": "gaussian", "low": 0.5}, UniformSupport(3), Gaussian(0.5)),
        ("sparse", {"values": "constant", "low": 2.0}, UniformSupport(3), Uniform(2, 2, True)),
        ("nonnegative", {"values": "constant"}, UniformSupport(3), Constant(1.0)),
        (
            "nonnegative",
            {"values": "gaussian"},
            UniformSupport(3),
            Gaussian(1.0, signed=False),
        ),
        (
            "nonnegative",
            {"supports": "0,1;2", "weights": "3,1", "high": 1.5},
            DiscreteSupport([(0, 1), (2,)], [0.75, 0.25]),
            Uniform(1.0, 1.5),
        ),
        (
            "nonnegative",
            {"supports": [[0, 1], [2]]},
            DiscreteSupport([(0, 1), (2,)]),
            Uniform(1.0, 2.0),
        ),
        (
            "sparse",
            {"blocks": 4, "weights": "1 1 2"},
            DiscreteSupport([(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)], [0.25, 0.25, 0.5]),
            Uniform(1.0, 2.0, True),
        ),
    ],
)
def test_a_law_that_is_named_is_that_law(name, options, support, values):
    world = named_world(name, ATOMS, **options)
    assert world.support == support
    assert world.values == values
    again = world_of(ATOMS, json.loads(json.dumps(laws_of(world))))
    assert (again.support, again.values) == (support, values)


def test_weights_of_a_mixture_and_of_independent_units():
    weights = list(range(1, 13))
    mixture = named_world("mixture", ATOMS, weights=weights)
    np.testing.assert_allclose(mixture.p, np.array(weights) / 78)
    world = named_world("independent", ATOMS, sparsity=4, weights=weights)
    assert isinstance(world.support, BernoulliSupport)
    assert world.expected_k == pytest.approx(4)
    np.testing.assert_allclose(world.p, np.array(weights) * 4 / 78)
    again = world_of(ATOMS, json.loads(json.dumps(laws_of(world))))
    np.testing.assert_allclose(again.p, world.p)


def test_several_blocks_at_a_time():
    law = block_support(8, 2, 4, [1, 1, 1, 3])
    assert len(law.supports) == len(list(combinations(range(4), 2)))
    chances = dict(zip(law.supports, law.probabilities, strict=True))
    assert chances[0, 1, 6, 7] == pytest.approx(3 * chances[0, 1, 2, 3])
    assert sum(chances.values()) == pytest.approx(1)


def test_supports_and_weights_from_files(tmp_path):
    text, listed, weights = tmp_path / "s.txt", tmp_path / "s.json", tmp_path / "w.txt"
    text.write_text("# triples\n0 1 2\n\n3, 4   # a pair\n5\n")
    listed.write_text("[[0, 1, 2], [3, 4], [5]]")
    weights.write_text("3\n1\n4 # the single one\n")
    expected = [[0, 1, 2], [3, 4], [5]]
    for given in (str(text), text, str(listed), "0,1,2; 3 4 ;5", expected):
        assert read_supports(given) == expected
    assert read_weights(str(weights)) == read_weights("3, 1 4") == [3.0, 1.0, 4.0]
    (tmp_path / "w.json").write_text("[3, 1, 4]")
    assert read_weights(tmp_path / "w.json") == [3.0, 1.0, 4.0]


@pytest.mark.parametrize(
    ("name", "options", "argument"),
    [
        ("spars", {}, "world"),
        ("sparse", {"sparsity": 2, "power": 0.5}, "power"),
        ("sparse", {"sparsity": 2, "supports": "0,1"}, "supports"),
        ("sparse", {"power": 0.5, "supports": "0,1"}, "supports"),
        ("sparse", {"blocks": 2, "supports": "0,1"}, "supports"),
        ("sparse", {"blocks": 2, "power": 0.1}, "power"),
        ("sparse", {"rounding": "floor"}, "rounding"),
        ("sparse", {"rounding": "down", "power": 0.1}, "rounding"),
        ("sparse", {"power": 1.5}, "power"),
        ("sparse", {"sparsity": 13}, "sparsity"),
        ("sparse", {"blocks": 5}, "blocks"),
        ("sparse", {"blocks": 0}, "blocks"),
        ("sparse", {"blocks": 4, "sparsity": 6}, "sparsity"),
        ("sparse", {"blocks": 1, "sparsity": 6, "weights": "1" + " 0" * 11}, "weights"),
        ("sparse", {"weights": "1,2"}, "weights"),
        ("sparse", {"supports": "0,1;2", "weights": "1,2,3"}, "weights"),
        ("sparse", {"supports": "0,1;2", "weights": "1,-2"}, "weights"),
        ("sparse", {"supports": "0,1;2", "weights": "0,0"}, "weights"),
        ("sparse", {"supports": "0,1;2", "weights": "1,nan.txt"}, "weights"),
        ("sparse", {"supports": "0,0"}, "supports"),
        ("sparse", {"supports": "0,12"}, "supports"),
        ("sparse", {"supports": "0,1.5"}, "supports"),
        ("sparse", {"supports": "-1"}, "supports"),
        ("sparse", {"supports": ";"}, "supports"),
        ("sparse", {"supports": "nowhere.txt"}, "supports"),
        ("sparse", {"values": "normal"}, "values"),
        ("sparse", {"values": "rademacher", "low": 1.0}, "low"),
        ("sparse", {"values": "constant", "high": 1.0}, "high"),
        ("sparse", {"values": "constant", "low": 0.0}, "low"),
        ("sparse", {"low": 3.0}, "low"),
        ("nonnegative", {"values": "rademacher"}, "values"),
        ("mixture", {"values": "constant"}, "values"),
        ("mixture", {"sparsity": 2}, "sparsity"),
        ("mixture", {"blocks": 2}, "blocks"),
        ("mixture", {"power": 0.5}, "power"),
        ("mixture", {"high": 3.0}, "high"),
        ("mixture", {"weights": "1,2"}, "weights"),
        ("independent", {"supports": "0,1"}, "supports"),
        ("independent", {"weights": "1,2"}, "weights"),
        ("independent", {"weights": "100" + " 1" * 11}, "sparsity"),
    ],
)
def test_what_cannot_be_is_named(name, options, argument):
    with pytest.raises(ArgumentError) as caught:
        named_world(name, ATOMS, **options)
    assert caught.value.argument == argument
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "[[1.5]]", "[]", "{", '{"a": 1}'])
def test_a_file_of_no_supports_is_named(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ArgumentError, match="supports"):
        read_supports(tmp_path / "s.json")


def test_too_many_sets_of_blocks_are_refused_before_they_are_listed():
    with pytest.raises(ArgumentError, match="sets of 20 blocks"):
        block_support(400, 2, 40)

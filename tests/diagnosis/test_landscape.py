"""The loss around a dictionary: what every line is, and that it is the loss of the network."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from shoal.diagnosis import landscape
from shoal.generative import NonnegativeSparseCoding, SparseCoding, orthonormal_union
from shoal.network import HardThreshold, ReLU, Sigmoid, TopK, loss, loss_and_gradient
from shoal.vocabulary import ArgumentError, Parameters

torch.set_num_threads(1)

WORLD = NonnegativeSparseCoding(orthonormal_union(16, 8), 2, low=1.0, high=1.5)
DATA = WORLD.sample(300, 0).data


def loss_by_hand(rows, bias, activation):
    parameters = Parameters(torch.from_numpy(rows), torch.from_numpy(bias))
    return float(loss(parameters, torch.from_numpy(DATA), activation))


@pytest.mark.parametrize(
    "activation", [ReLU(), HardThreshold(0.4), TopK(2), Sigmoid()], ids=lambda a: type(a).__name__
)
def test_a_line_of_ones_own_is_the_loss_along_it(activation):
    direction = np.random.default_rng(0).standard_normal((16, 8))
    bias = np.linspace(-0.3, 0.1, 16)
    found = landscape(
        WORLD.dictionary, DATA, activation, bias, directions={"own": direction}, t=[0.0, 0.3, -1.0]
    )
    (line,) = found.lines
    assert (line.name, line.t.tolist(), found.plane) == ("own", [0.0, 0.3, -1.0], None)
    for t, value, slope in zip(line.t, line.loss, line.gradient, strict=True):
        rows = WORLD.dictionary + t * direction
        assert value == pytest.approx(loss_by_hand(rows, bias, activation), rel=1e-12)
        parameters = Parameters(torch.from_numpy(rows), torch.from_numpy(bias))
        gradient = loss_and_gradient(parameters, torch.from_numpy(DATA), activation)[1].dictionary
        assert slope == pytest.approx(float(gradient.norm(dim=1).mean()), rel=1e-12)
    assert found.loss == line.loss[0]
    assert found.zero == pytest.approx(0.5 * (DATA**2).sum(axis=1).mean())


def test_the_truth_lies_in_a_well_and_so_does_the_swapped_one():
    found = landscape(WORLD.dictionary, DATA, TopK(2, signed=False), n_points=13)
    random, mean, swap = found.lines
    assert [line.name for line in found.lines] == ["random", "mean", "swap"]
    assert random.t[6] == mean.t[6] == 0
    for line in (random, mean):
        assert line.loss.argmin() == 6
        assert all(b > a for a, b in pairwise(line.loss[6:]))
    at = swap.loss[np.isclose(swap.t, 0) | np.isclose(swap.t, swap.swapped)]
    assert at[0] == pytest.approx(at[1], rel=1e-9)
    assert swap.swapped == pytest.approx(2**0.5, rel=0.2)
    assert swap.loss.max() > 3 * at[0]
    # Pairs, there and back; the k largest of equals go by their order.
    np.testing.assert_allclose(swap.loss, swap.loss[::-1], rtol=0.01)


def test_biases_change_places_with_their_atoms():
    bias = np.linspace(-0.4, 0.0, 16)
    found = landscape(WORLD.dictionary, DATA, ReLU(), bias, directions=["swap"], n_points=7)
    (swap,) = found.lines
    assert swap.loss[5] == pytest.approx(swap.loss[1], rel=1e-9)
    assert swap.t[5] == pytest.approx(swap.swapped)


def test_the_plane_holds_its_axes():
    found = landscape(WORLD.dictionary, DATA, ReLU(), -0.2, n_points=13, n_plane=13)
    plane = found.plane
    assert plane.names == ("random", "swap")
    assert plane.loss.shape == (13, 13)
    random, _, swap = found.lines
    np.testing.assert_allclose(plane.loss[6], swap.loss, rtol=1e-12)
    at_centre = np.flatnonzero(np.isclose(plane.t, 0))[0]
    np.testing.assert_allclose(plane.loss[:, at_centre], random.loss, rtol=1e-12)
    # Not the sum of the two: it is their plane.
    assert plane.loss[0, 0] != pytest.approx(random.loss[0] + swap.loss[0] - found.loss, rel=0.01)


def test_there_is_no_line_to_a_mean_of_0_nor_to_a_partner_of_a_lone_atom():
    signed = SparseCoding(orthonormal_union(16, 8), 2, low=1.0, high=2.0)
    found = landscape(signed.dictionary, signed.sample(500, 0).data, TopK(2), n_points=3)
    assert [line.name for line in found.lines] == ["random", "swap"]
    lone = landscape(np.eye(1, 8), DATA, ReLU(), n_points=3)
    assert [line.name for line in lone.lines] == ["random", "mean"]
    assert lone.plane is None


def test_silence_is_told():
    quiet = landscape(WORLD.dictionary, DATA, ReLU(), -9.0, directions=["random"], n_points=3)
    assert quiet.silent == 1.0
    assert quiet.loss == pytest.approx(quiet.zero)
    assert quiet.gradient == 0.0
    assert (quiet.bias, quiet.activation) == ("-9", "ReLU")
    assert landscape(WORLD.dictionary, DATA, ReLU(), n_points=3, plane=None).silent == 0.0


def test_the_same_seed_gives_the_same_bits_and_lines_do_not_depend_on_each_other():
    def ask(**options):
        return landscape(WORLD.dictionary, DATA, ReLU(), -0.2, n_points=5, n_plane=3, **options)

    assert ask().to_dict() == ask().to_dict() != ask(random_state=1).to_dict()
    (alone,) = ask(directions=["swap"]).lines
    assert (alone.loss == ask().lines[2].loss).all()
    kept = WORLD.dictionary.copy(), DATA.copy()
    ask()
    assert (kept[0] == WORLD.dictionary).all()
    assert (kept[1] == DATA).all()


def test_a_record_is_json_whatever_the_numbers_are():
    huge = {"far": np.full((16, 8), 1e30)}
    with np.errstate(all="ignore"):
        found = landscape(
            WORLD.dictionary.astype(np.float32),
            DATA.astype(np.float32),
            ReLU(),
            directions=huge,
            t=[0, 1],
        )
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["lines"][0]["loss"][1] is None
    assert record["lines"][0]["loss"][0] > 0


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"dictionary": np.eye(3)}, "dictionary"),
        ({"dictionary": [[np.nan] * 8]}, "dictionary"),
        ({"data": DATA[0]}, "data"),
        ({"data": np.full((3, 8), np.inf)}, "data"),
        ({"bias": [0.0, 1.0]}, "bias"),
        ({"bias": np.nan}, "bias"),
        ({"directions": ["sideways"]}, "directions"),
        ({"directions": {"own": np.eye(3)}}, "directions"),
        ({"plane": ["random"]}, "plane"),
        ({"n_points": 1}, "n_points"),
        ({"n_plane": 1}, "n_plane"),
        ({"t": [[0.0]]}, "t"),
        ({"t": [np.inf]}, "t"),
        ({"random_state": -1}, "random_state"),
    ],
)
def test_what_cannot_be_is_named(change, argument):
    usual = {"dictionary": WORLD.dictionary, "data": DATA, "activation": ReLU()}
    with pytest.raises(ArgumentError) as caught:
        landscape(**usual | change)
    assert caught.value.argument == argument

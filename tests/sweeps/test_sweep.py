"""A sweep: runs depend on their seed alone, and what is equal is run once."""

from multiprocessing import active_children

import numpy as np
import pytest
import torch

from shoal.sweeps import Point, canonical, grid, sweep
from shoal.sweeps import points as module
from shoal.training import MomentumSettings
from shoal.vocabulary import ArgumentError

SETTINGS = MomentumSettings(n_epochs=2, batch_size=20)
POINTS = [*grid(["dae", "cae"], ["relu"], [0.0, 0.5]), Point("sae", "sigmoid", 1.0)]


def rows():
    return np.random.default_rng(3).normal(size=(70, 6)).astype(np.float32)


def run(points, settings=SETTINGS, **options):
    return list(sweep(rows(), points, settings, 5, **options))


def bare(records):
    return {
        (each.point, each.seed): each._replace(seconds=0.0, parameters=None) for each in records
    }


@pytest.fixture
def counted(monkeypatch):
    """The points that were run."""
    ran, train = [], module._train

    def counting(fixed, point, seed):
        ran.append((point, seed))
        return train(fixed, point, seed)

    monkeypatch.setattr(module, "_train", counting)
    return ran


def test_two_processes_find_what_one_finds():
    one = run(POINTS, seed=(0, 1), keep_parameters=True)
    two = run(POINTS, seed=(0, 1), keep_parameters=True, n_jobs=2)
    assert len(one) == len(two) == 10
    assert bare(one) == bare(two)
    there = {(each.point, each.seed): each.parameters for each in two}
    for record in one:
        for a, b in zip(record.parameters[:2], there[record.point, record.seed][:2], strict=True):
            assert isinstance(b, torch.Tensor)
            assert torch.equal(a, b)
    assert run(POINTS[:1])[0].parameters is None


def test_a_run_depends_on_its_seed_alone():
    alone, among = run(POINTS[1:2], seed=1), run(POINTS, seed=(0, 1))
    assert bare(alone).items() <= bare(among).items()
    fractions = {each.loss for each in among if each.point == POINTS[1]}
    assert len(fractions) == 2


def test_a_record_says_what_training_says():
    (record,) = run([Point("cae", "sigmoid", 1.0)])
    last = record.epochs[-1]
    assert [each.number for each in record.epochs] == [1, 2]
    assert last.steps == 8
    assert (record.loss, record.activation_fraction) == (last.loss, last.activation_fraction)
    assert last.penalty > 0


def test_what_is_equal_is_run_once(counted):
    records = run(POINTS)
    assert {each.point for each in records} == set(POINTS)
    assert len(counted) == len(set(counted)) == 4
    shared = [each for each in records if each.point.strength == 0.0]
    assert len(shared) == 2
    assert shared[0]._replace(point=shared[1].point) == shared[1]


def test_contraction_and_marginalised_noise_share_tangent_steps_alone():
    point = Point("mdae", "sigmoid", 0.5)
    tangent = MomentumSettings(tangent=True)
    assert canonical(point, tangent) == Point("cae", "sigmoid", 0.5)
    assert canonical(point, MomentumSettings()) == point
    assert canonical(point, MomentumSettings(weight_length="free")) == point
    assert canonical(Point("none", "relu", 2.0), tangent).strength == 0.0
    # That it is one run: with tangent steps both come to the same, and without they do not.
    both = [Point("cae", "sigmoid", 50.0), Point("mdae", "sigmoid", 50.0)]
    fixed = module._Fixed(rows(), MomentumSettings(n_epochs=2, tangent=True), 5, True)
    a, b = (module._train(fixed, each, 0).parameters[0] for each in both)
    np.testing.assert_allclose(a, b, atol=1e-5)
    plain = fixed._replace(settings=MomentumSettings(n_epochs=2))
    a, b = (module._train(plain, each, 0).parameters[0] for each in both)
    assert np.abs(a - b).max() > 1e-4


def test_strength_zero_is_no_penalty_whichever_it_is():
    fixed = module._Fixed(rows(), SETTINGS, 5, True)
    none = module._train(fixed, Point("none", "relu", 0.0), 0).parameters
    for name in ("dae", "cae", "mdae", "sae", "edae", "taylor-dae", "cae+h", "l1"):
        found = module._train(fixed, Point(name, "relu", 0.0), 0).parameters
        for a, b in zip(found, none, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_what_is_done_is_neither_run_nor_yielded_again(counted):
    first = run(POINTS[:3])
    counted.clear()
    rest = run(POINTS, done=first)
    assert {each.point for each in rest} == set(POINTS[3:])
    assert len(counted) == 2
    counted.clear()
    (shared,) = run([Point("sae", "relu", 0.0)], done=first)
    assert shared.loss == first[0].loss
    assert counted == []
    assert run(POINTS, done=[*first, *rest], n_jobs=2) == []
    assert len(run(POINTS[:3], done=first, seed=1)) == 3


def test_an_interruption_passes_and_ends_its_processes():
    # What is left when it comes would take longer than a test may.
    records = sweep(rows(), POINTS, MomentumSettings(n_epochs=300), 5, seed=range(1000), n_jobs=2)
    next(records)
    assert len(active_children()) == 2
    with pytest.raises(KeyboardInterrupt):
        records.throw(KeyboardInterrupt)
    assert not active_children()


def test_a_run_that_diverges_says_so():
    settings = MomentumSettings(learning_rate=1e6, weight_length="free")
    with pytest.raises(ArgumentError, match=r"^learning_rate: found 1e\+06, with which epoch"):
        run([Point("none", "relu", 0.0), Point("cae", "relu", 1.0)], settings, n_jobs=2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("dee", "relu", 0.1), "^penalty: found 'dee'; needed one of 'none', 'dae'"),
        (("dae", "step", 0.1), "^activation: found 'step'; needed one of 'relu'"),
        (("dae", "relu", -0.1), "^strength: found -0.1"),
        (("dae", "relu", float("nan")), "^strength: found nan"),
        (("dae", "relu", 0.1, (("kink", 0.1),)), "^options: found 'kink' for dae; needed one of d"),
        (("sae", "relu", 0.1, (("rho", 2.0),)), "^rho: found 2"),
    ],
)
def test_points_that_are_refused(arguments, text):
    with pytest.raises(ArgumentError, match=text):
        Point(*arguments)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"n_jobs": 0}, "^n_jobs: found 0"), ({"seed": -1}, "^seed: found -1")],
)
def test_arguments_that_are_refused_before_anything_runs(options, text):
    with pytest.raises(ArgumentError, match=text):
        sweep(rows(), POINTS, SETTINGS, 5, **options)
    with pytest.raises(ArgumentError, match=r"^source: found a stream"):
        sweep(iter([rows()]), POINTS, SETTINGS, 5)

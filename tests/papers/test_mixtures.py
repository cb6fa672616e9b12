"""Figures 1 and 2 of Nguyen et al. 2019: their protocol, their verdicts, their pictures."""

import numpy as np
import pytest

from shoal import papers
from shoal.generative import MixtureOfGaussians, random_dictionary
from shoal.papers.nguyen2019 import figure1, figure2, mixtures
from shoal.vocabulary import ArgumentError

FIGURES = ("nguyen2019/figure1", "nguyen2019/figure2")
SMALL = {"n": 36, "m": 3, "n_samples": 200, "sigma": (0.02, 0.1), "n_steps": 6, "n_seeds": 2}


def performed(name, changes=()):
    return papers.reproduce(name, "smoke", **dict(changes))


@pytest.mark.parametrize("name", FIGURES)
def test_the_protocol_is_labelled_as_recalled(name):
    result = performed(name, SMALL)
    assert "recalled, not quoted" in result["source"]
    assert "recalled" in " ".join(result["notes"])


@pytest.mark.parametrize("name", FIGURES)
def test_other_sizes_run_and_the_same_seed_gives_the_same_numbers(name):
    first, second = performed(name, SMALL), performed(name, SMALL)
    assert first["numbers"] == second["numbers"]
    assert len(first["numbers"]["curves"]) == 2 * 3 * 2  # noises, starts, without and with
    assert performed(name, {**SMALL, "seed": 5})["numbers"] != first["numbers"]


@pytest.mark.parametrize(
    "changes", [{"n": 3, "m": 5, "n_samples": 9}, {"m": 1, "delta": 2.0}, {"n_steps": 1}]
)
def test_odd_sizes_run(changes):
    assert performed("nguyen2019/figure2", {**SMALL, **changes})["verdicts"]


def test_the_floor_is_the_error_of_means_with_known_labels():
    m, n, sigma, n_samples = 5, 40, 0.3, 2000
    truth = random_dictionary(m, n, random_state=0)
    squares = []
    for seed in range(20):
        sample = MixtureOfGaussians(truth, noise=sigma).sample(n_samples, seed)
        labels = np.asarray(sample.codes).argmax(axis=1)
        means = np.stack([sample.data[labels == each].mean(axis=0) for each in range(m)])
        squares.append(((means - truth) ** 2).sum())
    floor = mixtures.likelihood_floor(m, n, sigma, n_samples)
    # 20 x 200 squares of normal variables: a relative standard error of 2 %.
    assert np.mean(squares) == pytest.approx(floor**2, rel=0.08)


def test_the_protocol_is_the_recalled_one():
    settings = mixtures.Settings()
    free, clamped = (mixtures.recipe(settings, 0.02, clamped=each) for each in (False, True))
    assert [free.bias(step) for step in range(3)] == [-1.25, -0.625, -0.3125]
    assert free.bias(40) == pytest.approx(0.0, abs=1e-11)
    assert clamped.bias(40) == pytest.approx(-3 * (0.02 + 1 / 28))
    assert free.rule.schedule(7) == settings.m == 10
    assert (free.n_steps, free.batch_size) == (50, None)


def test_starts_are_unit_atoms_and_the_near_one_is_delta_away():
    rng = np.random.default_rng(0)
    settings = mixtures.Settings(n=30, m=4, n_samples=100)
    truth = random_dictionary(4, 30, rng, dtype=np.float32)
    data = MixtureOfGaussians(truth, noise=0.1).sample(100, rng).data
    for start in mixtures.STARTS:
        atoms = mixtures.start_atoms(start, settings, truth, data, rng)
        np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1, rtol=1e-5)
    near = mixtures.start_atoms("near", settings, truth, data, rng)
    np.testing.assert_allclose(np.linalg.norm(near - truth, axis=1), 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{"n": 1}, {"sigma": (0.0,)}, {"delta": 0.0}, {"m": 0}, {"n_seeds": 0}, {"seed": -1}],
)
def test_settings_that_mean_nothing_are_refused(changes):
    with pytest.raises(ArgumentError):
        mixtures.Settings(**changes)


# --- verdicts ---------------------------------------------------------------------------------


def curve(start, clamped, losses, distances, found=4):
    return mixtures.Curve(0.1, start, clamped, 0, losses, distances, found)


def curves(near=0.2, spoiled=1.0):
    """As in the paper's size: a floor of .2, reached at once, and left again with bias 0."""
    low, high = [0.7, 0.5, 0.49], [0.7, 0.6, 0.6]
    away = [2.0, 1.0, 1.0]
    return [
        curve("near", False, low, [1, 1, 1, 1, 0.5, 0.21, spoiled]),
        curve("near", True, high, [1, 0.3, near]),
        *(curve(start, False, low, away) for start in ("pca", "random")),
        curve("pca", True, high, [1, 0.3, near]),
        curve("random", True, high, away, found=0),
    ]


def holding(checks):
    return {each.claim for each in checks if each.holds}


def test_verdicts_of_figure_2_can_fail():
    floors = {0.1: 0.2}
    good = figure2.verdicts(curves(), floors, 4)
    assert all(each.holds for each in good)
    assert len(good) - len(holding(figure2.verdicts(curves(near=0.3), floors, 4))) == 2
    assert len(good) - len(holding(figure2.verdicts(curves(spoiled=0.3), floors, 4))) == 1
    # Where no run found all means there is nothing that could be at the floor.
    none = [each._replace(found=3) for each in curves()]
    assert len(good) - len(holding(figure2.verdicts(none, floors, 4))) == 2


def test_verdicts_of_figure_1_can_fail():
    n = 96  # n sigma^2 / 2 = .48
    settled = [each._replace(losses=[0.7, *[each.losses[-1]] * 10]) for each in curves()]
    good = figure1.verdicts(settled, 4, n)
    assert all(each.holds for each in good)
    restless = figure1.verdicts([each._replace(losses=[0.5, 0.9, 0.7]) for each in settled], 4, n)
    assert len(good) - len(holding(restless)) == 4
    lost = figure1.verdicts([each._replace(found=3) for each in settled], 4, n)
    assert len(good) - len(holding(lost)) == 4


def test_unrest_is_the_range_of_the_last_ten():
    assert figure1.unrest([9.0, *[1.0] * 10]) == 0.0
    assert figure1.unrest([1.0, 1.5, 2.0]) == 0.5

"""How wide the basins are and how many samples it takes: runs, verdicts, pictures."""

import numpy as np
import pytest

from shoal import papers
from shoal.generative import SparseCoding, random_dictionary
from shoal.papers.beyond import basin, penalties, samples
from shoal.report.drawing import PAGE, PRINT, as_png, as_svg, plain_settings
from shoal.vocabulary import ArgumentError

NAMES = ("beyond/basin", "beyond/penalties", "beyond/samples")
SMALL = {
    "beyond/basin": {
        "n": 7,
        "ratio": 1.5,
        "n_samples": 120,
        "distance": (0.4,),
        "k": (3, 1),
        "mixing": (0.3,),
        "low": 1.0,
        "high": 2.0,
        "step": (0.8,),
        "n_steps": 3,
        "n_seeds": 2,
    },
    "beyond/penalties": {
        "n": 9,
        "m": 7,
        "k": 2,
        "n_samples": 150,
        "penalty": ("none", "dae"),
        "strengths": (0.2,),
        "n_epochs": 2,
    },
    "beyond/samples": {
        "n": 9,
        "m": 3,
        "sparse_n": 7,
        "sparse_m": 11,
        "sparse_k": 2,
        "n_samples": (150,),
        "n_seeds": 2,
    },
}


def performed(name, changes=()):
    return papers.reproduce(name, "smoke", **dict(changes))


def drawn(name, result):
    for pen in (PAGE, PRINT):
        with plain_settings(pen):
            figure = papers.find(name).plot(result, pen)
            assert as_png(figure)[:4] == b"\x89PNG"
            assert "<svg" in as_svg(figure, "figure", "a figure")


@pytest.mark.parametrize("name", NAMES)
def test_other_sizes_run_and_the_same_seed_gives_the_same_numbers(name):
    first, second = performed(name, SMALL[name]), performed(name, SMALL[name])
    assert first["numbers"] == second["numbers"]
    drawn(name, first)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 1},
        {"k": (600,)},
        {"low": 2.0, "high": 1.0},
        {"distance": (2.5,)},
        {"n_samples": 100},
        {"step": (0.0,)},
    ],
)
def test_basins_that_mean_nothing_are_refused(changes):
    with pytest.raises(ArgumentError):
        basin.Settings(**changes)


@pytest.mark.parametrize(
    "changes", [{"n": 1}, {"sparse_k": 200}, {"sigma": 0.0}, {"n_samples": (128,)}]
)
def test_samples_that_mean_nothing_are_refused(changes):
    with pytest.raises(ArgumentError):
        samples.Settings(**changes)


@pytest.mark.parametrize(
    "changes", [{"m": 1}, {"k": 65}, {"penalty": ("lasso",)}, {"strengths": (0.0,)}, {"low": 0.0}]
)
def test_penalties_that_mean_nothing_are_refused(changes):
    with pytest.raises(ArgumentError):
        penalties.Settings(**changes)


# --- penalties --------------------------------------------------------------------------------


def test_a_push_on_the_bias_finds_atoms_and_contraction_does_not():
    result = performed("beyond/penalties")
    best = {
        name: max(
            each["recovered"] for each in result["numbers"]["cells"] if each["penalty"] == name
        )
        for name in ("none", "cae", "sae")
    }
    assert best["none"] <= 0.15
    assert best["cae"] <= 0.15
    assert best["sae"] >= 0.5
    assert result["numbers"]["default"] == 1.0


# --- basins -----------------------------------------------------------------------------------


def test_the_margin_is_the_threshold_over_the_spread_of_cross_talk():
    n, k, low, high = 100, 4, 1.0, 2.0
    rng = np.random.default_rng(0)
    inputs = []
    for _ in range(20):  # what an atom outside the support gets
        truth = random_dictionary(2000, n, rng)
        outside = random_dictionary(1, n, rng)[0]
        inputs.append(SparseCoding(truth, k, low=low, high=high).sample(2000, rng).data @ outside)
    assert basin.margin(k, n, low, high) == pytest.approx(low / 2 / np.std(inputs), rel=0.1)


def test_structured_starts_are_unit_atoms_that_lean_to_the_next():
    truth = random_dictionary(5, 50, random_state=0)
    moved = basin.structured(truth, 0.5)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1)
    expected = truth[4] + 0.5 * truth[0]
    np.testing.assert_allclose(moved[4], expected / np.linalg.norm(expected))
    alone = np.array([[1.0, 0.0], [-1.0, 0.0]])  # a sum without a direction
    np.testing.assert_array_equal(basin.structured(alone, 1.0), alone)


def place(size, k, share, *, margin=4.0, kind="random", default=1.0):
    return {
        "kind": kind,
        "size": size,
        "k": k,
        "margin": margin,
        basin.theory(1.0): share,
        "unpolished": default,
        "default": default,
    }


def test_the_widest_distance_stops_at_the_first_failure():
    cells = [place(0.4, 2, 1.0), place(0.0, 2, 1.0), place(0.8, 2, 0.5), place(1.2, 2, 1.0)]
    assert basin.widest(cells, 2, basin.theory(1.0)) == 0.4
    assert basin.widest([place(0.0, 2, 0.0)], 2, basin.theory(1.0)) is None


def test_verdicts_on_basins_can_fail():
    names = [basin.theory(1.0)]
    good = basin.verdicts([place(0.4, 1, 1.0), place(0.0, 8, 0.0, margin=2.0)], names)
    assert len(good) == 5
    assert all(each.holds for each in good)
    bad = basin.verdicts([place(0.4, 1, 0.9, default=0.8), place(0.0, 8, 0.2, margin=2.0)], names)
    assert not any(each.holds for each in bad)


# --- samples ----------------------------------------------------------------------------------


def test_the_theorys_recipe_ends_at_the_floor():
    settings = samples.Settings(n=64, m=4, sigma=0.05)
    errors = [samples.mixture_error(settings, 400, seed) for seed in range(6)]
    # 6 x 256 squares of normal variables: a relative standard error of 4 %.
    assert np.mean(errors) == pytest.approx(samples.mixture_floor(settings, 400), rel=0.15)


def test_the_oracle_is_least_squares_on_the_true_codes():
    world = SparseCoding(random_dictionary(12, 8, random_state=0), 2)
    sample = world.sample(200, random_state=1)
    np.testing.assert_allclose(samples.oracle(sample), world.dictionary, atol=1e-10)
    noisy = SparseCoding(world.dictionary, 2, noise=0.1).sample(200, random_state=1)
    codes = np.asarray(noisy.codes)
    solved = np.linalg.inv(codes.T @ codes) @ codes.T @ noisy.data
    np.testing.assert_allclose(samples.oracle(noisy), solved, atol=1e-10)


def row(n_samples, *, worse=1.0, recovered=1.0):
    return {
        "n_samples": n_samples,
        "uses": n_samples / 50,
        "floor": 1 / n_samples,
        "mixture": worse / n_samples,
        "polished": worse / min(n_samples, 50_000),
        "unpolished": 1.0,
        "oracle": 1 / n_samples,
        "recovered": recovered,
    }


def test_verdicts_on_samples_can_fail():
    numbers = (500, 2000, 20_000, 200_000)
    good = samples.verdicts([row(each) for each in numbers], 50_000)
    assert all(each.holds for each in good)
    lost = samples.verdicts([row(each, recovered=0.9) for each in numbers], 50_000)
    assert sum(not each.holds for each in lost) == 2
    worse = samples.verdicts([row(each, worse=2.0) for each in numbers], 50_000)
    assert sum(not each.holds for each in worse) == 4
    flat = [{**row(each), "mixture": 0.01, "polished": 0.01} for each in numbers]
    slopes = [each for each in samples.verdicts(flat, 50_000) if "slope" in each.claim]
    assert len(slopes) == 2
    assert not any(each.holds for each in slopes)


def test_without_a_number_of_samples_that_a_claim_needs_it_is_not_made():
    claims = [each.claim for each in samples.verdicts([row(500)], 50_000)]
    assert not any("slope" in claim or "oracle" in claim for claim in claims)

"""One function sees the sums of every step: what several processes would have to add up."""

import numpy as np
import pytest

import shoal
from shoal.generative import SparseCoding, random_dictionary
from shoal.network import objective
from shoal.network.objective import StepSums, Terms

WORLD = SparseCoding(random_dictionary(24, 16, random_state=0), 2, noise=0.02)
DATA = WORLD.sample(600, random_state=1).data


@pytest.fixture
def seen(monkeypatch):
    """The sums that went through, in order."""
    through = []
    real = objective.reduced

    def counting(sums):
        through.append(sums)
        return real(sums)

    monkeypatch.setattr(objective, "reduced", counting)
    return through


@pytest.mark.parametrize("recipe", ["default", "nguyen2019-sparse-threshold"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_step_of_a_dictionarys_fit(seen, recipe):
    fit = shoal.DictionaryAutoencoder(24, 2, recipe=recipe, random_state=0)
    count, rounds = 0, 0
    for step in fit.iter_fit(DATA):
        # A round of the polish that leaves samples out has sums of the others, too.
        made = len(seen) - count
        assert made >= 1 if step.phase == "polish" else made == 1
        count = len(seen)
        rounds += step.phase == "polish"
    assert all(isinstance(sums, StepSums) for sums in seen)
    assert (rounds > 0) == (recipe == "default")


def test_every_trial_of_a_search(seen):
    fit = shoal.DictionaryAutoencoder(24, "auto", random_state=0)
    phases = []
    for step in fit.iter_fit(DATA):
        phases.append(step.phase)
        assert len(seen) >= len(phases)
        if step.phase != "search":
            break
    assert "search" in phases


def test_every_step_of_partial_fit(seen):
    fit = shoal.DictionaryAutoencoder(24, 2, random_state=0)
    fit.partial_fit(DATA)
    assert len(seen) == -(-len(DATA) // fit.recipe_.batch_size) > 0


def test_every_step_of_a_regularised_autoencoder(seen):
    fit = shoal.RegularizedAutoencoder(24, "dae", 0.1, n_epochs=2, random_state=0).fit(DATA)
    trial = 1  # of two rows, whether activation and penalty fit together
    assert len(seen) == fit.n_steps_ + trial
    assert all(isinstance(sums, Terms) for sums in seen)


def test_what_it_gives_back_is_what_the_step_is_made_from(monkeypatch):
    def still(sums):  # as if the other processes' rows pulled the other way
        if isinstance(sums, StepSums):
            return sums._replace(dictionary=sums.dictionary * 0.0)
        zero = {name: getattr(sums, name) * 0.0 for name in ("left", "radial", "bias")}
        return sums._replace(**zero)

    monkeypatch.setattr(objective, "reduced", still)
    atoms = random_dictionary(24, 16, random_state=5)
    fit = shoal.DictionaryAutoencoder(24, 2, init=atoms, random_state=0)
    steps = fit.iter_fit(DATA)
    first = next(steps)
    np.testing.assert_allclose(first.parameters.dictionary, atoms, atol=1e-6)
    model = shoal.RegularizedAutoencoder(24, "l1", 0.1, n_epochs=1, random_state=0).fit(DATA)
    again = shoal.RegularizedAutoencoder(24, "l1", 0.1, n_epochs=3, random_state=0).fit(DATA)
    np.testing.assert_array_equal(again.components_, model.components_)

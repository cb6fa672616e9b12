import numpy as np
import pytest
import torch

from made import steps_of
from shoal.data import open_source
from shoal.diagnosis import recovery
from shoal.generative import SparseCoding, perturb, random_dictionary
from shoal.network import TopK
from shoal.network.inference import SubspacePursuit
from shoal.network.kernels import StepSums
from shoal.training import Constant, InverseDecay, NormalizedStep, Recipe, Refinement
from shoal.training.ranks import Batch
from shoal.training.refinement import Settled
from shoal.vocabulary import ArgumentError, Parameters


def refinement(k=2, n_steps=100, **changes):
    return Refinement(SubspacePursuit(k), NormalizedStep(Constant(0.5)), n_steps, **changes)


def sums_of(losses):
    losses = torch.as_tensor(losses, dtype=torch.float64)
    nothing = torch.zeros(4, dtype=torch.float64)
    return StepSums(torch.zeros(4, 3).double(), nothing, losses, nothing, nothing, len(losses))


class Watch:
    """What `Settled` says, step by step."""

    def __init__(self, settings):
        self.settings, self.seen = settings, Settled()

    def add(self, sums, rows, *step):
        self.seen, rests = self.seen.add(self.settings, sums, Batch(rows, None), *step)
        return rests


def settling(**changes):
    return Watch(refinement(1, **({"window": 4} | changes)))


DATA = 2**0.5 * torch.ones(16, 1).double().expand(16, 3) / 3**0.5  # rows of square 2
EYE = torch.eye(4, 3, dtype=torch.float64)


def ends(watch, losses, *, dictionaries=None, replaced=(), most=400):
    """The step after which it ends, for mean losses given by the step's number from 1."""
    for number in range(1, most + 1):
        dictionary = EYE if dictionaries is None else dictionaries(number)
        loss = losses(number)
        if watch.add(sums_of([loss] * 16), DATA, dictionary, int(number in replaced)):
            return number
    return None


def turned(number, by):
    """Atoms that move by `by` with every step, for ever."""
    angle = torch.tensor(number * by, dtype=torch.float64)
    cos, sin = angle.cos(), angle.sin()
    return EYE @ torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)


# --- when it ends ----------------------------------------------------------------------------


def test_ends_where_atoms_rest_and_the_loss_is_flat():
    assert ends(settling(), lambda number: 0.5) == 4


def test_goes_on_while_the_loss_falls():
    # By a tenth over half a window: 4 steps at first, a quarter of all later.
    assert ends(settling(), lambda number: 0.95**number, most=150) is None
    assert ends(settling(), lambda number: 0.95 ** min(number, 30), most=150) > 30


@pytest.mark.parametrize(("left", "last"), [(0.96, True), (0.94, False)])
def test_flat_is_a_fall_by_less_than_a_twentieth(left, last):
    # Of the window's second half, steps 3 and 4, against its first.
    watch = settling()
    found = [watch.add(sums_of([loss] * 16), DATA, EYE, 0) for loss in (1.0, 1.0, left, left)]
    assert found == [False, False, False, last]


def test_goes_on_while_atoms_move_but_not_for_ever_on_a_flat_loss():
    def moving(number):
        return turned(number, 0.1)

    assert ends(settling(patience=50), lambda number: 0.5, dictionaries=moving) is None
    # Windows longer than 8 end at step 36 or later, each is a third of the steps before.
    found = ends(settling(patience=3), lambda number: 0.5, dictionaries=moving)
    assert 36 < found < 100
    longer = ends(settling(patience=4), lambda number: 0.5, dictionaries=moving)
    assert found < longer < 1.5 * found


def test_a_replacement_starts_the_window_anew():
    assert ends(settling(), lambda number: 0.5, replaced=(3,)) == 7


def test_atoms_that_were_given_up_do_not_count():
    def half(number):
        moving = turned(number, 0.1).clone()
        moving[:3] = 0
        return moving + torch.tensor([[0.0], [0], [0], [1]]).double() * turned(number, 0.1)[:1]

    # Three of four atoms rest at 0; the one in use moves.
    assert ends(settling(patience=50), lambda number: 0.5, dictionaries=half, most=100) is None


@pytest.mark.parametrize(("left", "last"), [(0, True), (1, False)])
def test_ends_once_all_but_few_samples_are_explained(left, last):
    # Few is less than k/(4m) = 1/16 of 16 samples; all but 1e-9 of their square is explained.
    losses = np.full(16, 0.9e-9)
    losses[:left] = 0.3
    watch = settling(window=50)
    found = [watch.add(sums_of(losses), DATA, EYE, 0) for _ in range(2)]
    assert found == [False, last]
    watch = settling(window=50, explained=1e-10)
    assert not any(watch.add(sums_of(losses), DATA, EYE, 0) for _ in range(2))


# --- in the loop -----------------------------------------------------------------------------


def world(noise=0.0):
    truth = random_dictionary(40, 48, random_state=0)
    data = SparseCoding(truth, 2, noise=noise).sample(4000, random_state=1).data
    start = torch.from_numpy(perturb(truth, 0.3, random_state=2))
    return truth, data, Parameters(start, torch.zeros(40, dtype=torch.float64))


def run(begin, data, recipe, **named):
    return list(steps_of(begin, open_source(data), recipe, np.random.default_rng(3), **named))


def recipe(more=None, n_steps=5, k=2):
    return Recipe(TopK(k), NormalizedStep(Constant(0.5)), n_steps, 256, refinement=more)


def test_descent_goes_on_as_a_refinement_to_the_truth():
    truth, data, start = world()
    plain = run(start, data, recipe(n_steps=60))
    steps = run(start, data, recipe(refinement(2, 400, explained=1e-12)))
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert [step.phase for step in steps[:6]] == ["descent"] * 5 + ["refinement"]
    assert steps[4].progress == 1.0
    assert steps[5].progress == 1 / 400
    assert steps[-1].progress == 1.0
    assert len(steps) < 405
    # The tied code has a plateau; least squares on the support has none.
    assert recovery(plain[-1].parameters.dictionary, truth).mean_distance > 0.05
    assert recovery(steps[-1].parameters.dictionary, truth).max_distance < 1e-5
    errors = [recovery(step.parameters.dictionary, truth).mean_distance for step in steps[::20]]
    ratios = np.array(errors[1:]) / errors[:-1]
    assert (ratios < 0.5).all()  # linear convergence


def test_it_has_a_schedule_of_its_own_and_a_last_step():
    _, data, start = world(noise=0.2)
    more = Refinement(SubspacePursuit(2), NormalizedStep(InverseDecay(0.4, 2)), 3)
    steps = run(start, data, recipe(more))
    assert len(steps) == 8
    rates = [step.learning_rate for step in steps]
    assert rates == [0.5] * 5 + [pytest.approx(0.4 / (1 + i / 2)) for i in range(3)]


def test_in_passes_it_never_ends_early_and_goes_on_where_it_was():
    truth, data, start = world()
    endless = recipe(refinement(2, 10**6))
    steps = run(start, data, endless, passes=12, endless=True)
    assert len(steps) == 12 * 16
    assert recovery(steps[-1].parameters.dictionary, truth).max_distance < 1e-6
    again = run(steps[-1].parameters, data, endless, start=192, passes=1, endless=True)
    assert {step.phase for step in again} == {"refinement"}
    assert again[0].number == 193


@pytest.mark.parametrize("name", ["n_steps", "window", "patience"])
def test_settings_are_counts(name):
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        refinement(**{name: 0})


@pytest.mark.parametrize("name", ["moved", "explained"])
def test_settings_are_not_negative(name):
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        refinement(**{name: -0.1})

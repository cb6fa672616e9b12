import numpy as np
import pytest
import torch

from made import steps_of, update
from shoal.data import open_source
from shoal.data.access import ALL
from shoal.generative import (
    MixtureOfGaussians,
    Rademacher,
    SparseCoding,
    perturb,
    random_dictionary,
)
from shoal.network import HardThreshold, ReLU, Sigmoid, TopK, kernels, loss, sample_gradient
from shoal.network.kernels import choose, reference
from shoal.training import (
    Constant,
    ExponentialDecay,
    FixedStep,
    Halving,
    NormalizedStep,
    Recipe,
    Revival,
    descent,
    nguyen2019,
)
from shoal.training.constraints import unit_atoms
from shoal.training.state import Place
from shoal.vocabulary import ArgumentError, Parameters


def rng(seed=0):
    return np.random.default_rng(seed)


def orthonormal(m, n, seed=0):
    return np.linalg.qr(rng(seed).standard_normal((n, m)))[0].T.copy()


def parameters_of(rows, dtype=torch.float64):
    dictionary = torch.from_numpy(np.array(rows)).to(dtype)
    return Parameters(dictionary, torch.zeros(len(dictionary), dtype=dtype))


def start(m=10, n=6, seed=0, dtype=torch.float64):
    rows = rng(seed).standard_normal((m, n))
    return parameters_of(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype)


def gaussian(n_samples=100, n=6, seed=1, dtype=np.float64):
    return rng(seed).standard_normal((n_samples, n)).astype(dtype)


def recipe(n_steps=12, batch_size=32, **changes):
    step_size = NormalizedStep(ExponentialDecay(0.5, 0.05, 12))
    given = {"activation": TopK(2), "rule": step_size} | changes
    return Recipe(n_steps=n_steps, batch_size=batch_size, **given)


def run(parameters, data, plan, seed=0, **named):
    return list(steps_of(parameters, open_source(data), plan, rng(seed), **named))


# --- unit atoms ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unit_atoms(dtype):
    rows = torch.tensor([[3.0, 4], [0, 0], [float("nan"), 1], [0, float("inf")], [0, -2]])
    rows = rows.to(dtype)
    before = rows.clone()
    spare = torch.tensor([[1.0, 0]] * 5, dtype=dtype)
    found = unit_atoms(rows, fallback=spare)
    expected = [[0.6, 0.8], [1, 0], [1, 0], [1, 0], [0, -1]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=dtype))
    without = unit_atoms(rows)
    expected[1] = expected[2] = expected[3] = [0, 0]
    torch.testing.assert_close(without, torch.tensor(expected, dtype=dtype))
    torch.testing.assert_close(rows, before, equal_nan=True)


# --- the update ------------------------------------------------------------------------------


def test_an_update_by_hand():
    # Two units on the axes of the plane; of the samples (3, 1) and (3, -1) unit 0 takes both.
    parameters = parameters_of(np.eye(2))
    data = torch.tensor([[3.0, 1.0], [3.0, -1.0], [3.0, 2.0]], dtype=torch.float64)
    sums = choose(data).step(parameters, data, TopK(1))
    assert sums.energy.tolist() == [27.0, 0.0]
    # dL/dD_0 = -mean(x r) = -(0, 2), its rate c / mean(x^2) = .9 / 9.
    moved = update(parameters, sums, NormalizedStep(Constant(0.9)), 0)
    expected = np.array([[1.0, 0.2], [0.0, 1.0]]) / [[np.hypot(1, 0.2)], [1.0]]
    np.testing.assert_allclose(moved.dictionary, expected)
    assert torch.equal(moved.bias, parameters.bias)
    fixed = update(parameters, sums, FixedStep(Constant(0.5)), 0)
    np.testing.assert_allclose(fixed.dictionary[0], np.array([1.0, 1.0]) / np.sqrt(2))
    assert parameters.dictionary.tolist() == np.eye(2).tolist()


@pytest.mark.parametrize("activation", [TopK(2), ReLU(), HardThreshold(0.5), Sigmoid()], ids=str)
def test_an_update_is_a_step_against_the_gradient(activation):
    parameters, data = start(), torch.from_numpy(gaussian())
    sums = choose(data).step(parameters, data, activation)
    gradient = sample_gradient(parameters, data, activation).dictionary
    moved = update(parameters, sums, FixedStep(Constant(0.01)), 0)
    torch.testing.assert_close(
        moved.dictionary, unit_atoms(parameters.dictionary - 0.01 * gradient)
    )
    tangent = gradient - (gradient * parameters.dictionary).sum(1, True) * parameters.dictionary
    tiny = update(parameters, sums, FixedStep(Constant(1e-6)), 0)
    if tangent.norm() > 1e-3:
        before, after = (loss(each, data, activation) for each in (parameters, tiny))
        assert after < before


def test_a_silent_unit_stays_bit_for_bit():
    parameters = start()
    silent = parameters._replace(bias=torch.full((10,), -100.0, dtype=torch.float64))
    data = torch.from_numpy(gaussian())
    sums = choose(data).step(silent, data, ReLU())
    moved = update(silent, sums, NormalizedStep(Constant(1.0)), 0)
    torch.testing.assert_close(moved.dictionary, silent.dictionary, rtol=1e-15, atol=1e-15)


# --- the loop --------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 32, 100, 7])
@pytest.mark.parametrize("n_steps", [1, 5, 30])
def test_the_steps_that_were_asked_for(n_steps, batch_size):
    steps = run(start(), gaussian(), recipe(n_steps, batch_size))
    assert [step.number for step in steps] == list(range(1, n_steps + 1))
    assert [step.progress for step in steps] == [pytest.approx(i / n_steps) for i in
                                                 range(1, n_steps + 1)]  # fmt: skip
    decay = ExponentialDecay(0.5, 0.05, 12)
    assert [step.learning_rate for step in steps] == [decay(i) for i in range(n_steps)]
    for step in steps:
        assert step.phase == "descent"
        norms = torch.linalg.vector_norm(step.parameters.dictionary, dim=1)
        torch.testing.assert_close(norms, torch.ones(10).double(), rtol=0, atol=1e-14)
        assert 0 < float(step.activation_fraction) <= 0.2 + 1e-12


def test_what_a_step_records():
    parameters, data = start(), gaussian()
    (step,) = run(parameters, data, recipe(1, None))
    rows = torch.from_numpy(data)
    assert float(step.loss) == pytest.approx(float(loss(parameters, rows, TopK(2))))  # before
    centred = data - data.mean(axis=0)
    assert float(step.variance) == pytest.approx(0.5 * (centred**2).sum(axis=1).mean())
    assert float(step.activation_fraction) == pytest.approx(0.2)
    assert step.replaced == 0


def test_a_full_batch_is_one_step_of_the_update():
    parameters, data = start(), gaussian()
    rows = torch.from_numpy(data)
    expected = parameters
    steps = run(parameters, data, recipe(3, None))
    for number, step in enumerate(steps):
        sums = choose(rows).step(expected, rows, TopK(2))
        expected = update(expected, sums, recipe().rule, number)
        torch.testing.assert_close(step.parameters.dictionary, expected.dictionary)


@pytest.mark.parametrize("chunk", [1, 7, 50, 99, 100])
def test_a_full_batch_in_chunks_is_the_full_batch(monkeypatch, chunk):
    plan = recipe(4, None, revival=Revival(every=2))
    parameters, data = start(), gaussian()
    expected = run(parameters, data, plan)
    monkeypatch.setattr(reference, "_TILE", chunk)
    with kernels.use("reference"):
        found = run(parameters, data, plan)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.parameters.dictionary, other.parameters.dictionary)
        assert one.replaced == other.replaced
        for name in ("loss", "variance", "activation_fraction"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name))


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    plan = recipe(revival=Revival(every=5))
    first, again = (run(start(), gaussian(), plan, seed=3) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.parameters.dictionary, other.parameters.dictionary)
        assert torch.equal(one.loss, other.loss)
    another = run(start(), gaussian(), plan, seed=4)
    assert not torch.equal(first[0].parameters.dictionary, another[0].parameters.dictionary)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stored", [np.float32, np.float64])
def test_the_type_of_the_parameters_is_kept(dtype, stored):
    plan = recipe(bias=Halving(-0.1), activation=ReLU(), revival=Revival(every=5))
    *_, last = run(start(dtype=dtype), gaussian(dtype=stored), plan)
    assert {part.dtype for part in last.parameters[:2]} == {dtype}
    assert last.loss.dtype == last.variance.dtype == dtype


def test_neither_the_start_nor_the_data_is_changed():
    parameters, data = start(), gaussian()
    before = [part.clone() for part in parameters[:2]], data.copy()
    run(parameters, data, recipe(10, None, bias=Constant(-0.1), revival=Revival(every=2)))
    assert all(map(torch.equal, parameters[:2], before[0]))
    np.testing.assert_array_equal(data, before[1])


def test_earlier_steps_are_not_overwritten_by_later_ones():
    copies, steps = [], []
    for step in steps_of(start(), open_source(gaussian()), recipe(revival=Revival(2)), rng()):
        steps.append(step)
        copies.append(step.parameters.dictionary.clone())
    assert all(map(torch.equal, (step.parameters.dictionary for step in steps), copies))


def test_the_bias_follows_its_schedule_and_is_used():
    plan = recipe(4, None, bias=Halving(-0.8), activation=ReLU())
    parameters, data = start(), gaussian()
    steps = run(parameters, data, plan)
    assert [step.parameters.bias.unique().tolist() for step in steps] == [
        [-0.8],
        [-0.4],
        [-0.2],
        [-0.1],
    ]
    biased = parameters._replace(bias=torch.full((10,), -0.8, dtype=torch.float64))
    assert float(steps[0].loss) == pytest.approx(
        float(loss(biased, torch.from_numpy(data), ReLU()))
    )


def test_without_a_schedule_the_bias_stays():
    biased = start()._replace(bias=torch.linspace(-1, 0, 10, dtype=torch.float64))
    *_, last = run(biased, gaussian(), recipe())
    assert torch.equal(last.parameters.bias, biased.bias)


def test_a_start_in_the_middle_continues_the_schedules():
    plan = recipe(10, None, bias=Halving(-0.8), activation=ReLU())
    whole = run(start(), gaussian(), plan)
    rest = run(whole[5].parameters, gaussian(), plan, start=6)
    assert [step.number for step in rest] == [7, 8, 9, 10]
    for one, other in zip(rest, whole[6:], strict=True):
        torch.testing.assert_close(one.parameters.dictionary, other.parameters.dictionary)
        assert torch.equal(one.parameters.bias, other.parameters.bias)
        assert one.learning_rate == other.learning_rate
        assert one.progress == other.progress


# --- sources ---------------------------------------------------------------------------------


def test_a_source_that_can_be_read_once_ends_the_descent():
    data = gaussian()
    source = open_source(batch for batch in np.split(data, 10))
    assert source.once
    steps = list(steps_of(start(), source, recipe(1000, 20), rng()))
    assert len(steps) == 5


def test_a_source_that_can_be_read_again_goes_on():
    data = gaussian()
    source = open_source(lambda: iter(np.split(data, 10)))
    assert not source.once
    steps = list(steps_of(start(), source, recipe(12, 20), rng()))
    assert len(steps) == 12


def test_no_more_is_read_than_is_used():
    read = []

    def batches():
        for number in range(100):
            read.append(number)
            yield gaussian(20, seed=number)

    assert len(list(steps_of(start(), open_source(batches()), recipe(3, 20), rng()))) == 3
    assert len(read) <= 4


def test_a_full_batch_needs_a_length():
    source = open_source(batch for batch in np.split(gaussian(), 10))
    with pytest.raises(ArgumentError, match=r"^batch_size: ") as error:
        next(steps_of(start(), source, recipe(5, None), rng()))
    assert error.value.argument == "batch_size"


@pytest.mark.parametrize(
    ("n_samples", "steps_a_pass"), [(64, 2), (79, 2), (80, 3), (96, 3), (5, 1), (15, 1)]
)
def test_a_short_last_batch_is_left_out(monkeypatch, n_samples, steps_a_pass):
    seen = []

    class Counting:
        @staticmethod
        def step(parameters, data, activation):
            seen.append(len(data))
            return reference.step(parameters, data, activation)

    monkeypatch.setattr(kernels, "choose", lambda data, *_: Counting)
    run(start(), gaussian(n_samples), recipe(2 * steps_a_pass, 32))
    sizes = [min(32, n_samples - at) for at in range(0, n_samples, 32)]
    assert seen == 2 * sizes[:steps_a_pass]


def test_a_pass_takes_every_row_once():
    data = np.eye(40)
    seen = []
    source = open_source(data)
    place = Place.at(rng())
    for batch, _, _ in descent._batches(source, recipe(batch_size=20).plan(), place, None, ALL):
        seen.append(batch.argmax(axis=1))
        if len(seen) == 4:
            break
    first, second = np.concatenate(seen[:2]), np.concatenate(seen[2:])
    assert sorted(first) == sorted(second) == list(range(40))
    assert (first != second).any()


# --- replacing atoms -------------------------------------------------------------------------


def test_dead_and_repeated_atoms_are_replaced_on_time():
    parameters = start(10, 30)
    rows = parameters.dictionary.clone()
    rows[7] = rows[2]
    twins = parameters._replace(dictionary=rows)
    quiet = recipe(6, None, rule=FixedStep(Constant(0.0)))
    steps = run(twins, gaussian(n=30), quiet)
    assert [step.replaced for step in steps] == [0] * 6
    # TopK takes the lower of two equals, so that 7 is the one that repeats.
    revived = recipe(6, None, rule=FixedStep(Constant(0.0)), revival=Revival(every=3))
    steps = run(twins, gaussian(n=30), revived)
    assert [step.replaced for step in steps] == [0, 0, 1, 0, 0, 0]
    moved = (steps[-1].parameters.dictionary - rows).abs().amax(dim=1) > 1e-12
    assert torch.nonzero(moved).flatten().tolist() == [7]


def test_an_atom_is_dead_only_if_it_was_silent_since_the_last_look():
    # Each batch uses other atoms; over two batches all are used.
    eye = parameters_of(np.eye(4))
    source = open_source(lambda: iter([np.eye(4)[:2].repeat(4, 0), np.eye(4)[2:].repeat(4, 0)]))
    still = {"activation": TopK(1), "rule": FixedStep(Constant(0.0))}
    both = recipe(8, 8, revival=Revival(every=2, idle=2), **still)
    assert sum(step.replaced for step in steps_of(eye, source, both, rng())) == 0
    each = recipe(8, 8, revival=Revival(every=1, idle=1), **still)
    assert next(steps_of(eye, source, each, rng())).replaced == 2


def test_what_was_used_before_the_last_look_does_not_count():
    eye = parameters_of(np.eye(4))
    low, high = np.eye(4)[:2].repeat(4, 0), np.eye(4)[2:].repeat(4, 0)
    source = open_source(iter([low, high, low, low]))
    still = {"activation": TopK(1), "rule": FixedStep(Constant(0.0))}
    plan = recipe(5, 8, revival=Revival(every=2, idle=2), **still)
    assert [step.replaced for step in steps_of(eye, source, plan, rng())] == [0, 0, 0, 2]


# --- Nguyen et al. 2018, Theorem 4 -----------------------------------------------------------


def distances(world, start_rows, plan, n_samples=6000):
    """|W - A*|_F^2 at the start and after every step; atoms keep their order here."""
    data = world.sample(n_samples, random_state=1).data
    found = [start_rows]
    found += [step.parameters.dictionary.numpy() for step in
              run(parameters_of(start_rows), data, plan)]  # fmt: skip
    return np.array([((rows - world.dictionary) ** 2).sum() for rows in found])


@pytest.mark.parametrize(
    ("step", "low", "high"),
    [(0.25, 0.5, 0.63), (0.5, 0.18, 0.35), (1.0, 0.0, 0.06), (1.5, 0.02, 0.25)],
)
def test_signed_codes_contract_by_about_1_minus_c_squared(step, low, high):
    truth = orthonormal(64, 256)
    world = SparseCoding(truth, 3, values=Rademacher())
    plan = nguyen2019("sparse", "threshold", step=step, n_steps=6)
    found = distances(world, perturb(truth, 0.5, random_state=2), plan)
    assert low < found[1] / found[0] < high
    assert (found[1:] < found[:-1]).all()
    if step == 1.0:
        assert found[-1] < 1e-5  # no plateau on orthonormal atoms


def test_gaussian_atoms_are_reached_up_to_the_plateau():
    truth = random_dictionary(128, 256, random_state=7)
    world = SparseCoding(truth, 2, values=Rademacher())
    plan = nguyen2019("sparse", "threshold", n_steps=5)
    begin = perturb(truth, 0.4, random_state=2)
    few, many = (distances(world, begin, plan, n_samples) for n_samples in (4000, 16000))
    assert many[1] < 0.06 * many[0]
    # 4 (k-1)^2 / n with samples without end; a term in 1/N adds to it, and cancels here.
    limit = (4 * many[-1] - few[-1]) / 3
    assert limit == pytest.approx(4 * (2 - 1) ** 2 / 256, rel=0.15)


def test_halving_the_bias_of_a_mixture_needs_a_floor():
    truth = random_dictionary(64, 256, random_state=8)
    world = MixtureOfGaussians(truth, noise=0.03)
    start_rows = perturb(truth, 0.4, random_state=2)
    floored = distances(world, start_rows, nguyen2019("mixture", "relu", n_steps=12, floor=-0.2))
    limit = 64 * 256 * 0.03**2 * 64 / 6000  # m^2 n sigma^2 / N: what fixed data allow
    assert floored[-1] < 1.3 * limit < 0.05 * floored[0]
    with pytest.warns(UserWarning, match="within .* of 0 in 12 steps"):
        unbounded = nguyen2019("mixture", "relu", n_steps=12)
    bare = distances(world, start_rows, unbounded)
    assert bare[-1] > 100 * floored[-1]


def test_nothing_is_replaced_at_the_last_planned_step():
    # What is replaced there would leave the descent as a raw residual.
    eye = parameters_of(np.eye(4))
    low = np.eye(4)[:2].repeat(4, 0)
    still = {"activation": TopK(1), "rule": FixedStep(Constant(0.0))}
    plan = recipe(2, 8, revival=Revival(every=1, idle=1), **still)
    found = [step.replaced for step in steps_of(eye, open_source(low), plan, rng())]
    assert found == [2, 0]

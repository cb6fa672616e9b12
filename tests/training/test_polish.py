import numpy as np
import pytest
import torch

from shoal.diagnosis import recovery
from shoal.generative import NonnegativeSparseCoding, SparseCoding, perturb, random_dictionary
from shoal.network.inference import orthogonal_matching_pursuit
from shoal.training import Polish, polish
from shoal.training import polish as polish_function
from shoal.vocabulary import ArgumentError, Parameters

# `shoal.training.polish` is both a module and the function that hides it.
module = __import__("sys").modules[polish_function.__module__]


def parameters_of(rows, dtype=torch.float64):
    dictionary = torch.from_numpy(np.array(rows)).to(dtype)
    return Parameters(dictionary, torch.zeros(len(dictionary), dtype=dtype))


def world(seed=0, m=40, n=24, k=3, n_samples=1500, noise=0.0, signed=True):
    model = SparseCoding if signed else NonnegativeSparseCoding
    truth = random_dictionary(m, n, random_state=seed)
    data = model(truth, k, noise=noise).sample(n_samples, random_state=seed).data
    return truth, torch.from_numpy(data)


def pursuit_loss(parameters, data, k, signed=True):
    codes = orthogonal_matching_pursuit(parameters.dictionary, data, k, signed=signed)
    residual = data - codes.reconstruct(parameters.dictionary)
    return float(0.5 * residual.square().sum(dim=1).mean())


def stops_at(losses, settings):
    """The rule of `Polish`, once more: the index of the round that is the last."""
    best, stalled = float("inf"), 0
    for index, loss in enumerate(losses):
        stalled = 0 if loss < (1 - settings.tolerance) * best else stalled + 1
        best = min(best, loss)
        if stalled >= settings.patience or index + 1 == settings.max_rounds:
            return index
    return None


# --- what it reaches -------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_without_noise_from_near_the_truth(seed, signed):
    truth, data = world(seed, m=48, n=48, k=2, signed=signed)
    begin = perturb(truth, 0.3, random_state=100 + seed)
    *_, last = polish(parameters_of(begin), data, Polish(2, signed=signed, tolerance=0.01))
    score = recovery(last.parameters.dictionary, truth, signs="free" if signed else "fixed")
    assert score.max_distance < 1e-6
    assert float(last.loss) < 1e-12 * float(last.variance)


def test_noise_leaves_little_more_than_its_share():
    truth, data = world(2, m=48, n=48, k=2, noise=0.05)
    begin = perturb(truth, 0.3, random_state=102)
    *_, last = polish(parameters_of(begin), data, Polish(2))
    assert recovery(last.parameters.dictionary, truth).max_distance < 0.1
    assert pursuit_loss(last.parameters, data, 2) < 0.5 * 48 * 0.05**2


@pytest.mark.parametrize("seed", [3, 4])
def test_merged_atoms_are_split_on_the_way(monkeypatch, seed):
    truth, data = world(seed, m=48, n=48, k=2)
    begin = truth.copy()
    begin[0:6:2] += truth[1:6:2]  # three atoms stand for two each, and three for nothing
    begin[1:6:2] = np.random.default_rng(seed).standard_normal((3, 48))
    begin = parameters_of(begin / np.linalg.norm(begin, axis=1, keepdims=True))
    steps = list(polish(begin, data, Polish(2)))
    assert sum(step.replaced for step in steps) >= 1
    assert recovery(steps[-1].parameters.dictionary, truth).max_distance < 1e-6
    # Least squares alone does not find the way.
    monkeypatch.setattr(module, "split", lambda dictionary, *given: (dictionary, 0))
    *_, last = polish(begin, data, Polish(2))
    assert recovery(last.parameters.dictionary, truth).max_distance > 0.5


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_never_worse_than_it_was_given(seed, signed):
    # Few rows of pure noise, a random start, and a k that doesn't fit.
    rng = np.random.default_rng(seed)
    data = torch.from_numpy(rng.standard_normal((60, 10)))
    begin = parameters_of(random_dictionary(25, 10, random_state=seed))
    settings = Polish(4, signed=signed, tolerance=0.0, max_rounds=12)
    steps = list(polish(begin, data, settings))
    losses = [float(step.loss) for step in steps]
    assert losses[0] == pytest.approx(pursuit_loss(begin, data, 4, signed))
    for index, step in enumerate(steps):  # always the best so far
        reached = pursuit_loss(step.parameters, data, 4, signed)
        assert reached == pytest.approx(min(losses[: index + 1]))


def test_the_best_is_kept_where_rounds_make_it_worse(monkeypatch):
    truth, data = world(4)
    begin = parameters_of(perturb(truth, 0.1, random_state=5))
    noise = torch.from_numpy(random_dictionary(40, 24, random_state=6))
    monkeypatch.setattr(module, "_solve", lambda *given: noise)
    monkeypatch.setattr(module, "split", lambda dictionary, *given: (dictionary, 0))
    steps = list(polish(begin, data, Polish(3)))
    assert len(steps) == 4  # one good round, and patience
    assert float(steps[1].loss) > 2 * float(steps[0].loss)
    for step in steps:
        assert torch.equal(step.parameters.dictionary, begin.dictionary)


# --- when it stops ---------------------------------------------------------------------------


@pytest.mark.parametrize("tolerance", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("patience", [1, 3])
@pytest.mark.parametrize("max_rounds", [1, 4, 40])
def test_stops_by_its_rule(tolerance, patience, max_rounds):
    truth, data = world(7, m=24, n=16, noise=0.1, n_samples=600)
    begin = parameters_of(perturb(truth, 0.5, random_state=8))
    settings = Polish(3, tolerance=tolerance, patience=patience, max_rounds=max_rounds)
    steps = list(polish(begin, data, settings))
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert stops_at([float(step.loss) for step in steps], settings) == len(steps) - 1
    progress = [step.progress for step in steps]
    assert progress[-1] == 1.0
    assert progress[:-1] == [pytest.approx(i / max_rounds) for i in range(1, len(steps))]
    assert all(share < 1.0 for share in progress[:-1])


def test_stops_at_once_at_the_truth():
    truth, data = world(9, m=48, n=48, k=2)
    steps = list(polish(parameters_of(truth), data, Polish(3)))
    assert len(steps) == 1
    assert steps[0].progress == 1.0
    assert torch.equal(steps[0].parameters.dictionary, torch.from_numpy(truth))


def test_data_of_zeros():
    begin = parameters_of(random_dictionary(6, 4, random_state=0))
    steps = list(polish(begin, torch.zeros(10, 4, dtype=torch.float64), Polish(2)))
    assert torch.equal(steps[-1].parameters.dictionary, begin.dictionary)
    assert float(steps[-1].loss) == 0.0


# --- what it records -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_norms_and_records(dtype):
    truth, data = world(10, noise=0.05)
    begin = parameters_of(perturb(truth, 0.4, random_state=11), dtype)
    begin = begin._replace(bias=torch.linspace(-1, 0, 40, dtype=dtype))
    data = data.to(dtype)
    before = begin.dictionary.clone(), data.clone()
    for step in polish(begin, data, Polish(3, max_rounds=5)):
        assert step.phase == "polish"
        assert step.learning_rate is None
        assert step.parameters.dictionary.dtype == step.loss.dtype == dtype
        norms = torch.linalg.vector_norm(step.parameters.dictionary, dim=1)
        torch.testing.assert_close(norms, torch.ones(40, dtype=dtype))
        assert torch.equal(step.parameters.bias, begin.bias)
        assert float(step.activation_fraction) == pytest.approx(3 / 40)
        centred = data - data.mean(dim=0)
        assert float(step.variance) == pytest.approx(
            float(0.5 * centred.square().sum(dim=1).mean()), rel=1e-5
        )
    assert torch.equal(begin.dictionary, before[0])
    assert torch.equal(data, before[1])


@pytest.mark.parametrize("chunk", [1, 7, 299])
def test_rows_in_chunks_give_the_same(monkeypatch, chunk):
    truth, data = world(12, m=20, n=16, n_samples=300, noise=0.05)
    begin = parameters_of(perturb(truth, 0.3, random_state=13))
    expected = list(polish(begin, data, Polish(3, max_rounds=4)))
    monkeypatch.setattr(module, "_CHUNK", chunk)
    found = list(polish(begin, data, Polish(3, max_rounds=4)))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.parameters.dictionary, other.parameters.dictionary)
        torch.testing.assert_close(one.loss, other.loss)


def test_one_round_of_least_squares_by_hand():
    # With the codes right, the method of optimal directions is least squares of Y on X.
    truth, data = world(14, m=20, n=30, k=2, noise=0.1)
    first, second, *_ = polish(parameters_of(truth), data, Polish(2, tolerance=0.0))
    codes = orthogonal_matching_pursuit(torch.from_numpy(truth), data, 2).dense(20)
    solved = np.linalg.lstsq(codes.numpy(), data.numpy())[0]
    expected = solved / np.linalg.norm(solved, axis=1, keepdims=True)
    assert float(second.loss) < float(first.loss)
    np.testing.assert_allclose(second.parameters.dictionary, expected, atol=1e-8)


def test_an_atom_without_a_code_stays_as_it_was(monkeypatch):
    monkeypatch.setattr(module, "split", lambda dictionary, *given: (dictionary, 0))
    truth, data = world(15, m=20, n=30, k=2, noise=0.1)
    # An atom outside the span of everything: one more feature, which the data don't use.
    data = torch.cat([data, torch.zeros(len(data), 1, dtype=torch.float64)], dim=1)
    rows = np.pad(perturb(truth, 0.2, random_state=16), ((0, 1), (0, 1)))
    rows[-1, -1] = 1.0
    *_, last = polish(parameters_of(rows), data, Polish(2))
    assert last.number > 1
    np.testing.assert_array_equal(last.parameters.dictionary[-1], rows[-1])


@pytest.mark.parametrize("name", ["n_nonzero_coefs", "max_rounds", "patience", "max_samples"])
def test_settings_are_counts(name):
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        Polish(**({"n_nonzero_coefs": 3} | {name: 0}))


@pytest.mark.parametrize("tolerance", [-0.1, 1.1, float("nan")])
def test_the_tolerance_is_a_share(tolerance):
    with pytest.raises(ArgumentError, match=r"^tolerance: "):
        Polish(3, tolerance=tolerance)

import numpy as np
import pytest
import torch

from made import rounds_of
from shoal.diagnosis import recovery
from shoal.generative import NonnegativeSparseCoding, SparseCoding, perturb, random_dictionary
from shoal.network.inference import SparseCodes, SubspacePursuit
from shoal.training import Polish, ranks
from shoal.training import polish as module
from shoal.vocabulary import ArgumentError, Parameters

# `shoal.training.polish` is both a module and the function that hides it.


def parameters_of(rows, dtype=torch.float64):
    dictionary = torch.from_numpy(np.array(rows)).to(dtype)
    return Parameters(dictionary, torch.zeros(len(dictionary), dtype=dtype))


def world(seed=0, m=40, n=24, k=3, n_samples=1500, noise=0.0, signed=True):
    model = SparseCoding if signed else NonnegativeSparseCoding
    truth = random_dictionary(m, n, random_state=seed)
    data = model(truth, k, noise=noise).sample(n_samples, random_state=seed).data
    return truth, torch.from_numpy(data)


def settings_of(k, signed=True, **others):
    return Polish(SubspacePursuit(k, signed), **others)


def of(data):
    return lambda n: data[:n]


def pursuit_losses(parameters, data, k, signed=True):
    codes = SubspacePursuit(k, signed)(parameters.dictionary, data)
    residual = data - codes.reconstruct(parameters.dictionary)
    return 0.5 * residual.square().sum(dim=1)


def mean_log(losses):
    return float(losses.log().mean())


# --- what it reaches -------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_without_noise_from_near_the_truth(seed, signed):
    truth, data = world(seed, m=48, n=48, k=2, signed=signed)
    begin = perturb(truth, 0.3, random_state=100 + seed)
    *_, last = rounds_of(parameters_of(begin), of(data), settings_of(2, signed))
    score = recovery(last.parameters.dictionary, truth, signs="free" if signed else "fixed")
    assert score.max_distance < 1e-5
    assert float(last.loss) < 1e-12 * float(last.variance)


def test_noise_leaves_little_more_than_its_share():
    truth, data = world(2, m=48, n=48, k=2, noise=0.05)
    begin = perturb(truth, 0.3, random_state=102)
    *_, last = rounds_of(parameters_of(begin), of(data), settings_of(2))
    assert recovery(last.parameters.dictionary, truth).max_distance < 0.1
    assert pursuit_losses(last.parameters, data, 2).mean() < 0.5 * 48 * 0.05**2


@pytest.mark.parametrize("seed", [3, 4])
def test_merged_atoms_are_split_on_the_way(monkeypatch, seed):
    truth, data = world(seed, m=48, n=48, k=2)
    begin = truth.copy()
    begin[0:6:2] += truth[1:6:2]  # three atoms stand for two each, and three for nothing
    begin[1:6:2] = np.random.default_rng(seed).standard_normal((3, 48))
    begin = parameters_of(begin / np.linalg.norm(begin, axis=1, keepdims=True))
    steps = list(rounds_of(begin, of(data), settings_of(2)))
    assert sum(step.replaced for step in steps) >= 1
    assert recovery(steps[-1].parameters.dictionary, truth).max_distance < 1e-6
    # Least squares alone does not find the way.
    monkeypatch.setattr(module, "split", lambda dictionary, *given: (dictionary, 0))
    *_, last = rounds_of(begin, of(data), settings_of(2))
    assert recovery(last.parameters.dictionary, truth).max_distance > 0.5


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_never_worse_than_it_was_given(seed, signed):
    # Few rows of pure noise, a random start, and a k that doesn't fit.
    rng = np.random.default_rng(seed)
    data = torch.from_numpy(rng.standard_normal((60, 10)))
    begin = parameters_of(random_dictionary(25, 10, random_state=seed))
    settings = settings_of(4, signed, tolerance=0.0, max_rounds=12)
    steps = list(rounds_of(begin, of(data), settings))
    first = pursuit_losses(begin, data, 4, signed)
    assert float(steps[0].loss) == pytest.approx(float(first.mean()))
    reached = [mean_log(pursuit_losses(step.parameters, data, 4, signed)) for step in steps]
    assert reached[0] == pytest.approx(mean_log(first))
    assert reached == sorted(reached, reverse=True)  # always the best so far


def test_the_best_is_kept_where_rounds_make_it_worse(monkeypatch):
    truth, data = world(4)
    begin = parameters_of(perturb(truth, 0.1, random_state=5))
    noise = torch.from_numpy(random_dictionary(40, 24, random_state=6))
    monkeypatch.setattr(module, "_solve", lambda *given, **named: noise)
    monkeypatch.setattr(module, "split", lambda dictionary, *given: (dictionary, 0))
    steps = list(rounds_of(begin, of(data), settings_of(3)))
    # A good round and a bad one, on 320, 1280 and 1500 rows.
    assert len(steps) == 6
    assert float(steps[1].loss) > 2 * float(steps[0].loss)
    for step in steps:
        assert torch.equal(step.parameters.dictionary, begin.dictionary)


# --- when it stops ---------------------------------------------------------------------------


@pytest.mark.parametrize("tolerance", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("patience", [1, 3])
@pytest.mark.parametrize("max_rounds", [1, 4, 50])
def test_stops_by_its_rule(monkeypatch, tolerance, patience, max_rounds):
    truth, data = world(7, m=24, n=16, noise=0.1, n_samples=2000)
    begin = parameters_of(perturb(truth, 0.5, random_state=8))
    monkeypatch.setattr(module, "split", lambda dictionary, *given: (dictionary, 0))
    seen = []

    def spied(parameters, rows, pursuit):
        losses = pursuit_losses(parameters, rows, 3)
        seen.append((len(rows), mean_log(losses), float(losses.mean().log())))
        return module_encode(parameters, rows, pursuit)

    module_encode = ranks.fast_sparse_encode
    monkeypatch.setattr(ranks, "fast_sparse_encode", spied)
    settings = settings_of(3, tolerance=tolerance, patience=patience, max_rounds=max_rounds)
    steps = list(rounds_of(begin, of(data), settings))
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    # The rule, once more: on to more rows after `patience` rounds that gain too little.
    best, stalled, rows = (np.inf, np.inf), 0, 8 * 24
    for index, (n_rows, *values) in enumerate(seen):
        assert n_rows == rows
        gains = [one - other for one, other in zip(best, values, strict=True)]
        stalled = 0 if max(gains) > tolerance else stalled + 1
        best = tuple(map(min, best, values))
        if stalled < patience:
            continue
        if rows == 2000:
            assert index + 1 == len(seen)
        best, stalled, rows = (np.inf, np.inf), 0, min(4 * rows, 2000)
    assert len(seen) == len(steps)
    assert len(steps) == max_rounds or (seen[-1][0] == 2000 and stalled == 0)
    progress = [step.progress for step in steps]
    assert progress[-1] == 1.0
    assert progress[:-1] == [pytest.approx(i / max_rounds) for i in range(1, len(steps))]


def test_stops_at_once_at_the_truth():
    truth, data = world(9, m=48, n=48, k=2)
    steps = list(rounds_of(parameters_of(truth), of(data), settings_of(2)))
    assert len(steps) == 1
    assert steps[0].progress == 1.0
    assert torch.equal(steps[0].parameters.dictionary, torch.from_numpy(truth))


def test_data_of_zeros():
    begin = parameters_of(random_dictionary(6, 4, random_state=0))
    steps = list(rounds_of(begin, of(torch.zeros(10, 4, dtype=torch.float64)), settings_of(2)))
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
    for step in rounds_of(begin, of(data), settings_of(3, max_rounds=5, first_users=1500)):
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


def test_one_round_of_least_squares_by_hand(monkeypatch):
    # With the codes right, the method of optimal directions is least squares of Y on X.
    truth, data = world(14, m=20, n=30, k=2, noise=0.1)
    settings = settings_of(2, tolerance=0.0, first_users=1500)
    monkeypatch.setattr(module, "_OUTLYING", np.inf)
    monkeypatch.setattr(module, "split", lambda dictionary, *given: (dictionary, 0))
    first, second, *_ = rounds_of(parameters_of(truth), of(data), settings)
    codes = SubspacePursuit(2)(torch.from_numpy(truth), data).dense(20)
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
    *_, last = rounds_of(parameters_of(rows), of(data), settings_of(2))
    assert last.number > 1
    np.testing.assert_array_equal(last.parameters.dictionary[-1], rows[-1])


@pytest.mark.parametrize("name", ["max_rounds", "patience", "first_users", "max_samples"])
def test_settings_are_counts(name):
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        settings_of(3, **{name: 0})


def test_the_pursuit_is_one():
    with pytest.raises(ArgumentError, match=r"^pursuit: found 3"):
        Polish(3)


@pytest.mark.parametrize("name", ["tolerance", "explained"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_the_tolerance_is_a_share(name, value):
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        settings_of(3, **{name: value})


# --- rows that are left out ------------------------------------------------------------------


def coded(indices):
    indices = torch.tensor(indices)
    return SparseCodes(indices, torch.ones(indices.shape, dtype=torch.float64))


def test_outlying_rows_are_left_out_but_not_those_of_a_wrong_atom():
    # Atoms 0 and 1 are right but for one row each of ten; atom 2 has five bad rows of ten.
    indices = [[0]] * 10 + [[1]] * 10 + [[2]] * 10
    losses = torch.full((30,), 1.0, dtype=torch.float64)
    bad = [0, 10, 20, 21, 22, 23, 24]
    losses[bad] = 100.0
    left_out = module._plainly_wrong(coded(indices), losses, 3)
    assert torch.nonzero(left_out).flatten().tolist() == [0, 10]
    # A row of a right atom and the wrong one: the wrong one may be the reason.
    shared = [[0, 2]] + [[0, 1]] * 10 + [[1, 2]] * 4
    losses = torch.full((15,), 1.0, dtype=torch.float64)
    losses[[0, 1, 11]] = 100.0
    left_out = module._plainly_wrong(coded(shared), losses, 3)
    assert torch.nonzero(left_out).flatten().tolist() == [1]


def test_without_outlying_rows_none_is_left_out():
    losses = torch.linspace(1, 2, 12, dtype=torch.float64)
    assert not module._plainly_wrong(coded([[0], [1]] * 6), losses, 2).any()


def test_a_few_rows_of_wrong_codes_do_not_move_the_solution():
    truth, data = world(17, m=20, n=30, k=2)
    data[::100] = 5 * torch.from_numpy(random_dictionary(15, 30, random_state=18))
    begin = parameters_of(perturb(truth, 0.1, random_state=19))
    *_, last = rounds_of(begin, of(data), settings_of(2))
    assert recovery(last.parameters.dictionary, truth).max_distance < 1e-5

"""Momentum descent against torch's own optimiser, and what it promises beside."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from shoal.data import open_source
from shoal.network.activations import Maxout, ReLU, Sigmoid, Softplus, Tanh
from shoal.network.penalties import (
    Contractive,
    Denoising,
    Marginalized,
    NoPenalty,
    SecondOrderDenoising,
)
from shoal.training import (
    WEIGHT_LENGTHS,
    MomentumSettings,
    arpit2016,
    begin,
    epochs,
    normalized_start,
    usage,
)
from shoal.vocabulary import ArgumentError, Parameters

EVERY_WAY = [
    *({"weight_length": length} for length in WEIGHT_LENGTHS),
    *({"weight_length": length, "weight_decay": 0.3} for length in WEIGHT_LENGTHS),
    {"tangent": True},
    {"tangent": True, "weight_decay": 0.3},
    {"weight_length": "free", "momentum": 0.0},
]


def rows(n_samples=60, n=7, seed=0):
    return np.random.default_rng([seed, n]).standard_normal((n_samples, n))


def start(m=9, n=7, length="unit", seed=1):
    """In float64, off the origin in the bias too."""
    rng = np.random.default_rng(seed)
    weights, bias = (
        part.double() for part in normalized_start(m, n, rng, unit=length == "unit")[:2]
    )
    weights = functional.normalize(weights) if length == "unit" else weights
    return Parameters(weights, bias + 0.1 * torch.from_numpy(rng.standard_normal(m)))


def train(parameters, source, activation, penalty, settings, rng):
    recipe = arpit2016(activation, penalty, source.n_samples or 1, settings)
    return epochs(begin(parameters, recipe.plan(), rng), source, recipe)


def trained(parameters, data, activation, penalty, settings, seed=3):
    rng = np.random.default_rng(seed)
    return list(train(parameters, open_source(data), activation, penalty, settings, rng))


# --- a step ----------------------------------------------------------------------------------


def objective(penalty, weights, bias, x, s):
    """The three objectives of the tests below, differentiable."""
    z = x @ weights.T + bias
    h = s(z)
    loss = (x - h @ weights).square().sum(dim=1).mean()
    if isinstance(penalty, NoPenalty):
        return loss
    slope = torch.autograd.grad(h.sum(), z, create_graph=True)[0]
    if isinstance(penalty, Contractive):
        extra = (slope.square() * weights.square().sum(dim=1)).sum(dim=1)
    else:
        bend = torch.autograd.grad(slope.sum(), z, create_graph=True)[0]
        gram = (weights @ weights.T).square()
        residual = (x - h @ weights) @ weights.T
        extra = ((slope @ gram) * slope).sum(dim=1)
        extra = extra - (residual * bend * weights.square().sum(dim=1)).sum(dim=1)
    return loss + penalty.strength * extra.mean()


def reference(parameters, data, s, penalty, settings, seed=3):
    """torch.optim.SGD on autograd's gradient, with the constraint after it."""
    weights, bias = (part.clone().requires_grad_() for part in parameters[:2])
    groups = [
        {"params": [weights], "weight_decay": 0.0 if settings.tangent else settings.weight_decay},
        {"params": [bias]},
    ]
    optimizer = torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
    rng = np.random.default_rng(seed)
    rng.integers(2**62)  # the seed of the noise, of which there is none here
    values = []
    for _ in range(settings.n_epochs):
        for batch in open_source(data).batches(settings.batch_size, rng=rng):
            optimizer.zero_grad()
            value = objective(penalty, weights, bias, torch.from_numpy(batch), s)
            value.backward()
            values.append(value.item())
            with torch.no_grad():
                if settings.tangent:
                    along = (weights.grad * weights).sum(dim=1, keepdim=True)
                    weights.grad -= along * weights
                optimizer.step()
                length = torch.linalg.vector_norm(weights, dim=1, keepdim=True)
                if settings.weight_length == "unit":
                    weights /= length
                elif settings.weight_length == "max-norm":
                    weights /= torch.where(length > 1, length, 1.0)
    return values, weights.detach(), bias.detach()


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
@pytest.mark.parametrize(
    "penalty", [NoPenalty(), Contractive(0.4), SecondOrderDenoising(0.2)], ids=str
)
@pytest.mark.parametrize("n_epochs", [1, 3])
def test_steps_are_those_of_sgd_with_momentum(way, penalty, n_epochs):
    # One step, then ten an epoch with a last one that is shorter.
    size = 60 if n_epochs == 1 else 7
    settings = MomentumSettings(0.02, batch_size=size, n_epochs=n_epochs, **way)
    parameters, data = start(length=settings.weight_length), rows()
    epochs = trained(parameters, data, Sigmoid(), penalty, settings)
    values, weights, bias = reference(parameters, data, torch.sigmoid, penalty, settings)
    assert [each.number for each in epochs] == list(range(1, n_epochs + 1))
    last, count = epochs[-1], -(-60 // size)
    assert last.steps == n_epochs * count == len(values)
    assert last.loss + last.penalty == pytest.approx(np.mean(values[-count:]), rel=1e-12)
    torch.testing.assert_close(last.parameters.dictionary, weights, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(last.parameters.bias, bias, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("activation", [ReLU(), Softplus(), Tanh(), Maxout(3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_atoms_have_their_length_after_every_epoch(activation, dtype):
    for length in ("unit", "max-norm"):
        settings = MomentumSettings(0.05, batch_size=8, n_epochs=3, weight_length=length)
        parameters = start(length=length).map(lambda part: part.to(dtype))
        for epoch in trained(parameters, rows(), activation, Denoising(0.1), settings):
            weights = epoch.parameters.dictionary
            assert weights.dtype == epoch.parameters.bias.dtype == dtype
            found = torch.linalg.vector_norm(weights.double(), dim=1)
            slack = 4 * torch.finfo(dtype).eps
            assert found.max() <= 1 + slack
            if length == "unit":
                assert found.min() >= 1 - slack


def test_an_atom_without_length_stays_finite():
    parameters = start()
    parameters.dictionary[2] = 0.0
    parameters.bias[2] = -100.0  # never active, so never moved
    settings = MomentumSettings(0.01, n_epochs=1)
    (epoch,) = trained(parameters, rows(), ReLU(), NoPenalty(), settings)
    assert (epoch.parameters.dictionary[2] == 0).all()


def test_the_objective_falls():
    settings = MomentumSettings(0.01, batch_size=10, n_epochs=20)
    for penalty in (NoPenalty(), Denoising(0.1), Contractive(0.1)):
        epochs = trained(start(), rows(200), Sigmoid(), penalty, settings)
        values = [each.loss + each.penalty for each in epochs]
        assert values[-1] < 0.9 * values[0]
        assert (epochs[-1].penalty > 0) == isinstance(penalty, Contractive)


# --- strength and the sphere -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_the_sphere_the_strength_is_without_effect_on_relu(dtype):
    # ReLU's penalty acts along the atoms alone: the projected gradient doesn't have it at all.
    settings = MomentumSettings(0.02, batch_size=7, n_epochs=4, tangent=True)
    parameters = start().map(lambda part: part.to(dtype))
    runs = [
        trained(parameters, rows(), ReLU(), make(strength), settings)[-1]
        for make in (Contractive, Marginalized)
        for strength in (0.0, 0.1, 1.0, 30.0)
    ]
    for run in runs:
        assert all(map(torch.equal, run.parameters[:2], runs[0].parameters[:2]))
        assert run.usage == runs[0].usage
        assert run.loss == runs[0].loss
    free = MomentumSettings(0.02, batch_size=7, n_epochs=4)
    pulled = [
        trained(parameters, rows(), ReLU(), Contractive(strength), free)[-1].parameters.dictionary
        for strength in (0.0, 1.0)
    ]
    assert not torch.equal(*pulled)  # not projected, the velocity has it


def test_on_the_sphere_the_two_penalties_are_one():
    settings = MomentumSettings(0.02, batch_size=7, n_epochs=4, tangent=True)
    one, other = (
        trained(start(), rows(), Sigmoid(), make(0.8), settings)[-1]
        for make in (Contractive, Marginalized)
    )
    for found, expected in zip(one.parameters[:2], other.parameters[:2], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert one.penalty == pytest.approx(other.penalty, rel=1e-12)


# --- what callers may rely on ----------------------------------------------------------------


def test_a_seed_gives_the_same_bits_and_inputs_stay():
    settings = MomentumSettings(0.02, batch_size=7, n_epochs=3)
    parameters, data = start(), rows()
    before = [part.clone() for part in parameters[:2]], data.copy()
    first, again, other = (
        trained(parameters, data, Sigmoid(), Denoising(0.3), settings, seed) for seed in (3, 3, 4)
    )
    for one, two in zip(first, again, strict=True):
        assert all(map(torch.equal, one.parameters[:2], two.parameters[:2]))
        assert one[:2] + one[3:] == two[:2] + two[3:]
    assert not torch.equal(first[-1].parameters.dictionary, other[-1].parameters.dictionary)
    assert all(map(torch.equal, parameters[:2], before[0]))
    assert (data == before[1]).all()


def test_an_epoch_is_not_changed_by_the_next():
    settings = MomentumSettings(0.02, batch_size=7, n_epochs=2)
    rng = np.random.default_rng(3)
    flow = train(start(), open_source(rows()), ReLU(), NoPenalty(), settings, rng)
    first = next(flow)
    kept = [part.clone() for part in first.parameters[:2]]
    second = next(flow)
    assert all(map(torch.equal, first.parameters[:2], kept))
    assert not torch.equal(second.parameters.dictionary, kept[0])


def test_a_stream_is_refused():
    source = open_source(iter([rows(), rows()]))
    flow = train(start(), source, ReLU(), NoPenalty(), MomentumSettings(), np.random.default_rng(0))
    with pytest.raises(ArgumentError, match=r"^source: .*stream"):
        next(flow)


@pytest.mark.parametrize("n_epochs", [1, 9])
def test_divergence_names_the_learning_rate(n_epochs):
    settings = MomentumSettings(3.0, batch_size=6, n_epochs=n_epochs, weight_length="free")
    with pytest.raises(ArgumentError, match=r"^learning_rate: .*3.*diverged") as caught:
        trained(start(length="free"), 10 * rows(), ReLU(), Denoising(0.1), settings)
    assert "smaller" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
        ({"batch_size": 0}, "batch_size"),
        ({"n_epochs": 0}, "n_epochs"),
        ({"weight_length": "short"}, "weight_length"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"weight_length": "free", "tangent": True}, "tangent"),
        ({"weight_length": "max-norm", "tangent": True}, "tangent"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: "):
        MomentumSettings(**settings)


@pytest.mark.parametrize("length", WEIGHT_LENGTHS)
def test_the_start(length):
    found = normalized_start(30, 20, np.random.default_rng(0), unit=length == "unit")
    assert found.dictionary.dtype == found.bias.dtype == torch.float32
    assert found.bias.count_nonzero() == 0
    bound = (6 / 50) ** 0.5
    drawn = np.random.default_rng(0).uniform(-bound, bound, size=(30, 20)).astype(np.float32)
    expected = torch.from_numpy(drawn)
    if length == "unit":
        expected = functional.normalize(expected)
    torch.testing.assert_close(found.dictionary, expected)


# --- usage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [ReLU(), Sigmoid(), Softplus(), Tanh(), Maxout(3)], ids=str)
def test_usage_counts_what_is_above_the_threshold(activation):
    parameters, data = start(), rows(1500)  # more than one of the batches it reads
    parameters.bias[[1, 5]] = -30.0
    parameters.bias[2] = -2.5  # seldom above it
    found = usage(parameters, open_source(data), activation)
    z = torch.from_numpy(data) @ parameters.dictionary.T + parameters.bias
    codes = activation(z).codes.tolist()
    above = [[code > activation.delta_min for code in row] for row in codes]
    assert found.activation_fraction == pytest.approx(np.mean(above))
    assert found.dead_fraction == pytest.approx(np.mean(~np.any(above, axis=0)))
    assert found.dead_fraction >= 2 / 9
    assert 0 < found.activation_fraction < 1


def test_an_epoch_measures_the_usage_of_its_parameters():
    settings = MomentumSettings(0.02, batch_size=7, n_epochs=2)
    data = rows()
    for epoch in trained(start(), data, ReLU(), NoPenalty(), settings):
        assert epoch.usage == usage(epoch.parameters, open_source(data), ReLU())


def test_of_many_samples_ten_thousand_are_measured():
    data = rows(25_000, n=2)
    settings = MomentumSettings(0.001, batch_size=5000, n_epochs=1)
    (epoch,) = trained(start(3, 2), data, ReLU(), NoPenalty(), settings)
    even = data[np.linspace(0, 24_999, 10_000).round().astype(int)]
    assert epoch.usage == usage(epoch.parameters, open_source(even), ReLU())

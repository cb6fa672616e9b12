"""Full batches remembered: the same sums as a step that encodes all, for less work."""

import numpy as np
import pytest
import torch

from made import update
from shoal.generative import NonnegativeSparseCoding, SparseCoding, perturb, random_dictionary
from shoal.network import HardThreshold, ReLU, Sigmoid, TopK
from shoal.network.kernels import cpu, reference, repeated, use
from shoal.network.kernels.lazy import LazySteps
from shoal.training import ExponentialDecay, NormalizedStep
from shoal.vocabulary import Parameters


def world(signed=True, n=64, m=256, k=3, n_samples=1500, distance=0.5, dtype=torch.float32):
    truth = random_dictionary(m, n, random_state=0)
    model = SparseCoding if signed else NonnegativeSparseCoding
    data = model(truth, sparsity=k, low=1.0, high=2.0).sample(n_samples, random_state=1).data
    start = perturb(truth, distance, random_state=2)
    dictionary, rows = (torch.from_numpy(array).to(dtype) for array in (start, data))
    return Parameters(dictionary, torch.zeros(m, dtype=dtype)), rows


def descent(parameters, steps, n_steps=40, rate=0.5):
    """Parameters and sums of a full-batch descent whose step size decays."""
    step_size = NormalizedStep(ExponentialDecay(rate, 0.01, n_steps))
    for index in range(n_steps):
        sums = steps(parameters)
        yield parameters, sums
        parameters = update(parameters, sums, step_size, index)


def same(found, expected):
    """The same decisions, and sums up to rounding."""
    assert torch.equal(found.counts, expected.counts)
    rtol = 1e-4 if found.losses.dtype == torch.float32 else 1e-11
    for one, other in zip(found[:5], expected[:5], strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * float(other.abs().max()))


ACTIVATIONS = [
    TopK(3),
    TopK(3, signed=False),
    TopK(1),
    HardThreshold(1.2),
    HardThreshold(1.2, signed=False),
    ReLU(),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_every_step_of_a_descent_is_the_step_that_encodes_all(activation, dtype):
    signed = getattr(activation, "signed", False)
    parameters, data = world(signed, distance=0.2, dtype=dtype)
    if activation == ReLU():
        parameters = parameters._replace(bias=torch.full_like(parameters.bias, -1.2))
    steps, less = LazySteps(data, activation), 0
    for now, sums in descent(parameters, steps, 15, rate=0.2):
        same(sums, cpu.step(now, data, activation))
        less += steps.encoded < len(data)
    assert less >= 5  # something was remembered


def test_near_convergence_hardly_a_row_is_encoded():
    parameters, data = world(n_samples=3000)
    steps = LazySteps(data, TopK(3))
    cost = [
        (steps.encoded + steps.products / 256) / len(data) for _ in descent(parameters, steps, 60)
    ]
    assert cost[0] >= 1
    assert np.mean(cost[30:]) < 0.2  # products an iteration
    assert np.mean(cost[30:]) > 0.01  # what lists cost is counted


def test_a_bias_that_moves_counts_as_movement():
    parameters, data = world(signed=False, distance=0.1)
    steps = LazySteps(data, ReLU())
    for bias in (-1.5, -1.5, -1.2, -0.9, -0.9, -1.4):
        now = parameters._replace(bias=torch.full_like(parameters.bias, bias))
        same(steps(now), cpu.step(now, data, ReLU()))


@pytest.mark.parametrize("activation", [TopK(3), HardThreshold(1.2)], ids=str)
def test_an_atom_that_jumps_is_seen(activation):
    parameters, data = world(distance=0.1)
    steps = LazySteps(data, activation)
    steps(parameters)
    same(steps(parameters), cpu.step(parameters, data, activation))
    assert steps.encoded == 0
    dictionary = parameters.dictionary.clone()
    dictionary[7] = torch.nn.functional.normalize(data[5], dim=0)  # as a revival does
    moved = parameters._replace(dictionary=dictionary)
    same(steps(moved), cpu.step(moved, data, activation))
    same(steps(parameters), cpu.step(parameters, data, activation))  # and back


def test_small_moves_add_up():
    # Each far below what could change a decision, all in one direction.
    parameters, data = world(distance=0.0)
    other, _ = world(distance=1.2)
    steps = LazySteps(data, TopK(3))
    for share in np.linspace(0, 1, 80):
        dictionary = (1 - share) * parameters.dictionary + share * other.dictionary
        now = parameters._replace(dictionary=torch.nn.functional.normalize(dictionary))
        same(steps(now), cpu.step(now, data, TopK(3)))


def test_lists_grow_with_the_number_of_active_units():
    parameters, data = world(signed=False, n_samples=400, distance=0.1)
    data[::7] *= 4  # rows with far more active units than most
    steps = LazySteps(data, ReLU())
    for bias in (-2.5, -2.5, -1.6, -1.6):
        now = parameters._replace(bias=torch.full_like(parameters.bias, bias))
        same(steps(now), cpu.step(now, data, ReLU()))


@pytest.mark.parametrize("activation", [Sigmoid(), TopK(60), ReLU()], ids=str)
def test_where_lists_would_be_too_long_all_is_encoded(activation):
    parameters, data = world(n_samples=300)
    steps = LazySteps(data, activation)
    for _ in range(2):
        same(steps(parameters), cpu.step(parameters, data, activation))
        assert steps.encoded == len(data)


def test_ties_between_a_listed_and_an_unlisted_unit():
    # All atoms equal: whatever is listed, the unit of the lowest index wins.
    dictionary = torch.zeros(200, 4)
    dictionary[:, 0] = 1
    parameters = Parameters(dictionary, torch.zeros(200))
    data = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    steps = LazySteps(data, TopK(2))
    for _ in range(3):
        sums = steps(parameters)
        assert torch.equal(sums.counts, reference.step(parameters, data, TopK(2)).counts)
        assert sums.counts[:2].tolist() == [50, 50]


def test_repeated_is_lazy_for_the_cpu_kernel_and_plain_for_the_reference():
    parameters, data = world(n_samples=100)
    assert isinstance(repeated(data, TopK(3)), LazySteps)
    with use("reference"):
        plain = repeated(data, TopK(3))
    assert not isinstance(plain, LazySteps)
    same(plain(parameters), reference.step(parameters, data, TopK(3)))

"""An encoder of its own, thresholds, an offset: judged by autograd and by finite differences."""

import numpy as np
import pytest
import torch

from shoal.network import TopK, kernels, loss
from shoal.network.activations import BatchTopK, JumpReLU, Softplus, at_rest
from shoal.network.kernels import choose, reference
from shoal.network.penalties import (
    L1,
    Contractive,
    Denoising,
    KLSparse,
    NoPenalty,
    SecondOrderDenoising,
)
from shoal.vocabulary import ArgumentError, Parameters


def problem(m=7, n=5, n_samples=40, seed=0, **more):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return torch.from_numpy(rng.standard_normal(shape))

    parts = {"encoder": normal(m, n), "threshold": normal(m).abs(), "offset": normal(n)}
    chosen = {name: parts[name] for name in parts if more.get(name)}
    return Parameters(normal(m, n), normal(m), **chosen), normal(n_samples, n)


def leaves(parameters):
    return parameters.map(lambda part: part.clone().requires_grad_())


EVERY = [
    {"encoder": True},
    {"offset": True},
    {"encoder": True, "offset": True},
]


@pytest.mark.parametrize("more", EVERY, ids=str)
@pytest.mark.parametrize("activation", [Softplus(), TopK(3)], ids=str)
def test_a_step_has_the_gradient_of_every_part(more, activation):
    parameters, data = problem(**more)
    free = leaves(parameters)
    value = loss(free, data, activation)
    expected = torch.autograd.grad(value, free.parts())
    sums = choose(data, parameters, activation).step(parameters, data, activation)
    torch.testing.assert_close(sums.losses.mean(), value.detach())
    found = [sums.gradient(parameters.dictionary), *sums.slopes()]
    found = [each for each in found if each is not None]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("more", [{"encoder": True, "offset": True}], ids=str)
@pytest.mark.parametrize("penalty", [NoPenalty(), L1(0.3), KLSparse(0.2)], ids=str)
def test_a_penalty_of_the_codes_has_it_too(more, penalty):
    parameters, data = problem(**more)
    activation = Softplus()
    free = leaves(parameters)
    codes = activation(data @ free.encoder.T + free.bias).codes
    rebuilt = codes @ free.dictionary + free.offset
    value = (data - rebuilt).square().sum(dim=1).mean()
    mean = codes.mean(dim=0)
    if isinstance(penalty, L1):
        value = value + 0.3 * mean.sum()
    if isinstance(penalty, KLSparse):
        value = value - 0.2 * torch.log(1 - mean.clamp(max=0.99)).sum()
    expected = torch.autograd.grad(value, free.parts())
    terms = penalty(parameters, data, activation)
    found = (terms.gradient(parameters.dictionary), *terms.slopes())
    for one, other in zip([each for each in found if each is not None], expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("penalty", [Contractive(0.1), SecondOrderDenoising(0.1)], ids=str)
def test_a_penalty_of_the_weights_asks_for_tied_ones(penalty):
    parameters, data = problem(encoder=True)
    with pytest.raises(ArgumentError, match=r"^penalty: .*tied weights"):
        penalty(parameters, data, Softplus())


def test_the_threshold_moves_as_the_expected_loss_does():
    # Of many samples the mean loss is smooth in the threshold, and a difference of it is what the
    # straight-through estimate stands for.
    parameters, data = problem(m=1, n=3, n_samples=400_000, seed=3, threshold=True)
    parameters = parameters._replace(threshold=torch.tensor([0.6], dtype=torch.float64))
    activation = JumpReLU(window=0.1)
    sums = reference.step(parameters, data, activation)
    wide = 0.1
    ends = [
        float(loss(parameters._replace(threshold=parameters.threshold + by), data, activation))
        for by in (-wide, wide)
    ]
    slope = (ends[1] - ends[0]) / (2 * wide)
    assert float(sums.slopes()[2]) == pytest.approx(slope, rel=0.1)
    assert abs(slope) > 0.05


def test_jumprelu_by_hand():
    z = torch.tensor([[0.5, 0.9, 1.1, 1.2]], dtype=torch.float64)
    theta = torch.ones(4, dtype=torch.float64)
    codes, slope = JumpReLU()(z, theta)
    assert codes.tolist() == [[0, 0, 1.1, 1.2]]
    assert slope.tolist() == [[0, 0, 1, 1]]
    assert JumpReLU(window=0.25).by_threshold(z, theta).tolist() == [[0, -4, -4, 0]]


# --- batch-wise ------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [40, 300, 2048])
def test_a_batchwise_activation_is_never_cut(monkeypatch, m):
    rng = np.random.default_rng(0)
    n, size = 24, 900
    rows = rng.standard_normal((m, n))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    # Rows of very different size, so that tiles would share their units otherwise.
    data = rng.standard_normal((size, n)) * np.repeat([0.2, 3.0, 1.0], size // 3)[:, None]
    parameters = Parameters(torch.from_numpy(rows), torch.zeros(m).double())
    y = torch.from_numpy(data)
    monkeypatch.setattr(reference, "_TILE", 128)
    found = choose(y, parameters, BatchTopK(4)).step(parameters, y, BatchTopK(4))
    z = y @ parameters.dictionary.T
    kept = torch.zeros(z.numel(), dtype=torch.bool)
    kept[z.flatten().topk(4 * size).indices] = True
    codes = torch.where(kept.reshape(z.shape), z, 0.0)
    assert torch.equal(found.counts, (codes != 0).sum(dim=0).double())
    residual = y - codes @ parameters.dictionary
    back = kept.reshape(z.shape) * (residual @ parameters.dictionary.T)
    expected = -(codes.T @ residual + back.T @ y)
    torch.testing.assert_close(found.dictionary, expected)
    with kernels.use("reference"):
        other = choose(y, parameters, BatchTopK(4)).step(parameters, y, BatchTopK(4))
    assert torch.equal(other.counts, found.counts)


def test_at_rest():
    assert isinstance(at_rest(BatchTopK(3)), JumpReLU)
    assert at_rest(TopK(3)) == TopK(3)


def test_noise_asks_for_no_derivative():
    parameters, data = problem()
    generator = torch.Generator().manual_seed(0)
    terms = Denoising(0.1)(parameters, data, TopK(2), generator)
    assert bool(torch.isfinite(terms.gradient(parameters.dictionary)).all())

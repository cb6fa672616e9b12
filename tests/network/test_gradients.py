"""The hand-written gradient before three judges: autograd, finite differences, closed forms."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from shoal.network import (
    HardThreshold,
    ReLU,
    Sigmoid,
    Softplus,
    TopK,
    approximate_gradient,
    encode,
    loss,
    loss_and_gradient,
    preactivation,
    reconstruct,
    sample_gradient,
)
from shoal.network.kernels import choose, cpu, reference
from shoal.vocabulary import Parameters, active


def screened(dtype):
    """The CPU kernel with its product in `dtype`, whatever this machine would choose."""
    functions = {
        name: partial(getattr(cpu, name), screen=dtype)
        for name in ("step", "encode", "sparse_encode")
    }
    return SimpleNamespace(__name__=f"cpu-{dtype}", **functions)


# A new kernel joins by a line here.
KERNELS = [reference, cpu, screened(None), screened(torch.bfloat16), screened(torch.float32)]

GATES = [
    ReLU(),
    HardThreshold(0.0),
    HardThreshold(0.7),
    HardThreshold(0.7, signed=False),
    HardThreshold(1e9),  # nobody is active
    TopK(1),
    TopK(3),
    TopK(3, signed=False),
    TopK(1000),  # everybody is
]
SMOOTH = [Sigmoid(), Softplus()]
EVERY = [*GATES, *SMOOTH]
SHAPES = [(9, 7, 5), (8, 5, 11), (1, 6, 4), (7, 1, 4), (6, 5, 1), (1, 1, 1), (33, 17, 16)]  # B m n

every_activation = pytest.mark.parametrize("activation", EVERY, ids=str)
every_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)


def problem(shape=(9, 7, 5), seed=0, dtype=torch.float64):
    """Parameters and data with no structure: not unit atoms, a bias, no decision at a tie."""
    n_samples, m, n = shape
    rng = np.random.default_rng([seed, *shape])
    arrays = rng.standard_normal((m, n)), 0.3 * rng.standard_normal(m)
    data = rng.standard_normal((n_samples, n))
    dictionary, bias = (torch.from_numpy(array).to(dtype) for array in arrays)
    return Parameters(dictionary, bias), torch.from_numpy(data).to(dtype)


def autograd(parameters, data, activation):
    leaves = parameters.map(lambda part: part.clone().requires_grad_())
    return torch.autograd.grad(loss(leaves, data, activation), leaves[:2])


def close(found, expected, rtol=1e-12, atol=1e-12):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


# --- the forward pass ------------------------------------------------------------------------


def test_the_forward_pass_by_hand():
    parameters = Parameters(torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([0.5, -1.0]))
    data = torch.tensor([[1.0, 2.0], [-1.0, 0.0]])
    assert preactivation(parameters, data).tolist() == [[1.5, 10.0], [-0.5, -4.0]]
    codes = encode(parameters, data, ReLU())
    assert codes.tolist() == [[1.5, 10.0], [0.0, 0.0]]
    assert reconstruct(parameters, codes).tolist() == [[31.5, 40.0], [0.0, 0.0]]
    # residuals (-30.5, -38) and (-1, 0); half of their squares, averaged over two samples
    assert loss(parameters, data, ReLU()).item() == pytest.approx((30.5**2 + 38**2 + 1) / 4)


def test_orthonormal_atoms_reconstruct_exactly():
    rng = np.random.default_rng(0)
    basis = torch.from_numpy(np.linalg.qr(rng.standard_normal((6, 6)))[0])
    data = torch.from_numpy(rng.standard_normal((10, 6)))
    assert loss(Parameters(basis, torch.zeros(6).double()), data, TopK(6)).item() < 1e-28


# --- judge 1: autograd -----------------------------------------------------------------------


@every_activation
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_autograd(activation, shape):
    parameters, data = problem(shape)
    value, found = loss_and_gradient(parameters, data, activation)
    torch.testing.assert_close(value, loss(parameters, data, activation))
    assert found.dictionary.shape == parameters.dictionary.shape
    assert found.bias.shape == parameters.bias.shape
    close(found, autograd(parameters, data, activation))


# --- judge 2: finite differences -------------------------------------------------------------


@every_activation
def test_equals_finite_differences(activation):
    parameters, data = problem((6, 5, 4), seed=1)
    found = sample_gradient(parameters, data, activation)
    support = active(encode(parameters, data, activation))
    h = 1e-6
    for name in ("dictionary", "bias"):
        part = getattr(parameters, name)
        numeric = torch.zeros_like(part)
        for at in np.ndindex(tuple(part.shape)):
            values = []
            for sign in (1, -1):
                moved = part.clone()
                moved[at] += sign * h
                there = parameters._replace(**{name: moved})
                # No decision may change, or the loss jumps between the two points.
                assert torch.equal(active(encode(there, data, activation)), support)
                values.append(loss(there, data, activation).item())
            numeric[at] = (values[0] - values[1]) / (2 * h)
        torch.testing.assert_close(getattr(found, name), numeric, rtol=1e-6, atol=1e-7)


# --- judge 3: closed forms -------------------------------------------------------------------


def test_all_units_active_is_the_linear_autoencoder():
    # With second moment C, mean mu, P = D^T D and c = b D, the residual is y (I - P) - c.
    parameters, data = problem((40, 4, 6), seed=2)
    dictionary, bias = (part.numpy() for part in parameters[:2])
    y = data.numpy()
    second, mean = y.T @ y / len(y), y.mean(axis=0)
    rest = np.eye(6) - dictionary.T @ dictionary
    shift = bias @ dictionary
    decoder = (
        dictionary @ second @ rest
        - np.outer(dictionary @ mean, shift)
        + np.outer(bias, mean @ rest)
        - np.outer(bias, shift)
    )
    encoder = dictionary @ (rest @ second - np.outer(shift, mean))
    found = sample_gradient(parameters, data, TopK(4))
    np.testing.assert_allclose(found.dictionary, -(decoder + encoder), rtol=1e-11)
    np.testing.assert_allclose(found.bias, -dictionary @ (mean @ rest - shift), rtol=1e-11)


def test_the_top_principal_components_are_stationary_for_the_linear_autoencoder():
    rng = np.random.default_rng(3)
    data = rng.standard_normal((200, 6)) * np.array([5, 4, 3, 2, 1, 0.5])
    components = np.linalg.svd(data, full_matrices=False)[2][:3].copy()
    parameters = Parameters(torch.from_numpy(components), torch.zeros(3, dtype=torch.float64))
    found = sample_gradient(parameters, torch.from_numpy(data), TopK(3))
    assert found.dictionary.abs().max() < 1e-12


def test_the_largest_unit_on_orthonormal_atoms():
    # The winner's residual is orthogonal to it, so dL/dD_i = -z_i (y - z_i D_i), and 0 for b.
    rng = np.random.default_rng(4)
    basis = np.linalg.qr(rng.standard_normal((5, 5)))[0].T.copy()
    data = rng.standard_normal((30, 5))
    expected = np.zeros((5, 5))
    for y in data:
        z = basis @ y
        i = int(np.abs(z).argmax())
        expected[i] -= z[i] * (y - z[i] * basis[i]) / len(data)
    parameters = Parameters(torch.from_numpy(basis), torch.zeros(5, dtype=torch.float64))
    found = sample_gradient(parameters, torch.from_numpy(data), TopK(1))
    np.testing.assert_allclose(found.dictionary, expected, atol=1e-14)
    np.testing.assert_allclose(found.bias, 0.0, atol=1e-14)


def test_vanishes_at_the_truth_of_sparse_data_on_orthonormal_atoms():
    rng = np.random.default_rng(5)
    basis = np.linalg.qr(rng.standard_normal((8, 8)))[0].T.copy()
    codes = np.where(rng.random((50, 8)) < 0.3, rng.choice([-1.0, 1.0], (50, 8)), 0.0)
    parameters = Parameters(torch.from_numpy(basis), torch.zeros(8, dtype=torch.float64))
    found = sample_gradient(parameters, torch.from_numpy(codes @ basis), HardThreshold(0.5))
    assert max(part.abs().max() for part in found) < 1e-13


# --- inactive units --------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [ReLU(), HardThreshold(1.0), TopK(2)], ids=str)
def test_a_unit_that_is_never_active_has_no_gradient(activation):
    parameters, data = problem((20, 7, 5), seed=6)
    dictionary = parameters.dictionary.clone()
    bias = parameters.bias.clone()
    dictionary[3] *= 1e-3
    bias[3] = -0.01  # z_3 is about -0.01 throughout: below 0, small, never among the largest
    silent = Parameters(dictionary, bias)
    assert not active(encode(silent, data, activation))[:, 3].any()
    for gradient in (sample_gradient, approximate_gradient):
        found = gradient(silent, data, activation)
        assert (found.dictionary[3] == 0).all()
        assert found.bias[3] == 0
        assert (found.dictionary.abs().sum(dim=1) > 0).sum() >= 5
        assert (found.bias != 0).sum() >= 5


# --- the approximate gradient ----------------------------------------------------------------


def literal_approximation(parameters, data, activation):
    """Nguyen et al. 2018, before eq. (5), sample by sample and unit by unit.

    -1[x_i != 0] ((W_i^T y + b_i) I + y W_i^T) (y - W x)
    """
    weights, bias = (part.numpy() for part in parameters[:2])
    codes = encode(parameters, data, activation).numpy()
    dictionary_sum, bias_sum = np.zeros_like(weights), np.zeros_like(bias)
    for y, x in zip(data.numpy(), codes, strict=True):
        residual = y - sum(x[i] * weights[i] for i in range(len(weights)))
        for i, atom in enumerate(weights):
            if x[i] != 0:
                matrix = (atom @ y + bias[i]) * np.eye(len(y)) + np.outer(y, atom)
                dictionary_sum[i] -= matrix @ residual
                bias_sum[i] -= atom @ residual
    return torch.from_numpy(dictionary_sum / len(data)), torch.from_numpy(bias_sum / len(data))


@every_activation
def test_the_approximation_is_the_equation(activation):
    parameters, data = problem(seed=7)
    found = approximate_gradient(parameters, data, activation)
    close(found, literal_approximation(parameters, data, activation))


@pytest.mark.parametrize("activation", GATES, ids=str)
def test_the_approximation_is_exact_for_gates(activation):
    parameters, data = problem(seed=8)
    found = approximate_gradient(parameters, data, activation)
    close(found, sample_gradient(parameters, data, activation))


@pytest.mark.parametrize("activation", SMOOTH, ids=str)
def test_the_approximation_differs_for_smooth_activations(activation):
    parameters, data = problem(seed=9)
    found = approximate_gradient(parameters, data, activation)
    exact = sample_gradient(parameters, data, activation)
    for one, other in zip(found, exact, strict=True):
        assert (one - other).norm() > 0.1 * other.norm()


# --- kernels ---------------------------------------------------------------------------------


@every_kernel
@every_activation
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kernel_gives_the_sums_it_promises(kernel, activation, shape, dtype):
    parameters, data = problem(shape, seed=10, dtype=dtype)
    wide = parameters.map(lambda part: part.double())
    codes = encode(wide, data.double(), activation)
    expected = autograd(wide, data.double(), activation)
    residual = data.double() - codes @ wide.dictionary

    sums = kernel.step(parameters, data, activation)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-4

    def check(found, judge):
        assert found.dtype == dtype
        assert found.shape == judge.shape
        torch.testing.assert_close(found.double(), judge, rtol=tolerance, atol=tolerance)

    check(sums.dictionary, expected[0] * shape[0])
    check(sums.bias, expected[1] * shape[0])
    check(sums.losses, 0.5 * residual.square().sum(dim=1))
    check(sums.counts, active(codes).sum(dim=0).double())
    check(sums.energy, codes.square().sum(dim=0))
    assert sums.n_samples == shape[0]
    check(kernel.encode(parameters, data, activation), codes)


@every_kernel
@every_activation
def test_sums_add_over_chunks(kernel, activation):
    parameters, data = problem((17, 7, 5), seed=11)
    whole = kernel.step(parameters, data, activation)
    parts = [kernel.step(parameters, chunk, activation) for chunk in data.split(5)]
    for name in ("dictionary", "bias", "counts", "energy"):
        total = torch.stack([getattr(part, name) for part in parts]).sum(dim=0)
        torch.testing.assert_close(total, getattr(whole, name), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat([part.losses for part in parts]), whole.losses)
    assert sum(part.n_samples for part in parts) == whole.n_samples


@every_kernel
@every_activation
def test_memory_layout_does_not_matter_and_inputs_stay(kernel, activation):
    parameters, data = problem((12, 7, 6), seed=12)
    wide = torch.zeros(24, 12, dtype=torch.float64)
    wide[::2, ::2] = data
    odd = Parameters(
        parameters.dictionary.T.contiguous().T, torch.stack([parameters.bias] * 2, dim=1)[:, 0]
    )
    for view in (data.T.contiguous().T, wide[::2, ::2]):
        assert not any(part.is_contiguous() for part in (*odd[:2], view))
        before = [part.clone() for part in (*odd[:2], view)]
        found = kernel.step(odd, view, activation)
        expected = kernel.step(parameters, data, activation)
        close(found[:5], expected[:5])
        kernel.encode(odd, view, activation)
        assert all(map(torch.equal, (*odd[:2], view), before))


@pytest.mark.parametrize("gradient", [sample_gradient, approximate_gradient])
def test_the_gradient_leaves_its_inputs_alone(gradient):
    parameters, data = problem(seed=13)
    before = [part.clone() for part in (*parameters[:2], data)]
    gradient(parameters, data, TopK(2))
    assert all(map(torch.equal, (*parameters[:2], data), before))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_chosen_kernel_is_one_of_the_list(dtype):
    data = torch.zeros(2, 3, dtype=dtype)
    assert choose(data) in KERNELS  # a kernel that isn't tested above can't be chosen

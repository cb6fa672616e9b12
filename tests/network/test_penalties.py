"""Regularised objectives before three judges: autograd, finite differences, closed forms."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from shoal.network import penalties
from shoal.network.activations import Maxout, ReLU, Sigmoid, Softplus, Tanh
from shoal.network.penalties import (
    L1,
    MEAN_FUNCTIONS,
    PENALTIES,
    Contractive,
    Denoising,
    FirstOrderDenoising,
    HigherOrderContractive,
    KLSparse,
    Marginalized,
    MeanActivation,
    NoPenalty,
    SecondOrderDenoising,
    SlopePenalty,
    penalty_named,
)
from shoal.vocabulary import ArgumentError, Parameters

ACTIVATIONS = [ReLU(), Sigmoid(), Softplus(), Tanh(), Maxout(3)]
SMOOTH = [Sigmoid(), Softplus(), Tanh()]
EVERY = [
    *(penalty_named(name, 0.3) for name in PENALTIES),
    Denoising(0.0),
    Denoising(0.2, draws=3),
    Denoising(0.2, draws=2, antithetic=True),
    FirstOrderDenoising(0.2, draws=3),
    HigherOrderContractive(0.3, gamma=0.7, noise=0.2, draws=2),
    KLSparse(0.3, rho=0.2),
    Denoising(0.3, noise="masking"),
    Denoising(0.3, draws=2, noise="masking"),
    *(MeanActivation(0.3, f) for f in MEAN_FUNCTIONS if f != "identity"),
    MeanActivation(0.3, torch.sinh),
    *(SlopePenalty(0.3, q, p) for q, p in ((1, 0), (1, 1), (2, 4), (3, 2), (4, 3), (1, 5))),
]
SHAPES = [(9, 6, 5), (1, 9, 4), (7, 3, 1), (1, 3, 1), (33, 21, 17)]  # B m n; 3 divides m


def shown(penalty):
    """Without the address of a function, which differs from process to process."""
    return str(penalty).partition(" of type object")[0]


every_penalty = pytest.mark.parametrize("penalty", EVERY, ids=shown)
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)


def problem(shape=(9, 6, 5), seed=0, dtype=torch.float64):
    """Parameters and data with no structure; unit 1 is silent under ReLU and in its run of 3."""
    size, m, n = shape
    rng = np.random.default_rng([seed, *shape])
    weights = rng.standard_normal((m, n)) / math.sqrt(n)
    bias = 0.3 * rng.standard_normal(m) - 0.2
    weights[1] *= 0.01
    bias[1] = -4.0
    data = rng.standard_normal((size, n))
    arrays = (torch.from_numpy(each).to(dtype) for each in (weights, bias, data))
    weights, bias, data = arrays
    return Parameters(weights, bias), data


def seeded():
    return torch.Generator().manual_seed(5)


def called(penalty, parameters, data, activation):
    return penalty(parameters, data, activation, seeded())


def objective(terms):
    return terms.loss + terms.penalty


# --- the objectives, straight from the papers' equations -------------------------------------


def pieces(z, size):
    groups = z.reshape(len(z), -1, size)
    won = functional.one_hot(groups.argmax(dim=2), size)
    return (groups * won).reshape(z.shape)


VALUES = {
    ReLU: torch.relu,
    Sigmoid: torch.sigmoid,
    Softplus: lambda z: -functional.logsigmoid(-z),
    Tanh: torch.tanh,
    Maxout: lambda z: pieces(z, 3),
}


class Dense:
    """The autoencoder in plain torch, every derivative by autograd."""

    def __init__(self, parameters, data, activation):
        self.weights, self.bias = parameters[:2]
        self.data = data
        offset = getattr(parameters, "offset", None)
        self.decoder = data.new_zeros(data.shape[1]) if offset is None else offset
        self.s = VALUES[type(activation)]

    def codes(self, x):
        return self.s(x @ self.weights.T + self.bias)

    def losses(self, x):
        """|x - f(x~)|^2 of each sample, x~ given."""
        return (self.data - self.codes(x) @ self.weights - self.decoder).square().sum(dim=1)

    def jacobian(self, x):
        """dh/dx, (B, m, n), unit by unit."""
        x = x.detach().requires_grad_()
        codes = self.codes(x)
        rows = [
            torch.autograd.grad(codes[:, j].sum(), x, create_graph=True)[0]
            for j in range(codes.shape[1])
        ]
        return torch.stack(rows, dim=1)

    def derivatives(self):
        """dh/da and d2h/da2, (B, m)."""
        # Not a leaf of the graph that leads to the weights, but differentiable again through it.
        a = self.data @ self.weights.T + self.bias
        first = torch.autograd.grad(self.s(a).sum(), a, create_graph=True)[0]
        if not first.requires_grad:
            return first, torch.zeros_like(first)
        second = torch.autograd.grad(first.sum(), a, create_graph=True, allow_unused=True)[0]
        return first, torch.zeros_like(first) if second is None else second

    def curvature(self):
        """d2l/dh_j2, (B, m)."""
        h = self.codes(self.data).detach().requires_grad_()
        loss = (self.data - h @ self.weights - self.decoder).square().sum()
        first = torch.autograd.grad(loss, h, create_graph=True)[0]
        columns = [
            torch.autograd.grad(first[:, j].sum(), h, create_graph=True)[0][:, j]
            for j in range(h.shape[1])
        ]
        return torch.stack(columns, dim=1)


def judge(penalty, parameters, data, activation, noise_dtype=None):
    """The objective's value, differentiable in the parameters."""
    model = Dense(parameters, data, activation)
    generator = seeded()
    weights, size = parameters.dictionary, len(data)
    strength = penalty.strength

    def noise(variance):
        drawn = torch.randn(data.shape, dtype=noise_dtype or data.dtype, generator=generator)
        return drawn.to(data.dtype) * math.sqrt(variance)

    plain = model.losses(data).mean()
    match penalty:
        case NoPenalty():
            return plain
        case Denoising(noise="masking"):  # Vincent et al. 2008
            kept = [
                (torch.rand(data.shape, dtype=noise_dtype or data.dtype, generator=generator))
                >= strength
                for _ in range(penalty.draws)
            ]
            return torch.stack([model.losses(data * each).mean() for each in kept]).mean()
        case Denoising():  # eq. (6)
            values = []
            for _ in range(penalty.draws):
                e = noise(strength)
                if penalty.variances is not None:
                    e = e * torch.tensor(penalty.variances, dtype=data.dtype).sqrt()
                values.append(model.losses(data + e).mean())
                if penalty.antithetic:
                    values.append(model.losses(data - e).mean())
            return torch.stack(values).mean()
        case FirstOrderDenoising():  # section 3.1.1
            corrupted = data.clone().requires_grad_()
            (slope,) = torch.autograd.grad(
                model.losses(corrupted).sum(), corrupted, create_graph=True
            )
            terms = [(noise(strength) * slope).sum(dim=1).mean() for _ in range(penalty.draws)]
            return plain + torch.stack(terms).mean()
        case SecondOrderDenoising():  # eq. (7), literally
            first, second = model.derivatives()
            gram = (weights @ weights.T).square()
            alone = (first.square() * weights.square().sum(dim=1).square()).sum(dim=1)
            apart = gram - torch.diag(torch.diagonal(gram))
            together = torch.einsum("bj,bk,jk->b", first, first, apart)
            short = model.decoder + model.codes(data) @ weights - data  # b_d + W^T h - x
            last = torch.einsum("bi,ji,bj,jk,jk->b", short, weights, second, weights, weights)
            return plain + strength * (alone + together + last).mean()
        case Contractive():  # eq. (8)
            return plain + strength * model.jacobian(data).square().sum() / size
        case Marginalized():  # eq. (10)
            variances = torch.ones(data.shape[1], dtype=data.dtype)
            if penalty.variances is not None:
                variances = torch.tensor(penalty.variances, dtype=data.dtype)
            slopes = (model.jacobian(data).square() * variances).sum(dim=2)
            return plain + strength / 2 * (model.curvature() * slopes).sum() / size
        case HigherOrderContractive():  # Rifai et al. 2011a, eq. (4)
            here = model.jacobian(data)
            far = [
                (here - model.jacobian(data + noise(penalty.noise))).square().sum() / size
                for _ in range(penalty.draws)
            ]
            both = here.square().sum() / size + penalty.gamma * torch.stack(far).mean()
            return plain + strength * both
        case KLSparse():  # eq. (12), (13)
            rho, mean = penalty.rho, model.codes(data).mean(dim=0)
            if rho == 0:
                return plain - strength * torch.log(1 - mean.clamp(max=0.99)).sum()
            mean = mean.clamp(1e-6, 0.99)
            each = rho * torch.log(rho / mean) + (1 - rho) * torch.log((1 - rho) / (1 - mean))
            return plain + strength * each.sum()
        case L1():  # eq. (2)
            return plain + strength * model.codes(data).abs().sum(dim=1).mean()
        case MeanActivation():  # Corollary 1
            return plain + strength * MEANS[penalty.f](model.codes(data).mean(dim=0)).sum()
        case SlopePenalty():  # Corollary 2
            slopes, lengths = model.derivatives()[0], torch.linalg.vector_norm(weights, dim=1)
            return plain + strength * (slopes**penalty.q * lengths**penalty.p).sum() / size
    raise AssertionError(penalty)


MEANS = {
    "identity": lambda u: u,
    "square": lambda u: u * u,
    "sqrt": lambda u: u.clamp(min=1e-6) ** 0.5,
    "log": lambda u: torch.log(1 + u.clamp(min=-0.99)),
    "exp": lambda u: torch.exp(u) - 1,
    "kl": lambda u: -torch.log(1 - u.clamp(max=0.99)),
    torch.sinh: torch.sinh,
}


def check(terms, parameters, value, gradient, rtol, atol):
    found = [objective(terms), terms.gradient(parameters.dictionary), terms.bias]
    if terms.offset is not None:
        found.append(terms.offset)
    for one, other in zip(found, (value, *gradient), strict=True):
        assert one.dtype == parameters.bias.dtype
        assert one.shape == other.shape
        torch.testing.assert_close(one.to(other.dtype), other.detach(), rtol=rtol, atol=atol)


def leaves(parameters):
    return parameters.map(lambda part: part.double().clone().requires_grad_())


def decoded(parameters, seed=0):
    rng = np.random.default_rng(seed)
    n = parameters.dictionary.shape[1]
    offset = torch.from_numpy(rng.standard_normal(n)).to(parameters.bias)
    return parameters._replace(offset=offset)


# --- judge 1: autograd -----------------------------------------------------------------------


@every_penalty
@every_activation
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_autograd(penalty, activation, shape):
    parameters, data = problem(shape)
    free = leaves(parameters)
    value = judge(penalty, free, data, activation)
    expected = torch.autograd.grad(value, free.parts())
    terms = called(penalty, parameters, data, activation)
    check(terms, parameters, value, expected, rtol=1e-10, atol=1e-11)


@every_penalty
@every_activation
def test_equals_autograd_with_a_decoder_bias(penalty, activation):
    parameters, data = problem()
    whole = decoded(parameters)
    free = leaves(whole)
    value = judge(penalty, free, data, activation)
    expected = torch.autograd.grad(value, free.parts())
    assert expected[2].abs().min() > 1e-3
    terms = called(penalty, whole, data, activation)
    check(terms, whole, value, expected, rtol=1e-10, atol=1e-11)
    # A decoder bias of 0 is none.
    zero = called(penalty, whole._replace(offset=torch.zeros(5).double()), data, activation)
    plain = called(penalty, parameters, data, activation)
    assert torch.equal(zero.bias, plain.bias)
    assert plain.offset is None


TIGHT = (1e-12, 1e-13)
VARIANCES = (0.5, 0.0, 2.0, 1.0, 3.0)


@every_activation
@pytest.mark.parametrize(
    "penalty",
    [
        Denoising(0.3, variances=VARIANCES),
        Denoising(0.3, draws=2, antithetic=True, variances=VARIANCES),
        Marginalized(0.3, variances=np.array(VARIANCES)),
    ],
    ids=str,
)
def test_a_variance_for_each_feature(penalty, activation):
    for parameters in (problem()[0], decoded(problem()[0])):
        data = problem()[1]
        free = leaves(parameters)
        value = judge(penalty, free, data, activation)
        expected = torch.autograd.grad(value, free.parts())
        terms = called(penalty, parameters, data, activation)
        check(terms, parameters, value, expected, rtol=1e-10, atol=1e-11)
    assert penalty.variances == VARIANCES, "plain numbers, whatever they were"


@every_penalty
@every_activation
def test_in_single_precision(penalty, activation):
    parameters, data = problem((33, 21, 17), dtype=torch.float32)
    free = leaves(parameters)
    value = judge(penalty, free, data.double(), activation, noise_dtype=torch.float32)
    expected = torch.autograd.grad(value, free.parts())
    terms = called(penalty, parameters, data, activation)
    check(terms, parameters, value, expected, rtol=2e-5, atol=2e-5)


@every_penalty
@pytest.mark.parametrize("activation", [ReLU(), Maxout(3)], ids=str)
def test_a_silent_unit_has_no_gradient(penalty, activation):
    parameters, data = problem((20, 9, 5), seed=1)
    assert (activation(data @ parameters.dictionary.T + parameters.bias).codes[:, 1] == 0).all()
    terms = called(penalty, parameters, data, activation)
    assert (terms.gradient(parameters.dictionary)[1] == 0).all()
    assert terms.bias[1] == 0
    assert (terms.bias != 0).sum() == 8


# --- judge 2: finite differences -------------------------------------------------------------


@every_penalty
@every_activation
def test_equals_finite_differences(penalty, activation):
    # Of the penalty's own value, so that values and gradients can't be wrong together. No
    # decision is within h of its kink in this problem.
    parameters, data = problem((5, 6, 4), seed=2)
    terms = called(penalty, parameters, data, activation)
    found = Parameters(terms.gradient(parameters.dictionary), terms.bias)
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
                values.append(objective(called(penalty, there, data, activation)).item())
            numeric[at] = (values[0] - values[1]) / (2 * h)
        torch.testing.assert_close(getattr(found, name), numeric, rtol=2e-6, atol=2e-7)


# --- judge 3: closed forms -------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_remark_1_the_contractive_penalty_is_the_jacobian(activation):
    parameters, data = problem((11, 9, 5), seed=3)
    model = Dense(parameters, data, activation)
    norms = [
        torch.autograd.functional.jacobian(lambda x: model.codes(x[None])[0], x).square().sum()
        for x in data
    ]
    found = Contractive(0.25)(parameters, data, activation)
    assert found.penalty.item() == pytest.approx(0.25 * sum(norms).item() / 11, rel=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_remark_2_the_marginalized_penalty_is_its_equation(activation):
    # Eq. (11): the factor |W_j|^4, of atoms that are not of unit length.
    parameters, data = problem((11, 9, 5), seed=4)
    slope = activation(data @ parameters.dictionary.T + parameters.bias).slope
    lengths = torch.linalg.vector_norm(parameters.dictionary, dim=1)
    expected = 0.7 * (slope**2 * lengths**4).sum(dim=1).mean()
    found = Marginalized(0.7)(parameters, data, activation)
    torch.testing.assert_close(found.penalty, expected, rtol=1e-12, atol=0.0)


@every_activation
def test_the_two_are_one_at_unit_length_but_for_the_radial_part(activation):
    parameters, data = problem((20, 9, 5), seed=5)
    unit = parameters._replace(dictionary=functional.normalize(parameters.dictionary))
    one = Contractive(0.3, kink=0.1 * isinstance(activation, ReLU))
    other = Marginalized(one.strength, one.kink)
    first, second = (each(unit, data, activation) for each in (one, other))
    apart = first.gradient(unit.dictionary) - second.gradient(unit.dictionary)
    along = (apart * unit.dictionary).sum(dim=1, keepdim=True)
    for name in ("loss", "penalty", "bias", "left", "right"):
        found, expected = getattr(first, name), getattr(second, name)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert (apart - along * unit.dictionary).abs().max() < 1e-12
    torch.testing.assert_close(second.radial, 2 * first.radial)
    assert first.radial.abs().sum() > 0


@pytest.mark.parametrize("activation", SMOOTH, ids=str)
def test_theorem_3_is_the_trace_of_the_hessian_in_the_input(activation):
    parameters, data = problem((8, 9, 5), seed=6)
    expected = 0.0
    for x in data:
        model = Dense(parameters, x[None], activation)
        hessian = torch.autograd.functional.hessian(
            lambda point, model=model: model.losses(point[None]).sum(), x
        )
        expected += 0.3 / 2 * hessian.trace().item() / len(data)
    found = SecondOrderDenoising(0.3)(parameters, data, activation)
    assert found.penalty.item() == pytest.approx(expected, rel=1e-10)


@every_activation
@pytest.mark.parametrize("p", [2, 4])
def test_contraction_is_a_slope_penalty(activation, p):
    parameters, data = problem((20, 9, 5), seed=18)
    known = {2: Contractive, 4: Marginalized}[p](0.3, kink=0.1 * isinstance(activation, ReLU))
    found = SlopePenalty(0.3, 2, p, kink=known.kink)(parameters, data, activation)
    expected = known(parameters, data, activation)
    assert all(map(torch.equal, found[:6], expected[:6]))
    one = Marginalized(0.3, variances=[1.0] * 5)(parameters, data, activation)
    gradient = Marginalized(0.3)(parameters, data, activation)
    weights = parameters.dictionary
    check(one, parameters, objective(gradient), (gradient.gradient(weights), gradient.bias), *TIGHT)


@pytest.mark.parametrize("activation", [ReLU(), Softplus(), Sigmoid()], ids=str)
def test_sparse_and_l1_penalties_are_of_the_mean_activation(activation):
    parameters, data = problem((20, 9, 5), seed=19)
    quiet = parameters._replace(bias=parameters.bias - 1.0)
    weights = quiet.dictionary
    for f, known in (("kl", KLSparse(0.3)), ("identity", L1(0.3))):
        found = MeanActivation(0.3, f)(quiet, data, activation)
        expected = known(quiet, data, activation)
        gradient = expected.gradient(weights), expected.bias
        check(found, quiet, objective(expected), gradient, 1e-13, 1e-14)
    # With the name and as a function of one's own.
    own = MeanActivation(0.3, lambda u: torch.exp(u) - 1)(quiet, data, activation)
    named = MeanActivation(0.3, "exp")(quiet, data, activation)
    gradient = named.gradient(weights), named.bias
    check(own, quiet, objective(named), gradient, 1e-13, 1e-14)


def test_an_atom_of_length_zero_has_no_direction():
    parameters, data = problem((20, 9, 5), seed=20)
    weights = parameters.dictionary.clone()
    weights[3] = 0.0
    for p in (0, 1, 3, 5):
        terms = SlopePenalty(1.0, 1, p)(parameters._replace(dictionary=weights), data, Sigmoid())
        assert torch.isfinite(terms.gradient(weights)).all()


def test_masking_sets_features_to_zero_and_keeps_the_others():
    parameters, data = problem((4000, 3, 4), seed=21)
    terms = called(Denoising(0.25, noise="masking"), parameters, data, ReLU())
    seen = terms.right[4000:]  # what the encoder saw
    kept = seen == data
    assert ((seen == 0) | kept).all()
    assert 1 - kept.double().mean().item() == pytest.approx(0.25, abs=0.02)
    silent = called(Denoising(1.0, noise="masking"), parameters, data, ReLU())
    assert (silent.right[4000:] == 0).all()


def test_noise_has_the_variance_of_each_feature():
    parameters, data = problem((4000, 3, 5), seed=22)
    terms = called(Denoising(0.5, variances=VARIANCES), parameters, data, ReLU())
    noise = terms.right[4000:] - data
    expected = 0.5 * torch.tensor(VARIANCES, dtype=torch.float64)
    torch.testing.assert_close(noise.var(dim=0), expected, rtol=0.1, atol=0.0)


def small(seed):
    """Atoms short enough that what is beyond the second order is small at unit noise."""
    parameters, data = problem((50, 9, 6), seed=seed)
    short = parameters._replace(dictionary=0.3 * functional.normalize(parameters.dictionary))
    return short, data


@pytest.mark.parametrize("activation", SMOOTH, ids=str)
@pytest.mark.parametrize("deviation", [0.03, 0.1, 0.3, 1.0])
def test_the_denoising_objective_is_its_expansion(activation, deviation):
    parameters, data = small(7)
    many = Denoising(deviation**2, draws=800, antithetic=True)
    found = called(many, parameters, data, activation).loss
    terms = SecondOrderDenoising(deviation**2)(parameters, data, activation)
    assert found.item() == pytest.approx(objective(terms).item(), rel=0.01)
    if deviation < 1:  # what the noise adds, by itself
        added = (found - terms.loss).item()
        assert added == pytest.approx(terms.penalty.item(), rel=0.05)


@pytest.mark.parametrize("activation", SMOOTH, ids=str)
def test_what_is_odd_in_the_noise_is_the_first_order_term(activation):
    # L(e) - (L(e) + L(-e)) / 2, which antithetic pairs remove, is e . grad + O(|e|^3).
    parameters, data = problem((9, 6, 5), seed=8)
    variance = 1e-6
    one = called(Denoising(variance), parameters, data, activation).loss
    pair = called(Denoising(variance, antithetic=True), parameters, data, activation).loss
    first = called(FirstOrderDenoising(variance), parameters, data, activation).penalty
    assert abs(first.item()) > 1e-4
    assert (one - pair).item() == pytest.approx(first.item(), rel=1e-5)


@every_activation
def test_both_signs_of_a_noise_cancel_the_first_order_term_exactly(activation, monkeypatch):
    parameters, data = problem((9, 6, 5), seed=9)
    noise = torch.randn(data.shape, dtype=data.dtype, generator=seeded())
    signs = iter([1.0, -1.0])
    monkeypatch.setattr(penalties, "_noise", lambda *_: next(signs) * noise)
    terms = FirstOrderDenoising(0.4, draws=2)(parameters, data, activation)
    plain = NoPenalty()(parameters, data, activation)
    assert terms.penalty == 0
    assert torch.equal(terms.bias, plain.bias)
    weights = parameters.dictionary
    torch.testing.assert_close(terms.gradient(weights), plain.gradient(weights))


@every_activation
@pytest.mark.parametrize("name", PENALTIES)
def test_no_strength_is_no_penalty(name, activation):
    parameters, data = problem(seed=10)
    terms = called(penalty_named(name, 0.0), parameters, data, activation)
    plain = NoPenalty()(parameters, data, activation)
    weights = parameters.dictionary
    check(terms, parameters, objective(plain), (plain.gradient(weights), plain.bias), 1e-13, 1e-14)


def test_denoising_without_noise_draws_none():
    parameters, data = problem(seed=11)
    generator = seeded()
    found = Denoising(0.0, draws=3)(parameters, data, ReLU(), generator)
    assert torch.equal(generator.get_state(), seeded().get_state())
    assert found.left.shape == (18, 6)


# --- the kink --------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "power"), [(Contractive, 2), (Marginalized, 4)])
def test_the_kink_adds_the_slope_of_a_ramp(make, power):
    # In place of s'^2 = 1[z > 0] a ramp over the window; lengths have their gradient already.
    parameters, data = problem((60, 9, 5), seed=12)
    half = 0.2
    free = leaves(parameters)
    z = data @ free.dictionary.T + free.bias
    ramp = ((z + half) / (2 * half)).clamp(0, 1)
    lengths = torch.linalg.vector_norm(parameters.dictionary, dim=1) ** power
    expected = torch.autograd.grad(0.3 * (ramp * lengths).sum() / len(data), free.parts())
    one, other = make(0.3, kink=half), make(0.3)
    first, second = (each(parameters, data, ReLU()) for each in (one, other))
    weights = parameters.dictionary
    torch.testing.assert_close(first.gradient(weights) - second.gradient(weights), expected[0])
    torch.testing.assert_close(first.bias - second.bias, expected[1])
    assert objective(first) == objective(second)
    assert expected[1].count_nonzero() == 8  # all but the silent unit


def test_the_kink_is_the_density_of_gaussian_data_at_zero():
    rng = np.random.default_rng(13)
    weights = torch.from_numpy(rng.standard_normal((4, 3)))
    bias = torch.tensor([-1.0, -0.3, 0.0, 0.8], dtype=torch.float64)
    data = torch.from_numpy(rng.standard_normal((200_000, 3)))
    parameters = Parameters(weights, bias)
    found = Contractive(0.5, kink=0.1)(parameters, data, ReLU()).bias
    found = found - Contractive(0.5)(parameters, data, ReLU()).bias
    length = torch.linalg.vector_norm(weights, dim=1)
    density = torch.exp(-0.5 * (bias / length) ** 2) / (length * math.sqrt(2 * math.pi))
    torch.testing.assert_close(found, 0.5 * length**2 * density, rtol=0.03, atol=0.0)


# --- the mean activation ---------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.05])
@pytest.mark.parametrize("activation", [ReLU(), Softplus(), Sigmoid()], ids=str)
def test_a_mean_beyond_the_limit_is_finite_and_without_gradient(rho, activation):
    parameters, data = problem((20, 9, 5), seed=14)
    bias = parameters.bias.clone()
    bias[[0, 4]] = 50.0
    loud = parameters._replace(bias=bias)
    terms = KLSparse(2.0, rho)(loud, data, activation)
    plain = NoPenalty()(loud, data, activation)
    weights = parameters.dictionary
    assert all(torch.isfinite(each).all() for each in terms if each is not None)
    for found, expected in (
        (terms.bias, plain.bias),
        (terms.gradient(weights), plain.gradient(weights)),
    ):
        assert torch.equal(found[[0, 4]], expected[[0, 4]])
        assert not torch.equal(found[2], expected[2])


def test_a_dead_unit_has_a_finite_divergence():
    parameters, data = problem((20, 9, 5), seed=15)
    terms = KLSparse(1.0, 0.05)(parameters._replace(bias=parameters.bias - 50), data, ReLU())
    each = 0.05 * math.log(0.05 / 1e-6) + 0.95 * math.log(0.95 / (1 - 1e-6))
    assert terms.penalty.item() == pytest.approx(9 * each)
    assert terms.bias.abs().max() == 0


# --- what callers may rely on ----------------------------------------------------------------


@every_penalty
@every_activation
def test_inputs_stay_and_a_seed_gives_the_same_bits(penalty, activation):
    parameters, data = problem(seed=16)
    before = [part.clone() for part in (*parameters[:2], data)]
    first, second = (called(penalty, parameters, data, activation) for _ in range(2))
    assert all(map(torch.equal, (*parameters[:2], data), before))
    for one, other in zip(first, second, strict=True):
        assert one is other is None or torch.equal(one, other)


@every_penalty
def test_memory_layout_does_not_matter(penalty):
    parameters, data = problem((9, 6, 5), seed=17)
    odd = Parameters(parameters.dictionary.T.contiguous().T, parameters.bias)
    view = data.T.contiguous().T
    assert not view.is_contiguous()
    expected = called(penalty, parameters, data, Sigmoid())
    found = called(penalty, odd, view, Sigmoid())
    weights = parameters.dictionary
    gradient = expected.gradient(weights), expected.bias
    check(found, parameters, objective(expected), gradient, 1e-11, 1e-12)


@pytest.mark.parametrize(
    ("build", "argument"),
    [
        *((lambda name=name: penalty_named(name, -1.0), "strength") for name in PENALTIES),
        *((lambda name=name: penalty_named(name, math.nan), "strength") for name in PENALTIES),
        (lambda: penalty_named("lasso", 1.0), "penalty"),
        (lambda: Denoising(0.1, draws=0), "draws"),
        (lambda: FirstOrderDenoising(0.1, draws=1.5), "draws"),
        (lambda: HigherOrderContractive(0.1, draws=0), "draws"),
        (lambda: HigherOrderContractive(0.1, gamma=-1.0), "gamma"),
        (lambda: HigherOrderContractive(0.1, noise=0.0), "noise"),
        (lambda: Contractive(0.1, kink=-0.1), "kink"),
        (lambda: Marginalized(0.1, kink=math.inf), "kink"),
        (lambda: KLSparse(0.1, rho=1.0), "rho"),
        (lambda: KLSparse(0.1, rho=-0.1), "rho"),
        (lambda: Contractive(0.1, kink=0.1)(*problem(), Sigmoid()), "kink"),
        (lambda: NoPenalty()(*problem((9, 6, 5)), Maxout(4)), "n_components"),
        (lambda: Denoising(0.1, noise="salt"), "noise"),
        (lambda: Denoising(1.1, noise="masking"), "strength"),
        (lambda: Denoising(0.1, noise="masking", antithetic=True), "antithetic"),
        (lambda: Denoising(0.1, noise="masking", variances=[1.0]), "variances"),
        (lambda: Denoising(0.1, variances=[1.0, -1.0]), "variances"),
        (lambda: Denoising(0.1, variances=[0.0, 0.0]), "variances"),
        (lambda: Denoising(0.1, variances=3.0), "variances"),
        (lambda: Denoising(0.1, variances="11"), "variances"),
        (lambda: Marginalized(0.1, variances=[1.0, math.nan]), "variances"),
        (lambda: Marginalized(0.1, variances=[1.0], kink=0.1), "kink"),
        (lambda: Denoising(0.1, variances=[1.0])(*problem(), ReLU()), "variances"),
        (lambda: Marginalized(0.1, variances=[1.0])(*problem(), ReLU()), "variances"),
        (lambda: SlopePenalty(0.1, q=0), "q"),
        (lambda: SlopePenalty(0.1, q=1.5), "q"),
        (lambda: SlopePenalty(0.1, p=-1), "p"),
        (lambda: MeanActivation(0.1, "cube"), "f"),
        (lambda: MeanActivation(0.1, 3), "f"),
        (lambda: MeanActivation(0.1, lambda u: u.sum()), "f"),
        (lambda: MeanActivation(0.1, math.exp), "f"),
        (lambda: MeanActivation(0.1, lambda u: torch.ones(3)), "f"),
        (lambda: penalty_named("cae", 0.1, draws=3), "penalty_options"),
        (lambda: penalty_named("none", 0.1, q=3), "penalty_options"),
    ],
)
def test_what_cannot_be_is_refused(build, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: "):
        build()


def test_a_direct_strength_is_checked():
    for make in PENALTIES.values():
        if make is not NoPenalty:
            with pytest.raises(ArgumentError, match=r"^strength: "):
                make(-0.1)

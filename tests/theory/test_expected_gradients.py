"""Closed forms of the expected gradient against a brute-force average of eq. (5)."""

from itertools import combinations, product

import numpy as np
import pytest
import torch

from shoal.generative import (
    BernoulliSupport,
    Constant,
    Custom,
    DiscreteSupport,
    GenerativeModel,
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    Rademacher,
    SparseCoding,
    UniformSupport,
    perturb,
    random_dictionary,
)
from shoal.theory import gradients
from shoal.vocabulary import ArgumentError

M, N = 5, 4
ATOMS = random_dictionary(M, N, random_state=0)
WEIGHTS = perturb(ATOMS, 0.4, random_state=1)
BIAS = np.array([-0.3, -0.1, 0.0, -0.7, -0.2])
VALUES = {1.0: 0.25, 3.0: 0.75}  # kappa1 = 2.5, kappa2 = 7


def two_points(rng, size):
    return np.where(rng.random(size) < 0.25, 1.0, 3.0)


POSITIVE = Custom(two_points, 2.5, 7.0, 1.0, 3.0, signed=False)
LISTED = DiscreteSupport([(0, 1), (2,), (), (4, 1, 0), (3, 2)], [0.1, 0.2, 0.1, 0.4, 0.2])
NOISE = 0.3


def chances(support):
    """{support: probability}, written out here without the law's own moments."""
    if isinstance(support, UniformSupport):
        listed = list(combinations(range(M), support.k))
        return dict.fromkeys(listed, 1 / len(listed))
    if isinstance(support, BernoulliSupport):
        p = np.broadcast_to(support.p, M)
        subsets = [s for k in range(M + 1) for s in combinations(range(M), k)]
        return {s: np.prod([p[i] if i in s else 1 - p[i] for i in range(M)]) for s in subsets}
    return dict(zip(support.supports, support.probabilities, strict=True))


def outcomes(world, values):
    """(probability, support, codes, data): supports x values x 2n points of the noise.

    Points at +-sigma sqrt(n) along each axis have the noise's mean and covariance, and given the
    support eq. (5) is quadratic in y.
    """
    atoms = world.dictionary
    points = world.noise * np.sqrt(N) * np.vstack([np.eye(N), -np.eye(N)])
    if world.noise == 0:
        points = np.zeros((1, N))
    for support, chance in chances(world.support).items():
        for drawn in product(values.items(), repeat=len(support)):
            x = np.zeros(M)
            weight = chance
            for unit, (value, share) in zip(support, drawn, strict=True):
                x[unit], weight = value, weight * share
            for point in points:
                yield weight / len(points), support, x, x @ atoms + point


def brute(world, values, bias):
    """E of eq. (5), by its words: one sample and one unit at a time."""
    gradient = np.zeros((M, N))
    for weight, support, _, y in outcomes(world, values):
        x = np.zeros(M)
        for j in support:
            x[j] = WEIGHTS[j] @ y + bias[j]
        residual = y - x @ WEIGHTS
        for i in support:
            matrix = (WEIGHTS[i] @ y + bias[i]) * np.eye(N) + np.outer(y, WEIGHTS[i])
            gradient[i] -= weight * matrix @ residual
    return gradient


SIGNS = {1.0: 0.5, -1.0: 0.5}
SIGNED_SUPPORTS = {
    "uniform": UniformSupport(3),
    "listed": LISTED,
    "independent": BernoulliSupport((0.1, 0.9, 0.5, 1.0, 0.0)),
}


@pytest.mark.parametrize("noise", [0.0, NOISE])
@pytest.mark.parametrize("support", [UniformSupport(2), UniformSupport(3), LISTED])
def test_enumerated_gradient(support, noise):
    world = GenerativeModel(ATOMS, support, POSITIVE, noise)
    expected = brute(world, VALUES, BIAS)
    found = gradients.enumerated_gradient(world, WEIGHTS, BIAS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("noise", [0.0, NOISE])
@pytest.mark.parametrize(
    "support", [UniformSupport(1), UniformSupport(2), UniformSupport(4), BernoulliSupport(0.3)]
)
def test_moment_gradient(support, noise):
    world = GenerativeModel(ATOMS, support, POSITIVE, noise)
    found, means = gradients.exact_gradient(world, WEIGHTS, BIAS)
    np.testing.assert_allclose(found, brute(world, VALUES, BIAS), rtol=0, atol=1e-12)
    assert means == "moments of the supports"


@pytest.mark.parametrize("support", [UniformSupport(3), BernoulliSupport(0.3)])
def test_triple_sums_of_units_that_are_alike(support, monkeypatch):
    world = GenerativeModel(ATOMS, support, POSITIVE)
    quick = gradients.triple_sums(world, WEIGHTS)
    monkeypatch.setattr(gradients, "alike_chances", lambda _: None)
    for found, expected in zip(quick, gradients.triple_sums(world, WEIGHTS), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
        assert np.abs(expected).max() > 1e-3


def test_moments_need_units_that_are_alike():
    world = GenerativeModel(ATOMS, LISTED, POSITIVE)
    with pytest.raises(ArgumentError, match="DiscreteSupport of 5 units"):
        gradients.moment_gradient(world, WEIGHTS)
    found, means = gradients.exact_gradient(world, WEIGHTS)
    assert means == "all supports"
    np.testing.assert_array_equal(found, gradients.enumerated_gradient(world, WEIGHTS))
    uneven = BernoulliSupport((0.1, 0.9, 0.5, 1.0, 0.0))
    assert gradients.exact_gradient(GenerativeModel(ATOMS, uneven, POSITIVE), WEIGHTS) is None


def test_bias_gradient_has_a_sign_that_the_print_turns():
    """Descent along the print's would make a negative bias grow, not halve."""
    chances = {(0,): 0.2, (1,): 0.3, (4,): 0.5}
    law = DiscreteSupport(tuple(chances), tuple(chances.values()))
    world = GenerativeModel(ATOMS, law, Constant(1.0), NOISE)
    unit = WEIGHTS / np.linalg.norm(WEIGHTS, axis=1, keepdims=True)
    found = gradients.bias_gradient(world, unit, BIAS)
    enumerated = np.zeros(M)
    for weight, (i,), _, y in outcomes(world, {1.0: 1.0}):
        enumerated[i] -= weight * unit[i] @ (y - unit[i] * (unit[i] @ y + BIAS[i]))
    np.testing.assert_allclose(found, enumerated, rtol=0, atol=1e-14)
    # Automatic differentiation of the loss in b, with the true unit alone on.
    b = torch.tensor(BIAS, dtype=torch.float64, requires_grad=True)
    loss = torch.zeros((), dtype=torch.float64)
    for weight, (i,), _, y in outcomes(world, {1.0: 1.0}):
        residual = torch.from_numpy(y) - torch.from_numpy(unit[i]) * (float(unit[i] @ y) + b[i])
        loss = loss + weight * residual.square().sum() / 2
    (automatic,) = torch.autograd.grad(loss, b)
    np.testing.assert_allclose(found, automatic.numpy(), rtol=0, atol=1e-14)
    printed = gradients.bias_gradient(world, unit, BIAS, printed=True)
    assert np.abs(found).max() > 0.01
    np.testing.assert_array_equal(printed, -found)
    with pytest.raises(ArgumentError, match="one unit a support"):
        gradients.bias_gradient(GenerativeModel(ATOMS, UniformSupport(2), POSITIVE), unit)


def test_enumerated_gradient_of_given_supports():
    law = BernoulliSupport((0.1, 0.9, 0.5, 1.0, 0.0))
    world = GenerativeModel(ATOMS, law, POSITIVE, NOISE)
    listed = chances(law)
    table = np.full((len(listed), M), -1)
    for row, support in zip(table, listed, strict=True):
        row[: len(support)] = support
    found = gradients.enumerated_gradient(world, WEIGHTS, BIAS, table, list(listed.values()))
    np.testing.assert_allclose(found, brute(world, VALUES, BIAS), rtol=0, atol=1e-12)
    # Blocks add up to the whole, and no probabilities mean equal ones.
    even = GenerativeModel(ATOMS, UniformSupport(2), POSITIVE)
    pairs = np.array(list(combinations(range(M), 2)))
    many = gradients.enumerated_gradient(even, WEIGHTS, BIAS, np.tile(pairs, (30_000, 1)))
    whole = gradients.enumerated_gradient(even, WEIGHTS, BIAS)
    np.testing.assert_allclose(many, whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("weights", [None, [0.1, 0.2, 0.3, 0.4, 0.0]])
def test_mixture_gradient(weights):
    world = MixtureOfGaussians(ATOMS, weights=weights, noise=NOISE)
    law = world.support if weights else UniformSupport(1)
    plain = GenerativeModel(ATOMS, law, world.values, NOISE)
    expected = brute(plain, {1.0: 1.0}, BIAS)
    found = gradients.mixture_gradient(world, WEIGHTS, BIAS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("noise", [0.0, NOISE])
@pytest.mark.parametrize("support", SIGNED_SUPPORTS.values(), ids=SIGNED_SUPPORTS.keys())
def test_signed_gradient(support, noise):
    world = GenerativeModel(ATOMS, support, Rademacher(), noise)
    expected = brute(world, SIGNS, np.zeros(M))
    found = gradients.signed_gradient(world, WEIGHTS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    # Eq. (15) as printed leaves out the terms with j = l != i.
    printed = gradients.signed_gradient(world, WEIGHTS, printed=True)
    assert np.linalg.norm(printed - expected) > 0.1 * np.linalg.norm(expected)


def test_signed_gradient_as_printed():
    """Eq. (15) term by term; with one unit a support nothing is missing from it."""
    world = SparseCoding(ATOMS, 2, values=Rademacher())
    printed = gradients.signed_gradient(world, WEIGHTS, printed=True)
    p, p_ij = 2 / 5, 1 / 10
    for i in range(M):
        along = WEIGHTS[i] @ ATOMS[i]
        others = np.delete(WEIGHTS, i, axis=0)
        matrix = p_ij * others.T @ others
        expected = -p * along * ATOMS[i] + p * along**2 * WEIGHTS[i]
        expected += along * matrix @ ATOMS[i] + (WEIGHTS[i] @ matrix @ ATOMS[i]) * ATOMS[i]
        np.testing.assert_allclose(printed[i], expected, rtol=0, atol=1e-12)
    single = SparseCoding(ATOMS, 1, low=1.0, high=2.0)
    exact = gradients.enumerated_gradient(single, WEIGHTS)
    for form in (True, False):
        found = gradients.signed_gradient(single, WEIGHTS, printed=form)
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12)


def brute_alpha_beta(world, values, bias, *, printed):
    """Their definitions, in samples and sums over the list of supports."""
    alpha = np.zeros(M)
    beta = np.zeros(M)
    k1 = world.kappa1
    for weight, support, _, y in outcomes(world, values):
        for i in support:
            alpha[i] += weight * (WEIGHTS[i] @ y + bias[i]) ** 2
    for weight, support, x, y in outcomes(world, values):
        for i in support:
            rest = [j for j in support if j != i]
            beta[i] += weight * x[i] * WEIGHTS[i] @ y
            for j in rest:
                cosine = WEIGHTS[i] @ WEIGHTS[j]
                # In expectation x_i (W_j.y) is kappa2 <W_j, A_i> and more; b_j meets kappa1.
                beta[i] -= weight * cosine * (x[i] * WEIGHTS[j] @ y + bias[j] * k1)
                if printed:
                    beta[i] += weight * cosine * (bias[j] - bias[i]) * k1
                    for l in rest:  # noqa: E741
                        if l != j:
                            beta[i] += weight * k1**2 * cosine * WEIGHTS[j] @ ATOMS[l]
    return alpha, beta


@pytest.mark.parametrize("noise", [0.0, NOISE])
@pytest.mark.parametrize("support", SIGNED_SUPPORTS.values(), ids=SIGNED_SUPPORTS.keys())
def test_alpha_beta(support, noise):
    world = GenerativeModel(ATOMS, support, POSITIVE, noise)
    alpha, beta = gradients.alpha_beta(world, WEIGHTS, BIAS)
    expected = brute_alpha_beta(world, VALUES, BIAS, printed=False)
    np.testing.assert_allclose(alpha, expected[0], rtol=0, atol=1e-11)
    np.testing.assert_allclose(beta, expected[1], rtol=0, atol=1e-11)
    as_printed, beta_printed = gradients.alpha_beta(world, WEIGHTS, BIAS, printed=True)
    np.testing.assert_allclose(as_printed, alpha - noise**2 * world.p, rtol=0, atol=1e-12)
    printed = brute_alpha_beta(world, VALUES, BIAS, printed=True)[1]
    np.testing.assert_allclose(beta_printed, printed, rtol=0, atol=1e-11)
    assert np.abs(beta - beta_printed).max() > 0.01


def test_remainder_closes_the_sum():
    world = GenerativeModel(ATOMS, UniformSupport(3), POSITIVE, NOISE)
    gradient = gradients.enumerated_gradient(world, WEIGHTS, BIAS)
    alpha, beta = gradients.alpha_beta(world, WEIGHTS, BIAS)
    rest = gradients.remainder(world, WEIGHTS, BIAS, gradient)
    whole = alpha[:, None] * WEIGHTS - beta[:, None] * ATOMS + rest
    np.testing.assert_allclose(whole, gradient, rtol=0, atol=1e-12)
    # What is left over is smaller than what it is left of: one unit a support leaves nothing.
    single = GenerativeModel(ATOMS, UniformSupport(1), POSITIVE)
    exact = gradients.enumerated_gradient(single, WEIGHTS, BIAS)
    assert np.abs(gradients.remainder(single, WEIGHTS, BIAS, exact)).max() < 1e-12
    atoms = np.eye(M)
    weights = perturb(atoms, 0.1, random_state=2)
    world = GenerativeModel(atoms, UniformSupport(3), POSITIVE)
    gradient = gradients.enumerated_gradient(world, weights)
    rest = gradients.remainder(world, weights, 0.0, gradient)
    assert np.linalg.norm(rest) < 0.2 * np.linalg.norm(world.kappa2 * world.p)


def test_leading_gradient():
    single = GenerativeModel(ATOMS, UniformSupport(1), POSITIVE)
    exact = gradients.enumerated_gradient(single, WEIGHTS, BIAS)
    found = gradients.leading_gradient(single, WEIGHTS, BIAS)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12)
    # The print has a p_i too many in 2 kappa1 p_i b_i lambda_i.
    printed = gradients.leading_gradient(single, WEIGHTS, BIAS, printed=True)
    along = np.sum(WEIGHTS * ATOMS, axis=1)
    gap = 2 * 2.5 * 0.2 * (1 - 0.2) * BIAS * along
    np.testing.assert_allclose(found - printed, gap[:, None] * WEIGHTS, rtol=0, atol=1e-12)
    free = gradients.leading_gradient(single, WEIGHTS, 0.0, printed=True)
    np.testing.assert_allclose(free, gradients.leading_gradient(single, WEIGHTS), atol=1e-15)


def test_leading_gradient_leads():
    """v of eq. (16) is small beside its leading term where atoms hardly interfere."""
    world = NonnegativeSparseCoding(np.eye(40), 2, low=1.0, high=2.0)
    weights = perturb(world.dictionary, 0.5, random_state=3)
    exact = gradients.enumerated_gradient(world, weights)
    v = exact - gradients.leading_gradient(world, weights)
    assert np.linalg.norm(v, axis=1).max() < 0.2 * world.kappa2 * 2 / 40


def test_oracle_gradient_is_the_average_of_equation_5(monkeypatch):
    monkeypatch.setattr(gradients, "BLOCK_ENTRIES", 150 * M)  # three blocks
    world = GenerativeModel(ATOMS, LISTED, POSITIVE, NOISE)
    weights, _, codes, data = zip(*outcomes(world, VALUES), strict=True)
    rng = np.random.default_rng(0)
    rows = rng.choice(len(weights), size=400, p=np.array(weights) / sum(weights))
    codes, data = np.array(codes)[rows], np.array(data)[rows]
    found = gradients.oracle_gradient(WEIGHTS, BIAS, data, codes)
    expected = np.zeros((M, N))
    for x, y in zip(codes, data, strict=True):
        on = x != 0
        z = (WEIGHTS @ y + BIAS) * on
        residual = y - z @ WEIGHTS
        for i in np.flatnonzero(on):
            expected[i] -= (z[i] * residual + (WEIGHTS[i] @ residual) * y) / len(rows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


MODERATE = {
    "mixture": MixtureOfGaussians(random_dictionary(20, 30, random_state=4), noise=0.1),
    "signed": SparseCoding(random_dictionary(40, 30, random_state=4), 3, noise=0.1),
    "positive": NonnegativeSparseCoding(random_dictionary(40, 30, random_state=4), 2, noise=0.1),
}


@pytest.mark.parametrize("name", MODERATE)
def test_monte_carlo(name):
    """The oracle's gradient on a sample is within its standard errors of the closed form."""
    world = MODERATE[name]
    weights = perturb(world.dictionary, 0.4, random_state=5)
    bias = 0.0 if name == "signed" else -0.2
    blocks = np.array(
        [
            gradients.oracle_gradient(weights, bias, sample.data, sample.codes)
            for sample in world.stream(4000, random_state=6, n_batches=10)
        ]
    )
    mean, error = blocks.mean(axis=0), blocks.std(axis=0, ddof=1) / np.sqrt(10)
    if name == "mixture":
        exact = gradients.mixture_gradient(world, weights, bias)
    elif name == "signed":
        exact = gradients.signed_gradient(world, weights)
    else:
        exact = gradients.enumerated_gradient(world, weights, bias)
    assert 0.5 < np.linalg.norm(mean - exact) / np.linalg.norm(error) < 1.7
    other = perturb(world.dictionary, 0.4, random_state=7)
    wrong = gradients.enumerated_gradient(world, other, bias)
    assert np.linalg.norm(mean - wrong) / np.linalg.norm(error) > 5


def test_inputs_stay_as_they_are():
    world = GenerativeModel(ATOMS, UniformSupport(3), POSITIVE)
    weights, bias = WEIGHTS.copy(), BIAS.copy()
    gradients.alpha_beta(world, weights, bias)
    gradients.enumerated_gradient(world, weights, bias)
    np.testing.assert_array_equal(weights, WEIGHTS)
    np.testing.assert_array_equal(bias, BIAS)


def test_errors():
    world = SparseCoding(random_dictionary(64, 32, random_state=0), 5)
    assert not gradients.can_enumerate(world)
    with pytest.raises(ArgumentError, match="world: found UniformSupport of 64 units"):
        gradients.enumerated_gradient(world, world.dictionary)
    small = GenerativeModel(ATOMS, UniformSupport(2), POSITIVE)
    with pytest.raises(ArgumentError, match=r"weights: found shape \(4, 4\)"):
        gradients.enumerated_gradient(small, WEIGHTS[:4])
    with pytest.raises(ArgumentError, match="bias"):
        gradients.leading_gradient(small, WEIGHTS, [0.0, 1.0])
    with pytest.raises(ArgumentError, match="supports"):
        gradients.enumerated_gradient(small, WEIGHTS, supports=[[0, 5]])
    with pytest.raises(ArgumentError, match="probabilities"):
        gradients.enumerated_gradient(small, WEIGHTS, supports=[[0, 1]], probabilities=[0.5, 0.5])
    with pytest.raises(ArgumentError, match="mixture"):
        gradients.mixture_gradient(small, WEIGHTS)
    with pytest.raises(ArgumentError, match="mean 0"):
        gradients.signed_gradient(small, WEIGHTS)
    with pytest.raises(ArgumentError, match="data"):
        gradients.oracle_gradient(WEIGHTS, 0.0, np.zeros((3, 5)), np.zeros((3, M)))
    with pytest.raises(ArgumentError, match="true_codes"):
        gradients.oracle_gradient(WEIGHTS, 0.0, np.zeros((3, N)), np.zeros((2, M)))

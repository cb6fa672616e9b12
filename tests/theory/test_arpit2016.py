"""Arpit et al. 2016: bounds that must not break, where they are tight, identities by autograd."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from shoal.network.activations import Maxout, ReLU, Sigmoid, Softplus, Tanh
from shoal.network.penalties import (
    L1,
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
)
from shoal.theory import arpit2016 as paper
from shoal.vocabulary import ArgumentError, Parameters

torch.set_num_threads(1)

ACTIVATIONS = [ReLU(), Softplus(), Sigmoid(), Tanh(), Maxout()]
SMOOTH = [Softplus(), Sigmoid(), Tanh()]


def named(values):
    return [type(each).__name__ for each in values]


def whitened(n_samples=600, n=5, seed=0):
    rng = np.random.default_rng(seed)
    data = rng.laplace(size=(n_samples, n)) @ rng.normal(size=(n, n)) + 3.0
    data -= data.mean(axis=0)
    return data @ np.linalg.inv(np.linalg.cholesky(data.T @ data / n_samples)).T


def point(m=8, n=5, seed=0, low=-1.5, high=0.2, length=0.7):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(m, n))
    weights *= length / np.linalg.norm(weights, axis=1, keepdims=True)
    return weights, np.linspace(low, high, m)


def wild(seed):
    """Parameters and data of any scale, mean and shape."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 7)), 2 * int(rng.integers(1, 6))
    data = rng.standard_t(1.5, size=(40, n)) * 10.0 ** rng.uniform(-3, 3, size=n)
    data += rng.normal(size=n) * 10.0 ** rng.uniform(-3, 3)
    weights = rng.normal(size=(m, n)) * 10.0 ** rng.uniform(-3, 2, size=(m, 1))
    return (weights, rng.normal(size=m) * 10.0 ** rng.uniform(-2, 2)), data


def autograd(place, data, value):
    """Gradient in the bias of value(bias, z, weights, data)."""
    weights, bias = (torch.as_tensor(each, dtype=torch.float64) for each in place)
    bias = bias.clone().requires_grad_()
    data = torch.as_tensor(data, dtype=torch.float64)
    value(data @ weights.T + bias, weights, data).backward()
    return bias.grad.numpy()


def failing(assertion):
    return [check.claim for check in assertion.hypotheses if not check.holds]


# --- activations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "expected"),
    [  # non-decreasing, slope in [0, 1], convex, saturates, non-negative, twice differentiable
        (ReLU(), (True, True, True, True, True, False)),
        (Softplus(), (True, True, True, True, True, True)),
        (Sigmoid(), (True, True, False, True, True, True)),
        (Tanh(), (True, True, False, False, False, True)),
        (Maxout(), (True, True, True, False, False, False)),
        (Maxout(3), (True, True, True, False, False, False)),
    ],
    ids=repr,
)
def test_properties(activation, expected):
    assert tuple(paper.properties(activation)) == expected


class Steep(Sigmoid):
    """Slope up to 1.25, and a claim to be convex."""

    convex = True

    def __call__(self, z):
        codes, slope = super().__call__(5.0 * z)
        return paper.Activated(codes, 5.0 * slope)


def test_properties_are_probed_not_believed():
    found = paper.properties(Steep())
    assert (found.slope_in_unit_interval, found.convex, found.non_decreasing) == (
        False,
        False,
        True,
    )
    assert not paper.lemma1(point(), whitened(), Steep()).applies


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (ReLU(), 0.0),
        (Sigmoid(), math.log(0.1 / 0.9)),
        (Softplus(), math.log(math.expm1(0.1))),
        (Tanh(), 0.0),
        (Maxout(), 0.0),
    ],
    ids=repr,
)
def test_activation_threshold_is_the_closed_form(activation, expected):
    assert paper.activation_threshold(activation) == pytest.approx(expected, abs=1e-13)


# --- Assumption 1 ----------------------------------------------------------------------------


def test_assumption1_holds_of_a_gaussian_that_nothing_reconstructs():
    data = np.random.default_rng(1).normal(size=(4000, 4))
    found = paper.assumption1((np.zeros((2, 4)), np.zeros(2)), data, ReLU())
    assert found.holds
    assert found.numbers["sigma_r"] == pytest.approx(1.0, abs=0.03)
    assert found.numbers["kurtosis_mean"] == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize(
    ("spoil", "broken"),
    [
        (lambda x: x + np.array([0.5, 0, 0, 0]), {"E x = 0", "residual: largest |mean|"}),
        (lambda x: x * [1.5, 1, 1, 1], {"E x x^T", "residual: (largest - least)"}),
        (
            lambda x: x @ np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
            {"E x x^T", "residual: (largest - least)", "residual: largest correlation"},
        ),
        (lambda x: np.sign(x), {"residual: largest |kurtosis"}),
    ],
    ids=["mean", "scale", "correlation", "kurtosis"],
)
def test_assumption1_sees(spoil, broken):
    data = spoil(np.random.default_rng(1).normal(size=(20000, 4)))
    found = paper.assumption1((np.zeros((2, 4)), np.zeros(2)), data, ReLU())
    assert found.verdict == "not promised", "an assumption is no claim that data contradict"
    seen = {check.claim for check in found.measurements if not check.holds}
    assert len(seen) == len(broken)
    assert all(any(claim.startswith(each) for claim in seen) for each in broken)


# --- Lemma 1 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=named(ACTIVATIONS))
def test_lemma1_is_never_violated(activation):
    shares = []
    for seed in range(40):
        found = paper.lemma1(*wild(seed), activation)
        assert found.holds, seed
        shares.append(found.measurements[0].value)
    assert max(shares) > 0.2  # the bound is not idle; a sigmoid's slope is at most .25


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=named(ACTIVATIONS))
def test_lemma1_measures_the_gradient(activation):
    place, data = point(), whitened()

    def loss(z, weights, x):
        return (x - activation(z).codes @ weights).square().sum(dim=1).mean()

    expected = np.quantile(autograd(place, data, loss), [0, 0.25, 0.5, 0.75, 1], method="lower")
    found = paper.lemma1(place, data, activation)
    np.testing.assert_allclose(found.numbers["gradient"], expected, rtol=1e-12)
    residual = (
        data - activation(torch.tensor(data @ place[0].T + place[1])).codes.numpy() @ place[0]
    )
    bound = 2 * np.sqrt(np.square(residual).sum(axis=1).mean()) * 0.7
    np.testing.assert_allclose(found.numbers["bound"], bound, rtol=1e-12)


@pytest.mark.parametrize("bias", [-4.0, 4.0])
def test_lemma1_is_reached_from_both_sides(bias):
    w = np.random.default_rng(2).normal(size=5)
    w /= np.linalg.norm(w)
    data = np.tile(6.0 * w, (3, 1))  # a = 6 + bias > 0, r = -bias w
    found = paper.lemma1((w[None], [bias]), data, ReLU())
    assert found.measurements[0].value == pytest.approx(1.0, abs=1e-12)
    assert found.numbers["gradient"][0] == pytest.approx(2.0 * bias)
    assert found.verdict == "holds beyond its hypotheses"


def test_lemma1_of_white_data_and_of_units_without_weights():
    assert paper.lemma1(point(), whitened(), ReLU()).verdict == "confirmed"
    zero = paper.lemma1((np.zeros((2, 5)), np.ones(2)), whitened(), Sigmoid())
    assert zero.measurements[0].value == 0.0


class Double(ReLU):
    """2 max(z, 0): its slope is beyond Lemma 1."""

    def __call__(self, z):
        codes, slope = super().__call__(z)
        return paper.Activated(2.0 * codes, 2.0 * slope)


def test_lemma1_is_violated_by_a_steeper_activation():
    found = paper.lemma1(([[1.0]], [-1.0]), [[4.0], [4.0]], Double())  # r = 4 - 6
    assert found.measurements[0].value == pytest.approx(2.0)
    assert found.verdict == "not promised"


# --- Theorem 1 -------------------------------------------------------------------------------

PAIRS = [
    (Softplus(), Contractive),
    (Softplus(), Marginalized),
    (Softplus(), KLSparse),
    (Sigmoid(), KLSparse),
    (ReLU(), KLSparse),
    (ReLU(), L1),
    (ReLU(), lambda strength: Contractive(strength, kink=0.2)),
]


@pytest.mark.parametrize(("activation", "made"), PAIRS)
@pytest.mark.parametrize("step", [1e-3, 5.0])  # it is not one of small steps
def test_theorem1_above_the_threshold_every_unit_falls(activation, made, step):
    for seed in range(5):
        place, data = point(seed=seed), whitened(seed=seed)
        threshold = paper.threshold_strength(place, data, activation, made(1.0))
        assert 0 < threshold < np.inf
        found = paper.theorem1(place, data, activation, made(1.01 * threshold), step)
        assert found.verdict == "confirmed", str(found)
        assert found.numbers["change"][-1] < 0
        assert found.numbers["threshold"] == pytest.approx(threshold)
        below = paper.theorem1(place, data, activation, made(0.99 * threshold), step)
        assert failing(below) == ["least lambda dR/db_j / (2 sigma_r sqrt(n) |W_j|)"]


@pytest.mark.parametrize(("activation", "made"), PAIRS)
def test_theorem1_measures_the_step(activation, made):
    place, data = point(), whitened() + 0.5  # a mean that is not 0
    penalty = made(3.0)
    found = paper.theorem1(place, data, activation, penalty, 0.01)
    weights, bias, x = map(torch.tensor, (*place, data))
    terms = penalty(Parameters(weights, bias), x, activation)
    after = x @ (weights - 0.01 * terms.gradient(weights)).T + bias - 0.01 * terms.bias
    change = (after - x @ weights.T - bias).mean(dim=0)
    assert found.numbers["change"][0] == pytest.approx(float(change.min()))
    assert found.numbers["change"][-1] == pytest.approx(float(change.max()))
    assert len(failing(found)) >= 1


def test_theorem1_promises_nothing_without_a_penalty():
    # Far below its threshold a softplus fires where <W, x> is large: b grows to fit that.
    place, data = point(low=-3.0, high=-2.0), whitened()
    found = paper.theorem1(place, data, Softplus(), Contractive(0.0))
    assert found.verdict == "not promised"
    assert found.numbers["share_that_rises"] > 0.5
    assert paper.theorem1(place, data, Softplus(), NoPenalty()).numbers["threshold"] == np.inf
    threshold = found.numbers["threshold"]
    weak = paper.theorem1(place, data, Softplus(), Contractive(1e-4 * threshold))
    assert weak.numbers["share_that_rises"] > 0
    strong = paper.theorem1(place, data, Softplus(), Contractive(1.01 * threshold))
    assert strong.verdict == "confirmed"


def test_theorem1_threshold_can_not_be_lower():
    # Two units +-1/sqrt(2) that never switch off: h W = x - c with c = (b_2 - b_1) / sqrt(2), so
    # r = c everywhere, and dJ/db_1 = -sqrt(2) c is at Lemma 1's bound. dR/db = 1 for L1.
    half = 1 / math.sqrt(2)
    place, data = ([[half], [-half]], [1.0, 3.0]), [[-1.0], [1.0]]
    c = 2 * half
    threshold = paper.threshold_strength(place, data, ReLU(), L1(7.0))
    assert threshold == pytest.approx(math.sqrt(2) * c)
    below = paper.theorem1(place, data, ReLU(), L1(0.99 * threshold))
    assert below.numbers["share_that_rises"] == 0.5
    assert below.verdict == "not promised"
    assert paper.theorem1(place, data, ReLU(), L1(1.01 * threshold)).verdict == "confirmed"


def test_theorem1_needs_data_without_a_mean():
    # The step of W moves E[a_j] by <dJ/dW_j, E x>, which Lemma 1 does not bound: here short atoms
    # that see nothing of the mean grow towards it.
    data = whitened() + np.array([3.0, 0, 0, 0, 0])
    weights = 0.01 * np.eye(5)[1:]
    place = (weights, np.ones(4))
    threshold = paper.threshold_strength(place, data, ReLU(), L1(1.0))
    found = paper.theorem1(place, data, ReLU(), L1(1.01 * threshold))
    assert failing(found) == ["E x = 0: |mean|"]
    assert found.numbers["share_that_rises"] == 1.0
    assert found.verdict == "not promised"
    white = paper.theorem1(place, whitened(), ReLU(), L1(1.01 * threshold))
    assert white.verdict == "confirmed"


def test_theorem1_the_variance_is_the_length_for_white_data_alone():
    place, data = point(), whitened() * [2.0, 1, 1, 1, 1]
    strength = 1.01 * paper.threshold_strength(place, data, Softplus(), Contractive(1.0))
    found = paper.theorem1(place, data, Softplus(), Contractive(strength))
    assert failing(found) == ["E x x^T = I: spectral norm of covariance - I"]
    share, variance = found.measurements
    assert share.holds
    assert not variance.holds


@pytest.mark.parametrize(
    ("penalty", "activation", "value"),
    [
        (
            Contractive(5.0),
            Sigmoid(),
            lambda z, w, x: (
                (torch.sigmoid(z) * torch.sigmoid(-z)).square().mean(dim=0) @ w.square().sum(dim=1)
            ),
        ),
        (
            KLSparse(0.1),
            Sigmoid(),
            lambda z, w, x: -torch.log(1 - torch.sigmoid(z).mean(dim=0)).sum(),
        ),
        (L1(1.0), Tanh(), lambda z, w, x: torch.tanh(z).abs().sum(dim=1).mean()),
        (
            Marginalized(0.0),
            Softplus(),
            lambda z, w, x: torch.sigmoid(z).square().mean(dim=0) @ w.square().sum(dim=1) ** 2,
        ),
    ],
    ids=["cae", "sae", "l1", "mdae"],
)
def test_bias_gradient_is_autograd(penalty, activation, value):
    place, data = point(), whitened() * 3.0
    found = paper.bias_gradient(place, data, activation, penalty)
    np.testing.assert_allclose(found, autograd(place, data, value), rtol=1e-11)


def test_bias_gradient_keeps_its_digits_beside_a_huge_loss():
    place, data = point(), whitened() * 1e10
    found = paper.bias_gradient(place, data, ReLU(), L1(1.0))
    share = (data @ place[0].T + place[1] > 0).mean(axis=0)
    np.testing.assert_allclose(found, share, rtol=1e-12)


@pytest.mark.parametrize(
    "penalty",
    [
        Denoising(0.1),
        Denoising(0.1, noise="masking"),
        FirstOrderDenoising(0.1),
        HigherOrderContractive(0.1),
    ],
    ids=repr,
)
@pytest.mark.parametrize("ask", [paper.theorem1, paper.threshold_strength, paper.theorem2])
def test_noise_is_refused(ask, penalty):
    with pytest.raises(ArgumentError, match=r"penalty: .*without noise"):
        ask(point(), whitened(), Sigmoid(), penalty)


# --- corollaries -----------------------------------------------------------------------------


def test_table_of_section_2():
    rows = paper.corollaries()
    table = {(row["activation"], row["penalty"]): row for row in rows}
    assert len(rows) == len(table) == 25
    json.dumps(rows)
    penalties = ["dae", "cae", "mdae", "sae", "l1"]
    for name in ("ReLU", "Softplus"):
        assert [table[name, each]["corollary"] for each in penalties] == [2, 2, 2, 1, 1]
        assert all(table[name, each]["promised"] for each in penalties)
        assert all(table[name, each]["least_bias_gradient"] >= 0 for each in penalties)
    assert all(table["Softplus", each]["predicted"] for each in penalties)
    for each in ("dae", "cae", "mdae"):
        assert table["ReLU", each]["least_bias_gradient"] == 0  # the Dirac is not seen
        assert not table["ReLU", each]["predicted"]
        assert not table["Sigmoid", each]["applies"]
        assert table["Sigmoid", each]["least_bias_gradient"] < 0
    for each in ("sae", "l1"):
        assert table["ReLU", each]["predicted"]
        assert table["Sigmoid", each]["predicted"]
    for name in ("Tanh", "Maxout"):
        assert not any(table[name, each]["promised"] for each in penalties)
        assert not table[name, "sae"]["saturates"]
        assert table[name, "sae"]["applies"]
        assert table[name, "l1"]["corollary"] is None
        assert table[name, "l1"]["least_bias_gradient"] < 0
    assert all(("whole_form" in row) == (row["penalty"] == "dae") for row in rows)


def whitened_wild(seed):
    """Parameters of any scale, and skewed data of many tails, whitened."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(1, 7)), 2 * int(rng.integers(1, 6))
    data = rng.gamma(0.5, size=(4000, n)) @ rng.normal(size=(n, n))
    data -= data.mean(axis=0)
    data = data @ np.linalg.inv(np.linalg.cholesky(data.T @ data / 4000)).T
    weights = rng.normal(size=(m, n)) * 10.0 ** rng.uniform(-2, 1, size=(m, 1))
    return (weights, rng.normal(size=m)), data


FAMILY = [L1(1.0), *(MeanActivation(1.0, f) for f in ("square", "sqrt", "log", "exp"))]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("activation", [ReLU(), Softplus(), Sigmoid()], ids=repr)
def test_corollary1(activation, seed):
    place, data = whitened_wild(seed)
    for penalty in FAMILY:
        found = paper.corollary1(place, data, activation, penalty)
        assert found.verdict == "confirmed", str(found)
        assert found.numbers["units_that_rise_whatever_lambda"] == 0
    # Below .99 the sparse penalty is one of them.
    quiet = point(seed=seed, length=0.3)
    found = paper.corollary1(quiet, whitened(seed=seed), activation, KLSparse(1.0))
    assert found.verdict == "confirmed", str(found)


@pytest.mark.parametrize("seed", range(5))
def test_corollary2(seed):
    place, data = whitened_wild(seed)
    for penalty in (Contractive(1.0), Marginalized(1.0), SlopePenalty(1.0, 3, 1)):
        found = paper.corollary2(place, data, Softplus(), penalty)
        assert found.verdict == "confirmed", str(found)


@pytest.mark.parametrize("made", [KLSparse, L1, Contractive, Marginalized])
def test_with_a_lambda_of_the_interval_no_unit_rises(made):
    place, data = point(low=-3.0, high=2.0, length=1.0), whitened()
    number = 1 if made in (KLSparse, L1) else 2
    ask = {1: paper.corollary1, 2: paper.corollary2}[number]
    found = ask(place, data, Sigmoid() if number == 1 else Softplus(), made(1.0))
    low, high = found.numbers["lambda"]
    assert 0 <= low <= high == np.inf
    activation = Sigmoid() if number == 1 else Softplus()
    if low > 0:
        steps = [
            paper.theorem1(place, data, activation, made(each * low)).numbers["share_that_rises"]
            for each in (0.99, 1.01)
        ]
        assert steps[0] > 0 == steps[1]


def test_the_same_verdicts_of_any_data_at_which_nothing_is_promised():
    for seed in range(5):
        place, data = wild(seed)
        assert paper.corollary1(place, data, Sigmoid(), L1(1.0)).verdict in (
            "holds beyond its hypotheses",
            "not promised",
        )


def test_corollary2_not_for_a_sigmoid_that_is_on():
    # s'' < 0 where a > 0: units that are mostly on are pushed up.
    found = paper.corollary2(point(low=1.0, high=2.0), whitened(), Sigmoid(), Contractive(1.0))
    assert found.verdict == "not promised"
    assert failing(found) == ["s is convex"]
    assert found.numbers["penalty_gradient"][-1] < 0
    # Units that are mostly off are pushed down: promised or not.
    off = paper.corollary2(point(low=-4.0, high=-3.0), whitened(), Sigmoid(), Contractive(1.0))
    assert off.verdict == "holds beyond its hypotheses"


def test_corollary1_not_for_a_target_and_not_for_the_other_form():
    place, data = point(), whitened()
    target = paper.corollary1(place, data, Sigmoid(), KLSparse(1.0, rho=0.9))
    assert target.verdict == "not promised"
    assert target.numbers["penalty_gradient"][-1] < 0
    assert not paper.corollary1(place, data, Softplus(), Contractive(1.0)).applies
    assert not paper.corollary2(place, data, Softplus(), KLSparse(1.0)).applies
    assert not paper.corollary2(place, data, Softplus(), SecondOrderDenoising(1.0)).applies


def test_corollary2_a_gradient_of_0_lowers_nothing():
    # As autograd has it, the ReLU's contraction has no bias gradient: no lambda will do, although
    # the corollary says that there is one. The Dirac gives one.
    place, data = point(low=-1.5, high=2.0, length=1.0), whitened(6000)
    found = paper.corollary2(place, data, ReLU(), Contractive(1.0))
    assert found.applies
    assert found.verdict == "contradicted"
    assert found.measurements[0].holds, "the proof's step is right"
    assert found.numbers["units_at_zero"] == 8
    assert 0 < found.numbers["units_that_rise_whatever_lambda"] < 8
    assert found.numbers["threshold"] == np.inf
    assert found.numbers["lambda"] is None
    for strength in (1e-6, 1.0, 1e6):
        risen = paper.theorem1(place, data, ReLU(), Contractive(strength))
        rising = found.numbers["units_that_rise_whatever_lambda"]
        assert risen.numbers["share_that_rises"] == rising / 8
    kinked = paper.corollary2(place, data, ReLU(), Contractive(1.0, kink=0.2))
    assert kinked.verdict == "confirmed"
    assert paper.threshold_strength(place, data, ReLU(), Contractive(1.0, kink=0.2)) < np.inf


class Bent:
    """max(z, 0) with its kink rounded over [-c, c]: twice differentiable, convex, s' in [0, 1]."""

    delta_min = 0.0

    def __init__(self, c):
        self.c = c

    def __call__(self, z):
        t = ((z + self.c) / (2 * self.c)).clamp(0, 1)
        rounded = 2 * self.c * (t**3 - t**4 / 2)
        return paper.Activated(torch.where(z > self.c, z, rounded), 3 * t**2 - 2 * t**3)

    def bend(self, activated):
        t = self._places(activated.slope)
        return 6 * t * (1 - t) / (2 * self.c)

    def jerk(self, activated):
        return (6 - 12 * self._places(activated.slope)) / (2 * self.c) ** 2

    @staticmethod
    def _places(slope):
        """t of 3 t^2 - 2 t^3."""
        return 0.5 - torch.sin(torch.asin(1 - 2 * slope.clamp(0, 1)) / 3)


def counterexample():
    """All that Corollary 2 and its Assumption 1 ask for, and units that no lambda holds down.

    n = 1, two units +-w with one bias b. With x = sign(r) (g + |r| / (1 - w^2)), r Gaussian, one
    unit is on and the other off, and b = (1 - w^2) g / w makes r the residual. No pre-activation
    is near 0, so s'' = 0 and dR/db = 0; dJ_AE/db = -2 w E[r; r > 0] < 0.
    """
    w, g = 0.8, 0.5
    b = (1 - w * w) * g / w
    r = torch.special.ndtri((torch.arange(4000).double() + 0.5) / 4000).numpy()
    # E x^2 = g^2 + 2 g v E|r| + v^2 E r^2 = 1, v = sigma / (1 - w^2)
    first, second = np.abs(r).mean(), np.square(r).mean()
    v = (-g * first + math.sqrt((g * first) ** 2 + second * (1 - g * g))) / second
    x = np.sign(r) * (g + v * np.abs(r))
    return ([[w], [-w]], [b, b]), x[:, None], (1 - w * w) * v * r


@pytest.mark.parametrize("activation", [ReLU(), Bent(0.15)], ids=["ReLU", "twice differentiable"])
def test_corollary2_is_false_as_printed(activation):
    place, data, residual = counterexample()
    assumed = paper.assumption1(place, data, activation, tolerance=1e-2)
    assert assumed.verdict == "confirmed", str(assumed)
    assert assumed.numbers["sigma_r"] == pytest.approx(residual.std(), rel=1e-9)
    for penalty in (Contractive(1.0), SlopePenalty(1.0, 1, 0), Marginalized(1.0)):
        found = paper.corollary2(place, data, activation, penalty)
        assert found.applies, str(found)
        assert found.verdict == "contradicted"
        assert found.numbers["rising_units"] == [0, 1]
        half = np.abs(residual).mean() / 2  # E[r; r > 0]
        assert found.numbers["plain_gradient"] == pytest.approx([-2 * 0.8 * half] * 5)
        assert found.numbers["penalty_gradient"] == pytest.approx([0.0] * 5, abs=1e-13)
    # Nor does the Dirac of ReLU help: no pre-activation is near 0.
    if isinstance(activation, ReLU):
        found = paper.corollary2(place, data, activation, Contractive(1.0, kink=0.1))
        assert found.verdict == "contradicted"
    else:
        assert paper.properties(activation).twice_differentiable


def test_what_few_samples_cannot_tell_is_not_held_against_the_paper():
    # A unit that rises by less than its sampling error.
    rng = np.random.default_rng(4)
    place = ([[0.9]], [0.15])
    verdicts = set()
    for _ in range(20):
        data = rng.normal(size=(30, 1))
        data = (data - data.mean()) / data.std()
        found = paper.corollary2(place, data, ReLU(), Contractive(1.0))
        rising = found.numbers["units_that_rise_whatever_lambda"]
        assert found.verdict == ("too few samples to tell" if rising else "confirmed")
        verdicts.add(found.verdict)
    assert len(verdicts) == 2


def test_corollary1_is_false_where_f_has_no_slope():
    # u^3 about E h_j: increasing, and with no slope there.
    place, data = ([[0.8]], [0.0]), whitened(4000, n=1)
    mean = float(np.maximum(0.8 * data, 0).mean())
    plain = paper.corollary1(place, data, ReLU(), L1(1.0))
    assert plain.numbers["plain_gradient"][0] < 0
    assert plain.verdict == "confirmed"
    cubed = MeanActivation(1.0, lambda u: (u - mean) ** 3)
    found = paper.corollary1(place, data, ReLU(), cubed)
    assert found.applies, str(found)
    assert found.verdict == "contradicted"


def test_corollary1_a_penalty_that_is_held_does_not_increase():
    place, data = ([[1.0]], [2.0]), whitened(4000, n=1)
    found = paper.corollary1(place, data, ReLU(), KLSparse(1.0))
    assert failing(found) == ["units at whose E h_j f does not increase"]
    assert found.verdict != "confirmed" or found.numbers["units_at_zero"] == 0
    assert found.numbers["penalty_gradient"] == [0.0] * 5


# --- of one's own ----------------------------------------------------------------------------


class Squareplus:
    """(z + sqrt(z^2 + 4)) / 2, which says nothing of itself."""

    delta_min = 0.1

    def __call__(self, z):
        root = (z.square() + 4).sqrt()
        return paper.Activated((z + root) / 2, (1 + z / root) / 2)

    def bend(self, activated):
        slope = activated.slope
        return 2 * (slope * (1 - slope)) ** 1.5

    def jerk(self, activated):
        slope = activated.slope
        return 3 * (slope * (1 - slope)).sqrt() * (1 - 2 * slope) * self.bend(activated)


class MeansCubed:
    """strength * sum_j (E h_j)^3, no dataclass."""

    def __init__(self, strength):
        self.strength = strength

    def __call__(self, parameters, data, activation, generator=None):
        free = parameters.map(lambda part: part.detach().requires_grad_())
        z = data @ free.dictionary.T + free.bias
        codes, slope = activation(z)
        plain = NoPenalty()(parameters, data, activation)
        mean = codes.detach().mean(dim=0)
        back = self.strength * 3 * mean**2 * slope.detach() / len(data)
        return plain._replace(
            penalty=self.strength * (mean**3).sum(),
            left=torch.cat([plain.left, back]),
            right=torch.cat([plain.right, data]),
            bias=plain.bias + back.sum(dim=0),
        )


@dataclasses.dataclass(frozen=True)
class Slopes:
    """strength * E sum_j weight_j g(h_j, s'_j), by automatic differentiation of z."""

    strength: float
    g: object

    def __call__(self, parameters, data, activation, generator=None):
        z = (data @ parameters.dictionary.T + parameters.bias).detach()
        codes, slope = activation(z)
        h, s = codes.detach().requires_grad_(), slope.detach().requires_grad_()
        value = self.strength * self.g(h, s).sum() / len(data)
        by_h, by_s = (
            torch.zeros_like(h) if each is None else each
            for each in torch.autograd.grad(value, (h, s), allow_unused=True)
        )
        back = by_h * slope + by_s * activation.bend(paper.Activated(codes, slope))
        plain = NoPenalty()(parameters, data, activation)
        return plain._replace(
            penalty=value.detach(),
            left=torch.cat([plain.left, back]),
            right=torch.cat([plain.right, data]),
            bias=plain.bias + back.sum(dim=0),
        )


def test_ones_own_have_a_row_in_the_table():
    own = {
        "cubed": MeansCubed(1.0),
        "slope": Slopes(1.0, lambda h, s: 0.5 * s),
        "energy": Slopes(1.0, lambda h, s: h.square()),
    }
    rows = paper.corollaries(activations=[Squareplus()], penalties=own)
    json.dumps(rows)
    assert len(rows) == 6 * 8
    table = {(row["activation"], row["penalty"]): row for row in rows}
    library = {(row["activation"], row["penalty"]): row for row in paper.corollaries()}
    assert {place: table[place] for place in library} == library
    for name in ("Softplus", "Squareplus"):  # they are alike, and so is what is said of them
        assert [table[name, each]["corollary"] for each in own] == [1, 2, None]
        assert [table[name, each]["predicted"] for each in own] == [True, True, False]
        assert table[name, "cae"]["predicted"]
        assert table[name, "sae"]["corollary"] == 1
        assert table[name, "cae"]["rises"] == 0
    assert not table["Sigmoid", "slope"]["applies"]
    assert table["ReLU", "slope"]["rises"] > 0
    assert not table["ReLU", "slope"]["predicted"]
    assert not table["Tanh", "cubed"]["promised"]
    bad = paper.corollaries(penalties={"unit": Slopes(1.0, lambda h, s: -s)})
    assert {row["corollary"] for row in bad if row["penalty"] == "unit"} == {None}


def test_ones_own_activation_is_probed():
    assert tuple(paper.properties(Squareplus())) == (True, True, True, True, True, True)
    assert tuple(paper.properties(Bent(0.5))) == (True, True, True, True, True, True)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=named(ACTIVATIONS))
def test_the_form_is_told_by_what_a_penalty_does(activation):
    def told(penalty):
        return tuple(paper.form(4, activation, penalty))

    hard = isinstance(activation, ReLU | Maxout)
    for q, p in ((1, 0), (1, 3), (2, 2), (3, 4), (6, 6)):
        assert told(SlopePenalty(1.0, q, p)) == (2, None if hard else q, p)
    assert told(Contractive(7.0)) == (2, None if hard else 2, 2)
    assert told(Marginalized(0.0)) == (2, None if hard else 2, 4)
    assert told(Marginalized(1.0, variances=[1.0, 2.0, 0.0, 1.0])) == (None, None, None)
    never_negative = not isinstance(activation, Tanh | Maxout)
    assert told(L1(1.0))[0] == (1 if never_negative else None)
    assert told(KLSparse(1.0))[0] == 1
    for f in ("identity", "square", "exp", torch.sinh):
        assert told(MeanActivation(1.0, f))[0] == 1
    assert told(SecondOrderDenoising(1.0))[0] is None
    assert told(NoPenalty())[0] is None
    assert told(Slopes(1.0, lambda h, s: h.square()))[0] is None
    assert told(Slopes(1.0, lambda h, s: h * torch.arange(1, h.shape[1] + 1)))[0] is None


def test_theorem1_of_ones_own():
    place, data = point(low=-0.5), whitened()
    threshold = paper.threshold_strength(place, data, Squareplus(), MeansCubed(1.0))
    made = MeansCubed(1.01 * threshold)
    assert paper.theorem1(place, data, Squareplus(), made).verdict == "confirmed"
    assert made.strength == 1.01 * threshold, "it stays as it is"


# --- eq. (3), and a decoder bias --------------------------------------------------------------


def test_without_a_bias_no_expected_preactivation():
    weights = point()[0]
    found = paper.equation3((weights, np.zeros(8)), whitened(), ReLU())
    assert found.verdict == "confirmed"
    assert 0.3 < found.numbers["activation_fraction"] < 0.7
    assert paper.equation3(point(), whitened(), ReLU()).verdict == "not promised"
    moved = paper.equation3((weights, np.zeros(8)), whitened() + 1.0, ReLU())
    assert failing(moved) == ["E x = 0: |mean|"]
    assert moved.verdict == "not promised"
    # Skewed data: on for one sample of ten, with E a = 0.
    skewed = np.repeat([[-1.0], [9.0]], [90, 10], axis=0) / 3
    rare = paper.equation3(([[1.0]], [0.0]), skewed, ReLU())
    assert (rare.verdict, rare.numbers["activation_fraction"]) == ("confirmed", 0.1)


def test_a_decoder_bias_is_what_is_left_of_the_data():
    (weights, bias), data = point(), whitened()
    shift = np.linspace(-1.0, 1.0, 5)
    whole = (weights, bias, shift)

    def loss(z, w, x):
        return (x - Softplus()(z).codes @ w - torch.tensor(shift)).square().sum(dim=1).mean()

    found = paper.lemma1(whole, data, Softplus())
    expected = autograd((weights, bias), data, loss)
    expected = np.quantile(expected, [0, 0.25, 0.5, 0.75, 1], method="lower")
    np.testing.assert_allclose(found.numbers["gradient"], expected, rtol=1e-12)
    third = paper.theorem3(whole, data, Sigmoid(), 0.01, 200)
    assert third.verdict == "confirmed"
    assert paper.remark2(whole, data, Sigmoid()).verdict == "confirmed"
    with pytest.raises(ArgumentError, match=r"^decoder_bias: found shape"):
        paper.lemma1((weights, bias, shift[:3]), data, Softplus())
    with pytest.raises(ArgumentError, match=r"^parameters: "):
        paper.lemma1((weights, bias, shift, shift), data, Softplus())


# --- Theorem 2 -------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=named(ACTIVATIONS))
def test_theorem2_bound_is_never_violated(activation):
    told = 0
    for seed in range(40):
        place, data = wild(seed)
        found = paper.theorem2(place, data, activation)
        assert found.holds is not False, seed
        a = torch.tensor(data @ place[0].T + place[1])
        off = (activation(a).codes <= activation.delta_min).numpy().mean(axis=0)
        gap = paper.activation_threshold(activation) - a.numpy().mean(axis=0)
        below = gap > 0
        assert found.numbers["units_below"] == below.sum()
        if below.any():
            bound = 1 - a.numpy().var(axis=0)[below] / gap[below] ** 2
            assert (off[below] >= bound - 1e-9).all()
            assert found.numbers["bound"][0] == pytest.approx(bound.min(), rel=1e-6)
            assert found.measurements[0].value == pytest.approx(
                (off[below] - bound).min(), rel=1e-6
            )
            told += 1
    assert told > 5


class Bump(ReLU):
    """A bump at -3, then max(z, 0): on where its pre-activation is low."""

    def __call__(self, z):
        codes, slope = super().__call__(z)
        bump = torch.exp(-100.0 * (z + 3.0).square())
        return paper.Activated(codes + bump, slope - 200.0 * (z + 3.0) * bump)


def test_theorem2_is_violated_by_an_activation_that_falls():
    found = paper.theorem2(([[0.01]], [-3.0]), [[-1.0], [1.0]], Bump())
    assert failing(found)[:2] == ["s is non-decreasing", "s' in [0, 1]"]
    assert found.measurements[0].value < -0.9
    assert found.verdict == "not promised"


def test_theorem2_is_nearly_reached():
    # +-1 with chance .02 each, else 0: Pr(|a| >= 1) = Var[a], and the bound at 1 - is .96.
    data = np.zeros((100, 1))
    data[:2], data[2:4] = 1.0, -1.0
    found = paper.theorem2(([[1.0]], [-0.999]), data, ReLU())
    assert found.verdict == "confirmed"
    assert found.numbers["probability"][0] == 0.98  # Chebyshev counts the lower two as well
    assert found.numbers["bound"][0] == pytest.approx(0.96, abs=1e-3)
    assert found.numbers["bound"][0] < found.numbers["cantelli"][0] < 0.98


def test_theorem2_with_lengths_for_variances_is_of_white_data_only():
    place = (np.eye(5), np.full(5, -1.6))
    white = paper.theorem2(place, whitened(), ReLU())
    assert white.numbers["bound_of_lengths_slack"] >= 0
    np.testing.assert_allclose(white.numbers["variance_over_length"], 1.0)
    assert white.numbers["bound_of_lengths"] == pytest.approx(white.numbers["bound"])
    loud = paper.theorem2((np.eye(5), np.full(5, -3.0)), whitened() * 10, ReLU())
    assert loud.numbers["bound_of_lengths_slack"] < 0
    assert loud.verdict == "confirmed"


def test_theorem2_promises_nothing_above_a_min():
    found = paper.theorem2(point(low=1.0, high=2.0), whitened(), ReLU())
    assert found.verdict == "open"
    assert found.numbers["units_below"] == 0


def test_theorem2_a_penalty_raises_the_bound():
    place, data = point(low=-6.0, high=-5.0), whitened()
    strength = 10 * paper.threshold_strength(place, data, Softplus(), Contractive(1.0))
    found = paper.theorem2(place, data, Softplus(), Contractive(strength))
    assert found.numbers["bound_rises_share"] == 1.0
    # And without one it need not: units that are too silent grow.
    assert paper.theorem2(place, data, Softplus(), NoPenalty()).numbers["bound_rises_share"] < 0.5


def test_a_training_lowers_preactivations_and_raises_the_bound():
    data = whitened()
    place = point(low=-6.0, high=1.0)
    strength = 1.1 * paper.threshold_strength(place, data, Softplus(), L1(1.0))
    points = [Parameters(*map(torch.tensor, place))]
    for _ in range(6):
        terms = L1(strength)(points[-1], torch.tensor(data), Softplus())
        weights = points[-1].dictionary - 0.01 * terms.gradient(points[-1].dictionary)
        points.append(Parameters(weights, points[-1].bias - 0.01 * terms.bias))
    found = paper.trajectory(points, data, Softplus())
    assert found.verdict == "holds beyond its hypotheses", "nobody knows S"
    assert found.numbers["falls"] == [1.0] * 6
    assert found.numbers["t_min"][0] == 0
    assert found.numbers["t_max"][0] == 6
    json.dumps(found.to_dict(), allow_nan=False)
    back = paper.trajectory(points[::-1], data, Softplus())
    assert back.verdict == "not promised"
    assert back.numbers["falls"] == [0.0] * 6
    above = paper.trajectory([point(low=5.0, high=6.0)] * 2, data, Softplus())
    assert (above.verdict, above.numbers["t_min"]) == ("open", [None] * 8)
    with pytest.raises(ArgumentError, match=r"^points: found 1; needed"):
        paper.trajectory(points[:1], data, Softplus())


# --- Remarks 1 and 2, Theorem 3 --------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=named(ACTIVATIONS))
@pytest.mark.parametrize("remark", [paper.remark1, paper.remark2])
def test_remarks(remark, activation):
    found = remark(point(length=1.7), whitened(), activation)
    assert found.verdict == "confirmed"
    assert found.measurements[0].value <= 1e-10
    assert found.numbers["explicit"] > 0.01
    assert found.numbers["samples"] == 8


def test_remarks_differ_by_the_squared_length():
    place, data = point(length=1.7), whitened()
    first, second = (each(place, data, Sigmoid()) for each in (paper.remark1, paper.remark2))
    ratio = second.numbers["explicit"] / first.numbers["explicit"]
    assert ratio == pytest.approx(1.7**2)


@pytest.mark.parametrize("sigma", [0.03, 0.1])
@pytest.mark.parametrize("activation", SMOOTH, ids=named(SMOOTH))
def test_theorem3_within_one_percent(activation, sigma):
    found = paper.theorem3(point(high=1.0), whitened(400), activation, sigma**2, 400)
    assert found.verdict == "confirmed"
    assert found.numbers["relative_error"] < 0.01
    assert found.numbers["standard_error"] < 0.005 * found.numbers["formula"]
    # Pairs are what makes that visible.
    assert found.numbers["standard_error_without_pairs"] > 3 * found.numbers["standard_error"]


@pytest.mark.parametrize("activation", SMOOTH, ids=named(SMOOTH))
def test_theorem3_terms_are_the_trace_of_the_hessian(activation):
    (weights, bias), data = point(high=1.0), whitened(12)
    w, b = torch.tensor(weights), torch.tensor(bias)
    traces = []
    for x in torch.tensor(data):
        loss = lambda y, x=x: (x - activation((w @ y + b)[None]).codes[0] @ w).square().sum()  # noqa: E731
        traces.append(float(torch.autograd.functional.hessian(loss, x).trace()))
    found = paper.theorem3((weights, bias), data, activation, 0.01, 2)
    own, pairs, last = found.numbers["terms"]
    assert own + pairs + last == pytest.approx(0.01 * 0.5 * np.mean(traces), rel=1e-10)
    whole = SecondOrderDenoising(0.01)(Parameters(w, b), torch.tensor(data), activation)
    assert found.numbers["formula"] == pytest.approx(float(whole.penalty), rel=1e-12)
    first = Marginalized(0.01)(Parameters(w, b), torch.tensor(data), activation)
    assert own == pytest.approx(float(first.penalty), rel=1e-12)
    assert min(abs(pairs), abs(last)) > 1e-3 * own


@pytest.mark.parametrize("sigma", [0.03, 0.1])
def test_theorem3_misses_the_kink_of_relu(sigma):
    place, data = point(low=-2.0, high=-1.0, length=1.0), whitened(2000)
    found = paper.theorem3(place, data, ReLU(), sigma**2, 50)
    assert failing(found) == ["s is twice differentiable"]
    assert found.verdict == "not promised"
    assert found.numbers["terms"][2] == 0.0
    assert found.numbers["relative_error"] > 1.0
    assert found.numbers["drawn"] < 0 < found.numbers["formula"]  # noise lowers the loss
    assert found.numbers["relative_error_with_kink"] < 0.1


def test_theorem3_the_kink_is_a_mean_over_the_noise():
    # One unit and one sample: E max(a + u, 0) - max(a, 0) by quadrature, through the residual.
    found = paper.theorem3(([[2.0]], [-0.9]), [[0.5], [0.5]], ReLU(), 0.01, 2).numbers
    u = np.linspace(-2.0, 2.0, 400_001)
    density = np.exp(-0.5 * (u / 0.2) ** 2) / (0.2 * math.sqrt(2 * math.pi))
    mean = np.sum(np.maximum(0.1 + u, 0) * density) * (u[1] - u[0])
    assert found["kink"] == pytest.approx(-2 * (0.5 - 2.0 * 0.1) * 2.0 * (mean - 0.1), rel=1e-6)
    assert math.isnan(paper.theorem3(point(), whitened(9), Maxout(), 0.01, 2).numbers["kink"])
    assert paper.theorem3(point(), whitened(9), Tanh(), 0.01, 2).numbers["kink"] == 0.0


def test_theorem3_repeats_with_its_seed():
    place, data = point(), whitened(50)
    first, again, other = (
        paper.theorem3(place, data, Sigmoid(), 0.01, 3, seed).numbers["drawn"] for seed in (1, 1, 2)
    )
    assert first == again != other


# --- what is refused, and what is kept -------------------------------------------------------

FUNCTIONS = [
    paper.assumption1,
    paper.lemma1,
    lambda *args: paper.theorem1(*args, L1(1.0)),
    lambda *args: paper.threshold_strength(*args, L1(1.0)),
    paper.theorem2,
    lambda *args: paper.corollary1(*args, L1(1.0)),
    lambda *args: paper.corollary2(*args, L1(1.0)),
    paper.equation3,
    paper.remark1,
    paper.remark2,
    lambda *args: paper.theorem3(*args, 0.01, 2),
]


@pytest.mark.parametrize("ask", FUNCTIONS)
@pytest.mark.parametrize(
    ("parameters", "data", "argument"),
    [
        (3.0, np.ones((4, 2)), "parameters"),
        ((np.ones(2), np.ones(1)), np.ones((4, 2)), "dictionary"),
        ((np.ones((2, 2)), np.ones(3)), np.ones((4, 2)), "bias"),
        ((np.ones((2, 2)), 0.0), np.ones((4, 2)), "bias"),
        ((np.ones((2, 2)), np.ones(2)), np.ones((4, 3)), "data"),
        ((np.ones((2, 2)), np.ones(2)), np.ones((1, 2)), "data"),
        ((np.ones((2, 2)), np.ones(2)), np.ones(2), "data"),
        ((np.ones((2, 2)), np.ones(2)), np.full((4, 2), np.nan), "data"),
        ((np.ones((2, 2)), np.ones(2)), [["a", "b"]], "data"),
    ],
)
def test_shapes_are_checked(ask, parameters, data, argument):
    with pytest.raises(ArgumentError) as caught:
        ask(parameters, data, Softplus())
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda *at: paper.theorem1(*at, L1(1.0), 0.0), "step"),
        (lambda *at: paper.theorem1(*at, L1(1.0), tolerance=-1.0), "tolerance"),
        (lambda *at: paper.theorem1(*at, lambda *_: None), "penalty"),
        (lambda *at: paper.theorem2(*at, step=-1.0), "step"),
        (lambda *at: paper.lemma1(*at, tolerance=-1.0), "tolerance"),
        (lambda *at: paper.remark1(*at, n_samples=0), "n_samples"),
        (lambda *at: paper.theorem3(*at, 0.0), "variance"),
        (lambda *at: paper.theorem3(*at, 0.1, 1), "n_draws"),
        (lambda *at: paper.theorem3(*at, 0.1, 2, "x"), "random_state"),
    ],
)
def test_numbers_are_checked(call, argument):
    with pytest.raises(ArgumentError) as caught:
        call(point(), whitened(), Sigmoid())
    assert caught.value.argument == argument


@pytest.mark.parametrize("ask", [each for each in FUNCTIONS if each is not FUNCTIONS[3]])
def test_arrays_and_tensors_give_the_same_and_stay_as_they_are(ask):
    (weights, bias), data = point(), whitened(60)
    whole = ask((weights, bias), data, Softplus())
    json.dumps(whole.to_dict(), allow_nan=False)
    assert str(whole)
    tensors = Parameters(torch.tensor(weights, requires_grad=True), torch.tensor(bias))
    fortran = np.asfortranarray(data)
    fortran.flags.writeable = False
    assert ask(tensors, fortran, Softplus()).to_dict() == whole.to_dict()
    assert ask((weights, bias), data[::-1][::-1], Softplus()).to_dict() == whole.to_dict()
    assert (data == whitened(60)).all()
    assert (weights == point()[0]).all()

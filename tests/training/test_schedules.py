import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from shoal.network.kernels import StepSums
from shoal.training import Constant, ExponentialDecay, FixedStep, Halving, NormalizedStep
from shoal.vocabulary import ArgumentError


def test_a_constant_is_constant():
    assert [Constant(0.3)(step) for step in (0, 1, 10**6)] == [0.3] * 3


def test_decay_goes_from_initial_to_final_by_a_constant_factor():
    decay = ExponentialDecay(0.5, 0.03, 40)
    values = [decay(step) for step in range(60)]
    assert values[0] == 0.5
    assert values[40:] == [pytest.approx(0.03)] * 20
    ratios = [after / before for before, after in pairwise(values[:41])]
    assert ratios == [pytest.approx((0.03 / 0.5) ** (1 / 40))] * 40


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0, 1, 5), "initial"),
        ((1, 0, 5), "final"),
        ((math.inf, 1, 5), "initial"),
        ((1, 1, 0), "n_"),
    ],
)
def test_decay_names_what_is_wrong(arguments, name):
    with pytest.raises(ArgumentError, match=f"^{name}"):
        ExponentialDecay(*arguments)


def test_halving():
    assert [Halving(-1.0)(step) for step in range(4)] == [-1.0, -0.5, -0.25, -0.125]
    assert [Halving(-1.0, every=2)(step) for step in range(5)] == [-1.0, -1.0, -0.5, -0.5, -0.25]
    assert [Halving(-1.0, floor=-0.4)(step) for step in range(4)] == [-1.0, -0.5, -0.4, -0.4]
    assert [Halving(-1.0, floor=-1.0)(step) for step in range(2)] == [-1.0, -1.0]
    assert Halving(0.0)(3) == 0.0
    assert Halving(-1.0)(5000) == 0.0  # underflow, not an error


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"initial": 0.1}, "initial"),
        ({"initial": -1.0, "floor": 0.1}, "floor"),
        ({"initial": -1.0, "floor": -1.1}, "floor"),
        ({"initial": -1.0, "floor": math.nan}, "floor"),
        ({"initial": -1.0, "every": 0}, "every"),
    ],
)
def test_halving_names_what_is_wrong(arguments, name):
    with pytest.raises(ArgumentError, match=f"^{name}"):
        Halving(**arguments)


def sums_of(codes, gradient):
    """What a step needs, of codes (B, m) and a gradient (m, n) that is summed over them."""
    return StepSums(
        dictionary=gradient,
        bias=torch.zeros(len(gradient), dtype=gradient.dtype),
        losses=torch.zeros(len(codes), dtype=gradient.dtype),
        counts=(codes != 0).sum(dim=0).to(gradient.dtype),
        energy=codes.square().sum(dim=0),
        n_samples=len(codes),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_changes_by_hand(dtype):
    codes = torch.tensor([[2.0, 1, 0], [2, -1, 0], [0, 0, 0], [0, 0, 0]], dtype=dtype)
    gradient = torch.tensor([[4.0, 8.0], [1.0, -1.0], [0.0, 0.0]], dtype=dtype)
    sums = sums_of(codes, gradient)
    # c = 1/2 over means 2, 1/2, 0 of squares, for gradients that are means over 4; a silent
    # unit stays.
    found = NormalizedStep(ExponentialDecay(1.0, 0.25, 2)).change(1, sums)
    assert found.tolist() == [[0.25, 0.5], [0.25, -0.25], [0.0, 0.0]]
    assert found.dtype == dtype
    fixed = FixedStep(Halving(-1.0)).change(1, sums)
    assert torch.equal(fixed, -0.125 * gradient)
    assert fixed.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_shared_step_is_newtons_where_codes_are_all_or_nothing(dtype):
    # Codes of 0 and 3: with them the bound of their sums by counts and squares is met.
    on = np.random.default_rng(0).random((50, 8)) < 0.3
    on[:, 7] = False
    codes = torch.from_numpy(3.0 * on).to(dtype)
    gradient = torch.from_numpy(np.random.default_rng(1).standard_normal((8, 5))).to(dtype)
    gradient[7] = 0
    found = NormalizedStep(Constant(0.4), shared=True).change(0, sums_of(codes, gradient))
    sums, squares = codes.sum(dim=0), codes.square().sum(dim=0)
    squares[7] = 1.0
    curvature = torch.diag(squares) + torch.outer(sums, sums) / 50
    torch.testing.assert_close(found, 0.4 * torch.linalg.solve(curvature, gradient))
    assert found.dtype == dtype


def test_a_shared_step_does_not_overshoot_what_atoms_have_in_common():
    # Non-negative codes, all atoms off by the same v: a step of each for itself moves by c L v,
    # L = 1 + (k - 1) kappa1^2 / kappa2 (Nguyen et al. 2018).
    rng = np.random.default_rng(2)
    k, m, n = 8, 60, 4
    codes = np.zeros((20_000, m))
    support = rng.random(codes.shape).argpartition(k, axis=1)[:, :k]
    np.put_along_axis(codes, support, rng.uniform(1, 2, support.shape), axis=1)
    codes = torch.from_numpy(codes)
    off = torch.from_numpy(rng.standard_normal(n))
    gradient = codes.T @ (codes @ off.expand(m, n))
    steep = 1 + (k - 1) * 1.5**2 / (7 / 3)
    sums = sums_of(codes, gradient)
    alone = NormalizedStep(Constant(1.0)).change(0, sums)
    torch.testing.assert_close(alone, steep * off.expand(m, n), rtol=0.1, atol=0.1)
    together = NormalizedStep(Constant(1.0), shared=True).change(0, sums)
    share = (together @ off / (off @ off)).numpy()
    assert (np.abs(share - steep / (1 + k)) < 0.3).all()

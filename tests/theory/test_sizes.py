"""Orders of magnitude over growing sizes: the exact computations behind three accusations."""

import numpy as np
import pytest

from shoal.generative import Constant, NonnegativeSparseCoding, Rademacher, SparseCoding, Uniform
from shoal.network import HardThreshold
from shoal.theory import gradients, modes, nguyen2019, sizes
from shoal.vocabulary import ArgumentError

SIZES = (256, 1024, 4096, 65_536, 1_048_576)


def leaning(m, distance):
    x = 1 - distance**2 / m / 2
    y = np.sqrt((1 - x**2) / (m - 1))
    return x * np.eye(m) + y * (1 - np.eye(m))


@pytest.mark.parametrize("values", [Constant(1.0), Uniform(1.0, 2.0)])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("step", [0.3, 1.0])
def test_the_mean_mode_is_a_step_of_the_expected_gradient(k, step, values):
    m = 24
    world = NonnegativeSparseCoding(np.eye(m), k, values=values)
    weights = leaning(m, 0.8)
    zeta = nguyen2019.step_size(world, weights, step)
    moved = weights - zeta * gradients.moment_gradient(world, weights)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    found = modes.mean_mode(k, m, step, kappa1=world.kappa1, kappa2=world.kappa2, distance=0.8)
    assert found * 0.8**2 == pytest.approx(((moved - np.eye(m)) ** 2).sum(), rel=1e-9)


@pytest.mark.parametrize("values", [Constant(1.0), Uniform(1.0, 2.0)])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_other_modes_are_eigenvectors_of_the_gradient(k, values):
    m, h = 12, 1e-5
    world = NonnegativeSparseCoding(np.eye(m), k, values=values)
    ring = np.zeros((m, m))
    ring[[0, 1, 2, 3], [1, 2, 3, 0]] = 1.0, -1.0, 1.0, -1.0
    turn = np.zeros((m, m))
    turn[[0, 1, 2], [1, 2, 0]] = 1.0
    places = (ring + ring.T, turn - turn.T)
    curvatures = modes.other_modes(k, m, kappa1=world.kappa1, kappa2=world.kappa2)
    for z, curvature in zip(places, curvatures, strict=True):
        assert not z.sum(axis=0).any()
        assert not z.sum(axis=1).any()
        up, down = (gradients.moment_gradient(world, np.eye(m) + s * h * z) for s in (1, -1))
        slope = (up - down) / (2 * h) / (world.kappa2 * world.p[0])
        np.testing.assert_allclose(slope, curvature * z, rtol=0, atol=1e-8)


# What the best of all steps leaves of |W - A|_F^2 in the worse mode, and the constant that
# D' <= D / 4 + C k^3 / m then needs. Each figure is the arithmetic of `best_step`, checked above.
TABLE = {
    2: ((0.117, 0.113, 0.111, 0.111, 0.111), (-4.2, -17.6, -70.9, -1137.6, -18_204.2)),
    3: ((0.269, 0.255, 0.251, 0.250, 0.250), (0.2, 0.2, 0.2, 0.2, 0.2)),
    4: ((0.391, 0.368, 0.362, 0.360, 0.360), (0.6, 1.9, 7.2, 112.8, 1802.4)),
    5: ((0.486, 0.455, 0.447, 0.445, 0.444), (0.5, 1.7, 6.5, 102.0, 1631.2)),
    8: ((0.664, 0.621, 0.609, 0.605, 0.605), (0.2, 0.7, 2.9, 45.5, 726.9)),
}


@pytest.mark.parametrize("k", TABLE)
def test_the_table_of_best_steps(k):
    found = sizes.theorem4(k, SIZES).numbers
    contraction, constant = TABLE[k]
    worst = np.maximum(found["mean_mode"], found["other_modes"])
    np.testing.assert_allclose(worst, contraction, rtol=0, atol=6e-4)
    np.testing.assert_allclose(found["constant"], constant, rtol=1e-3, atol=0.06)
    # No other step does better: both modes on a grid of c.
    m = SIZES[1]
    rest = modes.other_modes(k, m)
    grid = [
        max(modes.mean_mode(k, m, c), *((1 - c * each) ** 2 for each in rest))
        for c in np.linspace(0.05, 1.5, 60)
    ]
    assert min(grid) >= worst[1] - 1e-9


@pytest.mark.parametrize("k", [2, 3, 4, 5, 8])
def test_theorem4_iii_is_false_for_every_step_from_four_units_on(k):
    found = sizes.theorem4(k, SIZES)
    assert found.applies
    assert found.verdict == ("confirmed" if k <= 3 else "contradicted")
    growth = found.measurements[0].value
    assert growth == pytest.approx(1.0 if k > 3 else 0.0, abs=0.02)
    assert bool(found.errata) is (k > 3)


def test_what_decides_is_L_and_not_k():
    """Non-zeros that spread widely have a small mean beside their square: L = 2.5 at k = 4."""
    assert sizes.theorem4(4, SIZES, kappa1=1.0, kappa2=2.0).verdict == "confirmed"
    assert sizes.theorem4(3, SIZES, kappa1=1.5, kappa2=7 / 3).verdict == "confirmed"  # U[1, 2]
    assert sizes.theorem4(7, SIZES, kappa1=1.0, kappa2=2.0).verdict == "contradicted"


def test_half_a_step_serves_three_units():
    """c = .509 at U[1, 2], L = 2.93: the theorem leaves c open, so that c = 1 refutes nothing."""
    moments = {"kappa1": 1.5, "kappa2": 7 / 3}
    found = [modes.mean_mode(3, m, 0.509, **moments) for m in (1024, 65_536, 1_048_576)]
    assert found == pytest.approx([0.2540, 0.2409, 0.2407], abs=2e-4)
    assert modes.mean_mode(3, 1024, 1.0, **moments) > 3


@pytest.mark.parametrize("lean", [0.5, 1.0, 1.9])
def test_the_remainder_grows_as_the_root_of_m(lean):
    found = sizes.remainder(3, (25, 50, 100, 200), lean=lean)
    assert found.measurements[0].value == pytest.approx(0.5, abs=0.1)
    np.testing.assert_allclose(
        found.numbers["constant"][1:], found.numbers["predicted"][1:], rtol=0.12
    )
    verdict = sizes.remainder(3, (100, 200), lean=lean).verdict
    assert verdict == "contradicted"


def test_fast_hadamard_is_the_matrix():
    from scipy.linalg import hadamard

    rows = np.random.default_rng(0).standard_normal((3, 16))
    np.testing.assert_allclose(sizes._hadamard(rows), rows @ hadamard(16) / 4, atol=1e-12)


def test_the_hadamard_world_is_theorem3s():
    from scipy.linalg import hadamard

    atoms = np.vstack([np.eye(64), hadamard(64) / 8])
    world = SparseCoding(atoms, 6, values=Rademacher())
    direct = nguyen2019.consistency(world, atoms, HardThreshold(0.5), n_samples=20_000)
    found = sizes.theorem3(64, 6, 20_000)
    assert found.numbers["share"] == pytest.approx(direct.signs, abs=0.02)
    wrong = 128 * (1 - direct.sign_entries)
    assert found.numbers["wrong_units"] == pytest.approx(wrong, rel=0.05)


def test_k_up_to_n_over_log_n_is_too_many():
    n = 8192
    assert sizes.theorem3(n, 100, 60).verdict == "confirmed"
    most = int(n / np.log(n))
    for k in (most // 2, most):
        found = sizes.theorem3(n, k, 60)
        assert found.applies  # mu = 1 <= sqrt n / log^2 n = 1.11
        assert found.numbers["share"] == 0.0
        assert found.verdict == "contradicted"
    assert found.numbers["wrong_units"] == pytest.approx(found.numbers["predicted"], rel=0.05)
    # The number of wrong units grows with n.
    larger = sizes.theorem3(2 * n, int(2 * n / np.log(2 * n)), 20)
    assert larger.numbers["wrong_units"] > 1.5 * found.numbers["wrong_units"]


def test_sizes_that_are_refused():
    for wrong in ((256,), (1024, 256), (256, 256)):
        with pytest.raises(ArgumentError, match="sizes"):
            sizes.theorem4(3, wrong)
    with pytest.raises(ArgumentError, match="sizes"):
        sizes.theorem4(8, (8, 256))
    with pytest.raises(ArgumentError, match="kappa2"):
        sizes.theorem4(3, kappa1=2.0, kappa2=1.0)
    with pytest.raises(ArgumentError, match="power of two"):
        sizes.theorem3(100, 3)
    with pytest.raises(ArgumentError, match="k"):
        sizes.theorem3(64, 200)

"""Unit atoms, and the projection that keeps an estimate near."""

import numpy as np
import pytest
import torch

from shoal.training.constraints import nearness_projection, unit_atoms
from shoal.vocabulary import ArgumentError


def random(m, n, seed=0, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(m, n, generator=generator, dtype=torch.float64).to(dtype)


def spectral_norm(dictionary):
    return float(torch.linalg.matrix_norm(dictionary, 2))


def distances(dictionary, center):
    return torch.linalg.vector_norm(dictionary - center, dim=1)


def all_one_way(m=8, n=6, size=3.0):
    """C and a W that balls alone leave with too large a norm: all rows pulled the same way."""
    center = unit_atoms(random(m, n))
    return center, center + size * torch.ones(n, dtype=torch.float64) / n**0.5


# Center, W, delta, spectral: the bound on the norm is met by itself, or not.
CASES = [
    (unit_atoms(random(8, 6)), random(8, 6, 1), 0.3, 2.0),
    (*all_one_way(), 2.5, 1.2),
    (*all_one_way(), 2.5, 1.0),
    (unit_atoms(random(5, 9, 3)), random(5, 9, 4, 4.0), 1.5, 1.05),
    (*all_one_way(12, 3, 1.0), 0.6, 1.1),
]
BOUND = CASES[1:]


@pytest.mark.parametrize(("center", "given", "delta", "spectral"), CASES)
def test_the_projection_is_in_the_set(center, given, delta, spectral):
    found = nearness_projection(given, center, delta, spectral)
    assert float(distances(found, center).max()) <= delta * (1 + 1e-12)
    assert spectral_norm(found) <= spectral * spectral_norm(center) * (1 + 1e-12)


@pytest.mark.parametrize(("center", "given", "delta", "spectral"), BOUND)
def test_both_bounds_are_tried(center, given, delta, spectral):
    balls = nearness_projection(given, center, delta, 1e6)
    assert spectral_norm(balls) > 1.05 * spectral * spectral_norm(center)


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_it_is_in_the_set_after_any_number_of_rounds(rounds):
    for center, given, delta, spectral in CASES:
        found = nearness_projection(given, center, delta, spectral, max_iterations=rounds)
        assert float(distances(found, center).max()) <= delta * (1 + 1e-12)
        assert spectral_norm(found) <= spectral * spectral_norm(center) * (1 + 1e-12)


@pytest.mark.parametrize(("center", "given", "delta", "spectral"), CASES)
def test_no_point_of_the_set_is_nearer(center, given, delta, spectral):
    found = nearness_projection(given, center, delta, spectral, max_iterations=3000)
    away = given - found
    for seed in range(100):
        other = center + random(*center.shape, seed, 10.0 ** (seed % 4 - 2))
        # Any point of the set; half of them on the side of W, where a nearer one would be.
        other += (seed % 2) * away
        other = nearness_projection(other, center, delta, spectral, max_iterations=5)
        slack = 1e-7 * float(away.norm() * (other - found).norm())
        assert float((away * (other - found)).sum()) <= slack


@pytest.mark.parametrize(("center", "given", "delta", "spectral"), CASES)
def test_twice_is_once(center, given, delta, spectral):
    once = nearness_projection(given, center, delta, spectral, max_iterations=3000)
    torch.testing.assert_close(
        nearness_projection(once, center, delta, spectral), once, rtol=0, atol=1e-9
    )


def test_against_a_solver():
    optimize = pytest.importorskip("scipy.optimize")
    center, given = all_one_way(3, 2, 1.5)
    delta, limit = 1.0, 1.1 * spectral_norm(center)
    c, w = center.numpy(), given.numpy()

    def inside(flat):
        rows = flat.reshape(3, 2)
        gram = rows.T @ rows  # 2 x 2: its eigenvalues are smooth but where they meet
        middle, half = np.trace(gram) / 2, np.hypot((gram[0, 0] - gram[1, 1]) / 2, gram[0, 1])
        return np.append(delta**2 - ((rows - c) ** 2).sum(axis=1), limit**2 - middle - half)

    solved = optimize.minimize(
        lambda flat: ((flat - w.ravel()) ** 2).sum(),
        c.ravel(),
        jac=lambda flat: 2 * (flat - w.ravel()),
        constraints={"type": "ineq", "fun": inside},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert solved.success
    found = nearness_projection(given, center, delta, 1.1, max_iterations=5000)
    assert (inside(solved.x) < 1e-6).sum() >= 2  # the norm and a ball both bind
    np.testing.assert_allclose(found.numpy().ravel(), solved.x, rtol=0, atol=1e-6)


def test_rows_inside_are_left_bit_for_bit():
    center = unit_atoms(random(8, 6))
    given = center + random(8, 6, 1, 0.01)
    given[2] += 5.0
    found = nearness_projection(given, center, 0.5)
    inside = distances(given, center) <= 0.5
    assert inside.tolist() == [row != 2 for row in range(8)]
    assert torch.equal(found[inside], given[inside])
    assert float(distances(found, center)[2]) == pytest.approx(0.5)


def test_a_delta_of_0_gives_the_center():
    center, given = all_one_way()
    torch.testing.assert_close(nearness_projection(given, center, 0.0), center)
    assert torch.equal(nearness_projection(center, center, 0.0), center)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_and_inputs_stay(dtype):
    for center, given, delta, spectral in CASES:
        arguments = given.to(dtype).T.contiguous().T, center.to(dtype)
        kept = [each.clone() for each in arguments]
        found = nearness_projection(*arguments, delta, spectral)
        assert found.dtype == dtype
        assert all(torch.equal(each, copy) for each, copy in zip(arguments, kept, strict=True))
        found += 1.0
        assert all(torch.equal(each, copy) for each, copy in zip(arguments, kept, strict=True))


def test_single_precision_agrees_with_double():
    for center, given, delta, spectral in CASES:
        double = nearness_projection(given, center, delta, spectral)
        single = nearness_projection(given.float(), center.float(), delta, spectral)
        torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


EYE = torch.eye(3)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"delta": -0.1}, "delta"),
        ({"delta": float("nan")}, "delta"),
        ({"spectral": 0.9}, "spectral"),
        ({"spectral": float("inf")}, "spectral"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"center": torch.eye(4)}, "shapes"),
        ({"dictionary": torch.ones(3), "center": torch.ones(3)}, "shapes"),
        ({"dictionary": torch.ones(0, 3), "center": torch.ones(0, 3)}, "not empty"),
        ({"center": EYE.double()}, "one floating type"),
        ({"dictionary": EYE.long(), "center": EYE.long()}, "one floating type"),
        ({"dictionary": EYE * float("nan")}, "finite"),
    ],
)
def test_arguments_that_cannot_be_used(changes, match):
    # Beyond the balls' own reach of the norm, so that all arguments come into play.
    given = {"dictionary": 9 * EYE, "center": EYE, "delta": 5.0, "spectral": 1.5} | changes
    with pytest.raises(ArgumentError, match=match):
        nearness_projection(**given)


# --- unit atoms ------------------------------------------------------------------------------


def test_unit_atoms():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [float("nan"), 1.0], [0.0, float("inf")]])
    torch.testing.assert_close(unit_atoms(rows[:1]), torch.tensor([[0.6, 0.8]]))
    fallback = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    found = unit_atoms(rows, fallback)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [1.0, 0], [1.0, 0], [1.0, 0]]))
    torch.testing.assert_close(unit_atoms(rows)[1:], torch.zeros(3, 2))


def test_atoms_without_an_entry_below_zero():
    from shoal.training import NonnegativeUnitLength

    moved = torch.tensor([[3.0, -4.0, 0.0], [-1.0, -2.0, -2.0], [0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])
    before = torch.tensor([[0.0, 1, 0], [0.0, 0, 1], [0.0, 0, 0], [1.0, 0, 0]])
    found = NonnegativeUnitLength()(moved, before)
    expected = torch.tensor([[1.0, 0, 0], [0.0, 0, 1], [0.0, 0, 0], [1 / 3, 2 / 3, 2 / 3]])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("centred", [False, True])
def test_a_fit_of_atoms_without_an_entry_below_zero(centred):
    from shoal import DictionaryAutoencoder, recovery

    rng = np.random.default_rng(0)
    topics = rng.dirichlet(np.full(40, 0.1), 8)
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    amounts = np.zeros((1500, 8))
    for row in amounts:
        row[rng.choice(8, 2, replace=False)] = rng.uniform(1, 3, 2)
    data = amounts @ topics + 0.01 * rng.standard_normal((1500, 40))
    named = {"model": "nonnegative", "positive_atoms": True, "random_state": 0}
    if centred:
        data = data - data.mean(axis=0)
    model = DictionaryAutoencoder(8, 2, **named).fit(data)
    assert (model.components_ >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(model.components_, axis=1), 1)
    if not centred:
        assert recovery(model.components_, topics).recovered(0.99) == 1

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shoal.network import HardThreshold, ReLU, Sigmoid, Softplus, TopK
from shoal.network.activations import Maxout, Tanh, k_largest
from shoal.vocabulary import ArgumentError, active

inf = math.inf

# Activations that pass z or silence it. A new one joins by a line here.
GATES = [
    ReLU(),
    HardThreshold(0.0),
    HardThreshold(0.5),
    HardThreshold(0.5, signed=False),
    TopK(1),
    TopK(3),
    TopK(1, signed=False),
    TopK(3, signed=False),
    TopK(100),
]
SMOOTH = [Sigmoid(), Softplus(), Tanh()]
# Those whose bend and jerk penalties ask for.
DERIVED = [ReLU(), *SMOOTH, Maxout(), Maxout(4)]


def slow_k_largest(values, k):
    """The definition: sort by value, then by index, and take the first k."""
    mask = np.zeros(values.shape, dtype=bool)
    for row, found in zip(values.tolist(), mask, strict=True):
        found[sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]] = True
    return mask


# --- by hand ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "z", "codes", "slope"),
    [
        (ReLU(), [-2, -0.0, 0, 1e-30, 3], [0, 0, 0, 1e-30, 3], [0, 0, 0, 1, 1]),
        (ReLU(), [-inf, inf], [0, inf], [0, 1]),
        (HardThreshold(1.0), [-2, -1, -0.9, 0, 1, 1.5], [-2, 0, 0, 0, 0, 1.5], [1, 0, 0, 0, 0, 1]),
        (HardThreshold(1.0, signed=False), [-2, 0.9, 1, 1.5], [0, 0, 0, 1.5], [0, 0, 0, 1]),
        (HardThreshold(0.0), [-0.5, 0, 0.5], [-0.5, 0, 0.5], [1, 0, 1]),
        (HardThreshold(0.5), [-inf, 0.1], [-inf, 0], [1, 0]),
        (TopK(2), [1, -3, 2, 0], [0, -3, 2, 0], [0, 1, 1, 0]),
        (TopK(2), [1, -1, 1, -1], [1, -1, 0, 0], [1, 1, 0, 0]),
        (TopK(3), [0, -1, 0, 0], [0, -1, 0, 0], [0, 1, 0, 0]),
        (TopK(9), [1, -2, 0], [1, -2, 0], [1, 1, 0]),
        (TopK(2, signed=False), [1, -3, 2, 0], [1, 0, 2, 0], [1, 0, 1, 0]),
        (TopK(3, signed=False), [1, -3, 0, -2], [1, 0, 0, 0], [1, 0, 0, 0]),
        (TopK(1, signed=False), [-1, -2], [0, 0], [0, 0]),
        (TopK(9, signed=False), [1, -2, 0], [1, 0, 0], [1, 0, 0]),
        (Sigmoid(), [0, math.log(3), -math.log(3)], [0.5, 0.75, 0.25], [0.25, 0.1875, 0.1875]),
        (Sigmoid(), [-2000, 2000], [0, 1], [0, 0]),
        (Softplus(), [0, math.log(3)], [math.log(2), math.log(4)], [0.5, 0.75]),
        (Softplus(), [-2000, 2000], [0, 2000], [0, 1]),
        (Softplus(), [30.0], [30 + math.exp(-30)], [1 / (1 + math.exp(-30))]),
        (Softplus(), [-40.0], [math.exp(-40)], [math.exp(-40)]),
        (Tanh(), [0, math.log(3)], [0, 0.8], [1, 0.36]),
        (Tanh(), [-2000, 2000], [-1, 1], [0, 0]),
        (Maxout(), [-3, -1, 2, 1], [0, -1, 2, 0], [0, 1, 1, 0]),
        (Maxout(), [-1, -1, 0, 0], [-1, 0, 0, 0], [1, 0, 1, 0]),  # ties go to the first
        (Maxout(3), [1, 2, 3, 5, 5, -7], [0, 0, 3, 5, 0, 0], [0, 0, 1, 1, 0, 0]),
        (Maxout(2), [-inf, 1, inf, 2], [0, 1, inf, 0], [0, 1, 1, 0]),
    ],
)
def test_values_and_slopes_by_hand(activation, z, codes, slope):
    found = activation(torch.tensor([z], dtype=torch.float64))
    np.testing.assert_allclose(found.codes[0], codes, rtol=1e-14)
    np.testing.assert_allclose(found.slope[0], slope, rtol=1e-14)


# --- every activation ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 1), (6, 7), (0, 7)])
@pytest.mark.parametrize("activation", [*GATES, *SMOOTH], ids=str)
def test_shape_and_type_are_kept_and_the_input_too(activation, shape, dtype):
    z = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    before = z.clone()
    codes, slope = activation(z)
    assert codes.shape == slope.shape == shape
    assert codes.dtype == slope.dtype == dtype
    assert torch.equal(z, before)
    codes.fill_(7.0)
    slope.fill_(7.0)
    assert torch.equal(z, before)


@settings(max_examples=60, deadline=None)
@given(
    z=arrays(np.float64, (4, 6), elements=st.sampled_from([-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0]))
)
@pytest.mark.parametrize("activation", GATES, ids=str)
def test_a_gate_passes_z_or_gives_a_plain_zero(activation, z):
    z = torch.from_numpy(z)
    codes, slope = activation(z)
    assert torch.equal(slope, active(codes).to(z.dtype))  # code 0 <=> inactive <=> slope 0
    assert torch.equal(codes[slope == 1], z[slope == 1])
    assert not torch.signbit(codes[slope == 0]).any()  # 0.0, never -0.0


@pytest.mark.parametrize("activation", [*GATES, *SMOOTH, Maxout(), Maxout(4)], ids=str)
def test_the_slope_is_the_derivative(activation):
    z = torch.randn(50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z.requires_grad_()
    codes, slope = activation(z)
    (judge,) = torch.autograd.grad(codes.sum(), z)
    # 1 - t^2 is absolute in its rounding where t is near 1.
    atol = 1e-16 if isinstance(activation, Tanh) else 1e-300
    torch.testing.assert_close(slope, judge, rtol=1e-14, atol=atol)


@pytest.mark.parametrize("activation", [*GATES, *SMOOTH], ids=str)
def test_non_contiguous_pre_activations(activation):
    z = torch.randn(8, 20, generator=torch.Generator().manual_seed(2))
    for view in (z.T, z[:, ::2], z[::3]):
        for found, expected in zip(activation(view), activation(view.contiguous()), strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("build", [lambda: HardThreshold(-0.1), lambda: HardThreshold(math.nan)])
def test_a_threshold_is_a_number_from_0(build):
    with pytest.raises(ArgumentError, match="threshold"):
        build()


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
def test_k_is_a_count(k):
    with pytest.raises(ArgumentError, match=r"^k: "):
        TopK(k)


# --- what penalties and theorems ask for -----------------------------------------------------


def grid(low=-12.0, high=12.0, count=2401):
    """(B, 4), the other columns so low that they lose any run of Maxout."""
    z = torch.full((count, 4), -1e3, dtype=torch.float64)
    z[:, 0] = torch.linspace(low, high, count, dtype=torch.float64)
    return z


@pytest.mark.parametrize("activation", DERIVED, ids=str)
def test_bend_and_jerk_are_the_second_and_third_derivatives(activation):
    z = 3 * torch.randn(60, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    z.requires_grad_()
    found = activation(z)
    judge = found.codes
    for derivative in (found.slope, activation.bend(found), activation.jerk(found)):
        if judge.requires_grad:
            (judge,) = torch.autograd.grad(judge.sum(), z, create_graph=True, allow_unused=True)
            judge = torch.zeros_like(z) if judge is None else judge
        else:  # piecewise linear: no derivative beyond the first
            judge = torch.zeros_like(z)
        torch.testing.assert_close(derivative, judge, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", DERIVED, ids=str)
def test_bend_and_jerk_are_new_and_finite_far_out(activation, dtype):
    z = torch.tensor([[-1e30, -200.0, -1e-30, 0.0, 1e-30, 200.0, 1e30, 2.0]], dtype=dtype)
    found = activation(z)
    before = [each.clone() for each in found]
    for derivative in (activation.bend(found), activation.jerk(found)):
        assert derivative.dtype == dtype
        assert torch.isfinite(derivative).all()
        derivative.fill_(7.0)  # penalties write into them
    assert all(map(torch.equal, found, before))


@pytest.mark.parametrize("activation", DERIVED, ids=str)
def test_slopes_lie_between_0_and_1_and_codes_never_fall(activation):
    codes, slope = activation(grid())
    assert slope.min() >= 0
    assert slope.max() <= 1
    assert (codes[:, 0].diff() >= 0).all()


@pytest.mark.parametrize("activation", DERIVED, ids=str)
def test_what_an_activation_says_of_itself_is_so(activation):
    far = activation(torch.tensor([[-50.0, -60.0, -70.0, -80.0]], dtype=torch.float64)).codes[0, 0]
    assert activation.saturates == (abs(far.item()) < 1e-20)
    codes = activation(grid()).codes[:, 0]
    assert activation.convex == bool((codes.diff().diff() >= -1e-12).all())
    # The threshold is one that codes are on both sides of, and a low input is below.
    assert codes.min() <= activation.delta_min < codes.max()
    assert far <= activation.delta_min


def test_maxout_wants_pieces_that_divide():
    with pytest.raises(ArgumentError, match=r"^n_components: found 7"):
        Maxout()(torch.zeros(2, 7))
    for pieces in (0, 1, 2.5, True):
        with pytest.raises(ArgumentError, match=r"^pieces: "):
            Maxout(pieces)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_maxout_passes_one_of_each_run(data):
    pieces, runs = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 4))
    elements = st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0])
    z = data.draw(
        arrays(np.float64, (data.draw(st.integers(0, 4)), pieces * runs), elements=elements)
    )
    codes, slope = Maxout(pieces)(torch.from_numpy(z))
    for row, found, passed in zip(z.tolist(), codes.tolist(), slope.tolist(), strict=True):
        for at in range(0, len(row), pieces):
            run = row[at : at + pieces]
            expected = [0.0] * pieces
            first = run.index(max(run))
            expected[first] = run[first]
            assert found[at : at + pieces] == expected
            assert passed[at : at + pieces] == [float(i == first) for i in range(pieces)]


# --- k largest -------------------------------------------------------------------------------

# Few distinct values, so that ties abound; the zeros of both signs are equal.
TIES = st.sampled_from([-inf, -2.0, -1.0, -0.0, 0.0, 1.0, 2.0, inf])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_k_largest_is_its_definition(data):
    shape = data.draw(st.tuples(st.integers(0, 5), st.integers(1, 9)))
    values = data.draw(arrays(np.float64, shape, elements=TIES))
    k = data.draw(st.integers(1, shape[1] + 2))
    mask = k_largest(torch.from_numpy(values), k).numpy()
    np.testing.assert_array_equal(mask, slow_k_largest(values, k))
    assert mask.dtype == bool
    assert (mask.sum(axis=1) == min(k, shape[1])).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", [1, 17, 1000])
def test_equal_values_go_to_the_lowest_indices(m, dtype):
    values = torch.full((3, m), 0.1, dtype=dtype)
    for k in {1, m // 2, m - 1, m, m + 1} - {0}:
        expected = torch.arange(m).expand(3, m) < k
        assert torch.equal(k_largest(values, k), expected)


def test_one_tied_row_among_others_changes_that_row_only():
    values = torch.tensor([[5.0, 4, 3, 2], [1, 7, 7, 7], [0, 0, 0, 0], [1, 2, 3, 4]])
    expected = [[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]]
    assert k_largest(values, 2).int().tolist() == expected


def test_wide_rows_with_ties_across_the_k_th_place():
    rng = np.random.default_rng(3)
    values = rng.integers(0, 40, (20, 700)).astype(np.float32)
    for k in (1, 16, 333, 699):
        found = k_largest(torch.from_numpy(values), k).numpy()
        np.testing.assert_array_equal(found, slow_k_largest(values, k))


def test_top_k_ranks_magnitudes_when_signed_and_values_when_not():
    z = torch.tensor([[3.0, -3.0, 2.0, -4.0]])
    assert TopK(2)(z).codes.tolist() == [[3.0, 0.0, 0.0, -4.0]]  # 3 = |-3|: lowest index
    assert TopK(2, signed=False)(z).codes.tolist() == [[3.0, 0.0, 2.0, 0.0]]

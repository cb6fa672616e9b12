"""Dictionaries: unit rows, exact distances, known coherences, and clear errors."""

from __future__ import annotations

import ast
import doctest
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shoal.generative
from shoal.generative import (
    coherence,
    copula,
    description,
    dictionaries,
    equiangular,
    equiangular_sizes,
    features,
    forests,
    incoherence,
    laws,
    low_coherence,
    models,
    named,
    orthonormal_union,
    perturb,
    random_dictionary,
    sized,
    synth,
    welch_bound,
    writing,
)
from shoal.vocabulary import ArgumentError

EPS = 1e-12


def off_diagonal(rows):
    return (rows @ rows.T)[~np.eye(len(rows), dtype=bool)]


@pytest.mark.parametrize(
    "module", [shoal.generative, description, dictionaries, laws, models, named]
)
def test_doctests(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_room_imports_numpy_scipy_and_the_vocabulary_only():
    # Read from the sources, so that what shoal/__init__.py imports makes no difference.
    allowed = {*sys.stdlib_module_names, "numpy", "scipy", "numba", "torch"}  # these when drawing
    files = list(Path(shoal.generative.__file__).parent.glob("*.py"))
    assert len(files) >= 4
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                own = name == "shoal.vocabulary" or name.startswith("shoal.generative")
                assert own or name.split(".")[0] in allowed, f"{file.name} imports {name}"


def test_every_public_name_is_exported():
    names = {
        *description.__all__,
        *dictionaries.__all__,
        *laws.__all__,
        *models.__all__,
        *named.__all__,
        *features.__all__,
        *synth.__all__,
        *copula.__all__,
        *forests.__all__,
        *sized.__all__,
        *writing.__all__,
    }
    assert set(shoal.generative.__all__) == names


# --- constructions ---


@pytest.mark.parametrize("build", [random_dictionary, orthonormal_union, low_coherence])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 5), (5, 5), (20, 8), (21, 6)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_unit_and_seeded(build, size, dtype):
    rows = build(*size, random_state=3, dtype=dtype)
    assert rows.shape == size
    assert rows.dtype == dtype
    tolerance = 1e-6 if dtype == np.float32 else EPS
    norms = np.linalg.norm(rows.astype(float), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(rows, build(*size, random_state=3, dtype=dtype))
    rng = np.random.default_rng(3)
    np.testing.assert_array_equal(rows, build(*size, random_state=rng, dtype=dtype))
    assert rows.dtype == build(*size, dtype=dtype).dtype  # fresh entropy is allowed


def test_seeds_differ():
    assert not np.array_equal(random_dictionary(4, 3, 0), random_dictionary(4, 3, 1))


def test_random_dictionary_is_isotropic():
    rows = random_dictionary(20_000, 3, random_state=0)
    # E[A_i A_i^T] = I / 3; the variance of u_a^2 is 4/45 and of u_a u_b 1/15 on the sphere.
    moment = rows.T @ rows / len(rows)
    z = (moment - np.eye(3) / 3) / np.sqrt(np.where(np.eye(3), 4 / 45, 1 / 15) / len(rows))
    assert np.abs(z).max() < 5
    assert np.abs(rows.mean(axis=0)).max() < 5 * np.sqrt(1 / 3 / len(rows))


@pytest.mark.parametrize("n", [4, 16, 64])
def test_orthonormal_union_hadamard(n):
    rows = orthonormal_union(2 * n, n)
    np.testing.assert_array_equal(rows[:n], np.eye(n))
    np.testing.assert_allclose(np.abs(rows[n:]), 1 / np.sqrt(n), rtol=EPS)
    np.testing.assert_allclose(rows[n:] @ rows[n:].T, np.eye(n), atol=EPS)
    assert incoherence(rows) == pytest.approx(1.0, abs=EPS)


def test_orthonormal_union_other_sizes():
    rows = orthonormal_union(16, 6, random_state=0)
    for basis in (rows[:6], rows[6:12]):
        np.testing.assert_allclose(basis @ basis.T, np.eye(6), atol=EPS)
    np.testing.assert_allclose(rows[12:] @ rows[12:].T, np.eye(4), atol=EPS)
    assert coherence(rows[:12]) <= np.sqrt(2 / 6)


def test_random_bases_are_uniform():
    # Plain QR gives a first row whose signs are not fair; a uniform basis has entries of mean 0.
    rows = np.stack([low_coherence(2, 2, random_state=seed) for seed in range(400)])
    z = rows.mean(axis=0) * np.sqrt(2 * len(rows))  # each entry has variance 1/2
    assert np.abs(z).max() < 5


def test_equiangular_attains_the_welch_bound():
    sizes = [*equiangular_sizes(150), *[(n + 1, n) for n in (1, 2, 3, 10, 41)]]
    assert {(6, 3), (10, 5), (16, 6), (16, 10), (28, 7), (50, 25), (144, 66)} < set(sizes)
    for m, n in sizes:
        rows = equiangular(m, n)
        assert rows.shape == (m, n)
        np.testing.assert_allclose(np.diag(rows @ rows.T), 1, atol=EPS)
        np.testing.assert_allclose(np.abs(off_diagonal(rows)), welch_bound(m, n), atol=1e-10)
        np.testing.assert_allclose(rows.T @ rows, m / n * np.eye(n), atol=1e-9)


def test_equiangular_orthonormal():
    rows = equiangular(3, 5, dtype=np.float32)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows @ rows.T, np.eye(3))


def test_equiangular_unknown_size_names_near_ones_that_work():
    with pytest.raises(ArgumentError, match=r"n_atoms, n_features: found \(20, 9\)") as caught:
        equiangular(20, 9)
    assert "low_coherence" in str(caught.value)
    assert "(18, 9)" in str(caught.value)
    assert "\n" not in str(caught.value)
    equiangular(18, 9)


@pytest.mark.parametrize("size", [(20, 10), (64, 32), (60, 20)])
def test_low_coherence_beats_random(size):
    least = coherence(low_coherence(*size, random_state=0))
    start = coherence(random_dictionary(*size, random_state=0))
    assert welch_bound(*size) <= least < 0.75 * start


def test_low_coherence_finds_an_equiangular_frame():
    rows = low_coherence(6, 3, random_state=0, n_iterations=500, target=welch_bound(6, 3))
    assert coherence(rows) == pytest.approx(1 / np.sqrt(5), abs=1e-6)


@pytest.mark.parametrize("target", [0.0, 0.05, 0.9, 1.0])
@pytest.mark.parametrize("n_iterations", [0, 1, 7])
def test_low_coherence_is_never_worse_than_its_start(target, n_iterations):
    # For m > n the start is the random dictionary of the same seed.
    start = coherence(random_dictionary(12, 5, random_state=4))
    rows = low_coherence(12, 5, 4, n_iterations, target)
    assert coherence(rows) <= start + EPS


def test_low_coherence_undercomplete_is_orthonormal():
    assert coherence(low_coherence(5, 9, random_state=0)) < EPS


# --- measures ---


def test_coherence_equals_the_gram_matrix_across_blocks():
    rows = random_dictionary(1030, 4, random_state=0)  # more than one block
    assert coherence(rows) == pytest.approx(np.abs(off_diagonal(rows)).max(), abs=EPS)
    planted = orthonormal_union(8, 8)
    planted[7] = [0.6, 0, 0, 0, 0, 0, 0, -0.8]
    assert coherence(planted) == pytest.approx(0.6, abs=EPS)
    assert incoherence(planted) == pytest.approx(0.6 * np.sqrt(8), abs=EPS)


def test_coherence_of_one_atom():
    assert coherence([[1.0, 0.0]]) == 0.0
    assert welch_bound(1, 5) == welch_bound(5, 5) == 0.0


# --- perturbation ---


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(1, 7),
    n=st.integers(2, 9),
    distance=st.one_of(st.floats(0, 2), st.sampled_from([0.0, 1e-12, 1e-6, 2.0])),
    renormalize=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_perturb_distance_is_exact(m, n, distance, renormalize, seed):
    truth = random_dictionary(m, n, random_state=seed)
    before = truth.copy()
    moved = perturb(truth, distance, random_state=seed + 1, renormalize=renormalize)
    np.testing.assert_array_equal(truth, before)
    moved_by = np.linalg.norm(moved - truth, axis=1)
    np.testing.assert_allclose(moved_by, distance, rtol=0, atol=2e-15)
    if renormalize:
        np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, rtol=0, atol=2e-15)


@pytest.mark.parametrize("renormalize", [True, False])
def test_perturb_by_row(renormalize):
    truth = random_dictionary(4, 6, random_state=0)
    distances = np.array([0.0, 0.1, 1.0, 2.0])
    moved = perturb(truth, distances, 1, renormalize)
    np.testing.assert_allclose(np.linalg.norm(moved - truth, axis=1), distances, atol=EPS)
    np.testing.assert_array_equal(moved[0], truth[0])
    np.testing.assert_array_equal(moved, perturb(truth, distances, 1, renormalize))


def test_perturb_directions_are_tangent_and_uniform():
    truth = np.tile([[0.0, 0.0, 1.0]], (20_000, 1))
    moved = perturb(truth, 0.5, random_state=0)
    assert np.ptp(moved[:, 2]) < EPS  # one angle
    tangent = moved[:, :2] / np.linalg.norm(moved[:, :2], axis=1, keepdims=True)
    z = tangent.mean(axis=0) * np.sqrt(2 * len(truth))  # each coordinate has variance 1/2
    assert np.abs(z).max() < 5


def test_perturb_float32_and_orders():
    truth = random_dictionary(5, 4, random_state=0, dtype=np.float32)
    moved = perturb(truth, 0.25, random_state=1)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(moved - truth, axis=1), 0.25, atol=1e-6)
    np.testing.assert_array_equal(moved, perturb(np.asfortranarray(truth), 0.25, random_state=1))


def test_perturb_in_one_dimension():
    np.testing.assert_array_equal(perturb([[1.0], [-1.0]], [0.0, 2.0]), [[1.0], [1.0]])
    with pytest.raises(ArgumentError, match="distance"):
        perturb([[1.0]], 0.5)
    assert abs(perturb([[1.0]], 0.5, renormalize=False)[0, 0] - 1.0) == 0.5


# --- errors ---

UNIT = np.eye(2)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("n_atoms", lambda: random_dictionary(0, 3)),
        ("n_atoms", lambda: random_dictionary(2.5, 3)),
        ("n_features", lambda: orthonormal_union(3, -1)),
        ("n_features", lambda: equiangular(3, True)),
        ("n_features", lambda: welch_bound(3, "4")),
        ("max_atoms", lambda: equiangular_sizes(0)),
        ("random_state", lambda: random_dictionary(2, 2, random_state="seed")),
        ("random_state", lambda: random_dictionary(2, 2, random_state=-1)),
        ("random_state", lambda: random_dictionary(2, 2, random_state=True)),
        ("dtype", lambda: random_dictionary(2, 2, dtype=np.float16)),
        ("dtype", lambda: random_dictionary(2, 2, dtype="word")),
        ("n_iterations", lambda: low_coherence(4, 2, n_iterations=-1)),
        ("target", lambda: low_coherence(4, 2, target=1.5)),
        ("target", lambda: low_coherence(4, 2, target=float("nan"))),
        ("dictionary", lambda: coherence([1.0, 0.0])),
        ("dictionary", lambda: coherence(np.zeros((0, 3)))),
        ("dictionary", lambda: coherence([[1.0, 0.0], [np.nan, 1.0]])),
        ("dictionary", lambda: coherence([[1.0, np.inf]])),
        ("dictionary", lambda: coherence([[1.0], [1.0, 0.0]])),
        ("dictionary", lambda: coherence([["a", "b"]])),
        ("dictionary", lambda: coherence(1j * UNIT)),
        ("dictionary", lambda: coherence(1.001 * UNIT)),
        ("dictionary", lambda: incoherence(2 * UNIT)),
        ("dictionary", lambda: perturb(2 * UNIT, 0.1)),
        ("distance", lambda: perturb(UNIT, -0.1)),
        ("distance", lambda: perturb(UNIT, 2.1)),
        ("distance", lambda: perturb(UNIT, np.nan)),
        ("distance", lambda: perturb(UNIT, np.inf, renormalize=False)),
        ("distance", lambda: perturb(UNIT, [0.1, 0.2, 0.3])),
        ("distance", lambda: perturb(UNIT, "far")),
    ],
)
def test_errors_name_the_argument(argument, call):
    with pytest.raises(ArgumentError) as caught:
        call()
    assert caught.value.argument == argument
    assert "\n" not in str(caught.value)


def test_non_unit_rows_say_what_to_do():
    with pytest.raises(ArgumentError, match=r"norm 2 in row 1.*divide each row by its norm"):
        coherence([[1.0, 0.0], [0.0, 2.0]])
    assert coherence(1.00005 * UNIT) == 0.0  # within 1e-4


def test_the_seed_that_made_the_atoms_moves_them_too():
    # The directions drawn are then the atoms themselves, which have no tangent part.
    truth = random_dictionary(64, 256, random_state=2)
    moved = perturb(truth, 0.3, random_state=2)
    distances = np.linalg.norm(moved - truth, axis=1)
    np.testing.assert_allclose(distances, 0.3, rtol=1e-12)
    directions = (moved - truth) / distances[:, None]
    assert np.abs(directions @ directions.T - np.eye(64)).max() < 0.5

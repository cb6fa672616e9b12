"""The facts of worlds, dictionaries put in order, and worlds made of codes."""

import json

import numpy as np
import pytest
from scipy import sparse

from shoal.diagnosis import align
from shoal.generative import (
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    SparseCoding,
    incoherence,
    laws_of,
    orthonormal_union,
    perturb,
    random_dictionary,
)
from shoal.theory import worlds
from shoal.theory.worlds import (
    WorldFacts,
    aligned,
    distances,
    is_signed,
    open_world,
    world_from_codes,
)
from shoal.vocabulary import ArgumentError, SourceError

ATOMS = random_dictionary(12, 8, random_state=0)
SIGNED = SparseCoding(ATOMS, 3, low=1.0, high=2.0)
FIXED = NonnegativeSparseCoding(ATOMS, 3, low=1.0, high=2.0)

# --- facts -----------------------------------------------------------------------------------


def test_facts():
    world = NonnegativeSparseCoding(orthonormal_union(32, 16), 2, low=1.0, high=2.0, noise=0.5)
    facts = WorldFacts.of(world)
    assert (facts.n_atoms, facts.n_features, facts.k, facts.expected_k) == (32, 16, 2, 2.0)
    assert facts.coherence == pytest.approx(0.25)
    assert facts.mu == pytest.approx(incoherence(world.dictionary)) == pytest.approx(1.0)
    assert facts.spectral_norm == pytest.approx(2**0.5)  # two orthonormal bases
    assert facts.spectral_bound == pytest.approx(2**0.5)
    assert facts.p_min == facts.p_max == pytest.approx(2 / 32)
    assert facts.kappa1 == 1.5
    assert facts.kappa2 == pytest.approx(7 / 3)
    assert (facts.a1, facts.a2, facts.noise, facts.truth) == (1.0, 2.0, 0.5, True)
    assert not WorldFacts.of(world, truth=False).truth


def test_facts_of_uneven_units():
    facts = WorldFacts.of(MixtureOfGaussians(np.eye(3), weights=[0.5, 0.3, 0.2]))
    assert (facts.p_min, facts.p_max) == (0.2, 0.5)


def test_is_signed():
    assert is_signed(SIGNED)
    assert not is_signed(FIXED)


# --- order -----------------------------------------------------------------------------------


def test_atoms_come_back_in_order():
    rng = np.random.default_rng(0)
    order, flips = rng.permutation(12), rng.choice([-1.0, 1.0], 12)
    near = perturb(ATOMS, 0.2, 1)
    np.testing.assert_array_equal(aligned(FIXED, near[order]), near)
    np.testing.assert_array_equal(aligned(SIGNED, near[order] * flips[:, None]), near)
    assert distances(FIXED, aligned(FIXED, near[order])) == pytest.approx(np.full(12, 0.2))


def test_signs_stay_where_codes_are_not_negative():
    flipped = ATOMS * np.where(np.arange(12) == 4, -1.0, 1.0)[:, None]
    found = aligned(FIXED, flipped)
    assert {tuple(row) for row in found} == {tuple(row) for row in flipped}
    np.testing.assert_array_equal(aligned(SIGNED, flipped), ATOMS)


@pytest.mark.parametrize("world", [SIGNED, FIXED])
@pytest.mark.parametrize("delta", [0.0, 0.2, 0.6])
def test_the_way_round_the_assignment_gives_the_same(world, delta, monkeypatch):
    near = perturb(ATOMS, delta, 2)
    expected = align(near, ATOMS, signs="free" if is_signed(world) else "fixed")
    np.testing.assert_array_equal(aligned(world, near), expected)
    if delta < 0.3:
        monkeypatch.setattr(worlds, "align", None)
        np.testing.assert_array_equal(aligned(world, near), expected)


def test_lengths_are_free_where_asked():
    long = 3.0 * ATOMS[::-1]
    np.testing.assert_array_equal(aligned(FIXED, long, unit=False), 3.0 * ATOMS)
    with pytest.raises(ArgumentError, match="unit rows"):
        aligned(FIXED, long)


@pytest.mark.parametrize("shape", [(11, 8), (13, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ArgumentError, match="as the world's"):
        aligned(FIXED, random_dictionary(*shape, random_state=0))


def test_aligned_is_a_copy_in_float64():
    single = ATOMS.astype(np.float32)
    found = aligned(FIXED, single)
    assert found.dtype == np.float64
    found[:] = 0.0
    assert (single == ATOMS.astype(np.float32)).all()


# --- worlds from codes -----------------------------------------------------------------------


def codes_of(world, n=400):
    return world.sample(n, 0).codes


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array, sparse.coo_matrix])
@pytest.mark.parametrize("world", [SIGNED, FIXED])
def test_a_world_from_codes_has_their_moments(world, kind):
    codes = codes_of(world)
    made = world_from_codes(ATOMS, kind(codes))
    values = codes[codes != 0]
    assert is_signed(made) == is_signed(world)
    assert made.kappa1 == pytest.approx(values.mean())
    assert made.kappa2 == pytest.approx((values**2).mean())
    assert (made.a1, made.a2) == (np.abs(values).min(), np.abs(values).max())
    assert made.noise == 0.0
    assert made.k == 3
    np.testing.assert_array_equal(made.dictionary, ATOMS)
    on = (codes != 0).astype(float)
    np.testing.assert_allclose(made.p, on.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(made.p_ij, on.T @ on / len(on), rtol=1e-12)
    assert made.p_ijl(0, 1, 2) == pytest.approx((on[:, 0] * on[:, 1] * on[:, 2]).mean())


def test_it_draws_what_there_was():
    codes = codes_of(FIXED, 50)
    made = world_from_codes(ATOMS, codes).sample(200, 1)
    assert set(made.codes[made.codes != 0]) <= set(codes[codes != 0])
    supports = {tuple(np.flatnonzero(row)) for row in codes}
    assert {tuple(np.flatnonzero(row)) for row in made.codes} <= supports


def test_empty_rows_and_stored_zeros():
    table = sparse.csr_array(([2.0, 0.0, 1.0], ([0, 0, 2], [1, 3, 1])), shape=(4, 12))
    made = world_from_codes(ATOMS, table)
    assert made.k == 1
    np.testing.assert_allclose(made.p, np.where(np.arange(12) == 1, 0.5, 0.0))
    assert made.kappa1 == 1.5
    assert table.nnz == 3  # the caller's table is left as it was
    dense = np.zeros((4, 12))
    dense[[0, 2], 1] = 2.0, 1.0
    np.testing.assert_array_equal(world_from_codes(ATOMS, dense).p, made.p)


def test_unsorted_indices_make_one_support():
    table = sparse.csr_array(
        (np.array([1.0, 2.0, 3.0, 4.0]), np.array([3, 1, 1, 3]), np.array([0, 2, 4])), shape=(2, 12)
    )
    made = world_from_codes(ATOMS, table)
    assert made.support.supports == ((1, 3),)
    np.testing.assert_array_equal(table.indices, [3, 1, 1, 3])


@pytest.mark.parametrize(
    ("codes", "match"),
    [
        (np.zeros((3, 12)), "no finite non-zero"),
        (np.full((3, 12), np.nan), "no finite non-zero"),
        (np.full((3, 12), np.inf), "no finite non-zero"),
        (np.ones((3, 11)), r"\(3, 11\)"),
    ],
)
def test_codes_that_make_no_world(codes, match):
    with pytest.raises(ArgumentError, match=match):
        world_from_codes(ATOMS, codes)


def test_rows_must_have_length_1():
    with pytest.raises(ArgumentError, match="unit rows"):
        world_from_codes(2.0 * ATOMS, np.ones((3, 12)))


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_noise_is_what_the_codes_leave(kind):
    world = SparseCoding(ATOMS, 3, low=1.0, high=2.0, noise=0.1)
    sample = world.sample(500, 0)
    made = world_from_codes(ATOMS, kind(sample.codes), data=sample.data)
    left = sample.data - sample.codes @ ATOMS
    assert made.noise == pytest.approx(np.sqrt((left**2).mean()))
    assert made.noise == pytest.approx(0.1, rel=0.05)


def test_rounding_is_no_noise():
    single = SparseCoding(ATOMS.astype(np.float32), 3, low=1.0, high=2.0).sample(50, 0)
    made = world_from_codes(ATOMS.astype(np.float32), single.codes, data=single.data)
    assert made.noise == 0.0


# --- worlds behind sources -------------------------------------------------------------------


def save(path, world, sample, **more):
    np.savez(path, data=sample.data, dictionary=world.dictionary, codes=sample.codes, **more)
    return path


def test_a_generated_file_knows_its_laws(tmp_path):
    world = SparseCoding(ATOMS, 3, low=1.0, high=2.0, noise=0.1)
    laws = np.array(json.dumps(laws_of(world)))
    path = save(tmp_path / "made.npz", world, world.sample(10, 0), laws=laws)
    for source in (path, str(path)):
        found = open_world(source)
        assert (found.support, found.values, found.noise) == (world.support, world.values, 0.1)
        np.testing.assert_array_equal(found.dictionary, ATOMS)


def test_a_file_with_a_truth_gives_the_world_of_its_codes(tmp_path):
    sample = FIXED.sample(60, 0)
    found = open_world(save(tmp_path / "truth.npz", FIXED, sample))
    np.testing.assert_allclose(found.p, (sample.codes != 0).mean(axis=0))
    assert found.noise == 0.0
    assert not is_signed(found)


def test_data_alone_has_no_world(tmp_path):
    data = FIXED.sample(10, 0).data
    assert open_world(data) is None
    np.savez(tmp_path / "data.npz", data=data)
    assert open_world(tmp_path / "data.npz") is None
    np.savez(tmp_path / "atoms.npz", data=data, dictionary=ATOMS)
    assert open_world(tmp_path / "atoms.npz") is None


def test_a_broken_file_is_told_by_the_source(tmp_path):
    path = tmp_path / "broken.npz"
    path.write_bytes(b"PK no archive")
    with pytest.raises(SourceError):
        open_world(path)
    with pytest.raises(SourceError):
        open_world(tmp_path / "absent.npz")

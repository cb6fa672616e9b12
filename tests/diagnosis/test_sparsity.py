import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import mean_squared_error, r2_score

import shoal.diagnosis
from shoal.diagnosis import (
    CodeStatistics,
    _arrays,
    activation_fraction,
    atom_activation,
    dead_atoms,
    duplicate_atoms,
    explained_variance,
    fvu,
    l0,
    mse,
)
from shoal.vocabulary import ArgumentError

FIELDS = [
    "n_samples",
    "n_features",
    "l0",
    "activation_fraction",
    "atom_activation",
    "atom_energy",
    "dead",
    "histogram",
    "mse",
    "fvu",
    "explained_variance",
]


def sample(seed, n_samples=60, n=5, m=7, offset=0.0):
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((n_samples, n)) * np.arange(1, n + 1) + offset
    codes = rng.standard_normal((n_samples, m)) * (rng.random((n_samples, m)) < 0.3)
    codes[:, 2] = 0.0
    reconstruction = data + 0.5 * rng.standard_normal((n_samples, n)) + 0.3
    return data, codes, reconstruction


def same(first, second, rtol=1e-10):
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(first, name), getattr(second, name), rtol=rtol, err_msg=name
        )


def test_by_hand():
    data = np.array([[1.0, 2.0], [3.0, 2.0], [1.0, 5.0], [3.0, 3.0]])  # means 2, 3
    reconstruction = data + np.array([[1.0, 0.0], [0.0, 0.0], [0.0, -2.0], [0.0, 0.0]])
    codes = np.array([[1.0, 0, -2], [0, 0, 0], [3, 0, 0], [0, 0, 1]])
    result = CodeStatistics().update(data, codes, reconstruction).result()
    assert result.n_samples == 4
    assert result.n_features == 2
    assert result.l0 == 1.0
    assert result.activation_fraction == 1 / 3
    assert result.atom_activation.tolist() == [0.5, 0.0, 0.5]
    assert result.atom_energy.tolist() == [2.5, 0.0, 1.25]
    assert result.dead.tolist() == [1]
    assert result.histogram.tolist() == [1, 2, 1, 0]
    assert result.mse == 5 / 8
    assert result.fvu == 5 / 10  # scatter 4 + 6
    assert result.explained_variance == 0.5


def test_plain_functions_are_the_accumulator():
    data, codes, reconstruction = sample(0)
    result = CodeStatistics().update(data, codes, reconstruction).result()
    assert l0(codes) == result.l0
    assert activation_fraction(codes) == result.activation_fraction
    assert atom_activation(codes).tolist() == result.atom_activation.tolist()
    assert mse(data, reconstruction) == result.mse
    assert fvu(data, reconstruction) == result.fvu
    assert explained_variance(data, reconstruction) == result.explained_variance


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    cuts=st.lists(st.integers(1, 59), max_size=6),
    offset=st.sampled_from([0.0, 1.0, 1e5]),
)
def test_batches_give_what_the_whole_gives(seed, cuts, offset):
    arrays = sample(seed, offset=offset)
    whole = CodeStatistics().update(*arrays).result()
    edges = [0, *sorted(set(cuts)), 60]
    streamed, merged = CodeStatistics(), CodeStatistics()
    for start, stop in itertools.pairwise(edges):
        batch = [array[start:stop] for array in arrays]
        streamed.update(*batch)
        merged.merge(CodeStatistics().update(*batch))
    same(streamed.result(), whole)
    same(merged.result(), whole)


def test_blocks_give_what_the_whole_gives(monkeypatch):
    arrays = sample(1)
    whole = CodeStatistics().update(*arrays).result()
    pairs = duplicate_atoms(arrays[1].T, 0.1)
    monkeypatch.setattr(_arrays, "BLOCK_ENTRIES", 14)
    same(CodeStatistics().update(*arrays).result(), whole)
    data, codes, reconstruction = arrays
    stored = sparse.csr_array(codes)
    assert stored.nnz > 5 * 14  # so that these come in blocks too
    same(CodeStatistics().update(data, stored, reconstruction).result(), whole)
    blocked = duplicate_atoms(arrays[1].T, 0.1)
    assert [p[:2] for p in blocked] == [p[:2] for p in pairs]
    assert len(pairs) > 3


def test_merge_leaves_the_other_alone_and_takes_an_empty_one():
    first, second = CodeStatistics().update(*sample(0)), CodeStatistics().update(*sample(1))
    before = second.result()
    assert first.merge(second) is first
    assert first.result().n_samples == 120
    same(second.result(), before, rtol=0)
    same(CodeStatistics().merge(second).merge(CodeStatistics()).result(), before, rtol=0)


def test_a_refused_batch_adds_nothing():
    statistics = CodeStatistics().update(*sample(0))
    before = statistics.result()
    data, codes, reconstruction = sample(1)
    reconstruction[-1, -1] = np.nan
    with pytest.raises(ArgumentError):
        statistics.update(data, codes, reconstruction)
    same(statistics.result(), before, rtol=0)


@pytest.mark.parametrize("offset", [0.0, 3.0, 1e4])
def test_explained_variance_is_the_variance_weighted_r2(offset):
    data, _, reconstruction = sample(2, offset=offset)
    assert explained_variance(data, reconstruction) == pytest.approx(
        r2_score(data, reconstruction, multioutput="variance_weighted"), rel=1e-10
    )
    assert mse(data, reconstruction) == pytest.approx(mean_squared_error(data, reconstruction))
    uniform = r2_score(data, reconstruction, multioutput="uniform_average")
    assert abs(explained_variance(data, reconstruction) - uniform) > 0.01


def test_a_bias_is_charged_for():
    data = sample(0)[0]
    assert explained_variance(data, data) == 1.0
    shift = 2.0
    scatter = ((data - data.mean(axis=0)) ** 2).sum()
    assert fvu(data, data + shift) == pytest.approx(shift**2 * data.size / scatter)
    assert explained_variance(data, np.broadcast_to(data.mean(axis=0), data.shape)) == (
        pytest.approx(0.0, abs=1e-12)
    )


def test_data_that_do_not_vary_have_no_variance_to_explain():
    data = np.full((7, 3), 0.1)
    statistics = CodeStatistics()
    for rows in (data[:3], data[3:]):
        statistics.update(rows, np.ones((len(rows), 2)), rows + 1.0)
    result = statistics.result()
    assert np.isnan(result.fvu)
    assert np.isnan(result.explained_variance)
    assert result.mse == pytest.approx(1.0)
    assert result.to_dict()["explained_variance"] is None
    assert json.dumps(result.to_dict(atoms=True), allow_nan=False)


def test_float32_data_far_from_zero_are_summed_in_float64():
    rng = np.random.default_rng(0)
    data = (rng.standard_normal((5000, 2)) + 1e4).astype(np.float32)
    reconstruction = data + rng.standard_normal(data.shape).astype(np.float32) * 0.1
    wide = data.astype(np.float64)
    expected = ((wide - reconstruction) ** 2).sum() / ((wide - wide.mean(axis=0)) ** 2).sum()
    assert fvu(data, reconstruction) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    "convert",
    [sparse.csr_array, sparse.csr_matrix, sparse.csc_array, sparse.coo_array, torch.tensor],
)
def test_other_arrays_give_the_same(convert):
    data, codes, reconstruction = sample(3)
    expected = CodeStatistics().update(data, codes, reconstruction).result()
    same(CodeStatistics().update(data, convert(codes), reconstruction).result(), expected)
    with_tensors = CodeStatistics().update(
        torch.tensor(data), convert(codes), torch.tensor(reconstruction)
    )
    same(with_tensors.result(), expected)


def test_a_stored_zero_is_not_active():
    codes = sparse.csr_array((np.array([0.0, 1.0]), ([0, 0], [0, 1])), shape=(1, 2))
    assert codes.nnz == 2
    assert l0(codes) == 1.0
    assert codes.nnz == 2


def test_entries_that_add_up_are_one_and_may_cancel():
    # Rows: 1 + 2 at unit 2 and 0 at unit 0; 4 - 4 at unit 1; nothing; unsorted 5, 6.
    parts = [1.0, 0.0, 2.0, 4.0, -4.0, 5.0, 6.0], [2, 0, 2, 1, 1, 3, 0], [0, 3, 5, 5, 7]
    codes = sparse.csr_array(parts, shape=(4, 4))
    before = [part.tobytes() for part in (codes.data, codes.indices, codes.indptr)]
    data = np.eye(4)
    expected = CodeStatistics().update(data, codes.toarray(), data).result()
    found = CodeStatistics().update(data, codes, data).result()
    same(found, expected, rtol=0)
    assert found.histogram.tolist() == [2, 1, 1, 0, 0]
    assert found.atom_energy.tolist() == [9.0, 0.0, 2.25, 6.25]
    assert found.dead.tolist() == [1]
    assert [part.tobytes() for part in (codes.data, codes.indices, codes.indptr)] == before


def test_sparse_codes_are_never_made_dense(monkeypatch):
    data, codes, reconstruction = sample(4)
    expected = CodeStatistics().update(data, codes, reconstruction).result()
    stored = sparse.csr_array(codes)

    def refuse(*_, **__):
        raise AssertionError("made dense")

    for name in ("toarray", "todense"):
        monkeypatch.setattr(sparse.csr_array, name, refuse)
    same(CodeStatistics().update(data, stored, reconstruction).result(), expected)
    # A square of a million codes would hold terabytes.
    many = sparse.csr_array(([2.0], [7], np.r_[0, np.ones(10**6, int)]), shape=(10**6, 10**6))
    assert l0(many) == 1e-6
    assert np.flatnonzero(atom_activation(many)).tolist() == [7]


def test_whole_numbers_and_booleans_may_be_codes():
    for dtype in (bool, np.int8, np.uint8, np.float32):
        codes = np.array([[0, 1, 1], [0, 0, 1]]).astype(dtype)
        for form in (codes, sparse.csr_array(codes)):
            result = CodeStatistics().update(np.eye(2), form, np.eye(2)).result()
            assert result.atom_energy.tolist() == [0, 0.5, 1]
            assert result.histogram.tolist() == [0, 1, 1, 0]


def test_dead_atoms():
    assert dead_atoms([0.0, 0.5, 0.0, 1.0]).tolist() == [0, 2]
    assert dead_atoms(torch.tensor([0.0, 0.5, 0.01]), threshold=0.01 + 1e-9).tolist() == [0, 2]


def test_duplicate_atoms():
    angle = np.arccos(0.96)
    near = [np.cos(angle), np.sin(angle), 0.0]
    dictionary = np.array([[2.0, 0, 0], [0, 0, 0], near, [0, 0, 1], [0, 0, -3]])
    pairs = duplicate_atoms(dictionary)
    assert [(i, j) for i, j, _ in pairs] == [(3, 4), (0, 2)]
    assert [cosine for *_, cosine in pairs] == pytest.approx([-1.0, 0.96])
    assert duplicate_atoms(dictionary, threshold=0.97) == [(3, 4, -1.0)]
    assert duplicate_atoms(np.eye(3)) == []


def test_result_prints_and_is_json():
    result = CodeStatistics().update(*sample(0)).result()
    assert "60 samples" in str(result)
    full = json.loads(json.dumps(result.to_dict(atoms=True), allow_nan=False))
    assert full["dead"] == [2]
    assert full["n_dead"] == 1
    assert sum(full["histogram"]) == 60
    assert "histogram" not in result.to_dict()


def with_nan(array):
    array = array.copy()
    array[-1, -1] = np.nan
    return array


DATA, CODES, REBUILT = sample(0)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: l0(CODES[0]), "codes"),
        (lambda: atom_activation(CODES[:0]), "codes"),
        (lambda: activation_fraction(with_nan(CODES)), "codes"),
        (lambda: activation_fraction(sparse.csr_array(with_nan(CODES))), "codes"),
        (lambda: l0(sparse.csr_array((0, 3))), "codes"),
        (lambda: mse(DATA, REBUILT[:, :4]), "reconstruction"),
        (lambda: fvu(DATA, REBUILT[:9]), "reconstruction"),
        (lambda: fvu(with_nan(DATA), REBUILT), "data"),
        (lambda: explained_variance(DATA, with_nan(REBUILT)), "reconstruction"),
        (lambda: CodeStatistics().update(DATA, CODES[:9], REBUILT), "codes"),
        (lambda: CodeStatistics().result(), "samples"),
        (
            lambda: (
                CodeStatistics().update(DATA, CODES, REBUILT).update(DATA, CODES[:, :3], REBUILT)
            ),
            "codes",
        ),
        (
            lambda: (
                CodeStatistics()
                .update(DATA, CODES, REBUILT)
                .merge(CodeStatistics().update(DATA[:, :2], CODES, REBUILT[:, :2]))
            ),
            "data",
        ),
        (lambda: dead_atoms(CODES), "activation"),
        (lambda: dead_atoms([]), "activation"),
        (lambda: dead_atoms([3.0, 1.0]), "activation"),
        (lambda: dead_atoms([0.5], threshold=2.0), "threshold"),
        (lambda: duplicate_atoms(CODES[0]), "dictionary"),
        (lambda: duplicate_atoms(CODES, threshold=0.0), "threshold"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises(ArgumentError) as error:
        call()
    assert error.value.argument == argument


def test_every_public_name_is_there():
    for name in shoal.diagnosis.__all__:
        assert callable(getattr(shoal.diagnosis, name)), name
    assert shoal.diagnosis.coherence([[1.0, 0.0], [0.6, 0.8]]) == pytest.approx(0.6)
    assert shoal.diagnosis.incoherence([[1.0, 0.0], [0.6, 0.8]]) == pytest.approx(0.6 * 2**0.5)
    with pytest.raises(AttributeError, match="nothing"):
        _ = shoal.diagnosis.nothing


def test_import_costs_numpy_alone():
    heavy = "'torch', 'scipy', 'sklearn', 'pandas', 'matplotlib'"
    code = f"import sys, shoal.diagnosis; print([m for m in ({heavy},) if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

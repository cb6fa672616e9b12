"""Rows that are no sums of atoms: what they do to a fit, and how they are found and left out."""

import warnings

import numpy as np
import pytest
import torch

import shoal
from shoal.data.norms import guarded, held_by_few, norms_of, row_norms
from shoal.data.sources import open_source
from shoal.generative import Outliers, SparseCoding, SparseFeatures, Uniform, UniformSupport
from shoal.generative import random_dictionary as random_atoms
from shoal.network.inference import SubspacePursuit
from shoal.training.second_look import strange
from shoal.vocabulary import ArgumentError, Parameters


def with_noise_rows(share=0.1, ratio=1.5, seed=1, m=48, n=32, n_samples=6000):
    """Planted rows, and in place of some of them noise that is `ratio` times as long."""
    atoms = random_atoms(m, n, random_state=seed)
    data = SparseCoding(atoms, sparsity=3).sample(n_samples, random_state=seed).data.copy()
    rng = np.random.default_rng(seed)
    on = rng.random(n_samples) < share
    noise = rng.standard_normal((int(on.sum()), n))
    size = ratio * np.median(np.linalg.norm(data, axis=1))
    data[on] = size * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    return atoms, data, on


def recovered(atoms, data, k=3, **arguments):
    model = shoal.DictionaryAutoencoder(len(atoms), k, random_state=0, **arguments).fit(data)
    return shoal.recovery(model.components_, atoms).recovered(0.99), model


@pytest.mark.parametrize(("degrees", "scale"), [(2.0, 1.0), (1.0, 1.0), (2.0, 0.2)])
def test_heavy_tailed_rows_cost_no_atom(degrees, scale):
    atoms = random_atoms(128, 64, random_state=2)
    law = Outliers(0.05, degrees=degrees, scale=scale)
    world = SparseFeatures(atoms, UniformSupport(3), Uniform(1.0, 2.0), outliers=law)
    with pytest.warns(UserWarning, match="the rows"):
        share, model = recovered(atoms, world.sample(10_000, random_state=2).data)
    assert share == 1.0
    assert model.notes_


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_noise_as_long_as_other_rows_is_left_out_and_named():
    atoms, data, on = with_noise_rows()
    share, model = recovered(atoms, data)
    assert share == 1.0
    (note,) = model.notes_
    assert "nothing like the others" in note
    assert float(note.split("%")[0]) == pytest.approx(100 * on.mean(), abs=1.5)


def test_rows_that_are_all_sums_of_atoms_are_left_alone():
    atoms = random_atoms(48, 32, random_state=1)
    for noise in (0.0, 0.1):
        data = SparseCoding(atoms, sparsity=3, noise=noise).sample(6000, random_state=1).data
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            share, model = recovered(atoms, data)
        assert share == 1.0
        assert model.notes_ == ()
        bits = [recovered(atoms, data, norms=norms)[1].components_ for norms in ("clip", None)]
        assert all((each == model.components_).all() for each in bits)


def test_a_row_with_an_atom_too_few_is_not_strange_and_noise_is():
    atoms, data, on = with_noise_rows(share=0.1)
    parameters = Parameters(torch.from_numpy(atoms), torch.zeros(len(atoms)).double())
    share, bound, found = strange(parameters, torch.from_numpy(data), SubspacePursuit(3))
    assert share < 1.0
    assert found == pytest.approx(on.mean(), abs=0.03)
    assert bound > np.linalg.norm(data[~on], axis=1).max()
    planted = torch.from_numpy(data[~on])
    assert strange(parameters, planted, SubspacePursuit(3))[0] == 1.0
    # Where the dictionary explains nothing, no row is like the others.
    other = parameters._replace(dictionary=torch.from_numpy(random_atoms(48, 32, random_state=9)))
    assert strange(other, torch.from_numpy(data), SubspacePursuit(3))[0] == 1.0


@pytest.mark.filterwarnings("ignore:n_components=:UserWarning")
def test_rows_that_wait_for_an_atom_are_not_left_out():
    atoms = random_atoms(48, 32, random_state=1)
    data = SparseCoding(atoms, sparsity=3).sample(6000, random_state=1).data
    for m in (44, 40):
        model = shoal.DictionaryAutoencoder(m, 3, random_state=0).fit(data)
        assert model.notes_ == ()


def test_norms_of_rows_of_any_magnitude_and_with_gaps():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, 2.0]])
    expected = [5.0, 0.0, 2.0 * 2**0.5]
    for scale in (1.0, 1e200, 1e-200):
        np.testing.assert_allclose(row_norms(rows * scale), np.array(expected) * scale)


@pytest.mark.parametrize("law", ["laplace", "standard_normal", "lognormal", "uniform"])
def test_no_law_of_the_codes_makes_rows_out_of_proportion(law):
    norms = np.abs(getattr(np.random.default_rng(0), law)(size=20_000)) + 1e-9
    assert norms_of(norms).square < 0.1
    long = np.where(np.arange(20_000) % 50 == 0, 1e4 * norms.max(), norms)
    found = norms_of(long)
    assert found.share == pytest.approx(0.02, abs=0.001)
    assert found.square > 0.99
    assert held_by_few(long) > 0.99


def test_rows_are_clipped_scaled_or_left():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1000, 8)) + 5.0
    rows[7] *= 100
    source = open_source(rows)
    clipped, found = guarded(source, "clip", centred=False)
    (held,) = clipped.batches(1000)
    assert found is not None
    assert np.linalg.norm(held[7]) == pytest.approx(found.middle)
    assert (np.delete(held, 7, axis=0) == np.delete(rows, 7, axis=0)).all()
    (scaled,) = guarded(source, "scale", centred=False)[0].batches(1000)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), found.middle)
    # About the middle of each column, where a mean is taken away.
    (about,) = guarded(source, "scale", centred=True)[0].batches(1000)
    lengths = np.linalg.norm(about - np.median(rows, axis=0), axis=1)
    np.testing.assert_allclose(lengths, lengths[0])
    assert guarded(source, None, centred=True) == (source, None)
    assert (rows[7] > 100).any(), "the caller's own array was written to"


def test_a_stream_has_its_long_rows_clipped_and_loses_none():
    rows = np.random.default_rng(0).standard_normal((200, 8))
    rows[3] *= 1e4
    stream, _ = guarded(open_source(iter([rows[:50], rows[50:]])), "auto", centred=False)
    seen = np.concatenate(list(stream.batches(64)))
    assert seen.shape == rows.shape
    assert np.abs(seen).max() < 10


def test_other_words_for_norms_are_refused_before_any_work():
    with pytest.raises(ArgumentError, match="norms: found 'huge'"):
        shoal.DictionaryAutoencoder(8, 2, norms="huge").fit(np.eye(16))

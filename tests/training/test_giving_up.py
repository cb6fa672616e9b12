"""Atoms are given up only where nothing is lost by it, and what is said of it is true."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import shoal
from shoal.generative import NonnegativeSparseCoding, SparseCoding, random_dictionary
from shoal.network.inference import SubspacePursuit
from shoal.training import recipe_named
from shoal.training.giving_up import left_by, stands_out, without_loss
from shoal.vocabulary import Parameters


def spectra(height, baseline=2.0, n_samples=2000, seed=0):
    """Eight peaks on a baseline as unit atoms, rows of one of them each, and which."""
    grid, rng = np.arange(100), np.random.default_rng(seed)
    broad = baseline + np.exp(-(((grid - 50) / 30) ** 2))
    peaks = [np.exp(-(((grid - at) / 3) ** 2)) for at in range(10, 90, 10)]
    atoms = np.stack([broad + height * peak for peak in peaks])
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    which = rng.integers(0, 8, n_samples)
    scale = 20 * rng.uniform(0.8, 1.2, (n_samples, 1))
    return atoms, scale * atoms[which] + 0.005 * rng.standard_normal((n_samples, 100)), which


def fit(data, *sizes, **changes):
    """A fit, and the notes that it made."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        model = shoal.DictionaryAutoencoder(*sizes, random_state=0, **changes).fit(data)
    return model, [str(each.message) for each in noted]


@pytest.mark.parametrize("model", ["mixture", "sparse", "nonnegative"])
@pytest.mark.parametrize("height", [1.0, 2.0, 3.0])
def test_atoms_that_are_close_and_distinct_are_all_kept(height, model):
    atoms, data, _ = spectra(height)
    found, notes = fit(data, 8, 1, model=model)
    assert len(found.components_) == 8
    assert (np.abs(atoms @ found.components_.T) > 0.9999).any(axis=1).all()
    assert not [note for note in notes if "have use for" in note]


def test_of_too_many_close_atoms_those_go_that_cost_nothing():
    atoms, data, _ = spectra(3.0)
    found, (note, *_) = fit(data, 12, model="mixture")
    assert 8 <= len(found.components_) < 12
    assert (np.abs(atoms @ found.components_.T) > 0.9999).any(axis=1).all()
    assert f"n_components=12: the data have use for {len(found.components_)} atoms" in note


def test_flowers_are_explained_as_well_as_without_revival():
    from sklearn.datasets import load_iris

    data = load_iris().data
    found, _ = fit(data, 4, 1)
    free = replace(recipe_named("default", "sparse", 4, 1, n_samples=150), revival=None)
    assert found.score(data) > fit(data, 4, 1, recipe=free)[0].score(data) - 0.001


def test_the_note_says_what_was_measured():
    truth = random_dictionary(20, 16, random_state=0)
    data = SparseCoding(truth, sparsity=2, noise=0.05).sample(3000, random_state=1).data
    found, (note,) = fit(data, 32, 2)
    kept = len(found.components_)
    assert 20 <= kept < 32
    assert f"use for {kept} atoms" in note
    free = fit(data, 32, 2, recipe=replace(found.recipe_, revival=None))[0]
    rows, pursuit = torch.from_numpy(data), SubspacePursuit(2)
    kept_all, given_up = (
        left_by(_parameters(each.components_), rows, pursuit).share for each in (free, found)
    )
    assert kept_all > 0.9 * given_up
    if "stands out" not in note:
        said = float(note.split("explains ")[1].split(" %")[0]) / 100
        assert said < 0.1 * given_up


@pytest.mark.parametrize(
    ("offset", "model"), [(0.0, "sparse"), (1.0, "sparse"), (10.0, "sparse"), (10.0, "nonnegative")]
)
def test_a_common_offset_is_said_with_its_cure(offset, model):
    truth = random_dictionary(24, 16, random_state=0)
    data = SparseCoding(truth, sparsity=2, noise=0.05).sample(2000, random_state=1).data
    data[:, :4] += offset
    _, notes = fit(data, 24, 2, model=model)
    notes = [note for note in notes if not note.startswith("the encoder")]
    said = [note for note in notes if "preprocessing='center'" in note]
    assert len(said) == (1 if offset and (model == "sparse" or len(notes)) else 0)
    if said:
        share = (data.mean(axis=0) ** 2).sum() / (data**2).sum(axis=1).mean()
        assert f"The mean of X is {share:.0%}"[:18] in said[0]
    if model == "sparse":
        assert not fit(data, 24, 2, preprocessing="center")[1]


def _parameters(atoms):
    return Parameters(torch.from_numpy(atoms), torch.zeros(len(atoms), dtype=torch.float64))


def test_an_atom_that_is_missing_stands_out():
    truth = random_dictionary(24, 16, random_state=0)
    data = SparseCoding(truth, sparsity=2, noise=0.05).sample(2000, random_state=1).data
    rows, pursuit = torch.from_numpy(data), SubspacePursuit(2)
    for missing in (0, 11, 23):
        fewer = np.delete(truth, missing, axis=0)
        assert stands_out(left_by(_parameters(fewer), rows, pursuit), 23)


def test_a_removal_is_tried_and_its_cost_told():
    atoms, data, _ = spectra(3.0)
    unused = np.linalg.qr(np.vstack([atoms, np.eye(100)[:1]]).T)[0].T[8:]
    copied = np.vstack([atoms, atoms[:1], unused])
    rows = torch.from_numpy(data)
    found, cost = without_loss(_parameters(copied), rows, SubspacePursuit(1))
    kept = found.dictionary.any(dim=1)
    assert kept.sum() == 8
    assert not kept[9]
    assert 0 <= cost < 1e-6


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_warm_start_never_ends_worse_than_it_began(noise):
    k = 2
    truth = random_dictionary(24, 16, random_state=0)
    data = SparseCoding(truth, sparsity=k, noise=noise).sample(600, random_state=1).data
    warm, _ = fit(data, 24, k, init=truth)
    rows, pursuit = torch.from_numpy(data), SubspacePursuit(k)
    before = left_by(_parameters(truth), rows, pursuit).share
    assert left_by(_parameters(warm.components_), rows, pursuit).share <= before + 1e-9
    start = fit(data, 24, k)[0].components_
    again, _ = fit(data, len(start), k, init=start)
    before = left_by(_parameters(start), rows, pursuit).share
    assert left_by(_parameters(again.components_), rows, pursuit).share <= before + 1e-9


@pytest.mark.parametrize("offset", [0.0, 0.3, 1.0, 3.0])
def test_a_bias_adaptation_that_collapses_says_so(offset):
    truth = random_dictionary(48, 32, random_state=0)
    data = NonnegativeSparseCoding(truth, 3, low=1.0, high=2.0).sample(4000, random_state=1).data
    sizes = {"model": "nonnegative", "recipe": "bias-adaptation"}
    _, notes = fit(data + offset, 48, 3, **sizes)
    assert bool([note for note in notes if "the atoms have collapsed" in note]) == bool(offset)
    assert all("preprocessing='center'" in note for note in notes)

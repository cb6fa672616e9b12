"""What dictionaries of natural images are known for: localised, oriented edges."""

import numpy as np
import pytest

from shoal import DictionaryAutoencoder, Preprocessing
from shoal.data import patches

SIZE = 12


def orientation(atoms):
    """How much of an atom's power lies along one orientation: 0 none, 1 all; shape (m,)."""
    power = np.abs(np.fft.fft2(atoms.reshape(-1, SIZE, SIZE), s=(32, 32))) ** 2
    power[:, 0, 0] = 0
    y, x = np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32), indexing="ij")
    double_angle = np.exp(2j * np.arctan2(y, x))
    return np.abs((power * double_angle).sum(axis=(1, 2))) / power.sum(axis=(1, 2))


@pytest.fixture(scope="module")
def data():
    return patches(size=SIZE, n_patches=8000).data


def learn(data, roll_off):
    model = DictionaryAutoencoder(
        64, 2, preprocessing=Preprocessing("whiten", roll_off=roll_off), random_state=0
    )
    return model.fit(data).components_


def test_most_atoms_of_whitened_photographs_are_oriented(data):
    atoms = learn(data, Preprocessing("whiten").roll_off)
    noise = np.random.default_rng(0).standard_normal(atoms.shape)
    assert (orientation(noise) > 0.5).mean() < 0.02
    assert (orientation(atoms) > 0.5).mean() > 0.75


def test_without_a_roll_off_the_noise_of_the_full_photographs_is_learnt():
    full = patches(size=SIZE, n_patches=8000, shrink=1, contrast=1.0).data
    kept = orientation(learn(full, Preprocessing("whiten").roll_off))
    lost = orientation(learn(full, None))
    assert (lost > 0.5).mean() < (kept > 0.5).mean() - 0.1

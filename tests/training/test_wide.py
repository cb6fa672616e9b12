"""Data of more features than samples: the smaller side decides what a fit costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import shoal
from shoal.data import Preprocessing
from shoal.network.codes import SparseCodes
from shoal.training import initialize, revival

ROWS = np.random.default_rng(0).standard_normal((40, 300))
ROWS *= np.random.default_rng(1).gamma(0.5, 1.0, 300)


@pytest.fixture
def no_large_square(monkeypatch):
    """No decomposition of a matrix with a side of 1500 on both sides."""

    def watched(module, name):
        original = getattr(module, name)

        def spied(matrix, *given, **named):
            assert min(matrix.shape[-2:]) < 1500, f"{name} of {tuple(matrix.shape)}"
            return original(matrix, *given, **named)

        monkeypatch.setattr(module, name, spied)

    for name in ("eigh", "svd"):
        watched(np.linalg, name)
        watched(torch.linalg, name)
    watched(__import__("shoal.training.initialization", fromlist=["eigh"]), "eigh")


@pytest.mark.parametrize(
    "changes", [{}, {"preprocessing": "whiten"}, {"init": "pca"}, {"init": "pairwise"}], ids=str
)
def test_a_fit_makes_nothing_of_features_squared(changes, no_large_square, tmp_path):
    rng = np.random.default_rng(2)
    atoms = rng.standard_normal((6, 1500)) / 1500**0.5
    rows = rng.standard_normal((120, 6)) * (rng.random((120, 6)) < 0.3) @ atoms
    rows += 0.01 * rng.standard_normal(rows.shape)
    model = shoal.DictionaryAutoencoder(8, 2, random_state=0, **changes).fit(rows)
    for array in model.preprocessing_.arrays.values():
        assert array.size <= rows.size
    loaded = shoal.load_run(shoal.save_run(model, tmp_path / "run", rows))
    np.testing.assert_array_equal(loaded.transform(rows[:5]), model.transform(rows[:5]))
    np.testing.assert_allclose(
        model.preprocessing_.undo(model.preprocessing_.apply(rows)), rows, atol=1e-8
    )


@pytest.mark.parametrize("roll_off", [None, 0.1])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_whitening_of_few_rows_is_the_same_map(roll_off, ridge):
    fitted = Preprocessing("whiten", roll_off=roll_off, ridge=ridge).fit(ROWS)
    vectors = fitted.arrays["eigenvectors"]
    assert vectors.shape == (300, 40)
    more, _ = np.linalg.qr(np.hstack([vectors, np.random.default_rng(3).normal(size=(300, 260))]))
    whole = {**fitted.arrays, "eigenvectors": more}
    square = type(fitted)(fitted.spec, 300, whole)
    other = 2 * np.random.default_rng(4).standard_normal((7, 300))
    for one, two in ((fitted.apply, square.apply), (fitted.undo, square.undo)):
        scale = np.abs(two(other)).max()
        np.testing.assert_allclose(one(other), two(other), atol=1e-9 * scale)
    # The covariance's own decomposition agrees where there is any variance.
    variances = np.linalg.eigvalsh(np.cov(ROWS.T, bias=True))[::-1]
    np.testing.assert_allclose(fitted.arrays["variances"][:39], variances[:39], rtol=1e-9)
    assert not fitted.arrays["variances"][40:].any()


def test_batches_and_streams_give_the_same_directions():
    one = Preprocessing("whiten").fit(ROWS).apply(ROWS)
    two = Preprocessing("whiten").fit(ROWS, batch_size=7).apply(ROWS)
    three = Preprocessing("whiten").fit(iter(np.array_split(ROWS, 3))).apply(ROWS)
    np.testing.assert_allclose(two, one, atol=1e-9)
    np.testing.assert_allclose(three, one, atol=1e-9)


def test_principal_directions_of_few_rows_are_those_of_the_covariance():
    found = initialize("pca", ROWS, 10, np.random.default_rng(0))
    _, vectors = np.linalg.eigh(np.cov(ROWS.T))
    cosines = np.abs((found * vectors[:, ::-1].T[:10]).sum(axis=1))
    np.testing.assert_allclose(cosines, 1, atol=1e-9)


def test_the_leading_direction_is_the_same_from_either_side():
    residual = torch.from_numpy(ROWS)
    scale, mean, direction = revival.leading_direction(residual)
    values, vectors = torch.linalg.eigh(residual.T @ residual)
    torch.testing.assert_close(scale, values[-1])
    torch.testing.assert_close(mean, values.mean())
    assert float((direction @ vectors[:, -1]).abs()) == pytest.approx(1)


def test_an_atom_that_stands_for_two_is_split_in_many_features():
    rng = np.random.default_rng(5)
    pair = torch.from_numpy(np.linalg.qr(rng.standard_normal((600, 3)))[0].T)
    codes = torch.from_numpy(rng.uniform(1, 2, (60, 1)))
    rows = codes * pair[torch.arange(60) % 2]
    atom = (pair[0] + pair[1]) / 2**0.5
    dictionary = torch.stack([atom, pair[2]])
    found = SparseCodes(torch.zeros(60, 1, dtype=torch.long), rows @ atom[:, None])
    losses = (rows - found.reconstruct(dictionary)).square().sum(dim=1) / 2
    worth = torch.tensor([float((rows @ atom).square().sum()), 0.0])
    after, moved = revival.split(dictionary, rows, found, losses, worth)
    assert moved == 1
    assert float((after @ pair[:2].T).abs().max(dim=0).values.min()) > 0.999

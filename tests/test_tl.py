"""AnnData in, AnnData out."""

import numpy as np
import pytest

import shoal


@pytest.fixture
def cells():
    anndata = pytest.importorskip("anndata")
    rng = np.random.default_rng(0)
    programs = rng.random((6, 20)) * (rng.random((6, 20)) < 0.3)
    usage = rng.random((400, 6)) * (rng.random((400, 6)) < 0.3)
    return anndata.AnnData((usage @ programs).astype(np.float32))


def test_codes_atoms_and_settings_are_written(cells):
    model = shoal.tl.dictionary(cells, 6, 3, random_state=0)
    assert cells.obsm["X_shoal"].shape == (400, 6)
    np.testing.assert_array_equal(cells.varm["shoal"], model.components_.T)
    rebuilt = cells.obsm["X_shoal"] @ cells.varm["shoal"].T
    explained = 1 - np.square(cells.X - rebuilt).sum() / np.square(cells.X - cells.X.mean(0)).sum()
    assert cells.uns["shoal"]["explained_variance"] == pytest.approx(explained, abs=1e-3)
    assert explained > 0.8


def test_a_layer_under_another_name(cells):
    cells.layers["doubled"] = 2 * cells.X
    shoal.tl.dictionary(cells, 6, 3, layer="doubled", key_added="programs", random_state=0)
    assert cells.uns["programs"]["params"]["layer"] == "doubled"
    assert "X_programs" in cells.obsm


def test_what_is_no_anndata_is_refused():
    with pytest.raises(shoal.ArgumentError, match="adata"):
        shoal.tl.dictionary(np.eye(4))


def test_nothing_is_written_where_the_data_are_refused(cells):
    cells.X[3, 4] = np.nan
    with pytest.raises(shoal.ShoalError):
        shoal.tl.dictionary(cells, 6, 3)
    assert "shoal" not in cells.uns
    assert not cells.obsm

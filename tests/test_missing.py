"""Missing entries: least squares on what is seen, and an error where nobody asked for that."""

import numpy as np
import pytest

import shoal
from commands import done, refused
from shoal.data import Preprocessing
from shoal.diagnosis import CodeStatistics, explained_variance
from shoal.generative import NonnegativeSparseCoding, SparseCoding
from shoal.generative import random_dictionary as random_atoms
from shoal.vocabulary import ArgumentError

M, N, K = 48, 32, 3


def planted(share=0.05, seed=0, n_samples=5000, kind=SparseCoding):
    """Atoms, whole rows, and the same rows with a share of entries missing."""
    atoms = random_atoms(M, N, random_state=seed)
    whole = kind(atoms, sparsity=K).sample(n_samples, random_state=seed + 1).data
    gaps = np.random.default_rng(seed).random(whole.shape) < share
    return atoms, whole, np.where(gaps, np.nan, whole)


def model(**arguments):
    named = {"missing": "ignore", "random_state": 0} | arguments
    return shoal.DictionaryAutoencoder(M, K, **named)


@pytest.fixture(scope="module")
def fitted():
    _, _, rows = planted()
    return model().fit(rows)


# Gaps that are filled with means alone leave .018 and .044.
@pytest.mark.parametrize(("share", "distance"), [(0.02, 1e-3), (0.1, 0.02)])
def test_every_atom_is_found_though_entries_are_missing(share, distance):
    atoms, _, rows = planted(share, seed=3)
    found = shoal.recovery(model().fit(rows).components_, atoms)
    assert found.recovered(0.99) == 1.0
    assert found.max_distance < distance


def test_nonnegative_codes_and_preprocessing_go_with_it():
    atoms, _, rows = planted(seed=4, n_samples=2500, kind=NonnegativeSparseCoding)
    found = model(model="nonnegative").fit(rows)
    assert shoal.recovery(found.components_, atoms).recovered(0.99) == 1.0
    assert (found.transform(rows[:200], "pursuit") >= 0).all()
    atoms, whole, rows = planted(seed=5, n_samples=2000)
    for kind in ("center", "scale"):
        fitted = model(preprocessing=kind).fit(3.0 * rows + 7.0)
        arrays, there = fitted.preprocessing_.arrays, Preprocessing(kind).fit(3.0 * whole + 7.0)
        for name, value in arrays.items():
            np.testing.assert_allclose(value, there.arrays[name], rtol=0.05)
        assert fitted.score(3.0 * rows + 7.0, method="pursuit") > 0.999


@pytest.mark.parametrize("method", ["least_squares", "pursuit", "omp", "iht"])
def test_codes_are_least_squares_on_the_seen_entries_of_their_support(fitted, method):
    _, _, rows = planted(seed=0, n_samples=60)
    codes = fitted.transform(rows, method)
    some = np.isnan(rows).any(axis=1)
    assert some.any()
    for row, code in zip(rows[some], codes[some], strict=True):
        seen, on = ~np.isnan(row), code != 0
        atoms = fitted.components_[on][:, seen]
        best = np.linalg.lstsq(atoms.T, row[seen], rcond=None)[0]
        np.testing.assert_allclose(code[on], best, atol=1e-9)


def test_rows_without_gaps_have_the_codes_that_they_have_alone(fitted):
    _, whole, rows = planted(seed=0, n_samples=60)
    mixed = np.where(np.arange(60)[:, None] % 2 == 0, whole, rows)
    for method in fitted.methods:
        alone = fitted.transform(whole, method)[::2]
        np.testing.assert_allclose(fitted.transform(mixed, method)[::2], alone, atol=1e-12)
    fitted.set_params(sparse_output=True)
    sparse = fitted.transform(mixed, "pursuit")
    fitted.set_params(sparse_output=False)
    assert (sparse.toarray() == fitted.transform(mixed, "pursuit")).all()


def test_missing_entries_are_told_by_the_others(fitted):
    _, whole, rows = planted(seed=0, n_samples=400)
    told = fitted.denoise(rows)
    gaps = np.isnan(rows)
    # Of a few rows what is seen does not tell the support.
    assert np.quantile(np.abs(told - whole)[gaps], 0.97) < 1e-2 * np.abs(whole).max()
    codes = fitted.transform(whole, "encoder")
    np.testing.assert_allclose(
        fitted.denoise(whole, "encoder"), fitted.inverse_transform(codes), atol=1e-12
    )


def test_scores_count_seen_entries_alone(fitted):
    _, _, rows = planted(seed=0, n_samples=300)
    seen = ~np.isnan(rows)
    rebuilt = fitted.denoise(rows, "encoder")
    left = np.nansum((rows - rebuilt) ** 2)
    about = np.nansum((rows - np.nanmean(rows, axis=0)) ** 2)
    assert fitted.score(rows) == pytest.approx(1 - left / about, rel=1e-12)
    result = fitted.diagnose(rows)
    assert result.mse == pytest.approx(left / seen.sum(), rel=1e-12)
    shares = np.nansum((rows - rebuilt) ** 2, axis=1) / np.nansum(rows**2, axis=1)
    assert result.row_explained == pytest.approx(1 - np.median(shares), abs=1e-3)


def test_statistics_do_not_depend_on_how_rows_are_cut():
    rng = np.random.default_rng(0)
    data, rebuilt = rng.standard_normal((2, 90, 5)) + 100.0
    gaps = np.where(rng.random(data.shape) < 0.3, np.nan, data)
    results = []
    for size in (1, 7, 90):
        statistics = CodeStatistics(missing=True)
        for at in range(0, 90, size):
            part = slice(at, at + size)
            statistics.update(gaps[part], rebuilt[part], rebuilt[part])
        results.append(statistics.result())
    for each in results:
        assert each.explained_variance == pytest.approx(results[0].explained_variance, rel=1e-9)
        assert each.row_explained == results[0].row_explained
    whole = CodeStatistics(missing=True).update(data, rebuilt, rebuilt).result()
    assert whole.explained_variance == pytest.approx(explained_variance(data, rebuilt), rel=1e-9)


def test_a_run_keeps_that_it_ignores_them(fitted, tmp_path):
    _, _, rows = planted()
    shoal.save_run(fitted, tmp_path / "run", rows)
    again = shoal.load_run(tmp_path / "run")
    assert again.missing == "ignore"
    assert (again.transform(rows[:50], "pursuit") == fitted.transform(rows[:50], "pursuit")).all()


def test_what_can_not_be_ignored_is_refused_before_any_work(fitted):
    _, _, rows = planted(n_samples=200)

    def refused_with(text, changed, **arguments):
        with pytest.raises(ValueError, match=text):
            model(**arguments).iter_fit(changed)

    infinite, empty_row, empty_column = rows.copy(), rows.copy(), rows.copy()
    infinite[3, 4], empty_row[3], empty_column[:, 4] = np.inf, np.nan, np.nan
    refused_with("infinity", infinite)
    refused_with("row 3 of array without a number", empty_row)
    refused_with("column 4 of array without a number", empty_column)
    refused_with("NaN", rows, missing=None)
    refused_with("'whiten' with missing='ignore'", rows, preprocessing="whiten")
    refused_with("a stream", iter([rows]))
    refused_with("missing: found 'drop'", rows, missing="drop")
    with pytest.raises(ArgumentError, match="partial_fit"):
        model().partial_fit(rows)
    with pytest.raises(ArgumentError, match="row 1 of array without a number"):
        fitted.transform(np.where(np.arange(3)[:, None] == 1, np.nan, rows[:3]))
    # A column of which a few rows say nothing is no trouble once there is a model.
    assert np.isfinite(fitted.transform(empty_column[:5], "pursuit")).all()


def test_the_command_line_takes_them_where_it_is_told_to(tmp_path):
    _, _, rows = planted(n_samples=1500)
    np.save(tmp_path / "rows.npy", rows)
    fit = ["fit", tmp_path / "rows.npy", "-m", M, "-k", K, "-o", tmp_path / "run"]
    assert "finite numbers" in refused(*fit)
    done(*fit, "--missing", "ignore", "--norms", "clip", "--quiet")
    done("score", tmp_path / "run", tmp_path / "rows.npy")
    codes = ["transform", tmp_path / "run", tmp_path / "rows.npy", "--method", "pursuit"]
    done(*codes, "-o", tmp_path / "codes.npz")

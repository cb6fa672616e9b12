"""Streaming statistics equal the whole; what is applied can be undone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.data import FittedPreprocessing, Moments, Preprocessing, moments, open_source
from shoal.data.preprocessing import DEGENERATE, FLOOR, whitening_gain
from shoal.vocabulary import ArgumentError

KINDS = ["none", "center", "scale", "whiten"]


def _rows(n=400, f=6, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, f)) @ rng.normal(size=(f, f)) + mean


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 60),
    n=st.integers(1, 60),
    f=st.integers(1, 5),
    mean=st.sampled_from([0.0, 1e3, -1e7]),
    seed=st.integers(0, 99),
)
def test_streaming_moments_equal_the_whole(size, n, f, mean, seed):
    rows = _rows(n, f, seed, mean)
    batches = [rows[i : i + size] for i in range(0, n, size)]
    full = moments(batches)
    assert full.n_samples == n
    # The centred scatter, from rows that lie exactly at the same places without the mean.
    near = rows - mean  # exact enough: one rounding at the size of the mean
    slack = max(abs(mean), 1.0) * 1e-14
    np.testing.assert_allclose(full.mean - mean, near.mean(0), atol=slack * 10, rtol=1e-12)
    centred = near - near.mean(0)
    expected = centred.T @ centred
    np.testing.assert_allclose(full.scatter, expected, rtol=1e-9, atol=1e-9 * n)
    diagonal = moments(batches, full=False)
    np.testing.assert_allclose(diagonal.scatter, np.diag(expected), rtol=1e-9, atol=1e-9 * n)


def test_large_means_would_break_the_naive_formula():
    rows = _rows(mean=1e9)
    found = moments([rows[i : i + 7] for i in range(0, 400, 7)], full=False)
    variance = found.scatter / 400
    np.testing.assert_allclose(variance, (rows - 1e9).var(0), rtol=1e-12)  # 1e9 goes exactly
    naive = (rows**2).mean(0) - rows.mean(0) ** 2
    assert np.abs(naive / rows.var(0) - 1).max() > 1


def test_merge_is_symmetric():
    a, b = Moments.of(_rows(5), full=True), Moments.of(_rows(9, seed=1, mean=4), full=True)
    for left, right in zip(a.merge(b), b.merge(a), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 400, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_fit_does_not_depend_on_the_batch_size(kind, batch_size):
    rows = _rows(mean=3)
    spec = Preprocessing(kind)
    one, other = spec.fit(rows), spec.fit(rows, batch_size=batch_size)
    np.testing.assert_allclose(one.apply(rows), other.apply(rows), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("roll_off", [None, 1.0, 0.5, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_undo(kind, roll_off, order, dtype):
    rows = np.array(_rows(mean=5), dtype=dtype, order=order)
    before = rows.copy()
    fitted = Preprocessing(kind, roll_off=roll_off).fit(rows)
    there = fitted.apply(rows)
    back = fitted.undo(there)
    assert there.dtype == back.dtype == dtype
    assert there.shape == rows.shape
    tolerance = 1e-10 if dtype == np.float64 else 2e-4
    np.testing.assert_allclose(back, before, atol=tolerance)
    np.testing.assert_array_equal(rows, before)
    if kind != "none":
        assert np.abs(there - rows).max() > 1
        assert np.abs(there.mean(0)).max() < 1e-4


def test_numpy_by_hand():
    rows = _rows(mean=5)
    np.testing.assert_allclose(Preprocessing("center").fit(rows).apply(rows), rows - rows.mean(0))
    np.testing.assert_allclose(
        Preprocessing("scale").fit(rows).apply(rows), (rows - rows.mean(0)) / rows.std(0)
    )
    assert Preprocessing("none").fit(rows).apply(rows) is rows


def test_whole_numbers_come_out_as_floats():
    rows = np.arange(12).reshape(4, 3)
    out = Preprocessing("center").fit(rows).apply(rows)
    np.testing.assert_array_equal(out, rows - rows.mean(0))


def test_plain_whitening_gives_the_identity():
    rows = _rows()
    fitted = Preprocessing("whiten", roll_off=None).fit(rows)
    np.testing.assert_allclose(np.cov(fitted.apply(rows).T, ddof=0), np.eye(6), atol=1e-10)
    # Zero-phase: the transform is symmetric and positive, so features stay in place.
    there = fitted.apply(np.eye(6) + rows.mean(0))
    np.testing.assert_allclose(there, there.T, atol=1e-12)
    assert np.linalg.eigvalsh(there).min() > 0


@pytest.mark.parametrize("roll_off", [1.0, 0.5, 0.2])
def test_roll_off_sets_the_spectrum(roll_off):
    rows = _rows(f=20, n=2000)
    fitted = Preprocessing("whiten", roll_off=roll_off).fit(rows)
    out = fitted.apply(rows)
    vectors = fitted.arrays["eigenvectors"]
    deviation = np.sqrt(np.diag(vectors.T @ np.cov(out.T, ddof=0) @ vectors))
    expected = np.maximum(np.exp(-((np.arange(20) / (20 * roll_off)) ** 4)), FLOOR)
    np.testing.assert_allclose(deviation, expected, rtol=1e-6)
    assert np.all(np.diff(fitted.arrays["variances"]) <= 0)


def test_ridge():
    variances = np.array([4.0, 2.0])
    np.testing.assert_allclose(whitening_gain(variances, None, 1.0), 1 / np.sqrt([7.0, 5.0]))


def test_rank_deficient_data_neither_blows_up_nor_gets_lost():
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(300, 3)) @ rng.normal(size=(3, 8)) + 2).astype(np.float32)
    rows[:, 7] = 4  # constant, too
    for roll_off in (None, 0.9):
        fitted = Preprocessing("whiten", roll_off=roll_off).fit(rows)
        variances = fitted.arrays["variances"]
        flat = variances < DEGENERATE * variances[0]
        assert flat.sum() == 5
        gain = fitted.arrays["gain"]
        np.testing.assert_allclose(gain[flat], FLOOR / np.sqrt(DEGENERATE * variances[0]))
        out = fitted.apply(rows)
        vectors = fitted.arrays["eigenvectors"]
        assert np.abs(out @ vectors[:, flat]).max() < 1e-2
        assert np.abs(out).max() < 10
        np.testing.assert_allclose(fitted.undo(out), rows, atol=1e-4)


def test_constant_features_are_divided_by_one():
    rows = _rows(401)
    rows[:, 2] = 0.1  # whose mean over 401 rows isn't exactly 0.1
    fitted = Preprocessing("scale").fit(rows, batch_size=3)
    assert fitted.arrays["std"][2] == 1
    assert np.abs(fitted.apply(rows)[:, 2]).max() < 1e-14
    with pytest.raises(ArgumentError, match=r"^data: found rows that are all the same"):
        Preprocessing("whiten").fit(np.full((9, 3), 0.1))


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_restored(kind, tmp_path):
    from safetensors.numpy import load_file, save_file

    rows = _rows(mean=2)
    fitted = Preprocessing(kind, roll_off=0.7).fit(rows)
    save_file(fitted.tensors(), tmp_path / "p.safetensors")
    spec = Preprocessing(**fitted.spec.as_dict())
    assert spec == fitted.spec
    tensors = load_file(tmp_path / "p.safetensors")
    again = FittedPreprocessing.from_tensors(spec, tensors)
    assert again.n_features == 6
    np.testing.assert_array_equal(again.apply(rows), fitted.apply(rows))
    np.testing.assert_array_equal(again.undo(rows), fitted.undo(rows))
    if kind != "none":
        with pytest.raises(ArgumentError, match=r"^tensors: found no mean"):
            FittedPreprocessing.from_tensors(
                spec, {k: v for k, v in tensors.items() if k != "mean"}
            )
        with pytest.raises(ArgumentError, match=r"^tensors: found mean of shape \(2,\)"):
            FittedPreprocessing.from_tensors(spec, tensors | {"mean": np.zeros(2)})


def test_streams_are_not_used_up():
    rows = _rows(mean=2)
    source = open_source(rows[i : i + 9] for i in range(0, 400, 9))
    fitted = Preprocessing("whiten").fit(source, batch_size=10)
    np.testing.assert_allclose(
        fitted.apply(rows), Preprocessing("whiten").fit(rows).apply(rows), atol=1e-9
    )
    np.testing.assert_array_equal(np.concatenate(list(source.batches(50))), rows)


def test_max_samples():
    rows = _rows(mean=2)
    for spec in (rows, [rows]):
        mean = Preprocessing("center").fit(spec, batch_size=30, max_samples=50).arrays["mean"]
        np.testing.assert_allclose(mean, rows[:50].mean(0))


def test_the_default_whitening_of_photographs():
    source = open_source("sample:patches?size=12&shrink=1&contrast=1", n_patches=4000)
    fitted = Preprocessing("whiten").fit(source)
    out = fitted.apply(source.array)
    power = (np.abs(np.fft.fft2(out.reshape(-1, 12, 12))) ** 2).mean(0)
    raw = (
        np.abs(np.fft.fft2((source.array - source.array.mean(0)).reshape(-1, 12, 12))) ** 2
    ).mean(0)
    low, high = (2, 0), (6, 6)  # two cycles a patch; the finest grid, where noise lives
    assert raw[1, 0] / raw[low] > 2  # photographs fall with frequency
    assert 0.5 < power[1, 0] / power[low] < 2  # whitened ones are flat
    assert power[high] / power[low] < 0.02  # and the noise stays down
    plain = Preprocessing("whiten", roll_off=None).fit(source).apply(source.array)
    noise = (np.abs(np.fft.fft2(plain.reshape(-1, 12, 12))) ** 2).mean(0)
    assert noise[high] / noise[low] > 0.5


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"kind": "zca"}, "kind"),
        ({"roll_off": 0}, "roll_off"),
        ({"roll_off": 1.5}, "roll_off"),
        ({"roll_off": "half"}, "roll_off"),
        ({"ridge": -1}, "ridge"),
    ],
)
def test_wrong_options(options, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: found"):
        Preprocessing(**options)


def test_wrong_data():
    rows = _rows()
    fitted = Preprocessing("center").fit(rows)
    for bad in (rows[:, :3], rows[0]):
        for function in (fitted.apply, fitted.undo):
            with pytest.raises(ArgumentError, match=r"^batch: found shape"):
                function(bad)
    for value in (np.nan, np.inf):
        for at in (0, 3):
            bad = rows.copy()
            bad[at, 3] = value
            for kind in ("center", "scale", "whiten"):
                with pytest.raises(ArgumentError, match=r"^data: found NaN"):
                    Preprocessing(kind).fit(bad)
    for option in ("batch_size", "max_samples"):
        with pytest.raises(ArgumentError, match=f"^{option}: found 0"):
            Preprocessing("scale").fit(_rows(), **{option: 0})
    with pytest.raises(ArgumentError, match=r"^batches: found no batch"):
        moments([])


@pytest.mark.parametrize("kind", ["none", "center", "scale", "whiten"])
@pytest.mark.parametrize("wide", [False, True])
def test_its_parts_are_a_mean_and_two_products(kind, wide):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5, 40) if wide else (200, 6)) + 3.0
    fitted = Preprocessing(kind).fit(rows)
    mean, there, back = fitted.affine()
    np.testing.assert_allclose(there(rows - mean), fitted.apply(rows), atol=1e-12)
    np.testing.assert_allclose(back(rows) + mean, fitted.undo(rows), atol=1e-9)
    eye = np.eye(len(mean))
    np.testing.assert_allclose(there(eye), there(eye).T, atol=1e-9)


def test_what_scales_each_row_by_itself_is_no_product():
    fitted = Preprocessing("samples").fit(np.random.default_rng(0).standard_normal((20, 4)))
    with pytest.raises(ArgumentError, match="another preprocessing"):
        fitted.affine()

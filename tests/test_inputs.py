"""What people hold, through both estimators: tables by name, sparse arrays, lists, pictures."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from typer.testing import CliRunner

import shoal
from made import SHORT
from shoal import ArgumentError, DictionaryAutoencoder, RegularizedAutoencoder
from shoal.cli import app
from shoal.data.readers.sparse import SparseSource
from shoal.generative import SparseCoding, random_dictionary
from shoal.runs import evaluate

NAMES = [f"c{i:02d}" for i in range(12)]
WORLD = SparseCoding(random_dictionary(16, 12, random_state=0), sparsity=2, low=1.0, high=2.0)
ROWS = WORLD.sample(400, random_state=1).data
FRAME = pd.DataFrame(ROWS, columns=NAMES)
OTHER = FRAME[NAMES[::-1]]

MODELS = {
    "dictionary": lambda: DictionaryAutoencoder(16, 2, recipe=SHORT, random_state=0),
    "regularized": lambda: RegularizedAutoencoder(16, n_epochs=2, random_state=0),
}


@pytest.fixture(params=MODELS)
def make(request):
    return MODELS[request.param]


def files(folder, frame):
    frame.to_parquet(folder / "t.parquet")
    frame.to_csv(folder / "t.csv", index=False, float_format="%.17g")
    tables = {"pandas": frame, "polars": pl.from_pandas(frame), "arrow": pa.table(dict(frame))}
    return {**tables, "parquet": folder / "t.parquet", "csv": str(folder / "t.csv")}


@pytest.mark.parametrize("fitted_on", ["pandas", "parquet", "csv"])
def test_columns_in_another_order_are_put_right(make, fitted_on, tmp_path):
    model = make().fit(files(tmp_path, FRAME)[fitted_on])
    assert model.feature_names_in_.tolist() == NAMES
    plain = make().fit(ROWS)
    assert model.components_.tobytes() == plain.components_.tobytes() or fitted_on == "parquet"
    codes = model.transform(FRAME)
    for table in files(tmp_path, OTHER).values():
        np.testing.assert_array_equal(model.transform(table), codes)
        assert model.score(table) == model.score(FRAME)
    evaluated = evaluate(model, OTHER)
    assert evaluated == evaluate(model, FRAME)


def test_a_run_keeps_the_names(make, tmp_path):
    model = make().fit(FRAME)
    loaded = shoal.load_run(shoal.save_run(model, tmp_path / "run", OTHER))
    np.testing.assert_array_equal(loaded.transform(OTHER), model.transform(FRAME))


def test_partial_fit_reads_columns_by_name():
    one, two = (MODELS["dictionary"]().partial_fit(FRAME) for _ in range(2))
    one.partial_fit(FRAME)
    two.partial_fit(OTHER)
    assert one.components_.tobytes() == two.components_.tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="c03"), r"no column c03 in"),
        (lambda f: f.assign(z=1.0), r"column z too many in"),
        (lambda f: f.rename(columns={"c03": "C03"}), r"no column c03 \(the nearest .* 'C03'\)"),
        (
            lambda f: f.drop(columns=["c01", "c02"]).assign(y=1.0, z=2.0),
            "c01, c02 and columns y, z",
        ),
        (lambda f: f.assign(c03="x"), r"no column c03 of numbers \('c03' holds text\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*left out:UserWarning")
def test_missing_columns_and_ones_too_many_are_refused_by_name(make, change, message, tmp_path):
    model = make().fit(FRAME)
    for table in files(tmp_path, change(FRAME)).values():
        for use in (model.transform, model.score, getattr(model, "partial_fit", model.diagnose)):
            with pytest.raises(
                ArgumentError, match=rf"^X: found .*{message}.*; needed the 12"
            ) as caught:
                use(table)
            assert "\n" not in str(caught.value)


def test_what_has_no_names_is_read_by_position_with_scikit_learns_warning(make, tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    named, unnamed = make().fit(FRAME), make().fit(ROWS)
    codes = named.transform(FRAME)
    for given in (ROWS, torch.tensor(ROWS), tmp_path / "x.npy", [ROWS[:9], ROWS[9:]]):
        with pytest.warns(UserWarning, match="X does not have valid feature names"):
            np.testing.assert_array_equal(named.transform(given), codes)
    with pytest.warns(UserWarning, match="X has feature names, but"):
        unnamed.transform(FRAME)
    assert not hasattr(unnamed, "feature_names_in_")
    whole = pd.DataFrame(ROWS)
    assert not hasattr(make().fit(whole), "feature_names_in_")


def test_codes_in_a_table_are_taken_by_their_names(make, tmp_path):
    model = make().fit(FRAME)
    codes = model.set_output(transform="pandas").transform(FRAME)
    rebuilt = model.inverse_transform(codes.to_numpy())
    np.testing.assert_array_equal(model.inverse_transform(codes[codes.columns[::-1]]), rebuilt)
    with pytest.raises(ArgumentError, match=r"no column .*autoencoder0"):
        model.inverse_transform(codes.drop(columns=codes.columns[0]))
    sparse.save_npz(tmp_path / "codes.npz", sparse.csr_matrix(codes.to_numpy()))
    np.testing.assert_allclose(model.inverse_transform(tmp_path / "codes.npz"), rebuilt)


# ------------------------------------------------------------------ what is no plain array

THIN = sparse.csr_array(np.where(np.abs(ROWS) > 0.4, ROWS, 0.0))


@pytest.mark.parametrize("form", ["csr_array", "csc_matrix", "coo_array"])
@pytest.mark.parametrize("preprocessing", ["none", "whiten"])
def test_sparse_arrays_are_the_dense_ones(make, form, preprocessing, tmp_path):
    given = getattr(sparse, form)(THIN)
    dense = make().set_params(preprocessing=preprocessing).fit(THIN.toarray())
    model = make().set_params(preprocessing=preprocessing).fit(given)
    assert model.components_.tobytes() == dense.components_.tobytes()
    np.testing.assert_array_equal(model.transform(given), dense.transform(THIN.toarray()))
    assert model.score(given) == dense.score(THIN.toarray())
    sparse.save_npz(tmp_path / "x.npz", given)
    np.testing.assert_array_equal(model.transform(tmp_path / "x.npz"), model.transform(given))
    with pytest.raises(ArgumentError, match="needed 12 features"):
        model.transform(THIN[:, :5])
    with pytest.raises(ArgumentError, match="nan at row 0"):
        model.transform(THIN * np.nan)


def test_partial_fit_takes_sparse_arrays():
    one, two = (MODELS["dictionary"]() for _ in range(2))
    for _ in range(2):
        one.partial_fit(THIN)
        two.partial_fit(THIN.toarray())
    assert one.components_.tobytes() == two.components_.tobytes()


def test_sparse_data_is_never_dense_as_a_whole(monkeypatch):
    rng = np.random.default_rng(0)
    atoms = sparse.random_array((16, 2000), density=0.004, rng=rng, format="csr")
    active, values = rng.integers(0, 16, 5000), rng.uniform(1, 2, 5000)
    codes = sparse.csr_array((values, active, np.arange(2501) * 2))
    data = sparse.csr_array(codes @ atoms)  # 40 MB if it were dense
    made = []
    dense = SparseSource._dense

    def watched(self, index):
        made.append(dense(self, index))
        return made[-1]

    monkeypatch.setattr(SparseSource, "_dense", watched)
    monkeypatch.setattr("shoal.training.fit._POLISHED_BYTES", 2**22)
    model = DictionaryAutoencoder(16, 2, random_state=0, recipe=SHORT, preprocessing="scale")
    model.fit(data).score(data)
    assert max(rows.nbytes for rows in made) <= 16 * 2**20
    assert sum(map(len, made)) > 5000


@pytest.mark.parametrize("kind", ["list", "tuple", "tensors", "tables", "labelled"])
def test_a_list_of_batches_is_the_array_that_they_make(make, kind):
    parts = [ROWS[:100], ROWS[100:370], ROWS[370:]]
    given = {
        "list": parts,
        "tuple": tuple(parts),
        "tensors": [torch.tensor(part) for part in parts],
        "tables": [FRAME[:100], OTHER[100:370], FRAME[370:]],
        "labelled": [(part, 1) for part in parts],
    }[kind]
    model = make().fit(given)
    assert model.components_.tobytes() == make().fit(ROWS).components_.tobytes()
    again = FRAME if kind == "tables" else ROWS
    np.testing.assert_array_equal(model.transform(given), model.transform(again))


def test_a_list_of_rows_stays_data(make):
    expected = make().fit(ROWS).components_
    for given in (ROWS.tolist(), list(ROWS), [torch.tensor(row) for row in ROWS]):
        assert make().fit(given).components_.tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(3, 4), (2, 2, 3)])
def test_pictures_keep_their_shape(make, shape, tmp_path):
    pictures = ROWS.reshape(400, *shape)
    model = make().fit(pictures)
    assert model.feature_shape_ == shape
    assert model.n_features_in_ == 12
    assert model.components_.tobytes() == make().fit(ROWS).components_.tobytes()
    for given in (pictures, torch.tensor(pictures), [pictures[:9], pictures[9:]], ROWS):
        np.testing.assert_array_equal(model.transform(given), model.transform(ROWS))
    np.save(tmp_path / "p.npy", pictures)
    assert make().fit(tmp_path / "p.npy").feature_shape_ == shape
    assert make().fit(pictures.tolist()).feature_shape_ == shape
    assert evaluate(model, pictures) == evaluate(model, ROWS)
    with pytest.raises(ArgumentError, match="needed 12 features"):
        model.transform(pictures[:, :1])


def test_later_batches_without_a_shape_leave_the_first_ones():
    model = MODELS["dictionary"]().partial_fit(ROWS.reshape(400, 3, 4)).partial_fit(ROWS)
    assert model.feature_shape_ == (3, 4)


# ------------------------------------------------------------------ the command line


def command(*words):
    result = CliRunner().invoke(app, list(map(str, words)))
    return result.exit_code, result.output


def test_the_command_line_chooses_columns_and_says_what_is_left_out(tmp_path):
    FRAME.assign(who="x").to_csv(tmp_path / "a.csv")
    OTHER.to_parquet(tmp_path / "b.parquet")
    fit = (
        "fit",
        tmp_path / "a.csv",
        "-m",
        8,
        "-k",
        2,
        "--quiet",
        "--force",
        "-o",
        tmp_path / "run",
    )
    code, output = command(*fit)
    assert code == 0
    assert output.count("note: a.csv: left out of the features") == 1
    assert "who" in output
    for source in ("a.csv", "b.parquet"):
        code, output = command(
            "transform", tmp_path / "run", tmp_path / source, "-o", tmp_path / f"{source}.npz"
        )
        assert code == 0, output
        assert ("note: " in output) == (source == "a.csv")
    codes = [sparse.load_npz(tmp_path / f"{name}.npz") for name in ("a.csv", "b.parquet")]
    np.testing.assert_array_equal(codes[0].toarray(), codes[1].toarray())
    # What was written opens again.
    assert (
        command("fit", tmp_path / "a.csv.npz", "-m", 4, "-k", 1, "-q", "-o", tmp_path / "2")[0] == 0
    )

    code, output = command(*fit, "--drop", "who,c00", "--drop", "c01")
    assert (code, "note: " in output) == (0, True)  # the index
    assert shoal.load_run(tmp_path / "run").feature_names_in_.tolist() == NAMES[2:]
    code, output = command("score", tmp_path / "run", tmp_path / "b.parquet")
    assert code == 2
    assert "error: X: found columns c01, c00 too many" in output
    code, output = command("score", tmp_path / "run", tmp_path / "b.parquet", "--drop", "c00,c01")
    assert code == 0
    code, output = command(*fit, "--columns", "c3")
    assert code == 2
    assert output.startswith("error: columns: found 'c3'; needed a column of a.csv; the nearest is")
    np.savetxt(tmp_path / "n.txt", ROWS)
    code, output = command(
        "fit", tmp_path / "n.txt", "-m", 3, "-k", 1, "--columns", "0,3", "-q", "-o", tmp_path / "3"
    )
    assert code == 0, output
    assert shoal.load_run(tmp_path / "3").n_features_in_ == 2
    code, output = command("fit", tmp_path / "b.parquet", "--delimiter", ";", "-o", tmp_path / "4")
    assert code == 2
    assert "error: delimiter: found ';'; needed to be left out" in output


def test_windows_of_a_recording_on_the_command_line(tmp_path):
    from scipy.io import wavfile

    sound = np.sin(np.arange(400) / 7).astype(np.float32)  # windows in a plane
    wavfile.write(tmp_path / "a.wav", 8000, sound)
    windows = ("--window", 40, "--hop", 20)
    fit = ("fit", tmp_path / "a.wav", "-m", 2, "-k", 2, "-q", "-o", tmp_path / "run")
    code, output = command(*fit, *windows)
    assert code == 0, output
    assert shoal.load_run(tmp_path / "run").n_features_in_ == 40
    code, output = command(
        "transform", tmp_path / "run", tmp_path / "a.wav", *windows, "-o", tmp_path / "codes.npz"
    )
    assert code == 0, output
    with np.load(tmp_path / "codes.npz") as stored:
        assert stored["shape"].tolist() == [19, 2]
    code, output = command("score", tmp_path / "run", tmp_path / "a.wav", "--window", 41)
    assert code == 2
    assert "41" in output


@pytest.mark.parametrize("option", ["--window", "--hop"])
@pytest.mark.parametrize("other", ["a.npy", "a.csv", "pictures", "sample:digits"])
def test_windows_of_what_is_no_recording_are_refused_in_one_line(tmp_path, other, option):
    from PIL import Image

    np.save(tmp_path / "a.npy", ROWS)
    np.savetxt(tmp_path / "a.csv", ROWS, delimiter=",")
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "pictures/a.png")
    spec = other if ":" in other else tmp_path / other
    code, output = command("fit", spec, "-m", 3, "-k", 1, option, 8, "-o", tmp_path / "run")
    assert code == 2
    assert f"error: {option[2:]}: found" in output
    assert "needed" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--window", "--hop"])
def test_windows_of_no_samples_are_refused(tmp_path, option):
    from scipy.io import wavfile

    wavfile.write(tmp_path / "a.wav", 8000, np.zeros(4000, np.float32))
    code, output = command("fit", tmp_path / "a.wav", option, 0, "-o", tmp_path / "run")
    assert code == 2
    assert f"error: {option[2:]}: found 0; needed an integer >= 1" in output

    FRAME.to_csv(tmp_path / "a.csv", index=False)
    words = ("sweep", tmp_path / "a.csv", "--penalty", "cae", "--strength", "0.1", "--epochs", 1)
    code, output = command(
        *words, "-m", 4, "--drop", "c00", "--jobs", 1, "-q", "-o", tmp_path / "s"
    )
    assert code == 0, output


def test_a_warning_is_shown_once(tmp_path):
    FRAME.assign(who="x").to_parquet(tmp_path / "t.parquet")
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("default")
        MODELS["dictionary"]().fit(tmp_path / "t.parquet")
    assert len(noted) == 1
    assert noted[0].filename == __file__

"""Tables: a column is what its name says, and what is no feature is left out with a word."""

import json
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from shoal.data import open_source, validate
from shoal.vocabulary import ArgumentError, SourceError, SourceWarning

ROWS = np.random.default_rng(3).normal(size=(40, 4))
NAMES = ["b", "a", "d", "c"]
FRAME = pd.DataFrame(ROWS, columns=NAMES)


def parquet(folder, frame):
    frame.to_parquet(folder / "t.parquet")
    return folder / "t.parquet"


def polars_parquet(folder, frame):
    pl.from_pandas(frame).write_parquet(folder / "p.parquet")
    return folder / "p.parquet"


def text(folder, frame):
    frame.to_csv(folder / "t.csv", index=False, float_format="%.17g")
    return folder / "t.csv"


TABLES = {
    "pandas": lambda folder, frame: frame,
    "polars": lambda folder, frame: pl.from_pandas(frame),
    "arrow": lambda folder, frame: pa.Table.from_pandas(frame),
    "arrow batch": lambda folder, frame: pa.RecordBatch.from_pandas(frame),
    "parquet": parquet,
    "polars' parquet": polars_parquet,
    "csv": text,
}


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SourceWarning)
        yield


@pytest.mark.parametrize("kind", TABLES)
def test_columns_have_names_and_can_be_chosen(kind, tmp_path):
    table = TABLES[kind](tmp_path, FRAME)
    source = open_source(table)
    assert source.feature_names == tuple(NAMES)
    np.testing.assert_array_equal(source.rows([3, 1]), ROWS[[3, 1]])
    for chosen in (["c", "a"], "c,a", ["c,a"], [3, 1], ["c", 1]):
        two = open_source(table, columns=chosen)
        assert two.feature_names == ("c", "a")
        np.testing.assert_array_equal(next(two.batches(9)), ROWS[:9, [3, 1]])
        assert next(two.batches(9)).flags.c_contiguous
    assert open_source(table, drop=["a", "d"]).feature_names == ("b", "c")
    assert open_source(table, columns="d").feature_names == ("d",)
    for options, message in (
        ({"columns": ["A"]}, r"^columns: found 'A'; needed .*nearest is 'a'"),
        ({"drop": "zebra"}, r"^drop: found 'zebra'; needed one of the 4 columns"),
        ({"columns": [4]}, r"^columns: found 4; needed a number from 0 to 3"),
        ({"columns": ["a", "a"]}, r"^columns: found 'a' twice"),
        ({"columns": [1, "a"]}, r"^columns: found 'a' twice"),
        ({"columns": []}, r"^columns: found no name"),
        ({"columns": "a", "drop": "b"}, r"^drop: found .*one of columns= and drop="),
    ):
        with pytest.raises(ArgumentError, match=message) as caught:
            open_source(table, **options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", TABLES)
def test_what_is_no_number_is_left_out_with_a_word(kind, tmp_path):
    frame = FRAME.assign(
        who=[f"s{i}" for i in range(40)], day=pd.date_range("2020", periods=40), on=ROWS[:, 0] > 0
    )
    with pytest.warns(SourceWarning, match="left out of the features.*who") as noted:
        source = open_source(TABLES[kind](tmp_path, frame))
    assert len(noted) == 1
    assert "\n" not in str(noted[0].message)
    assert set(source.left_out) == {"who", "day"}
    assert source.feature_names == (*NAMES, "on")
    np.testing.assert_array_equal(source.rows(range(40))[:, 4], ROWS[:, 0] > 0)
    # Asked for, nothing is said.
    assert not open_source(TABLES[kind](tmp_path, frame), drop=["who", "day"]).left_out
    assert not open_source(TABLES[kind](tmp_path, frame), columns=["a"]).left_out
    with pytest.raises(ArgumentError, match=r"^columns: found 'who', which holds text"):
        open_source(TABLES[kind](tmp_path, frame), columns=["a", "who"])
    with pytest.raises(SourceError, match="needed numeric columns"):
        open_source(TABLES[kind](tmp_path, frame[["who"]]))


@pytest.mark.parametrize("kind", TABLES)
def test_a_missing_value_is_named_by_row_and_column(kind, tmp_path):
    frame = FRAME.copy()
    frame.loc[17, "d"] = np.nan
    source = open_source(TABLES[kind](tmp_path, frame))
    with pytest.raises(ArgumentError, match=r"nan at row 17, column 2 \('d'\) of"):
        validate(source)


@pytest.mark.parametrize("name", [None, "key"])
@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_the_index_that_pandas_writes_is_no_feature(kind, name, tmp_path):
    shuffled = FRAME.sample(frac=1, random_state=0).rename_axis(name)
    with pytest.warns(SourceWarning, match=rf"pandas' index: {name or '__index_level_0__'}"):
        source = open_source(TABLES[kind](tmp_path, shuffled))
    assert source.feature_names == tuple(NAMES)
    np.testing.assert_array_equal(source.rows(range(40)), shuffled.to_numpy())
    if name:  # its own name says that it is wanted
        both = open_source(TABLES[kind](tmp_path, shuffled), columns=["key", "a"])
        np.testing.assert_array_equal(both.rows(range(40))[:, 0], shuffled.index)


def test_an_index_of_several_levels_and_a_range(tmp_path, quiet):
    two = FRAME.assign(i=range(40), j=1).set_index(["i", "j"])
    assert open_source(parquet(tmp_path, two)).feature_names == tuple(NAMES)
    assert open_source(parquet(tmp_path, FRAME)).feature_names == tuple(NAMES)


@pytest.mark.parametrize("written", [b"{", b"[]", b'{"index_columns": 3}', b"[" * 100_000])
def test_broken_metadata_of_pandas_says_nothing(written, tmp_path):
    table = pa.table({"a": [1.0], "b": [2.0]}).replace_schema_metadata({b"pandas": written})
    pq.write_table(table, tmp_path / "m.parquet")
    assert open_source(tmp_path / "m.parquet").feature_names == ("a", "b")


def test_every_kind_of_arrow_column(tmp_path, quiet):
    columns = {
        "half": pa.array(np.array([1, 2], np.float16)),
        "decimal": pa.array([Decimal("1.5"), Decimal("2.5")]),
        "coded": pa.array([7.0, 8.0]).dictionary_encode(),
        "wide": pa.array([2**60, 1]),
        "bit": pa.array([True, False]),
        "label": pa.array(["x", "y"]).dictionary_encode(),
        "when": pa.array([1, 2], pa.timestamp("us")),
        "null": pa.nulls(2),
        "nested": pa.array([{"x": 1}, {"x": 2}]),
        "bytes": pa.array([b"x", b"y"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "k.parquet")
    for spec in (pa.table(columns), tmp_path / "k.parquet"):
        source = open_source(spec)
        expected = [[1, 1.5, 7, 2.0**60, 1], [2, 2.5, 8, 1, 0]]
        np.testing.assert_array_equal(source.rows([0, 1]), expected)
        assert list(source.left_out) == ["label", "when", "null", "nested", "bytes"]


def test_every_kind_of_pandas_column(quiet):
    frame = pd.DataFrame(
        {
            "nullable": pd.array([1, 2], "Int8"),
            "arrow": pd.array([1.5, 2.5], "float[pyarrow]"),
            "rated": pd.Categorical([3, 4]),
            "objects": np.array([Decimal(5), 6], dtype=object),
            "named": pd.Categorical(["x", "y"]),
            "spans": pd.to_timedelta([1, 2]),
            "complex": [1j, 2],
            "empty": [None, None],
        }
    )
    source = open_source(frame)
    np.testing.assert_array_equal(source.rows([0, 1]), [[1, 1.5, 3, 5], [2, 2.5, 4, 6]])
    assert list(source.left_out) == ["named", "spans", "complex", "empty"]
    for column in ("nullable", "rated"):
        gone = frame[[column]].copy()
        gone.iloc[1, 0] = pd.NA if column == "nullable" else np.nan
        with pytest.raises(ArgumentError, match=rf"nan at row 1, column 0 \('{column}'\)"):
            validate(open_source(gone))


def test_lists_in_a_column_are_rows():
    lists = [[1.0, 2.0], [3.0, 4.0]]
    for table in (pl.DataFrame({"v": lists}), pa.table({"v": lists})):
        source = open_source(table)
        np.testing.assert_array_equal(source.rows([1, 0]), lists[::-1])
        assert source.feature_names is None
    for table in (pl.DataFrame({"v": [[1.0], [2.0, 3.0]]}), pa.table({"v": [[1.0], [2.0, 3.0]]})):
        with pytest.raises(SourceError, match="v"):
            open_source(table)


def test_names_that_differ_in_case_are_two_and_equal_ones_an_error(tmp_path):
    open_source(pd.DataFrame(np.eye(2), columns=["a", "A"]))
    for twice in (
        pd.DataFrame(np.eye(2), columns=["a", "a"]),
        pa.table([[1.0], [2.0]], names=["a", "a"]),
    ):
        with pytest.raises(SourceError, match="two columns named 'a'") as caught:
            open_source(twice)
        assert "\n" not in str(caught.value)
        np.testing.assert_array_equal(
            open_source(twice, columns=[1]).rows([0])[0, 0], [0.0, 2.0][isinstance(twice, pa.Table)]
        )


def test_names_that_are_no_text_are_none():
    assert open_source(pd.DataFrame(ROWS)).feature_names is None
    assert open_source(pd.DataFrame(ROWS), columns=[2]).rows([0])[0, 0] == ROWS[0, 2]
    with pytest.raises(SourceError, match="a column name of type int"):
        open_source(pd.DataFrame(np.eye(2), columns=["a", 1]))


def test_columns_of_what_has_no_names_are_numbers(tmp_path):
    np.savez(tmp_path / "t.npz", data=ROWS, dictionary=np.eye(4)[:3])
    source = open_source(tmp_path / "t.npz", columns=[2, 0])
    np.testing.assert_array_equal(source.rows([5]), ROWS[[5]][:, [2, 0]])
    np.testing.assert_array_equal(source.truth.dictionary, np.eye(4)[:3, [2, 0]])
    assert open_source(ROWS, drop="1", feature_shape=(3, 1)).feature_shape == (3, 1)
    for options, message in (
        ({"columns": "a"}, "have no names"),
        ({"drop": [0, 1, 2, 3]}, "all columns"),
        ({"columns": 7}, "from 0 to 3"),
    ):
        with pytest.raises(ArgumentError, match=message):
            open_source(ROWS, **options)


def test_a_name_with_a_comma_is_one_name():
    frame = pd.DataFrame(np.eye(3), columns=["x, y", "x", "y"])
    assert open_source(frame, columns="x, y").feature_names == ("x, y",)
    assert open_source(frame, columns=["x, y", "y"]).feature_names == ("x, y", "y")
    assert open_source(frame, drop="y,x").feature_names == ("x, y",)


def test_a_frame_of_sparse_columns_stays_sparse():
    matrix = sparse.random_array((50, 8), density=0.1, rng=np.random.default_rng(0), format="csr")
    frame = pd.DataFrame.sparse.from_spmatrix(matrix, columns=list("abcdefgh"))
    source = open_source(frame)
    assert source.csr.nnz == matrix.nnz
    assert source.feature_names == tuple("abcdefgh")
    np.testing.assert_array_equal(source.rows(range(50)), matrix.toarray())


def test_a_lazy_frame_is_asked_to_be_collected():
    with pytest.raises(SourceError, match=r"a LazyFrame.*call \.collect\(\) first"):
        open_source(pl.LazyFrame({"a": [1]}))


def test_metadata_that_names_lost_columns_is_passed_over(tmp_path):
    meta = json.dumps({"index_columns": ["gone", {"kind": "range"}]}).encode()
    table = pa.table({"a": [1.0]}).replace_schema_metadata({b"pandas": meta})
    assert open_source(table).feature_names == ("a",)


# --- batches and rows in lists ----------------------------------------------------------------


def test_a_list_of_tables_is_read_by_the_names_of_the_first():
    later = FRAME[sorted(NAMES)]
    for spec in ([FRAME, later], iter([FRAME, pl.from_pandas(later)])):
        source = open_source(spec)
        assert source.feature_names == tuple(NAMES)
        rows = np.concatenate(list(source.batches(50)))
        np.testing.assert_array_equal(rows, np.r_[ROWS, ROWS])
    with pytest.raises(ArgumentError, match="no column b in frame"):
        open_source([FRAME, FRAME.drop(columns="b")])


@pytest.mark.parametrize("seed", [None, 0])
def test_a_list_of_uneven_batches_is_the_array_that_they_make(seed):
    def rng():
        return None if seed is None else np.random.default_rng(seed)

    whole = open_source(ROWS)
    parts = [ROWS[:7], ROWS[:0], sparse.csr_array(ROWS[7:30]), ROWS[30:].tolist()]
    parts[-1] = np.array(parts[-1])
    for spec in (parts, tuple(parts), [(part, "label") for part in parts]):
        source = open_source(spec)
        assert source.n_samples == 40
        for one, other in zip(
            *(s.batches(9, rng=rng()) for s in (source, whole)),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(source.rows([39, 0, 8]), ROWS[[39, 0, 8]])


def test_a_list_of_rows_is_data():
    for rows in (ROWS.tolist(), list(ROWS), tuple(map(tuple, ROWS))):
        np.testing.assert_array_equal(open_source(rows).array, ROWS)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("form", ["array", "npy", "npz", "safetensors", "zarr", "tensor", "list"])
def test_more_axes_are_rows_with_a_shape(form, order, tmp_path):
    import torch
    import zarr
    from safetensors.numpy import save_file

    pictures = np.random.default_rng(0).normal(size=(30, 4, 5, 3)).astype(np.float32)
    stored = np.asarray(pictures, order=order)
    path = tmp_path / f"x.{form}"
    if form == "npy":
        np.save(path, stored)
    elif form == "npz":
        np.savez(path, pictures=stored, other=np.zeros(3))
    elif form == "safetensors":
        save_file({"pictures": np.ascontiguousarray(stored)}, path)
    elif form == "zarr":
        zarr.create_array(path, data=stored, chunks=(7, 4, 2, 3))
    forms = {"array": stored, "tensor": torch.from_numpy(stored), "list": [stored[:9], stored[9:]]}
    source = open_source(forms.get(form, path))
    assert source.feature_shape == (4, 5, 3)
    np.testing.assert_array_equal(source.rows(range(30)), pictures.reshape(30, 60))
    np.testing.assert_array_equal(
        np.concatenate(list(source.batches(11))), pictures.reshape(30, 60)
    )
    assert open_source(forms.get(form, path), feature_shape=(20, 3)).feature_shape == (20, 3)


# --- sparse arrays ------------------------------------------------------------------------------

SPARSE = sparse.random_array((60, 20), density=0.1, rng=np.random.default_rng(1), format="csr")
FORMS = ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_sparse_arrays_give_dense_batches(form, kind, tmp_path):
    made = getattr(sparse, f"{form}_{kind}")(SPARSE)
    specs = [made]
    if form not in ("lil", "dok"):
        sparse.save_npz(tmp_path / "s.npz", made)
        specs.append(tmp_path / "s.npz")
    for spec in specs:
        source = open_source(spec)
        validate(source)
        np.testing.assert_array_equal(source.rows(range(60)), SPARSE.toarray())
        (batch,) = source.batches(60)
        assert batch.flags.c_contiguous
        assert batch.flags.writeable


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "float32", "float64", "longdouble"])
def test_sparse_types_are_those_of_dense_ones(dtype):
    given = (SPARSE * 9).astype(dtype)
    assert open_source(given).dtype == open_source(given.toarray()).dtype
    np.testing.assert_array_equal(open_source(given).rows([4, 5]), given.toarray()[[4, 5]])


def test_indices_of_64_bits_out_of_order_and_twice():
    rows, columns = np.array([0, 0, 1, 0], np.int64), np.array([2, 0, 1, 2], np.int64)
    coo = sparse.coo_array((np.array([1.0, 2.0, 3.0, 4.0]), (rows, columns)), shape=(2, 3))
    csr = sparse.csr_array(
        (coo.data[[0, 1, 3, 2]], np.array([2, 0, 2, 1], np.int64), np.array([0, 3, 4], np.int64)),
        shape=(2, 3),
    )
    for made in (coo, csr):
        np.testing.assert_array_equal(open_source(made).rows([0, 1]), [[2, 0, 5], [0, 3, 0]])
    assert csr.nnz == 4  # the caller's is as it was


def broken(**changes):
    made = SPARSE.copy()
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: broken(indices=SPARSE.indices + 20), "which is broken"),
        (lambda: broken(indices=SPARSE.indices - 20), "which is broken"),
        (lambda: broken(indptr=SPARSE.indptr[::-1].copy()), "which is broken"),
        (lambda: SPARSE * 1j, "dtype complex128"),
        (lambda: sparse.csr_array((0, 3)), "with 0 rows"),
        (lambda: sparse.csr_array((3, 0)), "with 0 columns"),
        (lambda: sparse.coo_array(np.ones(3)), r"shape \(3,\)"),
        (lambda: sparse.csr_array((3, 10**9)), "at most"),
        (lambda: SPARSE * np.inf, "inf at row"),
    ],
)
def test_bad_sparse_arrays_are_refused_in_one_line(make, message):
    with np.errstate(all="ignore"), pytest.raises(ArgumentError, match=message) as caught:
        validate(open_source(make()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": np.full(SPARSE.nnz, 10**6)}, "which is broken"),
        ({"indptr": np.arange(61) * 10**9}, "which is broken"),
        ({"indptr": np.zeros(3, int)}, "which is broken"),
        ({"format": np.array(b"pickle")}, "format 'pickle'"),
        ({"indices": np.zeros(SPARSE.nnz)}, "indices of dtype float64"),
        ({"shape": np.array([60])}, r"shape \(60,\)"),
        ({"data": np.array(["x"] * SPARSE.nnz)}, "dtype <U1"),
    ],
)
def test_broken_files_of_sparse_arrays_are_refused(change, message, tmp_path):
    parts = {
        "format": np.array(b"csr"),
        "shape": np.array(SPARSE.shape),
        "data": SPARSE.data,
        "indices": SPARSE.indices,
        "indptr": SPARSE.indptr,
    }
    np.savez(tmp_path / "b.npz", **{**parts, **change})
    with pytest.raises(SourceError, match=f"^source: .*{message}") as caught:
        open_source(tmp_path / "b.npz")
    assert "\n" not in str(caught.value)
    np.savez(tmp_path / "b.npz", **parts)
    np.testing.assert_array_equal(open_source(tmp_path / "b.npz").rows([7]), SPARSE[[7]].toarray())


def test_sparse_rows_that_are_long_are_asked_for_a_few_at_a_time():
    wide = open_source(sparse.csr_array((5000, 100_000)))
    assert wide.rows_at_once(4096) < 100
    validate(wide)
    assert open_source(SPARSE).rows_at_once(4096) == 4096
    assert open_source(ROWS).rows_at_once(4096) == 4096

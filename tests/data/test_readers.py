"""A reader is one file that registers itself; options and endings come from the register."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from safetensors.numpy import save_file
from sklearn.base import clone

import shoal
from shoal.data import open_source
from shoal.data import readers as readers_package
from shoal.data.readers import Reader, array_source, endings, readers, register
from shoal.parts import _forget, named
from shoal.vocabulary import ArgumentError, SourceError

ROWS = np.random.default_rng(7).normal(size=(30, 4))


@pytest.fixture
def dat():
    """A user's own reader, of files and of open objects."""

    def opened(path, options):
        table = np.loadtxt(path, delimiter=options.get("separator"), ndmin=2)
        return array_source(table, path.name)

    yield register(
        Reader(
            "a table of numbers",
            (".dat", ".tab"),
            ("separator",),
            open=opened,
            holds=lambda value: isinstance(value, complex),
            open_object=lambda value, options: array_source(np.eye(int(value.real)), "complex"),
        )
    )
    _forget("reader", "a table of numbers")


def test_every_module_of_the_package_registers_one_reader():
    folder = Path(readers_package.__file__).parent
    modules = [path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")]
    assert len(readers()) == len(modules) > 5
    assert all(reader.open is not None or reader.holds is not None for reader in readers())


def test_a_reader_of_ones_own(dat, tmp_path):
    np.savetxt(tmp_path / "a.dat", ROWS, delimiter=";")
    source = open_source(tmp_path / "a.dat", separator=";")
    np.testing.assert_array_equal(next(source.batches(30)), ROWS)
    assert ".dat .tab" in endings()
    assert open_source(3j + 2).n_samples == 2
    with pytest.raises(SourceError, match=r"the ending '.xls' of a.xls; needed one of .*\.dat"):
        open_source((tmp_path / "a.dat").rename(tmp_path / "a.xls"))


def test_two_readers_of_one_name_are_refused(dat):
    own = Reader("a .npy file", (".npy",), (), open=dat.open)
    with pytest.raises(ArgumentError, match=r"^name: found 'a .npy file'; needed another"):
        register(own)
    assert named("reader")[dat.name] is dat


def test_an_option_is_refused_by_all_that_do_not_declare_it(dat, tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    (tmp_path / "a.dat").write_text("1 2\n")
    for spec, option in (
        (tmp_path / "a.npy", "separator"),
        (ROWS, "separator"),
        ([ROWS], "separator"),
        ("sample:digits", "separator"),
        (2 + 0j, "key"),
        (tmp_path / "a.dat", "key"),
        (tmp_path / "a.dat", "sep"),
    ):
        with pytest.raises(ArgumentError, match=f"^{option}: found ';'; needed to be left out"):
            open_source(spec, **{option: ";"})


def test_the_help_names_the_endings():
    from shoal.cli import app

    for reader in readers():
        if reader.rank == 0 and reader.suffixes:
            assert reader.suffixes[0] in app.info.help


# --- the same rows are the same data, wherever they lie ----------------------------------------


def _save(rows, ending, folder):
    path = folder / f"a.{ending}"
    if ending == "npy":
        np.save(path, rows)
    elif ending == "npz":
        np.savez_compressed(path, data=rows)
    elif ending == "safetensors":
        save_file({"data": np.ascontiguousarray(rows)}, path)
    elif ending == "parquet":
        columns = {f"c{i}": column for i, column in enumerate(rows.T)}
        pq.write_table(pa.table(columns), path, row_group_size=170)
    elif ending == "zarr":
        zarr.create_array(path, data=rows, chunks=(190, 3))
    return path


@pytest.mark.filterwarnings("ignore:The mean of X")
@pytest.mark.filterwarnings("ignore:n_components=12")  # that some atoms are left out
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int16", "int64", "uint8"])
def test_a_fit_has_the_same_bits_from_every_kind_of_file(dtype, tmp_path):
    rng = np.random.default_rng(3)  # 2 of 12 atoms in each row: rows without any take long
    codes = np.zeros((1000, 12))
    np.put_along_axis(codes, rng.random((1000, 12)).argsort(axis=1)[:, :2], 1.0, axis=1)
    rows = (codes @ rng.uniform(0, 100, size=(12, 8))).astype(dtype)
    model = shoal.DictionaryAutoencoder(12, 2, random_state=0)
    expected = clone(model).fit(rows).components_
    for ending in ("npy", "npz", "safetensors", "parquet", "zarr"):
        source = open_source(_save(rows, ending, tmp_path))
        assert source.dtype == open_source(rows).dtype
        found = clone(model).fit(source).components_
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, err_msg=ending)


def test_batches_of_a_chunked_file_are_those_of_the_array_if_it_fits_the_window(tmp_path):
    rows = np.random.default_rng(3).normal(size=(1000, 8))
    source = open_source(_save(rows, "zarr", tmp_path))
    for window, same in ((1000, True), (999, False)):
        source._window = window
        one, two = (
            list(each.batches(64, rng=np.random.default_rng(5)))
            for each in (source, open_source(rows))
        )
        assert [len(batch) for batch in one] == [len(batch) for batch in two]
        assert np.array_equal(np.concatenate(one), np.concatenate(two)) == same
        np.testing.assert_array_equal(np.sort(np.concatenate(one)[:, 0]), np.sort(rows[:, 0]))

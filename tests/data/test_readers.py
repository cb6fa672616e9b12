"""A reader is one file that registers itself; options and endings come from the register."""

from pathlib import Path

import numpy as np
import pytest

from shoal.data import open_source
from shoal.data import readers as readers_package
from shoal.data.readers import Reader, array_source, endings, readers, register
from shoal.data.readers import _base as base
from shoal.vocabulary import ArgumentError, SourceError

ROWS = np.random.default_rng(7).normal(size=(30, 4))


@pytest.fixture
def dat(monkeypatch):
    """A user's own reader, of files and of open objects."""
    monkeypatch.setattr(base, "_registered", list(base._registered))

    def opened(path, options):
        table = np.loadtxt(path, delimiter=options.get("separator"), ndmin=2)
        return array_source(table, path.name)

    return register(
        Reader(
            "a table of numbers",
            (".dat", ".tab"),
            ("separator",),
            open=opened,
            holds=lambda value: isinstance(value, complex),
            open_object=lambda value, options: array_source(np.eye(int(value.real)), "complex"),
        )
    )


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

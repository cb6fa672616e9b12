"""Tables as text: what a cell says, or an error that names its line."""

import gzip
import io
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from shoal.data import open_source, validate
from shoal.data.readers import delimited
from shoal.vocabulary import ArgumentError, SourceError, SourceWarning

ROWS = np.random.default_rng(3).normal(size=(40, 4)) * 1e-13


@pytest.fixture
def written(tmp_path):
    def write(text, name="x.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def saved(delimiter=",", header=""):
    out = io.StringIO()
    np.savetxt(out, ROWS, delimiter=delimiter, header=header, comments="")
    return out.getvalue()


SAME = {
    "comma": saved(),
    "header": saved(header="a,b,c,d"),
    "semicolon": saved(";"),
    "tab": saved("\t", header="a\tb\tc\td"),
    "pipe": saved("|"),
    "space": saved(" "),
    "spaces": saved("   ").replace("\n", "  \n  "),
    "comma and space": saved(", ", header="a, b, c, d"),
    "windows": saved().replace("\n", "\r\n"),
    "old mac": saved().replace("\n", "\r"),
    "byte order mark": "\ufeff" + saved(header="a,b,c,d"),
    "utf-16": saved(header="a,b,c,d").encode("utf-16"),
    "blank lines": "\n" + saved().replace("\n", "\n\n"),
    "comments": "# made by hand\n" + saved() + "# the end\n",
    "no last newline": saved().rstrip("\n"),
    "trailing delimiters": saved(header="a,b,c,d").replace("\n", ",\n"),
    "quoted": "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in saved().splitlines()
    ),
}


@pytest.mark.filterwarnings("ignore:.*left out.*nothing:UserWarning")
@pytest.mark.parametrize("kind", SAME)
def test_the_numbers_are_the_bits_that_were_written(kind, written):
    for name in ("x.csv", "x.tsv", "x.txt"):
        source = open_source(written(SAME[kind], name))
        validate(source)
        assert source.dtype == np.float64
        np.testing.assert_array_equal(source.rows(range(40)), ROWS)
        named = "a" in str(SAME[kind])[:40] and "made" not in str(SAME[kind])[:40]
        assert source.feature_names == (("a", "b", "c", "d") if named else None)


def test_a_packed_file_is_the_file(written):
    path = written(gzip.compress(saved().encode()), "x.csv.gz")
    np.testing.assert_array_equal(open_source(path).array, ROWS)
    for damage in (lambda raw: raw[:-9], lambda raw: raw[:300]):
        with pytest.raises(SourceError, match=r"x\.csv\.gz, which can't be read") as caught:
            open_source(written(damage(gzip.compress(saved().encode())), "x.csv.gz"))
        assert "\n" not in str(caught.value)


def test_a_packed_file_that_is_a_bomb_is_given_up(written, monkeypatch):
    monkeypatch.setattr(delimited, "_UNPACKED", 10**5)
    with pytest.raises(SourceError, match="unpacks to more than"):
        open_source(written(gzip.compress(b"1,2\n" * 10**6), "x.csv.gz"))


def test_large_tables_go_to_a_file_without_a_name(written, monkeypatch, tmp_path):
    monkeypatch.setattr(delimited, "_HELD_BYTES", 100)
    monkeypatch.setattr(delimited, "_CELLS", 20)
    path = written(saved())
    source = open_source(path)
    assert not source.in_memory
    np.testing.assert_array_equal(source.rows(range(40)), ROWS)
    in_order = [np.concatenate(list(source.batches(7)))]
    in_order.append(np.concatenate(list(open_source(ROWS).batches(7))))
    np.testing.assert_array_equal(*in_order)
    rngs = (np.random.default_rng(0) for _ in range(2))
    shuffled = [next(s.batches(7, rng=next(rngs))) for s in (source, open_source(ROWS))]
    np.testing.assert_array_equal(*shuffled)  # as a .npy file: the same bits of a fit


def test_the_index_of_pandas_and_of_r_is_no_feature(written):
    frame = pd.DataFrame(ROWS, columns=list("abcd"))
    r = '"a" "b"\n"1" 0.5 0.25\n"2" 1.5 1.25\n'
    for text, expected in (
        (frame.to_csv(), ROWS),
        (frame.sample(frac=1, random_state=0).to_csv(), None),
        (frame.set_axis(range(4), axis=1).to_csv(), ROWS),  # columns without names are counted
        (frame.reset_index(names="Unnamed: 0").to_csv(index=False), ROWS),
        (frame.set_axis([f"s{i}" for i in range(40)]).to_csv(), ROWS),  # names of samples
        (r, [[0.5, 0.25], [1.5, 1.25]]),
    ):
        with pytest.warns(SourceWarning, match="left out of the features"):
            source = open_source(written(text))
        if expected is not None:
            np.testing.assert_array_equal(source.array, expected)
        assert source.n_features == (2 if text is r else 4)


def test_the_first_row_is_names_where_it_looks_so_or_is_said_to_be(written):
    counted = pd.DataFrame(ROWS).to_csv(index=False)
    with pytest.warns(SourceWarning, match="its first row, 0, 1, ..., is taken for names"):
        assert open_source(written(counted)).n_samples == 40
    assert open_source(written(counted), header=False).n_samples == 41
    assert open_source(written("0,1\n1,0\n0,0\n")).n_samples == 3
    spectra = "400,410\n.1,.2\n.3,.4\n"
    assert open_source(written(spectra)).n_samples == 3
    assert open_source(written(spectra), header=True).feature_names == ("400", "410")
    with pytest.warns(SourceWarning, match="is taken for data"):
        assert open_source(written("s1,1,2\ns2,3,4\n"), drop=[0]).n_samples == 2
    assert open_source(written("#a,b\n1,2\n3,4\n")).feature_names == ("a", "b")


@pytest.mark.parametrize("gap", ["", "NA", "NaN", "nan", "null", "N/A", "  ", "None"])
def test_a_gap_is_named_by_row_and_column(gap, written):
    source = open_source(written(f"a,b\n1,2\n3,{gap}\n5,6\n"))
    with pytest.raises(ArgumentError, match=r"nan at row 1, column 1 \('b'\) of x.csv"):
        validate(source)


def test_truth_values_are_numbers(written):
    source = open_source(written("a,b\nTrue,1\nfalse,2\n"))
    np.testing.assert_array_equal(source.array, [[1, 1], [0, 2]])


BAD = {
    "too many cells": ("a,b\n1,2\n3,4\n1,2,3\n5,6\n7,8\n", "3 cells in line 4 of x.csv; needed 2"),
    "too few cells": ("1,2,3\n1,2,3\n1,2\n1,2,3\n4,5,6\n7,8,9\n", "2 cells in line 3"),
    "a word among numbers": ("a,b\n1,2\n3,n.d.\n", r"'n.d.' in line 3, column b"),
    "a late word": ("a,b\n" + "1,2\n" * 5000 + "3,x\n", "'x' in line 5002, column b"),
    "a decimal comma": ("a;b\n1,5;2\n2,5;3\n", "'1,5' in line 2, column a.*decimal point"),
    "one decimal comma": ("a\tb\n1\t2\n2,5\t3\n", "'2,5' in line 3.*decimal point"),
    "thousands": ('a,b\n"1,234.5",2\n"2,234.5",3\n', "'1,234.5' in line 2.*thousands"),
    "thousands by dots": ("a;b\n1.234,5;2\n", "'1.234,5' in line 2"),
    "hexadecimal": ("a,b\n1,2\n0x1F,3\n", "'0x1F' in line 3"),
    "underscores": ("a,b\n1,2\n1_000,3\n", "'1_000' in line 3"),
    "nothing": ("", r"empty \(0 bytes\)"),
    "blank": ("\n\n", "x.csv without rows"),
    "a header alone": ("a,b\n", "a header and 0 rows"),
    "words alone": ("a,b\nx,y\nz,w\n", "with columns a, b; needed numeric"),
    "latin-1": ("µ,b\n1,2\n".encode("latin-1"), "which can't be read .*utf-8"),
    "a zip": (b"PK\x03\x04...", r"which starts b'PK"),
    "NUL": (b"1,2\n\0,3\n", "which starts"),
    "equal names": ("a,a\n1,2\n", "two columns named 'a'"),
    "an open quote": ('a,b\n"1,2\n' + "3,4\n" * 100_000, "a cell of more than 20 lines"),
    "a long line": ("1," * (5 * 2**20), "line 1 of x.csv of more than 8388608 characters"),
    "many columns": ("1," * 2**20 + "1\n", "more than 262144 columns"),
    "fewer names": ("a,b\n1,2,3,4\n5,6,7,8\n", "2 names in its header"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_refused_in_one_line(case, written):
    text, message = BAD[case]
    with pytest.raises(SourceError, match=f"^source: found .*({message})") as caught:
        open_source(written(text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("given", ["", ";;", "1", ".", '"', 3, "\n"])
def test_a_wrong_delimiter_is_refused(given, written):
    with pytest.raises(ArgumentError, match=r"^delimiter: found .*needed one character"):
        open_source(written("1,2\n"), delimiter=given)


def test_a_delimiter_may_be_given(written):
    assert open_source(written("a:b\n1:2\n"), delimiter=":").feature_names == ("a", "b")
    assert open_source(written("a b\tc\n1\t2\n"), delimiter="tab").feature_names == ("a b", "c")
    with pytest.raises(ArgumentError, match=r"^header: found 'yes'"):
        open_source(written("1,2\n"), header="yes")


def test_memory_is_bounded_by_the_numbers_and_a_block(written, monkeypatch):
    monkeypatch.setattr(delimited, "_CELLS", 2**13)
    path = written(("1," * 199 + "1\n") * 1000)  # 1.6 MB of numbers
    tracemalloc.start()
    try:
        open_source(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12e6  # as text, all cells at once would take that alone

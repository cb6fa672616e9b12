"""Orders of rows: all of them once, by a list or by a key, whole or in parts."""

import numpy as np
import pytest

from shoal.data import open_source, order
from shoal.data.access import ChunkSource, RowSource
from shoal.data.norms import _counted, norms_of
from shoal.data.order import Keyed, Scattered, order_of


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 17, 1000, 65_537])
def test_a_key_permutes_all_rows(count):
    found = Keyed(count, 7)[0:count]
    assert found.dtype == np.intp
    np.testing.assert_array_equal(np.sort(found), np.arange(count))


def test_another_key_is_another_order_and_each_is_like_chance():
    one, other = (Keyed(100_000, key)[0:100_000] for key in (1, 2))
    places = np.arange(100_000)
    for found in (one, other):
        assert abs(np.corrcoef(found, places)[0, 1]) < 0.02
        assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.02
        assert (found == places).sum() < 10
    assert (one == other).sum() < 10


def test_any_place_can_be_asked_for_alone():
    keyed = Keyed(10**12, 5)
    whole = keyed[10**11 : 10**11 + 100]
    np.testing.assert_array_equal(keyed[10**11 + 40 : 10**11 + 60], whole[40:60])
    assert whole.max() < 10**12
    assert len(np.unique(whole)) == 100


def test_few_rows_keep_the_order_they_had():
    found = order_of(50, 2, np.random.default_rng(3))
    np.testing.assert_array_equal(found, np.random.default_rng(3).permutation(50))
    assert isinstance(order_of(order.LISTED + 1, 2, np.random.default_rng(3)), Keyed)
    wide = order_of(order.LARGE // 64 + 1, 64, np.random.default_rng(3))
    assert isinstance(wide, Scattered)
    very_wide = order_of(5, order.LARGE, np.random.default_rng(3))  # a row is a run already
    assert isinstance(very_wide, np.ndarray)


@pytest.mark.parametrize("key", [0, 5, 2**64 - 1])
@pytest.mark.parametrize("count", [1, 3, 8, 64, 65, 127, 128, 1000, 65_537])
def test_runs_permute_all_rows(count, key):
    order = Scattered(count, run=8, window=8, key=key)
    found = order[0:count]
    assert found.dtype == np.intp
    np.testing.assert_array_equal(np.sort(found), np.arange(count))
    parts = [order[at : at + 37] for at in range(0, count, 37)]
    np.testing.assert_array_equal(np.concatenate(parts), found)
    assert order[count:].size == 0


def test_a_window_is_of_runs_from_everywhere_and_its_rows_are_mixed():
    order = Scattered(2**20, run=16, window=256, key=9)
    window = order[4096 * 3 : 4096 * 4]
    runs = np.unique(window // 16)
    assert len(runs) <= 2 * 256  # where runs begin is drawn
    assert np.histogram(runs, 8, (0, 2**16))[0].min() > 20
    assert abs(np.corrcoef(window[1:], window[:-1])[0, 1]) < 0.05
    assert (np.abs(np.diff(window)) < 16).mean() < 0.02


def _large(monkeypatch):
    for name, value in {"LARGE": 100, "_RUN": 8, "_MIXED": 32}.items():
        monkeypatch.setattr(order, name, value)


def test_what_is_read_was_announced_before(monkeypatch):
    _large(monkeypatch)
    rows, told = np.arange(206.0).reshape(103, 2), set()

    def fetch(index):
        assert set(np.arange(103)[index].tolist()) <= told
        return rows[index]

    source = RowSource(fetch, (103, 2), rows.dtype, name="rows", soon=lambda first, stop:
                       told.update(range(first, stop)))  # fmt: skip
    for first in (0, 3):
        seen = list(source.shares(10, rng=np.random.default_rng(1), first=first))
        assert sum(len(batch) for batch, _ in seen) == 103 - 10 * first
        told.clear()


def test_a_large_file_has_the_order_of_the_array(monkeypatch, tmp_path):
    _large(monkeypatch)
    rows = np.random.default_rng(0).normal(size=(103, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    pair = [open_source(each).batches(20, rng=np.random.default_rng(1))
            for each in (rows, tmp_path / "x.npy")]  # fmt: skip
    for one, other in zip(*pair, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(params=["array", "keyed", "runs", "runs of a file", "view", "file", "chunks",
                        "windows of chunks", "stream"])  # fmt: skip
def source(request, tmp_path, monkeypatch):
    rows = np.arange(206.0).reshape(103, 2)
    if request.param == "keyed":
        monkeypatch.setattr(order, "LISTED", 50)
    if request.param.startswith("runs"):
        _large(monkeypatch)
    if request.param == "windows of chunks":
        ends = np.r_[0, 7, 7, 30, 31, 50, 75, 90, 103]
        return ChunkSource(
            lambda number: iter(np.array_split(rows[ends[number] : ends[number + 1]], 3)),
            np.diff(ends),
            2,
            rows.dtype,
            name="chunks",
            window_bytes=24 * rows[0].nbytes,
        )
    if request.param.endswith("file"):
        np.save(tmp_path / "x.npy", rows)
        return open_source(tmp_path / "x.npy")
    if request.param == "chunks":
        pytest.importorskip("pyarrow")
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.table({"a": rows[:, 0], "b": rows[:, 1]})
        parquet.write_table(table, tmp_path / "x.parquet", row_group_size=20)
        return open_source(tmp_path / "x.parquet")
    if request.param == "view":
        return open_source(np.c_[rows, rows], columns=[0, 1])
    if request.param == "stream":
        return open_source(lambda: iter(np.array_split(rows, 9)))
    return open_source(rows)


def test_parts_of_batches_are_the_batches(source):
    whole = list(source.batches(20, rng=np.random.default_rng(1)))
    for first in (0, 2, 6):
        for of in (1, 3):
            flows = [
                source.shares(20, rng=np.random.default_rng(1), part=(i, of), first=first)
                for i in range(of)
            ]
            if source.n_samples is None:  # one pass at a time
                flows = [list(flow) for flow in flows]
            found = list(zip(*flows, strict=True))
            assert len(found) == len(whole) - first
            for parts, batch in zip(found, whole[first:], strict=True):
                assert {count for _, count in parts} == {len(batch)}
                np.testing.assert_array_equal(np.concatenate([p for p, _ in parts]), batch)


@pytest.mark.parametrize("seed", [None, 1])
def test_chunks_before_a_batch_are_not_read(seed):
    read = []

    def chunk(number):
        read.append(int(number))
        yield np.full((10, 1), number, dtype=np.float32)

    source = ChunkSource(chunk, [10] * 40, 1, np.float32, name="chunks", window_bytes=4 * 50)

    def rng():
        return None if seed is None else np.random.default_rng(seed)

    whole = list(source.batches(15, rng=rng()))
    order = list(read)
    read.clear()
    rest = [batch for batch, _ in source.shares(15, rng=rng(), first=20)]
    assert read == order[30:]  # batch 20 begins at row 300, and so does a window
    for one, other in zip(rest, whole[20:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_pass_draws_what_it_needs_as_it_is_asked_for(source):
    rng, other = np.random.default_rng(1), np.random.default_rng(1)
    source.shares(20, rng=rng)
    list(source.batches(20, rng=other))
    assert rng.bit_generator.state == other.bit_generator.state


@pytest.mark.parametrize("name", ["lognormal", "few long ones", "all 0", "one", "any magnitude"])
def test_norms_that_are_counted_say_what_listed_ones_say(name):
    rng = np.random.default_rng(0)
    norms = {
        "lognormal": np.exp(rng.normal(size=10_001)),
        "few long ones": np.r_[np.zeros(9), 1 + 0.1 * rng.random(5_000), np.full(200, 60.0)],
        "all 0": np.zeros(4),
        "one": np.ones(1),
        "any magnitude": np.array([1e-320, 1e-300, 1.0, 1e300]),
    }[name]
    listed, counted = norms_of(norms), _counted(iter(np.array_split(norms, 3)))
    if name != "any magnitude":  # quantiles of four numbers are other ones
        np.testing.assert_allclose(counted, listed, rtol=0.01)
    assert np.isfinite(counted).all()

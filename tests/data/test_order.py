"""Orders of rows: all of them once, by a list or by a key, whole or in parts."""

import numpy as np
import pytest

from shoal.data import open_source, order
from shoal.data.norms import _counted, norms_of
from shoal.data.order import Keyed, order_of


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
    found = order_of(50, np.random.default_rng(3))
    np.testing.assert_array_equal(found, np.random.default_rng(3).permutation(50))
    assert isinstance(order_of(order.LISTED + 1, np.random.default_rng(3)), Keyed)


@pytest.fixture(params=["array", "keyed", "view", "file", "chunks", "stream"])
def source(request, tmp_path, monkeypatch):
    rows = np.arange(206.0).reshape(103, 2)
    if request.param == "keyed":
        monkeypatch.setattr(order, "LISTED", 50)
    if request.param == "file":
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

"""Hostile files are refused in one line: no code, no network, no other file, little memory."""

import dataclasses
import socket
import sys
from pathlib import Path

import numcodecs
import numcodecs.registry
import numpy as np
import pytest
import zarr

from attacks import hostile, mutate
from shoal.data import open_source, validate
from shoal.data.readers import _base, _limits, npy
from shoal.vocabulary import ArgumentError, ShoalError, SourceError

MOST = 64 * 2**20


@pytest.fixture(autouse=True)
def mark(tmp_path, monkeypatch):
    """The file that appears if code was run; and no network."""
    monkeypatch.setenv(hostile.MARK, str(tmp_path / "code was run"))

    def refuse(*given, **named):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path / "code was run"


def _refused(spec, **options):
    with pytest.raises(ShoalError) as caught:
        validate(open_source(spec, **options))
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 2500
    return text


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", hostile.ATTACKS)
def test_hostile_files_are_refused(name, tmp_path, mark, monkeypatch):
    (home := tmp_path / "files").mkdir()
    monkeypatch.chdir(home)
    path = hostile.ATTACKS[name](home)
    size = 0
    if "\0" not in path.name and len(path.name) < 255:
        size = sum(each.lstat().st_size for each in [path, *path.rglob("*")])
    if sys.platform == "linux":
        mutate._peak()
        before = mutate._peak()
    _refused(path)
    assert not mark.exists()
    if sys.platform == "linux":
        assert mutate._peak() - before < 4 * size + MOST


def test_the_mark_would_be_seen(mark):
    import pickle

    pickle.loads(pickle.dumps(hostile.Evil()))
    assert mark.exists()


# --- Zarr's codecs ----------------------------------------------------------------------------

KNOWN = sorted({*numcodecs.registry.codec_registry, *numcodecs.registry.entries})
PLAIN = {
    "blosc", "zstd", "gzip", "zlib", "bz2", "lz4", "crc32", "crc32c", "adler32", "fletcher32",
    "shuffle", "delta", "fixedscaleoffset", "quantize", "bitround", "astype",
}  # fmt: skip
UNKNOWN = [word for word in KNOWN if word not in PLAIN] + ["pcodec", "zfpy", "msgpack2", "no-such"]


def test_the_list_of_codecs_is_whole():
    assert {"pickle", "json2", "msgpack2", "vlen-array", "categorize", "base64"} <= set(UNKNOWN)
    assert set(KNOWN) >= PLAIN


def _count_decoders(monkeypatch):
    """No codec may be made, still less asked to unpack."""
    made = []
    monkeypatch.setattr(numcodecs.registry, "get_codec", lambda *given, **named: made.append(given))
    return made


@pytest.mark.parametrize("codec", UNKNOWN)
@pytest.mark.parametrize("place", ["data", "dictionary", "codes", "other"])
def test_other_codecs_of_version_2_are_refused(codec, place, tmp_path, monkeypatch):
    made = _count_decoders(monkeypatch)
    for number, words in enumerate(
        (
            {"filters": [{"id": codec}]},
            {"filters": [{"id": "zlib"}, {"id": codec}]},
            {"compressor": {"id": codec}},
        )
    ):
        path = hostile.group_2(tmp_path / f"{number}.zarr")
        shape = {"data": (10, 4), "codes": (10, 3)}.get(place, (3, 4))
        if place == "data":
            path = tmp_path / f"{number}d.zarr"
            hostile.zarr_2(path, shape, body=bytes(160), **words)
        else:
            hostile.zarr_2(path / place, shape, body=bytes(160), **words)
            if place == "codes":
                hostile.zarr_2(path / "dictionary", (3, 4), body=bytes(48))
        assert f"the codec {codec!r}" in _refused(path)
    assert made == []


@pytest.mark.parametrize("codec", [*UNKNOWN, *(f"numcodecs.{word}" for word in UNKNOWN)])
def test_other_codecs_of_version_3_are_refused(codec, tmp_path):
    entry = {"name": codec, "configuration": {}}
    for number, codecs in enumerate(
        (
            [entry],
            [entry, hostile.BYTES],
            [hostile.BYTES, entry],
            [codec, hostile.BYTES],
            hostile.sharded([entry]),
            hostile.sharded([hostile.BYTES, entry]),
            hostile.sharded([hostile.BYTES], [hostile.BYTES, entry]),
            hostile.sharded([hostile.BYTES], [entry]),
            [*hostile.sharded([hostile.BYTES]), entry],
            hostile.sharded(hostile.sharded([hostile.BYTES, entry])),
        )
    ):
        path = hostile.zarr_3(tmp_path / f"{number}.zarr", codecs, body=bytes(160))
        assert "codec" in _refused(path) or codec in _refused(path)


@pytest.mark.parametrize(
    "words",
    [
        {"storage_transformers": [{"name": "x"}]},
        {"data_type": "string"},
        {"data_type": {"name": "struct", "configuration": {}}},
        {"data_type": "complex64"},
        {"chunk_grid": {"name": "rectangular"}},
        {"chunk_key_encoding": {"name": "../../etc"}},
        {"shape": [10, -4]},
        {"shape": [10.0, 4]},
        {"shape": "10"},
        {"node_type": "x"},
        {"zarr_format": 4},
    ],
)
def test_other_parts_of_version_3_are_refused(words, tmp_path):
    path = hostile.zarr_3(tmp_path / "a.zarr", [hostile.BYTES], body=bytes(160), **words)
    _refused(path)


def test_an_open_array_is_judged_as_a_folder_is(tmp_path):
    store = zarr.storage.MemoryStore()
    text = zarr.create_array(store, name="text", shape=(3, 2), dtype="str", zarr_format=2)
    assert "type" in _refused(text)
    rows = np.ones((20, 4), "f4")
    array = zarr.create_array(store, name="a", data=rows, chunks=(5, 4))
    np.testing.assert_array_equal(open_source(array).rows(range(20)), rows)
    zarr.core.sync.sync(store.delete("a/c/1/0"))
    assert "without its chunk c/1/0" in _refused(array)
    filled = open_source(array, missing="fill")
    assert (filled.rows(range(20)) == 0).all(axis=1).sum() == 5


def test_a_chunk_of_the_fill_value_alone_can_be_let_through(tmp_path):
    rows = np.ones((20, 4), "f4")
    rows[5:10] = 0
    zarr.create_array(tmp_path / "a.zarr", data=rows, chunks=(5, 4))  # leaves the zeros out
    assert "missing='fill'" in _refused(tmp_path / "a.zarr")
    np.testing.assert_array_equal(
        open_source(tmp_path / "a.zarr", missing="fill").rows(range(20)), rows
    )
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.create_array(tmp_path / "b.zarr", data=rows, chunks=(5, 4))
    np.testing.assert_array_equal(open_source(tmp_path / "b.zarr").rows(range(20)), rows)
    assert "'refuse', 'fill'" in _refused(tmp_path / "b.zarr", missing="zero")


# --- limits, names ----------------------------------------------------------------------------


def test_the_limit_of_memory_can_be_set(tmp_path, monkeypatch):
    rows = np.zeros((1000, 40))
    np.savez_compressed(tmp_path / "a.npz", data=rows)  # 320 kB
    zarr.create_array(tmp_path / "a.zarr", data=rows + 1, chunks=rows.shape)
    for name in ("a.npz", "a.zarr"):
        assert open_source(tmp_path / name).n_samples == 1000
        monkeypatch.setenv(_limits.VARIABLE, "100K")
        assert "at most 100 KiB" in _refused(tmp_path / name)
        monkeypatch.setenv(_limits.VARIABLE, "0.5 MiB")
        validate(open_source(tmp_path / name))
        monkeypatch.delenv(_limits.VARIABLE)
    monkeypatch.setenv(_limits.VARIABLE, "much")
    with pytest.raises(ArgumentError, match=r"^SHOAL_READ_LIMIT: found 'MUCH'"):
        open_source(tmp_path / "a.npz")


def test_what_packs_very_well_is_refused_unless_trusted(monkeypatch):
    monkeypatch.setattr(_limits, "available_memory", lambda: 2**40)
    _limits.check_room("a", 2**28, 1)  # small
    _limits.check_room("a", 2**32, 2**25)  # by a factor of 128
    with pytest.raises(SourceError, match=r"a of 4 MiB that unpacks to 4 GiB.*LIMIT=4G"):
        _limits.check_room("a", 2**32, 2**22)
    monkeypatch.setenv(_limits.VARIABLE, "4G")
    _limits.check_room("a", 2**32, 2**22)


def test_where_memory_ends_the_error_is_one_line(tmp_path, monkeypatch):
    def full(*given, **named):
        raise MemoryError

    np.save(tmp_path / "a.npy", np.ones((10, 3)))
    source = open_source(tmp_path / "a.npy")
    reader = dataclasses.replace(npy.READER, open=full, rank=-1)
    every = [reader, *_base.readers()]
    monkeypatch.setattr("shoal.data.readers.readers", lambda: every)
    with pytest.raises(SourceError, match=r"a.npy, which needs more memory than there is"):
        open_source(tmp_path / "a.npy")
    monkeypatch.setattr(source, "_fetch", full)
    for ask in (
        lambda: source.rows([1]),
        lambda: list(source.batches(2)),
        lambda: source.draw(2, np.random.default_rng(0)),
    ):
        with pytest.raises(SourceError, match=r"a.npy with rows of 3 numbers.*fit into memory"):
            ask()


@pytest.mark.parametrize(
    "spec",
    [
        "http://x.org/a.npy", "https://x.org", "s3://b/a.parquet", "gs://a/b.zarr",
        "file:///etc/passwd", "memory://a.zarr", "simplecache::s3://a/b.zarr",
        Path("http://x.org/a.npz"),
    ],
)  # fmt: skip
def test_urls_are_not_opened(spec):
    assert "URL" in _refused(spec)
    assert "fetch it first" in _refused(spec)


def test_names_in_files_reach_no_message_as_they_are(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    codes = "\x1b]0;title\x07\u202e\r" + "x" * 5000
    pq.write_table(pa.table({f"{codes}{i}": ["x"] for i in range(9)}), tmp_path / "a.parquet")
    assert r"\x1b]0;title\x07" in _refused(tmp_path / "a.parquet")
    np.savez(tmp_path / "b.npz", **{"\x1b[2J": np.ones(2), "b": np.ones(2)})
    assert r"\x1b[2J" in _refused(tmp_path / "b.npz")
    np.save(tmp_path / "c\x1b[2J.npy", np.ones((2, 2)))
    source = open_source(tmp_path / "c\x1b[2J.npy")
    assert source.name == r"c\x1b[2J.npy"


# --- files that change ------------------------------------------------------------------------

ROWS = np.random.default_rng(0).normal(size=(20_000, 8)).astype("f4")


def _written(path):
    if path.suffix == ".npy":
        np.save(path, ROWS)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({"data": ROWS}, path)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({f"c{i}": ROWS[:, i] for i in range(8)}), path, row_group_size=999)
    return path


@pytest.mark.parametrize("ending", ["npy", "safetensors", "parquet"])
@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_a_file_cut_while_it_is_read(ending, rng, tmp_path):
    path = _written(tmp_path / f"a.{ending}")
    source = open_source(path)
    flow = source.batches(100)
    next(flow)
    with path.open("r+b") as file:
        file.truncate(4096)
    for ask in (
        lambda: list(flow),
        lambda: list(source.batches(100, rng=rng)),
        lambda: source.rows([19_999]),
    ):
        with pytest.raises(SourceError, match=r"written to after it was opened, and cut from"):
            ask()


def test_a_memory_map_of_the_callers_that_is_cut(tmp_path):
    mapped = np.load(_written(tmp_path / "a.npy"), mmap_mode="r")
    source = open_source(mapped[5:])
    next(source.batches(100))
    with (tmp_path / "a.npy").open("r+b") as file:
        file.truncate(4096)
    with pytest.raises(SourceError, match=r"^data: found a.npy, whose file was cut from 640128"):
        source.rows([19_000])


@pytest.mark.parametrize("ending", ["npy", "safetensors", "parquet"])
def test_a_file_replaced_by_another_is_read_as_it_was_or_refused(ending, tmp_path):
    path = _written(tmp_path / f"a.{ending}")
    source = open_source(path)
    (other := tmp_path / "other").write_bytes(b"\0" * path.stat().st_size)
    other.replace(path)
    if ending == "parquet":
        with pytest.raises(SourceError, match="written to after it was opened"):
            source.rows([1])
    else:
        np.testing.assert_array_equal(source.rows([19_999]), ROWS[[19_999]])


# --- counting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [7, 9, 0])
def test_rows_are_counted(given):
    from shoal.data.access import ChunkSource

    def read(i):
        yield np.ones((4 if i else given // 2, 3))
        yield np.ones((4 if i else given - given // 2, 3))

    for window in (10**6, 1):
        source = ChunkSource(read, [8, 8], 3, np.float64, name="c", window_bytes=window)
        rows = f"{given} of 8" if given < 8 else "more than 8 of 8"
        for ask in (
            lambda source=source: source.rows(range(8)),
            lambda source=source: list(source.batches(4)),
            lambda source=source: list(source.batches(4, rng=np.random.default_rng(0))),
            lambda source=source: source.draw(16, np.random.default_rng(0)),
        ):
            with pytest.raises(SourceError, match=f"c, which gave {rows} rows from row 0 on"):
                ask()

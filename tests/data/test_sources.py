"""Every kind of source gives the rows it was made from, and leaves them alone."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from shoal.data import Source, open_source, validate
from shoal.data import access as access_module
from shoal.data.access import ChunkSource, RowSource, StreamSource
from shoal.vocabulary import ArgumentError, SourceError

# Some tables have a column of text; tests/data/test_tables.py asks what is said of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*left out of the features:UserWarning")

N, F = 3000, 5
ROWS = np.random.default_rng(7).normal(size=(N, F)).astype(np.float32)


def _memmap(folder):
    np.save(folder / "m.npy", ROWS)
    return np.load(folder / "m.npy", mmap_mode="r")


def _npy(folder):
    np.save(folder / "a.npy", ROWS)
    return str(folder / "a.npy")


def _npy_fortran(folder):
    np.save(folder / "f.npy", np.asfortranarray(ROWS))
    return folder / "f.npy"


def _npz(folder):
    np.savez_compressed(folder / "a.npz", data=ROWS, other=np.zeros(3))
    return folder / "a.npz"


def _safetensors(folder):
    save_file({"x": np.zeros(3, np.float32), "acts": ROWS}, folder / "a.safetensors")
    return folder / "a.safetensors"


def _parquet(folder):
    table = pa.table({f"c{i}": ROWS[:, i] for i in range(F)} | {"label": ["s"] * N})
    pq.write_table(table, folder / "a.parquet", row_group_size=700)
    return folder / "a.parquet"


def _parquet_list(folder):
    table = pa.table({"v": list(ROWS)}, schema=pa.schema([("v", pa.list_(pa.float32()))]))
    pq.write_table(table, folder / "l.parquet", row_group_size=700)
    return folder / "l.parquet"


def _parquet_fixed(folder):
    lists = pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), F)
    pq.write_table(pa.table({"v": lists, "id": range(N)}), folder / "x.parquet", row_group_size=700)
    return folder / "x.parquet"


def _zarr(folder):
    zarr.create_array(folder / "a.zarr", data=ROWS, chunks=(300, 2))
    return folder / "a.zarr"


def _zarr_group(folder):
    group = zarr.open_group(folder / "g.zarr", mode="w")
    group.create_array("data", data=ROWS, chunks=(128, F))
    group.create_array("label", data=np.zeros(N))
    return folder / "g.zarr"


def _loader(folder):
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(ROWS), torch.zeros(N))
    return torch.utils.data.DataLoader(dataset, batch_size=70)


SPECS = {
    "array": lambda folder: ROWS,
    "fortran": lambda folder: np.asfortranarray(ROWS),
    "strided": lambda folder: np.repeat(ROWS, 2, axis=0)[::2],
    "tensor": lambda folder: torch.from_numpy(ROWS),
    "tensor-grad": lambda folder: torch.from_numpy(ROWS).requires_grad_(),
    "memmap": _memmap,
    "npy": _npy,
    "npy-fortran": _npy_fortran,
    "npz": _npz,
    "safetensors": _safetensors,
    "parquet": _parquet,
    "parquet-list": _parquet_list,
    "parquet-fixed": _parquet_fixed,
    "zarr": _zarr,
    "zarr-group": _zarr_group,
    "zarr-open": lambda folder: zarr.open(_zarr(folder), mode="r"),
    "list": lambda folder: [ROWS[:100], ROWS[100:]],
    "tuples": lambda folder: [(ROWS[i : i + 9], i) for i in range(0, N, 9)],
    "generator": lambda folder: (ROWS[i : i + 33] for i in range(0, N, 33)),
    "factory": lambda folder: lambda: (torch.from_numpy(ROWS[i : i + 33]) for i in range(0, N, 33)),
    "loader": _loader,
}
FINITE = [name for name in SPECS if name not in ("generator", "factory", "loader")]
KEYS = {"parquet-fixed": "v"}


def _open(name, folder):
    return open_source(SPECS[name](folder), key=KEYS.get(name))


@pytest.mark.parametrize("name", SPECS)
def test_rows_in_order(name, tmp_path):
    source = _open(name, tmp_path)
    assert isinstance(source, Source)
    assert source.n_features == F
    assert source.dtype == np.float32
    assert source.n_samples == (N if name in FINITE else None)
    batches = list(source.batches(256))
    assert [len(batch) for batch in batches] == [256] * 11 + [184]
    for batch in batches:
        assert batch.flags.c_contiguous
        assert batch.flags.writeable
        assert batch.flags.owndata or batch.base is None
        assert batch.dtype == np.float32
    np.testing.assert_array_equal(np.concatenate(batches), ROWS)
    validate(source)


@pytest.mark.parametrize("name", FINITE)
def test_shuffled_epoch_is_a_reproducible_permutation(name, tmp_path):
    source = _open(name, tmp_path)

    def epoch(seed):
        batches = list(source.batches(256, rng=np.random.default_rng(seed)))
        assert [len(batch) for batch in batches] == [256] * 11 + [184]
        assert all(batch.flags.c_contiguous and batch.flags.writeable for batch in batches)
        return np.concatenate(batches)

    first = epoch(0)
    place = {row.tobytes(): i for i, row in enumerate(ROWS)}
    steps = np.diff([place[row.tobytes()] for row in first])
    assert (steps == 1).mean() < 0.05  # neighbours are parted, also within a chunk
    np.testing.assert_array_equal(np.sort(first[:, 0]), np.sort(ROWS[:, 0]))
    lookup = {row.tobytes() for row in ROWS}
    assert {row.tobytes() for row in first} == lookup
    np.testing.assert_array_equal(first, epoch(0))
    assert not np.array_equal(first, epoch(1))


@pytest.mark.parametrize("name", FINITE)
def test_rows_and_draw(name, tmp_path):
    source = _open(name, tmp_path)
    index = np.array([2999, 0, 1500, 0, 699, 700])
    np.testing.assert_array_equal(source.rows(index), ROWS[index])
    assert source.rows([]).shape == (0, F)
    drawn = source.draw(500, np.random.default_rng(0))
    assert drawn.flags.c_contiguous
    assert drawn.flags.writeable
    assert len({row.tobytes() for row in drawn} & {row.tobytes() for row in ROWS}) == 500
    np.testing.assert_array_equal(drawn, source.draw(500, np.random.default_rng(0)))


@pytest.mark.parametrize("bad", [[-1], [N], [[0]], [0.5]])
@pytest.mark.parametrize("name", ["array", "parquet"])
def test_wrong_indices(name, bad, tmp_path):
    with pytest.raises(ArgumentError, match=r"^indices: found"):
        _open(name, tmp_path).rows(bad)


def test_the_pass_draws_from_the_generator_at_the_call(tmp_path):
    for name in FINITE:
        source = _open(name, tmp_path / name) if (tmp_path / name).mkdir() is None else None
        rng = np.random.default_rng(3)
        source.batches(10, rng=rng)  # not read at all
        state = rng.bit_generator.state
        rng = np.random.default_rng(3)
        for _ in source.batches(10, rng=rng):
            pass
        assert rng.bit_generator.state == state
        assert np.random.default_rng(3).bit_generator.state != state


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_the_callers_array_is_neither_copied_nor_changed(kind, order):
    mine = np.array(ROWS, order=order)
    source = open_source(mine if kind == "array" else torch.from_numpy(mine))
    assert source.in_memory
    assert np.shares_memory(source.array, mine)
    for rng in (None, np.random.default_rng(0)):
        for batch in source.batches(64, rng=rng):
            batch[:] = -1
    source.draw(10, np.random.default_rng(0))[:] = -1
    source.rows([1, 2])[:] = -1
    np.testing.assert_array_equal(mine, ROWS)
    assert mine.flags.f_contiguous == (order == "F")


@pytest.mark.parametrize("name", ["list", "generator", "loader", "factory"])
def test_a_streams_batches_are_not_the_callers(name):
    mine = ROWS.copy()
    specs = {
        "list": [mine],
        "generator": iter([mine]),
        "loader": [torch.from_numpy(mine)],
        "factory": lambda: iter([mine]),
    }
    for batch in open_source(specs[name]).batches(N):
        batch[:] = 0
    np.testing.assert_array_equal(mine, ROWS)


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ("float16", "float32"),
        ("float32", "float32"),
        (">f4", "float32"),
        ("float64", "float64"),
        ("longdouble", "float64"),
        ("bool", "float32"),
        ("uint8", "float32"),
        ("int16", "float32"),
        ("int32", "float64"),
        ("int64", "float64"),
    ],
)
def test_types(stored, given, tmp_path):
    array = np.arange(6).reshape(3, 2).astype(stored)
    np.save(tmp_path / "t.npy", array)
    for source in (open_source(array), open_source(tmp_path / "t.npy"), open_source([array])):
        (batch,) = source.batches(10)
        assert source.dtype == batch.dtype == np.dtype(given)
        np.testing.assert_array_equal(batch, array.astype(given))


def test_bfloat16(tmp_path):
    tensor = torch.from_numpy(ROWS).bfloat16()
    save_tensors({"data": tensor}, tmp_path / "b.safetensors")
    expected = tensor.float().numpy()
    for spec in (tensor, tmp_path / "b.safetensors", [tensor]):
        source = open_source(spec)
        assert source.dtype == np.float32
        np.testing.assert_array_equal(np.concatenate(list(source.batches(999))), expected)
    np.testing.assert_array_equal(open_source(tensor).rows([5, 3]), expected[[5, 3]])
    assert open_source(tensor).tensor.dtype == torch.bfloat16


def test_parquet_keeps_float64_and_wide_integers(tmp_path):
    fine, wide = np.array([1 / 3, 2 / 3]), np.array([2**40 + 1, -(2**50) - 1])
    pq.write_table(pa.table({"a": fine, "b": wide}), tmp_path / "w.parquet")
    pq.write_table(pa.table({"v": [fine.tolist()]}), tmp_path / "v.parquet")
    (batch,) = open_source(tmp_path / "w.parquet").batches(2)
    np.testing.assert_array_equal(batch, np.column_stack([fine, wide]))
    np.testing.assert_array_equal(next(open_source(tmp_path / "v.parquet").batches(2))[0], fine)


def test_parquet_types_and_nulls(tmp_path):
    table = pa.table(
        {"a": pa.array([1, None, 3], pa.int16()), "b": [True, False, None], "s": ["x", "y", "z"]}
    )
    pq.write_table(table, tmp_path / "n.parquet")
    source = open_source(tmp_path / "n.parquet")
    (batch,) = source.batches(3)
    np.testing.assert_array_equal(batch, [[1, 1], [np.nan, 0], [3, np.nan]])
    with pytest.raises(ArgumentError, match=r"nan at row 1, column 0"):
        validate(source)


def test_only_the_needed_chunks_are_read():
    read = []

    def piece(i):
        read.append(int(i))
        yield ROWS[i * 100 : (i + 1) * 100]

    source = ChunkSource(piece, [100] * 30, F, np.float32, name="c", window_bytes=250 * F * 4)
    assert read == []
    flow = source.batches(50)
    next(flow)
    assert read == [0]
    source.rows([250, 2999, 251])
    assert read == [0, 2, 29]
    flow = source.batches(50, rng=np.random.default_rng(0))
    next(flow)
    assert len(read) == 3 + 3  # a window of 250 rows touches three chunks
    rest = 50 + sum(map(len, flow))
    assert rest == N
    assert sorted(read[3:]) == list(range(30))
    assert read[3:] != sorted(read[3:])


@pytest.mark.parametrize("name", ["parquet", "zarr"])
def test_files_are_read_as_they_are_needed(name, tmp_path, monkeypatch):
    source = _open(name, tmp_path)
    seen = []
    read = source._read
    monkeypatch.setattr(source, "_read", lambda i: (seen.append(len(p)) or p for p in read(i)))
    monkeypatch.setattr(source, "_window", 100)
    next(source.batches(10))
    next(source.batches(10, rng=np.random.default_rng(0)))
    assert 0 < sum(seen) < N
    assert max(seen) <= 1024


def test_mapped_files_are_not_in_memory(tmp_path):
    for name in ("npy", "memmap", "safetensors", "zarr", "parquet"):
        source = _open(name, tmp_path)
        assert not source.in_memory
        assert source.array is None
    assert open_source(_npz(tmp_path)).in_memory


def test_window_default_is_bounded():
    assert access_module.WINDOW_BYTES == 64 * 2**20
    source = ChunkSource(lambda i: iter(()), [10], 1000, np.float64, name="c")
    assert source._window == 64 * 2**20 // 8000


# --- streams ------------------------------------------------------------------------------


def test_a_generator_gives_one_pass_and_loses_nothing_to_draw():
    source = open_source(ROWS[i : i + 33] for i in range(0, N, 33))
    head = source.draw(50, np.random.default_rng(0))
    np.testing.assert_array_equal(head, ROWS[:50])
    np.testing.assert_array_equal(source.draw(70, np.random.default_rng(0)), ROWS[:70])
    np.testing.assert_array_equal(np.concatenate(list(source.batches(64))), ROWS)
    with pytest.raises(SourceError, match=r"^source: found stream, which can be read only once"):
        source.batches(64)


@pytest.mark.parametrize("name", ["factory", "loader"])
def test_other_streams_can_be_read_again(name, tmp_path):
    source = _open(name, tmp_path)
    assert isinstance(source, StreamSource)
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(source.batches(64))), ROWS)
        np.testing.assert_array_equal(source.draw(50, np.random.default_rng(0)), ROWS[:50])
        np.testing.assert_array_equal(np.concatenate(list(source.batches(64))), ROWS)


def test_an_endless_stream():
    def endless():
        while True:
            yield ROWS[:10]

    source = open_source(endless)
    flow = source.batches(25)
    np.testing.assert_array_equal(next(flow), np.tile(ROWS[:10], (3, 1))[:25])


def test_a_reused_buffer():
    def flow():
        buffer = np.empty((10, F), np.float32)
        for i in range(0, N, 10):
            buffer[:] = ROWS[i : i + 10]
            yield buffer

    source = open_source(flow)
    np.testing.assert_array_equal(source.draw(95, np.random.default_rng(0)), ROWS[:95])
    np.testing.assert_array_equal(np.concatenate(list(source.batches(64))), ROWS)


def test_stream_batches_are_checked_as_they_come():
    bad = ROWS[:40].copy()
    bad[33, 2] = np.inf
    source = open_source(lambda: iter([ROWS[:40], bad]))
    validate(source)
    flow = source.batches(40)
    next(flow)
    with pytest.raises(ArgumentError, match=r"^source: found inf at row 73, column 2 of stream"):
        next(flow)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "without rows"),
        ([np.empty((0, 3))], "without rows"),
        (iter([np.zeros(3)]), r"a batch of shape \(3,\)"),
        (iter([[1.0, 2.0]]), "a batch that is a float"),
        ([[1.0, 2.0], [1.0]], "a list of list"),
        ([np.zeros(3), np.zeros(2)], "a list of ndarray"),
        ([{"x": 1}], "a batch that is a dict"),
        ([np.zeros((3, 0))], r"a batch of shape \(3, 0\)"),
        ([np.array([["a"]])], "dtype <U1"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "4 columns in batch 1"),
    ],
)
def test_bad_streams(batches, message):
    with pytest.raises(SourceError, match=f"^source: found.*{message}"):
        list(open_source(batches).batches(2))


def test_a_factory_that_is_spent_or_no_factory():
    spent = iter([ROWS[:5]])
    source = open_source(lambda: spent)
    list(source.batches(5))
    with pytest.raises(SourceError, match=r"gave nothing when read again"):
        list(source.batches(5))
    with pytest.raises(SourceError, match=r"a function that returned a int"):
        open_source(lambda: 3)


def test_draw_more_than_there_is():
    for spec in (ROWS[:5], [ROWS[:5]]):
        with pytest.raises(ArgumentError, match=r"^n: found 6"):
            open_source(spec).draw(6, np.random.default_rng(0))


# --- truth, keys, images --------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["npz", "safetensors", "zarr"])
def test_truth(ending, tmp_path):
    arrays = {"data": ROWS, "dictionary": np.eye(F)[:4], "codes": np.ones((N, 4), np.float32)}
    path = tmp_path / f"t.{ending}"
    if ending == "npz":
        np.savez(path, **arrays)
    elif ending == "safetensors":
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)
    else:
        group = zarr.open_group(path, mode="w")
        for word, array in arrays.items():
            group.create_array(word, data=array)
    truth = open_source(path).truth
    np.testing.assert_array_equal(truth.dictionary, arrays["dictionary"])
    np.testing.assert_array_equal(truth.codes, arrays["codes"])
    assert open_source(ROWS).truth is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dictionary": np.eye(4)}, r"dictionary of shape \(4, 4\).*\(n_atoms, 5\)"),
        ({"dictionary": np.ones(5)}, r"dictionary of shape \(5,\)"),
        ({"codes": np.ones((N - 1, 5))}, r"codes of shape \(2999, 5\).*\(3000, 5\)"),
        ({"codes": np.ones((N, 4))}, r"codes of shape \(3000, 4\)"),
        ({"dictionary": np.full((5, 5), np.nan)}, "dictionary in t.npz with NaN"),
    ],
)
def test_inconsistent_truth(change, message, tmp_path):
    arrays = {"data": ROWS, "dictionary": np.eye(F), "codes": np.ones((N, F))} | change
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(SourceError, match=f"^source: found {message}"):
        open_source(tmp_path / "t.npz")


def test_keys(tmp_path):
    np.savez(tmp_path / "k.npz", a=ROWS, b=2 * ROWS)
    np.testing.assert_array_equal(open_source(tmp_path / "k.npz", key="b").array, 2 * ROWS)
    with pytest.raises(SourceError, match=r"holds a, b; needed an array named data, or key="):
        open_source(tmp_path / "k.npz")
    with pytest.raises(ArgumentError, match=r"^key: found 'c'; needed one of .*: a, b"):
        open_source(tmp_path / "k.npz", key="c")
    np.savez(tmp_path / "one.npz", ROWS)
    np.testing.assert_array_equal(open_source(tmp_path / "one.npz").array, ROWS)
    with pytest.raises(SourceError, match=r"1 list columns; needed key= one of v, id"):
        open_source(_parquet_fixed(tmp_path))
    with pytest.raises(ArgumentError, match=r"^key: found 'c9'; needed one of the columns"):
        open_source(_parquet(tmp_path), key="c9")
    assert open_source(_parquet(tmp_path), key="c1").n_features == 1
    with pytest.raises(ArgumentError, match=r"^key: found 'x'; needed to be left out"):
        open_source(_zarr(tmp_path), key="x")


def test_images_folder(tmp_path):
    rng = np.random.default_rng(0)
    pictures = {
        "a.png": rng.integers(0, 256, (40, 30), dtype=np.uint8),
        "sub/b.bmp": rng.integers(0, 256, (25, 50, 3), dtype=np.uint8),
        "c.tif": rng.integers(0, 65536, (30, 30), dtype=np.uint16),
    }
    (tmp_path / "sub").mkdir()
    (tmp_path / "notes.txt").write_text("not an image")
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(tmp_path / name)
    source = open_source(tmp_path, patch_size=8, n_patches=300, random_state=4)
    assert (source.n_samples, source.feature_shape, source.dtype) == (300, (8, 8), np.float32)
    assert source.name == tmp_path.name
    grey = {
        "a": pictures["a.png"] / 255,
        "b": pictures["sub/b.bmp"] @ np.array([0.299, 0.587, 0.114]) / 255,
        "c": pictures["c.tif"] / 65535,
    }
    known = {}
    for name, level in grey.items():
        windows = np.lib.stride_tricks.sliding_window_view(level.astype(np.float32), (8, 8))
        known |= {w.tobytes(): name for w in windows.reshape(-1, 64)}
    origin = [known[row.tobytes()] for row in source.array]
    assert set(origin) == {"a", "b", "c"}
    assert len({row.tobytes() for row in source.array}) == 300  # distinct positions
    again = open_source(tmp_path, patch_size=8, n_patches=300, random_state=4)
    np.testing.assert_array_equal(source.array, again.array)
    one = open_source(tmp_path / "a.png", patch_size=40 - 10, n_patches=2)
    assert one.n_features == 900
    with pytest.warns(UserWarning, match=r"smaller than a patch passed over: b.bmp \(25 x 50\)"):
        assert open_source(tmp_path, patch_size=26, n_patches=9).n_samples == 9
    with pytest.raises(SourceError, match=r"b.bmp \(25 x 50\); needed at least 26 x 26 pixels"):
        open_source(tmp_path / "sub" / "b.bmp", patch_size=26)
    with pytest.raises(ArgumentError, match=r"^n_patches: found 100000; needed at most"):
        open_source(tmp_path, patch_size=8, n_patches=100_000)


@pytest.mark.parametrize("bad", [0, -1, 1.5])
@pytest.mark.parametrize("option", ["patch_size", "n_patches"])
def test_wrong_patch_options(option, bad, tmp_path):
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ArgumentError, match=f"^{option}: found {bad}"):
        open_source(tmp_path, **{"n_patches": 5, option: bad})


def test_a_path_without_a_name(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert open_source(".", n_patches=5).name == tmp_path.name


def test_feature_shape():
    assert open_source(ROWS, feature_shape=(5, 1)).feature_shape == (5, 1)
    with pytest.raises(ArgumentError, match=r"^feature_shape: found \(2, 2\)"):
        open_source(ROWS, feature_shape=(2, 2))


# --- what can't be opened -------------------------------------------------------------------


def test_a_source_is_returned_as_it_is():
    source = open_source(ROWS)
    assert open_source(source) is source
    assert isinstance(source, RowSource)
    with pytest.raises(ArgumentError, match=r"^batch_size: found 0"):
        source.batches(0)


def _bad_arrays():
    masked = np.ma.masked_array(ROWS, mask=ROWS > 0)
    return {
        "1-d": (np.zeros(3), r"array of shape \(3,\); needed a 2-d array"),
        "no-rows": (np.zeros((0, 3)), "array with 0 rows"),
        "no-columns": (np.zeros((3, 0)), "array with 0 columns"),
        "object": (np.array([[{}, 1]], dtype=object), "array of dtype object"),
        "complex": (np.zeros((2, 2), complex), "array of dtype complex128"),
        "text": (np.array([["a"]]), "array of dtype <U1"),
        "masked": (masked, "a masked array"),
        "tensor-1-d": (torch.zeros(3), r"tensor of shape \(3,\)"),
        "bfloat-1-d": (torch.zeros(3).bfloat16(), r"tensor of shape \(3,\)"),
        "tensor-empty": (torch.zeros(0, 3).bfloat16(), "tensor with 0 rows"),
        "tensor-complex": (torch.zeros(3, 2, dtype=torch.complex64), "a tensor of torch.complex64"),
        "tensor-float8": (torch.zeros(2, 2).to(torch.float8_e4m3fn), "a tensor of torch.float8"),
        "tensor-sparse-bf": (torch.eye(3).bfloat16().to_sparse(), "a tensor of torch.bfloat16"),
        "tensor-sparse": (torch.eye(3).to_sparse(), "a tensor of torch.float32, torch.sparse_coo"),
    }


@pytest.mark.parametrize("name", _bad_arrays())
def test_bad_arrays(name):
    array, message = _bad_arrays()[name]
    with pytest.raises(SourceError, match=f"^data: found {message}") as caught:
        open_source(array)
    assert "\n" not in str(caught.value)


def test_not_finite():
    bad = ROWS.copy()
    bad[2500, 3] = np.nan
    with pytest.raises(ArgumentError, match=r"^data: found nan at row 2500, column 3 of array"):
        validate(open_source(bad), batch_size=64)


def _cut(path, keep=0.6):
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    return path


def _write(path, raw):
    path.write_bytes(raw)
    return path


def _object_npy(folder):
    np.save(folder / "o.npy", np.array([[{}, 1]], dtype=object))
    return folder / "o.npy"


def _object_npz(folder):
    np.savez(folder / "o.npz", data=np.array([[{}, 1]], dtype=object))
    return folder / "o.npz"


def _save(folder, name, array):
    np.save(folder / name, array)
    return folder / name


def _folder(path):
    path.mkdir()
    return path


def _ragged_parquet(folder):
    table = pa.table({"v": [[1.0, 2.0], [3.0]]})
    pq.write_table(table, folder / "r.parquet")
    return folder / "r.parquet"


def _text_parquet(folder):
    pq.write_table(pa.table({"s": ["a", "b"]}), folder / "s.parquet")
    return folder / "s.parquet"


def _no_rows_parquet(folder):
    pq.write_table(pa.table({"a": pa.array([], pa.float32())}), folder / "z.parquet")
    return folder / "z.parquet"


def _float8(folder):
    save_tensors({"data": torch.zeros(2, 2).to(torch.float8_e4m3fn)}, folder / "8.safetensors")
    return folder / "8.safetensors"


def _two_matrices(folder):
    save_file({"a": ROWS, "b": ROWS}, folder / "2.safetensors")
    return folder / "2.safetensors"


BAD_FILES = {
    "missing": (lambda d: d / "no.npy", "no file at"),
    "ending": (lambda d: _write(d / "a.xls", b"1,2"), r"the ending '.xls'.*\.npy \.npz"),
    "no-ending": (lambda d: _write(d / "data", b"1,2"), "the ending ''"),
    "empty-folder": (lambda d: _folder(d / "f"), "a folder without images"),
    "empty-zarr": (lambda d: _folder(d / "f.zarr"), "f.zarr, which can't be read"),
    "zarr-file": (lambda d: _write(d / "f.zarr", b"x"), "f.zarr, which can't be read"),
    **{
        f"empty{ending}": (lambda d, e=ending: _write(d / f"e{e}", b""), r"e\..*empty \(0 bytes\)")
        for ending in (".npy", ".npz", ".safetensors", ".parquet")
    },
    "cut-npy": (lambda d: _cut(d / "a.npy") if _npy(d) else None, "a.npy cut off at .* bytes"),
    "cut-npy-header": (lambda d: _write(d / "h.npy", b"\x93NUMPY\x01"), "h.npy, which can't"),
    "cut-npz": (lambda d: _cut(_npz(d)), "a.npz, which can't be read"),
    "cut-safetensors": (lambda d: _cut(_safetensors(d)), "a.safetensors, which can't be read"),
    "cut-parquet": (lambda d: _cut(_parquet(d)), "a.parquet, which can't be read"),
    "npz-as-npy": (lambda d: _npz(d).rename(d / "n.npy"), "n.npy, which is a zip or .npz file"),
    "parquet-as-npz": (lambda d: _parquet(d).rename(d / "p.npz"), "p.npz, which is Parquet"),
    "text-as-npy": (lambda d: _write(d / "t.npy", b"hello"), "t.npy, which starts b'hello'"),
    "text-as-safetensors": (lambda d: _write(d / "t.safetensors", b"hello" * 9), "t.safetensors"),
    "text-as-parquet": (lambda d: _write(d / "t.parquet", b"hello"), "t.parquet, which starts"),
    "text-as-png": (lambda d: _write(d / "t.png", b"hello"), "t.png, which can't be read"),
    "object-npy": (_object_npy, "o.npy of dtype object"),
    "object-npz": (_object_npz, "data in o.npz of dtype object"),
    "1-d-npy": (lambda d: _save(d, "1.npy", np.zeros(3)), r"1.npy of shape \(3,\)"),
    "no-rows-npy": (lambda d: _save(d, "0.npy", np.zeros((0, 3))), "0.npy with 0 rows"),
    "complex-npy": (lambda d: _save(d, "c.npy", np.zeros((2, 2), complex)), "c.npy of dtype comp"),
    "float8": (_float8, "data of dtype F8_E4M3"),
    "two-matrices": (_two_matrices, "2.safetensors that holds a, b"),
    "text-parquet": (_text_parquet, "s.parquet with columns s; needed numeric columns"),
    "no-rows-parquet": (_no_rows_parquet, "z.parquet with 0 rows"),
    "ragged-parquet": (_ragged_parquet, "1 values in a row of v.*needed 2 values"),
    "unknown-sample": (lambda d: "sample:cats", "'sample:cats'; needed one of sample:patches, sa"),
    "a-number": (lambda d: 3, "a int; needed an array, tensor, path"),
    "none": (lambda d: None, "a NoneType"),
    "a-dict": (lambda d: {"data": ROWS}, "a dict"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_what_cannot_be_opened(name, tmp_path):
    make, message = BAD_FILES[name]
    spec = make(tmp_path)
    with pytest.raises(SourceError, match=f"^source: found .*{message}") as caught:
        validate(open_source(spec))
    assert "\n" not in str(caught.value)
    if "can't be read" in str(caught.value):
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize(("module", "ending"), [("pyarrow", "parquet"), ("zarr", "zarr")])
def test_a_missing_extra_is_named(module, ending, tmp_path, monkeypatch):
    for name in [module, *(n for n in sys.modules if n.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=rf'{module} isn\'t installed.*"shoal\[{ending}\]"'):
        open_source(path)


@pytest.mark.parametrize(
    ("spec", "option"),
    [
        (ROWS, {"key": "x"}),
        (open_source(ROWS), {"key": "x"}),
        (ROWS, {"patch_size": 3}),
        ("sample:digits", {"patch_size": 3}),
        ("sample:patches", {"key": "x"}),
        ([ROWS], {"n_patches": 3}),
    ],
)
def test_options_without_meaning_are_refused(spec, option):
    (word,) = option
    with pytest.raises(ArgumentError, match=f"^{word}: found .*needed to be left out"):
        open_source(spec, **option)


def test_import_is_light():
    code = "import sys, shoal.data; print([m for m in ('torch', 'sklearn', 'zarr', 'pyarrow', \
'PIL', 'safetensors', 'scipy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"

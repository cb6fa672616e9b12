"""Files made to run code, to hang or to take the memory: one function each.

    python -m tests.attacks.hostile FOLDER

Each takes a folder, writes one file (or folder) into it and gives its path. `MARK` is the
environment variable that names the file which appears if code was run.
"""

from __future__ import annotations

import bz2
import gzip
import json
import os
import pickle
import socket
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

MARK = "SHOAL_ATTACK_MARK"
ATTACKS: dict[str, Callable[[Path], Path]] = {}


def attack(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """Add to the table, under the function's name."""
    ATTACKS[make.__name__.strip("_")] = make
    return make


class Evil:
    """What a pickle runs."""

    def __reduce__(self) -> tuple:
        return exec, (f"import os; open(os.environ[{MARK!r}], 'w').close()",)


# --- NumPy's files ----------------------------------------------------------------------------


def npy(shape: tuple[int, ...], body: bytes, dtype: str = "<f8") -> bytes:
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def _npz(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return path


def _file(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


@attack
def npy_declares_16_gb(folder):
    return _file(folder / "a.npy", npy((10**8, 20), bytes(400)))


@attack
def npy_of_a_negative_side(folder):
    return _file(folder / "a.npy", npy((-1, 4), bytes(400)))


@attack
def npy_of_a_side_that_overflows(folder):
    return _file(folder / "a.npy", npy((2**62, 4), bytes(400)))


@attack
def npy_declares_fewer_rows_than_it_holds(folder):
    return _file(folder / "a.npy", npy((3, 4), bytes(400)))


@attack
def npy_with_a_pickle(folder):
    return _file(folder / "a.npy", npy((1, 1), pickle.dumps(Evil()), "|O"))


@attack
def npy_with_a_header_of_4_gb(folder):
    return _file(folder / "a.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b" " * 99)


@attack
def npz_declares_16_gb(folder):
    return _npz(folder / "a.npz", {"data.npy": npy((10**8, 20), bytes(400))})


@attack
def npz_stored_declares_16_gb(folder):
    members = {"data.npy": npy((10**8, 20), bytes(400))}
    return _npz(folder / "a.npz", members, zipfile.ZIP_STORED)


@attack
def npz_truth_declares_16_gb(folder):
    members = {"data.npy": npy((5, 20), bytes(800)), "dictionary.npy": npy((10**8, 20), b"1" * 9)}
    return _npz(folder / "a.npz", members)


@attack
def npz_unpacks_to_320_mb(folder):
    with (
        zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("data.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy((5 * 2**20, 8), b""))
        for _ in range(20):
            member.write(bytes(2**24))
    return folder / "a.npz"


@attack
def npz_with_a_header_that_unpacks(folder):
    raw = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**30) + b" " * 2**26
    return _npz(folder / "a.npz", {"data.npy": raw})


@attack
def npz_with_two_arrays_of_one_name(folder):
    with warnings.catch_warnings(), zipfile.ZipFile(folder / "a.npz", "w") as archive:
        warnings.simplefilter("ignore")
        for value in (b"\0", b"\1"):
            archive.writestr("data.npy", npy((2, 2), value * 32))
    return folder / "a.npz"


@attack
def npz_packed_by_lzma(folder):
    return _npz(folder / "a.npz", {"data.npy": npy((2**18, 8), bytes(2**24))}, zipfile.ZIP_LZMA)


@attack
def npz_of_20_000_members(folder):
    return _npz(folder / "a.npz", {f"{i}.npy": b"" for i in range(20_000)}, zipfile.ZIP_STORED)


@attack
def npz_with_a_pickle(folder):
    return _npz(folder / "a.npz", {"data.npy": npy((1, 1), pickle.dumps(Evil()), "|O")})


@attack
def npz_whose_truth_is_a_pickle(folder):
    members = {"data.npy": npy((5, 2), bytes(80))}
    return _npz(
        folder / "a.npz", members | {"dictionary.npy": npy((3, 2), pickle.dumps(Evil()), "|O")}
    )


@attack
def npz_member_that_says_it_unpacks_to_more(folder):
    path = _npz(folder / "a.npz", {"data.npy": npy((10**8, 20), bytes(400))})
    raw = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at += raw.rfind(mark)
        raw[at : at + 4] = struct.pack("<I", 2**32 - 2)
    return _file(path, bytes(raw))


def _sparse(form: str, **parts: list) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        arrays = {word: np.array(part) for word, part in parts.items()}
        np.savez(folder / "a.npz", format=form, shape=np.array([10**11, 8]), **arrays)
        return folder / "a.npz"

    make.__name__ = f"npz_of_a_sparse_{form}_array_of_10_to_the_11_rows"
    return attack(make)


_sparse("coo", data=[1.0], row=[0], col=[0])
_sparse("csc", data=[1.0], indices=[0], indptr=[0] + [1] * 8)
_sparse("dia", data=[[1.0]], offsets=[0])


# --- safetensors ------------------------------------------------------------------------------


def _tensors(folder: Path, header: object, body: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = struct.pack("<Q", len(raw) if length is None else length)
    return _file(folder / "a.safetensors", size + raw + body)


def _tensor(shape: list[int], begin: int = 0, end: int = 400) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


@attack
def safetensors_with_a_header_of_8_exabytes(folder):
    return _tensors(folder, b"{}", length=2**63)


@attack
def safetensors_declares_more_than_it_holds(folder):
    return _tensors(folder, {"data": _tensor([10**8, 64])}, bytes(400))


@attack
def safetensors_whose_tensors_overlap(folder):
    return _tensors(folder, {"data": _tensor([10, 10]), "b": _tensor([10, 10])}, bytes(400))


@attack
def safetensors_with_a_nested_header(folder):
    return _tensors(folder, b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}")


@attack
def safetensors_of_50_000_tensors(folder):
    return _tensors(folder, {str(i): _tensor([0], 0, 0) for i in range(50_000)})


# --- Parquet ----------------------------------------------------------------------------------


def _table(path: Path, columns: dict[str, object], **options: object) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path, **options)
    return path


@attack
def parquet_with_a_pickled_type(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = {b"ARROW:extension:name": b"arrow.py_extension_type"}
    words[b"ARROW:extension:metadata"] = pickle.dumps(Evil())
    field = pa.field("a", pa.binary(), metadata=words)
    pq.write_table(pa.table([pa.array([b"x"])], pa.schema([field])), folder / "a.parquet")
    return folder / "a.parquet"


@attack
def parquet_footer_of_4_gb(folder):
    path = _table(folder / "a.parquet", {"a": np.zeros(9)})
    raw = path.read_bytes()
    return _file(path, raw[:-8] + struct.pack("<I", 2**32 - 1) + b"PAR1")


@attack
def parquet_declares_more_rows_than_its_pages(folder):
    path = _table(folder / "a.parquet", {"a": np.arange(48.0), "b": np.arange(48.0)})
    raw = path.read_bytes()
    length = int.from_bytes(raw[-8:-4], "little")
    start = len(raw) - 8 - length
    # 48 as Thrift writes it is 96, of 2 in front as 64-bit field: everywhere to 63.
    footer = raw[start:-8].replace(b"\x16\x60", b"\x16\x7e")
    return _file(path, raw[:start] + footer + raw[-8:])


@attack
def parquet_row_of_a_thousand_million(folder):
    path = _table(folder / "a.parquet", {"v": [[0.0] * 10**5]}, compression="zstd")
    raw = path.read_bytes()
    # 100 000 values, everywhere to 2**30
    return _file(path, raw.replace(b"\xc0\x9a\x0c", b"\x80\x80\x80\x80\x08"))


# --- Zarr -------------------------------------------------------------------------------------


def zarr_2(folder: Path, shape=(10, 4), chunks=None, body: bytes | None = None, **words) -> Path:
    """A version-2 array, written by hand."""
    folder.mkdir(parents=True)
    described = {
        "zarr_format": 2, "shape": shape, "chunks": chunks or shape, "dtype": "<f4", "order": "C",
        "fill_value": 0, "filters": None, "compressor": None, **words,
    }  # fmt: skip
    (folder / ".zarray").write_text(json.dumps(described))
    if body is not None:
        (folder / ".".join("0" for _ in shape)).write_bytes(body)
    return folder


def zarr_3(folder: Path, codecs: list, shape=(10, 4), body: bytes | None = None, **words) -> Path:
    """A version-3 array, written by hand."""
    folder.mkdir(parents=True)
    described = {
        "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0, "codecs": codecs, "attributes": {}, **words,
    }  # fmt: skip
    (folder / "zarr.json").write_text(json.dumps(described))
    if body is not None:
        (folder / "c/0").mkdir(parents=True)
        (folder / "c/0/0").write_bytes(body)
    return folder


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


def sharded(codecs: list, index: list | None = None) -> list:
    """Codecs of a version-3 array within shards."""
    words = {"chunk_shape": [5, 4], "codecs": codecs, "index_codecs": index or [BYTES]}
    return [{"name": "sharding_indexed", "configuration": words}]


def group_2(folder: Path) -> Path:
    """A version-2 group with good data."""
    folder.mkdir()
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    zarr_2(folder / "data", body=np.ones((10, 4), "f4").tobytes())
    return folder


_OBJECTS = {"dtype": "|O", "fill_value": ""}
_PICKLES = [{"id": "vlen-utf8"}, {"id": "pickle"}]


@attack
def zarr_whose_truth_is_a_pickle(folder):
    path = group_2(folder / "a.zarr")
    zarr_2(path / "dictionary", (4, 4), body=pickle.dumps(Evil()), **_OBJECTS, filters=_PICKLES)
    return path


@attack
def zarr_whose_truth_is_packed_by_pickle(folder):
    path = group_2(folder / "a.zarr")
    words = _OBJECTS | {"filters": [{"id": "vlen-utf8"}], "compressor": {"id": "pickle"}}
    zarr_2(path / "dictionary", (4, 4), body=pickle.dumps(Evil()), **words)
    return path


@attack
def zarr_beside_a_pickle_that_is_not_used(folder):
    path = group_2(folder / "a.zarr")
    zarr_2(path / "names", (4,), body=pickle.dumps(Evil()), **_OBJECTS, filters=_PICKLES)
    return path


@attack
def zarr_that_is_a_pickle(folder):
    words = {"filters": [{"id": "pickle"}]}
    return zarr_2(folder / "a.zarr", body=pickle.dumps(Evil()), **words)


@attack
def zarr_whose_summary_is_a_pickle(folder):
    path = group_2(folder / "a.zarr")
    good = json.loads((path / "data/.zarray").read_text())
    metadata = {".zgroup": {"zarr_format": 2}, "data/.zarray": good | {"filters": _PICKLES}}
    (path / "data/0.0").write_bytes(pickle.dumps(Evil()))
    summary = {"zarr_consolidated_format": 1, "metadata": metadata}
    (path / ".zmetadata").write_text(json.dumps(summary))
    return path


@attack
def zarr_of_a_delta_of_objects(folder):
    words = {"filters": [{"id": "delta", "dtype": "<f4", "astype": "|O"}]}
    return zarr_2(folder / "a.zarr", body=bytes(160), **words)


@attack
def zarr_of_structures(folder):
    return zarr_2(folder / "a.zarr", body=bytes(320), dtype=[["a", "<f4"], ["b", "|O"]])


@attack
def zarr_packed_twice(folder):
    packed = zlib.compress(zlib.compress(bytes(2**27)))
    words = {"filters": [{"id": "zlib"}], "compressor": {"id": "zlib"}}
    return zarr_2(folder / "a.zarr", body=packed, **words)


@attack
def zarr_with_a_word_that_zlib_has_not(folder):
    words = {"compressor": {"id": "zlib", "level": 1, "wbits": 9}}
    return zarr_2(folder / "a.zarr", body=zlib.compress(bytes(160)), **words)


@attack
def zarr_without_data_declares_24_gb(folder):
    return zarr_2(folder / "a.zarr", (10**8, 64))


@attack
def zarr_of_10_to_the_15_rows(folder):
    return zarr_2(folder / "a.zarr", (10**15, 64), (10, 64))


@attack
def zarr_of_10_to_the_15_columns(folder):
    return zarr_2(folder / "a.zarr", (10, 10**15), (10, 4))


def _packed(codec: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import numcodecs

        zeros = np.zeros(2**25)
        plain = {"gzip": gzip.compress, "zlib": zlib.compress, "bz2": bz2.compress}
        raw = (
            plain[codec](zeros)
            if codec in plain
            else numcodecs.get_codec({"id": codec}).encode(zeros)
        )
        return zarr_2(folder / "a.zarr", (100, 64), body=bytes(raw), compressor={"id": codec})

    make.__name__ = f"zarr_{codec}_unpacks_to_128_mb"
    return attack(make)


for _codec in ("gzip", "zlib", "bz2", "zstd", "lz4", "blosc"):
    _packed(_codec)


@attack
def zarr_shard_whose_chunk_unpacks_to_128_mb(folder):
    raw = gzip.compress(bytes(2**27), 1)
    index = struct.pack("<4Q", 0, len(raw), 0, len(raw))
    codecs = sharded([BYTES, {"name": "gzip", "configuration": {"level": 5}}])
    return zarr_3(folder / "a.zarr", codecs, body=raw + index)


@attack
def zarr_shard_whose_chunk_lies_outside(folder):
    index = struct.pack("<4Q", 0, 80, 2**40, 80)
    return zarr_3(folder / "a.zarr", sharded([BYTES]), body=bytes(160) + index)


@attack
def zarr_shard_with_a_chunk_lost(folder):
    index = struct.pack("<4Q", 0, 80, 2**64 - 1, 2**64 - 1)
    return zarr_3(folder / "a.zarr", sharded([BYTES]), body=b"1" * 80 + index)


@attack
def zarr_with_a_chunk_lost(folder):
    return zarr_2(folder / "a.zarr", (20, 4), (10, 4), body=b"1" * 160)


@attack
def zarr_with_a_chunk_outside(folder):
    path = zarr_2(folder / "a.zarr", body=b"1" * 160)
    return _file(path / "1.0", b"1" * 160).parent


@attack
def zarr_with_numbers_beyond_its_shape(folder):
    return zarr_2(folder / "a.zarr", (9, 4), (10, 4), body=b"1" * 160)


@attack
def zarr_group_with_a_description_lost(folder):
    path = group_2(folder / "a.zarr")
    zarr_2(path / "dictionary", (4, 4), body=bytes(64))
    (path / "data/.zarray").unlink()
    return path


@attack
def zarr_whose_chunk_is_a_link(folder):
    path = zarr_2(folder / "a.zarr")
    _file(folder / "other", bytes(160))
    (path / "0.0").symlink_to(folder / "other")
    return path


@attack
def zarr_whose_array_is_a_link(folder):
    path = group_2(folder / "a.zarr")
    zarr_2(folder / "elsewhere", (4, 4), body=bytes(64))
    (path / "dictionary").symlink_to(folder / "elsewhere")
    return path


@attack
def zarr_whose_chunk_is_a_fifo(folder):
    path = zarr_2(folder / "a.zarr")
    os.mkfifo(path / "0.0")
    return path


@attack
def zarr_whose_description_is_a_fifo(folder):
    (folder / "a.zarr").mkdir()
    os.mkfifo(folder / "a.zarr/zarr.json")
    return folder / "a.zarr"


@attack
def zarr_whose_chunk_is_dev_zero(folder):
    path = zarr_2(folder / "a.zarr")
    (path / "0.0").symlink_to("/dev/zero")
    return path


@attack
def zarr_that_is_a_list_of_other_files(folder):
    refs = {".zgroup": '{"zarr_format": 2}', "data/0.0": ["/etc/passwd", 0, 100]}
    return _file(folder / "a.zarr", json.dumps({"version": 1, "refs": refs}).encode())


@attack
def zarr_that_is_a_zip(folder):
    return _npz(folder / "a.zarr", {".zgroup": b'{"zarr_format": 2}'})


@attack
def zarr_with_a_nested_description(folder):
    (folder / "a.zarr").mkdir()
    return _file(folder / "a.zarr/zarr.json", b"[" * 10**5 + b"]" * 10**5).parent


# --- what isn't a file ------------------------------------------------------------------------


def _each_ending(make: Callable[[Path], object], word: str) -> None:
    for ending in ("npy", "npz", "safetensors", "parquet", "zarr"):

        def attacked(folder: Path, ending: str = ending) -> Path:
            make(folder / f"a.{ending}")
            return folder / f"a.{ending}"

        attacked.__name__ = f"{ending}_that_is_{word}"
        attack(attacked)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(os.path.relpath(path))  # the whole path may be too long for one


_each_ending(os.mkfifo, "a_fifo")
_each_ending(lambda path: path.symlink_to("/dev/zero"), "dev_zero")
_each_ending(_socket, "a_socket")


@attack
def npy_that_is_a_folder(folder):
    (folder / "a.npy").mkdir()
    return folder / "a.npy"


@attack
def npy_of_a_long_name(folder):
    return folder / ("x" * 5000 + ".npy")


@attack
def npy_of_a_name_with_nul(folder):
    return folder / "a\0.npy"


@attack
def npy_that_is_a_link_to_itself(folder):
    (folder / "a.npy").symlink_to(folder / "a.npy")
    return folder / "a.npy"


@attack
def npy_of_a_name_with_terminal_codes(folder):
    return _file(folder / "a\x1b[2J\x1b]0;title\x07\n.npy", npy((3,), bytes(24)))


def main() -> None:
    home = Path(sys.argv[1])
    home.mkdir(parents=True)
    for name, make in ATTACKS.items():
        (home / name).mkdir()
        make(home / name)
    print(f"{len(ATTACKS)} in {home}")


if __name__ == "__main__":
    main()

"""The files a source can be, one opener a format. Nothing here reads a whole data set,
except `.npz` (a zip has no rows to seek) and images (only their patches are kept).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import ChunkSource, RowSource, Source, Truth, float_dtype
from shoal.data.images import N_PATCHES, PATCH_SIZE, draw_positions, extract_patches, grey
from shoal.vocabulary import ArgumentError, ShoalError, SourceError, check_count

__all__ = ["FORMATS", "IMAGES", "Options", "array_source", "open_path", "zarr_array"]

# Rows read at a time from inside a Parquet row group or a run of small Zarr chunks.
# Arbitrary: a few MB at a thousand features.
PIECE_ROWS = 1024

_TRUTH_KEYS = ("dictionary", "codes")
_MAGIC = {b"\x93NUMPY": "a .npy file", b"PK\x03\x04": "a zip or .npz file", b"PAR1": "Parquet"}


class Options(NamedTuple):
    """What the caller may add to a path; a format refuses those it has no use for."""

    key: str | None = None
    patch_size: int | None = None
    n_patches: int | None = None
    random_state: Any = 0
    feature_shape: tuple[int, ...] | None = None


@contextmanager
def _reading(name: str, needed: str) -> Iterator[None]:
    """Turn whatever a library raises into a `SourceError` of one line."""
    try:
        yield
    except (ShoalError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise SourceError("source", f"{name}, which can't be read ({reason})", needed) from error


def _require(module: str, name: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SourceError(
            "source",
            f"{name}, but {module.partition('.')[0]} isn't installed",
            f'pip install "shoal[{extra}]"',
        ) from error


def _check_magic(path: Path, magic: bytes, kind: str) -> None:
    """Refuse an empty file, and one whose first bytes are another format's."""
    with _reading(path.name, "a file that can be read"), path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise SourceError("source", f"{path.name}, which is empty (0 bytes)", f"a {kind} file")
    if not head.startswith(magic):
        other = next((word for start, word in _MAGIC.items() if head.startswith(start)), None)
        found = f"{path.name}, which is {other}" if other else f"{path.name}, which starts {head!r}"
        raise SourceError("source", found, f"a {kind} file, or the ending that fits")


def _check_matrix(shape: tuple[int, ...], name: str, argument: str = "source") -> tuple[int, int]:
    if len(shape) != 2:
        raise SourceError(
            argument,
            f"{name} of shape {tuple(shape)}",
            "a 2-d array (n_samples, n_features): reshape it first",
        )
    return int(shape[0]), int(shape[1])


def array_source(
    array: NDArray, name: str, *, argument: str = "source", held: bool = True, **named: Any
) -> RowSource:
    """A source over an array as it is; `held` says that it lies in memory."""
    view = np.asarray(array)  # without np.memmap's subclass
    shape = _check_matrix(view.shape, name, argument)
    return RowSource(
        view.__getitem__,
        shape,
        view.dtype,
        array=view if held else None,
        name=name,
        argument=argument,
        **named,
    )


# --- several arrays in one file -----------------------------------------------------------


def _choose_key(shapes: Mapping[str, tuple[int, ...]], key: str | None, name: str) -> str:
    """`key`, or "data", or the only array, or the only 2-d one besides the truth."""
    listed = ", ".join(shapes) or "nothing"
    if key is not None:
        if key not in shapes:
            raise ArgumentError("key", repr(key), f"one of the arrays in {name}: {listed}")
        return key
    if "data" in shapes:
        return "data"
    others = [word for word in shapes if word not in _TRUTH_KEYS]
    matrices = [word for word in others if len(shapes[word]) == 2]
    for candidates in (list(shapes), others, matrices):
        if len(candidates) == 1:
            return candidates[0]
    raise SourceError(
        "source", f"{name} that holds {listed}", "an array named data, or key= one of them"
    )


def _truth_beside(
    get: Callable[[str], NDArray],
    shapes: Mapping[str, tuple[int, ...]],
    chosen: str,
    name: str,
) -> Truth | None:
    """The dictionary and codes beside the data, refused where their shapes don't fit it."""
    if "dictionary" not in shapes or chosen in _TRUTH_KEYS or len(shapes[chosen]) != 2:
        return None
    n_samples, n_features = shapes[chosen]
    shape = shapes["dictionary"]
    if len(shape) != 2 or shape[1] != n_features:
        raise SourceError(
            "source",
            f"dictionary of shape {tuple(shape)} in {name}",
            f"(n_atoms, {n_features}), the features of {chosen}",
        )
    expected = (n_samples, shape[0])
    if "codes" in shapes and tuple(shapes["codes"]) != expected:
        raise SourceError(
            "source",
            f"codes of shape {tuple(shapes['codes'])} in {name}",
            f"{expected}: the samples of {chosen}, the atoms of dictionary",
        )
    arrays = [get(word) for word in _TRUTH_KEYS if word in shapes]
    for word, array in zip(_TRUTH_KEYS, arrays, strict=False):
        float_dtype(array.dtype, "source", f"{word} in {name}")
        if not np.isfinite(array).all():
            raise SourceError("source", f"{word} in {name} with NaN or infinity", "finite numbers")
    return Truth(arrays[0], arrays[1] if len(arrays) > 1 else None)


# --- one opener a format ------------------------------------------------------------------


def _npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type at the start of a .npy file; `file` is left where its numbers begin."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_2_0
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    shape, _, dtype = read(file)
    return shape, dtype


def _open_npy(path: Path, options: Options) -> Source:
    _check_magic(path, b"\x93NUMPY", ".npy")
    needed = "a complete .npy file of a numeric array"
    with _reading(path.name, needed), path.open("rb") as file:
        stored, dtype = _npy_header(file)
        start = file.tell()
    float_dtype(dtype, "source", path.name)  # before mapping, which can't hold objects
    shape = _check_matrix(stored, path.name)
    expected = start + shape[0] * shape[1] * dtype.itemsize
    if (size := path.stat().st_size) < expected:
        raise SourceError(
            "source", f"{path.name} cut off at {size} of {expected} bytes", "the complete file"
        )
    if 0 in shape:  # an empty file can't be mapped; let the source refuse it by its shape
        return array_source(np.empty(shape, dtype), path.name)
    with _reading(path.name, needed):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array_source(array, path.name, held=False, feature_shape=options.feature_shape)


def _open_npz(path: Path, options: Options) -> Source:
    _check_magic(path, b"PK", ".npz")
    # An open file, since NumPy leaves its own open when the zip turns out broken.
    with (
        _reading(path.name, "a complete .npz file of numeric arrays"),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as archive,
    ):
        shapes = {}
        for word in archive.files:
            with archive.zip.open(f"{word}.npy") as member:
                shapes[word], _ = _npy_header(member)
        chosen = _choose_key(shapes, options.key, path.name)
        _check_matrix(shapes[chosen], f"{chosen} in {path.name}")
        truth = _truth_beside(archive.__getitem__, shapes, chosen, path.name)
        array = archive[chosen]
    return array_source(array, path.name, truth=truth, feature_shape=options.feature_shape)


# safetensors' names of types; bfloat16 is read as bits, see _widen. The float8 types have
# no NumPy counterpart and are refused.
_SAFETENSORS_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


def _widen(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 is the upper half of float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _open_safetensors(path: Path, options: Options) -> Source:
    from safetensors import safe_open

    _check_magic(path, b"", ".safetensors")
    with _reading(path.name, "a complete .safetensors file"):
        # safe_open judges the header and the length. Its slices can't index rows at
        # random, so the file is mapped: its layout is 8 bytes of length, a JSON header,
        # then the tensors at the offsets that the header gives.
        with safe_open(path, framework="np"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    header.pop("__metadata__", None)

    def mapped(word: str) -> NDArray:
        entry = header[word]
        if entry["dtype"] not in _SAFETENSORS_TYPES:
            raise SourceError(
                "source", f"{word} of dtype {entry['dtype']} in {path.name}", "real numbers"
            )
        dtype = np.dtype(_SAFETENSORS_TYPES[entry["dtype"]])
        if 0 in entry["shape"]:
            return np.empty(entry["shape"], dtype)
        start = 8 + length + entry["data_offsets"][0]
        return np.memmap(path, dtype, mode="r", offset=start, shape=tuple(entry["shape"]))

    def whole(word: str) -> NDArray:
        array = np.array(mapped(word))
        return _widen(array) if header[word]["dtype"] == "BF16" else array

    shapes = {word: tuple(entry["shape"]) for word, entry in header.items()}
    chosen = _choose_key(shapes, options.key, path.name)
    shape = _check_matrix(shapes[chosen], f"{chosen} in {path.name}")
    truth = _truth_beside(whole, shapes, chosen, path.name)
    view = np.asarray(mapped(chosen))
    bits = header[chosen]["dtype"] == "BF16"
    return RowSource(
        (lambda index: _widen(view[index])) if bits else view.__getitem__,
        shape,
        np.float32 if bits else view.dtype,
        name=path.name,
        truth=truth,
        feature_shape=options.feature_shape,
    )


def _open_parquet(path: Path, options: Options) -> Source:
    parquet = _require("pyarrow.parquet", path.name, "parquet")
    types = importlib.import_module("pyarrow").types
    _check_magic(path, b"PAR1", ".parquet")
    needed = "a complete Parquet file"
    with _reading(path.name, needed), parquet.ParquetFile(path) as file:
        schema, metadata = file.schema_arrow, file.metadata
        lengths = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]

    def numeric(kind: Any) -> bool:
        return bool(
            types.is_integer(kind)
            or types.is_floating(kind)
            or types.is_boolean(kind)
            or types.is_decimal(kind)
        )

    def listed(kind: Any) -> bool:
        a_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        return bool(a_list and numeric(kind.value_type))

    def stored(kind: Any) -> Any:
        if types.is_decimal(kind):
            return np.dtype(np.float64)
        return np.dtype(bool) if types.is_boolean(kind) else np.dtype(kind.to_pandas_dtype())

    kinds = {field.name: field.type for field in schema}
    if options.key is not None and options.key not in kinds:
        raise ArgumentError(
            "key", repr(options.key), f"one of the columns in {path.name}: {', '.join(kinds)}"
        )
    names = list(kinds) if options.key is None else [options.key]
    numbers = [word for word in names if numeric(kinds[word])]
    lists = [word for word in names if listed(kinds[word])]
    if len(lists) > 1 or (lists and numbers):
        raise SourceError(
            "source",
            f"{path.name} with {len(numbers)} numeric and {len(lists)} list columns",
            f"key= one of {', '.join([*lists, *numbers])}",
        )
    if not lists and not numbers:
        raise SourceError(
            "source",
            f"{path.name} with columns {', '.join(names) or 'none'}",
            "numeric columns, or one list column of numbers",
        )
    columns = lists or numbers

    def pieces(group: int) -> Iterator[NDArray]:
        # pre_buffer would hold the whole row group.
        with (
            _reading(path.name, needed),
            parquet.ParquetFile(path, pre_buffer=False, memory_map=True) as opened,
        ):
            flow = opened.iter_batches(PIECE_ROWS, row_groups=[int(group)], columns=columns)
            for record in flow:
                yield unlist(record) if lists else side_by_side(record)

    def side_by_side(record: Any) -> NDArray:
        out = np.empty((record.num_rows, len(columns)), dtype=dtype)
        for i, word in enumerate(columns):
            out[:, i] = _numbers(record.column(word), dtype)
        return out

    def unlist(record: Any) -> NDArray:
        column = record.column(columns[0])
        # Rows of another length (and null rows, which have none) would shift all others.
        lengths = np.asarray(column.value_lengths().fill_null(-1))
        wrong = np.flatnonzero(lengths != width)
        if wrong.size:
            found = "no list" if lengths[wrong[0]] < 0 else f"{lengths[wrong[0]]} values"
            raise SourceError(
                "source",
                f"{found} in a row of {columns[0]} in {path.name}",
                f"{width} values in each row, as in its first",
            )
        return _numbers(column.flatten(), dtype).reshape(record.num_rows, width or 0)

    if lists:
        kind = kinds[lists[0]]
        dtype = float_dtype(stored(kind.value_type), "source", path.name)
        width = kind.list_size if types.is_fixed_size_list(kind) else None
        if width is None and sum(lengths):
            with _reading(path.name, needed), parquet.ParquetFile(path) as file:
                first = next(file.iter_batches(1, columns=columns)).column(0)
                width = first.value_lengths()[0].as_py() or 0
    else:
        dtype = np.result_type(
            *(float_dtype(stored(kinds[word]), "source", path.name) for word in numbers)
        )
        width = len(numbers)
    return ChunkSource(
        pieces,
        lengths,
        width or 0,
        dtype,
        name=path.name,
        feature_shape=options.feature_shape,
    )


def _numbers(column: Any, dtype: np.dtype) -> NDArray:
    """An Arrow array as floats; null becomes NaN, which `validate` then names."""
    import pyarrow

    kind = pyarrow.float32() if dtype == np.float32 else pyarrow.float64()
    # Not "safe": a 64-bit integer beyond 2**53 is rounded, as NumPy rounds it.
    return column.cast(kind, safe=False).to_numpy(zero_copy_only=False)


def _open_zarr(path: Path, options: Options) -> Source:
    zarr = _require("zarr", path.name, "zarr")
    with _reading(path.name, "a Zarr array, or a group of arrays"):
        node = zarr.open(path, mode="r")
    if not hasattr(node, "array_keys"):
        if options.key is not None:
            raise ArgumentError(
                "key", repr(options.key), f"to be left out: {path.name} is one array"
            )
        return zarr_array(node, path.name, feature_shape=options.feature_shape)
    with _reading(path.name, "a Zarr group of arrays"):
        shapes = {word: tuple(node[word].shape) for word in node.array_keys()}
        chosen = _choose_key(shapes, options.key, path.name)
        truth = _truth_beside(lambda word: np.asarray(node[word][...]), shapes, chosen, path.name)
        array = node[chosen]
    return zarr_array(array, path.name, truth=truth, feature_shape=options.feature_shape)


def zarr_array(array: Any, name: str, **named: Any) -> Source:
    """A source over an open Zarr array, read in runs of whole chunks."""
    n_samples, n_features = _check_matrix(array.shape, name)
    float_dtype(array.dtype, "source", name)
    chunk = int((getattr(array, "shards", None) or array.chunks)[0])
    run = chunk * max(1, PIECE_ROWS // chunk)
    starts = range(0, n_samples, run)

    def piece(i: int) -> Iterator[NDArray]:
        at = starts[i]
        with _reading(name, "a complete Zarr array"):
            yield np.asarray(array[at : at + run])

    lengths = [min(run, n_samples - at) for at in starts]
    return ChunkSource(piece, lengths, n_features, array.dtype, name=name, **named)


def _open_images(path: Path, options: Options) -> Source:
    image_module = _require("PIL.Image", path.name, "images")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES)
    size = PATCH_SIZE if options.patch_size is None else options.patch_size
    size = check_count("patch_size", size)
    count = N_PATCHES if options.n_patches is None else options.n_patches

    def shape(file: Path) -> tuple[int, int]:
        with _reading(file.name, "an image"), image_module.open(file) as image:
            width, height = image.size  # the header alone: pixels aren't decoded
        if min(width, height) < size:
            raise SourceError(
                "source",
                f"image {file.name} of {height} x {width} pixels",
                f"at least {size} x {size}, the patch size",
            )
        return height, width

    def pixels(file: Path) -> NDArray:
        with _reading(file.name, "a complete image"), image_module.open(file) as image:
            plain = image if image.mode in ("1", "L", "I;16", "I", "F") else image.convert("RGB")
            return grey(np.asarray(plain))

    shapes = [shape(file) for file in files]
    places = draw_positions(shapes, count, size, _generator(options.random_state))
    data = np.empty((len(places.image), size * size), dtype=np.float32)
    for i in np.unique(places.image):  # one image in memory at a time
        here = places.image == i
        at = np.column_stack([places.row[here], places.column[here]])
        data[here] = extract_patches(pixels(files[i]), size, at)
    return array_source(data, path.name, feature_shape=(size, size))


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.Generator):
        return random_state
    return np.random.default_rng(check_count("random_state", random_state, low=0))


# --- the table ----------------------------------------------------------------------------

Opener = Callable[[Path, Options], Source]
FORMATS: dict[str, Opener] = {
    ".npy": _open_npy,
    ".npz": _open_npz,
    ".safetensors": _open_safetensors,
    ".parquet": _open_parquet,
    ".zarr": _open_zarr,
}
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm")
FORMATS |= dict.fromkeys(IMAGES, _open_images)

# The options that mean something; the others are refused rather than ignored.
_TAKES: dict[Opener, tuple[str, ...]] = {
    _open_npy: ("feature_shape",),
    _open_npz: ("key", "feature_shape"),
    _open_safetensors: ("key", "feature_shape"),
    _open_parquet: ("key", "feature_shape"),
    _open_zarr: ("key", "feature_shape"),
    _open_images: ("patch_size", "n_patches"),
}


def refuse_options(options: Options, takes: tuple[str, ...], name: str) -> None:
    """Refuse an option that `name` would ignore."""
    for word, value in options._asdict().items():
        if value is not None and word not in (*takes, "random_state"):
            raise ArgumentError(word, repr(value), f"to be left out: {name} has no use for it")


def open_path(path: Path, options: Options) -> Source:
    """The source in a file or folder, by its ending."""
    path = path.expanduser()
    path = path if path.name else path.resolve()  # "." has no name
    if not path.exists():
        raise SourceError("source", f"no file at {str(path)!r}", "a path that exists")
    opener = _opener(path)
    refuse_options(options, _TAKES[opener], path.name)
    return opener(path, options)


def _opener(path: Path) -> Opener:
    if path.is_dir():
        marks = ("zarr.json", ".zarray", ".zgroup")
        if path.suffix == ".zarr" or any((path / mark).exists() for mark in marks):
            return _open_zarr
        if any(file.suffix.lower() in IMAGES for file in path.rglob("*")):
            return _open_images
        raise SourceError(
            "source", f"a folder without images, {path.name!r}", f"images ({' '.join(IMAGES)})"
        )
    if (ending := path.suffix.lower()) not in FORMATS:
        raise SourceError(
            "source", f"the ending {ending!r} of {path.name}", f"one of {' '.join(FORMATS)}"
        )
    return FORMATS[ending]

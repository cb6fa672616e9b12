"""A world's samples in a file, drawn and written batch by batch."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from shoal.generative._checks import as_generator
from shoal.generative.features import SparseFeatures
from shoal.generative.models import GenerativeModel, Sample
from shoal.vocabulary import check_count

__all__ = ["write_planted", "write_samples"]

BATCH = 16_384  # arbitrary; rows in memory at a time
_AT_ONCE = 2**26  # arbitrary; numbers of a planted world that are drawn in one call


def write_planted(
    file: Any,
    world: GenerativeModel,
    n_samples: int,
    random_state: Any = None,
    *,
    suffix: str = ".npz",
    about: str = "{}",
) -> None:
    """Draw samples of a planted world into a file, of which a batch at a time is in memory.

    Parameters
    ----------
    file : binary file
        Open for writing.
    world : GenerativeModel
        With m atoms of n features.
    n_samples : int
        N, at least 1.
    random_state : None, int or numpy.random.Generator
        The seed. Of up to 2^26 numbers, codes included, the rows are those of one call of
        ``world.sample``; more come from a call for each 16 384 rows.
    suffix : {".npz", ".safetensors", ".npy"}
        ``.npz`` has `data` (N, n), `dictionary` (m, n), dense `codes` (N, m) and `about`;
        ``.safetensors``, which is read where it lies, `data` and `dictionary`; ``.npy`` the data.
    about : str
        JSON; stored as `laws`.

    Examples
    --------
    >>> from io import BytesIO
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> world, file = SparseCoding(random_dictionary(16, 8, random_state=0), 2), BytesIO()
    >>> write_planted(file, world, 100, random_state=0)
    >>> np.load(BytesIO(file.getvalue()))["codes"].shape
    (100, 16)
    """
    count, rng = check_count("n_samples", n_samples), as_generator(random_state)
    m, n = world.dictionary.shape
    size = count if count * (m + n) <= _AT_ONCE else BATCH
    again = copy.deepcopy(rng)
    if suffix == ".npz":
        _planted_npz(file, world, count, size, (rng, again), about)
        return
    if suffix == ".npy":
        _npy_header(file, world.dictionary.dtype, (count, n))
    else:
        _safetensors_header(file, world.dictionary, (count, n), about)
    for sample in _drawn(world, count, size, rng):
        file.write(np.ascontiguousarray(sample.data).tobytes())
    if suffix == ".safetensors":
        file.write(np.ascontiguousarray(world.dictionary).tobytes())


def _drawn(
    world: GenerativeModel, count: int, size: int, rng: np.random.Generator
) -> Iterator[Sample]:
    for start in range(0, count, size):
        yield world.sample(min(size, count - start), rng)


def _npy_header(stream: Any, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


def _planted_npz(
    file: Any,
    world: GenerativeModel,
    count: int,
    size: int,
    twice: tuple[np.random.Generator, np.random.Generator],
    about: str,
) -> None:
    """A member after the other: what goes into two is drawn twice, from the same state."""
    dtype, (m, n) = world.dictionary.dtype, world.dictionary.shape
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, width, rng in (("data", n, twice[0]), ("codes", m, twice[1])):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                _npy_header(stream, dtype, (count, width))
                for sample in _drawn(world, count, size, rng):
                    part = np.ascontiguousarray(getattr(sample, name))
                    stream.write(part.astype(dtype, copy=False).tobytes())
        for name, array in (("dictionary", world.dictionary), ("laws", np.array(about))):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _safetensors_header(file: Any, dictionary: Any, shape: tuple[int, int], about: str) -> None:
    kind = {4: "F32", 8: "F64"}[dictionary.dtype.itemsize]
    begin = 0
    header: dict[str, Any] = {"__metadata__": {"laws": about}}
    for name, sides in (("data", shape), ("dictionary", dictionary.shape)):
        end = begin + sides[0] * sides[1] * dictionary.dtype.itemsize
        header[name] = {"dtype": kind, "shape": list(sides), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # numbers at multiples of their size
    file.write(len(text).to_bytes(8, "little") + text)


def write_samples(
    file: Any,
    world: SparseFeatures,
    n_samples: int,
    random_state: Any = None,
    *,
    about: dict[str, Any] | None = None,
) -> None:
    """Draw samples into an .npz file; codes stay in memory, as they are small, and data doesn't.

    Parameters
    ----------
    file : path or binary file
        Where to.
    world : SparseFeatures
        What to draw from.
    n_samples : int
        N, at least 1.
    random_state : None, int or numpy.random.Generator
        The seed.
    about : dict, optional
        Fit for JSON; stored as text in `world`.

    Notes
    -----
    The arrays are `data` (N, n), `dictionary` (F, n), `offset` (n,), `frequency` (F,), `outliers`
    (N,), and codes as the three arrays of a CSR matrix (N, F): `codes_values`, `codes_units` and
    `codes_starts`.

    Raises
    ------
    ArgumentError
        If `n_samples` is below 1 or the seed can't be used.

    Examples
    --------
    >>> from io import BytesIO
    >>> from shoal.generative import BernoulliSupport, Uniform, random_dictionary
    >>> atoms = random_dictionary(16, 8, random_state=0)
    >>> world, file = SparseFeatures(atoms, BernoulliSupport(0.2), Uniform(1.0, 2.0)), BytesIO()
    >>> write_samples(file, world, 100, random_state=0)
    >>> np.load(BytesIO(file.getvalue()))["data"].shape
    (100, 8)
    """
    left = check_count("n_samples", n_samples)
    rng = as_generator(random_state)
    n = world.n_features
    values, units, sizes, outlying = [], [], [], []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("data.npy", "w", force_zip64=True) as stream:
            _npy_header(stream, world.dictionary.dtype, (left, n))
            while left:
                sample = world.sample(min(left, BATCH), rng)
                stream.write(np.ascontiguousarray(sample.data).tobytes())
                values.append(sample.codes.data)
                units.append(sample.codes.indices)
                sizes.append(np.diff(sample.codes.indptr))
                outlying.append(sample.outliers)
                left -= len(sample.data)
        arrays = {
            "dictionary": world.dictionary,
            "offset": np.zeros(n) if world.offset is None else world.offset,
            "frequency": world.frequency,
            "outliers": np.concatenate(outlying),
            "codes_values": np.concatenate(values),
            "codes_units": np.concatenate(units),
            "codes_starts": np.concatenate([[0], np.cumsum(np.concatenate(sizes))]),
            "world": np.array(json.dumps(about or {})),
        }
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)

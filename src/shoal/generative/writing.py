"""A world's samples in a file, drawn and written batch by batch."""

from __future__ import annotations

import json
import zipfile
from typing import Any

import numpy as np

from shoal.generative._checks import as_generator
from shoal.generative.features import SparseFeatures
from shoal.vocabulary import check_count

__all__ = ["write_samples"]

BATCH = 16_384  # arbitrary; rows in memory at a time


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
            header = {
                "descr": np.lib.format.dtype_to_descr(world.dictionary.dtype),
                "fortran_order": False,
                "shape": (left, n),
            }
            np.lib.format.write_array_header_1_0(stream, header)
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

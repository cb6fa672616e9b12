"""SciPy's sparse arrays and matrices, in memory and as `save_npz` writes them.

They become CSR once, which copies the non-zeros and never the zeros; a batch is made dense
when it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import RowSource, Source, float_dtype, not_finite
from shoal.data.readers._base import Options, Reader, check_matrix, register
from shoal.data.readers._limits import check_room
from shoal.vocabulary import SourceError

# A single dense row: what learns from it holds several for each atom. Arbitrary.
_ROW_BYTES = 256 * 2**20


class SparseSource(RowSource):
    """Rows of a CSR array."""

    def __init__(self, csr: Any, **named: Any) -> None:
        super().__init__(self._dense, csr.shape, csr.dtype, **named)
        self.csr = csr
        if self.n_features * self.dtype.itemsize > _ROW_BYTES:
            most = _ROW_BYTES // self.dtype.itemsize
            found = f"{self.name} of {self.n_features} columns"
            raise SourceError(self.argument, found, f"at most {most}: a row is made dense")

    def _dense(self, index: Any) -> NDArray:
        return self.csr[index].toarray()

    def rows_at_once(self, most: int, size: int = 16 * 2**20) -> int:
        """As many as take `size` when they are dense."""
        return max(1, min(most, size // (self.dtype.itemsize * self.n_features)))

    def check(self, batch_size: int) -> None:
        """Only what is stored can be NaN or infinite."""
        wrong = np.flatnonzero(~np.isfinite(self.csr.data))
        if wrong.size:
            at = wrong[0]
            row = int(np.searchsorted(self.csr.indptr, at, side="right")) - 1
            raise not_finite(self.csr.data[at], row, int(self.csr.indices[at]), self)


def sparse_source(matrix: Any, name: str, *, argument: str = "data", **named: Any) -> SparseSource:
    """A source over a sparse array or matrix of any form; the caller's is left as it is.

    Raises
    ------
    SourceError
        Where it isn't 2-d, not of real numbers, or where its indices lie outside of it.
    """
    from scipy import sparse

    check_matrix(matrix.shape, name, argument)
    dtype = float_dtype(matrix.dtype, argument, name)
    try:
        if matrix.format in ("csr", "csc", "bsr"):
            matrix.check_format(full_check=True)  # SciPy's own loops trust the indices
        if matrix.dtype in (np.float16, np.longdouble):  # which its loops don't know
            matrix = matrix.astype(dtype)
        csr = sparse.csr_array(matrix)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        needed = "indices within its shape"
        raise SourceError(argument, f"{name}, which is broken ({reason})", needed) from error
    return SparseSource(csr, name=name, argument=argument, **named)


def holds_sparse(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the arrays of an `.npz` are those of one sparse array, as SciPy names them."""
    return {"format", "shape", "data"} <= set(shapes) and shapes["format"] == ()


def from_arrays(arrays: Any, name: str, **named: Any) -> Source:
    """The source in the archive of an `.npz` that :func:`holds_sparse` knows.

    `arrays` gives an array by its name, its `shapes` have the names.
    """
    from scipy import sparse

    needed = "what scipy.sparse.save_npz writes: csr, csc, bsr, coo or dia"
    form = arrays.text("format")
    parts = {
        "csr": ("indices", "indptr"),
        "csc": ("indices", "indptr"),
        "bsr": ("indices", "indptr"),
        "coo": ("row", "col"),
        "dia": ("offsets",),
    }
    if form not in parts or any(word not in arrays.shapes for word in parts[form]):
        raise SourceError("source", f"{name}, a sparse array of format {form!r}", needed)
    sides = arrays["shape"].ravel()
    if sides.dtype.kind not in "iu":
        raise SourceError("source", f"shape of dtype {sides.dtype} in {name}", "integers")
    shape = tuple(map(int, sides))
    check_matrix(shape, name)
    # As CSR it has a number a row, whatever the file has.
    check_room(f"{name} of {shape[0]} rows", 8 * max(0, shape[0]), arrays.packed)
    float_dtype(arrays["data"].dtype, "source", name)
    make = getattr(sparse, f"{form}_array")
    inner = [arrays[word] for word in parts[form]]
    for word, array in zip(parts[form], inner, strict=True):
        if array.dtype.kind not in "iu":
            raise SourceError("source", f"{word} of dtype {array.dtype} in {name}", "integers")
    try:
        if form == "coo":
            matrix = make((arrays["data"], tuple(inner)), shape=shape)
        else:
            matrix = make((arrays["data"], *inner), shape=shape)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceError(
            "source", f"{name}, which is broken ({reason})", "indices within its shape"
        ) from error
    return sparse_source(matrix, name, argument="source", **named)


def is_sparse(value: Any) -> bool:
    """Whether `value` is a sparse array of SciPy, which isn't imported to find out."""
    loaded = sys.modules.get("scipy.sparse")
    return loaded is not None and bool(loaded.issparse(value))


def _open_object(value: Any, options: Options) -> Source:
    return sparse_source(value, f"{value.format} array", feature_shape=options.get("feature_shape"))


READER = register(
    Reader(
        "a sparse array of SciPy",
        (),
        ("feature_shape",),
        holds=is_sparse,
        open_object=_open_object,
    )
)

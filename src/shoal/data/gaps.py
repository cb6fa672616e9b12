"""Rows whose entries are not all there: NaN stands for what was not seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import Source, View
from shoal.data.preprocessing import FittedPreprocessing, Preprocessing
from shoal.vocabulary import ArgumentError

__all__ = ["MISSING", "Usual", "check_ignorable", "fitted_on_seen", "usual_values", "with_gaps"]

MISSING = ("ignore", None)
"""What NaN in data means: an entry that is missing, which is ignored; an error."""


def with_gaps(source: Source) -> Source:
    """`source` with NaN allowed, as missing entries; infinity is refused as ever.

    Raises
    ------
    ArgumentError
        Where it is a stream: what was missing is looked at again and again.
    """
    if source.n_samples is None:
        needed = "data whose rows can be counted, such as an array or a file"
        raise ArgumentError("missing", f"'ignore' with {source.name}, a stream", needed)
    view = View(source, lambda batch: batch)
    view.gaps = True
    return view


class Usual(NamedTuple):
    """What the columns have where they are seen."""

    mean: NDArray[np.float64]  # (n,)
    share: NDArray[np.float64]  # (n,) of the rows, in which the column is seen

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return bool((self.share == 1).all())


def usual_values(source: Source) -> Usual:
    """Means of the columns over the entries that are there.

    Raises
    ------
    ArgumentError
        Where a column has no entry at all.
    """
    count: Any = 0
    total: Any = 0.0
    shift: Any = 0.0
    for batch in source.batches(source.rows_at_once(4096)):
        rows = batch.astype(np.float64)
        if not np.any(count):  # near the data, so that sums keep their digits
            seen = np.isfinite(rows)
            shift = np.where(seen, rows, 0.0).sum(axis=0) / seen.sum(axis=0).clip(1)
        count = count + (~np.isnan(rows)).sum(axis=0)
        total = total + np.nansum(rows - shift, axis=0)
    if (np.asarray(count) == 0).any():
        column = int(np.argmax(np.asarray(count) == 0))
        found = f"{source.column(column)} of {source.name} without a number"
        raise ArgumentError("X", found, "at least one number in each column: drop such columns")
    rows_in_all = source.n_samples
    assert rows_in_all is not None
    return Usual(shift + total / count, count / rows_in_all)


def check_ignorable(spec: Preprocessing, source: Source) -> None:
    """Refuse data without a number in a column, and preprocessing that needs whole rows."""
    if spec.kind in ("whiten", "samples"):
        needed = "none, center or scale: the others mix the entries of a row"
        raise ArgumentError("preprocessing", f"{spec.kind!r} with missing='ignore'", needed)
    usual_values(source)


def fitted_on_seen(spec: Preprocessing, source: Source, usual: Usual) -> FittedPreprocessing:
    """`spec` fitted to the entries of `source` that are there."""
    if usual.complete:
        return spec.fit(source)
    filled = View(source, lambda rows: np.where(np.isnan(rows), usual.mean, rows))
    fitted = spec.fit(filled)
    if spec.kind != "scale":
        return fitted
    # Entries that are filled with the mean have no deviation.
    std = (fitted.arrays["std"] - spec.added) / np.sqrt(usual.share) + spec.added
    return replace(fitted, arrays={**fitted.arrays, "std": std})

"""Several batches in memory as one source, none of them copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import RowSource, Source
from shoal.data.columns import aligned
from shoal.vocabulary import SourceError


class JoinedSource(RowSource):
    """The rows of counted sources one after the other: the same bits as of their concatenation.

    Parameters
    ----------
    parts : sequence of Source
        Of one width. Where all have names, the columns of the first.
    feature_shape : tuple of int, optional
        By default that of the first.
    """

    def __init__(self, parts: Sequence[Source], feature_shape: Sequence[int] | None = None) -> None:
        if not parts:
            raise SourceError("source", "a list without rows", "batches that have some")
        first = parts[0]
        for number, part in enumerate(parts):
            if part.n_features != first.n_features and part.feature_names is None:
                raise SourceError(
                    "source",
                    f"{part.n_features} columns in batch {number} of a list",
                    f"{first.n_features} columns, as in its first batch",
                )
        if all(part.feature_names is not None for part in parts):
            names = first.feature_names or ()
            parts = [aligned(part, names, "of the first batch", "source") for part in parts]
        self._parts = list(parts)
        self._ends = np.cumsum([part.n_samples for part in parts])
        super().__init__(
            self._gather,
            (int(self._ends[-1]), first.n_features),
            np.result_type(*(part.dtype for part in parts)),
            name="list",
            feature_shape=feature_shape or first.feature_shape,
            feature_names=first.feature_names,
            left_out=first.left_out,
        )
        self.notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))

    def _gather(self, index: Any) -> NDArray:
        if isinstance(index, slice):
            index = np.arange(*index.indices(int(self._ends[-1])))
        out = np.empty((len(index), self.n_features), dtype=self.dtype)
        whose = np.searchsorted(self._ends, index, side="right")
        for number in np.unique(whose):
            here = np.flatnonzero(whose == number)
            start = self._ends[number - 1] if number else 0
            out[here] = self._parts[number].rows(index[here] - start)
        return out

    def rows_at_once(self, most: int, size: int = 16 * 2**20) -> int:
        """As few as the part that gives the fewest."""
        return min(part.rows_at_once(most, size) for part in self._parts)

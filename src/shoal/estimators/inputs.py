"""What may stand for data: what shoal opens itself, and what scikit-learn checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from shoal.data import Source
from shoal.data.readers import reader_of


def is_source(X: Any) -> bool:
    """Whether shoal opens `X` itself; arrays and lists of rows go through scikit-learn's checks."""
    if isinstance(X, (list, tuple)):
        return bool(X) and _is_nested(X[0])
    if isinstance(X, np.ndarray) and X.ndim > 2:
        return True
    # A data loader has a length, but no items by number as array-likes have.
    array_like = any(hasattr(X, name) for name in ("__array__", "__getitem__", "toarray"))
    stream = hasattr(X, "__iter__") and not array_like
    opened = (Source, str, Path, torch.Tensor, np.ma.MaskedArray)  # the last is refused there
    # Zarr's arrays, which scikit-learn would read whole; tables, and sparse arrays.
    known = reader_of(X) is not None
    return isinstance(X, opened) or callable(X) or stream or known


def _is_nested(item: Any) -> bool:
    """Whether an item of a list is a batch, or a row that is no list of numbers."""
    if isinstance(item, (list, tuple)):
        inner = item[0] if item else None
        return isinstance(inner, (list, tuple)) or getattr(inner, "ndim", 0) > 0
    known = reader_of(item) is not None and not isinstance(item, str)
    return known or isinstance(item, torch.Tensor) or getattr(item, "ndim", 0) > 1

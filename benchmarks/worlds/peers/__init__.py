"""The methods, one file each.

A file has

    fit(task)       a `Fitted`: atoms, an offset, and ways to code new rows
    REQUIRES        the modules it needs; empty by default

and is named as its solver is.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Task:
    """What a method is given: rows, how many atoms, and how long a row's support is on average."""

    data: NDArray[Any]  # (N, n) float32
    width: int  # W
    k: int  # the mean number of active features among the W most frequent, rounded down
    seed: int
    device: str = "cpu"
    steps: int | None = None  # of minibatches, for methods that have them


@dataclass(frozen=True)
class Fitted:
    """What a method gives back."""

    atoms: NDArray[Any]  # (W, n)
    offset: NDArray[Any]  # (n,) added to codes times atoms
    codes: dict[str, Callable[[NDArray[Any]], Any]]  # a way to code -> codes (N, W) of rows
    rows_seen: int | None  # None where the method doesn't say
    settings: dict[str, Any] = field(default_factory=dict)


def names() -> list[str]:
    return sorted(each.name for each in pkgutil.iter_modules(__path__) if each.name[0] != "_")


def load(name: str) -> Any:
    """The module of a solver; a `LookupError` says why there is none."""
    if name not in names():
        raise LookupError(f"no solver {name!r}; there are {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    for needed in getattr(module, "REQUIRES", ()):
        if importlib.util.find_spec(needed) is None:
            raise LookupError(f"{name} needs the module {needed}, which isn't installed")
    return module


def largest(scores: NDArray[Any], k: int) -> Any:
    """The k largest positive scores of each row (N, W), as CSR."""
    from scipy.sparse import csr_array

    units = np.argpartition(scores, -k, axis=1)[:, -k:]
    values = np.maximum(np.take_along_axis(scores, units, axis=1), 0.0)
    rows = np.repeat(np.arange(len(scores)), k)
    codes = csr_array((values.ravel(), (rows, units.ravel())), shape=scores.shape)
    codes.eliminate_zeros()
    return codes

"""The order in which rows are read, as a function of a key and a place.

Few rows are permuted once a pass, in memory. Of many, :class:`Keyed` says which row comes at a
place, without a list of them all: a place in the data is then a seed, a pass and a number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LISTED", "Keyed", "order_of"]

LISTED = 2**24
"""Rows up to which an order is a list of them: 128 MiB. Arbitrary."""

_ROUNDS = 6


class Keyed:
    """A permutation of range(count), of which any place can be asked for.

    A Feistel network on numbers of 2b bits, the least even number that holds `count`; a result
    beyond it is put in again until one isn't (Black and Rogaway 2002, Ciphers with Arbitrary Finite
    Domains). A round is the finaliser of SplitMix64 (Steele, Lea, Flood 2014), which is no cipher;
    it is to shuffle, and keeps no secret.

    Parameters
    ----------
    count : int
        From 1 to 2^62.
    key : int
        From 0 to 2^64 - 1; another one is another permutation.

    Examples
    --------
    >>> sorted(Keyed(10, key=3)[0:10].tolist()) == list(range(10))
    True
    >>> Keyed(10**12, key=3)[999_999_999_997:10**12].shape
    (3,)
    """

    def __init__(self, count: int, key: int) -> None:
        self._count = count
        half = max(1, ((count - 1).bit_length() + 1) // 2)
        self._half = np.uint64(half)
        self._low = np.uint64(2**half - 1)
        numbers = np.arange(1, _ROUNDS + 1, dtype=np.uint64)
        self._keys = _mixed(np.uint64(key) + numbers * np.uint64(0x9E3779B97F4A7C15))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, where: slice) -> NDArray[np.intp]:
        """The rows at some places."""
        places = np.arange(*where.indices(self._count), dtype=np.uint64)
        found = self._permuted(places)
        outside = np.flatnonzero(found >= self._count)
        while len(outside):
            again = self._permuted(found[outside])
            found[outside] = again
            outside = outside[again >= self._count]
        return found.astype(np.intp)

    def _permuted(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = numbers >> self._half, numbers & self._low
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & self._low)
        return (left << self._half) | right


def _mixed(numbers: Any) -> Any:
    with np.errstate(over="ignore"):
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def order_of(count: int, rng: np.random.Generator) -> NDArray[np.intp] | Keyed:
    """The order of a pass over `count` rows, to be cut by slices."""
    if count <= LISTED:
        return rng.permutation(count)
    return Keyed(count, int(rng.integers(2**63)))

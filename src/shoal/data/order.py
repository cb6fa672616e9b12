"""The order in which rows are read, as a function of a key and a place.

Few rows are permuted once a pass, in memory. Of many, :class:`Keyed` says which row comes at a
place, without a list of them all: a place in the data is then a seed, a pass and a number. Of rows
that may be more than memory holds, :class:`Scattered` does so and keeps some neighbours together:
a disk gives 128 KiB in about the time of one row.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LISTED", "Keyed", "Scattered", "order_of"]

LISTED = 2**24
"""Rows up to which an order is a list of them: 128 MiB. Arbitrary."""

# Numbers: from how many on rows are read in runs, how many make a run, and how many are mixed.
# Arbitrary: 1 GiB in float32; a disk's usual reading ahead; 2048 runs.
LARGE, _RUN, _MIXED = 2**28, 2**15, 2**26

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


class Scattered:
    """A permutation of range(count) that can be read in runs of neighbouring rows.

    The runs come in a keyed order. So many of them, from everywhere in the data, are a window, and
    the rows of a window come in a keyed order of their own. Where runs begin is drawn as well; the
    rows that don't fill a run are the last one's of the last window.

    Parameters
    ----------
    count : int
        Rows, from 1 to 2^62.
    run : int
        Neighbouring rows that stay together.
    window : int
        Runs whose rows are mixed.
    key : int
        From 0 to 2^64 - 1; another one is another permutation.

    Examples
    --------
    >>> order = Scattered(1000, run=8, window=16, key=3)
    >>> sorted(order[0:1000].tolist()) == list(range(1000))
    True
    >>> len({row // 8 for row in order[0:128].tolist()}) <= 2 * 16
    True
    """

    def __init__(self, count: int, *, run: int, window: int, key: int) -> None:
        self._count, self._run, self._window, self._key = count, run, window, key
        self._runs = Keyed(max(1, count // run), key)
        self._first = key % run

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, where: slice) -> NDArray[np.intp]:
        """The rows at some places."""
        first, stop, _ = where.indices(self._count)
        size = self._run * self._window
        parts = []
        while first < stop:
            number, at = divmod(first, size)
            last = min(stop, (number + 1) * size)
            parts.append(self._within(number, at, at + last - first))
            first = last
        return np.concatenate(parts) if parts else np.empty(0, np.intp)

    def runs(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Where the rows begin and end that windows of these numbers are made of."""
        for begin in chain.from_iterable(map(self._begun, range(first, stop))):
            low = (int(begin) + self._first) % self._count
            yield low, min(low + self._run, self._count)

    def window_of(self, place: int) -> int:
        """The number of the window of a place."""
        return place // (self._run * self._window)

    def _begun(self, number: int) -> NDArray[np.intp]:
        """The first rows of a window's runs, but for where the first run begins."""
        low = number * self._window
        runs = self._runs[low : low + self._window]
        if len(runs) < self._window:  # the rest that fills no run keeps its place
            runs = np.append(runs, self._count // self._run)
        return runs * self._run

    def _within(self, number: int, first: int, stop: int) -> NDArray[np.intp]:
        """The rows at places of one window."""
        rows = min(self._run * self._window, self._count - number * self._run * self._window)
        mixed = Keyed(rows, (self._key + number + 1) % 2**64)[first:stop]
        which, of_run = np.divmod(mixed, self._run)
        return (self._begun(number)[which] + of_run + self._first) % self._count


def _mixed(numbers: Any) -> Any:
    with np.errstate(over="ignore"):
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def order_of(
    count: int, n_features: int, rng: np.random.Generator
) -> NDArray[np.intp] | Keyed | Scattered:
    """The order of a pass over `count` rows of `n_features` numbers, to be cut by slices."""
    run = _RUN // n_features
    if count * n_features > LARGE and run > 1:
        window = max(1, _MIXED // (run * n_features))
        return Scattered(count, run=run, window=window, key=int(rng.integers(2**63)))
    if count <= LISTED:
        return rng.permutation(count)
    return Keyed(count, int(rng.integers(2**63)))

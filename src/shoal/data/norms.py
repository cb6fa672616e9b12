"""Norms of rows: a few rows that hold most of the square are found, named, and held back.

A fit that minimises squares looks at what holds them. Where one row in twenty is thirty times as
long as the others, these others have next to no say in it, however many they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import Source, View
from shoal.vocabulary import check_choice

__all__ = ["FEW", "NORMS", "RowNorms", "guarded", "held_by_few", "norms_of", "row_norms"]

NORMS = ("auto", "clip", "scale", None)
"""What is done about the norms of rows: clipped where some hold much of the square; always
clipped; all made the same; nothing."""

# A norm is out of proportion from so many times the middle one on, and so many standard deviations
# of the logarithm, as the middle half of the rows has it. Arbitrary: of planted worlds, with codes
# of any law from uniform to log-normal, of patches and of digits at most one row in 10 000 is; of
# rows of a Student law beside those of a planted world nearly all are.
_TIMES, _DEVIATIONS = 3.0, 4.0
# Arbitrary: the share of the square from which on such rows are held back unasked.
_MUCH = 0.2
FEW = 0.05  # arbitrary: the share of the rows that is meant by a few
# Rows that are looked at for the middle of each column. Arbitrary.
_ROWS = 5_000
# Rows up to which all norms are kept; of more they are counted, by so many levels an octave: that
# of a row is known to a part in a thousand, in 9 MB. Arbitrary.
_LISTED, _LEVELS, _OCTAVES = 2**22, 512, (-1_100, 1_100)


class RowNorms(NamedTuple):
    """What there is to say of the norms of some rows."""

    middle: float  # of those that are not 0
    bound: float  # beyond it a norm is out of proportion
    share: float  # of the rows whose norm is
    square: float  # of the square that these rows hold

    def __str__(self) -> str:
        times = self.bound / self.middle if self.middle else 1.0
        return (
            f"{self.square:.0%} of the square is in {self.share:.2g} of the rows, each more than "
            f"{times:.2g} times as long as the middle row"
        )


def row_norms(rows: NDArray) -> NDArray[np.float64]:
    """The norms (N,) of rows (N, n) of any magnitude; of missing entries the others stand in.

    >>> row_norms(np.array([[3.0, 4.0], [np.nan, 1.0]])).round(3).tolist()
    [5.0, 1.414]
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows)).astype(np.float64)
    # Where squares leave the range of their type, or an entry is missing.
    odd = ~np.isfinite(norms) | (norms < 1e-15)
    if odd.any():
        some = rows[odd].astype(np.float64)
        seen = np.isfinite(some)
        some = np.where(seen, np.abs(some), 0.0)
        largest = some.max(axis=1)
        unit = np.where(largest > 0, largest, 1.0)
        means = np.square(some / unit[:, None]).sum(axis=1) / seen.sum(axis=1).clip(1)
        norms[odd] = unit * np.sqrt(means * rows.shape[1])
    return norms


def norms_of(norms: NDArray[np.float64]) -> RowNorms:
    """What there is to say of norms (N,).

    Examples
    --------
    >>> found = norms_of(np.array([1.0, 1.1, 0.9, 1.0, 1.0, 1.2, 0.8, 1.0, 1.1, 60.0]))
    >>> found.middle, found.share, round(found.square, 3)
    (1.0, 0.1, 0.997)
    """
    some = norms[norms > 0]
    if not len(some):
        return RowNorms(0.0, 0.0, 0.0, 0.0)
    low, middle, high = np.quantile(np.log(some), [0.25, 0.5, 0.75])
    spread = (high - low) / 1.349
    limit = middle + max(np.log(_TIMES), _DEVIATIONS * spread)
    bound = float(np.exp(min(limit, 700.0)))
    squares = np.square(some / some.max())
    beyond = some > bound
    held = float(squares[beyond].sum() / squares.sum())
    return RowNorms(float(np.exp(middle)), bound, float(beyond.sum() / len(norms)), held)


def _counted(norms: Iterator[NDArray[np.float64]]) -> RowNorms:
    """:func:`norms_of` of norms that come some at a time, and are too many to be kept."""
    low, high = _OCTAVES
    counts = np.zeros((high - low) * _LEVELS, dtype=np.int64)
    total = 0
    for some in norms:
        total += len(some)
        levels = (np.log2(some[some > 0]) - low) * _LEVELS
        counts += np.bincount(levels.astype(np.int64), minlength=len(counts))
    found = np.flatnonzero(counts)
    if not len(found):
        return RowNorms(0.0, 0.0, 0.0, 0.0)
    counts = counts[found]
    logs = ((found + 0.5) / _LEVELS + low) * np.log(2)
    until = np.cumsum(counts)
    low_, middle, high_ = logs[np.searchsorted(until, np.array([0.25, 0.5, 0.75]) * until[-1])]
    limit = middle + max(np.log(_TIMES), _DEVIATIONS * (high_ - low_) / 1.349)
    squares = counts * np.exp(2 * (logs - logs[-1]))
    beyond = logs > limit
    return RowNorms(
        float(np.exp(middle)),
        float(np.exp(min(limit, 700.0))),
        float(counts[beyond].sum() / total),
        float(squares[beyond].sum() / squares.sum()),
    )


def held_by_few(norms: NDArray[np.float64], few: float = FEW) -> float:
    """The share of the square that the longest rows hold, a share `few` of all.

    >>> round(held_by_few(np.array([1.0] * 19 + [9.0])), 3)
    0.81
    """
    largest = norms.max(initial=0.0)
    if largest == 0:
        return 0.0
    squares = np.sort(np.square(norms / largest))[::-1]
    return float(squares[: max(1, round(few * len(norms)))].sum() / squares.sum())


def guarded(
    source: Source, norms: str | None, *, centred: bool, ahead: int = _ROWS
) -> tuple[Source, RowNorms | None]:
    """`source` as a fit sees it, and what was found where rows are held back.

    Parameters
    ----------
    source : Source
        Rows; entries may be missing.
    norms : {"auto", "clip", "scale", None}
        - ``"clip"``: a row whose norm is out of proportion is made as long as the middle row.
          Longer ones would still be what is explained worst, and what dead atoms are made of;
        - ``"auto"``: the same, but only where such rows hold a fifth of the square or more;
        - ``"scale"``: all rows are made as long as the middle row;
        - ``None``: nothing.
    centred : bool
        Whether norms are those about the middle of each column: where a mean is taken away.
    ahead : int
        Rows that a stream is judged by: its next ones, which it keeps.

    Returns
    -------
    Source
        `source` itself where nothing is to be done.
    RowNorms or None
    """
    check_choice("norms", norms, NORMS)
    if norms is None:
        return source, None
    centre = _middle(source, ahead) if centred else None
    every = _all_norms(source, centre, ahead)
    if (source.n_samples or 0) > _LISTED:
        found = _counted(every)
    else:
        found = norms_of(np.concatenate(list(every)))
    if found.middle == 0 or (norms != "scale" and found.share == 0):
        return source, None
    if norms == "auto" and found.square < _MUCH:
        return source, None

    def change(batch: NDArray) -> NDArray:
        about = batch if centre is None else batch - centre
        lengths = row_norms(about)
        beyond = lengths > (0 if norms == "scale" else found.bound)
        if beyond.any():
            factor = found.middle / lengths[beyond]
            moved = about[beyond].astype(np.float64) * factor[:, None]
            batch[beyond] = moved if centre is None else moved + centre
        return batch

    return View(source, change), found


def _middle(source: Source, ahead: int) -> NDArray[np.float64]:
    """The median (n,) of each column."""
    rows = _some(source, ahead if source.n_samples is None else source.rows_at_once(_ROWS))
    found: NDArray[np.float64] = np.nanmedian(rows, axis=0).astype(np.float64)
    return np.nan_to_num(found)


def _some(source: Source, n: int) -> NDArray:
    # Not by the generator of the fit: where nothing is held back, its bits are those without this.
    return source.draw(n, np.random.default_rng(0), strict=False)


def _all_norms(
    source: Source, centre: NDArray[np.float64] | None, ahead: int
) -> Iterator[NDArray[np.float64]]:
    """The norms of all rows; of a stream those of the next ones, which it keeps."""
    if source.n_samples is None:
        batches = iter([_some(source, ahead)])
    else:
        batches = source.batches(source.rows_at_once(4096))
    for batch in batches:
        yield row_norms(batch if centre is None else batch - centre)

"""One face for all data, three ways to reach the rows behind it.

========================  =========================  ====================================
class                     reached by                 used for
========================  =========================  ====================================
:class:`RowSource`        any row, at once           arrays, tensors, memory-mapped files
:class:`ChunkSource`      a chunk of rows            Parquet row groups, Zarr chunks
:class:`StreamSource`     the next batch             iterables, data loaders
========================  =========================  ====================================

Every batch that leaves a source is a new, writable, C-contiguous float32 or float64
array: what a caller does to it never reaches the data behind it.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shoal.data.order import Scattered, order_of
from shoal.vocabulary import ArgumentError, SourceError, check_count, printable

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ChunkSource", "RowSource", "Source", "StreamSource", "Truth", "View", "validate"]

# Rows of a chunked file are shuffled within this much memory. Arbitrary: large enough to
# hold several Parquet row groups of small data, small enough for any machine.
WINDOW_BYTES = 64 * 2**20

ALL = (0, 1)
"""Which part, from 0, of how many of a batch is read where all of it is."""


_Given = TypeVar("_Given")


class Truth(NamedTuple):
    """What generated the data, when the file says so.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.data import Truth
    >>> truth = Truth(np.eye(2), None)
    >>> truth.dictionary.shape, truth.codes is None
    ((2, 2), True)
    """

    dictionary: NDArray  # (m, n)
    codes: NDArray | None  # (N, m)


class Source(ABC):
    """Rows of data, wherever they are. Made by :func:`shoal.data.open_source`.

    Attributes
    ----------
    name : str
        For records: ``sample:patches``, ``data.npy``, ``array``.
    n_samples : int or None
        Rows; None for a stream, whose length isn't known.
    n_features : int
        Columns.
    dtype : numpy.dtype
        Of the batches: float32 or float64. What is stored may be another type: float16,
        bfloat16, bool and integers of up to 16 bits come out as float32, wider integers
        as float64.
    feature_shape : tuple of int or None
        How to draw a row (and so an atom) as an image.
    feature_names : tuple of str or None
        The names of the columns, of a table that has them.
    left_out : dict of str to str
        The columns of a table that aren't among the features, with what they hold.
    notes : tuple of str
        What the user should know about the opening, a sentence each; `open_source` warns.
    truth : Truth or None
        The dictionary (and codes) that made the data, where the file holds them.
    array : ndarray or None
        The caller's own array where the data is in memory (its dtype, its order; not to
        be written to), for paths that need no batches.
    tensor : torch.Tensor or None
        The same for a caller's tensor, on its own device.
    once : bool
        Whether only one pass is possible, as over a generator.
    gaps : bool
        Whether NaN stands for entries that are missing; else it is refused.
    path : Path or None
        The file or folder that holds the data, where it is one that was opened by its path.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal import open_source
    >>> source = open_source(np.arange(12.0).reshape(4, 3))
    >>> source.n_samples, source.n_features, source.name
    (4, 3, 'array')
    >>> [batch.shape for batch in source.batches(3)]
    [(3, 3), (1, 3)]
    """

    array: NDArray | None = None
    tensor: Tensor | None = None
    once: bool = False
    gaps: bool = False
    notes: tuple[str, ...] = ()
    path: Path | None = None

    def __init__(
        self,
        shape: tuple[int | None, int],
        dtype: DTypeLike,
        *,
        name: str,
        argument: str = "source",
        feature_shape: Sequence[int] | None = None,
        truth: Truth | None = None,
        feature_names: Sequence[str] | None = None,
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        rows, columns = shape
        self.n_samples = None if rows is None else int(rows)  # a reader may have counted in NumPy
        self.n_features = int(columns)
        self.name, self.argument, self.truth = printable(name), argument, truth
        for count, word in ((self.n_samples, "rows"), (self.n_features, "columns")):
            if count == 0:
                raise SourceError(argument, f"{name} with 0 {word}", f"at least 1 of {word}")
        self.dtype = float_dtype(dtype, argument, name)
        self.feature_shape = None if feature_shape is None else tuple(map(int, feature_shape))
        if self.feature_shape is not None and math.prod(self.feature_shape) != self.n_features:
            raise ArgumentError(
                "feature_shape",
                str(self.feature_shape),
                f"a shape of {self.n_features} values, the features of {name}",
            )
        self.feature_names = None if feature_names is None else tuple(feature_names)
        self.left_out = {} if left_out is None else dict(left_out)

    def __repr__(self) -> str:
        samples = "?" if self.n_samples is None else self.n_samples
        return f"<Source {self.name}: {samples} x {self.n_features} {self.dtype}>"

    @property
    def in_memory(self) -> bool:
        """Whether `array` is there: the data lies in ordinary memory."""
        return self.array is not None

    def rows_at_once(self, most: int, size: int = 16 * 2**20) -> int:
        """How many rows to ask for where `most` would do: fewer of rows that are long and sparse.

        Parameters
        ----------
        most : int
            At least 1.
        size : int
            The bytes that they may take when they are dense; arbitrary by default.

        Returns
        -------
        int
            From 1 to `most`.
        """
        return most

    def column(self, index: int) -> str:
        """What to call a column in a message: its position, and its name where it has one."""
        if self.feature_names is None:
            return f"column {index}"
        return f"column {index} ({self.feature_names[index]!r})"

    def batches(
        self, batch_size: int, *, rng: np.random.Generator | None = None
    ) -> Iterator[NDArray]:
        """One pass over the rows, each row once.

        Parameters
        ----------
        batch_size : int
            Rows a batch; the last batch may be shorter.
        rng : numpy.random.Generator, optional
            Shuffles. None keeps the stored order. What the pass needs of it is drawn in
            this call, so that its state afterwards doesn't depend on when batches are
            read. A `RowSource` permutes all rows, more than 2^24 of them by a key, and
            more than 2^28 numbers in runs of 2^15 neighbouring ones of which 2048 at a time
            are mixed (:mod:`shoal.data.order`); a `ChunkSource` of up to 64 MiB permutes
            them in the order of a `RowSource`; a larger one permutes the chunks and
            shuffles rows within a window of 64 MiB; a `StreamSource` keeps its order.

        Yields
        ------
        ndarray of shape (batch_size, n_features)
            New, writable, C-contiguous, of `dtype`.

        Raises
        ------
        ArgumentError
            If `batch_size` isn't a positive integer; for a stream, at a batch that holds
            NaN or infinity.
        SourceError
            If a file can't be read any further, or a stream can't be read twice.
        """
        return self._in_memory(self._batches(check_count("batch_size", batch_size), rng))

    def shares(
        self,
        batch_size: int,
        *,
        rng: np.random.Generator | None = None,
        part: tuple[int, int] = ALL,
        first: int = 0,
    ) -> Iterator[tuple[NDArray, int]]:
        """:meth:`batches` from number `first` on, of each of which one part is read.

        Parameters
        ----------
        batch_size, rng
            As for :meth:`batches`.
        part : tuple of int
            Which one, from 0, of how many contiguous parts of about one size.
        first : int
            Batches before it are passed over: in no time where any row can be reached, and of
            chunks without those being read that hold none of the others.

        Yields
        ------
        ndarray of shape (rows of the part, n_features)
        int
            The rows of the whole batch.
        """
        size = check_count("batch_size", batch_size)
        return self._in_memory(self._shares(size, rng, part, first))

    def _shares(
        self, size: int, rng: np.random.Generator | None, part: tuple[int, int], first: int
    ) -> Iterator[tuple[NDArray, int]]:
        batches = self._batches(size, rng)
        return (
            (batch[part_of(len(batch), part)], len(batch)) for batch in islice(batches, first, None)
        )

    def _in_memory(self, batches: Iterator[_Given]) -> Iterator[_Given]:
        """`batches`; where memory ends, a `SourceError`."""
        while True:
            try:
                batch = next(batches, None)
            except MemoryError as error:
                raise self._no_memory() from error
            if batch is None:
                return
            yield batch

    @contextmanager
    def _memory(self) -> Iterator[None]:
        try:
            yield
        except MemoryError as error:
            raise self._no_memory() from error

    @property
    def waits(self) -> bool:
        """Whether rows come from a disk, and any number of times: worth reading ahead of need.

        Not where a model changes them on the way: its threads are those of who asks.
        """
        return self.path is not None and not self.once

    def _no_memory(self) -> SourceError:
        return SourceError(
            self.argument,
            f"{self.name} with rows of {self.n_features} numbers, which don't fit into memory",
            "fewer rows at a time, or more memory",
        )

    def rows(self, indices: Any) -> NDArray:
        """The rows at `indices`, in that order; repeats are allowed.

        Parameters
        ----------
        indices : array-like of int of shape (k,)
            From 0 to n_samples - 1.

        Returns
        -------
        ndarray of shape (k, n_features)

        Raises
        ------
        ArgumentError
            If an index is out of range, or the source is a stream.
        """
        if self.n_samples is None:
            raise ArgumentError("indices", f"a stream, {self.name}", "a source that isn't a stream")
        index = np.asarray(indices)
        if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
            raise ArgumentError(
                "indices", f"shape {index.shape}, dtype {index.dtype}", "a 1-d array of integers"
            )
        wrong = index[(index < 0) | (index >= self.n_samples)]
        if wrong.size:
            raise ArgumentError("indices", str(wrong[0]), f"from 0 to {self.n_samples - 1}")
        with self._memory():
            return self._rows(index.astype(np.intp))

    def draw(self, n: int, rng: np.random.Generator, *, strict: bool = True) -> NDArray:
        """`n` distinct rows at random; of a stream, the next `n` rows.

        A stream keeps the rows that it gave here for its next pass, so none is lost.

        Parameters
        ----------
        n : int
            How many.
        rng : numpy.random.Generator
            Draws them; a stream leaves it alone.
        strict : bool
            Whether fewer rows than `n` are an error; else all that there are come back.

        Returns
        -------
        ndarray of shape (n, n_features)

        Raises
        ------
        ArgumentError
            If there are fewer than `n` rows and `strict`.
        """
        if not strict and self.n_samples is not None:
            n = min(check_count("n", n), self.n_samples)
        with self._memory():
            return self._draw(check_count("n", n, high=self.n_samples), rng, strict)

    def check(self, batch_size: int) -> None:
        """Refuse NaN and infinity, see :func:`validate`."""
        seen = 0
        for batch in self.batches(self.rows_at_once(batch_size)):
            check_finite(batch, seen, self)
            seen += len(batch)

    @abstractmethod
    def _batches(self, size: int, rng: np.random.Generator | None) -> Iterator[NDArray]: ...

    def _rows(self, index: NDArray[np.intp]) -> NDArray:
        raise NotImplementedError  # streams never get here

    def _draw(self, n: int, rng: np.random.Generator, strict: bool) -> NDArray:
        assert self.n_samples is not None
        return self._rows(rng.choice(self.n_samples, size=n, replace=False))


class RowSource(Source):
    """Any row at once.

    Parameters
    ----------
    fetch : callable
        From a slice or an index array to rows, as stored. A slice may give a view.
    shape, dtype, **named
        As for `Source`; `dtype` is the stored one.
    array, tensor : optional
        The caller's data, for `Source.array` and `Source.tensor`.
    fresh : bool
        Whether a slice gives a new array, which needs no copy.
    soon : callable, optional
        Told the first and the last row, exclusive, of a run of which some will be asked for.
    """

    def __init__(
        self,
        fetch: Callable[[Any], NDArray],
        shape: tuple[int, int],
        dtype: DTypeLike,
        *,
        array: NDArray | None = None,
        tensor: Tensor | None = None,
        fresh: bool = False,
        soon: Callable[[int, int], None] | None = None,
        **named: Any,
    ) -> None:
        super().__init__(shape, dtype, **named)
        self._fetch, self._count, self._fresh, self._soon = fetch, shape[0], fresh, soon
        self.array, self.tensor = array, tensor

    def _batches(self, size: int, rng: np.random.Generator | None) -> Iterator[NDArray]:
        return (rows for rows, _ in self._shares(size, rng, ALL, 0))

    def _shares(
        self, size: int, rng: np.random.Generator | None, part: tuple[int, int], first: int
    ) -> Iterator[tuple[NDArray, int]]:
        order = None if rng is None else order_of(self._count, self.n_features, rng)
        made = np.asarray if self._fresh else np.array

        def read(where: slice) -> NDArray:
            if order is not None:
                return self._rows(order[where])
            return made(self._fetch(where), dtype=self.dtype, order="C")

        def all_read() -> Iterator[tuple[NDArray, int]]:
            told = order.window_of(first * size) if isinstance(order, Scattered) else 0
            for at in range(first * size, self._count, size):
                count = min(size, self._count - at)
                if self._soon is not None and isinstance(order, Scattered):
                    # The rows of this window and of the next one are on their way meanwhile.
                    for run in order.runs(told, needed := order.window_of(at + count - 1) + 2):
                        self._soon(*run)
                    told = needed
                where = part_of(count, part)
                yield read(slice(at + where.start, at + where.stop)), count

        return all_read()

    def _rows(self, index: NDArray[np.intp]) -> NDArray:
        # Indexing by an array has copied already; np.take would first copy the whole of
        # an F-ordered array.
        return self._fetch(index).astype(self.dtype, order="C", copy=False)


class ChunkSource(Source):
    """A chunk at a time, each read in pieces.

    Parameters
    ----------
    read : callable
        From the number of a chunk to an iterator of its pieces, in order; each piece is
        an array of shape (rows, n_features), small against memory.
    lengths : sequence of int
        Rows of each chunk, as the file declares them; a chunk that gives others is an error.
    n_features, dtype, **named
        As for `Source`.
    window_bytes : int, optional
        Memory in which rows are shuffled, 64 MiB by default.
    """

    def __init__(
        self,
        read: Callable[[int], Iterator[NDArray]],
        lengths: Sequence[int],
        n_features: int,
        dtype: DTypeLike,
        *,
        window_bytes: int | None = None,
        **named: Any,
    ) -> None:
        super().__init__((sum(lengths), n_features), dtype, **named)
        if min(lengths) < 0 or sum(lengths) > 2**62:
            raise SourceError(self.argument, f"{self.name} of {sum(lengths)} rows", "0 or more")
        self._read, self._ends = read, np.cumsum(lengths)
        budget = WINDOW_BYTES if window_bytes is None else window_bytes
        self._window = max(1, budget // (self.dtype.itemsize * n_features))

    def _chunk(self, number: int) -> Iterator[NDArray]:
        """The pieces of a chunk, counted: a footer may declare rows that aren't there."""
        first = int(self._ends[number - 1]) if number else 0
        declared, given = int(self._ends[number]) - first, 0
        for piece in self._read(number):
            given += len(piece)
            if given > declared:
                break
            yield piece
        if given != declared:
            rows = f"{given if given < declared else f'more than {declared}'} of {declared} rows"
            raise SourceError(
                self.argument,
                f"{self.name}, which gave {rows} from row {first} on",
                "as many rows as the file declares",
            )

    def _batches(self, size: int, rng: np.random.Generator | None) -> Iterator[NDArray]:
        return self._from(0, size, rng)

    def _shares(
        self, size: int, rng: np.random.Generator | None, part: tuple[int, int], first: int
    ) -> Iterator[tuple[NDArray, int]]:
        batches = self._from(first * size, size, rng)
        return ((batch[part_of(len(batch), part)], len(batch)) for batch in batches)

    def _from(self, place: int, size: int, rng: np.random.Generator | None) -> Iterator[NDArray]:
        """Batches from a place in the order on; chunks that lie wholly before aren't read."""
        count, every = self.n_samples, np.arange(len(self._ends))
        assert count is not None
        if rng is None:
            return rebatch(self._pieces(every, place), size, self.dtype)
        if count <= self._window:
            return self._permuted(size, rng.permutation(count)[place:])
        order = rng.permutation(len(every))
        child = np.random.default_rng(int(rng.integers(2**63)))
        window = max(self._window, size)
        begin = place - place % window

        def mixed() -> Iterator[NDArray]:
            for _ in range(0, begin, window):  # each window draws its own order
                child.permutation(window)
            for block in rebatch(self._pieces(order, begin), window, self.dtype):
                yield block[child.permutation(len(block))]

        return rebatch(_without(mixed(), place - begin), size, self.dtype)

    def _pieces(self, order: NDArray[np.intp], place: int) -> Iterator[NDArray]:
        """The rows of chunks in some order, from a place on."""
        ends = np.cumsum(np.diff(self._ends, prepend=0)[order])
        first = int(np.searchsorted(ends, place, side="right"))
        before = int(ends[first - 1]) if first else 0
        return _without(chain.from_iterable(map(self._chunk, order[first:])), place - before)

    def _permuted(self, size: int, order: NDArray[np.intp]) -> Iterator[NDArray]:
        """All rows in `order`, as a `RowSource` gives them; they are in memory meanwhile."""
        rows = self._rows(np.arange(self.n_samples or 0))
        for at in range(0, len(order), size):
            yield rows[order[at : at + size]]

    def _rows(self, index: NDArray[np.intp]) -> NDArray:
        order = np.argsort(index, kind="stable")
        wanted = index[order]  # ascending: each chunk is read once, the others never
        out = np.empty((len(index), self.n_features), dtype=self.dtype)
        for chunk in np.unique(np.searchsorted(self._ends, wanted, side="right")):
            at = int(self._ends[chunk - 1]) if chunk else 0
            for piece in self._chunk(int(chunk)):
                low, high = np.searchsorted(wanted, [at, at + len(piece)])
                out[order[low:high]] = piece[wanted[low:high] - at]
                at += len(piece)
        return out


class StreamSource(Source):
    """The next batch, and no more. Values are checked as they come.

    Parameters
    ----------
    start : callable
        Starts a pass: gives an iterator of batches.
    convert : callable
        From a batch, and the stream (None for its first batch), to a counted source of the
        batch's rows with the stream's columns; None for a batch without rows.
    once : bool
        Whether only one pass is possible.
    name, feature_shape
        As for `Source`.

    Notes
    -----
    The first batch is read on construction: it fixes `n_features` and `dtype`. Batches
    read ahead (that one, and those of `draw`) are kept and given again by the next pass.
    """

    def __init__(
        self,
        start: Callable[[], Iterator[Any]],
        convert: Callable[[Any, Source | None], Source | None],
        *,
        once: bool,
        name: str,
        **named: Any,
    ) -> None:
        self._start, self._open, self.once = start, convert, once
        self._live: Iterator[Any] | None = start()
        self._ahead: list[NDArray] = []
        opened = (convert(item, None) for item in self._live)
        first = next((batch for batch in opened if batch is not None), None)
        if first is None:
            raise SourceError("source", f"{name} without rows", "an iterable that gives batches")
        named = {"feature_shape": first.feature_shape} | {
            word: value for word, value in named.items() if value is not None
        }
        super().__init__(
            (None, first.n_features),
            first.dtype,
            name=name,
            feature_names=first.feature_names,
            left_out=first.left_out,
            **named,
        )
        self.notes = first.notes
        self._ahead.append(whole(first))  # a copy: a loader may reuse its buffer

    def _convert(self, item: Any) -> NDArray:
        """The rows of a batch."""
        batch = self._open(item, self)
        if batch is None:
            return np.empty((0, self.n_features), dtype=self.dtype)
        return whole(batch) if batch.array is None else batch.array

    def _pass(self) -> Iterator[NDArray]:
        """The batches of the pass under way, or of a new one."""
        if self._live is None:
            if self.once:
                raise SourceError(
                    "source",
                    f"{self.name}, which can be read only once and has been",
                    "a function that returns a new iterator each time",
                )
            self._live = self._start()
        ahead, live = self._ahead, self._live
        self._ahead, self._live = [], None
        return chain(ahead, map(self._convert, live))

    def _checked(self, pieces: Iterator[NDArray]) -> Iterator[NDArray]:
        seen = 0
        for number, piece in enumerate(pieces):
            if piece.shape[1] != self.n_features:
                raise SourceError(
                    "source",
                    f"{piece.shape[1]} columns in batch {number} of {self.name}",
                    f"{self.n_features} columns, as in its first batch",
                )
            check_finite(piece, seen, self)
            seen += len(piece)
            yield piece
        if seen == 0:
            raise SourceError(
                "source",
                f"{self.name}, which gave nothing when read again",
                "a function that returns a new iterator each time",
            )

    def _batches(self, size: int, rng: np.random.Generator | None) -> Iterator[NDArray]:
        return rebatch(self._checked(self._pass()), size, self.dtype)

    def _draw(self, n: int, rng: np.random.Generator, strict: bool) -> NDArray:
        return self.head(n, strict=strict)

    def head(self, n: int, *, strict: bool = True) -> NDArray:
        """The next `n` rows, kept for the next pass; fewer at the end if not `strict`."""
        pieces = self._pass()
        kept: list[NDArray] = []
        try:
            while sum(map(len, kept)) < n:
                kept.append(next(pieces).copy())
        except StopIteration:
            pass
        self._ahead, self._live = kept, pieces
        rows = next(rebatch(self._checked(iter(kept)), n, self.dtype))
        if strict and len(rows) < n:
            raise ArgumentError("n", str(n), f"at most {len(rows)}, the rows of {self.name}")
        return rows


def part_of(count: int, part: tuple[int, int]) -> slice:
    """Where one of several parts of `count` rows lies.

    >>> [part_of(10, (i, 4)) for i in range(4)]
    [slice(0, 2, None), slice(2, 5, None), slice(5, 7, None), slice(7, 10, None)]
    """
    number, of = part
    return slice(count * number // of, count * (number + 1) // of)


def whole(source: Source) -> NDArray:
    """All rows of a counted source: a copy."""
    assert source.n_samples is not None
    return next(source.batches(source.n_samples))


class View(Source):
    """Another source with every batch, row and draw changed on the way out. Nothing is held.

    Parameters
    ----------
    source : Source
        What is changed.
    change : callable
        From a batch of its rows to the rows given instead: new, writable, C-contiguous.
    **changed
        What of the source's shape and words is another.
    """

    def __init__(
        self,
        source: Source,
        change: Callable[[NDArray], NDArray],
        *,
        n_features: int | None = None,
        **changed: Any,
    ) -> None:
        words = ("name", "argument", "feature_shape", "truth", "feature_names", "left_out")
        width = source.n_features if n_features is None else n_features
        named = {word: getattr(source, word) for word in words} | changed
        super().__init__((source.n_samples, width), source.dtype, **named)
        self.source, self.change = source, change
        self.once, self.notes, self.path = source.once, source.notes, source.path
        self.gaps = source.gaps

    def rows_at_once(self, most: int, size: int = 16 * 2**20) -> int:
        """As for the source behind."""
        return self.source.rows_at_once(most, size)

    def _batches(self, size: int, rng: np.random.Generator | None) -> Iterator[NDArray]:
        return map(self.change, self.source.batches(size, rng=rng))

    def _shares(
        self, size: int, rng: np.random.Generator | None, part: tuple[int, int], first: int
    ) -> Iterator[tuple[NDArray, int]]:
        flow = self.source.shares(size, rng=rng, part=part, first=first)
        none = np.empty((0, self.n_features), dtype=self.dtype)
        return ((self.change(rows) if len(rows) else none, count) for rows, count in flow)

    def _rows(self, index: NDArray[np.intp]) -> NDArray:
        return self.change(self.source.rows(index))

    def _draw(self, n: int, rng: np.random.Generator, strict: bool) -> NDArray:
        return self.change(self.source.draw(n, rng, strict=strict))


def validate(source: Source, *, batch_size: int = 4096) -> None:
    """Read a source once and refuse NaN and infinity, before any work starts.

    A stream isn't read: its batches are checked as they come.

    Parameters
    ----------
    source : Source
        What to check.
    batch_size : int
        Rows read at a time.

    Raises
    ------
    ArgumentError
        At the first value that isn't finite, with its row and column.

    Examples
    --------
    >>> from shoal.data import open_source
    >>> validate(open_source(np.array([[0.0, 1.0], [np.nan, 2.0]])))
    Traceback (most recent call last):
        ...
    shoal.vocabulary.ArgumentError: data: found nan at row 1, column 0 of array; needed finite \
numbers: drop or fill such rows first
    """
    if source.n_samples is not None:
        source.check(batch_size)


def check_finite(batch: NDArray, first_row: int, source: Source) -> None:
    """Refuse NaN and infinity in rows that start at `first_row` of `source`.

    Where entries may be missing, infinity and rows without a number.
    """
    finite = np.isfinite(batch)
    if source.gaps and not finite.all():
        empty = np.isnan(batch).all(axis=1)
        if empty.any():
            found = f"row {first_row + int(empty.argmax())} of {source.name} without a number"
            needed = "at least one number in each row: drop such rows first"
            raise ArgumentError(source.argument, found, needed)
        finite |= np.isnan(batch)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise not_finite(batch[row, column], first_row + int(row), int(column), source)


def not_finite(value: Any, row: int, column: int, source: Source) -> ArgumentError:
    """The error for a value that isn't a finite number."""
    return ArgumentError(
        source.argument,
        f"{value} at row {row}, {source.column(column)} of {source.name}",
        "finite numbers: drop or fill such rows first",
    )


def float_dtype(stored: DTypeLike, argument: str, name: str) -> np.dtype:
    """float32 or float64, whichever holds `stored` exactly (long double is rounded)."""
    dtype = np.dtype(stored)
    if dtype.kind not in "biuf":
        raise SourceError(
            argument, f"{name} of dtype {dtype}", "real numbers: float, integer or bool"
        )
    exact = np.result_type(dtype, np.float32)  # NumPy's promotion is that very rule
    return exact if exact.itemsize <= 8 else np.dtype(np.float64)


def rebatch(pieces: Iterable[NDArray], size: int, dtype: np.dtype) -> Iterator[NDArray]:
    """Cut a flow of pieces into new arrays of `size` rows; only the last may be shorter."""
    held: list[NDArray] = []
    count = 0
    for piece in pieces:
        start = 0
        while count + len(piece) - start >= size:
            stop = start + size - count
            yield _joined([*held, piece[start:stop]], dtype)
            held, count, start = [], 0, stop
        if start < len(piece):
            # A copy, since a stream may reuse its buffer, and a view would keep all of a
            # large piece alive.
            held.append(piece[start:].copy())
            count += len(piece) - start
    if held:
        yield _joined(held, dtype)


def _without(pieces: Iterable[NDArray], count: int) -> Iterator[NDArray]:
    """`pieces` but for their first `count` rows."""
    for piece in pieces:
        if count < len(piece):
            yield piece[count:] if count else piece
        count = max(0, count - len(piece))


def _joined(parts: list[NDArray], dtype: np.dtype) -> NDArray:
    out = np.empty((sum(map(len, parts)), parts[0].shape[1]), dtype=dtype)
    at = 0
    for part in parts:
        out[at : at + len(part)] = part
        at += len(part)
    return out


def is_tensor(value: Any) -> bool:
    """Whether `value` is a torch tensor; torch isn't imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def check_tensor(tensor: Tensor) -> None:
    """Refuse tensors that no array of real numbers can show."""
    import torch

    odd = tensor.is_complex() or tensor.is_quantized or "float8" in str(tensor.dtype)
    if tensor.layout is not torch.strided or odd:
        raise SourceError(
            "data",
            f"a tensor of {tensor.dtype}, {tensor.layout}",
            "a dense tensor of real numbers",
        )


def tensor_rows(tensor: Tensor) -> NDArray:
    """A tensor as an array: a view where NumPy can hold it, else a copy."""
    import torch

    check_tensor(tensor)
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # NumPy has no such type; float32 holds it exactly
        tensor = tensor.float()
    return tensor.numpy()

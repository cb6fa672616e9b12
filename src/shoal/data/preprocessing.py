"""Centre, scale, whiten: fitted in one streaming pass, undone exactly.

Statistics are accumulated in float64 and merged batch by batch with the formula of Chan,
Golub & LeVeque (1983), so neither the batch size nor a mean far from 0 matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import Source, View
from shoal.data.sources import open_source
from shoal.vocabulary import ArgumentError, check_choice, check_count, check_number

__all__ = ["FittedPreprocessing", "Moments", "Preprocessing", "moments", "principal"]

# Directions of less than this share of the largest variance are called degenerate: a
# millionth in standard deviation, about ten float32 roundings, is no longer data.
DEGENERATE = 1e-12

# The least standard deviation that whitening leaves to a direction of standard deviation
# 1. Arbitrary; small enough to silence it, large enough that float32 can undo it.
FLOOR = 1e-3

# So many features at most are never called wide. Arbitrary; their covariance takes no time.
_NARROW = 256

# Rows of a stream that statistics are taken from, unless told otherwise: a stream may
# never end. Arbitrary; enough for a covariance of a few thousand features.
STREAM_ROWS = 16_384


class Moments(NamedTuple):
    """Number, mean and sum of squared deviations of some rows, all in float64.

    `scatter` is the full matrix ``sum (y - mean)(y - mean)^T`` of shape (n, n), or only
    its diagonal of shape (n,).

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.data import Moments
    >>> rows = np.array([[0.0, 1.0], [2.0, 3.0]])
    >>> Moments.of(rows, full=False)
    Moments(n_samples=2, mean=array([1., 2.]), scatter=array([2., 2.]))
    """

    n_samples: int
    mean: NDArray[np.float64]  # (n,)
    scatter: NDArray[np.float64]  # (n, n) or (n,)

    @classmethod
    def of(cls, batch: NDArray, *, full: bool) -> Moments:
        """The moments of one batch, in two passes over it."""
        rows = batch.astype(np.float64)
        mean = rows.mean(axis=0)
        rows -= mean
        scatter = rows.T @ rows if full else np.einsum("ij,ij->j", rows, rows)
        return cls(len(rows), mean, scatter)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of rows together (Chan et al. 1983)."""
        count = self.n_samples + other.n_samples
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n_samples / count)
        square = np.outer(delta, delta) if self.scatter.ndim == 2 else delta**2
        weight = self.n_samples * (other.n_samples / count)
        return Moments(count, mean, self.scatter + other.scatter + square * weight)


def moments(batches: Iterable[NDArray], *, full: bool = True) -> Moments:
    """Moments of a flow of batches.

    Parameters
    ----------
    batches : iterable of ndarray of shape (rows, n_features)
        At least one.
    full : bool
        Whether to accumulate the whole covariance, or the variances only.

    Returns
    -------
    Moments
        ``scatter / n_samples`` is the covariance (the population's, divided by N).

    Raises
    ------
    ArgumentError
        If there is no batch, or a value that isn't finite.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 7.0]])
    >>> moments([rows[:1], rows[1:]], full=False).mean
    array([2., 3.])
    """
    total: Moments | None = None
    shift: Any = None
    with np.errstate(invalid="ignore", over="ignore"):  # looked for below
        for batch in batches:
            # Moved near 0 first: the merges' errors then scale with the spread of the
            # data instead of its mean.
            shift = batch[0].astype(np.float64) if shift is None else shift
            part = Moments.of(batch - shift, full=full)
            total = part if total is None else total.merge(part)
    if total is None:
        raise ArgumentError("batches", "no batch", "at least one")
    total = total._replace(mean=total.mean + shift)
    if not (np.isfinite(total.mean).all() and np.isfinite(total.scatter).all()):
        raise ArgumentError("data", "NaN, infinity or overflow", "finite numbers")
    return total


@dataclass(frozen=True)
class Preprocessing:
    """What to do with the data before learning; nothing is estimated yet.

    Parameters
    ----------
    kind : {"none", "center", "scale", "whiten", "samples"}
        - ``none``: y
        - ``center``: y - mean
        - ``scale``: (y - mean) / std for each feature; a constant feature is divided by 1
        - ``samples``: (y - its own mean) / its own std, sample by sample; nothing undoes it
        - ``whiten``: symmetric (ZCA) whitening, which keeps each feature in its place:
          ``(y - mean) E diag(gain) E^T`` with the covariance's eigenvectors E as columns.
    roll_off : float in (0, 1] or None
        Of whitening: the share of directions, sorted from the largest variance to the
        smallest, that keep their gain. The direction of rank i of n (from 0) has::

            gain_i = max(exp(-(i / (n * roll_off))^4), 1e-3) / sqrt(variance_i + ridge')

        so the whitened standard deviation is 1 up to the roll-off, 1/e there, and 0.001
        at least, which keeps the transform invertible. The smallest variances of real
        data are noise that plain whitening (None) would blow up to the size of the
        signal. The form is Olshausen & Field's (1997) low-pass ``exp(-(f/f0)^4)``; for
        natural images the order of variances stands for spatial frequency f.
    ridge : float
        Of whitening: added to every variance, as a share of the mean variance.
    added : float
        Of ``scale`` and ``samples``: added to every standard deviation, in the data's unit. What
        hardly varies, such as the border of pictures of digits, is then not blown up; Arpit et al.
        2016 take .1.

    Raises
    ------
    ArgumentError
        If a value is out of range.

    Notes
    -----
    Standard deviations divide by N. Directions with less than 1e-12 of the largest
    variance are degenerate (constant or linearly dependent features): their gain is that
    of the floor, 0.001, over the root of that threshold, so that rounding noise stays
    small and `undo` still inverts.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.data import Preprocessing
    >>> rows = np.array([[0.0, 5.0], [2.0, 5.0]])
    >>> fitted = Preprocessing("scale").fit(rows)
    >>> fitted.apply(rows)
    array([[-1.,  0.],
           [ 1.,  0.]])
    """

    kind: str = "none"
    roll_off: float | None = 0.4
    ridge: float = 0.0
    added: float = 0.0

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, _KINDS)
        check_number("added", self.added, low=0)
        if self.roll_off is not None:
            check_number("roll_off", self.roll_off, low=0, high=1, open_low=True)
        check_number("ridge", self.ridge, low=0)

    def fit(
        self, data: Any, *, batch_size: int = 4096, max_samples: int | None = None
    ) -> FittedPreprocessing:
        """Estimate what `kind` needs in one pass over `data`.

        Parameters
        ----------
        data : Source, or anything that `open_source` takes
            Of n_features columns.
        batch_size : int
            Rows read at a time; the result doesn't depend on it, up to rounding.
        max_samples : int, optional
            Use only the first this many rows. All by default; 16 384 of a stream, which
            gives them again afterwards, so that none is lost to the training.

        Returns
        -------
        FittedPreprocessing

        Raises
        ------
        ArgumentError
            If the data holds NaN or infinity, or is constant and to be whitened.
        """
        source = open_source(data)
        if max_samples is not None:
            check_count("max_samples", max_samples)
        estimate = _KINDS[self.kind].fit
        rows = _first_batches(source, check_count("batch_size", batch_size), max_samples)
        return FittedPreprocessing(self, source.n_features, estimate(self, rows))

    def as_dict(self) -> dict[str, Any]:
        """The parameters, for a config file: ``Preprocessing(**spec.as_dict()) == spec``."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class FittedPreprocessing:
    """Preprocessing with its numbers: applies to batches, and undoes what it did.

    Made by `Preprocessing.fit` or `from_tensors`.

    Attributes
    ----------
    spec : Preprocessing
        What was asked for.
    n_features : int
        Columns.
    arrays : dict of str to ndarray
        float64. ``mean`` (n,); ``std`` (n,) of scaling; ``eigenvectors`` (n, n) as columns, or
        (n, r) where fewer rows than features were fitted, ``variances`` (n,) descending and
        ``gain`` (n,) of whitening.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.data import Preprocessing, open_source
    >>> fitted = Preprocessing("center").fit(open_source(np.array([[0.0, 1.0], [2.0, 3.0]])))
    >>> fitted.apply(np.array([[4.0, 4.0]]))
    array([[3., 2.]])
    >>> fitted.undo(np.array([[3.0, 2.0]]))
    array([[4., 4.]])
    """

    spec: Preprocessing
    n_features: int
    arrays: dict[str, NDArray[np.float64]]
    _maps: tuple[Any, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_maps", _KINDS[self.spec.kind].maps(self.arrays))

    def apply(self, batch: NDArray) -> NDArray:
        """Preprocess rows.

        Parameters
        ----------
        batch : ndarray of shape (rows, n_features)
            Not written to.

        Returns
        -------
        ndarray of shape (rows, n_features)
            Of `batch`'s float dtype (float64 for whole numbers); computed in float64. For
            ``none``, `batch` itself.

        Raises
        ------
        ArgumentError
            If the shape is another.
        """
        return self._through(batch, _KINDS[self.spec.kind].apply)

    def undo(self, batch: NDArray) -> NDArray:
        """The inverse of `apply`, up to rounding; same shapes, same errors."""
        return self._through(batch, _KINDS[self.spec.kind].undo)

    def _through(self, batch: NDArray, function: Callable[..., NDArray]) -> NDArray:
        if batch.ndim != 2 or batch.shape[1] != self.n_features:
            raise ArgumentError("batch", f"shape {batch.shape}", f"(rows, {self.n_features})")
        if not self._maps:
            return batch
        dtype = batch.dtype if batch.dtype.kind == "f" else np.dtype(np.float64)
        return function(batch.astype(np.float64), *self._maps).astype(dtype, copy=False)

    def through(self, source: Source) -> Source:
        """`source` with every batch, row and draw passed through :meth:`apply`."""
        return source if self.spec.kind == "none" else View(source, self.apply)

    def affine(self) -> tuple[NDArray, Callable[[NDArray], NDArray], Callable[[NDArray], NDArray]]:
        """The parts of `apply`, z = there(y - mean), and of `undo`, y = back(z) + mean.

        Returns
        -------
        mean : ndarray of shape (n_features,)
        there, back : callable
            Products of rows (B, n_features) with symmetric matrices, inverse to each other.

        Raises
        ------
        ArgumentError
            Where each row is scaled by itself, which is no product with a matrix.
        """
        if self.spec.kind == "samples":
            needed = "another preprocessing: one map for all rows"
            raise ArgumentError("preprocessing", "'samples', to be folded into weights", needed)
        if self.spec.kind == "whiten":
            mean, there, back = self._maps
            return mean, there, back
        std = self.arrays.get("std", np.ones(self.n_features))
        mean = self.arrays.get("mean", np.zeros(self.n_features))
        return mean, lambda y: y / std, lambda z: z * std

    def tensors(self) -> dict[str, NDArray]:
        """All numbers by name, for safetensors; `from_tensors` takes them back."""
        return {"n_features": np.array([self.n_features], dtype=np.int64), **self.arrays}

    @classmethod
    def from_tensors(
        cls, spec: Preprocessing, tensors: Mapping[str, NDArray]
    ) -> FittedPreprocessing:
        """The fitted preprocessing that gave `tensors`.

        Raises
        ------
        ArgumentError
            If an array is missing or of another shape.

        Examples
        --------
        >>> import numpy as np
        >>> fitted = Preprocessing("whiten").fit(np.eye(3))
        >>> again = FittedPreprocessing.from_tensors(fitted.spec, fitted.tensors())
        >>> bool((again.apply(np.eye(3)) == fitted.apply(np.eye(3))).all())
        True
        """
        wanted = _KINDS[spec.kind].arrays
        missing = [name for name in ("n_features", *wanted) if name not in tensors]
        if missing:
            raise ArgumentError(
                "tensors", f"no {', '.join(missing)}", f"the arrays of kind {spec.kind!r}"
            )
        n = int(np.asarray(tensors["n_features"]).item())
        arrays = {name: np.asarray(tensors[name], dtype=np.float64) for name in wanted}
        for name, array in arrays.items():
            expected = (n, n) if name == "eigenvectors" else (n,)
            few = name == "eigenvectors" and array.ndim == 2 and 0 < array.shape[1] < n
            if array.shape != ((n, array.shape[1]) if few else expected):
                raise ArgumentError("tensors", f"{name} of shape {array.shape}", str(expected))
        return cls(spec, n, arrays)


def _first_batches(source: Source, size: int, limit: int | None) -> Iterable[NDArray]:
    if source.n_samples is None:  # its next rows, which it keeps: nothing is random
        yield source.draw(limit or STREAM_ROWS, np.random.default_rng(0), strict=False)
        return
    left = limit if limit is not None else source.n_samples
    for batch in source.batches(source.rows_at_once(size)):
        yield batch[:left]
        left -= len(batch)
        if left <= 0:
            return


# --- one row a kind: what it estimates, what it derives from that, there and back ----------


def _fit_none(spec: Preprocessing, batches: Iterable[NDArray]) -> dict[str, NDArray]:
    return {}


def _fit_center(spec: Preprocessing, batches: Iterable[NDArray]) -> dict[str, NDArray]:
    return {"mean": moments(batches, full=False).mean}


def _fit_scale(spec: Preprocessing, batches: Iterable[NDArray]) -> dict[str, NDArray]:
    found = moments(batches, full=False)
    std = np.sqrt(found.scatter / found.n_samples)
    # A constant feature's mean is rounded, so its deviation isn't quite 0. Some dozens of
    # roundings; float data that varies less than this around its mean can't show it.
    constant = std <= 64 * np.finfo(np.float64).eps * np.abs(found.mean)
    # With something added, a constant feature is as quiet as it should be.
    return {
        "mean": found.mean,
        "std": np.where(constant & (spec.added == 0), 1.0, std + spec.added),
    }


def _fit_samples(spec: Preprocessing, batches: Iterable[NDArray]) -> dict[str, NDArray]:
    first = next(iter(batches), None)
    if first is None:
        raise ArgumentError("batches", "no batch", "at least one")
    return {"added": np.full(first.shape[1], spec.added)}


def _standardized(y: NDArray, added: NDArray) -> NDArray:
    centred = y - y.mean(axis=1, keepdims=True)
    std = centred.std(axis=1, keepdims=True) + added[:1]
    return np.asarray(centred / np.where(std > 0, std, 1.0))


def _not_undone(z: NDArray, added: NDArray) -> NDArray:
    needed = "another preprocessing: each sample's own mean and scale are gone"
    raise ArgumentError("preprocessing", "'samples', to be undone", needed)


def principal(batches: Iterable[NDArray]) -> tuple[NDArray, NDArray, NDArray]:
    """Mean (n,), variances (n,) in descending order, and directions (n, r) of a flow of batches.

    Of fewer rows than features, r directions may be all that have a variance: no array is then
    larger than the rows are, and time is linear in n. Else r = n.
    """
    flow, held, count = iter(batches), [], 0
    for batch in flow:
        held.append(batch)
        count += len(batch)
        if count > batch.shape[1] or batch.shape[1] <= _NARROW:
            break
    else:
        if held:
            return _of_few(np.concatenate(held))
    found = moments(chain(held, flow), full=True)
    variances, vectors = np.linalg.eigh(found.scatter / found.n_samples)
    return found.mean, variances[::-1].clip(min=0), vectors[:, ::-1]


def _of_few(rows: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    found = moments([rows], full=False)  # refuses what isn't finite
    _, scales, directions = np.linalg.svd(rows - found.mean, full_matrices=False)
    variances = np.zeros(rows.shape[1])
    variances[: len(scales)] = scales**2 / len(rows)
    return found.mean, variances, directions.T


def _fit_whiten(spec: Preprocessing, batches: Iterable[NDArray]) -> dict[str, NDArray]:
    mean, variances, vectors = principal(batches)
    rounding = 64 * np.finfo(np.float64).eps * np.abs(mean).max()
    if variances[0] <= rounding**2:
        raise ArgumentError("data", "rows that are all the same", "data that varies, to whiten it")
    return {
        "mean": mean,
        "eigenvectors": np.ascontiguousarray(vectors),
        "variances": np.ascontiguousarray(variances),
        "gain": whitening_gain(variances, spec.roll_off, spec.ridge),
    }


def whitening_gain(
    variances: NDArray[np.float64], roll_off: float | None, ridge: float
) -> NDArray[np.float64]:
    """Gain of each direction, given the variances in descending order, shape (n,).

    See `Preprocessing` for the formula; all gains are > 0.
    """
    threshold = DEGENERATE * variances[0]
    rank = np.arange(len(variances)) / len(variances)
    low_pass = np.ones_like(rank) if roll_off is None else np.exp(-((rank / roll_off) ** 4))
    low_pass[variances < threshold] = 0
    powers = np.maximum(variances, threshold) + ridge * variances.mean()
    return np.maximum(low_pass, FLOOR) / np.sqrt(powers)


def _symmetric(vectors: NDArray, gain: NDArray) -> Callable[[NDArray], NDArray]:
    """What multiplies the directions of rows (B, n) by `gain` (n,)."""
    n, r = vectors.shape
    if n == r:
        return partial(_times, matrix=(vectors * gain) @ vectors.T)
    # Outside the span of the r directions all gains are that of the last.
    return partial(_within_span, vectors=vectors, within=gain[:r] - gain[-1], beyond=gain[-1])


def _times(rows: NDArray, matrix: NDArray) -> NDArray:
    return rows @ matrix


def _within_span(rows: NDArray, vectors: NDArray, within: NDArray, beyond: float) -> NDArray:
    return beyond * rows + ((rows @ vectors) * within) @ vectors.T


class _Kind(NamedTuple):
    arrays: tuple[str, ...]
    fit: Callable[[Preprocessing, Iterable[NDArray]], dict[str, NDArray]]
    maps: Callable[[dict[str, NDArray]], tuple[Any, ...]]
    apply: Callable[..., NDArray]
    undo: Callable[..., NDArray]


_KINDS = {
    "none": _Kind((), _fit_none, lambda a: (), lambda y: y, lambda y: y),
    "center": _Kind(
        ("mean",),
        _fit_center,
        lambda a: (a["mean"],),
        lambda y, mean: y - mean,
        lambda z, mean: z + mean,
    ),
    "scale": _Kind(
        ("mean", "std"),
        _fit_scale,
        lambda a: (a["mean"], a["std"]),
        lambda y, mean, std: (y - mean) / std,
        lambda z, mean, std: z * std + mean,
    ),
    "samples": _Kind(("added",), _fit_samples, lambda a: (a["added"],), _standardized, _not_undone),
    "whiten": _Kind(
        ("mean", "eigenvectors", "variances", "gain"),
        _fit_whiten,
        lambda a: (
            a["mean"],
            _symmetric(a["eigenvectors"], a["gain"]),
            _symmetric(a["eigenvectors"], 1 / a["gain"]),
        ),
        lambda y, mean, there, back: there(y - mean),
        lambda z, mean, there, back: back(z) + mean,
    ),
}

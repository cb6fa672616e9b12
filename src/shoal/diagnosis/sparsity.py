"""How sparse the codes are, which atoms are used, and how well the data are rebuilt.

One accumulator, :class:`CodeStatistics`, holds every number; it is fed batches, and the plain
functions are the case of one batch. All sums are in float64.

**Explained variance** is defined here as 1 - FVU with

    FVU = sum |y - y_hat|^2 / sum |y - mean(y)|^2

over all samples and all features: *one* ratio of sums, with the squared error itself. A
reconstruction that is off by a constant, or shrunk, is charged for it. SAELens and sparsify
say the same; dictionary_learning and overcomplete use the *variance* of the residual instead,
which forgives a constant offset (on one biased reconstruction .63 against .95). It is neither a
mean of ratios per feature nor per sample. scikit-learn's
``r2_score(..., multioutput="variance_weighted")`` is the same number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from shoal.diagnosis._arrays import (
    Floats,
    Integers,
    as_finite,
    as_matrix,
    check_matrix,
    check_same,
    finite_or_none,
    row_blocks,
    unit_rows,
)
from shoal.vocabulary import ArgumentError, active, check_number

__all__ = [
    "CodeStatistics",
    "Diagnosis",
    "activation_fraction",
    "atom_activation",
    "dead_atoms",
    "duplicate_atoms",
    "explained_variance",
    "fvu",
    "l0",
    "mse",
]


# --- codes ------------------------------------------------------------------------------------


class _CodeSums(NamedTuple):
    """What is summed of codes; two of them add entry by entry."""

    n_samples: int
    fired: Integers  # (m,) samples on which each unit is active
    energy: Floats  # (m,) sum of x^2
    histogram: Integers  # (m + 1,) samples with 0, 1, ..., m active units

    def plus(self, other: _CodeSums) -> _CodeSums:
        return _CodeSums(
            self.n_samples + other.n_samples,
            self.fired + other.fired,
            self.energy + other.energy,
            self.histogram + other.histogram,
        )


def _code_sums(codes: Any) -> _CodeSums:
    matrix = check_matrix("codes", codes)
    n_samples, m = matrix.shape
    fired = np.zeros(m, dtype=np.int64)
    histogram = np.zeros(m + 1, dtype=np.int64)
    energy = np.zeros(m)
    # `size` is the number of entries held: N m, or of a CSR those that are stored.
    for rows in row_blocks(n_samples, max(1, matrix.size // n_samples)):
        block = matrix[rows]  # (B, m)
        if hasattr(block, "indptr"):  # a CSR, whose rows are a copy; zeros are not looked at
            block.sum_duplicates()
            block.eliminate_zeros()
            values = as_finite("codes", block.data)
            fired += np.bincount(block.indices, minlength=m)
            counts = np.diff(block.indptr)
            energy += np.bincount(block.indices, weights=values * values, minlength=m)
        else:
            values = as_finite("codes", block)
            on = active(values)
            fired += on.sum(axis=0)
            counts = on.sum(axis=1)
            energy += np.einsum("ij,ij->j", values, values)
        histogram += np.bincount(counts, minlength=m + 1)
    return _CodeSums(int(n_samples), fired, energy, histogram)


def activation_fraction(codes: Any) -> float:
    """The fraction of the entries of `codes` that are active: L0 divided by m.

    Parameters
    ----------
    codes : array or scipy.sparse of shape (n_samples, m)
        The codes.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ArgumentError
        If `codes` is not 2-d, is empty or is not finite.

    Examples
    --------
    >>> from shoal.diagnosis import activation_fraction
    >>> activation_fraction([[0.0, 2.0], [0.0, 0.0]])
    0.25
    """
    return float(atom_activation(codes).mean())


def atom_activation(codes: Any) -> Floats:
    """The fraction of the samples on which each unit is active.

    Parameters
    ----------
    codes : array or scipy.sparse of shape (n_samples, m)
        The codes.

    Returns
    -------
    ndarray of shape (m,)
        In [0, 1]. Sparse-autoencoder papers call it the firing frequency, or the feature
        density.

    Raises
    ------
    ArgumentError
        If `codes` is not 2-d, is empty or is not finite.

    Examples
    --------
    >>> from shoal.diagnosis import atom_activation
    >>> atom_activation([[0.0, 2.0], [0.0, 0.0]]).tolist()
    [0.0, 0.5]
    """
    sums = _code_sums(codes)
    return np.asarray(sums.fired / sums.n_samples)


def l0(codes: Any) -> float:
    """The mean number of active units a sample.

    Parameters
    ----------
    codes : array or scipy.sparse of shape (n_samples, m)
        The codes.

    Returns
    -------
    float
        In [0, m].

    Raises
    ------
    ArgumentError
        If `codes` is not 2-d, is empty or is not finite.

    Examples
    --------
    >>> from shoal.diagnosis import l0
    >>> l0([[0.0, 2.0, -1.0], [0.0, 0.0, 3.0]])
    1.5
    """
    sums = _code_sums(codes)
    return float(sums.fired.sum() / sums.n_samples)


def dead_atoms(activation: Any, threshold: float = 0.0) -> Integers:
    """The atoms that are active on at most a fraction `threshold` of the samples.

    Parameters
    ----------
    activation : array of shape (m,)
        From :func:`atom_activation`.
    threshold : float
        In [0, 1]. At 0 only atoms that were never active are dead.

    Returns
    -------
    ndarray of int64
        Their indices, ascending.

    Raises
    ------
    ArgumentError
        If `activation` is not 1-d, is empty or leaves [0, 1], or `threshold` does.

    Examples
    --------
    >>> from shoal.diagnosis import dead_atoms
    >>> dead_atoms([0.2, 0.0, 0.001]).tolist()
    [1]
    >>> dead_atoms([0.2, 0.0, 0.001], threshold=0.01).tolist()
    [1, 2]
    """
    limit = check_number("threshold", threshold, low=0.0, high=1.0)
    fractions = np.asarray(activation)
    if fractions.ndim != 1 or fractions.size == 0:
        raise ArgumentError("activation", f"shape {fractions.shape}", "a non-empty 1-d array")
    fractions = as_matrix("activation", fractions[None])[0]
    if fractions.min() < 0 or fractions.max() > 1:
        raise ArgumentError(
            "activation",
            f"values from {fractions.min():g} to {fractions.max():g}",
            "fractions of the samples, in [0, 1] (atom_activation makes them from codes)",
        )
    return np.flatnonzero(fractions <= limit)


def duplicate_atoms(dictionary: Any, threshold: float = 0.95) -> list[tuple[int, int, float]]:
    """Pairs of atoms that point the same way, or opposite ways.

    Parameters
    ----------
    dictionary : array of shape (m, n)
        Atoms as rows, of any length. Zero rows are nobody's duplicates.
    threshold : float
        The least |cosine| that counts, in (0, 1]. .95 is arbitrary: an angle of 18 degrees.

    Returns
    -------
    list of (int, int, float)
        (i, j, cosine) with i < j and the signed cosine, the largest |cosine| first.

    Raises
    ------
    ArgumentError
        If `dictionary` is not 2-d, is empty or is not finite, or `threshold` is out of range.

    Examples
    --------
    >>> from shoal.diagnosis import duplicate_atoms
    >>> duplicate_atoms([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0]])
    [(0, 2, -1.0)]
    """
    limit = check_number("threshold", threshold, low=0.0, high=1.0, open_low=True)
    atoms = unit_rows(as_matrix("dictionary", dictionary))
    m = len(atoms)
    pairs = []
    for rows in row_blocks(m, m):
        cosines = np.clip(atoms[rows] @ atoms.T, -1.0, 1.0)  # (B, m)
        below, right = np.nonzero(np.abs(cosines) >= limit)
        pairs += [
            (int(i + rows.start), int(j), float(cosines[i, j]))
            for i, j in zip(below, right, strict=True)
            if i + rows.start < j
        ]
    return sorted(pairs, key=lambda pair: (-abs(pair[2]), pair[:2]))


# --- reconstruction ---------------------------------------------------------------------------


# Shares of a row's square, in bins: of what is left of it, how many rows have as much. Fine enough
# for a median of three digits, and down to what rounding leaves. Arbitrary.
_BINS = np.concatenate(
    [[0.0], np.logspace(-16, -3, 261), np.linspace(1e-3, 1.0, 2000)[1:], [2.0, np.inf]]
)


class _DataSums(NamedTuple):
    """What is summed of data and their reconstruction."""

    n_samples: int
    mean: Floats  # (n,) of the data
    scatter: float  # sum |y - mean|^2
    error: float  # sum |y - y_hat|^2
    shares: Integers  # (bins,) rows by |y - y_hat|^2 / |y|^2
    seen: Integers | None = None  # (n,) entries of each feature, where some are missing

    def plus(self, other: _DataSums) -> _DataSums:
        shares = self.shares + other.shares
        if self.seen is not None and other.seen is not None:
            both, shift = self.seen + other.seen, other.mean - self.mean
            weight = other.seen / both.clip(1)
            return _DataSums(
                self.n_samples + other.n_samples,
                self.mean + shift * weight,
                self.scatter + other.scatter + float((shift**2 * self.seen) @ weight),
                self.error + other.error,
                shares,
                both,
            )
        # Chan, Golub, LeVeque 1983: sums of squares about the means, merged without
        # cancellation however far the means lie from 0.
        total = self.n_samples + other.n_samples
        shift = other.mean - self.mean
        between = self.n_samples * other.n_samples / total
        return _DataSums(
            total,
            self.mean + shift * (other.n_samples / total),
            self.scatter + other.scatter + float(shift @ shift) * between,
            self.error + other.error,
            shares,
        )


def _row_shares(residual: Floats, y: Floats) -> Integers:
    left = np.einsum("ij,ij->i", residual, residual)
    square = np.einsum("ij,ij->i", y, y)
    some = square > 0
    share = np.divide(left, square, out=np.where(left > 0, np.inf, 0.0), where=some)
    place = np.searchsorted(_BINS, share, side="right") - 1
    return np.bincount(place.clip(0, len(_BINS) - 2), minlength=len(_BINS) - 1)


def _middle_share(shares: Integers) -> float:
    """The median of shares in bins."""
    half = shares.sum() / 2
    place = int(np.searchsorted(np.cumsum(shares), half))
    low, high = _BINS[place], min(_BINS[place + 1], 2.0)
    before = shares[:place].sum()
    return float(low + (high - low) * (half - before) / shares[place])


def _seen_sums(data: Any, reconstruction: Any) -> _DataSums:
    """:func:`_data_sums` of the entries of `data` that are not NaN."""
    given, rebuilt = np.asarray(data), check_matrix("reconstruction", reconstruction)
    check_same("reconstruction", "samples", rebuilt.shape[0], given.shape[0], "data")
    check_same("reconstruction", "features", rebuilt.shape[1], given.shape[1], "data")
    sums = None
    for rows in row_blocks(*given.shape):
        there = ~np.isnan(given[rows])
        y = as_finite("data", np.where(there, given[rows], 0.0))
        residual = np.where(there, y - as_finite("reconstruction", rebuilt[rows]), 0.0)
        seen = there.sum(axis=0)
        mean = y.sum(axis=0) / seen.clip(1)
        centred = np.where(there, y - mean, 0.0)
        block = _DataSums(
            len(y),
            mean,
            float(np.vdot(centred, centred)),
            float(np.vdot(residual, residual)),
            _row_shares(residual, y),
            seen,
        )
        sums = block if sums is None else sums.plus(block)
    assert sums is not None
    return sums


def _data_sums(data: Any, reconstruction: Any) -> _DataSums:
    given, rebuilt = check_matrix("data", data), check_matrix("reconstruction", reconstruction)
    check_same("reconstruction", "samples", rebuilt.shape[0], given.shape[0], "data")
    check_same("reconstruction", "features", rebuilt.shape[1], given.shape[1], "data")
    sums = None
    for rows in row_blocks(*given.shape):
        y = as_finite("data", given[rows])  # (B, n)
        residual = y - as_finite("reconstruction", rebuilt[rows])  # (B, n)
        # About the first row rather than 0, so that constant data have scatter exactly 0.
        centred = y - y[0]
        offset = centred.mean(axis=0)
        centred -= offset
        block = _DataSums(
            len(y),
            y[0] + offset,
            float(np.vdot(centred, centred)),
            float(np.vdot(residual, residual)),
            _row_shares(residual, y),
        )
        sums = block if sums is None else sums.plus(block)
    assert sums is not None  # check_matrix refuses empty data
    return sums


def _mse(sums: _DataSums) -> float:
    entries = sums.n_samples * len(sums.mean) if sums.seen is None else int(sums.seen.sum())
    return sums.error / entries


def _fvu(sums: _DataSums) -> float:
    return sums.error / sums.scatter if sums.scatter > 0 else float("nan")


def mse(data: Any, reconstruction: Any) -> float:
    """The mean squared error, over samples *and* features.

    Multiply by n for the mean of |y - y_hat|^2 a sample, and by n / 2 for the papers' loss.

    Parameters
    ----------
    data, reconstruction : array of shape (n_samples, n_features)
        The data and what the codes make of them.

    Returns
    -------
    float

    Raises
    ------
    ArgumentError
        If an array is not 2-d, is empty or is not finite, or the shapes differ.

    Examples
    --------
    >>> from shoal.diagnosis import mse
    >>> mse([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 2.0]])
    1.0
    """
    return _mse(_data_sums(data, reconstruction))


def fvu(data: Any, reconstruction: Any) -> float:
    """The fraction of variance unexplained, sum |y - y_hat|^2 / sum |y - mean(y)|^2.

    One ratio of sums over all samples and features. 0 is a perfect reconstruction, 1 is as
    good as the mean of the data; it can be larger.

    Parameters
    ----------
    data, reconstruction : array of shape (n_samples, n_features)
        The data and what the codes make of them.

    Returns
    -------
    float
        NaN where the data do not vary (a single sample, say): there is no variance to explain.

    Raises
    ------
    ArgumentError
        If an array is not 2-d, is empty or is not finite, or the shapes differ.

    Examples
    --------
    >>> from shoal.diagnosis import fvu
    >>> fvu([[1.0], [3.0]], [[1.0], [2.0]])
    0.5
    """
    return _fvu(_data_sums(data, reconstruction))


def explained_variance(data: Any, reconstruction: Any) -> float:
    """1 - :func:`fvu`: one ratio of sums over all features, with the squared error.

    A biased reconstruction is charged for its bias: the residual's mean is *not* subtracted,
    and features are not averaged one by one. SAELens and sparsify agree; dictionary_learning
    and overcomplete take the variance of the residual, which is kinder (.95 for .63 on one
    biased reconstruction). It equals scikit-learn's ``r2_score`` with
    ``multioutput="variance_weighted"``.

    Parameters, returns and errors are those of :func:`fvu`.

    Examples
    --------
    A reconstruction off by a constant loses, though its residual has no variance.

    >>> from shoal.diagnosis import explained_variance
    >>> explained_variance([[1.0], [3.0]], [[2.0], [4.0]])
    0.0
    """
    return 1.0 - fvu(data, reconstruction)


# --- both, over batches -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """What :class:`CodeStatistics` found.

    Attributes
    ----------
    n_samples, n_features : int
        The data seen.
    l0 : float
        Mean number of active units a sample.
    activation_fraction : float
        l0 / m.
    atom_activation : ndarray of shape (m,)
        Fraction of the samples on which each unit is active.
    atom_energy : ndarray of shape (m,)
        Mean of x^2 of each unit over all samples.
    dead : ndarray of int64
        Units that were never active.
    histogram : ndarray of shape (m + 1,), int64
        Entry k is the number of samples with exactly k active units.
    mse, fvu, explained_variance : float
        As the functions of those names; the last two are NaN where the data do not vary.
    row_explained : float
        The middle row's share of its own square that is explained, 1 - |y - y_hat|^2 / |y|^2,
        at least -1: where a few rows hold most of the square it tells of all the others. To three
        digits.
    """

    n_samples: int
    n_features: int
    l0: float
    activation_fraction: float
    atom_activation: Floats
    atom_energy: Floats
    dead: Integers
    histogram: Integers
    mse: float
    fvu: float
    explained_variance: float
    row_explained: float = float("nan")

    def to_dict(self, *, atoms: bool = False) -> dict[str, Any]:
        """The numbers for JSON; with `atoms`, also those of every atom and the histogram."""
        numbers: dict[str, Any] = {
            "n_samples": self.n_samples,
            "n_features": self.n_features,
            "n_atoms": len(self.atom_activation),
            "l0": self.l0,
            "activation_fraction": self.activation_fraction,
            "n_dead": len(self.dead),
            "mse": self.mse,
            "fvu": finite_or_none(self.fvu),
            "explained_variance": finite_or_none(self.explained_variance),
            "row_explained": finite_or_none(self.row_explained),
        }
        if atoms:
            numbers |= {
                "atom_activation": self.atom_activation.tolist(),
                "atom_energy": self.atom_energy.tolist(),
                "dead": self.dead.tolist(),
                "histogram": self.histogram.tolist(),
            }
        return numbers

    def __str__(self) -> str:
        m = len(self.atom_activation)
        return (
            f"{self.n_samples} samples: {self.l0:.4g} of {m} units active on average "
            f"({self.activation_fraction:.2%}), {len(self.dead)} never; explained variance "
            f"{self.explained_variance:.4f} (FVU {self.fvu:.4g}), of the middle row's square "
            f"{self.row_explained:.4f}, mean squared error {self.mse:.4g}."
        )

    def __repr__(self) -> str:
        return (
            f"Diagnosis(n_samples={self.n_samples}, m={len(self.atom_activation)}, "
            f"l0={self.l0:.4g}, n_dead={len(self.dead)}, "
            f"explained_variance={self.explained_variance:.4g})"
        )


class CodeStatistics:
    """Sparsity and reconstruction of a stream of batches, in memory of size m + n.

    The result does not depend on how the samples are cut into batches, up to rounding in
    float64.

    Parameters
    ----------
    missing : bool
        Whether NaN in the data is an entry that is missing, and counts for nothing; else it is
        refused.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.diagnosis import CodeStatistics
    >>> data = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    >>> statistics = CodeStatistics()
    >>> for batch in (data[:2], data[2:]):
    ...     _ = statistics.update(batch, codes=batch, reconstruction=batch)
    >>> result = statistics.result()
    >>> result.n_samples, result.l0, result.histogram.tolist(), result.explained_variance
    (3, 1.0, [0, 3, 0], 1.0)
    """

    def __init__(self, *, missing: bool = False) -> None:
        self._missing = missing
        self._codes: _CodeSums | None = None
        self._data: _DataSums | None = None

    def update(self, data: Any, codes: Any, reconstruction: Any) -> Self:
        """Add a batch.

        Parameters
        ----------
        data : array of shape (batch, n)
            The data.
        codes : array or scipy.sparse of shape (batch, m)
            Their codes.
        reconstruction : array of shape (batch, n)
            What the codes make of them.

        Returns
        -------
        CodeStatistics
            Itself.

        Raises
        ------
        ArgumentError
            If an array is not 2-d, is empty or is not finite, if the shapes do not fit each
            other or those of the batches before. Nothing has been added then.
        """
        summed = _seen_sums if self._missing else _data_sums
        code_sums, data_sums = _code_sums(codes), summed(data, reconstruction)
        check_same("codes", "samples", code_sums.n_samples, data_sums.n_samples, "data")
        self._add(code_sums, data_sums)
        return self

    def merge(self, other: CodeStatistics) -> Self:
        """Add what another one has seen (another worker's, say); `other` stays as it is.

        Raises
        ------
        ArgumentError
            If the two saw data of different n or codes of different m.
        """
        if other._codes is not None and other._data is not None:
            self._add(other._codes, other._data)
        return self

    def result(self) -> Diagnosis:
        """The numbers so far; more batches may follow.

        Raises
        ------
        ArgumentError
            If there was no batch yet.
        """
        codes, data = self._codes, self._data
        if codes is None or data is None:
            raise ArgumentError("samples", "none", "at least one update before result()")
        activation = codes.fired / codes.n_samples
        unexplained = _fvu(data)
        return Diagnosis(
            n_samples=codes.n_samples,
            n_features=len(data.mean),
            l0=float(codes.fired.sum() / codes.n_samples),
            activation_fraction=float(activation.mean()),
            atom_activation=activation,
            atom_energy=codes.energy / codes.n_samples,
            dead=dead_atoms(activation),
            histogram=codes.histogram.copy(),
            mse=_mse(data),
            fvu=unexplained,
            explained_variance=1.0 - unexplained,
            row_explained=1.0 - _middle_share(data.shares),
        )

    def _add(self, codes: _CodeSums, data: _DataSums) -> None:
        if self._codes is None or self._data is None:
            self._codes, self._data = codes, data
            return
        before = "the batches before"
        check_same("codes", "units", len(codes.fired), len(self._codes.fired), before)
        check_same("data", "features", len(data.mean), len(self._data.mean), before)
        self._codes, self._data = self._codes.plus(codes), self._data.plus(data)

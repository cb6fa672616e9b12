"""What a report says of each atom: the rows that fire it, how strongly, what fires with it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = ["Portraits", "pictured", "strongest_and_quantiles"]

# Arbitrary: atoms that are told of, bars of a histogram, atoms that fire with one; and the codes
# that are kept at most, some 200 MB.
MOST_ATOMS, BINS, TOGETHER = 1024, 24, 3
_MOST_CODES = 2**24
# Arbitrary: entries of a dictionary that is still told of, and pairs of active units that are
# counted.
_MOST_ENTRIES, _MOST_PAIRS = 2**26, 2**28
TOP, QUANTILES = 8, 10
# Arbitrary: numbers of the rows that are drawn, a byte each, in a page that is to stay below 5 MB.
_MOST_LEVELS = 2**20


class Portraits:
    """Gathers, in one pass over codes, what is told of each atom.

    Parameters
    ----------
    dictionary : ndarray of shape (n_components, n_features)
        What codes are multiplied by.
    index : ndarray of shape (n_samples,)
        Which rows of the source will come, in their order.
    """

    def __init__(self, dictionary: NDArray[Any], index: NDArray[np.intp]) -> None:
        m, n = dictionary.shape
        self._dictionary, self._index = dictionary, index
        fits = m * n <= _MOST_ENTRIES
        self._toward = np.zeros((m, n) if fits else 0)  # X^T (Y - X D)
        self._square, self._sum = 0.0, np.zeros(n)
        self._blocks: list[sparse.csr_array] | None = [] if fits else None
        self._kept = 0

    def update(self, data: NDArray[Any], codes: Any, rebuilt: NDArray[Any]) -> None:
        """Add rows (B, n), their codes (B, m) and what these make of them (B, n)."""
        if self._blocks is None:
            return
        found = sparse.csr_array(codes)
        found.eliminate_zeros()
        self._kept += found.nnz
        if self._kept > _MOST_CODES or not np.isfinite(data).all():  # NaN: values that are missing
            self._blocks = None
            return
        self._blocks.append(found)
        wide = data.astype(np.float64)
        self._toward += found.T.astype(np.float64) @ (wide - rebuilt)
        self._sum += wide.sum(axis=0)
        self._square += float(np.square(wide).sum())

    def result(self) -> dict[str, Any] | None:
        """Plain values for JSON; None where they would take too much room, or rows have gaps.

        ``atoms``, those of largest energy first, each with its number; ``top`` and ``quantiles``,
        lists of ``[row, code]``, strongest first; ``histogram`` of its codes between ``range``;
        ``together``, lists of ``[atom, share]`` of its rows on which the other is active too; and
        ``lost``, the explained variance that goes with it when its codes are set to 0.
        """
        if not self._blocks:
            return None
        codes = sparse.csc_array(sparse.vstack(self._blocks))
        squares = np.asarray(codes.multiply(codes).sum(axis=0)).ravel().astype(np.float64)
        order = np.argsort(-squares, kind="stable")[:MOST_ATOMS]
        order = order[squares[order] > 0]
        total = self._square - float(np.square(self._sum).sum()) / codes.shape[0]
        # |r + x d|^2 - |r|^2 = 2 x <r, d> + x^2 |d|^2, summed over the rows.
        wide = self._dictionary.astype(np.float64)
        lost = 2 * (self._toward * wide).sum(axis=1)
        lost += squares * np.square(wide).sum(axis=1)
        together = _together(codes, order)
        atoms = []
        for place, atom in enumerate(order.tolist()):
            values = codes.data[codes.indptr[atom] : codes.indptr[atom + 1]]
            low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
            parts = strongest_and_quantiles(codes, atom)
            told = [
                [[int(self._index[row]), _short(value)] for row, value in part] for part in parts
            ]
            atoms.append(
                {
                    "atom": atom,
                    "top": told[0],
                    "quantiles": told[1],
                    "histogram": np.histogram(values, BINS, (low, high))[0].tolist(),
                    "range": [_short(low), _short(high)],
                    "together": together[place],
                    "lost": _short(lost[atom] / total) if total > 0 else None,
                }
            )
        return {"n_samples": int(codes.shape[0]), "atoms": atoms}


def strongest_and_quantiles(
    codes: Any, atom: int
) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Rows and codes of the strongest, and of those at ten quantiles, of a column of a CSC."""
    part = slice(codes.indptr[atom], codes.indptr[atom + 1])
    rows: NDArray[np.intp] = codes.indices[part]
    values: NDArray[Any] = codes.data[part]
    order = np.argsort(-np.abs(values), kind="stable")
    rows, values = rows[order], values[order]
    places = ((np.arange(QUANTILES) + 0.5) / QUANTILES * len(rows)).astype(np.intp)

    def listed(at: Any) -> list[tuple[int, float]]:
        return list(zip(rows[at].tolist(), values[at].astype(float).tolist(), strict=True))

    return listed(slice(TOP)), listed(np.unique(places))


def pictured(
    told: dict[str, Any], rows: NDArray[Any], index: NDArray[np.intp], shape: Sequence[int]
) -> dict[str, Any]:
    """The rows that are told of, as pictures: the strongest of each atom first, as many as fit.

    ``numbers`` says which, ``levels`` are theirs from 0 (the row's least) to 255, packed by zlib.
    """
    parts = (each[part] for part in ("top", "quantiles") for each in told["atoms"])
    wanted = list(dict.fromkeys(row for part in parts for row, _ in part))
    wanted = wanted[: _MOST_LEVELS // rows.shape[1]]
    some = rows[np.searchsorted(index, wanted)].astype(np.float64)
    low = some.min(axis=1, keepdims=True)
    wide = np.maximum(some.max(axis=1, keepdims=True) - low, np.finfo(np.float64).tiny)
    levels = (255 * ((some - low) / wide)).round().astype(np.uint8)
    packed = base64.b64encode(zlib.compress(levels.tobytes(), 9)).decode("ascii")
    return {"numbers": wanted, "shape": list(shape), "levels": packed}


def _together(codes: Any, atoms: NDArray[np.intp]) -> list[list[list[float]]]:
    """Per atom of `atoms` the few whose firing correlates most with its own.

    None of any where nearly all units are active, and counting would take long.
    """
    if codes.nnz**2 / codes.shape[0] > _MOST_PAIRS:
        return [[] for _ in atoms]
    on = sparse.csc_array((np.ones(codes.nnz), codes.indices, codes.indptr), codes.shape)
    often = np.asarray(on.sum(axis=0)).ravel() / codes.shape[0]
    spread = np.sqrt(often * (1 - often))
    both = sparse.csr_array(on[:, atoms].T @ on)
    found = []
    for place, atom in enumerate(atoms.tolist()):
        part = slice(both.indptr[place], both.indptr[place + 1])
        others, joint = both.indices[part], both.data[part] / codes.shape[0]
        with np.errstate(divide="ignore", invalid="ignore"):  # an atom that is always active
            phi = (joint - often[atom] * often[others]) / (spread[atom] * spread[others])
        best = np.argsort(-np.where(np.isfinite(phi), phi, -1), kind="stable")[: TOGETHER + 1]
        with_it = [i for i in best.tolist() if others[i] != atom and phi[i] > 0][:TOGETHER]
        found.append([[int(others[i]), _short(joint[i] / often[atom])] for i in with_it])
    return found


def _short(value: float) -> float:
    return float(f"{value:.4g}")

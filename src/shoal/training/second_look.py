"""A second look at the rows, by the dictionary that a fit came to: some are not what they seemed.

Entries that are missing were filled with what is usual in their column; the dictionary says better
what they were. And where most rows are explained and a few are not at all, as no row is that has
one atom wrong, then these few are something else: they are left out, so that no atom is made of
them and no step goes astray by them. The fit then goes on from the dictionary that it has.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoal.data import Source
from shoal.data.access import View
from shoal.data.norms import norms_of, row_norms
from shoal.network.inference import Pursuit, fast_sparse_encode
from shoal.network.seen import filled
from shoal.training.constraints import unit_atoms
from shoal.training.state import Looked
from shoal.vocabulary import Parameters

__all__ = ["as_looked_at", "differs", "filled_with", "strange"]

# Rows are strange of whose square so much is left, where at least so many rows are explained but
# for so little, and strange ones are a few. Measured: random rows beside planted ones keep half of
# their square and more under as many atoms, and planted rows with one atom wrong mostly less; of
# activations, patches and digits the middle row keeps more than is let pass here, or hardly any
# row is strange.
_STRANGE, _EXPLAINED, _MOST_LEFT = 0.45, 0.5, 0.1
_FEWEST, _MOST = 0.004, 0.3
# Rows that miss an atom share a direction, which noise does not. Arbitrary: of noise beside planted
# rows it is 1.1, where a tenth of the atoms is missing, and of rows that wait for 28 atoms in 64
# features it would be 3.
_EVEN = 1.5
# Arbitrary: looks at most, how far the middle atom still moves where entries are missing, and by
# which part the number of strange rows is another.
_LOOKS, _STILL, _OTHER = 4, 1e-4, 0.1


def _residual(parameters: Parameters, rows: Tensor, pursuit: Pursuit) -> Tensor:
    """What `pursuit` leaves of `rows` (B, n)."""
    codes = fast_sparse_encode(parameters, rows, pursuit)
    residual = rows - codes.reconstruct(parameters.dictionary)
    return residual if parameters.offset is None else residual - parameters.offset


def _has_directions(residual: Tensor) -> bool:
    """Whether what is left of rows (B, n) lies along some directions more than along others.

    Of unit rows the mean square of two rows' cosine: 1/n where directions are uniform, and of rows
    that wait for one of r atoms 1/r or more.
    """
    unit = unit_atoms(residual.double())
    count, n = unit.shape
    concentration = float((unit.T @ unit / count).square().sum())
    return concentration > _EVEN * (1 / count + (1 - 1 / count) / n)


def strange(parameters: Parameters, rows: Tensor, pursuit: Pursuit) -> tuple[float, float, float]:
    """Which rows, by some of them (B, n), are strange.

    Returns
    -------
    share : float
        Those of whose square so much is left; 1 for none.
    bound : float
        And those that are longer: noise that is large in a few entries is explained by atoms that
        stand for these entries.
    found : float
        The share of the rows that this makes.
    """
    none = (1.0, math.inf, 0.0)
    m, n = parameters.dictionary.shape
    # What the best of m atoms take of any row, one after the other: of noise they leave nothing.
    if 2 * pursuit.k * math.log(max(m, 2)) > n:
        return none
    rows = rows[rows.any(dim=1)]
    if not len(rows):
        return none
    residual = _residual(parameters, rows, pursuit)
    shares = (residual.square().sum(dim=1) / rows.square().sum(dim=1)).double()
    explained = float((shares < _MOST_LEFT).double().mean())
    odd = float((shares > _STRANGE).double().mean())
    if explained < _EXPLAINED or not _FEWEST <= odd <= _MOST:
        return none
    if _has_directions(residual[shares > _STRANGE]):
        return none
    norms = row_norms(rows.double().cpu().numpy())
    bound = norms_of(norms).bound
    long = torch.from_numpy(norms > bound).to(rows.device)
    return _STRANGE, bound, float(((shares > _STRANGE) | long).double().mean())


def differs(now: Looked, before: Looked | None, *, gaps: bool) -> bool:
    """Whether rows look another way than they did, and not too often already.

    Without `gaps`, missing entries, it is the strange rows that count: by a better dictionary
    some of them are not.
    """
    if before is None:
        return gaps or now.share < 1.0
    if now.number > _LOOKS:
        return False
    if now.share != before.share or abs(now.strange - before.strange) > _OTHER * before.strange:
        return True
    here, there = (each.parameters.dictionary.double() for each in (now, before))
    moved = torch.linalg.vector_norm(here - there, dim=1)
    return gaps and float(moved.median()) >= _STILL


def filled_with(source: Source, usual: NDArray[Any]) -> Source:
    """`source` with `usual` (n,) in the place of missing entries."""
    return View(source, lambda batch: np.where(np.isnan(batch), usual, batch).astype(batch.dtype))


def as_looked_at(source: Source, looked: Looked, pursuit: Pursuit) -> Source:
    """`source`, whose entries may be missing, as `looked` has it.

    Rows that are left out become 0: nothing is to be explained of them.
    """
    signed = pursuit.signed

    def change(batch: NDArray[Any]) -> NDArray[Any]:
        rows = torch.from_numpy(batch)
        parameters = looked.parameters.map(lambda part: part.cpu().to(rows.dtype))
        if bool(rows.isnan().any()):
            rows = filled(parameters, rows, pursuit, signed=signed)
        if looked.share < 1:
            left = _residual(parameters, rows, pursuit).square().sum(dim=1)
            squares = rows.square().sum(dim=1)
            out = (left > looked.share * squares) | (squares > looked.bound**2)
            rows = torch.where(out[:, None], 0.0, rows)
        return rows.numpy()

    seen = View(source, change)
    seen.path = None  # a model's threads are those of who asks: nothing is read ahead of need
    return seen

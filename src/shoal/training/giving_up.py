"""Atoms that training gave up: whether anything is lost by it, measured.

Two atoms that are close may differ by all that matters, on data far from 0 above all: no cosine
says which of them is superfluous. So what a fit without them leaves unexplained is looked at. Where
a direction stands out in it, the fit is made again with all atoms kept, and the better one counts;
of the atoms of that one only those go whose removal, tried, costs nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shoal.network.activations import Activation
from shoal.network.inference import Pursuit, SparseCodes, fast_sparse_encode
from shoal.training.revival import duplicates, leading_direction
from shoal.vocabulary import Parameters, active

__all__ = ["Left", "left_by", "stands_out", "without_loss"]

# Rows that are looked at. Arbitrary.
ROWS = 5_000

# Arbitrary: what is left is less than this share of the square where all is explained.
EXACT = 1e-9
# A direction stands out that holds so many times what chance gives the largest one: by Marchenko
# and Pastur (1967) (1 + sqrt(n / rows))^2 times the mean. A false alarm costs time alone.
_STANDS_OUT = 1.5
_USERS = 10  # arbitrary: fewer leave no direction that can be told from chance
_ATOMS = 64  # arbitrary: whose users are looked at, those that leave most
_WORST = 0.1  # arbitrary: share of the rows, the worst explained, that are looked at as well
# Better means that so much less is left unexplained: more atoms always explain a little more. And
# that of the middle row, or of all by a tenth of what each atom explains on average: of data
# without noise few rows are coded wrongly, and those few are all that is left.
_BETTER, _TENTH = 0.9, 0.1
# Arbitrary: of what is left, the share that a removal may add where it is said to cost nothing.
_NOTHING = 1e-3
_CLOSE = 0.9


class Left(NamedTuple):
    """What codes by a dictionary leave of some rows."""

    codes: SparseCodes
    residual: Tensor  # (B, n)
    losses: Tensor  # (B,) squares of what is left
    square: float  # of the rows

    @property
    def share(self) -> float:
        """Of the square, what is left."""
        return float(self.losses.double().sum()) / self.square if self.square else 0.0

    def explains_more_than(self, other: Left, m: int) -> bool:
        """Whether these `m` atoms leave so much less that it is not for their number alone."""
        if not self.share < _BETTER * other.share:
            return False
        least = EXACT * self.square / len(self.losses)
        one, two = (float(each.losses.median()) + least for each in (self, other))
        return one < _BETTER * two or other.share - self.share > _TENTH / m


def left_by(parameters: Parameters, rows: Tensor, encoder: Activation | Pursuit) -> Left:
    """What `encoder` leaves of `rows` (B, n)."""
    codes = fast_sparse_encode(parameters, rows, encoder)
    residual = rows - codes.reconstruct(parameters.dictionary)
    if parameters.offset is not None:
        residual = residual - parameters.offset
    return Left(codes, residual, residual.square().sum(dim=1), float(rows.double().square().sum()))


def _has_direction(residual: Tensor) -> bool:
    users, n = residual.shape
    if users < _USERS or n == 1:
        return False
    scale, mean, _ = leading_direction(residual)
    chance = (1 + (n / users) ** 0.5) ** 2
    return bool(scale > _STANDS_OUT * chance * mean)


def stands_out(left: Left, m: int) -> bool:
    """Whether what is left has a direction that one of `m` atoms more could explain."""
    if left.share <= EXACT:
        return False
    worst = left.losses.topk(max(1, int(_WORST * len(left.losses)))).indices
    if _has_direction(left.residual[worst]):
        return True
    on = active(left.codes.values)
    units = left.codes.indices[on].cpu()
    load = left.losses[:, None].expand_as(on)[on].double().cpu()
    strain = torch.bincount(units, load, minlength=m)
    return any(
        _has_direction(left.residual[((left.codes.indices == atom) & on).any(dim=1)])
        for atom in strain.topk(min(_ATOMS, m)).indices.tolist()
    )


def without_loss(
    parameters: Parameters, rows: Tensor, encoder: Activation | Pursuit
) -> tuple[Parameters, float]:
    """Without the atoms whose removal costs nothing, and the share of the square that it cost.

    Tried are atoms that are not active on any of `rows` (B, n), and those close to another.
    """
    found = left_by(parameters, rows, encoder)
    on = active(found.codes.values)
    usage = torch.bincount(found.codes.indices[on].cpu(), minlength=len(parameters.bias))
    usage = usage.to(parameters.bias)
    tried = (usage == 0) | duplicates(parameters.dictionary, usage, _CLOSE)
    before = total = float(found.losses.double().sum())
    for atom in torch.nonzero(tried).squeeze(1).tolist():
        kept = parameters.dictionary.any(dim=1)
        kept[atom] = False
        if not bool(kept.any()):
            break
        fewer = torch.where(kept[:, None], parameters.dictionary, 0.0)
        trial = parameters._replace(dictionary=fewer)
        after = float(left_by(trial.units(kept), rows, encoder).losses.double().sum())
        if after <= total * (1 + _NOTHING) + EXACT * found.square:
            parameters, total = trial, after
    return parameters, max(0.0, total - before) / found.square if found.square else 0.0

"""The polish: the bias of the tied code removed, and the dictionary solved for.

Plain tied descent stops on a plateau near the truth, because its code x = D y is not the
least-squares code on its support: the additive terms O(m k^2 / n^2) and O(k^3 / m) of
Nguyen et al. 2018, Theorem 4 (ii) and (iii). The polish alternates

    codes       orthogonal matching pursuit on the dictionary
    dictionary  least squares, D = (X^T X)^-1 X^T Y (method of optimal directions)
    repair      atoms that explain next to nothing split those that stand for two

and keeps the best dictionary seen. It never gives back a worse one than it was given, as
measured by the pursuit's residual.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from shoal.network.inference import SparseCodes, orthogonal_matching_pursuit
from shoal.training.constraints import unit_atoms
from shoal.training.revival import split
from shoal.vocabulary import Parameters, Step, active, check_count, check_number

__all__ = ["Polish", "polish"]

# Arbitrary: rows coded at once, so that a pass needs memory independent of the data.
_CHUNK = 4096


@dataclass(frozen=True)
class Polish:
    """How the polish infers codes and when it stops.

    Parameters
    ----------
    n_nonzero_coefs : int
        Atoms a sample, k.
    signed : bool
        Whether codes may be negative.
    max_rounds : int
        Upper bound on the alternations.
    tolerance, patience
        It stops after `patience` rounds in a row whose residual is not below
        (1 - tolerance) times the best before.
    max_samples : int
        Rows that a fit draws at random for it, where there are more; :func:`polish` itself
        uses all that it is given.
    """

    n_nonzero_coefs: int
    signed: bool = True
    max_rounds: int = 30
    tolerance: float = 0.01
    patience: int = 3
    max_samples: int = 50_000

    def __post_init__(self) -> None:
        for name in ("n_nonzero_coefs", "max_rounds", "patience", "max_samples"):
            check_count(name, getattr(self, name))
        check_number("tolerance", self.tolerance, low=0.0, high=1.0)


def _code(
    dictionary: Tensor, data: Tensor, settings: Polish
) -> tuple[SparseCodes, Tensor, Tensor, Tensor]:
    """Codes of all rows, their losses (N,), and the sums X^T X (m, m) and X^T Y (m, n)."""
    n_components, n_features = dictionary.shape
    gram = dictionary.new_zeros(n_components, n_components, dtype=torch.float64)
    cross = dictionary.new_zeros(n_components, n_features, dtype=torch.float64)
    codes, losses = [], []
    for rows in data.split(_CHUNK):
        found = orthogonal_matching_pursuit(
            dictionary, rows, settings.n_nonzero_coefs, signed=settings.signed
        )
        residual = rows - found.reconstruct(dictionary)
        dense = found.dense(n_components)
        gram += dense.T @ dense
        cross += dense.T @ rows
        codes.append(found)
        losses.append(0.5 * residual.square().sum(dim=1))
    together = SparseCodes(*(torch.cat(parts) for parts in zip(*codes, strict=True)))
    return together, torch.cat(losses), gram, cross


def _solve(gram: Tensor, cross: Tensor, dictionary: Tensor) -> Tensor:
    """Unit atoms of least squares from the sums; an atom without a code stays as it was."""
    energy = gram.diagonal()
    used = energy > 0
    # Arbitrary: far below any real curvature, enough to keep unused atoms solvable.
    ridge = torch.where(used, 1e-10 * energy.mean(), 1.0)
    solved = torch.linalg.solve(gram + torch.diag(ridge), cross).to(dictionary.dtype)
    return unit_atoms(torch.where(used[:, None], solved, 0.0), fallback=dictionary)


def polish(parameters: Parameters, data: Tensor, settings: Polish) -> Iterator[Step]:
    """Alternate codes and dictionary on data (N, n), a round a step.

    Yields
    ------
    Step
        With the best parameters so far, and the loss of this round's codes.
    """
    dictionary = parameters.dictionary
    variance = 0.5 * data.var(dim=0, correction=0).sum()
    best, best_loss, stalled = parameters, torch.inf, 0
    # Arbitrary: residuals at this share of the data are rounding.
    floor = 0.5 * float(data.square().sum(dim=1).mean()) * torch.finfo(data.dtype).eps ** 1.5
    for index in range(1, settings.max_rounds + 1):
        codes, losses, gram, cross = _code(dictionary, data, settings)
        loss = losses.mean()
        stalled = 0 if float(loss) < (1 - settings.tolerance) * best_loss else stalled + 1
        if float(loss) < best_loss:
            best, best_loss = parameters._replace(dictionary=dictionary), float(loss)
        replaced = 0
        last = stalled >= settings.patience or index == settings.max_rounds or best_loss <= floor
        if not last:
            dictionary = _solve(gram, cross, dictionary)
            worth = gram.diagonal().to(data.dtype)
            dictionary, replaced = split(dictionary, data, codes, losses, worth)
        yield Step(
            number=index,
            phase="polish",
            progress=1.0 if last else index / settings.max_rounds,
            parameters=best,
            loss=loss,
            variance=variance,
            learning_rate=None,
            activation_fraction=active(codes.values).sum() / (data.shape[0] * dictionary.shape[0]),
            replaced=replaced,
        )
        if last:
            return

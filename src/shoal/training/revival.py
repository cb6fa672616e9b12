"""Dead and duplicate atoms, found and put to use where the data is explained worst.

Two moves. While descending, an atom that never fires or repeats another becomes the
residual of a badly explained sample. While polishing, an atom that explains next to
nothing is used to *split* another: the usual place where descent gets stuck is one atom
that stands for two, (A + B)/|A + B|, whose users leave residuals along A - B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from shoal.network.activations import Activation
from shoal.network.inference import Pursuit, SparseCodes
from shoal.parts import register
from shoal.training.constraints import unit_atoms
from shoal.training.shards import (
    codes_of_all,
    mine_of,
    of_all,
    placed,
    rebuilt_by_all,
    repeats,
    rows_of_all,
)
from shoal.vocabulary import Parameters, active, check_count, check_number

__all__ = ["Activity", "Revival", "duplicates", "leading_direction", "revive", "split"]

# Data far from 0, such as images that are not centred, have many atoms that are close and differ.
_SAME = 0.99
# A distance that is well above the rounding of cosines in float32.
_ROUNDING = 0.01


@register("part")
@dataclass(frozen=True)
class Revival:
    """When and what to replace during descent.

    Parameters
    ----------
    every : int
        Steps between two looks, at first; later a sixteenth of the steps so far.
    idle : int
        An atom is dead that was not active in so many steps, at first; later in a sixteenth of
        them all: early on many atoms have to find a place, later rare ones are to keep it.
    duplicate_cosine : float
        Of two atoms with \\|cosine\\| above this, the one used less is replaced.
    tries : int
        An atom that was replaced so often is let be; once it is dead or the same as another, with
        \\|cosine\\| above 0.99, it is set to 0 for good: there are more atoms than the data have
        use for.
    combined : float or None
        An atom that is as near as this to the span of two that are used more is replaced as well,
        where there is such a distance: what it stands for, they can.

    Examples
    --------
    >>> from shoal.training import Revival
    >>> Revival(idle=10)
    Revival(every=3, idle=10, duplicate_cosine=0.9, tries=5, combined=None)
    """

    every: int = 3
    idle: int = 3
    duplicate_cosine: float = 0.9
    tries: int = 5
    combined: float | None = None

    def __post_init__(self) -> None:
        for name in ("every", "idle", "tries"):
            check_count(name, getattr(self, name))
        if self.combined is not None:
            check_number("combined", self.combined, low=0.0, high=1.0)
        check_number("duplicate_cosine", self.duplicate_cosine, low=0.0, high=1.0)


class Rows(Protocol):
    """Rows (B, n), wherever they are, of which some are asked for."""

    def __getitem__(self, index: Tensor) -> Tensor: ...


class Activity(NamedTuple):
    """How often each unit was active, and since when it wasn't."""

    counts: Tensor  # (m,) since the last look
    idle: Tensor  # (m,) steps up to the last look
    tries: Tensor  # (m,) how often it was replaced
    steps: float = 0  # since the last look
    total: float = 0

    @classmethod
    def none(cls, like: Tensor) -> Activity:
        """Of units (m,) that have done nothing yet."""
        return cls(torch.zeros_like(like), torch.zeros_like(like), torch.zeros_like(like))

    def add(self, counts: Tensor, share: float = 1) -> Activity:
        """With the counts (m,) of one more step, or of so much of one."""
        return self._replace(
            counts=self.counts + counts, steps=self.steps + share, total=self.total + share
        )

    def due(self, every: int) -> bool:
        """Whether it is time for a look."""
        return self.steps >= max(every, int(self.total) // 16)

    def dead(self, idle: int) -> Tensor:
        """Boolean (m,), as of the last look."""
        return self.idle >= max(idle, int(self.total) // 16)

    def look(self) -> Activity:
        """As of now: what was idle since the last look, and counts from 0 again."""
        idle = torch.where(self.counts > 0, 0.0, self.idle + self.steps)
        return self._replace(counts=torch.zeros_like(self.counts), idle=idle, steps=0)


def duplicates(dictionary: Tensor, usage: Tensor, cosine: float) -> Tensor:
    """Boolean (m,): atoms that repeat one of greater `usage` (m,) (ties: of lower index).

    `dictionary` (m, n) has unit rows; two atoms repeat each other above \\|cosine\\|. It may be a
    shard of them: see :func:`shoal.training.shards.at_hand`.
    """
    if len(usage) > len(dictionary):  # a shard
        return repeats(dictionary, _order_of(usage), cosine)
    cosines = (dictionary @ dictionary.T).abs_()  # (m, m)
    close = cosines.fill_diagonal_(0.0) > cosine
    if not bool(close.any()):
        return torch.zeros_like(usage, dtype=torch.bool)
    return (close & _used_more(usage)).any(dim=1)


def _used_more(usage: Tensor) -> Tensor:
    """Boolean (m, m): whether j is used more than i; of as much use are those of lower index."""
    rank = _order_of(usage)
    return rank[None, :] < rank[:, None]


def _order_of(usage: Tensor) -> Tensor:
    """The place (m,) of each atom by its use, from the most: ties to the lower index."""
    rank = torch.empty_like(usage, dtype=torch.long)
    rank[usage.argsort(descending=True, stable=True)] = torch.arange(
        usage.shape[0], device=usage.device
    )
    return rank


def combinations(dictionary: Tensor, usage: Tensor, distance: float) -> Tensor:
    """Boolean (m,): atoms within `distance` of the span of two of greater `usage` (m,).

    `dictionary` (m, n) has unit rows, or zeros. The two are found greedily: the one that is most
    like the atom, then the one that is most like what that leaves. In few dimensions some of the
    m^2 / 2 pairs come near some atom by chance: there the distance is half of how near they do.
    """
    m, n = dictionary.shape
    # A random atom is within d of the plane of two with probability d^(n - 2).
    distance = min(distance, 0.5 * (2 / m**3) ** (1 / max(1, n - 2)))
    if n <= 2 or distance < _ROUNDING:
        return torch.zeros_like(usage, dtype=torch.bool)
    cosines = dictionary @ dictionary.T  # (m, m)
    more = _used_more(usage)
    first = torch.where(more, cosines.abs(), -1.0).argmax(dim=1, keepdim=True)
    one = cosines.gather(1, first)  # (m, 1)
    between = cosines[first.squeeze(1)]  # (m, m) of j with the first of i
    # Gram and Schmidt: what j adds to the first.
    left = (1 - between.square()).clamp_min(1e-3)
    gain = (cosines - one * between).square() / left
    second = torch.where(more, gain, 0.0).scatter(1, first, 0.0).amax(dim=1)
    length = cosines.diagonal()
    near = length - one.squeeze(1).square() - second < distance**2
    return near & (more.sum(dim=1) >= 2) & (length > 0) & (usage > 0)


def revive(
    parameters: Parameters,
    usage: Tensor,
    dead: Tensor,
    tries: Tensor,
    data: Rows | Tensor,
    losses: Tensor,
    encoder: Activation | Pursuit,
    settings: Revival,
    *,
    distinct: bool = False,
) -> tuple[Tensor, Tensor, int]:
    """Dead and duplicate atoms replaced or given up.

    `usage` (m,) counts activity since the last look, `dead` (m,) says where there was none for
    long; `tries` (m,) counts replacements. `losses` (B,) says which rows of `data` (B, n) are
    explained worst. At most half of the rows are taken as new atoms; where they
    are to be `distinct`, at least one, and none that repeats an atom which stays. Of a shard all
    of these are the shard's, but for rows and losses; it is not for `distinct` and `combined`.

    Returns
    -------
    dictionary : Tensor of shape (m, n)
    tries : Tensor of shape (m,)
    n_replaced : int
    """
    dictionary = parameters.dictionary
    usage, dead, own_tries, tries = of_all(usage), of_all(dead), tries, of_all(tries)
    spare = dead | duplicates(dictionary, usage, settings.duplicate_cosine)
    if settings.combined is not None:
        spare = spare | combinations(dictionary, usage, settings.combined)
    tired = spare & (tries >= settings.tries)
    if bool(tired.any()):
        given_up = tired & (dead | duplicates(dictionary, usage, _SAME))
        dictionary = torch.where(mine_of(given_up)[:, None], 0.0, dictionary)
    atoms = torch.nonzero(spare & ~tired).squeeze(1)[: max(int(distinct), len(losses) // 2)]
    if atoms.numel() == 0:
        return dictionary, own_tries, 0
    rows = data[losses.topk(atoms.numel()).indices]
    codes = codes_of_all(parameters, rows, encoder)
    # What a row leaves and what its weakest unit stands in for: where an atom is missing,
    # some other has taken its place.
    strength = torch.where(active(codes.values), codes.values.abs(), torch.inf)
    weakest = strength.argmin(dim=1, keepdim=True)
    others = SparseCodes(codes.indices, codes.values.scatter(1, weakest, 0.0))
    left = rows - rebuilt_by_all(others, dictionary)
    if parameters.offset is not None:
        left = left - parameters.offset
    new = unit_atoms(left, fallback=rows_of_all(dictionary, atoms))
    if distinct:
        stay = dictionary[~spare]
        known = torch.cat([stay, new])
        first = torch.arange(len(known) - len(stay), device=known.device) + len(stay)
        rank = torch.arange(len(known), device=known.device)
        close = (new @ known.T).abs() > settings.duplicate_cosine
        fresh = ~(close & (rank[None, :] < first[:, None])).any(dim=1)
        atoms, new = atoms[fresh], new[fresh]
    tries = tries.clone()
    tries[atoms] += 1
    return placed(dictionary, atoms, new), mine_of(tries), atoms.numel()


def leading_direction(residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The largest eigenvalue of R^T R, the mean of its n, and the direction (n,) of the largest.

    By way of the smaller side of R (users, n), where n is large.
    """
    users, n = residual.shape
    if n <= max(users, 256):
        scale, directions = torch.linalg.eigh(residual.T @ residual)  # ascending
        return scale[-1], scale.mean(), directions[:, -1]
    scale, sides = torch.linalg.eigh(residual @ residual.T)
    return scale[-1], scale.sum() / n, unit_atoms((sides[:, -1] @ residual)[None])[0]


def split(
    dictionary: Tensor,
    data: Tensor,
    codes: SparseCodes,
    losses: Tensor,
    worth: Tensor,
    *,
    duplicate_cosine: float = 0.95,
    max_share: float = 0.1,
) -> tuple[Tensor, int]:
    """Use the atoms that explain least to split those whose users are explained worst.

    Parameters
    ----------
    dictionary : Tensor of shape (m, n)
        Unit atoms.
    data : Tensor of shape (N, n)
    codes : SparseCodes of shape (N, k)
    losses : Tensor of shape (N,)
        1/2 \\|y - y_hat\\|^2, sample by sample.
    worth : Tensor of shape (m,)
        What an atom explains: the sum of its squared codes.

    Returns
    -------
    dictionary : Tensor of shape (m, n)
        A new one where something was split.
    n_split : int
        How many atoms were moved into a split.
    """
    n_components = dictionary.shape[0]
    on = active(codes.values)
    # What an atom's users leave unexplained beyond the average: an atom that stands for two
    # leads. Counted by NumPy: on CUDA such sums are not reproducible.
    units = codes.indices[on].cpu().numpy()
    load = losses[:, None].expand_as(on)[on].double().cpu().numpy()
    users = torch.from_numpy(np.bincount(units, minlength=n_components)).to(worth)
    strain = torch.from_numpy(np.bincount(units, load, minlength=n_components)).to(worth)
    # Arbitrary: fewer users than 10 leave no direction that can be told from chance.
    excess = torch.where(users >= 10, strain - users * losses.mean(), -torch.inf)
    worth = torch.where(duplicates(dictionary, worth, duplicate_cosine), 0.0, worth)
    most = max(1, int(max_share * n_components))
    ranked = excess.argsort(descending=True, stable=True)[:most]
    crowded = ranked[torch.isfinite(excess[ranked])].tolist()
    weak = worth.argsort(stable=True)[:most].tolist()
    touched: set[int] = set()
    for atom in crowded:
        spare = next((each for each in weak if each not in touched | {atom}), None)
        # All that its users leave is no less than what any one direction could explain.
        if spare is None or atom in touched or strain[atom] < worth[spare]:
            continue
        rows = torch.nonzero(((codes.indices == atom) & on).any(dim=1)).squeeze(1)
        mine = SparseCodes(codes.indices[rows], codes.values[rows])
        residual = data[rows] - mine.reconstruct(dictionary)
        scale, mean, direction = leading_direction(residual)
        # Arbitrary: worth it if the direction explains twice what the spare atom does, a tenth of
        # what the atom does, and stands out from the rest of the residual's spectrum and from
        # rounding.
        rounding = torch.finfo(data.dtype).eps * data[rows].square().sum()
        least = [2 * worth[spare], 0.1 * worth[atom], 3 * mean, rounding]
        if scale < torch.stack(least).max():
            continue
        if not touched:
            dictionary = dictionary.clone()
        pair = torch.stack([dictionary[atom] + direction, dictionary[atom] - direction])
        dictionary[[atom, spare]] = unit_atoms(pair)
        touched |= {atom, spare}
    return dictionary, len(touched) // 2

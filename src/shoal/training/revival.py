"""Dead and duplicate atoms, found and put to use where the data is explained worst.

Two moves. While descending, an atom that never fires or repeats another becomes the
residual of a badly explained sample. While polishing, an atom that explains next to
nothing is used to *split* another: the usual place where descent gets stuck is one atom
that stands for two, (A + B)/|A + B|, whose users leave residuals along A - B.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shoal.network import autoencoder
from shoal.network.activations import Activation
from shoal.network.inference import SparseCodes
from shoal.training.constraints import unit_atoms
from shoal.vocabulary import Parameters, active, check_count, check_number

__all__ = ["Activity", "Revival", "duplicates", "revive", "split"]

# Arbitrary: rows whose codes are held dense at once.
_CHUNK = 4096


@dataclass(frozen=True)
class Revival:
    """When and what to replace during descent.

    Parameters
    ----------
    every : int
        Steps between two looks; an atom is dead that was never active in between.
    duplicate_cosine : float
        Of two atoms with \\|cosine\\| above this, the one used less is replaced.
    """

    every: int = 10
    duplicate_cosine: float = 0.9

    def __post_init__(self) -> None:
        check_count("every", self.every)
        check_number("duplicate_cosine", self.duplicate_cosine, low=0.0, high=1.0)


@dataclass
class Activity:
    """How often each unit was active since the last look. It moves with the descent."""

    counts: Tensor  # (m,)
    steps: int = 0

    def add_(self, counts: Tensor) -> None:
        """Take in the counts (m,) of one step."""
        self.counts += counts
        self.steps += 1

    def reset_(self) -> None:
        """Start counting anew."""
        self.counts.zero_()
        self.steps = 0


def duplicates(dictionary: Tensor, usage: Tensor, cosine: float) -> Tensor:
    """Boolean (m,): atoms that repeat one of greater `usage` (m,) (ties: of lower index).

    `dictionary` (m, n) has unit rows; two atoms repeat each other above \\|cosine\\|.
    """
    close = (dictionary @ dictionary.T).abs() > cosine  # (m, m)
    rank = torch.empty_like(usage, dtype=torch.long)
    rank[usage.argsort(descending=True, stable=True)] = torch.arange(
        usage.shape[0], device=usage.device
    )
    return (close & (rank[None, :] < rank[:, None])).any(dim=1)


def revive(
    parameters: Parameters,
    usage: Tensor,
    data: Tensor,
    losses: Tensor,
    activation: Activation,
    settings: Revival,
) -> tuple[Tensor, int]:
    """The dictionary with dead and duplicate atoms replaced, and how many were.

    `usage` (m,) counts activity since the last look; `losses` (B,) says which rows of
    `data` (B, n) are explained worst. At most half of the rows are taken as new atoms.
    """
    dictionary = parameters.dictionary
    spare = (usage == 0) | duplicates(dictionary, usage, settings.duplicate_cosine)
    atoms = torch.nonzero(spare).squeeze(1)[: data.shape[0] // 2]
    if atoms.numel() == 0:
        return dictionary, 0
    rows = data[losses.topk(atoms.numel()).indices]
    codes = autoencoder.encode(parameters, rows, activation)
    residual = rows - autoencoder.reconstruct(parameters, codes)
    dictionary = dictionary.clone()
    dictionary[atoms] = unit_atoms(residual, fallback=dictionary[atoms])
    return dictionary, atoms.numel()


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
    users = torch.zeros_like(worth)
    strain = torch.zeros_like(worth)
    # Products, since bincount and index_add are not reproducible on CUDA.
    chunks = (part.split(_CHUNK) for part in (codes.indices, codes.values, losses))
    for indices, values, loss in zip(*chunks, strict=True):
        hit = active(SparseCodes(indices, values).dense(n_components)).to(worth.dtype)  # (B, m)
        users += hit.sum(dim=0)
        strain += loss @ hit
    # What an atom's users leave unexplained beyond the average: an atom that stands for two
    # leads. Arbitrary: fewer users than 10 leave no direction that can be told from chance.
    excess = torch.where(users >= 10, strain - users * losses.mean(), -torch.inf)
    worth = torch.where(duplicates(dictionary, worth, duplicate_cosine), 0.0, worth)
    most = max(1, int(max_share * n_components))
    ranked = excess.argsort(descending=True, stable=True)[:most]
    crowded = ranked[torch.isfinite(excess[ranked])].tolist()
    weak = worth.argsort(stable=True)[:most].tolist()
    touched: set[int] = set()
    for atom in crowded:
        spare = next((each for each in weak if each not in touched | {atom}), None)
        if spare is None or atom in touched:
            continue
        rows = torch.nonzero(((codes.indices == atom) & on).any(dim=1)).squeeze(1)
        mine = SparseCodes(codes.indices[rows], codes.values[rows])
        residual = data[rows] - mine.reconstruct(dictionary)
        scale, directions = torch.linalg.eigh(residual.T @ residual)  # ascending
        # Arbitrary: worth it if the direction explains twice what the spare atom does, and
        # stands out from the rest of the residual's spectrum and from rounding.
        rounding = torch.finfo(data.dtype).eps * data[rows].square().sum()
        if scale[-1] < torch.stack([2 * worth[spare], 3 * scale.mean(), rounding]).max():
            continue
        if not touched:
            dictionary = dictionary.clone()
        pair = torch.stack(
            [dictionary[atom] + directions[:, -1], dictionary[atom] - directions[:, -1]]
        )
        dictionary[[atom, spare]] = unit_atoms(pair)
        touched |= {atom, spare}
    return dictionary, len(touched) // 2

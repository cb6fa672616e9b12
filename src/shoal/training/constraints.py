"""Constraints on the atoms: the one place where they are normalised, after every update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from shoal.parts import register, stands_for
from shoal.vocabulary import ArgumentError, check_count, check_number

__all__ = [
    "Constraint",
    "Free",
    "MaxNorm",
    "Nearness",
    "NonnegativeUnitLength",
    "UnitLength",
    "largest_coherence",
    "nearness_projection",
    "pushed_apart",
    "unit_atoms",
    "usual_coherence",
]


def unit_atoms(dictionary: Tensor, fallback: Tensor | None = None) -> Tensor:
    """Rows of `dictionary` (m, n) scaled to Euclidean length 1.

    ``normalize`` of Nguyen et al. 2018, section 4. A row with no direction (length 0 or
    not finite) is taken from `fallback` (m, n) of unit rows, or left at 0 without one.
    """
    length = torch.linalg.vector_norm(dictionary, dim=1, keepdim=True)  # (m, 1)
    if not dictionary.is_cuda:  # there the answer would cost more than what it saves
        shortest, longest = torch.aminmax(length)
        if float(shortest) > 0 and float(longest) < torch.inf:  # not so where there is a NaN
            plain: Tensor = dictionary / length
            return plain
    sound = torch.isfinite(length) & (length > 0)
    unit = dictionary / torch.where(sound, length, torch.ones_like(length))
    other = torch.zeros_like(dictionary) if fallback is None else fallback
    return torch.where(sound, unit, other)


def nearness_projection(
    dictionary: Tensor,
    center: Tensor,
    delta: float,
    spectral: float = 2.0,
    *,
    max_iterations: int = 100,
    tolerance: float = 1e-10,
) -> Tensor:
    """The nearest W' with |W'_i - C_i| <= delta for every row and ||W'|| <= spectral ||C||.

    The projection onto the convex set B of Nguyen et al. 2018, section B.3 (after Arora et al.
    2015), which keeps an estimate near: C is the truth there, and in practice the start. Where
    the balls alone don't meet the bound on the norm, Dykstra's alternating projections find it.

    Parameters
    ----------
    dictionary, center : Tensor of shape (m, n)
        W and C, finite, of one type. They are left as they are.
    delta : float
        At least 0.
    spectral : float
        At least 1, so that C itself is in the set and the set isn't empty.
    max_iterations : int
        At most so many rounds, each one singular value decomposition.
    tolerance : float
        How far, relative to the norm of W, a round may still move; no finer than rounding.

    Returns
    -------
    Tensor of shape (m, n)
        In the set up to rounding, whatever the number of rounds; the nearest within `tolerance`.

    Raises
    ------
    ArgumentError
        If an argument can't be used.

    Examples
    --------
    >>> start = torch.eye(2, dtype=torch.float64)
    >>> nearness_projection(start + torch.tensor([[3.0, 4.0], [0.0, 0.0]]), start, 0.5).tolist()
    [[1.3, 0.4], [0.0, 1.0]]
    """
    if dictionary.ndim != 2 or dictionary.shape != center.shape or not dictionary.numel():
        found = f"shapes {tuple(dictionary.shape)} and {tuple(center.shape)}"
        raise ArgumentError("dictionary, center", found, "both (m, n), not empty")
    if dictionary.dtype != center.dtype or not dictionary.dtype.is_floating_point:
        found = f"{dictionary.dtype} and {center.dtype}"
        raise ArgumentError("dictionary, center", found, "one floating type")
    if not (torch.isfinite(dictionary).all() and torch.isfinite(center).all()):
        raise ArgumentError("dictionary, center", "NaN or infinite entries", "finite numbers")
    delta = check_number("delta", delta, low=0.0)
    spectral = check_number("spectral", spectral, low=1.0)
    max_iterations = check_count("max_iterations", max_iterations)
    rounding = 8 * torch.finfo(dictionary.dtype).eps
    limit = spectral * float(torch.linalg.matrix_norm(center, 2))
    near = _into_balls(dictionary, center, delta)
    if float(torch.linalg.matrix_norm(near, 2)) <= limit * (1 + rounding):
        return near
    still = max(check_number("tolerance", tolerance, low=0.0), rounding)
    still *= float(torch.linalg.matrix_norm(dictionary))
    # Boyle and Dykstra 1986: each projection first takes back what it took away a round ago.
    point, from_balls, from_norm = dictionary, torch.zeros_like(near), torch.zeros_like(near)
    for _ in range(max_iterations):
        near = _into_balls(point + from_balls, center, delta)
        from_balls = point + from_balls - near
        last, point = point, _into_norm(near + from_norm, limit)
        from_norm = near + from_norm - point
        # Birgin and Raydan 2005: both parts must rest; the iterates alone can pause on the way.
        if float(torch.linalg.matrix_norm(torch.stack([last - near, near - point])).max()) <= still:
            break
    # On the segment to C, which is in the set, the norm can't leave its bound.
    farthest = float(torch.linalg.vector_norm(point - center, dim=1).max())
    return center + (point - center) * min(1.0, delta / farthest) if farthest else point


def _into_balls(dictionary: Tensor, center: Tensor, delta: float) -> Tensor:
    """Each row to the nearest within `delta` of its row of `center`."""
    away = dictionary - center
    length = torch.linalg.vector_norm(away, dim=1, keepdim=True)  # (m, 1)
    # A row already inside is left bit for bit.
    pulled = center + away * (delta / torch.clamp(length, min=torch.finfo(length.dtype).tiny))
    return torch.where(length <= delta, dictionary, pulled)


def _into_norm(dictionary: Tensor, limit: float) -> Tensor:
    """The nearest of spectral norm at most `limit`: singular values clipped."""
    left, values, right = torch.linalg.svd(dictionary, full_matrices=False)
    clipped: Tensor = (left * values.clamp(max=limit)) @ right
    return clipped


def largest_coherence(m: int, n: int) -> float:
    r"""About the largest \|cosine\| among m random directions in n dimensions, sqrt(4 log(m) / n).

    >>> round(largest_coherence(256, 512), 3)
    0.208
    """
    return min(1.0, math.sqrt(4 * math.log(max(m, 2)) / n))


def usual_coherence(m: int, n: int) -> float:
    r"""A \|cosine\| that few of m random directions exceed, sqrt(2 log(1 + (m/256)^1.5) / n).

    Of 256 a quarter do, of 1024 a 27th: to keep atoms below it moves each only a little. At a
    smaller one the push among all of them outweighs the data: measured at those two sizes, in 512
    and 768 dimensions.

    >>> round(usual_coherence(256, 512), 3)
    0.052
    """
    return min(largest_coherence(m, n), math.sqrt(2 * math.log1p((m / 256) ** 1.5) / n))


def pushed_apart(
    dictionary: Tensor,
    frequency: Tensor,
    mu: float,
    *,
    opposite: float | None = None,
    strength: float = 0.5,
    farthest: float = 0.3,
) -> Tensor:
    r"""Unit atoms moved towards a mutual coherence of `mu`: the rarer of a pair gives way.

    Both recovery theories assume an incoherent dictionary: Rangamani et al. 2017, section 2.1,
    and Nguyen et al. 2018, assumption A1, \|<A_i, A_j>\| <= mu / sqrt(n) with mu = O(log n).
    Sparsity alone does not lead to one where atoms fire together: where a parent p always fires
    with one child c_k of several, the sums p + c_k need fewer codes than p and the c_k do. Here
    atom i moves by

        -strength sum_j (cos_ij -+ mu) D_j   over the pairs with \|cos_ij\| > mu,

    where j is the more frequent of the two, so that parents stay as they are and children lose
    them.

    Parameters
    ----------
    dictionary : Tensor of shape (m, n)
        Unit atoms, left as they are.
    frequency : Tensor of shape (m,)
        How often each is active.
    mu : float
        Coherence that is let be, in [0, 1].
    opposite : float, optional
        That of pairs with a negative cosine, for non-negative codes: both atoms give way by half,
        since {p + c_1, c_2 - c_1} stands for {p, c_1, c_2} as well. By default `mu`, and the rarer
        atom gives way alone.
    strength : float
        The share of the excess that is taken.
    farthest : float
        No atom moves farther.

    Returns
    -------
    Tensor of shape (m, n)
        Not of unit length.

    Examples
    --------
    >>> atoms = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> pushed_apart(atoms, torch.tensor([0.5, 0.1]), 0.2, strength=0.5)
    tensor([[1.0000, 0.0000],
            [0.4000, 0.8000]])
    """
    cosines = dictionary @ dictionary.T  # (m, m)
    cosines.fill_diagonal_(0.0)
    over = torch.where(cosines > mu, cosines - mu, 0.0)
    under = mu if opposite is None else opposite
    below = torch.where(cosines < -under, cosines + under, 0.0)
    gives_way = frequency[None, :] > frequency[:, None]
    excess = (over + below) * gives_way if opposite is None else over * gives_way + below / 2
    moves = strength * (excess @ dictionary)
    length = torch.linalg.vector_norm(moves, dim=1, keepdim=True)
    apart: Tensor = dictionary - moves * (farthest / length.clamp_min(farthest))
    return apart


class Constraint(Protocol):
    """What keeps atoms in their set, after every update.

    Called with the moved atoms (m, n), which it may change in place; with what they were before,
    where a rule keeps that; and with where the descent began, which only a nearness looks at.
    """

    def __call__(  # noqa: D102
        self, moved: Tensor, before: Tensor | None = None, center: Tensor | None = None
    ) -> Tensor: ...


def _scaled_(atoms: Tensor, length: Tensor) -> Tensor:
    return atoms.div_(length.clamp_(min=torch.finfo(atoms.dtype).tiny))


@register("constraint")
@dataclass(frozen=True)
class UnitLength:
    """Every atom of length 1. One that loses its direction stays what it was before.

    >>> UnitLength()(torch.tensor([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """

    def __call__(  # noqa: D102
        self, moved: Tensor, before: Tensor | None = None, center: Tensor | None = None
    ) -> Tensor:
        if before is not None:
            return unit_atoms(moved, fallback=before)
        # A number that is not finite stays one, for the loop to see.
        return _scaled_(moved, torch.linalg.vector_norm(moved, dim=1, keepdim=True))


@register("constraint")
@dataclass(frozen=True)
class NonnegativeUnitLength:
    """Every atom of length 1, with no entry below 0: for spectra, counts, stains.

    The nearest one, but for an atom without an entry above 0: it stays what it was before, or
    turns round.

    >>> NonnegativeUnitLength()(torch.tensor([[3.0, -4.0], [-0.6, -0.8]])).tolist()
    [[1.0, 0.0], [0.6000000238418579, 0.800000011920929]]
    """

    def __call__(  # noqa: D102
        self, moved: Tensor, before: Tensor | None = None, center: Tensor | None = None
    ) -> Tensor:
        other = (moved if before is None else before).abs()
        return unit_atoms(moved.clamp_min(0.0), fallback=unit_atoms(other))


@register("constraint")
@dataclass(frozen=True)
class MaxNorm:
    """Every atom of length 1 at most.

    >>> MaxNorm()(torch.tensor([[3.0, 4.0], [0.0, 0.5]]))[1].tolist()
    [0.0, 0.5]
    """

    def __call__(  # noqa: D102
        self, moved: Tensor, before: Tensor | None = None, center: Tensor | None = None
    ) -> Tensor:
        length = torch.linalg.vector_norm(moved, dim=1, keepdim=True)
        return _scaled_(moved, length.clamp_(min=1.0))


@register("constraint")
@dataclass(frozen=True)
class Free:
    """Atoms of any length.

    >>> Free()(torch.tensor([[3.0, 4.0]])).tolist()
    [[3.0, 4.0]]
    """

    def __call__(  # noqa: D102
        self, moved: Tensor, before: Tensor | None = None, center: Tensor | None = None
    ) -> Tensor:
        return moved


@register("constraint")
@dataclass(frozen=True)
class Nearness:
    """Atoms stay within `delta` of where the descent began: :func:`nearness_projection`.

    It is applied after each step and before atoms are brought to length 1 again, which may lead
    out of the ball by about delta^3 / 8.

    Parameters
    ----------
    delta : float
        Above 0: the radius around each atom's start.
    spectral : float
        At least 1: the largest spectral norm, in units of the start's.

    Examples
    --------
    >>> from shoal.training import Nearness
    >>> Nearness(0.5)
    Nearness(delta=0.5, spectral=2.0)
    >>> Nearness(-1.0)
    Traceback (most recent call last):
        ...
    shoal.vocabulary.ArgumentError: delta: found -1; needed a finite number > 0
    """

    delta: float
    spectral: float = 2.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_number("delta", self.delta, low=0.0, open_low=True)
        check_number("spectral", self.spectral, low=1.0)

    def __call__(  # noqa: D102
        self, moved: Tensor, before: Tensor | None = None, center: Tensor | None = None
    ) -> Tensor:
        if center is None:
            raise ArgumentError("center", "None", "the atoms at the start of the descent")
        near = nearness_projection(moved, center, self.delta, self.spectral)
        return unit_atoms(near, fallback=before)


stands_for("constraint", Constraint)

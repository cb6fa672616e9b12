"""Pursuits: codes of at most k atoms that the encoder's own code is only the first guess of.

The code of a tied autoencoder, x = D y on its support, is biased: it is the correlation
with each active atom, not the least-squares coefficient; and where atoms are many or k is high
its support is wrong too, by the cross-talk between atoms. A pursuit feeds the residual back
through the encoder until the best k atoms are found, and solves for their coefficients. Like an
activation it is a value, and wherever codes are asked for one can stand in for the other.

Called on a dictionary and data, a pursuit here is dense torch and correct by definition; the
kernels have faster ones (:func:`shoal.network.fast_sparse_encode`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from shoal.network.activations import k_largest
from shoal.network.codes import SparseCodes
from shoal.parts import register
from shoal.vocabulary import active, check_count, check_number

__all__ = [
    "IterativeHardThresholding",
    "Look",
    "OrthogonalMatchingPursuit",
    "Pursuit",
    "SubspacePursuit",
    "ThresholdPursuit",
    "dependence",
    "least_squares",
]


LARGEST = 8.0
"""Codes are at most so many times as large as what they rebuild. Arbitrary."""


def dependence(dtype: torch.dtype) -> float:
    """The squared distance from the span of others below which an atom adds only rounding."""
    return 0.01 * torch.finfo(dtype).eps ** 0.5  # arbitrary: 3e-6 in float32, 1e-10 in float64


@dataclass(frozen=True)
class Pursuit:
    """What all pursuits know: at most k atoms a sample, and whether codes may be negative."""

    k: int
    signed: bool = True

    def __post_init__(self) -> None:
        check_count("k", self.k)

    def __call__(self, dictionary: Tensor, data: Tensor) -> SparseCodes:
        """Codes (B, min(k, m, n)) of data (B, n) by the unit atoms `dictionary` (m, n)."""
        raise NotImplementedError

    def _taken(self, dictionary: Tensor) -> int:
        return min(self.k, *dictionary.shape)


def least_squares(
    dictionary: Tensor, data: Tensor, support: SparseCodes, *, signed: bool = True
) -> SparseCodes:
    """The least-squares coefficients of data (B, n) on the active units of `support`.

    With ``signed=False`` units whose coefficient comes out negative are left out, until none
    does. Atoms of a support that are linearly dependent share their coefficient through a ridge
    at rounding level; where they are so nearly, and codes larger than `LARGEST` times what they
    rebuild, atoms near the span of others are left out.
    """
    found = _least_squares(dictionary, data, support)
    while not signed and bool((found.values < 0).any()):
        kept = SparseCodes(found.indices, found.values.clamp_min(0))
        found = _least_squares(dictionary, data, kept)
    return _within(dictionary, data, found, signed)


def _within(dictionary: Tensor, data: Tensor, found: SparseCodes, signed: bool) -> SparseCodes:
    """Codes none of which is larger than `LARGEST` times what its row's codes rebuild.

    Such codes cancel one another. The distance from a span at which an atom counts as dependent
    is made larger by ten until there are none.
    """
    size = torch.linalg.vector_norm(found.reconstruct(dictionary), dim=1)
    bad = found.values.abs().amax(dim=1) > LARGEST * size
    if not bool(bad.any()):
        return found
    values = found.values.clone()
    for row in torch.nonzero(bad).squeeze(1).tolist():
        values[row] = _resolved(dictionary, data[row], found.indices[row], values[row], signed)
    return SparseCodes(found.indices, values)


def _resolved(
    dictionary: Tensor, row: Tensor, indices: Tensor, values: Tensor, signed: bool
) -> Tensor:
    """The codes (k,) of one row (n,), solved without atoms that are near the span of others."""
    on = torch.nonzero(active(values)).squeeze(1)
    scores = _value(dictionary[indices[on]] @ row, signed)
    on = on[scores.argsort(descending=True, stable=True)]
    squared = dependence(row.dtype)
    solved = torch.zeros_like(values)
    while squared < 1:
        squared *= 10
        basis, kept = row.new_zeros(0, len(row)), []
        for place in on.tolist():
            atom = dictionary[indices[place]]
            beyond = atom - (basis @ atom) @ basis
            length = torch.linalg.vector_norm(beyond)
            if float(length) ** 2 > min(squared, 0.5):
                basis = torch.cat([basis, (beyond / length)[None]])
                kept.append(place)
        while kept:
            atoms = dictionary[indices[kept]]
            codes = torch.linalg.lstsq(atoms.T, row[:, None]).solution[:, 0]
            if signed or bool((codes >= 0).all()):
                break
            kept = [place for place, code in zip(kept, codes.tolist(), strict=True) if code > 0]
        solved.zero_()
        if not kept:
            break
        solved[kept] = codes
        if float(codes.abs().max()) <= LARGEST * float(torch.linalg.vector_norm(codes @ atoms)):
            break
    return solved


def _least_squares(dictionary: Tensor, data: Tensor, support: SparseCodes) -> SparseCodes:
    on = active(support.values)  # (B, k)
    atoms = dictionary[support.indices] * on.unsqueeze(-1)  # (B, k, n)
    gram = atoms @ atoms.mT  # (B, k, k)
    # Inactive units get an equation of their own, 1 * c = 0.
    ridge = 8 * torch.finfo(data.dtype).eps
    gram = gram + torch.diag_embed(torch.where(on, ridge, 1.0).to(data.dtype))
    values = torch.linalg.solve(gram, torch.einsum("bkn,bn->bk", atoms, data))
    return SparseCodes(support.indices, values)


def _without_twins(dictionary: Tensor, support: SparseCodes) -> SparseCodes:
    """`support` without the units whose atom is, but for its sign, that of one listed before."""
    atoms = dictionary[support.indices] * active(support.values).unsqueeze(-1)  # (B, k, n)
    near = (atoms @ atoms.mT).abs() >= 1 - dependence(dictionary.dtype) / 2
    return SparseCodes(support.indices, torch.where(near.tril(-1).any(dim=-1), 0.0, support.values))


def _positive_least_squares(
    dictionary: Tensor, data: Tensor, support: SparseCodes, signed: bool
) -> SparseCodes:
    """Least squares; unless `signed` without the units that come out negative, until none does."""
    found = _least_squares(dictionary, data, _without_twins(dictionary, support))
    while not signed and bool((found.values < 0).any()):
        found = _least_squares(
            dictionary, data, SparseCodes(found.indices, found.values.clamp_min(0))
        )
    return found


def _fitted(
    dictionary: Tensor, data: Tensor, support: SparseCodes, *, signed: bool
) -> tuple[SparseCodes, Tensor, Tensor]:
    """The codes of data (B, n) on a support, what they leave (B, n), and its square (B,)."""
    found = _positive_least_squares(dictionary, data, support, signed)
    residual = data - found.reconstruct(dictionary)
    return found, residual, residual.square().sum(dim=1)


def _value(scores: Tensor, signed: bool) -> Tensor:
    return scores.abs() if signed else scores


def _shrunk(dictionary: Tensor, codes: SparseCodes, by: Tensor) -> Tensor:
    """Codes c (B, k) of least squares less G_SS^-1 (by sign(c)); 0 where the sign would change."""
    on = active(codes.values)
    atoms = dictionary[codes.indices] * on.unsqueeze(-1)  # (B, k, n)
    square = atoms @ atoms.mT + torch.diag_embed((~on).to(atoms.dtype))
    toward = by[codes.indices] * codes.values.sign()
    change = torch.linalg.solve(square, toward[:, :, None]).squeeze(2)
    left = codes.values - change
    return torch.where(left * codes.values > 0, left, 0.0)


class Look:
    """What rows (B, n) correlate with most, by a dense product: a kernel may know it sooner."""

    def __init__(self, dictionary: Tensor) -> None:
        self.dictionary = dictionary

    def __call__(
        self, rows: Tensor, k: int, signed: bool, without: SparseCodes | None = None
    ) -> SparseCodes:
        """The k units of largest value above 0 of each row, but for those active in `without`."""
        scores = rows @ self.dictionary.T
        if without is not None:
            scores = torch.where(active(without.dense(len(self.dictionary))), 0.0, scores)
        return _largest(scores, k, signed)

    def best(
        self, rows: Tensor, signed: bool, taken: Tensor, less: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The largest value (B,) of each row, and its unit, which is not one of `taken` (B, t).

        Values are what is above `less` (m,), if that is there.
        """
        score = rows @ self.dictionary.T  # (B, m)
        if signed:
            score.abs_()
        if less is not None:
            score -= less
        if taken.shape[1]:
            score.scatter_(1, taken, -torch.inf)
        best, index = score.max(dim=1)
        return best, index


def _largest_of(codes: SparseCodes, k: int, signed: bool) -> SparseCodes:
    """The k largest values of a list, ties to the lowest unit; others have the value 0."""
    units, order = codes.indices.sort(dim=1)
    kept = _largest(codes.values.gather(1, order), min(k, order.shape[1]), signed)
    return SparseCodes(units.gather(1, kept.indices), kept.values)


def _largest(scores: Tensor, k: int, signed: bool) -> SparseCodes:
    """The k units of largest value above 0, ties to the lowest index; others have the value 0."""
    value = _value(scores, signed)
    kept = k_largest(value, k) & (value > 0)
    indices = kept.to(torch.uint8).topk(k, dim=1).indices.sort(dim=1).values
    return SparseCodes(indices, torch.where(kept, scores, 0.0).gather(1, indices))


@register("pursuit", "pursuit")
@dataclass(frozen=True)
class SubspacePursuit(Pursuit):
    """Subspace pursuit, Dai and Milenkovic 2009: a k-largest encoder that corrects itself.

    Starts from the k-largest code. Each iteration adds the k units that correlate most with
    the residual, fits all 2k by least squares, keeps the k largest coefficients and fits
    again; it ends when the residual no longer gets smaller. Unless `signed`, units whose
    coefficient comes out negative are left out.

    Examples
    --------
    >>> atoms = torch.eye(3, dtype=torch.float64)
    >>> codes = SubspacePursuit(2)(atoms, torch.tensor([[0.5, -3.0, 2.0]], dtype=torch.float64))
    >>> codes.dense(3).round(decimals=6)
    tensor([[ 0., -3.,  2.]], dtype=torch.float64)
    """

    max_iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("max_iterations", self.max_iterations, low=0)

    def __call__(self, dictionary: Tensor, data: Tensor) -> SparseCodes:  # noqa: D102
        return self.pursue(dictionary, data, Look(dictionary))

    def pursue(self, dictionary: Tensor, data: Tensor, look: Look) -> SparseCodes:
        """The codes, where `look` says what residuals correlate with."""
        k = self._taken(dictionary)
        fit = partial(_fitted, dictionary, signed=self.signed)
        best, residual, loss = fit(data, look(data, k, self.signed))
        found = SparseCodes(*(part.clone() for part in best))
        square = data.square().sum(dim=1)
        rows = torch.arange(len(data), device=data.device)  # whose residual still gets smaller
        for _ in range(self.max_iterations):
            more = look(residual, k, self.signed, best)
            both = SparseCodes(
                torch.cat([best.indices, more.indices], dim=1),
                torch.cat([best.values, more.values], dim=1),
            )
            here = data[rows]
            wide = _least_squares(dictionary, here, _without_twins(dictionary, both))
            trial, after, new_loss = fit(here, _largest_of(wide, k, self.signed))
            # Rounding can make equals look better: it must be more than that.
            gain = 64 * dependence(data.dtype) * (square[rows] - loss)
            better = (loss - new_loss > gain).nonzero().squeeze(1)
            if not len(better):
                break
            rows, residual, loss = rows[better], after[better], new_loss[better]
            best = SparseCodes(*(part[better] for part in trial))
            for whole, part in zip(found, best, strict=True):
                whole[rows] = part
        return _within(dictionary, data, found, self.signed)


@register("pursuit", "iht")
@dataclass(frozen=True)
class IterativeHardThresholding(Pursuit):
    """Normalised iterative hard thresholding, Blumensath and Davies 2010.

    x <- H_k(x + mu D (y - x D)), H_k keeping the k largest; mu is the best step on the
    present support, halved while it makes the loss larger. Ends where a step changes the codes
    by less than `tolerance` of their length.

    Examples
    --------
    >>> import torch
    >>> from shoal.vocabulary import Parameters
    >>> from shoal.network.inference import IterativeHardThresholding, fast_encode
    >>> parameters = Parameters(torch.eye(3), torch.zeros(3))
    >>> fast_encode(parameters, torch.tensor([[3.0, -0.5, 2.0]]), IterativeHardThresholding(2))
    tensor([[3., 0., 2.]])
    """

    max_iterations: int = 100
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("max_iterations", self.max_iterations)
        check_number("tolerance", self.tolerance, low=0.0)

    def __call__(self, dictionary: Tensor, data: Tensor) -> SparseCodes:  # noqa: D102
        k, m = self._taken(dictionary), len(dictionary)
        codes = data.new_zeros(len(data), m)
        support = _largest(data @ dictionary.T, k, self.signed).dense(m) != 0
        residual = data
        going = torch.ones(len(data), dtype=torch.bool, device=data.device)
        for _ in range(self.max_iterations):
            gradient = residual @ dictionary.T  # (B, m), uphill
            inside = torch.where(support, gradient, 0.0)
            curve = (inside @ dictionary).square().sum(dim=1)
            square = inside.square().sum(dim=1)
            step = torch.where(curve > 0, square / curve.clamp_min(1e-300), 1.0)
            loss, pending = residual.square().sum(dim=1), going
            new, after = codes, residual
            for _ in range(20):
                trial = _largest(codes + step[:, None] * gradient, k, self.signed).dense(m)
                left = data - trial @ dictionary
                ok = pending & (left.square().sum(dim=1) < loss)
                new = torch.where(ok[:, None], trial, new)
                after = torch.where(ok[:, None], left, after)
                pending = pending & ~ok
                if not bool(pending.any()):
                    break
                step = torch.where(pending, step / 2, step)
            change = torch.linalg.vector_norm(new - codes, dim=1)
            size = torch.linalg.vector_norm(new, dim=1)
            going = going & ~pending & (change > self.tolerance * size)
            codes, residual, support = new, after, active(new)
            if not bool(going.any()):
                break
        return _largest(codes, k, self.signed)


@register("pursuit", "omp")
@dataclass(frozen=True)
class OrthogonalMatchingPursuit(Pursuit):
    """Orthogonal matching pursuit with k atoms, all rows at once.

    Each of the k rounds adds to every row the atom that correlates most with its residual
    (in absolute value, or with ``signed=False`` in value), then projects the residual off
    the span of the atoms taken so far. With ``signed=False`` atoms whose coefficient comes out
    negative are left out, and the others solved for again. A row stops early where no atom is
    left to gain from: the largest
    correlation is at rounding level (or with ``signed=False`` not positive). Ties go to
    either atom. Rows that are explained exactly by fewer atoms have zeros among their values.

    Parameters
    ----------
    k : int
        Active units a row at most.
    signed : bool
        Whether codes may be negative.
    tolerance : float
        A row also stops once at most this share of its square is left, 0 for never: a target for
        the error in place of a number of atoms, which is then only the most.

    Examples
    --------
    >>> import torch
    >>> from shoal.vocabulary import Parameters
    >>> from shoal.network.inference import OrthogonalMatchingPursuit, fast_encode
    >>> parameters = Parameters(torch.eye(3), torch.zeros(3))
    >>> fast_encode(parameters, torch.tensor([[3.0, -0.5, 2.0]]), OrthogonalMatchingPursuit(2))
    tensor([[3., 0., 2.]])
    """

    tolerance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("tolerance", self.tolerance, low=0.0, high=1.0)

    def __call__(self, dictionary: Tensor, data: Tensor) -> SparseCodes:  # noqa: D102
        return self.pursue(dictionary, data, Look(dictionary))

    def pursue(self, dictionary: Tensor, data: Tensor, look: Look) -> SparseCodes:
        """The codes, where `look` says what residuals correlate with."""
        n_samples, n_features = data.shape
        k = self._taken(dictionary)
        basis = data.new_zeros(n_samples, k, n_features)  # orthonormal, spans the atoms taken
        upper = data.new_zeros(n_samples, k, k)  # atoms taken = upper^T basis
        target = data.new_zeros(n_samples, k)  # coordinates of the data in the basis
        indices = torch.zeros(n_samples, k, dtype=torch.long, device=data.device)
        residual = data.clone()
        # Arbitrary: an atom nearer than this to the span of those taken adds only noise.
        dependent = torch.finfo(data.dtype).eps ** 0.5
        # Arbitrary: a few times what rounding leaves of data that is explained exactly.
        rounding = 32 * torch.finfo(data.dtype).eps * torch.linalg.vector_norm(data, dim=1)
        square = data.square().sum(dim=1)
        for taken in range(k):
            best, index = look.best(residual, self.signed, indices[:, :taken])
            indices[:, taken] = index
            atom = dictionary[index]  # (B, n)
            inside = torch.einsum("bkn,bn->bk", basis[:, :taken], atom)
            direction = atom - torch.einsum("bk,bkn->bn", inside, basis[:, :taken])
            length = torch.linalg.vector_norm(direction, dim=1)
            useful = (length > dependent) & (best > rounding)
            if self.tolerance > 0:
                useful &= residual.square().sum(dim=1) > self.tolerance * square
            direction = torch.where(
                useful[:, None], direction / length.clamp_min(dependent)[:, None], 0.0
            )
            upper[:, :taken, taken] = torch.where(useful[:, None], inside, 0.0)
            upper[:, taken, taken] = torch.where(useful, length, 1.0)
            basis[:, taken] = direction
            target[:, taken] = torch.einsum("bn,bn->b", direction, residual)
            residual = residual - target[:, taken, None] * direction
        values = torch.linalg.solve_triangular(upper, target.unsqueeze(-1), upper=True).squeeze(-1)
        found = SparseCodes(indices, values)
        if not self.signed and bool((values < 0).any()):
            found = _positive_least_squares(dictionary, data, found, self.signed)
        return _within(dictionary, data, found, self.signed)


@register("pursuit", "threshold")
@dataclass(frozen=True)
class ThresholdPursuit(Pursuit):
    """As many atoms a row as it takes: those whose coefficient is worth its atom's threshold.

    Codes by a threshold have the right support where atoms are incoherent: Nguyen et al. 2018,
    Theorem 3. Here greedily, so that each decision is made on what the others leave: the unit whose
    correlation with the residual exceeds half its threshold by most is taken, and all that are
    taken are fitted by least squares, until none exceeds it or k are taken. Then the unit whose
    coefficient is the least share of its threshold is left out and the others fitted again, while
    that share is below 1.

    Parameters
    ----------
    k : int
        Active units a row at most.
    signed : bool
        Whether codes may be negative.
    share : float
        Of the thresholds, what a coefficient must be worth: an encoder's own codes need higher
        ones.
    shrinkage : float
        The share of the thresholds by which the codes of what is left in are drawn towards 0, as
        the lasso draws them: c - shrinkage G_SS^-1 (theta sign(c)), and 0 where the sign would
        change. For learning signed atoms: least squares is as content with sums of atoms.
    """

    share: float = 1.0
    shrinkage: float = 0.0

    learns: ClassVar[bool] = True
    start: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("share", self.share, low=0.0)
        check_number("shrinkage", self.shrinkage, low=0.0)

    def __call__(  # noqa: D102
        self, dictionary: Tensor, data: Tensor, threshold: Tensor | None = None
    ) -> SparseCodes:
        return self.pursue(dictionary, data, Look(dictionary), threshold)

    def pursue(
        self, dictionary: Tensor, data: Tensor, look: Look, threshold: Tensor | None = None
    ) -> SparseCodes:
        """The codes, where `look` says what residuals correlate with."""
        k, (n_samples, _) = self._taken(dictionary), data.shape
        if threshold is None:
            threshold = torch.zeros_like(dictionary[:, 0])
        threshold = self.share * threshold
        units = torch.full((n_samples, k), -1, device=data.device)
        codes = data.new_zeros(n_samples, k)

        def fit(rows: Tensor) -> Tensor:
            """Fit the units of some rows; what they leave."""
            on = units[rows] >= 0
            support = SparseCodes(units[rows].clamp_min(0), on.to(data.dtype))
            found = least_squares(dictionary, data[rows], support)
            codes[rows] = torch.where(on, found.values, 0.0)
            return data[rows] - found.reconstruct(dictionary)

        rows = torch.arange(n_samples, device=data.device)  # that may take another unit
        best, _ = look.best(data, True, units[:, :0])
        residual, rounding = data, dependence(data.dtype) * best
        for taken in range(k):
            best, unit = look.best(residual, self.signed, units[rows, :taken], threshold / 2)
            going = (best > rounding[rows]).nonzero().squeeze(1)
            if not len(going):
                break
            rows = rows[going]
            units[rows, taken] = unit[going]
            residual = fit(rows)
        units, order = units.sort(dim=1)  # ties go to the lower unit
        codes = codes.gather(1, order)
        floor = threshold.clamp_min(torch.finfo(data.dtype).tiny)
        rows = torch.arange(n_samples, device=data.device)  # that may lose another
        while True:
            here = units[rows]
            worth = _value(codes[rows], self.signed) / floor[here.clamp_min(0)]
            least, place = torch.where(here >= 0, worth, torch.inf).min(dim=1)
            fails = (least < 1).nonzero().squeeze(1)
            if not len(fails):
                break
            rows = rows[fails]
            units[rows, place[fails]] = -1
            fit(rows)
        if self.shrinkage:
            at = SparseCodes(units.clamp_min(0), codes)
            codes = _shrunk(dictionary, at, self.shrinkage * threshold)
        return SparseCodes(units.clamp_min(0), codes)

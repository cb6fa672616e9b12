"""What can be said of a dictionary as a whole: how many atoms, how sparse, and which theorems.

Bi-cross-validation (Wold 1978; Owen and Perry 2009): of rows that no fit has seen, a quarter of
the features, in random directions, is left out, the rows are coded from the others, and what these
codes say of the features left out is compared with what they are. Atoms and active atoms that
the data don't support make it worse, as they are fitted to noise.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal import theory
from shoal.certificate.learning import Learnt
from shoal.certificate.refits import Coded, pursued
from shoal.diagnosis._arrays import unit_rows
from shoal.theory import nguyen2019, rangamani2017
from shoal.theory.worlds import is_signed
from shoal.vocabulary import ArgumentError

__all__ = ["Curve", "Spread", "Whole", "hypotheses", "unseen", "whole"]

Floats = NDArray[np.float64]

# Arbitrary: parts that the features are left out in; rows that atoms are put in order by, and that
# are predicted; rows of the explained variance; and values of a dictionary that fewer rows
# are enough for: what all of it costs is bounded whatever there is. A share of the variance that is
# no reason for more atoms.
_PARTS, _ROWS, _EXPLAINED, _VALUES, _TRIFLE = 4, 500, 2000, 2.5e8, 0.003
# Arbitrary: what the covariance predicts of features left out from which on it hides all else.
_NEARLY_ALL = 0.8
_FEWER = (0.25, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9)
_MORE = (1.1, 1.25, 1.5)


class Spread(NamedTuple):
    """A number, and by how much fits of other rows and seeds differ in it."""

    value: float
    sd: float  # a standard deviation


@dataclass(frozen=True)
class Curve:
    """Of features that were left out, what is predicted, against a size.

    Attributes
    ----------
    sizes : list of int
    explained : list of float
        1 - squared error / variance, over both halves' fits; below 0 it is worse than the mean.
    sd : list of float
        Standard deviation over these fits.
    chosen : int or None
        The smallest size that is within a standard error, or .3 %, of the best; None where nothing
        is predicted that a linear prediction from the covariance does not, or the mean.
    chosen_sd : float or None
        Standard deviation of the choice over these fits.
    reason : str
        Why, in words.
    """

    sizes: list[int]
    explained: list[float]
    sd: list[float]
    chosen: int | None
    chosen_sd: float | None
    reason: str


@dataclass(frozen=True)
class Whole:
    """What can be said of a dictionary as a whole.

    Attributes
    ----------
    atoms, active : Curve
        How many atoms the data support, and how many of them in a row.
    linear : Spread
        What of features left out is predicted linearly, by the covariance alone.
    explained : dict of str to Spread
        Explained variance of rows held out, all coded by the same pursuit: by the ``model``;
        of ``surrogate`` rows by models of such rows, and of ``shuffled`` ones; by dictionaries of
        as many ``rows`` of the data, and of ``gaussian`` atoms, which nobody has learnt.
    counts : dict of str to Spread
        Atoms with each verdict, and how much that differs where the fit of a half has the
        model's part.
    hypotheses : list of dict
        What theorems ask of a dictionary and its codes, with W in place of A*: see
        :func:`hypotheses`.
    """

    atoms: Curve
    active: Curve
    linear: Spread
    explained: dict[str, Spread]
    counts: dict[str, Spread]
    hypotheses: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        spreads = {
            name: {key: each._asdict() for key, each in getattr(self, name).items()}
            for name in ("explained", "counts")
        }
        return {
            "atoms": asdict(self.atoms),
            "active": asdict(self.active),
            "linear": self.linear._asdict(),
            **spreads,
            "hypotheses": [dict(each) for each in self.hypotheses],
        }

    def sentences(self) -> list[str]:
        """All of it in words."""
        said = [
            "How many atoms the data support was asked by leaving a quarter of the features out "
            "of rows that no fit had seen, and predicting them from the others. "
            + self.atoms.reason,
            "How many of them a row has: " + self.active.reason,
        ]
        own, others = self.explained["model"], self.explained
        compared = [
            (f"{others['surrogate'].value:.1%} of made-up rows with the same covariance (± "
             f"{others['surrogate'].sd:.1%})"),
            (f"{others['rows'].value:.1%} with rows of the data as atoms (± "
             f"{others['rows'].sd:.1%})"),
            (f"{others['gaussian'].value:.1%} with random atoms (± {others['gaussian'].sd:.1%})"),
        ]  # fmt: skip
        said.append(
            f"Of rows held out the model explains {own.value:.1%} (± {own.sd:.1%} between fits of "
            f"other rows and seeds). The same number of atoms explains {compared[0]}, "
            f"{compared[1]} and {compared[2]}: what is above these is what learning found."
        )
        if not self.hypotheses:
            said.append("Which hypotheses of theorems hold can't be said: the atoms have no codes.")
            return said
        held = sum(each["holds"] for each in self.hypotheses)
        theorems = list(dict.fromkeys(each["source"] for each in self.hypotheses))
        whole = [
            name
            for name in theorems
            if all(each["holds"] for each in self.hypotheses if each["source"] == name)
        ]
        applies = (
            f"All are met of {'; '.join(whole)}." if whole else "No theorem has all of its own."
        )
        said.append(
            f"Theorems on such models ask {len(self.hypotheses)} things of the atoms and codes; "
            f"{held} of these hold with the learnt atoms in place of the true ones. {applies}"
        )
        return said


# --------------------------------------------------------------------------- features left out


def unseen(
    atoms: Floats, rows: Floats, k: int, parts: list[NDArray[np.intp]], *, signed: bool
) -> Floats:
    """Squared error of rows (N, n) on features that they were not coded from, summed, (N,).

    Parameters
    ----------
    atoms : ndarray of shape (m, n)
        Of length 1.
    rows : ndarray of shape (N, n)
    k : int
        Atoms a row is coded with, by a pursuit on the features that are left.
    parts : list of ndarray of int
        The features in parts; each is left out once.
    signed : bool
        Whether codes take both signs.
    """
    error = np.zeros(len(rows))
    for part in parts:
        seen = np.setdiff1d(np.arange(rows.shape[1]), part)
        lengths = np.linalg.norm(atoms[:, seen], axis=1)
        fine = lengths > 1e-3  # what isn't there can't be seen to fire
        if not fine.any():
            error += np.square(rows[:, part]).sum(axis=1)
            continue
        short = atoms[np.ix_(fine, seen)] / lengths[fine, None]
        codes = pursued(short, rows[:, seen], k, signed=signed) / lengths[fine]
        error += np.square(rows[:, part] - codes @ atoms[np.ix_(fine, part)]).sum(axis=1)
    return error


def _turned(trains: list[Floats], rng: np.random.Generator) -> Floats:
    """Axes (n, r) of the space that rows lie in, in random directions.

    Features are left out along these. Of rows that lie in a plane, as whitened ones may, a feature
    follows from others whatever the atoms; and an atom of one feature can't be seen in others.
    """
    square = sum(train.T @ train for train in trains)
    values, vectors = np.linalg.eigh(np.asarray(square))
    # Arbitrary: what is less is rounding.
    basis = vectors[:, values > 1e-8 * max(float(values[-1]), 1e-300)]
    turn = np.linalg.qr(rng.standard_normal((basis.shape[1], basis.shape[1])))[0]
    return np.asarray(basis @ turn)


def _linearly(train: Floats, rows: Floats, parts: list[NDArray[np.intp]]) -> Floats:
    """As :func:`unseen`, of the linear prediction by mean and covariance of `train`."""
    mean = train.mean(axis=0)
    centred = train - mean
    covariance = centred.T @ centred / len(train)
    # Arbitrary: so much of the mean variance keeps the solution finite.
    covariance += 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    error = np.zeros(len(rows))
    for part in parts:
        seen = np.setdiff1d(np.arange(rows.shape[1]), part)
        by = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, part)])
        error += np.square(rows[:, part] - mean[part] - (rows[:, seen] - mean[seen]) @ by).sum(
            axis=1
        )
    return error


def _chosen(errors: Floats, total: float) -> int:
    """Of sizes (s, N), the first within a standard error of the best, or a trifle."""
    beyond = errors - errors[errors.sum(axis=1).argmin()]
    fine = beyond.mean(axis=1) <= beyond.std(axis=1) / np.sqrt(errors.shape[1])
    fine |= beyond.sum(axis=1) <= _TRIFLE * total
    return int(np.flatnonzero(fine)[0])


def _curve(
    sizes: list[int], errors: Floats, linear: Floats, total: float, what: str, asked: int
) -> Curve:
    """Of errors (fits, sizes, rows), and those of a linear prediction (fits, rows)."""
    each = 1.0 - errors.sum(axis=2) / total  # (fits, sizes)
    explained, sd = each.mean(axis=0), each.std(axis=0, ddof=1)
    choices = [sizes[_chosen(error, total)] for error in errors]
    place = _chosen(errors.mean(axis=0), total)
    best = int(explained.argmax())
    covariance = 1.0 - float(linear.mean(axis=0).sum()) / total
    gain = linear.mean(axis=0) - errors.mean(axis=0)[best]
    more = gain.mean() > gain.std() / np.sqrt(len(gain))
    there = f"{sizes[0]} to {sizes[-1]} {what} were tried"
    if explained[best] <= 0 or not more:
        either = "Either the data have no such structure, or one with many more than were tried."
        if covariance >= _NEARLY_ALL:
            either = (
                "That is no sign that there are none: a few directions hold nearly all of these "
                "data, and there this test sees nothing else."
            )
        reason = (
            f"{there}, and the best predict {explained[best]:.1%}, where the covariance alone "
            f"predicts {covariance:.1%}: by this test no number of {what} is supported. {either}"
        )
        return Curve(sizes, explained.tolist(), sd.tolist(), None, None, reason)
    chosen = sizes[place]
    spread = float(np.std(choices, ddof=1))
    reason = (
        f"{there}; {chosen} (± {spread:.1f} between fits) predict {explained[place]:.1%} of them, "
        f"and no other number more than that by a standard error and {_TRIFLE:.1%} ({asked} "
        f"were asked for; the covariance alone predicts {covariance:.1%})."
    )
    if chosen == sizes[-1]:
        reason += " It is the most that were tried: there may be more."
    return Curve(sizes, explained.tolist(), sd.tolist(), chosen, spread, reason)


def _in_order(learnt: Learnt, rows: Floats, k: int, signed: bool) -> Floats:
    """Its atoms by energy on `rows`, and then those of what they leave, by theirs."""
    atoms = learnt.coded.atoms
    energy = np.square(pursued(atoms, rows, k, signed=signed)).sum(axis=0)
    ordered = atoms[np.argsort(-energy, kind="stable")]
    if not len(learnt.extra):
        return ordered
    both = np.concatenate([ordered, learnt.extra])
    codes = pursued(both, rows, k, signed=signed)[:, len(ordered) :]
    beyond = np.argsort(-np.square(codes).sum(axis=0), kind="stable")
    return np.concatenate([ordered, learnt.extra[beyond]])


# --------------------------------------------------------------------------- explained variance


def _explained(atoms: Floats, rows: Floats, k: int, signed: bool) -> float:
    rest = rows - pursued(atoms, rows, k, signed=signed) @ atoms
    whole = float(np.square(rows - rows.mean(axis=0)).sum())
    return 1.0 - float(np.square(rest).sum()) / max(whole, 1e-300)


def _rows_of(coded: Coded, most: int) -> Floats:
    """The rows that were coded, less an offset."""
    return np.asarray(coded.rest[:most] + coded.codes[:most] @ coded.atoms)


def _spread(values: list[float]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)))


# --------------------------------------------------------------------------- theorems


def hypotheses(coded: Coded, most: int = 2000) -> list[dict[str, Any]]:
    """What theorems ask of a dictionary and its codes, with W in place of A*.

    Parameters
    ----------
    coded : Coded
        Of the first `most` rows the supports, non-zeros and rests stand for the laws of a world:
        :func:`shoal.theory.world_from_codes`.

    Returns
    -------
    list of dict
        As :class:`shoal.claims.Check`, with the ``theorem`` that asks and its ``source``: of codes
        of both signs Definition 1 and Theorem 3 (i) of Nguyen et al. 2018; of others Theorem 3
        (ii) and (iii), and Theorem 3.1 of Rangamani et al. 2017. Empty where nothing fires.
    """
    kept = np.linalg.norm(coded.atoms, axis=1) > 0
    codes = coded.codes[:most][:, np.flatnonzero(kept)]
    try:
        world = theory.world_from_codes(coded.atoms[kept], codes, data=_rows_of(coded, most))
    except ArgumentError:
        return []
    weights, few = world.dictionary, {"n_samples": 80, "random_state": 0}
    found = [nguyen2019.definition1(world)]
    if is_signed(world):
        found.append(nguyen2019.theorem3(world, weights, case="i", **few))
    else:
        found.append(nguyen2019.theorem3(world, weights, case="ii", **few))
        found.append(nguyen2019.theorem3(world, weights, case="iii", **few))
        found.append(rangamani2017.theorem31(world, weights, **few))
    return [
        {"theorem": each.name, "source": each.source, **check.to_dict()}
        for each in found
        for check in each.hypotheses
    ]


# --------------------------------------------------------------------------- all of it


def whole(
    own: Coded,
    halves: list[Learnt],
    trains: list[Floats],
    held: Floats,
    nulls: list[list[Coded]],
    k: int,
    signed: bool,
    counts: dict[str, Spread],
    seed: int,
) -> Generator[float, None, Whole]:
    """All of it; yields the share that is done.

    Parameters
    ----------
    own : Coded
        The model on rows held out.
    halves : list of Learnt
        The fits of two halves, and `trains`, the rows (N, n) of these.
    held : ndarray of shape (H, n)
        Rows held out, as the halves see them.
    nulls : list of list of Coded
        A pair of fits of surrogates for each kind of these.
    k : int
        Atoms a row is coded with.
    """
    rng = np.random.default_rng(seed)
    m, n = len(own.atoms), held.shape[1]
    axes = _turned(trains, rng)
    most = int(np.clip(_VALUES / (1.5 * m * n * max(k, 4)), 100, _ROWS))
    first, tested = held[: min(most, len(held) // 2)], held[len(held) // 2 :][:most] @ axes
    parts = np.array_split(np.arange(axes.shape[1]), min(_PARTS, axes.shape[1]))
    ordered = [unit_rows(_in_order(each, first, k, signed) @ axes) for each in halves]
    least = min(map(len, ordered))
    sizes = sorted({*(round(share * m) for share in (*_FEWER, 1.0, *_MORE))})
    sizes = [size for size in sizes if 1 <= size <= least]
    ks = _sparsities(k, min(m, axes.shape[1] - len(parts[0])))
    total = float(np.square(tested - tested.mean(axis=0)).sum())
    linear = np.stack([_linearly(train @ axes, tested, parts) for train in trains])
    steps, done = 2 * (len(sizes) + len(ks)) + 8, 0
    by_size, by_k = np.zeros((2, len(sizes), len(tested))), np.zeros((2, len(ks), len(tested)))
    for fit, atoms in enumerate(ordered):
        for place, size in enumerate(sizes):
            by_size[fit, place] = unseen(atoms[:size], tested, k, parts, signed=signed)
            yield (done := done + 1) / steps
        own_size = min(m, len(halves[fit].coded.atoms))
        for place, number in enumerate(ks):
            by_k[fit, place] = unseen(atoms[:own_size], tested, number, parts, signed=signed)
            yield (done := done + 1) / steps
    atoms_curve = _curve(sizes, by_size, linear, total, "atoms", m)
    active = _curve(ks, by_k, linear, total, "active atoms", k)

    rows = held[:_EXPLAINED]
    real = [_explained(own.atoms, _rows_of(own, _EXPLAINED), k, signed)]
    real += [_explained(each.coded.atoms, rows, k, signed) for each in halves]
    explained = {"model": Spread(real[0], _spread(real).sd)}
    yield (done := done + 3) / steps
    for name, pair in zip(("surrogate", "shuffled"), nulls, strict=False):
        values = [_explained(e.atoms, _rows_of(e, _EXPLAINED), k, signed) for e in pair]
        explained[name] = _spread(values)
    yield (done := done + 2) / steps
    drawn = [unit_rows(each[rng.choice(len(each), m, replace=len(each) < m)]) for each in trains]
    normal = [unit_rows(rng.standard_normal((m, n))) for _ in trains]
    for name, others in (("rows", drawn), ("gaussian", normal)):
        explained[name] = _spread([_explained(each, rows, k, signed) for each in others])
    yield (done := done + 2) / steps
    errors = [1.0 - float(each.sum()) / total for each in linear]
    return Whole(atoms_curve, active, _spread(errors), explained, counts, hypotheses(own))


def _sparsities(k: int, most: int) -> list[int]:
    """Numbers of active atoms about `k`, at most `most`."""
    near = {k, 1, round(k / 4), round(k / 2), round(0.75 * k), round(1.5 * k), 2 * k}
    near |= {k - 1, k + 1, k + 2} if k <= 8 else set()
    return sorted(each for each in near if 1 <= each <= max(1, most))

"""How far each atom can be trusted, where nothing is known but the data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from shoal.certificate.evidence import (
    Null,
    benjamini_hochberg,
    crowding,
    jaccard,
    locally_best,
    matched,
    pull,
    share,
    split,
    together,
)
from shoal.certificate.learning import Kept, Learnt, Task, learn_all
from shoal.certificate.refits import Coded, Subject, shuffled, subject, surrogate
from shoal.certificate.rule import chance, table
from shoal.certificate.whole import Spread, Whole, whole
from shoal.claims import plain
from shoal.vocabulary import ArgumentError, __version__, check_count

__all__ = ["VERDICTS", "Certificate", "Progress", "certify", "certifying", "evidence_of"]

VERDICTS = {
    "certified": "found again from other data, and by the calibration at least 9 in 10 such atoms "
    "are right",
    "doubtful": "more than noise, and less than what planted atoms show that were found",
    "mixture": "stable, but as a sum: by the calibration most such atoms hold two parts of the "
    "truth, such as a parent and its child",
    "noise": "no more stable than atoms of data without any sparse structure",
}
"""What is said of an atom, and what it means."""

# Arbitrary: the rate of false discoveries among atoms said to be more than noise, and the rows
# that are held out of both halves.
_RATE, _LEAST, _MOST, _HELD = 0.05, 20, 10_000, 0.2


class Progress(NamedTuple):
    """How far it is."""

    share: float  # of the work, from 0 to 1
    note: str  # what is done


@dataclass(frozen=True, eq=False)
class Certificate:
    """What can be said of each atom of a dictionary; made by :func:`certify`.

    Attributes
    ----------
    certified : ndarray of shape (m,), bool
        Which atoms the rule takes for true.
    verdicts : list of str
        "certified", "doubtful", "mixture" or "noise" of each atom: see `VERDICTS`.
    evidence : dict of str to ndarray of shape (m,)
        What the verdicts come from: see :func:`certify`.
    fits : int
        How many models were learnt for it.
    n_samples : int
        Rows that it was given.
    whole : Whole
        How many atoms the data support, what all of them explain against others, and which
        hypotheses of theorems hold: see :class:`shoal.certificate.Whole`.
    """

    certified: NDArray[np.bool_]
    verdicts: list[str]
    evidence: dict[str, NDArray[Any]] = field(repr=False)
    fits: int
    n_samples: int
    whole: Whole = field(repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """How many atoms have each verdict."""
        return {name: self.verdicts.count(name) for name in VERDICTS}

    def table(self, most: int | None = None) -> str:
        """The evidence as text, a row per atom; the first `most` of them, or all."""
        shown = ("match", "match_null", "firing", "share", "share_null", "split", "crowding", "kin")
        head = ["atom", "verdict", *shown, "uses", "chance"]
        rows = []
        for i, verdict in enumerate(self.verdicts[:most]):
            numbers = [f"{self.evidence[name][i]:.2f}" for name in shown]
            uses, likely = self.evidence["uses"][i], self.evidence["chance"][i]
            rows.append([str(i), verdict, *numbers, str(uses), f"{likely:.2f}"])
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = (
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in [head, *rows]
        )
        return "\n".join(lines)

    def summary(self) -> str:
        """The result in words, for a reader who has never heard of any of this."""
        m, counts = len(self.verdicts), self.counts
        held = table()["held_out"]
        text = [
            f"The model explains the data by {m} patterns (atoms). The question here is which of "
            "them are in the data, and which would have come out otherwise with other data or "
            "another start.",
            f"For this the rows were divided into two halves and the model was learnt anew from "
            f"each; the same was done with made-up rows of the same mean and covariance that "
            f"have no such patterns at all ({self.fits} fits in all, {self.n_samples} rows).",
            f"{counts['certified']} of {m} atoms are certified (± "
            f"{self.whole.counts['certified'].sd:.1f} where another fit has the model's part): "
            f"{VERDICTS['certified']}. "
            f"{counts['doubtful']} are doubtful: {VERDICTS['doubtful']}. "
            f"{counts['mixture']} look like mixtures: {VERDICTS['mixture']}. "
            f"{counts['noise']} are noise: {VERDICTS['noise']}.",
            "The rule was set on data that were made from known atoms. On other made data, of the "
            f"atoms that it certified {held['precision']:.0%} were right, and it certified "
            f"{held['recall']:.0%} of those that were right. Whether your data resemble those is "
            "not known: a certificate says that atoms are reproducible and of one piece, not that "
            "they mean something.",
            *self.whole.sentences(),
        ]
        return "\n".join(text)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        return {
            "certified": self.certified.tolist(),
            "verdicts": list(self.verdicts),
            "counts": self.counts,
            "fits": self.fits,
            "n_samples": self.n_samples,
            "evidence": plain(self.evidence),
            "whole": plain(self.whole.to_dict()),
            "calibration": {
                name: table()[name] for name in ("command", "held_out", "reliability", "noise")
            },
            "summary": self.summary(),
        }

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        return f"{len(self.verdicts)} atoms: {counts}."


def certify(
    model: Any,
    X: Any,
    *,
    n_nonzero_coefs: int | None = None,
    codes: Callable[[Any], Any] | None = None,
    budget: int = 6,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = 1,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Certificate:
    r"""Say of each atom how far it can be trusted, where the truth isn't known.

    The model is learnt again, with the same settings and other seeds, from two disjoint halves of
    `X` and from surrogates: rows without sparse structure. What the model's atoms show on rows that
    no half has seen is compared with what the surrogates' atoms show on such rows. A rule whose
    weights were set once on planted worlds (never on the data at hand) makes verdicts of it.

    Parameters
    ----------
    model : DictionaryAutoencoder, RegularizedAutoencoder, or array of shape (m, n_features)
        A fitted model; or atoms with a way to code; or an object with `components_` and
        `transform`, such as scikit-learn's. Those of others are learnt again by
        :class:`shoal.DictionaryAutoencoder` with as many atoms and active ones.
    X : array-like, tensor, path or Source of shape (n_samples, n_features)
        At least 4 m rows; usually those that the model was fitted on.
    n_nonzero_coefs : int, optional
        Of an array of atoms: how many a row has. Codes are a pursuit's, of both signs.
    codes : callable, optional
        Of an array of atoms: a function of rows (N, n_features) that gives codes (N, m).
    budget : int
        How many models may be learnt, 4 or more: two halves, two of a Gaussian surrogate; with 6
        two more of a surrogate whose columns are shuffled.
    random_state : int, RandomState instance or None
    n_jobs : int or None
        Processes that models are learnt in; the certificate is the same. With more than 1 a script
        must keep its own work under ``if __name__ == "__main__"``, as all new processes read
        it. With None the first is learnt here, and where that takes long the others by all cores.
    checkpoint : path, optional
        A folder that keeps what is learnt until the certificate is made: a call that was cut off
        goes on from there, to the same certificate. Removed at the end. Needs a `random_state`
        that is an integer.

    Returns
    -------
    Certificate
        Its evidence is, for each atom:

        - ``match``: the smallest of the three \|cosines\| among the atom and its partners from the
          two halves; ``match_null``: the 99 % quantile of those of surrogates' partners;
          ``match_p``: the chance of as much in a surrogate (a normal law of arctanh);
          ``more_than_noise``: rejected at a false-discovery rate of 5 %;
        - ``firing``: rows held out on which both the atom and its partner fire / on which either
          does, the smaller of two halves;
        - ``loss``: what rows held out lose without it, of their square about the mean;
          ``share``: of what is there for it to explain in the rows that use it;
          ``share_null``: the median in surrogates;
        - ``split``: variance in a second direction in the rows that use it (see
          :func:`shoal.certificate.evidence.split`);
        - ``crowding``: its largest cosines with other atoms / those of random ones; ``kin``: what
          these share beside it;
        - ``uses``: rows held out that use it;
        - ``chance``, ``mixture_chance``: what the rule makes of them;
        - ``match_sd``, ``firing_sd``, ``share_sd`` ...: the standard deviation of each over the
          model and the fits of both halves; NaN of an atom that one of them has no partner of;
        - ``pull``, ``local``, ``weakest``, ``strongest``: whether it is a local optimum, and the
          extreme singular values of the atoms that fire with it: see `shoal.certificate.evidence`;
          the rule doesn't look at them.

    Raises
    ------
    ArgumentError
        Before any work: another number of features, fewer than 4 m rows, a stream, one atom,
        atoms without a way to code, a budget below 4.
    RunError
        Where `checkpoint` holds what was learnt of other data, another model or another call.

    Notes
    -----
    Agreement of two fits is no evidence by itself: what has a covariance but no sparse structure
    agrees as well. Benjamini and Hochberg 1995 for the false-discovery rate.

    Examples
    --------
    >>> import shoal
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> world = SparseCoding(random_dictionary(24, 16, random_state=0), sparsity=2, noise=0.05)
    >>> X = world.sample(2000, random_state=1).data
    >>> model = shoal.DictionaryAutoencoder(24, 2, random_state=0).fit(X)
    >>> certificate = shoal.certify(model, X, random_state=0)
    >>> bool(certificate.certified.mean() > 0.9)
    True
    """
    steps = certifying(
        model, X, n_nonzero_coefs=n_nonzero_coefs, codes=codes, budget=budget,
        random_state=random_state, n_jobs=n_jobs, checkpoint=checkpoint,
    )  # fmt: skip
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def certifying(
    model: Any,
    X: Any,
    *,
    n_nonzero_coefs: int | None = None,
    codes: Callable[[Any], Any] | None = None,
    budget: int = 6,
    random_state: Any = None,
    n_jobs: int | None = 1,
    checkpoint: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Generator[Progress, None, Certificate]:
    """:func:`certify` as a generator of progress, which returns the certificate.

    Arguments are checked in this call, before the first step is asked for. With `overwrite` a
    `checkpoint` of another call is begun anew.
    """
    check_count("budget", budget, low=4)
    if n_jobs is not None:
        check_count("n_jobs", n_jobs)
    if checkpoint is not None and not isinstance(random_state, (int, np.integer)):
        needed = "an integer with a checkpoint, so that the same call can be made again"
        raise ArgumentError("random_state", repr(random_state), needed)
    try:
        seed = int(check_random_state(random_state).randint(2**31 - 1))
    except ValueError:
        needed = "an integer from 0 to 2**32 - 1, a numpy RandomState, or None"
        raise ArgumentError("random_state", repr(random_state), needed) from None
    of = subject(model, X, n_nonzero_coefs=n_nonzero_coefs, codes=codes)
    fits = 6 if budget >= 6 else 4
    kept = None
    if checkpoint is not None:
        kept = Kept.open(checkpoint, _plan(of, fits, seed), overwrite=overwrite)
    return _steps(of, fits, seed, n_jobs, kept)


def _plan(of: Subject, fits: int, seed: int) -> dict[str, Any]:
    """What tells a call from others, in the words of an error."""
    data, model = hashlib.sha256(of.prepared.tobytes()), hashlib.sha256(of.atoms.tobytes())
    return {
        "data set": f"{of.prepared.shape} {data.hexdigest()}",
        "model": f"{of.signed} {model.hexdigest()} {sorted(of.estimator.told().items())}",
        "seed": seed,
        "budget": fits,
        "version of shoal": __version__,
    }


def _steps(
    of: Subject, fits: int, seed: int, n_jobs: int | None, kept: Kept | None
) -> Generator[Progress, None, Certificate]:
    try:
        found = yield from _gathered(of, fits, seed, n_jobs, kept)
        evidence = _evidence(found, 0)
        verdicts = _decided(evidence)
        evidence |= _spreads(found) | _beside_the_rule(found.fits[0])
        others = [_decided(_evidence(found, place)) for place in (1, 2)]
        counts = {
            name: Spread(
                verdicts.count(name),
                float(np.std([each.count(name) for each in (verdicts, *others)], ddof=1)),
            )
            for name in VERDICTS
        }
        # The rest takes less than a fit.
        steps = whole(
            found.fits[0], found.halves, found.trains, found.held, found.nulls,
            _active(of, found), of.signed, counts, seed,
        )  # fmt: skip
        while True:
            try:
                share = next(steps)
            except StopIteration as end:
                all_of_it = end.value
                break
            yield Progress((fits + share) / (fits + 1), "evidence")
        yield Progress(1.0, "evidence")
        certified = np.array([each == "certified" for each in verdicts])
        made = Certificate(certified, verdicts, evidence, fits, len(of.prepared), all_of_it)
        if kept is not None:
            kept.end()
        return made
    finally:
        if kept is not None:
            kept.release()


def _active(of: Subject, found: _Gathered) -> int:
    """How many atoms a row is coded with: as asked for, or as many as fire on average."""
    asked = of.estimator.settings.get("n_nonzero_coefs")
    if isinstance(asked, (int, np.integer)):
        return int(asked)
    return max(1, round(found.fits[0].codes.nnz / max(1, len(found.held))))


def _decided(evidence: dict[str, NDArray[Any]]) -> list[str]:
    """The verdicts; adds to the evidence what the rule makes of it."""
    significant = evidence["more_than_noise"]
    stored = table()
    likely = evidence["chance"] = chance(evidence, "true")
    mixed = evidence["mixture_chance"] = chance(evidence, "mixture")
    certified = significant & (likely >= stored["true"]["threshold"])
    certified &= evidence["match"] > evidence["match_null"]
    mixture = significant & ~certified & (mixed >= stored["mixture"]["threshold"])
    if np.median(evidence["crowding"]) > stored["median_crowding"]:
        # All atoms overlap, as local ones of images do: no world of the calibration is like that.
        mixture &= False
    verdicts = np.select(
        [certified, mixture, significant], ["certified", "mixture", "doubtful"], "noise"
    )
    return [str(each) for each in verdicts]


class _Profile(NamedTuple):
    """What the rows held out say of the atoms of one fit, (m,) each."""

    loss: NDArray[Any]
    share: NDArray[Any]
    uses: NDArray[Any]
    split: NDArray[Any]
    crowding: NDArray[Any]
    kin: NDArray[Any]

    @classmethod
    def of(cls, fit: Coded, whole: float, rng: np.random.Generator) -> _Profile:
        loss, part, uses = share(fit)
        close, kin = crowding(fit.atoms)
        return cls(loss / max(whole, 1e-300), part, uses, split(fit, rng), close, kin)


@dataclass(frozen=True, eq=False)
class _Gathered:
    """What was learnt and what it says of rows held out."""

    fits: list[Coded]  # the model, half 1, half 2
    profiles: list[_Profile]
    halves: list[Learnt]
    trains: list[NDArray[Any]]
    held: NDArray[Any]
    nulls: list[list[Coded]]
    signed: bool


def evidence_of(
    of: Subject, fits: int, seed: int
) -> Generator[Progress, None, dict[str, NDArray[Any]]]:
    """All evidence of the rule but what it makes of it; `fits` is 4 or 6."""
    found = yield from _gathered(of, fits, seed, 1, None)
    return _evidence(found, 0)


def _gathered(
    of: Subject, fits: int, seed: int, n_jobs: int | None, kept: Kept | None
) -> Generator[Progress, None, _Gathered]:
    rng = np.random.default_rng(seed)
    rows = of.prepared
    order = rng.permutation(len(rows))
    size = int(np.clip(_HELD * len(rows), _LEAST, _MOST))
    parts = np.split(order, [size, size + (len(rows) - size) // 2])
    held, trains = rows[parts[0]], [rows[part] for part in parts[1:]]
    signed = of.signed
    tasks = []
    for number, train in enumerate(trains, 1):
        task = Task(f"half {number}", train, held, int(rng.integers(2**31)), signed, True)
        tasks.append(task)
    for what, make in (("surrogate", surrogate), ("shuffled columns", shuffled))[: fits // 2 - 1]:
        made = make(rows, rng)
        for part in parts[1:]:
            draw = int(rng.integers(2**31))
            tasks.append(Task(what, made[part], made[parts[0]], draw, signed, False))
    own = of.code(parts[0])
    steps = learn_all(of.estimator, tasks, n_jobs, kept)
    while True:
        try:
            share, what = next(steps)
        except StopIteration as end:
            learnt = end.value
            break
        yield Progress(share * fits / (fits + 1), what)
    yield Progress(fits / (fits + 1), "evidence")
    halves, made_up = learnt[:2], [each.coded for each in learnt[2:]]
    found = [own, *(each.coded for each in halves)]
    square = float(np.square(held - held.mean(axis=0)).sum())
    profiles = [_Profile.of(each, square, rng) for each in found]
    nulls = [made_up[place : place + 2] for place in range(0, len(made_up), 2)]
    return _Gathered(found, profiles, halves, trains, held, nulls, signed)


def _evidence(found: _Gathered, place: int) -> dict[str, NDArray[Any]]:
    """What the rule looks at, of the fit at `place` with the other two as its partners."""
    own, signed = found.fits[place], found.signed
    halves = [each for number, each in enumerate(found.fits) if number != place]
    m, profile = len(own.atoms), found.profiles[place]
    partners, three = _three(own, halves, signed)
    agreement = three.min(axis=0)
    firing = np.minimum(
        *(jaccard(own.codes, half.codes, at) for half, at in zip(halves, partners, strict=True))
    )
    p, quantile, usual = np.zeros(m), 0.0, 0.0
    for first, second in found.nulls:
        same = matched(first.atoms, second.atoms, signed=signed)[1]
        null = Null.of(_depth(same))
        p = np.maximum(p, null.p(_depth(agreement)))
        quantile = max(quantile, float(np.tanh(null.quantile)))
        usual = max(usual, *(_median_used(each) for each in (first, second)))
    return {
        "match": agreement,
        "match_null": np.full(m, quantile),
        "match_p": p,
        "more_than_noise": benjamini_hochberg(p, _RATE),
        "firing": firing,
        "loss": profile.loss,
        "share": profile.share,
        "share_null": np.full(m, usual),
        "split": profile.split,
        "crowding": profile.crowding,
        "kin": profile.kin,
        "uses": profile.uses,
    }


def _three(
    own: Coded, halves: list[Coded], signed: bool
) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    """Partners of its atoms in two fits, and the three cosines (3, m); 0 without partners."""
    partners, near = zip(
        *(matched(own.atoms, half.atoms, signed=signed) for half in halves), strict=True
    )
    one, other = (half.atoms[np.maximum(at, 0)] for half, at in zip(halves, partners, strict=True))
    cosine = np.einsum("mn,mn->m", one, other)
    across = np.maximum(np.abs(cosine) if signed else cosine, 0.0)
    three = np.stack([*near, across])
    three[:, (partners[0] < 0) | (partners[1] < 0)] = 0.0
    return list(partners), three


def _spreads(found: _Gathered) -> dict[str, NDArray[Any]]:
    """The standard deviation of each kind of evidence over the model and its partners, (m,)."""
    own, halves = found.fits[0], found.fits[1:]
    partners, three = _three(own, halves, found.signed)
    alone = (partners[0] < 0) | (partners[1] < 0)
    firing = [jaccard(own.codes, half.codes, at) for half, at in zip(halves, partners, strict=True)]
    values = {"match": three, "firing": np.stack(firing)}
    for name in _Profile._fields:
        each = [getattr(found.profiles[0], name)]
        for profile, at in zip(found.profiles[1:], partners, strict=True):
            each.append(getattr(profile, name)[np.maximum(at, 0)])
        values[name] = np.stack(each).astype(np.float64)
    return {
        f"{name}_sd": np.where(alone, np.nan, each.std(axis=0, ddof=1))
        for name, each in values.items()
    }


def _beside_the_rule(own: Coded) -> dict[str, NDArray[Any]]:
    weakest, strongest = together(own)
    return {
        "pull": pull(own), "local": locally_best(own), "weakest": weakest, "strongest": strongest,
    }  # fmt: skip


def _depth(cosines: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.arctanh(np.minimum(cosines, 0.99999)))


def _median_used(rows: Coded) -> float:
    _, part, uses = share(rows)
    return float(np.median(part[uses > 0])) if (uses > 0).any() else 0.0

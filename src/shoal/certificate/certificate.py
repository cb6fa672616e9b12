"""How far each atom can be trusted, where nothing is known but the data."""

from __future__ import annotations

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
    matched,
    share,
    split,
)
from shoal.certificate.refits import Coded, Subject, coded, shuffled, subject, surrogate
from shoal.certificate.rule import chance, table
from shoal.vocabulary import ArgumentError, check_count

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
    """

    certified: NDArray[np.bool_]
    verdicts: list[str]
    evidence: dict[str, NDArray[Any]] = field(repr=False)
    fits: int
    n_samples: int

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
            f"{counts['certified']} of {m} atoms are certified: {VERDICTS['certified']}. "
            f"{counts['doubtful']} are doubtful: {VERDICTS['doubtful']}. "
            f"{counts['mixture']} look like mixtures: {VERDICTS['mixture']}. "
            f"{counts['noise']} are noise: {VERDICTS['noise']}.",
            "The rule was set on data that were made from known atoms. On other made data, of the "
            f"atoms that it certified {held['precision']:.0%} were right, and it certified "
            f"{held['recall']:.0%} of those that were right. Whether your data resemble those is "
            "not known: a certificate says that atoms are reproducible and of one piece, not that "
            "they mean something.",
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
            "evidence": {name: values.tolist() for name, values in self.evidence.items()},
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
        - ``chance``, ``mixture_chance``: what the rule makes of them.

    Raises
    ------
    ArgumentError
        Before any work: another number of features, fewer than 4 m rows, a stream, one atom,
        atoms without a way to code, a budget below 4.

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
        random_state=random_state,
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
) -> Generator[Progress, None, Certificate]:
    """:func:`certify` as a generator of progress, which returns the certificate.

    Arguments are checked in this call, before the first step is asked for.
    """
    check_count("budget", budget, low=4)
    try:
        seed = int(check_random_state(random_state).randint(2**31 - 1))
    except ValueError:
        needed = "an integer from 0 to 2**32 - 1, a numpy RandomState, or None"
        raise ArgumentError("random_state", repr(random_state), needed) from None
    of = subject(model, X, n_nonzero_coefs=n_nonzero_coefs, codes=codes)
    return _steps(of, budget, seed)


def _steps(of: Subject, budget: int, seed: int) -> Generator[Progress, None, Certificate]:
    fits = 6 if budget >= 6 else 4
    evidence = yield from evidence_of(of, fits, seed)
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
    return Certificate(certified, verdicts.tolist(), evidence, fits, len(of.prepared))


def evidence_of(
    of: Subject, fits: int, seed: int
) -> Generator[Progress, None, dict[str, NDArray[Any]]]:
    """All evidence but what the rule makes of it; `fits` is 4 or 6."""
    rng = np.random.default_rng(seed)
    rows = of.prepared
    order = rng.permutation(len(rows))
    held = int(np.clip(_HELD * len(rows), _LEAST, _MOST))
    parts = np.split(order, [held, held + (len(rows) - held) // 2])
    done = 0

    def learnt(what: str, rows: NDArray[Any]) -> Generator[Progress, None, Any]:
        nonlocal done
        yield Progress(done / fits, what)
        steps = of.refit(rows, int(rng.integers(2**31)))
        while True:
            try:
                next(steps)
            except StopIteration as end:
                done += 1
                return end.value
            yield Progress(done / fits, what)

    own = of.code(parts[0])
    halves = []
    for number in (1, 2):
        again = yield from learnt(f"half {number}", rows[parts[number]])
        halves.append(coded(again, rows[parts[0]]))
    nulls = []
    for what, make in (("surrogate", surrogate), ("shuffled columns", shuffled))[: fits // 2 - 1]:
        made = make(rows, rng)
        pair = []
        for number in (1, 2):
            again = yield from learnt(what, made[parts[number]])
            pair.append(coded(again, made[parts[0]]))
        nulls.append(pair)
    yield Progress(1.0, "evidence")
    return _evidence(own, halves, nulls, rows[parts[0]], of.signed, rng)


def _evidence(
    own: Coded,
    halves: list[Coded],
    nulls: list[list[Coded]],
    held: NDArray[Any],
    signed: bool,
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    m = len(own.atoms)
    partners, near = zip(
        *(matched(own.atoms, half.atoms, signed=signed) for half in halves), strict=True
    )
    one, other = (half.atoms[np.maximum(at, 0)] for half, at in zip(halves, partners, strict=True))
    cosine = np.einsum("mn,mn->m", one, other)
    across = np.maximum(np.abs(cosine) if signed else cosine, 0.0)
    agreement = np.minimum(np.minimum(*near), across)
    agreement[(partners[0] < 0) | (partners[1] < 0)] = 0.0
    firing = np.minimum(
        *(jaccard(own.codes, half.codes, at) for half, at in zip(halves, partners, strict=True))
    )
    loss, part, uses = share(own)
    close, kin = crowding(own.atoms)

    p, quantile, usual = np.zeros(m), 0.0, 0.0
    for first, second in nulls:
        same = matched(first.atoms, second.atoms, signed=signed)[1]
        null = Null.of(_depth(same))
        p = np.maximum(p, null.p(_depth(agreement)))
        quantile = max(quantile, float(np.tanh(null.quantile)))
        usual = max(usual, *(_median_used(each) for each in (first, second)))
    whole = float(np.square(held - held.mean(axis=0)).sum())
    return {
        "match": agreement,
        "match_null": np.full(m, quantile),
        "match_p": p,
        "more_than_noise": benjamini_hochberg(p, _RATE),
        "firing": firing,
        "loss": loss / max(whole, 1e-300),
        "share": part,
        "share_null": np.full(m, usual),
        "split": split(own, rng),
        "crowding": close,
        "kin": kin,
        "uses": uses,
    }


def _depth(cosines: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.arctanh(np.minimum(cosines, 0.99999)))


def _median_used(rows: Coded) -> float:
    _, part, uses = share(rows)
    return float(np.median(part[uses > 0])) if (uses > 0).any() else 0.0

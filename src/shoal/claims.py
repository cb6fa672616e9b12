"""The form of every statement here: what it asks for, what it promises, what was measured.

Asymptotic statements leave constants open. Where a hypothesis says O(.), Omega(.) or Theta(.),
**the constant is read as 1** and the check says so; the value beside it lets a reader take
another one.

What is measured on samples has a sampling error. A check may carry that of its value, and nothing
is said against a paper that lies within `TELLING` times it: more samples might unsay it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

__all__ = [
    "TELLING",
    "Assertion",
    "Check",
    "at_least",
    "at_most",
    "between",
    "plain",
    "share_error",
    "true",
]

TELLING = 4.0  # arbitrary; one normal draw in 16 000 is as far off


@dataclass(frozen=True)
class Check:
    """One comparison: a claim, the value found, what was needed, and whether it holds.

    Attributes
    ----------
    claim : str
        What is compared.
    value : float
        What was found.
    needed : str
        What would do, in words.
    holds : bool
        Whether the value does.
    error : float
        The value's sampling error: a standard error, or how far so few samples alone take it. 0
        where the value is exact, infinity where nobody knows.
    margin : float
        How far the value is from its bound; below 0 where it misses it. Infinite for a yes or no.
    reading : bool
        Whether the bound is our reading of a constant that the paper leaves open, in a promise. To
        miss it is no fault of the paper at any one world: only a constant that grows would be.
    """

    claim: str
    value: float
    needed: str
    holds: bool
    error: float = field(default=0.0, repr=False)
    margin: float | None = field(default=None, repr=False)
    reading: bool = field(default=False, repr=False)

    @property
    def sure(self) -> bool:
        """Whether more samples would leave `holds` as it is: the margin is `TELLING` errors.

        >>> at_most("share", 0.02, 0.01, error=0.005).sure
        False
        """
        if self.error == 0 or self.margin is None:
            return not math.isnan(self.value)
        return math.isfinite(self.error) and abs(self.margin) >= TELLING * self.error

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: :func:`plain`."""
        return {
            "claim": self.claim,
            "value": plain(float(self.value)),
            "needed": self.needed,
            "holds": self.holds,
            "error": plain(float(self.error)),
            "reading": self.reading,
        }


def plain(value: Any) -> Any:
    """NumPy values, tuples and mappings as what JSON has; NaN is None, infinity a word.

    >>> plain({1: (float("nan"), float("inf"))})
    {'1': [None, 'inf']}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def at_most(
    claim: str,
    value: float,
    bound: float,
    note: str = "",
    error: float = 0.0,
    *,
    reading: bool = False,
) -> Check:
    """`value` <= `bound`. A NaN never holds.

    >>> at_most("k <= n / log n", 3, 15.4)
    Check(claim='k <= n / log n', value=3.0, needed='<= 15.4', holds=True)
    """
    found = _check(claim, value, f"<= {_say(bound)}", value <= bound, note, error, bound - value)
    return replace(found, reading=reading)


def at_least(claim: str, value: float, bound: float, note: str = "", error: float = 0.0) -> Check:
    """`value` >= `bound`. A NaN never holds."""
    return _check(claim, value, f">= {_say(bound)}", value >= bound, note, error, value - bound)


def between(
    claim: str, value: float, low: float, high: float, note: str = "", error: float = 0.0
) -> Check:
    """`low` <= `value` <= `high`. A NaN never holds."""
    needed, holds = f"{_say(low)} to {_say(high)}", low <= value <= high
    return _check(claim, value, needed, holds, note, error, min(value - low, high - value))


def true(claim: str, holds: Any, note: str = "") -> Check:
    """A yes or no, as 1 or 0."""
    return _check(claim, float(bool(holds)), "1", bool(holds), note, 0.0, math.inf)


def share_error(share: float, n_samples: int) -> float:
    """The standard error of a share of samples, never 0: one more of each kind is counted.

    Parameters
    ----------
    share : float
        Between 0 and 1.
    n_samples : int
        How many samples it is a share of.

    Returns
    -------
    float

    Examples
    --------
    >>> round(share_error(0.5, 98), 3), round(share_error(1.0, 98), 3)
    (0.05, 0.01)
    """
    n = n_samples + 2
    likely = (share * n_samples + 1) / n
    return math.sqrt(likely * (1 - likely) / n)


def _check(
    claim: str, value: float, needed: str, holds: Any, note: str, error: float, margin: float
) -> Check:
    needed = f"{needed} ({note})" if note else needed
    return Check(claim, float(value), needed, bool(holds), float(error), float(margin))


def _say(value: float) -> str:
    return f"{float(value):.4g}"


@dataclass(frozen=True)
class Assertion:
    """A theorem, lemma or definition in numbers.

    Attributes
    ----------
    name : str
        Such as "Theorem 3.1".
    source : str
        Paper and place.
    hypotheses : tuple of Check
        What it asks for, one by one.
    promise : str
        What it then promises, with this world's numbers.
    measurements : tuple of Check
        The promise against what was measured; empty where nothing was.
    numbers : dict
        What else was computed, by name, as plain values for JSON.
    notes : tuple of str
        How it was read and measured: constants, samples, limits.
    remarks : tuple of str
        What is true and the paper doesn't say, such as that less would do. No fault of the paper.
    errata : tuple of str
        Where the print and its own proof, or arithmetic, differ; each with its reason.
    """

    name: str
    source: str
    hypotheses: tuple[Check, ...]
    promise: str
    measurements: tuple[Check, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    errata: tuple[str, ...] = ()

    @property
    def applies(self) -> bool:
        """Whether every hypothesis holds."""
        return all(check.holds for check in self.hypotheses)

    @property
    def holds(self) -> bool | None:
        """Whether every measurement is as promised; None where nothing was measured."""
        return all(check.holds for check in self.measurements) if self.measurements else None

    @property
    def verdict(self) -> str:
        """One of eight: hypotheses and measurements put together.

        =============================  ===================================================
        "confirmed"                    the hypotheses hold, and so does the promise
        "contradicted"                 the hypotheses hold, the promise does not, and no
                                       sampling error can be the reason of either
        "needs a larger constant"      as "contradicted", but all that fails is our reading of
                                       a constant that the promise leaves open
        "too few samples to tell"      as either, but a sampling error can be the reason
        "holds beyond its hypotheses"  nothing was promised, and yet it holds
        "not promised"                 a hypothesis fails, and so does the promise
        "promised", "open"             nothing was measured; hypotheses hold, or do not
        =============================  ===================================================

        A sampling error can be the reason where every promise that fails, or any hypothesis,
        lies within `TELLING` errors of its bound (:attr:`Check.sure`).
        """
        if self.holds is None:
            return "promised" if self.applies else "open"
        if not self.applies:
            return "holds beyond its hypotheses" if self.holds else "not promised"
        if self.holds:
            return "confirmed"
        missed = [check for check in self.measurements if check.sure and not check.holds]
        if not missed or not all(check.sure for check in self.hypotheses):
            return "too few samples to tell"
        readings = all(check.reading for check in missed)
        return "needs a larger constant" if readings else "contradicted"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "source": self.source,
            "hypotheses": [check.to_dict() for check in self.hypotheses],
            "promise": self.promise,
            "measurements": [check.to_dict() for check in self.measurements],
            "numbers": plain(self.numbers),
            "notes": list(self.notes),
            "remarks": list(self.remarks),
            "errata": list(self.errata),
            "applies": self.applies,
            "holds": self.holds,
            "verdict": self.verdict,
        }

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.verdict}"]
        for title, checks in (("needs", self.hypotheses), ("measured", self.measurements)):
            for check in checks:
                mark = "yes" if check.holds else "NO"
                value = f"{check.value:.4g}" + (f" +- {check.error:.2g}" if check.error else "")
                lines.append(f"  {title} {check.claim}: {value}, {check.needed}: {mark}")
        lines.insert(1 + len(self.hypotheses), f"  promises {self.promise}")
        for title, texts in (
            ("note", self.notes), ("remark", self.remarks), ("erratum", self.errata)
        ):  # fmt: skip
            lines += [f"  {title}: {text}" for text in texts]
        return "\n".join(lines)

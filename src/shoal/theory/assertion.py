"""The form of every statement here: what it asks for, what it promises, what was measured.

Asymptotic statements leave constants open. Where a hypothesis says O(.), Omega(.) or Theta(.),
**the constant is read as 1** and the check says so; the value beside it lets a reader take
another one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

__all__ = ["Assertion", "Check", "at_least", "at_most", "between", "plain", "true"]


@dataclass(frozen=True)
class Check:
    """One comparison: a claim, the value found, what was needed, and whether it holds."""

    claim: str
    value: float
    needed: str
    holds: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: :func:`plain`."""
        return {**asdict(self), "value": plain(float(self.value))}


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


def at_most(claim: str, value: float, bound: float, note: str = "") -> Check:
    """`value` <= `bound`. A NaN never holds.

    >>> at_most("k <= n / log n", 3, 15.4)
    Check(claim='k <= n / log n', value=3.0, needed='<= 15.4', holds=True)
    """
    return _check(claim, value, f"<= {_say(bound)}", value <= bound, note)


def at_least(claim: str, value: float, bound: float, note: str = "") -> Check:
    """`value` >= `bound`. A NaN never holds."""
    return _check(claim, value, f">= {_say(bound)}", value >= bound, note)


def between(claim: str, value: float, low: float, high: float, note: str = "") -> Check:
    """`low` <= `value` <= `high`. A NaN never holds."""
    return _check(claim, value, f"{_say(low)} to {_say(high)}", low <= value <= high, note)


def true(claim: str, holds: Any, note: str = "") -> Check:
    """A yes or no, as 1 or 0."""
    return _check(claim, float(bool(holds)), "1", bool(holds), note)


def _check(claim: str, value: float, needed: str, holds: Any, note: str) -> Check:
    return Check(claim, float(value), f"{needed} ({note})" if note else needed, bool(holds))


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
        What a reader must know: readings of constants, misprints, limits.
    """

    name: str
    source: str
    hypotheses: tuple[Check, ...]
    promise: str
    measurements: tuple[Check, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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
        """One of six: hypotheses and measurements put together.

        ============================  ====================================================
        "confirmed"                   the hypotheses hold, and so does the promise
        "contradicted"                the hypotheses hold, and the promise does not
        "holds beyond its hypotheses"  nothing was promised, and yet it holds
        "not promised"                a hypothesis fails, and so does the promise
        "promised", "open"            nothing was measured; hypotheses hold, or do not
        ============================  ====================================================
        """
        if self.holds is None:
            return "promised" if self.applies else "open"
        if self.applies:
            return "confirmed" if self.holds else "contradicted"
        return "holds beyond its hypotheses" if self.holds else "not promised"

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
            "applies": self.applies,
            "holds": self.holds,
            "verdict": self.verdict,
        }

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.verdict}"]
        for title, checks in (("needs", self.hypotheses), ("measured", self.measurements)):
            for check in checks:
                mark = "yes" if check.holds else "NO"
                lines.append(f"  {title} {check.claim}: {check.value:.4g}, {check.needed}: {mark}")
        lines.insert(1 + len(self.hypotheses), f"  promises {self.promise}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

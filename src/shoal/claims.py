"""Claims as numbers: what was found, what was needed, and whether that holds.

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
    """`value` >= `bound`. A NaN never holds.

    Examples
    --------
    >>> from shoal.claims import at_least
    >>> at_least("explains the data", 0.93, 0.9).holds
    True
    """
    return _check(claim, value, f">= {_say(bound)}", value >= bound, note, error, value - bound)


def between(
    claim: str, value: float, low: float, high: float, note: str = "", error: float = 0.0
) -> Check:
    """`low` <= `value` <= `high`. A NaN never holds.

    Examples
    --------
    >>> from shoal.claims import between
    >>> between("share of active units", 0.2, 0.05, 0.15).holds
    False
    """
    needed, holds = f"{_say(low)} to {_say(high)}", low <= value <= high
    return _check(claim, value, needed, holds, note, error, min(value - low, high - value))


def true(claim: str, holds: Any, note: str = "") -> Check:
    """A yes or no, as 1 or 0.

    Examples
    --------
    >>> from shoal.claims import true
    >>> true("all atoms are of length 1", True).holds
    True
    """
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

"""The form of every statement here: what it asks for, what it promises, what was measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shoal.claims import (
    TELLING,
    Check,
    at_least,
    at_most,
    between,
    plain,
    share_error,
    true,
)

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

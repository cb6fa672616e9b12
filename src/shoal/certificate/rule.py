"""From evidence to a verdict: two logistic functions whose weights planted worlds gave once.

`calibration.json` beside this file holds them; `python -m benchmarks.certificate --calibrate`
writes it. No weight is below 0, so that more of what speaks for an atom never speaks against it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

__all__ = ["FOR", "MIXED", "TABLE", "chance", "features", "fitted", "table"]

Floats = NDArray[np.float64]

TABLE = Path(__file__).with_name("calibration.json")

FOR = (
    "match",
    "above",
    "firing",
    "share",
    "share above",
    "one direction",
    "room",
    "no kin",
    "uses",
)
"""What speaks for an atom, in the order of the weights."""

MIXED = ("match", "share", "two directions", "crowded", "kin", "firing differs")
"""What speaks for a mixture."""


@cache
def table() -> dict[str, Any]:
    """The calibration as it is stored."""
    return dict(json.loads(TABLE.read_text("utf-8")))


def features(evidence: Mapping[str, Any], names: tuple[str, ...]) -> Floats:
    """The evidence on the scales of the rule, (m, len(names))."""
    depth = np.arctanh(np.minimum(evidence["match"], 0.9995))
    above = depth - np.arctanh(np.minimum(evidence["match_null"], 0.9995))
    firing = logit(np.clip(evidence["firing"], 0.02, 0.98))
    second = np.sqrt(np.minimum(evidence["split"], 1.0))
    crowd = np.minimum(evidence["crowding"], 4.0)
    # Neither alone: who is close to nobody isn't of a family that his neighbours are of.
    family = np.sqrt(np.clip(crowd - 1.0, 0.0, None) * np.clip(evidence["kin"] - 1.0, 0.0, 4.0))
    known = {
        "match": depth,
        "above": np.clip(above, -1.0, 2.5),
        "firing": firing,
        "share": evidence["share"],
        "share above": evidence["share"] - evidence["share_null"],
        "one direction": -second,
        "two directions": second,
        "room": -crowd,
        "kin": family,
        "no kin": -family,
        "crowded": crowd,
        "firing differs": -firing,
        "uses": np.log(np.clip(evidence["uses"], 1, 50)),
    }
    return np.column_stack([np.asarray(known[name], dtype=np.float64) for name in names])


def chance(evidence: Mapping[str, Any], kind: str) -> Floats:
    """By the table: the chance that an atom is "true" (|cosine| >= .9), or a "mixture", (m,)."""
    stored = table()[kind]
    weights = np.array(stored["weights"])
    names = FOR if kind == "true" else MIXED
    return np.asarray(expit(features(evidence, names) @ weights + stored["intercept"]))


def fitted(rows: Floats, labels: NDArray[np.bool_], weights: Floats) -> tuple[Floats, float]:
    """Weights >= 0 and an intercept of a logistic regression, a little drawn towards 0.

    Parameters
    ----------
    rows : ndarray of shape (atoms, features)
    labels : ndarray of shape (atoms,)
    weights : ndarray of shape (atoms,)
        How much each atom counts.
    """
    from scipy.optimize import minimize

    signs = np.where(labels, 1.0, -1.0)
    spread = rows.std(axis=0) + 1e-9
    scaled, whole = rows / spread, weights.sum()

    def loss(point: Floats) -> tuple[float, Floats]:
        margin = signs * (scaled @ point[:-1] + point[-1])
        slope = -weights * signs * expit(-margin) / whole
        value = float((weights * np.logaddexp(0.0, -margin)).sum() / whole)
        penalty = 1e-3 * point[:-1]  # arbitrary; keeps weights finite where classes are apart
        return value + 0.5 * float(penalty @ point[:-1]), np.append(
            slope @ scaled + penalty, slope.sum()
        )

    bounds = [(0.0, None)] * rows.shape[1] + [(None, None)]
    found = minimize(loss, np.zeros(rows.shape[1] + 1), jac=True, bounds=bounds)
    return found.x[:-1] / spread, float(found.x[-1])

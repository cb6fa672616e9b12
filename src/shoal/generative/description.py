"""A world as plain values for a file, and back.

What :meth:`GenerativeModel.describe` gives is for reading; this is for making the same world
again, its dictionary apart.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from shoal.generative.copula import CopulaSupports
from shoal.generative.features import Outliers, RectifiedGaussian, SparseFeatures
from shoal.generative.forests import Forest
from shoal.generative.laws import (
    BernoulliSupport,
    Constant,
    DiscreteSupport,
    Gaussian,
    Rademacher,
    Uniform,
    UniformSupport,
)
from shoal.generative.models import GenerativeModel
from shoal.generative.sized import SizedSupport
from shoal.vocabulary import ArgumentError

__all__ = ["laws_of", "world_of"]

_LAWS: dict[str, type] = {
    law.__name__: law
    for law in (
        BernoulliSupport,
        Constant,
        CopulaSupports,
        DiscreteSupport,
        Forest,
        Gaussian,
        Outliers,
        Rademacher,
        RectifiedGaussian,
        SizedSupport,
        Uniform,
        UniformSupport,
    )
}
# What a world of features has besides a support, values and noise; each may be left out.
_PARTS = ("forest", "outliers")


def laws_of(world: GenerativeModel | SparseFeatures) -> dict[str, Any]:
    """The laws of a world and its noise, fit for JSON.

    Raises
    ------
    ArgumentError
        At a law of your own making, which a file can't hold.

    Examples
    --------
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> atoms = random_dictionary(8, 4, random_state=0)
    >>> laws = laws_of(SparseCoding(atoms, sparsity=2, noise=0.1))
    >>> laws["support"], laws["noise"]
    ({'kind': 'UniformSupport', 'k': 2}, 0.1)
    >>> world_of(atoms, laws)
    GenerativeModel(m=8, n=4, k=2, noise=0.1)
    """
    laws = {
        "support": _plain("support", world.support),
        "values": _plain("values", world.values),
        "noise": world.noise,
    }
    if not isinstance(world, SparseFeatures):
        return laws
    parts = {name: getattr(world, name) for name in _PARTS}
    stored = {name: part and _plain(name, part) for name, part in parts.items()}
    offset = None if world.offset is None else world.offset.tolist()
    return {**laws, **stored, "offset": offset, "missing": world.missing}


def _plain(argument: str, law: Any) -> dict[str, Any]:
    name = type(law).__name__
    if _LAWS.get(name) is not type(law):
        raise ArgumentError(argument, name, "one of " + ", ".join(_LAWS))
    stored = [each.name for each in fields(_LAWS[name]) if each.init]
    values = {each: getattr(law, each) for each in stored}
    lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}
    return {"kind": name, **lists}


def world_of(dictionary: Any, laws: Any) -> GenerativeModel | SparseFeatures:
    """The world of a dictionary (m, n) and of what :func:`laws_of` gave.

    Raises
    ------
    ArgumentError
        If the description is not one, or doesn't fit the dictionary.

    Examples
    --------
    >>> from shoal.generative import SparseCoding, laws_of, random_dictionary, world_of
    >>> atoms = random_dictionary(8, 4, random_state=0)
    >>> world_of(atoms, laws_of(SparseCoding(atoms, sparsity=2, noise=0.1)))
    GenerativeModel(m=8, n=4, k=2, noise=0.1)
    """
    try:
        features = "forest" in laws
        names = ["support", "values", *(name for name in _PARTS if features and laws[name])]
        parts = {name: dict(laws[name]) for name in names}
        made = {name: _LAWS[part.pop("kind")](**part) for name, part in parts.items()}
        noise = laws["noise"]
        others = {name: laws[name] for name in ("offset", "missing") if features}
    except (KeyError, TypeError, ValueError) as error:
        found = str(error) or type(error).__name__
        raise ArgumentError("laws", found, "a description as laws_of gives it") from error
    if features:
        return SparseFeatures(dictionary, noise=noise, **made, **others)
    return GenerativeModel(dictionary, made["support"], made["values"], noise)

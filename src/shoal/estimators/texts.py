"""The texts that fire each atom, where the rows are a language model's activations."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from shoal.data import Source
from shoal.data.readers.activations import Activations
from shoal.estimators.base import TiedAutoencoder
from shoal.estimators.portraits import strongest_and_quantiles

__all__ = ["firing_texts"]

# Arbitrary: rows that are looked at, and atoms that are told of.
_ROWS, _ATOMS = 20_000, 256


def firing_texts(model: TiedAutoencoder, source: Source, method: str) -> dict[str, Any] | None:
    """Per atom the texts that fire it most, and some at ten quantiles of its codes.

    Parameters
    ----------
    model : TiedAutoencoder
        Fitted.
    source : Source
        A store of activations; of more than 20000 rows, that many evenly spaced ones are used.
    method : str
        How codes are inferred.

    Returns
    -------
    dict or None
        Plain values for JSON: ``method``, ``n_samples``, and ``atoms``, those of largest energy,
        each with its number and lists of ``[code, document, before, token, after]``: ``top``,
        strongest first, and ``quantiles``, strongest first. None for another kind of data.
    """
    if not isinstance(source, Activations) or source.n_samples is None:
        return None
    most = min(source.n_samples, _ROWS)
    index = np.linspace(0, source.n_samples - 1, most).round().astype(np.intp)
    coded = model.iter_coded(source.rows(index), method)
    codes = sparse.csc_array(sparse.vstack([sparse.csr_array(part) for _, part, _ in coded]))
    energy = np.asarray(codes.multiply(codes).sum(axis=0)).ravel()
    chosen = {
        int(atom): strongest_and_quantiles(codes, int(atom))
        for atom in np.argsort(-energy, kind="stable")[:_ATOMS]
        if energy[atom] > 0
    }
    wanted = np.unique([row for both in chosen.values() for part in both for row, _ in part])
    rows = index[wanted.astype(np.intp)]
    told = dict(zip(wanted.tolist(), source.passages(rows), strict=True))
    atoms = [
        {
            "atom": atom,
            **{
                name: [[value, *told[row]] for row, value in part]
                for name, part in zip(("top", "quantiles"), both, strict=True)
            },
        }
        for atom, both in chosen.items()
    ]
    return {"method": method, "n_samples": most, "atoms": atoms}

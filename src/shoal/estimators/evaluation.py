"""How well a fitted model explains data, and recovers their truth where it is known."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shoal.data import Source, open_source
from shoal.data.norms import FEW, held_by_few, row_norms
from shoal.diagnosis import (
    Diagnosis,
    Recovery,
    coherence,
    dead_atoms,
    duplicate_atoms,
    recovery,
    support_recovery,
)
from shoal.estimators.base import TiedAutoencoder
from shoal.estimators.portraits import Portraits, pictured
from shoal.vocabulary import ArgumentError

__all__ = ["evaluate", "evaluated", "surroundings"]

# Arbitrary: rows, evenly spaced over the data, that a model is evaluated on.
_EVALUATED = 20_000


def evaluate(model: TiedAutoencoder, X: Any) -> dict[str, Any]:
    """How well `model` explains `X`, and recovers its truth where the source knows it.

    Parameters
    ----------
    model : DictionaryAutoencoder or RegularizedAutoencoder
        Fitted.
    X : array-like, tensor, path or Source of shape (n_samples, n_features)
        Of more than 20000 rows, that many evenly spaced ones are used.

    Returns
    -------
    dict
        Plain values for JSON: ``diagnosis`` (with ``codes``, the same for each way of
        inferring codes) and ``recovery`` (None where the truth isn't known).
    """
    return evaluated(model, open_source(X), each_atom=False).record


class Evaluated(NamedTuple):
    """What :func:`evaluate` says, and more that is known of the encoder's codes."""

    record: dict[str, Any]
    statistics: Diagnosis | None = None  # of a stream, which is gone, there are none
    portraits: dict[str, Any] | None = None  # what the report says of each atom


def evaluated(model: TiedAutoencoder, source: Source, *, each_atom: bool = True) -> Evaluated:
    """:func:`evaluate`, with the encoder's statistics and, of `each_atom`, its portrait."""
    dictionary = {
        "coherence": coherence(_directions(model.components_)),
        "duplicate_atoms": [list(pair) for pair in duplicate_atoms(model.components_)],
    }
    if source.n_samples is None:  # a stream is gone; what it taught is in the history
        return Evaluated({"diagnosis": dictionary, "recovery": None})
    source = model.by_name(source)
    most = min(source.n_samples or 0, _EVALUATED)
    index = np.linspace(0, (source.n_samples or 1) - 1, most).round().astype(np.intp)
    rows = source.rows(index)
    if rows.shape[1] != model.n_features_in_:
        needed = f"{model.n_features_in_} features, as the model was fitted with"
        raise ArgumentError("source", f"{rows.shape[1]} features", needed)
    sample = open_source(rows)
    names = getattr(model, "feature_names_in_", None)
    sample.feature_names = None if names is None else tuple(names)  # in their order by now
    true_codes = None if source.truth is None else source.truth.codes
    norms = row_norms(model.preprocessing_.apply(rows))
    few = {"rows": FEW, "square": held_by_few(norms)}
    results, inferred = {}, {}
    portraits = Portraits(model.components_, index) if each_atom else None
    for method in ("encoder", "pursuit"):
        if method not in model.methods:
            continue
        statistics, kept = model.statistics(), []
        for data, codes, rebuilt in model.iter_coded(sample, method):
            statistics.update(data, codes, rebuilt)
            if portraits is not None and method == "encoder":
                portraits.update(data, codes, rebuilt)
            if true_codes is not None:
                kept.append(sparse.csr_array(codes))
        results[method], inferred[method] = statistics.result(), kept
    encoder = results["encoder"]
    told = None if portraits is None else portraits.result()
    if told is not None and source.feature_shape is not None and len(source.feature_shape) > 1:
        told["rows"] = pictured(told, rows, index, source.feature_shape)
    diagnosis = {
        "n_samples": encoder.n_samples,
        **_numbers(encoder),
        "dead_atoms": dead_atoms(encoder.atom_activation).tolist(),
        **dictionary,
        "longest_rows": few,
        "l0_histogram": np.trim_zeros(encoder.histogram, "b").tolist(),
        "codes": {method: _numbers(result) for method, result in results.items()},
    }
    if source.truth is None:
        unknown = {"diagnosis": diagnosis, "recovery": None}
        return Evaluated(unknown, encoder, told)
    found = _recovery(model, model.components_, source.truth.dictionary)
    record = _recovery_record(found)
    unpolished = getattr(model, "unpolished_components_", None)
    if unpolished is not None:
        before = _recovery_record(_recovery(model, unpolished, source.truth.dictionary))
        named = ("recovered", "mean_distance", "max_distance")
        record["before_polish"] = {name: before[name] for name in named}
    if true_codes is not None:
        true_codes = true_codes[index]
        for method, kept in inferred.items():
            support = support_recovery(sparse.vstack(kept), true_codes, found)
            diagnosis["codes"][method]["support"] = support.to_dict()
        record["support"] = diagnosis["codes"]["encoder"]["support"]
    whole = {"diagnosis": diagnosis, "recovery": record}
    return Evaluated(whole, encoder, told)


# Arbitrary: what a run's own picture of the loss is taken on. It shows wells and walls, not digits,
# and is to cost next to nothing beside the evaluation: the first of these with few enough
# multiplications, or none. Three lines, and a plane whose points cost half as much.
_PICTURES = ((48, 13, 13), (32, 7, 7), (16, 7, 7))  # samples, points a line, points a side
_MULTIPLICATIONS = 4e9


def _picture(m: int, n: int) -> dict[str, int] | None:
    for n_samples, n_points, n_plane in _PICTURES:
        if n_samples * m * n * (5 * 3 * n_points + 2 * n_plane**2) <= _MULTIPLICATIONS:
            return {"n_samples": n_samples, "n_points": n_points, "n_plane": n_plane}
    return None


def surroundings(model: TiedAutoencoder, source: Source) -> dict[str, Any] | None:
    """The loss around the dictionary for the report; None where it can't be had."""
    size = _picture(*model.components_.shape)
    if source.n_samples is None or size is None:
        return None
    try:
        found = model.landscape(source, random_state=0, **size)
    except ArgumentError:  # of an odd source; nothing that a run should fail by
        return None
    return found.to_dict() if math.isfinite(found.loss) else None


def _directions(atoms: NDArray[Any]) -> NDArray[np.float64]:
    """Atoms of any length at length 1, without those that have no direction."""
    lengths = np.linalg.norm(atoms.astype(np.float64), axis=1)
    if not lengths.any():
        return np.eye(1, atoms.shape[1])  # of one atom the coherence is 0, as of none
    kept = lengths > 0
    found: NDArray[np.float64] = atoms[kept] / lengths[kept, None]
    return found


def _recovery(model: TiedAutoencoder, atoms: NDArray[Any], truth: NDArray[Any]) -> Recovery:
    """Recovery in the space the atoms live in: directions go through the linear part."""
    fitted = model.preprocessing_
    truth = np.asarray(truth, dtype=np.float64)
    directions = fitted.apply(truth) - fitted.apply(np.zeros_like(truth))
    return recovery(atoms, directions, signs="free")


def _recovery_record(found: Recovery) -> dict[str, Any]:
    scores = found.to_dict(atoms=True)
    recovered = {
        key.removeprefix("recovered_at_"): scores.pop(key)
        for key in list(scores)
        if key.startswith("recovered_at_")
    }
    return {"recovered": recovered, **scores}


def _numbers(result: Diagnosis) -> dict[str, Any]:
    values = result.to_dict()
    names = (
        "l0", "activation_fraction", "mse", "fvu", "explained_variance", "row_explained"
    )  # fmt: skip
    return {name: values[name] for name in names}

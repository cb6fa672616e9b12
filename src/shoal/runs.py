"""Runs: a fitted model as a folder of plain files. Never pickle.

=========================  =====================================================
file                       what
=========================  =====================================================
``config.json``            what was run, on what, and how far it can be trusted
``dictionary.safetensors`` dictionary, bias, preprocessing, per-atom statistics
``history.jsonl``          learning curves, a record a line
``report.html``            the page
``atoms.png``              the atoms as one picture
=========================  =====================================================
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shoal.data import FittedPreprocessing, Preprocessing, Source, open_source
from shoal.diagnosis import (
    CodeStatistics,
    Diagnosis,
    Recovery,
    coherence,
    dead_atoms,
    duplicate_atoms,
    recovery,
    support_recovery,
)
from shoal.estimators import DictionaryAutoencoder, TiedAutoencoder
from shoal.files import whole_folder
from shoal.regularized import RegularizedAutoencoder
from shoal.report import write_atoms, write_report
from shoal.report.run import (
    FORMAT,
    FORMAT_VERSION,
    check_folder,
    check_run_folder,
    read_config,
    read_tensors,
)
from shoal.training.recipes import Recipe, describe, restore
from shoal.vocabulary import ArgumentError, RunError, __version__, check_choice, check_count

__all__ = ["evaluate", "load_run", "save_run"]

# Arbitrary: rows, evenly spaced over the data, that a model is evaluated on.
_EVALUATED = 20_000


def save_run(
    model: DictionaryAutoencoder | RegularizedAutoencoder,
    folder: str | os.PathLike[str],
    X: Any,
    *,
    command: str | None = None,
    seconds: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a fitted model, its evaluation on `X`, its report and picture to a new folder.

    Parameters
    ----------
    model : DictionaryAutoencoder or RegularizedAutoencoder
        Fitted.
    folder : path
        It appears whole when everything is written, or not at all.
    X : array-like, tensor, path or Source of shape (n_samples, n_features)
        What the model is evaluated on, usually what it was fitted on. Where the source
        knows the truth (a ``dictionary`` in the file), recovery is scored.
    command : str, optional
        What a person would type to do it again.
    seconds : float, optional
        How long the fit took.
    overwrite : bool
        Whether an existing folder may be replaced.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    RunError
        Where the folder exists, or can't be written.
    """
    check_run_folder(folder, overwrite=overwrite)
    source = open_source(X)
    evaluation, statistics = _evaluate(model, source)
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "shoal_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "versions": _versions(),
        "source": {
            "name": source.name,
            "n_samples": source.n_samples,
            "n_features": source.n_features,
            "feature_shape": _listed(source.feature_shape),
            "dtype": str(source.dtype),
        },
        "model": _arguments(model),
        **_learnt(model),
        "preprocessing": model.preprocessing_.spec.as_dict(),
        "n_steps": model.n_steps_,
        "feature_names": _listed(getattr(model, "feature_names_in_", None)),
        "seconds": {} if seconds is None else {"fit": seconds},
        **evaluation,
    }
    tensors = {
        "dictionary": model.components_,
        "bias": model.bias_,
        **{f"preprocessing.{k}": v for k, v in model.preprocessing_.tensors().items()},
    }
    if statistics is not None:
        tensors["atom_activation"] = statistics.atom_activation
        tensors["atom_energy"] = statistics.atom_energy
    with whole_folder(folder, overwrite=overwrite) as partial:
        _write_tensors(partial / "dictionary.safetensors", tensors)
        (partial / "config.json").write_text(_json(config, indent=2) + "\n", encoding="utf-8")
        lines = [_json(record) + "\n" for record in getattr(model, "history_", [])]
        (partial / "history.jsonl").write_text("".join(lines), encoding="utf-8")
        write_atoms(partial)
        write_report(partial)
    return Path(folder)


def load_run(folder: str | os.PathLike[str], *, device: str | None = None) -> Any:
    """The fitted model in a run folder, ready to `transform`.

    Parameters
    ----------
    folder : path
        As :func:`save_run` wrote it.
    device : str, optional
        Where to use the model; by default on the CPU where it was fitted there, else
        "auto".

    Returns
    -------
    DictionaryAutoencoder or RegularizedAutoencoder
        What was saved.

    Raises
    ------
    RunError
        Where the folder is missing, incomplete, damaged, or of another version.
    """
    path = check_folder(folder)
    config = read_config(path / "config.json")
    tensors = read_tensors(path / "dictionary.safetensors")
    try:
        arguments = dict(config["model"])
        # The reader's machine may have another device than the writer's, or none.
        arguments["device"] = device or ("cpu" if arguments["device"] == "cpu" else "auto")
        # Runs from before there were two kinds don't say.
        kind = check_choice("estimator", config.get("estimator", "dictionary"), _KINDS)
        spec = Preprocessing(**config["preprocessing"])
        model = _KINDS[kind](**{**arguments, "preprocessing": spec})
        dictionary, bias = tensors["dictionary"], tensors["bias"]
        if bias.shape != dictionary.shape[:1]:
            raise ArgumentError("bias", f"shape {bias.shape}", f"({len(dictionary)},)")
        for name, array in (("dictionary", dictionary), ("bias", bias)):
            if array.dtype.kind != "f" or not np.isfinite(array).all():
                found = f"NaN, infinity or whole numbers in {array.dtype}"
                raise ArgumentError(name, found, "finite floats")
        prefix = "preprocessing."
        arrays = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        fitted = FittedPreprocessing.from_tensors(spec, arrays)
        if fitted.n_features != dictionary.shape[1]:
            found = f"{fitted.n_features} features"
            raise ArgumentError("preprocessing", found, f"{dictionary.shape[1]}")
        shape = config["source"]["feature_shape"]
        shape = None if shape is None else tuple(map(int, shape))
        n_steps = check_count("n_steps", config["n_steps"], low=0)
        learnt = _read_learnt(model, config, len(dictionary))
        names = config.get("feature_names")
        if names is not None:
            names = np.array(names, dtype=object)
            if names.shape != dictionary.shape[1:]:
                found = f"shape {names.shape}"
                raise ArgumentError("feature_names", found, str(dictionary.shape[1:]))
    except (KeyError, TypeError, ValueError) as error:  # ArgumentError is a ValueError
        missing = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(
            f"{path}: inconsistent ({missing}); needed a folder as `shoal fit` wrote it"
        ) from error
    return model.restore_(dictionary, bias, *learnt, fitted, shape, n_steps, names)


_KINDS: dict[str, type[DictionaryAutoencoder] | type[RegularizedAutoencoder]] = {
    "dictionary": DictionaryAutoencoder,
    "regularized": RegularizedAutoencoder,
}


def _learnt(model: DictionaryAutoencoder | RegularizedAutoencoder) -> dict[str, Any]:
    """What a model was made by, beside its arguments."""
    if isinstance(model, DictionaryAutoencoder):
        return {
            "estimator": "dictionary",
            "recipe": describe(model.recipe_),
            "n_nonzero_coefs": model.n_nonzero_coefs_,
        }
    return {
        "estimator": "regularized",
        "activation": describe(model.activation_),
        "penalty": describe(model.penalty_),
        "usage": {
            "activation_fraction": model.activation_fraction_,
            "dead_fraction": model.dead_fraction_,
        },
    }


def _read_learnt(model: Any, config: dict[str, Any], m: int) -> tuple[Any, Any]:
    """What :func:`_learnt` wrote, as `restore_` takes it."""
    if isinstance(model, DictionaryAutoencoder):
        recipe = restore(config["recipe"])
        if not isinstance(recipe, Recipe):
            raise ArgumentError("recipe", repr(recipe), "a description of a Recipe")
        k = config.get("n_nonzero_coefs")  # older runs lack it
        return recipe, None if k is None else check_count("n_nonzero_coefs", k, high=m)
    activation, penalty = restore(config["activation"]), restore(config["penalty"])
    if not hasattr(activation, "bend") or not hasattr(penalty, "strength"):
        needed = "descriptions of an activation and a penalty"
        raise ArgumentError("activation, penalty", f"{activation!r}, {penalty!r}", needed)
    return activation, penalty


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
    return _evaluate(model, open_source(X))[0]


def _evaluate(model: TiedAutoencoder, source: Source) -> tuple[dict[str, Any], Diagnosis | None]:
    dictionary = {
        "coherence": coherence(model.components_),
        "duplicate_atoms": [list(pair) for pair in duplicate_atoms(model.components_)],
    }
    if source.n_samples is None:  # a stream is gone; what it taught is in the history
        return {"diagnosis": dictionary, "recovery": None}, None
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
    results, inferred = {}, {}
    for method in ("encoder", "pursuit"):
        if method not in model.methods:
            continue
        statistics, kept = CodeStatistics(), []
        for data, codes, rebuilt in model.iter_coded(sample, method):
            statistics.update(data, codes, rebuilt)
            if true_codes is not None:
                kept.append(sparse.csr_array(codes))
        results[method], inferred[method] = statistics.result(), kept
    encoder = results["encoder"]
    diagnosis = {
        "n_samples": encoder.n_samples,
        **_numbers(encoder),
        "dead_atoms": dead_atoms(encoder.atom_activation).tolist(),
        **dictionary,
        "l0_histogram": np.trim_zeros(encoder.histogram, "b").tolist(),
        "codes": {method: _numbers(result) for method, result in results.items()},
    }
    if source.truth is None:
        return {"diagnosis": diagnosis, "recovery": None}, encoder
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
    return {"diagnosis": diagnosis, "recovery": record}, encoder


def _recovery(model: TiedAutoencoder, atoms: NDArray, truth: NDArray) -> Recovery:
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
    names = ("l0", "activation_fraction", "mse", "fvu", "explained_variance")
    return {name: values[name] for name in names}


# Arguments that may be objects, and the names in whose place these are: written beside, in full.
_NAMED = {"recipe": "default", "init": "auto", "penalty": "none", "activation": "relu"}


def _arguments(model: TiedAutoencoder) -> dict[str, Any]:
    """The constructor's arguments as plain values; what can't be one is left to a default."""
    plain = model.get_params(deep=False)
    plain["n_components"] = len(model.components_)
    plain["device"] = str(plain["device"])
    for name, usual in _NAMED.items():
        if name in plain and not isinstance(plain[name], str):
            plain[name] = usual
    if not isinstance(plain["random_state"], (int, np.integer)):
        plain["random_state"] = None
    del plain["preprocessing"]  # written beside it
    return plain


def _versions() -> dict[str, str]:
    import sklearn
    import torch

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
        "scikit-learn": sklearn.__version__,
    }


def _write_tensors(path: Path, tensors: dict[str, NDArray]) -> None:
    from safetensors.numpy import save

    path.write_bytes(save({name: np.ascontiguousarray(value) for name, value in tensors.items()}))


def _listed(values: Iterable[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)


def _json(value: Any, indent: int | None = None) -> str:
    def plain(odd: Any) -> Any:
        if isinstance(odd, np.generic):
            return odd.item()
        raise TypeError(f"{type(odd).__name__} in a record")

    return json.dumps(value, indent=indent, allow_nan=False, default=plain)

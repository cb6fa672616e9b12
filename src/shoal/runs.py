"""Runs: a fitted model as a folder of plain files. Never pickle.

What the files are, and how they are told from damaged ones, is in :mod:`shoal.run_folder`; what
they must say for a model to be made of them is checked here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray

from shoal.data import FittedPreprocessing, Preprocessing, open_source
from shoal.estimators import PARTS, DictionaryAutoencoder, RegularizedAutoencoder, TiedAutoencoder
from shoal.estimators.evaluation import evaluate, evaluated, surroundings
from shoal.estimators.texts import firing_texts
from shoal.files import Claim, whole_folder
from shoal.network.activations import Maxout, at_rest, learns_threshold
from shoal.parts import describe, restore
from shoal.report import atoms_bytes, read_run, report_bytes
from shoal.run_folder import FORMAT, FORMAT_VERSION, claim_run, read_folder, sealed
from shoal.training.constraints import MaxNorm, UnitLength
from shoal.training.recipes import MODELS, WEIGHT_LENGTHS, Recipe
from shoal.vocabulary import (
    ArgumentError,
    Parameters,
    RunError,
    WriteError,
    __version__,
    check_choice,
    check_count,
    fits,
    printable,
)

__all__ = ["evaluate", "load_run", "save_run"]

# Of an atom's length; float32 leaves some 1e-6.
_ROUNDING = 1e-3


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
        It appears whole when everything is written, or not at all. A claim that
        :func:`shoal.run_folder.claim_run` made before the fit stands for its path.
    X : array-like, tensor, path or Source of shape (n_samples, n_features)
        What the model is evaluated on, usually what it was fitted on. Where the source
        knows the truth (a ``dictionary`` in the file), recovery is scored.
    command : str, optional
        What a person would type to do it again.
    seconds : float, optional
        How long the fit took.
    overwrite : bool
        Whether an existing run may be replaced; a claim says so itself.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    RunError
        Where the folder exists, or another process is writing it; before any work.
        Also where what is there is to be replaced and is no run.
    WriteError
        Where it can't be written, or what was written can't be read again.
    SourceError
        Where `X` can't be opened or read.
    ArgumentError
        Where the data have other features than the model, or its recipe has a part that can't be
        written down.
    sklearn.exceptions.NotFittedError
        Where the model has not been fitted.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from shoal import DictionaryAutoencoder, save_run
    >>> X = np.random.default_rng(0).normal(size=(100, 4))
    >>> model = DictionaryAutoencoder(4, 1, random_state=0).fit(X)
    >>> with TemporaryDirectory() as folder:
    ...     run = save_run(model, Path(folder) / "run", X)
    ...     files = sorted(each.name for each in run.iterdir())
    >>> files
    ['atoms.png', 'config.json', 'dictionary.safetensors', 'history.jsonl', 'report.html']
    """
    if isinstance(folder, Claim):
        return _save(model, folder, X, command, seconds)
    with claim_run(folder, overwrite=overwrite) as held:
        return _save(model, held, X, command, seconds)


def _save(
    model: DictionaryAutoencoder | RegularizedAutoencoder,
    held: Claim,
    X: Any,
    command: str | None,
    seconds: float | None,
) -> Path:
    source = open_source(X)
    evaluation, statistics, portraits = evaluated(model, source)
    around = surroundings(model, source)
    texts = firing_texts(model, source, _best_coder(evaluation))
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
        "notes": list(getattr(model, "notes_", ())),
        "feature_names": _listed(getattr(model, "feature_names_in_", None)),
        "seconds": {} if seconds is None else {"fit": seconds},
        **evaluation,
        **({} if around is None else {"landscape": around}),
        **({} if texts is None else {"texts": texts}),
        **({} if portraits is None else {"portraits": portraits}),
    }
    tensors = {
        **{
            part: getattr(model, name)
            for part, name in PARTS.items()
            if getattr(model, name) is not None
        },
        **{f"preprocessing.{k}": v for k, v in model.preprocessing_.tensors().items()},
    }
    if statistics is not None:
        tensors["atom_activation"] = statistics.atom_activation
        tensors["atom_energy"] = statistics.atom_energy
    history = "".join(_json(record) + "\n" for record in getattr(model, "history_", []))
    # A name made of what it names, but for the time it took: the same seed gives the same bits.
    whole = json.loads(_json(config))
    lasting = _json({key: whole[key] for key in ("model", *_learnt(model), "preprocessing")})
    named = hashlib.sha256(_safetensors(tensors, "") + lasting.encode()).hexdigest()[:32]
    files = {
        "dictionary.safetensors": _safetensors(tensors, named),
        "history.jsonl": history.encode(),
    }
    with whole_folder(held) as partial:
        for name, data in files.items():
            (partial / name).write_bytes(data)
        (partial / "config.json").write_bytes(sealed({**whole, "run_id": named}, files))
        try:
            run = read_run(partial)  # what can't be read again is no result
        except RunError as error:
            raise WriteError(str(error).replace(str(partial), str(held.path))) from error
        (partial / "atoms.png").write_bytes(atoms_bytes(run))
        (partial / "report.html").write_bytes(report_bytes(run))
    return held.path


def _best_coder(evaluation: dict[str, Any]) -> str:
    """The way of inferring codes that explains most; the encoder's own of equals."""
    codes = evaluation["diagnosis"].get("codes", {})
    explained = {name: each["explained_variance"] or 0.0 for name, each in codes.items()}
    return max(explained, key=lambda name: explained[name], default="encoder")


def load_run(
    folder: str | os.PathLike[str], *, device: str | None = None
) -> DictionaryAutoencoder | RegularizedAutoencoder:
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

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from shoal import DictionaryAutoencoder, load_run, save_run
    >>> X = np.random.default_rng(0).normal(size=(100, 4))
    >>> model = DictionaryAutoencoder(4, 1, random_state=0).fit(X)
    >>> with TemporaryDirectory() as folder:
    ...     again = load_run(save_run(model, Path(folder) / "run", X))
    >>> bool((again.transform(X) == model.transform(X)).all())
    True
    """
    contents = read_folder(folder)
    try:
        model, state = _restored(contents.config, contents.tensors, device)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        # ArgumentError is a ValueError
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(
            f"{contents.path}: inconsistent ({printable(reason, 220)}); needed a folder as "
            "`shoal fit` wrote it"
        ) from error
    restored: DictionaryAutoencoder | RegularizedAutoencoder = model.restore_(**state)
    return restored


def _restored(
    config: dict[str, Any], tensors: dict[str, NDArray[Any]], device: str | None
) -> tuple[Any, dict[str, Any]]:
    """The model that a run holds, not yet fitted, and what `restore_` takes to make it so."""
    arguments = dict(_mapping(config, "model"))
    # Runs from before there were two kinds don't say.
    kind = check_choice("estimator", config.get("estimator", "dictionary"), _KINDS)
    hints = get_type_hints(_KINDS[kind].__init__)
    for name, value in arguments.items():
        if name not in hints or name in ("preprocessing", "return"):
            raise ArgumentError("model", repr(name), f"arguments of {_KINDS[kind].__name__}")
        if not fits(value, hints[name]):
            raise ArgumentError(f"model.{name}", repr(value), "a value of its type")
    # The reader's machine may have another device than the writer's, or none.
    arguments["device"] = device or ("cpu" if arguments["device"] == "cpu" else "auto")
    spec = _preprocessing(_mapping(config, "preprocessing"))
    model = _KINDS[kind](**{**arguments, "preprocessing": spec})
    m, n = _check_arrays(tensors)
    check_count("model.n_components", arguments["n_components"], low=m, high=m)
    fitted = _fitted(spec, tensors, n)
    source = _mapping(config, "source")
    check_count("source.n_features", source["n_features"], low=n, high=n)
    shape = source["feature_shape"]
    if shape is not None:
        if not isinstance(shape, list) or not all(type(each) is int for each in shape):
            raise ArgumentError("feature_shape", repr(shape), "whole numbers")
        if min(shape, default=0) < 1 or math.prod(shape) != n:
            raise ArgumentError("feature_shape", repr(shape), f"numbers whose product is {n}")
        shape = tuple(shape)
    n_steps = check_count("n_steps", config["n_steps"], low=0)
    learnt = _read_learnt(model, config, tensors["dictionary"])
    names = config.get("feature_names")
    if names is not None:
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
            raise ArgumentError("feature_names", repr(names), "words")
        if len(names) != n:
            raise ArgumentError("feature_names", f"{len(names)}", f"{n}")
        names = np.array(names, dtype=object)
    return model, {
        "parameters": _parameters(tensors, learnt["recipe"]),
        "fitted": fitted,
        "feature_shape": shape,
        "n_steps": n_steps,
        "feature_names": names,
        **learnt,
    }


def _mapping(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config[name]
    if not isinstance(value, dict):
        raise ArgumentError(name, repr(value), "a mapping")
    return value


def _preprocessing(values: dict[str, Any]) -> Preprocessing:
    hints = get_type_hints(Preprocessing)
    for name, value in values.items():
        if name not in hints or not fits(value, hints[name]):
            raise ArgumentError("preprocessing", f"{name}={value!r}", f"{', '.join(hints)}")
    return Preprocessing(**values)


def _check_arrays(tensors: dict[str, NDArray[Any]]) -> tuple[int, int]:
    """Their numbers m and n, where dictionary and bias are what a model can be made of."""
    dictionary, bias = tensors["dictionary"], tensors["bias"]
    m, n = dictionary.shape
    if bias.shape != (m,):
        raise ArgumentError("bias", f"shape {bias.shape}", f"({m},)")
    if bias.dtype != dictionary.dtype:
        raise ArgumentError("bias", str(bias.dtype), f"{dictionary.dtype}, as the dictionary")
    _checked(tensors, "dictionary", (m, n))
    _checked(tensors, "bias", (m,))
    for name in ("atom_activation", "atom_energy"):
        array = tensors.get(name, bias)
        if array.shape != (m,) or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ArgumentError(name, f"{array.dtype} of shape {array.shape}", "a number per atom")
    return m, n


def _parameters(tensors: dict[str, NDArray[Any]], recipe: Recipe) -> Parameters:
    """The weights, with all parts that the recipe has, and no others."""
    m, n = tensors["dictionary"].shape
    threshold = learns_threshold(at_rest(recipe.activation))
    # To a pursuit's codes an encoder is fitted.
    untied = recipe.untied or recipe.pursuit is not None
    untied |= recipe.encoder is not None and recipe.encoder.weights != "tied"
    others = {"encoder": ((m, n), untied), "threshold": ((m,), threshold)}
    others["offset"] = ((n,), recipe.offset)
    found = {}
    for name, (shape, needed) in others.items():
        if (name in tensors) != needed:
            raise ArgumentError(name, "none" if needed else "one", "what the recipe says")
        if needed:
            found[name] = torch.from_numpy(_checked(tensors, name, shape))
    both = (torch.from_numpy(tensors[name]) for name in ("dictionary", "bias"))
    return Parameters(*both, **found)


def _checked(tensors: dict[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    array = tensors[name]
    if array.shape != shape:
        raise ArgumentError(name, f"shape {array.shape}", str(shape))
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        found = f"NaN, infinity or whole numbers in {array.dtype}"
        raise ArgumentError(name, found, "finite floats")
    return array


def _fitted(spec: Preprocessing, tensors: dict[str, NDArray[Any]], n: int) -> FittedPreprocessing:
    prefix = "preprocessing."
    arrays = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    for name, array in arrays.items():
        kinds = "i" if name == "n_features" else "f"
        if array.dtype.kind not in kinds or not np.isfinite(array).all():
            raise ArgumentError(f"preprocessing.{name}", f"NaN, or {array.dtype}", "finite numbers")
    for name in ("std", "gain"):  # divided by, there or back
        if name in arrays and not (arrays[name] > 0).all():
            raise ArgumentError(f"preprocessing.{name}", "numbers at or below 0", "numbers > 0")
    if "n_features" in arrays:
        found = int(arrays["n_features"].item())
        if found != n:
            raise ArgumentError("preprocessing", f"{found} features", f"{n}")
    return FittedPreprocessing.from_tensors(spec, arrays)


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
        "recipe": describe(model.recipe_),
        "activation": describe(model.activation_, "activation"),
        "penalty": describe(model.penalty_, "penalty"),
        "usage": {
            "activation_fraction": model.activation_fraction_,
            "dead_fraction": model.dead_fraction_,
            "saturated_units": model.saturated_units_,
        },
    }


def _read_learnt(model: Any, config: dict[str, Any], dictionary: NDArray[Any]) -> dict[str, Any]:
    """What :func:`_learnt` wrote, as `restore_` takes it."""
    m = len(dictionary)
    if isinstance(model, DictionaryAutoencoder):
        recipe = restore(_with_todays_names(config["recipe"]), Recipe)
        for part in (recipe.activation, *map(_pursuit, (recipe.refinement, recipe.polish))):
            if (most := getattr(part, "k", None)) is not None:
                check_count(f"{type(part).__name__}.k", most, high=m)
        k = config.get("n_nonzero_coefs")  # older runs lack it
        known = getattr(recipe.activation, "k", None)
        if k is not None:
            check_count("n_nonzero_coefs", k, high=m)
            if known is not None and k != known:
                raise ArgumentError("n_nonzero_coefs", str(k), f"{known}, as of the activation")
        most = 1 if check_choice("model", model.model, MODELS) == "mixture" else m
        if isinstance(model.n_nonzero_coefs, str):
            check_choice("model.n_nonzero_coefs", model.n_nonzero_coefs, ["auto"])
        elif model.n_nonzero_coefs is not None:
            check_count("model.n_nonzero_coefs", model.n_nonzero_coefs, high=most)
        lengths = {UnitLength: "unit", MaxNorm: "max-norm"}  # others may leave the sphere
        _check_lengths(dictionary, lengths.get(type(recipe.constraint), "free"))
        return {"recipe": recipe, "n_nonzero_coefs": k}
    activation = restore(config["activation"], "activation")
    penalty = restore(config["penalty"], "penalty")
    if isinstance(activation, Maxout):  # it has a say in the number of units
        activation(torch.zeros(1, m))
    check_choice("weight_length", model.weight_length, WEIGHT_LENGTHS)
    _check_lengths(dictionary, model.weight_length)
    made = model.recipe_of(activation, penalty, config["source"]["n_samples"])
    if "recipe" in config:  # older runs lack it
        recipe = restore(_with_todays_names(config["recipe"]), Recipe)
        if recipe != made:
            raise ArgumentError("recipe", "another", "that of the model's own arguments")
    return {"recipe": made}


def _with_todays_names(description: Any) -> Any:
    """A recipe as an older version described it, in the words of this one."""
    if isinstance(description, list):
        return [_with_todays_names(each) for each in description]
    if not isinstance(description, dict):
        return description
    words = {key: _with_todays_names(value) for key, value in description.items()}
    if words.get("kind") in ("Recipe", "Refinement") and "step_size" in words:
        words["rule"] = words.pop("step_size")
    if words.get("kind") == "Recipe" and "nearness" in words:
        nearness = words.pop("nearness")
        if nearness is not None:
            words["constraint"] = nearness
    return words


def _pursuit(phase: Any) -> Any:
    return None if phase is None else phase.pursuit


def _check_lengths(dictionary: NDArray[Any], weight_length: str) -> None:
    """Whether atoms have the length that they were trained at; one without direction is 0."""
    lengths = np.linalg.norm(dictionary.astype(np.float64), axis=1)
    long = lengths > 1 + _ROUNDING
    short = (lengths < 1 - _ROUNDING) & (lengths > 0)
    wrong = {"unit": long | short, "max-norm": long}.get(weight_length, np.zeros(len(long), bool))
    if wrong.any():
        atom = int(wrong.argmax())
        found = f"atom {atom} of length {lengths[atom]:.6g}"
        needed = "atoms of length 1" if weight_length == "unit" else "atoms of length 1 at most"
        raise ArgumentError("dictionary", found, needed)


# Arguments that may be objects, and the names in whose place these are: written beside, in full.
_NAMED = {"recipe": "default", "init": "auto", "penalty": "none", "activation": "relu"}


def _arguments(model: TiedAutoencoder) -> dict[str, Any]:
    """The constructor's arguments as plain values; what can't be one is left to a default."""
    plain = model.fitted_params()
    plain["n_components"] = len(model.components_)
    plain["device"] = str(plain["device"])
    for name, usual in _NAMED.items():
        if name in plain and not isinstance(plain[name], str):
            plain[name] = usual
    if plain.get("penalty_options"):  # as the penalty has them: lists of numbers, not arrays
        plain["penalty_options"] = {
            name: getattr(model.penalty_, name) for name in plain["penalty_options"]
        }
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


def _safetensors(tensors: dict[str, NDArray[Any]], name: str) -> bytes:
    from safetensors.numpy import save

    arrays = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    return save(arrays, {"run_id": name})  # one key: several come in any order


def _listed(values: Iterable[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)


def _json(value: Any) -> str:
    def plain(odd: Any) -> Any:
        if isinstance(odd, np.generic):
            return odd.item()
        raise TypeError(f"{type(odd).__name__} in a record")

    return json.dumps(value, allow_nan=False, default=plain)

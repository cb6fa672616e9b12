"""To other packages' formats of sparse autoencoders, and from them.

Preprocessing and offset are folded into the weights, so that the package encodes raw rows as the
model does. What a format can't hold is refused before anything is written. ``docs/ecosystem.md``
says what becomes what.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shoal.ecosystem import dictionary_learning, saelens, sparsify
from shoal.ecosystem._folders import check_folder, wrong
from shoal.ecosystem.autoencoders import Autoencoder, fitted, folded
from shoal.estimators import DictionaryAutoencoder, TiedAutoencoder
from shoal.files import claim, whole_folder
from shoal.vocabulary import ArgumentError, check_choice

__all__ = ["FORMATS", "Format", "export", "open_sae"]


class Format(NamedTuple):
    """Another package's folder."""

    files: tuple[str, ...]  # the configuration, and the weights
    write: Callable[..., dict[str, bytes]]
    read: Callable[[Path], Autoencoder]


FORMATS = {
    module.__name__.rpartition(".")[2]: Format(module.FILES, module.write, module.read)
    for module in (saelens, sparsify, dictionary_learning)
}
"""By name."""


def export(
    model: TiedAutoencoder,
    folder: str | os.PathLike[str],
    to: str,
    *,
    architecture: str | None = None,
    split_signs: bool = False,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a fitted model as another package's sparse autoencoder.

    Parameters
    ----------
    model : DictionaryAutoencoder or RegularizedAutoencoder
        Fitted. Its encoder's codes are what the package computes on raw rows, and its
        reconstructions; how codes by pursuits are inferred no format holds.
    folder : path
        It appears whole when everything is written, or not at all.
    to : {"saelens", "sparsify", "dictionary_learning"}
    architecture : str, optional
        By default what has the model's codes. For SAELens "matching_pursuit" stores the
        atoms alone, and the codes are other ones; "batchtopk" is a checkpoint to be trained on, of
        a model that was trained so.
    split_signs : bool
        Whether a model with signed codes becomes one of non-negative codes with two latents
        per atom, the second with the opposite sign: the same reconstructions, where the format
        has no signed codes.
    metadata : mapping, optional
        Plain values to be written into the configuration: of SAELens ``hook_name``, ``model_name``
        and the like.
    overwrite : bool
        Whether such a folder may be replaced.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ArgumentError
        Where the format can't express the model; before anything is written.
    RunError
        Where the folder exists, or can't be written.
    sklearn.exceptions.NotFittedError
        Where the model has not been fitted.

    References
    ----------
    SAELens 6.54, eai-sparsify 1.3, dictionary-learning 0.1: their own code is what is written for.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import shoal
    >>> rows = np.random.default_rng(0).standard_normal((500, 8))
    >>> model = shoal.DictionaryAutoencoder(12, 2, model="nonnegative", random_state=0).fit(rows)
    >>> folder = shoal.export(model, Path(tempfile.mkdtemp()) / "sae", to="saelens")
    >>> again = shoal.open_sae(folder)
    >>> bool((again.transform(rows) == model.transform(rows)).all())
    True
    """
    chosen = FORMATS[check_choice("to", to, FORMATS)]
    if not isinstance(split_signs, bool):
        raise ArgumentError("split_signs", repr(split_signs), "True or False")
    written = dict(metadata or {})
    try:
        json.dumps(written, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArgumentError("metadata", f"no plain values ({error})", "names and numbers") from None
    autoencoder = folded(model)
    if split_signs:
        autoencoder = autoencoder.split()
    k = getattr(model, "n_nonzero_coefs_", None) or max(1, round(autoencoder.m / 10))
    files = chosen.write(autoencoder, architecture=architecture, metadata=written, k=int(k))
    with (
        claim(folder, overwrite=overwrite, names=chosen.files) as held,
        whole_folder(held) as partial,
    ):
        for name, data in files.items():
            (partial / name).write_bytes(data)
    return Path(folder)


def open_sae(folder: str | os.PathLike[str]) -> DictionaryAutoencoder:
    """A fitted model from a folder of SAELens, sparsify or dictionary_learning.

    Parameters
    ----------
    folder : path
        With ``cfg.json`` and ``sae_weights.safetensors``, ``cfg.json`` and ``sae.safetensors``, or
        ``config.json`` and ``ae.pt``.

    Returns
    -------
    DictionaryAutoencoder
        Whose `transform` gives the package's codes of raw rows, and `inverse_transform` its
        reconstructions. An offset that is taken off before encoding is its preprocessing; others
        are its `offset_`. It can be scored and diagnosed, saved by :func:`shoal.save_run`,
        exported again, and gone on with: `partial_fit` goes on from the weights with the
        reconstruction loss, and `fit` starts anew from the atoms.

    Raises
    ------
    SourceError
        Where the folder is none of these, of another version or architecture, incomplete or
        damaged: what was found, and what would do.

    Warns
    -----
    UserWarning
        Where the package's codes are other ones than the model's (matching pursuit).
    """
    path = check_folder(folder)
    present = {
        name: os.path.lexists(path / name) for each in FORMATS.values() for name in each.files
    }
    for chosen in FORMATS.values():
        if all(present[name] for name in chosen.files):
            return fitted(chosen.read(path))
    pairs = "; ".join(f"{name}: {' and '.join(each.files)}" for name, each in FORMATS.items())
    if os.path.lexists(path / "dictionary.safetensors"):
        raise wrong(f"a run at {path}", f"shoal.load_run for it, or {pairs}")
    some = [name for name, there in present.items() if there]
    found = f"{', '.join(some)} alone" if some else "none of these files"
    raise wrong(f"{found} in {path}", pairs)

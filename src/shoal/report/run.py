"""A run folder, read: configuration, history and dictionary, checked and made tolerant.

Only ``config.json``, ``history.jsonl`` and ``dictionary.safetensors`` are read, by
:mod:`shoal.run_folder`. What a run may lack is `None` or empty in `Run`, so that the
figures and the page never have to look into a file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.run_folder import read_folder

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

__all__ = [
    "Run",
    "number",
    "picture_shape",
    "read_run",
]


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes
    ----------
    folder : Path
        Where it was read from.
    config : dict
        ``config.json``, with every non-finite number replaced by None.
    history : list of dict
        One record a logged step, in order; may be empty.
    dictionary : ndarray of shape (n_components, n_features)
        Atoms as rows, float32; non-finite entries are 0 here and counted in `broken_atoms`.
    activation, energy : ndarray of shape (n_components,) or None
        Fraction of samples on which each atom is active, and its mean squared code.
    feature_shape : tuple of int or None
        ``(h, w)`` or ``(h, w, 3)`` where the features are the pixels of a picture.
    broken_atoms : int
        How many atoms hold a non-finite number.
    """

    folder: Path
    config: dict[str, Any]
    history: list[dict[str, Any]]
    dictionary: NDArray[np.float32]
    activation: NDArray[np.float64] | None
    energy: NDArray[np.float64] | None
    feature_shape: tuple[int, ...] | None
    broken_atoms: int

    def section(self, name: str) -> dict[str, Any]:
        """`config[name]` where it is a mapping, an empty one otherwise."""
        value = self.config.get(name)
        return value if isinstance(value, dict) else {}

    def order(self) -> NDArray[np.intp]:
        """The atoms by energy, largest first; as stored where the energy is unknown."""
        if self.energy is None:
            return np.arange(len(self.dictionary))
        return np.argsort(-self.energy, kind="stable")


def number(value: Any) -> float | None:
    """`value` as a finite float, or None where it is no such thing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read a run folder.

    Parameters
    ----------
    folder : path
        A folder that holds ``config.json``, ``history.jsonl`` and
        ``dictionary.safetensors``.

    Returns
    -------
    Run

    Raises
    ------
    RunError
        Where the folder or one of the three files is missing or can't be used; the text
        names the file and what would do.
    """
    contents = read_folder(folder, history=True)
    config, tensors = contents.config, contents.tensors
    dictionary = tensors["dictionary"]
    finite = np.isfinite(dictionary)
    m, n = dictionary.shape
    source = config.get("source")
    shape = source.get("feature_shape") if isinstance(source, dict) else None
    return Run(
        folder=contents.path,
        config=config,
        history=contents.history,
        dictionary=np.where(finite, dictionary, 0).astype(np.float32),
        activation=_per_atom(tensors, "atom_activation", m),
        energy=_per_atom(tensors, "atom_energy", m),
        feature_shape=picture_shape(shape, n),
        broken_atoms=int((~finite).any(axis=1).sum()),
    )


def _per_atom(tensors: dict[str, NDArray[Any]], name: str, m: int) -> NDArray[np.float64] | None:
    value = tensors.get(name)
    if value is None or value.shape != (m,):
        return None
    return np.nan_to_num(value.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def picture_shape(shape: Any, n: int) -> tuple[int, ...] | None:
    """The shape as ``(h, w)`` or ``(h, w, 3)``; None where n features are no such picture.

    A shape that no longer fits (a preprocessing that reduced the features) isn't an error:
    the atoms are then drawn as plain features.
    """
    if not isinstance(shape, list) or not all(type(s) is int and s > 0 for s in shape):
        return None
    if len(shape) == 3 and shape[2] == 1:
        shape = shape[:2]
    pictured = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
    return tuple(shape) if pictured and math.prod(shape) == n else None

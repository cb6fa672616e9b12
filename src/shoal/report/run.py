"""A run folder, read: configuration, history and dictionary, checked and made tolerant.

Only ``config.json``, ``history.jsonl`` and ``dictionary.safetensors`` are read. What a run
must have is checked here, once; what it may lack is `None` or empty in `Run`, so that the
figures and the page never have to look into a file.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.files import check_free, check_replaceable
from shoal.vocabulary import RunError

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "RUN_FILES",
    "Run",
    "check_folder",
    "check_run_folder",
    "number",
    "read_config",
    "read_run",
    "read_tensors",
]

FORMAT = "shoal-run"
FORMAT_VERSION = 1
RUN_FILES = (
    "config.json",
    "dictionary.safetensors",
    "history.jsonl",
    "report.html",
    "atoms.png",
)


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


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """`folder` as a path, or a `RunError` where it is no folder."""
    path = Path(folder)
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise RunError(f"{path}: found {found}; needed a run folder, as `shoal fit` writes it")
    return path


def check_run_folder(folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Whether a run may be written to `folder`; with `overwrite` it may replace a run only.

    Raises
    ------
    RunError
        Where something is in the way.
    """
    check_free(folder, overwrite=overwrite)
    if overwrite:
        check_replaceable(folder, RUN_FILES)


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
    path = check_folder(folder)
    config = read_config(path / "config.json")
    history = read_history(path / "history.jsonl")
    tensors = read_tensors(path / "dictionary.safetensors")
    dictionary = tensors["dictionary"]
    finite = np.isfinite(dictionary)
    m, n = dictionary.shape
    source = config.get("source")
    shape = source.get("feature_shape") if isinstance(source, dict) else None
    return Run(
        folder=path,
        config=config,
        history=history,
        dictionary=np.where(finite, dictionary, 0).astype(np.float32),
        activation=_per_atom(tensors, "atom_activation", m),
        energy=_per_atom(tensors, "atom_energy", m),
        feature_shape=_picture_shape(shape, n),
        broken_atoms=int((~finite).any(axis=1).sum()),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(
            f"{path}: missing; needed a folder that `shoal fit` has finished writing"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RunError(f"{path}: {reason}; needed a readable file of UTF-8 text") from None


def read_config(path: Path) -> dict[str, Any]:
    """The configuration in a run's ``config.json``; `RunError` where it isn't one."""
    text = _text(path)
    try:
        config = _finite(json.loads(text))
    except ValueError as error:
        raise RunError(f"{path}: not JSON ({error}); needed the configuration of a run") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise RunError(f'{path}: found format {found!r}; needed "format": "{FORMAT}"')
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise RunError(
            f"{path}: found format_version {version!r}; needed {FORMAT_VERSION} "
            "(a newer run needs a newer shoal)"
        )
    return config


def read_history(path: Path) -> list[dict[str, Any]]:
    """The records in a run's ``history.jsonl``, oldest first."""
    lines = _text(path).split("\n")
    records = []
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _finite(json.loads(line))
        except ValueError:
            # The last line without its newline is a run cut short in the middle of a write:
            # everything before it is still worth a report.
            if i == len(lines):
                break
            record = None
        if not isinstance(record, dict):
            raise RunError(f"{path}: line {i} is no JSON object; needed one object a line")
        records.append(record)
    return records


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a run's ``dictionary.safetensors``; `RunError` where it can't be used."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RunError(
            f"{path}: missing; needed a folder that `shoal fit` has finished writing"
        ) from None
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}; needed a readable file") from None
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise RunError(
            f"{path}: not a safetensors file that NumPy can hold; "
            "needed one with `dictionary` in float32 or float64"
        ) from None
    dictionary = tensors.get("dictionary")
    if dictionary is None or dictionary.ndim != 2 or 0 in dictionary.shape:
        found = "none" if dictionary is None else f"shape {dictionary.shape}"
        raise RunError(f"{path}: `dictionary`: found {found}; needed atoms as rows, (m, n)")
    return tensors


def _per_atom(tensors: dict[str, NDArray[Any]], name: str, m: int) -> NDArray[np.float64] | None:
    value = tensors.get(name)
    if value is None or value.shape != (m,):
        return None
    return np.nan_to_num(value.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _picture_shape(shape: Any, n: int) -> tuple[int, ...] | None:
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


def _finite(value: Any) -> Any:
    """`value` with NaN and infinities, which JSON doesn't have but Python reads, as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value

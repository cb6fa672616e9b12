"""Reading other packages' folders: plain files of a bounded size, and never a program.

Nothing is believed: a file is opened once, is a regular one, is judged by its size and its header
before memory is asked for, and a tensor by its type and shape before it is used.
"""

from __future__ import annotations

import io
import json
import os
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shoal.data.readers._base import open_regular, reading
from shoal.data.readers._limits import check_room
from shoal.vocabulary import SourceError, check_count, printable

__all__ = [
    "check_folder",
    "number",
    "read_json",
    "read_safetensors",
    "read_torch",
    "weights",
    "wrong",
]

_MOST_JSON = 2**24  # arbitrary; a configuration has some KB
_MOST_HEADER = 2**20
_MOST_TENSORS = 64
_MOST_PICKLE = 2**18  # bytes of a dict of some tensors' names and shapes
_DTYPES = {torch.float64: np.float64, torch.float32: np.float32}

# All that a pickle of plain tensors refers to.
_TORCH_NAMES = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Int", "Long")),
}


def wrong(found: str, needed: str) -> SourceError:
    """The error for a folder that can't be opened."""
    return SourceError("folder", found, needed)


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """`folder` as a path, or an error where it is none."""
    try:
        path = Path(folder)
        if path.is_dir():
            return path
        found = "a file" if path.exists() else "nothing"
    except (OSError, TypeError, ValueError) as error:
        raise wrong(f"{folder!r} ({error})", "a folder that another package wrote") from None
    raise wrong(f"{found} at {path}", "a folder that another package wrote")


def _bytes(path: Path, most: int | None = None) -> bytes:
    """All of a regular file; of a weights file no more than there is room for twice."""
    needed = "a file that stays as it is"
    with open_regular(path) as file, reading(path.name, needed, "folder"):
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise wrong(f"{path.name} of {size} bytes", f"at most {most}")
        check_room(path.name, 3 * size)
        data = file.read(size + 1)
        if len(data) != size:
            raise wrong(f"{path.name}, which changed while it was read", needed)
        return data


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def read_json(path: Path) -> dict[str, Any]:
    """A configuration."""
    data = _bytes(path, _MOST_JSON)
    with reading(path.name, "a configuration in JSON", "folder"):
        found = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    if not isinstance(found, dict):
        raise wrong(f"{path.name} with a {type(found).__name__}", "a configuration, by name")
    return found


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file."""
    from safetensors.torch import load

    data = _bytes(path)
    with reading(path.name, "a complete .safetensors file", "folder"):
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > min(_MOST_HEADER, len(data) - 8):
            raise ValueError(f"a header of {length} bytes in a file of {len(data)}")
        return _checked(load(data), path, len(data))


def read_torch(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file of torch's, which is a zip with a pickle in it.

    Its list of parts and the names that the pickle refers to are looked at first: nothing but plain
    tensors, none packed. Then torch reads it, and no more than weights.
    """
    needed = "a state_dict of plain tensors, written by a torch since 1.6"
    if _torch_version() < (2, 6):  # before it, weights_only could be deceived
        raise wrong(f"{path.name} with torch {torch.__version__}", "torch 2.6 or newer to read it")
    data = _bytes(path)
    with reading(path.name, needed, "folder"):
        _check_zip(data)
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(found, dict):
        raise wrong(f"{path.name} with a {type(found).__name__}", needed)
    return _checked(found, path, len(data))


def _torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


def _check_zip(data: bytes) -> None:
    """Refuse an archive that holds other things than tensors, or asks for more than its size."""
    if data[:4] != b"PK\x03\x04":
        raise ValueError("no zip: a bare pickle, or cut at its start")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
        if len(parts) > 4 * _MOST_TENSORS:
            raise ValueError(f"{len(parts)} parts")
        if any(each.compress_type != zipfile.ZIP_STORED for each in parts):
            raise ValueError("parts that are packed, which torch never does")
        if sum(each.file_size for each in parts) > len(data):
            raise ValueError("parts larger than the file")
        pickles = [each for each in parts if each.filename.endswith(".pkl")]
        if len(pickles) != 1 or not pickles[0].filename.endswith("data.pkl"):
            raise ValueError(f"{len(pickles)} pickles, or one of another name")
        if pickles[0].file_size > _MOST_PICKLE:
            raise ValueError(f"a pickle of {pickles[0].file_size} bytes")
        for code, value, _ in pickletools.genops(archive.read(pickles[0])):
            strange = code.name == "GLOBAL" and value not in _TORCH_NAMES
            if strange or code.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
                raise ValueError(f"a reference to {printable(str(value or code.name), 80)}")


def _checked(tensors: dict[Any, Any], path: Path, size: int) -> dict[str, torch.Tensor]:
    if len(tensors) > _MOST_TENSORS:
        raise wrong(f"{len(tensors)} tensors in {path.name}", f"at most {_MOST_TENSORS}")
    for name, tensor in tensors.items():
        plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        if not isinstance(name, str) or not plain or tensor.device.type != "cpu":
            raise wrong(f"{name!r} in {path.name}, which is no plain tensor", "plain tensors")
        # Strides can make many out of few.
        if tensor.numel() * tensor.element_size() > size:
            raise wrong(f"{name} of shape {tuple(tensor.shape)} in {path.name}", "what it holds")
    return tensors


def number(config: dict[str, Any], name: str, high: int | None = None) -> int:
    """A count that a configuration says."""
    if name not in config:
        raise wrong(f"a configuration without {name!r}", f"{name}, a whole number")
    return check_count(name, config[name], high=high)


def weights(
    tensors: dict[str, torch.Tensor],
    shapes: dict[str, tuple[int, ...]],
    *,
    dtype: torch.dtype | None = None,
    beside: tuple[str, ...] = (),
    what: str,
) -> tuple[dict[str, NDArray[np.float64]], np.dtype[Any]]:
    """The tensors of these names and shapes in float64, and the precision that they are in.

    Parameters
    ----------
    tensors : dict of str to Tensor
    shapes : dict of str to tuple
        All that there must be.
    dtype : torch.dtype, optional
        What the package computes in; by default that of the first.
    beside : tuple of str
        What may be there too.
    what : str
        For messages.

    Raises
    ------
    SourceError
        Where one is missing, one too many, of another shape or not finite.
    """
    missing = [name for name in shapes if name not in tensors]
    if missing:
        raise wrong(f"no {', '.join(missing)} in {what}", f"{', '.join(shapes)}")
    others = sorted(set(tensors) - set(shapes) - set(beside))
    if others:
        raise wrong(f"{', '.join(others)} beside the weights in {what}", ", ".join(shapes))
    found = {}
    kept = dtype or tensors[next(iter(shapes))].dtype
    for name, shape in shapes.items():
        tensor = tensors[name].detach()
        if tuple(tensor.shape) != shape:
            raise wrong(f"{name} of shape {tuple(tensor.shape)}", f"shape {shape}, as {what} has")
        if not tensor.is_floating_point():
            raise wrong(f"{name} of {tensor.dtype}", "floating-point weights")
        array = tensor.to(kept).to(torch.float64).numpy()
        if not np.isfinite(array).all():
            raise wrong(f"{name} with NaN or infinite entries", "finite weights")
        found[name] = array
    # Halves are computed with in float32.
    return found, np.dtype(_DTYPES.get(kept, np.float32))

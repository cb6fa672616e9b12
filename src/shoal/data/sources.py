"""One door to all data: whatever holds rows becomes a :class:`Source`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import (
    RowSource,
    Source,
    StreamSource,
    Truth,
    check_tensor,
    is_tensor,
    tensor_rows,
    validate,
)
from shoal.data.readers import (
    Options,
    array_source,
    endings,
    open_object,
    open_path,
    refuse_options,
)
from shoal.data.samples import PREFIXES, SAMPLES, load_named
from shoal.vocabulary import SourceError

__all__ = ["Source", "Truth", "open_source", "validate"]


def open_source(
    spec: Any,
    *,
    key: str | None = None,
    patch_size: int | None = None,
    n_patches: int | None = None,
    random_state: Any = 0,
    feature_shape: tuple[int, ...] | None = None,
    **more: Any,
) -> Source:
    """Open data of any kind as one `Source` of rows.

    Parameters
    ----------
    spec : ndarray, torch.Tensor, str, Path, iterable, callable or Source
        - an array (any order; also a memory map, a data frame, an open Zarr array) or a
          tensor on any device, of shape (n_samples, n_features); never copied as a whole,
          never written to;
        - a path to ``.npy`` (read where it lies), ``.npz`` (read into memory),
          ``.safetensors`` (read where it lies), ``.parquet`` (read by row groups; all
          numeric columns, or one list column), a Zarr array or group (read by chunks), a picture (.png, .jpg,
          .tif, .bmp, .gif, .webp, .pgm, .ppm), or a folder of pictures (searched with its
          subfolders; cut into grey patches, see Notes);
        - ``sample:patches``, ``sample:digits``, with options as in
          ``sample:patches?size=12&n_patches=20000``; with internet ``openml:NAME`` and
          ``hf:NAME?split=train``;
        - an iterable of batches (a data loader, a list of arrays), or a function without
          arguments that returns one. A batch is an array, a tensor, or a tuple or list
          whose first item is one. A generator can be read only once;
        - a `Source`, returned as it is.
    key : str, optional
        Which array of a file with several, which column of Parquet or of ``hf:``. By
        default ``data``, else the only one that can be meant. Where a file also holds
        ``dictionary`` (and ``codes``), they become ``source.truth``.
    patch_size : int, optional
        Side of the patches of pictures, in pixels; 12 by default, or less where no picture
        holds that.
    n_patches : int, optional
        Patches drawn from pictures, at distinct random positions; 20 000 by default, or as
        many as there are.
    random_state : int or numpy.random.Generator
        Seed of those positions.
    feature_shape : tuple of int, optional
        How to draw a row as an image, such as (28, 28); known already for patches.
    **more
        Options of one reader: ``missing="fill"`` reads the fill value where a Zarr chunk is
        missing, which is an error otherwise. Those of a reader of your own, see
        :class:`shoal.data.readers.Reader`.

    Returns
    -------
    Source

    Raises
    ------
    SourceError
        If the data is missing, unreadable, cut off, of another type than its ending says,
        not 2-d, empty, not of real numbers, or at odds with its own truth.
    ArgumentError
        If an option is wrong, or means nothing for this kind of data.

    Warns
    -----
    UserWarning
        If part of what was asked for is left out.

    Notes
    -----
    Values aren't read here; :func:`validate` refuses NaN and infinity.

    Of pictures, 8-bit levels are divided by 255, levels of more bits by 65535 (12-bit TIFF by
    4095, Netpbm by its own white), and floats stay as they are. Colours are weighted by
    ITU-R BT.601, of L*a*b* the lightness is taken; alpha is left aside, gamma, colour profiles
    and the orientation that a camera notes are not applied. All pages of a TIFF stack, GIF, WebP
    or animated PNG are used. What is left out of a file, files of a folder that can't be
    read, and defaults that are clipped are said in a ``UserWarning`` of one line.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.data import open_source
    >>> source = open_source(np.arange(6, dtype=np.uint8).reshape(3, 2))
    >>> source
    <Source array: 3 x 2 float32>
    >>> [batch.tolist() for batch in source.batches(2)]
    [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0]]]
    """
    named = {
        "key": key,
        "patch_size": patch_size,
        "n_patches": n_patches,
        "feature_shape": feature_shape,
        **more,
    }
    options: Options = {word: value for word, value in named.items() if value is not None}
    options = {**options, "random_state": random_state}
    if isinstance(spec, Source):
        refuse_options(options, (), "an open source")
        return spec
    if isinstance(spec, str) and spec.partition(":")[0] in PREFIXES:
        return _named(spec, options)
    if isinstance(spec, (str, Path)):
        return open_path(Path(spec), options)
    if (source := open_object(spec, options)) is not None:
        return source
    refuse_options(options, ("feature_shape",), f"a {type(spec).__name__}")
    for matches, opener in (
        (is_tensor, _tensor),
        (_is_array, _array),
        (_is_stream, _stream),
    ):
        if matches(spec):
            return opener(spec, feature_shape)
    hint = ": call .toarray() first" if hasattr(spec, "toarray") else ""
    raise SourceError(
        "source",
        f"a {type(spec).__name__}",
        f"an array, tensor, path ({endings()}), sample name "
        f"({', '.join(f'sample:{name}' for name in SAMPLES)}) or iterable of batches{hint}",
    )


def _named(spec: str, options: Options) -> Source:
    # The loaders call these options by their own names.
    prefix = spec.partition(":")[0]
    given: dict[str, Any] = {}
    options = dict(options)
    if prefix == "hf" and "key" in options:
        given["column"] = options.pop("key")
    is_patches = spec.partition("?")[0] == "sample:patches"
    if is_patches:
        if "patch_size" in options:
            given["size"] = options["patch_size"]
        if "n_patches" in options:
            given["n_patches"] = options["n_patches"]
        if "random_state=" not in spec:
            given["random_state"] = options["random_state"]
    takes = ("patch_size", "n_patches") if is_patches else ("feature_shape",)
    refuse_options(options, takes, repr(spec))
    sample = load_named(spec, **given)
    return array_source(
        sample.data, spec, feature_shape=options.get("feature_shape") or sample.feature_shape
    )


Shape = tuple[int, ...] | None


def _tensor(tensor: Any, feature_shape: Shape) -> Source:
    import torch

    check_tensor(tensor)
    tensor = tensor.detach()
    plain = tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16
    if plain:
        rows = tensor_rows(tensor)
        source = array_source(rows, "tensor", argument="data", feature_shape=feature_shape)
        source.tensor = tensor
        return source
    if tensor.ndim != 2:
        raise SourceError(
            "data",
            f"tensor of shape {tuple(tensor.shape)}",
            "a 2-d array (n_samples, n_features): reshape it first",
        )

    def fetch(index: Any) -> NDArray:
        if isinstance(index, np.ndarray):
            index = torch.from_numpy(index).to(tensor.device)
        return tensor_rows(tensor[index])

    return RowSource(
        fetch,
        (int(tensor.shape[0]), int(tensor.shape[1])),
        tensor_rows(tensor[:0]).dtype,
        tensor=tensor,
        name="tensor",
        argument="data",
        feature_shape=feature_shape,
    )


def _is_array(spec: Any) -> bool:
    return hasattr(spec, "__array__") and hasattr(spec, "shape")


def _array(spec: Any, feature_shape: Shape) -> Source:
    if isinstance(spec, np.ma.MaskedArray):
        raise SourceError("data", "a masked array", "a plain array: fill or drop what is masked")
    held = not isinstance(spec, np.memmap)
    name = "array" if held or spec.filename is None else Path(spec.filename).name
    array = np.asarray(spec)
    source = array_source(array, name, argument="data", held=held, feature_shape=feature_shape)
    if not held:
        _watch(source, spec)
    return source


def _watch(source: RowSource, mapped: np.memmap) -> None:
    """Look before each reading whether the mapped file was cut: touching it would be fatal."""
    try:
        size = mapped._mmap.size()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return  # a map without a file
    fetch = source._fetch

    def watched(index: Any) -> NDArray:
        if (now := mapped._mmap.size()) < size:  # type: ignore[attr-defined]
            raise SourceError(
                "data",
                f"{source.name}, whose file was cut from {size} to {now} bytes",
                "a file that stays as it is while it is read",
            )
        return fetch(index)

    source._fetch = watched


def _is_stream(spec: Any) -> bool:
    countable = isinstance(spec, Iterable) or hasattr(spec, "__getitem__")
    plain = not isinstance(spec, (bytes, dict, set)) and not hasattr(spec, "toarray")
    return plain and (countable or callable(spec)) and not isinstance(spec, type)


def _stream(spec: Any, feature_shape: Shape) -> Source:
    def start() -> Iterator[Any]:
        flow = spec() if callable(spec) and not isinstance(spec, Iterable) else spec
        try:
            return iter(flow)
        except TypeError:
            raise SourceError(
                "source", f"a function that returned a {type(flow).__name__}", "one of batches"
            ) from None

    # Only an iterator is its own iterator; all else can be started again.
    once = isinstance(spec, Iterator)
    return StreamSource(start, once=once, name="stream", feature_shape=feature_shape)

"""One door to all data: whatever holds rows becomes a :class:`Source`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from shoal.data.columns import aligned, positions, selected
from shoal.data.joined import JoinedSource
from shoal.data.readers import (
    Options,
    array_source,
    as_rows,
    endings,
    open_object,
    open_path,
    reader_of,
    refuse_options,
)
from shoal.data.samples import PREFIXES, SAMPLES, load_named
from shoal.vocabulary import ArgumentError, SourceError, SourceWarning, warn

__all__ = ["Source", "Truth", "open_source", "validate"]


def open_source(
    spec: Any,
    *,
    key: str | None = None,
    patch_size: int | None = None,
    n_patches: int | None = None,
    random_state: Any = 0,
    feature_shape: tuple[int, ...] | None = None,
    columns: Sequence[str | int] | str | int | None = None,
    drop: Sequence[str | int] | str | int | None = None,
    **more: Any,
) -> Source:
    """Open data of any kind as one `Source` of rows.

    Parameters
    ----------
    spec : ndarray, torch.Tensor, str, Path, iterable, callable or Source
        - an array (any order; also a memory map, an open Zarr array) or a tensor on any
          device, of shape (n_samples, n_features); never copied as a whole, never written to.
          Of an array of more axes all but the first are one row, whose shape is kept as
          `feature_shape`;
        - a table of pandas, polars or PyArrow, or another that gives Arrow's stream: its
          numeric columns by name, or its one column of lists. What holds anything else, such
          as text, dates or pandas' index, is left out with a warning;
        - a sparse array or matrix of SciPy: it becomes CSR once, and its batches dense; an AnnData
          object, of which `key` is a layer;
        - a path to ``.npy`` (read where it lies), ``.npz`` (read into memory; also what
          `scipy.sparse.save_npz` and ``shoal transform`` write), ``.safetensors``
          (read where it lies), ``.parquet`` (a table, read by row groups), ``.csv``, ``.tsv`` or
          ``.txt`` (a table, also packed as ``.csv.gz``; read once, a large one into a
          temporary file), a Zarr array or group (read by chunks), ``.h5`` and ``.hdf5`` (read by
          chunks), ``.h5ad`` (``X``, or ``key="layers/counts"``; sparse ones stay so), ``.mat``,
          ``.wav``, ``.edf``, ``.bdf``, ``.fif`` (windows of a recording, of all its channels:
          ``window=256``, ``hop=128``), a picture (.png, .jpg,
          .tif, .bmp, .gif, .webp, .pgm, .ppm), or a folder of pictures (searched with its
          subfolders; cut into grey patches, see Notes);
        - ``sample:patches``, ``sample:digits``, with options as in
          ``sample:patches?size=12&n_patches=20000``; with internet ``openml:NAME`` and
          ``hf:NAME?split=train``;
        - an iterable of batches (a data loader, a list of arrays), or a function without
          arguments that returns one. A batch is an array, a tensor, a table, a sparse array, or
          a tuple or list whose first item is one. A generator can be read only once; a list or
          tuple of batches is what their concatenation would be, and one of rows is data;
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
    columns, drop : str, int, or sequence of them, optional
        The columns to use, in this order; or those to leave out. By name, or by number from 0
        where they have none. A text with commas that is no name is several.
    **more
        Options of one reader: ``missing="fill"`` reads the fill value where a Zarr chunk is
        missing, which is an error otherwise; ``delimiter`` and ``header`` (True or False) of text,
        which are else seen from its first lines; ``window`` and ``hop`` of sound. Those of a
        reader of your own, see :class:`shoal.data.readers.Reader`.

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
        If part of what was asked for, or of a table, is left out (``source.left_out`` says what
        of a table).

    Notes
    -----
    Values aren't read here, but those of text; :func:`validate` refuses NaN and infinity.

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
    given = {
        "key": key,
        "patch_size": patch_size,
        "n_patches": n_patches,
        "feature_shape": feature_shape,
        "columns": columns,
        "drop": drop,
        **more,
    }
    options = {word: value for word, value in given.items() if value is not None}
    source = _open(spec, {**options, "random_state": random_state})
    if source is not spec:
        for note in source.notes:
            warn(note, SourceWarning)
    return source


def _open(spec: Any, options: Options) -> Source:
    """:func:`open_source` with the options that were given, and without a word."""
    reader = reader_of(spec)
    if reader is not None and "columns" in reader.options:  # it knows which columns to read
        return _open_all(spec, options)
    chosen = {word: options[word] for word in ("columns", "drop") if word in options}
    if not chosen:
        return _open_all(spec, options)
    if len(chosen) == 2:
        raise ArgumentError("drop", repr(chosen["drop"]), "one of columns= and drop=")
    shape = options.get("feature_shape")
    rest = {w: v for w, v in options.items() if w not in (*chosen, "feature_shape")}
    source = _open_all(spec, rest)
    (word,) = chosen
    names = source.feature_names or range(source.n_features)
    index = positions(word, chosen[word], names, source.name)
    if word == "drop":
        index = [i for i in range(source.n_features) if i not in set(index)]
        if not index:
            raise ArgumentError("drop", "all columns", "at least one that stays")
    return selected(source, index, shape)


def _open_all(spec: Any, options: Options) -> Source:
    feature_shape = options.get("feature_shape")
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
        (_is_listed, _listed),
        (_is_stream, _stream),
    ):
        if matches(spec):
            return opener(spec, feature_shape)
    hint = ": call .collect() first" if hasattr(spec, "collect") else ""
    raise SourceError(
        "source",
        f"a {type(spec).__name__}",
        f"an array, tensor, path ({endings()}), sample name "
        f"({', '.join(f'sample:{name}' for name in SAMPLES)}), table or iterable of batches{hint}",
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
        source.tensor = tensor.flatten(1)
        return source
    shape, of_a_row = as_rows(tuple(tensor.shape), "tensor", "data")
    tensor = tensor if of_a_row is None else tensor.flatten(1)

    def fetch(index: Any) -> NDArray:
        if isinstance(index, np.ndarray):
            index = torch.from_numpy(index).to(tensor.device)
        return tensor_rows(tensor[index])

    return RowSource(
        fetch,
        shape,
        tensor_rows(tensor[:0]).dtype,
        tensor=tensor,
        name="tensor",
        argument="data",
        feature_shape=feature_shape or of_a_row,
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
        source.path = None if spec.filename is None else Path(spec.filename)
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


def _is_batch(item: Any) -> bool:
    if isinstance(item, (list, tuple)) and item:
        item = item[0]
        if not hasattr(item, "ndim"):
            return False  # a row of numbers
    reader = reader_of(item)
    return (reader is not None and not isinstance(item, (str, Path))) or getattr(
        item, "ndim", 0
    ) >= 2


def _is_listed(spec: Any) -> bool:
    """Whether `spec` is a list of batches or of rows, all in memory.

    A batch has at least two axes, or is a table, a sparse array, or a tuple or list that begins
    with one; a row has one.
    """
    if not isinstance(spec, (list, tuple)) or not spec:
        return False
    row = isinstance(spec[0], (list, tuple, range)) or getattr(spec[0], "ndim", 0) == 1
    return row or _is_batch(spec[0])


def _listed(spec: Any, feature_shape: Shape) -> Source:
    """Batches joined, or rows."""
    if _is_batch(spec[0]):
        batches = [_batch(item, None) for item in spec]  # of uneven lengths
        return JoinedSource([each for each in batches if each is not None], feature_shape)
    if all(map(is_tensor, spec)):
        import torch

        shapes = {tuple(row.shape) for row in spec}
        if len(shapes) == 1:
            return _tensor(torch.stack(list(spec)), feature_shape)
    try:
        rows = np.asarray(spec)
        rows = rows.astype(np.float64) if rows.dtype == object else rows
    except (ValueError, TypeError):  # of several lengths, or of no numbers
        rows = np.empty(0, dtype=object)
    if rows.dtype.kind not in "biuf" or rows.ndim < 2:
        kinds = dict.fromkeys(type(item).__name__ for item in spec)
        found = f"a {type(spec).__name__} of {' and '.join(list(kinds)[:3])}"
        raise SourceError("source", found, "batches (n_samples, n_features), or rows of one length")
    return array_source(rows, "list", argument="data", feature_shape=feature_shape)


def _batch(item: Any, like: Source | None) -> Source | None:
    """A batch as a source, its columns in the order of those of `like`; None if it has no row."""
    if isinstance(item, (tuple, list)) and item:
        item = item[0]
    needed = "batches that are 2-d arrays or tensors (n_samples, n_features)"
    table = reader_of(item) is not None and not isinstance(item, (str, Path))
    if not (table or is_tensor(item) or isinstance(item, np.ndarray)):
        raise SourceError("source", f"a batch that is a {type(item).__name__}", needed)
    shape = tuple(item.shape)
    if not table and (len(shape) < 2 or 0 in shape[1:]):
        raise SourceError("source", f"a batch of shape {shape}", needed)
    if shape[0] == 0:
        return None
    try:
        batch = _open_all(item, {"random_state": 0})
    except SourceError as error:
        found = error.found.replace("array", "a batch", 1)
        raise SourceError("source", found, error.needed) from error
    if like is None or like.feature_names is None or batch.feature_names is None:
        return batch
    return aligned(batch, like.feature_names, "of the first batch", "source")


def _is_stream(spec: Any) -> bool:
    countable = isinstance(spec, Iterable) or hasattr(spec, "__getitem__")
    plain = not isinstance(spec, (bytes, dict, set))
    plain = plain and not any(hasattr(spec, word) for word in ("toarray", "collect"))
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
    return StreamSource(start, _batch, once=once, name="stream", feature_shape=feature_shape)

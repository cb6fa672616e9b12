"""Activations of a language model as data: texts through one of its layers, to a folder of shards.

The texts are cut into windows, and windows go to shards by their number alone: a shard is the same
bytes whether it is written in one go or after a process was killed, and those that are whole are
not made again. They lie in ``STORE.partial`` until the last one is there; then they are the store.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
from collections.abc import Generator, Sequence
from itertools import chain
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal, NamedTuple

import numpy as np

from shoal.data.readers import open_path
from shoal.data.readers.activations import FORMAT, INDEX, TEXTS, is_store
from shoal.files import claim, write_bytes
from shoal.vocabulary import (
    ArgumentError,
    RunError,
    SourceError,
    WriteError,
    __version__,
    check_choice,
    check_count,
)

__all__ = ["Model", "Progress", "activations", "iter_activations", "open_model", "read_texts"]

# Windows of a forward pass, of a shard, and tokens of a window where the model takes more. They say
# which rows stand where. Arbitrary; some 10 000 to 30 000 rows a shard.
_BATCH, _SHARD, _WINDOW = 16, 256, 128
_PLAN = "plan.json"


class Document(NamedTuple):
    """A text and what it is called."""

    name: str
    text: str


class Window(NamedTuple):
    """Tokens that go through the model together."""

    document: int
    ids: tuple[int, ...]  # those that the model wants at the ends included
    begin: tuple[int, ...]  # the first character of each
    end: tuple[int, ...]  # and the one after its last
    kept: tuple[bool, ...]  # whether the token stands for a part of the text


class Progress(NamedTuple):
    """How far a store is."""

    shard: int  # shards that are written
    shards: int
    rows: int  # in them


class Model(NamedTuple):
    """A model that runs, and what tells it from others."""

    name: str
    network: Any
    tokenizer: Any
    layers: int  # hidden states that it gives, the first being the embeddings
    named: str  # by the numbers in it


def open_model(model: str | os.PathLike[str]) -> Model:
    """A transformer from a folder, or from a Python package that has one in it.

    Nothing is fetched.

    Parameters
    ----------
    model : path or str
        A folder as `transformers` writes it, or the name of an installed package, as ``pip`` or
        ``import`` has it, with such a folder in it.

    Raises
    ------
    SourceError
        Where there is no such folder, or `transformers` isn't installed or can't read it.
    """
    folder = _folder_of(model)
    if importlib.util.find_spec("transformers") is None:
        found = f"{folder.name!r}, but the package transformers isn't installed"
        raise SourceError("model", found, 'pip install "shoal[activations]"')
    transformers = importlib.import_module("transformers")
    before = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    try:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SourceError(
            "model", f"{str(folder)!r}, which can't be loaded ({reason})", "a model's folder"
        ) from error
    finally:
        transformers.logging.set_verbosity(before)
        if bars:
            transformers.logging.enable_progress_bar()
    if not getattr(tokenizer, "is_fast", False):
        needed = "a model with a fast tokenizer, which says where in the text a token is"
        raise SourceError("model", f"{folder.name!r} without one", needed)
    layers = getattr(network.config, "num_hidden_layers", None)
    if not isinstance(layers, int):
        raise SourceError("model", f"{folder.name!r} without layers", "a transformer")
    return Model(Path(model).name, network, tokenizer, layers + 1, _name_of(network))


def _folder_of(model: str | os.PathLike[str]) -> Path:
    """Where a model's configuration lies."""
    path = Path(model).expanduser()
    if path.is_dir():
        if (path / "config.json").is_file():
            return path
        raise SourceError("model", f"{str(path)!r} without config.json", "a model's folder")
    name = str(model).replace("-", "_")
    package = None
    if all(part.isidentifier() for part in name.split(".")):
        try:
            package = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            package = None
    for place in (package.submodule_search_locations or ()) if package is not None else ():
        for folder in (Path(place), Path(place, "model")):
            if (folder / "config.json").is_file():
                return folder
    found = f"{str(model)!r}, neither a folder nor an installed package with a model in it"
    raise SourceError("model", found, "one of these: nothing is fetched")


def _name_of(network: Any) -> str:
    """A name made of the numbers of a model: some of each of its arrays."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        some = value.detach().flatten()[:256].double().cpu().numpy()
        digest.update(f"{name} {tuple(value.shape)}".encode() + some.tobytes())
    return digest.hexdigest()[:32]


def read_texts(paths: Sequence[str | os.PathLike[str]]) -> list[Document]:
    """The texts in files, and in all files of folders, by their names.

    Raises
    ------
    SourceError
        Where one can't be read, is not UTF-8, or holds nothing but space.
    """
    if not paths:
        raise SourceError("text", "no file", "at least one")
    found = []
    for path in chain.from_iterable(map(_files_in, map(Path, paths))):
        try:
            if not path.is_file():
                raise SourceError("text", f"{str(path)!r}, no regular file", "a text file")
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise SourceError("text", f"{path.name}, which is not UTF-8", "text") from error
        except OSError as error:
            found_ = f"{str(path)!r} ({error.strerror})"
            raise SourceError("text", found_, "a file that can be read") from error
        if not text.strip():
            raise SourceError("text", f"{path.name} without a word", "files with text in them")
        found.append(Document(path.name, text))
    return found


def _files_in(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(each for each in path.rglob("*") if each.is_file() and each.name[0] != ".")
    if not files:
        raise SourceError("text", f"{str(path)!r} without files", "a folder with texts")
    return files


def _windows(documents: list[Document], model: Model, length: int) -> list[Window]:
    """All texts in windows of at most `length` tokens."""
    found = []
    for number, document in enumerate(documents):
        coded = model.tokenizer(
            document.text,
            truncation=True,
            max_length=length,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        for ids, places, special in zip(
            coded["input_ids"],
            coded["offset_mapping"],
            coded["special_tokens_mask"],
            strict=True,
        ):
            kept = tuple(
                not odd and end > begin for odd, (begin, end) in zip(special, places, strict=True)
            )
            if any(kept):
                begins, ends = zip(*places, strict=True)
                found.append(Window(number, tuple(ids), begins, ends, kept))
    return found


def _window_length(model: Model, asked: int | None) -> int:
    most = getattr(model.network.config, "max_position_embeddings", None) or _WINDOW
    limit = getattr(model.tokenizer, "model_max_length", most)
    most = int(min(most, limit))
    if asked is None:
        return min(_WINDOW, most)
    return int(check_count("window", asked, low=4, high=most))


def _rows_of(
    windows: list[Window], model: Model, layer: int, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Activations (rows, n) and places (rows, 4) of windows, in their order."""
    import torch

    values, places = [], []
    pad = model.tokenizer.pad_token_id or 0
    for at in range(0, len(windows), _BATCH):
        batch = windows[at : at + _BATCH]
        longest = max(len(each.ids) for each in batch)
        ids = torch.tensor([[*each.ids, *[pad] * (longest - len(each.ids))] for each in batch])
        seen = torch.tensor(
            [[1] * len(each.ids) + [0] * (longest - len(each.ids)) for each in batch]
        )
        with torch.no_grad():
            out = model.network(input_ids=ids, attention_mask=seen, output_hidden_states=True)
        states = out.hidden_states[layer].float().cpu().numpy()  # (B, longest, n)
        for state, each in zip(states, batch, strict=True):
            kept = np.flatnonzero(each.kept)
            values.append(state[kept])
            parts = (np.take(part, kept) for part in (each.ids, each.begin, each.end))
            token, begin, end = parts
            number = np.full(len(kept), each.document)
            places.append(np.stack([token, number, begin, end], axis=1))
    rows = np.concatenate(values)
    with np.errstate(over="ignore"):
        stored = rows.astype(dtype)
    if not np.isfinite(stored).all():
        found = f"values of up to {np.abs(rows).max():.3g} in layer {layer}"
        raise ArgumentError("dtype", f"{dtype.name} for {found}", "float32")
    return stored, np.concatenate(places).astype(np.int32)


def iter_activations(
    model: str | os.PathLike[str],
    text: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    layer: int,
    window: int | None = None,
    dtype: Literal["float16", "float32"] = "float16",
    overwrite: bool = False,
) -> Generator[Progress, None, None]:
    """:func:`activations` shard by shard; arguments are checked in this call."""
    check_choice("dtype", dtype, ["float16", "float32"])
    if overwrite and Path(output).exists() and not is_store(Path(output)):
        raise RunError(
            f"{output}: is no store of activations; needed one to replace, or a new name"
        )
    held = claim(output, overwrite=overwrite)
    try:
        documents = read_texts(text)
        opened = open_model(model)
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < opened.layers:
            needed = f"from 0 (the embeddings) to {opened.layers - 1}, those of {opened.name}"
            raise ArgumentError("layer", repr(layer), needed)
        length = _window_length(opened, window)
        windows = _windows(documents, opened, length)
        if not windows:
            raise SourceError("text", "no token", "texts with words in them")
        texts = "".join(
            json.dumps({"name": each.name, "text": each.text}, ensure_ascii=False) + "\n"
            for each in documents
        ).encode()
        plan = {
            "format": FORMAT,
            "format_version": 1,
            "shoal_version": __version__,
            "model": opened.name,
            "model_numbers": opened.named,
            "layer": layer,
            "window": length,
            "dtype": dtype,
            "texts": hashlib.sha256(texts).hexdigest(),
        }
        partial = _partial(Path(output), plan, overwrite=overwrite)
    except BaseException:
        held.release()
        raise
    return _shards(held, partial, plan, texts, windows, opened, layer, np.dtype(dtype))


def _partial(output: Path, plan: dict[str, Any], *, overwrite: bool) -> Path:
    """The folder that shards are kept in until the store is whole."""
    folder = output.with_name(output.name + ".partial")
    kept = folder / _PLAN
    if folder.exists():
        try:
            same = json.loads(kept.read_text(encoding="utf-8")) == plan
        except (OSError, ValueError):
            same = False
        if same:
            return folder
        if not overwrite:
            raise RunError(
                f"{folder}: holds part of a store of another model, layer or text; needed the "
                "same command again, or overwrite=True to begin anew"
            )
        rmtree(folder)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{folder}: can't be made ({error.strerror}); needed another name") from None
    write_bytes(kept, json.dumps(plan, indent=1).encode())
    return folder


def _shards(
    held: Any,
    partial: Path,
    plan: dict[str, Any],
    texts: bytes,
    windows: list[Window],
    model: Model,
    layer: int,
    dtype: np.dtype,
) -> Generator[Progress, None, None]:
    from safetensors.numpy import save

    with held:
        count = -(-len(windows) // _SHARD)
        done: list[dict[str, Any]] = []
        for number in range(count):
            name = f"{number:05d}.safetensors"
            part = windows[number * _SHARD : (number + 1) * _SHARD]
            rows = sum(sum(each.kept) for each in part)
            # It appears whole or not at all.
            if not (partial / name).is_file():
                values, places = _rows_of(part, model, layer, dtype)
                write_bytes(partial / name, save({"activations": values, "places": places}))
            done.append({"name": name, "rows": rows})
            yield Progress(number + 1, count, sum(each["rows"] for each in done))
        write_bytes(partial / TEXTS, texts)
        index = plan | {"n_samples": sum(each["rows"] for each in done), "shards": done}
        write_bytes(partial / INDEX, (json.dumps(index, indent=1) + "\n").encode())
        open_path(partial, {})  # what can't be read again is no result
        _become(partial, held)


def _become(partial: Path, held: Any) -> None:
    """The whole folder takes the store's name."""
    (partial / _PLAN).unlink()
    try:
        if held.overwrite and is_store(held.path):
            rmtree(held.path)
        os.rename(partial, held.path)
    except OSError as error:
        raise WriteError(f"{held.path}: can't be written ({error.strerror})") from error


def activations(
    model: str | os.PathLike[str],
    text: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    layer: int,
    window: int | None = None,
    dtype: Literal["float16", "float32"] = "float16",
    overwrite: bool = False,
) -> Path:
    """Write the activations of texts in one layer of a transformer to a store.

    A row is a token; those that the model wants at the ends of a window are left out.

    Parameters
    ----------
    model : path or str
        See :func:`open_model`.
    text : sequence of paths
        Files in UTF-8, each a document, and folders of such.
    output : path
        The store, a folder that appears whole. Called again after it was interrupted, it goes on
        from the shards in ``OUTPUT.partial``, to the same bytes.
    layer : int
        Whose output: 0 is the embeddings, 1 the first layer.
    window : int, optional
        Tokens that go through the model together, 128 by default.
    dtype : {"float16", "float32"}
        Of what is stored.
    overwrite : bool
        Whether what is there may be replaced.

    Returns
    -------
    Path
        The store, which `shoal.data.open_source` opens.

    Raises
    ------
    SourceError, ArgumentError
        Where model, layer or text can't be used; before anything is written.
    RunError
        Where `output` is there already, or part of another store.
    WriteError
        Where it can't be written; what was written is gone on from.
    """
    for _ in iter_activations(
        model, text, output, layer=layer, window=window, dtype=dtype, overwrite=overwrite
    ):
        pass
    return Path(output)

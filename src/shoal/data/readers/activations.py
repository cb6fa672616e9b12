"""A store of a language model's activations: a folder of shards with `index.json`.

======================  ===================================================================
``index.json``          what the rows are: model, layer, shards and their rows, documents
``documents.jsonl``     a document a line: its name and text
``00000.safetensors``   ``activations`` (rows, n), and ``places`` (rows, 4): of each row its
                        token's id, its document, and where in it the token begins and ends
======================  ===================================================================

`shoal activations` writes it. It is read where it lies.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import Source
from shoal.data.joined import JoinedSource
from shoal.data.readers._base import Options, Reader, open_regular, reading, register
from shoal.data.readers._limits import check_room
from shoal.data.readers.safetensors import READER as SHARD
from shoal.vocabulary import SourceError

__all__ = ["FORMAT", "INDEX", "TEXTS", "Activations", "Passage", "is_store"]

FORMAT, VERSION = "shoal-activations", 1
INDEX, TEXTS = "index.json", "documents.jsonl"
_MOST_INDEX = 2**26  # bytes, arbitrary: a shard takes some hundred
# Characters of a passage on either side of its token. Arbitrary: about a line.
_AROUND = 60


class Passage(NamedTuple):
    """Where in the texts a row is from."""

    document: str
    before: str
    token: str
    after: str


class Activations(JoinedSource):
    """The rows of a store, and the texts that they are from.

    Parameters
    ----------
    folder : Path
        The store.
    index : mapping
        What its ``index.json`` says.
    shards : sequence of Source
        Its shards, in their order.
    """

    def __init__(self, folder: Path, index: Mapping[str, Any], shards: Sequence[Source]) -> None:
        super().__init__(shards)
        self.name, self.folder, self.index = folder.name, folder, dict(index)
        self._texts: list[tuple[str, str]] | None = None

    def places(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Token, document, and first and last character of rows (B,): shape (B, 4)."""
        out = np.empty((len(rows), 4), dtype=np.int64)
        whose = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(whose):
            here = np.flatnonzero(whose == number)
            start = int(self._ends[number - 1]) if number else 0
            values = _part(self.folder / self.index["shards"][int(number)]["name"], "places")
            out[here] = values.rows(rows[here] - start)
        return out

    def passages(self, rows: NDArray[np.intp]) -> list[Passage]:
        """What stands where rows (B,) are from."""
        texts = self._documents()
        found = []
        for _, document, begin, end in self.places(rows).tolist():
            if not 0 <= document < len(texts):
                needed = f"numbers below {len(texts)}, the documents of {TEXTS}"
                raise SourceError("source", f"document {document} in {self.name}", needed)
            name, text = texts[document]
            before, after = text[max(0, begin - _AROUND) : begin], text[end : end + _AROUND]
            found.append(Passage(name, before, text[begin:end], after))
        return found

    def _documents(self) -> list[tuple[str, str]]:
        if self._texts is None:
            needed = f"the {TEXTS} that `shoal activations` wrote"
            with reading(f"{self.name}/{TEXTS}", needed), open_regular(self.folder / TEXTS) as file:
                check_room(TEXTS, (self.folder / TEXTS).stat().st_size)
                lines = [json.loads(line) for line in file.read().decode().splitlines()]
                self._texts = [(str(line["name"]), str(line["text"])) for line in lines]
        return self._texts


def is_store(path: Path) -> bool:
    """Whether a folder is a store of activations."""
    try:
        with open(path / INDEX, "rb") as file:
            # A pipe in its place would be waited for.
            regular = stat.S_ISREG((path / INDEX).stat().st_mode)
            return regular and FORMAT.encode() in file.read(200)
    except OSError:
        return False


def _index(path: Path) -> dict[str, Any]:
    """What the index says, checked."""
    needed = f"the {INDEX} that `shoal activations` wrote"
    with reading(f"{path.name}/{INDEX}", needed), open_regular(path / INDEX) as file:
        raw = file.read(_MOST_INDEX + 1)
        if len(raw) > _MOST_INDEX:
            raise ValueError(f"more than {_MOST_INDEX} bytes")
        index = json.loads(raw)
        if not isinstance(index, dict) or index.get("format") != FORMAT:
            raise ValueError("another format")
        if index.get("format_version") != VERSION:
            raise ValueError(f"format version {index.get('format_version')!r}, not {VERSION}")
        shards = index["shards"]
        for shard in shards:
            name = shard["name"]
            if not isinstance(name, str) or Path(name).name != name or not name:
                raise ValueError(f"a shard named {name!r}")
            if type(shard["rows"]) is not int or shard["rows"] < 1:
                raise ValueError(f"{shard['rows']!r} rows in {name}")
        if not shards:
            raise ValueError("no shards")
    return index


def _part(file: Path, key: str) -> Source:
    """One array of a shard."""
    assert SHARD.open is not None
    return SHARD.open(file, {"key": key})


def _open(path: Path, options: Options) -> Source:
    index = _index(path)
    shards = []
    for shard in index["shards"]:
        file = path / shard["name"]
        if not file.is_file():
            needed = f"all {len(index['shards'])} shards that {INDEX} names"
            raise SourceError("source", f"{path.name} without {shard['name']}", needed)
        rows = _part(file, "activations")
        if rows.n_samples != shard["rows"]:
            found = f"{rows.n_samples} rows in {shard['name']} of {path.name}"
            raise SourceError("source", found, f"{shard['rows']}, as {INDEX} says")
        shards.append(rows)
    return Activations(path, index, shards)


READER = register(Reader("a store of activations", (), (), open=_open, folder=is_store, rank=-1))

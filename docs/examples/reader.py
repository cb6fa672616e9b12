"""A reader of one's own: `.jsonl`, one list of numbers per line, or one object that has it."""

import json
from pathlib import Path

import numpy as np

from shoal.data import Source
from shoal.data.readers import Options, Reader, array_source, reading
from shoal.parts import register


def open_lines(path: Path, options: Options) -> Source:
    """One sample per line; of objects, `open_source(path, field="spectrum")` takes one field."""
    field = options.get("field")
    with reading(path.name, "one list of numbers per line"):  # any failure is said in one line
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        rows = np.array([line if field is None else line[field] for line in lines], dtype=float)
    return array_source(rows, path.name)


READER = register("reader", "json-lines")(
    Reader("lists of numbers as JSON lines", (".jsonl",), options=("field",), open=open_lines)
)

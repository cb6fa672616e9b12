"""What others measured on the full size ("16k"): W = 4096 atoms for F = 16 384 features.

After 200 million rows unless said otherwise; SynthSAEBench, arXiv 2602.14687, and for the last two
what their authors report. None is where nothing is said.
"""

from __future__ import annotations

from typing import Any

_COLUMNS = ("solver", "mcc", "f1", "uniqueness", "explained_variance")
_ROWS = (
    ("matching pursuit SAE", 0.693, 0.446, 0.828, 0.835),
    ("L1", 0.604, 0.556, 0.898, 0.765),
    ("JumpReLU", 0.753, 0.732, 0.989, 0.795),
    ("BatchTopK", 0.757, 0.732, 0.984, 0.792),
    ("Matryoshka", 0.793, 0.879, 0.999, 0.779),
    ("LISTA-Matryoshka (reported)", None, 0.97, None, None),
    ("the same with leave-one-out (reported)", None, 0.989, None, None),
)

PUBLISHED: list[dict[str, Any]] = [dict(zip(_COLUMNS, row, strict=True)) for row in _ROWS]

"""Small run folders, as another room of shoal writes them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shoal.run_folder import SUMMED, sealed

KNOWN_TRUTH = {
    "recovered": {"0.9": 1.0, "0.95": 1.0, "0.99": 0.75},
    "mean_distance": 0.0123,
    "max_distance": 0.2,
    "mcc": 0.987,
    "mcc_chance": 0.321,
    "mcc_corrected": 0.981,
    "cosines": [0.999, 0.998, -0.995, 0.96],
    "permutation": [0, 1, 2, 3],
    "support": {"exact": 0.5, "signed_exact": 0.4, "precision": 0.9, "recall": 0.8, "f1": 0.85},
}


def history(records: int = 40) -> list[dict[str, Any]]:
    """A descent and a polish of one tenth of it."""
    rows = []
    for t in range(records):
        phase = "descent" if t < 0.9 * records else "polish"
        rows.append({"step": 10 * t, "phase": phase, "loss": 5 * 0.8**t + 1})
        rows[-1] |= {"explained_variance": 0.7 - 0.6 * 0.8**t, "dead": None}
    return rows


def configuration(m: int, n: int, shape: list[int] | None) -> dict[str, Any]:
    """A whole config.json, nothing left out."""
    return {
        "format": "shoal-run",
        "format_version": 1,
        "shoal_version": "0.1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "command": "shoal fit sample:patches --atoms 256",
        "versions": {"python": "3.11.2", "numpy": "2.0.0", "torch": "2.8.0"},
        "source": {
            "name": "sample:patches",
            "n_samples": 100000,
            "n_features": n,
            "feature_shape": shape,
            "dtype": "float32",
        },
        "model": {"n_components": m, "n_nonzero_coefs": 8, "a_new_key": "shown anyway"},
        "recipe": {"schedule": {"kind": "halving", "floor": 0.01}},
        "preprocessing": {"kind": "whiten", "roll_off": 0.5},
        "seconds": {"fit": 131.0},
        "diagnosis": {
            "n_samples": 20000,
            "l0": 8.0,
            "activation_fraction": 8.0 / m,
            "dead_atoms": [],
            "duplicate_atoms": [],
            "mse": 0.0123,
            "fvu": 0.29,
            "explained_variance": 0.71,
            "coherence": 0.456,
            "l0_histogram": [0, 10, 50, 20, 3],
            "codes": {
                "encoder": {"explained_variance": 0.71, "mse": 0.0123, "l0": 8.0},
                "least_squares": {"explained_variance": 0.83, "mse": 0.0077, "l0": 8.0},
            },
        },
        "recovery": None,
    }


OLD = Path(__file__).parent / "old_runs"
"""Runs of either kind as they were written before there were check sums, and what they gave."""


def old_run(kind: str, to: Path) -> Path:
    """A copy of one to spoil."""
    return Path(shutil.copytree(OLD / kind, to))


def of_format_1(folder: Path) -> Path:
    """`folder`, made what it would have been before there were check sums."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name in ("run_id", "files", "checksum"):
        config.pop(name, None)
    path.write_text(json.dumps({**config, "format_version": 1}))
    tensors = load_file(folder / "dictionary.safetensors")
    save_file(tensors, folder / "dictionary.safetensors")
    return folder


def resealed(folder: Path) -> Path:
    """`folder` with check sums that match what is in it now, as by someone who means it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    kept = {key: value for key, value in config.items() if key not in ("files", "checksum")}
    path.write_bytes(sealed(kept, {name: (folder / name).read_bytes() for name in SUMMED}))
    return folder


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run folder and return it; keywords replace its parts."""

    def write(
        m: int = 12,
        n: int = 9,
        shape: list[int] | None = None,
        *,
        name: str = "run",
        rows: list[dict[str, Any]] | None = None,
        change: Callable[[dict[str, Any]], Any] = lambda config: None,
        **tensors: np.ndarray | None,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(0)
        config = configuration(m, n, shape)
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
        lines = [json.dumps(row) + "\n" for row in (history() if rows is None else rows)]
        (folder / "history.jsonl").write_text("".join(lines))
        stored: dict[str, np.ndarray | None] = {
            "dictionary": rng.normal(size=(m, n)).astype(np.float32),
            "bias": np.zeros(m, np.float32),
            "atom_activation": np.linspace(0.01, 0.2, m).astype(np.float32),
            # Not in order, so that an order by energy differs from the stored one.
            "atom_energy": rng.permutation(np.linspace(0.1, 2, m)).astype(np.float32),
        }
        stored |= tensors
        kept = {key: value for key, value in stored.items() if value is not None}
        save_file(kept, folder / "dictionary.safetensors")
        return folder

    return write

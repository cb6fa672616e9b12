"""`.wav`: windows of a recording, one per row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from shoal.data.access import Source
from shoal.data.readers._base import Options, Reader, array_source, check_magic, reading, register
from shoal.vocabulary import SourceError, check_count

# Arbitrary: 16 ms at 16 kHz; half of a window is in the next one.
_WINDOW = 256


def _open(path: Path, options: Options) -> Source:
    check_magic(path, b"RIFF", "a .wav")
    window = check_count("window", options.get("window", _WINDOW))
    hop = check_count("hop", options.get("hop", max(1, window // 2)))
    import warnings

    from scipy.io import wavfile

    with reading(path.name, "a .wav file of whole numbers or floats"), warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of notes that aren't sound
        _, sound = wavfile.read(path)
    levels = _levels(sound)
    if levels.ndim == 2:
        levels = levels.mean(axis=1)
    if len(levels) < window:
        found = f"{path.name} of {len(levels)} samples"
        raise SourceError("source", found, f"at least one window of {window}: see window=")
    rows = np.lib.stride_tricks.sliding_window_view(levels, window)[::hop]
    return array_source(rows, path.name)


def _levels(sound: Any) -> Any:
    """Whole numbers as shares of full scale, as floats are."""
    if sound.dtype.kind == "f":
        return sound.astype(np.float32)
    if sound.dtype == np.uint8:
        return (sound.astype(np.float32) - 128) / 128
    return sound.astype(np.float32) / -float(np.iinfo(sound.dtype).min)


READER = register(Reader("a .wav file", (".wav",), ("window", "hop"), open=_open))
"""Stereo is averaged; ``window=`` and ``hop=`` are in samples of the recording."""

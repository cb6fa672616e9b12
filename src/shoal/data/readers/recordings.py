"""`.edf`, `.bdf` and `.fif`: windows of recordings of many channels, read by MNE."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import ChunkSource, Source
from shoal.data.readers._base import (
    Options,
    Reader,
    Stamp,
    check_magic,
    open_regular,
    reading,
    register,
    require,
)
from shoal.vocabulary import SourceError, check_count

# Arbitrary: a second at 128 Hz, with half of it in the next window; numbers read at once.
_WINDOW, _PIECE = 128, 2**20

_STARTS = {".edf": b"0       ", ".bdf": b"\xffBIOSEMI", ".fif": b"\x00\x00\x00\x64"}


def _open(path: Path, options: Options) -> Source:
    ending = path.suffix.lower()
    check_magic(path, _STARTS[ending], ending)
    window = check_count("window", options.get("window", _WINDOW))
    hop = check_count("hop", options.get("hop", max(1, window // 2)))
    mne = require("mne", path.name, "eeg")
    with open_regular(path) as plain:
        stamp = Stamp.of(plain)
    with reading(path.name, f"a complete {ending} recording"):
        raw = mne.io.read_raw(path, preload=False, verbose="error").pick("data", verbose="error")
        channels, samples = len(raw.ch_names), int(raw.n_times)
    if samples < window:
        found = f"{path.name} of {samples} samples"
        raise SourceError("source", found, f"at least one window of {window}: see window=")
    windows = (samples - window) // hop + 1
    at_once = max(1, _PIECE // (channels * window))
    starts = range(0, windows, at_once)

    def piece(number: int) -> Iterator[NDArray]:
        first, last = starts[number], min(starts[number] + at_once, windows)
        stamp.check(path, path.name)
        with reading(path.name, f"a complete {ending} recording"):
            levels = raw.get_data(start=first * hop, stop=(last - 1) * hop + window)
        cut = np.lib.stride_tricks.sliding_window_view(levels, window, axis=1)[:, ::hop]
        yield cut.transpose(1, 0, 2).reshape(last - first, channels * window)

    return ChunkSource(
        piece,
        [min(at_once, windows - start) for start in starts],
        channels * window,
        np.float64,
        name=path.name,
        feature_shape=(channels, window),
    )


READER = register(
    Reader("a recording of .edf, .bdf or .fif", tuple(_STARTS), ("window", "hop"), open=_open)
)
"""Channels of data alone (not of triggers, nor bad ones), in volts or tesla, one below the other;
``window=`` and ``hop=`` are in samples."""

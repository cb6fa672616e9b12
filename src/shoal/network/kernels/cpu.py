"""The sparse CPU kernel: a matrix product in tiles, and numba for all that follows.

With k of m units active, a step costs the encoder product and O(B k n) more. The product
itself is *screened* where that pays: taken in bfloat16 on processors with units for it (or in
float32 for float64 data), with the few entries that its error leaves open recomputed. The
result is that of exact decisions; :mod:`shoal.network.kernels.compiled` has the bound.

A batch is worked through in tiles of rows, so that scores stay in the cache and memory beyond
the result doesn't grow with the batch. Where many units are active (a smooth activation, a
ReLU early in its life) the dense reference is faster, and is what runs.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import binding
from numba import config
from numba.core.compiler_lock import global_compiler_lock
from torch import Tensor

from shoal.network import autoencoder
from shoal.network.activations import Activation, BatchTopK, Gate, JumpReLU, TopK, gate_of
from shoal.network.codes import SparseCodes
from shoal.network.kernels import compiled, pursuits, reference, untied
from shoal.network.kernels.reference import StepSums
from shoal.network.pursuit import (
    IterativeHardThresholding,
    OrthogonalMatchingPursuit,
    Pursuit,
    SubspacePursuit,
    ThresholdPursuit,
    dependence,
)
from shoal.processes import forked
from shoal.vocabulary import Parameters, active

__all__ = [
    "adam_",
    "coded_step",
    "corrected_encode",
    "encode",
    "encoder_step",
    "least_squares",
    "prefix_step",
    "screening",
    "sparse_encode",
    "step",
    "targeted_step",
]

DENSE = 1 / 8
"""With a larger fraction of active units the dense step is faster. Measured, as are the
numbers below (benchmarks/kernels.py)."""

# Multiplications of a tile's product: enough to make up for what starting a tile costs.
_TILE_WORK = 1 << 28
_TILE_ROWS = (512, 4096)
# Scores of a tile, whatever else: 16 MiB of bfloat16.
_TILE_SCORES = 1 << 23
# The same of a dense tile, of which the reference makes six arrays: 4 MiB of float32 each.
_DENSE_SCORES = 1 << 20
# Rows of a pursuit's tile: each reads its scores and many rows of the Gram matrix.
_PURSUIT_ROWS = 256
# Rows from which the activity of a threshold gate is told.
_PROBE_ROWS = 32
# Rows by which the least code of a batch is told, and the share of codes that is listed to be sure.
_PROBED, _SPARE = 128, 1.25
# With fewer features, screening saves less than it costs.
_SCREEN_FEATURES = 32
# A step is made in one call with so many multiplications at most in its product, so many rows at
# least and so many active units at most.
_SMALL_WORK, _SMALL_ROWS, _SMALL_K = 1 << 23, 4, 8
# With fewer units, screening in bfloat16 leaves many rows open: its bits are those of a product.
_SMALL_UNITS = 32
# A row of which more than this fraction of the units stay open is cheaper to redo as a product.
_OPEN = 1 / 8
# Where more than this fraction of a tile's rows had to be redone, screening stops.
_REDONE = 1 / 4

_log = logging.getLogger("shoal")

# A fork would cut a compilation short.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


@cache
def screening(dtype: torch.dtype, n_features: int) -> torch.dtype | None:
    """The precision in which the product is screened for data of `dtype`, or None."""
    if not _SCREEN_FEATURES <= n_features <= 1 << 22:  # the error bound holds up to there
        return None
    bf16 = "bf16" if platform.machine() in ("aarch64", "arm64") else "avx512bf16"
    if binding.get_host_cpu_features().get(bf16, False):
        return torch.bfloat16
    return torch.float32 if dtype == torch.float64 else None


def n_parts() -> int:
    """The threads that share the work: as many as torch has been given; one in a forked process."""
    if forked():
        return 1
    return min(torch.get_num_threads(), config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


def flat(tensor: Tensor) -> np.ndarray:
    """A contiguous tensor as a flat array; bfloat16 as its bits."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().reshape(-1).view(np.uint16)
    return tensor.numpy().reshape(-1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b^T in the precision of its operands, whatever torch.autocast says."""
    if not torch.is_autocast_enabled("cpu"):
        return a @ b.T
    with torch.autocast("cpu", enabled=False):
        return a @ b.T


@dataclass
class Codes:
    """The codes of a tile. Rows are listed up to `counts`, beyond it they hold anything."""

    indices: np.ndarray  # (T, capacity)
    values: np.ndarray
    counts: np.ndarray  # (T,)

    def padded(self) -> SparseCodes:
        """With zeros beyond the counts."""
        unused = np.arange(self.indices.shape[1]) >= self.counts[:, None]
        self.indices[unused], self.values[unused] = 0, 0
        return SparseCodes(torch.from_numpy(self.indices), torch.from_numpy(self.values))


class Encoder:
    """The encoder with one set of parameters: what is prepared once a batch."""

    def __init__(
        self, parameters: Parameters, gate: Gate, screen: torch.dtype | None, most: int
    ) -> None:
        weights = parameters.dictionary if parameters.encoder is None else parameters.encoder
        self.dictionary = weights.detach().contiguous()
        self.bias = parameters.bias.detach().contiguous()
        self.m, self.n = self.dictionary.shape
        self.gate, self.screen = gate, screen
        self.w, self.b = flat(self.dictionary), flat(self.bias)
        # The k that numba sees: 0 where all above the threshold pass.
        self.k = 0 if gate.k is None or gate.k >= self.m else gate.k
        # Entries of a row of codes. For a threshold gate a guess, which is raised where it fails.
        self.capacity = most if gate.k is not None else min(self.m, most + most // 2 + 4)
        if screen is not None:
            self.low_dictionary = self.dictionary.to(screen)
            self.low_bias = flat(self.bias.to(torch.float32))
            parts = n_parts()
            norms = np.empty((parts, 2))
            low = flat(self.low_dictionary)
            compiled.largest_norms(self.w, low, self.m, self.n, parts, norms)
            self.atoms = np.array([*norms.max(axis=0), np.abs(self.b).max()])

    def codes(self, tile: Tensor) -> Codes:
        """The codes of a contiguous tile (T, n), screened if that is still on."""
        if self.screen is None:
            return self._chosen(tile, None)
        found = self._chosen(tile, self.screen)
        open_ = np.flatnonzero(found.counts < 0)
        if len(open_):
            if len(open_) > _REDONE * len(tile):
                self.screen = None
            redone = self._chosen(tile[torch.from_numpy(open_)], None)
            width = max(redone.indices.shape[1], found.indices.shape[1])
            found = Codes(
                _widened(found.indices, width), _widened(found.values, width), found.counts
            )
            found.indices[open_] = _widened(redone.indices, width)
            found.values[open_] = _widened(redone.values, width)
            found.counts[open_] = redone.counts
        return found

    def _chosen(self, tile: Tensor, screen: torch.dtype | None) -> Codes:
        gate = self.gate
        if screen is None:
            low_tile, low_dictionary, low_bias = tile, self.dictionary, self.b
            atoms, limit = np.zeros(3), self.m
        else:
            low_tile, low_dictionary = tile.to(screen), self.low_dictionary
            low_bias, atoms = self.low_bias, self.atoms
            limit = max(int(_OPEN * self.m), 2 * self.k)
        slack = 2.0**-8 if screen == torch.bfloat16 else 0.0
        scores = _product(low_tile, low_dictionary)
        while True:
            found = Codes(
                np.empty((len(tile), self.capacity), np.int64),
                np.empty((len(tile), self.capacity), self.w.dtype),
                np.empty(len(tile), np.int64),
            )
            parts = n_parts()
            compiled.choose(
                flat(scores), low_bias, low_bias.dtype.type(slack), flat(low_tile), atoms,
                flat(tile), self.w, self.b, self.n, self.m,
                self.k, float(gate.threshold), gate.signed, screen is not None, limit, parts,
                found.indices, found.values, found.counts,
            )  # fmt: skip
            most = int(found.counts.max())
            if most <= self.capacity:
                return found
            self.capacity = min(self.m, most + most // 4)


class Pursuer:
    """A pursuit with one dictionary: what is prepared once a batch."""

    def __init__(self, parameters: Parameters, pursuit: Pursuit) -> None:
        self.dictionary = parameters.dictionary.detach().contiguous()
        self.m, n = self.dictionary.shape
        self.k = min(pursuit.k, self.m, n)
        self.pursuit = pursuit
        if isinstance(pursuit, ThresholdPursuit):
            threshold = parameters.threshold
            bar = torch.zeros_like(parameters.bias) if threshold is None else threshold
            self.threshold = flat(pursuit.share * bar.detach())
        self.gram = flat(_product(self.dictionary, self.dictionary))

    def codes(self, tile: Tensor) -> Codes:
        """The codes of a contiguous tile (T, n)."""
        pursuit, k = self.pursuit, self.k
        scores = flat(_product(tile, self.dictionary))
        real = scores.dtype.type
        found = Codes(
            np.empty((len(tile), k), np.int64),
            np.empty((len(tile), k), scores.dtype),
            np.empty(len(tile), np.int64),
        )
        out = found.indices, found.values, found.counts
        first = scores, self.gram, self.m, k, pursuit.signed
        dependent = real(dependence(tile.dtype))
        parts = n_parts()
        if isinstance(pursuit, SubspacePursuit):
            rows, limit = (flat(tile), tile.shape[1]), pursuit.max_iterations
            pursuits.subspace_pursuit(*rows, *first, limit, dependent, parts, *out)
        elif isinstance(pursuit, IterativeHardThresholding):
            limits = pursuit.max_iterations, real(pursuit.tolerance)
            pursuits.hard_thresholding(*first, *limits, parts, *out)
        elif isinstance(pursuit, ThresholdPursuit):
            bars = self.threshold, real(pursuit.shrinkage)
            pursuits.threshold_pursuit(*first, *bars, dependent, parts, *out)
        else:
            share = real(getattr(pursuit, "tolerance", 0.0))
            squares = flat(tile.square().sum(dim=1))
            pursuits.matching_pursuit(*first, dependent, squares, share, parts, *out)
        return found


_PURSUITS = (
    SubspacePursuit,
    IterativeHardThresholding,
    OrthogonalMatchingPursuit,
    ThresholdPursuit,
)


def _widened(listed: np.ndarray, width: int) -> np.ndarray:
    """A list (T, c) padded with zeros to (T, width)."""
    return np.pad(listed, ((0, 0), (0, width - listed.shape[1])))


def activity(
    parameters: Parameters, data: Tensor, activation: Activation, gate: Gate
) -> tuple[float, int]:
    """The fraction of active units and the most in a row: known of k, else of a few rows."""
    m = parameters.dictionary.shape[0]
    if gate.k is not None:
        return gate.k / m, min(gate.k, m)
    rows = min(_PROBE_ROWS, 1 + len(data) // 16)
    probe = data[:: max(1, len(data) // rows)][:rows]
    counts = active(reference.encode(parameters, probe, activation)).sum(dim=1)
    return float(counts.sum()) / (len(probe) * m), int(counts.max())


def tile_rows(m: int, n: int) -> int:
    """Rows of a tile, for m units and n features."""
    low, high = _TILE_ROWS
    rows = min(high, max(low, _TILE_WORK // (m * n)))
    return max(1, min(rows, _TILE_SCORES // m))


def _within_a_batch(
    parameters: Parameters, data: Tensor, activation: BatchTopK, screen: torch.dtype | None
) -> list[tuple[slice, Tensor, Codes]] | None:
    """Tiles and their codes, the k B largest of the batch; None where they are too many.

    Some of the rows say above which score so many lie; what is listed above a little less holds
    them, and is little to choose from.
    """
    m, wanted = len(parameters.bias), activation.k * len(data)
    if activation.k > DENSE * m:
        return None
    probe = data[:: max(1, len(data) // _PROBED)][:_PROBED]
    scores = autoencoder.preactivation(parameters, probe).flatten()
    share = 1.0 if probe is data else _SPARE
    while True:
        most = min(int(share * activation.k * len(probe)) + 1, scores.numel())
        bar = max(0.0, float(scores.topk(most, sorted=False).values.min()))
        if most == scores.numel():
            bar = 0.0
        gate = Gate(None, bar, signed=False)
        encoder = Encoder(parameters, gate, screen, int(share * activation.k))
        tiles = []
        for start in range(0, len(data), tile_rows(m, encoder.n)):
            where = slice(start, start + tile_rows(m, encoder.n))
            tile = data[where].contiguous()
            tiles.append((where, tile, encoder.codes(tile)))
        found = sum(int(codes.counts.sum()) for _, _, codes in tiles)
        if found >= wanted or bar == 0.0:
            break
        share *= 4
    if found > wanted:
        _keep_largest([codes for _, _, codes in tiles], wanted)
    return tiles


def _keep_largest(tiles: list[Codes], wanted: int) -> None:
    """Of the codes of all tiles the largest, in place: so many, ties to the first rows."""
    listed = [np.arange(each.indices.shape[1]) < each.counts[:, None] for each in tiles]
    values = np.concatenate([each.values[on] for each, on in zip(tiles, listed, strict=True)])
    level = np.partition(values, len(values) - wanted)[len(values) - wanted]
    left = wanted - int((values > level).sum())
    for codes, on in zip(tiles, listed, strict=True):
        equal = ((codes.values == level) & on).sum(axis=1)
        before = np.cumsum(equal) - equal
        ties = np.clip(left - before, 0, equal)
        left -= int(ties.sum())
        parts = n_parts()
        untied.above(codes.indices, codes.values, codes.counts, level, ties, parts)


def _jumps(activation: object) -> bool:
    """Whether it has a threshold for each unit that scores, not magnitudes, are compared with."""
    return type(activation) is JumpReLU and not activation.signed


class Jumps:
    """Codes above a threshold for each unit: what is prepared once a batch.

    They are those of scores z - bar above 0, with the bar added again. The bar is the threshold,
    or half a `window` below it where thresholds are to learn from what is near.
    """

    def __init__(
        self, parameters: Parameters, window: float, screen: torch.dtype | None, most: int
    ) -> None:
        assert parameters.threshold is not None
        threshold = parameters.threshold.detach()
        bar = threshold - window / 2 if window else threshold.clamp_min(0.0)
        lowered = parameters._replace(bias=parameters.bias - bar)
        self.bar = flat(bar.contiguous())
        self.encoder = Encoder(lowered, Gate(None, 0.0, signed=False), screen, most)

    def codes(self, tile: Tensor) -> Codes:
        """The codes of a contiguous tile (T, n)."""
        found = self.encoder.codes(tile)
        listed = np.arange(found.indices.shape[1]) < found.counts[:, None]
        found.values[listed] += self.bar[found.indices[listed]]
        return found


def _tiles(
    parameters: Parameters,
    data: Tensor,
    activation: Activation | Pursuit,
    screen: torch.dtype | None,
) -> Iterator[tuple[slice, Tensor, Codes | None]]:
    """Tiles of the data and their codes; None where they are left to the reference."""
    if len({data.dtype, *(part.dtype for part in parameters if part is not None)}) > 1:
        raise RuntimeError(f"data of {data.dtype}, but parameters of {parameters[0].dtype}")
    if len(data) == 0:
        return
    gate, data = gate_of(activation), data.detach()
    m, n = parameters.dictionary.shape
    if type(activation) is BatchTopK:
        shared = _within_a_batch(parameters, data, activation, screen)
        yield from [(slice(0, len(data)), data, None)] if shared is None else shared
        return
    rows = tile_rows(m, n)
    encoder: Encoder | Pursuer | Jumps | None = None
    if isinstance(activation, Pursuit):
        if type(activation) in _PURSUITS:  # by exact type: a subclass may do anything
            encoder, rows = Pursuer(parameters, activation), min(rows, _PURSUIT_ROWS)
    elif _jumps(activation):
        fraction, most = activity(parameters, data, activation, Gate(None, 0.0, signed=False))
        if fraction <= DENSE:
            encoder = Jumps(parameters, 0.0, screen, most)
    elif gate is not None:
        fraction, most = activity(parameters, data, activation, gate)
        if fraction <= DENSE:
            encoder = Encoder(parameters, gate, screen, most)
    if isinstance(encoder, Pursuer) and parameters.offset is not None:
        data = data - parameters.offset  # the reference takes it away itself
    if encoder is None:
        rows = min(rows, max(_TILE_ROWS[0], _DENSE_SCORES // m))
    for start in range(0, len(data), rows):
        where = slice(start, start + rows)
        tile = data[where].contiguous()
        codes = encoder.codes(tile) if encoder is not None else None
        crowded = codes is not None and codes.counts.sum() > DENSE * len(tile) * m
        if crowded and isinstance(encoder, (Encoder, Jumps)):
            encoder = None  # from the next tile on
        yield where, tile, codes


def _screen(data: Tensor, screen: torch.dtype | str | None) -> torch.dtype | None:
    if isinstance(screen, str):
        return screening(data.dtype, data.shape[1])
    return screen


class Sums:
    """The sums of a step, to which tiles are added."""

    def __init__(
        self, parameters: Parameters, n_samples: int, *, tied: bool = True, held: bool = False
    ) -> None:
        self.tied, self.held = tied, held
        self.parameters = parameters.map(lambda part: part.detach().contiguous())
        self.sums = StepSums.zeros(self.parameters, n_samples)
        self.counts = torch.zeros_like(self.parameters.bias, dtype=torch.int64)

    def add(self, where: slice, tile: Tensor, codes: Codes) -> None:
        """The rows `where`, which are `tile`, with their codes."""
        m, n = self.parameters.dictionary.shape
        sums = self.sums
        if self.tied and not self.parameters.tied:
            self._add_untied(where, tile, codes)
            return
        parts = n_parts()
        compiled.accumulate(
            flat(tile), flat(self.parameters.dictionary), n, m,
            codes.indices, codes.values, codes.counts, self.tied, parts,
            flat(sums.losses[where]), flat(sums.dictionary), flat(sums.bias),
            flat(self.counts), flat(sums.energy),
        )  # fmt: skip
        self._add_offset(tile, codes)

    def _add_untied(self, where: slice, tile: Tensor, codes: Codes) -> None:
        """The same where the encoder has weights of its own, or the decoder an offset."""
        offset = self.parameters.offset
        self.add_targeted(where, tile, tile if offset is None else tile - offset, codes)

    def add_targeted(self, where: slice, tile: Tensor, target: Tensor, codes: Codes) -> None:
        """The same where `target` is to be rebuilt by the dictionary, an offset taken off."""
        parameters, sums = self.parameters, self.sums
        m, n = parameters.dictionary.shape
        # Tied, what goes through the encoder is a part of the dictionary's gradient.
        encoder = sums.dictionary if sums.encoder is None else sums.encoder
        parts = n_parts()
        untied.accumulate(
            flat(tile), flat(target), flat(parameters.dictionary), n, m,
            codes.indices, codes.values, codes.counts, True, not self.held, parts,
            flat(sums.losses[where]), flat(encoder), flat(sums.dictionary), flat(sums.bias),
            flat(self.counts), flat(sums.energy),
        )  # fmt: skip
        self._add_offset(target, codes)

    def add_nested(
        self, where: slice, tile: Tensor, codes: Codes, group: np.ndarray, groups: int
    ) -> None:
        """:meth:`add` for the mean of the losses by prefixes, to which units belong by `group`."""
        parameters, sums = self.parameters, self.sums
        m, n = parameters.dictionary.shape
        target = tile if parameters.offset is None else tile - parameters.offset
        encoder = sums.dictionary if sums.encoder is None else sums.encoder
        felt = np.empty((len(tile), groups, n), codes.values.dtype)
        parts = n_parts()
        untied.nested(
            flat(tile), flat(target), flat(parameters.dictionary), n, m,
            codes.indices, codes.values, codes.counts, group, felt, parts,
            flat(sums.losses[where]), flat(encoder), flat(sums.dictionary), flat(sums.bias),
            flat(self.counts), flat(sums.energy),
        )  # fmt: skip
        if sums.offset is not None:
            sums.offset.sub_(torch.from_numpy(felt[:, 0].sum(axis=0)))

    def _add_offset(self, target: Tensor, codes: Codes) -> None:
        """What is left, summed over rows."""
        offset, m = self.sums.offset, len(self.parameters.bias)
        if offset is not None:
            listed = np.arange(codes.indices.shape[1]) < codes.counts[:, None]
            totals = np.bincount(codes.indices[listed], codes.values[listed], minlength=m)
            total = torch.from_numpy(totals).to(target)
            offset.add_(total @ self.parameters.dictionary - target.sum(dim=0))

    def result(self) -> StepSums:
        """The sums; nothing is to be added after it."""
        self.sums.counts.add_(self.counts)
        return self.sums


@torch.no_grad()
def step(
    parameters: Parameters,
    data: Tensor,
    activation: Activation | Pursuit,
    *,
    screen: torch.dtype | str | None = "auto",
) -> StepSums:
    """Loss, gradient and activity of a batch (B, n), summed over its samples.

    `screen` is the precision of the screened product, None for none; "auto" is what
    :func:`screening` says.
    """
    return _step(parameters, data, activation, screen, held=False)


@torch.no_grad()
def encoder_step(
    parameters: Parameters, data: Tensor, activation: Activation | Pursuit
) -> StepSums:
    """The sums of :func:`step` without the dictionary's gradient, where it is held."""
    return _step(parameters, data, activation, "auto", held=True)


def _step(
    parameters: Parameters,
    data: Tensor,
    activation: Activation | Pursuit,
    screen: torch.dtype | str | None,
    *,
    held: bool,
) -> StepSums:
    if screen == "auto" and (found := _small_step(parameters, data, activation)) is not None:
        return found
    if _jumps(activation):
        return _jump_step(parameters, data.detach(), activation, screen, held=held)
    sums = Sums(parameters, len(data), tied=not isinstance(activation, Pursuit), held=held)
    for where, tile, codes in _tiles(parameters, data, activation, _screen(data, screen)):
        if codes is None:
            sums.sums.add_(where, reference.step(parameters, tile, activation))
        else:
            sums.add(where, tile, codes)
    return sums.result()


def _small_step(
    parameters: Parameters, data: Tensor, activation: Activation | Pursuit
) -> StepSums | None:
    """The same in one compiled call, where it is so little that all else would take longer."""
    if type(activation) is not TopK or not parameters.tied or data.dtype != torch.float32:
        return None
    dictionary, bias = parameters.dictionary, parameters.bias
    (m, n), rows, k = dictionary.shape, len(data), activation.k
    if not _SMALL_ROWS <= rows <= _SMALL_WORK // (m * n) or k > min(_SMALL_K, DENSE * m):
        return None
    if dictionary.dtype != data.dtype or bias.dtype != data.dtype or n < _SCREEN_FEATURES:
        return None
    if m < _SMALL_UNITS:
        return None
    gate = gate_of(activation)
    assert gate is not None
    losses, gradient = np.empty(rows, np.float32), np.empty((m, n), np.float32)
    slope, active, energy = (np.empty(m, np.float32) for _ in range(3))
    resolved = compiled.small_step(
        _plain(data), _plain(dictionary), _plain(bias), n, m, k, float(gate.threshold), gate.signed,
        losses, gradient.reshape(-1), slope, active, energy,
    )  # fmt: skip
    if not resolved:
        return None
    own = torch.from_numpy
    return StepSums(own(gradient), own(slope), own(losses), own(active), own(energy), rows)


def _plain(tensor: Tensor) -> np.ndarray:
    """A tensor as a flat array."""
    return tensor.detach().numpy().reshape(-1)


def _jump_step(
    parameters: Parameters,
    data: Tensor,
    activation: Any,
    screen: torch.dtype | str | None,
    *,
    held: bool,
) -> StepSums:
    """The sums of a step whose thresholds learn from the scores near them."""
    sums = Sums(parameters, len(data), held=held)
    threshold, window = sums.parameters.threshold, activation.window
    assert threshold is not None
    assert sums.sums.threshold is not None
    assert sums.sums.near is not None
    (m, n), offset = sums.parameters.dictionary.shape, sums.parameters.offset
    lowered = parameters._replace(threshold=(threshold - window / 2).clamp_min(0.0))
    gate = Gate(None, 0.0, signed=False)
    fraction, most = activity(lowered, data, activation, gate)
    jumps = Jumps(sums.parameters, window, _screen(data, screen), most)
    rows = tile_rows(m, n)
    for start in range(0, len(data), rows):
        where = slice(start, start + rows)
        tile = data[where].contiguous()
        if fraction > DENSE:
            sums.sums.add_(where, reference.step(parameters, tile, activation))
            continue
        listed = jumps.codes(tile)
        fraction = listed.counts.sum() / (len(tile) * m)
        codes = Codes(*(np.empty_like(each) for each in vars(listed).values()))
        target = tile if offset is None else tile - offset
        parts = n_parts()
        slopes, crowd = (np.empty((parts, m), listed.values.dtype) for _ in range(2))
        untied.near(
            flat(tile), flat(target), flat(sums.parameters.dictionary), n, m,
            listed.indices, listed.values, listed.counts, flat(threshold),
            listed.values.dtype.type(window), parts,
            codes.indices, codes.values, codes.counts, slopes, crowd,
        )  # fmt: skip
        pulled, near = (torch.from_numpy(each.sum(axis=0)) / window for each in (slopes, crowd))
        sums.sums.threshold.add_(pulled * threshold.clamp_min(0.0))
        sums.sums.near.add_(near)
        sums.add(where, tile, codes)
    return sums.result()


@torch.no_grad()
def prefix_step(
    parameters: Parameters, data: Tensor, activation: Activation, sizes: tuple[int, ...]
) -> StepSums:
    """The sums of the mean of the losses by the first atoms, so many as `sizes` says."""
    sums = Sums(parameters, len(data))
    units = torch.arange(len(parameters.bias))
    group = torch.bucketize(units, torch.tensor(sizes), right=True).numpy()
    for where, tile, codes in _tiles(parameters, data, activation, _screen(data, "auto")):
        if codes is None:
            part = reference.prefix_step(parameters, tile, activation, sizes)
            sums.sums.add_(where, part)
        else:
            sums.add_nested(where, tile, codes, group, len(sizes))
    return sums.result()


@torch.no_grad()
def coded_step(parameters: Parameters, data: Tensor, codes: SparseCodes) -> StepSums:
    """The sums of :func:`step` for codes that are given, and don't depend on the atoms."""
    sums = Sums(parameters, len(data), tied=False)
    for where, listed in _listed(parameters, codes):
        sums.add(where, data[where].detach().contiguous(), listed)
    return sums.result()


@torch.no_grad()
def targeted_step(
    parameters: Parameters, data: Tensor, target: Tensor, codes: SparseCodes
) -> StepSums:
    """The sums of :func:`step` for codes of `data`, where other units rebuild the rest of it."""
    sums = Sums(parameters, len(data))
    for where, listed in _listed(parameters, codes):
        tile, left = (part[where].detach().contiguous() for part in (data, target))
        sums.add_targeted(where, tile, left, listed)
    return sums.result()


def _listed(parameters: Parameters, codes: SparseCodes) -> Iterator[tuple[slice, Codes]]:
    """Codes that are given, tile by tile."""
    indices, values = (part.detach().contiguous() for part in codes)
    on = active(values)
    if not bool((on[:, :-1] | ~on[:, 1:]).all()):  # zeros to the right
        order = (~on).to(torch.uint8).argsort(dim=1, stable=True)
        indices, values = indices.gather(1, order), values.gather(1, order)
    counts = on.sum(dim=1).numpy()
    rows = tile_rows(*parameters.dictionary.shape)
    for start in range(0, len(values), rows):
        where = slice(start, start + rows)
        yield where, Codes(indices[where].numpy(), values[where].numpy(), counts[where])


@torch.no_grad()
def sparse_encode(
    parameters: Parameters,
    data: Tensor,
    activation: Activation | Pursuit,
    *,
    screen: torch.dtype | str | None = "auto",
) -> SparseCodes:
    """The codes of a batch (B, n) without their zeros, units in ascending order."""
    parts = [
        reference.sparse_encode(parameters, tile, activation) if codes is None else codes.padded()
        for _, tile, codes in _tiles(parameters, data, activation, _screen(data, screen))
    ]
    if len(parts) == 1:
        return parts[0]
    width = max((part.indices.shape[1] for part in parts), default=1)
    indices = data.new_zeros(len(data), width, dtype=torch.int64)
    values = data.new_zeros(len(data), width)
    start = 0
    for part in parts:
        rows, used = part.indices.shape
        indices[start : start + rows, :used] = part.indices
        values[start : start + rows, :used] = part.values
        start += rows
    return SparseCodes(indices, values)


@torch.no_grad()
def least_squares(
    dictionary: Tensor, data: Tensor, support: SparseCodes, *, signed: bool = True
) -> SparseCodes:
    """The coefficients of data (B, n) on the active units of `support`."""
    (m, n), k = dictionary.shape, support.indices.shape[1]
    dictionary, data = dictionary.detach().contiguous(), data.detach().contiguous()
    # All products of atoms at once where that is fewer than those of all the rows.
    whole = m * m <= len(data) * k * k
    gram = flat(_product(dictionary, dictionary)) if whole else np.empty(0, flat(data).dtype)
    indices, values = (part.detach().contiguous().numpy() for part in support)
    found = np.empty(values.shape, flat(data).dtype)
    dependent = flat(data).dtype.type(dependence(data.dtype))
    parts = n_parts()
    pursuits.least_squares(
        flat(data), flat(dictionary), n, gram, m, indices, values, signed, dependent, parts,
        found,
    )  # fmt: skip
    return SparseCodes(support.indices, torch.from_numpy(found))


@torch.no_grad()
def encode(
    parameters: Parameters,
    data: Tensor,
    activation: Activation | Pursuit,
    *,
    screen: torch.dtype | str | None = "auto",
) -> Tensor:
    """The codes (B, m) of a batch (B, n)."""
    m = parameters.dictionary.shape[0]
    dense = data.new_empty(len(data), m)
    for where, tile, codes in _tiles(parameters, data, activation, _screen(data, screen)):
        if codes is None:
            dense[where] = reference.encode(parameters, tile, activation)
        else:
            dense[where] = codes.padded().dense(m)
    return dense


@torch.no_grad()
def adam_(
    part: Tensor,
    slope: Tensor,
    memory: tuple[Tensor, Tensor],
    keep: tuple[float, float],
    rate: float,
    correction: float,
    epsilon: float,
    scale: float,
) -> None:
    """One step of Adam in place, in one pass over its memory."""
    mean, square = memory
    parts = n_parts()
    untied.adam(
        flat(part), flat(slope), flat(mean), flat(square), *keep, rate, 1 / correction,
        epsilon, scale, parts,
    )  # fmt: skip


@torch.no_grad()
def corrected_encode(
    parameters: Parameters, data: Tensor, activation: TopK, n_steps: int, step: float
) -> SparseCodes:
    """The k-largest codes of a batch (B, n), corrected `n_steps` times; units ascending."""
    weights = parameters.dictionary if parameters.encoder is None else parameters.encoder
    weights, dictionary = weights.detach().contiguous(), parameters.dictionary.detach()
    (m, n), k = dictionary.shape, min(activation.k, len(dictionary))
    bias = flat(parameters.bias.detach().contiguous())
    gram = flat(_product(dictionary.contiguous(), weights))
    indices = np.zeros((len(data), k), np.int64)
    values = np.zeros((len(data), k), bias.dtype)
    rows = min(tile_rows(m, n), _PURSUIT_ROWS)
    for start in range(0, len(data), rows):
        where = slice(start, start + rows)
        tile = data[where].detach().contiguous()
        counts = np.empty(len(tile), np.int64)
        parts = n_parts()
        untied.corrected(
            flat(_product(tile, weights)), bias, gram, m, k, activation.signed, n_steps, step,
            parts, indices[where], values[where], counts,
        )  # fmt: skip
        found = Codes(indices[where], values[where], counts).padded()
        indices[where], values[where] = found.indices.numpy(), found.values.numpy()
    return SparseCodes(torch.from_numpy(indices), torch.from_numpy(values))

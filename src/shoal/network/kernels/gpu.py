"""The kernel for CUDA devices: one screened encoder product, then work on active units only.

A step costs one product y D^T in bfloat16 on the tensor cores, one pass over its result to
find the units that may be active, and two passes over those: one by rows, for their exact codes,
the residual and e = <r, D_i>, and one by atoms, for their sums.

**The decision is exact.** The coarse product only says which units can't be active: those
farther from the decision than a proven bound on its error (:class:`_Product`). The others,
the candidates, get their pre-activation again, by short chains of float32 sums that are added in
float64; and where the bound on the error of *that* leaves a decision of a row open, by float64
sums. So the support is the one of float64 arithmetic, ties to the lower unit, however coarse the
product was, and doesn't depend on how the batch is cut.

**Nobody waits.** With k-largest codes every array of a step has a size that is known before it:
a row has `_Encoder.room` places for candidates and k for codes. A row with more candidates, or
one that has no bound (not finite, or near overflow), is settled on the device, by float64 sums
of all its candidates. So a step is a few launches that the host doesn't wait for, and a CUDA graph
of them is replayed where a shape comes again (:mod:`shoal.network.kernels.recorded`). A threshold
can leave any number of units active: there the host asks, once a tile, how many.

**Tiles.** Rows are treated in tiles that need at most about `TILE_BYTES` besides the arrays
of the size of the dictionary, so that memory doesn't grow with the batch. A tile of which
more than the share `DENSE` is active, or one of whose rows more than twice that, is left to the
dense reference.

All loops over rows are Triton kernels (:mod:`shoal.network.kernels.gpu_compiled`). They use no
atomics: bits are the same every time. Data in half precision (bfloat16, float16) are read as they
are, and all that is made of them is float32. Activations that aren't gates are the reference's.

**Pursuits** ask again and again what residuals correlate with most: that is a k-largest code, and
the same product and kernels find it (:class:`_Look`). No m by m matrix is made, and none of the
size of the scores but the coarse ones; rows whose residual gets no smaller are left out of the next
look. Least squares on a row's few atoms are torch's. Iterative hard thresholding is the
reference's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from shoal.network.activations import Activation, Gate, TopK, gate_of
from shoal.network.codes import SparseCodes
from shoal.network.kernels import gpu_compiled, recorded, reference
from shoal.network.kernels.reference import StepSums
from shoal.network.pursuit import (
    Look,
    OrthogonalMatchingPursuit,
    Pursuit,
    SubspacePursuit,
    ThresholdPursuit,
)
from shoal.vocabulary import Parameters, active

__all__ = ["adam_", "coded_step", "corrected_encode", "encode", "sparse_encode", "step"]

adam_ = reference.adam_
corrected_encode = reference.corrected_encode

# Working memory of a tile, about: some 8000 rows of 768 features and 24576 atoms, of which the
# second cache holds the data and the residuals, 50 MB, for the sums of atoms.
TILE_BYTES = 2**29
# Active share of a tile above which it is done dense: a guess at where gathers, which are bound
# by memory, cost more than the products they save.
DENSE = 1 / 8

_HALVES = (torch.bfloat16, torch.float16)


@torch.no_grad()
def step(parameters: Parameters, data: Tensor, activation: Activation | Pursuit) -> StepSums:
    """Loss, gradient and activity of a batch (B, n), summed over its samples."""
    if isinstance(activation, Pursuit) and _runs(data):
        return coded_step(parameters, data, sparse_encode(parameters, data, activation))
    parameters, data, gate = _prepared(parameters, data, activation)
    if gate is None:
        return reference.step(parameters, data, activation)
    with torch.cuda.device_of(data):  # Triton launches on the current device
        encoder = _Encoder(parameters, activation, gate, data)
        if gate.k is None or encoder.is_dense or not _records(data):
            return _step(encoder, data)

        def sums(dictionary: Tensor, bias: Tensor, batch: Tensor) -> tuple[Tensor, ...]:
            again = _Encoder(Parameters(dictionary, bias), activation, gate, batch)
            return tuple(_step(again, batch)[:5])

        kind = (gate, encoder.precision, TILE_BYTES)
        found = recorded.call(kind, sums, (*parameters[:2], data))
    dictionary, bias, losses, counts, energy = found
    return StepSums(dictionary, bias, losses, counts, energy, len(data))


def _runs(data: Tensor) -> bool:
    """Whether Triton runs on it: on the device, or in its interpreter."""
    return data.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"


def _records(data: Tensor) -> bool:
    return data.is_cuda and len(data) > 0


def _step(encoder: _Encoder, data: Tensor) -> StepSums:
    parameters = encoder.parameters
    sums = StepSums.zeros(parameters, len(data))
    for where, tile, found in encoder.tiles(data, sums.losses):
        if found is None:
            sums.add_(where, reference.step(parameters, tile, encoder.activation))
        else:
            gpu_compiled.atoms(tile, *found, sums.dictionary, sums.bias, sums.counts, sums.energy)
    return sums


@torch.no_grad()
def sparse_encode(
    parameters: Parameters, data: Tensor, activation: Activation | Pursuit
) -> SparseCodes:
    """The codes of a batch (B, n) without their zeros, units in ascending order.

    There are as many columns as the fullest row has active units, at least 1; shorter rows
    end in zeros at unit 0.
    """
    parameters, data, gate = _prepared(parameters, data, activation)
    if isinstance(activation, Pursuit) and _is_fast(parameters, activation) and _runs(data):
        return _pursued(parameters, data, activation)
    if gate is None:
        return reference.sparse_encode(parameters, data, activation)
    parts = []
    with torch.cuda.device_of(data):
        for _, tile, found in _Encoder(parameters, activation, gate, data).tiles(data):
            if found is None:
                parts.append(reference.sparse_encode(parameters, tile, activation))
            else:
                parts.append(SparseCodes(found.units, found.values))
    counts = [active(part.values).sum(dim=1).amax() for part in parts]
    width = max(1, int(torch.stack(counts).amax())) if counts else 1
    indices = torch.zeros(len(data), width, dtype=torch.long, device=data.device)
    values = parameters.bias.new_zeros(len(data), width)
    done = 0
    for part in parts:
        here = part.values[:, :width]
        where = slice(done, done + len(here)), slice(here.shape[1])
        indices[where] = torch.where(active(here), part.indices[:, :width], 0).long()
        values[where] = here
        done += len(here)
    return SparseCodes(indices, values)


@torch.no_grad()
def encode(parameters: Parameters, data: Tensor, activation: Activation | Pursuit) -> Tensor:
    """The code x = sigma(y D^T + b) of data (B, n): shape (B, m)."""
    parameters, data, gate = _prepared(parameters, data, activation)
    if isinstance(activation, Pursuit) and _is_fast(parameters, activation) and _runs(data):
        return _pursued(parameters, data, activation).dense(len(parameters.bias))
    if gate is None:
        return reference.encode(parameters, data, activation)
    n_atoms = len(parameters.bias)
    dense = parameters.bias.new_zeros(len(data), n_atoms)
    with torch.cuda.device_of(data):
        for where, tile, found in _Encoder(parameters, activation, gate, data).tiles(data):
            if found is None:
                dense[where] = reference.encode(parameters, tile, activation)
            else:  # where there is no unit 0 is added to that of unit 0
                dense[where].scatter_add_(1, found.units.long() % n_atoms, found.values)
    return dense


@torch.no_grad()
def coded_step(parameters: Parameters, data: Tensor, codes: SparseCodes) -> StepSums:
    """The sums of :func:`step` for codes that are given, and don't depend on the atoms."""
    parameters, data, _ = _prepared(parameters, data, None)
    if not _runs(data):
        return reference.coded_step(parameters, data, codes)
    dictionary, (m, n) = parameters.dictionary, parameters.dictionary.shape
    codes = SparseCodes(codes.indices, codes.values.to(dictionary.dtype))
    sums = StepSums.zeros(parameters, len(data))
    rows = max(1, TILE_BYTES // (8 * dictionary.element_size() * n * (codes.values.shape[1] + 4)))
    with torch.cuda.device_of(data):
        for start in range(0, len(data), rows):
            where = slice(start, start + rows)
            part = SparseCodes(*(each[where] for each in codes))
            residual = data[where] - part.reconstruct(dictionary)
            if parameters.offset is not None and sums.offset is not None:
                residual -= parameters.offset
                sums.offset.sub_(residual.sum(dim=0))
            torch.sum(residual.square(), dim=1, out=sums.losses[where])
            units = torch.where(active(part.values), part.indices, m)
            gpu_compiled.atoms(
                data[where], units, part.values.contiguous(), torch.zeros_like(part.values),
                residual, dictionary=sums.dictionary, bias=sums.bias, counts=sums.counts,
                energy=sums.energy,
            )  # fmt: skip
    sums.losses.mul_(0.5)
    return sums


def _prepared(
    parameters: Parameters, data: Tensor, activation: Activation | Pursuit | None
) -> tuple[Parameters, Tensor, Gate | None]:
    """Parameters and data as the kernels take them, and the gate: None leaves it to the reference.

    Halves are widened, but for data that a kernel reads as they are.
    """
    kind = torch.promote_types(parameters.bias.dtype, data.dtype)
    kind = torch.float32 if kind in _HALVES else kind
    gate = gate_of(activation)
    if kind not in (torch.float32, torch.float64) or not _runs(data):
        gate = None
    if gate is None or data.dtype not in _HALVES:
        data = data.to(kind)
    return parameters.map(lambda part: part.to(kind).contiguous()), data.contiguous(), gate


# --- the active units, tile by tile ----------------------------------------------------------


class _Found(NamedTuple):
    """The codes of a tile: units (T, w) ascend, and are m where there are no more."""

    units: Tensor
    values: Tensor  # (T, w)
    back: Tensor  # (T, w) e = <r, D_i>, in a step
    residual: Tensor  # (T, n) in a step


class _Encoder:
    """Finds the active units of tiles, and in a step what follows from them."""

    def __init__(self, parameters: Parameters, activation: Any, gate: Gate, data: Tensor) -> None:
        self.parameters, self.activation, self.gate = parameters, activation, gate
        n_atoms = len(parameters.bias)
        self.k = 0 if gate.k is None else min(gate.k, n_atoms)
        self.is_dense = self.k > DENSE * n_atoms
        # Candidates a row may have. Arbitrary: with k-largest, four times as many as are wanted
        # (it takes two or so); with a threshold, twice what makes a tile dense, as rows differ.
        self.room = min(n_atoms, 64 + (4 * self.k or int(2 * DENSE * n_atoms)))
        self.precision = _precision(data)
        self.product: _Product | None = None
        self.floor = _float32_below(gate.threshold)

    def n_rows(self, data: Tensor) -> int:
        """How many rows need about TILE_BYTES."""
        n_atoms, n_features = self.parameters.dictionary.shape
        if self.is_dense:  # the reference holds about six arrays of the size of the scores
            return max(1, TILE_BYTES // (6 * self.parameters.bias.element_size() * n_atoms))
        # Places of candidates have 12 bytes, codes some 50 with what sorts them.
        size = self.precision.itemsize * n_atoms + 12 * self.room + 16 * n_features
        size += 50 * (self.k or int(DENSE * n_atoms))
        rows = max(1, TILE_BYTES // size)
        return -(-len(data) // -(-len(data) // rows))  # tiles of one size

    def tiles(
        self, data: Tensor, losses: Tensor | None = None
    ) -> Iterator[tuple[slice, Tensor, _Found | None]]:
        """Rows, their data and their codes; None asks for dense. In a step `losses` are written."""
        if len(data) == 0:
            return
        bias = self.parameters.bias
        product = self.product
        if product is None and not self.is_dense:
            product = self.product = _Product(self.parameters, self.precision)
        threshold = bias.new_full((1,), self.gate.threshold, dtype=torch.float64)
        start = 0
        for tile in data.split(self.n_rows(data)):
            where = slice(start, start + len(tile))
            start += len(tile)
            found = None
            if product is not None:
                felt = None if losses is None else losses[where]
                found = self._codes(product, tile, threshold, felt)
            yield where, tile if found else tile.to(bias.dtype), found

    def _codes(
        self, product: _Product, tile: Tensor, threshold: Tensor, losses: Tensor | None
    ) -> _Found | None:
        dictionary, bias = self.parameters[:2]
        k, signed, width = self.k, self.gate.signed, self.k
        scores, slack, short = product(tile)
        listed = gpu_compiled.mark(
            scores, bias, slack, product.share, k, signed, self.floor, self.room
        )
        gpu_compiled.settle(
            tile, dictionary, bias, scores, slack, product.share, threshold, k, signed, listed
        )
        if not k:
            sure, most = torch.stack([listed.sure.sum(), listed.counts.amax().long()]).tolist()
            if sure > DENSE * scores.numel() or most > self.room:
                return None
            width = max(1, most)
        del scores
        found = gpu_compiled.rows(
            tile, dictionary, bias, short, threshold, k, signed, listed, width, losses
        )
        return _Found(*found)


# --- pursuits --------------------------------------------------------------------------------


class _Look(Look):
    """What residuals correlate with most, by the screened product."""

    def __init__(self, dictionary: Tensor) -> None:
        super().__init__(dictionary)
        self.plain = Parameters(dictionary, torch.zeros_like(dictionary[:, 0]))
        self.products: dict[int, _Product | None] = {}
        self.lowered: Parameters | None = None

    def __call__(
        self, rows: Tensor, k: int, signed: bool, without: SparseCodes | None = None
    ) -> SparseCodes:
        """The k units of largest value above 0 of each row, but for those active in `without`.

        What is fitted correlates with these only by rounding, so they take no place among the k
        from others of more.
        """
        return self._found(self.plain, rows, k, signed, without)

    def best(
        self, rows: Tensor, signed: bool, taken: Tensor, less: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The largest value (B,) of each row, 0 where that is one of `taken`, and its unit."""
        parameters, m = self.plain, len(self.dictionary)
        if less is not None:
            if self.lowered is None:  # a unit of either sign, where a value may have either
                signs = (1, -1) if signed else (1,)
                atoms = torch.cat([sign * self.dictionary for sign in signs])
                self.lowered = Parameters(atoms, -less.repeat(len(signs)))
            parameters, signed = self.lowered, False
        at = torch.where(taken < 0, -1, taken)
        there = torch.cat([at, torch.where(at < 0, -1, at + m)], dim=1)
        without = SparseCodes(there, torch.ones_like(there))
        found = self._found(parameters, rows, 1, signed, without)
        return found.values[:, 0].abs(), found.indices[:, 0] % m

    def _found(
        self,
        parameters: Parameters,
        rows: Tensor,
        k: int,
        signed: bool,
        without: SparseCodes | None,
    ) -> SparseCodes:
        activation = TopK(k, signed)
        encoder = _Encoder(parameters, activation, activation.gate, rows)
        encoder.product = self.products.get(id(parameters))
        parts = [found for _, _, found in encoder.tiles(rows.contiguous()) if found is not None]
        self.products[id(parameters)] = encoder.product
        units, values = (torch.cat([part[i] for part in parts]) for i in range(2))
        on = active(values)
        if without is not None:
            there = torch.where(active(without.values), without.indices, -1)
            on &= (units[:, :, None] != there[:, None, :]).all(dim=2)
        return SparseCodes(torch.where(on, units, 0).long(), torch.where(on, values, 0.0))


def _is_fast(parameters: Parameters, pursuit: Pursuit) -> bool:
    # By exact type: a subclass may do anything.
    known = type(pursuit) in (SubspacePursuit, OrthogonalMatchingPursuit, ThresholdPursuit)
    return known and min(pursuit.k, parameters.dictionary.shape[1]) <= DENSE * len(parameters.bias)


def _pursued(parameters: Parameters, data: Tensor, pursuit: Any) -> SparseCodes:
    """The codes of a pursuit, units ascending, as wide as the fullest row."""
    dictionary, (m, n) = parameters.dictionary, parameters.dictionary.shape
    data = data if parameters.offset is None else data - parameters.offset
    look, k = _Look(dictionary), min(pursuit.k, m, n)
    # The atoms of a row, some copies of those of twice as many as it may have.
    rows = max(1, 2 * TILE_BYTES // (8 * k * (n + k) * dictionary.element_size()))
    with torch.cuda.device_of(data):
        more = (parameters.threshold,) if isinstance(pursuit, ThresholdPursuit) else ()
        tiles = (tile for tile in data.split(rows) if len(tile))
        parts = [pursuit.pursue(dictionary, tile, look, *more) for tile in tiles]
    if not parts:
        return SparseCodes(*(data.new_zeros(0, 1, dtype=kind) for kind in (torch.long, data.dtype)))
    indices, values = (torch.cat(each) for each in zip(*parts, strict=True))
    units, order = torch.where(active(values), indices, m).sort(dim=1)
    width = max(1, int((units < m).sum(dim=1).amax()))
    values = values.gather(1, order)[:, :width]
    return SparseCodes(torch.where(active(values), units[:, :width], 0), values)


# --- the product -----------------------------------------------------------------------------


def _precision(data: Tensor) -> torch.dtype:
    """The type of the coarse product."""
    nvidia = data.is_cuda and not torch.version.hip
    if nvidia and torch.cuda.get_device_capability(data.device) >= (8, 0):
        return torch.bfloat16
    return torch.float32 if _plain_float32(data.device) else torch.float64


def _plain_float32(device: torch.device) -> bool:
    """Whether torch's settings leave float32 products alone: no TF32, no bfloat16 inside.

    Where they don't, the product is made in float64: the settings are the user's and stay as they
    are.
    """
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    try:
        return backend.matmul.fp32_precision in ("none", "ieee")
    except AttributeError:  # torch < 2.9
        return torch.get_float32_matmul_precision() == "highest"


class _Product:
    """The encoder product in a coarse type, and bounds on errors.

    Let y and w be a sample and an atom, y~ and w~ the two rounded to the type, s the computed
    product and z~ = s + b in float32. Then \\|z~ - (<y, w> + b)\\| is at most the sum of

    1. what rounding the factors does: <y, w> - <y~, w~> = <y - y~, w~> + <y, w - w~>, by
       Cauchy and Schwarz at most \\|y - y~\\| \\|w~\\| + \\|y\\| \\|w - w~\\|. These are the errors
       made, not worst cases;
    2. summing in float32: (n + 2) 2^-22 \\|y~\\| \\|w~\\|. In any order it is (n + 2) 2^-24 if sums
       are rounded to nearest; tensor cores cut off digits instead, which is allowed for;
    3. numbers below 2^-126 taken as 0, among the factors, products and sums:
       2^-120 n (1 + \\|y\\| + \\|w\\|), which is more than enough;
    4. writing s in bfloat16: half a unit in the last of 8 places, `share` = 2^-8 times \\|s\\|;
    5. float32 arithmetic with z~, and with these bounds: 2^-22 (\\|y\\| \\|w\\| + \\|b\\|).

    The largest of each factor over the atoms stands for the atom's own, so that 1, 2, 3 and 5
    are one number a sample, the slack; 4 goes with the entry. Samples or parameters so large
    that a sum might overflow, or not finite, get an infinite slack. It is 0 where the sample
    or every atom is: then z~ = b.

    The pre-activation of a candidate is summed along chains of c = ceil(n / chunk) products in
    float32, to nearest, and the chains in float64. Its error is less than 3 and
    (c + 2) 2^-23 \\|y\\| \\|w\\|, where 2^-24 would do. With float64 parameters all is float64.
    """

    def __init__(self, parameters: Parameters, dtype: torch.dtype) -> None:
        dictionary, bias = parameters.dictionary, parameters.bias
        n_atoms, n_features = dictionary.shape
        self.dtype, self.kind = dtype, dictionary.dtype
        self.share = 2.0**-8 if dtype == torch.bfloat16 else 0.0
        self.dictionary = torch.empty_like(dictionary, dtype=dtype)  # (m, n)
        # Norms are written with the rounded atoms, in one pass.
        each = bias.new_empty(4, n_atoms, dtype=torch.float64)
        gpu_compiled.round_rows(dictionary, self.dictionary, each, bias=bias)
        self.limits = each.amax(dim=1)  # (4,)
        self.summing = (n_features + 2) * 2.0**-22
        self.tiny = n_features * 2.0**-120
        self.chain = (-(-n_features // gpu_compiled.chunk(n_features)) + 2) * 2.0**-23

    def __call__(self, data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The product (T, m) in the type, the slack (T,), and the bound on chains (T,)."""
        coarse = torch.empty_like(data, dtype=self.dtype)
        bounds = data.new_empty(2, len(data), dtype=torch.float32)
        gpu_compiled.round_rows(
            data, coarse, bounds, limits=self.limits,
            summing=self.summing, chain=self.chain, tiny=self.tiny,
        )  # fmt: skip
        with _float32_sums():
            scores = coarse @ self.dictionary.T
        return scores, bounds[0], bounds[1]


@contextmanager
def _float32_sums() -> Iterator[None]:
    """Keep cuBLAS from adding parts of a bfloat16 product in bfloat16, as torch lets it."""
    settings = torch.backends.cuda.matmul
    before: Any = settings.allow_bf16_reduced_precision_reduction
    split = getattr(settings, "allow_bf16_reduced_precision_reduction_split_k", None)
    settings.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        settings.allow_bf16_reduced_precision_reduction = (
            before if split is None else (before, split)
        )


def _float32_below(number: float) -> float:
    """The largest float32 that is at most `number`.

    >>> _float32_below(0.5), _float32_below(0.7) < 0.7 < _float32_below(0.7) + 1e-7
    (0.5, True)
    """
    nearest = np.float32(min(number, float(np.finfo(np.float32).max)))
    return float(
        nearest if float(nearest) <= number else np.nextafter(nearest, np.float32(-np.inf))
    )

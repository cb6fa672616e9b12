"""The kernel for CUDA devices: one screened encoder product, then work on active units only.

A step costs one product y D^T in bfloat16 on the tensor cores, one pass over its result to
find the units that may be active, and four passes over the active (sample, unit) pairs:
their exact codes, the residual, e = <r, D_i>, and the sums of each atom.

**The decision is exact.** The coarse product only says which units can't be active: those
farther from the decision than a proven bound on its error (:class:`_Product`). The others,
the candidates, get their pre-activation again as a float64 sum, and by that the gate opens or
stays shut. So the support is the one of float64 arithmetic, however coarse the product was,
and doesn't depend on how the batch is cut. A row with too many candidates is passed on, from
bfloat16 to float32 and at last to float64, where the whole row is computed.

**Tiles.** Rows are treated in tiles that need at most about `TILE_BYTES` besides the arrays
of the size of the dictionary, so that memory doesn't grow with the batch. A tile of which
more than the share `DENSE` is active is left to the dense reference.

The loops over pairs and over scores are Triton kernels. Where Triton is missing, or for
tensors in main memory, torch operators do the same; on a CUDA device these sum in an order
that differs from run to run (``index_add_``), while the Triton kernels use no atomics and give
the same bits every time. Activations that aren't gates, pursuits, and types other than
float32 and float64 are the reference's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from shoal.network.activations import Activation, Gate, gate_of, k_largest
from shoal.network.codes import SparseCodes
from shoal.network.kernels import reference
from shoal.network.kernels.reference import StepSums
from shoal.network.pursuit import Pursuit
from shoal.vocabulary import Parameters, active

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None

__all__ = ["adam_", "coded_step", "corrected_encode", "encode", "sparse_encode", "step"]

adam_ = reference.adam_
corrected_encode = reference.corrected_encode
coded_step = reference.coded_step

# Working memory of a tile, about: arbitrary; tiles of thousands of rows, which products like.
TILE_BYTES = 2**30
# Active share of a tile above which it is done dense: a guess at where gathers, which are bound
# by memory, cost more than the products they save.
DENSE = 1 / 8
# Memory of one gathered chunk where torch operators stand in for Triton: arbitrary.
GATHER_BYTES = 2**26

# Triton runs on CUDA tensors, and on others in its interpreter (for tests).
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@torch.no_grad()
def step(parameters: Parameters, data: Tensor, activation: Activation | Pursuit) -> StepSums:
    """Loss, gradient and activity of a batch (B, n), summed over its samples."""
    gate = gate_of(activation)
    if isinstance(activation, Pursuit) or gate is None or not _takes(data):
        return reference.step(parameters, data, activation)
    parameters = parameters.map(torch.Tensor.contiguous)
    sums = StepSums.zeros(parameters, len(data))
    done = 0
    with torch.cuda.device_of(data):  # Triton launches on the current device
        for tile, pairs in _tiles(parameters, data, activation, gate):
            where = slice(done, done + tile.shape[0])
            if pairs is None:
                sums.add_(where, reference.step(parameters, tile, activation))
            else:
                _add_step_(sums, sums.losses[where], parameters, tile, pairs)
            done += tile.shape[0]
    return sums


@torch.no_grad()
def sparse_encode(
    parameters: Parameters, data: Tensor, activation: Activation | Pursuit
) -> SparseCodes:
    """The codes of a batch (B, n) without their zeros, units in ascending order.

    There are as many columns as the fullest row has active units, at least 1; shorter rows
    end in zeros at unit 0.
    """
    gate = gate_of(activation)
    if isinstance(activation, Pursuit) or gate is None or not _takes(data):
        return reference.sparse_encode(parameters, data, activation)
    row, unit, value = _all_pairs(parameters, data, activation, gate)
    starts = _starts(row, data.shape[0])
    counts = starts.diff()
    width = max(1, int(counts.max())) if len(counts) else 1
    indices = torch.zeros(data.shape[0], width, dtype=torch.long, device=data.device)
    values = data.new_zeros(data.shape[0], width)
    position = torch.arange(len(row), device=data.device) - starts[row]
    indices[row, position] = unit
    values[row, position] = value
    return SparseCodes(indices, values)


@torch.no_grad()
def encode(parameters: Parameters, data: Tensor, activation: Activation | Pursuit) -> Tensor:
    """The code x = sigma(y D^T + b) of data (B, n): shape (B, m)."""
    gate = gate_of(activation)
    if isinstance(activation, Pursuit) or gate is None or not _takes(data):
        return reference.encode(parameters, data, activation)
    row, unit, value = _all_pairs(parameters, data, activation, gate)
    codes = data.new_zeros(data.shape[0], len(parameters.bias))
    codes[row, unit] = value
    return codes


def _takes(data: Tensor) -> bool:
    # Other devices may lack float64, which the exact codes need.
    return data.dtype in (torch.float32, torch.float64) and data.device.type in ("cuda", "cpu")


# --- the active pairs, tile by tile ----------------------------------------------------------


class _Pairs(NamedTuple):
    """The active (row, unit) pairs of a tile, by row and then by unit, and their codes."""

    row: Tensor  # (P,)
    unit: Tensor  # (P,)
    value: Tensor  # (P,)


def _all_pairs(parameters: Parameters, data: Tensor, activation: Activation, gate: Gate) -> _Pairs:
    parameters = parameters.map(torch.Tensor.contiguous)
    parts = []
    done = 0
    with torch.cuda.device_of(data):
        for tile, pairs in _tiles(parameters, data, activation, gate):
            if pairs is None:
                pairs = _pairs_of(reference.encode(parameters, tile, activation))
            parts.append(pairs._replace(row=pairs.row + done))
            done += tile.shape[0]
    if not parts:
        return _pairs_of(data.new_zeros(0, len(parameters.bias)))
    return _Pairs(*map(torch.cat, zip(*parts, strict=True)))


def _pairs_of(codes: Tensor) -> _Pairs:
    row, unit = active(codes).nonzero(as_tuple=True)
    return _Pairs(row, unit, codes[row, unit])


def _tiles(
    parameters: Parameters, data: Tensor, activation: Activation, gate: Gate
) -> Iterator[tuple[Tensor, _Pairs | None]]:
    """The data (B, n) in tiles of rows, and the active pairs of each; None asks for dense."""
    encoder = _Encoder(parameters, activation, gate, data)
    for tile in data.split(encoder.n_rows(0)) if len(data) else ():
        tile = tile.contiguous()
        pairs = None if encoder.is_dense else encoder.pairs(tile)
        if pairs is not None:
            yield tile, pairs
        else:
            # The reference holds about six arrays of the size of the scores.
            room = 6 * data.element_size() * sum(parameters.dictionary.shape)
            for part in tile.split(max(1, TILE_BYTES // room)):
                yield part, None


class _Encoder:
    """Finds the active pairs of a tile, by products of rising precision."""

    def __init__(
        self, parameters: Parameters, activation: Activation, gate: Gate, data: Tensor
    ) -> None:
        self.parameters, self.activation, self.gate = parameters, activation, gate
        self.precisions = _precisions(data)
        self.by_triton = _by_triton(data)
        self.products: dict[torch.dtype, _Product] = {}
        n_atoms = len(parameters.bias)
        self.is_dense = gate.k is not None and gate.k > DENSE * n_atoms
        # Candidates a row may have. Arbitrary: with k-largest, as many again as are wanted;
        # with a threshold, twice what makes a tile dense, as rows differ.
        room = int(2 * DENSE * n_atoms) if gate.k is None else 2 * gate.k
        self.room = min(n_atoms, room + 32)

    def n_rows(self, level: int) -> int:
        """How many rows at a precision need about TILE_BYTES."""
        n_atoms, n_features = self.parameters.dictionary.shape
        precision = self.precisions[level]
        if precision == torch.float64:
            score = 40  # z, codes, slope, and what the selection makes
        else:
            score = (precision.itemsize + 1) if self.by_triton else 20
        # A candidate is a slot, three index or value arrays, and k_largest's temporaries.
        size = score * n_atoms + 100 * self.room + 48 * n_features
        return max(1, TILE_BYTES // size)

    def pairs(self, data: Tensor, level: int = 0) -> _Pairs | None:
        """The active pairs of a tile (T, n), or None if it is dense."""
        precision = self.precisions[level]
        if precision == torch.float64:
            pairs = self._exact(data)
            dense = level == 0 and len(pairs.row) > DENSE * len(data) * len(self.parameters.bias)
            return None if dense else pairs
        if precision not in self.products:
            self.products[precision] = _Product(self.parameters, precision)
        product = self.products[precision]
        scores, slack = product(data)
        found = _candidates(
            scores, self.parameters.bias, slack, product.share, self.gate, self.room
        )
        if level == 0 and self.gate.k is None and int(found.sure) > DENSE * scores.numel():
            return None
        del scores
        pairs = self._decide(data, found.row, found.unit)
        rest = found.open.nonzero().squeeze(1)
        if len(rest) == 0:
            return pairs
        parts = [pairs]
        for rows in rest.split(self.n_rows(level + 1)):
            part = self.pairs(data[rows], level + 1)
            assert part is not None  # only the first level asks for dense
            parts.append(part._replace(row=rows[part.row]))
        merged = _Pairs(*map(torch.cat, zip(*parts, strict=True)))
        order = torch.sort(merged.row, stable=True).indices
        return _Pairs(*(part[order] for part in merged))

    def _decide(self, data: Tensor, row: Tensor, unit: Tensor) -> _Pairs:
        """Those of the candidates that are active, by float64 sums."""
        dictionary, bias = self.parameters.dictionary, self.parameters.bias
        z = _dots(data, dictionary, row, unit, torch.float64) + bias.double()[unit]
        height = z.abs() if self.gate.signed else z
        value = z.to(data.dtype)
        keep = (height > self.gate.threshold) & active(value)
        if self.gate.k is not None:
            starts = _starts(row, len(data))
            position = torch.arange(len(row), device=data.device) - starts[row]
            width = int(starts.diff().max())
            table = height.new_full((len(data), width), -torch.inf)
            table[row, position] = height  # in the order of the units: so ties go as they should
            keep &= k_largest(table, self.gate.k)[row, position]
        return _Pairs(row[keep], unit[keep], value[keep])

    def _exact(self, data: Tensor) -> _Pairs:
        """The active pairs by a float64 product: no bound is needed."""
        dictionary, bias = (part.double() for part in self.parameters[:2])
        codes = self.activation(torch.addmm(bias, data.double(), dictionary.T)).codes
        return _pairs_of(codes.to(data.dtype))


def _precisions(data: Tensor) -> tuple[torch.dtype, ...]:
    """The precisions of the encoder product to try on a row, in turn; the last decides."""
    if data.dtype == torch.float64:
        return (torch.float64,)
    found = [torch.float64]
    if _plain_float32(data.device):
        found.insert(0, torch.float32)
    nvidia = data.is_cuda and not torch.version.hip
    if nvidia and torch.cuda.get_device_capability(data.device) >= (8, 0):
        found.insert(0, torch.bfloat16)
    return tuple(found)


def _plain_float32(device: torch.device) -> bool:
    """Whether torch's settings leave float32 products alone: no TF32, no bfloat16 inside.

    Where they don't, rows that bfloat16 leaves open go to float64 at once: the settings are
    the user's and stay as they are.
    """
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    try:
        return backend.matmul.fp32_precision in ("none", "ieee")
    except AttributeError:  # torch < 2.9
        return torch.get_float32_matmul_precision() == "highest"


# --- the screen ------------------------------------------------------------------------------


class _Product:
    """The encoder product in a coarse type, and a bound on its error.

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
    """

    def __init__(self, parameters: Parameters, dtype: torch.dtype) -> None:
        dictionary, bias = parameters.dictionary, parameters.bias
        self.dtype = dtype
        self.dictionary = dictionary.to(dtype)  # (m, n)
        self.share = 2.0**-8 if dtype == torch.bfloat16 else 0.0
        self.length, self.rounded, self.error = (
            part.max() for part in _lengths(dictionary, self.dictionary)
        )
        self.bias = bias.abs().max().double()

    def __call__(self, data: Tensor) -> tuple[Tensor, Tensor]:
        """The product (T, m) in the type, and the slack (T,) in float32."""
        coarse = data.to(self.dtype)
        length, rounded, error = _lengths(data, coarse)
        n_features = data.shape[1]
        slack = (
            error * self.rounded
            + length * self.error
            + (n_features + 2) * 2.0**-22 * rounded * self.rounded
            + 2.0**-120 * n_features * (1 + length + self.length)
            + 2.0**-22 * (length * self.length + self.bias)
        ) * (1 + 2.0**-20)  # more than float32, below, can take away
        slack = torch.where(length * self.length == 0, 0.0, slack)
        largest = torch.maximum(torch.maximum(length, self.length), length * self.length)
        safe = torch.maximum(largest, self.bias) <= 2.0**120  # False for NaN
        with _float32_sums():
            scores = coarse @ self.dictionary.T
        return scores, torch.where(safe, slack, torch.inf).float()


def _lengths(exact: Tensor, rounded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Norms of the rows, of the rounded rows, and of the differences, in float64."""
    again = rounded.to(exact.dtype)
    parts = exact, again, exact - again  # the difference of a float32 and its bfloat16 is exact
    first, second, third = (
        torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) for part in parts
    )
    return first, second, third


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


class _Candidates(NamedTuple):
    """What a coarse product can't rule out."""

    row: Tensor  # (P,) of the rows that aren't open, ascending
    unit: Tensor  # (P,) ascending in a row
    open: Tensor  # (T,) rows with more candidates than there is room for, or no bound
    sure: Tensor  # () pairs that are above the threshold for certain


def _candidates(
    scores: Tensor, bias: Tensor, slack: Tensor, share: float, gate: Gate, room: int
) -> _Candidates:
    """The units of each row whose height may be above the threshold and among the k largest.

    The height of a unit, |z| or z, is within share |s| + slack of what it seems. The columns
    are taken in groups. The k-th largest of the groups' largest lower bounds is a lower bound
    of the k-th largest height, since k groups have a unit that high; with many more groups
    than k it is hardly below the k-th largest itself, and far cheaper.
    """
    n_atoms = scores.shape[1]
    # A unit above the threshold is above this, and its upper bound, a float32, too.
    floor = _float32_below(gate.threshold)
    if gate.k is None or gate.k >= n_atoms:
        level = torch.full_like(slack, -torch.inf)
    else:
        group = 1
        while group < 1024 and 16 * gate.k * group <= n_atoms:  # at least 8 k groups
            group *= 2
        maxima = _group_maxima if _by_triton(scores) else _group_maxima_by_torch
        best = maxima(scores, bias, share, gate.signed, group).topk(gate.k).values  # (T, k)
        level = best[:, -1] - slack  # contiguous, as the kernel wants it
    mark = _mark if _by_triton(scores) else _mark_by_torch
    row, unit, open_, sure = mark(scores, bias, level, slack, share, gate.signed, floor, room)
    return _Candidates(row, unit, open_, sure)


def _float32_below(number: float) -> float:
    """The largest float32 that is at most `number`.

    >>> _float32_below(0.5), _float32_below(0.7) < 0.7 < _float32_below(0.7) + 1e-7
    (0.5, True)
    """
    largest = torch.finfo(torch.float32).max
    if number >= largest:
        return largest
    nearest = torch.tensor(number, dtype=torch.float32)
    if nearest.item() > number:
        nearest = torch.nextafter(nearest, torch.tensor(-math.inf))
    return nearest.item()


# --- the step on active pairs ----------------------------------------------------------------


def _add_step_(
    sums: StepSums, losses: Tensor, parameters: Parameters, data: Tensor, pairs: _Pairs
) -> None:
    """Add a tile (T, n) to the sums, and write its losses (T,)."""
    dictionary = parameters.dictionary
    row, unit, value = pairs
    residual = (_residuals if _by_triton(data) else _residuals_by_torch)(data, dictionary, pairs)
    losses.copy_(0.5 * residual.square().sum(dim=1))
    back = _dots(residual, dictionary, row, unit, data.dtype)  # (P,) e = <r, D_i>
    order = torch.sort(unit, stable=True).indices
    starts = _starts(unit[order], len(dictionary))
    sums.counts.add_(starts.diff())
    (_add_atoms_ if _by_triton(data) else _add_atoms_by_torch_)(
        sums, data, residual, row[order], unit[order], value[order], back[order], starts
    )


def _starts(ascending: Tensor, n: int) -> Tensor:
    """Where each of the numbers 0 ... n - 1 begins in an ascending list, and its end: (n + 1,)."""
    return torch.searchsorted(ascending, torch.arange(n + 1, device=ascending.device))


def _by_triton(tensor: Tensor) -> bool:
    return triton is not None and (tensor.is_cuda or _INTERPRETED)


# --- by torch operators ----------------------------------------------------------------------


def _heights(scores: Tensor, bias: Tensor, signed: bool) -> Tensor:
    z = scores.float() + bias
    return z.abs_() if signed else z


def _group_maxima_by_torch(
    scores: Tensor, bias: Tensor, share: float, signed: bool, group: int
) -> Tensor:
    """The largest height less share |s| of each group of columns: (T, groups)."""
    low = _heights(scores, bias, signed).sub_(scores.float().abs().mul_(share))
    missing = -scores.shape[1] % group
    low = torch.nn.functional.pad(low, (0, missing), value=-torch.inf)
    return low.view(scores.shape[0], -1, group).amax(dim=2)


def _mark_by_torch(
    scores: Tensor,
    bias: Tensor,
    level: Tensor,
    slack: Tensor,
    share: float,
    signed: bool,
    floor: float,
    room: int,
) -> tuple[Tensor, ...]:
    """Row and unit of each candidate, the open rows, and the number of sure pairs."""
    height = _heights(scores, bias, signed)
    doubt = scores.float().abs().mul_(share).add_(slack[:, None])
    sure = (height - doubt > floor).sum()
    upper = height.add_(doubt)
    mask = (upper >= level[:, None]) & (upper > floor)
    open_ = (mask.sum(dim=1) > room) | ~slack.isfinite()
    mask &= ~open_[:, None]
    return *mask.nonzero(as_tuple=True), open_, sure


def _chunks(n_pairs: int, row: Tensor) -> Iterator[slice]:
    """Slices of a list of pairs for which a gather of rows like `row` takes GATHER_BYTES."""
    size = max(1, GATHER_BYTES // (row.numel() * row.element_size()))
    return (slice(first, first + size) for first in range(0, n_pairs, size))


def _dots_by_torch(
    left: Tensor, right: Tensor, row: Tensor, unit: Tensor, dtype: torch.dtype
) -> Tensor:
    dots = left.new_empty(len(row), dtype=dtype)
    for part in _chunks(len(row), left[0].to(dtype)):
        dots[part] = (left[row[part]].to(dtype) * right[unit[part]]).sum(dim=1)
    return dots


def _residuals_by_torch(data: Tensor, dictionary: Tensor, pairs: _Pairs) -> Tensor:
    """r = y - sum of x_i D_i over the active units: (T, n)."""
    residual = data.clone()
    for part in _chunks(len(pairs.row), data[0]):
        row, unit, value = (each[part] for each in pairs)
        residual.index_add_(0, row, value[:, None] * dictionary[unit], alpha=-1)
    return residual


def _add_atoms_by_torch_(
    sums: StepSums,
    data: Tensor,
    residual: Tensor,
    row: Tensor,
    unit: Tensor,
    value: Tensor,
    back: Tensor,
    starts: Tensor,
) -> None:
    """Add the gradient and the energy of pairs, which come sorted by unit, to the sums."""
    for part in _chunks(len(row), data[0]):
        x, e = value[part, None], back[part, None]
        both = x * residual[row[part]] + e * data[row[part]]
        sums.dictionary.index_add_(0, unit[part], both, alpha=-1)
    sums.bias.index_add_(0, unit, back, alpha=-1)
    sums.energy.index_add_(0, unit, value.square())


# --- by Triton -------------------------------------------------------------------------------

# A product and a sum in one rounding: never farther from the exact number. Recent versions ask.
_OPTIONS = {"enable_fp_fusion": True}
_jit: Callable[[Any], Any] = (lambda function: function) if triton is None else triton.jit


def _dots(left: Tensor, right: Tensor, row: Tensor, unit: Tensor, dtype: torch.dtype) -> Tensor:
    """<left_row, right_unit> of each pair, summed in `dtype`: (P,).

    The order of a sum depends only on n: equal rows give equal bits.
    """
    if not _by_triton(left):
        return _dots_by_torch(left, right, row, unit, dtype)
    dots = left.new_empty(len(row), dtype=dtype)
    if len(row):
        n_features = left.shape[1]
        at_once = 16
        _dots_kernel[(triton.cdiv(len(row), at_once),)](
            left,
            right,
            row,
            unit,
            dots,
            len(row),
            n_features,
            PAIRS=at_once,
            FEATURES=min(128, triton.next_power_of_2(n_features)),
            **_OPTIONS,
        )
    return dots


@_jit
def _dots_kernel(  # type: ignore[no-untyped-def]
    left, right, row, unit, dots, n_pairs, n, PAIRS: tl.constexpr, FEATURES: tl.constexpr
):  # one program: PAIRS dot products
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    there = pair < n_pairs
    from_left = left + tl.load(row + pair, mask=there, other=0) * n
    from_right = right + tl.load(unit + pair, mask=there, other=0) * n
    total = tl.zeros((PAIRS, FEATURES), dtype=dots.dtype.element_ty)
    for first in range(0, n, FEATURES):
        at = first + tl.arange(0, FEATURES)
        inside = there[:, None] & (at < n)[None, :]
        one = tl.load(from_left[:, None] + at[None, :], mask=inside, other=0.0)
        other = tl.load(from_right[:, None] + at[None, :], mask=inside, other=0.0)
        total += one.to(total.dtype) * other.to(total.dtype)
    tl.store(dots + pair, tl.sum(total, axis=1), mask=there)


def _residuals(data: Tensor, dictionary: Tensor, pairs: _Pairs) -> Tensor:
    """r = y - sum of x_i D_i over the active units: (T, n)."""
    n_samples, n_features = data.shape
    residual = torch.empty_like(data)
    width = min(256, triton.next_power_of_2(n_features))
    _residuals_kernel[(n_samples, triton.cdiv(n_features, width))](
        data,
        dictionary,
        pairs.unit,
        pairs.value,
        _starts(pairs.row, n_samples),
        residual,
        n_features,
        PAIRS=8,
        FEATURES=width,
        **_OPTIONS,
    )
    return residual


@_jit
def _residuals_kernel(  # type: ignore[no-untyped-def]
    data,
    dictionary,
    unit,
    value,
    starts,
    residual,
    n,
    PAIRS: tl.constexpr,
    FEATURES: tl.constexpr,
):  # one program: FEATURES features of one sample
    sample = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    inside = at < n
    end = tl.load(starts + sample + 1)
    total = tl.zeros((PAIRS, FEATURES), dtype=data.dtype.element_ty)
    for first in range(tl.load(starts + sample), end, PAIRS):
        pair = first + tl.arange(0, PAIRS)
        there = pair < end
        x = tl.load(value + pair, mask=there, other=0.0)
        atom = tl.load(unit + pair, mask=there, other=0) * n
        both = there[:, None] & inside[None, :]
        weights = tl.load(dictionary + atom[:, None] + at[None, :], mask=both, other=0.0)
        total += x[:, None] * weights
    y = tl.load(data + sample * n + at, mask=inside, other=0.0)
    tl.store(residual + sample * n + at, y - tl.sum(total, axis=0), mask=inside)


def _add_atoms_(
    sums: StepSums,
    data: Tensor,
    residual: Tensor,
    row: Tensor,
    unit: Tensor,
    value: Tensor,
    back: Tensor,
    starts: Tensor,
) -> None:
    """Add the gradient and the energy of pairs, which come sorted by unit, to the sums."""
    n_atoms, n_features = sums.dictionary.shape
    width = min(256, triton.next_power_of_2(n_features))
    _atoms_kernel[(n_atoms, triton.cdiv(n_features, width))](
        data,
        residual,
        row,
        value,
        back,
        starts,
        sums.dictionary,
        sums.bias,
        sums.energy,
        n_features,
        PAIRS=8,
        FEATURES=width,
        **_OPTIONS,
    )


@_jit
def _atoms_kernel(  # type: ignore[no-untyped-def]
    data,
    residual,
    row,
    value,
    back,
    starts,
    dictionary,
    bias,
    energy,
    n,
    PAIRS: tl.constexpr,
    FEATURES: tl.constexpr,
):  # one program: FEATURES features of one atom's gradient; no other writes there
    atom = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    inside = at < n
    start = tl.load(starts + atom)
    end = tl.load(starts + atom + 1)
    if start < end:
        total = tl.zeros((PAIRS, FEATURES), dtype=dictionary.dtype.element_ty)
        errors = tl.zeros((PAIRS,), dtype=dictionary.dtype.element_ty)
        squares = tl.zeros((PAIRS,), dtype=dictionary.dtype.element_ty)
        for first in range(start, end, PAIRS):
            pair = first + tl.arange(0, PAIRS)
            there = pair < end
            x = tl.load(value + pair, mask=there, other=0.0)
            e = tl.load(back + pair, mask=there, other=0.0)
            sample = tl.load(row + pair, mask=there, other=0) * n
            both = there[:, None] & inside[None, :]
            where = sample[:, None] + at[None, :]
            r = tl.load(residual + where, mask=both, other=0.0)
            y = tl.load(data + where, mask=both, other=0.0)
            total += x[:, None] * r + e[:, None] * y
            errors += e
            squares += x * x
        here = dictionary + atom * n + at
        before = tl.load(here, mask=inside, other=0.0)
        tl.store(here, before - tl.sum(total, axis=0), mask=inside)
        if tl.program_id(1) == 0:
            tl.store(bias + atom, tl.load(bias + atom) - tl.sum(errors, axis=0))
            tl.store(energy + atom, tl.load(energy + atom) + tl.sum(squares, axis=0))


def _group_maxima(scores: Tensor, bias: Tensor, share: float, signed: bool, group: int) -> Tensor:
    """The largest height less share |s| of each group of columns: (T, groups)."""
    n_samples, n_atoms = scores.shape
    n_groups = triton.cdiv(n_atoms, group)
    at_once = min(max(1, 2048 // group), triton.next_power_of_2(n_groups))
    maxima = torch.empty(n_samples, n_groups, device=scores.device)
    _group_maxima_kernel[(n_samples, triton.cdiv(n_groups, at_once))](
        scores,
        bias,
        maxima,
        share,
        n_atoms,
        n_groups,
        SIGNED=signed,
        GROUP=group,
        GROUPS=at_once,
        **_OPTIONS,
    )
    return maxima


@_jit
def _group_maxima_kernel(  # type: ignore[no-untyped-def]
    scores,
    bias,
    maxima,
    share,
    m,
    n_groups,
    SIGNED: tl.constexpr,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
):  # one program: GROUPS groups of one sample
    sample = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    at = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    s = tl.load(scores + sample * m + at, mask=at < m, other=0.0).to(tl.float32)
    height = s + tl.load(bias + at, mask=at < m, other=0.0)
    if SIGNED:
        height = tl.abs(height)
    low = tl.where(at < m, height - share * tl.abs(s), float("-inf"))
    tl.store(maxima + sample * n_groups + group, tl.max(low, axis=1), mask=group < n_groups)


def _mark(
    scores: Tensor,
    bias: Tensor,
    level: Tensor,
    slack: Tensor,
    share: float,
    signed: bool,
    floor: float,
    room: int,
) -> tuple[Tensor, ...]:
    """Row and unit of each candidate, the open rows, and the number of sure pairs."""
    n_samples, n_atoms = scores.shape
    slots = torch.empty(n_samples, room, dtype=torch.int32, device=scores.device)
    counts, sure = torch.empty(2, n_samples, dtype=torch.int32, device=scores.device)
    _mark_kernel[(n_samples,)](
        scores,
        bias,
        level,
        slack,
        slots,
        counts,
        sure,
        share,
        floor,
        n_atoms,
        room,
        SIGNED=signed,
        ATOMS=min(1024, triton.next_power_of_2(n_atoms)),
        **_OPTIONS,
    )
    open_ = (counts > room) | ~slack.isfinite()
    counts = counts.masked_fill(open_, 0)
    filled = torch.arange(room, device=scores.device) < counts[:, None]
    row, position = filled.nonzero(as_tuple=True)
    return row, slots[row, position].long(), open_, sure.sum()


@_jit
def _mark_kernel(  # type: ignore[no-untyped-def]
    scores,
    bias,
    level,
    slack,
    slots,
    counts,
    sure,
    share,
    floor,
    m,
    room,
    SIGNED: tl.constexpr,
    ATOMS: tl.constexpr,
):  # one program: the candidates of one sample, in ascending order
    sample = tl.program_id(0).to(tl.int64)
    lowest = tl.load(level + sample)
    common = tl.load(slack + sample)
    found = tl.zeros((), dtype=tl.int32)
    certain = tl.zeros((), dtype=tl.int32)
    for first in range(0, m, ATOMS):
        at = first + tl.arange(0, ATOMS)
        s = tl.load(scores + sample * m + at, mask=at < m, other=0.0).to(tl.float32)
        height = s + tl.load(bias + at, mask=at < m, other=0.0)
        if SIGNED:
            height = tl.abs(height)
        doubt = share * tl.abs(s) + common
        upper = height + doubt
        candidate = ((upper >= lowest) & (upper > floor) & (at < m)).to(tl.int32)
        slot = found + tl.cumsum(candidate, axis=0) - 1
        keep = (candidate > 0) & (slot < room)
        tl.store(slots + sample * room + slot, at, mask=keep)
        found += tl.sum(candidate, axis=0)
        certain += tl.sum(((height - doubt > floor) & (at < m)).to(tl.int32), axis=0)
    tl.store(counts + sample, found)
    tl.store(sure + sample, certain)

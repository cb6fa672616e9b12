"""Full batches again and again: encoder work is skipped where no decision can have changed.

Between two steps the pre-activation of unit j on sample y moves by at most

    |dz_j| <= |y| |dW_j| + |db_j|.

So of each row a list is kept, a few units more than are active, and a bound on the values of
all others. The bound grows by the largest movement of any atom; as long as it is below what
decides (the threshold, or the k-th largest value in the list, which is always taken anew),
no unit outside the list can be active, and the row costs the few products of its list
instead of m. Else the row is encoded anew. It is to the tied autoencoder what Hamerly's
bounds (SDM 2010) are to k-means, and as exact: the result is that of a step that encodes all.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from shoal.network.activations import Activation, Gate, gate_of
from shoal.network.kernels import compiled, cpu, reference
from shoal.network.kernels.reference import StepSums
from shoal.vocabulary import Parameters

__all__ = ["LazySteps"]

# Arbitrary: room in a list beyond the active units. More room, fewer rows to encode anew and
# more products for each that isn't.
_MORE = 8
# Arbitrary: lists longer than this fraction of the units save too little.
_LONGEST = 1 / 8
# Where more than half of the rows had to be encoded anew, lists wait until the atoms move
# less than half as much.
_FAILED, _CALMER = 0.5, 0.5


class LazySteps:
    """:func:`shoal.network.kernels.cpu.step` on one batch (N, n), remembering its decisions.

    Beside the data it keeps N lists of the active units and half as many more, plus 8.

    Attributes
    ----------
    encoded : int
        Rows whose encoder product the last step took.
    products : int
        Single products <y, W_j> that it took for lists.
    """

    def __init__(self, data: Tensor, activation: Activation) -> None:
        self.data, self.activation = data.detach().contiguous(), activation
        self.encoded = self.products = 0
        self._gate = gate_of(activation)
        self._norms = torch.linalg.vector_norm(self.data, dim=1, dtype=torch.float64).numpy()
        self._before: Parameters | None = None
        self._room = 0  # length of the lists, 0 while there are none
        self._calm = np.inf  # movement below which lists are worth trying

    def __call__(self, parameters: Parameters) -> StepSums:
        """The sums over the batch, as those of any kernel's step."""
        if not parameters.tied:
            return reference.step(parameters, self.data, self.activation)
        moved, steps = self._movement(parameters)
        self._before = parameters
        if self._room == 0 and moved < self._calm:
            self._start_lists(parameters)
        while self._room:
            started = bool(np.isinf(self._bounds).all())
            sums = self._listed_step(parameters, steps)
            if sums is None:  # lists were too short
                self._start_lists(parameters)
                continue
            if not started and self.encoded > _FAILED * len(self.data):
                self._room, self._calm = 0, _CALMER * moved
            return sums
        self.encoded, self.products = len(self.data), 0
        return cpu.step(parameters, self.data, self.activation)

    def _movement(self, parameters: Parameters) -> tuple[float, np.ndarray]:
        """max |dW_j|, and how far a pre-activation of each row can have moved (N,)."""
        if self._before is None:
            return 0.0, np.zeros(len(self.data))
        new, old = ([part.double() for part in both[:2]] for both in (parameters, self._before))
        atoms = float(torch.linalg.vector_norm(new[0] - old[0], dim=1).max())
        bias = float((new[1] - old[1]).abs().max())
        # The float64 rounding of the values that are compared, generously.
        length = float(torch.linalg.vector_norm(new[0], dim=1).max())
        rounding = 2.0**-40 * (self._norms * (length + atoms) + float(new[1].abs().max()))
        return atoms, self._norms * atoms + bias + rounding

    def _start_lists(self, parameters: Parameters) -> None:
        """Empty lists, longer than those there were; none where they would be too long."""
        gate, m = self._gate, parameters.dictionary.shape[0]
        if gate is None:
            return
        if self._room:
            most = 2 * self._room
        else:
            _, most = cpu.activity(parameters, self.data, self.activation, gate)
        self._room = most + most // 2 + _MORE
        if self._room > _LONGEST * m:
            self._room, self._gate = 0, None
            return
        n_samples = len(self.data)
        self._units = np.zeros((n_samples, self._room), np.int64)
        self._lengths = np.zeros(n_samples, np.int64)
        self._bounds = np.full(n_samples, np.inf)

    def _listed_step(self, parameters: Parameters, steps: np.ndarray) -> StepSums | None:
        """A step with the lists; None where one of them has no room for all active units."""
        gate = self._gate
        assert gate is not None
        m, n = parameters.dictionary.shape
        sums = cpu.Sums(parameters, len(self.data))
        encoder = None
        length = float(torch.linalg.vector_norm(parameters.dictionary, dim=1).max())
        self.encoded, self.products = 0, int(self._lengths.sum())
        height = cpu.tile_rows(m, n)
        for start in range(0, len(self.data), height):
            where = slice(start, start + height)
            tile = self.data[where]
            codes = self._choose(sums.parameters, tile, where, steps[where], fresh=False)
            open_ = np.flatnonzero(codes.counts < 0)
            if len(open_):
                if encoder is None:
                    # The largest values of all, whether or not they are active.
                    widest = Gate(self._room, -np.inf, gate.signed)
                    screen = cpu.screening(self.data.dtype, n)
                    encoder = cpu.Encoder(sums.parameters, widest, screen, self._room)
                rows, index = tile[torch.from_numpy(open_)], start + open_
                # What a product in the data's precision rounds, for rows that it decided.
                rounding = 2 * n * torch.finfo(rows.dtype).eps * length * self._norms[index]
                self._list(encoder.codes(rows), index, rounding)
                if gate.k is None and (self._bounds[index] > gate.threshold).any():
                    return None
                anew = self._choose(sums.parameters, rows, index, np.zeros(len(rows)), fresh=True)
                codes.indices[open_], codes.values[open_] = anew.indices, anew.values
                codes.counts[open_] = anew.counts
                self.encoded += len(open_)
            sums.add(where, tile, codes)
        return sums.result()

    def _list(self, codes: cpu.Codes, index: np.ndarray, rounding: np.ndarray) -> None:
        """Lists of the rows `index`, from their largest values, known up to `rounding`."""
        assert self._gate is not None
        units, values = (part.numpy() for part in codes.padded())
        self._units[index], self._lengths[index] = units, codes.counts
        values = np.abs(values) if self._gate.signed else values
        # All others are at most the least listed; where there is room left, 0 or less.
        least = values.min(axis=1).astype(np.float64)
        least += 2 * np.finfo(values.dtype).eps * np.abs(least)
        self._bounds[index] = np.where(codes.counts == self._room, least, 0.0) + rounding

    def _choose(
        self,
        parameters: Parameters,
        rows: Tensor,
        index: slice | np.ndarray,
        steps: np.ndarray,
        *,
        fresh: bool,
    ) -> cpu.Codes:
        gate = self._gate
        assert gate is not None
        n = rows.shape[1]
        capacity = self._room if gate.k is None else gate.k
        codes = cpu.Codes(
            np.empty((len(rows), capacity), np.int64),
            np.empty((len(rows), capacity), rows.numpy().dtype),
            np.empty(len(rows), np.int64),
        )
        bounds = self._bounds[index]
        parts = cpu.n_parts()
        compiled.choose_again(
            cpu.flat(rows), cpu.flat(parameters.dictionary), cpu.flat(parameters.bias), n,
            gate.k or 0, float(gate.threshold), gate.signed, parts,
            self._units[index], self._lengths[index], bounds, steps, fresh,
            codes.indices, codes.values, codes.counts,
        )  # fmt: skip
        self._bounds[index] = bounds
        return codes

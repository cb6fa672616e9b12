"""Shards: each of several processes holds some of the atoms, and all of them code the same rows.

What is of the size of the atoms stays where they are: gradient, update, and what a rule remembers.
Between the processes go, for each row, the k largest values of each shard, among which are the k
largest of all, and what each shard rebuilds of it; once in a while, where atoms are replaced, the
atoms themselves. A vector over all units is small, and every process may have it.

The state says by `State.atoms` that it holds a shard; within :func:`at_hand` the functions here are
those of all atoms, and outside of it those of the tensors as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from shoal.network import objective
from shoal.network.activations import Activation, TopK
from shoal.network.codes import SparseCodes
from shoal.network.inference import fast_sparse_encode
from shoal.network.objective import Evaluate, StepSums, Terms
from shoal.network.penalties import Penalty
from shoal.network.prefixes import Prefixes
from shoal.network.pursuit import Pursuit
from shoal.training.ranks import Ranks
from shoal.vocabulary import Parameters, active

__all__ = [
    "Shard",
    "at_hand",
    "codes_of_all",
    "cut",
    "joined",
    "mine_of",
    "of_all",
    "on_shard",
    "over_all",
    "placed",
    "rebuilt_by_all",
    "repeats",
    "rows_of_all",
]

# Arbitrary: cosines that are looked at at once.
_COSINES = 2**24


@dataclass(frozen=True)
class Shard:
    """The atoms of this process, of `m` in all: a run of them, as long as the others' or nearly."""

    ranks: Ranks  # the processes that hold the others, in the order of the atoms
    m: int

    def bounds(self, rank: int) -> tuple[int, int]:
        """Where those of a process begin and end."""
        size = self.ranks.size
        return self.m * rank // size, self.m * (rank + 1) // size

    @property
    def first(self) -> int:
        """The number of the first one here."""
        return self.bounds(self.ranks.rank)[0]

    @property
    def last(self) -> int:
        """That of the one after the last."""
        return self.bounds(self.ranks.rank)[1]

    def here(self, units: Tensor) -> Tensor:
        """Boolean: whether atoms by their numbers are those of this process."""
        return (units >= self.first) & (units < self.last)


_now: ContextVar[Shard | None] = ContextVar("shard", default=None)


@contextmanager
def at_hand(shard: Shard | None) -> Iterator[None]:
    """Within it, tensors over units are those of a shard."""
    token = _now.set(shard)
    try:
        yield
    finally:
        _now.reset(token)


# --------------------------------------------------------------------------- states


def cut(value: Any, shard: Shard) -> Any:
    """The shard's part of what is over all units: tensors, parameters, tuples of these."""
    return _changed(value, lambda whole: whole[shard.first : shard.last].clone())


def joined(value: Any, shard: Shard) -> Any:
    """What is over all units, from the shards' parts."""
    return _changed(value, partial(_whole, shard))


def _changed(value: Any, change: Any) -> Any:
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Parameters):
        return value._replace(offset=None).map(change)._replace(offset=value.offset)
    parts = [_changed(part, change) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


def _whole(shard: Shard, part: Tensor) -> Tensor:
    kind = torch.int32 if part.dtype == torch.bool else part.dtype
    whole = part.new_zeros((shard.m, *part.shape[1:]), dtype=kind)
    whole[shard.first : shard.last] = part
    return shard.ranks.filled_in(whole).to(part.dtype)


# --------------------------------------------------------------------------- within a step


def of_all(part: Tensor) -> Tensor:
    """Of something for each unit at hand (h, ...), that for all of them (m, ...)."""
    shard = _now.get()
    return part if shard is None else _whole(shard, part)


def over_all(part: Tensor) -> Tensor:
    """Of a sum over the units at hand, that over all of them."""
    shard = _now.get()
    return part if shard is None else shard.ranks.added([part.clone()])


def mine_of(whole: Tensor) -> Tensor:
    """Of something for all units (m, ...), that for those at hand."""
    shard = _now.get()
    return whole if shard is None else whole[shard.first : shard.last]


def rows_of_all(dictionary: Tensor, atoms: Tensor) -> Tensor:
    """Rows (K, n) of the whole dictionary, by their numbers (K,)."""
    shard = _now.get()
    if shard is None:
        return dictionary[atoms]
    found = dictionary.new_zeros((len(atoms), dictionary.shape[1]))
    here = shard.here(atoms)
    found[here] = dictionary[atoms[here] - shard.first]
    return shard.ranks.filled_in(found)


def placed(dictionary: Tensor, atoms: Tensor, new: Tensor) -> Tensor:
    """The dictionary with other rows (K, n) at the numbers `atoms` (K,)."""
    shard, dictionary = _now.get(), dictionary.clone()
    if shard is None:
        dictionary[atoms] = new
    else:
        here = shard.here(atoms)
        dictionary[atoms[here] - shard.first] = new[here]
    return dictionary


def repeats(dictionary: Tensor, rank: Tensor, cosine: float) -> Tensor:
    r"""Boolean (m,): atoms that have \|cosine\| above `cosine` with one of a lower `rank` (m,)."""
    shard = _now.get()
    assert shard is not None
    found = torch.zeros(len(dictionary), dtype=torch.bool, device=dictionary.device)
    own, n = rank[shard.first : shard.last], dictionary.shape[1]
    for other in range(shard.ranks.size):
        first, last = shard.bounds(other)
        own_turn = other == shard.ranks.rank
        theirs = dictionary if own_turn else dictionary.new_empty((last - first, n))
        theirs = shard.ranks.sent(theirs.contiguous(), other)
        size = max(1, _COSINES // max(1, len(theirs)))
        for start in range(0, len(dictionary), size):
            where = slice(start, start + size)
            close = (dictionary[where] @ theirs.T).abs_() > cosine
            close &= rank[None, first:last] < own[where, None]
            found[where] |= close.any(dim=1)
    return of_all(found)


def codes_of_all(
    parameters: Parameters, data: Tensor, encoder: Activation | Pursuit
) -> SparseCodes:
    """Codes (B, k) of rows that all have, by the numbers of all atoms, in ascending order."""
    shard = _now.get()
    if shard is None:
        return fast_sparse_encode(parameters, data, encoder)
    assert isinstance(encoder, TopK)
    own = _kept(shard, parameters, data, encoder)
    parts = [
        torch.cat(shard.ranks.gathered(part), dim=1)
        for part in (own.indices + shard.first, own.values)
    ]
    order = (~active(parts[1])).to(torch.uint8).argsort(dim=1, stable=True)[:, : encoder.k]
    indices, values = (part.gather(1, order) for part in parts)
    return SparseCodes(torch.where(active(values), indices, 0), values)


def rebuilt_by_all(codes: SparseCodes, dictionary: Tensor) -> Tensor:
    """What such codes rebuild (B, n)."""
    shard = _now.get()
    if shard is None:
        return codes.reconstruct(dictionary)
    here = shard.here(codes.indices)
    own = SparseCodes(
        torch.where(here, codes.indices - shard.first, 0), torch.where(here, codes.values, 0.0)
    )
    return shard.ranks.added([_rebuilt(own, dictionary)])


def _rebuilt(codes: SparseCodes, dictionary: Tensor) -> Tensor:
    """As `codes.reconstruct`, without (B, k, n) numbers at once."""
    rebuilt: Tensor = functional.embedding_bag(
        codes.indices, dictionary, per_sample_weights=codes.values, mode="sum"
    )
    return rebuilt


def _kept(shard: Shard, parameters: Parameters, data: Tensor, encoder: TopK) -> SparseCodes:
    """The codes (B, k) of the units at hand among the k largest of all, ties to the first."""
    codes = fast_sparse_encode(parameters, data, encoder)
    missing = max(0, encoder.k - codes.values.shape[1])
    codes = SparseCodes(*(functional.pad(part, (0, missing)) for part in codes))
    heights = codes.values.abs()
    every = torch.stack(shard.ranks.gathered(heights))  # (P, B, k)
    level = every.movedim(0, 1).flatten(1).topk(encoder.k, dim=1).values[:, -1]  # (B,)
    room = encoder.k - (every > level[:, None]).sum(dim=(0, 2))
    ties = (heights == level[:, None]) & (heights > 0)
    before = (every[: shard.ranks.rank] == level[:, None]).sum(dim=(0, 2))
    # Units ascend within a row, and from shard to shard.
    first = before[:, None] + ties.cumsum(dim=1) <= room[:, None]
    kept = (heights > level[:, None]) | (ties & first)
    return SparseCodes(codes.indices, torch.where(kept, codes.values, 0.0))


def on_shard(shard: Shard, data: Tensor) -> Evaluate:
    """The sums of the batch `data` (B, n) by the units at hand; what is over rows is that of all.

    As :func:`shoal.network.objective.on_batch`.
    """

    def evaluate(
        encoder: Activation | Pursuit,
        penalty: Penalty | Prefixes | None,
        parameters: Parameters,
        generator: torch.Generator | None,
    ) -> StepSums | Terms:
        assert penalty is None
        assert isinstance(encoder, TopK)
        codes = _kept(shard, parameters, data, encoder)
        own = _rebuilt(codes, parameters.dictionary)
        target = data if parameters.offset is None else data - parameters.offset
        whole = shard.ranks.added([own.clone()])
        # The same bits in all of them, which a sum that each makes by itself has not.
        left = target - whole
        sums = objective.on_part(parameters, data, left + own, codes)
        return sums._replace(
            losses=0.5 * left.square().sum(dim=1),
            offset=None if parameters.offset is None else -left.sum(dim=0),
        )

    return evaluate

"""Ranks: processes that share the rows of every step, and take the same one.

Each opens the same data and draws the same order. Of a batch it codes its own rows, and one
all-reduce adds up the sums of all: so each of them has the same parameters after every step, and
the same state. What is small is computed by all of them, from the same rows: search, replacement,
the solution of the polish, the encoder. Only what is written is left to the first one.

    with together():                  # torch.distributed's processes, where it is initialised
        model.fit(X)

With ``together(shard_atoms=P)`` they form a grid: P of them share the atoms of a step as well, and
its rows are shared among such groups. :mod:`shoal.training.shards` has what that asks for.

Floating-point sums depend on their order, and so on the number of processes. Reproducible, a
batch is always cut into :data:`BLOCKS` blocks, each summed by itself, and the blocks are added in
a fixed tree, pair by pair: the same bits for 1, 2, 4 and 8 processes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from shoal.data.access import ALL
from shoal.network import objective
from shoal.network.activations import Activation
from shoal.network.autoencoder import variance
from shoal.network.inference import SparseCodes, fast_sparse_encode
from shoal.network.objective import Evaluate, StepSums, Terms
from shoal.network.penalties import Penalty
from shoal.network.prefixes import Prefixes
from shoal.network.pursuit import Pursuit
from shoal.vocabulary import (
    ArgumentError,
    LostError,
    Parameters,
    RunError,
    ShoalError,
    check_count,
    printable,
)

__all__ = [
    "BLOCKS",
    "Batch",
    "Ranks",
    "apart",
    "check_shards",
    "current",
    "digest_of",
    "together",
]

BLOCKS = 8
"""Parts that a batch is cut into where sums are to be reproducible: those of a usual machine's
GPUs; each costs a pass over the sums."""

# Arbitrary: reductions from one comparison of the parameters to the next, more of them where these
# are more than so many numbers: a digest takes a second for each gigabyte.
_COMPARED, _LARGE = 256, 2**22


class Batch:
    """The rows of a step (B, n), all of them here."""

    def __init__(self, rows: Tensor, evaluate: Evaluate) -> None:
        self._rows, self.evaluate = rows, evaluate

    def __len__(self) -> int:
        """All of them."""
        return len(self._rows)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Some of the rows (K, n), by their numbers (K,)."""
        return self._rows[index]

    @property
    def width(self) -> int:
        """The number n of features."""
        return self._rows.shape[1]

    def squares(self) -> Tensor:
        """The square of each row (B,)."""
        return self._rows.square().sum(dim=1)

    def variance(self) -> Tensor:
        """As :func:`shoal.network.autoencoder.variance`."""
        return variance(self._rows)


class _Seen(NamedTuple):
    """What came with the sums of a shared batch."""

    squares: Tensor  # (B,)
    variance: Tensor  # ()


class SharedBatch(Batch):
    """The rows of a step, of which those from `first` on are here."""

    def __init__(
        self,
        ranks: Ranks,
        rows: Tensor,
        first: int,
        count: int,
        prepared: Callable[[Tensor], Evaluate],
    ) -> None:
        self._ranks, self._rows, self._first, self._count = ranks, rows, first, count
        self._seen: _Seen | None = None
        self._blocks: list[tuple[int, Tensor, Evaluate | None]] = []
        for low, high in ranks.bounds(count):
            block = rows[low - first : high - first]
            # Where a block lies in memory must not matter: a product may begin at its alignment.
            block = block.clone() if ranks.reproducible else block
            self._blocks.append((low, block, prepared(block) if len(block) else None))
        self.evaluate = self._evaluate

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Tensor) -> Tensor:
        found = self._rows.new_zeros((len(index), self.width))
        at = index - self._first
        low, high = self._ranks.own(self._count)
        mine = (index >= low) & (index < high)
        found[mine] = self._rows[at[mine]]
        return self._ranks.filled_in(found)

    def squares(self) -> Tensor:
        assert self._seen is not None
        return self._seen.squares

    def variance(self) -> Tensor:
        assert self._seen is not None
        return self._seen.variance

    def _evaluate(
        self,
        encoder: Activation | Pursuit,
        penalty: Penalty | Prefixes | None,
        parameters: Parameters,
        generator: torch.Generator | None,
    ) -> StepSums | Terms:
        assert penalty is None
        layout = _Layout(parameters, self._count, self._ranks.n_blocks, self.width)
        flat = []
        mine = self._ranks.first_block
        for number, (low, block, evaluate) in enumerate(self._blocks):
            if evaluate is None:
                sums = StepSums.zeros(parameters, 0)
            else:
                found = evaluate(encoder, None, parameters, generator)
                assert isinstance(found, StepSums)
                sums = found
            flat.append(layout.packed(sums, block, low, mine + number))
        whole = self._ranks.added(flat)
        sums, self._seen = layout.unpacked(whole)
        self._ranks.compare(parameters)
        return sums


class _Layout:
    """Where in one vector the sums of a batch lie, with what is known row by row."""

    def __init__(self, parameters: Parameters, count: int, blocks: int, n: int) -> None:
        self._like, self._count, self._blocks, self._n = parameters, count, blocks, n
        self._names = [
            name
            for name in ("dictionary", "bias", "encoder", "threshold", "offset")
            if getattr(parameters, name) is not None
        ]
        m = len(parameters.bias)
        shapes = [getattr(parameters, name).shape for name in self._names]
        if parameters.threshold is not None:  # with the scores near thresholds goes their number
            self._names, shapes = [*self._names, "near"], [*shapes, (m,)]
        # Counts and energy; losses and squares, row by row; count, mean and square of each block.
        self._shapes = [*shapes, (m,), (m,), (count,), (count,), (blocks, n + 2)]

    def packed(self, sums: StepSums, rows: Tensor, low: int, block: int) -> Tensor:
        """The sums of some rows, the first of which is `low`, as one vector."""
        like = self._like.bias
        losses, squares = (like.new_zeros(self._count) for _ in range(2))
        moments = like.new_zeros((self._blocks, self._n + 2))
        if len(rows):
            where = slice(low, low + len(rows))
            losses[where], squares[where] = sums.losses, rows.square().sum(dim=1)
            mean = rows.mean(dim=0)
            moments[block, 0] = len(rows)
            moments[block, 1] = torch.linalg.vector_norm(rows - mean).square()
            moments[block, 2:] = mean
        parts = [getattr(sums, name) for name in self._names]
        parts = [torch.zeros_like(like) if part is None else part for part in parts]
        parts += [sums.counts, sums.energy, losses, squares, moments]
        return torch.cat([part.reshape(-1) for part in parts])

    def unpacked(self, whole: Tensor) -> tuple[StepSums, _Seen]:
        """The sums of all rows."""
        sizes = [torch.Size(shape).numel() for shape in self._shapes]
        parts = [
            part.view(shape)
            for part, shape in zip(torch.split(whole, sizes), self._shapes, strict=True)
        ]
        counts, energy, losses, squares, moments = parts[len(self._names) :]
        named = dict(zip(self._names, parts, strict=False))
        sums = StepSums(**named, losses=losses, counts=counts, energy=energy, n_samples=self._count)
        sizes_, about, means = moments[:, 0], moments[:, 1], moments[:, 2:]
        mean = (sizes_[:, None] * means).sum(dim=0) / self._count
        between = (sizes_ * (means - mean).square().sum(dim=1)).sum()
        return sums, _Seen(squares, 0.5 * (about.sum() + between) / self._count)


@dataclass(frozen=True)
class Ranks:
    """The processes of a fit, and which one this is.

    Parameters
    ----------
    rank, size : int
        Which one, from 0, of how many.
    reproducible : bool
        Whether sums have the same bits for any number of processes.
    group, patient : ProcessGroup, optional
        For what comes with every step, and for what one of them may be waited for.
    atoms, rows : Ranks or None
        Of a grid, those of this process's line that have the same rows and other atoms, and those
        that have the same atoms and other rows; None where atoms aren't shared.
    """

    rank: int = 0
    size: int = 1
    reproducible: bool = False
    group: Any = None
    patient: Any = None
    atoms: Ranks | None = None
    rows: Ranks | None = None
    _calls: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.reproducible and BLOCKS % self.size:
            needed = ", ".join(str(each) for each in range(1, BLOCKS + 1) if BLOCKS % each == 0)
            raise ArgumentError("reproducible", f"{self.size} processes", f"{needed} of them")

    @property
    def alone(self) -> bool:
        """Whether this is an ordinary fit."""
        return self.size == 1 and not self.reproducible

    @property
    def n_blocks(self) -> int:
        """Blocks of a batch, of all processes."""
        return BLOCKS if self.reproducible else self.size

    @property
    def first_block(self) -> int:
        """The number of the first one of this process."""
        return self.rank * (self.n_blocks // self.size)

    @property
    def part(self) -> tuple[int, int]:
        """Which part of how many is to be read of a batch.

        All, where the bits must not depend on how many rows preprocessing sees at a time.
        """
        return ALL if self.reproducible else (self.rank, self.size)

    def bounds(self, count: int) -> list[tuple[int, int]]:
        """Where the blocks of this process begin and end in a batch of `count` rows."""
        blocks, first = self.n_blocks, self.first_block
        numbers = range(first, first + blocks // self.size)
        return [(count * i // blocks, count * (i + 1) // blocks) for i in numbers]

    def own(self, count: int) -> tuple[int, int]:
        """Where the rows of this process begin and end in such a batch."""
        bounds = self.bounds(count)
        return bounds[0][0], bounds[-1][1]

    def batch(
        self,
        rows: Tensor,
        count: int,
        *,
        shared: bool = True,
        prepared: Callable[[Tensor], Evaluate] = objective.on_batch,
    ) -> Batch:
        """A step's batch of `count` rows, from those that were read: by `part` where it is shared.

        `prepared` says how sums are made of rows.
        """
        if self.alone or not shared:
            return Batch(rows, prepared(rows))
        first = 0 if self.part == ALL else self.own(count)[0]
        return SharedBatch(self, rows, first, count, prepared)

    def codes(self, parameters: Parameters, rows: Tensor, pursuit: Pursuit) -> SparseCodes:
        """What a pursuit finds of rows (B, n) that every process has; each codes its own."""
        if self.alone:
            return fast_sparse_encode(parameters, rows, pursuit)
        found = [
            (low, fast_sparse_encode(parameters, rows[low:high].clone(), pursuit))
            for low, high in self.bounds(len(rows))
            if high > low
        ]
        width = self.largest(max((part.indices.shape[1] for _, part in found), default=0))
        indices = rows.new_zeros((len(rows), width), dtype=torch.int64)
        values = rows.new_zeros((len(rows), width))
        for low, part in found:
            where = slice(low, low + len(part.indices)), slice(part.indices.shape[1])
            indices[where], values[where] = part.indices, part.values
        return SparseCodes(self.filled_in(indices), self.filled_in(values))

    # ---------------------------------------------------------------- what goes between them

    def added(self, parts: Sequence[Tensor]) -> Tensor:
        """The sum of the vectors of all processes; in a fixed tree where that is asked for."""
        while len(parts) > 1:
            parts = [one + other for one, other in zip(parts[::2], parts[1::2], strict=True)]
        (whole,) = parts
        if self.size == 1:
            return whole
        with self._heard():
            if not self.reproducible:
                dist.all_reduce(whole, group=self.group)
                return whole
            step = 1
            while step < self.size:
                # Of two numbers the sum is the same in either order.
                whole = whole + self._exchanged(whole, self.rank ^ step)
                step *= 2
        return whole

    def _exchanged(self, mine: Tensor, partner: int) -> Tensor:
        theirs = torch.empty_like(mine)
        peer = partner if self.group is None else dist.get_global_rank(self.group, partner)
        both = [
            dist.P2POp(dist.isend, mine, peer, self.group),
            dist.P2POp(dist.irecv, theirs, peer, self.group),
        ]
        for work in dist.batch_isend_irecv(both):
            work.wait()
        return theirs

    def filled_in(self, part: Tensor) -> Tensor:
        """What all processes have put into a tensor that is 0 elsewhere: to the bit."""
        if self.size == 1:
            return part
        kind = {4: torch.int32, 8: torch.int64}[part.element_size()]
        whole = part.contiguous().view(kind)
        with self._heard():
            dist.all_reduce(whole, group=self.group)
        return whole.view(part.dtype)

    def gathered(self, part: Tensor) -> list[Tensor]:
        """What each process has, all of one shape, in their order."""
        if self.size == 1:
            return [part]
        each = [torch.empty_like(part) for _ in range(self.size)]
        with self._heard():
            dist.all_gather(each, part.contiguous(), group=self.group)
        return each

    def sent(self, part: Tensor, rank: int) -> Tensor:
        """What the process `rank` has, in all of them; `part` is it there, else room for it."""
        if self.size > 1:
            first = rank if self.group is None else dist.get_global_rank(self.group, rank)
            with self._heard():
                dist.broadcast(part, first, group=self.group)
        return part

    def compare(self, parameters: Parameters) -> None:
        """From time to time: whether all processes have the same parameters."""
        self._calls[0] += 1
        every = _COMPARED * max(1, parameters.dictionary.numel() // _LARGE)
        if self.size > 1 and self._calls[0] % every == 0:
            self.agree("parameters", digest_of(parameters))

    def agree(self, what: str, text: str) -> None:
        """Refuse to go on where `text` is another one in another process.

        Raises
        ------
        RunError
            In all of them.
        """
        if self.size == 1:
            return
        mine = hashlib.sha256(text.encode()).digest()
        one = torch.tensor(list(mine), dtype=torch.uint8, device=self._small())
        each = [torch.empty_like(one) for _ in range(self.size)]
        with self._heard():
            dist.all_gather(each, one, group=self.patient)
        others = [i for i, other in enumerate(each) if not torch.equal(other, each[0])]
        if others:
            raise RunError(
                f"processes {', '.join(map(str, others))} of {self.size} have other {what} than "
                "process 0; needed the same in all of them"
            )

    def of_first(self, make: Callable[[], bytes]) -> bytes:
        """What `make` gives in the first process, in all of them; or its error."""
        if self.size == 1:
            return make()
        failed: ShoalError | None = None
        content = b""
        if self.rank == 0:
            try:
                content = b"+" + make()
            except ShoalError as error:
                failed, content = error, b"-" + str(error).encode()
        size = torch.tensor([len(content)], dtype=torch.int64, device=self._small())
        with self._heard():
            dist.broadcast(size, self._first(), group=self.patient)
            held = torch.empty(int(size), dtype=torch.uint8, device=self._small())
            if self.rank == 0:
                held.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            dist.broadcast(held, self._first(), group=self.patient)
        if failed is not None:
            raise failed
        content = held.cpu().numpy().tobytes()
        if content[:1] == b"-":
            raise RunError(printable(content[1:].decode()))
        return content[1:]

    def wait(self) -> None:
        """Until all are here, however long the first one takes."""
        if self.size > 1:
            with self._heard():
                dist.barrier(group=self.patient)

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give."""
        if self.size == 1:
            return number
        held = torch.tensor([number], dtype=torch.int64, device=self._small())
        with self._heard():
            dist.all_reduce(held, dist.ReduceOp.MAX, group=self.group)
        return int(held)

    def _first(self) -> int:
        return 0 if self.patient is None else dist.get_global_rank(self.patient, 0)

    def _small(self) -> torch.device:
        """Where a few numbers are sent from."""
        if "gloo" in str(dist.get_backend_config(self.group)):
            return torch.device("cpu")
        return torch.device("cuda", torch.cuda.current_device())

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """Has the end of another process said in a line."""
        try:
            yield
        except (RuntimeError, dist.DistError) as error:
            # Without the place in torch's code, and its advice.
            said = (re.sub(r"\[[^\]]*\]\s*", "", str(error)).splitlines() or [""])[0]
            reason = printable(said.split(". ")[0].strip() or type(error).__name__, 200)
            raise LostError(
                f"process {self.rank} of {self.size} waited in vain for another one, which has "
                f"ended or does not answer ({reason}); needed all of them: start them again, and "
                "from a checkpoint they go on"
            ) from None


def digest_of(parameters: Parameters) -> str:
    """What tells parameters from others."""
    whole = hashlib.sha256()
    for part in parameters:
        if part is not None:
            whole.update(part.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()


ALONE = Ranks()
_now: ContextVar[Ranks] = ContextVar("ranks", default=ALONE)


def current() -> Ranks:
    """The processes that fits in this context share."""
    return _now.get()


@contextmanager
def apart() -> Iterator[None]:
    """Within it, what this process does is its own."""
    token = _now.set(ALONE)
    try:
        yield
    finally:
        _now.reset(token)


@contextmanager
def together(
    group: Any = None,
    *,
    reproducible: bool = False,
    patient: Any = None,
    shard_atoms: int = 1,
    lost_after: float | None = None,
) -> Iterator[Ranks]:
    """Have fits within the block shared by the processes of a group, which all make the same ones.

    Every process calls the same fits with the same data and arguments, and has the same model after
    each; what one does alone, such as to save it, is done after the block. Of an array, and of a
    file whose rows can be reached, each reads its own rows of a batch.

    Parameters
    ----------
    group : ProcessGroup, optional
        Of `torch.distributed`; all processes by default. Where it is not initialised, this is the
        only process.
    reproducible : bool
        Whether the result has the same bits for 1, 2, 4 and 8 processes, at some cost.
    patient : ProcessGroup, optional
        One with a longer timeout, for what a process may be waited for; `group` by default.
    shard_atoms : int
        Among so many processes the atoms are divided while the k largest codes are learned from;
        it divides their number. `DictionaryAutoencoder.fit` alone takes part. Whatever needs all
        atoms at once (a pursuit, the polish, the fit of an encoder) has them gathered. The result
        is that of one process up to the order of sums.
    lost_after : float, optional
        Seconds in which a process must answer another that shares its atoms or its rows; by
        default those of torch.distributed.

    Raises
    ------
    ArgumentError
        Where so many processes can't be `reproducible`, or can't share the atoms so.

    Examples
    --------
    >>> import numpy as np
    >>> import shoal
    >>> X = np.random.default_rng(0).normal(size=(200, 8))
    >>> with together(reproducible=True) as ranks:
    ...     model = shoal.DictionaryAutoencoder(8, 2, random_state=0).fit(X)
    >>> ranks.size, model.components_.shape
    (1, (8, 8))
    """
    found = Ranks(reproducible=reproducible)
    if dist.is_available() and dist.is_initialized():
        found = Ranks(
            dist.get_rank(group),
            dist.get_world_size(group),
            reproducible,
            group,
            group if patient is None else patient,
        )
    check_shards(shard_atoms, found.size, reproducible=reproducible)
    if shard_atoms > 1:
        found = _grid(found, shard_atoms, lost_after)
    token = _now.set(found)
    try:
        yield found
    finally:
        _now.reset(token)


def check_shards(shard_atoms: int, size: int, *, reproducible: bool = False) -> None:
    """Refuse to divide atoms among so many of `size` processes where that can't be.

    Raises
    ------
    ArgumentError
        That says what can.
    """
    check_count("shard_atoms", shard_atoms)
    if size % shard_atoms:
        processes = "1 process" if size == 1 else f"{size} processes"
        able = ", ".join(str(each) for each in range(1, size + 1) if size % each == 0)
        needed = able if size > 1 else f"1, or a multiple of {shard_atoms} processes by torchrun"
        raise ArgumentError("shard_atoms", f"{shard_atoms} with {processes}", needed)
    if reproducible and shard_atoms > 1:
        found = f"{shard_atoms} with reproducible sums"
        raise ArgumentError(
            "shard_atoms", found, "1, as what shards rebuild adds up in their order"
        )


def _grid(ranks: Ranks, shard_atoms: int, lost_after: float | None) -> Ranks:
    """`ranks` as rows of processes that share the atoms; columns share the rows of data."""
    from torch.distributed.device_mesh import DeviceMesh

    members = dist.get_process_group_ranks(ranks.group or dist.group.WORLD)
    grid = torch.tensor(members).view(-1, shard_atoms)
    waits = {} if lost_after is None else {"timeout": timedelta(seconds=lost_after)}
    # The mesh's own groups would wait as long as the group of all does.
    divided: Callable[..., Any] = dist.new_subgroups_by_enumeration
    lines = [divided(each.tolist(), **waits)[0] for each in (grid.T, grid)]
    kind = "cuda" if "nccl" in str(dist.get_backend_config(ranks.group)) else "cpu"
    mesh = DeviceMesh.from_group(lines, kind, grid, mesh_dim_names=("data", "atoms"))
    rows, atoms = (
        Ranks(dist.get_rank(line), dist.get_world_size(line), group=line, patient=line)
        for line in (mesh.get_group("data"), mesh.get_group("atoms"))
    )
    return replace(ranks, rows=rows, atoms=atoms)

"""Units below units: a forest in which a child is silent unless its parent is active."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from shoal.generative._checks import Array
from shoal.vocabulary import ArgumentError, check_count

__all__ = ["Forest"]


class _Tables(NamedTuple):
    """A forest as the samplers walk it."""

    depth: Array  # (F,) 0 for a unit without a parent
    first_child: Array  # (F + 1,) where a unit's children begin in `children`
    children: Array  # parents' children, one family after the other
    exclusive: Array  # (F,) whether at most one child of the unit survives


@dataclass(frozen=True)
class Forest:
    """Which unit is below which, and what a parent does to its children.

    Parameters
    ----------
    parents : sequence of int of shape (F,)
        The parent of each unit; -1 for a root and for a unit that is in no tree.
    exclusive : bool
        Whether at most one child of each parent is active at a time: of those that fire, one at
        random, all alike, survives.
    scaled : bool
        True: a child's value is multiplied by (its parent's value / its parent's mean), from the
        roots down. False: the parent lets it pass as it is (a gate of 0 or 1).

    Raises
    ------
    ArgumentError
        If a parent is no unit, or a unit is above itself.

    Notes
    -----
    The structure of the toy model in Bussmann et al. (2025), "Learning multi-level features with
    Matryoshka sparse autoencoders", and of SynthSAEBench, arXiv 2602.14687, section 3.

    Examples
    --------
    >>> Forest.regular(7, roots=1, children=2, depth=2).parents
    (-1, 0, 0, 1, 1, 2, 2)
    """

    parents: tuple[int, ...]
    exclusive: bool = True
    scaled: bool = True

    def __post_init__(self) -> None:
        """Check that it is a forest."""
        if isinstance(self.parents, (str, bytes)) or not isinstance(
            self.parents, (Sequence, np.ndarray)
        ):
            raise ArgumentError("parents", repr(self.parents), "a sequence of integers")
        count = len(self.parents)
        stored = tuple(
            check_count("parents", each, low=-1, high=count - 1) for each in self.parents
        )
        if not stored:
            raise ArgumentError("parents", "none", "one a unit")
        for name in ("exclusive", "scaled"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ArgumentError(name, repr(getattr(self, name)), "True or False")
            object.__setattr__(self, name, bool(getattr(self, name)))
        object.__setattr__(self, "parents", stored)
        _ = self._tables

    @classmethod
    def regular(
        cls,
        n_units: int,
        *,
        roots: int,
        children: int = 4,
        depth: int = 3,
        exclusive: bool = True,
        scaled: bool = True,
    ) -> Forest:
        """Trees that are alike, units given out breadth first; what is left over is free.

        Parameters
        ----------
        n_units : int
            F. Where units run out, the last family is smaller and later ones are empty.
        roots : int
            The number of trees, from 1 to F: their roots are the first units.
        children : int
            Children a parent.
        depth : int
            Levels below the roots.
        exclusive, scaled : bool
            As for the class.

        Raises
        ------
        ArgumentError
            If a number can't be used.
        """
        total = check_count("n_units", n_units)
        level = range(check_count("roots", roots, high=total))
        check_count("children", children)
        parents = [-1] * total
        given = len(level)
        for _ in range(check_count("depth", depth, low=0)):
            start = given
            for parent in level:
                for _ in range(min(children, total - given)):
                    parents[given] = parent
                    given += 1
            level = range(start, given)
        return cls(tuple(parents), exclusive, scaled)

    def __len__(self) -> int:
        """The number of units, F."""
        return len(self.parents)

    @cached_property
    def parent(self) -> Array:
        """`parents` as an array, (F,) int64."""
        return np.array(self.parents, dtype=np.int64)

    @cached_property
    def _tables(self) -> _Tables:
        parent = self.parent
        depth = np.where(parent < 0, 0, -1)
        for level in range(len(parent)):
            below = (depth < 0) & (depth[parent] == level)
            if not below.any():
                break
            depth[below] = level + 1
        if (depth < 0).any():
            unit = int(np.flatnonzero(depth < 0)[0])
            raise ArgumentError("parents", f"unit {unit} above itself", "a forest, without circles")
        counts = np.bincount(parent[parent >= 0], minlength=len(parent))
        children = np.argsort(np.where(parent < 0, len(parent), parent), kind="stable")
        return _Tables(
            depth.astype(np.int64),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            children[: counts.sum()].astype(np.int64),
            np.full(len(parent), self.exclusive),
        )

    @property
    def depth(self) -> Array:
        """How far each unit is below its root, (F,)."""
        return self._tables.depth

    def families(self) -> list[tuple[Array, Array]]:
        """Parents (P,) and their children (P, size), those of a depth and size together.

        From the roots down: no parent comes after its children.
        """
        tables = self._tables
        sizes = np.diff(tables.first_child)
        kinds = np.unique(np.stack([tables.depth, sizes])[:, sizes > 0], axis=1).T
        made = []
        for level, size in kinds:
            parents = np.flatnonzero((tables.depth == level) & (sizes == size))
            places = tables.first_child[parents, None] + np.arange(size)
            made.append((parents, tables.children[places]))
        return made

    def compensated(self, frequency: Any) -> Array:
        """How often units must fire by themselves, to be left at about `frequency` by the forest.

        For a child p' = min(1, p / p_parent), times 1 + the sum of the other siblings' p /
        p_parent where siblings exclude each other; a unit without a parent keeps its own.

        Parameters
        ----------
        frequency : array_like of shape (F,)
            Wanted chances, none of a child above its parent's.

        Returns
        -------
        ndarray of shape (F,)

        Raises
        ------
        ArgumentError
            If a child is more frequent than its parent: no forest can do that.

        Notes
        -----
        SynthSAEBench, arXiv 2602.14687. It is a first-order correction: children of a family whose
        frequencies sum to their parent's or more are clipped at 1 and share the parent's rows.

        Examples
        --------
        >>> Forest((-1, 0, 0)).compensated([0.4, 0.1, 0.1]).tolist()
        [0.4, 0.3125, 0.3125]
        """
        wanted = np.asarray(frequency, dtype=np.float64)
        if wanted.shape != (len(self),):
            raise ArgumentError("frequency", f"shape {wanted.shape}", f"({len(self)},): one a unit")
        below = self.parent >= 0
        above = self.parent[below]
        worst = wanted[below] > wanted[above]
        if worst.any():
            child = int(np.flatnonzero(below)[worst][0])
            parent = self.parents[child]
            raise ArgumentError(
                "frequency",
                f"{wanted[child]:.4g} for unit {child}, whose parent {parent} has"
                f" {wanted[parent]:.4g}",
                "a child no more frequent than its parent",
            )
        made = wanted.copy()
        share = np.divide(
            wanted[below], wanted[above], out=np.zeros(below.sum()), where=wanted[above] > 0
        )
        made[below] = share
        if self.exclusive:
            family = np.bincount(above, weights=share, minlength=len(self))
            made[below] *= 1.0 + np.maximum(family[above] - share, 0.0)
        return np.minimum(made, 1.0)

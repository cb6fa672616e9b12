"""Data that come piece by piece: what is kept between two pieces, and a pass over one.

A piece may be a single row. Nothing is counted in pieces: an update is a batch of the recipe's
size, and fewer rows make as much less of one; and what a start is made from (atoms, statistics,
the number of active units) is fixed once there are rows enough for it, not by a first piece that
happens to be small.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from shoal.data import Source, open_source
from shoal.data.joined import JoinedSource
from shoal.training import units
from shoal.training.adaptation import Adapted
from shoal.training.descent import begin, descend
from shoal.training.recipes import Recipe
from shoal.training.revival import Activity
from shoal.training.state import Place, Smoothed, State
from shoal.vocabulary import Parameters

__all__ = ["Carried", "Waiting", "pass_over", "rows_to_start"]

# Rows an atom that a start is made from, and that a number of active units is searched in.
_ROWS_EACH = 10

# Arbitrary: the memory of the rows that are kept until there are enough.
_KEPT_BYTES = 2**28

# Arbitrary: rows of a later piece that say its magnitude.
_LOOKED_AT = 64


def rows_to_start(m: int, n_features: int, *, full_rank: bool) -> int:
    """How many rows a start of `m` atoms wants; where whitened, twice as many as features."""
    most = max(_ROWS_EACH * m, 2 * n_features if full_rank else 0)
    return max(1, min(most, _KEPT_BYTES // (8 * n_features)))


class Waiting(NamedTuple):
    """Rows that are kept until there are enough to start from."""

    rows: tuple[NDArray[Any], ...] = ()  # each (rows, n_features), as they came
    started: int = 0  # rows that the last start was made from

    def and_of(self, source: Source, wanted: int) -> Self | None:
        """What waits after these rows; None where they make `wanted`.

        A stream gives no more rows ahead than are missing.
        """
        missing = wanted - sum(map(len, self.rows))
        if source.n_samples is not None and source.n_samples >= missing:
            return None
        new = _first(source, missing)
        return None if len(new) >= missing else self._replace(rows=(*self.rows, new))

    def before(self, source: Source) -> Source:
        """All rows up to now, those of `source` included, as one source."""
        if not self.rows:
            return source
        if source.n_samples is None:  # in their order
            return open_source(chain(self.rows, source.batches(_LOOKED_AT)))
        return JoinedSource([*map(open_source, self.rows), source])

    def due(self) -> bool:
        """Whether there are twice as many rows as at the last start: time for another."""
        return sum(map(len, self.rows)) >= 2 * self.started

    def begun(self) -> Self:
        """After a start from all these rows."""
        return self._replace(started=sum(map(len, self.rows)))


class Carried(NamedTuple):
    """What one piece hands to the next beside the parameters: see :class:`State`."""

    place: Place
    activity: Activity | None = None
    adapted: Adapted | None = None
    rows: int = 0
    smoothed: Smoothed | None = None
    rule: Any = None
    exponent: int = 0  # of the unit that it is in
    waiting: Waiting | None = None

    @classmethod
    def after(cls, state: State, exponent: int, waiting: Waiting | None = None) -> Self:
        """What `state` hands on, from data times 2^exponent."""
        rule = None if state.finished else state.rule
        return cls(
            state.place,
            state.activity,
            state.adapted,
            state.rows,
            state.smoothed,
            rule,
            exponent,
            waiting,
        )

    def in_unit(self, exponent: int) -> Self:
        """For data times 2^exponent."""
        if self.smoothed is None or exponent == self.exponent:
            return self._replace(exponent=exponent)
        smoothed = self.smoothed.in_unit(exponent - self.exponent)
        return self._replace(exponent=exponent, smoothed=smoothed)

    def counts(self) -> dict[str, Any]:
        """As :func:`shoal.training.begin` takes them."""
        names = ("activity", "adapted", "rows", "smoothed", "rule")
        return {name: getattr(self, name) for name in names}


def _first(source: Source, most: int) -> NDArray[Any]:
    """The first rows, at most so many; a stream keeps them for its next pass."""
    if source.n_samples is None:  # they are its next ones: nothing is random
        return source.draw(most, np.random.default_rng(0), strict=False)
    return source.rows(np.arange(min(most, source.n_samples)))


def unit_of(source: Source, recipe: Recipe, carried: Carried | None) -> int:
    """The exponent of the unit that a later piece is to be in."""
    few = _first(source, _LOOKED_AT)
    if carried is not None and (not few.any() or getattr(recipe.rule, "about_one", False)):
        return carried.exponent
    return units.exponent(few, recipe)


def pass_over(
    parameters: Parameters,
    source: Source,
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    number: int = 0,
    carried: Carried | None = None,
) -> State:
    """The state after one pass over a piece.

    Parameters
    ----------
    parameters : Parameters
        They stay as they are.
    source : Source
        The piece, preprocessed, in the unit that `carried` is in.
    recipe : Recipe
        Its last stage has no end here.
    rng : numpy.random.Generator
        Where the last piece left it.
    number : int
        Updates up to now.
    carried : Carried, optional
        From the piece before.
    """
    plan = recipe.plan(endless=True)
    state = begin(parameters, plan, rng, number=number, **(carried.counts() if carried else {}))
    for state, _ in descend(state, source, plan, passes=1):  # noqa: B007
        pass
    return state

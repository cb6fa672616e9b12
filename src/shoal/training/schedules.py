"""Schedules: values of the step number, fixed before the loop starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shoal.parts import register, stands_for
from shoal.vocabulary import ArgumentError, check_count, check_number

__all__ = [
    "Constant",
    "DecayAtLast",
    "ExponentialDecay",
    "Halving",
    "InverseDecay",
    "Schedule",
]


Schedule = Callable[[int], float]
"""A schedule maps the step number, from 0, to a value."""

stands_for("schedule", Schedule)


@register("schedule")
@dataclass(frozen=True)
class Constant:
    """The same value at every step.

    >>> Constant(0.5)(10)
    0.5
    """

    value: float

    def __call__(self, step: int) -> float:  # noqa: D102
        return self.value


@register("schedule")
@dataclass(frozen=True)
class DecayAtLast:
    """`initial`, in the last `share` of `n_steps` in a straight line to 0, and 0 after them.

    >>> [DecayAtLast(1.0, 4)(s) for s in range(5)]
    [1.0, 1.0, 1.0, 0.5, 0.0]
    """

    initial: float
    n_steps: int
    share: float = 0.5

    def __post_init__(self) -> None:
        check_number("initial", self.initial, low=0.0, open_low=True)
        check_count("n_steps", self.n_steps)
        check_number("share", self.share, low=0.0, high=1.0, open_low=True)

    def __call__(self, step: int) -> float:  # noqa: D102
        return self.initial * min(1.0, max(0.0, (1 - step / self.n_steps) / self.share))


@register("schedule")
@dataclass(frozen=True)
class ExponentialDecay:
    """From `initial` to `final` by a constant factor over `n_steps`, then `final`.

    >>> [round(ExponentialDecay(1.0, 0.01, 2)(s), 4) for s in range(4)]
    [1.0, 0.1, 0.01, 0.01]
    """

    initial: float
    final: float
    n_steps: int

    def __post_init__(self) -> None:
        check_number("initial", self.initial, low=0.0, open_low=True)
        check_number("final", self.final, low=0.0, open_low=True)
        check_count("n_steps", self.n_steps)

    def __call__(self, step: int) -> float:  # noqa: D102
        share = min(step / self.n_steps, 1.0)
        return float(self.initial * (self.final / self.initial) ** share)


@register("schedule")
@dataclass(frozen=True)
class InverseDecay:
    """initial / (1 + step / n_steps): in the long run each sample weighs the same.

    What averages noise out when there is no end to plan for: Robbins and Monro 1951.

    >>> [InverseDecay(1.0, 10)(s) for s in (0, 10, 30)]
    [1.0, 0.5, 0.25]
    """

    initial: float
    n_steps: int

    def __post_init__(self) -> None:
        check_number("initial", self.initial, low=0.0, open_low=True)
        check_count("n_steps", self.n_steps)

    def __call__(self, step: int) -> float:  # noqa: D102
        return float(self.initial / (1 + step / self.n_steps))


@register("schedule")
@dataclass(frozen=True)
class Halving:
    """The bias schedule b <- b/2 of Nguyen et al. 2018, Theorem 4 (i.2) and (iii.2).

    Starts at `initial` (negative or 0) and halves every `every` steps. The theorem has no
    floor, infinitely many samples and stops in time; on finite data every off-support
    unit fires once b is near 0 and the weights are destroyed. `floor` (between `initial`
    and 0) holds the bias there instead.

    >>> [Halving(-1.0, floor=-0.2)(s) for s in range(4)]
    [-1.0, -0.5, -0.25, -0.2]
    """

    initial: float
    floor: float = 0.0
    every: int = 1

    def __post_init__(self) -> None:
        check_number("initial", self.initial, high=0.0)
        check_count("every", self.every)
        if not self.initial <= self.floor <= 0.0:
            raise ArgumentError(
                "floor", f"{self.floor:g}", f"a number from initial={self.initial:g} to 0"
            )

    def __call__(self, step: int) -> float:  # noqa: D102
        return min(self.initial * 0.5 ** (step // self.every), self.floor)

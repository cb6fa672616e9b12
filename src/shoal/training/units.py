"""Units: data of any magnitude are fitted in a unit in which their squares are safe.

The unit differs by a power of 2, which is exact, so that the same data in another unit have the
same atoms, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.data import Source
from shoal.data.access import View
from shoal.network.activations import TopK
from shoal.training.recipes import Recipe
from shoal.vocabulary import ArgumentError, Parameters, Step

__all__ = [
    "LEAST_SQUARED",
    "MOST_SQUARED",
    "changed",
    "exponent",
    "exponents",
    "restored",
    "told_in",
]


# Magnitudes at which nothing in a fit gets lost, however small a share of a square it looks at:
# within them data in another unit give the same bits, if the units' ratio is a power of 2. Data of
# other magnitudes are brought there by one. Arbitrary; measured from 2^-8 to 2^20 in float32.
_LEAST, _MOST = 2.0**-10, 2.0**24

# Squares of data within these can be added up in float64, the type of every measure.
LEAST_SQUARED, MOST_SQUARED = 1e-150, 1e150


def exponents(magnitudes: NDArray[Any]) -> NDArray[np.intc]:
    """Which powers of 2 to multiply by, so that magnitudes lie from `_LEAST` to `_MOST`."""
    out = (magnitudes > 0) & ~((magnitudes >= _LEAST) & (magnitudes <= _MOST))
    return np.where(out, 1 - np.frexp(magnitudes)[1], 0).astype(np.intc)


def _any_unit(recipe: Recipe) -> bool:
    """Whether a fit is the same in every unit, but for the unit of what is learnt."""
    if getattr(recipe.rule, "any_unit", False):
        return recipe.bias is None
    # A subclass of the activation may do anything; rules that follow the gradient move the bias.
    moves = getattr(recipe.rule, "follows_gradient", True)
    return type(recipe.activation) is TopK and recipe.bias is None and not moves


def exponent(sample: NDArray[Any], recipe: Recipe) -> int:
    """The same for all rows that are like `sample`, by the middle one: outliers have no say.

    Raises
    ------
    ArgumentError
        Where the data leave the range of what can be squared, also after that; an activation
        with a threshold, or a bias, is in the data's unit, which then stays.
    """
    sizes = np.abs(sample).max(axis=1)
    if not sizes.any():
        return 0
    largest = float(sizes.max())
    free = _any_unit(recipe)
    exponent = int(exponents(np.median(sizes[sizes > 0]))) if free else 0
    if free and getattr(recipe.rule, "about_one", False):
        exponent = _about_one(sample, exponent)
    # Arbitrary: what is left of the range holds sums over 10^8 squares, and squares of the
    # least stay far above the smallest normal float32.
    least, most = 1e-12, float(np.finfo(sample.dtype).max) ** 0.5 / 1e4
    if free:
        # After the change of unit an outlier can be too large for its type, nothing too small.
        top = np.finfo(sample.dtype).max / 100
        least = max(LEAST_SQUARED, float(np.finfo(sample.dtype).tiny) * 1e3)
        most = min(MOST_SQUARED, most * 2.0**-exponent, float(top))
    if not least <= largest <= most:
        raise ArgumentError(
            "X",
            f"values of up to {largest:.3g} in {sample.dtype}",
            f"a largest one from {least:.3g} to {most:.3g}: change the unit, or use "
            "preprocessing='scale'",
        )
    return exponent


def _about_one(sample: NDArray[Any], exponent: int) -> int:
    """The power of 2 that brings features about their means to a mean square of about 1."""
    safe = np.ldexp(sample, exponent).astype(np.float64)
    squares = np.square(safe - safe.mean(axis=0)).mean(axis=1)
    squares = squares[squares > 0]
    return exponent - round(float(np.log2(np.median(squares))) / 2) if len(squares) else exponent


def changed(source: Source, exponent: int) -> Source:
    """The data times 2^exponent, which is exact."""
    return View(source, lambda batch: np.ldexp(batch, exponent)) if exponent else source


def restored(parameters: Parameters, exponent: int) -> Parameters:
    """What was learnt on data times 2^exponent, in the unit of the data."""
    if not exponent:
        return parameters
    scale = 2.0**-exponent
    return parameters._replace(
        bias=parameters.bias * scale,
        threshold=None if parameters.threshold is None else parameters.threshold * scale,
        offset=None if parameters.offset is None else parameters.offset * scale,
    )


def told_in(step: Step, exponent: int) -> Step:
    """A step on data times 2^exponent, with its losses in the unit of the data."""
    if not exponent:
        return step
    loss, variance = (part.double() * 4.0**-exponent for part in (step.loss, step.variance))
    return step._replace(loss=loss, variance=variance)

"""Worlds by name, and their laws as a person types them.

What ``shoal generate`` and ``shoal check`` are told of a world in words and files becomes the
classes of :mod:`shoal.generative.laws` here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shoal.generative.laws import (
    BernoulliSupport,
    Constant,
    DiscreteSupport,
    Gaussian,
    Rademacher,
    SupportLaw,
    Uniform,
    UniformSupport,
    ValuesLaw,
)
from shoal.generative.models import (
    GenerativeModel,
    IndependentComponents,
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    Rounding,
    SparseCoding,
    sparsity_from_power,
)
from shoal.vocabulary import ArgumentError, check_choice, check_count, check_number

__all__ = [
    "ValuesName",
    "WorldName",
    "block_support",
    "named_world",
    "read_supports",
    "read_weights",
    "values_named",
]

WorldName = Literal["sparse", "nonnegative", "mixture", "independent"]
ValuesName = Literal["uniform", "constant", "rademacher", "gaussian"]

WORLDS = ("sparse", "nonnegative", "mixture", "independent")
VALUES = ("uniform", "constant", "rademacher", "gaussian")

MOST_SUPPORTS = 100_000  # arbitrary; a law that lists more is a matter of minutes and gigabytes


def named_world(
    name: str,
    dictionary: Any,
    *,
    sparsity: int | None = None,
    power: float | None = None,
    rounding: Rounding | None = None,
    supports: Any = None,
    blocks: int | None = None,
    weights: Any = None,
    values: str | None = None,
    low: float | None = None,
    high: float | None = None,
    noise: float = 0.0,
) -> GenerativeModel:
    """A world of one of four kinds, with any of the laws that have a name.

    Parameters
    ----------
    name : {"sparse", "nonnegative", "mixture", "independent"}
        Signed codes, non-negative ones, one component at a time, or units by themselves.
    dictionary : array_like of shape (m, n)
        Atoms as rows of unit norm.
    sparsity : int, optional
        k, the active atoms of a sample (expected, if independent); 3 by default.
    power : float, optional
        Instead of `sparsity`: k = m^power.
    rounding : {"ceil", "floor", "nearest"}, optional
        Of m^power; "ceil" by default.
    supports : sequence of sequences of int, str or path, optional
        Instead of `sparsity`: the possible supports; see :func:`read_supports`.
    blocks : int, optional
        The units are divided into consecutive blocks of this size; a support is one block, or
        as many as `sparsity` has units for.
    weights : sequence of float, str or path, optional
        How likely each listed support, block, component of a mixture, or unit of an independent
        world is, in proportion; see :func:`read_weights`. Equal by default.
    values : {"uniform", "constant", "rademacher", "gaussian"}, optional
        The law of a non-zero: uniform on [low, high]; always `low`; 1 or -1; a standard normal
        kept `low` away from 0. Signs are fair, but for "nonnegative". Uniform by default.
    low, high : float, optional
        1 and 2 by default.
    noise : float
        Standard deviation in each coordinate.

    Returns
    -------
    GenerativeModel

    Raises
    ------
    ArgumentError
        If a number can't be used, or two arguments don't go together.

    Examples
    --------
    >>> from shoal.generative import random_dictionary
    >>> atoms = random_dictionary(8, 6, random_state=0)
    >>> world = named_world("nonnegative", atoms, supports="0,1; 2,3,4", weights="3,1")
    >>> world.p[:5].tolist(), world.k
    ([0.75, 0.75, 0.25, 0.25, 0.25], 3)
    >>> named_world("sparse", atoms, blocks=2, values="rademacher").expected_k
    2.0
    """
    check_choice("world", name, WORLDS)
    m = len(np.asarray(dictionary))
    if rounding is not None and power is None:
        raise ArgumentError("rounding", repr(rounding), "--power with it")
    _at_most_one(sparsity=None if blocks is not None else sparsity, power=power, supports=supports)
    _at_most_one(blocks=blocks, power=power, supports=supports)
    if name in ("mixture", "independent"):
        _refuse(f"a world that is {name}", supports=supports, blocks=blocks)
    chances = None if weights is None else read_weights(weights)
    if name == "mixture":
        _refuse("a mixture, whose code is 1", values=values, low=low, high=high, power=power)
        if sparsity not in (None, 1):
            raise ArgumentError("sparsity", str(sparsity), "1 for a mixture")
        return MixtureOfGaussians(dictionary, weights=_shares(chances, m, "component"), noise=noise)
    law = values_named(values or "uniform", low, high, signed=name != "nonnegative")
    k = 3 if sparsity is None else sparsity
    if power is not None:
        k = sparsity_from_power(m, power, rounding=rounding or "ceil")
    if name == "independent":
        if chances is None:
            return IndependentComponents(dictionary, sparsity=k, values=law, noise=noise)
        return GenerativeModel(dictionary, _bernoulli(chances, m, k), law, noise)
    support: SupportLaw
    if supports is not None:
        support = _listed(read_supports(supports), chances)
    elif blocks is not None:
        support = block_support(m, blocks, sparsity, chances)
    elif chances is not None:
        needed = "listed supports, blocks, a mixture or an independent world with them"
        raise ArgumentError("weights", "supports of one size", needed)
    else:
        support = UniformSupport(check_count("sparsity", k, high=m))
    kind = SparseCoding if name == "sparse" else NonnegativeSparseCoding
    return kind(dictionary, support=support, values=law, noise=noise)


def values_named(
    name: str, low: float | None = None, high: float | None = None, *, signed: bool = True
) -> ValuesLaw:
    """The law of a non-zero; parameters and errors are those of :func:`named_world`.

    >>> values_named("uniform", high=3.0, signed=False)
    Uniform(low=1.0, high=3.0, signed=False)
    >>> values_named("gaussian", 0.5)
    Gaussian(cutoff=0.5, standardize=False, signed=True)
    """
    check_choice("values", name, VALUES)
    if name == "uniform":
        return Uniform(1.0 if low is None else low, 2.0 if high is None else high, signed)
    _refuse(f"values that are {name}", high=high)
    if name == "rademacher":
        _refuse("values of 1 or -1", low=low)
        if not signed:
            needed = "constant, uniform or gaussian: codes of this world are never negative"
            raise ArgumentError("values", "'rademacher'", needed)
        return Rademacher()
    least = 1.0 if low is None else low
    if name == "gaussian":
        return Gaussian(check_number("low", least, low=0.0), signed=signed)
    value = check_number("low", least, low=0.0, open_low=True)
    # A constant of either sign is what a uniform law of no width is.
    return Uniform(value, value, True) if signed else Constant(value)


def block_support(
    n_atoms: int, size: int, sparsity: int | None = None, weights: Any = None
) -> DiscreteSupport:
    """Consecutive blocks of units: one of them, or any sparsity / size of them, at a time.

    Parameters
    ----------
    n_atoms : int
        m, a multiple of `size`.
    size : int
        Units a block.
    sparsity : int, optional
        A multiple of `size`, which it is by default.
    weights : sequence of float, optional
        One a block, in proportion; of several blocks the product counts.

    Raises
    ------
    ArgumentError
        If the sizes don't fit, or the supports would be more than 100 000.

    Examples
    --------
    >>> block_support(6, 2, 4).supports
    ((0, 1, 2, 3), (0, 1, 4, 5), (2, 3, 4, 5))
    """
    check_count("blocks", size, high=n_atoms)
    if n_atoms % size:
        raise ArgumentError("blocks", str(size), f"a size that divides the {n_atoms} atoms")
    k = size if sparsity is None else check_count("sparsity", sparsity, high=n_atoms)
    if k % size:
        raise ArgumentError("sparsity", str(k), f"a multiple of the {size} units of a block")
    count, together = n_atoms // size, k // size
    if (total := math.comb(count, together)) > MOST_SUPPORTS:
        needed = f"at most {MOST_SUPPORTS} supports: fewer or more blocks at a time"
        raise ArgumentError("blocks", f"{total} sets of {together} blocks of {count}", needed)
    shares = _shares(weights, count, "block")
    chosen = list(combinations(range(count), together))
    supports = tuple(
        tuple(unit for block in blocks for unit in range(block * size, (block + 1) * size))
        for blocks in chosen
    )
    if shares is None:
        return DiscreteSupport(supports)
    chances = np.array([np.prod([shares[block] for block in blocks]) for blocks in chosen])
    if not chances.sum() > 0:
        raise ArgumentError("weights", "0 for each set of blocks", f"{together} blocks above 0")
    return DiscreteSupport(supports, tuple((chances / chances.sum()).tolist()))


def read_supports(given: Any) -> list[list[int]]:
    """Supports as lists of units, from words, a file, or lists.

    Parameters
    ----------
    given : str, path or sequence of sequences of int
        Words such as ``"0,1,2; 3,4"``; or the path of a text file with one support per line (units
        separated by commas or spaces, what follows a # is left out), or of a .json file with a
        list of lists. Units count from 0.

    Raises
    ------
    ArgumentError
        That names what can't be read.

    Examples
    --------
    >>> read_supports("0,1,2; 3,4")
    [[0, 1, 2], [3, 4]]
    """
    needed = 'supports such as "0,1,2; 3,4", or a file with one a line'
    if not isinstance(given, (str, Path)):
        return [list(support) for support in given]
    text, path = _text("supports", given, needed)
    if path is not None and path.suffix == ".json":
        listed = _json("supports", text, path)
        if not isinstance(listed, list) or not all(isinstance(each, list) for each in listed):
            raise ArgumentError("supports", f"no list of lists in {path.name}", needed)
        if not listed or any(type(unit) is not int for each in listed for unit in each):
            raise ArgumentError("supports", f"nothing, or no whole number in {path.name}", needed)
        return listed
    lines = _lines(text) if path is not None else text.split(";")
    rows = [line.replace(",", " ").split() for line in lines]
    try:
        found = [[int(word) for word in row] for row in rows]
    except ValueError as error:
        raise ArgumentError("supports", str(error), needed) from None
    if not any(found):
        raise ArgumentError("supports", "none", needed)
    return found


def read_weights(given: Any) -> list[float]:
    """Numbers >= 0, not all 0, from words (``"3, 1, 1"``), a text or .json file, or a sequence.

    Raises
    ------
    ArgumentError
        That names what can't be read.

    Examples
    --------
    >>> read_weights("3, 1")
    [3.0, 1.0]
    """
    needed = 'finite numbers >= 0, not all 0, such as "3, 1, 1", or a file of them'
    if isinstance(given, (str, Path)):
        text, path = _text("weights", given, needed)
        if path is not None and path.suffix == ".json":
            given = _json("weights", text, path)
        else:
            words = " ".join(_lines(text) if path is not None else [text])
            given = words.replace(",", " ").split()
    try:
        numbers = [float(each) for each in given]
    except (TypeError, ValueError) as error:
        raise ArgumentError("weights", str(error), needed) from None
    for number in numbers:
        if not (math.isfinite(number) and number >= 0):
            raise ArgumentError("weights", f"{number:g}", needed)
    if not sum(numbers) > 0:
        raise ArgumentError("weights", "none above 0", needed)
    return numbers


# --- helpers --------------------------------------------------------------------------------


def _text(argument: str, given: str | Path, needed: str) -> tuple[str, Path | None]:
    """What was typed, or what is in the file that was named."""
    if isinstance(given, str) and given.strip(" \t0123456789.,;+-eE") == "":
        return given, None
    path = Path(given).expanduser()
    try:
        return path.read_text(encoding="utf-8"), path
    except FileNotFoundError:
        raise ArgumentError(argument, f"no file at {str(given)!r}", needed) from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise ArgumentError(argument, f"{str(given)!r} ({reason})", needed) from None


def _lines(text: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _json(argument: str, text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ArgumentError(argument, f"{path.name}, no JSON ({error})", "JSON") from None


def _at_most_one(**options: Any) -> None:
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise ArgumentError(given[1], f"{given[0]} as well", "one of the two")


def _refuse(whose: str, **options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise ArgumentError(name, repr(value), f"to be left out with {whose}")


def _shares(weights: Sequence[float] | None, count: int, each: str) -> list[float] | None:
    """`weights`, one `each`, as shares of 1."""
    if weights is None:
        return None
    numbers = read_weights(weights)
    if len(numbers) != count:
        raise ArgumentError("weights", f"{len(numbers)} numbers", f"{count}: one a {each}")
    total = sum(numbers)
    return [number / total for number in numbers]


def _listed(supports: list[list[int]], weights: list[float] | None) -> DiscreteSupport:
    shares = _shares(weights, len(supports), "support")
    return DiscreteSupport(tuple(map(tuple, supports)), None if shares is None else tuple(shares))


def _bernoulli(weights: list[float], m: int, k: float) -> BernoulliSupport:
    """Units in proportion to their weights, k active ones expected."""
    shares = _shares(weights, m, "unit")
    assert shares is not None
    size = check_number("sparsity", k, low=0.0, high=float(m), open_low=True)
    if max(shares) * size > 1:
        most = 1 / max(shares)
        needed = f"at most {most:.3g}: the likeliest unit would be active more often than always"
        raise ArgumentError("sparsity", f"{size:g}", needed)
    return BernoulliSupport(tuple(share * size for share in shares))

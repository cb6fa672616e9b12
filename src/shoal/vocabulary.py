"""The words of shoal: shapes, records, checks and errors. Every room speaks in these.

Orientation, said once for the whole library: **atoms are rows**.

==============  ============  ====================================================
word            shape         meaning
==============  ============  ====================================================
data ``y``      ``(N, n)``    N samples of n features
dictionary      ``(m, n)``    m atoms of n features; the papers write A* and W with
                              atoms as columns, here they are always rows
code ``x``      ``(N, m)``    one coefficient a sample and atom
bias ``b``      ``(m,)``      one a unit
support         ``(N, k)``    the indices of the active units of each sample
==============  ============  ====================================================

A unit is **active** on a sample where its code is not 0 (:func:`active`). Support, L0,
activation fraction and dead atoms all follow from that one definition.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args, get_origin

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ArgumentError",
    "Parameters",
    "RunError",
    "ShoalError",
    "SourceError",
    "SourceWarning",
    "Step",
    "WriteError",
    "__version__",
    "active",
    "check_choice",
    "check_count",
    "check_number",
    "fits",
    "printable",
    "warn",
]


__version__ = "0.1.0"


def printable(text: str, longest: int = 400) -> str:
    r"""`text` in one line, as a terminal may show it.

    Control characters become escapes, since a name in a file may hold codes that a
    terminal obeys; a text longer than `longest` loses its middle.

    >>> print(printable("a" + chr(27) + "[2Jb"))
    a\x1b[2Jb
    """
    half = longest // 2
    cut = text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"
    escaped = (each if each.isprintable() else ascii(each)[1:-1] for each in cut)
    return cut if cut.isprintable() else "".join(escaped)


class ShoalError(Exception):
    """Base of every error that shoal raises on purpose; its text is one line.

    Examples
    --------
    >>> import shoal
    >>> try:
    ...     shoal.DictionaryAutoencoder(0).fit([[1.0, 2.0]])
    ... except shoal.ShoalError as error:
    ...     print(error)
    n_components: found 0; needed an integer >= 1
    """

    def __init__(self, *args: object) -> None:
        shown = (printable(each, 2000) if isinstance(each, str) else each for each in args)
        super().__init__(*shown)


class ArgumentError(ShoalError, ValueError):
    """An argument can't be used.

    Parameters
    ----------
    argument : str
        The name of the argument, as the caller wrote it.
    found : str
        What was found.
    needed : str
        What would do.

    Examples
    --------
    >>> from shoal import ArgumentError
    >>> str(ArgumentError("k", "9", "a whole number of at most 8"))
    'k: found 9; needed a whole number of at most 8'
    """

    def __init__(self, argument: str, found: str, needed: str) -> None:
        self.argument, self.found, self.needed = argument, printable(found), printable(needed)
        super().__init__(f"{argument}: found {self.found}; needed {self.needed}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.argument, self.found, self.needed)


class SourceError(ArgumentError):
    """A data source is missing, unreadable, of another type or inconsistent.

    Examples
    --------
    >>> import shoal
    >>> try:
    ...     shoal.open_source("missing.npy")
    ... except shoal.SourceError as error:
    ...     print(error.argument, error.found, sep=": ")
    source: no file at 'missing.npy'
    """


class SourceWarning(UserWarning):
    """Something about the data that their user should know: what was left out, for one."""


class RunError(ShoalError):
    """A run folder is missing, incomplete, or would be overwritten.

    Examples
    --------
    >>> import shoal
    >>> try:
    ...     shoal.load_run("no/such/run")
    ... except shoal.RunError as error:
    ...     print(error)
    no/such/run: found nothing; needed a run folder, as `shoal fit` writes it
    """


class WriteError(RunError):
    """A result could not be written; under its name is what was there, or the new one whole."""


class LostError(RunError):
    """Another process that shares a fit has ended, or does not answer."""


class Parameters(NamedTuple):
    """The weights: x = sigma(y E^T + b; theta), y_hat = x D + c.

    In the tied autoencoder, the default and the subject of this library, the encoder E is the
    dictionary D. What isn't there is None: no encoder of its own, no thresholds, no offset.

    Examples
    --------
    >>> import torch
    >>> from shoal.vocabulary import Parameters
    >>> parameters = Parameters(torch.eye(3), torch.zeros(3))
    >>> parameters.encoder is None, tuple(parameters.dictionary.shape)
    (True, (3, 3))
    """

    dictionary: Tensor  # (m, n) D
    bias: Tensor  # (m,) b
    encoder: Tensor | None = None  # (m, n) E
    threshold: Tensor | None = None  # (m,) theta, for an activation that learns it
    offset: Tensor | None = None  # (n,) c

    def map(self, change: Callable[[Tensor], Tensor]) -> Parameters:
        """The parameters with `change` done to every part that is there."""
        dictionary, *others = (None if part is None else change(part) for part in self)
        assert dictionary is not None
        return Parameters(dictionary, *others)  # type: ignore[arg-type]

    def parts(self) -> list[Tensor]:
        """The parts that are there, in their order: what has a gradient."""
        return [part for part in self if part is not None]

    def units(self, kept: Tensor) -> Parameters:
        """The parameters of the units `kept`, a boolean (m,) or indices."""
        chosen = self._replace(offset=None).map(lambda part: part[kept])
        return chosen._replace(offset=self.offset)

    @property
    def tied(self) -> bool:
        """Whether these are the weights x = sigma(y D^T + b), y_hat = x D and nothing else."""
        return self.encoder is None and self.threshold is None and self.offset is None


class Step(NamedTuple):
    """What training yields after every update: the moving state and what it cost."""

    number: int  # updates so far, from 1; a polish counts its rounds
    phase: str  # "search" (of a k), "descent", "refinement", "finish", "polish" or "encoder"
    progress: float  # share of this phase's planned work that is done, at most 1
    parameters: Parameters  # after the update
    loss: Tensor  # () 1/2 |y - y_hat|^2 a sample, measured before the update
    variance: Tensor  # () 1/2 |y - mean|^2 a sample: 1 - loss/variance is explained variance
    learning_rate: float | None
    activation_fraction: Tensor  # () share of the (sample, unit) pairs that are active
    replaced: int  # atoms replaced or split at this step


def active(codes: Any) -> Any:
    """Where a unit is active: its code is not 0. Same shape as `codes`, boolean.

    Works on NumPy arrays and torch tensors alike.

    Examples
    --------
    >>> import numpy as np
    >>> from shoal.vocabulary import active
    >>> active(np.array([0.0, -0.5, 2.0])).tolist()
    [False, True, True]
    """
    return codes != 0


def warn(text: str, kind: type[Warning] = UserWarning) -> None:
    """Warn at the line outside of shoal that led here, so that Python shows it once a line."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] == "shoal":
        level, frame = level + 1, frame.f_back
    warnings.warn(text, kind, stacklevel=level)


def check_count(argument: str, value: Any, *, low: int = 1, high: int | None = None) -> int:
    """`value` as an int in ``[low, high]``, or an `ArgumentError` that names `argument`.

    Examples
    --------
    >>> from shoal.vocabulary import check_count
    >>> check_count("k", 3, high=8)
    3
    >>> check_count("k", 0, high=8)
    Traceback (most recent call last):
        ...
    shoal.vocabulary.ArgumentError: k: found 0; needed an integer from 1 to 8
    """
    needed = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool):
        raise ArgumentError(argument, repr(value), needed)
    try:
        count = value.__index__()
    except (AttributeError, TypeError):
        raise ArgumentError(argument, repr(value), needed) from None
    if count < low or (high is not None and count > high):
        raise ArgumentError(argument, str(count), needed)
    return int(count)


def check_number(
    argument: str,
    value: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    open_low: bool = False,
) -> float:
    """`value` as a finite float within the bounds, or an `ArgumentError`.

    `open_low` excludes `low` itself.

    Examples
    --------
    >>> from shoal.vocabulary import check_number
    >>> check_number("noise", 1, low=0)
    1.0
    >>> check_number("noise", -1, low=0)
    Traceback (most recent call last):
        ...
    shoal.vocabulary.ArgumentError: noise: found -1; needed a finite number >= 0
    """
    bounds = []
    if low is not None:
        bounds.append(f"{'>' if open_low else '>='} {low:g}")
    if high is not None:
        bounds.append(f"<= {high:g}")
    needed = " ".join(["a finite number", " and ".join(bounds)]).strip()
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ArgumentError(argument, repr(value), needed) from None
    below = low is not None and (number <= low if open_low else number < low)
    above = high is not None and number > high
    if number != number or number in (float("inf"), float("-inf")) or below or above:
        raise ArgumentError(argument, f"{number:g}", needed)
    return number


def check_choice(argument: str, value: Any, choices: Any) -> Any:
    """`value` if it is one of `choices`, or an `ArgumentError` that lists them.

    Examples
    --------
    >>> from shoal.vocabulary import check_choice
    >>> check_choice("model", "sparse", ("sparse", "nonnegative"))
    'sparse'
    >>> check_choice("model", "dense", ("sparse", "nonnegative"))
    Traceback (most recent call last):
        ...
    shoal.vocabulary.ArgumentError: model: found 'dense'; needed one of 'sparse', 'nonnegative'
    """
    options = list(choices)
    # By type first: to compare an array with a word gives an array.
    if not any(type(value) is type(option) and value == option for option in options):
        raise ArgumentError(argument, repr(value), "one of " + ", ".join(map(repr, options)))
    return value


def fits(value: Any, hint: Any, families: Any = None) -> bool:
    """Whether `value` is of the type that a type hint names.

    An int is a float, a bool is neither, and a float is finite. A type that can't be asked for,
    such as a protocol or a callable, stands in `families` with the classes that are of it; a type
    that doesn't, and can't be asked for, fits nothing.

    >>> fits(3, int | None), fits(True, int), fits((1.0, 2.0), tuple[float, ...])
    (True, False, True)
    >>> fits({"a": 1}, dict[str, int] | None), fits([1], dict[str, int])
    (True, False)
    >>> fits("unit", Literal["unit", "free"]), fits("long", Literal["unit", "free"])
    (True, False)
    """
    if families is not None and hint in families:
        return isinstance(value, families[hint])
    if isinstance(hint, UnionType) or get_origin(hint) is Union:
        return any(fits(value, each, families) for each in get_args(hint))
    if hint in (None, type(None)):
        return value is None
    if get_origin(hint) is Literal:
        return any(type(value) is type(each) and value == each for each in get_args(hint))
    if isinstance(get_origin(hint), type) and get_origin(hint) is not tuple:
        return isinstance(value, get_origin(hint))  # a mapping; what is in it is asked where used
    if get_origin(hint) is tuple:
        each = get_args(hint)[0]
        return isinstance(value, tuple) and all(fits(item, each, families) for item in value)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if hint in (int, bool, str):
        return type(value) is hint
    return (
        isinstance(hint, type)
        and not getattr(hint, "_is_protocol", False)
        and isinstance(value, hint)
    )

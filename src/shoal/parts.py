"""Parts register themselves: activations, penalties, schedules, rules, recipes and the like.

A part is a value: a frozen dataclass; or what those rooms ask for: a function that makes a recipe,
a `shoal.data.readers.Reader`, a `shoal.papers.Experiment`. Decorated once where it is defined, ::

    @register("activation", "shrink")
    @dataclass(frozen=True)
    class SoftThreshold:
        ...

it is known by its name where names are taken, and written to and read from a run's files. A part
of a user's own is registered in the same way, in a file of their own; that file has to be imported
before a run that holds such a part is read (on the command line with ``--plugin MODULE``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from shoal.vocabulary import ArgumentError, check_choice, fits

__all__ = [
    "KINDS",
    "check_storable",
    "describe",
    "memories",
    "named",
    "register",
    "restore",
    "stands_for",
]

KINDS = (
    "activation",
    "constraint",
    "experiment",
    "memory",
    "part",
    "penalty",
    "pursuit",
    "reader",
    "recipe",
    "rule",
    "schedule",
)
"""What can be registered; "part" is a value class that only has to be stored, "memory" a NamedTuple
that a rule carries from step to step, which checkpoints hold."""

_named: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
_classes: dict[str, type] = {}
_memories: dict[str, type] = {}
_kinds: dict[str, list[type]] = {kind: [] for kind in KINDS}
_protocols: dict[Any, list[type]] = {}  # what a type in a part's fields stands for


def stands_for(kind: str, protocol: Any) -> None:
    """Say that a field of the type `protocol` holds a registered part of this kind."""
    _protocols[protocol] = _kinds[kind]


T = TypeVar("T")


def register(kind: str, name: str | None = None) -> Callable[[T], T]:
    """A decorator that makes a part known.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    name : str, optional
        What it is called where names are taken; without one it can only be stored.

    Raises
    ------
    ArgumentError
        Where the name, or the name of the class, is another part's already.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @register("schedule", "straight")
    ... @dataclass(frozen=True)
    ... class Straight:
    ...     slope: float = 1.0
    ...
    ...     def __call__(self, step: int) -> float:
    ...         return self.slope * step
    >>> describe(Straight(0.5))
    {'kind': 'Straight', 'slope': 0.5}
    >>> restore(describe(Straight(0.5)))(4)
    2.0
    >>> _ = _forget("schedule", "straight")
    """
    names = _named[check_choice("kind", kind, KINDS)]

    def decorate(part: T) -> T:
        if isinstance(part, type) and is_dataclass(part):
            _keep(_classes, part.__name__, part, "the name of the class")
            _kinds[kind].append(part)
        elif isinstance(part, type) and kind == "memory":
            _keep(_memories, part.__name__, part, "the name of the class")
        if name is not None:
            _keep(names, name, part, "name")
        return part

    return decorate


def _keep(known: dict[str, Any], name: str, part: Any, what: str) -> None:
    other = known.get(name)
    # A module that is read again, as by a notebook, replaces its own parts.
    same = other is not None and _origin(other) == _origin(part)
    if other is not None and not same:
        raise ArgumentError(what, repr(name), f"another: {_origin(other)} has it")
    known[name] = part


def _origin(part: Any) -> str:
    # A value that is no class says by a function in it where it is from.
    asked = getattr(part, "made_by", part)
    asked = asked if hasattr(asked, "__qualname__") else type(asked)
    return f"{asked.__module__}.{asked.__qualname__}"


def _forget(kind: str, name: str) -> Any:
    """Take a part back, for tests."""
    part = _named[kind].pop(name)
    if _classes.pop(getattr(part, "__name__", ""), None) is not None:
        _kinds[kind].remove(part)
    return part


def named(kind: str) -> Mapping[str, Any]:
    """All parts of a kind that have a name, as a view that follows what is registered."""
    return MappingProxyType(_named[check_choice("kind", kind, KINDS)])


def memories() -> Mapping[str, type]:
    """The registered memories of rules, by the names of their classes."""
    return MappingProxyType(_memories)


def describe(part: Any, argument: str = "recipe") -> Any:
    """A value, or a part with parts in it, as plain values for JSON; :func:`restore` undoes it.

    Parameters
    ----------
    part : Recipe, activation, penalty, ...
        Parts within parts, numbers, words.
    argument : str
        What an error calls it.

    Raises
    ------
    ArgumentError
        At a part that is not registered, which a file can't hold.

    Examples
    --------
    >>> from shoal.network.penalties import Contractive
    >>> from shoal.parts import describe
    >>> describe(Contractive(0.5))
    {'kind': 'Contractive', 'strength': 0.5, 'kink': 0.0}
    """
    return _described(part, argument, "")


def _described(part: Any, argument: str, where: str) -> Any:
    if part is None or isinstance(part, (bool, str)):
        return part
    if isinstance(part, Integral):
        return int(part)
    if isinstance(part, Real):
        return float(part)
    if isinstance(part, (tuple, list)):
        return [_described(each, argument, where) for each in part]
    name = type(part).__name__
    if _classes.get(name) is not type(part):
        raise ArgumentError(argument, *_not_storable(part, name, where))
    values = {
        field.name: _described(getattr(part, field.name), argument, f" in {name}.{field.name}")
        for field in fields(_classes[name])
    }
    return {"kind": name, **values}


def _not_storable(part: Any, name: str, where: str) -> tuple[str, str]:
    how = 'shoal.parts.register("KIND", "NAME") above its class'
    if isinstance(part, type) or not hasattr(part, "__qualname__"):
        return (
            f"a part of type {name}{where}, which no file can hold",
            f"one that is registered: {how}",
        )
    # A function has no fields to be written and no name that is known elsewhere.
    found = f"the function {part.__qualname__}{where}, which no file can hold"
    return found, f"a value class of your own that calls it and is registered: {how}"


def restore(description: Any, kind: str | type | None = None) -> Any:
    """What :func:`describe` described.

    Parameters
    ----------
    description : plain values
    kind : str or type, optional
        What it must turn out to be: one of `KINDS`, or a class.

    Raises
    ------
    ArgumentError
        That names the part, or the value in it, that is none or is of another type.

    Examples
    --------
    >>> from shoal.network.penalties import Contractive
    >>> from shoal.parts import describe, restore
    >>> restore(describe(Contractive(0.5))) == Contractive(0.5)
    True
    """
    found = _restored(description)
    if isinstance(kind, str) and type(found) not in _kinds[kind]:
        raise ArgumentError(kind, repr(found), f"the description of a registered {kind}")
    if isinstance(kind, type) and not isinstance(found, kind):
        raise ArgumentError("recipe", repr(found), f"the description of a {kind.__name__}")
    return found


def _restored(description: Any) -> Any:
    if isinstance(description, list):
        return tuple(map(_restored, description))
    if not isinstance(description, dict):
        return description
    name = description.get("kind")
    if not isinstance(name, str) or name not in _classes:
        needed = "a registered part; one of your own must be imported first (--plugin MODULE)"
        raise ArgumentError("recipe", f"the kind {name!r}", needed)
    part, hints = _classes[name], _hints(_classes[name])
    values = {key: _restored(value) for key, value in description.items() if key != "kind"}
    known = [field.name for field in fields(part)]
    for key, value in values.items():
        if key not in known:
            raise ArgumentError(name, f"a value {key!r}", f"one of {', '.join(known) or 'none'}")
        if not fits(value, hints[key], {each: tuple(of) for each, of in _protocols.items()}):
            needed = getattr(hints[key], "__name__", str(hints[key]))
            raise ArgumentError(f"{name}.{key}", repr(value), f"a value of type {needed}")
    return part(**values)


@cache
def _hints(part: type) -> dict[str, Any]:
    return get_type_hints(part)


def check_storable(part: Any, argument: str = "recipe") -> None:
    """Refuse a part that can't be written to a run's files, before any work starts.

    Examples
    --------
    >>> from shoal.network.penalties import Contractive
    >>> from shoal.parts import check_storable
    >>> check_storable(Contractive(0.5))
    >>> check_storable(object())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    shoal.vocabulary.ArgumentError: recipe: found a part of type object, which no file can hold...
    """
    describe(part, argument)

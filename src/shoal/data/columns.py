"""The columns of a table by name: which are features, in which order, and what is left out.

A column is what its name says, wherever it stands. Names decide which columns are chosen
(:func:`choose`), whether a table is one of those that a model knows, and in which order its
columns are read (:func:`aligned`).
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from shoal.data.access import Source, Truth, View
from shoal.vocabulary import ArgumentError, SourceError

__all__ = ["Choice", "Column", "aligned", "choose", "clipped", "positions", "selected"]

# Kinds of columns: a feature, or a list of numbers that is a whole row. Any other kind is the
# word for what the column holds and why it is no feature: "text", "dates", "pandas' index".
NUMBER, LIST = "number", "list"

_LISTED = 5  # names in a message; a table may have thousands


class Column(NamedTuple):
    """What a table says of one of its columns."""

    name: Hashable
    kind: str


class Choice(NamedTuple):
    """Which columns of a table are the features."""

    positions: list[int]  # in the table, in the order of the features
    names: tuple[str, ...] | None  # of the features
    left_out: dict[str, str]  # that nobody asked to leave out, with what they hold
    a_list: bool  # whether the one column chosen holds a whole row

    def notes(self, name: str) -> tuple[str, ...]:
        """What to tell the user."""
        if not self.left_out:
            return ()
        kinds: dict[str, list[str]] = {}
        for column, kind in self.left_out.items():
            kinds.setdefault(kind, []).append(column)
        said = "; ".join(f"{kind}: {clipped(names)}" for kind, names in kinds.items())
        return (f"{name}: left out of the features ({said})",)


def clipped(names: Iterable[Hashable]) -> str:
    """A list of names, cut to a few."""
    listed = list(names)
    more = len(listed) - _LISTED
    shown = ", ".join(_bare(name) for name in listed[:_LISTED])
    return f"{shown} and {more} more" if more > 0 else shown


def _bare(name: Hashable) -> str:
    """Without quotes, unless the name would then not be seen as one."""
    plain = isinstance(name, str) and name.isprintable() and name and not set(name) & set(" ,;'")
    return str(name) if plain and len(str(name)) <= 60 else _short(name)


def _short(name: Hashable, most: int = 60) -> str:
    text = repr(name)
    return text if len(text) <= most else f"{text[: most - 4]}...{text[0]}"


def named(names: Sequence[Hashable]) -> tuple[str, ...] | None:
    """The names if all are text, None if none is, as scikit-learn has it; else an error."""
    texts = [isinstance(name, str) for name in names]
    if not any(texts):
        return None
    if not all(texts):
        odd = next(name for name, text in zip(names, texts, strict=True) if not text)
        found = f"a column name of type {type(odd).__name__}, {_short(odd)}, beside text"
        raise SourceError("data", found, "names that are all text, or all not")
    return tuple(str(name) for name in names)


def _nearest(name: str, names: Sequence[str]) -> list[str]:
    """The name most like `name`, if one is; among the first thousands, since it takes long."""
    few = names[:5000]
    same = [other for other in few if other.casefold().strip() == name.casefold().strip()]
    return same[:1] or difflib.get_close_matches(name, few, 1, 0.6)


def _unknown(argument: str, wanted: Any, names: Sequence[Hashable], where: str) -> ArgumentError:
    close = _nearest(str(wanted), [str(name) for name in names])
    needed = f"one of the {len(names)} columns of {where}: {clipped(names)}"
    if close:
        needed = f"a column of {where}; the nearest is {_short(close[0])}"
    return ArgumentError(argument, _short(wanted), needed)


def positions(argument: str, wanted: Any, names: Sequence[Hashable], where: str) -> list[int]:
    """The positions of columns given by name, or by number from 0.

    A number is a position, unless it is itself the name of a column; a text with commas that is
    no column's name is several names.

    Raises
    ------
    ArgumentError
        For a name that isn't there, which says the nearest; for one that is there twice, or
        asked for twice.
    """
    listed = [wanted] if isinstance(wanted, (str, int, np.integer)) else list(wanted)
    if not listed:
        raise ArgumentError(argument, "no name", "names of columns")
    counts = Counter(names)
    place = {name: i for i, name in enumerate(names)}
    # On a command line several names are one text, separated by commas.
    listed = [part for each in listed for part in _separated(each, place)]
    without = not any(isinstance(name, str) for name in names)
    found = []
    for each in listed:
        known = isinstance(each, Hashable) and each in place
        if known and counts[each] > 1:
            found_twice = f"{_short(each)}, the name of {counts[each]} columns of {where}"
            raise ArgumentError(argument, found_twice, "a name of one column, or its number")
        if known:
            found.append(place[each])
            continue
        # Numbers from a command line are text; no column has a name to mistake them for.
        number = int(each) if without and isinstance(each, str) and each.isdecimal() else each
        if isinstance(number, (int, np.integer)) and not isinstance(number, bool):
            if not 0 <= number < len(names):
                needed = f"a number from 0 to {len(names) - 1}, the columns of {where}"
                raise ArgumentError(argument, str(number), needed)
            found.append(int(number))
            continue
        if without:
            needed = f"numbers from 0 to {len(names) - 1}: the columns of {where} have no names"
            raise ArgumentError(argument, _short(each), needed)
        raise _unknown(argument, each, names, where)
    seen: set[int] = set()
    for each, position in zip(listed, found, strict=True):
        if position in seen:
            raise ArgumentError(argument, f"{_short(each)} twice", "each column once")
        seen.add(position)
    return found


def _separated(name: Any, known: Any) -> list[Any]:
    if not isinstance(name, str) or name in known or "," not in name:
        return [name]
    return [part if part in known else part.strip() for part in name.split(",")]


def choose(columns: Sequence[Column], options: Any, where: str) -> Choice:
    """The features of a table, as the options ``columns``, ``drop`` and ``key`` say.

    Without a word from the user these are the numeric columns, or the one column of lists.

    Raises
    ------
    SourceError
        Where there is no such column, or both kinds; where two features have one name.
    ArgumentError
        Where an option names a column that isn't there, or holds no numbers.
    """
    names = [column.name for column in columns]
    asked = {word: options.get(word) for word in ("key", "columns", "drop")}
    if asked["columns"] is not None and asked["drop"] is not None:
        found = f"{clipped(_several(asked['drop']))} beside columns="
        raise ArgumentError("drop", found, "one of columns= and drop=")
    word = "key" if asked["key"] is not None else "columns"
    if asked["key"] is not None and asked["key"] not in names:
        needed = f"one of the columns in {where}: {clipped(names)}"
        raise ArgumentError("key", repr(asked["key"]), needed)
    dropped: set[int] = set()
    if asked[word] is not None:
        chosen = positions(word, asked[word], names, where)
        kinds = {columns[i].kind for i in chosen}
        for i in chosen:
            if columns[i].kind not in (NUMBER, LIST) and not columns[i].kind.endswith("index"):
                found = f"{_short(names[i])}, which holds {columns[i].kind}"
                raise ArgumentError(word, found, "columns of numbers")
        numbers = [i for i in chosen if columns[i].kind != LIST]
        lists = [i for i in chosen if columns[i].kind == LIST]
        rest: dict[str, str] = {}
    else:
        if asked["drop"] is not None:
            dropped = set(positions("drop", asked["drop"], names, where))
        kept = [i for i in range(len(columns)) if i not in dropped]
        numbers = [i for i in kept if columns[i].kind == NUMBER]
        lists = [i for i in kept if columns[i].kind == LIST]
        kinds = {NUMBER, LIST}
        rest = {str(names[i]): columns[i].kind for i in kept if columns[i].kind not in kinds}
    if len(lists) > 1 or (lists and numbers):
        raise SourceError(
            "source",
            f"{where} with {len(numbers)} numeric and {len(lists)} list columns",
            f"key= one of {clipped(names[i] for i in [*lists, *numbers])}",
        )
    if not lists and not numbers:
        said = clipped(names) if names else "none"
        needed = "numeric columns, or one list column of numbers"
        raise SourceError("source", f"{where} with columns {said}", needed)
    features = lists or numbers
    if lists:
        return Choice(features, None, rest, True)
    known = named([names[i] for i in features])
    if known is not None and len(set(known)) < len(known):
        twice = next(name for name, count in Counter(known).items() if count > 1)
        needed = "names that differ (columns= and drop= also take numbers of columns)"
        raise SourceError("source", f"{where} with two columns named {_short(twice)}", needed)
    return Choice(features, known, rest, False)


def _several(wanted: Any) -> list[Any]:
    return [wanted] if isinstance(wanted, (str, int)) else list(wanted)


def selected(
    source: Source, index: Sequence[int], feature_shape: Sequence[int] | None = None
) -> Source:
    """Some columns of a source, in the order of `index`."""
    columns = np.asarray(index, dtype=np.intp)
    names, truth = source.feature_names, source.truth
    return View(
        source,
        lambda batch: np.take(batch, columns, axis=1),
        n_features=len(columns),
        feature_shape=feature_shape,  # the source's own is of all columns in their order
        feature_names=None if names is None else [names[i] for i in columns],
        truth=None if truth is None else Truth(truth.dictionary[:, columns], truth.codes),
    )


def aligned(source: Source, names: Sequence[str], whose: str, argument: str = "X") -> Source:
    """A source of named columns with these columns in this order.

    Parameters
    ----------
    source : Source
        With `feature_names`.
    names : sequence of str
        In the order wanted.
    whose : str
        Where they are from, for messages: "the model was fitted with".
    argument : str
        Named in errors.

    Raises
    ------
    ArgumentError
        If a column is missing, or one too many is there.
    """
    assert source.feature_names is not None
    if source.feature_names == tuple(names):
        return source
    place = {name: i for i, name in enumerate(source.feature_names)}
    known = set(names)
    missing = [name for name in names if name not in place]
    extra = [name for name in source.feature_names if name not in known]
    if not missing and not extra:
        return selected(source, [place[name] for name in names])
    found = []
    if missing:
        words = f"no {_plural('column', missing)} {clipped(missing)}"
        other = [(name, source.left_out[name]) for name in missing if name in source.left_out]
        close = _nearest(missing[0], extra)
        if other:
            words += f" of numbers ({_short(other[0][0])} holds {other[0][1]})"
        elif close:
            words += f" (the nearest to {_short(missing[0])} is {_short(close[0])})"
        found.append(words)
    if extra:
        found.append(f"{_plural('column', extra)} {clipped(extra)} too many")
    needed = f"the {len(names)} columns {whose}, in any order"
    if extra and not missing:
        needed += ": columns= and drop= of open_source choose"
    raise ArgumentError(argument, f"{' and '.join(found)} in {source.name}", needed)


def _plural(word: str, many: Sequence[Any]) -> str:
    return word if len(many) == 1 else f"{word}s"

"""Experiments by name: the papers', and a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from shoal import parts
from shoal.experiments.experiment import Experiment, configure, perform
from shoal.vocabulary import ArgumentError

__all__ = ["Later", "find", "names", "register", "reproduce", "select"]


@dataclass(frozen=True)
class Later:
    """An experiment whose module, which holds it as EXPERIMENT, is imported when asked for."""

    module: str

    def experiment(self) -> Experiment:
        """The experiment itself."""
        found: Experiment = import_module(self.module).EXPERIMENT
        return found


_EXPERIMENTS: Mapping[str, Experiment | Later] = parts.named("experiment")


def register(experiment: Experiment) -> Experiment:
    """Make an experiment of your own known by its name, here and to ``shoal reproduce``.

    Returns
    -------
    Experiment
        The same.

    Raises
    ------
    ArgumentError
        Where another has its name, or the name can't be a folder's.
    """
    steps = experiment.name.split("/")
    if not all(step.strip(".") and step.isprintable() and "\\" not in step for step in steps):
        needed = "words with / between them, which are folders of a page of several"
        raise ArgumentError("name", repr(experiment.name), needed)
    if experiment.name == "all":
        raise ArgumentError("name", "'all'", "another: it stands for all experiments")
    return parts.register("experiment", experiment.name)(experiment)


def names() -> tuple[str, ...]:
    """The names of all experiments; the papers' come first.

    Examples
    --------
    >>> import shoal.papers
    >>> from shoal.experiments import names
    >>> [name for name in names() if name.startswith("rangamani2017/table")]
    ['rangamani2017/table1', 'rangamani2017/table2']
    """
    return tuple(sorted(_EXPERIMENTS, key=lambda name: not isinstance(_EXPERIMENTS[name], Later)))


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises
    ------
    ArgumentError
        Where there is none; it lists those there are.

    Examples
    --------
    >>> import shoal.papers
    >>> from shoal.experiments import find
    >>> find("nguyen2019/figure1").name
    'nguyen2019/figure1'
    """
    if name not in names():
        raise ArgumentError("name", repr(name), "one of " + ", ".join(names()))
    found = _EXPERIMENTS[name]
    return found.experiment() if isinstance(found, Later) else found


def select(name: str) -> list[Experiment]:
    """The experiments that a name stands for: one, those of a paper, or "all".

    >>> import shoal.papers
    >>> [each.name for each in select("beyond")]
    ['beyond/basin', 'beyond/penalties', 'beyond/samples']
    """
    chosen = [each for each in names() if name in ("all", each, each.split("/")[0])]
    if not chosen:
        groups = [each.split("/")[0] for each in names()]
        known = dict.fromkeys(["all", *groups, *names()])
        raise ArgumentError("name", repr(name), "one of " + ", ".join(known))
    return [find(each) for each in chosen]


def reproduce(name: str, scale: str = "reduced", **changes: Any) -> dict[str, Any]:
    """Run an experiment to its end; what is returned is what ``result.json`` would hold.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    scale : str
        One of `SCALES`.
    **changes
        Other settings than the scale's.
    """
    experiment = find(name)
    steps = perform(experiment, configure(experiment, scale, changes), scale)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: dict[str, Any] = end.value
            return result

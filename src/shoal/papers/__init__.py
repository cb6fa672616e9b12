"""The papers' tables and figures as experiments that anyone can run again.

>>> from shoal import papers
>>> papers.names()[0]
'rangamani2017/table1'
>>> experiment = papers.find("rangamani2017/table1")
>>> experiment.source
'Rangamani et al. 2017, Table 1'

>>> result = papers.reproduce("rangamani2017/table1", "smoke", h=64, p=0.3)
>>> result["verdicts"][0]["holds"]
True

``shoal reproduce NAME`` does the same on the command line. An experiment of your own is an
:class:`Experiment` that :func:`register` makes known, in a module that ``--plugin`` imports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from shoal import parts
from shoal.papers.experiment import (
    SCALES,
    Experiment,
    Outcome,
    Progress,
    Table,
    configure,
    configure_all,
    perform,
)
from shoal.papers.page import (
    check_result_folder,
    claim_result,
    read_if_same,
    read_result,
    write_page,
    write_result,
)
from shoal.vocabulary import ArgumentError

__all__ = [
    "SCALES",
    "Experiment",
    "Outcome",
    "Progress",
    "Table",
    "check_result_folder",
    "claim_result",
    "configure",
    "configure_all",
    "find",
    "names",
    "perform",
    "read_if_same",
    "read_result",
    "register",
    "reproduce",
    "select",
    "write_page",
    "write_result",
]


@dataclass(frozen=True)
class _Module:
    """One of ours: its module, which holds it as EXPERIMENT, is imported when asked for."""

    name: str

    def experiment(self) -> Experiment:
        found: Experiment = import_module("shoal.papers." + self.name.replace("/", ".")).EXPERIMENT
        return found


# In the order of the page.
for _name in (
    "rangamani2017/table1",
    "rangamani2017/table2",
    "rangamani2017/figure1",
    "rangamani2017/theorem31",
    "rangamani2017/theorem32",
    "nguyen2019/figure1",
    "nguyen2019/figure2",
    "nguyen2019/theorem3",
    "nguyen2019/theorem4",
    "nguyen2019/gradients",
    "arpit2016/figure1",
    "arpit2016/figure2",
    "arpit2016/figure3",
    "arpit2016/figure4",
    "arpit2016/figure5",
    "beyond/basin",
    "beyond/penalties",
    "beyond/samples",
):
    parts.register("experiment", _name)(_Module(_name))

_EXPERIMENTS: Mapping[str, Experiment | _Module] = parts.named("experiment")


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
    """The names of all experiments, ours first."""
    return tuple(_EXPERIMENTS)


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises
    ------
    ArgumentError
        Where there is none; it lists those there are.
    """
    if name not in names():
        raise ArgumentError("name", repr(name), "one of " + ", ".join(names()))
    found = _EXPERIMENTS[name]
    return found.experiment() if isinstance(found, _Module) else found


def select(name: str) -> list[Experiment]:
    """The experiments that a name stands for: one, those of a paper, or "all".

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

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

``shoal reproduce NAME`` does the same on the command line.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

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
    "reproduce",
    "select",
    "write_page",
    "write_result",
]

# In the order of the page. Each module holds one experiment as EXPERIMENT.
_NAMES = (
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
)


def names() -> tuple[str, ...]:
    """The names of all experiments."""
    return _NAMES


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises
    ------
    ArgumentError
        Where there is none; it lists those there are.
    """
    if name not in _NAMES:
        raise ArgumentError("name", repr(name), "one of " + ", ".join(_NAMES))
    module = import_module("shoal.papers." + name.replace("/", "."))
    experiment: Experiment = module.EXPERIMENT
    return experiment


def select(name: str) -> list[Experiment]:
    """The experiments that a name stands for: one, those of a paper, or "all".

    >>> [each.name for each in select("beyond")]
    ['beyond/basin', 'beyond/penalties', 'beyond/samples']
    """
    chosen = [each for each in _NAMES if name in ("all", each, each.split("/")[0])]
    if not chosen:
        groups = dict.fromkeys(each.split("/")[0] for each in _NAMES)
        raise ArgumentError("name", repr(name), "one of " + ", ".join(["all", *groups, *_NAMES]))
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

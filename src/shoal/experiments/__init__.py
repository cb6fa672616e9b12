"""Experiments that anyone can run again: what one is, how it is run, and what it leaves behind.

The papers' are in :mod:`shoal.papers`; one of your own is an :class:`Experiment` that
:func:`register` makes known, in a module that ``--plugin`` imports.
"""

from shoal.experiments.experiment import (
    SCALES,
    TOO_FEW,
    TOO_SMALL,
    Experiment,
    Outcome,
    Progress,
    Run,
    Table,
    configure,
    configure_all,
    perform,
)
from shoal.experiments.page import (
    check_result_folder,
    claim_result,
    read_if_same,
    read_result,
    write_page,
    write_result,
)
from shoal.experiments.registry import find, names, register, reproduce, select

__all__ = [
    "SCALES",
    "TOO_FEW",
    "TOO_SMALL",
    "Experiment",
    "Outcome",
    "Progress",
    "Run",
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

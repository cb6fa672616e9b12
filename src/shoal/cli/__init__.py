"""The command line: shoal fit | sweep | transform | generate | score | check | certify | ...

Every command checks its arguments before any work starts, and says what is wrong in one
line. Exit codes: 0 done; 1 failed at work, as by a full disk or for want of memory; 2 refused:
bad input, or a place for the result that can't be had; 130 interrupted (SIGINT), 143 terminated
(SIGTERM).
"""

from __future__ import annotations

from collections.abc import Callable

from shoal.cli import (
    certifying,
    checking,
    comparing,
    ecosystem,
    experiments,
    fitting,
    language,
    runs,
    surroundings,
    worlds,
)
from shoal.cli.application import app, main
from shoal.cli.options import grouped

__all__ = ["app", "main"]

_GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Learn": (fitting.fit, experiments.sweep),
    "Use": (runs.transform, ecosystem.export),
    "Look": (comparing.explore, runs.info, runs.report, comparing.compare),
    "Trust": (
        runs.score,
        certifying.certify,
        checking.check,
        surroundings.landscape,
        experiments.reproduce,
    ),
    "Data": (worlds.generate, language.activations),
}
for _group, _commands in _GROUPS.items():
    for _command in _commands:
        app.command(rich_help_panel=_group)(grouped(_command))

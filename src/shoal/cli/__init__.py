"""The command line: shoal fit | sweep | transform | generate | score | check | landscape | ...

Every command checks its arguments before any work starts, and says what is wrong in one
line. Exit codes: 0 done; 1 failed at work, as by a full disk or for want of memory; 2 refused:
bad input, or a place for the result that can't be had; 130 interrupted (SIGINT), 143 terminated
(SIGTERM).
"""

from __future__ import annotations

from shoal.cli import (
    checking,
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

for _command in (
    fitting.fit,
    experiments.sweep,
    runs.transform,
    ecosystem.export,
    language.activations,
    worlds.generate,
    runs.score,
    checking.check,
    surroundings.landscape,
    experiments.reproduce,
    runs.report,
    runs.info,
):
    app.command()(grouped(_command))

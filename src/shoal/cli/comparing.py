"""`shoal compare` and `shoal explore`: runs side by side, and a run's page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.cli import screen
from shoal.cli.options import AsJson, RunPath
from shoal.vocabulary import RunError, check_number

__all__ = ["compare", "explore"]


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A run.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another, of as many features.")],
    cosine: Annotated[float, typer.Option(help="Atoms are the same from this |cosine| on.")] = 0.9,
    as_json: AsJson = False,
) -> None:
    """Say which atoms two runs share, and what only one of them has.

    Atoms are matched one to one. Agreement of two fits isn't truth: they can agree on mixtures.
    """
    import numpy as np

    from shoal.diagnosis import match
    from shoal.report import read_run

    check_number("cosine", cosine, low=0.0, high=1.0)
    one, two = read_run(first), read_run(second)
    widths = [run.dictionary.shape[1] for run in (one, two)]
    if widths[0] != widths[1]:
        raise RunError(
            f"{second}: {widths[1]} features; needed {widths[0]}, as many as {first} has"
        )
    found = match(two.dictionary, one.dictionary)
    paired = found.permutation >= 0
    cosines = np.abs(found.cosines)
    same = paired & (cosines >= cosine)
    unmatched = np.setdiff1d(np.arange(len(two.dictionary)), found.permutation[same])
    alone = [np.flatnonzero(~same), unmatched]
    result: dict[str, Any] = {
        "cosine": cosine,
        "same": int(same.sum()),
        "mean_cosine": float(cosines[paired].mean()),
        "median_cosine": float(np.median(cosines[paired])),
        "only_in_first": alone[0].tolist(),
        "only_in_second": alone[1].tolist(),
    }
    if as_json:
        screen.record(result)
        return
    rows = [
        ["atoms", str(len(one.dictionary)), str(len(two.dictionary))],
        [f"matched at {cosine:g}", str(result["same"]), str(result["same"])],
        ["only here", str(len(alone[0])), str(len(alone[1]))],
        *_numbers(one, two),
    ]
    screen.table("Atoms of two runs", ["", str(first), str(second)], rows)
    screen.line(
        f"|cosine| of matched atoms: mean {result['mean_cosine']:.4g}, "
        f"median {result['median_cosine']:.4g}"
    )
    for run, atoms in zip((first, second), alone, strict=True):
        if len(atoms):
            listed = ", ".join(map(str, atoms[:20])) + (", ..." if len(atoms) > 20 else "")
            screen.line(f"only in {run}: {listed}")


def _numbers(one: Any, two: Any) -> list[list[str]]:
    """What both files say of how good they are."""
    names = {"explained_variance": "explained variance", "l0": "active per sample"}
    sections = [run.section("diagnosis") for run in (one, two)]
    return [
        [words, *(screen.number(section.get(name)) for section in sections)]
        for name, words in names.items()
    ]


def explore(run: RunPath) -> None:
    """Open the report of RUN in a browser; where there is none, say where it is."""
    import os
    import webbrowser

    from shoal.report import read_run, write_report

    read_run(run)  # or an error that says what is wrong
    page = run / "report.html"
    if not page.is_file():
        page = Path(write_report(run))
    try:
        # A browser in a terminal would take it over.
        shown = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
        opened = (shown or os.name == "nt" or _mac()) and webbrowser.open(page.resolve().as_uri())
    except webbrowser.Error:
        opened = False
    screen.line(page if opened else f"{page} (no browser was found to open it in)")


def _mac() -> bool:
    import sys

    return sys.platform == "darwin"

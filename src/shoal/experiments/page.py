"""What an experiment leaves behind: ``result.json``, ``figure.png`` and ``index.html``.

The page and the picture are made from the JSON alone, so that they can be made again from it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shoal.claims import plain
from shoal.experiments.experiment import (
    FORMAT,
    TOO_FEW,
    TOO_SMALL,
    Drawn,
    Experiment,
    judges,
    versions,
)
from shoal.files import Claim, check_free, check_replaceable, claim, whole_folder, write_bytes
from shoal.report.drawing import PAGE, PRINT, Pen, as_png, as_svg, plain_settings
from shoal.report.words import compact, plural
from shoal.vocabulary import RunError, printable

__all__ = [
    "check_result_folder",
    "claim_result",
    "read_if_same",
    "read_result",
    "write_page",
    "write_result",
]

FILES = ("result.json", "figure.png", "index.html")


def check_result_folder(folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """`folder`, if a result may be put there; asked before any work starts."""
    if overwrite:
        check_replaceable(folder, FILES)
    return check_free(folder, overwrite=overwrite)


def claim_result(folder: str | os.PathLike[str], *, overwrite: bool = False) -> Claim:
    """:func:`shoal.files.claim` for a result, which may replace a result only."""
    return claim(folder, overwrite=overwrite, names=FILES)


def write_result(
    folder: str | os.PathLike[str],
    experiment: Drawn,
    result: dict[str, Any],
    *,
    overwrite: bool = False,
) -> Path:
    """The result, its picture and its page in a new folder, all or nothing.

    A claim that :func:`claim_result` made before the work stands for its path.
    """
    with whole_folder(folder, overwrite=overwrite, names=FILES) as partial:
        text = json.dumps(result, indent=1, allow_nan=False)
        (partial / "result.json").write_text(text + "\n", encoding="utf-8")
        (partial / "figure.png").write_bytes(as_png(_figure(experiment, result, PRINT)))
        (partial / "index.html").write_text(_render([(experiment, result)]), encoding="utf-8")
    return Path(folder)


def write_page(
    folder: str | os.PathLike[str], results: Sequence[tuple[Drawn, dict[str, Any]]]
) -> Path:
    """One page of many results: ``index.html`` in `folder`."""
    return write_bytes(Path(folder) / "index.html", _render(results).encode("utf-8"))


def read_result(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The ``result.json`` of a folder.

    Raises
    ------
    RunError
        Where it is missing or not an experiment's.
    """
    path = Path(folder) / "result.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        known = result["format"] == FORMAT and result["format_version"] == 1
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        needed = "what `shoal reproduce` wrote"
        reason = printable(str(error))
        raise RunError(f"{path}: not readable ({reason}); needed {needed}") from error
    if not known:
        raise RunError(f"{path}: of another format; needed what this version of shoal wrote")
    return dict(result)


def read_if_same(
    folder: str | os.PathLike[str], experiment: Experiment, settings: Any
) -> dict[str, Any] | None:
    """The result in `folder` if it is what `experiment` would find anew; else None."""
    if not (Path(folder) / "result.json").exists():
        return None
    result = read_result(folder)
    same = {
        "experiment": experiment.name,
        "configuration": plain(asdict(settings)),
        "versions": versions(),
    }
    return result if all(result.get(key) == value for key, value in same.items()) else None


def _figure(experiment: Drawn, result: dict[str, Any], pen: Pen) -> Any:
    with plain_settings(pen):
        return experiment.plot(result, pen)


def _render(results: Sequence[tuple[Drawn, dict[str, Any]]]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader([here, here.parent / "report"]),  # the report's style, too
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(plural=plural, say=_say)
    sections = [_section(experiment, result) for experiment, result in results]
    checks = [check for section in sections for check in section["verdicts"]]
    return environment.get_template("page.html").render(
        sections=sections,
        n_held=sum(check["holds"] for check in checks),
        n_checks=len(checks),
        n_open=sum(check["verdict"] in (TOO_SMALL, TOO_FEW) for check in checks),
        n_small=sum(not section["judges"] for section in sections),
        n_departures=sum(len(section["departures"]) for section in sections),
        version=results[0][1]["versions"]["shoal"],
    )


def _section(experiment: Drawn, result: dict[str, Any]) -> dict[str, Any]:
    slug = result["experiment"].replace("/", "-")
    with plain_settings(PAGE):
        svg = as_svg(experiment.plot(result, PAGE), slug, result["caption"])
    scale = result["scale"]
    # What was written before verdicts were words has none.
    verdicts = [
        {"verdict": "holds" if check["holds"] else _not_held(scale), **check}
        for check in result["verdicts"]
    ]
    said = [check["verdict"] for check in verdicts]
    mark = "no" if "does not hold" in said else "yes" if set(said) <= {"holds"} else "open"
    return {
        **result, "judges": judges(scale), "verdicts": verdicts,
        "slug": slug, "svg": svg, "held": said.count("holds"), "mark": mark,
    }  # fmt: skip


def _not_held(scale: str) -> str:
    return "does not hold" if judges(scale) else TOO_SMALL


def _say(value: Any) -> str:
    """A number as a person would write it; words as they are."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_say(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(_say(each) for each in value)
    if isinstance(value, (int, str)):
        return str(value)
    return compact(value) if math.isfinite(value) else str(value)

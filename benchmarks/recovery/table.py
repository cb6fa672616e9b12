"""Rows of runs as a table: medians over seeds, the worst seed, ratios to shoal."""

from __future__ import annotations

import statistics
from typing import Any

Row = dict[str, Any]

HEAD = (
    "solver", "seeds", "c95", "reach", "x shoal", "fit s", "set-up", "@.95", "worst", "mean",
    "@.99", "worst", "mean", "distance", "shoal's fit / c95",
)  # fmt: skip
WIDTHS = (24, 5, 8, 6, 8, 8, 7, 6, 6, 6, 6, 6, 6, 8, 18)


def cpu_to_95(rows: list[Row]) -> float | None:
    """Median over seeds, a seed that never got there being the slowest; None if most didn't."""
    found = [float("inf") if row["cpu_to_95"] is None else row["cpu_to_95"] for row in rows]
    middle = statistics.median(found)
    return middle if middle < float("inf") else None


def summary(rows: list[Row]) -> list[dict[str, Any]]:
    """One record a workload and solver, in the order of the rows."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["workload"], row["solver"]), []).append(row)
    found = []
    for (workload, solver), mine in groups.items():
        record: dict[str, Any] = {"workload": workload, "solver": solver, "seeds": len(mine)}
        record["cpu_to_95"] = cpu_to_95(mine)
        record["reached"] = sum(row["cpu_to_95"] is not None for row in mine)
        for key in ("fit_cpu", "setup_cpu", "mean_distance"):
            record[key] = statistics.median(row[key] for row in mine)
        for key in ("recovered_95", "recovered_99"):
            shares = [row[key] for row in mine]
            record[key], record[f"{key}_worst"] = statistics.median(shares), min(shares)
            record[f"{key}_mean"] = statistics.mean(shares)
        ours = groups.get((workload, "shoal"))
        theirs, own = record["cpu_to_95"], cpu_to_95(ours) if ours else None
        record["ratio"] = theirs / own if theirs and own and solver != "shoal" else None
        fit = statistics.median(row["fit_cpu"] for row in ours) if ours else None
        record["shoal_fit_over_c95"] = fit / theirs if fit and theirs else None
        found.append(record)
    return found


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def table(rows: list[Row]) -> str:
    """The summary as text, a block a workload."""
    lines, before = [], None
    for record in summary(rows):
        if record["workload"] != before:
            before = record["workload"]
            lines += ["", f"workload {before}"]
            lines.append("  ".join(word.rjust(w) for word, w in zip(HEAD, WIDTHS, strict=True)))
        cells = [
            record["solver"],
            str(record["seeds"]),
            _number(record["cpu_to_95"], ".3f"),
            f"{record['reached']}/{record['seeds']}",
            _number(record["ratio"], ".2f"),
            _number(record["fit_cpu"], ".2f"),
            _number(record["setup_cpu"], ".2f"),
            *(
                _number(100 * record[key + end], ".1f")
                for key in ("recovered_95", "recovered_99")
                for end in ("", "_worst", "_mean")
            ),
            _number(record["mean_distance"], ".1e"),
            _number(record["shoal_fit_over_c95"], ".2f"),
        ]
        lines.append("  ".join(cell.rjust(w) for cell, w in zip(cells, WIDTHS, strict=True)))
    notes = (
        "",
        "c95: CPU seconds to 95 % of the true atoms at cosine .95, median over seeds; - where most",
        "seeds never got there. x shoal: a peer's c95 over shoal's. @: % of the true atoms at the",
        "end, median, worst seed, mean. shoal's fit / c95: shoal's whole fit, with its polish,",
        "over this solver's c95: below 1, shoal has finished before it.",
    )
    return "\n".join([*lines[1:], *notes]) if lines else "nothing was run"

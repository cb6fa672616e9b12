"""`shoal certify`: how far each atom of a run can be trusted."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli import screen
from shoal.cli.options import AsJson, Device, Force, Opening, Quiet, RunPath, Seed, SourceSpec
from shoal.cli.progress import going_on, kept
from shoal.files import Claim, claim, whole_file
from shoal.signals import stoppable

if TYPE_CHECKING:
    from shoal.certificate import Certificate

__all__ = ["certify"]


def certify(
    *,
    ctx: typer.Context,
    run: RunPath,
    source: SourceSpec,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A .json file to write it all to."),
    ] = None,
    budget: Annotated[
        int,
        typer.Option(
            help="Fits: 4, of two halves and of two halves without sparse structure; or 6, of two "
            "more whose columns are shuffled."
        ),
    ] = 6,
    seed: Seed = 0,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            help="Processes; the result is the same. Default: all cores, where "
            "a fit takes more than some seconds.",
        ),
    ] = None,
    atoms: Annotated[
        bool, typer.Option("--atoms", help="The evidence of each atom, as a table.")
    ] = False,
    page: Annotated[
        bool, typer.Option("--report", help="Write the report of RUN again, with the verdicts.")
    ] = False,
    as_json: AsJson = False,
    device: Device = None,
    opening: Opening,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Say which atoms of RUN can be trusted: found again in halves of SOURCE, and of one piece.

    SOURCE is best what RUN was fitted on. The model is learnt again up to BUDGET times, so this
    takes a few times as long as the fit. What is learnt is kept beside the output, or else beside
    RUN, until all is done: the same command goes on after it was interrupted, to the same result.
    """
    import json

    from shoal.cli.options import check_suffix

    held = None
    if output is not None:
        check_suffix(output, ".json")
        held = ctx.with_resource(claim(output, overwrite=force))
    from shoal.certificate import certifying
    from shoal.runs import load_run

    model = load_run(run, device=device)
    steps = certifying(
        model,
        opening.open(source),
        budget=budget,
        random_state=seed,
        n_jobs=jobs,
        checkpoint=_kept_in(run, output),
        overwrite=force,
    )
    with going_on():
        found = _followed(steps, quiet=quiet or as_json)
    values = found.to_dict()
    if held is not None:

        def write(place: Claim | Path) -> Path:
            with whole_file(place, overwrite=False) as temporary:
                Path(temporary).write_text(json.dumps(values, allow_nan=False), "utf-8")
            return Path(place)

        kept(write, held)
    if page:
        from shoal.report import write_report

        written = write_report(run, certificate=values)
        if not (quiet or as_json):
            screen.line(written)
    if as_json:
        screen.record(values)
        return
    if quiet:
        return
    spreads = found.whole.counts
    rows = [[name, str(n), f"{spreads[name].sd:.1f}"] for name, n in found.counts.items()]
    screen.table(f"Atoms of {run}", ["verdict", "atoms", "±"], rows)
    for line in found.summary().splitlines():
        screen.line(line)
    if atoms:
        for line in found.table().splitlines():
            screen.line(line)


def _kept_in(run: Path, output: Path | None) -> Path | None:
    """The folder that keeps what is learnt; none where it can't be written to."""
    if output is not None:
        return output.with_name(f"{output.name}.partial")
    beside = Path(os.path.abspath(run))
    may = beside.name != "" and os.access(beside.parent, os.W_OK | os.X_OK)
    return beside.with_name(f"{beside.name}.certificate.partial") if may else None


def _followed(steps: Any, *, quiet: bool) -> Certificate:
    """The certificate, under a progress bar."""
    made: list[Certificate] = []

    def going() -> Any:
        made.append((yield from steps))

    with closing(steps), screen.bar("{task.fields[note]}", quiet=quiet) as progress:
        task = progress.add_task("certify", total=1.0, note="")
        for step in stoppable(going()):
            progress.update(task, completed=step.share, note=step.note)
    return made[0]

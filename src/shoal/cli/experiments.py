"""The papers' experiments, and sweeps: reproduce, sweep."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.cli import screen
from shoal.cli.options import Force, Kind, Length, Opening, Quiet, Scale, SourceSpec
from shoal.cli.progress import going_on, kept, to_the_end
from shoal.files import Claim
from shoal.vocabulary import ArgumentError, check_count

__all__ = ["reproduce", "sweep"]


def sweep(
    *,
    source: SourceSpec,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to make.")
    ],
    penalty: Annotated[
        str, typer.Option(help="Penalties, separated by commas, as `fit --penalty` knows them.")
    ] = "dae,cae,mdae,sae",
    activation: Annotated[str, typer.Option(help="Activations, separated by commas.")] = "relu",
    strength: Annotated[
        str, typer.Option(metavar="FIRST:LAST:COUNT", help="Or numbers separated by commas.")
    ] = "0:1:12",
    n_components: Annotated[
        int | None, typer.Option("--n-components", "--atoms", "-m", help="Units.")
    ] = None,
    preprocess: Annotated[Kind, typer.Option(help="Before training.")] = "scale",
    added: Annotated[
        float, typer.Option(help="To every deviation that is divided by; .1 for digits.")
    ] = 0.0,
    weight_length: Annotated[Length, typer.Option(help="Of the atoms.")] = "unit",
    tangent: Annotated[
        bool, typer.Option("--tangent", help="No gradient along an atom; with unit length.")
    ] = False,
    epochs: Annotated[int, typer.Option(help="Passes over the data, for every run.")] = 50,
    learning_rate: Annotated[float, typer.Option(help="The paper's are .001 to .005.")] = 0.001,
    batch_size: Annotated[int, typer.Option(help="Samples a step.")] = 50,
    seeds: Annotated[int, typer.Option(help="Runs at each point.")] = 1,
    seed: Annotated[int, typer.Option(help="The first one's; the same gives the same bits.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes, of one thread each.")] = 2,
    opening: Opening,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train a regularised autoencoder at every strength of every penalty, and draw its sparsity.

    For example:

        shoal sweep sample:digits --penalty dae,cae --strength 0:1:6 -m 128 --added 0.1 -o sweep

    Interrupted, the same command goes on where it was.
    """
    check_count("seed", seed, low=0)
    from shoal.data import Preprocessing
    from shoal.sweeps import run_sweep, strengths_of
    from shoal.training.recipes import MomentumSettings

    strengths = strengths_of(strength)
    settings = MomentumSettings(
        learning_rate=learning_rate,
        batch_size=batch_size,
        n_epochs=epochs,
        weight_length=weight_length,
        tangent=tangent,
    )
    steps = run_sweep(
        opening.open(source, random_state=seed),
        output,
        penalties=penalty.split(","),
        activations=activation.split(","),
        strengths=strengths,
        n_components=n_components,
        preprocessing=Preprocessing(preprocess, added=added),
        settings=settings,
        n_seeds=seeds,
        seed=seed,
        n_jobs=jobs,
        overwrite=force,
    )
    with going_on():
        result = to_the_end(steps, "sweep", quiet=quiet)
    if not quiet:
        (table,) = result["tables"]
        rows = [[screen.number(cell) for cell in row] for row in table["rows"]]
        screen.table("Sparsity", table["head"], rows)
        screen.line(f"page: {output / 'index.html'}")


def reproduce(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="An experiment, a paper's name, or `all`."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="The folder to make.")
    ] = None,
    scale: Annotated[
        Scale, typer.Option(help="Seconds; minutes on two cores; the paper's own sizes.")
    ] = "reduced",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Another size; may be repeated."),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="What there is, and with NAME its settings.")
    ] = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Run a paper's table or figure again, and set its numbers beside ours.

    For example:

        shoal reproduce rangamani2017/table1 -o table1

        shoal reproduce all --scale smoke -o papers

    DIR gets `result.json` (every number, and a verdict for each claim), `figure.png` and
    `index.html`; where NAME stands for several, each has a folder of its own in DIR and one page
    shows all. Interrupted, the same command goes on where it was.
    """
    from shoal import papers

    if listing:
        _list_experiments(name, scale)
        return
    if name is None:
        raise ArgumentError("NAME", "nothing", "an experiment's name; --list shows them")
    chosen = papers.select(name)
    if output is None:
        raise ArgumentError("output", "nothing", "-o DIR, a folder to make")
    settings = papers.configure_all(chosen, scale, changes or ())
    several = name != chosen[0].name
    # All folders before any work: nobody wants to hear of the last one an hour later.
    plan: list[tuple[Any, Any, Claim | None, dict[str, Any] | None]] = []
    claims = ctx.with_resource(ExitStack())
    for each, configured in zip(chosen, settings, strict=True):
        folder = output / each.name if several else output
        there = papers.read_if_same(folder, each, configured) if several and not force else None
        held = None
        if there is None:
            held = claims.enter_context(papers.claim_result(folder, overwrite=force))
        plan.append((each, configured, held, there))
    results = []
    with going_on() if several else nullcontext():
        for each, configured, held, there in plan:
            if there is not None and not quiet:
                screen.note(f"{each.name}: there already")
            result = there or _run_experiment(each, configured, scale, quiet=quiet)
            if held is not None:
                kept(partial(write_experiment, each, result), held)
            results.append(result)
            if several:
                papers.write_page(output, list(zip(chosen, results, strict=False)))
    if not quiet:
        _print_verdicts(results)
        screen.line(f"page: {output / 'index.html'}")


def _run_experiment(experiment: Any, settings: Any, scale: str, *, quiet: bool) -> dict[str, Any]:
    """Run it under a progress bar."""
    from shoal import papers

    return to_the_end(papers.perform(experiment, settings, scale), experiment.name, quiet=quiet)


def write_experiment(experiment: Any, result: dict[str, Any], place: Claim | Path) -> Path:
    from shoal import papers

    return papers.write_result(place, experiment, result)


def _print_verdicts(results: list[dict[str, Any]]) -> None:
    for result in results:
        rows = [
            [check["claim"], screen.number(check["value"]), check["needed"], _verdict(check)]
            for check in result["verdicts"]
        ]
        screen.table(result["experiment"], ["claim", "found", "needed", "holds"], rows)
    if any(result["scale"] == "smoke" for result in results):
        screen.line("--scale smoke only shows that it runs: its sizes can't judge")


def _verdict(check: dict[str, Any]) -> str:
    said = check.get("verdict", "")
    return said if said.startswith("too") else screen.yes(check["holds"])


def _list_experiments(name: str | None, scale: str) -> None:
    from shoal import papers

    chosen = papers.select("all" if name is None else name)
    if name is None:
        rows = [[each.name, each.title, each.source or "ours"] for each in chosen]
        screen.table("shoal reproduce NAME", ["name", "what", "source"], rows)
        return
    for each in chosen:
        values = asdict(papers.configure(each, scale))
        rows = [[f"--set {key}={listed(value)}"] for key, value in values.items()]
        screen.table(f"{each.name}, {scale}", ["setting"], rows)


def listed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

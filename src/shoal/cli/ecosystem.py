"""`shoal export`: a run as another package's sparse autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from shoal.cli import screen
from shoal.cli.options import Force, Quiet, RunPath
from shoal.vocabulary import ArgumentError

__all__ = ["export"]

# Those of shoal.ecosystem, which would take a second to load for a help text; a test compares.
To = Literal["saelens", "sparsify", "dictionary_learning"]


def export(
    *,
    run: RunPath,
    to: Annotated[To, typer.Option("--to", help="Whose format.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="A folder to write.")
    ],
    architecture: Annotated[
        str | None,
        typer.Option(
            help="Of the format. Default: what has the run's codes. Of SAELens matching_pursuit "
            "stores the atoms alone, and the codes are other ones."
        ),
    ] = None,
    split_signs: Annotated[
        bool,
        typer.Option(
            "--split-signs",
            help="Signed codes as non-negative ones: two latents per atom, for formats without.",
        ),
    ] = False,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="What to write into the configuration, such as hook_name; may be repeated.",
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write RUN as a sparse autoencoder of SAELens, sparsify or dictionary_learning.

    Preprocessing is folded into the weights: the package encodes raw rows as the run does. What a
    format can't express is refused. Read such folders with shoal.open_sae.
    """
    named = {}
    for each in metadata or ():
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise ArgumentError("metadata", repr(each), "NAME=VALUE")
        named[name] = value
    from shoal.ecosystem import export as write
    from shoal.runs import load_run

    model = load_run(run, device="cpu")
    folder = write(
        model,
        output,
        to,
        architecture=architecture,
        split_signs=split_signs,
        metadata=named,
        overwrite=force,
    )
    if not quiet:
        m, n = model.components_.shape
        screen.line(f"{m} atoms of {n} features for {to}: {folder}")

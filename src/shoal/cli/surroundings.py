"""`shoal landscape`: how the loss lies around atoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from shoal.cli import screen
from shoal.cli.options import AsJson, Force, Laws, Opening, Seed, Shape, Sizes, World
from shoal.files import claim, whole_file
from shoal.vocabulary import ArgumentError, check_count, check_number

if TYPE_CHECKING:
    from shoal.generative import GenerativeModel

__all__ = ["landscape"]


def landscape(
    *,
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|WORLD",
            help="A run, what `generate` wrote, or one of sparse, nonnegative, mixture, "
            "independent with the sizes below.",
        ),
    ],
    source: Annotated[
        str | None,
        typer.Argument(metavar="[SOURCE]", help="With a run: the data that the loss is of."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A .png, .html or .json to write."),
    ] = None,
    activation: Annotated[
        Shape | None,
        typer.Option(
            help="Of a world; a threshold is at a1 / 2. Default: relu, topk where codes have signs."
        ),
    ] = None,
    bias: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|theorem",
            help="Of a world: what is added before it. Default: Theorem 3.1's with relu, else 0.",
        ),
    ] = None,
    points: Annotated[int, typer.Option(help="Along each line.")] = 25,
    samples: Annotated[int, typer.Option(help="That the loss is a mean over.")] = 500,
    sizes: Sizes,
    laws: Laws,
    seed: Seed = 0,
    as_json: AsJson = False,
    opening: Opening,
    force: Force = False,
) -> None:
    """Say how the loss lies around the atoms of RUN, or around the truth of WORLD.

    For example:

        shoal landscape runs/planted planted.npz -o landscape.png

        shoal landscape nonnegative -n 64 -m 128 -k 2 --high 1.2 --bias -0.3 -o landscape.html

    All atoms are moved at once: in random directions, towards the mean of the data, and in pairs
    that change places.
    """
    check_count("seed", seed, low=0)
    check_count("samples", samples)
    check_count("points", points, low=2)
    if output is not None:
        if output.suffix not in (".png", ".html", ".json"):
            needed = "a name that ends in .png, .html or .json"
            raise ArgumentError("output", str(output), needed)
        held = ctx.with_resource(claim(output, overwrite=force))
    options: dict[str, Any] = {"n_points": points, "n_plane": 25, "random_state": seed}
    if target not in get_args(World) and Path(target).is_dir():
        if source is None:
            raise ArgumentError("SOURCE", "nothing", "the data that the loss is of, after the run")
        for own, typed in (("activation", activation), ("bias", bias)):
            if typed is not None:
                raise ArgumentError(own, str(typed), "to be left out: a run has its own")
        laws.refuse(target)
        from shoal.runs import load_run

        model = load_run(target)
        data = opening.open(source)
        found = model.landscape(data, n_samples=samples, **options)
        title = f"The loss around {Path(target).name}, on {data.name}"
    else:
        if source is not None:
            needed = f"to be left out: {target} is no run, and draws its own data"
            raise ArgumentError("SOURCE", source, needed)
        opening.refuse("to be left out with a world")
        import numpy as np

        from shoal import theory

        for_atoms, for_samples = np.random.default_rng(seed).spawn(2)
        if target in get_args(World):
            world = laws.world(cast("World", target), sizes.truth(for_atoms), sizes.noise)
        else:
            opened = theory.open_world(target)
            laws.refuse(target)
            if opened is None:
                needed = "what `shoal generate` wrote, or a run and its data"
                raise ArgumentError("WORLD", f"{target} without a truth", needed)
            world = opened
        found = _around(world, activation, bias, samples, for_samples, options)
        title = f"The loss around the truth of {Path(target).name}"
    record = found.to_dict()
    if output is not None:
        from shoal.report.landscape import landscape_page, landscape_png

        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
        contents = {
            ".png": lambda: landscape_png(record, title),
            ".html": lambda: landscape_page(record, title).encode(),
            ".json": text.encode,
        }
        with whole_file(held) as temporary:
            temporary.write_bytes(contents[output.suffix]())
    if as_json:
        screen.record(record)
        return
    _print_landscape(found, title)
    if output is not None:
        screen.line(f"picture: {output}" if output.suffix != ".json" else f"numbers: {output}")


def _around(
    world: GenerativeModel,
    activation: Shape | None,
    bias: str | None,
    samples: int,
    random_state: Any,
    options: dict[str, Any],
) -> Any:
    """The loss around the truth of a world."""
    from shoal import diagnosis, theory
    from shoal.network import activations

    signed = bool(world.values.signed)
    shape = activation or ("topk" if signed else "relu")
    made: dict[str, Any] = {
        "relu": activations.ReLU,
        "threshold": lambda: activations.HardThreshold(world.a1 / 2, signed),
        "topk": lambda: activations.TopK(max(1, round(world.expected_k)), signed),
        "sigmoid": activations.Sigmoid,
        "softplus": activations.Softplus,
        "tanh": activations.Tanh,
    }
    asked = bias or ("theorem" if shape == "relu" and not signed else "0")
    if asked == "theorem":
        if signed:
            needed = "a number: Theorem 3.1 is of codes that are never negative"
            raise ArgumentError("bias", "'theorem'", needed)
        value = -theory.rangamani2017.literal_epsilon(world, 0.0)
        name = f"{value:.3g} (Theorem 3.1: -2 m1 k mu/sqrt n)"
    else:
        try:
            value = check_number("bias", asked)
        except ArgumentError as error:
            raise ArgumentError("bias", error.found, "a finite number, or 'theorem'") from None
        name = f"{value:.3g}"
    data = world.sample(samples, random_state).data
    return diagnosis.landscape(
        world.dictionary, data, made[shape](), value, bias_name=name, **options
    )


def _print_landscape(found: Any, title: str) -> None:
    rows = []
    for line in found.lines:
        least = int(line.loss.argmin())
        barrier = "-"
        if line.swapped:
            between = (line.t >= 0) & (line.t <= line.swapped)
            barrier = screen.number(float(line.loss[between].max()) / found.zero)
        first, last = (screen.number(float(line.loss[end] / found.zero)) for end in (0, -1))
        at = f"{line.loss[least] / found.zero:.4g} at t = {line.t[least]:.3g}"
        rows.append([line.name, first, at, last, barrier])
    head = ["direction", "first", "least", "last", "between the swapped"]
    screen.table(title, head, rows)
    screen.line(f"  {found.activation}, bias {found.bias}, {found.n_samples} samples")
    screen.line(
        f"  losses are over that of W = 0; at the centre {found.loss / found.zero:.4g}, mean "
        f"gradient {found.gradient / found.zero:.4g}"
    )
    if found.silent > 0.5:
        screen.line(
            f"  note: {found.silent:.1%} of the samples wake no unit at the centre, where the loss "
            "is flat: --bias sets another"
        )

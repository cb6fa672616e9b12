"""`shoal generate`, and the named worlds that other commands know too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from shoal.cli import screen
from shoal.cli.options import Atoms, Force, Laws, Quiet, Seed, Sizes, World, check_suffix
from shoal.files import Claim, claim, whole_file
from shoal.vocabulary import ArgumentError, check_count

__all__ = ["generate"]

_SUFFIXES = (".npz", ".safetensors", ".npy")

Generated = Literal[
    "sparse", "nonnegative", "mixture", "independent", "synth-1k", "synth-4k", "synth-16k"
]


def generate(
    *,
    ctx: typer.Context,
    world: Annotated[
        Generated,
        typer.Argument(
            help="Which generative model; synth-1k, synth-4k and synth-16k are SynthSAEBench's law "
            "with so many features, sizes and laws of their own."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="An .npz file to write; .safetensors and .npy have no codes, and any size.",
        ),
    ],
    sizes: Sizes,
    laws: Laws,
    samples: Annotated[int, typer.Option(help="How many samples.")] = 20_000,
    # What it was called while `check --dictionary` meant something else.
    dictionary: Annotated[Atoms | None, typer.Option("--dictionary", hidden=True)] = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Make data whose dictionary is known: `data`, `dictionary` and `codes` in one .npz.

    A `.safetensors` has no codes, a `.npy` the data alone; both are fitted from where they lie.

    For example:

        shoal generate sparse --n-features 64 --atoms 128 -k 3 --samples 20000 -o planted.npz

        shoal generate nonnegative -m 12 --supports "0,1,2; 3,4,5" --weights 3,1 -o two.npz

        shoal generate sparse -m 512 --samples 10000000 -o large.safetensors

        shoal generate synth-1k --samples 60000 -o features.npz
    """
    check_suffix(output, *((".npz",) if world.startswith("synth-") else _SUFFIXES))
    held = ctx.with_resource(claim(output, overwrite=force))
    check_count("seed", seed, low=0)
    check_count("samples", samples)
    if world.startswith("synth-"):
        _refuse_given(ctx, world, but=("world", "output", "samples", "seed", "force", "quiet"))
        _generate_features(held, world, samples, seed)
        if not quiet:
            screen.line(f"{samples} samples of {world}: {output}")
        return
    import numpy as np

    from shoal.generative import laws_of, write_planted

    # Two streams of one seed: the dictionary stays when the number of samples changes.
    for_atoms, for_samples = np.random.default_rng(seed).spawn(2)
    if None not in (sizes.atoms_from, dictionary) and sizes.atoms_from != dictionary:
        raise ArgumentError("dictionary", str(dictionary), "--atoms-from alone: it is its new name")
    sizes = sizes._replace(atoms_from=sizes.atoms_from or dictionary)
    made = laws.world(cast("World", world), sizes.truth(for_atoms), sizes.noise)
    with whole_file(held) as temporary, open(temporary, "wb") as file:
        text, kind = json.dumps(laws_of(made)), output.suffix
        write_planted(file, made, samples, for_samples, suffix=kind, about=text)
    if not quiet:
        screen.line(
            f"{samples} samples of {sizes.n_features} features from {sizes.atoms} atoms: {output}"
        )


def _refuse_given(ctx: typer.Context, world: str, but: tuple[str, ...]) -> None:
    """Refuse every option that was typed, but for these."""
    for name in ctx.params:
        source = ctx.get_parameter_source(name)
        if name not in but and source is not None and source.name == "COMMANDLINE":
            needed = f"to be left out: {world} has sizes and laws of its own"
            raise ArgumentError(name.replace("_", "-"), str(ctx.params[name]), needed)


def _generate_features(held: Claim, world: str, samples: int, seed: int) -> None:
    """Samples of SynthSAEBench's law, written as they are drawn."""
    import numpy as np

    from shoal.generative import synth_sae_bench, write_samples

    for_world, for_samples = np.random.default_rng(seed).spawn(2)
    made = synth_sae_bench(world.removeprefix("synth-"), random_state=for_world)  # type: ignore[arg-type]
    with whole_file(held) as temporary, open(temporary, "wb") as file:
        write_samples(file, made, samples, for_samples, about={"world": world, "seed": seed})

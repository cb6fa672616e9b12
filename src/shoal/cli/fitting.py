"""`shoal fit`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from shoal.cli import screen
from shoal.cli.application import launched, show_note
from shoal.cli.options import (
    ACTIVATION_NAMES,
    PENALTY_NAMES,
    Encoder,
    Force,
    Kind,
    Length,
    Model,
    Noise,
    Opening,
    Quiet,
    Seed,
    SourceSpec,
)
from shoal.cli.progress import (
    checkpoints_of,
    follow,
    follow_epochs,
    kept,
    resumable,
)
from shoal.cli.runs import summary
from shoal.vocabulary import ArgumentError, LostError, RunError, check_count, check_number

__all__ = ["fit"]


_DICTIONARY = "A dictionary of which k atoms are active (the usual)"
_PENALISED = "Sparse by a penalty instead"
_SAVING = "Runs that may be killed"
_SEVERAL = "Several processes (torchrun -m shoal fit ...)"

# Seconds for what processes may be waited for: data that are read through, a large state that is
# saved. Arbitrary.
_MEETING = 1800


class Active(NamedTuple):
    """What only a model with k active atoms has."""

    n_nonzero_coefs: Annotated[
        str | None,
        typer.Option(
            "--n-nonzero-coefs",
            "-k",
            metavar="INTEGER|auto",
            help="Active atoms a sample; `auto` estimates it. Default: m / 10.",
            rich_help_panel=_DICTIONARY,
        ),
    ] = None
    model: Annotated[
        Model,
        typer.Option(
            help="Signed, non-negative, or one-active codes.", rich_help_panel=_DICTIONARY
        ),
    ] = "sparse"
    recipe: Annotated[
        str,
        typer.Option(
            help="A recipe's name; `default` recovers from data alone.",
            rich_help_panel=_DICTIONARY,
        ),
    ] = "default"
    encoder: Annotated[
        Encoder,
        typer.Option(
            help="What codes, atoms held: the atoms, with gains, or weights of its own.",
            rich_help_panel=_DICTIONARY,
        ),
    ] = "auto"
    joint: Annotated[
        bool,
        typer.Option(
            "--joint", help="The atoms move with the encoder.", rich_help_panel=_DICTIONARY
        ),
    ] = False
    n_unrolled: Annotated[
        int,
        typer.Option(
            help="Corrections of its codes by what they leave.", rich_help_panel=_DICTIONARY
        ),
    ] = 0
    init: Annotated[
        str,
        typer.Option(
            help="Where atoms start: auto, data, random, residual, pca, pairwise.",
            rich_help_panel=_DICTIONARY,
        ),
    ] = "auto"
    norms: Annotated[
        Literal["auto", "clip", "scale", "none"],
        typer.Option(
            help="Of rows: `clip` makes those out of proportion as long as the middle row, `auto` "
            "does where they hold a fifth of the square, `scale` makes all of one length.",
            rich_help_panel=_DICTIONARY,
        ),
    ] = "auto"
    preset: Annotated[
        Literal["activations"] | None,
        typer.Option(
            help="For a language model's activations: non-negative codes, 32 active, centred, "
            "norms clipped, where nothing else is said.",
            rich_help_panel=_DICTIONARY,
        ),
    ] = None
    missing: Annotated[
        Literal["ignore"] | None,
        typer.Option(
            help="`ignore` takes NaN and empty cells for missing entries. Default: an error.",
            rich_help_panel=_DICTIONARY,
        ),
    ] = None

    def estimator(self, n_components: int | None, **shared: Any) -> Any:
        """The model with these settings."""
        from shoal.estimators import DictionaryAutoencoder

        named = self._asdict() | {
            "n_nonzero_coefs": _count_or_auto(self.n_nonzero_coefs),
            "norms": None if self.norms == "none" else self.norms,
        }
        return DictionaryAutoencoder(n_components, **named, **shared)


class Penalised(NamedTuple):
    """What only a model with a penalty has; None is what wasn't typed."""

    penalty: Annotated[
        str | None,
        typer.Option(
            help=f"What makes it sparse: {', '.join(PENALTY_NAMES)}, or a plugin's.",
            rich_help_panel=_PENALISED,
        ),
    ] = None
    strength: Annotated[
        float | None,
        typer.Option(
            help="Of the penalty; of `dae` the noise's variance. Default: .25.",
            rich_help_panel=_PENALISED,
        ),
    ] = None
    activation: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(ACTIVATION_NAMES)}, or a plugin's. Default: relu.",
            rich_help_panel=_PENALISED,
        ),
    ] = None
    weight_length: Annotated[
        Length | None,
        typer.Option(help="Of the atoms. Default: unit.", rich_help_panel=_PENALISED),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the data. Default: 50.", rich_help_panel=_PENALISED),
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option(help="Default: .001.", rich_help_panel=_PENALISED)
    ] = None
    noise: Annotated[
        Noise | None,
        typer.Option(
            help="Of dae; masking sets features to 0, a share of --strength.",
            rich_help_panel=_PENALISED,
        ),
    ] = None
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another one of a penalty: rho of sae, f of mean, q and p of slope, kink, draws, "
            "gamma. May be repeated.",
            rich_help_panel=_PENALISED,
        ),
    ] = None
    encoder_bias: Annotated[
        bool | None,
        typer.Option(
            "--encoder-bias/--no-encoder-bias",
            help="Whether the encoder has a bias. Default: yes.",
            rich_help_panel=_PENALISED,
        ),
    ] = None
    decoder_bias: Annotated[
        bool | None,
        typer.Option(
            "--decoder-bias",
            help="Whether the decoder has one: y = h W + b_d.",
            rich_help_panel=_PENALISED,
        ),
    ] = None

    def estimator(self, n_components: int | None, **shared: Any) -> Any:
        """The model with these settings; those that weren't typed are its own."""
        from shoal.estimators import RegularizedAutoencoder

        named = self._asdict() | {
            "n_epochs": self.epochs,
            "penalty_options": _penalty_options(self.noise, self.option),
        }
        for typed in ("epochs", "noise", "option"):
            del named[typed]
        given = {name: value for name, value in named.items() if value is not None}
        return RegularizedAutoencoder(n_components, **given, **shared)


class Saving(NamedTuple):
    """What is saved on the way, to go on from."""

    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            metavar="30s|N",
            help="Save the state every so many seconds (m, h), or N steps, in RUN.checkpoints.",
            rich_help_panel=_SAVING,
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from what the same command has saved, to the same bits; saves every 30s.",
            rich_help_panel=_SAVING,
        ),
    ] = False

    def options(self, output: Path, *, force: bool, writes: bool = True) -> dict[str, Any]:
        """What a fit takes; the process that writes refuses to pass over what another has left."""
        from shoal.training.checkpoints import EVERY, Every, kept_steps

        folder = checkpoints_of(output)
        if self.checkpoint_every is not None:
            Every.of(self.checkpoint_every)
        left = kept_steps(folder) if writes else None
        if left is not None and not self.resume:
            if not force:
                raise RunError(
                    f"{folder}: holds the state after {left} steps of a fit that was not finished; "
                    "needed --resume to go on from it, or --force to begin anew"
                )
            shutil.rmtree(folder, ignore_errors=True)
        if not self.resume and self.checkpoint_every is None:
            return {}
        return {"checkpoint": folder, "checkpoint_every": self.checkpoint_every or EVERY}

    def begun(self, output: Path) -> str:
        """Where a fit that is resumed begins."""
        from shoal.training.checkpoints import kept_steps

        folder = checkpoints_of(output)
        if kept_steps(folder) is None:
            return f"begins: nothing is saved in {folder} yet"
        return f"goes on from {folder}"


class Several(NamedTuple):
    """How processes share a fit."""

    reproducible: Annotated[
        bool,
        typer.Option(
            "--reproducible",
            help="The same bits by 1, 2, 4 and 8 processes, by sums in a fixed order.",
            rich_help_panel=_SEVERAL,
        ),
    ] = False
    lost_after: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="Give up where another process does not answer a step for so long.",
            rich_help_panel=_SEVERAL,
        ),
    ] = 25.0
    shard_atoms: Annotated[
        int,
        typer.Option(
            metavar="P",
            help="Divide the atoms among P processes each, while the k largest codes are learned "
            "from: all of `topk`, the first steps of `default`. A pursuit, the polish and what "
            "follows have them gathered.",
            rich_help_panel=_SEVERAL,
        ),
    ] = 1

    @contextmanager
    def joined(self, device: str) -> Iterator[Any]:
        """With the other processes that torchrun has started, if it has."""
        check_number("lost_after", self.lost_after, low=0.0, open_low=True)
        rank, size = launched()
        from shoal.training.ranks import check_shards

        check_shards(self.shard_atoms, size, reproducible=self.reproducible)
        in_group = size > 1 or "TORCHELASTIC_RUN_ID" in os.environ
        if not in_group and not self.reproducible:
            from shoal.training.ranks import current

            yield current()
            return
        import torch.distributed as dist

        from shoal.training.ranks import together

        if not in_group:
            with together(reproducible=True) as ranks:
                yield ranks
            return
        patient, group = _met(device, rank, size, self.lost_after)
        try:
            with together(
                group,
                reproducible=self.reproducible,
                patient=patient,
                shard_atoms=self.shard_atoms,
                lost_after=self.lost_after,
            ) as ranks:
                yield ranks
        finally:  # its threads would end the process in their own way
            with suppress(RuntimeError):
                dist.destroy_process_group()


def _met(device: str, rank: int, size: int, seconds: float) -> tuple[Any, Any]:
    """The group of all processes, and the same with less patience."""
    import torch
    import torch.distributed as dist

    on_cuda = torch.cuda.is_available() and device.startswith(("cuda", "auto"))
    if on_cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        kept, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=_MEETING)))
        # After a restart it may still hold the addresses of those that are gone.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"shoal/{attempt}", kept)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=_MEETING),
        )
        group = dist.new_group(timeout=timedelta(seconds=seconds))
    except (RuntimeError, ValueError, dist.DistError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LostError(f"{size} processes could not meet ({reason}); needed all") from None

    def first() -> bool:
        try:
            return bool(store.add("told", 1) == 1)
        except RuntimeError:  # the process that kept it is gone
            return True

    screen.tell_once(first)
    return dist.group.WORLD, group


def _refuse(options: Active | Penalised, needed: str) -> None:
    """Refuse what was typed for the other kind of model."""
    for name, value in options._asdict().items():
        if value not in (options._field_defaults[name], []):
            typed = ", ".join(value) if isinstance(value, list) else str(value)
            raise ArgumentError(name, typed, needed)


def fit(
    *,
    ctx: typer.Context,
    source: SourceSpec,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="RUN", help="The run folder to make.")
    ],
    n_components: Annotated[
        int | None,
        typer.Option("--n-components", "--atoms", "-m", help="Atoms to learn. Default: features."),
    ] = None,
    preprocess: Annotated[
        Kind | None,
        typer.Option(help="Kept with the model. Default: none; scale with --penalty."),
    ] = None,
    added: Annotated[
        float | None, typer.Option(help="To every deviation that is divided by; .1 for digits.")
    ] = None,
    roll_off: Annotated[
        float | None,
        typer.Option(help="Share of directions that whitening keeps, by variance; the rest fades."),
    ] = None,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "cpu",
    active: Active,
    penalised: Penalised,
    opening: Opening,
    saving: Saving,
    several: Several,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Learn a dictionary from SOURCE and write a RUN folder with a report.

    For example:

        shoal fit sample:patches -m 256 -k 2 --preprocess whiten -o runs/patches

        shoal fit planted.npz -m 128 -k 3 -o runs/planted

        shoal fit data.npy -m 4096 -k 16 --checkpoint-every 30s -o runs/long

        torchrun --nproc-per-node 2 -m shoal fit data.npy -m 4096 -k 16 -o runs/shared

        shoal fit sample:digits -m 256 --penalty cae --strength 0.25 --activation relu -o runs/cae

    Where SOURCE holds its true `dictionary` (as `shoal generate` writes it), the report says
    how much of it was recovered.
    """
    from shoal.run_folder import claim_run

    check_count("seed", seed, low=0, high=2**32 - 1)
    if several.shard_atoms > 1 and penalised.penalty is not None:
        raise ArgumentError("shard_atoms", f"{several.shard_atoms} with --penalty", "1")
    if n_components is not None and several.shard_atoms > max(1, n_components):
        found = f"{several.shard_atoms} for {n_components} atoms"
        raise ArgumentError("shard_atoms", found, f"{n_components} at most")
    ranks = ctx.with_resource(several.joined(device))
    writes, held = ranks.rank == 0, None
    if writes:
        # Until the command ends: a second fit into the same folder hears of it before its work.
        # A run that is there beside the state of its fit was to be replaced, or is this fit's own.
        replaced = force or (saving.resume and checkpoints_of(output).is_dir())
        held = ctx.with_resource(claim_run(output, overwrite=replaced))
    saved = saving.options(output, force=force, writes=writes)
    quiet = quiet or not writes
    from shoal.data import Preprocessing

    alone = penalised.penalty is None
    spec = Preprocessing(preprocess or ("none" if alone else "scale"))
    own = active.preset is not None and preprocess is None  # the preset's
    if roll_off is not None:
        if spec.kind != "whiten":
            raise ArgumentError("roll_off", str(roll_off), "--preprocess whiten with it")
        spec = replace(spec, roll_off=roll_off)
    if added is not None:
        if spec.kind not in ("scale", "samples"):
            raise ArgumentError("added", str(added), "--preprocess scale or samples with it")
        spec = replace(spec, added=added)
    data = opening.open(source, random_state=seed)
    from shoal.runs import save_run
    from shoal.training.ranks import apart

    if alone:
        _refuse(penalised, "--penalty with it")
    else:
        _refuse(active, "to be left out with --penalty")
    kind = active if alone else penalised
    shared = {"preprocessing": None if own else spec, "device": device, "random_state": seed}
    estimator = kind.estimator(n_components, **shared)
    start = time.perf_counter()
    with resumable(output, saved):
        with _told_later(), closing(estimator.iter_fit(data, **saved)) as steps:
            if saving.resume and not quiet:
                screen.note(saving.begun(output))
            if alone:
                follow(steps, quiet=quiet)
            else:
                follow_epochs(steps, estimator.n_epochs, quiet=quiet)
        seconds = time.perf_counter() - start
        if held is None:
            return
        command = shlex.join(["shoal", *sys.argv[1:]]) if sys.argv[1:2] == ["fit"] else None
        with apart():  # the others are done
            run = kept(
                lambda place: save_run(estimator, place, data, command=command, seconds=seconds),
                held,
            )
    shutil.rmtree(checkpoints_of(output), ignore_errors=True)
    if not quiet:
        summary(run)
        for name, what in (("", "run folder"), ("report.html", "report"), ("atoms.png", "atoms")):
            screen.line(f"{what:>11}: {run / name}")


@contextmanager
def _told_later() -> Iterator[None]:
    """Shows the warnings of the block when its progress bar is gone, whichever way it ends."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("default")
        try:
            yield
        finally:
            for note in noted:
                show_note(note.message)


def _count_or_auto(given: str | None) -> int | str | None:
    """What ``-k`` was given as a number, where it is one."""
    try:
        return None if given is None else int(given)
    except ValueError:
        return given  # 'auto', or what the estimator refuses


def _penalty_options(noise: str | None, options: list[str] | None) -> dict[str, Any] | None:
    """A penalty's other settings, from ``NAME=VALUE`` with numbers as numbers."""
    found: dict[str, Any] = {} if noise is None else {"noise": noise}
    for text in options or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ArgumentError("option", repr(text), "NAME=VALUE, such as rho=0.05")
        if name in found:
            raise ArgumentError("option", f"{name!r} twice", "each once")
        try:
            found[name] = json.loads(value)  # a number, a list of them, true or false
        except ValueError:
            found[name] = value  # a word
    return found or None

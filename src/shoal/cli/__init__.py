"""The command line: shoal fit | sweep | transform | generate | score | check | landscape | ...

Every command checks its arguments before any work starts, and says what is wrong in one
line. Exit codes: 0 done; 1 failed at work, as by a full disk or for want of memory; 2 refused:
bad input, or a place for the result that can't be had; 130 interrupted (SIGINT), 143 terminated
(SIGTERM).
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, cast, get_args

import typer
from typer.core import TyperGroup

from shoal import signals
from shoal.cli import screen
from shoal.files import Claim, claim, whole_file
from shoal.cli.screen import bar as _bar
from shoal.cli.screen import table as _print_table
from shoal.signals import stoppable
from shoal.vocabulary import (
    ArgumentError,
    RunError,
    ShoalError,
    WriteError,
    __version__,
    check_count,
    check_number,
)

if TYPE_CHECKING:
    from shoal.data import Source
    from shoal.generative import GenerativeModel
    from shoal.report.run import Run
    from shoal.training.passes import Epoch
    from shoal.vocabulary import Step

__all__ = ["app", "main"]


# The base of all that is wrong with how a command was called; typer doesn't export it.
_UsageError: Any = typer.BadParameter.__base__


def _show_note(message: Warning | str, *rest: Any, **more: Any) -> None:
    """A warning without the line of code that a library's user would want."""
    screen.note(f"note: {message}")


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Turns the errors a person can mend into one line and an exit code."""
    try:
        yield
    except ShoalError as error:
        # What a caller in Python would write is an option here.
        screen.error(str(error).replace("overwrite=True", "--force"))
        raise typer.Exit(1 if isinstance(error, WriteError) else 2) from None
    except _UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "shoal"
        text = " ".join(error.format_message().split())
        screen.error(f"{text} ({where} --help says more)")
        raise typer.Exit(2) from None
    except KeyboardInterrupt as stop:
        screen.note(f"interrupted: {str(stop) or 'no unfinished result was left behind'}")
        raise typer.Exit(signals.landed()) from None
    except MemoryError as error:
        screen.error(f"out of memory ({error}); needed a smaller problem")
        raise typer.Exit(1) from None


class _Group(TyperGroup):
    """Has all errors said in one line, those in reading the command included."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        with _in_one_line():
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: Any) -> Any:
        with _in_one_line(), warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _show_note
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    help="""Recover the dictionary behind a data set with a shallow weight-tied autoencoder.

    Start here:

        shoal fit sample:patches -m 256 -k 2 --preprocess whiten -o runs/patches

    A SOURCE is a file (.npy, .npz, .safetensors, .parquet, .csv, .tsv, .zarr), a folder of images,
    or a named sample (sample:patches, sample:digits). A RUN is the folder that `fit` writes.

    Exit codes: 0 done; 1 failed at work (a full disk, no memory); 2 refused (bad input, a name that
    is taken); 130 interrupted; 143 terminated.""",
)


Model = Literal["sparse", "nonnegative", "mixture"]
World = Literal["sparse", "nonnegative", "mixture", "independent"]
Kind = Literal["none", "center", "scale", "whiten", "samples"]
# Those of shoal.estimators, which would take a second to load for a help text; a test compares.
Method = Literal["encoder", "least_squares", "pursuit", "omp", "iht"]
# As above, for the help text: any registered one is taken, a plugin's too.
PENALTY_NAMES = (
    "none", "dae", "cae", "mdae", "sae", "edae", "taylor-dae", "cae+h", "l1", "mean", "slope"
)  # fmt: skip
ACTIVATION_NAMES = (
    "relu", "sigmoid", "softplus", "tanh", "maxout", "jumprelu", "batchtopk"
)  # fmt: skip
Noise = Literal["gaussian", "masking"]
Length = Literal["unit", "max-norm", "free"]
Scale = Literal["smoke", "reduced", "full"]
Atoms = Literal["random", "low-coherence", "orthonormal-union"]
Shape = Literal["relu", "threshold", "topk", "sigmoid", "softplus", "tanh"]
Rounding = Literal["ceil", "floor", "nearest"]
Values = Literal["uniform", "constant", "rademacher", "gaussian"]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, written by `fit`.")]
SourceSpec = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A file, a folder of images, or sample:NAME.")
]
Key = Annotated[str | None, typer.Option(help="Which array, in a file that holds several.")]
PatchSize = Annotated[int | None, typer.Option(help="Side of the patches, for a folder of images.")]
PatchCount = Annotated[int | None, typer.Option(help="How many patches, for a folder of images.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[,NAME...]",
        help="Of a table: its columns to use, by name or by number from 0. May be repeated.",
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[,NAME...]", help="Of a table: its columns to leave out. May be repeated."
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="Between the cells of a .csv; `tab`. Default: what its lines agree on."),
]
Header = Annotated[
    bool | None,
    typer.Option("--header/--no-header", help="Whether a .csv has names. Default: as it looks."),
]
Power = Annotated[
    float | None, typer.Option(help="Instead of -k: as many active atoms as atoms to this power.")
]
Roundings = Annotated[
    Rounding | None, typer.Option(help="Of that number; floor is the paper's. Default: ceil.")
]
Supports = Annotated[
    str | None,
    typer.Option(
        metavar="LIST|FILE",
        help='Instead of -k: the supports there are, as "0,1,2; 3,4", or a file with one per line.',
    ),
]
Blocks = Annotated[
    int | None,
    typer.Option(help="Atoms are active in blocks of so many; with -k, k / BLOCKS of them."),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="LIST|FILE",
        help="How likely each support, block, component, or unit (if independent) is, in "
        "proportion. Default: equally.",
    ),
]
ValuesOption = Annotated[
    Values | None,
    typer.Option(
        help="The law of a non-zero: between --low and --high, always --low, 1 or -1, or normal "
        "but for magnitudes below --low. Default: uniform."
    ),
]
Low = Annotated[float | None, typer.Option(help="Least magnitude of a non-zero. Default: 1.")]
High = Annotated[float | None, typer.Option(help="Largest, if uniform. Default: 2.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, or auto. Default: as the run was made.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]


@app.callback(invoke_without_command=True)
def _top(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE",
            help="A module to import first, whose parts register themselves; may be repeated. It "
            "is looked for in the current folder too.",
        ),
    ] = None,
) -> None:
    for name in plugin or ():
        _import_plugin(name)
    if version:
        screen.line(f"shoal {__version__}")
        raise typer.Exit


def _import_plugin(name: str) -> None:
    """Import a module of the user's, from where they are if need be."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever somebody's module raises
        reason = f"{type(error).__name__}: {error}"
        found = f"{name}, which can't be imported ({reason})"
        raise ArgumentError("plugin", found, "a module") from error


@app.command()
def fit(
    ctx: typer.Context,
    source: SourceSpec,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="RUN", help="The run folder to make.")
    ],
    n_components: Annotated[
        int | None,
        typer.Option("--n-components", "--atoms", "-m", help="Atoms to learn. Default: features."),
    ] = None,
    n_nonzero_coefs: Annotated[
        str | None,
        typer.Option(
            "--n-nonzero-coefs",
            "-k",
            metavar="INTEGER|auto",
            help="Active atoms a sample; `auto` estimates it. Default: m / 10.",
        ),
    ] = None,
    model: Annotated[
        Model, typer.Option(help="Signed, non-negative, or one-active codes.")
    ] = "sparse",
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
    recipe: Annotated[
        str, typer.Option(help="A recipe's name; `default` recovers from data alone.")
    ] = "default",
    init: Annotated[
        str,
        typer.Option(help="Where atoms start: auto, data, random, residual, pca, pairwise."),
    ] = "auto",
    penalty: Annotated[
        str | None,
        typer.Option(
            help="Instead of k active atoms, an autoencoder that this makes sparse: "
            f"{', '.join(PENALTY_NAMES)}, or a plugin's."
        ),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="Of the penalty; of `dae` the noise's variance. [.25]")
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(
            help=f"With --penalty: {', '.join(ACTIVATION_NAMES)}, or a plugin's. Default: relu."
        ),
    ] = None,
    weight_length: Annotated[
        Length | None, typer.Option(help="With --penalty: of the atoms. Default: unit.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="With --penalty. Default: 50.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="With --penalty. Default: .001.")
    ] = None,
    noise: Annotated[
        Noise | None,
        typer.Option(help="With --penalty dae; masking sets features to 0, a share of --strength."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="With --penalty: rho of sae, f of mean, q and p of slope, kink, draws, gamma.",
        ),
    ] = None,
    encoder_bias: Annotated[
        bool, typer.Option("--encoder-bias/--no-encoder-bias", help="With --penalty.")
    ] = True,
    decoder_bias: Annotated[
        bool, typer.Option("--decoder-bias", help="With --penalty: y = h W + b_d.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bits.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "cpu",
    key: Key = None,
    patch_size: PatchSize = None,
    n_patches: PatchCount = None,
    columns: Columns = None,
    drop: Drop = None,
    delimiter: Delimiter = None,
    header: Header = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Learn a dictionary from SOURCE and write a RUN folder with a report.

    For example:

        shoal fit sample:patches -m 256 -k 2 --preprocess whiten -o runs/patches

        shoal fit planted.npz -m 128 -k 3 -o runs/planted

        shoal fit sample:digits -m 256 --penalty cae --strength 0.25 --activation relu -o runs/cae

    Where SOURCE holds its true `dictionary` (as `shoal generate` writes it), the report says
    how much of it was recovered.
    """
    from shoal.run_folder import claim_run

    # Until the command ends: a second fit into the same folder hears of it before its work.
    held = ctx.with_resource(claim_run(output, overwrite=force))
    check_count("seed", seed, low=0, high=2**32 - 1)
    from shoal.data import Preprocessing, open_source

    spec = Preprocessing(preprocess or ("none" if penalty is None else "scale"))
    if roll_off is not None:
        if spec.kind != "whiten":
            raise ArgumentError("roll_off", str(roll_off), "--preprocess whiten with it")
        spec = replace(spec, roll_off=roll_off)
    if added is not None:
        if spec.kind not in ("scale", "samples"):
            raise ArgumentError("added", str(added), "--preprocess scale or samples with it")
        spec = replace(spec, added=added)
    table = _table(columns, drop, delimiter, header)
    data = open_source(
        source, key=key, patch_size=patch_size, n_patches=n_patches, random_state=seed, **table
    )
    from shoal.runs import save_run

    shared: dict[str, Any] = {"preprocessing": spec, "device": device, "random_state": seed}
    chosen = {
        "strength": strength,
        "activation": activation,
        "weight_length": weight_length,
        "n_epochs": epochs,
        "learning_rate": learning_rate,
        "penalty_options": _penalty_options(noise, option),
        "encoder_bias": None if encoder_bias else False,
        "decoder_bias": decoder_bias or None,
    }
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    estimator: Any
    if penalty is None:
        if given:
            typed = {"n_epochs": "epochs", "penalty_options": "noise" if noise else "option"}
            name = typed.get(next(iter(given)), next(iter(given)))
            raise ArgumentError(name, str(next(iter(given.values()))), "--penalty with it")
        from shoal.estimators import DictionaryAutoencoder

        estimator = DictionaryAutoencoder(
            n_components,
            _count_or_auto(n_nonzero_coefs),
            model=model,
            recipe=recipe,
            init=cast(Any, init),  # it is checked there
            **shared,
        )
    else:
        usual = {"n_nonzero_coefs": None, "model": "sparse", "recipe": "default", "init": "auto"}
        asked = {"n_nonzero_coefs": n_nonzero_coefs, "model": model, "recipe": recipe, "init": init}
        for name, value in asked.items():
            if value != usual[name]:
                raise ArgumentError(name, str(value), "to be left out with --penalty")
        from shoal.estimators import RegularizedAutoencoder

        estimator = RegularizedAutoencoder(n_components, penalty, **given, **shared)
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as noted:  # shown when the progress bar is gone
        warnings.simplefilter("default")
        if penalty is None:
            _follow(estimator.iter_fit(data), quiet=quiet)
        else:
            _follow_epochs(estimator.iter_fit(data), estimator.n_epochs, quiet=quiet)
    seconds = time.perf_counter() - start
    for note in noted:
        _show_note(note.message)
    command = shlex.join(["shoal", *sys.argv[1:]]) if sys.argv[1:2] == ["fit"] else None
    run = _kept(
        lambda place: save_run(estimator, place, data, command=command, seconds=seconds), held
    )
    if not quiet:
        _summary(run)
        for name, what in (("", "run folder"), ("report.html", "report"), ("atoms.png", "atoms")):
            screen.line(f"{what:>11}: {run / name}")


@app.command()
def sweep(
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
    key: Key = None,
    patch_size: PatchSize = None,
    n_patches: PatchCount = None,
    columns: Columns = None,
    drop: Drop = None,
    delimiter: Delimiter = None,
    header: Header = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train a regularised autoencoder at every strength of every penalty, and draw its sparsity.

    For example:

        shoal sweep sample:digits --penalty dae,cae --strength 0:1:6 -m 128 --added 0.1 -o sweep

    Interrupted, the same command goes on where it was.
    """
    check_count("seed", seed, low=0)
    from shoal.data import Preprocessing, open_source
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
    table = _table(columns, drop, delimiter, header)
    data = open_source(
        source, key=key, patch_size=patch_size, n_patches=n_patches, random_state=seed, **table
    )
    steps = run_sweep(
        data,
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
    with _going_on():
        result = _run_to_the_end(steps, "sweep", quiet=quiet)
    if not quiet:
        (table,) = result["tables"]
        rows = [[_number(cell) for cell in row] for row in table["rows"]]
        _print_table("Sparsity", table["head"], rows)
        screen.line(f"page: {output / 'index.html'}")


@app.command()
def transform(
    ctx: typer.Context,
    run: RunPath,
    source: SourceSpec,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="CODES", help="An .npz file to write.")
    ],
    method: Annotated[
        Method,
        typer.Option(
            help="The encoder's code, least squares on its support, or a pursuit with at most k "
            "atoms: subspace pursuit, orthogonal matching pursuit, iterative hard thresholding."
        ),
    ] = "encoder",
    device: Device = None,
    key: Key = None,
    patch_size: PatchSize = None,
    n_patches: PatchCount = None,
    columns: Columns = None,
    drop: Drop = None,
    delimiter: Delimiter = None,
    header: Header = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write the codes of SOURCE under RUN, as a sparse matrix of shape (samples, atoms).

    Read them with scipy.sparse.load_npz.
    """
    _check_suffix(output, ".npz")
    held = ctx.with_resource(claim(output, overwrite=force))
    from scipy import sparse

    from shoal.data import open_source
    from shoal.runs import load_run

    model = load_run(run, device=device).set_params(sparse_output=True)
    table = _table(columns, drop, delimiter, header)
    data = open_source(source, key=key, patch_size=patch_size, n_patches=n_patches, **table)
    blocks = list(_counted(model.iter_transform(data, method), data, quiet=quiet))
    codes = sparse.csr_matrix(sparse.vstack(blocks, format="csr"))

    def write(place: Claim | Path) -> Path:
        with whole_file(place, overwrite=False) as temporary, open(temporary, "wb") as file:
            sparse.save_npz(file, codes)
        return Path(place)

    _kept(write, held)
    if not quiet:
        active = codes.nnz / max(codes.shape[0], 1)
        screen.line(
            f"{codes.shape[0]} x {codes.shape[1]} codes, {active:.4g} active a sample: {output}"
        )


@app.command()
def generate(
    ctx: typer.Context,
    world: Annotated[World, typer.Argument(help="Which generative model.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="An .npz file to write.")
    ],
    n_features: Annotated[int, typer.Option("--n-features", "-n", help="Features a sample.")] = 64,
    atoms: Annotated[
        int, typer.Option("--atoms", "--n-components", "-m", help="Atoms of the true dictionary.")
    ] = 128,
    sparsity: Annotated[
        int | None,
        typer.Option(
            "--sparsity", "-k", help="Active atoms a sample (expected, if independent). Default: 3."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="How many samples.")] = 20_000,
    noise: Annotated[float, typer.Option(help="Standard deviation a coordinate.")] = 0.0,
    power: Power = None,
    rounding: Roundings = None,
    supports: Supports = None,
    blocks: Blocks = None,
    weights: Weights = None,
    values: ValuesOption = None,
    low: Low = None,
    high: High = None,
    atoms_from: Annotated[
        Atoms | None, typer.Option(help="How the true dictionary is made. Default: random.")
    ] = None,
    # What it was called while `check --dictionary` meant something else.
    dictionary: Annotated[Atoms | None, typer.Option("--dictionary", hidden=True)] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bits.")] = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Make data whose dictionary is known: `data`, `dictionary` and `codes` in one .npz.

    For example:

        shoal generate sparse --n-features 64 --atoms 128 -k 3 --samples 20000 -o planted.npz

        shoal generate nonnegative -m 12 --supports "0,1,2; 3,4,5" --weights 3,1 -o two.npz
    """
    _check_suffix(output, ".npz")
    held = ctx.with_resource(claim(output, overwrite=force))
    check_count("seed", seed, low=0)
    check_count("samples", samples)
    import numpy as np

    from shoal.generative import laws_of

    # Two streams of one seed: the dictionary stays when the number of samples changes.
    for_atoms, for_samples = np.random.default_rng(seed).spawn(2)
    if None not in (atoms_from, dictionary) and atoms_from != dictionary:
        raise ArgumentError("dictionary", str(dictionary), "--atoms-from alone: it is its new name")
    truth = _make_atoms(atoms_from or dictionary or "random", atoms, n_features, for_atoms)
    laws = _Laws(sparsity, power, rounding, supports, blocks, weights, values, low, high)
    made = laws.world(world, truth, noise)
    drawn = made.sample(samples, random_state=for_samples)
    with whole_file(held) as temporary, open(temporary, "wb") as file:
        text = np.array(json.dumps(laws_of(made)))
        np.savez(file, data=drawn.data, dictionary=made.dictionary, codes=drawn.codes, laws=text)
    if not quiet:
        screen.line(f"{samples} samples of {n_features} features from {atoms} atoms: {output}")


@app.command()
def score(
    run: RunPath,
    source: SourceSpec,
    as_json: Annotated[bool, typer.Option("--json", help="All numbers, as JSON.")] = False,
    device: Device = None,
    key: Key = None,
    patch_size: PatchSize = None,
    n_patches: PatchCount = None,
    columns: Columns = None,
    drop: Drop = None,
    delimiter: Delimiter = None,
    header: Header = None,
) -> None:
    """Say how well RUN explains SOURCE, and how much of its true dictionary it recovered."""
    from shoal.data import open_source, validate
    from shoal.runs import evaluate, load_run

    model = load_run(run, device=device)
    table = _table(columns, drop, delimiter, header)
    data = open_source(source, key=key, patch_size=patch_size, n_patches=n_patches, **table)
    validate(data)
    result = evaluate(model, data)
    if as_json:
        screen.record(result)
        return
    _print_table("Codes", *_codes_table(result["diagnosis"]))
    if result["recovery"] is None:
        screen.line("The truth behind this source isn't known: nothing can be said of recovery.")
    else:
        _print_table("Recovery of the true dictionary", *_recovery_table(result["recovery"]))


@app.command()
def check(
    world: Annotated[
        str,
        typer.Argument(
            metavar="WORLD",
            help="What `generate` wrote, another SOURCE with --dictionary, or one of sparse, "
            "nonnegative, mixture, independent with the sizes below.",
        ),
    ],
    dictionary: Annotated[
        Path | None,
        typer.Option(
            "--dictionary",
            metavar="RUN|FILE",
            help="Whose weights are asked about: a run's, or atoms as rows in a .npy, .npz or "
            ".safetensors file.",
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Which array of that file. Default: dictionary.")
    ] = None,
    delta: Annotated[
        float,
        typer.Option(help="Without a run: the truth, each atom moved by this in a random way."),
    ] = 0.1,
    n_features: Annotated[int, typer.Option("--n-features", "-n", help="Features a sample.")] = 64,
    atoms: Annotated[int, typer.Option("--atoms", "-m", help="Atoms of a named world.")] = 128,
    sparsity: Annotated[
        int | None, typer.Option("--sparsity", "-k", help="Active atoms a sample. Default: 3.")
    ] = None,
    noise: Annotated[float, typer.Option(help="Standard deviation a coordinate.")] = 0.0,
    power: Power = None,
    rounding: Roundings = None,
    supports: Supports = None,
    blocks: Blocks = None,
    weights: Weights = None,
    values: ValuesOption = None,
    low: Low = None,
    high: High = None,
    atoms_from: Annotated[
        Atoms, typer.Option(help="How a named world's atoms are made.")
    ] = "random",
    samples: Annotated[int, typer.Option(help="Samples that measurements are taken on.")] = 5000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bits.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="All numbers, as JSON.")] = False,
) -> None:
    """Say which theorems apply to WORLD, what they promise, and what is measured.

    For example:

        shoal check nonnegative -n 256 -m 512 -k 2 --high 1.2 --atoms-from orthonormal-union

        shoal check planted.npz --dictionary runs/planted

        shoal check planted.npz --dictionary atoms.npy

    Of a RUN that was fitted with --penalty, what makes its codes sparse or not is said instead:

        shoal check sample:digits --dictionary runs/cae
    """
    check_count("seed", seed, low=0)
    check_count("samples", samples)
    if dictionary is not None and _is_penalty_run(dictionary):
        _check_penalty(dictionary, world, samples, seed, as_json=as_json)
        return
    import numpy as np

    from shoal import theory
    from shoal.generative import perturb

    for_atoms, for_weights = np.random.default_rng(seed).spawn(2)
    asked = None if dictionary is None else _asked_weights(dictionary, key)
    if asked is None and key is not None:
        raise ArgumentError("key", repr(key), "--dictionary FILE with it")
    laws = _Laws(sparsity, power, rounding, supports, blocks, weights, values, low, high)
    known = True
    if world in get_args(World):
        truth = _make_atoms(atoms_from, atoms, n_features, for_atoms)
        made = laws.world(cast("World", world), truth, noise)
    else:
        opened = theory.open_world(world)
        known = opened is not None
        if known or asked is None or asked.model is not None:
            laws.refuse(world)
        made = _world_found(world, asked, laws) if opened is None else opened
    notes = [] if asked is None else list(asked.notes)
    if known and asked is not None:
        made, told = asked.there(made)
        notes += told
    elif not known:
        notes.append(
            "The truth behind this source isn't known: the asked-for atoms stand in its place."
        )
    w = perturb(made.dictionary, delta, for_weights) if asked is None else asked.rows
    facts = theory.WorldFacts.of(made, truth=known)
    found = theory.examine(made, w, n_samples=samples, random_state=seed)
    if as_json:
        record = {
            "world": asdict(facts),
            "notes": notes,
            "assertions": [each.to_dict() for each in found],
        }
        screen.record(theory.plain(record))
        return
    for note in notes:
        screen.line(note)
    rows = [[name.replace("_", " "), _number(value)] for name, value in asdict(facts).items()]
    _print_table("World", ["what", "value"], rows)
    for each in found:
        _print_assertion(each)


@app.command()
def landscape(
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
    n_features: Annotated[int, typer.Option("--n-features", "-n", help="Features a sample.")] = 64,
    atoms: Annotated[int, typer.Option("--atoms", "-m", help="Atoms of a named world.")] = 128,
    sparsity: Annotated[
        int | None, typer.Option("--sparsity", "-k", help="Active atoms a sample. Default: 3.")
    ] = None,
    noise: Annotated[float, typer.Option(help="Standard deviation a coordinate.")] = 0.0,
    power: Power = None,
    rounding: Roundings = None,
    supports: Supports = None,
    blocks: Blocks = None,
    weights: Weights = None,
    values: ValuesOption = None,
    low: Low = None,
    high: High = None,
    atoms_from: Annotated[
        Atoms, typer.Option(help="How a named world's atoms are made.")
    ] = "random",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bits.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="All numbers, as JSON.")] = False,
    key: Key = None,
    patch_size: PatchSize = None,
    n_patches: PatchCount = None,
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
    laws = _Laws(sparsity, power, rounding, supports, blocks, weights, values, low, high)
    options: dict[str, Any] = {"n_points": points, "n_plane": 25, "random_state": seed}
    if target not in get_args(World) and Path(target).is_dir():
        if source is None:
            raise ArgumentError("SOURCE", "nothing", "the data that the loss is of, after the run")
        for own, typed in (("activation", activation), ("bias", bias)):
            if typed is not None:
                raise ArgumentError(own, str(typed), "to be left out: a run has its own")
        laws.refuse(target)
        from shoal.data import open_source
        from shoal.runs import load_run

        model = load_run(target)
        data = open_source(source, key=key, patch_size=patch_size, n_patches=n_patches)
        found = model.landscape(data, n_samples=samples, **options)
        title = f"The loss around {Path(target).name}, on {data.name}"
    else:
        if source is not None:
            needed = f"to be left out: {target} is no run, and draws its own data"
            raise ArgumentError("SOURCE", source, needed)
        for name, value in (("key", key), ("patch_size", patch_size), ("n_patches", n_patches)):
            if value is not None:
                raise ArgumentError(name, str(value), "to be left out with a world")
        import numpy as np

        from shoal import theory

        for_atoms, for_samples = np.random.default_rng(seed).spawn(2)
        if target in get_args(World):
            truth = _make_atoms(atoms_from, atoms, n_features, for_atoms)
            world = laws.world(cast("World", target), truth, noise)
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


@app.command()
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
    with _going_on() if several else nullcontext():
        for each, configured, held, there in plan:
            if there is not None and not quiet:
                screen.note(f"{each.name}: there already")
            result = there or _run_experiment(each, configured, scale, quiet=quiet)
            if held is not None:
                _kept(partial(_write_result, each, result), held)
            results.append(result)
            if several:
                papers.write_page(output, list(zip(chosen, results, strict=False)))
    if not quiet:
        _print_verdicts(results)
        screen.line(f"page: {output / 'index.html'}")


@app.command()
def report(run: RunPath) -> None:
    """Write report.html and atoms.png of RUN again."""
    from shoal.report import write_atoms, write_report

    screen.line(write_atoms(run))
    screen.line(write_report(run))


@app.command()
def info(
    run: RunPath,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every file of RUN against its checksum.")
    ] = False,
) -> None:
    """Say what RUN holds, or with --verify whether its files are as they were written."""
    if verify:
        _verify(run)
    else:
        _summary(run)


# ---------------------------------------------------------------------- helpers


def _table(
    columns: list[str] | None, drop: list[str] | None, delimiter: str | None, header: bool | None
) -> dict[str, Any]:
    """What was said of a table, for `open_source`."""
    named = {"columns": columns or None, "drop": drop or None}
    return {**named, "delimiter": delimiter, "header": header}


def _check_suffix(path: Path, suffix: str) -> None:
    if path.suffix != suffix:
        raise ArgumentError("output", str(path), f"a name that ends in {suffix}")


def _kept(write: Callable[[Any], Path], held: Claim) -> Path:
    """What `write` makes of the place; where it can't be written there, it is kept elsewhere.

    What took hours must not be lost to a full disk: it goes to a new folder among the temporary
    files, and the error says so.
    """
    try:
        return write(held)
    except RunError as failed:
        try:
            spare = Path(tempfile.mkdtemp(prefix="shoal-"))
        except OSError:
            raise failed from None
        written = None
        try:
            written = write(spare / held.path.name)
        except (ShoalError, OSError):
            raise failed from None
        finally:
            if written is None:
                shutil.rmtree(spare, ignore_errors=True)
        raise WriteError(f"{failed}; what was to be there is kept as {written}") from None


@contextmanager
def _going_on() -> Iterator[None]:
    """Has an interruption say that what is finished is kept."""
    try:
        yield
    except KeyboardInterrupt:
        raise signals.Interrupted(
            "what is finished is kept; the same command goes on from there"
        ) from None


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


def _follow(steps: Iterator[Step], *, quiet: bool) -> None:
    """Run a fit to its end under a progress bar a phase.

    Descent has a number of steps; the phases after it end when they have nothing more to give,
    and until then their bars only say that they are at work.
    """
    with _bar("{task.fields[note]}", quiet=quiet) as progress:
        phase, task, shown, first = "", None, 0.0, 0
        step = None

        def show(step: Step, **end: Any) -> None:
            number = step.number - first
            note = f"{'round' if step.phase == 'polish' else 'step'} {number}"
            variance = float(step.variance)
            if variance > 0:
                note += f", explained {1 - float(step.loss) / variance:.1%}"
            progress.update(task, note=note, **end)

        for following in stoppable(steps):
            if quiet:
                continue
            if following.phase != phase:
                if step is not None:
                    show(step, total=1.0, completed=1.0)
                phase, first = following.phase, following.number - 1
                total = 1.0 if phase == "descent" else None
                task = progress.add_task(phase, total=total, note="")
                shown = 0.0
            step = following
            now = time.perf_counter()
            # Reading the loss waits for the device: not at every step.
            if now - shown >= 0.2:
                shown = now
                show(step, completed=step.progress if phase == "descent" else 0.0)
        if step is not None:
            show(step, total=1.0, completed=1.0)


def _follow_epochs(epochs: Iterator[Epoch], n_epochs: int, *, quiet: bool) -> None:
    """Run a fit of epochs to its end under a progress bar."""
    with _bar("{task.fields[note]}", quiet=quiet) as progress:
        task = progress.add_task("epochs", total=n_epochs, note="")
        for epoch in stoppable(epochs):
            note = f"loss {epoch.loss:.4g}, active {epoch.usage.activation_fraction:.1%}"
            progress.update(task, completed=epoch.number, note=note)


def _counted(blocks: Iterable[Any], source: Source, *, quiet: bool) -> Iterator[Any]:
    with _bar(quiet=quiet) as progress:
        task = progress.add_task("encode", total=source.n_samples)
        for block in stoppable(blocks):
            yield block
            progress.advance(task, block.shape[0])


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _make_atoms(how: Atoms, atoms: int, n_features: int, random_state: Any) -> Any:
    """A true dictionary (m, n)."""
    from shoal import generative

    makers = {
        "random": generative.random_dictionary,
        "low-coherence": generative.low_coherence,
        "orthonormal-union": generative.orthonormal_union,
    }
    return makers[how](atoms, n_features, random_state=random_state)


class _Laws(NamedTuple):
    """The laws of a named world, as typed; None is what wasn't."""

    sparsity: int | None
    power: float | None
    rounding: Rounding | None
    supports: str | None
    blocks: int | None
    weights: str | None
    values: Values | None
    low: float | None
    high: float | None

    def world(self, name: World, truth: Any, noise: float) -> GenerativeModel:
        """The named world with them."""
        from shoal.generative import named_world

        return named_world(name, truth, noise=noise, **self._asdict())

    def refuse(self, source: str) -> None:
        """Refuse them all: what is in a file has its own."""
        for name, value in self._asdict().items():
            if value is not None:
                needed = f"to be left out: {source} has laws of its own"
                raise ArgumentError(name, str(value), needed)


class _Asked(NamedTuple):
    """The weights that `check` asks about, as unit rows, and where they are from."""

    rows: Any  # (m, n)
    model: Any  # of a run; None for a file
    notes: tuple[str, ...]

    def there(self, world: GenerativeModel) -> tuple[GenerativeModel, list[str]]:
        """The world in the space that the weights live in, and what to say of it."""
        from shoal.theory import preprocessed_world

        fitted = None if self.model is None else self.model.preprocessing_
        if fitted is None or fitted.spec.kind == "none":
            return world, []
        made, lengths, noise = preprocessed_world(world, fitted)
        told = [
            f"The run has preprocessing {fitted.spec.kind!r}: the world is that of the data after "
            "its linear part, its true atoms mapped and divided by their lengths there. The mean "
            "that it takes away is a constant, of which no theorem here speaks; it is left in."
        ]
        low, high = float(lengths.min()), float(lengths.max())
        if high > low * (1 + 1e-6):
            told.append(
                f"True atoms are {low:.3g} to {high:.3g} long there, so that units have laws of "
                "their own; theorems know one, and it is that of all of them together."
            )
        if noise[1] > noise[0] * (1 + 1e-6):
            told.append(
                f"Noise is {noise[0]:.3g} to {noise[1]:.3g} there by direction; it is taken as "
                f"{made.noise:.3g} in all."
            )
        return made, told


def _asked_weights(path: Path, key: str | None) -> _Asked:
    """What ``--dictionary`` names: a run, or a file of atoms."""
    from shoal.theory import open_dictionary, unit_rows

    if path.suffix.lower() in (".npy", ".npz", ".safetensors") and not path.is_dir():
        model, found = None, open_dictionary(path, key)
    else:
        if key is not None:
            raise ArgumentError("key", repr(key), "to be left out with a run")
        from shoal.runs import load_run

        model = load_run(path)
        found = model.components_.astype(float)
    rows, lengths = unit_rows(found)
    if abs(lengths - 1.0).max() <= 1e-4:
        return _Asked(found, model, ())
    note = (
        f"Atoms of {path.name} are {lengths.min():.3g} to {lengths.max():.3g} long: each is "
        "divided by its length, as theorems ask of unit atoms."
    )
    return _Asked(rows, model, (note,))


def _world_found(spec: str, asked: _Asked | None, laws: _Laws) -> GenerativeModel:
    """The world that weights make of a source whose truth nobody knows."""
    from shoal.data import open_source, validate
    from shoal.theory import world_from_codes

    source = open_source(spec)
    if asked is None:
        needed = "--dictionary RUN to stand for it, or what `shoal generate` wrote"
        raise ArgumentError("WORLD", f"{source.name} without a truth", needed)
    if asked.model is not None:
        asked.model.set_params(sparse_output=True)
        method = "pursuit" if "pursuit" in asked.model.methods else "encoder"
        (data, codes, _), *_ = asked.model.iter_coded(source, method)
        return world_from_codes(asked.rows, codes, data=data)
    validate(source)
    m, n = asked.rows.shape
    if source.n_features != n:
        raise ArgumentError("dictionary", f"atoms of {n} features", f"{source.n_features}, as data")
    others = laws._replace(sparsity=None)
    others.refuse(spec)
    if laws.sparsity is None:
        needed = "-k, the atoms that a sample is written with: a file of atoms doesn't say"
        raise ArgumentError("sparsity", "nothing", needed)
    check_count("sparsity", laws.sparsity, high=min(m, n))
    data = next(iter(source.batches(4096)))
    return world_from_codes(asked.rows, _pursued(asked.rows, data, laws.sparsity), data=data)


def _pursued(rows: Any, data: Any, k: int) -> Any:
    """Codes of `data` with at most k atoms of `rows`, as a scipy.sparse.csr_array."""
    import torch

    from shoal.network.inference import SubspacePursuit, fast_sparse_encode
    from shoal.vocabulary import Parameters

    atoms = torch.from_numpy(rows.astype(data.dtype))
    parameters = Parameters(atoms, torch.zeros(len(atoms), dtype=atoms.dtype))
    found = fast_sparse_encode(parameters, torch.from_numpy(data), SubspacePursuit(k))
    return found.to_csr(len(atoms))


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
            barrier = _number(float(line.loss[between].max()) / found.zero)
        ends = [line.loss[0] / found.zero, line.loss[-1] / found.zero]
        at = f"{line.loss[least] / found.zero:.4g} at t = {line.t[least]:.3g}"
        rows.append([line.name, _number(float(ends[0])), at, _number(float(ends[1])), barrier])
    head = ["direction", "first", "least", "last", "between the swapped"]
    _print_table(title, head, rows)
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


def _is_penalty_run(path: Path) -> bool:
    """Whether it is the folder of a regularised autoencoder; what is wrong with one comes later."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("estimator") == "regularized"


def _check_penalty(run: Path, spec: str, samples: int, seed: int, *, as_json: bool) -> None:
    """`check` of a penalty: Arpit et al. 2016."""
    from shoal.data import open_source
    from shoal.runs import load_run
    from shoal.theory import examine_penalty

    if spec in get_args(World):
        raise ArgumentError("WORLD", repr(spec), "a SOURCE, with a RUN that has a penalty")
    found = examine_penalty(load_run(run), open_source(spec), n_samples=samples, random_state=seed)
    if as_json:
        screen.record(found.to_dict())
        return
    kind = found.facts["preprocessing"]
    screen.line(f"All of it is said of the data as the network sees them: preprocessing {kind!r}.")
    counts = found.facts["verdicts"]
    facts = {name: value for name, value in found.facts.items() if not isinstance(value, dict)}
    rows = [[name.replace("_", " "), _number(value)] for name, value in facts.items()]
    rows += [[f"units: {name}", _number(value)] for name, value in counts.items()]
    _print_table("Penalty", ["what", "value"], rows)
    head, lines = found.table()
    _print_table("Units", head, [[_number(cell) for cell in line] for line in lines])
    for each in found.assertions:
        _print_assertion(each)


def _print_assertion(each: Any) -> None:
    rows = [
        [kind, check.claim, _measured(check), check.needed, _yes(check.holds)]
        for kind, checks in (("needs", each.hypotheses), ("measured", each.measurements))
        for check in checks
    ]
    head = ["", "claim", "value", "needed", "holds"]
    _print_table(f"{each.source}: {each.verdict}", head, rows)
    screen.line(f"  promises {each.promise}")
    for title, texts in (
        ("note", each.notes), ("remark", each.remarks), ("erratum", each.errata)
    ):  # fmt: skip
        for text in texts:
            screen.line(f"  {title}: {text}")
    screen.line()


def _measured(check: Any) -> str:
    """A check's value, with its sampling error where it has one."""
    return _number(check.value) + (f" +- {check.error:.1g}" if check.error else "")


def _run_experiment(experiment: Any, settings: Any, scale: str, *, quiet: bool) -> dict[str, Any]:
    """Run it under a progress bar."""
    from shoal import papers

    return _run_to_the_end(
        papers.perform(experiment, settings, scale), experiment.name, quiet=quiet
    )


def _run_to_the_end(steps: Any, name: str, *, quiet: bool) -> dict[str, Any]:
    """What a generator of progress returns."""
    result: dict[str, Any] = {}

    def going() -> Iterator[Any]:
        result.update((yield from steps))

    with closing(steps), _bar("{task.fields[note]}", quiet=quiet) as progress:
        task = progress.add_task(name, total=1.0, note="")
        for step in stoppable(going()):
            progress.update(task, completed=step.share, note=step.note)
    return result


def _write_result(experiment: Any, result: dict[str, Any], place: Claim | Path) -> Path:
    from shoal import papers

    return papers.write_result(place, experiment, result)


def _print_verdicts(results: list[dict[str, Any]]) -> None:
    for result in results:
        rows = [
            [check["claim"], _number(check["value"]), check["needed"], _verdict(check)]
            for check in result["verdicts"]
        ]
        _print_table(result["experiment"], ["claim", "found", "needed", "holds"], rows)
    if any(result["scale"] == "smoke" for result in results):
        screen.line("--scale smoke only shows that it runs: its sizes can't judge")


def _verdict(check: dict[str, Any]) -> str:
    said = check.get("verdict", "")
    return said if said.startswith("too") else _yes(check["holds"])


def _yes(holds: bool) -> str:
    return "yes" if holds else "NO"


def _list_experiments(name: str | None, scale: str) -> None:
    from shoal import papers

    chosen = papers.select("all" if name is None else name)
    if name is None:
        rows = [[each.name, each.title, each.source or "ours"] for each in chosen]
        _print_table("shoal reproduce NAME", ["name", "what", "source"], rows)
        return
    for each in chosen:
        values = asdict(papers.configure(each, scale))
        rows = [[f"--set {key}={_listed(value)}"] for key, value in values.items()]
        _print_table(f"{each.name}, {scale}", ["setting"], rows)


def _listed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _codes_table(diagnosis: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    names = ("explained_variance", "mse", "l0")
    truth = ("exact", "signed_exact", "f1")
    codes = diagnosis.get("codes", {})
    known = any("support" in numbers for numbers in codes.values())
    head = ["codes", *names, *(f"support {name}" for name in truth if known)]
    head = [name.replace("_", " ") for name in head]  # a narrow terminal breaks at spaces
    rows = []
    for method, numbers in codes.items():
        row = [method, *(_number(numbers.get(name)) for name in names)]
        support = numbers.get("support") or {}
        rows.append(row + [_number(support.get(name)) for name in truth if known])
    return head, rows


def _recovery_table(recovery: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [f"atoms at |cosine| >= {c}", f"{share:.2%}"] for c, share in recovery["recovered"].items()
    ]
    rows += [
        [name.replace("_", " "), _number(recovery[name])]
        for name in (
            "mean_distance",
            "max_distance",
            "mcc",
            "mcc_signed",
            "mcc_chance",
            "mcc_corrected",
        )
    ]
    return ["measure", "value"], rows


def _summary(run: Path) -> None:
    """The key facts of a run, from its files."""
    from shoal.report import read_run

    held = read_run(run)
    source, diagnosis, usage = map(held.section, ("source", "diagnosis", "usage"))
    rows = [
        ["source", f"{source.get('name')}, {source.get('n_samples')} x {source.get('n_features')}"],
        ["model", _said_model(held)],
        ["preprocessing", str(held.section("preprocessing").get("kind"))],
        ["active a sample", _number(diagnosis.get("l0"))],
        ["explained variance", _number(diagnosis.get("explained_variance"))],
        [
            "dead / duplicate atoms",
            f"{_count(diagnosis.get('dead_atoms'))} / {_count(diagnosis.get('duplicate_atoms'))}",
        ],
        ["coherence", _number(diagnosis.get("coherence"))],
        ["seconds to fit", _number(held.section("seconds").get("fit"))],
        ["made", f"{held.config.get('created')} by shoal {held.config.get('shoal_version')}"],
    ]
    rows += [[name.replace("_", " "), _number(value)] for name, value in usage.items()]
    recovery = held.section("recovery")
    recovered = recovery.get("recovered")
    if isinstance(recovered, dict) and isinstance(recovered.get("0.95"), float):
        distance = _number(recovery.get("mean_distance"))
        rows.append(["recovered at 0.95", f"{recovered['0.95']:.2%}, mean distance {distance}"])
    _print_table(str(run), ["what", "value"], rows)


def _said_model(run: Run) -> str:
    model = run.section("model")
    if run.config.get("estimator") == "regularized":
        penalty, activation = run.section("penalty"), run.section("activation")
        kind = f"{penalty.get('kind')}({_number(penalty.get('strength'))})"
        return f"{model.get('n_components')} units, {activation.get('kind')}, {kind}"
    return f"{model.get('model')}, {model.get('n_components')} atoms by {model.get('recipe')}"


def _count(items: Any) -> str:
    return str(len(items)) if isinstance(items, list) else "-"


def _verify(run: Path) -> None:
    """Every file of a run and its state; an error where one isn't as it was written."""
    from shoal import run_folder

    states = run_folder.verify(run)
    words = {True: "sound", False: "DAMAGED", None: "unknown"}
    rows = [
        [each.name, words[each.sound], "-" if each.size is None else str(each.size), each.found]
        for each in states
    ]
    _print_table(str(run), ["file", "state", "bytes", "found"], rows)
    damaged = [each.name for each in states if each.sound is False]
    if damaged:
        raise RunError(
            f"{run}: damaged: {', '.join(damaged)}; needed the files as they were written"
        )


def main() -> None:
    """The `shoal` command."""
    signals.install()
    app()


if __name__ == "__main__":
    main()

"""The command line: shoal fit | sweep | transform | generate | score | check | reproduce | ...

Every command checks its arguments before any work starts, and says what is wrong in one
line. Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer
from typer.core import TyperGroup

from shoal.files import check_free, whole_file
from shoal.vocabulary import ArgumentError, ShoalError, __version__, check_count

if TYPE_CHECKING:
    from shoal.data import Source
    from shoal.generative import GenerativeModel
    from shoal.training.momentum import Epoch
    from shoal.vocabulary import Step

__all__ = ["app", "main"]


# The base of all that is wrong with how a command was called; typer doesn't export it.
_UsageError: Any = typer.BadParameter.__base__


def _show_note(message: Warning | str, *rest: Any, **more: Any) -> None:
    """A warning without the line of code that a library's user would want."""
    typer.echo(f"note: {message}", err=True)


class _Group(TyperGroup):
    """Turns the errors a person can mend into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default", UserWarning)
                warnings.showwarning = _show_note
                return super().invoke(ctx)
        except ShoalError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except _UsageError as error:
            where = error.ctx.command_path if error.ctx is not None else "shoal"
            text = " ".join(error.format_message().split())
            typer.echo(f"error: {text} ({where} --help says more)", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("interrupted: no unfinished result was left behind", err=True)
            raise typer.Exit(130) from None
        except MemoryError as error:
            typer.echo(f"error: out of memory ({error}); needed a smaller problem", err=True)
            raise typer.Exit(1) from None


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
    or a named sample (sample:patches, sample:digits). A RUN is the folder that `fit` writes.""",
)


Model = Literal["sparse", "nonnegative", "mixture"]
World = Literal["sparse", "nonnegative", "mixture", "independent"]
Kind = Literal["none", "center", "scale", "whiten", "samples"]
# Those of shoal.estimators, which would take a second to load for a help text; a test compares.
Method = Literal["encoder", "least_squares", "pursuit", "omp", "iht"]
# As above: those of shoal.network.penalties, shoal.network.activations, shoal.training.momentum.
PenaltyName = Literal["none", "dae", "cae", "mdae", "sae", "edae", "taylor-dae", "cae+h", "l1"]
ActivationName = Literal["relu", "sigmoid", "softplus", "tanh", "maxout"]
Length = Literal["unit", "max-norm", "free"]
Scale = Literal["smoke", "reduced", "full"]
Atoms = Literal["random", "low-coherence", "orthonormal-union"]
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
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, or auto. Default: as the run was made.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]


@app.callback(invoke_without_command=True)
def _top(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"shoal {__version__}")
        raise typer.Exit


@app.command()
def fit(
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
        PenaltyName | None,
        typer.Option(help="Instead of k active atoms: an autoencoder that this makes sparse."),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="Of the penalty; of `dae` the noise's variance. [.25]")
    ] = None,
    activation: Annotated[
        ActivationName | None, typer.Option(help="With --penalty. Default: relu.")
    ] = None,
    weight_length: Annotated[
        Length | None, typer.Option(help="With --penalty: of the atoms. Default: unit.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="With --penalty. Default: 50.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="With --penalty. Default: .001.")
    ] = None,
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
    from shoal.report.run import check_run_folder

    check_run_folder(output, overwrite=force)
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
    }
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    estimator: Any
    if penalty is None:
        if given:
            name = next(iter(given)).replace("n_epochs", "epochs")
            raise ArgumentError(name, str(next(iter(given.values()))), "--penalty with it")
        from shoal.estimators import DictionaryAutoencoder

        estimator = DictionaryAutoencoder(
            n_components,
            _count_or_auto(n_nonzero_coefs),
            model=model,
            recipe=recipe,
            init=init,
            **shared,
        )
    else:
        usual = {"n_nonzero_coefs": None, "model": "sparse", "recipe": "default", "init": "auto"}
        asked = {"n_nonzero_coefs": n_nonzero_coefs, "model": model, "recipe": recipe, "init": init}
        for name, value in asked.items():
            if value != usual[name]:
                raise ArgumentError(name, str(value), "to be left out with --penalty")
        from shoal.regularized import RegularizedAutoencoder

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
    run = save_run(estimator, output, data, command=command, seconds=seconds, overwrite=force)
    if not quiet:
        _summary(run)
        for name, what in (("", "run folder"), ("report.html", "report"), ("atoms.png", "atoms")):
            typer.echo(f"{what:>11}: {run / name}")


@app.command()
def sweep(
    source: SourceSpec,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to make.")
    ],
    penalty: Annotated[
        str, typer.Option(help="Penalties, parted by commas, as `fit --penalty` knows them.")
    ] = "dae,cae,mdae,sae",
    activation: Annotated[str, typer.Option(help="Activations, parted by commas.")] = "relu",
    strength: Annotated[
        str, typer.Option(metavar="FIRST:LAST:COUNT", help="Or numbers parted by commas.")
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
    from shoal.training.momentum import Momentum

    strengths = strengths_of(strength)
    settings = Momentum(
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
    result = _run_to_the_end(steps, "sweep", quiet=quiet)
    if not quiet:
        (table,) = result["tables"]
        rows = [[_number(cell) for cell in row] for row in table["rows"]]
        _print_table("Sparsity", table["head"], rows)
        typer.echo(f"page: {output / 'index.html'}")


@app.command()
def transform(
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
    check_free(output, overwrite=force)
    from scipy import sparse

    from shoal.data import open_source
    from shoal.runs import load_run

    model = load_run(run, device=device).set_params(sparse_output=True)
    table = _table(columns, drop, delimiter, header)
    data = open_source(source, key=key, patch_size=patch_size, n_patches=n_patches, **table)
    blocks = list(_counted(model.iter_transform(data, method), data, quiet=quiet))
    codes = sparse.csr_matrix(sparse.vstack(blocks, format="csr"))
    with whole_file(output) as temporary, open(temporary, "wb") as file:
        sparse.save_npz(file, codes)
    if not quiet:
        active = codes.nnz / max(codes.shape[0], 1)
        typer.echo(
            f"{codes.shape[0]} x {codes.shape[1]} codes, {active:.4g} active a sample: {output}"
        )


@app.command()
def generate(
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
    low: Annotated[float, typer.Option(help="Least magnitude of a non-zero.")] = 1.0,
    high: Annotated[float, typer.Option(help="Largest magnitude of a non-zero.")] = 2.0,
    dictionary: Annotated[Atoms, typer.Option(help="How the true dictionary is made.")] = "random",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bits.")] = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Make data whose dictionary is known: `data`, `dictionary` and `codes` in one .npz.

    For example:

        shoal generate sparse --n-features 64 --atoms 128 -k 3 --samples 20000 -o planted.npz
    """
    _check_suffix(output, ".npz")
    check_free(output, overwrite=force)
    check_count("seed", seed, low=0)
    check_count("samples", samples)
    import numpy as np

    from shoal.generative import laws_of

    # Two streams of one seed: the dictionary stays when the number of samples changes.
    for_atoms, for_samples = np.random.default_rng(seed).spawn(2)
    made = _make_world(world, n_features, atoms, sparsity, noise, low, high, dictionary, for_atoms)
    drawn = made.sample(samples, random_state=for_samples)
    with whole_file(output) as temporary, open(temporary, "wb") as file:
        laws = np.array(json.dumps(laws_of(made)))
        np.savez(file, data=drawn.data, dictionary=made.dictionary, codes=drawn.codes, laws=laws)
    if not quiet:
        typer.echo(f"{samples} samples of {n_features} features from {atoms} atoms: {output}")


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
        typer.echo(json.dumps(result, indent=2, allow_nan=False))
        return
    _print_table("Codes", *_codes_table(result["diagnosis"]))
    if result["recovery"] is None:
        typer.echo("The truth behind this source isn't known: nothing can be said of recovery.")
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
        typer.Option("--dictionary", metavar="RUN", help="The run whose weights are asked about."),
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
    low: Annotated[float, typer.Option(help="Least magnitude of a non-zero.")] = 1.0,
    high: Annotated[float, typer.Option(help="Largest magnitude of a non-zero.")] = 2.0,
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
    """
    check_count("seed", seed, low=0)
    check_count("samples", samples)
    import numpy as np

    from shoal import theory
    from shoal.generative import perturb

    for_atoms, for_weights = np.random.default_rng(seed).spawn(2)
    model = None if dictionary is None else _plain_model(dictionary)
    known = True
    if world in get_args(World):
        name = cast("World", world)
        made = _make_world(
            name, n_features, atoms, sparsity, noise, low, high, atoms_from, for_atoms
        )
    else:
        opened = theory.open_world(world)
        known = opened is not None
        made = _world_of_a_run(world, model) if opened is None else opened
    weights = perturb(made.dictionary, delta, for_weights) if model is None else model.components_
    facts = theory.WorldFacts.of(made, truth=known)
    found = theory.examine(made, weights, n_samples=samples, random_state=seed)
    if as_json:
        record = {"world": asdict(facts), "assertions": [each.to_dict() for each in found]}
        typer.echo(json.dumps(theory.plain(record), indent=2, allow_nan=False))
        return
    if not known:
        typer.echo("The truth behind this source isn't known: the run's atoms stand in its place.")
    rows = [[name.replace("_", " "), _number(value)] for name, value in asdict(facts).items()]
    _print_table("World", ["what", "value"], rows)
    for each in found:
        _print_assertion(each)


@app.command()
def reproduce(
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
    plan = []
    for each, configured in zip(chosen, settings, strict=True):
        folder = output / each.name if several else output
        kept = papers.read_if_same(folder, each, configured) if several and not force else None
        if kept is None:
            papers.check_result_folder(folder, overwrite=force)
        plan.append((each, configured, folder, kept))
    results = []
    for each, configured, folder, kept in plan:
        if kept is not None and not quiet:
            typer.echo(f"{each.name}: there already", err=True)
        result = kept or _run_experiment(each, configured, scale, quiet=quiet)
        if kept is None:
            papers.write_result(folder, each, result, overwrite=force)
        results.append(result)
        if several:
            papers.write_page(output, list(zip(chosen, results, strict=False)))
    if not quiet:
        _print_verdicts(results)
        typer.echo(f"page: {output / 'index.html'}")


@app.command()
def report(run: RunPath) -> None:
    """Write report.html and atoms.png of RUN again."""
    from shoal.report import write_atoms, write_report

    typer.echo(str(write_atoms(run)))
    typer.echo(str(write_report(run)))


@app.command()
def info(run: RunPath) -> None:
    """Say what RUN holds."""
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


@contextmanager
def _bar(*columns: str, quiet: bool) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        *(TextColumn(column) for column in columns),
        console=Console(stderr=True),
        disable=quiet,
    ) as progress:
        yield progress


def _count_or_auto(given: str | None) -> int | str | None:
    """What ``-k`` was given as a number, where it is one."""
    try:
        return None if given is None else int(given)
    except ValueError:
        return given  # 'auto', or what the estimator refuses


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

        for following in steps:
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
        for epoch in epochs:
            note = f"loss {epoch.loss:.4g}, active {epoch.usage.activation_fraction:.1%}"
            progress.update(task, completed=epoch.number, note=note)


def _counted(blocks: Iterable[Any], source: Source, *, quiet: bool) -> Iterator[Any]:
    with _bar(quiet=quiet) as progress:
        task = progress.add_task("encode", total=source.n_samples)
        for block in blocks:
            yield block
            progress.advance(task, block.shape[0])


def _print_table(title: str, head: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*map(escape, row))  # an interval is not markup
    Console().print(table)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _make_world(
    world: World,
    n_features: int,
    atoms: int,
    sparsity: int | None,
    noise: float,
    low: float,
    high: float,
    dictionary: Atoms,
    random_state: Any,
) -> GenerativeModel:
    from shoal import generative

    makers = {
        "random": generative.random_dictionary,
        "low-coherence": generative.low_coherence,
        "orthonormal-union": generative.orthonormal_union,
    }
    truth = makers[dictionary](atoms, n_features, random_state=random_state)
    if world == "mixture":
        if sparsity not in (None, 1):
            raise ArgumentError("sparsity", str(sparsity), "1 for a mixture")
        return generative.MixtureOfGaussians(truth, noise=noise)
    kinds = {
        "sparse": generative.SparseCoding,
        "nonnegative": generative.NonnegativeSparseCoding,
        "independent": generative.IndependentComponents,
    }
    k = 3 if sparsity is None else sparsity
    return kinds[world](truth, sparsity=k, low=low, high=high, noise=noise)


def _plain_model(run: Path) -> Any:
    """The model of a run whose atoms live in the data's own space."""
    from shoal.runs import load_run

    model = load_run(run)
    kind = model.preprocessing_.spec.kind
    if kind != "none":
        needed = "a run without: theorems speak of the data as they are"
        raise ArgumentError("dictionary", f"a run with preprocessing {kind!r}", needed)
    return model


def _world_of_a_run(spec: str, model: Any) -> GenerativeModel:
    """The world that a model makes of a source whose truth nobody knows."""
    from shoal.data import open_source
    from shoal.theory import world_from_codes

    source = open_source(spec)
    if model is None:
        needed = "--dictionary RUN to stand for it, or what `shoal generate` wrote"
        raise ArgumentError("WORLD", f"{source.name} without a truth", needed)
    model.set_params(sparse_output=True)
    (data, codes, _), *_ = model.iter_coded(source, "pursuit")
    return world_from_codes(model.components_, codes, data=data)


def _print_assertion(each: Any) -> None:
    rows = [
        [kind, check.claim, _number(check.value), check.needed, _yes(check.holds)]
        for kind, checks in (("needs", each.hypotheses), ("measured", each.measurements))
        for check in checks
    ]
    head = ["", "claim", "value", "needed", "holds"]
    _print_table(f"{each.source}: {each.verdict}", head, rows)
    typer.echo(f"  promises {each.promise}")
    for note in each.notes:
        typer.echo(f"  note: {note}")
    typer.echo("")


def _run_experiment(experiment: Any, settings: Any, scale: str, *, quiet: bool) -> dict[str, Any]:
    """Run it under a progress bar."""
    from shoal import papers

    return _run_to_the_end(
        papers.perform(experiment, settings, scale), experiment.name, quiet=quiet
    )


def _run_to_the_end(steps: Any, name: str, *, quiet: bool) -> dict[str, Any]:
    """What a generator of progress returns."""
    with _bar("{task.fields[note]}", quiet=quiet) as progress:
        task = progress.add_task(name, total=1.0, note="")
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                result: dict[str, Any] = end.value
                return result
            progress.update(task, completed=step.share, note=step.note)


def _print_verdicts(results: list[dict[str, Any]]) -> None:
    for result in results:
        rows = [
            [check["claim"], _number(check["value"]), check["needed"], _yes(check["holds"])]
            for check in result["verdicts"]
        ]
        _print_table(result["experiment"], ["claim", "found", "needed", "holds"], rows)


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
    from shoal.report.run import read_run

    config = read_run(run).config
    source = config.get("source", {})
    diagnosis = config.get("diagnosis", {})
    seconds = config.get("seconds", {}).get("fit")
    dead = diagnosis.get("dead_atoms")
    usage = config.get("usage", {})
    rows = [
        ["source", f"{source.get('name')}, {source.get('n_samples')} x {source.get('n_features')}"],
        ["model", _said_model(config)],
        ["preprocessing", str(config.get("preprocessing", {}).get("kind"))],
        ["active a sample", _number(diagnosis.get("l0"))],
        ["explained variance", _number(diagnosis.get("explained_variance"))],
        ["dead / duplicate atoms", f"{_count(dead)} / {_count(diagnosis.get('duplicate_atoms'))}"],
        ["coherence", _number(diagnosis.get("coherence"))],
        ["seconds to fit", _number(seconds)],
        ["made", f"{config.get('created')} by shoal {config.get('shoal_version')}"],
    ]
    if usage:
        rows += [[name.replace("_", " "), _number(value)] for name, value in usage.items()]
    if config.get("recovery"):
        share = config["recovery"]["recovered"]["0.95"]
        distance = _number(config["recovery"]["mean_distance"])
        rows.append(["recovered at 0.95", f"{share:.2%}, mean distance {distance}"])
    _print_table(str(run), ["what", "value"], rows)


def _said_model(config: dict[str, Any]) -> str:
    model = config.get("model", {})
    if config.get("estimator") == "regularized":
        penalty, activation = config.get("penalty", {}), config.get("activation", {})
        kind = f"{penalty.get('kind')}({_number(penalty.get('strength'))})"
        return f"{model.get('n_components')} units, {activation.get('kind')}, {kind}"
    return f"{model.get('model')}, {model.get('n_components')} atoms by {model.get('recipe')}"


def _count(items: Any) -> str:
    return "-" if items is None else str(len(items))


def main() -> None:
    """The `shoal` command."""

    def terminate(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)  # so that nothing half-written is left
    app()


if __name__ == "__main__":
    main()

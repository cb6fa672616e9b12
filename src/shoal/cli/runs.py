"""What is done with a run: transform, score, report, info."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoal.cli import screen
from shoal.cli.options import (
    AsJson,
    Device,
    Force,
    Method,
    Opening,
    Quiet,
    RunPath,
    SourceSpec,
    check_suffix,
)
from shoal.cli.progress import counted, kept
from shoal.files import Claim, claim, whole_file
from shoal.vocabulary import ArgumentError, RunError

if TYPE_CHECKING:
    from shoal.report.run import Run

__all__ = ["info", "report", "score", "summary", "transform"]


def transform(
    *,
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
    tol: Annotated[
        float | None,
        typer.Option(
            help="With --method omp: each row takes atoms until at most this share of its square "
            "is left."
        ),
    ] = None,
    device: Device = None,
    opening: Opening,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write the codes of SOURCE under RUN, as a sparse matrix of shape (samples, atoms).

    Read them with scipy.sparse.load_npz.
    """
    check_suffix(output, ".npz")
    held = ctx.with_resource(claim(output, overwrite=force))
    from scipy import sparse

    from shoal.runs import load_run

    model = load_run(run, device=device).set_params(sparse_output=True)
    data = opening.open(source)
    blocks = list(counted(model.iter_transform(data, method, tol=tol), data, quiet=quiet))
    codes = sparse.csr_matrix(sparse.vstack(blocks, format="csr"))

    def write(place: Claim | Path) -> Path:
        with whole_file(place, overwrite=False) as temporary, open(temporary, "wb") as file:
            sparse.save_npz(file, codes)
        return Path(place)

    kept(write, held)
    if not quiet:
        active = codes.nnz / max(codes.shape[0], 1)
        screen.line(
            f"{codes.shape[0]} x {codes.shape[1]} codes, {active:.4g} active a sample: {output}"
        )


def score(
    *,
    run: RunPath,
    source: SourceSpec,
    with_curve: Annotated[
        bool,
        typer.Option(
            "--curve", help="Also what 1, 2, 4, ..., 64 of the atoms explain of each sample."
        ),
    ] = False,
    as_json: AsJson = False,
    device: Device = None,
    opening: Opening,
) -> None:
    """Say how well RUN explains SOURCE, and how much of its true dictionary it recovered."""
    from shoal.data import validate
    from shoal.report.words import few_rows
    from shoal.runs import evaluate, load_run

    model = load_run(run, device=device)
    data = opening.open(source)
    validate(model.with_gaps(data))
    result = evaluate(model, data)
    if with_curve:
        result["curve"] = curve_of(model, data)
    if as_json:
        screen.record(result)
        return
    screen.table("Codes", *codes_table(result["diagnosis"]))
    if (few := few_rows(result["diagnosis"])) is not None:
        screen.line(few)
    if with_curve:
        rows = [[str(k), screen.number(share)] for k, share in result["curve"].items()]
        screen.table("By orthogonal matching pursuit", ["atoms a sample", "of the square"], rows)
    if result["recovery"] is None:
        screen.line("The truth behind this source isn't known: nothing can be said of recovery.")
    else:
        screen.table("Recovery of the true dictionary", *recovery_table(result["recovery"]))


def curve_of(model: Any, source: Any) -> dict[int, float]:
    """The share of the square of some rows that 1, 2, 4, ... atoms of a model explain."""
    import numpy as np
    import torch

    from shoal.training.sparsity import curve

    data, _, _ = next(iter(model.iter_coded(source)))
    if bool(np.isnan(data).any()):
        raise ArgumentError("curve", "rows with missing entries", "rows without")
    rows = data[:_CURVE_ROWS]
    if model.offset_ is not None:
        rows = rows - model.offset_
    return curve(
        torch.from_numpy(model.components_),
        torch.from_numpy(rows.astype(model.components_.dtype)),
        signed=model.model == "sparse",
    )


# Arbitrary: as many as the search for a number of active atoms tells it by.
_CURVE_ROWS = 1_000


def report(run: RunPath) -> None:
    """Write report.html and atoms.png of RUN again."""
    from shoal.report import write_atoms, write_report

    screen.line(write_atoms(run))
    screen.line(write_report(run))


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
        summary(run)


def codes_table(diagnosis: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    truth = ("exact", "signed_exact", "f1")
    codes = diagnosis.get("codes", {})
    known = any("support" in numbers for numbers in codes.values())
    # Of planted data, whose rows are alike, the middle row says nothing new.
    names = ("explained_variance", *(("row_explained",) if not known else ()), "mse", "l0")
    head = ["codes", *names, *(f"support {name}" for name in truth if known)]
    head = ["of the middle row" if name == "row_explained" else name for name in head]
    head = [name.replace("_", " ") for name in head]  # a narrow terminal breaks at spaces
    rows = []
    for method, numbers in codes.items():
        row = [method, *(screen.number(numbers.get(name)) for name in names)]
        support = numbers.get("support") or {}
        rows.append(row + [screen.number(support.get(name)) for name in truth if known])
    return head, rows


def recovery_table(recovery: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [f"atoms at |cosine| >= {c}", f"{share:.2%}"] for c, share in recovery["recovered"].items()
    ]
    rows += [
        [name.replace("_", " "), screen.number(recovery[name])]
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


def summary(run: Path) -> None:
    """The key facts of a run, from its files."""
    from shoal.report import read_run

    held = read_run(run)
    source, diagnosis, usage = map(held.section, ("source", "diagnosis", "usage"))
    rows = [
        ["source", f"{source.get('name')}, {source.get('n_samples')} x {source.get('n_features')}"],
        ["model", _said_model(held)],
        ["preprocessing", str(held.section("preprocessing").get("kind"))],
        ["active a sample", screen.number(diagnosis.get("l0"))],
        ["explained variance", screen.number(diagnosis.get("explained_variance"))],
        [
            "dead / duplicate atoms",
            f"{_count(diagnosis.get('dead_atoms'))} / {_count(diagnosis.get('duplicate_atoms'))}",
        ],
        ["coherence", screen.number(diagnosis.get("coherence"))],
        ["seconds to fit", screen.number(held.section("seconds").get("fit"))],
        ["made", f"{held.config.get('created')} by shoal {held.config.get('shoal_version')}"],
    ]
    rows += [[name.replace("_", " "), screen.number(value)] for name, value in usage.items()]
    recovery = held.section("recovery")
    recovered = recovery.get("recovered")
    if isinstance(recovered, dict) and isinstance(recovered.get("0.95"), float):
        distance = screen.number(recovery.get("mean_distance"))
        rows.append(["recovered at 0.95", f"{recovered['0.95']:.2%}, mean distance {distance}"])
    screen.table(str(run), ["what", "value"], rows)


def _said_model(run: Run) -> str:
    model = run.section("model")
    if run.config.get("estimator") == "regularized":
        penalty, activation = run.section("penalty"), run.section("activation")
        kind = f"{penalty.get('kind')}({screen.number(penalty.get('strength'))})"
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
    screen.table(str(run), ["file", "state", "bytes", "found"], rows)
    damaged = [each.name for each in states if each.sound is False]
    if damaged:
        raise RunError(
            f"{run}: damaged: {', '.join(damaged)}; needed the files as they were written"
        )

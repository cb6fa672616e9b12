"""`shoal check`: which theorems apply, and what they promise."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast, get_args

import typer

from shoal.cli import screen
from shoal.cli.options import AsJson, Laws, Seed, Sizes, World
from shoal.vocabulary import ArgumentError, check_count

if TYPE_CHECKING:
    from shoal.generative import GenerativeModel

__all__ = ["check"]


def check(
    *,
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
    sizes: Sizes,
    laws: Laws,
    samples: Annotated[int, typer.Option(help="Samples that measurements are taken on.")] = 5000,
    seed: Seed = 0,
    as_json: AsJson = False,
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
    known = True
    seen: list[str] = []
    if world in get_args(World):
        made = laws.world(cast("World", world), sizes.truth(for_atoms), sizes.noise)
    else:
        opened = theory.open_world(world)
        known = opened is not None
        if known or asked is None or asked.model is not None:
            laws.refuse(world)
        made, seen = (opened, []) if opened is not None else _world_found(world, asked, laws)
    notes = [] if asked is None else list(asked.notes)
    if known and asked is not None:
        made, told = asked.there(made)
        notes += told
    elif not known:
        notes.append(
            "The truth behind this source isn't known: the asked-for atoms stand in its place."
        )
        notes += seen
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
    rows = [[name.replace("_", " "), screen.number(value)] for name, value in asdict(facts).items()]
    screen.table("World", ["what", "value"], rows)
    for each in found:
        print_assertion(each)


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


def _world_found(spec: str, asked: _Asked | None, laws: Laws) -> tuple[GenerativeModel, list[str]]:
    """The world that weights make of a source whose truth nobody knows, and what to say of it."""
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
        return world_from_codes(asked.rows, codes, data=data), _of_few(data)
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
    codes = _pursued(asked.rows, data, laws.sparsity)
    return world_from_codes(asked.rows, codes, data=data), _of_few(data)


def _of_few(data: Any) -> list[str]:
    """That a few rows hold most of the square, where they do: the world is mostly theirs."""
    from shoal.data.norms import FEW, held_by_few, row_norms

    square = held_by_few(row_norms(data))
    if square < _MOST_OF_IT:
        return []
    return [
        f"{square:.0%} of the square is in {FEW:.0%} of the rows: what is measured of these codes "
        "is mostly of those rows."
    ]


# Arbitrary, as in the report.
_MOST_OF_IT = 0.5


def _pursued(rows: Any, data: Any, k: int) -> Any:
    """Codes of `data` with at most k atoms of `rows`, as a scipy.sparse.csr_array."""
    import torch

    from shoal.network.inference import SubspacePursuit, fast_sparse_encode
    from shoal.vocabulary import Parameters

    atoms = torch.from_numpy(rows.astype(data.dtype))
    parameters = Parameters(atoms, torch.zeros(len(atoms), dtype=atoms.dtype))
    found = fast_sparse_encode(parameters, torch.from_numpy(data), SubspacePursuit(k))
    return found.to_csr(len(atoms))


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
    rows = [[name.replace("_", " "), screen.number(value)] for name, value in facts.items()]
    rows += [[f"units: {name}", screen.number(value)] for name, value in counts.items()]
    screen.table("Penalty", ["what", "value"], rows)
    head, lines = found.table()
    screen.table("Units", head, [[screen.number(cell) for cell in line] for line in lines])
    for each in found.assertions:
        print_assertion(each)


def print_assertion(each: Any) -> None:
    rows = [
        [kind, check.claim, _measured(check), check.needed, screen.yes(check.holds)]
        for kind, checks in (("needs", each.hypotheses), ("measured", each.measurements))
        for check in checks
    ]
    head = ["", "claim", "value", "needed", "holds"]
    screen.table(f"{each.source}: {each.verdict}", head, rows)
    screen.line(f"  promises {each.promise}")
    for title, texts in (
        ("note", each.notes), ("remark", each.remarks), ("erratum", each.errata)
    ):  # fmt: skip
        for text in texts:
            screen.line(f"  {title}: {text}")
    screen.line()


def _measured(check: Any) -> str:
    """A check's value, with its sampling error where it has one."""
    return screen.number(check.value) + (f" +- {check.error:.1g}" if check.error else "")

"""Options that several commands have, each defined once, and groups of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_type_hints

import typer

from shoal.vocabulary import ArgumentError

if TYPE_CHECKING:
    from shoal.data import Source
    from shoal.generative import GenerativeModel

__all__ = [
    "ACTIVATION_NAMES",
    "PENALTY_NAMES",
    "AsJson",
    "Atoms",
    "Device",
    "Encoder",
    "Force",
    "Kind",
    "Laws",
    "Length",
    "Method",
    "Model",
    "Noise",
    "Opening",
    "Quiet",
    "RunPath",
    "Scale",
    "Seed",
    "Shape",
    "Sizes",
    "SourceSpec",
    "World",
    "check_suffix",
    "grouped",
]

Model = Literal["sparse", "nonnegative", "mixture"]
Encoder = Literal["auto", "tied", "tied-gain", "untied"]
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
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, or auto. Default: as the run was made.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same bits.")]
AsJson = Annotated[bool, typer.Option("--json", help="All numbers, as JSON.")]
_READING = "How SOURCE is read"
_WORLD = "A named world"


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """`command` as typer reads it: a parameter that is a group has its fields in its place.

    A group is a NamedTuple whose fields are options. What a command shares with others is one
    parameter of it, and defined once.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    flat = []
    for each in inspect.signature(command).parameters.values():
        kind = hints[each.name]
        if not hasattr(kind, "_fields"):
            flat.append(each.replace(annotation=kind, kind=each.KEYWORD_ONLY))
            continue
        groups[each.name] = kind
        usual = kind._field_defaults
        flat += [
            each.replace(
                name=name,
                annotation=hint,
                default=usual.get(name, each.empty),
                kind=each.KEYWORD_ONLY,
            )
            for name, hint in get_type_hints(kind, include_extras=True).items()
        ]

    @wraps(command)
    def called(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field: given.pop(field) for field in kind._fields})
        command(**given)

    called.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in flat}
    return called


def check_suffix(path: Path, *suffixes: str) -> None:
    """Refuse a file to write that would not be what its name says."""
    if path.suffix not in suffixes:
        raise ArgumentError("output", str(path), f"a name that ends in {' or '.join(suffixes)}")


class Opening(NamedTuple):
    """How a SOURCE is read."""

    key: Annotated[
        str | None,
        typer.Option(
            help="Which array, in a file that holds several.",
            rich_help_panel=_READING,
        ),
    ] = None
    patch_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the patches, for a folder of images.",
            rich_help_panel=_READING,
        ),
    ] = None
    n_patches: Annotated[
        int | None,
        typer.Option(
            help="How many patches, for a folder of images.",
            rich_help_panel=_READING,
        ),
    ] = None
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,NAME...]",
            help="Of a table: its columns to use, by name or by number from 0. May be repeated.",
            rich_help_panel=_READING,
        ),
    ] = None
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,NAME...]",
            help="Of a table: its columns to leave out. May be repeated.",
            rich_help_panel=_READING,
        ),
    ] = None
    delimiter: Annotated[
        str | None,
        typer.Option(
            help="Between the cells of a .csv; `tab`. Default: what its lines agree on.",
            rich_help_panel=_READING,
        ),
    ] = None
    header: Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header",
            help="Whether a .csv has names. Default: as it looks.",
            rich_help_panel=_READING,
        ),
    ] = None
    window: Annotated[
        int | None,
        typer.Option(
            help="Samples of a recording per row. Default: 256 for a .wav, else 128.",
            rich_help_panel=_READING,
        ),
    ] = None
    hop: Annotated[
        int | None,
        typer.Option(
            help="Samples from one window to the next. Default: half a window.",
            rich_help_panel=_READING,
        ),
    ] = None

    def open(self, source: str, **more: Any) -> Source:
        """`source`, opened in this way."""
        from shoal.data import open_source

        named = self._asdict() | {"columns": self.columns or None, "drop": self.drop or None}
        return open_source(source, **named, **more)

    def refuse(self, needed: str) -> None:
        """Refuse them all, where nothing is read."""
        for name, value in self._asdict().items():
            if value not in (None, []):
                raise ArgumentError(name, str(value), needed)


class Sizes(NamedTuple):
    """How large a named world is, and how its atoms are made."""

    n_features: Annotated[
        int,
        typer.Option(
            "--n-features",
            "-n",
            help="Features a sample.",
            rich_help_panel=_WORLD,
        ),
    ] = 64
    atoms: Annotated[
        int,
        typer.Option(
            "--atoms",
            "--n-components",
            "-m",
            help="Atoms of the true dictionary.",
            rich_help_panel=_WORLD,
        ),
    ] = 128
    noise: Annotated[
        float,
        typer.Option(
            help="Standard deviation a coordinate.",
            rich_help_panel=_WORLD,
        ),
    ] = 0.0
    atoms_from: Annotated[
        Atoms | None,
        typer.Option(
            help="How the true dictionary is made. Default: random.", rich_help_panel=_WORLD
        ),
    ] = None

    def truth(self, random_state: Any) -> Any:
        """A true dictionary (m, n)."""
        from shoal import generative

        makers = {
            "random": generative.random_dictionary,
            "low-coherence": generative.low_coherence,
            "orthonormal-union": generative.orthonormal_union,
        }
        make = makers[self.atoms_from or "random"]
        return make(self.atoms, self.n_features, random_state=random_state)


class Laws(NamedTuple):
    """The laws of a named world, as typed; None is what wasn't."""

    sparsity: Annotated[
        int | None,
        typer.Option(
            "--sparsity",
            "-k",
            help="Active atoms a sample (expected, if independent). Default: 3.",
            rich_help_panel=_WORLD,
        ),
    ] = None
    power: Annotated[
        float | None,
        typer.Option(
            help="Instead of -k: as many active atoms as atoms to this power.",
            rich_help_panel=_WORLD,
        ),
    ] = None
    rounding: Annotated[
        Rounding | None,
        typer.Option(
            help="Of that number; floor is the paper's. Default: ceil.", rich_help_panel=_WORLD
        ),
    ] = None
    supports: Annotated[
        str | None,
        typer.Option(
            metavar="LIST|FILE",
            help='Instead of -k: the supports there are, as "0,1,2; 3,4", or a file with one per '
            "line.",
            rich_help_panel=_WORLD,
        ),
    ] = None
    blocks: Annotated[
        int | None,
        typer.Option(
            help="Atoms are active in blocks of so many; with -k, k / BLOCKS of them.",
            rich_help_panel=_WORLD,
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="LIST|FILE",
            help="How likely each support, block, component, or unit (if independent) is, in "
            "proportion. Default: equally.",
            rich_help_panel=_WORLD,
        ),
    ] = None
    values: Annotated[
        Values | None,
        typer.Option(
            help="The law of a non-zero: between --low and --high, always --low, 1 or -1, or "
            "normal but for magnitudes below --low. Default: uniform.",
            rich_help_panel=_WORLD,
        ),
    ] = None
    low: Annotated[
        float | None,
        typer.Option(
            help="Least magnitude of a non-zero. Default: 1.",
            rich_help_panel=_WORLD,
        ),
    ] = None
    high: Annotated[
        float | None,
        typer.Option(
            help="Largest, if uniform. Default: 2.",
            rich_help_panel=_WORLD,
        ),
    ] = None

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

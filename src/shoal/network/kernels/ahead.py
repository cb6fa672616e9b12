"""Kernels compiled ahead of their first use, for a package to bring them along.

    python src/shoal/network/kernels/ahead.py

writes each function of the CPU kernels, for all kinds of its arguments, into the folder
`delivered` beside this file: as LLVM has optimised it, which is good for all processors of one
family, with one version of Python and of numba. Where these are others it is not looked at.

It is run where a package is built, without PyTorch.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "delivered"

# Arguments, a letter each: real numbers r (R an array, M a matrix of them), floats f (F, G),
# whole numbers i (I, J), flags b; scores L and the bias B in their precision.
FUNCTIONS = {
    "compiled.largest_norms": "R L i i i G i",
    "compiled.choose": "L B B1 L F R R R i i i f b b i i J M I i",
    "compiled.choose_again": "R R R i i f b i J I F F b J M I i",
    "compiled.accumulate_alone": "R R i i J M I b R R R I R",
    "compiled.small_step": "R R R i i i f b R R R R R",
    "compiled.residuals": "R R R i J M I b i R R M J i",
    "compiled.offsets": "J I",
    "compiled.by_unit": "J M I M i J I R R i",
    "compiled.unit_sums": "R i i R I I R R i R R I R i",
    "pursuits.subspace_pursuit": "R i R R i i b i r i J M I i",
    "pursuits.matching_pursuit": "R R i i b r R r i J M I i",
    "pursuits.hard_thresholding": "R R i i b i r i J M I i",
    "pursuits.threshold_pursuit": "R R i i b R r r i J M I i",
    "pursuits.least_squares": "R R i R i J M b r i M i",
    "untied._unit_gradients": "R R i i I I I R R b b i R R R I R i",
    "untied._nested_residuals": "R R R i J M I I A i R M J i",
    "untied.above": "J M I r I i i",
    "untied.near": "R R R i i J M I R r i J M I M M i",
    "untied.adam": "R R R R f f f f f f i i",
    "untied.corrected": "R R R i i b i f i J M I i",
}
REALS = ("float32", "float64")


def _imported() -> dict[str, ModuleType]:
    """The modules of compiled functions, without the packages that they are in."""
    for name, folder in (
        ("shoal", HERE.parents[1]),
        ("shoal.network", HERE.parent),
        ("shoal.network.kernels", HERE),
    ):
        package = sys.modules.setdefault(name, ModuleType(name))
        package.__path__ = [str(folder)]
    names = "compiling", "compiled", "pursuits", "untied"
    return {name: import_module(f"shoal.network.kernels.{name}") for name in names}


def _kinds(letters: str, real: str) -> list[tuple[Any, ...]]:
    """The types of the arguments, for each precision that scores have."""
    from numba import types

    number = getattr(types, real)
    lows = {types.uint16: types.float32, types.float32: types.float32, number: number}
    found = []
    for low, bias in lows.items():
        scalars = {"r": number, "f": types.float64, "i": types.int64, "l": low, "b": types.boolean}
        kinds = {
            **scalars,
            **{letter.upper(): each[::1] for letter, each in scalars.items() if letter != "b"},
            "B": bias[::1],
            "B1": bias,
            "M": number[:, ::1],
            "A": number[:, :, ::1],
            "G": types.float64[:, ::1],
            "J": types.int64[:, ::1],
        }
        found.append(tuple(kinds[each] for each in letters.split()))
    return list(dict.fromkeys(found))


def _begin(folder: str) -> None:
    """Of a process: what another one keeps is without what is delivered."""
    os.environ["NUMBA_CACHE_DIR"] = str(Path(folder) / str(os.getpid()))


def deliver(task: tuple[str, str]) -> str:
    """Compile a function for real numbers of a precision, and write it."""
    modules = _imported()
    # What another process has written is no source.
    vars(modules["compiling"])["DELIVERED"] = HERE / "nowhere"
    name, real = task
    home, _, function = name.partition(".")
    shared = getattr(modules[home], function)
    compiled = getattr(shared, "one", shared)
    for kinds in _kinds(FUNCTIONS[name], real):
        compiled.compile(kinds)
        compiled._cache.deliver(kinds, compiled.overloads[kinds], FOLDER)
    return name


def main() -> None:
    """The command."""
    FOLDER.mkdir(exist_ok=True)
    made_from = _imported()["compiling"]._made_from()
    for old in FOLDER.iterdir():  # those of another Python may stay, if they are of these sources
        if (
            made_from not in old.name
            or f".py{sys.version_info[0]}{sys.version_info[1]}." in old.name
        ):
            old.unlink()
    tasks = [(name, real) for real in REALS for name in FUNCTIONS]
    # A process for each core: numba compiles one function at a time.
    with (
        TemporaryDirectory() as kept,
        get_context("spawn").Pool(os.cpu_count(), _begin, (kept,)) as pool,
    ):
        for _ in pool.imap_unordered(deliver, tasks):
            pass
    print(f"{len(list(FOLDER.iterdir()))} compiled kernels in {FOLDER}")


if __name__ == "__main__":
    main()

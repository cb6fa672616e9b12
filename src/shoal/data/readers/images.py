"""Pictures, and folders of them: cut into grey patches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.data.access import Source
from shoal.data.images import (
    N_PATCHES,
    PATCH_SIZE,
    count_places,
    draw_positions,
    patches_by_rows,
)
from shoal.data.readers._base import Options, Reader, array_source, reading, register, require
from shoal.data.readers._pictures import PICTURES, Page, levels, survey
from shoal.vocabulary import SourceError, check_count, printable

# Files named in a note; the others are counted.
_NAMED = 3

Lot = list[tuple[Path, list[Page]]]


def _pictures_in(folder: Path) -> Iterator[Path]:
    # Links to folders aren't followed, so a loop of them is no trap.
    return (file for file in folder.rglob("*") if file.suffix.lower() in PICTURES)


def _is_folder(path: Path) -> bool:
    return any(True for _ in _pictures_in(path))


def _open(path: Path, options: Options) -> Source:
    require("PIL.Image", path.name, "images")
    size, count = options.get("patch_size"), options.get("n_patches")
    size = None if size is None else check_count("patch_size", size)
    count = None if count is None else check_count("n_patches", count)
    rng = _generator(options["random_state"])
    alone = not path.is_dir()
    lot, odd, left_out = _surveyed([path] if alone else sorted(_pictures_in(path)), path, alone)
    state = rng.bit_generator.state
    while True:
        if not lot:
            reason = f": {odd[0]}" if odd else ""
            raise SourceError(
                "source",
                f"a folder without a picture that can be read, {printable(path.name)!r}{reason}",
                f"pictures ({' '.join(PICTURES)})",
            )
        side, small = _fitting(lot, size)
        if not count_places(_shapes(lot), side):
            raise SourceError(
                "source",
                f"{printable(path.name)} with no picture that holds a patch: {_some(small)}",
                f"at least {side} x {side} pixels, the patch size",
            )
        rng.bit_generator.state = state  # the same draw, whatever broken file was tried before
        data, broken = _cut(lot, side, count, rng, alone)
        if not broken:
            break
        odd += broken.values()
        lot = [each for each in lot if each[0] not in broken]
    _note(path, lot, odd, small, left_out)
    _note_defaults(path, lot, side, size, len(data), count)
    return array_source(data, path.name, feature_shape=(side, side))


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.Generator):
        return random_state
    return np.random.default_rng(check_count("random_state", random_state, low=0))


# --- which pages --------------------------------------------------------------------------


def _surveyed(files: list[Path], folder: Path, alone: bool) -> tuple[Lot, list[str], list[str]]:
    """The files that can be read, by their headers; words on the odd ones, and on what is
    left out of the others. The one file that was asked for raises its error.
    """
    lot: Lot = []
    odd: list[str] = []
    left_out: list[str] = []
    for file in files:
        hidden = [part for part in file.relative_to(folder).parts if part.startswith(".")]
        if hidden and not alone:
            odd.append(f"{printable(file.name)} (hidden)")
            continue
        try:
            pages, missing = survey(file)
        except SourceError as error:
            if alone:
                raise
            odd.append(_briefly(file, error))
            continue
        lot.append((file, pages))
        left_out += missing
    return lot, odd, left_out


def _briefly(file: Path, error: SourceError) -> str:
    """What is odd about a file, without the words that make it a sentence."""
    name = printable(file.name)
    reason = error.found.removeprefix(name).removeprefix(", which ").strip()
    if reason.startswith("can't be read (") and reason.endswith(")"):
        reason = reason.removeprefix("can't be read (")[:-1]
    return f"{name} ({reason})"


def _shapes(lot: Lot) -> list[tuple[int, int]]:
    return [(page.height, page.width) for _, pages in lot for page in pages]


def _fitting(lot: Lot, size: int | None) -> tuple[int, list[str]]:
    """The side of the patches, and the pages that are too small for one.

    Where no page holds a patch of the default size, it is the largest that half of them
    hold.
    """
    shortest = [min(shape) for shape in _shapes(lot)]
    if size is None:
        size = PATCH_SIZE if max(shortest) >= PATCH_SIZE else median_low(shortest)
    small = []
    for file, pages in lot:
        wrong = [page for page in pages if min(page.height, page.width) < size]
        if wrong:
            shape = f"{wrong[0].height} x {wrong[0].width}"
            small.append(f"{printable(file.name)} ({shape})")
    return size, small


# --- patches ------------------------------------------------------------------------------


def _cut(
    lot: Lot, size: int, count: int | None, rng: np.random.Generator, alone: bool
) -> tuple[NDArray[np.float32], dict[Path, str]]:
    """Patches of all pages, and the files that turned out broken, with the reason."""
    shapes = _shapes(lot)
    if count is None:
        count = min(N_PATCHES, count_places(shapes, size))
    places = draw_positions(shapes, count, size, rng)
    order = np.argsort(places.image, kind="stable")
    ends = np.searchsorted(places.image[order], np.arange(len(shapes) + 1))
    at = np.column_stack([places.row, places.column])
    data = np.empty((count, size * size), dtype=np.float32)
    broken: dict[Path, str] = {}
    first = 0
    for file, pages in lot:
        here = [order[ends[i] : ends[i + 1]] for i in range(first, first + len(pages))]
        first += len(pages)
        wanted = [(page, which) for page, which in zip(pages, here, strict=True) if len(which)]
        try:
            with reading(printable(file.name), "a complete picture"):
                for (_, which), (page, rows) in zip(
                    wanted, levels(file, [page for page, _ in wanted]), strict=True
                ):  # one page in memory at a time
                    data[which] = patches_by_rows(rows, page.width, size, at[which])
        except SourceError as error:
            if alone:
                raise
            broken[file] = _briefly(file, error)
    return data, broken


# --- what is said -------------------------------------------------------------------------


def _say(text: str) -> None:
    warnings.warn(text, stacklevel=2)


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
    return ", ".join(words[:_NAMED]) + more


def _note(path: Path, lot: Lot, odd: list[str], small: list[str], left_out: list[str]) -> None:
    name = printable(path.name)
    if odd:
        files = "file" if len(odd) == 1 else "files"
        _say(f"{len(odd)} {files} of {len(odd) + len(lot)} in {name} passed over: {_some(odd)}")
    if small:
        _say(f"{name}: pictures smaller than a patch passed over: {_some(small)}")
    if left_out:
        _say(f"left out: {_some(left_out)}")


def _note_defaults(
    path: Path, lot: Lot, side: int, size: int | None, found: int, count: int | None
) -> None:
    name = printable(path.name)
    if size is None and side != PATCH_SIZE:
        _say(
            f"{name}: patches of {side} x {side} pixels, since {PATCH_SIZE} x {PATCH_SIZE}, "
            "the default, fits in no picture"
        )
    if count is None and found < N_PATCHES:
        _say(f"{name}: {found} patches, all that there are; the default is {N_PATCHES}")


READER = register(
    Reader(
        "an image",
        tuple(PICTURES),
        ("patch_size", "n_patches"),
        open=_open,
        folder=_is_folder,
        rank=1,  # after the others, since a folder of them may hold pictures too
    )
)

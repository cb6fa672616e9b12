"""SIGKILL at random moments of writing, and what the next command finds."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__:
    from .writers import in_a_fork, two_runs
else:  # in the test run
    from attacks.writers import in_a_fork, two_runs

__all__ = ["kills"]


def kills(
    count: int,
    place: Path,
    write: Callable[[int], Any],
    read: Callable[[], Any],
    tidy: Callable[[], Any],
    *,
    seed: int = 0,
) -> Counter[str]:
    """Kill a process that writes to `place` over and over, `count` times, at random moments.

    After each, `read` must find one whole result (it raises where it doesn't), and after `tidy`,
    which stands for the next command, nothing but `place` may be in its folder.
    """
    draw, counts = random.Random(seed), Counter[str]()

    def work() -> int:
        number = 0
        while True:
            write(number)
            number += 1

    for _ in range(count):
        child = in_a_fork(work)
        time.sleep(draw.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        counts["killed while something hidden was there"] += len(os.listdir(place.parent)) > 1
        try:
            read()
            counts["whole"] += 1
        except Exception as error:
            counts[f"broken: {error!r}"] += 1
        tidy()
        counts["left over"] += len(os.listdir(place.parent)) > 1
    return counts


# --------------------------------------------------------------------------- shoal


def killed_runs(count: int, plain: bool, given: Any = None) -> Counter[str]:
    """Kills of a process that replaces a run; `plain`: without a rename that exchanges."""
    import shoal
    import shoal.files
    from shoal.files import whole_folder, write_bytes

    root = Path(tempfile.mkdtemp())
    runs, _ = given or two_runs(root)
    place = root / "place" / "run"
    shutil.copytree(runs[0], place)
    if plain:
        real, shoal.files._renameat2 = shoal.files._renameat2, lambda: None

    def write(number: int) -> None:
        with whole_folder(place, overwrite=True) as partial:
            for file in runs[number % 2].iterdir():
                shutil.copy(file, partial)

    def tidy() -> None:
        write_bytes(place.parent / "next", b"")
        (place.parent / "next").unlink()

    def read() -> None:
        if plain and not place.exists():  # between two renames: put back by the next command
            tidy()
        shoal.load_run(place)

    try:
        return kills(count, place, write, read, tidy)
    finally:
        if plain:
            shoal.files._renameat2 = real
        shutil.rmtree(root)


def main(count: int = 200) -> int:
    """With the renames of Linux, and without."""
    for plain in (False, True):
        words = "without an exchange" if plain else "with an exchange"
        print(f"{count} kills, {words}: {dict(killed_runs(count, plain))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

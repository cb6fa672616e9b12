"""Two writers of one name, and loads while it is replaced."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["loads_while_replaced", "two_writers"]


def in_a_fork(work: Callable[[], int]) -> int:
    """The process that does `work`, and ends with what it returns."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        code = work()
    finally:
        os._exit(code)


def two_writers(
    count: int, write: Callable[[Path, str], bool], read: Callable[[Path], str]
) -> Counter[str]:
    """Have two processes write to one new name at once, `count` times.

    `write` puts a text under a name and says whether it did; `read` gives it back. Lost is a
    result whose writer was told that it is there, and it isn't.
    """
    counts: Counter[str] = Counter()
    for number in range(count):
        root = Path(tempfile.mkdtemp())
        start = time.monotonic() + 0.01

        def work(text: str, root: Path = root, start: float = start) -> Callable[[], int]:
            def run() -> int:
                while time.monotonic() < start:
                    pass
                return 0 if write(root / "result", text) else 1

            return run

        texts = [f"{number} one", f"{number} other"]
        codes = [
            os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            for child in [in_a_fork(work(text)) for text in texts]
        ]
        told = [text for text, code in zip(texts, codes, strict=True) if code == 0]
        if any(code not in (0, 1) for code in codes):
            counts["raw error"] += 1
        elif len(told) > 1:
            counts["lost"] += 1
        elif not told:
            counts["neither"] += 1
        else:
            counts["one, and it is there" if read(root / "result") == told[0] else "lost"] += 1
        counts["left over"] += len(os.listdir(root)) > 1
        shutil.rmtree(root)
    return counts


def loads_while_replaced(
    count: int, replace: Callable[[int], Any], load: Callable[[], str]
) -> Counter[str]:
    """Load `count` times while another process replaces what is loaded, over and over.

    `replace` is called with 0, 1, 2, ...; `load` says what it found, in a word.
    """

    def work() -> int:
        number = 0
        while True:
            replace(number)
            number += 1

    child = in_a_fork(work)
    try:
        return Counter(load() for _ in range(count))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# --------------------------------------------------------------------------- shoal


def write(path: Path, text: str) -> bool:
    """As `save_run` writes, in a few milliseconds."""
    from shoal.files import whole_folder
    from shoal.vocabulary import RunError

    try:
        with whole_folder(path) as partial:
            for name in ("a", "b"):
                (partial / name).write_text(text)
                time.sleep(0.001)
    except RunError:
        return False
    return True


def read(path: Path) -> str:
    """What is there, or that it is mixed."""
    texts = {(path / name).read_text() for name in ("a", "b")}
    return texts.pop() if len(texts) == 1 else "mixed"


def two_runs(root: Path) -> tuple[list[Path], list[Any]]:
    """Two runs and the codes that each gives."""
    import numpy as np

    import shoal

    rows = np.random.default_rng(0).normal(size=(100, 5))
    runs, codes = [], []
    for seed in (0, 1):
        model = shoal.DictionaryAutoencoder(7, 1 + seed, random_state=seed).fit(rows)
        runs.append(shoal.save_run(model, root / f"run{seed}", rows))
        codes.append(model.transform(rows))
    return runs, [rows, *codes]


def loads(count: int, given: Any = None) -> Counter[str]:
    """Of a run that is replaced by another all the time."""
    import numpy as np

    import shoal
    from shoal.files import whole_folder

    root = Path(tempfile.mkdtemp())
    runs, (rows, *codes) = given or two_runs(root)
    place = root / "run"
    shutil.copytree(runs[0], place)

    def replace(number: int) -> None:
        with whole_folder(place, overwrite=True) as partial:
            for file in runs[number % 2].iterdir():
                shutil.copy(file, partial)

    def load() -> str:
        try:
            model = shoal.load_run(place)
        except shoal.RunError as error:
            return str(error).replace(str(root), "")
        found = model.transform(rows)
        same = [np.array_equal(found, each) for each in codes]
        return f"run {same.index(True)}" if any(same) else "MIXED"

    try:
        return loads_while_replaced(count, replace, load)
    finally:
        shutil.rmtree(root)


def main(writers: int = 100, n_loads: int = 5000) -> int:
    """Both, with their counts."""
    found = two_writers(writers, write, read)
    print(f"two writers, {writers} times: {dict(found)}")
    print(f"{n_loads} loads while it is replaced: {dict(loads(n_loads))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

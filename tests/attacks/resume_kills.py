"""SIGKILL at random moments of fits that save their state, each gone on with to its end.

``python -m tests.attacks.resume_kills 200`` kills 200 times, over both estimators and four kinds of
data, and a tenth as often the command itself. Every fit that comes to its end must have the bytes
of one that was never killed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

if __package__:
    from .writers import in_a_fork
else:  # in the test run
    from attacks.writers import in_a_fork

__all__ = ["SETTINGS", "SOURCES", "Fit", "killed"]

N_FEATURES, N_ATOMS = 16, 24


def planted() -> Any:
    """Rows of a small world with noise."""
    from shoal.generative import SparseCoding, random_dictionary

    world = SparseCoding(random_dictionary(N_ATOMS, N_FEATURES, random_state=0), 2, noise=0.05)
    return world.sample(1000, random_state=1).data


SOURCES: dict[str, Callable[[Path], Any]] = {
    "array": lambda file: np.load(file),
    "memory map": lambda file: np.load(file, mmap_mode="r"),
    "file": lambda file: str(file),
    "stream": lambda file: lambda: iter(np.array_split(np.load(file), 7)),
}
"""By name, from a file to what is fitted."""


def _dictionary(**named: Any) -> Any:
    import shoal

    return shoal.DictionaryAutoencoder(N_ATOMS, random_state=0, **named)


def _regularized(**named: Any) -> Any:
    import shoal

    return shoal.RegularizedAutoencoder(N_ATOMS, random_state=0, n_epochs=6, **named)


SETTINGS: dict[str, Callable[[], Any]] = {
    "dictionary, k known": lambda: _dictionary(n_nonzero_coefs=2, preprocessing="scale"),
    "dictionary, k searched": lambda: _dictionary(n_nonzero_coefs="auto"),
    "dictionary, non-negative": lambda: _dictionary(n_nonzero_coefs=3, model="nonnegative"),
    "regularized, dae": _regularized,
    "regularized, cae": lambda: _regularized(penalty="cae", activation="sigmoid"),
}
"""By name, a new model."""


class Fit:
    """A fit in a process of its own, which ends with a run's tensors in a file."""

    def __init__(self, root: Path, setting: str, source: str, every: Any) -> None:
        self.root, self.setting, self.source, self.every = root, setting, source, every
        self.file, self.folder = root / "data.npy", root / "checkpoints"
        if not self.file.exists():
            np.save(self.file, planted())

    def run(self, place: Path, folder: Path | None) -> int:
        """The whole of it, up to the files in `place`."""
        from shoal import runs

        model, data = SETTINGS[self.setting](), SOURCES[self.source](self.file)
        model.fit(data, checkpoint=folder, checkpoint_every=self.every)
        with (  # pictures are slow, and none of the bits that count
            mock.patch.object(runs, "surroundings", return_value=None),
            mock.patch.object(runs, "atoms_bytes", return_value=b""),
            mock.patch.object(runs, "report_bytes", return_value=b""),
        ):
            runs.save_run(model, place, SOURCES["array"](self.file), overwrite=True)
        return 0

    def expected(self) -> tuple[bytes, float]:
        """The bytes of a fit that is not killed, and the seconds that one with saving takes."""
        self.run(self.root / "whole", None)
        start = time.perf_counter()
        assert self.life(None) == 0
        seconds = time.perf_counter() - start
        return (self.root / "whole" / "dictionary.safetensors").read_bytes(), seconds

    def life(self, kill_after: float | None) -> int:
        """One process, killed after so many seconds unless it has ended; its exit code."""
        child = in_a_fork(lambda: self.run(self.root / "run", self.folder))
        if kill_after is not None:
            end = time.monotonic() + kill_after
            while time.monotonic() < end:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    return os.waitstatus_to_exitcode(status)
                time.sleep(0.0005)
            os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(count: int, setting: str, source: str, every: Any, *, seed: int = 0) -> Counter[str]:
    """Kill a fit `count` times in all, and compare each one that ends with one never killed."""
    draw, counts = random.Random(f"{setting} {source} {seed}"), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        fit = Fit(Path(name), setting, source, every)
        bits, seconds = fit.expected()
        ended = True
        while counts["kills"] < count or not ended:
            if ended:
                shutil.rmtree(fit.folder, ignore_errors=True)
                shutil.rmtree(fit.root / "run", ignore_errors=True)
            last = counts["kills"] >= count
            code = fit.life(None if last else draw.uniform(0.0, 1.1 * seconds))
            ended = code == 0
            if ended:
                found = (fit.root / "run" / "dictionary.safetensors").read_bytes()
                counts["fits that ended"] += 1
                counts["with the same bytes"] += found == bits
            elif code == -signal.SIGKILL:
                counts["kills"] += 1
                saved = fit.folder.is_dir() and any(map(str.isdigit, os.listdir(fit.folder)))
                counts["kills with a state to go on from"] += saved
                hidden = fit.folder.is_dir() and any(
                    each.endswith(".partial") for each in os.listdir(fit.folder)
                )
                counts["kills within a save"] += hidden
            else:
                counts[f"ended with {code}"] += 1
                break
    return counts


def killed_command(count: int, *, seed: int = 0) -> Counter[str]:
    """As :func:`killed`, of `shoal fit ... --resume` itself."""
    draw, counts = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        np.save(root / "data.npy", planted())
        words = [sys.executable, "-m", "shoal", "fit", str(root / "data.npy"), "-m", str(N_ATOMS)]
        words += ["-k", "auto", "--quiet", "-o"]
        start = time.perf_counter()
        subprocess.run([*words, str(root / "whole")], check=True)
        seconds = time.perf_counter() - start
        bits = (root / "whole" / "dictionary.safetensors").read_bytes()
        again = [*words, str(root / "run"), "--resume", "--checkpoint-every", "3"]
        while True:
            child = subprocess.Popen(again, stderr=subprocess.PIPE, text=True)
            try:
                last = counts["kills"] >= count
                # Most of its time is the start of Python.
                wait = None if last else draw.uniform(0.3, 1.1) * seconds
                _, said = child.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                child.kill()
                _, said = child.communicate()
            code = child.returncode
            if code == -signal.SIGKILL:
                counts["kills"] += 1
                continue
            # Killed when all was done: the run is there, and its state is removed.
            done = code == 2 and "exists already" in said and len(os.listdir(root)) == 3
            if code and not done:
                counts[f"ended with {code}: {said.splitlines()[-1:]}"] += 1
                return counts
            counts["fits that ended"] += 1
            found = (root / "run" / "dictionary.safetensors").read_bytes()
            counts["with the same bytes"] += found == bits
            counts["left over"] += len(os.listdir(root)) > 3
            if last:
                return counts
            shutil.rmtree(root / "run")


def main(count: int = 200, seed: int = 0) -> int:
    """All settings on all data, and the command; 1 where anything was not as it should be."""
    import torch

    torch.set_num_threads(1)
    pairs = [
        (setting, source)
        for setting in SETTINGS
        for source in SOURCES
        # Of a stream with non-negative codes a fit takes thousands of steps, of a penalty none.
        if source != "stream" or setting in ("dictionary, k known", "dictionary, k searched")
    ]
    total, start = Counter[str](), time.perf_counter()
    for number, (setting, source) in enumerate(pairs):
        share = count * (number + 1) // len(pairs) - count * number // len(pairs)
        if share:
            every = (1, 5, "0.1s")[number % 3]
            found = killed(share, setting, source, every, seed=seed)
            print(f"{setting}, {source}, every {every}: {dict(found)}", flush=True)
            total += found
    if commands := count // 10:
        found = killed_command(commands, seed=seed)
        print(f"the command: {dict(found)}", flush=True)
        total += found
    print(f"in all, in {time.perf_counter() - start:.0f} s: {dict(total)}")
    odd = [name for name in total if name.startswith("ended with") or name == "left over"]
    wrong = total["fits that ended"] != total["with the same bytes"] or any(map(total.get, odd))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

"""SIGKILL of one of several processes that share a fit, gone on with by another number of them.

``python -m tests.attacks.rank_kills 50`` kills 50 times, over both estimators and three kinds of
data; each time the fit goes on with 1, 2 or 4 processes, drawn at random. The others must end with
`LostError` within a minute, and every fit that comes to its end must have the bytes of one process
that was never killed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

if __package__:
    from .resume_kills import SETTINGS, SOURCES, Fit
    from .writers import in_a_fork
else:
    from attacks.resume_kills import SETTINGS, SOURCES, Fit
    from attacks.writers import in_a_fork

__all__ = ["Shared", "killed"]

LOST = 7  # the exit code of a process that says so
PATIENCE = 60.0  # seconds in which the others must have ended
SIZES = (1, 2, 4)


class Shared(Fit):
    """A fit by several processes, each forked."""

    lives = 0

    def one(self, rank: int, size: int, meeting: str, place: Path, folder: Path | None) -> int:
        """What a process does."""
        import torch.distributed as dist

        from shoal.training.ranks import together
        from shoal.vocabulary import LostError

        dist.init_process_group(
            "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=PATIENCE / 2),
        )
        try:
            with together(reproducible=True):
                if rank == 0:
                    return self.run(place, folder)
                model, data = SETTINGS[self.setting](), SOURCES[self.source](self.file)
                model.fit(data, checkpoint=folder, checkpoint_every=self.every)
                return 0
        except LostError:
            return LOST
        finally:
            dist.destroy_process_group()

    def shared(self, size: int, victim: int, kill_after: float | None) -> tuple[list[int], float]:
        """Exit codes, and the seconds from a kill to the end of the last one."""
        self.lives += 1
        meeting = str(self.root / f"meeting{self.lives}")
        place, folder = self.root / "run", self.folder
        children = [
            in_a_fork(lambda rank=rank: self.one(rank, size, meeting, place, folder))
            for rank in range(size)
        ]
        start, codes, killed_at = time.monotonic(), dict[int, int](), time.monotonic()
        while len(codes) < size:
            for child in set(children) - set(codes):
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    codes[child] = os.waitstatus_to_exitcode(status)
            now = time.monotonic()
            if kill_after is not None and now - start > kill_after:
                killed_at, kill_after = now, None
                if children[victim] not in codes:
                    os.kill(children[victim], signal.SIGKILL)
            if now - killed_at > 5 * PATIENCE:  # they hang
                for child in set(children) - set(codes):
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.001)
        return [codes[child] for child in children], time.monotonic() - killed_at


def killed(count: int, setting: str, source: str, every: Any, *, seed: int = 0) -> Counter[str]:
    """Kill a fit `count` times in all, and compare each one that ends with one never killed."""
    from shoal.training.ranks import together

    draw, counts = random.Random(f"{setting} {source} {seed}"), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        fit = Shared(Path(name), setting, source, every)
        with together(reproducible=True):
            bits, seconds = fit.expected()
        ended = True
        while counts["kills"] < count or not ended:
            if ended:
                shutil.rmtree(fit.folder, ignore_errors=True)
                shutil.rmtree(fit.root / "run", ignore_errors=True)
            last = counts["kills"] >= count
            size = draw.choice(SIZES)
            moment = None if last else draw.uniform(0.0, 1.1 * size * seconds)
            codes, took = fit.shared(size, draw.randrange(size), moment)
            ended = codes[0] == 0
            if ended:
                found = (fit.root / "run" / "dictionary.safetensors").read_bytes()
                counts["fits that ended"] += 1
                counts["with the same bytes"] += found == bits
            if -signal.SIGKILL in codes:
                counts["kills"] += 1
                counts[f"of {size}"] += 1
                counts["the others ended within a minute"] += took < PATIENCE
                others = [code for code in codes if code != -signal.SIGKILL]
                counts["others that said so"] += others.count(LOST)
            odd = set(codes) - {0, LOST, -signal.SIGKILL}
            if odd:
                counts[f"ended with {sorted(odd)}"] += 1
                if not ended:
                    break
    return counts


def main(count: int) -> None:
    """Spread the kills over settings and sources, and print what came of them."""
    import torch

    torch.set_num_threads(1)
    cases = [
        ("dictionary, k known", "array", 1),
        ("dictionary, k known", "file", "0.05s"),
        ("dictionary, k searched", "stream", 5),
        ("dictionary, non-negative", "file", 3),
        ("regularized, dae", "array", 4),
    ]
    total = Counter[str]()
    for number, (setting, source, every) in enumerate(cases):
        share = count * (number + 1) // len(cases) - count * number // len(cases)
        if share:
            found = killed(share, setting, source, every)
            print(f"{setting}, {source}: {dict(found)}", flush=True)
            total += found
    print(f"in all: {dict(total)}")


if __name__ == "__main__":
    main(int(sys.argv[1]))

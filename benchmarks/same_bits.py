"""Do fits have the bits that they had at another commit, and do their steps take as long?

    python -m benchmarks.same_bits                     # hashes of components_, one line per setting
    python -m benchmarks.same_bits --against COMMIT    # compared with that commit's, and timed

With ``--against`` every setting is fitted by this tree and by a fresh checkout of COMMIT in turn,
each in a process of its own with one thread; the table gives the median ratio of their times. The
same bits are to be expected on one machine, with one version of torch: other processors sum in
another order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def _planted(model: str, n: int, m: int, k: int, n_samples: int, noise: float = 0.0) -> np.ndarray:
    from shoal.generative import (
        MixtureOfGaussians,
        NonnegativeSparseCoding,
        SparseCoding,
        random_dictionary,
    )

    atoms = random_dictionary(m, n, random_state=3)
    if model == "mixture":
        world: Any = MixtureOfGaussians(atoms, noise=noise or 0.02)
    else:
        kind = SparseCoding if model == "sparse" else NonnegativeSparseCoding
        world = kind(atoms, k, low=1.0, high=2.0, noise=noise)
    return world.sample(n_samples, random_state=4).data


def _dictionary(data: Callable[[], Any], *sizes: Any, **named: Any) -> Callable[[], Any]:
    def fit() -> Any:
        import shoal

        return shoal.DictionaryAutoencoder(*sizes, random_state=0, **named).fit(data())

    return fit


def _regularized(data: Callable[[], Any], *sizes: Any, **named: Any) -> Callable[[], Any]:
    def fit() -> Any:
        import shoal

        usual = {"n_epochs": 4, "random_state": 0}
        return shoal.RegularizedAutoencoder(*sizes, **(usual | named)).fit(data())

    return fit


def _a() -> np.ndarray:
    return _planted("sparse", 64, 128, 3, 20_000)


def _small() -> np.ndarray:
    return _planted("sparse", 32, 48, 2, 4000, 0.05)


def _d() -> np.ndarray:
    return _planted("nonnegative", 100, 256, 5, 20_000)


def _mixture() -> np.ndarray:
    return _planted("mixture", 64, 10, 1, 3000)


def _stream() -> Any:
    parts = np.array_split(_small(), 7)
    return lambda: iter(parts)


def _file() -> str:
    path = Path(tempfile.mkdtemp()) / "data.npy"
    np.save(path, _small().astype(np.float32))
    return str(path)


def _in_calls() -> Any:
    import shoal

    model = shoal.DictionaryAutoencoder(48, 2, random_state=0)
    for part in np.array_split(_small(), 5):
        model.partial_fit(part)
    return model


def _after_a_fit() -> Any:
    import shoal

    data = _small()
    return shoal.DictionaryAutoencoder(48, 2, random_state=0).fit(data[:3000]).partial_fit(data)


def _near_the_truth(**named: Any) -> Callable[[], Any]:
    def fit() -> Any:
        import shoal
        from shoal.generative import random_dictionary
        from shoal.training import nguyen2019

        start = random_dictionary(48, 32, random_state=3) + 0.02
        start /= np.linalg.norm(start, axis=1, keepdims=True)
        recipe = nguyen2019("sparse", "threshold", step=0.5, n_steps=12, **named)
        chosen = {"recipe": recipe, "init": start, "random_state": 0}
        return shoal.DictionaryAutoencoder(48, 2, **chosen).fit(_small())

    return fit


def _without_refinement() -> Any:
    import shoal
    from shoal.training import recipe_named

    recipe = replace(recipe_named("default", "sparse", 48, 2, 4000), refinement=None, n_steps=150)
    return shoal.DictionaryAutoencoder(48, 2, recipe=recipe, random_state=0).fit(_small())


SETTINGS: dict[str, Callable[[], Any]] = {
    "a": _dictionary(_a, 128, 3),
    "a, float32": _dictionary(lambda: _a().astype(np.float32), 128, 3),
    "a, noise": _dictionary(lambda: _planted("sparse", 64, 128, 3, 20_000, 0.05), 128, 3),
    "nonnegative": _dictionary(_d, 256, 5, model="nonnegative"),
    "mixture": _dictionary(_mixture, 10, model="mixture"),
    "auto": _dictionary(_small, 48, "auto"),
    "too many atoms": _dictionary(_small, 80, 2),
    "residual start, whitened": _dictionary(_small, 48, 2, init="residual", preprocessing="whiten"),
    "stream": _dictionary(_stream, 48, 2),
    "file": _dictionary(_file, 48, 2),
    "bias-adaptation": _dictionary(
        lambda: np.abs(_small()), 48, 2, model="nonnegative", recipe="bias-adaptation"
    ),
    "nguyen2019-nonnegative-relu-stable": _dictionary(
        _d, 256, 5, model="nonnegative", recipe="nguyen2019-nonnegative-relu-stable"
    ),
    "nguyen2019-mixture-relu": _dictionary(
        _mixture, 10, model="mixture", recipe="nguyen2019-mixture-relu"
    ),
    "full batch, threshold": _near_the_truth(),
    "full batch, nearness": _near_the_truth(nearness=0.05),
    "without refinement": _without_refinement,
    "partial_fit": _in_calls,
    "partial_fit after fit": _after_a_fit,
    **{
        f"{name}, {activation}": _regularized(
            _small, 64, name, 0.25, activation=activation, **options
        )
        for name, activation, options in (
            ("none", "relu", {}),
            ("dae", "relu", {}),
            ("cae", "sigmoid", {"weight_length": "max-norm"}),
            ("mdae", "softplus", {"weight_length": "free", "learning_rate": 1e-4}),
            ("sae", "sigmoid", {"weight_decay": 1e-3, "weight_length": "free"}),
            ("edae", "relu", {"tangent": True}),
            ("taylor-dae", "tanh", {}),
            ("cae+h", "sigmoid", {"batch_size": 37}),
            ("l1", "maxout", {}),
        )
    },
    "dae, float32": _regularized(lambda: _small().astype(np.float32), 64, "dae", 0.25),
}


def _hash(model: Any) -> str:
    parts = (model.components_, model.bias_)
    return hashlib.sha256(b"".join(np.ascontiguousarray(each) for each in parts)).hexdigest()[:16]


def _measure(names: list[str], repeats: int) -> dict[str, dict[str, Any]]:
    """The hash of each setting, its number of steps, and CPU seconds of its fastest fit."""
    found = {}
    for name in names:
        seconds = []
        for _ in range(repeats):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                start = time.process_time()
                model = SETTINGS[name]()
                seconds.append(time.process_time() - start)
        found[name] = {"hash": _hash(model), "steps": model.n_steps_, "seconds": min(seconds)}
    return found


def _in_tree(tree: Path, names: list[str], repeats: int) -> dict[str, dict[str, Any]]:
    single = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
    )
    environment = os.environ | single | {"PYTHONPATH": str(tree / "src")}
    words = [sys.executable, str(Path(__file__).resolve()), "--json", "--repeats", str(repeats)]
    for name in names:
        words += ["--only", name]
    done = subprocess.run(words, env=environment, cwd=tree, check=True, stdout=subprocess.PIPE)
    result: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return result


def _compare(commit: str, names: list[str], repeats: int, rounds: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        worktree = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*worktree, "add", "-q", "--detach", str(tree), commit], check=True)
        try:
            for each in (tree, ROOT):  # compiles
                _in_tree(each, names[:1], 1)
            pairs = [
                tuple(_in_tree(each, names, repeats) for each in (tree, ROOT))
                for _ in range(rounds)
            ]
        finally:
            subprocess.run([*worktree, "remove", "--force", str(tree)], check=True)
    different = 0
    for name in names:
        before, now = (each[name] for each in pairs[0])
        same = before["hash"] == now["hash"]
        different += not same
        ratio = statistics.median(b[name]["seconds"] / a[name]["seconds"] for a, b in pairs)
        steps = f"{before['steps']} steps" + ("" if same else f", now {now['steps']}")
        word = "same bits" if same else "OTHER BITS"
        print(f"{name:36} {word:10}  {steps:20}  time x {ratio:.2f}")
    return different


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", metavar="COMMIT", help="another commit of this repository")
    parser.add_argument("--only", action="append", choices=list(SETTINGS), help="of the settings")
    parser.add_argument(
        "--repeats", type=int, default=1, help="fits per process; the fastest counts"
    )
    parser.add_argument("--rounds", type=int, default=1, help="alternations, for --against")
    parser.add_argument("--json", action="store_true", help="hashes and seconds as JSON")
    given = parser.parse_args()
    names = given.only or list(SETTINGS)
    if given.against:
        sys.exit(1 if _compare(given.against, names, given.repeats, given.rounds) else 0)
    found = _measure(names, given.repeats)
    if given.json:
        print(json.dumps(found))
        return
    for name, each in found.items():
        print(f"{each['hash']}  {name}, {each['steps']} steps, {each['seconds']:.2f} s")


if __name__ == "__main__":
    main()

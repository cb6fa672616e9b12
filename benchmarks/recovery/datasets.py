"""The planted worlds: what a solver is told, the data, and the truth that it isn't shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.generative import (
    Gaussian,
    GenerativeModel,
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    SparseCoding,
    random_dictionary,
)

CHUNK = 50_000  # samples drawn at once; arbitrary, dense codes of 1024 atoms stay below .5 GB


class Problem(NamedTuple):
    """What every solver is told: sizes, the kind of codes, and the CPU seconds a peer may use."""

    workload: str
    n_atoms: int
    n_features: int
    k: int
    model: str  # "sparse", "nonnegative" or "mixture", as the estimator calls them
    n_samples: int
    dtype: str
    budget: float

    @property
    def signs(self) -> str:
        return "free" if self.model == "sparse" else "fixed"


class World(NamedTuple):
    """One draw of a workload."""

    problem: Problem
    data: NDArray  # (N, n)
    truth: NDArray  # (m, n)


class Workload(NamedTuple):
    """A planted law; `make` gives it for a seed."""

    make: Callable[[int], GenerativeModel]
    model: str
    n_samples: int
    dtype: str = "float64"
    budget: float = 4.0
    seeds: int = 5  # of peers, where the caller names no number
    own_seeds: int = 10  # of shoal


def _atoms(m: int, n: int, seed: int) -> NDArray:
    return random_dictionary(m, n, random_state=seed)


def signed(n: int, m: int, k: int, noise: float = 0.0) -> Callable[[int], GenerativeModel]:
    return lambda seed: SparseCoding(_atoms(m, n, seed), k, low=1.0, high=2.0, noise=noise)


def nonnegative(n: int, m: int, k: int, noise: float = 0.0) -> Callable[[int], GenerativeModel]:
    return lambda seed: NonnegativeSparseCoding(
        _atoms(m, n, seed), k, low=1.0, high=2.0, noise=noise
    )


def mixture(n: int, m: int, noise: float) -> Callable[[int], GenerativeModel]:
    return lambda seed: MixtureOfGaussians(_atoms(m, n, seed), noise=noise)


def gaussian(n: int, m: int, k: int, decibels: float) -> Callable[[int], GenerativeModel]:
    """Standard Gaussian codes; E|Ax|^2 / E|noise|^2 is 10^(decibels / 10)."""

    def make(seed: int) -> GenerativeModel:
        atoms = _atoms(m, n, seed)
        unit = SparseCoding(atoms, k, values=Gaussian(0.0), noise=1.0)
        noise = (unit.snr / 10 ** (decibels / 10)) ** 0.5
        return SparseCoding(atoms, k, values=Gaussian(0.0), noise=noise)

    return make


WORKLOADS: dict[str, Workload] = {
    "a": Workload(signed(64, 128, 3), "sparse", 20_000),
    "b": Workload(nonnegative(100, 256, 5), "nonnegative", 50_000, budget=8.0, seeds=3),
    "d": Workload(signed(256, 1024, 8), "sparse", 200_000, "float32", budget=70.0, seeds=1),
    "a-noise": Workload(signed(64, 128, 3, noise=0.05), "sparse", 20_000, seeds=2),
    "b-noise": Workload(
        nonnegative(100, 256, 5, noise=0.05), "nonnegative", 50_000, budget=8.0, seeds=2
    ),
    **{
        f"c-{noise}": Workload(mixture(784, 10, noise), "mixture", 10_000, seeds=3)
        for noise in (0.01, 0.02, 0.03)
    },
    "e": Workload(gaussian(20, 50, 3, decibels=20.0), "sparse", 1_500, seeds=8),
    **{
        f"k-{k}": Workload(signed(64, 128, k), "sparse", 20_000, seeds=2, own_seeds=2)
        for k in range(1, 19)
    },
}

GROUPS: dict[str, list[str]] = {
    "noise": ["a-noise", "b-noise"],
    "c": [name for name in WORKLOADS if name.startswith("c-")],
    "k": [name for name in WORKLOADS if name.startswith("k-")],
    "all": list(WORKLOADS),
    "default": [name for name in WORKLOADS if not name.startswith("k-")]
    + [f"k-{k}" for k in (1, 2, 5, 9, 12, 15, 18)],
}


def names(given: list[str]) -> list[str]:
    """Workloads by name, each once; names may be comma separated and groups are written out."""
    words = [word for text in given for word in text.split(",") if word]
    found = [name for word in words for name in GROUPS.get(word, [word])]
    unknown = [name for name in found if name not in WORKLOADS]
    if unknown:
        known = ", ".join([*GROUPS, *WORKLOADS])
        raise ValueError(f"no workload {', '.join(unknown)}; there are {known}")
    return list(dict.fromkeys(found))


def draw(name: str, seed: int, n_samples: int | None = None) -> World:
    """The world of a seed; its samples come from seed + 1."""
    workload = WORKLOADS[name]
    planted = workload.make(seed)
    total = workload.n_samples if n_samples is None else n_samples
    data = np.empty((total, planted.n_features), workload.dtype)
    rng = np.random.default_rng(seed + 1)
    for start in range(0, total, CHUNK):
        rows = data[start : start + CHUNK]
        rows[:] = planted.sample(len(rows), random_state=rng).data
    problem = Problem(
        name,
        planted.n_atoms,
        planted.n_features,
        planted.k,
        workload.model,
        total,
        workload.dtype,
        workload.budget,
    )
    return World(problem, data, planted.dictionary)

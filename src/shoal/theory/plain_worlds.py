"""The plainest worlds there are, asked at N samples and at ten times as many.

A verdict against a paper must survive more samples. ``python -m shoal.theory.plain_worlds`` runs
:func:`~shoal.theory.examine` on a hundred worlds twice, prints every "contradicted", and ends with
an error if one of them changes, or speaks of Theorem 4 where one step along the gradient over all
supports does what the theorem says.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.generative import (
    GenerativeModel,
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    SparseCoding,
    orthonormal_union,
    perturb,
)
from shoal.theory.examination import examine
from shoal.theory.gradients import enumerated_gradient
from shoal.theory.nguyen2019 import best_step, step_size
from shoal.vocabulary import check_count

__all__ = ["Place", "Steadiness", "ask_twice", "main", "one_exact_step", "places"]

Floats = NDArray[np.float64]

SIZES = ((64, 64), (64, 128), (128, 128), (128, 256), (256, 256))  # n, m
DELTAS = (0.01, 0.05, 0.1)
COUNTS = (1, 2, 3)  # k


class Place(NamedTuple):
    """A world, weights near its atoms, and a name for both."""

    name: str
    world: GenerativeModel
    weights: Floats


def places(
    sizes: Sequence[tuple[int, int]] = SIZES,
    deltas: Sequence[float] = DELTAS,
    counts: Sequence[int] = COUNTS,
) -> Iterator[Place]:
    """Mixtures, signed and non-negative codes on orthonormal atoms or a union of two bases.

    Parameters
    ----------
    sizes : sequence of (int, int)
        n and m, m at most 2 n.
    deltas : sequence of float
        |W_i - A_i|, the same for all atoms, in random directions.
    counts : sequence of int
        k of the sparse codes.

    Yields
    ------
    Place
        Mixtures have ten atoms, the least and the largest delta, and a noise of .02 where n = m.
    """
    for n, m in sizes:
        atoms = orthonormal_union(m, n)
        for delta in sorted({min(deltas), max(deltas)}):
            noise = 0.02 if n == m else 0.0
            yield _placed("mixture", MixtureOfGaussians(atoms[:10], noise=noise), delta)
        for k, delta in product(counts, deltas):
            yield _placed("sparse", SparseCoding(atoms, k, low=1.0, high=1.2), delta)
            yield _placed(
                "nonnegative", NonnegativeSparseCoding(atoms, k, low=1.0, high=1.2), delta
            )


def _placed(kind: str, world: GenerativeModel, delta: float) -> Place:
    name = f"{kind} n={world.n_features} m={world.n_atoms} k={world.k} delta={delta:g}"
    return Place(name, world, perturb(world.dictionary, delta, random_state=0))


class Steadiness(NamedTuple):
    """What was said of one place.

    Attributes
    ----------
    name : str
        The place's.
    verdicts : dict of str to (str, str)
        For each assertion, at N samples and at 10 N.
    """

    name: str
    verdicts: dict[str, tuple[str, str]]

    @property
    def contradicted(self) -> list[str]:
        """Assertions that are contradicted at either."""
        return [name for name, both in self.verdicts.items() if "contradicted" in both]

    @property
    def unsteady(self) -> list[str]:
        """Of these, the ones that are not contradicted at both."""
        return [name for name in self.contradicted if len(set(self.verdicts[name])) > 1]


def ask_twice(place: Place, n_samples: int = 5000) -> Steadiness:
    """Every assertion about a place, at N samples and at 10 N others.

    Parameters
    ----------
    place : Place
        A world and weights.
    n_samples : int
        N, at least 80.

    Returns
    -------
    Steadiness

    Examples
    --------
    >>> place = next(places([(16, 16)]))
    >>> ask_twice(place, 80).unsteady
    []
    """
    check_count("n_samples", n_samples, low=80)
    once, often = (
        {
            each.name: each.verdict
            for each in examine(place.world, place.weights, n_samples=size, random_state=seed)
        }
        for seed, size in enumerate((n_samples, 10 * n_samples))
    )
    return Steadiness(place.name, {name: (once[name], often[name]) for name in once})


def one_exact_step(place: Place) -> tuple[float, float]:
    """|W - A|_F^2 before and after one step along eq. (5) over every support; small worlds.

    Its step is :func:`~shoal.theory.nguyen2019.theorem4`'s, and nothing else of it is.
    """
    world, weights = place.world, place.weights
    m, k = world.n_atoms, world.k
    table = np.stack(np.meshgrid(*[np.arange(m)] * k, indexing="ij"), axis=-1).reshape(-1, k)
    table = table[(np.diff(table, axis=1) > 0).all(axis=1)]
    gradient = enumerated_gradient(world, weights, 0.0, table)
    moved = weights - step_size(world, weights, best_step(world)) * gradient
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    before, after = (float(((w - world.dictionary) ** 2).sum()) for w in (weights, moved))
    return before, after


def _exact_fall(place: Place) -> float | None:
    """The share of |W - A|_F^2 that an exact step leaves; None from the truth, or if too long."""
    if place.world.n_atoms**place.world.k > 2_500_000:  # arbitrary; seconds
        return None
    before, after = one_exact_step(place)
    return after / before if before > 0 else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask all places twice; 1 where a verdict against a paper does not stand."""
    parser = argparse.ArgumentParser(
        prog="python -m shoal.theory.plain_worlds", description=__doc__
    )
    parser.add_argument("--samples", type=int, default=5000, help="N; each is asked at 10 N too")
    parser.add_argument("--json", action="store_true", help="one line of JSON per world")
    options = parser.parse_args(arguments)
    counts: Counter[tuple[str, str]] = Counter()
    unsteady, false, total = 0, 0, 0
    for place in places():
        found, fall = ask_twice(place, options.samples), _exact_fall(place)
        theorem = [name for name in found.contradicted if name.startswith("Theorem 4")]
        total += 1
        unsteady += len(found.unsteady)
        false += len(theorem) if fall is not None and fall <= 0.25 else 0
        counts.update((name, verdict) for name, both in found.verdicts.items() for verdict in both)
        _tell(found, fall, as_json=options.json)
    print(f"{total} worlds, N = {options.samples} and {10 * options.samples}")
    for (name, verdict), number in sorted(counts.items()):
        print(f"  {name}: {verdict}: {number}")
    print(f"'contradicted' that changes: {unsteady}")
    print(f"Theorem 4 'contradicted' where an exact step falls by 4: {false}")
    return int(unsteady + false > 0)


def _tell(found: Steadiness, fall: float | None, *, as_json: bool) -> None:
    if as_json:
        line: dict[str, Any] = {"name": found.name, "fall": fall, "verdicts": found.verdicts}
        print(json.dumps(line), flush=True)
        return
    words = ", ".join(found.contradicted) or "nothing"
    exact = "" if fall is None else f"; an exact step leaves {fall:.2g}"
    print(f"{found.name}: contradicted: {words}{exact}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

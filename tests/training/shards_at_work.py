"""What processes that share atoms do together in `test_shards.py`: a program, not a test."""

import hashlib
import json
import os
import signal
import sys
import warnings
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

import shoal
from shoal.data import open_source
from shoal.generative import SparseCoding, random_dictionary
from shoal.network.activations import TopK
from shoal.network.codes import sparse_codes
from shoal.training import recipe_named
from shoal.training.checkpoints import kept_steps
from shoal.training.ranks import current, together
from shoal.training.shards import Shard, at_hand, codes_of_all, cut, joined
from shoal.vocabulary import LostError, Parameters, ShoalError

WORLD = SparseCoding(random_dictionary(21, 12, random_state=0), 2, noise=0.05)
X = WORLD.sample(403, random_state=1).data  # no number of processes divides it, nor the atoms


def _model(m=21, k=2, **named):
    return shoal.DictionaryAutoencoder(m, k, random_state=0, **named)


def _short(name, model, m, n_steps, **named):
    return replace(recipe_named(name, model, m, 2, len(X)), n_steps=n_steps, **named)


LEFT = "an encoder of its own"
SETTINGS = {
    LEFT: lambda: _model(40, recipe=_short("topk", "nonnegative", 40, 90), model="nonnegative"),
    "tied": lambda: _model(
        33,
        model="nonnegative",
        recipe=_short("default", "nonnegative", 33, 30, refinement=None, finish=None, encoder=None),
    ),
    "gathered": lambda: _model(
        recipe=_short("default", "sparse", 21, 4, polish=None, finish=None, encoder=None)
    ),
}


def fitted(name):
    """What a setting comes to, how many atoms it replaced, and which shapes they had on the way."""
    model, replaced, shapes = SETTINGS[name](), 0, set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in model.iter_fit(X):
            if step.phase == "descent":
                replaced += step.replaced
                shapes.add(len(step.parameters.dictionary))
    return model, replaced, shapes


def digest(model):
    parts = (model.components_, model.bias_, getattr(model, "encoder_", None))
    kept = [np.ascontiguousarray(part) for part in parts if part is not None]
    return hashlib.sha256(b"".join(kept)).hexdigest()


def tied(seed=0):
    """Rows and atoms of whole numbers, whose scores are often the same, with an encoder."""
    draw = torch.Generator().manual_seed(seed)
    atoms, rows = (torch.randint(-1, 2, (count, 6), generator=draw).double() for count in (19, 50))
    return Parameters(atoms, torch.zeros(19).double(), atoms.flip(0).contiguous()), rows


def _codes(signed):
    """Whether the codes of all shards are the definition's, ties included."""
    parameters, rows = tied()
    shard = Shard(current().atoms, 19)
    assert torch.equal(joined(cut(parameters.dictionary, shard), shard), parameters.dictionary)
    for k in (1, 4, 12, 19):
        encoder = TopK(k, signed)
        expected = encoder(rows @ parameters.encoder.T).codes
        with at_hand(shard):
            found = codes_of_all(cut(parameters, shard), rows, encoder)
        if not torch.equal(found.dense(19), expected):
            return False
        listed = sparse_codes(expected)
        if not torch.equal(found.indices[:, : listed.indices.shape[1]], listed.indices):
            return False
    return True


def _refusal(fit):
    try:
        fit()
    except ShoalError as error:
        return str(error)
    return ""


def _resumed(folder, whole):
    """A fit that is left and gone on with, and one that is not: the same bits?"""
    saved = {"checkpoint": folder, "checkpoint_every": 7}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, _ in enumerate(SETTINGS[LEFT]().iter_fit(X, **saved)):
            if number == 60:
                break
        steps = kept_steps(folder) if current().rank == 0 else None
        current().wait()
        model = SETTINGS[LEFT]().fit(X, **saved)
    return [steps, digest(model) == whole]


def main(rank, size, shards, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    found = {}
    with together(shard_atoms=shards):
        for name in SETTINGS:
            model, replaced, shapes = fitted(name)
            found[name] = [model.components_.tolist(), digest(model), replaced, sorted(shapes)]
        found["ties"] = [_codes(signed) for signed in (True, False)]
        found["too few"] = _refusal(lambda: _model(1, 1).fit(X))
        once = iter([X[:200], X[200:]])
        found["once"] = _refusal(lambda: _model().fit(open_source(once)))
        found["recipe"] = _refusal(lambda: _model(recipe="incoherent").fit(X))
        penalised = shoal.RegularizedAutoencoder(21, "dae", 0.1, n_epochs=1, random_state=0)
        found["penalty"] = _refusal(lambda: penalised.fit(X))
        found["resumed"] = _resumed(Path(folder, "kept"), found[LEFT][1])
    kept = Path(folder, f"found{rank}.json")
    kept.write_text(json.dumps(found))
    found["after a loss"] = _after_a_loss(rank, shards)
    kept.write_text(json.dumps(found))


def _after_a_loss(rank, shards):
    """What the others say when the last one is killed."""
    with together(shard_atoms=shards) as ranks, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for number, _ in enumerate(SETTINGS[LEFT]().iter_fit(X)):
                if number == 17 and rank == ranks.size - 1:
                    os.kill(os.getpid(), signal.SIGKILL)
        except LostError as error:
            return str(error)
    return ""


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4])

"""What two processes do together in `test_ranks.py`: a program, not a test."""

import hashlib
import json
import os
import signal
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

import shoal
from shoal.data import open_source
from shoal.generative import SparseCoding, random_dictionary
from shoal.network.activations import BatchTopK
from shoal.training.checkpoints import kept_steps
from shoal.training.ranks import together
from shoal.vocabulary import LostError, RunError

WORLD = SparseCoding(random_dictionary(20, 12, random_state=0), 2, noise=0.05)
X = WORLD.sample(403, random_state=1).data  # no number of processes divides it


def _stream():
    for at in range(0, len(X), 100):
        yield X[at : at + 100]


def _batchwise(data):
    model = shoal.RegularizedAutoencoder(20, "none", activation=BatchTopK(2), n_epochs=2)
    return model.set_params(random_state=0).fit(data)


def _in_pieces(data):
    model = shoal.DictionaryAutoencoder(20, 2, random_state=0)
    for piece in np.array_split(data, 3):
        model.partial_fit(piece)
    return model


def _dictionary(*sizes, **named):
    return lambda data: shoal.DictionaryAutoencoder(*sizes, random_state=0, **named).fit(data)


SETTINGS = {
    "default": _dictionary(20, 2),
    "spare atoms": _dictionary(26, 2),  # replaced, given up, made again
    "full batch": _dictionary(20, 2, recipe="nguyen2019-sparse-threshold"),
    "an encoder of its own": _dictionary(20, 2, encoder="untied"),
    "stream": lambda data: _dictionary(20, 2)(lambda: _stream()),
    "pieces": _in_pieces,
    "penalty": lambda data: shoal.RegularizedAutoencoder(
        20, "dae", 0.1, n_epochs=2, random_state=0
    ).fit(data),
    "batch-wise": _batchwise,
}
if os.environ.get("SHOAL_RANKS"):  # takes a minute
    SETTINGS |= {
        "auto": _dictionary(20, "auto"),
        "whitened": _dictionary(20, 2, preprocessing="whiten"),
        "incoherent": _dictionary(20, recipe="incoherent"),
        "bias adaptation": _dictionary(20, recipe="bias-adaptation", model="nonnegative"),
        "single precision": lambda data: _dictionary(20, 2)(data.astype(np.float32)),
        "joint": _dictionary(20, 2, encoder="untied", joint=True),
    }


def fitted(name):
    """What a setting comes to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SETTINGS[name](X)


def digest(model):
    parts = (model.components_, model.bias_, getattr(model, "encoder_", None))
    kept = [np.ascontiguousarray(part) for part in parts if part is not None]
    return hashlib.sha256(b"".join(kept)).hexdigest()


def _refusal(ranks, data):
    try:
        shoal.DictionaryAutoencoder(20, 2, random_state=0).fit(data)
    except RunError as error:
        return str(error)
    return ""


def main(rank, size, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting{size}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    found = {"same": {}, "atoms": {}}
    with together(reproducible=True):
        for name in SETTINGS:
            found["same"][name] = digest(fitted(name))
    with together() as ranks:
        for name in ("default", "spare atoms"):
            found["atoms"][name] = fitted(name).components_.tolist()
        own = X if rank == 0 else X[::-1].copy()
        found["refused"] = _refusal(ranks, own)
        model = shoal.DictionaryAutoencoder(20, 2)  # no seed: each process would have its own
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found["unseeded"] = digest(model.fit(open_source(X)))
    kept = Path(folder, f"found{rank}.json")
    kept.write_text(json.dumps(found))
    found["after a loss"] = _after_a_loss(rank, Path(folder, f"kept{size}"))
    kept.write_text(json.dumps(found))


def _after_a_loss(rank, folder):
    """What the first process says when the last one is killed, and what it comes to alone."""
    model = shoal.DictionaryAutoencoder(20, 2, random_state=0)
    said, saved = "", {"checkpoint": folder, "checkpoint_every": 5}
    with together(reproducible=True) as ranks:
        try:
            for number, _ in enumerate(model.iter_fit(X, **saved)):
                if number == 17 and rank == ranks.size - 1:
                    os.kill(os.getpid(), signal.SIGKILL)
        except LostError as error:
            said = str(error)
    dist.destroy_process_group()
    if rank:
        return said
    with together(reproducible=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [said, kept_steps(folder), digest(model.fit(X, **saved))]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])

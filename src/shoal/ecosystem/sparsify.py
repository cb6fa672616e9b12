"""sparsify (eai-sparsify 1): ``cfg.json`` and ``sae.safetensors``.

x = the k largest of relu((y - b_dec) encoder.weight^T + encoder.bias),  y_hat = x W_dec + b_dec
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from shoal.ecosystem._folders import number, read_json, read_safetensors, weights, wrong
from shoal.ecosystem.autoencoders import Autoencoder, Gating
from shoal.vocabulary import ArgumentError

__all__ = ["FILES", "read", "write"]

FILES = ("cfg.json", "sae.safetensors")


def write(
    autoencoder: Autoencoder, *, architecture: str | None, metadata: dict[str, Any], k: int
) -> dict[str, bytes]:
    """The files' contents by name."""
    from safetensors.numpy import save

    gating = autoencoder.gating
    if gating.k is None:
        found = "codes above a threshold, where sparsify has the k largest"
        raise ArgumentError("model", found, "a k-largest encoder (TopK), or to='saelens'")
    if gating.signed:
        needed = "codes >= 0 (model='nonnegative'), split_signs=True, or to='saelens'"
        raise ArgumentError("model", "signed codes, which sparsify has not", needed)
    if architecture not in (None, "topk"):
        raise ArgumentError("architecture", repr(architecture), "'topk', or to be left out")
    b_enc, b_dec = autoencoder.biases(subtracted=True)
    arrays = {
        "encoder.weight": autoencoder.written(autoencoder.encoder),
        "encoder.bias": b_enc,
        "W_dec": autoencoder.written(autoencoder.decoder),
        "b_dec": b_dec,
    }
    config = {
        **metadata,
        "activation": "topk",
        "expansion_factor": 32,  # its default, which the number of latents stands in place of
        "normalize_decoder": autoencoder.unit,
        "num_latents": autoencoder.m,
        "k": gating.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": autoencoder.n,
    }
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    return {"cfg.json": text.encode(), "sae.safetensors": save(arrays, {"format": "pt"})}


def read(folder: Path) -> Autoencoder:
    """The autoencoder in a folder of sparsify."""
    config = read_json(folder / "cfg.json")
    activation = config.get("activation", "topk")
    if activation != "topk":
        raise wrong(f"the activation {activation!r} of sparsify", "'topk'")
    for name in ("transcode", "skip_connection", "signed"):
        if config.get(name, False) is not False:
            raise wrong(f"{name}={config[name]!r} of sparsify", f"{name} false: an autoencoder")
    n = number(config, "d_in")
    if config.get("num_latents", 0):
        m = number(config, "num_latents")
    else:
        m = n * number({"expansion_factor": 32, **config}, "expansion_factor")
    k = number(config, "k", m)
    shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (m, n), "encoder.bias": (m,)}
    shapes |= {"W_dec": (m, n), "b_dec": (n,)}
    tensors = read_safetensors(folder / "sae.safetensors")
    found, kept = weights(tensors, shapes, what=f"a sparse coder of {m} latents")
    return Autoencoder(
        found["encoder.weight"],
        found["encoder.bias"],
        found["W_dec"],
        found["b_dec"],
        np.zeros(n),
        Gating(k=k),
        kept,
    )

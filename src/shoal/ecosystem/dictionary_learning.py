"""dictionary_learning 0.1: ``config.json`` and ``ae.pt``, a state_dict.

===========================  =====================================================================
``dict_class``               codes of f = E (y - b_dec) + b_enc
===========================  =====================================================================
``AutoEncoderTopK``          the k largest, rectified
``BatchTopKSAE``             rectified, those above one threshold
``MatryoshkaBatchTopKSAE``   the same; read, not written
``JumpReluAutoEncoder``      rectified, those above a threshold per latent, of E y + b_enc
``AutoEncoder``              rectified; the package brings its atoms to length 1 when it loads it
``AutoEncoderNew``           rectified, of E y + b_enc; atoms of any length
===========================  =====================================================================
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shoal.ecosystem._folders import number, read_json, read_torch, weights, wrong
from shoal.ecosystem.autoencoders import Autoencoder, Gating
from shoal.vocabulary import ArgumentError, __version__

__all__ = ["CLASSES", "FILES", "read", "write"]

FILES = ("config.json", "ae.pt")

_LINEAR = {"encoder": "encoder.weight", "bias": "encoder.bias", "decoder": "decoder.weight"}
_PLAIN = {"encoder": "W_enc", "bias": "b_enc", "decoder": "W_dec", "offset": "b_dec"}

# Where each class keeps its weights: as nn.Linear, (m, n) and (n, m), or as (n, m) and (m, n);
# whether the offset is taken off what is encoded; and what is beside them.
CLASSES: dict[str, tuple[dict[str, str], bool, tuple[str, ...]]] = {
    "AutoEncoderTopK": ({**_LINEAR, "offset": "b_dec"}, True, ("k", "threshold")),
    "BatchTopKSAE": ({**_LINEAR, "offset": "b_dec"}, True, ("k", "threshold")),
    "MatryoshkaBatchTopKSAE": (_PLAIN, True, ("k", "threshold", "group_sizes")),
    "JumpReluAutoEncoder": (_PLAIN, False, ()),
    "AutoEncoder": ({**_LINEAR, "offset": "bias"}, True, ()),
    "AutoEncoderNew": ({**_LINEAR, "offset": "decoder.bias"}, False, ()),
}


def _class_of(autoencoder: Autoencoder) -> str:
    gating = autoencoder.gating
    if gating.signed:
        needed = "codes >= 0 (model='nonnegative'), split_signs=True, or to='saelens'"
        raise ArgumentError("model", "signed codes, which dictionary_learning has not", needed)
    if gating.k is not None:
        return "AutoEncoderTopK"
    if gating.thresholds is None:
        return "AutoEncoder" if autoencoder.unit else "AutoEncoderNew"
    return "JumpReluAutoEncoder" if gating.batch is None else "BatchTopKSAE"


def write(
    autoencoder: Autoencoder, *, architecture: str | None, metadata: dict[str, Any], k: int
) -> dict[str, bytes]:
    """The files' contents by name."""
    chosen, gating = _class_of(autoencoder), autoencoder.gating
    if architecture not in (None, chosen):
        raise ArgumentError("architecture", repr(architecture), f"{chosen!r}, or to be left out")
    names, subtracted, _ = CLASSES[chosen]
    b_enc, b_dec = autoencoder.biases(subtracted=subtracted)
    encoder, decoder = autoencoder.encoder, autoencoder.decoder
    linear = names["encoder"] == "encoder.weight"
    arrays = {
        names["encoder"]: autoencoder.written(encoder if linear else encoder.T),
        names["bias"]: b_enc,
        names["decoder"]: autoencoder.written(decoder.T if linear else decoder),
        names["offset"]: b_dec,
    }
    trainer: dict[str, Any] = {
        "layer": None,
        "lm_name": None,
        "submodule_name": None,
        **metadata,
        "trainer_class": None,
        "dict_class": chosen,
        "activation_dim": autoencoder.n,
        "dict_size": autoencoder.m,
    }
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    active = gating.k or gating.batch
    if active is not None:
        trainer["k"] = active
        state["k"] = torch.tensor(active, dtype=torch.int32)
        level = -1.0 if gating.thresholds is None else float(gating.thresholds.max())
        like = state[names["bias"]] if gating.thresholds is not None else torch.zeros(1)
        state["threshold"] = torch.tensor(level, dtype=like.dtype)
    elif gating.thresholds is not None:
        state["threshold"] = torch.from_numpy(autoencoder.written(gating.thresholds))
    file = io.BytesIO()
    torch.save(state, file)
    config = {"trainer": trainer, "shoal_version": __version__}
    text = json.dumps(config, indent=4, allow_nan=False) + "\n"
    return {"config.json": text.encode(), "ae.pt": file.getvalue()}


def read(folder: Path) -> Autoencoder:
    """The autoencoder in a folder of dictionary_learning."""
    trainer = read_json(folder / "config.json").get("trainer")
    chosen = trainer.get("dict_class") if isinstance(trainer, dict) else None
    if not isinstance(trainer, dict) or not isinstance(chosen, str) or chosen not in CLASSES:
        found = f"the class {chosen!r} of dictionary_learning"
        raise wrong(found, f"trainer.dict_class, one of {', '.join(CLASSES)}")
    m, n = number(trainer, "dict_size"), number(trainer, "activation_dim")
    names, subtracted, beside = CLASSES[chosen]
    linear = names["encoder"] == "encoder.weight"
    shapes: dict[str, tuple[int, ...]] = {
        names["encoder"]: (m, n) if linear else (n, m),
        names["bias"]: (m,),
        names["decoder"]: (n, m) if linear else (m, n),
        names["offset"]: (n,),
    }
    if chosen == "JumpReluAutoEncoder":
        shapes["threshold"] = (m,)
    elif "Batch" in chosen:
        shapes["threshold"] = ()
    tensors = read_torch(folder / "ae.pt")
    what = f"a {chosen} of {m} latents"
    arrays, kept = weights(tensors, shapes, beside=beside, what=what)
    encoder, decoder = arrays[names["encoder"]], arrays[names["decoder"]]
    encoder, decoder = (encoder, decoder.T) if linear else (encoder.T, decoder)
    bias, b_dec = arrays[names["bias"]], arrays[names["offset"]]
    if chosen == "AutoEncoder":
        encoder, bias, decoder = _normalized(encoder, bias, decoder)
    none = np.zeros(n)
    mean, offset = (b_dec, none) if subtracted else (none, b_dec)
    gating = _gating(chosen, trainer, arrays, m)
    return Autoencoder(encoder, bias, decoder, mean, offset, gating, kept)


def _normalized(encoder: Any, bias: Any, decoder: Any) -> tuple[Any, Any, Any]:
    """With atoms of length 1, as the package loads them; those that nearly have it stay."""
    lengths = np.linalg.norm(decoder, axis=1)
    if np.allclose(lengths, 1.0):
        return encoder, bias, decoder
    if not lengths.all():
        raise wrong("an atom of length 0 in an AutoEncoder", "atoms that have a direction")
    return encoder * lengths[:, None], bias * lengths, decoder / lengths[:, None]


def _gating(chosen: str, trainer: dict[str, Any], found: dict[str, Any], m: int) -> Gating:
    if chosen == "AutoEncoderTopK":
        return Gating(k=number(trainer, "k", m))
    if "threshold" not in found:
        return Gating()
    levels = found["threshold"].clip(min=0.0)  # rectified as well
    if levels.ndim:
        return Gating(thresholds=levels)
    return Gating(thresholds=np.full(m, levels), batch=number(trainer, "k", m))

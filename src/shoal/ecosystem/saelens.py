"""SAELens 6: ``cfg.json`` and ``sae_weights.safetensors``.

    x = gate((y - apply_b_dec_to_input b_dec) W_enc + b_enc),  y_hat = x W_dec + b_dec

=====================  ==========================================================================
architecture           codes
=====================  ==========================================================================
``topk``               the k largest, rectified
``abstopk``            the k of largest magnitude, with their signs
``jumprelu``           those above a threshold per latent
``standard``           rectified
``matching_pursuit``   plain matching pursuit on W_dec, non-negative; no encoder is stored
``batchtopk``          while it is trained, the largest of a batch; at rest ``jumprelu``
=====================  ==========================================================================
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shoal.ecosystem._folders import number, read_json, read_safetensors, weights, wrong
from shoal.ecosystem.autoencoders import Autoencoder, Gating
from shoal.vocabulary import ArgumentError, __version__, check_choice, warn

__all__ = ["ARCHITECTURES", "FILES", "VERSION", "read", "write"]

VERSION = "6.54.0"
"""The version whose format is written; all of 6 are read."""

FILES = ("cfg.json", "sae_weights.safetensors")
ARCHITECTURES = ("topk", "abstopk", "jumprelu", "standard", "matching_pursuit", "batchtopk")

_DTYPES = {
    f"{prefix}{name}": getattr(torch, name)
    for name in ("float32", "float64", "float16", "bfloat16")
    for prefix in ("", "torch.")
}
_TRAINED = ("batchtopk", "matryoshka_batchtopk")  # checkpoints of a training


# --------------------------------------------------------------------------- writing


def architecture_of(autoencoder: Autoencoder, asked: str | None) -> str:
    """The architecture that has the autoencoder's codes, or that was `asked` for."""
    gating = autoencoder.gating
    if gating.k is not None:
        own = "abstopk" if gating.signed else "topk"
    elif gating.signed:
        needed = "codes >= 0 (model='nonnegative'), the k largest, or split_signs=True"
        raise ArgumentError("model", "codes above a threshold by magnitude, with signs", needed)
    else:
        own = "standard" if gating.thresholds is None else "jumprelu"
    if asked is None or asked == own:
        return own
    check_choice("architecture", asked, ARCHITECTURES)
    if asked == "batchtopk" and gating.batch is not None:
        return asked
    if asked == "matching_pursuit":
        return asked
    found = f"{asked!r} for a model whose codes are those of {own!r}"
    raise ArgumentError("architecture", found, f"{own!r}, or to be left out")


def write(
    autoencoder: Autoencoder, *, architecture: str | None, metadata: dict[str, Any], k: int
) -> dict[str, bytes]:
    """The files' contents by name."""
    from safetensors.numpy import save

    chosen = architecture_of(autoencoder, architecture)
    if chosen == "matching_pursuit":
        _check_pursuit(autoencoder)
    # Where a mean is taken off, it is taken off first: its product with the weights may be large.
    subtracted = chosen == "matching_pursuit" or bool(autoencoder.mean.any())
    b_enc, b_dec = autoencoder.biases(subtracted=subtracted)
    arrays = {
        "W_enc": autoencoder.written(autoencoder.encoder.T),
        "W_dec": autoencoder.written(autoencoder.decoder),
        "b_enc": b_enc,
        "b_dec": b_dec,
    }
    config: dict[str, Any] = {
        "d_in": autoencoder.n,
        "d_sae": autoencoder.m,
        "dtype": str(autoencoder.dtype),
        "device": "cpu",
        "apply_b_dec_to_input": subtracted,
        "normalize_activations": "none",
        "reshape_activations": "none",
        # Without a version it would be read as one of before 6, with other defaults.
        "metadata": {
            **metadata,
            "sae_lens_version": VERSION,
            "sae_lens_training_version": None,
            "shoal_version": __version__,
        },
        "architecture": chosen,
    }
    gating = autoencoder.gating
    if chosen in ("topk", "abstopk"):
        config |= {"k": gating.k, "rescale_acts_by_decoder_norm": False}
    elif chosen == "jumprelu":
        assert gating.thresholds is not None
        arrays["threshold"] = autoencoder.written(gating.thresholds)
    elif chosen == "batchtopk":
        assert gating.thresholds is not None
        arrays["topk_threshold"] = np.array(gating.thresholds.max())
        config |= {"k": gating.batch, "rescale_acts_by_decoder_norm": False}
    elif chosen == "matching_pursuit":
        del arrays["W_enc"], arrays["b_enc"]
        config |= {
            "residual_threshold": 0.0,
            "max_iterations": k,
            "stop_on_duplicate_support": True,
        }
        warn(
            "architecture='matching_pursuit': SAELens infers other codes than this model, with at "
            f"most {k} atoms found one by one; W_dec and b_dec are all that is stored"
        )
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    return {"cfg.json": text.encode(), "sae_weights.safetensors": save(arrays, {"format": "pt"})}


def _check_pursuit(autoencoder: Autoencoder) -> None:
    """Refuse what matching pursuit on raw rows can't stand for."""
    if autoencoder.gating.signed:
        needed = "codes >= 0 (model='nonnegative'), or split_signs=True"
        raise ArgumentError("model", "signed codes, which matching_pursuit has not", needed)
    if not autoencoder.unit:
        found = "atoms of other lengths than 1, once preprocessing is folded in"
        needed = "preprocessing 'none' or 'center' for matching_pursuit, whose encoder is W_dec"
        raise ArgumentError("model", found, needed)


# --------------------------------------------------------------------------- reading


def read(folder: Path) -> Autoencoder:
    """The autoencoder in a folder of SAELens."""
    config = read_json(folder / "cfg.json")
    _check_version(config)
    architecture = config.get("architecture")
    known = (*ARCHITECTURES, *_TRAINED[1:])
    if architecture not in known:
        raise wrong(f"the architecture {architecture!r} of SAELens", f"one of {', '.join(known)}")
    for name, usual in (("normalize_activations", ("none", "expected_average_only_in")),
                        ("reshape_activations", ("none", "hook_z"))):  # fmt: skip
        if config.get(name, "none") not in usual:
            needed = f"{' or '.join(map(repr, usual))}: rows that are taken as they are"
            raise wrong(f"{name}={config[name]!r}", needed)
    m, n = number(config, "d_sae"), number(config, "d_in")
    dtype = _DTYPES.get(config.get("dtype", ""))
    if dtype is None:
        raise wrong(f"dtype {config.get('dtype')!r}", ", ".join(list(_DTYPES)[::2]))
    subtracted = _flag(config, "apply_b_dec_to_input", True)
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (n, m), "b_enc": (m,), "W_dec": (m, n)}
    shapes["b_dec"] = (n,)
    if architecture == "jumprelu":
        shapes["threshold"] = (m,)
    if architecture in _TRAINED:
        shapes["topk_threshold"] = ()
    if architecture == "matching_pursuit":
        del shapes["W_enc"], shapes["b_enc"]
    tensors = read_safetensors(folder / "sae_weights.safetensors")
    found, kept = weights(
        tensors, shapes, dtype=dtype, what=f"an SAE of {m} latents, {architecture}"
    )
    decoder, b_dec = found["W_dec"], found["b_dec"]
    if architecture == "matching_pursuit":
        return _pursuit(config, decoder, b_dec, subtracted, kept)
    encoder, bias = found["W_enc"].T, found["b_enc"]
    if architecture not in ("standard", "jumprelu") and _flag(
        config, "rescale_acts_by_decoder_norm", False
    ):  # the k largest as if atoms had length 1: then let them
        lengths = np.linalg.norm(decoder, axis=1)
        encoder, bias = encoder * lengths[:, None], bias * lengths
        decoder = decoder / np.where(lengths > 0, lengths, 1.0)[:, None]
    gating = _gating(architecture, config, found, m)
    none = np.zeros(n)
    mean, offset = (b_dec, none) if subtracted else (none, b_dec)
    return Autoencoder(encoder, bias, decoder, mean, offset, gating, kept)


def _check_version(config: dict[str, Any]) -> None:
    metadata = config.get("metadata")
    version = metadata.get("sae_lens_version") if isinstance(metadata, dict) else None
    version = version or config.get("sae_lens_version")
    match = re.match(r"(\d{1,4})\.", version) if isinstance(version, str) else None
    if match is None or int(match[1]) != 6:
        stated = "no sae_lens_version" if version is None else f"sae_lens_version {version!r}"
        needed = "a folder of SAELens 6 (an older one: load_from_disk and save_model there)"
        raise wrong(f"{stated} in cfg.json", needed)


def _flag(config: dict[str, Any], name: str, usual: bool) -> bool:
    found = config.get(name, usual)
    if not isinstance(found, bool):
        raise wrong(f"{name}={found!r}", "true or false")
    return found


def _gating(architecture: str, config: dict[str, Any], found: dict[str, Any], m: int) -> Gating:
    if architecture in ("topk", "abstopk"):
        return Gating(k=number(config, "k", m), signed=architecture == "abstopk")
    if architecture == "standard":
        return Gating()
    if architecture == "jumprelu":  # rectified as well, so that a threshold below 0 is as 0
        return Gating(thresholds=found["threshold"].clip(min=0.0))
    level = max(0.0, float(found["topk_threshold"]))
    k = config.get("k")
    if not isinstance(k, (int, float)) or isinstance(k, bool) or not 0 < k <= m:
        raise wrong(f"k={k!r}", f"a number of latents per row, up to {m}")
    return Gating(thresholds=np.full(m, level), batch=max(1, round(k)))


def _pursuit(
    config: dict[str, Any], atoms: Any, b_dec: Any, subtracted: bool, kept: np.dtype[Any]
) -> Autoencoder:
    m, n = atoms.shape
    most = config.get("max_iterations")
    k = max(1, round(m / 10)) if most is None else number(config, "max_iterations")
    k = min(k, m)
    warn(
        "a folder of SAELens' matching_pursuit: its codes are other than this model's, whose "
        f"encoder takes the {k} largest; transform(method='omp') comes nearest"
    )
    none = np.zeros(n)  # b_dec is added where it was taken off, and else not at all
    mean = b_dec if subtracted else none
    return Autoencoder(atoms, np.zeros(m), atoms, mean, none, Gating(k=k), kept)

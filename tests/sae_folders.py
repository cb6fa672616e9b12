"""Other packages' forward passes: in plain numpy from their files, and by the packages."""

import importlib
import json

import numpy as np
import torch
from safetensors.numpy import load_file


def relu(z):
    return np.maximum(z, 0)


def largest(z, k, by):
    """z of the k largest of `by` in each row, and 0 elsewhere."""
    kept = np.zeros_like(z)
    chosen = np.argpartition(-by, k - 1, axis=1)[:, :k] if k < z.shape[1] else np.argsort(by)
    np.put_along_axis(kept, chosen, np.take_along_axis(z, chosen, axis=1), axis=1)
    return kept


def saelens(folder, rows):
    """Codes and reconstructions as SAELens 6.54 defines them."""
    config = json.loads((folder / "cfg.json").read_text())
    weights = load_file(folder / "sae_weights.safetensors")
    assert config["metadata"]["sae_lens_version"].startswith("6.")
    rows = rows.astype(config["dtype"])
    b_dec = weights["b_dec"]
    taken = rows - b_dec if config["apply_b_dec_to_input"] else rows
    z = taken @ weights["W_enc"] + weights["b_enc"]
    codes = {
        "topk": lambda: relu(largest(z, config["k"], z)),
        "abstopk": lambda: largest(z, config["k"], np.abs(z)),
        "jumprelu": lambda: relu(z) * (z > weights.get("threshold")),
        "standard": lambda: relu(z),
        "batchtopk": lambda: relu(z) * (z > weights["topk_threshold"]),
    }[config["architecture"]]()
    return codes, codes @ weights["W_dec"] + b_dec


def sparsify(folder, rows):
    """As eai-sparsify 1.3 defines them."""
    config = json.loads((folder / "cfg.json").read_text())
    weights = load_file(folder / "sae.safetensors")
    assert config["activation"] == "topk"
    assert not config.get("transcode")
    z = relu((rows - weights["b_dec"]) @ weights["encoder.weight"].T + weights["encoder.bias"])
    codes = largest(z, config["k"], z)
    return codes, codes @ weights["W_dec"] + weights["b_dec"]


def dictionary_learning(folder, rows):
    """As dictionary-learning 0.1 defines them, in the file's precision."""
    trainer = json.loads((folder / "config.json").read_text())["trainer"]
    state = torch.load(folder / "ae.pt", weights_only=True)
    state = {name: tensor.numpy() for name, tensor in state.items()}
    kind = trainer["dict_class"]
    if kind == "JumpReluAutoEncoder":
        z = rows @ state["W_enc"] + state["b_enc"]
        codes = relu(z * (z > state["threshold"]))
        return codes, codes @ state["W_dec"] + state["b_dec"]
    names = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias"}
    b_dec = state[names.get(kind, "b_dec")]
    if kind == "AutoEncoder":  # loaded with atoms of length 1, unless they nearly have it
        lengths = np.linalg.norm(state["decoder.weight"], axis=0)
        lengths = np.ones_like(lengths) if np.allclose(lengths, 1) else lengths
        state["decoder.weight"] = state["decoder.weight"] / lengths
        state["encoder.weight"] = state["encoder.weight"] * lengths[:, None]
        state["encoder.bias"] = state["encoder.bias"] * lengths
    taken = rows if kind == "AutoEncoderNew" else rows - b_dec
    z = relu(taken @ state["encoder.weight"].T + state["encoder.bias"])
    if kind == "AutoEncoderTopK":
        assert state["k"] == trainer["k"]
        z = largest(z, trainer["k"], z)
    if kind == "BatchTopKSAE":
        z = z * (z > state["threshold"])
    return z, z @ state["decoder.weight"].T + b_dec


FORWARD = {"saelens": saelens, "sparsify": sparsify, "dictionary_learning": dictionary_learning}


# --------------------------------------------------------------------------- the packages

PACKAGES = {
    "saelens": "sae_lens",
    "sparsify": "sparsify.sparse_coder",
    "dictionary_learning": "dictionary_learning.utils",
}


def package_forward(to, folder, rows):
    """Codes and reconstructions by the package itself; ImportError where it isn't installed."""
    module = importlib.import_module(PACKAGES[to])
    data = torch.from_numpy(rows)
    with torch.no_grad():
        if to == "saelens":
            sae = module.SAE.load_from_disk(str(folder))
            codes = sae.encode(data)
            return codes.numpy(), sae.decode(codes).numpy()
        if to == "sparsify":
            coder = module.SparseCoder.load_from_disk(folder)
            values, indices, _ = coder.encode(data)
            codes = torch.zeros(len(data), coder.num_latents, dtype=values.dtype)
            codes.scatter_(1, indices, values)
            return codes.numpy(), (codes @ coder.W_dec + coder.b_dec).numpy()
        sae, _ = module.load_dictionary(str(folder), "cpu")
        codes = sae.encode(data)
        return codes.numpy(), sae.decode(codes).numpy()

"""A folder of another package becomes a model; what is none is refused in one line."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.base import clone

import sae_folders
import shoal

N, M, K = 12, 20, 3


def weights(seed, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)

    def made(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype)

    return {"W_enc": made(N, M), "b_enc": 0.1 * made(M), "W_dec": made(M, N), "b_dec": made(N)}


def saelens(folder, architecture="topk", seed=0, dtype="float32", extra=None, **config):
    """A folder as SAELens writes it."""
    folder.mkdir()
    whole = {
        "d_in": N, "d_sae": M, "dtype": dtype, "device": "cpu", "apply_b_dec_to_input": False,
        "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.0", "hook_name": "blocks.3.hook_resid_post"},
        "architecture": architecture, "k": K, **config,
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(whole))
    save_file({**weights(seed), **(extra or {})}, folder / "sae_weights.safetensors")
    return folder


def sparsify(folder, **config):
    folder.mkdir()
    whole = {"activation": "topk", "num_latents": M, "k": K, "d_in": N, **config}
    (folder / "cfg.json").write_text(json.dumps(whole))
    found = weights(1)
    named = {
        "encoder.weight": found["W_enc"].T.contiguous(), "encoder.bias": found["b_enc"],
        "W_dec": found["W_dec"], "b_dec": found["b_dec"],
    }  # fmt: skip
    save_file(named, folder / "sae.safetensors")
    return folder


def dictionary_learning(folder, kind="AutoEncoderTopK", state=None, **trainer):
    folder.mkdir()
    whole = {"dict_class": kind, "activation_dim": N, "dict_size": M, "k": K, **trainer}
    (folder / "config.json").write_text(json.dumps({"trainer": whole}))
    found = weights(2)
    linear = {"encoder.weight": found["W_enc"].T.contiguous(), "encoder.bias": found["b_enc"],
              "decoder.weight": found["W_dec"].T.contiguous()}  # fmt: skip
    made = {
        "AutoEncoderTopK": {**linear, "b_dec": found["b_dec"], "k": torch.tensor(K),
                            "threshold": torch.tensor(-1.0)},
        "BatchTopKSAE": {**linear, "b_dec": found["b_dec"], "k": torch.tensor(K),
                         "threshold": torch.tensor(0.8)},
        "JumpReluAutoEncoder": {**found, "threshold": torch.linspace(-0.5, 1.0, M)},
        "AutoEncoder": {**linear, "bias": found["b_dec"]},
        "AutoEncoderNew": {**linear, "decoder.bias": found["b_dec"]},
    }  # fmt: skip
    torch.save(made[kind] if state is None else state, folder / "ae.pt")
    return folder


def rows(count=300, dtype="float32"):
    return np.random.default_rng(5).standard_normal((count, N)).astype(dtype)


LEVEL = torch.full((), 0.7, dtype=torch.float64)
MADE = {
    "topk": lambda at: saelens(at),
    "topk, offset taken off": lambda at: saelens(at, apply_b_dec_to_input=True),
    "abstopk": lambda at: saelens(at, "abstopk"),
    "jumprelu": lambda at: saelens(
        at, "jumprelu", extra={"threshold": torch.linspace(-0.5, 1.0, M)}
    ),
    "standard": lambda at: saelens(at, "standard", apply_b_dec_to_input=True),
    "standard, float64": lambda at: saelens(at, "standard", dtype="float64"),
    "batchtopk": lambda at: saelens(
        at, "batchtopk", k=2.5, rescale_acts_by_decoder_norm=False, extra={"topk_threshold": LEVEL}
    ),
    "sparsify": lambda at: sparsify(at),
    "AutoEncoderTopK": lambda at: dictionary_learning(at),
    "BatchTopKSAE": lambda at: dictionary_learning(at, "BatchTopKSAE"),
    "JumpReluAutoEncoder": lambda at: dictionary_learning(at, "JumpReluAutoEncoder"),
    "AutoEncoder": lambda at: dictionary_learning(at, "AutoEncoder"),
    "AutoEncoderNew": lambda at: dictionary_learning(at, "AutoEncoderNew"),
}


def format_of(folder):
    if (folder / "ae.pt").exists():
        return "dictionary_learning"
    return "sparsify" if (folder / "sae.safetensors").exists() else "saelens"


def close(found, expected):
    found, expected = (np.asarray(each, dtype=np.float64) for each in (found, expected))
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("kind", MADE)
def test_an_opened_model_has_the_packages_codes(kind, tmp_path):
    folder = MADE[kind](tmp_path / "sae")
    model, data = shoal.open_sae(folder), rows()
    codes, rebuilt = sae_folders.FORWARD[format_of(folder)](folder, data)
    close(model.transform(data), codes)
    close(model.inverse_transform(model.transform(data)), rebuilt)
    assert model.score(data) == pytest.approx(1 - _unexplained(data, rebuilt), rel=1e-4)


def _unexplained(data, rebuilt):
    return ((data - rebuilt) ** 2).sum() / ((data - data.mean(axis=0)) ** 2).sum()


@pytest.mark.parametrize("kind", ["topk", "abstopk", "jumprelu", "batchtopk", "standard"])
def test_it_is_saved_as_a_run_and_exported_again(kind, tmp_path):
    model, data = shoal.open_sae(MADE[kind](tmp_path / "sae")), rows()
    expected = model.transform(data)
    again = shoal.load_run(shoal.save_run(model, tmp_path / "run", data))
    np.testing.assert_array_equal(again.transform(data), expected)
    folder = shoal.export(again, tmp_path / "out", "saelens")
    close(sae_folders.saelens(folder, data)[0], expected)
    np.testing.assert_array_equal(shoal.open_sae(folder).transform(data), expected)


@pytest.mark.parametrize("kind", MADE)
def test_it_goes_on_with_its_weights_or_from_its_atoms(kind, tmp_path):
    model, data = shoal.open_sae(MADE[kind](tmp_path / "sae")), rows(1000)
    before = model.diagnose(data).mse
    for _ in range(5):
        model.partial_fit(data)
    assert model.diagnose(data).mse < before
    fresh = clone(shoal.open_sae(tmp_path / "sae")).set_params(n_nonzero_coefs=K)
    np.testing.assert_array_equal(fresh.init, shoal.open_sae(tmp_path / "sae").components_)
    next(fresh.iter_fit(data))


def test_matryoshka_prefixes_are_all_active_at_rest(tmp_path):
    found = weights(2)
    state = {**found, "k": torch.tensor(K), "threshold": torch.tensor(0.8)}
    state["group_sizes"] = torch.tensor([4, M - 4])
    folder = dictionary_learning(tmp_path / "sae", "MatryoshkaBatchTopKSAE", state)
    z = (rows() - found["b_dec"].numpy()) @ found["W_enc"].numpy() + found["b_enc"].numpy()
    close(shoal.open_sae(folder).transform(rows()), z * (z > 0.8))


def test_the_k_largest_as_if_atoms_had_length_one(tmp_path):
    plain = saelens(tmp_path / "plain")
    found = load_file(plain / "sae_weights.safetensors")
    lengths = found["W_dec"].norm(dim=1)
    scaled = saelens(tmp_path / "scaled", rescale_acts_by_decoder_norm=True)
    z = torch.from_numpy(rows()) @ found["W_enc"] + found["b_enc"]
    expected = sae_folders.relu(sae_folders.largest(z := (z * lengths).numpy(), K, z))
    model = shoal.open_sae(scaled)
    close(model.transform(rows()), expected)
    assert np.allclose(np.linalg.norm(model.components_, axis=1), 1)


@pytest.mark.filterwarnings("ignore:the encoder .tied. explains:UserWarning")
def test_a_planted_dictionary_goes_there_and_comes_back_to_be_polished(tmp_path):
    """With tied weights and unit atoms it is a model like any other."""
    from shoal.generative import SparseCoding, random_dictionary

    world = SparseCoding(random_dictionary(16, 12, random_state=0), sparsity=2)
    data = world.sample(2000, random_state=1).data
    model = shoal.DictionaryAutoencoder(16, 2, encoder="tied", random_state=0).fit(data)
    again = shoal.open_sae(shoal.export(model, tmp_path / "sae", "saelens"))
    assert again.recipe_.polish is not None
    assert shoal.recovery(again.components_, world.dictionary).recovered(0.99) == 1.0
    assert again.score(data, "pursuit") == pytest.approx(model.score(data, "pursuit"), abs=1e-6)
    assert shoal.recovery(again.fit(data).components_, world.dictionary).recovered(0.99) == 1.0


# --------------------------------------------------------------------------- what is refused


def edited(folder, name, change):
    """`folder` with its configuration changed in place."""
    config = json.loads((folder / name).read_text())
    change(config)
    (folder / name).write_text(json.dumps(config))
    return folder


def cut(folder, name, share=0.5):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(share * len(data))])
    return folder


def with_tensors(folder, **changed):
    file = folder / "sae_weights.safetensors"
    found = {**load_file(file), **changed}
    save_file({name: each for name, each in found.items() if each is not None}, file)
    return folder


class Runs:
    def __reduce__(self):
        return os.system, ("touch RAN",)


def zipped(folder, pickled, compression=zipfile.ZIP_STORED, more=()):
    with zipfile.ZipFile(folder / "ae.pt", "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        for name, data in more:
            archive.writestr(name, data)
    return folder


def dictionary(tmp, **trainer):
    return dictionary_learning(tmp / "sae", **trainer)


def emptied(folder, *names):
    for name in names:
        (folder / name).unlink()
    return folder


def linked(folder):
    """A pipe in the place of the weights: to read it would never end."""
    (folder / "sae_weights.safetensors").unlink()
    os.mkfifo(folder / "sae_weights.safetensors")
    return folder


def stretched(folder):
    """Four bytes that claim to be a matrix."""
    found = torch.load(folder / "ae.pt", weights_only=True)
    found["encoder.weight"] = torch.zeros(1).expand(10**12, N)
    torch.save(found, folder / "ae.pt")
    return folder


def typed(folder):
    file = folder / "sae_weights.safetensors"
    raw = file.read_bytes()
    file.write_bytes((2**40).to_bytes(8, "little") + raw[8:])
    return folder


REFUSED = {
    "nothing": (lambda tmp: tmp / "none", "nothing at"),
    "a file": (lambda tmp: (tmp / "file").write_text("") or tmp / "file", "a file at"),
    "an empty folder": (lambda tmp: tmp, "none of these files"),
    "a run": (lambda tmp: emptied_run(tmp), "shoal.load_run"),
    "weights alone": (
        lambda tmp: emptied(saelens(tmp / "sae"), "cfg.json"), "sae_weights.safetensors alone",
    ),
    "a version of before 6": (
        lambda tmp: edited(
            saelens(tmp / "sae"), "cfg.json",
            lambda config: config["metadata"].update(sae_lens_version="5.11.0"),
        ),
        "'5.11.0'.*needed a folder of SAELens 6",
    ),
    "a version to come": (
        lambda tmp: saelens(tmp / "sae", metadata={"sae_lens_version": "7.0.0"}), "'7.0.0'",
    ),
    "no version": (lambda tmp: saelens(tmp / "sae", metadata={}), "no sae_lens_version"),
    "a gated one": (lambda tmp: saelens(tmp / "sae", "gated"), "'gated' of SAELens.*'?topk"),
    "a transcoder": (lambda tmp: saelens(tmp / "sae", "transcoder"), "'transcoder'"),
    "normalised rows": (
        lambda tmp: saelens(tmp / "sae", normalize_activations="layer_norm"), "layer_norm",
    ),
    "another type": (lambda tmp: saelens(tmp / "sae", dtype="int8"), "dtype 'int8'"),
    "too large a k": (lambda tmp: saelens(tmp / "sae", k=M + 1), f"k: found {M + 1}"),
    "a k in words": (lambda tmp: saelens(tmp / "sae", k="3"), "k: found '3'"),
    "other sizes": (lambda tmp: saelens(tmp / "sae", d_sae=M + 1), "W_enc of shape"),
    "sizes beyond memory": (lambda tmp: saelens(tmp / "sae", d_sae=10**15), "W_enc of shape"),
    "a tensor too few": (
        lambda tmp: with_tensors(saelens(tmp / "sae"), b_enc=None), "no b_enc in an SAE",
    ),
    "a tensor too many": (
        lambda tmp: with_tensors(saelens(tmp / "sae"), scaling_factor=torch.ones(M)),
        "scaling_factor beside the weights",
    ),
    "NaN": (
        lambda tmp: with_tensors(saelens(tmp / "sae"), b_dec=torch.full((N,), torch.nan)), "NaN",
    ),
    "whole numbers": (
        lambda tmp: with_tensors(saelens(tmp / "sae"), b_dec=torch.ones(N, dtype=torch.int64)),
        "floating-point",
    ),
    "weights cut short": (
        lambda tmp: cut(saelens(tmp / "sae"), "sae_weights.safetensors"), "can't be read",
    ),
    "an endless header": (lambda tmp: typed(saelens(tmp / "sae")), "a header of"),
    "a configuration cut short": (lambda tmp: cut(saelens(tmp / "sae"), "cfg.json"), "JSON"),
    "a deep configuration": (
        lambda tmp: (saelens(tmp / "sae") / "cfg.json").write_text("[" * 10**5) and tmp / "sae",
        "JSON",
    ),
    "a list": (
        lambda tmp: (saelens(tmp / "sae") / "cfg.json").write_text("[]") and tmp / "sae", "a list",
    ),
    "a pipe": (lambda tmp: linked(saelens(tmp / "sae")), "FIFO"),
    "groups": (lambda tmp: sparsify(tmp / "sae", activation="groupmax"), "'groupmax'"),
    "a transcoder of sparsify": (lambda tmp: sparsify(tmp / "sae", transcode=True), "transcode"),
    "signed latents of sparsify": (lambda tmp: sparsify(tmp / "sae", signed=True), "signed"),
    "a skip": (lambda tmp: sparsify(tmp / "sae", skip_connection=True), "skip_connection"),
    "another class": (
        lambda tmp: edited(
            dictionary(tmp), "config.json",
            lambda config: config["trainer"].update(dict_class="GatedAutoEncoder"),
        ),
        "'GatedAutoEncoder'.*AutoEncoderTopK",
    ),
    "a pickle that runs": (
        lambda tmp: (dictionary(tmp) / "ae.pt").write_bytes(pickle.dumps(Runs())) and tmp / "sae",
        "no zip",
    ),
    "a zipped pickle that runs": (
        lambda tmp: zipped(dictionary(tmp), pickle.dumps(Runs(), protocol=2)), "a reference to",
    ),
    "the same, in new words": (
        lambda tmp: zipped(dictionary(tmp), pickle.dumps(Runs(), protocol=4)), "a reference to",
    ),
    "memory asked for": (
        lambda tmp: zipped(dictionary(tmp), b"cbuiltins\nbytearray\n(I9000000000000\ntR."),
        "bytearray",
    ),
    "a packed bomb": (
        lambda tmp: zipped(
            dictionary(tmp), b"N.", zipfile.ZIP_DEFLATED, [("archive/data/0", bytes(10**7))]
        ),
        "packed",
    ),
    "no tensors": (lambda tmp: zipped(dictionary(tmp), b"\x80\x02]q\x00."), "a list"),
    "a state of other things": (
        lambda tmp: dictionary_learning(tmp / "sae", state={"encoder.weight": "much"}), "no plain",
    ),
    "a state cut short": (lambda tmp: cut(dictionary(tmp), "ae.pt", 0.9), "can't be read"),
    "a stretched tensor": (lambda tmp: stretched(dictionary(tmp)), "what it holds"),
}  # fmt: skip


def emptied_run(tmp):
    run = tmp / "run"
    run.mkdir()
    for name in ("config.json", "dictionary.safetensors"):
        (run / name).write_text("{}")
    return run


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_opened_says_what_was_found_and_what_would_do(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, said = REFUSED[case]
    with pytest.raises(shoal.ArgumentError, match=said) as caught:
        shoal.open_sae(make(tmp_path))
    assert "\n" not in str(caught.value)
    assert "needed" in str(caught.value)
    assert not (tmp_path / "RAN").exists()


def opened(folder):
    """Whether it is; the error's one line where not."""
    try:
        shoal.open_sae(folder)
    except shoal.ArgumentError as error:
        return str(error)
    return "opened"


@pytest.mark.parametrize("name", ["sae_weights.safetensors", "ae.pt"])
def test_weights_with_changed_bytes_are_opened_or_refused_in_one_line(name, tmp_path):
    at = tmp_path / "sae"
    folder = dictionary_learning(at) if name == "ae.pt" else saelens(at)
    rng, whole = np.random.default_rng(0), (folder / name).read_bytes()
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 1500), 3):
            damaged[place] = rng.integers(256)
        (folder / name).write_bytes(damaged)
        assert "\n" not in opened(folder)

"""A model that is exported has the same codes and reconstructions there, and comes back."""

import functools
import json
import os
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.exceptions import NotFittedError
from typer.testing import CliRunner

import sae_folders
import shoal
from shoal.cli import app
from shoal.cli.ecosystem import To
from shoal.ecosystem import FORMATS
from shoal.generative import SparseCoding, random_dictionary
from shoal.network.activations import BatchTopK, HardThreshold, JumpReLU, ReLU, Sigmoid, TopK
from shoal.training import Adam, Constant, NormalizedStep, Recipe

# What `fit` says of rows that nothing is taken off.
pytestmark = pytest.mark.filterwarnings("ignore:The mean of X")

N, M, K = 24, 40, 4
ROWS = 100_000 if os.environ.get("SHOAL_ECOSYSTEM") else 1_500
PREPROCESSINGS = ("none", "center", "scale", "whiten")
TARGETS = ("saelens", "sparsify", "dictionary_learning")

WITH_K = {"topk": TopK(K, signed=False), "abstopk": TopK(K)}
ACTIVATIONS = {
    **WITH_K,
    "jumprelu": JumpReLU(window=0.2, start=0.3),
    "batchtopk": BatchTopK(K),
    "threshold": HardThreshold(0.5, signed=False),
    "standard": ReLU(),
}
KINDS = ("tied", "signed", *ACTIVATIONS)


@functools.cache
def data(dtype):
    """Rows with a mean, and features of different spread: what preprocessing is for."""
    world = SparseCoding(random_dictionary(M, N, random_state=0), sparsity=K, noise=0.05)
    rows = world.sample(ROWS, random_state=1).data
    rng = np.random.default_rng(2)
    return (rows * rng.uniform(0.5, 2.0, N) + rng.standard_normal(N)).astype(dtype)


@functools.cache
def model(kind, dtype, preprocessing):
    """Tied with codes by the k largest, or a short descent of encoder, offset and thresholds."""
    rows = data(dtype)[:1500]
    if kind in ("tied", "signed"):
        law = "nonnegative" if kind == "tied" else "sparse"
        rule = NormalizedStep(Constant(0.3))
        recipe = Recipe(TopK(K, signed=kind == "signed"), rule, 12, 256)
    else:
        law = "sparse" if kind == "abstopk" else "nonnegative"
        rule, untied = Adam(Constant(0.01)), kind != "threshold"
        recipe = Recipe(ACTIVATIONS[kind], rule, 40, 256, untied=untied, offset=True)
    return shoal.DictionaryAutoencoder(
        M, K, model=law, recipe=recipe, preprocessing=preprocessing, random_state=0
    ).fit(rows)


def can(kind, to):
    """Whether the format has such codes."""
    signed = kind in ("signed", "abstopk")
    with_k = kind in ("tied", "topk", "signed", "abstopk")
    return to == "saelens" or (not signed and (with_k or to == "dictionary_learning"))


CASES = [
    (kind, to, dtype, preprocessing)
    for kind in KINDS
    for to in TARGETS
    for dtype in ("float32", "float64")
    for preprocessing in PREPROCESSINGS
    if can(kind, to)
]


def own(fitted, rows):
    codes = fitted.transform(rows)
    return codes, fitted.inverse_transform(codes.astype(np.float64))  # undone without rounding


def agree(found, expected, dtype):
    """The same supports, and values to 1e-6 of the largest; in float32 up to its rounding."""
    wide = dtype == "float64"
    apart = ((found[0] != 0) != (expected[0] != 0)).any(axis=1)
    # A tie in one order of adding may be none in another.
    assert apart.mean() <= (0 if wide else 1e-4)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        tolerance = (1e-6 if wide else 2e-6) * np.abs(other).max()
        np.testing.assert_allclose(one[~apart], other[~apart], atol=tolerance, rtol=0)


@pytest.mark.parametrize(("kind", "to", "dtype", "preprocessing"), CASES)
def test_the_format_has_the_models_codes_and_reconstructions(
    kind, to, dtype, preprocessing, tmp_path
):
    fitted, rows = model(kind, dtype, preprocessing), data(dtype)
    folder = shoal.export(fitted, tmp_path / "sae", to)
    expected = own(fitted, rows)
    agree(sae_folders.FORWARD[to](folder, rows), expected, dtype)
    agree(own(shoal.open_sae(folder), rows), expected, dtype)


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_package_itself_agrees(kind, to, dtype, tmp_path):
    pytest.importorskip(sae_folders.PACKAGES[to].partition(".")[0])
    if not can(kind, to):
        pytest.skip("the format has no such codes")
    rows = data(dtype)
    for preprocessing in PREPROCESSINGS:
        fitted = model(kind, dtype, preprocessing)
        folder = shoal.export(fitted, tmp_path / preprocessing, to)
        # dictionary_learning loads all into float32.
        narrow = "float32" if to == "dictionary_learning" else dtype
        found = sae_folders.package_forward(to, folder, rows.astype(narrow))
        agree(found, own(fitted, rows), narrow)


@pytest.mark.parametrize("to", ["sparsify", "dictionary_learning"])
@pytest.mark.parametrize("preprocessing", ["none", "whiten"])
def test_signs_are_split_into_two_latents_per_atom(to, preprocessing, tmp_path):
    fitted, rows = model("signed", "float64", preprocessing), data("float64")
    folder = shoal.export(fitted, tmp_path / "sae", to, split_signs=True)
    codes, rebuilt = sae_folders.FORWARD[to](folder, rows)
    assert codes.shape == (len(rows), 2 * M)
    expected = own(fitted, rows)
    agree((codes[:, :M] - codes[:, M:], rebuilt), expected, "float64")


def test_a_batch_wise_model_is_also_a_checkpoint_of_its_training(tmp_path):
    fitted, rows = model("batchtopk", "float32", "center"), data("float32")
    folder = shoal.export(fitted, tmp_path / "sae", "saelens", architecture="batchtopk")
    agree(sae_folders.saelens(folder, rows), own(fitted, rows), "float32")
    again = shoal.open_sae(folder)
    assert again.recipe_.activation == BatchTopK(K)
    agree(own(again, rows), own(fitted, rows), "float32")


def test_matching_pursuit_stores_the_atoms_alone_and_says_so(tmp_path):
    fitted, rows = model("tied", "float32", "center"), data("float32")
    with pytest.warns(UserWarning, match="other codes than this model"):
        folder = shoal.export(fitted, tmp_path / "sae", "saelens", architecture="matching_pursuit")
    assert set(load_file(folder / "sae_weights.safetensors")) == {"W_dec", "b_dec"}
    with pytest.warns(UserWarning, match="its codes are other than this model's"):
        again = shoal.open_sae(folder)
    np.testing.assert_array_equal(again.components_, fitted.components_)
    agree(own(again, rows), own(fitted, rows), "float32")


def test_the_version_is_there_and_tied_weights_are_stored_apart(tmp_path):
    fitted = model("tied", "float32", "center")
    folder = shoal.export(fitted, tmp_path / "sae", "saelens", metadata={"hook_name": "blocks.3"})
    config = json.loads((folder / "cfg.json").read_text())
    assert config["metadata"]["sae_lens_version"].startswith("6.54")
    assert config["metadata"]["hook_name"] == "blocks.3"
    weights = load_file(folder / "sae_weights.safetensors")
    assert weights["W_enc"].shape == (N, M)
    np.testing.assert_array_equal(weights["W_enc"], weights["W_dec"].T)
    state = torch.load(
        shoal.export(fitted, tmp_path / "dl", "dictionary_learning") / "ae.pt", weights_only=True
    )
    assert len({each.untyped_storage().data_ptr() for each in state.values()}) == len(state)


def test_a_regularized_autoencoder_is_a_standard_one(tmp_path):
    rows = data("float32")
    fitted = shoal.RegularizedAutoencoder(
        20, "l1", 0.1, n_epochs=2, decoder_bias=True, weight_length="free", random_state=0
    ).fit(rows[:500])
    for to in ("saelens", "dictionary_learning"):
        folder = shoal.export(fitted, tmp_path / to, to)
        agree(sae_folders.FORWARD[to](folder, rows), own(fitted, rows), "float32")


# --------------------------------------------------------------------------- what is refused


def fitted_to(activation, **arguments):
    recipe = Recipe(activation, Adam(Constant(0.01)), 2, 64)
    given = {"preprocessing": "none", "random_state": 0, **arguments}
    return shoal.DictionaryAutoencoder(8, 2, recipe=recipe, **given).fit(data("float32")[:200])


REFUSED = {
    "signed codes, sparsify": (lambda: fitted_to(TopK(2)), "sparsify", {}, "split_signs=True"),
    "signed codes, dictionary_learning": (
        lambda: fitted_to(TopK(2)), "dictionary_learning", {}, "signed codes",
    ),
    "thresholds, sparsify": (lambda: fitted_to(JumpReLU()), "sparsify", {}, "the k largest"),
    "signed thresholds": (
        lambda: fitted_to(HardThreshold(0.1)), "saelens", {}, "by magnitude, with signs",
    ),
    "smooth codes": (lambda: fitted_to(Sigmoid()), "saelens", {}, "codes by Sigmoid"),
    "rows scaled each by itself": (
        lambda: fitted_to(TopK(2), preprocessing="samples"), "saelens", {}, "'samples'",
    ),
    "another architecture": (
        lambda: fitted_to(TopK(2)), "saelens", {"architecture": "jumprelu"}, "'abstopk'",
    ),
    "an unknown architecture": (
        lambda: fitted_to(TopK(2)), "saelens", {"architecture": "gated"}, "one of 'topk'",
    ),
    "signed pursuit": (
        lambda: fitted_to(TopK(2)), "saelens", {"architecture": "matching_pursuit"}, "signed codes",
    ),
    "a pursuit of folded atoms": (
        lambda: fitted_to(TopK(2, signed=False), preprocessing="whiten"),
        "saelens", {"architecture": "matching_pursuit"}, "lengths than 1",
    ),
    "an unknown format": (lambda: fitted_to(TopK(2)), "onnx", {}, "one of 'saelens'"),
    "no plain metadata": (
        lambda: fitted_to(TopK(2)), "saelens", {"metadata": {"a": {1}}}, "no plain values",
    ),
    "no model": (lambda: "model", "saelens", {}, "a str; needed a fitted"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_format_cannot_express_is_refused_before_anything_is_written(case, tmp_path):
    make, to, options, said = REFUSED[case]
    fitted = make()
    with pytest.raises(shoal.ArgumentError, match=said) as caught:
        shoal.export(fitted, tmp_path / "new" / "sae", to, **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unfitted_model_is_refused(tmp_path):
    with pytest.raises(NotFittedError):
        shoal.export(shoal.DictionaryAutoencoder(4, 1), tmp_path / "sae", "saelens")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_when_asked_and_only_where_it_is_one(tmp_path):
    fitted = model("tied", "float32", "none")
    folder = shoal.export(fitted, tmp_path / "sae", "saelens")
    with pytest.raises(shoal.RunError, match="exists already"):
        shoal.export(fitted, folder, "saelens")
    shoal.export(fitted, folder, "saelens", overwrite=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(shoal.RunError, match=r"notes\.txt"):
        shoal.export(fitted, folder, "saelens", overwrite=True)
    assert sorted(each.name for each in folder.iterdir())[0] == "cfg.json"


# --------------------------------------------------------------------------- the command


def test_the_command_exports_a_run(tmp_path):
    rows, fitted = data("float32"), model("signed", "float32", "whiten")
    run = shoal.save_run(fitted, tmp_path / "run", rows[:300])
    typed = ["export", str(run), "--to", "saelens", "-o", str(tmp_path / "sae")]
    made = CliRunner().invoke(app, [*typed, "--metadata", "hook_name=blocks.0"])
    assert made.exit_code == 0, made.output
    agree(sae_folders.saelens(tmp_path / "sae", rows), own(fitted, rows), "float32")
    assert "blocks.0" in (tmp_path / "sae" / "cfg.json").read_text()
    again = CliRunner().invoke(app, typed)
    assert again.exit_code == 2
    refused = CliRunner().invoke(app, ["export", str(run), "--to", "sparsify", "-o", "new"])
    assert refused.exit_code == 2
    assert "signed codes" in refused.output
    assert set(get_args(To)) == set(FORMATS)

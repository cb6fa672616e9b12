"""Autoencoders that a penalty makes sparse: the estimator, its files, its sweep, its commands."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import shoal
from commands import done, refused
from run_folders import resealed
from shoal import ArgumentError, Preprocessing, RegularizedAutoencoder
from shoal.network.activations import ACTIVATIONS, Maxout, TopK
from shoal.network.penalties import (
    L1,
    PENALTIES,
    Contractive,
    Denoising,
    KLSparse,
    Marginalized,
    MeanActivation,
    SlopePenalty,
)
from shoal.parts import register
from shoal.sweeps import run_sweep, strengths_of
from shoal.training import MomentumSettings

DIGITS = load_digits().data[:300].astype(np.float32) / 16


def autoencoder(**changes):
    return RegularizedAutoencoder(
        **{"n_components": 24, "n_epochs": 3, "random_state": 0, **changes}
    )


@pytest.fixture(scope="module")
def fitted():
    return autoencoder(penalty="dae", strength=0.5).fit(DIGITS)


# ------------------------------------------------------------------ the estimator


@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks():
    check_estimator(RegularizedAutoencoder(n_epochs=2))


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_penalty_with_every_activation(penalty, activation):
    model = autoencoder(penalty=penalty, activation=activation, strength=0.1).fit(DIGITS)
    codes = model.transform(DIGITS)
    assert codes.shape == (300, 24)
    assert np.isfinite(codes).all()
    np.testing.assert_allclose(np.linalg.norm(model.components_, axis=1), 1, atol=1e-5)
    assert 0 <= model.activation_fraction_ <= 1
    assert len(model.history_) == 3
    assert model.history_[-1]["loss"] < model.history_[0]["loss"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_said_of_the_units_is_what_they_do(activation):
    model = autoencoder(activation=activation, strength=1.0, n_epochs=10).fit(DIGITS)
    on = model.transform(DIGITS) > model.activation_.delta_min
    assert model.activation_fraction_ == pytest.approx(on.mean(), abs=1e-6)
    assert model.dead_fraction_ == pytest.approx(1 - on.any(axis=0).mean())


def test_denoising_makes_relu_units_sparse_and_contraction_does_not():
    spec = Preprocessing("scale", added=0.1)

    def share(penalty, strength):
        model = autoencoder(penalty=penalty, strength=strength, n_epochs=60, preprocessing=spec)
        return model.fit(DIGITS).activation_fraction_

    plain = share("none", 0.0)
    assert share("dae", 1.0) < 0.6 * plain
    assert share("cae", 1.0) == pytest.approx(plain, rel=0.15)


def test_transform_is_the_encoder_and_back(fitted):
    prepared = fitted.preprocessing_.apply(DIGITS)
    codes = np.maximum(prepared @ fitted.components_.T + fitted.bias_, 0)
    np.testing.assert_allclose(fitted.transform(DIGITS), codes, atol=1e-4)
    rebuilt = fitted.preprocessing_.undo(codes @ fitted.components_)
    np.testing.assert_allclose(fitted.inverse_transform(codes), rebuilt, atol=1e-4)
    sparse_codes = clone(fitted).set_params(sparse_output=True).fit(DIGITS).transform(DIGITS)
    assert isinstance(sparse_codes, sparse.csr_array)
    np.testing.assert_allclose(sparse_codes.toarray(), codes, atol=1e-4)
    with pytest.raises(ArgumentError, match=r"^method: found 'pursuit'; needed one of 'encoder'"):
        fitted.transform(DIGITS, "pursuit")


def test_the_same_seed_gives_the_same_bits_and_epochs_can_be_watched(fitted):
    again = autoencoder(penalty="dae", strength=0.5)
    epochs = list(again.iter_fit(DIGITS))
    assert [each.number for each in epochs] == [1, 2, 3]
    assert [each.steps for each in epochs] == [6, 12, 18]
    np.testing.assert_array_equal(again.components_, fitted.components_)
    np.testing.assert_array_equal(again.components_, epochs[-1].parameters.dictionary.numpy())
    other = autoencoder(penalty="dae", strength=0.5, random_state=1).fit(DIGITS)
    assert (other.components_ != fitted.components_).any()


def test_penalties_and_activations_may_be_objects():
    model = autoencoder(penalty=Denoising(0.3, 2, True), activation=Maxout(3)).fit(DIGITS)
    assert model.penalty_ == Denoising(0.3, 2, True)
    assert ((model.transform(DIGITS) != 0).sum(axis=1) == 8).all()


def test_it_works_in_a_pipeline():
    labels = load_digits().target[:300]
    model = make_pipeline(autoencoder(n_epochs=10), LogisticRegression(max_iter=1000))
    assert model.fit(DIGITS, labels).score(DIGITS, labels) > 0.9


BAD = {
    "penalty": {"penalty": "lasso"},
    "strength": {"strength": -1.0},
    "activation": {"activation": "step"},
    "weight_length": {"weight_length": "short"},
    "learning_rate": {"learning_rate": 0.0},
    "momentum": {"momentum": 1.0},
    "batch_size": {"batch_size": 0},
    "n_epochs": {"n_epochs": 0},
    "n_components": {"n_components": 0},
    "tangent": {"tangent": True, "weight_length": "free"},
    "weight_decay": {"weight_decay": -0.1},
    "preprocessing": {"preprocessing": "squeeze"},
    "device": {"device": "abacus"},
    "random_state": {"random_state": "x"},
    "sparse_output": {"sparse_output": 2},
    "penalty_options": {"penalty_options": {"draw": 3}},
    "encoder_bias": {"encoder_bias": "no"},
    "decoder_bias": {"decoder_bias": 1},
    "variances": {"penalty_options": {"variances": [1.0, 2.0]}},
    "noise": {"penalty_options": {"noise": "salt"}},
    "f": {"penalty": "mean", "penalty_options": {"f": "cube"}},
    "q": {"penalty": "slope", "penalty_options": {"q": 0}},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named_before_any_work(name, monkeypatch):
    monkeypatch.setattr("shoal.estimators.regularized.passing", None)
    with pytest.raises(ArgumentError, match=rf"^{name}: found "):
        autoencoder(**BAD[name]).iter_fit(DIGITS)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"activation": TopK(3), "penalty": "cae"}, "^activation: found TopK"),
        ({"penalty": 3}, "^penalty: found 3"),
        ({"penalty": Contractive(1.0, kink=0.1), "activation": "sigmoid"}, "^penalty: found kink"),
        ({"activation": "maxout", "n_components": 5}, "^n_components: found 5"),
        ({"penalty_options": ["draws"]}, "^penalty_options: found .*a dict"),
        (
            {"penalty": Denoising(0.1), "penalty_options": {"draws": 3}},
            "^penalty_options: found {'draws': 3}; needed none with a penalty that is no name",
        ),
    ],
)
def test_objects_that_do_not_fit(changes, text):
    with pytest.raises(ArgumentError, match=text):
        autoencoder(**changes).iter_fit(DIGITS)


def test_a_stream_and_a_divergence_are_named():
    with pytest.raises(ArgumentError, match=r"^X: found a stream"):
        autoencoder().fit(iter([DIGITS]))
    with pytest.raises(ArgumentError, match=r"^learning_rate: found 10, with which epoch 1"):
        autoencoder(learning_rate=10.0, weight_length="free").fit(DIGITS)


# ------------------------------------------------------------------ units without a penalty


def test_units_that_the_sparse_penalty_cannot_reach_are_counted_and_said(tmp_path):
    loud = autoencoder(penalty="sae", strength=1.0, preprocessing="center")
    with pytest.warns(UserWarning, match=r"of 24 units have a mean code of 0\.99 or more") as noted:
        loud.fit(16 * DIGITS)
    assert len(noted) == 1
    means = loud.transform(16 * DIGITS).mean(axis=0)
    assert 0 < loud.saturated_units_ == (means >= 0.99).sum()
    run = shoal.save_run(loud, tmp_path / "run", 16 * DIGITS)
    said = f"{loud.saturated_units_}\N{NO-BREAK SPACE}units of 24 without a penalty"
    assert said in (run / "report.html").read_text()
    usage = json.loads((run / "config.json").read_text())["usage"]
    assert usage["saturated_units"] == loud.saturated_units_
    assert "saturated units" in done("info", run).stdout
    # Neither of codes below 1, nor of what acts on all, nor without strength.
    for changes in (
        {"penalty": "sae", "activation": "sigmoid"},
        {"penalty": "l1"},
        {"penalty": "mean"},
        {"penalty": "sae", "strength": 0.0},
    ):
        model = autoencoder(**{"preprocessing": "center", "strength": 1.0, **changes})
        assert model.fit(16 * DIGITS).saturated_units_ == 0


def test_a_sweep_says_where_units_had_no_penalty(tmp_path):
    changes = {"penalties": ["sae", "l1"], "preprocessing": Preprocessing("center")}
    _, result = to_the_end(run_sweep(16 * DIGITS, tmp_path / "out", **SWEEP | changes))
    (note,) = result["notes"]
    assert note.startswith("sae, relu, strength 1: ")
    assert "of 6 units had no penalty" in note
    assert "had no penalty" in (tmp_path / "out" / "index.html").read_text()
    _, scaled = to_the_end(run_sweep(DIGITS, tmp_path / "scaled", **SWEEP))
    assert scaled["notes"] == []


def test_the_held_mean_is_said_of_every_penalty_that_holds_one():
    changes = {"penalty": "mean", "penalty_options": {"f": "kl"}, "preprocessing": "center"}
    with pytest.warns(UserWarning, match="MeanActivation"):
        assert autoencoder(**changes).fit(16 * DIGITS).saturated_units_ > 0


# ------------------------------------------------------------------ biases, noise, families


def test_without_an_encoder_bias_no_mean_preactivation_moves():
    model = autoencoder(encoder_bias=False, strength=1.0, n_epochs=10).fit(DIGITS)
    assert (model.bias_ == 0).all()
    prepared = model.preprocessing_.apply(DIGITS).astype(np.float64)
    assert np.abs((prepared @ model.components_.T).mean(axis=0)).max() < 1e-5  # eq. (3)
    other = autoencoder(strength=1.0, n_epochs=10).fit(DIGITS)
    assert (other.bias_ != 0).all()


def test_a_decoder_bias_finds_the_mean_and_is_used(tmp_path):
    rows = DIGITS + 2.0
    settings = {"preprocessing": "none", "penalty": "none", "n_epochs": 40}
    settings |= {"activation": "tanh", "n_components": 4}
    model = autoencoder(decoder_bias=True, learning_rate=0.005, **settings).fit(rows)
    plain = autoencoder(learning_rate=0.005, **settings).fit(rows)
    assert plain.offset_ is None
    assert model.offset_.shape == (64,)
    assert model.history_[-1]["loss"] < 0.2 * plain.history_[-1]["loss"]
    codes = model.transform(rows)
    expected = codes @ model.components_ + model.offset_
    np.testing.assert_allclose(model.inverse_transform(codes), expected, rtol=1e-5)
    *_, rebuilt = next(model.iter_coded(rows))
    np.testing.assert_allclose(rebuilt, expected, rtol=1e-5)
    assert model.inverse_transform(codes).dtype == rows.dtype
    again = shoal.load_run(shoal.save_run(model, tmp_path / "run", rows))
    np.testing.assert_array_equal(again.offset_, model.offset_)
    np.testing.assert_array_equal(again.inverse_transform(codes), model.inverse_transform(codes))


@register("penalty")
class NoDecoder(Contractive):
    """A penalty that knows of no decoder bias."""

    def __call__(self, parameters, data, activation, generator=None):
        return super().__call__(parameters, data, activation, generator)._replace(offset=None)


@pytest.mark.filterwarnings("ignore:penalty")
def test_a_penalty_that_knows_no_decoder_bias_is_named():
    with pytest.raises(ArgumentError, match=r"^penalty: found NoDecoder.*Terms\.offset"):
        autoencoder(penalty=NoDecoder(0.1), decoder_bias=True).fit(DIGITS)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dae", {"noise": "masking"}, Denoising(0.25, noise="masking")),
        ("dae", {"variances": np.arange(64.0)}, Denoising(0.25, variances=range(64))),
        ("mdae", {"variances": np.arange(64.0)}, Marginalized(0.25, variances=range(64))),
        ("sae", {"rho": 0.05}, KLSparse(0.25, 0.05)),
        ("mean", {"f": "log"}, MeanActivation(0.25, "log")),
        ("slope", {"q": 1, "p": 0}, SlopePenalty(0.25, 1, 0)),
    ],
    ids=str,
)
def test_options_by_name_are_used_and_saved(tmp_path, name, options, expected):
    model = autoencoder(
        penalty=name, penalty_options=options, activation="sigmoid", encoder_bias=False
    )
    assert clone(model).fit(DIGITS).penalty_ == expected
    run = shoal.save_run(model.fit(DIGITS), tmp_path / "run", DIGITS)
    again = shoal.load_run(run)
    assert again.penalty_ == expected
    assert again.encoder_bias is False
    np.testing.assert_array_equal(again.fit(DIGITS).components_, model.components_)


def test_what_no_file_can_hold_is_refused_before_the_fit():
    needed = r"^penalty: found the function .*sinh.* in MeanActivation.f, .*needed .*is registered"
    with pytest.raises(ArgumentError, match=needed):
        autoencoder(penalty=MeanActivation(0.1, torch.sinh)).iter_fit(DIGITS)
    for name in ("penalty", "activation"):
        kind, *values = {"penalty": (L1, 0.1), "activation": (Maxout,)}[name]
        part = type("Own", (kind,), {})(*values)
        model = autoencoder(**{name: part})
        with pytest.raises(ArgumentError, match=f"^{name}: found a part of type .*register"):
            model.iter_fit(DIGITS)
        with pytest.raises(ArgumentError, match=f"^{name}: "):
            model.fit(DIGITS)
        assert not hasattr(model, "components_")


# ------------------------------------------------------------------ preprocessing


def test_added_constants_and_samples():
    rows = np.array([[0.0, 1.0, 5.0], [2.0, 1.0, 5.0]])
    scaled = Preprocessing("scale", added=0.5).fit(rows)
    np.testing.assert_allclose(scaled.apply(rows), [[-2 / 3, 0, 0], [2 / 3, 0, 0]])
    np.testing.assert_allclose(scaled.undo(scaled.apply(rows)), rows)
    each = Preprocessing("samples", added=0.1).fit(rows)
    centred = rows - rows.mean(axis=1, keepdims=True)
    expected = centred / (rows.std(axis=1, keepdims=True) + 0.1)
    np.testing.assert_allclose(each.apply(rows), expected)
    assert (Preprocessing("samples").fit(rows).apply(np.ones((1, 3))) == 0).all()
    with pytest.raises(ArgumentError, match=r"^preprocessing: found 'samples', to be undone"):
        each.undo(expected)
    with pytest.raises(ArgumentError, match=r"^added: found -1"):
        Preprocessing("scale", added=-1)


# ------------------------------------------------------------------ files


@pytest.mark.parametrize(
    "changes", [{}, {"penalty": Contractive(0.2, kink=0.1)}, {"activation": "sigmoid"}]
)
def test_a_run_is_written_and_read_again(tmp_path, changes):
    model = autoencoder(**{"preprocessing": Preprocessing("samples", added=0.1), **changes})
    model.fit(DIGITS)
    run = shoal.save_run(model, tmp_path / "run", DIGITS)
    again = shoal.load_run(run)
    assert isinstance(again, RegularizedAutoencoder)
    assert (again.penalty_, again.activation_) == (model.penalty_, model.activation_)
    np.testing.assert_array_equal(again.transform(DIGITS), model.transform(DIGITS))
    config = json.loads((run / "config.json").read_text())
    assert config["estimator"] == "regularized"
    assert config["usage"]["activation_fraction"] == model.activation_fraction_
    assert "Explained" in (run / "report.html").read_text()


@pytest.mark.parametrize("change", [{"penalty": {"kind": "ReLU"}}, {"estimator": "other"}])
def test_a_damaged_run_is_named(tmp_path, fitted, change):
    run = shoal.save_run(fitted, tmp_path / "run", DIGITS)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(shoal.RunError, match="does not match its checksum"):
        shoal.load_run(run)
    with pytest.raises(shoal.RunError, match="inconsistent"):
        shoal.load_run(resealed(run))


# ------------------------------------------------------------------ the sweep


def to_the_end(steps):
    def whole():
        returned.append((yield from steps))

    returned = []
    notes = list(whole())
    return notes, returned[0]


SWEEP = {
    "penalties": ["dae", "cae"],
    "strengths": [0.0, 1.0],
    "n_components": 6,
    "settings": MomentumSettings(n_epochs=2),
    "n_jobs": 1,
}


def test_a_sweep_writes_what_it_found(tmp_path):
    notes, result = to_the_end(run_sweep(DIGITS, tmp_path / "out", **SWEEP))
    assert notes[-1].share == 1.0
    files = sorted(each.name for each in (tmp_path / "out").iterdir())
    assert files == ["figure.png", "index.html", "result.json"]
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    assert len(result["numbers"]["records"]) == 4
    curves = {each["penalty"]: each["points"] for each in result["numbers"]["curves"]}
    assert curves["dae"][0] == curves["cae"][0], "without strength there is one run"
    assert curves["dae"][1] != curves["cae"][1]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out"]


def test_an_interrupted_sweep_goes_on(tmp_path, monkeypatch):
    steps = run_sweep(DIGITS, tmp_path / "out", **SWEEP)
    for step in steps:
        if step.share >= 0.5:
            break
    steps.close()
    assert not (tmp_path / "out").exists()
    # A line half written, as by a full disk or a kill, costs its own run and no other, however
    # often the sweep is stopped again.
    with open(tmp_path / ".out.unfinished.jsonl", "a") as file:
        file.write('{"point": {"pen')
    steps = run_sweep(DIGITS, tmp_path / "out", **SWEEP)
    assert next(steps).note == "2 of 4 there already"
    for step in steps:
        if step.share >= 0.75:
            break
    steps.close()
    notes, result = to_the_end(run_sweep(DIGITS, tmp_path / "out", **SWEEP))
    assert notes[0].note == "3 of 4 there already"
    _, whole = to_the_end(run_sweep(DIGITS, tmp_path / "whole", **SWEEP))
    assert whole["numbers"]["curves"] == result["numbers"]["curves"]
    # Another plan shares nothing, and neither does a damaged file.
    for change in ({"strengths": [0.0, 0.5]}, {}):
        (tmp_path / ".new.unfinished.jsonl").write_text("{damaged")
        notes, _ = to_the_end(run_sweep(DIGITS, tmp_path / "new", **{**SWEEP, **change},
                                        overwrite=True))  # fmt: skip
        assert notes[0].note == "0 of 4 there already"


def test_what_a_sweep_refuses(tmp_path):
    assert strengths_of("0:1:3") == [0.0, 0.5, 1.0]
    assert strengths_of("0.5,2") == [0.5, 2.0]
    for text in ("a", "0:1", "0:1:x"):
        with pytest.raises(ArgumentError, match=r"^strength: found"):
            strengths_of(text)
    for change, text in (
        ({"penalties": ["lasso"]}, "^penalty: found 'lasso'"),
        ({"activations": ["step"]}, "^activation: found 'step'"),
        ({"strengths": [-1.0]}, "^strength: found -1"),
        ({"strengths": []}, "^penalty: found no combination"),
        ({"n_components": 0}, "^n_components: found 0"),
    ):
        with pytest.raises(ArgumentError, match=text):
            run_sweep(DIGITS, tmp_path / "out", **SWEEP | change)
    (tmp_path / "out").mkdir()
    with pytest.raises(shoal.RunError, match="exists already"):
        run_sweep(DIGITS, tmp_path / "out", **SWEEP)


# ------------------------------------------------------------------ the command line


def test_the_commands(tmp_path):
    run = tmp_path / "run"
    words = "fit sample:digits -m 16 --penalty cae --strength 0.25 --activation relu --epochs 2"
    text = done(*words.split(), "--added", 0.1, "-o", run).stdout
    assert "16 units, ReLU, Contractive(0.25)" in text
    assert "activation fraction" in text
    model = shoal.load_run(run)
    assert model.preprocessing_.spec == Preprocessing("scale", added=0.1)
    assert asdict(model.penalty_) == {"strength": 0.25, "kink": 0.0}
    assert "explained" in done("score", run, "sample:digits").stdout
    done("transform", run, "sample:digits", "-o", tmp_path / "codes.npz")
    assert sparse.load_npz(tmp_path / "codes.npz").shape == (1797, 16)
    words = "fit sample:digits -m 16 --penalty dae --noise masking --strength 0.3 --epochs 1 "
    words += "--no-encoder-bias --decoder-bias --option draws=2"
    done(*words.split(), "-o", tmp_path / "masked")
    model = shoal.load_run(tmp_path / "masked")
    assert model.penalty_ == Denoising(0.3, 2, noise="masking")
    assert not model.bias_.any()
    assert model.offset_.any()
    words = "fit sample:digits -m 16 --penalty mean --option f=log --epochs 1 -q"
    done(*words.split(), "-o", tmp_path / "log")
    assert shoal.load_run(tmp_path / "log").penalty_ == MeanActivation(0.25, "log")
    words = "sweep sample:digits --penalty dae,sae --strength 0:1:2 -m 8 --epochs 1 --jobs 1"
    assert "dead units" in done(*words.split(), "-o", tmp_path / "sweep").stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("fit sample:digits --strength 0.2 -o x", "error: strength: found 0.2; needed --penalty"),
        ("fit sample:digits --epochs 2 -o x", "error: epochs: found 2; needed --penalty"),
        ("fit sample:digits --noise masking -o x", "error: noise: found masking"),
        ("fit sample:digits --option q=1 -o x", "error: option: found q=1"),
        ("fit sample:digits --no-encoder-bias -o x", "error: encoder_bias: found False"),
        ("fit sample:digits --decoder-bias -o x", "error: decoder_bias: found True"),
        ("fit sample:digits --penalty dae --option q -o x", "error: option: found 'q'; needed"),
        ("fit sample:digits --penalty dae --option q=1 -o x", "error: penalty_options: found 'q'"),
        (
            "fit sample:digits --penalty cae --noise masking -o x",
            "error: penalty_options: found 'n",
        ),
        (
            "fit sample:digits --penalty dae --noise masking --option noise=gaussian -o x",
            "error: option: found 'noise' twice",
        ),
        (
            "fit sample:digits --penalty dae --noise masking --strength 1.5 -o x",
            "error: strength: found 1.5",
        ),
        ("fit sample:digits --penalty mean --option f=cube -o x", "error: f: found 'cube'"),
        ("fit sample:digits --penalty dae -k 3 -o x", "error: n_nonzero_coefs: found 3"),
        ("fit sample:digits --penalty dae --recipe x -o x", "error: recipe: found x"),
        ("fit sample:digits --added 0.1 -o x", "error: added: found 0.1; needed --preprocess"),
        ("sweep sample:digits --penalty lasso -o x", "error: penalty: found 'lasso'"),
        ("sweep sample:digits --strength 0:1 -o x", "error: strength: found '0:1'"),
    ],
)
def test_what_the_commands_refuse(words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(*words.split()).startswith(text)
    assert list(tmp_path.iterdir()) == []


def test_the_names_on_the_command_line_are_those_there_are():
    from typing import get_args

    from shoal.cli.options import ACTIVATION_NAMES, PENALTY_NAMES, Length
    from shoal.training import WEIGHT_LENGTHS

    assert tuple(PENALTIES) == PENALTY_NAMES
    assert tuple(ACTIVATIONS) == ACTIVATION_NAMES
    assert get_args(Length) == WEIGHT_LENGTHS


def test_no_thread_is_left_changed():
    before = torch.get_num_threads()
    autoencoder().fit(DIGITS)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "changes",
    [{"strength": 9.0, "penalty": "l1"}, {"activation": "sigmoid"}, {"weight_length": "free"}],
    ids=lambda changes: next(iter(changes)),
)
def test_arguments_set_after_a_fit_are_for_the_next_one(fitted, changes, tmp_path):
    model = RegularizedAutoencoder(**fitted.get_params()).fit(DIGITS)
    before = model.transform(DIGITS)
    model.set_params(**changes)
    np.testing.assert_array_equal(model.transform(DIGITS), before)
    loaded = shoal.load_run(shoal.save_run(model, tmp_path / "run", DIGITS))
    np.testing.assert_array_equal(loaded.transform(DIGITS), before)
    for name in changes:
        assert getattr(loaded, name) == getattr(fitted, name)

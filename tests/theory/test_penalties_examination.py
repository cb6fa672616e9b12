"""A fitted penalty asked what Arpit et al. 2016 promise of it; `shoal check` of one."""

import json
import math

import numpy as np
import pytest
import torch

import shoal
from commands import done, refused
from shoal import RegularizedAutoencoder, theory
from shoal.network.penalties import Denoising, NoPenalty
from shoal.theory import arpit2016, examine_penalty
from shoal.theory.penalties_examination import _point
from shoal.vocabulary import ArgumentError

torch.set_num_threads(1)


def rows(n_samples=1500, n=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.gamma(2.0, size=(n_samples, n)) @ rng.normal(size=(n, n)) + 3.0


def fitted(penalty, strength=0.5, activation="softplus", data=None, **changes):
    settings = {"n_epochs": 3, "random_state": 0, "preprocessing": "whiten"} | changes
    model = RegularizedAutoencoder(8, penalty, strength, activation=activation, **settings)
    return model.fit(rows() if data is None else data)


def named(found):
    return {each.name: each for each in found.assertions}


def test_units_are_those_of_the_theorems():
    model = fitted("cae", 40.0, n_epochs=1, learning_rate=1e-4)
    found = examine_penalty(model, rows())
    data = model.preprocessing_.apply(rows()).astype(np.float64)
    place = (model.components_, model.bias_)
    units = found.units
    a = data @ place[0].astype(float).T + place[1]
    np.testing.assert_allclose(units["mean"], a.mean(axis=0))
    np.testing.assert_allclose(units["mean_error"], a.std(axis=0) / len(a) ** 0.5)
    on = np.logaddexp(a, 0) > 0.1
    np.testing.assert_allclose(units["activation"], on.mean(axis=0))
    at = (a.mean(axis=0) - math.log(math.expm1(0.1))) / np.linalg.norm(place[0], axis=1)
    gauss = [0.5 * math.erfc(-each / math.sqrt(2)) for each in at]
    np.testing.assert_allclose(units["predicted_activation"], gauss, rtol=1e-9)
    asked = arpit2016.bias_gradient(place, data, model.activation_, model.penalty_)
    np.testing.assert_allclose(units["penalty"], 40.0 * asked)
    largest = arpit2016.threshold_strength(place, data, model.activation_, model.penalty_)
    assert units["threshold"].max() == pytest.approx(largest)
    assert found.facts["form"] == {"corollary": 2, "q": 2, "p": 2}
    assert list(named(found)) == [
        "Assumption 1", "Lemma 1", "Theorem 1", "Corollary 2", "Theorem 2", "Remark 1"
    ]  # fmt: skip
    np.testing.assert_allclose(units["change"], units["predicted_change"], rtol=1e-3)
    assert len(found.verdicts) == 8
    json.dumps(found.to_dict(), allow_nan=False)
    assert found.facts["preprocessing"] == "whiten"
    assert named(found)["Assumption 1"].measurements[0].holds, "of the data as the network has them"


def test_a_strong_penalty_is_promised_to_lower_units_and_does():
    data = rows()
    weak = fitted("cae", 1e-3, n_epochs=1, learning_rate=1e-4)
    threshold = examine_penalty(weak, data).units["threshold"].max()
    strong = fitted("cae", 1.5 * threshold, n_epochs=1, learning_rate=1e-9)
    found = examine_penalty(strong, data)
    assert found.facts["verdicts"]["promised to fall"] == 8
    assert (found.units["change"] < 0).all()


def test_relu_has_no_push_and_the_corollary_says_so():
    found = examine_penalty(fitted("cae", 1.0, "relu"), rows())
    assert (found.units["penalty"] == 0).all()
    assert np.isinf(found.units["threshold"]).all()
    corollary = named(found)["Corollary 2"]
    assert corollary.verdict != "confirmed"
    rising = corollary.numbers["units_that_surely_do"]
    assert rising == sum(each == "rises" for each in found.verdicts)


def test_errors_are_those_of_samples():
    model = fitted("cae", 1.0, n_epochs=1)
    many = rows(20_000, seed=1)
    whole = examine_penalty(model, many, n_samples=20_000)
    apart = {"plain": [], "penalty": []}
    for start in range(10):
        part = examine_penalty(model, many[start::10], n_samples=2000)
        for name, found in apart.items():
            error = part.units[f"{name}_error"]
            found.append((part.units[name] - whole.units[name]) / error)
    for values in apart.values():
        assert 0.6 < np.sqrt(np.mean(np.square(values))) < 1.6


@pytest.mark.parametrize("options", [None, {"noise": "masking"}, {"variances": [1, 2, 0, 1, 1, 1]}])
def test_noise_is_drawn(options):
    model = fitted("dae", 0.3, "relu", penalty_options=options)
    found = examine_penalty(model, rows(), n_draws=4)
    assert found.facts["noise"]
    assert found.facts["form"] is None
    assert np.isnan(found.units["threshold"]).all()
    if options is None:
        assert found.units["penalty"].mean() > 0, "what ReLU's kink brings"
    again = examine_penalty(model, rows(), n_draws=4)
    assert json.dumps(again.to_dict()) == json.dumps(found.to_dict())
    names = list(named(found))
    assert names[:4] == ["Assumption 1", "Lemma 1", "Theorem 1", "Theorem 2"]
    assert ("Theorem 3" in names) == (options is None)


def test_a_penalty_of_the_means_and_its_units_without_one():
    model = fitted("sae", 0.5, "sigmoid")
    assert examine_penalty(model, rows()).facts["saturated_units"] == 0
    model.bias_ = model.bias_ + np.float32(20.0)
    found = examine_penalty(model, rows())
    assert found.facts["saturated_units"] == 8
    assert found.facts["form"]["corollary"] == 1
    assert not named(found)["Corollary 1"].applies


def test_no_bias_is_equation_3_and_a_decoder_bias_counts():
    model = fitted("none", encoder_bias=False, decoder_bias=True)
    found = examine_penalty(model, rows())
    assert named(found)["Equation (3)"].measurements[0].value < 1e-5
    data = model.preprocessing_.apply(rows()).astype(np.float64)
    place = (model.components_, model.bias_, model.decoder_bias_)
    point = _point(place, data, model.activation_)
    np.testing.assert_allclose(found.units["plain"], point.plain)
    without = _point(place[:2], data, model.activation_)
    assert np.abs(point.plain - without.plain).max() > 1e-4


def test_what_is_refused():
    model = fitted("cae")
    with pytest.raises(ArgumentError, match=r"^X: found 5 features; needed 6"):
        examine_penalty(model, rows(n=5))
    with pytest.raises(ArgumentError, match=r"^X: found 39 samples"):
        examine_penalty(model, rows(39))
    with pytest.raises(ArgumentError, match=r"^X: found a stream"):
        examine_penalty(model, iter([rows()]))
    with pytest.raises(ArgumentError, match=r"^n_samples: found 10"):
        examine_penalty(model, rows(), n_samples=10)
    for other in (RegularizedAutoencoder(), shoal.DictionaryAutoencoder(), None):
        with pytest.raises(ArgumentError, match=r"^model: found a .* without a penalty"):
            examine_penalty(other, rows())


def test_check_of_a_run_with_a_penalty(tmp_path):
    words = "fit sample:digits -m 16 --penalty cae --added 0.1 --epochs 1 -q -o"
    done(*words.split(), tmp_path / "cae")
    asked = ("check", "sample:digits", "--dictionary", tmp_path / "cae", "--samples", 400)
    text = done(*asked).stdout
    assert "preprocessing 'scale'" in text
    for part in ("Lemma 1's bound", "units: rises", "Corollary 2", "Remark 1"):
        assert part in " ".join(text.split())
    record = json.loads(done(*asked, "--json").stdout)
    assert len(record["units"]["threshold"]) == len(record["verdicts"]) == 16
    model = shoal.load_run(tmp_path / "cae")
    found = theory.examine_penalty(model, "sample:digits", n_samples=400)
    assert record == json.loads(json.dumps(found.to_dict()))
    line = refused("check", "sparse", "--dictionary", tmp_path / "cae")
    assert line.startswith("error: WORLD: found 'sparse'; needed a SOURCE")
    assert refused("check", "sample:nothing", "--dictionary", tmp_path / "cae")
    (tmp_path / "cae" / "dictionary.safetensors").unlink()
    assert "dictionary.safetensors" in refused(*asked)


def test_denoising_without_noise_is_no_noise():
    model = fitted("dae", 0.0)
    assert model.penalty_ == Denoising(0.0)
    found = examine_penalty(model, rows())
    assert not found.facts["noise"]
    assert (found.facts["penalty"], found.units["penalty"].any()) == (repr(NoPenalty()), False)

"""An encoder of its own for a dictionary that is held."""

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from tests.made import gaussian, unit_rows

import shoal
from shoal import DictionaryAutoencoder
from shoal.data import Preprocessing, open_source
from shoal.generative import SparseCoding, random_dictionary
from shoal.network import kernels
from shoal.network.activations import TopK
from shoal.network.adam import adam_
from shoal.network.inference import corrected_codes, fast_sparse_encode
from shoal.network.kernels import reference
from shoal.network.objective import on_batch, on_encoder
from shoal.training.encoding import EncoderFit, followed
from shoal.training.recipes import Recipe, recipe_named
from shoal.vocabulary import ArgumentError, Parameters

PARTS = ("components_", "encoder_", "bias_")


@cache
def photographs(n_samples=3000, whiten=False):
    source = open_source("sample:patches")
    if whiten:
        source = Preprocessing("whiten").fit(source).through(source)
    rows = source.draw(n_samples, np.random.default_rng(0))
    return np.ascontiguousarray(rows - rows.mean(axis=0), dtype=np.float32)


@cache
def planted(k=3, n_samples=20_000, m=128, n=64, noise=0.0):
    world = SparseCoding(random_dictionary(m, n, random_state=0), k, low=1.0, high=2.0, noise=noise)
    return [world.sample(n_samples, random_state=1).data, world.sample(2000, random_state=2).data]


@cache
def on_photographs(encoder="auto", n_samples=1500):
    """A model of 32 atoms, three of them active: one fit for many tests."""
    return fitted(photographs(n_samples), encoder=encoder)


def fitted(data, m=32, k=3, **settings):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the encoder", UserWarning)
        return DictionaryAutoencoder(m, k, random_state=0, **settings).fit(data)


# --------------------------------------------------------------------------- the step


def untied(m=30, n=37, *, encoder=True, offset=True, dtype=torch.float64):
    atoms = unit_rows(0, m, n, dtype)
    bias = 0.1 * gaussian(1, m, dtype=dtype)
    own = atoms + 0.1 * gaussian(2, m, n, dtype=dtype) if encoder else None
    return Parameters(atoms, bias, own, offset=gaussian(3, n, dtype=dtype) if offset else None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("encoder", "offset"), [(True, False), (True, True), (False, True)])
def test_the_compiled_step_is_the_reference_s(encoder, offset, signed, dtype):
    parameters = untied(encoder=encoder, offset=offset, dtype=dtype)
    data, activation = gaussian(4, 700, 37, dtype=dtype), TopK(3, signed=signed)
    kernel = kernels.choose(data, parameters, activation)
    assert kernel is not reference
    found = kernel.step(parameters, data, activation)
    wanted = reference.step(parameters, data, activation)
    for name in ("dictionary", "bias", "losses", "counts", "energy", "encoder", "offset"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert (one is None) == (other is None), name
        if one is not None:
            tolerance = 1e-3 if dtype == torch.float32 else 1e-9
            assert torch.allclose(one, other, atol=tolerance), name


def test_the_encoder_s_gradient_is_autograd_s():
    parameters, data, activation = untied(), gaussian(4, 50, 37), TopK(3)
    leaves = parameters.map(lambda part: part.clone().requires_grad_())
    with kernels.use("reference"):
        codes = activation(data @ leaves.encoder.T + leaves.bias).codes
    loss = 0.5 * (data - codes @ leaves.dictionary - leaves.offset).square().sum()
    loss.backward()
    held = on_encoder(parameters, data, activation)
    whole = on_batch(data)(activation, None, parameters, None)
    for name in ("encoder", "bias", "offset"):
        assert torch.allclose(getattr(held, name), getattr(leaves, name).grad, atol=1e-9), name
    assert torch.allclose(whole.dictionary, leaves.dictionary.grad, atol=1e-9)
    assert not held.dictionary.any()  # it isn't asked for


def test_codes_of_an_encoder_of_its_own_come_from_the_kernel():
    parameters, data, activation = untied(200, 64), gaussian(4, 300, 64), TopK(5)
    found = fast_sparse_encode(parameters, data, activation).dense(200)
    assert torch.allclose(found, reference.encode(parameters, data, activation), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_in_one_pass_is_adam(dtype):
    one, other = gaussian(0, 5, 7, dtype=dtype), gaussian(0, 5, 7, dtype=dtype)
    here, there = ((torch.zeros_like(one), torch.zeros_like(one)) for _ in range(2))
    for step in range(4):
        slope = gaussian(step + 1, 5, 7, dtype=dtype)
        adam_(one, slope, here, step, 0.1, scale=0.5)
        with kernels.use("reference"):
            adam_(other, slope, there, step, 0.1, scale=0.5)
    assert torch.allclose(one, other, atol=1e-5 if dtype == torch.float32 else 1e-12)
    usual = gaussian(0, 5, 7, dtype=dtype).requires_grad_()
    optimizer = torch.optim.Adam([usual], lr=0.1, eps=1e-30)
    for step in range(4):
        usual.grad = 0.5 * gaussian(step + 1, 5, 7, dtype=dtype)
        optimizer.step()
    assert torch.allclose(one, usual, atol=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("encoder", [True, False])
def test_corrections_by_the_kernel_are_the_reference_s(encoder, signed, dtype):
    parameters = untied(90, 37, encoder=encoder, offset=False, dtype=dtype)
    data, activation = gaussian(4, 300, 37, dtype=dtype), TopK(4, signed=signed)
    for n_steps in (0, 1, 3):
        found = corrected_codes(parameters, data, activation, n_steps, 0.4).dense(90)
        with kernels.use("reference"):
            wanted = corrected_codes(parameters, data, activation, n_steps, 0.4).dense(90)
        same = ((found != 0) == (wanted != 0)).all(dim=1)
        assert same.double().mean() >= (1.0 if dtype == torch.float64 else 0.98)
        assert torch.allclose(found[same], wanted[same], atol=1e-4)


def test_a_correction_is_one_more_gate():
    parameters = untied(offset=False)
    data, activation = gaussian(4, 50, 37), TopK(3)
    first = activation(data @ parameters.encoder.T + parameters.bias).codes
    left = data - first @ parameters.dictionary
    second = activation(first + 0.5 * left @ parameters.encoder.T).codes
    found = corrected_codes(parameters, data, activation, 1, 0.5).dense(30)
    assert torch.allclose(found, second, atol=1e-12)


# --------------------------------------------------------------------------- what it explains


def test_a_planted_dictionary_keeps_its_bits_and_gets_a_better_encoder():
    data, test = planted()
    tied, own = (fitted(data, 128, 3, encoder=each) for each in ("tied", "auto"))
    assert tied.components_.tobytes() == own.components_.tobytes()
    assert tied.encoder_ is None
    assert own.recipe_.encoder.weights == "untied"
    assert tied.score(test) < 0.94
    assert own.score(test) >= 0.97
    assert own.score(test, method="pursuit") == pytest.approx(1.0, abs=1e-9)
    assert "encoder" not in {each["phase"] for each in own.history_}  # in closed form


def test_one_correction_finds_the_exact_supports_of_a_planted_world():
    world = SparseCoding(random_dictionary(128, 64, random_state=0), 3, low=1.0, high=2.0)
    test = world.sample(1000, random_state=2)
    model = fitted(planted()[0], 128, 3, n_unrolled=1)
    codes = model.transform(test.data)
    match = shoal.recovery(model.components_, world.dictionary)
    assert shoal.diagnosis.support_recovery(codes, test.codes, match).exact > 0.99
    assert model.score(test.data) > 0.998
    assert (codes != 0).sum(axis=1).max() == 3
    # The same support is what least squares solves on.
    assert model.score(test.data, method="least_squares") > 0.9999


def test_a_correction_explains_more_on_photographs():
    data = photographs(1500)
    one, other = on_photographs(), fitted(data, n_unrolled=1)
    assert one.encoder_.tobytes() == other.encoder_.tobytes()
    assert other.recipe_.encoder.n_unrolled == 1
    assert other.score(data) > one.score(data) + 0.005


def test_atoms_that_move_with_the_encoder_explain_more_by_its_codes():
    data = photographs(1500)
    held, joint = on_photographs("untied"), fitted(data, encoder="untied", joint=True)
    assert joint.score(data) > held.score(data) + 0.01
    assert not np.array_equal(joint.components_, held.components_)
    np.testing.assert_allclose(np.linalg.norm(joint.components_, axis=1), 1, atol=1e-6)
    assert joint.recipe_.encoder.joint


def test_atoms_without_entries_below_zero_keep_to_that():
    data = np.abs(photographs(600))
    model = fitted(data, 16, 2, model="nonnegative", positive_atoms=True, joint=True)
    assert model.components_.min() >= 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"joint": 1}, "joint: found 1"), ({"joint": True, "encoder": "tied"}, "joint=True")],
)
def test_joint_is_checked(settings, said):
    with pytest.raises(ArgumentError, match=said):
        DictionaryAutoencoder(16, 2, **settings).fit(photographs())


def test_where_a_correction_does_not_help_there_is_none():
    model = fitted(np.eye(8)[np.arange(400) % 8], 8, 1, n_unrolled=1)
    assert model.recipe_.encoder.n_unrolled == 0
    assert model.score(np.eye(8)) == pytest.approx(1.0)


def test_where_atoms_interfere_much_the_gain_is_large():
    data, test = planted(5)
    tied, own = (fitted(data, 128, 5, encoder=each).score(test) for each in ("tied", "auto"))
    assert tied < 0.8
    assert own > 0.9


def test_on_photographs_it_explains_nearly_what_a_pursuit_does():
    data = photographs(1500)
    model, tied = on_photographs(), on_photographs("tied")
    assert model.components_.tobytes() == tied.components_.tobytes()
    assert model.score(data) > max(0.5, tied.score(data) + 0.1)
    assert model.score(data) > model.score(data, method="omp") - 0.1
    last = model.history_[-1]
    assert last["phase"] == "encoder"
    assert last["progress"] == 1.0
    # What the curve says of the last batches is what the score says of all rows.
    assert last["explained_variance"] == pytest.approx(model.score(data), abs=0.05)


def test_gains_are_between_the_atoms_and_weights_of_its_own():
    data = photographs(1500)
    kinds = ("tied", "tied-gain", "untied")
    scores = [on_photographs(each).score(data) for each in kinds]
    assert scores == sorted(scores)
    gains = on_photographs("tied-gain")
    along = (gains.encoder_ * gains.components_).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gains.encoder_, along * gains.components_, atol=1e-6)


def test_few_rows_in_many_directions_get_gains_and_no_more():
    rows = photographs(1200, whiten=True)
    few = fitted(rows[:600], 128, 4)
    assert few.recipe_.encoder.weights == "tied-gain"
    weights = fitted(rows[:600], 128, 4, encoder="untied")
    assert few.score(rows[600:]) > weights.score(rows[600:])


@pytest.mark.parametrize(
    ("gains", "weights", "kind"),
    [(0.65, 0.67, "tied-gain"), (0.67, 0.78, "untied"), (0.83, 0.86, "untied")],
)
def test_weights_of_its_own_are_worth_it_where_they_explain_much_of_what_gains_leave(
    gains, weights, kind
):
    from shoal.training.encoding import _worth_it

    class Judge:
        said = iter((gains, weights))

        def explained(self, parameters):
            return next(self.said)

    rows = photographs(1500)
    atoms = unit_rows(0, 16, rows.shape[1], torch.float32)
    start = Parameters(atoms, torch.zeros(16), 0.5 * atoms)
    data = torch.from_numpy(rows[:256])
    assert _worth_it(start, open_source(rows), TopK(3), 0, Judge(), data) == kind


def test_many_features_make_no_matrix_of_their_squares(monkeypatch):
    from shoal.training import encoding

    data, seen = planted(n_samples=2000, m=24, n=16)[0], []
    monkeypatch.setattr(encoding, "_LITTLE", 0)
    monkeypatch.setattr(encoding, "_WORK", 0)
    solve = torch.linalg.solve
    monkeypatch.setattr(torch.linalg, "solve", lambda *a: (seen.append(a), solve(*a))[1])
    assert fitted(data, 24, 3).recipe_.encoder.weights != "tied"
    assert fitted(data, 24, 3, encoder="untied").recipe_.encoder.weights == "untied"  # by steps
    assert not seen


def test_the_same_fit_has_the_same_bits():
    one, other = on_photographs(), fitted(photographs(1500))
    for name in PARTS:
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name


@pytest.mark.parametrize("exponent", [-6, -20])  # within what is taken as it is, and beyond
def test_another_unit_has_the_same_bits(exponent):
    unit = np.float32(2.0**exponent)
    one, other = on_photographs(), fitted(photographs(1500) * unit)
    assert one.encoder_.tobytes() == other.encoder_.tobytes()
    assert one.bias_.tobytes() == (other.bias_ / unit).tobytes()
    assert other.score(photographs(1500) * unit) == pytest.approx(one.score(photographs(1500)))


def test_what_all_rows_have_in_common_is_left_to_the_bias():
    data = photographs(1500) + np.float32(3 * photographs(1500).std())
    model = fitted(data, model="nonnegative")
    assert model.score(data) > model.score(data, method="omp") - 0.15
    assert np.abs(model.bias_).max() > 0


def test_double_precision_comes_back():
    model = fitted(photographs(600).astype(float), 16, 2)
    assert model.encoder_.dtype == model.bias_.dtype == np.float64


def test_a_stream_that_can_be_read_once_has_one_too():
    data = photographs(1500)
    model = fitted(iter(np.array_split(data, 9)))
    assert model.score(data) > 0.4


@pytest.mark.filterwarnings("ignore:n_components=:UserWarning")
@pytest.mark.filterwarnings("ignore:100% of the square:UserWarning")
@pytest.mark.parametrize("row", [0.0, 1e12])
def test_rows_of_zeros_and_outliers_leave_a_finite_encoder(row):
    data = photographs(1000).copy()
    data[::50] = row
    model = fitted(data, 16, 2)
    for name in PARTS:
        assert np.isfinite(getattr(model, name)).all()
    usual = np.delete(data, np.s_[::50], axis=0)
    assert model.score(usual) > 0.2


# --------------------------------------------------------------------------- what is said


def test_an_encoder_that_explains_far_less_than_a_pursuit_is_said():
    model = DictionaryAutoencoder(128, 5, random_state=0, encoder="tied")
    with pytest.warns(UserWarning, match=r"the encoder \(tied\) explains .* method='omp'"):
        model.fit(planted(5)[0])


def test_one_that_explains_nearly_as_much_is_not():
    DictionaryAutoencoder(128, 3, random_state=0).fit(planted()[0])  # a warning would be an error


@pytest.mark.parametrize("encoder", ["none", None, True, 3, "Tied"])
def test_an_unknown_encoder_is_refused(encoder):
    with pytest.raises(ArgumentError, match=r"encoder: found .* needed one of 'auto', 'tied'"):
        DictionaryAutoencoder(16, 2, encoder=encoder).fit(photographs())


@pytest.mark.parametrize("n_unrolled", [-1, 0.5, True, "1", None])
def test_a_number_of_corrections_is_checked(n_unrolled):
    with pytest.raises(ArgumentError, match="n_unrolled: found"):
        DictionaryAutoencoder(16, 2, n_unrolled=n_unrolled).fit(photographs())


def test_a_recipe_of_a_paper_stays_tied_and_refuses_another():
    data = planted(n_samples=2000)[0]
    settings = {"recipe": "nguyen2019-mixture-threshold", "model": "mixture"}
    assert DictionaryAutoencoder(8, 1, random_state=0, **settings).fit(data).encoder_ is None
    with pytest.raises(ArgumentError, match="'untied' with HardThreshold"):
        DictionaryAutoencoder(8, 1, encoder="untied", **settings).fit(data)
    with pytest.raises(ArgumentError, match="n_unrolled: found 1 with HardThreshold"):
        DictionaryAutoencoder(8, 1, n_unrolled=1, **settings).fit(data)


def test_a_part_checks_its_numbers():
    with pytest.raises(ArgumentError, match="weights"):
        EncoderFit("none")
    with pytest.raises(ArgumentError, match="n_steps"):
        EncoderFit(n_steps=0)
    usual = recipe_named("nguyen2019-sparse-threshold", "sparse", 8, 2, 100)
    with pytest.raises(ArgumentError, match="the k largest"):
        Recipe(usual.activation, usual.rule, 5, encoder=EncoderFit("untied"))


# --------------------------------------------------------------------------- what comes after


def test_it_is_saved_loaded_and_exported(tmp_path):
    data = photographs(600)
    model = fitted(data, 16, 2, model="nonnegative")
    wanted = model.transform(data)
    shoal.save_run(model, tmp_path / "run", data)
    again = shoal.load_run(tmp_path / "run")
    assert again.recipe_ == model.recipe_
    assert np.array_equal(again.transform(data), wanted)
    assert again.get_params()["encoder"] == "auto"
    there = shoal.open_sae(shoal.export(model, tmp_path / "sae", to="saelens"))
    found = there.transform(data)
    assert np.array_equal(found != 0, wanted != 0)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_corrections_are_saved_and_refused_where_no_format_has_them(tmp_path):
    data = planted(n_samples=2000, m=24, n=16)[0]
    model = fitted(data, 24, 3, n_unrolled=2)
    shoal.save_run(model, tmp_path / "run", data)
    again = shoal.load_run(tmp_path / "run")
    assert again.recipe_.encoder == model.recipe_.encoder
    assert np.array_equal(again.transform(data), model.transform(data))
    with pytest.raises(ArgumentError, match="n_unrolled=0"):
        shoal.export(model, tmp_path / "sae", to="saelens")
    assert not (tmp_path / "sae").exists()


def test_a_fit_that_is_left_in_its_encoder_goes_on_with_the_same_bits(tmp_path):
    data = photographs(600)

    def model():
        return DictionaryAutoencoder(16, 2, random_state=0)

    whole = model().fit(data)
    steps = model().iter_fit(data, checkpoint=tmp_path / "saved", checkpoint_every=7)
    for step in steps:
        if step.phase == "encoder" and step.number == 20:
            break
    steps.close()
    again = model().fit(data, checkpoint=tmp_path / "saved")
    for name in PARTS:
        assert getattr(again, name).tobytes() == getattr(whole, name).tobytes(), name
    assert [each["step"] for each in again.history_] == [each["step"] for each in whole.history_]


def test_the_encoder_moves_with_the_atoms_in_partial_fit():
    data = photographs(1500)
    model = fitted(data[:1000])
    before, explained = model.components_.copy(), model.score(data)
    model.partial_fit(data[1000:])
    assert not np.array_equal(before, model.components_)
    assert model.score(data) > explained - 0.1


@pytest.mark.parametrize("asked", [{"encoder": "untied"}, {"n_unrolled": 1}, {"joint": True}])
def test_an_encoder_that_no_piece_is_enough_for_is_refused(asked):
    data = photographs(600)
    with pytest.raises(ArgumentError, match=f"^{next(iter(asked))}: .* in partial_fit.*fit first"):
        DictionaryAutoencoder(16, 2, **asked).partial_fit(data)
    model = fitted(data, 16, 2, **asked).partial_fit(data)
    assert model.encoder_ is not None


def test_an_atom_that_is_another_one_has_nothing_of_the_old_encoder():
    parameters = untied(offset=False)
    moved = parameters.dictionary.clone()
    moved[3] = -moved[3]
    found = followed(parameters, moved).encoder
    gain = (parameters.encoder * parameters.dictionary).sum(dim=1)
    assert torch.allclose(found[3], gain[3] * moved[3])
    assert torch.allclose(found[4], parameters.encoder[4])


def test_the_loss_around_the_dictionary_is_that_of_tied_weights():
    data = photographs(1500)
    one, other = (
        on_photographs(each).landscape(data, n_samples=50, random_state=0)
        for each in ("auto", "tied")
    )
    assert one.loss == other.loss

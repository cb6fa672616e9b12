"""The unit of the data says nothing of their dictionary: a factor changes no atom."""

import numpy as np
import pytest

import shoal
from made import SHORT
from shoal import ArgumentError, DictionaryAutoencoder, Preprocessing, RegularizedAutoencoder
from shoal.estimators import METHODS
from shoal.generative import (
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    SparseCoding,
    random_dictionary,
)
from shoal.training import recipe_named

ATOMS = random_dictionary(20, 12, random_state=0)
WORLDS = {
    "sparse": SparseCoding(ATOMS, sparsity=2, low=1.0, high=2.0, noise=0.05),
    "nonnegative": NonnegativeSparseCoding(ATOMS, sparsity=2, low=1.0, high=2.0, noise=0.02),
    "mixture": MixtureOfGaussians(ATOMS, noise=0.02),
}
DATA = {name: world.sample(800, random_state=1).data for name, world in WORLDS.items()}
CLEAN = SparseCoding(ATOMS, sparsity=2, low=1.0, high=2.0).sample(1200, random_state=1).data


def model(name="sparse", **changes):
    k = 1 if name == "mixture" else 2
    arguments = {"model": name, "random_state": 0, **changes}
    return DictionaryAutoencoder(20, arguments.pop("n_nonzero_coefs", k), **arguments)


@pytest.mark.parametrize("power", [-100, 60])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", WORLDS)
def test_a_power_of_2_changes_no_bit(name, dtype, power):
    data = DATA[name].astype(dtype)
    scaled = np.ldexp(data, power)
    expected, found = model(name).fit(data), model(name).fit(scaled)
    assert found.components_.tobytes() == expected.components_.tobytes()
    assert found.components_.dtype == dtype
    for method in METHODS[::2]:
        codes = np.ldexp(expected.transform(data, method), power)
        np.testing.assert_array_equal(found.transform(scaled, method), codes)
        assert found.score(scaled, method=method) == expected.score(data, method=method)
    assert [record["loss"] for record in found.history_] == pytest.approx(
        [record["loss"] * 4.0**power for record in expected.history_], rel=1e-6, abs=0
    )


@pytest.mark.parametrize("changes", [{"n_nonzero_coefs": "auto"}, {"sparse_output": True}])
def test_the_same_holds_for_all_that_is_estimated(changes):
    data = CLEAN if "sparse_output" in changes else DATA["sparse"]
    scaled = np.ldexp(data, -43)
    expected, found = model(**changes).fit(data), model(**changes).fit(scaled)
    assert found.components_.tobytes() == expected.components_.tobytes()
    assert found.n_nonzero_coefs_ == expected.n_nonzero_coefs_
    codes = found.transform(scaled, "pursuit"), expected.transform(data, "pursuit")
    one, other = (code.toarray() if changes.get("sparse_output") else code for code in codes)
    np.testing.assert_array_equal(one, np.ldexp(other, -43))


def test_partial_fit_knows_no_unit():
    parts = np.array_split(DATA["sparse"], 4)
    one, two = model(), model()
    for part in parts:
        one.partial_fit(part)
        two.partial_fit(np.ldexp(part, -43))
    assert one.components_.tobytes() == two.components_.tobytes()
    one.partial_fit(iter(parts))
    two.partial_fit(np.ldexp(part, -43) for part in parts)
    assert one.components_.tobytes() == two.components_.tobytes()


@pytest.mark.parametrize("factor", [1e-13, 1e30])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["none", "center", "scale", "whiten"])
def test_any_other_factor_changes_roundings_alone(kind, dtype, factor):
    data = CLEAN.astype(dtype)
    changes = {"preprocessing": Preprocessing(kind, roll_off=None), "recipe": SHORT}
    expected = model(**changes).fit(data)
    found = model(**changes).fit(data * np.array(factor, dtype))
    tolerance = 1e-9 if dtype == "float64" else 2e-3
    np.testing.assert_allclose(found.components_, expected.components_, atol=tolerance)
    scores = (found.score(data * np.array(factor, dtype)), expected.score(data))
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


@pytest.mark.parametrize("factor", [1e-13, 1e12])
def test_atoms_are_found_in_any_unit(factor):
    for data, least in ((CLEAN, 0.99), (DATA["sparse"], 0.99)):
        found = model().fit(data * factor)
        assert shoal.recovery(found.components_, ATOMS).recovered(least) == 1


def test_the_other_estimator_scales_first():
    one, two = (
        RegularizedAutoencoder(20, n_epochs=2, random_state=0).fit(data)
        for data in (CLEAN, CLEAN * 1e-13)
    )
    np.testing.assert_allclose(one.components_, two.components_, atol=1e-9)
    assert one.score(CLEAN) == pytest.approx(two.score(CLEAN * 1e-13))


def test_a_row_has_its_codes_whatever_rows_are_beside_it():
    fitted = model(recipe=SHORT).fit(CLEAN)
    mixed = CLEAN[:50].copy()
    mixed[::2] *= 2.0**-80
    for method in METHODS:
        codes = fitted.transform(mixed, method)
        np.testing.assert_array_equal(codes[1::2], fitted.transform(CLEAN[:50], method)[1::2])
        small = np.ldexp(fitted.transform(CLEAN[:50], method)[::2], -80)
        np.testing.assert_array_equal(codes[::2], small)


@pytest.mark.parametrize("factor", [1e200, 1e-200])
def test_data_out_of_range_are_coded_and_not_measured(factor):
    fitted = model(recipe=SHORT).fit(CLEAN)
    assert np.isfinite(fitted.transform(CLEAN * factor, "pursuit")).all()
    for use in (fitted.score, fitted.diagnose, lambda X: model().fit(X)):
        with pytest.raises(ArgumentError, match=r"^X: found values of up to .*; needed a largest"):
            use(CLEAN * factor)


def test_a_threshold_is_in_the_unit_of_the_data():
    recipe = recipe_named("nguyen2019-sparse-threshold", "sparse", 20, 2, 1200)
    with pytest.raises(ArgumentError, match=r"^X: found values of up to .* from 1e-12 to"):
        model(recipe=recipe).fit(CLEAN * 1e-13)

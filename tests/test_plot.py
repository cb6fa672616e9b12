"""Pictures of a model: what is drawn is what was given, and bad input is named."""

import matplotlib
import numpy as np
import pytest

import shoal
from shoal import plot

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="module")
def model():
    data = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    found = shoal.DictionaryAutoencoder(8, 2, random_state=0).fit(data)
    return found, data


def test_a_model_is_drawn_by_every_function(model):
    found, data = model
    assert plot.atoms(found).get_images()
    assert plot.history(found).get_lines()
    assert plot.history(found, show="loss").get_ylabel() == "loss"
    assert plot.activity(found, data).patches
    assert plot.activity(found, data, show="samples").patches
    assert plot.likeness(found).patches
    assert plot.recovered(found, found.components_).get_lines()
    assert len(plot.stability([found, found, found.components_]).get_lines()) == 3


def test_axes_that_are_given_are_drawn_on():
    import matplotlib.pyplot as plt

    axes = plt.figure().add_subplot()
    assert plot.likeness(np.eye(4), ax=axes) is axes


def test_a_dictionary_that_agrees_with_itself_is_a_line_at_one():
    atoms = np.random.default_rng(1).standard_normal((6, 9))
    (line,) = plot.stability([atoms, -atoms[::-1]]).get_lines()
    np.testing.assert_allclose(line.get_ydata(), 1.0)


def test_active_atoms_are_counted_from_codes_dense_or_sparse():
    from scipy.sparse import csr_array

    codes = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
    dense, sparse = (plot.activity(each, show="samples") for each in (codes, csr_array(codes)))
    heights = [[bar.get_height() for bar in axes.patches] for axes in (dense, sparse)]
    assert heights[0] == heights[1] == [0.5, 0.5]


def test_numbers_of_active_atoms_are_where_they_are_marked():
    axes = plot.elbow({4: 0.7, 1: 0.4, 2: 0.6}, chosen=2)
    assert list(axes.get_lines()[0].get_xdata()) == [1, 2, 4]
    assert axes.get_lines()[1].get_xdata()[0] == 2


def test_features_that_are_a_square_are_tiles_and_others_a_heat_map():
    tiles = plot.atoms(np.eye(16), columns=4).get_images()[0].get_array()
    table = plot.atoms(np.ones((3, 7))).get_images()[0].get_array()
    assert tiles.ndim == 2
    assert table.ndim == 3


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: plot.atoms("model.pt"), "model"),
        (lambda: plot.atoms(np.eye(4), (3, 3)), "feature_shape"),
        (lambda: plot.atoms(np.ones(3)), "model"),
        (lambda: plot.history([]), "model"),
        (lambda: plot.history(3), "model"),
        (lambda: plot.history([{"step": 1}], show="accuracy"), "show"),
        (lambda: plot.activity(np.eye(3), show="rows"), "show"),
        (lambda: plot.stability([np.eye(3)]), "models"),
        (lambda: plot.elbow({}), "shares"),
        (lambda: plot.likeness(np.ones((1, 3))), "model"),
    ],
)
def test_bad_input_is_named(call, argument):
    with pytest.raises(shoal.ArgumentError, match=argument):
        call()


def test_an_estimator_without_data_asks_for_it(model):
    with pytest.raises(shoal.ArgumentError, match="data"):
        plot.activity(model[0])


def test_a_model_that_is_not_fitted_is_refused():
    with pytest.raises(shoal.ArgumentError, match="model"):
        plot.atoms(shoal.DictionaryAutoencoder(4, 1))

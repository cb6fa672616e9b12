"""Pictures hold the atoms they should, where they should; SVGs are fit for a page."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from shoal.report import figures


def test_a_tile_holds_its_atom_pixel_by_pixel():
    rng = np.random.default_rng(0)
    dictionary = rng.normal(size=(7, 12)).astype(np.float32)
    order = [6, 5, 4, 3, 2, 1, 0]
    image = figures.atoms_image(dictionary, (3, 4), order=order, columns=3)
    zoom = figures.TILE // 4
    h, w = 3 * zoom, 4 * zoom
    assert image.dtype == np.uint8
    assert image.shape == (3 * h + 2 * figures.GAP, 3 * w + 2 * figures.GAP)
    atom = dictionary[2].reshape(3, 4)  # fifth drawn: second row, second column
    top, left = h + figures.GAP, w + figures.GAP
    tile = image[top : top + h, left : left + w].astype(float)
    expected = 128 + 127 * atom / np.abs(atom).max()
    np.testing.assert_allclose(tile[zoom // 2 :: zoom, zoom // 2 :: zoom], expected, atol=0.51)
    # Every feature is a block of equal pixels.
    blocks = tile.reshape(3, zoom, 4, zoom)
    assert (blocks == blocks[:, :1, :, :1]).all()
    # The gap and the places after the last atom are ground.
    assert (image[:, w : w + figures.GAP] == 255).all()
    assert (image[2 * (h + figures.GAP) :, w:] == 255).all()


def test_zero_is_mid_grey_and_scale_does_not_matter():
    atom = np.array([[0.0, 2.0, -2.0, 1.0]])
    image = figures.atoms_image(atom, (2, 2))
    assert image[0, 0] == 128
    assert image[0, -1] == 255
    assert image[-1, 0] == 1
    np.testing.assert_array_equal(image, figures.atoms_image(100 * atom, (2, 2)))
    assert (figures.atoms_image(np.zeros((1, 4)), (2, 2)) == 128).all()


def test_colour_atoms_are_rgb():
    atom = np.zeros((1, 2, 2, 3))
    atom[0, 0, 1] = [1, 0, -1]
    image = figures.atoms_image(atom.reshape(1, -1), (2, 2, 3))
    assert image.ndim == 3
    np.testing.assert_array_equal(image[0, -1], [255, 128, 1])
    np.testing.assert_array_equal(image[-1, 0], [128, 128, 128])


def test_many_atoms_stay_within_the_widest_picture():
    image = figures.atoms_image(np.ones((4096, 64)), (8, 8))
    assert max(image.shape) <= figures.WIDEST
    assert min(image.shape) >= 64 * 8


def test_atoms_that_are_no_pictures_are_a_heat_map_with_a_sign():
    blue = figures.atoms_image(np.ones((4, 6)), None)
    red = figures.atoms_image(-np.ones((4, 6)), None)
    middle = (blue.shape[0] // 2, blue.shape[1] // 3)
    assert blue.shape[2] == 3
    assert int(blue[middle][2]) - int(blue[middle][0]) > 50
    assert int(red[middle][0]) - int(red[middle][2]) > 50


def test_the_sheet_repeats_each_tiles_edge_around_it():
    dictionary = np.random.default_rng(1).normal(size=(5, 4))
    sheet = figures.sprite(dictionary, (2, 2), columns=3)
    assert sheet.shape == (2 * 4, 3 * 4)
    tile = sheet[4:8, 4:8]  # the last atom, 4
    largest = np.abs(dictionary[4]).max()
    expected = np.rint(128 + 127 * dictionary[4].reshape(2, 2) / largest)
    np.testing.assert_allclose(tile[1:3, 1:3], expected, atol=1)
    np.testing.assert_array_equal(tile[0], tile[1])
    np.testing.assert_array_equal(tile[:, 3], tile[:, 2])


def test_bins_keep_the_strongest_value_of_a_run_of_features():
    atom = np.zeros(1000)
    atom[503] = -3
    path, width = figures.stems(atom, bins=100)
    assert width == 100
    assert path == "M50.5 0V100"  # down: the y of SVG grows downwards
    image, largest = figures.heat_map(np.eye(2, 5000, k=4321))
    assert largest == 1
    assert image.shape == (2, figures.BINS, 4)
    assert (image[..., 3] == 255).sum() == 2


def every_figure() -> dict[str, str]:
    rows = [{"step": i, "loss": 2.0 - i / 9, "explained_variance": i / 9} for i in range(9)]
    rows.append({"step": 12, "phase": "polish", "loss": 0.9, "explained_variance": 0.95})
    return {
        **figures.learning_curves(rows),
        "activation": figures.activation_histogram([0.0, 0.01, 0.2]),
        "l0": figures.l0_histogram([1, 5, 2]),
        "coherence": figures.coherence_histogram([3, 400, 2], [0, 0.3, 0.6, 1]),
        "recovery": figures.recovery_figure([0.99, -0.97, 0.5]),
    }


def test_svgs_are_well_formed_and_fit_for_one_page():
    svgs = every_figure()
    assert set(svgs) == {"loss", "explained_variance", "activation", "l0", "coherence", "recovery"}
    ids = []
    for svg in svgs.values():
        root = ET.fromstring(svg)
        assert root.get("role") == "img"
        assert len(root.get("aria-label", "")) > 20
        assert "width" not in root.attrib
        for word in ("http", "<style", "<metadata", "xmlns", "#0101", "font-family"):
            assert word not in svg
        assert "var(--accent," in svg
        mine = re.findall(r'\bid="([^"]+)"', svg)
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)) <= set(mine)
        ids += mine
    assert len(ids) == len(set(ids))
    assert every_figure() == svgs


def test_the_polish_is_shaded_and_named_only_where_there_is_one():
    rows = [{"step": i, "loss": 3.0 - i / 9} for i in range(9)]
    without = figures.learning_curves(rows)["loss"]
    rows[-1]["phase"] = "polish"
    polished = figures.learning_curves(rows)["loss"]
    assert "polish" not in without
    assert "polish" in polished
    assert "--accent-soft" in polished


@pytest.mark.parametrize(
    ("rows", "keys"),
    [
        ([], set()),
        ([{}], set()),
        ([{"loss": None, "step": None}], set()),
        ([{"loss": 1.0}], {"loss"}),
        ([{"loss": 0.0}, {"loss": -1.0}], {"loss"}),
        ([{"step": 5, "loss": 1.0}, {"step": 0, "explained_variance": -7.0}], None),
        ([{"recovered": {"0.9": 0.1, "0.95": 0.5}}, {"recovered": 1}], {"explained_variance"}),
    ],
)
def test_learning_curves_draw_what_there_is(rows, keys):
    found = set(figures.learning_curves(rows))
    assert found == ({"loss", "explained_variance"} if keys is None else keys)


def test_long_histories_are_thinned():
    rows = [{"step": i, "loss": 1 + 1 / (i + 1)} for i in range(20_000)]
    svg = figures.learning_curves(rows)["loss"]
    assert len(svg) < 60_000
    assert "from 2 to 1" in svg  # both ends are kept


@pytest.mark.parametrize("share", [[0.0], [0.0, 0.0], [1.0], [1e-12, 1.0], [0.5] * 3])
def test_activation_histogram_survives_its_ends(share):
    svg = figures.activation_histogram(share)
    dead = sum(s == 0 for s in share)
    assert ("dead</text>" in svg) == (dead > 0)


@pytest.mark.parametrize("counts", [[0], [5], [0, 0, 0], [0] * 8 + [100], [1] * 900])
def test_l0_histogram_survives_its_ends(counts):
    assert "<svg" in figures.l0_histogram(counts)


@pytest.mark.parametrize("cosines", [[1.0], [0.0], [0.01, 0.99], [1.0] * 500])
def test_recovery_figure_survives_its_ends(cosines):
    assert "<svg" in figures.recovery_figure(cosines)

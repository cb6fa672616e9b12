"""Samples by name, and patches of images."""

import sys
import types
import warnings

import numpy as np
import pytest

from shoal.data import digits, draw_positions, extract_patches, grey, open_source, patches
from shoal.data.images import Positions
from shoal.vocabulary import ArgumentError, SourceError


def test_patches():
    source = open_source("sample:patches", patch_size=10, n_patches=500, random_state=1)
    assert (source.n_samples, source.n_features, source.feature_shape) == (500, 100, (10, 10))
    assert source.name == "sample:patches"
    assert source.dtype == np.float32
    assert 0 <= source.array.min() < 0.1
    assert 0.9 < source.array.max() <= 1
    # Neighbouring pixels of a photograph agree; shuffled ones wouldn't.
    image = source.array.reshape(-1, 10, 10)
    assert np.corrcoef(image[:, 4, 4], image[:, 4, 5])[0, 1] > 0.8
    np.testing.assert_array_equal(source.array, patches(10, 500, 1).data)
    assert not np.array_equal(source.array, patches(10, 500, 2).data)


def test_options_in_the_name():
    source = open_source("sample:patches?size=16&n_patches=50&random_state=3")
    np.testing.assert_array_equal(source.array, patches(16, 50, 3).data)
    np.testing.assert_array_equal(
        open_source("sample:patches?size=16&n_patches=50", patch_size=8).array,
        patches(8, 50, 0).data,
    )
    for bad in ("n=3", "size"):
        with pytest.raises(ArgumentError):
            open_source(f"sample:patches?{bad}=x")


def test_digits():
    source = open_source("sample:digits")
    assert (source.n_samples, source.n_features, source.feature_shape) == (1797, 64, (8, 8))
    assert source.array.max() == 1
    np.testing.assert_array_equal(source.array, digits().data)


def test_positions_are_uniform_over_all_places():
    shapes = [(6, 8), (5, 5), (3, 9)]
    places = draw_positions(shapes, 5 * 3 + 4 * 0 + 2 * 1, 4, np.random.default_rng(0))
    found = set(zip(*map(np.ndarray.tolist, places), strict=True))
    every = {(0, r, c) for r in range(3) for c in range(5)} | {
        (1, r, c) for r in range(2) for c in range(2)
    }
    assert len(found) == 17
    assert found < every
    assert isinstance(places, Positions)
    with pytest.raises(ArgumentError, match=r"^patch_size: found 9"):
        draw_positions([(8, 8)], 1, 9, np.random.default_rng(0))


def test_extract_patches_by_hand():
    image = np.arange(30).reshape(5, 6)
    cut = extract_patches(image, 3, np.array([[2, 3], [0, 1]]))
    np.testing.assert_array_equal(cut[0], image[2:5, 3:6].ravel())
    np.testing.assert_array_equal(cut[1], image[0:3, 1:4].ravel())
    cut[:] = 0
    assert image[2, 3] == 15
    for outside in ([3, 0], [0, 4], [-1, 0]):
        with pytest.raises(ArgumentError, match=r"^positions"):
            extract_patches(image, 3, np.array([outside]))


def test_grey():
    np.testing.assert_allclose(grey(np.full((2, 2, 3), 255, np.uint8)), 1, rtol=1e-6)
    np.testing.assert_allclose(grey(np.full((2, 2), 65535, np.uint16)), 1)
    np.testing.assert_allclose(grey(np.full((2, 2), 0.25)), 0.25)
    green = np.zeros((1, 1, 3), np.uint8)
    green[..., 1] = 255
    assert grey(green)[0, 0] == pytest.approx(0.587)
    with pytest.raises(ArgumentError, match=r"^image"):
        grey(np.zeros((2, 2, 4)))


def test_openml(monkeypatch):
    import sklearn.datasets

    asked = {}

    def fetch(name, **options):
        asked.update(options, name=name)
        return types.SimpleNamespace(data=np.arange(1568).reshape(2, 784))

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    source = open_source("openml:mnist_784?version=1")
    assert (asked["name"], asked["version"], asked["as_frame"]) == ("mnist_784", 1, False)
    assert (source.name, source.feature_shape) == ("openml:mnist_784?version=1", (28, 28))
    np.testing.assert_array_equal(next(source.batches(2)), np.arange(1568).reshape(2, 784))

    def offline(name, **options):
        raise OSError("no route\nto host")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", offline)
    with pytest.raises(SourceError, match=r"^source: found 'openml:x'.*\(no route\)"):
        open_source("openml:x")
    with pytest.raises(SourceError, match=r"a name after 'openml:'"):
        open_source("openml:")


class _Table(dict):
    column_names = property(lambda self: list(self))


def test_hugging_face(monkeypatch):
    from PIL import Image

    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    table = _Table(image=[Image.fromarray(pixels)] * 2, label=[0, 1], vector=[[1.0], [2.0]])
    module = types.ModuleType("datasets")
    module.load_dataset = lambda name, split: table if split == "test" else {}[split]
    monkeypatch.setitem(sys.modules, "datasets", module)
    source = open_source("hf:ylecun/mnist?split=test")
    assert source.feature_shape == (3, 4)
    np.testing.assert_allclose(source.array[1], pixels.ravel() / 255, rtol=1e-6)
    vectors = open_source("hf:ylecun/mnist?split=test", key="vector")
    np.testing.assert_array_equal(vectors.array, [[1], [2]])
    with pytest.raises(ArgumentError, match=r"^key: found 'no'; needed one of the columns image"):
        open_source("hf:ylecun/mnist?split=test", key="no")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SourceError, match=r"pip install datasets"):
        open_source("hf:ylecun/mnist")


def test_too_many_patches_are_refused_in_the_callers_numbers():
    with pytest.raises(ArgumentError, match=r"^n_patches: found 50000, the share contrast=0\.3"):
        patches(n_patches=50_000)
    with pytest.raises(ArgumentError, match=r"^n_patches: found 500000; needed at most"):
        patches(n_patches=500_000, contrast=1.0)


def test_defaults_of_patches_are_what_there_is_at_most():
    with pytest.warns(UserWarning, match=r"^sample:patches: 35036 patches, all that there are"):
        source = open_source("sample:patches", patch_size=20)
    assert (source.n_samples, source.n_features) == (35036, 400)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        source = open_source("sample:patches?shrink=40")
    assert (source.n_samples, source.feature_shape) == (4, (10, 10))
    assert [str(note.message) for note in noted] == [
        "sample:patches: patches of 10 x 10 pixels, all that shrink=40 leaves room for",
        "sample:patches: 4 patches, all that there are; the default is 36000",
    ]
    with pytest.warns(UserWarning, match="1 patches"):
        assert patches(contrast=1e-9).data.shape == (1, 256)
    with pytest.raises(ArgumentError, match=r"^patch_size: found 400"):
        open_source("sample:patches", patch_size=400)
    with pytest.raises(ArgumentError, match=r"^n_patches: found 36001, the share contrast=0\.3"):
        patches(20, 36_001)


def test_the_default_patches_are_as_many_as_before():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert patches().data.shape == (36_000, 256)
    np.testing.assert_array_equal(patches(n_patches=400).data, patches(16, 400, 0, 2, 0.3).data)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_hugging_face_keeps_the_depth_of_images(mode, monkeypatch):
    from PIL import Image

    pixels = np.arange(12).reshape(3, 4) * 5000
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "i4", "F": "f4"}[mode]
    image = Image.frombytes(mode, (4, 3), pixels.astype(dtype).tobytes())
    module = types.ModuleType("datasets")
    module.load_dataset = lambda name, split: _Table(image=[image] * 2)
    monkeypatch.setitem(sys.modules, "datasets", module)
    expected = pixels.ravel() / (1 if mode == "F" else 65535)
    np.testing.assert_allclose(open_source("hf:x").array[1], expected, rtol=1e-6)

"""Pictures are read at their own depth, with all their pages, or it is said what is left out."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from picture_files import png16, tiff
from shoal.data import open_source
from shoal.data.images import draw_positions, grey, patches_by_rows, pixels_of
from shoal.vocabulary import ArgumentError, SourceError

H, W = 23, 31
LUMA = np.array([0.299, 0.587, 0.114])


def made(dtype, *shape, seed=0):
    """Random pixels that fill the range of their type."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    shape = shape or (H, W)
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def windows(pages, size):
    """Every patch of some pages, as sorted rows."""
    cut = [
        np.lib.stride_tricks.sliding_window_view(np.asarray(page, np.float32), (size, size))
        for page in pages
    ]
    rows = np.concatenate([each.reshape(-1, size * size) for each in cut])
    return rows[np.lexsort(rows.T)]


def same(path, *pages):
    """The grey levels of a file (or folder) are those of `pages`, pixel by pixel."""
    size = min(min(page.shape) for page in pages)
    expected = windows(pages, size)
    found = open_source(path, patch_size=size, n_patches=len(expected)).array
    found = found[np.lexsort(found.T)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


# --- depth ----------------------------------------------------------------------------------

SCALES = {"u1": 255, "i1": 255, "f2": 1, "f4": 1, "f8": 1}
TYPES = ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8", "u8", "i8"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", TYPES)
def test_tiff_keeps_every_type_in_both_byte_orders(dtype, order, tmp_path):
    pixels = made(dtype)
    for name, options in {
        "plain": {},
        "one": {"rows": 1000},
        "big": {"big": True},
        "tiles": {"tile": (16, 16)},
        "deflate": {"pack": "deflate"},
        "deflated tiles": {"tile": (16, 16), "pack": "deflate"},
        **({} if dtype[0] == "f" else {"predict": {"pack": "predict"}}),
    }.items():
        (tmp_path / f"{name}.tif").write_bytes(tiff([pixels], order=order, **options))
        same(tmp_path / f"{name}.tif", pixels / np.float64(SCALES.get(dtype, 65535)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_tiff_in_colour(dtype, samples, planar, order, tmp_path):
    pixels = made(dtype, H, W, samples)
    more = {338: (3, [2])} if samples == 4 else {}
    expected = pixels[..., :3] @ LUMA / SCALES.get(dtype, 65535)
    for pack in (None, "deflate"):
        raw = tiff([pixels], order=order, planar=planar, more=more, pack=pack)
        (tmp_path / "c.tif").write_bytes(raw)
        same(tmp_path / "c.tif", expected)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_tiff_as_pillow_packs_it(compression, tmp_path):
    options = {} if compression is None else {"compression": compression}
    for dtype, scale in (("u1", 255), ("u2", 65535), ("f4", 1), ("i4", 65535)):
        pixels = made(dtype)
        Image.fromarray(pixels).save(tmp_path / "a.tif", **options)
        same(tmp_path / "a.tif", pixels / scale)


def repacked(path, pixels, compression, turn=1):
    """16-bit colour, packed by libtiff through Pillow, which can't write such pixels itself:
    each row of colours is written as a longer row of grey, and the tags are put right.
    """
    flat = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    Image.fromarray(flat).save(path, compression=compression)
    raw = bytearray(path.read_bytes())
    order = "little" if raw[:2] == b"II" else "big"
    at = int.from_bytes(raw[4:8], order)
    count = int.from_bytes(raw[at : at + 2], order)
    samples = pixels.shape[2]
    tags = {}
    for i in range(count):
        entry = raw[at + 2 + 12 * i : at + 14 + 12 * i]
        tags[int.from_bytes(entry[:2], order)] = entry

    def short(tag, number, value):
        word = b"".join(n.to_bytes(2, order) for n in (tag, 3))
        return word + number.to_bytes(4, order) + value

    def one(tag, value):
        return short(tag, 1, value.to_bytes(2, order) + b"\0\0")

    tags[256] = one(256, pixels.shape[1])
    if samples > 1:
        tags[258] = short(258, samples, len(raw).to_bytes(4, order))
    raw += b"".join((16).to_bytes(2, order) for _ in range(samples))
    tags[262], tags[277] = one(262, 2 if samples > 1 else 1), one(277, samples)
    tags[274] = one(274, turn)
    tags.pop(317, None)
    if samples == 4:
        tags[338] = one(338, 2)
    start = len(raw) + len(raw) % 2
    raw = raw.ljust(start, b"\0")
    raw += len(tags).to_bytes(2, order) + b"".join(tags[t] for t in sorted(tags)) + bytes(4)
    raw[4:8] = start.to_bytes(4, order)
    path.write_bytes(raw)


@pytest.mark.parametrize("samples", [3, 4])
def test_16_bit_colours_that_pillow_unpacks(samples, tmp_path):
    pixels = made("u2", H, W, samples)
    repacked(tmp_path / "a.tif", pixels, "tiff_lzw")
    same(tmp_path / "a.tif", pixels[..., :3] @ LUMA / 65535)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png(channels, tmp_path):
    pixels = made("u2", H, W, channels)
    (tmp_path / "a.png").write_bytes(png16(pixels))
    level = pixels[..., 0] if channels < 3 else pixels[..., :3] @ LUMA
    same(tmp_path / "a.png", level / 65535)


@pytest.mark.parametrize("turn", range(1, 9))
def test_pixels_stay_where_the_file_has_them(turn, tmp_path):
    pixels = made("u2")
    (tmp_path / "a.tif").write_bytes(tiff([pixels], more={274: (3, [turn])}))
    same(tmp_path / "a.tif", pixels / 65535)
    repacked(tmp_path / "a.tif", pixels[..., None], "tiff_lzw", turn)
    same(tmp_path / "a.tif", pixels / 65535)
    with Image.open(tmp_path / "a.tif") as image:
        image.load()
        assert (turn == 1) == np.array_equal(np.asarray(image), pixels)
    colour = made("u2", H, W, 3)
    repacked(tmp_path / "a.tif", colour, "tiff_lzw", turn)
    same(tmp_path / "a.tif", colour @ LUMA / 65535)
    exif = Image.Exif()
    exif[274] = turn
    Image.fromarray(made("u1")).save(tmp_path / "a.png", exif=exif)
    same(tmp_path / "a.png", made("u1") / 255)


def test_levels_where_0_is_white(tmp_path):
    for dtype in ("u1", "u2"):
        pixels = made(dtype)
        (tmp_path / "w.tif").write_bytes(tiff([pixels], photometric=0))
        white = np.iinfo(dtype).max
        same(tmp_path / "w.tif", (white - pixels.astype(float)) / white)


def test_12_bits_are_a_share_of_4095(tmp_path):
    pixels = made("u2", 16, 32) & 4095
    high, low = pixels[:, ::2], pixels[:, 1::2]
    packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], axis=-1)
    packed = packed.astype(np.uint8).reshape(16, -1)
    more = {256: (4, [32]), 258: (3, [12])}
    (tmp_path / "a.tif").write_bytes(tiff([packed], rows=1000, more=more))
    same(tmp_path / "a.tif", pixels / 4095)


@pytest.mark.parametrize("white", [4095, 65535, 100])
@pytest.mark.parametrize("colours", [1, 3])
def test_netpbm_with_another_white(white, colours, tmp_path):
    pixels = made("u4", H, W, colours) % (white + 1)
    pixels = pixels.astype(">u2" if white > 255 else "u1")
    kind, ending = ("P5", "pgm") if colours == 1 else ("P6", "ppm")
    path = tmp_path / f"a.{ending}"
    path.write_bytes(f"{kind}\n{W} {H}\n{white}\n".encode() + pixels.tobytes())
    same(path, (pixels[..., 0] if colours == 1 else pixels @ LUMA) / white)


def test_every_mode_of_pillow_has_its_grey_levels():
    colour = made("u1", H, W, 4)
    level = grey(np.ascontiguousarray(colour[..., :3]))
    for mode in ("RGB", "RGBA", "RGBX"):
        image = Image.fromarray(colour).convert(mode)
        np.testing.assert_array_equal(grey(pixels_of(image)), level)
    for mode in ("1", "L", "LA", "La", "P", "PA", "CMYK", "YCbCr", "RGBa", "HSV"):
        image = Image.new(mode, (W, H), 0)
        levels = grey(pixels_of(image))
        assert (levels.shape, levels.dtype) == ((H, W), np.float32)
    lightness = Image.merge("LAB", [Image.fromarray(made("u1", seed=i)) for i in range(3)])
    np.testing.assert_array_equal(grey(pixels_of(lightness)), grey(made("u1")))
    wide = made("u2")
    for mode in ("I;16", "I;16B"):
        image = Image.frombytes(mode, (W, H), wide.astype("<u2" if mode == "I;16" else ">u2"))
        np.testing.assert_array_equal(grey(pixels_of(image)), grey(wide))


def test_transparent_pixels_have_the_colour_that_is_stored(tmp_path):
    pixels = made("u1", H, W, 4)
    pixels[..., 3] = 0
    for ending in ("png", "tif"):
        Image.fromarray(pixels).save(tmp_path / f"a.{ending}")
        same(tmp_path / f"a.{ending}", pixels[..., :3] @ LUMA / 255)


def test_8_and_16_bits_and_floats_in_one_folder_have_one_scale(tmp_path):
    pixels = made("u1")
    Image.fromarray(pixels).save(tmp_path / "8.png")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "16.png")
    (tmp_path / "b.tif").write_bytes(tiff([pixels.astype(np.uint16) * 257], order=">"))
    Image.fromarray((pixels / 255).astype(np.float32)).save(tmp_path / "f.tif")
    same(tmp_path, *[pixels / 255] * 4)


# --- the same bits as at one go ---------------------------------------------------------------


def simply(folder, size, n_patches, seed):
    """Patches of ordinary pictures as one would write it down, each picture decoded whole."""
    images = []
    for file in sorted(folder.iterdir()):
        with Image.open(file) as image:
            grey_already = image.mode in ("1", "L", "I;16", "F")
            pixels = np.asarray(image if grey_already else image.convert("RGB"))
        level = pixels @ LUMA if pixels.ndim == 3 else pixels
        if pixels.dtype.kind == "u":
            level = level / (255.0 if pixels.dtype.itemsize == 1 else 65535.0)
        images.append(np.asarray(level, np.float32))
    places = draw_positions([i.shape for i in images], n_patches, size, np.random.default_rng(seed))
    cut = [
        images[i][row : row + size, column : column + size].ravel()
        for i, row, column in zip(*places, strict=True)
    ]
    return np.stack(cut)


def test_patches_of_ordinary_pictures_are_the_same_bits_as_written_down_simply(tmp_path):
    level, colour = made("u1", 90, 110), made("u1", 90, 110, 3)
    images = {
        **{
            f"grey.{ending}": level for ending in ("png", "tif", "bmp", "pgm", "jpg", "webp", "gif")
        },
        **{
            f"rgb.{ending}": colour for ending in ("png", "tif", "bmp", "ppm", "jpg", "webp", "gif")
        },
        **{f"rgba.{ending}": made("u1", 90, 110, 4) for ending in ("png", "tif", "webp")},
        "la.png": made("u1", 90, 110, 2),
        "bits.png": level > 100,
        "bits.tif": level > 100,
        "16.png": made("u2", 90, 110),
        "float.tif": made("f4", 90, 110),
        "large.png": made("u1", 1100, 1300, 3),
        "large.jpg": made("u1", 1100, 1300),
    }
    for name, pixels in images.items():
        Image.fromarray(pixels).save(tmp_path / name)
    for mode in ("P", "CMYK", "YCbCr"):
        Image.fromarray(colour).convert(mode).save(tmp_path / f"{mode}.tif")
    for packing in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        Image.fromarray(colour).save(tmp_path / f"{packing}.tif", compression=packing)
    found = open_source(tmp_path, patch_size=8, n_patches=5000, random_state=3).array
    np.testing.assert_array_equal(found, simply(tmp_path, 8, 5000, 3))


def test_large_pictures_turn_grey_piece_by_piece_to_the_same_bits():
    for shape in ((700, 901, 3), (2, 600_001, 3), (600_001, 2, 3)):
        pixels = made("u1", *shape)
        np.testing.assert_array_equal(grey(pixels), (pixels @ LUMA / 255.0).astype(np.float32))


def test_patches_by_rows_are_those_of_the_whole():
    level = made("f4", 3000, 700)
    rng = np.random.default_rng(0)
    at = np.column_stack([rng.integers(0, 2993, 500), rng.integers(0, 693, 500)])
    asked = []

    def rows(top, bottom):
        asked.append(bottom - top)
        return level[top:bottom]

    every = np.lib.stride_tricks.sliding_window_view(level, (8, 8))
    cut = patches_by_rows(rows, 700, 8, at)
    np.testing.assert_array_equal(cut, every[at[:, 0], at[:, 1]].reshape(500, 64))
    assert len(asked) == 2
    assert max(asked) < 1600


# --- pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("pack", [None, "deflate"])
def test_all_pages_of_a_tiff_stack(order, pack, tmp_path):
    pages = [made("u2", H + i, W - i, seed=i) for i in range(5)]
    (tmp_path / "s.tif").write_bytes(tiff(pages, order=order, pack=pack))
    same(tmp_path / "s.tif", *[page / 65535 for page in pages])


def test_all_pages_of_a_packed_stack(tmp_path):
    pages = [made("u2", seed=i) for i in range(4)]
    first, *others = map(Image.fromarray, pages)
    first.save(tmp_path / "s.tif", save_all=True, append_images=others, compression="tiff_lzw")
    same(tmp_path / "s.tif", *[page / 65535 for page in pages])


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_all_pages_of_an_animation(ending, tmp_path):
    pages = [made("u1", seed=i) for i in range(4)]
    first, *others = [
        Image.fromarray(page).convert("L" if ending == "gif" else "RGB") for page in pages
    ]
    options = {"lossless": True} if ending == "webp" else {}
    first.save(tmp_path / f"s.{ending}", save_all=True, append_images=others, **options)
    same(tmp_path / f"s.{ending}", *[page / 255 for page in pages])


def test_a_stack_of_imagej_with_one_directory(tmp_path):
    pages = [made("u2", seed=i) for i in range(6)]
    words = "ImageJ=1.54f\nimages=6\nslices=6\n"
    for order in "<>":
        raw = tiff(pages, order=order, description=words, one_directory=True, rows=1000)
        (tmp_path / "s.tif").write_bytes(raw)
        same(tmp_path / "s.tif", *[page / 65535 for page in pages])
    lost = tiff(pages[:3], description=words, one_directory=True, rows=1000)
    (tmp_path / "s.tif").write_bytes(lost)
    with pytest.raises(SourceError, match=r"s\.tif with 3 of the 6 pages that it declares"):
        open_source(tmp_path / "s.tif", patch_size=4, n_patches=5)


def test_smaller_copies_and_further_channels_are_left_out_and_said(tmp_path):
    pages = [made("u2"), made("u2", H // 2, W // 2)]
    raw = bytearray(tiff(pages, more={254: (4, [0])}))
    at = raw.rindex(b"\xfe\0\x04\0\x01\0\0\0")
    raw[at + 8] = 1
    (tmp_path / "pyramid.tif").write_bytes(raw)
    with pytest.warns(UserWarning, match=r"pyramid\.tif: 1 smaller copy or mask"):
        same(tmp_path / "pyramid.tif", pages[0] / 65535)
    two = made("u2", H, W, 2)
    (tmp_path / "two.tif").write_bytes(tiff([two]))
    with pytest.warns(UserWarning, match=r"two\.tif: 1 channel beside the first"):
        same(tmp_path / "two.tif", two[..., 0] / 65535)


def test_pictures_behind_a_photograph_are_left_out_and_said(tmp_path):
    pages = [Image.fromarray(made("u1", seed=i)) for i in range(2)]
    pages[0].save(tmp_path / "a.mpo", save_all=True, append_images=pages[1:])
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    with pytest.warns(UserWarning, match=r"a\.jpg: the pictures behind the first \(MPO\)"):
        open_source(tmp_path / "a.jpg", patch_size=4, n_patches=9)


def test_pixels_in_no_page_are_said(tmp_path):
    pages = [made("u2", 200, 200, seed=i) for i in range(4)]
    raw = tiff(pages, one_directory=True, rows=200, description="made by another program")
    (tmp_path / "a.tif").write_bytes(raw)
    with pytest.warns(UserWarning, match=r"^left out: a\.tif: 24\d{4} bytes that are in no page"):
        same(tmp_path / "a.tif", pages[0] / 65535)


def test_depth_that_is_lost_is_said(tmp_path):
    (tmp_path / "a.ppm").write_text(f"P3 9 9 65535\n{'40000 ' * 243}")
    four = made("u2", H, W, 4)
    (tmp_path / "cmyk.tif").write_bytes(tiff([four], photometric=5))
    frames = [Image.fromarray(made("u1", H, W, 3, seed=i)) for i in range(2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    for name in ("a.ppm", "cmyk.tif"):
        with pytest.warns(UserWarning, match=rf"^left out: {name}: the lower 8 of 16"):
            open_source(tmp_path / name, patch_size=4, n_patches=9)
    open_source(tmp_path / "a.png", patch_size=4, n_patches=9)


def test_tiff_that_nothing_here_can_unpack_is_named_by_its_tags(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff([made("f8")], more={259: (3, [5])}))
    with pytest.raises(SourceError, match=r"a\.tif with pixels of f64 bits, packed by method 5"):
        open_source(tmp_path / "a.tif", patch_size=4, n_patches=9)


# --- folders ----------------------------------------------------------------------------------


def save(path, *shape, seed=0):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(made("u1", *(shape or (40, 40)), seed=seed)).save(path)
    return path


def cut_off(path):
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


ODD = {
    "text": lambda d: (d / "odd.png").write_text("not a picture"),
    "empty": lambda d: (d / "odd.png").write_bytes(b""),
    "cut": lambda d: cut_off(save(d / "odd.png")),
    "hidden": lambda d: save(d / "._odd.png"),
    "resource": lambda d: (d / "odd.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X"),
    "jpeg": lambda d: save(d / "odd.jpg").rename(d / "odd.png"),
    "small": lambda d: save(d / "odd.png", 5, 60),
    "fifo": lambda d: os.mkfifo(d / "odd.png"),
    "link": lambda d: (d / "odd.png").symlink_to(d / "nothing.png"),
    "circle": lambda d: (d / "odd.png").symlink_to(d / "odd.png"),
    "folder": lambda d: (d / "odd.png").mkdir(),
    "tiff": lambda d: (d / "odd.tif").write_bytes(tiff([made("u2")])[:60]),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_is_passed_over_with_a_note(kind, tmp_path):
    save(tmp_path / "good.png")
    options = {"patch_size": 8, "n_patches": 300, "random_state": 2}
    expected = open_source(tmp_path, **options).array
    ODD[kind](tmp_path)
    if kind == "link":
        assert not (tmp_path / "odd.png").exists()
    with pytest.warns(UserWarning, match=r"odd\.") as noted:
        found = open_source(tmp_path, **options).array
    assert len(noted) == 1
    assert "\n" not in str(noted[0].message)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", sorted(set(ODD) - {"hidden", "folder", "link", "circle"}))
def test_an_odd_file_that_was_asked_for_is_an_error(kind, tmp_path):
    ODD[kind](tmp_path)
    (file,) = tmp_path.iterdir()
    with pytest.raises(SourceError, match=r"^source: found odd\.") as caught:
        open_source(file, patch_size=8, n_patches=10)
    assert "\n" not in str(caught.value)


def test_a_folder_of_odd_files_alone_is_an_error(tmp_path):
    for kind in ("text", "hidden", "tiff"):
        ODD[kind](tmp_path)
    with pytest.raises(SourceError, match=r"without a picture that can be read.*odd"):
        open_source(tmp_path)


def test_many_odd_files_are_counted(tmp_path):
    save(tmp_path / "good.png")
    for i in range(30):
        (tmp_path / f"odd{i:02}.png").write_text("text")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path)  # a circle of folders
    (tmp_path / "notes.txt").write_text("no ending of a picture")
    message = r"30 files of 31 in \S+ passed over: odd00\.png \(.*\), odd01.*, odd02.* and 27 more"
    with pytest.warns(UserWarning, match=message) as noted:
        open_source(tmp_path, patch_size=8, n_patches=10)
    assert len(str(noted[0].message)) < 400


def test_control_characters_of_a_name_are_not_printed(tmp_path):
    save(tmp_path / "good.png")
    (tmp_path / "\x1b[2J.png").write_text("text")
    with pytest.warns(UserWarning, match=r"\\x1b\[2J\.png") as noted:
        open_source(tmp_path, patch_size=8, n_patches=10)
    assert str(noted[0].message).isprintable()


def test_a_broken_file_does_not_change_the_draw_of_a_generator(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", seed=1)
    expected = open_source(
        tmp_path, patch_size=8, n_patches=99, random_state=np.random.default_rng(5)
    ).array
    save(tmp_path / "c.png", seed=2)
    cut_off(tmp_path / "c.png")
    with pytest.warns(UserWarning, match=r"c\.png"):
        found = open_source(
            tmp_path, patch_size=8, n_patches=99, random_state=np.random.default_rng(5)
        ).array
    np.testing.assert_array_equal(found, expected)


# --- defaults ---------------------------------------------------------------------------------


def test_the_default_number_of_patches_is_what_there_is_at_most(tmp_path):
    save(tmp_path / "a.png", 100, 100)
    with pytest.warns(UserWarning, match=r"a\.png: 7921 patches, all that there are"):
        source = open_source(tmp_path / "a.png")
    assert (source.n_samples, source.feature_shape) == (89 * 89, (12, 12))
    assert len({row.tobytes() for row in source.array}) == 89 * 89
    with pytest.raises(ArgumentError, match=r"^n_patches: found 7922; needed at most 7921"):
        open_source(tmp_path / "a.png", n_patches=7922)
    save(tmp_path / "b.png", 400, 400)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_source(tmp_path / "b.png").n_samples == 20_000


def test_the_default_patch_fits_small_pictures(tmp_path):
    for i in range(30):
        save(tmp_path / f"{i}.png", 8, 8, seed=i)
    save(tmp_path / "dot.gif", 1, 1)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        source = open_source(tmp_path)
    assert (source.n_samples, source.feature_shape) == (30, (8, 8))
    assert [str(each.message).split(": ", 1)[1] for each in noted] == [
        "pictures smaller than a patch passed over: dot.gif (1 x 1)",
        "patches of 8 x 8 pixels, since 12 x 12, the default, fits in no picture",
        "30 patches, all that there are; the default is 20000",
    ]
    with pytest.raises(SourceError, match=r"no picture that holds a patch.*at least 9 x 9"):
        open_source(tmp_path, patch_size=9)

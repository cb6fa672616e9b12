"""Images become rows: grey levels, positions, square patches. The one place for all three."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoal.vocabulary import ArgumentError, check_count

__all__ = [
    "N_PATCHES",
    "PATCH_SIZE",
    "Positions",
    "count_places",
    "draw_positions",
    "extract_patches",
    "grey",
    "patches_by_rows",
    "pixels_of",
    "reduce",
]

PATCH_SIZE = 12  # as in Olshausen & Field (1997)
N_PATCHES = 20_000  # arbitrary; some hundred rows a feature at that size

# ITU-R BT.601, the weights that Pillow's mode "L" uses too.
_LUMA = np.array([0.299, 0.587, 0.114])

# Pixels whose colours are weighted at once: in float64 they take 24 bytes each. A power of
# two, so that the sums are taken in the same groups, and to the same bits, as at one go.
_PIECE = 2**18

# Pixels turned grey at once, when only the patches of a picture are wanted. Arbitrary.
_BAND = 2**20

# Modes of Pillow that are grey levels already, at their full depth.
_GREY_MODES = ("1", "L", "I;16", "I;16L", "I;16B", "I;16N", "I", "F")


class Positions(NamedTuple):
    """Where patches lie: the image, and the row and column of the upper left pixel."""

    image: NDArray[np.intp]  # (N,)
    row: NDArray[np.intp]  # (N,)
    column: NDArray[np.intp]  # (N,)


def grey(image: NDArray) -> NDArray[np.float32]:
    """Grey levels of an image: [0, 1] for whole-number pixels, floats as they are.

    Parameters
    ----------
    image : ndarray of shape (height, width) or (height, width, 3)
        8-bit pixels are divided by 255, wider ones by 65535 (16-bit images often arrive
        in a 32-bit array); colours are weighted by ITU-R BT.601.

    Returns
    -------
    ndarray of shape (height, width), float32

    Raises
    ------
    ArgumentError
        If the shape is another.

    Examples
    --------
    >>> grey(np.array([[0, 255]], dtype=np.uint8))
    array([[0., 1.]], dtype=float32)
    """
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ArgumentError(
            "image", f"shape {image.shape}", "shape (height, width) or (height, width, 3)"
        )
    level = _weighted(image) if image.ndim == 3 else image
    if image.dtype.kind in "iu":
        level = level / (255.0 if image.dtype.itemsize == 1 else 65535.0)
    return np.asarray(level, dtype=np.float32)


def _weighted(image: NDArray) -> NDArray:
    """`image @ _LUMA`, a piece at a time where it is large."""
    height, width, _ = image.shape
    if height * width <= _PIECE:
        return image @ _LUMA
    level = np.empty((height, width), np.result_type(image, _LUMA))
    rows = max(1, _PIECE // width)
    for top in range(0, height, rows):
        for left in range(0, width, _PIECE):
            piece = np.s_[top : top + rows, left : left + _PIECE]
            level[piece] = image[piece] @ _LUMA
    return level


def pixels_of(picture: Any) -> NDArray:
    """The pixels of a Pillow image, of its own depth, for :func:`grey`.

    Levels of grey stay as they are (bits, 8, 16 and 32 bits of either byte order, floats);
    of CIE L*a*b* the lightness is taken; all else becomes RGB. An alpha channel is left
    aside: a transparent pixel has the colour that is stored.

    Returns
    -------
    ndarray of shape (height, width) or (height, width, 3)
    """
    if picture.mode == "LAB":
        return np.asarray(picture.getchannel("L"))
    if picture.mode not in _GREY_MODES:
        if picture.mode == "La":  # multiplied by its alpha; Pillow converts it by this step only
            picture = picture.convert("LA")
        elif picture.mode == "RGBa":
            picture = picture.convert("RGBA")
        picture = picture.convert("RGB")
    return np.asarray(picture)


def reduce(image: NDArray, factor: int) -> NDArray:
    """`image` (height, width) by the mean of square blocks; a remainder is cut off.

    >>> reduce(np.array([[0.0, 2.0, 9.0], [4.0, 6.0, 9.0]]), 2).tolist()
    [[3.0]]
    """
    most = min(image.shape)
    factor = check_count("shrink", factor, high=most)
    height, width = (side // factor for side in image.shape)
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor)
    return blocks.mean(axis=(1, 3), dtype=image.dtype)


def count_places(shapes: Sequence[tuple[int, int]], size: int) -> int:
    """In how many places a patch fits in images of `shapes`.

    >>> count_places([(20, 30), (5, 5)], 12)
    171
    """
    return sum(max(h - size + 1, 0) * max(w - size + 1, 0) for h, w in shapes)


def draw_positions(
    shapes: Sequence[tuple[int, int]], n_patches: int, size: int, rng: np.random.Generator
) -> Positions:
    """Distinct random positions, uniform over every place where a patch fits.

    Parameters
    ----------
    shapes : sequence of (height, width)
        One an image; a large image gets more patches than a small one.
    n_patches : int
        How many.
    size : int
        Side of the square patch in pixels.
    rng : numpy.random.Generator
        Draws them.

    Returns
    -------
    Positions
        Three arrays of shape (n_patches,), in random order.

    Raises
    ------
    ArgumentError
        If no image can hold a patch, or if there are fewer places than `n_patches`.

    Examples
    --------
    >>> places = draw_positions([(20, 30)], 4, 12, np.random.default_rng(0))
    >>> places.row.shape, bool(places.row.max() <= 8), bool(places.column.max() <= 18)
    ((4,), True, True)
    """
    size = check_count("patch_size", size)
    n_patches = check_count("n_patches", n_patches)
    heights = np.array([max(height - size + 1, 0) for height, _ in shapes], dtype=np.intp)
    widths = np.array([max(width - size + 1, 0) for _, width in shapes], dtype=np.intp)
    ends = np.cumsum(heights * widths)
    total = int(ends[-1]) if len(ends) else 0
    if total == 0:
        raise ArgumentError("patch_size", str(size), "a patch that fits in the images")
    if n_patches > total:
        raise ArgumentError(
            "n_patches", str(n_patches), f"at most {total}, the places where a patch fits"
        )
    place = rng.choice(total, size=n_patches, replace=False)
    image = np.searchsorted(ends, place, side="right")
    offset = place - (ends - heights * widths)[image]
    row, column = np.divmod(offset, widths[image])
    return Positions(image, row, column)


def extract_patches(image: NDArray, size: int, positions: NDArray) -> NDArray:
    """Cut square patches out of one grey image.

    Parameters
    ----------
    image : ndarray of shape (height, width)
        Grey levels.
    size : int
        Side of the patch in pixels.
    positions : ndarray of int of shape (N, 2)
        Row and column of each patch's upper left pixel.

    Returns
    -------
    ndarray of shape (N, size * size)
        A new array, row-major patches, with the image's dtype.

    Raises
    ------
    ArgumentError
        If a patch would stick out of the image.

    Examples
    --------
    >>> extract_patches(np.arange(12.0).reshape(3, 4), 2, np.array([[0, 0], [1, 2]]))
    array([[ 0.,  1.,  4.,  5.],
           [ 6.,  7., 10., 11.]])
    """
    size = check_count("size", size)
    positions = np.asarray(positions, dtype=np.intp).reshape(-1, 2)
    room = np.array(image.shape) - size
    if np.any(room < 0) or np.any(positions < 0) or np.any(positions > room):
        raise ArgumentError(
            "positions",
            "a patch that sticks out of the image",
            f"rows from 0 to {room[0]} and columns from 0 to {room[1]}",
        )
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size))
    return windows[positions[:, 0], positions[:, 1]].reshape(len(positions), size * size)


def patches_by_rows(
    rows: Callable[[int, int], NDArray], width: int, size: int, positions: NDArray
) -> NDArray[np.float32]:
    """:func:`extract_patches` of an image that is at hand a band of rows at a time.

    Parameters
    ----------
    rows : callable
        From the first row and the one after the last to grey levels of shape
        (rows, width).
    width : int
        Of the image.
    size, positions
        As for :func:`extract_patches`; the same patches, in the same order.

    Returns
    -------
    ndarray of shape (N, size * size), float32
    """
    out = np.empty((len(positions), size * size), dtype=np.float32)
    step = max(1, _BAND // width)
    band = positions[:, 0] // step
    for number in np.unique(band):
        here = np.flatnonzero(band == number)
        at = positions[here]
        top, bottom = at[:, 0].min(), at[:, 0].max() + size
        out[here] = extract_patches(rows(int(top), int(bottom)), size, at - [top, 0])
    return out

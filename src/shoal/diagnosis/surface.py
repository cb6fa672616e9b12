"""The loss around a dictionary: along directions, and in a plane.

The picture of Rangamani et al. 2017, Figure 1, of a model of one's own: whether it lies in a well,
how wide, and what is on the other side. Torch loads inside the functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shoal.vocabulary import ArgumentError, Parameters, check_count, check_number

if TYPE_CHECKING:
    from shoal.network.activations import Activation

__all__ = ["DIRECTIONS", "Landscape", "Line", "Plane", "landscape"]

Floats = NDArray[np.float64]

DIRECTIONS = ("random", "mean", "swap")

REACH = 1.5  # arbitrary; unit atoms at sqrt(2) have nothing left of where they were

# Of the distance of two atoms: to where they have changed places, and a little beyond each end.
BEYOND = 0.25


@dataclass(frozen=True)
class Line:
    """Along one direction.

    Attributes
    ----------
    name : str
        "random", "mean", "swap", or a name of your own.
    t : ndarray of shape (T,)
        How far each atom is from the centre; of a swap the mean over the atoms.
    loss : ndarray of shape (T,)
        Mean of 1/2 |y - y_hat|^2.
    gradient : ndarray of shape (T,)
        Mean over the atoms of |dL / dW_i|.
    swapped : float or None
        Of a swap: the t at which all pairs have changed places.
    """

    name: str
    t: Floats
    loss: Floats
    gradient: Floats
    swapped: float | None = None


@dataclass(frozen=True)
class Plane:
    """In the plane of two directions.

    Attributes
    ----------
    names : tuple of str
        Of the first direction, and the second.
    s : ndarray of shape (S,)
        Along the first.
    t : ndarray of shape (T,)
        Along the second.
    loss : ndarray of shape (S, T)
    swapped : float or None
        Where along the second all pairs have changed places, if it is a swap.
    """

    names: tuple[str, str]
    s: Floats
    t: Floats
    loss: Floats
    swapped: float | None = None


@dataclass(frozen=True)
class Landscape:
    """The loss around one dictionary; made by :func:`landscape`.

    Attributes
    ----------
    lines : tuple of Line
    plane : Plane or None
    loss : float
        At the centre.
    gradient : float
        Mean norm of a column of the gradient there.
    zero : float
        The loss of a dictionary of zeros: the mean of 1/2 |y|^2, the unit of a picture.
    silent : float
        Share of the samples that no unit answers at the centre.
    n_samples, n_atoms, n_features : int
    activation : str
    bias : str
        What it is, in words, with its value.
    """

    lines: tuple[Line, ...]
    plane: Plane | None
    loss: float
    gradient: float
    zero: float
    silent: float
    n_samples: int
    n_atoms: int
    n_features: int
    activation: str
    bias: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, to five digits."""
        plane = self.plane
        return {
            **{name: _rounded(getattr(self, name)) for name in _NUMBERS},
            "activation": self.activation,
            "bias": self.bias,
            "lines": [_record(line) for line in self.lines],
            "plane": None if plane is None else {**_record(plane), "names": list(plane.names)},
        }


_NUMBERS = ("loss", "gradient", "zero", "silent", "n_samples", "n_atoms", "n_features")


def _record(part: Line | Plane) -> dict[str, Any]:
    return {name: _rounded(value) for name, value in vars(part).items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_rounded(each) for each in value.tolist()]
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    # JSON has no infinity: what has left the range of floats has no number.
    if isinstance(value, float):
        return float(f"{value:.5g}") if np.isfinite(value) else None
    return value


def landscape(
    dictionary: Any,
    data: Any,
    activation: Activation,
    bias: Any = 0.0,
    *,
    threshold: Any = None,
    offset: Any = None,
    bias_name: str | None = None,
    directions: Sequence[str] | Mapping[str, Any] = DIRECTIONS,
    t: Any = None,
    n_points: int = 25,
    plane: Sequence[str] | None = ("random", "swap"),
    n_plane: int = 13,
    random_state: Any = 0,
) -> Landscape:
    """Loss and gradient of a weight-tied autoencoder around a dictionary.

    Parameters
    ----------
    dictionary : array_like of shape (m, n)
        The centre W, atoms as rows of any length but 0.
    data : array_like of shape (N, n)
        float32 or float64; what is computed is computed in that type.
    activation : Activation
        Of :mod:`shoal.network.activations`, or any callable of that kind.
    bias : float or array_like of shape (m,)
        What is added before the activation; it stays as it is, but changes places with its atom
        in a swap.
    threshold, offset : array_like of shape (m,) and (n,), optional
        Of an activation that learns thresholds, and of the decoder. They stay.
    bias_name : str, optional
        What to call it in pictures.
    directions : sequence of str, or mapping of str to array_like of shape (m, n)
        Which lines to follow, in W + t D:

        - "random": rows of D are independent, uniform on the sphere, as in Figure 1;
        - "mean": every row is the direction of the data's mean, which is what atoms of
          non-negative codes share; left out where the mean is 0 within its error;
        - "swap": atoms change places in random pairs, in a straight line. Where they have done
          so the loss is what it was; half way both are the same atom. Needs two atoms.

        A mapping gives directions of your own, by name; they are taken as they are.
    t : array_like of shape (T,), optional
        Where on each line; by default `n_points` from -1.5 to 1.5 lengths of an atom, and for a
        swap from a quarter before its start to a quarter beyond its end.
    n_points : int
        At least 2.
    plane : pair of str, or None
        Two of the directions, by name, whose plane is drawn; without a plane where one is left
        out.
    n_plane : int
        Points along each side of the plane, at least 2. With 13, 25, ... of them the centre and
        the end of a swap are among them.
    random_state : None, int or numpy.random.Generator
        The seed of the directions.

    Returns
    -------
    Landscape

    Raises
    ------
    ArgumentError
        If shapes don't fit, or a name or number can't be used.

    Notes
    -----
    Rangamani et al. (2017), section 6: "We draw a matrix from a standard normal distribution, and
    normalize its columns", f(t) = L(A* + t DW). The gradient is that of
    :func:`shoal.network.sample_gradient`; a jump of the activation adds nothing to it.

    Examples
    --------
    The truth of orthonormal atoms lies in a well, and so does each order of them:

    >>> from shoal.generative import NonnegativeSparseCoding
    >>> from shoal.network import ReLU
    >>> world = NonnegativeSparseCoding(np.eye(6), 2, low=1.0, high=2.0)
    >>> found = landscape(world.dictionary, world.sample(200, 0).data, ReLU(), n_points=7)
    >>> [line.name for line in found.lines], round(found.loss, 6)
    (['random', 'mean', 'swap'], 0.0)
    >>> swap = found.lines[2]
    >>> swap.t.round(2).tolist(), (swap.loss < 1e-9).tolist()
    ([-0.35, 0.0, 0.35, 0.71, 1.06, 1.41, 1.77], [False, True, False, False, False, True, False])
    """
    from shoal.generative._checks import as_generator
    from shoal.network import encode
    from shoal.network import loss_and_gradient as both

    rows, batch, added = _read(dictionary, data, bias)
    n_points = check_count("n_points", n_points, low=2)
    n_plane = check_count("n_plane", n_plane, low=2)
    rng = as_generator(random_state)
    made = _directions(rows, batch, added, directions, rng)
    grid = None if t is None else _grid_of(t)
    fixed = {
        name: None if part is None else _tensor(np.asarray(part))
        for name, part in (("threshold", threshold), ("offset", offset))
    }
    centre = _parameters(rows, added)._replace(**fixed)  # type: ignore[arg-type]
    y = _tensor(batch)

    def at(direction: _Direction, step: float) -> tuple[float, float]:
        moved = direction.move(centre, step)
        loss, gradient = both(moved, y, activation)
        return float(loss), float(gradient.dictionary.norm(dim=1).mean())

    lines = []
    for name, direction in made.items():
        steps = direction.grid(n_points) if grid is None else grid
        values = np.array([at(direction, float(step)) for step in steps])
        lines.append(Line(name, steps, values[:, 0], values[:, 1], direction.swapped))
    loss, gradient = both(centre, y, activation)
    answered = (encode(centre, y, activation) != 0).any(dim=1)
    return Landscape(
        lines=tuple(lines),
        plane=_plane(made, plane, centre, y, activation, n_plane),
        loss=float(loss),
        gradient=float(gradient.dictionary.norm(dim=1).mean()),
        zero=float(0.5 * (batch.astype(np.float64) ** 2).sum(axis=1).mean()),
        silent=float((~answered).double().mean()),
        n_samples=len(batch),
        n_atoms=len(rows),
        n_features=rows.shape[1],
        activation=_named(activation),
        bias=bias_name or _said(added),
    )


# --- directions -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Direction:
    rows: Any  # (m, n), of the data's type
    bias: Any = None  # (m,), or None where it stays
    swapped: float | None = None

    def move(self, centre: Parameters, step: float) -> Parameters:
        dictionary = centre.dictionary + step * _tensor(self.rows)
        if self.bias is None:
            return centre._replace(dictionary=dictionary)
        moved = centre.bias + step * _tensor(self.bias)
        return centre._replace(dictionary=dictionary, bias=moved)

    def grid(self, n_points: int) -> Floats:
        if self.swapped is None:
            return np.linspace(-REACH, REACH, n_points)
        return np.linspace(-BEYOND, 1.0 + BEYOND, n_points) * self.swapped


def _directions(
    rows: NDArray, data: NDArray, added: NDArray, asked: Any, rng: np.random.Generator
) -> dict[str, _Direction]:
    if isinstance(asked, Mapping):
        own = {str(name): _fitting(name, each, rows) for name, each in asked.items()}
        return {name: _Direction(each) for name, each in own.items()}
    names = [asked] if isinstance(asked, str) else list(asked)
    for name in names:
        if name not in DIRECTIONS:
            needed = f"some of {', '.join(DIRECTIONS)}, or a mapping of names to arrays"
            raise ArgumentError("directions", repr(name), needed)
    for_random, for_swap = rng.spawn(2)  # a line is the same whatever others are asked for
    made = {
        "random": _random(rows, for_random),
        "mean": _mean(rows, data),
        "swap": _swap(rows, added, for_swap),
    }
    return {name: found for name in names if (found := made[name]) is not None}


def _random(rows: NDArray, rng: np.random.Generator) -> _Direction:
    drawn = rng.standard_normal(rows.shape)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return _Direction(drawn.astype(rows.dtype))


def _mean(rows: NDArray, data: NDArray) -> _Direction | None:
    mean = data.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    scatter = float(data.var(axis=0, dtype=np.float64).sum()) / len(data)
    if length <= 2.5 * np.sqrt(scatter):  # noise alone makes it about 1
        return None
    return _Direction(np.broadcast_to(mean / length, rows.shape).astype(rows.dtype))


def _swap(rows: NDArray, added: NDArray, rng: np.random.Generator) -> _Direction | None:
    m = len(rows)
    if m < 2:
        return None
    order, partner = rng.permutation(m), np.arange(m)
    first, second = order[: m - m % 2 : 2], order[1:m:2]
    partner[first], partner[second] = second, first
    apart = rows[partner].astype(np.float64) - rows
    distance = float(np.linalg.norm(apart, axis=1).mean())
    if distance == 0:
        return None
    biases = (added[partner].astype(np.float64) - added) / distance
    return _Direction(
        (apart / distance).astype(rows.dtype), biases.astype(rows.dtype), swapped=distance
    )


# --- the plane ------------------------------------------------------------------------------


def _plane(
    made: dict[str, _Direction],
    names: Sequence[str] | None,
    centre: Parameters,
    y: Any,
    activation: Activation,
    n_points: int,
) -> Plane | None:
    from shoal.network import loss

    if names is None:
        return None
    pair = tuple(names)
    if len(pair) != 2 or isinstance(names, str):
        raise ArgumentError("plane", repr(names), "two of the directions, or None")
    if pair[0] not in made or pair[1] not in made:
        return None
    first, second = made[pair[0]], made[pair[1]]
    s, t = first.grid(n_points), second.grid(n_points)
    values = np.empty((len(s), len(t)))
    for i, across in enumerate(s):
        moved = first.move(centre, float(across))
        for j, along in enumerate(t):
            values[i, j] = float(loss(second.move(moved, float(along)), y, activation))
    return Plane((pair[0], pair[1]), s, t, values, second.swapped)


# --- arguments ------------------------------------------------------------------------------


def _read(dictionary: Any, data: Any, bias: Any) -> tuple[NDArray, NDArray, NDArray]:
    """W (m, n), y (N, n) and b (m,), all of the data's type."""
    batch = _matrix("data", data)
    dtype = np.dtype(np.float32 if batch.dtype == np.float32 else np.float64)
    rows = _matrix("dictionary", dictionary).astype(dtype)
    if rows.shape[1] != batch.shape[1]:
        needed = f"rows of {batch.shape[1]} features, as the data's"
        raise ArgumentError("dictionary", f"shape {rows.shape}", needed)
    added = np.asarray(bias, dtype=dtype)
    if added.shape not in ((), rows.shape[:1]) or not np.isfinite(added).all():
        needed = f"a finite number, or {len(rows)} of them: one a unit"
        raise ArgumentError("bias", f"shape {added.shape} or a number not finite", needed)
    return rows, batch.astype(dtype, copy=False), np.array(np.broadcast_to(added, rows.shape[:1]))


def _matrix(argument: str, value: Any) -> NDArray:
    array = np.asarray(value)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        found = f"shape {array.shape} of {array.dtype}"
        raise ArgumentError(argument, found, "a matrix of real numbers, rows of features")
    if not np.isfinite(array).all():
        raise ArgumentError(argument, "NaN or infinity", "finite numbers")
    return array


def _fitting(name: Any, value: Any, rows: NDArray) -> NDArray:
    array = _matrix("directions", value).astype(rows.dtype)
    if array.shape != rows.shape:
        needed = f"{rows.shape}, as the dictionary's"
        raise ArgumentError("directions", f"{name!r} of shape {array.shape}", needed)
    return array


def _grid_of(t: Any) -> Floats:
    grid = np.asarray(t, dtype=np.float64)
    if grid.ndim != 1 or not len(grid):
        raise ArgumentError("t", f"shape {grid.shape}", "a list of numbers")
    for each in grid:
        check_number("t", each)
    return grid


def _tensor(array: NDArray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def _parameters(rows: NDArray, added: NDArray) -> Parameters:
    return Parameters(_tensor(rows), _tensor(added))


def _named(activation: Any) -> str:
    shown = repr(activation).removesuffix("()")
    return type(activation).__name__ if " at 0x" in shown else shown


def _said(added: NDArray) -> str:
    low, high = float(added.min()), float(added.max())
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"

"""Theorem 4 (iii) of Nguyen et al. 2018 in two modes, exact, for any number of atoms.

Orthonormal atoms and uniform supports of size k are alike under every permutation of the units, so
that the expected step acts on two kinds of errors apart:

* the **mean mode**: every atom leans towards the sum of the others. W_i = x A_i + y sum_{j != i}
  A_j keeps this form, and a step is a map of (x, y), nothing neglected: :func:`mean_mode`;
* all **other modes**: errors Z (m, m) whose rows and columns sum to 0, to first order. Expectations
  need the chances p_1, p_2, p_3 of one to three units alone. Symmetric Z and antisymmetric Z have
  one eigenvalue each: :func:`other_modes`.

For large m they contract |W - A|_F^2 by (1 - c L)^2 and (1 - c)^2, with zeta = c / (kappa2 p_i) and
L = 1 + (k-1) kappa1^2/kappa2. Both are at most 1/4 only if 1/2 <= c and c L <= 3/2, that is L <= 3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from shoal.vocabulary import check_count, check_number

__all__ = ["TwoModes", "best_step", "mean_mode", "other_modes"]

Floats = NDArray[np.float64]


class TwoModes(NamedTuple):
    """The step that serves both modes best, and what it does.

    Attributes
    ----------
    step : float
        c, with zeta = c / (kappa2 p_i lambda_i).
    mean, others : float
        What |W - A|_F^2 is multiplied by, in the mean mode and in the worst other one.
    constant : float
        C in D' = D / 4 + C k^3 / m for the worse of the two, from D = |W - A|_F^2; below 0 where
        the fall by 4 is there without it.
    """

    step: float
    mean: float
    others: float
    constant: float


def mean_mode(
    k: int,
    m: int,
    step: float,
    *,
    kappa1: float = 1.0,
    kappa2: float = 1.0,
    distance: float = 1.0,
) -> float:
    """What one expected step multiplies |W - A|_F^2 by where every atom leans to the mean. Exact.

    Parameters
    ----------
    k, m : int
        Active units a sample, and atoms, which are orthonormal; k < m.
    step : float
        c: zeta = c / (kappa2 p_i lambda_i).
    kappa1, kappa2 : float
        Moments of a non-zero.
    distance : float
        |W - A|_F at the start: each atom is distance / sqrt m from its own.

    Returns
    -------
    float

    Notes
    -----
    The gradient is eq. (5) given the true supports, by the same sums as
    :func:`~shoal.theory.gradients.enumerated_gradient`: on one support all tables are of the form
    a I + b 1 1^T, and p_ij is the same for all pairs.

    Examples
    --------
    >>> round(mean_mode(3, 1_048_576, 0.5), 3), round(mean_mode(5, 1_048_576, 0.5), 3)
    (0.25, 2.25)
    """
    check_count("k", k)
    check_count("m", m, low=k + 1)
    check_number("step", step, low=0.0, open_low=True)
    size = check_number("distance", distance, low=0.0, open_low=True) / math.sqrt(m)
    x = 1 - size**2 / 2  # <W_i, A_i>
    y = math.sqrt((1 - x**2) / (m - 1))
    eye, ones = np.eye(k), np.ones((k, k))
    cross = x * eye + y * (ones - eye)  # <W_i, A_j> on a support
    gram = eye + (2 * x * y + y**2 * (m - 2)) * (ones - eye)
    code = kappa1**2 * ones + (kappa2 - kappa1**2) * eye  # E[x x^T | S]
    moved = code @ cross.T
    to_atoms, to_rows = moved @ gram - 2 * moved, cross @ moved
    p = k / m
    pair = p * (k - 1) / (m - 1)
    # g_i = r0 W_i + r1 sum_{l != i} W_l + a0 A_i + a1 s_i, with s_i = sum_{j != i} A_j.
    r0, a0 = p * to_rows[0, 0], p * to_atoms[0, 0]
    r1, a1 = (pair * to_rows[-1, 0], pair * to_atoms[-1, 0]) if k > 1 else (0.0, 0.0)
    zeta = step / (kappa2 * p * x)
    along = (1 - zeta * r0) * x - zeta * (r1 * y * (m - 1) + a0)
    aside = (1 - zeta * r0) * y - zeta * (r1 * (x + y * (m - 2)) + a1)
    angle = math.atan2(abs(aside) * math.sqrt(m - 1), along)
    return float((2 * math.sin(angle / 2)) ** 2 / size**2)


def other_modes(k: int, m: int, *, kappa1: float = 1.0, kappa2: float = 1.0) -> tuple[float, float]:
    """Curvature over p kappa2 of errors whose rows and columns sum to 0: symmetric, antisymmetric.

    With W = A + Z, to first order in Z, the coefficient of A_j in g_i is

        kappa1^2 [(p_1 - p_3) Z_ij + 2 (p_2 - p_3) Z_ji]
        + (kappa2 - kappa1^2) [(p_1 + p_2) Z_ij + 2 p_2 Z_ji],

    p_r being the chance of r given units. A step of c multiplies Z by 1 - c times the result.

    Parameters
    ----------
    k, m : int
        Active units a sample, and atoms, which are orthonormal.
    kappa1, kappa2 : float
        Moments of a non-zero.

    Returns
    -------
    symmetric, antisymmetric : float

    Examples
    --------
    >>> [round(each, 4) for each in other_modes(3, 1025)]
    [1.0039, 0.9961]
    """
    check_count("k", k)
    check_count("m", m, low=k + 1)
    two = (k - 1) / (m - 1)
    three = two * (k - 2) / (m - 2) if m > 2 else 0.0
    mean, spread = kappa1**2 / kappa2, 1 - kappa1**2 / kappa2
    straight = mean * (1 - three) + spread * (1 + two)
    crossed = 2 * (mean * (two - three) + spread * two)
    return straight + crossed, straight - crossed


def best_step(
    k: int, m: int, *, kappa1: float = 1.0, kappa2: float = 1.0, distance: float = 1.0
) -> TwoModes:
    """The c of all c that makes the slower of both modes fastest: min over c of the maximum.

    Parameters
    ----------
    k, m, kappa1, kappa2, distance
        As for :func:`mean_mode`.

    Returns
    -------
    TwoModes

    Examples
    --------
    >>> best = best_step(4, 65_536)
    >>> round(best.step, 2), round(best.mean, 3), round(best.constant)
    (0.4, 0.36, 113)
    """
    moments = {"kappa1": kappa1, "kappa2": kappa2}
    curvatures = other_modes(k, m, **moments)

    def apart(step: float) -> tuple[float, float]:
        rest = max((1 - step * each) ** 2 for each in curvatures)
        return mean_mode(k, m, step, distance=distance, **moments), rest

    found = minimize_scalar(
        lambda step: max(apart(step)), bounds=(1e-3, 2.0), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    step = float(found.x)
    mean, others = apart(step)
    constant = (max(mean, others) - 0.25) * distance**2 / (k**3 / m)
    return TwoModes(step, mean, others, constant)

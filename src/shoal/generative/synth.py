"""The law of SynthSAEBench, the field's benchmark with a known truth, at three sizes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from shoal.generative._checks import Array, as_generator
from shoal.generative.copula import CopulaSupports, zipf
from shoal.generative.features import HierarchicalSparseCoding, RectifiedGaussian
from shoal.generative.forests import Forest
from shoal.vocabulary import check_choice, check_count, check_number

__all__ = ["SYNTH_SIZES", "SynthSize", "spread_apart", "synth_sae_bench"]


class SynthSize(NamedTuple):
    """How large a world is, and how many atoms are learnt of it.

    Examples
    --------
    >>> from shoal.generative import SYNTH_SIZES
    >>> SYNTH_SIZES["1k"]
    SynthSize(n_units=1024, n_features=512, roots=8, width=256, n_samples=60000)
    """

    n_units: int  # F
    n_features: int  # n
    roots: int
    width: int  # W
    n_samples: int  # that fits are judged after, where data is finite


SYNTH_SIZES = {
    "1k": SynthSize(1024, 512, 8, 256, 60_000),
    "4k": SynthSize(4096, 768, 32, 1024, 250_000),
    "16k": SynthSize(16_384, 768, 128, 4096, 1_000_000),
}


def synth_sae_bench(
    size: Literal["1k", "4k", "16k"] = "1k", random_state: Any = None
) -> HierarchicalSparseCoding:
    """The world of SynthSAEBench: Zipf frequencies, exclusive families, correlation, an offset.

    Parameters
    ----------
    size : {"1k", "4k", "16k"}
        F = 1024, 4096 or 16 384 features, in 512, 768 and 768 dimensions, with 8, 32 and 128
        trees. "16k" is the published one; the others have its shares at about its coherence.
    random_state : None, int or numpy.random.Generator
        The seed of directions, offset, correlation and magnitudes.

    Returns
    -------
    HierarchicalSparseCoding
        In float32, with `dictionary` (F, n), `offset` (n,), `frequency` (F,) and `sample`.

    Raises
    ------
    ArgumentError
        If an argument can't be used.

    Notes
    -----
    arXiv 2602.14687, section 3, and its generator in the package sae-lens (`sae_lens.synthetic`):
    directions spread apart (:func:`spread_apart`), an offset of length 0.5 and no noise,
    frequencies i^-0.5 from 0.4 to 5e-4, complete trees of 4 children and 3 levels given out
    breadth first, siblings exclusive and scaled by their parent, compensated frequencies, a copula
    of rank 25 and scale 0.1, magnitudes max(0, mu + s xi) with mu from 5 (first) to 4 (last) and
    s = |0.5 + 0.5 xi|. The draws are this library's own, so that worlds of equal seeds differ
    from the package's.

    Examples
    --------
    >>> world = synth_sae_bench("1k", random_state=0)
    >>> sample = world.sample(1000, random_state=1)
    >>> sample.data.shape, sample.codes.shape
    ((1000, 512), (1000, 1024))
    """
    sizes = SYNTH_SIZES[check_choice("size", size, SYNTH_SIZES)]
    count, n = sizes.n_units, sizes.n_features
    rng = as_generator(random_state)
    for_rows, for_offset, for_factor, for_values = (
        np.random.default_rng(seed) for seed in rng.integers(2**63, size=4)
    )
    frequency = zipf(count)
    offset = for_offset.standard_normal(n)
    spread = np.abs(0.5 + 0.5 * for_values.standard_normal(count))
    factor = CopulaSupports.random(frequency, 25, 0.1, for_factor).factor
    return HierarchicalSparseCoding(
        spread_apart(count, n, for_rows, dtype=np.float32),
        frequency,
        Forest.regular(count, roots=sizes.roots, children=4, depth=3),
        factor=factor,
        values=RectifiedGaussian(np.linspace(5.0, 4.0, count), spread),
        offset=0.5 * offset / np.linalg.norm(offset),
    )


def spread_apart(
    n_atoms: int,
    n_features: int,
    random_state: Any = None,
    *,
    steps: int = 100,
    rate: float = 3e-4,
    dtype: Any = np.float64,
) -> Array:
    """Random unit atoms, moved a little apart: fewer large cosines than at random.

    Adam (Kingma and Ba 2015, with its usual constants) on the sum of squared inner products of
    different atoms + m sum (|A_i|^2 - 1)^2, from independent atoms uniform on the sphere; unit
    length at the end.

    Parameters
    ----------
    n_atoms, n_features : int
        m and n, at least 1.
    random_state : None, int or numpy.random.Generator
        The seed.
    steps : int
        Of Adam, at least 0.
    rate : float
        Its step, at least 0: about how far a coordinate moves a step.
    dtype : float64 (default) or float32
        Of the work and of the result.

    Returns
    -------
    ndarray of shape (n_atoms, n_features)

    Raises
    ------
    ArgumentError
        If a number can't be used.

    Notes
    -----
    SynthSAEBench, arXiv 2602.14687, section 3. :func:`low_coherence` goes much further.

    Examples
    --------
    >>> from shoal.generative import coherence, random_dictionary
    >>> before, after = random_dictionary(64, 32, 0), spread_apart(64, 32, 0, rate=1e-3)
    >>> bool(coherence(after) < coherence(before))
    True
    """
    from shoal.generative._checks import check_dtype
    from shoal.generative.dictionaries import random_dictionary

    kind = check_dtype(dtype)
    m = check_count("n_atoms", n_atoms)
    rows = random_dictionary(m, n_features, random_state, dtype=kind)
    step = check_number("rate", rate, low=0.0)
    first, second = np.zeros_like(rows), np.zeros_like(rows)
    for number in range(1, check_count("steps", steps, low=0) + 1):
        lengths = np.einsum("ij,ij->i", rows, rows)[:, None]
        # Sums over all pairs by the (n, n) second moment: no (m, m) matrix.
        slope = 4 * (rows @ (rows.T @ rows) - lengths * rows) + 4 * m * (lengths - 1) * rows
        first += (slope - first) * kind.type(0.1)
        second += (slope**2 - second) * kind.type(0.001)
        scale = np.sqrt(second / kind.type(1 - 0.999**number)) + kind.type(1e-8)
        rows = rows - kind.type(step / (1 - 0.9**number)) * first / scale
    rows = rows.astype(np.float64)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=kind)

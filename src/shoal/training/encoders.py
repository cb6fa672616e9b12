"""An encoder fitted to the codes of a pursuit, the dictionary being held.

A pursuit's codes are what the dictionary can do; the encoder's own are one product. Here the latter
are fitted to the former, in closed form: weights by ridge regression of codes on data, or the atoms
themselves where rows are few, then for each unit the gate and the gain under which its codes are
most like the pursuit's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from shoal.data import Source
from shoal.network.codes import SparseCodes
from shoal.network.inference import ThresholdPursuit, fast_sparse_encode
from shoal.vocabulary import Parameters

__all__ = ["fitted_encoder"]

# Arbitrary: rows that it is fitted to at most, fewer where atoms are so many that their scores are
# more than this, and scores that are sorted at once.
_ROWS, _SCORES, _SORTED = 32_768, 2**25, 2**22

# Weights of its own need so many rows for each feature, and a square of features to be solved.
_ROWS_EACH, _MOST_FEATURES = 4, 4096

# Of the mean square of a feature, added to each: measured, from .01 to .1 makes no difference.
_RIDGE = 0.03


class Gates(NamedTuple):
    """What each unit does with its score: gain * z where the value of that is above threshold."""

    gain: Tensor  # (m,)
    threshold: Tensor  # (m,)


def _gates(scores: Tensor, codes: Tensor, signed: bool) -> Gates:
    """For scores and codes (N, u): the gate with the best F1, and its least-squares gain."""
    value = scores.abs() if signed else scores
    order = value.argsort(dim=0, descending=True, stable=True)
    value, wanted = value.gather(0, order), codes.gather(0, order)
    on = (wanted != 0).to(scores.dtype)
    if signed:
        scores = scores.gather(0, order)
        on *= (scores * wanted > 0).to(scores.dtype)  # of another sign it is wrong
    else:
        scores = value
    taken = torch.arange(1, len(scores) + 1, device=scores.device)[:, None]
    f1 = 2 * on.cumsum(dim=0) / (taken + (codes != 0).sum(dim=0))
    best = f1.argmax(dim=0, keepdim=True)
    following = (best + 1).clamp_max(len(scores) - 1)
    threshold = (value.gather(0, best) + value.gather(0, following)).squeeze(0) / 2
    kept = taken <= best + 1
    square = (scores.square() * kept).sum(dim=0)
    gain = (scores * wanted * kept).sum(dim=0) / square.clamp_min(torch.finfo(scores.dtype).tiny)
    never = ~(codes != 0).any(dim=0) | (gain <= 0)
    # A unit that is never active among these rows: at its own scale, above all that was seen.
    top = value[0].clamp_min(torch.finfo(scores.dtype).tiny)
    return Gates(torch.where(never, 1.0, gain), torch.where(never, top, gain * threshold))


def fitted_encoder(
    parameters: Parameters, source: Source, pursuit: ThresholdPursuit, *, tied: bool = False
) -> tuple[Parameters, ThresholdPursuit, float]:
    """The parameters with an encoder whose codes are most like those of `pursuit`.

    Parameters
    ----------
    parameters : Parameters
        Dictionary (m, n), thresholds (m,) and offset (n,) as a descent leaves them.
    source : Source
        Data of n features, of which at most 32 768 rows are read.
    pursuit : ThresholdPursuit
        What coded in the descent.
    tied : bool
        Whether weights are the atoms, each with a gain.

    Returns
    -------
    Parameters
        With encoder, bias and threshold of a :class:`shoal.network.activations.JumpReLU`.
    ThresholdPursuit
        The same pursuit by these thresholds.
    float
        Active units a row, on average, of the pursuit's codes.
    """
    pursuit = replace(pursuit, shrinkage=0.0)
    dictionary = parameters.dictionary
    m, n = dictionary.shape
    offset = torch.zeros_like(dictionary[0]) if parameters.offset is None else parameters.offset
    rows, parts = [], []
    left = min(_ROWS, max(1024, _SCORES // m))
    for batch in source.batches(min(left, 4096)):
        data = torch.from_numpy(batch).to(dictionary)[:left]
        rows.append(data - offset)
        parts.append(fast_sparse_encode(parameters, data, pursuit))
        left -= len(data)
        if left <= 0:
            break
    data = torch.cat(rows)
    width = max(part.indices.shape[1] for part in parts)
    codes = SparseCodes(
        *(torch.cat([_padded(each, width) for each in side]) for side in zip(*parts, strict=True))
    )
    weights = dictionary
    if not tied and len(data) >= _ROWS_EACH * n and n <= _MOST_FEATURES:
        square = data.T @ data
        ridge = _RIDGE * square.diagonal().mean().clamp_min(torch.finfo(data.dtype).tiny)
        square.diagonal().add_(ridge)
        listed = codes.to_csr(m)
        both = torch.from_numpy(listed.T @ data.cpu().numpy()).to(data)  # (m, n) X^T Y
        weights = torch.linalg.solve(square, both.T).T.contiguous()
    block = max(1, _SORTED // len(data))
    gates = []
    for start in range(0, m, block):
        units = slice(start, start + block)
        gates.append(_gates(data @ weights[units].T, _columns(codes, units, m), pursuit.signed))
    gain, threshold = (torch.cat(each) for each in zip(*gates, strict=True))
    assert parameters.threshold is not None
    ratio = parameters.threshold / threshold
    found = ratio[torch.isfinite(ratio)]
    share = float(found.median().clamp(0.0, 1.0)) if len(found) else 1.0
    encoder = gain[:, None] * weights
    fitted = parameters._replace(encoder=encoder, bias=-(encoder @ offset), threshold=threshold)
    active = float((codes.values != 0).sum()) / max(1, len(data))
    return fitted, replace(pursuit, share=share), active


def _padded(part: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(part, (0, width - part.shape[1]))


def _columns(codes: SparseCodes, units: slice, m: int) -> Tensor:
    """The codes of some units, dense: (N, u)."""
    start, stop, _ = units.indices(m)
    inside = (codes.indices >= start) & (codes.indices < stop)
    dense = codes.values.new_zeros(len(codes.values), stop - start)
    where = torch.where(inside, codes.indices - start, 0)
    return dense.scatter_add_(1, where, torch.where(inside, codes.values, 0.0))

"""Atoms as detectors of features: what a code says of which features are there.

Where the truth has families, unequal frequencies and more features than there are atoms, cosines
alone say little: an atom that is a sum of a parent and a child has a large cosine with both and
tells neither. Here each atom is asked whether it fires where the feature that it resembles does.
Codes stay sparse: work and memory go with the entries that aren't 0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from shoal.diagnosis._arrays import (
    Floats,
    Integers,
    as_matrix,
    check_matrix,
    check_same,
    finite_or_none,
    row_blocks,
    unit_rows,
)
from shoal.vocabulary import ArgumentError

__all__ = ["Detection", "detection"]


@dataclass(frozen=True)
class Detection:
    r"""How well atoms detect features; made by :func:`detection`.

    Each atom stands for the feature it has the largest \|cosine\| with, several atoms for one
    feature if so it comes. It fires where its code isn't 0. What is undefined counts as 0.

    Attributes
    ----------
    f1, precision, recall, accuracy : float
        Means over atoms: of the harmonic mean of precision and recall, of TP / (TP + FP), of
        TP / (TP + FN), and of the rows on which atom and feature agree.
    uniqueness : float
        Distinct features that atoms stand for / atoms. Read `f1` beside it: copies of one easy
        feature have a high mean.
    mcc : float
        Mean \|cosine\| over the pairs of the best one-to-one assignment of atoms to features,
        as many pairs as the smaller of the two numbers.
    f1_features : float
        Mean over the features that fire at all of the largest F1 among the atoms that stand for
        the feature; 0 where none does. With W atoms for F features it is W / F at most.
    f1_rare : float
        The same over the rarest quarter of the features that fire.
    f1_rare_atoms : float
        Mean F1 over the quarter of the atoms whose features are rarest.
    absorption : float or None
        Mean over families of the share of the parent's firings on which no atom of the parent
        fires and an atom of something below it does. None without `parents`.
    shrinkage : float
        Mean over rows of the length of the reconstruction / that of the data; rows shorter than
        1e-6 are left out.
    l0, true_l0 : float
        Mean number of entries that aren't 0 per row: of codes, of true codes.
    dead : int
        Atoms that never fire.
    matches : ndarray of shape (W,), int64
        The feature that each atom stands for.
    atom_f1 : ndarray of shape (W,)
        F1 of each atom.
    feature_f1 : ndarray of shape (F,)
        The largest F1 for each feature, as in `f1_features`.
    frequency : ndarray of shape (F,)
        Share of the rows in which each feature fires.
    """

    f1: float
    precision: float
    recall: float
    accuracy: float
    uniqueness: float
    mcc: float
    f1_features: float
    f1_rare: float
    f1_rare_atoms: float
    absorption: float | None
    shrinkage: float
    l0: float
    true_l0: float
    dead: int
    matches: Integers = field(repr=False)
    atom_f1: Floats = field(repr=False)
    feature_f1: Floats = field(repr=False)
    frequency: Floats = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain numbers for JSON, without the arrays."""
        numbers = {
            name: value for name, value in asdict(self).items() if not isinstance(value, np.ndarray)
        }
        return {
            name: finite_or_none(value) if isinstance(value, float) else value
            for name, value in numbers.items()
        }

    def __str__(self) -> str:
        absorbed = "" if self.absorption is None else f", absorption {self.absorption:.3f}"
        return (
            f"F1 {self.f1:.3f} (precision {self.precision:.3f}, recall {self.recall:.3f}), "
            f"uniqueness {self.uniqueness:.3f}, MCC {self.mcc:.3f}; over features "
            f"{self.f1_features:.3f}, over the rarest quarter {self.f1_rare:.3f}{absorbed}; "
            f"{self.l0:.3g} active of {self.true_l0:.3g}, {self.dead} atoms dead."
        )


def detection(
    codes: Any,
    truth_codes: Any,
    atoms: Any,
    dictionary: Any,
    *,
    parents: Any = None,
    offset: Any = None,
    true_offset: Any = None,
    data: Any = None,
) -> Detection:
    """How well the atoms of an estimate detect the features of the truth.

    Parameters
    ----------
    codes : array or scipy.sparse of shape (n_samples, W)
        The codes found; sparse ones are never made dense.
    truth_codes : array or scipy.sparse of shape (n_samples, F)
        The codes that made the data.
    atoms : array of shape (W, n)
        The dictionary found, rows of any length. A row of zeros resembles the first feature.
    dictionary : array of shape (F, n)
        The true one.
    parents : sequence of int of shape (F,), optional
        The parent of each feature, -1 for none, as in ``world.forest.parents``: for `absorption`.
    offset, true_offset : array of shape (n,), optional
        What is added to codes times atoms, and to true codes times dictionary: for `shrinkage`.
    data : array of shape (n_samples, n), optional
        For `shrinkage`; without it, true codes times dictionary plus `true_offset`.

    Returns
    -------
    Detection

    Raises
    ------
    ArgumentError
        If an array can't be used, or sizes don't fit each other.

    References
    ----------
    F1, precision, recall, accuracy, uniqueness and shrinkage: SynthSAEBench, arXiv 2602.14687,
    section 4, as in `sae_lens.synthetic` of the package sae-lens 6.54. MCC: Song et al. (2025),
    "Mechanistic interpretability should prioritize feature consistency in SAEs", arXiv 2505.20254,
    after Hyvarinen and Morioka (2016). Absorption: after Chanin et al. (2024), "A is for
    absorption", arXiv 2409.14507, who find it by probes; here the true codes are known.

    Examples
    --------
    The first atom is a feature and fires too often; the second is a feature exactly.

    >>> import numpy as np
    >>> from shoal.diagnosis import detection
    >>> truth = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]])
    >>> codes = np.array([[1.0, 0.0], [0.5, 2.0], [0.0, 1.0]])
    >>> score = detection(codes, truth, np.eye(2), np.eye(2))
    >>> round(score.f1, 3), score.precision, score.recall, score.mcc
    (0.833, 0.75, 1.0, 1.0)
    """
    found, true = _as_sparse("codes", codes), _as_sparse("truth_codes", truth_codes)
    check_same("codes", "samples", found.shape[0], true.shape[0], "truth_codes")
    rows, goal = as_matrix("atoms", atoms), as_matrix("dictionary", dictionary)
    check_same("atoms", "features", rows.shape[1], goal.shape[1], "dictionary")
    check_same("atoms", "rows", rows.shape[0], found.shape[1], "codes (units)")
    check_same("dictionary", "rows", goal.shape[0], true.shape[1], "truth_codes (units)")
    above = None if parents is None else _parents(parents, true.shape[1])
    offsets = _offset("offset", offset, rows), _offset("true_offset", true_offset, rows)
    given = None if data is None else check_matrix("data", data)
    if given is not None:
        check_same("data", "samples", given.shape[0], true.shape[0], "truth_codes")
        check_same("data", "features", given.shape[1], goal.shape[1], "dictionary")

    matches, mcc = _resemblance(rows, goal)
    n_samples, n_found = found.shape
    on, meant = _firing(found), _firing(true)
    hits = _common(on, meant.tocsc()[:, matches].tocsr())  # (W,)
    fires, needed = _per_column(on), _per_column(meant)[matches]
    precision = _ratio(hits, fires)
    recall = _ratio(hits, needed)
    f1 = _ratio(2 * precision * recall, precision + recall)
    accuracy = 1.0 - (fires + needed - 2 * hits) / n_samples

    best = np.zeros(len(goal))
    np.maximum.at(best, matches, f1)
    frequency = _per_column(meant) / n_samples
    there = np.flatnonzero(frequency > 0)
    rare = there[np.argsort(frequency[there], kind="stable")][: -(-len(there) // 4)]
    rare_atoms = np.argsort(frequency[matches], kind="stable")[: -(-n_found // 4)]
    return Detection(
        f1=float(f1.mean()),
        precision=float(precision.mean()),
        recall=float(recall.mean()),
        accuracy=float(accuracy.mean()),
        uniqueness=len(np.unique(matches)) / n_found,
        mcc=mcc,
        f1_features=float(best[there].mean()) if len(there) else 0.0,
        f1_rare=float(best[rare].mean()) if len(rare) else 0.0,
        f1_rare_atoms=float(f1[rare_atoms].mean()),
        absorption=None if above is None else _absorption(on, meant, matches, above),
        shrinkage=_shrinkage(found, true, rows, goal, offsets, given),
        l0=on.nnz / n_samples,
        true_l0=meant.nnz / n_samples,
        dead=int(np.count_nonzero(fires == 0)),
        matches=matches,
        atom_f1=f1,
        feature_f1=best,
        frequency=frequency,
    )


def _as_sparse(argument: str, value: Any) -> Any:
    """`value` as a finite CSR array with no stored zeros, a copy where anything was mended."""
    from scipy.sparse import coo_array, csr_array, vstack

    if getattr(value, "is_sparse", False):  # a torch tensor of entries and their places
        value = value.detach().coalesce().cpu()
        places, entries = value.indices().numpy(), value.values().numpy()
        value = coo_array((entries, tuple(places)), shape=tuple(value.shape))
    matrix = check_matrix(argument, value)
    if not hasattr(matrix, "tocsr"):
        if not np.isfinite(matrix).all():
            raise ArgumentError(argument, "NaN or infinity", "finite numbers")
        blocks = [csr_array(matrix[rows]) for rows in row_blocks(*matrix.shape)]
        return vstack(blocks, format="csr")
    if not np.isfinite(matrix.data).all():
        raise ArgumentError(argument, "NaN or infinity", "finite numbers")
    sparse = csr_array(matrix)
    if not sparse.has_canonical_format or not (sparse.data != 0).all():
        sparse = sparse.copy()
        sparse.sum_duplicates()
        sparse.eliminate_zeros()
    return sparse


def _firing(codes: Any) -> Any:
    """1 where codes aren't 0, in the same places."""
    from scipy.sparse import csr_array

    ones = np.ones(codes.nnz, dtype=np.int8)
    return csr_array((ones, codes.indices, codes.indptr), shape=codes.shape)


def _per_column(firing: Any) -> Floats:
    counts = np.bincount(firing.indices, minlength=firing.shape[1])
    return np.asarray(counts, dtype=np.float64)


def _common(on: Any, meant: Any) -> Floats:
    """On how many rows both fire, for each column."""
    return _per_column((on * meant).tocsr())


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _resemblance(rows: Floats, goal: Floats) -> tuple[Integers, float]:
    """The feature that each atom resembles most, and the mean cosine of the best assignment."""
    from scipy.optimize import linear_sum_assignment

    cosines = np.abs(unit_rows(rows) @ unit_rows(goal).T)
    np.minimum(cosines, 1.0, out=cosines)
    pairs = linear_sum_assignment(cosines, maximize=True)
    return cosines.argmax(axis=1), float(cosines[pairs].mean())


def _absorption(on: Any, meant: Any, matches: Integers, above: Integers) -> float:
    """Mean over families of the share of a parent's firings that only what is below it carries."""
    from scipy.sparse import csr_array

    n_features = len(above)
    sorts = csr_array(
        (np.ones(len(matches), dtype=np.int32), (np.arange(len(matches)), matches)),
        shape=(len(matches), n_features),
    )
    carried = (on.astype(np.int32) @ sorts).tocsr()  # (N, F): atoms of each feature that fire
    below = _ancestors(above)  # (F, F): 1 where the column is above the row
    under = (carried @ below).tocsr()  # (N, F): atoms that fire of what is below the feature
    only = _per_column((meant * (under > 0)).tocsr())
    only -= _per_column((meant * (under > 0) * (carried > 0)).tocsr())
    fires = _per_column(meant)
    atoms = np.bincount(matches, minlength=n_features)
    parents = np.bincount(above[above >= 0], minlength=n_features) > 0
    told = atoms + below.T @ atoms > 0
    counted = parents & (fires > 0) & told
    return float((only[counted] / fires[counted]).mean()) if counted.any() else 0.0


def _ancestors(above: Integers) -> Any:
    from scipy.sparse import csr_array

    units, ups = [], []
    current = above.copy()
    for _ in range(len(above)):
        there = np.flatnonzero(current >= 0)
        if not len(there):
            break
        units.append(there)
        ups.append(current[there])
        current[there] = above[current[there]]
    else:
        raise ArgumentError("parents", "a circle", "a forest, such as world.forest.parents")
    rows, columns = (np.concatenate([np.zeros(0, np.int64), *each]) for each in (units, ups))
    ones = np.ones(len(rows), dtype=np.int32)
    return csr_array((ones, (rows, columns)), shape=(len(above),) * 2)


def _parents(parents: Any, n_features: int) -> Integers:
    needed = f"{n_features} integers from -1 to {n_features - 1}: one a feature"
    found = np.asarray(parents)
    if found.shape != (n_features,) or found.dtype.kind not in "iu":
        raise ArgumentError("parents", f"shape {found.shape} of {found.dtype}", needed)
    if found.min() < -1 or found.max() >= n_features:
        raise ArgumentError("parents", f"{found.min()} to {found.max()}", needed)
    return found.astype(np.int64)


def _offset(argument: str, offset: Any, rows: Floats) -> Floats:
    if offset is None:
        return np.zeros(rows.shape[1])
    given = as_matrix(argument, np.asarray(offset)[None])
    if given.shape != (1, rows.shape[1]):
        raise ArgumentError(argument, f"shape {given.shape[1:]}", f"({rows.shape[1]},)")
    return np.asarray(given[0])


def _shrinkage(
    found: Any,
    true: Any,
    rows: Floats,
    goal: Floats,
    offsets: tuple[Floats, Floats],
    data: Any,
) -> float:
    """Mean length of the reconstruction over that of the data."""
    total, count = 0.0, 0
    for block in row_blocks(found.shape[0], max(1, rows.shape[1])):
        made = np.linalg.norm(found[block] @ rows + offsets[0], axis=1)
        if data is None:
            there = true[block] @ goal + offsets[1]
        else:
            there = np.asarray(data[block], dtype=np.float64)
        lengths = np.linalg.norm(there, axis=1)
        kept = lengths > 1e-6
        total += float((made[kept] / lengths[kept]).sum())
        count += int(kept.sum())
    return total / count if count else 0.0

"""What is certified and how it is learnt again: a model, or atoms with a way to code."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shoal.data import open_source, validate
from shoal.diagnosis._arrays import as_matrix, unit_rows
from shoal.estimators import DictionaryAutoencoder, RegularizedAutoencoder, TiedAutoencoder
from shoal.training.checkpoints import told
from shoal.vocabulary import ArgumentError, check_count

__all__ = ["Coded", "Recipe", "Subject", "learning", "pursued", "shuffled", "subject", "surrogate"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Coded:
    """Rows under a dictionary: what is explained by which atom, and what is left."""

    atoms: Floats
    """(m, n), of length 1."""
    codes: Any
    """(N, m), CSC, in proportion to atoms of length 1."""
    rest: Floats
    """(N, n): data - codes @ atoms, and - the offset, if there is one."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is certified: how rows are prepared and coded, and how it is learnt again."""

    atoms: Floats
    """(m, n), of length 1, in the prepared space."""
    signed: bool
    """Whether codes take both signs."""
    prepared: Floats
    """(N, n): all rows as the model sees them."""
    code: Callable[[NDArray[np.intp]], Coded]
    """The rows at these indices under the model itself."""
    estimator: Recipe
    """An unfitted model of the same settings with a seed, for prepared rows."""


@dataclass(frozen=True)
class Recipe:
    """How a model is learnt again; a value, so that another process can be told."""

    kind: type[TiedAutoencoder]
    settings: dict[str, Any]

    def __call__(self, seed: int) -> TiedAutoencoder:
        """An unfitted model with this seed."""
        return self.kind(**self.settings | {"random_state": seed})

    def told(self) -> dict[str, Any]:
        """It as plain values, to be compared."""
        return told({"estimator": self.kind.__name__, **self.settings})


def learning(model: TiedAutoencoder, rows: Floats) -> Generator[Any, None, None]:
    """Fit `model` to prepared rows: yields the steps."""
    with warnings.catch_warnings():
        # Of halves and surrogates: what there is to say of the data was said at the fit.
        warnings.simplefilter("ignore")
        yield from model.iter_fit(rows)


def coded(model: TiedAutoencoder, rows: NDArray[Any]) -> Coded:
    """Rows under a fitted model: by a pursuit where it has one."""
    method = "pursuit" if "pursuit" in model.methods else "encoder"
    blocks = list(model.iter_coded(rows, method))
    codes = sparse.vstack([sparse.csr_array(each) for _, each, _ in blocks], format="csc")
    rest = np.concatenate([data - rebuilt for data, _, rebuilt in blocks])
    return _unit(np.asarray(model.components_, dtype=np.float64), codes, rest)


def _unit(atoms: Floats, codes: Any, rest: NDArray[Any]) -> Coded:
    lengths = np.linalg.norm(atoms, axis=1)
    scaled = sparse.csc_array(codes.astype(np.float64) @ sparse.diags_array(lengths))
    scaled.eliminate_zeros()
    return Coded(unit_rows(atoms), scaled, rest.astype(np.float64))


def subject(
    model: Any,
    X: Any,
    *,
    n_nonzero_coefs: int | None = None,
    codes: Callable[[Any], Any] | None = None,
) -> Subject:
    """`model` with the rows of `X`, checked before any work."""
    if isinstance(model, TiedAutoencoder):
        for name, value in (("n_nonzero_coefs", n_nonzero_coefs), ("codes", codes)):
            if value is not None:
                raise ArgumentError(name, "one beside a model", "to be left out: it has its own")
        made = _of_model(model, X)
    else:
        made = _of_atoms(model, X, n_nonzero_coefs, codes)
    m, n_rows = len(made.atoms), len(made.prepared)
    if m < 2:
        raise ArgumentError("model", "one atom", "two atoms or more: they are told from each other")
    least = max(40, 4 * m)
    if n_rows < least:
        needed = f"{least} or more for {m} atoms: two halves, and rows held out"
        raise ArgumentError("X", f"{n_rows} rows", needed)
    return made


def _rows(X: Any, n_features: int, names: Any = None) -> NDArray[Any]:
    """`X` whole, as floats."""
    source = open_source(X) if names is None else names(open_source(X))
    if source.n_samples is None:
        raise ArgumentError("X", f"a stream, {source.name}", "rows that can be split into halves")
    if source.n_features != n_features:
        needed = f"{n_features} features, as the atoms have"
        raise ArgumentError("X", f"{source.n_features} features", needed)
    validate(source)
    return np.concatenate(list(source.batches(source.rows_at_once(8192))))


def _of_model(model: TiedAutoencoder, X: Any) -> Subject:
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(model)
    rows = _rows(X, model.n_features_in_, model.by_name)
    prepared = model.preprocessing_.apply(rows).astype(np.float64)
    settings = model.fitted_params() | {"preprocessing": None, "n_components": None}
    settings["n_components"] = len(model.components_)
    if isinstance(settings.get("init"), np.ndarray):
        settings["init"] = "auto"
    if settings.get("n_nonzero_coefs", 0) is None or settings.get("n_nonzero_coefs") == "auto":
        # What was found once is not looked for again.
        assert isinstance(model, DictionaryAutoencoder)
        settings["n_nonzero_coefs"] = model.n_nonzero_coefs_
        if model.thresholds_ is not None:
            settings["recipe"] = model.recipe_
    signed = getattr(model, "model_", "") == "sparse"
    if isinstance(model, RegularizedAutoencoder):
        signed = bool((model.transform(rows[: min(len(rows), 1000)]) < 0).any())

    atoms = unit_rows(np.asarray(model.components_, dtype=np.float64))

    def code(index: NDArray[np.intp]) -> Coded:
        with warnings.catch_warnings():  # columns are in the model's order by now, and nameless
            warnings.filterwarnings("ignore", "X does not have valid feature names")
            return coded(model, rows[index])

    return Subject(atoms, signed, prepared, code, Recipe(type(model), settings))


def _of_atoms(model: Any, X: Any, k: int | None, code: Callable[[Any], Any] | None) -> Subject:
    """Of atoms (m, n), or of any object with `components_` and `transform`."""
    given = getattr(model, "components_", model)
    if given is not model and code is None and k is None:
        code = model.transform
    atoms = as_matrix("model", given)
    if code is None and k is None:
        needed = "n_nonzero_coefs, how many atoms a row has, or codes, a function of rows"
        raise ArgumentError("model", "atoms without a way to code", needed)
    rows = _rows(X, atoms.shape[1])
    if code is None:
        number = check_count("n_nonzero_coefs", k, high=min(atoms.shape))
        code = _pursued(atoms, number)
    found = code(rows)
    table = sparse.csr_array(found)
    if table.shape != (len(rows), len(atoms)):
        raise ArgumentError("codes", f"shape {table.shape}", f"({len(rows)}, {len(atoms)})")
    if not np.isfinite(table.data).all():
        raise ArgumentError("codes", "NaN or infinity", "finite numbers")
    table.eliminate_zeros()
    signed = bool((table.data < 0).any())
    if k is None:
        mean = table.nnz / len(rows)
        k = int(np.clip(round(mean), 1, min(atoms.shape)))
    rest = rows - table @ atoms
    # What is the same in all rows is an offset, which decoders of others add and atoms lack.
    rest = rest - rest.mean(axis=0)

    def of(index: NDArray[np.intp]) -> Coded:
        return _unit(atoms, table[index].tocsc(), rest[index])

    kind = "sparse" if signed else "nonnegative"
    settings = {"n_components": len(atoms), "n_nonzero_coefs": k, "model": kind}
    recipe = Recipe(DictionaryAutoencoder, settings)
    return Subject(unit_rows(atoms), signed, rows.astype(np.float64), of, recipe)


def _pursued(atoms: Floats, k: int) -> Callable[[Any], Any]:
    """Codes of at most `k` atoms per row, of both signs, by a pursuit."""
    lengths = np.linalg.norm(atoms, axis=1)
    unit = unit_rows(atoms)

    def code(rows: Any) -> Any:
        return pursued(unit, rows, k, signed=True) / np.where(lengths > 0, lengths, 1.0)

    return code


def pursued(atoms: Floats, rows: Any, k: int, *, signed: bool) -> Floats:
    """Codes (N, m) of rows (N, n) by unit atoms (m, n), at most `k` per row, by a pursuit."""
    import torch

    from shoal.network.inference import SubspacePursuit, least_squares

    unit = torch.from_numpy(np.ascontiguousarray(atoms, dtype=np.float64))
    data = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float64))
    support = SubspacePursuit(min(k, *atoms.shape), signed)(unit, data)
    found = least_squares(unit, data, support, signed=signed)
    return np.asarray(found.dense(len(atoms)).numpy())


def surrogate(rows: Floats, rng: np.random.Generator) -> Floats:
    """As many Gaussian rows with the mean and the covariance of `rows` (N, n)."""
    mean = rows.mean(axis=0)
    centred = rows - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / len(rows))
    normal = rng.standard_normal(rows.shape) * np.sqrt(np.maximum(variances, 0.0))
    return np.asarray(normal @ axes.T + mean)


def shuffled(rows: Floats, rng: np.random.Generator) -> Floats:
    """`rows` with every column in an order of its own: its laws, and no relation among them."""
    return np.asarray(rng.permuted(rows, axis=0))

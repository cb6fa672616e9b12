"""The scikit-learn face of the autoencoder: it validates, calls the rooms, keeps the result."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from shoal.data import FittedPreprocessing, Preprocessing, Source, open_source, validate
from shoal.data.columns import aligned
from shoal.data.readers import reader_of
from shoal.diagnosis import CodeStatistics, Diagnosis, Landscape, landscape
from shoal.network.activations import Activation, TopK, at_rest, gate_of
from shoal.network.inference import (
    IterativeHardThresholding,
    OrthogonalMatchingPursuit,
    Pursuit,
    SubspacePursuit,
    fast_encode,
    fast_sparse_encode,
    least_squares,
)
from shoal.parts import check_storable
from shoal.training import (
    MODELS,
    History,
    Place,
    Recipe,
    begin,
    check_init,
    descend,
    prepare,
    pruned,
    recipe_named,
    run,
    units,
)
from shoal.training.adaptation import Adapted
from shoal.training.fit import SEARCHED, drawn, narrowed, rested, searched, started, tenth
from shoal.training.revival import Activity
from shoal.training.state import generator_at
from shoal.vocabulary import (
    ArgumentError,
    Parameters,
    Step,
    check_choice,
    check_count,
    warn,
)

__all__ = ["METHODS", "DictionaryAutoencoder", "TiedAutoencoder"]

PURSUITS: dict[str, type[Pursuit]] = {
    "pursuit": SubspacePursuit,
    "omp": OrthogonalMatchingPursuit,
    "iht": IterativeHardThresholding,
}
"""Ways to infer better codes than the encoder's own; the first is what a fit ends with."""

PARTS = {
    "dictionary": "components_",
    "bias": "bias_",
    "encoder": "encoder_",
    "threshold": "thresholds_",
    "offset": "offset_",
}
"""The attributes of a fitted model that hold its parameters, each None where there is none."""

Model = Literal["sparse", "nonnegative", "mixture"]
"""What a data set's codes are like: one of `shoal.training.MODELS`."""

Init = Literal["auto", "data", "random", "residual", "pca", "pairwise"]
"""Where atoms start, by name."""

METHODS = ("encoder", "least_squares", *PURSUITS)
"""How codes are inferred: the encoder's own code x = sigma(D y + b); least squares on its
support; subspace pursuit; orthogonal matching pursuit; iterative hard thresholding."""

# Arbitrary: rows coded at once, so that a pass over any source needs bounded memory.
_CHUNK = 4096

# Above this share of active units, codes with their zeros are rebuilt and counted faster: on one
# thread, with 256 to 2048 atoms of 64 or 192 features, the two were even between .16 and .24.
_CROWDED = 0.2


# Arbitrary: rows of a later batch that say its magnitude.
_LOOKED_AT = 64


class Carried(NamedTuple):
    """What one call of `partial_fit` hands to the next beside the model."""

    place: Place
    activity: Activity | None = None
    adapted: Adapted | None = None

    def counts(self) -> dict[str, Any]:
        """As :func:`shoal.training.begin` takes them."""
        return {"activity": self.activity, "adapted": self.adapted}


def _is_source(X: Any) -> bool:
    """Whether shoal opens `X` itself; arrays and lists of rows go through scikit-learn's checks."""
    if isinstance(X, (list, tuple)):
        return bool(X) and _is_nested(X[0])
    if isinstance(X, np.ndarray) and X.ndim > 2:
        return True
    # A data loader has a length, but no items by number as array-likes have.
    array_like = any(hasattr(X, name) for name in ("__array__", "__getitem__", "toarray"))
    stream = hasattr(X, "__iter__") and not array_like
    opened = (Source, str, Path, torch.Tensor, np.ma.MaskedArray)  # the last is refused there
    # Zarr's arrays, which scikit-learn would read whole; tables, and sparse arrays.
    known = reader_of(X) is not None
    return isinstance(X, opened) or callable(X) or stream or known


def _is_nested(item: Any) -> bool:
    """Whether an item of a list is a batch, or a row that is no list of numbers."""
    if isinstance(item, (list, tuple)):
        inner = item[0] if item else None
        return isinstance(inner, (list, tuple)) or getattr(inner, "ndim", 0) > 0
    known = reader_of(item) is not None and not isinstance(item, str)
    return known or isinstance(item, torch.Tensor) or getattr(item, "ndim", 0) > 1


def _beyond(largest: float) -> ArgumentError:
    """The error for data that can be coded, but not be measured."""
    needed = f"a largest one from {units.LEAST_SQUARED:g} to {units.MOST_SQUARED:g}, to be squared"
    return ArgumentError("X", f"values of up to {largest:.3g}", needed)


def _first(source: Source, most: int) -> NDArray[Any]:
    """The first rows, at most so many; a stream keeps them for its next pass."""
    if source.n_samples is None:  # they are its next ones: nothing is random
        return source.draw(most, np.random.default_rng(0), strict=False)
    return next(source.batches(most))


class TiedAutoencoder(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]  # scikit-learn has no types
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """What fitted weight-tied autoencoders have in common: how they are used, and checks.

    A subclass learns `components_`, `bias_`, `preprocessing_` and `n_features_in_`, names its
    activation (`_encoder`) and the ways it infers codes (`methods`), and has the arguments
    `preprocessing`, `device`, `random_state` and `sparse_output`.
    """

    methods: ClassVar[tuple[str, ...]] = ("encoder",)

    if TYPE_CHECKING:
        components_: NDArray[Any]
        bias_: NDArray[Any]
        encoder_: NDArray[Any] | None
        thresholds_: NDArray[Any] | None
        offset_: NDArray[Any] | None
        preprocessing_: FittedPreprocessing
        preprocessing: str | Preprocessing | None
        device: str | torch.device
        random_state: int | np.random.RandomState | None
        sparse_output: bool

    def _encoder(self) -> Activation:
        raise NotImplementedError

    def _keep_names(self, n_features: int, names: NDArray[Any] | None) -> None:
        self.n_features_in_ = n_features
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    # ------------------------------------------------------------------ using the model

    def transform(self, X: Any, method: str = "encoder") -> NDArray[Any] | sparse.csr_array:
        """The codes of `X`.

        Parameters
        ----------
        X : array-like, tensor, path or Source of shape (n_samples, n_features)
        method : {"encoder", "least_squares", "pursuit", "omp", "iht"}
            The encoder's own code, x = sigma(D y + b), one product and biased; least squares
            on its support; with at most k atoms subspace pursuit, orthogonal matching pursuit
            or iterative hard thresholding (see :mod:`shoal.network.pursuit`).

        Returns
        -------
        ndarray or scipy.sparse.csr_array of shape (n_samples, n_components)
            As `sparse_output` says. With at most `n_nonzero_coefs` non-zeros a row under the
            k-largest encoder.
        """
        check_is_fitted(self)
        source = self._source(X)
        blocks = self._blocks(source, method, _CHUNK)
        if self.sparse_output:
            return sparse.vstack(list(blocks), format="csr")
        if source.n_samples is None:
            return np.concatenate(list(blocks))
        codes = np.empty((source.n_samples, len(self.components_)), dtype=source.dtype)
        start = 0
        for block in blocks:
            codes[start : start + len(block)] = block
            start += len(block)
        return codes

    def iter_transform(
        self, X: Any, method: str = "encoder", *, batch_size: int = _CHUNK
    ) -> Iterator[NDArray[Any] | sparse.csr_array]:
        """:meth:`transform` in blocks of at most `batch_size` rows, for data of any length."""
        check_is_fitted(self)
        return self._blocks(self._source(X), method, batch_size)

    def inverse_transform(self, X: Any) -> NDArray[Any]:
        """Data from codes: x D, with the preprocessing undone.

        Parameters
        ----------
        X : array-like, sparse matrix, path or Source of shape (n_samples, n_components)
            Codes; those of a table are taken by the names that `get_feature_names_out` gives.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        m = self.components_.shape[0]
        if _is_source(X) and not sparse.issparse(X):
            codes = self._codes(X)
        else:
            codes = check_array(X, accept_sparse="csr", dtype=[np.float64, np.float32])
        if codes.shape[1] != m:
            raise ArgumentError("X", f"{codes.shape[1]} columns", f"codes of {m} atoms")
        return self.preprocessing_.undo(self._decode(codes).astype(codes.dtype, copy=False))

    def _decode(self, codes: Any) -> NDArray[Any]:
        """y = x D + c (B, n) of codes (B, m), in the preprocessed space."""
        rebuilt = np.asarray(codes @ self.components_.astype(codes.dtype, copy=False))
        return rebuilt if self.offset_ is None else rebuilt + self.offset_

    def _codes(self, X: Any) -> NDArray[Any]:
        """Codes in a table, a file or whatever else is opened, the atoms in their order."""
        source, names = open_source(X), tuple(self.get_feature_names_out())
        # A table whose names are others, such as a pipeline's longer ones, is as it stands.
        if source.feature_names is not None and set(source.feature_names) & set(names):
            source = aligned(source, names, "of the model's atoms")
        validate(source)
        return np.concatenate(list(source.batches(source.rows_at_once(_CHUNK))))

    def score(self, X: Any, y: None = None, method: str = "encoder") -> float:
        """Explained variance of `X` by its reconstruction: 1 - FVU, at most 1.

        FVU = sum \\|y - y_hat\\|^2 / sum \\|y - mean(y)\\|^2 over samples and features, in the
        preprocessed space. Where the data do not vary, which leaves it undefined, it is 1
        for an exact reconstruction and else 0.
        """
        diagnosis = self.diagnose(X, method)
        value = diagnosis.explained_variance
        return float(value) if np.isfinite(value) else float(diagnosis.mse == 0)

    def diagnose(self, X: Any, method: str = "encoder") -> Diagnosis:
        """Sparsity and reconstruction of `X` under this model, in one streaming pass.

        Returns
        -------
        shoal.diagnosis.Diagnosis
            L0, activation fraction, dead atoms, MSE, FVU, explained variance, in the
            preprocessed space.
        """
        statistics = CodeStatistics()
        for data, codes, rebuilt in self.iter_coded(X, method):
            statistics.update(data, codes, rebuilt)
        return statistics.result()

    def landscape(self, X: Any, *, n_samples: int = 500, **options: Any) -> Landscape:
        """The loss around the dictionary on rows of `X`, in the preprocessed space.

        Parameters
        ----------
        X : array-like, tensor, path or Source of shape (n_samples, n_features)
        n_samples : int
            Rows of it, evenly spaced (of a stream the first ones).
        **options
            As of :func:`shoal.diagnosis.landscape`.

        Returns
        -------
        Landscape
            With the model's own activation and bias.
        """
        check_is_fitted(self)
        if self.encoder_ is not None:
            raise ArgumentError(
                "model", "an encoder of its own", "tied weights, which move at once"
            )
        source = self._source(X)
        wanted = check_count("n_samples", n_samples)
        if source.n_samples is None:
            rows = next(iter(source.batches(wanted)))
        else:
            most = min(source.n_samples, wanted)
            rows = source.rows(np.linspace(0, source.n_samples - 1, most).round().astype(np.intp))
        data = self.preprocessing_.apply(rows)
        parts = {"threshold": self.thresholds_, "offset": self.offset_}
        named = parts | {"bias_name": None, "random_state": self._seed()} | options
        return landscape(
            self.components_.astype(data.dtype), data, self._encoder(), self.bias_, **named
        )

    def iter_coded(
        self, X: Any, method: str = "encoder"
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any] | sparse.csr_array, NDArray[Any]]]:
        """Data, codes and reconstructions in blocks, in the preprocessed space.

        What :meth:`diagnose` is made of, for a measure of your own.

        Parameters
        ----------
        X, method
            As for :meth:`transform`.

        Yields
        ------
        data : ndarray of shape (rows, n_features)
        codes : scipy.sparse.csr_array or ndarray of shape (rows, n_components)
            Whichever is faster to work with, whatever `sparse_output` says: dense for a
            smooth activation, and once more than a fifth of the units are active.
        reconstruction : ndarray of shape (rows, n_features)
        """
        check_is_fitted(self)
        return self._coded(*self._batches(self._source(X), method, _CHUNK), method)

    def _coded(
        self, parameters: Parameters, batches: Iterator[NDArray[Any]], method: str
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any] | sparse.csr_array, NDArray[Any]]]:
        without_zeros = method != "encoder" or gate_of(self._encoder()) is not None
        largest = 0.0
        for batch in batches:
            largest = max(largest, float(np.abs(batch).max()))
            if not largest <= units.MOST_SQUARED:
                raise _beyond(largest)
            codes = self._code_rows(parameters, batch, method, without_zeros)
            yield batch, codes, self._decode(codes).astype(batch.dtype, copy=False)
            if isinstance(codes, sparse.csr_array):
                without_zeros = codes.nnz <= _CROWDED * codes.shape[0] * codes.shape[1]
        if 0 < largest < units.LEAST_SQUARED:
            raise _beyond(largest)

    def _blocks(
        self, source: Source, method: str, batch_size: int
    ) -> Iterator[NDArray[Any] | sparse.csr_array]:
        """The codes (B, m), in the form of `sparse_output`."""
        without_zeros = self._sparse_output()
        parameters, batches = self._batches(source, method, batch_size)
        return (self._code_rows(parameters, batch, method, without_zeros) for batch in batches)

    def _batches(
        self, source: Source, method: str, batch_size: int
    ) -> tuple[Parameters, Iterator[NDArray[Any]]]:
        """The weights, and the preprocessed batches (B, n) to code with them."""
        check_choice("method", method, self.methods)
        parameters = self._parameters(source.dtype, self._device())
        size = source.rows_at_once(check_count("batch_size", batch_size))
        return parameters, self.preprocessing_.through(source).batches(size)

    def _code_rows(
        self, parameters: Parameters, batch: NDArray[Any], method: str, without_zeros: bool
    ) -> NDArray[Any] | sparse.csr_array:
        """The codes of a preprocessed batch (B, n), rows of any magnitude: shape (B, m).

        Where codes are as large as the data are, a row whose squares could get lost is coded in
        another unit.
        """
        free = type(self._encoder()) is TopK and not self.bias_.any()
        exponents = units.exponents(np.abs(batch).max(axis=1)) if free or method in PURSUITS else 0
        if not np.any(exponents):
            return self._code(parameters, batch, method, without_zeros)
        scaled = np.ldexp(batch, np.asarray(exponents)[:, None])
        codes = self._code(parameters, scaled, method, without_zeros)
        if isinstance(codes, sparse.csr_array):
            codes.data = np.ldexp(codes.data, np.repeat(-exponents, np.diff(codes.indptr)))
            return codes
        return np.asarray(np.ldexp(codes, -np.asarray(exponents)[:, None]))

    def _code(
        self, parameters: Parameters, batch: NDArray[Any], method: str, without_zeros: bool
    ) -> NDArray[Any] | sparse.csr_array:
        """The codes of a preprocessed batch (B, n): shape (B, m)."""
        data = torch.from_numpy(batch).to(parameters.bias.device)
        if not without_zeros:
            return fast_encode(parameters, data, self._encoder()).cpu().numpy()
        found = fast_sparse_encode(parameters, data, self._encoder())
        return found.to_csr(len(parameters.bias))

    def _parameters(self, dtype: np.dtype, device: torch.device) -> Parameters:
        parts = (getattr(self, name) for name in PARTS.values())
        dictionary, *others = (
            None if part is None else torch.from_numpy(part.astype(dtype)).to(device)
            for part in parts
        )
        assert dictionary is not None
        return Parameters(dictionary, *others)  # type: ignore[arg-type]

    def _keep_parameters(self, parameters: Parameters) -> None:
        for part, name in zip(parameters, PARTS.values(), strict=True):
            # The polish leaves its atoms in columns; in one order the same codes have the same
            # bits.
            kept = None if part is None else np.ascontiguousarray(part.cpu().numpy())
            setattr(self, name, kept)
        self._n_features_out = len(self.bias_)

    # ------------------------------------------------------------------ checks

    def _source(self, X: Any) -> Source:
        """`X` as a checked source of the features that the model was fitted with."""
        if not _is_source(X):
            return open_source(validate_data(self, X, reset=False, dtype="numeric"))
        source = self.by_name(open_source(X))
        validate(source)  # before the width, as scikit-learn does for arrays
        if source.n_features != self.n_features_in_:
            needed = f"{self.n_features_in_} features, as the model was fitted with"
            raise ArgumentError("X", f"{source.n_features} features", needed)
        return source

    def by_name(self, source: Source) -> Source:
        """`source` with its columns in the order of those that the model was fitted with.

        Scikit-learn refuses another order; a name says what a column is wherever it stands. Where
        only one of the two has names, columns are what their places say, as in scikit-learn.
        """
        names = getattr(self, "feature_names_in_", None)
        if names is not None and source.feature_names is not None:
            return aligned(source, tuple(names), "the model was fitted with")
        kind = type(self).__name__
        if names is not None:
            warn(f"X does not have valid feature names, but {kind} was fitted with feature names")
        elif source.feature_names is not None:
            warn(f"X has feature names, but {kind} was fitted without feature names")
        return source

    def _new_source(self, X: Any) -> tuple[Source, NDArray[Any] | None]:
        """`X` as a checked source to fit to, and its columns' names; the model stays as it is."""
        if not _is_source(X):
            # Scikit-learn's check notes what it sees on the estimator.
            return open_source(validate_data(copy.copy(self), X, reset=True, dtype="numeric")), None
        source = open_source(X)
        validate(source)
        names = source.feature_names
        return source, None if names is None else np.array(names, dtype=object)

    def _seed(self) -> int:
        try:
            state = check_random_state(self.random_state)
        except ValueError:
            needed = "an integer from 0 to 2**32 - 1, a numpy RandomState, or None"
            raise ArgumentError("random_state", repr(self.random_state), needed) from None
        return int(state.randint(2**31 - 1))

    def _preprocessing(self, n_samples: int | None) -> Preprocessing:
        spec = "none" if self.preprocessing is None else self.preprocessing
        if not isinstance(spec, Preprocessing):
            try:
                spec = Preprocessing(spec)
            except ArgumentError as error:
                needed = f"{error.needed}, or a shoal.Preprocessing"
                raise ArgumentError("preprocessing", error.found, needed) from None
        if spec.kind == "whiten" and n_samples == 1:
            raise ArgumentError("X", "n_samples = 1", "at least 2 samples, to whiten them")
        return spec

    def _sparse_output(self) -> bool:
        if not isinstance(self.sparse_output, (bool, np.bool_)):
            raise ArgumentError("sparse_output", repr(self.sparse_output), "True or False")
        return bool(self.sparse_output)

    def _device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.zeros(1, device=device).item()  # "meta" has devices that hold no numbers
        except (RuntimeError, AssertionError, TypeError) as error:
            needed = f"a device that this torch {torch.__version__} can use, such as 'cpu'"
            raise ArgumentError("device", repr(self.device), needed) from error
        return device

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn should know: float32 and float64 are kept, and what X may be."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class DictionaryAutoencoder(TiedAutoencoder):
    """Recover the dictionary behind data with a shallow weight-tied autoencoder.

    The code of a sample is x = sigma(D y + b) and its reconstruction x D, with the m atoms
    of D as unit rows. By default sigma keeps the k largest entries, and the fit is a
    minibatch descent that replaces dead and duplicate atoms, followed by a polish that
    removes the bias of the tied code (``recipe="default"``).

    Parameters
    ----------
    n_components : int, optional
        Number of atoms m. By default min(n_samples, n_features).
    n_nonzero_coefs : int or "auto", optional
        Active units a sample, k; from 1 to m. By default a tenth of m, at least 1; 1 for
        ``model="mixture"``. With "auto" it is estimated from the data first, by short fits
        (`shoal.training.find_sparsity`); where no number stands out, the default is used, with
        a warning.
    model : {"sparse", "nonnegative", "mixture"}
        Signed sparse codes; non-negative sparse codes; one active unit a sample, a mixture
        of clusters about the directions of the atoms.
    recipe : str or Recipe
        A name from `shoal.training.RECIPES`, or a `shoal.training.Recipe` of your own:
        activation, step size, schedules, revival and polish.
    init : str or array of shape (n_components, n_features)
        Where atoms start, in the preprocessed space: "data", rows of the data; "random",
        random directions; "residual", rows one by one far from the directions of those before,
        as k-means++ does; "pca", principal directions; "pairwise", what pairs of rows share
        (Arora et al. 2015); or an array, for a warm start. "auto" is "residual" for mixtures,
        which then start near their means, and else "data".
    preprocessing : str or Preprocessing, optional
        "none", "center", "scale", "whiten" or a `shoal.data.Preprocessing`. Fitted with
        the model; `transform` applies it and `inverse_transform` undoes it.
    device : str or torch.device
        "cpu", "cuda", ..., or "auto": CUDA where there is one.
    random_state : int, RandomState instance or None
        The same seed gives the same bits, on the same machine with the same number of
        threads.
    sparse_output : bool
        Whether `transform` and `iter_transform` give a ``scipy.sparse.csr_array`` of shape
        (n_samples, n_components), without the zeros, rather than an ndarray.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        The dictionary: unit atoms as rows, in the preprocessed space. It has fewer rows, and
        :meth:`fit` warns, where `n_components` is more than the data have use for.
    unpolished_components_ : ndarray of shape (n_components, n_features)
        The dictionary before the polish, for what the polish was worth. Only after :meth:`fit`,
        and not kept in files.
    bias_ : ndarray of shape (n_components,)
        The encoder's bias b.
    preprocessing_ : FittedPreprocessing
    n_nonzero_coefs_ : int
        The number k of active units a sample that was used.
    recipe_ : Recipe
        What was used.
    history_ : list of dict
        Learning curves, as described at :class:`shoal.training.History`.
    n_steps_ : int
        Updates of the descent.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only where the data has string column names.

    See Also
    --------
    sklearn.decomposition.MiniBatchDictionaryLearning : l1-penalised dictionary learning.
    shoal.recovery : How well a known dictionary was recovered.

    References
    ----------
    Rangamani et al. 2017, Sparse Coding and Autoencoders. Nguyen, Wong, Hegde 2018,
    Autoencoders Learn Generative Linear Models: eq. (2) for the network, eq. (4) for its
    gradient.

    Examples
    --------
    >>> import shoal
    >>> from shoal.generative import SparseCoding, random_dictionary
    >>> world = SparseCoding(random_dictionary(32, 16, random_state=0), sparsity=2)
    >>> planted = world.sample(3000, random_state=1)
    >>> model = shoal.DictionaryAutoencoder(32, 2, random_state=0).fit(planted.data)
    >>> shoal.recovery(model.components_, world.dictionary).recovered(0.99)
    1.0
    """

    def __init__(
        self,
        n_components: int | None = None,
        n_nonzero_coefs: int | str | None = None,
        *,
        model: Model = "sparse",
        recipe: str | Recipe = "default",
        init: Init | NDArray[Any] = "auto",
        preprocessing: str | Preprocessing | None = None,
        device: str | torch.device = "cpu",
        random_state: int | np.random.RandomState | None = None,
        sparse_output: bool = False,
    ) -> None:
        self.n_components = n_components
        self.n_nonzero_coefs = n_nonzero_coefs
        self.model = model
        self.recipe = recipe
        self.init = init
        self.preprocessing = preprocessing
        self.device = device
        self.random_state = random_state
        self.sparse_output = sparse_output

    methods = METHODS
    _carried: Carried | None = None  # from call to call of partial_fit

    # ------------------------------------------------------------------ fitting

    def fit(self, X: Any, y: None = None) -> Self:
        """Learn the dictionary of `X`.

        Parameters
        ----------
        X : array-like, tensor, path or Source of shape (n_samples, n_features)
            Arrays of either order, torch tensors and memory-mapped arrays are not copied.
            A path, a spec such as ``"sample:patches"``, or an iterable of batches is
            opened by :func:`shoal.data.open_source`.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Before any work, where the data or an argument can't be used
            (`shoal.vocabulary.ArgumentError` for arguments), a recipe with a part that no file
            can hold included: see :mod:`shoal.parts`.
        """
        for _ in self.iter_fit(X):
            pass
        return self

    def iter_fit(self, X: Any, y: None = None) -> Iterator[Step]:
        """:meth:`fit` as a generator of steps; the model is fitted when it is exhausted.

        Arguments are checked in this call, before the first step is asked for. A generator
        that is dropped half-way leaves the model as it was before.
        """
        (source, names), seed = self._new_source(X), self._seed()
        m, k = self._sizes(source.n_samples, source.n_features, whole=True)
        recipes = cache(partial(self._recipe, m, n_samples=source.n_samples))
        if recipes(k or 1).batch_size is None and source.n_samples is None:
            raise ArgumentError("recipe", "a full batch on a stream", "one with a batch_size")
        device = self._device()
        spec = self._preprocessing(source.n_samples)
        check_init(self._init(), m, source.n_features)
        self._sparse_output()
        rng = np.random.default_rng(seed)
        return self._fit_steps(source, names, spec, recipes, m, k, device, rng)

    def _fit_steps(
        self,
        source: Source,
        names: NDArray[Any] | None,
        spec: Preprocessing,
        recipes: Callable[[int], Recipe],
        m: int,
        k: int | None,
        device: torch.device,
        rng: np.random.Generator,
    ) -> Iterator[Step]:
        fitted = spec.fit(source)
        prepared = fitted.through(source)
        problem, state = prepare(
            prepared,
            self._init(),
            m,
            k,
            recipes,
            self.model,
            rng,
            device=device,
        )
        history = History()
        for state, sums in run(problem, state):
            step = problem.step(state, sums)
            if state.k is not None:  # a trial is no part of the fit
                history.add(step)
            yield step
        recipe = recipes(state.k or 1)
        parameters, dtype = pruned(state.parameters), source.dtype
        parameters = rested(parameters, prepared, recipe.activation)
        if len(parameters.bias) < m:
            warnings.warn(
                f"n_components={m}: the data have use for {len(parameters.bias)} atoms; the "
                "others, again and again without a use or duplicates, are left out of components_",
                stacklevel=2,
            )
        n_steps = state.number if state.polished is None else state.n_steps
        self._keep(parameters, recipe, state.k, fitted, source.feature_shape, n_steps)
        self._carried = Carried(state.place)
        if state.before_polish is not None:
            before = pruned(Parameters(state.before_polish, state.before_polish[:, 0]))
            self.unpolished_components_ = before.dictionary.cpu().numpy().astype(dtype)
        self._keep_names(source.n_features, names)
        self.history_ = history.close()

    def partial_fit(self, X: Any, y: None = None) -> Self:
        """One pass of minibatch descent over `X`, from where the last call stopped.

        The first call starts the atoms and fits the preprocessing on its `X`. Later ones go on
        with the steps of the recipe, and its last ones, by default those of the refinement, have
        no end. There is no polish: it needs data that a stream doesn't keep. After :meth:`fit`
        it goes on from that result.

        Parameters
        ----------
        X : array-like, tensor, path or Source of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        first = not hasattr(self, "components_")
        device = self._device()
        if first:
            source, names = self._new_source(X)
            rng = np.random.default_rng(self._seed())
            m, k = self._sizes(source.n_samples, source.n_features, whole=False)
            recipes = cache(partial(self._recipe, m, n_samples=None))
            recipes(k or 1)  # refuses what can't be used, before any work
            self._sparse_output()
            fitted = self._preprocessing(source.n_samples).fit(source)
            prepared = fitted.through(source)
            sample, kept = drawn(prepared, self._init(), m, SEARCHED if k is None else 0, rng)
            exponent = units.exponent(sample, recipes(k or 1))
            sample = np.ldexp(sample, exponent)
            prepared, kept = units.changed(prepared, exponent), units.changed(kept, exponent)
            parameters = started(self._init(), sample, m, device, rng)
            if k is None:
                if len(sample) < 10 * m:
                    found = f"'auto' with {len(sample)} samples in the first call"
                    needed = f"at least {10 * m} samples there, ten an atom, or a number"
                    raise ArgumentError("n_nonzero_coefs", found, needed)
                k = searched(narrowed(parameters, sample), kept, self.model, rng)
            recipe, start = recipes(k), 0
        else:
            source, k = self._source(X), self.n_nonzero_coefs_
            recipe, start, fitted = self.recipe_, self.n_steps_, self.preprocessing_
            prepared = fitted.through(source)
            few = _first(prepared, _LOOKED_AT)
            prepared = units.changed(prepared, units.exponent(few, recipe))
            parameters, rng = self._parameters(self.components_.dtype, device), self._generator()
        plan = recipe.plan(endless=True)
        carried = self._carried or Carried(Place.at(rng))
        state = begin(parameters, plan, rng, number=start, **carried.counts())
        for state, _ in descend(state, prepared, plan, passes=1):  # noqa: B007
            pass
        parameters = state.parameters
        if not prepared.once:
            parameters = rested(parameters, prepared, recipe.activation)
        shape = source.feature_shape or getattr(self, "feature_shape_", None)
        self._keep(parameters, recipe, k, fitted, shape, state.number)
        self._carried = Carried(state.place, state.activity, state.adapted)
        if first:
            self._keep_names(source.n_features, names)
        return self

    def _generator(self) -> np.random.Generator:
        """Where the randomness of the last fit stopped; at the seed for a run read from a file."""
        if self._carried is None:
            return np.random.default_rng(self._seed())
        return generator_at(self._carried.place.after)

    def _keep(
        self,
        parameters: Parameters,
        recipe: Recipe,
        k: int | None,
        fitted: FittedPreprocessing,
        feature_shape: tuple[int, ...] | None,
        n_steps: int,
    ) -> None:
        self._keep_parameters(parameters)
        self.preprocessing_, self.recipe_ = fitted, recipe
        # A k-largest encoder knows its own k, which a recipe may have set.
        known = getattr(recipe.activation, "k", None) or k
        self.n_nonzero_coefs_ = tenth(len(self.components_)) if known is None else int(known)
        self.feature_shape_ = feature_shape
        self.n_steps_ = n_steps
        if hasattr(self, "unpolished_components_"):
            del self.unpolished_components_

    def restore_(
        self,
        parameters: Parameters,
        recipe: Recipe,
        n_nonzero_coefs: int | None,
        fitted: FittedPreprocessing,
        feature_shape: tuple[int, ...] | None,
        n_steps: int = 0,
        feature_names: NDArray[Any] | None = None,
    ) -> Self:
        """Take on a fitted state read from a file; see :func:`shoal.load_run`."""
        self._carried = None
        self._keep(parameters, recipe, n_nonzero_coefs, fitted, feature_shape, n_steps)
        self._keep_names(parameters.dictionary.shape[1], feature_names)
        return self

    # ------------------------------------------------------------------ using the model

    def _encoder(self) -> Activation:
        found: Activation = at_rest(self.recipe_.activation)
        return found

    def _code(
        self, parameters: Parameters, batch: NDArray[Any], method: str, without_zeros: bool
    ) -> NDArray[Any] | sparse.csr_array:
        if method == "encoder":
            return super()._code(parameters, batch, method, without_zeros)
        signed, dictionary = self.model == "sparse", parameters.dictionary
        data = torch.from_numpy(batch).to(dictionary.device)
        if method in PURSUITS:
            pursuit = PURSUITS[method](self.n_nonzero_coefs_, signed)
            found = fast_sparse_encode(parameters, data, pursuit)
        else:
            support = fast_sparse_encode(parameters, data, self._encoder())
            if parameters.offset is not None:
                data = data - parameters.offset
            found = least_squares(dictionary, data, support, signed=signed)
        m = len(dictionary)
        return found.to_csr(m) if without_zeros else found.dense(m).cpu().numpy()

    # ------------------------------------------------------------------ checks

    def _sizes(
        self, n_samples: int | None, n_features: int, *, whole: bool
    ) -> tuple[int, int | None]:
        """The numbers of atoms and of active units, m and k; None for one to be estimated."""
        if self.n_components is None:
            m = min(n_features, n_samples or n_features)
        else:
            m = check_count("n_components", self.n_components)
        if whole and n_samples is not None and n_samples < m:
            found = f"{m} atoms for n_samples={n_samples}"
            raise ArgumentError("n_components", found, "at least as many samples as atoms")
        return m, self._active_units(m)

    def _active_units(self, m: int) -> int | None:
        """The number k of active units a sample, of `m` atoms; None for one to be estimated."""
        check_choice("model", self.model, MODELS)
        most = 1 if self.model == "mixture" else m
        auto = isinstance(self.n_nonzero_coefs, str) and self.n_nonzero_coefs == "auto"
        if self.n_nonzero_coefs is None or (auto and most == 1):
            return min(tenth(m), most)
        if auto:
            return None if isinstance(self.recipe, str) else tenth(m)
        try:
            return check_count("n_nonzero_coefs", self.n_nonzero_coefs, high=most)
        except ArgumentError as error:
            needed = "1 with model='mixture'"
            if self.model != "mixture":
                needed = f"an integer from 1 to n_components={m}, or 'auto'"
            raise ArgumentError(error.argument, error.found, needed) from None

    def _recipe(self, m: int, k: int, n_samples: int | None) -> Recipe:
        if isinstance(self.recipe, Recipe):
            found = self.recipe
        else:
            found = recipe_named(self.recipe, self.model, m, k, n_samples)
        check_storable(found)
        return found

    def _init(self) -> str | NDArray[Any]:
        """Where atoms start, "auto" resolved."""
        if isinstance(self.init, str) and self.init == "auto":
            return "residual" if self.model == "mixture" else "data"
        return self.init

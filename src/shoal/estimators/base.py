"""What fitted weight-tied autoencoders have in common."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from shoal import signals
from shoal.data import FittedPreprocessing, Preprocessing, Source, open_source, validate
from shoal.data.columns import aligned
from shoal.data.fingerprints import fingerprint
from shoal.data.gaps import with_gaps
from shoal.diagnosis import CodeStatistics, Diagnosis, Landscape, landscape
from shoal.estimators.inputs import is_source
from shoal.network.activations import Activation, TopK, gate_of
from shoal.network.inference import (
    IterativeHardThresholding,
    OrthogonalMatchingPursuit,
    Pursuit,
    SubspacePursuit,
    fast_encode,
    fast_sparse_encode,
)
from shoal.training import units
from shoal.training.checkpoints import NONE, Keeper, keep, told
from shoal.training.ranks import current
from shoal.vocabulary import (
    ArgumentError,
    Parameters,
    __version__,
    check_choice,
    check_count,
    check_number,
    warn,
)

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

METHODS = ("encoder", "least_squares", *PURSUITS)
"""How codes are inferred: the encoder's own code x = sigma(D y + b); least squares on its
support; subspace pursuit; orthogonal matching pursuit; iterative hard thresholding."""

# Arbitrary: rows coded at once, so that a pass over any source needs bounded memory.
_CHUNK = 4096

# Above this share of active units, codes with their zeros are rebuilt and counted faster: on one
# thread, with 256 to 2048 atoms of 64 or 192 features, the two were even between .16 and .24.
_CROWDED = 0.2


def _beyond(largest: float) -> ArgumentError:
    """The error for data that can be coded, but not be measured."""
    needed = f"a largest one from {units.LEAST_SQUARED:g} to {units.MOST_SQUARED:g}, to be squared"
    return ArgumentError("X", f"values of up to {largest:.3g}", needed)


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

    def fitted_params(self) -> dict[str, Any]:
        """The constructor's arguments as they were at the fit, whatever `set_params` did since.

        But for `device` and `sparse_output`, which say how the model is used now.
        """
        now: dict[str, Any] = self.get_params(deep=False)
        used = {name: now[name] for name in ("device", "sparse_output")}
        return (getattr(self, "_fitted_params", None) or now) | used

    def _keep_names(self, n_features: int, names: NDArray[Any] | None) -> None:
        self.n_features_in_ = n_features
        if names is not None:
            self.feature_names_in_ = names
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    # ------------------------------------------------------------------ using the model

    def transform(
        self, X: Any, method: str = "encoder", *, tol: float | None = None
    ) -> NDArray[Any] | sparse.csr_array:
        """The codes of `X`.

        Parameters
        ----------
        X : array-like, tensor, path or Source of shape (n_samples, n_features)
        method : {"encoder", "least_squares", "pursuit", "omp", "iht"}
            The encoder's own code, x = sigma(D y + b), one product and biased; least squares
            on its support; with at most k atoms subspace pursuit, orthogonal matching pursuit
            or iterative hard thresholding (see :mod:`shoal.network.pursuit`).
        tol : float, optional
            With ``method="omp"``, a target for the error in place of a number of atoms: each row
            takes atoms until at most this share of its square is left, above 0 and at most 1,
            and no more than min(n_components, n_features).

        Returns
        -------
        ndarray or scipy.sparse.csr_array of shape (n_samples, n_components)
            As `sparse_output` says. With at most `n_nonzero_coefs` non-zeros a row under the
            k-largest encoder.
        """
        check_is_fitted(self)
        source = self._source(X)
        blocks = self._blocks(source, method, _CHUNK, tol)
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
        self,
        X: Any,
        method: str = "encoder",
        *,
        batch_size: int = _CHUNK,
        tol: float | None = None,
    ) -> Iterator[NDArray[Any] | sparse.csr_array]:
        """:meth:`transform` in blocks of at most `batch_size` rows, for data of any length."""
        check_is_fitted(self)
        return self._blocks(self._source(X), method, batch_size, tol)

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
        if is_source(X) and not sparse.issparse(X):
            codes = self._codes(X)
        else:
            codes = check_array(X, accept_sparse="csr", dtype=[np.float64, np.float32])
        if codes.shape[1] != m:
            raise ArgumentError("X", f"{codes.shape[1]} columns", f"codes of {m} atoms")
        return self.preprocessing_.undo(self._decode(codes).astype(codes.dtype, copy=False))

    def denoise(self, X: Any, method: str | None = None) -> NDArray[Any]:
        """What the model makes of `X`: its reconstruction, in the unit of the data.

        With ``missing="ignore"`` that of the entries that are missing as well, so that
        ``np.where(np.isnan(X), model.denoise(X), X)`` fills them.

        Parameters
        ----------
        X
            As for :meth:`transform`.
        method : str, optional
            How codes are inferred, as for :meth:`transform`; by a pursuit where the model has one.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        if method is None:
            method = "pursuit" if "pursuit" in self.methods else "encoder"
        rebuilt = [made for _, _, made in self.iter_coded(X, method)]
        return self.preprocessing_.undo(np.concatenate(rebuilt))

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
        statistics = self.statistics()
        for data, codes, rebuilt in self.iter_coded(X, method):
            statistics.update(data, codes, rebuilt)
        return statistics.result()

    def statistics(self) -> CodeStatistics:
        """What counts codes and reconstructions of data that this model takes."""
        return CodeStatistics(missing=getattr(self, "missing", None) is not None)

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
            With the model's own activation and bias. An encoder that was fitted to the dictionary
            afterwards has no part in it: it is the loss that the dictionary was learned by.
        """
        check_is_fitted(self)
        apart = getattr(self.recipe_, "encoder", None) is not None and self.thresholds_ is None
        if self.encoder_ is not None and not apart:
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
        data = self._whole(self.preprocessing_.apply(rows))
        bias = np.zeros_like(self.bias_) if apart else self.bias_
        parts = {"threshold": self.thresholds_, "offset": self.offset_}
        named = parts | {"bias_name": None, "random_state": self._seed()} | options
        return landscape(self.components_.astype(data.dtype), data, self._encoder(), bias, **named)

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
            largest = max(largest, float(np.nanmax(np.abs(batch))))
            if not largest <= units.MOST_SQUARED:
                raise _beyond(largest)
            codes = self._code_rows(parameters, batch, method, without_zeros)
            yield batch, codes, self._decode(codes).astype(batch.dtype, copy=False)
            if isinstance(codes, sparse.csr_array):
                without_zeros = codes.nnz <= _CROWDED * codes.shape[0] * codes.shape[1]
        if 0 < largest < units.LEAST_SQUARED:
            raise _beyond(largest)

    def _blocks(
        self, source: Source, method: str, batch_size: int, tol: float | None = None
    ) -> Iterator[NDArray[Any] | sparse.csr_array]:
        """The codes (B, m), in the form of `sparse_output`."""
        without_zeros = self._sparse_output()
        parameters, batches = self._batches(source, method, batch_size)
        if tol is not None:
            if method != "omp":
                raise ArgumentError("tol", f"{tol!r} with method={method!r}", "method='omp'")
            tol = check_number("tol", tol, low=0.0, high=1.0, open_low=True)
        return (self._code_rows(parameters, batch, method, without_zeros, tol) for batch in batches)

    def _batches(
        self, source: Source, method: str, batch_size: int
    ) -> tuple[Parameters, Iterator[NDArray[Any]]]:
        """The weights, and the preprocessed batches (B, n) to code with them."""
        check_choice("method", method, self.methods)
        parameters = self._parameters(source.dtype, self._device())
        size = source.rows_at_once(check_count("batch_size", batch_size))
        return parameters, self.preprocessing_.through(source).batches(size)

    def _code_rows(
        self,
        parameters: Parameters,
        batch: NDArray[Any],
        method: str,
        without_zeros: bool,
        tol: float | None = None,
    ) -> NDArray[Any] | sparse.csr_array:
        """The codes of a preprocessed batch (B, n), rows of any magnitude: shape (B, m).

        Where codes are as large as the data are, a row whose squares could get lost is coded in
        another unit. Of a row with missing entries it is the code of what is seen.
        """
        if getattr(self, "missing", None) is not None and np.isnan(batch).any():
            return self._code_seen(parameters, batch, method, without_zeros, tol)
        free = type(self._encoder()) is TopK and not self.bias_.any()
        free = free or (method in PURSUITS and self.thresholds_ is None)
        exponents = units.exponents(np.abs(batch).max(axis=1)) if free else 0
        if not np.any(exponents):
            return self._code(parameters, batch, method, without_zeros, tol)
        scaled = np.ldexp(batch, np.asarray(exponents)[:, None])
        codes = self._code(parameters, scaled, method, without_zeros, tol)
        if isinstance(codes, sparse.csr_array):
            codes.data = np.ldexp(codes.data, np.repeat(-exponents, np.diff(codes.indptr)))
            return codes
        return np.asarray(np.ldexp(codes, -np.asarray(exponents)[:, None]))

    def _code(
        self,
        parameters: Parameters,
        batch: NDArray[Any],
        method: str,
        without_zeros: bool,
        tol: float | None = None,
    ) -> NDArray[Any] | sparse.csr_array:
        """The codes of a preprocessed batch (B, n): shape (B, m)."""
        data = torch.from_numpy(batch).to(parameters.bias.device)
        if not without_zeros:
            return fast_encode(parameters, data, self._encoder()).cpu().numpy()
        found = fast_sparse_encode(parameters, data, self._encoder())
        return found.to_csr(len(parameters.bias))

    def _whole(self, batch: NDArray[Any]) -> NDArray[Any]:
        """A preprocessed batch (B, n) with what the model makes of entries that are missing."""
        return batch

    def _code_seen(
        self,
        parameters: Parameters,
        batch: NDArray[Any],
        method: str,
        without_zeros: bool,
        tol: float | None,
    ) -> NDArray[Any] | sparse.csr_array:
        """The codes of a batch (B, n) where entries are missing."""
        raise NotImplementedError  # of models that ignore them

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
        if not is_source(X):
            checked = validate_data(
                self, X, reset=False, dtype="numeric", ensure_all_finite=self._finite()
            )
            return self.with_gaps(open_source(checked))
        source = self.with_gaps(self.by_name(open_source(X)))
        validate(source)  # before the width, as scikit-learn does for arrays
        if source.n_features != self.n_features_in_:
            needed = f"{self.n_features_in_} features, as the model was fitted with"
            raise ArgumentError("X", f"{source.n_features} features", needed)
        return source

    def _finite(self) -> bool | str:
        """What scikit-learn is to refuse among numbers."""
        return True if getattr(self, "missing", None) is None else "allow-nan"

    def with_gaps(self, source: Source) -> Source:
        """`source`, NaN allowed where the model ignores what is missing."""
        if getattr(self, "missing", None) is None:
            return source
        seen = with_gaps(source)
        validate(seen)
        return seen

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
        if not is_source(X):
            # Scikit-learn's check notes what it sees on the estimator.
            checked = validate_data(
                copy.copy(self), X, reset=True, dtype="numeric", ensure_all_finite=self._finite()
            )
            return self.with_gaps(open_source(checked)), None
        source = self.with_gaps(open_source(X))
        validate(source)
        names = source.feature_names
        return source, None if names is None else np.array(names, dtype=object)

    def _keeper(
        self, checkpoint: str | os.PathLike[str] | None, every: Any, source: Source, seed: int
    ) -> Keeper:
        """What saves the fit to `source`, and knows what was saved of it.

        Where several processes share the fit, it must be the same one in all of them.
        """
        ranks = current()
        if checkpoint is None and ranks.size == 1:
            return NONE
        if checkpoint is None:
            self._agree(fingerprint(source))
            return NONE
        if source.once:
            needed = "data that can be read again, such as a function that returns an iterator"
            raise ArgumentError("checkpoint", f"one of {source.name}, which can't", needed)
        data = fingerprint(source)
        self._agree(data)
        return keep(checkpoint, every, self._told(), data, seed)

    def _agree(self, data: Mapping[str, Any]) -> None:
        """Refuse a fit that is another one in another process."""
        values = {name: value for name, value in data.items() if name != "file"}  # a copy will do
        versions = [__version__, str(torch.__version__), np.__version__]
        current().agree("data, arguments or versions", json.dumps([self._told(), values, versions]))

    def _told(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        arguments = self.get_params(deep=False)
        del arguments["sparse_output"]
        if not isinstance(self.random_state, (int, np.integer)):
            arguments["random_state"] = "none"  # the seed of the fit that was begun counts
        arguments["device"] = self._device().type
        return told({"estimator": type(self).__name__, **arguments})

    def _to_the_end(self, steps: Generator[Any, None, None], checkpoint: Any) -> None:
        """Run a fit, between whose steps a signal ends it if it is to be saved then."""
        if checkpoint is None:
            for _ in steps:
                pass
            return
        with signals.noticed(), closing(steps):
            for _ in signals.stoppable(steps):
                pass

    def _seed(self) -> int:
        try:
            state = check_random_state(self.random_state)
        except ValueError:
            needed = "an integer from 0 to 2**32 - 1, a numpy RandomState, or None"
            raise ArgumentError("random_state", repr(self.random_state), needed) from None
        return int(state.randint(2**31 - 1))

    def _common_seed(self) -> int:
        """The first one's seed, of several processes that share a fit."""
        seed, ranks = self._seed(), current()
        return seed if ranks.size == 1 else int(ranks.of_first(lambda: str(seed).encode()))

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

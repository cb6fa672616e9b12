"""An autoencoder on raw rows, as other packages have it: what models become and are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from shoal.data import FittedPreprocessing, Preprocessing
from shoal.estimators import DictionaryAutoencoder, TiedAutoencoder
from shoal.network.activations import (
    Activation,
    BatchTopK,
    HardThreshold,
    JumpReLU,
    ReLU,
    TopK,
)
from shoal.training import Adam, Constant, Recipe, recipe_named
from shoal.training.constraints import Free, UnitLength
from shoal.vocabulary import ArgumentError, Parameters

__all__ = ["Autoencoder", "Gating", "fitted", "folded"]

Array = NDArray[Any]

# Arbitrary: as small as the rates that trainers of such autoencoders end with, since what is gone
# on with is trained already.
_RATE = 1e-4
_BATCH, _STEPS = 2048, 1000


class Gating(NamedTuple):
    """Which pre-activations z of a row are its code, and which are 0.

    Rectified where nothing is said.
    """

    k: int | None = None  # the k largest
    thresholds: Array | None = None  # (m,) those above them
    signed: bool = False  # by magnitude, and keeping the sign
    batch: int | None = None  # thresholds stand for the largest of a batch, so many per row


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """x = gate((y - mean) E^T + b), y_hat = x D + mean + offset, in float64.

    Attributes
    ----------
    encoder, decoder : ndarray of shape (m, n)
        E and D, a row per unit.
    bias : ndarray of shape (m,)
    mean, offset : ndarray of shape (n,)
    gating : Gating
    dtype : dtype
        float32 or float64: what the weights came in, and are written in.
    """

    encoder: Array
    bias: Array
    decoder: Array
    mean: Array
    offset: Array
    gating: Gating
    dtype: np.dtype[Any]

    @property
    def m(self) -> int:
        """Units."""
        return len(self.bias)

    @property
    def n(self) -> int:
        """Features."""
        return len(self.mean)

    @property
    def unit(self) -> bool:
        """Whether all atoms have length 1, up to rounding in float32."""
        lengths = np.linalg.norm(self.decoder, axis=1)
        return bool((np.abs(lengths - 1) <= 1e-5).all())

    def biases(self, *, subtracted: bool) -> tuple[Array, Array]:
        """b_enc (m,) and b_dec (n,), where b_dec is also taken off what is encoded, or isn't."""
        b_dec = self.written(self.mean + self.offset)
        taken = b_dec.astype(np.float64) if subtracted else 0.0
        # What the rounding of b_dec does to the codes is given back.
        return self.written(self.bias + self.encoder @ (taken - self.mean)), b_dec

    def written(self, array: Array) -> Array:
        """`array` as it goes into a file: a copy of its own in the autoencoder's precision.

        Raises
        ------
        ArgumentError
            Where it is too large for that.
        """
        with np.errstate(over="ignore"):
            made = np.array(array, dtype=self.dtype, order="C", copy=True)
        if not np.isfinite(made).all():
            needed = "weights that are finite once preprocessing is folded in"
            raise ArgumentError("model", f"weights beyond the range of {self.dtype}", needed)
        return made

    def split(self) -> Autoencoder:
        """The same function with two units per atom, one for each sign of its code."""
        gating = self.gating
        if not gating.signed:
            return self
        levels = gating.thresholds
        both = None if levels is None else np.concatenate([levels, levels])
        return replace(
            self,
            encoder=np.concatenate([self.encoder, -self.encoder]),
            bias=np.concatenate([self.bias, -self.bias]),
            decoder=np.concatenate([self.decoder, -self.decoder]),
            gating=gating._replace(signed=False, thresholds=both),
        )


# --------------------------------------------------------------------------- from a model


def folded(model: Any) -> Autoencoder:
    """A fitted model with preprocessing and offset folded into its weights.

    Raises
    ------
    ArgumentError
        Where it is no model, or its codes or its preprocessing are none that a format has.
    """
    if not isinstance(model, TiedAutoencoder):
        needed = "a fitted DictionaryAutoencoder or RegularizedAutoencoder"
        raise ArgumentError("model", f"a {type(model).__name__}", needed)
    check_is_fitted(model)
    fit = getattr(model.recipe_, "encoder", None)
    if fit is not None and fit.n_unrolled:
        found = f"codes that are corrected {fit.n_unrolled} times, which no format has"
        raise ArgumentError("model", found, "a fit with n_unrolled=0")
    mean, there, back = model.preprocessing_.affine()
    components = model.components_.astype(np.float64)
    encoder = components if model.encoder_ is None else model.encoder_.astype(np.float64)
    offset = np.zeros(len(mean)) if model.offset_ is None else model.offset_.astype(np.float64)
    return Autoencoder(
        encoder=there(encoder),
        bias=model.bias_.astype(np.float64),
        decoder=back(components),
        mean=mean,
        offset=back(offset[None])[0],
        gating=_gating(model),
        dtype=model.components_.dtype,
    )


def _gating(model: TiedAutoencoder) -> Gating:
    activation = model.recipe_.activation
    m, kind = len(model.bias_), type(activation)
    if kind is TopK:
        return Gating(k=min(activation.k, m), signed=activation.signed)
    if kind is ReLU:
        return Gating()
    if kind is HardThreshold:
        return _above(np.full(m, activation.threshold), activation.signed)
    if kind in (JumpReLU, BatchTopK) and model.thresholds_ is not None:
        signed = getattr(activation, "signed", False)
        return _above(model.thresholds_.astype(np.float64), signed, getattr(activation, "k", None))
    needed = "k-largest, rectified or thresholded codes, which other packages have"
    raise ArgumentError("model", f"codes by {activation!r}", needed)


def _above(thresholds: Array, signed: bool, batch: int | None = None) -> Gating:
    # Below 0 one is as 0: codes are rectified, or compared by magnitude.
    return Gating(thresholds=thresholds.clip(min=0.0), signed=signed, batch=batch)


# --------------------------------------------------------------------------- to a model


def fitted(autoencoder: Autoencoder) -> DictionaryAutoencoder:
    """A fitted model with that autoencoder's codes and reconstructions.

    What is taken off the data is its preprocessing, so that it is scored on what is left. Where
    encoder and atoms are one it is a tied model like any other, and goes on as one.
    """
    gating, dtype = autoencoder.gating, autoencoder.dtype
    centred, moved = bool(autoencoder.mean.any()), bool(autoencoder.offset.any())
    untied = not np.array_equal(autoencoder.encoder, autoencoder.decoder)
    spec = Preprocessing("center" if centred else "none")
    arrays = {"mean": autoencoder.mean} if centred else {}
    kind = "sparse" if gating.signed else "nonnegative"
    model = DictionaryAutoencoder(
        autoencoder.m,
        gating.k or gating.batch,
        model=kind,  # type: ignore[arg-type]
        init=autoencoder.decoder.astype(dtype),
        preprocessing=spec,
        random_state=0,
    )
    if not untied and not moved and gating.k is not None and _unbiased(autoencoder):
        recipe = recipe_named("default", kind, autoencoder.m, gating.k, None)
    else:
        recipe = Recipe(
            activation=_activation(gating),
            rule=Adam(Constant(_RATE)),
            n_steps=_STEPS,
            batch_size=_BATCH,
            constraint=UnitLength() if autoencoder.unit else Free(),
            untied=untied,
            offset=moved,
        )

    def part(array: Array | None, there: bool = True) -> Any:
        if array is None or not there:
            return None
        return torch.from_numpy(np.array(array, dtype=dtype, order="C", copy=True))

    parameters = Parameters(
        part(autoencoder.decoder),
        part(autoencoder.bias),
        part(autoencoder.encoder, untied),
        part(gating.thresholds),
        part(autoencoder.offset, moved),
    )
    return model.restore_(
        parameters,
        recipe,
        gating.k or gating.batch,
        FittedPreprocessing(spec, autoencoder.n, arrays),
        None,
    )


def _unbiased(autoencoder: Autoencoder) -> bool:
    """Whether atoms have length 1 and the bias is nothing but the rounding of the mean."""
    rounding = 64 * np.finfo(autoencoder.dtype).eps * np.linalg.norm(autoencoder.mean)
    return autoencoder.unit and bool(np.abs(autoencoder.bias).max() <= rounding)


def _activation(gating: Gating) -> Activation:
    if gating.k is not None:
        return TopK(gating.k, signed=gating.signed)
    if gating.thresholds is None:
        return ReLU()
    if gating.batch is not None:
        return BatchTopK(gating.batch)
    above = gating.thresholds[gating.thresholds > 0]
    # The window is in units of the codes: what lies half a threshold around it is near.
    width = float(np.median(above)) if len(above) else JumpReLU.window
    return JumpReLU(window=width, start=width)  # type: ignore[return-value]

"""Autoencoders that become sparse by their penalty: the scikit-learn face of Arpit et al. 2016."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from shoal.data import FittedPreprocessing, Preprocessing, Source, open_source
from shoal.estimators.base import TiedAutoencoder
from shoal.network.activations import ACTIVATIONS, Activation, ReLU, SmoothActivation, at_rest
from shoal.network.penalties import LARGEST_MEAN, Penalty, penalty_named
from shoal.parts import check_storable
from shoal.training import (
    Epoch,
    MomentumSettings,
    Recipe,
    arpit2016,
    begin,
    descend,
    usage,
)
from shoal.training.checkpoints import EVERY, NONE, TRIED, Keeper, check_keepable
from shoal.training.fit import rested
from shoal.training.passes import Tally, held_units, passing
from shoal.training.ranks import current, digest_of
from shoal.vocabulary import ArgumentError, Parameters, check_choice, check_count

__all__ = ["RegularizedAutoencoder"]

PenaltyName = Literal[
    "none", "dae", "cae", "mdae", "sae", "edae", "taylor-dae", "cae+h", "l1", "mean", "slope"
]
"""The penalties of `shoal.network.penalties.PENALTIES` that are not a user's own, by name."""

WeightLength = Literal["unit", "max-norm", "free"]
"""One of `shoal.training.WEIGHT_LENGTHS`."""


class RegularizedAutoencoder(TiedAutoencoder):
    """A weight-tied autoencoder whose codes are sparse by its penalty and activation.

    J = E \\|x - h W\\|^2 + strength * R(W, b) with the code h = s(x W^T + b), by minibatch descent
    with momentum. No number of non-zeros is asked for: how many units are active follows from the
    penalty's strength.

    Parameters
    ----------
    n_components : int, optional
        Units m; by default as many as there are features.
    penalty : str or penalty
        "dae", "cae", "mdae", "sae", "edae", "taylor-dae", "cae+h", "l1", "mean", "slope" or
        "none", or one of `shoal.network.penalties`, whose own strength and options then count:
        denoising, contractive, marginalised denoising, KL-sparse (target 0), first- and
        second-order expansions of the denoising objective, higher-order contractive, L1, an
        increasing function of the mean codes, a power of the slope times one of the lengths.
    strength : float
        lambda; of "dae" and "edae" the variance of the noise, of masking noise its probability.
    activation : str or activation
        "relu", "sigmoid", "softplus", or the counter-examples "tanh" and "maxout", which don't
        saturate at 0.
    weight_length : {"unit", "max-norm", "free"}
        Atoms of length 1, at most 1, or any: only at a fixed length does the strength have a
        predictable effect.
    tangent : bool
        With "unit", leave out what the gradient does along an atom.
    learning_rate, momentum, weight_decay : float
        Of the descent; the paper's learning rates are .001 to .005.
    batch_size, n_epochs : int
        Of the descent; 50 and 50 in the paper.
    preprocessing : str or Preprocessing, optional
        "scale" by default: features of mean 0 and standard deviation 1. For pictures of digits
        ``Preprocessing("scale", added=0.1)``, for natural patches ``Preprocessing("samples")``.
    device : str or torch.device
        "cpu", "cuda", ..., or "auto".
    random_state : int, RandomState instance or None
        The same seed gives the same bits, on the same machine with the same number of threads.
    sparse_output : bool
        Whether `transform` gives a ``scipy.sparse.csr_array``; of use with ReLU and Maxout, whose
        codes have zeros.
    penalty_options : dict, optional
        The other settings of a penalty given by its name: ``{"noise": "masking"}`` or
        ``{"variances": ...}`` for "dae", ``{"rho": 0.05}`` for "sae", ``{"f": "log"}`` for
        "mean", ``{"q": 1, "p": 0}`` for "slope", ``{"kink": 0.1}`` for "cae", and so on.
    encoder_bias : bool
        Whether the encoder has a bias that is trained; without one it stays 0.
    decoder_bias : bool
        Whether the decoder has one: y = h W + b_d.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        The atoms, in the preprocessed space.
    bias_ : ndarray of shape (n_components,)
    offset_ : ndarray of shape (n_features,) or None
        In the preprocessed space; None where there is none.
    activation_fraction_ : float
        Share of (sample, unit) pairs whose code is above the activation's delta_min (0 for ReLU,
        .1 for sigmoid and softplus): Arpit et al. 2016, eq. (14).
    dead_fraction_ : float
        Share of the units that are above it on no sample.
    saturated_units_ : int
        How many units have a mean code of .99 or more, where the penalty of "sae" is held: **they
        are not penalised at all**. 0 for penalties that hold nothing. A warning counts them.
    history_ : list of dict
        One entry per epoch: step, phase, epoch, loss, penalty, activation_fraction,
        dead_fraction.
    preprocessing_ : FittedPreprocessing
    penalty_, activation_ : what was used
    n_steps_ : int
    n_features_in_ : int

    See Also
    --------
    shoal.DictionaryAutoencoder : recovers a dictionary, with k active units a sample.

    References
    ----------
    Arpit et al. 2016, Why Regularized Auto-Encoders Learn Sparse Representation?

    Examples
    --------
    >>> from shoal import RegularizedAutoencoder
    >>> X = np.random.default_rng(0).standard_normal((500, 20))
    >>> model = RegularizedAutoencoder(40, "dae", 1.0, n_epochs=20, random_state=0).fit(X)
    >>> model.transform(X).shape, len(model.history_)
    ((500, 40), 20)
    """

    def __init__(
        self,
        n_components: int | None = None,
        penalty: PenaltyName | str | Penalty = "dae",
        strength: float = 0.25,
        *,
        activation: str | SmoothActivation = "relu",
        weight_length: WeightLength = "unit",
        tangent: bool = False,
        learning_rate: float = 0.001,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        batch_size: int = 50,
        n_epochs: int = 50,
        preprocessing: str | Preprocessing | None = "scale",
        device: str | torch.device = "cpu",
        random_state: int | np.random.RandomState | None = None,
        sparse_output: bool = False,
        penalty_options: Mapping[str, Any] | None = None,
        encoder_bias: bool = True,
        decoder_bias: bool = False,
    ) -> None:
        self.n_components = n_components
        self.penalty = penalty
        self.strength = strength
        self.activation = activation
        self.weight_length = weight_length
        self.tangent = tangent
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.preprocessing = preprocessing
        self.device = device
        self.random_state = random_state
        self.sparse_output = sparse_output
        self.penalty_options = penalty_options
        self.encoder_bias = encoder_bias
        self.decoder_bias = decoder_bias

    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | str = EVERY,
    ) -> Self:
        """Learn from `X`.

        Parameters
        ----------
        X : array-like, tensor, path or Source of shape (n_samples, n_features)
            That can be read again: an array, a file, not a stream.
        y : ignored
        checkpoint : path, optional
            A folder for checkpoints: what moves in the fit is saved there from time to time, and at
            its end. A call with the same arguments, data and folder goes on from the last one, to
            the same bits, in this process or another. Within the call SIGINT and SIGTERM are
            raised between two steps, after a save.
        checkpoint_every : int or str
            A number of steps, or a time such as "30s", "5m", "2h"; as a time, fifty times what a
            save takes at least.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Before any work, where the data or an argument can't be used, a penalty or an
            activation included that no file can hold: see :mod:`shoal.parts`; and where training
            diverges.
        RunError
            Where the checkpoints in the folder are of other data, other arguments or another
            version, or none of them is whole.
        WriteError
            Where a checkpoint can't be written; those before it stay.

        Warns
        -----
        UserWarning
            Of units that the penalty could not reach (`saturated_units_`).
        """
        epochs = self.iter_fit(X, checkpoint=checkpoint, checkpoint_every=checkpoint_every)
        self._to_the_end(epochs, checkpoint)
        return self

    def iter_fit(
        self,
        X: Any,
        y: None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | str = EVERY,
    ) -> Generator[Epoch, None, None]:
        """:meth:`fit` as a generator of epochs; the model is fitted when it is exhausted.

        Arguments are checked in this call, before the first epoch is asked for.
        """
        if (atoms := current().atoms) is not None:
            raise ArgumentError("shard_atoms", f"{atoms.size} with a penalty", "1")
        (source, names), seed = self._new_source(X), self._common_seed()
        if source.once or source.n_samples is None:
            raise ArgumentError("X", "a stream", "data that can be read once for every epoch")
        given = source.n_features if self.n_components is None else self.n_components
        m = check_count("n_components", given)
        activation, penalty = self._activation(), self._penalty()
        check_storable(activation, "activation")
        check_storable(penalty, "penalty")
        recipe = self.recipe_of(activation, penalty, source.n_samples)
        if getattr(penalty, "kink", 0.0) and not isinstance(activation, ReLU):
            raise ArgumentError("penalty", f"kink with {activation!r}", "ReLU, which has one")
        _check_pair(activation, penalty, self._settings(), m, source.n_features)
        variances = getattr(penalty, "variances", None)
        if variances is not None and len(variances) != source.n_features:
            found = f"{len(variances)} numbers for {source.n_features} features"
            raise ArgumentError("variances", found, "one a feature")
        spec, device = self._preprocessing(source.n_samples), self._device()
        self._sparse_output()
        keeper = self._keeper(checkpoint, checkpoint_every, source, seed)
        steps = self._fit_epochs(source, names, spec, m, recipe, device, keeper, seed)
        return keeper.over(steps)

    def _fit_epochs(
        self,
        source: Source,
        names: NDArray[Any] | None,
        spec: Preprocessing,
        m: int,
        recipe: Recipe,
        device: torch.device,
        keeper: Keeper,
        seed: int,
    ) -> Generator[Epoch, None, None]:
        given = self.get_params(deep=False)
        rng = np.random.default_rng(seed if keeper is NONE else keeper.seed)
        fitted = spec.fit(source)
        prepared = fitted.through(source)
        start = self._settings().start(m, source.n_features, rng)
        like = torch.from_numpy(np.empty(0, dtype=source.dtype)).dtype
        state = begin(start.map(lambda part: part.to(device, like)), recipe.plan(), rng)
        history: list[dict[str, Any]] = []
        tally: Tally | None = None
        if keeper is not NONE:
            few = next(prepared.batches(min(TRIED, self.batch_size)))
            check_keepable(recipe.plan(), state.parameters, torch.from_numpy(few).to(device))
        if (kept := keeper.found(state.parameters, tally=Tally, history=list)) is not None:
            state, tally, history = kept["state"], kept["tally"], kept["history"]

        def moving() -> dict[str, Any]:
            return {"state": state, "tally": tally, "history": history}

        with keeper.watching(moving):
            for state, tally, epoch in passing(  # noqa: B007
                state, prepared, recipe, tally
            ):
                if epoch is not None:
                    history.append(_record(epoch))
                keeper.step(moving)
                if epoch is not None:
                    yield epoch
        parameters = rested(state.parameters.map(torch.clone), prepared, recipe.activation)
        found = usage(parameters, prepared, at_rest(recipe.activation))
        held = held_units(parameters, prepared, at_rest(recipe.activation), recipe.penalty)
        current().agree("results", digest_of(parameters))
        self._fitted_params = given
        self._keep(parameters, recipe, fitted, source.feature_shape, state.number)
        self.activation_fraction_, self.dead_fraction_ = found
        self.saturated_units_ = held
        if held:
            warnings.warn(
                f"{held} of {m} units have a mean code of {LARGEST_MEAN:g} or more, where "
                f"{recipe.penalty!r} does nothing. It is for codes between 0 and 1: "
                'activation="sigmoid" has such, and penalty="l1" or "mean" acts on all',
                stacklevel=3,
            )
        self._keep_names(source.n_features, names)
        self.history_ = history

    def _keep(
        self,
        parameters: Parameters,
        recipe: Recipe,
        fitted: FittedPreprocessing,
        feature_shape: tuple[int, ...] | None,
        n_steps: int,
    ) -> None:
        self._keep_parameters(parameters)
        self.recipe_, self.activation_, self.penalty_ = recipe, recipe.activation, recipe.penalty
        self.preprocessing_, self.feature_shape_ = fitted, feature_shape
        self.n_steps_ = n_steps

    def restore_(
        self,
        parameters: Parameters,
        recipe: Recipe,
        fitted: FittedPreprocessing,
        feature_shape: tuple[int, ...] | None,
        n_steps: int = 0,
        feature_names: NDArray[Any] | None = None,
    ) -> Self:
        """Take on a fitted state read from a file; see :func:`shoal.load_run`."""
        self._fitted_params = self.get_params(deep=False)
        self._keep(parameters, recipe, fitted, feature_shape, n_steps)
        self._keep_names(parameters.dictionary.shape[1], feature_names)
        return self

    def transform(
        self, X: Any, method: str = "encoder", *, tol: float | None = None
    ) -> NDArray[Any] | sparse.csr_array:
        """The codes of `X`, h = s(x W^T + b).

        Parameters
        ----------
        X : array-like, tensor, path or Source of shape (n_samples, n_features)
        method : {"encoder"}
            The encoder's own code is the only one: how many units a sample has active is the
            penalty's doing, and pursuits ask for their number.
        tol : None
            A target for the error is for pursuits.

        Returns
        -------
        ndarray or scipy.sparse.csr_array of shape (n_samples, n_components)
            As `sparse_output` says. Codes of ReLU and Maxout have zeros; those of the smooth
            activations have none.
        """
        return super().transform(X, method, tol=tol)

    def _encoder(self) -> Activation:
        found: Activation = at_rest(self.activation_)
        return found

    # ------------------------------------------------------------------ checks

    def _activation(self) -> SmoothActivation:
        if isinstance(self.activation, str):
            kind = ACTIVATIONS[check_choice("activation", self.activation, ACTIVATIONS)]
            made: SmoothActivation = kind()
            return made
        if not callable(self.activation):
            needed = f"one of {', '.join(ACTIVATIONS)}, or an activation"
            raise ArgumentError("activation", repr(self.activation), needed)
        return self.activation

    def _penalty(self) -> Penalty:
        options = self.penalty_options
        if options is not None and not isinstance(options, Mapping):
            needed = "a dict of the penalty's settings by name, or None"
            raise ArgumentError("penalty_options", repr(options), needed)
        if isinstance(self.penalty, str):
            return penalty_named(self.penalty, self.strength, **(options or {}))
        if options:
            needed = "none with a penalty that is no name: it has its own"
            raise ArgumentError("penalty_options", repr(options), needed)
        if not callable(self.penalty) or not hasattr(self.penalty, "strength"):
            needed = "a name, or a penalty from shoal.network.penalties"
            raise ArgumentError("penalty", repr(self.penalty), needed)
        return self.penalty

    def recipe_of(self, activation: SmoothActivation, penalty: Penalty, n_samples: int) -> Recipe:
        """What training does with this model's settings on `n_samples` rows."""
        return arpit2016(activation, penalty, n_samples, self._settings())

    def _settings(self) -> MomentumSettings:
        return MomentumSettings(
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            batch_size=self.batch_size,
            n_epochs=self.n_epochs,
            weight_length=self.weight_length,
            tangent=self.tangent,
            weight_decay=self.weight_decay,
            encoder_bias=self.encoder_bias,
            decoder_bias=self.decoder_bias,
        )


def _record(epoch: Epoch) -> dict[str, Any]:
    """What the history says of an epoch."""
    return {
        "step": epoch.steps,
        "phase": "descent",
        "epoch": epoch.number,
        "loss": epoch.loss,
        "penalty": epoch.penalty,
        "activation_fraction": epoch.usage.activation_fraction,
        "dead_fraction": epoch.usage.dead_fraction,
    }


def _check_pair(
    activation: Any, penalty: Penalty, settings: MomentumSettings, m: int, n: int
) -> None:
    """Whether activation and penalty have all that is asked of them, by a step on two rows."""
    recipe = arpit2016(activation, penalty, 2, settings)
    rng = np.random.default_rng(0)
    source = open_source(rng.standard_normal((2, n)))
    start = Parameters(torch.from_numpy(rng.standard_normal((m, n))), torch.zeros(m).double())
    try:
        _, sums = next(descend(begin(start, recipe.plan(), rng), source, recipe.plan()))
    except AttributeError as error:
        found = f"{activation!r}, of which {penalty!r} asks more: {error}"
        needed = "another penalty, or an activation that offers it"
        raise ArgumentError("activation", found, needed) from None
    if recipe.offset and sums.slopes()[3] is None:
        found = f"{penalty!r}, which says nothing of the decoder's bias"
        raise ArgumentError("penalty", found, "one that gives Terms.offset, or no decoder_bias")

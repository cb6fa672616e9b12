"""The scikit-learn face of recovery: it validates, calls the rooms, keeps the result."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from shoal.data import FittedPreprocessing, Preprocessing, Source
from shoal.estimators.base import METHODS, PURSUITS, TiedAutoencoder
from shoal.estimators.inputs import LOOKED_AT, first_rows
from shoal.network.activations import Activation, at_rest
from shoal.network.inference import (
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
from shoal.training.fit import SEARCHED, closed, drawn, narrowed, rested, searched, started, tenth
from shoal.training.revival import Activity
from shoal.training.sparsity import VARYING
from shoal.training.state import generator_at
from shoal.vocabulary import (
    ArgumentError,
    Parameters,
    Step,
    check_choice,
    check_count,
)

Model = Literal["sparse", "nonnegative", "mixture"]
"""What a data set's codes are like: one of `shoal.training.MODELS`."""

Init = Literal["auto", "data", "random", "residual", "pca", "pairwise"]
"""Where atoms start, by name."""


class Carried(NamedTuple):
    """What one call of `partial_fit` hands to the next beside the model."""

    place: Place
    activity: Activity | None = None
    adapted: Adapted | None = None

    def counts(self) -> dict[str, Any]:
        """As :func:`shoal.training.begin` takes them."""
        return {"activity": self.activity, "adapted": self.adapted}


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
        assert state.k is not None
        parameters, dtype = pruned(state.parameters), source.dtype
        parameters, recipe, k = closed(parameters, problem.kept, recipes(state.k), state.k)
        parameters = units.restored(parameters, problem.exponent)
        if len(parameters.bias) < m:
            warnings.warn(
                f"n_components={m}: the data have use for {len(parameters.bias)} atoms; the "
                "others, again and again without a use or duplicates, are left out of components_",
                stacklevel=2,
            )
        n_steps = state.number if state.polished is None else state.n_steps
        self._keep(parameters, recipe, k, fitted, source.feature_shape, n_steps)
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
            few = first_rows(prepared, LOOKED_AT)
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
            if method == "pursuit" and self.recipe_.pursuit is not None:
                pursuit = self.recipe_.pursuit
            # A pursuit asks for no encoder.
            parameters = parameters._replace(encoder=None, bias=torch.zeros_like(parameters.bias))
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
            name = self.recipe
            if k == VARYING and name == "default":
                name = "incoherent"
            found = recipe_named(name, self.model, m, k, n_samples)
        check_storable(found)
        return found

    def _init(self) -> str | NDArray[Any]:
        """Where atoms start, "auto" resolved."""
        if isinstance(self.init, str) and self.init == "auto":
            return "residual" if self.model == "mixture" else "data"
        return self.init

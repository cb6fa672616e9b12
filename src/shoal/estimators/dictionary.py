"""The scikit-learn face of recovery: it validates, calls the rooms, keeps the result."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from shoal.data import FittedPreprocessing, Preprocessing, Source
from shoal.data.gaps import MISSING, check_ignorable, fitted_on_seen, usual_values
from shoal.data.norms import NORMS, RowNorms, guarded
from shoal.estimators.base import METHODS, PURSUITS, TiedAutoencoder
from shoal.network.activations import Activation, TopK, at_rest
from shoal.network.codes import SparseCodes
from shoal.network.inference import (
    OrthogonalMatchingPursuit,
    Pursuit,
    SubspacePursuit,
    corrected_codes,
    fast_least_squares,
    fast_sparse_encode,
    sparse_codes,
)
from shoal.network.seen import filled, seen_least_squares
from shoal.parts import check_storable
from shoal.training import (
    MODELS,
    History,
    Recipe,
    check_init,
    prepare,
    pruned,
    recipe_named,
    run,
    units,
)
from shoal.training.adaptation import BiasAdaptation
from shoal.training.autoencoding import AutoencoderAdam, about_mean
from shoal.training.checkpoints import EVERY, NONE, TRIED, Keeper, check_keepable
from shoal.training.descent import shares_atoms, with_all_atoms
from shoal.training.encoding import ENCODERS, Encoded, followed
from shoal.training.fit import (
    SEARCHED,
    closed,
    drawn,
    encoding,
    narrowed,
    outcome,
    rested,
    searched,
    started,
    tenth,
    told,
)
from shoal.training.history import Recorded
from shoal.training.initialization import atoms_given, rows_wanted
from shoal.training.pieces import Carried, Waiting, pass_over, rows_to_start, unit_of
from shoal.training.ranks import current, digest_of
from shoal.training.recipes.recipe import with_encoder, with_positive_atoms
from shoal.training.revival import Activity
from shoal.training.sparsity import VARYING
from shoal.training.state import State, generator_at
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


PRESETS: dict[str, dict[str, Any]] = {
    "activations": {
        "model": "nonnegative",
        "n_nonzero_coefs": 32,
        "preprocessing": "center",
        "norms": "clip",
    }
}
"""Names for several arguments of :class:`DictionaryAutoencoder`."""


def _is_usual(given: Any, usual: Any) -> bool:
    return given is usual or (type(given) is type(usual) and bool(given == usual))


Encoder = Literal["auto", "tied", "tied-gain", "untied"]
"""What codes after a fit: one of `shoal.training.encoding.ENCODERS`."""


# Arbitrary: an encoder that explains so much less than a pursuit with as many atoms is worth a
# word, if so many rows say it.
_FAR_LESS, _JUDGED = 0.2, 100

# Arbitrary: from this share on, what all rows have in common is worth a word.
_LARGE_OFFSET = 0.25


def _said(m: int, kept: int, cost: float | None) -> str:
    """What is said of a fit of `m` atoms that keeps fewer."""
    text = (
        f"n_components={m}: the data have use for {kept} atoms; the others, again and again "
        "without a use or duplicates, are left out of components_"
    )
    if cost is None:
        text += ", and in what these leave no further direction stands out"
    else:
        text += f"; a fit that keeps them explains {100 * cost:.2g} % of the data's square more"
    return text


def _collapsed(dictionary: NDArray[Any]) -> str | None:
    """What is said of unit atoms (m, n) that have mostly one direction, or None."""
    m, n = dictionary.shape
    share = float(np.linalg.norm(dictionary, 2)) ** 2 / m
    # Arbitrary: half as much again as random atoms have.
    if m < 2 or share <= 1.5 * (1 + (n / m) ** 0.5) ** 2 / n:
        return None
    return (
        f"the atoms have collapsed: {share:.0%} of their square lies along one direction, as where "
        "an offset of all rows keeps every unit firing; preprocessing='center' takes it out, "
        "or recipe='default'"
    )


def _held_said(found: RowNorms, norms: str | None) -> str:
    if norms == "scale":
        return "in the fit all rows were of one length: norms='scale'"
    return (
        f"{found}; in the fit each was as long as that one (norms='clip'; norms=None leaves them "
        "as they are)"
    )


def _encoder_said(done: Encoded) -> str:
    return (
        f"the encoder ({done.kind}) explains {done.explained:.0%} of the variance, a pursuit with "
        f"as many atoms {done.pursued:.0%}: method='omp' of transform and score gives the better "
        "codes"
    )


def _offset_said(offset: float) -> str:
    return (
        f"The mean of X is {offset:.0%} of its square: what all rows have in common can hide "
        "atoms; preprocessing='center' takes it out"
    )


def _refuse_pursuit(recipe: Any) -> None:
    """Codes by thresholds are learned from data that are read many times."""
    if recipe == "incoherent" or getattr(recipe, "pursuit", None) is not None:
        needed = "fit, or a recipe with a number of active units"
        raise ArgumentError("recipe", "thresholds and incoherence in partial_fit", needed)


class DictionaryAutoencoder(TiedAutoencoder):
    """Recover the dictionary behind data with a shallow weight-tied autoencoder.

    The code of a sample is x = sigma(D y + b) and its reconstruction x D, with the m atoms
    of D as unit rows. By default sigma keeps the k largest entries, and the fit is a
    minibatch descent that replaces dead and duplicate atoms, followed by a polish that
    removes the bias of the tied code (``recipe="default"``).

    Parameters
    ----------
    n_components : int, optional
        Number of atoms m. By default that of `init`, where that is an array, and else
        min(n_samples, n_features).
    n_nonzero_coefs : int or "auto", optional
        Active units a sample, k; from 1 to m. By default a tenth of m, at least 1; 1 for
        ``model="mixture"``. With "auto" it is estimated from the data first, by short fits
        (`shoal.training.find_sparsity`); where samples have different numbers, each takes what
        it needs, by thresholds (``recipe="incoherent"``); where no number stands out, the
        default is used, with a warning.
    model : {"sparse", "nonnegative", "mixture"}
        Signed sparse codes; non-negative sparse codes; one active unit a sample, a mixture
        of clusters about the directions of the atoms.
    recipe : str or Recipe
        A name from `shoal.training.RECIPES`, or a `shoal.training.Recipe` of your own:
        activation, step size, schedules, revival and polish. "topk", "batchtopk", "jumprelu" and
        "matryoshka" train the sparse autoencoders of that name end to end.
    init : str or array of shape (n_components, n_features)
        Where atoms start, in the preprocessed space: "data", rows of the data; "random",
        random directions; "residual", rows one by one far from the directions of those before,
        as k-means++ does; "pca", principal directions; "pairwise", what pairs of rows share
        (Arora et al. 2015); or an array, for a warm start. "auto" is "residual" for mixtures,
        which then start near their means, and else "data".
    preprocessing : str or Preprocessing, optional
        "none", "center", "scale", "whiten" or a `shoal.data.Preprocessing`. Fitted with
        the model; `transform` applies it and `inverse_transform` undoes it.
    encoder : {"auto", "tied", "tied-gain", "untied"}
        What codes after the fit, the dictionary being held: "tied", the atoms themselves;
        "tied-gain", the atoms with a gain and a bias for each unit; "untied", weights of its own
        and a bias. "auto" is what the recipe says: by default the last one, but gains where rows
        are few and the atoms themselves where nothing else explains more.
    n_unrolled : int
        Corrections of the encoder's codes by what they leave unexplained, each one more gate and
        k m multiplications a row: see `shoal.network.inference.corrected_codes`.
    joint : bool
        Whether the atoms move with the encoder, end to end, once they are found: a k-sparse
        autoencoder that begins as the dictionary. Its codes explain more and a pursuit's less.
    positive_atoms : bool
        Whether no entry of an atom may be below 0, for data that are sums of what cannot be
        negative: spectra, counts, stains. With a recipe whose atoms are of length 1.
    norms : {"auto", "clip", "scale"} or None
        What a fit does about rows that are much longer than the others, and hold most of the
        square: "clip" makes rows whose norm is out of proportion, at least three times that of the
        middle row, as long as that one; "auto" does so, with a warning, where such rows hold a
        fifth of the square or more; "scale" makes all rows of one length; None does nothing. Where
        the preprocessing takes a mean away, norms are those about the middle of each column.
        Codes are those of rows as they are.
    missing : "ignore" or None
        "ignore" takes NaN for entries that are missing: fit, codes, scores and :meth:`denoise` are
        least squares on those that are seen. A row or a column without a number is an error, as
        every NaN is with None. With preprocessing "none", "center" or "scale", and data whose
        rows can be counted.
    preset : "activations" or None
        A name for several arguments, of which those count that are left at their defaults. For
        "activations", of a language model: ``model="nonnegative"``, 32 active units a sample,
        ``preprocessing="center"`` and ``norms="clip"``.
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
        The encoder's bias b, 0 where it is tied.
    preprocessing_ : FittedPreprocessing
    model_ : str
        The model that was fitted. It decides, as `n_nonzero_coefs_` and `recipe_` do, what
        `transform` gives and what a run folder says: arguments that are set after a fit are for
        the next one.
    encoder_ : ndarray of shape (n_components, n_features) or None
        The weights of an encoder of its own; None where the atoms are the weights.
    thresholds_ : ndarray of shape (n_components,) or None
        What a unit's code must be worth, where each sample takes as many as it needs.
    offset_ : ndarray of shape (n_features,) or None
        What the decoder adds, where the recipe learns it.
    n_nonzero_coefs_ : int
        The number k of active units a sample that was used; where it varies, its mean.
    recipe_ : Recipe
        What was used.
    history_ : list of dict
        Learning curves, as described at :class:`shoal.training.History`.
    n_steps_ : int
        Updates of the descent.
    notes_ : tuple of str
        What there is to say of the data as the fit saw them. Only after :meth:`fit`.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (``n_features_in_``,)
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
        encoder: Encoder = "auto",
        n_unrolled: int = 0,
        joint: bool = False,
        positive_atoms: bool = False,
        norms: Literal["auto", "clip", "scale"] | None = "auto",
        missing: Literal["ignore"] | None = None,
        preset: Literal["activations"] | None = None,
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
        self.encoder = encoder
        self.n_unrolled = n_unrolled
        self.joint = joint
        self.positive_atoms = positive_atoms
        self.norms = norms
        self.missing = missing
        self.preset = preset
        self.device = device
        self.random_state = random_state
        self.sparse_output = sparse_output

    methods = METHODS
    _carried: Carried | None = None  # from call to call of partial_fit

    # ------------------------------------------------------------------ fitting

    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | str = EVERY,
    ) -> Self:
        """Learn the dictionary of `X`.

        Parameters
        ----------
        X : array-like, tensor, path or Source of shape (n_samples, n_features)
            Arrays of either order, torch tensors and memory-mapped arrays are not copied.
            A path, a spec such as ``"sample:patches"``, or an iterable of batches is
            opened by :func:`shoal.data.open_source`.
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
            Before any work, where the data or an argument can't be used
            (`shoal.vocabulary.ArgumentError` for arguments), a recipe with a part that no file
            can hold included: see :mod:`shoal.parts`.
        RunError
            Where the checkpoints in the folder are of other data, other arguments or another
            version, or none of them is whole.
        WriteError
            Where a checkpoint can't be written; those before it stay.
        """
        steps = self.iter_fit(X, checkpoint=checkpoint, checkpoint_every=checkpoint_every)
        self._to_the_end(steps, checkpoint)
        return self

    def iter_fit(
        self,
        X: Any,
        y: None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | str = EVERY,
    ) -> Generator[Step, None, None]:
        """:meth:`fit` as a generator of steps; the model is fitted when it is exhausted.

        Arguments are checked in this call, before the first step is asked for. A generator
        that is dropped half-way leaves the model as it was before, and saves the state that it
        was dropped at, where there are checkpoints.
        """
        if self.preset is not None:
            settled = self._without_preset()
            return self._taking_on(
                settled,
                settled.iter_fit(X, checkpoint=checkpoint, checkpoint_every=checkpoint_every),
            )
        (source, names), seed = self._new_source(X), self._common_seed()
        m, k = self._sizes(source.n_samples, source.n_features, whole=True)
        recipes = cache(partial(self._recipe, m, n_samples=source.n_samples))
        if recipes(k or 1).batch_size is None and source.n_samples is None:
            raise ArgumentError("recipe", "a full batch on a stream", "one with a batch_size")
        device = self._device()
        spec = self._preprocessing(source.n_samples)
        check_init(self._init(), m, source.n_features)
        self._sparse_output()
        if source.gaps:
            check_ignorable(spec, source)
        _check_shards(source, m, recipes(k or 1))
        keeper = self._keeper(checkpoint, checkpoint_every, source, seed)
        steps = self._fit_steps(source, names, spec, recipes, m, k, device, keeper, seed)
        return keeper.over(steps)

    def _without_preset(self) -> Self:
        """A model with the preset's arguments in the place of those that are left at defaults."""
        named = PRESETS[check_choice("preset", self.preset, PRESETS)]
        usual = type(self)().get_params(deep=False)
        given = self.get_params(deep=False)
        changed = {
            name: value for name, value in named.items() if _is_usual(given[name], usual[name])
        }
        return type(self)(**{**given, **changed, "preset": None})

    def _taking_on(
        self, settled: Self, steps: Generator[Step, None, None]
    ) -> Generator[Step, None, None]:
        """The steps of `settled`, whose fit is this model's once it is done."""
        yield from steps
        own = self.get_params(deep=False)
        self.__dict__.update({k: v for k, v in vars(settled).items() if k not in own})

    def _fit_steps(
        self,
        source: Source,
        names: NDArray[Any] | None,
        spec: Preprocessing,
        recipes: Callable[[int], Recipe],
        m: int,
        k: int | None,
        device: torch.device,
        keeper: Keeper,
        seed: int,
    ) -> Generator[Step, None, None]:
        given = self.get_params(deep=False)
        rng = np.random.default_rng(seed if keeper is NONE else keeper.seed)
        seen, held = guarded(
            source,
            self.norms,
            centred=spec.kind in ("center", "scale", "whiten"),
            ahead=rows_wanted(self._init(), m),
        )
        notes = []
        if held is not None:
            notes.append(_held_said(held, self.norms))
            if self.norms == "auto":
                warnings.warn(notes[0], stacklevel=2)
        usual = None
        if source.gaps:
            columns = usual_values(seen)
            fitted = fitted_on_seen(spec, seen, columns)
            if not columns.complete:
                usual = fitted.apply(columns.mean[None])[0]
        else:
            fitted = spec.fit(seen)
        prepared = fitted.through(seen)
        problem, state = prepare(
            prepared,
            self._init(),
            m,
            k,
            recipes,
            self.model,
            rng,
            device=device,
            usual=usual,
        )
        history = History()
        if keeper is not NONE:
            few = problem.kept.draw(TRIED, np.random.default_rng(0), strict=False)
            check_keepable(recipes(k or 1).plan(), problem.start, torch.from_numpy(few).to(device))
        if (kept := keeper.found(problem.start, history=Recorded)) is not None:
            state = kept["state"]
            history.resumed(kept["history"])

        def moving() -> dict[str, Any]:
            return {"state": with_all_atoms(state), "history": history.recorded()}

        with keeper.watching(moving):
            for state, sums in run(problem, state):
                step = problem.step(state, sums)
                if state.k is not None:  # a trial is no part of the fit
                    history.add(step)
                keeper.step(moving)
                yield step
        found = outcome(problem, state)
        assert state.k is not None
        parameters, dtype = pruned(found.parameters), source.dtype
        # Rows of a stream that are kept will do.
        at_last = problem.as_seen(state)
        rows = at_last.kept if prepared.once else at_last.source
        # What is saved from here on is the end of the fit: an encoder takes few steps.
        ended = {"state": state, "history": history.recorded()}
        steps = encoding(at_last, state, found, parameters, rows)
        while True:
            try:
                step = units.told_in(next(steps), problem.exponent)
            except StopIteration as end:
                done = end.value
                break
            history.add(step)
            keeper.step(lambda: ended)
            yield step
        if done is not None:
            parameters = done.parameters
            if done.judged >= _JUDGED and done.pursued - done.explained > _FAR_LESS:
                warnings.warn(_encoder_said(done), stacklevel=2)
        parameters, recipe, k = closed(parameters, rows, recipes(state.k), state.k)
        if done is not None and recipe.encoder is not None:
            recipe = replace(recipe, encoder=done.settled(recipe.encoder))
        parameters = units.restored(parameters, problem.exponent)
        if self.model == "sparse" and problem.offset >= _LARGE_OFFSET and not recipe.offset:
            warnings.warn(_offset_said(problem.offset), stacklevel=2)
        if len(parameters.bias) < m:
            text = _said(m, len(parameters.bias), found.cost)
            if problem.offset >= _LARGE_OFFSET and self.model != "sparse":
                text = f"{text}. {_offset_said(problem.offset)}"
            warnings.warn(text, stacklevel=2)
        if isinstance(recipe.bias, BiasAdaptation):
            said = _collapsed(parameters.dictionary.cpu().numpy())
            if said is not None:
                warnings.warn(said, stacklevel=2)
        current().agree("results", digest_of(parameters))
        self._keep_params(given)
        self._keep(parameters, recipe, k, fitted, source.feature_shape, found.n_steps)
        idle = Activity.none(parameters.bias)
        if found.activity is not None:  # as patient as the fit was at its end
            idle = idle._replace(total=found.activity.total)
        self._carried = Carried(state.place, idle, exponent=problem.exponent)
        if found.before_polish is not None:
            before = pruned(Parameters(found.before_polish, found.before_polish[:, 0]))
            self.unpolished_components_ = before.dictionary.cpu().numpy().astype(dtype)
        self._keep_names(source.n_features, names)
        self.history_ = history.close()
        self.notes_ = (*notes, *state.said, *told(state))

    def partial_fit(self, X: Any, y: None = None) -> Self:
        """One pass of minibatch descent over `X`, from where the last call stopped.

        The first call starts the atoms, fits the preprocessing and, where asked for, finds the
        number of active units. Where it has less than ten rows an atom (whitened, twice as many
        rows as features), its rows are kept, and the start is made again from all of them each
        time that they have doubled, until there are so many. Later calls go on with the steps
        of the recipe, and its last ones, by default those of the refinement, have no end. A call
        may have any number of rows: a step is a batch of the recipe's size, and fewer rows make
        as much less of one. There is no polish: it needs data that a stream doesn't keep. After
        :meth:`fit` it goes on from that result, and an encoder of its own moves with the atoms.
        Without a fit the encoder is tied, unless the recipe trains one with the atoms, as "topk"
        does: another one can't be asked for.

        Parameters
        ----------
        X : array-like, tensor, path or Source of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self
        """
        for name in ("missing", "preset"):
            if (value := getattr(self, name)) is not None:
                raise ArgumentError(name, f"{value!r} in partial_fit", "fit, or None")
        first = not hasattr(self, "components_")
        if first:
            self._refuse_encoder()
        _refuse_pursuit(self.recipe_ if not first else self.recipe)
        device, carried = self._device(), None if first else self._carried
        source, names = self._new_source(X) if first else (self._source(X), None)
        waiting = Waiting() if first else carried and carried.waiting
        if waiting is not None:
            spec = self._preprocessing(source.n_samples)
            m, _ = self._sizes(None, source.n_features, whole=False)
            wanted = rows_to_start(m, source.n_features, full_rank=spec.kind == "whiten")
            earlier, waiting = waiting, waiting.and_of(source, wanted)
            if waiting is None or waiting.due():
                self._begin(earlier.before(source), names, waiting, device)
                return self
        k, recipe, fitted = self.n_nonzero_coefs_, self.recipe_, self.preprocessing_
        prepared = fitted.through(source)
        exponent = unit_of(prepared, recipe, carried)
        prepared = units.changed(prepared, exponent)
        parameters = self._parameters(self.components_.dtype, device)
        apart = parameters if recipe.encoder is not None else None
        parameters = units.restored(parameters, -exponent)
        if apart is not None:  # what moves is tied
            parameters = Parameters(apart.dictionary, torch.zeros_like(apart.bias))
        state = pass_over(
            parameters,
            prepared,
            recipe,
            self._generator(),
            number=self.n_steps_,
            carried=carried and carried.in_unit(exponent),
        )
        self._keep_piece(
            state, prepared, recipe, k, fitted, source.feature_shape, exponent, apart=apart
        )
        self._carried = Carried.after(state, exponent, waiting)
        return self

    def _refuse_encoder(self) -> None:
        """What is fitted to a dictionary once that is found, no piece of data is enough for."""
        needed = "fit first, or a recipe that trains an encoder with the atoms, such as 'topk'"
        if self.encoder not in ("auto", "tied"):
            check_choice("encoder", self.encoder, ENCODERS)
            raise ArgumentError("encoder", f"{self.encoder!r} in partial_fit", f"'auto', {needed}")
        for name, usual in (("n_unrolled", 0), ("joint", False)):
            value = getattr(self, name)
            if value != usual:
                raise ArgumentError(name, f"{value!r} in partial_fit", f"{usual!r}, {needed}")

    def _begin(
        self,
        source: Source,
        names: NDArray[Any] | None,
        waiting: Waiting | None,
        device: torch.device,
    ) -> None:
        """Start from all rows up to now, and pass over them; `waiting` where they are few."""
        rng = np.random.default_rng(self._common_seed())
        m, k = self._sizes(source.n_samples, source.n_features, whole=False)
        if waiting is not None and k is None:  # too few to search in
            k = tenth(m)
        recipes = cache(partial(self._recipe, m, n_samples=None))
        recipes(k or 1)  # refuses what can't be used, before any work
        self._sparse_output()
        fitted = self._preprocessing(source.n_samples).fit(source)
        prepared = fitted.through(source)
        sample, kept = drawn(prepared, self._init(), m, SEARCHED if k is None else 0, rng)
        exponent = units.exponent(sample, recipes(k or 1))
        sample = np.ldexp(sample, exponent)
        prepared, kept = units.changed(prepared, exponent), units.changed(kept, exponent)
        trains = isinstance(recipes(k or 1).rule, AutoencoderAdam)
        about = sample - sample.mean(axis=0) if trains and isinstance(self._init(), str) else sample
        parameters = started(self._init(), about, m, device, rng)
        if k is None:
            # Rows with different numbers of active units: see `_refuse_pursuit`.
            k = searched(narrowed(parameters, sample), kept, self.model, rng) or tenth(m)
        if trains:
            parameters = about_mean(parameters, sample, recipes(k).activation, k)
        state = pass_over(parameters, prepared, recipes(k), rng)
        first = not hasattr(self, "components_")
        self._keep_params(self.get_params(deep=False))
        self._keep_piece(
            state, prepared, recipes(k), k, fitted, source.feature_shape, exponent, anew=True
        )
        self._carried = Carried.after(state, exponent, waiting and waiting.begun())
        if first:
            self._keep_names(source.n_features, names)

    def _keep_piece(
        self,
        state: State,
        prepared: Source,
        recipe: Recipe,
        k: int,
        fitted: FittedPreprocessing,
        feature_shape: tuple[int, ...] | None,
        exponent: int,
        *,
        anew: bool = False,
        apart: Parameters | None = None,
    ) -> None:
        """Take on the state after a piece of data, `prepared`; `apart` is the encoder before.

        They are of the unit 2^-exponent of the data's own, `apart` but for that.
        """
        parameters = state.parameters
        if apart is not None and apart.encoder is not None:
            parameters = followed(apart, parameters.dictionary)
        if not prepared.once:
            parameters = rested(parameters, prepared, recipe.activation)
            new, old = parameters.threshold, None if anew else self.thresholds_
            if new is not None and old is not None and new is not state.parameters.threshold:
                # Of few rows the threshold is a rough one: they weigh as in an update.
                share = min(1.0, (prepared.n_samples or np.inf) / (recipe.batch_size or 1))
                before = torch.ldexp(torch.from_numpy(old).to(new), torch.tensor(exponent))
                parameters = parameters._replace(threshold=torch.lerp(before, new, share))
        if apart is None:
            parameters = units.restored(parameters, exponent)
        shape = feature_shape or getattr(self, "feature_shape_", None)
        self._keep(parameters, recipe, k, fitted, shape, state.number)

    def _generator(self) -> np.random.Generator:
        """Where the randomness of the last fit stopped; at the seed for a run read from a file."""
        if self._carried is None:
            return np.random.default_rng(self._common_seed())
        return generator_at(self._carried.place.after)

    def _keep_params(self, given: dict[str, Any]) -> None:
        """The arguments that the model was fitted with, and which kind of model that makes it."""
        self._fitted_params, self.model_ = given, str(given["model"])

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
        if parameters.encoder is None and recipe.encoder is not None:  # none was fitted
            recipe = replace(recipe, encoder=replace(recipe.encoder, weights="tied"))
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
        self._keep_params(self.get_params(deep=False))
        self._carried = None
        self._keep(parameters, recipe, n_nonzero_coefs, fitted, feature_shape, n_steps)
        self._keep_names(parameters.dictionary.shape[1], feature_names)
        return self

    # ------------------------------------------------------------------ using the model

    def _encoder(self) -> Activation:
        found: Activation = at_rest(self.recipe_.activation)
        return found

    def _code(
        self,
        parameters: Parameters,
        batch: NDArray[Any],
        method: str,
        without_zeros: bool,
        tol: float | None = None,
    ) -> NDArray[Any] | sparse.csr_array:
        unrolled = self.recipe_.encoder
        corrected = unrolled is not None and unrolled.n_unrolled > 0
        if method == "encoder" and not corrected:
            return super()._code(parameters, batch, method, without_zeros)
        signed, dictionary = self.model_ == "sparse", parameters.dictionary
        data = torch.from_numpy(batch).to(dictionary.device)
        if method == "encoder":
            found = self._own_codes(parameters, data)
        elif method in PURSUITS:
            pursuit = PURSUITS[method](self.n_nonzero_coefs_, signed)
            if method == "pursuit" and self.recipe_.pursuit is not None:
                pursuit = self.recipe_.pursuit
            if tol is not None:
                pursuit = OrthogonalMatchingPursuit(min(dictionary.shape), signed, tol)
            found = fast_sparse_encode(parameters, data, pursuit)
        else:
            support = self._own_codes(parameters, data)
            if parameters.offset is not None:
                data = data - parameters.offset
            found = fast_least_squares(dictionary, data, support, signed=signed)
        m = len(dictionary)
        return found.to_csr(m) if without_zeros else found.dense(m).cpu().numpy()

    def _pursuit(self) -> Pursuit:
        """What infers the codes that missing entries are filled by."""
        found = self.recipe_.pursuit
        return found or SubspacePursuit(self.n_nonzero_coefs_, self.model_ == "sparse")

    def _exponents(self, batch: NDArray[Any]) -> NDArray[Any] | int:
        """The units (B, 1) of rows of any magnitude, as for `_code_rows`, where some is missing."""
        if self.thresholds_ is not None or self.offset_ is not None:
            return 0
        return units.exponents(np.nanmax(np.abs(batch), axis=1))[:, None]

    def _whole(self, batch: NDArray[Any]) -> NDArray[Any]:
        if not np.isnan(batch).any():
            return batch
        parameters = self._parameters(batch.dtype, self._device())
        exponents = self._exponents(batch)
        rows = torch.from_numpy(np.ldexp(batch, exponents)).to(parameters.bias.device)
        found = filled(parameters, rows, self._pursuit(), signed=self.model_ == "sparse")
        return np.where(np.isnan(batch), np.ldexp(found.cpu().numpy(), -exponents), batch)

    def _code_seen(
        self,
        parameters: Parameters,
        batch: NDArray[Any],
        method: str,
        without_zeros: bool,
        tol: float | None,
    ) -> NDArray[Any] | sparse.csr_array:
        codes = self._code_rows(parameters, self._whole(batch), method, without_zeros, tol)
        if method == "encoder":
            return codes
        # The support is that of the whole row, and the coefficients those of what is seen.
        dense = codes.toarray() if isinstance(codes, sparse.csr_array) else np.asarray(codes)
        gaps = np.isnan(batch).any(axis=1)
        exponents = self._exponents(batch[gaps])
        on_seen = seen_least_squares(
            parameters,
            torch.from_numpy(np.ldexp(batch[gaps], exponents)).to(parameters.bias.device),
            sparse_codes(torch.from_numpy(dense[gaps]).to(parameters.bias.device)),
            signed=self.model_ == "sparse",
        )
        dense[gaps] = np.ldexp(on_seen.dense(len(parameters.bias)).cpu().numpy(), -exponents)
        return sparse.csr_array(dense) if without_zeros else dense

    def _own_codes(self, parameters: Parameters, data: torch.Tensor) -> SparseCodes:
        """The encoder's codes of data (B, n), corrected where it is unrolled."""
        activation, fit = self._encoder(), self.recipe_.encoder
        if fit is None or fit.n_unrolled == 0 or not isinstance(activation, TopK):
            return fast_sparse_encode(parameters, data, activation)
        return corrected_codes(parameters, data, activation, fit.n_unrolled, fit.step)

    # ------------------------------------------------------------------ checks

    def _sizes(
        self, n_samples: int | None, n_features: int, *, whole: bool
    ) -> tuple[int, int | None]:
        """The numbers of atoms and of active units, m and k; None for one to be estimated."""
        if self.n_components is None:
            m = atoms_given(self._init()) or min(n_features, n_samples or n_features)
        else:
            m = check_count("n_components", self.n_components)
        if whole and n_samples is not None and n_samples < m:
            found = f"{m} atoms for n_samples={n_samples}"
            raise ArgumentError("n_components", found, "at least as many samples as atoms")
        return m, self._active_units(m)

    def _active_units(self, m: int) -> int | None:
        """The number k of active units a sample, of `m` atoms; None for one to be estimated."""
        check_choice("model", self.model, MODELS)
        check_choice("norms", self.norms, NORMS)
        check_choice("missing", self.missing, MISSING)
        check_choice("preset", self.preset, [None, *PRESETS])
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
            if k == VARYING and name in ("topk", "batchtopk", "jumprelu", "matryoshka"):
                said = "'auto' for rows with different numbers of active units"
                raise ArgumentError("n_nonzero_coefs", said, f"a number, with recipe={name!r}")
            found = recipe_named(name, self.model, m, k, n_samples)
        if not isinstance(self.positive_atoms, (bool, np.bool_)):
            raise ArgumentError("positive_atoms", repr(self.positive_atoms), "True or False")
        if self.positive_atoms:
            found = with_positive_atoms(found)
        check_choice("encoder", self.encoder, ENCODERS)
        unrolled = check_count("n_unrolled", self.n_unrolled, low=0)
        if not isinstance(self.joint, (bool, np.bool_)):
            raise ArgumentError("joint", repr(self.joint), "True or False")
        joint = bool(self.joint)
        if self.encoder != "auto" or unrolled or joint:
            found = with_encoder(found, self.encoder, unrolled, joint=joint)
        check_storable(found)
        return found

    def _init(self) -> str | NDArray[Any]:
        """Where atoms start, "auto" resolved."""
        if isinstance(self.init, str) and self.init == "auto":
            return "residual" if self.model == "mixture" else "data"
        return self.init


def _check_shards(source: Source, m: int, recipe: Recipe) -> None:
    """Refuse to divide atoms among processes where that can't be, or would not be used."""
    atoms = current().atoms
    if atoms is None:
        return
    if atoms.size > m:
        raise ArgumentError("shard_atoms", f"{atoms.size} for {m} atoms", f"{m} at most")
    if source.once:
        needed = "1, or data that can be read again, such as a function that returns an iterator"
        raise ArgumentError("shard_atoms", f"{atoms.size} with {source.name}", needed)
    plan = recipe.plan()
    if not any(shares_atoms(stage, plan) for stage in plan.stages):
        found = f"{atoms.size} with a recipe of {type(recipe.activation).__name__}"
        if type(recipe.activation) is TopK:
            found = f"{atoms.size} with this recipe"
        needed = "1, or a recipe of the k largest codes and no penalty, such as 'topk' or 'default'"
        raise ArgumentError("shard_atoms", found, needed)

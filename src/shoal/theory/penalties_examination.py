"""What Arpit et al. 2016 ask, promise and deliver for a fitted regularised autoencoder.

The paper speaks of the data as the network sees them: everything here is in the preprocessed space,
and Assumption 1 with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoal.data import open_source
from shoal.network.activations import SmoothActivation
from shoal.network.autoencoder import preactivation
from shoal.network.penalties import Contractive, Denoising, Marginalized, NoPenalty, Penalty
from shoal.theory import arpit2016
from shoal.theory.arpit2016 import _Point, _point, _quantiles
from shoal.theory.assertion import TELLING, Assertion, Check, at_least, plain, share_error
from shoal.vocabulary import ArgumentError, Parameters, check_count, check_number

__all__ = ["PenaltyExamination", "examine_penalty"]

Floats = NDArray[np.float64]

_BLOCKS = 10  # arbitrary: parts of the data between which a gradient's sampling error is seen
_DRAWN = 2000  # arbitrary: samples that Theorem 3's noise is drawn on


@dataclass(frozen=True)
class PenaltyExamination:
    """A penalty and an activation at the place that training has come to.

    Attributes
    ----------
    facts : dict
        What was asked about: activation, penalty, its form, preprocessing, sizes, and how many
        units are promised to fall, fall, rise, or are such that the samples can't tell.
    units : dict of str to ndarray of shape (n_components,)
        `mean`, `mean_error`: E a_j. `activation`, `activation_error`: the share of samples on
        which h_j is above delta_min; `predicted_activation` what it is if a_j is Gaussian with
        variance \\|W_j\\|^2, as of white data; `least_inactive`: Theorem 2's bound, eq. (22), NaN
        where there is none. `plain`, `plain_error`: dJ_AE/db_j. `bound`: Lemma 1's. `penalty`,
        `penalty_error`: strength dR/db_j. `threshold`: the strength from which Theorem 1 promises
        that E a_j falls; infinite where none does, NaN for noise, whose R is not linear in it.
        `predicted_change`, `change`, `change_error`: of E a_j in a step, per unit of its size, by
        eq. (5) and as taken.
    verdicts : list of str
        For each unit "promised to fall", "falls", "rises" or "too few samples to tell".
    assertions : tuple of Assertion
        Assumption 1, eq. (3), Lemma 1, Theorem 1, the corollary whose form R has, Theorem 2, and
        the remark or theorem of this penalty.
    """

    facts: dict[str, Any]
    units: dict[str, Floats]
    verdicts: list[str]
    assertions: tuple[Assertion, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        record = {
            "facts": self.facts,
            "units": self.units,
            "verdicts": self.verdicts,
            "assertions": [each.to_dict() for each in self.assertions],
        }
        return dict(plain(record))

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """The units in a table to print: head and rows, least, quartiles and largest."""
        head = ["of the units", "least", "1/4", "median", "3/4", "largest"]
        rows: list[list[Any]] = []
        for name, words in _WORDS.items():
            values = self.units[name]
            known = values[~np.isnan(values)]
            if len(known):
                rows.append([words, *_quantiles(known)])
        return head, rows


_WORDS = {
    "mean": "E a",
    "activation": "share of samples on which it is active",
    "predicted_activation": "the same, predicted by E a and |W|",
    "least_inactive": "share on which it is not, at least (Theorem 2)",
    "plain": "dJ_AE/db",
    "plain_error": "its standard error",
    "bound": "Lemma 1's bound of it",
    "penalty": "strength dR/db",
    "penalty_error": "its standard error",
    "threshold": "strength at which Theorem 1 applies",
    "predicted_change": "change of E a per step size, eq. (5)",
    "change": "the same, as taken",
}


def examine_penalty(
    model: Any,
    X: Any,
    *,
    n_samples: int = 5000,
    n_draws: int = 8,
    step: float = 1e-3,
    random_state: int = 0,
) -> PenaltyExamination:
    """Will this penalty, with this activation, make sparse codes? Arpit et al. 2016, in numbers.

    Parameters
    ----------
    model : RegularizedAutoencoder
        Fitted, its penalty and activation the library's or one's own.
    X : array-like, tensor, path or Source of shape (n_samples, n_features)
        Not preprocessed: that is the model's. Not a stream.
    n_samples : int
        At most so many rows, evenly spaced, are looked at; at least 40.
    n_draws : int
        Noises for each sample, of a penalty that draws some.
    step : float
        eta of the step that is taken.
    random_state : int
        The seed of the noise.

    Returns
    -------
    PenaltyExamination

    Raises
    ------
    ArgumentError
        If the model isn't such a one, or the data are too few or of other features.

    Examples
    --------
    >>> from shoal import RegularizedAutoencoder
    >>> X = np.random.default_rng(0).standard_normal((500, 20))
    >>> model = RegularizedAutoencoder(30, "sae", 0.5, activation="sigmoid", n_epochs=5)
    >>> found = examine_penalty(model.fit(X), X)
    >>> found.facts["form"]["corollary"], found.units["threshold"].shape
    (1, (30,))
    """
    check_count("n_samples", n_samples, low=40)
    check_count("n_draws", n_draws)
    check_number("step", step, low=0.0, open_low=True)
    check_count("random_state", random_state, low=0)
    place, data, activation, penalty = _taken(model, X, n_samples)
    point = _point(place, data, activation)
    generator = torch.Generator().manual_seed(random_state)
    lifted = _lifted(point, activation, penalty, n_draws, generator)
    units = _units(point, activation, penalty, lifted, step)
    verdicts = _verdicts(units)
    facts = {
        "activation": repr(activation),
        "penalty": repr(penalty),
        "form": None,
        "preprocessing": model.preprocessing_.spec.kind,
        "n_samples": len(point.data),
        "n_features": point.data.shape[1],
        "n_components": len(verdicts),
        "noise": lifted.noise,
        "activation_fraction": float(units["activation"].mean()),
        "sigma_r": point.sigma,
        "verdicts": {name: verdicts.count(name) for name in _VERDICTS},
    }
    held = getattr(penalty, "held", None)
    if held is not None:
        facts["saturated_units"] = int(held(point.activated.codes.mean(dim=0)).sum())
    if not lifted.noise:
        facts["form"] = arpit2016.form(point.data.shape[1], activation, penalty)._asdict()
    found = _assertions(place, data, activation, penalty, facts["form"], units, step, random_state)
    return PenaltyExamination(facts, units, verdicts, tuple(found))


def _taken(
    model: Any, X: Any, n_samples: int
) -> tuple[tuple[Any, ...], Floats, SmoothActivation, Penalty]:
    """Parameters, preprocessed rows, activation and penalty of a model."""
    names = ("components_", "bias_", "activation_", "penalty_", "preprocessing_")
    if not all(hasattr(model, name) for name in names):
        needed = "a fitted RegularizedAutoencoder, or a run of one"
        raise ArgumentError("model", f"a {type(model).__name__} without a penalty", needed)
    source = open_source(X)
    if source.n_samples is None or source.once:
        raise ArgumentError("X", "a stream", "data that can be read again")
    source = model.by_name(source)
    if source.n_features != model.n_features_in_:
        needed = f"{model.n_features_in_} features, as the model was fitted with"
        raise ArgumentError("X", f"{source.n_features} features", needed)
    if source.n_samples < 40:
        raise ArgumentError("X", f"{source.n_samples} samples", "at least 40")
    most = min(n_samples, source.n_samples)
    rows = source.rows(np.linspace(0, source.n_samples - 1, most).round().astype(np.intp))
    data = np.asarray(model.preprocessing_.apply(rows), dtype=np.float64)
    place: tuple[Any, ...] = (model.components_, model.bias_)
    decoder = getattr(model, "offset_", None)
    if decoder is not None:
        place = (*place, decoder)
    penalty = model.penalty_ if model.penalty_.strength else NoPenalty()
    return place, data, model.activation_, penalty


class _Lifted(NamedTuple):
    """What a penalty adds to the gradient, at its own strength."""

    dictionary: Floats  # (m, n)
    bias: Floats  # (m,)
    error: Floats  # (m,) standard error of `bias`
    total_error: Floats  # (m,) of dJ_AE/db + it
    noise: bool


def _lifted(
    point: _Point,
    activation: SmoothActivation,
    penalty: Penalty,
    n_draws: int,
    generator: torch.Generator,
) -> _Lifted:
    noise = _draws_noise(point, activation, penalty, generator)
    draws = n_draws if noise else 1

    def added(data: Tensor) -> tuple[Floats, Floats, Floats]:
        rest = NoPenalty()(point.parameters, data, activation)
        weights = point.parameters.dictionary
        whole = [penalty(point.parameters, data, activation, generator) for _ in range(draws)]
        dictionary = torch.stack([each.gradient(weights) for each in whole]).mean(dim=0)
        bias = torch.stack([each.bias for each in whole]).mean(dim=0)
        return (
            (dictionary - rest.gradient(weights)).numpy(),
            (bias - rest.bias).numpy(),
            bias.numpy(),
        )

    parts = [added(point.data[start::_BLOCKS]) for start in range(_BLOCKS)]
    dictionary, bias, _ = added(point.data)
    error, total = (
        np.std([part[index] for part in parts], axis=0, ddof=1) / _BLOCKS**0.5 for index in (1, 2)
    )
    return _Lifted(dictionary, bias, error, total, noise)


def _draws_noise(
    point: _Point, activation: SmoothActivation, penalty: Penalty, generator: torch.Generator
) -> bool:
    before = generator.get_state()
    penalty(point.parameters, point.data[:2], activation, generator)
    return not torch.equal(before, generator.get_state())


def _units(
    point: _Point, activation: SmoothActivation, penalty: Penalty, lifted: _Lifted, step: float
) -> dict[str, Floats]:
    a_min = arpit2016.activation_threshold(activation)
    size = len(point.data)
    mean, spread = point.z.mean(dim=0).numpy(), point.z.std(dim=0, correction=0).numpy()
    share = (point.activated.codes > activation.delta_min).double().mean(dim=0).numpy()
    plain_, bound = point.plain, point.bound
    strength = float(penalty.strength)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = (mean - a_min) / point.lengths
        least = 1.0 - np.square(spread / (a_min - mean))
        need = np.where(lifted.bias > 0, strength * bound / lifted.bias, np.inf)
    down = step * (point.plain_weights + lifted.dictionary), step * (plain_ + lifted.bias)
    encoder = point.encoder
    after = Parameters(
        encoder.dictionary - torch.from_numpy(down[0]), encoder.bias - torch.from_numpy(down[1])
    )
    change = (preactivation(after, point.data).mean(dim=0).numpy() - mean) / step
    return {
        "mean": mean,
        "mean_error": spread / size**0.5,
        "activation": share,
        "activation_error": np.array([share_error(float(each), size) for each in share]),
        "predicted_activation": torch.special.ndtr(torch.from_numpy(at)).numpy(),
        "least_inactive": np.where(mean < a_min, least, np.nan),
        "plain": plain_,
        "plain_error": point.plain_error,
        "bound": bound,
        "penalty": lifted.bias,
        "penalty_error": lifted.error,
        "threshold": np.full_like(need, np.nan) if lifted.noise or not strength else need,
        "predicted_change": -(plain_ + lifted.bias),
        "change": change,
        "change_error": lifted.total_error,
    }


_VERDICTS = ("promised to fall", "falls", "rises", "too few samples to tell")


def _verdicts(units: dict[str, Floats]) -> list[str]:
    """What one step does to E a_j, where no sampling error can be the reason."""
    far = TELLING * units["change_error"]
    promised = units["penalty"] - TELLING * units["penalty_error"] > units["bound"]
    told = np.select(
        [promised, units["change"] < -far, units["change"] > far], _VERDICTS[:3], _VERDICTS[3]
    )
    return [str(each) for each in told]


def _assertions(
    place: tuple[Any, ...],
    data: Floats,
    activation: SmoothActivation,
    penalty: Penalty,
    shape: dict[str, Any] | None,
    units: dict[str, Floats],
    step: float,
    random_state: int,
) -> list[Assertion]:
    at = (place, data, activation)
    found = [arpit2016.assumption1(*at)]
    if not np.any(place[1]):
        found.append(arpit2016.equation3(*at))
    found.append(arpit2016.lemma1(*at))
    if shape is None:
        found.append(_theorem1_of_noise(at, units))
        found.append(arpit2016.theorem2(*at))
    else:
        found.append(arpit2016.theorem1(*at, penalty, step))
        if shape["corollary"] is not None:
            ask = {1: arpit2016.corollary1, 2: arpit2016.corollary2}[shape["corollary"]]
            found.append(ask(*at, penalty))
        found.append(arpit2016.theorem2(*at, penalty, step=step))
    if isinstance(penalty, Contractive):
        found.append(arpit2016.remark1(*at))
    elif isinstance(penalty, Marginalized) and penalty.variances is None:
        found.append(arpit2016.remark2(*at))
    elif (
        isinstance(penalty, Denoising)
        and penalty.noise == "gaussian"
        and penalty.variances is None
        and penalty.strength > 0
    ):
        few = data[:: -(-len(data) // _DRAWN)]
        found.append(arpit2016.theorem3(place, few, activation, penalty.strength, 50, random_state))
    return found


def _theorem1_of_noise(at: tuple[Any, ...], units: dict[str, Floats]) -> Assertion:
    """Theorem 1 for a penalty whose gradient is a mean over draws of noise."""
    place, data, activation = at
    whole = arpit2016.theorem1(place, data, activation, NoPenalty())
    margin = units["penalty"] / np.where(units["bound"] > 0, units["bound"], np.inf)
    error = units["penalty_error"] / np.where(units["bound"] > 0, units["bound"], np.inf)
    worst = int(margin.argmin())
    claim = "least lambda dR/db_j / (2 sigma_r sqrt(n) |W_j|)"
    hypotheses = (
        *whole.hypotheses[:3],
        Check(
            claim,
            float(margin[worst]),
            "> 1",
            bool(margin[worst] > 1.0),
            float(error[worst]),
            float(margin[worst] - 1.0),
        ),
    )
    falls = float((units["change"] < 0).mean())
    return Assertion(
        name="Theorem 1",
        source=whole.source,
        hypotheses=hypotheses,
        promise="one step along the negative gradient lowers E[a_j] of every unit",
        measurements=(at_least("share of units whose E[a_j] falls", falls, 1.0),),
        numbers={
            "penalty_gradient": _quantiles(units["penalty"]),
            "plain_gradient": _quantiles(units["plain"]),
            "change": _quantiles(units["change"]),
        },
        notes=(
            "R is what the noise adds, a mean over draws and samples: nothing in it is a form of"
            " Corollary 1 or 2, and it is not linear in the strength.",
        ),
    )

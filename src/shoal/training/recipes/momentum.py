"""The protocol of Arpit et al. 2016, section 3, for autoencoders that a penalty makes sparse.

Batches of 50, momentum .9, 50 epochs, weights from normalised initialisation, their length brought
back to 1 after each step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shoal.network.activations import SmoothActivation
from shoal.network.penalties import NoPenalty, Penalty
from shoal.training.constraints import Constraint, Free, MaxNorm, UnitLength
from shoal.training.initialization import normalized_start
from shoal.training.recipes.recipe import Recipe
from shoal.training.rules import Momentum
from shoal.vocabulary import ArgumentError, Parameters, check_choice, check_count

__all__ = ["WEIGHT_LENGTHS", "MomentumSettings", "arpit2016"]

_CONSTRAINTS: dict[str, Constraint] = {"unit": UnitLength(), "max-norm": MaxNorm(), "free": Free()}

WEIGHT_LENGTHS = tuple(_CONSTRAINTS)
"""Every atom of length 1; of length at most 1; of any length."""


@dataclass(frozen=True)
class MomentumSettings:
    """The protocol, for any activation and penalty.

    Parameters
    ----------
    learning_rate, momentum
        Of :class:`shoal.training.rules.Momentum`.
    batch_size : int
        Samples per update.
    n_epochs : int
        Passes over the data.
    weight_length : {"unit", "max-norm", "free"}
        Atoms are brought to length 1 after each update, or to at most 1, or left.
    tangent, weight_decay
        Of :class:`shoal.training.rules.Momentum`.
    encoder_bias : bool
        Whether b_e is trained; else it stays as it is at the start, 0. Without one E a_j = 0 of
        centred data, whatever is trained: Arpit et al. 2016, eq. (3).
    decoder_bias : bool
        Whether there is a b_d, y = h W + b_d, as in eq. (7); it starts at 0.

    Examples
    --------
    >>> from shoal.training import MomentumSettings
    >>> settings = MomentumSettings(learning_rate=0.002, n_epochs=20)
    >>> settings.momentum, settings.batch_size
    (0.9, 50)
    """

    learning_rate: float = 0.001
    momentum: float = 0.9
    batch_size: int = 50
    n_epochs: int = 50
    weight_length: str = "unit"
    tangent: bool = False
    weight_decay: float = 0.0
    encoder_bias: bool = True
    decoder_bias: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        self.rule()
        check_count("batch_size", self.batch_size)
        check_count("n_epochs", self.n_epochs)
        check_choice("weight_length", self.weight_length, WEIGHT_LENGTHS)
        for name in ("encoder_bias", "decoder_bias"):
            check_choice(name, getattr(self, name), (True, False))
        if self.tangent and self.weight_length != "unit":
            found = f"True with weight_length={self.weight_length!r}"
            raise ArgumentError("tangent", found, "weight_length='unit', which has a tangent")

    def rule(self) -> Momentum:
        """How parameters move."""
        return Momentum(
            self.learning_rate, self.momentum, self.tangent, self.weight_decay, self.encoder_bias
        )

    def start(self, m: int, n: int, rng: np.random.Generator) -> Parameters:
        """Where m units of n features begin."""
        return normalized_start(m, n, rng, unit=self.weight_length == "unit")


def arpit2016(
    activation: SmoothActivation,
    penalty: Penalty | None,
    n_samples: int,
    settings: MomentumSettings | None = None,
) -> Recipe:
    """Descent with momentum on a regularised objective, epoch by epoch.

    Parameters
    ----------
    activation, penalty : SmoothActivation, Penalty or None
        The encoder, and the objective; None is the loss alone.
    n_samples : int
        Rows of the data.
    settings : MomentumSettings, optional
        How the descent goes; by default as in the paper.

    Examples
    --------
    >>> from shoal.network.activations import Sigmoid
    >>> from shoal.network.penalties import Contractive
    >>> from shoal.training import arpit2016
    >>> recipe = arpit2016(Sigmoid(), Contractive(0.5), n_samples=1000)
    >>> recipe.n_steps, recipe.batch_size
    (1000, 50)
    """
    settings = settings or MomentumSettings()
    return Recipe(
        activation,
        settings.rule(),
        settings.n_epochs * -(-n_samples // settings.batch_size),
        batch_size=settings.batch_size,
        constraint=_CONSTRAINTS[settings.weight_length],
        penalty=NoPenalty() if penalty is None else penalty,
        short=True,
        offset=settings.decoder_bias,
    )

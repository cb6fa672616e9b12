"""A penalty of one's own: strength * E sum_j h_j^2, the energy of the code."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from shoal.network.penalties import Terms, backward, forward
from shoal.parts import register
from shoal.vocabulary import Parameters, check_number


@register("penalty", "energy")
@dataclass(frozen=True)
class Energy:
    """Codes are drawn to 0 in proportion to what they are."""

    strength: float

    def __post_init__(self) -> None:
        """Refuse what is no strength before any work."""
        check_number("strength", self.strength, low=0.0)

    def __call__(
        self, parameters: Parameters, data: Tensor, activation: Any, generator: Any = None
    ) -> Terms:
        """The objective on a batch (B, n) and its gradient, from the penalty's own by the code."""
        passed = forward(parameters, data, activation)
        scale = self.strength / len(data)
        value = scale * passed.codes.square().sum()
        return backward(parameters, data, passed, value, to_codes=2.0 * scale * passed.codes)

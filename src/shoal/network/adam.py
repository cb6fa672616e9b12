"""Adam on one part of the parameters, in a single pass over its memory where a kernel has one."""

from __future__ import annotations

from torch import Tensor

from shoal.network import kernels

__all__ = ["adam_"]


def adam_(
    part: Tensor,
    slope: Tensor,
    memory: tuple[Tensor, Tensor],
    step: int,
    rate: float,
    *,
    scale: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-30,
) -> None:
    """Move `part` by one step of Adam, Kingma and Ba 2015, in place.

    Parameters
    ----------
    part, slope : Tensor
        Contiguous, of one shape and type; `slope` times `scale` is the gradient.
    memory : pair of Tensor
        The means of the gradient and of its square, moved in place.
    step : int
        From 0.
    rate : float
        The learning rate of this step.

    Examples
    --------
    >>> import torch
    >>> part, memory = torch.ones(2), (torch.zeros(2), torch.zeros(2))
    >>> adam_(part, torch.tensor([4.0, -0.5]), memory, 0, 0.1)
    >>> part
    tensor([0.9000, 1.1000])
    """
    one, two = 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)
    kernels.choose(part).adam_(part, slope, memory, (beta1, beta2), rate / one, two, epsilon, scale)

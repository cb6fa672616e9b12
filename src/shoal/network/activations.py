"""Activations: what the encoder does to its pre-activations, as values.

An activation maps pre-activations z ``(B, m)`` to codes x ``(B, m)`` and to the slope
dx/dz ``(B, m)``, which is the derivative wherever there is one. At a kink or a jump
(a set of measure zero) the slope is that of the inactive side, 0.

What else there is to know of one, it says itself; each has a default where it says nothing:

=============  ==========================================================================
``rowwise``    whether a row's codes depend on that row alone (True)
``gate``       the :class:`Gate` that it is, for the sparse kernels (None: they leave it to
               the reference)
``learns``     whether it has a threshold for each unit, in `Parameters.threshold`: it is
               called with it, ``activation(z, threshold)``, gives dx/dtheta (B, m) by
               ``by_threshold(z, threshold)``, and thresholds begin at ``start`` (False)
``bend``       the second derivative, for penalties that ask for it, ``jerk`` the third
``delta_min``  above which a code counts as active in Arpit et al. 2016 (0)
``at_rest``    for one that isn't rowwise: the activation that stands for it after training,
               with a threshold that was seen on batches
=============  ==========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from shoal.parts import named, register, stands_for
from shoal.vocabulary import ArgumentError, check_count, check_number

__all__ = [
    "ACTIVATIONS",
    "Activated",
    "Activation",
    "BatchTopK",
    "Gate",
    "HardThreshold",
    "JumpReLU",
    "Maxout",
    "ReLU",
    "Sigmoid",
    "SmoothActivation",
    "Softplus",
    "Tanh",
    "TopK",
    "at_rest",
    "gate_of",
    "is_rowwise",
    "k_largest",
    "learns_threshold",
]


class Activated(NamedTuple):
    """Codes and the slope of the activation, both (B, m)."""

    codes: Tensor
    slope: Tensor


class Activation(Protocol):
    """Anything that maps pre-activations (B, m) to codes and slopes (B, m)."""

    # One that learns its thresholds (m,) is called with them, too.
    def __call__(self, z: Tensor) -> Activated: ...  # noqa: D102


def is_rowwise(activation: object) -> bool:
    """Whether a row's codes depend on that row alone.

    Examples
    --------
    >>> from shoal.network.activations import BatchTopK, TopK, is_rowwise
    >>> is_rowwise(TopK(2)), is_rowwise(BatchTopK(2))
    (True, False)
    """
    return bool(getattr(activation, "rowwise", True))


def at_rest(activation: Any) -> Any:
    """What stands for `activation` once training is over: itself, unless it is batch-wise.

    Examples
    --------
    >>> from shoal.network.activations import BatchTopK, ReLU, at_rest
    >>> at_rest(BatchTopK(2))
    JumpReLU(window=0.1, start=0.1, signed=False)
    >>> at_rest(ReLU())
    ReLU()
    """
    return activation if is_rowwise(activation) else activation.at_rest


def learns_threshold(activation: object) -> bool:
    """Whether there is a threshold for each unit that is learned with the weights.

    Examples
    --------
    >>> from shoal.network.activations import JumpReLU, ReLU, learns_threshold
    >>> learns_threshold(JumpReLU()), learns_threshold(ReLU())
    (True, False)
    """
    return bool(getattr(activation, "learns", False))


class SmoothActivation(Activation, Protocol):
    """What penalties on the slope, and theorems about it, ask of an activation beside its value.

    Arpit et al. 2016, section 2.1.2. Of a kink or a jump its derivatives see nothing.
    """

    @property
    def delta_min(self) -> float:
        """A unit is active where its code is above it."""

    @property
    def convex(self) -> bool:
        """Whether s is convex: Corollary 2 asks for it."""

    @property
    def saturates(self) -> bool:
        """Whether s(z) goes to 0 as z goes to -inf: without it low inputs are not sparse codes."""

    def bend(self, activated: Activated) -> Tensor:
        """The second derivative of s, (B, m), where it took the value and slope `activated`."""

    def jerk(self, activated: Activated) -> Tensor:
        """The third derivative of s, (B, m), there."""


def _gate(z: Tensor, open_: Tensor) -> Activated:
    """Pass z where `open_` is true: the form of every piecewise linear activation here."""
    # where() rather than a product, which would give -0.0 for -1.0 and NaN for -inf.
    return Activated(torch.where(open_, z, 0.0), open_.to(z.dtype))


@register("activation", "relu")
@dataclass(frozen=True)
class ReLU:
    """x = max(z, 0). Rangamani et al. 2017, section 2; Nguyen et al. 2018, section 2.1.

    >>> ReLU()(torch.tensor([[-1.0, 2.0]])).codes.tolist()
    [[0.0, 2.0]]
    """

    delta_min: ClassVar[float] = 0.0
    convex: ClassVar[bool] = True
    saturates: ClassVar[bool] = True

    @property
    def gate(self) -> Gate:
        """Where z is above 0."""
        return Gate(None, 0.0, signed=False)

    def __call__(self, z: Tensor) -> Activated:  # noqa: D102
        # _gate(z, z > 0) in a fifth of its time; 0.0 and never -0.0, too. NaN stays NaN.
        codes = functional.threshold(z, 0.0, 0.0)
        return Activated(codes, codes.detach().sign())

    def bend(self, activated: Activated) -> Tensor:
        """0: the Dirac at the kink is invisible; see `kink` of the contractive penalties."""
        return torch.zeros_like(activated.codes)

    def jerk(self, activated: Activated) -> Tensor:
        """0."""
        return torch.zeros_like(activated.codes)


@register("activation")
@dataclass(frozen=True)
class HardThreshold:
    """x = z where \\|z\\| > threshold, else 0. Nguyen et al. 2018, section 2.1.

    With `signed=False` negative values are silenced as well: x = z where z > threshold.

    >>> HardThreshold(1.0)(torch.tensor([[-1.5, 0.5, 1.0, 2.0]])).codes.tolist()
    [[-1.5, 0.0, 0.0, 2.0]]
    """

    threshold: float
    signed: bool = True

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, low=0.0)

    @property
    def gate(self) -> Gate:
        """Where the value is above the threshold."""
        return Gate(None, self.threshold, self.signed)

    def __call__(self, z: Tensor) -> Activated:  # noqa: D102
        return _gate(z, (z.abs() if self.signed else z) > self.threshold)


def k_largest(values: Tensor, k: int) -> Tensor:
    """Boolean mask (B, m) of the k largest entries of each row of `values` (B, m).

    Ties at the k-th place go to the lowest index, on every device. With k >= m all are
    taken. `values` must be free of NaN.

    Examples
    --------
    >>> import torch
    >>> from shoal.network.activations import k_largest
    >>> k_largest(torch.tensor([[3.0, 1.0, 2.0]]), 2)
    tensor([[ True, False,  True]])
    """
    m = values.shape[1]
    if k >= m:
        return torch.ones_like(values, dtype=torch.bool)
    kth = values.topk(k, dim=1, sorted=True).values[:, -1:]  # (B, 1)
    mask = values >= kth
    if int(mask.sum()) == k * values.shape[0]:
        return mask
    # torch.topk leaves the choice among equals open; settle it by the index.
    above = values > kth
    level = mask & ~above
    room = k - above.sum(dim=1, keepdim=True)
    return above | (level & (level.cumsum(dim=1) <= room))


@register("activation")
@dataclass(frozen=True)
class TopK:
    """Keep the k units of largest \\|z\\| (signed), or of largest positive z; others are 0.

    The k-largest encoder. Ties go to the lowest index; a unit whose z is 0 stays
    inactive, so a row can have fewer than k active units.

    >>> TopK(1)(torch.tensor([[-3.0, 2.0]])).codes.tolist()
    [[-3.0, 0.0]]
    >>> TopK(1, signed=False)(torch.tensor([[-3.0, 2.0]])).codes.tolist()
    [[0.0, 2.0]]
    """

    k: int
    signed: bool = True

    def __post_init__(self) -> None:
        check_count("k", self.k)

    @property
    def gate(self) -> Gate:
        """Where the value is above 0 and among the k largest."""
        return Gate(self.k, 0.0, self.signed)

    def __call__(self, z: Tensor) -> Activated:  # noqa: D102
        if self.signed:
            return _gate(z, k_largest(z.abs(), self.k) & (z != 0))
        return _gate(z, k_largest(z, self.k) & (z > 0))


@register("activation", "sigmoid")
@dataclass(frozen=True)
class Sigmoid:
    """x = 1 / (1 + exp(-z)). Arpit et al. 2016, section 2.1.2, and section 3 for delta_min.

    >>> Sigmoid()(torch.tensor([[0.0]])).codes.tolist()
    [[0.5]]
    """

    delta_min: ClassVar[float] = 0.1
    convex: ClassVar[bool] = False
    saturates: ClassVar[bool] = True

    def __call__(self, z: Tensor) -> Activated:  # noqa: D102
        codes = torch.sigmoid(z)
        return Activated(codes, codes * (1 - codes))

    def bend(self, activated: Activated) -> Tensor:
        """s' (1 - 2 s)."""
        return torch.rsub(activated.codes, 1, alpha=2).mul_(activated.slope)

    def jerk(self, activated: Activated) -> Tensor:
        """s' (1 - 6 s')."""
        return activated.slope * (1 - 6 * activated.slope)


@register("activation", "softplus")
@dataclass(frozen=True)
class Softplus:
    """x = log(1 + exp(z)). Arpit et al. 2016, section 2.1.2, and section 3 for delta_min.

    >>> Softplus()(torch.tensor([[0.0]])).slope.tolist()
    [[0.5]]
    """

    delta_min: ClassVar[float] = 0.1
    convex: ClassVar[bool] = True
    saturates: ClassVar[bool] = True

    def __call__(self, z: Tensor) -> Activated:  # noqa: D102
        # logaddexp keeps full precision where softplus() switches to a linear branch.
        return Activated(torch.logaddexp(z, torch.zeros_like(z)), torch.sigmoid(z))

    def bend(self, activated: Activated) -> Tensor:
        """s' (1 - s'): the slope is a sigmoid."""
        return activated.slope * (1 - activated.slope)

    def jerk(self, activated: Activated) -> Tensor:
        """s' (1 - s') (1 - 2 s')."""
        return self.bend(activated) * (1 - 2 * activated.slope)


@register("activation", "tanh")
@dataclass(frozen=True)
class Tanh:
    """x = tanh(z): goes to -1, not to 0, so that low inputs make no sparse code.

    A counter-example of Arpit et al. 2016, section 2.1.2.

    >>> Tanh()(torch.tensor([[0.0]])).slope.tolist()
    [[1.0]]
    """

    delta_min: ClassVar[float] = 0.0
    convex: ClassVar[bool] = False
    saturates: ClassVar[bool] = False

    def __call__(self, z: Tensor) -> Activated:  # noqa: D102
        codes = torch.tanh(z)
        return Activated(codes, 1 - codes.square())

    def bend(self, activated: Activated) -> Tensor:
        """-2 t t'."""
        return -2 * activated.codes * activated.slope

    def jerk(self, activated: Activated) -> Tensor:
        """t' (4 - 6 t')."""
        return activated.slope * (4 - 6 * activated.slope)


@register("activation", "maxout")
@dataclass(frozen=True)
class Maxout:
    """Of each run of `pieces` units the largest passes its z on, and the others are 0.

    Maxout units of tied weights: max over pieces of W_p x + b_p, decoded by the weights that won.
    Unbounded below, a counter-example of Arpit et al. 2016, section 2.1.2. Ties go to the first.

    Parameters
    ----------
    pieces : int
        Linear pieces a unit, at least 2; it must divide the number of units.

    Examples
    --------
    >>> Maxout()(torch.tensor([[-3.0, -1.0, 2.0, 1.0]])).codes.tolist()
    [[0.0, -1.0, 2.0, 0.0]]
    """

    pieces: int = 2

    delta_min: ClassVar[float] = 0.0
    convex: ClassVar[bool] = True
    saturates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_count("pieces", self.pieces, low=2)

    def __call__(self, z: Tensor) -> Activated:  # noqa: D102
        if z.shape[1] % self.pieces:
            needed = f"a number of units that {self.pieces} pieces divide"
            raise ArgumentError("n_components", str(z.shape[1]), needed)
        groups = z.unflatten(1, (-1, self.pieces))  # (B, m / pieces, pieces)
        won = torch.zeros_like(groups, dtype=torch.bool)
        won.scatter_(2, groups.argmax(dim=2, keepdim=True), True)
        return _gate(z, won.reshape(z.shape))

    def bend(self, activated: Activated) -> Tensor:
        """0."""
        return torch.zeros_like(activated.codes)

    def jerk(self, activated: Activated) -> Tensor:
        """0."""
        return torch.zeros_like(activated.codes)


@register("activation", "jumprelu")
@dataclass(frozen=True)
class JumpReLU:
    """x = z where z > max(theta, 0), else 0 (`signed`: \\|z\\|); each unit's theta is learned.

    Rajamanoharan et al. 2024, Jumping Ahead (arXiv:2407.14435). The jump has no derivative by
    theta that a gradient could follow, so a straight-through estimate stands for it, which has the
    derivative of the expected code where samples are many:

        dx/dtheta = -theta / window  where |z - theta| < window / 2, else 0

    Parameters
    ----------
    window : float
        Above 0, in units of z: how far from its threshold a pre-activation counts. A wide one is
        biased, a narrow one noisy. There .001 for data of mean square 1.
    start : float
        At least 0: where thresholds begin.
    signed : bool
        Whether codes may be negative.

    Examples
    --------
    >>> z = torch.tensor([[0.5, 0.9, 1.1]])
    >>> theta = torch.tensor([1.0, 1.0, 1.0])
    >>> JumpReLU()(z, theta).codes.tolist()
    [[0.0, 0.0, 1.100000023841858]]
    >>> JumpReLU(window=0.4).by_threshold(z, theta).tolist()
    [[-0.0, -2.5, -2.5]]
    """

    window: float = 0.1
    start: float = 0.1
    signed: bool = False

    delta_min: ClassVar[float] = 0.0
    convex: ClassVar[bool] = False
    saturates: ClassVar[bool] = True
    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("window", self.window, low=0.0, open_low=True)
        check_number("start", self.start, low=0.0)

    def _value(self, z: Tensor) -> Tensor:
        return z.abs() if self.signed else z

    def near(self, z: Tensor, threshold: Tensor) -> Tensor:
        """The window (B, m): 1 / window near the threshold, else 0; its integral over z is 1."""
        return ((self._value(z) - threshold).abs() < self.window / 2).to(z.dtype).div_(self.window)

    def __call__(self, z: Tensor, threshold: Tensor) -> Activated:  # noqa: D102
        # Adam may take one below 0.
        return _gate(z, self._value(z) > threshold.clamp_min(0.0))

    def by_threshold(self, z: Tensor, threshold: Tensor) -> Tensor:
        """dx/dtheta (B, m), straight through."""
        by = -threshold.clamp_min(0.0) * self.near(z, threshold)
        return by * z.sign() if self.signed else by

    def bend(self, activated: Activated) -> Tensor:
        """0: of the jump it sees nothing."""
        return torch.zeros_like(activated.codes)

    def jerk(self, activated: Activated) -> Tensor:
        """0."""
        return torch.zeros_like(activated.codes)


@register("activation", "batchtopk")
@dataclass(frozen=True)
class BatchTopK:
    """Keep the k B largest positive z of a batch of B rows, so that rows share k B units.

    Bussmann et al. 2024, BatchTopK sparse autoencoders (arXiv:2412.06410). A row's codes depend on
    its company, so that this is for training alone; afterwards a threshold stands for it, the mean
    over batches of the least value that was kept. Ties at the last place go to the lower row, then
    the lower index.

    Parameters
    ----------
    k : int
        Active units per row, on average.

    Examples
    --------
    >>> BatchTopK(1)(torch.tensor([[3.0, 2.0], [1.0, -1.0]])).codes.tolist()
    [[3.0, 2.0], [0.0, 0.0]]
    """

    k: int = 8

    delta_min: ClassVar[float] = 0.0
    convex: ClassVar[bool] = False
    saturates: ClassVar[bool] = True
    rowwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_count("k", self.k)

    def __call__(self, z: Tensor) -> Activated:  # noqa: D102
        kept = k_largest(z.reshape(1, -1), self.k * len(z)).reshape(z.shape)
        return _gate(z, kept & (z > 0))

    @property
    def at_rest(self) -> Activation:
        """A threshold for all units."""
        return JumpReLU()  # type: ignore[return-value]

    def bend(self, activated: Activated) -> Tensor:
        """0."""
        return torch.zeros_like(activated.codes)

    def jerk(self, activated: Activated) -> Tensor:
        """0."""
        return torch.zeros_like(activated.codes)


stands_for("activation", Activation)
stands_for("activation", SmoothActivation)

ACTIVATIONS = named("activation")
"""Classes by name."""


class Gate(NamedTuple):
    """A piecewise linear activation as what a sparse kernel needs to know of it.

    The value of a unit is its magnitude |z| where `signed`, else z itself. A unit passes
    z on where its value is above `threshold` and, unless k is None, among the k largest of
    its row, ties to the lowest index. The slope is 1 where it passes.

    Examples
    --------
    >>> from shoal.network.activations import TopK
    >>> TopK(2).gate
    Gate(k=2, threshold=0.0, signed=True)
    """

    k: int | None
    threshold: float
    signed: bool


def gate_of(activation: object) -> Gate | None:
    """`activation` as a :class:`Gate`, or None if it says of none.

    >>> gate_of(HardThreshold(0.5)), gate_of(Sigmoid())
    (Gate(k=None, threshold=0.5, signed=True), None)
    """
    # A subclass that calls itself otherwise has not its parent's gate.
    for kind in type(activation).__mro__:
        if "gate" in vars(kind):
            found: Gate | None = activation.gate  # type: ignore[attr-defined]
            return found
        if "__call__" in vars(kind):
            return None
    return None

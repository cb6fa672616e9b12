"""The recipe that recovers from data alone."""

from __future__ import annotations

from shoal.network.activations import JumpReLU, TopK
from shoal.network.inference import SubspacePursuit, ThresholdPursuit
from shoal.training.encoding import EncoderFit
from shoal.training.polish import Polish
from shoal.training.recipes.recipe import Recipe
from shoal.training.refinement import Finish, Refinement
from shoal.training.revival import Revival
from shoal.training.rules import Adam, IncoherentStep, NormalizedStep
from shoal.training.schedules import Constant, DecayAtLast, InverseDecay
from shoal.vocabulary import check_count

__all__ = ["default", "incoherent"]


def default(model: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
    """The recipe that recovers from data alone: k-largest encoder, minibatches, polish.

    Parameters
    ----------
    model : str
        One of `MODELS`.
    n_components, k : int
        Atoms m, and active units a sample.
    n_samples : int or None
        Rows of the data; None for a stream.
    """
    check_count("k", k, high=n_components)
    signed, shared = model == "sparse", model == "nonnegative"
    # More iterations find few better codes on a dictionary that is still wrong.
    hasty = SubspacePursuit(k, signed, max_iterations=1)
    # Some eight active samples an atom and batch: what the step sizes below were tried at. But the
    # atoms' Gram matrix, made once a batch, should cost no more than twice the batch's product.
    fewest = max(256, 1 << n_components.bit_length() - 1)
    batch = min(max(fewest, 1 << int(8 * n_components / k).bit_length() - 1), 4096)
    if n_samples is not None:
        batch = min(batch, n_samples)
    return Recipe(
        activation=TopK(k, signed=signed),
        rule=NormalizedStep(Constant(0.4), shared),
        n_steps=4,
        batch_size=batch,
        revival=Revival(),
        refinement=Refinement(
            hasty,
            NormalizedStep(InverseDecay(0.5, 200), shared),
            20_000,
            wait=None if model == "mixture" else _WAIT,
        ),
        finish=finish(n_components, k, n_samples, signed=signed),
        polish=Polish(SubspacePursuit(k, signed)),
        # With one active unit the tied code is the best one.
        encoder=None if model == "mixture" else EncoderFit(),
    )


# Steps of the refinement before it can be in vain: by then most dictionaries are found.
_WAIT = 40
# Arbitrary: passes over the data where they are not explained, and the least and most updates.
_PASSES, _FEWEST, _LARGEST = 4, 240, 1000
# With so many active units an iteration of the pursuit costs more than it is worth there. Measured
# on activations, explained by a pursuit: with 8 and 16 units .857 and .892 with one, .840 and .882
# without; with 32 units .917 after 24 s of the former or the latter, and the encoder .875 and .879.
_MANY = 24


def finish(n_components: int, k: int, n_samples: int | None, *, signed: bool) -> Finish:
    """How descent ends on data that no dictionary explains: four passes with Adam.

    From 240 to 1000 updates whatever the number of rows. On transformer activations, patches of
    photographs and digits it came as far in 3 to 8 s as normalised steps do in minutes: there
    atoms differ by orders of magnitude in how often they are active, and a step that the mean
    square of an atom's own gradient sets suits all of them.
    """
    batch = min(max(1024, 1 << n_components.bit_length() - 1), 4096)
    n_steps = _LARGEST
    if n_samples is not None:
        batch = min(batch, n_samples)
        n_steps = min(max(-(-_PASSES * n_samples // batch), _FEWEST), _LARGEST)
    # The units of epsilon are those of the gradient: data in another unit have the same bits.
    rule = Adam(DecayAtLast(0.25, n_steps), epsilon=1e-30, tangent=True, relative=True)
    support = SubspacePursuit(k, signed, max_iterations=0) if k >= _MANY else None
    return Finish(rule, n_steps, batch, support)


# Arbitrary: active units of a row at most, where each row takes as many as it needs.
_MOST = 64


def incoherent(model: str, n_components: int, k: int, n_samples: int | None) -> Recipe:
    """The recipe for rows with different numbers of active units: thresholds, and incoherence.

    What recovery theory assumes, relaxed: codes by a threshold instead of a number (Nguyen et al.
    2018, Theorem 3), an incoherent dictionary (assumption A1) as a constraint on training, and an
    offset that is learned. Parameters are those of :func:`default`, with `k` active units a row at
    most, or 0 for no such number.
    """
    check_count("k", k, low=0, high=n_components)
    signed = model == "sparse"
    batch = max(1024, 1 << (n_components - 1).bit_length())
    if n_samples is not None:
        batch = min(batch, n_samples)
    n_steps = 2000
    return Recipe(
        activation=JumpReLU(signed=signed),  # type: ignore[arg-type]
        rule=IncoherentStep(
            DecayAtLast(0.3, n_steps, 0.3), release=n_steps // 2, trial=150, both=not signed
        ),
        n_steps=n_steps,
        batch_size=batch,
        revival=Revival(every=40, idle=40, combined=0.35),
        offset=True,
        pursuit=ThresholdPursuit(
            min(k or _MOST, n_components), signed, shrinkage=0.4 if signed else 0.15
        ),
    )

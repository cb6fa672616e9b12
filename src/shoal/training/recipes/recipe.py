"""A recipe: all that descent and polish need to know beside the data and the start."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from shoal.network.activations import Activation, learns_threshold
from shoal.network.penalties import Penalty
from shoal.network.prefixes import Prefixes
from shoal.network.pursuit import ThresholdPursuit
from shoal.parts import register
from shoal.training.adaptation import BiasAdaptation
from shoal.training.autoencoding import AutoencoderAdam
from shoal.training.constraints import Constraint, NonnegativeUnitLength, UnitLength
from shoal.training.descent import Plan, Stage
from shoal.training.encoding import EncoderFit, trainable
from shoal.training.polish import Polish
from shoal.training.refinement import Finish, Refinement
from shoal.training.revival import Revival
from shoal.training.rules import Rule
from shoal.training.schedules import Schedule
from shoal.vocabulary import ArgumentError, check_count

__all__ = ["MODELS", "Recipe"]

MODELS = ("sparse", "nonnegative", "mixture")
"""Signed sparse codes; non-negative sparse codes; one active unit a sample."""


@register("part")
@dataclass(frozen=True)
class Recipe:
    """All that descent and polish need to know beside the data and the start.

    Parameters
    ----------
    activation : Activation
        The encoder's.
    rule : Rule
        How parameters move: `NormalizedStep`, `FixedStep`, `Momentum` or `Adam`.
    n_steps : int
        Updates of the descent.
    batch_size : int or None
        Samples an update; None is the full batch.
    bias : Schedule, BiasAdaptation or None
        The bias of all units, step by step; or each unit's by how often it fires; None leaves
        it at its start, 0.
    revival : Revival or None
        Replacement of dead and duplicate atoms.
    refinement : Refinement or None
        Descent that goes on with better codes.
    polish : Polish or None
        What follows the descent, but not a finish.
    constraint : Constraint
        What keeps atoms in their set.
    penalty : Penalty or None
        What the objective has beside the reconstruction loss.
    short : bool
        Whether a last batch of less than half the size makes an update.
    untied : bool
        Whether the encoder has weights of its own, which begin as the dictionary.
    offset : bool
        Whether the decoder adds an offset, which begins at 0.
    finish : Finish or None
        How descent ends where the refinement could not explain the data.
    pursuit : ThresholdPursuit or None
        What codes in the descent, in the encoder's place; after it the encoder is fitted to these
        codes, the dictionary being held.
    encoder : EncoderFit or None
        How an encoder is fitted to the dictionary once that has been learned. None leaves what
        the descent came to: tied weights, but for `untied` and `pursuit`.
    prefixes : Prefixes or None
        Numbers of atoms, the first so many of which are to explain the data by themselves.
    """

    activation: Activation
    rule: Rule
    n_steps: int
    batch_size: int | None = None
    bias: Schedule | BiasAdaptation | None = None
    revival: Revival | None = None
    refinement: Refinement | None = None
    polish: Polish | None = None
    constraint: Constraint = UnitLength()
    penalty: Penalty | None = None
    short: bool = False
    untied: bool = False
    offset: bool = False
    finish: Finish | None = None
    pursuit: ThresholdPursuit | None = None
    encoder: EncoderFit | None = None
    prefixes: Prefixes | None = None

    def __post_init__(self) -> None:
        check_count("n_steps", self.n_steps)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)
        if self.pursuit is not None:
            if not isinstance(self.pursuit, ThresholdPursuit):
                raise ArgumentError("pursuit", repr(self.pursuit), "a ThresholdPursuit or None")
            if not learns_threshold(self.activation):
                found = f"{self.activation!r} with a pursuit by thresholds"
                raise ArgumentError("activation", found, "one with thresholds, such as JumpReLU")
        if self.encoder is not None and self.pursuit is None:
            self._check_encoder(self.encoder.weights)
        more = self.untied or self.offset or learns_threshold(self.activation)
        if more and not getattr(self.rule, "follows_gradient", True):
            found = f"{type(self.rule).__name__}, which moves the dictionary alone"
            raise ArgumentError("rule", found, "Momentum or Adam")
        if self.prefixes is not None and (self.penalty is not None or self.pursuit is not None):
            found = "prefixes with a penalty or a pursuit"
            raise ArgumentError("prefixes", found, "None, or a recipe of the loss alone")
        if isinstance(self.rule, AutoencoderAdam) and not (self.untied and self.offset):
            found = "AutoencoderAdam with tied weights or without an offset"
            raise ArgumentError("rule", found, "untied=True and offset=True with it")
        if not self.offset and not self.untied:
            return
        if self.refinement is not None or self.polish is not None:
            found = "a refinement or a polish with an encoder of its own or an offset"
            raise ArgumentError("recipe", found, "neither: they are for tied weights")

    def _check_encoder(self, weights: str) -> None:
        if weights in ("auto", "tied"):  # where none can be fitted, none is
            return
        if not trainable(self.activation):
            found = f"{self.activation!r} with an encoder that is fitted"
            raise ArgumentError("activation", found, "the k largest, TopK")
        if self.untied or self.offset or self.bias is not None:
            found = "weights, an offset or a bias that the descent learns"
            raise ArgumentError("encoder", found, "tied weights, or None for the encoder")

    def plan(self, *, endless: bool = False) -> Plan:
        """Descent and refinement as stages.

        `endless` is for data that come piece by piece: the last stage has no end, atoms are never
        given up, and a batch weighs by its rows.
        """
        revival = self.revival
        if endless and revival is not None:
            revival = replace(revival, tries=sys.maxsize)
        last = self.refinement
        rule = self.rule
        if endless:
            rule = getattr(rule, "endless", lambda: self.rule)()
        first = Stage(
            "descent",
            self.activation if self.pursuit is None else self.pursuit,
            rule,
            sys.maxsize if endless and last is None else self.n_steps,
            penalty=self.prefixes or self.penalty,
            constraint=self.constraint,
            bias=self.bias,
            revival=revival,
        )
        stages = [first]
        if last is not None:
            following = replace(
                first,
                phase="refinement",
                encoder=last.pursuit,
                rule=last.rule,
                n_steps=sys.maxsize if endless else last.n_steps,
                penalty=None,
                bias=None if isinstance(self.bias, BiasAdaptation) else self.bias,
                settling=None if endless else last,
            )
            stages.append(following)
            if self.finish is not None and not endless:
                at_last = replace(
                    following,
                    phase="finish",
                    encoder=self.finish.pursuit or last.pursuit,
                    rule=self.finish.rule,
                    n_steps=self.finish.n_steps,
                    batch_size=self.finish.batch_size,
                    settling=None,
                    only_unexplained=True,
                )
                stages.append(at_last)
        return Plan(
            tuple(stages), self.batch_size, self.short, self.untied, self.offset, piecewise=endless
        )


def with_encoder(recipe: Recipe, kind: str, n_unrolled: int = 0, *, joint: bool = False) -> Recipe:
    """`recipe` with an encoder of that kind, one of `ENCODERS`, and corrections of its codes."""
    if joint and kind == "tied":
        needed = "'auto', 'tied-gain' or 'untied'"
        raise ArgumentError("encoder", "'tied' with joint=True", needed)
    fixed = recipe.untied or recipe.offset or recipe.bias is not None
    if recipe.pursuit is None and (fixed or not trainable(recipe.activation)):
        if joint:
            found = f"True with {type(recipe.activation).__name__}"
            needed = "False, or a recipe of the k largest codes and tied weights"
            raise ArgumentError("joint", found, needed)
        if n_unrolled:
            found = f"{n_unrolled} with {type(recipe.activation).__name__}"
            needed = "0, or a recipe of the k largest codes and tied weights, such as 'default'"
            raise ArgumentError("n_unrolled", found, needed)
        if kind == "tied" and not recipe.untied:
            return recipe
        needed = "'auto', or a recipe of the k largest codes and tied weights, such as 'default'"
        raise ArgumentError("encoder", f"{kind!r} with {type(recipe.activation).__name__}", needed)
    usual = EncoderFit() if recipe.encoder is None else recipe.encoder
    kind = usual.weights if kind == "auto" else kind
    usual = replace(usual, weights=kind, n_unrolled=n_unrolled, joint=joint)
    return replace(recipe, encoder=usual)


def with_positive_atoms(recipe: Recipe) -> Recipe:
    """`recipe` with atoms that have no entry below 0, in descent and polish."""
    if not isinstance(recipe.constraint, (UnitLength, NonnegativeUnitLength)):
        found = f"True with {type(recipe.constraint).__name__}, the recipe's own constraint"
        raise ArgumentError("positive_atoms", found, "a recipe whose atoms are of length 1")
    constraint, polish = NonnegativeUnitLength(), recipe.polish
    if polish is not None:
        polish = replace(polish, constraint=constraint)
    return replace(recipe, constraint=constraint, polish=polish)

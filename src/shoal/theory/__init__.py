"""Theorems in numbers: what they ask for, what they promise, and what is measured.

One function an assertion, in a module a paper. Each takes a world (:mod:`shoal.generative`) and
weights, and returns an :class:`Assertion`: its hypotheses one by one, the promise with this
world's numbers, the measurements, and the verdict.

>>> from shoal import theory
>>> from shoal.generative import SparseCoding, Rademacher, perturb, random_dictionary
>>> world = SparseCoding(random_dictionary(64, 64, random_state=0), 3, values=Rademacher())
>>> weights = perturb(world.dictionary, 0.1, random_state=1)
>>> found = theory.nguyen2019.theorem3(world, weights, n_samples=500)
>>> found.verdict, found.hypotheses[0].holds
('not promised', True)

Nobody knows the truth behind real data. :func:`world_from_codes` makes a world of what a model
found, with W in place of A*.
"""

from shoal.theory import arpit2016, gradients, modes, nguyen2019, rangamani2017, sizes
from shoal.theory.assertion import Assertion, Check, plain
from shoal.theory.examination import examine
from shoal.theory.penalties_examination import PenaltyExamination, examine_penalty
from shoal.theory.worlds import (
    PreprocessedWorld,
    WorldFacts,
    aligned,
    open_dictionary,
    open_world,
    preprocessed_world,
    unit_rows,
    world_from_codes,
)

__all__ = [
    "Assertion",
    "Check",
    "PenaltyExamination",
    "PreprocessedWorld",
    "WorldFacts",
    "aligned",
    "arpit2016",
    "examine",
    "examine_penalty",
    "gradients",
    "modes",
    "nguyen2019",
    "open_dictionary",
    "open_world",
    "plain",
    "preprocessed_world",
    "rangamani2017",
    "sizes",
    "unit_rows",
    "world_from_codes",
]

"""How good is it: recovery, supports, sparsity, reconstruction. NumPy in and out.

Torch tensors are accepted everywhere and converted. SciPy is imported only where it is
called, so importing this room costs NumPy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.diagnosis.detectors import Detection, detection
from shoal.diagnosis.matching import Matching, align, bottleneck_match, match
from shoal.diagnosis.scores import Recovery, chance_level, recovery
from shoal.diagnosis.sparsity import (
    CodeStatistics,
    Diagnosis,
    activation_fraction,
    atom_activation,
    dead_atoms,
    duplicate_atoms,
    explained_variance,
    fvu,
    l0,
    mse,
)
from shoal.diagnosis.support import SupportRecovery, support_recovery
from shoal.diagnosis.surface import Landscape, landscape

if TYPE_CHECKING:
    from shoal.generative.dictionaries import coherence, incoherence

__all__ = [
    "CodeStatistics",
    "Detection",
    "Diagnosis",
    "Landscape",
    "Matching",
    "Recovery",
    "SupportRecovery",
    "activation_fraction",
    "align",
    "atom_activation",
    "bottleneck_match",
    "chance_level",
    "coherence",
    "dead_atoms",
    "detection",
    "duplicate_atoms",
    "explained_variance",
    "fvu",
    "incoherence",
    "l0",
    "landscape",
    "match",
    "mse",
    "recovery",
    "support_recovery",
]


def __getattr__(name: str) -> Any:
    # The constructions beside these two need scipy.linalg at import; nothing else here does.
    if name in ("coherence", "incoherence"):
        from shoal.generative import dictionaries

        return getattr(dictionaries, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

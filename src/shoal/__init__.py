"""Shallow weight-tied autoencoders that recover the dictionary behind a data set.

>>> import shoal
>>> model = shoal.DictionaryAutoencoder(n_components=256, n_nonzero_coefs=8, random_state=0)

``shoal.generative`` makes data whose truth is known, ``shoal.data`` opens data whose truth
is not, ``shoal.network`` holds the autoencoder as pure functions, ``shoal.training`` its
descent and ``shoal.diagnosis`` what can be said of the result; ``shoal.theory`` has the papers'
theorems in numbers and ``shoal.papers`` their figures. Names load when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# First of all: it arranges what comes after a fork.
from shoal.processes import importing
from shoal.vocabulary import __version__

if TYPE_CHECKING:
    from shoal import certificate as certificate
    from shoal import data as data
    from shoal import diagnosis as diagnosis
    from shoal import ecosystem as ecosystem
    from shoal import experiments as experiments
    from shoal import generative as generative
    from shoal import network as network
    from shoal import papers as papers
    from shoal import plot as plot
    from shoal import report as report
    from shoal import sweeps as sweeps
    from shoal import theory as theory
    from shoal import tl as tl
    from shoal import training as training
    from shoal.certificate import Certificate, certify
    from shoal.data import Preprocessing, open_source
    from shoal.diagnosis import Detection, Recovery, detection, recovery, support_recovery
    from shoal.ecosystem import export, open_sae
    from shoal.estimators import DictionaryAutoencoder, RegularizedAutoencoder
    from shoal.language import activations
    from shoal.runs import load_run, save_run
    from shoal.training import Recipe
    from shoal.vocabulary import ArgumentError, RunError, ShoalError, SourceError

_HOMES = {
    "ArgumentError": "shoal.vocabulary",
    "Certificate": "shoal.certificate",
    "Detection": "shoal.diagnosis",
    "DictionaryAutoencoder": "shoal.estimators",
    "Preprocessing": "shoal.data",
    "Recipe": "shoal.training",
    "Recovery": "shoal.diagnosis",
    "RegularizedAutoencoder": "shoal.estimators",
    "RunError": "shoal.vocabulary",
    "ShoalError": "shoal.vocabulary",
    "SourceError": "shoal.vocabulary",
    "activations": "shoal.language",
    "certify": "shoal.certificate",
    "detection": "shoal.diagnosis",
    "export": "shoal.ecosystem",
    "load_run": "shoal.runs",
    "open_sae": "shoal.ecosystem",
    "open_source": "shoal.data",
    "recovery": "shoal.diagnosis",
    "save_run": "shoal.runs",
    "support_recovery": "shoal.diagnosis",
}
_ROOMS = (
    "certificate",
    "data",
    "diagnosis",
    "ecosystem",
    "experiments",
    "generative",
    "network",
    "papers",
    "plot",
    "report",
    "sweeps",
    "theory",
    "tl",
    "training",
)

__all__ = [
    "ArgumentError",
    "Certificate",
    "Detection",
    "DictionaryAutoencoder",
    "Preprocessing",
    "Recipe",
    "Recovery",
    "RegularizedAutoencoder",
    "RunError",
    "ShoalError",
    "SourceError",
    "__version__",
    "activations",
    "certify",
    "detection",
    "export",
    "load_run",
    "open_sae",
    "open_source",
    "recovery",
    "save_run",
    "support_recovery",
]


if not TYPE_CHECKING:  # a type checker knows what there is, and so finds what there isn't

    def __getattr__(name: str) -> Any:
        with importing:
            if name in _HOMES:
                value = getattr(import_module(_HOMES[name]), name)
                globals()[name] = value
                return value
            if name in _ROOMS:
                return import_module(f"shoal.{name}")
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])

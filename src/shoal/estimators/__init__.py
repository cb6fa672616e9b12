"""The scikit-learn face of the autoencoder: a dictionary's recovery, and sparsity by a penalty."""

from shoal.estimators.base import METHODS, PARTS, PURSUITS, TiedAutoencoder
from shoal.estimators.dictionary import DictionaryAutoencoder
from shoal.estimators.regularized import RegularizedAutoencoder

__all__ = [
    "METHODS",
    "PARTS",
    "PURSUITS",
    "DictionaryAutoencoder",
    "RegularizedAutoencoder",
    "TiedAutoencoder",
]

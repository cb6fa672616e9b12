"""Data whose truth is known: dictionaries to plant, laws of the code, and models to draw from.

>>> from shoal.generative import SparseCoding, random_dictionary
>>> world = SparseCoding(random_dictionary(128, 64, random_state=0), sparsity=3)
>>> world.sample(1000, random_state=1).data.shape
(1000, 64)
"""

from shoal.generative.copula import CopulaSupports, zipf
from shoal.generative.description import laws_of, world_of
from shoal.generative.dictionaries import (
    coherence,
    equiangular,
    equiangular_sizes,
    incoherence,
    low_coherence,
    orthonormal_union,
    perturb,
    random_dictionary,
    welch_bound,
)
from shoal.generative.features import (
    FeatureSample,
    HierarchicalSparseCoding,
    Outliers,
    RectifiedGaussian,
    SparseFeatures,
)
from shoal.generative.forests import Forest
from shoal.generative.laws import (
    BernoulliSupport,
    Constant,
    Custom,
    DiscreteSupport,
    Gaussian,
    Rademacher,
    SupportLaw,
    Uniform,
    UniformSupport,
    ValuesLaw,
)
from shoal.generative.models import (
    GenerativeModel,
    IndependentComponents,
    MixtureOfGaussians,
    NonnegativeSparseCoding,
    Rounding,
    Sample,
    SparseCoding,
    sparsity_from_power,
)
from shoal.generative.named import (
    ValuesName,
    WorldName,
    block_support,
    named_world,
    read_supports,
    read_weights,
    values_named,
)
from shoal.generative.sized import SizedSupport
from shoal.generative.synth import SYNTH_SIZES, SynthSize, spread_apart, synth_sae_bench
from shoal.generative.writing import write_planted, write_samples

__all__ = [
    "SYNTH_SIZES",
    "BernoulliSupport",
    "Constant",
    "CopulaSupports",
    "Custom",
    "DiscreteSupport",
    "FeatureSample",
    "Forest",
    "Gaussian",
    "GenerativeModel",
    "HierarchicalSparseCoding",
    "IndependentComponents",
    "MixtureOfGaussians",
    "NonnegativeSparseCoding",
    "Outliers",
    "Rademacher",
    "RectifiedGaussian",
    "Rounding",
    "Sample",
    "SizedSupport",
    "SparseCoding",
    "SparseFeatures",
    "SupportLaw",
    "SynthSize",
    "Uniform",
    "UniformSupport",
    "ValuesLaw",
    "ValuesName",
    "WorldName",
    "block_support",
    "coherence",
    "equiangular",
    "equiangular_sizes",
    "incoherence",
    "laws_of",
    "low_coherence",
    "named_world",
    "orthonormal_union",
    "perturb",
    "random_dictionary",
    "read_supports",
    "read_weights",
    "sparsity_from_power",
    "spread_apart",
    "synth_sae_bench",
    "values_named",
    "welch_bound",
    "world_of",
    "write_planted",
    "write_samples",
    "zipf",
]

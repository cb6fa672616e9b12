"""
Parents and children
====================

Features of data as they are come in families, with frequencies over three decades. SynthSAEBench
(arXiv 2602.14687) is a law of such worlds whose truth is known. Sparsity alone prefers sums of a
parent and its child; thresholds and an incoherent dictionary tell them apart.
"""

import numpy as np

import shoal
from shoal.generative import synth_sae_bench

world = synth_sae_bench("1k", random_state=0)  # 1024 features in 512 dimensions
data = world.sample(30_000, random_state=1).data
test = world.sample(5000, random_state=2)

# %%
# Given the number of atoms alone. The recipe is what ``n_nonzero_coefs="auto"`` comes to here; to
# name it saves the search.

model = shoal.DictionaryAutoencoder(
    128, "auto", model="nonnegative", recipe="incoherent", random_state=0
).fit(data)
codes = model.transform(test.data)
scores = shoal.detection(codes, test.codes, model.components_, world.dictionary)
print(f"F1 {scores.f1:.3f}, uniqueness {scores.uniqueness:.3f}, MCC {scores.mcc:.3f}")

# %%
# How many atoms are active varies from sample to sample.

shoal.plot.activity(codes, show="samples")

# %%
# How often features are active, of those that atoms stand for: the frequent ones are found.

axes = shoal.plot.activity(codes)
axes.set_title("atoms")
found = np.abs(model.components_ @ world.dictionary.T).argmax(axis=1)
print(f"the median atom's feature is the {int(np.median(found))}th most frequent of 1024")

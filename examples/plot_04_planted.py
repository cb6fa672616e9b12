"""
A planted world, recovered
==========================

Where the truth is known, recovery can be measured: data are made from a dictionary, three atoms per
sample, and a dictionary is learned from the data alone. Then it is compared with the true one.
"""

import matplotlib.pyplot as plt

import shoal
from shoal.generative import SparseCoding, random_dictionary

world = SparseCoding(random_dictionary(128, 64, random_state=0), sparsity=3, low=1.0, high=2.0)
sample = world.sample(20_000, random_state=1)

model = shoal.DictionaryAutoencoder(128, 3, model="sparse", random_state=0).fit(sample.data)

found = shoal.recovery(model.components_, world.dictionary)
print(f"atoms at a cosine of .99 or more: {found.recovered(0.99):.0%}")

# %%
# Every true atom has its match. An agreement of two fits with other seeds is what one can measure
# without the truth.

again = shoal.DictionaryAutoencoder(128, 3, model="sparse", random_state=5).fit(sample.data)
figure, axes = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
shoal.plot.recovered(model, world.dictionary, ax=axes[0])
shoal.plot.stability([model, again], ax=axes[1])

# %%
# A certificate needs no truth: the model is learned again from halves of the data, and from
# surrogates that have no sparse structure, and each atom gets a verdict.

certificate = shoal.certify(model, sample.data, random_state=0)
print(certificate.summary())

# %%
# Told a wrong number of atoms and left to find the number of active ones, it leaves out what the
# data have no use for.

import warnings  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says so in words
    wrong = shoal.DictionaryAutoencoder(160, "auto", model="sparse", random_state=0).fit(
        sample.data
    )
print(f"{len(wrong.components_)} atoms, {wrong.n_nonzero_coefs_} active")

"""
How many active atoms?
======================

``n_nonzero_coefs="auto"`` chooses, and says why. On planted data the number is found; on real data
there is no true one, and what there is is a curve of what 1, 2, 4, ... atoms explain.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

import shoal
from shoal.generative import SparseCoding, random_dictionary
from shoal.training.sparsity import curve

world = SparseCoding(random_dictionary(96, 48, random_state=0), sparsity=4, low=1.0, high=2.0)
planted = world.sample(10_000, random_state=1).data
digits = load_digits().data / 16

# %%

figure, axes = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
for ax, data, name, m in (
    (axes[0], planted, "planted, k = 4", 96),
    (axes[1], digits, "digits", 64),
):
    model = shoal.DictionaryAutoencoder(m, "auto", random_state=0).fit(data)
    rows = torch.from_numpy(data[:2000]).float()
    shares = curve(torch.from_numpy(model.components_).float(), rows, signed=True)
    shoal.plot.elbow(shares, chosen=model.n_nonzero_coefs_, ax=ax)
    ax.set_title(f"{name}: chose {model.n_nonzero_coefs_}")
    print(name, *model.notes_, sep="\n  ")

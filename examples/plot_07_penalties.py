"""
Sparse by penalty
=================

:class:`shoal.RegularizedAutoencoder` needs no number of active units: denoising and other
penalties make a tied autoencoder sparse (Arpit et al. 2016). Their strength decides how sparse.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import shoal

digits = load_digits().data / 16

# %%

strengths = [0.05, 0.1, 0.2, 0.4, 0.8]
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
for penalty in ("dae", "l1"):
    active = [
        shoal.RegularizedAutoencoder(64, penalty, strength, activation="relu", random_state=0)
        .fit(digits)
        .activation_fraction_
        for strength in strengths
    ]
    axes.plot(strengths, 100 * np.array(active), marker="o", label=penalty)
axes.set_xscale("log")
axes.set_xticks(strengths, map(str, strengths))
axes.minorticks_off()
axes.set_xlabel("strength")
axes.set_ylabel("active units, per cent")
axes.legend(frameon=False)

# %%
# The filters that denoising leads to.

model = shoal.RegularizedAutoencoder(64, "dae", 0.4, activation="relu", random_state=0).fit(digits)
shoal.plot.atoms(model, (8, 8))

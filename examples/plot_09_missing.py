"""
Values that are missing
=======================

NaN is data that nobody measured. With ``missing="ignore"`` atoms are fitted to what was seen, and
``denoise`` fills in the rest.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import shoal

digits = load_digits().data.astype(np.float32) / 16
holes = digits.copy()
holes[np.random.default_rng(0).random(digits.shape) < 0.25] = np.nan

model = shoal.DictionaryAutoencoder(
    64, 6, model="nonnegative", missing="ignore", random_state=0
).fit(holes)
filled = model.denoise(holes)

# %%

figure, every = plt.subplots(3, 10, figsize=(10, 3.2), layout="constrained")
for row, pictures in zip(every, (holes, filled, digits), strict=True):
    for axes, picture in zip(row, pictures, strict=False):
        axes.imshow(picture.reshape(8, 8), cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
missing = np.isnan(holes)
error = np.sqrt(np.mean((filled - digits)[missing] ** 2))
mean = np.sqrt(np.mean((digits.mean(axis=0) - digits)[missing] ** 2))
print(f"root mean square error of missing pixels: {error:.3f} (each pixel's mean: {mean:.3f})")

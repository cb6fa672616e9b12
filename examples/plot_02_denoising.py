"""
Denoising a photograph
======================

Half of a photograph is distorted by noise. A dictionary of patches of the clean half denoises the
other, as in scikit-learn's example of `image denoising
<https://scikit-learn.org/stable/auto_examples/decomposition/plot_image_denoising.html>`_: the same
patches, the same number of atoms and the same codes, by :class:`shoal.DictionaryAutoencoder` and by
``MiniBatchDictionaryLearning``.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.feature_extraction.image import extract_patches_2d, reconstruct_from_patches_2d

import shoal

image = load_sample_image("china.jpg").mean(axis=2)[::2, ::2] / 255
height, width = image.shape
half = width // 2
noisy = image.copy()
noisy[:, half:] += 0.1 * np.random.default_rng(0).standard_normal((height, width - half))


def rows(picture):
    """Patches as rows without their means, and the means."""
    patches = extract_patches_2d(picture, (7, 7)).reshape(-1, 49)
    means = patches.mean(axis=1, keepdims=True)
    return patches - means, means


def restored(codes, atoms, means, shape):
    """A picture of overlapping patches, averaged."""
    return reconstruct_from_patches_2d((codes @ atoms + means).reshape(-1, 7, 7), shape)


def psnr(picture):
    """In decibels, of the distorted half."""
    error = np.mean((picture - image[:, half:]) ** 2)
    return 10 * np.log10(1 / error)


clean, _ = rows(image[:, :half])
distorted, means = rows(noisy[:, half:])

# %%
# Codes with two atoms per patch, by orthogonal matching pursuit, for both.

start = time.perf_counter()
ours = shoal.DictionaryAutoencoder(100, 2, random_state=0).fit(clean)
codes = ours.transform(distorted, method="omp")
seconds = {"shoal": time.perf_counter() - start}
pictures = {"shoal": restored(codes, ours.components_, means, (height, width - half))}

start = time.perf_counter()
theirs = MiniBatchDictionaryLearning(
    100, alpha=1, max_iter=10, batch_size=256, transform_algorithm="omp",
    transform_n_nonzero_coefs=2, random_state=0,
).fit(clean)  # fmt: skip
codes = theirs.transform(distorted)
seconds["scikit-learn"] = time.perf_counter() - start
pictures["scikit-learn"] = restored(codes, theirs.components_, means, (height, width - half))

for name, picture in pictures.items():
    print(f"{name:12} {psnr(picture):.2f} dB in {seconds[name]:.1f} s")
print(f"{'noisy':12} {psnr(noisy[:, half:]):.2f} dB")

# %%

figure, every = plt.subplots(1, 4, figsize=(11, 4), layout="constrained")
shown = {"noisy": noisy[:, half:], **pictures, "the photograph": image[:, half:]}
for axes, (name, picture) in zip(every, shown.items(), strict=True):
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
    axes.set_title(name if name == "the photograph" else f"{name}, {psnr(picture):.2f} dB")
    axes.set_axis_off()

# %%
# The atoms.

shoal.plot.atoms(ours, (7, 7))

"""
Programs of genes in blood cells
================================

A cell switches on few programs, groups of genes that are used together. They are learned from the
expression of 765 genes in 700 blood cells (Zheng et al. 2017, as scanpy ships them), with one call
that takes an AnnData object and writes into it: ``obsm["X_shoal"]`` has the usage of programs by
cells, ``varm["shoal"]`` the weights of genes in programs.
"""

import matplotlib.pyplot as plt
import numpy as np
import scanpy as sc

import shoal

cells = sc.datasets.pbmc68k_reduced()
umap = cells.obsm["X_umap"]
cells = cells.raw.to_adata()  # counts, normalised per cell, and log(1 + x) of them

shoal.tl.dictionary(cells, n_components=12, n_nonzero_coefs=4, positive_atoms=True, random_state=0)
print(cells)

# %%
# Each program by the four genes that it has more of than other programs do, and how much each type
# of cell uses it, as a share of the type that uses it most. The types were found by other means
# (from bulk RNA of sorted cells), and weren't used here: CD79A is of B cells, GNLY and NKG7 of
# natural killers, FCGR3A of monocytes, IGJ and MZB1 of plasma cells.

usage = cells.obsm["X_shoal"].toarray()  # (700, 12), at most 4 non-zeros per row
weights = cells.varm["shoal"]  # (765, 12)
types = cells.obs["bulk_labels"]

strongest = np.argsort(weights.mean(axis=1, keepdims=True) - weights, axis=0)[:4]
names = [", ".join(cells.var_names[genes]) for genes in strongest.T]
mean = np.array([usage[types == name].mean(axis=0) for name in types.cat.categories])
mean /= mean.max(axis=0)
order = np.argsort(mean.argmax(axis=0), kind="stable")

figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
axes.imshow(mean.T[order], cmap="Blues", aspect="auto")
axes.set_yticks(range(12), [names[program] for program in order])
axes.set_xticks(range(len(mean)), types.cat.categories, rotation=40, ha="right")

# %%
# Four of them on the map of cells that scanpy's UMAP has drawn.

shown = [next(i for i in order if gene in names[i]) for gene in ("CD79A", "GNLY", "LYZ", "IGJ")]
figure, every = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained")
for axes, program in zip(every, shown, strict=True):
    on_top = np.argsort(usage[:, program])
    axes.scatter(*umap[on_top].T, c=usage[on_top, program], s=6, cmap="viridis")
    axes.set_title(names[program].replace(", ", " "), fontsize=9)
    axes.set_axis_off()

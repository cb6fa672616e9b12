"""
Edges in photographs
====================

Patches of natural images are sums of few localised, oriented edges (Olshausen and Field 1996).
Two lines find them.
"""

import shoal

patches = "sample:patches?size=12&n_patches=20000"  # or an array (N, n), or a folder of pictures
model = shoal.DictionaryAutoencoder(144, 4, preprocessing="whiten", random_state=0).fit(patches)

# %%
# Each tile is an atom, with grey for 0. They are drawn in the space of pixels, not in the whitened
# one in which they are learned.

shoal.plot.atoms(model)

# %%
# How the fit went: atoms are found in the descent, and finished by Adam under the same codes.

shoal.plot.history(model)

# %%
# Most atoms are active in a few per cent of the patches, and none is dead.

shoal.plot.activity(model, "sample:patches?size=12&n_patches=5000")

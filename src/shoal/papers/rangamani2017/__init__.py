"""Rangamani et al. 2017, Sparse Coding and Autoencoders: section 6 and its theorems."""

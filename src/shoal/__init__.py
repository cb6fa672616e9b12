"""Shallow weight-tied autoencoders that recover the dictionary behind a data set."""

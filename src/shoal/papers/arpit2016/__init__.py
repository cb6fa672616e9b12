"""Arpit et al. 2016: activation fraction against the strength of a penalty, Figures 1 to 5."""

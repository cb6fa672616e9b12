"""Data whose truth isn't known: one `Source` over whatever holds it, and preprocessing."""

from shoal.data.access import Source, Truth, validate
from shoal.data.images import draw_positions, extract_patches, grey
from shoal.data.preprocessing import FittedPreprocessing, Moments, Preprocessing, moments
from shoal.data.samples import SAMPLES, Sample, digits, patches
from shoal.data.sources import open_source

__all__ = [
    "SAMPLES",
    "FittedPreprocessing",
    "Moments",
    "Preprocessing",
    "Sample",
    "Source",
    "Truth",
    "digits",
    "draw_positions",
    "extract_patches",
    "grey",
    "moments",
    "open_source",
    "patches",
    "validate",
]

"""Many trainings that differ in their penalty alone: sparsity against its strength.

:func:`sweep` trains at every point; :func:`run_sweep` also keeps, resumes and draws.
"""

from shoal.sweeps.points import Point, Record, Trace, canonical, grid, sweep
from shoal.sweeps.result import run_sweep, strengths_of

__all__ = [
    "Point",
    "Record",
    "Trace",
    "canonical",
    "grid",
    "run_sweep",
    "strengths_of",
    "sweep",
]

"""Figures of a run and its one-file HTML page.

run folder -> run.py (read) -> words.py (say) + figures.py (draw) -> page.py (write)
"""

from shoal.report.page import write_atoms, write_report

__all__ = ["write_atoms", "write_report"]

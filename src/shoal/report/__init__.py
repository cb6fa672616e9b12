"""Figures of a run and its one-file HTML page.

run folder -> run.py (read) -> words.py (say) + figures.py (draw) -> page.py (write)
"""

from shoal.report.page import atoms_bytes, report_bytes, write_atoms, write_report
from shoal.report.run import read_run

__all__ = ["atoms_bytes", "read_run", "report_bytes", "write_atoms", "write_report"]

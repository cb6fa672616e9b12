"""The fixture of this folder; its parts are in run_folders.py, where tests can import them."""

from run_folders import write_run

__all__ = ["write_run"]

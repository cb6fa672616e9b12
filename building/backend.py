"""setuptools, with the CPU kernels compiled when a wheel is built or the checkout is installed.

So a package brings what would else be compiled at the first use, 20 seconds of it. Where that
fails, or SHOAL_AHEAD=0 is set, the package is built without: it does the same, later.
"""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

_SCRIPT = Path(__file__).parents[1] / "src/shoal/network/kernels/ahead.py"


def _with_numba(requires):
    return requires if os.environ.get("SHOAL_AHEAD") == "0" else [*requires, "numba>=0.65"]


def get_requires_for_build_wheel(config_settings=None):
    """What setuptools asks for, and numba."""
    return _with_numba(build_meta.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings=None):
    """What setuptools asks for, and numba."""
    return _with_numba(build_meta.get_requires_for_build_editable(config_settings))


def _compile():
    if os.environ.get("SHOAL_AHEAD") == "0":
        return
    if subprocess.run([sys.executable, str(_SCRIPT)], check=False).returncode:
        print("kernels are not compiled ahead; shoal will do it when it is first used")


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """As setuptools does, with compiled kernels."""
    _compile()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """As setuptools does, with compiled kernels in the checkout."""
    _compile()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)

"""What reaches the terminal while something is at work."""

import logging

import pytest

from shoal.cli import screen


@pytest.mark.parametrize("quiet", [False, True])
def test_what_is_logged_is_shown_above_a_bar(capsys, quiet):
    log = logging.getLogger("shoal")
    before = log.level, list(log.handlers)
    with screen.bar(quiet=quiet) as progress:
        progress.add_task("work", total=1.0)
        log.info("compiling kernels [once]\x1b[2J")
    assert (log.level, log.handlers) == before
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("compiling kernels [once]\\x1b[2J\n" in captured.err) is not quiet
    log.info("compiling kernels")
    assert "compiling" not in capsys.readouterr().err

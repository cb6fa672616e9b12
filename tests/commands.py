"""The command line, called from tests."""

from typing import Any

from typer.testing import CliRunner

from shoal.cli import app


def shoal_(*words: Any, **env: str) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words], env=env)


def done(*words: Any, **env: str) -> Any:
    result = shoal_(*words, **env)
    assert result.exit_code == 0, result.output
    return result


def refused(*words: Any, code: int = 2) -> str:
    """The one line that a mistake is answered with."""
    result = shoal_(*words)
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]

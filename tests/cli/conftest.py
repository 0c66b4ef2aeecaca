"""The command as a user calls it."""

import pytest

from imgcls.__main__ import main


@pytest.fixture
def run_verb(capsys):
    """``run_verb("report", "output")`` in this process: exit code, stdout and stderr."""

    def run(verb: str, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([verb, *map(str, arguments)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capsys.readouterr())

    return run

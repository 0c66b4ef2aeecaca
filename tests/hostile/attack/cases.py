"""A hostile input, and what every command must do with it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attack.forked import MEMORY, SECONDS, Outcome, run_command

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
LONGEST_LINE = 1500  # characters of an error message


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Args:
        name: what it is, as the identifier of the test.
        make: writes the input into an empty folder and returns the arguments of ``imgcls``. Its second argument gives
            it valid files to damage.
        says: a regular expression that the one line of error must match, in words that lead to the mistake.
        code: the exit code; 0 for input that must be handled.
        seconds: the time limit.
        memory: bytes that the command may use on top of its imports.
    """

    name: str
    make: Callable[..., list[str]]
    says: str = ""
    code: int = 2
    seconds: float = SECONDS
    memory: int = MEMORY


def run_case(case: Case, folder: Path, *valid: object) -> Outcome:
    """Runs a case and asserts that it ended as it must, and that nothing was executed."""
    argv = case.make(folder, *valid)
    outcome = run_command(argv, folder, case.memory, case.seconds)
    check(case, outcome)
    assert not (folder / "executed").exists(), "the input was executed"
    return outcome


def check(case: Case, outcome: Outcome) -> None:
    """Asserts the rule: in time, within memory, the documented exit code, one line without control characters."""
    said = outcome.err[-3000:]
    assert outcome.code is not None, f"still running after {case.seconds} s: {said}"
    assert "Traceback" not in outcome.err, said
    assert outcome.code == case.code, f"exit code {outcome.code}: {said} {outcome.out[-500:]}"
    assert outcome.memory <= case.memory, f"used {outcome.memory >> 20} MB"
    assert not _CONTROL.search(outcome.err.replace("\r", "")), repr(said)
    if case.code == 2:
        errors = [line for line in outcome.err.splitlines() if "error: " in line]
        assert len(errors) == 1, said
        assert len(errors[0]) <= LONGEST_LINE, f"{len(errors[0])} characters"
        assert re.search(case.says, errors[0]), errors[0]
    elif case.says:
        assert re.search(case.says, outcome.err + outcome.out), said

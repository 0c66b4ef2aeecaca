"""The harness notices everything that a command must not do with hostile input."""

import os
import sys
import time

import pytest
from attack.cases import Case, check, run_case
from attack.forked import Outcome, run_function

from imgcls.errors import UserError, exit_on_user_error


def hang():
    time.sleep(60)


def take_memory():
    bytearray(300 << 20)


def take_more_than_there_may_be():
    bytearray(8 << 30)


def crash():
    raise ZeroDivisionError("a bug")


def refuse(*messages):
    for message in messages[:-1]:
        print(f"error: {message}", file=sys.stderr)
    with exit_on_user_error():
        raise UserError(messages[-1])


def end_at_once():
    os._exit(7)


def test_a_refusal_passes(tmp_path):
    outcome = run_function(refuse, ("x.pth is a pickle",), tmp_path)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", "error: x.pth is a pickle\n")
    check(Case("", lambda folder: [], "a pickle"), outcome)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "function, arguments, complaint",
    [
        (hang, (), "still running after 1 s"),
        (take_memory, (), r"used \d\d\d MB"),
        (take_more_than_there_may_be, (), "Traceback"),
        (crash, (), "Traceback"),
        (end_at_once, (), "exit code 7"),
        (refuse, ("one", "two"), "error: one"),
        (refuse, ("another mistake",), "another mistake"),
    ],
)
def test_what_a_command_must_not_do(tmp_path, function, arguments, complaint):
    code, seconds = (0 if function is take_memory else 2), (1 if function is hang else 60)
    case = Case("", lambda folder: [], "a pickle", code, seconds, memory=200 << 20)
    outcome = run_function(function, arguments, tmp_path, case.memory, case.seconds)
    with pytest.raises(AssertionError, match=complaint):
        check(case, outcome)


@pytest.mark.parametrize("text", ["\x1b[2J", "\x07", "\u202egpj.exe", "x" * 2000])
def test_messages_that_steer_or_flood_a_terminal(text):
    with pytest.raises(AssertionError):
        check(Case("", lambda folder: []), Outcome(2, "", f"error: class {text}\n", 0))


def test_an_input_that_was_executed(tmp_path):
    def make(folder):
        (folder / "executed").touch()
        return ["--help"]

    with pytest.raises(AssertionError, match="was executed"):
        run_case(Case("", make, code=0), tmp_path)

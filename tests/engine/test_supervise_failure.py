import os
import pickle
from types import SimpleNamespace

import pytest
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from imgcls.engine.supervise import find_failure
from imgcls.errors import user_message


@pytest.fixture
def ended(tmp_path):
    """``ended(0, -9, (1, "traceback", 5))``: what is left of processes: exit codes, text and time of an exception."""

    def make(*ends):
        processes, files = [], []
        for index, end in enumerate(ends):
            code, trace, when = end if isinstance(end, tuple) else (end, "", 0)
            files.append(str(tmp_path / str(index)))
            processes.append(SimpleNamespace(exitcode=code, pid=100 + index))
            if trace:
                with open(files[-1], "wb") as file:
                    pickle.dump(trace, file)
                os.utime(files[-1], ns=(when, when))
        return SimpleNamespace(processes=processes, error_files=files)

    return make


def test_none_while_all_run_or_are_done(ended):
    assert find_failure(ended(0, None)) is None


@pytest.mark.parametrize(
    ("ends", "cause"),
    [
        ([(1, "connection lost", 5), -9], 1),
        ([(1, "connection lost", 6), (1, "the reason", 5), 0], 1),
        ([75, (1, "disk full", 7)], 1),
        ([75, -11], 1),
        ([0, 75], 1),
        # It raised, and was ended by us as it hung on its way out.
        ([75, (-9, "the reason", 5)], 1),
        ([0, (None, "the reason", 5)], 1),
    ],
)
def test_the_cause_among_several(ended, ends, cause):
    assert find_failure(ended(*ends)).index == cause


def test_a_signal_is_named(ended):
    with pytest.raises(ProcessExitedException, match=r"^rank 5 \(process 101\) was ended by SIGKILL; ") as raised:
        find_failure(ended(0, -9)).report(5, [])
    assert raised.value.exit_code == -9 and raised.value.signal_name == "SIGKILL"
    with pytest.raises(ProcessExitedException, match=r"was ended by signal 35$"):
        find_failure(ended(-35)).report(0, [])


def test_a_signal_that_was_handed_on_is_no_error(ended):
    with pytest.raises(SystemExit) as stop:
        find_failure(ended(-15, -15)).report(0, [15])
    assert stop.value.code == 128 + 15


def test_an_exception_comes_with_its_traceback(ended):
    with pytest.raises(ProcessRaisedException, match=r"rank 3 \(process 100\) failed:\n\nTraceback") as raised:
        find_failure(ended((1, "Traceback\nimgcls.errors.UserError: KEY is 3\n", 5))).report(3, [])
    assert user_message(raised.value) == "KEY is 3"


def test_an_exit_code_is_passed_on(ended, caplog):
    with pytest.raises(SystemExit) as stop:
        find_failure(ended(75, 75)).report(0, [])
    assert stop.value.code == 75 and "rank 0 (process 100) left with exit code 75" in caplog.text

"""Signals of a scheduler: exit code 75 at any time, before training at once and in training after a checkpoint."""

import os
import signal
import subprocess
import sys
import time

import pytest

from imgcls.engine.preempt import Preemption, leave_at_once

SIGNALS = [signal.SIGTERM, signal.SIGUSR1]


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_before_training_a_signal_leaves_at_once(number):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as left, leave_at_once():
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert left.value.code == 75 and signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_in_training_a_signal_is_remembered(number):
    with leave_at_once(), Preemption() as preemption:
        assert not preemption.requested()
        os.kill(os.getpid(), number)
        assert preemption.requested() and preemption.requested(check_other_ranks=False)


def test_after_training_signals_leave_at_once_again():
    with leave_at_once():
        handler = signal.getsignal(signal.SIGTERM)
        with Preemption():
            assert signal.getsignal(signal.SIGTERM) != handler
        assert signal.getsignal(signal.SIGTERM) is handler


SET_UP = """
import os, signal, sys
from imgcls.engine.launch import launch

def slow(args):
    os.kill(os.getpid(), int(args))  # while the data is read
    raise RuntimeError("not reached")

launch(slow, sys.argv[1], device="cpu")
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_that_is_preempted_during_set_up_ends_with_75(number):
    command = [sys.executable, "-W", "ignore", "-c", SET_UP, str(int(number))]
    assert subprocess.run(command, timeout=120, capture_output=True).returncode == 75

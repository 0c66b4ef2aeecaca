"""Waiting for spawned ranks: when one fails, the others are ended in bounded time and the first failure is reported.

torch elastic is not used. Its agent always ends with exit code 1, so that a preempted run would not end with 75 and
would not be requeued; and it does not forward SIGUSR1 and wait for the checkpoint.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess as Process
from types import FrameType
from typing import NoReturn

from torch.multiprocessing import ProcessContext, ProcessExitedException, ProcessRaisedException

from imgcls.engine.preempt import EXIT_CODE, SIGNALS

# Seconds that processes have to end by themselves after another one failed, and again after SIGTERM.
GRACE = 10.0

_logger = logging.getLogger(__name__)


class Failure:
    """A spawned process that failed, or exited early with a code of its own.

    Attributes:
        left: it ended on purpose, with an exit code and without an exception.
        weight: the failure with the smallest weight is the cause of the others.
    """

    def __init__(self, context: ProcessContext, index: int):
        self.index = index
        self._process = context.processes[index]
        self._code = self._process.exitcode
        self._file = context.error_files[index]
        raised = os.path.exists(self._file)
        killed = not raised and self._code < 0
        self.left = not raised and not killed
        # Ranks that lose their connection to a killed one raise. Of several exceptions the oldest counts.
        self.weight = (not killed, self.left, os.stat(self._file).st_mtime_ns if raised else 0)

    def report(self, rank: int, expected_signals: Collection[int]) -> NoReturn:
        """Ends this process with the failure.

        Args:
            rank: of the failed process.
            expected_signals: those that were forwarded. A process ended by one of them was preempted during start-up.

        Raises:
            ProcessRaisedException: the process raised an exception; the message ends with its traceback.
            ProcessExitedException: the process was ended by a signal.
            SystemExit: with its exit code, or ``EXIT_CODE`` where an expected signal ended it.
        """
        who, pid = f"rank {rank} (process {self._process.pid})", self._process.pid
        if self.left:
            _logger.warning("%s left with exit code %d", who, self._code)
            raise SystemExit(self._code)
        if self.weight[0]:
            with open(self._file, "rb") as file:
                trace = pickle.load(file)  # by torch.multiprocessing, in the process
            raise ProcessRaisedException(f"{who} failed:\n\n{trace}", self.index, pid)
        number = -self._code
        if number in expected_signals:
            raise SystemExit(EXIT_CODE)
        name = next((one.name for one in signal.Signals if one == number), f"signal {number}")
        hint = "; the kernel does that when memory runs out" if number == signal.SIGKILL else ""
        raise ProcessExitedException(f"{who} was ended by {name}{hint}", self.index, pid, self._code, name)


def find_failure(context: ProcessContext) -> Failure | None:
    """The failure that caused the others; None while there is none."""
    failures = [
        Failure(context, index)
        for index, process in enumerate(context.processes)
        if process.exitcode or os.path.exists(context.error_files[index])
    ]
    return min(failures, key=lambda failure: failure.weight, default=None)


def supervise(context: ProcessContext, first_rank: int = 0, patience: float = 600.0) -> None:
    """Returns when all processes have succeeded; when one fails, ends the others within a bounded time.

    SIGTERM and SIGUSR1 are forwarded to the processes.

    Args:
        context: of ``torch.multiprocessing.start_processes``.
        first_rank: the rank of the first process.
        patience: seconds that the others get, because they may still be saving, when a process exits on purpose (with
            an exit code and no exception). After a crash they get ``GRACE``.

    Raises:
        ProcessRaisedException, ProcessExitedException, SystemExit: as ``Failure.report``.
    """
    processes = context.processes
    with _forwarding(processes) as forwarded:
        try:
            while (alive := _alive(processes)) and find_failure(context) is None:
                # With a timeout, because a process may have raised an exception and then hang instead of exiting.
                wait([process.sentinel for process in alive], timeout=1.0)
            failure = find_failure(context)
            if failure is not None and failure.left:
                _join(processes, patience)
                failure = find_failure(context)  # a later crash takes precedence
            elif failure is not None:
                _join(processes, GRACE)
        finally:
            _end(processes)
    if failure is not None:
        failure.report(first_rank + failure.index, forwarded)


def end_with_parent() -> None:
    """Ends this process when its parent ends, because a parent that is killed cannot terminate its children."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "not a spawned process"

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def _forwarding(processes: list[Process]) -> Iterator[list[int]]:
    """Forwards signals to the processes, and yields the list of those that were forwarded."""
    forwarded = []

    def forward(number: int, frame: FrameType | None) -> None:
        forwarded.append(number)
        for process in processes:
            if process.exitcode is None and process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    if threading.current_thread() is not threading.main_thread():  # Python allows handlers in the main thread only
        yield forwarded
        return
    previous = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield forwarded
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _alive(processes: list[Process]) -> list[Process]:
    return [process for process in processes if process.exitcode is None]


def _join(processes: list[Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))


def _end(processes: list[Process]) -> None:
    """Ends what still runs by SIGTERM, then SIGKILL: a rank may only note SIGTERM, or be blocked by another rank."""
    for stop in (Process.terminate, Process.kill):
        for process in (alive := _alive(processes)):
            _logger.warning("process %d does not end by itself: %s", process.pid, stop.__name__)
            stop(process)
        _join(alive, GRACE)

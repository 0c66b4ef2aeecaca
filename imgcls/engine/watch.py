"""Waiting for processes that were spawned: whatever ends one of them ends the run, and says so."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess as Process
from types import FrameType

from torch.multiprocessing import ProcessContext

from .failure import find_failure

# Seconds in which processes end by themselves after another one failed, and then again after SIGTERM.
GRACE = 10.0
# What a scheduler sends before it takes the machine away.
FORWARDED = (signal.SIGTERM, signal.SIGUSR1)

_logger = logging.getLogger(__name__)


def watch(context: ProcessContext, first_rank: int = 0, patience: float = 600.0) -> None:
    """Returns when all processes have ended well; where one does not, ends the others within a bounded time.

    SIGTERM and SIGUSR1 are handed on to the processes while it waits.

    Args:
        first_rank: the rank of the first process.
        patience: seconds that the others have when a process leaves on purpose, with an exit code and no exception;
            they may still be saving. After a crash they have ``GRACE``.

    Raises:
        ProcessRaisedException, ProcessExitedException, SystemExit: as ``Failure.report``.
    """
    processes = context.processes
    with _forwarding(processes) as forwarded:
        try:
            while (alive := _alive(processes)) and find_failure(context) is None:
                # Not longer: a process may have raised and hang on its way out.
                wait([process.sentinel for process in alive], timeout=1.0)
            failure = find_failure(context)
            if failure is not None and failure.left:
                _join(processes, patience)
                failure = find_failure(context)  # what went wrong meanwhile counts more
            elif failure is not None:
                _join(processes, GRACE)
        finally:
            _end(processes)
    if failure is not None:
        failure.report(first_rank + failure.index, forwarded)


def end_with_parent() -> None:
    """Ends this process when the one that started it is gone: killed, it cannot end its processes itself."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def _forwarding(processes: list[Process]) -> Iterator[list[int]]:
    """Hands signals on to the processes, and lists them."""
    forwarded = []

    def forward(number: int, frame: FrameType | None) -> None:
        forwarded.append(number)
        for process in processes:
            if process.exitcode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    if threading.current_thread() is not threading.main_thread():  # Python allows handlers in the main thread only
        yield forwarded
        return
    previous = {number: signal.signal(number, forward) for number in FORWARDED}
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
    """Ends what still runs. SIGTERM may only be remembered, or never be seen by one that waits for the others."""
    for stop in (Process.terminate, Process.kill):
        for process in (alive := _alive(processes)):
            _logger.warning("process %d does not end by itself: %s", process.pid, stop.__name__)
            stop(process)
        _join(alive, GRACE)

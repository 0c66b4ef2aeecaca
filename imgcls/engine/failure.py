"""Why a run of several processes ended: the one of them that failed first, and how."""

import logging
import os
import pickle
import signal
from collections.abc import Collection
from typing import NoReturn

from torch.multiprocessing import ProcessContext, ProcessExitedException, ProcessRaisedException

_logger = logging.getLogger(__name__)


class Failure:
    """A spawned process that did not end well.

    Attributes:
        left: it ended on purpose, with an exit code and without an exception.
        weight: the smallest is the cause of the others.
    """

    def __init__(self, context: ProcessContext, index: int):
        self.index = index
        self._process = context.processes[index]
        self._code = self._process.exitcode
        self._file = context.error_files[index]
        raised = os.path.exists(self._file)
        killed = not raised and self._code < 0
        self.left = not raised and not killed
        # The others lose their connection to one that was killed, and raise. Of several exceptions the oldest counts.
        self.weight = (not killed, self.left, os.stat(self._file).st_mtime_ns if raised else 0)

    def report(self, rank: int, expected_signals: Collection[int]) -> NoReturn:
        """Raises what ends this process.

        Args:
            expected_signals: to die of one of these is no error.

        Raises:
            ProcessRaisedException: the process raised an exception; the message ends with its traceback.
            ProcessExitedException: the process was ended by a signal.
            SystemExit: it left with this code, or was ended by an expected signal (128 and its number, as in a shell).
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
            raise SystemExit(128 + number)
        name = next((one.name for one in signal.Signals if one == number), f"signal {number}")
        hint = "; the kernel does that when memory runs out" if number == signal.SIGKILL else ""
        raise ProcessExitedException(f"{who} was ended by {name}{hint}", self.index, pid, self._code, name)


def find_failure(context: ProcessContext) -> Failure | None:
    """The one that counts of those so far; None while there is none."""
    failures = [
        Failure(context, index)
        for index, process in enumerate(context.processes)
        if process.exitcode or os.path.exists(context.error_files[index])
    ]
    return min(failures, key=lambda failure: failure.weight, default=None)

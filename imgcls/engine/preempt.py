"""Preemption by a job scheduler: SIGTERM and SIGUSR1 end a run with a checkpoint and exit code 75."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, NoReturn

import torch
from detectron2.utils import comm
from torch import distributed

# EX_TEMPFAIL of sysexits.h: try again later.
EXIT_CODE = 75
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_logger = logging.getLogger(__name__)


@contextmanager
def leave_at_once() -> Iterator[None]:
    """During set-up, when there is nothing to save, SIGTERM and SIGUSR1 raise ``SystemExit`` with ``EXIT_CODE``.

    The scheduler then requeues a job that was preempted during set-up, too. Has no effect outside the main thread,
    where Python does not allow signal handlers.
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(EXIT_CODE)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, leave) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Preemption:
    """In a ``with`` block, only notes SIGTERM and SIGUSR1, so that the run can save a checkpoint before it exits."""

    def __init__(self) -> None:
        self._received = 0
        self._previous: dict[signal.Signals, signal._HANDLER] = {}
        # The ranks exchange a number on the CPU, which NCCL cannot do.
        self._group: Any = distributed.new_group(backend="gloo") if comm.get_world_size() > 1 else None

    def __enter__(self) -> "Preemption":
        # Python allows handlers in the main thread only; in any other thread the signal has its usual effect.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is SystemExit:  # the process is about to end, and another signal must not change its exit code
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def requested(self, check_other_ranks: bool = True) -> bool:
        """Whether any rank of the run has received a signal; all ranks get the same answer.

        With several ranks this is a collective operation; without ``check_other_ranks`` it is skipped and the answer
        is False.
        """
        received = self._received
        if self._group is not None:
            if not check_other_ranks:
                return False
            flag = torch.tensor([received])
            distributed.all_reduce(flag, distributed.ReduceOp.MAX, self._group)
            received = int(flag)
        if received:
            _logger.warning("%s: saving and leaving with exit code %d", signal.Signals(received).name, EXIT_CODE)
        return received > 0

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received = number

"""Leaving in order when the scheduler takes the machine away."""

import logging
import signal
import threading
from types import FrameType, TracebackType

import torch
from detectron2.utils import comm
from torch import distributed

# EX_TEMPFAIL of sysexits.h: try again later.
EXIT_CODE = 75
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_logger = logging.getLogger(__name__)


class Preemption:
    """As a context: SIGTERM and SIGUSR1 no longer end the process, they are remembered until it is convenient."""

    def __init__(self) -> None:
        self._received = 0
        self._previous: dict[int, object] = {}
        # Flags are numbers on the CPU, whatever the gradients are sent by.
        self._group = distributed.new_group(backend="gloo") if comm.get_world_size() > 1 else None

    def __enter__(self) -> "Preemption":
        # Python allows handlers in the main thread only; a run in another one just ends, as it would have.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is SystemExit:  # the process is about to end, and the scheduler's next signal must not change how
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def requested(self) -> bool:
        """Whether any process of the run was told to leave; the same answer on all of them, which all must ask."""
        received = self._received
        if self._group is not None:
            flag = torch.tensor([received])
            distributed.all_reduce(flag, distributed.ReduceOp.MAX, self._group)
            received = int(flag)
        if received:
            _logger.warning("%s: saving and leaving with exit code %d", signal.Signals(received).name, EXIT_CODE)
        return received > 0

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received = number

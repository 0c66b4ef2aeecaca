"""The moments at which a training process is killed, and how it comes to die at exactly that one.

A fault lives in the process that it hits: a function that is called at the moment is replaced by one that kills the
process. Only ``RANDOM`` comes from outside.
"""

import io
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any

import torch
from detectron2.utils.events import JSONWriter

from imgcls.checkpoint import checkpointer as run_checkpointer
from imgcls.engine.step import TrainStep
from imgcls.evaluation.gathered import GatheredEvaluator

RANDOM = "at a random moment"


@dataclass(frozen=True)
class Fault:
    """What happens to a process, and when.

    Attributes:
        moment: ``RANDOM`` or a key of ``MOMENTS``.
        count: it is the ``count``-th such moment since the process was started.
        seconds: for ``RANDOM``, since the process was started; of several processes, since they are training.
        share: of a file that is being written, what has reached the disk.
    """

    moment: str
    count: int = 1
    seconds: float = 0.0
    share: float = 0.5

    def arm(self) -> None:
        """Called in the process, before it trains."""
        if self.moment != RANDOM:
            MOMENTS[self.moment](self)

    def __str__(self) -> str:
        return self.moment if self.moment == RANDOM else f"{self.moment} ({self.count})"


def draw(moment: str, random: Random, seconds: float) -> Fault:
    """A fault in the near future, and ``RANDOM`` within the seconds that the whole run takes."""
    return Fault(moment, random.randint(1, _SOON.get(moment, 2)), random.uniform(0, seconds), random.random())


def before(owner: Any, name: str, number: int, action: Callable[..., None]) -> None:
    """Has ``action`` called before the ``number``-th call of a function, with the same arguments."""
    real, calls = getattr(owner, name), count(1)

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            action(*args, **kwargs)
        return real(*args, **kwargs)

    setattr(owner, name, call)


def _die(*args: Any, **kwargs: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_a_border(fault: Fault) -> None:
    before(TrainStep, "__call__", fault.count, _die)


def _in_a_checkpoint(fault: Fault) -> None:
    real = torch.save

    def write_a_part(checkpoint: Any, file: Any) -> None:
        whole = io.BytesIO()
        real(checkpoint, whole)
        file.write(whole.getvalue()[: int(fault.share * whole.tell())])
        file.flush()
        _die()

    def break_torch(*args: Any) -> None:
        torch.save = write_a_part

    before(run_checkpointer, "write_checkpoint", fault.count, break_torch)


def _before_the_tag(fault: Fault) -> None:
    before(run_checkpointer.RunCheckpointer, "tag_last_checkpoint", fault.count, _die)


def _before_old_ones_go(fault: Fault) -> None:
    before(run_checkpointer, "remove_old", fault.count, _die)


def _before_the_link(fault: Fault) -> None:
    before(os, "link", fault.count, _die)


def _in_evaluation(fault: Fault) -> None:
    before(GatheredEvaluator, "process", fault.count, _die)


class _HalfFile:
    """Takes half of what is written, and kills."""

    def __init__(self, file: Any):
        self.file = file

    def write(self, text: str) -> None:
        self.file.write(text[: len(text) // 2])
        self.file.flush()
        _die()


def _in_metrics(fault: Fault) -> None:
    def break_file(writer: JSONWriter) -> None:
        writer._file_handle = _HalfFile(writer._file_handle)

    before(JSONWriter, "write", fault.count, break_file)


def _in_a_loader_worker(fault: Fault) -> None:
    before(TrainStep, "__call__", fault.count, lambda *args: multiprocessing.active_children()[0].kill())


def _sent(number: signal.Signals) -> Callable[[Fault], None]:
    return lambda fault: before(TrainStep, "__call__", fault.count, lambda *args: os.kill(os.getpid(), number))


KILLS: dict[str, Callable[[Fault], None]] = {
    "at an iteration border": _at_a_border,
    "in a checkpoint's file": _in_a_checkpoint,
    "between a checkpoint and last_checkpoint": _before_the_tag,
    "between last_checkpoint and the removal of old ones": _before_old_ones_go,
    "in evaluation": _in_evaluation,
    "in a line of metrics.json": _in_metrics,
}
MOMENTS = KILLS | {
    "between last_checkpoint and checkpoint.pth": _before_the_link,
    "a loader worker is killed": _in_a_loader_worker,
    "SIGTERM": _sent(signal.SIGTERM),
    "SIGUSR1": _sent(signal.SIGUSR1),
}
# Only rank 0 writes.
OF_RANK_0 = MOMENTS.keys() - {"at an iteration border", "in evaluation", "SIGTERM", "SIGUSR1"}
# How many of them a run has is how many it may be let pass.
_SOON = {"at an iteration border": 8, "in evaluation": 10}


@dataclass(frozen=True)
class Sabotage:
    """A resume that leaves something out: the comparison must notice.

    Attributes:
        owner: of the method that then does nothing.
        method: its name.
    """

    owner: type
    method: str

    def arm(self) -> None:
        """Called in the process, before it trains."""
        setattr(self.owner, self.method, lambda *args, **kwargs: None)

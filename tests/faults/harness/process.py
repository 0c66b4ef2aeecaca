"""Training processes that start in tenths of a second: forks of a process that has imported everything.

Each runs an entry script with its command line, as ``python train_net.py ...`` does.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch

from imgcls.engine.step import TrainStep

from .faults import Fault, before

ROOT = Path(__file__).parents[3]

_context = multiprocessing.get_context("forkserver")
# Beside the engine what is only imported when it is used.
_context.set_forkserver_preload(
    ["imgcls.engine", "imgcls.engine.launch", "torch._dynamo", "torch.utils.cpp_extension", "torch.utils.tensorboard"]
)
# An exit code can be read once, and starting a process reads those of all others: not for two threads at a time.
_lock = threading.Lock()


class Attempt:
    """One start of a run.

    Args:
        script: an entry script.
        arguments: its command line.
        log: the file that stdout and stderr of all its processes are added to.
        ranks: how many processes; more than one are started as torchrun does.
        faults: what befalls which rank.
    """

    def __init__(
        self,
        script: str,
        arguments: Sequence[str],
        log: Path,
        ranks: int = 1,
        faults: Mapping[int, Fault] | None = None,
    ):
        _warm_up()
        self.log = log
        self.training = _context.Event()
        port = _free_port()
        self.processes = []
        for rank in range(ranks):
            task = (script, list(arguments), log, _as_torchrun(rank, ranks, port), (faults or {}).get(rank))
            self.processes.append(_context.Process(target=_run, args=(*task, self.training)))
        self.started = time.monotonic()
        with _lock:
            for process in self.processes:
                process.start()

    def send(self, number: int, rank: int = 0) -> None:
        """Sends a signal to one process, if it is still there."""
        if self._exit_code(rank) is None:
            with suppress(ProcessLookupError):
                os.kill(self.processes[rank].pid, number)

    def kill(self, rank: int = 0, after: float = 0.0) -> None:
        """Kills one process after some seconds, if it is still there."""
        connection.wait([self.processes[rank].sentinel], after)
        self.send(signal.SIGKILL, rank)

    def wait(self, seconds: float = 120.0, ranks: Sequence[int] | None = None) -> list[int]:
        """The exit codes of some or all processes, once they have ended by themselves.

        Raises:
            TimeoutError: they have not; all are killed.
        """
        deadline = time.monotonic() + seconds
        ranks = range(len(self.processes)) if ranks is None else ranks
        for rank in ranks:
            if not connection.wait([self.processes[rank].sentinel], max(0.0, deadline - time.monotonic())):
                self.end()
                raise TimeoutError(f"not ended after {seconds} s:\n{self.said()}")
        return [self._exit_code(rank) for rank in ranks]

    def end(self) -> None:
        """Kills what is left of it."""
        for rank in range(len(self.processes)):
            self.kill(rank)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def _exit_code(self, rank: int) -> int | None:
        with _lock:
            return self.processes[rank].exitcode


@cache
def _warm_up() -> None:
    """Waits for the imports, which are no part of any run."""
    with _lock:
        process = _context.Process(target=int)
        process.start()
        process.join()


def _run(
    script: str, arguments: list[str], log: Path, env: Mapping[str, str], fault: Fault | None, training: Any
) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.setpgid(0, 0)  # a group of its own, as a shell's or a scheduler's job has
    os.environ.update(env)
    multiprocessing.set_start_method(None, force=True)  # loader workers start as they do in a shell's process
    torch.set_num_threads(1)
    before(TrainStep, "__call__", 1, lambda *args: training.set())
    if fault is not None:
        fault.arm()
    sys.argv = [script, *arguments]
    runpy.run_path(str(ROOT / script), run_name="__main__")


def _as_torchrun(rank: int, ranks: int, port: int) -> dict[str, str]:
    if ranks == 1:
        return {}
    place = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]

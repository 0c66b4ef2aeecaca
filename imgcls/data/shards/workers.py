"""Processes that write shards: they count for the progress bar, stop when told, and end with their parent."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cv2
import torch
from tqdm import tqdm

from imgcls.errors import UserError

_POLL_S = 0.2


class _StoppedError(Exception):
    """Raised in a worker whose work is no longer wanted."""


def run_jobs(
    job: Callable[..., Any], arguments: Iterable[tuple], processes: int, total: int, done: int = 0, unit: str = "img"
) -> Iterator[Any]:
    """Calls ``job(*arguments, step)`` in processes and gives the results as they come.

    Only a few jobs are handed out at a time, so that memory does not grow with their number. The first exception of a
    job stops all others.

    Args:
        job: calls ``step()`` after each image; a function at the top of a module.
        arguments: of each call.
        processes: how many.
        total: images, for the progress bar, which is shown on a terminal only.
        done: images of earlier runs.
        unit: what the bar counts.

    Raises:
        UserError: a process was killed, or what a job raises.
    """
    counter, stop = multiprocessing.Value("q", 0), multiprocessing.Event()
    waiting = iter(arguments)
    running: set[Future] = set()
    with (
        ProcessPoolExecutor(processes, initializer=_init, initargs=(counter, stop)) as pool,
        tqdm(total=total, initial=done, unit=unit, disable=None) as bar,
    ):
        try:
            while True:
                while len(running) < 2 * processes and (one := next(waiting, None)) is not None:
                    running.add(pool.submit(_call, job, one))
                if not running:
                    break
                finished, running = wait(running, _POLL_S, FIRST_COMPLETED)
                bar.update(done + counter.value - bar.n)
                for future in finished:
                    yield future.result()
        except BrokenProcessPool:
            raise UserError(
                "a packing process was killed, perhaps because memory ran out; fewer processes (-j) need less, and the "
                "same command goes on where this one stopped"
            ) from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


_counter: Any = None
_stop: Any = None


def _init(counter: Any, stop: Any) -> None:
    global _counter, _stop
    _counter, _stop = counter, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """A parent that was killed cannot say so, and its workers would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(job: Callable[..., Any], arguments: tuple) -> Any:
    return job(*arguments, _step)


def _step() -> None:
    if _stop.is_set():
        raise _StoppedError
    with _counter.get_lock():
        _counter.value += 1

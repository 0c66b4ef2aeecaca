"""Worker processes that pack or verify shards: they report progress, stop on request, and exit with their parent."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, cast

import cv2
import torch
from tqdm import tqdm

from imgcls.errors import UserError


class _StoppedError(Exception):
    """Raised in a worker whose job is no longer wanted."""


def run_jobs(
    job: Callable[..., Any], arguments: Iterable[tuple], processes: int, total: int, done: int = 0
) -> Iterator[Any]:
    """Calls ``job(*arguments, step)`` in worker processes and yields the results in the order of completion.

    A worker gets its next arguments when it has finished a job, so memory does not grow with the number of jobs. The
    first exception of a job stops all workers.

    Args:
        job: a module-level function; calls ``step()`` after each image.
        arguments: those of each call.
        processes: number of workers.
        total: number of images, for the progress bar, which appears on a terminal only.
        done: images finished by earlier runs.

    Raises:
        UserError: a worker was killed.
        Exception: whatever a job raises.
    """
    waiting = iter(arguments)
    workers: dict[Connection, multiprocessing.Process] = {}
    busy: list[Connection] = []
    with tqdm(total=total, initial=done, unit="img", disable=None) as bar:
        try:
            while True:
                while len(busy) < processes and (one := next(waiting, None)) is not None:
                    idle = next((connection for connection in workers if connection not in busy), None)
                    connection = idle or _start(job, workers)
                    connection.send(one)
                    busy.append(connection)
                if not busy:
                    return
                for connection in cast(list[Connection], wait(busy)):
                    message = connection.recv()
                    if message is None:
                        bar.update()
                        continue
                    busy.remove(connection)
                    result, error = message
                    if error is not None:
                        raise error
                    yield result
        except (EOFError, ConnectionError):
            raise UserError(
                "a worker process was killed, perhaps because memory ran out; fewer processes (-j) need less, and "
                "packing resumes where it stopped if you run the command again"
            ) from None
        finally:
            _stop(workers)


def _start(job: Callable[..., Any], workers: dict[Connection, multiprocessing.Process]) -> Connection:
    connection, remote = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_work, args=(job, remote))
    process.start()
    remote.close()  # so that a worker's death ends the connection
    workers[connection] = process
    return connection


def _stop(workers: dict[Connection, multiprocessing.Process]) -> None:
    for connection in workers:
        with suppress(OSError):  # it was killed
            connection.send(None)
    for connection, process in workers.items():
        with suppress(EOFError, OSError):
            while True:  # a worker may be waiting for its last messages to be read
                connection.recv_bytes()
        process.join()
        connection.close()


def _work(job: Callable[..., Any], connection: Connection) -> None:
    """Runs in a worker: receives arguments, or None to stop; sends None for each image, then (result, error)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells its workers to stop
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)

    def step() -> None:
        if connection.poll():  # during a job, the only message is the request to stop
            raise _StoppedError
        connection.send(None)

    answer: tuple[Any, Exception | None]
    while (arguments := connection.recv()) is not None:
        try:
            answer = (job(*arguments, step), None)
        except _StoppedError:
            return
        except Exception as error:
            if not isinstance(error, UserError):
                traceback.print_exc()  # sending the exception loses it
            answer = (None, error)
        connection.send(answer)


def _exit_with_parent() -> None:
    """Ends a worker whose parent was killed; it would otherwise wait for jobs forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)

"""One command of imgcls in a forked process, whose memory and time are limited and measured."""

import io
import multiprocessing
import os
import resource
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEMORY = 1 << 30  # bytes that a command may use on top of its imports
SECONDS = 60
_PRELOAD = ["imgcls.__main__", "imgcls.cli.train", "imgcls.cli.predict", "imgcls.checkpoint", "cv2"]


@dataclass(frozen=True)
class Outcome:
    """How a process ended: ``code`` is None if it was still running after the time limit."""

    code: int | None
    out: str
    err: str
    memory: int  # bytes on top of what the process had when it was forked


def run_command(argv: Sequence[object], folder: Path, memory: int = MEMORY, seconds: float = SECONDS) -> Outcome:
    """Runs ``imgcls`` with ``argv`` in ``folder``."""
    return run_function(_main, ([str(argument) for argument in argv],), folder, memory, seconds)


def run_function(
    function: Callable[..., Any], arguments: Sequence[Any], folder: Path, memory: int = MEMORY, seconds: float = SECONDS
) -> Outcome:
    """Calls a function that can be pickled; an exception leaves its traceback in ``err``, and code 1."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    streams = folder / ".stdout", folder / ".stderr"
    used = folder / ".memory"
    process = context.Process(
        target=_child, args=(function, arguments, str(folder), memory, *map(str, streams), str(used))
    )
    process.start()
    process.join(seconds)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    out, err = (stream.read_text("utf-8", "surrogateescape") if stream.exists() else "" for stream in streams)
    peak = int(used.read_text()) if used.exists() else 0
    for file in (*streams, used):
        file.unlink(missing_ok=True)
    return Outcome(code, out, err, peak)


def _main(argv: list[str]) -> int:
    from imgcls.__main__ import main

    sys.argv = ["imgcls", *argv]
    return main(argv)


def _child(
    function: Callable[..., Any], arguments: Sequence[Any], folder: str, memory: int, out: str, err: str, used: str
) -> None:
    os.chdir(folder)
    for descriptor, path in ((1, out), (2, err)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin = io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmHWM")
    # Libraries reserve address space that they never use: the limit has room for it, the measured peak does not.
    limit = _status("VmSize") + memory + (2 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code = 0
    try:
        code = function(*arguments) or 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        Path(used).write_text(str(_status("VmHWM") - before))
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))

"""The folder of a run: which of its checkpoints to resume from, which to remove, and the lock against a second run."""

import errno
import fcntl
import logging
import os
import re
import socket
import zipfile
from contextlib import suppress
from types import TracebackType

import yaml

from imgcls.checkpoint.files import read_checkpoint
from imgcls.errors import UserError, UserFileNotFoundError

TAG = "last_checkpoint"  # detectron2's file that contains the name of the last checkpoint
LOCK = ".lock"
_NUMBERED = re.compile(r"model_(\d+)\.pth")  # by iteration
_logger = logging.getLogger(__name__)


class RunLock:
    """The lock of a run's folder; released by `release`, at the end of a ``with`` block, or when the process ends.

    ``descriptor`` is an open file that this process has locked, or None where the file system cannot lock.
    """

    def __init__(self, descriptor: int | None):
        self._descriptor = descriptor

    def release(self) -> None:
        """Releases the lock; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def lock_run_folder(folder: str) -> RunLock:
    """Locks ``.lock`` in an existing folder against a second run. Only the main process of a run may call this.

    A POSIX record lock belongs to this process alone: the system releases it even when the process is killed, and
    forked or spawned children do not inherit it. A second call in the same process succeeds. Where the file system
    cannot lock, a warning is logged and the run continues without a lock.

    Raises:
        UserError: another process holds the lock, or the file cannot be created.
    """
    path = os.path.join(folder, LOCK)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {folder}: cannot write {path} ({error.strerror}); name another folder") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise UserError(
                f"OUTPUT_DIR {folder} is in use by another run{f' ({holder})' if holder else ''}; "
                "wait until it ends, or set OUTPUT_DIR to another folder"
            ) from None
        _logger.warning(
            "%s cannot be locked (%s); make sure that no other run has this OUTPUT_DIR", path, error.strerror
        )
        return RunLock(None)
    with suppress(OSError):  # the disk may be full, and this text is only for the message above
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return RunLock(descriptor)


def read_tag(folder: str) -> str:
    """Returns the path that ``last_checkpoint`` names, which may not exist, or ``""`` if it names none."""
    try:
        with open(os.path.join(folder, TAG), errors="replace") as file:
            name = file.read().strip()
    except FileNotFoundError:
        return ""
    return os.path.join(folder, name) if name else ""


def list_numbered(folder: str, below: str = "") -> list[str]:
    """Lists the numbered checkpoints, newest first; with ``below``, only those before the one of that file name."""
    limit = _NUMBERED.fullmatch(below)
    names = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    found = {int(match[1]): match[0] for match in map(_NUMBERED.fullmatch, names) if match}
    kept = sorted((number for number in found if not limit or number < int(limit[1])), reverse=True)
    return [os.path.join(folder, found[number]) for number in kept]


def check_resume_path(path: str) -> None:
    """Refuses a checkpoint, or a folder of checkpoints, that does not exist."""
    if not os.path.exists(path):
        raise UserFileNotFoundError(f"--resume {path}: no such checkpoint, and no such folder of checkpoints")


def find_newest(folder: str) -> str:
    """Returns the newest readable checkpoint of a folder, or ``""`` if it has no checkpoint.

    This is the one that ``last_checkpoint`` names or, if that is damaged, the newest before it. Without a
    ``last_checkpoint``, as after a kill during the first save, it is the readable one with the highest number.

    Raises:
        UserFileNotFoundError: ``last_checkpoint`` names a file that does not exist.
        UserError: there are checkpoints, but none can be read.
    """
    tagged = read_tag(folder)
    if not tagged:
        numbered = list_numbered(folder)
        return _first_readable(numbered, [f"{os.path.join(folder, TAG)} names no checkpoint"]) if numbered else ""
    if not os.path.isfile(tagged):
        raise UserFileNotFoundError(
            f"--resume: {os.path.join(folder, TAG)} names {tagged}, which does not exist; "
            "write the name of an existing checkpoint into it"
        )
    return find_readable(tagged)


def find_readable(path: str) -> str:
    """Returns ``path`` or, if it is damaged, the newest readable checkpoint before it; a ``UserError`` if none is."""
    damage = find_damage(path)
    if not damage:
        return path
    folder, name = os.path.split(path)
    return _first_readable(list_numbered(folder, below=name), [damage])


def find_damage(path: str) -> str:
    """Returns why a checkpoint cannot be read, or ``""``; checks the checksums of the file, which torch does not."""
    try:
        read_checkpoint(path, mapped=True)
    except UserError as error:
        return str(error)
    if not zipfile.is_zipfile(path):  # torch before 1.6 wrote no checksums; the file was just read completely
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except Exception as error:  # a damaged field can lead to UnicodeDecodeError, NotImplementedError, ...
        return f"{path} is damaged ({error})"
    return f"{path} is damaged (wrong checksum of {record})" if record else ""


def remove_old(path: str, keep: int) -> None:
    """Removes all but the newest ``keep`` of the numbered checkpoints up to ``path``.

    The one that ``last_checkpoint`` names stays, and so do those with higher numbers: they may come from an earlier,
    longer run in the same folder.
    """
    folder, name = os.path.split(path)
    if not _NUMBERED.fullmatch(name):
        return
    last = read_tag(folder)
    for old in list_numbered(folder, below=name)[max(keep - 1, 0) :]:
        if old != last:
            try:
                os.unlink(old)
            except OSError as error:
                _logger.warning("%s: this old checkpoint cannot be removed (%s)", old, error.strerror)


def saved_seed(path: str) -> int:
    """Returns the ``SEED`` saved in a checkpoint, or in the newest one of a folder; -1 if there is none.

    Raises the same errors as ``find_newest``.
    """
    found = find_readable(path) if os.path.isfile(path) else find_newest(path)
    info = read_checkpoint(found, mapped=True).get("imgcls") if found else None
    cfg = yaml.safe_load(info.get("cfg", "")) if info else None
    return (cfg or {}).get("SEED", -1)


def _first_readable(paths: list[str], problems: list[str]) -> str:
    for path in paths:
        damage = find_damage(path)
        if not damage:
            _logger.warning("%s; resuming from %s, the newest readable checkpoint", "; ".join(problems), path)
            return path
        problems.append(damage)
    raise UserError(
        f"--resume: no checkpoint can be read: {'; '.join(problems)}; leave --resume out to start from the beginning"
    )

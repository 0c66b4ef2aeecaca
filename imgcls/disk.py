"""What it takes until a file is on the disk."""

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TextIO

from imgcls.errors import UserError, UserFileNotFoundError


def sync_folder(folder: str) -> None:
    """Makes a rename last: a file's own ``fsync`` says nothing of its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot, and have renamed all the same
            raise
    finally:
        os.close(descriptor)


# The temporary names of replace_file, for what a run writes.
_TEMPORARY = re.compile(r"(?:.+\.pth|last_checkpoint)\.(\d+)\.tmp")


def replace_file(path: str, write: Callable[[BinaryIO], None], advice: str) -> None:
    """Writes under a temporary name in the same folder, then renames, with all of it on the disk before and after.

    Args:
        path: the file; what it held is lost only when the new content is complete.
        write: writes the content.
        advice: what the user can do when that fails, for the message.

    Raises:
        ValueError: the file cannot be written.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(os.path.dirname(path) or ".")
    # On a full disk torch.save raises an OSError or, in its place, a RuntimeError about its position in the file.
    except (OSError, RuntimeError) as error:
        cause = _find_os_error(error)
        if cause is None:
            raise
        raise UserError(f"{path}: cannot be written ({cause.strerror or cause}); {advice}") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def remove_temporary(folder: str) -> None:
    """Removes what killed processes left of ``replace_file``; a process that lives is perhaps still writing."""
    for name in os.listdir(folder):
        match = _TEMPORARY.fullmatch(name)
        if match and (int(match[1]) == os.getpid() or not _is_alive(int(match[1]))):
            with suppress(OSError):  # no reason to end a run
                os.unlink(os.path.join(folder, name))


def _find_os_error(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:  # another user's
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def datasets_root() -> Path:
    """The folder of ``DETECTRON2_DATASETS``, read now and not at import."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()


def read_text(path: str) -> str:
    """A UTF-8 file, with or without a byte order mark.

    Raises:
        UserError: there is no such file, it cannot be read, or it is not UTF-8.
    """
    with open_text(path) as file:
        return file.read()


@contextmanager
def open_text(path: str) -> Iterator[TextIO]:
    """A UTF-8 file, with or without a byte order mark, to be read piece by piece.

    Raises:
        UserError: as `read_text`; whatever is read inside the ``with`` is covered.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            try:
                yield file
            except UnicodeDecodeError as error:  # its position counts from the piece that was being decoded
                byte = file.buffer.tell() - len(error.object) + error.start
                raise UserError(f"{path}: not UTF-8 text (byte {byte}); save the file as UTF-8") from None
    except FileNotFoundError:
        raise UserFileNotFoundError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def write_text(path: Path, text: str) -> None:
    """Replaces a file in one step, so that nobody reads half of it.

    Raises:
        UserError: the folder cannot be made or written.
    """
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8", newline="\n")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); name a folder that you can write"
        ) from error


def write_once(name: str, write: Callable[[Path], None]) -> Path:
    """The folder ``DETECTRON2_DATASETS/imgcls/<name>``, written by ``write`` if it is not there yet.

    However many processes write at once and wherever one is killed, a folder of that name is complete.

    Raises:
        UserError: the folder cannot be written.
    """
    target = datasets_root() / "imgcls" / name
    if not target.is_dir():
        write_folder(target, write, "set DETECTRON2_DATASETS to a folder that you can write")
    return target


def write_folder(target: Path, write: Callable[[Path], None], advice: str, replace: bool = False) -> None:
    """Lets ``write`` fill a temporary folder beside ``target``, which then takes that name in one step.

    Args:
        target: not there yet, or an empty folder; with ``replace`` also a filled one.
        write: gets the temporary folder.
        advice: ends the message when the folder cannot be written.
        replace: removes a ``target`` that is there, once ``write`` is through.

    Raises:
        UserError: the folder cannot be written.
    """
    temporary = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    old = temporary.with_name(f"{temporary.name}-old")
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        if replace and target.is_dir():
            target.rename(old)
        _take_name(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error}); {advice}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_name(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        # A filled folder: another process was first, and what it wrote is as good as ours.
        if not target.is_dir() or not any(target.iterdir()):
            raise


class NewFile:
    """A file that takes its name when it is complete; usable as a context and as the stream of a tar writer.

    Args:
        path: the name to take.
        folder: for the temporary file, on the same file system.
    """

    def __init__(self, path: str, folder: str):
        self.path = path
        self.temporary = os.path.join(folder, f"{os.path.basename(path)}.{os.getpid()}.tmp")
        self.size = 0
        self._hash = hashlib.sha256()
        self._file = open(self.temporary, "wb")  # noqa: SIM115, closed in __exit__

    @property
    def sha256(self) -> str:
        """Of what was written up to now, in hex."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._file.write(data)

    def __enter__(self) -> "NewFile":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._file:
            if error is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        if error is not None:
            os.unlink(self.temporary)
            return
        os.replace(self.temporary, self.path)
        sync_folder(os.path.dirname(self.path) or ".")


def write_file(path: str, data: bytes, folder: str) -> None:
    """Writes a file that is there whole or not at all; ``folder`` as for `NewFile`."""
    with NewFile(path, folder) as file:
        file.write(data)

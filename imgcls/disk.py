"""Files and folders: text is read with clear errors, and whatever is written is complete or absent.

Everything is written under a temporary name, flushed to the disk, and then renamed. A process that is killed at any
moment leaves the previous content in place, and at most a file or folder with a temporary name.
"""

import errno
import hashlib
import io
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from imgcls.errors import UserError, UserFileNotFoundError

_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}\.tmp")  # as _temporary_name makes them
_ADVICE = "name a folder that you can write"


def datasets_root() -> Path:
    """The folder that ``DETECTRON2_DATASETS`` names at the time of the call, or ``datasets``."""
    return Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()


def file_digest(path: str) -> str:
    """The SHA-256 of a file, as hexadecimal text."""
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_text(path: str) -> str:
    """Reads a UTF-8 file with or without a byte order mark.

    Raises:
        UserError: the file does not exist, cannot be read, or is not UTF-8.
    """
    with open_text(path) as file:
        return file.read()


@contextmanager
def open_text(path: str) -> Iterator[TextIO]:
    """Opens a UTF-8 file with or without a byte order mark, for reading it in pieces.

    Raises:
        UserError: as `read_text`; this includes errors raised while reading inside the ``with`` block.
    """
    try:
        with open(path, "rb") as binary:
            try:
                yield io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
            except UnicodeDecodeError as error:  # error.start is relative to the chunk being decoded
                byte = binary.tell() - len(error.object) + error.start
                raise UserError(f"{path}: not UTF-8 text (byte {byte}); save the file as UTF-8") from None
    except FileNotFoundError:
        raise UserFileNotFoundError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


@contextmanager
def new_file(path: str | Path, folder: str = "") -> Iterator[BinaryIO]:
    """Opens a temporary binary file that replaces ``path`` when the ``with`` block ends without an error.

    Args:
        path: the file to write.
        folder: holds the temporary file, on the same file system; by default the folder of ``path``.

    Raises:
        OSError: the file cannot be written; use `replace_file` to report this to the user.
    """
    temporary = _temporary_name(path, folder)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(os.path.dirname(path) or ".")
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def write_file(path: str | Path, data: bytes, folder: str = "") -> None:
    """Replaces ``path`` by ``data``; arguments and errors as `new_file`."""
    with new_file(path, folder) as file:
        file.write(data)


@contextmanager
def replace_file(path: str | Path, advice: str = _ADVICE) -> Iterator[BinaryIO]:
    """As `new_file`, but raises a `UserError` that ends with ``advice`` when the file cannot be written."""
    with _explain_failure(path, advice), new_file(path) as file:
        yield file


def write_text(path: str | Path, text: str, advice: str = _ADVICE) -> None:
    """Replaces ``path`` by UTF-8 text, and creates missing folders.

    Surrogates, which stand for the undecodable bytes of a file name, are written as those bytes.

    Raises:
        UserError: the file cannot be written; ``advice`` ends the message.
    """
    with _explain_failure(path, advice):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        write_file(path, text.encode("utf-8", errors="surrogateescape"))


@contextmanager
def replace_files(path: str | Path, advice: str = _ADVICE) -> Iterator[Path]:
    """Yields a path of the same name in a temporary folder; when the block ends, all files there replace those beside.

    They are moved in the order of their names, each of them whole. For formats of several files, and for writers that
    need the right suffix.

    Raises:
        UserError: the files cannot be written; ``advice`` ends the message.
    """
    target, temporary = Path(path), Path(_temporary_name(path))
    try:
        with _explain_failure(path, advice):
            temporary.mkdir()
            yield temporary / target.name
            for file in sorted(temporary.iterdir()):
                with open(file, "rb") as stream:
                    os.fsync(stream.fileno())
                os.replace(file, target.parent / file.name)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_folder(target: Path, write: Callable[[Path], None], advice: str = _ADVICE, replace: bool = False) -> None:
    """Lets ``write`` fill a temporary folder and renames it to ``target``, unless another process did so meanwhile.

    Args:
        target: missing or empty; with ``replace`` it may be filled.
        write: gets the temporary folder.
        advice: what the user can do when the folder cannot be written; it ends the message.
        replace: removes an existing ``target`` after ``write`` has succeeded.

    Raises:
        UserError: the folder cannot be written.
    """
    temporary, old = (Path(_temporary_name(target)) for _ in range(2))
    try:
        with _explain_failure(target, advice):
            temporary.mkdir(parents=True)
            write(temporary)
            os.sync()  # one call for all files: fsync takes about 5 ms for each, which is minutes for an image set
            if replace and target.is_dir():
                target.rename(old)
            try:
                temporary.rename(target)
            except OSError:
                if not target.is_dir() or not any(target.iterdir()):
                    raise
            sync_folder(target.parent)
    finally:
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def write_once(name: str, write: Callable[[Path], None]) -> Path:
    """Returns the folder ``DETECTRON2_DATASETS/imgcls/<name>``; if it does not exist, ``write`` fills it first.

    Several processes may call this at the same time.

    Raises:
        UserError: the folder cannot be written.
    """
    target = datasets_root() / "imgcls" / name
    if not target.is_dir():
        write_folder(target, write, "set DETECTRON2_DATASETS to a folder that you can write")
    return target


def sync_folder(folder: str | Path) -> None:
    """Flushes a folder to the disk: the ``fsync`` of a file does not cover its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync folders; the rename has succeeded
            raise
    finally:
        os.close(descriptor)


def remove_temporary(folder: str | Path) -> None:
    """Removes temporary files that killed processes left in a folder; those of other live processes stay."""
    for name in os.listdir(folder):
        match = _TEMPORARY.fullmatch(name)
        if match and (int(match[1]) == os.getpid() or not _is_alive(int(match[1]))):
            with suppress(OSError):
                os.unlink(os.path.join(folder, name))


def _temporary_name(path: str | Path, folder: str = "") -> str:
    where, name = os.path.split(path)
    return os.path.join(folder or where, f".{name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")


@contextmanager
def _explain_failure(path: str | Path, advice: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    # On a full disk torch.save raises an OSError or, in its place, a RuntimeError about its position in the file.
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is None:
            raise
        raise UserError(f"{path}: cannot be written ({cause.strerror or cause}); {advice}") from error


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:  # it belongs to another user
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True

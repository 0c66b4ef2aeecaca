"""Text in, text and generated picture sets out: whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from imgcls.errors import UserError, UserFileNotFoundError


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

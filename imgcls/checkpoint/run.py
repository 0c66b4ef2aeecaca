"""The checkpoints in a run's folder: which one it goes on from, and which may go."""

import logging
import os
import re
import zipfile

import yaml

from imgcls.checkpoint.files import read_checkpoint
from imgcls.errors import UserError, UserFileNotFoundError

TAG = "last_checkpoint"  # detectron2's: a file with the name of the last checkpoint in it
_NUMBERED = re.compile(r"model_(\d+)\.pth")  # by iteration
_logger = logging.getLogger(__name__)


def read_tag(folder: str) -> str:
    """The checkpoint that ``last_checkpoint`` names, whether it is there or not; ``""`` where nothing is named."""
    try:
        with open(os.path.join(folder, TAG), errors="replace") as file:
            name = file.read().strip()
    except FileNotFoundError:
        return ""
    return os.path.join(folder, name) if name else ""


def list_numbered(folder: str, below: str = "") -> list[str]:
    """The checkpoints of single iterations, newest first; with the name of one, only those before it."""
    limit = _NUMBERED.fullmatch(below)
    names = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    found = {int(match[1]): match[0] for match in map(_NUMBERED.fullmatch, names) if match}
    kept = sorted((number for number in found if not limit or number < int(limit[1])), reverse=True)
    return [os.path.join(folder, found[number]) for number in kept]


def find_newest(folder: str) -> str:
    """The newest checkpoint of a folder that can be read; ``""`` where there is none at all.

    That is the one that ``last_checkpoint`` names, or if it is damaged the newest before it. A run that was killed
    in its very first save has a checkpoint, but no ``last_checkpoint`` yet.

    Raises:
        FileNotFoundError: ``last_checkpoint`` names a file that is not there.
        ValueError: none can be read.
    """
    tagged = read_tag(folder)
    if not tagged:
        numbered = list_numbered(folder)
        return _first_whole(numbered, [f"{os.path.join(folder, TAG)} names no checkpoint"]) if numbered else ""
    if not os.path.isfile(tagged):
        raise UserFileNotFoundError(
            f"--resume: {os.path.join(folder, TAG)} names {tagged}, which is not there; "
            "write the name of a checkpoint that is there into it"
        )
    return find_whole(tagged)


def find_whole(path: str) -> str:
    """``path``, or if it is damaged the newest checkpoint of its folder before it that can be read.

    Raises:
        ValueError: none can be read.
    """
    damage = find_damage(path)
    if not damage:
        return path
    folder, name = os.path.split(path)
    return _first_whole(list_numbered(folder, below=name), [damage])


def find_damage(path: str) -> str:
    """Why a checkpoint cannot be read, or ``""``. Checks all of it: torch itself reads over a wrong checksum."""
    try:
        read_checkpoint(path, mapped=True)
    except UserError as error:
        return str(error)
    if not zipfile.is_zipfile(path):  # of torch before 1.6: without checksums, and just read as a whole
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except Exception as error:  # UnicodeDecodeError, NotImplementedError, ...: whatever a damaged field leads to
        return f"{path} is damaged ({error})"
    return f"{path} is damaged (wrong checksum of {record})" if record else ""


def remove_old(path: str, keep: int) -> None:
    """Of the numbered checkpoints up to ``path`` only the newest ``keep`` stay, and the one that is the last.

    Higher numbers are of an earlier, longer run in the same folder, and not ours to remove.
    """
    folder, name = os.path.split(path)
    if not _NUMBERED.fullmatch(name):
        return
    last = read_tag(folder)
    for old in list_numbered(folder, below=name)[max(keep - 1, 0) :]:
        if old != last:
            try:
                os.unlink(old)
            except OSError as error:  # no reason to end a run
                _logger.warning("%s: an old checkpoint that cannot be removed (%s)", old, error.strerror)


def _first_whole(paths: list[str], problems: list[str]) -> str:
    for path in paths:
        damage = find_damage(path)
        if not damage:
            _logger.warning("%s; going on from %s, the newest that can be read", "; ".join(problems), path)
            return path
        problems.append(damage)
    raise UserError(
        f"--resume: no checkpoint can be read: {'; '.join(problems)}; leave --resume out to start from the beginning"
    )


def saved_seed(folder: str) -> int:
    """``SEED`` of the run whose checkpoints are in a folder; -1 where there are none, or none that tells.

    Raises:
        As ``find_newest``.
    """
    path = find_newest(folder)
    info = read_checkpoint(path, mapped=True).get("imgcls") if path else None
    return yaml.safe_load(info["cfg"])["SEED"] if info else -1

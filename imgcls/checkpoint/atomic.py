"""Files that are replaced whole or stay as they were, whatever happens meanwhile."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from imgcls.disk import sync_folder
from imgcls.errors import UserError

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

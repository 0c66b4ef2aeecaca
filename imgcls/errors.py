"""The exceptions for users' mistakes, and how a command reports them.

Only these exceptions become a one-line message. A plain ``ValueError`` from torch is a bug of this package and keeps
its traceback.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Matches an exception of this package at the end of a traceback.
_OURS = re.compile(r"^imgcls\.[\w.]+Error: (.*)$", re.MULTILINE)


class UserError(ValueError):
    """A config value, dataset, image, checkpoint or command line that cannot be used.

    The message is one line that says what came, what is allowed, and which key or file to change.
    """


class UserFileNotFoundError(UserError, FileNotFoundError):
    """A file or folder that the user named and that does not exist."""


def user_message(error: BaseException) -> str | None:
    """Returns the one line to print for ``error``, or None if it is not the user's mistake.

    Loader workers and spawned processes pass their exception on as the text of a traceback. The message is then the
    last line that names an exception of this package.
    """
    text = str(error).strip()
    named = _OURS.findall(text)
    if isinstance(error, UserError):
        return named[-1] if named else text
    if type(error).__name__ == "ProcessRaisedException":
        return named[-1] if named else None
    return None


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Prints a user's mistake as ``error: ...`` on stderr and exits with code 2; other exceptions propagate."""
    try:
        yield
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)

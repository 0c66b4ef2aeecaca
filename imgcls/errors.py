"""What the user got wrong: one exception family, and how a command reports it.

Only these exceptions become a one-line message. A plain ``ValueError`` out of torch is our bug and
keeps its traceback.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# How Python prints an exception of this package at the end of a traceback.
_OURS = re.compile(r"^imgcls\.[\w.]+Error: (.*)$", re.MULTILINE)


class UserError(ValueError):
    """A config value, dataset, image, checkpoint or command line that cannot be used.

    The message is one line that names what came, what is allowed, and which key or file to change.
    """


class UserFileNotFoundError(UserError, FileNotFoundError):
    """A file or folder that the user named and that is not there."""


def user_message(error: BaseException) -> str | None:
    """The one line to print for ``error``, or None when it is not the user's mistake.

    A loader worker and a spawned process hand their exception on as text with a traceback in it; the
    line that counts is then the last one that names our exception.
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
    """Turns a user's mistake into ``error: ...`` on stderr and exit code 2. Everything else passes."""
    try:
        yield
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)

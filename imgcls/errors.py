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
# Characters that a terminal interprets, that end a line, or that reverse the direction of writing.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST = 1200  # characters of a message


class UserError(ValueError):
    """A config value, dataset, image, checkpoint or command line that cannot be used.

    The message is one line that says what came, what is allowed, and which key or file to change.
    """


class UserFileNotFoundError(UserError, FileNotFoundError):
    """A file or folder that the user named and that does not exist."""


def printable(text: object, limit: int = 200) -> str:
    """Text of unknown origin, such as a name in a file, for one line of a message or a log.

    Control characters and lone surrogates are escaped, and what is longer than ``limit`` characters loses its middle.
    """
    content = str(text)
    if len(content) > limit:
        content = f"{content[: limit * 2 // 3]}...{content[len(content) - limit // 3 :]}"
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), content)


def user_message(error: BaseException) -> str | None:
    """Returns the one line to print for ``error``, or None if it is not the user's mistake.

    Loader workers and spawned processes pass their exception on as the text of a traceback. The message is then the
    last line that names an exception of this package. The line is `printable`.
    """
    message = _find_message(error)
    return None if message is None else printable(message, _LONGEST)


def _find_message(error: BaseException) -> str | None:
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

"""What the user got wrong: one exception family, and how a command reports it.

Only these exceptions become a one-line message. A plain ``ValueError`` out of torch is our bug and
keeps its traceback.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A config value, dataset, picture, checkpoint or command line that cannot be used.

    The message is one line that names what came, what is allowed, and which key or file to change.
    """


class UserFileNotFoundError(UserError, FileNotFoundError):
    """A file or folder that the user named and that is not there."""


def user_message(error: BaseException) -> str | None:
    """The one line to print for ``error``, or None when it is not the user's mistake.

    A loader worker and a spawned process hand their exception on as text with a traceback in it; the
    line that counts is then the last one that names our exception.
    """
    if isinstance(error, UserError):
        lines = str(error).strip().splitlines()
        return _after_name(lines[-1]) if lines else type(error).__name__
    if type(error).__name__ == "ProcessRaisedException":
        ours = [line for line in str(error).splitlines() if line.startswith(_PREFIXES)]
        return _after_name(ours[-1]) if ours else None
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


_PREFIXES = tuple(f"{__name__}.{c.__name__}: " for c in (UserError, UserFileNotFoundError))


def _after_name(line: str) -> str:
    for prefix in _PREFIXES:
        line = line.removeprefix(prefix)
    return line

"""The verbs of the command ``imgcls``, one module for each; the scripts in ``tools/`` call the same functions.

The ``main`` of each module takes the arguments of its verb (None for those of the process) and the name of the command
for its help (None for the name of the script), and returns an exit code, or None for 0. After a mistake of the user it
exits with code 2 and one line on stderr.
"""

import argparse
import os
from collections import Counter
from collections.abc import Callable, Sequence

from imgcls.disk import read_text
from imgcls.errors import UserError, exit_on_user_error


def command(description: str, example: str) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Makes the ``main`` of a verb from a function that gets a parser without arguments, and the command line.

    Args:
        description: the first lines of the help.
        example: the last lines of the help: one or more command lines.
    """

    def decorate(run: Callable[..., int | None]) -> Callable[..., int | None]:
        def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int | None:
            parser = argparse.ArgumentParser(
                prog=prog,
                description=description,
                epilog=f"example:\n  {example}",
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            with exit_on_user_error():
                return run(parser, argv)

        main.__doc__, main.__module__ = run.__doc__, run.__module__
        return main

    return decorate


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of every verb that runs a model on many images."""
    parser.add_argument("model", metavar="MODEL", help="a classifier's checkpoint, or a file of imgcls export")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images in a batch (default: 32)")
    parser.add_argument(
        "-j", "--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N",
        help="processes that decode images (default: one for each core)",
    )  # fmt: skip
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: the first GPU, or the CPU)")
    parser.add_argument("--classes", metavar="FILE", help="class names to use instead of the model's, one a line")


def check_minimum(parser: argparse.ArgumentParser, args: argparse.Namespace, **lowest: int) -> None:
    """Exits with an error for a number below its minimum: ``check_minimum(parser, args, batch_size=1)``."""
    for name, minimum in lowest.items():
        if getattr(args, name) < minimum:
            parser.error(f"--{name.replace('_', '-')} is {getattr(args, name)}; allowed: from {minimum}")


def read_class_names(path: str) -> list[str]:
    """Reads the file of ``--classes``, one name a line.

    Raises:
        UserError: it cannot be read, or has no name or one of them twice.
    """
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        came = f"has {twice[0]!r} more than once" if twice else "has no names"
        raise UserError(f"--classes {path} {came}; allowed: a text file with one name a line, each once")
    return names

"""The verbs of the command ``imgcls``, one module for each; the scripts in ``tools/`` call the same functions."""

import argparse


def make_parser(prog: str | None, description: str, example: str) -> argparse.ArgumentParser:
    """A parser whose help ends with an example.

    Args:
        prog: name of the command in the help; None for the name of the script.
        description: the first lines of the help.
        example: one or more command lines.
    """
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

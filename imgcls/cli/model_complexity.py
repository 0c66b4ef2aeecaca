"""``imgcls complexity``: parameters and multiply-accumulates of configs."""

import json
from collections.abc import Sequence
from pathlib import Path

from imgcls.cli import make_parser
from imgcls.errors import exit_on_user_error


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Prints a Markdown table with one row for each config.

    Args:
        argv: the arguments; None for those of the process.
        prog: name of the command in the help.

    Raises:
        SystemExit: with code 2 after one line on stderr, for a mistake of the user.
    """
    parser = make_parser(
        prog,
        "Counts parameters and multiply-accumulates of configs and prints them as a Markdown table.",
        "imgcls complexity ImageNet/mnetv1_025.yaml ImageNet/mnetv1_100.yaml",
    )
    parser.add_argument(
        "configs", metavar="CONFIG", nargs="*", help="YAML files or names of the model zoo (default: the whole zoo)"
    )
    parser.add_argument("--save", metavar="JSON", type=Path, help="also write the counts to this file")
    args = parser.parse_args(argv)
    with exit_on_user_error():
        from imgcls.config import load_cfg
        from imgcls.disk import write_text
        from imgcls.model_zoo import config_names, find_config_file
        from imgcls.report.complexity import build_complexity, table_rows

        counts = {}
        for name in args.configs or config_names():
            counts[name] = build_complexity(load_cfg(find_config_file(name, "CONFIG")))
        if args.save:
            write_text(args.save, json.dumps(counts, indent=2) + "\n")
        print("\n".join(table_rows(counts)))

"""``imgcls complexity``: parameters and multiply-accumulates of the networks that configs describe."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from imgcls.cli import command


@command(
    "Counts parameters and multiply-accumulates of configs and prints them as a Markdown table.",
    "imgcls complexity ImageNet/mnetv1_025.yaml ImageNet/mnetv1_100.yaml",
)
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Prints a Markdown table with one row for each config."""
    parser.add_argument(
        "configs", metavar="CONFIG", nargs="*", help="YAML files or names of the model zoo (default: the whole zoo)"
    )
    parser.add_argument("--save", metavar="JSON", type=Path, help="also write the counts to this file")
    args = parser.parse_args(argv)

    from imgcls.config import load_cfg
    from imgcls.disk import write_text
    from imgcls.model_zoo import config_names, find_config_file
    from imgcls.report.complexity import build_complexity, table_rows

    names = args.configs or config_names()
    counts = {name: build_complexity(load_cfg(find_config_file(name, "CONFIG"))) for name in names}
    if args.save:
        write_text(args.save, json.dumps(counts, indent=2) + "\n")
    print("\n".join(table_rows(counts)))

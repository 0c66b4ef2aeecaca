#!/usr/bin/env python
"""Prints the table of scripts/transfer_experiment.sh and draws detections, or draws one overview of the experiment."""

import argparse
from pathlib import Path

from transfer.overview import draw_overview
from transfer.results import draw_arms, read_scores, table_rows

from imgcls.disk import write_text
from imgcls.errors import exit_on_user_error


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="output folder of the experiment")
    parser.add_argument(
        "--overview", metavar="PNG", type=Path, help="only draw classifier, hand-off and detections to this file"
    )
    args = parser.parse_args()
    with exit_on_user_error():
        if args.overview:
            print(draw_overview(args.folder, args.overview))
            return
        rows = table_rows(read_scores(args.folder))
        write_text(args.folder / "table.md", "\n".join(rows) + "\n")
        print(*rows, sep="\n")
        print(draw_arms(args.folder, args.folder / "detections.png"))


if __name__ == "__main__":
    main()

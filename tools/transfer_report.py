#!/usr/bin/env python
"""Prints the table of scripts/transfer_experiment.sh and draws detections: python tools/transfer_report.py FOLDER."""

import argparse
from pathlib import Path

from transfer.results import draw_detections, read_scores, table_rows

from imgcls.disk import write_text
from imgcls.errors import exit_on_user_error


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="what the experiment was told to write to")
    folder = parser.parse_args().folder
    with exit_on_user_error():
        rows = table_rows(read_scores(folder))
        write_text(folder / "table.md", "\n".join(rows) + "\n")
        print(*rows, sep="\n")
        print(draw_detections(folder, folder / "detections.png"))


if __name__ == "__main__":
    main()

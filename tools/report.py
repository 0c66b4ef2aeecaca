"""Prints the metrics of a finished run and draws its figures: python tools/report.py OUTPUT_DIR."""

import argparse

from imgcls.errors import exit_on_user_error
from imgcls.report import write_report


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="OUTPUT_DIR of a finished run")
    args = parser.parse_args()
    with exit_on_user_error():
        report = write_report(args.output_dir)
        print(f"results of {report.source}\n{report.table}\n")
        print(*report.figures, sep="\n")


if __name__ == "__main__":
    main()

"""``imgcls report``: the metrics of a finished run as a table, and its charts."""

import argparse
from collections.abc import Sequence

from imgcls.cli import command


@command("Prints the metrics of a finished run and draws its charts.", "imgcls report output/ImageNet/mnetv1_050")
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Prints the table, draws the charts into ``OUTPUT_DIR/report`` and prints their paths."""
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="OUTPUT_DIR of a finished run")
    args = parser.parse_args(argv)

    from imgcls.report import write_report

    report = write_report(args.output_dir)
    print(f"results of {report.source}\n{report.table}\n")
    print(*report.figures, sep="\n")

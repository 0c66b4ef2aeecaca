"""``imgcls report``: the metrics of a run as a table and a page, or several runs side by side."""

import argparse
from collections.abc import Sequence

from imgcls.cli import command


@command(
    "Prints the metrics of a run and writes a page about it; with several runs, writes a page that compares them.",
    "imgcls report output/ImageNet/mnetv1_050",
)
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Prints the table, writes the page and prints its path; with several runs, writes a page that compares them."""
    parser.add_argument("output_dirs", metavar="OUTPUT_DIR", nargs="+", help="OUTPUT_DIR of a run")
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder for index.html (default: OUTPUT_DIR/report, or report_comparison for several runs)",
    )
    args = parser.parse_args(argv)

    from imgcls.report import write_comparison, write_report

    if len(args.output_dirs) > 1:
        print(write_comparison(args.output_dirs, args.output or "report_comparison"))
    else:
        report = write_report(args.output_dirs[0], folder=args.output)
        print(f"results of {report.source}\n{report.table}\n\n{report.page}")

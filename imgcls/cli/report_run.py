"""``imgcls report``: the metrics of a finished run as a table, and its charts."""

from collections.abc import Sequence

from imgcls.cli import make_parser
from imgcls.errors import exit_on_user_error


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Prints the table, draws the charts into ``OUTPUT_DIR/report`` and prints their paths.

    Args:
        argv: the arguments; None for those of the process.
        prog: name of the command in the help.

    Raises:
        SystemExit: with code 2 after one line on stderr, for a mistake of the user.
    """
    parser = make_parser(
        prog, "Prints the metrics of a finished run and draws its charts.", "imgcls report output/ImageNet/mnetv1_050"
    )
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="OUTPUT_DIR of a finished run")
    args = parser.parse_args(argv)
    with exit_on_user_error():
        from imgcls.report import write_report

        report = write_report(args.output_dir)
        print(f"results of {report.source}\n{report.table}\n")
        print(*report.figures, sep="\n")

#!/usr/bin/env python
"""Measures this package against other libraries, in turns on this machine.

Prints the figures, writes them as JSON and as a bar chart, and adds their ratios to a table from which
`benchmark.py summary` prints the ranges for the documentation.
"""

import argparse
import importlib
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """One kind of measurement: what it is, the module that is imported for it, its function, the default rounds."""

    help: str
    module: str
    function: str
    rounds: int


COMMANDS = {
    "input": Command("from image files to training batches", "benchmark.input", "measure", 20),
    "step": Command("one training step", "benchmark.step", "measure", 12),
    "compile": Command("one training step with MODEL.COMPILE", "benchmark.step", "measure_compiled", 12),
    "infer": Command("inference", "benchmark.infer", "measure", 30),
    "export": Command(
        "exported ONNX against eager, and against torch's own export", "benchmark.exported", "measure_exports", 30
    ),
    "train": Command("both trainers against a bare loop", "benchmark.train", "measure", 5),
    "int8": Command("int8 files against float files", "benchmark.int8", "measure", 20),
    "index": Command("loading the records of a data set of ImageNet's size", "benchmark.index", "measure", 3),
}
RESULTS = Path(__file__).with_name("benchmark") / "results.csv"


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    what = "\n".join(f"  {name:8} {command.help}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nWHAT is one of:\n{what}\n  summary  print the recorded ratios as a Markdown table",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", metavar="WHAT", choices=[*COMMANDS, "summary"])
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="one folder of JPEG files per class; for index: the folder of imagenet_detectron2_train.json "
        "(default: made from installed photographs); with --model: a dataset for metrics, such as folder:images/val",
    )
    parser.add_argument(
        "--json",
        metavar="OUT",
        type=Path,
        help="file for the figures; the bar chart is written next to it (default: output/benchmark/WHAT.json)",
    )
    parser.add_argument("--rounds", metavar="N", type=_count, help="maximum number of rounds (default: by WHAT)")
    parser.add_argument(
        "--minutes",
        metavar="M",
        type=_minutes,
        default=5.0,
        help="start a round only if it can end within this time; one is always run (default: %(default)g)",
    )
    parser.add_argument(
        "--model",
        metavar="FILE",
        nargs="+",
        help="infer: compare these checkpoints and exported files with the first of them; nothing is recorded",
    )
    parser.add_argument(
        "--soak", metavar="N", type=_count, default=0, help="input: also count open files and memory over N batches"
    )
    parser.add_argument(
        "--record",
        metavar="CSV",
        type=Path,
        default=RESULTS,
        help="table of ratios to add to, or to summarise (default: tools/benchmark/results.csv)",
    )
    parser.add_argument("--no-record", dest="record", action="store_const", const=None, help="do not add the ratios")
    return parser


def main() -> None:
    """Runs the command."""
    parser = build_parser()
    args = parser.parse_args()
    if args.soak and args.what != "input":
        parser.error("--soak is for input")
    if args.model and args.what != "infer":
        parser.error("--model is for infer")
    if args.json and args.json.suffix != ".json":
        parser.error(f"--json {args.json}: expected a name that ends with .json; the chart gets the same one with .png")
    if args.what == "summary" and args.record is None:
        parser.error("summary reads the recorded ratios; drop --no-record")

    # Everything heavy is imported here, so that --help needs none of it.
    from imgcls.errors import exit_on_user_error

    with exit_on_user_error():
        if args.what == "summary":
            from benchmark.record import read_ratios, summary_rows

            print(*summary_rows(read_ratios(args.record)), sep="\n")
            return
        from benchmark.machine import describe_machine
        from benchmark.record import append_ratios
        from benchmark.report import write_report

        command = COMMANDS[args.what]
        if args.model:
            command = command._replace(module="benchmark.exported", function="measure_files")
            args.record = None
        args.rounds = args.rounds or command.rounds
        machine = describe_machine()
        report = getattr(importlib.import_module(command.module), command.function)(args)
        write_report(report, machine, args.json or Path("output", "benchmark", f"{args.what}.json"))
        if args.record:
            append_ratios(args.record, report, machine)
            print(f"ratios added to {args.record}")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 1 or more")
    return int(text)


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return value


if __name__ == "__main__":
    main()

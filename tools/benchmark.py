#!/usr/bin/env python
"""Measures this package against its peers, in turns on this machine, and draws what came out as bars."""

import argparse
from pathlib import Path

import imgcls  # noqa: F401  (first: it says how to install detectron2 where that is missing)

# isort: split
from benchmark.commands import COMMANDS
from benchmark.machine import describe_machine
from benchmark.report import write_report

from imgcls.errors import exit_on_user_error


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=COMMANDS, help="reading, one training step, inference, trainers, a large set")
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="classes with JPEG files; for index: the folder of imagenet_detectron2_train.json (default: made here)",
    )
    parser.add_argument(
        "--json",
        metavar="OUT",
        type=Path,
        help="the figures, and bars beside them (default: output/benchmark/WHAT.json)",
    )
    parser.add_argument("--rounds", metavar="N", type=_count, help="turns of each candidate (default: enough for WHAT)")
    parser.add_argument(
        "--soak", metavar="N", type=_count, default=0, help="input: count open files and memory over N batches too"
    )
    args = parser.parse_args()
    if args.soak and args.what != "input":
        parser.error("--soak is for input")
    if args.json and args.json.suffix != ".json":
        parser.error(f"--json {args.json}: expected a name that ends with .json; the bars go to the same one with .png")
    args.rounds = args.rounds or COMMANDS[args.what].rounds
    with exit_on_user_error():
        machine = describe_machine()
        report = COMMANDS[args.what].measure(args)
        write_report(report, machine, args.json or Path("output", "benchmark", f"{args.what}.json"))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 1 on")
    return int(text)


if __name__ == "__main__":
    main()

"""What each word after ``tools/benchmark.py`` measures."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from benchmark import index, infer, input, loader, quality, step, train
from benchmark.packed import packed_images
from benchmark.peers import require_timm
from benchmark.report import Report
from benchmark.sample_images import describe_images, find_images


@dataclass(frozen=True)
class Command:
    """One kind of measurement.

    Attributes:
        measure: from the arguments (``data``, ``rounds``, ``soak``) to the figures.
        rounds: turns of each candidate where the user names none.
    """

    measure: Callable[[argparse.Namespace], Report]
    rounds: int


def measure_input(args: argparse.Namespace) -> Report:
    """Files to training batches: one core, the whole loader, and how exact the pixels are."""
    require_timm()
    folder = find_images(args.data)
    with packed_images(folder) as packed:
        report = Report("input", [input.race_input(folder, args.rounds, packed=packed)])
    report.tables.append(loader.race_loader(folder, args.rounds))
    report.facts |= describe_images(folder) | quality.compare_pixels(folder)
    if args.soak:
        report.facts |= loader.soak_loader(folder, args.soak)
    return report


def measure_step(args: argparse.Namespace) -> Report:
    """One training step at each width."""
    require_timm()
    folder = find_images(args.data)
    return Report("step", [step.race_steps(folder, width, args.rounds) for width in step.WIDTHS])


def measure_infer(args: argparse.Namespace) -> Report:
    """Evaluation mode at each width and batch."""
    require_timm()
    folder = find_images(args.data)
    pairs = [(width, batch) for width in infer.WIDTHS for batch in infer.BATCHES]
    return Report("infer", [infer.race_inference(folder, width, batch, args.rounds) for width, batch in pairs])


def measure_train(args: argparse.Namespace) -> Report:
    """Both trainers against a bare loop."""
    return Report("train", [train.race_trainers(find_images(args.data), args.rounds)])


def measure_index(args: argparse.Namespace) -> Report:
    """Time and memory until a set of ImageNet's size can be trained on."""
    return Report("index", index.race_index(args.data, args.rounds))


COMMANDS = {
    "input": Command(measure_input, rounds=20),
    "step": Command(measure_step, rounds=12),
    "infer": Command(measure_infer, rounds=30),
    "train": Command(measure_train, rounds=5),
    "index": Command(measure_index, rounds=3),
}

"""One training step on a batch that is already on the device: forward, backward, optimizer; float32."""

import argparse
from collections.abc import Callable
from itertools import count, repeat
from pathlib import Path
from typing import Any

from detectron2.solver import build_optimizer
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmark.compare import Budget, Candidate, Table, compare, timed
from benchmark.configs import classifier_cfg
from benchmark.networks import OURS, TIMM, normalised, our_network, read_batch, timm_network
from benchmark.peers import require_timm
from benchmark.report import Report
from benchmark.sample_images import find_images
from imgcls.engine.step import build_step, wrap_ddp

WIDTHS = (0.25, 1.0)
CONTIGUOUS = f"{OURS}, contiguous"
BATCH = 32
# Steps per run, so that both widths take about the same time.
_STEPS = {0.25: 4, 1.0: 1}
# Small enough that endless training on one batch stays stable.
_RATE = 1e-3


def measure(args: argparse.Namespace) -> Report:
    """Measures the step at each width.

    Raises:
        UserError: timm is not installed, or the images cannot be used.
    """
    require_timm()
    budget = Budget(args.rounds, 60 * args.minutes, len(WIDTHS))
    folder = find_images(args.data)
    return Report("step", [compare_steps(folder, width, budget) for width in WIDTHS])


def measure_compiled(args: argparse.Namespace) -> Report:
    """Measures the step with ``MODEL.COMPILE`` at each width for which there is time.

    Compiling takes up to minutes for each network and counts as time.

    Raises:
        UserError: timm is not installed, or the images cannot be used.
    """
    require_timm()
    budget = Budget(args.rounds, 60 * args.minutes, len(WIDTHS))
    folder = find_images(args.data)
    report = Report("compile")
    for width in WIDTHS:
        # The next network takes at least as long as the one before.
        if report.tables and budget.seconds_left < 30 * args.minutes:
            report.facts[f"width {width}"] = f"not measured: {args.minutes:g} minutes are too short (--minutes)"
        else:
            report.tables.append(compare_steps(folder, width, budget, compiled=True))
    return report


def compare_steps(folder: Path, width: float, budget: Budget, batch: int = BATCH, compiled: bool = False) -> Table:
    """Compares the images/s of the step of both trainers with those of the same step on contiguous tensors.

    At width 1.0 timm's network is compared too; timm has no narrower MobileNetV1. Its network gets images that are
    already normalised, ours normalises them. ``compiled`` adds ``MODEL.COMPILE``, and the eager step as a reference.
    """
    data = read_batch(folder, batch)
    steps = {OURS: our_step(data, width), CONTIGUOUS: our_step(data, width, MODEL__CHANNELS_LAST=False)}
    if compiled:
        steps[f"{OURS}, compiled"] = our_step(data, width, MODEL__COMPILE=True)
    if width == 1:
        steps[TIMM] = timm_step(data)
    times = _STEPS.get(width, 1)
    candidates = [Candidate(name, timed(step, times), times * batch) for name, step in steps.items()]
    references = [name for name in (CONTIGUOUS, *[OURS] * compiled, TIMM) if name in steps]
    return compare(f"training step, width {width}, batch {batch}", candidates, budget, references)


def our_step(data: dict[str, Tensor], width: float, **changes: Any) -> Callable[[], object]:
    """Returns the step that the trainers build from the config; ``changes`` as for ``classifier_cfg``."""
    cfg = classifier_cfg(width, SOLVER__BASE_LR=_RATE, **changes)
    model = our_network(width, **changes).train()
    optimizer = build_optimizer(cfg, model)
    step = build_step(cfg, wrap_ddp(model), optimizer, None)
    batches, iteration = repeat(data), count()
    return lambda: step(batches, next(iteration))


def timm_step(data: dict[str, Tensor]) -> Callable[[], object]:
    """Returns the loop body of timm's training script with its SGD: no weight decay on norms and biases."""
    from timm.optim import create_optimizer_v2

    model = timm_network().train()
    optimizer = create_optimizer_v2(model, opt="momentum", lr=_RATE, momentum=0.9, weight_decay=1e-4)
    images, labels = normalised(data["image"]), data["label"]

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(images), labels, label_smoothing=0.1).backward()
        optimizer.step()

    return step

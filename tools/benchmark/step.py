"""One training step on a batch that is there already: forward, backward, optimizer; float32."""

from collections.abc import Callable
from itertools import count, repeat
from pathlib import Path
from typing import Any

from detectron2.solver import build_optimizer
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmark.configs import classifier_cfg
from benchmark.networks import OURS, TIMM, normalised, our_network, read_batch, timm_network
from benchmark.race import Candidate, Table, race, timed
from imgcls.engine.build import wrap_ddp
from imgcls.engine.step import build_step

WIDTHS = (0.25, 1.0)
CONTIGUOUS = f"{OURS}, contiguous"
BATCH = 32
# Steps of one turn: about the same time for both widths.
_STEPS = {0.25: 4, 1.0: 1}
# Small enough to go on for ever on one batch.
_RATE = 1e-3


def race_steps(folder: Path, width: float, rounds: int, batch: int = BATCH, compiled: bool = True) -> Table:
    """Images/s of the step of both trainers, beside the same one with contiguous tensors; at width 1.0 beside timm's.

    timm has no narrower MobileNetV1. Its network gets images that are normalised already, ours normalises.

    Args:
        folder: of classes with JPEG files.
        width: of the network.
        rounds: measured turns of each candidate.
        batch: images a step.
        compiled: whether ``MODEL.COMPILE`` takes part.
    """
    data = read_batch(folder, batch)
    works = {OURS: our_step(data, width), CONTIGUOUS: our_step(data, width, MODEL__CHANNELS_LAST=False)}
    if compiled and "COMPILE" in classifier_cfg(width).MODEL:
        works[f"{OURS}, compiled"] = our_step(data, width, MODEL__COMPILE=True)
    if width == 1:
        works[TIMM] = timm_step(data)
    steps = _STEPS.get(width, 1)
    candidates = [Candidate(name, timed(work, steps), steps * batch) for name, work in works.items()]
    references = [name for name in (CONTIGUOUS, TIMM) if name in works]
    return race(f"training step, width {width}, batch {batch}", candidates, rounds, references)


def our_step(data: dict[str, Tensor], width: float, **changes: Any) -> Callable[[], object]:
    """The ``TrainStep`` and the optimizer that the trainers build from the config."""
    cfg = classifier_cfg(width, SOLVER__BASE_LR=_RATE, **changes)
    model = our_network(width, **changes).train()
    optimizer = build_optimizer(cfg, model)
    step = build_step(cfg, wrap_ddp(model), optimizer, None)
    batches, iteration = repeat(data), count()
    return lambda: step(batches, next(iteration))


def timm_step(data: dict[str, Tensor]) -> Callable[[], object]:
    """The loop body of timm's training script with its SGD: momentum, no weight decay on norms and biases."""
    from timm.optim import create_optimizer_v2

    model = timm_network().train()
    optimizer = create_optimizer_v2(model, opt="momentum", lr=_RATE, momentum=0.9, weight_decay=1e-4)
    images, labels = normalised(data["image"]), data["label"]

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(images), labels, label_smoothing=0.1).backward()
        optimizer.step()

    return step

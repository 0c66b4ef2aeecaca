"""Inference: images to logits, as a predictor runs the network."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.compare import Budget, Candidate, Table, compare, timed
from benchmark.networks import OURS, TIMM, normalised, our_network, read_batch, timm_network
from benchmark.peers import require_timm
from benchmark.report import Report
from benchmark.sample_images import find_images
from imgcls.inference import fold_batch_norm

WIDTHS = (0.25, 1.0)
BATCHES = (1, 32)
EAGER = f"{OURS}, plain eager"
# Images per run.
_IMAGES = 32


def measure(args: argparse.Namespace) -> Report:
    """Measures each width at each batch size.

    Raises:
        UserError: timm is not installed, or the images cannot be used.
    """
    require_timm()
    pairs = [(width, batch) for width in WIDTHS for batch in BATCHES]
    budget = Budget(args.rounds, 60 * args.minutes, len(pairs))
    folder = find_images(args.data)
    return Report("infer", [compare_inference(folder, width, batch, budget) for width, batch in pairs])


def compare_inference(folder: Path, width: float, batch: int, budget: Budget) -> Table:
    """Compares images/s in evaluation mode with the plain eager network (contiguous, batch norm not folded).

    timm has no MobileNetV1 narrower than 1.0. Its network gets images that are already normalised.
    """
    images = read_batch(folder, batch)["image"]
    eager = our_network(width).eval()
    calls = {
        EAGER: _call(our_network(width, MODEL__CHANNELS_LAST=False).eval().logits, images),
        f"{OURS}, channels_last": _call(eager.logits, images),
        f"{OURS}, channels_last, folded": _call(fold_batch_norm(eager).logits, images),
    }
    if width == 1:
        calls[TIMM] = _call(timm_network().eval(), normalised(images))
    times = max(1, _IMAGES // batch)
    candidates = [Candidate(name, timed(call, times), times * batch) for name, call in calls.items()]
    return compare(f"inference, width {width}, batch {batch}", candidates, budget, [EAGER])


def _call(network: Callable[[Tensor], Any], images: Tensor) -> Callable[[], None]:
    @torch.inference_mode()
    def run() -> None:
        network(images)

    return run

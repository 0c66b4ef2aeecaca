"""Images to logits, as a predictor runs the network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.networks import OURS, TIMM, normalised, our_network, read_batch, timm_network
from benchmark.race import Candidate, Table, race, timed
from imgcls.inference import fold_batch_norm

WIDTHS = (0.25, 1.0)
BATCHES = (1, 32)
PLAIN = f"{OURS}, plain eager"
# Images of one turn.
_IMAGES = 32


def race_inference(folder: Path, width: float, batch: int, rounds: int) -> Table:
    """Images/s of evaluation mode, beside the plain eager network (contiguous, nothing folded).

    timm has no MobileNetV1 narrower than 1.0. Its network gets images that are normalised already.

    Args:
        folder: of classes with JPEG files.
        width: of the network.
        batch: images a call.
        rounds: measured turns of each candidate.
    """
    images = read_batch(folder, batch)["image"]
    eager = our_network(width).eval()
    works = {
        PLAIN: _call(our_network(width, MODEL__CHANNELS_LAST=False).eval().logits, images),
        f"{OURS}, channels_last": _call(eager.logits, images),
        f"{OURS}, channels_last, folded": _call(fold_batch_norm(eager).logits, images),
    }
    if width == 1:
        works[TIMM] = _call(timm_network().eval(), normalised(images))
    times = max(1, _IMAGES // batch)
    candidates = [Candidate(name, timed(work, times), times * batch) for name, work in works.items()]
    return race(f"inference, width {width}, batch {batch}", candidates, rounds, [PLAIN])


def _call(network: Callable[[Tensor], Any], images: Tensor) -> Callable[[], None]:
    @torch.inference_mode()
    def run() -> None:
        network(images)

    return run

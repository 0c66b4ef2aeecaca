"""The batch contract: the only place that knows in which form a loader hands images to a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """Images with their labels and names.

    Attributes:
        images: ``(N, C, H, W)``, 0-255, uint8 or float, channel order ``INPUT.FORMAT``.
        labels: ``(N,)`` int64 class indices, ``(N, K)`` float32 multi-hot, or None where the loader gave none
            (inference).
        image_ids: N ids, or an empty list where the loader gave none.
        file_names: N paths, or an empty list where the loader gave none.
    """

    images: Tensor
    labels: Tensor | None
    image_ids: list[Any]
    file_names: list[str]

    def __len__(self) -> int:
        return len(self.images)


def as_batch(batched_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Batch:
    """Reads both forms of a batch: detectron2's ``list[dict]`` and the stacked dict of our loaders.

    Args:
        batched_inputs: dicts with ``"image"`` ``(C, H, W)`` and optional ``"label"`` (int or ``(K,)``),
            ``"image_id"``, ``"file_name"``; or one dict with ``"image"`` ``(N, C, H, W)``, ``"label"``
            ``(N,)`` or ``(N, K)`` and lists under the other names.

    Raises:
        ValueError: the images of a list differ in size.
    """
    stacked = batched_inputs if isinstance(batched_inputs, Mapping) else stack(batched_inputs)
    return Batch(
        images=stacked["image"],
        labels=stacked.get("label"),
        image_ids=list(stacked.get("image_id", ())),
        file_names=list(stacked.get("file_name", ())),
    )


def stack(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Turns a ``list[dict]`` into the stacked form, so that a worker passes on one tensor of images instead of N.

    Raises:
        ValueError: the images differ in size.
    """
    try:
        # Our mapper's images are in channels-last order already, so stacking them copies each one as one block.
        images = torch.stack([s["image"].permute(1, 2, 0) for s in samples]).permute(0, 3, 1, 2)
    except RuntimeError:
        # Compared only now: while a model is traced, sizes are tensors, which are never equal in a set.
        shapes = {tuple(s["image"].shape) for s in samples}
        if len(shapes) == 1:
            raise
        raise ValueError(f"images of one batch differ in size: {sorted(shapes)}; resize them first") from None
    batch: dict[str, Any] = {"image": images}
    if all("label" in s for s in samples):
        batch["label"] = torch.stack([torch.as_tensor(s["label"]) for s in samples])
    for key in ("image_id", "file_name"):
        if all(key in s for s in samples):
            batch[key] = [s[key] for s in samples]
    return batch

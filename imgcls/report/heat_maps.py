"""Grad-CAM of the test images that a report shows, by the checkpoint of the run that predicted them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from imgcls.checkpoint import read_tag
from imgcls.errors import UserError
from imgcls.report.gallery import PredictedImage, to_data_uri

_BATCH = 16
# Mean difference between the scores in predictions.csv and those of the same weights, which ran on another device.
_TOLERANCE = 0.01
_Item = TypeVar("_Item")


@dataclass
class HeatMaps:
    """Overlays of the images of one test set.

    Attributes:
        uris: data URIs by row of ``predictions.csv`` and class name.
        note: which checkpoint they are from, or why there are none.
    """

    uris: dict[tuple[int, str], str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class ShownImage:
    """A test image and the classes to explain.

    Attributes:
        prediction: from ``predictions.csv``.
        record: says where the image is.
        classes: names.
    """

    prediction: PredictedImage
    record: Mapping[str, Any]
    classes: Sequence[str]


def draw_heat_maps(output_dir: Path, shown: Sequence[ShownImage], averaged: bool) -> HeatMaps:
    """Draws Grad-CAM over what the network saw of each image. Whatever prevents that becomes the note.

    Args:
        output_dir: of the run, with its checkpoints.
        shown: few images, because they are computed on the CPU.
        averaged: whether the predictions are those of the averaged weights.
    """
    if not shown:
        return HeatMaps()
    try:
        return _draw(output_dir, shown, averaged)
    except Exception as error:  # a report is worth more than its overlays
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return HeatMaps(note=f"Without Grad-CAM overlays: {' '.join(reason.split())}")


def _draw(output_dir: Path, shown: Sequence[ShownImage], averaged: bool) -> HeatMaps:
    from imgcls.inference import Predictor, load_checkpoint_classifier
    from imgcls.inference.batches import RecordReader
    from imgcls.inference.cam import GradCam

    reason = f"{output_dir} has no checkpoint, and the network is needed for them"
    for path in _list_checkpoints(output_dir):
        classifier = load_checkpoint_classifier(path, "cpu", raw=not averaged)
        cam, info = GradCam(classifier), classifier.info
        reader = RecordReader([image.record for image in shown], Predictor(classifier).crop, info.contract["format"])
        samples = [reader[number] for number in range(len(reader))]
        index = {name: label for label, name in enumerate(info.classes)}
        known = [(image, sample["image"]) for image, sample in zip(shown, samples, strict=True) if "image" in sample]
        differences: list[float] = []
        for images, crops in _batches(known):
            for image, row in zip(images, classifier.probabilities(crops), strict=True):
                scores = [*image.prediction.predicted, *image.prediction.true]
                differences += [abs(s - float(row[index[c]])) for c, s in scores if c in index and s is not None]
        if differences and np.mean(differences) > _TOLERANCE:
            reason = f"{path} has other weights than those that were evaluated: its scores differ from predictions.csv"
            continue
        uris = {}
        # An image may be among the mistakes and among the doubtful ones.
        tasks = {(image.prediction.row, c): crop for image, crop in known for c in image.classes if c in index}
        for keys, crops in _batches(list(tasks.items())):
            maps = cam(crops, [index[name] for _, name in keys])
            for key, crop, heat in zip(keys, crops, maps, strict=True):
                uris[key] = _draw_overlay(crop, heat, info.contract["format"])
        return HeatMaps(uris, f"Grad-CAM, by {os.path.basename(path)}: what is red speaks most for the class.")
    raise UserError(reason)


def _list_checkpoints(output_dir: Path) -> list[str]:
    """The existing checkpoints that may have been evaluated last, most likely first, without repetition."""
    names = ("model_final.pth", os.path.basename(read_tag(str(output_dir))), "model_best.pth")
    return [str(output_dir / name) for name in dict.fromkeys(names) if name and (output_dir / name).is_file()]


def _batches(pairs: Sequence[tuple[_Item, Tensor]]) -> Iterator[tuple[list[_Item], Tensor]]:
    for start in range(0, len(pairs), _BATCH):
        items, crops = zip(*pairs[start : start + _BATCH], strict=True)
        yield list(items), torch.stack(crops)


def _draw_overlay(crop: Tensor, heat: Tensor, image_format: str) -> str:
    from imgcls.inference.cam import overlay

    pixels = crop.permute(1, 2, 0).numpy()
    return to_data_uri(overlay(pixels if image_format == "RGB" else pixels[:, :, ::-1], heat))

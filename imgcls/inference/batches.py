"""Prediction of many records, whose images are decoded by loader workers as in training."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from imgcls.data.crop import DecodedImage
from imgcls.data.image import BadImageError, EncodedImage, OpenShards, read_bytes
from imgcls.data.loader import init_worker
from imgcls.inference.detections import crop_box
from imgcls.inference.prediction import Prediction, Ranking
from imgcls.inference.predictor import Predictor, reason
from imgcls.structures import stack

Crop = Callable[[EncodedImage | DecodedImage], Tensor]


class RecordReader(TorchDataset):
    """Records as cropped images; one that cannot be read is a sample with the reason.

    Args:
        records: each with ``"file_name"``, and optional ``"shard_slice"`` and ``"box"``.
        crop: of the predictor.
        image_format: ``"BGR"`` or ``"RGB"``.
        margin: around boxes, see ``crop_box``.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]], crop: Crop, image_format: str, margin: float = 0.0):
        self.records = records
        self.crop = crop
        self.image_format = image_format
        self.margin = margin
        self._shards = OpenShards()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``"file_name"`` and ``"box"`` (or None), with ``"image"`` uint8 ``(3, S, S)`` or ``"error"``."""
        record = self.records[index]
        name, box = record["file_name"], record.get("box")
        sample = {"file_name": name, "box": box}
        try:
            image: EncodedImage | DecodedImage
            image = EncodedImage(read_bytes(record, self._shards), name, self.image_format)
            if box is not None:
                image = DecodedImage(crop_box(image.pixels(), box, self.margin, name))
            return {**sample, "image": self.crop(image)}
        except BadImageError as error:
            return {**sample, "error": reason(error)}


@dataclass(frozen=True)
class PredictedBatch:
    """A batch of predictions, in the order of the records.

    Attributes:
        predictions: N, some of which may have an ``error`` only.
        boxes: N boxes, or None where a record has none.
        images: uint8 ``(n, 3, S, S)``, what the network got for the n readable images.
    """

    predictions: list[Prediction]
    boxes: list[list[float] | None]
    images: Tensor


def predict_records(
    predictor: Predictor,
    records: Sequence[Mapping[str, Any]],
    ranking: Ranking,
    batch_size: int = 32,
    workers: int = 0,
    first: int = 0,
    margin: float = 0.0,
) -> Iterator[PredictedBatch]:
    """Predicts records in batches; images that cannot be read become predictions with an ``error``.

    Args:
        predictor: crops the images and runs the network.
        records: see ``list_images``.
        ranking: makes the predictions.
        batch_size: images that go through the network together; one with ``info.resize_inside``.
        workers: processes that decode images; 0 decodes in this one.
        first: index of the first record to predict.
        margin: around boxes, see ``crop_box``.
    """
    info = predictor.info
    batch_size = 1 if info.resize_inside else batch_size
    left = len(records) - first
    loader = DataLoader(
        RecordReader(records, predictor.crop, info.contract["format"], margin),
        batch_size,
        sampler=range(first, len(records)),
        num_workers=min(workers, -(-left // batch_size)) if left > batch_size else 0,
        collate_fn=_collate,
        worker_init_fn=init_worker,
        pin_memory=torch.device(info.device).type == "cuda",
    )
    for batch in loader:
        readable = [name for name, error in zip(batch["file_name"], batch["error"], strict=True) if not error]
        good = iter(ranking(readable, predictor.classifier.probabilities(batch["image"])) if readable else ())
        predictions = [
            Prediction(name, error=error) if error else next(good)
            for name, error in zip(batch["file_name"], batch["error"], strict=True)
        ]
        yield PredictedBatch(predictions, batch["box"], batch["image"])


def _collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lists of names, boxes and errors (``""`` for none), and the stacked images of those without an error."""
    readable = [{"image": sample["image"]} for sample in samples if "image" in sample]
    return {
        "image": stack(readable)["image"] if readable else torch.empty(0, dtype=torch.uint8),
        "file_name": [sample["file_name"] for sample in samples],
        "box": [sample["box"] for sample in samples],
        "error": [sample.get("error", "") for sample in samples],
    }

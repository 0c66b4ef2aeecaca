"""A detector and a classifier one after the other: boxes, and the classes of what is in them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from numpy.typing import NDArray
from torch import nn

from imgcls.checkpoint.compat import build_expected
from imgcls.checkpoint.files import read_checkpoint
from imgcls.checkpoint.model_checkpointers import DetectorCheckpointer, build_detector_info
from imgcls.config.defaults import get_cfg
from imgcls.config.load import load_cfg
from imgcls.data.crop import DecodedImage
from imgcls.errors import UserError
from imgcls.inference.classifier import choose_device, merge_known
from imgcls.inference.detections import crop_box
from imgcls.inference.prediction import Prediction, Ranking
from imgcls.inference.predictor import Predictor

_BATCH = 32  # crops that go through the classifier together


class Detector:
    """A detectron2 detector with the preprocessing of its ``DefaultPredictor``.

    Args:
        model: with its weights, on its device.
        image_format: ``"BGR"`` or ``"RGB"``.
        min_size: the short side that images are resized to.
        max_size: limit of the long side.
        categories: names of the categories; empty if they are not known.
    """

    def __init__(self, model: nn.Module, image_format: str, min_size: int, max_size: int, categories: Sequence[str]):
        self.model = model.eval()
        self.image_format = image_format
        self.resize = ResizeShortestEdge([min_size, min_size], max_size)
        self.categories = list(categories)

    @torch.no_grad()
    def __call__(self, pixels: NDArray[np.uint8], min_score: float = 0.5) -> list[dict[str, Any]]:
        """The detections in an image, best first.

        Args:
            pixels: RGB ``(H, W, 3)`` uint8.
            min_score: detections below it are left out.

        Returns:
            Each ``"bbox"`` (left, top, width, height), ``"score"``, ``"category_id"``, and ``"category"`` if names are
            known.
        """
        image = pixels if self.image_format == "RGB" else pixels[:, :, ::-1]
        resized = self.resize.get_transform(image).apply_image(image)
        tensor = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
        sample = {"image": tensor, "height": pixels.shape[0], "width": pixels.shape[1]}
        found = self.model([sample])[0]["instances"].to("cpu")
        detections = []
        for box, score, category in zip(
            found.pred_boxes.tensor.tolist(), found.scores.tolist(), found.pred_classes.tolist(), strict=True
        ):
            size = [box[2] - box[0], box[3] - box[1]]
            if score >= min_score and min(size) > 0:
                name = {"category": self.categories[category]} if category < len(self.categories) else {}
                detections.append({"bbox": [*box[:2], *size], "score": score, "category_id": category, **name})
        return sorted(detections, key=lambda detection: -detection["score"])


def load_detector(source: str, weights: str = "", device: str | None = None, allow_pickle: bool = False) -> Detector:
    """Builds a detector.

    Args:
        source: a config file, or the checkpoint of a detector that imgcls trained, which has its config inside.
        weights: replaces ``MODEL.WEIGHTS`` of the config.
        device: see ``choose_device``.
        allow_pickle: read weights that hold Python objects, which can run code.

    Raises:
        UserError: it is no detector, it has no weights, or they do not fit.
    """
    if source.endswith((".yaml", ".yml")):
        cfg = load_cfg(source)
    else:
        entry = read_checkpoint(source, mapped=True).get("imgcls") or {}
        if entry.get("kind") != "detector":
            raise UserError(
                f"{source} is no detector's checkpoint with its config; give the detector's config file, and --weights"
            )
        cfg = get_cfg()
        merge_known(cfg, yaml.safe_load(entry["cfg"]) or {})
        weights = weights or source
    return build_detector(cfg, source, weights, choose_device(device), allow_pickle)


def build_detector(cfg: CfgNode, source: str, weights: str, device: str, allow_pickle: bool = False) -> Detector:
    """Builds the detector of a config; arguments and errors as for `load_detector`."""
    cfg = cfg.clone()
    weights = weights or cfg.MODEL.WEIGHTS
    if cfg.MODEL.META_ARCHITECTURE == "ClsNet":
        raise UserError(
            f"{source} is a classifier's config; the first argument is the detector, the second the classifier"
        )
    if not weights:
        raise UserError(f"{source} names no weights, and a detector with random ones finds nothing; add --weights FILE")
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.MODEL.TIMM.PRETRAINED = device, "", False
    model = build_model(cfg)
    checkpointer = DetectorCheckpointer(
        model, "", info=build_detector_info(cfg), expected=build_expected(cfg), allow_pickle=allow_pickle
    )
    checkpointer.load(weights)
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    known = [MetadataCatalog.get(name).get("thing_classes") for name in names if name in MetadataCatalog]
    categories: list[str] = next((classes for classes in known if classes), [])
    return Detector(model, cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, categories)


@dataclass(frozen=True)
class ClassifiedBox:
    """A detection with the classes of what is in its box.

    Attributes:
        detection: as `Detector` gives it.
        prediction: of the crop.
    """

    detection: dict[str, Any]
    prediction: Prediction

    def as_dict(self, path: str) -> dict[str, Any]:
        """In plain Python types, with the absolute path of the image: an entry that ``read_detections`` reads."""
        classes = {"classes": self.prediction.classes, "probabilities": self.prediction.probabilities}
        if self.prediction.above_threshold is not None:
            classes["above_threshold"] = self.prediction.above_threshold
        return {"file_name": os.path.abspath(path), **self.detection, **classes}


def classify_boxes(
    detector: Detector,
    predictor: Predictor,
    pixels: NDArray[np.uint8],
    ranking: Ranking,
    min_score: float = 0.5,
    margin: float = 0.1,
) -> list[ClassifiedBox]:
    """The boxes of a detector in an image, and the classes of a classifier for each.

    Args:
        detector: finds the boxes.
        predictor: gets each box as an image.
        pixels: RGB ``(H, W, 3)`` uint8.
        ranking: makes the predictions.
        min_score: detections below it are left out.
        margin: around boxes, see ``crop_box``.
    """
    detections = detector(pixels, min_score)
    image = pixels if predictor.info.contract["format"] == "RGB" else pixels[:, :, ::-1]
    crops = [predictor.crop(DecodedImage(crop_box(image, d["bbox"], margin, "image"))) for d in detections]
    predictions: list[Prediction] = []
    for first in range(0, len(crops), _BATCH):
        batch = crops[first : first + _BATCH]
        predictions += predictor.predict_crops(batch, range(first, first + len(batch)), ranking)
    return [ClassifiedBox(*pair) for pair in zip(detections, predictions, strict=True)]

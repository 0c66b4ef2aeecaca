"""A detector's boxes on the synthetic test set: which are right, and how they look on an image."""

import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.visualizer import Visualizer
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from imgcls.data.image import read_image
from imgcls.errors import UserFileNotFoundError

DATASET = "synthetic_test"
# Boxes with a lower score are not drawn, because they would cover the image.
MIN_SCORE = 0.3
ADVICE = "run scripts/transfer_experiment.sh to its end"
# Magnification, so that labels are legible on small images.
_SCALE = 2
_TRUE, _RIGHT, _WRONG = "white", "lime", "red"


def read_detections(run: Path) -> dict[int, list[dict[str, Any]]]:
    """Returns what a detector found on the synthetic test set, by image id, best first.

    Args:
        run: folder of the detector's training run.

    Returns:
        COCO's results with a score of at least `MIN_SCORE`. ``"right"`` says whether COCO's evaluation matches the box
        to a true one at an IoU of 0.5.

    Raises:
        UserError: the set or the results do not exist.
    """
    path = run / "inference" / "coco_instances_results.json"
    if not path.is_file():
        raise UserFileNotFoundError(f"{path}: no such file; {ADVICE}")
    boxes = json.loads(path.read_text(encoding="utf-8"))
    boxes = sorted((box for box in boxes if box["score"] >= MIN_SCORE), key=lambda box: -box["score"])
    matched = _find_matched(boxes) if boxes else set()
    by_image: dict[int, list[dict[str, Any]]] = {}
    for number, box in enumerate(boxes, 1):
        by_image.setdefault(box["image_id"], []).append({**box, "right": number in matched})
    return by_image


def draw_detections(record: dict[str, Any], boxes: Sequence[dict[str, Any]], names: Sequence[str]) -> NDArray[np.uint8]:
    """Draws true boxes white, right detections green and wrong ones red, the latter two with class and score.

    Args:
        record: an image in detectron2's format, with boxes ``(left, top, width, height)``.
        boxes: the detections on it, from ``read_detections``.
        names: of the classes.

    Returns:
        ``(H, W, 3)`` uint8, RGB, twice as large as the image.
    """
    visualizer = Visualizer(read_image(record["file_name"], "RGB"), scale=_SCALE)
    for truth in record["annotations"]:
        visualizer.draw_box(_corners(truth), edge_color=_TRUE)
    return visualizer.overlay_instances(
        boxes=np.array([_corners(box) for box in boxes]).reshape(-1, 4),
        labels=[f"{names[box['category_id'] - 1]} {100 * box['score']:.0f}%" for box in boxes],
        assigned_colors=[_RIGHT if box["right"] else _WRONG for box in boxes],
    ).get_image()


def read_test_set() -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the records of the synthetic test set, and its class names.

    Raises:
        UserError: the set does not exist.
    """
    return DatasetCatalog.get(DATASET), MetadataCatalog.get(DATASET).thing_classes


def _find_matched(boxes: list[dict[str, Any]]) -> set[int]:
    """Returns which boxes COCO's evaluation counts as right at an IoU of 0.5; it numbers them from 1 on."""
    with redirect_stdout(StringIO()):  # pycocotools prints its progress
        truth = COCO(MetadataCatalog.get(DATASET).json_file)
        evaluation = COCOeval(truth, truth.loadRes(boxes), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
    images = [image for image in evaluation.evalImgs if image]
    pairs = [pair for image in images for pair in zip(image["dtIds"], image["dtMatches"][0], strict=True)]
    return {number for number, match in pairs if match}


def _corners(box: dict[str, Any]) -> list[float]:
    return BoxMode.convert(box["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)

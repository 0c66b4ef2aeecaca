"""Boxes of a detector as images to classify: reading them from a file, and cutting them out with a margin."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgcls.data.image import BadImageError
from imgcls.data.readers.json_file import load_json
from imgcls.errors import UserError

_FORM = "detections:RESULTS.json:ANNOTATIONS.json:IMAGE_ROOT"


def read_detections(text: str, min_score: float = 0.0) -> list[dict[str, Any]]:
    """Records with ``"file_name"`` and ``"box"``, from a list of ``{"bbox": [x, y, width, height], ...}``.

    Args:
        text: the path of a JSON file whose entries have a ``"file_name"``, relative to the file, as ``imgcls
            detect-classify`` writes them; or ``RESULTS.json:ANNOTATIONS.json:IMAGE_ROOT`` for the results that
            detectron2's ``COCOEvaluator`` writes, which have an ``"image_id"`` of the annotations.
        min_score: detections below it are left out.

    Raises:
        UserError: a file is missing or has another form.
    """
    if ":" in text and not os.path.exists(text):
        path, annotations, root = _split(text)
        names = _file_names(annotations, root)
    else:
        path, names = text, {}
    entries = load_json(path)
    if not isinstance(entries, list):
        raise UserError(f"{path}: has no list of detections; for a dataset of imgcls give json:{path}")
    records = []
    for number, entry in enumerate(entries, 1):
        box, score = _check_entry(entry, f"{path}: detection {number}", path)
        if score < min_score:
            continue
        if "file_name" in entry:
            name = os.path.join(os.path.dirname(path), entry["file_name"])
        elif entry.get("image_id") in names:
            name = names[entry["image_id"]]
        else:
            found = f"the image_id {entry.get('image_id')!r}, which "
            why = "the annotations lack" if names else f"is no path; give {_FORM}"
            raise UserError(f"{path}: detection {number} has no file_name but {found}{why}")
        kept = {key: entry[key] for key in ("category_id", "category", "score") if key in entry}
        records.append({"file_name": name, "box": box, **kept})
    return records


def crop_box(pixels: NDArray[np.uint8], box: Sequence[float], margin: float, name: str) -> NDArray[np.uint8]:
    """Cuts a box out of an image.

    Args:
        pixels: ``(H, W, 3)``.
        box: left, top, width and height in pixels of the upright image.
        margin: share of the longer side of the box that is added on each side, as far as the image goes.
        name: starts the message.

    Returns:
        A view of shape ``(h, w, 3)`` with at least one pixel.

    Raises:
        BadImageError: the box has no pixel inside the image.
    """
    height, width = pixels.shape[:2]
    left, top, box_width, box_height = box
    extra = margin * max(box_width, box_height)
    x0, y0 = max(0, math.floor(left - extra)), max(0, math.floor(top - extra))
    x1, y1 = min(width, math.ceil(left + box_width + extra)), min(height, math.ceil(top + box_height + extra))
    outside = left >= width or top >= height or left + box_width <= 0 or top + box_height <= 0
    if outside or x1 <= x0 or y1 <= y0:
        shown = ", ".join(f"{side:g}" for side in box)
        raise BadImageError(f"{name}: the box ({shown}) is outside the image of {width} x {height} pixels; remove it")
    return pixels[y0:y1, x0:x1]


def _split(text: str) -> tuple[str, str, str]:
    results, _, rest = text.partition(":")
    annotations, _, root = rest.rpartition(":")
    if not (results and annotations and root):
        raise UserError(f"detections:{text}: expected {_FORM}")
    return results, annotations, os.path.expanduser(root)


def _file_names(annotations: str, root: str) -> dict[Any, str]:
    content: Any = load_json(annotations)
    try:
        return {image["id"]: os.path.join(root, image["file_name"]) for image in content["images"]}
    except (KeyError, TypeError) as error:
        raise UserError(f"{annotations}: not COCO annotations ({type(error).__name__}: {error})") from None


def _check_entry(entry: Any, where: str, path: str) -> tuple[list[float], float]:
    """The box and the score, 1 if there is none."""
    box = entry.get("bbox") if isinstance(entry, dict) else None
    if box is None:
        raise UserError(f'{where} has no "bbox"; for a dataset of imgcls give json:{path}')
    score = entry.get("score", 1.0)
    numbers = [*box, score] if isinstance(box, list) and len(box) == 4 else [math.nan]
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers) or min(box[2:]) <= 0:
        raise UserError(f"{where}: bbox {box!r}, score {score!r}; expected [x, y, width, height] with a size above 0")
    return [float(value) for value in box], float(score)

"""Which test images to show, and small copies of images inside the page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgcls.data.image import BadImageError, EncodedImage, read_bytes

SHOWN = 24
# Pixels: larger images are shrunk, smaller ones are enlarged by the browser.
_SIDE = 160


@dataclass
class PredictedImage:
    """One test image.

    Attributes:
        row: its position in ``predictions.csv``.
        image_id: of its record.
        file_name: its path.
        predicted: classes with their scores, best first.
        true: classes; with their scores where these are known.
        wrong: confidence in what is wrong, 0 to 1; 0 where all is right.
        doubt: larger means closer to another decision.
        mistaken: the classes to explain where the image is shown as a mistake.
        undecided: those to explain where it is shown as doubtful.
    """

    row: int
    image_id: str
    file_name: str
    predicted: list[tuple[str, float | None]]
    true: list[tuple[str, float | None]]
    wrong: float
    doubt: float
    mistaken: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)


def read_single_label(
    rows: Sequence[dict[str, str]], classes: Sequence[str], probabilities: NDArray[np.float32] | None
) -> list[PredictedImage]:
    """Predictions of a softmax head; with all probabilities, doubt is the margin between the two best classes."""
    found = []
    index = {name: k for k, name in enumerate(classes)}
    for row, cells in enumerate(rows):
        score, right = float(cells["score"]), cells["pred"] == cells["label"]
        predicted: list[tuple[str, float | None]] = [(cells["pred"], score)]
        true: tuple[str, float | None] = (cells["label"], None)
        doubt = 1 - score
        if probabilities is not None and len(classes) > 1:
            second = int(np.argpartition(probabilities[row], -2)[-2])
            predicted.append((classes[second], float(probabilities[row, second])))
            true = (cells["label"], float(probabilities[row, index[cells["label"]]]))
            doubt = 1 - (score - float(probabilities[row, second]))
        image = PredictedImage(
            row, cells["image_id"], cells["file_name"], predicted, [true], 0.0 if right else score, doubt
        )
        image.mistaken, image.undecided = [cells["pred"], cells["label"]], [name for name, _ in predicted]
        found.append(image)
    return found


def read_multi_label(rows: Sequence[dict[str, str]], threshold: float) -> list[PredictedImage]:
    """Predictions of a sigmoid head; doubt is the distance of the nearest known score to the threshold."""
    found = []
    for row, cells in enumerate(rows):
        true, pred = _scored(cells, "labels", "label_scores"), _scored(cells, "pred", "pred_scores")
        names = {name for name, _ in true}, {name for name, _ in pred}
        mistakes = [(score, name) for name, score in pred if name not in names[0]]
        mistakes += [(1 - score, name) for name, score in true if name not in names[1]]
        distances = [(abs(score - threshold), name) for name, score in true + pred]
        wrong, mistaken = max(mistakes, default=(0.0, ""))
        distance, undecided = min(distances, default=(1.0, ""))
        ranked = sorted(pred, key=lambda pair: -pair[1])
        image = PredictedImage(row, cells["image_id"], cells["file_name"], [*ranked], [*true], wrong, 1 - distance)
        image.mistaken = [mistaken] if mistakes else []
        image.undecided = [undecided] if distances else []
        found.append(image)
    return found


def choose_worst(predictions: Sequence[PredictedImage]) -> list[PredictedImage]:
    """The mistakes, most confident first."""
    return sorted((p for p in predictions if p.wrong > 0), key=lambda p: -p.wrong)[:SHOWN]


def choose_doubtful(predictions: Sequence[PredictedImage]) -> list[PredictedImage]:
    """The images nearest to another decision, right or wrong."""
    return sorted(predictions, key=lambda p: -p.doubt)[:SHOWN]


def find_record(prediction: PredictedImage, records: Sequence[dict] | None, num_rows: int) -> dict[str, Any]:
    """The record of a prediction, which says where a packed image is; its file name alone where there is none.

    Args:
        prediction: with its row.
        records: of the test set, in order; images that could not be read have no row. None where it is unknown.
        num_rows: of all predictions.
    """
    if records is not None:
        # Skipped images shift the rows, by at most the number of them.
        for position in range(prediction.row, prediction.row + max(0, len(records) - num_rows) + 1):
            record = records[position] if position < len(records) else {}
            if record.get("file_name") == prediction.file_name:
                return record
    return {"file_name": prediction.file_name}


def thumbnail(record: dict[str, Any]) -> str | None:
    """A small copy of a record's image as a data URI; None where the image cannot be read."""
    try:
        image = EncodedImage(read_bytes(record), record["file_name"], "RGB")
        # A large JPEG is decoded at a part of its size.
        scale = max((s for s in (1, 2, 4, 8) if min(image.size) >= s * _SIDE), default=1)
        return to_data_uri(image.pixels(scale))
    except (BadImageError, ValueError):
        return None


def to_data_uri(pixels: NDArray[np.uint8]) -> str:
    """Encodes RGB pixels ``(H, W, 3)``: small images as PNG, without loss, others as JPEG."""
    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    small = max(image.size) <= 64
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if small else "JPEG", quality=82)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _scored(cells: dict[str, str], names: str, scores: str) -> list[tuple[str, float]]:
    if not cells[names]:
        return []
    return [(n, float(s)) for n, s in zip(cells[names].split(";"), cells[scores].split(";"), strict=True)]

"""The folder of ``imgcls predict --save-images``: each image with its classes, and with Grad-CAM if asked for."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from imgcls.data.image import EncodedImage, read_bytes
from imgcls.errors import UserError
from imgcls.inference.batches import PredictedBatch
from imgcls.inference.cam import GradCam, overlay
from imgcls.inference.detections import crop_box
from imgcls.inference.draw import describe, draw_caption
from imgcls.inference.prediction import Prediction
from imgcls.inference.predictor import Predictor


class PredictionImages:
    """Draws predictions into a folder, as ``NUMBER_NAME.jpg``.

    Args:
        folder: created if it does not exist.
        predictor: of the predictions.
        records: all that are predicted.
        margin: around boxes, see ``crop_box``.
        with_cam: show the input of the network beside its Grad-CAM of the best class, in place of the whole image.

    Raises:
        UserError: the folder cannot be created; or Grad-CAM is not possible, see ``GradCam``.
    """

    def __init__(
        self,
        folder: str,
        predictor: Predictor,
        records: Sequence[Mapping[str, Any]],
        margin: float = 0.0,
        with_cam: bool = False,
    ):
        self.folder = folder
        self.records = records
        self.margin = margin
        self.image_format = predictor.info.contract["format"]
        self.index = {name: index for index, name in enumerate(predictor.info.classes)}
        self.cam = GradCam(predictor.classifier) if with_cam else None
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise UserError(f"--save-images {folder}: cannot be created ({error.strerror})") from error

    def add(self, first: int, batch: PredictedBatch) -> None:
        """Draws the readable images of a batch.

        Args:
            first: index of its first record.
            batch: of ``predict_records``.

        Raises:
            UserError: a drawing cannot be written.
        """
        readable = [(number, p) for number, p in enumerate(batch.predictions) if not p.error]
        heat = (
            self.cam(batch.images, [self.index[p.classes[0]] for _, p in readable]) if self.cam and readable else None
        )
        for position, (number, prediction) in enumerate(readable):
            if heat is None:
                pixels = self._read(first + number, prediction, batch.boxes[number])
            else:
                pixels = self._beside(batch.images[position], heat[position])
            stem = os.path.splitext(os.path.basename(str(prediction.source)))[0]
            path = os.path.join(self.folder, f"{first + number:06d}_{stem}.jpg")
            try:
                draw_caption(pixels, describe(prediction)).save(path, quality=90)
            except OSError as error:
                raise UserError(f"{path}: cannot be written ({error.strerror}); free some space") from error

    def _read(self, index: int, prediction: Prediction, box: Sequence[float] | None) -> NDArray[np.uint8]:
        name = str(prediction.source)
        pixels = EncodedImage(read_bytes(self.records[index]), name, "RGB").pixels()
        return pixels if box is None else crop_box(pixels, box, self.margin, name)

    def _beside(self, image: Tensor, heat: Tensor) -> NDArray[np.uint8]:
        """RGB ``(S, 2 S, 3)``: the input of the network, and the same with the map."""
        pixels = image.permute(1, 2, 0).numpy()
        pixels = np.ascontiguousarray(pixels if self.image_format == "RGB" else pixels[:, :, ::-1])
        return np.concatenate([pixels, overlay(pixels, heat)], axis=1)

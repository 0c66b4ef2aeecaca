"""The predictor: images in, classes and probabilities out, with the pixels of evaluation."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from PIL import Image
from torch import Tensor

from imgcls.data.crop import EvalCrop, whole_image
from imgcls.data.image import BadImageError
from imgcls.errors import UserError
from imgcls.inference.classifier import Classifier, ClassifierInfo, load_checkpoint_classifier
from imgcls.inference.inputs import ImageInput, as_image, check_channel_order
from imgcls.inference.prediction import Prediction, Ranking
from imgcls.structures import stack


class Predictor:
    """Predicts the classes of images, with every setting from the checkpoint.

    Images are resized and cropped exactly as in evaluation: with the same batch size, the probabilities are those of
    ``--eval-only`` bit for bit.

    Example::

        predictor = Predictor.from_checkpoint("output/model_final.pth")
        print(predictor("cat.jpg").classes[0])
        for prediction in predictor.predict(paths, batch_size=64):
            print(prediction.source, prediction.classes, prediction.probabilities)

    Args:
        classifier: the network with its settings.
    """

    def __init__(self, classifier: Classifier):
        self.classifier = classifier
        resized = self.info.resize_inside
        self.crop = whole_image if resized else EvalCrop(self.info.input_size, self.info.crop_pct)

    @classmethod
    def from_checkpoint(
        cls, path: str | os.PathLike[str], device: str | None = None, classes: Sequence[str] | None = None
    ) -> "Predictor":
        """A predictor from a classifier's checkpoint; arguments and errors as ``load_checkpoint_classifier``."""
        return cls(load_checkpoint_classifier(os.fspath(path), device, classes))

    @classmethod
    def from_exported(
        cls, path: str | os.PathLike[str], device: str | None = None, classes: Sequence[str] | None = None
    ) -> "Predictor":
        """A predictor from a file of ``imgcls export``; arguments and errors as ``export.load_exported``."""
        from imgcls.inference.export import load_exported

        return cls(load_exported(os.fspath(path), device, classes))

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], device: str | None = None, classes: Sequence[str] | None = None
    ) -> "Predictor":
        """``from_exported`` where the suffix is that of an export format, else ``from_checkpoint``."""
        from imgcls.inference.export import FORMATS

        exported = os.path.splitext(path)[1].lower() in FORMATS
        return (cls.from_exported if exported else cls.from_checkpoint)(path, device, classes)

    @property
    def info(self) -> ClassifierInfo:
        """Classes, thresholds, preprocessing and source of the classifier."""
        return self.classifier.info

    def __call__(self, image: ImageInput, topk: int = 5, channel_order: str | None = None) -> Prediction:
        """The prediction for one image; arguments and errors as for `predict`."""
        return next(self.predict([image], 1, topk, channel_order))

    def predict(
        self,
        images: Iterable[ImageInput],
        batch_size: int = 32,
        topk: int = 5,
        channel_order: str | None = None,
        errors: str = "raise",
    ) -> Iterator[Prediction]:
        """Predicts images one batch at a time, so that they may be more than fit into memory.

        Args:
            images: paths, ``PIL.Image`` objects (the EXIF orientation is applied), uint8 arrays ``(H, W, 3)`` or uint8
                tensors ``(3, H, W)``, 0-255, of any size.
            batch_size: images that go through the network together.
            topk: number of classes in each prediction.
            channel_order: of arrays and tensors, ``"RGB"``, or ``"BGR"`` as from OpenCV. It must be given for these;
                other images have their own.
            errors: what happens to an image that cannot be read. ``"raise"`` ends with the error, after the predictions
                of all images before it; ``"return"`` gives a prediction whose ``error`` says why.

        Returns:
            One prediction for each image, in their order.

        Raises:
            UserError: an argument is not allowed; for an image, when its batch is reached.
            BadImageError: an image cannot be read and ``errors`` is ``"raise"``.
        """
        if isinstance(images, (str, os.PathLike, Image.Image)) or getattr(images, "ndim", 4) == 3:
            raise UserError("predict takes several images; for a single one call predictor(image)")
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; allowed: a whole number from 1")
        if errors not in ("raise", "return"):
            raise UserError(f"errors is {errors!r}; allowed: 'raise' or 'return'")
        if channel_order is not None:
            check_channel_order(channel_order)
        ranking = Ranking(self.info, topk)
        return self._predict(iter(images), batch_size, ranking, channel_order, errors == "return")

    def crop_image(self, image: ImageInput, name: str = "image", channel_order: str | None = None) -> Tensor:
        """What the network gets for an image: uint8 ``(3, S, S)``, 0-255; arguments as for `predict`.

        With ``info.resize_inside`` it is the whole image.
        """
        return self.crop(as_image(image, name, self.info.contract["format"], channel_order))

    def predict_crops(
        self, crops: Sequence[Tensor], sources: Sequence[str | int], ranking: Ranking
    ) -> Iterator[Prediction]:
        """Predicts one batch of results of `crop_image`."""
        if crops and self.info.resize_inside:  # the images differ in size
            yield from ranking(sources, torch.cat([self.classifier.probabilities(image[None]) for image in crops]))
        elif crops:
            images = stack([{"image": crop} for crop in crops])["image"]
            yield from ranking(sources, self.classifier.probabilities(images))

    def _predict(
        self,
        images: Iterator[ImageInput],
        batch_size: int,
        ranking: Ranking,
        channel_order: str | None,
        return_errors: bool,
    ) -> Iterator[Prediction]:
        first = 0
        while batch := list(islice(images, batch_size)):
            sources = [_source(image, first + number) for number, image in enumerate(batch)]
            first += len(batch)
            crops: list[Tensor] = []
            errors: dict[int, str] = {}
            failure: UserError | None = None
            for number, (image, source) in enumerate(zip(batch, sources, strict=True)):
                name = source if isinstance(source, str) else f"image {source}"
                try:
                    crops.append(self.crop_image(image, name, channel_order))
                except UserError as error:
                    if not (return_errors and isinstance(error, BadImageError)):
                        failure, sources = error, sources[:number]
                        break
                    errors[number] = reason(error)
            good = [source for number, source in enumerate(sources) if number not in errors]
            predicted = self.predict_crops(crops, good, ranking)
            for number, source in enumerate(sources):
                yield Prediction(source, error=errors[number]) if number in errors else next(predicted)
            if failure is not None:
                if isinstance(failure, BadImageError):
                    raise BadImageError(f'{reason(failure)}; replace it, or give errors="return"') from failure
                raise failure


def reason(error: BadImageError) -> str:
    """The message of an unreadable image without the advice at its end, which is for training."""
    return str(error).rpartition("; ")[0] or str(error)


def _source(image: ImageInput, number: int) -> str | int:
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else number

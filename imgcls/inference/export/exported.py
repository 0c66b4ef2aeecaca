"""A classifier that was read from an exported file."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from imgcls.errors import UserError, UserFileNotFoundError
from imgcls.inference.classifier import ClassifierInfo
from imgcls.inference.export.formats import Run, find_format
from imgcls.inference.export.metadata import read_info


class ExportedClassifier:
    """A network in the format of another runtime, with the interface of ``Classifier``.

    Args:
        run: maps images to probabilities.
        info: of the file.
        nhwc: whether ``run`` takes ``(N, S, S, 3)``.
    """

    def __init__(self, run: Run, info: ClassifierInfo, nhwc: bool):
        self._run = run
        self.info = info
        self.nhwc = nhwc

    def probabilities(self, images: Tensor) -> Tensor:
        """As ``Classifier.probabilities``."""
        images = images.cpu()
        return self._run(images.permute(0, 2, 3, 1) if self.nhwc else images)

    def score(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Classifier.score``; the loss has fewer digits than one from logits, and is at most 100."""
        probabilities = self.probabilities(images)
        if self.info.multi_label:
            losses = functional.binary_cross_entropy(probabilities, labels, reduction="none").mean(dim=1)
        else:
            losses = functional.nll_loss(probabilities.log().clamp(min=-100), labels, reduction="none")
        return probabilities, losses


def load_exported(path: str, device: str | None = None, classes: Sequence[str] | None = None) -> ExportedClassifier:
    """Loads a file that `export_classifier` wrote.

    Nothing in it is loaded before its metadata was accepted, and archives of torch are checked for what could run code.

    Args:
        path: ends in a suffix of ``formats.FORMATS``.
        device: such as ``"cpu"`` or ``"cuda:1"``; None for the first GPU that the runtime can use, or the CPU.
        classes: names to use instead of those in the file.

    Raises:
        UserFileNotFoundError: there is no such file.
        UserError: the suffix is unknown, a package is missing, the file is damaged, was not exported by imgcls or needs
            another version of its runtime, or the device is not available.
    """
    file_format = find_format(path)
    if not os.path.isfile(path):
        raise UserFileNotFoundError(f"{path}: no such file")
    try:
        opened = file_format.open(path, device)
        info, nhwc = read_info(opened.metadata, path, opened.device, classes)
        run = opened.start()
        shape = (1, info.input_size, info.input_size, 3) if nhwc else (1, 3, info.input_size, info.input_size)
        probabilities = run(torch.zeros(shape, dtype=torch.uint8))
    except UserError:
        raise
    # Every runtime has its own exceptions, with messages of several lines.
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as {file_format.title} ({end_of_message(error)}); it is damaged, or for "
            "another version of its runtime: export it again from its checkpoint"
        ) from error
    if tuple(probabilities.shape) != (1, len(info.classes)):
        raise UserError(f"{path}: has outputs of shape {tuple(probabilities.shape)} for {len(info.classes)} classes")
    return ExportedClassifier(run, info, nhwc)


def end_of_message(error: Exception) -> str:
    """The end of the message of an exception, on one line; the reason is there, after source lines and signatures."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"... {text[-200:]}"

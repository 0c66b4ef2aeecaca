"""Grad-CAM: which parts of an image speak for a class, by captum."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imgcls.errors import UserError
from imgcls.inference.classifier import CheckpointClassifier, Classifier


class GradCam:
    """Grad-CAM on the feature that the head pools, for any backbone.

    Args:
        classifier: from ``load_checkpoint_classifier``; others have no gradients.

    Raises:
        UserError: captum is not installed, or the classifier is not from a checkpoint.
    """

    def __init__(self, classifier: Classifier):
        try:
            from captum.attr import LayerAttribution, LayerGradCam
        except ImportError:
            raise UserError('Grad-CAM needs captum: pip install -e ".[cam]"') from None
        if not isinstance(classifier, CheckpointClassifier):
            raise UserError(f"{classifier.info.source}: Grad-CAM needs the gradients of a network from a checkpoint")
        self.classifier = classifier
        model = classifier.model
        self._cam: Any = LayerGradCam(model.logits, model.head.pool)
        self._interpolate = LayerAttribution.interpolate

    def __call__(self, images: Tensor, labels: Sequence[int]) -> Tensor:
        """The map of one class for each image.

        Args:
            images: uint8 ``(N, C, S, S)``, as for ``Classifier.probabilities``.
            labels: N class indices.

        Returns:
            float32 ``(N, S, S)`` in [0, 1] on the CPU. The largest value of a map is 1, or all are 0 if nothing in the
            image speaks for the class.
        """
        device = self.classifier.model.device
        with torch.enable_grad():
            maps = self._cam.attribute(
                images.to(device).float().requires_grad_(),
                torch.as_tensor(list(labels), device=device),
                attribute_to_layer_input=True,
                relu_attributions=True,
            )
        maps = self._interpolate(maps.detach(), tuple(images.shape[2:]), "bilinear")[:, 0].float().cpu()
        peak = maps.amax(dim=(1, 2), keepdim=True)
        return torch.where(peak > 0, maps / peak.clamp(min=torch.finfo(maps.dtype).tiny), maps)


def overlay(pixels: NDArray[np.uint8], heat: Tensor, strength: float = 0.5) -> NDArray[np.uint8]:
    """A map laid over an image, from blue (0) to red (1).

    Args:
        pixels: RGB ``(S, S, 3)`` uint8.
        heat: ``(S, S)`` in [0, 1].
        strength: share of the map's colours in the result.

    Returns:
        RGB ``(S, S, 3)`` uint8.
    """
    colours = matplotlib.colormaps["jet"](heat.numpy())[:, :, :3] * 255
    return np.rint((1 - strength) * pixels + strength * colours).astype(np.uint8)

"""The network that is exported: raw images in, probabilities out."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from imgcls.data.crop import EvalCrop
from imgcls.inference.classifier import CheckpointClassifier
from imgcls.inference.fold import fold_batch_norm
from imgcls.modeling.clsnet import ClsNet


class ExportGraph(nn.Module):
    """A classifier with everything inside that its user would otherwise have to do: normalise, calibrate, softmax.

    Batch norms are folded into the convolutions. The weights are a copy on the CPU.

    Args:
        classifier: from ``load_checkpoint_classifier``.
        nhwc: whether images are ``(N, H, W, 3)``, as OpenCV and numpy have them.
        resize: whether images of any size are resized and cropped as in evaluation.
    """

    mean: Tensor
    std: Tensor | None

    def __init__(self, classifier: CheckpointClassifier, nhwc: bool = False, resize: bool = False):
        super().__init__()
        model = cast(ClsNet, fold_batch_norm(classifier.model).cpu())
        self.backbone, self.head = model.backbone, model.head
        self.head.pool = _GlobalMean()
        self.in_feature = model.in_feature
        self.multi_label = classifier.info.multi_label
        self.temperature = classifier.info.temperature
        self.nhwc = nhwc
        self.resize = resize
        self.size = classifier.info.input_size
        self.short = EvalCrop(self.size, classifier.info.crop_pct).short
        self.register_buffer("mean", model.pixel_mean)
        divided = _divide_first_weights(model.backbone, model.pixel_std)
        self.register_buffer("std", None if divided else model.pixel_std)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images to probabilities.

        Args:
            images: uint8 ``(N, 3, S, S)``, or ``(N, S, S, 3)`` with ``nhwc``; 0-255, in the channel order of the
                checkpoint. With ``resize``, of any one height and width.

        Returns:
            float32 ``(N, K)`` in [0, 1].
        """
        if self.nhwc:
            images = images.permute(0, 3, 1, 2)
        if self.resize:
            images = self._crop(images)
        pixels = images.float() - self.mean
        if self.std is not None:
            pixels = pixels / self.std
        logits = self.head(self.backbone(pixels)[self.in_feature])
        if self.temperature != 1.0:
            logits = logits / self.temperature
        return logits.sigmoid() if self.multi_label else logits.softmax(1)

    def _crop(self, images: Tensor) -> Tensor:
        """What ``EvalCrop`` does, in operators for which an exporter keeps height and width unknown."""
        sides: tuple[Any, ...] = images.shape[2:]  # SymInt while it is exported
        shorter = torch.sym_min(*sides)
        height, width = (self.short * side // shorter for side in sides)
        resized = interpolate(images, (height, width), mode="bilinear", antialias=True)
        return resized.narrow(2, self._start(height), self.size).narrow(3, self._start(width), self.size)

    def _start(self, side: int) -> int:
        """``round((side - size) / 2)``, half to even."""
        half, odd = (side - self.size) // 2, (side - self.size) % 2
        return half + odd * (half % 2)


class _GlobalMean(nn.Module):
    """The same as ``AdaptiveAvgPool2d(1)``, for which torch exports ten operators that compute strides."""

    def forward(self, feature: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to ``(N, C, 1, 1)``."""
        return feature.mean((2, 3), keepdim=True)


def _divide_first_weights(backbone: nn.Module, std: Tensor) -> bool:
    """Divides the weights of the convolution that gets the images by ``std``, which saves a pass over the pixels.

    The mean cannot be moved there, because a convolution pads with zeros after it was subtracted.

    Returns:
        False, with nothing changed, if no ordinary convolution gets the images.
    """
    inputs: list[tuple[nn.Conv2d, Tensor]] = []
    convs = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    hooks = [conv.register_forward_pre_hook(lambda conv, args: inputs.append((conv, args[0]))) for conv in convs]
    images = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        backbone(images)
    for hook in hooks:
        hook.remove()
    takers = [conv for conv, tensor in inputs if tensor is images]
    if len(takers) != 1 or takers[0].groups != 1:
        return False
    takers[0].weight.data.div_(std.view(1, -1, 1, 1))
    return True


def example_images(graph: ExportGraph) -> Tensor:
    """Images to trace a graph with: uint8 ``(2, 3, S, S)``, or ``(2, S, S, 3)``, and with ``resize`` not square.

    Two, because a batch of one would be taken for a fixed size.
    """
    height, width = (graph.size + 10, graph.size + 20) if graph.resize else (graph.size, graph.size)
    return torch.zeros((2, height, width, 3) if graph.nhwc else (2, 3, height, width), dtype=torch.uint8)


def dynamic_dimensions(graph: ExportGraph) -> dict[int, torch.export.Dim]:
    """The dimensions of the images that have no fixed size in an exported graph."""
    batch = {0: torch.export.Dim("batch")}
    if not graph.resize:
        return batch
    first = 1 if graph.nhwc else 2
    height, width = torch.export.Dim("height", min=1), torch.export.Dim("width", min=1)
    return {**batch, first: height, first + 1: width}

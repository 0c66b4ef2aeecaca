"""ClsNet: backbone, head and loss with detectron2's calling convention."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from torch import Tensor, nn

from imgcls.config.load import feature_names
from imgcls.errors import UserError
from imgcls.modeling.blocks import ConvStyle
from imgcls.modeling.head import ClsHead
from imgcls.modeling.losses import SigmoidLoss, SoftmaxLoss
from imgcls.structures import as_batch


@META_ARCH_REGISTRY.register()
class ClsNet(nn.Module):
    """An image classifier on any detectron2 backbone.

    It takes raw images, 0-255, in the channel order of ``pixel_mean``, and normalises them itself.

    The model can be pickled and copied. PyTorch cannot pickle compiled code, so a loaded or copied model is not
    compiled; call its ``backbone.compile()`` and ``head.compile()`` if it should be.

    Args:
        backbone: a backbone that returns ``in_feature``.
        head: maps that feature to logits.
        loss: ``SoftmaxLoss`` or ``SigmoidLoss``.
        in_feature: name of the feature that the head reads.
        pixel_mean: mean of each channel, 0-255.
        pixel_std: standard deviation of each channel, 0-255.
        topk: number of classes that inference returns.
        channels_last: store convolution weights and images in channels-last memory format, which is faster.
        compiled: compile backbone and head with ``torch.compile`` on their first call; parameter names do not change.

    Attributes:
        train_backbone: whether the backbone is trained, too. If not, it stays in evaluation mode and gets no gradients.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: ClsHead,
        loss: SoftmaxLoss | SigmoidLoss,
        in_feature: str,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        topk: int = 5,
        channels_last: bool = False,
        compiled: bool = False,
    ):
        super().__init__()
        self.channels_last = channels_last
        self.backbone = backbone.to(memory_format=self.memory_format)
        self.head = head.to(memory_format=self.memory_format)
        if compiled:
            self.backbone.compile()
            self.head.compile()
        self.loss = loss
        self.in_feature = in_feature
        self.topk = topk
        self.train_backbone = True
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean, dtype=torch.float32).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std, dtype=torch.float32).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads the constructor's arguments from ``MODEL``, ``TEST.TOPK`` and ``TEST.SAVE_PROBABILITIES``."""
        backbone = build_backbone(cfg)
        clsnet, mnet = cfg.MODEL.CLSNET, cfg.MODEL.MNET
        in_feature = _in_feature(feature_names(clsnet.IN_FEATURES, "MODEL.CLSNET.IN_FEATURES"), backbone)
        if clsnet.NUM_CLASSES < 1 or clsnet.POS_WEIGHT == "auto":
            raise UserError(
                "MODEL.CLSNET.NUM_CLASSES -1 and POS_WEIGHT 'auto' are read from the training set: "
                "call imgcls.engine.resolve_from_data(cfg) before building the model, or set numbers"
            )
        return {
            "backbone": backbone,
            "head": ClsHead(
                backbone.output_shape()[in_feature],
                clsnet.NUM_CLASSES,
                clsnet.HEAD_CONV_DIM,
                clsnet.DROPOUT,
                ConvStyle(mnet.ACTIVATION, mnet.NORM, mnet.BN_EPS, mnet.BN_MOMENTUM),
            ),
            "loss": build_loss(cfg),
            "in_feature": in_feature,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "topk": clsnet.NUM_CLASSES if cfg.TEST.SAVE_PROBABILITIES else max(cfg.TEST.TOPK),
            "channels_last": cfg.MODEL.CHANNELS_LAST,
            "compiled": cfg.MODEL.COMPILE,
        }

    @property
    def device(self) -> torch.device:
        """Device of the weights; ``forward`` moves images and labels to it."""
        return self.pixel_mean.device

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory format of weights and images; a property because ``torch.save`` cannot pickle its value."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def train(self, mode: bool = True) -> "ClsNet":
        """Sets the mode of all parts, but the backbone is in training mode only if it is trained."""
        super().train(mode)
        self.backbone.train(mode and self.train_backbone)
        return self

    def forward(self, batched_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Any:
        """Computes losses in training mode and predictions in evaluation mode.

        Args:
            batched_inputs: see ``structures.as_batch``. Labels are needed only in training. In evaluation mode, a batch
                that has them also gets a loss for each image.

        Returns:
            ``{"loss_cls": scalar}``, or one dict per image: ``"pred_classes"`` ``(k,)`` int64 best first, ``"scores"``
            ``(k,)`` float32 in [0, 1], with the sigmoid head ``"probs"`` ``(K,)``, and with labels the float32 scalar
            ``"loss"``, which has neither label smoothing nor ``POS_WEIGHT``.

        Raises:
            UserError: a training batch has no labels, or the caller is detectron2's ``DefaultPredictor``.
        """
        if not self.training:
            _refuse_default_predictor(batched_inputs)
        batch = as_batch(batched_inputs)
        logits = self.logits(batch.images)
        labels = None if batch.labels is None else batch.labels.to(self.device, non_blocking=True)
        if self.training:
            if labels is None:
                raise UserError('a training batch has no "label"; every record needs one')
            return {"loss_cls": self.loss(logits, labels)}
        results = self._predictions(self.loss.probabilities(logits))
        if labels is not None:
            for result, loss in zip(results, self.loss.per_image(logits, labels), strict=True):
                result["loss"] = loss
        return results

    def logits(self, images: Tensor) -> Tensor:
        """Maps raw images ``(N, C, H, W)``, 0-255, uint8 or float, to logits ``(N, K)``."""
        images = images.to(self.device, non_blocking=True).contiguous(memory_format=self.memory_format)
        normalised = (images - self.pixel_mean).div_(self.pixel_std)
        with torch.no_grad() if self.training and not self.train_backbone else nullcontext():
            feature = self.backbone(normalised)[self.in_feature]
        return self.head(feature)

    def _predictions(self, probs: Tensor) -> list[dict[str, Tensor]]:
        # probs.shape[1] would be a tensor while the model is traced.
        scores, classes = probs.topk(min(self.topk, self.head.num_classes), dim=1)
        results = [{"pred_classes": c, "scores": s} for c, s in zip(classes, scores, strict=True)]
        if self.loss.multi_label:
            for result, row in zip(results, probs, strict=True):
                result["probs"] = row
        return results


def _refuse_default_predictor(batched_inputs: Any) -> None:
    """Refuses what only detectron2's ``DefaultPredictor`` passes: one float image with its original size and no name.

    It resizes the short side to ``INPUT.MIN_SIZE_TEST`` (800 pixels) and does not crop, so nearly all classes would be
    wrong.
    """
    if isinstance(batched_inputs, Sequence) and len(batched_inputs) == 1:
        sample = batched_inputs[0]
        if isinstance(sample, Mapping) and set(sample) == {"image", "height", "width"}:
            raise UserError(
                "detectron2's DefaultPredictor resizes images as for a detector, so a ClsNet would give wrong classes; "
                'use imgcls.Predictor.from_checkpoint(path)(image, channel_order="BGR"), or pass {"image": ...} alone '
                "for an image that is already resized and cropped"
            )


def build_loss(cfg: CfgNode) -> SoftmaxLoss | SigmoidLoss:
    """Builds the loss that ``MODEL.CLSNET.HEAD`` names."""
    if cfg.MODEL.CLSNET.HEAD == "softmax":
        return SoftmaxLoss(cfg.MODEL.CLSNET.LABEL_SMOOTHING)
    if cfg.MODEL.CLSNET.HEAD == "sigmoid":
        return SigmoidLoss(cfg.MODEL.CLSNET.POS_WEIGHT)
    raise UserError(f"MODEL.CLSNET.HEAD is {cfg.MODEL.CLSNET.HEAD!r}; allowed: 'softmax' or 'sigmoid'")


def _in_feature(names: Sequence[str], backbone: Backbone) -> str:
    available = list(backbone.output_shape())
    if len(names) != 1 or names[0] not in available:
        raise UserError(
            f"MODEL.CLSNET.IN_FEATURES is {list(names)}; allowed: one of {available}, the features of the backbone"
        )
    return names[0]

"""Any timm network that offers features, as a detectron2 backbone."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor

from imgcls.checkpoint import build_checked, build_contract, check_contract
from imgcls.errors import UserError
from imgcls.modeling.timm_network import check_name, create_network, find_features, trim_and_freeze
from imgcls.modeling.timm_weights import load_weights

_logger = logging.getLogger(__name__)


class TimmBackbone(Backbone):
    """A timm network without its classifier; names, strides and channels of the features are timm's.

    Args:
        name: one of ``timm.list_models()``, with or without the ``.tag`` of its pretrained weights.
        out_features: features to return, empty for all; what comes after the last of them is not built.
        in_channels: channels of the image.
        pretrained: let timm download the weights.
        checkpoint: a local file with timm's weights of this network, to be loaded instead.
        freeze_at: 0 freezes nothing; k freezes everything that the k-th feature of the network is computed from.
            Frozen parameters get no gradients and frozen batch norms keep their statistics, so that training does not
            change a single bit of them.

    Raises:
        UserError: timm is not installed; the name or a feature is unknown; the network has no features, or features
            that are not maps; there are no pretrained weights; ``checkpoint`` does not fit, or is given together with
            ``pretrained``; ``freeze_at`` is beyond the last feature that is built, or includes a norm that cannot be
            frozen.
    """

    net: Any

    def __init__(
        self,
        name: str,
        out_features: Sequence[str] = (),
        *,
        in_channels: int = 3,
        pretrained: bool = False,
        checkpoint: str = "",
        freeze_at: int = 0,
    ):
        super().__init__()
        check_name(name, pretrained)
        if pretrained and checkpoint:
            raise UserError(
                f"MODEL.TIMM.PRETRAINED is True and MODEL.TIMM.CHECKPOINT is {checkpoint}; allowed: one of them"
            )
        offered = find_features(name, in_channels)
        _check_features(name, out_features, offered, freeze_at)
        self.name = name
        self._out_features = [feature for feature in offered if feature in (out_features or offered)]
        # The feature that freeze_at counts to is computed even if it is not returned: _freeze traces its parameters.
        last_frozen = list(offered)[freeze_at - 1 : freeze_at]
        self._computed = [feature for feature in offered if feature in (*self._out_features, *last_frozen)]
        indices = tuple(offered[feature] for feature in self._computed)
        self.net = create_network(name, in_chans=in_channels, pretrained=pretrained, out_indices=indices)
        if checkpoint:
            _logger.info(load_weights(self.net, name, checkpoint, in_channels))
        info = self.net.feature_info
        self._out_feature_channels = dict(zip(self._computed, info.channels(), strict=True))
        self._out_feature_strides = dict(zip(self._computed, info.reduction(), strict=True))
        self._freeze(in_channels, last_frozen)

    @property
    def _has_fixed_patches(self) -> bool:
        return self.net.pretrained_cfg.get("fixed_input_size", False)

    @property
    def size_divisibility(self) -> int:
        """The largest stride for transformers, whose images must consist of whole patches; 0 for other networks."""
        return max(self._out_feature_strides.values()) if self._has_fixed_patches else 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Maps normalised images ``(N, C, H, W)`` to ``{name: (N, channels, H / stride, W / stride)}``.

        The network decides how to round sides that are not multiples of the stride.

        Raises:
            UserError: the network does not accept images of this size.
        """
        features = self._features(x)
        return {name: features[name] for name in self._out_features}

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        try:
            maps = self.net(x)
        except AssertionError as error:
            raise UserError(
                f"MODEL.TIMM.NAME {self.name!r} does not accept images of {x.shape[-2]}x{x.shape[-1]} pixels: {error}; "
                "change their size (a classifier's is MODEL.CLSNET.INPUT_SIZE) or the network"
            ) from error
        if getattr(self.net, "output_fmt", "NCHW") == "NHWC":
            maps = [feature.permute(0, 3, 1, 2) for feature in maps]
        return dict(zip(self._computed, maps, strict=True))

    @torch.enable_grad()
    def _freeze(self, in_channels: int, names: Sequence[str]) -> None:
        """Freezes the network up to the named feature; a forward pass shows what each feature is computed from."""
        size = self.net.pretrained_cfg["input_size"][-2:]
        if not self._has_fixed_patches:
            size = [min(side, 224) for side in size]  # a few networks have 1024, which is slow
        self.net.eval()
        features = self._features(torch.zeros(1, in_channels, *size))
        for name, feature in features.items():
            channels = self._out_feature_channels[name]
            if feature.dim() != 4 or feature.shape[1] != channels:
                raise UserError(
                    f"MODEL.TIMM.NAME is {self.name!r}, whose feature {name} is {tuple(feature.shape)}; "
                    f"allowed: networks whose features are maps, here (N, {channels}, H, W)"
                )
        used, frozen = ([features[name] for name in chosen] for chosen in (self._out_features, names))
        trim_and_freeze(self.net, used, frozen, f"MODEL.TIMM.NAME {self.name!r}")
        self.net.train()


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Builds the timm network of ``MODEL.TIMM`` and ``MODEL.BACKBONE.FREEZE_AT``, for any detectron2 model.

    Raises:
        UserError: as ``TimmBackbone``, or the network's weights need other preprocessing in timm than the config's.
    """
    timm_cfg = cfg.MODEL.TIMM
    checkpoint = timm_cfg.CHECKPOINT
    if checkpoint and cfg.MODEL.WEIGHTS:  # they replace all weights, and the file may be gone by now
        _logger.info("MODEL.TIMM.CHECKPOINT %s is not read, because MODEL.WEIGHTS is set", checkpoint)
        checkpoint = ""
    backbone = TimmBackbone(
        timm_cfg.NAME,
        timm_cfg.OUT_FEATURES,
        in_channels=input_shape.channels,
        pretrained=timm_cfg.PRETRAINED,
        checkpoint=checkpoint,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    if (timm_cfg.PRETRAINED or checkpoint) and input_shape.channels == 3:
        pretrained = backbone.net.pretrained_cfg
        contract = {f"pixel_{name}": [round(255 * value, 4) for value in pretrained[name]] for name in ("mean", "std")}
        check_contract({"format": "RGB", **contract}, build_contract(cfg), f"timm's {timm_cfg.NAME}")
    build_checked(cfg, backbone)
    return backbone


def _check_features(name: str, out_features: Sequence[str], offered: Mapping[str, int], freeze_at: int) -> None:
    names = list(offered)
    if any(feature not in offered for feature in out_features):
        raise UserError(
            f"MODEL.TIMM.OUT_FEATURES is {list(out_features)}; allowed: [] for all, or some of {names}, "
            f"the features of {name}"
        )
    last = max(names.index(feature) for feature in out_features or names)
    if not 0 <= freeze_at <= last + 1:
        raise UserError(
            f"MODEL.BACKBONE.FREEZE_AT is {freeze_at}; allowed: 0 (nothing) to {last + 1} "
            f"(1 is {names[0]}, the last built feature is {names[last]})"
        )

"""Any network of timm that offers features, as a detectron2 backbone."""

from collections.abc import Mapping, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor

from imgcls.checkpoint import build_checked, build_contract, check_contract
from imgcls.errors import UserError
from imgcls.modeling.timm_network import check_name, create_network, find_features, trim_and_freeze


class TimmBackbone(Backbone):
    """A network of timm without its classifier; names, strides and channels of the features are timm's.

    Args:
        name: one of ``timm.list_models()``, with or without the ``.tag`` of its pretrained weights.
        out_features: which features to return, empty for all; what comes after the last of them is not built.
        in_channels: channels of the image.
        pretrained: timm downloads weights.
        freeze_at: 0 nothing, k all that the k-th feature of the network is computed from. Frozen parts get no
            gradient and frozen batch norms: not one bit of them changes in training.

    Raises:
        ValueError: timm is not installed; an unknown name or feature; a network without features, or with features
            that are no maps; no pretrained weights; ``freeze_at`` beyond the last feature that is built, or over
            a norm that cannot be frozen.
    """

    def __init__(
        self,
        name: str,
        out_features: Sequence[str] = (),
        *,
        in_channels: int = 3,
        pretrained: bool = False,
        freeze_at: int = 0,
    ):
        super().__init__()
        check_name(name, pretrained)
        offered = find_features(name, in_channels)
        _check_features(name, out_features, offered, freeze_at)
        self.name = name
        self._out_features = [feature for feature in offered if feature in (out_features or offered)]
        # The k-th feature is asked for too: it shows what has to be frozen.
        last_frozen = list(offered)[freeze_at - 1 : freeze_at]
        self._given = [feature for feature in offered if feature in (*self._out_features, *last_frozen)]
        indices = tuple(offered[feature] for feature in self._given)
        self.net = create_network(name, in_chans=in_channels, pretrained=pretrained, out_indices=indices)
        info = self.net.feature_info
        self._out_feature_channels = dict(zip(self._given, info.channels(), strict=True))
        self._out_feature_strides = dict(zip(self._given, info.reduction(), strict=True))
        self._freeze(in_channels, last_frozen)

    @property
    def _has_own_size(self) -> bool:
        return self.net.pretrained_cfg.get("fixed_input_size", False)

    @property
    def size_divisibility(self) -> int:
        """The largest stride for transformers, which cut the image into patches and cannot round up; else 0."""
        return max(self._out_feature_strides.values()) if self._has_own_size else 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Normalised images ``(N, C, H, W)`` to ``{name: (N, channels, H / stride, W / stride)}``.

        Sides that the stride does not divide are rounded as the network does.

        Raises:
            ValueError: an image size that the network does not take.
        """
        features = self._features(x)
        return {name: features[name] for name in self._out_features}

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        try:
            maps = self.net(x)
        except AssertionError as error:
            raise UserError(
                f"MODEL.TIMM.NAME {self.name!r} does not take images of {x.shape[-2]}x{x.shape[-1]} pixels: {error}; "
                "change their size (a classifier's is MODEL.CLSNET.INPUT_SIZE) or the network"
            ) from error
        if getattr(self.net, "output_fmt", "NCHW") == "NHWC":
            maps = [feature.permute(0, 3, 1, 2) for feature in maps]
        return dict(zip(self._given, maps, strict=True))

    @torch.enable_grad()
    def _freeze(self, in_channels: int, names: Sequence[str]) -> None:
        """Freezes up to the named feature; an image shows what each feature is computed from."""
        size = self.net.pretrained_cfg["input_size"][-2:]
        if not self._has_own_size:
            size = [min(side, 224) for side in size]  # some say 1024, which takes its time
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
    """A network of timm from ``MODEL.TIMM`` and ``MODEL.BACKBONE.FREEZE_AT``, for any detectron2 model.

    Raises:
        ValueError: as ``TimmBackbone``; pretrained weights of other preprocessing than the config's.
    """
    ours = cfg.MODEL.TIMM
    backbone = TimmBackbone(
        ours.NAME,
        ours.OUT_FEATURES,
        in_channels=input_shape.channels,
        pretrained=ours.PRETRAINED,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    if ours.PRETRAINED and input_shape.channels == 3:
        theirs = backbone.net.pretrained_cfg
        contract = {f"pixel_{name}": [round(255 * value, 4) for value in theirs[name]] for name in ("mean", "std")}
        check_contract({"format": "RGB", **contract}, build_contract(cfg), f"timm's {ours.NAME}")
    return build_checked(cfg, backbone)


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

"""What a conversion needs to know of a file, and the parts that the descriptions of all projects share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from imgcls.checkpoint.foreign.stated import FLAGS, Stated, list_flags
from imgcls.errors import UserError

STEM = "backbone.stages.stem"
HEAD_CONV = "head.conv"
LINEAR = "head.linear"
_CONFIG = """\
# {origin}
MODEL:
  META_ARCHITECTURE: "ClsNet"
{network}
  CLSNET:
    NUM_CLASSES: {num_classes}
    INPUT_SIZE: 224
    HEAD: "softmax"
    IN_FEATURES: ["{feature}"]
    HEAD_CONV_DIM: {head_conv_dim}
  PIXEL_MEAN: {pixel_mean}
  PIXEL_STD: {pixel_std}
INPUT:
  FORMAT: "{pixel_format}"
  CROP_PCT: {crop_pct}
VERSION: 2
"""
_MOBILENET = """\
  BACKBONE:
    NAME: "build_mnetv{version}_backbone"
    FREEZE_AT: 0
  MNET:
    WIDTH_MULT: {width_mult}
    DEPTH_MULT: 1.0
    BLOCKS: []
    STEM_STRIDE: 2
    ACTIVATION: "{activation}"
    NORM: "BN"
    BN_EPS: 0.00001"""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to convert a state dict of another project.

    Attributes:
        expected: the kind of file that is expected, for messages.
        origin: one line that describes the file, for the config.
        modules: source name to our name of each module that has tensors. Without a head, the result is a backbone.
        version: of MobileNet, 1 or 2; 0 for another network.
        width_mult: the factor on all channels.
        num_classes: the number of classes K; -1 without a head.
        head_conv_dim: channels of the head's 1x1 convolution, 0 for none.
        activation: of all convolutions; None where only the user knows it.
        pixel_format: channel order, ``"RGB"`` or ``"BGR"``; None likewise.
        pixel_mean: 0-255, in that order; None likewise.
        pixel_std: 0-255, in that order; None likewise.
        crop_pct: the share of the short side that is cropped in evaluation.
        resize: the resize rule of training.
        extra: names of tensors that are not weights of the network; one that ends in a dot is a prefix.
        known: what the project's own code has where this has None, for messages.
        stated_by_file: whether the file itself holds the preprocessing, so that the user cannot state another one.
        network: the part of the config that builds the backbone, in YAML; the other attributes are filled in.
        feature: of the backbone, for the head.
    """

    expected: str
    origin: str
    modules: Mapping[str, str]
    version: int
    width_mult: float
    num_classes: int
    head_conv_dim: int = 0
    activation: str | None = "relu6"
    pixel_format: str | None = "RGB"
    pixel_mean: Sequence[float] | None
    pixel_std: Sequence[float] | None
    crop_pct: float = 0.875
    resize: str = "bilinear, antialiased"
    extra: Sequence[str] = ()
    known: str = ""
    stated_by_file: bool = False
    network: str = _MOBILENET
    feature: str = "mob5"

    @property
    def has_head(self) -> bool:
        """Whether the file has a classifier."""
        return LINEAR in self.modules.values()

    def config(self) -> str:
        """Returns the config of the same network and preprocessing as YAML."""
        return _CONFIG.format(**vars(self) | {"network": self.network.format(**vars(self))})

    def complete(self, stated: Stated) -> "Recipe":
        """Returns the recipe with what the user states.

        Raises:
            UserError: something that only the user knows is not stated, or the file itself says what is stated.
        """
        given = stated.given()
        if self.stated_by_file and given:
            flags = ", ".join(FLAGS[name] for name in given)
            raise UserError(f"{self.origin}: the file itself says this; leave out {flags}")
        missing = [name for name in FLAGS if getattr(self, name) is None and name not in given]
        if missing:
            raise UserError(
                f"the file cannot say how {self.origin}, was trained; state {list_flags(missing)}, with the means and "
                f"deviations of pixels from 0 to 255; {self.known}"
            )
        return replace(self, **given)

    def is_extra(self, name: str) -> bool:
        """Whether a tensor of the file is known not to belong to the network."""
        return any(name.startswith(extra) if extra.endswith(".") else name == extra for extra in self.extra)


def count_outputs(state: Mapping[str, Tensor], name: str, otherwise: int) -> int:
    """Returns the output channels of a weight, or ``otherwise`` if it is missing, which `convert` reports later."""
    return max(1, state[name].shape[0]) if name in state and state[name].ndim else otherwise


def read_width(state: Mapping[str, Tensor], name: str, channels: int) -> float:
    """Returns the width from the last stage, which has ``channels`` at width 1 and the smallest rounding error."""
    return max(0.01, round(count_outputs(state, name, channels) / channels, 2))


def _blocks(*counts: int) -> tuple[str, ...]:
    stages = zip(("mob2", "mob3", "mob4", "mob5"), counts, strict=True)
    return tuple(f"backbone.stages.{stage}.{index}" for stage, count in stages for index in range(count))


V1_BLOCKS = _blocks(3, 2, 6, 2)
V2_BLOCKS = _blocks(3, 3, 7, 4)


def conv_norm(conv: str, norm: str, ours: str) -> dict[str, str]:
    """Maps a convolution and its norm; in our networks the norm is a child of the convolution."""
    return {conv: ours, norm: f"{ours}.norm"}


def block(source: str, pairs: Sequence[tuple[str, str]], ours: str) -> dict[str, str]:
    """Maps the convolutions of a MobileNetV2 block with their norms; only a block of three has an expansion."""
    parts = ("expand", "depthwise", "project")[-len(pairs) :]
    names: dict[str, str] = {}
    for (conv, norm), part in zip(pairs, parts, strict=True):
        names |= conv_norm(f"{source}.{conv}", f"{source}.{norm}", f"{ours}.{part}")
    return names

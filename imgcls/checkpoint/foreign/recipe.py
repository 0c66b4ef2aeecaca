"""What is known of a file of another project: the network, the images it was trained on, and its names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

_CONFIG = """\
# {origin}
MODEL:
  META_ARCHITECTURE: "ClsNet"
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
    BN_EPS: 0.00001
  CLSNET:
    NUM_CLASSES: {num_classes}
    INPUT_SIZE: 224
    HEAD_CONV_DIM: {head_conv_dim}
  PIXEL_MEAN: {pixel_mean}
  PIXEL_STD: {pixel_std}
INPUT:
  FORMAT: "{pixel_format}"
  CROP_PCT: {crop_pct}
VERSION: 2
"""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a state dict of another project is read.

    Attributes:
        expected: what kind of file it must be, for messages.
        origin: one line on what it is, for the config.
        modules: the name of each module with tensors, there and here.
        version: of MobileNet, 1 or 2.
        width_mult: multiplies all channels.
        num_classes: K.
        head_conv_dim: channels of the head's 1x1 convolution, 0 for none.
        activation: of all convolutions.
        pixel_format: channel order, ``"RGB"`` or ``"BGR"``.
        pixel_mean: 0-255, in that order.
        pixel_std: 0-255, in that order.
        crop_pct: share of the short side that its evaluation crops.
        resize: the rule it was trained with.
        beside: names of tensors that are no weights of the network.
    """

    expected: str
    origin: str
    modules: Mapping[str, str]
    version: int
    width_mult: float
    num_classes: int
    head_conv_dim: int = 0
    activation: str = "relu6"
    pixel_format: str = "RGB"
    pixel_mean: Sequence[float]
    pixel_std: Sequence[float]
    crop_pct: float = 0.875
    resize: str = "bilinear, antialiased"
    beside: Sequence[str] = ()

    def config(self) -> str:
        """The config of the same network on the same images, as YAML."""
        return _CONFIG.format(**vars(self))


def count_outputs(state: Mapping[str, Tensor], name: str, otherwise: int) -> int:
    """Output channels of a weight; ``otherwise`` where it is not there, which the comparison of names reports."""
    return max(1, state[name].shape[0]) if name in state and state[name].ndim else otherwise


def read_width(state: Mapping[str, Tensor], name: str, channels: int) -> float:
    """The width of a network whose last stage has ``channels`` at width 1, where rounding to 8 matters least."""
    return max(0.01, round(count_outputs(state, name, channels) / channels, 2))

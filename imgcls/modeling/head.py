"""The classifier on top of a backbone feature."""

from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from imgcls.modeling.blocks import ConvStyle, conv_norm


class ClsHead(nn.Module):
    """Optional 1x1 convolution, global average pooling, dropout, linear.

    Args:
        input_shape: shape of the feature, an entry of the backbone's ``output_shape()``.
        num_classes: K.
        conv_dim: channels of the 1x1 convolution (MobileNetV2: 1280), 0 for none.
        dropout: probability of zeroing a pooled channel in training.
        style: norm and activation of the 1x1 convolution.
    """

    def __init__(
        self,
        input_shape: ShapeSpec,
        num_classes: int,
        conv_dim: int = 0,
        dropout: float = 0.0,
        style: ConvStyle | None = None,
    ):
        super().__init__()
        self.conv = conv_norm(input_shape.channels, conv_dim, style or ConvStyle()) if conv_dim else nn.Identity()
        self.pool: nn.Module = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(conv_dim or input_shape.channels, num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    @property
    def num_classes(self) -> int:
        """K, the number of logits per image."""
        return self.linear.out_features

    def forward(self, feature: Tensor) -> Tensor:
        """Maps a feature ``(N, C, H, W)`` to logits ``(N, K)``, unbounded."""
        return self.linear(self.dropout(self.pool(self.conv(feature)).flatten(1)))

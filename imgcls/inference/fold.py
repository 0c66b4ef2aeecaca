"""Batch norm folded into the convolution before it: the same function with half of the layers."""

import copy

from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy of a trained model for inference, in evaluation mode.

    detectron2's ``Conv2d`` with a batch norm (``"BN"``, ``"SyncBN"``, ``"naiveSyncBN"``, ``"FrozenBN"``) becomes one
    with a bias; any other norm stays. Outputs differ by rounding only. The copy must not be trained, and its parameters
    have other names than the model's.

    Args:
        model: a ``ClsNet``, a backbone, or any module of detectron2's convolutions; it is left as it was.
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, Conv2d) and isinstance(module.norm, _NORMS):
            _fold(module)
    return model


def _fold(conv: Conv2d) -> None:
    norm = conv.norm
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.norm = None

"""Folds batch norms into the preceding convolutions, which computes the same function with half of the layers."""

import copy

from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Copies a trained model and folds its batch norms, for inference.

    detectron2's ``Conv2d`` with a batch norm (``"BN"``, ``"SyncBN"``, ``"naiveSyncBN"``, ``"FrozenBN"``) becomes one
    with a bias; other norms stay. Outputs differ by rounding only. The copy is in evaluation mode and must not be
    trained; its state dict differs from the model's.

    Args:
        model: a ``ClsNet``, a backbone, or any module with detectron2's convolutions; it is not changed.
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

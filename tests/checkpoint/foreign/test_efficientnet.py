"""A network with the names of EfficientNet-PyTorch and random weights gives the same logits after conversion."""

import pytest
import torch
import torch.nn.functional as F
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from imgcls.checkpoint.foreign import plan_conversion
from imgcls.config import check_cfg, get_cfg

# Kernel, stride, expansion, output channels and blocks of each row (arXiv 1905.11946, table 1).
ROWS = [
    *[(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3)],
    *[(5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1)],
]


class SameConv(nn.Conv2d):
    """TensorFlow's padding: what is left over of an odd number goes to the bottom and the right."""

    def forward(self, x):
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:]]
        x = F.pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
        return super().forward(x)


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """One block; names as in EfficientNet-PyTorch."""

    def __init__(self, inputs, outputs, kernel, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        self._expand_conv = SameConv(inputs, hidden, 1, bias=False) if expansion > 1 else None
        self._bn0 = norm(hidden) if expansion > 1 else None
        self._depthwise_conv = SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = norm(hidden)
        self._project_conv = SameConv(hidden, outputs, 1, bias=False)
        self._bn2 = norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        y = F.relu6(self._bn0(self._expand_conv(x))) if self._expand_conv else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class LiteNet(nn.Module):
    """EfficientNet-Lite0: no squeeze-and-excitation, ReLU6."""

    def __init__(self, num_classes=10):
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, 2, bias=False), norm(32)
        self._blocks, channels = nn.ModuleList(), 32
        for kernel, stride, expansion, outputs, count in ROWS:
            for index in range(count):
                self._blocks.append(Block(channels, outputs, kernel, 1 if index else stride, expansion))
                channels = outputs
        self._conv_head, self._bn1 = SameConv(320, 1280, 1, bias=False), norm(1280)
        self._fc = nn.Linear(1280, num_classes)

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return self._fc(F.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))


def test_logits_are_the_same(raw, settle, check_complete):
    prepared = (raw.float() - 127) / 128
    net = settle(LiteNet(), prepared)
    plan = plan_conversion("auto", {"model": net.state_dict()})
    assert plan.source == "efficientnet_lite0"
    assert plan.summary().startswith(
        "247/247 tensors of EfficientNet-Lite0 of EfficientNet-PyTorch, converted; dropped"
    )
    converted = plan.checkpoint()
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(converted["imgcls"]["cfg"])))
    cfg.MODEL.DEVICE = "cpu"
    check_cfg(cfg)
    model = build_model(cfg).eval()
    keys = model.load_state_dict(converted["model"], strict=False)
    assert keys.unexpected_keys == [] and all(key.endswith("num_batches_tracked") for key in keys.missing_keys)
    with torch.no_grad():
        wanted = net(prepared)
        assert wanted.std() > 0.1 and (wanted[0] - wanted[1]).abs().max() > 0.01
        torch.testing.assert_close(model.logits(raw), wanted, rtol=1e-5, atol=1e-5)


def test_a_larger_network_is_refused():
    net = LiteNet()
    net._blocks.append(Block(320, 320, 3, 1, 6))
    with pytest.raises(ValueError, match=r"not EfficientNet-Lite0 .*: 247/247 tensors fit; 15 unknown \(_blocks\.16"):
        plan_conversion("auto", {"model": net.state_dict()})

"""Parameters and multiply-accumulates of a config's network."""

import logging

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn


def build_complexity(cfg: CfgNode) -> dict[str, int]:
    """Builds the classifier on the CPU and runs one picture of its input size through it.

    Returns:
        ``parameters`` (all), ``trunk`` (those of the backbone), ``macs`` (of convolution and linear layers, one
        picture, as fvcore counts them) and ``input_size`` in pixels.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg).eval()
    size = cfg.MODEL.CLSNET.INPUT_SIZE
    # fvcore warns of every operator that it has no count for; they are not counted on purpose.
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    counts = FlopCountAnalysis(_Logits(model), torch.zeros(1, 3, size, size)).by_operator()
    return {
        "input_size": size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trunk": sum(parameter.numel() for parameter in model.backbone.parameters()),
        "macs": counts["conv"] + counts["linear"],
    }


class _Logits(nn.Module):
    """The part of a ClsNet that fvcore can trace."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.logits(images)

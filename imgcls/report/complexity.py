"""Parameters and multiply-accumulates of a config's network."""

import logging

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from imgcls.checkpoint import find_backbone

# Side of the image that a detector's backbone and FPN are counted with; heads depend on what is found.
DETECTOR_SIZE = 512


def build_complexity(cfg: CfgNode) -> dict[str, int]:
    """Builds the model on the CPU and runs one image of its input size through it.

    Returns:
        ``parameters`` (all), ``trunk`` (those of the backbone, without FPN), ``macs`` (of convolution and linear
        layers, one image, as fvcore counts them; of a detector, those of backbone and FPN) and ``input_size`` in
        pixels.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg).eval()
    classifier = cfg.MODEL.META_ARCHITECTURE == "ClsNet"
    size = cfg.MODEL.CLSNET.INPUT_SIZE if classifier else DETECTOR_SIZE
    # fvcore warns of every operator that it has no count for; they are not counted on purpose.
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    counts = FlopCountAnalysis(_Traced(model, classifier), torch.zeros(1, 3, size, size)).by_operator()
    return {
        "input_size": size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trunk": sum(parameter.numel() for parameter in find_backbone(model).parameters()),
        "macs": counts["conv"] + counts["linear"],
    }


class _Traced(nn.Module):
    """The part of a model that fvcore can trace."""

    def __init__(self, model: nn.Module, classifier: bool):
        super().__init__()
        self.model = model
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.model.logits(images) if self.classifier else tuple(self.model.backbone(images).values())

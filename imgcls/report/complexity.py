"""Parameters and multiply-accumulates of a config's network."""

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from imgcls.checkpoint import find_backbone

# Side of the image, in pixels, for a detector's backbone and FPN. The cost of the heads depends on the detections.
DETECTOR_SIZE = 512


def build_complexity(cfg: CfgNode) -> dict[str, int]:
    """Builds the model of a config on the CPU and counts it, see ``count_complexity``.

    A number of classes that is taken from the data (-1) is counted as 1,000.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    if cfg.MODEL.CLSNET.NUM_CLASSES == -1:
        cfg.MODEL.CLSNET.NUM_CLASSES = 1000
    classifier = cfg.MODEL.META_ARCHITECTURE == "ClsNet"
    return count_complexity(build_model(cfg).eval(), cfg.MODEL.CLSNET.INPUT_SIZE if classifier else DETECTOR_SIZE)


@torch.no_grad()
def count_complexity(model: Any, size: int) -> dict[str, int]:
    """Runs a model on one image.

    Args:
        model: a ``ClsNet`` or a detector, on the CPU and in evaluation mode.
        size: side of the image in pixels.

    Returns:
        ``parameters`` (all), ``trunk`` (those of the backbone, without FPN), ``macs`` (multiply-accumulates of
        convolution and linear layers for one image; for a detector, only those of backbone and FPN) and
        ``input_size`` in pixels.
    """
    macs = 0

    def add(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        # Each output is a sum over the weights of one filter.
        macs += output.numel() * layer.weight[0].numel()

    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    run = model.logits if hasattr(model, "logits") else model.backbone
    run(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return {
        "input_size": size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trunk": sum(parameter.numel() for parameter in find_backbone(model).parameters()),
        "macs": macs,
    }


def table_rows(counts: Mapping[str, Mapping[str, int]], folder: str = "configs") -> list[str]:
    """The lines of a Markdown table.

    Args:
        counts: results of ``build_complexity`` by config name.
        folder: prefix of the links to the configs.
    """
    rows = ["| config | input | parameters | of which backbone | multiply-accumulates |", "|---|---|---|---|---|"]
    for name, count in counts.items():
        rows.append(
            f"| [{name}]({folder}/{name}) | {count['input_size']} | {count['parameters']:,} | {count['trunk']:,} "
            f"| {count['macs']:,} |"
        )
    return rows

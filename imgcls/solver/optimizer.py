"""The optimizer of a classifier: detectron2's, with a learning rate of its own for the backbone."""

import detectron2.solver
from detectron2.config import CfgNode
from torch import nn
from torch.optim import Optimizer


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """Builds the optimizer that ``SOLVER`` describes.

    Args:
        cfg: ``SOLVER.BACKBONE_MULTIPLIER`` is a factor on the learning rate of ``model.backbone``.
        model: a ``ClsNet``; any other model with the factor 1.
    """
    factor = cfg.SOLVER.BACKBONE_MULTIPLIER
    if factor == 1.0:
        return detectron2.solver.build_optimizer(cfg, model)
    backbone = model.get_submodule("backbone")
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        return detectron2.solver.build_optimizer(cfg, model)
    slower = cfg.clone()
    slower.defrost()
    slower.SOLVER.BASE_LR *= factor
    others = nn.ModuleList(module for name, module in model.named_children() if name != "backbone")
    optimizer = detectron2.solver.build_optimizer(cfg, others)
    for group in detectron2.solver.build_optimizer(slower, backbone).param_groups:
        optimizer.add_param_group(group)
    return optimizer

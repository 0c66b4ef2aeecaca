import detectron2.solver
import pytest
import torch

from imgcls.modeling import ClsNet
from imgcls.solver import build_optimizer


def settings(optimizer):
    """Options of each parameter."""
    return {
        parameter: (group["lr"], group["weight_decay"], group["momentum"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_without_a_factor_it_is_detectron2s(tiny_cfg):
    model = ClsNet(tiny_cfg)
    assert settings(build_optimizer(tiny_cfg, model)) == settings(detectron2.solver.build_optimizer(tiny_cfg, model))


@pytest.mark.parametrize("clip", [False, True])
def test_the_backbone_has_a_learning_rate_of_its_own(tiny_cfg, clip):
    tiny_cfg.merge_from_list(
        ["SOLVER.BACKBONE_MULTIPLIER", 0.1, "SOLVER.BASE_LR", 0.5, "SOLVER.WEIGHT_DECAY_NORM", 0.0,
         "SOLVER.MOMENTUM", 0.8, "SOLVER.CLIP_GRADIENTS.ENABLED", clip]
    )  # fmt: skip
    model = ClsNet(tiny_cfg)
    plain, ours = settings(detectron2.solver.build_optimizer(tiny_cfg, model)), build_optimizer(tiny_cfg, model)
    backbone = set(model.backbone.parameters())
    expected = {p: ((lr * 0.1 if p in backbone else lr), *rest) for p, (lr, *rest) in plain.items()}
    assert settings(ours) == expected
    assert {decay for _, decay, _ in expected.values()} == {0.0, tiny_cfg.SOLVER.WEIGHT_DECAY}
    torch.stack([parameter.sum() for parameter in model.parameters()]).sum().backward()
    ours.step()  # with clipped gradients


def test_a_frozen_backbone_has_no_group(tiny_cfg):
    tiny_cfg.merge_from_list(["SOLVER.BACKBONE_MULTIPLIER", 0.1, "MODEL.BACKBONE.FREEZE_AT", 5])
    model = ClsNet(tiny_cfg)
    assert set(settings(build_optimizer(tiny_cfg, model))) == set(model.head.parameters())

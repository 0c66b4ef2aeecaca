import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d
from detectron2.modeling import build_backbone, build_model
from torch import nn

from imgcls.config import get_cfg
from imgcls.inference import fold_batch_norm


def randomise(model):
    """Sets statistics and weights of norms to values other than 0 and 1, as after training."""
    for module in model.modules():
        if hasattr(module, "running_var"):
            for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
                getattr(module, name).data.uniform_(low, low + 1)


@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "naiveSyncBN"])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_logits_and_predictions_are_those_of_the_model(tiny_cfg: CfgNode, norm, version):
    tiny_cfg.MODEL.BACKBONE.NAME = f"build_mnet{version}_backbone"
    tiny_cfg.MODEL.MNET.NORM, tiny_cfg.MODEL.CLSNET.HEAD_CONV_DIM = norm, 16
    if version == "v2":
        tiny_cfg.MODEL.MNET.BLOCKS = []
    model = build_model(tiny_cfg)
    randomise(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_batch_norm(model)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert model.training and not folded.training
    model.eval()
    with torch.inference_mode():
        torch.testing.assert_close(folded.logits(images), model.logits(images), rtol=1e-4, atol=1e-4)
        ours, theirs = folded({"image": images}), model({"image": images})
    assert [p["pred_classes"].tolist() for p in ours] == [p["pred_classes"].tolist() for p in theirs]
    assert not any(hasattr(module, "running_var") for module in folded.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_every_feature_of_a_backbone_under_an_fpn():
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.MNET.WIDTH_MULT = "build_mnetv1_fpn_backbone", 0.25
    cfg.MODEL.FPN.IN_FEATURES = cfg.MODEL.MNET.OUT_FEATURES = ["mob3", "mob4", "mob5"]
    backbone = build_backbone(cfg).eval()
    randomise(backbone)
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected, got = backbone(images), fold_batch_norm(backbone)(images)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-4 * value.abs().max().item())


def test_other_norms_stay():
    model = nn.Sequential(Conv2d(4, 4, 1, norm=nn.GroupNorm(2, 4)), Conv2d(4, 4, 1))
    folded = fold_batch_norm(model)
    assert isinstance(folded[0].norm, nn.GroupNorm)
    x = torch.rand(2, 4, 5, 5)
    assert torch.equal(folded(x), model(x))

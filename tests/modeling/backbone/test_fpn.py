"""Our backbones in detectron2's detectors: they train, infer, and come back from a checkpoint."""

import copy
import logging

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from imgcls.config import load_cfg

SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", "32", "MODEL.RETINANET.NUM_CLASSES", "3",
    "MODEL.ROI_HEADS.NUM_CLASSES", "3", "MODEL.ROI_BOX_HEAD.FC_DIM", "64", "MODEL.ROI_MASK_HEAD.CONV_DIM", "32",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN", "100", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "50",
    "MODEL.RPN.PRE_NMS_TOPK_TEST", "100", "MODEL.RPN.POST_NMS_TOPK_TEST", "50",
]  # fmt: skip


@pytest.fixture
def config(request):
    def load(name, *changes):
        return load_cfg(str(request.config.rootpath / f"configs/COCO-Detection/{name}.yaml"), [*SMALL, *changes])

    return load


def batch(masks=False):
    instances = Instances((96, 96))
    instances.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 60.0, 70.0], [50.0, 40.0, 90.0, 90.0]]))
    instances.gt_classes = torch.tensor([0, 2])
    if masks:
        instances.gt_masks = BitMasks(torch.ones(2, 96, 96, dtype=torch.bool))
    pictures = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    return [{"image": picture, "instances": instances, "height": 96, "width": 96} for picture in pictures]


def train_step(model, data):
    """One step of SGD; the losses."""
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    with EventStorage():
        losses = model(data)
    sum(losses.values()).backward()
    optimizer.step()
    return losses


@pytest.mark.parametrize("width", ["0.25", "0.5"])
@pytest.mark.parametrize("version", ["mnetv1", "mnetv2"])
@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn"])
def test_detector_trains_infers_and_comes_back(config, tmp_path, detector, version, width):
    """FREEZE_AT 2 of the configs: stem and mob2 do not change, statistics included."""
    cfg = config(f"{detector}_{version}_FPN_1x", "MODEL.MNET.WIDTH_MULT", width, "MODEL.MNET.NORM", "BN")
    model = build_model(cfg)
    before = copy.deepcopy(model.state_dict())
    losses = train_step(model, batch())
    assert all(torch.isfinite(loss) for loss in losses.values())
    frozen = ("backbone.bottom_up.stages.stem.", "backbone.bottom_up.stages.mob2.")
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith(frozen))
    assert not torch.equal(after["backbone.bottom_up.stages.mob3.0.depthwise.weight"],
                           before["backbone.bottom_up.stages.mob3.0.depthwise.weight"])  # fmt: skip

    DetectionCheckpointer(model, str(tmp_path)).save("detector")
    again = build_model(cfg)
    DetectionCheckpointer(again).load(str(tmp_path / "detector.pth"))
    data = batch()
    with torch.no_grad():
        one, two = ([r["instances"] for r in m.eval()(data)] for m in (model, again))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor) and torch.equal(a.scores, b.scores)


def test_mask_rcnn_trains_a_step(config):
    model = build_model(
        config("faster_rcnn_mnetv1_025_FPN_1x", "MODEL.MASK_ON", "True", "INPUT.MASK_FORMAT", "bitmask")
    )
    assert torch.isfinite(train_step(model, batch(masks=True))["loss_mask"])


def test_single_level_faster_rcnn_on_mob4(config):
    cfg = config(
        "faster_rcnn_mnetv1_025_FPN_1x",
        *["MODEL.BACKBONE.NAME", "build_mnetv1_backbone", "MODEL.MNET.OUT_FEATURES", "['mob4']"],
        *["MODEL.RPN.IN_FEATURES", "['mob4']", "MODEL.ROI_HEADS.IN_FEATURES", "['mob4']"],
        *["MODEL.ANCHOR_GENERATOR.SIZES", "[[32, 64]]"],
    )
    model = build_model(cfg)
    assert list(model.backbone.output_shape()) == ["mob4"]
    assert torch.isfinite(sum(train_step(model, batch()).values()))
    with torch.no_grad():
        assert model.eval()(batch())[0]["instances"].image_size == (96, 96)


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("retinanet_mnetv1_025_FPN_1x", {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}),
        ("retinanet_mnetv2_FPN_1x", {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}),
        ("faster_rcnn_mnetv1_025_FPN_1x", {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}),
    ],
)
def test_pyramid_has_the_declared_levels(config, name, levels):
    backbone = build_backbone(config(name)).eval()
    shapes = backbone.output_shape()
    assert {level: shape.stride for level, shape in shapes.items()} == levels
    with torch.no_grad():
        for level, feature in backbone(torch.zeros(1, 3, 128, 128)).items():
            assert feature.shape == (1, 32, 128 // levels[level], 128 // levels[level])


def test_retinanets_extra_levels_come_from_the_last_feature_of_the_backbone(config):
    backbone = build_backbone(config("retinanet_mnetv1_025_FPN_1x"))
    assert backbone.top_block.in_feature == "mob5" and backbone.top_block.p6.in_channels == 256


@pytest.mark.parametrize("depth", ["0.5", "2.0"])
def test_any_depth(config, depth):
    cfg = config("retinanet_mnetv1_025_FPN_1x", "MODEL.MNET.DEPTH_MULT", depth)
    assert len(build_backbone(cfg).bottom_up.stages["mob4"]) == 6 * float(depth)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["MODEL.MNET.OUT_FEATURES", "['mob4', 'mob5']"], r"IN_FEATURES is \['mob3', 'mob4', 'mob5'\]; .*OUT_FEATURES"),
        (["MODEL.FPN.IN_FEATURES", "['mob3', 'mob5']"], r"strides \[8, 32\].*twice the stride"),
        (["MODEL.FPN.IN_FEATURES", "['mob5', 'mob4']"], r"strides \[32, 16\]"),
        (["MODEL.FPN.IN_FEATURES", "['res3']"], r"the backbone gives \['mob3', 'mob4', 'mob5'\]"),
        (["MODEL.FPN.IN_FEATURES", "[]"], r"MODEL\.FPN\.IN_FEATURES is \[\]"),
        (["MODEL.BACKBONE.FREEZE_AT", "6"], r"MODEL\.BACKBONE\.FREEZE_AT is 6; allowed: 0 \(nothing\) to 5"),
        (["MODEL.MNET.WIDTH_MULT", "-1.0"], r"WIDTH_MULT is -1\.0"),
    ],
)
def test_refusals(config, changes, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(config("retinanet_mnetv1_025_FPN_1x", *changes))


def test_frozen_bn_and_sync_bn_are_one_line(config):
    for norm, kind in (("FrozenBN", "FrozenBatchNorm2d"), ("SyncBN", "NaiveSyncBatchNorm")):
        backbone = build_backbone(config("retinanet_mnetv1_025_FPN_1x", "MODEL.MNET.NORM", norm))
        found = {type(m).__name__ for m in backbone.bottom_up.stages["mob5"].modules() if "Norm" in type(m).__name__}
        assert len(found) == 1 and found <= {kind, "SyncBatchNorm"}


def test_a_plain_builder_is_quiet_about_weights_that_are_not_ours(config, tmp_path, caplog):
    """A detector's own checkpoint, a missing file and the model zoo's names are for the checkpointer."""
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "other.pth")
    with caplog.at_level(logging.WARNING):
        for weights in (str(tmp_path / "other.pth"), str(tmp_path / "gone.pth"), "detectron2://x.pkl"):
            assert build_backbone(config("retinanet_mnetv1_025_FPN_1x", "MODEL.WEIGHTS", weights))
    assert caplog.text == ""

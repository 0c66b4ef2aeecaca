"""Our backbones in detectron2's detectors: training, inference and checkpoints."""

import copy
import logging

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.layers import get_norm
from detectron2.modeling import FPN, build_backbone, build_model
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from imgcls.config import load_cfg

SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.FPN.OUT_CHANNELS", "32", "MODEL.RETINANET.NUM_CLASSES", "3",
    "MODEL.ROI_HEADS.NUM_CLASSES", "3", "MODEL.ROI_BOX_HEAD.FC_DIM", "64", "MODEL.ROI_MASK_HEAD.CONV_DIM", "32",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN", "100", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "50",
    "MODEL.RPN.PRE_NMS_TOPK_TEST", "100", "MODEL.RPN.POST_NMS_TOPK_TEST", "50",
]  # fmt: skip
# An untrained RetinaNet predicts scores of 0.01, below its threshold.
ALL_BOXES = ["MODEL.RETINANET.SCORE_THRESH_TEST", "0.0", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]


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
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    return [{"image": image, "instances": instances, "height": 96, "width": 96} for image in images]


def train_step(model, data):
    """Takes one step of SGD and returns the losses."""
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    with EventStorage():
        losses = model(data)
    sum(losses.values()).backward()
    optimizer.step()
    return losses


@pytest.mark.parametrize("version", ["mnetv1", "mnetv2"])
@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn"])
def test_detector_trains_infers_and_loads_its_checkpoint(config, tmp_path, detector, version):
    """The configs have FREEZE_AT 2: stem and mob2 do not change, including their statistics."""
    cfg = config(f"{detector}_{version}_FPN_1x", "MODEL.MNET.WIDTH_MULT", "0.25", "MODEL.MNET.NORM", "BN", *ALL_BOXES)
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
        assert len(a) > 0 and a.image_size == (96, 96)
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


RETINANET = {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}
FASTER_RCNN = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}


def on(kind, *features):
    """The config changes for an FPN on a small timm network."""
    return [
        *["MODEL.BACKBONE.NAME", f"build_{kind}timm_fpn_backbone", "MODEL.TIMM.NAME", "test_resnet"],
        *["MODEL.TIMM.OUT_FEATURES", str(list(features)), "MODEL.FPN.IN_FEATURES", str(list(features))],
    ]


@pytest.mark.parametrize(
    ("name", "changes", "levels", "part"),
    [
        ("retinanet_mnetv1_025_FPN_1x", [], RETINANET, "stages.mob5.1.pointwise"),
        ("retinanet_mnetv2_FPN_1x", [], RETINANET, "stages.mob5.1.expand"),
        ("retinanet_mnetv1_FPN_1x", on("retinanet_", "layer2", "layer3", "layer4"), RETINANET, "net.layer4"),
        ("faster_rcnn_mnetv1_025_FPN_1x", [], FASTER_RCNN, "stages.mob5.1.pointwise"),
        ("faster_rcnn_mnetv2_FPN_1x", [], FASTER_RCNN, "stages.mob5.1.expand"),
        ("faster_rcnn_mnetv1_FPN_1x", on("", "layer1", "layer2", "layer3", "layer4"), FASTER_RCNN, "net.layer4"),
    ],
)
def test_pyramid_has_the_declared_levels_of_its_network(config, name, changes, levels, part):
    backbone = build_backbone(config(name, *changes)).eval()
    assert backbone.bottom_up.get_submodule(part)
    shapes = backbone.output_shape()
    assert {level: shape.stride for level, shape in shapes.items()} == levels
    with torch.no_grad():
        for level, feature in backbone(torch.zeros(1, 3, 128, 128)).items():
            assert feature.shape == (1, 32, 128 // levels[level], 128 // levels[level])


@pytest.mark.parametrize("detector", ["retinanet", "faster_rcnn"])
def test_every_key_of_the_fpn_is_used(config, detector):
    """detectron2's FPN, built with the values of the keys, gives the same output."""
    changes = ["MODEL.FPN.OUT_CHANNELS", "64", "MODEL.FPN.NORM", "GN", "MODEL.FPN.FUSE_TYPE", "avg"]
    cfg = config(f"{detector}_mnetv1_025_FPN_1x", *changes)
    ours = build_backbone(cfg).eval()
    top = LastLevelP6P7(256, 64, "mob5") if detector == "retinanet" else LastLevelMaxPool()
    theirs = FPN(ours.bottom_up, cfg.MODEL.FPN.IN_FEATURES, 64, norm="GN", top_block=top, fuse_type="avg").eval()
    theirs.load_state_dict(ours.state_dict())
    assert str(theirs) == str(ours)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for one, two in zip(ours(x).values(), theirs(x).values(), strict=True):
            assert torch.equal(one, two)


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
@pytest.mark.parametrize("builder", ["build_retinanet_mnetv1_fpn_backbone", "build_mnetv1_fpn_backbone"])
def test_refusals(config, builder, changes, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(config("retinanet_mnetv1_025_FPN_1x", "MODEL.BACKBONE.NAME", builder, *changes))


@pytest.mark.parametrize("norm", ["FrozenBN", "SyncBN"])
def test_frozen_bn_and_sync_bn_are_one_line(config, norm):
    backbone = build_backbone(config("retinanet_mnetv1_025_FPN_1x", "MODEL.MNET.NORM", norm))
    found = {type(module) for module in backbone.bottom_up.stages["mob5"].modules() if "Norm" in type(module).__name__}
    assert found == {type(get_norm(norm, 8))}


def test_builders_leave_missing_files_and_the_model_zoo_to_the_checkpointer(config, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        for weights in (str(tmp_path / "gone.pth"), "detectron2://x.pkl"):
            assert build_backbone(config("retinanet_mnetv1_025_FPN_1x", "MODEL.WEIGHTS", weights))
    assert caplog.text == ""

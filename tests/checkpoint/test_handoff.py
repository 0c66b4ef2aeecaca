"""Hand-off of a classifier's backbone to detectors: every tensor, or a refusal that names them."""

import copy

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from torch import nn

from imgcls.checkpoint import (
    ClsCheckpointer,
    HandoffError,
    build_info,
    export_backbone,
    find_backbone,
    load_backbone,
    read_checkpoint,
    verify_backbone,
)
from imgcls.config import get_cfg, load_cfg

CLASSES = ["blue", "green", "red"]
V1 = ["MODEL.MNET.WIDTH_MULT", 0.25]
V2 = ["MODEL.BACKBONE.NAME", "build_mnetv2_backbone", "MODEL.MNET.WIDTH_MULT", 0.25]
RESNET = ["MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.NORM", "BN",
          "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RESNETS.OUT_FEATURES", ["res5"],
          "MODEL.CLSNET.IN_FEATURES", ["res5"]]  # fmt: skip


def classifier(*changes):
    cfg = load_cfg("configs/Base_image_cls.yaml", ["MODEL.DEVICE", "cpu", "MODEL.CLSNET.NUM_CLASSES", "3"])
    cfg.merge_from_list([*V1, "DATASETS.TRAIN", (), *changes])
    return cfg


def detector(name="retinanet_mnetv1_025_FPN_1x", *changes):
    cfg = load_cfg(f"configs/COCO-Detection/{name}.yaml", ["MODEL.DEVICE", "cpu"])
    cfg.merge_from_list(list(changes))
    return cfg


def randomise(model):
    """Values that no initialisation gives, so that equal means loaded."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


@pytest.fixture
def trained(tmp_path):
    """``trained(KEY, value, ...)``: the file of a classifier with random weights, and its model."""

    def make(*changes):
        cfg = classifier(*changes)
        model = build_model(cfg)
        randomise(model)
        ClsCheckpointer(model, str(tmp_path), info=build_info(cfg, CLASSES)).save("model_final")
        return str(tmp_path / "model_final.pth"), model

    return make


@pytest.fixture
def backbone(trained, tmp_path):
    """``backbone(KEY, value, ...)``: an exported file, and the classifier that it came from."""

    def make(*changes):
        source, model = trained(*changes)
        target = str(tmp_path / "backbone.pth")
        export_backbone(source, target)
        return target, model

    return make


@pytest.mark.parametrize(
    ("changes", "name", "count"),
    [
        (V1, "retinanet_mnetv1_025_FPN_1x", 135),
        (V1, "faster_rcnn_mnetv1_025_FPN_1x", 135),
        (
            ["MODEL.BACKBONE.NAME", "build_mnetv2_backbone", "MODEL.MNET.WIDTH_MULT", 1.0],
            "retinanet_mnetv2_FPN_1x",
            255,
        ),
        (
            ["MODEL.BACKBONE.NAME", "build_mnetv2_backbone", "MODEL.MNET.WIDTH_MULT", 1.0],
            "faster_rcnn_mnetv2_FPN_1x",
            255,
        ),
    ],
)
def test_a_plain_detectron2_model_has_every_tensor_of_the_classifier(backbone, changes, name, count):
    path, source = backbone(*changes)
    model = build_model(detector(name))
    DetectionCheckpointer(model).load(path)
    wanted = {key: value for key, value in source.backbone.state_dict().items() if "num_batches" not in key}
    loaded = model.backbone.bottom_up.state_dict()
    assert len(wanted) == count and wanted.keys() == {key for key in loaded if "num_batches" not in key}
    assert all(torch.equal(loaded[key], value) for key, value in wanted.items())
    assert verify_backbone(path, detector(name)).summary() == f"{count}/{count} backbone tensors loaded"


def test_the_detectors_backbone_computes_what_the_classifiers_does(backbone):
    path, source = backbone()
    model = build_model(detector("retinanet_mnetv1_025_FPN_1x", "MODEL.MNET.NORM", "BN"))
    load_backbone(model, path)
    images = torch.rand(2, 3, 64, 64)
    expected = source.eval().backbone(images)["mob5"]
    torch.testing.assert_close(model.eval().backbone.bottom_up(images)["mob5"], expected, rtol=1e-5, atol=1e-5)


def test_file_has_the_entries_that_detectron2_needs(backbone):
    checkpoint = read_checkpoint(backbone()[0])
    assert checkpoint["__author__"] == "imgcls" and checkpoint["matching_heuristics"] is True
    assert len(checkpoint["model"]) == 135 and all(name.startswith("stages.") for name in checkpoint["model"])
    assert checkpoint["imgcls"]["preprocessing"]["format"] == "BGR"


def test_averaged_weights_are_preferred(trained, tmp_path):
    source, model = trained()
    average = torch.optim.swa_utils.AveragedModel(model)
    randomise(average.module)
    content = torch.load(source, weights_only=True)
    content["model"] = {f"module.{key}": value for key, value in content["model"].items()}
    torch.save({**content, "ema": average.state_dict()}, source)
    assert export_backbone(source, str(tmp_path / "b.pth")).startswith("135 backbone tensors written")
    tensors = read_checkpoint(str(tmp_path / "b.pth"))["model"]
    wanted = average.module.backbone.state_dict()
    assert all(torch.equal(tensors[key], wanted[key]) for key in tensors)


def test_distributed_prefix_is_dropped(trained, tmp_path):
    source, _model = trained()
    content = torch.load(source, weights_only=True)
    content["model"] = {f"module.{key}": value for key, value in content["model"].items()}
    torch.save(content, source)
    target = str(tmp_path / "b.pth")
    report = export_backbone(source, target, verify=detector())
    assert report == "135/135 backbone tensors loaded, classifier dropped"
    assert load_backbone(nn.DataParallel(build_model(detector())), target).complete


def test_resnet_goes_into_detectron2s_own_detector(backbone):
    path, source = backbone(*RESNET)
    cfg = get_cfg()
    cfg.merge_from_list(
        ["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone",
         "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64,
         "MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"], "MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"],
         "MODEL.PIXEL_STD", [57.375, 57.120, 58.395], "MODEL.DEVICE", "cpu"]
    )  # fmt: skip
    assert verify_backbone(path, cfg).complete
    model = build_model(cfg)
    assert load_backbone(model, path, cfg).summary() == "100/100 backbone tensors loaded"
    wanted = source.backbone.state_dict()
    assert torch.equal(model.backbone.bottom_up.state_dict()["res5.1.conv2.weight"], wanted["res5.1.conv2.weight"])


def test_stages_that_the_detector_does_not_build_are_left_out_and_named(backbone):
    path, _ = backbone()
    cfg = detector(
        "faster_rcnn_mnetv1_025_FPN_1x",
        *["MODEL.BACKBONE.NAME", "build_mnetv1_backbone", "MODEL.MNET.OUT_FEATURES", ["mob4"]],
        *["MODEL.RPN.IN_FEATURES", ["mob4"], "MODEL.ROI_HEADS.IN_FEATURES", ["mob4"]],
        *["MODEL.ANCHOR_GENERATOR.SIZES", [[64]]],
    )
    report = load_backbone(build_model(cfg), path, cfg)
    assert (
        report.summary()
        == "115/115 backbone tensors loaded (stages.mob5 of the file left out: the model does not build it)"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["MODEL.MNET.WIDTH_MULT", 0.5], r'0/135 .*to use it set MODEL\.MNET\.WIDTH_MULT "0\.25"'),
        (["MODEL.MNET.BLOCKS", [1, 2, 2, 1, 2]], r"not in the model.*MODEL\.MNET\.BLOCKS"),
        (["MODEL.MNET.BLOCKS", [1, 2, 2, 7, 2]], r"missing in the file.*MODEL\.MNET\.BLOCKS"),
        (["MODEL.MNET.DEPTH_MULT", 2.0], r'MODEL\.MNET\.DEPTH_MULT "1\.0"'),
        (
            ["MODEL.BACKBONE.NAME", "build_retinanet_mnetv2_fpn_backbone"],
            r"check MODEL\.BACKBONE\.NAME \(build_mnetv1_backbone in the checkpoint\)",
        ),
        (
            ["MODEL.MNET.ACTIVATION", "relu"],
            r'ACTIVATION is relu6 in the checkpoint, relu in the config.*ACTIVATION "relu6"',
        ),
        (["MODEL.MNET.BN_EPS", 1e-3], r"BN_EPS is 1e-05 in the checkpoint, 0\.001 in the config"),
        (["INPUT.FORMAT", "RGB"], r'INPUT\.FORMAT is BGR in the checkpoint, RGB in the config.*INPUT\.FORMAT "BGR"'),
        (["MODEL.PIXEL_STD", [1.0, 1.0, 1.0]], r"MODEL\.PIXEL_STD"),
    ],
)
def test_what_does_not_fit_is_refused_everywhere(backbone, changes, message):
    """By the function, by the tool, and when another script builds a detector for these weights."""
    path, _ = backbone()
    cfg = detector("retinanet_mnetv1_025_FPN_1x", *changes)
    model = build_model(cfg)
    before = copy.deepcopy(model.state_dict())
    for attempt in (lambda: load_backbone(model, path, cfg), lambda: verify_backbone(path, cfg)):
        with pytest.raises(ValueError, match=message) as raised:
            attempt()
        assert "\n" not in str(raised.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    cfg.MODEL.WEIGHTS = path
    with pytest.raises(ValueError, match=message):
        build_model(cfg)


def test_without_a_config_the_preprocessing_of_the_model_is_compared(backbone):
    path, _ = backbone()
    with pytest.raises(ValueError, match=r"MODEL\.PIXEL_STD"):
        load_backbone(build_model(detector("retinanet_mnetv1_025_FPN_1x", "MODEL.PIXEL_STD", [1.0, 1.0, 1.0])), path)
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT"):
        load_backbone(build_model(detector("retinanet_mnetv1_025_FPN_1x", "INPUT.FORMAT", "RGB")), path)


def test_the_report_lists_every_tensor(backbone):
    path, _ = backbone()
    with pytest.raises(HandoffError) as raised:
        load_backbone(build_model(detector("retinanet_mnetv1_FPN_1x")), path)
    report = raised.value.report
    assert len(report.mismatched) == 135 and not report.loaded and not report.missing
    assert "stages.stem.weight is (8, 3, 3, 3) in the file, (32, 3, 3, 3) in the model" in report.problems()


def test_kinds_of_checkpoints_are_not_mixed_up(trained, tmp_path):
    source, _ = trained()
    model = build_model(detector())
    with pytest.raises(ValueError, match=r"is a whole classifier.*tools/export_backbone\.py"):
        load_backbone(model, source)
    with pytest.raises(ValueError, match="is a whole classifier"):
        build_model(detector("retinanet_mnetv1_025_FPN_1x", "MODEL.WEIGHTS", source))
    DetectionCheckpointer(model, str(tmp_path)).save("detector")
    path = str(tmp_path / "detector.pth")
    with pytest.raises(ValueError, match=r"detector\.pth is a detector's checkpoint"):
        export_backbone(path, str(tmp_path / "b.pth"))
    with pytest.raises(ValueError, match="is not a backbone checkpoint"):
        load_backbone(model, path)
    build_model(detector("retinanet_mnetv1_025_FPN_1x", "MODEL.WEIGHTS", path))
    cfg = classifier()
    with pytest.raises(ValueError, match=r"detector\.pth is a detector's checkpoint; a ClsNet"):
        ClsCheckpointer(build_model(cfg), str(tmp_path), info=build_info(cfg, CLASSES)).load(path)


def test_weights_without_preprocessing_are_refused(trained, tmp_path):
    source, model = trained()
    torch.save(model.state_dict(), source)
    with pytest.raises(ValueError, match=r"does not say what images it was trained on.*convert_weights\.py"):
        export_backbone(source, str(tmp_path / "b.pth"))


def test_a_failed_verification_names_the_source_and_keeps_the_old_file(trained, tmp_path):
    source, _ = trained()
    target = tmp_path / "backbone.pth"
    target.write_text("old")
    with pytest.raises(HandoffError, match=r"model_final\.pth does not fit"):
        export_backbone(source, str(target), verify=detector("retinanet_mnetv1_FPN_1x"))
    assert target.read_text() == "old" and sorted(p.name for p in tmp_path.glob("*.pth")) == [
        "backbone.pth",
        "model_final.pth",
    ]


def test_a_loader_that_loads_nothing_is_detected(backbone, monkeypatch):
    """The tensors in the model are compared, not what the loader reports."""
    path, _ = backbone()
    monkeypatch.setattr(DetectionCheckpointer, "load", lambda self, path: {})
    with pytest.raises(HandoffError, match=r"has other values in the model than in the file"):
        verify_backbone(path, detector())


def test_find_backbone_takes_a_backbone_alone(backbone):
    path, source = backbone()
    assert find_backbone(source.backbone) is source.backbone
    assert load_backbone(source.backbone, path).complete

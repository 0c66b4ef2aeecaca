"""A local file with timm's weights goes into the backbone completely, or is refused."""

import argparse
import logging

import pytest
import safetensors.torch as files
import timm
import torch
from detectron2.modeling import build_backbone, build_model

from imgcls.checkpoint import (
    ClsCheckpointer,
    build_info,
    export_backbone,
    read_checkpoint,
    verify_backbone,
)
from imgcls.config import get_cfg
from imgcls.modeling.timm_backbone import TimmBackbone

# Networks that timm builds in different ways with features: layers in a list, blocks of EfficientNet, flattened stages,
# and a whole transformer with hooks.
FAMILIES = ["test_resnet", "mobilenetv3_small_050", "test_convnext", "test_vit"]


def random_norms(net):
    """Gives the norms values of their own, which they do not have before training."""
    for name, value in net.state_dict().items():
        if value.is_floating_point() and value.dim() == 1:
            value.copy_(torch.rand_like(value) + 0.5 if "var" in name else torch.randn_like(value))
    return net.eval()


@pytest.fixture
def save(tmp_path):
    def write(state, name="timm.pth"):
        path = tmp_path / name
        (files.save_file if name.endswith("safetensors") else torch.save)(state, path)
        return str(path)

    return write


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_features_are_those_of_the_whole_network(save, name, suffix):
    whole = random_norms(timm.create_model(name, num_classes=7))
    path = save(whole.state_dict(), f"file.{suffix}")
    ours = TimmBackbone(name, checkpoint=path, freeze_at=1).eval()
    # Another way to the same features: timm's forward_intermediates on the network that was saved.
    x = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        expected = whole.forward_intermediates(x, intermediates_only=True)
        found = list(ours(x).values())
    assert len(found) == len(expected)
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_files_of_timms_training_script(save):
    """Averaged weights, DDP's prefix, a network without classifier; all of them without unpickling."""
    net = random_norms(timm.create_model("test_resnet"))
    prefixed = {f"module.{key}": value for key, value in net.state_dict().items()}
    other = timm.create_model("test_resnet").state_dict()
    headless = {key: value for key, value in net.state_dict().items() if not key.startswith("fc.")}
    for content in ({"state_dict": prefixed}, {"state_dict": other, "state_dict_ema": net.state_dict()}, headless):
        ours = TimmBackbone("test_resnet", checkpoint=save(content))
        assert torch.equal(ours.net.layer4[0].conv1.weight, net.layer4[0].conv1.weight)
        assert torch.equal(ours.net.conv1[1].running_var, net.conv1[1].running_var)


def test_the_log_says_how_many_tensors_were_loaded(save, caplog):
    path = save(timm.create_model("test_resnet").state_dict())
    with caplog.at_level(logging.INFO, "imgcls"):
        TimmBackbone("test_resnet", ["layer2"], checkpoint=path)
    (record,) = [record.getMessage() for record in caplog.records]
    count = len([key for key in TimmBackbone("test_resnet", ["layer2"]).state_dict() if "num_batches" not in key])
    total = len([key for key in timm.create_model("test_resnet").state_dict() if "num_batches" not in key])
    assert record == (
        f"{path}: {count}/{count} tensors of timm's test_resnet loaded, "
        f"{total - count} tensors after the last feature left out"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer1.0.bn1.weight"), r"1 missing \(layer1\.0\.bn1\.weight \(32,\)\)"),
        (lambda s: s.update(extra=torch.zeros(2)), r"1 unknown \(extra \(2,\)\)"),
        (
            lambda s: s.update({"layer4.0.conv1.weight": torch.zeros(2)}),
            r"1 of another shape \(layer4\.0\.conv1\.weight \(2,\) instead of \(\d+, \d+, \d, \d\)\)",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(save, change, message):
    """Even after the last feature: the file is compared with the whole network."""
    state = timm.create_model("test_resnet").state_dict()
    change(state)
    path = save(state)
    with pytest.raises(ValueError, match=rf"TIMM\.CHECKPOINT .*timm\.pth does not fit timm's test_resnet: .*{message}"):
        TimmBackbone("test_resnet", ["layer2"], checkpoint=path)


def test_files_that_are_refused(save, tmp_path):
    path = save(timm.create_model("test_byobnet").state_dict())
    with pytest.raises(ValueError, match=r"does not fit timm's test_resnet: .* tensors fit; \d+ missing \(.*\d+ unkn"):
        TimmBackbone("test_resnet", checkpoint=path)
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such"):
        TimmBackbone("test_resnet", checkpoint=str(tmp_path / "none.pth"))
    path = save({"state_dict": timm.create_model("test_resnet").state_dict(), "args": argparse.Namespace(lr=1)})
    with pytest.raises(ValueError, match="holds Python objects beside tensors"):
        TimmBackbone("test_resnet", checkpoint=path)
    with pytest.raises(ValueError, match=r"TIMM\.PRETRAINED is True and MODEL\.TIMM\.CHECKPOINT is .*; allowed: one"):
        TimmBackbone("test_resnet.r160_in1k", checkpoint=path, pretrained=True)


@pytest.fixture
def cfg(save):
    """A classifier on test_resnet, whose file it starts from."""
    net = random_norms(timm.create_model("test_resnet"))
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            *["MODEL.META_ARCHITECTURE", "ClsNet", "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.FREEZE_AT", "0"],
            *["MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "test_resnet"],
            *["MODEL.TIMM.CHECKPOINT", save(net.state_dict()), "MODEL.CLSNET.IN_FEATURES", "['layer4']"],
            *["MODEL.CLSNET.NUM_CLASSES", "2", "INPUT.FORMAT", "RGB"],
            *["MODEL.PIXEL_MEAN", "[127.5, 127.5, 127.5]", "MODEL.PIXEL_STD", "[127.5, 127.5, 127.5]"],
        ]
    )
    return cfg


def test_the_builder_wants_the_preprocessing_of_the_network(cfg):
    build_backbone(cfg)
    cfg.INPUT.FORMAT = "BGR"
    with pytest.raises(ValueError, match=r"timm's test_resnet does not fit the config: INPUT\.FORMAT is RGB in the"):
        build_backbone(cfg)


def test_checkpoint_and_hand_off_record_the_file_and_do_not_need_it(cfg, tmp_path, caplog):
    source = cfg.MODEL.TIMM.CHECKPOINT
    model = build_model(cfg)
    ClsCheckpointer(model, str(tmp_path), info=build_info(cfg, ["cat", "dog"])).save("model_final")
    final, backbone = str(tmp_path / "model_final.pth"), str(tmp_path / "backbone.pth")
    export_backbone(final, backbone)
    for path in (final, backbone):
        assert f"CHECKPOINT: {source}" in read_checkpoint(path)["imgcls"]["cfg"]
    detector = get_cfg()
    detector.merge_from_list(
        [
            *["MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.DEVICE", "cpu", "INPUT.FORMAT", "RGB"],
            *["MODEL.BACKBONE.NAME", "build_retinanet_timm_fpn_backbone", "MODEL.TIMM.NAME", "test_resnet"],
            *["MODEL.TIMM.OUT_FEATURES", "['layer2', 'layer3', 'layer4']"],
            *["MODEL.FPN.IN_FEATURES", "['layer2', 'layer3', 'layer4']", "MODEL.BACKBONE.FREEZE_AT", "0"],
            *["MODEL.RETINANET.IN_FEATURES", "['p3', 'p4', 'p5', 'p6', 'p7']"],
            *["MODEL.ANCHOR_GENERATOR.SIZES", "[[32], [64], [128], [256], [512]]"],
            *["MODEL.PIXEL_MEAN", "[127.5, 127.5, 127.5]", "MODEL.PIXEL_STD", "[127.5, 127.5, 127.5]"],
        ]
    )
    assert verify_backbone(backbone, detector).complete  # another value of the key is no other function

    (tmp_path / "timm.pth").unlink()
    cfg.MODEL.WEIGHTS = final
    with caplog.at_level(logging.INFO, "imgcls"):
        again = build_model(cfg)
    assert f"MODEL.TIMM.CHECKPOINT {source} is not read, because MODEL.WEIGHTS is set" in caplog.messages
    ClsCheckpointer(again, "", info=build_info(cfg, ["cat", "dog"])).load(final)
    for one, other in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)

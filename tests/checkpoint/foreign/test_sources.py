"""Random weights of other projects' networks are converted and must give the same logits and features."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from imgcls.checkpoint import ClsCheckpointer, build_info, export_backbone, read_checkpoint
from imgcls.checkpoint.foreign import Stated, convert, is_2020_project
from imgcls.config import load_cfg

CLASSES = [f"class {number}" for number in range(1000)]


@pytest.mark.parametrize(("name", "width"), [("mobilenetv1_100", 1.0), ("mobilenetv1_125", 1.25)])
def test_timm_network(raw, settle, check_same, check_complete, name, width):
    net = settle(timm.create_model(name, num_classes=10), raw / 127.5 - 1)
    converted = convert("timm", {"model": net.state_dict()})
    check_complete(net.state_dict(), converted)
    below = timm.create_model(name, features_only=True).eval()
    assert below.load_state_dict(net.state_dict(), strict=False).missing_keys == []
    cfg = check_same(net, lambda x: below(x)[1:], lambda x: (x / 255 - 0.5) / 0.5, converted, raw)
    assert width == cfg.MODEL.MNET.WIDTH_MULT and cfg.MODEL.BACKBONE.FREEZE_AT == 0
    given = timm.get_pretrained_cfg(f"{name}.ra4_e3600_r224_in1k")
    assert converted["imgcls"]["preprocessing"] == {
        "format": "RGB",
        "pixel_mean": [255 * value for value in given.mean],
        "pixel_std": [255 * value for value in given.std],
        "value_range": [0, 255],
        "resize": f"{given.interpolation}, antialiased",
        "input_size": given.input_size[-1],
        "crop_pct": given.crop_pct,
    }


def normalise_imagenet(x):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def vision_features(net, x):
    found = []
    for index, layer in enumerate(net.features):
        x = layer(x)
        found += [x] if index in (3, 6, 13, 17) else []
    return found


@pytest.fixture
def vision(raw, settle):
    net = torchvision.models.mobilenet_v2(num_classes=10)
    return settle(net, normalise_imagenet(raw))


def test_torchvision_network(raw, vision, check_same, check_complete):
    converted = convert("torchvision", {"model": vision.state_dict()})
    check_complete(vision.state_dict(), converted)
    cfg = check_same(vision, lambda x: vision_features(vision, x), normalise_imagenet, converted, raw)
    assert cfg.MODEL.CLSNET.HEAD_CONV_DIM == 1280 and cfg.MODEL.CLSNET.NUM_CLASSES == 10
    contract = converted["imgcls"]["preprocessing"]
    assert contract["format"] == "RGB" and contract["resize"] == "bilinear, antialiased"
    assert contract["pixel_mean"] == [123.675, 116.28, 103.53] and contract["pixel_std"] == [58.395, 57.12, 57.375]


@pytest.mark.parametrize("width", [0.35, 1.4])
def test_other_widths_of_torchvision(raw, settle, check_same, width):
    net = settle(torchvision.models.mobilenet_v2(num_classes=10, width_mult=width), normalise_imagenet(raw))
    converted = convert("torchvision", {"model": net.state_dict()})
    cfg = check_same(net, lambda x: vision_features(net, x), normalise_imagenet, converted, raw)
    assert width == cfg.MODEL.MNET.WIDTH_MULT


def test_a_converted_file_is_loaded_by_the_checkpointer(vision, build, tmp_path):
    converted = convert("torchvision", {"model": vision.state_dict()})
    torch.save(converted, tmp_path / "converted.pth")
    model, cfg = build(converted)
    nn.init.zeros_(model.head.linear.weight)
    ClsCheckpointer(model, "", info=build_info(cfg, CLASSES)).load(str(tmp_path / "converted.pth"))
    assert torch.equal(model.head.linear.weight, vision.classifier[1].weight)
    cfg.INPUT.FORMAT = "BGR"
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT is RGB in the checkpoint, BGR in the config"):
        ClsCheckpointer(model, "", info=build_info(cfg, CLASSES)).load(str(tmp_path / "converted.pth"))


# The rows (channels, blocks, stride) of the 2020 project by version, and the blocks that end a stage.
ROWS = {
    1: [(64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2)],
    2: [(16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)],
}
ENDS = {1: [3, 5, 11, 13], 2: [3, 6, 13, 17]}


def conv_norm(inputs, outputs, kernel, stride=1, groups=1, act=None):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), *([act] if act else [])]


class Added(nn.Module):
    """The 2020 project's block of V2: its layers are under ``conv``."""

    def __init__(self, layers, residual):
        super().__init__()
        self.conv, self.residual = nn.Sequential(*layers), residual

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class Net2020(nn.Module):
    """The names of the 2020 project: ``bottom_up.{stem, features, linear}`` and the two buffers."""

    def __init__(self, version, width=1.0, num_classes=10, mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0)):
        super().__init__()
        act = nn.LeakyReLU(0.1) if version == 1 else nn.ReLU6()
        self.ends = ENDS[version]
        self.bottom_up = nn.Module()
        channels = int(32 * width)
        self.bottom_up.stem = nn.Sequential(*conv_norm(3, channels, 3, 2, act=act))
        self.bottom_up.features = nn.ModuleList()
        for row, (full, count, stride) in enumerate(ROWS[version]):
            out = int(full * width)
            for index in range(count):
                step = stride if index == 0 else 1
                if version == 1:
                    layers = conv_norm(channels, channels, 3, step, channels, act) + conv_norm(
                        channels, out, 1, act=act
                    )
                    made = nn.Sequential(*layers)
                else:
                    hidden = channels * (6 if row else 1)
                    layers = conv_norm(channels, hidden, 1, act=act) if row else []
                    layers += conv_norm(hidden, hidden, 3, step, hidden, act) + conv_norm(hidden, out, 1)
                    made = Added(layers, step == 1 and channels == out)
                self.bottom_up.features.append(made)
                channels = out
        self.bottom_up.linear = nn.Linear(channels, num_classes)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(std).view(-1, 1, 1))

    def features(self, x):
        x, found = self.bottom_up.stem(x), []
        for index, layer in enumerate(self.bottom_up.features, start=1):
            x = layer(x)
            found += [x] if index in self.ends else []
        return found

    def forward(self, x):
        return self.bottom_up.linear(self.features(x)[-1].mean((2, 3)))


def standardise(x, mean, std=(1.0, 1.0, 1.0)):
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@pytest.mark.parametrize(("version", "width"), [(1, 0.25), (2, 1.0)])
def test_2020_project_builtin_trainer(raw, settle, check_same, check_complete, version, width):
    """It feeds BGR minus the buffers in the file."""
    mean, std = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)

    def normalise(x):
        return standardise(x.flip(1), mean, std)

    net = settle(Net2020(version, width, mean=mean, std=std), normalise(raw))
    converted = convert("upstream", {"model": net.state_dict(), "iteration": 9})
    check_complete(net.state_dict(), converted, extra=("pixel_mean", "pixel_std"))
    cfg = check_same(net, net.features, normalise, converted, raw)
    assert {1: "leaky_relu", 2: "relu6"}[version] == cfg.MODEL.MNET.ACTIVATION
    contract = converted["imgcls"]["preprocessing"]
    assert contract["format"] == "BGR" and contract["pixel_mean"] == list(mean) and contract["pixel_std"] == list(std)


@pytest.mark.parametrize(("version", "width"), [(1, 0.5), (2, 1.0)])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_2020_project_own_trainer(raw, settle, check_same, version, width, prefix):
    """It feeds RGB in [0, 1] minus means of 103 to 123. Its last checkpoint has DDP's prefix, its best one has not."""

    def normalise(x):
        return standardise(x / 255, (103.53, 116.28, 123.675))

    net = settle(Net2020(version, width), normalise(raw))
    state = {prefix + name: value for name, value in net.state_dict().items()}
    assert is_2020_project(state)
    converted = convert("upstream", {"model": state, "epoch": 1, "best_acc1": torch.tensor(1.0)})
    # Next to 103, float32 keeps 5 digits of a pixel in [0, 1].
    check_same(net, net.features, normalise, converted, raw, rounding=1e-4)
    contract = converted["imgcls"]["preprocessing"]
    assert contract["format"] == "RGB" and contract["pixel_std"] == [255.0] * 3
    assert contract["pixel_mean"] == [26400.15, 29651.4, 31537.125]


def test_the_prefix_identifies_its_own_trainer():
    state = {f"module.{name}": value for name, value in Net2020(1, 0.25).state_dict().items()}
    assert convert("upstream", {"model": state})["imgcls"]["preprocessing"]["pixel_std"] == [255.0] * 3


def test_the_2020_projects_files_say_everything_themselves():
    message = (
        r"the 2020 project's MobileNetV1, width 0\.25, .*: the file itself says this; leave out --mean, --activation"
    )
    stated = Stated(pixel_mean=(1, 2, 3), activation="relu")
    with pytest.raises(ValueError, match=message):
        convert("auto", {"model": Net2020(1, 0.25).state_dict()}, stated)


def test_2020_project_is_recognised_by_its_names():
    assert is_2020_project(["pixel_mean", "bottom_up.stem.0.weight"])
    assert not is_2020_project(["features.0.0.weight", "conv_stem.weight"])
    assert not is_2020_project(["backbone.bottom_up.stem.0.weight", "backbone.stages.stem.weight"])
    assert not is_2020_project([])


def test_channels_that_are_not_multiples_of_8():
    """int(24 * 0.25) is 6."""
    with pytest.raises(ValueError, match=r"channels in multiples of 8: \d+/\d+ tensors fit; \d+ of another shape"):
        convert("upstream", {"model": Net2020(2, 0.25).state_dict()})


def test_a_network_for_grey_images():
    state = Net2020(1, 0.25, mean=(103.53,), std=(1.0,)).state_dict()
    with pytest.raises(ValueError, match=r"^not a network for colour images.*pixel_mean has 1 values"):
        convert("upstream", {"model": state})


def detector(request, *changes):
    path = request.config.rootpath / "configs/COCO-Detection/retinanet_mnetv1_025_FPN_1x.yaml"
    return load_cfg(str(path), ["MODEL.DEVICE", "cpu", "MODEL.MNET.ACTIVATION", "leaky_relu", *changes])


def test_a_file_of_the_2020_project_is_exported_for_a_detector(request, tmp_path):
    """No conversion is needed; the detector must have the preprocessing of the file."""
    net = Net2020(1, 0.25, std=(57.375, 57.12, 58.395))
    source, target = str(tmp_path / "model_final.pth"), str(tmp_path / "backbone.pth")
    torch.save({"model": net.state_dict(), "iteration": 9}, source)
    said = export_backbone(source, target, verify=detector(request))
    assert said == "135/135 backbone tensors loaded, classifier dropped"
    tensors = read_checkpoint(target)["model"]
    assert torch.equal(tensors["stages.stem.weight"], net.bottom_up.stem[0].weight)
    assert torch.equal(tensors["stages.mob5.1.pointwise.weight"], net.bottom_up.features[12][3].weight)

    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1, "best_acc1": torch.tensor(1.0)}, source)
    with pytest.raises(ValueError, match=r"model_final\.pth does not fit the config: INPUT\.FORMAT is RGB in"):
        export_backbone(source, target, verify=detector(request))
    lines = ["INPUT.FORMAT", "RGB", "MODEL.PIXEL_MEAN", "[26400.15, 29651.4, 31537.125]"]
    means = detector(request, *lines, "MODEL.PIXEL_STD", "[255.0, 255.0, 255.0]")
    assert export_backbone(source, target, verify=means).startswith("135/135")


def test_an_unsupported_width_of_the_2020_project_names_the_file(tmp_path):
    torch.save({"model": Net2020(2, 0.25).state_dict()}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth is not a MobileNetV2 classifier of the 2020 project"):
        export_backbone(str(tmp_path / "odd.pth"), str(tmp_path / "backbone.pth"))

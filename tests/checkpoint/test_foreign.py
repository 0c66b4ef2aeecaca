"""Random weights of other projects' networks, converted: the same logits and features from the same pictures."""

import logging

import pytest
import torch
import torchvision
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from imgcls.checkpoint import ClsCheckpointer, build_info
from imgcls.checkpoint.foreign import convert, is_upstream
from imgcls.config import check_cfg, get_cfg

STAGES = ["mob2", "mob3", "mob4", "mob5"]
# Of the 2020 project: channels, blocks and stride of each row, and the blocks that end a stage, by version.
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


def settle(net, pictures):
    """Makes every norm's scale, shift and statistics its own, as training does; the statistics fit the data.

    A mean scale below 1 keeps a random network from being chaotic: rounding would grow a hundredfold on the way.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(pictures)
        for norm in norms:
            norm.running_mean += 0.1 * torch.randn_like(norm.running_mean) * norm.running_var.sqrt()
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.3)
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.4, 1.2)
        nn.init.normal_(norm.bias, std=0.3)
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.normal_(linear.bias)
    return net.eval()


def build(converted):
    """The ``ClsNet`` that the file's own config builds, with all four features, and its config."""
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(converted["imgcls"]["cfg"])))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.MNET.OUT_FEATURES", STAGES])
    check_cfg(cfg)
    model = build_model(cfg).eval()
    keys = model.load_state_dict(converted["model"], strict=False)
    assert keys.unexpected_keys == [] and all(key.endswith("num_batches_tracked") for key in keys.missing_keys)
    return model, cfg


def check_same(net, features, normalise, converted, raw, rounding=1e-5):
    """Logits from raw pictures, and all four features, against the source's network with its own normalisation."""
    model, cfg = build(converted)
    images = raw if cfg.INPUT.FORMAT == "RGB" else raw.flip(1)
    prepared = normalise(raw.float())
    with torch.no_grad():
        wanted = net(prepared)
        assert wanted.std() > 0.1 and (wanted[0] - wanted[1]).abs().max() > 0.01  # they depend on the picture
        torch.testing.assert_close(model.logits(images), wanted, rtol=rounding, atol=rounding)
        found = model.backbone((images - model.pixel_mean) / model.pixel_std)
        for name, feature in zip(STAGES, features(prepared), strict=True):
            torch.testing.assert_close(found[name], feature, rtol=rounding, atol=rounding)
    return cfg


def standardise(x, mean, std=(1.0, 1.0, 1.0)):
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def check_complete(state, converted, beside=()):
    """Each tensor of the source is in the converted file once, and nothing else is."""
    used = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    pointers = [value.data_ptr() for name, value in used.items() if name not in beside]
    assert sorted(value.data_ptr() for value in converted["model"].values()) == sorted(pointers)
    assert all(key.startswith(("backbone.stages.", "head.")) for key in converted["model"])


@pytest.fixture
def raw():
    """Two RGB pictures, 0-255, one darker than the other."""
    pictures = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    pictures[1] //= 2
    return pictures


@pytest.fixture
def vision(raw):
    net = torchvision.models.mobilenet_v2(num_classes=10)
    return settle(net, raw / 127.5 - 1)


def by_imagenet(x):
    return standardise(x / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def vision_features(net, x):
    found = []
    for index, layer in enumerate(net.features):
        x = layer(x)
        found += [x] if index in (3, 6, 13, 17) else []
    return found


@pytest.mark.parametrize(("name", "width"), [("mobilenetv1_100", 1.0), ("mobilenetv1_125", 1.25)])
def test_timm(raw, name, width):
    timm = pytest.importorskip("timm")
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


def test_torchvision(raw, vision):
    converted = convert("torchvision", {"model": vision.state_dict()})
    check_complete(vision.state_dict(), converted)
    cfg = check_same(vision, lambda x: vision_features(vision, x), by_imagenet, converted, raw)
    assert cfg.MODEL.CLSNET.HEAD_CONV_DIM == 1280 and cfg.MODEL.CLSNET.NUM_CLASSES == 10
    contract = converted["imgcls"]["preprocessing"]
    assert contract["format"] == "RGB" and contract["resize"] == "bilinear, antialiased"
    assert contract["pixel_mean"] == [123.675, 116.28, 103.53] and contract["pixel_std"] == [58.395, 57.12, 57.375]


@pytest.mark.parametrize("width", [0.35, 1.4])
def test_torchvision_at_other_widths(raw, width):
    net = settle(torchvision.models.mobilenet_v2(num_classes=10, width_mult=width), by_imagenet(raw))
    converted = convert("torchvision", {"model": net.state_dict()})
    cfg = check_same(net, lambda x: vision_features(net, x), by_imagenet, converted, raw)
    assert width == cfg.MODEL.MNET.WIDTH_MULT


@pytest.mark.parametrize(("version", "width"), [(1, 0.25), (2, 1.0)])
def test_upstream_by_its_builtin_trainer(raw, version, width):
    """That one feeds BGR, minus the buffers that are in the file."""
    mean, std = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)

    def normalise(x):
        return standardise(x.flip(1), mean, std)

    net = settle(Net2020(version, width, mean=mean, std=std), normalise(raw))
    converted = convert("upstream", {"model": net.state_dict(), "iteration": 9})
    check_complete(net.state_dict(), converted, beside=("pixel_mean", "pixel_std"))
    cfg = check_same(net, net.features, normalise, converted, raw)
    assert {1: "leaky_relu", 2: "relu6"}[version] == cfg.MODEL.MNET.ACTIVATION
    contract = converted["imgcls"]["preprocessing"]
    assert contract["format"] == "BGR" and contract["pixel_mean"] == list(mean) and contract["pixel_std"] == list(std)


@pytest.mark.parametrize(("version", "width"), [(1, 0.5), (2, 1.0)])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_upstream_by_its_own_trainer(raw, version, width, prefix):
    """That one feeds RGB in [0, 1] minus means of 103 to 123. Its last file has DDP's prefix, its best one has not."""

    def normalise(x):
        return standardise(x / 255, (103.53, 116.28, 123.675))

    net = settle(Net2020(version, width), normalise(raw))
    state = {prefix + name: value for name, value in net.state_dict().items()}
    assert is_upstream(state)
    converted = convert("upstream", {"model": state, "epoch": 1, "best_acc1": torch.tensor(1.0)})
    # Next to 103, float32 keeps 5 digits of a pixel in [0, 1].
    check_same(net, net.features, normalise, converted, raw, rounding=1e-4)
    contract = converted["imgcls"]["preprocessing"]
    assert contract["format"] == "RGB" and contract["pixel_std"] == [255.0] * 3
    assert contract["pixel_mean"] == [26400.15, 29651.4, 31537.125]


def test_the_prefix_alone_tells_its_own_trainer():
    state = {f"module.{name}": value for name, value in Net2020(1, 0.25).state_dict().items()}
    assert convert("upstream", {"model": state})["imgcls"]["preprocessing"]["pixel_std"] == [255.0] * 3


def test_upstream_is_told_from_all_others(vision):
    assert not is_upstream(vision.state_dict())
    assert not is_upstream(["backbone.bottom_up.stem.0.weight", "backbone.stages.stem.weight"])
    assert not is_upstream([])


def test_our_checkpointer_loads_it(vision, tmp_path):
    converted = convert("torchvision", {"model": vision.state_dict()})
    torch.save(converted, tmp_path / "converted.pth")
    model, cfg = build(converted)
    nn.init.zeros_(model.head.linear.weight)
    ClsCheckpointer(model, "", info=build_info(cfg)).load(str(tmp_path / "converted.pth"))
    assert torch.equal(model.head.linear.weight, vision.classifier[1].weight)
    cfg.INPUT.FORMAT = "BGR"
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT RGB there, BGR in the config"):
        ClsCheckpointer(model, "", info=build_info(cfg)).load(str(tmp_path / "converted.pth"))


def test_nothing_is_drawn_logged_or_changed(vision, caplog):
    """It builds the network only for its shapes."""
    state = vision.state_dict()
    names, random = list(state), torch.get_rng_state()
    with caplog.at_level(logging.INFO):
        convert("torchvision", {"model": state})
    assert list(state) == names and torch.equal(torch.get_rng_state(), random) and caplog.records == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.18.1.running_var"), r"1 missing \(features\.18\.1\.running_var\)$"),
        (lambda s: s.pop("features.17.conv.2.weight"), r"1 missing \(features\.17\.conv\.2\.weight\)$"),
        (lambda s: s.pop("classifier.1.weight"), r"1 missing \(classifier\.1\.weight\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 unknown \(extra\)$"),
        (
            lambda s: s.update({"module.classifier.1.bias": torch.zeros(10)}),
            r"1 unknown \(module\.classifier\.1\.b",
        ),
        (lambda s: s.update({"features.0.0.bias": torch.zeros(32)}), r"1 unknown \(features\.0\.0\.bias\)$"),
        (
            lambda s: s.update({"features.2.conv.1.0.weight": torch.zeros(96, 1, 5, 5)}),
            r"1 of another shape \(features\.2\.conv\.1\.0\.weight \(96, 1, 5, 5\) instead of \(96, 1, 3, 3\)\)$",
        ),
        (
            lambda s: s.update({"classifier.1.weight": torch.tensor(1.0)}),
            r"of another shape \(classifier\.1\.weight \(",
        ),
        (
            lambda s: s.update({"classifier.1.weight": torch.zeros(0, 1280)}),
            r"2 of another shape \(classifier\.1\.w",
        ),
    ],
)
def test_every_tensor_counts(vision, change, message):
    state = dict(vision.state_dict())
    change(state)
    with pytest.raises(ValueError, match=message) as raised:
        convert("torchvision", {"model": state})
    assert str(raised.value).startswith("not weights of torchvision's mobilenet_v2: ") and "\n" not in str(raised.value)


@pytest.mark.parametrize("source", ["timm", "torchvision", "upstream"])
def test_another_network(source):
    state = torchvision.models.resnet18().state_dict()
    with pytest.raises(
        ValueError, match=r"^not .*: \d+ missing \(\S+, \S+, \.\.\.\); \d+ unknown \(conv1\.weight, "
    ) as raised:
        convert(source, {"model": state})
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_an_empty_file():
    with pytest.raises(ValueError, match=r"not weights of timm's mobilenetv1_100.*: 137 missing"):
        convert("timm", {"model": {}})


def test_upstream_channels_that_are_no_multiples_of_8():
    """int(24 * 0.25) is 6."""
    with pytest.raises(ValueError, match=r"channels in multiples of 8: \d+ of another shape"):
        convert("upstream", {"model": Net2020(2, 0.25).state_dict()})


def test_upstream_on_grey_pictures():
    state = Net2020(1, 0.25, mean=(103.53,), std=(1.0,)).state_dict()
    with pytest.raises(ValueError, match="pixel_mean has 1 values"):
        convert("upstream", {"model": state})

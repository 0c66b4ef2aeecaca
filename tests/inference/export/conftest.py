"""One classifier in every format, exported once for all tests."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from PIL import Image

from imgcls.checkpoint import build_info, write_checkpoint
from imgcls.config import get_cfg
from imgcls.inference.export import export_classifier

CLASSES = ("blue", "green", "red")


@dataclass(frozen=True)
class Exports:
    """A checkpoint with its export in each format."""

    checkpoint: str
    images: Path
    cfg: CfgNode
    temperature: float

    @property
    def verify(self) -> str:
        """The name of the set that the exports were compared on."""
        return f"folder:{self.images}"

    def path(self, suffix: str) -> str:
        """The file of a format."""
        return self.checkpoint.replace(".pth", suffix)


def tiny_config(head: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            "MODEL.META_ARCHITECTURE", "ClsNet", "MODEL.DEVICE", "cpu", "MODEL.CLSNET.HEAD", head,
            "MODEL.BACKBONE.NAME", "build_mnetv1_backbone", "MODEL.BACKBONE.FREEZE_AT", "0",
            "MODEL.MNET.WIDTH_MULT", "0.25", "MODEL.MNET.BLOCKS", "[1, 1, 1, 1, 1]",
            "MODEL.PIXEL_STD", "[57., 58., 59.]", "INPUT.CROP_PCT", "0.8", "TEST.THRESHOLD", "0.3",
            "MODEL.CLSNET.NUM_CLASSES", "3", "MODEL.CLSNET.INPUT_SIZE", "32", "DATALOADER.NUM_WORKERS", "0",
        ]
    )  # fmt: skip
    return cfg


@torch.no_grad()
def spread_outputs(model):
    """Gives a network without training the statistics of some images, and logits that differ between images."""
    images = coarse_images(32)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the statistics of what it gets next
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.5, 0.5)
    model.train().logits(images)
    logits = model.eval().logits(images)
    linear = model.head.linear
    linear.weight.div_(logits.std(0)[:, None])
    linear.bias.copy_((linear.bias - logits.mean(0)) / logits.std(0))
    return model


def coarse_images(count: int) -> torch.Tensor:
    """Random images ``(N, 3, 32, 32)`` of 4x4 patches."""
    patches = torch.randint(0, 256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(3)).float()
    return torch.nn.functional.interpolate(patches, 32, mode="bilinear").to(torch.uint8)


@pytest.fixture(scope="session")
def random_images():
    """``random_images(5)``: images that the classifiers tell apart."""
    return coarse_images


@pytest.fixture(scope="session")
def real_images(tmp_path_factory):
    """66 images of three classes, of several sizes and with large differences between them."""
    root, rng = tmp_path_factory.mktemp("verify"), np.random.default_rng(2)
    for name in CLASSES:
        (root / name).mkdir()
        for number in range(22):
            pixels = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
            size = (40 + number, 60 - number)
            Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory):
    """``make_checkpoint("softmax")``: its path and config."""

    def make(head: str, **entries) -> tuple[str, CfgNode]:
        torch.manual_seed(1)
        cfg = tiny_config(head)
        model = spread_outputs(build_model(cfg))
        path = str(tmp_path_factory.mktemp(head) / "model.pth")
        write_checkpoint(path, {"model": model.state_dict(), "imgcls": build_info(cfg, CLASSES) | entries})
        return path, cfg

    return make


@pytest.fixture(scope="session")
def exports_of(make_checkpoint, real_images, require):
    """``exports_of("softmax")``: ``(N, 3, S, S)``, a temperature; ``"sigmoid"``: ``(N, S, S, 3)`` and thresholds."""

    @cache
    def export(head: str) -> Exports:
        for package in ("onnxscript", "onnxruntime", "openvino"):
            require(package)
        entries = {"thresholds": {"classes": [0.2, 0.5, 0.7]}} if head == "sigmoid" else {"temperature": 1.7}
        path, cfg = make_checkpoint(head, **entries)
        found = Exports(path, real_images, cfg, entries.get("temperature", 1.0))
        for suffix in (".onnx", ".pt2", ".xml", ".ts"):
            export_classifier(path, found.path(suffix), found.verify, nhwc=head == "sigmoid")
        return found

    return export


@pytest.fixture(scope="session")
def exports(exports_of):
    """The softmax classifier."""
    return exports_of("softmax")

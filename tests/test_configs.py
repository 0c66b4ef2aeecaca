"""Every config loads, builds, runs forward, and has exactly the parameters and multiply-accumulates on record."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from imgcls.config import check_cfg, load_cfg
from imgcls.report.complexity import DETECTOR_SIZE, count_complexity

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
GOLDENS = json.loads((CONFIGS / "complexity.json").read_text())

# Parameters, of them trunk, and multiply-accumulates at 224 pixels and 1,000 classes. V1: the paper's networks
# (arXiv 1704.04861, tables 1, 5 and 6) with affine norms; V2: torchvision's mobilenet_v2.
PUBLISHED = {
    "ImageNet/mnetv1_100.yaml": (4_231_976, 3_206_976, 568_740_352),
    "ImageNet/mnetv1_075.yaml": (2_585_560, 1_816_560, 325_400_448),
    "ImageNet/mnetv1_050.yaml": (1_331_592, 818_592, 149_497_088),
    "ImageNet/mnetv1_025.yaml": (470_072, 213_072, 41_030_272),
    "ImageNet/mnetv1_100_shallow.yaml": (2_887_976, 1_862_976, 307_323_392),
    "ImageNet/mnetv2_100.yaml": (3_504_872, 1_811_712, 300_774_272),
}


def test_there_is_a_golden_for_every_config_and_no_other():
    assert sorted(GOLDENS) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_config_passes_the_check_runs_forward_and_has_its_golden_size(name):
    # Few proposals: their number changes the time and not the size.
    few = ["MODEL.RPN.POST_NMS_TOPK_TEST", "20", "MODEL.RETINANET.TOPK_CANDIDATES_TEST", "20"]
    cfg = load_cfg(str(CONFIGS / name), ["MODEL.DEVICE", "cpu", *few])
    check_cfg(cfg)
    if cfg.MODEL.CLSNET.NUM_CLASSES == -1:
        cfg.MODEL.CLSNET.NUM_CLASSES = 1000  # as complexity.json counts it
    model = build_model(cfg).eval()
    classifier = cfg.MODEL.META_ARCHITECTURE == "ClsNet"
    size = cfg.MODEL.CLSNET.INPUT_SIZE if classifier else 64
    with torch.no_grad():
        (results,) = model([{"image": torch.randint(0, 256, (3, size, size), dtype=torch.uint8)}])
    if classifier:
        assert results["pred_classes"].shape == (5,)
        assert ("probs" in results) == (cfg.MODEL.CLSNET.HEAD == "sigmoid")
    else:
        assert results["instances"].image_size == (size, size)
    assert count_complexity(model, size if classifier else DETECTOR_SIZE) == GOLDENS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_are_hit_exactly(name):
    golden = GOLDENS[name]
    assert (golden["parameters"], golden["trunk"], golden["macs"]) == PUBLISHED[name]

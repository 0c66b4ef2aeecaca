"""Every YAML file under configs/: it loads, builds, runs forward, and is exactly as large as it should be."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from imgcls.config import check_cfg, load_cfg
from imgcls.report.complexity import build_complexity

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
def test_config_passes_the_check_and_has_its_golden_size(name):
    cfg = load_cfg(str(CONFIGS / name))
    check_cfg(cfg)
    assert build_complexity(cfg) == GOLDENS[name]


@pytest.mark.parametrize("name", FILES)
def test_config_runs_forward(name):
    cfg = load_cfg(str(CONFIGS / name), ["MODEL.DEVICE", "cpu", "MODEL.CLSNET.NUM_CLASSES", "7"])
    model = build_model(cfg).eval()
    size = cfg.MODEL.CLSNET.INPUT_SIZE
    with torch.no_grad():
        results = model([{"image": torch.randint(0, 256, (3, size, size), dtype=torch.uint8)}])
    if cfg.MODEL.META_ARCHITECTURE != "ClsNet":
        assert results[0]["instances"].image_size == (size, size)
        return
    assert results[0]["pred_classes"].shape == (5,) and ("probs" in results[0]) == (cfg.MODEL.CLSNET.HEAD == "sigmoid")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_are_hit_exactly(name):
    golden = GOLDENS[name]
    assert (golden["parameters"], golden["trunk"], golden["macs"]) == PUBLISHED[name]


def test_the_readmes_table_is_made_from_the_goldens():
    rows = runpy.run_path(str(ROOT / "tools" / "model_complexity.py"))["table_rows"](GOLDENS)
    assert "\n".join(rows) in (ROOT / "README.md").read_text()


def test_a_config_of_the_2020_project_loads_builds_and_trains(tmp_path, tiny_cfg, run_script):
    """Its Base_image_cls.yaml, and its default for IN_FEATURES written out."""
    old = tmp_path / "old.yaml"
    old.write_text(
        """
MODEL:
  META_ARCHITECTURE: "ClsNet"
  BACKBONE:
    NAME: "build_mnetv1_backbone"
    FREEZE_AT: 0
  MNET:
    OUT_FEATURES: ['linear']
    WIDTH_MULT: 0.25
  CLSNET:
    ENABLE: True
    NUM_CLASSES: 1000
    IN_FEATURES: ['linear']
    INPUT_SIZE: 224
DATASETS:
  TRAIN: ("imagenet_train", )
  TEST: ("imagenet_val", )
DATALOADER:
  ASPECT_RATIO_GROUPING: False
  NUM_WORKERS: 4
SOLVER:
  IMS_PER_BATCH: 512
  BASE_LR: 0.1
  STEPS: (150000, 180000)
  MAX_ITER: 200000
INPUT:
  CROP:
    ENABLED: True
VERSION: 2
"""
    )
    cfg = load_cfg(str(old))
    check_cfg(cfg)
    assert build_complexity(cfg) == GOLDENS["ImageNet/mnetv1_025.yaml"]
    sets = [x for key in ("TRAIN", "TEST") for x in (f"DATASETS.{key}", str(tiny_cfg.DATASETS[key]))]
    small = ["MODEL.CLSNET.NUM_CLASSES", 3, "MODEL.CLSNET.INPUT_SIZE", 32, "SOLVER.IMS_PER_BATCH", 4]
    once = ["SOLVER.MAX_ITER", 2, "SOLVER.WARMUP_ITERS", 0, "DATALOADER.NUM_WORKERS", 0]
    args = [*sets, *small, *once, "OUTPUT_DIR", tmp_path / "old run"]
    assert run_script("train_net_builtin.py", "--num-gpus", 0, "--config-file", old, *args)[0] == 0
    assert (tmp_path / "old run" / "model_final.pth").exists()

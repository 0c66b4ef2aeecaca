"""Short runs of the quickstart configs on the real images reach an accuracy."""

from pathlib import Path

import pytest

from imgcls.config import load_cfg
from imgcls.engine import Trainer, resolve_from_data

CONFIGS = Path(__file__).parent.parent / "configs" / "quickstart"


# Chance level is 10 % top-1, and an mAP of about 22: the share of the mosaics that contain a digit.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "iterations", "task", "metric", "bar"),
    [("digits", 120, "accuracy", "top1", 85), ("digits_mosaic", 400, "multilabel", "mAP", 55)],
)
def test_a_short_run_reaches_the_bar(tmp_path, name, iterations, task, metric, bar):
    cfg = load_cfg(str(CONFIGS / f"{name}_mnetv1_025.yaml"), ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path)])
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS = iterations, iterations // 10
    cfg.TEST.EVAL_PERIOD = 0
    cfg.DATALOADER.NUM_WORKERS = 0
    resolve_from_data(cfg)
    trainer = Trainer(cfg)
    trainer.train()
    results = Trainer.test(cfg, trainer.model)
    assert results[task][metric] >= bar

"""The two trainers: with the same config they do the same arithmetic."""

import json
import os
import signal

import pytest
import torch
from detectron2.utils.events import EventStorage

from imgcls.engine import PlainTrainer, Trainer, resolve_from_data
from imgcls.engine.step import TrainStep

TIMES = {"time", "data_time", "rank_data_time", "eta_seconds"}


@pytest.fixture
def cfg(tiny_cfg):
    """20 iterations with everything switched on that draws random numbers or keeps a state."""
    tiny_cfg.merge_from_list(
        [
            "SOLVER.MAX_ITER", "20", "SOLVER.BASE_LR", "0.01", "SOLVER.STEPS", "(8, 15)", "SOLVER.WARMUP_ITERS", "4",
            "SOLVER.LOG_PERIOD", "1", "SOLVER.EMA_DECAY", "0.9", "SOLVER.ACCUM_STEPS", "2",
            "SOLVER.CHECKPOINT_PERIOD", "5", "MODEL.CLSNET.DROPOUT", "0.3",
            "SOLVER.HEAD_ONLY_EPOCHS", "2", "SOLVER.BACKBONE_MULTIPLIER", "0.5",
            "TEST.EVAL_PERIOD", "5", "TEST.TOPK", "(1, 2)",
        ]
    )  # fmt: skip
    resolve_from_data(tiny_cfg)
    return tiny_cfg


def run_first(cfg, folder):
    cfg.OUTPUT_DIR = str(folder)
    torch.manual_seed(cfg.SEED)  # as engine.setup does
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return trainer


def run_second(cfg, folder):
    cfg.OUTPUT_DIR = str(folder)
    torch.manual_seed(cfg.SEED)
    trainer = PlainTrainer(cfg)
    trainer.load()
    trainer.train()
    return trainer


def read_lines(folder):
    """Lines of metrics.json without what differs from run to run by nature."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES and "train/" not in key} for line in lines]


def assert_same(one, other, path=""):
    """Nested states are equal to the bit."""
    if torch.is_tensor(one):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    else:
        assert one == other, path


def test_same_losses_rates_results_and_weights(cfg, tmp_path):
    first, second = run_first(cfg, tmp_path / "first"), run_second(cfg, tmp_path / "second")
    lines = read_lines(tmp_path / "first")
    assert [line["iteration"] for line in lines] == list(range(20)) and all("total_loss" in line for line in lines)
    assert "ema/accuracy/top1" in lines[-1]
    assert read_lines(tmp_path / "second") == lines
    assert second.results == first._last_eval_results
    one = torch.load(tmp_path / "first" / "model_final.pth", weights_only=True)
    other = torch.load(tmp_path / "second" / "checkpoint.pth", weights_only=True)
    for key in ("model", "optimizer", "scheduler", "ema", "best", "iteration"):
        assert_same(one[key], other[key], key)


def test_same_images_pixel_for_pixel(cfg, tmp_path):
    with EventStorage():
        first, second = iter(Trainer(cfg).data_loader), iter(PlainTrainer(cfg).loader)
    for _ in range(40):
        one, other = next(first), next(second)
        assert one["image_id"] == other["image_id"] and torch.equal(one["image"], other["image"])


@pytest.mark.parametrize(("begin", "number"), [(run_first, signal.SIGTERM), (run_second, signal.SIGUSR1)])
def test_either_goes_on_where_the_other_was_preempted(cfg, tmp_path, monkeypatch, begin, number):
    """Also a proof that a checkpoint holds all that a run is."""
    run_first(cfg, tmp_path / "whole")
    before = signal.getsignal(number)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
        send_signal(patch, number, iteration=7)
        begin(cfg, tmp_path / "half")
    assert left.value.code == 75
    assert signal.getsignal(number) != before, "until the process has ended, another signal changes nothing"
    signal.signal(number, before)
    assert (tmp_path / "half" / "last_checkpoint").read_text() == "model_0000007.pth"
    if begin is run_first:
        cfg.OUTPUT_DIR = str(tmp_path / "half")
        trainer = PlainTrainer(cfg)
        trainer.load(resume=cfg.OUTPUT_DIR)
        assert trainer.run_state.first == 8
    else:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=True)
        assert trainer.start_iter == 8
    trainer.train()
    assert signal.getsignal(number) == before
    saved = torch.load(tmp_path / "half" / "model_final.pth", weights_only=True)
    wanted = torch.load(tmp_path / "whole" / "model_final.pth", weights_only=True)
    for key in ("model", "optimizer", "scheduler", "ema", "best", "iteration"):
        assert_same(saved[key], wanted[key], key)
    assert read_lines(tmp_path / "half") == read_lines(tmp_path / "whole")


def send_signal(patch, number, iteration):
    """The scheduler's signal comes in the middle of an iteration."""
    real = TrainStep.__call__

    def call(self, batches, now):
        if now == iteration:
            os.kill(os.getpid(), number)
        return real(self, batches, now)

    patch.setattr(TrainStep, "__call__", call)

"""Both trainers on packed data."""

import json

import pytest
import torch

from imgcls.data.shards.pack import pack_dataset
from imgcls.engine import PlainTrainer, Trainer, resolve_from_data
from imgcls.engine.step import TrainStep


@pytest.fixture
def cfg(tiny_cfg, tmp_path):
    """12 images in 6 shards; an epoch is 3 iterations."""
    for name in ("train", "test"):
        pack_dataset(f"folder:{tmp_path / name}", str(tmp_path / "packed" / name), shard_size=2 * 6144)
    tiny_cfg.merge_from_list(
        [
            "DATASETS.TRAIN", f"('shards:{tmp_path}/packed/train/{{000000..000005}}.tar',)",
            "DATASETS.TEST", f"('shards:{tmp_path}/packed/test',)",
            "SOLVER.MAX_ITER", "8", "SOLVER.STEPS", "()", "SOLVER.CHECKPOINT_PERIOD", "4", "SOLVER.LOG_PERIOD", "1",
        ]
    )  # fmt: skip
    resolve_from_data(tiny_cfg)
    return tiny_cfg


def first(cfg, resume=False):
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer


def second(cfg, resume=False):
    trainer = PlainTrainer(cfg)
    trainer.load(resume=cfg.OUTPUT_DIR if resume else None)
    return trainer


def run(cfg, folder, make, resume=False):
    cfg.OUTPUT_DIR = str(folder)
    torch.manual_seed(cfg.SEED)
    trainer = make(cfg, resume)
    trainer.train()
    saved = torch.load(trainer.run_state.checkpointer.get_checkpoint_file(), weights_only=True)
    losses = [json.loads(line)["total_loss"] for line in (folder / "metrics.json").read_text().splitlines()]
    return saved, losses


@pytest.mark.parametrize("make", [first, second])
def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_exactly(cfg, tmp_path, monkeypatch, make):
    whole, losses = run(cfg, tmp_path / "whole", make)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, iteration=5)
        run(cfg, tmp_path / "half", make)
    # The checkpoint is of iteration 3, the first of the second epoch.
    resumed, resumed_losses = run(cfg, tmp_path / "half", make, resume=True)
    assert len(losses) == 8 and resumed_losses[-4:] == losses[-4:]
    assert resumed["iteration"] == whole["iteration"]
    assert all(torch.equal(resumed["model"][key], whole["model"][key]) for key in whole["model"])


def interrupt(patch, iteration):
    real = TrainStep.__call__

    def call(self, batches, now):
        if now == iteration:
            raise KeyboardInterrupt
        return real(self, batches, now)

    patch.setattr(TrainStep, "__call__", call)


def test_both_trainers_see_the_same(cfg, tmp_path):
    (one, one_losses), (other, other_losses) = (run(cfg, tmp_path / m.__name__, m) for m in (first, second))
    assert one_losses == other_losses
    assert all(torch.equal(one["model"][key], other["model"][key]) for key in one["model"])


def test_evaluation_is_that_of_the_originals(cfg, tmp_path):
    """Small PNG files are stored as they are."""
    cfg.TEST.EVAL_PERIOD, results = 0, []
    for test in (cfg.DATASETS.TEST[0], f"folder:{tmp_path / 'test'}"):
        cfg.DATASETS.TEST = (test,)
        trainer = Trainer(cfg)
        results.append(Trainer.test(cfg, trainer.model.train(False)))
        torch.manual_seed(0)
    assert results[0]["accuracy"].keys() and results[0] == results[1]

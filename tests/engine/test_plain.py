import os
from unittest.mock import Mock

import pytest
import torch

from imgcls.engine import PlainTrainer, resolve_from_data
from imgcls.engine.plain import _link


@pytest.fixture
def trainer(tiny_cfg):
    resolve_from_data(tiny_cfg)
    return PlainTrainer(tiny_cfg)


def test_trains_every_weight_and_gives_the_last_results(trainer):
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.load()
    results = trainer.train()
    assert [name for name, value in trainer.model.named_parameters() if torch.equal(value, before[name])] == []
    assert results is trainer.results and 0 <= results["accuracy"]["top1"] <= 100


def test_weights_to_start_from_are_loaded_without_anything_else(trainer, tiny_cfg, tmp_path):
    trainer.train()
    tiny_cfg.MODEL.WEIGHTS = str(tmp_path / "output" / "checkpoint.pth")
    other = PlainTrainer(tiny_cfg)
    other.load()
    run = other.run_state
    assert run.first == 0 and not run.optimizer.state and run.best.iteration == -1
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value), name


def test_a_folder_with_nothing_to_go_on_from(trainer, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        trainer.load(resume=str(tmp_path))


@pytest.mark.parametrize("links", [True, False])
def test_second_name_replaces_the_one_before_and_what_a_kill_left(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", Mock(side_effect=OSError("not supported")))
    (tmp_path / "checkpoint.pth").write_text("old")
    (tmp_path / "model_1.pth").write_text("new")
    (tmp_path / "model_1.pth.link").write_text("half")
    _link(str(tmp_path / "model_1.pth"), str(tmp_path / "checkpoint.pth"))
    assert (tmp_path / "checkpoint.pth").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pth", "model_1.pth"]

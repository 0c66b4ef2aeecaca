import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator

from imgcls.checkpoint import ClsCheckpointer
from imgcls.engine import Trainer, resolve_from_data
from imgcls.evaluation import ImageNetEvaluator, MultiLabelEvaluator


@pytest.fixture
def trained(tiny_cfg):
    """A finished run of 3 iterations that evaluated at every second one."""
    tiny_cfg.TEST.EVAL_PERIOD = 2
    resolve_from_data(tiny_cfg)
    trainer = Trainer(tiny_cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return trainer


def test_a_run_writes_weights_metrics_and_results(trained, tmp_path):
    output = tmp_path / "output"
    saved = torch.load(output / "model_final.pth", weights_only=True)["imgcls"]
    assert saved["classes"] == ["blue", "green", "red"] and saved["preprocessing"]["format"] == "BGR"
    assert (output / "model_final.pth").exists() and (output / "inference").is_dir()
    assert list(output.glob("events.out.tfevents*"))
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert any("total_loss" in line for line in lines)
    assert any("accuracy/top1" in line for line in lines)
    assert 0 <= trained._last_eval_results["accuracy"]["top1"] <= 100


def test_every_weight_moves(tiny_cfg):
    resolve_from_data(tiny_cfg)
    trainer = Trainer(tiny_cfg)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    assert [name for name, value in trainer.model.named_parameters() if torch.equal(value, before[name])] == []


def test_it_learns_what_can_be_learnt(tiny_cfg):
    """Classes that differ by one colour channel, in 40 iterations."""
    tiny_cfg.SOLVER.MAX_ITER, tiny_cfg.SOLVER.IMS_PER_BATCH, tiny_cfg.SOLVER.BASE_LR = 80, 12, 0.01
    resolve_from_data(tiny_cfg)
    trainer = Trainer(tiny_cfg)
    trainer.train()
    assert trainer._last_eval_results["accuracy"]["top1"] == 100


def test_resumed_training_goes_on_with_the_data_behind_the_checkpoint(trained, tiny_cfg):
    tiny_cfg.SOLVER.MAX_ITER = 6
    trainer = Trainer(tiny_cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 3
    for key, value in trained.model.state_dict().items():
        assert torch.equal(value, trainer.model.state_dict()[key]), key
    resumed = next(trainer._trainer._data_loader_iter)
    stream = iter(Trainer.build_train_loader(tiny_cfg))
    for _ in range(3):
        next(stream)
    assert resumed["image_id"] == next(stream)["image_id"]


def test_evaluators_by_head_and_by_model(tiny_cfg):
    resolve_from_data(tiny_cfg)
    name = tiny_cfg.DATASETS.TEST[0]
    tiny_cfg.TEST.TOPK, tiny_cfg.TEST.THRESHOLD = [1, 2], 0.3
    softmax = Trainer.build_evaluator(tiny_cfg, name, classes=["blue", "green", "red"])
    assert isinstance(softmax, ImageNetEvaluator) and softmax.topk == [1, 2]
    tiny_cfg.MODEL.CLSNET.HEAD = "sigmoid"
    sigmoid = Trainer.build_evaluator(tiny_cfg, name, classes=["blue", "green", "red"])
    assert isinstance(sigmoid, MultiLabelEvaluator) and sigmoid.threshold == 0.3


def test_a_detector_gets_detectron2s_own_parts(tiny_cfg, tmp_path):
    (tmp_path / "coco.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    MetadataCatalog.get("imgcls_test_coco").set(json_file=str(tmp_path / "coco.json"), evaluator_type="coco")
    tiny_cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    assert isinstance(Trainer.build_evaluator(tiny_cfg, "imgcls_test_coco"), COCOEvaluator)
    assert not isinstance(Trainer.build_checkpointer(tiny_cfg, torch.nn.Linear(1, 1)), ClsCheckpointer)


def test_several_test_sets_get_a_folder_each(tiny_cfg, tmp_path, write_folder):
    other = write_folder(tmp_path / "other set", {"red": 2})
    tiny_cfg.DATASETS.TEST = (*tiny_cfg.DATASETS.TEST, f"folder:{other}")
    resolve_from_data(tiny_cfg)
    Trainer.test(tiny_cfg, Trainer.build_model(tiny_cfg))
    folders = [path.name for path in (tmp_path / "output" / "inference").iterdir() if path.is_dir()]
    assert len(folders) == 2 and all(name.startswith("folder_") and "/" not in name for name in folders)


class OwnLoader(Trainer):
    """What a user's subclass may do."""

    @classmethod
    def build_train_loader(cls, cfg):
        return list(islice(iter(super().build_train_loader(cfg)), 3))


def test_a_subclass_may_train_on_a_loader_of_its_own(tiny_cfg):
    resolve_from_data(tiny_cfg)
    trainer = OwnLoader(tiny_cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert "top1" in trainer._last_eval_results["accuracy"]


TWO_PROCESSES = """
import json, os, sys
import torch.distributed as dist
from imgcls.config import load_cfg
from imgcls.engine import Trainer, resolve_from_data
rank = 0 if os.fork() else 1
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
cfg = load_cfg(sys.argv[1])
datasets = resolve_from_data(cfg)
model = Trainer.build_model(cfg)
Trainer.build_checkpointer(cfg, model, datasets.classes).load(cfg.MODEL.WEIGHTS)
if rank == 1:
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.mul_(-3)
results = Trainer.test(cfg, model)
if rank == 0:
    print(json.dumps(results))
    os.wait()
"""


def test_two_processes_evaluate_with_the_statistics_of_the_first(trained, tiny_cfg, tmp_path):
    """BN statistics drift apart on several processes; three of five images are scored by the first one."""
    tiny_cfg.MODEL.WEIGHTS = str(tmp_path / "output" / "model_final.pth")
    single = Trainer.test(tiny_cfg, trained.model)
    predictions = tmp_path / "output" / "inference" / "predictions.csv"
    expected = predictions.read_text()
    predictions.unlink()
    (tmp_path / "two.yaml").write_text(tiny_cfg.dump())
    command = [sys.executable, "-W", "ignore", "-c", TWO_PROCESSES, tmp_path / "two.yaml", tmp_path / "rendezvous"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(out.stdout.splitlines()[-1]) == single
    assert predictions.read_text() == expected


def test_the_line_of_an_iteration_has_no_loss_of_an_evaluation(tiny_cfg, caplog):
    """detectron2 prints the median of everything that is called a loss."""
    tiny_cfg.merge_from_list(["TEST.EVAL_PERIOD", 1, "SOLVER.LOG_PERIOD", 1])
    caplog.set_level("INFO")
    trainer = Trainer(tiny_cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    lines = [r.getMessage() for r in caplog.records if r.name == "detectron2.utils.events"]
    assert len(lines) == 3 and all("total_loss: " in line and "accuracy/loss" not in line for line in lines)
    written = (Path(tiny_cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    assert all('"accuracy/loss": ' in line for line in written)
    assert "accuracy/loss" in trainer.storage.histories()

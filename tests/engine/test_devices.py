"""Whole runs on the CPU and, if there is one, on a GPU: the same tests, so that those for the GPU are known to work."""

import os
import signal

import pytest
import torch
from detectron2.modeling import build_model

from imgcls.cli import train, train_plain
from imgcls.data.catalog import read_datasets
from imgcls.engine import PlainTrainer, Trainer, evaluate, resolve_from_data
from imgcls.engine.preempt import EXIT_CODE
from imgcls.engine.step import NonFiniteLossError, TrainStep, build_step
from imgcls.inference import Predictor
from imgcls.solver import build_ema

on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]
CUDA = pytest.param("cuda", marks=on_gpu)
PRECISIONS = [None, "float16", "bfloat16"]


@pytest.fixture(params=["cpu", CUDA])
def cfg(request, tiny_cfg):
    """Eight iterations on a device, with everything that keeps a state there."""
    tiny_cfg.merge_from_list(
        [
            "MODEL.DEVICE", request.param, "SOLVER.MAX_ITER", "8", "SOLVER.BASE_LR", "0.01", "SOLVER.EMA_DECAY", "0.9",
            "SOLVER.LOG_PERIOD", "2", "SOLVER.ACCUM_STEPS", "2", "TEST.EVAL_PERIOD", "4", "TEST.TOPK", "(1, 2)",
        ]
    )  # fmt: skip
    resolve_from_data(tiny_cfg)
    return tiny_cfg


def run(trainer_class, cfg, folder, resume=False):
    """Trains in a folder and returns the final checkpoint."""
    cfg.OUTPUT_DIR = str(folder)
    torch.manual_seed(cfg.SEED)
    trainer = trainer_class(cfg)
    if trainer_class is Trainer:
        trainer.resume_or_load(resume=resume)
    else:
        trainer.load(str(folder) if resume else "")
    assert next(trainer.model.parameters()).device.type == cfg.MODEL.DEVICE
    trainer.train()
    return torch.load(folder / "model_final.pth", weights_only=True)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("trainer_class", [Trainer, PlainTrainer])
def test_a_preempted_run_resumes_on_its_device(cfg, tmp_path, monkeypatch, trainer_class, precision):
    if precision:
        cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.PRECISION = True, precision
    whole = run(trainer_class, cfg, tmp_path / "whole")
    step, calls = TrainStep.__call__, []

    def step_and_send(self, *args):
        calls.append(args)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    monkeypatch.setattr(TrainStep, "__call__", step_and_send)
    with pytest.raises(SystemExit) as left:
        run(trainer_class, cfg, tmp_path / "resumed")
    assert left.value.code == EXIT_CODE and len(calls) < 8
    resumed = run(trainer_class, cfg, tmp_path / "resumed", resume=True)
    exact = cfg.MODEL.DEVICE == "cpu"  # cuDNN may choose another algorithm in another process
    for part in ("model", "ema"):
        for name, value in whole[part].items():
            tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-2, "atol": 1e-2}
            torch.testing.assert_close(resumed[part][name], value, **tolerance, msg=f"{part}.{name}")


@pytest.mark.parametrize("cfg", [CUDA], indirect=True)
def test_a_compiled_network_trains_on_a_gpu(cfg, tmp_path):
    cfg.MODEL.COMPILE = True
    final = run(PlainTrainer, cfg, tmp_path / "run")
    assert all(value.isfinite().all() for value in final["model"].values())


@pytest.mark.parametrize("trainer_class", [Trainer, PlainTrainer])
def test_a_loss_that_is_not_finite_ends_the_run_before_anything_is_saved(cfg, tmp_path, monkeypatch, trainer_class):
    cfg.SOLVER.CHECKPOINT_PERIOD = 2
    forward, calls = TrainStep._forward, []

    def forward_and_break(self, batch):
        calls.append(batch)
        losses = forward(self, batch)
        return {"loss_cls": losses["loss_cls"] * torch.nan} if len(calls) == 7 else losses

    monkeypatch.setattr(TrainStep, "_forward", forward_and_break)
    with pytest.raises(NonFiniteLossError, match="at iteration 3"):
        run(trainer_class, cfg, tmp_path / "run")
    saved = [path.name for path in (tmp_path / "run").glob("model_*.pth")]
    assert "model_0000001.pth" in saved and max(saved) < "model_0000003.pth"


def test_evaluation_and_prediction_are_those_of_the_cpu(cfg, tmp_path):
    run(PlainTrainer, cfg, tmp_path / "run")
    path = str(tmp_path / "run" / "model_final.pth")
    records = read_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST).test[0].records
    files = [record["file_name"] for record in records]
    scores = [
        torch.stack([prediction.scores for prediction in Predictor.from_checkpoint(path, device).predict(files)])
        for device in ("cpu", cfg.MODEL.DEVICE)
    ]
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-3, atol=1e-3)
    cfg.MODEL.WEIGHTS = path
    results = evaluate(Trainer, cfg)
    labels = torch.tensor([record["label"] for record in records])
    right = (scores[0].argmax(1) == labels).float().mean().item()
    assert results["ema"]["accuracy"]["top1"] == pytest.approx(100 * right)


@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_a_step_does_not_wait_for_the_device(cfg, precision):
    """An ``item()``, a boolean test or a copy from unpinned memory would be an error on a GPU."""
    if precision:
        cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.PRECISION = True, precision
    model = build_model(cfg).train()
    step = build_step(cfg, model, torch.optim.SGD(model.parameters(), 0.01), build_ema(cfg, model))
    batch = {
        "image": torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8),
        "label": torch.tensor([0, 1, 2, 0]),
        "image_id": list("abcd"),
    }
    batch = {key: value.to(cfg.MODEL.DEVICE) if torch.is_tensor(value) else value for key, value in batch.items()}
    step(iter([batch] * 2), 0)  # cuDNN's first calls may wait
    if cfg.MODEL.DEVICE == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        losses, _ = step(iter([batch] * 2), 1)
    finally:
        if cfg.MODEL.DEVICE == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    step.finite.check()
    assert losses["loss_cls"].device.type == cfg.MODEL.DEVICE and losses["loss_cls"].isfinite()


@pytest.mark.parametrize("verb", [train, train_plain])
def test_the_commands_choose_the_device(cfg, tmp_path, monkeypatch, verb):
    with open(tmp_path / "config.yaml", "w") as file:
        cfg.OUTPUT_DIR = str(tmp_path / "run")
        file.write(cfg.dump())
    on_cpu = cfg.MODEL.DEVICE == "cpu"
    if verb is train:
        flags = ["--num-gpus", "0" if on_cpu else "1"]
    else:
        flags = [] if on_cpu else ["--gpu", str(torch.cuda.device_count() - 1)]
    devices = set()
    step = TrainStep.__call__

    def note(self, *args):
        devices.add(next(self.model.parameters()).device)
        return step(self, *args)

    monkeypatch.setattr(TrainStep, "__call__", note)
    verb.main(["--config-file", str(tmp_path / "config.yaml"), *flags])
    last = torch.cuda.device_count() - 1
    expected = "cpu" if on_cpu else "cuda:0" if verb is train else f"cuda:{last}"
    assert devices == {torch.device(expected)}
    assert (tmp_path / "run" / "model_final.pth").is_file()

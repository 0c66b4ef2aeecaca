"""States that a run has only with an option, over a kill."""

import json

import torch
from harness.compare import differences
from harness.faults import RANDOM, Fault
from harness.survive import SCRIPTS, Job, strike, survive

MOMENTS = ["at an iteration border", RANDOM, "in evaluation"]


def test_mixed_precision(images, whole, for_both_trainers, tmp_path):
    """With a gradient scaler, which float16 has, and without."""

    def check(script):
        scaled = script == "train_net.py"
        precision = ("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION", "float16" if scaled else "bfloat16")
        job = Job(script, (*images, *precision))
        folder, seconds = whole(job)
        assert ("grad_scaler" in torch.load(folder / "model_best.pth", weights_only=True)) == scaled
        _, runs = survive(job, tmp_path / script, MOMENTS, 0, seconds)
        for run in runs:
            assert differences(folder, run) == []

    for_both_trainers(check)


def test_early_stopping(images, whole, for_both_trainers, tmp_path):
    def check(script):
        job = Job(script, (*images, "TEST.PATIENCE", "2", "SOLVER.MAX_ITER", "300"))
        folder, seconds = whole(job)
        lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
        last = max(line["iteration"] for line in lines if "ema/accuracy/top1" in line)
        final = torch.load(folder / (folder / "last_checkpoint").read_text(), weights_only=True)
        assert final["best"]["waited"] == 2 and final["iteration"] == last < 299
        _, runs = survive(job, tmp_path / script, MOMENTS, 0, seconds)
        # And once behind the save that says that it is over.
        runs.append(tmp_path / f"{script}-last")
        saves = (folder / "process.log").read_text().count("checkpoint saved:")
        fault = Fault("between last_checkpoint and the removal of old ones", saves)
        assert strike(job, runs[-1], fault) is not None
        job.finish(runs[-1])
        for run in runs:
            assert differences(folder, run) == []

    for_both_trainers(check)


def test_precise_bn(images, whole, tmp_path):
    """It reads images of its own."""
    job = Job(SCRIPTS[0], (*images, "TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "3"))
    _, runs = survive(job, tmp_path, ["at an iteration border"] * 2, 0, 0)
    for run in runs:
        assert differences(whole(job)[0], run) == []

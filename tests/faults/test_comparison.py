"""The comparison finds what is not the same: without that, all other tests here would pass for nothing."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from harness.compare import differences
from harness.faults import Fault, Sabotage
from harness.survive import SCRIPTS, Job, strike
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from imgcls.checkpoint import ClsCheckpointer
from imgcls.data import ClsLoader
from imgcls.engine.run_state import BestTracker, RunLog

FORGOTTEN = {
    "nothing": None,
    "weights": Sabotage(ClsCheckpointer, "_load_model"),
    "momentum": Sabotage(Optimizer, "load_state_dict"),
    "schedule": Sabotage(LRScheduler, "load_state_dict"),
    "average": Sabotage(AveragedModel, "load_state_dict"),
    "best": Sabotage(BestTracker, "load_state_dict"),
    "lines": Sabotage(RunLog, "load_state_dict"),
    "images": Sabotage(ClsLoader, "start_at"),
}


@pytest.fixture
def job(images):
    return Job(SCRIPTS[0], images)


def test_a_resume_that_forgets_something_is_found_out(job, whole, tmp_path):
    killed = tmp_path / "killed"
    assert strike(job, killed, Fault("at an iteration border", 20)).resumed_from == 14

    def found(what):
        folder = shutil.copytree(killed, tmp_path / what)
        attempt = job.start(folder, {0: FORGOTTEN[what]} if FORGOTTEN[what] else None)
        assert attempt.wait() == [0], attempt.said()
        return differences(whole(job)[0], folder) != []

    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip(FORGOTTEN, pool.map(found, FORGOTTEN), strict=True))
    assert answers == {what: what != "nothing" for what in FORGOTTEN}


def test_another_seed(job, whole):
    found = differences(whole(job)[0], whole(Job(job.script, (*job.options, "SEED", "8")))[0])
    for name in ("model_final.pth.model.head", "metrics.json[0].total_loss", "inference/predictions.csv"):
        assert any(name in place for place in found), name


def one_bit(folder):
    checkpoint = torch.load(folder / "model_best.pth", weights_only=True)
    weight = next(value for value in checkpoint["ema"].values() if value.dtype == torch.float32 and value.dim() == 1)
    weight.view(torch.int32)[0] ^= 1
    torch.save(checkpoint, folder / "model_best.pth")


def change_lines(folder, change):
    lines = (folder / "metrics.json").read_text().splitlines(keepends=True)
    (folder / "metrics.json").write_text("".join(change(lines)))


def one_digit(folder):
    change_lines(folder, lambda lines: [json.dumps(json.loads(lines[0]) | {"lr": 1e-12}) + "\n", *lines[1:]])


def one_line_less(folder):
    change_lines(folder, lambda lines: lines[:-1])


def one_line_twice(folder):
    change_lines(folder, lambda lines: [*lines, lines[-1]])


@pytest.mark.parametrize("change", [one_bit, one_digit, one_line_less, one_line_twice])
def test_the_smallest_differences(change, job, whole, tmp_path):
    folder = shutil.copytree(whole(job)[0], tmp_path / "copy")
    assert differences(whole(job)[0], folder) == []
    change(folder)
    assert len(differences(whole(job)[0], folder)) == 1
